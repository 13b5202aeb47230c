/*
 * ioctls of a vCPU: its registers to and from the KVM API's structures, and which file serves the rest. Also a vCPU's
 * making, reset and end. All with vcpu->mutex held.
 */
#include <linux/kvm.h>

#include "core/x86/clock.h"
#include "core/x86/cpuid.h"
#include "core/x86/debug.h"
#include "core/x86/events.h"
#include "core/x86/fpu.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/irqchip.h"
#include "core/x86/mmu/walk.h"
#include "core/x86/msr.h"
#include "core/x86/vcpu_regs.h"

/* ---- general registers ---------------------------------------------------------------------------------------- */

void vcpu_get_regs(struct vcpu *vcpu, struct kvm_regs *regs)
{
	const struct x86_state *s = &vcpu->x86;

	vcpu->vm->engine->state_sync(vcpu, REGS_GPR | REGS_RIP);
	*regs = (struct kvm_regs){
		.rax = s->gpr[REG_AX], .rbx = s->gpr[REG_BX], .rcx = s->gpr[REG_CX], .rdx = s->gpr[REG_DX],
		.rsi = s->gpr[REG_SI], .rdi = s->gpr[REG_DI], .rsp = s->gpr[REG_SP], .rbp = s->gpr[REG_BP],
		.r8 = s->gpr[REG_R8], .r9 = s->gpr[REG_R9], .r10 = s->gpr[REG_R10], .r11 = s->gpr[REG_R11],
		.r12 = s->gpr[REG_R12], .r13 = s->gpr[REG_R13], .r14 = s->gpr[REG_R14], .r15 = s->gpr[REG_R15],
		.rip = s->rip, .rflags = s->rflags,
	};
}

void vcpu_set_regs(struct vcpu *vcpu, const struct kvm_regs *r)
{
	struct x86_state *s = &vcpu->x86;

	s->gpr[REG_AX] = r->rax;
	s->gpr[REG_BX] = r->rbx;
	s->gpr[REG_CX] = r->rcx;
	s->gpr[REG_DX] = r->rdx;
	s->gpr[REG_SI] = r->rsi;
	s->gpr[REG_DI] = r->rdi;
	s->gpr[REG_SP] = r->rsp;
	s->gpr[REG_BP] = r->rbp;
	s->gpr[REG_R8] = r->r8;
	s->gpr[REG_R9] = r->r9;
	s->gpr[REG_R10] = r->r10;
	s->gpr[REG_R11] = r->r11;
	s->gpr[REG_R12] = r->r12;
	s->gpr[REG_R13] = r->r13;
	s->gpr[REG_R14] = r->r14;
	s->gpr[REG_R15] = r->r15;
	s->rip = r->rip;
	/* Reserved bits read as zero on every processor: SDM 1 3.4.3 */
	s->rflags = (r->rflags & 0x3f7fd5) | RFLAGS_ONE;
	vcpu->io.decoded = false;
	/* KVM_SET_REGS starts the vCPU afresh at RIP: a fault that was raised elsewhere is not its own */
	vcpu->events.exception.pending = false;
	vcpu->vm->engine->state_sync(vcpu, REGS_SEG);
	x86_update_mode(s);
	vcpu_set_request(vcpu, REQ_EVENT);
	vcpu->vm->engine->state_changed(vcpu, REGS_GPR | REGS_RIP);
}

/* ---- segments and system registers ------------------------------------------------------------------------------ */

static struct kvm_segment segment_out(const struct x86_segment *s)
{
	bool unusable = s->ar & AR_UNUSABLE;

	return (struct kvm_segment){
		.base = s->base, .limit = s->limit, .selector = s->sel,
		.type = s->ar & AR_TYPE, .present = !unusable && (s->ar & AR_P), .dpl = (s->ar & AR_DPL) >> AR_DPL_SHIFT,
		.db = !!(s->ar & AR_DB), .s = !!(s->ar & AR_S), .l = !!(s->ar & AR_L), .g = !!(s->ar & AR_G),
		.avl = !!(s->ar & AR_AVL), .unusable = unusable,
	};
}

static struct x86_segment segment_in(const struct kvm_segment *k)
{
	u32 ar = (k->type & AR_TYPE) | (k->s ? AR_S : 0) | (k->dpl & 3) << AR_DPL_SHIFT | (k->avl ? AR_AVL : 0) |
		 (k->l ? AR_L : 0) | (k->db ? AR_DB : 0) | (k->g ? AR_G : 0);

	return (struct x86_segment){
		.base = k->base, .limit = k->limit, .sel = k->selector,
		.ar = ar | (k->unusable || !k->present ? AR_UNUSABLE : AR_P),
	};
}

/* What KVM_GET_SREGS and KVM_GET_SREGS2 have in common; so do the structures. */
#define SREGS_COMMON_OUT(out, vcpu)                                                                                    \
	do {                                                                                                           \
		const struct x86_state *st = &(vcpu)->x86;                                                             \
		(out)->cs = segment_out(&st->seg[SEG_CS]);                                                             \
		(out)->ds = segment_out(&st->seg[SEG_DS]);                                                             \
		(out)->es = segment_out(&st->seg[SEG_ES]);                                                             \
		(out)->fs = segment_out(&st->seg[SEG_FS]);                                                             \
		(out)->gs = segment_out(&st->seg[SEG_GS]);                                                             \
		(out)->ss = segment_out(&st->seg[SEG_SS]);                                                             \
		(out)->tr = segment_out(&st->seg[SEG_TR]);                                                             \
		(out)->ldt = segment_out(&st->seg[SEG_LDTR]);                                                          \
		(out)->gdt.base = st->gdt.base;                                                                        \
		(out)->gdt.limit = st->gdt.limit;                                                                      \
		(out)->idt.base = st->idt.base;                                                                        \
		(out)->idt.limit = st->idt.limit;                                                                      \
		(out)->cr0 = st->cr0;                                                                                  \
		(out)->cr2 = st->cr2;                                                                                  \
		(out)->cr3 = st->cr3;                                                                                  \
		(out)->cr4 = st->cr4;                                                                                  \
		(out)->cr8 = vcpu_get_cr8(vcpu);                                                                       \
		(out)->efer = st->efer;                                                                                \
		(out)->apic_base = (vcpu)->apic_base;                                                                  \
	} while (0)

void vcpu_get_sregs(struct vcpu *vcpu, struct kvm_sregs *sregs)
{
	vcpu->vm->engine->state_sync(vcpu, REGS_SEG | REGS_CR);
	memset(sregs, 0, sizeof(*sregs));
	SREGS_COMMON_OUT(sregs, vcpu);
	if (vcpu->events.interrupt.injected && !vcpu->events.interrupt.soft)
		sregs->interrupt_bitmap[vcpu->events.interrupt.vector / 64] |=
			BIT64(vcpu->events.interrupt.vector % 64);
}

static void get_sregs2(struct vcpu *vcpu, struct kvm_sregs2 *sregs)
{
	const struct x86_state *s = &vcpu->x86;

	vcpu->vm->engine->state_sync(vcpu, REGS_SEG | REGS_CR);
	memset(sregs, 0, sizeof(*sregs));
	SREGS_COMMON_OUT(sregs, vcpu);
	if ((s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA)) {
		memcpy(sregs->pdptrs, s->pdptr, sizeof(sregs->pdptrs));
		sregs->flags |= KVM_SREGS2_FLAGS_PDPTRS_VALID;
	}
}

static bool sregs_valid(struct vcpu *vcpu, const struct kvm_sregs2 *in)
{
	if ((in->efer & EFER_LME) && (in->cr0 & CR0_PG)) {
		/* Long mode is on: nothing else goes with it */
		if (!(in->cr4 & CR4_PAE) || !(in->efer & EFER_LMA) || (in->cr3 & (vcpu->rsvd_gpa | MASK64(63, 52))))
			return false;
	} else if ((in->efer & EFER_LMA) || in->cs.l) {
		return false;
	}
	if (in->cr4 & vcpu->cr4_reserved)
		return false;
	if (in->cr0 >> 32 || ((in->cr0 & CR0_NW) && !(in->cr0 & CR0_CD)) ||
	    ((in->cr0 & CR0_PG) && !(in->cr0 & CR0_PE)))
		return false;
	return !(in->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_FFXSR));
}

/* 0 or -EINVAL. Does not load PDPTEs. */
static int set_sregs_common(struct vcpu *vcpu, const struct kvm_sregs2 *in)
{
	struct x86_state *s = &vcpu->x86;

	if (!sregs_valid(vcpu, in))
		return -EINVAL;
	if (msr_set_apic_base(vcpu, in->apic_base, true) != X86_CONTINUE)
		return -EINVAL;
	vcpu->io.decoded = false;
	s->gdt.base = in->gdt.base;
	s->gdt.limit = in->gdt.limit;
	s->idt.base = in->idt.base;
	s->idt.limit = in->idt.limit;
	s->cr2 = in->cr2;
	s->cr3 = in->cr3;
	s->cr0 = in->cr0 | CR0_ET;
	s->cr4 = in->cr4;
	s->efer = in->efer;
	vcpu_set_cr(vcpu, 8, in->cr8 & 0xf);
	s->seg[SEG_CS] = segment_in(&in->cs);
	s->seg[SEG_DS] = segment_in(&in->ds);
	s->seg[SEG_ES] = segment_in(&in->es);
	s->seg[SEG_FS] = segment_in(&in->fs);
	s->seg[SEG_GS] = segment_in(&in->gs);
	s->seg[SEG_SS] = segment_in(&in->ss);
	s->seg[SEG_TR] = segment_in(&in->tr);
	s->seg[SEG_LDTR] = segment_in(&in->ldt);
	x86_update_mode(s);
	cpuid_runtime_update(vcpu);
	/* Clients reset the boot processor by registers alone; halted it would not notice */
	if (vcpu->id == vcpu->vm->boot_vcpu_id && s->rip == 0xfff0 && s->seg[SEG_CS].sel == 0xf000 &&
	    !(s->cr0 & CR0_PE))
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu_set_request(vcpu, REQ_EVENT);
	return 0;
}

static void sregs_changed(struct vcpu *vcpu)
{
	vm_guest_replaced(vcpu->vm);
	vcpu->vm->engine->tlb_flush(vcpu, TLB_ALL, 0);
	vcpu->vm->engine->state_changed(vcpu, REGS_SEG | REGS_CR);
}

static bool pae_paging(const struct x86_state *s)
{
	return (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
}

int vcpu_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *in)
{
	struct kvm_sregs2 common = {
		.cs = in->cs, .ds = in->ds, .es = in->es, .fs = in->fs, .gs = in->gs, .ss = in->ss, .tr = in->tr,
		.ldt = in->ldt, .gdt = in->gdt, .idt = in->idt, .cr0 = in->cr0, .cr2 = in->cr2, .cr3 = in->cr3,
		.cr4 = in->cr4, .cr8 = in->cr8, .efer = in->efer, .apic_base = in->apic_base,
	};
	int srcu, r = set_sregs_common(vcpu, &common);

	if (r)
		return r;
	if (pae_paging(&vcpu->x86)) {
		srcu = host_srcu_read_lock(&vcpu->vm->srcu);
		mmu_load_pdptrs(vcpu, vcpu->x86.cr3);
		host_srcu_read_unlock(&vcpu->vm->srcu, srcu);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(in->interrupt_bitmap); i++) {
		if (!in->interrupt_bitmap[i])
			continue;
		vcpu->events.interrupt.injected = true;
		vcpu->events.interrupt.soft = false;
		vcpu->events.interrupt.vector = i * 64 + __builtin_ctzll(in->interrupt_bitmap[i]);
		break;
	}
	sregs_changed(vcpu);
	return 0;
}

static int set_sregs2(struct vcpu *vcpu, const struct kvm_sregs2 *in)
{
	bool pae = (in->cr0 & CR0_PG) && (in->cr4 & CR4_PAE) && !(in->efer & EFER_LMA);
	bool valid = in->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
	int srcu, r;

	if ((in->flags & ~(u64)KVM_SREGS2_FLAGS_PDPTRS_VALID) || (valid && !pae))
		return -EINVAL;
	r = set_sregs_common(vcpu, in);
	if (r)
		return r;
	if (valid) {
		memcpy(vcpu->x86.pdptr, in->pdptrs, sizeof(in->pdptrs));
	} else if (pae) {
		srcu = host_srcu_read_lock(&vcpu->vm->srcu);
		mmu_load_pdptrs(vcpu, vcpu->x86.cr3);
		host_srcu_read_unlock(&vcpu->vm->srcu, srcu);
	}
	sregs_changed(vcpu);
	return 0;
}

/* ---- making, reset, end ----------------------------------------------------------------------------------------- */

static struct x86_segment reset_segment(u16 sel, u64 base, u32 ar)
{
	return (struct x86_segment){ .base = base, .limit = 0xffff, .ar = ar | AR_P, .sel = sel };
}

void x86_vcpu_reset(struct vcpu *vcpu, bool init)
{
	struct x86_state *s = &vcpu->x86;
	struct kvm_cpuid_entry2 *e = vcpu_cpuid_entry(vcpu, 1, 0);
	u64 cr0 = init ? s->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW;

	/* INIT leaves the FPU and most MSRs alone */
	if (init)
		vcpu->vm->engine->state_sync(vcpu, REGS_ALL);
	/* SDM 3A table 9-1 */
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[REG_DX] = e ? e->eax : 0x600;
	s->rip = 0xfff0;
	s->rflags = RFLAGS_ONE;
	s->seg[SEG_CS] = reset_segment(0xf000, 0xffff0000, AR_S | 0xb);
	for (unsigned i = 0; i < SEG_LDTR; i++) {
		if (i != SEG_CS)
			s->seg[i] = reset_segment(0, 0, AR_S | 3);
	}
	s->seg[SEG_LDTR] = reset_segment(0, 0, 2);
	s->seg[SEG_TR] = reset_segment(0, 0, 0xb);
	s->gdt = s->idt = (struct x86_dtable){ .limit = 0xffff };
	s->cr0 = cr0 | CR0_ET;
	s->cr2 = s->cr3 = s->cr4 = s->cr8 = 0;
	s->efer = 0;
	memset(s->dr, 0, sizeof(s->dr));
	s->dr6 = DR6_FIXED_1;
	s->dr7 = DR7_FIXED_1;
	s->shadow = 0;
	s->nmi_masked = s->smm = false;
	memset(&vcpu->events, 0, sizeof(vcpu->events));
	memset(&vcpu->io, 0, sizeof(vcpu->io));
	vcpu->msr_exit.state = MSR_EXIT_NONE;
	vcpu->hypercall_pending = false;
	vcpu->hyperv->answer = HV_ANSWER_NONE;
	vcpu->debug_hits = 0;
	vcpu->pv_unhalted = vcpu->smm_inside_nmi = false;
	vcpu->pending_external_vector = -1;
	if (!init) {
		fpu_reset(vcpu);
		msr_reset(vcpu, false);
		vcpu->apic_base = APIC_DEFAULT_GPA | APIC_BASE_ENABLE |
				  (vcpu->id == vcpu->vm->boot_vcpu_id ? APIC_BASE_BSP : 0);
	}
	lapic_reset(vcpu, init);
	x86_update_mode(s);
	debug_update(vcpu);
	cpuid_runtime_update(vcpu);
	vcpu->regs_avail = REGS_ALL;
	vcpu->vm->engine->tlb_flush(vcpu, TLB_ALL, 0);
	vcpu->vm->engine->state_changed(vcpu, REGS_ALL);
}

int x86_vcpu_init(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	int r;

	vcpu->emul.s = &vcpu->x86;
	if (!vcpu->emul.ops)
		vcpu->emul.ops = &vcpu_emul_ops;
	/* Until the client gives a CPUID */
	vcpu->maxphyaddr = 36;
	vcpu->rsvd_gpa = MASK64(51, 36);
	vcpu->cr4_reserved = cpuid_cr4_reserved(vcpu);
	vcpu->guest_supported_xcr0 = XCR0_FP | XCR0_SSE;
	vcpu->mcg_cap = MCE_BANKS;
	vcpu->pending_external_vector = -1;
	r = hyperv_vcpu_init(vcpu);
	if (r)
		return r;
	r = fpu_create(vcpu);
	if (r)
		goto out_hyperv;
	if (vm->irqchip != IRQCHIP_NONE) {
		r = lapic_create(vcpu);
		if (r)
			goto out_fpu;
	}
	clock_vcpu_init(vcpu);
	x86_vcpu_reset(vcpu, false);
	vcpu->mp_state = vm->irqchip == IRQCHIP_NONE || vcpu->id == vm->boot_vcpu_id ? KVM_MP_STATE_RUNNABLE :
										       KVM_MP_STATE_UNINITIALIZED;
	return 0;

out_fpu:
	fpu_destroy(vcpu);
out_hyperv:
	hyperv_vcpu_destroy(vcpu);
	return r;
}

void x86_vcpu_destroy(struct vcpu *vcpu)
{
	hyperv_vcpu_destroy(vcpu);
	lapic_destroy(vcpu);
	fpu_destroy(vcpu);
	host_free(vcpu->cpuid);
	vcpu->cpuid = NULL;
	vcpu->nr_cpuid = 0;
}

/* ---- the smaller ioctls ----------------------------------------------------------------------------------------- */

static long translate(struct vcpu *vcpu, struct kvm_translation *tr)
{
	struct walk_result walk;
	int srcu = host_srcu_read_lock(&vcpu->vm->srcu);

	vcpu->vm->engine->state_sync(vcpu, REGS_CR);
	tr->valid = mmu_walk_debug(vcpu, tr->linear_address, &walk);
	tr->physical_address = tr->valid ? walk.gpa : ~0ULL;
	tr->writeable = 1;
	tr->usermode = 0;
	host_srcu_read_unlock(&vcpu->vm->srcu, srcu);
	return 0;
}

static long get_mp_state(struct vcpu *vcpu, struct kvm_mp_state *mp)
{
	int srcu = host_srcu_read_lock(&vcpu->vm->srcu);

	/* An INIT or SIPI that arrived is in the state that is saved */
	if (lapic_has_init_or_sipi(vcpu))
		lapic_accept_events(vcpu);
	host_srcu_read_unlock(&vcpu->vm->srcu, srcu);
	if ((vcpu->mp_state == KVM_MP_STATE_HALTED || vcpu->mp_state == KVM_MP_STATE_AP_RESET_HOLD) && vcpu->pv_unhalted)
		mp->mp_state = KVM_MP_STATE_RUNNABLE;
	else
		mp->mp_state = vcpu->mp_state;
	return 0;
}

static long set_mp_state(struct vcpu *vcpu, const struct kvm_mp_state *mp)
{
	switch (mp->mp_state) {
	case KVM_MP_STATE_RUNNABLE: break;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_HALTED:
	case KVM_MP_STATE_SIPI_RECEIVED:
		if (!vcpu->lapic)
			return -EINVAL;
		break;
	default: return -EINVAL;
	}
	/* INITs are latched in SMM, so these cannot be */
	if ((vcpu->x86.smm || vcpu->events.smi_pending) &&
	    (mp->mp_state == KVM_MP_STATE_INIT_RECEIVED || mp->mp_state == KVM_MP_STATE_SIPI_RECEIVED))
		return -EINVAL;
	/* A SIPI without its vector starts nothing: it is as if none had come */
	vcpu->mp_state = mp->mp_state == KVM_MP_STATE_SIPI_RECEIVED ? KVM_MP_STATE_INIT_RECEIVED : mp->mp_state;
	vcpu_set_request(vcpu, REQ_EVENT);
	return 0;
}

static long enable_cap(struct vcpu *vcpu, const struct kvm_enable_cap *cap)
{
	if (cap->flags)
		return -EINVAL;
	switch (cap->cap) {
	case KVM_CAP_ENFORCE_PV_FEATURE_CPUID: vcpu->pv_enforced = cap->args[0]; return 0;
	case KVM_CAP_HYPERV_ENFORCE_CPUID: vcpu->hyperv->enforce = cap->args[0]; return 0;
	case KVM_CAP_HYPERV_SYNIC: return synic_enable(vcpu, false);
	case KVM_CAP_HYPERV_SYNIC2: return cap->args[0] ? -EINVAL : synic_enable(vcpu, true);
	}
	return -EINVAL;
}

static long vapic_addr(struct vcpu *vcpu)
{
	return vcpu->lapic ? 0 : -EINVAL;
}

long x86_vcpu_ioctl(struct vcpu *vcpu, unsigned cmd, u64 arg, void *data)
{
	int r;

	switch (cmd) {
	case KVM_GET_REGS: vcpu_get_regs(vcpu, data); return 0;
	case KVM_SET_REGS: vcpu_set_regs(vcpu, data); return 0;
	case KVM_GET_SREGS: vcpu_get_sregs(vcpu, data); return 0;
	case KVM_SET_SREGS: return vcpu_set_sregs(vcpu, data);
	case KVM_GET_SREGS2: get_sregs2(vcpu, data); return 0;
	case KVM_SET_SREGS2: return set_sregs2(vcpu, data);
	case KVM_GET_FPU: fpu_get(vcpu, data); return 0;
	case KVM_SET_FPU: return fpu_set(vcpu, data);
	case KVM_GET_XSAVE: fpu_get_xsave(vcpu, data, XSAVE_CLIENT_SIZE); return 0;
	case KVM_GET_XSAVE2: return fpu_get_xsave2(vcpu, arg);
	case KVM_SET_XSAVE: return fpu_set_xsave(vcpu, data);
	case KVM_GET_XCRS: fpu_get_xcrs(vcpu, data); return 0;
	case KVM_SET_XCRS: return fpu_set_xcrs(vcpu, data);
	case KVM_GET_MSRS: return msr_ioctl_get_set(vcpu, arg, data, false);
	case KVM_SET_MSRS: return msr_ioctl_get_set(vcpu, arg, data, true);
	case KVM_SET_CPUID: return cpuid_ioctl_set(vcpu, arg, data);
	case KVM_SET_CPUID2: return cpuid_ioctl_set2(vcpu, arg, data);
	case KVM_GET_CPUID2: return cpuid_ioctl_get2(vcpu, arg, data);
	case KVM_GET_SUPPORTED_HV_CPUID: return hyperv_ioctl_supported_cpuid(vcpu, arg, data);
	case KVM_GET_LAPIC:
		if (!vcpu->lapic)
			return -EINVAL;
		lapic_get_state(vcpu, data);
		return 0;
	case KVM_SET_LAPIC: return vcpu->lapic ? lapic_set_state(vcpu, data) : -EINVAL;
	case KVM_GET_MP_STATE: return get_mp_state(vcpu, data);
	case KVM_SET_MP_STATE: return set_mp_state(vcpu, data);
	case KVM_GET_VCPU_EVENTS: events_get(vcpu, data); return 0;
	case KVM_SET_VCPU_EVENTS: return events_set(vcpu, data);
	case KVM_GET_DEBUGREGS: debug_get_regs(vcpu, data); return 0;
	case KVM_SET_DEBUGREGS: return debug_set_regs(vcpu, data);
	case KVM_SET_GUEST_DEBUG: return debug_ioctl_set(vcpu, data);
	case KVM_TRANSLATE: return translate(vcpu, data);
	case KVM_INTERRUPT: return events_ioctl_interrupt(vcpu, ((struct kvm_interrupt *)data)->irq);
	case KVM_NMI: vcpu_set_request(vcpu, REQ_NMI); return 0;
	case KVM_SMI: vcpu_set_request(vcpu, REQ_SMI); return 0;
	case KVM_SET_TSC_KHZ:
		r = clock_set_tsc_khz(vcpu, arg ? (u32)arg : clock_counter_khz());
		return r;
	case KVM_GET_TSC_KHZ: return vcpu->tsc_khz;
	case KVM_KVMCLOCK_CTRL: return clock_guest_paused(vcpu);
	case KVM_ENABLE_CAP: return enable_cap(vcpu, data);
	case KVM_TPR_ACCESS_REPORTING: return 0;
	case KVM_SET_VAPIC_ADDR: return vapic_addr(vcpu);
	case KVM_X86_SETUP_MCE: return msr_ioctl_setup_mce(vcpu, *(u64 *)data);
	case KVM_X86_SET_MCE: return msr_ioctl_set_mce(vcpu, data);
	case KVM_GET_NESTED_STATE:
	case KVM_SET_NESTED_STATE: return -EINVAL; /* as without a nested engine: KVM_CAP_NESTED_STATE is 0 */
	case KVM_HAS_DEVICE_ATTR:
	case KVM_GET_DEVICE_ATTR:
	case KVM_SET_DEVICE_ATTR: return clock_device_attr(vcpu, cmd, data);
	}
	return -ENOTTY;
}
