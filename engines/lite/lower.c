/*
 * From a decoded instruction to an op: which handler serves it, with its operands as offsets. What has no handler, or
 * stands in code whose segments are not flat, becomes lite_op_insn, which gives the decoded instruction to the emulator.
 */
#include "engines/lite/native.h"
#include "engines/lite/system.h"

enum { CODE_64, CODE_32, CODE_OTHER };

static int code_kind(u32 mode)
{
	if (mode == X86_MODE_LONG)
		return CODE_64;
	return mode == (X86_MODE_PROT32 | LITE_MODE_FLAT) ? CODE_32 : CODE_OTHER;
}

static int size_index(unsigned size)
{
	switch (size) {
	case 1: return SZ_8;
	case 2: return SZ_16;
	case 4: return SZ_32;
	case 8: return SZ_64;
	default: return -1;
	}
}

static u16 reg_offset(unsigned reg)
{
	return reg == INSN_REG_NONE ? LITE_OFFSET(zero) : GPR_OFFSET(reg);
}

/* The register operand as an offset; 0: it is none. */
static u16 operand_offset(const struct operand *o)
{
	if (o->kind == OPK_GPR)
		return GPR_OFFSET(o->reg);
	if (o->kind == OPK_GPR_HI)
		return GPR_OFFSET(o->reg & 3) + 1;
	return 0;
}

/* The memory operand into @op. Returns EA_KIND_*, or -1 when the fast handlers cannot form the address. */
int lite_lower_mem(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	const struct insn_mem *m = &insn->mem;
	int kind = code_kind(l->mode);
	s64 disp = m->disp;

	if (!insn->has_mem || m->vsib || kind == CODE_OTHER)
		return -1;
	op->index = reg_offset(m->index);
	op->shift = m->index == INSN_REG_NONE ? 0 : __builtin_ctz(m->scale ? m->scale : 1);
	op->base = reg_offset(m->base);
	op->seg = LITE_OFFSET(zero);
	if (kind == CODE_32) {
		/* A code segment is never writable. */
		if (insn->addrsize != 4 || m->seg == SEG_FS || m->seg == SEG_GS || (m->seg == SEG_CS && (m->access & OPA_WRITE)))
			return -1;
		op->disp = (s32)disp;
		return EA_KIND_E;
	}
	if (insn->addrsize != 8)
		return -1;
	if (m->rip_rel) {
		disp += op->off + op->len;
		op->base = LITE_OFFSET(vpage);
	}
	if (disp != (s32)disp)
		return -1;
	op->disp = (s32)disp;
	if (m->seg == SEG_FS || m->seg == SEG_GS) {
		op->seg = LITE_OFFSET(vcpu.x86.seg) + m->seg * sizeof(struct x86_segment) +
			  offsetof(struct x86_segment, base);
		return EA_KIND_X;
	}
	return m->index == INSN_REG_NONE ? EA_KIND_D : EA_KIND_X;
}

static const u8 form_rm[] = { FORM_RM_D, FORM_RM_X, FORM_RM_E };
static const u8 form_mr[] = { FORM_MR_D, FORM_MR_X, FORM_MR_E };
static const u8 form_mi[] = { FORM_MI_D, FORM_MI_X, FORM_MI_E };
static const u8 form_lmr[] = { FORM_LMR_X, FORM_LMR_X, FORM_LMR_E };
static const u8 form_lmi[] = { FORM_LMI_X, FORM_LMI_X, FORM_LMI_E };

/* Two operands, the second of which may be an immediate: which form, with the op filled in. -1: none. */
static int two_operands(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	const struct operand *a = &insn->op[0], *b = &insn->op[1];
	int ea;

	op->imm = (s32)insn->imm;
	op->r1 = operand_offset(a);
	op->r2 = operand_offset(b);
	if (op->r1 && op->r2)
		return FORM_RR;
	if (op->r1 && b->kind == OPK_IMM)
		return (s64)insn->imm == (s32)insn->imm || a->size <= 4 ? FORM_RI : -1;
	ea = lite_lower_mem(l, op, insn);
	if (ea < 0)
		return -1;
	if (op->r1 && b->kind == OPK_MEM)
		return form_rm[ea];
	if (op->r2 && a->kind == OPK_MEM)
		return insn->lock ? form_lmr[ea] : form_mr[ea];
	if (a->kind == OPK_MEM && b->kind == OPK_IMM)
		return insn->lock ? form_lmi[ea] : form_mi[ea];
	return -1;
}

static lite_handler *lower_alu(struct lite_lower *l, struct lite_op *op, const struct insn *insn, unsigned alu)
{
	int form = two_operands(l, op, insn), size = size_index(insn->op[0].size);

	if (form < 0 || size < 0)
		return NULL;
	/* TEST is symmetric; the decoder may give its register first. */
	if (alu == ALU_TEST && form >= FORM_MR_D && form <= FORM_MR_E) {
		op->r1 = op->r2;
		form = form - FORM_MR_D + FORM_RM_D;
	}
	return lite_alu_ops[alu][size][form];
}

static lite_handler *lower_mov(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	int size = size_index(insn->op[0].size), form;

	if (insn->op[0].kind == OPK_GPR && insn->op[1].kind == OPK_IMM && insn->op[0].size == 8 &&
	    (s64)insn->imm != (s32)insn->imm) {
		op->r1 = operand_offset(&insn->op[0]);
		op->imm64 = insn->imm;
		return lite_mov64_imm64;
	}
	form = two_operands(l, op, insn);
	return form < 0 || size < 0 || insn->lock ? NULL : lite_mov_ops[size][form];
}

/* Register or memory, as [0] or [1 + EA_KIND_*] of a table; @n is the operand. -1: neither. */
static int reg_or_mem(struct lite_lower *l, struct lite_op *op, const struct insn *insn, unsigned n, u16 *reg)
{
	int ea;

	*reg = operand_offset(&insn->op[n]);
	if (*reg)
		return 0;
	if (insn->op[n].kind != OPK_MEM)
		return -1;
	ea = lite_lower_mem(l, op, insn);
	return ea < 0 ? -1 : 1 + ea;
}

static lite_handler *lower_unary(struct lite_lower *l, struct lite_op *op, const struct insn *insn, unsigned un)
{
	int form = reg_or_mem(l, op, insn, 0, &op->r1), size = size_index(insn->op[0].size);

	return form < 0 || size < 0 || insn->lock ? NULL : lite_unary_ops[un][size][form];
}

static lite_handler *lower_shift(struct lite_lower *l, struct lite_op *op, const struct insn *insn, unsigned sh)
{
	int size = size_index(insn->op[0].size);

	op->r1 = operand_offset(&insn->op[0]);
	if (!op->r1 || size < 0)
		return NULL;
	if (insn->op[1].kind == OPK_GPR)
		return lite_shift_ops[sh][size][1];
	op->imm = (insn->op[1].kind == OPK_ONE ? 1 : insn->imm) & (size == SZ_64 ? 63 : 31);
	return op->imm ? lite_shift_ops[sh][size][0] : NULL;
}

static lite_handler *lower_movx(struct lite_lower *l, struct lite_op *op, const struct insn *insn, bool sign)
{
	int to = size_index(insn->op[0].size), form = reg_or_mem(l, op, insn, 1, &op->r2);
	unsigned from = insn->op[1].kind == OPK_MEM ? insn->mem.size : insn->op[1].size;

	op->r1 = operand_offset(&insn->op[0]);
	if (to < 0 || form < 0 || (from != 1 && from != 2))
		return NULL;
	return lite_movx_ops[sign][from == 2][to][form];
}

/* Destination register, source register or memory of one size. */
static int reg_rm(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	op->r1 = operand_offset(&insn->op[0]);
	return op->r1 ? reg_or_mem(l, op, insn, 1, &op->r2) : -1;
}

static lite_handler *lower_xchg(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	int size = size_index(insn->op[0].size), form = reg_or_mem(l, op, insn, 0, &op->r1);

	op->r2 = operand_offset(&insn->op[1]);
	if (!op->r2 && op->r1) { /* the memory operand came second */
		op->r2 = op->r1;
		form = reg_or_mem(l, op, insn, 1, &op->r1);
	}
	return form < 0 || size < 0 || !op->r2 ? NULL : lite_xchg_ops[size][form];
}

static lite_handler *lower_bt(struct lite_op *op, const struct insn *insn, unsigned n)
{
	int size = size_index(insn->op[0].size);

	op->r1 = operand_offset(&insn->op[0]);
	op->r2 = operand_offset(&insn->op[1]);
	op->imm = insn->imm & 63;
	if (!op->r1 || size < 0)
		return NULL;
	return lite_bt_ops[n][size][!op->r2];
}

static lite_handler *lower_count(struct lite_op *op, const struct insn *insn, unsigned n)
{
	int size = size_index(insn->op[0].size);

	op->r1 = operand_offset(&insn->op[0]);
	op->r2 = operand_offset(&insn->op[1]);
	return op->r1 && op->r2 && size >= 0 ? lite_count_ops[n][size] : NULL;
}

static lite_handler *lower_imul(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	int size = size_index(insn->op[0].size), form;

	if (insn->nops == 1 || insn->opcode == 0xf6 || insn->opcode == 0xf7) {
		op->r1 = operand_offset(&insn->op[0]);
		return insn->nops == 1 && op->r1 && size >= 0 ? lite_muldiv_ops[1][size] : NULL;
	}
	form = reg_rm(l, op, insn);
	if (form < 0 || size < 0)
		return NULL;
	if (insn->nops == 2)
		return lite_imul_ops[size][form];
	op->imm = (s32)insn->imm;
	return form == 0 ? lite_imul_imm_ops[size] : NULL;
}

static lite_handler *lower_muldiv(struct lite_op *op, const struct insn *insn, unsigned n)
{
	int size = size_index(insn->op[0].size);

	op->r1 = operand_offset(&insn->op[0]);
	return insn->nops == 1 && op->r1 && size >= 0 ? lite_muldiv_ops[n][size] : NULL;
}

static lite_handler *lower_rmw(struct lite_lower *l, struct lite_op *op, const struct insn *insn,
			       lite_handler *const table[SZ_COUNT][EA_KIND_COUNT])
{
	int size = size_index(insn->op[1].size), ea;

	op->r2 = operand_offset(&insn->op[1]);
	if (insn->op[0].kind != OPK_MEM || !op->r2 || size < 0)
		return NULL;
	ea = lite_lower_mem(l, op, insn);
	return ea < 0 ? NULL : table[size][ea];
}

/* ---- stack and branches ------------------------------------------------------------------------------------------ */

/* 0: 64-bit, 1: 32-bit flat, -1: the emulator's. */
static int width(struct lite_lower *l, const struct insn *insn, unsigned opsize)
{
	int kind = code_kind(l->mode);

	if (kind == CODE_64)
		return opsize == 8 ? 0 : -1;
	return kind == CODE_32 && opsize == 4 && insn->addrsize == 4 ? 1 : -1;
}

static bool branch_target(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	s64 target = (s64)op->off + op->len + (s64)insn->imm;

	if (insn->pfx66 || target != (s32)target)
		return false;
	op->disp = (s32)target;
	if (target >= 0 && target < 4096)
		op->flags |= LITE_OP_CHAINED;
	if (target <= op->off || target >= 4096)
		op->flags |= LITE_OP_BACKWARD;
	return true;
}

/* The op before the jump, if the pair has a handler of its own. The jump's op stays, as the description of its target. */
static void fuse(struct lite_lower *l, struct lite_op *jcc, unsigned cond)
{
	struct lite_op *op = jcc - 1;
	const struct insn *p = &l->prev;
	int size = size_index(p->op[0].size), kind = -1;
	bool reg = operand_offset(&p->op[0]), imm = p->op[1].kind == OPK_IMM, both = reg && operand_offset(&p->op[1]);

	if (!l->has_prev || size < 0 || p->lock || op->fn == lite_op_insn)
		return;
	switch (p->mnemonic) {
	case MN_CMP:
		kind = both ? FUSE_CMP_RR : reg && imm ? FUSE_CMP_RI : reg ? FUSE_CMP_RM : imm ? FUSE_CMP_MI : -1;
		break;
	case MN_TEST:
		kind = both ? FUSE_TEST_RR : reg && imm ? FUSE_TEST_RI : imm ? FUSE_TEST_MI : -1;
		break;
	case MN_ADD: kind = both ? FUSE_ADD_RR : reg && imm ? FUSE_ADD_RI : -1; break;
	case MN_SUB: kind = both ? FUSE_SUB_RR : reg && imm ? FUSE_SUB_RI : -1; break;
	case MN_AND: kind = reg && imm ? FUSE_AND_RI : -1; break;
	case MN_INC: kind = reg ? FUSE_INC : -1; break;
	case MN_DEC: kind = reg ? FUSE_DEC : -1; break;
	default: break;
	}
	if (kind < 0)
		return;
	/* Memory forms exist for the general 64-bit address only. */
	if (p->has_mem && code_kind(l->mode) != CODE_64)
		return;
	op->fn = lite_fused_ops[kind][size][cond];
}

static lite_handler *lower_push(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	int w = width(l, insn, insn->opsize);

	if (w < 0)
		return NULL;
	op->r1 = operand_offset(&insn->op[0]);
	if (op->r1)
		return lite_push_ops[w];
	op->imm = (s32)insn->imm;
	if (insn->op[0].kind == OPK_IMM)
		return lite_push_imm_ops[w];
	/* The push may alias its own operand's TLB entry only with a read and a write, which are apart. */
	return insn->op[0].kind == OPK_MEM && lite_lower_mem(l, op, insn) >= 0 ? lite_push_mem_ops[w] : NULL;
}

static lite_handler *lower_branch(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	int w = width(l, insn, code_kind(l->mode) == CODE_64 ? 8 : insn->opsize);

	if (w < 0)
		return NULL;
	switch (insn->mnemonic) {
	case MN_JCC:
		if (!branch_target(l, op, insn))
			return NULL;
		fuse(l, op, insn->cond & 15);
		return lite_jcc_ops[insn->cond & 15];
	case MN_JMP_NEAR:
	case MN_CALL_NEAR:
		l->ended = true;
		if (insn->op[0].kind == OPK_REL) {
			if (!branch_target(l, op, insn))
				return NULL;
			return insn->mnemonic == MN_JMP_NEAR ? lite_op_jump : lite_call_ops[w];
		}
		op->r1 = operand_offset(&insn->op[0]);
		if (op->r1)
			return insn->mnemonic == MN_JMP_NEAR ? lite_jmp_reg_ops[w] : lite_call_reg_ops[w];
		if (insn->op[0].kind != OPK_MEM || lite_lower_mem(l, op, insn) < 0 || insn->pfx66)
			return NULL;
		return insn->mnemonic == MN_JMP_NEAR ? lite_jmp_mem_ops[w] : lite_call_mem_ops[w];
	case MN_RET_NEAR:
		l->ended = true;
		if (insn->pfx66)
			return NULL;
		op->imm = insn->nops ? (u16)insn->imm : 0;
		return lite_ret_ops[w];
	default:
		return NULL;
	}
}

static lite_handler *lower_one(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	int size = size_index(insn->nops ? insn->op[0].size : insn->opsize), form;

	if (code_kind(l->mode) == CODE_OTHER)
		return NULL;
	switch (insn->mnemonic) {
	case MN_MOV: return lower_mov(l, op, insn);
	case MN_ADD: return lower_alu(l, op, insn, ALU_ADD);
	case MN_OR: return lower_alu(l, op, insn, ALU_OR);
	case MN_ADC: return lower_alu(l, op, insn, ALU_ADC);
	case MN_SBB: return lower_alu(l, op, insn, ALU_SBB);
	case MN_AND: return lower_alu(l, op, insn, ALU_AND);
	case MN_SUB: return lower_alu(l, op, insn, ALU_SUB);
	case MN_XOR: return lower_alu(l, op, insn, ALU_XOR);
	case MN_CMP: return lower_alu(l, op, insn, ALU_CMP);
	case MN_TEST: return lower_alu(l, op, insn, ALU_TEST);
	case MN_INC: return lower_unary(l, op, insn, UN_INC);
	case MN_DEC: return lower_unary(l, op, insn, UN_DEC);
	case MN_NEG: return lower_unary(l, op, insn, UN_NEG);
	case MN_NOT: return lower_unary(l, op, insn, UN_NOT);
	case MN_SHL: return lower_shift(l, op, insn, SH_SHL);
	case MN_SHR: return lower_shift(l, op, insn, SH_SHR);
	case MN_SAR: return lower_shift(l, op, insn, SH_SAR);
	case MN_ROL: return lower_shift(l, op, insn, SH_ROL);
	case MN_ROR: return lower_shift(l, op, insn, SH_ROR);
	case MN_RCL: return lower_shift(l, op, insn, SH_RCL);
	case MN_RCR: return lower_shift(l, op, insn, SH_RCR);
	case MN_LEA:
		form = lite_lower_mem(l, op, insn);
		op->r1 = operand_offset(&insn->op[0]);
		/* LEA uses no segment base. */
		op->seg = LITE_OFFSET(zero);
		return form < 0 || size < 0 || !op->r1 ? NULL : lite_lea_ops[size][form];
	case MN_MOVZX: return lower_movx(l, op, insn, false);
	case MN_MOVSX: return lower_movx(l, op, insn, true);
	case MN_MOVSXD:
		form = reg_rm(l, op, insn);
		return form < 0 || size != SZ_64 ? NULL : lite_movsxd_ops[form];
	case MN_XCHG: return lower_xchg(l, op, insn);
	case MN_XADD: return lower_rmw(l, op, insn, lite_xadd_ops);
	case MN_CMPXCHG: return lower_rmw(l, op, insn, lite_cmpxchg_ops);
	case MN_SETCC:
		form = reg_or_mem(l, op, insn, 0, &op->r1);
		return form < 0 ? NULL : lite_setcc_ops[insn->cond & 15][form];
	case MN_CMOVCC:
		form = reg_rm(l, op, insn);
		return form < 0 || size < 0 ? NULL : lite_cmov_ops[insn->cond & 15][size][form];
	case MN_BT: return lower_bt(op, insn, 0);
	case MN_BTS: return lower_bt(op, insn, 1);
	case MN_BTR: return lower_bt(op, insn, 2);
	case MN_BTC: return lower_bt(op, insn, 3);
	case MN_BSF: return lower_count(op, insn, 0);
	case MN_BSR: return lower_count(op, insn, 1);
	case MN_BSWAP:
		op->r1 = operand_offset(&insn->op[0]);
		return size == SZ_64 ? lite_bswap64 : size == SZ_32 ? lite_bswap32 : NULL;
	case MN_IMUL: return lower_imul(l, op, insn);
	case MN_MUL: return lower_muldiv(op, insn, 0);
	case MN_DIV: return lower_muldiv(op, insn, 2);
	case MN_IDIV: return lower_muldiv(op, insn, 3);
	case MN_CBW: return insn->opsize == 8 ? lite_cbw64 : insn->opsize == 4 ? lite_cbw32 : lite_cbw16;
	case MN_CWD: return insn->opsize == 8 ? lite_cwd64 : insn->opsize == 4 ? lite_cwd32 : NULL;
	case MN_CLC: return lite_clc;
	case MN_STC: return lite_stc;
	case MN_CMC: return lite_cmc;
	case MN_NOP:
	case MN_ENDBR64:
	case MN_ENDBR32:
	case MN_PREFETCH:
	case MN_PREFETCHW:
	case MN_PREFETCHNTA:
	case MN_PREFETCHT0:
	case MN_PREFETCHT1:
	case MN_PREFETCHT2: return insn->lock ? NULL : lite_nop;
	case MN_PUSH: return lower_push(l, op, insn);
	case MN_POP: {
		int w = width(l, insn, insn->opsize);

		op->r1 = operand_offset(&insn->op[0]);
		return w >= 0 && op->r1 ? lite_pop_ops[w] : NULL;
	}
	case MN_LEAVE: {
		int w = width(l, insn, insn->opsize);

		return w >= 0 ? lite_leave_ops[w] : NULL;
	}
	case MN_JCC:
	case MN_JMP_NEAR:
	case MN_CALL_NEAR:
	case MN_RET_NEAR: return lower_branch(l, op, insn);
	default: return NULL;
	}
}

/* Emulated instructions that change nothing but registers, flags and data: what follows in the block may still run. */
static bool stays_in_block(const struct insn *insn)
{
	if (insn->flags & (INSN_F_BRANCH | INSN_F_ENDS_BLOCK | INSN_F_PRIVILEGED | INSN_F_IOPL | INSN_F_MOV_SS))
		return false;
	if (insn->mnemonic > MN_SIMD_FIRST)
		return true;
	if (insn->mnemonic <= MN_POPA)
		return true;
	switch (insn->mnemonic) {
	case MN_PUSHF: case MN_ENTER: case MN_LEAVE: case MN_CBW: case MN_CWD: case MN_XLAT: case MN_SALC: case MN_LAHF:
	case MN_SAHF: case MN_CMOVCC: case MN_SETCC: case MN_MOVNTI: case MN_MOVDIRI: case MN_MOVS: case MN_CMPS: case MN_STOS: case MN_LODS:
	case MN_SCAS: case MN_CLC: case MN_STC: case MN_CMC: case MN_CLD: case MN_STD: case MN_PUSH_SREG: case MN_RDTSC: case MN_RDTSCP:
	case MN_RDRAND: case MN_RDSEED: case MN_RDFSBASE: case MN_RDGSBASE: case MN_WRFSBASE: case MN_WRGSBASE: case MN_CPUID: case MN_XGETBV:
	case MN_NOP: case MN_LFENCE: case MN_MFENCE: case MN_SFENCE: case MN_CLFLUSH: case MN_CLFLUSHOPT: case MN_CLWB: case MN_LAR:
	case MN_LSL: case MN_VERR: case MN_VERW: case MN_SMSW: case MN_STR: case MN_SLDT: case MN_SGDT: case MN_SIDT: case MN_RDPID:
		return true;
	default:
		return insn->mnemonic >= MN_FXSAVE; /* the XSAVE family, x87 */
	}
}

/* What has a function in system.h. */
static bool lower_system(struct lite_lower *l, struct lite_op *op, const struct insn *insn)
{
	struct lite_system *sys;
	lite_fast_fn *fn;
	unsigned after;

	if (code_kind(l->mode) == CODE_OTHER)
		return false;
	fn = lite_fast_lookup(insn, &after);
	if (!fn)
		return false;
	sys = lite_arena_alloc(l->lvm, sizeof(*sys));
	if (!sys)
		return false;
	sys->fn = fn;
	sys->insn = *insn;
	op->insn = &sys->insn;
	op->aux = after;
	/* The emulator, where it has to help out. */
	if (!stays_in_block(insn))
		op->flags |= LITE_OP_LEAVES;
	if (after & (LITE_AFTER_CPL | LITE_AFTER_ALL)) {
		l->ended = true;
		op->flags |= LITE_OP_LEAVES; /* emulated too: nothing stands behind it */
		op->fn = lite_op_fast_leave;
	} else if (after & LITE_AFTER_PART) {
		op->fn = lite_op_fast_part;
	} else {
		op->fn = after ? lite_op_fast_events : lite_op_fast;
	}
	return true;
}

void lite_lower(struct lite_lower *l, struct lite_op *op, unsigned off)
{
	const struct insn *insn = &l->insn;
	struct insn *copy;

	op->fn = lower_one(l, op, insn);
	if (op->fn) {
		/* Emulated after all (its operand crosses pages), a branch may go to the next instruction: the block has none. */
		if (l->ended)
			op->flags |= LITE_OP_LEAVES;
		return;
	}
	/* What lower_one() began is not to be believed. */
	l->ended = false;
	op->flags = 0;
	if (insn->state != INSN_STATE_NONE && insn->state != INSN_STATE_VEX_GPR && lite_native_lower(l, op))
		return;
	if (lower_system(l, op, insn))
		return;
	if (!stays_in_block(insn)) {
		l->ended = true;
		op->flags |= LITE_OP_LEAVES;
	}
	copy = lite_arena_alloc(l->lvm, sizeof(*copy));
	if (!copy) {
		op->fn = lite_op_step;
		l->ended = true;
		return;
	}
	*copy = *insn;
	op->insn = copy;
	op->fn = insn->mnemonic == MN_INT3 ? lite_op_int3 : lite_op_insn;
}
