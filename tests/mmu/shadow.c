/*
 * Shadow tables against the guest's own: a guest that edits its tables as it likes, through its own linear addresses, flushes as the manuals
 * ask it to, and then finds exactly what core/x86/mmu/walk.c, the oracle, finds in its tables.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/x86/mmu/shadow.h"
#include "core/x86/mmu/walk.h"
#include "hosts/user/pages.h"
#include "tests/mmu/rig.h"
#include "tests/paging.h"
#include "tests/tap.h"

#define M (1ULL << 20)
#define RAM (8 * M)

/* Where the guest has its tables. */
#define ROOTS  0x100000ULL /* a page each: 3 address spaces */
#define MIDS   0x110000ULL /* long mode: 3 tables of PDPTEs */
#define DIRS   0x120000ULL /* 4 page directories */
#define TABLES 0x130000ULL /* 6 page tables */
#define DIRECT 0x140000ULL /* what maps all memory for the supervisor: not edited */
#define TABLES_END 0x160000ULL

enum mode { BITS32, PSE, PAE, LONG };
static const char *const mode_names[] = { "32-bit", "32-bit with large pages", "PAE", "4-level" };

static const struct mmu_config config = { .format = MMU_X86, .accessed_dirty = true, .levels = 4, .phys_bits = 48 };

static struct rig r;
static u8 *ram;
static enum mode mode;
static unsigned size; /* of an entry */
static u64 state;

static unsigned rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned)(state >> 11);
}

static bool one_in(unsigned n)
{
	return rnd() % n == 0;
}

/* ---- the guest ----------------------------------------------------------------------------------------------- */

static void put(u64 gpa, u64 value)
{
	memcpy(ram + gpa, &value, size);
}

static u64 direct_map(void)
{
	return mode == LONG ? 0xffff800000000000ULL : 0xc0000000ULL;
}

/* All of memory at direct_map(): 4 KiB pages where entries have 4 bytes, else 2 MiB ones. */
static void make_direct_map(void)
{
	for (unsigned root = 0; root < 3; root++) {
		if (mode == LONG)
			put(ROOTS + root * 4096 + 256 * 8, DIRECT | P | W);
		else if (mode == PAE)
			put(ROOTS + root * 4096 + 3 * 8, (DIRECT + 4096) | P);
		else
			for (unsigned i = 0; i < 2; i++)
				put(ROOTS + root * 4096 + (768 + i) * 4, (DIRECT + i * 4096) | P | W);
	}
	if (mode == LONG)
		put(DIRECT, (DIRECT + 4096) | P | W);
	if (mode >= PAE)
		for (unsigned i = 0; i < 4; i++)
			put(DIRECT + 4096 + i * 8, i * 2 * M | P | W | PS);
	else
		for (unsigned i = 0; i < RAM / 4096; i++)
			put(DIRECT + i * 4, i * 4096 | P | W);
}

static void set_cr(unsigned cr, u64 value)
{
	vcpu_srcu_lock(r.vcpu[0]);
	vcpu_set_cr(r.vcpu[0], cr, value);
	vcpu_srcu_unlock(r.vcpu[0]);
}

static void start_cpus(enum mode to, unsigned shift, unsigned cpus)
{
	struct x86_state *s;

	mode = to;
	size = mode >= PAE ? 8 : 4;
	memset(ram, 0, RAM);
	rig_host.shift = shift;
	rig_open(&r, &config, cpus);
	if (rig_slot(&r, 0, 0, ram, RAM, 0)) {
		printf("Bail out! no slot\n");
		exit(1);
	}
	make_direct_map();
	s = &r.vcpu[0]->x86;
	s->cr0 = CR0_PE | CR0_ET | CR0_WP | CR0_PG;
	s->cr4 = mode == BITS32 ? 0 : mode == PSE ? CR4_PSE : CR4_PAE;
	s->efer = mode == LONG ? EFER_LME | EFER_LMA | EFER_NX : mode == PAE ? EFER_NX : 0;
	s->rflags = 2;
	set_cr(3, ROOTS);
	if (cpus > 1)
		r.vcpu[1]->x86 = *s;
}

static void start(enum mode to, unsigned shift)
{
	start_cpus(to, shift, 1);
}

static void invlpg(u64 la)
{
	vcpu_srcu_lock(r.vcpu[0]);
	r.vcpu[0]->vm->engine->tlb_flush(r.vcpu[0], TLB_PAGE, la);
	vcpu_srcu_unlock(r.vcpu[0]);
}

static enum rig_result touch(u64 la, u32 access)
{
	r.vcpu[0]->x86.cpl = access & PFERR_U ? 3 : 0;
	return rig_touch(&r, 0, la, access);
}

static unsigned long emulated, direct;

/* The guest's MOV to memory, by its direct map. */
static bool store(u64 gpa, const void *value, unsigned len)
{
	enum rig_result result = touch(direct_map() + gpa, PFERR_W);
	int error;

	if (result == RIG_DONE) {
		direct++;
		memcpy((void *)(uintptr_t)r.at.phys, value, len);
		return r.at.phys == (uintptr_t)ram + gpa;
	}
	emulated++;
	if (result != RIG_EMULATE)
		tap_diag("a store to %llx: result %d, event %x", (unsigned long long)gpa, result, r.event.error);
	vcpu_srcu_lock(r.vcpu[0]);
	error = vm_write_guest(r.vm, r.vcpu[0], 0, gpa, value, len);
	vcpu_srcu_unlock(r.vcpu[0]);
	return result == RIG_EMULATE && !error;
}

static bool is_table(u64 gpa)
{
	return gpa >= ROOTS && gpa < TABLES_END;
}

/* One access, compared. A flush is due for nothing. */
static bool check(u64 la, u32 access)
{
	enum rig_result result = touch(la, access);
	struct vcpu *vcpu = r.vcpu[0];
	struct walk_result before, w;
	bool seen, allowed, good;

	vcpu_srcu_lock(vcpu);
	seen = mmu_walk_debug(vcpu, la, &before);
	allowed = mmu_walk(vcpu, la, access, false, &w);
	vcpu_srcu_unlock(vcpu);
	switch (result) {
	case RIG_DONE:
		good = allowed && r.at.phys == (uintptr_t)ram + w.gpa && (before.dirty || !(access & PFERR_W));
		break;
	case RIG_EMULATE:
		good = allowed && (w.gpa >= RAM || ((access & PFERR_W) && (is_table(w.gpa) || (w.user && !w.writable && !(vcpu->x86.cr0 & CR0_WP)))));
		break;
	case RIG_INJECT:
		good = !allowed && r.event.error == w.error && r.event.vector == VEC_PF && r.event.payload == la;
		break;
	default: good = false;
	}
	if (!good)
		tap_diag("la %llx, access %x: result %d, phys %llx; %s, gpa %llx, error %x", (unsigned long long)la, access, result,
			 (unsigned long long)(r.at.phys - (uintptr_t)ram), allowed ? "allowed" : seen ? "denied" : "not there",
			 (unsigned long long)w.gpa, w.error);
	return good;
}

/* ---- random tables --------------------------------------------------------------------------------------------- */

/* A few places of each table are used, so that edits meet what is cached. */
static u64 some_la(void)
{
	u64 la = rnd() % 4096;

	if (mode < PAE)
		return la | (u64)(rnd() % 8) << 12 | (u64)(rnd() % 2) << 21 | (u64)(rnd() % 4) << 22;
	la |= (u64)(rnd() % 8) << 12 | (u64)(rnd() % 4) << 21 | (u64)(rnd() % 3) << 30;
	return mode == LONG ? la | (u64)(rnd() % 2) << 39 : la;
}

static u64 some_rights(void)
{
	u64 rights = (one_in(8) ? 0 : P) | (one_in(4) ? 0 : W) | (one_in(3) ? 0 : U) | (one_in(2) ? A : 0) | (one_in(2) ? D : 0) | (one_in(6) ? G : 0);

	if (size == 8 && one_in(4))
		rights |= NX;
	return rights;
}

/* Any page of memory, tables and a few beyond among them. */
static u64 some_page(void)
{
	if (one_in(3))
		return ROOTS + rnd() % ((TABLES_END - ROOTS) / 4096) * 4096ULL;
	return rnd() % (RAM / 4096 + 16) * 4096ULL;
}

/* A table may be mapped at several places, an edit be seen at all of them. */
static void invlpg_all(void)
{
	for (u64 top = 0; top < (mode == LONG ? 2 : 1); top++)
		for (u64 la = 0; la < (mode < PAE ? 16 * M : 3072 * M); la += la % (2 * M) < 7 * 4096 ? 4096 : 2 * M - 7 * 4096) {
			invlpg(la | top << 39);
			if (mode >= PAE && la % (1024 * M) >= 8 * M)
				la |= 1016 * M;
		}
}

/* One edit at a random level; the flush that it calls for. */
static bool edit(bool flush)
{
	unsigned level = rnd() % (mode == LONG ? 4 : mode == PAE ? 3 : 2) + 1;
	u64 la = some_la(), value = some_rights(), gpa;

	if (one_in(3))
		level = 1;
	if (level == 1) {
		gpa = TABLES + rnd() % 6 * 4096ULL + (size == 8 ? (la >> 12) % 512 : (la >> 12) % 1024) * size;
		value |= some_page();
	} else if (mode < PAE) {
		gpa = ROOTS + rnd() % 3 * 4096ULL + (la >> 22) * 4;
		value |= mode == PSE && one_in(4) ? PS | (u64)(rnd() % 2) * 4 * M : TABLES + rnd() % 6 * 4096ULL;
	} else if (level == 2) {
		gpa = DIRS + rnd() % 4 * 4096ULL + (la >> 21) % 512 * 8;
		value |= one_in(4) ? PS | (u64)(rnd() % 4) * 2 * M : TABLES + rnd() % 6 * 4096ULL;
	} else if (level == 3 && mode == PAE) {
		gpa = ROOTS + rnd() % 3 * 4096ULL + (la >> 30) % 4 * 8;
		value = (DIRS + rnd() % 4 * 4096ULL) | (value & P);
	} else if (level == 3) {
		gpa = MIDS + rnd() % 3 * 4096ULL + (la >> 30) % 512 * 8;
		value |= one_in(8) ? PS : DIRS + rnd() % 4 * 4096ULL;
	} else {
		gpa = ROOTS + rnd() % 3 * 4096ULL + (la >> 39) % 512 * 8;
		value |= MIDS + rnd() % 3 * 4096ULL;
		value &= ~G;
	}
	/* Often only what it allows changes */
	if (one_in(2)) {
		u64 old = 0, rights = P | W | U | A | D | G | NX;

		memcpy(&old, ram + gpa, size);
		if (level > 1 && mode == PAE)
			rights = level == 2 ? rights : P;
		if (old & ~rights)
			value = (old & ~rights) | (value & rights);
	}
	if (!store(gpa, &value, size))
		return false;
	if (!flush)
		return true;
	if (level == 1 && one_in(2))
		invlpg_all();
	else
		set_cr(3, ROOTS + rnd() % 3 * 4096ULL);
	return true;
}

static void bend(void)
{
	struct x86_state *s = &r.vcpu[0]->x86;

	switch (rnd() % 6) {
	case 0: set_cr(0, s->cr0 ^ CR0_WP); break;
	case 1:
		set_cr(4, s->cr4 ^ CR4_SMEP);
		break;
	case 2: set_cr(4, s->cr4 ^ CR4_SMAP); break;
	case 3: s->rflags ^= RFLAGS_AC; break;
	case 4:
		if (size == 8) {
			vcpu_srcu_lock(r.vcpu[0]);
			vcpu_set_efer(r.vcpu[0], s->efer ^ EFER_NX, true);
			vcpu_srcu_unlock(r.vcpu[0]);
		}
		break;
	}
}

/* The host takes a page away and gives it back. */
static void disturb(void)
{
	u64 page = (uintptr_t)ram + rnd() % (RAM / 4096) * 4096;

	switch (rnd() % 4) {
	case 0:
		host_mm_change_begin(page, page + 4096ULL * (rnd() % 600));
		host_mm_change_end();
		break;
	case 1: host_mm_age(page, page + 8 * 4096, true); break;
	case 2: r.mmu->shrinker.scan(&r.mmu->shrinker, 1); break;
	case 3: rig_slot(&r, 0, 0, ram, RAM, one_in(2) ? KVM_MEM_LOG_DIRTY_PAGES : 0); break;
	}
}

static const u32 kinds[] = { 0, PFERR_W, PFERR_I, PFERR_U, PFERR_U | PFERR_W, PFERR_U | PFERR_I };

static void random_tables(enum mode to, unsigned shift)
{
	unsigned rounds = getenv("TRINE_LONG") ? 200000 : 6000, bad = 0, round;

	state = 0x9e3779b97f4a7c15ULL + to;
	emulated = direct = 0;
	start(to, shift);
	for (unsigned i = 0; i < 200; i++)
		bad += !edit(false);
	set_cr(3, ROOTS);
	for (round = 0; round < rounds && !bad; round++) {
		for (unsigned n = rnd() % 4; n; n--)
			bad += !edit(n == 1);
		if (one_in(20))
			bend();
		if (one_in(20))
			disturb();
		rig_serve(&r, 0);
		for (unsigned n = 0; n < 8 && !bad; n++)
			bad += !check(some_la(), kinds[rnd() % ARRAY_SIZE(kinds)]);
		if (one_in(4)) {
			set_cr(3, ROOTS + rnd() % 3 * 4096ULL);
			bad += !check(some_la(), kinds[rnd() % ARRAY_SIZE(kinds)]);
		}
	}
	if (!tap_ok(!bad, "%s, host pages of %u KiB: edits of every level, and what the guest finds then", mode_names[to], 1 << (shift - 10)))
		tap_diag("in round %u", round);
	tap_ok(emulated && direct && r.mmu->nr_tables, "%s: some edits are emulated, some not", mode_names[to]);
	tap_diag("%lu emulated, %lu not, %llu tables", emulated, direct, (unsigned long long)r.mmu->nr_tables);
	rig_close(&r);
}

/* ---- one thing at a time, in 4-level tables -------------------------------------------------------------------- */

#define PAGE0 0x400000ULL /* data */

/* The first 2 MiB of linear space through the first table of each level. */
static void simple_tables(void)
{
	for (unsigned root = 0; root < 3; root++)
		put(ROOTS + root * 4096, (MIDS + root * 4096) | P | W | U | A);
	for (unsigned root = 0; root < 3; root++)
		put(MIDS + root * 4096, (DIRS + root * 4096) | P | W | U | A);
	for (unsigned root = 0; root < 3; root++)
		put(DIRS + root * 4096, (TABLES + root * 4096) | P | W | U | A);
	for (unsigned i = 0; i < 3 * 512; i++)
		put(TABLES + i * 8, (PAGE0 + i % 512 * 4096) | P | W | U | A | D);
}

static bool at(u64 la, u32 access, u64 gpa)
{
	return touch(la, access) == RIG_DONE && r.at.phys == (uintptr_t)ram + gpa;
}

static void begin(unsigned cpus)
{
	start_cpus(LONG, 12, cpus);
	simple_tables();
}

static void paging_off(void)
{
	bool good = true;

	start(LONG, 21);
	rig_slot(&r, 1, 0xe0000000, ram, RAM, 0);
	r.vcpu[0]->x86.efer = 0;
	r.vcpu[0]->x86.cr0 = CR0_ET;
	for (unsigned n = 0; n < 200; n++) {
		u64 gpa = rnd() % RAM;

		good &= at(gpa, n & 1 ? PFERR_W : PFERR_I, gpa) && at(0xe0000000 + gpa, PFERR_W, gpa);
	}
	tap_ok(good && r.at.level == 2 && r.faults <= 8, "paging off: linear addresses are physical ones, in large pages");
	tap_ok(touch(0x80000000, 0) == RIG_EMULATE && touch(0x80000000, 0) == RIG_EMULATE, "paging off: devices are emulated");
	rig_close(&r);
}

static void roots(void)
{
	bool good;

	begin(1);
	good = at(0x1000, PFERR_W | PFERR_U, PAGE0 + 0x1000);
	set_cr(3, ROOTS + 4096);
	good &= at(0x1000, PFERR_W | PFERR_U, PAGE0 + 0x1000);
	r.faults = 0;
	set_cr(3, ROOTS);
	good &= at(0x1000, PFERR_W | PFERR_U, PAGE0 + 0x1000);
	set_cr(3, ROOTS + 4096);
	good &= at(0x1000, PFERR_W | PFERR_U, PAGE0 + 0x1000);
	tap_ok(good && !r.faults, "an address space that comes back needs no fault");
	rig_close(&r);
}

static void invlpg_is_enough(void)
{
	u64 pte = PAGE0 | P | W | U | A | D;
	bool good;

	begin(1);
	good = at(0x1000, 0, PAGE0 + 0x1000) && at(0x2000, 0, PAGE0 + 0x2000) && store(TABLES + 8, &pte, 8) && store(TABLES + 16, &pte, 8);
	emulated = 0;
	good &= store(TABLES + 16, &pte, 8) && !emulated;
	invlpg(0x1000);
	r.faults = 0;
	tap_ok(good && at(0x1000, 0, PAGE0) && r.faults, "INVLPG: what was stored is found");
	r.faults = 0;
	invlpg(0x3000);
	tap_ok(at(0x2000, 0, PAGE0 + 0x2000) && !r.faults, "as on a processor, what was not flushed is still there");
	set_cr(3, ROOTS);
	tap_ok(at(0x2000, 0, PAGE0), "a load of CR3 ends that");
	good = store(TABLES + 16, &pte, 8) && store(TABLES + 24, &pte, 8);
	set_cr(3, ROOTS);
	good &= store(TABLES + 24, &pte, 8);
	tap_ok(good && at(0x3000, 0, PAGE0), "a table may be written again and again");
	good = at(2 * M, 0, PAGE0) || (put(DIRS + 8, (TABLES + 4096) | P | W | U | A), at(2 * M, 0, PAGE0));
	pte = (PAGE0 + 0x9000) | P | W | U | A | D;
	good &= store(TABLES + 24, &pte, 8) && store(TABLES + 24, &pte, 8) && store(MIDS, ram + MIDS, 8);
	invlpg(0x3000);
	tap_ok(good && at(2 * M + 4096, 0, PAGE0 + 4096) && at(0x3000, 0, PAGE0 + 0x9000), "INVLPG counts for what is out of the tree for a while");
	rig_close(&r);
}

static void flood(void)
{
	u64 value = 0;
	bool good;

	begin(1);
	good = at(0x1000, 0, PAGE0 + 0x1000);
	emulated = 0;
	for (unsigned i = 0; i < 20; i++)
		good &= store(DIRS + 64 + i * 8, &value, 8);
	tap_ok(good && emulated && emulated < 10, "a page that was a table is written freely after a few writes in a row");
	emulated = 0;
	good = at(0x1000, 0, PAGE0 + 0x1000) && store(DIRS + 65, &value, 2) && store(DIRS + 67, &value, 2) && emulated == 1;
	tap_ok(good, "or after one that is no entry's");
	rig_close(&r);
}

static void write_protect_off(void)
{
	u64 pte = PAGE0 | P | U | A | D;
	bool good;

	begin(1);
	store(TABLES, &pte, 8);
	pte = (PAGE0 + 4096) | P | A | D;
	store(TABLES + 8, &pte, 8);
	set_cr(3, ROOTS);
	good = touch(0, PFERR_W) == RIG_INJECT && touch(0x1000, PFERR_W) == RIG_INJECT;
	set_cr(0, r.vcpu[0]->x86.cr0 & ~CR0_WP);
	good &= touch(0, PFERR_W) == RIG_EMULATE && touch(0, PFERR_W | PFERR_U) == RIG_INJECT && at(0, PFERR_U, PAGE0) && !r.at.writable;
	tap_ok(good, "CR0.WP off: a supervisor's write to a read-only page of a user's is emulated, and the user gets no right by it");
	tap_ok(at(0x1000, PFERR_W, PAGE0 + 4096) && touch(0x1000, PFERR_U) == RIG_INJECT, "and to one of its own is let through");
	set_cr(0, r.vcpu[0]->x86.cr0 | CR0_WP);
	tap_ok(touch(0x1000, PFERR_W) == RIG_INJECT, "CR0.WP on again: it is not");
	rig_close(&r);
}

static void large(void)
{
	u64 pde = PAGE0 | P | W | PS | A;
	bool good;

	start(LONG, 21);
	simple_tables();
	put(DIRS + 8, pde);
	good = at(2 * M + 0x5000, 0, PAGE0 + 0x5000) && r.at.level == 2 && !r.at.writable;
	good &= at(2 * M + 0x5000, PFERR_W, PAGE0 + 0x5000) && r.at.level == 2 && (ram[DIRS + 8] & D);
	tap_ok(good, "a guest's large page on a huge one of the host's: one entry, writable once it is dirty");
	put(DIRS + 16, (2 * M) | P | W | PS | A | D); /* where no table is yet */
	put(DIRS + 24, 0 | P | W | PS | A | D);
	good = at(6 * M + 0x5000, PFERR_W, 0x5000) && r.at.level == 1;
	tap_ok(good, "but not where tables are");
	good = at(4 * M + 0x5000, PFERR_W, 2 * M + 0x5000) && r.at.level == 2;
	put(DIRS + 32, (2 * M) | P | W | U | A);
	put(2 * M + 8, PAGE0 | P | W | U | A);
	good &= at(8 * M + 0x1000, 0, PAGE0);
	tap_ok(good && at(4 * M + 0x6000, PFERR_W, 2 * M + 0x6000) && r.at.level == 1, "a large page is split when a part of it becomes a table");
	rig_close(&r);
	start(LONG, 12);
	simple_tables();
	put(DIRS + 8, pde);
	good = at(2 * M + 0x5000, 0, PAGE0 + 0x5000) && r.at.level == 1 && !r.at.writable && at(2 * M + 0x6000, PFERR_W, PAGE0 + 0x6000) &&
	       at(2 * M + 0x5000, 0, PAGE0 + 0x5000);
	tap_ok(good && at(2 * M + 0x5000, PFERR_W, PAGE0 + 0x5000), "and on small ones in small ones");
	rig_close(&r);
}

/* An operating system that moves a page while another processor's fault is on its way: the tables are tracked, but the walk was before. */
static void edit_pte(void)
{
	u64 pte = (PAGE0 + 0x9000) | P | W | U | A | D;

	vm_write_guest(r.vm, r.vcpu[1], 0, TABLES + 8, &pte, 8);
}

static void write_by_stale_tlb(struct vcpu *vcpu)
{
	put(TABLES + 8, (PAGE0 + 0x9000) | P | W | U | A | D);
	vcpu_leave_guest(vcpu);
	rig_host.on_kick = NULL;
}

static void races(void)
{
	bool good;

	begin(2);
	good = at(0x2000, 0, PAGE0 + 0x2000);
	rig_host.on_get = edit_pte;
	tap_ok(good && at(0x1000, 0, PAGE0 + 0x9000), "an entry that is written during a fault on it");
	rig_close(&r);

	begin(2);
	/* vCPU 1 may write the table, which is none as yet, and has that in its TLB */
	good = rig_touch(&r, 1, direct_map() + TABLES, PFERR_W) == RIG_DONE;
	rig_serve(&r, 0);
	rig_serve(&r, 1);
	__atomic_store_n(&r.vcpu[1]->place, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
	rig_host.on_kick = write_by_stale_tlb;
	tap_ok(good && at(0x1000, 0, PAGE0 + 0x9000) && !rig_host.on_kick, "one that is written by another processor which has not flushed yet");
	rig_close(&r);

	begin(2);
	good = at(0x1000, 0, PAGE0 + 0x1000) && store(TABLES + 512, ram + TABLES + 512, 8) && store(TABLES + 512, ram + TABLES + 512, 8);
	good &= rig_touch(&r, 1, direct_map() + TABLES, PFERR_W) == RIG_DONE;
	rig_serve(&r, 0);
	rig_serve(&r, 1);
	__atomic_store_n(&r.vcpu[1]->place, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
	rig_host.on_kick = write_by_stale_tlb;
	set_cr(3, ROOTS);
	tap_ok(good && at(0x1000, 0, PAGE0 + 0x9000) && !rig_host.on_kick, "and likewise in a table that was written freely, at a load of CR3");
	rig_close(&r);
}

static u64 bitmap[RAM / 4096 / 64];

static bool get_log(void)
{
	return rig_get_log(&r, bitmap, sizeof(bitmap));
}

static bool logged(u64 gpa)
{
	return bitmap[(gpa >> 12) / 64] >> ((gpa >> 12) % 64) & 1;
}

static void dirty_log(void)
{
	unsigned long gets;
	bool good;

	begin(1);
	good = at(0x1000, PFERR_W, PAGE0 + 0x1000) && at(0x2000, PFERR_W, PAGE0 + 0x2000);
	good &= !rig_slot(&r, 0, 0, ram, RAM, KVM_MEM_LOG_DIRTY_PAGES) && get_log();
	good &= at(0x1000, PFERR_W, PAGE0 + 0x1000) && at(0x2000, 0, PAGE0 + 0x2000) && !r.at.writable;
	tap_ok(good && get_log() && logged(PAGE0 + 0x1000) && !logged(PAGE0 + 0x2000), "the dirty log has what was written");
	gets = rig_host.gets;
	good = at(0x1000, PFERR_W, PAGE0 + 0x1000) && rig_host.gets == gets && get_log() && logged(PAGE0 + 0x1000);
	tap_ok(good, "a page that is only protected for the log is written without asking anybody");
	put(TABLES + 32, (PAGE0 + 0x4000) | P | W | A | D);
	good = at(0x4000, PFERR_W, PAGE0 + 0x4000) && get_log();
	tap_ok(good && touch(0x4000, PFERR_W | PFERR_U) == RIG_INJECT && at(0x4000, PFERR_W, PAGE0 + 0x4000) && get_log() &&
		       logged(PAGE0 + 0x4000), "but not by a user that may not");
	put(TABLES + 24, (PAGE0 + 0x3000) | P | W | U);
	tap_ok(at(0x3000, PFERR_W, PAGE0 + 0x3000) && get_log() && logged(TABLES), "accessed and dirty bits are logged, too");
	rig_close(&r);
}

static void memory_below(void)
{
	unsigned failed = 0;
	bool good;

	begin(1);
	good = at(0x1000, PFERR_W, PAGE0 + 0x1000);
	rig_serve(&r, 0);
	host_mm_change_begin((uintptr_t)ram + PAGE0 + 0x1000, (uintptr_t)ram + PAGE0 + 0x2000);
	good &= rig_serve(&r, 0) && touch(0x1000, 0) == RIG_STUCK;
	host_mm_change_end();
	tap_ok(good && at(0x1000, 0, PAGE0 + 0x1000), "a page that the host changes is not there meanwhile");
	tap_ok(host_mm_age((uintptr_t)ram + PAGE0, (uintptr_t)ram + PAGE0 + 0x2000, true) &&
		       !host_mm_age((uintptr_t)ram + PAGE0, (uintptr_t)ram + PAGE0 + 0x2000, true),
	       "pages age");
	good = !rig_slot(&r, 0, 0, ram, 0, 0) && touch(0x1000, 0) == RIG_INJECT && !r.event.error;
	tap_ok(good && r.mmu->nr_tables == 1, "when memory goes, the tables in it go, but for the root that is looked for in vain");
	good = !rig_slot(&r, 0, 0, ram, RAM, 0) && !rig_slot(&r, 1 << 16, 0, ram, RAM, 0) && at(0x1000, 0, PAGE0 + 0x1000);
	r.vcpu[0]->x86.smm = true;
	tap_ok(good && at(0x1000, PFERR_W, PAGE0 + 0x1000), "in SMM, too");
	rig_close(&r);

	for (long n = 0; n < 40; n++) {
		begin(1);
		host_fail_alloc = n + 1;
		if (touch(0x1000, PFERR_W) == RIG_ERROR)
			failed += r.error == -ENOMEM;
		host_fail_alloc = 0;
		good &= at(0x1000, PFERR_W, PAGE0 + 0x1000);
		rig_close(&r);
	}
	tap_ok(good && failed > 5, "without memory for tables, -ENOMEM, and all is well when there is some");
	failed = 0;
	for (long n = 0; n < 20; n++) {
		struct mmu *mmu = NULL;
		struct mmu_vcpu *m;

		begin(1);
		host_fail_alloc = n + 1;
		if (mmu_create(r.vm, &config, &mmu)) {
			failed++;
		} else {
			if (mmu_vcpu_create(mmu, r.vcpu[0], &m))
				failed++;
			else
				mmu_vcpu_destroy(m);
			mmu_destroy(mmu);
		}
		host_fail_alloc = 0;
		r.vm->shadow = r.mmu;
		rig_close(&r);
	}
	tap_ok(failed >= 6, "creation fails at each allocation and leaves nothing");
}

/* A guest that calls everything a table, and one page mapped everywhere. */
static void bounds(void)
{
	unsigned length = 0;
	bool good = true;
	u64 most = 0;

	begin(1);
	for (unsigned i = 0; i < 900 && good; i++) {
		put(DIRS + 8, (2 * M + i * 4096) | P | W | U | A);
		put(2 * M + i * 4096, PAGE0 | P | W | U | A | D);
		set_cr(3, ROOTS);
		vcpu_srcu_lock(r.vcpu[0]);
		vm_guest_written(r.vm, DIRS + 8, 8);
		vcpu_srcu_unlock(r.vcpu[0]);
		good &= at(2 * M, PFERR_W, PAGE0);
		most = MAX(most, r.mmu->nr_tables);
	}
	tap_ok(good && most < 90, "tables are as many as memory allows, whatever the guest calls one");
	rig_close(&r);
	begin(1);
	for (unsigned i = 0; i < 3 * 512; i++)
		put(TABLES + i * 8, PAGE0 | P | W | U | A | D);
	for (unsigned i = 0; i < 512 * 3 && good; i++) {
		if (!(i % 512))
			set_cr(3, ROOTS + i / 512 * 4096);
		good &= at(i % 512 * 4096, PFERR_W, PAGE0);
	}
	for (u64 *e = shadow_guest_page(r.mmu, 0, PAGE0 >> 12)->maps; e; e = shadow_table_of(e)->maps[e - shadow_table_of(e)->entries].next)
		length++;
	good &= length > 500 && length <= 1000;
	host_mm_change_begin((uintptr_t)ram + PAGE0, (uintptr_t)ram + PAGE0 + 4096);
	good &= touch(0x1000, 0) == RIG_STUCK && touch(511 * 4096, 0) == RIG_STUCK;
	host_mm_change_end();
	tap_ok(good, "a page may be mapped at thousands of places, not all at once");
	rig_close(&r);
}

int main(void)
{
	u8 *p = mmap(NULL, RAM + 2 * M, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	tap_begin();
	ram = (u8 *)(((uintptr_t)p + 2 * M - 1) & ~(2 * M - 1));
	for (enum mode i = BITS32; i <= LONG; i++) {
		random_tables(i, 12);
		random_tables(i, 21);
	}
	paging_off();
	roots();
	invlpg_is_enough();
	flood();
	write_protect_off();
	large();
	races();
	dirty_log();
	memory_below();
	bounds();
	return tap_end();
}
