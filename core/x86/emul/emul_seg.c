/*
 * Segments: descriptors in memory (SDM 3A 3.4.5, 3.5), the rules for loading each segment register
 * (SDM 3A 5.5 to 5.7), the instructions that load, store and inspect selectors, and the stacks that
 * a TSS holds.
 */
#include "core/x86/emul/emul_priv.h"

/* ---- descriptors ---------------------------------------------------------------------------- */

/* *@la and whether @bytes at @sel lie in its table. */
static bool desc_address(const struct x86_state *s, u16 sel, unsigned bytes, u64 *la)
{
	u64 base = s->gdt.base;
	u32 limit = s->gdt.limit;

	if (sel & 4) {
		if (s->seg[SEG_LDTR].ar & AR_UNUSABLE)
			return false;
		base = s->seg[SEG_LDTR].base;
		limit = s->seg[SEG_LDTR].limit;
	}
	* la = base + (sel & ~7);
	if (!emul_long_active(s))
		*la = (u32)*la;
	return (u32)(sel & ~7) + bytes - 1 <= limit;
}

enum x86_result emul_read_desc(struct emul *e, u16 sel, u8 vector, struct emul_desc *d)
{
	if (!desc_address(e->s, sel, 8, &d->la))
		return emul_fault_ext(e, vector, SEL_ERROR(sel));
	d->high = 0;
	return emul_read_int(e, d->la, 8, EMUL_ACC_SYSTEM, &d->raw);
}

enum x86_result emul_read_desc_high(struct emul *e, u16 sel, u8 vector, struct emul_desc *d)
{
	u64 la;

	if (!emul_long_active(e->s))
		return X86_CONTINUE;
	if (!desc_address(e->s, sel, 16, &la))
		return emul_fault_ext(e, vector, SEL_ERROR(sel));
	EMUL_TRY(emul_read_int(e, d->la + 8, 8, EMUL_ACC_SYSTEM, &d->high));
	/* The type field of the second half must be zero (SDM 3A figure 5-8, 7-4). */
	if (d->high >> 40 & 0x1f)
		return emul_fault_ext(e, vector, SEL_ERROR(sel));
	return X86_CONTINUE;
}

static enum x86_result desc_change(struct emul *e, struct emul_desc *d, u64 set, u64 clear)
{
	u64 old = d->raw, new;
	bool done;

	do {
		new = (old | set) & ~clear;
		EMUL_TRY(emul_done(e, e->ops->cmpxchg(e, d->la, &old, &new, 8,
						      EMUL_ACC_SYSTEM | EMUL_ACC_LOCKED, &done)));
	} while (!done);
	d->raw = new;
	return X86_CONTINUE;
}

enum x86_result emul_desc_accessed(struct emul *e, struct emul_desc *d)
{
	if (!desc_s(d->raw) || (d->raw & BIT64(40)))
		return X86_CONTINUE;
	return desc_change(e, d, BIT64(40), 0);
}

enum x86_result emul_desc_busy(struct emul *e, struct emul_desc *d, bool busy)
{
	return desc_change(e, d, busy ? BIT64(41) : 0, busy ? 0 : BIT64(41));
}

void emul_seg_from_desc(struct x86_segment *seg, u16 sel, u64 raw)
{
	seg->sel = sel;
	seg->base = desc_base(raw);
	seg->limit = desc_limit(raw);
	seg->ar = desc_ar(raw);
}

void emul_seg_null(struct x86_segment *seg, u16 sel)
{
	* seg = (struct x86_segment){ .sel = sel, .ar = AR_UNUSABLE };
}

void emul_seg_null_ss(struct x86_segment *seg, unsigned cpl)
{
	* seg = (struct x86_segment){ .sel = cpl, .ar = AR_UNUSABLE | cpl << AR_DPL_SHIFT };
}

/* Real mode keeps limit and rights as they are ("unreal" mode); virtual-8086 mode has fixed ones
 * (SDM 3B 20.2.1). */
void emul_seg_real(struct x86_state *s, unsigned reg, u16 sel)
{
	struct x86_segment *seg = &s->seg[reg];

	seg->sel = sel;
	seg->base = (u32)sel << 4;
	if (s->rflags & RFLAGS_VM) {
		seg->limit = 0xffff;
		seg->ar = 3 | AR_S | AR_DPL | AR_P;
	} else {
		seg->ar &= ~AR_UNUSABLE;
	}
}

/* ---- loading -------------------------------------------------------------------------------- */

enum x86_result emul_check_ss(struct emul *e, u16 sel, unsigned cpl, u8 vector, struct emul_desc *d)
{
	EMUL_TRY(emul_read_desc(e, sel, vector, d));
	if (SEL_RPL(sel) != cpl || !desc_writable_data(d->raw) || desc_dpl(d->raw) != cpl)
		return emul_fault_ext(e, vector, SEL_ERROR(sel));
	if (!desc_present(d->raw))
		return emul_fault_ext(e, VEC_SS, SEL_ERROR(sel));
	return emul_desc_accessed(e, d);
}

enum x86_result emul_check_sreg(struct emul *e, unsigned reg, u16 sel, unsigned cpl, u8 vector,
				struct x86_segment *out)
{
	struct emul_desc d;

	if (reg == SEG_SS) {
		/* 64-bit mode allows a null SS below CPL 3 (SDM 3A 5.4.1.1). */
		if (SEL_NULL(sel)) {
			if (e->s->mode != X86_MODE_LONG || cpl == 3 || SEL_RPL(sel) != cpl)
				return emul_fault_ext(e, vector, 0);
			emul_seg_null_ss(out, cpl);
			return X86_CONTINUE;
		}
		EMUL_TRY(emul_check_ss(e, sel, cpl, vector, &d));
	} else {
		if (SEL_NULL(sel)) {
			emul_seg_null(out, sel);
			return X86_CONTINUE;
		}
		EMUL_TRY(emul_read_desc(e, sel, vector, &d));
		if (!desc_s(d.raw) || (desc_type(d.raw) & 10) == 8)
			return emul_fault_ext(e, vector, SEL_ERROR(sel));
		if ((!desc_code(d.raw) || !desc_conforming(d.raw)) &&
		    (SEL_RPL(sel) > desc_dpl(d.raw) || cpl > desc_dpl(d.raw)))
			return emul_fault_ext(e, vector, SEL_ERROR(sel));
		if (!desc_present(d.raw))
			return emul_fault_ext(e, VEC_NP, SEL_ERROR(sel));
		EMUL_TRY(emul_desc_accessed(e, &d));
	}
	emul_seg_from_desc(out, sel, d.raw);
	return X86_CONTINUE;
}

enum x86_result emul_load_sreg(struct emul *e, unsigned reg, u16 sel)
{
	struct x86_state *s = e->s;

	if (!emul_protected(s))
		emul_seg_real(s, reg, sel);
	else
		EMUL_TRY(emul_check_sreg(e, reg, sel, s->cpl, VEC_GP, &s->seg[reg]));
	emul_mode_changed(e);
	return X86_CONTINUE;
}

enum x86_result emul_mov_sreg(struct emul *e, const struct insn *in)
{
	u64 v;

	if (in->op[0].kind != OPK_SREG)
		return emul_put(e, in, 0, e->s->seg[in->op[1].reg].sel);
	EMUL_TRY(emul_get(e, in, 1, &v));
	EMUL_TRY(emul_load_sreg(e, in->op[0].reg, v));
	if (in->op[0].reg == SEG_SS)
		e->after |= SHADOW_MOVSS;
	return X86_CONTINUE;
}

enum x86_result emul_push_sreg(struct emul *e, const struct insn *in)
{
	return emul_push(e, in->opsize, e->s->seg[in->op[0].reg].sel);
}

enum x86_result emul_pop_sreg(struct emul *e, const struct insn *in)
{
	struct x86_segment seg;
	u64 v;

	/* SP moves in the width of the old SS: all but the last step first. */
	EMUL_TRY(emul_peek(e, 0, in->opsize, &v));
	if (emul_protected(e->s)) {
		EMUL_TRY(emul_check_sreg(e, in->op[0].reg, v, e->s->cpl, VEC_GP, &seg));
		emul_add_sp(e->s, in->opsize);
		e->s->seg[in->op[0].reg] = seg;
	} else {
		emul_add_sp(e->s, in->opsize);
		emul_seg_real(e->s, in->op[0].reg, v);
	}
	emul_mode_changed(e);
	if (in->op[0].reg == SEG_SS)
		e->after |= SHADOW_MOVSS;
	return X86_CONTINUE;
}

/* LES, LDS, LSS, LFS, LGS: offset, then selector. */
enum x86_result emul_load_far(struct emul *e, const struct insn *in)
{
	static const u8 reg_of[] = {
		[MN_LES - MN_LES] = SEG_ES, [MN_LDS - MN_LES] = SEG_DS, [MN_LSS - MN_LES] = SEG_SS,
		[MN_LFS - MN_LES] = SEG_FS, [MN_LGS - MN_LES] = SEG_GS,
	};
	unsigned size = in->op[0].size;
	u64 ea = emul_effective_address(e, in), la, offset = 0;
	u8 buf[10];
	u16 sel;

	EMUL_TRY(emul_linear(e, in->mem.seg, ea, size + 2, false, &la));
	EMUL_TRY(emul_read(e, la, buf, size + 2, 0));
	memcpy(&offset, buf, size);
	memcpy(&sel, buf + size, 2);
	EMUL_TRY(emul_load_sreg(e, reg_of[in->mnemonic - MN_LES], sel));
	emul_put_reg(e, &in->op[0], offset);
	return X86_CONTINUE;
}

/* ---- what a transfer needs ------------------------------------------------------------------ */

enum x86_result emul_tss_stack(struct emul *e, unsigned cpl, struct emul_desc *ss_desc, u16 *ss,
			       u32 *sp)
{
	const struct x86_segment *tr = &e->s->seg[SEG_TR];
	unsigned size = tr->ar & 8 ? 4 : 2, offset = size == 4 ? 4 + cpl * 8 : 2 + cpl * 4;
	u64 v;

	if (offset + size + 1 > tr->limit)
		return emul_fault_ext(e, VEC_TS, SEL_ERROR(tr->sel));
	EMUL_TRY(emul_read_int(e, (u32)(tr->base + offset), size, EMUL_ACC_SYSTEM, &v));
	* sp = v;
	EMUL_TRY(emul_read_int(e, (u32)(tr->base + offset + size), 2, EMUL_ACC_SYSTEM, &v));
	* ss = v;
	if (SEL_NULL(*ss))
		return emul_fault_ext(e, VEC_TS, 0);
	return emul_check_ss(e, *ss, cpl, VEC_TS, ss_desc);
}

enum x86_result emul_tss_rsp(struct emul *e, unsigned cpl, unsigned ist, u64 *rsp)
{
	const struct x86_segment *tr = &e->s->seg[SEG_TR];
	unsigned offset = ist ? 36 + (ist - 1) * 8 : 4 + cpl * 8;

	if (offset + 7 > tr->limit)
		return emul_fault_ext(e, VEC_TS, SEL_ERROR(tr->sel));
	EMUL_TRY(emul_read_int(e, tr->base + offset, 8, EMUL_ACC_SYSTEM, rsp));
	if (!emul_canonical(e->s, *rsp))
		return emul_fault_ext(e, VEC_SS, 0);
	return X86_CONTINUE;
}

bool emul_ip_in_desc(const struct x86_state *s, u64 raw, u64 ip)
{
	if (emul_long_active(s) && desc_long(raw))
		return emul_canonical(s, ip);
	return ip <= desc_limit(raw);
}

void emul_set_cs(struct emul *e, u16 sel, u64 raw, unsigned cpl, u64 ip)
{
	emul_seg_from_desc(&e->s->seg[SEG_CS], (sel & ~3) | cpl, raw);
	e->next_rip = ip;
	emul_mode_changed(e);
}

void emul_drop_segments(struct x86_state *s, unsigned cpl)
{
	static const u8 regs[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		struct x86_segment *seg = &s->seg[regs[i]];
		bool conforming = (seg->ar & AR_S) && (seg->ar & 12) == 12;

		if (!(seg->ar & AR_UNUSABLE) && !conforming &&
		    (seg->ar & AR_DPL) >> AR_DPL_SHIFT < cpl)
			emul_seg_null(seg, 0);
	}
}

/* ---- inspecting ----------------------------------------------------------------------------- */

/* The first half of LAR, LSL, VERR, VERW: false when the selector names nothing that may be seen.
 */
static enum x86_result inspect(struct emul *e, u16 sel, bool *visible, u64 *raw)
{
	const struct x86_state *s = e->s;
	u64 la;

	* visible = false;
	if (SEL_NULL(sel) || !desc_address(s, sel, 8, &la))
		return X86_CONTINUE;
	EMUL_TRY(emul_read_int(e, la, 8, EMUL_ACC_SYSTEM, raw));
	* visible = (desc_code(*raw) && desc_conforming(*raw)) ||
		   (desc_dpl(*raw) >= s->cpl && desc_dpl(*raw) >= SEL_RPL(sel));
	return X86_CONTINUE;
}

/* System types that LAR and LSL accept, by bit number (SDM 2A LAR tables 3-53, LSL 3-56). */
static u32 system_types(const struct x86_state *s, bool limit)
{
	if (emul_long_active(s))
		return limit ? 1U << 2 | 1U << 9 | 1U << 11
			     : 1U << 2 | 1U << 9 | 1U << 11 | 1U << 12;
	return limit ? 0x0a0e : 0x1a3e;
}

static enum x86_result zf_result(struct emul *e, bool ok)
{
	emul_set_flags(e->s, emul_flag(ok, RFLAGS_ZF), RFLAGS_ZF);
	return X86_CONTINUE;
}

static enum x86_result lar_lsl(struct emul *e, const struct insn *in, bool limit)
{
	u64 sel, raw = 0;
	bool visible;

	EMUL_TRY(emul_get(e, in, 1, &sel));
	EMUL_TRY(inspect(e, sel, &visible, &raw));
	if (visible && !desc_s(raw))
		visible = system_types(e->s, limit) >> desc_type(raw) & 1;
	if (visible)
		emul_put_reg(e, &in->op[0], limit ? desc_limit(raw) : (raw >> 32) & 0x00ffff00);
	return zf_result(e, visible);
}

enum x86_result emul_lar(struct emul *e, const struct insn *in)
{
	return lar_lsl(e, in, false);
}

enum x86_result emul_lsl(struct emul *e, const struct insn *in)
{
	return lar_lsl(e, in, true);
}

/* VERR, VERW */
enum x86_result emul_verr(struct emul *e, const struct insn *in)
{
	u64 sel, raw = 0;
	bool ok;

	EMUL_TRY(emul_get(e, in, 0, &sel));
	EMUL_TRY(inspect(e, sel, &ok, &raw));
	ok = ok && desc_s(raw);
	if (ok && in->mnemonic == MN_VERW)
		ok = desc_writable_data(raw);
	else if (ok)
		ok = (desc_type(raw) & 10) != 8;
	return zf_result(e, ok);
}

enum x86_result emul_arpl(struct emul *e, const struct insn *in)
{
	u64 dst, src, rpl;

	EMUL_TRY(emul_get(e, in, 0, &dst));
	EMUL_TRY(emul_get(e, in, 1, &src));
	rpl = SEL_RPL(src);
	if (SEL_RPL(dst) < rpl)
		EMUL_TRY(emul_put(e, in, 0, (dst & ~3ULL) | rpl));
	return zf_result(e, SEL_RPL(dst) < rpl);
}

/* ---- LDTR and TR ---------------------------------------------------------------------------- */

enum x86_result emul_sldt(struct emul *e, const struct insn *in)
{
	return emul_put(e, in, 0, e->s->seg[SEG_LDTR].sel);
}

enum x86_result emul_str(struct emul *e, const struct insn *in)
{
	return emul_put(e, in, 0, e->s->seg[SEG_TR].sel);
}

/* A system segment: in long mode the base has 64 bits, and must be canonical. */
static enum x86_result load_system(struct emul *e, u16 sel, struct emul_desc *d,
				   struct x86_segment *out)
{
	EMUL_TRY(emul_read_desc_high(e, sel, VEC_GP, d));
	emul_seg_from_desc(out, sel, d->raw);
	out->base |= d->high << 32;
	if (emul_long_active(e->s) && !emul_canonical(e->s, out->base))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	return X86_CONTINUE;
}

enum x86_result emul_lldt(struct emul *e, const struct insn *in)
{
	struct x86_segment seg;
	struct emul_desc d;
	u64 sel;

	EMUL_TRY(emul_get(e, in, 0, &sel));
	if (SEL_NULL(sel)) {
		emul_seg_null(&e->s->seg[SEG_LDTR], sel);
		return X86_CONTINUE;
	}
	if (sel & 4)
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	EMUL_TRY(emul_read_desc(e, sel, VEC_GP, &d));
	if (desc_s(d.raw) || desc_type(d.raw) != DESC_LDT)
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(d.raw))
		return emul_fault_code(e, VEC_NP, SEL_ERROR(sel));
	EMUL_TRY(load_system(e, sel, &d, &seg));
	e->s->seg[SEG_LDTR] = seg;
	return X86_CONTINUE;
}

enum x86_result emul_ltr(struct emul *e, const struct insn *in)
{
	struct x86_segment seg;
	struct emul_desc d;
	unsigned type;
	u64 sel;

	EMUL_TRY(emul_get(e, in, 0, &sel));
	if (SEL_NULL(sel))
		return emul_fault_code(e, VEC_GP, 0);
	if (sel & 4)
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	EMUL_TRY(emul_read_desc(e, sel, VEC_GP, &d));
	type = desc_type(d.raw);
	if (desc_s(d.raw) ||
	    !(type == DESC_TSS32 || (type == DESC_TSS16 && !emul_long_active(e->s))))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(d.raw))
		return emul_fault_code(e, VEC_NP, SEL_ERROR(sel));
	EMUL_TRY(load_system(e, sel, &d, &seg));
	EMUL_TRY(emul_desc_busy(e, &d, true));
	seg.ar |= 2;
	e->s->seg[SEG_TR] = seg;
	return X86_CONTINUE;
}
