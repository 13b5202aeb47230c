/*
 * jit_verify(): code as the translator makes it is let through, and the same with one thing wrong is not, for the reason that is expected.
 * That each reason has its case is counted.
 */
#include "core/x86/cpuid.h"
#include "engines/lite/jit.h"
#include "engines/lite/window.h"
#include "tests/tap.h"

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

static s32 view(unsigned user)
{
	return VCPU(views) + (s32)(user * sizeof(struct lite_view));
}
static unsigned user; /* the view of the block */

static s32 tags(bool write)
{
	return jit_tags(user, write);
}
static s32 hosts(bool write)
{
	return jit_hosts(user, write);
}
static s32 cache(void)
{
	return view(user) + (s32)offsetof(struct lite_view, jit[0].to);
}
static s32 jump_va(void)
{
	return view(user) + (s32)offsetof(struct lite_view, jit[0].va);
}

/* ---- pieces ---------------------------------------------------------------------------------------------------------- */

/* T1 = an index made of @from. */
static void tlb_index(struct code *x, unsigned from)
{
	e_rorx(E, T1, from, 10);
	e_and_imm(E, T1, 0x3fffc);
}
static void flagless_index(struct code *x, unsigned from)
{
	e_rorx(E, T1, from, 12);
	e_movzx16(E, T1, T1);
	e_op_index(E, true, 0x8d, T1, T1, 2, 0);
}
static void jump_index(struct code *x, unsigned from)
{
	e_rorx(E, T1, from, LITE_JIT_JUMP_SHIFT - 1);
	e_and_imm(E, T1, 0x1fffe);
}
static void rcx_is(struct code *x, u32 imm)
{
	e_u8(E, 0xb8 | REG_CX);
	e_u32(E, imm);
}
/* RCX = the page that the byte @more from T0 is in. */
static void sum(struct code *x, unsigned more)
{
	e_lea(E, true, REG_CX, T0, (s32)more);
	e_store(E, true, REG_CX, HOST_RSP, VCPU(jit.sum));
}
static void shift_sum(struct code *x, u32 by)
{
	rcx_is(x, by);
	e_shiftx_m(E, E_SHRX, REG_CX, HOST_RSP, VCPU(jit.sum), REG_CX);
}
static void page_of(struct code *x, unsigned more)
{
	sum(x, more);
	shift_sum(x, 12);
}

/* T0 = an address. */
static void address(struct code *x)
{
	e_lea(E, true, T0, REG_BX, 16);
}

static void offset(struct code *x, bool write)
{
	address(x);
	tlb_index(x, T0);
	e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(write));
}

static void limit(struct code *x, unsigned size)
{
	RAW("\x49\x81\xf8");
	e_u32(E, 4096 - size);
	x->miss = e_jcc(E, CC_A);
}

static void add_host(struct code *x, bool write)
{
	e_op_mx(E, true, 0x03, T0, HOST_RSP, T1, 3, hosts(write));
}

static void check(struct code *x, unsigned size, bool write)
{
	offset(x, write);
	limit(x, size);
	add_host(x, write);
	x->back = E->p;
	x->size = size;
	x->write = write;
}

static void lend(struct code *x)
{
	e_store(E, true, REG_CX, HOST_RSP, VCPU(jit.save));
}
static void give_back(struct code *x)
{
	e_load(E, true, REG_CX, HOST_RSP, VCPU(jit.save));
}

/* The check without flags in steps, each to be had alone. */
static void flagless_offset(struct code *x, bool write)
{
	address(x);
	flagless_index(x, T0);
	lend(x);
	e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(write));
	RAW("\x48\xf7\xd1");
	e_op_mx(E, true, 0x8d, T0, T0, REG_CX, 0, 1);
}
static u8 *flagless_miss(struct code *x)
{
	u8 *hit = e_jrcxz(E), *miss = e_jmp(E);

	e_here8(E, hit);
	return miss;
}
static void flagless_base(struct code *x, bool write)
{
	give_back(x);
	e_op_mx(E, true, 0x8b, T1, HOST_RSP, T1, 3, hosts(write));
	e_op_mx(E, true, 0x8d, T0, T0, T1, 0, 0);
}
static void flagless_check(struct code *x, unsigned size, bool write)
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
static void cut(struct code *x, unsigned bits, unsigned other)
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

static void site(struct code *x, u32 v)
{
	e_store_imm(E, false, HOST_RSP, VCPU(jit.site), (s32)v);
}

static void jump_t0(struct code *x)
{
	jump_index(x, T0);
	e_jmp_mx(E, HOST_RSP, T1, cache());
}

/* The usual end. */
static void leave(struct code *x)
{
	e_load(E, true, T0, HOST_RSP, VCPU(vpage));
	jump_t0(x);
	x->ended = true;
}

static void undo(struct code *x, bool flags, bool write)
{
	if (flags) {
		e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(write));
		e_op_mx(E, true, 0x8d, T0, T0, REG_CX, 0, 0);
		give_back(x);
	} else {
		e_op_mx(E, true, 0x03, T0, HOST_RSP, T1, 3, tags(write));
	}
}

static void end_miss(struct code *x)
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

static void entry(struct code *x)
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
static void own_call(struct code *x, const u8 *to)
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
static u8 *link_jump(struct code *x)
{
	while (((uintptr_t)E->p + 1) & 7)
		e_u8(E, 0x90);
	return e_jmp(E);
}
static void link_call(struct code *x, u8 *field, u32 less, u32 target)
{
	e_here(E, field);
	e_call_m(E, HOST_RSP, FN(LITE_JIT_LINK));
	e_u32(E, (u32)(E->p - field) - less); /* so many bytes behind it */
	e_u32(E, target);
	x->ended = true;
}

/* What a block that checks itself begins with, and what it goes to when its code is another. */
static void code_compared(struct code *x, unsigned size)
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

#define CASE(text, reason) \
	return true;       \
	case __COUNTER__:  \
	x->name = text;    \
	x->why = reason

/* Between the direct entry and the end of the block. */
static bool body(struct code *x, unsigned n)
{
	static struct jit_fast fast_on, fast_end = { .after = LITE_AFTER_CPL };
	static const struct jit_cross over;
	u8 *field, *mark, *early;

	switch (n) {
		/* What is right. */
		CASE("registers and flags", NULL);
		RAW("\x48\x01\xd8");		 /* add rax, rbx */
		RAW("\x49\x89\xc3");		 /* mov r11, rax */
		RAW("\x0f\x1f\x44\x24\x08");	 /* nop [rsp+8] */
		CASE("displaced registers", NULL);
		e_load(E, true, T1, HOST_RSP, VCPU_GPR(8));
		e_load(E, true, T2, HOST_RSP, VCPU_GPR(11));
		e_op_r(E, true, 0x01, T1, T2);
		e_store(E, true, T2, HOST_RSP, VCPU_GPR(11));
		CASE("a read", NULL);
		check(x, 8, false);
		e_load(E, true, REG_AX, T0, 0);
		CASE("a write", NULL);
		check(x, 4, true);
		RAW("\xf0\x41\x01\x00"); /* lock add [r8], eax */
		CASE("a read of a page that may be written", NULL);
		check(x, 8, true);
		e_load(E, false, REG_AX, T0, 0);
		CASE("a read without flags", NULL);
		flagless_check(x, 8, false);
		e_load(E, true, REG_CX, T0, 0);
		CASE("a write without flags", NULL);
		flagless_check(x, 64, true);
		e_store(E, true, REG_CX, T0, 0);
		CASE("a byte without flags", NULL);
		flagless_offset(x, true);
		page_of(x, 0);
		x->miss = flagless_miss(x);
		x->flags = x->write = true;
		flagless_base(x, true);
		RAW("\x41\x88\x00"); /* mov [r8], al */
		CASE("a bit string", NULL);
		e_mov(E, true, T2, REG_AX);
		e_mov(E, true, T1, T2);
		lend(x);
		e_u8(E, 0xb8 | REG_CX);
		e_u32(E, 5);
		e_shiftx(E, E_SARX, T1, T1, REG_CX);
		give_back(x);
		cut(x, 59, 59);
		check(x, 4, true);
		RAW("\x45\x0f\xab\x10"); /* bts [r8], r10d */
		CASE("a bit string of 64 bits", NULL);
		e_mov(E, true, T2, REG_CX);
		cut(x, 58, 58);
		check(x, 8, false);
		RAW("\x4d\x0f\xa3\x10"); /* bt [r8], r10 */
		CASE("RCX in T2 during the check", NULL);
		address(x);
		tlb_index(x, T0);
		e_mov(E, true, T2, REG_CX);
		e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(false));
		RAW("\x48\xf7\xd1");
		e_op_mx(E, true, 0x8d, T0, T0, REG_CX, 0, 1);
		page_of(x, 7);
		field = flagless_miss(x);
		e_mov(E, true, REG_CX, T2);
		e_op_mx(E, true, 0x8b, T1, HOST_RSP, T1, 3, hosts(false));
		e_op_mx(E, true, 0x8d, T0, T0, T1, 0, 0);
		e_load(E, true, REG_CX, T0, 0);
		leave(x);
		e_here(E, field);
		e_mov(E, true, REG_CX, T2);
		site(x, 5);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_EMULATE));
		CASE("segment bases", NULL);
		e_load(E, true, T1, HOST_RSP, VCPU(vcpu.x86.seg[SEG_FS].base));
		e_load(E, true, T1, HOST_RSP, VCPU(vcpu.x86.seg[SEG_GS].base));
		CASE("vectors", NULL);
		check(x, 16, false);
		RAW("\xc4\xc1\x79\x10\x00"); /* vmovupd xmm0, [r8] */
		CASE("a link", NULL);
		field = link_jump(x);
		link_call(x, field, 0, 0x10123);
		CASE("a link from text to text", NULL);
		x->v.mode = LITE_MODE_TEXT;
		e_store_imm(E, true, HOST_RSP, VCPU(vpage), (s32)0x81001000);
		field = link_jump(x);
		link_call(x, field, 0, 0x10123);
		CASE("a conditional link", NULL);
		while (((uintptr_t)E->p + 2) & 7)
			e_u8(E, 0x90);
		field = e_jcc(E, CC_NE);
		leave(x);
		link_call(x, field, 0, 0xfff);
		CASE("the emulator, at the end", NULL);
		x->insn = (struct jit_insn){ .off = 7, .given = &x->insn, .fn = LITE_JIT_INSN };
		e_mov_imm64(E, T0, (uintptr_t)&x->insn);
		site(x, 7);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_INSN));
		x->ended = true;
		CASE("system instructions on the way and at the end", NULL);
		x->insn = (struct jit_insn){ .off = 7, .given = &fast_on, .fn = LITE_JIT_FAST };
		e_mov_imm64(E, T0, (uintptr_t)&fast_on);
		site(x, 7);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_FAST));
		CASE("a system instruction at the end", NULL);
		x->insn = (struct jit_insn){ .off = 7, .given = &fast_end, .fn = LITE_JIT_FAST };
		e_mov_imm64(E, T0, (uintptr_t)&fast_end);
		site(x, 7);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_FAST));
		RAW("\x06\x06"); /* nobody comes here */
		x->ended = true;
		CASE("code compared, and an immediate read", NULL);
		code_compared(x, 12);
		e_op_m(E, true, 0x63, T1, T2, 8); /* movsxd r9, [r10 + 8] */
		RAW("\x4c\x01\xc8");		  /* add rax, r9 */
		CASE("an immediate behind the code that is compared", "an access that is larger than what was checked");
		code_compared(x, 12);
		e_op_m(E, true, 0x63, T1, T2, 9);
		CASE("an immediate in front of it", "an access that is larger than what was checked");
		code_compared(x, 12);
		e_op_m(E, true, 0x63, T1, T2, -4);
		CASE("an immediate that is written", "a write that was checked as a read");
		code_compared(x, 12);
		e_store(E, false, REG_AX, T2, 8);
		CASE("an immediate after T2 was something else", "an access to [T2] that was not checked");
		code_compared(x, 12);
		e_load(E, true, T2, HOST_RSP, VCPU_GPR(8));
		e_op_m(E, true, 0x63, T1, T2, 8);
		CASE("the code's host address for the guest", AS_VALUE);
		code_compared(x, 12);
		e_mov(E, true, REG_AX, T2);
		CASE("flags kept in eight bytes", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, VCPU(jit.code_fl));
		CASE("a host address kept for flags", AS_VALUE);
		check(x, 8, false);
		e_u8(E, 0x66);
		e_store(E, false, T0, HOST_RSP, VCPU(jit.code_fl));
		CASE("an instruction that goes on in the next page", NULL);
		x->insn = (struct jit_insn){ .off = 0xfff, .cross = &over };
		e_mov_imm64(E, T0, (uintptr_t)&over);
		site(x, 0xfff);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_CROSS));
		CASE("ends by jumps", NULL);
		address(x);
		e_jcc_to(E, CC_E, x->v.poll);
		e_jmp_to(E, x->v.jump_miss);
		x->ended = true;

		/* Between the check and the access. */
		CASE("no check at all", NO_ACCESS);
		address(x);
		e_load(E, true, REG_AX, T0, 0);
		CASE("no tag", UNCHECKED);
		address(x);
		tlb_index(x, T0);
		add_host(x, false);
		CASE("no comparison", UNCHECKED);
		offset(x, false);
		add_host(x, false);
		CASE("a comparison without a jump", UNCHECKED);
		offset(x, false);
		RAW("\x49\x81\xf8\xf8\x0f\x00\x00");
		add_host(x, false);
		CASE("the wrong jump", UNCHECKED);
		offset(x, false);
		RAW("\x49\x81\xf8\xf8\x0f\x00\x00");
		x->miss = e_jcc(E, CC_BE);
		add_host(x, false);
		CASE("a signed jump", UNCHECKED);
		offset(x, false);
		RAW("\x49\x81\xf8\xf8\x0f\x00\x00");
		x->miss = e_jcc(E, CC_G);
		add_host(x, false);
		CASE("a comparison of 32 bits", UNCHECKED);
		offset(x, false);
		RAW("\x41\x81\xf8\xf8\x0f\x00\x00");
		x->miss = e_jcc(E, CC_A);
		add_host(x, false);
		CASE("a comparison with more than a page", UNCHECKED);
		offset(x, false);
		RAW("\x49\x81\xf8\xf8\x1f\x00\x00");
		x->miss = e_jcc(E, CC_A);
		add_host(x, false);
		CASE("flags of something else", UNCHECKED);
		offset(x, false);
		RAW("\x49\x81\xf8\xf8\x0f\x00\x00");
		RAW("\x48\x01\xd8"); /* add rax, rbx */
		x->miss = e_jcc(E, CC_A);
		add_host(x, false);
		CASE("a tag of 32 bits", "a table is read, eight bytes at a time");
		address(x);
		tlb_index(x, T0);
		e_op_mx(E, false, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("a tag of no index", NO_INDEX);
		address(x);
		e_mov(E, true, T1, REG_AX);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("a tag of another address", "a tag by the index of another address");
		address(x);
		tlb_index(x, REG_BX);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("a tag of what the address was before", "a tag by the index of another address");
		address(x);
		tlb_index(x, T0);
		e_lea(E, true, T0, T0, 1);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("without flags, a tag of another address", "a tag by the index of another address");
		address(x);
		tlb_index(x, REG_BX);
		lend(x);
		e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(false));
		RAW("\x48\xf7\xd1");
		e_op_mx(E, true, 0x8d, T0, T0, REG_CX, 0, 1);
		CASE("a tag by the jump cache's index", NO_INDEX);
		address(x);
		jump_index(x, T0);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("an index from memory", NO_INDEX);
		address(x);
		tlb_index(x, T0);
		e_load(E, true, T1, HOST_RSP, VCPU_GPR(9));
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("another index after the check", UNCHECKED);
		offset(x, false);
		limit(x, 8);
		e_lea(E, true, REG_AX, REG_BX, 0);
		tlb_index(x, REG_AX);
		add_host(x, false);
		CASE("T0 changed after the check", UNCHECKED);
		offset(x, false);
		limit(x, 8);
		e_lea(E, true, T0, T0, 1);
		add_host(x, false);
		CASE("T0 changed before the access", NO_ACCESS);
		check(x, 8, false);
		e_load(E, true, T0, HOST_RSP, VCPU_GPR(8));
		e_load(E, true, REG_AX, T0, 0);
		CASE("tags of reads, host addresses of writes", UNCHECKED);
		offset(x, false);
		limit(x, 8);
		add_host(x, true);
		CASE("a table that is written", "a table is read, eight bytes at a time");
		address(x);
		tlb_index(x, T0);
		e_op_mx(E, true, 0x89, T0, HOST_RSP, T1, 3, tags(false));
		CASE("a tag for something else", "a use of a TLB that is none");
		address(x);
		tlb_index(x, T0);
		e_op_mx(E, true, 0x8b, REG_AX, HOST_RSP, T1, 3, tags(false));
		CASE("a host address to a register of the guest's", "a use of a TLB that is none");
		offset(x, false);
		limit(x, 8);
		e_op_mx(E, true, 0x8b, REG_AX, HOST_RSP, T1, 3, hosts(false));
		CASE("the other view's TLB", "no table, or another view's");
		address(x);
		tlb_index(x, T0);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false) + (s32)sizeof(struct lite_view));
		CASE("a table with an offset", "no table, or another view's");
		address(x);
		tlb_index(x, T0);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false) + (s32)sizeof(struct lite_tlb_entry));
		CASE("a table by another register", "memory that is neither the vCPU nor at T0");
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, REG_AX, 3, tags(false));
		CASE("a jump to behind the check", NO_ACCESS);
		address(x);
		field = e_jcc(E, CC_E);
		check(x, 8, false);
		e_here(E, field);
		e_load(E, true, REG_AX, T0, 0);
		CASE("a jump to before the access, from a smaller check", "an access that is larger than what was checked");
		check(x, 4, false);
		e_load(E, true, REG_AX, T0, 0);
		CASE("more than was checked", "an access that is larger than what was checked");
		check(x, 8, false);
		RAW("\xc4\xc1\x79\x10\x00"); /* 16 bytes */
		CASE("a size that nobody knows", "an access that is larger than what was checked");
		check(x, 64, false);
		RAW("\x41\x0f\x01\x38"); /* invlpg [r8] */
		x->why = NOT_FOR;
		CASE("a write to what may be read", "a write that was checked as a read");
		check(x, 8, false);
		e_store(E, true, REG_AX, T0, 0);
		CASE("a read and write of what may be read", "a write that was checked as a read");
		check(x, 4, false);
		RAW("\xf0\x41\x01\x00");
		CASE("beside T0", "memory that is neither the vCPU nor at T0");
		check(x, 8, false);
		e_load(E, true, REG_AX, T0, 8);
		CASE("T0 with an index", "memory that is neither the vCPU nor at T0");
		check(x, 8, false);
		e_op_mx(E, true, 0x8b, REG_AX, T0, REG_BX, 0, 0);
		CASE("the guest's address", "memory that is neither the vCPU nor at T0");
		e_load(E, true, REG_AX, REG_BX, 0);
		CASE("an absolute address", "memory that is neither the vCPU nor at T0");
		RAW("\x48\x8b\x04\x25\x00\x10\x00\x00");
		CASE("a miss of fewer bytes than the access", "an access that is larger than what was checked");
		check(x, 8, false);
		e_load(E, true, REG_AX, T0, 0);
		x->size = 4;
		x->why = NO_ACCESS;
		CASE("a miss for reading before a write", NO_ACCESS);
		check(x, 8, true);
		e_store(E, true, REG_AX, T0, 0);
		e_load(E, true, T0, HOST_RSP, VCPU(vpage));
		jump_t0(x);
		x->ended = true;
		e_here(E, x->miss);
		undo(x, false, true);
		site(x, 5 | 8 << 16);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_MISS));
		e_jmp_to(E, x->back);
		x->miss = NULL;

		/* The same without flags. */
		CASE("without flags, no look at the first byte", UNCHECKED);
		flagless_offset(x, false);
		flagless_base(x, false);
		CASE("without flags, a look that leads nowhere", UNCHECKED);
		flagless_offset(x, false);
		page_of(x, 0);
		flagless_base(x, false);
		CASE("without flags, no look at the last byte", "an access that is larger than what was checked");
		flagless_offset(x, false);
		page_of(x, 0);
		x->miss = flagless_miss(x);
		x->flags = true;
		flagless_base(x, false);
		e_load(E, true, REG_AX, T0, 0);
		CASE("without flags, a look at the wrong byte", "an access that is larger than what was checked");
		flagless_check(x, 7, false);
		e_load(E, true, REG_AX, T0, 0);
		CASE("without flags, shifted too far", UNCHECKED);
		flagless_offset(x, false);
		sum(x, 0);
		shift_sum(x, 13);
		x->miss = flagless_miss(x);
		x->flags = true;
		flagless_base(x, false);
		CASE("without flags, a sum of the address", UNCHECKED);
		address(x);
		flagless_index(x, T0);
		lend(x);
		jit_load_budget(E);
		sum(x, 0);
		e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(false));
		RAW("\x48\xf7\xd1");
		e_op_mx(E, true, 0x8d, T0, T0, REG_CX, 0, 1);
		shift_sum(x, 12);
		x->miss = flagless_miss(x);
		x->flags = true;
		flagless_base(x, false);
		CASE("without flags, by half of RCX", UNCHECKED);
		flagless_offset(x, false);
		page_of(x, 0);
		e_u8(E, 0x67);
		x->miss = flagless_miss(x);
		x->flags = true;
		flagless_base(x, false);
		CASE("without flags, the wrong way", UNCHECKED);
		flagless_offset(x, false);
		page_of(x, 0);
		mark = e_jrcxz(E);
		flagless_base(x, false);
		e_here8(E, mark);
		CASE("without flags, a tag that is added", UNCHECKED);
		address(x);
		tlb_index(x, T0);
		lend(x);
		e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(false));
		e_op_mx(E, true, 0x8d, T0, T0, REG_CX, 0, 0);
		give_back(x);
		add_host(x, false);
		CASE("without flags, a tag of writes for reads", UNCHECKED);
		flagless_offset(x, true);
		page_of(x, 0);
		x->miss = flagless_miss(x);
		x->flags = true;
		flagless_base(x, false);
		CASE("without flags, another index", UNCHECKED);
		flagless_offset(x, false);
		page_of(x, 0);
		x->miss = flagless_miss(x);
		x->flags = true;
		give_back(x);
		tlb_index(x, REG_BX);
		e_op_mx(E, true, 0x8b, T1, HOST_RSP, T1, 3, hosts(false));

		/* Registers. */
		CASE("RSP for a value", OPERAND);
		RAW("\x48\x89\xe0"); /* mov rax, rsp */
		CASE("RSP written", OPERAND);
		RAW("\x48\x83\xc4\x08"); /* add rsp, 8 */
		CASE("an address of RSP", OPERAND);
		RAW("\x48\x8d\x44\x24\x08"); /* lea rax, [rsp+8] */
		CASE("RSP in a sum", OPERAND);
		RAW("\x48\x8d\x04\x1c"); /* lea rax, [rsp+rbx] */
		CASE("PUSH", "an indirect jump that is not by the jump cache");
		RAW("\x50");
		CASE("a host address for the guest", AS_VALUE);
		check(x, 8, false);
		e_mov(E, true, REG_AX, T0);
		CASE("a host address in a sum", AS_VALUE);
		check(x, 8, false);
		e_lea(E, true, REG_AX, T0, 0);
		CASE("a host address to memory", AS_VALUE);
		check(x, 8, true);
		e_store(E, true, T0, T0, 0);
		CASE("a host address to the guest's registers", AS_VALUE);
		check(x, 8, false);
		e_store(E, true, T0, HOST_RSP, VCPU_GPR(8));
		CASE("a page's host address in a sum", AS_VALUE);
		flagless_check(x, 8, false);
		e_lea(E, true, REG_AX, T1, 0);
		CASE("the tag of a host address", AS_VALUE);
		check(x, 8, false);
		tlb_index(x, REG_BX);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("what the last block left", AS_VALUE);
		e_mov(E, true, REG_AX, T2);
		CASE("half of what the last block left", AS_VALUE);
		RAW("\x41\xb1\x05"); /* mov r9b, 5 */
		CASE("an index made of a host address", "an index made of what is no address of the guest's");
		check(x, 8, false);
		tlb_index(x, T0);
		CASE("an index of RCX while it is lent", "an index made of what is no address of the guest's");
		lend(x);
		jit_load_budget(E);
		tlb_index(x, REG_CX);
		CASE("an index of other bits", NO_INDEX);
		address(x);
		e_rorx(E, T1, T0, 11);
		e_and_imm(E, T1, 0x3fffc);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("an index of more bits", NO_INDEX);
		address(x);
		e_rorx(E, T1, T0, 10);
		e_and_imm(E, T1, 0x7fffc);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("an index of odd bits", NO_INDEX);
		address(x);
		e_rorx(E, T1, T0, 10);
		e_and_imm(E, T1, 0x3fffe);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("an index of all bits", NO_INDEX);
		address(x);
		e_rorx(E, T1, T0, 10);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("an index of 32 bits", NO_INDEX);
		address(x);
		RAW("\xc4\x43\x7b\xf0\xc8\x0a"); /* rorx r9d, r8d, 10 */
		e_and_imm(E, T1, 0x3fffc);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("without flags, an index of other bits", NO_INDEX);
		address(x);
		e_rorx(E, T1, T0, 13);
		e_movzx16(E, T1, T1);
		e_op_index(E, true, 0x8d, T1, T1, 2, 0);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("without flags, an index of all bits", NO_INDEX);
		address(x);
		e_rorx(E, T1, T0, 12);
		e_op_index(E, true, 0x8d, T1, T1, 2, 0);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("without flags, an index that is too large", NO_INDEX);
		address(x);
		e_rorx(E, T1, T0, 12);
		e_movzx16(E, T1, T1);
		e_op_index(E, true, 0x8d, T1, T1, 3, 0);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("without flags, an index beside it", NO_INDEX);
		address(x);
		e_rorx(E, T1, T0, 12);
		e_movzx16(E, T1, T1);
		e_op_index(E, true, 0x8d, T1, T1, 2, 8);
		e_op_mx(E, true, 0x2b, T0, HOST_RSP, T1, 3, tags(false));
		CASE("the jump cache's index, not doubled", "an indirect jump that is not by the jump cache");
		address(x);
		e_rorx(E, T1, T0, LITE_JIT_JUMP_SHIFT - 1);
		e_and_imm(E, T1, 0xffff);
		e_jmp_mx(E, HOST_RSP, T1, cache());
		CASE("the jump cache's index of other bits", "an indirect jump that is not by the jump cache");
		address(x);
		e_rorx(E, T1, T0, LITE_JIT_JUMP_SHIFT);
		e_and_imm(E, T1, 0x1fffe);
		e_jmp_mx(E, HOST_RSP, T1, cache());
		CASE("a sum of the guest's RCX", "a sum of something else than T0");
		address(x);
		sum(x, 0);
		CASE("a sum of the budget", "a sum of something else than T0");
		address(x);
		lend(x);
		jit_load_budget(E);
		e_store(E, true, REG_CX, HOST_RSP, VCPU(jit.sum));
		CASE("a sum for the guest", "a use of the sum that is none");
		e_load(E, true, REG_AX, HOST_RSP, VCPU(jit.sum));
		CASE("a sum shifted to another register", "a use of the sum that is none");
		address(x);
		lend(x);
		jit_load_budget(E);
		sum(x, 0);
		rcx_is(x, 12);
		e_shiftx_m(E, E_SHRX, REG_DX, HOST_RSP, VCPU(jit.sum), REG_CX);
		CASE("a sum shifted by itself", "a sum that is shifted by no number");
		address(x);
		lend(x);
		jit_load_budget(E);
		sum(x, 0);
		e_shiftx_m(E, E_SHRX, REG_CX, HOST_RSP, VCPU(jit.sum), REG_CX);
		CASE("RCX taken for the budget", NOT_KEPT);
		jit_load_budget(E);
		CASE("RCX taken for a tag", NOT_KEPT);
		address(x);
		tlb_index(x, T0);
		e_op_mx(E, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags(false));
		CASE("a host address compared with the jump cache", AS_VALUE);
		check(x, 8, false);
		jump_index(x, REG_BX);
		e_op_mx(E, true, 0x3b, T0, HOST_RSP, T1, 3, jump_va());
		CASE("RAX that carries the flags and comes back", NULL);
		e_mov(E, true, T0, REG_AX);
		RAW("\x9f\x0f\x90\xc0\x66");
		e_op_m(E, false, 0x89, REG_AX, HOST_RSP, VCPU(fl));
		e_mov(E, true, REG_AX, T0);
		e_mov(E, true, T1, REG_AX);
		e_u8(E, 0x66);
		e_op_m(E, false, 0x8b, REG_AX, HOST_RSP, VCPU(fl));
		RAW("\x04\x7f\x9e");
		e_mov(E, true, REG_AX, T1);
		RAW("\x48\xff\xc0"); /* inc rax */
		CASE("flags that the guest has in RAX", NULL);
		e_mov(E, true, T1, REG_AX);
		RAW("\x9f\x0f\x97\xc0"); /* lahf; seta al */
		CASE("a copy of RCX that is old", NOT_KEPT);
		lend(x);
		RAW("\x48\xff\xc1"); /* inc rcx */
		jit_load_budget(E);
		CASE("a copy of RCX in T2 that is old", NOT_KEPT);
		e_mov(E, true, T2, REG_CX);
		RAW("\x48\xff\xc1");
		jit_load_budget(E);
		CASE("a copy of RCX in T2 that is gone", "what is restored is not the guest's RCX");
		lend(x);
		e_mov(E, true, T2, REG_CX);
		jit_load_budget(E);
		e_load(E, true, T2, HOST_RSP, VCPU_GPR(8));
		e_mov(E, true, REG_CX, T2);
		CASE("RCX from nowhere", "what is restored is not the guest's RCX");
		give_back(x);
		CASE("RCX saved when it is lent", "what is saved is not the guest's RCX");
		e_mov(E, true, T2, REG_CX);
		jit_load_budget(E);
		lend(x);
		CASE("the guest's use of RCX while it is lent", "RCX is used while it is lent");
		lend(x);
		jit_load_budget(E);
		RAW("\x48\xd3\xe0"); /* shl rax, cl */
		CASE("RCX lent at the end", NOT_BACK);
		lend(x);
		jit_load_budget(E);
		CASE("RCX lent on one of two ways", NOT_BACK);
		lend(x);
		field = e_jcc(E, CC_E);
		jit_load_budget(E);
		e_here(E, field);
		CASE("RCX lent in a jump out", NOT_BACK);
		lend(x);
		jit_load_budget(E);
		address(x);
		e_jmp_to(E, x->v.poll);
		CASE("RCX lent in a call", NOT_BACK);
		lend(x);
		jit_load_budget(E);
		site(x, 5);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_EMULATE));
		CASE("a bit string without an end", "a bit string without an end");
		e_mov(E, true, T2, REG_AX);
		check(x, 4, true);
		RAW("\x45\x0f\xab\x10");
		CASE("a bit string of another size", "a bit string without an end");
		e_mov(E, true, T2, REG_AX);
		cut(x, 58, 58);
		check(x, 4, true);
		RAW("\x45\x0f\xab\x10");
		CASE("a bit string that is cut by more than it was shifted", "a bit string without an end");
		e_mov(E, true, T2, REG_AX);
		cut(x, 58, 59);
		check(x, 4, true);
		RAW("\x45\x0f\xab\x10");
		CASE("a bit string that is not cut", "a bit string without an end");
		e_mov(E, true, T2, REG_AX);
		cut(x, 0, 0);
		check(x, 4, true);
		RAW("\x45\x0f\xab\x10");
		CASE("a bit string by another register", "a bit string without an end");
		e_mov(E, true, T2, REG_AX);
		cut(x, 59, 59);
		check(x, 4, true);
		RAW("\x41\x0f\xab\x00"); /* bts [r8], eax */
		CASE("a bit string whose offset changed", "a bit string without an end");
		e_mov(E, true, T2, REG_AX);
		cut(x, 59, 59);
		check(x, 4, true);
		e_mov(E, true, T2, REG_AX);
		RAW("\x45\x0f\xab\x10");

		/* The vCPU. */
		CASE("a field that is none of its", NO_FIELD);
		e_load(E, true, REG_AX, HOST_RSP, VCPU(jit.c_sp));
		CASE("the guest's RAX at home", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, VCPU_GPR(REG_AX));
		CASE("the budget written", NO_FIELD);
		e_store_imm(E, false, HOST_RSP, VCPU(budget), 0);
		CASE("a segment base written", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, VCPU(vcpu.x86.seg[SEG_FS].base));
		CASE("SWAPGS", NULL);
		e_load(E, true, T0, HOST_RSP, VCPU(vcpu.x86.seg[SEG_GS].base));
		e_load(E, true, T1, HOST_RSP, VCPU(vcpu.x86.kernel_gs_base));
		e_store(E, true, T1, HOST_RSP, VCPU(vcpu.x86.seg[SEG_GS].base));
		e_store(E, true, T0, HOST_RSP, VCPU(vcpu.x86.kernel_gs_base));
		CASE("a base of GS that is the host's", AS_VALUE);
		check(x, 8, false);
		e_store(E, true, T0, HOST_RSP, VCPU(vcpu.x86.seg[SEG_GS].base));
		CASE("IF cleared, looked at and set", NULL);
		e_op_m(E, false, 0x81, 4, HOST_RSP, VCPU(vcpu.x86.rflags));
		e_u32(E, ~0x200u);
		e_op_m(E, false, 0xf7, 0, HOST_RSP, VCPU(vcpu.x86.rflags));
		e_u32(E, 0x200);
		e_op_m(E, false, 0x81, 1, HOST_RSP, VCPU(vcpu.x86.rflags));
		e_u32(E, 0x200);
		CASE("the TSC read", NULL);
		e_op_m(E, false, 0xf7, 0, HOST_RSP, VCPU(vcpu.features[X86_FEATURE_WORD(X86_FEATURE_RDTSCP)]));
		e_u32(E, X86_FEATURE_BIT(X86_FEATURE_RDTSCP));
		RAW("\x0f\x31"); /* rdtsc */
		RAW("\x0f\x01\xf9"); /* rdtscp */
		e_load(E, true, T1, HOST_RSP, VCPU(vcpu.tsc_offset));
		e_load(E, false, REG_CX, HOST_RSP, VCPU(vcpu.x86.tsc_aux));
		CASE("the TSC's offset written", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, VCPU(vcpu.tsc_offset));
		CASE("IA32_TSC_AUX written", NO_FIELD);
		e_store(E, false, REG_AX, HOST_RSP, VCPU(vcpu.x86.tsc_aux));
		CASE("a feature of CPUID set", NO_FIELD);
		e_op_m(E, false, 0x81, 1, HOST_RSP, VCPU(vcpu.features[X86_FEATURE_WORD(X86_FEATURE_RDTSCP)]));
		e_u32(E, X86_FEATURE_BIT(X86_FEATURE_RDTSCP));
		CASE("IOPL set", NO_FIELD);
		e_op_m(E, false, 0x81, 1, HOST_RSP, VCPU(vcpu.x86.rflags));
		e_u32(E, 0x3000);
		CASE("all of RFLAGS written", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, VCPU(vcpu.x86.rflags));
		CASE("what waits for IF forgotten", NO_FIELD);
		e_store_imm(E, false, HOST_RSP, VCPU(window_irq), 0);
		CASE("a function's address read", NO_FIELD);
		e_load(E, true, REG_AX, HOST_RSP, FN(LITE_JIT_MISS));
		CASE("a function's address written", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, FN(LITE_JIT_MISS));
		CASE("the copy of RCX overwritten", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, VCPU(jit.save));
		CASE("the page from another register", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, VCPU(vpage));
		CASE("between two fields", NO_FIELD);
		e_load(E, true, REG_AX, HOST_RSP, VCPU_GPR(8) + 4);
		CASE("beyond the last field", NO_FIELD);
		RAW("\xc4\xe1\x79\x10\x84\x24"); /* vmovupd xmm0, [rsp+...] */
		e_u32(E, VCPU_GPR(11));
		CASE("the host's stack", NO_FIELD);
		e_store(E, true, REG_AX, HOST_RSP, -8);
		CASE("the page, without a look", "the page is set without a look at where the jump was to go");
		e_lea(E, true, T1, REG_BX, 0);
		e_store(E, true, T1, HOST_RSP, VCPU(vpage));
		CASE("another page, from no text", NO_TEXT);
		e_store_imm(E, true, HOST_RSP, VCPU(vpage), 0x1000);
		CASE("the middle of another page", NO_TEXT);
		x->v.mode = LITE_MODE_TEXT;
		e_store_imm(E, true, HOST_RSP, VCPU(vpage), 0x1008);
		CASE("half of another page's address", NO_FIELD);
		x->v.mode = LITE_MODE_TEXT;
		e_store_imm(E, false, HOST_RSP, VCPU(vpage), 0x1000);
		CASE("the jump cache without an index", "the jump cache without an index for it");
		address(x);
		e_mov(E, true, T1, REG_AX);
		e_op_mx(E, true, 0x3b, T0, HOST_RSP, T1, 3, jump_va());
		CASE("the jump cache for something else", "a use of the jump cache that is none");
		address(x);
		jump_index(x, T0);
		e_op_mx(E, true, 0x8b, REG_AX, HOST_RSP, T1, 3, jump_va());

		/* Kinds of instructions and addresses. */
		CASE("GS", "GS, but not with the guest's registers");
		check(x, 8, false);
		RAW("\x65\x49\x8b\x00");
		CASE("addresses of 32 bits", KIND);
		check(x, 8, false);
		RAW("\x67\x49\x8b\x00");
		CASE("beside RIP", KIND);
		RAW("\x48\x8b\x05\x00\x00\x00\x00");
		CASE("a gather", KIND);
		check(x, 64, false);
		RAW("\xc4\xc2\xe9\x90\x04\x08"); /* vpgatherdq */
		CASE("SYSCALL", NOT_FOR);
		RAW("\x0f\x05");
		CASE("INT3", NOT_FOR);
		RAW("\xcc");
		CASE("INT", NOT_FOR);
		RAW("\xcd\x80");
		CASE("HLT", NOT_FOR);
		RAW("\xf4");
		CASE("OUT", NOT_FOR);
		RAW("\xee");
		CASE("STD", NOT_FOR);
		RAW("\xfd");
		CASE("RDPMC", NOT_FOR);
		RAW("\x0f\x33");
		CASE("WRPKRU", NOT_FOR);
		RAW("\x0f\x01\xef");
		CASE("WRFSBASE", NOT_FOR);
		RAW("\xf3\x48\x0f\xae\xd0");
		CASE("MOVS", NOT_FOR);
		RAW("\xa4");
		CASE("XLAT", NOT_FOR);
		RAW("\xd7");
		CASE("XRSTOR", NOT_FOR);
		check(x, 64, false);
		RAW("\x41\x0f\xae\x28");
		CASE("FNSAVE", NOT_FOR);
		check(x, 64, true);
		RAW("\x41\xdd\x30");
		CASE("MASKMOVDQU", NOT_FOR);
		RAW("\x66\x0f\xf7\xc1");
		CASE("RET", NOT_FOR);
		RAW("\xc3");
		CASE("LOOP", NOT_FOR);
		RAW("\xe2\xfe");
		CASE("vectors that the guest may not use", NOT_FOR);
		x->v.fpu_usable = FPU_NONE;
		RAW("\x0f\x57\xc0"); /* xorps */
		CASE("no instruction", "no instruction");
		RAW("\x06");

		/* Ways. */
		CASE("a jump out of the block", ELSEWHERE);
		e_jmp_to(E, E->p + 4096);
		CASE("a jump to before the block", ELSEWHERE);
		e_jmp_to(E, (u8 *)((uintptr_t)x->bytes - 1));
		CASE("the end of the code", ELSEWHERE);
		e_jmp_to(E, E->p + 5);
		x->ended = true;
		x->v.size = 1; /* see build() */
		CASE("a jump into an instruction", "a jump into an instruction");
		e_mov_imm64(E, REG_AX, 0x9090909090909090);
		e_jcc_to(E, CC_E, E->p - 4);
		CASE("an instruction in another", "instructions that overlap");
		RAW("\xeb\x01"); /* over the first byte */
		mark = E->p;
		RAW("\x48\x31\xc0");
		e_jcc_to(E, CC_E, mark);
		CASE("a jump of 16 bits", "a jump of 16 bits");
		RAW("\x66\xe9\x00\x00\x00\x00");
		CASE("an indirect jump", "an indirect jump that is not by the jump cache");
		RAW("\xff\xe0");
		CASE("a jump by a TLB", "an indirect jump that is not by the jump cache");
		address(x);
		jump_index(x, T0);
		e_jmp_mx(E, HOST_RSP, T1, hosts(false));
		CASE("a jump by the jump cache with the TLB's index", "an indirect jump that is not by the jump cache");
		address(x);
		tlb_index(x, T0);
		e_jmp_mx(E, HOST_RSP, T1, cache());
		CASE("a jump by the other view's cache", "an indirect jump that is not by the jump cache");
		address(x);
		jump_index(x, T0);
		e_jmp_mx(E, HOST_RSP, T1, cache() + (s32)sizeof(struct lite_view));
		CASE("the guest sent to a host address", "an address of the host for the guest to go to");
		check(x, 8, false);
		jump_index(x, REG_BX);
		e_jmp_mx(E, HOST_RSP, T1, cache());
		CASE("the guest sent to a host address, with a poll", "an address of the host for the guest to go to");
		check(x, 8, false);
		e_jmp_to(E, x->v.poll);
		CASE("an indirect call", NO_FN);
		RAW("\xff\xd0");
		CASE("a direct call", NO_LANDING);
		RAW("\xe8\x00\x00\x00\x00");
#define RSP_BACK "\x48\x8d\x64\x24\x08" /* lea rsp, [rsp + 8] */
		CASE("a call over its landing", NULL);
		own_call(x, x->v.jump_miss);
		RAW(RSP_BACK);
		CASE("a call over a landing that leads elsewhere", NO_LANDING);
		own_call(x, x->v.poll);
		RAW(RSP_BACK);
		CASE("a call over a landing that is not said to be one", NO_LANDING);
		own_call(x, x->v.jump_miss);
		x->v.lands++;
		RAW(RSP_BACK);
		CASE("a call over a landing that cannot be written", NO_LANDING);
		while (((uintptr_t)E->p + 1) & 7)
			e_u8(E, 0x90);
		x->v.lands = (u32)(E->p - x->bytes) + 5;
		RAW("\xe8\x05\x00\x00\x00"); /* its field is at 7 of 8 */
		field = e_jmp(E);
		e_aim(E, field, x->v.jump_miss);
		RAW(RSP_BACK);
		CASE("a call and RSP stays where it is", "RSP is not made the vCPU again");
		own_call(x, x->v.jump_miss);
		CASE("a call and RSP becomes something else", "RSP is not made the vCPU again");
		own_call(x, x->v.jump_miss);
		RAW("\x48\x8d\x64\x24\x10"); /* lea rsp, [rsp + 16] */
		CASE("RSP moves without a call", "RSP is an operand");
		RAW(RSP_BACK);
		CASE("a call, and a way to behind it without", "RSP is one thing on one way, and another on another");
		field = e_jcc(E, CC_S);
		own_call(x, x->v.jump_miss);
		e_here(E, field);
		RAW(RSP_BACK);
		CASE("RET by the jump cache", NULL);
		address(x);
		jump_index(x, T0);
		e_push_mx(E, HOST_RSP, T1, cache());
		e_ret(E);
		x->ended = true;
		CASE("RET to the page of a TLB", "an indirect jump that is not by the jump cache");
		address(x);
		jump_index(x, T0);
		e_push_mx(E, HOST_RSP, T1, hosts(false));
		e_ret(E);
		CASE("RET to wherever", NOT_FOR);
		e_ret(E);
		CASE("RET and more", "a place for RET to go to, and no RET");
		address(x);
		jump_index(x, T0);
		e_push_mx(E, HOST_RSP, T1, cache());
		RAW("\xc2\x08\x00"); /* ret 8 */
		CASE("a place for RET, but no RET", "a place for RET to go to, and no RET");
		address(x);
		jump_index(x, T0);
		e_push_mx(E, HOST_RSP, T1, cache());
		CASE("to another block's call", NULL);
		x->v.tail = x->bytes + BYTES + 128;
		check(x, 8, false);
		e_jmp_to(E, x->v.tail);
		CASE("to another block's call, with the host's for the guest to go to", "an address of the host for the guest to go to");
		x->v.tail = x->bytes + BYTES + 128;
		x->v.tail_t0 = true;
		check(x, 8, false);
		e_jmp_to(E, x->v.tail);
		CASE("to what is not quite another block's call", ELSEWHERE);
		x->v.tail = x->bytes + BYTES + 128;
		e_jmp_to(E, x->v.tail + 1);
		CASE("a call that leaves with RSP moved", "RSP is not made the vCPU again");
		own_call(x, x->v.jump_miss);
		e_jmp_to(E, x->v.jump_miss);
		CASE("a call between two functions", NO_FN);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_MISS) + 4);
		CASE("a call beyond the functions", NO_FN);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_FNS));
		CASE("a call that is not for blocks", NO_FN);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_POLL));
		CASE("a miss without a site", TRUSTS);
		address(x);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_MISS));
		CASE("a miss of nothing", TRUSTS);
		address(x);
		site(x, 5);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_MISS));
		CASE("a miss of 513 bytes", TRUSTS);
		address(x);
		site(x, 5 | (JIT_GROUP_MAX + 1) << 16);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_MISS));
		CASE("a miss at a host address", "an address of the host for one of the guest's");
		check(x, 8, false);
		site(x, 5 | 8 << 16);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_MISS));
		CASE("the emulator without a site", TRUSTS);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_EMULATE));
		CASE("a site outside of the page", TRUSTS);
		site(x, 0x1000);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_EMULATE));
		CASE("a site on one of two ways", TRUSTS);
		field = e_jcc(E, CC_E);
		site(x, 5);
		e_here(E, field);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_EMULATE));
		CASE("an instruction that the guest made up", TRUSTS);
		x->insn = (struct jit_insn){ .off = 7, .given = &x->insn, .fn = LITE_JIT_INSN };
		e_load(E, true, T0, HOST_RSP, VCPU_GPR(8));
		site(x, 7);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_INSN));
		CASE("an instruction that nobody made", TRUSTS);
		x->insn = (struct jit_insn){ .off = 7, .given = &x->insn, .fn = LITE_JIT_INSN };
		e_mov_imm64(E, T0, (uintptr_t)&x->insn + 1);
		site(x, 7);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_INSN));
		CASE("an instruction for the other function", TRUSTS);
		x->insn = (struct jit_insn){ .off = 7, .given = &fast_on, .fn = LITE_JIT_FAST };
		e_mov_imm64(E, T0, (uintptr_t)&fast_on);
		site(x, 7);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_INSN));
		CASE("an instruction at another's place", TRUSTS);
		x->insn = (struct jit_insn){ .off = 7, .given = &x->insn, .fn = LITE_JIT_INSN };
		e_mov_imm64(E, T0, (uintptr_t)&x->insn);
		site(x, 8);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_INSN));
		CASE("what is in the next page, of another instruction", TRUSTS);
		x->insn = (struct jit_insn){ .off = 0xffe, .cross = &over };
		e_mov_imm64(E, T0, (uintptr_t)&over);
		site(x, 0xfff);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_CROSS));
		CASE("what is in the next page, for an instruction of one", TRUSTS);
		x->insn = (struct jit_insn){ .off = 0xfff, .given = &over, .fn = LITE_JIT_CROSS };
		e_mov_imm64(E, T0, (uintptr_t)&over);
		site(x, 0xfff);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_CROSS));
		CASE("scratch registers after a system instruction", AS_VALUE);
		x->insn = (struct jit_insn){ .off = 7, .given = &fast_on, .fn = LITE_JIT_FAST };
		e_load(E, true, T2, HOST_RSP, VCPU_GPR(8));
		e_mov_imm64(E, T0, (uintptr_t)&fast_on);
		site(x, 7);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_FAST));
		e_mov(E, true, REG_AX, T2);

		/* Links. */
		CASE("a link that names no jump", "a link that names no jump");
		field = link_jump(x);
		link_call(x, field, 8, 5);
		CASE("a link that names another jump", "a link that names a jump to elsewhere");
		early = e_jcc(E, CC_E);
		mark = link_jump(x);
		e_here(E, mark);
		leave(x);
		e_here(E, early);
		field = link_jump(x);
		link_call(x, field, (u32)(mark - field), 5);
		CASE("a link that names another block's jump", "a link whose jump cannot be written");
		field = link_jump(x);
		link_call(x, field, (u32)-2000, 5);
		CASE("a link whose jump is not aligned", "a link whose jump cannot be written");
		while ((((uintptr_t)E->p + 1) & 7) != 5)
			e_u8(E, 0x90);
		link_call(x, e_jmp(E), 0, 5);
		CASE("a link to another page", "a link to another page");
		field = link_jump(x);
		link_call(x, field, 0, 0x1000);
		CASE("a link with bits that mean nothing", "a link to another page");
		field = link_jump(x);
		link_call(x, field, 0, 0x40005);
		CASE("a link without data", "nothing behind a call of LITE_JIT_LINK");
		field = link_jump(x);
		e_here(E, field);
		e_call_m(E, HOST_RSP, FN(LITE_JIT_LINK));
		x->ended = true;
		x->v.size = 1;
		CASE("a link whose data is run", "instructions where data is");
		early = e_jcc(E, CC_E);
		mark = e_jmp(E);
		e_here(E, early);
		field = link_jump(x);
		link_call(x, field, 0, 0x90909090);
		e_aim(E, mark, E->p - 4);
		leave(x);
		CASE("a call of another length", "a call of LITE_JIT_LINK that is not 7 bytes long");
		field = link_jump(x);
		e_here(E, field);
		e_u8(E, 0x36); /* a segment that means nothing */
		e_call_m(E, HOST_RSP, FN(LITE_JIT_LINK));
		return true;
	default:
		return false;
	}
}

/* ---- windows --------------------------------------------------------------------------------------------------------- */

enum { FIRST_WINDOW = __COUNTER__ + 1 };

/* T1 = @reg with its slot lowest, compared with @slot. */
static u8 *slot_is(struct code *x, unsigned reg, unsigned slot)
{
	e_rorx(E, T1, reg, LITE_WINDOW_SHIFT);
	RAW("\x41\x80\xf9");
	e_u8(E, slot);
	return e_jcc(E, CC_NE);
}

static void any_slot(struct code *x)
{
	e_rorx(E, T1, T0, LITE_WINDOW_SHIFT);
	RAW("\x45\x0f\xb6\xc9");
}

/* What the jumps of slot_is() lead to. */
static void elsewhere(struct code *x, u8 *field)
{
	leave(x);
	e_here(E, field);
	leave(x);
}

/* RBX is in a slot that GS reaches. */
static void known(struct code *x)
{
	u8 *field = slot_is(x, REG_BX, LITE_WINDOW_EXE), *on = e_jmp(E);

	e_here(E, field);
	leave(x);
	e_here(E, on);
	x->ended = false;
}

#define LOAD_RBX(disp)                             \
	do {                                       \
		RAW("\x65\x48\x8b\x83"); /* mov rax, gs:[rbx + disp] */ \
		e_u32(E, disp);                    \
	} while (0)

#define NOT_KNOWN "an access by GS, and nothing is known of where it goes"
#define NOT_OWN	  "GS, but not with the guest's registers"
/* The guest's register @n, which is at home, is in such a slot. */
static void known_home(struct code *x, unsigned n)
{
	u8 *field, *on;

	e_load(E, true, T0, HOST_RSP, VCPU_GPR(n));
	field = slot_is(x, T0, LITE_WINDOW_EXE);
	on = e_jmp(E);
	e_here(E, field);
	leave(x);
	e_here(E, on);
	x->ended = false;
}

#define OTHER_SLOT "the distance of another slot than the address was found in"

static bool window(struct code *x, unsigned n)
{
	u8 *field, *mark;

	switch (n) {
	case -1U:
		/* By the distance of a slot. */
		CASE("a slot that was guessed", NULL);
		address(x);
		field = slot_is(x, T0, 31);
		e_op_m(E, true, 0x03, T0, HOST_RSP, VCPU(jit.delta[31]));
		e_load(E, true, REG_AX, T0, 0);
		elsewhere(x, field);
		CASE("any slot", NULL);
		e_lea(E, true, T2, REG_BX, 16);
		e_rorx(E, T1, T2, LITE_WINDOW_SHIFT);
		RAW("\x45\x0f\xb6\xc9");
		e_op_mx(E, true, 0x03, T2, HOST_RSP, T1, 3, VCPU(jit.delta));
		e_store(E, true, REG_AX, T2, LITE_WINDOW_SPAN - 8);
		CASE("any slot without flags", NULL);
		address(x);
		any_slot(x);
		e_op_mx(E, true, 0x8b, T1, HOST_RSP, T1, 3, VCPU(jit.delta));
		e_op_mx(E, true, 0x8d, T0, T0, T1, 0, 0);
		e_store(E, true, REG_AX, T0, 0);
		CASE("another slot than was guessed", OTHER_SLOT);
		address(x);
		field = slot_is(x, T0, 31);
		e_op_m(E, true, 0x03, T0, HOST_RSP, VCPU(jit.delta[21]));
		CASE("a slot, but of another address", OTHER_SLOT);
		address(x);
		field = slot_is(x, T0, 31);
		e_lea(E, true, T0, T0, 64);
		e_op_m(E, true, 0x03, T0, HOST_RSP, VCPU(jit.delta[31]));
		CASE("a slot that was not looked at", OTHER_SLOT);
		address(x);
		e_rorx(E, T1, T0, LITE_WINDOW_SHIFT);
		e_op_m(E, true, 0x03, T0, HOST_RSP, VCPU(jit.delta[31]));
		CASE("bits that are no slot", "a distance without a slot");
		address(x);
		e_rorx(E, T1, T0, LITE_WINDOW_SHIFT);
		e_op_mx(E, true, 0x03, T0, HOST_RSP, T1, 3, VCPU(jit.delta));
		CASE("the slot of other bits", "a distance without a slot");
		address(x);
		e_rorx(E, T1, T0, LITE_WINDOW_SHIFT - 1);
		RAW("\x45\x0f\xb6\xc9");
		e_op_mx(E, true, 0x03, T0, HOST_RSP, T1, 3, VCPU(jit.delta));
		CASE("any slot, but of another address", "a distance without a slot");
		address(x);
		any_slot(x);
		address(x);
		e_op_mx(E, true, 0x03, T0, HOST_RSP, T1, 3, VCPU(jit.delta));
		CASE("the distance for another register", "a distance for another address");
		address(x);
		any_slot(x);
		e_op_mx(E, true, 0x03, REG_AX, HOST_RSP, T1, 3, VCPU(jit.delta));
		CASE("too far from what was looked at", "an access too far from what was looked at");
		e_lea(E, true, T2, REG_BX, 16);
		e_rorx(E, T1, T2, LITE_WINDOW_SHIFT);
		RAW("\x45\x0f\xb6\xc9");
		e_op_mx(E, true, 0x03, T2, HOST_RSP, T1, 3, VCPU(jit.delta));
		e_store(E, true, REG_AX, T2, LITE_WINDOW_SPAN - 7);
		CASE("a distance as a value", AS_VALUE);
		address(x);
		any_slot(x);
		e_op_mx(E, true, 0x8b, T1, HOST_RSP, T1, 3, VCPU(jit.delta));
		e_mov(E, true, REG_AX, T1);
		CASE("an address in the window as a value", AS_VALUE);
		address(x);
		any_slot(x);
		e_op_mx(E, true, 0x03, T0, HOST_RSP, T1, 3, VCPU(jit.delta));
		e_mov(E, true, REG_AX, T0);
		CASE("the slot of an address of the host", AS_VALUE);
		check(x, 8, false);
		e_rorx(E, T1, T0, LITE_WINDOW_SHIFT);

		/* By GS. */
		CASE("GS after a look", NULL);
		known(x);
		LOAD_RBX(100);
		LOAD_RBX(-100);
		CASE("GS with an index", NULL);
		e_op_mx(E, true, 0x8d, T0, REG_BX, REG_SI, 3, 64);
		field = slot_is(x, T0, LITE_WINDOW_LIB);
		RAW("\x65\x48\x8b\x44\xf3\x40"); /* mov rax, gs:[rbx + rsi * 8 + 64] */
		elsewhere(x, field);
		CASE("GS after the register moved", NULL);
		known(x);
		RAW("\x48\x81\xc3\x00\x10\x00\x00"); /* add rbx, 0x1000 */
		LOAD_RBX(0);
		CASE("GS after many moves and accesses", NULL);
		known(x);
		for (unsigned i = 0; i < 20; i++) {
			RAW("\x48\x81\xc3\x00\x60\x00\x00"); /* add rbx, 0x6000 */
			LOAD_RBX(0);
		}
		CASE("GS in a loop", NULL);
		known(x);
		while ((uintptr_t)E->p & 7)
			e_u8(E, 0x90);
		mark = E->p;
		x->v.loop = (u32)(mark - x->bytes);
		RAW("\x0f\x1f\x84\x00\x00\x00\x00\x00");
		LOAD_RBX(0);
		RAW("\x48\x83\xc3\x10"); /* add rbx, 16 */
		e_jcc_to(E, CC_NS, mark);
		CASE("GS without a look", NOT_KNOWN);
		LOAD_RBX(0);
		CASE("GS after a look at another register", NOT_KNOWN);
		known(x);
		RAW("\x65\x48\x8b\x06"); /* mov rax, gs:[rsi] */
		CASE("GS after a look at a slot that it does not reach", NOT_KNOWN);
		field = slot_is(x, REG_BX, 0);
		LOAD_RBX(0);
		elsewhere(x, field);
		CASE("GS too far from what was looked at", NOT_KNOWN);
		known(x);
		LOAD_RBX(LITE_WINDOW_SPAN - 7);
		CASE("GS too far below it", NOT_KNOWN);
		known(x);
		LOAD_RBX(-LITE_WINDOW_SPAN + 7);
		CASE("GS after the register got another value", NOT_KNOWN);
		known(x);
		RAW("\x48\x89\xc3"); /* mov rbx, rax */
		LOAD_RBX(0);
		CASE("GS after half of the register moved", NOT_KNOWN);
		known(x);
		RAW("\x81\xc3\x00\x10\x00\x00"); /* add ebx, 0x1000 */
		LOAD_RBX(0);
		CASE("GS after many moves without an access", NOT_KNOWN);
		known(x);
		for (unsigned i = 0; i < 3; i++)
			RAW("\x48\x81\xc3\x00\x60\x00\x00");
		LOAD_RBX(0);
		CASE("GS in a loop that goes too far", NOT_KNOWN);
		known(x);
		mark = E->p;
		LOAD_RBX(0);
		RAW("\x48\x81\xc3\x00\x00\x01\x00"); /* add rbx, 0x10000 */
		e_jcc_to(E, CC_NS, mark);
		CASE("GS in a loop without an access", NOT_KNOWN);
		known(x);
		mark = E->p;
		RAW("\x48\x81\xc3\x00\x40\x00\x00"); /* add rbx, 0x4000 */
		e_jcc_to(E, CC_NS, mark);
		LOAD_RBX(0);
		CASE("GS in a loop, of an access that a mask may leave out", NOT_KNOWN);
		known(x);
		mark = E->p;
		RAW("\x65\x62\xf1\x7c\x49\x10\x03"); /* vmovups zmm0{k1}, gs:[rbx] */
		RAW("\x48\x81\xc3\x00\x40\x00\x00");
		e_jcc_to(E, CC_NS, mark);
		LOAD_RBX(0);
		CASE("GS with what is the translator's", NOT_OWN);
		known(x);
		RAW("\x65\x49\x8b\x00"); /* mov rax, gs:[r8] */
		CASE("GS with the vCPU", NOT_OWN);
		known(x);
		RAW("\x65\x48\x8b\x04\x24"); /* mov rax, gs:[rsp] */
		CASE("GS with a lent RCX", NOT_OWN);
		field = slot_is(x, REG_CX, LITE_WINDOW_EXE);
		lend(x);
		jit_load_budget(E);
		RAW("\x65\x48\x8b\x01"); /* mov rax, gs:[rcx] */
		CASE("the slot of a lent RCX", "the slot of what is no address");
		lend(x);
		jit_load_budget(E);
		field = slot_is(x, REG_CX, LITE_WINDOW_EXE);
		CASE("FS", KIND);
		known(x);
		RAW("\x64\x48\x8b\x03");
		CASE("GS after a call of the host's, where others come who did not look", NOT_KNOWN);
		known(x);
		own_call(x, x->v.jump_miss);
		RAW(RSP_BACK);
		LOAD_RBX(0);
#define SMALL_RDX "\x83\xe2\x07"		 /* and edx, 7 */
#define LOAD_RBX_RDX8 "\x65\x48\x8b\x04\xd3" /* mov rax, gs:[rbx + rdx * 8] */
		CASE("GS with an index that is small", NULL);
		known(x);
		RAW(SMALL_RDX LOAD_RBX_RDX8);
		CASE("GS with an index that is small enough", NULL);
		known(x);
		RAW("\x0f\xb7\xd2\xc1\xea\x03\x83\xe2\xf8" LOAD_RBX_RDX8); /* movzx edx, dx; shr edx, 3; and edx, -8 */
		CASE("GS with an index that is too large", NOT_KNOWN);
		known(x);
		RAW("\x0f\xb7\xd2\xc1\xea\x02\x83\xe2\xf8" LOAD_RBX_RDX8);
		CASE("GS with an index that was small", NOT_KNOWN);
		known(x);
		RAW(SMALL_RDX "\x48\x01\xc2" LOAD_RBX_RDX8); /* add rdx, rax */
		CASE("GS with an index that is small on one way only", NOT_KNOWN);
		known(x);
		field = e_jcc(E, CC_S);
		RAW(SMALL_RDX);
		e_here(E, field);
		RAW(LOAD_RBX_RDX8);
		CASE("GS with an index that grows in a loop", NOT_KNOWN);
		known(x);
		RAW(SMALL_RDX);
		mark = E->p;
		RAW(LOAD_RBX_RDX8 "\xd1\xe2"); /* shl edx, 1 */
		e_jcc_to(E, CC_NS, mark);
		CASE("GS with half an index that is small", NOT_KNOWN);
		known(x);
		RAW("\x80\xe2\x07" LOAD_RBX_RDX8); /* and dl, 7 */
		CASE("an access with a small index tells nothing of its register", NOT_KNOWN);
		known(x);
		RAW(SMALL_RDX LOAD_RBX_RDX8);
		LOAD_RBX(LITE_WINDOW_SPAN - 7);

		/* Registers that are at home, and the page. */
#define HOME(to, n) e_load(E, true, to, HOST_RSP, VCPU_GPR(n))
#define LOAD_T0() RAW("\x65\x49\x8b\x00") /* mov rax, gs:[r8] */
		CASE("GS with a register that is at home", NULL);
		known_home(x, 9);
		HOME(T0, 9);
		LOAD_T0();
		CASE("GS with a register that is at home, and more", NULL);
		known_home(x, 9);
		RAW(SMALL_RDX);
		HOME(T0, 9);
		RAW("\x4d\x8d\x44\xd0\x18"); /* lea r8, [r8 + rdx * 8 + 24] */
		LOAD_T0();
		CASE("GS with another one", NOT_KNOWN);
		known_home(x, 9);
		HOME(T0, 10);
		LOAD_T0();
		CASE("GS with one that moved in T1", NULL);
		known_home(x, 9);
		HOME(T1, 9);
		RAW("\x49\x81\xc1\x00\xc0\x00\x00"); /* add r9, 0xc000 */
		e_store(E, true, T1, HOST_RSP, VCPU_GPR(9));
		HOME(T0, 9);
		LOAD_T0();
		CASE("GS with one that moved in T0", NULL);
		known_home(x, 9);
		HOME(T0, 9);
		e_lea(E, true, T0, T0, -0xc000);
		e_store(E, true, T0, HOST_RSP, VCPU_GPR(9));
		HOME(T0, 9);
		LOAD_T0();
		CASE("GS with one that moved too far", NOT_KNOWN);
		known_home(x, 9);
		HOME(T1, 9);
		RAW("\x49\x81\xc1\x00\x00\x01\x00"); /* add r9, 0x10000 */
		e_store(E, true, T1, HOST_RSP, VCPU_GPR(9));
		HOME(T0, 9);
		LOAD_T0();
		CASE("GS with one that became another's", NOT_KNOWN);
		known_home(x, 9);
		HOME(T1, 10);
		e_store(E, true, T1, HOST_RSP, VCPU_GPR(9));
		HOME(T0, 9);
		LOAD_T0();
		CASE("GS with one whose half became another", NOT_KNOWN);
		known_home(x, 9);
		e_store(E, false, REG_AX, HOST_RSP, VCPU_GPR(9) + 4);
		HOME(T0, 9);
		LOAD_T0();
		CASE("GS with what was at home before", NOT_KNOWN);
		known_home(x, 9);
		HOME(T0, 9);
		e_store(E, true, REG_AX, HOST_RSP, VCPU_GPR(9));
		known_home(x, 9);
		e_store(E, true, REG_AX, HOST_RSP, VCPU_GPR(9));
		HOME(T0, 9);
		LOAD_T0();
		CASE("GS with one that something else was added to", NOT_KNOWN);
		known_home(x, 9);
		HOME(T1, 9);
		RAW("\x49\x01\xc1"); /* add r9, rax */
		e_store(E, true, T1, HOST_RSP, VCPU_GPR(9));
		HOME(T0, 9);
		LOAD_T0();
		CASE("GS with the page", NULL);
		e_load(E, true, T0, HOST_RSP, VCPU(vpage));
		e_lea(E, true, T0, T0, 0x123450);
		field = slot_is(x, T0, LITE_WINDOW_EXE);
		e_load(E, true, T0, HOST_RSP, VCPU(vpage));
		RAW("\x65\x49\x8b\x80\x58\x34\x12\x00"); /* mov rax, gs:[r8 + 0x123458] */
		elsewhere(x, field);
		CASE("GS with the page, but elsewhere", NOT_KNOWN);
		e_load(E, true, T0, HOST_RSP, VCPU(vpage));
		e_lea(E, true, T0, T0, 0x123450);
		field = slot_is(x, T0, LITE_WINDOW_EXE);
		e_load(E, true, T0, HOST_RSP, VCPU(vpage));
		LOAD_T0();
		elsewhere(x, field);

		/* T2 is the distance, and T0 the rest. */
		CASE("a slot's distance and an index", NULL);
		field = slot_is(x, REG_BX, 0);
		e_load(E, true, T2, HOST_RSP, VCPU(jit.delta[0]));
		RAW(SMALL_RDX "\x4c\x8d\x04\xd3\x4b\x8b\x04\x10"); /* lea r8, [rbx + rdx * 8]; mov rax, [r8 + r10] */
		elsewhere(x, field);
		CASE("a slot's distance and an index that may be large", "a slot's distance, and nothing is known of where it leads");
		field = slot_is(x, REG_BX, 0);
		e_load(E, true, T2, HOST_RSP, VCPU(jit.delta[0]));
		RAW("\x4c\x8d\x04\xd3\x4b\x8b\x04\x10");
		elsewhere(x, field);
		CASE("another slot's distance and an index", "a slot's distance, and nothing is known of where it leads");
		field = slot_is(x, REG_BX, 31);
		e_load(E, true, T2, HOST_RSP, VCPU(jit.delta[0]));
		RAW(SMALL_RDX "\x4c\x8d\x04\xd3\x4b\x8b\x04\x10");
		elsewhere(x, field);
		CASE("a slot's distance and what T0 may be", "a slot's distance, but not with the guest's registers");
		field = slot_is(x, REG_BX, 0);
		e_load(E, true, T2, HOST_RSP, VCPU(jit.delta[0]));
		RAW("\x49\x89\xc0\x4b\x8b\x04\x10"); /* mov r8, rax */
		elsewhere(x, field);
		CASE("the TSC read by a user", NOT_FOR);
		RAW("\x0f\x31");
		CASE("and with RDTSCP", NOT_FOR);
		RAW("\x0f\x01\xf9");
		return true;
	default:
		return false;
	}
}

/* A block with body @n. False: there are no more. */
static bool build(struct code *x, unsigned n, unsigned view)
{
	memset(x, 0, sizeof(*x));
	user = view;
	x->e = (struct lite_emit){ x->bytes, x->bytes + BYTES, 0, false };
	x->v = (struct jit_verify){ .code = x->bytes, .is_block = true, .fpu_usable = FPU_ALL, .jump_miss = x->bytes + BYTES + 8, .poll = x->bytes + BYTES + 16, .poll_kept = x->bytes + BYTES + 24 };
	x->v.insns = &x->insn;
	x->v.n = 1;
	x->v.view = view;
	x->v.mode = view ? LITE_MODE_WINDOW : 0;
	entry(x);
	while ((uintptr_t)E->p & 7)
		e_u8(E, 0x90);
	x->v.direct = (u32)(E->p - x->bytes);
	RAW("\x0f\x1f\x84\x00\x00\x00\x00\x00");
	if (!(view ? window(x, FIRST_WINDOW + n) : body(x, n)))
		return false;
	if (x->v.size) {
		/* Nothing may follow: the end for the dead is somewhere before. */
		x->v.dead = x->v.direct;
		x->v.size = (u32)(E->p - x->bytes);
		return true;
	}
	if (!x->ended)
		leave(x);
	if (x->miss)
		end_miss(x);
	x->v.dead = (u32)(E->p - x->bytes);
	site(x, 5);
	e_call_m(E, HOST_RSP, FN(LITE_JIT_DEAD));
	x->v.size = (u32)(E->p - x->bytes);
	return true;
}

static void verdict(struct code *x)
{
	const char *why = jit_verify(&x->v);
	bool good = why ? x->why && !strcmp(why, x->why) : !x->why;

	if (!tap_ok(good && !E->full, "%s: %s", x->name, x->why ? x->why : "is let through"))
		tap_diag("%s at 0x%x", why ? why : "it is let through", x->v.at);
}

/* A block in two pieces, the end for the dead in the second; @jump: the first does not end by itself. */
static void two_pieces(struct code *x, bool jump, const char *name, const char *why)
{
	u8 *end;

	build(x, 0, 0);
	x->name = name;
	x->why = why;
	E->p = x->bytes + x->v.direct + 8;
	if (jump)
		e_jmp_to(E, x->bytes + BYTES - 64);
	else
		RAW("\x48\xff\xc0"); /* inc rax */
	end = E->p;
	x->v.cold = E->p = x->bytes + BYTES - 64;
	site(x, 5);
	e_call_m(E, HOST_RSP, FN(LITE_JIT_DEAD));
	x->v.cold_size = (u32)(E->p - x->v.cold);
	x->v.size = x->v.dead = (u32)(end - x->bytes);
	verdict(x);
}

/* What is wrong with the entries, and what a link becomes. */
static void others(struct code *x)
{
	u8 *miss;

	build(x, 0, 0);
	x->name = "no room for the jump of a dead block";
	x->why = "no room for the jump of a dead block";
	memcpy(x->bytes + x->v.direct, "\x90\x90\x90\x90\x90\x90\x90\x90", 8);
	verdict(x);
	build(x, 0, 0);
	x->name = "an entry that is not aligned";
	x->why = "no room for the jump of a dead block";
	memmove(x->bytes + x->v.direct + 1, x->bytes + x->v.direct, x->v.size - x->v.direct);
	x->bytes[x->v.direct++] = 0x90;
	x->v.dead++;
	x->v.size++;
	verdict(x);
	build(x, 0, 0);
	x->name = "the page, by the jump cache but without a look";
	x->why = "the page is set without a look at where the jump was to go";
	memset(x->bytes, 0x90, x->v.direct - 20); /* all but LEA, MOV and the NOPs for alignment */
	for (u32 at = 0; at < x->v.direct; at++)
		if (!memcmp(x->bytes + at, "\x4d\x8d\x48\xc0", 4))
			at = x->v.direct;
	E->p = x->bytes;
	e_lea(E, true, T1, T0, -64);
	e_store(E, true, T1, HOST_RSP, VCPU(vpage));
	memset(E->p, 0x90, x->v.direct - (u32)(E->p - x->bytes));
	verdict(x);

	two_pieces(x, true, "a block in two pieces", NULL);
	two_pieces(x, false, "a piece that goes on where none is", ELSEWHERE);
	build(x, 0, 0);
	x->name = "a jump with a poll";
	x->why = NULL;
	E->p = x->bytes;
	e_op_m(E, false, 0x83, 7, HOST_RSP, VCPU(budget));
	e_u8(E, 0);
	miss = e_jcc(E, CC_S);
	e_jmp_to(E, x->bytes + BYTES + 64);
	e_here(E, miss);
	e_load(E, true, T0, HOST_RSP, VCPU(vpage));
	e_lea(E, true, T0, T0, 5);
	e_jmp_to(E, x->v.poll);
	x->v.to = x->bytes + BYTES + 64;
	x->v.is_block = false;
	x->v.direct = 0;
	x->v.size = (u32)(E->p - x->bytes);
	verdict(x);
	x->name = "a jump with a poll to another block";
	x->why = ELSEWHERE;
	x->v.to++;
	verdict(x);
}

int main(void)
{
	static struct code x;

	tap_begin();
	for (unsigned n = 0; build(&x, n, 0); n++)
		verdict(&x);
	for (unsigned n = 0; build(&x, n, 1); n++)
		verdict(&x);
	others(&x);
	return tap_end();
}
