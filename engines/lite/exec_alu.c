/*
 * Handlers of the arithmetic and logic instructions. Each runs the instruction itself and keeps the flags that the host
 * computed, undefined ones included: what the guest sees is what this processor does.
 */
#include "engines/lite/exec.h"

#define STOP_CMP 0
/* name, instruction, prologue (carry in), whether the result is written */
#define FOR_ALU(M, ...) \
	M(ADD, "add", "", 1, __VA_ARGS__) M(OR, "or", "", 1, __VA_ARGS__) M(ADC, "adc", "btl $8, %k1\n\t", 1, __VA_ARGS__) \
	M(SBB, "sbb", "btl $8, %k1\n\t", 1, __VA_ARGS__) M(AND, "and", "", 1, __VA_ARGS__) M(SUB, "sub", "", 1, __VA_ARGS__) \
	M(XOR, "xor", "", 1, __VA_ARGS__) M(CMP, "cmp", "", 0, __VA_ARGS__) M(TEST, "test", "", 0, __VA_ARGS__)

/* Operand 1 is ax: the flags before (ADC, SBB) and after. */
#define ALU_RUN(insn, pre, sfx, d, s)                                                             \
	({                                                                                        \
		u32 ax_ = c->fl;                                                                  \
		__asm__ volatile(pre insn #sfx " %2, %0" FL_OUT : "+q"(d), "+&a"(ax_) : "q"(s) : "cc"); \
		c->fl = ax_;                                                                      \
	})
#define ALU_RUN_MEM(lock, insn, pre, sfx, type, p, s)                                             \
	({                                                                                        \
		u32 ax_ = c->fl;                                                                  \
		__asm__ volatile(pre lock insn #sfx " %2, %0" FL_OUT                              \
				 : "+m"(*(type *)(p)), "+&a"(ax_)                                 \
				 : "q"(s)                                                         \
				 : "cc", "memory");                                               \
		c->fl = ax_;                                                                      \
	})

#define ALU_RM(NAME, insn, pre, wr, type, sfx, ea)                                                \
	static LITE_OP(alu_##NAME##_##type##_rm_##ea)                                             \
	{                                                                                         \
		type s = *(volatile type *)HOST_READ(EA_##ea(), sizeof(type));                    \
		type d = REG(op->r1, type);                                                       \
		ALU_RUN(insn, pre, sfx, d, s);                                                    \
		if (wr)                                                                           \
			SET_##type(op->r1, d);                                                    \
		NEXT;                                                                             \
	}
#define ALU_MEM(NAME, insn, pre, wr, type, sfx, ea, form, src)                                    \
	static LITE_OP(alu_##NAME##_##type##_##form##_##ea)                                       \
	{                                                                                         \
		if (wr) {                                                                         \
			void *p = HOST_WRITE(EA_##ea(), sizeof(type));                            \
			ALU_RUN_MEM("", insn, pre, sfx, type, p, (type)(src));                    \
		} else {                                                                          \
			type d = *(volatile type *)HOST_READ(EA_##ea(), sizeof(type));            \
			ALU_RUN(insn, pre, sfx, d, (type)(src));                                  \
		}                                                                                 \
		NEXT;                                                                             \
	}
#define ALU_LOCK(NAME, insn, pre, wr, type, sfx, ea, form, src)                                   \
	static LITE_OP(alu_##NAME##_##type##_##form##_##ea)                                       \
	{                                                                                         \
		void *p = HOST_LOCKED(EA_##ea(), sizeof(type));                                   \
		ALU_RUN_MEM("lock ", insn, pre, sfx, type, p, (type)(src));                       \
		NEXT;                                                                             \
	}
#define ALU_LOCK_0(...)
#define ALU_LOCK_1(...) ALU_LOCK(__VA_ARGS__)

#define ALU_SIZE(type, sfx, NAME, insn, pre, wr)                                                  \
	static LITE_OP(alu_##NAME##_##type##_rr)                                                  \
	{                                                                                         \
		type d = REG(op->r1, type), s = REG(op->r2, type);                                \
		ALU_RUN(insn, pre, sfx, d, s);                                                    \
		if (wr)                                                                           \
			SET_##type(op->r1, d);                                                    \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(alu_##NAME##_##type##_ri)                                                  \
	{                                                                                         \
		type d = REG(op->r1, type), s = (type)(s64)op->imm;                               \
		ALU_RUN(insn, pre, sfx, d, s);                                                    \
		if (wr)                                                                           \
			SET_##type(op->r1, d);                                                    \
		NEXT;                                                                             \
	}                                                                                         \
	ALU_RM(NAME, insn, pre, wr, type, sfx, D)                                                 \
	ALU_RM(NAME, insn, pre, wr, type, sfx, X)                                                 \
	ALU_RM(NAME, insn, pre, wr, type, sfx, E)                                                 \
	ALU_MEM(NAME, insn, pre, wr, type, sfx, D, mr, REG(op->r2, type))                         \
	ALU_MEM(NAME, insn, pre, wr, type, sfx, X, mr, REG(op->r2, type))                         \
	ALU_MEM(NAME, insn, pre, wr, type, sfx, E, mr, REG(op->r2, type))                         \
	ALU_MEM(NAME, insn, pre, wr, type, sfx, D, mi, (s64)op->imm)                              \
	ALU_MEM(NAME, insn, pre, wr, type, sfx, X, mi, (s64)op->imm)                              \
	ALU_MEM(NAME, insn, pre, wr, type, sfx, E, mi, (s64)op->imm)                              \
	ALU_LOCK_##wr(NAME, insn, pre, wr, type, sfx, X, lmr, REG(op->r2, type))                  \
	ALU_LOCK_##wr(NAME, insn, pre, wr, type, sfx, E, lmr, REG(op->r2, type))                  \
	ALU_LOCK_##wr(NAME, insn, pre, wr, type, sfx, X, lmi, (s64)op->imm)                       \
	ALU_LOCK_##wr(NAME, insn, pre, wr, type, sfx, E, lmi, (s64)op->imm)
#define ALU_DEFINE(NAME, insn, pre, wr, ...) FOR_SIZES(ALU_SIZE, NAME, insn, pre, wr)
FOR_ALU(ALU_DEFINE, )

#define ALU_TABLE_LOCK_0(NAME, type)
#define ALU_TABLE_LOCK_1(NAME, type)                                                              \
	[FORM_LMR_X] = alu_##NAME##_##type##_lmr_X, [FORM_LMR_E] = alu_##NAME##_##type##_lmr_E,   \
	[FORM_LMI_X] = alu_##NAME##_##type##_lmi_X, [FORM_LMI_E] = alu_##NAME##_##type##_lmi_E,
#define ALU_ROW(type, sfx, NAME, wr)                                                              \
	{ [FORM_RR] = alu_##NAME##_##type##_rr, [FORM_RI] = alu_##NAME##_##type##_ri,             \
	  [FORM_RM_D] = alu_##NAME##_##type##_rm_D, [FORM_RM_X] = alu_##NAME##_##type##_rm_X,     \
	  [FORM_RM_E] = alu_##NAME##_##type##_rm_E, [FORM_MR_D] = alu_##NAME##_##type##_mr_D,     \
	  [FORM_MR_X] = alu_##NAME##_##type##_mr_X, [FORM_MR_E] = alu_##NAME##_##type##_mr_E,     \
	  [FORM_MI_D] = alu_##NAME##_##type##_mi_D, [FORM_MI_X] = alu_##NAME##_##type##_mi_X,     \
	  [FORM_MI_E] = alu_##NAME##_##type##_mi_E, ALU_TABLE_LOCK_##wr(NAME, type) },
#define ALU_TABLE(NAME, insn, pre, wr, ...) [ALU_##NAME] = { FOR_SIZES(ALU_ROW, NAME, wr) },
lite_handler *const lite_alu_ops[ALU_COUNT][SZ_COUNT][FORM_COUNT] = { FOR_ALU(ALU_TABLE, ) };

/* ---- one operand ---------------------------------------------------------------------------------------------- */

/* INC and DEC keep CF, NOT keeps all: the carry goes in, and NOT ends without a capture. */
#define FOR_UNARY(M, ...) \
	M(INC, "inc", "btl $8, %k1\n\t", FL_OUT, __VA_ARGS__) M(DEC, "dec", "btl $8, %k1\n\t", FL_OUT, __VA_ARGS__) \
	M(NEG, "neg", "", FL_OUT, __VA_ARGS__) M(NOT, "not", "", "", __VA_ARGS__)
#define UNARY_MEM(NAME, insn, pre, post, type, sfx, ea)                                           \
	static LITE_OP(un_##NAME##_##type##_##ea)                                                 \
	{                                                                                         \
		type *p = HOST_WRITE(EA_##ea(), sizeof(type));                                    \
		u32 ax = c->fl;                                                                   \
		__asm__ volatile(pre insn #sfx " %0" post : "+m"(*p), "+&a"(ax) : : "cc", "memory"); \
		c->fl = ax;                                                                       \
		NEXT;                                                                             \
	}
#define UNARY_SIZE(type, sfx, NAME, insn, pre, post)                                              \
	static LITE_OP(un_##NAME##_##type)                                                        \
	{                                                                                         \
		type d = REG(op->r1, type);                                                       \
		u32 ax = c->fl;                                                                   \
		__asm__ volatile(pre insn #sfx " %0" post : "+q"(d), "+&a"(ax) : : "cc");         \
		c->fl = ax;                                                                       \
		SET_##type(op->r1, d);                                                            \
		NEXT;                                                                             \
	}                                                                                         \
	UNARY_MEM(NAME, insn, pre, post, type, sfx, D)                                            \
	UNARY_MEM(NAME, insn, pre, post, type, sfx, X)                                            \
	UNARY_MEM(NAME, insn, pre, post, type, sfx, E)
#define UNARY_DEFINE(NAME, insn, pre, post, ...) FOR_SIZES(UNARY_SIZE, NAME, insn, pre, post)
FOR_UNARY(UNARY_DEFINE, )
#define UNARY_ROW(type, sfx, NAME)                                                                \
	{ un_##NAME##_##type, un_##NAME##_##type##_D, un_##NAME##_##type##_X, un_##NAME##_##type##_E },
#define UNARY_TABLE(NAME, insn, pre, post, ...) [UN_##NAME] = { FOR_SIZES(UNARY_ROW, NAME) },
lite_handler *const lite_unary_ops[UN_COUNT][SZ_COUNT][1 + EA_KIND_COUNT] = { FOR_UNARY(UNARY_TABLE, ) };

/* ---- shifts and rotates of registers; the count is masked and, as an immediate, not zero --------------------------- */

#define FOR_SHIFT(M, ...) \
	M(SHL, "shl", __VA_ARGS__) M(SHR, "shr", __VA_ARGS__) M(SAR, "sar", __VA_ARGS__) M(ROL, "rol", __VA_ARGS__) \
	M(ROR, "ror", __VA_ARGS__) M(RCL, "rcl", __VA_ARGS__) M(RCR, "rcr", __VA_ARGS__)
#define SHIFT_RUN(insn, type, sfx, count)                                                         \
	do {                                                                                      \
		type d = REG(op->r1, type);                                                       \
		u32 ax = c->fl;                                                                   \
		__asm__ volatile(FL_IN insn #sfx " %%cl, %0" FL_OUT                               \
				 : "+q"(d), "+&a"(ax)                                             \
				 : "c"((u8)(count))                                               \
				 : "cc");                                                         \
		c->fl = ax;                                                                       \
		SET_##type(op->r1, d);                                                            \
	} while (0)
#define SHIFT_SIZE(type, sfx, NAME, insn)                                                         \
	static LITE_OP(sh_##NAME##_##type##_i)                                                    \
	{                                                                                         \
		SHIFT_RUN(insn, type, sfx, op->imm);                                              \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(sh_##NAME##_##type##_c)                                                    \
	{                                                                                         \
		unsigned count = GPR(REG_CX) & (sizeof(type) == 8 ? 63 : 31);                     \
		if (count)                                                                        \
			SHIFT_RUN(insn, type, sfx, count);                                        \
		else if (sizeof(type) == 4)                                                       \
			SET_u32(op->r1, REG(op->r1, u32));                                        \
		NEXT;                                                                             \
	}
#define SHIFT_DEFINE(NAME, insn, ...) FOR_SIZES(SHIFT_SIZE, NAME, insn)
FOR_SHIFT(SHIFT_DEFINE, )
#define SHIFT_ROW(type, sfx, NAME) { sh_##NAME##_##type##_i, sh_##NAME##_##type##_c },
#define SHIFT_TABLE(NAME, insn, ...) [SH_##NAME] = { FOR_SIZES(SHIFT_ROW, NAME) },
lite_handler *const lite_shift_ops[SH_COUNT][SZ_COUNT][2] = { FOR_SHIFT(SHIFT_TABLE, ) };

/* ---- fused with the conditional jump behind: op[1] is the jump ------------------------------------------------------ */

#define FUSED(n, cc, NAME, insn, pre, type, sfx, dst, wr, src)                                    \
	static LITE_OP(fused_##NAME##_##type##_##n)                                               \
	{                                                                                         \
		type d = dst;                                                                     \
		u32 ax = c->fl;                                                                   \
		bool taken;                                                                       \
		__asm__ volatile(pre insn #sfx src FL_OUT                                         \
				 : "+q"(d), "+&a"(ax), "=@cc" #cc(taken)                          \
				 : "q"(FUSED_SRC_##NAME(type)));                                  \
		c->fl = ax;                                                                       \
		if (wr)                                                                           \
			SET_##type(op->r1, d);                                                    \
		if (taken)                                                                        \
			TAKE(op + 1);                                                             \
		GO(op + 2);                                                                       \
	}
#define FUSED_SRC_CMP_RR(type)	REG(op->r2, type)
#define FUSED_SRC_CMP_RI(type)	((type)(s64)op->imm)
#define FUSED_SRC_TEST_RR(type) REG(op->r2, type)
#define FUSED_SRC_TEST_RI(type) ((type)(s64)op->imm)
#define FUSED_SRC_CMP_RM(type)	(*(volatile type *)HOST_READ(EA_X(), sizeof(type)))
#define FUSED_SRC_CMP_MI(type)	((type)(s64)op->imm)
#define FUSED_SRC_TEST_MI(type) ((type)(s64)op->imm)
#define FUSED_SRC_DEC(type)	((type)0)
#define FUSED_SRC_INC(type)	((type)0)
#define FUSED_SRC_ADD_RI(type)	((type)(s64)op->imm)
#define FUSED_SRC_SUB_RI(type)	((type)(s64)op->imm)
#define FUSED_SRC_AND_RI(type)	((type)(s64)op->imm)
#define FUSED_SRC_ADD_RR(type)	REG(op->r2, type)
#define FUSED_SRC_SUB_RR(type)	REG(op->r2, type)
#define D_REG(type) REG(op->r1, type)
#define D_MEM(type) (*(volatile type *)HOST_READ(EA_X(), sizeof(type)))
#define FOR_FUSED(M) \
	M(CMP_RR, "cmp", "", D_REG, 0, " %3, %0") M(CMP_RI, "cmp", "", D_REG, 0, " %3, %0") \
	M(TEST_RR, "test", "", D_REG, 0, " %3, %0") M(TEST_RI, "test", "", D_REG, 0, " %3, %0") \
	M(CMP_RM, "cmp", "", D_REG, 0, " %3, %0") M(CMP_MI, "cmp", "", D_MEM, 0, " %3, %0") \
	M(TEST_MI, "test", "", D_MEM, 0, " %3, %0") M(DEC, "dec", "btl $8, %k1\n\t", D_REG, 1, " %0") \
	M(INC, "inc", "btl $8, %k1\n\t", D_REG, 1, " %0") M(ADD_RI, "add", "", D_REG, 1, " %3, %0") \
	M(SUB_RI, "sub", "", D_REG, 1, " %3, %0") M(AND_RI, "and", "", D_REG, 1, " %3, %0") \
	M(ADD_RR, "add", "", D_REG, 1, " %3, %0") M(SUB_RR, "sub", "", D_REG, 1, " %3, %0")
#define FUSED_SIZE(type, sfx, NAME, insn, pre, dst, wr, src) FOR_CONDS(FUSED, NAME, insn, pre, type, sfx, dst(type), wr, src)
#define FUSED_DEFINE(NAME, insn, pre, dst, wr, src) FOR_SIZES(FUSED_SIZE, NAME, insn, pre, dst, wr, src)
FOR_FUSED(FUSED_DEFINE)
#define FUSED_ENTRY(n, cc, NAME, type) [n] = fused_##NAME##_##type##_##n,
#define FUSED_ROW(type, sfx, NAME) { FOR_CONDS(FUSED_ENTRY, NAME, type) },
#define FUSED_TABLE(NAME, insn, pre, dst, wr, src) [FUSE_##NAME] = { FOR_SIZES(FUSED_ROW, NAME) },
lite_handler *const lite_fused_ops[FUSE_COUNT][SZ_COUNT][16] = { FOR_FUSED(FUSED_TABLE) };

/* ---- bits ---------------------------------------------------------------------------------------------------------- */

#define FOR_BT(M, ...) M(0, "bt", 0, __VA_ARGS__) M(1, "bts", 1, __VA_ARGS__) M(2, "btr", 1, __VA_ARGS__) M(3, "btc", 1, __VA_ARGS__)
#define BT_RUN(insn, wr, type, sfx, src)                                                          \
	do {                                                                                      \
		type d = REG(op->r1, type), s = (src);                                            \
		u32 ax = c->fl;                                                                   \
		__asm__ volatile(FL_IN insn #sfx " %2, %0" FL_OUT : "+r"(d), "+&a"(ax) : "r"(s) : "cc"); \
		c->fl = ax;                                                                       \
		if (wr)                                                                           \
			SET_##type(op->r1, d);                                                    \
	} while (0)
#define BT_SIZE(n, insn, wr, type, sfx)                                                           \
	static LITE_OP(bt_##n##_##type##_r)                                                       \
	{                                                                                         \
		BT_RUN(insn, wr, type, sfx, REG(op->r2, type));                                   \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(bt_##n##_##type##_i)                                                       \
	{                                                                                         \
		BT_RUN(insn, wr, type, sfx, op->imm);                                             \
		NEXT;                                                                             \
	}
FOR_BT(BT_SIZE, u16, w)
FOR_BT(BT_SIZE, u32, l)
FOR_BT(BT_SIZE, u64, q)
#define BT_ROW(n) \
	{ [SZ_16] = { bt_##n##_u16_r, bt_##n##_u16_i }, [SZ_32] = { bt_##n##_u32_r, bt_##n##_u32_i }, [SZ_64] = { bt_##n##_u64_r, bt_##n##_u64_i } }
lite_handler *const lite_bt_ops[4][SZ_COUNT][2] = { BT_ROW(0), BT_ROW(1), BT_ROW(2), BT_ROW(3) };

#define FOR_COUNTS(M, ...) \
	M(0, "bsf", __VA_ARGS__) M(1, "bsr", __VA_ARGS__) M(2, "tzcnt", __VA_ARGS__) M(3, "lzcnt", __VA_ARGS__) M(4, "popcnt", __VA_ARGS__)
#define COUNT_SIZE(n, insn, type, sfx)                                                            \
	static LITE_OP(count_##n##_##type)                                                        \
	{                                                                                         \
		type d = REG(op->r1, type), s = REG(op->r2, type);                                \
		u32 ax = c->fl;                                                                   \
		__asm__ volatile(FL_IN insn #sfx " %2, %0" FL_OUT : "+r"(d), "+&a"(ax) : "r"(s) : "cc"); \
		c->fl = ax;                                                                       \
		/* BSF and BSR of zero leave the destination alone, all of it. */                 \
		if ((n) > 1 || s)                                                                 \
			SET_##type(op->r1, d);                                                    \
		NEXT;                                                                             \
	}
FOR_COUNTS(COUNT_SIZE, u16, w)
FOR_COUNTS(COUNT_SIZE, u32, l)
FOR_COUNTS(COUNT_SIZE, u64, q)
#define COUNT_ROW(n) { [SZ_16] = count_##n##_u16, [SZ_32] = count_##n##_u32, [SZ_64] = count_##n##_u64 }
lite_handler *const lite_count_ops[5][SZ_COUNT] = { COUNT_ROW(0), COUNT_ROW(1), COUNT_ROW(2), COUNT_ROW(3), COUNT_ROW(4) };

LITE_OP(lite_bswap32)
{
	SET_u32(op->r1, __builtin_bswap32(REG(op->r1, u32)));
	NEXT;
}
LITE_OP(lite_bswap64)
{
	SET_u64(op->r1, __builtin_bswap64(REG(op->r1, u64)));
	NEXT;
}
LITE_OP(lite_clc)
{
	c->fl &= ~0x100;
	NEXT;
}
LITE_OP(lite_stc)
{
	c->fl |= 0x100;
	NEXT;
}
LITE_OP(lite_cmc)
{
	c->fl ^= 0x100;
	NEXT;
}

/* ---- multiplication and division --------------------------------------------------------------------------------- */

#define IMUL_RUN(type, sfx, src, other)                                                           \
	do {                                                                                      \
		type d = (other), s = (src);                                                      \
		u32 ax = c->fl;                                                                   \
		__asm__ volatile(FL_IN "imul" #sfx " %2, %0" FL_OUT : "+r"(d), "+&a"(ax) : "r"(s) : "cc"); \
		c->fl = ax;                                                                       \
		SET_##type(op->r1, d);                                                            \
	} while (0)
#define IMUL_MEM(type, sfx, ea)                                                                   \
	static LITE_OP(imul_##type##_##ea)                                                        \
	{                                                                                         \
		type v = *(volatile type *)HOST_READ(EA_##ea(), sizeof(type));                    \
		IMUL_RUN(type, sfx, v, REG(op->r1, type));                                        \
		NEXT;                                                                             \
	}
#define IMUL_SIZE(type, sfx)                                                                      \
	static LITE_OP(imul_##type)                                                               \
	{                                                                                         \
		IMUL_RUN(type, sfx, REG(op->r2, type), REG(op->r1, type));                        \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(imul_##type##_i)                                                           \
	{                                                                                         \
		IMUL_RUN(type, sfx, REG(op->r2, type), (type)(s64)op->imm);                       \
		NEXT;                                                                             \
	}                                                                                         \
	IMUL_MEM(type, sfx, D)                                                                    \
	IMUL_MEM(type, sfx, X)                                                                    \
	IMUL_MEM(type, sfx, E)
IMUL_SIZE(u16, w)
IMUL_SIZE(u32, l)
IMUL_SIZE(u64, q)
#define IMUL_ROW(type) { imul_##type, imul_##type##_D, imul_##type##_X, imul_##type##_E }
lite_handler *const lite_imul_ops[SZ_COUNT][1 + EA_KIND_COUNT] = {
	[SZ_16] = IMUL_ROW(u16), [SZ_32] = IMUL_ROW(u32), [SZ_64] = IMUL_ROW(u64)
};
lite_handler *const lite_imul_imm_ops[SZ_COUNT] = { [SZ_16] = imul_u16_i, [SZ_32] = imul_u32_i, [SZ_64] = imul_u64_i };

#define MUL_SIZE(NAME, insn, type, sfx)                                                           \
	static LITE_OP(NAME##_##type)                                                             \
	{                                                                                         \
		type hi;                                                                          \
		u64 a = GPR(REG_AX), lo;                                                          \
		__asm__ volatile(insn #sfx " %3\n\tmov %%rax, %1" FL_OUT                          \
				 : "=&d"(hi), "=&r"(lo), "+&a"(a)                                 \
				 : "r"(REG(op->r1, type))                                         \
				 : "cc");                                                         \
		c->fl = a;                                                                        \
		SET_##type(GPR_OFFSET(REG_AX), lo);                                               \
		SET_##type(GPR_OFFSET(REG_DX), hi);                                               \
		NEXT;                                                                             \
	}
MUL_SIZE(mul, "mul", u32, l)
MUL_SIZE(mul, "mul", u64, q)
MUL_SIZE(imul1, "imul", u32, l)
MUL_SIZE(imul1, "imul", u64, q)

/* Only what cannot raise #DE; the rest is emulated. The flags are undefined and kept. */
#define DIV_SIZE(type, wide, sfx)                                                                 \
	static LITE_OP(div_##type)                                                                \
	{                                                                                         \
		type a = GPR(REG_AX), d = GPR(REG_DX), s = REG(op->r1, type);                     \
		if (unlikely(d >= s))                                                             \
			return lite_op_emulate(c, op);                                            \
		__asm__("div" #sfx " %2" : "+a"(a), "+d"(d) : "r"(s) : "cc");                     \
		SET_##type(GPR_OFFSET(REG_AX), a);                                                \
		SET_##type(GPR_OFFSET(REG_DX), d);                                                \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(idiv_##type)                                                               \
	{                                                                                         \
		wide a = GPR(REG_AX), d = GPR(REG_DX), s = REG(op->r1, type);                     \
		/* sign-extended dividend, and neither x / 0 nor the one overflow that is left */ \
		if (unlikely(d != a >> (sizeof(type) * 8 - 1) || s == 0 || s == -1))              \
			return lite_op_emulate(c, op);                                            \
		__asm__("idiv" #sfx " %2" : "+a"(a), "+d"(d) : "r"(s) : "cc");                    \
		SET_##type(GPR_OFFSET(REG_AX), a);                                                \
		SET_##type(GPR_OFFSET(REG_DX), d);                                                \
		NEXT;                                                                             \
	}
DIV_SIZE(u32, s32, l)
DIV_SIZE(u64, s64, q)
lite_handler *const lite_muldiv_ops[4][SZ_COUNT] = {
	{ [SZ_32] = mul_u32, [SZ_64] = mul_u64 }, { [SZ_32] = imul1_u32, [SZ_64] = imul1_u64 },
	{ [SZ_32] = div_u32, [SZ_64] = div_u64 }, { [SZ_32] = idiv_u32, [SZ_64] = idiv_u64 },
};

/* ---- exchange-and-add, compare-and-exchange: always locked, which an unlocked one may be --------------------------- */

#define XADD_EA(type, sfx, ea)                                                                    \
	static LITE_OP(xadd_##type##_##ea)                                                        \
	{                                                                                         \
		type *p = HOST_LOCKED(EA_##ea(), sizeof(type));                                   \
		type v = REG(op->r2, type);                                                       \
		u32 ax;                                                                           \
		__asm__ volatile("lock xadd" #sfx " %0, %1" FL_OUT : "+q"(v), "+m"(*p), "=&a"(ax) : : "cc", "memory"); \
		c->fl = ax;                                                                       \
		SET_##type(op->r2, v);                                                            \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(cmpxchg_##type##_##ea)                                                     \
	{                                                                                         \
		type *p = HOST_LOCKED(EA_##ea(), sizeof(type));                                   \
		u64 a = GPR(REG_AX), was;                                                         \
		__asm__ volatile("lock cmpxchg" #sfx " %3, %0\n\tmov %%rax, %2" FL_OUT            \
				 : "+m"(*p), "+&a"(a), "=&r"(was)                                 \
				 : "q"(REG(op->r2, type))                                         \
				 : "cc", "memory");                                               \
		c->fl = a;                                                                        \
		/* On failure only: a 32-bit success leaves the upper half of RAX alone. */ \
		if (!(a & 0x4000))                                                                \
			SET_##type(GPR_OFFSET(REG_AX), was);                                      \
		NEXT;                                                                             \
	}
#define XADD_SIZE(type, sfx, ...) XADD_EA(type, sfx, D) XADD_EA(type, sfx, X) XADD_EA(type, sfx, E)
FOR_SIZES(XADD_SIZE, )
#define XADD_ROW(type, sfx, ...) { xadd_##type##_D, xadd_##type##_X, xadd_##type##_E },
lite_handler *const lite_xadd_ops[SZ_COUNT][EA_KIND_COUNT] = { FOR_SIZES(XADD_ROW, ) };
#define CMPXCHG_ROW(type, sfx, ...) { cmpxchg_##type##_D, cmpxchg_##type##_X, cmpxchg_##type##_E },
lite_handler *const lite_cmpxchg_ops[SZ_COUNT][EA_KIND_COUNT] = { FOR_SIZES(CMPXCHG_ROW, ) };
