/*
 * Between vcpu->x86 and the VMCB.
 */
#include "core/x86/cpuid.h"
#include "core/x86/debug.h"
#include "core/x86/mmu/walk.h"
#include "core/x86/msr.h"
#include "engines/svm/svm.h"

#define ATTRIB_P BIT64(7)

static struct vmcb_seg seg_out(const struct x86_segment *s)
{
	u16 attrib = (s->ar & 0xff) | ((s->ar >> 4) & 0xf00);

	if (s->ar & AR_UNUSABLE)
		attrib &= ~ATTRIB_P;
	return (struct vmcb_seg){ .selector = s->sel, .attrib = attrib, .limit = s->limit, .base = s->base };
}

static struct x86_segment seg_in(const struct vmcb_seg *v)
{
	u32 ar = (v->attrib & 0xff) | (v->attrib & 0xf00U) << 4;

	if (!(ar & AR_P))
		ar |= AR_UNUSABLE;
	/* Where the processor keeps limits in bytes it need not keep G */
	if (v->limit > 0xfffff)
		ar |= AR_G;
	return (struct x86_segment){ .base = v->base, .limit = v->limit, .ar = ar, .sel = v->selector };
}

/* The VMCB's registers in the order of SEG_*. */
static struct vmcb_seg *const_seg(struct vmcb *v, unsigned seg)
{
	static const u16 at[SEG_COUNT] = {
		[SEG_ES] = offsetof(struct vmcb, es), [SEG_CS] = offsetof(struct vmcb, cs),
		[SEG_SS] = offsetof(struct vmcb, ss), [SEG_DS] = offsetof(struct vmcb, ds),
		[SEG_FS] = offsetof(struct vmcb, fs), [SEG_GS] = offsetof(struct vmcb, gs),
		[SEG_LDTR] = offsetof(struct vmcb, ldtr), [SEG_TR] = offsetof(struct vmcb, tr),
	};

	return (struct vmcb_seg *)((u8 *)v + at[seg]);
}

/* ---- to the VMCB ------------------------------------------------------------------------------------------------- */

static void load_segments(struct svm_vcpu *svm)
{
	const struct x86_state *s = &svm->vcpu.x86;
	struct vmcb *v = svm->vmcb;

	for (unsigned i = 0; i < SEG_COUNT; i++)
		*const_seg(v, i) = seg_out(&s->seg[i]);
	/* A task register in use is busy, whatever the client said: 15.5.1 wants nothing of it, IRET and far calls do */
	if (!(s->seg[SEG_TR].ar & AR_UNUSABLE))
		v->tr.attrib |= 2;
	v->gdtr.base = s->gdt.base;
	v->gdtr.limit = s->gdt.limit;
	v->idtr.base = s->idt.base;
	v->idtr.limit = s->idt.limit;
	v->cpl = s->cpl;
	v->clean &= ~(VMCB_CLEAN_SEG | VMCB_CLEAN_DT);
}

static void load_control(struct svm_vcpu *svm)
{
	const struct x86_state *s = &svm->vcpu.x86;
	struct vmcb *v = svm->vmcb;
	/* The guest may not switch off the caches that all share */
	u64 cr0 = s->cr0 & ~(CR0_CD | CR0_NW);

	v->cr2 = s->cr2;
	v->efer = s->efer | EFER_SVME;
	/* Without paging it means nothing, and switching paging on exits. Shadow tables are on by then and not yet long mode's; and QEMU's TCG
	 * does not come back from a guest that has LME set with PAE clear. */
	if (!(s->efer & EFER_LMA))
		v->efer &= ~EFER_LME;
	/* Machine checks are the host's, and with MCE clear they would shut the processor down */
	v->cr4 = s->cr4 | CR4_MCE;
	svm_intercept(svm, SVM_EXIT_CR_READ + 4, !(s->cr4 & CR4_MCE));
	if (svm_caps.npt) {
		v->cr3 = s->cr3;
	} else {
		/* A guest's real mode runs on tables too, and what the tables say holds for supervisors */
		cr0 |= CR0_PG | CR0_WP;
		v->cr4 |= CR4_PAE;
		if (!(s->cr0 & CR0_PG))
			v->cr4 &= ~(CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PCIDE);
		v->cr4 &= ~(CR4_PCIDE | CR4_PGE);
		v->efer |= EFER_NX;
	}
	v->cr0 = cr0;
	svm_intercept(svm, SVM_EXIT_CR_READ + 0, cr0 != s->cr0);
	svm_intercept(svm, SVM_EXIT_CR_WRITE + 0, cr0 != s->cr0);
	v->clean &= ~(VMCB_CLEAN_CR | VMCB_CLEAN_CR2);
}

static void load_msrs(struct svm_vcpu *svm)
{
	const struct x86_state *s = &svm->vcpu.x86;
	struct vmcb *v = svm->vmcb;

	v->star = s->star;
	v->lstar = s->lstar;
	v->cstar = s->cstar;
	v->sfmask = s->sfmask;
	v->kernel_gs_base = s->kernel_gs_base;
	v->sysenter_cs = s->sysenter_cs;
	v->sysenter_esp = s->sysenter_esp;
	v->sysenter_eip = s->sysenter_eip;
	svm_lbr_load(svm);
	v->g_pat = svm->vcpu.pat;
	v->clean &= ~VMCB_CLEAN_NP;
	host_preempt_off();
	if (svm->tsc_aux_loaded)
		host_wrmsr(MSR_TSC_AUX, s->tsc_aux);
	host_preempt_on();
}

static void load_debug(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;

	/* Every access of the guest's exits, so that the emulator sees GD; here it would only hide why #DB came */
	svm->vmcb->dr7 = vcpu->eff_dr7 & ~DR7_GD;
	svm_intercept(svm, SVM_EXIT_EXCEPTION + VEC_BP, vcpu->guest_debug & KVM_GUESTDBG_USE_SW_BP);
	svm->vmcb->clean &= ~VMCB_CLEAN_DR;
}

static void load_fpu(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;

	host_fpu_load(svm->fpu, vcpu->xsave, vcpu->xsave_size, &svm->pkru);
}

void svm_state_load(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;
	u32 dirty = vcpu->regs_dirty;

	vcpu->regs_dirty = 0;
	if (dirty & REGS_SEG)
		load_segments(svm);
	if (dirty & REGS_CR)
		load_control(svm);
	if (dirty & REGS_MSR)
		load_msrs(svm);
	if (dirty & REGS_DR)
		load_debug(svm);
	if (dirty & REGS_FPU)
		load_fpu(svm);
}

/* ---- and back ---------------------------------------------------------------------------------------------------- */

static void sync_segments(struct svm_vcpu *svm)
{
	struct x86_state *s = &svm->vcpu.x86;
	struct vmcb *v = svm->vmcb;

	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = seg_in(const_seg(v, i));
	/* The processor keeps CPL apart from SS */
	s->seg[SEG_SS].ar = (s->seg[SEG_SS].ar & ~AR_DPL) | (u32)v->cpl << AR_DPL_SHIFT;
	s->gdt.base = v->gdtr.base;
	s->gdt.limit = v->gdtr.limit;
	s->idt.base = v->idtr.base;
	s->idt.limit = v->idtr.limit;
}

static void sync_msrs(struct svm_vcpu *svm)
{
	struct x86_state *s = &svm->vcpu.x86;
	const struct vmcb *v = svm->vmcb;

	s->star = v->star;
	s->lstar = v->lstar;
	s->cstar = v->cstar;
	s->sfmask = v->sfmask;
	s->kernel_gs_base = v->kernel_gs_base;
	s->sysenter_cs = v->sysenter_cs;
	s->sysenter_esp = v->sysenter_esp;
	s->sysenter_eip = v->sysenter_eip;
	svm_lbr_sync(svm);
}

/* With nested paging the processor reads PDPTEs when it wants them: those of a guest that loaded CR3 itself are not here. */
static void sync_pdptrs(struct vcpu *vcpu)
{
	const struct x86_state *s = &vcpu->x86;
	int srcu;

	if (!svm_caps.npt || !(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE) || (s->efer & EFER_LMA))
		return;
	srcu = host_srcu_read_lock(&vcpu->vm->srcu);
	mmu_load_pdptrs(vcpu, s->cr3);
	host_srcu_read_unlock(&vcpu->vm->srcu, srcu);
}

void svm_state_sync(struct vcpu *vcpu, unsigned groups)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	unsigned stale = groups & ~vcpu->regs_avail;

	if (likely(!stale))
		return;
	vcpu->regs_avail |= stale;
	if (stale & REGS_SEG)
		sync_segments(svm);
	if (stale & REGS_MSR)
		sync_msrs(svm);
	if (stale & REGS_CR)
		sync_pdptrs(vcpu);
	if (stale & REGS_FPU)
		host_fpu_save(svm->fpu, vcpu->xsave, vcpu->xsave_size, svm->pkru);
}

void svm_state_changed(struct vcpu *vcpu, unsigned groups)
{
	vcpu->regs_avail |= groups;
	vcpu->regs_dirty |= groups;
}

void svm_state_exit(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;
	struct x86_state *s = &vcpu->x86;
	const struct vmcb *v = svm->vmcb;

	s->gpr[REG_AX] = v->rax;
	s->gpr[REG_SP] = v->rsp;
	s->rip = v->rip;
	s->rflags = v->rflags;
	s->cr2 = v->cr2;
	if (svm_caps.npt) {
		s->cr3 = v->cr3;
		/* TS and MP are the guest's to change without an exit */
		s->cr0 = (s->cr0 & ~(CR0_TS | CR0_MP)) | (v->cr0 & (CR0_TS | CR0_MP));
	}
	s->shadow = v->int_state & INT_STATE_SHADOW ? SHADOW_STI | SHADOW_MOVSS : 0;
	s->cpl = v->cpl;
	if (!(s->cr0 & CR0_PE))
		s->mode = X86_MODE_REAL;
	else if (s->rflags & RFLAGS_VM)
		s->mode = X86_MODE_V86;
	else if ((s->efer & EFER_LMA) && (v->cs.attrib & 0x200))
		s->mode = X86_MODE_LONG;
	else
		s->mode = v->cs.attrib & 0x400 ? X86_MODE_PROT32 : X86_MODE_PROT16;
	vcpu->regs_avail = REGS_GPR | REGS_RIP | REGS_CR | REGS_DR;
	if (unlikely(s->mode != X86_MODE_LONG && (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE)))
		vcpu->regs_avail &= ~REGS_CR;
}

void svm_state_init(struct svm_vcpu *svm)
{
	static const u8 always[] = {
		SVM_EXIT_INTR, SVM_EXIT_NMI, SVM_EXIT_SMI, SVM_EXIT_INIT, SVM_EXIT_CR0_SEL_WRITE, SVM_EXIT_RDPMC,
		SVM_EXIT_CPUID, SVM_EXIT_RSM, SVM_EXIT_INVD, SVM_EXIT_INVLPGA, SVM_EXIT_IOIO, SVM_EXIT_MSR,
		SVM_EXIT_TASK_SWITCH, SVM_EXIT_SHUTDOWN, SVM_EXIT_VMRUN, SVM_EXIT_VMMCALL, SVM_EXIT_VMLOAD, SVM_EXIT_VMSAVE,
		SVM_EXIT_STGI, SVM_EXIT_CLGI, SVM_EXIT_SKINIT, SVM_EXIT_WBINVD, SVM_EXIT_MONITOR, SVM_EXIT_MWAIT,
		SVM_EXIT_XSETBV, SVM_EXIT_RDPRU, SVM_EXIT_CR_WRITE + 4,
		/* #MC is the host's; #DB and #AC could repeat for ever inside one instruction's delivery; #UD may be Intel's VMCALL */
		SVM_EXIT_EXCEPTION + VEC_MC, SVM_EXIT_EXCEPTION + VEC_DB, SVM_EXIT_EXCEPTION + VEC_AC,
		SVM_EXIT_EXCEPTION + VEC_UD,
	};
	static const u8 shadow_paging[] = {
		SVM_EXIT_CR_READ + 0, SVM_EXIT_CR_WRITE + 0, SVM_EXIT_CR_READ + 3, SVM_EXIT_CR_WRITE + 3,
		SVM_EXIT_CR_READ + 4, SVM_EXIT_INVLPG, SVM_EXIT_INVPCID, SVM_EXIT_EXCEPTION + VEC_PF,
	};
	struct vmcb *v = svm->vmcb;
	u32 off = svm->vcpu.vm->exits_disabled;

	for (unsigned i = 0; i < ARRAY_SIZE(always); i++)
		svm_intercept(svm, always[i], true);
	for (unsigned i = 0; i < 8; i++) {
		svm_intercept(svm, SVM_EXIT_DR_READ + i, true);
		svm_intercept(svm, SVM_EXIT_DR_WRITE + i, true);
	}
	for (unsigned i = 0; !svm_caps.npt && i < ARRAY_SIZE(shadow_paging); i++)
		svm_intercept(svm, shadow_paging[i], true);
	svm_intercept(svm, SVM_EXIT_HLT, !(off & KVM_X86_DISABLE_EXITS_HLT));
	/* Where the host's TSC is no clock, the guest's is made of something else */
	svm_intercept(svm, SVM_EXIT_RDTSC, !host_tsc_khz());
	svm_intercept(svm, SVM_EXIT_RDTSCP, !host_tsc_khz());
	if ((svm_caps.features & SVM_FEATURE_PAUSE_FILTER) && !(off & KVM_X86_DISABLE_EXITS_PAUSE)) {
		v->pause_filter_count = 3000;
		v->pause_filter_thresh = svm_caps.features & SVM_FEATURE_PAUSE_THRESH ? 128 : 0;
		svm_intercept(svm, SVM_EXIT_PAUSE, true);
	}
	v->iopm_pa = svm_iopm_pa();
	v->msrpm_pa = host_page_phys(svm->msrpm);
	v->vintr = VINTR_MASKING | (svm_caps.vnmi ? VINTR_NMI_ENABLE : 0);
	v->np_enable = svm_caps.npt;
	v->dr6 = DR6_FIXED_1;
}
