/*
 * A VM that knows what its memory holds, while its host does with that what hosts do.
 *
 *	pressure MIB SECONDS [VCPUS]      status 0: each vCPU went through its memory at least three times, and found what it had written
 *
 * Each vCPU walks through a part of the memory of its own, checks the number that it wrote into each page the last time, and writes the next.
 * The client asks for pages to be swapped out, merged (KSM: they are all alike), made huge, moved (compaction); and forks, where the child
 * sees memory that stands still while the parent's guest writes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE	  4096UL
#define LOW	  0x10000UL /* code and the counters; what the vCPUs walk through begins behind it */
#define VCPUS_MAX 8

struct vcpu {
	int fd;
	struct kvm_run *run;
	uint32_t begin, end; /* of its part */
	bool failed;
	pthread_t thread;
};

static uint8_t *ram;
static size_t ram_size;
static bool over;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* A vCPU's counter of walks that it ended. */
static uint32_t walks(unsigned id)
{
	return __atomic_load_n((uint32_t *)(ram + 0x8000 + 64 * id), __ATOMIC_RELAXED);
}

static void start(struct vcpu *v, int vm, unsigned id, size_t run_size)
{
	struct kvm_segment flat = { .limit = ~0U, .selector = 8, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2, .rbx = v->begin, .rcx = v->end, .rbp = 0x8000 + 64 * id };
	struct kvm_sregs sregs;

	v->fd = ioctl(vm, KVM_CREATE_VCPU, (unsigned long)id);
	if (v->fd < 0 || ioctl(v->fd, KVM_GET_SREGS, &sregs))
		die("pressure: KVM_CREATE_VCPU");
	v->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	sregs.ds = sregs.es = sregs.ss = sregs.cs = flat;
	sregs.cs.type = 11;
	sregs.cr0 = 0x11;
	if (v->run == MAP_FAILED || ioctl(v->fd, KVM_SET_SREGS, &sregs) || ioctl(v->fd, KVM_SET_REGS, &regs))
		die("pressure: registers");
}

static void *run(void *arg)
{
	struct vcpu *v = arg;

	while (!__atomic_load_n(&over, __ATOMIC_RELAXED))
		if (!ioctl(v->fd, KVM_RUN, 0)) {
			struct kvm_regs regs = { 0 };

			ioctl(v->fd, KVM_GET_REGS, &regs);
			fprintf(stderr, "pressure: exit %u at 0x%llx: page 0x%llx holds %u, not %llu\n", v->run->exit_reason, regs.rip,
				regs.rsi, regs.rsi < ram_size ? *(uint32_t *)(ram + regs.rsi) : 0, regs.rdx);
			v->failed = true;
			break;
		} else if (errno != EINTR && errno != EAGAIN) {
			perror("pressure: KVM_RUN");
			v->failed = true;
			break;
		}
	return NULL;
}

/* The child's memory is what it was when it was made, whatever the guest writes. */
static bool fork_once(void)
{
	int status;
	pid_t child = fork();

	if (!child) {
		uint32_t sum[2] = { 0 };

		for (int i = 0; i < 2; i++) {
			for (size_t at = LOW; at < ram_size; at += 16 * PAGE)
				sum[i] = sum[i] * 31 + *(uint32_t *)(ram + at);
			usleep(20000);
		}
		_exit(sum[0] != sum[1]);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		perror(path);
	if (fd >= 0)
		close(fd);
}

static void ignore(int sig)
{
}

int main(int argc, char **argv)
{
	/*
	 * next: mov %ebx, %esi
	 * page: cmp %edx, (%esi); jne bad; lea 1(%edx), %eax; mov %eax, (%esi); add $0x1000, %esi; cmp %ecx, %esi; jb page
	 *	 inc %edx; mov %edx, (%ebp); jmp next
	 * bad:	 out %al, $0x10
	 */
	static const uint8_t code[] = { 0x89, 0xde, 0x39, 0x16, 0x75, 0x16, 0x8d, 0x42, 0x01, 0x89, 0x06, 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00,
					0x39, 0xce, 0x72, 0xed, 0x42, 0x89, 0x55, 0x00, 0xeb, 0xe5, 0x90, 0xe6, 0x10 };
	size_t mib = argc > 2 ? strtoul(argv[1], NULL, 10) : 0, run_size, part;
	time_t until = time(NULL) + (argc > 2 ? atoi(argv[2]) : 0);
	unsigned n = argc > 3 ? (unsigned)atoi(argv[3]) : 2, i, forks = 0;
	struct kvm_userspace_memory_region region = { 0 };
	struct vcpu vcpus[VCPUS_MAX] = { 0 };
	struct sigaction action = { .sa_handler = ignore };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0), bad = 0;
	bool enough;

	if (!mib || mib > 2048 || !n || n > VCPUS_MAX) {
		fprintf(stderr, "usage: pressure MIB SECONDS [VCPUS], up to 2048 MiB and %d vCPUs\n", VCPUS_MAX);
		return 2;
	}
	if (vm < 0)
		die("pressure: /dev/kvm");
	sigaction(SIGUSR1, &action, NULL);
	ram_size = mib << 20;
	ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		die("pressure: memory");
	madvise(ram, ram_size / 2, MADV_HUGEPAGE);
	madvise(ram, ram_size, MADV_MERGEABLE);
	region.memory_size = ram_size;
	region.userspace_addr = (uintptr_t)ram;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		die("pressure: KVM_SET_USER_MEMORY_REGION");
	memcpy(ram + 0x1000, code, sizeof(code));
	run_size = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	part = (ram_size - LOW) / n & ~(PAGE - 1);
	for (i = 0; i < n; i++) {
		vcpus[i].begin = (uint32_t)(LOW + i * part);
		vcpus[i].end = (uint32_t)(LOW + (i + 1) * part);
		start(&vcpus[i], vm, i, run_size);
	}
	for (i = 0; i < n; i++)
		if (pthread_create(&vcpus[i].thread, NULL, run, &vcpus[i]))
			die("pressure: thread");
	do {
		size_t at = (size_t)rand() % (ram_size / PAGE) * PAGE;

		madvise(ram + at, ram_size - at < 1 << 20 ? ram_size - at : 1 << 20, MADV_PAGEOUT);
		bad += !fork_once();
		if (!(++forks & 63))
			write_file("/proc/sys/vm/compact_memory", "1");
		enough = true;
		for (i = 0; i < n; i++) {
			enough = enough && walks(i) >= 3;
			bad += vcpus[i].failed;
		}
		usleep(10000);
		/* However slow: what has to be shown is shown; a guest that stands still is the caller's time-out */
	} while (!bad && (time(NULL) < until || !enough));
	__atomic_store_n(&over, true, __ATOMIC_RELAXED);
	for (i = 0; i < n; i++)
		while (pthread_tryjoin_np(vcpus[i].thread, NULL)) {
			pthread_kill(vcpus[i].thread, SIGUSR1);
			usleep(1000);
		}
	for (i = 0; i < n; i++)
		printf("# vCPU %u went through its %zu MiB %u times\n", i, part >> 20, walks(i));
	printf("# %u forks\n", forks);
	return bad != 0;
}
