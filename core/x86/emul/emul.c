/*
 * The emulator's frame: fetch, checks common to all instructions, dispatch, commit; and the ways to
 * memory that every handler uses: effective addresses (SDM 1 3.7.5), segmentation (SDM 3A 5.3
 * to 5.5) and the stack. See emul.h.
 */
#include "core/x86/emul/emul_priv.h"

/* ---- faults --------------------------------------------------------------------------------- */

/* Which exceptions push an error code, SDM 3A table 6-1. */
#define VECTORS_WITH_ERROR                                                               \
	(BIT64(VEC_DF) | BIT64(VEC_TS) | BIT64(VEC_NP) | BIT64(VEC_SS) | BIT64(VEC_GP) | \
	 BIT64(VEC_PF) | BIT64(VEC_AC))

enum x86_result emul_fault_code(struct emul *e, u8 vector, u32 error)
{
	e->fault = (struct x86_event){
		.vector = vector,
		.type = X86_EVENT_EXCEPTION,
		.has_error = vector < 32 && (VECTORS_WITH_ERROR & BIT64(vector)),
		.error = error,
	};
	return X86_FAULT;
}

enum x86_result emul_fault(struct emul *e, u8 vector)
{
	return emul_fault_code(e, vector, 0);
}

enum x86_result emul_page_fault(struct emul *e, u64 la, u32 error)
{
	emul_fault_code(e, VEC_PF, error);
	e->fault.has_payload = true;
	e->fault.payload = la;
	return X86_FAULT;
}

/* ---- addresses ------------------------------------------------------------------------------ */

u64 emul_effective_address(const struct emul *e, const struct insn *in)
{
	const struct insn_mem *m = &in->mem;
	u64 a = m->disp;

	if (m->base != INSN_REG_NONE)
		a += e->s->gpr[m->base];
	else if (m->rip_rel)
		a += e->s->rip + in->len;
	if (m->index != INSN_REG_NONE)
		a += e->s->gpr[m->index] * m->scale;
	if (in->addrsize == 4)
		return (u32)a;
	return in->addrsize == 2 ? (u16)a : a;
}

/* Limit and, in protected mode, rights. @len > 0. Expand-down segments are valid above the limit
 * (SDM 3A 5.3). */
static bool segment_allows(const struct x86_segment *seg, bool rights, u64 ea, unsigned len,
			   bool write)
{
	u64 last = ea + len - 1;

	if (rights) {
		if ((seg->ar & AR_UNUSABLE) || !(seg->ar & AR_P))
			return false;
		if (write ? (seg->ar & 10) != 2 : (seg->ar & 10) == 8)
			return false;
	}
	if (rights && (seg->ar & 12) == 4)
		return ea > seg->limit && last <= (seg->ar & AR_DB ? 0xffffffffULL : 0xffffULL);
	return last <= seg->limit;
}

enum x86_result emul_linear(struct emul *e, unsigned seg, u64 ea, unsigned len, bool write, u64 *la)
{
	const struct x86_state *s = e->s;
	u64 a = ea;

	if (likely(s->mode == X86_MODE_LONG)) {
		if (seg >= SEG_FS)
			a += s->seg[seg].base;
		*la = a;
		if (unlikely(!emul_canonical(s, a) || (len && !emul_canonical(s, a + len - 1))) &&
		    len)
			return emul_fault_code(e, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
	} else {
		*la = (u32)(s->seg[seg].base + ea);
		if (len && !segment_allows(&s->seg[seg], emul_protected(s), ea, len, write))
			return emul_fault_code(e, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
	}
	/* Alignment checks exist at CPL 3 alone; sizes that are no power of two are aligned by
	 * their element. */
	if (unlikely(s->rflags & RFLAGS_AC) && (s->cr0 & CR0_AM) && s->cpl == 3 && len > 1 &&
	    len <= 8 && (*la & ((len & -len) - 1)))
		return emul_fault_code(e, VEC_AC, 0);
	return X86_CONTINUE;
}

/* ---- stack ---------------------------------------------------------------------------------- */

void emul_set_sp(struct x86_state *s, unsigned width, u64 sp)
{
	emul_put_gpr(s, REG_SP, width, sp);
}

void emul_add_sp(struct x86_state *s, s64 bytes)
{
	emul_put_gpr(s, REG_SP, emul_stack_size(s), s->gpr[REG_SP] + bytes);
}

enum x86_result emul_push(struct emul *e, unsigned size, u64 value)
{
	unsigned width = emul_stack_size(e->s);
	u64 sp = (e->s->gpr[REG_SP] - size) & emul_mask(width), la;

	EMUL_TRY(emul_linear(e, SEG_SS, sp, size, true, &la));
	EMUL_TRY(emul_write(e, la, &value, size, 0));
	emul_set_sp(e->s, width, sp);
	return X86_CONTINUE;
}

enum x86_result emul_peek(struct emul *e, unsigned offset, unsigned size, u64 *value)
{
	u64 sp = (e->s->gpr[REG_SP] + offset) & emul_mask(emul_stack_size(e->s)), la;

	EMUL_TRY(emul_linear(e, SEG_SS, sp, size, false, &la));
	return emul_read_int(e, la, size, 0, value);
}

void emul_frame_init(struct emul *e, struct emul_frame *f, unsigned size)
{
	f->ss = e->s->seg[SEG_SS];
	f->width = emul_stack_size(e->s);
	f->sp = emul_get_gpr(e->s, REG_SP, f->width);
	f->size = size;
	f->rights = emul_protected(e->s);
	f->wide = e->s->mode == X86_MODE_LONG;
	f->acc = 0;
	f->error = e->ext;
	f->n = 0;
}

static enum x86_result frame_linear(struct emul *e, struct emul_frame *f, u64 sp, unsigned len,
				    u64 *la)
{
	if (f->wide) {
		*la = sp;
		if (!emul_canonical(e->s, sp) || !emul_canonical(e->s, sp + len - 1))
			return emul_fault_code(e, VEC_SS, f->error);
		return X86_CONTINUE;
	}
	* la = (u32)(f->ss.base + sp);
	if (!segment_allows(&f->ss, f->rights, sp, len, true))
		return emul_fault_code(e, VEC_SS, f->error);
	return X86_CONTINUE;
}

enum x86_result emul_frame_probe(struct emul *e, struct emul_frame *f)
{
	u64 sp = f->sp, la;
	unsigned i;

	for (i = 0; i < f->n; i++) {
		sp = (sp - f->size) & emul_mask(f->width);
		EMUL_TRY(frame_linear(e, f, sp, f->size, &la));
		EMUL_TRY(e->ops->probe(e, la, f->size, true, f->acc));
	}
	return X86_CONTINUE;
}

enum x86_result emul_frame_commit(struct emul *e, struct emul_frame *f)
{
	u64 mask = emul_mask(f->width), la;
	unsigned total = f->n * f->size, i;
	enum x86_result r;
	u8 buf[64];

	/* In one piece where SP does not wrap, which is nearly always. */
	if (total <= sizeof(buf) && f->sp >= total) {
		for (i = 0; i < f->n; i++)
			memcpy(buf + total - (i + 1) * f->size, &f->value[i], f->size);
		r = frame_linear(e, f, f->sp - total, total, &la);
		if (r == X86_CONTINUE)
			r = emul_write(e, la, buf, total, f->acc);
		if (r == X86_CONTINUE)
			f->sp -= total;
		if (r != X86_FAULT)
			return r;
	}
	EMUL_TRY(emul_frame_probe(e, f));
	for (i = 0; i < f->n; i++) {
		f->sp = (f->sp - f->size) & mask;
		EMUL_TRY(frame_linear(e, f, f->sp, f->size, &la));
		EMUL_TRY(emul_write(e, la, &f->value[i], f->size, f->acc));
	}
	return X86_CONTINUE;
}

/* ---- executing ------------------------------------------------------------------------------ */

/* The rare checks, SDM 2A's "Exceptions": undefined here, then not permitted here. */
static enum x86_result check_flags(struct emul *e, const struct insn *in,
				   const struct emul_entry *entry)
{
	const struct x86_state *s = e->s;

	if ((in->flags & INSN_F_PROTECTED) && !emul_protected(s))
		return emul_fault(e, VEC_UD);
	if (entry->check != CHECK_OWN && s->cpl) {
		if (in->flags & INSN_F_PRIVILEGED)
			return emul_fault_code(e, VEC_GP, 0);
		if ((in->flags & INSN_F_UMIP) && (s->cr4 & CR4_UMIP))
			return emul_fault_code(e, VEC_GP, 0);
	}
	return X86_CONTINUE;
}

static enum x86_result dispatch(struct emul *e, const struct insn *in)
{
	const struct emul_entry *entry;

	if (unlikely(in->mnemonic >= MN_SIMD_FIRST))
		return emul_native(e, in);
	entry = &emul_table[in->mnemonic];
	if (unlikely(!entry->fn))
		return emul_fault(e, VEC_UD);
	if (unlikely(entry->feature) && !emul_has(e, entry->feature))
		return emul_fault(e, VEC_UD);
	if (unlikely(in->flags & (INSN_F_PRIVILEGED | INSN_F_PROTECTED | INSN_F_UMIP)))
		EMUL_TRY(check_flags(e, in, entry));
	/* VEX does not exist in real and virtual-8086 mode (SDM 2A 2.8). */
	if (unlikely(in->state == INSN_STATE_VEX_GPR) && !emul_protected(e->s))
		return emul_fault(e, VEC_UD);
	return entry->fn(e, in);
}

enum x86_result emul_exec(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	enum x86_result r;

	e->cur = in;
	e->next_rip = s->rip + in->len;
	if (s->mode != X86_MODE_LONG)
		e->next_rip = (u32)e->next_rip;
	e->tf_at_start = s->rflags & RFLAGS_TF;
	e->after = 0;
	e->ext = 0;
	e->task_switched = false;
	r = dispatch(e, in);
	if (unlikely(r != X86_CONTINUE && r != X86_EXIT))
		return r;
	s->rip = e->next_rip;
	s->shadow = e->after & (SHADOW_STI | SHADOW_MOVSS);
	if (!(e->after & EMUL_AFTER_KEEP_RF))
		s->rflags &= ~RFLAGS_RF;
	/* Single-step traps wait until the instruction after MOV SS (SDM 3A 6.8.3). */
	if (e->after & SHADOW_MOVSS)
		e->tf_at_start = false;
	return e->after & EMUL_AFTER_EXIT ? X86_EXIT : r;
}

enum x86_result emul_insn(struct emul *e)
{
	return emul_exec(e, &e->insn);
}

/*
 * Up to @len bytes of code from offset @ip + @done on. Fewer where the segment ends: then the CPU
 * knows only when it needs the missing byte, so *@len says how many there were.
 */
static enum x86_result fetch_part(struct emul *e, u64 ip, u8 *buf, unsigned done, unsigned *len)
{
	const struct x86_state *s = e->s;
	u64 la;

	if (s->mode == X86_MODE_LONG) {
		la = ip + done;
		if (!emul_canonical(s, la))
			*len = 0;
		else if (!emul_canonical(s, la + *len - 1))
			*len = -la & 0xfff;
	} else {
		u64 first = (u64)(u32)ip + done, limit = s->seg[SEG_CS].limit;

		if (first > limit)
			*len = 0;
		else if (*len > limit - first + 1)
			*len = limit - first + 1;
		la = (u32)(s->seg[SEG_CS].base + first);
	}
	if (!*len)
		return X86_CONTINUE;
	return e->ops->fetch(e, la, buf + done, *len);
}

enum x86_result emul_decode(struct emul *e)
{
	struct x86_state *s = e->s;
	enum insn_mode mode = s->mode == X86_MODE_LONG	  ? MODE_64
			      : s->seg[SEG_CS].ar & AR_DB ? MODE_32
							  : MODE_16;
	u64 la = s->mode == X86_MODE_LONG ? s->rip : (u32)(s->seg[SEG_CS].base + s->rip);
	unsigned in_page = 0x1000 - (la & 0xfff), have = MIN(in_page, INSN_MAX_LEN), more;
	u8 buf[INSN_MAX_LEN];
	int error;

	if (s->mode == X86_MODE_V86)
		mode = MODE_16;
	e->ext = 0;
	EMUL_TRY(fetch_part(e, s->rip, buf, 0, &have));
	error = have ? insn_decode(&e->insn, buf, have, mode) : INSN_NEED_MORE;
	/* The second page is touched only when the instruction reaches into it. */
	if (error == INSN_NEED_MORE && have == in_page && have < INSN_MAX_LEN) {
		more = INSN_MAX_LEN - have;
		EMUL_TRY(fetch_part(e, s->rip, buf, have, &more));
		have += more;
		error = insn_decode(&e->insn, buf, have, mode);
	}
	switch (error) {
	case 0: return X86_CONTINUE;
	case INSN_UD: return emul_fault(e, VEC_UD);
	default: return emul_fault_code(e, VEC_GP, 0); /* too long, or over the segment's end */
	}
}

enum x86_result emul_step(struct emul *e)
{
	EMUL_TRY(emul_decode(e));
	return emul_exec(e, &e->insn);
}
