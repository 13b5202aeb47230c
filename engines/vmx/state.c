/*
 * vcpu->x86 to and from the VMCS: guest state (24.4), the controls that change from entry to entry, and whether the processor
 * takes the state at all (26.3.1).
 *
 * After an exit RIP, RSP, RFLAGS, the control registers and the CPU's mode are read at once, segments only when somebody asks. What core
 * changed (regs_dirty) is written before the next entry.
 */
#include "engines/vmx/vmx.h"

#include "core/x86/cpuid.h"
#include "core/x86/debug.h"
#include "core/x86/irqchip/irqchip.h"

/* Bits that the guest changes without an exit. All others are the host's: a write of them exits. */
#define CR0_GUEST (CR0_TS)
#define CR4_GUEST (CR4_PVI | CR4_TSD | CR4_DE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT)

#define SEG_FIELD(base, i) ((base) + 2 * (i))

static bool pae_paging(const struct x86_state *s)
{
	return (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
}

static u64 cr4_guest(const struct vcpu *vcpu)
{
	return (CR4_GUEST | (vmx_options.ept ? CR4_PGE : 0)) & ~vcpu->cr4_reserved;
}

/* ---- once ------------------------------------------------------------------------------------------------------------ */

void vmx_state_init(struct vmx_vcpu *c)
{
	u16 cs, ss;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	__asm__ volatile("mov %%ss, %0" : "=r"(ss));
	for (unsigned i = 0; i < 6; i++)
		vmwrite(SEG_FIELD(VMCS_HOST_ES_SEL, i), 0);
	vmwrite(VMCS_HOST_CS_SEL, cs);
	vmwrite(VMCS_HOST_SS_SEL, ss);
	vmwrite(VMCS_HOST_FS_BASE, c->host.fs_base);
	vmwrite(VMCS_LINK, ~0ULL);
	vmwrite(VMCS_GUEST_DEBUGCTL, 0);
	vmwrite(VMCS_GUEST_ACTIVITY, 0);
	vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmwrite(VMCS_ENTRY_EVENT, 0);
	vmwrite(VMCS_CR3_TARGETS, 0);
	vmwrite(VMCS_PF_ERROR_MASK, 0);
	vmwrite(VMCS_PF_ERROR_MATCH, 0);
	vmwrite(VMCS_EXIT_MSR_STORE_COUNT, 0);
	vmwrite(VMCS_EXIT_MSR_LOAD_COUNT, vmx_caps.efer ? 0 : 1);
	vmwrite(VMCS_ENTRY_MSR_LOAD_COUNT, vmx_caps.efer ? 0 : 1);
	if (!vmx_caps.efer) {
		vmwrite(VMCS_ENTRY_MSR_LOAD, host_page_phys(c->efer_switch));
		vmwrite(VMCS_EXIT_MSR_LOAD, host_page_phys(c->efer_switch) + sizeof(*c->efer_switch));
	}
	vmwrite(VMCS_EXIT_CONTROLS, vmx_caps.exit);
	c->pin_ctl = vmx_caps.pin;
	vmwrite(VMCS_PIN_CONTROLS, c->pin_ctl);
	if (c->vpid)
		vmwrite(VMCS_VPID, c->vpid);
	if (vmx_options.flexpriority && c->vcpu.lapic) {
		vmwrite(VMCS_VIRTUAL_APIC, host_page_phys(lapic_page(&c->vcpu)));
		vmwrite(VMCS_TPR_THRESHOLD, 0);
		if (to_vmx_vm(c->vcpu.vm)->apic_access)
			vmwrite(VMCS_APIC_ACCESS, host_page_phys(to_vmx_vm(c->vcpu.vm)->apic_access));
		if (vmx_options.apicv) {
			for (unsigned i = 0; i < ARRAY_SIZE(c->eoi_exits); i++)
				vmwrite(VMCS_EOI_EXIT0 + 2 * i, 0);
		}
	}
	if (c->pml) {
		vmwrite(VMCS_PML, host_page_phys(c->pml));
		vmwrite(VMCS_GUEST_PML_INDEX, PML_ENTRIES - 1);
	}
	if (vmx_caps.cpu2 & CPU2_PAUSE_LOOP) {
		vmwrite(VMCS_PLE_GAP, vmx_options.ple_gap);
		vmwrite(VMCS_PLE_WINDOW, vmx_options.ple_window);
	}
}

/* ---- out of the VMCS ----------------------------------------------------------------------------------------------------- */

static void read_segments(struct x86_state *s)
{
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		s->seg[i].sel = vmread(SEG_FIELD(VMCS_GUEST_ES_SEL, i));
		s->seg[i].base = vmread(SEG_FIELD(VMCS_GUEST_ES_BASE, i));
		s->seg[i].limit = vmread(SEG_FIELD(VMCS_GUEST_ES_LIMIT, i));
		s->seg[i].ar = vmread(SEG_FIELD(VMCS_GUEST_ES_AR, i));
	}
	s->gdt.base = vmread(VMCS_GUEST_GDTR_BASE);
	s->gdt.limit = vmread(VMCS_GUEST_GDTR_LIMIT);
	s->idt.base = vmread(VMCS_GUEST_IDTR_BASE);
	s->idt.limit = vmread(VMCS_GUEST_IDTR_LIMIT);
}

void vmx_state_sync(struct vcpu *vcpu, unsigned groups)
{
	struct vmx_vcpu *c = to_vmx(vcpu);
	unsigned wanted = groups & ~vcpu->regs_avail;

	if (likely(!wanted))
		return;
	if (wanted & REGS_SEG)
		read_segments(&vcpu->x86);
	if (wanted & REGS_MSR)
		vmx_host_sync_msrs(c);
	if (wanted & REGS_FPU)
		host_fpu_save(c->fpu, vcpu->xsave, vcpu->xsave_size, 0);
	vcpu->regs_avail |= wanted;
}

void vmx_state_changed(struct vcpu *vcpu, unsigned groups)
{
	vcpu->regs_avail |= groups;
	vcpu->regs_dirty |= groups;
}

void vmx_state_after_exit(struct vmx_vcpu *c)
{
	struct vcpu *vcpu = &c->vcpu;
	struct x86_state *s = &vcpu->x86;
	u64 owned = cr4_guest(vcpu);
	u32 interruptibility = vmread(VMCS_GUEST_INTERRUPTIBILITY);

	vcpu->regs_avail = REGS_GPR | REGS_RIP | REGS_CR | REGS_DR;
	s->rip = vmread(VMCS_GUEST_RIP);
	s->gpr[REG_SP] = vmread(VMCS_GUEST_RSP);
	s->rflags = vmread(VMCS_GUEST_RFLAGS);
	if (c->step_added)
		s->rflags &= ~RFLAGS_TF;
	s->shadow = interruptibility & INTERRUPTIBILITY_SHADOWS;
	if (vmx_options.vnmi)
		s->nmi_masked = interruptibility & INTERRUPTIBILITY_NMI;
	c->interruptibility = interruptibility;
	s->cr0 = (s->cr0 & ~CR0_GUEST) | (vmread(VMCS_GUEST_CR0) & CR0_GUEST);
	s->cr4 = (s->cr4 & ~owned) | (vmread(VMCS_GUEST_CR4) & owned);
	if (vmx_options.ept) {
		s->cr3 = c->cr3 = vmread(VMCS_GUEST_CR3);
		if (unlikely(pae_paging(s))) {
			for (unsigned i = 0; i < 4; i++)
				s->pdptr[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
		}
	}
	s->seg[SEG_CS].ar = vmread(VMCS_GUEST_CS_AR);
	s->seg[SEG_SS].ar = vmread(VMCS_GUEST_SS_AR);
	x86_update_mode(s);
}

/* ---- can the processor run it? ----------------------------------------------------------------------------------------------- */

static bool limit_fits(const struct x86_segment *seg)
{
	if ((seg->limit & 0xfff) != 0xfff && (seg->ar & AR_G))
		return false;
	return !(seg->limit >> 20) || (seg->ar & AR_G);
}

static bool usable(const struct x86_segment *seg)
{
	return !(seg->ar & AR_UNUSABLE);
}

static unsigned type_of(const struct x86_segment *seg)
{
	return seg->ar & AR_TYPE;
}

static unsigned dpl_of(const struct x86_segment *seg)
{
	return (seg->ar & AR_DPL) >> AR_DPL_SHIFT;
}

static bool v86_fits(const struct x86_state *s)
{
	for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
		const struct x86_segment *seg = &s->seg[i];

		if (seg->base != (u64)seg->sel << 4 || seg->limit != 0xffff || seg->ar != 0xf3)
			return false;
	}
	return true;
}

static bool code_fits(const struct x86_state *s)
{
	const struct x86_segment *cs = &s->seg[SEG_CS], *ss = &s->seg[SEG_SS];
	unsigned dpl = dpl_of(cs), rpl = cs->sel & 3;

	if (!usable(cs) || !(cs->ar & AR_S) || !(cs->ar & AR_P) || !limit_fits(cs))
		return false;
	switch (type_of(cs)) {
	case 9:
	case 11: return dpl == dpl_of(ss) && dpl == rpl;
	case 13:
	case 15: return dpl <= dpl_of(ss);
	default: return false;
	}
}

static bool data_fits(const struct x86_segment *seg)
{
	unsigned type = type_of(seg);

	if (!usable(seg))
		return true;
	if (!(type & 1) || ((type & 8) && !(type & 2)) || !(seg->ar & AR_S) || !(seg->ar & AR_P) || !limit_fits(seg))
		return false;
	return type >= 12 || dpl_of(seg) >= (seg->sel & 3u);
}

/* 26.3.1.2 for protected mode, where unrestricted guest is off. */
static bool segments_fit(const struct x86_state *s)
{
	const struct x86_segment *ss = &s->seg[SEG_SS], *ldtr = &s->seg[SEG_LDTR], *tr = &s->seg[SEG_TR];

	if (!code_fits(s) || (ss->sel & 3) != (s->seg[SEG_CS].sel & 3) || dpl_of(ss) != (ss->sel & 3u))
		return false;
	if (usable(ss) && ((type_of(ss) != 3 && type_of(ss) != 7) || !(ss->ar & AR_S) || !(ss->ar & AR_P) || !limit_fits(ss)))
		return false;
	if (!data_fits(&s->seg[SEG_DS]) || !data_fits(&s->seg[SEG_ES]) || !data_fits(&s->seg[SEG_FS]) || !data_fits(&s->seg[SEG_GS]))
		return false;
	if (usable(ldtr) && ((ldtr->sel & 4) || type_of(ldtr) != 2 || (ldtr->ar & AR_S) || !(ldtr->ar & AR_P) || !limit_fits(ldtr)))
		return false;
	return usable(tr) && !(tr->sel & 4) && (type_of(tr) == 11 || (type_of(tr) == 3 && !(s->efer & EFER_LMA))) && !(tr->ar & AR_S) &&
	       (tr->ar & AR_P) && limit_fits(tr);
}

/* Without unrestricted guest there is no real mode; with EPT not even paging may be off. */
static bool fits(struct vmx_vcpu *c)
{
	const struct x86_state *s = &c->vcpu.x86;

	if (vmx_options.unrestricted_guest)
		return !(s->rflags & RFLAGS_VM) || v86_fits(s);
	if (!(s->cr0 & CR0_PE) || (vmx_options.ept && !(s->cr0 & CR0_PG)))
		return false;
	return s->rflags & RFLAGS_VM ? v86_fits(s) : segments_fit(s);
}

/* ---- into the VMCS ------------------------------------------------------------------------------------------------------------ */

static u32 ar_for_entry(const struct x86_state *s, unsigned i)
{
	u32 ar = s->seg[i].ar;

	/* A client may leave these out; the processor sets them itself when it loads a segment: SDM 3A 3.4.5.1, 7.2.2 */
	if (i == SEG_TR) {
		ar &= ~(u32)AR_UNUSABLE;
		ar |= 2;
	} else if (i != SEG_LDTR && (ar & AR_S)) {
		ar |= 1;
	}
	if (!(ar & AR_P) && i != SEG_CS)
		ar |= AR_UNUSABLE;
	return ar;
}

static void write_segments(const struct x86_state *s)
{
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		vmwrite(SEG_FIELD(VMCS_GUEST_ES_SEL, i), s->seg[i].sel);
		vmwrite(SEG_FIELD(VMCS_GUEST_ES_BASE, i), s->seg[i].base);
		vmwrite(SEG_FIELD(VMCS_GUEST_ES_LIMIT, i), s->seg[i].limit);
		vmwrite(SEG_FIELD(VMCS_GUEST_ES_AR, i), ar_for_entry(s, i));
	}
	vmwrite(VMCS_GUEST_GDTR_BASE, s->gdt.base);
	vmwrite(VMCS_GUEST_GDTR_LIMIT, s->gdt.limit);
	vmwrite(VMCS_GUEST_IDTR_BASE, s->idt.base);
	vmwrite(VMCS_GUEST_IDTR_LIMIT, s->idt.limit);
}

static void write_efer(struct vmx_vcpu *c, u64 cr0)
{
	u64 efer = c->vcpu.x86.efer;
	u32 entry = vmx_caps.entry | (efer & EFER_LMA ? ENTRY_CTL_IA32E : 0);

	/* With paging on LMA and LME are one: 26.3.1.1. The guest's own LME waits for its own paging. */
	if ((cr0 & CR0_PG) && !(efer & EFER_LMA))
		efer &= ~EFER_LME;
	/* Shadow tables forbid execution whether the guest may or not */
	if (!vmx_options.ept)
		efer |= EFER_NX;
	if (vmx_caps.efer)
		vmwrite(VMCS_GUEST_EFER, efer);
	else
		c->efer_switch[0].value = efer;
	if (entry != c->entry_ctl)
		vmwrite(VMCS_ENTRY_CONTROLS, c->entry_ctl = entry);
}

static void write_control_registers(struct vmx_vcpu *c)
{
	const struct x86_state *s = &c->vcpu.x86;
	u64 must0 = vmx_caps.cr0_fixed0, cr0, cr4;

	if (vmx_options.unrestricted_guest)
		must0 &= ~(CR0_PE | CR0_PG);
	/* The caches are the host's: CD and NW are for the guest to see, not to have */
	cr0 = ((s->cr0 & ~(CR0_CD | CR0_NW)) | must0) & vmx_caps.cr0_fixed1;
	cr4 = (s->cr4 | vmx_caps.cr4_fixed0) & vmx_caps.cr4_fixed1;
	if (!vmx_options.ept) {
		/* Shadow tables have entries of 64 bits, and protect pages from the kernel of the guest too */
		cr0 |= CR0_WP;
		cr4 |= CR4_PAE;
		if (!(s->cr0 & CR0_PG))
			cr4 &= ~(CR4_SMEP | CR4_SMAP | CR4_PKE);
	}
	vmwrite(VMCS_GUEST_CR0, cr0);
	vmwrite(VMCS_CR0_SHADOW, s->cr0);
	vmwrite(VMCS_CR0_MASK, ~CR0_GUEST);
	vmwrite(VMCS_GUEST_CR4, cr4);
	vmwrite(VMCS_CR4_SHADOW, s->cr4);
	vmwrite(VMCS_CR4_MASK, ~cr4_guest(&c->vcpu));
	if (vmx_options.ept) {
		if (c->cr3 != s->cr3)
			vmwrite(VMCS_GUEST_CR3, c->cr3 = s->cr3);
		if (pae_paging(s)) {
			for (unsigned i = 0; i < 4; i++)
				vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, s->pdptr[i]);
		}
	}
	write_efer(c, cr0);
}

static void write_msrs(struct vmx_vcpu *c)
{
	const struct x86_state *s = &c->vcpu.x86;

	vmwrite(VMCS_GUEST_SYSENTER_CS, s->sysenter_cs);
	vmwrite(VMCS_GUEST_SYSENTER_ESP, s->sysenter_esp);
	vmwrite(VMCS_GUEST_SYSENTER_EIP, s->sysenter_eip);
	if (vmx_caps.pat)
		vmwrite(VMCS_GUEST_PAT, c->vcpu.pat);
}

void vmx_state_flush(struct vmx_vcpu *c)
{
	struct vcpu *vcpu = &c->vcpu;
	const struct x86_state *s = &vcpu->x86;
	u32 dirty = vcpu->regs_dirty;

	if (dirty & (REGS_SEG | REGS_CR | REGS_RIP)) {
		if (!vmx_options.unrestricted_guest || (s->rflags & RFLAGS_VM))
			vmx_state_sync(vcpu, REGS_SEG);
		c->runnable = fits(c);
		if (!c->runnable)
			return;
	}
	if (dirty & (REGS_GPR | REGS_RIP)) {
		vmwrite(VMCS_GUEST_RSP, s->gpr[REG_SP]);
		vmwrite(VMCS_GUEST_RIP, s->rip);
		vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
		/* A guest whose HLT does not exit may have been in one: 24.4.2 */
		if (unlikely(vcpu->vm->exits_disabled))
			vmwrite(VMCS_GUEST_ACTIVITY, 0);
	}
	if (dirty & REGS_SEG)
		write_segments(s);
	if (dirty & REGS_CR)
		write_control_registers(c);
	if (dirty & REGS_DR)
		vmwrite(VMCS_GUEST_DR7, (vcpu->eff_dr7 | DR7_FIXED_1) & ~DR7_GD);
	if (dirty & REGS_MSR)
		write_msrs(c);
	/* MSRs of the CPU itself follow when the thread stays on it: vmx_host_leave() */
	vcpu->regs_dirty &= REGS_MSR | REGS_FPU;
}

static void write_event(struct vmx_vcpu *c, const struct x86_event *event)
{
	u32 word = event->vector | event->type << EVENT_TYPE_SHIFT | EVENT_VALID;

	if (event->type >= X86_EVENT_SOFT_INT) {
		/* An event that a client restores has lost its length; what is pushed is then RIP itself, as for an interrupt */
		if (event->insn_len)
			vmwrite(VMCS_ENTRY_INSN_LEN, event->insn_len);
		else
			word = event->vector | (event->type == X86_EVENT_SOFT_INT ? X86_EVENT_INTR : X86_EVENT_EXCEPTION) << EVENT_TYPE_SHIFT |
			       EVENT_VALID;
	}
	if (event->has_error) {
		word |= EVENT_HAS_ERROR;
		vmwrite(VMCS_ENTRY_EVENT_ERROR, event->error & 0x7fff);
	}
	vmwrite(VMCS_ENTRY_EVENT, word);
}

/* Where the guest's APIC registers are decides what can be served without an exit: 29.4, 29.5. */
static u32 apic_controls(const struct vmx_vcpu *c)
{
	u32 cpu2 = c->virtual_interrupts ? CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS : 0;

	if (c->apic_place == LAPIC_AT_USUAL_ADDRESS)
		cpu2 |= vmx_caps.cpu2_optional & CPU2_APIC_ACCESSES;
	else if (c->apic_place == LAPIC_AT_MSRS && c->virtual_interrupts)
		cpu2 |= CPU2_X2APIC;
	return cpu2;
}

static void *msr_bitmap(const struct vmx_vcpu *c, u32 cpu2)
{
	/* What a client filters has to be asked each time */
	if (unlikely(c->vcpu.vm->msr_filter))
		return vmx_caps.msr_bitmap_all;
	return cpu2 & CPU2_X2APIC ? vmx_caps.msr_bitmap_x2apic : vmx_caps.msr_bitmap;
}

static void write_controls(struct vmx_vcpu *c)
{
	struct vcpu *vcpu = &c->vcpu;
	u32 cpu = vmx_caps.cpu, cpu2 = vmx_caps.cpu2;
	u32 exceptions = 1U << VEC_DB | 1U << VEC_AC | 1U << VEC_MC | 1U << VEC_UD;
	u64 bitmap;

	if (c->window_irq || (c->window_nmi && !vmx_options.vnmi))
		cpu |= CPU_INTERRUPT_WINDOW;
	if (c->window_nmi && vmx_options.vnmi)
		cpu |= CPU_NMI_WINDOW;
	if (unlikely(vcpu->vm->exits_disabled)) {
		if (vcpu->vm->exits_disabled & KVM_X86_DISABLE_EXITS_HLT)
			cpu &= ~CPU_HLT;
		if (vcpu->vm->exits_disabled & KVM_X86_DISABLE_EXITS_PAUSE)
			cpu2 &= ~CPU2_PAUSE_LOOP;
	}
	if (vcpu_has_feature(vcpu, X86_FEATURE_RDTSCP))
		cpu2 |= vmx_caps.cpu2_optional & CPU2_RDTSCP;
	if (vcpu_has_feature(vcpu, X86_FEATURE_INVPCID))
		cpu2 |= vmx_caps.cpu2_optional & CPU2_INVPCID;
	if (vmx_options.flexpriority && vcpu->lapic) {
		cpu = (cpu | CPU_TPR_SHADOW) & ~(CPU_CR8_LOAD | CPU_CR8_STORE);
		cpu2 |= apic_controls(c);
	}
	if (c->pml)
		cpu2 |= CPU2_PML;
	if (!vmx_options.ept)
		exceptions |= 1U << VEC_PF;
	if (unlikely(vcpu->guest_debug & KVM_GUESTDBG_USE_SW_BP))
		exceptions |= 1U << VEC_BP;
	if (cpu != c->cpu_ctl)
		vmwrite(VMCS_CPU_CONTROLS, c->cpu_ctl = cpu);
	if ((cpu & CPU_SECONDARY) && cpu2 != c->cpu2_ctl)
		vmwrite(VMCS_CPU2_CONTROLS, c->cpu2_ctl = cpu2);
	if (exceptions != c->exceptions)
		vmwrite(VMCS_EXCEPTION_BITMAP, c->exceptions = exceptions);
	bitmap = host_page_phys(msr_bitmap(c, cpu2));
	if (bitmap != c->msr_bitmap_phys)
		vmwrite(VMCS_MSR_BITMAP, c->msr_bitmap_phys = bitmap);
	if (c->tsc_offset != vcpu->host_tsc_offset)
		vmwrite(VMCS_TSC_OFFSET, c->tsc_offset = vcpu->host_tsc_offset);
	if ((cpu2 & CPU2_TSC_SCALING) && c->tsc_multiplier != vcpu->tsc_ratio << 16)
		vmwrite(VMCS_TSC_MULTIPLIER, c->tsc_multiplier = vcpu->tsc_ratio << 16); /* 24.6.5: 16.48; ours is 32.32 */
}

/* The entry evaluates this (26.3.2.5), the guest's own doings change it, and core finds it in the registers again. */
static void write_virtual_interrupts(struct vmx_vcpu *c)
{
	struct lapic_virtual state;

	lapic_virtual_state(&c->vcpu, &state);
	vmwrite(VMCS_GUEST_INTERRUPT_STATUS, INTERRUPT_STATUS(state.requested, state.in_service));
	c->svi = state.in_service;
	for (unsigned i = 0; i < ARRAY_SIZE(c->eoi_exits); i++) {
		if (unlikely(state.eoi_exits[i] != c->eoi_exits[i]))
			vmwrite(VMCS_EOI_EXIT0 + 2 * i, c->eoi_exits[i] = state.eoi_exits[i]);
	}
}

/* The preemption timer counts once in 2^stay_shift ticks of the TSC; what is left is rounded up, for what ends too early would begin again. */
static void write_stay(struct vmx_vcpu *c)
{
	u64 stay = vmx_options.longest_stay ? vmx_options.longest_stay : ~0U, left = lapic_timer_left(&c->vcpu);

	if (left != ~0ULL)
		stay = MIN(stay, (left >> vmx_caps.stay_shift) + 1);
	if (stay != c->stay)
		vmwrite(VMCS_PREEMPTION_TIMER, c->stay = stay);
}

void vmx_state_entry(struct vmx_vcpu *c, const struct x86_event *event)
{
	const struct x86_state *s = &c->vcpu.x86;
	u32 interruptibility = s->shadow;
	u64 rflags = s->rflags;

	write_controls(c);
	if (c->virtual_interrupts) {
		write_virtual_interrupts(c);
	} else if (c->cpu_ctl & CPU_TPR_SHADOW) {
		u8 threshold = lapic_tpr_threshold(&c->vcpu);

		if (unlikely(threshold != c->tpr_threshold))
			vmwrite(VMCS_TPR_THRESHOLD, c->tpr_threshold = threshold);
	}
	if (vmx_caps.pin & PIN_PREEMPTION_TIMER)
		write_stay(c);
	/* 26.3.1.5: an interrupt that is injected finds none of these */
	if (event && (event->type == X86_EVENT_INTR || event->type == X86_EVENT_NMI))
		interruptibility = 0;
	if (vmx_options.vnmi && s->nmi_masked && !(event && event->type == X86_EVENT_NMI))
		interruptibility |= INTERRUPTIBILITY_NMI;
	if (interruptibility != c->interruptibility)
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY, c->interruptibility = interruptibility);
	c->step_added = debug_client_steps(&c->vcpu) && !(rflags & RFLAGS_TF);
	if (c->step_added)
		rflags |= RFLAGS_TF;
	vmwrite(VMCS_GUEST_RFLAGS, rflags | RFLAGS_ONE);
	/* The same section: a step that waits behind STI or MOV SS is pending */
	if (unlikely((rflags & RFLAGS_TF) && (interruptibility & INTERRUPTIBILITY_SHADOWS)))
		vmwrite(VMCS_GUEST_PENDING_DEBUG, PENDING_DEBUG_BS);
	if (event)
		write_event(c, event);
}
