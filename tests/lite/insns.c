/*
 * Instructions as a guest's: random forms from random states, in blocks among other instructions, run in a guest through KVM_RUN as kernel,
 * user and 32-bit user code, and on the processor itself. Registers, flags, memory, extended state and exceptions must agree. One
 * verdict a mnemonic.
 *
 *	test-lite-insns [-n CASES] [-s SEED] [-v] [MNEMONIC...]		cases are a mnemonic's
 */
#include <cpuid.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/emul/cases.h"
#include "tests/lite/rig.h"

#define CODE_PAGE 0x300000UL /* frames; in linear memory they are neighbours, in the other order */
#define SCRATCH	  0x310000UL
#define XMAX	  4096
#define FS_BASE	  0x4321000 /* of the base that the code does not use */

static struct rig r;
static u8 *const scratch = (u8 *)NATIVE_SCRATCH;
static bool verbose;
static bool movdiri; /* runs on processors that do not say that they have it */
static u64 xcr;
static struct {
	u32 offset, size;
} component[8];

struct case_ {
	u8 code[128];
	unsigned len, at_subject; /* bytes; where the subject begins */
	struct insn insn;
	u64 tainted;		  /* flags that are undefined in the end */
	bool fs;		  /* the guest uses FS where the processor uses GS */
	struct native_regs in;
};

/* The guest's idea of a linear address of the processor's. */
static u8 *guest(u64 la)
{
	if (la - NATIVE_SCRATCH < SCRATCH_SIZE)
		return r.mem + SCRATCH + 0x1000 * (2 * (2 - ((la - NATIVE_SCRATCH) >> 12))) + (la & 0xfff);
	return r.mem + CODE_PAGE + 0x2000 * (1 - ((la - NATIVE_LOW - 0x2000) >> 12)) + (la & 0xfff);
}

static void copy_scratch(void)
{
	for (u64 page = 0; page < NATIVE_SCRATCH_PAGES; page++)
		memcpy(guest(NATIVE_SCRATCH + (page << 12)), scratch + (page << 12), 4096);
}

static bool same_scratch(void)
{
	return !memcmp(guest(NATIVE_SCRATCH), scratch, 4096) && !memcmp(guest(NATIVE_SCRATCH + 4096), scratch + 4096, 4096);
}

static u64 word(void)
{
	static const u64 special[] = { 0, BIT64(63), 0x7ff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001, 0x3ff0000000000000,
				       1, 0x7f8000003f800000, 0x7fc0000000000001, ~0ULL, 0x7fefffffffffffff, 0x7fffffff80000000 };
	double d;
	float f[2];
	u64 v;

	switch (case_rnd() % 6) {
	case 0: return case_rnd();
	case 1: return case_rnd() & 0xff;
	case 2:
		d = (double)(s64)case_rnd() / (double)BIT64(case_rnd() % 60);
		memcpy(&v, &d, 8);
		return v;
	case 3:
		f[0] = (float)(s32)case_rnd() / 1024;
		f[1] = (float)(s32)case_rnd() / 65536;
		memcpy(&v, f, 8);
		return v;
	case 4: return case_rnd() & 0x7fffffffffffULL;
	default: return special[case_rnd() % ARRAY_SIZE(special)];
	}
}

static void fill_scratch(void)
{
	for (unsigned i = 0; i < 0x2000; i += 8) {
		u64 v = case_one_in(2) ? word() : case_interesting();

		memcpy(scratch + i, &v, 8);
	}
	copy_scratch();
}

/* ---- extended state ------------------------------------------------------------------------------------------------- */

static void find_components(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
		movdiri = c >> 27 & 1;
	__cpuid(1, a, b, c, d);
	if (!(c & 1U << 27))
		return;
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	xcr = a & 0xe7;
	for (unsigned i = 2; i < 8; i++)
		if (xcr >> i & 1) {
			__cpuid_count(0xd, i, component[i].size, component[i].offset, c, d);
		}
}

static void random_x(u8 *x, const struct insn *insn)
{
	u64 *w = (u64 *)x;

	memset(x, 0, XMAX);
	for (unsigned i = 160; i < 416; i += 8)
		w[i / 8] = word();
	for (unsigned n = 2; n < 8; n++)
		for (unsigned i = 0; i + 8 <= component[n].size; i += 8)
			w[(component[n].offset + i) / 8] = n == 5 && case_one_in(3) ? ~0ULL : word();
	*(u16 *)x = 0x7f | (case_rnd() & 0xf00);
	*(u16 *)(x + 2) = case_rnd() & 0x7f3f;
	x[4] = case_one_in(4) ? case_rnd() : insn->state == INSN_STATE_X87 ? case_rnd() | case_rnd() : 0xff;
	for (unsigned i = 0; i < 8; i++) {
		w[4 + 2 * i] = case_rnd() & 3 ? word() | BIT64(63) : word();
		w[5 + 2 * i] = case_rnd() & 7 ? (0x3fff + case_rnd() % 64 - 20) | (case_rnd() & 0x8000) : case_rnd() & 0xffff;
	}
	*(u32 *)(x + 24) = 0x1f80 | (case_rnd() & 0xe07f & (case_one_in(2) ? ~0U : 0));
	if (case_one_in(16)) {
		/* Unmasked, with nothing pending */
		*(u16 *)x &= ~(case_rnd() & 0x3f);
		*(u16 *)(x + 2) &= 0x7f00;
		*(u32 *)(x + 24) &= ~(case_rnd() & 0x1f80);
		*(u32 *)(x + 24) &= ~0x3fU;
	}
	if (insn->has_mem && insn->mem.vsib && !case_one_in(8)) {
		/* Indices that stay in the scratch memory */
		for (unsigned i = 160; i < 416; i += 8)
			w[i / 8] = case_rnd() & 15;
		for (unsigned n = 2; n < 8; n++)
			for (unsigned i = 0; n != 5 && i + 8 <= component[n].size; i += 8)
				w[(component[n].offset + i) / 8] = case_rnd() & (case_one_in(2) ? 0xf0000000fULL : 15);
	}
	/* Not SSE and AVX: an initial state of theirs may cost the real process its MXCSR when a signal is delivered. */
	w[64] = xcr & (case_one_in(8) ? case_rnd() | 7 : ~0ULL);
}

/* Where they differ; NULL: nowhere. */
static const char *differ_x(const u8 *a, const u8 *b)
{
	static char text[200];

	static const char *const names[8] = { [2] = "YMM", [5] = "an opmask", [6] = "ZMM, upper half", [7] = "ZMM16 to 31" };
	static const u8 zero[XMAX];

	if (memcmp(a, b, 5))
		return snprintf(text, sizeof(text), "FCW %x, not %x; FSW %x, not %x; tags %x, not %x", *(u16 *)b, *(u16 *)a, *(u16 *)(b + 2),
				*(u16 *)(a + 2), b[4], a[4]), text;
	if (memcmp(a + 24, b + 24, 4))
		return snprintf(text, sizeof(text), "MXCSR %x, not %x", *(u32 *)(b + 24), *(u32 *)(a + 24)), text;
	for (int i = 0; i < 8; i++)
		if (memcmp(a + 32 + 16 * i, b + 32 + 16 * i, 10))
			return snprintf(text, sizeof(text), "ST%d %04x %016llx, not %04x %016llx", i, *(u16 *)(b + 40 + 16 * i),
					*(unsigned long long *)(b + 32 + 16 * i), *(u16 *)(a + 40 + 16 * i),
					*(unsigned long long *)(a + 32 + 16 * i)), text;
	for (int i = 0; i < 32; i++)
		if (memcmp(a + 160 + 8 * i, b + 160 + 8 * i, 8))
			return snprintf(text, sizeof(text), "XMM%d half %d %016llx, not %016llx", i / 2, i & 1,
					*(unsigned long long *)(b + 160 + 8 * i), *(unsigned long long *)(a + 160 + 8 * i)), text;
	for (unsigned n = 2; n < 8; n++) {
		const u8 *p = a[512] >> n & 1 ? a + component[n].offset : zero, *q = b[512] >> n & 1 ? b + component[n].offset : zero;

		for (unsigned i = 0; i + 8 <= component[n].size; i += 8)
			if (memcmp(p + i, q + i, 8))
				return snprintf(text, sizeof(text), "%s at %u: %016llx, not %016llx", names[n], i,
						*(const unsigned long long *)(q + i), *(const unsigned long long *)(p + i)), text;
	}
	return NULL;
}

/* ---- what stands around the instruction ------------------------------------------------------------------------------ */

static void put(struct case_ *t, const void *bytes, unsigned len)
{
	memcpy(t->code + t->len, bytes, len);
	t->len += len;
}
#define PUT(t, ...) put(t, (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

/* op r/m, reg of the full size */
static void put_rr(struct case_ *t, bool compat, u8 opcode, unsigned reg, unsigned rm)
{
	if (!compat)
		PUT(t, 0x48 | (reg >> 3) << 2 | rm >> 3);
	PUT(t, opcode, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static unsigned any_reg(bool compat)
{
	return case_rnd() & (compat ? 7 : 15);
}

/* Something that leaves all registers as they are; flags may change, and are defined. */
static void put_before(struct case_ *t, bool compat)
{
	unsigned a = any_reg(compat), b = any_reg(compat);

	switch (case_rnd() % 10) {
	case 0: PUT(t, 0x90); break;
	case 1: put_rr(t, compat, 0x39, a, b); break; /* CMP */
	case 2: PUT(t, 0xf8 | (case_rnd() & 1)); break; /* CLC, STC */
	case 3: PUT(t, 0xf5); break; /* CMC */
	case 4: /* NOT twice */
		put_rr(t, compat, 0xf7, 2, a);
		put_rr(t, compat, 0xf7, 2, a);
		break;
	case 5: /* ADD, SUB */
		put_rr(t, compat, 0x83, 0, a);
		PUT(t, 0x11);
		put_rr(t, compat, 0x83, 5, a);
		PUT(t, 0x11);
		break;
	case 6: PUT(t, 0x70 | (case_rnd() & 15), 0); break; /* Jcc to the next */
	case 7: PUT(t, 0xeb, 0); break;
	case 8: /* INC, DEC */
		put_rr(t, compat, 0xff, 0, a);
		put_rr(t, compat, 0xff, 1, a);
		break;
	case 9: PUT(t, 0x0f, 0x1f, 0x44, 0x00, 0x00); break;
	}
}

/* Something that makes of the result another; while flags are tainted only what does not look at them. */
static void put_after(struct case_ *t, bool compat)
{
	unsigned a = any_reg(compat), b = any_reg(compat), skip;

	switch (case_rnd() % (t->tainted ? 4 : 9)) {
	case 0: put_rr(t, compat, 0x89, a, b); break; /* MOV */
	case 1:
		put_rr(t, compat, 0x39, a, b);
		t->tainted = 0;
		break;
	case 2:
		put_rr(t, compat, 0x01, a, b);
		t->tainted = 0;
		break;
	case 3: put_rr(t, compat, 0x87, a, b); break; /* XCHG */
	case 4: put_rr(t, compat, 0x11, a, b); break; /* ADC */
	case 5: /* SETcc, bytes; with REX SPL and so on, without AH and so on */
		if (!compat && case_one_in(2))
			PUT(t, 0x40 | a >> 3);
		PUT(t, 0x0f, 0x90 | (case_rnd() & 15), 0xc0 | (a & 7));
		break;
	case 6: /* CMOVcc */
		if (!compat)
			PUT(t, 0x48 | (a >> 3) << 2 | b >> 3);
		PUT(t, 0x0f, 0x40 | (case_rnd() & 15), 0xc0 | (a & 7) << 3 | (b & 7));
		break;
	case 7: PUT(t, 0x9f); break; /* LAHF */
	case 8: /* Jcc over an XCHG */
		skip = t->len;
		PUT(t, 0x70 | (case_rnd() & 15), 0);
		put_rr(t, compat, 0x87, a, b);
		t->code[skip + 1] = t->len - skip - 2;
		break;
	}
}

/* ---- a case ----------------------------------------------------------------------------------------------------------- */

static bool make(struct case_ *t, const struct subject *sub, bool compat)
{
	const struct form *f = case_form(sub->mnemonic, compat);
	enum insn_mode mode = compat ? MODE_32 : MODE_64;
	struct form form;

	if (!f)
		return false;
	form = *f;
	memset(t, 0, sizeof(*t));
	if (case_one_in(6))
		native_code_at = NATIVE_LOW + 0x3000 - 1 - case_rnd() % 40;
	else
		native_code_at = NATIVE_LOW + 0x2100 + case_rnd() % 0xd00;
	if (!case_one_in(4))
		for (unsigned n = case_rnd() % 4; n && t->len < 20; n--)
			put_before(t, compat);
	t->at_subject = t->len;
	case_code = native_code_at + t->len;
	if (insn_decode(&t->insn, form.bytes, form.len, mode))
		return false;
	case_prepare(sub, &t->insn, form.bytes, &t->in, compat, scratch);
	if (sub->mnemonic >= MN_SIMD_FIRST && t->insn.has_mem && case_one_in(2)) {
		/* Aligned */
		u64 target = NATIVE_SCRATCH + 0x40 + (case_rnd() % 0x1e00 & ~63ULL);

		case_aim(&t->insn, form.bytes, &t->in, target, compat);
	}
	if (sub->mnemonic == MN_MASKMOVDQU || sub->mnemonic == MN_MASKMOVQ || sub->mnemonic == MN_VMASKMOVDQU)
		t->in.gpr[REG_DI] = case_target_address(16) - (t->insn.seg_override == SEG_GS ? NATIVE_GS_BASE : 0);
	if (compat)
		for (unsigned i = 0; i < 8; i++)
			t->in.gpr[i] = (u32)t->in.gpr[i];
	if (insn_decode(&t->insn, form.bytes, form.len, mode))
		return false;
	put(t, form.bytes, form.len);
	t->tainted = case_undefined_flags(sub, &t->insn, &t->in);
	if (!(sub->quirks & Q_BRANCH) && !case_one_in(3))
		for (unsigned n = case_rnd() % 4; n; n--)
			put_after(t, compat);
	/* FS in the guest, where the processor has GS */
	t->fs = !compat && t->insn.seg_override == SEG_GS && case_one_in(2);
	return true;
}

struct result {
	int reason;
	struct native_result n;
	u8 x[XMAX] __attribute__((aligned(64)));
};

static void run_guest(const struct case_ *t, enum rig_mode mode, bool fs, const u8 *x, struct result *out)
{
	static enum rig_mode last_mode = RIG_MODES;
	static bool last_fs;
	static u64 last_at, last_len;
	struct rig_cpu *c = &r.cpu[0];
	u64 i;

	if (mode != last_mode || fs != last_fs) {
		struct kvm_sregs s;

		rig_mode(&r, 0, mode);
		rig_get_sregs(&r, 0, &s);
		s.cr0 |= 1 << 18; /* AM: Linux has it, too */
		s.gs.base = mode == RIG_U32 ? 0 : fs ? FS_BASE : NATIVE_GS_BASE;
		s.fs.base = mode == RIG_U32 ? 0 : fs ? NATIVE_GS_BASE : FS_BASE;
		rig_set_sregs(&r, 0, &s);
		last_mode = mode;
		last_fs = fs;
	}
	for (i = 0; i < last_len; i++)
		*guest(last_at + i) = 0xcc;
	for (i = 0; i < t->len; i++)
		*guest(native_code_at + i) = t->code[i];
	if (fs)
		for (i = 0; i < t->insn.prefix_len; i++)
			if (t->code[t->at_subject + i] == 0x65)
				*guest(native_code_at + t->at_subject + i) = 0x64;
	*guest(native_code_at + t->len) = 0xcd;
	*guest(native_code_at + t->len + 1) = 0x80;
	last_at = native_code_at;
	last_len = t->len + 2;
	for (i = 0; i < 16; i++)
		*rig_gpr(&c->regs, i) = t->in.gpr[i];
	c->regs.rflags = t->in.rflags;
	c->regs.rip = native_code_at;
	if (x && trine_ioctl(c->fd, KVM_SET_XSAVE, x)) {
		out->reason = -1;
		return;
	}
	out->reason = rig_go(&r, 0);
	for (i = 0; i < 16; i++)
		out->n.regs.gpr[i] = *rig_gpr(&c->regs, i);
	out->n.regs.gpr[REG_SP] = c->rsp;
	out->n.regs.rflags = c->rflags & ~RFLAGS_RF;
	out->n.regs.rip = c->rip;
	out->n.vector = -1;
	out->n.completed_by_fetch = false;
	out->n.error = 0;
	if (out->reason == RIG_DONE) {
		out->n.regs.rip -= 2;
	} else {
		out->n.vector = c->vector;
		out->n.error = c->error;
		out->n.cr2 = c->vector == VEC_PF ? c->cr2 : 0;
		if (c->vector == VEC_PF && (c->error & PFERR_I) && c->cr2 == c->rip) {
			out->n.completed_by_fetch = true;
		} else if (c->vector == VEC_BP) {
			out->n.regs.rip--;
			out->n.completed_by_fetch = true;
		}
	}
	if (x && trine_ioctl(c->fd, KVM_GET_XSAVE, out->x))
		out->reason = -1;
}

static void describe(const struct case_ *t, enum rig_mode mode, const struct native_result *n, const struct result *g, const char *what)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	char text[400] = "";
	unsigned i, shown = 0;

	for (i = 0; i < t->len; i++)
		sprintf(text + strlen(text), "%s%02x", i == t->at_subject ? " [" : i == t->at_subject + t->insn.len ? "] " : " ", t->code[i]);
	tap_diag("%s, at %" PRIx64 ":%s: %s", rig_mode_names[mode], native_code_at, text, what);
	tap_diag("CPU: vector %d error %x cr2 %" PRIx64 " rip %" PRIx64 "; guest: reason %d vector %d error %x cr2 %" PRIx64 " rip %" PRIx64,
		 n->vector, n->error, n->cr2, n->regs.rip, g->reason, g->n.vector, g->n.error, g->n.cr2, g->n.regs.rip);
	for (i = 0; i < 16; i++)
		if (g->n.regs.gpr[i] != n->regs.gpr[i] || n->regs.gpr[i] != t->in.gpr[i] || verbose)
			tap_diag("%s was %" PRIx64 " CPU %" PRIx64 " guest %" PRIx64 "%s", names[i], t->in.gpr[i], n->regs.gpr[i], g->n.regs.gpr[i],
				 g->n.regs.gpr[i] != n->regs.gpr[i] ? " !" : "");
	tap_diag("rflags were %" PRIx64 " CPU %" PRIx64 " guest %" PRIx64, t->in.rflags, n->regs.rflags, g->n.regs.rflags);
	if (!same_scratch())
		for (u64 at = NATIVE_SCRATCH; at < NATIVE_SCRATCH + 0x2000; at++)
			if (*guest(at) != *(u8 *)at && shown++ < 10)
				tap_diag("memory differs at %" PRIx64 ": CPU %02x guest %02x", at, *(u8 *)at, *guest(at));
}

/* Several accesses, or bytes chosen by a mask: which address of the page is reported depends on the processor. */
static bool loose_address(const struct insn *insn)
{
	u16 mnemonic = insn->mnemonic;

	if (insn->encoding == INSN_ENC_EVEX && insn->aaa)
		return true;
	if (mnemonic == MN_VMASKMOVPS || mnemonic == MN_VMASKMOVPD || mnemonic == MN_VPMASKMOVD || mnemonic == MN_VPMASKMOVQ)
		return true;
	return mnemonic == MN_MASKMOVDQU || mnemonic == MN_MASKMOVQ || mnemonic == MN_VMASKMOVDQU || mnemonic == MN_FRSTOR ||
	       mnemonic == MN_FLDENV;
}

/* Of 32-bit code. */
static u32 operand_offset(const struct case_ *t)
{
	const struct insn_mem *m = &t->insn.mem;
	u64 offset = m->disp;

	if (m->base != INSN_REG_NONE)
		offset += t->in.gpr[m->base];
	if (m->index != INSN_REG_NONE)
		offset += t->in.gpr[m->index] * (m->scale ? m->scale : 1);
	return t->insn.addrsize == 2 ? (u16)offset : (u32)offset;
}

static bool is_maskmov(u16 mnemonic)
{
	return mnemonic == MN_MASKMOVDQU || mnemonic == MN_MASKMOVQ || mnemonic == MN_VMASKMOVDQU;
}

static bool is_sha(u16 mnemonic)
{
	return mnemonic >= MN_SHA1MSG1 && mnemonic <= MN_SHA256RNDS2;
}

static bool has[MN_COUNT][5][2]; /* in this vector length, in units of 16 bytes, by EVEX or not, the processor did not say #UD once */

enum outcome { SAME, SKIPPED, UNDEFINED, DIFFERENT };

static enum outcome run_case(const struct subject *sub, const struct case_ *t, enum rig_mode mode, const u8 *x)
{
	static struct result g;
	static u8 there[XMAX] __attribute__((aligned(64)));
	bool compat = mode == RIG_U32, simd = x != NULL;
	const char *what = NULL;
	u64 error_mask = ~0ULL, ignore;
	struct native_result n;
	unsigned i;

	run_guest(t, mode, t->fs, x, &g);
	if (g.reason != RIG_DONE && g.reason != RIG_STOPPED) {
		memset(&n, 0, sizeof(n));
		what = "not a guest's end";
		goto different;
	}
	/* No guest of lite's has AMX, whatever the processor has: #UD, always. */
	if (t->insn.state == INSN_STATE_AMX) {
		if (g.n.vector == VEC_UD && g.n.regs.rip == case_code && same_scratch() && !memcmp(g.n.regs.gpr, t->in.gpr, sizeof(t->in.gpr)))
			return SAME;
		memset(&n, 0, sizeof(n));
		what = "not #UD";
		goto different;
	}
	/* Not where the real process has memory that the guest does not. */
	if ((g.n.vector == VEC_PF && g.n.cr2 - NATIVE_LOW < 0x10000 && !g.n.completed_by_fetch) ||
	    ((sub->quirks & Q_BRANCH) && t->insn.op[0].kind != OPK_REL && g.n.regs.rip - NATIVE_LOW < 0x10000 &&
	     g.n.regs.rip != native_code_at + t->len && g.n.regs.rip != case_code)) {
		copy_scratch();
		return SKIPPED;
	}
	native_run_x(t->code, t->len, compat, &t->in, &n, x, simd ? there : NULL, xcr);
	if (simd)
		__asm__ volatile("fninit\n ldmxcsr %0\n vzeroupper" : : "m"((const u32){ 0x1f80 }));
	n.regs.rflags &= ~RFLAGS_RF;
	has[sub->mnemonic][t->insn.vl / 16][t->insn.encoding == INSN_ENC_EVEX] |= n.vector != VEC_UD;

	ignore = n.vector < 0 ? t->tainted : RFLAGS_ARITH; /* of a fault behind the subject nothing is known of the taint */
	/* A fault's handler sees flags that the instruction would have overwritten, or not: the translator may have used them (jit_translate.c). */
	if (n.vector >= 0 && n.regs.rip == case_code && !rig_translates())
		ignore = 0;
	if (n.vector >= 0 && !n.completed_by_fetch) {
		if (g.n.vector == VEC_UD && n.vector != VEC_UD) {
			what = "#UD";
			goto different;
		}
		/* AMD finds a non-canonical branch target after the branch and the push, Intel before it. */
		if ((sub->quirks & Q_BRANCH) && (n.vector == VEC_GP || g.n.vector == VEC_GP) &&
		    (g.n.vector == n.vector || g.n.regs.rip == n.regs.rip)) {
			copy_scratch();
			return SAME;
		}
		/* Which of the two an instruction that the processor does not have, in that length, would raise first is nobody's question. */
		if (n.vector == VEC_UD && !has[sub->mnemonic][t->insn.vl / 16][t->insn.encoding == INSN_ENC_EVEX] && (g.n.vector == VEC_PF || g.n.vector == VEC_GP)) {
			copy_scratch();
			return UNDEFINED;
		}
		/* With a mask that chooses nothing, the address may still be looked at (SDM 2, MASKMOVDQU). */
		if (n.vector == VEC_PF && (g.n.vector < 0 || g.n.vector == VEC_PF) && is_maskmov(sub->mnemonic)) {
			copy_scratch();
			return SAME;
		}
		/* The manuals want the operands of these aligned; not every processor does. */
		if (g.n.vector == VEC_GP && is_sha(sub->mnemonic)) {
			copy_scratch();
			return SAME;
		}
		/* W of these is ignored or not, in 32-bit code. */
		if (n.vector == VEC_UD && compat && t->insn.w && (sub->mnemonic == MN_VPEXTRD || sub->mnemonic == MN_VPINSRD)) {
			copy_scratch();
			return SAME;
		}
		if (n.vector == VEC_BR && g.n.vector == VEC_PF &&
		    case_bound_either(&t->insn, &t->in, operand_offset(t), g.n.cr2, scratch)) {
			/* That it did nothing else is compared below. */
			g.n.vector = n.vector;
			g.n.error = n.error;
		}
		if (g.n.vector != n.vector) {
			what = "another vector";
			goto different;
		}
		if ((sub->quirks & Q_TWO) && n.vector == VEC_PF) {
			copy_scratch();
			return SAME;
		}
		/* The kernel's half is mapped for the kernel; and the CPL is another. */
		if (n.vector == VEC_PF && n.cr2 >> 63)
			error_mask &= ~(u64)PFERR_P;
		if (mode == RIG_K64 && n.vector == VEC_PF)
			error_mask &= ~(u64)PFERR_U;
		if ((g.n.error ^ n.error) & error_mask) {
			what = "error code";
			goto different;
		}
		if (n.vector == VEC_PF && (loose_address(&t->insn) ? (g.n.cr2 ^ n.cr2) >> 12 : g.n.cr2 != n.cr2)) {
			what = "CR2";
			goto different;
		}
		if ((sub->quirks & Q_PARTIAL) || ((sub->quirks & Q_BRANCH) && n.regs.rip != case_code) || (t->insn.has_mem && t->insn.mem.vsib)) {
			copy_scratch();
			return SAME;
		}
	} else if (n.vector < 0 && g.n.vector == VEC_GP && is_sha(sub->mnemonic)) {
		/* The manuals want memory operands aligned; not every processor does. */
		copy_scratch();
		return SAME;
	} else if (n.completed_by_fetch != g.n.completed_by_fetch || (g.n.vector >= 0) != (n.vector >= 0)) {
		what = "one faults";
		goto different;
	}
	if (case_undefined_result(sub, &t->insn, &t->in)) {
		copy_scratch();
		return SAME;
	}
	for (i = 0; i < (compat ? 8 : 16); i++)
		if (g.n.regs.gpr[i] != n.regs.gpr[i]) {
			what = "a register";
			goto different;
		}
	if (g.n.regs.rip != n.regs.rip) {
		what = "RIP";
		goto different;
	}
	if ((g.n.regs.rflags ^ n.regs.rflags) & COMPARED & ~ignore) {
		what = "flags";
		goto different;
	}
	if (!same_scratch()) {
		what = "memory";
		goto different;
	}
	/* A fault of MASKMOVQ may come before or after the change to MMX state. */
	if (simd && !(sub->mnemonic == MN_MASKMOVQ && n.vector >= 0)) {
		what = differ_x(there, g.x);
		if (what)
			goto different;
	}
	return n.vector == VEC_UD ? UNDEFINED : SAME;

different:
	describe(t, mode, &n, &g, what);
	copy_scratch();
	return DIFFERENT;
}

/* What is not compared: saved instruction pointers, keys, and what may differ by design. */
static bool excluded(u16 mnemonic)
{
	switch (mnemonic) {
	case MN_FNSTENV:
	case MN_FNSAVE: /* the last instruction's address */
		return true;
	default:
		return false;
	}
}

static void test_subject(const struct subject *sub, unsigned cases)
{
	bool simd = sub->mnemonic >= MN_FXSAVE, privileged = sub->quirks & Q_PRIV;
	unsigned same = 0, different = 0, skipped = 0, undefined = 0, i;
	const char *name = mnemonic_name(sub->mnemonic);
	static u8 x[XMAX] __attribute__((aligned(64)));
	struct case_ t;

	for (i = 0; i < cases * RIG_MODES && different < 4 && (movdiri || sub->mnemonic != MN_MOVDIRI); i++) {
		enum rig_mode mode = i / 20 % RIG_MODES; /* changing it is slow */
		bool compat = mode == RIG_U32;

		if (compat && !native_has_compat())
			continue;
		/* As the kernel it does something. */
		if (mode == RIG_K64 && (privileged || sub->mnemonic == MN_INS || sub->mnemonic == MN_OUTS || sub->mnemonic == MN_POPF))
			continue;
		if (i % 512 == 0)
			fill_scratch();
		if (!make(&t, sub, compat))
			continue;
		if (mode == RIG_K64)
			t.in.rflags &= ~(u64)RFLAGS_AC;
		if ((sub->quirks & Q_POPF) && t.in.gpr[REG_SP] - NATIVE_SCRATCH < 0x1fff) {
			scratch[t.in.gpr[REG_SP] - NATIVE_SCRATCH + 1] &= ~0x41; /* TF, NT */
			copy_scratch();
		}
		/* Cold, then again with other flags and what the first left in memory. */
		for (unsigned again = 0; again < 2 && different < 4; again++) {
			if (again && (sub->quirks & (Q_POPF | Q_AC)))
				break;
			if (again)
				t.in.rflags ^= case_rnd() & RFLAGS_ARITH;
			if (simd)
				random_x(x, &t.insn);
			switch (run_case(sub, &t, mode, simd ? x : NULL)) {
			case SAME: same++; break;
			case SKIPPED: skipped++; break;
			case UNDEFINED: undefined++; break;
			case DIFFERENT: different++; break;
			}
		}
	}
	if (sub->mnemonic == MN_MOVDIRI && !movdiri)
		tap_skip("CPUID says that the processor does not have it", name);
	else if (!same && !different && !undefined && !skipped)
		tap_skip("no form of it can run here", name);
	else if (!same && !different && sub->mnemonic != MN_UD0 && sub->mnemonic != MN_UD1 && sub->mnemonic != MN_UD2)
		tap_skip("this processor does not have it", name);
	else
		tap_ok(!different && same + undefined, "%s: %u of %u cases", name, same + undefined, same + undefined + different);
}

static bool chosen(u16 mnemonic, char **names)
{
	for (char **p = names; *p; p++)
		if (!strcmp(mnemonic_name(mnemonic), *p))
			return true;
	return !*names;
}

int main(int argc, char **argv)
{
	unsigned cases = getenv("TRINE_LONG") ? 3000 : 60, i;
	u64 seed = 0x7472696e65;
	int option;

	while ((option = getopt(argc, argv, "n:s:v")) != -1) {
		if (option == 'n')
			cases = strtoul(optarg, NULL, 0);
		else if (option == 's')
			seed = strtoull(optarg, NULL, 0);
		else
			verbose = true;
	}
	tap_begin();
	if (!native_init()) {
		tap_skip("code cannot be mapped low here", "guest code against the processor");
		return tap_end();
	}
	find_components();
	case_seed(seed);
	if (!rig_make(&r, 1))
		return tap_end();
	for (unsigned page = 0; page < 2; page++) {
		u64 la = NATIVE_LOW + 0x2000 + (page << 12);

		memset(guest(la), 0xcc, 4096);
		rig_map(&r, la, guest(la) - r.mem, PTE_P | PTE_U);
	}
	fill_scratch();
	for (unsigned page = 0; page < NATIVE_SCRATCH_PAGES; page++) {
		u64 la = NATIVE_SCRATCH + (page << 12);

		rig_map(&r, la, guest(la) - r.mem, PTE_P | PTE_U | PTE_NX | (page < 2 ? PTE_W : 0));
	}
	/* Nothing is low, as in the real process; the kernel's half has little, and that where random addresses do not go. */
	rig_move_system(&r, 0xffff9a5000000000);
	for (u64 la = RIG_CODE; la < RIG_MEMORY; la += 4096)
		rig_map(&r, la, 0, 0);
	native_protect_scratch();
	case_subject_pools();
	for (i = MN_FXSAVE; i < MN_COUNT; i++)
		if (i != MN_SIMD_FIRST && (i >= MN_LDMXCSR) && !excluded(i))
			case_pool(i);
	case_make_forms(false, 100, true);
	case_make_forms(true, 50, true);
	for (i = 0; i < case_nr_subjects; i++)
		if (chosen(case_subjects[i].mnemonic, argv + optind))
			test_subject(&case_subjects[i], cases * 4);
	for (i = MN_LDMXCSR; i < MN_COUNT; i++)
		if (i != MN_SIMD_FIRST && !excluded(i) && chosen(i, argv + optind))
			test_subject(&(struct subject){ .mnemonic = i }, cases);
	rig_free(&r);
	return tap_end();
}
