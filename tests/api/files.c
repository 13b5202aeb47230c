/* Descriptors behave as files: duplicates, closing in any order, fork, poll. */
#include <poll.h>
#include <sys/wait.h>

#include "tests/api/api.h"

static void duplicates(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), copy = dup(vm), other, vcpu;

	tap_ok(copy >= 0, "a VM's descriptor can be duplicated");
	accepts(api.ioctl(copy, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_USER_MEMORY), "the duplicate answers");
	vcpu = (int)accepts(api.ioctl(copy, KVM_CREATE_VCPU, 0UL), "and makes vCPUs");
	refuses(EEXIST, api.ioctl(vm, KVM_CREATE_VCPU, 0UL), "of the same VM");
	equals(api.close(vm), 0, "the first is closed");
	accepts(api.ioctl(copy, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_USER_MEMORY), "the duplicate still answers");
	other = fcntl(vcpu, F_DUPFD_CLOEXEC, 50);
	tap_ok(other >= 50, "a vCPU's can be duplicated too");
	accepts(api.ioctl(other, KVM_GET_MP_STATE, &(struct kvm_mp_state){ 0 }), "the duplicate answers");
	equals(api.close(vcpu), 0, "the first is closed");
	equals(api.close(copy), 0, "the VM is closed");
	accepts(api.ioctl(other, KVM_GET_MP_STATE, &(struct kvm_mp_state){ 0 }), "the duplicate still answers");
	equals(api.close(other), 0, "the last is closed");
	refuses(EBADF, api.ioctl(other, KVM_GET_MP_STATE, &(struct kvm_mp_state){ 0 }), "then there is nothing");
	refuses(EBADF, api.close(other), "nor anything to close");
}

static void not_ours(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	refuses(ENOTTY, api.ioctl(fd, KVM_CHECK_EXTENSION, 0UL), "another file is no VM");
	refuses(EBADF, api.ioctl(100000, KVM_CHECK_EXTENSION, 0UL), "a closed descriptor is none either");
	close(fd);
}

static void polling(void)
{
	struct guest g;
	struct pollfd p[3];
	int i;

	if (!guest_init(&g, 4))
		return;
	p[0].fd = api_system();
	p[1].fd = g.vm;
	p[2].fd = g.vcpu;
	for (i = 0; i < 3; i++)
		p[i].events = POLLIN | POLLOUT;
	equals(poll(p, 3, 0), 3, "poll finds every descriptor ready, as files are");
	equals(p[0].revents | p[1].revents | p[2].revents, POLLIN | POLLOUT, "without an error");
	guest_done(&g);
}

/* The child's verdict is its exit status: bit n for a failed step. */
static int in_child(struct guest *g)
{
	struct kvm_regs regs;
	int failed = 0;

	failed |= (api.ioctl(g->vm, KVM_CHECK_EXTENSION, 0UL) != -1 || errno != EIO) << 0;
	failed |= (api.ioctl(g->vcpu, KVM_GET_REGS, &regs) != -1 || errno != EIO) << 1;
	failed |= (api.ioctl(g->vcpu, KVM_RUN, 0UL) != -1 || errno != EIO) << 2;
	failed |= (api.ioctl(api_system(), KVM_GET_API_VERSION, 0UL) != 12) << 3;
	failed |= (api.close(g->vcpu) != 0) << 4;
	failed |= (api.close(g->vm) != 0) << 5;
	return failed;
}

static int own_vm_in_child(void)
{
	static const uint8_t code[] = { 0xf4 };
	struct guest g;
	int r;

	if (!guest_init(&g, 16))
		return 1;
	guest_code(&g, 0x1000, code, sizeof(code));
	r = guest_run(&g) != KVM_EXIT_HLT;
	guest_done(&g);
	return r;
}

static void forking(void)
{
	static const uint8_t code[] = { 0xf4 };
	struct guest g;
	int status = -1;
	pid_t child;

	if (!guest_init_irqchip(&g, 16))
		return;
	child = fork();
	if (!child)
		_exit(in_child(&g));
	waitpid(child, &status, 0);
	equals(WEXITSTATUS(status), 0, "a child's ioctls on its parent's VM are EIO, and it can close it");
	guest_code(&g, 0x1000, code, sizeof(code));
	accepts(api.ioctl(g.vm, KVM_CHECK_EXTENSION, 0UL), "the parent's VM is as it was");
	accepts(api.ioctl(g.vcpu, KVM_GET_REGS, &(struct kvm_regs){ 0 }), "so is its vCPU");
	child = fork();
	if (!child)
		_exit(own_vm_in_child());
	waitpid(child, &status, 0);
	equals(WEXITSTATUS(status), 0, "a child can make a VM of its own");
	guest_done(&g);
}

static int close_and_ask(void *arg, int round)
{
	int *fds = arg, fd;

	/* One thread closes what the other uses: it works, or there is nothing. */
	fd = __atomic_exchange_n(&fds[round % 64], -1, __ATOMIC_SEQ_CST);
	if (fd >= 0)
		return api.close(fd) != 0;
	return 0;
}

static int ask(void *arg, int round)
{
	int *fds = arg, fd = __atomic_load_n(&fds[round % 64], __ATOMIC_SEQ_CST);

	return fd >= 0 && api.ioctl(fd, KVM_CHECK_EXTENSION, 0UL) < 0 && errno != EBADF;
}

static void races(void)
{
	int fds[64], i;

	for (i = 0; i < 64; i++)
		fds[i] = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	race("descriptors are closed while they are used", 64, close_and_ask, ask, fds);
}

const struct api_case api_cases[] = {
	{ "duplicates", duplicates },
	{ "not-ours", not_ours },
	{ "polling", polling },
	{ "forking", forking },
	{ "races", races },
	{ NULL, NULL },
};
