/* The lite accelerator: libtrine, the KVM API in this process. The one file that knows of it. */
#include "vmm/accel.h"
#include "libtrine/trine.h"
#include <fcntl.h>

static int lite_open(void)
{
	return trine_open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

static int lite_ioctl(int fd, unsigned long request, unsigned long argument)
{
	return trine_ioctl(fd, request, argument);
}

const struct accel accel_lite = {
	.name = "lite",
	.description = "Trine's own engine, in this process",
	.open = lite_open,
	.ioctl = lite_ioctl,
	.mmap = trine_mmap,
	.close = trine_close,
	.set_options = trine_set_options,
};
