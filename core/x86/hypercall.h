/* Hypercalls of the guest: hypercall.c. */
#ifndef CORE_X86_HYPERCALL_H
#define CORE_X86_HYPERCALL_H

#include "core/vcpu.h"

/* Those that KVM_CAP_EXIT_HYPERCALL may hand to the client. */
#define HYPERCALL_EXIT_VALID (1ULL << 12) /* KVM_HC_MAP_GPA_RANGE */

#define HYPERCALL_LEN 3 /* of VMCALL and VMMCALL */
#define VMCALL_INSN   "\x0f\x01\xc1"
#define VMMCALL_INSN  "\x0f\x01\xd9"

/** Serves the hypercall in the registers. X86_CONTINUE; X86_EXIT when the client decides (RIP may move on); X86_FAULT: #UD. */
enum x86_result hypercall_run(struct vcpu *vcpu);
/** The instruction that the guest's hypercalls had better use: the processor's own. */
const char *hypercall_insn(const struct vcpu *vcpu);
/**
 * After #UD: whether the other vendor's hypercall instruction stands at RIP, which KVM takes for a hypercall unless the client has
 * switched that quirk off. The processor's @own is put in the place of @theirs, where the guest may write. In an srcu section.
 */
bool hypercall_fix(struct vcpu *vcpu, const char *theirs, const char *own);
/** The client has answered KVM_EXIT_HYPERCALL. */
void hypercall_complete(struct vcpu *vcpu);

#endif
