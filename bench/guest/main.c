/*
 * Runs rows and says what they took, one line each on standard output:
 *
 *	start NAME at NS                    the moment, in nanoseconds of CLOCK_MONOTONIC
 *	row NAME NS COUNT CHECK at NS       the work's time, its size, the result's check, the moment
 *	skip NAME at NS REASON              the machine cannot run it
 *	fail NAME at NS REASON
 *
 *	suite --dir DIR [--disk PATH] [--server ADDRESS:PORT] [--timeout SECONDS] [--rows a,b]
 *	suite --list                        name, count and what it is of each row
 *	suite --serve                       the TCP rows' server, on loopback; prints its port
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/guest/bench.h"

const char *missing_avx2(void);
const char *missing_avx512(void);
const char *missing_aes(void);
const char *missing_shani(void);
static const char *missing_disk(void);
static const char *missing_server(void);

#define BENCH_ROW(id, name, what, count, want, missing) { name, what, row_##id, count, want, missing },
static const struct bench_row rows[] = {
#include "bench/guest/rows.h"
};
#undef BENCH_ROW

static struct bench bench = { .dir = "/bench" };
static unsigned int patience = 60;
static int report_fd;

static const char *missing_disk(void)
{
	return bench.disk ? NULL : "there is no disk";
}

static const char *missing_server(void)
{
	return bench.address ? NULL : "there is no server";
}

void bench_fail(const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(report_fd, "fail %s", text);
	_exit(1);
}

void bench_must(int bad, const char *what)
{
	if (bad)
		bench_fail("%s: %s", what, strerror(errno));
}

void *bench_pages(size_t size)
{
	void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	bench_must(pages == MAP_FAILED, "mmap");
	/* So that a kernel that hands out large pages unasked measures the same as one that does not. */
	madvise(pages, size, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < size; i += 4096)
		((volatile char *)pages)[i] = 0;
	return pages;
}

void bench_pin(unsigned int cpu)
{
	cpu_set_t may, set;

	bench_must(sched_getaffinity(0, sizeof(may), &may), "sched_getaffinity");
	cpu %= CPU_COUNT(&may);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &may) || cpu--)
			continue;
		CPU_ZERO(&set);
		CPU_SET(i, &set);
		bench_must(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
		return;
	}
}

int bench_run(char *const argv[], int input)
{
	int status, fd = memfd_create("output", MFD_CLOEXEC);
	pid_t child;

	bench_must(fd < 0, "memfd_create");
	child = vfork();
	bench_must(child < 0, "vfork");
	if (!child) {
		if (input >= 0) {
			lseek(input, 0, SEEK_SET);
			dup2(input, 0);
		}
		dup2(fd, 1);
		execv(argv[0], argv);
		_exit(127);
	}
	bench_must(waitpid(child, &status, 0) != child, "waitpid");
	if (status)
		bench_fail("%s %s: status %#x", argv[0], argv[1], status);
	return fd;
}

uint8_t *bench_read_all(int fd, size_t *size)
{
	struct stat st;
	uint8_t *data;

	bench_must(fstat(fd, &st), "fstat");
	data = calloc(1, st.st_size + 1);
	bench_must(!data, "calloc");
	for (off_t at = 0; at < st.st_size;) {
		ssize_t n = pread(fd, data + at, st.st_size - at, at);

		bench_must(n <= 0, "pread");
		at += n;
	}
	*size = st.st_size;
	return data;
}

uint64_t bench_hash(const void *data, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3;
	return hash;
}

/* A row in a process of its own: what it breaks or leaves behind ends with it. */
static bool run(const struct bench_row *row)
{
	const char *reason = row->missing ? row->missing() : NULL;
	char text[256] = "";
	struct pollfd wait;
	uint64_t end;
	size_t size = 0;
	int fds[2], status;
	pid_t child;

	printf("start %s at %" PRIu64 "\n", row->name, bench_now());
	if (reason) {
		printf("skip %s at %" PRIu64 " %s\n", row->name, bench_now(), reason);
		return true;
	}
	if (pipe2(fds, O_CLOEXEC) || (child = fork()) < 0) {
		printf("fail %s at %" PRIu64 " %s\n", row->name, bench_now(), strerror(errno));
		return false;
	}
	if (!child) {
		uint64_t check;

		setpgid(0, 0);
		report_fd = fds[1];
		bench.count = row->count;
		check = row->run(&bench);
		if (!bench.ns)
			bench_fail("no time has passed");
		if (row->want && check != row->want)
			bench_fail("the result is %#" PRIx64 ", not %#" PRIx64, check, row->want);
		dprintf(report_fd, "row %" PRIu64 " %" PRIu64 " %#" PRIx64, bench.ns, row->count, check);
		_exit(0);
	}
	close(fds[1]);
	end = bench_now() + patience * 1000000000ULL;
	wait = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	for (;;) {
		uint64_t now = bench_now();
		ssize_t n;

		if (now >= end || poll(&wait, 1, (end - now) / 1000000 + 1) <= 0) {
			if (bench_now() < end)
				continue;
			snprintf(text, sizeof(text), "fail no result after %u s", patience);
			break;
		}
		n = read(fds[0], text + size, sizeof(text) - 1 - size);
		if (n <= 0)
			break;
		size += n;
	}
	close(fds[0]);
	kill(-child, SIGKILL);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (!*text)
		snprintf(text, sizeof(text), "fail ended by %s", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "itself");
	text[strcspn(text, "\n")] = 0;
	if (!strncmp(text, "row ", 4)) {
		printf("row %s %s at %" PRIu64 "\n", row->name, text + 4, bench_now());
		return true;
	}
	printf("fail %s at %" PRIu64 " %s\n", row->name, bench_now(), text + (strncmp(text, "fail ", 5) ? 0 : 5));
	return false;
}

static bool wanted(const char *list, const char *name)
{
	size_t size = strlen(name);

	for (const char *s = list; s; s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL) {
		if (!strncmp(s, name, size) && (s[size] == ',' || !s[size]))
			return true;
	}
	return !list;
}

int main(int argc, char **argv)
{
	const char *list = NULL;
	bool good = true;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(argv[i], "--serve"))
			bench_serve();
		if (!strcmp(argv[i], "--list")) {
			for (size_t n = 0; n < sizeof(rows) / sizeof(*rows); n++)
				printf("%s\t%" PRIu64 "\t%s\n", rows[n].name, rows[n].count, rows[n].what);
			return 0;
		}
		if (!value) {
			fprintf(stderr, "suite: %s: not an option, or its value is missing\n", argv[i]);
			return 2;
		}
		i++;
		if (!strcmp(argv[i - 1], "--dir")) {
			bench.dir = value;
		} else if (!strcmp(argv[i - 1], "--disk")) {
			bench.disk = value;
		} else if (!strcmp(argv[i - 1], "--timeout")) {
			patience = atoi(value);
		} else if (!strcmp(argv[i - 1], "--rows")) {
			list = value;
		} else if (!strcmp(argv[i - 1], "--server")) {
			char *colon = strchr(argv[i], ':');

			if (!colon) {
				fprintf(stderr, "suite: --server %s: ADDRESS:PORT is wanted\n", value);
				return 2;
			}
			*colon = 0;
			bench.address = value;
			bench.port = atoi(colon + 1);
		} else {
			fprintf(stderr, "suite: %s: no such option\n", argv[i - 1]);
			return 2;
		}
	}
	for (size_t n = 0; n < sizeof(rows) / sizeof(*rows); n++) {
		if (wanted(list, rows[n].name))
			good &= run(&rows[n]);
	}
	return !good;
}
