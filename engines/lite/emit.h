/*
 * Writing x86-64 code: the few host instructions that translated code is glued together with. The guest's own go through recode.h.
 * Registers are numbers, 0 to 15. Every function that takes @w emits the 64-bit form if it is set, else the 32-bit one.
 */
#ifndef ENGINES_LITE_EMIT_H
#define ENGINES_LITE_EMIT_H

#include "host_types.h"

struct lite_emit {
	u8 *p, *end;	 /* in the writable mapping */
	s64 to_rx;	 /* added to an address there: where it will run */
	bool full;	 /* something did not fit: the result is not to be used */
};

static inline void e_bytes(struct lite_emit *e, const void *bytes, unsigned n)
{
	if (e->end - e->p < n) {
		e->full = true;
		return;
	}
	memcpy(e->p, bytes, n);
	e->p += n;
}
static inline void e_u8(struct lite_emit *e, u8 v)
{
	e_bytes(e, &v, 1);
}
static inline void e_u32(struct lite_emit *e, u32 v)
{
	e_bytes(e, &v, 4);
}
static inline void e_u64(struct lite_emit *e, u64 v)
{
	e_bytes(e, &v, 8);
}
static inline u8 *e_rx(const struct lite_emit *e, const u8 *rw)
{
	return (u8 *)((s64)rw + e->to_rx);
}

static inline void e_rex(struct lite_emit *e, bool w, unsigned reg, unsigned index, unsigned base)
{
	u8 rex = 0x40 | w << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;

	if (rex != 0x40)
		e_u8(e, rex);
}

/* ModRM, SIB and displacement for [base + disp]. */
static inline void e_mem(struct lite_emit *e, unsigned reg, unsigned base, s32 disp)
{
	bool none = !disp && (base & 7) != 5, small = disp == (s8)disp;

	e_u8(e, (none ? 0 : small ? 0x40 : 0x80) | (reg & 7) << 3 | (base & 7));
	if ((base & 7) == 4)
		e_u8(e, 0x24);
	if (small && !none)
		e_u8(e, disp);
	else if (!none)
		e_u32(e, disp);
}

/* [base + index * (1 << shift) + disp] */
static inline void e_mem_index(struct lite_emit *e, unsigned reg, unsigned base, unsigned index, unsigned shift, s32 disp)
{
	bool none = !disp && (base & 7) != 5, small = disp == (s8)disp;

	e_u8(e, (none ? 0 : small ? 0x40 : 0x80) | (reg & 7) << 3 | 4);
	e_u8(e, shift << 6 | (index & 7) << 3 | (base & 7));
	if (small && !none)
		e_u8(e, disp);
	else if (!none)
		e_u32(e, disp);
}

/* One-byte opcode with a register and a memory operand. */
static inline void e_op_m(struct lite_emit *e, bool w, u8 op, unsigned reg, unsigned base, s32 disp)
{
	e_rex(e, w, reg, 0, base);
	e_u8(e, op);
	e_mem(e, reg, base, disp);
}
static inline void e_op_mx(struct lite_emit *e, bool w, u8 op, unsigned reg, unsigned base, unsigned index, unsigned shift, s32 disp)
{
	e_rex(e, w, reg, index, base);
	e_u8(e, op);
	e_mem_index(e, reg, base, index, shift, disp);
}
/* [index * (1 << shift) + disp], no base: ModRM 4, SIB base 5, a 32-bit displacement. */
static inline void e_op_index(struct lite_emit *e, bool w, u8 op, unsigned reg, unsigned index, unsigned shift, s32 disp)
{
	e_rex(e, w, reg, index, 0);
	e_u8(e, op);
	e_u8(e, (reg & 7) << 3 | 4);
	e_u8(e, shift << 6 | (index & 7) << 3 | 5);
	e_u32(e, disp);
}
static inline void e_op_r(struct lite_emit *e, bool w, u8 op, unsigned reg, unsigned rm)
{
	e_rex(e, w, reg, 0, rm);
	e_u8(e, op);
	e_u8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void e_load(struct lite_emit *e, bool w, unsigned reg, unsigned base, s32 disp)
{
	e_op_m(e, w, 0x8b, reg, base, disp);
}
static inline void e_store(struct lite_emit *e, bool w, unsigned reg, unsigned base, s32 disp)
{
	e_op_m(e, w, 0x89, reg, base, disp);
}
static inline void e_mov(struct lite_emit *e, bool w, unsigned to, unsigned from)
{
	e_op_r(e, w, 0x8b, to, from);
}
static inline void e_lea(struct lite_emit *e, bool w, unsigned to, unsigned base, s32 disp)
{
	e_op_m(e, w, 0x8d, to, base, disp);
}
static inline void e_mov_imm64(struct lite_emit *e, unsigned to, u64 v)
{
	e_rex(e, true, 0, 0, to);
	e_u8(e, 0xb8 | (to & 7));
	e_u64(e, v);
}
/* MOV to, imm32, sign-extended to 64 bits */
static inline void e_mov_imm32(struct lite_emit *e, unsigned to, s32 v)
{
	e_op_r(e, true, 0xc7, 0, to);
	e_u32(e, (u32)v);
}
/* MOV r/m32, imm32; with @w sign-extended */
static inline void e_store_imm(struct lite_emit *e, bool w, unsigned base, s32 disp, s32 imm)
{
	e_op_m(e, w, 0xc7, 0, base, disp);
	e_u32(e, imm);
}

/* The same to [base + index + disp]. */
static inline void e_store_imm_x(struct lite_emit *e, bool w, unsigned base, unsigned index, s32 disp, s32 imm)
{
	e_op_mx(e, w, 0xc7, 0, base, index, 0, disp);
	e_u32(e, imm);
}

/* MOVZX to, the lower 16 bits of from; the byte at [base + disp] */
static inline void e_movzx16(struct lite_emit *e, unsigned to, unsigned from)
{
	e_rex(e, false, to, 0, from);
	e_bytes(e, "\x0f\xb7", 2);
	e_u8(e, 0xc0 | (to & 7) << 3 | (from & 7));
}
static inline void e_load8(struct lite_emit *e, unsigned to, unsigned base, s32 disp)
{
	e_rex(e, false, to, 0, base);
	e_bytes(e, "\x0f\xb6", 2);
	e_mem(e, to, base, disp);
}
/* AND r32, imm32 */
static inline void e_and_imm(struct lite_emit *e, unsigned reg, u32 imm)
{
	e_op_r(e, false, 0x81, 4, reg);
	e_u32(e, imm);
}

/* RORX to, from, count: 64 bits, no flags. */
static inline void e_rorx(struct lite_emit *e, unsigned to, unsigned from, unsigned count)
{
	e_u8(e, 0xc4);
	e_u8(e, (~to & 8) << 4 | 0x40 | (~from & 8) << 2 | 3);
	e_u8(e, 0xfb);
	e_u8(e, 0xf0);
	e_u8(e, 0xc0 | (to & 7) << 3 | (from & 7));
	e_u8(e, count);
}

/* SHLX, SARX, SHRX to, from, count: 64 bits, no flags. */
enum { E_SHLX = 1, E_SARX = 2, E_SHRX = 3 };
static inline void e_shiftx(struct lite_emit *e, unsigned kind, unsigned to, unsigned from, unsigned count)
{
	e_u8(e, 0xc4);
	e_u8(e, (~to & 8) << 4 | 0x40 | (~from & 8) << 2 | 2);
	e_u8(e, 0x80 | (~count & 15) << 3 | kind);
	e_u8(e, 0xf7);
	e_u8(e, 0xc0 | (to & 7) << 3 | (from & 7));
}
/* The same of what is at [base + disp]. */
static inline void e_shiftx_m(struct lite_emit *e, unsigned kind, unsigned to, unsigned base, s32 disp, unsigned count)
{
	e_u8(e, 0xc4);
	e_u8(e, (~to & 8) << 4 | 0x40 | (~base & 8) << 2 | 2);
	e_u8(e, 0x80 | (~count & 15) << 3 | kind);
	e_u8(e, 0xf7);
	e_mem(e, to, base, disp);
}

/* JMP and CALL [base + disp], [base + index * 8 + disp] */
static inline void e_jmp_m(struct lite_emit *e, unsigned base, s32 disp)
{
	e_op_m(e, false, 0xff, 4, base, disp);
}
static inline void e_call_m(struct lite_emit *e, unsigned base, s32 disp)
{
	e_op_m(e, false, 0xff, 2, base, disp);
}
static inline void e_jmp_mx(struct lite_emit *e, unsigned base, unsigned index, s32 disp)
{
	e_op_mx(e, false, 0xff, 4, base, index, 3, disp);
}

/* PUSH of such */
static inline void e_push_m(struct lite_emit *e, unsigned base, s32 disp)
{
	e_op_m(e, false, 0xff, 6, base, disp);
}
static inline void e_push_mx(struct lite_emit *e, unsigned base, unsigned index, s32 disp)
{
	e_op_mx(e, false, 0xff, 6, base, index, 3, disp);
}
static inline void e_ret(struct lite_emit *e)
{
	e_u8(e, 0xc3);
}

/* Jumps. The field of a forward one is returned, for e_here(). */
static inline u8 *e_jcc(struct lite_emit *e, unsigned cond)
{
	e_u8(e, 0x0f);
	e_u8(e, 0x80 | cond);
	e_u32(e, 0);
	return e->p - 4;
}
static inline u8 *e_jmp(struct lite_emit *e)
{
	e_u8(e, 0xe9);
	e_u32(e, 0);
	return e->p - 4;
}
static inline u8 *e_call(struct lite_emit *e)
{
	e_u8(e, 0xe8);
	e_u32(e, 0);
	return e->p - 4;
}
static inline u8 *e_jrcxz(struct lite_emit *e)
{
	e_u8(e, 0xe3);
	e_u8(e, 0);
	return e->p - 1;
}
/* LEA to, [RIP + a field like those] */
static inline u8 *e_lea_rip(struct lite_emit *e, unsigned to)
{
	e_rex(e, true, to, 0, 0);
	e_u8(e, 0x8d);
	e_u8(e, (to & 7) << 3 | 5);
	e_u32(e, 0);
	return e->p - 4;
}
/* The jump whose 32-bit field is at @field goes to @rw. */
static inline void e_aim(struct lite_emit *e, u8 *field, const u8 *rw)
{
	s32 rel = (s32)(rw - (field + 4));

	if (!e->full)
		memcpy(field, &rel, 4);
}
static inline void e_here(struct lite_emit *e, u8 *field)
{
	e_aim(e, field, e->p);
}
static inline void e_here8(struct lite_emit *e, u8 *field)
{
	if (!e->full)
		*field = (u8)(e->p - (field + 1));
}
static inline void e_jmp_to(struct lite_emit *e, const u8 *rw)
{
	e_aim(e, e_jmp(e), rw);
}
static inline void e_jcc_to(struct lite_emit *e, unsigned cond, const u8 *rw)
{
	e_aim(e, e_jcc(e, cond), rw);
}

/* Conditions, as the manuals number them (tttn). */
enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

#endif
