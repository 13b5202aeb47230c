/*
 * libtrine-preload.so serves /dev/kvm from libtrine to a program that knows nothing of it:
 *
 *	LD_PRELOAD=build/libtrine-preload.so qemu-system-x86_64 -accel kvm ...
 *
 * The C library's functions that can name /dev/kvm or one of KVM's descriptors are replaced; for anything else they are the
 * C library's own. There need not be a /dev/kvm: it seems to exist. Statically linked programs and raw system calls are out
 * of reach, but for duplicates made behind our back (hosts/user/file.h).
 */
#include <dlfcn.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "hosts/user/file.h"
#include "hosts/user/sys.h"
#include "libtrine/trine.h"

#define EXPORT __attribute__((visibility("default")))
#define DEVICE "/dev/kvm"

static bool is_kvm(const char *path)
{
	return path && !strcmp(path, DEVICE);
}

/* The C library's own, or whoever comes after us. */
#define NEXT(ret, name, ...)                                                                       \
	static ret (*next)(__VA_ARGS__);                                                           \
	if (unlikely(!next)) {                                                                     \
		void *sym = dlsym(RTLD_NEXT, name);                                                \
		__atomic_store(&next, (ret(**)(__VA_ARGS__)) & sym, __ATOMIC_RELAXED);             \
	}                                                                                          \
	if (!next) {                                                                               \
		errno = ENOSYS;                                                                    \
		return (ret)-1;                                                                    \
	}

/* ---- open ---------------------------------------------------------------------------------------------------- */

#define MODE(flags, mode)                                                                          \
	mode_t mode = 0;                                                                           \
	if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                   \
		va_list ap;                                                                        \
		va_start(ap, flags);                                                               \
		mode = va_arg(ap, mode_t);                                                         \
		va_end(ap);                                                                        \
	}

#define OPEN(name)                                                                                 \
	EXPORT int name(const char *path, int flags, ...)                                          \
	{                                                                                          \
		MODE(flags, mode)                                                                  \
		NEXT(int, #name, const char *, int, ...)                                           \
		return is_kvm(path) ? trine_open(path, flags) : next(path, flags, mode);           \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
	EXPORT int name(int dir, const char *path, int flags, ...)                                 \
	{                                                                                          \
		MODE(flags, mode)                                                                  \
		NEXT(int, #name, int, const char *, int, ...)                                      \
		return is_kvm(path) ? trine_open(path, flags) : next(dir, path, flags, mode);      \
	}
OPENAT(openat)
OPENAT(openat64)

/* What open() becomes with _FORTIFY_SOURCE. */
#define OPEN_2(name)                                                                               \
	EXPORT int name(const char *path, int flags);                                              \
	EXPORT int name(const char *path, int flags)                                               \
	{                                                                                          \
		NEXT(int, #name, const char *, int)                                                \
		return is_kvm(path) ? trine_open(path, flags) : next(path, flags);                 \
	}
OPEN_2(__open_2)
OPEN_2(__open64_2)

#define OPENAT_2(name)                                                                             \
	EXPORT int name(int dir, const char *path, int flags);                                     \
	EXPORT int name(int dir, const char *path, int flags)                                      \
	{                                                                                          \
		NEXT(int, #name, int, const char *, int)                                           \
		return is_kvm(path) ? trine_open(path, flags) : next(dir, path, flags);            \
	}
OPENAT_2(__openat_2)
OPENAT_2(__openat64_2)

static FILE *open_stream(const char *mode)
{
	int fd = trine_open(DEVICE, strchr(mode, 'e') ? O_RDWR | O_CLOEXEC : O_RDWR);
	FILE *f = fd < 0 ? NULL : fdopen(fd, mode);

	if (fd >= 0 && !f)
		trine_close(fd);
	return f;
}

#define FOPEN(name)                                                                                \
	EXPORT FILE *name(const char *restrict path, const char *restrict mode)                    \
	{                                                                                          \
		static FILE *(*next)(const char *, const char *);                                  \
		if (is_kvm(path))                                                                  \
			return open_stream(mode);                                                  \
		if (!next)                                                                         \
			*(void **)&next = dlsym(RTLD_NEXT, #name);                                 \
		return next(path, mode);                                                           \
	}
FOPEN(fopen)
FOPEN(fopen64)

EXPORT int fclose(FILE *f)
{
	NEXT(int, "fclose", FILE *)
	int fd = f ? fileno(f) : -1;

	if (host_file_known(fd))
		host_file_forget(fd);
	return next(f);
}

/* ---- use ----------------------------------------------------------------------------------------------------- */

/* Raw: allocators call mmap() where dlsym() must not be called. */
static long raw(long r)
{
	return r; /* syscall(2) has set errno */
}

EXPORT int ioctl(int fd, unsigned long cmd, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, cmd);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	if (_IOC_TYPE(cmd) == KVMIO) {
		int r = trine_ioctl(fd, cmd, arg);

		if (r >= 0 || errno != ENOTTY || host_file_known(fd))
			return r;
	}
	return (int)raw(syscall(SYS_ioctl, fd, cmd, arg));
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (unlikely(!(flags & MAP_ANONYMOUS) && host_file_known(fd)))
		return trine_mmap(addr, len, prot, flags, fd, offset);
	return sys_mmap(addr, len, prot, flags, fd, offset);
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
	return mmap(addr, len, prot, flags, fd, offset);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------ */

EXPORT int close(int fd)
{
	if (unlikely(host_file_known(fd)))
		return trine_close(fd);
	/* Programs that close everything they do not know would take ours along. */
	if (unlikely(host_fd_hidden(fd))) {
		errno = EBADF;
		return -1;
	}
	return (int)raw(syscall(SYS_close, fd));
}

/* [first, last] without our own descriptors, which stay. */
static int close_but_hidden(unsigned first, unsigned last, int flags)
{
	unsigned fd;

	for (fd = first; fd <= last && fd <= INT32_MAX; fd++) {
		if (fd >= 65536) /* no hidden ones above */
			break;
		if (!host_fd_hidden((int)fd))
			continue;
		if (fd > first && syscall(SYS_close_range, first, fd - 1, flags))
			return -1;
		first = fd + 1;
	}
	return first <= last ? (int)syscall(SYS_close_range, first, last, flags) : 0;
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	unsigned fd;

	if (first > last || (flags & CLOSE_RANGE_CLOEXEC))
		return (int)raw(syscall(SYS_close_range, first, last, flags));
	for (fd = first; fd <= last && fd < 1U << 20; fd++)
		if (host_file_known((int)fd))
			host_file_forget((int)fd);
	return close_but_hidden(first, last, flags);
}

EXPORT void closefrom(int first)
{
	close_range(first < 0 ? 0 : (unsigned)first, ~0U, 0);
}

EXPORT int dup(int fd)
{
	if (unlikely(host_file_known(fd)))
		return trine_dup(fd, -1, 0);
	return (int)raw(syscall(SYS_dup, fd));
}

static int dup_to(int fd, int new, int flags)
{
	if (unlikely(host_file_known(fd)))
		return trine_dup(fd, new, flags);
	if (unlikely(host_fd_hidden(new))) {
		errno = EBUSY;
		return -1;
	}
	if (unlikely(host_file_known(new)) && sys_fcntl(fd, F_GETFD, 0) >= 0)
		host_file_forget(new);
	return (int)raw(syscall(SYS_dup3, fd, new, flags));
}

EXPORT int dup2(int fd, int new)
{
	if (fd == new)
		return sys_fcntl(fd, F_GETFD, 0) < 0 ? -1 : new;
	return dup_to(fd, new, 0);
}

EXPORT int dup3(int fd, int new, int flags)
{
	if (fd == new) {
		errno = EINVAL;
		return -1;
	}
	return dup_to(fd, new, flags);
}

static int do_fcntl(int fd, int cmd, unsigned long arg)
{
	int r = (int)raw(syscall(SYS_fcntl, fd, cmd, arg));

	if (unlikely((cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) && r >= 0 && host_file_known(fd)))
		host_file_dup(fd, r);
	return r;
}

#define FCNTL(name)                                                                                \
	EXPORT int name(int fd, int cmd, ...)                                                      \
	{                                                                                          \
		unsigned long arg;                                                                 \
		va_list ap;                                                                        \
		va_start(ap, cmd);                                                                 \
		arg = va_arg(ap, unsigned long);                                                   \
		va_end(ap);                                                                        \
		return do_fcntl(fd, cmd, arg);                                                     \
	}
FCNTL(fcntl)
FCNTL(fcntl64)

/* ---- what is said of the name ---------------------------------------------------------------------------------- */

static int may_access(int mode)
{
	if (mode & X_OK) {
		errno = EACCES;
		return -1;
	}
	return 0;
}

EXPORT int access(const char *path, int mode)
{
	NEXT(int, "access", const char *, int)
	return is_kvm(path) ? may_access(mode) : next(path, mode);
}

EXPORT int euidaccess(const char *path, int mode)
{
	NEXT(int, "euidaccess", const char *, int)
	return is_kvm(path) ? may_access(mode) : next(path, mode);
}

EXPORT int eaccess(const char *path, int mode)
{
	NEXT(int, "eaccess", const char *, int)
	return is_kvm(path) ? may_access(mode) : next(path, mode);
}

EXPORT int faccessat(int dir, const char *path, int mode, int flags)
{
	NEXT(int, "faccessat", int, const char *, int, int)
	return is_kvm(path) ? may_access(mode) : next(dir, path, mode, flags);
}

/* A character device, 10:232, that anybody may use. struct stat64 is struct stat here. */
static int describe(struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_mode = S_IFCHR | 0666;
	st->st_nlink = 1;
	st->st_ino = 1;
	st->st_rdev = makedev(10, 232);
	st->st_blksize = (long)HOST_PAGE_SIZE;
	return 0;
}

#define STAT(name, type)                                                                           \
	EXPORT int name(const char *restrict path, struct type *restrict st)                       \
	{                                                                                          \
		NEXT(int, #name, const char *, struct type *)                                      \
		return is_kvm(path) ? describe((struct stat *)st) : next(path, st);                \
	}
STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)

#define FSTATAT(name, type)                                                                        \
	EXPORT int name(int dir, const char *restrict path, struct type *restrict st, int flags)   \
	{                                                                                          \
		NEXT(int, #name, int, const char *, struct type *, int)                            \
		return is_kvm(path) ? describe((struct stat *)st) : next(dir, path, st, flags);    \
	}
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)

/* Programs built against a C library before 2.33. */
#define XSTAT(name, type)                                                                          \
	EXPORT int name(int version, const char *path, struct type *st);                           \
	EXPORT int name(int version, const char *path, struct type *st)                            \
	{                                                                                          \
		NEXT(int, #name, int, const char *, struct type *)                                 \
		return is_kvm(path) ? describe((struct stat *)st) : next(version, path, st);       \
	}
XSTAT(__xstat, stat)
XSTAT(__lxstat, stat)
XSTAT(__xstat64, stat64)
XSTAT(__lxstat64, stat64)

EXPORT int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict st)
{
	NEXT(int, "statx", int, const char *, int, unsigned, struct statx *)
	if (!is_kvm(path))
		return next(dir, path, flags, mask, st);
	memset(st, 0, sizeof(*st));
	st->stx_mask = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_INO;
	st->stx_mode = S_IFCHR | 0666;
	st->stx_nlink = 1;
	st->stx_ino = 1;
	st->stx_rdev_major = 10;
	st->stx_rdev_minor = 232;
	st->stx_blksize = (unsigned)HOST_PAGE_SIZE;
	return 0;
}
