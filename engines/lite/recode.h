/*
 * Instructions as a translator sees them: which general registers and flags one uses, which fields of its encoding name general
 * registers, and the same instruction again with other registers and another memory operand, as 64-bit code.
 *
 *	struct lite_fields f;
 *	struct lite_recode r = { .base = SCRATCH, .index = LITE_NO_REG };
 *
 *	lite_fields(insn, &f);
 *	if (f.reg != LITE_NO_REG)
 *		r.reg = host_register(f.reg);
 *	...
 *	len = lite_recode(insn, &r, out);
 *	if (!len)
 *		return by_other_means(insn);
 *
 * Pure functions of struct insn (core/x86/emul/decode.h), of any mode. Registers are numbers as encoded, GPR_RAX to GPR_R15.
 */
#ifndef ENGINES_LITE_RECODE_H
#define ENGINES_LITE_RECODE_H

#include "core/x86/emul/decode.h"

/* W of VEX or EVEX as it counts: where it would choose a 64-bit general register it is ignored outside 64-bit mode (SDM 2, VCVTSI2SD, VMOVD). */
static inline bool lite_w(const struct insn *insn)
{
	if (insn->mode == MODE_64 || !insn->w || (insn->encoding != INSN_ENC_VEX && insn->encoding != INSN_ENC_EVEX))
		return insn->w;
	switch (insn->map << 8 | insn->opcode) {
	case INSN_MAP_0F << 8 | 0x2a: case INSN_MAP_0F << 8 | 0x2c: case INSN_MAP_0F << 8 | 0x2d:
		return false; /* VCVTSI2SD and so on */
	case INSN_MAP_0F << 8 | 0x78: case INSN_MAP_0F << 8 | 0x79: case INSN_MAP_0F << 8 | 0x7b:
		return insn->mandatory != 0xf2 && insn->mandatory != 0xf3 && insn->pp != 2 && insn->pp != 3; /* VCVTTSD2USI, VCVTUSI2SD */
	case INSN_MAP_0F << 8 | 0x6e: case INSN_MAP_0F << 8 | 0x7e:
		return insn->pp != 1; /* VMOVD */
	case INSN_MAP_0F3A << 8 | 0x16: case INSN_MAP_0F3A << 8 | 0x22: /* VPEXTRD, VPINSRD */
	case INSN_MAP_0F3A << 8 | 0x60: case INSN_MAP_0F3A << 8 | 0x61:
		return false; /* VPCMPESTRM, VPCMPESTRI */
	case INSN_MAP_0F38 << 8 | 0x7c:
		return false; /* VPBROADCASTD of a register */
	default:
		return true;
	}
}

/** VZEROUPPER, VZEROALL outside 64-bit mode leave registers 8 to 15 alone (SDM 2): not for the processor in 64-bit mode. */
static inline bool lite_is_vzero32(const struct insn *insn)
{
	return insn->mode != MODE_64 && (insn->mnemonic == MN_VZEROUPPER || insn->mnemonic == MN_VZEROALL);
}

/** The arithmetic flags as a set; not where RFLAGS has them. */
#define LITE_CF	    0x01
#define LITE_PF	    0x02
#define LITE_AF	    0x04
#define LITE_ZF	    0x08
#define LITE_SF	    0x10
#define LITE_OF	    0x20
#define LITE_FL_ALL 0x3f

/** No such register, no such field. */
#define LITE_NO_REG 0xff

/** What an instruction uses. */
struct lite_use {
	/**
	 * General registers as bit sets: operands, base and index, and what is implied (RAX of MUL, RSI of MOVS, RCX of REP, RSP of
	 * PUSH). A write of 8 or 16 bits and one that may not happen (BSF, REP with RCX 0) count as a read, too.
	 */
	u16 read, write;
	u8 fl_read;  /**< the result depends on these */
	u8 fl_write; /**< get a value, be it an undefined one, whatever the operands are: not by a shift by CL, nor by one by 0 */
	u8 fl_may;   /**< may change at all; a superset of fl_write */
	u8 fl_undef; /**< part of fl_may that the manual may leave undefined */
	bool implied_mem; /**< touches memory other than through the memory operand: stack, strings, XLAT, MASKMOVDQU */
};

/**
 * What @insn uses. Instructions that are none of a program's ordinary business (system calls, interrupts, hypercalls ...) use everything:
 * all registers and flags read and written, no flag certainly.
 */
void lite_use(const struct insn *insn, struct lite_use *use);

#define LITE_BELOW_MAX 0x10000U

/**
 * What general registers are less than: @below[] of what comes before @insn, whose use is @use, becomes that of what comes behind it. At most
 * LITE_BELOW_MAX; 0: nothing is known. 64-bit code.
 */
void lite_below(const struct insn *insn, const struct lite_use *use, u32 below[16]);

/** The fields of an instruction that name general registers. */
struct lite_fields {
	/**
	 * The guest's register in each, LITE_NO_REG: no such field, or it holds something else (opcode extension, vector register ...).
	 * rm: ModRM.rm with mod 3. low: the opcode's low three bits. AH to BH are 0 to 3 with hi set. To be uniform, 40 to 4F
	 * of 32-bit code (INC, DEC) are said to have rm (they are recoded as FF /0, /1), A0 to A3 (MOV moffs) to have reg, which is RAX;
	 * NOP has none.
	 */
	u8 reg, rm, vvvv, low;
	u8 reg_acc, rm_acc, vvvv_acc, low_acc;	   /**< OPA_* */
	u8 reg_size, rm_size, vvvv_size, low_size; /**< bytes */
	bool reg_hi, rm_hi, low_hi;
	bool hi_byte; /**< any of these */
};
void lite_fields(const struct insn *insn, struct lite_fields *f);

#define LITE_RECODE_MAX 32

/** What to put into an instruction's fields. */
struct lite_recode {
	/** Host registers for the fields that lite_fields() names, the others are ignored. For AH to BH: 0 to 3, the register it is in. */
	u8 reg, rm, vvvv, low;
	/**
	 * The memory operand, in place of the guest's or with rm_to_mem of the rm register. base: any, LITE_NO_REG: none (disp alone);
	 * index: any but RSP, LITE_NO_REG: none; scale: 1, 2, 4, 8.
	 */
	u8 base, index, scale;
	s32 disp;
	/** Take the memory form instead of that with a general register in rm. That it exists and means the same is the caller's to know, see lite_rm_may_be_mem(). */
	bool rm_to_mem;
};

/**
 * Whether @insn has a general register in rm whose place can be taken by eight bytes of memory that hold it (AH to BH: by the second of
 * them): the memory form exists, it reads no more, and what it writes is all that changes. Not so where 32 bits are written, which
 * clear the upper half of a register only. XCHG becomes a locked one.
 */
bool lite_rm_may_be_mem(const struct insn *insn);

/**
 * The same instruction (where that does not exist, VZEROUPPER and VZEROALL of 32-bit code: instructions that do it) as 64-bit code, with these registers and this memory operand, without segment override and 67. XACQUIRE, XRELEASE
 * and prefixes without meaning are dropped.
 *
 * Returns its length (at most LITE_RECODE_MAX), or 0 if it cannot be had: AH to BH with what needs a REX prefix, no 64-bit
 * form, VSIB, 3DNow!, XOP, AMX, branches, what touches memory that is not its operand, anything privileged and in general all that
 * depends on more than registers, flags, x87 and vector state and the memory operand (RDRAND, RDSEED, LDMXCSR and cache hints excepted).
 */
unsigned lite_recode(const struct insn *insn, const struct lite_recode *r, u8 *out);

#endif
