/*
 * The guest that tells whether its disk can be trusted.
 *
 * This one static program is all of a small virtual machine's user space. It counts upwards on its
 * disk and reports each number only after a real flush, so that from its reports alone an observer
 * can say which writes were acknowledged, and after a crash which of them are still there. Nothing
 * here knows about Holdfast's insides: it is an ordinary guest that happens to be honest and talkative.
 * What it writes and reports is told in counter.h.
 *
 * Kernel command line:
 *   holdfast.interval_ms=200  pause between two numbers, in ms
 *   holdfast.panic_after=N    crash the kernel right after the report of number N (once: the next
 *                             boot reads N and goes on with N + 1)
 *
 * The power button is looked at between two steps, where nothing is under way: the guest can go at
 * once, and a disk that hangs delays it until the disk answers.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>

#include "counter.h"

#define BUTTONS_MAX 8

static const char disk_path[] = "/dev/vda";
static const char port_name[] = "org.holdfast.heartbeat";

/* ---- the port --------------------------------------------------------------------------------- */

/* The port appears a moment after its driver was loaded, or never; there is no harm in looking again. */
static void port_look(void)
{
	if (port.fd >= 0)
		return;
	DIR *ports = opendir("/sys/class/virtio-ports");
	if (ports == NULL)
		return;
	for (struct dirent *entry; port.fd < 0 && (entry = readdir(ports)) != NULL;) {
		char path[300], name[64] = "";
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		ssize_t bytes = read(fd, name, sizeof name - 1);
		close(fd);
		if (bytes <= 0)
			continue;
		name[strcspn(name, "\n")] = '\0';
		if (strcmp(name, port_name) != 0)
			continue;
		snprintf(path, sizeof path, "/dev/%s", entry->d_name);
		port.fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	}
	closedir(ports);
}

/* ---- the power button ----------------------------------------------------------------------- */

static struct pollfd buttons[BUTTONS_MAX];
static int buttons_count;

/* Opens every input device: which of them is the power button shows when it is pressed. */
static void buttons_open(void)
{
	DIR *devices = opendir("/dev/input");
	if (devices == NULL)
		return;
	for (struct dirent *entry; buttons_count < BUTTONS_MAX && (entry = readdir(devices)) != NULL;) {
		char path[300];
		if (strncmp(entry->d_name, "event", 5) != 0)
			continue;
		snprintf(path, sizeof path, "/dev/input/%s", entry->d_name);
		int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			buttons[buttons_count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	closedir(devices);
}

static bool button_is_pressed(struct pollfd *button)
{
	struct input_event event;
	bool pressed = false;
	if ((button->revents & POLLIN) == 0)
		return false;
	while (read(button->fd, &event, sizeof event) == (ssize_t)sizeof event)
		pressed = pressed || (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1);
	return pressed;
}

/* Returns as soon as the button is pressed (true), or after the given time. */
static bool button_wait(long ms)
{
	if (buttons_count == 0)
		buttons_open();
	bool pressed = false;
	if (poll(buttons, buttons_count, ms) > 0)
		for (int i = 0; i < buttons_count; i++)
			pressed = button_is_pressed(&buttons[i]) || pressed;
	return pressed;
}

/* The last report may still be on its way through the serial line and the port: a moment for both. */
static void power_off(void)
{
	report("off");
	for (int waited = 0, left = 1; waited < 200 && (waited < 50 || left > 0); waited += 10) {
		poll(NULL, 0, 10);
		if (ioctl(console.fd, TIOCOUTQ, &left) != 0)
			left = 0;
	}
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

/* ---- the disk ------------------------------------------------------------------------------- */

static void pause_ms(long ms)
{
	do {
		/* Meanwhile keeps trying to greet: an observer should not wait a whole interval for it. */
		long slice = port_greet() || ms < 20 ? ms : 20;
		if (button_wait(slice))
			power_off();
		ms -= slice;
	} while (ms > 0);
}

static bool disk_read(struct disk *disk, off_t offset)
{
	ssize_t bytes = pread(disk->fd, disk->page, PAGE_BYTES, offset);
	if (bytes == PAGE_BYTES)
		return true;
	report("error read at %lld: %s", (long long)offset, bytes < 0 ? strerror(errno) : "short read");
	return false;
}

static bool disk_write(struct disk *disk, off_t offset)
{
	ssize_t bytes = pwrite(disk->fd, disk->page, PAGE_BYTES, offset);
	if (bytes == PAGE_BYTES)
		return true;
	report("error write at %lld: %s", (long long)offset, bytes < 0 ? strerror(errno) : "short write");
	return false;
}

static bool disk_flush(struct disk *disk)
{
	if (fdatasync(disk->fd) == 0)
		return true;
	report("error flush: %s", strerror(errno));
	return false;
}

/* O_DIRECT: reads come from the disk and a failed write is reported by the call that made it. */
static void disk_open(struct disk *disk)
{
	void *page;
	if (posix_memalign(&page, PAGE_BYTES, PAGE_BYTES) != 0)
		abort();
	disk->page = page;
	for (int attempt = 0;; attempt++) {
		disk->fd = open(disk_path, O_RDWR | O_DIRECT | O_CLOEXEC);
		if (disk->fd >= 0) {
			disk->bytes = lseek(disk->fd, 0, SEEK_END);
			return;
		}
		if (attempt % 100 == 99)
			report("error open %s: %s", disk_path, strerror(errno));
		pause_ms(10);
	}
}

/* ---- disks that come while it runs ------------------------------------------------------------ */

static int is_disk(const struct dirent *entry)
{
	return strncmp(entry->d_name, "vd", 2) == 0;
}

static void serial_of(const char *disk, char *serial, size_t bytes)
{
	char path[300];
	snprintf(path, sizeof path, "/sys/block/%.20s/serial", disk);
	snprintf(serial, bytes, "%.20s", disk);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t got = read(fd, serial, bytes - 1);
	close(fd);
	serial[got > 0 ? got : 0] = '\0';
	serial[strcspn(serial, "\n")] = '\0';
}

/* It answers: otherwise it is no use that it is there. */
static bool disk_answers(const char *disk, void *page)
{
	char path[300];
	snprintf(path, sizeof path, "/dev/%.20s", disk);
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	bool answers = fd >= 0 && pread(fd, page, PAGE_BYTES, 0) == PAGE_BYTES;
	if (!answers)
		report("error read of %s: %s", disk, strerror(errno));
	if (fd >= 0)
		close(fd);
	return answers;
}

static void disks_look(struct disk *disk)
{
	static char known[LINE_BYTES - 16];
	static bool is_first = true;
	static int known_count;
	char now[sizeof known] = "";
	struct dirent **entries;
	int count = scandir("/sys/block", &entries, is_disk, alphasort);
	if (count < 0)
		return;
	bool answers = true;
	for (int i = 0; i < count; i++) {
		char serial[24];
		size_t used = strlen(now);
		serial_of(entries[i]->d_name, serial, sizeof serial);
		snprintf(now + used, sizeof now - used, " %s", serial);
		if (!is_first && i >= known_count)
			answers = disk_answers(entries[i]->d_name, disk->page) && answers;
		free(entries[i]);
	}
	free(entries);
	if (!answers)
		return; /* looked at again at the next call */
	if (!is_first && strcmp(known, now) != 0)
		report("disks%s", now);
	memcpy(known, now, sizeof known);
	known_count = count;
	is_first = false;
}

static void panic(void)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "c", 1) != 1)
		report("error panic: %s", strerror(errno));
}

/* ---- start ---------------------------------------------------------------------------------- */

/* As the kernel was given it, behind a space. */
static void command_line(char *line, size_t bytes)
{
	memset(line, 0, bytes);
	line[0] = ' ';
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, line + 1, bytes - 2) < 0)
		line[1] = '\0';
	close(fd);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* The drivers lie in /modules; their file names begin with a number that gives the order. */
static void modules_load(void)
{
	struct dirent **entries;
	int count = scandir("/modules", &entries, NULL, by_name);
	for (int i = 0; i < count; i++) {
		char path[300];
		if (entries[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/modules/%s", entries[i]->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
			report("error module %s: %s", entries[i]->d_name, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
}

int main(void)
{
	mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL);
	console.fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	modules_load();
	char line[2048];
	command_line(line, sizeof line);
	struct disk disk;
	disk_open(&disk);
	count_for_ever(&disk, (long)argument_of(line, "holdfast.interval_ms=", 200),
		       argument_of(line, "holdfast.panic_after=", 0));
}
