/*
 * One stay in the guest: what core asked for goes into the VMCB, the world is switched, what came of it comes back.
 */
#include "core/x86/debug.h"
#include "core/x86/msr.h"
#include "core/x86/world.h"
#include "engines/svm/svm.h"

/* ---- the world switch --------------------------------------------------------------------------------------------- */

/*
 * From VMLOAD of the guest's to VMLOAD of the host's FS, GS and TR no interrupt, not even an NMI, may come: CLGI. With the host's
 * RFLAGS.IF set, a physical interrupt makes the guest exit (15.13.1). Afterwards no register holds a value of the guest's. No RET comes
 * before host_guest_left(): the guest's calls may still predict it.
 *
 * @gpr: in the order of REG_*; RAX and RSP are the VMCB's.
 */
static void switch_world(u64 *gpr, u64 guest_pa, u64 host_pa)
{
	__asm__ volatile(
		"push	%%rbp\n\t"
		"push	%%rdx\n\t"
		"push	%%rdi\n\t"
		"clgi\n\t"
		"sti\n\t"
		"mov	1*8(%%rdi), %%rcx\n\t"
		"mov	2*8(%%rdi), %%rdx\n\t"
		"mov	3*8(%%rdi), %%rbx\n\t"
		"mov	5*8(%%rdi), %%rbp\n\t"
		"mov	6*8(%%rdi), %%rsi\n\t"
		"mov	8*8(%%rdi), %%r8\n\t"
		"mov	9*8(%%rdi), %%r9\n\t"
		"mov	10*8(%%rdi), %%r10\n\t"
		"mov	11*8(%%rdi), %%r11\n\t"
		"mov	12*8(%%rdi), %%r12\n\t"
		"mov	13*8(%%rdi), %%r13\n\t"
		"mov	14*8(%%rdi), %%r14\n\t"
		"mov	15*8(%%rdi), %%r15\n\t"
		"mov	7*8(%%rdi), %%rdi\n\t"
		"vmload	%%rax\n\t"
		"vmrun	%%rax\n\t"
		"vmsave	%%rax\n\t"
		"push	%%rdi\n\t"
		"mov	8(%%rsp), %%rdi\n\t"
		"mov	%%rcx, 1*8(%%rdi)\n\t"
		"mov	%%rdx, 2*8(%%rdi)\n\t"
		"mov	%%rbx, 3*8(%%rdi)\n\t"
		"mov	%%rbp, 5*8(%%rdi)\n\t"
		"mov	%%rsi, 6*8(%%rdi)\n\t"
		"popq	7*8(%%rdi)\n\t"
		"mov	%%r8, 8*8(%%rdi)\n\t"
		"mov	%%r9, 9*8(%%rdi)\n\t"
		"mov	%%r10, 10*8(%%rdi)\n\t"
		"mov	%%r11, 11*8(%%rdi)\n\t"
		"mov	%%r12, 12*8(%%rdi)\n\t"
		"mov	%%r13, 13*8(%%rdi)\n\t"
		"mov	%%r14, 14*8(%%rdi)\n\t"
		"mov	%%r15, 15*8(%%rdi)\n\t"
		"mov	8(%%rsp), %%rax\n\t"
		"vmload	%%rax\n\t"
		"cli\n\t"
		"stgi\n\t"
		"pop	%%rdi\n\t"
		"pop	%%rdx\n\t"
		"pop	%%rbp\n\t"
		"xor	%%ecx, %%ecx\n\t"
		CLEAR_GUEST_REGISTERS
		"call	host_guest_left\n\t"
		: "+a"(guest_pa), "+d"(host_pa), "+D"(gpr)
		:
		: "rbx", "rcx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
}

static void set_xcr0(u64 value)
{
	__asm__ volatile("xsetbv" : : "c"(0), "a"((u32)value), "d"((u32)(value >> 32)));
}

static u64 get_xcr0(void)
{
	u32 low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (u64)high << 32 | low;
}

static u32 read_pkru(void)
{
	u32 pkru;

	__asm__ volatile("rdpkru" : "=a"(pkru) : "c"(0) : "rdx");
	return pkru;
}

static void write_pkru(u32 pkru)
{
	__asm__ volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0));
}

#define DR_READ(n)                                                                                                     \
	({                                                                                                             \
		u64 value_;                                                                                            \
		__asm__ volatile("mov %%db" #n ", %0" : "=r"(value_));                                                 \
		value_;                                                                                                \
	})
#define DR_WRITE(n, value) __asm__ volatile("mov %0, %%db" #n : : "r"((u64)(value)))

static void enter(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;
	bool breakpoints = vcpu->eff_dr7 & 0xff;
	u64 dr7 = DR_READ(7), dr[4] = { 0 };
	/* With OSXSAVE clear no guest code depends on it */
	bool xcr0 = svm_caps.host_xcr0 && vcpu->x86.xcr0 != svm_caps.host_xcr0 && (vcpu->x86.cr4 & CR4_OSXSAVE);

	bool pku = svm_caps.pku && (vcpu->x86.cr4 & CR4_PKE);
	u32 pkru = 0;
	/* What the guest asks of speculation: IBRS, STIBP, SSBD */
	u64 speculation = svm_caps.spec_ctrl ? vcpu->spec_ctrl & 7 : 0, host_speculation = 0;

	if (unlikely(breakpoints)) {
		/* Armed for the host they would fire in here */
		DR_WRITE(7, DR7_FIXED_1);
		dr[0] = DR_READ(0);
		dr[1] = DR_READ(1);
		dr[2] = DR_READ(2);
		dr[3] = DR_READ(3);
		DR_WRITE(0, vcpu->eff_dr[0]);
		DR_WRITE(1, vcpu->eff_dr[1]);
		DR_WRITE(2, vcpu->eff_dr[2]);
		DR_WRITE(3, vcpu->eff_dr[3]);
	}
	if (unlikely(xcr0))
		set_xcr0(vcpu->x86.xcr0);
	if (unlikely(speculation)) {
		host_rdmsr(MSR_IA32_SPEC_CTRL, &host_speculation);
		host_wrmsr(MSR_IA32_SPEC_CTRL, speculation);
	}
	if (unlikely(pku)) {
		pkru = read_pkru();
		write_pkru(svm->pkru);
	}
	host_guest_enters(svm_caps.npt);
	switch_world(vcpu->x86.gpr, svm->vmcb_pa, svm->cpu->host_pa);
	if (unlikely(speculation))
		host_wrmsr(MSR_IA32_SPEC_CTRL, host_speculation);
	if (unlikely(pku)) {
		svm->pkru = read_pkru();
		write_pkru(pkru);
	}
	if (unlikely(svm_caps.xsetbv_silent && (vcpu->x86.cr4 & CR4_OSXSAVE))) {
		svm->xcr0_left = get_xcr0();
		xcr0 = svm->xcr0_left != svm_caps.host_xcr0;
	}
	if (unlikely(xcr0))
		set_xcr0(svm_caps.host_xcr0);
	if (unlikely(breakpoints)) {
		DR_WRITE(0, dr[0]);
		DR_WRITE(1, dr[1]);
		DR_WRITE(2, dr[2]);
		DR_WRITE(3, dr[3]);
	}
	/* #VMEXIT leaves it with nothing armed: 15.6 */
	if (unlikely(dr7 != DR7_FIXED_1))
		DR_WRITE(7, dr7);
}

/* ---- into the VMCB ------------------------------------------------------------------------------------------------ */

static void load_event(struct svm_vcpu *svm)
{
	const struct x86_event *ev = &svm->event;
	u64 type = EVENT_TYPE_EXCEPTION, next = svm->vcpu.x86.rip + ev->insn_len;

	svm->event_rip = svm->vcpu.x86.rip;
	switch (ev->type) {
	case X86_EVENT_INTR: type = EVENT_TYPE_INTR; break;
	case X86_EVENT_NMI: type = EVENT_TYPE_NMI; break;
	case X86_EVENT_SOFT_INT: type = EVENT_TYPE_SOFT; break;
	}
	/* What is pushed for software events, INT3 and INTO: nRIP, or RIP where the processor does not have that */
	svm->vmcb->next_rip = next;
	if (!(svm_caps.features & SVM_FEATURE_NRIPS))
		svm->vmcb->rip = next;
	svm->vmcb->event_inj = ev->vector | type << EVENT_TYPE_SHIFT | (ev->has_error ? EVENT_HAS_ERROR : 0) | EVENT_VALID |
			       (ev->has_error ? (u64)ev->error << EVENT_ERROR_SHIFT : 0);
}

/* An interrupt that is pending for the guest in the processor, and whose taking exits: it is taken as soon as it can be. */
static void load_window(struct svm_vcpu *svm)
{
	struct vmcb *v = svm->vmcb;

	svm_intercept(svm, SVM_EXIT_VINTR, svm->window_irq);
	if (svm->window_irq)
		v->vintr |= VINTR_IRQ | 0xfULL << VINTR_PRIO_SHIFT | VINTR_IGN_TPR;
	else
		v->vintr &= ~VINTR_IRQ;
	v->clean &= ~VMCB_CLEAN_TPR;
}

/* Out of an interrupt shadow an NMI can be taken after one more instruction: 15.21.4 has no exit for that, so it is stepped. */
static bool must_step(const struct svm_vcpu *svm)
{
	const struct vcpu *vcpu = &svm->vcpu;

	return unlikely(debug_client_steps(vcpu) || (svm->window_nmi && !svm_caps.vnmi && !vcpu->x86.nmi_masked));
}

static void load_registers(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;
	const struct x86_state *s = &vcpu->x86;
	struct vmcb *v = svm->vmcb;

	v->rax = s->gpr[REG_AX];
	v->rsp = s->gpr[REG_SP];
	v->rip = s->rip;
	v->rflags = s->rflags;
	v->int_state = s->shadow ? INT_STATE_SHADOW : 0;
	if (unlikely(v->tsc_offset != vcpu->host_tsc_offset)) {
		v->tsc_offset = vcpu->host_tsc_offset;
		v->clean &= ~VMCB_CLEAN_INTERCEPTS;
	}
	svm->stepping = must_step(svm);
	if (unlikely(svm->stepping)) {
		svm->guest_tf = s->rflags & RFLAGS_TF;
		v->rflags |= RFLAGS_TF;
	}
	svm_nmi_load(svm);
	v->event_inj = 0;
	if (svm->inject)
		load_event(svm);
	if (unlikely(svm->window_irq || (v->vintr & VINTR_IRQ)))
		load_window(svm);
	svm_tpr_load(svm);
	if (svm_caps.avic)
		svm_avic_entry(svm);
}

/* ---- and out ------------------------------------------------------------------------------------------------------ */

/*
 * What was being delivered when the guest exited is to be delivered again. Software interrupts and exceptions are not: RIP is still at
 * their instruction, which comes again by itself, unless core had injected them.
 */
static void take_event(struct svm_vcpu *svm)
{
	struct vcpu_events *events = &svm->vcpu.events;
	u64 info = svm->vmcb->exit_int_info;
	u8 vector = info & EVENT_VECTOR, type = (info & EVENT_TYPE) >> EVENT_TYPE_SHIFT;
	bool ours = svm->inject && svm->event.vector == vector;

	if (likely(!(info & EVENT_VALID))) {
		if (svm->inject)
			events->exception.injected = events->nmi.injected = events->interrupt.injected = false;
		return;
	}
	/* The processor may say the one or the other, and core gives the length again */
	if (ours && svm->event.insn_len)
		svm->vcpu.x86.rip = svm->event_rip;
	events->exception.injected = events->nmi.injected = events->interrupt.injected = false;
	switch (type) {
	case EVENT_TYPE_INTR:
		events->interrupt.injected = true;
		events->interrupt.soft = false;
		events->interrupt.vector = vector;
		break;
	case EVENT_TYPE_NMI: events->nmi.injected = true; break;
	case EVENT_TYPE_EXCEPTION:
		if ((vector == VEC_BP || vector == VEC_OF) && !ours)
			break;
		events->exception.injected = true;
		events->exception.pending = false;
		events->exception.ev = (struct x86_event){ .vector = vector, .type = X86_EVENT_EXCEPTION,
							   .has_error = info & EVENT_HAS_ERROR,
							   .error = info >> EVENT_ERROR_SHIFT };
		break;
	case EVENT_TYPE_SOFT: events->interrupt.injected = ours; break;
	}
}

static void fpu_in(struct svm_vcpu *svm)
{
	if (likely(svm->fpu_in))
		return;
	host_fpu_in(svm->fpu);
	svm->fpu_in = true;
}

void svm_run_end(struct vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (svm->fpu_in)
		host_fpu_out(svm->fpu);
	svm->fpu_in = false;
}

/* The tables; false: @exit says why there are none. */
static bool load_tables(struct svm_vcpu *svm, struct engine_exit *exit)
{
	struct vmcb *v = svm->vmcb;
	u64 root, *at = svm_caps.npt ? &v->n_cr3 : &v->cr3;
	int error = mmu_load(svm->mmu, &root);

	if (unlikely(error)) {
		mmu_error_exit(&svm->vcpu, error, exit);
		return false;
	}
	if (unlikely(*at != root)) {
		*at = root;
		v->clean &= ~(VMCB_CLEAN_NP | VMCB_CLEAN_CR);
	}
	return true;
}

static void tell_exit(const struct svm_vcpu *svm)
{
	const struct vmcb *v = svm->vmcb;

	host_event_exit(svm->vcpu.id, svm->vcpu.x86.rip,
			&(struct host_exit){ .isa = HOST_ISA_SVM, .reason = v->exit_code, .info1 = v->exit_info_1,
					     .info2 = v->exit_info_2, .intr_info = v->exit_int_info,
					     .error_code = v->exit_int_info >> EVENT_ERROR_SHIFT });
}

void svm_vcpu_run(struct vcpu *vcpu, struct engine_exit *exit)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb *v = svm->vmcb;
	bool entered = false;
	u64 tpr;

	if (unlikely(svm->avic_switch)) {
		svm_avic_switch(svm);
		goto out;
	}
	/* Nothing else holds AVIC's interrupts back from an instruction whose data have come; it will be emulated anyway */
	if (unlikely(svm->avic_active && vcpu->io.batch.state == IO_BATCH_IN_READY)) {
		exit->reason = EXIT_EMULATE;
		goto out;
	}
	if (vcpu->regs_dirty)
		svm_state_load(svm);
	if (unlikely(svm->filter_seen != __atomic_load_n(&vcpu->vm->msr_filter_generation, __ATOMIC_ACQUIRE)))
		svm_msrpm_update(svm);
	if (!load_tables(svm, exit))
		goto out;
	load_registers(svm);
	fpu_in(svm);
	tpr = v->vintr & VINTR_TPR;

	host_irq_off();
	/* A request that is made after this look comes with an interrupt, which makes the guest exit at once */
	if (likely(!vcpu_must_exit(vcpu) && !host_must_leave())) {
		host_event_entry(vcpu->id, vcpu->x86.rip);
		svm_cpu_prepare(svm);
		enter(svm);
		entered = true;
		v->clean = svm_caps.features & SVM_FEATURE_VMCB_CLEAN ? VMCB_CLEAN_ALL : 0;
		v->tlb_control = 0;
		if (unlikely(v->exit_code == SVM_EXIT_EXCEPTION + VEC_MC))
			host_take_machine_check();
	}
	host_irq_on();

	if (entered) {
		svm_state_exit(svm);
		tell_exit(svm);
		if (unlikely(svm->stepping && !svm->guest_tf))
			vcpu->x86.rflags &= ~RFLAGS_TF;
		svm_tpr_sync(svm, tpr);
		svm_nmi_sync(svm);
		take_event(svm);
		/* A value that is not the guest's to choose is lost with the next entry */
		if (unlikely(svm_caps.xsetbv_silent && (vcpu->x86.cr4 & CR4_OSXSAVE)))
			vcpu_set_xcr(vcpu, 0, svm->xcr0_left);
		svm_handle_exit(svm, exit);
	}
out:
	svm->inject = svm->window_irq = svm->window_nmi = false;
}
