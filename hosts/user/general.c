/*
 * memcpy(), memmove(), memset(), memcmp() without vector registers; see general.h. Most calls are for a few bytes: those are done by
 * words that may overlap; REP has a start-up cost that pays from some hundred bytes on.
 */
#include "hosts/host.h"

/* The loops here must not become calls of what they implement. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")

typedef u64 word __attribute__((may_alias, aligned(1)));
typedef u32 half __attribute__((may_alias, aligned(1)));
typedef u16 quarter __attribute__((may_alias, aligned(1)));

#define REP_FROM 768

void *trine_memcpy(void *restrict dst, const void *restrict src, size_t len);
void *trine_memmove(void *dst, const void *src, size_t len);
void *trine_memset(void *dst, int byte, size_t len);
int trine_memcmp(const void *a, const void *b, size_t len);

/* Up to 16 bytes, which may overlap: everything is read before anything is written. */
static inline void copy_small(u8 *d, const u8 *s, size_t len)
{
	if (len >= 8) {
		u64 first = *(const word *)s, last = *(const word *)(s + len - 8);

		*(word *)d = first;
		*(word *)(d + len - 8) = last;
	} else if (len >= 4) {
		u32 first = *(const half *)s, last = *(const half *)(s + len - 4);

		*(half *)d = first;
		*(half *)(d + len - 4) = last;
	} else if (len >= 2) {
		u16 first = *(const quarter *)s, last = *(const quarter *)(s + len - 2);

		*(quarter *)d = first;
		*(quarter *)(d + len - 2) = last;
	} else if (len) {
		*d = *s;
	}
}

static inline void copy_words(u8 *d, const u8 *s, size_t len)
{
	u64 tail0 = *(const word *)(s + len - 16), tail1 = *(const word *)(s + len - 8);
	u8 *end = d + len;

	for (; len > 16; len -= 16, d += 16, s += 16) {
		u64 a = *(const word *)s, b = *(const word *)(s + 8);

		*(word *)d = a;
		*(word *)(d + 8) = b;
	}
	*(word *)(end - 16) = tail0;
	*(word *)(end - 8) = tail1;
}

void *trine_memcpy(void *restrict dst, const void *restrict src, size_t len)
{
	void *d = dst;

	if (likely(len <= 16)) {
		copy_small(dst, src, len);
	} else if (likely(len < REP_FROM)) {
		copy_words(dst, src, len);
	} else {
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(len) : : "memory");
	}
	return dst;
}

void *trine_memmove(void *dst, const void *src, size_t len)
{
	u8 *d = (u8 *)dst + len;
	const u8 *s = (const u8 *)src + len;

	if (len <= 16) {
		copy_small(dst, src, len);
		return dst;
	}
	/* Upwards, unless that would overwrite what is still to be read. */
	if ((u64)(uintptr_t)dst - (u64)(uintptr_t)src >= len)
		return trine_memcpy(dst, src, len);
	for (; len >= 8; len -= 8) {
		d -= 8;
		s -= 8;
		*(word *)d = *(const word *)s;
	}
	copy_small(dst, src, len);
	return dst;
}

void *trine_memset(void *dst, int byte, size_t len)
{
	u64 value = (u8)byte * 0x0101010101010101ULL;
	u8 *d = dst, *end = d + len;

	if (len >= REP_FROM) {
		__asm__ volatile("rep stosb" : "+D"(d), "+c"(len) : "a"(byte) : "memory");
	} else if (len >= 16) {
		for (; d + 16 <= end; d += 16) {
			*(word *)d = value;
			*(word *)(d + 8) = value;
		}
		*(word *)(end - 16) = value;
		*(word *)(end - 8) = value;
	} else if (len >= 8) {
		*(word *)d = value;
		*(word *)(end - 8) = value;
	} else if (len >= 4) {
		*(half *)d = (u32)value;
		*(half *)(end - 4) = (u32)value;
	} else {
		while (d < end)
			*d++ = (u8)byte;
	}
	return dst;
}

/* The sign of the first difference, found in a word. */
static inline int order(u64 a, u64 b)
{
	a = __builtin_bswap64(a);
	b = __builtin_bswap64(b);
	return a < b ? -1 : a > b;
}

int trine_memcmp(const void *va, const void *vb, size_t len)
{
	const u8 *a = va, *b = vb;

	for (; len >= 32; len -= 32, a += 32, b += 32) {
		const word *x = (const word *)a, *y = (const word *)b;

		if (likely(!((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]))))
			continue;
		for (unsigned i = 0; i < 4; i++)
			if (x[i] != y[i])
				return order(x[i], y[i]);
	}
	for (; len >= 8; len -= 8, a += 8, b += 8)
		if (*(const word *)a != *(const word *)b)
			return order(*(const word *)a, *(const word *)b);
	for (; len; len--, a++, b++)
		if (*a != *b)
			return *a - *b;
	return 0;
}
