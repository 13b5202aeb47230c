/*
 * The accelerator: what answers the KVM API. The monitor knows it by these four functions and
 * KVM_CHECK_EXTENSION, nothing else.
 *
 *	accel_ioctl(m, m->vm_fd, KVM_IRQ_LINE, &level)	a negative errno instead of -1 and errno
 */
#ifndef VMM_ACCEL_H
#define VMM_ACCEL_H

#include "vmm/util.h"
#include <sys/types.h>

struct machine;

/* As the system calls: -1 and errno (MAP_FAILED for mmap) on failure. */
struct accel {
	const char *name;
	const char *description;
	int (*open)(void); /* a descriptor for system ioctls */
	int (*ioctl)(int fd, unsigned long request, unsigned long argument);
	void *(*mmap)(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
	int (*close)(int fd);
	/*
	 * "name=value", commas in the value doubled; on failure a text in @error. NULL: there is
	 * nothing to set.
	 */
	int (*set_options)(const char *text, char *error, size_t size);
};

extern const struct accel accel_lite, accel_kvm;

/**
 * Chooses by @name ("lite", "kvm", "auto"), opens it into m->accel and m->kvm_fd. For auto one line
 * on standard error says what was chosen and why. Errors: -EINVAL (unknown name), what opening
 * answers, with text.
 */
int accel_open(struct machine *m, const char *name, struct error *err);

/**
 * Whether @a runs a guest as the processor does: 0, or a negative errno with the reason in @err.
 * Creates and destroys a VM.
 */
int accel_probe(const struct accel *a, struct error *err);

/**
 * Gives @a the option @name, before accel_open(). -ENOTSUP when it has none, -EINVAL or what else
 * is wrong, with text.
 */
int accel_set_option(const struct accel *a, const char *name, const char *value,
		     struct error *err);

/** ioctl by m->accel; the result, or a negative errno. Any thread. */
int accel_ioctl(const struct machine *m, int fd, unsigned long request, void *argument);
int accel_ioctl_value(const struct machine *m, int fd, unsigned long request,
		      unsigned long argument);
/** KVM_CHECK_EXTENSION on the VM (on the system before there is one); 0 if it is absent. */
int accel_has(const struct machine *m, int extension);

#endif
