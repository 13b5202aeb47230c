/*
 * jit_verify(): code as the translator makes it is let through, and the same with one thing wrong is not, for the reason that is expected.
 * That each reason has its case is counted.
 */
#include "tests/lite/verify.h"
#include "tests/tap.h"

unsigned user;

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
	if (!(view ? verify_window_case(x, n) : verify_case(x, n)))
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
