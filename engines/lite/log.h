/*
 * What `-d` shows of the engine: text for the trace that lite_options.log asked for.
 *
 *	if (unlikely(lite_log_wants(LITE_LOG_IN_ASM))) {
 *		lite_log("IN: %llx\n", (unsigned long long)va);
 *		lite_log_insn(&insn, va);
 *	}
 *
 * All of it leaves the guest's vector registers where they are.
 */
#ifndef ENGINES_LITE_LOG_H
#define ENGINES_LITE_LOG_H

#include "core/engine.h"
#include "core/x86/emul/decode.h"
#include "engines/lite/options.h"

static inline bool lite_log_wants(u32 what)
{
	return __atomic_load_n(&lite_options.log, __ATOMIC_RELAXED) & what;
}

/** As printf(), integers and strings only, up to 1 KiB; lines of several threads do not mix when each is one call. */
__attribute__((format(printf, 1, 2))) void lite_log(const char *fmt, ...);
/** A line: @va, the bytes, the instruction. */
void lite_log_insn(const struct insn *insn, u64 va);
/** Such lines for @len bytes of code in @mode that will be, or are, at @va; what is no instruction is shown byte by byte. */
void lite_log_code(const u8 *code, size_t len, u64 va, enum insn_mode mode);
/** A line for a return from guest code. */
void lite_log_exit(struct vcpu *vcpu, const struct engine_exit *exit);

/**
 * @insn, at @va, in Intel's syntax as in "mov eax, dword ptr [rbx+rcx*4-0x10]"; branches show where they go, RIP-relative
 * operands that and, after '#', the address. Cut off at @size - 1 bytes; returns the length.
 */
size_t lite_disasm(const struct insn *insn, u64 va, char *buf, size_t size);

#endif
