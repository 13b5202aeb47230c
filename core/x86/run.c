/*
 * KVM_RUN: finish what the client answered, then loop over { requests, events, guest code, exit } until an exit is the
 * client's, or a signal arrived.
 */
#include "core/x86/run.h"

#include "core/stats.h"

#include "core/x86/debug.h"
#include "core/x86/events.h"
#include "core/x86/hypercall.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/chips.h"
#include "core/x86/mmu/walk.h"
#include "core/x86/vcpu_regs.h"

#define SYNC_REGS_VALID KVM_SYNC_X86_VALID_FIELDS

/* ---- what the client sees besides the exit ---------------------------------------------------------------------- */

static bool pic_in_core(const struct vcpu *vcpu)
{
	return vcpu->vm->irqchip == IRQCHIP_KERNEL;
}

/* The client's PIC may inject: its INTR line reaches this vCPU and nothing of it is on its way. */
static bool accepts_client_interrupt(struct vcpu *vcpu)
{
	if (!vcpu->lapic)
		return true;
	return lapic_accepts_pic(vcpu->lapic) && vcpu->pending_external_vector < 0;
}

static bool ready_for_client_interrupt(struct vcpu *vcpu)
{
	return vcpu_interrupt_allowed(vcpu) && accepts_client_interrupt(vcpu);
}

static bool client_wants_window(struct vcpu *vcpu)
{
	return !pic_in_core(vcpu) && __atomic_load_n(&vcpu->run->request_interrupt_window, __ATOMIC_RELAXED);
}

static void publish(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	run->if_flag = !!(vcpu->x86.rflags & RFLAGS_IF);
	run->cr8 = vcpu_get_cr8(vcpu);
	run->apic_base = vcpu->apic_base;
	run->ready_for_interrupt_injection = pic_in_core(vcpu) || ready_for_client_interrupt(vcpu);
	run->flags = vcpu->x86.smm ? KVM_RUN_X86_SMM : 0;
	if (run->kvm_valid_regs & KVM_SYNC_X86_REGS)
		vcpu_get_regs(vcpu, &run->s.regs.regs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
		vcpu_get_sregs(vcpu, &run->s.regs.sregs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS)
		events_get(vcpu, &run->s.regs.events);
}

/* Registers that the client changed in kvm_run. Copies first: the client may change them while they are checked. */
static int take_dirty_regs(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	u64 dirty = run->kvm_dirty_regs;

	if (dirty & KVM_SYNC_X86_REGS) {
		struct kvm_regs regs = run->s.regs.regs;

		vcpu_set_regs(vcpu, &regs);
	}
	if (dirty & KVM_SYNC_X86_SREGS) {
		struct kvm_sregs sregs = run->s.regs.sregs;

		if (vcpu_set_sregs(vcpu, &sregs))
			return -EINVAL;
	}
	if (dirty & KVM_SYNC_X86_EVENTS) {
		struct kvm_vcpu_events events = run->s.regs.events;

		if (events_set(vcpu, &events))
			return -EINVAL;
	}
	run->kvm_dirty_regs = 0;
	return 0;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

/* What other threads asked for. 1: go on; 0: leave to the client. */
static int serve_requests(struct vcpu *vcpu)
{
	const struct engine_ops *engine = vcpu->vm->engine;

	if (likely(!__atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE)))
		return 1;
	if (vcpu_test_request(vcpu, REQ_IO) && vcpu_io_ask(vcpu))
		return 0;
	if (vcpu_take_request(vcpu, REQ_TRIPLE_FAULT)) {
		vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
		return 0;
	}
	if (vcpu_take_request(vcpu, REQ_IOAPIC_EOI)) {
		vcpu->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
		vcpu->run->eoi.vector = vcpu->pending_ioapic_eoi;
		return 0;
	}
	if (vcpu_take_request(vcpu, REQ_HYPERV_EXIT)) {
		hyperv_fill_exit(vcpu);
		return 0;
	}
	if (vcpu_take_request(vcpu, REQ_HYPERV_FLUSH))
		hyperv_wait_flushed(vcpu);
	if (vcpu_take_request(vcpu, REQ_TLB_FLUSH))
		engine->tlb_flush(vcpu, TLB_GPA, 0);
	if (vcpu_take_request(vcpu, REQ_TLB_GUEST))
		engine->tlb_flush(vcpu, TLB_ALL, 0);
	if (vcpu_take_request(vcpu, REQ_CLOCK_UPDATE)) {
		vcpu_clock_update(vcpu);
		hyperv_clock_update(vcpu);
	}
	if (vcpu_take_request(vcpu, REQ_HYPERV_STIMER))
		stimers_process(vcpu);
	if (vcpu_take_request(vcpu, REQ_STEAL_UPDATE))
		vcpu_steal_update(vcpu, true);
	if (vcpu_take_request(vcpu, REQ_NMI))
		events_process_nmi(vcpu);
	if (vcpu_take_request(vcpu, REQ_SMI))
		vcpu->events.smi_pending = true;
	if (vcpu_take_request(vcpu, REQ_APIC))
		lapic_accept_events(vcpu);
	/* Their only purpose was to make the vCPU look */
	vcpu_take_request(vcpu, REQ_UNBLOCK);
	vcpu_take_request(vcpu, REQ_SCAN_IOAPIC);
	vcpu_take_request(vcpu, REQ_EVENT);
	return 1;
}

/* ---- not running ------------------------------------------------------------------------------------------------ */

bool x86_vcpu_runnable(struct vcpu *vcpu)
{
	u64 requests = __atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE);

	switch (__atomic_load_n(&vcpu->mp_state, __ATOMIC_RELAXED)) {
	case KVM_MP_STATE_RUNNABLE: return true;
	case KVM_MP_STATE_HALTED:
		if (requests & (BIT64(REQ_NMI) | BIT64(REQ_SMI) | BIT64(REQ_TRIPLE_FAULT)))
			return true;
		if (__atomic_load_n(&vcpu->pv_unhalted, __ATOMIC_ACQUIRE) || lapic_has_init_or_sipi(vcpu))
			return true;
		if (vcpu->events.exception.pending || vcpu->events.exception.injected ||
		    vcpu->events.nmi.injected || vcpu->events.interrupt.injected)
			return true;
		if ((vcpu->events.nmi.pending && vcpu_nmi_allowed(vcpu)) ||
		    (vcpu->events.smi_pending && !vcpu->x86.smm))
			return true;
		return vcpu_interrupt_allowed(vcpu) && vcpu->vm->irqchip != IRQCHIP_NONE &&
		       irqchip_has_interrupt(vcpu);
	default: return lapic_has_init_or_sipi(vcpu); /* waits for INIT and SIPI */
	}
}

static void wake_if_due(struct vcpu *vcpu)
{
	if (vcpu->mp_state == KVM_MP_STATE_HALTED && x86_vcpu_runnable(vcpu)) {
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
		__atomic_store_n(&vcpu->pv_unhalted, false, __ATOMIC_RELEASE);
	}
}

/* vcpu_sleep() until it has something to do. */
static int wait_for_event(struct vcpu *vcpu)
{
	lapic_timer_to_host(vcpu);
	return vcpu_sleep(vcpu, x86_vcpu_runnable);
}

static int block(struct vcpu *vcpu)
{
	int r = serve_requests(vcpu);

	if (r <= 0)
		return r;
	wake_if_due(vcpu);
	if (vcpu->mp_state == KVM_MP_STATE_RUNNABLE)
		return 1;
	r = wait_for_event(vcpu);
	return r < 0 && r != -EINTR ? r : 1; /* signals: vcpu_check_exit() */
}

/* ---- exits ------------------------------------------------------------------------------------------------------ */

static int internal_error(struct vcpu *vcpu, u32 suberror)
{
	struct kvm_run *run = vcpu->run;

	vcpu->stats->insn_emulation_fail++;
	/* A program of the guest's is not to end the guest, unless the client wants to see to it */
	if (suberror == KVM_INTERNAL_ERROR_EMULATION && vcpu->x86.cpl && !vcpu->vm->exit_on_emulation_failure) {
		vcpu_queue_fault(vcpu, VEC_UD, false, 0);
		return 1;
	}
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	memset(&run->internal, 0, sizeof(run->internal));
	run->internal.suberror = suberror;
	if (suberror == KVM_INTERNAL_ERROR_EMULATION) {
		u8 bytes[15];
		unsigned n = 0;
		struct walk_result walk;
		u64 la = vcpu->x86.seg[SEG_CS].base + vcpu->x86.rip;

		while (n < sizeof(bytes) && mmu_walk_debug(vcpu, la + n, &walk) &&
		       !vm_read_guest(vcpu->vm, vcpu_as_id(vcpu), walk.gpa, &bytes[n], 1))
			n++;
		run->emulation_failure.ndata = 3;
		run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
		run->emulation_failure.insn_size = n;
		memcpy(run->emulation_failure.insn_bytes, bytes, n);
	} else {
		run->internal.ndata = 0;
	}
	return 0;
}

static int handle_hlt(struct vcpu *vcpu, const struct engine_exit *exit)
{
	vcpu->stats->halt_exits++;
	if (exit->insn_len)
		vcpu_skip_insn(vcpu, exit->insn_len);
	if (!vcpu->lapic) {
		vcpu->run->exit_reason = KVM_EXIT_HLT;
		return 0;
	}
	vcpu->mp_state = KVM_MP_STATE_HALTED;
	return 1;
}

static int emulate_at(struct vcpu *vcpu, u64 gpa)
{
	struct engine_exit exit;

	vcpu_emulate(vcpu, gpa, &exit);
	return run_handle_exit(vcpu, &exit);
}

static int emulate(struct vcpu *vcpu)
{
	return emulate_at(vcpu, 0);
}

/* What an instruction that the engine decoded came to. */
static int insn_result(struct vcpu *vcpu, enum x86_result r, unsigned len)
{
	switch (r) {
	case X86_CONTINUE:
		vcpu_skip_insn(vcpu, len);
		return vcpu_insn_traps(vcpu);
	case X86_RETRY:
		vcpu_io_ask(vcpu);
		return 0;
	case X86_EXIT: /* done, and vcpu->run is filled */
		vcpu->io.exit = EXIT_NONE;
		vcpu_skip_insn(vcpu, len);
		return 0;
	default:
		vcpu_queue_fault(vcpu, VEC_GP, true, 0);
		return 1;
	}
}

static int handle_cpuid(struct vcpu *vcpu, unsigned len)
{
	u64 *gpr = vcpu->x86.gpr;
	u32 regs[4] = { gpr[REG_AX], 0, gpr[REG_CX], 0 };

	vcpu_cpuid(vcpu, regs);
	gpr[REG_AX] = regs[0];
	gpr[REG_BX] = regs[1];
	gpr[REG_CX] = regs[2];
	gpr[REG_DX] = regs[3];
	vcpu->regs_dirty |= REGS_GPR;
	return insn_result(vcpu, X86_CONTINUE, len);
}

static int handle_msr(struct vcpu *vcpu, bool write, unsigned len)
{
	u64 *gpr = vcpu->x86.gpr, value = (u32)gpr[REG_AX] | gpr[REG_DX] << 32;
	enum x86_result r;

	if (write)
		return insn_result(vcpu, vcpu_set_msr(vcpu, gpr[REG_CX], value, false), len);
	r = vcpu_get_msr(vcpu, gpr[REG_CX], &value, false);
	if (r == X86_CONTINUE) {
		gpr[REG_AX] = (u32)value;
		gpr[REG_DX] = value >> 32;
		vcpu->regs_dirty |= REGS_GPR;
	}
	return insn_result(vcpu, r, len);
}

static int handle_cr(struct vcpu *vcpu, const struct engine_exit *exit)
{
	struct x86_state *s = &vcpu->x86;
	u64 mask = s->mode == X86_MODE_LONG ? ~0ULL : 0xffffffffULL, old = s->cr8, *gpr = &s->gpr[exit->cr.gpr];
	enum x86_result r;

	if (!exit->cr.write) {
		const u64 cr[9] = { s->cr0, 0, s->cr2, s->cr3, s->cr4, 0, 0, 0, vcpu_get_cr8(vcpu) };

		*gpr = cr[exit->cr.nr] & mask;
		vcpu->regs_dirty |= REGS_GPR;
		return insn_result(vcpu, X86_CONTINUE, exit->insn_len);
	}
	host_event_cr(true, exit->cr.nr, *gpr & mask);
	r = vcpu_set_cr(vcpu, exit->cr.nr, *gpr & mask);
	/* A client with its own LAPIC has to hear of a lowered priority */
	if (r == X86_CONTINUE && exit->cr.nr == 8 && !vcpu->lapic && s->cr8 < old) {
		vcpu->run->exit_reason = KVM_EXIT_SET_TPR;
		r = X86_EXIT;
	}
	return insn_result(vcpu, r, exit->insn_len);
}

static int handle_hypercall(struct vcpu *vcpu, unsigned len)
{
	enum x86_result r = hypercall_run(vcpu);

	if (r != X86_FAULT)
		return insn_result(vcpu, r, len);
	vcpu_queue_fault(vcpu, VEC_UD, false, 0);
	return 1;
}

int run_handle_exit(struct vcpu *vcpu, struct engine_exit *exit)
{
	struct kvm_run *run = vcpu->run;
	int error;

	switch (exit->reason) {
	case EXIT_NONE: return 1;
	case EXIT_IRQ_WINDOW: vcpu->stats->irq_window_exits++; return 1;
	case EXIT_HLT: return handle_hlt(vcpu, exit);
	case EXIT_CPUID:
		if (likely(exit->insn_len))
			return handle_cpuid(vcpu, exit->insn_len);
		return emulate(vcpu);
	case EXIT_MSR_READ:
	case EXIT_MSR_WRITE:
		if (likely(exit->insn_len))
			return handle_msr(vcpu, exit->reason == EXIT_MSR_WRITE, exit->insn_len);
		return emulate(vcpu);
	case EXIT_IO:
		if (likely(exit->insn_len && !exit->io.string && !(vcpu->eff_dr7 & 0xff)))
			return vcpu_port_io(vcpu, exit);
		return emulate(vcpu);
	case EXIT_HYPERCALL:
		if (likely(exit->insn_len))
			return handle_hypercall(vcpu, exit->insn_len);
		return emulate(vcpu);
	case EXIT_CR:
		if (likely(exit->insn_len))
			return handle_cr(vcpu, exit);
		return emulate(vcpu);
	case EXIT_XSETBV:
		if (likely(exit->insn_len))
			return insn_result(vcpu, vcpu_set_xcr(vcpu, vcpu->x86.gpr[REG_CX],
							      (u32)vcpu->x86.gpr[REG_AX] | vcpu->x86.gpr[REG_DX] << 32),
					   exit->insn_len);
		return emulate(vcpu);
	case EXIT_PAUSE:
		host_cond_resched();
		if (likely(exit->insn_len))
			return insn_result(vcpu, X86_CONTINUE, exit->insn_len);
		return emulate(vcpu);
	case EXIT_SHUTDOWN: run->exit_reason = KVM_EXIT_SHUTDOWN; return 0;
	case EXIT_USER:
		error = vcpu->io.error;
		vcpu->io.error = 0;
		return error;
	case EXIT_DEBUG:
		run->exit_reason = KVM_EXIT_DEBUG;
		run->debug.arch.exception = exit->debug.vector;
		run->debug.arch.pc = exit->debug.pc;
		run->debug.arch.dr6 = exit->debug.dr6;
		run->debug.arch.dr7 = vcpu->eff_dr7;
		return 0;
	case EXIT_EXCEPTION:
		/* The emulator found a debug register guarded: it may be the client that guards it */
		if (unlikely(vcpu->emul.general_detect && exit->event.vector == VEC_DB && (exit->event.payload & DR6_BD)))
			return debug_trap(vcpu, DR6_BD, exit) ? run_handle_exit(vcpu, exit) : 1;
		vcpu_queue_exception(vcpu, &exit->event);
		return 1;
	case EXIT_EMULATE: return emulate_at(vcpu, exit->fault_gpa);
	case EXIT_PAGE_FAULT:
	case EXIT_DR: return emulate(vcpu);
	case EXIT_EFAULT: return -EFAULT;
	case EXIT_INTERNAL_ERROR: return internal_error(vcpu, exit->suberror);
	case EXIT_FAIL_ENTRY:
		run->exit_reason = KVM_EXIT_FAIL_ENTRY;
		run->fail_entry.hardware_entry_failure_reason = exit->suberror;
		run->fail_entry.cpu = 0;
		return 0;
	}
	return -EINVAL;
}

/* One stay in guest code. */
static int enter(struct vcpu *vcpu)
{
	struct engine_exit exit = { .reason = EXIT_NONE };
	int r = serve_requests(vcpu);

	if (r <= 0 || vcpu->mp_state != KVM_MP_STATE_RUNNABLE)
		return r;
	if (vcpu->steal_msr) /* or each entry would pay for the call */
		vcpu_steal_update(vcpu, false);
	vcpu->request_irq_window = client_wants_window(vcpu) && accepts_client_interrupt(vcpu);
	if (vcpu->request_irq_window && ready_for_client_interrupt(vcpu)) {
		vcpu->stats->request_irq_exits++;
		vcpu->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
		return 0;
	}
	/* From here on a kick reaches the guest; what came before it is in the requests, and then nothing is injected */
	if (!vcpu_enter_guest(vcpu))
		return 1;
	vcpu_inject_events(vcpu);
	stats_spent(vcpu, TIME_CORE);
	vcpu->vm->engine->vcpu_run(vcpu, &exit);
	stats_spent(vcpu, TIME_GUEST);
	vcpu_leave_guest(vcpu);
	vcpu->stats->exits++;
	if (likely(exit.reason < EXIT_REASONS))
		vcpu->stats->exit_reason[exit.reason]++;
	stats_sync_some(vcpu);
	return run_handle_exit(vcpu, &exit);
}

static int loop(struct vcpu *vcpu)
{
	int r;

	for (;;) {
		r = vcpu_check_exit(vcpu);
		if (r)
			return r < 0 ? r : 0;
		r = vcpu->mp_state == KVM_MP_STATE_RUNNABLE ? enter(vcpu) : block(vcpu);
		if (r <= 0)
			return r;
	}
}

/* A processor that was never started: one sleep, then the client decides whether to call again. */
static int wait_for_startup(struct vcpu *vcpu)
{
	int r = vcpu_check_exit(vcpu);

	if (r)
		return r < 0 ? r : 0;
	r = wait_for_event(vcpu);
	if (r < 0)
		vcpu->run->exit_reason = KVM_EXIT_INTR;
	else
		serve_requests(vcpu);
	return r < 0 ? r : -EAGAIN;
}

int x86_vcpu_run(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	int r;

	if ((run->kvm_valid_regs & ~SYNC_REGS_VALID) || (run->kvm_dirty_regs & ~SYNC_REGS_VALID))
		return -EINVAL;
	if (vcpu->mp_state == KVM_MP_STATE_UNINITIALIZED) {
		r = wait_for_startup(vcpu);
		publish(vcpu);
		return r;
	}
	r = take_dirty_regs(vcpu);
	if (r)
		goto out;
	/* A client with its own LAPIC keeps the TPR there */
	if (!vcpu->lapic) {
		r = vcpu_set_cr(vcpu, 8, run->cr8) == X86_CONTINUE ? 0 : -EINVAL;
		if (r)
			goto out;
	}
	/* First what the client answered, then signals: the client relies on state that it can save then */
	r = vcpu_complete_io(vcpu);
	if (r) {
		r = MIN(r, 0);
	} else if (__atomic_load_n(&run->immediate_exit, __ATOMIC_ACQUIRE)) {
		/* The exit that was completed is still told of, as Linux does */
		r = -EINTR;
	} else {
		run->exit_reason = KVM_EXIT_UNKNOWN;
		vcpu->has_run = true;
		r = loop(vcpu);
	}
out:
	publish(vcpu);
	return r;
}
