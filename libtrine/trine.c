/* See trine.h. */
#include "libtrine/trine.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/vm.h"
#include "engines/lite/options.h"
#include "hosts/user/file.h"
#include "hosts/user/signals.h"
#include "hosts/user/sys.h"

#define DEVICE "/dev/kvm"

/* One for each open(), as its release is the file layer's. */
static long system_ioctl(struct host_file *file, unsigned cmd, u64 arg)
{
	return core_system_ioctl(cmd, arg);
}

static void system_release(struct host_file *file)
{
	host_free(file);
}

static const struct host_file_ops system_ops = {
	.name = "kvm",
	.ioctl = system_ioctl,
	.release = system_release,
};

static int core_error;

static void init_core(void)
{
	core_error = core_init(&lite_engine);
}

/* TRINE_LITE, before anything that the program itself asks for. */
static int environment_error;

static void read_environment(void)
{
	const char *text = getenv("TRINE_LITE");
	char error[256];

	if (!text)
		return;
	environment_error = lite_options_parse(text, error, sizeof(error));
	if (environment_error)
		host_log(HOST_LOG_ERROR, "libtrine: TRINE_LITE: %s", error);
}

static void environment(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, read_environment);
}

static int fail(long error)
{
	errno = (int)-error;
	return -1;
}

int trine_set_options(const char *text, char *error, size_t size)
{
	int r;

	environment();
	r = lite_options_parse(text, error, size);
	return r ? fail(r) : 0;
}

int trine_open(const char *path, int flags)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct host_file *file;
	int fd;

	if (!path || strcmp(path, DEVICE))
		return fail(-ENOENT);
	environment();
	if (environment_error)
		return fail(environment_error);
	pthread_once(&once, init_core);
	if (core_error)
		return fail(core_error);
	file = host_zalloc(sizeof(*file));
	if (!file)
		return fail(-ENOMEM);
	file->ops = &system_ops;
	fd = host_file_install(file);
	if (fd < 0) {
		host_free(file);
		return fail(fd);
	}
	if (!(flags & O_CLOEXEC))
		sys_fcntl(fd, F_SETFD, 0);
	return fd;
}

int trine_ioctl(int fd, unsigned long cmd, ...)
{
	va_list ap;
	u64 arg;
	long r;

	va_start(ap, cmd);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	host_thread_prepare();
	r = host_file_ioctl(fd, (unsigned)cmd, arg);
	if (r == -EBADF && !host_file_known(fd))
		return fail(sys_fcntl(fd, F_GETFD, 0) < 0 ? -EBADF : -ENOTTY);
	return r < 0 ? fail(r) : (int)r;
}

void *trine_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	int error;
	void *p = host_file_mmap(addr, len, prot, flags, fd, offset, &error);

	if (p == MAP_FAILED)
		errno = error == -EBADF && sys_fcntl(fd, F_GETFD, 0) >= 0 ? ENODEV : -error;
	return p;
}

int trine_close(int fd)
{
	int error = host_file_close(fd);

	return error ? fail(error) : 0;
}

bool trine_is_open(int fd)
{
	return host_file_known(fd);
}

int trine_dup(int fd, int new, int flags)
{
	int r;

	if (!host_file_known(fd))
		return fail(-EBADF);
	if (new < 0) {
		r = sys_fcntl(fd, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	} else {
		if (host_fd_hidden(new))
			return fail(-EBUSY);
		if (new != fd)
			host_file_forget(new);
		r = (int)syscall(SYS_dup3, fd, new, flags);
	}
	if (r >= 0)
		host_file_dup(fd, r);
	return r;
}
