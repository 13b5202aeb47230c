/* Fuzzes virtio-balloon; see virtio.h. */
#include "fuzz/virtio.h"
#include "vmm/virtio/balloon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void change(struct fuzz_input *in)
{
	struct error err;

	balloon_set_target(&fuzz_guest.m, fuzz_take(in, 4), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_virtio("virtio-balloon-pci,packed=on,free-page-reporting=on,deflate-on-oom=on",
			   NULL, change, data, size);
}
