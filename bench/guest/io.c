/* Rows of programs that people run, of the disk and of the network. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/guest/bench.h"

#define BUSYBOX "/bin/busybox"

static char *in_dir(const struct bench *b, const char *name)
{
	char *path = NULL;

	bench_must(asprintf(&path, "%s/%s", b->dir, name) < 0, "asprintf");
	return path;
}

/* What the script says is known: it is the same text each time, by the arithmetic that it does. */
uint64_t row_shell(struct bench *b)
{
	char *argv[] = { BUSYBOX, "sh", in_dir(b, "shell.sh"), in_dir(b, "text"), NULL };
	uint64_t right = 0;

	setenv("PATH", in_dir(b, "bin"), 1);
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		int fd = bench_run(argv, -1);
		size_t size;
		char *text = (char *)bench_read_all(fd, &size);

		right += !strcmp(text, "sum 4950 words 10 fizz 27 last delta-9 lines 40 top zz\n");
		if (!i && !right)
			bench_fail("the script says: %.100s", text);
		free(text);
		close(fd);
	}
	bench_end(b);
	return right;
}

void bench_sha256_block(uint32_t state[8], const uint8_t *data);

/* The digest in hex, by this program's own SHA-256. */
static void digest(const uint8_t *data, size_t size, char hex[65])
{
	uint32_t state[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	uint64_t bits = __builtin_bswap64(size * 8);
	uint8_t last[128] = { 0 };
	size_t whole = size & ~63UL, rest = size - whole, end = rest < 56 ? 64 : 128;

	for (size_t at = 0; at < whole; at += 64)
		bench_sha256_block(state, data + at);
	memcpy(last, data + whole, rest);
	last[rest] = 0x80;
	memcpy(last + end - 8, &bits, 8);
	for (size_t at = 0; at < end; at += 64)
		bench_sha256_block(state, last + at);
	for (int i = 0; i < 8; i++)
		sprintf(hex + 8 * i, "%08x", state[i]);
}

static uint8_t *contents(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *data;

	bench_must(fd < 0, path);
	data = bench_read_all(fd, size);
	close(fd);
	return data;
}

uint64_t row_sha256sum(struct bench *b)
{
	char *argv[] = { BUSYBOX, "sha256sum", BUSYBOX, NULL }, want[65];
	uint64_t right = 0;
	size_t size;
	uint8_t *program = contents(BUSYBOX, &size);

	digest(program, size, want);
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		int fd = bench_run(argv, -1);
		char *text = (char *)bench_read_all(fd, &size);

		right += !strncmp(text, want, 64);
		free(text);
		close(fd);
	}
	bench_end(b);
	return right;
}

uint64_t row_gzip(struct bench *b)
{
	char *argv[] = { BUSYBOX, "gzip", "-c", BUSYBOX, NULL }, *back[] = { BUSYBOX, "gzip", "-dc", NULL };
	size_t want_size, size;
	uint8_t *want = contents(BUSYBOX, &want_size), *got;
	int fd = -1;

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		close(fd);
		fd = bench_run(argv, -1);
	}
	bench_end(b);
	got = bench_read_all(bench_run(back, fd), &size);
	if (size != want_size || memcmp(want, got, size))
		bench_fail("what was compressed does not come back: %zu bytes, not %zu", size, want_size);
	return b->count;
}

/* The sum of the lines' hashes, which their order does not change. */
static uint64_t lines(uint8_t *text, int sorted)
{
	const char *before = "";
	uint64_t sum = 0;

	for (char *line = (char *)text, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		sum += bench_hash(line, end - line);
		if (sorted && strcmp(before, line) > 0)
			bench_fail("not sorted: %.40s, %.40s", before, line);
		before = line;
	}
	return sum;
}

uint64_t row_sortfile(struct bench *b)
{
	char *argv[] = { BUSYBOX, "sort", in_dir(b, "text"), NULL };
	uint64_t want, got;
	size_t size;
	int fd = -1;

	want = lines(contents(argv[2], &size), 0);
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		close(fd);
		fd = bench_run(argv, -1);
	}
	bench_end(b);
	got = lines(bench_read_all(fd, &size), 1);
	if (want != got)
		bench_fail("the sorted lines are others");
	return b->count;
}

/*
 * The disk's first half is read: word k of sector n there is n * 64 + k, as the host has written it. The second half is
 * written, with the words' complements.
 */
#define REQUEST 65536
#define HALF	(32 << 20)

static int open_disk(const struct bench *b, int flags)
{
	/* Past the page caches of guest and host; the monitors open the image that way too. */
	int fd = open(b->disk, flags | O_DIRECT | O_CLOEXEC);

	if (fd < 0 && errno == EINVAL)
		fd = open(b->disk, flags | O_CLOEXEC);
	bench_must(fd < 0, b->disk);
	return fd;
}

/* Scattered, each once in a while. */
static off_t place(uint64_t i)
{
	return i * 197 % (HALF / REQUEST) * REQUEST;
}

uint64_t row_blkread(struct bench *b)
{
	uint64_t *buffer = bench_pages(REQUEST), right = 0;
	int fd = open_disk(b, O_RDONLY);

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		uint64_t first = place(i) / 8;

		bench_must(pread(fd, buffer, REQUEST, place(i)) != REQUEST, "pread");
		right += buffer[0] == first && buffer[REQUEST / 16] == first + REQUEST / 16 &&
			 buffer[REQUEST / 8 - 1] == first + REQUEST / 8 - 1;
	}
	bench_end(b);
	return right;
}

uint64_t row_blkwrite(struct bench *b)
{
	uint64_t *buffer = bench_pages(REQUEST), right = 0;
	int fd = open_disk(b, O_RDWR);

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		buffer[0] = ~(place(i) / 8);
		buffer[REQUEST / 8 - 1] = i;
		bench_must(pwrite(fd, buffer, REQUEST, HALF + place(i)) != REQUEST, "pwrite");
		if (i % 50 == 49)
			bench_must(fdatasync(fd), "fdatasync");
	}
	bench_end(b);
	for (uint64_t i = 0; i < b->count; i++) {
		uint64_t last = i;

		while (last + HALF / REQUEST < b->count)
			last += HALF / REQUEST;
		bench_must(pread(fd, buffer, REQUEST, HALF + place(i)) != REQUEST, "pread");
		right += buffer[0] == ~(place(i) / 8) && buffer[REQUEST / 8 - 1] == last;
	}
	return right;
}

/* A request is two words: how many bytes are wanted, and a seed. Word k of the answer is seed + k. */
struct request {
	uint64_t size;
	uint64_t seed;
};

#define CHUNK 65536

static void transfer(int fd, void *data, size_t size, ssize_t (*step)(int, void *, size_t), const char *what)
{
	for (char *at = data; size;) {
		ssize_t n = step(fd, at, size);

		if (!n)
			bench_fail("%s: the connection ends early", what);
		bench_must(n < 0, what);
		at += n;
		size -= n;
	}
}

static ssize_t step_write(int fd, void *data, size_t size)
{
	return send(fd, data, size, MSG_NOSIGNAL);
}

static void answer(int fd)
{
	static uint64_t words[CHUNK / 8];
	struct request request;

	transfer(fd, &request, sizeof(request), read, "read");
	for (uint64_t at = 0; at < request.size;) {
		size_t now = request.size - at < CHUNK ? request.size - at : CHUNK;

		for (size_t i = 0; i < now / 8; i++)
			words[i] = request.seed + at / 8 + i;
		transfer(fd, words, now, step_write, "write");
		at += now;
	}
}

void bench_serve(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	signal(SIGCHLD, SIG_IGN);
	if (listener < 0 || bind(listener, (void *)&address, size) || listen(listener, 64) ||
	    getsockname(listener, (void *)&address, &size)) {
		perror("suite: --serve");
		exit(1);
	}
	printf("%u\n", ntohs(address.sin_port));
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		/* What a client does wrong, or a guest that dies, ends this process and not the server. */
		if (!fork()) {
			answer(fd);
			_exit(0);
		}
		close(fd);
	}
}

/* Fetches @size bytes over a connection of its own. Returns whether all are right. */
static int fetch(const struct bench *b, uint64_t *words, uint64_t size, uint64_t seed)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(b->port) };
	struct request request = { size, seed };
	int one = 1, good = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	bench_must(fd < 0, "socket");
	if (inet_pton(AF_INET, b->address, &address.sin_addr) != 1)
		bench_fail("%s: not an address", b->address);
	bench_must(connect(fd, (void *)&address, sizeof(address)), "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	transfer(fd, &request, sizeof(request), step_write, "write");
	for (uint64_t at = 0; at < size; at += CHUNK) {
		size_t now = size - at < CHUNK ? size - at : CHUNK;

		transfer(fd, words, now, read, "read");
		for (size_t i = 0; i < now / 8; i += 64)
			good &= words[i] == seed + at / 8 + i;
	}
	close(fd);
	return good;
}

uint64_t row_tcp(struct bench *b)
{
	uint64_t *words = bench_pages(CHUNK), right = 0;

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++)
		right += fetch(b, words, 16384, i * 1000003);
	bench_end(b);
	return right;
}

uint64_t row_stream(struct bench *b)
{
	uint64_t *words = bench_pages(CHUNK);
	int good;

	bench_begin(b);
	good = fetch(b, words, b->count << 20, 77);
	bench_end(b);
	return good ? b->count : 0;
}
