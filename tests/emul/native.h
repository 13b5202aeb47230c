/*
 * Runs one instruction on the real processor, in 64-bit or in 32-bit (compatibility) mode, from a
 * given set of registers, and tells what became of them or which exception it raised. Used to
 * compare emulator and engines with the CPU:
 *
 *	struct native_regs in = { .rflags = 0x202, .gpr[REG_SP] = NATIVE_SCRATCH + 0x800 };
 *	struct native_result out;
 *
 *	native_init();
 *	native_run(code, 3, false, &in, &out);
 *
 * One thread at a time; signal handlers for SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGTRAP are this
 * file's.
 */
#ifndef TESTS_EMUL_NATIVE_H
#define TESTS_EMUL_NATIVE_H

#include "hosts/user/host_types.h"

#define NATIVE_LOW	     0x10000000UL /* stubs, their data, two pages of code */
#define NATIVE_LOW_END	     0x10004000UL
#define NATIVE_CODE	     0x10002f00UL /* where the instruction is */
#define NATIVE_SCRATCH	     0x20000000UL /* pages 0 and 1 writable, 2 read-only, none around */
#define NATIVE_SCRATCH_PAGES 3
#define NATIVE_GS_BASE	     0x1230UL /* of GS in 64-bit mode */

extern u64 native_code_at; /* NATIVE_CODE; any place in the two pages that has room for the code and 5 bytes more */

struct native_regs {
	u64 gpr[16];
	u64 rip, rflags;
};

struct native_result {
	int vector; /* -1: none */
	u32 error;
	u64 cr2;
	struct native_regs regs;
	bool completed_by_fetch; /* a branch: the fault is that its target cannot be fetched */
};

/** Maps everything. False when this system cannot. */
bool native_init(void);
/** Makes the last scratch page read-only, after it was filled. */
bool native_protect_scratch(void);
/** Whether 32-bit code can be run. After native_init(). */
bool native_has_compat(void);
/**
 * Runs @code, @len bytes, no privileges needed. @in->rip is ignored. With @xstate_in, @xstate_out
 * (64-byte aligned XSAVE images in the standard format, components @xcr): loads and stores the
 * extended state around it.
 */
void native_run(const u8 *code, unsigned len, bool compat, const struct native_regs *in,
		struct native_result *out);
void native_run_x(const u8 *code, unsigned len, bool compat, const struct native_regs *in,
		  struct native_result *out, const void *xstate_in, void *xstate_out, u64 xcr);

#endif
