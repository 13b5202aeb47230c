/*
 * REP MOVS, REP STOS, PUSHF, CLI, STI and CLD as kernels and programs run them, over and over: what translated code does itself where it can
 * (jit_short.c, jit_insn.c) against a model. Strings have random counts, distances, overlaps and directions, over the ends of pages that are
 * aliases of fewer; then pages are missing or read-only, or the client takes memory away in between. Registers, flags and memory must be the
 * model's.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/lite/rig.h"
#include "tests/random.h"

#define AREA   0x40000000ULL
#define FRAMES 0x300000UL
#define PAGES  6U
#define SIZE   (PAGES * 4096U)
#define FLAGS  0x8d5U

static const unsigned frame_of[PAGES] = { 0, 1, 2, 1, 3, 4 }; /* two pages are one */

/* First what fills the TLB, from RBX and RBP on; then, behind one more instruction, the string. */
#define STRING(name, insn)                                                                                            \
	GUEST(name, "mov al, [rbx]\n mov [rbx], al\n mov al, [rbp]\n mov [rbp], al\n mov rax, r15\n push r14\n popfq\n" \
		    "lea rdx, [rdx + 1]\n" insn "\n lea rdx, [rdx + 1]\n int 0x80")
STRING(movs1, "rep movsb");
STRING(movs2, "rep movsw");
STRING(movs4, "rep movsd");
STRING(movs8, "rep movsq");
STRING(stos1, "rep stosb");
STRING(stos2, "rep stosw");
STRING(stos4, "rep stosd");
STRING(stos8, "rep stosq");
/* What becomes of flags from R14 by CLI and CLD, R12, and by STI, R13. */
GUEST(switches, "push r14\n popfq\n cli\n cld\n pushfq\n pop r12\n push r14\n popfq\n sti\n nop\n pushfq\n pop r13\n int 0x80");
/* Flags from R14; twice, for the second finds the stack in the TLB. */
GUEST(pushf, "push r14\n popfq\n pushfq\n pop r12\n pushfq\n pop r13\n int 0x80");

static const struct string {
	const char *name;
	const uint8_t *code, *end;
	unsigned size;
	bool stos;
} strings[] = {
	{ "rep movsb", guest_movs1, guest_movs1_end, 1, false }, { "rep movsw", guest_movs2, guest_movs2_end, 2, false },
	{ "rep movsd", guest_movs4, guest_movs4_end, 4, false }, { "rep movsq", guest_movs8, guest_movs8_end, 8, false },
	{ "rep stosb", guest_stos1, guest_stos1_end, 1, true },	 { "rep stosw", guest_stos2, guest_stos2_end, 2, true },
	{ "rep stosd", guest_stos4, guest_stos4_end, 4, true },	 { "rep stosq", guest_stos8, guest_stos8_end, 8, true },
};

enum kind { PLAIN, MISSING, READ_ONLY, GONE };
static const char *const kind_names[] = { "all there", "a page missing", "a page read-only", "memory taken away" };

static struct rig r;
static uint8_t model[SIZE]; /* by frames */

static uint8_t *model_at(uint64_t la)
{
	unsigned page = (la - AREA) >> 12;

	return model + frame_of[page] * 4096 + (la & 0xfff);
}

/* What stops the model, as a page fault would or the client's missing memory. */
struct state {
	uint64_t count, from, to;
	bool stopped;
	uint64_t at;
};

static bool may(enum kind kind, unsigned bad, uint64_t la, unsigned size, bool write, uint64_t *at)
{
	for (unsigned i = 0; i < size; i++) {
		unsigned page = (la + i - AREA) >> 12;

		*at = la + i;
		/* Aliases of what is taken away are as well. */
		if (kind == GONE ? frame_of[page] == frame_of[bad] : page == bad && (kind == MISSING || (kind == READ_ONLY && write)))
			return false;
	}
	return true;
}

static void by_model(const struct string *t, enum kind kind, unsigned bad, bool down, uint64_t rax, struct state *s)
{
	for (; s->count; s->count--) {
		uint8_t value[8];

		if ((!t->stos && !may(kind, bad, s->from, t->size, false, &s->at)) || !may(kind, bad, s->to, t->size, true, &s->at)) {
			s->stopped = true;
			return;
		}
		for (unsigned i = 0; i < t->size; i++)
			value[i] = t->stos ? rax >> (8 * i) : *model_at(s->from + i);
		for (unsigned i = 0; i < t->size; i++)
			*model_at(s->to + i) = value[i];
		s->to += down ? -(uint64_t)t->size : t->size;
		if (!t->stos)
			s->from += down ? -(uint64_t)t->size : t->size;
	}
}

static uint64_t somewhere(void)
{
	/* Far enough from both ends for any count, often near the end of a page. */
	uint64_t la = AREA + 4096 * (1 + below(PAGES - 2));

	return below(3) ? la + below(4096) : la + below(64) - 32;
}

static void registers(enum rig_mode mode, uint64_t from, uint64_t to, uint64_t count, uint64_t rax, uint64_t flags, bool touches)
{
	struct kvm_regs *k = &r.cpu[0].regs;

	rig_mode(&r, 0, mode);
	k->rip = RIG_CODE;
	k->rcx = count;
	k->rsi = from;
	k->rdi = to;
	k->rdx = 0;
	k->r15 = rax;
	k->r14 = flags;
	k->rbx = touches ? from : RIG_DATA;
	k->rbp = touches ? to : RIG_DATA;
}

static bool once(const struct string *t, enum rig_mode mode, enum kind kind)
{
	struct kvm_regs *k = &r.cpu[0].regs;
	unsigned bad = 1 + below(PAGES - 2), most = below(4) ? 256 : 4000;
	bool down = !below(8), good;
	struct state s = { .count = below(most / t->size), .from = somewhere(), .to = below(4) ? somewhere() : 0 };
	uint64_t rax = rnd(), flags = (rnd() & FLAGS) | 2 | (down ? 0x400 : 0), from = s.from, cr2;
	int reason;

	if (!s.to)
		s.to = s.from + below(32) - 16;
	/* Of an element over the end of a page that is there, half may be done. */
	if (kind == GONE) {
		s.from = from &= -(uint64_t)t->size;
		s.to &= -(uint64_t)t->size;
	}
	for (unsigned i = 0; i < PAGES; i++)
		rig_map(&r, AREA + i * 4096, FRAMES + frame_of[i] * 4096, kind == MISSING && i == bad ? 0 : kind == READ_ONLY && i == bad ? PTE_P | PTE_U : PTE_ALL);
	for (unsigned i = 0; i < SIZE; i++)
		model[i] = r.mem[FRAMES + i] = (uint8_t)rnd();
	memcpy(r.mem + RIG_CODE, t->code, t->end - t->code);
	if (kind == GONE) {
		/* What fills the TLB, and no string. */
		registers(mode, s.from, s.to, 0, rax, flags, true);
		if (rig_go(&r, 0) != RIG_DONE)
			return false;
		mprotect(r.mem + FRAMES + frame_of[bad] * 4096, 4096, PROT_NONE);
	}
	registers(mode, s.from, s.to, s.count, rax, flags, kind == PLAIN);
	by_model(t, kind, bad, down, rax, &s);
	reason = rig_go(&r, 0);
	cr2 = r.cpu[0].cr2;
	if (kind == GONE)
		mprotect(r.mem + FRAMES + frame_of[bad] * 4096, 4096, PROT_READ | PROT_WRITE);
	if (!s.stopped)
		good = reason == RIG_DONE && k->rdx == 2;
	else if (kind == GONE)
		good = reason == -EFAULT && k->rdx == 1;
	else
		good = reason == RIG_STOPPED && r.cpu[0].vector == 14 && cr2 == s.at && k->rdx == 1;
	/* The flags where it stands: pushed by what stopped it, or the vCPU's own. */
	flags ^= (reason == -EFAULT ? k->rflags : r.cpu[0].rflags) & (FLAGS | 0x402);
	good = good && k->rcx == s.count && k->rdi == s.to && k->rsi == (t->stos ? from : s.from) && k->rax == rax && !flags &&
	       !memcmp(model, r.mem + FRAMES, SIZE);
	/* It goes on where it stopped, once the memory is there. */
	if (good && s.stopped && kind == GONE) {
		s.stopped = false;
		by_model(t, PLAIN, 0, down, rax, &s);
		reason = rig_again(&r, 0);
		good = reason == RIG_DONE && k->rcx == 0 && k->rdi == s.to && !memcmp(model, r.mem + FRAMES, SIZE);
	}
	if (!good) {
		rig_diag(&r, 0, t->name, reason);
		tap_diag("RCX 0x%llx for 0x%llx, RDI 0x%llx for 0x%llx, RSI 0x%llx for 0x%llx, RDX %llu, CR2 0x%llx for 0x%llx%s, flags differ by 0x%llx",
			 (unsigned long long)k->rcx, (unsigned long long)s.count, (unsigned long long)k->rdi, (unsigned long long)s.to,
			 (unsigned long long)k->rsi, (unsigned long long)s.from, (unsigned long long)k->rdx, (unsigned long long)cr2,
			 (unsigned long long)s.at, s.stopped ? "" : " (none)", (unsigned long long)flags);
	}
	return good;
}

static void repeated(enum rig_mode mode, enum kind kind)
{
	unsigned rounds = getenv("TRINE_LONG") ? 20000 : kind == PLAIN ? 600 : 200;

	for (unsigned i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
		unsigned n = 0;

		while (n < rounds && once(&strings[i], mode, kind))
			n++;
		tap_ok(n == rounds, "%s: %s, %s, %u times", rig_mode_names[mode], strings[i].name, kind_names[kind], rounds);
	}
}

/* Code that pushes flags twice, of random ones of @mask and the one that is always set: what it finds has @clear less, then @set more. */
static void pushed(enum rig_mode mode, const uint8_t *code, const uint8_t *end, uint64_t mask, uint64_t clear, uint64_t set, const char *what)
{
	struct kvm_regs *k = &r.cpu[0].regs;
	unsigned n;

	memcpy(r.mem + RIG_CODE, code, end - code);
	for (n = 0; n < 200; n++) {
		uint64_t given = (rnd() & mask) | 2;
		int reason;

		rig_mode(&r, 0, mode);
		k->rip = RIG_CODE;
		k->r14 = given;
		reason = rig_go(&r, 0);
		if (reason != RIG_DONE || k->r12 != (given & ~clear) || k->r13 != (given | set) || (r.cpu[0].rflags & mask) != ((given | set) & mask)) {
			rig_diag(&r, 0, what, reason);
			tap_diag("0x%llx and 0x%llx of 0x%llx", (unsigned long long)k->r12, (unsigned long long)k->r13, (unsigned long long)given);
			break;
		}
	}
	tap_ok(n == 200, "%s: %s, 200 times", rig_mode_names[mode], what);
}
#define PUSHED(mode, name, mask, clear, set, what) pushed(mode, guest_##name, guest_##name##_end, mask, clear, set, what)

int main(void)
{
	tap_begin();
	if (!rig_make(&r, 1))
		return tap_end();
	for (enum rig_mode mode = RIG_K64; mode <= RIG_U64; mode++) {
		for (enum kind kind = PLAIN; kind <= GONE; kind++)
			repeated(mode, kind);
		/* AC and ID as well; not TF, and IF is nobody's here. */
		PUSHED(mode, pushf, FLAGS | 0x240400, 0, 0, "pushfq");
	}
	PUSHED(RIG_K64, switches, FLAGS | 0x600, 0x600, 0x200, "cli, cld and sti change nothing else");
	rig_free(&r);
	return tap_end();
}
