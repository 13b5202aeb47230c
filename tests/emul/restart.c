/*
 * The rule that makes everything restartable: an instruction that must wait (X86_RETRY), at
 * whichever of its accesses, has changed no register, and when it is executed again it ends as if
 * it had never waited. Tried with random instructions of every mnemonic, in 64- and 32-bit mode, at
 * CPL 0 and 3; string instructions may have committed elements.
 */
#include <stdlib.h>

#include "tests/emul/machine.h"
#include "tests/tap.h"

#define PAGES 16
#define BASE  0x10000ULL

static struct machine m;
static unsigned waits; /* how often something had to wait */
static u64 seed = 0x726573746172ULL;

static u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dULL;
}

struct snapshot {
	struct x86_state s;
	u8 mem[PAGES << 12];
};

static void take(struct snapshot *to)
{
	to->s = m.s;
	memcpy(to->mem, m.mem, sizeof(to->mem));
}

static void restore(const struct snapshot *from)
{
	m.s = from->s;
	memcpy(m.mem, from->mem, sizeof(from->mem));
}

/* Random registers, most of them addresses; GDT, IDT and TSS in the same random memory. */
static void make_state(bool wide, unsigned cpl)
{
	unsigned i;

	for (i = 0; i < PAGES << 12; i += 8) {
		u64 v = rnd();

		memcpy(m.mem + i, &v, 8);
	}
	machine_real_mode(&m);
	if (wide)
		machine_long_mode(&m, cpl);
	else
		machine_prot32(&m, cpl);
	for (i = 0; i < 16; i++)
		m.s.gpr[i] = BASE + 0x1000 + rnd() % ((PAGES - 2) << 12);
	m.s.gpr[REG_CX] = rnd() % 8;
	m.s.gpr[REG_SP] = BASE + 0x4000 + (rnd() & 0x3ff8);
	m.s.rip = BASE + 0x100;
	m.s.rflags |= rnd() & RFLAGS_ARITH;
	m.s.gdt = (struct x86_dtable){ BASE + 0x2000, 0xfff };
	m.s.idt = (struct x86_dtable){ BASE + 0x3000, 0xfff };
	m.s.seg[SEG_TR] = (struct x86_segment){ .base = BASE + 0x5000, .limit = 0xfff, .ar = 0x8b };
	m.s.seg[SEG_LDTR] =
		(struct x86_segment){ .base = BASE + 0x6000, .limit = 0xfff, .ar = 0x82 };
}

/* The verdict on one instruction: every access in turn waits once. */
static bool try_insn(const struct insn *in)
{
	static struct snapshot start, end;
	enum x86_result r, want;
	unsigned k, steps;

	take(&start);
	want = emul_exec(&m.e, in);
	if (want == X86_CONTINUE && m.s.rip == start.s.rip && in->rep)
		return true; /* stopped between elements */
	take(&end);
	for (k = 1; k < 100; k++) {
		restore(&start);
		m.retry_in = k;
		r = emul_exec(&m.e, in);
		if (m.retry_in) {
			m.retry_in = 0;
			break; /* it has fewer accesses than that */
		}
		/* After the commit point of a task switch it is the new task that waits. */
		if (m.e.task_switched)
			continue;
		if (r != X86_RETRY ||
		    (!(in->flags & INSN_F_STRING) && memcmp(&m.s, &start.s, sizeof(m.s)))) {
			tap_diag("access %u: result %d, state changed %d", k, r,
				 memcmp(&m.s, &start.s, sizeof(m.s)) != 0);
			return false;
		}
		waits++;
		for (steps = 0; r == X86_RETRY && steps < 3; steps++)
			r = emul_exec(&m.e, in);
		if (r != want || memcmp(&m.s, &end.s, sizeof(m.s)) ||
		    memcmp(m.mem, end.mem, sizeof(end.mem))) {
			tap_diag("access %u, again: result %d, expected %d", k, r, want);
			return false;
		}
	}
	restore(&end);
	return true;
}

int main(void)
{
	static unsigned tried[MN_SIMD_FIRST], wrong[MN_SIMD_FIRST];
	unsigned i, mnemonic, failures = 0, total = 0, known = 0;
	struct insn in;
	u8 code[16];

	tap_begin();
	machine_init(&m, BASE, PAGES);
	for (i = 0; i < 400000; i++) {
		bool wide = rnd() & 1;
		u64 r[2] = { rnd(), rnd() };

		memcpy(code, r, 16);
		if (i & 2) {
			code[0] = 0x0f;
		} else if (i & 4) {
			/* Prefixes, far transfers, events, ENTER: not left to luck. */
			static const u8 first[] = {
				0xf3, 0xf0, 0x48, 0x66, 0xff, 0xcf, 0xcd, 0xc8
			};

			code[0] = first[r[1] >> 32 & 7];
		}
		if (insn_decode(&in, code, 15, wide ? MODE_64 : MODE_32) ||
		    in.mnemonic >= MN_SIMD_FIRST)
			continue;
		if (tried[in.mnemonic] > 150 || in.mnemonic == MN_RSM)
			continue;
		make_state(wide, rnd() & 1 ? 3 : 0);
		memcpy(m.mem + 0x100, code, 15);
		/* Aim a base register at the memory, whatever the displacement. */
		if (in.has_mem && in.mem.base != INSN_REG_NONE && in.addrsize >= 4) {
			m.s.gpr[in.mem.base] = BASE + 0x3000 + (rnd() & 0x3ff0) - in.mem.disp;
			if (in.mem.index != INSN_REG_NONE && in.mem.index != in.mem.base) {
				m.s.gpr[in.mem.index] = rnd() & 15;
			}
			if (!wide)
				m.s.gpr[in.mem.base] = (u32)m.s.gpr[in.mem.base];
		}
		tried[in.mnemonic]++;
		if (!try_insn(&in)) {
			wrong[in.mnemonic]++;
			tap_diag("%s-bit %s %02x %02x %02x %02x", wide ? "64" : "32",
				 mnemonic_name(in.mnemonic), code[0], code[1], code[2], code[3]);
			if (++failures > 20)
				break;
		}
	}
	for (mnemonic = 1; mnemonic < MN_SIMD_FIRST; mnemonic++) {
		if (!tried[mnemonic])
			continue;
		known++;
		total += tried[mnemonic];
		if (wrong[mnemonic])
			tap_ok(false, "%s waits at any access and goes on",
			       mnemonic_name(mnemonic));
	}
	tap_ok(!failures && known > 200 && waits > 10000,
	       "%u instructions of %u mnemonics wait at any access and go on, %u times", total,
	       known, waits);
	machine_free(&m);
	return tap_end();
}
