/*
 * The emulator against the real processor: random states, every integer instruction that user code
 * may execute (and what privileged ones do at CPL 3), in 64-bit and in 32-bit mode. Registers,
 * defined flags, memory, RIP and exceptions must agree. One verdict a mnemonic.
 *
 *	emul-real-cpu [CASES [SEED [MNEMONIC]]]		10^6 cases by default, 10^7 with TRINE_LONG
 */
#include <inttypes.h>
#include <stdlib.h>

#include "tests/emul/cases.h"
#include "tests/emul/machine.h"
#include "tests/emul/native.h"
#include "tests/tap.h"

static struct machine machine;
static u8 *const scratch = (u8 *)NATIVE_SCRATCH;
/* ---- comparing ------------------------------------------------------------------------------ */

static void describe(const struct form *f, const struct native_regs *in,
		     const struct native_result *n, enum x86_result r, bool compat)
{
	static const char *const names[] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"
	};
	const struct x86_state *s = &machine.s;
	char text[64] = "";
	unsigned i;

	for (i = 0; i < f->len; i++)
		sprintf(text + 3 * i, "%02x ", f->bytes[i]);
	tap_diag("%s-bit %s", compat ? "32" : "64", text);
	tap_diag("CPU: vector %d error %x cr2 %" PRIx64 " rip %" PRIx64
		 "; emulator: result %d vector %d error %x cr2 %" PRIx64 " rip %" PRIx64,
		 n->vector, n->error, n->cr2, n->regs.rip, r,
		 r == X86_FAULT ? machine.e.fault.vector : -1,
		 r == X86_FAULT ? machine.e.fault.error : 0,
		 r == X86_FAULT ? machine.e.fault.payload : 0, s->rip);
	for (i = 0; i < 16; i++)
		if (s->gpr[i] != n->regs.gpr[i] || s->gpr[i] != in->gpr[i])
			tap_diag("%s was %" PRIx64 " CPU %" PRIx64 " emulator %" PRIx64 "%s",
				 names[i], in->gpr[i], n->regs.gpr[i], s->gpr[i],
				 s->gpr[i] != n->regs.gpr[i] ? " !" : "");
	tap_diag("rflags were %" PRIx64 " CPU %" PRIx64 " emulator %" PRIx64, in->rflags,
		 n->regs.rflags, s->rflags);
}

static bool same_fault(const struct native_result *n, enum x86_result r)
{
	const struct x86_event *f = &machine.e.fault;

	if (r != X86_FAULT || f->vector != n->vector)
		return false;
	/* The kernel's half is mapped for the kernel: whether a page is present there is not this
	 * test's business. */
	if (f->has_error && (f->error ^ n->error) & (n->cr2 >> 63 ? ~1U : ~0U))
		return false;
	return f->vector != VEC_PF || f->payload == n->cr2;
}

enum outcome { SAME, SKIPPED, DIFFERENT };

static enum outcome run_case(const struct subject *sub, const struct form *form, bool compat)
{
	struct x86_state *s = &machine.s;
	struct form f = *form;
	struct native_regs in;
	struct native_result n;
	enum x86_result r;
	struct insn insn;
	u64 ignore;
	unsigned i;

	if (insn_decode(&insn, f.bytes, f.len, compat ? MODE_32 : MODE_64))
		return DIFFERENT;
	case_prepare(sub, &insn, f.bytes, &in, compat, scratch);
	if (insn_decode(&machine.e.insn, f.bytes, f.len, compat ? MODE_32 : MODE_64))
		return DIFFERENT;
	if (sub->quirks & Q_POPF) {
		/* TF would trap in the harness; NT is no user's business. */
		if (in.gpr[REG_SP] - NATIVE_SCRATCH < 0x1fff)
			scratch[in.gpr[REG_SP] - NATIVE_SCRATCH + 1] &= ~0x41;
		memcpy(machine.mem, scratch, SCRATCH_SIZE);
	}

	memcpy(s->gpr, in.gpr, sizeof(in.gpr));
	s->rflags = in.rflags;
	s->rip = NATIVE_CODE;
	s->shadow = 0;
	machine.touched_outside = false;
	for (i = 0;; i++) {
		r = emul_exec(&machine.e, &machine.e.insn);
		if (r != X86_CONTINUE || s->rip != NATIVE_CODE || i > 100)
			break;
	}
	s->rflags &= ~RFLAGS_RF;
	/* Not where the real process has memory that the emulator does not know: that is for
	 * another day. */
	if ((r == X86_FAULT && machine.e.fault.vector == VEC_PF &&
	     machine.e.fault.payload - NATIVE_LOW < 0x10000) ||
	    (r == X86_CONTINUE && s->rip - NATIVE_LOW < 0x10000 && insn.op[0].kind != OPK_REL &&
	     (sub->quirks & Q_BRANCH) && s->rip != NATIVE_CODE + f.len)) {
		memcpy(machine.mem, scratch, SCRATCH_SIZE);
		return SKIPPED;
	}
	native_run(f.bytes, f.len, compat, &in, &n);

	ignore = case_undefined_flags(sub, &insn, &in);
	if (n.vector >= 0 && !n.completed_by_fetch) {
		if (r == X86_CONTINUE && (sub->quirks & Q_BRANCH) && n.vector == VEC_GP &&
		    s->rip == n.regs.rip)
			; /* fetched from beyond what is canonical */
		else if (n.vector == VEC_BR && r == X86_FAULT && machine.e.fault.vector == VEC_PF &&
			 case_bound_either(&insn, &in, emul_effective_address(&machine.e, &machine.e.insn) + s->seg[machine.e.insn.mem.seg].base,
					   machine.e.fault.payload, scratch))
			; /* that it did nothing else is compared below */
		else if (!same_fault(&n, r)) {
			if ((sub->quirks & Q_TWO) && r == X86_FAULT &&
			    machine.e.fault.vector == VEC_PF && n.vector == VEC_PF)
				return SAME;
			/* AMD finds a non-canonical branch target after the branch (and the push),
			 * Intel before it. */
			if (!(sub->quirks & Q_BRANCH) || r != X86_FAULT ||
			    machine.e.fault.vector != VEC_GP)
				goto different;
			memcpy(machine.mem, scratch, SCRATCH_SIZE);
			return SAME;
		}
		/*
		 * Where the target is not canonical nothing has been pushed, says the manual (SDM 2A CALL), and RSP has not moved;
		 * below it, which nobody may rely on, the return address may be.
		 */
		if (insn.mnemonic == MN_CALL_NEAR && n.vector == VEC_GP && in.gpr[REG_SP] - 8 - NATIVE_SCRATCH <= 0x2000 - 8) {
			u64 at = in.gpr[REG_SP] - 8 - NATIVE_SCRATCH, back = NATIVE_CODE + f.len;

			if (!memcmp(scratch + at, &back, 8))
				memcpy(machine.mem + at, &back, 8);
		}
		/* After some comparisons: AMD leaves the flags of the last one, Intel those of before the first. The fault's return does it all again. */
		if ((insn.mnemonic == MN_CMPS || insn.mnemonic == MN_SCAS) && n.regs.gpr[REG_DI] != in.gpr[REG_DI])
			ignore |= RFLAGS_ARITH;
		if ((sub->quirks & Q_PARTIAL) ||
		    ((sub->quirks & Q_BRANCH) && n.regs.rip != NATIVE_CODE)) {
			memcpy(machine.mem, scratch, SCRATCH_SIZE);
			return SAME;
		}
	} else if (r != X86_CONTINUE) {
		goto different;
	}
	if (case_undefined_result(sub, &insn, &in)) {
		memcpy(machine.mem, scratch, SCRATCH_SIZE);
		return SAME;
	}
	for (i = 0; i < (compat ? 8 : 16); i++)
		if (s->gpr[i] != n.regs.gpr[i])
			goto different;
	if (s->rip != n.regs.rip || ((s->rflags ^ n.regs.rflags) & COMPARED & ~ignore))
		goto different;
	if (memcmp(machine.mem, scratch, SCRATCH_SIZE)) {
		for (i = 0; machine.mem[i] == scratch[i]; i++)
			;
		tap_diag("memory differs at %lx: CPU %02x emulator %02x", NATIVE_SCRATCH + i,
			 scratch[i], machine.mem[i]);
		goto different;
	}
	return SAME;

different:
	describe(&f, &in, &n, r, compat);
	memcpy(machine.mem, scratch, SCRATCH_SIZE);
	return DIFFERENT;
}

/* Numbers, canonical addresses, small values. */
static void fill_scratch(void)
{
	unsigned i;

	for (i = 0; i < 0x2000; i += 8) {
		u64 v = case_rnd();

		if (case_one_in(4))
			v &= 0x7fffffffffffULL;
		else if (case_one_in(4))
			v = case_interesting();
		memcpy(scratch + i, &v, 8);
	}
	memcpy(machine.mem, scratch, SCRATCH_SIZE);
}

static void test_subject(const struct subject *sub, unsigned long cases)
{
	unsigned long i, done = 0, differ = 0, skipped = 0;
	const char *name = mnemonic_name(sub->mnemonic);
	bool compat;

	if (sub->feature && !machine.features[sub->feature]) {
		tap_skip("this processor does not have it", name);
		return;
	}
	for (i = 0; i < cases && differ < 5; i++) {
		const struct form *f;

		compat = native_has_compat() && case_form(sub->mnemonic, true) && (!case_form(sub->mnemonic, false) || i % 4 == 3);
		f = case_form(sub->mnemonic, compat);
		if (!f)
			break;
		if (i % 512 == 0)
			fill_scratch();
		if (compat)
			machine_prot32(&machine, 3);
		else
			machine_long_mode(&machine, 3);
		machine.s.seg[SEG_TR].limit = 0;
		machine.s.seg[SEG_GS].base = compat ? 0 : NATIVE_GS_BASE;
		switch (run_case(sub, f, compat)) {
		case SAME: done++; break;
		case SKIPPED: skipped++; break;
		case DIFFERENT: differ++; break;
		}
	}
	if (!i)
		tap_skip("no form of it can run here", name);
	else
		tap_ok(!differ && done, "%s agrees with the processor in %lu cases (%lu skipped)",
		       name, done, skipped);
}

int main(int argc, char **argv)
{
	unsigned long cases = argc > 1		     ? strtoul(argv[1], NULL, 0)
			      : getenv("TRINE_LONG") ? 10000000
						     : 1000000;
	unsigned i;

	case_seed(argc > 2 ? strtoull(argv[2], NULL, 0) : 0x7472696e65);
	tap_begin();
	machine_init(&machine, NATIVE_SCRATCH, NATIVE_SCRATCH_PAGES);
	machine_host_features(&machine);
	if (!native_init()) {
		tap_skip("code cannot be mapped low here", "emulator against the processor");
		return tap_end();
	}
	fill_scratch();
	if (native_protect_scratch())
		machine.rights[2] = PAGE_READ;
	case_subject_pools();
	case_make_forms(false, 160, false);
	case_make_forms(true, 80, false);
	for (i = 0; i < case_nr_subjects; i++)
		if (argc < 4 || !strcmp(mnemonic_name(case_subjects[i].mnemonic), argv[3]))
			test_subject(&case_subjects[i],
				     argc < 4 ? cases / case_nr_subjects + 1 : cases);
	return tap_end();
}
