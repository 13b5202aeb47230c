/*
 * Fuzz target: the ioctl layer. The input is a program of calls on /dev/kvm, a VM and its vCPUs: which command, on which
 * descriptor, with what in the structure that the client passes. Pointers and descriptors in the structures lead to
 * things that the fuzzer owns, now and then to nowhere: a client can only hurt its own memory, so everything else may go.
 *
 *	0 command   1 descriptor   2 placement   3 length   then length bytes of the structure
 *
 * KVM_RUN is ended by a timer.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "libtrine/trine.h"
#include "tests/api/commands.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ARENA_SIZE (1UL << 20) /* what structures and pointers are in; nothing is mapped behind it */
#define GUEST_SIZE (1UL << 20)
#define VCPUS	   2
#define CALLS_MAX  64
#define RUN_NS	   500000

static uint8_t *arena, *guest;
static timer_t timer;

static void ignore(int sig)
{
}

static void set_up(void)
{
	struct sigaction action = { .sa_handler = ignore };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };

	/* A hole behind each: an address past the end is an error to be returned, not a fault. */
	arena = mmap(NULL, ARENA_SIZE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	guest = mmap(NULL, GUEST_SIZE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena == MAP_FAILED || guest == MAP_FAILED || mprotect(arena + ARENA_SIZE, 4096, PROT_NONE) ||
	    mprotect(guest + GUEST_SIZE, 4096, PROT_NONE) || sigaction(SIGALRM, &action, NULL) ||
	    timer_create(CLOCK_MONOTONIC, &event, &timer))
		abort();
}

static void arm(long ns)
{
	struct itimerspec when = { .it_value.tv_nsec = ns, .it_interval.tv_nsec = ns };

	timer_settime(timer, 0, &when, NULL);
}

/* Makes the 64 bits at @field an address of ours: in the guest's memory or the arena, page-aligned mostly. */
static void own_pointer(uint8_t *structure, unsigned field)
{
	uint64_t value, offset;

	memcpy(&value, structure + field, sizeof(value));
	offset = value & (GUEST_SIZE - 1);
	if (!(value >> 32 & 3))
		offset &= ~4095UL;
	value = value >> 63 ? ~0ULL << 47 : (uintptr_t)(value >> 62 & 1 ? arena : guest) + offset;
	memcpy(structure + field, &value, sizeof(value));
}

/* The slot must not reach past what is ours, or the guest writes into the fuzzer. @structure may be misaligned. */
static void own_slot(uint8_t *structure)
{
	struct kvm_userspace_memory_region region;
	uint64_t base, end = (uintptr_t)guest + GUEST_SIZE;

	memcpy(&region, structure, sizeof(region));
	base = region.userspace_addr;
	if (base < (uintptr_t)guest || base >= end)
		region.userspace_addr = base = (uintptr_t)guest;
	if (region.memory_size > end - base)
		region.memory_size = (end - base) & (region.memory_size | ~0xfffffULL);
	region.guest_phys_addr &= 0x1ffffffff;
	memcpy(structure, &region, sizeof(region));
}

static void call(const struct command *c, int fd, int eventfd, uint8_t placement, const uint8_t *data, size_t length)
{
	unsigned long arg = 0;
	uint8_t *structure;
	size_t room = _IOC_SIZE(c->number) > length ? _IOC_SIZE(c->number) : length;

	if (c->by_value) {
		memcpy(&arg, data, length < sizeof(arg) ? length : sizeof(arg));
		if (c->number != KVM_RUN) {
			int r = trine_ioctl(fd, c->number, arg);

			if (c->number == KVM_GET_STATS_FD && r >= 0) {
				if (read(r, arena, 4096) < 0 && errno != EINVAL && errno != EFAULT)
					abort();
				trine_close(r);
			}
			return;
		}
		arm(RUN_NS);
		trine_ioctl(fd, KVM_RUN, 0);
		arm(0);
		return;
	}

	/* At the very end, so that reading too much is noticed; or with all the room in the world. */
	room = room < 4096 ? room : 4096;
	structure = placement & 1 ? arena + ARENA_SIZE - room : arena + 65536;
	memset(structure, 0, room);
	memcpy(structure, data, length < room ? length : room);
	for (int i = 0; i < 2; i++) {
		if (c->pointers[i] && c->pointers[i] - 1U + 8 <= room)
			own_pointer(structure, c->pointers[i] - 1);
		if (c->fds[i] && c->fds[i] - 1U + 4 <= room) {
			int owned = structure[c->fds[i] - 1] & 1 ? eventfd : -1;

			memcpy(structure + c->fds[i] - 1, &owned, sizeof(owned));
		}
	}
	if (c->number == KVM_SET_USER_MEMORY_REGION)
		own_slot(structure);
	/* The guest may have put this structure under its own feet; what the library copied once counts. */
	trine_ioctl(fd, c->number, placement & 0x80 ? (unsigned long)(arena + ARENA_SIZE - 1) : (unsigned long)structure);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_SIZE };
	int fds[2 + VCPUS], eventfd_number;

	if (!arena)
		set_up();
	if (size < 2)
		return 0;
	memset(guest, 0, GUEST_SIZE);
	/* The end of the input is code at the reset vector's page and at 0. */
	memcpy(guest, data + size / 2, size - size / 2 < 4096 ? size - size / 2 : 4096);
	memcpy(guest + 0xff000, guest, 4096);

	fds[0] = trine_open("/dev/kvm", O_RDWR | O_CLOEXEC);
	fds[1] = trine_ioctl(fds[0], KVM_CREATE_VM, 0);
	eventfd_number = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fds[0] < 0 || fds[1] < 0 || eventfd_number < 0)
		abort();
	if (data[0] & 1)
		trine_ioctl(fds[1], KVM_CREATE_IRQCHIP, 0);
	region.userspace_addr = (uintptr_t)guest;
	trine_ioctl(fds[1], KVM_SET_USER_MEMORY_REGION, &region);
	for (int i = 0; i < VCPUS; i++)
		fds[2 + i] = trine_ioctl(fds[1], KVM_CREATE_VCPU, i);
	if (data[0] & 2) {
		struct kvm_regs regs = { .rflags = 2 };
		struct kvm_sregs sregs;

		if (trine_ioctl(fds[2], KVM_GET_SREGS, &sregs) || (sregs.cs.base = 0, sregs.cs.selector = 0,
		    trine_ioctl(fds[2], KVM_SET_SREGS, &sregs)) || trine_ioctl(fds[2], KVM_SET_REGS, &regs))
			abort();
	}
	data++;
	size--;
	for (int calls = 0; calls < CALLS_MAX && size >= 4; calls++) {
		const struct command *c = &commands[data[0] % (sizeof(commands) / sizeof(commands[0]))];
		size_t length = data[3] < size - 4 ? data[3] : size - 4;
		int fd = c->target == SYSTEM ? fds[0] : c->target == VM ? fds[1] : fds[2 + data[1] % VCPUS];

		/* One call in sixteen is made where it does not belong. */
		if (data[1] >> 4 == 15)
			fd = fds[data[1] % (2 + VCPUS)];
		call(c, fd, eventfd_number, data[2], data + 4, length);
		data += 4 + length;
		size -= 4 + length;
	}
	for (int i = 2 + VCPUS; i-- > 0;) {
		if (fds[i] >= 0)
			trine_close(fds[i]);
	}
	close(eventfd_number);
	return 0;
}
