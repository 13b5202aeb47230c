/*
 * The engine's table for core, and the run loop: events, debugging, kicks and windows between blocks.
 *
 * A kick is a request bit plus a budget made negative. The interpreter counts the budget down at every poll point (backward branches,
 * indirect ones) and looks at the request bits when it is used up, so a hint lost against that count costs some
 * microseconds, never the kick.
 */
#include "core/x86/debug.h"
#include "engines/lite/exec.h"
#include "engines/lite/log.h"
#include "engines/lite/system.h"
#include "engines/lite/window.h"
#include "hosts/user/signals.h"

static void lite_init(void)
{
	lite_fault_init();
	lite_emul_ops_init();
	lite_xstate_init();
}

static int lite_vm_init(struct vm *vm)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct lite_vm *lvm = to_lite_vm(vm);
	int err;

	/* VMs may be made by several threads at once. */
	pthread_once(&once, lite_init);
	err = lite_code_init(lvm);
	if (err)
		return err;
	err = lite_stubs_init(lvm);
	if (err)
		goto destroy_code;
	err = lite_jit_init(lvm);
	if (err)
		goto destroy_stubs;
	return 0;

destroy_stubs:
	lite_stubs_destroy(lvm);
destroy_code:
	lite_code_destroy(lvm);
	return err;
}

static void lite_vm_destroy(struct vm *vm)
{
	struct lite_vm *lvm = to_lite_vm(vm);

	lite_jit_destroy(lvm);
	lite_stubs_destroy(lvm);
	lite_code_destroy(lvm);
}

static void lite_vcpu_destroy(struct vcpu *vcpu)
{
	struct lite_vcpu *c = to_lite(vcpu);

	lite_window_destroy(c);
	lite_jit_vcpu_destroy(c);
	lite_mask_room_free(c);
	lite_fpu_destroy(c);
	lite_tlb_destroy(c);
}

static int lite_vcpu_init(struct vcpu *vcpu)
{
	struct lite_vcpu *c = to_lite(vcpu);
	int err;

	vcpu->emul.s = &vcpu->x86;
	vcpu->emul.ops = &lite_emul_ops;
	vcpu->regs_avail = REGS_ALL;
	c->quiet_gen = ~0ULL;
	c->sti_rip = LITE_STI_NONE;
	err = lite_tlb_init(c);
	if (!err)
		err = lite_fpu_init(c);
	if (!err)
		err = lite_mask_room_make(c);
	if (!err)
		err = lite_window_init(c);
	lite_jit_vcpu_init(c);
	if (err)
		lite_vcpu_destroy(vcpu);
	return err;
}

static void lite_state_changed(struct vcpu *vcpu, unsigned groups)
{
	struct lite_vcpu *c = to_lite(vcpu);

	if (groups & (REGS_CR | REGS_SEG)) {
		lite_tlb_flush_all(c);
		c->seen_cr0 = ~0ULL; /* lite_refresh() looks at everything */
	}
	if (groups & ~REGS_FPU)
		c->recheck_code = true; /* see block.c */
}

static void lite_state_sync(struct vcpu *vcpu, unsigned groups)
{
	/* Everything is home whenever core runs. */
}

static void lite_inject(struct vcpu *vcpu, const struct x86_event *ev)
{
	struct lite_vcpu *c = to_lite(vcpu);

	c->event = *ev;
	c->event_valid = true;
}

static void lite_request_window(struct vcpu *vcpu, bool nmi)
{
	struct lite_vcpu *c = to_lite(vcpu);

	if (nmi)
		c->window_nmi = true;
	else
		c->window_irq = true;
}

static void lite_kick(struct vcpu *vcpu)
{
	__atomic_store_n(&to_lite(vcpu)->budget, -1, __ATOMIC_SEQ_CST);
}

static void lite_slot_flush(struct vm *vm, const struct memslot *old)
{
	lite_shootdown(to_lite_vm(vm), NULL, LITE_PEND_ALL);
}

static void lite_slot_write_protect(struct vm *vm, const struct memslot *slot, u64 gfn_offset, u64 mask)
{
	/* lite_slot_flush_done() drops all write entries: refilling one is cheaper than finding it. */
}

static void lite_slot_flush_done(struct vm *vm)
{
	lite_shootdown(to_lite_vm(vm), NULL, LITE_PEND_WRITE);
}

/*
 * What lite cannot serve: protection keys, CET, UINTR, AMX, LA57, SMAP (its check depends on RFLAGS.AC at every access), MPX, PT, TSX, SGX,
 * nested virtualization. MONITOR would be HLT. XSAVES's supervisor states are none.
 */
static void lite_cpuid_mask(u32 function, u32 index, u32 regs[4])
{
	switch (function) {
	case 1:
		regs[2] &= ~(1U << 2 | 1U << 3 | 1U << 5 | 1U << 6 | 1U << 7 | 1U << 8 | 1U << 10 | 1U << 11 | 1U << 14 | 1U << 15);
		break;
	case 7:
		if (index == 0) {
			/* SGX, HLE, MPX, RTM, RDT, PQE, SMAP, PT */
			regs[1] &= ~(1U << 2 | 1U << 4 | 1U << 11 | 1U << 12 | 1U << 14 | 1U << 15 | 1U << 20 | 1U << 25);
			/* PKU, OSPKE, WAITPKG, CET_SS, TME, LA57, MAWAU, Key Locker, bus lock detection, ENQCMD, SGX_LC, PKS */
			regs[2] &= ~(1U << 3 | 1U << 4 | 1U << 5 | 1U << 7 | 1U << 13 | 1U << 16 | 0x3e0000U | 1U << 23 | 1U << 24 |
				     1U << 29 | 1U << 30 | 1U << 31);
			/* UINTR, TSXLDTRK, HYBRID, PCONFIG, CET_IBT, AMX */
			regs[3] &= ~(1U << 5 | 1U << 15 | 1U << 16 | 1U << 18 | 1U << 20 | 1U << 22 | 1U << 24 | 1U << 25);
		}
		break;
	case 0xd:
		if (index == 0) {
			regs[0] &= 0xe7; /* x87, SSE, AVX, AVX-512 */
			regs[3] = 0;
		} else if (index == 1) {
			regs[0] &= ~0x18U; /* XSAVES, XFD */
			regs[2] = regs[3] = 0;
		}
		break;
	case 0x80000001:
		/* SVM, IBS, OSVW, SKINIT, WDT, LWP, TCE, perf counters, MONITORX */
		regs[2] &= ~(1U << 2 | 1U << 10 | 1U << 12 | 1U << 13 | 1U << 15 | 1U << 17 | 1U << 23 | 1U << 24 | 1U << 28 | 1U << 29);
		break;
	}
}

/* ---- the run loop ------------------------------------------------------------------------------------------------ */

/* @ev went through the IDT. Another one may be on its way behind it. */
static void clear_injected(struct vcpu *vcpu, const struct x86_event *ev)
{
	switch (ev->type) {
	case X86_EVENT_INTR:
	case X86_EVENT_SOFT_INT:
		vcpu->events.interrupt.injected = false;
		break;
	case X86_EVENT_NMI:
		vcpu->events.nmi.injected = false;
		break;
	default:
		vcpu->events.exception.injected = false;
	}
}

static void shutdown(struct engine_exit *exit)
{
	exit->reason = EXIT_SHUTDOWN;
}

/* Takes @ev through the guest's IDT. False: @exit says why not. */
static bool deliver(struct lite_vcpu *c, const struct x86_event *ev, struct engine_exit *exit)
{
	struct vcpu *vcpu = &c->vcpu;
	enum x86_result r;

	if (likely(lite_fast_event(c, ev))) {
		clear_injected(vcpu, ev);
		lite_refresh_cpl(c);
		return true;
	}
	lite_fpu_spare(c);
	r = vcpu_insn_done(vcpu, emul_deliver_event(&vcpu->emul, ev));
	switch (r) {
	case X86_CONTINUE:
		clear_injected(vcpu, ev);
		lite_refresh(c);
		return true;
	case X86_SHUTDOWN:
		clear_injected(vcpu, ev);
		shutdown(exit);
		return false;
	case X86_EXIT:
		clear_injected(vcpu, ev);
		vcpu_emul_exit(vcpu, r, exit);
		return false;
	default:
		if (c->efault) {
			exit->reason = EXIT_EFAULT;
			exit->fault_gpa = c->efault_gpa;
		} else {
			vcpu_emul_exit(vcpu, r, exit);
		}
		return false;
	}
}

/* The result of an instruction that is not simply done. True: go on with the guest. */
static bool slow_result(struct lite_vcpu *c, enum x86_result r, struct engine_exit *exit)
{
	struct vcpu *vcpu = &c->vcpu;
	struct x86_event fault;

	if (unlikely(c->efault)) {
		exit->reason = EXIT_EFAULT;
		exit->fault_gpa = c->efault_gpa;
		return false;
	}
	switch (r) {
	case X86_CONTINUE:
		return true;
	case X86_FAULT:
		if (unlikely(vcpu->guest_debug)) {
			exit->reason = EXIT_EXCEPTION;
			exit->event = vcpu->emul.fault;
			return false;
		}
		fault = vcpu->emul.fault;
		return deliver(c, &fault, exit);
	case X86_SHUTDOWN:
		shutdown(exit);
		return false;
	default:
		vcpu_emul_exit(vcpu, r, exit);
		return false;
	}
}

static bool must_step(struct lite_vcpu *c)
{
	const struct vcpu *vcpu = &c->vcpu;

	/* Alignment checks are the emulator's (SDM 3A 6.15, interrupt 17). */
	if (unlikely((vcpu->x86.rflags & RFLAGS_AC) && (vcpu->x86.cr0 & CR0_AM) && vcpu->x86.cpl == 3))
		return true;
	return (vcpu->x86.rflags & RFLAGS_TF) || vcpu->x86.shadow || (vcpu->eff_dr7 & 0xff) || debug_client_steps(vcpu);
}

/* One instruction with everything that debugging asks. True: go on. */
static bool step(struct lite_vcpu *c, struct engine_exit *exit)
{
	struct vcpu *vcpu = &c->vcpu;
	struct emul *e = &vcpu->emul;
	enum x86_result r;
	u64 hits;

	c->watching = vcpu->eff_dr7 & 0xff;
	c->debug_hits = 0;
	if (unlikely(c->watching)) {
		hits = debug_code_hit(vcpu, vcpu->x86.seg[SEG_CS].base + vcpu->x86.rip);
		if (hits) {
			if (!debug_trap(vcpu, hits, exit))
				exit->reason = EXIT_NONE; /* #DB is queued: core injects it */
			return false;
		}
	}
	if (unlikely(vcpu->guest_debug & KVM_GUESTDBG_USE_SW_BP)) {
		u8 byte = 0;

		if (lite_emul_ops.fetch(e, vcpu->x86.seg[SEG_CS].base + vcpu->x86.rip, &byte, 1) == X86_CONTINUE &&
		    byte == 0xcc && debug_int3(vcpu, exit))
			return false;
	}
	e->tf_at_start = false;
	r = vcpu_insn_done(vcpu, emul_step(e));
	lite_refresh(c);
	hits = c->debug_hits;
	c->watching = false;
	if (r == X86_CONTINUE || r == X86_EXIT) {
		if (e->tf_at_start || debug_client_steps(vcpu))
			hits |= DR6_BS;
		if (hits) {
			bool exits = debug_trap(vcpu, hits, exit);

			if (r == X86_CONTINUE) {
				if (!exits)
					exit->reason = EXIT_NONE;
				return false;
			}
		}
	}
	return slow_result(c, r, exit);
}

struct run_args {
	struct engine_exit *exit;
};

static void run(struct lite_vcpu *c, const void *arg)
{
	struct engine_exit *exit = ((const struct run_args *)arg)->exit;
	struct vcpu *vcpu = &c->vcpu;
	struct lite_vm *lvm = to_lite_vm(vcpu->vm);
	const struct lite_jump *jump;
	const struct lite_op *ops;
	enum x86_result r;
	u64 va;

	for (;;) {
		/* Before the requests are looked at: a kick that comes behind this makes it negative again. */
		if (__atomic_load_n(&c->budget, __ATOMIC_RELAXED) < 0)
			__atomic_store_n(&c->budget, LITE_BUDGET, __ATOMIC_SEQ_CST);
		__atomic_store_n(&c->quiet_gen, __atomic_load_n(&lvm->flush_gen, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
		lite_serve_pending(c);
		lite_shadow_home(c);
		if (unlikely(vcpu_must_exit(vcpu))) {
			exit->reason = EXIT_NONE;
			return;
		}
		if (unlikely(c->window_irq | c->window_nmi)) {
			if ((c->window_irq && vcpu_interrupt_allowed(vcpu)) || (c->window_nmi && vcpu_nmi_allowed(vcpu))) {
				exit->reason = EXIT_IRQ_WINDOW;
				return;
			}
		}
		if (unlikely(must_step(c))) {
			if (!step(c, exit))
				return;
			continue;
		}
		lite_refresh(c);
		va = vcpu->x86.rip;
		if (likely(vcpu->x86.mode == X86_MODE_LONG)) {
			c->cs_base = 0;
			c->rip_mask = ~0ULL;
		} else {
			c->cs_base = vcpu->x86.seg[SEG_CS].base;
			c->rip_mask = 0xffffffff;
			/* Near its end, CS's limit has to be looked at by instruction. */
			if (unlikely((u64)vcpu->x86.rip + 4096 > vcpu->x86.seg[SEG_CS].limit && !(c->code_mode & LITE_MODE_FLAT))) {
				if (!step(c, exit))
					return;
				continue;
			}
			va = (u32)(va + c->cs_base);
		}
		vcpu->x86.rflags &= ~RFLAGS_RF; /* only the stepping path looks at it, and an instruction clears it */
		c->seen_gen = __atomic_load_n(&lvm->code_gen, __ATOMIC_SEQ_CST);
		if (likely(lite_jit_run(c))) {
			if (unlikely(c->jit.differs)) {
				exit->reason = EXIT_INTERNAL_ERROR;
				exit->suberror = KVM_INTERNAL_ERROR_EMULATION;
				return;
			}
			if (likely(c->stop == LITE_STOP_NONE))
				continue;
			goto stopped;
		}
		if (unlikely(lvm->no_links)) {
			/* Lockstep: one instruction, and back to comparing. */
			if (!step(c, exit))
				return;
			continue;
		}
		jump = &c->view->jump[lite_jump_hash(va)];
		r = X86_CONTINUE;
		ops = likely(jump->va == va) ? jump->ops : lite_block_at(c, va, &r);
		if (unlikely(!ops)) {
			/* Faults are raised by the stepping path, which knows all that comes before a fetch. */
			if (!step(c, exit))
				return;
			continue;
		}
		c->vpage = va & PAGE_MASK_;
		c->stop = LITE_STOP_NONE;
		lite_flags_take(c);
		lite_execute(c, ops);
		if (likely(c->stop == LITE_STOP_NONE))
			continue;
stopped:
		if (c->stop == LITE_STOP_INT3) {
			if (debug_int3(vcpu, exit))
				return;
			if (!step(c, exit))
				return;
			continue;
		}
		if (!slow_result(c, c->emul_result, exit))
			return;
	}
}

static void lite_vcpu_run(struct vcpu *vcpu, struct engine_exit *exit)
{
	struct lite_vcpu *c = to_lite(vcpu);
	u64 gs_base = 0;
	bool go = true;

	memset(exit, 0, sizeof(*exit));
	/* Windows are reached by it; it is the client's, who mostly has no use for it. */
	if (c->window)
		__asm__ volatile("rdgsbase %0" : "=r"(gs_base));
	c->gs_base = gs_base;
	c->efault = false;
	c->op = NULL;
	/* Translated code does not count the budget down: without the hint a signal would wait for somebody else's kick. */
	host_run_hint(&c->budget);
	__atomic_store_n(&c->budget, LITE_BUDGET, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->quiet_gen, __atomic_load_n(&to_lite_vm(vcpu->vm)->flush_gen, __ATOMIC_ACQUIRE), __ATOMIC_SEQ_CST);
	lite_enter_guest(c);
	lite_refresh(c);
	/* The client may have written code since; see block.c. */
	if (!(vcpu->x86.cr0 & CR0_PG) || c->recheck_code)
		lite_tlb_flush_exec(c);
	c->recheck_code = false;
	if (c->event_valid) {
		struct x86_event ev = c->event;

		c->event_valid = false;
		go = deliver(c, &ev, exit);
	}
	if (go && !lite_fault_guard(run, c, &(struct run_args){ exit })) {
		/* Dropped in the middle of the instruction that c->op names. */
		if (c->op)
			vcpu->x86.rip = (c->vpage + c->op->off - c->cs_base) & c->rip_mask;
		lite_flags_home(c);
		exit->reason = EXIT_EFAULT;
	}
	if (c->gs_base != gs_base)
		__asm__ volatile("wrgsbase %0" : : "r"(gs_base));
	lite_fpu_save(c);
	lite_shadow_home(c);
	c->window_irq = c->window_nmi = false;
	lite_leave_guest(c);
	__atomic_store_n(&c->quiet_gen, ~0ULL, __ATOMIC_SEQ_CST);
	if (unlikely(lite_log_wants(LITE_LOG_EXITS)))
		lite_log_exit(vcpu, exit);
}

const struct engine_ops lite_engine = {
	.name = "lite",
	.vm_size = sizeof(struct lite_vm),
	.vcpu_size = sizeof(struct lite_vcpu) - offsetof(struct lite_vcpu, vcpu),
	.vcpu_headroom = LITE_JIT_HEADROOM + offsetof(struct lite_vcpu, vcpu),
	.cpuid_mask = lite_cpuid_mask,
	.vm_stats = lite_vm_stats,
	.vcpu_stats = lite_vcpu_stats,
	.vm_init = lite_vm_init,
	.vm_destroy = lite_vm_destroy,
	.vcpu_init = lite_vcpu_init,
	.vcpu_destroy = lite_vcpu_destroy,
	.state_changed = lite_state_changed,
	.state_sync = lite_state_sync,
	.vcpu_run = lite_vcpu_run,
	.inject = lite_inject,
	.request_window = lite_request_window,
	.kick = lite_kick,
	.tlb_flush = lite_tlb_flush,
	.slot_flush = lite_slot_flush,
	.slot_write_protect = lite_slot_write_protect,
	.slot_flush_done = lite_slot_flush_done,
};
