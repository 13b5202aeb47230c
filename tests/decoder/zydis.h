/*
 * A second opinion on every decode: what insn_decode() and Zydis say of the same bytes, compared.
 */
#ifndef TESTS_DECODER_ZYDIS_H
#define TESTS_DECODER_ZYDIS_H

#include <stdbool.h>
#include <stddef.h>
#include "core/x86/emul/decode.h"

/** Bytes that are given to both: one more than an instruction may have. */
#define COMPARE_BYTES 16

/** Prepares both sides. Call once, before any thread does. */
void zydis_init(void);

/**
 * Decodes @bytes (COMPARE_BYTES of them) both ways.
 *
 * Returns NULL if they agree, else what they differ in. @valid: whether it is an instruction for
 * either of them; @excused: set to the reason if it is a known difference (then NULL is returned).
 */
const char *zydis_compare(const u8 *bytes, enum insn_mode mode, bool *valid, const char **excused);

/** Both decodes of @bytes as TAP diagnostics. */
void zydis_print(const u8 *bytes, enum insn_mode mode);

#endif
