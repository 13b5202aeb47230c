/*
 * A VM whose vCPUs do nothing but run, for what happens to a machine around them.
 *
 *	spin [VCPUS [SECONDS]]      says "spinning", and ends by itself after SECONDS (default: never)
 *
 * Each vCPU counts up a word of guest memory in a loop that never exits by itself. At the end (SIGTERM ends it too) the status is 0 when
 * every vCPU has counted until then, so none was left behind by a CPU that went, a signal, a machine that slept.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM 0x10000

static int vm, kvm;
static volatile uint8_t *ram;
static volatile sig_atomic_t over;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void *run(void *arg)
{
	/* 1: inc dword [bx]; jmp 1b */
	static const uint8_t code[] = { 0x66, 0xff, 0x07, 0xeb, 0xfb };
	unsigned long id = (unsigned long)arg;
	int fd = ioctl(vm, KVM_CREATE_VCPU, id);
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2, .rbx = 0x2000 + id * 8 };

	if (fd < 0 || ioctl(fd, KVM_GET_SREGS, &sregs))
		die("spin: KVM_CREATE_VCPU");
	memcpy((void *)(ram + 0x1000), code, sizeof(code));
	sregs.cs.base = sregs.cs.selector = 0;
	if (ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs))
		die("spin: registers");
	for (;;)
		if (!ioctl(fd, KVM_RUN, 0))
			die("spin: KVM_RUN came back");
	return NULL;
}

static void end(int sig)
{
	over = 1;
}

int main(int argc, char **argv)
{
	unsigned vcpus = argc > 1 ? (unsigned)atoi(argv[1]) : 1, seconds = argc > 2 ? (unsigned)atoi(argv[2]) : 0, i;
	struct kvm_userspace_memory_region region = { .memory_size = RAM };
	pthread_t thread;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		die("spin: /dev/kvm");
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	region.userspace_addr = (uintptr_t)ram;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		die("spin: memory");
	signal(SIGTERM, end);
	for (i = 0; i < vcpus; i++)
		if (pthread_create(&thread, NULL, run, (void *)(unsigned long)i))
			die("spin: thread");
	for (i = 0; i < vcpus; i++)
		while (!*(volatile uint32_t *)(ram + 0x2000 + i * 8))
			usleep(1000);
	puts("spinning");
	fflush(stdout);
	if (seconds)
		alarm(seconds);
	signal(SIGALRM, end);
	while (!over)
		pause();
	for (i = 0; i < vcpus; i++) {
		volatile uint32_t *count = (volatile uint32_t *)(ram + 0x2000 + i * 8);
		uint32_t before = *count;
		int tries = 3000;

		while (*count == before && --tries)
			usleep(1000);
		if (!tries) {
			fprintf(stderr, "spin: vCPU %u stands still\n", i);
			return 1;
		}
	}
	return 0;
}
