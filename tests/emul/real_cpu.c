/*
 * The emulator against the real processor: random states, every integer instruction that user code
 * may execute (and what privileged ones do at CPL 3), in 64-bit and in 32-bit mode. Registers,
 * defined flags, memory, RIP and exceptions must agree. One verdict a mnemonic.
 *
 *	emul-real-cpu [CASES [SEED [MNEMONIC]]]		10^6 cases by default, 10^7 with TRINE_LONG
 */
#include <inttypes.h>
#include <stdlib.h>

#include "tests/emul/machine.h"
#include "tests/emul/native.h"
#include "tests/tap.h"

#define SCRATCH_SIZE (NATIVE_SCRATCH_PAGES << 12)
#define FORMS_MAX    512
#define COMPARED                                                                                \
	(RFLAGS_ARITH | RFLAGS_DF | RFLAGS_TF | RFLAGS_AC | RFLAGS_ID | RFLAGS_NT | RFLAGS_IF | \
	 RFLAGS_IOPL)

#define OF RFLAGS_OF
#define SF RFLAGS_SF
#define ZF RFLAGS_ZF
#define AF RFLAGS_AF
#define PF RFLAGS_PF
#define CF RFLAGS_CF

/* How a case is prepared and compared, beside the common part. */
enum quirk {
	Q_NONE,
	Q_SHIFT = 1, /* OF undefined but for counts of 1; CF too from the operand size on */
	Q_STACK = 2,
	Q_STRING = 4,
	Q_BRANCH = 8,
	Q_POPF = 16,
	Q_DIV = 32,
	Q_BITS = 64,	  /* a register bit offset moves the address */
	Q_ZERO_SRC = 128, /* destination undefined for a zero source */
	Q_PRIV = 256,	  /* faults at CPL 3: nothing to prepare */
	Q_AC = 512,	  /* also with alignment checks on */
	Q_XLAT = 1024,
	Q_FRAME = 2048, /* RBP is an address */
	Q_TWO = 8192, /* two operands in memory: which one faults first is the processor's choice */
	Q_PARTIAL = 4096, /* a fault may leave values below SP, or some of the registers, changed */
};

/* Mnemonics that are compared, with the flags the SDM leaves undefined. */
/* clang-format off */
static const struct subject {
	u16 mnemonic;
	u16 quirks;
	u64 undefined;
	u16 feature;
} subjects[] = {
	{ MN_ADD, Q_AC, 0 }, { MN_OR, Q_AC, AF }, { MN_ADC, Q_AC, 0 }, { MN_SBB, Q_AC, 0 }, { MN_AND, Q_AC, AF },
	{ MN_SUB, Q_AC, 0 }, { MN_XOR, Q_AC, AF }, { MN_CMP, Q_AC, 0 }, { MN_TEST, Q_AC, AF }, { MN_NOT, 0, 0 },
	{ MN_NEG, 0, 0 }, { MN_INC, 0, 0 }, { MN_DEC, 0, 0 }, { MN_MUL, 0, SF | ZF | AF | PF },
	{ MN_IMUL, 0, SF | ZF | AF | PF }, { MN_DIV, Q_DIV, RFLAGS_ARITH }, { MN_IDIV, Q_DIV, RFLAGS_ARITH },
	{ MN_ROL, Q_SHIFT, 0 }, { MN_ROR, Q_SHIFT, 0 }, { MN_RCL, Q_SHIFT, 0 }, { MN_RCR, Q_SHIFT, 0 },
	{ MN_SHL, Q_SHIFT, AF }, { MN_SHR, Q_SHIFT, AF }, { MN_SAR, Q_SHIFT, AF }, { MN_SHLD, Q_SHIFT, AF },
	{ MN_SHRD, Q_SHIFT, AF }, { MN_BT, Q_BITS, OF | SF | AF | PF }, { MN_BTS, Q_BITS, OF | SF | AF | PF },
	{ MN_BTR, Q_BITS, OF | SF | AF | PF }, { MN_BTC, Q_BITS, OF | SF | AF | PF },
	{ MN_BSF, Q_ZERO_SRC, CF | OF | SF | AF | PF }, { MN_BSR, Q_ZERO_SRC, CF | OF | SF | AF | PF },
	{ MN_BSWAP, 0, 0 }, { MN_XADD, 0, 0 }, { MN_CMPXCHG, 0, 0 }, { MN_CMPXCHG8B, 0, 0 },
	{ MN_CMPXCHG16B, 0, 0, X86_FEATURE_CX16 }, { MN_XCHG, 0, 0 }, { MN_POPCNT, 0, 0, X86_FEATURE_POPCNT },
	{ MN_LZCNT, 0, OF | SF | PF | AF, X86_FEATURE_LZCNT }, { MN_TZCNT, 0, OF | SF | PF | AF, X86_FEATURE_BMI1 },
	{ MN_ADCX, 0, 0, X86_FEATURE_ADX }, { MN_ADOX, 0, 0, X86_FEATURE_ADX }, { MN_CRC32, 0, 0, X86_FEATURE_SSE42 },
	{ MN_MOVBE, 0, 0, X86_FEATURE_MOVBE }, { MN_ANDN, 0, AF | PF, X86_FEATURE_BMI1 },
	{ MN_BEXTR, 0, AF | SF | PF, X86_FEATURE_BMI1 }, { MN_BLSI, 0, AF | PF, X86_FEATURE_BMI1 },
	{ MN_BLSMSK, 0, AF | PF, X86_FEATURE_BMI1 }, { MN_BLSR, 0, AF | PF, X86_FEATURE_BMI1 },
	{ MN_BZHI, 0, AF | PF, X86_FEATURE_BMI2 }, { MN_MULX, 0, 0, X86_FEATURE_BMI2 },
	{ MN_PDEP, 0, 0, X86_FEATURE_BMI2 }, { MN_PEXT, 0, 0, X86_FEATURE_BMI2 }, { MN_RORX, 0, 0, X86_FEATURE_BMI2 },
	{ MN_SARX, 0, 0, X86_FEATURE_BMI2 }, { MN_SHLX, 0, 0, X86_FEATURE_BMI2 }, { MN_SHRX, 0, 0, X86_FEATURE_BMI2 },
	{ MN_DAA, 0, OF }, { MN_DAS, 0, OF }, { MN_AAA, 0, OF | SF | ZF | PF }, { MN_AAS, 0, OF | SF | ZF | PF },
	{ MN_AAM, 0, OF | AF | CF }, { MN_AAD, 0, OF | AF | CF }, { MN_MOV, Q_AC, 0 }, { MN_MOVZX, Q_AC, 0 },
	{ MN_MOVSX, Q_AC, 0 }, { MN_MOVSXD, 0, 0 }, { MN_LEA, 0, 0 }, { MN_PUSH, Q_STACK, 0 }, { MN_POP, Q_STACK, 0 },
	{ MN_PUSHA, Q_STACK | Q_PARTIAL, 0 }, { MN_POPA, Q_STACK | Q_PARTIAL, 0 }, { MN_PUSHF, Q_STACK, 0 }, { MN_POPF, Q_STACK | Q_POPF, 0 },
	{ MN_ENTER, Q_STACK | Q_FRAME | Q_PARTIAL, 0 }, { MN_LEAVE, Q_FRAME, 0 }, { MN_CBW, 0, 0 }, { MN_CWD, 0, 0 },
	{ MN_XLAT, Q_XLAT, 0 }, { MN_SALC, 0, 0 }, { MN_LAHF, 0, 0 }, { MN_SAHF, 0, 0 }, { MN_CMOVCC, Q_AC, 0 },
	{ MN_SETCC, 0, 0 }, { MN_MOVNTI, 0, 0 }, { MN_MOVDIRI, 0, 0, X86_FEATURE_MOVDIRI }, { MN_MOVS, Q_STRING, 0 },
	{ MN_CMPS, Q_STRING | Q_TWO, 0 }, { MN_STOS, Q_STRING, 0 }, { MN_LODS, Q_STRING, 0 }, { MN_SCAS, Q_STRING, 0 },
	{ MN_CLC, 0, 0 }, { MN_STC, 0, 0 }, { MN_CMC, 0, 0 }, { MN_CLD, 0, 0 }, { MN_STD, 0, 0 }, { MN_JCC, Q_BRANCH, 0 },
	{ MN_JCXZ, Q_BRANCH, 0 }, { MN_LOOP, Q_BRANCH, 0 }, { MN_LOOPE, Q_BRANCH, 0 }, { MN_LOOPNE, Q_BRANCH, 0 },
	{ MN_JMP_NEAR, Q_BRANCH, 0 }, { MN_CALL_NEAR, Q_BRANCH | Q_STACK, 0 }, { MN_RET_NEAR, Q_BRANCH | Q_STACK, 0 },
	{ MN_BOUND, 0, 0 }, { MN_ARPL, 0, 0 }, { MN_UD0, Q_PRIV, 0 }, { MN_UD1, Q_PRIV, 0 }, { MN_UD2, Q_PRIV, 0 },
	{ MN_NOP, 0, 0 }, { MN_PAUSE, 0, 0 }, { MN_LFENCE, 0, 0 }, { MN_MFENCE, 0, 0 }, { MN_SFENCE, 0, 0 },
	{ MN_CLFLUSH, 0, 0 }, { MN_PREFETCHNTA, 0, 0 }, { MN_PREFETCHT0, 0, 0 }, { MN_PREFETCHT1, 0, 0 },
	{ MN_PREFETCHT2, 0, 0 }, { MN_PREFETCHW, 0, 0, X86_FEATURE_3DNOWPREFETCH },
	/* Privileged: #GP(0) at CPL 3 */
	{ MN_HLT, Q_PRIV, 0 }, { MN_CLI, Q_PRIV, 0 }, { MN_STI, Q_PRIV, 0 }, { MN_IN, Q_PRIV, 0 }, { MN_OUT, Q_PRIV, 0 },
	{ MN_INS, Q_STRING, 0 }, { MN_OUTS, Q_STRING, 0 }, { MN_LGDT, Q_PRIV, 0 }, { MN_LIDT, Q_PRIV, 0 },
	{ MN_LLDT, Q_PRIV, 0 }, { MN_LTR, Q_PRIV, 0 }, { MN_LMSW, Q_PRIV, 0 }, { MN_CLTS, Q_PRIV, 0 },
	{ MN_MOV_CR, Q_PRIV, 0 }, { MN_INVLPG, Q_PRIV, 0 }, { MN_WBINVD, Q_PRIV, 0 }, { MN_INVD, Q_PRIV, 0 },
	{ MN_RDMSR, Q_PRIV, 0 }, { MN_WRMSR, Q_PRIV, 0 },
};
/* clang-format on */

struct form {
	u8 bytes[INSN_MAX_LEN];
	u8 len;
};

struct pool {
	struct form forms[FORMS_MAX];
	unsigned n, seen;
};

static struct pool *pools[MN_COUNT][2]; /* [mnemonic][compat] */
static struct machine machine;
static u8 *const scratch = (u8 *)NATIVE_SCRATCH;
static u64 seed;

static u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dULL;
}

static bool one_in(unsigned n)
{
	return rnd() % n == 0;
}

/* ---- forms ---------------------------------------------------------------------------------- */

static bool wanted(const struct insn *in, bool compat)
{
	bool near = in->mnemonic == MN_JCC || in->mnemonic == MN_JMP_NEAR ||
		    in->mnemonic == MN_CALL_NEAR || in->mnemonic == MN_RET_NEAR ||
		    in->mnemonic == MN_JCXZ || in->mnemonic == MN_LOOP ||
		    in->mnemonic == MN_LOOPE || in->mnemonic == MN_LOOPNE;

	/* Intel ignores 66 before near branches in 64-bit mode, AMD does not. */
	if (near && in->pfx66 && !compat)
		return false;
	/* 16-bit addresses cannot name the scratch memory: all would fault. A few may. */
	if (in->addrsize == 2 && !one_in(50))
		return false;
	if (in->mnemonic == MN_BSWAP && in->opsize == 2)
		return false; /* undefined */
	/* FS is the C library's, GS is null in 32-bit mode. */
	if (in->seg_override == SEG_FS || (in->seg_override == SEG_GS && compat))
		return false;
	if (in->mnemonic == MN_MOVSXD && in->opsize == 2)
		return false; /* AMD reads four bytes, the SDM has two */
	if (in->mnemonic == MN_NOP && in->map == INSN_MAP_0F && in->opcode == 0x0d)
		return false; /* AMD: undefined */
	/* A form without a defined meaning of REP may mean something to another processor. */
	if (in->rep && !in->mandatory && !(in->flags & INSN_F_STRING) && in->mnemonic != MN_NOP)
		return false;
	if (in->mnemonic == MN_UD0 || in->mnemonic == MN_UD1)
		return in->mod == 3; /* whether ModRM is fetched depends on the processor */
	return true;
}

static void add_form(const u8 *bytes, bool compat)
{
	struct insn in;
	struct pool *p;
	unsigned slot;

	if (insn_decode(&in, bytes, INSN_MAX_LEN, compat ? MODE_32 : MODE_64) ||
	    in.mnemonic >= MN_SIMD_FIRST)
		return;
	p = pools[in.mnemonic][compat];
	if (!p || !wanted(&in, compat))
		return;
	/* Reservoir sampling keeps the pool a fair choice of everything that was seen. */
	slot = p->n < FORMS_MAX ? p->n++ : rnd() % (p->seen + 1);
	p->seen++;
	if (slot < FORMS_MAX) {
		memcpy(p->forms[slot].bytes, bytes, INSN_MAX_LEN);
		p->forms[slot].len = in.len;
	}
}

/* Every opcode of every map, each with @variants of prefixes and operands. */
static void make_forms(bool compat, unsigned variants)
{
	static const u8 prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x65 };
	unsigned map, opcode, v, n, i;
	u8 b[32];

	for (map = 0; map < 6; map++) {
		for (opcode = 0; opcode < 256; opcode++) {
			for (v = 0; v < variants; v++) {
				n = 0;
				while (map < 4 && one_in(3) && n < 3)
					b[n++] = prefixes[rnd() % sizeof(prefixes)];
				if (map < 4 && !compat && one_in(2))
					b[n++] = 0x40 | (rnd() & 15);
				switch (map) {
				case 0: break;
				case 1: b[n++] = 0x0f; break;
				case 2:
					b[n++] = 0x0f;
					b[n++] = 0x38;
					break;
				case 3:
					b[n++] = 0x0f;
					b[n++] = 0x3a;
					break;
				default:
					/* Three-byte VEX, maps 2 and 3, 128 bits */
					b[n++] = 0xc4;
					b[n++] = (rnd() & 0xe0) | (map - 2) | (compat ? 0xc0 : 0);
					b[n++] = rnd() & 0xfb;
				}
				b[n++] = opcode;
				for (i = n; i < sizeof(b); i += 8) {
					u64 r = rnd();

					memcpy(b + i, &r, MIN(8, sizeof(b) - i));
				}
				add_form(b, compat);
			}
		}
	}
}

/* ---- preparing a case ----------------------------------------------------------------------- */

static u64 interesting(void)
{
	static const u64 some[] = { 0,
				    1,
				    2,
				    0x7f,
				    0x80,
				    0xff,
				    0x7fff,
				    0x8000,
				    0xffff,
				    0x7fffffff,
				    0x80000000,
				    0xffffffff,
				    0x7fffffffffffffff,
				    0x8000000000000000,
				    ~0ULL };

	switch (rnd() & 3) {
	case 0: return some[rnd() % ARRAY_SIZE(some)];
	case 1: return rnd() >> (rnd() & 63);
	default: return rnd();
	}
}

/* Mostly where @len bytes fit; sometimes over a border: writable to read-only, or to nothing. */
static u64 target_address(unsigned len)
{
	u64 at;

	if (one_in(16))
		at = (rnd() % 4 << 12) - (rnd() & 31);
	else if (one_in(16))
		at = 0x2000 + (rnd() & 0xff0);
	else
		at = 64 + rnd() % (0x2000 - 128 - len);
	if (one_in(2))
		at &= ~7ULL;
	return NATIVE_SCRATCH + at;
}

static void patch_disp(struct insn *in, u8 *bytes, u64 disp)
{
	memcpy(bytes + in->disp_off, &disp, in->disp_size);
}

/* Makes the effective address hit @target, by registers or displacement, where the form lets it. */
static void aim(struct insn *in, u8 *bytes, struct native_regs *r, u64 target, bool compat)
{
	const struct insn_mem *m = &in->mem;
	u64 index = 0;

	if (in->addrsize == 2)
		return;
	if (m->seg == SEG_GS)
		target -= NATIVE_GS_BASE;
	if (m->index != INSN_REG_NONE) {
		if (m->index == m->base) {
			u64 rest = target - m->disp;

			r->gpr[m->base] = rest / (m->scale + 1);
			return;
		}
		if (!one_in(4))
			r->gpr[m->index] = (rnd() & 63) - 16;
		index = r->gpr[m->index] * m->scale;
	}
	if (m->base != INSN_REG_NONE) {
		r->gpr[m->base] = target - m->disp - index;
		if (in->addrsize == 4 && !compat && one_in(2))
			r->gpr[m->base] |= rnd() << 32; /* ignored */
	} else if (m->rip_rel) {
		patch_disp(in, bytes, target - NATIVE_CODE - in->len);
	} else {
		patch_disp(in, bytes, target - index);
	}
}

static void prepare(const struct subject *sub, struct insn *in, u8 *bytes, struct native_regs *r,
		    bool compat)
{
	unsigned i, size = in->opsize;
	u64 v;

	for (i = 0; i < 16; i++)
		r->gpr[i] = interesting();
	r->gpr[REG_SP] = target_address(64);
	if ((sub->quirks & Q_STACK) && one_in(4))
		r->gpr[REG_SP] = NATIVE_SCRATCH + (rnd() & 0x1fff);
	r->rflags = RFLAGS_ONE | RFLAGS_IF | (rnd() & RFLAGS_ARITH);
	if (one_in(4))
		r->rflags |= RFLAGS_DF;
	if ((sub->quirks & Q_AC) && one_in(16))
		r->rflags |= RFLAGS_AC;
	if (sub->quirks & Q_FRAME)
		r->gpr[REG_BP] = target_address(300);
	if (sub->quirks & Q_XLAT)
		r->gpr[REG_BX] = target_address(256) - (u8)r->gpr[REG_AX] -
				 (in->seg_override == SEG_GS ? NATIVE_GS_BASE : 0);
	if (in->mnemonic == MN_ENTER && one_in(2)) {
		bytes[in->imm_off + 1] &= 1;
		bytes[in->imm_off + 2] &= 7;
	}
	if (sub->quirks & Q_DIV) {
		/* A quotient that fits, half of the time. */
		v = interesting();
		if (one_in(2))
			r->gpr[REG_DX] =
				in->mnemonic == MN_IDIV && (r->gpr[REG_AX] & 1ULL << (8 * size - 1))
					? ~0ULL
					: 0;
		else if (one_in(2))
			r->gpr[REG_DX] = v >> (rnd() & 63);
		if (size == 1)
			r->gpr[REG_AX] = one_in(2) ? (u8)v : v >> 8 & 0x0fff;
	}
	if (sub->quirks & Q_STRING) {
		r->gpr[REG_SI] =
			target_address(64) - (in->seg_override == SEG_GS ? NATIVE_GS_BASE : 0);
		r->gpr[REG_DI] = target_address(64);
		if (in->rep)
			r->gpr[REG_CX] = rnd() % 24;
		if (in->addrsize == 4 && !compat)
			r->gpr[REG_CX] |= one_in(4) ? rnd() << 32 : 0;
	}
	if ((in->mnemonic == MN_LOOP || in->mnemonic == MN_LOOPE || in->mnemonic == MN_LOOPNE ||
	     in->mnemonic == MN_JCXZ) &&
	    one_in(2))
		r->gpr[REG_CX] = (r->gpr[REG_CX] & ~0xffffffffULL) | rnd() % 3;
	if ((sub->quirks & Q_BITS) && in->op[1].kind == OPK_GPR && !one_in(4))
		r->gpr[in->op[1].reg] = (s64)(rnd() % 8192) - 4096;
	if (in->has_mem && in->mem.access != 0)
		aim(in, bytes, r, target_address(MAX(in->mem.size, 1)), compat);
	else if (in->has_mem && one_in(2))
		aim(in, bytes, r, target_address(1), compat);
	if ((in->mnemonic == MN_CMPXCHG8B || in->mnemonic == MN_CMPXCHG16B) && one_in(2)) {
		/* The comparison succeeds when the memory is where it seems to be. */
		u64 ea;

		machine.s.rip = NATIVE_CODE;
		memcpy(machine.s.gpr, r->gpr, sizeof(r->gpr));
		ea = emul_effective_address(&machine.e, in);
		if (ea - NATIVE_SCRATCH < SCRATCH_SIZE - 16 && in->mem.base != REG_AX &&
		    in->mem.base != REG_DX && in->mem.index != REG_AX && in->mem.index != REG_DX) {
			memcpy(&r->gpr[REG_AX], scratch + (ea - NATIVE_SCRATCH), in->mem.size / 2);
			memcpy(&r->gpr[REG_DX], scratch + (ea - NATIVE_SCRATCH) + in->mem.size / 2,
			       in->mem.size / 2);
		}
	}
	if (in->mnemonic == MN_CMPXCHG && one_in(2) && in->op[0].kind == OPK_GPR)
		r->gpr[REG_AX] = r->gpr[in->op[0].reg];
	/* Relative branches land on INT3, or where nothing is mapped. */
	if (in->op[0].kind == OPK_REL) {
		s32 rel = in->imm_size == 1
				  ? (one_in(2) ? 40 + rnd() % 80 : -(s32)(40 + rnd() % 80))
				  : (s32)(0x4000000 + rnd() % 0x2000000) * (one_in(2) ? 1 : -1);

		memcpy(bytes + in->imm_off, &rel, in->imm_size);
	}
	if (compat)
		for (i = 0; i < 16; i++)
			r->gpr[i] = i < 8 ? (u32)r->gpr[i] : 0;
}

/* ---- comparing ------------------------------------------------------------------------------ */

static u64 undefined_flags(const struct subject *sub, const struct insn *in,
			   const struct native_regs *r)
{
	u64 undefined = sub->undefined, n;

	if (sub->quirks & Q_SHIFT) {
		const struct operand *op = &in->op[in->nops - 1];

		n = op->kind == OPK_GPR ? r->gpr[REG_CX] : op->kind == OPK_ONE ? 1 : in->imm;
		n &= in->op[0].size == 8 ? 63 : 31;
		if (!n)
			return 0;
		if (n != 1)
			undefined |= OF;
		if (n >= 8 * in->op[0].size && (in->mnemonic == MN_SHL || in->mnemonic == MN_SHR ||
						in->mnemonic == MN_SHLD || in->mnemonic == MN_SHRD))
			undefined |= CF;
	}
	return undefined;
}

/* What the manuals leave to the processor although it is no flag. */
static bool undefined_result(const struct subject *sub, const struct insn *in,
			     const struct native_regs *r)
{
	if (in->mnemonic == MN_SHLD || in->mnemonic == MN_SHRD) {
		u64 n = in->op[2].kind == OPK_GPR ? r->gpr[REG_CX] : in->imm;

		return (n & (in->op[0].size == 8 ? 63 : 31)) > 8 * in->op[0].size;
	}
	return false;
}

static void describe(const struct form *f, const struct native_regs *in,
		     const struct native_result *n, enum x86_result r, bool compat)
{
	static const char *const names[] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"
	};
	const struct x86_state *s = &machine.s;
	char text[64] = "";
	unsigned i;

	for (i = 0; i < f->len; i++)
		sprintf(text + 3 * i, "%02x ", f->bytes[i]);
	tap_diag("%s-bit %s", compat ? "32" : "64", text);
	tap_diag("CPU: vector %d error %x cr2 %" PRIx64 " rip %" PRIx64
		 "; emulator: result %d vector %d error %x cr2 %" PRIx64 " rip %" PRIx64,
		 n->vector, n->error, n->cr2, n->regs.rip, r,
		 r == X86_FAULT ? machine.e.fault.vector : -1,
		 r == X86_FAULT ? machine.e.fault.error : 0,
		 r == X86_FAULT ? machine.e.fault.payload : 0, s->rip);
	for (i = 0; i < 16; i++)
		if (s->gpr[i] != n->regs.gpr[i] || s->gpr[i] != in->gpr[i])
			tap_diag("%s was %" PRIx64 " CPU %" PRIx64 " emulator %" PRIx64 "%s",
				 names[i], in->gpr[i], n->regs.gpr[i], s->gpr[i],
				 s->gpr[i] != n->regs.gpr[i] ? " !" : "");
	tap_diag("rflags were %" PRIx64 " CPU %" PRIx64 " emulator %" PRIx64, in->rflags,
		 n->regs.rflags, s->rflags);
}

static bool same_fault(const struct native_result *n, enum x86_result r)
{
	const struct x86_event *f = &machine.e.fault;

	if (r != X86_FAULT || f->vector != n->vector)
		return false;
	/* The kernel's half is mapped for the kernel: whether a page is present there is not this
	 * test's business. */
	if (f->has_error && (f->error ^ n->error) & (n->cr2 >> 63 ? ~1U : ~0U))
		return false;
	return f->vector != VEC_PF || f->payload == n->cr2;
}

enum outcome { SAME, SKIPPED, DIFFERENT };

static enum outcome run_case(const struct subject *sub, const struct form *form, bool compat)
{
	struct x86_state *s = &machine.s;
	struct form f = *form;
	struct native_regs in;
	struct native_result n;
	enum x86_result r;
	struct insn insn;
	u64 ignore;
	unsigned i;

	if (insn_decode(&insn, f.bytes, f.len, compat ? MODE_32 : MODE_64))
		return DIFFERENT;
	prepare(sub, &insn, f.bytes, &in, compat);
	if (insn_decode(&machine.e.insn, f.bytes, f.len, compat ? MODE_32 : MODE_64))
		return DIFFERENT;
	if (sub->quirks & Q_POPF) {
		/* TF would trap in the harness; NT is no user's business. */
		if (in.gpr[REG_SP] - NATIVE_SCRATCH < 0x1fff)
			scratch[in.gpr[REG_SP] - NATIVE_SCRATCH + 1] &= ~0x41;
		memcpy(machine.mem, scratch, SCRATCH_SIZE);
	}

	memcpy(s->gpr, in.gpr, sizeof(in.gpr));
	s->rflags = in.rflags;
	s->rip = NATIVE_CODE;
	s->shadow = 0;
	machine.touched_outside = false;
	for (i = 0;; i++) {
		r = emul_exec(&machine.e, &machine.e.insn);
		if (r != X86_CONTINUE || s->rip != NATIVE_CODE || i > 100)
			break;
	}
	s->rflags &= ~RFLAGS_RF;
	/* Not where the real process has memory that the emulator does not know: that is for
	 * another day. */
	if ((r == X86_FAULT && machine.e.fault.vector == VEC_PF &&
	     machine.e.fault.payload - NATIVE_LOW < 0x10000) ||
	    (r == X86_CONTINUE && s->rip - NATIVE_LOW < 0x10000 && insn.op[0].kind != OPK_REL &&
	     (sub->quirks & Q_BRANCH) && s->rip != NATIVE_CODE + f.len)) {
		memcpy(machine.mem, scratch, SCRATCH_SIZE);
		return SKIPPED;
	}
	native_run(f.bytes, f.len, compat, &in, &n);

	ignore = undefined_flags(sub, &insn, &in);
	if (n.vector >= 0 && !n.completed_by_fetch) {
		if (r == X86_CONTINUE && (sub->quirks & Q_BRANCH) && n.vector == VEC_GP &&
		    s->rip == n.regs.rip)
			; /* fetched from beyond what is canonical */
		else if (!same_fault(&n, r)) {
			if ((sub->quirks & Q_TWO) && r == X86_FAULT &&
			    machine.e.fault.vector == VEC_PF && n.vector == VEC_PF)
				return SAME;
			/* AMD finds a non-canonical branch target after the branch (and the push),
			 * Intel before it. */
			if (!(sub->quirks & Q_BRANCH) || r != X86_FAULT ||
			    machine.e.fault.vector != VEC_GP)
				goto different;
			memcpy(machine.mem, scratch, SCRATCH_SIZE);
			return SAME;
		}
		if ((sub->quirks & Q_PARTIAL) ||
		    ((sub->quirks & Q_BRANCH) && n.regs.rip != NATIVE_CODE)) {
			memcpy(machine.mem, scratch, SCRATCH_SIZE);
			return SAME;
		}
	} else if (r != X86_CONTINUE) {
		goto different;
	}
	if (undefined_result(sub, &insn, &in)) {
		memcpy(machine.mem, scratch, SCRATCH_SIZE);
		return SAME;
	}
	for (i = 0; i < (compat ? 8 : 16); i++)
		if (s->gpr[i] != n.regs.gpr[i])
			goto different;
	if (s->rip != n.regs.rip || ((s->rflags ^ n.regs.rflags) & COMPARED & ~ignore))
		goto different;
	if (memcmp(machine.mem, scratch, SCRATCH_SIZE)) {
		for (i = 0; machine.mem[i] == scratch[i]; i++)
			;
		tap_diag("memory differs at %lx: CPU %02x emulator %02x", NATIVE_SCRATCH + i,
			 scratch[i], machine.mem[i]);
		goto different;
	}
	return SAME;

different:
	describe(&f, &in, &n, r, compat);
	memcpy(machine.mem, scratch, SCRATCH_SIZE);
	return DIFFERENT;
}

/* Numbers, canonical addresses, small values. */
static void fill_scratch(void)
{
	unsigned i;

	for (i = 0; i < 0x2000; i += 8) {
		u64 v = rnd();

		if (one_in(4))
			v &= 0x7fffffffffffULL;
		else if (one_in(4))
			v = interesting();
		memcpy(scratch + i, &v, 8);
	}
	memcpy(machine.mem, scratch, SCRATCH_SIZE);
}

static void test_subject(const struct subject *sub, unsigned long cases)
{
	unsigned long i, done = 0, differ = 0, skipped = 0;
	const char *name = mnemonic_name(sub->mnemonic);
	bool compat;

	if (sub->feature && !machine.features[sub->feature]) {
		tap_skip("this processor does not have it", name);
		return;
	}
	for (i = 0; i < cases && differ < 5; i++) {
		struct pool *p;

		compat = native_has_compat() && pools[sub->mnemonic][1]->n &&
			 (!pools[sub->mnemonic][0]->n || i % 4 == 3);
		p = pools[sub->mnemonic][compat];
		if (!p->n)
			break;
		if (i % 512 == 0)
			fill_scratch();
		if (compat)
			machine_prot32(&machine, 3);
		else
			machine_long_mode(&machine, 3);
		machine.s.seg[SEG_TR].limit = 0;
		machine.s.seg[SEG_GS].base = compat ? 0 : NATIVE_GS_BASE;
		switch (run_case(sub, &p->forms[rnd() % p->n], compat)) {
		case SAME: done++; break;
		case SKIPPED: skipped++; break;
		case DIFFERENT: differ++; break;
		}
	}
	if (!i)
		tap_skip("no form of it can run here", name);
	else
		tap_ok(!differ && done, "%s agrees with the processor in %lu cases (%lu skipped)",
		       name, done, skipped);
}

int main(int argc, char **argv)
{
	unsigned long cases = argc > 1		     ? strtoul(argv[1], NULL, 0)
			      : getenv("TRINE_LONG") ? 10000000
						     : 1000000;
	unsigned i;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 0x7472696e65;
	tap_begin();
	machine_init(&machine, NATIVE_SCRATCH, NATIVE_SCRATCH_PAGES);
	machine_host_features(&machine);
	if (!native_init()) {
		tap_skip("code cannot be mapped low here", "emulator against the processor");
		return tap_end();
	}
	fill_scratch();
	if (native_protect_scratch())
		machine.rights[2] = PAGE_READ;
	for (i = 0; i < ARRAY_SIZE(subjects); i++) {
		pools[subjects[i].mnemonic][0] = calloc(1, sizeof(struct pool));
		pools[subjects[i].mnemonic][1] = calloc(1, sizeof(struct pool));
	}
	make_forms(false, 160);
	make_forms(true, 80);
	for (i = 0; i < ARRAY_SIZE(subjects); i++)
		if (argc < 4 || !strcmp(mnemonic_name(subjects[i].mnemonic), argv[3]))
			test_subject(&subjects[i],
				     argc < 4 ? cases / ARRAY_SIZE(subjects) + 1 : cases);
	return tap_end();
}
