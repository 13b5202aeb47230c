/*
 * Fuzz target: the decoder. Byte 0 chooses the mode and how many bytes are promised; the rest is code.
 *
 * Beside memory errors it looks for broken promises: lengths past what was given, operands past their tables, and a
 * result that depends on bytes after the instruction.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/x86/emul/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct insn insn, again;
	enum insn_mode mode;
	int result;

	if (size < 1)
		return 0;
	mode = data[0] % 3;
	data++;
	size--;
	memset(&insn, 0xa5, sizeof(insn));
	result = insn_decode(&insn, data, size, mode);
	must(result <= 0);
	if (result)
		return 0;

	must(insn.len >= 1 && insn.len <= INSN_MAX_LEN && insn.len <= size);
	must(!memcmp(insn.bytes, data, insn.len));
	must(insn.nops <= sizeof(insn.op) / sizeof(insn.op[0]));
	must(!insn.has_mem || insn.mem_op < insn.nops);
	must(mnemonic_name(insn.mnemonic) != NULL);

	/* The same from exactly its own bytes; and one byte fewer is not enough. */
	must(!insn_decode(&again, insn.bytes, insn.len, mode) && again.len == insn.len &&
	     again.mnemonic == insn.mnemonic);
	must(insn_decode(&again, insn.bytes, insn.len - 1, mode) < 0);
	return 0;
}
