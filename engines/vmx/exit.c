/*
 * VM exits (27, appendix C): what they mean to core. Instructions go to core with their operands decoded where the processor tells
 * them; the rest is emulated.
 */
#include "engines/vmx/vmx.h"

#include "core/memslot.h"
#include "core/x86/debug.h"
#include "core/x86/hypercall.h"
#include "core/x86/irqchip/irqchip.h"

/* ---- events -------------------------------------------------------------------------------------------------------------- */

static struct x86_event event_of(u32 word, u32 error, u8 insn_len)
{
	return (struct x86_event){
		.vector = word & EVENT_VECTOR,
		.type = (word >> EVENT_TYPE_SHIFT) & EVENT_TYPE,
		.has_error = word & EVENT_HAS_ERROR,
		.error = word & EVENT_HAS_ERROR ? error : 0,
		.insn_len = insn_len,
	};
}

void vmx_mark_delivered(struct vcpu *vcpu, const struct x86_event *event)
{
	switch (event->type) {
	case X86_EVENT_INTR:
	case X86_EVENT_SOFT_INT: vcpu->events.interrupt.injected = false; break;
	case X86_EVENT_NMI: vcpu->events.nmi.injected = false; break;
	default: vcpu->events.exception.injected = false; break;
	}
}

/* An exit in the middle of an event's delivery, ours or the guest's own: it is delivered again at the next entry (27.2.4). */
static void requeue(struct vmx_vcpu *c)
{
	struct vcpu_events *events = &c->vcpu.events;
	struct x86_event *event = &c->event;

	*event = event_of(c->vectoring, vmread(VMCS_VECTORING_ERROR), 0);
	if (event->type >= X86_EVENT_SOFT_INT)
		event->insn_len = vmread(VMCS_EXIT_INSN_LEN);
	switch (event->type) {
	case X86_EVENT_INTR:
	case X86_EVENT_SOFT_INT:
		events->interrupt.injected = true;
		events->interrupt.soft = event->type == X86_EVENT_SOFT_INT;
		events->interrupt.vector = event->vector;
		events->interrupt.soft_len = event->insn_len;
		break;
	case X86_EVENT_NMI:
		events->nmi.injected = true;
		/* Blocked from here on whether or not the processor came that far */
		c->vcpu.x86.nmi_masked = true;
		break;
	default:
		events->exception.injected = true;
		events->exception.pending = false;
		events->exception.ev = *event;
		break;
	}
}

/*
 * See vmx_options.imprecise_delivery: a vector is in service, nothing of its handler has run yet (which ends it before it enables interrupts), and
 * it is no event that was injected.
 */
static void mend_vectoring(struct vmx_vcpu *c)
{
	u8 svi = INTERRUPT_STATUS_SVI(vmread(VMCS_GUEST_INTERRUPT_STATUS));

	if (svi && (svi != c->svi || !c->injected) && (c->vcpu.x86.rflags & RFLAGS_IF))
		c->vectoring = EVENT_VALID | X86_EVENT_INTR << EVENT_TYPE_SHIFT | svi;
}

/*
 * The same option: guest code had IF clear and stands at the first instruction of the handler of the vector in service. That did not happen. Such
 * code is at CPL 0, so that CS and SS are as they were. Only 64-bit code: other than that takes its interrupts from the PIC in what the tests run.
 */
static void take_back_delivery(struct vmx_vcpu *c)
{
	struct vcpu *vcpu = &c->vcpu;
	struct x86_state *s = &vcpu->x86;
	struct { u64 rip, cs, rflags, rsp, ss; } frame;
	u8 svi = INTERRUPT_STATUS_SVI(vmread(VMCS_GUEST_INTERRUPT_STATUS));
	u16 gate[8];

	if (!svi || (s->rflags & RFLAGS_IF) || !(s->efer & EFER_LMA) || !(s->seg[SEG_CS].ar & AR_L) || (s->seg[SEG_SS].ar & AR_DPL))
		return;
	vmx_state_sync(vcpu, REGS_SEG);
	if (vcpu->emul.ops->read(&vcpu->emul, s->idt.base + svi * sizeof(gate), gate, sizeof(gate), EMUL_ACC_SYSTEM) != X86_CONTINUE ||
	    s->rip != (gate[0] | (u64)gate[3] << 16 | (u64)gate[4] << 32 | (u64)gate[5] << 48))
		return;
	if (vcpu->emul.ops->read(&vcpu->emul, s->gpr[REG_SP], &frame, sizeof(frame), EMUL_ACC_SYSTEM) != X86_CONTINUE ||
	    (frame.rflags & RFLAGS_IF) || frame.cs != s->seg[SEG_CS].sel || frame.ss != s->seg[SEG_SS].sel)
		return;
	s->rip = frame.rip;
	s->rflags = frame.rflags;
	s->gpr[REG_SP] = frame.rsp;
	vmx_state_changed(vcpu, REGS_GPR | REGS_RIP);
	lapic_take_back(vcpu, svi);
}

void vmx_deliver(struct vmx_vcpu *c, const struct x86_event *event, struct engine_exit *exit)
{
	struct vcpu *vcpu = &c->vcpu;
	struct x86_event ev = *event;
	enum x86_result r;

	vmx_state_sync(vcpu, REGS_ALL & ~REGS_FPU);
	r = vcpu_insn_done(vcpu, emul_deliver_event(&vcpu->emul, &ev));
	vcpu->regs_dirty |= REGS_ALL & ~REGS_FPU;
	switch (r) {
	case X86_CONTINUE: vmx_mark_delivered(vcpu, &ev); break;
	case X86_SHUTDOWN:
		vmx_mark_delivered(vcpu, &ev);
		exit->reason = EXIT_SHUTDOWN;
		break;
	case X86_EXIT: vmx_mark_delivered(vcpu, &ev); /* fall through */
	default: vcpu_emul_exit(vcpu, r, exit); break;
	}
}

/* ---- instructions ---------------------------------------------------------------------------------------------------------- */

static void insn(struct engine_exit *exit, enum exit_reason reason)
{
	exit->reason = reason;
	exit->insn_len = vmread(VMCS_EXIT_INSN_LEN);
}

/* Table 27-3 */
static void cr_access(struct vmx_vcpu *c, struct engine_exit *exit)
{
	unsigned type = (c->qualification >> 4) & 3;

	if (type > 1) {
		exit->reason = EXIT_EMULATE; /* CLTS, LMSW */
		return;
	}
	insn(exit, EXIT_CR);
	exit->cr.nr = c->qualification & 15;
	exit->cr.gpr = (c->qualification >> 8) & 15;
	exit->cr.write = type == 0;
}

/* Table 27-5 */
static void io_access(struct vmx_vcpu *c, struct engine_exit *exit)
{
	u64 q = c->qualification;

	insn(exit, EXIT_IO);
	exit->io.size = (q & 7) + 1;
	exit->io.in = q & BIT64(3);
	exit->io.string = q & BIT64(4);
	exit->io.port = q >> 16;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

/* The stack or a descriptor table of an event that is being delivered is no memory; else the instruction met it. */
static void no_memory(struct vmx_vcpu *c, struct engine_exit *exit)
{
	if (c->vectoring & EVENT_VALID)
		vmx_deliver(c, &c->event, exit);
	else
		exit->reason = EXIT_EMULATE;
}

static void mmu_result(struct vmx_vcpu *c, u64 addr, u32 access, struct engine_exit *exit)
{
	int error = 0;

	switch (mmu_fault(c->mmu, addr, access, &exit->event, &error)) {
	case MMU_FIXED: exit->reason = EXIT_NONE; break;
	case MMU_INJECT: exit->reason = EXIT_EXCEPTION; break;
	case MMU_EMULATE: no_memory(c, exit); break;
	case MMU_ERROR: mmu_error_exit(&c->vcpu, error, exit); break;
	}
}

static void ept_violation(struct vmx_vcpu *c, struct engine_exit *exit)
{
	u64 q = c->qualification;

	mmu_result(c, vmread(VMCS_GUEST_PHYSICAL),
		   (q & EPT_VIOLATION_WRITE ? PFERR_W : 0) | (q & EPT_VIOLATION_FETCH ? PFERR_I : 0) |
			   (q & EPT_VIOLATION_PRESENT ? PFERR_P : 0), exit);
}

/* ---- exceptions ---------------------------------------------------------------------------------------------------------------- */

static void debug_exception(struct vmx_vcpu *c, struct engine_exit *exit)
{
	/* Table 27-1: as DR6, which an exit does not change */
	u64 hits = c->qualification & (0xf | DR6_BD | DR6_BS);

	if (!debug_trap(&c->vcpu, hits, exit))
		exit->reason = EXIT_NONE;
}

static void exception(struct vmx_vcpu *c, u32 word, struct engine_exit *exit)
{
	struct x86_event event = event_of(word, vmread(VMCS_EXIT_EVENT_ERROR), 0);

	if (event.type == X86_EVENT_NMI || event.vector == VEC_MC) {
		exit->reason = EXIT_NONE; /* the host's, and it has taken it: vmx_exit_first() */
		return;
	}
	if (event.type >= X86_EVENT_SOFT_INT)
		event.insn_len = vmread(VMCS_EXIT_INSN_LEN);
	switch (event.vector) {
	case VEC_PF: mmu_result(c, c->qualification, event.error, exit); return;
	case VEC_DB: debug_exception(c, exit); return;
	case VEC_BP:
		if (debug_int3(&c->vcpu, exit))
			return;
		break;
	case VEC_UD:
		/* RSM is undefined outside of SMM, and the processor is not in SMM when the guest is */
		if (unlikely(c->vcpu.x86.smm)) {
			exit->reason = EXIT_EMULATE;
			return;
		}
		/* VMMCALL is AMD's, VMCALL our own */
		if (!hypercall_fix(&c->vcpu, VMMCALL_INSN, VMCALL_INSN))
			break;
		exit->reason = EXIT_HYPERCALL;
		exit->insn_len = HYPERCALL_LEN;
		return;
	}
	exit->reason = EXIT_EXCEPTION;
	exit->event = event;
}

/* IRET that faulted had unblocked NMIs already: 27.2.3. With them blocked again it can be repeated. */
static void undo_nmi_unblocking(struct vmx_vcpu *c, u16 reason)
{
	bool undo = false;

	if (c->vectoring & EVENT_VALID)
		return;
	if (reason == VMX_EXIT_EXCEPTION_OR_NMI) {
		u32 word = vmread(VMCS_EXIT_EVENT);

		undo = (word & EVENT_NMI_UNBLOCKED) && (word & EVENT_VECTOR) != VEC_DF;
	} else if (reason == VMX_EXIT_EPT_VIOLATION || reason == VMX_EXIT_PML_FULL) {
		undo = c->qualification & EPT_VIOLATION_NMI_UNBLOCKED;
	}
	if (undo)
		c->vcpu.x86.nmi_masked = true;
}

/* ---- the exit -------------------------------------------------------------------------------------------------------------------- */

/*
 * What the processor noted of pages written (28.3.6) goes to the dirty log before anybody can think that this vCPU is out of guest code:
 * vmx_slot_dirty_sync() waits for just that.
 */
static void empty_pml(struct vmx_vcpu *c)
{
	struct vcpu *vcpu = &c->vcpu;
	struct memslots *slots = vm_slots(vcpu->vm, vcpu_as_id(vcpu));
	u16 next = vmread(VMCS_GUEST_PML_INDEX);

	if (likely(next == PML_ENTRIES - 1))
		return;
	/* Beyond the last: it is full */
	for (unsigned i = next < PML_ENTRIES ? next + 1 : 0; i < PML_ENTRIES; i++) {
		u64 gfn = c->pml[i] >> HOST_PAGE_SHIFT;
		struct memslot *slot = memslot_find(slots, gfn);

		if (slot)
			dirty_mark(vcpu->vm, vcpu, slot, gfn);
	}
	vmwrite(VMCS_GUEST_PML_INDEX, PML_ENTRIES - 1);
}

void vmx_exit_first(struct vmx_vcpu *c)
{
	u32 word;

	if (c->pml)
		empty_pml(c);
	c->reason = vmread(VMCS_EXIT_REASON);
	c->vectoring = vmread(VMCS_VECTORING_EVENT);
	switch (c->reason & VMX_EXIT_BASIC) {
	case VMX_EXIT_EXCEPTION_OR_NMI:
		word = vmread(VMCS_EXIT_EVENT);
		if (((word >> EVENT_TYPE_SHIFT) & EVENT_TYPE) == X86_EVENT_NMI)
			host_take_nmi();
		else if ((word & EVENT_VECTOR) == VEC_MC)
			host_take_machine_check();
		break;
	case VMX_EXIT_MACHINE_CHECK: host_take_machine_check(); break;
	case VMX_EXIT_EXTERNAL_INTERRUPT: host_take_irqs(); break;
	}
}

void vmx_exit(struct vmx_vcpu *c, struct engine_exit *exit)
{
	struct vcpu *vcpu = &c->vcpu;
	u16 reason = c->reason & VMX_EXIT_BASIC;

	exit->reason = EXIT_NONE;
	c->qualification = vmread(VMCS_EXIT_QUALIFICATION);
	host_event_exit(vcpu->id, vcpu->x86.rip,
			&(struct host_exit){ .isa = HOST_ISA_VMX, .reason = c->reason, .info1 = c->qualification, .intr_info = c->vectoring });
	if (unlikely(c->reason & VMX_EXIT_ENTRY_FAILED)) {
		exit->reason = EXIT_FAIL_ENTRY;
		exit->suberror = c->reason;
		return;
	}
	if (unlikely(vmx_options.imprecise_delivery && c->virtual_interrupts)) {
		if (c->vectoring & EVENT_VALID)
			mend_vectoring(c);
		else if (reason == VMX_EXIT_EXTERNAL_INTERRUPT || reason == VMX_EXIT_PREEMPTION_TIMER)
			take_back_delivery(c);
	}
	if (unlikely(c->vectoring & EVENT_VALID))
		requeue(c);
	if (vmx_options.vnmi)
		undo_nmi_unblocking(c, reason);
	switch (reason) {
	case VMX_EXIT_EXCEPTION_OR_NMI: exception(c, vmread(VMCS_EXIT_EVENT), exit); break;
	case VMX_EXIT_EXTERNAL_INTERRUPT: vcpu->stats->irq_exits++; break;
	case VMX_EXIT_TRIPLE_FAULT: exit->reason = EXIT_SHUTDOWN; break;
	case VMX_EXIT_INTERRUPT_WINDOW:
		/* Without virtual NMIs nothing tells when an NMI's handler ends; one that takes interrupts again has mostly */
		if (!vmx_options.vnmi && c->window_nmi)
			vcpu->x86.nmi_masked = false;
		exit->reason = EXIT_IRQ_WINDOW;
		break;
	case VMX_EXIT_NMI_WINDOW: exit->reason = EXIT_IRQ_WINDOW; break;
	case VMX_EXIT_TASK_SWITCH:
		/* Through a task gate of the IDT, or by the instruction at RIP */
		if (c->vectoring & EVENT_VALID)
			vmx_deliver(c, &c->event, exit);
		else
			exit->reason = EXIT_EMULATE;
		break;
	case VMX_EXIT_CPUID: insn(exit, EXIT_CPUID); break;
	case VMX_EXIT_HLT: insn(exit, EXIT_HLT); break;
	case VMX_EXIT_VMCALL: insn(exit, EXIT_HYPERCALL); break;
	case VMX_EXIT_CR: cr_access(c, exit); break;
	case VMX_EXIT_DR: exit->reason = EXIT_DR; break;
	case VMX_EXIT_IO: io_access(c, exit); break;
	case VMX_EXIT_RDMSR: insn(exit, EXIT_MSR_READ); break;
	case VMX_EXIT_WRMSR: insn(exit, EXIT_MSR_WRITE); break;
	case VMX_EXIT_PAUSE: insn(exit, EXIT_PAUSE); break;
	case VMX_EXIT_XSETBV: insn(exit, EXIT_XSETBV); break;
	case VMX_EXIT_EPT_VIOLATION: ept_violation(c, exit); break;
	case VMX_EXIT_EPT_MISCONFIGURATION:
		/* Tables mark what is no memory so */
		mmu_result(c, vmread(VMCS_GUEST_PHYSICAL), 0, exit);
		break;
	case VMX_EXIT_APIC_ACCESS: no_memory(c, exit); break;
	case VMX_EXIT_APIC_WRITE: lapic_written(vcpu, c->qualification & 0xff0); break;
	case VMX_EXIT_VIRTUALIZED_EOI: lapic_eoi_done(vcpu, c->qualification); break;
	case VMX_EXIT_PML_FULL: /* its page was emptied: vmx_exit_first() */
		host_event_pml_full(c->vcpu.id);
		break;
	case VMX_EXIT_MACHINE_CHECK:
	case VMX_EXIT_TPR_BELOW_THRESHOLD: break;
	case VMX_EXIT_PREEMPTION_TIMER: lapic_timer_ended(vcpu); break;
	default: exit->reason = EXIT_EMULATE; break; /* INVLPG, WBINVD, RDPMC ...; what the guest may not gets its #UD there */
	}
}
