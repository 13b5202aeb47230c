/*
 * Tables for firmware and kernels, ACPI's and SMBIOS's, written field after field: little-endian, packed. How large they become at
 * most is known to who has the buffer.
 */
#ifndef VMM_MACHINE_TABLE_H
#define VMM_MACHINE_TABLE_H

#include "vmm/util.h"

struct table {
	u8 *bytes;
	u32 at, size; /* where the next field goes; of the buffer */
};

static inline void put(struct table *t, const void *bytes, u32 n)
{
	assert(t->at + n <= t->size);
	memcpy(t->bytes + t->at, bytes, n);
	t->at += n;
}

static inline void put8(struct table *t, u8 v)
{
	put(t, &v, 1);
}

static inline void put16(struct table *t, u16 v)
{
	put(t, &v, 2);
}

static inline void put32(struct table *t, u32 v)
{
	put(t, &v, 4);
}

static inline void put64(struct table *t, u64 v)
{
	put(t, &v, 8);
}

/* The bytes' sum. With its negative in a checksum's field, that was 0, it is 0. */
static inline u8 table_sum(const void *bytes, size_t n)
{
	const u8 *b = bytes;
	u8 s = 0;

	while (n--)
		s += *b++;
	return s;
}

#endif
