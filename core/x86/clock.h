/*
 * A guest's clocks: TSC and kvmclock. Both are straight lines over one host counter (its TSC), so that all vCPUs agree
 * whatever their TSC offsets are.
 */
#ifndef CORE_X86_CLOCK_H
#define CORE_X86_CLOCK_H

#include "core/vcpu.h"

/** What the host's TSC lost whenever the machine slept, in its ticks. Changes while nothing else runs. */
extern u64 clock_lost;

/** The host counter everything is derived from: the TSC, which never goes back, or nanoseconds where that is no clock. */
static inline u64 clock_counter(void)
{
	return likely(host_tsc_khz()) ? host_rdtsc() + clock_lost : host_now_ns();
}
static inline u32 clock_counter_khz(void)
{
	u32 khz = host_tsc_khz();

	return khz ? khz : 1000000;
}

/**
 * The machine has slept, and its TSC may have begun anew (SDM 3B 17.17: a reset clears it; sleep may be one). @before: what it was
 * before. On the one CPU that is there, while no vCPU is loaded. Guests find their clocks where they were.
 */
void clock_woke(u64 before);

void clock_vm_init(struct vm *vm);
void clock_vcpu_init(struct vcpu *vcpu);
/** A write of IA32_TSC: the client's are matched with those to other vCPUs (KVM API, KVM_SET_MSRS of the TSC). */
void clock_write_tsc(struct vcpu *vcpu, u64 value, bool from_client);
/** Moves the guest's TSC by @delta. */
void clock_adjust_tsc(struct vcpu *vcpu, s64 delta);
/** KVM_SET_TSC_KHZ: 0 or -EINVAL. */
int clock_set_tsc_khz(struct vcpu *vcpu, u32 khz);
/** Writes the wall clock at guest address @gpa. In an srcu section. */
void clock_write_wall(struct vcpu *vcpu, u64 gpa);
void clock_ioctl_get(struct vm *vm, struct kvm_clock_data *data);
int clock_ioctl_set(struct vm *vm, const struct kvm_clock_data *data);
/** KVM_KVMCLOCK_CTRL: 0, -EINVAL when the guest does not use kvmclock. */
int clock_guest_paused(struct vcpu *vcpu);
/** Whether all vCPUs' TSCs are one clock. */
bool clock_is_stable(struct vm *vm);
bool clock_can_scale(void);
long clock_device_attr(struct vcpu *vcpu, unsigned cmd, const struct kvm_device_attr *attr);

#endif
