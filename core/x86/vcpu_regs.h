/* The registers in the KVM API's structures: vcpu_ioctl.c, also for run.c (KVM_CAP_SYNC_REGS). */
#ifndef CORE_X86_VCPU_REGS_H
#define CORE_X86_VCPU_REGS_H

#include "core/vcpu.h"

void vcpu_get_regs(struct vcpu *vcpu, struct kvm_regs *regs);
void vcpu_set_regs(struct vcpu *vcpu, const struct kvm_regs *regs);
void vcpu_get_sregs(struct vcpu *vcpu, struct kvm_sregs *sregs);
/** 0 or -EINVAL, then nothing is changed. */
int vcpu_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *sregs);

#endif
