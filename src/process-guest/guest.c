/*
 * The process-guest: a guest without a machine, for labs with many VMs. It stands where QEMU stands, under the same
 * guard, and is spoken to in the same way: its disks are NBD sockets, or files and block devices that it opens itself,
 * its heartbeat port and its console are the same socket and file, and it understands the few commands of QMP that
 * src/qemu needs. What it does with its first disk, and what it says of it, is what the built-in guest does and
 * says (guest/counter.h).
 *
 * Like QEMU it waits where its disk is away, for as long as that takes, and is stopped by an error of the disk
 * until `cont`; what it writes to a file goes past the page cache. One thread counts, the other one listens; SIGSTOP
 * stops both. SIGUSR1 makes it hang: nothing is written or said any more, and QMP still answers.
 *
 * Usage: process-guest --qmp CHARDEV --port SOCKET --console FILE [--append KERNEL-LINE]
 *                      [--disk NAME SOCKET | --file NAME PATH]... [--slot NAME]...
 * CHARDEV is written as for QEMU (socket,id=qmp,path=PATH,server=on,wait=off): by it the driver knows its processes.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "../../guest/counter.h"

#define DISKS_MAX 16
#define NAME_BYTES 64
#define REQUEST_BYTES 4096
#define RECONNECT_MS 250
#define DEFAULT_INTERVAL_MS 1000

/* Guards all that both threads use: the disks' list, what was asked of the guest, and the sockets. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;

struct attached {
	struct disk disk;
	char name[NAME_BYTES];
	char place[PATH_MAX]; /* of the socket, or of the file */
	bool is_file;
	bool has_device; /* a node without a device is no disk of the guest */
};

static struct attached disks[DISKS_MAX];
static int disks_count;
static char slots[DISKS_MAX][NAME_BYTES];
static int slots_count;

static bool button_pressed, stopped_by_error, panicked;
static volatile sig_atomic_t hangs;
static int qmp_client = -1, new_port = -1;
static bool qmp_ready;

static void sleep_ms(long ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };
	while (nanosleep(&time, &time) != 0 && errno == EINTR)
		;
}

static void fail(const char *what, const char *name)
{
	fprintf(stderr, "process-guest: %s %s: %s\n", what, name, strerror(errno));
	exit(1);
}

/* ---- QMP: what is told --------------------------------------------------------------------------- */

/* With the lock. A client that does not read is dropped: nothing here may wait for it. */
__attribute__((format(printf, 1, 2))) static void qmp_say(const char *format, ...)
{
	char line[REQUEST_BYTES];
	va_list arguments;
	va_start(arguments, format);
	int bytes = vsnprintf(line, sizeof line - 2, format, arguments);
	va_end(arguments);
	if (qmp_client < 0)
		return;
	memcpy(line + bytes, "\r\n", 2);
	if (send(qmp_client, line, bytes + 2, MSG_DONTWAIT | MSG_NOSIGNAL) == bytes + 2)
		return;
	shutdown(qmp_client, SHUT_RDWR);
}

static void qmp_event(const char *name, const char *data)
{
	if (qmp_ready)
		qmp_say("{\"event\": \"%s\", \"data\": %s, \"timestamp\": {\"seconds\": 0, \"microseconds\": 0}}", name, data);
}

/* ---- the NBD client ------------------------------------------------------------------------------ */

/* As NBD counts them. */
enum command { DISK_READ = 0, DISK_WRITE = 1, DISK_FLUSH = 3 };

static bool send_all(int fd, const void *data, size_t bytes)
{
	for (const char *from = data; bytes > 0;) {
		ssize_t sent = send(fd, from, bytes, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		from += sent;
		bytes -= sent;
	}
	return true;
}

static bool receive_all(int fd, void *data, size_t bytes)
{
	for (char *to = data; bytes > 0;) {
		ssize_t got = recv(fd, to, bytes, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0)
			errno = ECONNRESET;
		if (got <= 0)
			return false;
		to += got;
		bytes -= got;
	}
	return true;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The fixed newstyle handshake with NBD_OPT_GO for the default export. */
static bool nbd_negotiate(int fd, off_t *bytes)
{
	struct __attribute__((packed)) { uint64_t magic, option_magic; uint16_t flags; } hello;
	struct __attribute__((packed)) { uint32_t flags; uint64_t magic; uint32_t option, length, name; uint16_t infos; } go = {
		htobe32(3), htobe64(0x49484156454F5054), htobe32(7), htobe32(6), 0, 0,
	};
	if (!receive_all(fd, &hello, sizeof hello) || be64toh(hello.magic) != 0x4e42444d41474943 ||
	    !send_all(fd, &go, sizeof go))
		return false;
	for (bool known = false;;) {
		struct __attribute__((packed)) { uint64_t magic; uint32_t option, type, length; } reply;
		struct __attribute__((packed)) { uint16_t type; uint64_t size; char rest[502]; } info;
		if (!receive_all(fd, &reply, sizeof reply))
			return false;
		uint32_t type = be32toh(reply.type), length = be32toh(reply.length);
		if (length > sizeof info || !receive_all(fd, &info, length))
			return false;
		if (type == 1)
			return known;
		if (type != 3) {
			errno = EPROTO;
			return false;
		}
		if (be16toh(info.type) != 0)
			continue;
		*bytes = be64toh(info.size);
		known = true;
	}
}

static bool nbd_open(struct attached *one)
{
	int fd = connect_to(one->place);
	if (fd < 0)
		return false;
	if (!nbd_negotiate(fd, &one->disk.bytes)) {
		close(fd);
		return false;
	}
	one->disk.fd = fd;
	return true;
}

/* Returns the server's error (0: none), or -1 where the connection broke. */
static int nbd_once(struct disk *disk, enum command command, off_t offset)
{
	static uint64_t last;
	uint32_t bytes = command == DISK_FLUSH ? 0 : PAGE_BYTES;
	struct __attribute__((packed)) { uint32_t magic; uint16_t flags, type; uint64_t handle, offset; uint32_t bytes; } request = {
		htobe32(0x25609513), 0, htobe16(command), htobe64(++last), htobe64(offset), htobe32(bytes),
	};
	struct __attribute__((packed)) { uint32_t magic, error; uint64_t handle; } reply;
	if (!send_all(disk->fd, &request, sizeof request) ||
	    (command == DISK_WRITE && !send_all(disk->fd, disk->page, PAGE_BYTES)) ||
	    !receive_all(disk->fd, &reply, sizeof reply) || be32toh(reply.magic) != 0x67446698)
		return -1;
	int error = be32toh(reply.error);
	if (error == 0 && command == DISK_READ && !receive_all(disk->fd, disk->page, PAGE_BYTES))
		return -1;
	return error;
}

/* ---- a disk at a path --------------------------------------------------------------------------- */

static bool file_open(struct attached *one)
{
	one->disk.fd = open(one->place, O_RDWR | O_DIRECT | O_CLOEXEC);
	one->disk.bytes = one->disk.fd < 0 ? -1 : lseek(one->disk.fd, 0, SEEK_END);
	return one->disk.bytes >= 0;
}

/* Returns the error (0: none). */
static int file_once(struct disk *disk, enum command command, off_t offset)
{
	ssize_t wanted = PAGE_BYTES, done = 0;
	errno = EIO; /* of a page that is done in part */
	if (command == DISK_FLUSH)
		return fdatasync(disk->fd) == 0 ? 0 : errno;
	done = command == DISK_READ ? pread(disk->fd, disk->page, wanted, offset) : pwrite(disk->fd, disk->page, wanted, offset);
	return done == wanted ? 0 : errno;
}

/* ---- both ---------------------------------------------------------------------------------------- */

static void stop_by_error(const char *name, int error)
{
	char data[200];
	snprintf(data, sizeof data, "{\"node-name\": \"%s\", \"action\": \"stop\", \"reason\": \"%s\"}", name, strerror(error));
	pthread_mutex_lock(&lock);
	stopped_by_error = true;
	qmp_event("BLOCK_IO_ERROR", data);
	while (stopped_by_error)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

/* Of all disks. */
static atomic_ulong requests_done;

/* Waits while the disk is away; what was under way when the connection broke is asked for again. */
static void disk_do(struct disk *disk, enum command command, off_t offset)
{
	struct attached *one = (struct attached *)disk;
	for (;;) {
		if (disk->fd < 0 && !nbd_open(one)) {
			sleep_ms(RECONNECT_MS);
			continue;
		}
		int error = (one->is_file ? file_once : nbd_once)(disk, command, offset);
		if (error >= 0)
			requests_done += 1;
		if (error == 0)
			return;
		if (error > 0) {
			stop_by_error(one->name, error);
			continue;
		}
		close(disk->fd);
		disk->fd = -1;
	}
}

static bool disk_read(struct disk *disk, off_t offset)
{
	disk_do(disk, DISK_READ, offset);
	return true;
}

static bool disk_write(struct disk *disk, off_t offset)
{
	disk_do(disk, DISK_WRITE, offset);
	return true;
}

static bool disk_flush(struct disk *disk)
{
	disk_do(disk, DISK_FLUSH, 0);
	return true;
}

/* ---- what the counting thread needs -------------------------------------------------------------- */

static void port_look(void)
{
	pthread_mutex_lock(&lock);
	int fd = new_port;
	new_port = -1;
	pthread_mutex_unlock(&lock);
	if (fd < 0)
		return;
	if (port.fd >= 0)
		close(port.fd);
	port.fd = fd;
	port.tail_bytes = 0;
}

static void power_off(void)
{
	report("off");
	pthread_mutex_lock(&lock);
	qmp_event("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
	_exit(0);
}

static void stand_still(void)
{
	for (;;)
		pause();
}

static struct timespec in_ms(long ms)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_sec += (time.tv_nsec / 1000000 + ms) / 1000;
	time.tv_nsec = (time.tv_nsec / 1000000 + ms) % 1000 * 1000000;
	return time;
}

static void pause_ms(long ms)
{
	do {
		/* Meanwhile keeps trying to greet: an observer should not wait a whole interval for it. */
		long slice = port_greet() || ms < 20 ? ms : 20;
		struct timespec until = in_ms(slice);
		pthread_mutex_lock(&lock);
		while (!button_pressed && !hangs && pthread_cond_timedwait(&changed, &lock, &until) == 0)
			;
		bool pressed = button_pressed;
		pthread_mutex_unlock(&lock);
		if (hangs)
			stand_still();
		if (pressed)
			power_off();
		ms -= slice;
	} while (ms > 0);
}

static void panic(void)
{
	pthread_mutex_lock(&lock);
	panicked = true;
	qmp_event("GUEST_PANICKED", "{\"action\": \"pause\"}");
	pthread_mutex_unlock(&lock);
	stand_still();
}

static void disks_look(struct disk *disk)
{
	static int known = -1;
	char names[LINE_BYTES - 32] = "";
	int count = 0;
	struct attached *last = NULL;
	(void)disk;
	pthread_mutex_lock(&lock);
	for (int i = 0; i < disks_count; i++) {
		if (!disks[i].has_device)
			continue;
		count += 1;
		last = &disks[i];
		strncat(strncat(names, " ", sizeof names - strlen(names) - 1), disks[i].name, sizeof names - strlen(names) - 1);
	}
	pthread_mutex_unlock(&lock);
	if (known >= 0 && count > known) {
		disk_read(&last->disk, 0);
		report("disks%s", names);
	}
	known = count;
}

/* ---- QMP: what is asked -------------------------------------------------------------------------- */

/* Copies the text value of a key; empty where there is none. The driver's own JSON has no blanks in it. */
static void value_of(const char *json, const char *key, char *value, size_t bytes)
{
	char mark[40];
	snprintf(mark, sizeof mark, "\"%s\":\"", key);
	const char *found = strstr(json, mark);
	value[0] = '\0';
	if (found == NULL)
		return;
	found += strlen(mark);
	size_t length = strcspn(found, "\"");
	if (length < bytes)
		snprintf(value, bytes, "%.*s", (int)length, found);
}

static long id_of(const char *json)
{
	long id = -1;
	for (const char *at = json; (at = strstr(at, "\"id\":")) != NULL; at += 5)
		if (at[5] >= '0' && at[5] <= '9')
			id = atol(at + 5);
	return id;
}

static struct attached *disk_named(const char *name)
{
	for (int i = 0; i < disks_count; i++)
		if (strcmp(disks[i].name, name) == 0)
			return &disks[i];
	return NULL;
}

static struct attached *disk_add(const char *name, const char *place, bool is_file)
{
	if (disks_count == DISKS_MAX)
		return NULL;
	struct attached *one = &disks[disks_count];
	memset(one, 0, sizeof *one);
	snprintf(one->name, sizeof one->name, "%s", name);
	snprintf(one->place, sizeof one->place, "%s", place);
	one->is_file = is_file;
	one->disk.fd = -1;
	void *page;
	if (posix_memalign(&page, PAGE_BYTES, PAGE_BYTES) != 0)
		abort();
	one->disk.page = page;
	if (!(is_file ? file_open : nbd_open)(one)) {
		free(page);
		return NULL;
	}
	disks_count += 1;
	return one;
}

/* A list of {KEY: PREFIX NAME} of all disks; of those with a device only, where that is asked for. */
static const char *disk_list(const char *key, const char *prefix, bool with_device)
{
	static char list[DISKS_MAX * (2 * NAME_BYTES)];
	strcpy(list, "[");
	for (int i = 0; i < disks_count; i++) {
		if (with_device && !disks[i].has_device)
			continue;
		size_t used = strlen(list);
		snprintf(list + used, sizeof list - used, "%s{\"%s\": \"%s%s\"}", used > 1 ? ", " : "", key, prefix, disks[i].name);
	}
	strcat(list, "]");
	return list;
}

static bool has_slot(const char *bus)
{
	for (int i = 0; i < slots_count; i++)
		if (strncmp(bus, "slot-", 5) == 0 && strcmp(bus + 5, slots[i]) == 0)
			return true;
	return false;
}

static void qmp_refuse(long id, const char *why)
{
	qmp_say("{\"id\": %ld, \"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}}", id, why);
}

/* With the lock. */
static void qmp_request(const char *line)
{
	char command[40], name[NAME_BYTES], path[200];
	const char *result = "{}";
	long id = id_of(line);
	value_of(line, "execute", command, sizeof command);
	if (strcmp(command, "qmp_capabilities") == 0) {
		qmp_ready = true;
	} else if (strcmp(command, "query-status") == 0) {
		result = panicked           ? "{\"status\": \"guest-panicked\"}"
			 : stopped_by_error ? "{\"status\": \"io-error\"}"
					    : "{\"status\": \"running\"}";
	} else if (strcmp(command, "system_powerdown") == 0) {
		button_pressed = true;
		pthread_cond_broadcast(&changed);
	} else if (strcmp(command, "cont") == 0) {
		stopped_by_error = false;
		pthread_cond_broadcast(&changed);
		qmp_event("RESUME", "{}");
	} else if (strcmp(command, "query-blockstats") == 0) {
		snprintf(path, sizeof path, "[{\"stats\": {\"wr_operations\": %lu}}]", requests_done);
		result = path;
	} else if (strcmp(command, "query-named-block-nodes") == 0) {
		result = disk_list("node-name", "", false);
	} else if (strcmp(command, "qom-list") == 0) {
		result = disk_list("name", "virtio-", true);
	} else if (strcmp(command, "blockdev-add") == 0) {
		value_of(line, "node-name", name, sizeof name);
		value_of(line, "path", path, sizeof path);
		if (disk_named(name) != NULL || disk_add(name, path, false) == NULL)
			return qmp_refuse(id, "the disk can not be opened");
	} else if (strcmp(command, "blockdev-del") == 0) {
		value_of(line, "node-name", name, sizeof name);
		struct attached *one = disk_named(name);
		/* Only the last one can be without a device. */
		if (one == NULL || one->has_device)
			return qmp_refuse(id, "there is no such node, or it is in use");
		close(one->disk.fd);
		free(one->disk.page);
		disks_count -= 1;
	} else if (strcmp(command, "device_add") == 0) {
		value_of(line, "drive", name, sizeof name);
		value_of(line, "bus", path, sizeof path);
		struct attached *one = disk_named(name);
		if (one == NULL || !has_slot(path))
			return qmp_refuse(id, "there is no such node, or no such bus");
		one->has_device = true;
	} else {
		return qmp_refuse(id, "no such command");
	}
	qmp_say("{\"id\": %ld, \"return\": %s}", id, result);
}

/* Returns whether the client is still there. */
static bool qmp_read(char *buffer, size_t *used)
{
	ssize_t got = recv(qmp_client, buffer + *used, REQUEST_BYTES - 1 - *used, MSG_DONTWAIT);
	if (got <= 0)
		return false;
	*used += got;
	buffer[*used] = '\0';
	for (char *end; (end = strchr(buffer, '\n')) != NULL;) {
		*end = '\0';
		pthread_mutex_lock(&lock);
		qmp_request(buffer);
		pthread_mutex_unlock(&lock);
		*used -= end + 1 - buffer;
		memmove(buffer, end + 1, *used + 1);
	}
	return *used < REQUEST_BYTES - 1;
}

struct listeners {
	int qmp, port;
};

static void qmp_greet(int client)
{
	pthread_mutex_lock(&lock);
	qmp_client = client;
	qmp_ready = false;
	qmp_say("{\"QMP\": {\"version\": {\"package\": \"process-guest\"}, \"capabilities\": []}}");
	pthread_mutex_unlock(&lock);
}

static void qmp_leave(void)
{
	pthread_mutex_lock(&lock);
	close(qmp_client);
	qmp_client = -1;
	qmp_ready = false;
	pthread_mutex_unlock(&lock);
}

/* The other thread. Like QEMU it has one client of QMP at a time. */
static void *listen_for_ever(void *argument)
{
	const struct listeners *listeners = argument;
	char buffer[REQUEST_BYTES];
	size_t used = 0;
	for (;;) {
		struct pollfd polled[2] = {
			{ .fd = listeners->port, .events = POLLIN },
			{ .fd = qmp_client < 0 ? listeners->qmp : qmp_client, .events = POLLIN },
		};
		if (poll(polled, 2, -1) < 0)
			continue;
		if (polled[0].revents != 0) {
			int fd = accept4(listeners->port, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
			pthread_mutex_lock(&lock);
			if (new_port >= 0)
				close(new_port);
			new_port = fd;
			pthread_mutex_unlock(&lock);
		}
		if (polled[1].revents == 0)
			continue;
		if (qmp_client >= 0) {
			if (!qmp_read(buffer, &used))
				qmp_leave();
			continue;
		}
		int client = accept4(listeners->qmp, NULL, NULL, SOCK_CLOEXEC);
		used = 0;
		if (client >= 0)
			qmp_greet(client);
	}
	return NULL;
}

/* ---- start --------------------------------------------------------------------------------------- */

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	unlink(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 8) != 0)
		fail("cannot listen at", path);
	return fd;
}

/* The path in a chardev of QEMU's. */
static const char *path_in(char *chardev)
{
	char *path = strstr(chardev, "path=");
	if (path == NULL)
		return chardev;
	path += 5;
	path[strcspn(path, ",")] = '\0';
	return path;
}

static void on_hang(int number)
{
	(void)number;
	hangs = 1;
}

int main(int argc, char **argv)
{
	static struct listeners listeners;
	char line[2048] = " ";
	char qmp[256] = "";
	const char *port_path = NULL;

	for (int i = 1; i < argc; i++) {
		const char *option = argv[i], *value = i + 1 < argc ? argv[++i] : "";
		if (strcmp(option, "--qmp") == 0) {
			snprintf(qmp, sizeof qmp, "%s", value);
		} else if (strcmp(option, "--port") == 0) {
			port_path = value;
		} else if (strcmp(option, "--console") == 0) {
			console.fd = open(value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
			if (console.fd < 0)
				fail("cannot open", value);
		} else if (strcmp(option, "--append") == 0) {
			snprintf(line, sizeof line, " %s", value);
		} else if (strcmp(option, "--slot") == 0 && slots_count < DISKS_MAX) {
			snprintf(slots[slots_count++], NAME_BYTES, "%s", value);
		} else if ((strcmp(option, "--disk") == 0 || strcmp(option, "--file") == 0) && i + 1 < argc) {
			struct attached *one = disk_add(value, argv[++i], strcmp(option, "--file") == 0);
			if (one == NULL)
				fail("cannot open the disk at", argv[i]);
			one->has_device = true;
		} else {
			errno = EINVAL;
			fail("does not know", option);
		}
	}
	if (port_path == NULL || qmp[0] == '\0') {
		errno = EINVAL;
		fail("needs", "--qmp and --port");
	}
	listeners.qmp = listen_at(path_in(qmp));
	listeners.port = listen_at(port_path);

	signal(SIGPIPE, SIG_IGN);
	struct sigaction hang = { .sa_handler = on_hang };
	sigaction(SIGUSR1, &hang, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&changed, &attributes);
	pthread_t listener;
	if (pthread_create(&listener, NULL, listen_for_ever, &listeners) != 0)
		fail("cannot start", "its second thread");

	/* Without a disk it is only there, as a machine without one is. */
	if (disks_count == 0)
		for (;;)
			pause_ms(1000);
	disks_look(&disks[0].disk);
	count_for_ever(&disks[0].disk, (long)argument_of(line, "holdfast.interval_ms=", DEFAULT_INTERVAL_MS),
		       argument_of(line, "holdfast.panic_after=", 0));
}
