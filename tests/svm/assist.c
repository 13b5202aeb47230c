/*
 * engines/svm/assist.c with this file as the processor: NMIs that it holds back and delivers (APM 2 15.21.10), and its last-branch records
 * (15.23). No emulator has either.
 */
#include "core/x86/msr.h"
#include "engines/svm/svm.h"
#include "tests/tap.h"

struct svm_caps svm_caps;

static struct svm_vcpu svm;
static struct vmcb vmcb;
static struct vcpu_stats stats;
static unsigned synced;

static void state_sync(struct vcpu *vcpu, unsigned groups)
{
	synced |= groups;
	svm_lbr_sync(to_svm(vcpu));
}

static const struct engine_ops engine = { .name = "svm", .state_sync = state_sync };
static struct vm vm = { .engine = &engine };

static void clear(bool vnmi, bool lbrv)
{
	memset(&svm, 0, sizeof(svm));
	memset(&vmcb, 0, sizeof(vmcb));
	memset(&stats, 0, sizeof(stats));
	svm_caps = (struct svm_caps){ .vnmi = vnmi, .lbrv = lbrv };
	svm.vmcb = &vmcb;
	svm.vcpu.vm = &vm;
	svm.vcpu.stats = &stats;
	vmcb.vintr = VINTR_MASKING | (vnmi ? VINTR_NMI_ENABLE : 0);
	synced = 0;
}

static bool intercepted(unsigned bit)
{
	return vmcb.intercept[bit / 32] & 1U << (bit % 32);
}

static bool given(u64 bits)
{
	return (vmcb.vintr & (VINTR_NMI | VINTR_NMI_MASK)) == bits;
}

/* An entry with @pending NMIs that core asks a window for. */
static void enter(unsigned pending, bool masked)
{
	svm.vcpu.events.nmi.pending = pending;
	svm.vcpu.x86.nmi_masked = masked;
	svm.window_nmi = pending;
	vmcb.exit_int_info = 0;
	vmcb.clean = VMCB_CLEAN_ALL;
	svm_nmi_load(&svm);
}

static bool core_has(unsigned pending, bool masked)
{
	svm_nmi_sync(&svm);
	return svm.vcpu.events.nmi.pending == pending && svm.vcpu.x86.nmi_masked == masked;
}

/* What the processor does: takes the one that is pending, or executes the guest's IRET. */
static void take(void)
{
	if ((vmcb.vintr & VINTR_NMI_ENABLE) && (vmcb.vintr & VINTR_NMI) && !(vmcb.vintr & VINTR_NMI_MASK))
		vmcb.vintr = (vmcb.vintr & ~VINTR_NMI) | VINTR_NMI_MASK;
}

static void iret(void)
{
	vmcb.vintr &= ~VINTR_NMI_MASK;
}

static void nmis(void)
{
	clear(false, false);
	enter(1, true);
	tap_ok(intercepted(SVM_EXIT_IRET) && given(0), "without virtual NMIs IRET exits while NMIs are masked");
	tap_ok(core_has(1, true), "and core's own count and mask hold");
	enter(0, false);
	tap_ok(!intercepted(SVM_EXIT_IRET), "not else");

	clear(true, false);
	enter(0, false);
	tap_ok(given(0) && vmcb.clean == VMCB_CLEAN_ALL, "nothing changes while there is none");
	enter(1, true);
	tap_ok(given(VINTR_NMI | VINTR_NMI_MASK) && !(vmcb.clean & VMCB_CLEAN_TPR), "one that waits is given to the processor, with the mask");
	tap_ok(!intercepted(SVM_EXIT_IRET), "and IRET does not exit");
	take();
	tap_ok(core_has(1, true), "an exit before IRET: it still waits");
	enter(1, true);
	take();
	iret();
	take();
	tap_ok(core_has(0, true) && stats.nmi_injections == 1, "the guest takes it behind its IRET, without an exit: core hears");
	enter(0, true);
	tap_ok(given(VINTR_NMI_MASK), "the mask stays the guest's");
	iret();
	tap_ok(core_has(0, false), "and its IRET opens it");

	enter(2, false);
	tap_ok(given(VINTR_NMI) && intercepted(SVM_EXIT_IRET), "behind the first of two IRET exits");
	take();
	tap_ok(core_has(1, true), "one was taken");
	enter(1, false);
	tap_ok(given(VINTR_NMI) && !intercepted(SVM_EXIT_IRET), "the other comes next");
	take();
	vmcb.vintr &= ~VINTR_NMI_MASK;
	vmcb.exit_int_info = EVENT_VALID | (u64)EVENT_TYPE_NMI << EVENT_TYPE_SHIFT | VEC_NMI;
	tap_ok(core_has(0, true), "one whose delivery was broken off is core's again, and masks");

	svm.inject = true;
	svm.event = (struct x86_event){ .vector = VEC_NMI, .type = X86_EVENT_NMI };
	enter(0, true);
	tap_ok(given(0), "for one that is injected VMRUN sets the mask");
	svm.event.type = X86_EVENT_INTR;
	enter(0, true);
	tap_ok(given(VINTR_NMI_MASK), "for no other event");
}

static void branches(void)
{
	struct vcpu *vcpu = &svm.vcpu;

	clear(false, false);
	vcpu->debugctl = DEBUGCTL_LBR;
	svm_lbr_load(&svm);
	tap_ok(!vmcb.virt_ext && !vmcb.dbgctl, "without LBR virtualization nothing is switched");

	clear(false, true);
	vmcb.clean = VMCB_CLEAN_ALL;
	vcpu->last_branch[1] = 5;
	svm_lbr_load(&svm);
	tap_ok(!(vmcb.virt_ext & VIRT_EXT_LBR) && !vmcb.dbgctl, "nor while the guest does not record");
	vmcb.br_to = 77;
	svm_lbr_sync(&svm);
	tap_ok(vcpu->last_branch[1] == 5, "what it has recorded stays then");
	vcpu->debugctl = DEBUGCTL_LBR;
	svm_lbr_load(&svm);
	tap_ok((vmcb.virt_ext & VIRT_EXT_LBR) && vmcb.dbgctl == DEBUGCTL_LBR && vmcb.br_to == 5 && !(vmcb.clean & VMCB_CLEAN_LBR),
	       "DEBUGCTL.LBR switches it on, with what was recorded");
	vmcb.br_from = 1;
	vmcb.br_to = 2;
	vmcb.last_excp_from = 3;
	vmcb.last_excp_to = 4;
	svm_lbr_sync(&svm);
	tap_ok(vcpu->last_branch[0] == 1 && vcpu->last_branch[1] == 2 && vcpu->last_branch[2] == 3 && vcpu->last_branch[3] == 4 &&
	       vcpu->debugctl == DEBUGCTL_LBR, "the guest reads what the processor recorded");
	svm_lbr_stop(&svm);
	tap_ok(!vcpu->debugctl && vcpu->last_branch[0] == 1 && (synced & REGS_MSR) && (vcpu->regs_dirty & REGS_MSR),
	       "#DB ends the recording and keeps the records");
	svm_lbr_load(&svm);
	tap_ok(!(vmcb.virt_ext & VIRT_EXT_LBR) && !vmcb.dbgctl, "from the next entry on");
	vcpu->regs_dirty = 0;
	svm_lbr_stop(&svm);
	tap_ok(!vcpu->regs_dirty, "and costs nothing where there is none");
}

int main(void)
{
	tap_begin();
	nmis();
	branches();
	return tap_end();
}
