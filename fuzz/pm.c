/* Fuzzes the ACPI registers; see pc.h. */
#include "fuzz/pc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct fuzz_window windows[] = { { IO_PORT, 0x600, 0x30 }, {} };

	return fuzz_pc(windows, NULL, data, size);
}
