/* Bit helpers that both worlds lack under one name. */
#ifndef CORE_BITS_H
#define CORE_BITS_H

#include "hosts/host.h"

#define BIT64(n)	      (1ULL << (n))
#define MASK64(high, low)     ((~0ULL >> (63 - (high))) & (~0ULL << (low)))
#define ROUND_UP(x, align)    (((x) + (align)-1) & ~((__typeof__(x))(align)-1))
#define ROUND_DOWN(x, align)  ((x) & ~((__typeof__(x))(align)-1))
#define MIN(a, b)	      ((a) < (b) ? (a) : (b))
#define MAX(a, b)	      ((a) > (b) ? (a) : (b))

static inline s64 sign_extend(u64 value, unsigned bits)
{
	return (s64)(value << (64 - bits)) >> (64 - bits);
}

/* (@high << 64 | @low) / @den, @high < @den: the division that C would make a library call of. */
static inline u64 div_wide(u64 high, u64 low, u64 den)
{
	u64 q, rest;

	__asm__("divq %4" : "=a"(q), "=d"(rest) : "0"(low), "1"(high), "r"(den) : "cc");
	return q;
}

static inline bool atomic_test_and_set_bit(unsigned nr, u64 *words)
{
	return __atomic_fetch_or(&words[nr / 64], BIT64(nr % 64), __ATOMIC_SEQ_CST) & BIT64(nr % 64);
}

static inline bool atomic_test_and_clear_bit(unsigned nr, u64 *words)
{
	return __atomic_fetch_and(&words[nr / 64], ~BIT64(nr % 64), __ATOMIC_SEQ_CST) & BIT64(nr % 64);
}

#endif
