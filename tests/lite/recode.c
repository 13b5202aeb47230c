/*
 * Instructions with other registers and another memory operand (engines/lite/recode.h): decoded again, they are what was asked for.
 * Random instructions of the three modes, and known ones byte by byte. What fields and uses there are is compared with Zydis.
 *
 *	test-lite-recode [INSTRUCTIONS [SEED]]		3 * 10^5 a mode by default, 10^7 with TRINE_LONG
 */
#include <stdlib.h>

#include "tests/lite/recode.h"
#include "tests/tap.h"

#define SHOWN 12

static const char *const mode_names[] = { "16-bit", "32-bit", "64-bit" };

enum { WRONG_RECODE, WRONG_REFUSAL, WRONG_SECOND, WRONG_FIELDS, WRONG_USE, WRONGS };

struct run {
	enum insn_mode mode;
	u64 state, decoded, recoded, to_mem, refused[2]; /* AH to BH; everything else */
	unsigned wrong[WRONGS];
	bool seen[MN_COUNT], recoded_once[MN_COUNT];
};

static void show(struct run *run, int what, const char *why, const struct insn *insn, const u8 *code, unsigned len)
{
	char in[64] = "", out[64] = "";

	if (run->wrong[what]++ >= SHOWN)
		return;
	for (unsigned i = 0; i < insn->len; i++)
		sprintf(in + 3 * i, " %02x", insn->bytes[i]);
	for (unsigned i = 0; i < len; i++)
		sprintf(out + 3 * i, " %02x", code[i]);
	tap_diag("%s: %s, %s:%s%s%s", why, mnemonic_name(insn->mnemonic), mode_names[insn->mode], in, len ? " ->" : "", out);
}

/* ---- what is refused ----------------------------------------------------------------------------------------------- */

/* Instructions that have no equal, or that a translator must not copy into its code. */
static bool is_special(const struct insn *insn)
{
	if (insn->encoding == INSN_ENC_3DNOW || insn->encoding == INSN_ENC_XOP || insn->state == INSN_STATE_AMX || insn->mem.vsib)
		return true;
	switch (insn->mnemonic) {
	/* memory that no operand names */
	case MN_PUSH: case MN_POP: case MN_PUSHA: case MN_POPA: case MN_PUSHF: case MN_POPF: case MN_ENTER: case MN_LEAVE: case MN_XLAT:
	case MN_PUSH_SREG: case MN_POP_SREG: case MN_MOVS: case MN_CMPS: case MN_STOS: case MN_LODS: case MN_SCAS: case MN_MOVDIR64B:
	case MN_ENQCMD: case MN_ENQCMDS: case MN_MASKMOVQ: case MN_MASKMOVDQU: case MN_VMASKMOVDQU: case MN_CLZERO: case MN_MONITOR:
	case MN_MONITORX: case MN_UMONITOR: case MN_XSAVE: case MN_XRSTOR: case MN_XSAVEOPT: case MN_XSAVEC: case MN_XSAVES: case MN_XRSTORS:
	case MN_FXSAVE: case MN_FXRSTOR: case MN_WRSS: case MN_WRUSS:
	/* control flow */
	case MN_JCC: case MN_JCXZ: case MN_LOOP: case MN_LOOPE: case MN_LOOPNE: case MN_JMP_NEAR: case MN_JMP_FAR: case MN_CALL_NEAR:
	case MN_CALL_FAR: case MN_RET_NEAR: case MN_RET_FAR: case MN_IRET: case MN_INT: case MN_INT3: case MN_INT1: case MN_INTO:
	case MN_UD0: case MN_UD1: case MN_UD2: case MN_SYSCALL: case MN_SYSRET: case MN_SYSENTER: case MN_SYSEXIT: case MN_RSM:
	case MN_XBEGIN: case MN_XEND: case MN_XABORT: case MN_XTEST: case MN_XSUSLDTRK: case MN_XRESLDTRK: case MN_UIRET:
	/* not in 64-bit code */
	case MN_DAA: case MN_DAS: case MN_AAA: case MN_AAS: case MN_AAM: case MN_AAD: case MN_SALC: case MN_BOUND: case MN_ARPL: case MN_LES:
	case MN_LDS:
	/* the guest's system state */
	case MN_INS: case MN_OUTS: case MN_IN: case MN_OUT: case MN_CLI: case MN_STI: case MN_CLAC: case MN_STAC: case MN_MOV_SREG: case MN_LSS:
	case MN_LFS: case MN_LGS: case MN_LAR: case MN_LSL: case MN_VERR: case MN_VERW: case MN_SLDT: case MN_STR: case MN_LLDT: case MN_LTR:
	case MN_SGDT: case MN_SIDT: case MN_LGDT: case MN_LIDT: case MN_SMSW: case MN_LMSW: case MN_RDFSBASE: case MN_RDGSBASE:
	case MN_WRFSBASE: case MN_WRGSBASE: case MN_SWAPGS: case MN_MOV_CR: case MN_MOV_DR: case MN_CLTS: case MN_HLT: case MN_INVD:
	case MN_WBINVD: case MN_WBNOINVD: case MN_INVLPG: case MN_INVLPGA: case MN_INVLPGB: case MN_TLBSYNC: case MN_INVPCID: case MN_RDMSR:
	case MN_WRMSR: case MN_RDTSC: case MN_RDTSCP: case MN_RDPMC: case MN_RDPID: case MN_RDPRU: case MN_CPUID: case MN_XGETBV: case MN_XSETBV:
	case MN_RDPKRU: case MN_WRPKRU: case MN_MWAIT: case MN_MWAITX: case MN_UMWAIT: case MN_TPAUSE: case MN_SERIALIZE: case MN_HRESET:
	case MN_PCONFIG: case MN_GETSEC: case MN_PTWRITE: case MN_ENCLS: case MN_ENCLU: case MN_ENCLV: case MN_MCOMMIT: case MN_PVALIDATE:
	case MN_PSMASH: case MN_RMPADJUST: case MN_RMPUPDATE: case MN_VMCALL: case MN_VMMCALL: case MN_VMLAUNCH: case MN_VMRESUME:
	case MN_VMXOFF: case MN_VMXON: case MN_VMCLEAR: case MN_VMPTRLD: case MN_VMPTRST: case MN_VMREAD: case MN_VMWRITE: case MN_INVEPT:
	case MN_INVVPID: case MN_VMFUNC: case MN_VMRUN: case MN_VMLOAD: case MN_VMSAVE: case MN_STGI: case MN_CLGI: case MN_SKINIT:
	case MN_SEAMCALL: case MN_SEAMOPS: case MN_SEAMRET: case MN_TDCALL: case MN_RDSSP: case MN_INCSSP: case MN_SAVEPREVSSP:
	case MN_RSTORSSP: case MN_SETSSBSY: case MN_CLRSSBSY: case MN_TESTUI: case MN_CLUI: case MN_STUI: case MN_SENDUIPI: case MN_BNDCN:
	case MN_LOADIWKEY: case MN_ENCODEKEY128: case MN_ENCODEKEY256: case MN_AESENC128KL: case MN_AESENC256KL: case MN_AESDEC128KL:
	case MN_AESDEC256KL: case MN_AESENCWIDE128KL: case MN_AESENCWIDE256KL: case MN_AESDECWIDE128KL: case MN_AESDECWIDE256KL:
		return true;
	}
	return false;
}

/* AH to BH exist where no REX prefix is needed: no register from 8 on, no other byte register from SPL on, no W. */
static bool is_beyond_hi(const struct insn *insn, const struct lite_fields *f, const struct lite_recode *r)
{
	const struct {
		u8 guest, host, size;
		bool hi;
	} fields[] = {
		{ f->reg, r->reg, f->reg_size, f->reg_hi },
		{ r->rm_to_mem ? LITE_NO_REG : f->rm, r->rm, f->rm_size, f->rm_hi },
		{ f->low, r->low, f->low_size, f->low_hi },
	};
	bool hi = false, rex = insn->w && insn->mode == MODE_64 && insn->opsize == 8;

	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
		if (fields[i].guest == LITE_NO_REG)
			continue;
		if (fields[i].hi && fields[i].host > 3)
			return true;
		hi |= fields[i].hi;
		rex |= !fields[i].hi && fields[i].host >= (fields[i].size == 1 ? 4 : 8);
	}
	if (insn->has_mem || (r->rm_to_mem && f->rm != LITE_NO_REG)) {
		rex |= r->base != LITE_NO_REG && r->base >= 8;
		rex |= r->index != LITE_NO_REG && r->index >= 8;
	}
	return hi && rex;
}

/* ---- what comes back ----------------------------------------------------------------------------------------------- */

/* The host register that @r gives to a register operand of the guest's; -1: it is not in a field. */
static int host_register(const struct insn *insn, const struct operand *op, const struct lite_recode *r)
{
	if (insn->encoding == INSN_ENC_LEGACY && insn->map == INSN_MAP_1BYTE) {
		if ((insn->opcode & 0xf0) == 0x40)
			return r->rm;
		if ((insn->opcode & 0xfc) == 0xa0)
			return r->reg;
	}
	switch (op->field) {
	case OPF_REG:
		return r->reg;
	case OPF_RM:
		return r->rm;
	case OPF_VVVV:
		return r->vvvv;
	case OPF_LOW:
		return r->low;
	default:
		return -1;
	}
}

static const char *compare_mem(const struct insn *insn, const struct insn *again, const struct lite_recode *r)
{
	if (!again->has_mem)
		return "no memory operand";
	if (again->mem.base != r->base)
		return "base";
	if (again->mem.index != r->index)
		return "index";
	if (r->index != LITE_NO_REG && again->mem.scale != r->scale)
		return "scale";
	if (again->mem.disp != r->disp)
		return "displacement";
	if (again->mem.rip_rel)
		return "RIP-relative";
	if (again->seg_override != INSN_SEG_NONE || again->pfx67)
		return "prefixes";
	if (insn->has_mem && (again->mem.size != insn->mem.size || again->mem.access != insn->mem.access ||
			      again->mem.bcast != insn->mem.bcast))
		return "memory size or access";
	return NULL;
}

static const char *compare_again(const struct insn *insn, const struct insn *again, const struct lite_recode *r, bool to_mem)
{
	const char *why = NULL;
	u64 mask;

	if (again->mnemonic != insn->mnemonic)
		return "mnemonic";
	if (insn->mnemonic == MN_NOP)
		return again->len == 1 ? NULL : "NOP of one byte";
	if (again->nops != insn->nops)
		return "number of operands";
	for (unsigned i = 0; !why && i < insn->nops; i++) {
		const struct operand *a = &insn->op[i], *b = &again->op[i];
		int host = host_register(insn, a, r);

		if (to_mem && (a->field == OPF_RM || ((insn->opcode & 0xf0) == 0x40 && insn->map == INSN_MAP_1BYTE))) {
			why = b->kind == OPK_MEM ? compare_mem(insn, again, r) : "operand kind";
			continue;
		}
		/* The immediate of D0, D1 is none. */
		if (a->kind != b->kind || a->size != b->size || a->access != b->access)
			why = "operand kind, size or access";
		else if (a->kind == OPK_MEM)
			why = compare_mem(insn, again, r);
		else if (b->reg != ((a->kind == OPK_GPR || a->kind == OPK_GPR_HI) && host >= 0 ? host : a->reg))
			why = "register";
	}
	if (why)
		return why;
	mask = insn->imm_size < 8 ? (1ULL << 8 * insn->imm_size) - 1 : ~0ULL;
	if (insn->imm_size != again->imm_size)
		return "size of the immediate";
	/* With a register in its upper half, whose fourth bit counts in 64-bit mode only */
	for (unsigned i = 0; i < insn->nops; i++)
		if (insn->op[i].field == OPF_IS4)
			mask &= 0x0f;
	if ((insn->imm ^ again->imm) & mask)
		return "immediate";
	if (insn->imm2 != again->imm2)
		return "second immediate";
	if (again->lock != insn->lock || ((insn->flags & INSN_F_COND) && again->cond != insn->cond))
		return "lock or condition";
	if (again->vl != insn->vl || again->aaa != insn->aaa || again->z != insn->z || (!to_mem && again->b != insn->b) ||
	    again->sae != insn->sae || again->round != insn->round)
		return "EVEX fields";
	if (insn->state != again->state)
		return "state";
	/* Operand sizes that no operand shows: CBW, FLDENV */
	if (!insn->nops && insn->state == INSN_STATE_NONE && again->opsize != insn->opsize &&
	    (insn->mnemonic == MN_CBW || insn->mnemonic == MN_CWD))
		return "operand size";
	return NULL;
}

/* Whether the instruction with a memory operand in place of its general register in rm exists and is one of the same name. */
static bool has_mem_form(const struct insn *insn)
{
	u8 bytes[STRING_BYTES] = { 0 };
	struct insn mem;

	if (!insn->has_modrm || insn->mod != 3)
		return (insn->opcode & 0xf0) == 0x40 && insn->map == INSN_MAP_1BYTE && insn->encoding == INSN_ENC_LEGACY;
	memcpy(bytes, insn->bytes, insn->len);
	/* No base, no SIB, no displacement, in each kind of addressing: rm 7 */
	bytes[insn->modrm_off] = (insn->modrm & 0x38) | 7;
	if (insn_decode(&mem, bytes, STRING_BYTES, insn->mode) || !mem.has_mem || mem.mnemonic != insn->mnemonic)
		return false;
	/* PEXTRW has one opcode for registers and another one for both. */
	for (unsigned i = 0; i < insn->nops; i++)
		if (insn->op[i].field != OPF_RM && (mem.op[i].kind != insn->op[i].kind || mem.op[i].size != insn->op[i].size))
			return false;
	return mem.nops == insn->nops && !insn->b;
}

static void random_target(u64 *state, struct lite_recode *r)
{
	static const s32 disps[] = { 0, 0, 1, -1, 127, 128, -128, -129, 0x7fffffff, (s32)0x80000000, 64, 4096 };
	u64 x = next_random(state), mask = x & 1 ? 15 : 7;

	if (!(x & 6))
		mask = 3;
	r->reg = x >> 8 & mask;
	r->rm = x >> 12 & mask;
	r->vvvv = x >> 16 & 15;
	r->low = x >> 20 & mask;
	r->base = (x >> 24 & 31) == 31 ? LITE_NO_REG : x >> 24 & (mask | 4);
	r->index = x >> 30 & 1 || (x >> 32 & 15) == GPR_RSP ? LITE_NO_REG : x >> 32 & 15;
	if (r->index != LITE_NO_REG && mask < 8)
		r->index &= 3;
	r->scale = 1 << (x >> 36 & 3);
	r->disp = x >> 40 & 1 ? disps[(x >> 41) % ARRAY_SIZE(disps)] : (s32)(x >> 32);
	r->rm_to_mem = false;
}

/* 64-bit code clears registers that 32-bit code does not have. */
static bool is_several(const struct insn *insn)
{
	return insn->mode != MODE_64 && (insn->mnemonic == MN_VZEROUPPER || insn->mnemonic == MN_VZEROALL);
}

static void check(struct run *run, const struct insn *insn, const u8 *bytes)
{
	u8 out[LITE_RECODE_MAX + 16];
	struct lite_recode r;
	struct lite_fields f;
	struct lite_use use;
	struct insn again;
	bool special = is_special(insn), beyond, to_mem = false;
	const char *why;
	unsigned len;

	lite_fields(insn, &f);
	lite_use(insn, &use);
	run->decoded++;
	run->seen[insn->mnemonic] = true;
	if (second_fields) {
		why = second_fields(bytes, insn, &f);
		if (why)
			show(run, WRONG_FIELDS, why, insn, bytes, 0);
		why = second_use(bytes, insn, &use);
		if (why)
			show(run, WRONG_USE, why, insn, bytes, 0);
	}
	random_target(&run->state, &r);
	if (f.rm != LITE_NO_REG && !special && !insn->lock && has_mem_form(insn))
		to_mem = r.rm_to_mem = next_random(&run->state) & 1;
	beyond = is_beyond_hi(insn, &f, &r);
	memset(out, 0xcc, sizeof(out));
	len = lite_recode(insn, &r, out);
	if (!len) {
		if (special || beyond)
			run->refused[special]++;
		else
			show(run, WRONG_REFUSAL, "refused", insn, out, 0);
		return;
	}
	run->recoded++;
	run->recoded_once[insn->mnemonic] = true;
	run->to_mem += to_mem;
	if (special || beyond)
		show(run, WRONG_REFUSAL, "not refused", insn, out, len);
	if (use.read == 0xffff)
		show(run, WRONG_USE, "uses everything", insn, out, len);
	/* Several instructions: recode_cpu.c has tried them. */
	if (is_several(insn)) {
		if (len != 32)
			show(run, WRONG_RECODE, "length", insn, out, len);
		return;
	}
	if (len > INSN_MAX_LEN)
		why = "too long";
	else if (insn_decode(&again, out, sizeof(out), MODE_64))
		why = "undefined";
	else if (again.len != len)
		why = "length";
	else
		why = compare_again(insn, &again, &r, to_mem);
	if (why) {
		show(run, WRONG_RECODE, why, insn, out, MIN(len, INSN_MAX_LEN));
		return;
	}
	if (second_decode) {
		why = second_decode(out);
		if (why)
			show(run, WRONG_SECOND, why, insn, out, len);
	}
}

static void test_random(enum insn_mode mode, u64 instructions, u64 seed)
{
	static struct run run;
	const char *name = mode_names[mode];
	unsigned mnemonics = 0, recoded = 0;

	memset(&run, 0, sizeof(run));
	run.mode = mode;
	run.state = seed + mode;
	while (run.decoded < instructions) {
		u8 bytes[STRING_BYTES];
		struct insn insn;

		random_string(&run.state, bytes, mode);
		if (!insn_decode(&insn, bytes, STRING_BYTES, mode))
			check(&run, &insn, bytes);
	}
	for (unsigned i = 0; i < MN_COUNT; i++) {
		mnemonics += run.seen[i];
		recoded += run.recoded_once[i];
	}
	tap_diag("%s: %llu decoded, %llu recoded (%llu to memory), %llu refused for AH to BH, %llu others; %u of %u mnemonics", name,
		 (unsigned long long)run.decoded, (unsigned long long)run.recoded, (unsigned long long)run.to_mem,
		 (unsigned long long)run.refused[0], (unsigned long long)run.refused[1], recoded, mnemonics);
	tap_ok(!run.wrong[WRONG_RECODE] && run.recoded > instructions / 2 && run.to_mem > instructions / 100 && recoded > 700,
	       "%s code: decoded again, it is what was asked for", name);
	tap_ok(!run.wrong[WRONG_REFUSAL] && run.refused[0] && run.refused[1], "%s code: what cannot be had is refused, nothing else is", name);
	if (!second_decode) {
		tap_skip("no Zydis", "a second decoder's opinion");
		return;
	}
	tap_ok(!run.wrong[WRONG_SECOND], "%s code: Zydis reads the new code as our decoder does", name);
	tap_ok(!run.wrong[WRONG_FIELDS], "%s code: fields that name general registers are those of Zydis", name);
	tap_ok(!run.wrong[WRONG_USE], "%s code: uses of registers and flags are those of Zydis", name);
}

/* ---- known strings ------------------------------------------------------------------------------------------------- */

#define AT(base_, index_, scale_, disp_) .base = base_, .index = index_, .scale = scale_, .disp = disp_
#define NONE LITE_NO_REG

static const struct known {
	const char *name;
	enum insn_mode mode;
	const char *in, *out; /* out "": refused */
	struct lite_recode r;
} known[] = {
	{ "add rax, rbx: r9, r10", MODE_64, "48 01 d8", "4d 01 ca", { .reg = 9, .rm = 10 } },
	{ "add rax, rbx: eax and ebx stay", MODE_64, "01 d8", "01 d8", { .reg = 3, .rm = 0 } },
	{ "add ah, bh: dh, ch", MODE_64, "00 fc", "00 ee", { .reg = 1 + 4 - 4, .rm = 2 } },
	{ "add ah, bh: not in rsp", MODE_64, "00 fc", "", { .reg = 3, .rm = 4 } },
	{ "add ah, bl: not with sil", MODE_64, "00 dc", "", { .reg = 6, .rm = 0 } },
	{ "add ah, [rbx]: not with r8", MODE_64, "02 23", "", { .reg = 0, AT(8, NONE, 1, 0) } },
	{ "add spl, dil: al, sil", MODE_64, "40 00 fc", "40 00 f0", { .reg = 6, .rm = 0 } },
	{ "add spl, dil: al, bl", MODE_64, "40 00 fc", "00 d8", { .reg = 3, .rm = 0 } },
	{ "movzx eax, ah: edx, bh", MODE_64, "0f b6 c4", "0f b6 d7", { .reg = 2, .rm = 3 } },
	{ "movzx eax, ah: to memory", MODE_64, "0f b6 c4", "46 0f b6 4c 85 00", { .reg = 9, .rm_to_mem = true, AT(5, 8, 4, 0) } },
	{ "mov eax, [rsp+8]: r12", MODE_64, "8b 44 24 08", "41 8b 04 24", { .reg = 0, AT(12, NONE, 1, 0) } },
	{ "mov eax, [ebx] with 67 and fs", MODE_64, "64 67 8b 03", "41 8b 45 00", { .reg = 0, AT(13, NONE, 1, 0) } },
	{ "mov eax, [rip+1]", MODE_64, "8b 05 01 00 00 00", "8b 84 8a 80 00 00 00", { .reg = 0, AT(2, 1, 4, 128) } },
	{ "mov eax, [disp32]: no base", MODE_32, "8b 05 01 00 00 00", "8b 04 25 f0 ff ff ff", { .reg = 0, AT(NONE, NONE, 1, -16) } },
	{ "mov eax, moffs", MODE_32, "a1 11 22 33 44", "45 8b 4d 00", { .reg = 9, AT(13, NONE, 1, 0) } },
	{ "mov moffs, al", MODE_64, "a2 11 22 33 44 55 66 77 88", "88 06", { .reg = 0, AT(6, NONE, 1, 0) } },
	{ "mov moffs, ax of 16-bit code", MODE_16, "a3 11 22", "66 89 06", { .reg = 0, AT(6, NONE, 1, 0) } },
	{ "inc ecx of 32-bit code", MODE_32, "41", "ff c1", { .rm = 1 } },
	{ "dec di of 32-bit code", MODE_32, "66 4f", "66 41 ff ce", { .rm = 14 } },
	{ "dec edi of 32-bit code: to memory", MODE_32, "4f", "ff 4d 7f", { .rm_to_mem = true, AT(5, NONE, 1, 127) } },
	{ "add al, imm8 as 82", MODE_32, "82 c0 05", "80 c1 05", { .rm = 1 } },
	{ "xchg eax, ebx", MODE_64, "93", "41 91", { .low = 9 } },
	{ "xchg eax, r8d: not NOP", MODE_64, "41 90", "87 c0", { .low = 0 } },
	{ "xchg rax, rbx: rax, r8", MODE_64, "48 93", "49 90", { .low = 8 } },
	{ "mov rcx, imm64", MODE_64, "48 b9 01 02 03 04 05 06 07 08", "49 bd 01 02 03 04 05 06 07 08", { .low = 13 } },
	{ "mov cl, imm8: r9b", MODE_64, "b1 05", "41 b1 05", { .low = 9 } },
	{ "mov ch, imm8: dh", MODE_64, "b5 05", "b6 05", { .low = 2 } },
	{ "mov ax, imm16 of 16-bit code", MODE_16, "b8 34 12", "66 b8 34 12", { .low = 0 } },
	{ "mov eax, imm32 of 16-bit code", MODE_16, "66 b8 78 56 34 12", "b8 78 56 34 12", { .low = 0 } },
	{ "bswap r15", MODE_64, "49 0f cf", "48 0f ce", { .low = 6 } },
	{ "cbw of 16-bit code", MODE_16, "98", "66 98", { .reg = 0 } },
	{ "cqo", MODE_64, "48 99", "48 99", { .reg = 0 } },
	{ "lock cmpxchg8b [rsi]", MODE_64, "f0 0f c7 0e", "f0 41 0f c7 4d 00", { AT(13, NONE, 1, 0) } },
	{ "xrelease is dropped", MODE_64, "f3 89 03", "89 03", { .reg = 0, AT(3, NONE, 1, 0) } },
	{ "crc32 eax, cx", MODE_64, "66 f2 0f 38 f1 c1", "66 f2 45 0f 38 f1 ca", { .reg = 9, .rm = 10 } },
	{ "popcnt ax, cx", MODE_64, "66 f3 0f b8 c1", "66 f3 44 0f b8 c9", { .reg = 9, .rm = 1 } },
	{ "movbe of 16 bits", MODE_64, "66 0f 38 f0 03", "66 0f 38 f0 03", { .reg = 0, AT(3, NONE, 1, 0) } },
	{ "andn", MODE_64, "c4 e2 70 f2 c3", "c4 42 18 f2 ca", { .reg = 9, .rm = 10, .vvvv = 12 } },
	{ "andn, W of 32-bit code", MODE_32, "c4 e2 f0 f2 c3", "c4 e2 70 f2 c3", { .reg = 0, .rm = 3, .vvvv = 1 } },
	{ "vmovd xmm0, eax, W of 32-bit code", MODE_32, "c4 e1 f9 6e c0", "c4 c1 79 6e c2", { .rm = 10 } },
	{ "vmovq xmm0, rax", MODE_64, "c4 e1 f9 6e c0", "c4 c1 f9 6e c2", { .rm = 10 } },
	{ "vpcmpestri, W of 32-bit code", MODE_32, "c4 e3 f9 61 6f 89 15", "c4 e3 79 61 6f 89 15", { AT(7, NONE, 1, -119) } },
	{ "vpsrlvq of 32-bit code keeps W", MODE_32, "c4 e2 f1 45 c2", "c4 e2 f1 45 c2", { .rm = 0 } },
	{ "vaddps xmm0, xmm1, [eax] to two bytes of VEX", MODE_32, "c5 f0 58 00", "c5 f0 58 07", { AT(7, NONE, 1, 0) } },
	{ "vblendvps, fourth bit of the register in imm8", MODE_32, "c4 e3 71 4a c2 b0", "c4 e3 71 4a c2 30", { .rm = 0 } },
	{ "vzeroupper of 32-bit code", MODE_32, "c5 f8 77",
	  "c5 f8 28 c0 c5 f8 28 c9 c5 f8 28 d2 c5 f8 28 db c5 f8 28 e4 c5 f8 28 ed c5 f8 28 f6 c5 f8 28 ff", { .rm = 0 } },
	{ "vzeroall of 32-bit code", MODE_32, "c5 fc 77",
	  "c5 f8 57 c0 c5 f0 57 c9 c5 e8 57 d2 c5 e0 57 db c5 d8 57 e4 c5 d0 57 ed c5 c8 57 f6 c5 c0 57 ff", { .rm = 0 } },
	{ "vzeroall", MODE_64, "c5 fc 77", "c5 fc 77", { .rm = 0 } },
	{ "vmovups zmm0, [rsi+1*64]", MODE_64, "62 f1 7c 48 10 46 01", "62 d1 7c 48 10 45 00", { AT(13, NONE, 1, 0) } },
	{ "vmovups zmm0, [rsi]: disp32", MODE_64, "62 f1 7c 48 10 06", "62 f1 7c 48 10 86 40 00 00 00", { AT(6, NONE, 1, 64) } },
	{ "vpaddd zmm31, zmm30, zmm29", MODE_64, "62 01 0d 40 fe fd", "62 01 0d 40 fe fd", { .rm = 0 } },
	{ "vpbroadcastd zmm1{k1}, eax", MODE_64, "62 f2 7d 49 7c c8", "62 d2 7d 49 7c cf", { .rm = 15 } },
	{ "kmovq k1, rax", MODE_64, "c4 e1 fb 92 c8", "c4 c1 fb 92 cf", { .rm = 15 } },
	{ "kmovd ecx, k3", MODE_64, "c5 fb 93 cb", "c5 7b 93 fb", { .reg = 15 } },
	{ "movd mm0, ecx with REX.R", MODE_64, "44 0f 6e c1", "41 0f 6e c2", { .rm = 10 } },
	{ "fld dword [esi]", MODE_32, "d9 06", "41 d9 04 24", { AT(12, NONE, 1, 0) } },
	{ "fnstsw ax", MODE_32, "df e0", "df e0", { .rm = 0 } },
	{ "fadd st0, st3", MODE_64, "d8 c3", "d8 c3", { .rm = 0 } },
	{ "pcmpestri xmm1, [rax], 3", MODE_64, "66 0f 3a 61 08 03", "66 0f 3a 61 0b 03", { AT(3, NONE, 1, 0) } },
	{ "nop of many bytes", MODE_64, "66 0f 1f 84 00 00 00 00 00", "90", { .rm = 0 } },
	{ "vpgatherdd", MODE_64, "c4 e2 75 90 04 93", "", { AT(3, NONE, 1, 0) } },
	{ "index rsp", MODE_64, "8b 03", "", { .reg = 0, AT(3, GPR_RSP, 1, 0) } },
	{ "push rax", MODE_64, "50", "", { .low = 0 } },
	{ "syscall", MODE_64, "0f 05", "", { .low = 0 } },
	{ "jmp", MODE_64, "eb 00", "", { .low = 0 } },
	{ "daa", MODE_32, "27", "", { .low = 0 } },
	{ "movsb", MODE_64, "a4", "", { .low = 0 } },
	{ "cpuid", MODE_64, "0f a2", "", { .low = 0 } },
};

static unsigned parse(const char *text, u8 *bytes)
{
	unsigned n = 0;

	for (; *text; text += text[2] ? 3 : 2)
		bytes[n++] = strtoul((char[]){ text[0], text[1], 0 }, NULL, 16);
	return n;
}

static void test_known(const struct known *k)
{
	u8 in[STRING_BYTES] = { 0 }, want[LITE_RECODE_MAX], out[LITE_RECODE_MAX];
	unsigned n = parse(k->in, in), wanted = parse(k->out, want), len;
	struct insn insn;
	int err = insn_decode(&insn, in, n, k->mode);

	if (err || insn.len != n) {
		tap_ok(false, "%s: decodes", k->name);
		return;
	}
	len = lite_recode(&insn, &k->r, out);
	for (unsigned i = 0; i < len; i++)
		if (len != wanted || memcmp(out, want, len))
			tap_diag("byte %u: %02x", i, out[i]);
	tap_ok(len == wanted && !memcmp(out, want, len), "%s (%s)", k->name, mode_names[k->mode]);
}

int main(int argc, char **argv)
{
	u64 n = argc > 1 ? strtoull(argv[1], NULL, 0) : getenv("TRINE_LONG") ? 10000000 : 350000;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	tap_begin();
	if (second_init)
		second_init();
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		test_known(&known[i]);
	for (int mode = MODE_16; mode <= MODE_64; mode++)
		test_random(mode, n, seed);
	return tap_end();
}
