/*
 * Rules of the control registers, EFER, XCR0 and the debug registers: what a value must satisfy (SDM 3A 2.5, 2.6, 4.1,
 * 17.2) and what else changes with it (paging, long mode, cached translations, CPUID). Nothing here raises #GP: the
 * caller does when it is told X86_FAULT.
 */
#include "core/vcpu.h"
#include "core/x86/cpuid.h"
#include "core/x86/debug.h"
#include "core/x86/irqchip/irqchip.h"
#include "core/x86/mmu/walk.h"

#define CR0_DEFINED                                                                                                    \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

static void flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg)
{
	vcpu->stats->tlb_flush++;
	vcpu->vm->engine->tlb_flush(vcpu, scope, arg);
}

static void mode_changed(struct vcpu *vcpu)
{
	vcpu->vm->engine->state_sync(vcpu, REGS_SEG);
	x86_update_mode(&vcpu->x86);
	if (vcpu->emul.ops && vcpu->emul.ops->mode_changed)
		vcpu->emul.ops->mode_changed(&vcpu->emul);
}

static bool pae_paging(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

static enum x86_result set_cr0(struct vcpu *vcpu, u64 value)
{
	struct x86_state *s = &vcpu->x86;
	u64 old = s->cr0, efer = s->efer;

	if (value >> 32)
		return X86_FAULT;
	value = (value & CR0_DEFINED) | CR0_ET;
	vcpu->vm->engine->state_sync(vcpu, REGS_SEG);
	if ((value & CR0_NW) && !(value & CR0_CD))
		return X86_FAULT;
	if ((value & CR0_PG) && !(value & CR0_PE))
		return X86_FAULT;
	if ((value & ~old & CR0_PG) && (efer & EFER_LME)) {
		/* SDM 3A 9.8.5: entering IA-32e mode needs PAE and a code segment that is not 64-bit */
		if (!(s->cr4 & CR4_PAE) || (s->seg[SEG_CS].ar & AR_L))
			return X86_FAULT;
		efer |= EFER_LMA;
	}
	if (old & ~value & CR0_PG) {
		if ((s->cr4 & CR4_PCIDE) || s->mode == X86_MODE_LONG)
			return X86_FAULT;
		efer &= ~EFER_LMA;
	}
	/* 4.4.1: PDPTEs are loaded by a MOV to CR0 that changes CD, NW or PG while PAE paging is (then) on */
	if (((old ^ value) & (CR0_PG | CR0_CD | CR0_NW)) && pae_paging(value, s->cr4, efer) &&
	    !mmu_load_pdptrs(vcpu, s->cr3))
		return X86_FAULT;
	s->cr0 = value;
	s->efer = efer;
	vcpu->regs_dirty |= REGS_CR;
	if ((old ^ value) & (CR0_PG | CR0_WP))
		flush(vcpu, TLB_ALL, 0);
	if ((old ^ value) & (CR0_PE | CR0_PG))
		mode_changed(vcpu);
	return X86_CONTINUE;
}

static enum x86_result set_cr3(struct vcpu *vcpu, u64 value)
{
	struct x86_state *s = &vcpu->x86;
	bool pcid = s->cr4 & CR4_PCIDE, noflush = pcid && (value & CR3_NOFLUSH);

	if (noflush)
		value &= ~CR3_NOFLUSH;
	if (s->efer & EFER_LMA) {
		if (value & (vcpu->rsvd_gpa | MASK64(63, 52)))
			return X86_FAULT;
	} else if (pae_paging(s->cr0, s->cr4, s->efer) && !mmu_load_pdptrs(vcpu, value)) {
		return X86_FAULT;
	}
	s->cr3 = value;
	vcpu->regs_dirty |= REGS_CR;
	if (noflush)
		flush(vcpu, TLB_SWITCH, value & CR3_PCID_MASK);
	else if (pcid)
		flush(vcpu, TLB_PCID, value & CR3_PCID_MASK);
	else
		flush(vcpu, TLB_NONGLOBAL, 0);
	return X86_CONTINUE;
}

static enum x86_result set_cr4(struct vcpu *vcpu, u64 value)
{
	struct x86_state *s = &vcpu->x86;
	u64 old = s->cr4, changed = old ^ value;

	if (value & vcpu->cr4_reserved)
		return X86_FAULT;
	if (s->efer & EFER_LMA) {
		if (!(value & CR4_PAE) || (changed & CR4_LA57))
			return X86_FAULT;
	} else if (value & CR4_PCIDE) {
		return X86_FAULT;
	}
	if ((value & ~old & CR4_PCIDE) && (s->cr3 & CR3_PCID_MASK))
		return X86_FAULT;
	if ((changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) && pae_paging(s->cr0, value, s->efer) &&
	    !mmu_load_pdptrs(vcpu, s->cr3))
		return X86_FAULT;
	s->cr4 = value;
	vcpu->regs_dirty |= REGS_CR;
	if ((changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP | CR4_SMAP | CR4_LA57)) || (old & ~value & CR4_PCIDE))
		flush(vcpu, TLB_ALL, 0);
	if (changed & (CR4_OSXSAVE | CR4_PKE))
		cpuid_runtime_update(vcpu);
	return X86_CONTINUE;
}

enum x86_result vcpu_set_cr(struct vcpu *vcpu, unsigned cr, u64 value)
{
	switch (cr) {
	case 0: return set_cr0(vcpu, value);
	case 2:
		vcpu->x86.cr2 = value;
		vcpu->regs_dirty |= REGS_CR;
		return X86_CONTINUE;
	case 3: return set_cr3(vcpu, value);
	case 4: return set_cr4(vcpu, value);
	case 8:
		if (value & ~0xfULL)
			return X86_FAULT;
		if (vcpu->lapic)
			lapic_set_cr8(vcpu, value);
		vcpu->x86.cr8 = value;
		return X86_CONTINUE;
	}
	return X86_FAULT;
}

u64 vcpu_get_cr8(struct vcpu *vcpu)
{
	return vcpu->lapic ? lapic_get_cr8(vcpu) : vcpu->x86.cr8;
}

enum x86_result vcpu_set_efer(struct vcpu *vcpu, u64 value, bool from_client)
{
	struct x86_state *s = &vcpu->x86;
	u64 old = s->efer;

	if (value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_FFXSR))
		return X86_FAULT;
	if (!from_client) {
		if (value & ~(vcpu->efer_allowed | EFER_LMA))
			return X86_FAULT;
		if ((s->cr0 & CR0_PG) && ((old ^ value) & EFER_LME))
			return X86_FAULT;
	}
	/* LMA follows CR0.PG and is not for software to write */
	s->efer = (value & ~EFER_LMA) | (old & EFER_LMA);
	vcpu->regs_dirty |= REGS_CR;
	if ((old ^ value) & EFER_NX)
		flush(vcpu, TLB_ALL, 0);
	if ((old ^ s->efer) & EFER_SCE)
		mode_changed(vcpu);
	return X86_CONTINUE;
}

enum x86_result vcpu_set_xcr(struct vcpu *vcpu, u32 index, u64 value)
{
	/* SDM 1 13.3 */
	if (index || !(value & XCR0_FP) || (value & ~vcpu->guest_supported_xcr0))
		return X86_FAULT;
	if ((value & XCR0_AVX) && !(value & XCR0_SSE))
		return X86_FAULT;
	if ((value & XCR0_AVX512) && ((value & XCR0_AVX512) != XCR0_AVX512 || !(value & XCR0_AVX)))
		return X86_FAULT;
	if (vcpu->x86.xcr0 != value) {
		vcpu->vm->engine->state_sync(vcpu, REGS_FPU);
		vcpu->x86.xcr0 = value;
		vcpu->regs_dirty |= REGS_FPU;
		cpuid_runtime_update(vcpu);
	}
	return X86_CONTINUE;
}

enum x86_result vcpu_set_dr(struct vcpu *vcpu, unsigned dr, u64 value)
{
	struct x86_state *s = &vcpu->x86;

	switch (dr) {
	case 0 ... 3: s->dr[dr] = value; break;
	case 4:
	case 6:
		if (value >> 32)
			return X86_FAULT;
		s->dr6 = dr6_canonical(value);
		break;
	case 5:
	case 7:
		if (value >> 32)
			return X86_FAULT;
		s->dr7 = dr7_canonical(value);
		break;
	default: return X86_FAULT;
	}
	vcpu->regs_dirty |= REGS_DR;
	debug_update(vcpu);
	return X86_CONTINUE;
}
