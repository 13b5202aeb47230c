/* Fuzzes virtio-blk on an image in memory; see virtio.h. */
#include "fuzz/virtio.h"
#include "vmm/block/drive.h"
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make(struct guest *g)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	struct error err;
	char text[128];

	if (fd < 0 || ftruncate(fd, 1000 * 512 + 100) < 0)
		abort();
	snprintf(text, sizeof(text), "file=/proc/self/fd/%d,format=raw,if=none,id=d0,discard=unmap",
		 fd);
	if (drive_add(&g->m, text, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_virtio("virtio-blk-pci,drive=d0,packed=on,num-queues=3", make, NULL, data,
			   size);
}
