/* Choosing, opening and calling the accelerator. */
#include "vmm/accel.h"
#include "vmm/machine.h"
#include <linux/kvm.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int kvm_open(void)
{
	return open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

static int kvm_ioctl(int fd, unsigned long request, unsigned long argument)
{
	return ioctl(fd, request, argument);
}

const struct accel accel_kvm = {
	.name = "kvm",
	.description = "the kernel's /dev/kvm",
	.open = kvm_open,
	.ioctl = kvm_ioctl,
	.mmap = mmap,
	.close = close,
};

int accel_set_option(const struct accel *a, const char *name, const char *value,
		     struct error *err)
{
	char *text, *to, why[sizeof(err->text)];
	int r;

	if (!a->set_options)
		return error_set(err, -ENOTSUP, "%s: the accelerator %s has no such property",
				 name, a->name);
	text = xzalloc(strlen(name) + 2 * strlen(value) + 2);
	to = stpcpy(stpcpy(text, name), "=");
	for (; *value; value++) {
		*to++ = *value;
		if (*value == ',')
			*to++ = ',';
	}
	r = a->set_options(text, why, sizeof(why));
	free(text);
	return r < 0 ? error_set(err, -errno, "%s", why) : 0;
}

int accel_ioctl_value(const struct machine *m, int fd, unsigned long request,
		      unsigned long argument)
{
	int r = m->accel->ioctl(fd, request, argument);

	return r < 0 ? -errno : r;
}

int accel_ioctl(const struct machine *m, int fd, unsigned long request, void *argument)
{
	return accel_ioctl_value(m, fd, request, (uintptr_t)argument);
}

int accel_has(const struct machine *m, int extension)
{
	int r = -1;

	if (m->vm_fd >= 0)
		r = accel_ioctl_value(m, m->vm_fd, KVM_CHECK_EXTENSION, extension);
	if (r < 0)
		r = accel_ioctl_value(m, m->kvm_fd, KVM_CHECK_EXTENSION, extension);
	return MAX(r, 0);
}

static int open_one(struct machine *m, const struct accel *a, struct error *err)
{
	int version;

	m->accel = a;
	m->kvm_fd = a->open();
	if (m->kvm_fd < 0) {
		m->accel = NULL;
		if (a == &accel_kvm)
			return error_set(err, -errno, "/dev/kvm: %s", strerror(errno));
		return error_set(err, -errno, "%s: %s", a->name, strerror(errno));
	}
	version = accel_ioctl_value(m, m->kvm_fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		a->close(m->kvm_fd);
		m->kvm_fd = -1;
		m->accel = NULL;
		return error_set(err, -EINVAL, "%s speaks version %d of the KVM API, %d is wanted",
				 a->name, version, KVM_API_VERSION);
	}
	return 0;
}

int accel_open(struct machine *m, const char *name, struct error *err)
{
	struct error why = { "" };

	if (!strcmp(name, "kvm"))
		return open_one(m, &accel_kvm, err);
	if (!strcmp(name, "lite"))
		return open_one(m, &accel_lite, err);
	if (strcmp(name, "auto"))
		return error_set(err, -EINVAL,
				 "%s: no such accelerator; there are lite, kvm and auto", name);
	if (accel_probe(&accel_kvm, &why) == 0) {
		report("accelerator kvm: a probe guest ran on /dev/kvm at native speed");
		return open_one(m, &accel_kvm, err);
	}
	report("accelerator lite: %s", why.text);
	return open_one(m, &accel_lite, err);
}
