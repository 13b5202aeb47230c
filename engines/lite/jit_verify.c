/*
 * What jit_mem.c and jit.h claim about translated code, checked on the code itself: the bytes are decoded again and every way through them
 * is followed, with what is certain on it. Nothing here knows what the translator meant to do.
 *
 *	memory	[RSP + constant] in the fields of the vCPU that translated code has to do with; [RSP + T1 * 8 + constant] in the tables,
 *		T1 of as many bits as that table has entries; [T0], not beyond the bytes that were checked, written to only when checked for that;
 *		[T0] and [T2 + constant] of an address that the distance of its own slot was added to, within LITE_WINDOW_SPAN;
 *		GS:[base + index + constant] within that of what was found in a slot that GS reaches, by a look or an access; [base + T2 + constant]
 *		where T2 is the distance of the slot; both with T0 for such a sum; an index that is small (lite_below()) counts as its most
 *	RSP	addresses only, written by nothing but a CALL over one jump, for which LEA makes up at once, and by PUSH of a place from the jump
 *		cache, with RET behind it
 *	T0 T1 T2 never a value of the guest's while they hold an address of the host, or what another block left in them
 *	RCX	the guest's, or lent and kept: nothing else uses it meanwhile, and it is back before the code is left
 *	jumps	to instructions, and to what begins elsewhere; a jump between a check and its access comes without the check's result
 *	calls	lite_vcpu.jit.fn[], with the arguments that the function trusts; what stands behind a call of LITE_JIT_LINK names a jump
 *		to that call
 *
 * What is certain where two ways meet is what both say. So an instruction is looked at again when less is certain than last time, and that
 * ends, for there is only so much to forget.
 */
#include "core/x86/cpuid.h"
#include "engines/lite/jit.h"
#include "engines/lite/log.h"
#include "engines/lite/options.h"
#include "engines/lite/window.h"

#define R(reg) ((u16)(1U << (reg)))

enum t0_is {
	T0_ANY,
	T0_OFFSET, /* linear address minus tag[its index, T1] of table @write */
	T0_INSIDE, /* such, and at least @size bytes from the page's end */
	T0_HOST,   /* address of @size bytes, which may be written if @write */
	T0_WINDOW, /* linear address plus its slot's distance */
	T0_SUM,	   /* of guest registers, @sum */
	T0_IMM,	   /* @imm */
};
enum t1_is {
	T1_ANY, T1_HOME /* the guest's register @home, plus @added */,
	T1_TURNED /* an address, rotated by @turned */, T1_BITS /* 16 bits of it */, T1_TLB, T1_JUMP /* indices */, T1_BASE /* host of @base_write */,
	T1_ROTATED /* the linear address in @of, its slot in the low byte */, T1_SLOT /* that alone */, T1_DELTA /* its distance */,
};
enum t2_is {
	T2_ANY, T2_HOST /* address of @t2_size bytes, as T0_HOST */, T2_WINDOW, T2_DELTA /* distance of slot @bits */, T2_RCX /* the guest's RCX */,
	T2_SHIFTED /* left, by @bits */, T2_BITS /* at most @bits */,
};
enum rcx_is {
	RCX_GUEST, RCX_LENT, RCX_TAG /* of @tag_write */, RCX_NOT_TAG, RCX_SUM /* T0 + @more */, RCX_PAGE /* its bits above 11 */,
	RCX_COUNT /* @more */,
};

/* What RSP points to. */
enum stack_has { STACK_VCPU, STACK_CALLED /* 8 below that */, STACK_TO /* where RET leads to */ };

/* Guest registers that are at home in the vCPU, and the page of the block, where a host register could be. */
#define AT_HOME 16
#define THE_PAGE 32

/* base + index * scale + @center, host registers or the above, is in a slot, or no further than @slack from it. */
struct fact {
	bool holds;
	u8 base, index, scale; /* INSN_REG_NONE: none */
	u8 slot;	       /* JIT_SLOT_GS: one that GS reaches */
	s32 center, slack;
};
#define FACTS JIT_FACTS

struct known {
	bool seen, queued;
	u8 t0, t1, t2, rcx;
	bool write, base_write, tag_write, t2_write;
	u16 size, bits, more, t2_size;
	bool own;	/* T1 is the index of the address in T0 */
	bool saved;	/* jit.save is the guest's RCX */
	u8 turned;
	bool summed;	/* jit.sum is T0 + @sum_more */
	u16 sum_more;
	bool asked;	/* the instruction before compared T0 with the address that the jump cache has */
	bool here;	/* they are the same */
	bool compared;	/* the instruction before was CMP T0, @limit, or of T1_ROTATED's low byte with it */
	u8 of;		/* register that T1_ROTATED and so on are about */
	bool in_slot;	/* T1_ROTATED's slot is @slot */
	u8 slot;
	struct fact sum;	  /* T0_SUM: what T0 is; @slack means nothing */
	struct fact rotated;	  /* the same of T1_ROTATED's address */
	struct fact facts[FACTS];
	u32 below[16];		  /* see lite_below() */
	u8 home;
	s32 added;
	u16 limit;
	bool has_site;
	u32 site;	/* jit.site */
	u16 host;	/* registers that may hold an address of the host */
	u8 stack;	/* enum stack_has */
	u64 imm;
};

enum { BYTE_UNKNOWN, BYTE_FIRST, BYTE_INSIDE, BYTE_DATA };

struct walk {
	struct jit_verify *v;
	struct known *known; /* @nknown, of the instructions that were met; 0 is nobody's */
	u16 *number;	     /* of each byte's: where in known */
	u32 nknown;
	u8 *bytes;
	u16 *todo;
	u32 ntodo;
	u32 at;		/* of the instruction that is looked at */
	struct insn insn;
	struct lite_use use;
};

/* ---- the two pieces of a block's code, counted through ------------------------------------------------------------------ */

static u32 length(const struct jit_verify *v)
{
	return v->size + v->cold_size;
}

static const u8 *code_at(const struct jit_verify *v, u32 at)
{
	return at < v->size ? v->code + at : v->cold + (at - v->size);
}

/* The bytes from @at to the end of its piece. */
static u32 left(const struct jit_verify *v, u32 at)
{
	return (at < v->size ? v->size : length(v)) - at;
}

/* -1: in neither. */
static s64 offset_of(const struct jit_verify *v, const u8 *p)
{
	if (p >= v->code && p < v->code + v->size)
		return p - v->code;
	return p >= v->cold && p < v->cold + v->cold_size ? (s64)v->size + (p - v->cold) : -1;
}

/* What is behind the instruction. */
static const u8 *behind(const struct walk *x)
{
	return code_at(x->v, x->at) + x->insn.len;
}

/* ---- what is certain ------------------------------------------------------------------------------------------------- */

static bool same_regs(const struct fact *a, const struct fact *b)
{
	return a->slot == b->slot && a->base == b->base && a->index == b->index && (a->index == INSN_REG_NONE || a->scale == b->scale);
}

static bool same_sum(const struct fact *a, const struct fact *b)
{
	return a->holds == b->holds && (!a->holds || (same_regs(a, b) && a->center == b->center));
}

/* What both say of @to's sum. Returns whether it has changed. */
static bool meet_fact(struct fact *to, const struct fact *facts)
{
	s64 slack = LITE_WINDOW_SPAN;

	if (!to->holds)
		return false;
	for (unsigned i = 0; i < FACTS; i++) {
		s64 far = (s64)facts[i].center - to->center;

		if (facts[i].holds && same_regs(to, &facts[i]))
			slack = MIN(slack, (far < 0 ? -far : far) + facts[i].slack);
	}
	if (slack <= to->slack)
		return false;
	to->slack = (s32)slack;
	to->holds = slack < LITE_WINDOW_SPAN;
	return true;
}

/* Returns whether @to has changed. */
static bool meet(struct known *to, const struct known *from)
{
	struct known was = *to;
	bool changed = false;

	if (!to->seen) {
		*to = *from;
		to->seen = true;
		to->queued = false;
		return true;
	}
	for (unsigned i = 0; i < FACTS; i++)
		changed |= meet_fact(&to->facts[i], from->facts);
	/* At once all the way, so that there is an end to it. */
	for (unsigned i = 0; i < 16; i++) {
		bool less = to->below[i] && (!from->below[i] || from->below[i] > to->below[i]);

		to->below[i] = less ? 0 : to->below[i];
		changed |= less;
	}
	if (!same_sum(&to->rotated, &from->rotated))
		to->rotated.holds = false;
	if (to->t0 == T0_SUM && !same_sum(&to->sum, &from->sum))
		to->t0 = T0_ANY;
	if (to->t0 != from->t0 || (to->t0 == T0_IMM ? to->imm != from->imm : to->write != from->write || to->size != from->size))
		to->t0 = T0_ANY;
	if (to->t1 != from->t1 || (to->t1 == T1_BASE && to->base_write != from->base_write) || (to->t1 >= T1_ROTATED && to->of != from->of) ||
	    (to->t1 == T1_HOME && (to->home != from->home || to->added != from->added)) ||
	    ((to->t1 == T1_TURNED || to->t1 == T1_BITS) && to->turned != from->turned))
		to->t1 = T1_ANY;
	if (to->slot != from->slot)
		to->in_slot = false;
	to->in_slot &= from->in_slot;
	if (to->t2 != from->t2 || ((to->t2 >= T2_SHIFTED || to->t2 == T2_DELTA) && to->bits != from->bits) ||
	    (to->t2 == T2_HOST && (to->t2_size != from->t2_size || to->t2_write != from->t2_write)))
		to->t2 = T2_ANY;
	if (to->rcx != from->rcx || (to->rcx != RCX_GUEST && (to->tag_write != from->tag_write || to->more != from->more)))
		to->rcx = RCX_LENT;
	to->own &= from->own;
	to->saved &= from->saved;
	to->summed &= from->summed && to->sum_more == from->sum_more;
	to->here &= from->here;
	to->asked &= from->asked;
	if (to->limit != from->limit)
		to->compared = false;
	to->compared &= from->compared;
	if (to->site != from->site)
		to->has_site = false;
	to->has_site &= from->has_site;
	to->host |= from->host;
	return changed || to->rotated.holds != was.rotated.holds || to->t0 != was.t0 || to->t1 != was.t1 || to->t2 != was.t2 || to->rcx != was.rcx ||
	       to->own != was.own || to->saved != was.saved || to->summed != was.summed || to->here != was.here || to->asked != was.asked ||
	       to->in_slot != was.in_slot || to->compared != was.compared ||
	       to->has_site != was.has_site || to->host != was.host;
}

static void set_host(struct known *k, unsigned reg, bool host)
{
	k->host = host ? k->host | R(reg) : k->host & ~R(reg);
}

/* What T1 said of the address in @reg it says no more. */
static void other_address(struct known *k, unsigned reg)
{
	if (k->t1 >= T1_ROTATED && k->of == reg) {
		k->t1 = T1_ANY;
		set_host(k, T1, false);
	}
}

static void set_t0(struct known *k, enum t0_is is)
{
	k->t0 = is;
	k->own = k->summed = false;
	set_host(k, T0, is == T0_HOST || is == T0_WINDOW);
	other_address(k, T0);
	if (k->rcx == RCX_PAGE || k->rcx == RCX_SUM)
		k->rcx = RCX_LENT;
}

/* What was found by the old index is not to be used with a new one. */
static void set_t1(struct known *k, enum t1_is is)
{
	k->t1 = is;
	k->own = false;
	k->in_slot = false;
	set_host(k, T1, is == T1_BASE || is == T1_DELTA);
	if (k->t0 == T0_OFFSET || (k->t0 == T0_INSIDE && is != T1_BASE))
		set_t0(k, T0_ANY);
	if (k->rcx == RCX_TAG || k->rcx == RCX_NOT_TAG)
		k->rcx = RCX_LENT;
}

static void set_t2(struct known *k, enum t2_is is)
{
	k->t2 = is;
	set_host(k, T2, is == T2_HOST || is == T2_WINDOW || is == T2_DELTA);
	other_address(k, T2);
}

/* @reg's address got the distance of its slot. */
static void set_window(struct known *k, unsigned reg)
{
	if (reg == T0)
		set_t0(k, T0_WINDOW);
	else
		set_t2(k, T2_WINDOW);
}


/* ---- forms ----------------------------------------------------------------------------------------------------------- */

static bool is_gpr(const struct insn *insn, unsigned n, unsigned reg, unsigned size)
{
	return insn->nops > n && insn->op[n].kind == OPK_GPR && insn->op[n].reg == reg && insn->op[n].size == size;
}

static bool is_mem(const struct insn *insn, unsigned base, unsigned index, unsigned scale)
{
	return insn->has_mem && insn->mem.base == base && insn->mem.index == index && (index == INSN_REG_NONE || insn->mem.scale == scale);
}

static bool rcx_kept(const struct known *k)
{
	return k->saved || k->t2 == T2_RCX;
}

/* The guest's again; what was kept may be old from now on. */
static void rcx_back(struct known *k)
{
	k->rcx = RCX_GUEST;
	k->saved = false;
	if (k->t2 == T2_RCX)
		k->t2 = T2_ANY;
}

/* ---- windows by GS ----------------------------------------------------------------------------------------------------- */

/* A register that holds the guest's own. */
static bool is_guests(const struct known *k, unsigned reg)
{
	return reg < 16 && reg != HOST_RSP && reg != T0 && reg != T1 && reg != T2 && (reg != REG_CX || k->rcx == RCX_GUEST);
}

static bool uses(const struct fact *f, unsigned reg)
{
	return f->base == reg || f->index == reg;
}

/* What @insn adds to 64-bit register @reg. False: it cannot be said. */
static bool adds(const struct insn *insn, unsigned reg, s64 *n)
{
	if (!insn->nops || insn->op[0].kind != OPK_GPR || insn->op[0].reg != reg || insn->op[0].size != 8)
		return false;
	switch (insn->mnemonic) {
	case MN_ADD: case MN_SUB:
		*n = insn->mnemonic == MN_ADD ? (s64)insn->imm : -(s64)insn->imm;
		return insn->op[1].kind == OPK_IMM;
	case MN_INC: case MN_DEC:
		*n = insn->mnemonic == MN_INC ? 1 : -1;
		return true;
	case MN_LEA:
		*n = insn->mem.disp;
		return insn->addrsize == 8 && is_mem(insn, reg, INSN_REG_NONE, 0);
	default:
		return false;
	}
}

static void moved(struct fact *f, const struct insn *insn, u16 write)
{
	s64 center = f->center, n;

	for (unsigned reg = 0; f->holds && reg < 16; reg++) {
		if (!(write & R(reg)) || !uses(f, reg))
			continue;
		if (!adds(insn, reg, &n) || n != (s32)n)
			f->holds = false;
		else
			center -= (f->base == reg ? n : 0) + (f->index == reg ? n * f->scale : 0);
	}
	f->holds &= center == (s32)center;
	f->center = (s32)center;
}

/* The guest's register @home became what it was plus @n, or with @lost anything. */
static void home_change(struct known *k, u8 home, s64 n, bool lost)
{
	for (unsigned i = 0; i < FACTS; i++) {
		struct fact *f = &k->facts[i];
		s64 center = f->center - n;

		if (f->base != home)
			continue;
		f->holds &= !lost && center == (s32)center;
		f->center = (s32)center;
	}
	if (k->t0 == T0_SUM && k->sum.base == home)
		k->t0 = T0_ANY;
	if (k->rotated.base == home)
		k->rotated.holds = false;
	if (k->t1 == T1_HOME && k->home == home)
		k->t1 = T1_ANY;
}

/* @insn writes @size bytes of the guest's registers that are at home in the vCPU, @off bytes from R8. */
static void write_home(struct known *k, const struct insn *insn, unsigned off, unsigned size)
{
	bool whole = insn->mnemonic == MN_MOV && size == 8;
	u8 home = (u8)(AT_HOME + 8 + off / 8);

	if (whole && is_gpr(insn, 1, T1, 8) && k->t1 == T1_HOME && k->home == home)
		home_change(k, home, k->added, false);
	else if (whole && is_gpr(insn, 1, T0, 8) && k->t0 == T0_SUM && k->sum.base == home && k->sum.index == INSN_REG_NONE)
		home_change(k, home, k->sum.center, false);
	else
		home_change(k, home, 0, true);
}

/* The instruction wrote these registers. */
static void regs_change(struct known *k, const struct insn *insn, const struct lite_use *use)
{
	u16 write = use->write;

	lite_below(insn, use, k->below);
	for (unsigned i = 0; i < FACTS; i++)
		moved(&k->facts[i], insn, write);
	for (unsigned reg = 0; reg < 16; reg++) {
		if (!(write & R(reg)))
			continue;
		if (k->t0 == T0_SUM && uses(&k->sum, reg))
			k->t0 = T0_ANY;
		if (k->rotated.holds && uses(&k->rotated, reg))
			k->rotated.holds = false;
	}
}

static void add_fact(struct known *k, const struct fact *f, u8 slot)
{
	struct fact *to = &k->facts[0];

	for (unsigned i = 0; i < FACTS && to->holds; i++)
		if (!k->facts[i].holds)
			to = &k->facts[i];
	*to = *f;
	to->slot = slot;
	to->slack = 0;
}

/* How far from @f's address the access of @insn ends, which goes to @to. -1: one has nothing to do with the other. */
static s64 reach(const struct known *k, const struct fact *f, const struct fact *to, const struct insn *insn)
{
	s64 far = (s64)to->center - f->center, more = 0;

	/* An index that is small leads from where the base points to not much further. */
	if (f->index == INSN_REG_NONE && to->index < 16 && k->below[to->index])
		more = (s64)(k->below[to->index] - 1) * to->scale;
	else if (!same_regs(f, to))
		return -1;
	if (f->base != to->base || f->slot != to->slot || !f->holds)
		return -1;
	return (far < 0 ? -far : far) + f->slack + more + insn->mem.size;
}

/* An access by GS, or with T2 the distance of the slot. What it came through tells where its registers are. */
static const char *slot_access(const struct walk *x, struct known *k)
{
	const struct insn *insn = &x->insn;
	bool gs = insn->mem.seg == SEG_GS;
	struct fact to = { .base = insn->mem.base, .index = gs ? insn->mem.index : INSN_REG_NONE, .scale = insn->mem.scale ? insn->mem.scale : 1 };
	s64 disp = insn->mem.disp;

	if (!gs && k->t2 != T2_DELTA)
		return "memory that is neither the vCPU nor at T0";
	if (to.base == T0 && k->t0 == T0_SUM && (k->sum.index == INSN_REG_NONE || to.index == INSN_REG_NONE)) {
		to.base = k->sum.base;
		disp += k->sum.center;
		if (k->sum.index != INSN_REG_NONE) {
			to.index = k->sum.index;
			to.scale = k->sum.scale;
		}
	} else if (to.base != INSN_REG_NONE && !is_guests(k, to.base)) {
		to.base = T0;
	}
	to.slot = gs ? JIT_SLOT_GS : (u8)k->bits;
	to.center = (s32)disp;
	if (!(x->v->mode & LITE_MODE_WINDOW) || x->v->view != 1 || (to.base == INSN_REG_NONE && to.index == INSN_REG_NONE) || to.base == T0 ||
	    (to.index != INSN_REG_NONE && !is_guests(k, to.index)) || disp != (s32)disp)
		return gs ? "GS, but not with the guest's registers" : "a slot's distance, but not with the guest's registers";
	for (unsigned i = 0; i < FACTS; i++) {
		struct fact *f = &k->facts[i];
		s64 n = reach(k, f, &to, insn);

		if (n < 0 || n > LITE_WINDOW_SPAN)
			continue;
		if (insn->mem.size && !lite_is_masked(insn) && f->index == to.index) {
			f->center = to.center;
			f->slack = 0;
		}
		return insn->mem.size ? NULL : "an access of no size";
	}
	return gs ? "an access by GS, and nothing is known of where it goes" : "a slot's distance, and nothing is known of where it leads";
}

/* ---- the vCPU's fields ----------------------------------------------------------------------------------------------- */

static const struct {
	s32 at;
	u16 size; /* in pieces of eight bytes, at most */
	u8 may;
} fields[] = {
	{ VCPU_GPR(8), 32, OPA_RW }, /* R8 to R11 */
	{ VCPU(vpage), 8, OPA_READ },
	{ VCPU(budget), 4, OPA_READ },
	{ VCPU(fl), 2, OPA_RW },
	{ VCPU(jit.code_fl), 2, OPA_RW },
	{ VCPU(vcpu.x86.seg[SEG_FS].base), 8, OPA_READ },
	{ VCPU(vcpu.x86.seg[SEG_GS].base), 8, OPA_READ },
	{ VCPU(window_irq), 1, OPA_READ },
};

/* Those of SWAPGS, CLI, STI, CLD, RDTSC and RDTSCP at CPL 0: what the guest could have there anyway. */
static bool is_system_field(const struct insn *insn)
{
	s64 at = insn->mem.disp;

	if (at == VCPU(vcpu.x86.seg[SEG_GS].base) || at == VCPU(vcpu.x86.kernel_gs_base))
		return insn->mnemonic == MN_MOV && insn->mem.size == 8;
	if (at == VCPU(sti_rip))
		return insn->mnemonic == MN_MOV && insn->mem.size == 8 && insn->mem.access == OPA_WRITE;
	if (at == VCPU(vcpu.tsc_offset))
		return insn->mnemonic == MN_MOV && insn->mem.size == 8 && insn->mem.access == OPA_READ;
	if (at == VCPU(vcpu.x86.tsc_aux))
		return insn->mnemonic == MN_MOV && insn->mem.size == 4 && insn->mem.access == OPA_READ;
	if (at == VCPU(vcpu.features[X86_FEATURE_WORD(X86_FEATURE_RDTSCP)]))
		return insn->mnemonic == MN_TEST && insn->mem.size == 4;
	if (at != VCPU(vcpu.x86.rflags) || insn->mem.size != 4 || insn->op[1].kind != OPK_IMM)
		return false;
	return insn->mnemonic == MN_AND ? (u32)insn->imm == ~(u32)RFLAGS_IF || (u32)insn->imm == ~(u32)RFLAGS_DF :
	       (insn->mnemonic == MN_OR || insn->mnemonic == MN_TEST) && (u32)insn->imm == RFLAGS_IF;
}

/* jit.sum: T0 and a size, to be shifted by a lent RCX. */
static const char *sum(struct walk *x, struct known *k)
{
	const struct insn *insn = &x->insn;

	if (insn->mnemonic == MN_MOV && is_gpr(insn, 1, REG_CX, 8)) {
		if (k->rcx != RCX_SUM)
			return "a sum of something else than T0";
		k->summed = true;
		k->sum_more = k->more;
		return NULL;
	}
	if (insn->mnemonic != MN_SHRX || !is_gpr(insn, 0, REG_CX, 8) || !is_gpr(insn, 2, REG_CX, 8))
		return "a use of the sum that is none";
	if (k->rcx != RCX_COUNT)
		return "a sum that is shifted by no number";
	k->rcx = k->summed && k->more == 12 ? RCX_PAGE : RCX_LENT;
	k->more = k->sum_more;
	return NULL;
}

/* The steps to an index in T1. *@done: it was one. */
static const char *index_step(struct walk *x, struct known *k, bool *done)
{
	const struct insn *insn = &x->insn;
	bool own = k->own, lea = insn->mnemonic == MN_LEA && insn->addrsize == 8 && !insn->mem.disp;

	*done = true;
	if (insn->mnemonic == MN_RORX && is_gpr(insn, 0, T1, 8) && insn->op[1].kind == OPK_GPR && insn->op[1].size == 8 &&
	    insn->imm != LITE_WINDOW_SHIFT) {
		unsigned from = insn->op[1].reg;

		if ((k->host & R(from)) || (from == REG_CX && k->rcx != RCX_GUEST))
			return "an index made of what is no address of the guest's";
		set_t1(k, T1_TURNED);
		k->turned = (u8)insn->imm;
		k->own = from == T0;
		return NULL;
	}
	if (k->t1 == T1_TURNED && insn->mnemonic == MN_MOVZX && is_gpr(insn, 0, T1, 4) && is_gpr(insn, 1, T1, 2))
		set_t1(k, T1_BITS);
	else if (k->t1 == T1_TURNED && k->turned == 12 - 2 && insn->mnemonic == MN_AND && is_gpr(insn, 0, T1, 4) &&
		 insn->op[1].kind == OPK_IMM && (u32)insn->imm == (LITE_TLB_SIZE - 1) * JIT_TLB_SCALE)
		set_t1(k, T1_TLB);
	else if (k->t1 == T1_BITS && k->turned == 12 && lea && is_gpr(insn, 0, T1, 8) && insn->mem.base == INSN_REG_NONE &&
		 insn->mem.index == T1 && insn->mem.scale == JIT_TLB_SCALE)
		set_t1(k, T1_TLB);
	else if (k->t1 == T1_TURNED && k->turned == LITE_JIT_JUMP_SHIFT - 1 && insn->mnemonic == MN_AND && is_gpr(insn, 0, T1, 4) &&
		 insn->op[1].kind == OPK_IMM && (u32)insn->imm == (LITE_JIT_JUMPS - 1) * JIT_JUMP_SCALE)
		set_t1(k, T1_JUMP);
	else
		*done = false;
	if (*done)
		k->own = own;
	return NULL;
}

/* [RSP + constant]. *@done: there is nothing more to it. */
static const char *field(struct walk *x, struct known *k, bool *done)
{
	const struct insn *insn = &x->insn;
	s64 at = insn->mem.disp;
	unsigned size = insn->mem.size;

	*done = true;
	if (at == VCPU(jit.sum) && size == 8)
		return sum(x, k);
	if (insn->mnemonic == MN_MOV && at == VCPU(jit.site) && size == 4 && insn->mem.access == OPA_WRITE && insn->op[1].kind == OPK_IMM) {
		k->has_site = true;
		k->site = (u32)insn->imm;
		return NULL;
	}
	if (insn->mnemonic == MN_MOV && at == VCPU(jit.save) && size == 8) {
		if (is_gpr(insn, 1, REG_CX, 8)) {
			if (k->rcx != RCX_GUEST)
				return "what is saved is not the guest's RCX";
			k->saved = true;
			return NULL;
		}
		if (is_gpr(insn, 0, REG_CX, 8)) {
			if (!k->saved)
				return "what is restored is not the guest's RCX";
			rcx_back(k);
			return NULL;
		}
	}
	if (insn->mnemonic == MN_MOV && at == VCPU(vpage) && size == 8 && is_gpr(insn, 1, T1, 8)) {
		if (!k->here)
			return "the page is set without a look at where the jump was to go";
		if (k->host & R(T1))
			return "an address of the host is used as a value";
		home_change(k, THE_PAGE, 0, true);
		return NULL;
	}
	if (insn->mnemonic == MN_MOV && at == VCPU(vpage) && size == 8 && insn->op[1].kind == OPK_IMM) {
		home_change(k, THE_PAGE, 0, true);
		return (x->v->mode & LITE_MODE_TEXT) && !(insn->imm & 0xfff) ? NULL : "another page is entered, but not from text to text";
	}
	if (insn->mnemonic == MN_MOV && is_gpr(insn, 0, T2, 8) && at >= VCPU(jit.delta) && at < VCPU(jit.delta[LITE_WINDOW_SLOTS]) && !((at - VCPU(jit.delta)) % 8)) {
		set_t2(k, T2_DELTA);
		k->bits = (u16)((at - VCPU(jit.delta)) / 8);
		return NULL;
	}
	if (insn->mnemonic == MN_ADD && insn->op[0].kind == OPK_GPR && size == 8 && at >= VCPU(jit.delta) && at < VCPU(jit.delta[LITE_WINDOW_SLOTS])) {
		if (k->t1 != T1_ROTATED || !k->in_slot || insn->op[0].reg != k->of || VCPU(jit.delta[k->slot]) != at)
			return "the distance of another slot than the address was found in";
		set_window(k, k->of);
		return NULL;
	}
	if (insn->mnemonic == MN_MOV && insn->op[0].kind == OPK_GPR && insn->op[0].size == 8 && (insn->op[0].reg == T0 || insn->op[0].reg == T1) &&
	    (at == VCPU(vpage) || (at >= VCPU_GPR(8) && at < VCPU_GPR(12) && !((at - VCPU_GPR(8)) % 8)))) {
		u8 from = at == VCPU(vpage) ? THE_PAGE : (u8)(AT_HOME + 8 + (at - VCPU_GPR(8)) / 8);

		if (insn->op[0].reg == T0) {
			set_t0(k, T0_SUM);
			k->sum = (struct fact){ true, from, INSN_REG_NONE, 1 };
		} else {
			set_t1(k, from == THE_PAGE ? T1_ANY : T1_HOME);
			k->home = from;
			k->added = 0;
		}
		return NULL;
	}
	if (!x->v->view && is_system_field(insn)) {
		*done = false;
		return NULL;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
		s64 off = at - fields[i].at;

		if (off < 0 || !size || off % 8 + size > 8 || off + size > fields[i].size || (insn->mem.access & ~fields[i].may))
			continue;
		if (insn->mnemonic == MN_MOVZX && is_gpr(insn, 0, REG_CX, 4) && at == VCPU(budget) + 3) {
			if (!rcx_kept(k))
				return "RCX is lent but not kept";
			k->rcx = RCX_LENT;
			return NULL;
		}
		if (fields[i].at == VCPU_GPR(8) && (insn->mem.access & OPA_WRITE))
			write_home(k, insn, (unsigned)off, size);
		*done = false;
		return NULL;
	}
	return "a field of the vCPU that is not for translated code";
}

/* [RSP + T1 * 8 + constant]; always a special case. */
static const char *table(struct walk *x, struct known *k)
{
	s32 view = jit_view(x->v->view);
	const struct insn *insn = &x->insn;
	s64 at = insn->mem.disp;

	if (insn->mem.size != 8 || insn->mem.access != OPA_READ)
		return "a table is read, eight bytes at a time";
	if (at == view + (s32)offsetof(struct lite_view, jit[0].va)) {
		if (k->t1 != T1_JUMP)
			return "the jump cache without an index for it";
		if (insn->mnemonic != MN_CMP || !is_gpr(insn, 0, T0, 8))
			return "a use of the jump cache that is none";
		if (k->host & R(T0))
			return "an address of the host is used as a value";
		k->asked = true;
		return NULL;
	}
	if (at == VCPU(jit.delta)) {
		if (k->t1 != T1_SLOT)
			return "a distance without a slot";
		if (insn->mnemonic == MN_MOV && is_gpr(insn, 0, T1, 8)) {
			u8 of = k->of;

			set_t1(k, T1_DELTA);
			k->of = of;
			return NULL;
		}
		if (insn->mnemonic != MN_ADD || !is_gpr(insn, 0, k->of, 8))
			return "a distance for another address";
		set_window(k, k->of);
		return NULL;
	}
	for (unsigned write = 0; write < 2; write++) {
		s32 tags = jit_tags(x->v->view, write);

		if (at != tags && at != jit_hosts(x->v->view, write))
			continue;
		if (k->t1 != T1_TLB)
			return "a TLB without an index for it";
		if (at == tags && insn->mnemonic == MN_MOV && is_gpr(insn, 0, REG_CX, 8)) {
			if (!rcx_kept(k))
				return "RCX is lent but not kept";
			k->rcx = RCX_TAG;
			k->tag_write = write;
			return NULL;
		}
		if (at == tags && (insn->mnemonic == MN_SUB || insn->mnemonic == MN_ADD) && is_gpr(insn, 0, T0, 8)) {
			if (k->host & R(T0))
				return "an address of the host is used as a value";
			if (insn->mnemonic == MN_SUB && !k->own)
				return "a tag by the index of another address";
			set_t0(k, insn->mnemonic == MN_SUB ? T0_OFFSET : T0_ANY);
			k->write = write;
			return NULL;
		}
		if (at != tags && (k->t0 != T0_INSIDE || k->write != write))
			return "a host address, but no offset that was checked";
		if (at != tags && insn->mnemonic == MN_ADD && is_gpr(insn, 0, T0, 8)) {
			set_t0(k, T0_HOST);
			return NULL;
		}
		if (at != tags && insn->mnemonic == MN_MOV && is_gpr(insn, 0, T1, 8)) {
			set_t1(k, T1_BASE);
			k->base_write = write;
			return NULL;
		}
		return "a use of a TLB that is none";
	}
	return "no table, or another view's";
}

/* ---- LEA, NOT, CMP, MOV, AND that are part of something ---------------------------------------------------------------- */

/* *@done: it was such. */
static const char *part(struct walk *x, struct known *k, bool *done)
{
	const struct insn *insn = &x->insn;
	bool lea = insn->mnemonic == MN_LEA && insn->op[0].size == 8 && insn->addrsize == 8;
	s64 disp = insn->has_mem ? insn->mem.disp : 0;

	*done = true;
	/* The slot of a user address; only such have windows. */
	if (insn->mnemonic == MN_RORX && is_gpr(insn, 0, T1, 8) && insn->op[1].kind == OPK_GPR && insn->op[1].size == 8 &&
	    insn->imm == LITE_WINDOW_SHIFT && !(k->host & R(insn->op[1].reg)) && x->v->view == 1) {
		unsigned of = insn->op[1].reg;

		if (of != T0 && of != T2 && !is_guests(k, of))
			return "the slot of what is no address";
		set_t1(k, T1_ROTATED);
		k->of = of;
		k->rotated.holds = false;
		if (of == T0 && k->t0 == T0_SUM)
			k->rotated = k->sum;
		else if (is_guests(k, of))
			k->rotated = (struct fact){ true, of, INSN_REG_NONE, 1 };
		return NULL;
	}
	if (lea && is_gpr(insn, 0, T0, 8) && insn->mem.base == T0 && k->t0 == T0_SUM &&
	    (insn->mem.index == INSN_REG_NONE || (is_guests(k, insn->mem.index) && k->sum.index == INSN_REG_NONE)) &&
	    k->sum.center + disp == (s32)(k->sum.center + disp)) {
		struct fact sum = k->sum;

		sum.center += (s32)disp;
		if (insn->mem.index != INSN_REG_NONE) {
			sum.index = insn->mem.index;
			sum.scale = insn->mem.scale ? insn->mem.scale : 1;
		}
		set_t0(k, T0_SUM);
		k->sum = sum;
		return NULL;
	}
	if (lea && is_gpr(insn, 0, T0, 8) && (insn->mem.base == INSN_REG_NONE || is_guests(k, insn->mem.base)) &&
	    (insn->mem.index == INSN_REG_NONE || is_guests(k, insn->mem.index)) && !insn->mem.rip_rel) {
		set_t0(k, T0_SUM);
		k->sum = (struct fact){ true, insn->mem.base, insn->mem.index, insn->mem.scale ? insn->mem.scale : 1, .center = (s32)disp };
		return NULL;
	}
	if (insn->mnemonic == MN_MOVZX && is_gpr(insn, 0, T1, 4) && is_gpr(insn, 1, T1, 1) && k->t1 == T1_ROTATED) {
		u8 of = k->of;

		set_t1(k, T1_SLOT);
		k->of = of;
		return NULL;
	}
	if (insn->mnemonic == MN_CMP && is_gpr(insn, 0, T1, 1) && insn->op[1].kind == OPK_IMM && k->t1 == T1_ROTATED) {
		k->compared = true;
		k->limit = insn->imm & 0xff;
		return NULL;
	}
	if (lea && k->t1 == T1_DELTA && is_gpr(insn, 0, k->of, 8) && is_mem(insn, k->of, T1, 1) && !disp) {
		set_window(k, k->of);
		return NULL;
	}
	if (insn->mnemonic == MN_MOV && is_gpr(insn, 0, T2, 8) && is_gpr(insn, 1, T0, 8) && k->t0 == T0_HOST) {
		set_t2(k, T2_HOST);
		k->t2_size = k->size;
		k->t2_write = k->write;
		return NULL;
	}
	if (insn->mnemonic == MN_MOV && is_gpr(insn, 0, T2, 8) && is_gpr(insn, 1, REG_CX, 8) && k->rcx == RCX_GUEST) {
		set_t2(k, T2_RCX);
		return NULL;
	}
	if (insn->mnemonic == MN_MOV && is_gpr(insn, 0, REG_CX, 8) && is_gpr(insn, 1, T2, 8) && k->rcx != RCX_GUEST) {
		if (k->t2 != T2_RCX)
			return "what is restored is not the guest's RCX";
		rcx_back(k);
		return NULL;
	}
	if (insn->mnemonic == MN_MOV && is_gpr(insn, 0, REG_CX, 4) && insn->op[1].kind == OPK_IMM && rcx_kept(k)) {
		k->rcx = RCX_COUNT;
		k->more = (u16)(insn->imm & 63);
		return NULL;
	}
	/* Shifts by a lent RCX: T2 within an operand, T1 as a number of them. */
	if (k->rcx == RCX_COUNT && is_gpr(insn, 0, T2, 8) && is_gpr(insn, 1, T2, 8) && is_gpr(insn, 2, REG_CX, 8) && !(k->host & R(T2)) &&
	    (insn->mnemonic == MN_SHLX || insn->mnemonic == MN_SHRX)) {
		bool both = insn->mnemonic == MN_SHRX && k->t2 == T2_SHIFTED && k->bits == k->more && k->more;

		set_t2(k, both ? T2_BITS : insn->mnemonic == MN_SHLX ? T2_SHIFTED : T2_ANY);
		k->bits = both ? (u16)MIN(~0ULL >> k->more, 0xffffULL) : k->more;
		return NULL;
	}
	if (k->rcx == RCX_COUNT && insn->mnemonic == MN_SARX && is_gpr(insn, 0, T1, 8) && is_gpr(insn, 1, T1, 8) &&
	    is_gpr(insn, 2, REG_CX, 8) && !(k->host & R(T1))) {
		set_t1(k, T1_ANY);
		return NULL;
	}
	if (insn->mnemonic == MN_MOV && is_gpr(insn, 0, T0, 8) && insn->op[1].kind == OPK_IMM) {
		set_t0(k, T0_IMM);
		k->imm = insn->imm;
		return NULL;
	}
	if (insn->mnemonic == MN_NOT && is_gpr(insn, 0, REG_CX, 8) && k->rcx == RCX_TAG) {
		k->rcx = RCX_NOT_TAG;
		return NULL;
	}
	if (insn->mnemonic == MN_CMP && is_gpr(insn, 0, T0, 8) && insn->op[1].kind == OPK_IMM && k->t0 == T0_OFFSET) {
		k->compared = insn->imm < 4096;
		k->limit = (u16)insn->imm;
		return NULL;
	}
	if (lea && is_gpr(insn, 0, T0, 8) && is_mem(insn, T0, REG_CX, 1) && !(k->host & R(T0))) {
		if (k->rcx == RCX_NOT_TAG && disp == 1) {
			if (!k->own)
				return "a tag by the index of another address";
			set_t0(k, T0_OFFSET);
			k->write = k->tag_write;
			k->rcx = RCX_LENT;
			return NULL;
		}
		if (k->rcx == RCX_TAG && !disp) {
			set_t0(k, T0_ANY);
			return NULL;
		}
	}
	if (lea && is_gpr(insn, 0, REG_CX, 8) && is_mem(insn, T0, INSN_REG_NONE, 0) && k->rcx != RCX_GUEST && !(k->host & R(T0))) {
		k->rcx = disp >= 0 && disp < JIT_GROUP_MAX ? RCX_SUM : RCX_LENT;
		k->more = (u16)disp;
		return NULL;
	}
	if (lea && is_gpr(insn, 0, T0, 8) && is_mem(insn, T0, T1, 1) && !disp && k->t0 == T0_INSIDE && k->t1 == T1_BASE &&
	    k->write == k->base_write) {
		set_t0(k, T0_HOST);
		return NULL;
	}
	*done = false;
	return NULL;
}

/* ---- everything else ------------------------------------------------------------------------------------------------- */

/* Works on registers, flags and its operands alone. */
static bool is_ordinary(const struct walk *x)
{
	const struct insn *insn = &x->insn;

	if (insn->flags & (INSN_F_PRIVILEGED | INSN_F_IOPL | INSN_F_BRANCH | INSN_F_ENDS_BLOCK | INSN_F_STRING | INSN_F_STACK | INSN_F_MOV_SS))
		return false;
	if (x->use.implied_mem)
		return false;
	switch (insn->state) {
	case INSN_STATE_X87: case INSN_STATE_MMX: case INSN_STATE_SSE: case INSN_STATE_AVX: case INSN_STATE_AVX512:
		return (x->v->fpu_usable & LITE_FPU_CLASS(insn->state)) && !lite_is_xstate(insn);
	case INSN_STATE_NONE: case INSN_STATE_VEX_GPR:
		break;
	default:
		return false;
	}
	if (insn->mnemonic >= MN_ADD && insn->mnemonic <= MN_SHRX)
		return true;
	switch (insn->mnemonic) {
	case MN_RDTSC: case MN_RDTSCP:
		return !x->v->view;
	case MN_MOV: case MN_MOVZX: case MN_MOVSX: case MN_MOVSXD: case MN_LEA: case MN_CBW: case MN_CWD: case MN_LAHF: case MN_SAHF:
	case MN_CMOVCC: case MN_SETCC: case MN_MOVNTI: case MN_MOVDIRI: case MN_CLC: case MN_STC: case MN_CMC: case MN_LFENCE: case MN_MFENCE: case MN_SFENCE:
		return true;
	default:
		return false;
	}
}

static const char *guest_access(const struct walk *x, const struct known *k)
{
	const struct insn *insn = &x->insn;

	if (is_mem(insn, T2, INSN_REG_NONE, 0) && k->t2 == T2_WINDOW)
		return !insn->mem.size || insn->mem.disp < 0 || insn->mem.disp + insn->mem.size > LITE_WINDOW_SPAN ?
			       "an access too far from what was looked at" : NULL;
	if (is_mem(insn, T2, INSN_REG_NONE, 0)) {
		if (k->t2 != T2_HOST)
			return "an access to [T2] that was not checked";
		if (!insn->mem.size || insn->mem.disp < 0 || insn->mem.disp + insn->mem.size > k->t2_size)
			return "an access that is larger than what was checked";
		return (insn->mem.access & OPA_WRITE) && !k->t2_write ? "a write that was checked as a read" : NULL;
	}
	if (!is_mem(insn, T0, INSN_REG_NONE, 0) || insn->mem.disp)
		return "memory that is neither the vCPU nor at T0";
	if (k->t0 == T0_WINDOW)
		return insn->mem.size ? NULL : "an access of no size";
	if (k->t0 != T0_HOST)
		return "an access to [T0] that was not checked";
	if (!insn->mem.size || insn->mem.size > k->size)
		return "an access that is larger than what was checked";
	if ((insn->mem.access & OPA_WRITE) && !k->write)
		return "a write that was checked as a read";
	return NULL;
}

static const char *plain(struct walk *x, struct known *k)
{
	struct insn *insn = &x->insn;
	const char *why;
	bool done;
	u16 both;
	s64 n;

	/* CMP and its jump are neighbours. */
	k->compared = k->asked = false;
	if (insn->mnemonic == MN_NOP)
		return NULL;
	if (!is_ordinary(x))
		return "an instruction that is not for translated code";
	for (unsigned i = 0; i < insn->nops; i++)
		if (insn->op[i].kind == OPK_GPR && insn->op[i].reg == HOST_RSP)
			return "RSP is an operand";
	if (insn->has_mem && (insn->addrsize != 8 || insn->mem.vsib || insn->mem.rip_rel || insn->mem.seg == SEG_FS ||
			      (insn->mem.seg == SEG_GS && insn->mnemonic == MN_LEA)))
		return "an address of a kind that is not for translated code";
	if (insn->has_mem && insn->mnemonic != MN_LEA) {
		if (insn->mem.seg == SEG_GS || (insn->mem.index == T2 && insn->mem.base != HOST_RSP && insn->mem.scale <= 1)) {
			why = slot_access(x, k);
			if (why)
				return why;
			insn->mem.base = HOST_RSP;
			insn->mem.index = INSN_REG_NONE;
			lite_use(insn, &x->use);
		} else if (is_mem(insn, HOST_RSP, T1, 8)) {
			return table(x, k);
		} else if (is_mem(insn, HOST_RSP, INSN_REG_NONE, 0)) {
			why = field(x, k, &done);
			if (why || done)
				return why;
		} else {
			why = guest_access(x, k);
			if (why)
				return why;
			/* As an address it is in its place. */
			insn->mem.base = HOST_RSP;
			lite_use(insn, &x->use);
		}
		/* A bit in a string of them: the offset in the register reaches beyond the operand (SDM 2A, BT). */
		if (insn->mnemonic >= MN_BT && insn->mnemonic <= MN_BTC && insn->op[1].kind == OPK_GPR &&
		    !(is_gpr(insn, 1, T2, insn->op[1].size) && k->t2 == T2_BITS && k->bits < insn->mem.size * 8))
			return "a bit string without an end";
	} else {
		why = index_step(x, k, &done);
		if (!why && !done)
			why = part(x, k, &done);
		if (why || done)
			return why;
		if (insn->has_mem && (insn->mem.base == HOST_RSP || insn->mem.index == HOST_RSP))
			return "RSP is an operand";
	}
	if (k->t1 == T1_HOME && adds(insn, T1, &n) && k->added + n == (s32)(k->added + n)) {
		k->added += (s32)n;
		return NULL;
	}
	both = x->use.read | x->use.write;
	if (x->use.read & k->host)
		return "an address of the host is used as a value";
	if ((both & R(REG_CX)) && k->rcx != RCX_GUEST)
		return "RCX is used while it is lent";
	regs_change(k, insn, &x->use);
	if (x->use.write & R(T0))
		set_t0(k, T0_ANY);
	if (x->use.write & R(T1))
		set_t1(k, T1_ANY);
	if (x->use.write & R(T2))
		set_t2(k, T2_ANY);
	if (x->use.write & R(REG_CX))
		rcx_back(k);
	return NULL;
}

/* ---- where it goes on ------------------------------------------------------------------------------------------------ */

static const char *go(struct walk *x, const u8 *there, const struct known *k)
{
	s64 to = offset_of(x->v, there);
	struct known *known;

	if (to < 0) {
		if (k->stack != STACK_VCPU)
			return "RSP is not the vCPU at the end";
		if (there != x->v->jump_miss && there != x->v->poll && there != x->v->poll_kept && there != x->v->to && (!x->v->tail || there != x->v->tail))
			return "a jump to nowhere";
		if (k->rcx != RCX_GUEST)
			return "RCX is not the guest's at the end";
		if (there != x->v->to && (there != x->v->tail || x->v->tail_t0) && (k->host & R(T0)))
			return "an address of the host for the guest to go to";
		return NULL;
	}
	if (x->bytes[to] == BYTE_INSIDE || x->bytes[to] == BYTE_DATA)
		return "a jump into an instruction";
	if (!x->number[to])
		x->number[to] = (u16)++x->nknown;
	known = &x->known[x->number[to]];
	if (known->seen && known->stack != k->stack)
		return "RSP is one thing on one way, and another on another";
	if (meet(known, k) && !known->queued) {
		known->queued = true;
		x->todo[x->ntodo++] = (u16)to;
	}
	return NULL;
}

static u32 word(const u8 *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

/* A field of 32 bits in the code that one store replaces. */
static bool is_field(const struct jit_verify *v, const u8 *p)
{
	s64 at = offset_of(v, p);

	return at >= 0 && left(v, (u32)at) >= 4 && ((uintptr_t)p & 7) <= 4;
}

/* Whether @n bytes before @p an instruction begins. */
static bool begins(const struct walk *x, const u8 *p, unsigned n)
{
	s64 at = offset_of(x->v, p - n);

	return at >= 0 && x->bytes[at] == BYTE_FIRST;
}

/* The eight bytes behind a call of LITE_JIT_LINK, which is at x->at. */
static const char *link_data(struct walk *x)
{
	const struct jit_verify *v = x->v;
	u32 ret = x->at + x->insn.len, target;
	const u8 *data = behind(x), *field;

	/* lite_jit_calls' link() finds the call by its length. */
	if (x->insn.len != 7)
		return "a call of LITE_JIT_LINK that is not 7 bytes long";
	if (left(v, x->at) < x->insn.len + 8U)
		return "nothing behind a call of LITE_JIT_LINK";
	for (u32 i = ret; i < ret + 8; i++) {
		if (x->bytes[i] == BYTE_FIRST || x->bytes[i] == BYTE_INSIDE)
			return "instructions where data is";
		x->bytes[i] = BYTE_DATA;
	}
	field = data - word(data);
	target = word(data + 4);
	if ((target & 0xffff) >= 4096 || target >> 18)
		return "a link to another page";
	if (!is_field(v, field))
		return "a link whose jump cannot be written";
	if (!(begins(x, field, 1) && field[-1] == 0xe9) && !(begins(x, field, 2) && field[-2] == 0x0f && (field[-1] & 0xf0) == 0x80))
		return "a link that names no jump";
	if (field + 4 + (s32)word(field) != code_at(v, x->at))
		return "a link that names a jump to elsewhere";
	return NULL;
}

/* T0 and jit.site are for the same instruction of the block, and for @fn. */
static const void *given(const struct walk *x, const struct known *k, enum lite_jit_fn fn)
{
	for (unsigned i = 0; i < x->v->n; i++) {
		const struct jit_insn *j = &x->v->insns[i];

		if (j->given && j->fn == fn && k->t0 == T0_IMM && k->imm == (u64)(uintptr_t)j->given && k->has_site && k->site == j->off)
			return j->given;
	}
	return NULL;
}

/* How it goes on behind a call that does @insn of the guest's (NULL: none) and comes back only if no translation was dropped. */
static const char *goes_on(struct walk *x, const struct known *k, const struct insn *insn)
{
	struct known after = { .seen = true, .host = R(T0) | R(T1) | R(T2) };
	struct lite_use use = { .write = 0 };

	if (insn)
		lite_use(insn, &use);
	for (unsigned i = 0; i < FACTS; i++)
		after.facts[i] = k->facts[i];
	memcpy(after.below, k->below, sizeof(after.below));
	for (unsigned reg = 0; reg < 16; reg++) {
		unsigned at = jit_displaced(reg) ? AT_HOME + reg : jit_reg(reg);

		if (!(use.write >> reg & 1))
			continue;
		for (unsigned i = 0; i < FACTS; i++)
			after.facts[i].holds &= !uses(&after.facts[i], at);
		if (at < 16)
			after.below[at] = 0;
	}
	if (k->t2 == T2_WINDOW || k->t2 == T2_DELTA) {
		set_t2(&after, k->t2);
		after.bits = k->bits;
	}
	if (k->t2 == T2_HOST) {
		set_t2(&after, T2_HOST);
		after.t2_size = k->t2_size;
		after.t2_write = k->t2_write;
	}
	return go(x, behind(x), &after);
}

static bool is_cross(const struct walk *x, const struct known *k)
{
	for (unsigned i = 0; i < x->v->n; i++) {
		const struct jit_insn *j = &x->v->insns[i];

		if (j->cross && k->t0 == T0_IMM && k->imm == (u64)(uintptr_t)j->cross && k->has_site && k->site == j->off)
			return true;
	}
	return false;
}

static const char *call(struct walk *x, struct known *k)
{
	const struct insn *insn = &x->insn;
	s64 fn = insn->mem.disp - VCPU(jit.fn);

	if (!is_mem(insn, HOST_RSP, INSN_REG_NONE, 0) || insn->mem.size != 8 || fn < 0 || fn % 8 || fn / 8 >= LITE_JIT_FNS)
		return "a call of what is no function for it";
	if (k->rcx != RCX_GUEST)
		return "RCX is not the guest's at the end";
	switch (fn / 8) {
	case LITE_JIT_MISS: case LITE_JIT_MISS_KEPT:
	case LITE_JIT_GROUP: case LITE_JIT_GROUP_KEPT: {
		unsigned size = JIT_MISS_BYTES(k->site);

		if (!k->has_site || (k->site & 0xf000) || !size || size > JIT_GROUP_MAX)
			return "a call without the argument that it trusts";
		if (k->host & R(T0))
			return "an address of the host for one of the guest's";
		set_t1(k, T1_ANY);
		set_t0(k, T0_HOST);
		k->size = (u16)size;
		k->write = k->site & JIT_MISS_WRITE;
		k->has_site = false;
		return go(x, behind(x), k);
	}
	case LITE_JIT_INSN:
		return given(x, k, LITE_JIT_INSN) ? NULL : "a call without the argument that it trusts";
	case LITE_JIT_FAST:
	case LITE_JIT_STRING ... LITE_JIT_FNS - 1: {
		const struct jit_fast *f = given(x, k, fn / 8);

		if (!f)
			return "a call without the argument that it trusts";
		if (fn / 8 != LITE_JIT_FAST && fn / 8 != jit_short_way(&f->insn, x->v->view))
			return "a short way for another instruction";
		if (f->after & (LITE_AFTER_CPL | LITE_AFTER_ALL))
			return NULL;
		return goes_on(x, k, &f->insn);
	}
	case LITE_JIT_ACROSS: case LITE_JIT_ACROSS + 1:
		if (fn / 8 != LITE_JIT_ACROSS + x->v->view)
			return "another view's";
		/* fall through */
	case LITE_JIT_CROSS:
		return is_cross(x, k) ? goes_on(x, k, NULL) : "a call without the argument that it trusts";
	case LITE_JIT_EMULATE:
	case LITE_JIT_DEAD:
		return k->has_site && k->site <= 0xfff ? NULL : "a call without the argument that it trusts";
	case LITE_JIT_LINK:
		return link_data(x);
	default:
		return "a call of what is no function for it";
	}
}

/* The jump behind the host's CALL is an entry; and other blocks may come to that, who know nothing but where the guest goes. */
static const char *host_call(struct walk *x, struct known *k)
{
	struct known from_cache = { .seen = true, .host = R(T2), .t1 = T1_JUMP };
	const u8 *next = behind(x);
	struct known any = { .seen = true, .host = R(T1) | R(T2) | (k->host & R(T0)), .stack = STACK_CALLED };
	const struct jit_verify *v = x->v;
	const char *why;

	if (k->rcx != RCX_GUEST)
		return "RCX is not the guest's at the end";
	/* jit_pair() writes to it. */
	if (offset_of(v, next) != v->lands || !is_field(v, next + 1) || *next != 0xe9 || next + 5 + (s32)word(next + 1) != v->jump_miss)
		return "a call of the block's own without the jump behind it";
	why = go(x, next, &from_cache);
	return why ? why : go(x, next + (s64)x->insn.imm, &any);
}

/* @k->stack is not STACK_VCPU. */
static const char *stacked(struct walk *x, struct known *k)
{
	const struct insn *insn = &x->insn;

	if (k->stack == STACK_TO)
		return insn->mnemonic == MN_RET_NEAR && !insn->nops && !insn->pfx66 ? NULL : "a place for RET to go to, and no RET";
	if (insn->mnemonic != MN_LEA || !is_gpr(insn, 0, HOST_RSP, 8) || !is_mem(insn, HOST_RSP, INSN_REG_NONE, 0) || insn->mem.disp != 8)
		return "RSP is not made the vCPU again";
	k->stack = STACK_VCPU;
	return go(x, behind(x), k);
}

/* By the jump cache, as an operand of JMP or PUSH. */
static const char *by_cache(const struct walk *x, const struct known *k)
{
	s32 jumps = jit_view(x->v->view) + (s32)offsetof(struct lite_view, jit[0].to);
	const struct insn *insn = &x->insn;

	if (!is_mem(insn, HOST_RSP, T1, 8) || insn->mem.disp != jumps || insn->mem.size != 8 || k->t1 != T1_JUMP)
		return "an indirect jump that is not by the jump cache";
	if (k->rcx != RCX_GUEST)
		return "RCX is not the guest's at the end";
	return k->host & R(T0) ? "an address of the host for the guest to go to" : NULL;
}

static const char *push(struct walk *x, struct known *k)
{
	const char *why = by_cache(x, k);

	k->stack = STACK_TO;
	return why ? why : go(x, behind(x), k);
}

static const char *branch(struct walk *x, struct known *k)
{
	const struct insn *insn = &x->insn;
	const u8 *next = behind(x), *to = next + (s64)insn->imm;
	bool compared = k->compared, asked = k->asked;
	struct known taken;
	const char *why;

	k->compared = k->asked = false;
	taken = *k;
	/* What it means depends on who made the processor (APM 3, JMP). */
	if (insn->pfx66)
		return "a jump of 16 bits";
	switch (insn->mnemonic) {
	case MN_JMP_NEAR:
		return insn->op[0].kind == OPK_REL ? go(x, to, k) : by_cache(x, k);
	case MN_CALL_NEAR:
		if (insn->op[0].kind == OPK_REL)
			return host_call(x, k);
		return insn->has_mem ? call(x, k) : "a call of what is no function for it";
	case MN_PUSH:
		return push(x, k);
	case MN_JCC:
		if (compared && insn->cond == CC_A && k->t0 == T0_OFFSET) {
			k->t0 = T0_INSIDE;
			k->size = 4096 - k->limit;
		}
		if (compared && insn->cond == CC_NE && k->t1 == T1_ROTATED) {
			k->in_slot = true;
			k->slot = (u8)k->limit;
		}
		if (asked && insn->cond == CC_NE)
			k->here = true;
		/* Found where GS reaches: on the way on, or where the jump goes. */
		if (compared && k->t1 == T1_ROTATED && k->rotated.holds && (x->v->mode & LITE_MODE_WINDOW) && k->limit < LITE_WINDOW_SLOTS &&
		    (insn->cond == CC_NE || insn->cond == CC_E))
			add_fact(insn->cond == CC_NE ? k : &taken, &k->rotated, lite_window_by_gs(x->v->mode, k->limit) ? JIT_SLOT_GS : (u8)k->limit);
		break;
	case MN_JCXZ:
		/*
		 * The last of up to JIT_GROUP_MAX bytes is in the page, hence the first: were it in the one before, whose address has the index before
		 * this one, the tag would be that of another place (LITE_TLB_NONE).
		 */
		if (insn->addrsize == 8 && k->rcx == RCX_PAGE && k->t0 == T0_OFFSET) {
			taken.t0 = T0_INSIDE;
			taken.size = k->more + 1;
		}
		break;
	default:
		return "an instruction that is not for translated code";
	}
	why = go(x, to, &taken);
	return why ? why : go(x, next, k);
}

/*
 * The length of the code here that takes the flags to a field or from there, which jit_flags_to() and _from() are; 0: it is none. It begins with
 * MOV @temp, RAX, and RAX is what it was in the end. As a whole, so that what is known of RAX is not lost on the way.
 */
static unsigned flags_piece(const struct walk *x, unsigned temp)
{
	static void (*const pieces[])(struct lite_emit *e, unsigned temp, s32 field) = { jit_flags_to, jit_flags_from };
	static const s32 fields_of[] = { VCPU(fl), VCPU(jit.code_fl) };
	const u8 *code = code_at(x->v, x->at);

	for (unsigned i = 0; i < 4; i++) {
		u8 bytes[32];
		struct lite_emit e = { bytes, bytes + sizeof(bytes), 0, false };
		unsigned n;

		pieces[i & 1](&e, temp, fields_of[i >> 1]);
		n = (unsigned)(e.p - bytes);
		if (left(x->v, x->at) >= n && !memcmp(code, bytes, n))
			return n;
	}
	return 0;
}

static const char *step(struct walk *x)
{
	struct insn *insn = &x->insn;
	struct jit_verify *v = x->v;
	struct known *known = &x->known[x->number[x->at]], k = *known;
	unsigned piece = 0;
	const char *why;

	known->queued = k.queued = false;
	if (insn_decode(insn, code_at(v, x->at), MIN(left(v, x->at), INSN_MAX_LEN), MODE_64) != INSN_OK)
		return "no instruction";
	if (insn->mnemonic == MN_MOV && is_gpr(insn, 1, REG_AX, 8) && (is_gpr(insn, 0, T0, 8) || is_gpr(insn, 0, T1, 8)) && k.stack == STACK_VCPU &&
	    k.rcx == RCX_GUEST)
		piece = flags_piece(x, insn->op[0].reg);
	if (piece)
		insn->len = (u8)piece;
	for (u32 i = x->at; i < x->at + insn->len; i++) {
		u8 is = i == x->at ? BYTE_FIRST : BYTE_INSIDE;

		if (x->bytes[i] != BYTE_UNKNOWN && x->bytes[i] != is)
			return "instructions that overlap";
		x->bytes[i] = is;
	}
	if (piece) {
		k.compared = k.asked = false;
		if (insn->op[0].reg == T0)
			set_t0(&k, T0_ANY);
		else
			set_t1(&k, T1_ANY);
		return go(x, behind(x), &k);
	}
	lite_use(insn, &x->use);
	if (k.stack != STACK_VCPU)
		return stacked(x, &k);
	switch (insn->mnemonic) {
	case MN_JMP_NEAR: case MN_CALL_NEAR: case MN_JCC: case MN_JCXZ: case MN_PUSH:
		return branch(x, &k);
	}
	why = plain(x, &k);
	return why ? why : go(x, behind(x), &k);
}

/* lite_jit_kill() writes a jump over what is there. */
static bool is_entry(struct walk *x, u32 at)
{
	const struct jit_verify *v = x->v;

	x->at = at;
	return insn_decode(&x->insn, code_at(v, at), left(v, at), MODE_64) == INSN_OK && x->insn.mnemonic == MN_NOP && x->insn.len == 8 &&
	       !((uintptr_t)code_at(v, at) & 7) && x->bytes[at] == BYTE_FIRST;
}

static const char *walk(struct walk *x)
{
	struct jit_verify *v = x->v;
	struct known k = { .seen = true, .host = R(T0) | R(T1) | R(T2) };
	const char *why;

	x->at = v->direct;
	why = go(x, code_at(v, v->direct), &k);
	if (!why && v->is_block) {
		x->at = v->dead;
		why = go(x, code_at(v, v->dead), &k);
	}
	if (!why && v->direct != v->indirect) {
		struct known from_cache = { .seen = true, .host = R(T2), .t1 = T1_JUMP };

		x->at = v->indirect;
		why = go(x, code_at(v, v->indirect), &from_cache);
	}
	while (!why && x->ntodo) {
		x->at = x->todo[--x->ntodo];
		why = step(x);
	}
	if (why || !v->is_block)
		return why;
	return is_entry(x, v->direct) && (!v->loop || is_entry(x, v->loop)) ? NULL : "no room for the jump of a dead block";
}

const char *jit_verify(struct jit_verify *v)
{
	struct walk *x = host_zalloc(sizeof(*x));
	const char *why = "no memory to verify in";

	if (!x)
		return why;
	x->v = v;
	/* Mostly not touched: what is known takes some hundred bytes an instruction. */
	x->known = host_zalloc_pages((length(v) + 1) * sizeof(*x->known));
	x->number = host_zalloc(length(v) * sizeof(*x->number));
	x->bytes = host_zalloc(length(v));
	x->todo = host_zalloc(length(v) * sizeof(*x->todo)); /* each at most once */
	if (x->known && x->number && x->bytes && x->todo)
		why = walk(x);
	v->at = x->at;
	if (x->known)
		host_free_pages(x->known, (length(v) + 1) * sizeof(*x->known));
	host_free(x->number);
	host_free(x->bytes);
	host_free(x->todo);
	host_free(x);
	return why;
}

bool jit_verified(struct lite_vm *lvm, struct jit_verify *v, const char *what)
{
	const char *why = jit_verify(v);

	__atomic_add_fetch(&lvm->jit_verified, 1, __ATOMIC_RELAXED);
	if (likely(!why))
		return true;
	if (__atomic_add_fetch(&lvm->jit_violations, 1, __ATOMIC_RELAXED) <= 8) {
		lite_log("verify: %s: %s, at 0x%llx\n", what, why, (unsigned long long)(uintptr_t)code_at(v, v->at));
		lite_log_code(v->code, v->size, (u64)(uintptr_t)v->code, MODE_64);
		lite_log_code(v->cold, v->cold_size, (u64)(uintptr_t)v->cold, MODE_64);
	}
	if (lite_options.verify == LITE_VERIFY_ABORT)
		__builtin_trap();
	return false;
}
