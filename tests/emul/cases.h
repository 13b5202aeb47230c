/*
 * Random cases for comparing what runs guest code with the real processor: which instructions, in which forms, from which states, and what
 * of the result the manuals leave open. Addresses are those of native.h.
 *
 *	case_seed(1);
 *	case_subject_forms();			pools for all of case_subjects[]
 *	case_make_forms(false, 160, false);
 *	f = *case_form(MN_ADD, false);
 *	insn_decode(&insn, f.bytes, f.len, MODE_64);
 *	case_prepare(subject, &insn, f.bytes, &regs, false, scratch);
 */
#ifndef TESTS_EMUL_CASES_H
#define TESTS_EMUL_CASES_H

#include "core/x86/cpuid.h"
#include "core/x86/emul/decode.h"
#include "tests/emul/native.h"

#define SCRATCH_SIZE (NATIVE_SCRATCH_PAGES << 12)
#define COMPARED                                                                                \
	(RFLAGS_ARITH | RFLAGS_DF | RFLAGS_TF | RFLAGS_AC | RFLAGS_ID | RFLAGS_NT | RFLAGS_IF | \
	 RFLAGS_IOPL)

/* How a case is prepared and compared, beside the common part. */
enum quirk {
	Q_NONE,
	Q_SHIFT = 1, /* OF undefined but for counts of 1; CF too from the operand size on */
	Q_STACK = 2,
	Q_STRING = 4,
	Q_BRANCH = 8,
	Q_POPF = 16,
	Q_DIV = 32,
	Q_BITS = 64,	  /* a register bit offset moves the address */
	Q_ZERO_SRC = 128, /* destination undefined for a zero source */
	Q_PRIV = 256,	  /* faults at CPL 3: nothing to prepare */
	Q_AC = 512,	  /* also with alignment checks on */
	Q_XLAT = 1024,
	Q_FRAME = 2048, /* RBP is an address */
	Q_TWO = 8192, /* two operands in memory: which one faults first is the processor's choice */
	Q_PARTIAL = 4096, /* a fault may leave values below SP, or some of the registers, changed */
};

struct subject {
	u16 mnemonic;
	u16 quirks;
	u64 undefined;
	u16 feature;
};
extern const struct subject case_subjects[];
extern const unsigned case_nr_subjects;

struct form {
	u8 bytes[INSN_MAX_LEN];
	u8 len;
};

extern u64 case_code; /* where the instruction will be; NATIVE_CODE */

void case_seed(u64 seed);
u64 case_rnd(void);
bool case_one_in(unsigned n);
u64 case_interesting(void);
/** An address in the scratch memory: mostly where @len bytes fit; sometimes over a border. */
u64 case_target_address(unsigned len);
/** Forms of @mnemonic are to be kept, in 64-bit and in 32-bit code. */
void case_pool(u16 mnemonic);
void case_subject_pools(void);
/** Every opcode of every map, each with @variants of prefixes and operands; @simd: VEX and EVEX in all lengths. */
void case_make_forms(bool compat, unsigned variants, bool simd);
/** Any of the forms; NULL: there is none. */
const struct form *case_form(u16 mnemonic, bool compat);
/** Makes the effective address @target, by registers or the displacement in @bytes, where the form lets it. */
void case_aim(struct insn *in, u8 *bytes, struct native_regs *r, u64 target, bool compat);
/** Registers, and displacement and immediates in @bytes, of which @in is the decoded instruction. @scratch: what memory holds. */
void case_prepare(const struct subject *sub, struct insn *in, u8 *bytes, struct native_regs *r, bool compat, const u8 *scratch);
u64 case_undefined_flags(const struct subject *sub, const struct insn *in, const struct native_regs *r);
/**
 * BOUND, whose index is below the lower bound: @la is that of its operand. #BR and a page fault for the upper bound are of one class, in which
 * the order is the processor's (SDM 3A 6.9), if the upper bound is what faults, at @cr2.
 */
bool case_bound_either(const struct insn *in, const struct native_regs *r, u64 la, u64 cr2, const u8 *scratch);
/** What the manuals leave to the processor although it is no flag. */
bool case_undefined_result(const struct subject *sub, const struct insn *in, const struct native_regs *r);

#endif
