/*
 * The vocabulary of the opcode tables: what a row of opcodes_*.h may say, and how it is stored.
 *
 * A table lists, per opcode, the rows that give it a meaning:
 *
 *	MD(0F, 2B)                                         // map, opcode; MD: a ModRM byte follows
 *	R(MOVNTPS, NP | MEM, S_SSE, Mo, Vo)                // mnemonic, conditions, attributes, operands
 *	R(MOVNTPD, P66 | MEM, S_SSE, Mo, Vo)
 *
 * The first row whose conditions hold is the instruction; if none does, it is undefined. Conditions
 * are a mask and a value over the 32-bit key that the decoder makes of prefixes and ModRM, so that
 * trying a row costs one AND and one compare. Operand names follow the SDM's appendix A (2A.2)
 * as far as it goes.
 *
 * The tables are included three times by decode.c: to number the rows, to index them by opcode, and
 * for the rows themselves. No step is left to run time or to a generator.
 */
#ifndef CORE_X86_EMUL_OPCODES_H
#define CORE_X86_EMUL_OPCODES_H

#include "core/x86/emul/decode.h"

/* The tables' maps. V, E: VEX and EVEX with that mmmmm; X: XOP. */
enum {
	TBL_1B, TBL_0F, TBL_38, TBL_3A, TBL_V1, TBL_V2, TBL_V3, TBL_E1, TBL_E2, TBL_E3, TBL_E5,
	TBL_E6, TBL_X8, TBL_X9, TBL_XA, TBL_COUNT
};

/* The key: what a row's conditions are about. */
#define KEY_MOD3  0x00000001u /* ModRM.mod == 3 */
#define KEY_REG   1           /* shift: ModRM.reg */
#define KEY_RM    4           /* shift: ModRM.rm */
#define KEY_64    0x00000080u /* 64-bit mode */
#define KEY_W     0x00000200u /* REX.W, VEX.W, EVEX.W */
#define KEY_PP    10          /* shift: mandatory prefix as in VEX.pp */
#define KEY_LL    12          /* shift: vector length */
#define KEY_L128  0x00004000u /* vector length is 128 */
#define KEY_B     0x00008000u /* EVEX.b */
#define KEY_REXB  0x00010000u /* REX.B */

#define WHEN(mask, value) ((u64)(mask) << 32 | (value))
#define ANY    0ull
#define MEM    WHEN(KEY_MOD3, 0)
#define REG    WHEN(KEY_MOD3, KEY_MOD3)
#define RG(n)  WHEN(7u << KEY_REG, (u32)(n) << KEY_REG)
#define RM(n)  WHEN(7u << KEY_RM, (u32)(n) << KEY_RM)
#define M64    WHEN(KEY_64, KEY_64)
#define N64    WHEN(KEY_64, 0)
#define W0     WHEN(KEY_W, 0)
#define W1     WHEN(KEY_W, KEY_W)
#define NP     WHEN(3u << KEY_PP, 0)
#define P66    WHEN(3u << KEY_PP, 1u << KEY_PP)
#define PF3    WHEN(3u << KEY_PP, 2u << KEY_PP)
#define PF2    WHEN(3u << KEY_PP, 3u << KEY_PP)
#define NOREP  WHEN(2u << KEY_PP, 0) /* neither F3 nor F2 */
#define L0     WHEN(3u << KEY_LL, 0)
#define L1     WHEN(3u << KEY_LL, 1u << KEY_LL)
#define L2     WHEN(3u << KEY_LL, 2u << KEY_LL)
#define L12    WHEN(KEY_L128, 0) /* 256 or 512 bits */
#define NREXB  WHEN(KEY_REXB, 0)

/*
 * Attributes. Bits 0..15 are insn.flags. Without A_* the first operand is written and the others
 * are read; the A_* are stored as the difference to that, two bits an operand.
 */
#define PRIV   INSN_F_PRIVILEGED
#define IOPL   INSN_F_IOPL
#define BR     (INSN_F_BRANCH | INSN_F_ENDS_BLOCK)
#define ENDS   INSN_F_ENDS_BLOCK
#define STR    INSN_F_STRING
#define LK     INSN_F_LOCKABLE
#define STK    INSN_F_STACK
#define COND   INSN_F_COND
#define PM     INSN_F_PROTECTED
#define UMIP   INSN_F_UMIP
#define AL16   INSN_F_ALIGNED
#define NOACC  INSN_F_NO_REAL_MEM

#define ATTR_ACCESS 16 /* shift, ten bits */
#define A_RW   (1ull << ATTR_ACCESS)                     /* first: read and written */
#define A_R    (3ull << ATTR_ACCESS)                     /* first: read */
#define A_X    ((1ull | 2ull << 2) << ATTR_ACCESS)       /* first two: read and written */
#define A_WW   (3ull << (ATTR_ACCESS + 2))               /* first two: written */
#define A_WN   (1ull << (ATTR_ACCESS + 2))               /* second: address only (LEA) */
#define A_NONE ((2ull | 1ull << 2) << ATTR_ACCESS)       /* no access at all (NOP) */
#define A_GMASK (2ull << (ATTR_ACCESS + 4))              /* third: read and written */

#define ATTR_STATE 26 /* shift, four bits: enum insn_state */
#define S_X87  ((u64)INSN_STATE_X87 << ATTR_STATE)
#define S_WAIT ((u64)INSN_STATE_WAIT << ATTR_STATE)
#define S_MMX  ((u64)INSN_STATE_MMX << ATTR_STATE)
#define S_SSE  ((u64)INSN_STATE_SSE << ATTR_STATE)
#define S_FXSR ((u64)INSN_STATE_FXSR << ATTR_STATE)
#define S_XSV  ((u64)INSN_STATE_XSAVE << ATTR_STATE)
#define S_VGPR ((u64)INSN_STATE_VEX_GPR << ATTR_STATE)
#define S_AMX  ((u64)INSN_STATE_AMX << ATTR_STATE)

#define D64    (1ull << 30) /* operand size is 64 bits by default in 64-bit mode, 66 makes it 16 */
#define F64    (1ull << 31) /* operand size is always 64 bits in 64-bit mode */
#define BYTE   (1ull << 32) /* insn.opsize is 1 */
#define MODREG (1ull << 33) /* ModRM.mod is ignored and taken for 3 (MOV CR) */
#define NEEDSIB (1ull << 35) /* #UD without a SIB byte (AMX) */
#define Z_LIM  (1ull << 37) /* operand size is 32 bits at most */
#define VS4    (1ull << 39) /* VSIB, 4-byte indices */
#define VS8    (1ull << 40) /* VSIB, 8-byte indices */
#define DISTINCT (1ull << 41) /* #UD unless destination, mask and index registers differ */
/* EVEX */
#define MK     (1ull << 42) /* merge-masking allowed */
#define MZ     (3ull << 42) /* zeroing-masking too */
#define ATTR_ZERO (2ull << 42)
#define MREQ   (1ull << 44) /* a mask other than k0 is required */
#define ER     (3ull << 45) /* embedded rounding with EVEX.b on registers */
#define SAE    (1ull << 45) /* suppress-all-exceptions with EVEX.b on registers */
#define ATTR_ER (2ull << 45)
#define ATTR_BCAST 47 /* shift, two bits: log2 of the element that EVEX.b broadcasts, 0 none */
#define BC2     (1ull << ATTR_BCAST)
#define BC4     (2ull << ATTR_BCAST)
#define BC8     (3ull << ATTR_BCAST)
#define ATTR_N 49 /* shift, three bits: disp8 scale if not the memory operand's size: log2 + 1 */
#define N1     (1ull << ATTR_N)
#define N2     (2ull << ATTR_N)
#define N4     (3ull << ATTR_N)
#define N8     (4ull << ATTR_N)
#define UNAL   (1ull << 53) /* legacy SSE, but memory need not be aligned */
#define NOMERGE (1ull << 54) /* the mask selects between the sources (VBLENDM) */
#define IGNB   (1ull << 55) /* EVEX.b is ignored on registers: nothing to round */
#define RDST   (1ull << 52) /* complex FP16: destination differs from the sources */

/*
 * Operands. Second letter, sizes: b 1, w 2, d 4, q 8, o 16, y 4 or 8 by W, v 2, 4 or 8 by operand
 * size, z 2 or 4, x vector length, h, f, e a half, quarter, eighth of it.
 */
enum insn_opspec {
	OP_NONE,
	/* ModRM.rm as a general register or memory */
	Eb, Ew, Ed, Eq, Ev, Ey, Ez,
	Ewv, /* memory: 2 bytes; register: operand size (MOV r/m, Sreg; SLDT; SMSW) */
	Ewz, /* memory: 2 bytes; register: 2 or 4 (LSL) */
	Ebd, Ewd, /* memory 1 or 2 bytes, register 4 (PINSRB, PINSRW) */
	Em,  /* 8 in 64-bit mode, else 4 (VMREAD, MOV CR) */
	/* memory only; the row also says MEM */
	M0, Mb, Mw, Md, Mq, Mo, Mt, Mv, My, Mx, Mp, Ma, Ms, M48B, M64B, M512, M14, M94,
	Mst, /* size not fixed by the encoding (XSAVE, tiles) */
	/* ModRM.reg as a general register */
	Gb, Gw, Gd, Gq, Gv, Gy, Gm,
	Ga, Ra, /* address size, by reg (MOVDIR64B), by rm (UMONITOR) */
	/* opcode bits 0..2 */
	Zb, Zv,
	/* VEX.vvvv as a general register */
	By,
	/* fixed */
	AL, AX, CL, DX, rAX, zAX, ONE, XMM0,
	/* immediates */
	Ib, Ibs, Iw, Iz, Iv, Id, Ib2, Ob, Ov, Jb, Jz, Ap,
	/* system registers: by ModRM.reg, by opcode bits 3..5 */
	Sw, Zs, Cr, Dr,
	/* x87 */
	ST0, STi,
	/* MMX: reg, rm */
	Pq, Qq, Qd,
	/* vectors by ModRM.reg */
	Vo, Vx, Vh, Vf,
	/* vectors by VEX.vvvv */
	Ho, Hx,
	/* vectors by ModRM.rm, or memory; o, q, d, w, b: an XMM register */
	Wo, Wx, Wh, Wf, We, Wq, Wd, Ww, Wb, Wy,
	Wdd, /* VMOVDDUP: 8 bytes at 128 bits, else all */
	/* immediate bits 4..7 */
	Lo, Lx,
	/* VSIB memory: size of one element */
	VMd, VMq,
	/* opmasks: reg, vvvv, rm */
	Kr, Kv, Km, Kmb, Kmw, Kmd, Kmq,
	/* the pair of VP2INTERSECT */
	Kr2,
	/* tiles: reg, vvvv, rm; memory */
	Tr, Tv, Tm,
	OPSPEC_COUNT
};

/** A row: see above. */
struct insn_row {
	u64 when;
	u64 attr;
	u16 mnemonic;
	u8 op[5];
	u8 reserved;
};

#endif
