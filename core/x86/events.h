/* What events.c and smm.c offer to the other files of core/x86, beside what core/vcpu.h declares for all. */
#ifndef CORE_X86_EVENTS_H
#define CORE_X86_EVENTS_H

#include "core/vcpu.h"

/** Queues exception @vector; see vcpu_queue_exception(). */
void vcpu_queue_fault(struct vcpu *vcpu, u8 vector, bool has_error, u32 error);
/** Moves the queued exception's payload to CR2 or DR6. */
void vcpu_deliver_payload(struct vcpu *vcpu);
/** REQ_NMI was taken: one more NMI is pending, as far as the processor remembers them. */
void events_process_nmi(struct vcpu *vcpu);
/** KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS (0, -EINVAL), KVM_INTERRUPT (0, -EINVAL, -ENXIO, -EEXIST). */
void events_get(struct vcpu *vcpu, struct kvm_vcpu_events *out);
int events_set(struct vcpu *vcpu, const struct kvm_vcpu_events *in);
int events_ioctl_interrupt(struct vcpu *vcpu, u32 vector);

/* smm.c: an SMI is taken; RSM. */
void smm_enter(struct vcpu *vcpu);
enum x86_result smm_leave(struct vcpu *vcpu);

#endif
