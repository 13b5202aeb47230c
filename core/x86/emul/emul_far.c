/*
 * Far transfers in every mode: JMP, CALL and RET through segments and call gates (SDM 3A 5.8), and
 * IRET (SDM 2A IRET). Task gates and TSSs as targets go on in emul_task.c.
 */
#include "core/x86/emul/emul_priv.h"

/* The operand: a direct pointer, or offset and selector in memory. */
static enum x86_result far_operand(struct emul *e, const struct insn *in, u64 *offset, u16 *sel)
{
	u64 la;
	u8 buf[10];

	if (in->op[0].kind == OPK_FAR) {
		*offset = in->imm & emul_mask(in->opsize);
		*sel = in->imm2;
		return X86_CONTINUE;
	}
	EMUL_TRY(emul_mem_la(e, in, in->opsize + 2, false, &la));
	EMUL_TRY(emul_read(e, la, buf, in->opsize + 2, 0));
	* offset = 0;
	memcpy(offset, buf, in->opsize);
	memcpy(sel, buf + in->opsize, 2);
	return X86_CONTINUE;
}

/* Code that a JMP or CALL names directly: its rights, present. */
static enum x86_result check_direct(struct emul *e, u16 sel, struct emul_desc *d)
{
	unsigned dpl = desc_dpl(d->raw), cpl = e->s->cpl;

	if (emul_long_active(e->s) && desc_long(d->raw) && desc_db(d->raw))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (desc_conforming(d->raw) ? dpl > cpl : SEL_RPL(sel) > cpl || dpl != cpl)
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(d->raw))
		return emul_fault_code(e, VEC_NP, SEL_ERROR(sel));
	return emul_desc_accessed(e, d);
}

/* Code that a call gate names. CALL may reach more privilege, JMP only conforming or equal. */
static enum x86_result check_gated(struct emul *e, u16 sel, bool call, struct emul_desc *d)
{
	unsigned dpl, cpl = e->s->cpl;

	if (SEL_NULL(sel))
		return emul_fault_code(e, VEC_GP, 0);
	EMUL_TRY(emul_read_desc(e, sel, VEC_GP, d));
	dpl = desc_dpl(d->raw);
	if (!desc_code(d->raw) || dpl > cpl || (!call && !desc_conforming(d->raw) && dpl != cpl))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (emul_long_active(e->s) && (!desc_long(d->raw) || desc_db(d->raw)))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(d->raw))
		return emul_fault_code(e, VEC_NP, SEL_ERROR(sel));
	return emul_desc_accessed(e, d);
}

/* The target is in the code segment @raw, or #GP(0). */
static enum x86_result check_ip(struct emul *e, u64 raw, u64 ip)
{
	return emul_ip_in_desc(e->s, raw, ip) ? X86_CONTINUE : emul_fault_code(e, VEC_GP, 0);
}

/* ---- call gates ----------------------------------------------------------------------------- */

struct gate {
	u64 offset;
	u16 sel;
	u8 size; /* of what a CALL pushes */
	u8 params;
};

static enum x86_result check_gate(struct emul *e, u16 sel, struct emul_desc *d, struct gate *g)
{
	const struct x86_state *s = e->s;

	if (desc_dpl(d->raw) < s->cpl || SEL_RPL(sel) > desc_dpl(d->raw))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(d->raw))
		return emul_fault_code(e, VEC_NP, SEL_ERROR(sel));
	EMUL_TRY(emul_read_desc_high(e, sel, VEC_GP, d));
	g->sel = d->raw >> 16;
	g->offset = (d->raw & 0xffff) | (desc_type(d->raw) & 8 ? (d->raw >> 48) << 16 : 0);
	g->params = (d->raw >> 32) & 31;
	g->size = desc_type(d->raw) & 8 ? 4 : 2;
	if (emul_long_active(s)) {
		g->offset |= d->high << 32;
		g->size = 8;
		g->params = 0;
	}
	return X86_CONTINUE;
}

static enum x86_result call_gate(struct emul *e, u16 gate_sel, struct emul_desc *d)
{
	struct x86_state *s = e->s;
	struct emul_desc cs, ss;
	struct emul_frame f;
	struct gate g;
	unsigned cpl, i;
	u64 v, rsp;
	u16 ss_sel;
	u32 sp;

	EMUL_TRY(check_gate(e, gate_sel, d, &g));
	EMUL_TRY(check_gated(e, g.sel, true, &cs));
	emul_frame_init(e, &f, g.size);
	cpl = s->cpl;
	if (!desc_conforming(cs.raw) && desc_dpl(cs.raw) < cpl) {
		cpl = desc_dpl(cs.raw);
		if (emul_long_active(s)) {
			EMUL_TRY(emul_tss_rsp(e, cpl, 0, &rsp));
			f.wide = true;
			f.width = 8;
			f.sp = rsp;
			f.error = 0;
		} else {
			EMUL_TRY(emul_tss_stack(e, cpl, &ss, &ss_sel, &sp));
			emul_seg_from_desc(&f.ss, ss_sel, ss.raw);
			f.width = desc_db(ss.raw) ? 4 : 2;
			f.sp = sp & emul_mask(f.width);
			f.error = SEL_ERROR(ss_sel);
		}
		f.acc = EMUL_ACC_SYSTEM;
		emul_frame_push(&f, s->seg[SEG_SS].sel);
		emul_frame_push(&f, s->gpr[REG_SP]);
		/* The first parameter is the deepest: copied as they lie. */
		for (i = g.params; i--;) {
			EMUL_TRY(emul_peek(e, i * g.size, g.size, &v));
			emul_frame_push(&f, v);
		}
	} else if (emul_long_active(s)) {
		f.wide = true; /* compatibility mode calls 64-bit code: SP is taken as 64 bits from
				  here on */
		f.width = 8;
		f.sp = s->gpr[REG_SP];
	}
	emul_frame_push(&f, s->seg[SEG_CS].sel);
	emul_frame_push(&f, e->next_rip);
	EMUL_TRY(check_ip(e, cs.raw, g.offset));
	EMUL_TRY(emul_frame_commit(e, &f));
	if (cpl != s->cpl) {
		if (emul_long_active(s))
			emul_seg_null_ss(&s->seg[SEG_SS], cpl);
		else
			s->seg[SEG_SS] = f.ss;
	}
	emul_set_sp(s, f.width, f.sp);
	emul_set_cs(e, g.sel, cs.raw, cpl, g.offset);
	return X86_CONTINUE;
}

static enum x86_result jump_gate(struct emul *e, u16 gate_sel, struct emul_desc *d)
{
	struct emul_desc cs;
	struct gate g;

	EMUL_TRY(check_gate(e, gate_sel, d, &g));
	EMUL_TRY(check_gated(e, g.sel, false, &cs));
	EMUL_TRY(check_ip(e, cs.raw, g.offset));
	emul_set_cs(e, g.sel, cs.raw, e->s->cpl, g.offset);
	return X86_CONTINUE;
}

/* ---- tasks ---------------------------------------------------------------------------------- */

/* The TSS that @sel names, by itself or (task gate @d) indirectly. */
static enum x86_result to_task(struct emul *e, u16 sel, struct emul_desc *d,
			       enum emul_task_cause cause)
{
	const struct x86_state *s = e->s;

	if (desc_dpl(d->raw) < s->cpl || SEL_RPL(sel) > desc_dpl(d->raw))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(d->raw))
		return emul_fault_code(e, VEC_NP, SEL_ERROR(sel));
	if (desc_type(d->raw) == DESC_TASK) {
		sel = d->raw >> 16;
		if (SEL_NULL(sel) || (sel & 4))
			return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
		EMUL_TRY(emul_read_desc(e, sel, VEC_GP, d));
		if (desc_s(d->raw) || (desc_type(d->raw) & ~8) != DESC_TSS16)
			return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
		if (!desc_present(d->raw))
			return emul_fault_code(e, VEC_NP, SEL_ERROR(sel));
	} else if (sel & 4) {
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	}
	return emul_task_switch(e, sel, d, cause, false, 0);
}

/* ---- JMP, CALL ------------------------------------------------------------------------------ */

static enum x86_result jump_real(struct emul *e, u16 sel, u64 offset)
{
	/* Virtual-8086 mode gives CS a fixed limit, real mode keeps it. */
	if (offset > (e->s->mode == X86_MODE_V86 ? 0xffff : e->s->seg[SEG_CS].limit))
		return emul_fault_code(e, VEC_GP, 0);
	emul_seg_real(e->s, SEG_CS, sel);
	e->next_rip = offset;
	emul_mode_changed(e);
	return X86_CONTINUE;
}

enum x86_result emul_jmp_far(struct emul *e, const struct insn *in)
{
	struct emul_desc d;
	u64 offset;
	u16 sel;

	EMUL_TRY(far_operand(e, in, &offset, &sel));
	if (!emul_protected(e->s))
		return jump_real(e, sel, offset);
	if (SEL_NULL(sel))
		return emul_fault_code(e, VEC_GP, 0);
	EMUL_TRY(emul_read_desc(e, sel, VEC_GP, &d));
	if (desc_code(d.raw)) {
		EMUL_TRY(check_direct(e, sel, &d));
		EMUL_TRY(check_ip(e, d.raw, offset));
		emul_set_cs(e, sel, d.raw, e->s->cpl, offset);
		return X86_CONTINUE;
	}
	if (desc_s(d.raw))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	switch (desc_type(d.raw)) {
	case DESC_CALL32: return jump_gate(e, sel, &d);
	case DESC_CALL16:
		if (!emul_long_active(e->s))
			return jump_gate(e, sel, &d);
		break;
	case DESC_TASK:
	case DESC_TSS16:
	case DESC_TSS32:
		if (!emul_long_active(e->s))
			return to_task(e, sel, &d, TASK_JMP);
		break;
	}
	return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
}

enum x86_result emul_call_far(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	struct emul_desc d;
	struct emul_frame f;
	u64 offset, next = e->next_rip;
	u16 sel;

	EMUL_TRY(far_operand(e, in, &offset, &sel));
	emul_frame_init(e, &f, in->opsize);
	emul_frame_push(&f, s->seg[SEG_CS].sel);
	emul_frame_push(&f, next);
	if (!emul_protected(s)) {
		if (offset > (s->mode == X86_MODE_V86 ? 0xffff : s->seg[SEG_CS].limit))
			return emul_fault_code(e, VEC_GP, 0);
		EMUL_TRY(emul_frame_commit(e, &f));
		emul_set_sp(s, f.width, f.sp);
		return jump_real(e, sel, offset);
	}
	if (SEL_NULL(sel))
		return emul_fault_code(e, VEC_GP, 0);
	EMUL_TRY(emul_read_desc(e, sel, VEC_GP, &d));
	if (desc_code(d.raw)) {
		EMUL_TRY(check_direct(e, sel, &d));
		EMUL_TRY(check_ip(e, d.raw, offset));
		EMUL_TRY(emul_frame_commit(e, &f));
		emul_set_sp(s, f.width, f.sp);
		emul_set_cs(e, sel, d.raw, s->cpl, offset);
		return X86_CONTINUE;
	}
	if (desc_s(d.raw))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	switch (desc_type(d.raw)) {
	case DESC_CALL32: return call_gate(e, sel, &d);
	case DESC_CALL16:
		if (!emul_long_active(s))
			return call_gate(e, sel, &d);
		break;
	case DESC_TASK:
	case DESC_TSS16:
	case DESC_TSS32:
		if (!emul_long_active(s))
			return to_task(e, sel, &d, TASK_CALL);
		break;
	}
	return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
}

/* ---- RET and IRET --------------------------------------------------------------------------- */

/* CS of a return: to the same or less privilege, by its RPL. */
static enum x86_result check_return_cs(struct emul *e, u16 sel, struct emul_desc *d)
{
	unsigned rpl = SEL_RPL(sel), dpl;

	if (SEL_NULL(sel))
		return emul_fault_code(e, VEC_GP, 0);
	EMUL_TRY(emul_read_desc(e, sel, VEC_GP, d));
	dpl = desc_dpl(d->raw);
	if (!desc_code(d->raw) || rpl < e->s->cpl ||
	    (desc_conforming(d->raw) ? dpl > rpl : dpl != rpl))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (emul_long_active(e->s) && desc_long(d->raw) && desc_db(d->raw))
		return emul_fault_code(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(d->raw))
		return emul_fault_code(e, VEC_NP, SEL_ERROR(sel));
	return emul_desc_accessed(e, d);
}

/* SS of a return; null is good for 64-bit code below privilege 3. */
static enum x86_result check_return_ss(struct emul *e, u16 sel, u64 cs_raw, unsigned cpl,
				       struct x86_segment *ss)
{
	struct emul_desc d;

	if (SEL_NULL(sel)) {
		if (!emul_long_active(e->s) || !desc_long(cs_raw) || cpl == 3 ||
		    SEL_RPL(sel) != cpl)
			return emul_fault_code(e, VEC_GP, 0);
		emul_seg_null_ss(ss, cpl);
		return X86_CONTINUE;
	}
	EMUL_TRY(emul_check_ss(e, sel, cpl, VEC_GP, &d));
	emul_seg_from_desc(ss, sel, d.raw);
	return X86_CONTINUE;
}

/* Commits a return that brings a new stack. */
static void return_outer(struct emul *e, u16 cs_sel, u64 cs_raw, u64 ip,
			 const struct x86_segment *ss, u64 sp)
{
	struct x86_state *s = e->s;
	unsigned cpl = SEL_RPL(cs_sel), old = s->cpl;

	s->seg[SEG_SS] = *ss;
	emul_set_cs(e, cs_sel, cs_raw, cpl, ip);
	emul_set_sp(s, emul_stack_size(s), sp);
	if (cpl > old)
		emul_drop_segments(s, cpl);
}

enum x86_result emul_ret_far(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	unsigned size = in->opsize, extra = in->nops ? (u16)in->imm : 0;
	struct x86_segment ss;
	struct emul_desc d;
	u64 ip, cs, sp, v;

	EMUL_TRY(emul_peek(e, 0, size, &ip));
	EMUL_TRY(emul_peek(e, size, size, &cs));
	cs = (u16)cs;
	if (!emul_protected(s)) {
		EMUL_TRY(jump_real(e, cs, ip));
		emul_add_sp(s, 2 * size + extra);
		return X86_CONTINUE;
	}
	EMUL_TRY(check_return_cs(e, cs, &d));
	if (SEL_RPL(cs) == s->cpl) {
		EMUL_TRY(check_ip(e, d.raw, ip));
		emul_add_sp(s, 2 * size + extra);
		emul_set_cs(e, cs, d.raw, s->cpl, ip);
		return X86_CONTINUE;
	}
	EMUL_TRY(emul_peek(e, 2 * size + extra, size, &sp));
	EMUL_TRY(emul_peek(e, 3 * size + extra, size, &v));
	EMUL_TRY(check_return_ss(e, v, d.raw, SEL_RPL(cs), &ss));
	EMUL_TRY(check_ip(e, d.raw, ip));
	return_outer(e, cs, d.raw, ip, &ss, sp);
	/* The parameters are dropped from the caller's stack too. */
	emul_add_sp(s, extra);
	return X86_CONTINUE;
}

#define IRET_16 (RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)
#define IRET_32 (IRET_16 | RFLAGS_RF | RFLAGS_AC | RFLAGS_ID)

static enum x86_result iret_done(struct emul *e)
{
	e->after |= EMUL_AFTER_KEEP_RF;
	if (e->s->nmi_masked) {
		e->s->nmi_masked = false;
		if (e->ops->nmi_unmasked)
			e->ops->nmi_unmasked(e);
	}
	return X86_CONTINUE;
}

static enum x86_result iret_real(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	unsigned size = in->opsize;
	u64 ip, cs, flags, mask = size == 2 ? IRET_16 : IRET_32;

	EMUL_TRY(emul_peek(e, 0, size, &ip));
	EMUL_TRY(emul_peek(e, size, size, &cs));
	EMUL_TRY(emul_peek(e, 2 * size, size, &flags));
	if (s->mode == X86_MODE_REAL) {
		mask |= RFLAGS_IF | RFLAGS_IOPL;
	} else if (emul_iopl(s) == 3) {
		mask |= RFLAGS_IF;
	} else {
		/* VME: IF of the image is VIF (SDM 3B 20.3.3.4). */
		if (!(s->cr4 & CR4_VME) || size != 2)
			return emul_fault_code(e, VEC_GP, 0);
		if ((flags & RFLAGS_TF) || ((flags & RFLAGS_IF) && (s->rflags & RFLAGS_VIP)))
			return emul_fault_code(e, VEC_GP, 0);
		flags |= emul_flag(flags & RFLAGS_IF, RFLAGS_VIF);
		mask |= RFLAGS_VIF;
	}
	EMUL_TRY(jump_real(e, cs, ip));
	emul_add_sp(s, 3 * size);
	s->rflags &= ~RFLAGS_RF;
	emul_set_flags(s, flags, mask);
	return iret_done(e);
}

/* From privilege 0 to virtual-8086 mode: nine values of 32 bits. */
static enum x86_result iret_to_v86(struct emul *e, const u64 head[3])
{
	static const u8 regs[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	struct x86_state *s = e->s;
	u64 sp, sel[ARRAY_SIZE(regs)];
	unsigned i;

	EMUL_TRY(emul_peek(e, 12, 4, &sp));
	for (i = 0; i < ARRAY_SIZE(regs); i++)
		EMUL_TRY(emul_peek(e, 16 + 4 * i, 4, &sel[i]));
	if (head[0] > 0xffff)
		return emul_fault_code(e, VEC_GP, 0);
	s->rflags = (head[2] & (IRET_32 | RFLAGS_IF | RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_VIP)) |
		    RFLAGS_VM | RFLAGS_ONE;
	emul_seg_real(s, SEG_CS, head[1]);
	for (i = 0; i < ARRAY_SIZE(regs); i++)
		emul_seg_real(s, regs[i], sel[i]);
	s->gpr[REG_SP] = (u32)sp;
	e->next_rip = head[0];
	emul_mode_changed(e);
	return iret_done(e);
}

/* NT: back to the task that the TSS links to. */
static enum x86_result iret_task(struct emul *e)
{
	struct emul_desc d;
	u64 link;

	EMUL_TRY(emul_read_int(e, (u32)e->s->seg[SEG_TR].base, 2, EMUL_ACC_SYSTEM, &link));
	if (SEL_NULL(link) || (link & 4))
		return emul_fault_code(e, VEC_TS, SEL_ERROR(link));
	EMUL_TRY(emul_read_desc(e, link, VEC_TS, &d));
	if (desc_s(d.raw) || (desc_type(d.raw) & ~8) != DESC_TSS16_BUSY)
		return emul_fault_code(e, VEC_TS, SEL_ERROR(link));
	if (!desc_present(d.raw))
		return emul_fault_code(e, VEC_NP, SEL_ERROR(link));
	EMUL_TRY(emul_task_switch(e, link, &d, TASK_IRET, false, 0));
	return iret_done(e);
}

enum x86_result emul_iret(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	unsigned size = in->opsize;
	struct x86_segment ss;
	struct emul_desc d;
	u64 head[3], sp, sel, mask = size == 2 ? IRET_16 : IRET_32;
	unsigned i;

	if (!emul_protected(s))
		return iret_real(e, in);
	if (s->rflags & RFLAGS_NT) {
		if (emul_long_active(s))
			return emul_fault_code(e, VEC_GP, 0);
		return iret_task(e);
	}
	for (i = 0; i < 3; i++)
		EMUL_TRY(emul_peek(e, i * size, size, &head[i]));
	head[1] = (u16)head[1];
	if (size == 4 && (head[2] & RFLAGS_VM) && s->cpl == 0 && !emul_long_active(s))
		return iret_to_v86(e, head);
	EMUL_TRY(check_return_cs(e, head[1], &d));
	if (s->cpl <= emul_iopl(s))
		mask |= RFLAGS_IF;
	if (s->cpl == 0) {
		mask |= RFLAGS_IOPL;
		if (size != 2)
			mask |= RFLAGS_VIF | RFLAGS_VIP;
	}
	if (SEL_RPL(head[1]) == s->cpl && s->mode != X86_MODE_LONG) {
		EMUL_TRY(check_ip(e, d.raw, head[0]));
		emul_add_sp(s, 3 * size);
		emul_set_cs(e, head[1], d.raw, s->cpl, head[0]);
	} else {
		EMUL_TRY(emul_peek(e, 3 * size, size, &sp));
		EMUL_TRY(emul_peek(e, 4 * size, size, &sel));
		EMUL_TRY(check_return_ss(e, sel, d.raw, SEL_RPL(head[1]), &ss));
		EMUL_TRY(check_ip(e, d.raw, head[0]));
		return_outer(e, head[1], d.raw, head[0], &ss, sp);
	}
	s->rflags &= ~RFLAGS_RF;
	emul_set_flags(s, head[2], mask);
	return iret_done(e);
}
