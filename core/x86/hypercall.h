/* Hypercalls of the guest: hypercall.c. */
#ifndef CORE_X86_HYPERCALL_H
#define CORE_X86_HYPERCALL_H

#include "core/vcpu.h"

/* Those that KVM_CAP_EXIT_HYPERCALL may hand to the client. */
#define HYPERCALL_EXIT_VALID (1ULL << 12) /* KVM_HC_MAP_GPA_RANGE */

#define HYPERCALL_LEN 3 /* of VMCALL and VMMCALL */

/** Serves the hypercall in the registers. X86_CONTINUE, or X86_EXIT when the client decides (RIP may move on). */
enum x86_result hypercall_run(struct vcpu *vcpu);
/** Puts the processor's own hypercall instruction in the place of the other vendor's at the linear address @la, where the guest may write. */
void hypercall_fix(struct vcpu *vcpu, u64 la, const u8 insn[HYPERCALL_LEN]);
/** The client has answered KVM_EXIT_HYPERCALL. */
void hypercall_complete(struct vcpu *vcpu);

#endif
