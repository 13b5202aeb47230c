/* The lite accelerator of a build without libtrine: it says so. */
#include "vmm/accel.h"
#include <stdio.h>
#include <sys/mman.h>

static int none_open(void)
{
	errno = ENOSYS;
	return -1;
}

static int none_ioctl(int fd, unsigned long request, unsigned long argument)
{
	errno = EBADF;
	return -1;
}

static void *none_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	errno = ENODEV;
	return MAP_FAILED;
}

static int none_close(int fd)
{
	errno = EBADF;
	return -1;
}

static int none_set_options(const char *text, char *error, size_t size)
{
	snprintf(error, size, "the accelerator lite is not in this build");
	errno = ENOSYS;
	return -1;
}

const struct accel accel_lite = {
	.name = "lite",
	.description = "not in this build",
	.open = none_open,
	.ioctl = none_ioctl,
	.mmap = none_mmap,
	.close = none_close,
	.set_options = none_set_options,
};
