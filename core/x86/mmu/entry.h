/*
 * One entry of a table that the hardware walks, in the two formats there are: as in long mode (APM 2 5.3, 15.25; SDM 3A table 4-20),
 * and EPT's (SDM 3C tables 28-1 to 28-7). They agree on the address (51:12), on bit 1 (W) and on bit 7 (the entry maps a large page);
 * struct entry_format holds what differs. Bit 11 is software's in both; with PAE paging 62:52 must be zero.
 *
 * Levels count from 1, where an entry maps a page of 4 KiB; at level 2 it maps 2 MiB, at 3 it maps 1 GiB, or else it is a link to a table
 * of the level below. An entry is read and written whole: other processors walk the tables all the time.
 */
#ifndef CORE_X86_MMU_ENTRY_H
#define CORE_X86_MMU_ENTRY_H

#include "core/bits.h"
#include "core/x86/mmu/mmu.h"

#define ENTRIES	     512
#define ENTRY_W	     BIT64(1)
#define ENTRY_LARGE  BIT64(7)
#define ENTRY_ADDR   MASK64(51, 12)
/* The page may be written, and the host has been asked: W is missing only because a write must be heard of first. */
#define ENTRY_MAY_WRITE BIT64(11)

struct entry_format {
	u64 present;  /* any of these */
	u64 link;     /* all rights: those of a table are its entries' */
	u64 read, user, exec, noexec;
	u64 accessed, dirty;
	u64 memory, device; /* the cache's part: write-back, uncached */
};

/* The memory type of NPT is the guest's combined with PCD and PWT, which choose from the host's PAT (APM 2 15.25.8): 0 is write-back, 3
 * is uncached. In EPT: write-back (6), the guest's PAT ignored (bit 6); uncached (0), to which the guest's PAT may add write combining. */
static const struct entry_format entry_formats[] = {
	[MMU_X86] = { .present = BIT64(0), .link = BIT64(0) | ENTRY_W | BIT64(2) | BIT64(5), .read = BIT64(0), .user = BIT64(2),
		      .noexec = BIT64(63), .accessed = BIT64(5), .dirty = BIT64(6), .device = BIT64(3) | BIT64(4) },
	[MMU_EPT] = { .present = MASK64(2, 0), .link = MASK64(2, 0) | BIT64(8), .read = BIT64(0), .exec = BIT64(2),
		      .accessed = BIT64(8), .dirty = BIT64(9), .memory = 6 << 3 | BIT64(6) },
};

static inline u64 entry_load(const u64 *entry)
{
	return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

static inline void entry_store(u64 *entry, u64 value)
{
	__atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

/** False: it is no longer @old. */
static inline bool entry_exchange(u64 *entry, u64 old, u64 new)
{
	return __atomic_compare_exchange_n(entry, &old, new, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/** Takes @bits away; what was there before. */
static inline u64 entry_clear(u64 *entry, u64 bits)
{
	return __atomic_fetch_and(entry, ~bits, __ATOMIC_ACQ_REL);
}

static inline bool entry_is_present(const struct entry_format *f, u64 entry)
{
	return entry & f->present;
}

static inline bool entry_is_link(const struct entry_format *f, u64 entry, unsigned level)
{
	return entry_is_present(f, entry) && level > 1 && !(entry & ENTRY_LARGE);
}

static inline bool entry_is_leaf(const struct entry_format *f, u64 entry, unsigned level)
{
	return entry_is_present(f, entry) && !entry_is_link(f, entry, level);
}

static inline u64 *entry_table(u64 entry)
{
	return host_page_at(entry & ENTRY_ADDR);
}

static inline u64 entry_link(const struct entry_format *f, void *table)
{
	return host_page_phys(table) | f->link;
}

/* ---- geometry ------------------------------------------------------------------------------------------------ */

/** Log2 of the pages that an entry at @level stands for. */
static inline unsigned level_bits(unsigned level)
{
	return 9 * (level - 1);
}

static inline u64 level_pages(unsigned level)
{
	return BIT64(level_bits(level));
}

/** Which entry of a table at @level is for page number @page (of the guest's physical or linear space). */
static inline unsigned level_index(u64 page, unsigned level)
{
	return (page >> level_bits(level)) % ENTRIES;
}

#endif
