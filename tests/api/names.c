/* Every way a program can name /dev/kvm or one of its descriptors. For the C library's functions only: api-kvm-names. */
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/api/api.h"

#define DEVICE "/dev/kvm"

static void version_of(int fd, const char *how)
{
	tap_ok(fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0UL) == 12, "%s", how);
	if (fd >= 0)
		close(fd);
}

static void opening(void)
{
	FILE *f;

	version_of(open(DEVICE, O_RDWR), "open");
	version_of(open64(DEVICE, O_RDWR | O_CLOEXEC), "open64");
	version_of(openat(AT_FDCWD, DEVICE, O_RDWR), "openat");
	version_of(openat64(AT_FDCWD, DEVICE, O_RDWR), "openat64");
	f = fopen(DEVICE, "r+");
	tap_ok(f && ioctl(fileno(f), KVM_GET_API_VERSION, 0UL) == 12, "fopen");
	if (f)
		fclose(f);
}

static void naming(void)
{
	struct stat st;

	equals(access(DEVICE, R_OK | W_OK), 0, "access may read and write it");
	equals(faccessat(AT_FDCWD, DEVICE, F_OK, 0), 0, "faccessat sees it");
	tap_ok(!stat(DEVICE, &st) && S_ISCHR(st.st_mode), "stat finds a character device");
	tap_ok(!lstat(DEVICE, &st) && S_ISCHR(st.st_mode), "lstat too");
	tap_ok(!fstatat(AT_FDCWD, DEVICE, &st, 0) && S_ISCHR(st.st_mode), "fstatat too");
	refuses(ENOENT, access("/dev/kvm-there-is-none", F_OK), "other names are as they are");
}

static void duplicating(void)
{
	int vm = ioctl(api_system(), KVM_CREATE_VM, 0UL), fd, null = open("/dev/null", O_RDWR | O_CLOEXEC);

	fd = dup(vm);
	accepts(ioctl(fd, KVM_CHECK_EXTENSION, 0UL), "dup");
	equals(dup2(vm, fd), fd, "dup2 onto a duplicate");
	accepts(ioctl(fd, KVM_CHECK_EXTENSION, 0UL), "leaves one");
	equals(dup2(null, fd), fd, "dup2 of another file onto it");
	refuses(ENOTTY, ioctl(fd, KVM_CHECK_EXTENSION, 0UL), "makes it that");
	equals(dup3(vm, fd, O_CLOEXEC), fd, "dup3 back");
	accepts(ioctl(fd, KVM_CHECK_EXTENSION, 0UL), "makes it a VM's again");
	equals(fcntl(fd, F_GETFD), FD_CLOEXEC, "that closes on exec");
	close(fd);
	fd = fcntl(vm, F_DUPFD, 60);
	accepts(ioctl(fd, KVM_CHECK_EXTENSION, 0UL), "fcntl");
	close(vm);
	accepts(ioctl(fd, KVM_CHECK_EXTENSION, 0UL), "the last of them keeps the VM");
	close(fd);
	close(null);
}

static void closing(void)
{
	int a = ioctl(api_system(), KVM_CREATE_VM, 0UL), b = fcntl(a, F_DUPFD_CLOEXEC, 200), fd;
	pid_t child;
	int status;

	accepts(ioctl(b, KVM_CHECK_EXTENSION, 0UL), "a VM at %d", b);
	equals(close_range(200, ~0U, 0), 0, "close_range");
	refuses(EBADF, ioctl(b, KVM_CHECK_EXTENSION, 0UL), "closes it");
	accepts(ioctl(a, KVM_CHECK_EXTENSION, 0UL), "and nothing below");
	fd = (int)accepts(ioctl(a, KVM_CREATE_VCPU, 0UL), "the VM goes on");
	accepts(ioctl(fd, KVM_GET_MP_STATE, &(struct kvm_mp_state){ 0 }), "so does its new vCPU");
	/* Between vfork() and what follows the child has the parent's memory but its own descriptors. */
	child = vfork();
	if (!child) {
		close(a);
		close(fd);
		_exit(0);
	}
	waitpid(child, &status, 0);
	accepts(ioctl(fd, KVM_GET_MP_STATE, &(struct kvm_mp_state){ 0 }), "a vfork()ed child that closes all takes nothing away");
	tap_ok(!system("exit 0"), "system() works");
	accepts(ioctl(a, KVM_CHECK_EXTENSION, 0UL), "and takes nothing away");
	close(fd);
	close(a);
}

const struct api_case api_cases[] = {
	{ "opening", opening },
	{ "naming", naming },
	{ "duplicating", duplicating },
	{ "closing", closing },
	{ NULL, NULL },
};
