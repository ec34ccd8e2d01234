/*
 * The guest that tells whether its disk can be trusted.
 *
 * This one static program is all of a small virtual machine's user space. It counts upwards on its
 * disk and reports each number only after a real flush, so that from its reports alone an observer
 * can say which writes were acknowledged, and after a crash which of them are still there. Nothing
 * here knows about Holdfast's insides: it is an ordinary guest that happens to be honest and talkative.
 *
 * Reports are lines of text. Each goes to the serial console as "holdfast: LINE" and to the
 * virtio-serial port "org.holdfast.heartbeat" as "LINE":
 *
 *   read N       first of all after boot: N is the last number found on the disk; 0 on a blank one
 *   verify ok K  then: K of the newest blocks that must be on the disk were compared, all are there
 *   verify bad N then: a write before N + 1 that had been flushed is missing or damaged
 *   wrote N      the number N and its block have been written and flushed
 *   disks S ...  a disk has come or gone since the boot: the serials of all that are there. Of one that
 *                has come the first page was read
 *   error TEXT   something failed (a write, a flush, a module); it is tried again
 *   off          the power button was pressed, the last step is finished, the power goes off
 *
 * Kernel command line:
 *   holdfast.interval_ms=200  pause between two numbers, in ms
 *   holdfast.panic_after=N    crash the kernel right after the report of number N (once: the next
 *                             boot reads N and goes on with N + 1)
 *
 * What is on the disk. Everything is written in pages of 4 KiB that end in a CRC-32, so a torn page
 * is seen. Number N goes to page N mod 2 at the start of the disk: a crash in the middle of writing
 * N leaves N - 1 whole. Each number also writes a block holding N somewhere in an area of up to
 * 64 MiB that starts at 1 MiB, at a place computed from N: a disk that loses or delays single writes
 * shows it there even if the number itself survived. One step is: block, number, flush, report.
 *
 * What must hold after a crash, if N is the number read: steps up to N - 1 were flushed before step
 * N began, so their blocks must be there, except where a later number has the same place. Step N
 * itself may be incomplete (its number arrived, its flush did not), and of step N + 1 the block may
 * have arrived alone; neither is a fault. Before the guest goes on it therefore repeats step N.
 *
 * The power button is looked at between two steps, where nothing is under way: the guest can go at
 * once, and a disk that hangs delays it until the disk answers.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define AREA_OFFSET (1024 * 1024)
#define AREA_BLOCKS_MAX (64 * 1024 * 1024 / PAGE_BYTES)
#define VERIFY_BLOCKS 64
#define LINE_BYTES 160
#define RETRY_MS 500
#define BUTTONS_MAX 8

static const char disk_path[] = "/dev/vda";
static const char port_name[] = "org.holdfast.heartbeat";

/* ---- pages on the disk ---------------------------------------------------------------------- */

enum page_kind { PAGE_NUMBER = 1, PAGE_BLOCK = 2 };

struct page {
	char magic[8];
	uint32_t kind;
	/* Size of the block area when the disk was first used: the places must not move if it grows. */
	uint32_t area_blocks;
	uint64_t number;
	/* Depends on the number, so that a page put together from two writes never looks whole. */
	uint64_t filler[508];
	uint32_t reserved;
	uint32_t crc;
};
_Static_assert(sizeof(struct page) == PAGE_BYTES, "a page on the disk is 4 KiB");

static const char page_magic[8] = "HFGUEST1";

/* CRC-32 as in zlib and Ethernet. */
static uint32_t crc32_of(const void *data, size_t bytes)
{
	static uint32_t table[256];
	if (table[1] == 0) {
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t c = i;
			for (int bit = 0; bit < 8; bit++)
				c = (c >> 1) ^ (c & 1 ? 0xEDB88320u : 0);
			table[i] = c;
		}
	}
	uint32_t crc = 0xFFFFFFFFu;
	for (const uint8_t *p = data; bytes > 0; bytes--, p++)
		crc = table[(crc ^ *p) & 0xFF] ^ (crc >> 8);
	return ~crc;
}

/* The finaliser of splitmix64: spreads consecutive numbers evenly over the area. */
static uint64_t scramble(uint64_t x)
{
	x += 0x9E3779B97F4A7C15u;
	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
	x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
	return x ^ (x >> 31);
}

static off_t block_offset(uint64_t number, uint32_t area_blocks)
{
	return AREA_OFFSET + (off_t)(scramble(number) % area_blocks) * PAGE_BYTES;
}

static void page_fill(struct page *page, enum page_kind kind, uint32_t area_blocks, uint64_t number)
{
	memset(page, 0, sizeof *page);
	memcpy(page->magic, page_magic, sizeof page->magic);
	page->kind = kind;
	page->area_blocks = area_blocks;
	page->number = number;
	for (size_t i = 0; i < sizeof page->filler / sizeof page->filler[0]; i++)
		page->filler[i] = number ^ (i << 48);
	page->crc = crc32_of(page, offsetof(struct page, crc));
}

static bool page_is_whole(const struct page *page, enum page_kind kind)
{
	return memcmp(page->magic, page_magic, sizeof page->magic) == 0 && page->kind == (uint32_t)kind &&
	       page->crc == crc32_of(page, offsetof(struct page, crc));
}

static bool page_is_blank(const struct page *page)
{
	const uint8_t *bytes = (const uint8_t *)page;
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, PAGE_BYTES - 1) == 0;
}

/* ---- reports -------------------------------------------------------------------------------- */

/*
 * A place where reports go. Nobody may be listening, and a report must never hold up the guest:
 * what cannot be taken now is dropped, by whole lines.
 */
struct channel {
	int fd;
	char tail[LINE_BYTES]; /* rest of a line of which only the beginning was taken */
	size_t tail_bytes;
};

static struct channel console = { .fd = -1 };
static struct channel port = { .fd = -1 };

/* The lines "read" and "verify" wait until somebody listens at the port: they come only once. */
static char greetings[2][LINE_BYTES];
static int greetings_made, greetings_sent;

/* Returns whether the line was taken (a tail still to be sent counts as taken). */
static bool channel_send(struct channel *channel, const char *line)
{
	if (channel->fd < 0)
		return false;
	if (channel->tail_bytes > 0) {
		ssize_t sent = write(channel->fd, channel->tail, channel->tail_bytes);
		if (sent > 0) {
			channel->tail_bytes -= sent;
			memmove(channel->tail, channel->tail + sent, channel->tail_bytes);
		}
		if (channel->tail_bytes > 0)
			return false;
	}
	size_t bytes = strlen(line);
	ssize_t sent = write(channel->fd, line, bytes);
	if (sent <= 0)
		return false;
	channel->tail_bytes = bytes - sent;
	memcpy(channel->tail, line + sent, channel->tail_bytes);
	return true;
}

/* The port appears a moment after its driver was loaded, or never; there is no harm in looking again. */
static void port_open(void)
{
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

/* Returns whether the port has been told all that it must hear before anything else. */
static bool port_greet(void)
{
	if (port.fd < 0)
		port_open();
	while (greetings_sent < greetings_made && channel_send(&port, greetings[greetings_sent]))
		greetings_sent++;
	return greetings_sent == greetings_made;
}

__attribute__((format(printf, 2, 3))) static void report_as(bool greeting, const char *format, ...)
{
	char text[LINE_BYTES - 16], line[LINE_BYTES];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);

	snprintf(line, sizeof line, "holdfast: %s\n", text);
	channel_send(&console, line);

	snprintf(line, sizeof line, "%s\n", text);
	if (greeting) {
		memcpy(greetings[greetings_made++], line, sizeof line);
		port_greet();
	} else if (port_greet()) {
		channel_send(&port, line);
	}
}

#define report(...) report_as(false, __VA_ARGS__)
#define report_greeting(...) report_as(true, __VA_ARGS__)

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

struct disk {
	int fd;
	uint32_t area_blocks; /* 0: the disk is too small for an area */
	struct page *page;    /* aligned as O_DIRECT needs it */
};

/* Waits, unless the power button is pressed: then it does not return. */
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

/* O_DIRECT: reads come from the disk and a failed write is reported by the call that made it. */
static void disk_open(struct disk *disk)
{
	void *page;
	if (posix_memalign(&page, PAGE_BYTES, PAGE_BYTES) != 0)
		abort();
	disk->page = page;
	for (int attempt = 0;; attempt++) {
		disk->fd = open(disk_path, O_RDWR | O_DIRECT | O_CLOEXEC);
		if (disk->fd >= 0)
			return;
		if (attempt % 100 == 99)
			report("error open %s: %s", disk_path, strerror(errno));
		pause_ms(10);
	}
}

static uint32_t area_blocks_of(const struct disk *disk)
{
	off_t bytes = lseek(disk->fd, 0, SEEK_END);
	if (bytes < AREA_OFFSET + PAGE_BYTES)
		return 0;
	off_t blocks = (bytes - AREA_OFFSET) / PAGE_BYTES;
	return blocks < AREA_BLOCKS_MAX ? blocks : AREA_BLOCKS_MAX;
}

struct found {
	uint64_t number;
	uint64_t missing; /* number that should be in the other page but is not; 0 if all is well */
};

/* Reads the two number pages and takes the newer whole one. Retries until the disk answers. */
static struct found disk_find_number(struct disk *disk)
{
	struct found found = { 0, 0 };
	uint64_t numbers[2] = { 0, 0 };
	bool damaged[2];

	disk->area_blocks = area_blocks_of(disk);
	for (int i = 0; i < 2; i++) {
		while (!disk_read(disk, i * PAGE_BYTES))
			pause_ms(RETRY_MS);
		bool whole = page_is_whole(disk->page, PAGE_NUMBER);
		damaged[i] = !whole && !page_is_blank(disk->page);
		if (whole) {
			numbers[i] = disk->page->number;
			disk->area_blocks = disk->page->area_blocks;
		}
	}
	found.number = numbers[0] > numbers[1] ? numbers[0] : numbers[1];

	/* With N found, the other page holds N - 1 or a torn N + 1; a crash can leave nothing else. */
	int other = (found.number + 1) % 2;
	if (damaged[0] && damaged[1])
		report("error no whole number on the disk");
	else if (found.number > 1 && !damaged[other] && numbers[other] != found.number - 1)
		found.missing = found.number - 1;
	return found;
}

/*
 * Checks the newest blocks that a crash cannot excuse. Looks from the newest number down, so a place
 * that several numbers share is judged by the newest of them and met once.
 */
static void disk_verify(struct disk *disk, struct found found)
{
	off_t seen[VERIFY_BLOCKS];
	int count = 0;

	if (found.missing != 0) {
		report_greeting("verify bad %llu", (unsigned long long)found.missing);
		return;
	}
	for (uint64_t n = found.number; disk->area_blocks > 0 && n-- > 1 && found.number - n <= VERIFY_BLOCKS;) {
		off_t offset = block_offset(n, disk->area_blocks);
		bool met = false;
		for (int i = 0; i < count; i++)
			met = met || seen[i] == offset;
		if (met)
			continue;
		while (!disk_read(disk, offset))
			pause_ms(RETRY_MS);
		uint64_t is = page_is_whole(disk->page, PAGE_BLOCK) ? disk->page->number : 0;
		/* The last step and the one after it may have been under way: their blocks excuse. A torn
		 * block of theirs does too. */
		bool last_here = block_offset(found.number, disk->area_blocks) == offset;
		bool next_here = block_offset(found.number + 1, disk->area_blocks) == offset;
		bool excused = (last_here && (is == found.number || is == 0)) ||
			       (next_here && (is == found.number + 1 || is == 0));
		if (is != n && !excused) {
			report_greeting("verify bad %llu", (unsigned long long)n);
			return;
		}
		seen[count++] = offset;
	}
	report_greeting("verify ok %d", count);
}

/* One step: block, number, flush. False (and reported) if any of them failed. */
static bool disk_step(struct disk *disk, uint64_t number)
{
	if (disk->area_blocks > 0) {
		page_fill(disk->page, PAGE_BLOCK, disk->area_blocks, number);
		if (!disk_write(disk, block_offset(number, disk->area_blocks)))
			return false;
	}
	page_fill(disk->page, PAGE_NUMBER, disk->area_blocks, number);
	if (!disk_write(disk, number % 2 * PAGE_BYTES))
		return false;
	if (fdatasync(disk->fd) != 0) {
		report("error flush: %s", strerror(errno));
		return false;
	}
	return true;
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

/* Tells when the disks are not those of the last call. */
static void disks_look(void *page)
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
			answers = disk_answers(entries[i]->d_name, page) && answers;
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

static void count_for_ever(long interval_ms, uint64_t panic_after)
{
	struct disk disk;
	disk_open(&disk);
	struct found found = disk_find_number(&disk);
	report_greeting("read %llu", (unsigned long long)found.number);
	disk_verify(&disk, found);

	while (found.number > 0 && !disk_step(&disk, found.number))
		pause_ms(RETRY_MS);
	for (uint64_t number = found.number + 1;; number++) {
		while (!disk_step(&disk, number))
			pause_ms(RETRY_MS);
		report("wrote %llu", (unsigned long long)number);
		disks_look(disk.page);
		if (number == panic_after)
			panic();
		pause_ms(interval_ms);
	}
}

/* ---- start ---------------------------------------------------------------------------------- */

/* A value from the kernel command line, or the default. */
static unsigned long long kernel_argument(const char *key, unsigned long long value)
{
	char line[2048] = " ";
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return value;
	ssize_t bytes = read(fd, line + 1, sizeof line - 2);
	close(fd);
	if (bytes <= 0)
		return value;
	line[bytes + 1] = '\0';
	const char *found = strstr(line, key);
	return found != NULL && found[-1] == ' ' ? strtoull(found + strlen(key), NULL, 10) : value;
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
	count_for_ever((long)kernel_argument("holdfast.interval_ms=", 200),
		       kernel_argument("holdfast.panic_after=", 0));
}
