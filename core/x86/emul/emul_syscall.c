/*
 * The fast system calls: SYSCALL and SYSRET, SYSENTER and SYSEXIT (SDM 2B, SDM 3A 5.8.7, 5.8.8).
 * They load fixed flat segments without reading descriptors.
 */
#include "core/x86/emul/emul_priv.h"

/* Code: execute, read, accessed; data: read, write, accessed. */
static void flat_code(struct x86_state *s, u16 sel, unsigned dpl, bool wide)
{
	s->seg[SEG_CS] = (struct x86_segment){
		.sel = sel,
		.limit = ~0U,
		.ar = 11 | AR_S | AR_P | AR_G | dpl << AR_DPL_SHIFT | (wide ? AR_L : AR_DB),
	};
}

static void flat_stack(struct x86_state *s, u16 sel, unsigned dpl)
{
	s->seg[SEG_SS] = (struct x86_segment){
		.sel = sel,
		.limit = ~0U,
		.ar = 3 | AR_S | AR_P | AR_G | AR_DB | dpl << AR_DPL_SHIFT,
	};
}

/* Intel has it in 64-bit mode alone; AMD also in compatibility mode, to CSTAR, and outside long
 * mode (APM 3 SYSCALL). */
enum x86_result emul_syscall(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	u16 sel = (s->star >> 32) & 0xfffc;

	if (!(s->efer & EFER_SCE) || !emul_protected(s))
		return emul_fault(e, VEC_UD);
	if (s->mode != X86_MODE_LONG && !emul_vendor_amd(e))
		return emul_fault(e, VEC_UD);
	s->gpr[REG_CX] = e->next_rip;
	if (emul_long_active(s)) {
		s->gpr[REG_R11] = s->rflags & ~RFLAGS_RF;
		e->next_rip = s->mode == X86_MODE_LONG ? s->lstar : s->cstar;
		s->rflags = (s->rflags & ~s->sfmask & ~RFLAGS_RF) | RFLAGS_ONE;
		flat_code(s, sel, 0, true);
	} else {
		e->next_rip = (u32)s->star;
		s->rflags &= ~(RFLAGS_IF | RFLAGS_RF | RFLAGS_VM);
		flat_code(s, sel, 0, false);
	}
	flat_stack(s, sel + 8, 0);
	emul_mode_changed(e);
	/* A single-step trap follows if TF survived the mask. */
	e->tf_at_start = s->rflags & RFLAGS_TF;
	return X86_CONTINUE;
}

#define SYSRET_FLAGS 0x3c7fd7ULL

enum x86_result emul_sysret(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	u16 sel = (s->star >> 48) | 3;
	bool wide = in->opsize == 8;

	if (!(s->efer & EFER_SCE) || !emul_protected(s))
		return emul_fault(e, VEC_UD);
	if (s->mode != X86_MODE_LONG && !emul_vendor_amd(e))
		return emul_fault(e, VEC_UD);
	if (s->cpl)
		return emul_fault_code(e, VEC_GP, 0);
	/* Still at privilege 0, as on Intel's processors. */
	if (wide && !emul_canonical(s, s->gpr[REG_CX]))
		return emul_fault_code(e, VEC_GP, 0);
	e->next_rip = wide ? s->gpr[REG_CX] : (u32)s->gpr[REG_CX];
	if (emul_long_active(s)) {
		s->rflags = (s->gpr[REG_R11] & SYSRET_FLAGS) | RFLAGS_ONE;
		/* RF comes from R11 and is cleared like any (SDM 2B SYSRET); VM cannot be set. */
		flat_code(s, wide ? sel + 16 : sel, 3, wide);
	} else {
		s->rflags |= RFLAGS_IF;
		flat_code(s, sel, 3, false);
	}
	flat_stack(s, sel + 8, 3);
	emul_mode_changed(e);
	return X86_CONTINUE;
}

enum x86_result emul_sysenter(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	u16 sel = s->sysenter_cs & 0xfffc;
	bool wide = emul_long_active(s);

	if (wide && emul_vendor_amd(e))
		return emul_fault(e, VEC_UD);
	if (s->mode == X86_MODE_REAL || !sel)
		return emul_fault_code(e, VEC_GP, 0);
	s->rflags &= ~(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
	flat_code(s, sel, 0, wide);
	flat_stack(s, sel + 8, 0);
	s->gpr[REG_SP] = wide ? s->sysenter_esp : (u32)s->sysenter_esp;
	e->next_rip = wide ? s->sysenter_eip : (u32)s->sysenter_eip;
	emul_mode_changed(e);
	return X86_CONTINUE;
}

enum x86_result emul_sysexit(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	u16 sel = s->sysenter_cs & 0xfffc;
	bool wide = in->opsize == 8;
	u64 rip = s->gpr[REG_DX], rsp = s->gpr[REG_CX];

	if (emul_long_active(s) && emul_vendor_amd(e))
		return emul_fault(e, VEC_UD);
	if (s->mode == X86_MODE_REAL || s->cpl || !sel)
		return emul_fault_code(e, VEC_GP, 0);
	if (wide && (!emul_canonical(s, rip) || !emul_canonical(s, rsp)))
		return emul_fault_code(e, VEC_GP, 0);
	flat_code(s, (sel + (wide ? 32 : 16)) | 3, 3, wide);
	flat_stack(s, (sel + (wide ? 40 : 24)) | 3, 3);
	s->gpr[REG_SP] = wide ? rsp : (u32)rsp;
	e->next_rip = wide ? rip : (u32)rip;
	emul_mode_changed(e);
	return X86_CONTINUE;
}

enum x86_result emul_rsm(struct emul *e, const struct insn *in)
{
	if (!e->s->smm)
		return emul_fault(e, VEC_UD);
	EMUL_TRY(emul_done(e, e->ops->rsm(e)));
	/* Everything was replaced, RIP and the interrupt shadow too. */
	e->next_rip = e->s->rip;
	e->after |= EMUL_AFTER_KEEP_RF | e->s->shadow;
	e->tf_at_start = false;
	return X86_CONTINUE;
}
