/* Rows that only compute: integers, branches, calls, strings, floating point. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/guest/bench.h"

uint64_t row_integer(struct bench *b)
{
	uint64_t x = 88172645463325252, sum = 0;

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (x & 0x100)
			sum += x * 3;
		else
			sum ^= x + i;
	}
	bench_end(b);
	return sum;
}

#define SIEVE 2000000
static uint8_t composite[SIEVE];

uint64_t row_sieve(struct bench *b)
{
	uint64_t primes = 0;

	memset(composite, 1, sizeof(composite));
	bench_begin(b);
	for (uint64_t n = 0; n < b->count; n++) {
		memset(composite, 0, sizeof(composite));
		for (size_t i = 2; i < SIEVE; i++) {
			if (composite[i])
				continue;
			primes++;
			for (size_t j = i * i; j < SIEVE; j += i)
				composite[j] = 1;
		}
	}
	bench_end(b);
	return primes;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Hoare's, with a comparison function as qsort(3) has it; short ranges by insertion. */
static void quicksort(uint32_t *v, long size, int (*compare)(const void *, const void *))
{
	while (size > 12) {
		uint32_t pivot = v[size / 2], swap;
		long i = -1, j = size;

		for (;;) {
			do {
				i++;
			} while (compare(&v[i], &pivot) < 0);
			do {
				j--;
			} while (compare(&v[j], &pivot) > 0);
			if (i >= j)
				break;
			swap = v[i];
			v[i] = v[j];
			v[j] = swap;
		}
		if (j + 1 < size - j - 1) {
			quicksort(v, j + 1, compare);
			v += j + 1;
			size -= j + 1;
		} else {
			quicksort(v + j + 1, size - j - 1, compare);
			size = j + 1;
		}
	}
	for (long i = 1; i < size; i++) {
		uint32_t x = v[i];
		long j = i;

		for (; j && compare(&v[j - 1], &x) > 0; j--)
			v[j] = v[j - 1];
		v[j] = x;
	}
}

uint64_t row_sort(struct bench *b)
{
	uint32_t *v = bench_pages(b->count * sizeof(*v));
	uint64_t state = 42, before = 0, after = 0;
	int (*volatile compare)(const void *, const void *) = compare_u32;

	for (size_t i = 0; i < b->count; i++)
		before += v[i] = bench_random(&state);
	bench_begin(b);
	quicksort(v, b->count, compare);
	bench_end(b);
	for (size_t i = 0; i < b->count; i++) {
		after += v[i];
		if (i && v[i - 1] > v[i])
			bench_fail("not sorted at %zu", i);
	}
	if (before != after)
		bench_fail("the sum was %#lx, it is %#lx", before, after);
	return after;
}

static __attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) uint64_t fib(uint64_t n)
{
	if (n < 2)
		return n;
	return fib(bench_hide(n - 1)) + fib(bench_hide(n - 2));
}

uint64_t row_fib(struct bench *b)
{
	uint64_t result;

	bench_begin(b);
	result = fib(b->count);
	bench_end(b);
	return result;
}

#define OPERATION(name, expression)                                                             \
	static __attribute__((noinline)) uint64_t operation_##name(uint64_t x, uint64_t y)     \
	{                                                                                       \
		return expression;                                                              \
	}
OPERATION(add, x + y)
OPERATION(sub, x - y)
OPERATION(xor, x ^ y)
OPERATION(mul, x * (y | 1))
OPERATION(rotate, x << 7 | x >> 57)
OPERATION(or, x + (x | y))
OPERATION(and, x + (x & y))
OPERATION(not, ~x + y)
#undef OPERATION

uint64_t row_icall(struct bench *b)
{
	static uint64_t (*volatile const table[])(uint64_t, uint64_t) = {
		operation_add, operation_sub, operation_xor, operation_mul,
		operation_rotate, operation_or, operation_and, operation_not,
	};
	uint64_t x = 1;

	bench_begin(b);
	/* A pattern that a branch predictor learns in part. */
	for (uint64_t i = 0; i < b->count; i++)
		x = table[(i ^ i >> 5) & 7](x, i);
	bench_end(b);
	return x;
}

struct shape;
struct shape_ops {
	uint64_t (*area)(const struct shape *shape);
	void (*grow)(struct shape *shape, uint64_t by);
};

struct shape {
	const struct shape_ops *ops;
	uint64_t a, b;
};

#define SHAPE(name, expression)                                                                 \
	static uint64_t name##_area(const struct shape *s)                                      \
	{                                                                                       \
		return expression;                                                              \
	}                                                                                       \
	static void name##_grow(struct shape *s, uint64_t by)                                   \
	{                                                                                       \
		s->a += by;                                                                     \
		s->b ^= s->a;                                                                   \
	}                                                                                       \
	static const struct shape_ops name##_ops = { name##_area, name##_grow };
SHAPE(square, s->a * s->a)
SHAPE(rectangle, s->a * s->b)
SHAPE(triangle, s->a * s->b / 2)
SHAPE(ellipse, s->a * s->b * 355 / 113)
#undef SHAPE

uint64_t row_vcall(struct bench *b)
{
	static const struct shape_ops *const classes[] = { &square_ops, &rectangle_ops, &triangle_ops, &ellipse_ops };
	static struct shape shapes[1024];
	uint64_t state = 7, sum = 0;

	for (size_t i = 0; i < 1024; i++)
		shapes[i] = (struct shape){ classes[bench_random(&state) >> 20 & 3], i, i * 3 };
	bench_begin(b);
	for (uint64_t i = 0; i < b->count / 2; i++) {
		struct shape *shape = &shapes[i & 1023];

		sum += shape->ops->area(shape);
		shape->ops->grow(shape, i);
	}
	bench_end(b);
	return sum;
}

enum { OP_PUSH, OP_ADD, OP_MUL, OP_DUP, OP_LOAD, OP_STORE, OP_LESS, OP_JUMP_IF, OP_XOR, OP_END };

uint64_t row_bytecode(struct bench *b)
{
	/* for (i = sum = 0; i < n; i++) sum = (sum ^ i * 7) + sum; n is variable 2. */
	static const uint8_t code[] = {
		OP_LOAD, 1, OP_LOAD, 0, OP_PUSH, 7, OP_MUL, OP_XOR, OP_LOAD, 1, OP_ADD, OP_STORE, 1, /* 0 */
		OP_LOAD, 0, OP_PUSH, 1, OP_ADD, OP_DUP, OP_STORE, 0, OP_LOAD, 2, OP_LESS, OP_JUMP_IF, 0, OP_END,
	};
	uint64_t stack[16], variables[3] = { 0, 1, b->count };
	const uint8_t *pc = code;
	uint64_t *sp = stack;

	bench_begin(b);
	for (;;) {
		switch (*pc++) {
		case OP_PUSH:
			*sp++ = *pc++;
			continue;
		case OP_ADD:
			sp--;
			sp[-1] += sp[0];
			continue;
		case OP_MUL:
			sp--;
			sp[-1] *= sp[0];
			continue;
		case OP_XOR:
			sp--;
			sp[-1] ^= sp[0];
			continue;
		case OP_DUP:
			sp[0] = sp[-1];
			sp++;
			continue;
		case OP_LOAD:
			*sp++ = variables[*pc++];
			continue;
		case OP_STORE:
			variables[*pc++] = *--sp;
			continue;
		case OP_LESS:
			sp--;
			sp[-1] = sp[-1] < sp[0];
			continue;
		case OP_JUMP_IF:
			pc = *--sp ? code + *pc : pc + 1;
			continue;
		case OP_END:
			break;
		}
		break;
	}
	bench_end(b);
	return variables[1];
}

uint64_t row_strings(struct bench *b)
{
	enum { SIZE = 4096 };
	static char one[SIZE + 64], two[SIZE + 64];
	size_t (*volatile length)(const char *) = strlen;
	void *(*volatile find)(const void *, int, size_t) = memchr;
	int (*volatile compare)(const char *, const char *) = strcmp;
	uint64_t sum = 0;

	for (size_t i = 0; i < SIZE - 1; i++)
		one[i] = two[i] = 'a' + i * 7 % 23;
	two[SIZE - 2] = 'z';
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		/* Long ones from every alignment, and short ones, which are what programs have most of. */
		size_t from = i & 63;

		sum += length(one + from);
		sum += (char *)find(two + from, 'z', SIZE - from) - two;
		sum += compare(one + from, two + from) < 0;
		for (size_t n = 4; n < 40; n += 3) {
			sum += length(one + SIZE - 1 - n);
			sum += compare(one + SIZE - 1 - n, two + SIZE - 1 - n) < 0;
		}
	}
	bench_end(b);
	return sum;
}

static uint32_t ror32(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

/* FIPS 180-4; the constants are the fractional parts of the cube roots of the first 64 primes. */
const uint32_t bench_sha256_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

void bench_sha256_block(uint32_t state[8], const uint8_t *data);
void bench_sha256_block(uint32_t state[8], const uint8_t *data)
{
	uint32_t w[64], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6],
			h = state[7];

	for (int i = 0; i < 16; i++) {
		memcpy(&w[i], data + 4 * i, 4);
		w[i] = __builtin_bswap32(w[i]);
	}
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] + (ror32(w[i - 15], 7) ^ ror32(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ror32(w[i - 2], 17) ^ ror32(w[i - 2], 19) ^ w[i - 2] >> 10);
	for (int i = 0; i < 64; i++) {
		uint32_t t1 = h + (ror32(e, 6) ^ ror32(e, 11) ^ ror32(e, 25)) + ((e & f) ^ (~e & g)) + bench_sha256_k[i] + w[i];
		uint32_t t2 = (ror32(a, 2) ^ ror32(a, 13) ^ ror32(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));

		h = g;
		g = f;
		f = e;
		e = d + t1;
		d = c;
		c = b;
		b = a;
		a = t1 + t2;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
	state[5] += f;
	state[6] += g;
	state[7] += h;
}

/* What both SHA rows hash: @count MiB, the same one time and again. Returns the digest's first half. */
uint64_t bench_sha256(struct bench *b, void (*block)(uint32_t *, const uint8_t *));
uint64_t bench_sha256(struct bench *b, void (*block)(uint32_t *, const uint8_t *))
{
	uint32_t state[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	uint8_t *data = bench_pages(1 << 20), last[64] = { 0x80 };
	uint64_t bits = __builtin_bswap64(b->count << 23);

	for (size_t i = 0; i < 1 << 20; i++)
		data[i] = i * 31 + (i >> 8);
	memcpy(last + 56, &bits, 8);
	bench_begin(b);
	for (uint64_t n = 0; n < b->count; n++) {
		for (size_t at = 0; at < 1 << 20; at += 64)
			block(state, data + at);
	}
	block(state, last);
	bench_end(b);
	return (uint64_t)state[0] << 32 | state[1];
}

uint64_t row_sha256(struct bench *b)
{
	return bench_sha256(b, bench_sha256_block);
}

/* The planar three-body problem, leapfrog: additions, multiplications, divisions and square roots. */
uint64_t row_double(struct bench *b)
{
	double x[3] = { 0, 1, -1.5 }, y[3] = { 0, 0.1, 0.2 }, vx[3] = { 0, 0.1, -0.2 }, vy[3] = { 0, 0.9, -0.7 };
	const double mass[3] = { 1, 0.001, 0.0005 };
	uint64_t bits, sum = 0;

	bench_begin(b);
	for (uint64_t n = 0; n < b->count; n++) {
		for (int i = 0; i < 3; i++) {
			for (int j = 0; j < 3; j++) {
				double dx = x[j] - x[i], dy = y[j] - y[i], r2 = dx * dx + dy * dy, f;

				if (i == j)
					continue;
				f = 0.001 * mass[j] / (r2 * sqrt(r2) + 1e-9);
				vx[i] += f * dx;
				vy[i] += f * dy;
			}
		}
		for (int i = 0; i < 3; i++) {
			x[i] += 0.001 * vx[i];
			y[i] += 0.001 * vy[i];
		}
	}
	bench_end(b);
	for (int i = 0; i < 3; i++) {
		memcpy(&bits, &x[i], 8);
		sum = sum * 31 + bits;
		memcpy(&bits, &y[i], 8);
		sum = sum * 31 + bits;
	}
	return sum;
}

/* Newton's square roots, in 64 bits of mantissa. */
uint64_t row_x87(struct bench *b)
{
	long double sum = 0;
	uint64_t bits;

	bench_begin(b);
	for (uint64_t n = 1; n <= b->count / 4; n++) {
		long double x = (long double)n * 0.75L, root = x;

		for (int i = 0; i < 4; i++)
			root = (root + x / root) * 0.5L;
		sum += root;
	}
	bench_end(b);
	memcpy(&bits, &sum, 8);
	return bits;
}
