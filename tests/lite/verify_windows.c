/* Cases for the verifier: accesses by windows. See verify.h. */
#include "tests/lite/verify.h"

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

bool verify_window_case(struct code *x, unsigned n)
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
