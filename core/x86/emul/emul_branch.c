/*
 * Near branches, BOUND and the undefined instructions.
 */
#include "core/x86/emul/emul_priv.h"

enum x86_result emul_branch(struct emul *e, unsigned size, u64 target)
{
	const struct x86_state *s = e->s;

	if (s->mode == X86_MODE_LONG) {
		target &= emul_mask(size);
		if (!emul_canonical(s, target))
			return emul_fault_code(e, VEC_GP, 0);
	} else {
		target &= emul_mask(size == 2 ? 2 : 4);
		if (target > s->seg[SEG_CS].limit)
			return emul_fault_code(e, VEC_GP, 0);
	}
	e->next_rip = target;
	return X86_CONTINUE;
}

static enum x86_result relative(struct emul *e, const struct insn *in)
{
	return emul_branch(e, in->opsize, e->next_rip + in->imm);
}

enum x86_result emul_jcc(struct emul *e, const struct insn *in)
{
	return emul_condition(e->s->rflags, in->cond) ? relative(e, in) : X86_CONTINUE;
}

enum x86_result emul_jcxz(struct emul *e, const struct insn *in)
{
	return emul_get_gpr(e->s, REG_CX, in->addrsize) ? X86_CONTINUE : relative(e, in);
}

/* LOOP, LOOPE, LOOPNE */
enum x86_result emul_loop(struct emul *e, const struct insn *in)
{
	u64 count = (e->s->gpr[REG_CX] - 1) & emul_mask(in->addrsize);
	bool zf = e->s->rflags & RFLAGS_ZF, taken = count != 0;

	if (in->mnemonic == MN_LOOPE)
		taken = taken && zf;
	else if (in->mnemonic == MN_LOOPNE)
		taken = taken && !zf;
	if (taken)
		EMUL_TRY(relative(e, in));
	emul_put_gpr(e->s, REG_CX, in->addrsize, count);
	return X86_CONTINUE;
}

static enum x86_result target_of(struct emul *e, const struct insn *in, u64 *target)
{
	if (in->op[0].kind != OPK_REL)
		return emul_get(e, in, 0, target);
	* target = e->next_rip + in->imm;
	return X86_CONTINUE;
}

enum x86_result emul_jmp_near(struct emul *e, const struct insn *in)
{
	u64 target;

	EMUL_TRY(target_of(e, in, &target));
	return emul_branch(e, in->opsize, target);
}

enum x86_result emul_call_near(struct emul *e, const struct insn *in)
{
	u64 target, next = e->next_rip;

	EMUL_TRY(target_of(e, in, &target));
	EMUL_TRY(emul_branch(e, in->opsize, target));
	return emul_push(e, in->opsize, next);
}

enum x86_result emul_ret_near(struct emul *e, const struct insn *in)
{
	u64 target;

	EMUL_TRY(emul_peek(e, 0, in->opsize, &target));
	EMUL_TRY(emul_branch(e, in->opsize, target));
	emul_add_sp(e->s, in->opsize + (in->nops ? (u16)in->imm : 0));
	return X86_CONTINUE;
}

/* The two bounds are signed and lie side by side. */
enum x86_result emul_bound(struct emul *e, const struct insn *in)
{
	unsigned size = in->opsize, bits = 8 * size;
	s64 index = sign_extend(e->s->gpr[in->op[0].reg], bits);
	u64 la, v = 0;

	EMUL_TRY(emul_mem_la(e, in, 2 * size, false, &la));
	EMUL_TRY(emul_read(e, la, &v, 2 * size, 0));
	if (index < sign_extend(v, bits) || index > sign_extend(v >> bits, bits))
		return emul_fault(e, VEC_BR);
	return X86_CONTINUE;
}

/* UD0, UD1, UD2 */
enum x86_result emul_ud(struct emul *e, const struct insn *in)
{
	return emul_fault(e, VEC_UD);
}
