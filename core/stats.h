/*
 * Statistics of VMs and vCPUs. Counters are written where they stand, in the page that the client reads. What the engine counts and where
 * the time went are copied there by stats_sync(), when a vCPU leaves KVM_RUN or goes to sleep, and else once in a millisecond of exits.
 */
#ifndef CORE_STATS_H
#define CORE_STATS_H

#include "core/vcpu.h"

/** Build the area and set vm->stats, vcpu->stats. 0 or -ENOMEM. */
int stats_vm_init(struct vm *vm);
int stats_vcpu_init(struct vcpu *vcpu);
/** KVM_GET_STATS_FD: a new descriptor of @area, which lives as long as @vm. */
long stats_open(struct vm *vm, struct host_shared *area);

/** The clock of statistics, in ticks of its own: the TSC where that serves. */
static inline u64 stats_now(const struct vm *vm)
{
	return likely(vm->ticks_tsc) ? host_rdtsc() : host_now_ns();
}
/** What @vcpu did since the last call was @what. Its own thread. */
static inline void stats_spent(struct vcpu *vcpu, enum vcpu_time what)
{
	u64 now = stats_now(vcpu->vm);

	if (likely((s64)(now - vcpu->time.since) > 0))
		vcpu->time.ticks[what] += now - vcpu->time.since;
	vcpu->time.since = now;
}
/** Copies what is not written in place. The vCPU's own thread, right after stats_spent(). */
void stats_sync(struct vcpu *vcpu);
/** The same, unless it was done a moment ago. */
static inline void stats_sync_some(struct vcpu *vcpu)
{
	if (unlikely(vcpu->time.since - vcpu->time.copied > 1U << 21))
		stats_sync(vcpu);
}
/** The name of an enum exit_reason, as statistics have it: "irq_window". NULL: there is none. */
const char *stats_exit_name(unsigned reason);

#endif
