/*
 * Code that keeps being patched. A page of it is not guarded against stores (see block.c): each block of it looks, when it is entered, whether
 * the guest's memory still holds what it was made from, and goes to C if not.
 *
 *	T2 = host address of the block's code, by the same check as of any access (jit_mem.c)
 *	the flags are kept, the bytes compared, the flags brought back if they are live
 *
 * So it is exact when the code was changed before the block is entered, by whomever: this vCPU, another one, the client. Within a block nothing
 * changes but by another vCPU, which the architecture leaves open until there was a serializing instruction: what stores to memory, or
 * is done by C, ends the block, and the next one looks again.
 *
 * Who patches mostly changes an immediate. Where that can be read like any operand, it is: from [T2 + constant], each time. Then it need not be
 * compared, and one translation serves for every value. T2 may be wanted by an instruction in between; the next immediate then checks again.
 *
 *	48 05 xx xx xx xx	add rax, imm32		cmp word [T2], 0x0548; jne ...; movsxd T1, [T2 + 2]; add rax, T1
 */
#include "engines/lite/jit.h"

bool jit_check_ends(const struct jit_insn *j)
{
	const struct insn *insn = &j->insn;
	unsigned after;

	if (insn->has_mem && (insn->mem.access & OPA_WRITE))
		return true;
	if (j->use.implied_mem && insn->mnemonic != MN_POP && insn->mnemonic != MN_LEAVE)
		return true;
	return lite_fast_lookup(insn, &after);
}

/* ---- the comparison ---------------------------------------------------------------------------------------------------- */

/* T2 = where the block's code is, as a group of accesses: who wants T2 for something else ends it. */
static void code_at_t2(struct jit_block *b)
{
	struct lite_emit *e = &b->e;

	if (b->group.active)
		return;
	e_load(e, true, T0, HOST_RSP, VCPU(vpage));
	e_lea(e, !b->is32, T0, T0, b->from);
	jit_access(b, b->to - b->from, false);
	/* What cannot be read may be executed all the same: a fault is the emulator's to find. */
	b->cold[b->ncold - 1].masked = true;
	e_mov(e, true, T2, T0);
	b->group = (struct jit_group){ true, false, { JIT_BASE_PAGE, INSN_REG_NONE, 0, 0 }, b->from, b->to };
}

static void differs(struct jit_block *b)
{
	u8 *field = e_jcc(&b->e, CC_NE);

	if (b->nr_differ == ARRAY_SIZE(b->differ))
		b->e.full = true;
	else
		b->differ[b->nr_differ++] = field;
}

/* Offsets @at to @end of the page. */
static void compare(struct jit_block *b, unsigned at, unsigned end)
{
	struct lite_emit *e = &b->e;
	unsigned n;

	for (; at < end; at += n) {
		s32 disp = (s32)at - b->from;
		u64 v = 0;

		n = end - at >= 8 ? 8 : end - at >= 4 ? 4 : end - at >= 2 ? 2 : 1;
		memcpy(&v, b->page + at, n);
		if (n == 8) {
			e_mov_imm64(e, T1, v);
			e_op_m(e, true, 0x39, T1, T2, disp);
		} else {
			if (n == 2)
				e_u8(e, 0x66);
			e_op_m(e, false, n == 1 ? 0x80 : 0x81, 7, T2, disp);
			e_bytes(e, &v, n);
		}
		differs(b);
	}
}

void jit_emit_check(struct jit_block *b)
{
	struct jit_insn *j = b->cur = &b->insns[0];
	unsigned at = b->from;
	u8 live = j->live;

	/* Not only those that this code needs: it may be no longer what is there. */
	j->live = LITE_FL_ALL;
	code_at_t2(b);
	j->live = live;
	jit_flags_to(&b->e, T1, VCPU(jit.code_fl));
	for (unsigned i = 0; i < b->n; i++) {
		j = &b->insns[i];
		if (!j->reads_imm)
			continue;
		compare(b, at, j->off + j->insn.imm_off);
		at = j->off + j->insn.len;
	}
	compare(b, at, b->to);
	if (live)
		jit_flags_from(&b->e, T1, VCPU(jit.code_fl));
}

void jit_emit_check_differs(struct jit_block *b)
{
	for (unsigned i = 0; i < b->nr_differ; i++)
		e_here(&b->e, b->differ[i]);
	jit_flags_from(&b->e, T1, VCPU(jit.code_fl));
}

void jit_check_bytes(const struct jit_block *b, u8 *out)
{
	unsigned n = b->to - b->from;

	memcpy(out, b->page + b->from, n);
	memset(out + n, 0xff, n);
	for (unsigned i = 0; i < b->n; i++) {
		const struct jit_insn *j = &b->insns[i];

		if (j->reads_imm)
			memset(out + n + (j->off - b->from) + j->insn.imm_off, 0, j->insn.imm_size);
	}
}

/* ---- immediates that are read -------------------------------------------------------------------------------------------- */

/* The number in the opcodes of ADD to CMP; 8: TEST, 9: MOV; -1: none of these. */
enum { OP_CMP = 7, OP_TEST, OP_MOV };
static int op_of(const struct insn *insn)
{
	switch (insn->mnemonic) {
	case MN_ADD: return 0;
	case MN_OR: return 1;
	case MN_ADC: return 2;
	case MN_SBB: return 3;
	case MN_AND: return 4;
	case MN_SUB: return 5;
	case MN_XOR: return 6;
	case MN_CMP: return OP_CMP;
	case MN_TEST: return OP_TEST;
	case MN_MOV: return OP_MOV;
	default: return -1;
	}
}

static bool can_read_imm(const struct insn *insn)
{
	const struct operand *o = &insn->op[0];

	if (insn->encoding != INSN_ENC_LEGACY || insn->lock || !insn->imm_size || insn->imm2_size || insn->imm_off + insn->imm_size != insn->len)
		return false;
	if (insn->mnemonic == MN_PUSH)
		return o->kind == OPK_IMM && !insn->pfx66;
	return op_of(insn) >= 0 && insn->nops == 2 && (o->kind == OPK_GPR || o->kind == OPK_MEM) && insn->op[1].kind == OPK_IMM;
}

void jit_check_plan(struct jit_block *b)
{
	for (unsigned i = 0; i < b->n; i++)
		b->insns[i].reads_imm = b->insns[i].insn.len && can_read_imm(&b->insns[i].insn);
}

/* T1 = the immediate of @n bytes at [T2 + @at], as an operand of @size bytes. */
static void load_imm(struct lite_emit *e, unsigned size, unsigned n, s32 at)
{
	bool w = size == 8;

	if (n >= 4) {
		e_op_m(e, w, n == 4 && w ? 0x63 : 0x8b, T1, T2, at);
		return;
	}
	e_rex(e, w, T1, 0, T2);
	e_u8(e, 0x0f);
	e_u8(e, n == 1 ? 0xbe : 0xbf);
	e_mem(e, T1, T2, at);
}

/* The opcode of @op r/m, r of @size bytes; @load: of @op r, r/m. TEST has the former only, which is as good. */
static u8 opcode(int op, unsigned size, bool load)
{
	u8 code = op == OP_MOV ? 0x88 : op == OP_TEST ? 0x84 : (u8)(op << 3);

	return code | (load && op != OP_TEST ? 2 : 0) | (size > 1);
}

bool jit_emit_imm(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	const struct operand *o = &insn->op[0];
	unsigned size = o->size, n = insn->imm_size, to;
	struct lite_emit *e = &b->e;
	struct jit_place place;
	int op = op_of(insn);
	s32 at;

	code_at_t2(b);
	at = b->cur->off + insn->imm_off - b->from;
	if (insn->mnemonic == MN_PUSH) {
		size = b->is32 ? 4 : 8;
		jit_stack(b, -(s32)size, size, true, &place);
		load_imm(e, size, n, at);
		e_store(e, size == 8, T1, place.base, place.disp);
		e_lea(e, size == 8, GSP, GSP, -(s32)size);
		return true;
	}
	if (o->kind == OPK_MEM) {
		if (!insn->mem.size || !jit_operand(b, insn, size, insn->mem.access & OPA_WRITE, &place))
			return false;
		load_imm(e, size, n, at);
		if (size == 2)
			e_u8(e, 0x66);
		e_op_m(e, size == 8, opcode(op, size, false), T1, place.base, place.disp);
		return true;
	}
	to = jit_displaced(o->reg) ? T0 : jit_reg(o->reg);
	if (to == T0 && (op != OP_MOV || size < 4))
		e_load(e, true, T0, HOST_RSP, VCPU_GPR(o->reg));
	if (n != size)
		load_imm(e, size, n, at);
	if (size == 2)
		e_u8(e, 0x66);
	/* T1 and T2 need a REX prefix, with which 4 to 7 are the low bytes of registers. */
	if (n != size)
		e_op_r(e, size == 8, opcode(op, size, true), op == OP_TEST ? T1 : to, op == OP_TEST ? to : T1);
	else
		e_op_m(e, size == 8, opcode(op, size, true), to, T2, at);
	if (to == T0 && op != OP_CMP && op != OP_TEST)
		e_store(e, true, T0, HOST_RSP, VCPU_GPR(o->reg));
	return true;
}
