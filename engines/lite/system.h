/*
 * System instructions and events as guests execute them all the time, in a few nanoseconds each; what is unusual about one is
 * core's emulator's, which is also the reference (tests/lite/system.c compares both).
 *
 *	lite_flags_home(c), RIP of the instruction in vcpu->x86.rip
 *	if (lite_fast_syscall(c, 2)) {
 *		lite_refresh_cpl(c);
 *		... go on at vcpu->x86.rip
 *	} else {
 *		... emul_exec()
 *	}
 *
 * All of them: for code in 64-bit mode (events: any mode of long mode), on the vCPU's own thread, inside the guest. The state in vcpu->x86 is
 * complete: GPRs, RIP (of the instruction), RFLAGS with the arithmetic flags, no interrupt shadow. SIMD registers may be loaded; they
 * stay as they are. True: the instruction is done, vcpu->x86 says so (RIP, mode and CPL too); what the caller has to do then
 * is said below by LITE_AFTER_*. False: nothing was changed, the general path has to do it, faults included.
 */
#ifndef ENGINES_LITE_SYSTEM_H
#define ENGINES_LITE_SYSTEM_H

#include "engines/lite/lite.h"

/* What follows a fast instruction that was done; without any of them the block just goes on. */
#define LITE_AFTER_CPL	  1 /* CS and CPL may have changed: lite_refresh_cpl(), go on at RIP */
#define LITE_AFTER_ALL	  2 /* anything may have changed: lite_refresh(), go on at RIP */
#define LITE_AFTER_PART	  8 /* RIP may not have moved, see lite_fast_string() */
#define LITE_AFTER_EVENTS 4 /* lite_events_due() says whether the run loop has to look before the next instruction */

/* ---- by name: @len is the instruction's length in bytes ------------------------------------------------------- */

/** LITE_AFTER_CPL */
bool lite_fast_syscall(struct lite_vcpu *c, unsigned len);
/** LITE_AFTER_CPL | LITE_AFTER_EVENTS. @rexw: REX.W, back to 64-bit code. */
bool lite_fast_sysret(struct lite_vcpu *c, bool rexw);
/** IRETQ. LITE_AFTER_CPL | LITE_AFTER_EVENTS. RFLAGS.RF may be set then, for the next instruction. */
bool lite_fast_iret(struct lite_vcpu *c);
/**
 * Takes @ev through the IDT as emul_deliver_event() would. LITE_AFTER_CPL. The frame is written through the TLB; a gate, a stack
 * or a descriptor that asks for anything but a plain 64-bit delivery gives false, and so does any fault on the way.
 */
bool lite_fast_event(struct lite_vcpu *c, const struct x86_event *ev);
/** 0 */
bool lite_fast_swapgs(struct lite_vcpu *c, unsigned len);
/** 0 */
bool lite_fast_cli(struct lite_vcpu *c, unsigned len);
/**
 * LITE_AFTER_EVENTS. The shadow of an STI that set IF: c->sti_rip names the instruction behind it, and who returns to the run loop before
 * that has run finds the shadow there (lite_shadow_home()); vcpu->x86.shadow stays 0.
 */
bool lite_fast_sti(struct lite_vcpu *c, unsigned len);
/** PUSHFQ: 0. POPFQ: LITE_AFTER_EVENTS. */
bool lite_fast_pushf(struct lite_vcpu *c, unsigned len);
bool lite_fast_popf(struct lite_vcpu *c, unsigned len);

/**
 * MOVS, STOS, LODS, CMPS, SCAS (strings.c). Also for 32-bit code with flat segments, whose blocks' rules are then the caller's. True with RIP
 * where it was: a part is done, as if an interrupt had come in between two elements; the run loop has to look, then the instruction goes on.
 * May have waited for other vCPUs: lite_vcpu.blocks_count.
 */
bool lite_fast_string(struct lite_vcpu *c, const struct insn *in);

/* ---- any: by decoded instruction -------------------------------------------------------------------------------- */

typedef bool lite_fast_fn(struct lite_vcpu *c, const struct insn *insn);
/**
 * The function for @insn (64-bit code; strings: 32-bit code too), or NULL; *@after: LITE_AFTER_*. Also for those above. The function keeps no pointer to the insn it
 * is called with, which has to be the same instruction.
 */
lite_fast_fn *lite_fast_lookup(const struct insn *insn, unsigned *after);

/* ---- afterwards ------------------------------------------------------------------------------------------------- */

#define LITE_STI_NONE LITE_JUMP_NONE

/** Whether something waits that RFLAGS.IF, the CPL or a shadow may have held back: return to the run loop. */
static inline bool lite_events_due(struct lite_vcpu *c)
{
	return c->window_irq | c->window_nmi | (__atomic_load_n(&c->budget, __ATOMIC_RELAXED) < 0) |
	       !!(c->vcpu.x86.rflags & RFLAGS_TF) | !!c->vcpu.x86.shadow | vcpu_must_exit(&c->vcpu);
}

/**
 * The STI that lite_fast_sti() did last shadows the instruction at RIP: says so in vcpu->x86. RIP is home. That this very instruction
 * ran already and was come back to cannot be told apart, and delays an interrupt by one instruction, once.
 */
static inline void lite_shadow_home(struct lite_vcpu *c)
{
	if (unlikely(c->sti_rip == c->vcpu.x86.rip))
		c->vcpu.x86.shadow |= SHADOW_STI;
	c->sti_rip = LITE_STI_NONE;
}

/** As lite_refresh() where nothing changed but CS, SS and CPL since the last. */
static inline void lite_refresh_cpl(struct lite_vcpu *c)
{
	struct lite_view *view = &c->views[c->vcpu.x86.cpl == 3];
	u32 mode = c->vcpu.x86.mode;

	if (unlikely(mode != X86_MODE_LONG || view->code_mode != mode)) {
		lite_refresh(c);
		return;
	}
	c->code_mode = mode;
	c->view = view;
}

#endif
