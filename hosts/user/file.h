/*
 * Descriptors of core's objects. Each is a real descriptor of the process - of the memfd behind the object where it has one,
 * else of an empty memfd - so that poll, fcntl, fstat, dup and close-on-exec are the kernel's own. A table says which object
 * a descriptor stands for; the object is released when the last of its descriptors was closed through host_file_close()
 * and no call on it is under way.
 *
 *	long r = host_file_ioctl(fd, KVM_RUN, 0);	// -EBADF: not one of ours
 *
 * Duplicates that were made behind the table's back are recognised by their inode as long as one known descriptor is open.
 *
 * After fork() the child has its own copies of the descriptors. Objects that belong to the parent answer -EIO there (core
 * compares host_client_pid()), and closing them in the child releases nothing.
 */
#ifndef HOSTS_USER_FILE_H
#define HOSTS_USER_FILE_H

#include <sys/types.h>

#include "hosts/host.h"

/** Whether @fd stands for an object of core. Cheap. */
bool host_file_known(int fd);
/** As ioctl(2), but returns -errno. -EBADF: not ours. */
long host_file_ioctl(int fd, unsigned cmd, u64 arg);
/** As mmap(2); on failure returns MAP_FAILED and sets *@error to -errno; -EBADF: not ours. */
void *host_file_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset, int *error);
/** As pread(2) for objects that have no memory behind them. -EBADF: not ours. */
long host_file_read(int fd, void *buf, size_t len, u64 offset);
/** As close(2), returning 0 or -errno. -EBADF: not ours. */
int host_file_close(int fd);
/** @fd is about to become something else (dup2 over it, close_range): as host_file_close() without the system call. */
void host_file_forget(int fd);
/** @new was made by dup() or fcntl() from @old: it stands for the same object. */
void host_file_dup(int old, int new);

#endif
