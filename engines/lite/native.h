/* The inside of lite's native executor: native.c makes stubs, exec_native.c calls them from blocks, stub_room.c is their memory. */
#ifndef ENGINES_LITE_NATIVE_H
#define ENGINES_LITE_NATIVE_H

#include "engines/lite/exec.h"
#include "engines/lite/stub_room.h"

/* One instruction's stub and how it is to be called. */
struct lite_native {
	const u8 *code;
	u32 class; /* bit of fpu_live that it needs */
	u16 fop;
	u8 size, align; /* of the memory operand; align is a mask */
	u8 state;
	u8 reg, rm; /* guest registers that are RCX and RDX in the stub */
	bool fip, out_ax, out_reg, out_rm, flags_in, flags_out;
};

/* What a stub ended with: R8. */
enum { LITE_STUB_OK, LITE_STUB_FPE, LITE_STUB_UD };

/* A stub touches no registers but RAX, RCX, RDX, flags, and vector state; compile without a red zone. */
static inline unsigned lite_stub_call(const u8 *code, u64 *regs, void *mem)
{
	register unsigned long what __asm__("r8") = 0;

	__asm__ volatile("call *%[code]"
			 : "+r"(what)
			 : [code] "r"(code), "D"(regs), "S"(mem)
			 : "rax", "rcx", "rdx", "cc", "memory");
	return what;
}

/** Alignment in bytes that the memory operand must have, 0: none. */
unsigned lite_native_align(const struct insn *insn);
/** The handler for an instruction with these traits; @ea is EA_KIND_*. */
lite_handler *lite_native_handler(bool mem, bool write, int ea, bool gprs, bool x87);
/** lower.c: the memory operand into @op; EA_KIND_* or -1. */
int lite_lower_mem(struct lite_lower *l, struct lite_op *op, const struct insn *insn);

#endif
