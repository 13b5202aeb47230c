/*
 * System management mode on a vCPU: the emulator moves the state to and from SMRAM (emul_smm_enter, emul_smm_leave); here
 * is what belongs to the vCPU: which memory is seen, NMIs and INITs that wait, SMBASE.
 */
#include "core/x86/cpuid.h"
#include "core/x86/events.h"
#include "core/x86/irqchip/irqchip.h"

/* Everything of address translation changes at once. */
static void switched(struct vcpu *vcpu)
{
	const struct engine_ops *engine = vcpu->vm->engine;

	x86_update_mode(&vcpu->x86);
	cpuid_runtime_update(vcpu);
	engine->tlb_flush(vcpu, TLB_GPA, 0);
	engine->state_changed(vcpu, REGS_ALL & ~REGS_FPU);
}

void smm_enter(struct vcpu *vcpu)
{
	bool halted = vcpu->mp_state == KVM_MP_STATE_HALTED;

	host_event_smm_transition(vcpu->id, vcpu->smbase, true);
	vcpu->vm->engine->state_sync(vcpu, REGS_ALL & ~REGS_FPU);
	/* The save area is in SMRAM: the address space of SMM must be seen before it is written */
	vcpu->x86.smm = true;
	vcpu->vm->engine->tlb_flush(vcpu, TLB_GPA, 0);
	vcpu->smm_inside_nmi = vcpu->x86.nmi_masked;
	vcpu->smi_count++;
	if (emul_smm_enter(&vcpu->emul, vcpu->smbase, vcpu_has_feature(vcpu, X86_FEATURE_LM), halted) == X86_SHUTDOWN) {
		vcpu_set_request(vcpu, REQ_TRIPLE_FAULT);
		return;
	}
	vcpu->x86.smm = true;
	vcpu->x86.nmi_masked = true; /* SDM 3C 31.8 */
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	switched(vcpu);
}

enum x86_result smm_leave(struct vcpu *vcpu)
{
	bool halted = false;

	host_event_smm_transition(vcpu->id, vcpu->smbase, false);
	if (emul_smm_leave(&vcpu->emul, &vcpu->smbase, vcpu_has_feature(vcpu, X86_FEATURE_LM), &halted) ==
	    X86_SHUTDOWN)
		return X86_SHUTDOWN;
	vcpu->x86.smm = false;
	vcpu->x86.nmi_masked = vcpu->smm_inside_nmi;
	switched(vcpu);
	/* An INIT that arrived meanwhile is taken now */
	if (lapic_has_init_or_sipi(vcpu))
		vcpu_set_request(vcpu, REQ_APIC);
	if (halted) {
		vcpu->io.exit = EXIT_HLT;
		return X86_EXIT;
	}
	return X86_CONTINUE;
}
