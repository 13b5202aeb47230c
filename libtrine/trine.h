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

/** @path must be "/dev/kvm" (ENOENT). @flags as open(2)'s; only O_CLOEXEC matters. */
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
