/*
 * Two vCPUs that share page tables, with TLBs, on shadow tables: each moves pages of their common address space, and tells the other to flush, as
 * operating systems do; meanwhile the host takes pages away, and the client follows the dirty log. Once both have flushed, no access may
 * go where the page was before.
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

#define P 1ULL
#define W 2ULL
#define U 4ULL
#define A 0x20ULL
#define D 0x40ULL

#define RAM    (4ULL << 20)
#define PAGES  (RAM / 4096)
#define DATA   (2ULL << 20) /* pages that come and go */
#define ROOT   0x10000ULL   /* and one a page: PDPT, PD, PT of the places; PDPT, PD, PTs of the direct map */
#define PT     0x13000ULL
#define DIRECT 0xffff800000000000ULL
#define PLACES 16

static struct rig r;
static u8 *ram;
static u64 copy[PAGES];
static bool stop;
static u64 uses, moves, errors, wrong;

/* The guest's own notes: which page stands at a place. Odd @version: it is being moved. */
static struct place {
	u64 version, gpa;
} places[PLACES];
static bool guest_lock;
static u64 shootdown[RIG_VCPUS]; /* a bit for each place that the other has moved */

struct cpu {
	unsigned i, seed;
	struct tlb_entry {
		u64 page, phys;
		bool valid, write;
	} tlb[64];
};

static unsigned rnd(struct cpu *c)
{
	c->seed = c->seed * 1103515245 + 12345;
	return c->seed >> 8;
}

static void flush(struct cpu *c)
{
	memset(c->tlb, 0, sizeof(c->tlb));
}

static void guest_flush(struct cpu *c, enum tlb_scope scope, u64 la)
{
	vcpu_srcu_lock(r.vcpu[c->i]);
	r.vm->engine->tlb_flush(r.vcpu[c->i], scope, la);
	vcpu_srcu_unlock(r.vcpu[c->i]);
	for (unsigned n = 0; n < ARRAY_SIZE(c->tlb); n++)
		if (scope != TLB_PAGE || c->tlb[n].page == la >> 12)
			c->tlb[n].valid = false;
}

/* In guest code. NULL: a fault, or a call to leave. */
static struct tlb_entry *look_up(struct cpu *c, u64 la, bool write, u32 *access)
{
	struct tlb_entry *e = &c->tlb[(la >> 12) % ARRAY_SIZE(c->tlb)];
	struct rig_translation t;

	if (e->valid && e->page == la >> 12 && (e->write || !write))
		return e;
	if (!rig_walk(&r, c->i, la, write ? PFERR_W : 0, true, &t)) {
		*access = t.error;
		return NULL;
	}
	*e = (struct tlb_entry){ .page = la >> 12, .phys = t.phys & ~0xfffULL, .valid = true, .write = write };
	return e;
}

static void ack(struct cpu *c)
{
	u64 bits = __atomic_load_n(&shootdown[c->i], __ATOMIC_SEQ_CST);

	for (unsigned n = 0; n < PLACES; n++)
		if (bits >> n & 1)
			guest_flush(c, TLB_PAGE, n << 12);
	__atomic_fetch_and(&shootdown[c->i], ~bits, __ATOMIC_SEQ_CST);
}

/* One memory access of the guest at @la; a write adds one, or stores *@value. False: the host disturbed it, nothing was done. */
static bool use(struct cpu *c, u64 la, bool write, const u64 *value, u64 *phys)
{
	struct vcpu *vcpu = r.vcpu[c->i];
	struct x86_event ev;
	u32 access = 0;
	bool done = false;
	int error = 0;

	vcpu_srcu_lock(vcpu);
	if (rig_serve(&r, c->i))
		flush(c);
	if (vcpu_enter_guest(vcpu)) {
		struct tlb_entry *e = look_up(c, la, write, &access);

		if (e) {
			u64 *p = (u64 *)(uintptr_t)(e->phys | (la & 0xfff));

			if (value)
				__atomic_store_n(p, *value, __ATOMIC_SEQ_CST);
			else if (write)
				__atomic_fetch_add(p, 1, __ATOMIC_RELAXED);
			else
				__atomic_load_n(p, __ATOMIC_RELAXED);
			*phys = (uintptr_t)p;
			done = true;
		} else if (!vcpu_must_exit(vcpu)) {
			switch (mmu_fault(r.m[c->i], la, access, &ev, &error)) {
			case MMU_FIXED: break;
			case MMU_ERROR: __atomic_fetch_add(&errors, error != -EFAULT, __ATOMIC_RELAXED); break;
			case MMU_EMULATE:
				done = value && !vm_write_guest(r.vm, vcpu, 0, la - DIRECT, value, 8);
				*phys = (uintptr_t)ram + (la - DIRECT);
				__atomic_fetch_add(&errors, !done, __ATOMIC_RELAXED);
				break;
			case MMU_INJECT: __atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED); break;
			}
		}
	}
	vcpu_leave_guest(vcpu);
	vcpu_srcu_unlock(vcpu);
	return done;
}

/* Puts another page at a place. */
static void move(struct cpu *c)
{
	unsigned n = rnd(c) % PLACES;
	struct place *p = &places[n];
	u64 gpa = DATA + (n + PLACES * (rnd(c) % 16)) * 4096, pte = gpa | P | W | U | A | D, phys;

	while (__atomic_exchange_n(&guest_lock, true, __ATOMIC_SEQ_CST)) {
		if (__atomic_load_n(&stop, __ATOMIC_RELAXED))
			return;
		ack(c);
	}
	__atomic_fetch_add(&p->version, 1, __ATOMIC_SEQ_CST);
	while (!use(c, DIRECT + PT + n * 8, true, &pte, &phys))
		ack(c);
	if (phys != (uintptr_t)ram + PT + n * 8)
		__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	guest_flush(c, TLB_PAGE, n << 12);
	__atomic_fetch_or(&shootdown[!c->i], BIT64(n), __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&shootdown[!c->i], __ATOMIC_SEQ_CST) & BIT64(n)) {
		ack(c);
		if (__atomic_load_n(&stop, __ATOMIC_RELAXED))
			break;
	}
	__atomic_store_n(&p->gpa, gpa, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&p->version, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&guest_lock, false, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&moves, 1, __ATOMIC_RELAXED);
}

static void visit(struct cpu *c)
{
	unsigned n = rnd(c) % PLACES;
	u64 version = __atomic_load_n(&places[n].version, __ATOMIC_SEQ_CST), gpa = __atomic_load_n(&places[n].gpa, __ATOMIC_SEQ_CST), phys;

	if ((version & 1) || !use(c, n << 12, rnd(c) & 1, NULL, &phys))
		return;
	if (version == __atomic_load_n(&places[n].version, __ATOMIC_SEQ_CST) && phys != (uintptr_t)ram + gpa)
		__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&uses, 1, __ATOMIC_RELAXED);
}

static void *vcpu_thread(void *arg)
{
	struct cpu c = { .i = (unsigned)(uintptr_t)arg, .seed = (unsigned)(uintptr_t)arg + 1 };

	__atomic_store_n(&r.vcpu[c.i]->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		ack(&c);
		if (rnd(&c) % 16 == 0)
			move(&c);
		else if (rnd(&c) % 64 == 0)
			guest_flush(&c, TLB_NONGLOBAL, 0);
		else
			visit(&c);
	}
	__atomic_store_n(&r.vcpu[c.i]->place, VCPU_OUTSIDE, __ATOMIC_SEQ_CST);
	return NULL;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
}

/* Tables stay readable, or the guest would be right to find nothing in them. */
static void *host_thread(void *arg)
{
	struct cpu c = { .seed = 99 };

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		bool data = rnd(&c) & 1;
		u8 *page = ram + (data ? DATA + rnd(&c) % 256 * 4096 : ROOT + rnd(&c) % 8 * 4096);
		u64 at = (uintptr_t)page;

		host_mm_change_begin(at, at + 4096);
		if (data)
			mprotect(page, 4096, PROT_NONE);
		nap();
		if (data)
			mprotect(page, 4096, PROT_READ | PROT_WRITE);
		host_mm_change_end();
		host_mm_age(at, at + 4 * 4096, true);
		if (rnd(&c) % 16 == 0)
			r.mmu->shrinker.scan(&r.mmu->shrinker, 1);
		nap();
	}
	return NULL;
}

static void follow_log(void)
{
	u64 bitmap[PAGES / 64] = { 0 };
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bitmap };

	if (rig_ioctl(&r, KVM_GET_DIRTY_LOG, &log)) {
		__atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);
		return;
	}
	for (unsigned page = 0; page < PAGES; page++)
		while ((bitmap[page / 64] >> (page % 64) & 1) && host_copy_from_client(&copy[page], (uintptr_t)ram + page * 4096ULL, 8))
			nap();
}

static void *client_thread(void *arg)
{
	struct cpu c = { .seed = 7 };

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		follow_log();
		nap();
		if (rnd(&c) & 1)
			rig_slot(&r, 1, 1ULL << 32, ram, rnd(&c) & 1 ? RAM : 0, 0);
		nap();
	}
	return NULL;
}

static void put(u64 gpa, u64 value)
{
	memcpy(ram + gpa, &value, 8);
}

static void make_tables(void)
{
	put(ROOT, (ROOT + 0x1000) | P | W | U | A);
	put(ROOT + 0x1000, (ROOT + 0x2000) | P | W | U | A);
	put(ROOT + 0x2000, PT | P | W | U | A);
	for (unsigned n = 0; n < PLACES; n++) {
		places[n] = (struct place){ .gpa = DATA + n * 4096 };
		put(PT + n * 8, places[n].gpa | P | W | U | A | D);
	}
	put(ROOT + 256 * 8, (PT + 0x1000) | P | W | A);
	put(PT + 0x1000, (PT + 0x2000) | P | W | A);
	for (unsigned n = 0; n < RAM >> 21; n++)
		put(PT + 0x2000 + n * 8, (PT + 0x3000 + n * 4096) | P | W | A);
	for (unsigned n = 0; n < PAGES; n++)
		put(PT + 0x3000 + n * 8, n * 4096 | P | W | A | D);
}

int main(void)
{
	static const struct mmu_config config = { .format = MMU_X86, .accessed_dirty = true, .levels = 4, .phys_bits = 48 };
	unsigned ms = getenv("TRINE_LONG") ? 60000 : 3000, differ = 0;
	pthread_t threads[4];

	tap_begin();
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	rig_open(&r, &config, 2);
	rig_slot(&r, 0, 0, ram, RAM, KVM_MEM_LOG_DIRTY_PAGES);
	make_tables();
	for (unsigned page = 0; page < PAGES; page++)
		memcpy(&copy[page], ram + page * 4096, 8);
	for (unsigned i = 0; i < 2; i++) {
		struct x86_state *s = &r.vcpu[i]->x86;

		s->cr0 = CR0_PE | CR0_ET | CR0_WP | CR0_PG;
		s->cr4 = CR4_PAE;
		s->efer = EFER_LME | EFER_LMA | EFER_NX;
		s->rflags = 2;
		s->cr3 = ROOT;
	}
	pthread_create(&threads[0], NULL, vcpu_thread, (void *)0);
	pthread_create(&threads[1], NULL, vcpu_thread, (void *)1);
	pthread_create(&threads[2], NULL, host_thread, NULL);
	pthread_create(&threads[3], NULL, client_thread, NULL);
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000 }, NULL);
	__atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	follow_log();
	for (unsigned page = 0; page < PAGES; page++)
		differ += copy[page] != *(u64 *)(ram + page * 4096ULL);
	tap_ok(uses > 100 && moves > 10 && !errors && !wrong, "after a move and a shootdown nobody is where the page was");
	tap_diag("%llu uses, %llu moves, %u flushes, %llu errors, %llu wrong", (unsigned long long)uses, (unsigned long long)moves, r.flushes,
		 (unsigned long long)errors, (unsigned long long)wrong);
	tap_ok(!differ, "no write is missing from the log");
	rig_close(&r);
	return tap_end();
}
