/*
 * Data movement: MOV and its kin, the stack instructions, conversions, flags as data (SDM 2A, 2B).
 */
#include "core/x86/emul/emul_priv.h"

/* MOV, MOVZX, MOVNTI, MOVDIRI */
enum x86_result emul_mov(struct emul *e, const struct insn *in)
{
	u64 v;

	EMUL_TRY(emul_get(e, in, 1, &v));
	return emul_put(e, in, 0, v);
}

/* MOVSX, MOVSXD */
enum x86_result emul_movsx(struct emul *e, const struct insn *in)
{
	u64 v;

	EMUL_TRY(emul_get(e, in, 1, &v));
	emul_put_reg(e, &in->op[0], sign_extend(v, 8 * in->op[1].size));
	return X86_CONTINUE;
}

enum x86_result emul_movbe(struct emul *e, const struct insn *in)
{
	u64 v;

	EMUL_TRY(emul_get(e, in, 1, &v));
	return emul_put(e, in, 0, __builtin_bswap64(v) >> (64 - 8 * in->op[0].size));
}

/* 64 bytes in one store; the destination is ES:register, aligned (SDM 2B MOVDIR64B). */
enum x86_result emul_movdir64b(struct emul *e, const struct insn *in)
{
	u64 dst = emul_get_gpr(e->s, in->op[0].reg, in->addrsize), src_la, dst_la;
	u8 buf[64];

	EMUL_TRY(emul_mem_la(e, in, 64, false, &src_la));
	EMUL_TRY(emul_linear(e, SEG_ES, dst, 64, true, &dst_la));
	if (dst_la & 63)
		return emul_fault_code(e, VEC_GP, 0);
	EMUL_TRY(emul_read(e, src_la, buf, 64, 0));
	return emul_write(e, dst_la, buf, 64, 0);
}

enum x86_result emul_lea(struct emul *e, const struct insn *in)
{
	emul_put_reg(e, &in->op[0], emul_effective_address(e, in));
	return X86_CONTINUE;
}

/* With memory always locked (SDM 2B XCHG). */
enum x86_result emul_xchg(struct emul *e, const struct insn *in)
{
	const struct operand *dst = &in->op[0];
	u64 a, b, la;
	bool done;

	EMUL_TRY(emul_get(e, in, 1, &b));
	if (dst->kind != OPK_MEM) {
		EMUL_TRY(emul_get(e, in, 0, &a));
		emul_put_reg(e, dst, b);
	} else {
		EMUL_TRY(emul_mem_la(e, in, dst->size, true, &la));
		EMUL_TRY(emul_read_int(e, la, dst->size, EMUL_ACC_RMW | EMUL_ACC_LOCKED, &a));
		do
			EMUL_TRY(emul_done(e, e->ops->cmpxchg(e, la, &a, &b, dst->size,
							      EMUL_ACC_LOCKED, &done)));
		while (!done);
	}
	emul_put_reg(e, &in->op[1], a);
	return X86_CONTINUE;
}

enum x86_result emul_xlat(struct emul *e, const struct insn *in)
{
	unsigned seg = in->seg_override != INSN_SEG_NONE ? in->seg_override : SEG_DS;
	u64 ea = (e->s->gpr[REG_BX] + (u8)e->s->gpr[REG_AX]) & emul_mask(in->addrsize), la, v;

	EMUL_TRY(emul_linear(e, seg, ea, 1, false, &la));
	EMUL_TRY(emul_read_int(e, la, 1, 0, &v));
	emul_put_gpr(e->s, REG_AX, 1, v);
	return X86_CONTINUE;
}

/* The source is read, and 32-bit destinations lose their upper half, whatever the condition. */
enum x86_result emul_cmovcc(struct emul *e, const struct insn *in)
{
	const struct operand *dst = &in->op[0];
	u64 v;

	EMUL_TRY(emul_get(e, in, 1, &v));
	if (!emul_condition(e->s->rflags, in->cond))
		v = emul_get_gpr(e->s, dst->reg, dst->size);
	emul_put_reg(e, dst, v);
	return X86_CONTINUE;
}

enum x86_result emul_setcc(struct emul *e, const struct insn *in)
{
	return emul_put(e, in, 0, emul_condition(e->s->rflags, in->cond));
}

/* CBW, CWDE, CDQE */
enum x86_result emul_cbw(struct emul *e, const struct insn *in)
{
	emul_put_gpr(e->s, REG_AX, in->opsize, sign_extend(e->s->gpr[REG_AX], 4 * in->opsize));
	return X86_CONTINUE;
}

/* CWD, CDQ, CQO */
enum x86_result emul_cwd(struct emul *e, const struct insn *in)
{
	bool negative = e->s->gpr[REG_AX] & emul_sign(in->opsize);

	emul_put_gpr(e->s, REG_DX, in->opsize, negative ? ~0ULL : 0);
	return X86_CONTINUE;
}

enum x86_result emul_salc(struct emul *e, const struct insn *in)
{
	emul_put_gpr(e->s, REG_AX, 1, e->s->rflags & RFLAGS_CF ? 0xff : 0);
	return X86_CONTINUE;
}

enum x86_result emul_lahf(struct emul *e, const struct insn *in)
{
	u64 f = (e->s->rflags & (RFLAGS_ARITH & 0xff)) | RFLAGS_ONE;

	e->s->gpr[REG_AX] = (e->s->gpr[REG_AX] & ~0xff00ULL) | f << 8;
	return X86_CONTINUE;
}

enum x86_result emul_sahf(struct emul *e, const struct insn *in)
{
	emul_set_flags(e->s, (u8)(e->s->gpr[REG_AX] >> 8), RFLAGS_ARITH & 0xff);
	return X86_CONTINUE;
}

enum x86_result emul_clc(struct emul *e, const struct insn *in)
{
	e->s->rflags &= ~RFLAGS_CF;
	return X86_CONTINUE;
}

enum x86_result emul_stc(struct emul *e, const struct insn *in)
{
	e->s->rflags |= RFLAGS_CF;
	return X86_CONTINUE;
}

enum x86_result emul_cmc(struct emul *e, const struct insn *in)
{
	e->s->rflags ^= RFLAGS_CF;
	return X86_CONTINUE;
}

enum x86_result emul_cld(struct emul *e, const struct insn *in)
{
	e->s->rflags &= ~RFLAGS_DF;
	return X86_CONTINUE;
}

enum x86_result emul_std(struct emul *e, const struct insn *in)
{
	e->s->rflags |= RFLAGS_DF;
	return X86_CONTINUE;
}

/* ---- stack ---------------------------------------------------------------------------------- */

enum x86_result emul_push_insn(struct emul *e, const struct insn *in)
{
	u64 v;

	EMUL_TRY(emul_get(e, in, 0, &v));
	return emul_push(e, in->opsize, v);
}

/* The address of a memory destination is computed after SP moved; POP SP keeps what was popped (SDM
 * 2B POP). */
enum x86_result emul_pop_insn(struct emul *e, const struct insn *in)
{
	u64 v, la, sp = e->s->gpr[REG_SP];
	enum x86_result r;

	EMUL_TRY(emul_peek(e, 0, in->opsize, &v));
	emul_add_sp(e->s, in->opsize);
	if (in->op[0].kind != OPK_MEM) {
		emul_put_reg(e, &in->op[0], v);
		return X86_CONTINUE;
	}
	r = emul_mem_la(e, in, in->opsize, true, &la);
	if (r == X86_CONTINUE)
		r = emul_write(e, la, &v, in->opsize, 0);
	if (r != X86_CONTINUE)
		e->s->gpr[REG_SP] = sp;
	return r;
}

enum x86_result emul_pusha(struct emul *e, const struct insn *in)
{
	struct emul_frame f;
	unsigned i;

	emul_frame_init(e, &f, in->opsize);
	for (i = REG_AX; i <= REG_DI; i++)
		emul_frame_push(&f, e->s->gpr[i]);
	EMUL_TRY(emul_frame_commit(e, &f));
	emul_set_sp(e->s, f.width, f.sp);
	return X86_CONTINUE;
}

enum x86_result emul_popa(struct emul *e, const struct insn *in)
{
	u64 v[8];
	unsigned i;

	for (i = 0; i < 8; i++)
		EMUL_TRY(emul_peek(e, i * in->opsize, in->opsize, &v[REG_DI - i]));
	for (i = REG_AX; i <= REG_DI; i++)
		if (i != REG_SP)
			emul_put_gpr(e->s, i, in->opsize, v[i]);
	emul_add_sp(e->s, 8 * in->opsize);
	return X86_CONTINUE;
}

/* VM and RF are pushed as zero; virtual-8086 mode below IOPL 3 shows VIF for IF with VME (SDM 2B
 * PUSHF, 3B 20.3). */
enum x86_result emul_pushf(struct emul *e, const struct insn *in)
{
	const struct x86_state *s = e->s;
	u64 f = s->rflags & ~(RFLAGS_VM | RFLAGS_RF);

	if (s->mode == X86_MODE_V86 && emul_iopl(s) < 3) {
		if (!(s->cr4 & CR4_VME) || in->opsize != 2)
			return emul_fault_code(e, VEC_GP, 0);
		f = (f & ~RFLAGS_IF) | RFLAGS_IOPL | emul_flag(f & RFLAGS_VIF, RFLAGS_IF);
	}
	return emul_push(e, in->opsize, f);
}

#define POPF_16 (RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)
#define POPF_32 (POPF_16 | RFLAGS_AC | RFLAGS_ID)

/* SDM 2B POPF, table 4-16 */
enum x86_result emul_popf(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	u64 f, mask = in->opsize == 2 ? POPF_16 : POPF_32;

	if (s->mode == X86_MODE_V86 && emul_iopl(s) < 3) {
		if (!(s->cr4 & CR4_VME) || in->opsize != 2)
			return emul_fault_code(e, VEC_GP, 0);
		EMUL_TRY(emul_peek(e, 0, 2, &f));
		if ((f & RFLAGS_TF) || ((f & RFLAGS_IF) && (s->rflags & RFLAGS_VIP)))
			return emul_fault_code(e, VEC_GP, 0);
		f |= emul_flag(f & RFLAGS_IF, RFLAGS_VIF);
		mask |= RFLAGS_VIF;
	} else {
		EMUL_TRY(emul_peek(e, 0, in->opsize, &f));
		if (s->cpl == 0)
			mask |= RFLAGS_IOPL;
		if (s->cpl <= emul_iopl(s))
			mask |= RFLAGS_IF;
	}
	emul_add_sp(s, in->opsize);
	emul_set_flags(s, f, mask);
	return X86_CONTINUE;
}

/*
 * SDM 2A ENTER. Frame pointers of the outer levels are copied one by one and may lie where ENTER
 * itself pushes, so the copies cannot be collected: all accesses are probed first, then made in
 * order. The final SP must be writable.
 */
enum x86_result emul_enter(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	unsigned size = in->opsize, level = in->imm2 & 31, width = emul_stack_size(s),
		 pushes = level ? level + 1 : 1, i;
	u64 mask = emul_mask(width), sp = s->gpr[REG_SP] & mask, bp = s->gpr[REG_BP] & mask;
	u64 frame = (sp - size) & mask, final = (sp - pushes * size - (u16)in->imm) & mask, v, from,
	    to;

	for (i = 0; i < pushes; i++) {
		if (i && i < level) {
			EMUL_TRY(
				emul_linear(e, SEG_SS, (bp - i * size) & mask, size, false, &from));
			EMUL_TRY(e->ops->probe(e, from, size, false, 0));
		}
		EMUL_TRY(emul_linear(e, SEG_SS, (sp - (i + 1) * size) & mask, size, true, &to));
		EMUL_TRY(e->ops->probe(e, to, size, true, 0));
	}
	EMUL_TRY(emul_linear(e, SEG_SS, final, size, true, &to));
	EMUL_TRY(e->ops->probe(e, to, size, true, 0));

	for (i = 0; i < pushes; i++) {
		v = i ? frame : s->gpr[REG_BP];
		if (i && i < level) {
			EMUL_TRY(
				emul_linear(e, SEG_SS, (bp - i * size) & mask, size, false, &from));
			EMUL_TRY(emul_read_int(e, from, size, 0, &v));
		}
		EMUL_TRY(emul_linear(e, SEG_SS, (sp - (i + 1) * size) & mask, size, true, &to));
		EMUL_TRY(emul_write(e, to, &v, size, 0));
	}
	emul_put_gpr(s, REG_BP, size, frame);
	emul_set_sp(s, width, final);
	return X86_CONTINUE;
}

enum x86_result emul_leave(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	unsigned width = emul_stack_size(s);
	u64 bp = emul_get_gpr(s, REG_BP, width), la, v;

	EMUL_TRY(emul_linear(e, SEG_SS, bp, in->opsize, false, &la));
	EMUL_TRY(emul_read_int(e, la, in->opsize, 0, &v));
	emul_set_sp(s, width, bp + in->opsize);
	emul_put_gpr(s, REG_BP, in->opsize, v);
	return X86_CONTINUE;
}
