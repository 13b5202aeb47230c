/* Handlers of the instructions that move data: MOV and its kin, LEA, XCHG, SETcc, CMOVcc. See exec.h. */
#include "engines/lite/exec.h"

#define MOV_EA(type, sfx, ea)                                                                     \
	static LITE_OP(mov_##type##_rm_##ea)                                                      \
	{                                                                                         \
		SET_##type(op->r1, *(volatile type *)HOST_READ(EA_##ea(), sizeof(type)));         \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(mov_##type##_mr_##ea)                                                      \
	{                                                                                         \
		*(volatile type *)HOST_WRITE(EA_##ea(), sizeof(type)) = REG(op->r2, type);        \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(mov_##type##_mi_##ea)                                                      \
	{                                                                                         \
		*(volatile type *)HOST_WRITE(EA_##ea(), sizeof(type)) = (type)(s64)op->imm;       \
		NEXT;                                                                             \
	}
#define MOV_SIZE(type, sfx, ...)                                                                  \
	static LITE_OP(mov_##type##_rr)                                                           \
	{                                                                                         \
		SET_##type(op->r1, REG(op->r2, type));                                            \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(mov_##type##_ri)                                                           \
	{                                                                                         \
		SET_##type(op->r1, (type)(s64)op->imm);                                           \
		NEXT;                                                                             \
	}                                                                                         \
	MOV_EA(type, sfx, D)                                                                      \
	MOV_EA(type, sfx, X)                                                                      \
	MOV_EA(type, sfx, E)
FOR_SIZES(MOV_SIZE, )
#define MOV_ROW(type, sfx, ...)                                                                   \
	{ [FORM_RR] = mov_##type##_rr, [FORM_RI] = mov_##type##_ri, [FORM_RM_D] = mov_##type##_rm_D, \
	  [FORM_RM_X] = mov_##type##_rm_X, [FORM_RM_E] = mov_##type##_rm_E,                       \
	  [FORM_MR_D] = mov_##type##_mr_D, [FORM_MR_X] = mov_##type##_mr_X,                       \
	  [FORM_MR_E] = mov_##type##_mr_E, [FORM_MI_D] = mov_##type##_mi_D,                       \
	  [FORM_MI_X] = mov_##type##_mi_X, [FORM_MI_E] = mov_##type##_mi_E },
lite_handler *const lite_mov_ops[SZ_COUNT][FORM_COUNT] = { FOR_SIZES(MOV_ROW, ) };

LITE_OP(lite_mov64_imm64)
{
	REG(op->r1, u64) = op->imm64;
	NEXT;
}

LITE_OP(lite_nop)
{
	NEXT;
}

/* ---- widening ------------------------------------------------------------------------------------------------------ */

#define MOVX_EA(name, from, to, wide, ea)                                                         \
	static LITE_OP(name##_##from##_##to##_##ea)                                               \
	{                                                                                         \
		SET_##to(op->r1, (wide)*(volatile from *)HOST_READ(EA_##ea(), sizeof(from)));     \
		NEXT;                                                                             \
	}
#define MOVX(name, from, to, wide)                                                                \
	static LITE_OP(name##_##from##_##to)                                                      \
	{                                                                                         \
		SET_##to(op->r1, (wide)REG(op->r2, from));                                        \
		NEXT;                                                                             \
	}                                                                                         \
	MOVX_EA(name, from, to, wide, D)                                                          \
	MOVX_EA(name, from, to, wide, X)                                                          \
	MOVX_EA(name, from, to, wide, E)
MOVX(movzx, u8, u16, u16)
MOVX(movzx, u8, u32, u32)
MOVX(movzx, u8, u64, u64)
MOVX(movzx, u16, u16, u16)
MOVX(movzx, u16, u32, u32)
MOVX(movzx, u16, u64, u64)
MOVX(movsx, s8, u16, s16)
MOVX(movsx, s8, u32, s32)
MOVX(movsx, s8, u64, s64)
MOVX(movsx, s16, u16, s16)
MOVX(movsx, s16, u32, s32)
MOVX(movsx, s16, u64, s64)
MOVX(movsx, s32, u64, s64)
#define MOVX_ROW(name, from, to) \
	{ name##_##from##_##to, name##_##from##_##to##_D, name##_##from##_##to##_X, name##_##from##_##to##_E }
#define MOVX_ROWS(name, from) \
	{ [SZ_16] = MOVX_ROW(name, from, u16), [SZ_32] = MOVX_ROW(name, from, u32), [SZ_64] = MOVX_ROW(name, from, u64) }
lite_handler *const lite_movx_ops[2][2][SZ_COUNT][1 + EA_KIND_COUNT] = {
	{ MOVX_ROWS(movzx, u8), MOVX_ROWS(movzx, u16) },
	{ MOVX_ROWS(movsx, s8), MOVX_ROWS(movsx, s16) },
};
lite_handler *const lite_movsxd_ops[1 + EA_KIND_COUNT] = MOVX_ROW(movsx, s32, u64);

#define LEA_SIZE(type, sfx, ...)                                                                  \
	static LITE_OP(lea_##type##_D)                                                            \
	{                                                                                         \
		SET_##type(op->r1, EA_D());                                                       \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(lea_##type##_X)                                                            \
	{                                                                                         \
		SET_##type(op->r1, EA_X());                                                       \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(lea_##type##_E)                                                            \
	{                                                                                         \
		SET_##type(op->r1, EA_E());                                                       \
		NEXT;                                                                             \
	}
FOR_SIZES(LEA_SIZE, )
#define LEA_ROW(type, sfx, ...) { lea_##type##_D, lea_##type##_X, lea_##type##_E },
lite_handler *const lite_lea_ops[SZ_COUNT][EA_KIND_COUNT] = { FOR_SIZES(LEA_ROW, ) };

LITE_OP(lite_cwd32)
{
	SET_u32(GPR_OFFSET(REG_DX), (s32)GPR(REG_AX) >> 31);
	NEXT;
}
LITE_OP(lite_cwd64)
{
	GPR(REG_DX) = (s64)GPR(REG_AX) >> 63;
	NEXT;
}
LITE_OP(lite_cbw16)
{
	SET_u16(GPR_OFFSET(REG_AX), (s8)GPR(REG_AX));
	NEXT;
}
LITE_OP(lite_cbw32)
{
	SET_u32(GPR_OFFSET(REG_AX), (s16)GPR(REG_AX));
	NEXT;
}
LITE_OP(lite_cbw64)
{
	GPR(REG_AX) = (s64)(s32)GPR(REG_AX);
	NEXT;
}

/* ---- exchange: with memory always locked (SDM 2, XCHG) ------------------------------------------------------------ */

#define XCHG_EA(type, sfx, ea)                                                                    \
	static LITE_OP(xchg_##type##_##ea)                                                        \
	{                                                                                         \
		type *p = HOST_LOCKED(EA_##ea(), sizeof(type));                                   \
		SET_##type(op->r2, __atomic_exchange_n(p, REG(op->r2, type), __ATOMIC_SEQ_CST));  \
		NEXT;                                                                             \
	}
#define XCHG_SIZE(type, sfx, ...)                                                                 \
	static LITE_OP(xchg_##type)                                                               \
	{                                                                                         \
		type a = REG(op->r1, type), b = REG(op->r2, type);                                \
		SET_##type(op->r1, b);                                                            \
		SET_##type(op->r2, a);                                                            \
		NEXT;                                                                             \
	}                                                                                         \
	XCHG_EA(type, sfx, D)                                                                     \
	XCHG_EA(type, sfx, X)                                                                     \
	XCHG_EA(type, sfx, E)
FOR_SIZES(XCHG_SIZE, )
#define XCHG_ROW(type, sfx, ...) { xchg_##type, xchg_##type##_D, xchg_##type##_X, xchg_##type##_E },
lite_handler *const lite_xchg_ops[SZ_COUNT][1 + EA_KIND_COUNT] = { FOR_SIZES(XCHG_ROW, ) };

/* ---- conditional ------------------------------------------------------------------------------------------------------ */

#define SETCC_EA(n, ea)                                                                           \
	static LITE_OP(setcc_##n##_##ea)                                                          \
	{                                                                                         \
		u32 fl = c->fl;                                                                   \
		*(volatile u8 *)HOST_WRITE(EA_##ea(), 1) = COND_##n ? 1 : 0;                      \
		NEXT;                                                                             \
	}
#define SETCC(n, cc, ...)                                                                         \
	static LITE_OP(setcc_##n)                                                                 \
	{                                                                                         \
		u32 fl = c->fl;                                                                   \
		REG(op->r1, u8) = COND_##n ? 1 : 0;                                               \
		NEXT;                                                                             \
	}                                                                                         \
	SETCC_EA(n, D)                                                                            \
	SETCC_EA(n, X)                                                                            \
	SETCC_EA(n, E)
FOR_CONDS(SETCC, )
#define SETCC_ROW(n, cc, ...) [n] = { setcc_##n, setcc_##n##_D, setcc_##n##_X, setcc_##n##_E },
lite_handler *const lite_setcc_ops[16][1 + EA_KIND_COUNT] = { FOR_CONDS(SETCC_ROW, ) };

/* The memory operand is read whatever the condition; a 32-bit destination is written either way (SDM 2, CMOVcc). */
#define CMOV_EA(n, type, ea)                                                                      \
	static LITE_OP(cmov_##n##_##type##_##ea)                                                  \
	{                                                                                         \
		type v = *(volatile type *)HOST_READ(EA_##ea(), sizeof(type));                    \
		u32 fl = c->fl;                                                                   \
		SET_##type(op->r1, COND_##n ? v : REG(op->r1, type));                             \
		NEXT;                                                                             \
	}
#define CMOV(n, cc, type)                                                                         \
	static LITE_OP(cmov_##n##_##type)                                                         \
	{                                                                                         \
		u32 fl = c->fl;                                                                   \
		SET_##type(op->r1, COND_##n ? REG(op->r2, type) : REG(op->r1, type));             \
		NEXT;                                                                             \
	}                                                                                         \
	CMOV_EA(n, type, D)                                                                       \
	CMOV_EA(n, type, X)                                                                       \
	CMOV_EA(n, type, E)
FOR_CONDS(CMOV, u16)
FOR_CONDS(CMOV, u32)
FOR_CONDS(CMOV, u64)
#define CMOV_FORMS(n, type) { cmov_##n##_##type, cmov_##n##_##type##_D, cmov_##n##_##type##_X, cmov_##n##_##type##_E }
#define CMOV_ROW(n, cc, ...) [n] = { [SZ_16] = CMOV_FORMS(n, u16), [SZ_32] = CMOV_FORMS(n, u32), [SZ_64] = CMOV_FORMS(n, u64) },
lite_handler *const lite_cmov_ops[16][SZ_COUNT][1 + EA_KIND_COUNT] = { FOR_CONDS(CMOV_ROW, ) };
