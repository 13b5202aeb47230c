/*
 * SYSCALL, SYSRET, IRET, events through the IDT, SWAPGS, and the flags that guard interrupts, for 64-bit kernels and what they run. See
 * system.h for the contract; system_insn.c has the rest.
 *
 * Guest memory (frames, the IDT, the GDT, the TSS) is reached through the TLB, and by instructions that the host's exception table
 * knows: where the client's memory is not there, the general path finds out again and reports it. Descriptors are read each time,
 * as the processor does; with the TLB at hand that costs less than to know whether a copy is still true.
 */
#include "engines/lite/system_priv.h"

static u8 *reach_slow(struct lite_vcpu *c, struct lite_view *view, u64 la, unsigned size, bool write)
{
	const struct lite_tlb_page *t = lite_tlb_page(view, la, write);
	struct lite_place place;

	if ((la & 0xfff) + size > 4096 || !x86_is_canonical(la, c->vcpu.x86.cr4))
		return NULL;
	/* A view of the other level is reached by implicit accesses only (SDM 3A 4.6.1). */
	if (lite_translate(c, la, write ? LITE_WRITE : LITE_READ, view == &c->views[0], &place) != X86_CONTINUE)
		return NULL;
	return t->tag == (la & PAGE_MASK_) ? t->host + (la & 0xfff) : NULL;
}

u8 *lite_reach(struct lite_vcpu *c, struct lite_view *view, u64 la, unsigned size, bool write)
{
	const struct lite_tlb_page *t = lite_tlb_page(view, la, write);

	if (likely(t->tag == ((la + size - 1) & PAGE_MASK_)))
		return t->host + (la & 0xfff);
	return reach_slow(c, view, la, size, write);
}

bool lite_read_desc(struct lite_vcpu *c, u16 sel, u64 *raw)
{
	const struct x86_state *s = &c->vcpu.x86;
	unsigned at = sel & ~7U;
	int err = 0;
	u8 *p;

	/* Local descriptors, and the null one, are unusual. */
	if ((sel & 4) || !at || at + 7 > s->gdt.limit)
		return false;
	p = lite_reach(c, &c->views[0], s->gdt.base + at, 8, false);
	if (!p)
		return false;
	*raw = load64(p, &err);
	return !err;
}

/* ---- SYSCALL, SYSRET ---------------------------------------------------------------------------------------- */

/* Execute, read, accessed; read, write, accessed: nothing is read for these (SDM 2B SYSCALL). */
static inline void flat_code(struct x86_state *s, u16 sel, unsigned dpl, bool wide)
{
	s->seg[SEG_CS] = (struct x86_segment){
		.sel = sel, .limit = ~0U, .ar = 11 | AR_S | AR_P | AR_G | dpl << AR_DPL_SHIFT | (wide ? AR_L : AR_DB),
	};
}

static inline void flat_stack(struct x86_state *s, u16 sel, unsigned dpl)
{
	s->seg[SEG_SS] = (struct x86_segment){
		.sel = sel, .limit = ~0U, .ar = 3 | AR_S | AR_P | AR_G | AR_DB | dpl << AR_DPL_SHIFT,
	};
}

bool lite_fast_syscall(struct lite_vcpu *c, unsigned len)
{
	struct x86_state *s = &c->vcpu.x86;
	u16 sel = (s->star >> 32) & 0xfffc;

	if (unlikely(s->mode != X86_MODE_LONG || !(s->efer & EFER_SCE)))
		return false;
	s->gpr[REG_CX] = s->rip + len;
	s->gpr[REG_R11] = s->rflags & ~RFLAGS_RF;
	s->rip = s->lstar;
	s->rflags = (s->rflags & ~s->sfmask & ~RFLAGS_RF) | RFLAGS_ONE;
	flat_code(s, sel, 0, true);
	flat_stack(s, sel + 8, 0);
	s->cpl = 0;
	return true;
}

#define SYSRET_FLAGS 0x3c7fd7ULL /* SDM 2B SYSRET */

bool lite_fast_sysret(struct lite_vcpu *c, bool rexw)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 rip = s->gpr[REG_CX];
	u16 sel = (s->star >> 48) | 3;

	if (unlikely(s->mode != X86_MODE_LONG || !(s->efer & EFER_SCE) || s->cpl))
		return false;
	if (!rexw)
		rip = (u32)rip;
	else if (unlikely(!x86_is_canonical(rip, s->cr4)))
		return false;
	s->rip = rip;
	s->rflags = (s->gpr[REG_R11] & SYSRET_FLAGS) | RFLAGS_ONE;
	flat_code(s, rexw ? sel + 16 : sel, 3, rexw);
	flat_stack(s, sel + 8, 3);
	s->mode = rexw ? X86_MODE_LONG : X86_MODE_PROT32;
	s->cpl = 3;
	return true;
}

/* ---- IRET --------------------------------------------------------------------------------------------------- */

/* Code that IRET may go to at privilege @cpl: flags it has to show, DPL as said, accessed already. */
static inline bool good_return_cs(u64 raw, unsigned cpl)
{
	/* S, P, code, not conforming, accessed; L and D not both */
	return (raw & DESC(AR_S | AR_P | 13 | AR_DPL)) == DESC(AR_S | AR_P | 9 | cpl << AR_DPL_SHIFT) &&
	       (raw & DESC(AR_L | AR_DB)) != DESC(AR_L | AR_DB);
}

static inline bool good_ss(u64 raw, unsigned cpl)
{
	/* S, P, data, writable, accessed; expand-down is as good in itself, but unusual */
	return (raw & DESC(AR_S | AR_P | AR_TYPE | AR_DPL)) == DESC(AR_S | AR_P | 3 | cpl << AR_DPL_SHIFT);
}

/* What a less privileged level may not see goes (SDM 2A IRET). */
static inline void drop_segments(struct x86_state *s, unsigned cpl)
{
	static const u8 regs[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		struct x86_segment *seg = &s->seg[regs[i]];
		bool conforming = (seg->ar & (AR_S | 12)) == (AR_S | 12);

		if (!(seg->ar & AR_UNUSABLE) && !conforming && (seg->ar & AR_DPL) >> AR_DPL_SHIFT < cpl)
			*seg = (struct x86_segment){ .ar = AR_UNUSABLE };
	}
}

bool lite_fast_iret(struct lite_vcpu *c)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 rip, cs, flags, rsp, ss, cs_raw, ss_raw = 0, mask;
	unsigned cpl, old = s->cpl;
	const u64 *frame;
	int err = 0;

	if (unlikely(s->mode != X86_MODE_LONG || (s->rflags & RFLAGS_NT) || (s->gpr[REG_SP] & 7)))
		return false;
	frame = (const u64 *)lite_reach(c, &c->views[old == 3], s->gpr[REG_SP], 40, false);
	if (unlikely(!frame))
		return false;
	rip = load64(frame, &err);
	cs = load64(frame + 1, &err) & 0xffff;
	flags = load64(frame + 2, &err);
	rsp = load64(frame + 3, &err);
	ss = load64(frame + 4, &err) & 0xffff;
	cpl = cs & 3;
	if (unlikely(err || cpl < old || !lite_read_desc(c, cs, &cs_raw) || !good_return_cs(cs_raw, cpl)))
		return false;
	if (ss & ~3ULL) {
		if (unlikely((ss & 3) != cpl || !lite_read_desc(c, ss, &ss_raw) || !good_ss(ss_raw, cpl)))
			return false;
	} else if (unlikely(!(cs_raw & DESC(AR_L)) || cpl == 3 || ss != cpl)) {
		return false;
	}
	if (likely(cs_raw & DESC(AR_L))) {
		if (unlikely(!x86_is_canonical(rip, s->cr4)))
			return false;
	} else if (unlikely(!(cs_raw & DESC(AR_DB)) || !(ss_raw & DESC(AR_DB)) || rip > desc_limit(cs_raw))) {
		return false; /* 16 bits are somewhere in there */
	}

	if (ss & ~3ULL)
		seg_from_desc(&s->seg[SEG_SS], ss, ss_raw);
	else
		s->seg[SEG_SS] = (struct x86_segment){ .sel = cpl, .ar = AR_UNUSABLE | cpl << AR_DPL_SHIFT };
	seg_from_desc(&s->seg[SEG_CS], cs, cs_raw);
	mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
	if (old <= (s->rflags & RFLAGS_IOPL) >> 12)
		mask |= RFLAGS_IF;
	if (old == 0)
		mask |= RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_VIP;
	s->rflags = (s->rflags & ~mask) | (flags & mask) | RFLAGS_ONE;
	s->mode = cs_raw & DESC(AR_L) ? X86_MODE_LONG : X86_MODE_PROT32;
	s->cpl = cpl;
	s->rip = rip;
	s->gpr[REG_SP] = cs_raw & DESC(AR_L) ? rsp : (u32)rsp;
	if (cpl > old)
		drop_segments(s, cpl);
	if (unlikely(s->nmi_masked)) {
		s->nmi_masked = false;
		vcpu_set_request(&c->vcpu, REQ_EVENT);
	}
	return true;
}

/* ---- events ------------------------------------------------------------------------------------------------- */

bool lite_fast_event(struct lite_vcpu *c, const struct x86_event *ev)
{
	struct vcpu *vcpu = &c->vcpu;
	struct x86_state *s = &vcpu->x86;
	const struct x86_segment *tr = &s->seg[SEG_TR];
	u64 gate, high, target, cs_raw, rsp = s->gpr[REG_SP], rip = s->rip, flags = s->rflags;
	bool software = ev->type == X86_EVENT_SOFT_INT || ev->type == X86_EVENT_SOFT_EXC, inner;
	unsigned cpl, old = s->cpl, ist, at, total;
	int err = 0;
	u64 *frame;
	u16 sel;
	u8 *p;

	if (unlikely(!(s->efer & EFER_LMA) || s->mode < X86_MODE_PROT16 || c->watching ||
		     (ev->has_payload && ev->vector != VEC_PF && ev->type == X86_EVENT_EXCEPTION)))
		return false;
	/* Answers of the client that delivery may have asked for */
	if (unlikely(vcpu->io.nr_answered | vcpu->io.nr_writes | vcpu->io.batch.state | vcpu->msr_exit.state))
		return false;
	at = ev->vector * 16;
	if (unlikely(at + 15 > s->idt.limit))
		return false;
	p = lite_reach(c, &c->views[0], s->idt.base + at, 16, false);
	if (unlikely(!p))
		return false;
	gate = load64(p, &err);
	high = load64(p + 8, &err);
	/* Present, interrupt or trap gate (types 14 and 15) */
	if (unlikely(err || (gate >> 40 & 0x9e) != 0x8e || (software && (gate >> 45 & 3) < old)))
		return false;
	sel = gate >> 16;
	ist = gate >> 32 & 7;
	target = (gate & 0xffff) | (gate >> 48) << 16 | high << 32;
	/* The target: 64-bit, present, not conforming, accessed */
	if (unlikely(!x86_is_canonical(target, s->cr4) || !lite_read_desc(c, sel, &cs_raw) ||
		     (cs_raw & DESC(AR_S | AR_P | 13 | AR_L | AR_DB)) != DESC(AR_S | AR_P | 9 | AR_L)))
		return false;
	cpl = cs_raw >> 45 & 3;
	if (unlikely(cpl > old))
		return false;
	inner = cpl < old;
	if (ist || inner) {
		at = ist ? 36 + (ist - 1) * 8 : 4 + cpl * 8;
		if (unlikely(at + 7 > tr->limit))
			return false;
		p = lite_reach(c, &c->views[0], tr->base + at, 8, false);
		if (unlikely(!p))
			return false;
		rsp = load64(p, &err);
		if (unlikely(err || !x86_is_canonical(rsp, s->cr4)))
			return false;
	}
	if (software || ev->type == X86_EVENT_PRIV_SOFT)
		rip += ev->insn_len;
	if (s->mode != X86_MODE_LONG)
		rip = (u32)rip;
	/* A fault's image has RF so that it does not meet its breakpoint again (SDM 3B 17.3.1.1); INT n ended without. */
	if (ev->type == X86_EVENT_EXCEPTION && ev->vector != VEC_DB && ev->vector != VEC_DF && ev->vector != VEC_MC)
		flags |= RFLAGS_RF;
	else if (rip != s->rip)
		flags &= ~RFLAGS_RF;
	total = ev->has_error ? 48 : 40;
	rsp = (rsp & ~15ULL) - total;
	frame = (u64 *)lite_reach(c, &c->views[cpl == 3], rsp, total, true);
	if (unlikely(!frame))
		return false;
	if (ev->has_error)
		store64(frame++, ev->error, &err);
	store64(frame, rip, &err);
	store64(frame + 1, s->seg[SEG_CS].sel, &err);
	store64(frame + 2, flags, &err);
	store64(frame + 3, s->gpr[REG_SP], &err);
	store64(frame + 4, s->seg[SEG_SS].sel, &err);
	if (unlikely(err))
		return false;

	if (ev->type == X86_EVENT_EXCEPTION && ev->has_payload)
		s->cr2 = ev->payload;
	if (inner)
		s->seg[SEG_SS] = (struct x86_segment){ .sel = cpl, .ar = AR_UNUSABLE | cpl << AR_DPL_SHIFT };
	seg_from_desc(&s->seg[SEG_CS], (sel & ~3) | cpl, cs_raw);
	s->gpr[REG_SP] = rsp;
	s->rflags &= ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | (gate & BIT64(40) ? 0 : RFLAGS_IF));
	s->mode = X86_MODE_LONG;
	s->cpl = cpl;
	s->rip = target;
	s->shadow = 0;
	c->sti_rip = LITE_STI_NONE;
	vcpu->emul.tf_at_start = false;
	return true;
}

/* ---- SWAPGS, CLI, STI, PUSHF, POPF -------------------------------------------------------------------------- */

bool lite_fast_swapgs(struct lite_vcpu *c, unsigned len)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 base = s->seg[SEG_GS].base;

	if (unlikely(s->mode != X86_MODE_LONG || s->cpl))
		return false;
	s->seg[SEG_GS].base = s->kernel_gs_base;
	s->kernel_gs_base = base;
	insn_done(s, len);
	return true;
}

/* Whether CLI and STI mean IF here. */
static inline bool iopl_allows(const struct x86_state *s)
{
	return s->mode == X86_MODE_LONG && s->cpl <= (s->rflags & RFLAGS_IOPL) >> 12;
}

bool lite_fast_cli(struct lite_vcpu *c, unsigned len)
{
	struct x86_state *s = &c->vcpu.x86;

	if (unlikely(!iopl_allows(s)))
		return false;
	s->rflags &= ~RFLAGS_IF;
	insn_done(s, len);
	return true;
}

bool lite_fast_sti(struct lite_vcpu *c, unsigned len)
{
	struct x86_state *s = &c->vcpu.x86;

	if (unlikely(!iopl_allows(s)))
		return false;
	insn_done(s, len);
	if (!(s->rflags & RFLAGS_IF))
		c->sti_rip = s->rip;
	s->rflags |= RFLAGS_IF;
	return true;
}

/* At CPL 3 a misaligned stack may have to raise #AC. */
static inline bool stack_aligned(const struct x86_state *s)
{
	return !(s->gpr[REG_SP] & 7);
}

bool lite_fast_pushf(struct lite_vcpu *c, unsigned len)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 *p;
	int err = 0;

	if (unlikely(s->mode != X86_MODE_LONG || !stack_aligned(s)))
		return false;
	p = (u64 *)lite_reach(c, &c->views[s->cpl == 3], s->gpr[REG_SP] - 8, 8, true);
	if (unlikely(!p))
		return false;
	store64(p, s->rflags & ~(RFLAGS_VM | RFLAGS_RF), &err);
	if (unlikely(err))
		return false;
	s->gpr[REG_SP] -= 8;
	insn_done(s, len);
	return true;
}

bool lite_fast_popf(struct lite_vcpu *c, unsigned len)
{
	u64 flags, mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID;
	struct x86_state *s = &c->vcpu.x86;
	const u64 *p;
	int err = 0;

	if (unlikely(s->mode != X86_MODE_LONG || !stack_aligned(s)))
		return false;
	p = (const u64 *)lite_reach(c, &c->views[s->cpl == 3], s->gpr[REG_SP], 8, false);
	if (unlikely(!p))
		return false;
	flags = load64(p, &err);
	if (unlikely(err))
		return false;
	if (s->cpl == 0)
		mask |= RFLAGS_IOPL;
	if (iopl_allows(s))
		mask |= RFLAGS_IF;
	s->gpr[REG_SP] += 8;
	insn_done(s, len);
	s->rflags = (s->rflags & ~mask) | (flags & mask) | RFLAGS_ONE;
	return true;
}
