/*
 * Hardware task switches between 16- and 32-bit TSSs (SDM 3A chapter 7). Up to the commit point
 * nothing has changed; a fault after it belongs to the new task (SDM 3A 7.3).
 */
#include "core/x86/emul/emul_priv.h"

/* Offsets in the TSS, SDM 3A figures 7-2 and 7-10. */
#define TSS32_CR3   0x1c
#define TSS32_EIP   0x20
#define TSS32_LDT   0x60
#define TSS32_TRAP  0x64
#define TSS32_LIMIT 103
#define TSS16_IP    0x0e
#define TSS16_LDT   0x2a
#define TSS16_LIMIT 43

/* A task's registers as both kinds of TSS keep them. */
struct task {
	u32 ip, flags, gpr[8], cr3;
	u16 sel[6], ldt; /* by SEG_* */
	bool trap;
};

/* The image from EIP (IP) on; returns its length. */
static unsigned store_image(const struct task *t, bool wide, u8 *buf)
{
	unsigned i;

	if (wide) {
		memcpy(buf, &t->ip, 4);
		memcpy(buf + 4, &t->flags, 4);
		memcpy(buf + 8, t->gpr, 32);
		for (i = 0; i < 6; i++) {
			memcpy(buf + 40 + 4 * i, &t->sel[i], 2);
			memset(buf + 42 + 4 * i, 0, 2);
		}
		return 64;
	}
	memcpy(buf, &t->ip, 2);
	memcpy(buf + 2, &t->flags, 2);
	for (i = 0; i < 8; i++)
		memcpy(buf + 4 + 2 * i, &t->gpr[i], 2);
	for (i = 0; i < 4; i++)
		memcpy(buf + 20 + 2 * i, &t->sel[i], 2);
	return 28;
}

static enum x86_result load_image(struct emul *e, u32 base, bool wide, struct task *t)
{
	u8 buf[64];
	u64 v;
	unsigned i;

	memset(t, 0, sizeof(*t));
	if (wide) {
		EMUL_TRY(emul_read_int(e, base + TSS32_CR3, 4, EMUL_ACC_SYSTEM, &v));
		t->cr3 = v;
		EMUL_TRY(emul_read(e, base + TSS32_EIP, buf, 64, EMUL_ACC_SYSTEM));
		memcpy(&t->ip, buf, 4);
		memcpy(&t->flags, buf + 4, 4);
		memcpy(t->gpr, buf + 8, 32);
		for (i = 0; i < 6; i++)
			memcpy(&t->sel[i], buf + 40 + 4 * i, 2);
		EMUL_TRY(emul_read_int(e, base + TSS32_LDT, 8, EMUL_ACC_SYSTEM, &v));
		t->ldt = v;
		t->trap = v >> 32 & 1;
		return X86_CONTINUE;
	}
	EMUL_TRY(emul_read(e, base + TSS16_IP, buf, 30, EMUL_ACC_SYSTEM));
	memcpy(&t->ip, buf, 2);
	memcpy(&t->flags, buf + 2, 2);
	for (i = 0; i < 8; i++) {
		memcpy(&t->gpr[i], buf + 4 + 2 * i, 2);
		t->gpr[i] |= 0xffff0000; /* as the processor leaves them */
	}
	for (i = 0; i < 4; i++)
		memcpy(&t->sel[i], buf + 20 + 2 * i, 2);
	memcpy(&t->ldt, buf + 28, 2);
	return X86_CONTINUE;
}

static enum x86_result load_ldt(struct emul *e, u16 sel)
{
	struct emul_desc d;

	if (SEL_NULL(sel))
		return X86_CONTINUE;
	if (sel & 4)
		return emul_fault_ext(e, VEC_TS, SEL_ERROR(sel));
	EMUL_TRY(emul_read_desc(e, sel, VEC_TS, &d));
	if (desc_s(d.raw) || desc_type(d.raw) != DESC_LDT || !desc_present(d.raw))
		return emul_fault_ext(e, VEC_TS, SEL_ERROR(sel));
	emul_seg_from_desc(&e->s->seg[SEG_LDTR], sel, d.raw);
	return X86_CONTINUE;
}

static enum x86_result load_cs(struct emul *e, u16 sel)
{
	struct emul_desc d;
	unsigned rpl = SEL_RPL(sel), dpl;

	if (SEL_NULL(sel))
		return emul_fault_ext(e, VEC_TS, 0);
	EMUL_TRY(emul_read_desc(e, sel, VEC_TS, &d));
	dpl = desc_dpl(d.raw);
	if (!desc_code(d.raw) || (desc_conforming(d.raw) ? dpl > rpl : dpl != rpl))
		return emul_fault_ext(e, VEC_TS, SEL_ERROR(sel));
	if (!desc_present(d.raw))
		return emul_fault_ext(e, VEC_NP, SEL_ERROR(sel));
	EMUL_TRY(emul_desc_accessed(e, &d));
	emul_seg_from_desc(&e->s->seg[SEG_CS], sel, d.raw);
	return X86_CONTINUE;
}

/* Step 12 of SDM 3A 7.3: the descriptors, each checked; what fails leaves its segment unusable. */
static enum x86_result load_segments(struct emul *e, const struct task *t)
{
	static const u8 data[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS };
	struct x86_state *s = e->s;
	unsigned i, cpl = SEL_RPL(t->sel[SEG_CS]);

	EMUL_TRY(load_ldt(e, t->ldt));
	if (s->rflags & RFLAGS_VM) {
		for (i = 0; i < 6; i++)
			emul_seg_real(s, i, t->sel[i]);
		emul_mode_changed(e);
		return X86_CONTINUE;
	}
	EMUL_TRY(load_cs(e, t->sel[SEG_CS]));
	x86_update_mode(s);
	EMUL_TRY(emul_check_sreg(e, SEG_SS, t->sel[SEG_SS], cpl, VEC_TS, &s->seg[SEG_SS]));
	for (i = 0; i < ARRAY_SIZE(data); i++)
		EMUL_TRY(emul_check_sreg(e, data[i], t->sel[data[i]], cpl, VEC_TS,
					 &s->seg[data[i]]));
	emul_mode_changed(e);
	return X86_CONTINUE;
}

enum x86_result emul_task_switch(struct emul *e, u16 sel, struct emul_desc *d,
				 enum emul_task_cause cause, bool has_error, u32 error)
{
	struct x86_state *s = e->s;
	struct x86_segment new_tr, *tr = &s->seg[SEG_TR];
	bool wide = desc_type(d->raw) & 8, old_wide = tr->ar & 8,
	     link = cause == TASK_CALL || cause == TASK_EVENT;
	unsigned i, len, offset = old_wide ? TSS32_EIP : TSS16_IP;
	struct emul_desc old_desc;
	struct emul_frame f;
	struct task old, new;
	enum x86_result r;
	u8 image[64];

	emul_seg_from_desc(&new_tr, sel, d->raw);
	new_tr.ar |= 2;
	if (new_tr.limit < (wide ? TSS32_LIMIT : TSS16_LIMIT))
		return emul_fault_ext(e, VEC_TS, SEL_ERROR(sel));
	if ((tr->ar & AR_UNUSABLE) || tr->limit < (old_wide ? TSS32_LIMIT : TSS16_LIMIT))
		return emul_fault_ext(e, VEC_TS, SEL_ERROR(tr->sel));

	old = (struct task){ .ip = e->next_rip, .flags = s->rflags };
	if (cause == TASK_IRET)
		old.flags &= ~RFLAGS_NT;
	if (cause != TASK_EVENT)
		old.flags &= ~RFLAGS_RF;
	for (i = 0; i < 8; i++)
		old.gpr[i] = s->gpr[i];
	for (i = 0; i < 6; i++)
		old.sel[i] = s->seg[i].sel;
	len = store_image(&old, old_wide, image);

	/* Everything that may fault in the old task's name, first. */
	EMUL_TRY(e->ops->probe(e, (u32)tr->base + offset, len, true, EMUL_ACC_SYSTEM));
	if (link)
		EMUL_TRY(e->ops->probe(e, (u32)new_tr.base, 2, true, EMUL_ACC_SYSTEM));
	EMUL_TRY(load_image(e, new_tr.base, wide, &new));
	if (!link) {
		EMUL_TRY(emul_read_desc(e, tr->sel, VEC_TS, &old_desc));
		EMUL_TRY(emul_desc_busy(e, &old_desc, false));
	}
	EMUL_TRY(emul_write(e, (u32)tr->base + offset, image, len, EMUL_ACC_SYSTEM));
	if (link) {
		EMUL_TRY(emul_write(e, (u32)new_tr.base, &tr->sel, 2, EMUL_ACC_SYSTEM));
		new.flags |= RFLAGS_NT;
	}
	if (cause != TASK_IRET)
		EMUL_TRY(emul_desc_busy(e, d, true));

	/* The commit point: from here on it is the new task. */
	e->task_switched = true;
	* tr = new_tr;
	s->cr0 |= CR0_TS;
	s->rip = e->next_rip = new.ip;
	s->rflags = (new.flags &(RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL |
				 RFLAGS_NT)) |
		    RFLAGS_ONE;
	if (wide)
		s->rflags |= new.flags &(RFLAGS_RF | RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF |
					 RFLAGS_VIP | RFLAGS_ID);
	e->after |= EMUL_AFTER_KEEP_RF;
	e->tf_at_start = false;
	s->shadow = 0;
	for (i = 0; i < 8; i++)
		s->gpr[i] = new.gpr[i];
	s->dr7 &= ~0x155ULL; /* local breakpoints end with their task (SDM 3B 17.2.4) */
	for (i = 0; i < 6; i++)
		emul_seg_null(&s->seg[i], new.sel[i]);
	emul_seg_null(&s->seg[SEG_LDTR], new.ldt);
	/* With no SS yet the privilege is the new CS's. */
	s->seg[SEG_SS].ar |= SEL_RPL(new.sel[SEG_CS]) << AR_DPL_SHIFT;
	x86_update_mode(s);
	r = X86_CONTINUE;
	if (wide && (s->cr0 & CR0_PG))
		r = e->ops->set_cr(e, 3, new.cr3);
	if (r == X86_CONTINUE || r == X86_EXIT)
		r = load_segments(e, &new);
	if (r != X86_CONTINUE) {
		emul_mode_changed(e);
		return r;
	}
	if (has_error) {
		emul_frame_init(e, &f, wide ? 4 : 2);
		emul_frame_push(&f, error);
		EMUL_TRY(emul_frame_commit(e, &f));
		emul_set_sp(s, f.width, f.sp);
	}
	if (s->rip > s->seg[SEG_CS].limit)
		return emul_fault_ext(e, VEC_GP, 0);
	/* The T bit: a debug trap before the task's first instruction. */
	if (new.trap) {
		emul_fault(e, VEC_DB);
		e->fault.has_payload = true;
		e->fault.payload = DR6_BT;
		return X86_FAULT;
	}
	return X86_CONTINUE;
}
