/*
 * lite_fast_string() against the emulator, which is made to stop after as many elements: registers, flags and memory have to be the same.
 * Where it stopped too early there has to be a reason in the next element: a fault, a device, a page with code, memory that the client
 * took away. Linear pages are aliases of few physical ones; addresses are around page ends and around 4 GiB, 2^47 and 2^64.
 * The argument, or TRINE_LONG, sets how many states each case gets.
 */
#include <stdlib.h>

#include "core/x86/cpuid.h"
#include "core/x86/msr.h"
#include "tests/lite/fast.h"
#include "tests/random.h"

/* Guest-physical pages. */
enum { PML4 = 1, PDPT, PD, PT, PD_TOP, PT_TOP, DATA, DATA_END = DATA + 10, CODE = DATA_END, PAGES, GONE = PAGES };
#define HIGH	   0xffffff8000000000ULL
#define DEVICE_GPA 0xd0000000ULL
#define MEMORY	   (PAGES * 4096UL)
#define WINDOW	   16U /* mapped pages at the bottom, and again below 4 GiB and 2^64 */

static u8 saved[MEMORY], after_fast[MEMORY];
static struct emul_ops ops;
static u64 elements_left;

enum page_kind { PLAIN, NO_PAGE, READ_ONLY, DEVICE, HOLDS_CODE, TAKEN_AWAY, SUPERVISOR };
static u8 kinds[2][WINDOW];

/* ---- the machine ------------------------------------------------------------------------------------------------ */

static bool counted(struct emul *e)
{
	return !--elements_left;
}

static bool machine(void)
{
	if (!fast_machine(MEMORY, MEMORY + 4096))
		return false;
	ops = lite_emul_ops;
	ops.element_done = counted;
	c->vcpu.emul.ops = &ops;
	return true;
}

/* ---- random states ---------------------------------------------------------------------------------------------- */

/* Present, accessed, dirty: walks change nothing. */
static u64 entry_of(enum page_kind kind)
{
	u64 page = (u64)(DATA + below(DATA_END - DATA)) << 12;

	switch (kind) {
	case NO_PAGE: return 0;
	case READ_ONLY: return page | 0x65;
	case DEVICE: return DEVICE_GPA | 0x67;
	case HOLDS_CODE: return CODE << 12 | 0x67;
	case TAKEN_AWAY: return GONE << 12 | 0x67;
	case SUPERVISOR: return page | 0x63;
	default: return page | 0x67;
	}
}

static void page_tables(void)
{
	memset(memory, 0, DATA << 12);
	put64(PML4 << 12, PDPT << 12 | 0x67);
	put64((PML4 << 12) + 511 * 8, PDPT << 12 | 0x67);
	put64(PDPT << 12, PD << 12 | 0x67);
	put64((PDPT << 12) + 3 * 8, PD_TOP << 12 | 0x67);
	put64((PDPT << 12) + 511 * 8, PD_TOP << 12 | 0x67);
	put64(PD << 12, PT << 12 | 0x67);
	put64((PD_TOP << 12) + 511 * 8, PT_TOP << 12 | 0x67);
	put64((PT << 12) + 511 * 8, CODE << 12 | 0x67); /* whence it is decoded */
	for (unsigned i = 0; i < 2 * WINDOW; i++) {
		u8 *kind = &kinds[i / WINDOW][i % WINDOW];

		*kind = chance(75) ? PLAIN : below(SUPERVISOR + 1);
		put64(i < WINDOW ? (PT << 12) + i * 8 : (PT_TOP << 12) + (512 - 2 * WINDOW + i) * 8, entry_of(*kind));
	}
}

/* What is there; unmapped pages are NO_PAGE. */
static enum page_kind kind_at(u64 la)
{
	u64 page = la >> 12;

	if (page >= 0xfffffffffffffULL - WINDOW + 1)
		return kinds[1][page - (0xfffffffffffffULL - WINDOW + 1)];
	if (la >= HIGH)
		page -= HIGH >> 12;
	if (page < WINDOW)
		return kinds[0][page];
	page -= 0x100000 - WINDOW;
	return page < WINDOW ? kinds[1][page] : NO_PAGE;
}

static u64 offset(void)
{
	u64 at = (u64)below(WINDOW) << 12;

	at += chance(40) ? 4096 - below(80) : chance(30) ? below(80) : below(4096);
	return chance(60) ? at & ~7ULL : at;
}

static u64 address(bool wide)
{
	u64 at = offset();

	if (!wide)
		return chance(50) ? at : (u32)(at - (WINDOW << 12));
	switch (below(20)) {
	case 0: return rnd();
	case 1: return 0x800000000000ULL - below(64);
	case 2: return 0xffff800000000000ULL + below(32) - 16;
	case 3: case 4: return at - (WINDOW << 12);
	case 5: case 6: return (u32)(at - (WINDOW << 12));
	case 7: case 8: return HIGH + (u32)(at - (WINDOW << 12));
	default: return chance(50) ? at : HIGH + at;
	}
}

/* Mostly the same, so that comparisons take a while. */
static void contents(u64 v, unsigned size)
{
	for (unsigned i = DATA << 12; i < MEMORY; i += 8)
		put64(i, size == 1 ? (u8)v * 0x0101010101010101ULL : size == 2 ? (u16)v * 0x0001000100010001ULL :
			 size == 4 ? (u32)v * 0x0000000100000001ULL : v);
	for (unsigned n = below(400); n; n--)
		memory[(DATA << 12) + below((PAGES - DATA) << 12)] = chance(30) ? (u8)rnd() : (u8)v;
}

static void random_contents(void)
{
	for (unsigned i = DATA << 12; i < MEMORY; i += 8)
		put64(i, rnd());
}

static u64 count(unsigned size, bool wide)
{
	u64 n;

	switch (below(8)) {
	case 0: n = below(3); break;
	case 1: n = below(9000) / size; break;
	case 2: n = chance(10) ? rnd() : below(30000) / size; break;
	default: n = below(600) / size;
	}
	return wide && chance(10) ? n | rnd() << 32 : n;
}

static const struct x86_state *start; /* as the machine came up */

static bool make_code(void)
{
	struct x86_state state = c->vcpu.x86;
	enum x86_result r;
	bool good;

	c->vcpu.x86.cpl = 0;
	lite_refresh(c);
	good = lite_is_code(to_lite_vm(c->vcpu.vm), CODE) || lite_block_at(c, 511 * 4096, &r);
	c->vcpu.x86 = state;
	return good;
}

static bool random_state(struct x86_state *s, const struct insn *in, unsigned n)
{
	bool wide = in->mode == MODE_64;
	unsigned cpl = chance(50) ? 0 : 3;

	if (n % 32 == 0) {
		*s = *start;
		page_tables();
		s->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP | (chance(20) ? CR0_AM : 0);
		s->cr4 = CR4_PAE | CR4_OSFXSR;
		s->cr3 = PML4 << 12;
		s->efer = EFER_LME | EFER_LMA | EFER_NX;
		lite_tlb_flush_all(c);
	}
	s->cpl = cpl;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct x86_segment){ .sel = 8 | cpl, .limit = ~0U, .ar = 0x93 | AR_G | AR_DB | cpl << 5 };
	s->seg[SEG_CS].ar = (chance(90) ? 0x9b : 0x99) | AR_G | cpl << 5 | (wide ? AR_L : AR_DB);
	for (unsigned i = SEG_FS; i <= SEG_GS; i++) {
		s->seg[i].base = wide && chance(20) ? rnd() : below(WINDOW << 12);
		if (chance(10))
			s->seg[i].limit = below(WINDOW << 12);
		if (chance(10))
			s->seg[i].ar = chance(30) ? AR_UNUSABLE : 0x91 | below(8) << 1 | AR_G | AR_DB | cpl << 5;
	}
	x86_update_mode(s);
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = wide ? rnd() : (u32)rnd();
	s->gpr[REG_SI] = address(wide);
	s->gpr[REG_DI] = chance(30) ? s->gpr[REG_SI] + below(64) - 32 : chance(20) ? s->gpr[REG_SI] + below(9000) - 4500 : address(wide);
	s->gpr[REG_CX] = count(in->opsize, wide);
	if (!wide) {
		s->gpr[REG_DI] = (u32)s->gpr[REG_DI];
		s->gpr[REG_CX] = (u32)s->gpr[REG_CX];
	}
	s->rip = wide ? 0x123456789000ULL : chance(5) ? 0xffffffff - below(4) : 0x12345678;
	s->rflags = (rnd() & (RFLAGS_ARITH | RFLAGS_IF | RFLAGS_ID)) | RFLAGS_ONE | (chance(35) ? RFLAGS_DF : 0) | (chance(15) ? RFLAGS_AC : 0);
	s->shadow = 0;
	c->vcpu.requests = 0;
	c->budget = chance(10) ? -1 : 100;
	if (chance(60))
		contents(s->gpr[REG_AX], in->opsize);
	else
		random_contents();
	if (chance(10))
		lite_tlb_flush_all(c);
	return make_code();
}

/* ---- cases ------------------------------------------------------------------------------------------------------ */

/* Address size, operand size, segment and repetition at random. */
static bool encode(struct insn *in, u8 opcode, bool wide)
{
	static const u8 segs[] = { 0x64, 0x65, 0x26, 0x2e, 0x36 };
	u8 bytes[INSN_MAX_LEN] = { 0 };
	unsigned n = 0;

	if (chance(wide ? 20 : 3))
		bytes[n++] = 0x67;
	if (chance(30))
		bytes[n++] = 0x66;
	if (chance(30))
		bytes[n++] = segs[below(ARRAY_SIZE(segs))];
	if (chance(75))
		bytes[n++] = chance(50) ? 0xf2 : 0xf3;
	if (wide && chance(50))
		bytes[n++] = 0x40 | below(16);
	bytes[n++] = opcode | below(2);
	return insn_decode(in, bytes, sizeof(bytes), wide ? MODE_64 : MODE_32) == INSN_OK;
}

static bool same(const struct x86_state *x, const struct x86_state *y)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi" };
	bool good = true;

	for (unsigned i = 0; i < 16; i++)
		good &= same64(i < 8 ? names[i] : "r8 to r15", x->gpr[i], y->gpr[i]);
	good &= same64("rip", x->rip, y->rip) & same64("rflags", x->rflags, y->rflags) & same64("shadow", x->shadow, y->shadow) &
		same64("cr2", x->cr2, y->cr2);
	return good & same64("anything else", !memcmp(x, y, sizeof(*x)), good);
}

static bool same_memory(const u8 *want)
{
	if (!memcmp(memory, want, MEMORY))
		return true;
	for (unsigned i = 0, shown = 0; report && i < MEMORY && shown < 8; i++)
		if (memory[i] != want[i])
			tap_diag("memory at %#x: %02x, %02x", i, memory[i], want[i]), shown++;
	return false;
}

static enum x86_result emulate(const struct insn *in, u64 elements)
{
	elements_left = elements;
	c->vcpu.emul.tf_at_start = false;
	return emul_exec(&c->vcpu.emul, in);
}

/* Linear addresses wrap at the end of @mask. */
static bool touches(u64 la, u64 mask, unsigned size, bool write)
{
	for (unsigned i = 0; i < size; i += size - 1 ? size - 1 : 1) {
		enum page_kind kind = kind_at((la + i) & mask);

		if (kind == DEVICE || kind == TAKEN_AWAY || (kind == HOLDS_CODE && write))
			return true;
	}
	return false;
}

/* Whether the element at the registers is one that the emulator has to do. */
static bool special(const struct insn *in)
{
	const struct x86_state *s = &c->vcpu.x86;
	u64 mask = in->addrsize == 8 ? ~0ULL : in->addrsize == 4 ? 0xffffffff : 0xffff, si = s->gpr[REG_SI] & mask, di = s->gpr[REG_DI] & mask;
	u64 linear = in->mode == MODE_64 ? ~0ULL : 0xffffffff;
	bool writes = in->mnemonic == MN_MOVS || in->mnemonic == MN_STOS;

	if (in->addrsize == 2 || ((s->rflags & RFLAGS_AC) && (s->cr0 & CR0_AM) && s->cpl == 3))
		return true;
	if (in->seg_override == SEG_FS || in->seg_override == SEG_GS || (in->mode == MODE_32 && in->seg_override == SEG_CS)) {
		const struct x86_segment *seg = &s->seg[in->seg_override];

		si += seg->base;
		if (in->mode == MODE_32) {
			si = (u32)si;
			/* Limits, access rights */
			if (seg->limit != ~0U || (seg->ar & AR_UNUSABLE) || ((seg->ar & 0xe) != 2 && (seg->ar & 0xa) != 0xa && (seg->ar & 0xe) != 0))
				return true;
		}
	}
	return (in->mnemonic != MN_STOS && in->mnemonic != MN_SCAS && touches(si, linear, in->opsize, false)) ||
	       (in->mnemonic != MN_LODS && touches(di, linear, in->opsize, writes));
}

/* One state. -1: wrong; else how many elements were done, at most 1000. */
static int compare(const struct insn *in)
{
	struct x86_state before, fast;
	u64 mask = in->addrsize == 8 ? ~0ULL : 0xffffffff, n;
	bool done, moved, polled = c->budget < 0;
	enum x86_result r;

	memcpy(saved, memory, MEMORY);
	lite_refresh(c);
	before = c->vcpu.x86;
	done = lite_fast_string(c, in);
	fast = c->vcpu.x86;
	moved = fast.rip != before.rip;
	memcpy(after_fast, memory, MEMORY);
	n = in->rep ? (before.gpr[REG_CX] - fast.gpr[REG_CX]) & mask : moved;
	if (report)
		tap_diag("opcode %#x, %u bytes, rep %#x, addresses %u, segment %u, %s, done %d, %llu elements", in->opcode, in->opsize, in->rep,
			 in->addrsize, in->seg_override, before.rflags & RFLAGS_DF ? "down" : "up", done, (unsigned long long)n);
	if (!done) {
		if (!same(&fast, &before) || memcmp(memory, saved, MEMORY))
			return -1;
		n = 0;
	} else {
		if (!moved && !n)
			return -1;
		c->vcpu.x86 = before;
		memcpy(memory, saved, MEMORY);
		r = emulate(in, n);
		if (!same64("result", X86_CONTINUE, r) || !same(&fast, &c->vcpu.x86) || !same_memory(after_fast))
			return -1;
	}
	if (!moved && !(polled && n) && !special(in)) {
		r = emulate(in, 1);
		if (!same64("result of what was left", X86_FAULT, r))
			return -1;
	}
	return n > 1000 ? 1000 : (int)n;
}

static void test(const char *name, u8 opcode, bool wide, unsigned long states)
{
	unsigned long wrong = 0, some = 0, many = 0;

	for (unsigned long i = 0; i < states; i++) {
		struct x86_state state;
		struct insn in;
		s32 budget;
		int r;

		if (!encode(&in, opcode, wide) || !random_state(&c->vcpu.x86, &in, (unsigned)i)) {
			wrong++;
			continue;
		}
		if (in.addrsize < 4)
			continue;
		state = c->vcpu.x86;
		budget = c->budget;
		r = compare(&in);
		some += r > 0;
		many += r > 100;
		if (r >= 0 || wrong++ >= 3)
			continue;
		/* Again, aloud. */
		c->vcpu.x86 = state;
		c->budget = budget;
		memcpy(memory, saved, MEMORY);
		report = true;
		compare(&in);
		report = false;
	}
	tap_ok(!wrong && some * 100 >= states * 50 && many * 100 >= states * 4, "%s in %s-bit code: %lu states, %lu did some, %lu many, %lu wrong",
	       name, wide ? "64" : "32", states, some, many, wrong);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		u8 opcode;
	} tests[] = { { "MOVS", 0xa4 }, { "CMPS", 0xa6 }, { "STOS", 0xaa }, { "LODS", 0xac }, { "SCAS", 0xae } };
	unsigned long states = argc > 1 ? strtoul(argv[1], NULL, 0) : getenv("TRINE_LONG") ? 1000000 : 20000;
	static struct x86_state up;

	tap_begin();
	if (!tap_ok(machine(), "a vCPU of lite's"))
		return tap_end();
	up = c->vcpu.x86;
	start = &up;
	for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
		test(tests[i].name, tests[i].opcode, true, states);
		test(tests[i].name, tests[i].opcode, false, states);
	}
	return tap_end();
}
