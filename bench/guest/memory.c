/* Rows whose time is the memory's: pointer chases and copies; and code that is data a moment before. */
#include <string.h>
#include <sys/mman.h>

#include "bench/guest/bench.h"

/* One cycle through all cache lines of @size bytes in an order that no prefetcher guesses (Sattolo's shuffle). */
static uint64_t chase(struct bench *b, size_t size)
{
	size_t lines = size / 64;
	uint64_t state = 12345, sum = 0;
	uint32_t *order = bench_pages(lines * sizeof(*order));
	uint64_t *memory = bench_pages(size);
	uint64_t at = 0;

	for (size_t i = 0; i < lines; i++)
		order[i] = i;
	for (size_t i = lines - 1; i > 0; i--) {
		size_t j = bench_random(&state) % i;
		uint32_t swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
	for (size_t i = 0; i < lines; i++)
		memory[i * 8] = order[i] * 64;
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++)
		at = *(volatile uint64_t *)((char *)memory + at);
	bench_end(b);
	/* Where it got to, by the table that the memory was made from. */
	for (uint64_t i = 0, steps = b->count % lines; i < steps; i++)
		sum = order[sum];
	if (sum * 64 != at)
		bench_fail("the chase ends at %#lx, not at %#lx", at, sum * 64);
	return at;
}

uint64_t row_chase_l1(struct bench *b)
{
	return chase(b, 16 << 10);
}

uint64_t row_chase_l2(struct bench *b)
{
	return chase(b, 512 << 10);
}

uint64_t row_chase_dram(struct bench *b)
{
	return chase(b, 64 << 20);
}

uint64_t row_memcpy(struct bench *b)
{
	enum { SIZE = 256 << 10 };
	char *from = bench_pages(SIZE + 64), *to = bench_pages(SIZE + 64);
	void *(*volatile copy)(void *, const void *, size_t) = memcpy;

	for (size_t i = 0; i < SIZE + 64; i++)
		from[i] = i * 131 + (i >> 9);
	bench_begin(b);
	for (uint64_t n = 0; n < b->count; n++) {
		copy(to, from, SIZE);
		for (size_t i = 0; i < 16; i++)
			copy(to + i * 4096, from + i * 4096 + 3, 4000);
		for (size_t i = 0; i < 64; i++)
			copy(to + i * 80, from + i * 96, 64);
	}
	bench_end(b);
	return bench_hash(to, SIZE);
}

static uint8_t *code_pages(size_t size)
{
	void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	bench_must(pages == MAP_FAILED, "mmap");
	memset(pages, 0xcc, size);
	return pages;
}

/* Functions written one after another into a quarter megabyte, over and over, as a JIT compiler does it; each is called once. */
uint64_t row_jit(struct bench *b)
{
	enum { SIZE = 256 << 10, FUNCTION = 128 };
	uint8_t *code = code_pages(SIZE);
	uint64_t sum = 0, want = 0;
	size_t at = 0;

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		uint8_t *p = code + at;
		uint32_t constant = i * 2654435761U;
		uint64_t (*function)(uint64_t);

		/* mov rax, rdi; 8 times add rax, imm32; ret */
		memcpy(p, "\x48\x89\xf8", 3);
		p += 3;
		for (int n = 0; n < 8; n++) {
			memcpy(p, "\x48\x05", 2);
			memcpy(p + 2, &constant, 4);
			p += 6;
		}
		*p = 0xc3;
		function = (void *)(code + at);
		sum = function(sum);
		want += 8 * (int64_t)(int32_t)constant;
		at = (at + FUNCTION) % SIZE;
	}
	bench_end(b);
	if (sum != want)
		bench_fail("the functions' sum is %#lx, not %#lx", sum, want);
	return sum;
}

/* The same place written again and again: an immediate in a function that runs after each patch. */
uint64_t row_patch(struct bench *b)
{
	uint8_t *code = code_pages(4096);
	uint64_t (*function)(uint64_t) = (void *)code;
	uint64_t sum = 0, want = 0;

	/* mov rax, rdi; add rax, imm32; ret */
	memcpy(code, "\x48\x89\xf8\x48\x05\0\0\0\0\xc3", 10);
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		*(volatile uint32_t *)(code + 5) = i;
		sum = function(sum);
		want += i;
	}
	bench_end(b);
	if (sum != want)
		bench_fail("the function's sum is %#lx, not %#lx", sum, want);
	return sum;
}
