/*
 * What lite_use() and lite_below() say and lite_recode() makes, against the real processor, in 64-bit and in 32-bit mode.
 *
 * Uses: an instruction runs twice from states that differ in one register or flag that it is said not to read. The results must be
 * the same but for that register or flag, which keeps its value unless it is said to be written; what is not written stays.
 *
 * Bounds: what lite_below() says of the results holds.
 *
 * Recoding: an instruction runs as it is, and recoded in 64-bit mode with its registers permuted and its memory operand reached by
 * other registers. The results must be the same, permuted.
 *
 *	test-lite-recode-cpu [CASES [SEED [MNEMONIC]]]	cases of each mnemonic and mode: 100 by default, 4000 with TRINE_LONG
 *
 * One verdict an integer mnemonic, and one for each kind of vector and x87 state.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "tests/emul/native.h"
#include "tests/lite/recode.h"
#include "tests/tap.h"

#define WRITABLE (2 << 12) /* scratch memory that is used */
#define SHOWN	 6
#define XSTATE	 8192

static u8 *const scratch = (u8 *)NATIVE_SCRATCH;
static u8 memory[WRITABLE], xstate[XSTATE] __attribute__((aligned(64)));
static u64 state, xcr;

static struct tally {
	u64 uses, below, recoded, to_mem, faults;
	unsigned wrong_use, wrong_recode;
} tallies[MN_COUNT], states[INSN_STATE_AMX + 1];

/* A state before or after a run. */
struct snapshot {
	struct native_regs regs;
	struct native_result out;
	u8 memory[WRITABLE];
	u8 xstate[XSTATE] __attribute__((aligned(64)));
};

static u64 rnd(void)
{
	return next_random(&state);
}

static bool one_in(unsigned n)
{
	return rnd() % n == 0;
}

static u64 interesting(void)
{
	static const u64 some[] = { 0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
				    0x7fffffffffffffff, 0x8000000000000000, ~0ULL };

	switch (rnd() & 3) {
	case 0:
		return some[rnd() % ARRAY_SIZE(some)];
	case 1:
		return rnd() >> (rnd() & 63);
	default:
		return rnd();
	}
}

static u8 flag_set(u64 rflags)
{
	return (rflags & RFLAGS_CF ? LITE_CF : 0) | (rflags & RFLAGS_PF ? LITE_PF : 0) | (rflags & RFLAGS_AF ? LITE_AF : 0) |
	       (rflags & RFLAGS_ZF ? LITE_ZF : 0) | (rflags & RFLAGS_SF ? LITE_SF : 0) | (rflags & RFLAGS_OF ? LITE_OF : 0);
}

static u64 flag_bit(u8 flag)
{
	static const u64 bits[] = { RFLAGS_CF, RFLAGS_PF, RFLAGS_AF, RFLAGS_ZF, RFLAGS_SF, RFLAGS_OF };

	return bits[__builtin_ctz(flag)];
}

/* ---- one run ------------------------------------------------------------------------------------------------------- */

static bool has_xstate(const struct insn *insn)
{
	return insn->state >= INSN_STATE_X87 && insn->state <= INSN_STATE_AVX512 && insn->state != INSN_STATE_WAIT;
}

static void init_xstate(void)
{
	static const struct {
		unsigned component, size;
	} parts[] = { { 2, 256 }, { 5, 64 }, { 6, 512 }, { 7, 1024 } };
	u32 a, b, c = 0, d;

	__asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	xcr = a & 0xe7;
	memset(xstate, 0, sizeof(xstate));
	*(u16 *)xstate = 0x037f;     /* FCW */
	xstate[4] = 0xff;	     /* all of ST are valid */
	*(u32 *)(xstate + 24) = 0x1f80; /* MXCSR */
	*(u64 *)(xstate + 512) = xcr;
	for (unsigned i = 32; i < 160; i++)
		xstate[i] = (i & 15) < 10 ? rnd() : 0;
	for (unsigned i = 160; i < 416; i++)
		xstate[i] = rnd();
	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!(xcr & 1U << parts[i].component))
			continue;
		c = parts[i].component;
		__asm__("cpuid" : "=a"(a), "=b"(b), "+c"(c), "=d"(d) : "0"(0xd));
		for (unsigned j = 0; b + parts[i].size <= XSTATE && j < parts[i].size; j++)
			xstate[b + j] = rnd();
	}
}

static void run(const struct insn *insn, const u8 *code, unsigned len, bool compat, struct snapshot *s)
{
	memcpy(scratch, memory, WRITABLE);
	s->out.regs.rip = 0;
	if (has_xstate(insn)) {
		memset(s->xstate, 0, XSTATE);
		native_run_x(code, len, compat, &s->regs, &s->out, xstate, s->xstate, xcr);
		/* A component that is in its initial state may or may not be in use. */
		memset(s->xstate + 512, 0, 8);
		__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(*(u32 *)(xstate + 24)));
	} else {
		native_run(code, len, compat, &s->regs, &s->out);
	}
	memcpy(s->memory, scratch, WRITABLE);
	/* After an exception those that 32-bit code does not have are anything. */
	for (unsigned i = 8; compat && i < 16; i++)
		s->out.regs.gpr[i] = s->regs.gpr[i];
}

/* ---- which instructions, from which states ------------------------------------------------------------------------- */

/* Whether it can be run here, with the same result each time, and without taking from this process what it needs. */
static bool is_runnable(const struct insn *insn, const struct lite_use *use)
{
	if (use->read == 0xffff || insn->mem.vsib || insn->addrsize == 2)
		return false;
	if (insn->flags & (INSN_F_PRIVILEGED | INSN_F_IOPL | INSN_F_UMIP))
		return false;
	/* Intel ignores 66 before near branches in 64-bit mode, AMD does not. */
	if ((insn->flags & INSN_F_BRANCH) && (insn->op[0].kind != OPK_REL || (insn->pfx66 && insn->mode == MODE_64)))
		return false;
	if (insn->seg_override == SEG_FS || insn->seg_override == SEG_GS)
		return false;
	if (insn->state == INSN_STATE_XSAVE || insn->state == INSN_STATE_FXSR || insn->state == INSN_STATE_AMX)
		return false;
	switch (insn->mnemonic) {
	case MN_MOV_SREG: case MN_POP_SREG: case MN_LES: case MN_LDS: case MN_LSS: case MN_LFS: case MN_LGS: case MN_RDFSBASE:
	case MN_RDGSBASE: case MN_WRFSBASE: case MN_WRGSBASE: case MN_RDTSC: case MN_RDTSCP: case MN_RDPMC: case MN_RDRAND: case MN_RDSEED:
	case MN_CPUID: case MN_RDPID: case MN_WRPKRU: case MN_MONITOR: case MN_MONITORX: case MN_MWAIT: case MN_UMONITOR: case MN_POPF:
	case MN_CALL_NEAR: case MN_CLAC: case MN_STAC: case MN_SGDT: case MN_SIDT: case MN_SMSW: case MN_FLDENV: case MN_FRSTOR:
		return false;
	case MN_BSWAP:
		return insn->opsize != 2;
	case MN_XCHG:
		/* F3 with REX.B and 90 is XCHG with R8 or PAUSE (SDM 2B has 90+r for the one, F3 90 for the other): to Intel's it is PAUSE. */
		return insn->opcode != 0x90 || insn->rep != INSN_REP_E || insn->map != INSN_MAP_1BYTE;
	}
	return true;
}

/* Makes the memory operand's address @target where that can be done. False: it cannot. */
static bool aim(const struct insn *insn, u8 *bytes, u64 *gpr, u64 target, bool compat)
{
	const struct insn_mem *m = &insn->mem;
	u64 index = 0, disp;

	if (m->index != INSN_REG_NONE) {
		if (m->index == m->base)
			return false;
		if (m->index != GPR_RSP)
			gpr[m->index] = rnd() & 31;
		index = gpr[m->index] * m->scale;
	}
	if (m->base != INSN_REG_NONE) {
		gpr[m->base] = target - m->disp - index;
		if (compat || insn->addrsize == 4)
			gpr[m->base] = (u32)gpr[m->base];
		return true;
	}
	disp = m->rip_rel ? target - NATIVE_CODE - insn->len : target - index;
	memcpy(bytes + insn->disp_off, &disp, insn->disp_size);
	return true;
}

/* Registers that make it complete, as a rule. @bytes are changed where an address or a target is in them. */
static void prepare(const struct insn *insn, u8 *bytes, struct native_regs *r, bool compat)
{
	u64 target = NATIVE_SCRATCH + 0x400 + (rnd() % 0x1800 & ~63ULL);

	for (unsigned i = 0; i < 16; i++)
		r->gpr[i] = compat ? (i < 8 ? (u32)interesting() : 0) : interesting();
	r->gpr[GPR_RSP] = NATIVE_SCRATCH + 0x1000 + (rnd() & 0x3f0);
	r->rflags = RFLAGS_ONE | RFLAGS_IF | (rnd() & RFLAGS_ARITH);
	if (insn->mnemonic == MN_DIV || insn->mnemonic == MN_IDIV) {
		r->gpr[GPR_RDX] = one_in(2) ? 0 : rnd() & 3;
		if (insn->opsize == 1)
			r->gpr[GPR_RAX] &= 0xfff;
	}
	if (insn->flags & INSN_F_STRING) {
		r->gpr[GPR_RSI] = NATIVE_SCRATCH + 0x800 + (rnd() & 0xff);
		r->gpr[GPR_RDI] = one_in(4) ? r->gpr[GPR_RSI] : NATIVE_SCRATCH + 0x1200 + (rnd() & 0xff);
		r->gpr[GPR_RCX] = rnd() % 12;
		r->rflags |= one_in(2) ? RFLAGS_DF : 0;
	}
	if (insn->mnemonic == MN_XLAT)
		r->gpr[GPR_RBX] = NATIVE_SCRATCH + 0x800;
	if (insn->mnemonic == MN_MASKMOVQ || insn->mnemonic == MN_MASKMOVDQU || insn->mnemonic == MN_VMASKMOVDQU)
		r->gpr[GPR_RDI] = target;
	if (insn->mnemonic == MN_CLZERO)
		r->gpr[GPR_RAX] = target;
	if (insn->mnemonic == MN_ENTER)
		memset(bytes + insn->imm_off + 1, 0, 2);
	if (insn->mnemonic == MN_LEAVE || insn->mnemonic == MN_ENTER)
		r->gpr[GPR_RBP] = NATIVE_SCRATCH + 0xc00;
	if (insn->mnemonic == MN_MOVDIR64B)
		r->gpr[insn->op[0].reg] = target ^ 64;
	/* A bit offset is part of the address. */
	if (insn->mnemonic >= MN_BT && insn->mnemonic <= MN_BTC && insn->op[1].kind == OPK_GPR)
		r->gpr[insn->op[1].reg] = rnd() & 0x7ff;
	if (insn->mnemonic == MN_XGETBV || insn->mnemonic == MN_RDPKRU)
		r->gpr[GPR_RCX] = 0;
	if (insn->has_mem)
		aim(insn, bytes, r->gpr, target, compat);
	if (insn->mnemonic == MN_CMPXCHG && insn->op[0].kind == OPK_GPR && one_in(2))
		r->gpr[GPR_RAX] = r->gpr[insn->op[0].reg];
	if (insn->op[0].kind == OPK_REL) {
		s32 rel = insn->imm_size == 1 ? 40 + (int)(rnd() % 80) : 0x4000000;

		memcpy(bytes + insn->imm_off, &rel, insn->imm_size);
	}
}

/* ---- uses ---------------------------------------------------------------------------------------------------------- */

static void describe(const char *why, const struct insn *insn, const u8 *bytes, bool compat, unsigned *shown)
{
	char text[64] = "";

	if ((*shown)++ >= SHOWN)
		return;
	for (unsigned i = 0; i < insn->len; i++)
		sprintf(text + 3 * i, " %02x", bytes[i]);
	tap_diag("%s: %s, %s-bit:%s", why, mnemonic_name(insn->mnemonic), compat ? "32" : "64", text);
}

static bool completed(const struct snapshot *s)
{
	return s->out.vector < 0 || s->out.completed_by_fetch;
}

/* NULL, or what differs but for the register @reg and the flags @flags. */
static const char *compare(const struct insn *insn, const struct snapshot *a, const struct snapshot *b, int reg, u8 flags)
{
	static char text[32];

	if (a->out.vector != b->out.vector || a->out.completed_by_fetch != b->out.completed_by_fetch)
		return "exception";
	if (a->out.regs.rip != b->out.regs.rip)
		return "RIP";
	for (int i = 0; i < 16; i++) {
		if (i != reg && a->out.regs.gpr[i] != b->out.regs.gpr[i]) {
			sprintf(text, "register %d", i);
			return text;
		}
	}
	if ((flag_set(a->out.regs.rflags) ^ flag_set(b->out.regs.rflags)) & ~flags)
		return "flags";
	if (memcmp(a->memory, b->memory, WRITABLE))
		return "memory";
	if (has_xstate(insn) && memcmp(a->xstate, b->xstate, XSTATE))
		return "vector or x87 state";
	return NULL;
}

static const char *check_unwritten(const struct lite_use *use, const struct snapshot *s)
{
	for (int i = 0; i < 16; i++)
		if (!(use->write & 1U << i) && s->out.regs.gpr[i] != s->regs.gpr[i])
			return "changes a register that it does not write";
	if ((flag_set(s->out.regs.rflags) ^ flag_set(s->regs.rflags)) & ~use->fl_may)
		return "changes a flag that it does not write";
	return NULL;
}

static const char *check_register(const struct insn *insn, const u8 *bytes, bool compat, const struct lite_use *use,
				  const struct snapshot *base, int reg)
{
	static struct snapshot other;
	static char text[64];
	const char *why;

	other.regs = base->regs;
	other.regs.gpr[reg] ^= rnd() | (one_in(2) ? rnd() : 1);
	if (compat)
		other.regs.gpr[reg] = (u32)other.regs.gpr[reg];
	run(insn, bytes, insn->len, compat, &other);
	why = compare(insn, base, &other, reg, use->fl_undef);
	if (why) {
		snprintf(text, sizeof(text), "register %d is read: other %s", reg, why);
		return text;
	}
	if (use->write & 1U << reg)
		return completed(base) && base->out.regs.gpr[reg] != other.out.regs.gpr[reg] ? "a written register keeps some of its value" :
											       NULL;
	return other.out.regs.gpr[reg] != other.regs.gpr[reg] ? "changes a register that it does not write" : NULL;
}

static const char *check_flag(const struct insn *insn, const u8 *bytes, bool compat, const struct lite_use *use,
			      const struct snapshot *base, u8 flag)
{
	static struct snapshot other;
	static char text[64];
	const char *why;
	u8 before, after;

	other.regs = base->regs;
	other.regs.rflags ^= flag_bit(flag);
	run(insn, bytes, insn->len, compat, &other);
	why = compare(insn, base, &other, -1, use->fl_undef | flag);
	if (why) {
		snprintf(text, sizeof(text), "flag %#x is read: other %s", flag, why);
		return text;
	}
	if (!completed(base))
		return NULL;
	before = flag_set(base->out.regs.rflags) & flag;
	after = flag_set(other.out.regs.rflags) & flag;
	if ((use->fl_write & ~use->fl_undef & flag) && before != after)
		return "a written flag keeps its value";
	if (!(use->fl_may & flag) && before == after)
		return "changes a flag that it does not write";
	return NULL;
}

static void check_use(const struct insn *insn, const u8 *bytes, bool compat, const struct lite_use *use, const struct snapshot *base,
		      struct tally *t)
{
	const char *why = completed(base) ? check_unwritten(use, base) : NULL;

	for (unsigned i = 0; !why && i < 4; i++) {
		int reg = rnd() % (compat ? 8 : 16);
		u8 flag = 1 << rnd() % 6;

		if (!(use->read & 1U << reg))
			why = check_register(insn, bytes, compat, use, base, reg);
		if (!why && !(use->fl_read & flag))
			why = check_flag(insn, bytes, compat, use, base, flag);
	}
	if (why)
		describe(why, insn, bytes, compat, &t->wrong_use);
	t->uses++;
}

/* ---- recoding ------------------------------------------------------------------------------------------------------ */

/* What lite_below() says of the registers behind, told as much of those before as it could have been. 64-bit mode. */
static void check_below(const struct insn *insn, const u8 *bytes, const struct lite_use *use, const struct snapshot *base, struct tally *t)
{
	u32 below[16];

	for (unsigned i = 0; i < 16; i++)
		below[i] = base->regs.gpr[i] < LITE_BELOW_MAX ? (u32)base->regs.gpr[i] + 1 + (one_in(2) ? rnd() % (LITE_BELOW_MAX - base->regs.gpr[i]) : 0) : 0;
	lite_below(insn, use, below);
	for (unsigned i = 0; i < 16; i++) {
		if (!below[i])
			continue;
		t->below += use->write >> i & 1;
		if (base->out.regs.gpr[i] >= below[i]) {
			describe("a register that is not less than it is said to be", insn, bytes, false, &t->wrong_use);
			return;
		}
	}
}

static u8 first_free(u16 taken)
{
	u8 reg;

	do {
		reg = rnd() & 15;
	} while (taken & 1U << reg || reg == GPR_RSP);
	return reg;
}

static void check_recode(const struct insn *insn, const u8 *bytes, bool compat, const struct lite_use *use, const struct snapshot *base,
			 struct tally *t)
{
	static struct snapshot other;
	struct lite_recode r = { .index = LITE_NO_REG };
	u16 fields = 0, fixed, taken = 0, operands = 0;
	u8 host[16], code[LITE_RECODE_MAX];
	struct lite_fields f;
	u64 slot = 0, kept = 0;
	const char *why;
	unsigned len;

	lite_fields(insn, &f);
	fields |= f.reg != LITE_NO_REG ? 1U << f.reg : 0;
	fields |= f.rm != LITE_NO_REG ? 1U << f.rm : 0;
	fields |= f.vvvv != LITE_NO_REG ? 1U << f.vvvv : 0;
	fields |= f.low != LITE_NO_REG ? 1U << f.low : 0;
	/* Registers that no field names stay where they are, but for those of the address. */
	for (unsigned i = 0; i < insn->nops; i++)
		if (insn->op[i].kind == OPK_GPR && insn->op[i].field == OPF_NONE)
			operands |= 1U << insn->op[i].reg;
	fixed = (use->read | use->write) & ~fields;
	if (insn->has_mem) {
		if (insn->mem.base != INSN_REG_NONE)
			fixed &= ~(1U << insn->mem.base);
		if (insn->mem.index != INSN_REG_NONE)
			fixed &= ~(1U << insn->mem.index);
	}
	fixed |= operands;
	switch (insn->mnemonic) {
	/* Implied registers that a field or the address may name as well */
	case MN_MUL: case MN_IMUL: case MN_DIV: case MN_IDIV: case MN_CMPXCHG: case MN_CMPXCHG8B: case MN_CMPXCHG16B: case MN_MULX:
	case MN_PCMPESTRI: case MN_PCMPESTRM: case MN_PCMPISTRI: case MN_VPCMPESTRI: case MN_VPCMPESTRM: case MN_VPCMPISTRI:
		fixed |= 1U << GPR_RAX | 1U << GPR_RCX | 1U << GPR_RDX | 1U << GPR_RBX;
	}
	taken = fixed;
	for (unsigned i = 0; i < 16; i++) {
		host[i] = fixed & 1U << i ? i : LITE_NO_REG;
		if (host[i] == LITE_NO_REG && (fields & 1U << i)) {
			host[i] = f.hi_byte && one_in(2) ? (rnd() & 3) : first_free(taken);
			if (taken & 1U << host[i])
				host[i] = first_free(taken);
			taken |= 1U << host[i];
		}
	}
	/* One register in memory, when nothing else names it */
	if (lite_rm_may_be_mem(insn) && f.rm != f.reg && f.rm != f.vvvv && !(fixed & 1U << f.rm) && one_in(2)) {
		slot = NATIVE_SCRATCH + 0x700 + (rnd() & 0xf8);
		r.rm_to_mem = true;
		host[f.rm] = LITE_NO_REG;
	}
	r.reg = f.reg != LITE_NO_REG ? host[f.reg] : 0;
	r.rm = f.rm != LITE_NO_REG && !slot ? host[f.rm] : 0;
	r.vvvv = f.vvvv != LITE_NO_REG ? host[f.vvvv] : 0;
	r.low = f.low != LITE_NO_REG ? host[f.low] : 0;
	other.regs.rflags = base->regs.rflags;
	for (unsigned i = 0; i < 16; i++)
		other.regs.gpr[i] = rnd();
	other.regs.gpr[GPR_RSP] = NATIVE_SCRATCH + 0x1000;
	for (unsigned i = 0; i < 16; i++)
		if (host[i] != LITE_NO_REG)
			other.regs.gpr[host[i]] = base->regs.gpr[i];
	if (insn->has_mem) {
		const struct insn_mem *m = &insn->mem;
		struct insn now;
		u64 target;

		/* As prepare() has changed it */
		insn_decode(&now, bytes, STRING_BYTES, compat ? MODE_32 : MODE_64);
		target = now.mem.disp + (m->base != INSN_REG_NONE ? base->regs.gpr[m->base] : 0) +
			 (m->index != INSN_REG_NONE ? base->regs.gpr[m->index] * m->scale : 0) +
			 (m->rip_rel ? NATIVE_CODE + insn->len : 0);
		if (insn->addrsize == 4)
			target = (u32)target;
		r.base = first_free(taken);
		taken |= 1U << r.base;
		r.disp = one_in(4) ? 0 : one_in(2) ? (s32)(rnd() & 0xff) - 128 : (s32)rnd();
		r.scale = 1 << (rnd() & 3);
		other.regs.gpr[r.base] = target - r.disp;
		if (one_in(2)) {
			r.index = first_free(taken);
			other.regs.gpr[r.base] -= other.regs.gpr[r.index] * r.scale;
		}
		/* LEA's address is its result. */
		if (insn->mnemonic == MN_LEA && insn->addrsize == 4)
			return;
	}
	if (slot) {
		memcpy(&kept, memory + (slot - NATIVE_SCRATCH), 8);
		memcpy(memory + (slot - NATIVE_SCRATCH), &base->regs.gpr[f.rm], 8);
		r.base = first_free(taken);
		other.regs.gpr[r.base] = slot + f.rm_hi - r.disp;
	}
	{
		struct insn now;

		insn_decode(&now, bytes, STRING_BYTES, compat ? MODE_32 : MODE_64);
		len = lite_recode(&now, &r, code);
	}
	if (len)
		run(insn, code, len, false, &other);
	if (slot)
		memcpy(memory + (slot - NATIVE_SCRATCH), &kept, 8);
	if (!len)
		return;
	why = NULL;
	if (slot) {
		u8 *p = other.memory + (slot - NATIVE_SCRATCH);

		if (memcmp(p, &base->out.regs.gpr[f.rm], 8))
			why = "recoded: register in memory";
		memcpy(p, &kept, 8);
		t->to_mem++;
	}
	if (base->out.vector != other.out.vector)
		why = "recoded: exception";
	for (unsigned i = 0; !why && i < 16; i++)
		if (host[i] != LITE_NO_REG && other.out.regs.gpr[host[i]] != base->out.regs.gpr[i])
			why = "recoded: register";
	for (unsigned i = 0; !why && i < 16; i++) {
		bool mapped = false;

		for (unsigned j = 0; j < 16; j++)
			mapped |= host[j] == i;
		if (!mapped && other.out.regs.gpr[i] != other.regs.gpr[i])
			why = "recoded: changes another register";
	}
	if (!why && (flag_set(base->out.regs.rflags) ^ flag_set(other.out.regs.rflags)) & ~use->fl_undef)
		why = "recoded: flags";
	if (!why && memcmp(base->memory, other.memory, WRITABLE))
		why = "recoded: memory";
	/* Where the last x87 instruction and its operand were is another place. */
	if (!why && has_xstate(insn) &&
	    (memcmp(base->xstate, other.xstate, 6) || memcmp(base->xstate + 24, other.xstate + 24, XSTATE - 24)))
		why = "recoded: vector or x87 state";
	if (why)
		describe(why, insn, bytes, compat, &t->wrong_recode);
	t->recoded++;
}

/* ---- all of it ----------------------------------------------------------------------------------------------------- */

static struct tally *tally_of(const struct insn *insn)
{
	return insn->mnemonic > MN_SIMD_FIRST || has_xstate(insn) ? &states[insn->state] : &tallies[insn->mnemonic];
}

static void check(const struct insn *insn, u8 *bytes, bool compat, unsigned *done)
{
	static struct snapshot base;
	struct tally *t = tally_of(insn);
	struct lite_use use;

	lite_use(insn, &use);
	if (!is_runnable(insn, &use))
		return;
	++*done;
	prepare(insn, bytes, &base.regs, compat);
	run(insn, bytes, insn->len, compat, &base);
	if (!completed(&base)) {
		t->faults++;
		if (!one_in(4))
			return;
	}
	check_use(insn, bytes, compat, &use, &base, t);
	if (completed(&base) && !compat)
		check_below(insn, bytes, &use, &base, t);
	if (completed(&base))
		check_recode(insn, bytes, compat, &use, &base, t);
}

static void check_mode(bool compat, unsigned cases, const char *only)
{
	static unsigned done[MN_COUNT];
	u64 strings = cases * 25000ULL;

	memset(done, 0, sizeof(done));
	for (u64 n = 0; n < strings; n++) {
		u8 bytes[STRING_BYTES];
		struct insn insn;

		random_string(&state, bytes, compat ? MODE_32 : MODE_64);
		if (insn_decode(&insn, bytes, STRING_BYTES, compat ? MODE_32 : MODE_64))
			continue;
		if (only && strcmp(only, mnemonic_name(insn.mnemonic)))
			continue;
		if (done[insn.mnemonic] < (insn.mnemonic < MN_SIMD_FIRST ? 4 * cases : cases))
			check(&insn, bytes, compat, &done[insn.mnemonic]);
	}
}

static void verdict(const char *name, const struct tally *t)
{
	if (!t->uses && !t->faults)
		return;
	if (t->uses <= t->faults / 4 && !t->wrong_use && !t->recoded) {
		tap_skip("it raises exceptions here", name);
		return;
	}
	tap_ok(!t->wrong_use && !t->wrong_recode, "%s: %" PRIu64 " uses, %" PRIu64 " results with a bound, %" PRIu64 " recoded, %" PRIu64 " to memory", name,
	       t->uses, t->below, t->recoded, t->to_mem);
}

int main(int argc, char **argv)
{
	static const char *const names[] = { [INSN_STATE_NONE] = "vectors without state", [INSN_STATE_X87] = "x87", [INSN_STATE_MMX] = "MMX",
					     [INSN_STATE_SSE] = "SSE", [INSN_STATE_AVX] = "AVX", [INSN_STATE_AVX512] = "AVX-512" };
	unsigned cases = argc > 1 ? strtoul(argv[1], NULL, 0) : getenv("TRINE_LONG") ? 4000 : 100;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	tap_begin();
	if (!native_init() || !native_protect_scratch()) {
		tap_skip("code cannot be mapped low", "uses and recoding on the processor");
		return tap_end();
	}
	state = seed;
	init_xstate();
	for (unsigned i = 0; i < WRITABLE; i++)
		memory[i] = rnd();
	check_mode(false, cases, argc > 3 ? argv[3] : NULL);
	if (native_has_compat())
		check_mode(true, cases, argc > 3 ? argv[3] : NULL);
	else
		tap_skip("no 32-bit code", "32-bit mode");
	for (unsigned i = 0; i < MN_SIMD_FIRST; i++)
		verdict(mnemonic_name(i), &tallies[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i])
			verdict(names[i], &states[i]);
	return tap_end();
}
