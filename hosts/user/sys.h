/*
 * Raw system calls. The preload shim replaces close(), ioctl() and others for the whole process; what stands below it must not
 * meet those replacements.
 */
#ifndef HOSTS_USER_SYS_H
#define HOSTS_USER_SYS_H

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hosts/host.h"

/* Descriptors of our own stay out of the range in which programs expect to get theirs. */
#define SYS_FD_HIGH 500

static inline int sys_close(int fd)
{
	return (int)syscall(SYS_close, fd);
}

static inline void *sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

static inline int sys_fcntl(int fd, int cmd, long arg)
{
	return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

static inline int sys_futex_wait(u32 *word, u32 value, const struct timespec *timeout)
{
	return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout, NULL, 0);
}

static inline int sys_futex_wake(u32 *word, int n)
{
	return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Bit n - 1 stands for signal n. */
static inline int sys_sigmask(int how, const u64 *set, u64 *old)
{
	return (int)syscall(SYS_rt_sigprocmask, how, set, old, sizeof(*set));
}

#define SYS_SIGBIT(sig) (1ULL << ((sig)-1))
/*
 * SIGBUS and SIGSEGV, and SIGILL and SIGFPE of the guest's own SIMD instructions. A fault while these are blocked ends the
 * process: they stay open while core may touch client memory.
 */
#define SYS_FAULT_SIGNALS (SYS_SIGBIT(4) | SYS_SIGBIT(7) | SYS_SIGBIT(8) | SYS_SIGBIT(11))

/** Moves @fd, a descriptor of our own, up and out of the way. Returns the new one; @fd itself when there is no room. */
int host_fd_hide(int fd);
/** Whether @fd is one of our own, which the client must not close. */
bool host_fd_hidden(int fd);
void host_fd_close_hidden(int fd);

#endif
