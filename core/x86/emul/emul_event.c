/*
 * Interrupts and exceptions through the IDT (SDM 3A chapter 6, SDM 3B 20.3 for virtual-8086 mode),
 * and INT n, INT3, INTO, INT1. Task gates go on in emul_task.c, the way back (IRET) is in
 * emul_iret.c.
 */
#include "core/x86/emul/emul_priv.h"

/* The EFLAGS that every delivery clears; IF falls with interrupt gates only. */
#define DELIVERY_CLEARS (RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM)

struct delivery {
	const struct x86_event *ev;
	bool software; /* INT n, INT3, INTO: the gate's DPL counts */
	u64 rip;       /* to return to */
	u64 flags;     /* to be pushed */
};

/* Faults push RF so that the instruction breakpoint that led here does not hit again (SDM
 * 3B 17.3.1.1). */
static bool is_fault(const struct x86_event *ev)
{
	return ev->type == X86_EVENT_EXCEPTION && ev->vector != VEC_DB && ev->vector != VEC_DF &&
	       ev->vector != VEC_MC;
}

/* ---- real mode and the redirected INT n of virtual-8086 mode -------------------------------- */

/* @table: linear address of the vector table. */
static enum x86_result deliver_real(struct emul *e, const struct delivery *d, u64 table)
{
	struct x86_state *s = e->s;
	struct emul_frame f;
	u64 entry;
	u16 ip, cs;

	EMUL_TRY(emul_read_int(e, (u32)(table + d->ev->vector * 4), 4, EMUL_ACC_SYSTEM, &entry));
	ip = entry;
	cs = entry >> 16;
	emul_frame_init(e, &f, 2);
	f.error = 0;
	emul_frame_push(&f, d->flags);
	emul_frame_push(&f, s->seg[SEG_CS].sel);
	emul_frame_push(&f, d->rip);
	if (ip > s->seg[SEG_CS].limit)
		return emul_fault_ext(e, VEC_GP, 0);
	EMUL_TRY(emul_frame_commit(e, &f));
	emul_set_sp(s, f.width, f.sp);
	emul_seg_real(s, SEG_CS, cs);
	e->next_rip = ip;
	return X86_CONTINUE;
}

/*
 * INT n in virtual-8086 mode: *@redirect when the task's bitmap sends it to the 8086 program's own
 * handler (SDM 3B 20.3.3).
 */
static enum x86_result check_v86_int(struct emul *e, u8 vector, bool *redirect)
{
	const struct x86_state *s = e->s;
	const struct x86_segment *tr = &s->seg[SEG_TR];
	u64 iomap, bits;

	* redirect = false;
	if (s->cr4 & CR4_VME) {
		if (tr->limit >= 103) {
			EMUL_TRY(emul_read_int(e, (u32)(tr->base + 102), 2, EMUL_ACC_SYSTEM,
					       &iomap));
			if (iomap >= 32 && iomap - 32 + vector / 8 <= tr->limit) {
				EMUL_TRY(emul_read_int(e, (u32)(tr->base + iomap - 32 + vector / 8),
						       1, EMUL_ACC_SYSTEM, &bits));
				*redirect = !(bits >> (vector & 7) & 1);
			}
		}
	}
	if (!*redirect && emul_iopl(s) < 3)
		return emul_fault_code(e, VEC_GP, 0);
	return X86_CONTINUE;
}

static enum x86_result deliver_redirected(struct emul *e, const struct delivery *d)
{
	struct x86_state *s = e->s;
	bool virtual_if = emul_iopl(s) < 3;
	struct delivery v = *d;

	if (virtual_if)
		v.flags = (v.flags & ~RFLAGS_IF) | RFLAGS_IOPL |
			  emul_flag(v.flags & RFLAGS_VIF, RFLAGS_IF);
	EMUL_TRY(deliver_real(e, &v, 0));
	s->rflags &= ~(RFLAGS_TF | RFLAGS_NT | (virtual_if ? RFLAGS_VIF : RFLAGS_IF));
	emul_mode_changed(e);
	return X86_CONTINUE;
}

/* ---- protected mode ------------------------------------------------------------------------- */

static enum x86_result deliver_task(struct emul *e, const struct delivery *d, u16 sel)
{
	struct emul_desc tss;
	u64 flags = e->s->rflags;
	enum x86_result r;

	if (SEL_NULL(sel) || (sel & 4))
		return emul_fault_ext(e, VEC_GP, SEL_ERROR(sel));
	EMUL_TRY(emul_read_desc(e, sel, VEC_GP, &tss));
	if (desc_s(tss.raw) || (desc_type(tss.raw) & ~8) != DESC_TSS16)
		return emul_fault_ext(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(tss.raw))
		return emul_fault_ext(e, VEC_NP, SEL_ERROR(sel));
	e->next_rip = d->rip;
	e->s->rflags = d->flags;
	r = emul_task_switch(e, sel, &tss, TASK_EVENT, d->ev->has_error, d->ev->error);
	if (r != X86_CONTINUE && !e->task_switched)
		e->s->rflags = flags;
	return r;
}

/* CS of a gate: present code that is not less privileged. */
static enum x86_result gate_target(struct emul *e, u16 sel, struct emul_desc *cs)
{
	if (SEL_NULL(sel))
		return emul_fault_ext(e, VEC_GP, 0);
	EMUL_TRY(emul_read_desc(e, sel, VEC_GP, cs));
	if (!desc_code(cs->raw) || desc_dpl(cs->raw) > e->s->cpl)
		return emul_fault_ext(e, VEC_GP, SEL_ERROR(sel));
	if (emul_long_active(e->s) && (!desc_long(cs->raw) || desc_db(cs->raw)))
		return emul_fault_ext(e, VEC_GP, SEL_ERROR(sel));
	if (!desc_present(cs->raw))
		return emul_fault_ext(e, VEC_NP, SEL_ERROR(sel));
	return X86_CONTINUE;
}

/* Error code of a fault in the IDT itself: the vector, IDT bit, EXT. */
static enum x86_result gate_fault(struct emul *e, u8 fault, u8 vector)
{
	return emul_fault_ext(e, fault, vector * 8 + 2);
}

static enum x86_result deliver_protected(struct emul *e, const struct delivery *d)
{
	struct x86_state *s = e->s;
	u8 vector = d->ev->vector;
	struct emul_desc cs, ss = { 0 };
	struct emul_frame f;
	unsigned type, cpl, size;
	u16 sel, ss_sel = 0;
	u64 gate;
	u32 ip, sp;
	bool vm = s->mode == X86_MODE_V86, inner;

	if (vector * 8 + 7 > s->idt.limit)
		return gate_fault(e, VEC_GP, vector);
	EMUL_TRY(emul_read_int(e, (u32)(s->idt.base + vector * 8), 8, EMUL_ACC_SYSTEM, &gate));
	type = desc_type(gate);
	if (desc_s(gate) || (type != DESC_TASK && (type & ~9) != DESC_INT16))
		return gate_fault(e, VEC_GP, vector);
	if (d->software && desc_dpl(gate) < s->cpl)
		return gate_fault(e, VEC_GP, vector);
	if (!desc_present(gate))
		return gate_fault(e, VEC_NP, vector);
	sel = gate >> 16;
	if (type == DESC_TASK)
		return deliver_task(e, d, sel);

	ip = (gate & 0xffff) | (type & 8 ? (gate >> 48) << 16 : 0);
	size = type & 8 ? 4 : 2;
	EMUL_TRY(gate_target(e, sel, &cs));
	inner = !desc_conforming(cs.raw) && desc_dpl(cs.raw) < s->cpl;
	cpl = inner ? desc_dpl(cs.raw) : s->cpl;
	/* Virtual-8086 mode is left for privilege 0 only. */
	if (vm && (!inner || cpl))
		return emul_fault_ext(e, VEC_GP, SEL_ERROR(sel));
	EMUL_TRY(emul_desc_accessed(e, &cs));
	emul_frame_init(e, &f, size);
	if (inner) {
		EMUL_TRY(emul_tss_stack(e, cpl, &ss, &ss_sel, &sp));
		emul_seg_from_desc(&f.ss, ss_sel, ss.raw);
		f.width = desc_db(ss.raw) ? 4 : 2;
		f.sp = sp & emul_mask(f.width);
		f.acc = EMUL_ACC_SYSTEM;
		f.rights = true;
		f.error = SEL_ERROR(ss_sel) | e->ext;
		if (vm) {
			emul_frame_push(&f, s->seg[SEG_GS].sel);
			emul_frame_push(&f, s->seg[SEG_FS].sel);
			emul_frame_push(&f, s->seg[SEG_DS].sel);
			emul_frame_push(&f, s->seg[SEG_ES].sel);
		}
		emul_frame_push(&f, s->seg[SEG_SS].sel);
		emul_frame_push(&f, s->gpr[REG_SP]);
	}
	emul_frame_push(&f, d->flags);
	emul_frame_push(&f, s->seg[SEG_CS].sel);
	emul_frame_push(&f, d->rip);
	if (d->ev->has_error)
		emul_frame_push(&f, d->ev->error);
	if (ip > desc_limit(cs.raw))
		return emul_fault_ext(e, VEC_GP, 0);
	EMUL_TRY(emul_frame_commit(e, &f));

	if (inner)
		s->seg[SEG_SS] = f.ss;
	emul_set_sp(s, f.width, f.sp);
	if (vm) {
		emul_seg_null(&s->seg[SEG_ES], 0);
		emul_seg_null(&s->seg[SEG_DS], 0);
		emul_seg_null(&s->seg[SEG_FS], 0);
		emul_seg_null(&s->seg[SEG_GS], 0);
	}
	s->rflags &= ~(DELIVERY_CLEARS | (type & 1 ? 0 : RFLAGS_IF));
	emul_set_cs(e, sel, cs.raw, cpl, ip);
	return X86_CONTINUE;
}

/* ---- long mode, SDM 3A 6.14 ----------------------------------------------------------------- */

static enum x86_result deliver_long(struct emul *e, const struct delivery *d)
{
	struct x86_state *s = e->s;
	u8 vector = d->ev->vector;
	struct emul_desc cs;
	struct emul_frame f;
	u64 gate[2], rip, rsp = s->gpr[REG_SP];
	unsigned type, cpl, ist;
	u16 sel;
	bool inner;

	if (vector * 16 + 15 > s->idt.limit)
		return gate_fault(e, VEC_GP, vector);
	EMUL_TRY(emul_read(e, s->idt.base + vector * 16, gate, 16, EMUL_ACC_SYSTEM));
	type = desc_type(gate[0]);
	if (desc_s(gate[0]) || (type & ~1) != DESC_INT32)
		return gate_fault(e, VEC_GP, vector);
	if (d->software && desc_dpl(gate[0]) < s->cpl)
		return gate_fault(e, VEC_GP, vector);
	if (!desc_present(gate[0]))
		return gate_fault(e, VEC_NP, vector);
	sel = gate[0] >> 16;
	ist = (gate[0] >> 32) & 7;
	rip = (gate[0] & 0xffff) | (gate[0] >> 48) << 16 | gate[1] << 32;
	EMUL_TRY(gate_target(e, sel, &cs));
	inner = !desc_conforming(cs.raw) && desc_dpl(cs.raw) < s->cpl;
	cpl = inner ? desc_dpl(cs.raw) : s->cpl;
	EMUL_TRY(emul_desc_accessed(e, &cs));
	if (ist || inner)
		EMUL_TRY(emul_tss_rsp(e, cpl, ist, &rsp));
	emul_frame_init(e, &f, 8);
	f.wide = true;
	f.width = 8;
	f.sp = rsp & ~15ULL;
	f.acc = cpl < 3 && s->cpl == 3 ? EMUL_ACC_SYSTEM : 0;
	f.error = e->ext;
	emul_frame_push(&f, s->seg[SEG_SS].sel);
	emul_frame_push(&f, s->gpr[REG_SP]);
	emul_frame_push(&f, d->flags);
	emul_frame_push(&f, s->seg[SEG_CS].sel);
	emul_frame_push(&f, d->rip);
	if (d->ev->has_error)
		emul_frame_push(&f, d->ev->error);
	if (!emul_canonical(s, rip))
		return emul_fault_ext(e, VEC_GP, 0);
	EMUL_TRY(emul_frame_commit(e, &f));

	if (inner)
		emul_seg_null_ss(&s->seg[SEG_SS], cpl);
	s->gpr[REG_SP] = f.sp;
	s->rflags &= ~(DELIVERY_CLEARS | (type & 1 ? 0 : RFLAGS_IF));
	emul_set_cs(e, sel, cs.raw, cpl, rip);
	return X86_CONTINUE;
}

/* ---- any mode ------------------------------------------------------------------------------- */

enum x86_result emul_event_once(struct emul *e, const struct x86_event *ev)
{
	struct x86_state *s = e->s;
	struct delivery d = { .ev = ev, .rip = s->rip, .flags = s->rflags };
	bool redirect;

	d.software = ev->type == X86_EVENT_SOFT_INT || ev->type == X86_EVENT_SOFT_EXC;
	e->ext = !d.software;
	e->task_switched = false;
	if (d.software || ev->type == X86_EVENT_PRIV_SOFT)
		d.rip += ev->insn_len;
	if (s->mode != X86_MODE_LONG)
		d.rip = (u32)d.rip;
	if (is_fault(ev))
		d.flags |= RFLAGS_RF;
	else if (d.rip != s->rip)
		d.flags &=
			~RFLAGS_RF; /* INT n has ended, as every instruction ends, with RF clear */
	if (s->mode == X86_MODE_REAL) {
		/* No error codes here: of faults in delivery, either. */
		if (ev->vector * 4 + 3 > s->idt.limit)
			return emul_fault_ext(e, VEC_GP, ev->vector * 8 + 2);
		EMUL_TRY(deliver_real(e, &d, s->idt.base));
		s->rflags &= ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
		emul_mode_changed(e);
		return X86_CONTINUE;
	}
	if (emul_long_active(s))
		return deliver_long(e, &d);
	if (s->mode == X86_MODE_V86 && ev->type == X86_EVENT_SOFT_INT) {
		EMUL_TRY(check_v86_int(e, ev->vector, &redirect));
		if (redirect)
			return deliver_redirected(e, &d);
	}
	return deliver_protected(e, &d);
}

/* What an exception brings besides its vector; done before delivery, as the CPU does: a fault in
 * delivery finds it. */
static void apply_payload(struct x86_state *s, const struct x86_event *ev)
{
	if (ev->type != X86_EVENT_EXCEPTION || !ev->has_payload)
		return;
	if (ev->vector == VEC_PF) {
		s->cr2 = ev->payload;
	} else if (ev->vector == VEC_DB) {
		/* B0..B3 are replaced, BD, BS and BT accumulate; RTM and BLD are active low (SDM
		 * 3B 17.2.3). */
		s->dr6 = (s->dr6 & ~15ULL) | DR6_FIXED_1;
		s->dr6 |= ev->payload & 0xe00f;
		s->dr6 &= ~(ev->payload & 0x10800);
		s->dr7 &= ~DR7_GD;
	}
}

/* SDM 3A table 6-4 */
static bool is_contributory(const struct x86_event *ev)
{
	return ev->type == X86_EVENT_EXCEPTION &&
	       (ev->vector == VEC_DE || (ev->vector >= VEC_TS && ev->vector <= VEC_GP));
}

static bool is_exception(const struct x86_event *ev, u8 vector)
{
	return ev->type == X86_EVENT_EXCEPTION && ev->vector == vector;
}

/* SDM 3A table 6-5: @second happened while @first was delivered. Replaces @first; false: shutdown.
 */
static bool merge(struct x86_event *first, const struct x86_event *second)
{
	bool bad = is_contributory(second) || is_exception(second, VEC_PF);

	if (is_exception(first, VEC_DF) && bad)
		return false;
	if ((is_contributory(first) && is_contributory(second)) ||
	    (is_exception(first, VEC_PF) && bad)) {
		*first = (struct x86_event){ .vector = VEC_DF,
					     .type = X86_EVENT_EXCEPTION,
					     .has_error = true };
		return true;
	}
	* first = *second;
	return true;
}

enum x86_result emul_deliver_event(struct emul *e, const struct x86_event *ev)
{
	struct x86_event cur = *ev;
	enum x86_result r;

	for (;;) {
		apply_payload(e->s, &cur);
		e->after = 0;
		r = emul_event_once(e, &cur);
		if (r != X86_FAULT)
			break;
		if (!merge(&cur, &e->fault))
			return X86_SHUTDOWN;
	}
	if (r == X86_CONTINUE || r == X86_EXIT) {
		e->s->rip = e->next_rip;
		e->s->shadow = 0;
		e->tf_at_start = false;
		r = X86_CONTINUE;
	}
	return r;
}

enum x86_result emul_soft_event(struct emul *e, const struct insn *in, u8 vector, u8 type)
{
	struct x86_event ev = { .vector = vector, .type = type, .insn_len = in->len };

	EMUL_TRY(emul_event_once(e, &ev));
	/* Delivery cleared TF: no single-step trap after the instruction. */
	e->tf_at_start = false;
	return X86_CONTINUE;
}

enum x86_result emul_int(struct emul *e, const struct insn *in)
{
	return emul_soft_event(e, in, in->imm, X86_EVENT_SOFT_INT);
}

enum x86_result emul_int3(struct emul *e, const struct insn *in)
{
	return emul_soft_event(e, in, VEC_BP, X86_EVENT_SOFT_EXC);
}

enum x86_result emul_into(struct emul *e, const struct insn *in)
{
	return e->s->rflags & RFLAGS_OF ? emul_soft_event(e, in, VEC_OF, X86_EVENT_SOFT_EXC)
					: X86_CONTINUE;
}

enum x86_result emul_int1(struct emul *e, const struct insn *in)
{
	return emul_soft_event(e, in, VEC_DB, X86_EVENT_PRIV_SOFT);
}
