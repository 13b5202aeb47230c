/*
 * The benchmark that `make bench` runs natively, in trine and in QEMU: one static program, one function a row.
 *
 * A row is work of a fixed size with a result. It prepares what it needs, puts the work between bench_begin() and bench_end(),
 * and returns a check of what the work computed; a check other than the table's, or bench_fail(), makes it a failure and
 * not a time:
 *
 *	uint64_t row_sum(struct bench *b)
 *	{
 *		uint64_t sum = 0;
 *
 *		bench_begin(b);
 *		for (uint64_t i = 0; i < b->count; i++)
 *			sum += bench_hide(i);
 *		bench_end(b);
 *		return sum;
 *	}
 *
 * Rows are declared in rows.h, each runs in a process of its own.
 */
#ifndef BENCH_GUEST_BENCH_H
#define BENCH_GUEST_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct bench {
	uint64_t count;	     /* how much work */
	uint64_t began;	     /* ns of CLOCK_MONOTONIC */
	uint64_t ns;	     /* what the work took */
	const char *dir;     /* where the files are that rows read */
	const char *disk;    /* a block device, or natively a file; NULL without one */
	const char *address; /* where the server is, NULL without one */
	unsigned int port;
};

struct bench_row {
	const char *name;
	const char *what;
	uint64_t (*run)(struct bench *b);
	uint64_t count;
	uint64_t want;		       /* the check */
	const char *(*missing)(void); /* what the machine lacks for this row, NULL when nothing; may itself be NULL */
};

/** Ends the row as failed. */
void bench_fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/** bench_fail() with the reason in errno when @bad. */
void bench_must(int bad, const char *what);

/** Pages of zeros, all of them present and each 4 KiB large; never fails. */
void *bench_pages(size_t size);

/** Has the calling thread run on CPU @cpu of those that it may use, counted round. */
void bench_pin(unsigned int cpu);

/**
 * Runs the program @argv, its input from the start of the file @input unless that is -1, its output into a new file of memory.
 * Fails the row at another status than 0. Returns the output's descriptor.
 */
int bench_run(char *const argv[], int input);

/** All of a file, with a zero after it. */
uint8_t *bench_read_all(int fd, size_t *size);

/** FNV-1a. */
uint64_t bench_hash(const void *data, size_t size);

/** Serves the TCP rows on the loopback address; prints the port, does not return. */
void bench_serve(void) __attribute__((noreturn));

static inline uint64_t bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static inline void bench_begin(struct bench *b)
{
	b->began = bench_now();
}

static inline void bench_end(struct bench *b)
{
	b->ns = bench_now() - b->began;
}

/* A value whose origin the compiler does not see. */
static inline uint64_t bench_hide(uint64_t value)
{
	__asm__ volatile("" : "+r"(value));
	return value;
}

static inline uint64_t bench_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#define BENCH_ROW(id, name, what, count, want, missing) uint64_t row_##id(struct bench *b);
#include "bench/guest/rows.h"
#undef BENCH_ROW

#endif
