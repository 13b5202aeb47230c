/* Random numbers for tests: the same ones in every run. */
#ifndef TESTS_RANDOM_H
#define TESTS_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

static uint64_t seed = 0x9e3779b97f4a7c15ULL;

static inline uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dULL;
}

static inline unsigned below(unsigned n)
{
	return (rnd() >> 33) % n;
}

static inline bool chance(unsigned percent)
{
	return below(100) < percent;
}

#endif
