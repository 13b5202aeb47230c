/*
 * The instruction decoder: bytes in, struct insn out, for 16-, 32- and 64-bit code; legacy, 3DNow!,
 * VEX, XOP and EVEX encodings. The emulator and the lite engine both stand on it.
 *
 * It has no state and no side effects, and reads nothing but the bytes it is given.
 *
 *	struct insn insn;
 *
 *	switch (insn_decode(&insn, buf, n, MODE_64)) {
 *	case 0:              return run(&insn);                 // insn.len bytes were used
 *	case INSN_NEED_MORE: return fetch_next_page();          // then decode again from the start
 *	case INSN_UD:        return inject(vcpu, UD_VECTOR);
 *	case INSN_TOO_LONG:  return inject_error(vcpu, GP_VECTOR, 0);
 *	}
 *
 * An instruction that decodes is one whose encoding is defined; whether this vCPU has it (CPUID,
 * CR0, CR4, CPL) is the emulator's question, which INSN_F_* and insn.state help to answer.
 */
#ifndef CORE_X86_EMUL_DECODE_H
#define CORE_X86_EMUL_DECODE_H

#include "core/x86/x86.h"
#include "core/x86/emul/mnemonics.h"
#include "core/x86/emul/mnemonics_simd.h"

/** Default sizes of the code segment: CS.D = 0, CS.D = 1 (or compatibility mode), CS.L = 1. */
enum insn_mode { MODE_16, MODE_32, MODE_64 };

#define INSN_MAX_LEN 15

/** What insn_decode() returns. */
enum insn_error {
	INSN_OK = 0,
	INSN_NEED_MORE = -1, /**< the buffer ends before the instruction does */
	INSN_UD = -2,        /**< undefined: #UD */
	INSN_TOO_LONG = -3,  /**< more than 15 bytes: #GP(0) */
};

#define INSN_MNEMONIC_ENUM(name) MN_##name,
enum mnemonic {
	MN_INVALID,
	INSN_MNEMONICS(INSN_MNEMONIC_ENUM)
	MN_SIMD_FIRST, /**< everything after this works on vector, mask or tile registers */
	INSN_MNEMONICS_SIMD(INSN_MNEMONIC_ENUM)
	MN_COUNT
};
#undef INSN_MNEMONIC_ENUM

/** How the instruction was encoded. */
enum insn_encoding {
	INSN_ENC_LEGACY,
	INSN_ENC_3DNOW,
	INSN_ENC_VEX,
	INSN_ENC_XOP,
	INSN_ENC_EVEX,
};

/** insn.map: the opcode map. VEX and EVEX use the same numbers (their mmmmm field). */
enum insn_map {
	INSN_MAP_1BYTE = 0,
	INSN_MAP_0F = 1,
	INSN_MAP_0F38 = 2,
	INSN_MAP_0F3A = 3,
	INSN_MAP_4 = 4, /**< unused */
	INSN_MAP_5 = 5, /**< EVEX only (FP16) */
	INSN_MAP_6 = 6, /**< EVEX only (FP16) */
	INSN_MAP_0F0F = 7, /**< 3DNow! */
	INSN_MAP_XOP8 = 8,
	INSN_MAP_XOP9 = 9,
	INSN_MAP_XOPA = 10,
};

/** General registers by number, as encoded. */
enum insn_gpr {
	GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI,
	GPR_R8, GPR_R9, GPR_R10, GPR_R11, GPR_R12, GPR_R13, GPR_R14, GPR_R15,
	INSN_REG_NONE = 0xff, /**< mem.base, mem.index: no such register */
};

/** No segment override; otherwise SEG_* of x86.h. */
#define INSN_SEG_NONE 0xff

enum operand_kind {
	OPK_NONE,
	OPK_GPR,    /**< reg 0..15, size 1, 2, 4 or 8; size 1: the low byte (AL..R15B) */
	OPK_GPR_HI, /**< reg 0..3 = AH, CH, DH, BH (not 4..7), size 1 */
	OPK_MEM,    /**< see insn.mem; an instruction has at most one */
	OPK_IMM,    /**< see insn.imm (or insn.imm2: operand.reg = 1), extended to operand size */
	OPK_REL,    /**< branch displacement: see insn.imm, relative to the next instruction */
	OPK_FAR,    /**< direct far pointer: offset in insn.imm, selector in insn.imm2 */
	OPK_CREG,
	OPK_DREG,
	OPK_SREG,   /**< SEG_* of x86.h */
	OPK_ST,     /**< x87 ST(reg) */
	OPK_MMX,
	OPK_XMM,    /**< reg 0..31 */
	OPK_YMM,
	OPK_ZMM,
	OPK_KREG,
	OPK_TMM,
	OPK_ONE,    /**< the constant 1 of D0/D1 shifts; insn.imm is also 1 */
};

/** operand.access. A conditional access (CMOVcc, masked vector forms) counts as an access. */
#define OPA_READ  1
#define OPA_WRITE 2
#define OPA_RW    3

/** operand.field: the part of the encoding that names the register. */
enum operand_field {
	OPF_NONE, /**< none: it is fixed (AL, CL, DX, ST(0), 1), or no register */
	OPF_REG,  /**< ModRM.reg */
	OPF_RM,   /**< ModRM.rm (memory forms too) */
	OPF_VVVV, /**< VEX.vvvv */
	OPF_LOW,  /**< the opcode's low three bits */
	OPF_IS4,  /**< bits 7:4 of the immediate */
};

/**
 * One operand, in the manuals' order (destination first). Only operands that the assembly form
 * shows are listed, fixed ones (AL, CL, DX, ST(0), 1) included; what is implied (string pointers,
 * the stack, EDX:EAX of MUL) is not.
 */
struct operand {
	u8 kind;   /**< enum operand_kind */
	u8 reg;    /**< register number, REX/VEX/EVEX extensions applied */
	u8 access; /**< OPA_*; 0: the address only (LEA) or nothing (NOP) */
	u8 field;  /**< enum operand_field */
	u16 size;  /**< bytes. Vector registers: their width. Memory: see insn.mem.size */
};

/** The memory operand. */
struct insn_mem {
	s64 disp;  /**< sign-extended, EVEX-scaled; MOV moffs: the zero-extended address */
	u8 base;   /**< enum insn_gpr or INSN_REG_NONE */
	u8 index;  /**< enum insn_gpr, INSN_REG_NONE; with vsib: a vector register number */
	u8 scale;  /**< 1, 2, 4, 8; 0 without an index */
	u8 seg;    /**< SEG_*: the segment in force; overrides and 64-bit rules applied */
	u16 size;  /**< bytes that are accessed; 0: none, or not fixed (XSAVE) */
	u8 access; /**< OPA_*; 0: address only */
	bool rip_rel; /**< disp is relative to the next instruction (EIP if addrsize is 4) */
	u8 vsib;   /**< 0, or the width of the index register in bytes (16, 32, 64) */
	u8 vsib_elem; /**< bytes per index (4, 8) */
	u8 bcast;  /**< EVEX.b: size bytes are read once and broadcast to this many elements; 0 no */
};

/** insn.state: the processor state it works on, which CR0, CR4 and XCR0 can switch off. */
enum insn_state {
	INSN_STATE_NONE,
	INSN_STATE_X87,    /**< #NM on CR0.EM or CR0.TS */
	INSN_STATE_WAIT,   /**< FWAIT: #NM on CR0.MP && CR0.TS */
	INSN_STATE_MMX,    /**< #UD on CR0.EM, #NM on CR0.TS (MMX, 3DNow!) */
	INSN_STATE_SSE,    /**< #UD on CR0.EM or !CR4.OSFXSR, #NM on CR0.TS */
	INSN_STATE_FXSR,   /**< FXSAVE, FXRSTOR: #NM on CR0.EM or CR0.TS */
	INSN_STATE_XSAVE,  /**< XSAVE and kin: #UD on !CR4.OSXSAVE, #NM on CR0.TS */
	INSN_STATE_AVX,    /**< #UD on !CR4.OSXSAVE or XCR0[2:1] != 3, #NM on CR0.TS */
	INSN_STATE_AVX512, /**< ditto, XCR0[7:5] too */
	INSN_STATE_VEX_GPR, /**< VEX on general registers (BMI): no check but protected mode */
	INSN_STATE_AMX,
};

/* insn.flags */
/* CPL 0 only, else #GP(0). Not set where the refusal is a #UD, or one comes first (VMX, SVM, MONITOR, CLAC). */
#define INSN_F_PRIVILEGED 0x0001
#define INSN_F_IOPL       0x0002 /**< subject to IOPL (CLI, STI, IN, OUT, PUSHF in v86 ...) */
#define INSN_F_BRANCH     0x0004 /**< may change RIP other than to the next instruction */
#define INSN_F_ENDS_BLOCK 0x0008 /**< a translator must end its block here (branches included) */
#define INSN_F_STRING     0x0010 /**< string instruction: insn.rep applies, see insn.mem.seg */
#define INSN_F_LOCKABLE   0x0020 /**< read-modify-write of memory for which LOCK is allowed */
#define INSN_F_STACK      0x0040 /**< pushes or pops implicitly */
#define INSN_F_COND       0x0080 /**< insn.cond is meaningful */
#define INSN_F_PROTECTED  0x0100 /**< #UD in real and virtual-8086 mode */
#define INSN_F_UMIP       0x0200 /**< #GP(0) at CPL > 0 with CR4.UMIP */
#define INSN_F_ALIGNED    0x0400 /**< #GP(0) unless memory is aligned to mem.size (MOVAPS ...) */
#define INSN_F_NO_REAL_MEM 0x0800 /**< touches no memory through its memory operand */
#define INSN_F_SSE_ALIGN  0x1000 /**< legacy SSE: 16-byte memory operands must be aligned */
#define INSN_F_MOV_SS     0x2000 /**< MOV SS, POP SS: inhibits interrupts for one instruction */

/** Values of insn.rep. */
enum insn_rep { INSN_REP_NONE = 0, INSN_REP_NE = 0xf2, INSN_REP_E = 0xf3 };

/** A decoded instruction. */
struct insn {
	u16 mnemonic;   /**< enum mnemonic */
	u16 flags;      /**< INSN_F_* */
	u8 len;         /**< in bytes */
	u8 mode;        /**< enum insn_mode */
	u8 encoding;    /**< enum insn_encoding */
	u8 map;         /**< enum insn_map */
	u8 opcode;      /**< the opcode byte (3DNow!: the suffix byte) */
	u8 modrm;       /**< raw; mod, reg, rm below without extensions */
	u8 sib;
	u8 mod, reg, rm;
	bool has_modrm, has_sib;
	u8 state;       /**< enum insn_state */
	u8 cond;        /**< tttn: 0 O, 1 NO, 2 B, 3 AE, 4 E, 5 NE ... (INSN_F_COND) */

	/* Prefixes. rep is the last F2/F3 given, also where it selected the opcode or means nothing. */
	bool lock;
	u8 rep;         /**< enum insn_rep */
	bool pfx66, pfx67;
	u8 seg_override; /**< SEG_* or INSN_SEG_NONE; in 64-bit mode only FS and GS count */
	bool has_rex;
	u8 rex;         /**< the REX byte; for VEX, XOP, EVEX: 0x40 | WRXB as REX would say it */
	u8 mandatory;   /**< 0, 0x66, 0xf2, 0xf3: the prefix that is part of the opcode */

	u8 opsize;      /**< effective operand size in bytes: 2, 4, 8 (1: byte forms) */
	u8 addrsize;    /**< effective address size in bytes: 2, 4, 8 */
	u8 nops;        /**< operands in op[] */

	/* VEX, XOP, EVEX */
	u8 vl;          /**< vector length in bytes: 16, 32, 64; 0 if not a vector instruction */
	u8 vvvv;        /**< as a register number (inverted already, V' included) */
	bool w;         /**< REX.W, VEX.W */
	u8 pp;          /**< 0 none, 1 66, 2 F3, 3 F2 */
	u8 ll;          /**< VEX.L or EVEX.L'L, raw */
	u8 aaa;         /**< EVEX opmask register, 0: none */
	bool z;         /**< EVEX zeroing-masking */
	bool b;         /**< EVEX broadcast, rounding control or SAE */
	bool sae;       /**< EVEX.b on a register form: exceptions are suppressed */
	u8 round;       /**< 0: by MXCSR; 4 | EVEX.L'L: embedded rounding (0 RN, 1 RD, 2 RU, 3 RZ) */

	/* Where things are in bytes[] (0: not there, except prefixes) and how long they are. */
	u8 opcode_off;  /**< also the number of prefix and escape bytes */
	u8 prefix_len;  /**< legacy and REX prefixes only */
	u8 modrm_off, sib_off;
	u8 disp_off, disp_size;
	u8 imm_off, imm_size;   /**< of imm; both imm and imm2 if there are two */
	u8 imm2_size;           /**< of these, the bytes of imm2 */

	bool has_mem;   /**< op[mem_op] is mem */
	u8 mem_op;
	struct insn_mem mem;
	u64 imm;        /**< sign-extended to 64 bits where the instruction says so */
	u64 imm2;       /**< ENTER: nesting level; far pointers: selector; EXTRQ, INSERTQ: index */
	struct operand op[5];
	u8 bytes[INSN_MAX_LEN]; /**< the first len are the instruction, the others unspecified */
};

/**
 * Decodes the instruction at the start of a buffer.
 *
 * @out: the result; unspecified unless 0 is returned
 * @bytes: the code
 * @avail: how many bytes may be read, no more than 15 are
 * @mode: the code segment's default size
 *
 * Returns 0 or a negative enum insn_error. INSN_UD wins over INSN_NEED_MORE as soon as the bytes seen
 * cannot begin a defined instruction.
 */
int insn_decode(struct insn *out, const u8 *bytes, unsigned int avail, enum insn_mode mode);

/** The name of a mnemonic in upper case, without the prefix MN_. */
const char *mnemonic_name(enum mnemonic mnemonic);

/** op[] entry that is the memory operand, or NULL. */
static inline const struct operand *insn_mem_op(const struct insn *insn)
{
	return insn->has_mem ? &insn->op[insn->mem_op] : NULL;
}

#endif
