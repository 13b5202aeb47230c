/*
 * The work: sort, sieve, checksum, hash table, recursion, matrix, copying, and a little bytecode machine; in all
 * loads, stores, calls, returns, direct and indirect branches and arithmetic in about the proportions of system code.
 * No libc, no floating point, nothing that a compiler could take out: each step feeds the checksum.
 */
#include <stddef.h>
#include <stdint.h>

#include "bench/speed/payload.h"

#define SORTED	128
#define SIEVE	2048
#define TEXT	512
#define BUCKETS 512
#define KEYS	384
#define SIDE	12
#define COPIED	16384
#define DEPTH	12

struct node {
	uint32_t key;
	uint32_t value;
	struct node *next;
};

static struct work {
	uint32_t random;
	uint32_t numbers[SORTED];
	uint8_t composite[SIEVE];
	uint8_t text[TEXT];
	struct node *buckets[BUCKETS];
	struct node nodes[KEYS];
	uint32_t a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
	uint64_t from[COPIED / 8], to[COPIED / 8];
} work;

static uint32_t next_random(void)
{
	work.random = work.random * 1664525 + 1013904223;
	return work.random >> 8;
}

/* Heap sort: unpredictable branches, scattered loads and stores. */
static void sift(uint32_t *heap, size_t root, size_t size)
{
	for (;;) {
		size_t child = 2 * root + 1;
		uint32_t swap;

		if (child >= size)
			return;
		if (child + 1 < size && heap[child] < heap[child + 1])
			child++;
		if (heap[root] >= heap[child])
			return;
		swap = heap[root];
		heap[root] = heap[child];
		heap[child] = swap;
		root = child;
	}
}

static uint64_t sort(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < SORTED; i++)
		work.numbers[i] = next_random();
	for (size_t i = SORTED / 2; i-- > 0;)
		sift(work.numbers, i, SORTED);
	for (size_t i = SORTED; i-- > 1;) {
		uint32_t swap = work.numbers[0];

		work.numbers[0] = work.numbers[i];
		work.numbers[i] = swap;
		sift(work.numbers, 0, i);
	}
	for (size_t i = 0; i < SORTED; i++)
		sum += work.numbers[i] * (uint64_t)(i + 1);
	return sum;
}

static uint64_t sieve(void)
{
	uint64_t primes = 0;

	for (size_t i = 0; i < SIEVE; i++)
		work.composite[i] = 0;
	for (size_t i = 2; i < SIEVE; i++) {
		if (work.composite[i])
			continue;
		primes++;
		for (size_t j = i * i; j < SIEVE; j += i)
			work.composite[j] = 1;
	}
	return primes;
}

static uint64_t checksum(void)
{
	uint32_t crc = ~0U;

	for (size_t i = 0; i < TEXT; i++)
		work.text[i] = next_random();
	for (size_t i = 0; i < TEXT; i++) {
		crc ^= work.text[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
	}
	return ~crc;
}

static struct node *lookup(uint32_t key)
{
	struct node *node = work.buckets[key * 2654435761U >> 23];

	while (node && node->key != key)
		node = node->next;
	return node;
}

/* A hash table: pointer chasing. */
static uint64_t table(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < BUCKETS; i++)
		work.buckets[i] = NULL;
	for (size_t i = 0; i < KEYS; i++) {
		struct node *node = &work.nodes[i];
		struct node **bucket;

		node->key = next_random() & 0xffff;
		node->value = i;
		bucket = &work.buckets[node->key * 2654435761U >> 23];
		node->next = *bucket;
		*bucket = node;
	}
	for (uint32_t key = 0; key < 1024; key++) {
		struct node *node = lookup(key * 31 & 0xffff);

		sum += node ? node->value : 1;
	}
	return sum;
}

/* Calls and returns. */
__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) static uint64_t fibonacci(unsigned n)
{
	__asm__ volatile("" : "+r"(n));
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t matrix(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < SIDE; i++) {
		for (size_t j = 0; j < SIDE; j++) {
			work.a[i][j] = next_random();
			work.b[i][j] = next_random();
		}
	}
	for (size_t i = 0; i < SIDE; i++) {
		for (size_t j = 0; j < SIDE; j++) {
			uint32_t cell = 0;

			for (size_t k = 0; k < SIDE; k++)
				cell += work.a[i][k] * work.b[k][j];
			work.c[i][j] = cell;
			sum += cell;
		}
	}
	return sum;
}

static uint64_t copy(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < COPIED / 8; i++)
		work.from[i] = i * 0x9e3779b97f4a7c15;
	for (size_t i = 0; i < COPIED / 8; i++)
		work.to[i] = work.from[i] + 1;
	for (size_t i = 0; i < COPIED / 8; i += 7)
		sum ^= work.to[i];
	return sum;
}

enum opcode { PUSH, ADD, XOR, SHIFT, DUP, SWAP, LOOP, END };

/* A stack machine: indirect branches. */
static uint64_t machine(void)
{
	static const uint8_t program[] = {PUSH, 7, PUSH, 3, DUP, ADD, SWAP, XOR, SHIFT, PUSH, 5, ADD, LOOP, 2, END};
	uint64_t stack[8] = {0}, count = 200;
	size_t pc = 0, top = 0;

	for (;;) {
		switch ((enum opcode)program[pc++]) {
		case PUSH:
			stack[++top & 7] = program[pc++];
			break;
		case ADD:
			stack[(top - 1) & 7] += stack[top & 7];
			top--;
			break;
		case XOR:
			stack[(top - 1) & 7] ^= stack[top & 7];
			top--;
			break;
		case SHIFT:
			stack[top & 7] = stack[top & 7] << 3 | stack[top & 7] >> 61;
			break;
		case DUP:
			stack[(top + 1) & 7] = stack[top & 7];
			top++;
			break;
		case SWAP: {
			uint64_t swap = stack[top & 7];

			stack[top & 7] = stack[(top - 1) & 7];
			stack[(top - 1) & 7] = swap;
			break;
		}
		case LOOP:
			pc = --count ? program[pc] : pc + 1;
			break;
		case END:
			return stack[top & 7] + stack[(top - 1) & 7];
		}
	}
}

uint64_t speed_payload(uint64_t rounds)
{
	uint64_t sum = 0;

	for (uint64_t round = 0; round < rounds; round++) {
		/* The same start each round: the same branches are taken, so the count is exact. */
		work.random = 12345;
		sum = (sum << 1 | sum >> 63) + sort();
		sum ^= sieve();
		sum += checksum();
		sum ^= table();
		sum += fibonacci(DEPTH);
		sum ^= matrix();
		sum += copy();
		sum ^= machine();
	}
	return sum;
}
