/*
 * What a processor may do for a guest that else takes exits: hold its NMIs back and deliver them (15.21.10), and keep its last-branch
 * records apart from the host's (15.23). Touches the VMCB and core's state only, so that tests/svm plays the processor.
 */
#include "core/x86/msr.h"
#include "engines/svm/svm.h"

/* ---- NMIs ---------------------------------------------------------------------------------------------------------- */

static void set_vintr(struct svm_vcpu *svm, u64 bits, u64 value)
{
	struct vmcb *v = svm->vmcb;

	if (likely((v->vintr & bits) == value))
		return;
	v->vintr = (v->vintr & ~bits) | value;
	v->clean &= ~VMCB_CLEAN_TPR;
}

/*
 * The processor takes one NMI by itself, as soon as the guest can have it, and sets and clears the mask. Core hears of it with the next
 * exit; only when another waits behind it must that come with IRET, where NMIs open again. Without virtual NMIs IRET always exits while
 * they are masked, and the emulator does it.
 */
void svm_nmi_load(struct svm_vcpu *svm)
{
	const struct vcpu *vcpu = &svm->vcpu;
	bool injects = svm->inject && svm->event.type == X86_EVENT_NMI; /* VMRUN masks the others */

	svm->nmi_given = svm_caps.vnmi && svm->window_nmi;
	if (svm_caps.vnmi)
		set_vintr(svm, VINTR_NMI | VINTR_NMI_MASK,
			  (svm->nmi_given ? VINTR_NMI : 0) | (vcpu->x86.nmi_masked && !injects ? VINTR_NMI_MASK : 0));
	svm_intercept(svm, SVM_EXIT_IRET, svm_caps.vnmi ? svm->nmi_given && vcpu->events.nmi.pending > 1 : vcpu->x86.nmi_masked);
}

void svm_nmi_sync(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;
	const struct vmcb *v = svm->vmcb;
	u64 type = (v->exit_int_info & EVENT_TYPE) >> EVENT_TYPE_SHIFT;

	if (!svm_caps.vnmi)
		return;
	/* One whose delivery was broken off will be injected again, and is being handled from then on */
	vcpu->x86.nmi_masked = (v->vintr & VINTR_NMI_MASK) || ((v->exit_int_info & EVENT_VALID) && type == EVENT_TYPE_NMI);
	if (svm->nmi_given && !(v->vintr & VINTR_NMI)) {
		vcpu->events.nmi.pending--;
		vcpu->stats->nmi_injections++;
	}
	svm->nmi_given = false;
}

/* ---- last-branch records ------------------------------------------------------------------------------------------- */

/* The records are switched with the guest only while it has them on; what it reads afterwards stays. */
void svm_lbr_load(struct svm_vcpu *svm)
{
	const struct vcpu *vcpu = &svm->vcpu;
	struct vmcb *v = svm->vmcb;

	if (!svm_caps.lbrv)
		return;
	v->virt_ext = vcpu->debugctl & DEBUGCTL_LBR ? v->virt_ext | VIRT_EXT_LBR : v->virt_ext & ~VIRT_EXT_LBR;
	v->dbgctl = vcpu->debugctl;
	v->br_from = vcpu->last_branch[0];
	v->br_to = vcpu->last_branch[1];
	v->last_excp_from = vcpu->last_branch[2];
	v->last_excp_to = vcpu->last_branch[3];
	v->clean &= ~VMCB_CLEAN_LBR;
}

void svm_lbr_sync(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;
	const struct vmcb *v = svm->vmcb;

	if (!(v->virt_ext & VIRT_EXT_LBR))
		return;
	vcpu->debugctl = v->dbgctl & DEBUGCTL_LBR;
	vcpu->last_branch[0] = v->br_from;
	vcpu->last_branch[1] = v->br_to;
	vcpu->last_branch[2] = v->last_excp_from;
	vcpu->last_branch[3] = v->last_excp_to;
}

/* 13.1.6: a handler of #DB finds the records as they were when it came. */
void svm_lbr_stop(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;

	if (likely(!(svm->vmcb->virt_ext & VIRT_EXT_LBR)))
		return;
	vcpu->vm->engine->state_sync(vcpu, REGS_MSR);
	vcpu->debugctl = 0;
	vcpu->regs_dirty |= REGS_MSR;
}
