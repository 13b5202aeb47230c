/*
 * The local APIC's timer (SDM 3A 10.5.4): one-shot, periodic, and TSC-deadline. Its bus clock runs at 1 GHz, so that a
 * count times the divisor is nanoseconds.
 *
 * It is a timer of the host's, or the engine's (engine->keeps_timer()): then guest code is left when it is due, no timer of the host's has to be
 * set and no interrupt of the host's comes. That is as good while the vCPU is in guest code or on its way there. One that begins to wait takes
 * the host's (lapic_timer_to_host()), which stays until the guest sets the timer anew.
 */
#include "core/x86/clock.h"
#include "core/x86/irqchip/chips.h"

/* A guest may not keep a host CPU busy with its own timer. */
#define MIN_PERIOD_NS 100000ULL
/* What is further away is the host's. */
#define STAY_NS 1000000000ULL

/* SDM 3A figure 10-10: the divisor is 2 to this power. */
static u8 divisor_shift(u32 tdcr)
{
	unsigned code = (tdcr & 3) | (tdcr & 8) >> 1;

	return (code + 1) & 7;
}

/* timer_lock held; the vCPU's thread. */
static void set_timer(struct lapic *l)
{
	const struct engine_ops *engine = l->vcpu->vm->engine;
	u64 now = host_now_ns(), left = l->target_ns > now ? l->target_ns - now : 0;

	l->by_engine = left < STAY_NS && engine->keeps_timer && engine->keeps_timer(l->vcpu);
	if (l->by_engine)
		l->due = clock_counter() + left * clock_counter_khz() / 1000000;
	else
		host_timer_start(&l->timer, l->target_ns);
}

/* timer_lock held: it is time. Whether there will be another. */
static bool advance(struct lapic *l)
{
	u64 now = host_now_ns();

	if (!l->period_ns) {
		l->target_ns = l->tsc_deadline = 0;
		return false;
	}
	l->target_ns += l->period_ns;
	/* Ticks that nobody could have taken in time are one tick. */
	if (l->target_ns <= now)
		l->target_ns += (now - l->target_ns) / l->period_ns * l->period_ns + l->period_ns;
	return true;
}

/* The host's timer went off; a service thread. */
static void lapic_timer_fire(struct host_timer *timer)
{
	struct lapic *l = container_of(timer, struct lapic, timer);
	unsigned long flags = host_spin_lock(&l->timer_lock);

	/* Set anew meanwhile it may be the engine's. */
	if (!l->target_ns || l->by_engine) {
		host_spin_unlock(&l->timer_lock, flags);
		return;
	}
	if (advance(l))
		host_timer_start(&l->timer, l->target_ns);
	host_spin_unlock(&l->timer_lock, flags);
	lapic_deliver_lvt(l->vcpu, APIC_LVT_TIMER);
}

u64 lapic_timer_left(const struct vcpu *vcpu)
{
	const struct lapic *l = vcpu->lapic;
	u64 now;

	if (!l || !l->by_engine)
		return ~0ULL;
	now = clock_counter();
	return l->due > now ? l->due - now : 0;
}

void lapic_timer_ended(struct vcpu *vcpu)
{
	struct lapic *l = vcpu->lapic;
	unsigned long flags;
	bool due;

	if (lapic_timer_left(vcpu))
		return;
	flags = host_spin_lock(&l->timer_lock);
	due = l->target_ns;
	if (due && advance(l))
		set_timer(l);
	else
		l->by_engine = false;
	host_spin_unlock(&l->timer_lock, flags);
	if (due)
		lapic_deliver_lvt(vcpu, APIC_LVT_TIMER);
}

void lapic_timer_to_host(struct vcpu *vcpu)
{
	struct lapic *l = vcpu->lapic;
	unsigned long flags;

	if (!l || !l->by_engine)
		return;
	flags = host_spin_lock(&l->timer_lock);
	l->by_engine = false;
	host_timer_start(&l->timer, l->target_ns);
	host_spin_unlock(&l->timer_lock, flags);
}

void lapic_timer_init(struct lapic *l)
{
	host_spin_init(&l->timer_lock);
	host_timer_init(&l->timer, lapic_timer_fire);
}

void lapic_timer_destroy(struct lapic *l)
{
	lapic_timer_stop(l);
	host_timer_cancel(&l->timer);
	host_spin_destroy(&l->timer_lock);
}

void lapic_timer_stop(struct lapic *l)
{
	unsigned long flags = host_spin_lock(&l->timer_lock);

	l->period_ns = l->target_ns = l->tsc_deadline = 0;
	l->by_engine = false;
	host_spin_unlock(&l->timer_lock, flags);
	host_timer_cancel(&l->timer);
}

static void lapic_timer_arm(struct lapic *l, u64 target_ns, u64 period_ns, u64 tsc_deadline)
{
	unsigned long flags = host_spin_lock(&l->timer_lock);

	l->target_ns = target_ns;
	l->period_ns = period_ns;
	l->tsc_deadline = tsc_deadline;
	set_timer(l);
	host_spin_unlock(&l->timer_lock, flags);
}

static void lapic_timer_count(struct lapic *l, u32 count)
{
	u64 period = 0;

	if (l->timer_mode == APIC_TIMER_PERIODIC)
		period = MAX((u64)lapic_reg(l, APIC_TMICT) << l->timer_shift, MIN_PERIOD_NS);
	lapic_timer_arm(l, host_now_ns() + ((u64)count << l->timer_shift), period, 0);
}

void lapic_timer_start(struct lapic *l, u32 count)
{
	lapic_timer_stop(l);
	if (count)
		lapic_timer_count(l, count);
}

void lapic_timer_resume(struct lapic *l)
{
	u32 initial = lapic_reg(l, APIC_TMICT), left = MIN(lapic_reg(l, APIC_TMCCT), initial);

	if (initial)
		lapic_timer_count(l, left || l->timer_mode != APIC_TIMER_PERIODIC ? left : initial);
}

u32 lapic_timer_current(struct lapic *l)
{
	unsigned long flags;
	u64 now, left;

	if (l->timer_mode == APIC_TIMER_DEADLINE)
		return 0;
	flags = host_spin_lock(&l->timer_lock);
	now = host_now_ns();
	left = l->target_ns > now ? l->target_ns - now : 0;
	if (l->target_ns && !left && l->period_ns)
		left = l->period_ns; /* wrapped: the tick is on its way */
	host_spin_unlock(&l->timer_lock, flags);
	return left >> l->timer_shift;
}

void lapic_timer_set_mode(struct lapic *l)
{
	u8 mode = APIC_TIMER_MODE(lapic_reg(l, APIC_LVT_TIMER));

	if (mode == l->timer_mode)
		return;
	lapic_timer_stop(l);
	lapic_set_reg(l, APIC_TMICT, 0);
	l->timer_mode = mode;
}

void lapic_timer_set_divisor(struct lapic *l)
{
	u32 left = lapic_timer_current(l);

	l->timer_shift = divisor_shift(lapic_reg(l, APIC_TDCR));
	if (left)
		lapic_timer_start(l, left);
}

void lapic_timer_replaced(struct lapic *l)
{
	l->timer_mode = APIC_TIMER_MODE(lapic_reg(l, APIC_LVT_TIMER));
	l->timer_shift = divisor_shift(lapic_reg(l, APIC_TDCR));
}

u64 lapic_get_tsc_deadline(struct vcpu *vcpu)
{
	struct lapic *l = vcpu->lapic;
	unsigned long flags;
	u64 deadline;

	if (!l || l->timer_mode != APIC_TIMER_DEADLINE)
		return 0;
	flags = host_spin_lock(&l->timer_lock);
	deadline = l->tsc_deadline;
	host_spin_unlock(&l->timer_lock, flags);
	return deadline;
}

void lapic_set_tsc_deadline(struct vcpu *vcpu, u64 tsc)
{
	struct lapic *l = vcpu->lapic;
	u64 now_tsc, ticks, ns;

	if (!l || l->timer_mode != APIC_TIMER_DEADLINE)
		return;
	if (!tsc) {
		lapic_timer_stop(l);
		return;
	}
	now_tsc = vcpu_read_tsc(vcpu);
	ticks = tsc > now_tsc ? tsc - now_tsc : 0;
	/* Ticks to nanoseconds without overflow: whole milliseconds first. */
	ns = vcpu->tsc_khz ? ticks / vcpu->tsc_khz * 1000000 + ticks % vcpu->tsc_khz * 1000000 / vcpu->tsc_khz : ticks;
	if (ns >> 62)
		ns = 1ULL << 62;
	lapic_timer_arm(l, host_now_ns() + ns, 0, tsc);
}

void lapic_tsc_changed(struct vcpu *vcpu)
{
	u64 deadline = lapic_get_tsc_deadline(vcpu);

	if (deadline)
		lapic_set_tsc_deadline(vcpu, deadline);
}
