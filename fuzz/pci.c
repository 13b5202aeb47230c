/* Fuzzes configuration space by both ways, the BARs that it moves, and the reset ports; see pc.h.
 */
#include "fuzz/pc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct fuzz_window windows[] = { { IO_PORT, 0xcf8, 8 },
						      { IO_MEMORY, 0xb0000000, 0x1000 },
						      { IO_MEMORY, 0xb0010000, 0x1000 },
						      { IO_MEMORY, 0xb00f8000, 0x1000 },
						      { IO_MEMORY, 0xc0000000, 0x10000 },
						      { IO_PORT, 0x92, 1 },
						      {} };

	return fuzz_pc(windows, "virtio-rng-pci,addr=2", data, size);
}
