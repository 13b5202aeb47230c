/*
 * What the emulator's files share among themselves: operand access, flags, the stack, descriptors.
 * Handlers have the form
 *
 *	enum x86_result emul_xchg(struct emul *e, const struct insn *in);
 *
 * and are listed in emul_table.c. They find the processor in e->s, may change e->next_rip, and
 * return as soon as anything but X86_CONTINUE happens, with nothing changed.
 */
#ifndef CORE_X86_EMUL_EMUL_PRIV_H
#define CORE_X86_EMUL_EMUL_PRIV_H

#include "core/x86/cpuid.h"
#include "core/x86/emul/emul.h"

#define EMUL_TRY(expr)                              \
	do {                                        \
		enum x86_result try_ = (expr);      \
		if (unlikely(try_ != X86_CONTINUE)) \
			return try_;                \
	} while (0)

#define EMUL_INLINE static inline __attribute__((always_inline))

/* ---- the table ------------------------------------------------------------------------------ */

/* What is checked before a handler runs, beside the INSN_F_* that the decoder gives. */
enum emul_check {
	CHECK_NONE,
	CHECK_OWN, /* the handler checks privilege itself: its #UD come first */
};

struct emul_entry {
	enum x86_result (*fn)(struct emul *e, const struct insn *in);
	u16 feature; /* X86_FEATURE_* that CPUID must show, else #UD; 0 (X86_FEATURE_FPU): none */
	u8 check;    /* enum emul_check */
};

extern const struct emul_entry emul_table[MN_SIMD_FIRST];

/* ---- sizes, registers, flags ---------------------------------------------------------------- */

EMUL_INLINE u64 emul_mask(unsigned size)
{
	return ~0ULL >> (64 - 8 * size);
}

EMUL_INLINE u64 emul_sign(unsigned size)
{
	return 1ULL << (8 * size - 1);
}

EMUL_INLINE u64 emul_get_gpr(const struct x86_state *s, unsigned reg, unsigned size)
{
	return s->gpr[reg] & emul_mask(size);
}

/* Writing 32 bits clears the upper half, writing 8 or 16 leaves the rest alone (SDM 1 3.4.1.1). */
EMUL_INLINE void emul_put_gpr(struct x86_state *s, unsigned reg, unsigned size, u64 value)
{
	switch (size) {
	case 8: s->gpr[reg] = value; break;
	case 4: s->gpr[reg] = (u32)value; break;
	case 2: s->gpr[reg] = (s->gpr[reg] & ~0xffffULL) | (u16)value; break;
	default: s->gpr[reg] = (s->gpr[reg] & ~0xffULL) | (u8)value; break;
	}
}

/* SF, ZF and PF of a result that is already masked to @size. */
EMUL_INLINE u64 emul_szp(u64 result, unsigned size)
{
	u64 f = 0;

	if (result & emul_sign(size))
		f |= RFLAGS_SF;
	if (!result)
		f |= RFLAGS_ZF;
	if (!__builtin_parity((unsigned)(result & 0xff)))
		f |= RFLAGS_PF;
	return f;
}

/** @a - @b with all arithmetic flags, as CMP. */
u64 emul_alu_sub(unsigned size, u64 a, u64 b, u64 *flags);

EMUL_INLINE u64 emul_flag(bool set, u64 flag)
{
	return set ? flag : 0;
}

/** Whether condition @cond (tttn, SDM 2D B.1.4.7) holds. */
EMUL_INLINE bool emul_condition(u64 f, unsigned cond)
{
	bool r;

	switch (cond >> 1) {
	case 0: r = f & RFLAGS_OF; break;
	case 1: r = f & RFLAGS_CF; break;
	case 2: r = f & RFLAGS_ZF; break;
	case 3: r = f & (RFLAGS_CF | RFLAGS_ZF); break;
	case 4: r = f & RFLAGS_SF; break;
	case 5: r = f & RFLAGS_PF; break;
	case 6: r = !(f & RFLAGS_SF) != !(f & RFLAGS_OF); break;
	default: r = (f & RFLAGS_ZF) || !(f & RFLAGS_SF) != !(f & RFLAGS_OF); break;
	}
	return r != (cond & 1);
}

EMUL_INLINE unsigned emul_iopl(const struct x86_state *s)
{
	return (s->rflags & RFLAGS_IOPL) >> 12;
}

EMUL_INLINE bool emul_protected(const struct x86_state *s)
{
	return s->mode >= X86_MODE_PROT16;
}

EMUL_INLINE bool emul_canonical(const struct x86_state *s, u64 la)
{
	return x86_is_canonical(la, s->cr4);
}

/** After CS, SS, CR0.PE, EFER.LMA or RFLAGS.VM changed. */
EMUL_INLINE void emul_mode_changed(struct emul *e)
{
	x86_update_mode(e->s);
	if (e->ops->mode_changed)
		e->ops->mode_changed(e);
}

EMUL_INLINE bool emul_has(struct emul *e, u32 feature)
{
	return e->ops->has_feature(e, feature);
}

bool emul_vendor_amd(struct emul *e);

/* ---- memory --------------------------------------------------------------------------------- */

/* An op that returned X86_EXIT has done its work: the handler goes on, the instruction returns
 * X86_EXIT. */
EMUL_INLINE enum x86_result emul_done(struct emul *e, enum x86_result r)
{
	if (unlikely(r == X86_EXIT)) {
		e->after |= EMUL_AFTER_EXIT;
		return X86_CONTINUE;
	}
	return r;
}

EMUL_INLINE enum x86_result emul_read(struct emul *e, u64 la, void *buf, unsigned len, unsigned acc)
{
	return emul_done(e, e->ops->read(e, la, buf, len, acc));
}

EMUL_INLINE enum x86_result emul_write(struct emul *e, u64 la, const void *buf, unsigned len,
				       unsigned acc)
{
	return emul_done(e, e->ops->write(e, la, buf, len, acc));
}

/* Little-endian integers of 1, 2, 4, 8 bytes. */
EMUL_INLINE enum x86_result emul_read_int(struct emul *e, u64 la, unsigned len, unsigned acc,
					  u64 *value)
{
	* value = 0;
	return emul_read(e, la, value, len, acc);
}

/** The linear address of @in's memory operand for an access of @len bytes. */
EMUL_INLINE enum x86_result emul_mem_la(struct emul *e, const struct insn *in, unsigned len,
					bool write, u64 *la)
{
	return emul_linear(e, in->mem.seg, emul_effective_address(e, in), len, write, la);
}

/** Operand @i as a zero-extended value of its size. */
EMUL_INLINE enum x86_result emul_get(struct emul *e, const struct insn *in, unsigned i, u64 *value)
{
	const struct operand *op = &in->op[i];
	u64 la;

	switch (op->kind) {
	case OPK_GPR: *value = emul_get_gpr(e->s, op->reg, op->size); return X86_CONTINUE;
	case OPK_GPR_HI: *value = (u8)(e->s->gpr[op->reg] >> 8); return X86_CONTINUE;
	case OPK_IMM: *value = (op->reg ? in->imm2 : in->imm); return X86_CONTINUE;
	case OPK_ONE: *value = 1; return X86_CONTINUE;
	case OPK_MEM:
		EMUL_TRY(emul_mem_la(e, in, op->size, false, &la));
		return emul_read_int(e, la, op->size, 0, value);
	default: *value = 0; return X86_UNHANDLED;
	}
}

EMUL_INLINE void emul_put_reg(struct emul *e, const struct operand *op, u64 value)
{
	if (op->kind == OPK_GPR_HI)
		e->s->gpr[op->reg] = (e->s->gpr[op->reg] & ~0xff00ULL) | (value & 0xff) << 8;
	else
		emul_put_gpr(e->s, op->reg, op->size, value);
}

EMUL_INLINE enum x86_result emul_put(struct emul *e, const struct insn *in, unsigned i, u64 value)
{
	const struct operand *op = &in->op[i];
	u64 la;

	if (op->kind != OPK_MEM) {
		emul_put_reg(e, op, value);
		return X86_CONTINUE;
	}
	EMUL_TRY(emul_mem_la(e, in, op->size, true, &la));
	return emul_write(e, la, &value, op->size, 0);
}

/**
 * Reads, changes and writes operand 0 with @fn, atomically under LOCK: fn(size, old value, @src,
 * flags) gives the new value and changes the flags, which are committed last. Where @fn is a
 * constant this inlines to straight code.
 */
EMUL_INLINE enum x86_result emul_rmw(struct emul *e, const struct insn *in, u64 src,
				     u64 (*fn)(unsigned size, u64 dst, u64 src, u64 *flags))
{
	const struct operand *op = &in->op[0];
	u64 flags = e->s->rflags, la, old, val;

	if (op->kind != OPK_MEM) {
		val = op->kind == OPK_GPR_HI ? (u8)(e->s->gpr[op->reg] >> 8)
					     : emul_get_gpr(e->s, op->reg, op->size);
		emul_put_reg(e, op, fn(op->size, val, src, &flags));
		e->s->rflags = flags;
		return X86_CONTINUE;
	}
	EMUL_TRY(emul_mem_la(e, in, op->size, true, &la));
	EMUL_TRY(emul_read_int(e, la, op->size,
			       in->lock ? EMUL_ACC_RMW | EMUL_ACC_LOCKED : EMUL_ACC_RMW, &old));
	if (!in->lock) {
		val = fn(op->size, old, src, &flags);
		EMUL_TRY(emul_write(e, la, &val, op->size, 0));
	} else {
		bool done;

		do {
			flags = e->s->rflags;
			val = fn(op->size, old, src, &flags);
			EMUL_TRY(emul_done(e, e->ops->cmpxchg(e, la, &old, &val, op->size,
							      EMUL_ACC_LOCKED, &done)));
		} while (!done);
	}
	e->s->rflags = flags;
	return X86_CONTINUE;
}

/* ---- the stack ------------------------------------------------------------------------------ */

/** SP's width: 8 in 64-bit mode, else by SS.B. */
EMUL_INLINE unsigned emul_stack_size(const struct x86_state *s)
{
	if (s->mode == X86_MODE_LONG)
		return 8;
	return s->seg[SEG_SS].ar & AR_DB ? 4 : 2;
}

/** Pushes one value of @size bytes. */
enum x86_result emul_push(struct emul *e, unsigned size, u64 value);
/** Reads what is @offset bytes above SP; SP does not move. */
enum x86_result emul_peek(struct emul *e, unsigned offset, unsigned size, u64 *value);
/** Moves SP by @bytes, in its width. */
void emul_add_sp(struct x86_state *s, s64 bytes);

/*
 * A stack that is being built: the current one, or the one that a change of privilege or a task
 * switch brings. Values are collected, checked and written together, so that a fault leaves nothing
 * behind.
 */
#define EMUL_FRAME_MAX 40
struct emul_frame {
	struct x86_segment ss;
	u64 sp;	      /* before the pushes; after emul_frame_commit(): behind them */
	u8 width;     /* of SP */
	u8 size;      /* of each value */
	bool rights;  /* protected mode: the segment's rights count */
	bool wide;    /* 64-bit mode: canonical check instead of segmentation */
	unsigned acc; /* EMUL_ACC_* */
	u32 error;    /* error code of #SS */
	unsigned n;
	u64 value[EMUL_FRAME_MAX];
};

/** The current stack, with values of @size bytes. */
void emul_frame_init(struct emul *e, struct emul_frame *f, unsigned size);
EMUL_INLINE void emul_frame_push(struct emul_frame *f, u64 value)
{
	f->value[f->n++] = value;
}
/** Would a push fault? In the order of the pushes, which decides what fault it is. Nothing is
 * written. */
enum x86_result emul_frame_probe(struct emul *e, struct emul_frame *f);
/** Writes the frame; f->sp is then the new SP. X86_FAULT: #SS(f->error) or a page fault. */
enum x86_result emul_frame_commit(struct emul *e, struct emul_frame *f);
/** Puts @sp into SP in the width of the stack that SS now describes. */
void emul_set_sp(struct x86_state *s, unsigned width, u64 sp);

/* ---- descriptors (emul_seg.c) --------------------------------------------------------------- */

struct emul_desc {
	u64 raw, high; /* high: the second half of a 16-byte system descriptor */
	u64 la;	       /* where it was read */
};

#define SEL_NULL(sel)  (!((sel)&0xfffc))
#define SEL_RPL(sel)   ((sel)&3)
#define SEL_ERROR(sel) ((u32)(sel)&0xfffc)

EMUL_INLINE u32 desc_ar(u64 raw)
{
	return (raw >> 40) & 0xf0ff;
}
EMUL_INLINE u64 desc_base(u64 raw)
{
	return ((raw >> 16) & 0xffffff) | ((raw >> 56) << 24);
}
EMUL_INLINE u32 desc_limit(u64 raw)
{
	u32 limit = (raw & 0xffff) | ((raw >> 32) & 0xf0000);

	return raw & BIT64(55) ? limit << 12 | 0xfff : limit;
}
EMUL_INLINE unsigned desc_dpl(u64 raw)
{
	return (raw >> 45) & 3;
}
EMUL_INLINE unsigned desc_type(u64 raw)
{
	return (raw >> 40) & 15;
}
EMUL_INLINE bool desc_s(u64 raw)
{
	return raw & BIT64(44);
}
EMUL_INLINE bool desc_present(u64 raw)
{
	return raw & BIT64(47);
}
/* Code segments: S and type bit 3; conforming is type bit 2, readable bit 1; data: expand-down,
 * writable. */
EMUL_INLINE bool desc_code(u64 raw)
{
	return desc_s(raw) && (desc_type(raw) & 8);
}
EMUL_INLINE bool desc_conforming(u64 raw)
{
	return desc_type(raw) & 4;
}
EMUL_INLINE bool desc_writable_data(u64 raw)
{
	return desc_s(raw) && (desc_type(raw) & 10) == 2;
}
EMUL_INLINE bool desc_long(u64 raw)
{
	return raw & BIT64(53);
}
EMUL_INLINE bool desc_db(u64 raw)
{
	return raw & BIT64(54);
}
/* System types, SDM 3A table 3-2 */
enum {
	DESC_TSS16 = 1,
	DESC_LDT = 2,
	DESC_TSS16_BUSY = 3,
	DESC_CALL16 = 4,
	DESC_TASK = 5,
	DESC_INT16 = 6,
	DESC_TRAP16 = 7,
	DESC_TSS32 = 9,
	DESC_TSS32_BUSY = 11,
	DESC_CALL32 = 12,
	DESC_INT32 = 14,
	DESC_TRAP32 = 15,
};

EMUL_INLINE bool emul_long_active(const struct x86_state *s)
{
	return s->efer & EFER_LMA;
}

/** Error code @code with the EXT bit of the event in delivery. */
EMUL_INLINE enum x86_result emul_fault_ext(struct emul *e, u8 vector, u32 code)
{
	return emul_fault_code(e, vector, code | e->ext);
}

/**
 * Reads the descriptor of @sel (16 bytes where long mode has 16). Outside its table: @vector(@sel),
 * e.g. #GP or #TS. Null selectors are the caller's.
 */
enum x86_result emul_read_desc(struct emul *e, u16 sel, u8 vector, struct emul_desc *d);
/** In long mode: the second half of the 16-byte system descriptor @d, checked; else nothing. */
enum x86_result emul_read_desc_high(struct emul *e, u16 sel, u8 vector, struct emul_desc *d);
/** Sets the accessed bit in memory and in d->raw if it is a segment and is not yet set. */
enum x86_result emul_desc_accessed(struct emul *e, struct emul_desc *d);
/** Sets (@busy) or clears the busy bit of a TSS descriptor. */
enum x86_result emul_desc_busy(struct emul *e, struct emul_desc *d, bool busy);
/** Fills the hidden part from a descriptor. */
void emul_seg_from_desc(struct x86_segment *seg, u16 sel, u64 raw);
void emul_seg_null(struct x86_segment *seg, u16 sel);
/** Real and virtual-8086 mode: base = selector * 16. */
void emul_seg_real(struct x86_state *s, unsigned reg, u16 sel);
/** MOV, POP, LxS, IRET to V86: loads any but CS with the checks of the current mode. */
enum x86_result emul_load_sreg(struct emul *e, unsigned reg, u16 sel);
/** As emul_load_sreg for protected mode, but only checks, and fills *@out; @cpl: the privilege to
 * check against. */
enum x86_result emul_check_sreg(struct emul *e, unsigned reg, u16 sel, unsigned cpl, u8 vector,
				struct x86_segment *out);
/**
 * A stack segment for a transfer to privilege @cpl: @vector is #TS (new stack from a TSS) or #GP
 * (IRET, RETF); a segment that is not present gives #SS. Null is the caller's.
 */
enum x86_result emul_check_ss(struct emul *e, u16 sel, unsigned cpl, u8 vector,
			      struct emul_desc *d);
/** SS:SP for privilege @cpl from the TSS in TR, checked; protected mode, not long. */
enum x86_result emul_tss_stack(struct emul *e, unsigned cpl, struct emul_desc *ss_desc, u16 *ss,
			       u32 *sp);
/** RSP (or, @ist 1..7, IST) for privilege @cpl from the 64-bit TSS. */
enum x86_result emul_tss_rsp(struct emul *e, unsigned cpl, unsigned ist, u64 *rsp);
/** SS of long mode after a change of privilege: null with RPL and DPL @cpl. */
void emul_seg_null_ss(struct x86_segment *seg, unsigned cpl);
/** Whether offset @ip lies in the code segment @raw describes (canonical where it is 64-bit). */
bool emul_ip_in_desc(const struct x86_state *s, u64 raw, u64 ip);
/** Loads CS from a checked descriptor with RPL = @cpl and jumps. SS must already be that of @cpl.
 */
void emul_set_cs(struct emul *e, u16 sel, u64 raw, unsigned cpl, u64 ip);
/** The near branch: truncates @target to @size, checks limit or canonical form, sets e->next_rip.
 */
enum x86_result emul_branch(struct emul *e, unsigned size, u64 target);
/** RETF and IRET to less privilege: what DS, ES, FS and GS may not show is made null. */
void emul_drop_segments(struct x86_state *s, unsigned cpl);

/* ---- events and tasks ----------------------------------------------------------------------- */

/** Delivers @ev once; a fault on the way is returned, not merged. e->ext is set by the caller. */
enum x86_result emul_event_once(struct emul *e, const struct x86_event *ev);
/** INT n, INT3, INTO, INT1 as instructions. */
enum x86_result emul_soft_event(struct emul *e, const struct insn *in, u8 vector, u8 type);

enum emul_task_cause { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };
/** Switches to the task of TSS descriptor @d. @error: pushed on the new stack if @has_error. Sets
 * e->next_rip. */
enum x86_result emul_task_switch(struct emul *e, u16 sel, struct emul_desc *d,
				 enum emul_task_cause cause, bool has_error, u32 error);

/* ---- system --------------------------------------------------------------------------------- */

/** Whether @size ports from @port may be used: X86_CONTINUE or #GP(0). */
enum x86_result emul_check_io(struct emul *e, u16 port, unsigned size);
/** RFLAGS := @value in the bits @mask. */
EMUL_INLINE void emul_set_flags(struct x86_state *s, u64 value, u64 mask)
{
	s->rflags = (s->rflags & ~mask) | (value & mask) | RFLAGS_ONE;
}

/* Every handler: emul_table.c is the only user of most. */
/* clang-format off */
#define EMUL_HANDLERS(X) \
	X(add) X(or) X(adc) X(sbb) X(and) X(sub) X(xor) X(cmp) X(test) X(not) X(neg) X(inc) X(dec) \
	X(mul) X(imul) X(div) X(idiv) X(daa) X(das) X(aaa) X(aas) X(aam) X(aad) X(adcx) X(adox) X(xadd) X(cmpxchg) \
	X(cmpxchg8b) X(cmpxchg16b) \
	X(rol) X(ror) X(rcl) X(rcr) X(shl) X(shr) X(sar) X(shld) X(shrd) X(bt) X(bts) X(btr) X(btc) X(bsf) X(bsr) \
	X(bswap) X(popcnt) X(lzcnt) X(tzcnt) X(crc32) X(andn) X(bextr) X(blsi) X(blsmsk) X(blsr) X(bzhi) X(mulx) \
	X(pdep) X(pext) X(rorx) X(sarx) X(shlx) X(shrx) \
	X(mov) X(movsx) X(movbe) X(lea) X(xchg) X(push_insn) X(pop_insn) X(pusha) X(popa) X(pushf) X(popf) X(enter) X(leave) \
	X(cbw) X(cwd) X(xlat) X(salc) X(lahf) X(sahf) X(cmovcc) X(setcc) X(movdir64b) \
	X(movs) X(cmps) X(stos) X(lods) X(scas) X(ins) X(outs) X(in_port) X(out_port) \
	X(clc) X(stc) X(cmc) X(cld) X(std) X(cli) X(sti) X(clac) X(stac) \
	X(jcc) X(jcxz) X(loop) X(jmp_near) X(call_near) X(ret_near) X(bound) X(ud) \
	X(jmp_far) X(call_far) X(ret_far) X(iret) X(int) X(int3) X(int1) X(into) \
	X(mov_sreg) X(push_sreg) X(pop_sreg) X(load_far) X(arpl) X(lar) X(lsl) X(verr) X(sldt) X(str) X(lldt) \
	X(ltr) X(sgdt) X(sidt) X(lgdt) X(lidt) X(smsw) X(lmsw) X(rdbase) X(wrbase) X(swapgs) \
	X(mov_cr) X(mov_dr) X(clts) X(hlt) X(wbinvd) X(invlpg) X(invpcid) X(rdmsr) X(wrmsr) X(rdtsc) X(rdtscp) \
	X(rdpmc) X(rdpid) X(rdrand) X(rdseed) X(cpuid) X(syscall) X(sysret) X(sysenter) X(sysexit) X(rsm) X(xgetbv) \
	X(xsetbv) X(monitor) X(mwait) X(hypercall) X(nop) X(pause) X(clflush) X(clzero) X(native) X(rdssp)
/* clang-format on */

#define X(name) enum x86_result emul_##name(struct emul *e, const struct insn *in);
EMUL_HANDLERS(X)
#undef X

#endif
