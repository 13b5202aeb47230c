/*
 * engines/svm/avic.c under guests that write whatever they like, and with a thread for each vCPU; player.c is the processor.
 */
#include "tests/svm/player.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- whatever a guest writes ----------------------------------------------------------------------------------------------------- */

/* Whom core's rules let the IPI go to. */
static unsigned by_the_rules(unsigned n, u32 low, u32 high)
{
	struct lapic_irq irq = lapic_ipi(low, high >> 24);
	unsigned to = 0;

	for (unsigned i = 0; i < nr; i++) {
		bool is = irq.shorthand == 1 ? i == n : irq.shorthand == 2 ? true : irq.shorthand == 3 ? i != n : lapic_matches(cpu[i]->lapic, cpu[n], &irq);

		to |= (is && lapic_sw_enabled(cpu[i]->lapic)) << i;
	}
	return to;
}

static bool tables_hold(void)
{
	for (unsigned i = 0; i < 512; i++) {
		u64 entry = svm_vm()->avic_physical[i];
		struct vcpu *owner = page_owner(entry & AVIC_PHYSICAL_PAGE);

		if ((entry & AVIC_PHYSICAL_VALID) && (!owner || owner->id != i || !lapic_sw_enabled(owner->lapic)))
			return false;
		if (!(entry & AVIC_PHYSICAL_VALID) && (entry & AVIC_PHYSICAL_PAGE))
			return false;
	}
	for (unsigned i = 0; i < 1024; i++) {
		u32 entry = svm_vm()->avic_logical[i];

		if (entry && (i >= 60 || !(entry & AVIC_LOGICAL_VALID) || (entry & AVIC_LOGICAL_ID) >= nr))
			return false;
	}
	return true;
}

void hostile(void)
{
	static const u16 favourites[] = { APIC_ID, APIC_LDR, APIC_DFR, APIC_SVR, APIC_LVT_LINT0, APIC_ICR, APIC_EOI, APIC_TPR };
	static const u32 values[] = { 0, 0xffffffff, 0x1ff, 0x10000, 0x01000000, 0x02000000, 0x04000000, 0x11000000, 0x0fffffff };
	struct random rng = random_begin(0xa71c);
	unsigned sends = 0, wrong = 0, steps = getenv("TRINE_SANITIZER") ? 40000 : 200000, with = 0;
	bool hold = true;

	wild = 0;
	machine(4, NULL, false);
	for (unsigned step = 0; step < steps && hold; step++) {
		u64 r = random_next(&rng), s = random_next(&rng);
		unsigned n = r & 3, offset = (r >> 2) & 1 ? favourites[(r >> 3) & 7] : (r >> 3) & 0x3f0;
		u32 value = (r >> 20) & 3 ? values[(r >> 22) % ARRAY_SIZE(values)] : (u32)(s >> 32);

		/* Else it goes astray for good */
		if (step % 16 == 0)
			for (unsigned i = 0; i < 4; i++) {
				leave(i);
				reg_write(i, APIC_ID, i << 24);
				reg_write(i, APIC_SVR, 0x1ff);
				reg_write(i, APIC_LVT_LINT0, APIC_LVT_MASKED);
				forget(i);
				cpu[i]->events.interrupt.injected = false;
				if (s & 1)
					reg_write(i, APIC_DFR, s & 2 ? 0xffffffff : 0);
				if (s & 4)
					reg_write(i, APIC_LDR, s & 2 ? 1U << (24 + i) : 0x10000000U | 1U << (24 + i));
			}
		if (!enter(n)) {
			leave(n);
			reg_write(n, offset, value);
		} else if (offset == APIC_ICR) {
			u32 low = (s & 0xc0800) | (s & 0x1000 ? (s & 0x700) | (s & 0x8000) : 0) | (16 + (s >> 40) % 240), high = s & 0x2000 ? (u32)(s >> 32) : (s & 0xf) << 24;
			unsigned expected = by_the_rules(n, low, high);
			u64 code = 0;

			with++;
			store(n, APIC_ICR2, high);
			code = store(n, APIC_ICR, low);
			sends++;
			if (!code || incomplete(code, n, AVIC_IPI_NOT_RUNNING))
				wrong += sent_to != expected;
			else
				wrong += sent_to != 0;
			if (code)
				serve(n);
		} else {
			with++;
			guest_writes(n, offset, value);
		}
		hold = tables_hold();
	}
	tap_ok(hold, "whatever is written, each entry is its own vCPU's, and none is beyond");
	tap_ok(!wild, "no access of the processor's beyond the tables and the pages (%u)", wild);
	tap_ok(!wrong && sends > 1000 && with > steps / 20, "each of %u IPIs goes to whom it is for, or to core (%u not; %u of %u steps with AVIC)", sends, wrong, with, steps);
	machine_end();
}

/* ---- a thread for each vCPU ---------------------------------------------------------------------------------------------------------- */

#define STORM_CPUS 3
static struct {
	u32 left;		   /* rounds until all stop */
	u32 sent[STORM_CPUS], got[STORM_CPUS];
	bool stuck, stop;
} storm;

static bool stops(void)
{
	return __atomic_load_n(&storm.stop, __ATOMIC_SEQ_CST);
}

static bool ready(struct vcpu *vcpu)
{
	return x86_vcpu_runnable(vcpu) || stops();
}

static bool has_ball(unsigned n)
{
	return __atomic_load_n(&storm.sent[n], __ATOMIC_SEQ_CST) != __atomic_load_n(&storm.got[n], __ATOMIC_SEQ_CST);
}

/* The scheduler's part of a stay. */
static void sched(unsigned n)
{
	svm_avic_put(svm(n));
	host_backoff(1);
	svm_avic_load(svm(n), n, HOST_ID(n));
}

/* Guest code for a while: it takes what comes, by doorbell or as it enters. */
static void guest(unsigned n, struct random *rng)
{
	struct svm_vcpu *s = svm(n);
	bool avic = s->vmcb->vintr & VINTR_AVIC;
	unsigned next = (n + 1 + random_next(rng) % (STORM_CPUS - 1)) % STORM_CPUS;

	if (s->inject) {
		/* Injected and delivered */
		cpu[n]->events.interrupt.injected = false;
		__atomic_fetch_add(&storm.got[n], 1, __ATOMIC_SEQ_CST);
		leave(n);
		reg_write(n, APIC_EOI, 0);
		return;
	}
	if (!avic && __atomic_load_n(&mapped_phys, __ATOMIC_SEQ_CST))
		__atomic_store_n(&storm.stuck, true, __ATOMIC_SEQ_CST);
	/* With a ball on its way it does nothing else: a processor looks as it enters and when a doorbell comes, else something has to end this */
	if (random_next(rng) & 1)
		return; /* HLT, perhaps */
	do {
		unsigned bells = __atomic_load_n(&doorbells[n], __ATOMIC_SEQ_CST);

		while (avic && take(n) >= 0) {
			__atomic_fetch_add(&storm.got[n], 1, __ATOMIC_SEQ_CST);
			store(n, APIC_EOI, 0);
		}
		while (has_ball(n) && __atomic_load_n(&doorbells[n], __ATOMIC_SEQ_CST) == bells && !vcpu_must_exit(cpu[n]) && !stops())
			host_backoff(1);
	} while (has_ball(n) && !vcpu_must_exit(cpu[n]) && !stops());
	/* A ball to another vCPU, once it has the last one */
	if (!has_ball(next) && (s32)__atomic_load_n(&storm.left, __ATOMIC_SEQ_CST) > 0) {
		u32 expected = __atomic_load_n(&storm.got[next], __ATOMIC_SEQ_CST);

		if (__atomic_compare_exchange_n(&storm.sent[next], &expected, expected + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
			__atomic_fetch_sub(&storm.left, 1, __ATOMIC_SEQ_CST);
			/* Until it comes the other may halt, and begin to sleep just then */
			for (u64 i = random_next(rng) % 1024; i; i--)
				host_cpu_relax();
			if (!avic) {
				leave(n);
				reg_write(n, APIC_ICR2, next << 24);
				reg_write(n, APIC_ICR, 0x50 + n);
			} else if (ipi(n, 0x50 + n, next)) {
				serve(n);
			}
		}
	}
}

static void *storm_thread(void *arg)
{
	unsigned n = (uintptr_t)arg;
	struct random rng = random_begin(77 + n);
	struct svm_vcpu *s = svm(n);

	this_cpu = n;
	vcpu_srcu_lock(cpu[n]);
	while (!stops()) {
		u64 r = random_next(&rng);

		vcpu_check_exit(cpu[n]);
		__atomic_store_n(&cpu[n]->requests, 0, __ATOMIC_SEQ_CST);
		/* An obstacle comes or goes; not while a ball is lost, perhaps, for all vCPUs that look again would find it */
		if (r % 64 == 0 && !has_ball(0) && !has_ball(1) && !has_ball(2)) {
			reg_write(n, APIC_LVT_LINT0, r & 64 ? APIC_LVT_MASKED : APIC_DM_EXTINT << 8);
		} else if (r % 8 == 2) {
			sched(n);
		} else if (r % 2) { /* HLT: what wakes it is what this is about */
			cpu[n]->mp_state = KVM_MP_STATE_HALTED;
			if (!x86_vcpu_runnable(cpu[n]) && has_ball(n))
				vcpu_sleep(cpu[n], ready);
			cpu[n]->mp_state = KVM_MP_STATE_RUNNABLE;
		}
		if (!vcpu_enter_guest(cpu[n]))
			continue;
		s->inject = s->window_irq = false;
		vcpu_inject_events(cpu[n]);
		if (s->avic_switch) {
			svm_avic_switch(s);
		} else {
			svm_avic_entry(s);
			/* Guest code is left for a request: the processor's own interrupts end it */
			do
				guest(n, &rng);
			while (random_next(&rng) % 4 && __atomic_load_n(&cpu[n]->place, __ATOMIC_SEQ_CST) == VCPU_IN_GUEST && !vcpu_must_exit(cpu[n]) && !s->inject);
		}
		vcpu_leave_guest(cpu[n]);
	}
	vcpu_srcu_unlock(cpu[n]);
	return NULL;
}

void storms(void)
{
	pthread_t thread[STORM_CPUS];
	u32 before = 0, now;
	unsigned still = 0;
	bool lost;

	machine(STORM_CPUS, NULL, false);
	kicks_come_at_once = false;
	memset(&storm, 0, sizeof(storm));
	storm.left = getenv("TRINE_SANITIZER") ? 1000 : 4000;
	for (unsigned n = 0; n < STORM_CPUS; n++) {
		cpu[n]->x86.rflags |= RFLAGS_IF;
		pthread_create(&thread[n], NULL, storm_thread, (void *)(uintptr_t)n);
	}
	/* All are sent, and each has got its last one; or nothing moves for five seconds */
	while (still < 500 && !((s32)__atomic_load_n(&storm.left, __ATOMIC_SEQ_CST) <= 0 && !has_ball(0) && !has_ball(1) && !has_ball(2))) {
		struct timespec ms10 = { .tv_nsec = 10000000 };

		nanosleep(&ms10, NULL);
		now = __atomic_load_n(&storm.left, __ATOMIC_SEQ_CST);
		still = now == before ? still + 1 : 0;
		before = now;
	}
	lost = still >= 500;
	__atomic_store_n(&storm.stop, true, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < STORM_CPUS; n++) {
		vcpu_request_kick(cpu[n], REQ_UNBLOCK);
		pthread_join(thread[n], NULL);
	}
	tap_ok(!lost, "%u IPIs among vCPUs that halt, are set aside, and switch AVIC on and off: none is lost", storm.sent[0] + storm.sent[1] + storm.sent[2]);
	tap_ok(!storm.stuck && !wild, "none of them ran without AVIC while the page was there");
	kicks_come_at_once = true;
	machine_end();
}

