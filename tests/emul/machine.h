/*
 * A processor and a piece of flat memory for the emulator's tests: linear addresses from
 * machine.base on, with rights a page; everything else page-faults. Nothing is translated, no client
 * is needed.
 *
 *	struct machine m;
 *
 *	machine_init(&m, 0, 256);
 *	machine_long_mode(&m, 3);
 *	m.s.rip = 0x1000;
 *	r = emul_step(&m.e);
 */
#ifndef TESTS_EMUL_MACHINE_H
#define TESTS_EMUL_MACHINE_H

#include "core/x86/cpuid.h"
#include "core/x86/emul/emul.h"

enum { PAGE_NONE, PAGE_READ, PAGE_WRITE };

struct machine {
	struct emul e;
	struct x86_state s;
	u64 base;
	unsigned pages;
	u8 *mem;
	u8 *rights; /* PAGE_*, one a page */
	bool features[CPUID_WORDS * 32];
	unsigned retry_in; /* the n-th access from now on returns X86_RETRY; 0: none */
	bool touched_outside; /* some access went beyond the memory */
	/* What system instructions asked for, in the order of the calls: names and values for the
	 * tests to compare. */
	u64 msr[4]; /* by index & 3 */
	u32 last_port, last_out;
	unsigned hlt, hypercalls, native, mode_changes, invlpg;
	const char *vendor; /* 12 characters */
};

void machine_init(struct machine *m, u64 base, unsigned pages);
void machine_free(struct machine *m);
/** Flat segments, privilege @cpl, selectors as Linux has them (0x33, 0x2b; below 3: 0x10, 0x18). */
void machine_long_mode(struct machine *m, unsigned cpl);
void machine_prot32(struct machine *m, unsigned cpl);
void machine_real_mode(struct machine *m);
/** Takes all features from this program's processor. */
void machine_host_features(struct machine *m);
/** Memory at linear address @la; exits on a test's own mistake. */
void *machine_at(struct machine *m, u64 la, unsigned len);

#endif
