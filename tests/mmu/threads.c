/*
 * Everything at once: vCPUs that keep translations as a TLB does, a host that takes pages away, a client that moves slots and follows the dirty
 * log, and a shrinker. A translation that outlives its page is a fault here; a write that the log misses is a difference at the end.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "core/x86/mmu/mmu_priv.h"
#include "hosts/user/pages.h"
#include "tests/mmu/rig.h"
#include "tests/tap.h"

#define PAGES 64
#define RAM   (PAGES * 4096)
#define BASE  0x40000000ULL
#define ALIAS 0x80000000ULL

static struct rig r;
static u8 *ram;
static u64 copy[PAGES]; /* what following the log gives: the first word of each page */
static bool stop;
static u64 uses, errors, wrong;

static unsigned rnd(unsigned *seed)
{
	*seed = *seed * 1103515245 + 12345;
	return *seed >> 8;
}

/* ---- a vCPU with a TLB --------------------------------------------------------------------------------------- */

#define TLB 32

struct tlb_entry {
	u64 gfn, phys;
	bool valid, write;
};

static void flush_tlb(struct tlb_entry *tlb, unsigned i)
{
	if (rig_serve(&r, i))
		memset(tlb, 0, TLB * sizeof(*tlb));
}

static struct tlb_entry *look_up(struct tlb_entry *tlb, unsigned i, u64 gpa, bool write)
{
	struct tlb_entry *e = &tlb[(gpa >> 12) % TLB];
	struct rig_translation t;

	if (e->valid && e->gfn == gpa >> 12 && (e->write || !write))
		return e;
	if (!rig_walk(&r, i, gpa, write ? PFERR_W : 0, true, &t))
		return NULL;
	/* As processors do: a walk for a read brings in the right to write only if the page is dirty already. */
	*e = (struct tlb_entry){ .gfn = gpa >> 12, .phys = t.phys & ~0xfffULL, .valid = true, .write = write };
	return e;
}

static void *vcpu_thread(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg, seed = i + 1;
	struct vcpu *vcpu = r.vcpu[i];
	struct tlb_entry tlb[TLB] = { 0 };
	struct x86_event ev;
	int error;

	__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		unsigned page = rnd(&seed) % PAGES;
		bool alias = rnd(&seed) % 4 == 0, write = !alias && (rnd(&seed) & 1), good = true;
		u64 gpa = (alias ? ALIAS : BASE) + page * 4096ULL;

		vcpu_srcu_lock(vcpu);
		flush_tlb(tlb, i);
		if (vcpu_enter_guest(vcpu)) {
			struct tlb_entry *e = look_up(tlb, i, gpa, write);

			if (e && write)
				__atomic_fetch_add((u64 *)(uintptr_t)e->phys, 1, __ATOMIC_RELAXED);
			else if (e)
				__atomic_load_n((u64 *)(uintptr_t)e->phys, __ATOMIC_RELAXED);
			if (e && e->phys != (uintptr_t)ram + page * 4096)
				__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
			good = e;
			__atomic_fetch_add(&uses, good, __ATOMIC_RELAXED);
		}
		vcpu_leave_guest(vcpu);
		if (!good) {
			enum mmu_fault f = mmu_fault(r.m[i], gpa, (write ? PFERR_W | PFERR_P : 0), &ev, &error);

			if (f == MMU_ERROR && error != -EFAULT)
				__atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);
		}
		vcpu_srcu_unlock(vcpu);
	}
	__atomic_store_n(&vcpu->place, VCPU_OUTSIDE, __ATOMIC_SEQ_CST);
	return NULL;
}

/* ---- the others ---------------------------------------------------------------------------------------------- */

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
}

static void *host_thread(void *arg)
{
	unsigned seed = 99;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		u8 *page = ram + rnd(&seed) % PAGES * 4096;
		u64 at = (uintptr_t)page;

		host_mm_change_begin(at, at + 4096);
		mprotect(page, 4096, PROT_NONE);
		nap();
		mprotect(page, 4096, PROT_READ | PROT_WRITE);
		host_mm_change_end();
		host_mm_age(at, at + 4 * 4096, true);
		if (rnd(&seed) % 16 == 0)
			r.mmu->shrinker.scan(&r.mmu->shrinker, 1);
		nap();
	}
	return NULL;
}

/* One round of migration: the pages that the log names are copied. */
static void follow_log(void)
{
	u64 bitmap = 0;
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = &bitmap };

	if (rig_ioctl(&r, KVM_GET_DIRTY_LOG, &log)) {
		__atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);
		return;
	}
	for (unsigned page = 0; page < PAGES; page++)
		while ((bitmap >> page & 1) && host_copy_from_client(&copy[page], (uintptr_t)ram + page * 4096, 8))
			nap();
}

static void *client_thread(void *arg)
{
	unsigned seed = 7;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		follow_log();
		nap();
		if (rnd(&seed) & 1)
			rig_slot(&r, 1, ALIAS, ram, rnd(&seed) & 1 ? RAM : 0, 0);
		nap();
	}
	return NULL;
}

static void everything(const char *name, const struct mmu_config *config, unsigned ms)
{
	pthread_t threads[4];
	unsigned differ = 0;

	rig_open(&r, config, 2);
	stop = false;
	uses = errors = wrong = 0;
	memset(ram, 0, RAM);
	memset(copy, 0, sizeof(copy));
	rig_slot(&r, 0, BASE, ram, RAM, KVM_MEM_LOG_DIRTY_PAGES);
	pthread_create(&threads[0], NULL, vcpu_thread, (void *)0);
	pthread_create(&threads[1], NULL, vcpu_thread, (void *)1);
	pthread_create(&threads[2], NULL, host_thread, NULL);
	pthread_create(&threads[3], NULL, client_thread, NULL);
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L }, NULL);
	__atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	follow_log();
	for (unsigned page = 0; page < PAGES; page++)
		differ += copy[page] != *(u64 *)(ram + page * 4096);
	tap_ok(uses > 100 && !errors && !wrong && r.flushes, "%s: no translation outlives its page", name);
	tap_ok(!differ, "%s: no write is missing from the log", name);
	tap_diag("%llu uses, %u flushes, %llu errors, %llu wrong", (unsigned long long)uses, r.flushes, (unsigned long long)errors,
		 (unsigned long long)wrong);
	rig_close(&r);
}

int main(void)
{
	static const struct mmu_config npt = { .format = MMU_X86, .nested = true, .accessed_dirty = true, .levels = 4, .phys_bits = 48 };
	static const struct mmu_config ept = { .format = MMU_EPT, .nested = true, .levels = 4, .phys_bits = 48 };
	unsigned ms = getenv("TRINE_LONG") ? 20000 : 2000;

	tap_begin();
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	everything("NPT", &npt, ms);
	everything("EPT without A and D", &ept, ms);
	return tap_end();
}
