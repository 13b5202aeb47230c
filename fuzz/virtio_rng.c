/* Fuzzes virtio-rng and the transport; see virtio.h. */
#include "fuzz/virtio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_virtio("virtio-rng-pci,packed=on,max-bytes=65536,period=1", NULL, NULL, data,
			   size);
}
