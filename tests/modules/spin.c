/*
 * A VM whose vCPUs do nothing but run, for what happens to a machine around them.
 *
 *	spin [VCPUS [SECONDS]]      says "spinning", and ends by itself after SECONDS (default: never)
 *
 * Each vCPU has a thread that runs it, and one that asks for its registers and so waits for the other.
 *
 * Each vCPU counts up a word of guest memory and reads its TSC in a loop that never exits by itself. At the end (SIGTERM ends it too) the
 * status is 0 when every vCPU has counted until then, so none was left behind by a CPU that went, a signal, a machine that slept, and when
 * no TSC, and no clock that a vCPU has of it and of its kvmclock page, was ever seen to go back.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM	  0x10000
#define COUNTS	  0x2000
#define CLOCKS	  0x3000 /* kvmclock's pages, of 64 bytes */
#define VCPUS_MAX 64

/* What vCPU n writes to at COUNTS + n * 32. */
struct counts {
	uint32_t loops;
	uint32_t version; /* of @tsc; odd while that changes */
	uint64_t tsc;
	uint32_t steps_back; /* of the TSC */
	uint32_t unused[3];
};

static int vm, kvm;
static volatile uint8_t *ram;
static volatile sig_atomic_t over;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Waits for the vCPU whenever it runs: that is, nearly always. */
static void *ask(void *arg)
{
	struct kvm_regs regs;

	while (!ioctl((int)(unsigned long)arg, KVM_GET_REGS, &regs))
		;
	die("spin: KVM_GET_REGS");
	return NULL;
}

static volatile struct counts *counts_of(unsigned id)
{
	return (volatile struct counts *)(ram + COUNTS) + id;
}

static void *run(void *arg)
{
	/*
	 * again: incl (%bx); rdtsc; cmpl 12(%bx), %edx; jb back; ja store; cmpl 8(%bx), %eax; jb back
	 * store: incl 4(%bx); movl %edx, 12(%bx); movl %eax, 8(%bx); incl 4(%bx); jmp again
	 * back:  incl 16(%bx); jmp store
	 */
	static const uint8_t code[] = {
		0x66, 0xff, 0x07, 0x0f, 0x31, 0x66, 0x3b, 0x57, 0x0c, 0x72, 0x1a, 0x77, 0x06, 0x66, 0x3b, 0x47,
		0x08, 0x72, 0x12, 0x66, 0xff, 0x47, 0x04, 0x66, 0x89, 0x57, 0x0c, 0x66, 0x89, 0x47, 0x08, 0x66,
		0xff, 0x47, 0x04, 0xeb, 0xdb, 0x66, 0xff, 0x47, 0x10, 0xeb, 0xe8,
	};
	unsigned long id = (unsigned long)arg;
	pthread_t asks;
	int fd = ioctl(vm, KVM_CREATE_VCPU, id);
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2, .rbx = COUNTS + id * sizeof(struct counts) };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} clock = { .head.nmsrs = 1, .entry = { .index = MSR_KVM_SYSTEM_TIME_NEW, .data = (CLOCKS + id * 64) | KVM_MSR_ENABLED } };

	if (fd < 0 || ioctl(fd, KVM_GET_SREGS, &sregs))
		die("spin: KVM_CREATE_VCPU");
	memcpy((void *)(ram + 0x1000), code, sizeof(code));
	sregs.cs.base = sregs.cs.selector = 0;
	if (ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs))
		die("spin: registers");
	if (ioctl(fd, KVM_SET_MSRS, &clock) != 1)
		die("spin: kvmclock");
	if (pthread_create(&asks, NULL, ask, (void *)(unsigned long)fd))
		die("spin: thread");
	for (;;)
		if (!ioctl(fd, KVM_RUN, 0))
			die("spin: KVM_RUN came back");
	return NULL;
}

/* ---- what the time is ---------------------------------------------------------------------------------------------- */

/* kvmclock's page: the KVM API document's MSR 0x4b564d01. */
struct page {
	uint32_t version;
	uint32_t unused;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t mul;
	int8_t shift;
	uint8_t flags;
	uint8_t unused2[2];
};

/* vCPU @id stored a TSC at least twice: one that it read after this call began. */
static bool stores(unsigned id)
{
	uint32_t before = counts_of(id)->version;
	int tries = 100;

	while (counts_of(id)->version - before < 4 && --tries)
		usleep(100);
	return tries;
}

/* What vCPU @id takes the time for, in ns. False: it is not running, or the page changes just now. */
static bool look(unsigned id, uint64_t *ns)
{
	volatile struct page *page = (volatile struct page *)(ram + CLOCKS + id * 64);
	volatile struct counts *counts = counts_of(id);
	uint32_t version = page->version, stored;
	struct page now;
	uint64_t tsc;

	if ((version & 1) || !stores(id))
		return false;
	do {
		stored = counts->version;
		tsc = counts->tsc;
	} while ((stored & 1) || stored != counts->version);
	now = *page;
	if (now.version != version || page->version != version)
		return false;
	tsc -= now.tsc_timestamp;
	tsc = now.shift < 0 ? tsc >> -now.shift : tsc << now.shift;
	*ns = now.system_time + (uint64_t)((unsigned __int128)tsc * now.mul >> 32);
	return true;
}

/* Looks at all clocks until the end. False: one went back. */
static bool watch(unsigned vcpus)
{
	static uint64_t last[VCPUS_MAX];
	struct kvm_clock_data clock;
	uint64_t vm_last = 0, ns;
	bool good = true;

	while (!over) {
		for (unsigned i = 0; i < vcpus; i++) {
			if (!look(i, &ns))
				continue;
			if (ns < last[i]) {
				fprintf(stderr, "spin: vCPU %u's clock went from %llu to %llu ns\n", i, (unsigned long long)last[i],
					(unsigned long long)ns);
				good = false;
			}
			last[i] = ns;
		}
		if (ioctl(vm, KVM_GET_CLOCK, &clock))
			die("spin: KVM_GET_CLOCK");
		if (clock.clock < vm_last) {
			fprintf(stderr, "spin: the VM's clock went from %llu to %llu ns\n", (unsigned long long)vm_last, clock.clock);
			good = false;
		}
		vm_last = clock.clock;
		usleep(20000);
	}
	for (unsigned i = 0; i < vcpus; i++)
		if (counts_of(i)->steps_back) {
			fprintf(stderr, "spin: vCPU %u's TSC went back %u times\n", i, counts_of(i)->steps_back);
			good = false;
		}
	return good;
}

static void end(int sig)
{
	over = 1;
}

int main(int argc, char **argv)
{
	unsigned vcpus = argc > 1 ? (unsigned)atoi(argv[1]) : 1, seconds = argc > 2 ? (unsigned)atoi(argv[2]) : 0, i;
	bool good;
	struct kvm_userspace_memory_region region = { .memory_size = RAM };
	pthread_t thread;

	if (!vcpus || vcpus > VCPUS_MAX) {
		fprintf(stderr, "spin: 1 to %d vCPUs\n", VCPUS_MAX);
		return 2;
	}
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
		while (!counts_of(i)->loops)
			usleep(1000);
	puts("spinning");
	fflush(stdout);
	if (seconds)
		alarm(seconds);
	signal(SIGALRM, end);
	good = watch(vcpus);
	for (i = 0; i < vcpus; i++) {
		uint32_t before = counts_of(i)->loops;
		int tries = 3000;

		while (counts_of(i)->loops == before && --tries)
			usleep(1000);
		if (!tries) {
			fprintf(stderr, "spin: vCPU %u stands still\n", i);
			return 1;
		}
	}
	return !good;
}
