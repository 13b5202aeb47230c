/*
 * lite's native executor against the processor itself: every instruction of native_table.S on random register states, once
 * as it stands in this process and once as a guest's, through the KVM API. One verdict a mnemonic; the argument, or TRINE_LONG, sets how many states each
 * instruction gets.
 */
#include <cpuid.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/lite/both.h"
#include "tests/random.h"
#include "tests/tap.h"

struct native_case {
	int64_t name, code, len; /* relative to themselves */
};
extern const struct native_case __start_native_cases[], __stop_native_cases[];

#define MIDDLE 64 /* where RBX points */

static void randomize(struct state *s, const char *name)
{
	uint64_t *x = (uint64_t *)s->x;

	both_randomize(s);
	*(uint16_t *)s->x = 0x7f | (rnd() & 0xf00);	   /* FCW */
	*(uint16_t *)(s->x + 2) = rnd() & 0x7f00 & ~0x80; /* FSW: TOP and condition codes */
	s->x[4] = rnd() & 3 ? 0xff : rnd();		   /* tags */
	*(uint32_t *)(s->x + 24) = 0x1f80 | (rnd() & 0xe040 & (rnd() & 1 ? ~0U : 0));
	for (int i = 0; i < 8; i++) {
		int integer = rnd() & 1;

		x[4 + 2 * i] = rnd() & 3 ? both_word() | 1ULL << 63 : both_word();
		x[5 + 2 * i] = rnd() & 7 ? (0x3fff + rnd() % 64 - 20) | (rnd() & 0x8000) : rnd() & 0xffff;
		if (!strncmp(name, "mmx", 3) && integer)
			x[5 + 2 * i] = 0xffff;
	}
	for (int i = 20; i < 52; i++)
		x[i] = both_word();
	for (int i = 72; i < 104; i++)
		x[i] = both_word();
	if (strstr(name, "gather")) {
		x[24] = rnd() & 31;
		x[25] = rnd() & 31;
		x[76] = rnd() & 31;
		x[77] = rnd() & 31;
	}
	if (strstr(name, "vgatherq") || strstr(name, "vpgatherq")) {
		x[24] &= 15;
		x[25] &= 15;
		x[76] &= 15;
		x[77] &= 15;
	}
	x[64] = 7; /* XSTATE_BV */
}

/* Where they differ, as words; NULL: nowhere. */
static const char *differ(const struct state *a, const struct state *b)
{
	const char *where = both_differ(a, b);

	if (where)
		return where;
	if (memcmp(a->x, b->x, 5))
		return "FCW, FSW or tags";
	for (int i = 0; i < 8; i++)
		if (memcmp(a->x + 32 + 16 * i, b->x + 32 + 16 * i, 10))
			return "an x87 register";
	if (memcmp(a->x + 160, b->x + 160, 256))
		return "an XMM register";
	if (memcmp(a->x + 576, b->x + 576, 256))
		return "the upper half of a YMM register";
	return NULL;
}

static void put_code(const struct native_case *t, uint8_t *code)
{
	memcpy(code, (const uint8_t *)&t->code + t->code, t->len);
	code[t->len] = 0xc3;
}

static sigjmp_buf undefined;

static void on_sigill(int sig)
{
	siglongjmp(undefined, 1);
}

/* Puts @t into @code. Whether the processor has it, in that form: CPUID has no bit for each. Before there is a VM, which takes SIGILL. */
static bool present(const struct native_case *t, uint8_t *code, uint8_t *scratch)
{
	struct state state;
	bool good = true;

	put_code(t, code);
	randomize(&state, (const char *)&t->name + t->name);
	state.gpr[3] = state.gpr[7] = (uintptr_t)scratch + MIDDLE;
	signal(SIGILL, on_sigill);
	if (sigsetjmp(undefined, 1))
		good = false;
	else
		both_here(&state, code);
	signal(SIGILL, SIG_DFL);
	return good;
}

int main(int argc, char **argv)
{
	unsigned states = argc > 1 ? strtoul(argv[1], NULL, 0) : getenv("TRINE_LONG") ? 3000 : 200, a, b, c = 0, d;
	size_t count = __stop_native_cases - __start_native_cases;
	static struct state start, here, there;
	const char *name = "", *wrong = NULL;
	uint8_t *code, *scratch;
	uint64_t total = 0;
	bool absent = false, *has = calloc(count, sizeof(*has));

	tap_begin();
	__cpuid(1, a, b, c, d);
	if (!(c & (1U << 28))) {
		tap_skip("the processor has no AVX", "native execution");
		return tap_end();
	}
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	scratch = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; has && code != MAP_FAILED && scratch != MAP_FAILED && i < count; i++)
		has[i] = present(&__start_native_cases[i], code, scratch);
	if (!tap_ok(has && code != MAP_FAILED && scratch != MAP_FAILED && both_set_up(7, false), "a guest in long mode with AVX"))
		return tap_end();
	for (size_t i = 0; i < count; i++) {
		const struct native_case *t = &__start_native_cases[i];
		uint8_t *at = both_memory + BOTH_CODE + i * 32;

		memcpy(at, (const uint8_t *)&t->code + t->code, t->len);
		at[t->len] = 0xf4;
	}
	for (size_t i = 0; i <= count; i++) {
		const struct native_case *t = &__start_native_cases[i];
		const char *next = i < count ? (const char *)&t->name + t->name : "";

		if (strcmp(name, next)) {
			if (absent)
				tap_skip("the processor does not have it", name);
			else if (*name)
				tap_ok(!wrong, "%s%s%s", name, wrong ? ": " : "", wrong ? wrong : "");
			name = next;
			wrong = NULL;
			absent = false;
		}
		if (i == count)
			break;
		absent |= !has[i];
		if (absent)
			continue;
		put_code(t, code);
		for (unsigned n = 0; n < states && !wrong; n++, total++) {
			int reason;

			randomize(&start, name);
			here = there = start;
			here.gpr[3] = here.gpr[7] = (uintptr_t)scratch + MIDDLE;
			memcpy(scratch, here.data, BOTH_SPAN);
			both_here(&here, code);
			memcpy(here.data, scratch, BOTH_SPAN);
			reason = both_guest(&there, BOTH_CODE + i * 32, MIDDLE);
			if (reason != KVM_EXIT_HLT) {
				static char text[32];

				snprintf(text, sizeof(text), "exit %d, case %zu", reason, i);
				wrong = text;
			} else {
				wrong = differ(&here, &there);
			}
			if (wrong)
				tap_diag("%s, instruction %zu, state %u", name, i, n);
		}
	}
	free(has);
	tap_diag("%llu states", (unsigned long long)total);
	return tap_end();
}
