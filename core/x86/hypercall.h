/* Hypercalls of the guest: hypercall.c. */
#ifndef CORE_X86_HYPERCALL_H
#define CORE_X86_HYPERCALL_H

#include "core/vcpu.h"

/* Those that KVM_CAP_EXIT_HYPERCALL may hand to the client. */
#define HYPERCALL_EXIT_VALID (1ULL << 12) /* KVM_HC_MAP_GPA_RANGE */

/** Serves the hypercall in the registers. X86_CONTINUE, or X86_EXIT when the client decides (RIP may move on). */
enum x86_result hypercall_run(struct vcpu *vcpu);
/** The client has answered KVM_EXIT_HYPERCALL. */
void hypercall_complete(struct vcpu *vcpu);

#endif
