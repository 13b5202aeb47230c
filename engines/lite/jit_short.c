/*
 * Short ways of the run time, for what kernels do by the hundred from one system call to the next and C would take ten times as long for: REP MOVS
 * and REP STOS, PUSHF at CPL 0, a look at an instruction's last bytes, in the next page. Translated code calls them as it calls LITE_JIT_FAST and
 * LITE_JIT_CROSS, with the same arguments, and what is not as simple (no entry in the TLB, over the end of a page, downwards, with alignment checks,
 * other bytes) goes on there as if nothing had been tried.
 *
 * They reach guest memory as jit_mem.c says: by the entry of the page, whose tag is subtracted, and the offset that is left is compared with that
 * of the last byte. What the guest's registers are in the meantime nobody sees: a host fault, the only thing that comes between, leads to where
 * RSI and RDI become the guest's again, at the element that faulted, and on to C.
 */
#include "engines/lite/jit.h"

/* A CALL's return address lies between RSP and the vCPU. */
#define V(field) (VCPU(field) + 8)
#define FLAGS_KEPT V(jit.short_fl)

struct way {
	struct lite_emit *e;
	struct lite_jit *jit;
	unsigned view, nslow;
	enum lite_jit_fn other; /* what does the rest */
	u8 *slow[4];		/* fields of jumps */
	const u8 *faults[2];	/* the instructions that may, NULL: none */
};

static void begin(struct way *w)
{
	struct lite_emit *e = w->e;

	e_store(e, true, REG_AX, HOST_RSP, V(jit.short_ax));
	jit_store_flags(e, FLAGS_KEPT);
	e_store(e, true, T0, HOST_RSP, V(jit.t0));
	e_store(e, true, T1, HOST_RSP, V(jit.t1));
	e_store(e, true, T2, HOST_RSP, V(jit.t2));
}

static void restore(struct way *w)
{
	struct lite_emit *e = w->e;

	jit_load_flags(e, FLAGS_KEPT);
	e_load(e, true, REG_AX, HOST_RSP, V(jit.short_ax));
	e_load(e, true, T0, HOST_RSP, V(jit.t0));
	e_load(e, true, T1, HOST_RSP, V(jit.t1));
	e_load(e, true, T2, HOST_RSP, V(jit.t2));
}

static void slow_if(struct way *w, unsigned cond)
{
	w->slow[w->nslow++] = e_jcc(w->e, cond);
}

/* What the way ends with. From a fault it goes on at @rescue, NULL: like the rest. */
static void end(struct way *w, const u8 *rescue)
{
	struct lite_emit *e = w->e;

	for (unsigned i = 0; i < ARRAY_SIZE(w->faults) && w->faults[i]; i++)
		w->jit->rescues[w->jit->nr_rescues++] = (struct lite_jit_rescue){ e_rx(e, w->faults[i]), e_rx(e, rescue ? rescue : e->p) };
	for (unsigned i = 0; i < w->nslow; i++)
		e_here(e, w->slow[i]);
	restore(w);
	e_jmp_to(e, w->jit->call[w->other] - e->to_rx);
}

static void e_rr(struct lite_emit *e, u8 op, unsigned reg, unsigned rm)
{
	e_op_r(e, true, op, reg, rm);
}
enum { ADD = 0x03, AND = 0x23, SUB = 0x2b, CMP = 0x3b, XOR = 0x33 };

/*
 * @delta = what is to be added to the guest's @reg, for the access to begin there: up to RAX bytes into the page are right. @at, another one, is for
 * the index.
 */
static void reach(struct way *w, unsigned delta, unsigned at, unsigned reg, bool write)
{
	s32 tags = jit_tags(w->view, write) + 8, hosts = jit_hosts(w->view, write) + 8;
	struct lite_emit *e = w->e;

	jit_tlb_index_of(e, at, reg);
	e_mov(e, true, delta, reg);
	e_op_mx(e, true, SUB, delta, HOST_RSP, at, 3, tags);
	e_rr(e, CMP, delta, REG_AX);
	slow_if(w, CC_A);
	e_op_mx(e, true, ADD, delta, HOST_RSP, at, 3, hosts);
	e_rr(e, SUB, delta, reg);
}

static void make_string(struct way *w, bool stos, unsigned shift)
{
	struct lite_emit *e = w->e;
	const u8 *rescue;

	begin(w);
	e_op_m(e, false, 0xf7, 0, HOST_RSP, V(vcpu.x86.rflags)); /* test dword, imm32 */
	e_u32(e, RFLAGS_DF | RFLAGS_AC);
	slow_if(w, CC_NE);
	e_op_r(e, true, 0x81, 7, REG_CX); /* cmp rcx, imm32 */
	e_u32(e, 4096U >> shift);
	slow_if(w, CC_A);
	/* RAX = the last offset from which on all of it is in the page */
	e_mov(e, false, T2, REG_CX);
	e_op_r(e, false, 0xc1, 4, T2); /* shl T2d, imm8 */
	e_u8(e, shift);
	e_u8(e, 0xb8 | REG_AX);
	e_u32(e, 4096);
	e_rr(e, SUB, REG_AX, T2);
	reach(w, T1, T0, REG_DI, true);
	if (stos)
		e_rr(e, XOR, T2, T2);
	else
		reach(w, T2, T0, REG_SI, false);
	e_rr(e, ADD, REG_DI, T1);
	e_rr(e, ADD, REG_SI, T2);
	e_load(e, true, REG_AX, HOST_RSP, V(jit.short_ax));
	w->faults[0] = e->p;
	if (shift == 1)
		e_u8(e, 0x66);
	e_u8(e, 0xf3); /* rep */
	if (shift == 3)
		e_u8(e, 0x48);
	e_u8(e, (stos ? 0xaa : 0xa4) | !!shift);
	e_rr(e, SUB, REG_DI, T1);
	e_rr(e, SUB, REG_SI, T2);
	restore(w);
	e_ret(e);
	rescue = e->p;
	e_rr(e, SUB, REG_DI, T1);
	e_rr(e, SUB, REG_SI, T2);
	end(w, rescue);
}

static void make_pushf(struct way *w)
{
	struct lite_emit *e = w->e;
	u8 *none;

	begin(w);
	e_lea(e, true, T2, GSP, -8);
	e_u8(e, 0xb8 | REG_AX);
	e_u32(e, 4096 - 8);
	reach(w, T1, T0, T2, true);
	e_load(e, false, REG_AX, HOST_RSP, V(vcpu.x86.rflags));
	e_and_imm(e, REG_AX, ~(u32)(RFLAGS_ARITH | RFLAGS_RF | RFLAGS_VM));
	e_op_m(e, false, 0x0a, REG_AX, HOST_RSP, FLAGS_KEPT + 1); /* or al, what LAHF gave */
	e_op_m(e, false, 0x80, 7, HOST_RSP, FLAGS_KEPT);	  /* cmp byte, 0: OF */
	e_u8(e, 0);
	none = e_jcc(e, CC_E);
	e_op_r(e, false, 0x81, 1, REG_AX); /* or eax, imm32 */
	e_u32(e, RFLAGS_OF);
	e_here(e, none);
	w->faults[0] = e->p;
	e_op_mx(e, true, 0x89, REG_AX, T2, T1, 0, 0);
	e_mov(e, true, GSP, T2);
	restore(w);
	e_ret(e);
	end(w, NULL);
}

/* The 16 bytes that the next page begins with, under the mask at T0, are those there (struct jit_cross). */
static void make_across(struct way *w)
{
	s32 entries = jit_view(w->view) + (s32)offsetof(struct lite_view, x) + 8;
	struct lite_emit *e = w->e;

	begin(w);
	e_load(e, true, REG_AX, HOST_RSP, V(vpage));
	e_op_r(e, true, 0x81, 0, REG_AX); /* add rax, imm32 */
	e_u32(e, 4096);
	_Static_assert(sizeof(struct lite_exec_entry) == 32, "T1 = index * 4");
	e_rorx(e, T1, REG_AX, 12 - 2);
	e_and_imm(e, T1, (LITE_XTLB_SIZE - 1) * 4);
	e_op_mx(e, true, CMP, REG_AX, HOST_RSP, T1, 3, entries + (s32)offsetof(struct lite_exec_entry, tag));
	slow_if(w, CC_NE);
	e_op_mx(e, true, 0x8b, T1, HOST_RSP, T1, 3, entries + (s32)offsetof(struct lite_exec_entry, host));
	w->faults[0] = e->p;
	e_load(e, true, REG_AX, T1, 0);
	w->faults[1] = e->p;
	e_load(e, true, T2, T1, 8);
	for (unsigned i = 0; i < 2; i++) {
		unsigned bytes = i ? T2 : REG_AX;

		e_op_m(e, true, AND, bytes, T0, (s32)(offsetof(struct jit_cross, mask) + 8 * i));
		e_op_m(e, true, CMP, bytes, T0, (s32)(offsetof(struct jit_cross, bytes) + 8 * i));
		slow_if(w, CC_NE);
	}
	restore(w);
	e_ret(e);
	end(w, NULL);
}

void jit_make_short(struct lite_emit *e, struct lite_jit *jit)
{
	jit->short_from = e_rx(e, e->p);
	for (enum lite_jit_fn fn = LITE_JIT_C_FNS; fn < LITE_JIT_FNS; fn++) {
		unsigned n = fn - LITE_JIT_STRING;
		struct way w = { .e = e, .jit = jit, .other = LITE_JIT_FAST };

		jit->call[fn] = e_rx(e, e->p);
		if (fn < LITE_JIT_STRING) {
			w.view = fn - LITE_JIT_ACROSS;
			w.other = LITE_JIT_CROSS;
			make_across(&w);
		} else if (fn < LITE_JIT_PUSHF) {
			w.view = n / 8;
			make_string(&w, n & 4, n & 3);
		} else {
			make_pushf(&w);
		}
	}
	jit->short_to = e_rx(e, e->p);
}

enum lite_jit_fn jit_short_way(const struct insn *insn, unsigned view)
{
	if (insn->mode != MODE_64 || insn->lock)
		return LITE_JIT_FAST;
	switch (insn->mnemonic) {
	case MN_PUSHF:
		return view == 0 && insn->opsize == 8 ? LITE_JIT_PUSHF : LITE_JIT_FAST;
	case MN_MOVS: case MN_STOS:
		if (!insn->rep || insn->addrsize != 8 || insn->seg_override == SEG_FS || insn->seg_override == SEG_GS)
			return LITE_JIT_FAST;
		return LITE_JIT_STRING + view * 8 + (insn->mnemonic == MN_STOS ? 4 : 0) + (unsigned)__builtin_ctz(insn->opsize);
	default:
		return LITE_JIT_FAST;
	}
}

bool lite_jit_rescue(const struct lite_jit *jit, u64 *rip)
{
	const u8 *pc = (const u8 *)(uintptr_t)*rip;

	if (likely(pc < jit->short_from || pc >= jit->short_to))
		return false;
	for (unsigned i = 0; i < jit->nr_rescues; i++) {
		if (jit->rescues[i].faults == pc) {
			*rip = (u64)(uintptr_t)jit->rescues[i].to;
			return true;
		}
	}
	return false;
}
