/*
 * What a guest of Holdfast's own does and says, wherever it runs: it counts upwards on its disk and reports each
 * number only after a real flush. guest/init.c does it in a virtual machine, src/process-guest/guest.c in a
 * process; each brings its disk, its port and its way to wait, which are declared below.
 *
 * Reports are lines of text. Each goes to the console as "holdfast: LINE" and to the
 * heartbeat port as "LINE":
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
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define AREA_OFFSET (1024 * 1024)
#define AREA_BLOCKS_MAX (64 * 1024 * 1024 / PAGE_BYTES)
#define VERIFY_BLOCKS 64
#define LINE_BYTES 160
#define RETRY_MS 500

struct disk {
	int fd;
	off_t bytes;
	uint32_t area_blocks; /* 0: the disk is too small for an area */
	struct page *page;    /* aligned as O_DIRECT needs it */
};

/* ---- what each kind of guest brings ------------------------------------------------------------ */

/* Opens the port where it is there and not open. */
static void port_look(void);
/* A page from the disk, or to it; false (and reported) if that failed. */
static bool disk_read(struct disk *disk, off_t offset);
static bool disk_write(struct disk *disk, off_t offset);
static bool disk_flush(struct disk *disk);
/* Waits, unless the power button is pressed: then it does not return. */
static void pause_ms(long ms);
/* Tells when the disks are not those of the last call. */
static void disks_look(struct disk *disk);
static void panic(void);

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

/* Returns whether the port has been told all that it must hear before anything else. */
static bool port_greet(void)
{
	port_look();
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

/* ---- the disk ------------------------------------------------------------------------------- */

static uint32_t area_blocks_of(const struct disk *disk)
{
	if (disk->bytes < AREA_OFFSET + PAGE_BYTES)
		return 0;
	off_t blocks = (disk->bytes - AREA_OFFSET) / PAGE_BYTES;
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
	return disk_flush(disk);
}

/* ---- counting ------------------------------------------------------------------------------- */

static void count_for_ever(struct disk *disk, long interval_ms, uint64_t panic_after)
{
	struct found found = disk_find_number(disk);
	report_greeting("read %llu", (unsigned long long)found.number);
	disk_verify(disk, found);

	while (found.number > 0 && !disk_step(disk, found.number))
		pause_ms(RETRY_MS);
	for (uint64_t number = found.number + 1;; number++) {
		while (!disk_step(disk, number))
			pause_ms(RETRY_MS);
		report("wrote %llu", (unsigned long long)number);
		disks_look(disk);
		if (number == panic_after)
			panic();
		pause_ms(interval_ms);
	}
}

/* A value from a kernel command line, which begins with a space, or the default. */
static unsigned long long argument_of(const char *line, const char *key, unsigned long long value)
{
	const char *found = strstr(line, key);
	return found != NULL && found[-1] == ' ' ? strtoull(found + strlen(key), NULL, 10) : value;
}
