/* See cases.h. */
#include <stdlib.h>

#include "tests/emul/cases.h"

#define FORMS_MAX 512

#define OF RFLAGS_OF
#define SF RFLAGS_SF
#define ZF RFLAGS_ZF
#define AF RFLAGS_AF
#define PF RFLAGS_PF
#define CF RFLAGS_CF

/* clang-format off */
const struct subject case_subjects[] = {
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
const unsigned case_nr_subjects = ARRAY_SIZE(case_subjects);


struct pool {
	struct form forms[FORMS_MAX];
	unsigned n, seen;
};

static struct pool *pools[MN_COUNT][2]; /* [mnemonic][compat] */
u64 case_code = NATIVE_CODE;
static u64 seed = 1;

void case_seed(u64 s)
{
	seed = s;
}

u64 case_rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dULL;
}

bool case_one_in(unsigned n)
{
	return case_rnd() % n == 0;
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
	if (in->addrsize == 2 && !case_one_in(50))
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

void case_pool(u16 mnemonic)
{
	for (unsigned i = 0; i < 2; i++)
		if (!pools[mnemonic][i])
			pools[mnemonic][i] = calloc(1, sizeof(struct pool));
}

void case_subject_pools(void)
{
	for (unsigned i = 0; i < case_nr_subjects; i++)
		case_pool(case_subjects[i].mnemonic);
}

const struct form *case_form(u16 mnemonic, bool compat)
{
	const struct pool *p = pools[mnemonic][compat];

	return p && p->n ? &p->forms[case_rnd() % p->n] : NULL;
}

static void add_form(const u8 *bytes, bool compat)
{
	struct insn in;
	struct pool *p;
	unsigned slot;

	if (insn_decode(&in, bytes, INSN_MAX_LEN, compat ? MODE_32 : MODE_64))
		return;
	p = pools[in.mnemonic][compat];
	if (!p || !wanted(&in, compat))
		return;
	/* Reservoir sampling keeps the pool a fair choice of everything that was seen. */
	slot = p->n < FORMS_MAX ? p->n++ : case_rnd() % (p->seen + 1);
	p->seen++;
	if (slot < FORMS_MAX) {
		memcpy(p->forms[slot].bytes, bytes, INSN_MAX_LEN);
		p->forms[slot].len = in.len;
	}
}

/* Every opcode of every map, each with @variants of prefixes and operands. */
void case_make_forms(bool compat, unsigned variants, bool simd)
{
	static const u8 prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x65 };
	unsigned map, opcode, v, n, i;
	u8 b[32];

	/* Maps 0 to 3; VEX maps 1 to 3; EVEX maps 1 to 3 */
	for (map = 0; map < (simd ? 10 : 7); map++) {
		for (opcode = 0; opcode < 256; opcode++) {
			for (v = 0; v < (simd && map >= 4 ? 3 * variants : variants); v++) {
				n = 0;
				while (map < 4 && case_one_in(3) && n < 3)
					b[n++] = prefixes[case_rnd() % sizeof(prefixes)];
				if (map < 4 && !compat && case_one_in(2))
					b[n++] = 0x40 | (case_rnd() & 15);
				if (map >= 4 && case_one_in(16))
					b[n++] = case_one_in(2) ? 0x67 : 0x65;
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
				case 4:
				case 5:
				case 6:
					/* VEX.L is for vectors. */
					b[n++] = 0xc4;
					b[n++] = (case_rnd() & 0xe0) | (map - 3) | (compat ? 0xc0 : 0);
					b[n++] = case_rnd() & (simd ? 0xff : 0xfb);
					if (case_one_in(2))
						b[n - 1] |= 0x78;
					break;
				default:
					b[n++] = 0x62;
					b[n++] = (case_rnd() & 0xf0) | (map - 6) | (compat ? 0xc0 : 0);
					b[n++] = case_rnd() | 4;
					b[n++] = case_rnd();
					if (case_one_in(2))
						b[n - 2] |= 0x78;
					if (case_one_in(2))
						b[n - 1] |= 8;
				}
				b[n++] = opcode;
				for (i = n; i < sizeof(b); i += 8) {
					u64 r = case_rnd();

					memcpy(b + i, &r, MIN(8, sizeof(b) - i));
				}
				add_form(b, compat);
			}
		}
	}
}

/* ---- preparing a case ----------------------------------------------------------------------- */

u64 case_interesting(void)
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

	switch (case_rnd() & 3) {
	case 0: return some[case_rnd() % ARRAY_SIZE(some)];
	case 1: return case_rnd() >> (case_rnd() & 63);
	default: return case_rnd();
	}
}

/* Mostly where @len bytes fit; sometimes over a border: writable to read-only, or to nothing. */
u64 case_target_address(unsigned len)
{
	u64 at;

	if (case_one_in(16))
		at = (case_rnd() % 4 << 12) - (case_rnd() & 31);
	else if (case_one_in(16))
		at = 0x2000 + (case_rnd() & 0xff0);
	else
		at = 64 + case_rnd() % (0x2000 - 128 - len);
	if (case_one_in(2))
		at &= ~7ULL;
	return NATIVE_SCRATCH + at;
}

static void patch_disp(struct insn *in, u8 *bytes, u64 disp)
{
	memcpy(bytes + in->disp_off, &disp, in->disp_size);
}

/* Makes the effective address hit @target, by registers or displacement, where the form lets it. */
void case_aim(struct insn *in, u8 *bytes, struct native_regs *r, u64 target, bool compat)
{
	const struct insn_mem *m = &in->mem;
	u64 index = 0;

	if (in->addrsize == 2)
		return;
	if (m->seg == SEG_GS)
		target -= NATIVE_GS_BASE;
	if (m->index != INSN_REG_NONE && !m->vsib) {
		if (m->index == m->base) {
			u64 rest = target - m->disp;

			r->gpr[m->base] = rest / (m->scale + 1);
			return;
		}
		if (!case_one_in(4))
			r->gpr[m->index] = (case_rnd() & 63) - 16;
		index = r->gpr[m->index] * m->scale;
	}
	if (m->base != INSN_REG_NONE) {
		r->gpr[m->base] = target - m->disp - index;
		if (in->addrsize == 4 && !compat && case_one_in(2))
			r->gpr[m->base] |= case_rnd() << 32; /* ignored */
	} else if (m->rip_rel) {
		patch_disp(in, bytes, target - case_code - in->len);
	} else {
		patch_disp(in, bytes, target - index);
	}
}

void case_prepare(const struct subject *sub, struct insn *in, u8 *bytes, struct native_regs *r, bool compat, const u8 *scratch)
{
	unsigned i, size = in->opsize;
	u64 v, target;

	for (i = 0; i < 16; i++)
		r->gpr[i] = case_interesting();
	r->gpr[REG_SP] = case_target_address(64);
	if ((sub->quirks & Q_STACK) && case_one_in(4))
		r->gpr[REG_SP] = NATIVE_SCRATCH + (case_rnd() & 0x1fff);
	r->rflags = RFLAGS_ONE | RFLAGS_IF | (case_rnd() & RFLAGS_ARITH);
	if (case_one_in(4))
		r->rflags |= RFLAGS_DF;
	if ((sub->quirks & Q_AC) && case_one_in(16))
		r->rflags |= RFLAGS_AC;
	if (sub->quirks & Q_FRAME)
		r->gpr[REG_BP] = case_target_address(300);
	if (sub->quirks & Q_XLAT)
		r->gpr[REG_BX] = case_target_address(256) - (u8)r->gpr[REG_AX] -
				 (in->seg_override == SEG_GS ? NATIVE_GS_BASE : 0);
	if (in->mnemonic == MN_ENTER && case_one_in(2)) {
		bytes[in->imm_off + 1] &= 1;
		bytes[in->imm_off + 2] &= 7;
	}
	if (sub->quirks & Q_DIV) {
		/* A quotient that fits, half of the time. */
		v = case_interesting();
		if (case_one_in(2))
			r->gpr[REG_DX] =
				in->mnemonic == MN_IDIV && (r->gpr[REG_AX] & 1ULL << (8 * size - 1))
					? ~0ULL
					: 0;
		else if (case_one_in(2))
			r->gpr[REG_DX] = v >> (case_rnd() & 63);
		if (size == 1)
			r->gpr[REG_AX] = case_one_in(2) ? (u8)v : v >> 8 & 0x0fff;
	}
	if (sub->quirks & Q_STRING) {
		r->gpr[REG_SI] =
			case_target_address(64) - (in->seg_override == SEG_GS ? NATIVE_GS_BASE : 0);
		r->gpr[REG_DI] = case_target_address(64);
		if (in->rep)
			r->gpr[REG_CX] = case_rnd() % 24;
		if (in->addrsize == 4 && !compat)
			r->gpr[REG_CX] |= case_one_in(4) ? case_rnd() << 32 : 0;
	}
	if ((in->mnemonic == MN_LOOP || in->mnemonic == MN_LOOPE || in->mnemonic == MN_LOOPNE ||
	     in->mnemonic == MN_JCXZ) &&
	    case_one_in(2))
		r->gpr[REG_CX] = (r->gpr[REG_CX] & ~0xffffffffULL) | case_rnd() % 3;
	if ((sub->quirks & Q_BITS) && in->op[1].kind == OPK_GPR && !case_one_in(4))
		r->gpr[in->op[1].reg] = (s64)(case_rnd() % 8192) - 4096;
	target = case_target_address(in->has_mem && in->mem.access ? MAX(in->mem.size, 1) : 1);
	if (in->has_mem && (in->mem.access != 0 || case_one_in(2)))
		case_aim(in, bytes, r, target, compat);
	if ((in->mnemonic == MN_CMPXCHG8B || in->mnemonic == MN_CMPXCHG16B) && case_one_in(2)) {
		/* The comparison succeeds when the memory is where it seems to be. */
		if (target - NATIVE_SCRATCH < SCRATCH_SIZE - 16 && in->mem.base != REG_AX && in->mem.base != REG_DX &&
		    in->mem.index != REG_AX && in->mem.index != REG_DX) {
			memcpy(&r->gpr[REG_AX], scratch + (target - NATIVE_SCRATCH), in->mem.size / 2);
			memcpy(&r->gpr[REG_DX], scratch + (target - NATIVE_SCRATCH) + in->mem.size / 2, in->mem.size / 2);
		}
	}
	if (in->mnemonic == MN_CMPXCHG && case_one_in(2) && in->op[0].kind == OPK_GPR)
		r->gpr[REG_AX] = r->gpr[in->op[0].reg];
	/* Relative branches land on INT3, or where nothing is mapped. */
	if (in->op[0].kind == OPK_REL) {
		s32 rel = in->imm_size == 1
				  ? (case_one_in(2) ? 40 + case_rnd() % 80 : -(s32)(40 + case_rnd() % 80))
				  : (s32)(0x4000000 + case_rnd() % 0x2000000) * (case_one_in(2) ? 1 : -1);

		memcpy(bytes + in->imm_off, &rel, in->imm_size);
	}
	if (compat)
		for (i = 0; i < 16; i++)
			r->gpr[i] = i < 8 ? (u32)r->gpr[i] : 0;
}

u64 case_undefined_flags(const struct subject *sub, const struct insn *in,
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

bool case_bound_either(const struct insn *in, const struct native_regs *r, u64 la, u64 cr2, const u8 *scratch)
{
	u64 index = r->gpr[in->op[0].reg], lower = 0;
	unsigned size = in->opsize;

	if (in->mnemonic != MN_BOUND || la - NATIVE_SCRATCH > SCRATCH_SIZE - size || cr2 - la < size || cr2 - la >= 2 * size)
		return false;
	memcpy(&lower, scratch + (la - NATIVE_SCRATCH), size);
	return size == 2 ? (s16)index < (s16)lower : (s32)index < (s32)lower;
}

/* What the manuals leave to the processor although it is no flag. */
bool case_undefined_result(const struct subject *sub, const struct insn *in,
			     const struct native_regs *r)
{
	if (in->mnemonic == MN_SHLD || in->mnemonic == MN_SHRD) {
		u64 n = in->op[2].kind == OPK_GPR ? r->gpr[REG_CX] : in->imm;

		return (n & (in->op[0].size == 8 ? 63 : 31)) > 8 * in->op[0].size;
	}
	return false;
}

