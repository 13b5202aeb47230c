/*
 * The blocks that verify.c has the verifier look at: what they are made of, and what is said of those that are wrong. A case is
 *
 *	CASE("a write", NULL);
 *	check(x, 4, true);
 *	RAW("\xf0\x41\x01\x00");
 *
 * in verify_cases.c or verify_windows.c: what stands between the direct entry and the end of a block, and the reason for which that is not let through.
 */
#ifndef TESTS_LITE_VERIFY_H
#define TESTS_LITE_VERIFY_H

#include "core/x86/cpuid.h"
#include "engines/lite/jit.h"
#include "engines/lite/window.h"

#define BYTES 2048

struct code {
	_Alignas(64) u8 bytes[BYTES + 512]; /* what is behind BYTES is elsewhere */
	struct lite_emit e;
	struct jit_verify v;
	struct jit_insn insn;
	const char *name, *why;
	u8 *miss;    /* field of the jump to what end_miss() makes */
	u8 *back;
	bool flags;
	bool write;
	unsigned size;
	bool ended;
};

#define E	 (&x->e)
#define RAW(s)	 e_bytes(E, s, sizeof(s) - 1)
#define FN(n)	 VCPU(jit.fn[n])
#define FPU_ALL	 (~0U)
#define FPU_NONE 0U

static inline s32 view(unsigned user)
{
	return VCPU(views) + (s32)(user * sizeof(struct lite_view));
}
extern unsigned user; /* the view of the block */

static inline s32 tags(bool write)
{
	return jit_tags(user, write);
}
static inline s32 hosts(bool write)
{
	return jit_hosts(user, write);
}
static inline s32 cache(void)
{
	return view(user) + (s32)offsetof(struct lite_view, jit[0].to);
}
static inline s32 jump_va(void)
{
	return view(user) + (s32)offsetof(struct lite_view, jit[0].va);
}

/* ---- pieces ---------------------------------------------------------------------------------------------------------- */

/* T1 = an index made of @from. */
static inline void tlb_index(struct code *x, unsigned from)
{
	e_rorx(E, T1, from, 10);
	e_and_imm(E, T1, 0x3fffc);
}
static inline void flagless_index(struct code *x, unsigned from)
{
	e_rorx(E, T1, from, 12);
	e_movzx16(E, T1, T1);
	e_op_index(E, true, 0x8d, T1, T1, 2, 0);
}
static inline void jump_index(struct code *x, unsigned from)
{
	e_rorx(E, T1, from, LITE_JIT_JUMP_SHIFT - 1);
	e_and_imm(E, T1, 0x1fffe);
}
static inline void rcx_is(struct code *x, u32 imm)
{
	e_u8(E, 0xb8 | REG_CX);
	e_u32(E, imm);
}
/* RCX = the page that the byte @more from T0 is in. */
static inline void sum(struct code *x, unsigned more)
{
	e_lea(E, true, REG_CX, T0, (s32)more);
	e_store(E, true, REG_CX, HOST_RSP, VCPU(jit.sum));
}
static inline void shift_sum(struct code *x, u32 by)
{
	rcx_is(x, by);
	e_shiftx_m(E, E_SHRX, REG_CX, HOST_RSP, VCPU(jit.sum), REG_CX);
}
static inline void page_of(struct code *x, unsigned more)
{
	sum(x, more);
	shift_sum(x, 12);
}

/* T0 = an address. */
static inline void address(struct code *x)
{
	e_lea(E, true, T0, REG_BX, 16);
}

static inline void offset(struct code *x, bool write)
{
	address(x);
	tlb_index(x, T0);
	e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(write));
}

static inline void limit(struct code *x, unsigned size)
{
	RAW("\x49\x81\xf8");
	e_u32(E, 4096 - size);
	x->miss = e_jcc(E, CC_A);
}

static inline void add_host(struct code *x, bool write)
{
	e_op_mx(E, true, 0x03, T0, HOST_RSP, T1, 3, hosts(write));
}

static inline void check(struct code *x, unsigned size, bool write)
{
	offset(x, write);
	limit(x, size);
	add_host(x, write);
	x->back = E->p;
	x->size = size;
	x->write = write;
}

static inline void lend(struct code *x)
{
	e_store(E, true, REG_CX, HOST_RSP, VCPU(jit.save));
}
static inline void give_back(struct code *x)
{
	e_load(E, true, REG_CX, HOST_RSP, VCPU(jit.save));
}

/* The check without flags in steps, each to be had alone. */
static inline void flagless_offset(struct code *x, bool write)
{
	address(x);
	flagless_index(x, T0);
	lend(x);
	e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(write));
	RAW("\x48\xf7\xd1");
	e_op_mx(E, true, 0x8d, T0, T0, REG_CX, 0, 1);
}
static inline u8 *flagless_miss(struct code *x)
{
	u8 *hit = e_jrcxz(E), *miss = e_jmp(E);

	e_here8(E, hit);
	return miss;
}
static inline void flagless_base(struct code *x, bool write)
{
	give_back(x);
	e_op_mx(E, true, 0x8b, T1, HOST_RSP, T1, 3, hosts(write));
	e_op_mx(E, true, 0x8d, T0, T0, T1, 0, 0);
}
static inline void flagless_check(struct code *x, unsigned size, bool write)
{
	flagless_offset(x, write);
	page_of(x, size - 1);
	x->miss = flagless_miss(x);
	flagless_base(x, write);
	x->back = E->p;
	x->size = size;
	x->write = write;
	x->flags = true;
}

/* T2 without its upper @bits bits. */
static inline void cut(struct code *x, unsigned bits, unsigned other)
{
	lend(x);
	e_u8(E, 0xb8 | REG_CX);
	e_u32(E, bits);
	e_shiftx(E, E_SHLX, T2, T2, REG_CX);
	e_u8(E, 0xb8 | REG_CX);
	e_u32(E, other);
	e_shiftx(E, E_SHRX, T2, T2, REG_CX);
	give_back(x);
}

static inline void site(struct code *x, u32 v)
{
	e_store_imm(E, false, HOST_RSP, VCPU(jit.site), (s32)v);
}

static inline void jump_t0(struct code *x)
{
	jump_index(x, T0);
	e_jmp_mx(E, HOST_RSP, T1, cache());
}

/* The usual end. */
static inline void leave(struct code *x)
{
	e_load(E, true, T0, HOST_RSP, VCPU(vpage));
	jump_t0(x);
	x->ended = true;
}

static inline void undo(struct code *x, bool flags, bool write)
{
	if (flags) {
		e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(write));
		e_op_mx(E, true, 0x8d, T0, T0, REG_CX, 0, 0);
		give_back(x);
	} else {
		e_op_mx(E, true, 0x03, T0, HOST_RSP, T1, 3, tags(write));
	}
}

static inline void end_miss(struct code *x)
{
	e_here(E, x->miss);
	undo(x, x->flags, x->write);
	if (x->back) {
		site(x, 5 | x->size << 16 | (u32)x->write << 31);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_MISS));
		e_jmp_to(E, x->back);
	} else {
		site(x, 5);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_EMULATE));
	}
}

static inline void entry(struct code *x)
{
	e_op_mx(E, true, 0x3b, T0, HOST_RSP, T1, 3, jump_va());
	e_jcc_to(E, CC_NE, x->v.jump_miss);
	e_op_m(E, false, 0x83, 7, HOST_RSP, VCPU(budget));
	e_u8(E, 0);
	e_jcc_to(E, CC_S, x->v.poll_kept);
	e_lea(E, true, T1, T0, -64);
	e_store(E, true, T1, HOST_RSP, VCPU(vpage));
}

/* The host's CALL over the jump to @to, whose field can be written. */
static inline void own_call(struct code *x, const u8 *to)
{
	u8 *on;

	while (((uintptr_t)E->p + 6) & 7)
		e_u8(E, 0x90);
	on = e_call(E);
	x->v.lands = (u32)(E->p - x->bytes);
	e_jmp_to(E, to);
	e_here(E, on);
}

/* A jump that can be linked, and its call; @at: NULL, the jump is made here. */
static inline u8 *link_jump(struct code *x)
{
	while (((uintptr_t)E->p + 1) & 7)
		e_u8(E, 0x90);
	return e_jmp(E);
}
static inline void link_call(struct code *x, u8 *field, u32 less, u32 target)
{
	e_here(E, field);
	e_call_m(E, HOST_RSP, FN(LITE_JIT_LINK));
	e_u32(E, (u32)(E->p - field) - less); /* so many bytes behind it */
	e_u32(E, target);
	x->ended = true;
}

/* What a block that checks itself begins with, and what it goes to when its code is another. */
static inline void code_compared(struct code *x, unsigned size)
{
	u8 *field, *on;

	flagless_check(x, size, false);
	e_mov(E, true, T2, T0);
	e_mov(E, true, T1, REG_AX);
	RAW("\x9f\x0f\x90\xc0\x66");
	e_op_m(E, false, 0x89, REG_AX, HOST_RSP, VCPU(jit.code_fl));
	e_mov(E, true, REG_AX, T1);
	e_mov_imm64(E, T1, 0x0102030405060708);
	e_op_m(E, true, 0x39, T1, T2, 0);
	field = e_jcc(E, CC_NE);
	on = e_jmp(E);
	e_here(E, field);
	e_mov(E, true, T1, REG_AX);
	e_u8(E, 0x66);
	e_op_m(E, false, 0x8b, REG_AX, HOST_RSP, VCPU(jit.code_fl));
	RAW("\x04\x7f\x9e");
	e_mov(E, true, REG_AX, T1);
	site(x, 5);
	e_call_m(E, HOST_RSP, FN(LITE_JIT_DEAD));
	e_here(E, on);
}

/* ---- cases ----------------------------------------------------------------------------------------------------------- */

#define TRUSTS	  "a call without the argument that it trusts"
#define NOT_FOR	  "an instruction that is not for translated code"
#define AS_VALUE  "an address of the host is used as a value"
#define NO_FIELD  "a field of the vCPU that is not for translated code"
#define UNCHECKED "a host address, but no offset that was checked"
#define NO_ACCESS "an access to [T0] that was not checked"
#define NOT_KEPT  "RCX is lent but not kept"
#define NOT_BACK  "RCX is not the guest's at the end"
#define NO_FN	  "a call of what is no function for it"
#define KIND	  "an address of a kind that is not for translated code"
#define OPERAND	  "RSP is an operand"
#define ELSEWHERE "a jump to nowhere"
#define NO_INDEX  "a TLB without an index for it"
#define NO_TEXT	  "another page is entered, but not from text to text"
#define NO_LANDING "a call of the block's own without the jump behind it"
#define RSP_BACK "\x48\x8d\x64\x24\x08" /* lea rsp, [rsp + 8] */

#define CASE(text, reason) \
	return true;       \
	case __COUNTER__:  \
	x->name = text;    \
	x->why = reason

/** Emits case @n of blocks of the supervisor, or of users that have windows. False: there are no more. */
bool verify_case(struct code *x, unsigned n);
bool verify_window_case(struct code *x, unsigned n);

#endif
