/* Nested tables in each format: what the hardware finds in them is what slots and host say, before and after each of these changes. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/x86/mmu/mmu_priv.h"
#include "hosts/user/pages.h"
#include "tests/mmu/rig.h"
#include "tests/tap.h"

#define M (1ULL << 20)
#define G (1ULL << 30)

static const struct {
	const char *name;
	struct mmu_config config;
} formats[] = {
	{ "NPT", { .format = MMU_X86, .nested = true, .huge_1g = true, .accessed_dirty = true, .levels = 4, .phys_bits = 48 } },
	{ "NPT of 5 levels", { .format = MMU_X86, .nested = true, .huge_1g = true, .accessed_dirty = true, .levels = 5, .phys_bits = 48 } },
	{ "EPT", { .format = MMU_EPT, .nested = true, .huge_1g = true, .accessed_dirty = true, .levels = 4, .phys_bits = 48 } },
	{ "EPT with a log", { .format = MMU_EPT, .nested = true, .huge_1g = true, .accessed_dirty = true, .notes_writes = true, .levels = 4,
			      .phys_bits = 48 } },
	{ "EPT without A and D", { .format = MMU_EPT, .nested = true, .levels = 4, .phys_bits = 48 } },
};

static struct rig r;
static const char *format;
static u8 *ram; /* 8 MiB at a multiple of 2 MiB; 1 GiB of address space at one of 1 GiB */
static u8 *space;

#define RAM  (8 * M)
#define BASE (64 * M) /* where slot 0 shows it */

static u64 hva(const void *p)
{
	return (uintptr_t)p;
}

static bool at(u64 gpa, u32 access, const void *p)
{
	return rig_touch(&r, 0, gpa, access) == RIG_DONE && r.at.phys == hva(p);
}

static void open_ram(unsigned i, u32 flags)
{
	format = formats[i].name;
	rig_open(&r, &formats[i].config, 1);
	if (rig_slot(&r, 0, BASE, ram, RAM, flags)) {
		printf("Bail out! no slot\n");
		exit(1);
	}
}

static unsigned rnd(void)
{
	static u64 state = 88172645463325252ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned)(state >> 11);
}

/* ---- translations -------------------------------------------------------------------------------------------- */

static void pages(unsigned i)
{
	static const u32 kinds[] = { 0, PFERR_W, PFERR_I, PFERR_U, PFERR_U | PFERR_W };
	unsigned bad = 0;

	open_ram(i, 0);
	rig_slot(&r, 1, 5 * G + 3 * 4096, ram + 4096, 5 * 4096, 0);
	rig_slot(&r, 1 << 16, BASE, ram + 4 * M, M, 0);
	for (unsigned n = 0; n < 3000; n++) {
		u64 offset = rnd() % RAM;

		bad += !at(BASE + offset, kinds[n % ARRAY_SIZE(kinds)], ram + offset);
	}
	for (unsigned n = 0; n < 5; n++)
		bad += !at(5 * G + (n + 3) * 4096, 0, ram + (n + 1) * 4096) || r.at.level != 1;
	tap_ok(!bad, "%s: every kind of access finds the page of its slot", format);
	tap_ok(r.faults <= RAM / 4096 + 5, "%s: a page faults once", format);
	r.vcpu[0]->x86.smm = true;
	tap_ok(at(BASE + 123, PFERR_W, ram + 4 * M + 123) && rig_touch(&r, 0, BASE + M, 0) == RIG_EMULATE,
	       "%s: a vCPU in SMM sees the second address space", format);
	r.vcpu[0]->x86.smm = false;
	tap_ok(at(BASE + 123, PFERR_W, ram + 123), "%s: and the first again", format);
	rig_close(&r);
}

static void holes(unsigned i)
{
	bool good;

	open_ram(i, 0);
	good = rig_touch(&r, 0, BASE - 1, 0) == RIG_EMULATE && rig_touch(&r, 0, BASE + RAM, PFERR_W) == RIG_EMULATE &&
	       rig_touch(&r, 0, BASE + RAM, 0) == RIG_EMULATE && rig_touch(&r, 0, 1ULL << 51, 0) == RIG_EMULATE;
	tap_ok(good && !rig_host.gets, "%s: where no slot is, the instruction is emulated", format);
	rig_slot(&r, 1, BASE + RAM, ram, 4096, 0);
	tap_ok(at(BASE + RAM, 0, ram), "%s: a slot that comes is seen", format);
	mmu_own_page(r.mmu, G >> 12, hva(space));
	tap_ok(at(G + 12, 0, space + 12) && at(G + 12, PFERR_W, space + 12) && rig_touch(&r, 0, G + 4096, 0) == RIG_EMULATE,
	       "%s: a page of the engine's is where it says", format);
	rig_serve(&r, 0);
	mmu_own_page(r.mmu, 0, 0);
	tap_ok(rig_serve(&r, 0) && rig_touch(&r, 0, G + 12, 0) == RIG_EMULATE && rig_touch(&r, 0, 12, 0) == RIG_EMULATE,
	       "%s: until it says so no more, and then that is flushed", format);
	rig_close(&r);
}

static void rights(unsigned i)
{
	u64 type_mask = formats[i].config.format == MMU_EPT ? 0x78 : 0x18;
	u64 type_ram = formats[i].config.format == MMU_EPT ? 0x70 : 0, type_device = formats[i].config.format == MMU_EPT ? 0 : 0x18;

	open_ram(i, 0);
	rig_slot(&r, 1, 0, ram, 0x4000, KVM_MEM_READONLY);
	tap_ok(at(0x1000, 0, ram + 0x1000) && !r.at.writable && r.at.executable && at(0x1000, PFERR_I, ram + 0x1000) &&
		       rig_touch(&r, 0, 0x1000, PFERR_W) == RIG_EMULATE && rig_touch(&r, 0, 0x2000, PFERR_W) == RIG_EMULATE,
	       "%s: a read-only slot is read and executed; writes are emulated", format);
	tap_ok((r.at.entry & type_mask) == type_ram, "%s: memory is cached write-back", format);
	rig_host.read_only_start = hva(ram) + M;
	rig_host.read_only_end = hva(ram) + M + 4096;
	tap_ok(at(BASE + M, 0, ram + M) && !r.at.writable && rig_touch(&r, 0, BASE + M, PFERR_W) == RIG_ERROR && r.error == -EFAULT &&
		       at(BASE + M + 4096, 0, ram + M + 4096) && r.at.writable,
	       "%s: a page that the host lets be read only is mapped so", format);
	rig_host.device_start = hva(ram) + 2 * M;
	rig_host.device_end = hva(ram) + 3 * M;
	tap_ok(at(BASE + 2 * M, PFERR_W, ram + 2 * M) && (r.at.entry & type_mask) == type_device, "%s: a device's page is not cached", format);
	rig_host.error = -EHWPOISON;
	tap_ok(rig_touch(&r, 0, BASE + 4 * M, 0) == RIG_ERROR && r.error == -EHWPOISON, "%s: what the host answers is passed on", format);
	rig_close(&r);
	open_ram(i, 0);
	mprotect(ram + M, 4096, PROT_NONE);
	tap_ok(rig_touch(&r, 0, BASE + M, 0) == RIG_ERROR && r.error == -EFAULT, "%s: where the client has nothing, -EFAULT", format);
	mprotect(ram + M, 4096, PROT_READ | PROT_WRITE);
	tap_ok(at(BASE + M, 0, ram + M), "%s: and the page when it has it", format);
	rig_close(&r);
}

static void huge(unsigned i)
{
	bool good;

	rig_host.shift = 21;
	open_ram(i, 0);
	rig_slot(&r, 1, BASE + RAM + 4096, ram + 4096, 4 * M, 0);
	rig_slot(&r, 2, 128 * M + 4096, ram, 4 * M, 0);
	tap_ok(at(BASE + 2 * M + 0x12345, 0, ram + 2 * M + 0x12345) && r.at.level == 2 && r.at.writable &&
		       at(BASE + 3 * M, PFERR_W, ram + 3 * M) && r.faults == 1,
	       "%s: a huge page of the host's is one of the guest's", format);
	good = at(BASE + RAM + 4096, 0, ram + 4096) && r.at.level == 1;
	good &= at(BASE + RAM + 3 * M, 0, ram + 3 * M) && r.at.level == 2;
	good &= at(BASE + RAM + 4 * M, 0, ram + 4 * M) && r.at.level == 1;
	tap_ok(good, "%s: not where it would go beyond the slot", format);
	tap_ok(at(130 * M, 0, ram + 2 * M - 4096) && r.at.level == 1, "%s: nor where slot and host are not aligned alike", format);
	rig_close(&r);
	rig_host.shift = 30;
	rig_open(&r, &formats[i].config, 1);
	rig_slot(&r, 0, 4 * G, space, G, 0);
	tap_ok(at(4 * G + 700 * M, PFERR_W, space + 700 * M) && r.at.level == (formats[i].config.huge_1g ? 3 : 2),
	       "%s: 1 GiB pages where the processor has them", format);
	rig_close(&r);
}

/* ---- the dirty log ------------------------------------------------------------------------------------------- */

static u64 bitmap[RAM / 4096 / 64];

static bool get_log(void)
{
	return rig_get_log(&r, bitmap, sizeof(bitmap));
}

static bool clear_log(u64 first, u64 pages)
{
	struct kvm_clear_dirty_log log = { .slot = 0, .first_page = first, .num_pages = pages, .dirty_bitmap = bitmap + first / 64 };

	return !rig_ioctl(&r, KVM_CLEAR_DIRTY_LOG, &log);
}

static bool logged(unsigned page)
{
	return bitmap[page / 64] >> (page % 64) & 1;
}

static unsigned count_logged(void)
{
	unsigned n = 0;

	for (unsigned page = 0; page < RAM / 4096; page++)
		n += logged(page);
	return n;
}

/* Touches pages at random, some for writing, and compares the log with what was written. */
static bool log_round(void)
{
	static bool wrote[RAM / 4096];
	bool good = true;

	memset(wrote, 0, sizeof(wrote));
	for (unsigned n = 0; n < 700; n++) {
		unsigned page = rnd() % (RAM / 4096);
		bool write = rnd() & 1;

		wrote[page] |= write;
		good &= at(BASE + page * 4096ULL, write ? PFERR_W : 0, ram + page * 4096ULL) && (!write || r.at.level == 1);
	}
	good &= get_log();
	for (unsigned page = 0; page < RAM / 4096; page++)
		good &= logged(page) == wrote[page];
	return good;
}

static void dirty_log(unsigned i)
{
	unsigned long gets;
	bool good = true;

	rig_host.shift = 21;
	open_ram(i, 0);
	for (unsigned page = 0; page < RAM / 4096; page++)
		good &= at(BASE + page * 4096ULL, PFERR_W, ram + page * 4096ULL) && r.at.level == 2;
	rig_serve(&r, 0);
	good &= !rig_slot(&r, 0, BASE, ram, RAM, KVM_MEM_LOG_DIRTY_PAGES);
	tap_ok(good && rig_serve(&r, 0), "%s: dirty logging begins with a flush", format);
	tap_ok(get_log() && !count_logged(), "%s: nothing is dirty then", format);
	tap_ok(at(BASE, PFERR_W, ram) && r.at.level == 1 && rig_serve(&r, 0) && get_log() && count_logged() == 1,
	       "%s: a huge page is split, and flushed", format);
	good = log_round();
	tap_ok(good, "%s: huge pages are split, and the log has exactly what was written", format);
	tap_ok(rig_serve(&r, 0), "%s: taking the log flushes", format);
	good = log_round() && log_round();
	tap_ok(good, "%s: each round has its own writes", format);
	if (formats[i].config.notes_writes) {
		r.faults = r.noted = 0;
		for (unsigned page = 0; page < RAM / 4096; page++)
			good &= at(BASE + page * 4096ULL, PFERR_W, ram + page * 4096ULL);
		get_log();
		r.faults = r.noted = 0;
		tap_ok(good && log_round() && !r.faults && r.noted > 100, "%s: what is mapped is logged without faults", format);
		r.noted = 0;
		good = !rig_slot(&r, 1, 5 * G, ram, RAM, 0) && at(5 * G, 0, ram) && at(5 * G, PFERR_W, ram);
		tap_ok(good && !r.noted, "%s: of a slot without a log nothing is noted", format);
		rig_slot(&r, 1, 5 * G, ram, 0, 0);
	}
	at(BASE, PFERR_W, ram);
	get_log();
	gets = rig_host.gets;
	tap_ok(at(BASE, PFERR_W, ram) && rig_host.gets == gets && get_log() && count_logged() == 1,
	       "%s: a page that is only protected for the log is written without asking the host", format);
	good = !rig_slot(&r, 0, BASE, ram, RAM, 0) && rig_serve(&r, 0) && at(BASE + 2 * M, PFERR_W, ram + 2 * M) && r.at.level == 2;
	tap_ok(good && at(BASE, 0, ram) && r.at.level == 2, "%s: when logging ends, pages are huge again", format);
	rig_close(&r);

	open_ram(i, KVM_MEM_LOG_DIRTY_PAGES);
	rig_host.read_only_start = hva(ram) + M;
	rig_host.read_only_end = hva(ram) + M + 4096;
	tap_ok(at(BASE + M, 0, ram + M) && rig_touch(&r, 0, BASE + M, PFERR_W) == RIG_ERROR && get_log() && !count_logged(),
	       "%s: a page that the host lets be read only does not become writable by the log's way", format);
	rig_close(&r);
}

static void manual_protect(unsigned i)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
				      .args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET };
	bool good = true;

	rig_host.shift = 21;
	open_ram(i, 0);
	good &= !rig_ioctl(&r, KVM_ENABLE_CAP, &cap);
	good &= at(BASE, PFERR_W, ram) && at(BASE + 2 * M, PFERR_W, ram + 2 * M);
	good &= !rig_slot(&r, 0, BASE, ram, RAM, KVM_MEM_LOG_DIRTY_PAGES);
	r.faults = 0;
	tap_ok(good && get_log() && count_logged() == RAM / 4096 && at(BASE, PFERR_W, ram) && r.at.level == 2 && !r.faults,
	       "%s: all pages count as dirty at first, and none is protected", format);
	memset(bitmap, 0, sizeof(bitmap));
	bitmap[0] = 0xf0;
	good = clear_log(0, 64) && at(BASE + 4 * 4096, 0, ram + 4 * 4096) && !r.at.writable;
	good &= at(BASE + 5 * 4096, PFERR_W, ram + 5 * 4096) && r.at.level == 1 && at(BASE + 2 * M, PFERR_W, ram + 2 * M) &&
		r.at.level == 2;
	tap_ok(good && get_log() && !logged(4) && logged(5) && !logged(6) && count_logged() == RAM / 4096 - 3,
	       "%s: what is cleared is protected, in its huge page alone, and logged when written", format);
	good = get_log() && logged(5);
	tap_ok(good, "%s: reading the log does not clear it", format);
	memset(bitmap, 0xff, sizeof(bitmap));
	tap_ok(clear_log(0, RAM / 4096) && get_log() && !count_logged() && log_round(), "%s: cleared as a whole, it starts anew", format);
	rig_close(&r);
}

static void ring(unsigned i)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_DIRTY_LOG_RING, .args[0] = 4096 };
	struct kvm_dirty_gfn *entries;
	bool good;

	rig_open_ring(&r, &formats[i].config, &cap);
	good = !rig_slot(&r, 0, BASE, ram, RAM, KVM_MEM_LOG_DIRTY_PAGES);
	entries = r.vcpu[0]->dirty_ring.addr;
	good &= at(BASE + 4096, PFERR_W, ram + 4096) && at(BASE + 4096, PFERR_W, ram + 4096) && at(BASE, 0, ram) && at(BASE, PFERR_W, ram);
	tap_ok(good && r.vcpu[0]->dirty_index == 2 && entries[0].offset == 1 && entries[1].offset == 0 && entries[0].slot == 0,
	       "%s: the ring has each page once", format);
	entries[0].flags = entries[1].flags = KVM_DIRTY_GFN_F_RESET;
	rig_serve(&r, 0);
	good = rig_ioctl(&r, KVM_RESET_DIRTY_RINGS, NULL) == 2 && rig_serve(&r, 0) && at(BASE, 0, ram) && !r.at.writable;
	tap_ok(good && at(BASE, PFERR_W, ram) && r.vcpu[0]->dirty_index == 3, "%s: and again after a reset", format);
	rig_close(&r);
}

/* ---- changes underneath -------------------------------------------------------------------------------------- */

static void slots(unsigned i)
{
	bool good;

	open_ram(i, 0);
	good = at(BASE + M, PFERR_W, ram + M) && at(BASE + 3 * M, PFERR_W, ram + 3 * M);
	rig_serve(&r, 0);
	good &= !rig_slot(&r, 0, BASE + 2 * M, ram, RAM, 0);
	tap_ok(good && rig_serve(&r, 0) && rig_touch(&r, 0, BASE + M, 0) == RIG_EMULATE && at(BASE + 3 * M, PFERR_W, ram + M),
	       "%s: a slot that moves takes its pages along", format);
	good = !rig_slot(&r, 0, BASE + 2 * M, ram, 0, 0) && rig_serve(&r, 0);
	tap_ok(good && rig_touch(&r, 0, BASE + 3 * M, 0) == RIG_EMULATE, "%s: one that goes leaves nothing", format);
	tap_ok(!r.mmu->nr_tables || r.mmu->nr_tables < 4, "%s: and its tables are given back", format);
	rig_close(&r);
}

static bool seen_leaving;

static void change_while_leaving(bool done)
{
	struct rig_translation t;

	if (done)
		return;
	host_mm_change_begin(hva(ram) + M, hva(ram) + M + 4096);
	seen_leaving = !rig_walk(&r, 0, BASE + M, 0, false, &t) && rig_walk(&r, 0, BASE, 0, false, &t);
	host_mm_change_end();
}

static bool flushed;

static void slot_is_flushed(bool done)
{
	__atomic_store_n(&flushed, done, __ATOMIC_SEQ_CST);
}

static void *remove_slot(void *arg)
{
	rig_slot(&r, 0, BASE, ram, 0, 0);
	return NULL;
}

static pthread_t remover;

static void slot_goes(void)
{
	pthread_create(&remover, NULL, remove_slot, NULL);
	while (!__atomic_load_n(&flushed, __ATOMIC_SEQ_CST))
		usleep(100);
}

/* The narrow places between a slot's going and everybody's knowing it. */
static void slot_races(unsigned i)
{
	struct rig_translation t;
	bool good;

	open_ram(i, 0);
	good = at(BASE, 0, ram) && at(BASE + M, 0, ram + M);
	rig_host.on_slot_flush = change_while_leaving;
	rig_slot(&r, 0, BASE, ram, 0, 0);
	tap_ok(good && seen_leaving, "%s: a slot that is on its way out still hears of its client's changes", format);
	rig_close(&r);
	open_ram(i, 0);
	rig_host.on_slot_flush = slot_is_flushed;
	rig_host.on_get = slot_goes;
	good = rig_touch(&r, 0, BASE, 0) == RIG_EMULATE;
	pthread_join(remover, NULL);
	tap_ok(good && !rig_walk(&r, 0, BASE, 0, false, &t), "%s: a fault that began before a slot went maps nothing of it", format);
	flushed = false;
	rig_close(&r);
}

static void invalidation(unsigned i)
{
	bool good;

	open_ram(i, 0);
	rig_slot(&r, 1, 5 * G, ram + M, M, 0);
	rig_slot(&r, 1 << 16, BASE, ram + M, M, 0);
	good = at(BASE + M, PFERR_W, ram + M) && at(5 * G, PFERR_W, ram + M) && at(BASE, PFERR_W, ram);
	r.vcpu[0]->x86.smm = true;
	good &= at(BASE, PFERR_W, ram + M);
	rig_serve(&r, 0);
	host_mm_change_begin(hva(ram) + M, hva(ram) + M + 4096);
	good &= rig_serve(&r, 0);
	r.faults = 0;
	good &= rig_touch(&r, 0, BASE, 0) == RIG_STUCK;
	r.vcpu[0]->x86.smm = false;
	good &= rig_touch(&r, 0, BASE + M, 0) == RIG_STUCK && rig_touch(&r, 0, 5 * G, 0) == RIG_STUCK;
	tap_ok(good && at(BASE, PFERR_W, ram) && r.faults == 60, "%s: while a page changes no slot shows it", format);
	host_mm_change_end();
	tap_ok(at(BASE + M, PFERR_W, ram + M) && at(5 * G, PFERR_W, ram + M), "%s: afterwards all do", format);
	tap_ok(host_mm_age(hva(ram), hva(ram) + RAM, false) && host_mm_age(hva(ram) + M, hva(ram) + M + 4096, true) &&
		       !host_mm_age(hva(ram) + M, hva(ram) + M + 4096, true) && host_mm_age(hva(ram), hva(ram) + RAM, false) &&
		       at(5 * G, 0, ram + M) && host_mm_age(hva(ram) + M, hva(ram) + M + 4096, false) &&
		       !host_mm_age(hva(ram) + 2 * M, hva(ram) + RAM, true),
	       "%s: pages age, and are young when they are used again", format);
	host_mm_gone();
	tap_ok(rig_serve(&r, 0) && rig_touch(&r, 0, BASE + M, 0) != RIG_DONE, "%s: when the client is gone, so is its memory", format);
	rig_close(&r);
}

static void shrinker(unsigned i)
{
	unsigned long before, freed;
	bool good = true;

	open_ram(i, 0);
	for (unsigned n = 0; n < 4; n++)
		good &= at(BASE + n * 2 * M, PFERR_W, ram + n * 2 * M);
	before = r.mmu->shrinker.count(&r.mmu->shrinker);
	rig_serve(&r, 0);
	freed = r.mmu->shrinker.scan(&r.mmu->shrinker, 2);
	tap_ok(good && before >= 6 && freed == 2 && r.mmu->shrinker.count(&r.mmu->shrinker) == before - 2 && rig_serve(&r, 0),
	       "%s: tables are given back when memory is short", format);
	r.faults = 0;
	for (unsigned n = 0; n < 4; n++)
		good &= at(BASE + n * 2 * M, PFERR_W, ram + n * 2 * M);
	tap_ok(good && r.faults == 2, "%s: and made again", format);
	rig_close(&r);
}

static void no_memory(unsigned i)
{
	unsigned failed = 0;
	bool good = true;

	open_ram(i, 0);
	for (long n = 0; n < 8; n++) {
		host_fail_alloc = n + 1;
		if (rig_touch(&r, 0, BASE + n * M, PFERR_W) == RIG_ERROR)
			failed += r.error == -ENOMEM;
		else
			good &= r.at.phys == hva(ram) + n * M;
	}
	host_fail_alloc = 0;
	tap_ok(good && failed && at(BASE, 0, ram), "%s: without memory for tables, -ENOMEM, and all is well when there is some", format);
	rig_close(&r);
	failed = 0;
	good = false;
	for (long n = 0; n < 20 && !good; n++) {
		struct mmu *mmu = NULL;

		open_ram(i, 0);
		host_fail_alloc = n + 1;
		good = !mmu_create(r.vm, &formats[i].config, &mmu);
		failed += !good;
		host_fail_alloc = 0;
		if (good)
			mmu_destroy(mmu);
		rig_close(&r);
	}
	tap_ok(good && failed >= 3, "%s: creation fails at each allocation and leaves nothing", format);
}

int main(void)
{
	u8 *p = mmap(NULL, 2 * G, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	tap_begin();
	space = (u8 *)((hva(p) + G - 1) & ~(G - 1));
	ram = space;
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		pages(i);
		holes(i);
		rights(i);
		huge(i);
		dirty_log(i);
		manual_protect(i);
		ring(i);
		slots(i);
		slot_races(i);
		invalidation(i);
		shrinker(i);
		no_memory(i);
	}
	return tap_end();
}
