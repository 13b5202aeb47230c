/*
 * The decoder on encodings that are easily got wrong, one by one, with what the manuals say of them:
 * expectations that owe nothing to another decoder.
 */
#include "core/x86/emul/decode.h"
#include "tests/tap.h"

/* A field that matters is set; others are zero. Sizes and registers are compared where they are nonzero or NONE. */
struct expect {
	const char *name;
	enum insn_mode mode;
	const char *hex;
	int err;
	u16 mnemonic;
	u8 len;
	u8 opsize;
	struct {
		u8 kind, reg, access;
		u16 size;
	} op[4];
	s64 disp;
	int base, index; /* 0: not looked at; -1: none; else register + 1 */
	u8 scale;
	int seg; /* register + 1 */
	u64 imm;
	u8 cond; /* + 1 */
};

#define R_ OPA_READ
#define W_ OPA_WRITE
#define RW OPA_RW
#define REGNO(n) ((n) + 1)

static const struct expect cases[] = {
	/* Prefixes */
	{ "REX before another prefix is lost", MODE_64, "48 66 89 c8", 0, MN_MOV, 4, 2,
	  { { OPK_GPR, 0, W_, 2 }, { OPK_GPR, 1, R_, 2 } } },
	{ "REX.W wins over 66", MODE_64, "66 48 89 c8", 0, MN_MOV, 4, 8,
	  { { OPK_GPR, 0, W_, 8 }, { OPK_GPR, 1, R_, 8 } } },
	{ "of two REX prefixes the last counts", MODE_64, "4f 41 89 c8", 0, MN_MOV, 4, 4,
	  { { OPK_GPR, 8, W_, 4 }, { OPK_GPR, 1, R_, 4 } } },
	{ "40 is INC outside 64-bit mode", MODE_32, "40", 0, MN_INC, 1, 4, { { OPK_GPR, 0, RW, 4 } } },
	{ "66 makes 16-bit code 32-bit", MODE_16, "66 40", 0, MN_INC, 2, 4, { { OPK_GPR, 0, RW, 4 } } },
	{ "the last segment override counts", MODE_32, "2e 64 8b 00", 0, MN_MOV, 4, 4, { { 0 } }, 0, REGNO(0),
	  -1, 0, REGNO(SEG_FS) },
	{ "DS override is ignored in 64-bit mode", MODE_64, "3e 8b 04 24", 0, MN_MOV, 4, 4, { { 0 } }, 0,
	  REGNO(4), -1, 0, REGNO(SEG_SS) },
	{ "fifteen bytes are allowed", MODE_64, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", 0, MN_NOP, 15 },
	{ "sixteen are not", MODE_64, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", INSN_TOO_LONG },
	{ "an immediate that ends after byte 15", MODE_64, "66 66 66 66 66 66 66 66 66 66 66 66 81 c0 00 00",
	  INSN_TOO_LONG },
	{ "a cut opcode asks for more", MODE_64, "0f", INSN_NEED_MORE },
	{ "a cut displacement asks for more", MODE_64, "8b 05 00 00 00", INSN_NEED_MORE },
	{ "nothing asks for more", MODE_64, "", INSN_NEED_MORE },

	/* Registers */
	{ "AH without REX", MODE_64, "88 e0", 0, MN_MOV, 2, 1, { { OPK_GPR, 0, W_, 1 }, { OPK_GPR_HI, 0, R_, 1 } } },
	{ "SPL with REX", MODE_64, "40 88 e0", 0, MN_MOV, 3, 1, { { OPK_GPR, 0, W_, 1 }, { OPK_GPR, 4, R_, 1 } } },
	{ "MOV AH, imm8", MODE_32, "b4 12", 0, MN_MOV, 2, 1, { { OPK_GPR_HI, 0, W_, 1 }, { OPK_IMM, 0, R_, 1 } }, 0, 0, 0,
	  0, 0, 0x12 },
	{ "MOV r64, imm64", MODE_64, "48 b8 88 77 66 55 44 33 22 11", 0, MN_MOV, 10, 8,
	  { { OPK_GPR, 0, W_, 8 }, { OPK_IMM, 0, R_, 8 } }, 0, 0, 0, 0, 0, 0x1122334455667788 },
	{ "MOV r/m64, imm32 is sign-extended", MODE_64, "48 c7 c0 ff ff ff ff", 0, MN_MOV, 7, 8,
	  { { OPK_GPR, 0, W_, 8 }, { OPK_IMM, 0, R_, 8 } }, 0, 0, 0, 0, 0, ~0ull },
	{ "41 90 is XCHG r8d, eax", MODE_64, "41 90", 0, MN_XCHG, 2, 4, { { OPK_GPR, 8, RW, 4 }, { OPK_GPR, 0, RW, 4 } } },
	{ "90 is NOP", MODE_64, "90", 0, MN_NOP, 1 },
	{ "48 90 is NOP", MODE_64, "48 90", 0, MN_NOP, 2 },
	{ "F3 90 is PAUSE", MODE_64, "f3 90", 0, MN_PAUSE, 2 },

	/* Addressing */
	{ "RIP-relative", MODE_64, "8b 05 fc ff ff ff", 0, MN_MOV, 6, 4, { { 0 } }, -4, -1, -1 },
	{ "disp32 without a base in 32-bit mode", MODE_32, "8b 05 fc ff ff ff", 0, MN_MOV, 6, 4, { { 0 } }, -4, -1, -1 },
	{ "SIB without index", MODE_64, "8b 04 24", 0, MN_MOV, 3, 4, { { 0 } }, 0, REGNO(4), -1, 0, REGNO(SEG_SS) },
	{ "R12 as an index", MODE_64, "42 8b 04 60", 0, MN_MOV, 4, 4, { { 0 } }, 0, REGNO(0), REGNO(12), 2 },
	{ "R13 as a base needs a displacement", MODE_64, "41 8b 45 00", 0, MN_MOV, 4, 4, { { 0 } }, 0, REGNO(13), -1, 0,
	  REGNO(SEG_DS) },
	{ "SIB without a base, REX.B or not", MODE_64, "41 8b 04 25 78 56 34 12", 0, MN_MOV, 8, 4, { { 0 } }, 0x12345678,
	  -1, -1 },
	{ "[bp+si]", MODE_16, "8b 02", 0, MN_MOV, 2, 2, { { 0 } }, 0, REGNO(5), REGNO(6), 1, REGNO(SEG_SS) },
	{ "[disp16]", MODE_16, "8b 06 00 80", 0, MN_MOV, 4, 2, { { 0 } }, -0x8000, -1, -1, 0, REGNO(SEG_DS) },
	{ "67 in 16-bit mode: SIB", MODE_16, "67 8b 04 8d 00 00 00 80", 0, MN_MOV, 8, 2, { { 0 } }, -0x80000000ll, -1,
	  REGNO(1), 4 },
	{ "moffs64", MODE_64, "a0 88 77 66 55 44 33 22 f1", 0, MN_MOV, 9, 1,
	  { { OPK_GPR, 0, W_, 1 }, { OPK_MEM, 0, R_, 1 } }, (s64)0xf122334455667788ull, -1, -1 },
	{ "moffs with 67", MODE_64, "67 a1 44 33 22 f1", 0, MN_MOV, 6, 4, { { 0 } }, 0xf1223344, -1, -1 },

	/* Operand sizes */
	{ "PUSH is 64 bits by default", MODE_64, "50", 0, MN_PUSH, 1, 8, { { OPK_GPR, 0, R_, 8 } } },
	{ "PUSH with 66 is 16 bits", MODE_64, "66 50", 0, MN_PUSH, 2, 2, { { OPK_GPR, 0, R_, 2 } } },
	{ "PUSH imm8 is sign-extended", MODE_64, "6a 80", 0, MN_PUSH, 2, 8, { { OPK_IMM, 0, R_, 8 } }, 0, 0, 0, 0, 0,
	  ~0x7full },
	{ "a near call ignores 66 in 64-bit mode", MODE_64, "66 e8 fc ff ff ff", 0, MN_CALL_NEAR, 6, 8,
	  { { OPK_REL, 0, R_, 8 } }, 0, 0, 0, 0, 0, (u64)-4 },
	{ "a near call with 66 in 32-bit mode", MODE_32, "66 e8 fc ff", 0, MN_CALL_NEAR, 4, 2, { { OPK_REL, 0, R_, 2 } }, 0,
	  0, 0, 0, 0, (u64)-4 },
	{ "JNE rel8", MODE_32, "75 fe", 0, MN_JCC, 2, 4, { { OPK_REL, 0, R_, 4 } }, 0, 0, 0, 0, 0, (u64)-2, 5 + 1 },
	{ "far call", MODE_16, "9a 34 12 78 56", 0, MN_CALL_FAR, 5, 2, { { OPK_FAR, 0, R_, 4 } }, 0, 0, 0, 0, 0, 0x1234 },
	{ "far jump through memory, REX.W", MODE_64, "48 ff 28", 0, MN_JMP_FAR, 3, 8, { { OPK_MEM, 0, R_, 10 } } },
	{ "LGDT reads ten bytes", MODE_64, "66 0f 01 10", 0, MN_LGDT, 4, 8, { { OPK_MEM, 0, R_, 10 } } },
	{ "SGDT writes six", MODE_32, "0f 01 00", 0, MN_SGDT, 3, 4, { { OPK_MEM, 0, W_, 6 } } },
	{ "MOV from CR ignores mod", MODE_32, "0f 20 00", 0, MN_MOV_CR, 3, 4, { { OPK_GPR, 0, W_, 4 }, { OPK_CREG, 0, R_, 4 } } },
	{ "MOV CR8", MODE_64, "44 0f 22 c0", 0, MN_MOV_CR, 4, 8, { { OPK_CREG, 8, W_, 8 }, { OPK_GPR, 0, R_, 8 } } },
	{ "MOV CR1 is undefined", MODE_64, "0f 22 c8", INSN_UD },
	{ "MOV r64, Sreg", MODE_64, "48 8c d8", 0, MN_MOV_SREG, 3, 8, { { OPK_GPR, 0, W_, 8 }, { OPK_SREG, SEG_DS, R_, 2 } } },
	{ "MOV m16, Sreg", MODE_64, "48 8c 18", 0, MN_MOV_SREG, 3, 8, { { OPK_MEM, 0, W_, 2 }, { OPK_SREG, SEG_DS, R_, 2 } } },
	{ "MOV CS is undefined", MODE_32, "8e c8", INSN_UD },
	{ "CMPXCHG8B", MODE_64, "f0 0f c7 08", 0, MN_CMPXCHG8B, 4, 4, { { OPK_MEM, 0, RW, 8 } } },
	{ "CMPXCHG16B", MODE_64, "f0 48 0f c7 08", 0, MN_CMPXCHG16B, 5, 8, { { OPK_MEM, 0, RW, 16 } } },
	{ "IN EAX ignores REX.W", MODE_64, "48 ed", 0, MN_IN, 2, 4, { { OPK_GPR, 0, W_, 4 }, { OPK_GPR, 2, R_, 2 } } },
	{ "ENTER's two immediates", MODE_32, "c8 34 12 05", 0, MN_ENTER, 4, 4, { { OPK_IMM, 0, R_, 2 } }, 0, 0, 0, 0, 0,
	  0x1234 },

	/* LOCK */
	{ "LOCK on a register", MODE_64, "f0 01 c0", INSN_UD },
	{ "LOCK on a load", MODE_64, "f0 03 00", INSN_UD },
	{ "LOCK CMP", MODE_64, "f0 39 00", INSN_UD },
	{ "LOCK XADD", MODE_64, "f0 0f c1 00", 0, MN_XADD, 4, 4, { { OPK_MEM, 0, RW, 4 }, { OPK_GPR, 0, RW, 4 } } },
	{ "LOCK BT is undefined, LOCK BTS is not", MODE_64, "f0 0f a3 00", INSN_UD },
	{ "LOCK BTS", MODE_64, "f0 0f ab 00", 0, MN_BTS, 4, 4 },

	/* Invalid in 64-bit mode */
	{ "PUSH ES in 64-bit mode", MODE_64, "06", INSN_UD },
	{ "82 in 64-bit mode", MODE_64, "82 c0 01", INSN_UD },
	{ "SALC in 64-bit mode", MODE_64, "d6", INSN_UD },
	{ "9A in 64-bit mode", MODE_64, "9a 00 00 00 00 00 00", INSN_UD },
	{ "63 is ARPL in 32-bit mode", MODE_32, "63 c8", 0, MN_ARPL, 2, 4, { { OPK_GPR, 0, RW, 2 }, { OPK_GPR, 1, R_, 2 } } },
	{ "63 is MOVSXD in 64-bit mode", MODE_64, "48 63 c8", 0, MN_MOVSXD, 3, 8,
	  { { OPK_GPR, 1, W_, 8 }, { OPK_GPR, 0, R_, 4 } } },

	/* VEX and its look-alikes */
	{ "C5 with mod 0 is LDS", MODE_32, "c5 00", 0, MN_LDS, 2, 4, { { OPK_GPR, 0, W_, 4 }, { OPK_MEM, 0, R_, 6 } } },
	{ "C5 with mod 3 is VEX", MODE_32, "c5 f8 77", 0, MN_VZEROUPPER, 3 },
	{ "62 with mod 0 is BOUND", MODE_16, "62 00", 0, MN_BOUND, 2, 2, { { OPK_GPR, 0, R_, 2 }, { OPK_MEM, 0, R_, 4 } } },
	{ "8F /0 is POP", MODE_64, "8f 00", 0, MN_POP, 2, 8, { { OPK_MEM, 0, W_, 8 } } },
	{ "66 before VEX", MODE_64, "66 c5 f8 77", INSN_UD },
	{ "REX before VEX", MODE_64, "48 c5 f8 77", INSN_UD },
	{ "VEX.vvvv must be 1111 if unused", MODE_64, "c5 f0 28 c1", INSN_UD },
	{ "VADDPS ymm", MODE_64, "c5 bc 58 0a", 0, MN_VADDPS, 4, 0,
	  { { OPK_YMM, 1, W_, 32 }, { OPK_YMM, 8, R_, 32 }, { OPK_MEM, 0, R_, 32 } } },
	{ "VBLENDVPS's fourth register", MODE_64, "c4 e3 71 4a c2 90", 0, MN_VBLENDVPS, 6, 0,
	  { { OPK_XMM, 0, W_, 16 }, { OPK_XMM, 1, R_, 16 }, { OPK_XMM, 2, R_, 16 }, { OPK_XMM, 9, R_, 16 } } },
	{ "a gather into its own mask", MODE_64, "c4 e2 69 90 14 00", INSN_UD },
	{ "ANDN", MODE_64, "c4 e2 f0 f2 c2", 0, MN_ANDN, 5, 0, { { OPK_GPR, 0, W_, 8 }, { OPK_GPR, 1, R_, 8 }, { OPK_GPR, 2, R_, 8 } } },

	/* EVEX */
	{ "disp8 times the vector", MODE_64, "62 f1 7c 48 58 40 01", 0, MN_VADDPS, 7, 0,
	  { { OPK_ZMM, 0, W_, 64 }, { OPK_ZMM, 0, R_, 64 }, { OPK_MEM, 0, R_, 64 } }, 64, REGNO(0) },
	{ "disp8 times the broadcast element", MODE_64, "62 f1 7c 58 58 40 01", 0, MN_VADDPS, 7, 0,
	  { { OPK_ZMM, 0, W_, 64 }, { OPK_ZMM, 0, R_, 64 }, { OPK_MEM, 0, R_, 4 } }, 4, REGNO(0) },
	{ "disp8 times half a vector", MODE_64, "62 f1 7e 48 e6 40 ff", 0, MN_VCVTDQ2PD, 7, 0,
	  { { OPK_ZMM, 0, W_, 64 }, { OPK_MEM, 0, R_, 32 } }, -32, REGNO(0) },
	{ "disp8 times an element: compress", MODE_64, "62 f2 7d 48 8a 40 01", 0, MN_VCOMPRESSPS, 7, 0,
	  { { OPK_MEM, 0, W_, 64 }, { OPK_ZMM, 0, R_, 64 } }, 4, REGNO(0) },
	{ "disp8 of VMOVDDUP xmm", MODE_64, "62 f1 ff 08 12 40 01", 0, MN_VMOVDDUP, 7, 0,
	  { { OPK_XMM, 0, W_, 16 }, { OPK_MEM, 0, R_, 8 } }, 8, REGNO(0) },
	{ "registers 16 to 31", MODE_64, "62 01 1c 40 58 f7", 0, MN_VADDPS, 6, 0,
	  { { OPK_ZMM, 30, W_, 64 }, { OPK_ZMM, 28, R_, 64 }, { OPK_ZMM, 31, R_, 64 } } },
	{ "L'L = 3 without rounding", MODE_64, "62 f1 7c 68 58 00", INSN_UD },
	{ "embedded rounding", MODE_64, "62 f1 7c 78 58 c0", 0, MN_VADDPS, 6, 0,
	  { { OPK_ZMM, 0, W_, 64 }, { OPK_ZMM, 0, R_, 64 }, { OPK_ZMM, 0, R_, 64 } } },
	{ "zeroing without a mask", MODE_64, "62 f1 7c c8 58 c0", INSN_UD },
	{ "zeroing of memory", MODE_64, "62 f1 7c c9 11 00", INSN_UD },
	{ "a gather without a mask", MODE_64, "62 f2 7d 48 90 04 08", INSN_UD },
	{ "merging reads the destination", MODE_64, "62 f1 7c 49 58 c0", 0, MN_VADDPS, 6, 0, { { OPK_ZMM, 0, RW, 64 } } },

	/* Mandatory prefixes */
	{ "F3 wins over 66", MODE_64, "66 f3 0f 58 c1", 0, MN_ADDSS, 5 },
	{ "the last of F2 and F3 counts", MODE_64, "f3 f2 0f 58 c1", 0, MN_ADDSD, 5 },
	{ "POPCNT", MODE_64, "f3 0f b8 c1", 0, MN_POPCNT, 4, 4 },
	{ "0F B8 without F3", MODE_64, "0f b8 c1", INSN_UD },
	{ "TZCNT", MODE_64, "66 f3 0f bc c1", 0, MN_TZCNT, 5, 2 },
	{ "CRC32 of 16 bits", MODE_64, "66 f2 0f 38 f1 c1", 0, MN_CRC32, 6, 2, { { OPK_GPR, 0, RW, 4 }, { OPK_GPR, 1, R_, 2 } } },
	{ "MOVBE", MODE_64, "66 0f 38 f0 00", 0, MN_MOVBE, 5, 2, { { OPK_GPR, 0, W_, 2 }, { OPK_MEM, 0, R_, 2 } } },
	{ "MOVQ xmm, r64", MODE_64, "66 48 0f 6e c0", 0, MN_MOVQ, 5, 8, { { OPK_XMM, 0, W_, 16 }, { OPK_GPR, 0, R_, 8 } } },
	{ "ENDBR64", MODE_64, "f3 0f 1e fa", 0, MN_ENDBR64, 4 },
	{ "RDPID ignores REX.W", MODE_64, "f3 0f c7 f8", 0, MN_RDPID, 4, 8, { { OPK_GPR, 0, W_, 8 } } },

	/* Others */
	{ "3DNow!: the opcode comes last", MODE_32, "0f 0f 40 08 9e", 0, MN_PFADD, 5, 0,
	  { { OPK_MMX, 0, RW, 8 }, { OPK_MEM, 0, R_, 8 } }, 8, REGNO(0) },
	{ "x87: FADD ST(2), ST(0)", MODE_32, "dc c2", 0, MN_FADD, 2, 0, { { OPK_ST, 2, RW, 10 }, { OPK_ST, 0, R_, 10 } } },
	{ "x87: DC E0 is FSUBR, D8 E0 is FSUB", MODE_32, "dc e1", 0, MN_FSUBR, 2 },
	{ "x87: FNSAVE is 94 bytes with 66", MODE_32, "66 dd 30", 0, MN_FNSAVE, 3, 2, { { OPK_MEM, 0, W_, 94 } } },
	{ "LEA of a register", MODE_64, "8d c0", INSN_UD },
	{ "LEA accesses nothing", MODE_64, "8d 04 8b", 0, MN_LEA, 3, 4, { { OPK_GPR, 0, W_, 4 }, { OPK_MEM, 0, 0, 0 } }, 0,
	  REGNO(3), REGNO(1), 4 },
	{ "UD2", MODE_64, "0f 0b", 0, MN_UD2, 2 },
	{ "0F 0A is undefined", MODE_64, "0f 0a", INSN_UD },
	{ "SETcc", MODE_64, "0f 9f c0", 0, MN_SETCC, 3, 1, { { OPK_GPR, 0, W_, 1 } }, 0, 0, 0, 0, 0, 0, 15 + 1 },
	{ "FCMOVNU", MODE_64, "db d9", 0, MN_FCMOVCC, 2, 0, { { OPK_ST, 0, RW, 10 }, { OPK_ST, 1, R_, 10 } }, 0, 0, 0, 0, 0, 0,
	  11 + 1 },
	{ "REP MOVSQ", MODE_64, "f3 48 a5", 0, MN_MOVS, 3, 8 },
	{ "FS override of MOVS", MODE_64, "64 a4", 0, MN_MOVS, 2, 1, { { 0 } }, 0, 0, 0, 0, REGNO(SEG_FS) },
	{ "shift by one", MODE_32, "d1 e0", 0, MN_SHL, 2, 4, { { OPK_GPR, 0, RW, 4 }, { OPK_ONE, 0, R_, 1 } }, 0, 0, 0, 0, 0, 1 },
};

static unsigned int parse_hex(const char *hex, u8 *bytes)
{
	unsigned int n = 0, value;

	while (sscanf(hex, "%2x", &value) == 1) {
		bytes[n++] = value;
		hex += 2;
		while (*hex == ' ')
			hex++;
	}
	return n;
}

static const char *check(const struct expect *e)
{
	u8 bytes[32] = { 0 };
	unsigned int n = parse_hex(e->hex, bytes), i;
	struct insn insn;
	int err = insn_decode(&insn, bytes, n, e->mode);

	if (err != e->err)
		return "return value";
	if (err)
		return NULL;
	if (insn.mnemonic != e->mnemonic)
		return "mnemonic";
	if (insn.len != e->len || insn.len != n)
		return "length";
	if (e->opsize && insn.opsize != e->opsize)
		return "operand size";
	for (i = 0; i < 4 && e->op[i].kind; i++) {
		if (insn.op[i].kind != e->op[i].kind || insn.op[i].reg != e->op[i].reg)
			return "operand";
		if (insn.op[i].access != e->op[i].access)
			return "access";
		if (insn.op[i].size != e->op[i].size)
			return "size of an operand";
	}
	if ((e->base || e->index) && !insn.has_mem)
		return "memory";
	if (insn.has_mem && insn.mem.disp != e->disp)
		return "displacement";
	if (e->base && insn.mem.base != (u8)(e->base == -1 ? INSN_REG_NONE : e->base - 1))
		return "base";
	if (e->index && insn.mem.index != (u8)(e->index == -1 ? INSN_REG_NONE : e->index - 1))
		return "index";
	if (e->scale && insn.mem.scale != e->scale)
		return "scale";
	if (e->seg && insn.mem.seg != e->seg - 1)
		return "segment";
	if (e->imm && insn.imm != e->imm)
		return "immediate";
	if (e->cond && insn.cond != e->cond - 1)
		return "condition";
	if (memcmp(insn.bytes, bytes, n))
		return "copy of the bytes";
	return NULL;
}

/* The flags that others stake their correctness on. */
static const struct {
	const char *name, *hex;
	enum insn_mode mode;
	u16 flags;
	u8 state;
} flag_cases[] = {
	{ "HLT", "f4", MODE_64, INSN_F_PRIVILEGED | INSN_F_ENDS_BLOCK, INSN_STATE_NONE },
	{ "CLI", "fa", MODE_64, INSN_F_IOPL, INSN_STATE_NONE },
	{ "LOCK INC", "f0 ff 00", MODE_64, INSN_F_LOCKABLE, INSN_STATE_NONE },
	{ "REP STOSB", "f3 aa", MODE_64, INSN_F_STRING, INSN_STATE_NONE },
	{ "JMP", "eb fe", MODE_64, INSN_F_BRANCH | INSN_F_ENDS_BLOCK, INSN_STATE_NONE },
	{ "MOVAPS", "0f 28 00", MODE_64, INSN_F_ALIGNED | INSN_F_SSE_ALIGN, INSN_STATE_SSE },
	{ "MOVUPS", "0f 10 00", MODE_64, 0, INSN_STATE_SSE },
	{ "ADDPS", "0f 58 00", MODE_64, INSN_F_SSE_ALIGN, INSN_STATE_SSE },
	{ "VADDPS", "c5 f8 58 00", MODE_64, 0, INSN_STATE_AVX },
	{ "ADDSS", "f3 0f 58 00", MODE_64, 0, INSN_STATE_SSE },
	{ "PADDB mm", "0f fc c0", MODE_64, 0, INSN_STATE_MMX },
	{ "EVEX VADDPS", "62 f1 7c 48 58 00", MODE_64, 0, INSN_STATE_AVX512 },
	{ "FADD", "d8 c0", MODE_64, 0, INSN_STATE_X87 },
	{ "FWAIT", "9b", MODE_64, 0, INSN_STATE_WAIT },
	{ "FXSAVE", "0f ae 00", MODE_64, 0, INSN_STATE_FXSR },
	{ "XSAVE", "0f ae 20", MODE_64, 0, INSN_STATE_XSAVE },
	{ "ANDN", "c4 e2 f0 f2 c2", MODE_64, 0, INSN_STATE_VEX_GPR },
	{ "MOV SS", "8e d0", MODE_64, INSN_F_ENDS_BLOCK | INSN_F_MOV_SS, INSN_STATE_NONE },
	{ "SGDT", "0f 01 00", MODE_64, INSN_F_UMIP, INSN_STATE_NONE },
	{ "PUSH", "50", MODE_64, INSN_F_STACK, INSN_STATE_NONE },
};

int main(void)
{
	unsigned int i;

	tap_begin();
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *why = check(&cases[i]);

		if (why)
			tap_diag("%s: wrong %s", cases[i].hex, why);
		tap_ok(!why, "%s", cases[i].name);
	}
	for (i = 0; i < ARRAY_SIZE(flag_cases); i++) {
		struct insn insn;
		u8 bytes[32];
		unsigned int n = parse_hex(flag_cases[i].hex, bytes);
		int err = insn_decode(&insn, bytes, n, flag_cases[i].mode);

		if (!tap_ok(!err && insn.flags == flag_cases[i].flags && insn.state == flag_cases[i].state,
			    "attributes of %s", flag_cases[i].name))
			tap_diag("error %d, flags %#x for %#x, state %u for %u", err, insn.flags,
				 flag_cases[i].flags, insn.state, flag_cases[i].state);
	}
	tap_ok(!strcmp(mnemonic_name(MN_VPADDD), "VPADDD") && !strcmp(mnemonic_name(MN_ADD), "ADD"),
	       "mnemonics have their names");
	return tap_end();
}
