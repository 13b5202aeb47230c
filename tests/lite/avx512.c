/*
 * lite's AVX-512 against the processor itself. Encodings are not listed: every opcode of every EVEX map (and the VEX ones on mask
 * registers) is tried with random operands, widths, masks, broadcasts and rounding; what the decoder knows is run on random states, once in
 * this process and once as a guest's, through the KVM API. An instruction that the processor has not must be #UD in both, and
 * one whose operand reaches into a page that is not there must fault in both or, for what its mask leaves out, in neither.
 * One verdict a mnemonic; the argument, or TRINE_LONG, sets how many encodings of each are tried.
 */
/* <signal.h>'s register names collide with those of x86.h. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <cpuid.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/x86/emul/decode.h"
#include "tests/lite/both.h"
#include "tests/random.h"
#include "tests/tap.h"

#define MIDDLE	512 /* where RBX points */
#define RFBM	0xe7U

/* Of components 2 (upper halves of YMM0 to 15), 5 (masks), 6 (upper halves of ZMM0 to 15), 7 (ZMM16 to 31). */
static unsigned place[8], size[8];

/* The 8 bytes @i of vector register @reg. */
static uint64_t *lane(struct state *s, unsigned reg, unsigned i)
{
	if (reg >= 16)
		return (uint64_t *)(s->x + place[7] + (reg - 16) * 64) + i;
	if (i < 2)
		return (uint64_t *)(s->x + 160 + reg * 16) + i;
	if (i < 4)
		return (uint64_t *)(s->x + place[2] + reg * 16) + i - 2;
	return (uint64_t *)(s->x + place[6] + reg * 32) + i - 4;
}

static void randomize(struct state *s, const struct insn *insn)
{
	both_randomize(s);
	*(uint16_t *)s->x = 0x37f;
	*(uint32_t *)(s->x + 24) = 0x1f80 | (rnd() & 0xe040 & (rnd() & 1 ? ~0U : 0));
	for (unsigned r = 0; r < 32; r++)
		for (unsigned i = 0; i < 8; i++)
			*lane(s, r, i) = both_word();
	for (int i = 0; i < 8; i++)
		((uint64_t *)(s->x + place[5]))[i] = rnd() & 3 ? rnd() : rnd() & 1 ? 0 : ~0ULL;
	if (insn->mem.vsib)
		for (unsigned i = 0; i < 8; i++)
			*lane(s, insn->mem.index, i) = insn->mem.vsib_elem == 8 ? rnd() & 15 : (rnd() & 0x1f0000001fULL);
	*(uint64_t *)(s->x + 512) = RFBM;
}

static const char *differ(struct state *a, struct state *b)
{
	static char text[96];
	const char *where = both_differ(a, b);

	if (where)
		return where;
	for (unsigned r = 0; r < 32; r++)
		for (unsigned i = 0; i < 8; i++)
			if (*lane(a, r, i) != *lane(b, r, i)) {
				snprintf(text, sizeof(text), "vector register %u, quadword %u: %llx, not %llx", r, i, (long long)*lane(b, r, i),
					 (long long)*lane(a, r, i));
				return text;
			}
	for (unsigned k = 0; k < 8; k++)
		if (memcmp(a->x + place[5] + 8 * k, b->x + place[5] + 8 * k, 8)) {
			snprintf(text, sizeof(text), "mask register %u", k);
			return text;
		}
	return NULL;
}

/* ---- what the processor says ------------------------------------------------------------------------------------- */

static sigjmp_buf undefined;

static void on_signal(int sig)
{
	siglongjmp(undefined, sig);
}

/* 0, or the signal that it raised. */
static int run_here(struct state *s, void *code)
{
	int sig = sigsetjmp(undefined, 1);

	if (sig) {
		both_calm();
		return sig;
	}
	both_here(s, code);
	return 0;
}

/* ---- encodings -------------------------------------------------------------------------------------------------------- */

struct kind {
	bool vex;
	uint8_t map, pp, w, opcode;
	bool mem;
};

static void encode(const struct kind *k, uint8_t *p)
{
	static const uint8_t gprs[] = { 0, 1, 2, 5, 8, 9, 10, 11, 12, 13, 14, 15 };
	unsigned reg = rnd() & 31, rm = rnd() & 31, v = rnd() & 31, l = rnd() % 3, n = 0;
	bool b = !(rnd() & 3), z = rnd() & 1;
	unsigned aaa = rnd() & 1 ? rnd() & 7 : 0;

	/* Some fields name general registers in some instructions: often ones that may be changed. */
	if (rnd() & 1) {
		rm = gprs[rnd() % sizeof(gprs)];
		reg = gprs[rnd() % sizeof(gprs)];
	}
	if (rnd() & 1)
		v = 0; /* required where there is no such operand */
	if (k->vex) {
		reg &= 7;
		v &= 7;
		p[n++] = 0xc4;
		p[n++] = 0xc0 | (k->mem || rm < 8 || rm > 15 ? 0x20 : 0) | k->map;
		if (rm > 15)
			rm &= 7;
		p[n++] = k->w << 7 | (~v & 15) << 3 | (rnd() & 1) << 2 | k->pp;
	} else {
		uint8_t x = k->mem ? 1 : !(rm & 16), base = k->mem ? 1 : !(rm & 8);

		p[n++] = 0x62;
		p[n++] = !(reg & 8) << 7 | x << 6 | base << 5 | !(reg & 16) << 4 | k->map;
		p[n++] = k->w << 7 | (~v & 15) << 3 | 4 | k->pp;
		p[n++] = z << 7 | l << 5 | b << 4 | !(v & 16) << 3 | aaa;
	}
	p[n++] = k->opcode;
	if (!k->mem) {
		p[n++] = 0xc0 | (reg & 7) << 3 | (rm & 7);
	} else if (rnd() & 1) {
		/* [rbx + index * scale + disp8]; a vector index gets any number */
		unsigned index = rnd() & 1 ? 6 : rnd() & 7;

		p[n++] = 0x44 | (reg & 7) << 3;
		p[n++] = (rnd() & 1) << 6 | index << 3 | 3;
		p[n++] = rnd() % 3 - 1;
	} else {
		p[n++] = 0x40 | (reg & 7) << 3 | 3;
		p[n++] = rnd() % 3 - 1;
	}
	p[n++] = (uint8_t)rnd();
	p[n++] = 0;
}

/* Whether a state can be made for @insn that it leaves this process well in. */
static bool can_run(const struct insn *insn)
{
	if (insn->state != INSN_STATE_AVX512)
		return false;
	if (insn->has_mem && !insn->mem.vsib && insn->mem.index != INSN_REG_NONE && insn->mem.index != 6)
		return false;
	for (unsigned i = 0; i < insn->nops; i++) {
		const struct operand *op = &insn->op[i];

		if (op->kind == OPK_GPR && (op->reg == 3 || op->reg == 4 || op->reg == 6 || op->reg == 7))
			return false;
	}
	return true;
}

static unsigned tries;
static uint64_t total, absent, faults;
static uint8_t *code, *scratch;
static const char *results[MN_COUNT];

static const char *compare(const struct insn *insn)
{
	static struct state start, here, there;
	unsigned at = BOTH_CODE + (total % 64) * 32;
	unsigned rbx = insn->has_mem && !(total & 3) ? BOTH_SPAN - 16 * (rnd() % 8) : MIDDLE;
	int reason, sig;

	randomize(&start, insn);
	here = there = start;
	here.gpr[3] = here.gpr[7] = (uintptr_t)scratch + rbx;
	memcpy(scratch, here.data, BOTH_SPAN);
	memcpy(code, insn->bytes, insn->len);
	code[insn->len] = 0xc3;
	sig = run_here(&here, code);
	memcpy(here.data, scratch, BOTH_SPAN);
	memcpy(both_memory + at, insn->bytes, insn->len);
	both_memory[at + insn->len] = 0xf4;
	reason = both_guest(&there, at, rbx);
	total++;
	absent += sig == SIGILL;
	faults += sig == SIGSEGV;
	if (sig)
		return reason == KVM_EXIT_SHUTDOWN ? NULL : sig == SIGILL ? "runs, but is #UD" : "runs, but faults";
	if (reason == KVM_EXIT_SHUTDOWN)
		return rbx == MIDDLE ? "raises an exception, but runs" : "faults, but runs";
	if (reason != KVM_EXIT_HLT)
		return "no HLT after it";
	return differ(&here, &there);
}

static void try_kind(const struct kind *k)
{
	struct insn insn;
	uint8_t bytes[16];
	unsigned found = 0;

	for (unsigned i = 0; i < 200 * tries / 8 && found < tries; i++) {
		const char *wrong;

		/* A kind of which nothing decodes is none. */
		if (i == 400 && !found)
			break;
		encode(k, bytes);
		if (insn_decode(&insn, bytes, 15, MODE_64) != INSN_OK || !can_run(&insn))
			continue;
		found++;
		if (results[insn.mnemonic] && *results[insn.mnemonic])
			continue;
		wrong = compare(&insn);
		if (wrong) {
			char text[64] = "";

			for (unsigned b = 0; b < insn.len; b++)
				snprintf(text + 3 * b, 4, "%02x ", insn.bytes[b]);
			tap_diag("%s: %s", text, wrong);
		}
		results[insn.mnemonic] = wrong ? strdup(wrong) : "";
	}
}

int main(int argc, char **argv)
{
	unsigned a, b, c = 0, d;
	struct kind k = { 0 };

	tries = argc > 1 ? strtoul(argv[1], NULL, 0) : getenv("TRINE_LONG") ? 400 : 24;
	tap_begin();
	__cpuid_count(7, 0, a, b, c, d);
	if (!(b & (1U << 16))) {
		tap_skip("the processor has no AVX-512", "AVX-512");
		return tap_end();
	}
	for (unsigned i = 2; i < 8; i++) {
		__cpuid_count(0xd, i, a, b, c, d);
		size[i] = a;
		place[i] = b;
	}
	signal(SIGILL, on_signal);
	signal(SIGSEGV, on_signal);
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	scratch = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (scratch != MAP_FAILED) {
		mprotect(scratch + 4096, 4096, PROT_NONE);
		scratch += 4096 - BOTH_SPAN;
	}
	if (!tap_ok(code != MAP_FAILED && scratch != MAP_FAILED && both_set_up(RFBM, true), "a guest in long mode with AVX-512"))
		return tap_end();
	for (k.map = 1; k.map < 7; k.map++)
		for (k.pp = 0; k.pp < 4; k.pp++)
			for (k.w = 0; k.w < 2; k.w++)
				for (unsigned op = 0; op < 512; op++) {
					k.opcode = op & 255;
					k.mem = op & 256;
					k.vex = false;
					try_kind(&k);
					k.vex = true;
					if (k.map == 1 || k.map == 3)
						try_kind(&k);
				}
	for (unsigned i = 0; i < MN_COUNT; i++)
		if (results[i])
			tap_ok(!*results[i], "%s%s%s", mnemonic_name(i), *results[i] ? ": " : "", results[i]);
	tap_diag("%llu states, %llu with an instruction that the processor has not, %llu with a fault", (unsigned long long)total,
		 (unsigned long long)absent, (unsigned long long)faults);
	return tap_end();
}
