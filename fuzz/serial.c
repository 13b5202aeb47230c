/* Fuzzes the 16550A serial port; see pc.h. */
#include "fuzz/pc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct fuzz_window windows[] = { { IO_PORT, 0x3f8, 8 }, {} };

	return fuzz_pc(windows, "isa-serial", data, size);
}
