/*
 * The KVM API in this process: what open("/dev/kvm"), ioctl(), mmap() and close() are to Linux's KVM. Structures,
 * commands, extensions and error numbers are those of <linux/kvm.h>; errors come as -1 and errno.
 *
 *	int kvm = trine_open("/dev/kvm", O_RDWR | O_CLOEXEC);
 *	int vm = trine_ioctl(kvm, KVM_CREATE_VM, 0);
 *	int vcpu = trine_ioctl(vm, KVM_CREATE_VCPU, 0);
 *	struct kvm_run *run = trine_mmap(NULL, trine_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
 *					 PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
 *	trine_ioctl(vcpu, KVM_RUN, 0);
 *
 * Descriptors are real: poll, dup and fcntl behave, a plain mmap of a vCPU's descriptor gives kvm_run (the coalesced ring and dirty
 * ring only through trine_mmap), a plain read of a KVM_GET_STATS_FD descriptor gives the statistics. They must be closed with
 * trine_close(), all their duplicates too; a plain close() leaves the object behind until its number is used again.
 *
 * A signal ends KVM_RUN with EINTR, and its handler runs when KVM_RUN returns, as with Linux: the library exports sigaction() and
 * signal() for that, which behave as the C library's. A forked child cannot use its parent's VMs (EIO), nor disturb them.
 */
#ifndef LIBTRINE_TRINE_H
#define LIBTRINE_TRINE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Takes "name=value,name=value..." as options of the engine, for VMs made later and for the whole process:
 *
 *	engine=auto|interp|jit	what runs guest code: the interpreter, the translator, or whichever serves
 *	lockstep=on|off|N	the interpreter checks every (every Nth) block of translated code
 *	windows=on|off|eager	pages of MAP_SHARED guest memory may be mapped once more, at a fixed distance. While it is in a
 *				memory slot the client does not map something else in its place
 *	cache=MIB		translated code, at most
 *	verify=on|off|abort	translated code is checked before it runs
 *	log=ITEM+ITEM...|none	in_asm, out_asm, exits; at once
 *	logfile=PATH		where to; without it standard error
 *
 * The environment variable TRINE_LITE gives the same to a program that does not call this. 0, or -1 and errno (EINVAL, or the file's
 * error) with a text that names what is wrong in @error, of @size bytes (it may be NULL when @size is 0); then nothing has changed.
 */
int trine_set_options(const char *text, char *error, size_t size);
/** @path must be "/dev/kvm" (ENOENT). @flags as open(2)'s; only O_CLOEXEC matters. EINVAL: TRINE_LITE is wrong, the log says why. */
int trine_open(const char *path, int flags);
/** The third argument is a value or a pointer, as with ioctl(2). ENOTTY when @fd is not one of the library's. */
int trine_ioctl(int fd, unsigned long cmd, ...);
/** ENODEV when @fd is not one of the library's, or cannot be mapped. */
void *trine_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
/** EBADF when @fd is not one of the library's. */
int trine_close(int fd);
/** Whether @fd stands for one of the library's objects. */
bool trine_is_open(int fd);
/** dup2() and dup3() onto @new, or dup() when @new is -1, for the library's descriptors. */
int trine_dup(int fd, int new, int flags);

#ifdef __cplusplus
}
#endif

#endif
