/*
 * A client gone mad: any ioctl with any argument from several threads at once, while vCPUs run anything, guest memory comes and goes under
 * them and kvm_run is scribbled upon; and a client that is killed in the middle of it. Nothing is promised for a single call. What is: each
 * call comes back, the client can close it all, a VM works afterwards, and on a kernel's /dev/kvm its messages are as they were.
 *
 * TRINE_LONG in the environment: a hundred times the rounds.
 */
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "tests/api/api.h"
#include "tests/api/commands.h"

#define ARENA_SIZE (1UL << 16) /* a thread's, for structures and what they point to; nothing is mapped behind it */
#define GUEST_SIZE (1UL << 21)
#define VCPUS	   3
#define RUNNERS	   2
#define CALLERS	   2
#define COMMANDS   (sizeof(commands) / sizeof(commands[0]))

/* A VM and those who are at it. */
struct storm {
	int vm, vcpu[VCPUS], eventfd;
	struct kvm_run *run[VCPUS];
	size_t run_size;
	uint8_t *guest;
	bool over;
};

struct actor {
	struct storm *storm;
	uint64_t random;
	uint8_t *arena;
	unsigned long calls, accepted;
	pthread_t thread;
};

static uint64_t next(struct actor *a)
{
	a->random ^= a->random << 13;
	a->random ^= a->random >> 7;
	a->random ^= a->random << 17;
	return a->random;
}

static bool over(const struct storm *s)
{
	return __atomic_load_n(&s->over, __ATOMIC_RELAXED);
}

/* ---- arguments ----------------------------------------------------------------------------------------------- */

/* What a field might be. */
static uint64_t any_value(struct actor *a)
{
	uint64_t r = next(a);

	switch (r >> 60) {
	case 0: case 1: case 2: return 0;
	case 3: return ~0ULL;
	case 4: return 1ULL << (r & 63);
	case 5: return r & 0xfff000;
	case 6: return r << 47;
	case 7: return r;
	default: return r & 0x1f;
	}
}

/* An address that is the client's to lose: in guest memory, in the arena, or nowhere. */
static uint64_t any_address(struct actor *a)
{
	uint64_t r = next(a), offset = r & (r >> 32 & 3 ? GUEST_SIZE - 4096 : GUEST_SIZE - 1);

	switch (r >> 61) {
	case 0: return (uintptr_t)NOWHERE;
	case 1: return 1ULL << 63 | offset;
	case 2: case 3: return (uintptr_t)a->arena + (offset & (ARENA_SIZE - 1));
	default: return (uintptr_t)a->storm->guest + offset;
	}
}

static void put(uint8_t *structure, size_t room, unsigned field, uint64_t value, size_t size)
{
	if (field && field - 1 + size <= room)
		memcpy(structure + field - 1, &value, size);
}

/* Guest memory is only where the guest may write. */
static void own_slot(struct actor *a, uint8_t *structure)
{
	struct kvm_userspace_memory_region region;
	uint64_t begin = (uintptr_t)a->storm->guest;

	memcpy(&region, structure, sizeof(region));
	region.guest_phys_addr &= 0x1ffffffff;
	if (region.userspace_addr - begin >= GUEST_SIZE)
		region.userspace_addr = begin;
	if (region.memory_size > begin + GUEST_SIZE - region.userspace_addr)
		region.memory_size = (begin + GUEST_SIZE - region.userspace_addr) & ~0xfffULL;
	memcpy(structure, &region, sizeof(region));
}

static int target_fd(struct actor *a, enum target target)
{
	if (!(next(a) & 31))
		target = next(a) % 3;
	return target == SYSTEM ? api_system() : target == VM ? a->storm->vm : a->storm->vcpu[next(a) % VCPUS];
}

static void any_call(struct actor *a)
{
	const struct command *c = &commands[next(a) % COMMANDS];
	size_t size = _IOC_SIZE(c->number), room = size + (next(a) & 3 ? 0 : next(a) % 1024), i;
	uint8_t *structure = a->arena + (next(a) & 1 ? ARENA_SIZE - room : 4096);
	int fd = target_fd(a, c->target);

	if (c->number == KVM_RUN)
		return;
	a->calls++;
	if (c->by_value) {
		int r = api.ioctl(fd, c->number, any_value(a));

		a->accepted += r >= 0;
		/* Some give a descriptor */
		if (c->number == KVM_GET_STATS_FD && r > 2)
			api.close(r);
		return;
	}
	/* What there is, changed a little; or anything */
	if (c > commands && c[-1].target == c->target && (_IOC_DIR(c[-1].number) & _IOC_READ) && !c[-1].by_value && (next(a) & 3)) {
		api.ioctl(fd, c[-1].number, structure);
		for (i = next(a) & 3; i && room >= 8; i--)
			put(structure, room, 1 + next(a) % (room - 7), any_value(a), next(a) & 1 ? 8 : 1);
	} else {
		for (i = 0; i + 8 <= room; i += 8)
			put(structure, room, 1 + i, any_value(a), 8);
	}
	for (i = 0; i < 2; i++) {
		if (c->pointers[i])
			put(structure, room, c->pointers[i], any_address(a), 8);
		if (c->fds[i])
			put(structure, room, c->fds[i], (uint64_t)(next(a) & 3 ? a->storm->eventfd : -1), 4);
	}
	if (c->number == KVM_SET_USER_MEMORY_REGION)
		own_slot(a, structure);
	a->accepted += api.ioctl(fd, c->number, next(a) & 31 ? (uintptr_t)structure : any_address(a)) >= 0;
}

/* ---- the actors ---------------------------------------------------------------------------------------------- */

static void *caller(void *arg)
{
	struct actor *a = arg;
	uint64_t one = 1;

	while (!over(a->storm)) {
		any_call(a);
		if (!(next(a) & 7)) {
			uint8_t *run = (uint8_t *)a->storm->run[next(a) % VCPUS];

			run[next(a) % (next(a) & 1 ? 64 : a->storm->run_size)] = next(a);
		}
		if (!(next(a) & 7) && write(a->storm->eventfd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			break;
	}
	return NULL;
}

static void *runner(void *arg)
{
	struct actor *a = arg;

	while (!over(a->storm)) {
		a->accepted += !api.ioctl(a->storm->vcpu[next(a) % VCPUS], KVM_RUN, 0UL);
		a->calls++;
	}
	return NULL;
}

/* What a host does to its clients' memory, and a client to its own. */
static void *mover(void *arg)
{
	struct actor *a = arg;

	while (!over(a->storm)) {
		uint64_t r = next(a), size = (1 + (r >> 32 & 15)) << 12;
		uint8_t *at = a->storm->guest + (r & (GUEST_SIZE - 4096));

		if (at + size > a->storm->guest + GUEST_SIZE)
			continue;
		a->calls++;
		switch (r >> 61) {
		case 0: a->accepted += !madvise(at, size, MADV_DONTNEED); break;
		case 1: a->accepted += !mprotect(at, size, r >> 40 & 1 ? PROT_READ : PROT_NONE); break;
		case 2: a->accepted += !munmap(at, size); break;
		case 3: a->accepted += !madvise(at, size, MADV_PAGEOUT); break;
		default:
			a->accepted += mmap(at, size, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_ANONYMOUS |
					    (r >> 41 & 1 ? MAP_SHARED : MAP_PRIVATE), -1, 0) != MAP_FAILED;
		}
		usleep(r >> 42 & 255);
	}
	return NULL;
}

/* ---- a round ------------------------------------------------------------------------------------------------- */

static void ignore(int sig)
{
}

/* Real mode, protected mode without paging, and long mode with tables that the guest may overwrite. */
static void fill_guest(struct actor *a)
{
	/* out %al, $0x80; in $0x80, %al; incl (%bx); cpuid; hlt; jmp to the beginning */
	static const uint8_t busy[] = { 0xe6, 0x80, 0xe4, 0x80, 0x66, 0xff, 0x07, 0x0f, 0xa2, 0xf4, 0xeb, 0xf4 };
	uint8_t *guest = a->storm->guest;
	size_t i;

	for (i = 0; i < 0x10000; i += 8)
		memcpy(guest + i, &(uint64_t){ next(a) }, 8);
	for (i = 0x1000; i < 0x8000; i += 0x1000)
		memcpy(guest + i, busy, sizeof(busy));
	for (i = 0; i < 512; i++) {
		((uint64_t *)(guest + 0x20000))[i] = 0x21003;
		((uint64_t *)(guest + 0x21000))[i] = 0x22003;
		((uint64_t *)(guest + 0x22000))[i] = (i & 7) << 21 | 0x83;
	}
}

static void start_vcpu(struct actor *a, int vcpu)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid;
	uint64_t r = next(a);
	struct kvm_regs regs = { .rip = 0x1000 + (r & 7) * 0x1000, .rflags = 2, .rsp = 0x8000, .rbx = 0x100000 };
	struct kvm_sregs sregs;

	cpuid.head.nent = 256;
	if (!api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, &cpuid))
		api.ioctl(vcpu, KVM_SET_CPUID2, &cpuid);
	if (api.ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return;
	sregs.cs.base = sregs.cs.selector = 0;
	if (r >> 8 & 1) {
		sregs.cs.l = 1;
		sregs.cs.limit = ~0U;
		sregs.cs.g = 1;
		sregs.cr0 = 0x80000011;
		sregs.cr3 = 0x20000;
		sregs.cr4 = 0x20;
		sregs.efer = 0x500;
	}
	api.ioctl(vcpu, KVM_SET_SREGS, &sregs);
	api.ioctl(vcpu, KVM_SET_REGS, &regs);
}

/*
 * Where the guest's memory is: far below what the kernel chooses by itself, from the top down. mover() leaves holes there and maps over
 * them, and must not find what somebody else in this process has mapped meanwhile: a stack, libtrine's own memory. The sanitizers leave a
 * program few places of its own; this is one with each of them.
 */
#define GUEST_AT ((void *)0x7e9000000000)

/* At @at, NULL: anywhere. */
static void *map(void *at, size_t size)
{
	/* With a hole behind it */
	uint8_t *p = mmap(at, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	return p == MAP_FAILED || mprotect(p + size, 4096, PROT_NONE) ? NULL : p;
}

/* Those of the first @left that run vCPUs. */
static void kick(struct actor *actors, unsigned left)
{
	for (unsigned i = 0; i < RUNNERS && i < left; i++)
		pthread_kill(actors[i].thread, SIGUSR1);
}

/* One VM for @ms milliseconds, or until the process dies. False: it did not get so far. */
static bool storm(unsigned round, int ms, unsigned long count[2])
{
	static void *(*const roles[])(void *) = { runner, runner, caller, caller, mover };
	struct actor actors[sizeof(roles) / sizeof(roles[0])] = { 0 };
	struct storm s = { .eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) };
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_SIZE };
	struct sigaction action = { .sa_handler = ignore };
	unsigned i, n = sizeof(roles) / sizeof(roles[0]);
	bool good;

	sigaction(SIGUSR1, &action, NULL);
	s.guest = map(GUEST_AT, GUEST_SIZE);
	s.vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	s.run_size = (size_t)api.ioctl(api_system(), KVM_GET_VCPU_MMAP_SIZE, 0UL);
	good = s.guest && s.vm >= 0 && s.eventfd >= 0;
	for (i = 0; i < n; i++) {
		actors[i] = (struct actor){ .storm = &s, .random = (round + 1) * 0x9e3779b97f4a7c15ULL + i, .arena = map(NULL, ARENA_SIZE) };
		good = good && actors[i].arena;
	}
	if (!good)
		return false;
	fill_guest(&actors[0]);
	region.userspace_addr = (uintptr_t)s.guest;
	api.ioctl(s.vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (round & 1)
		api.ioctl(s.vm, KVM_CREATE_IRQCHIP, 0UL);
	for (i = 0; i < VCPUS; i++) {
		s.vcpu[i] = api.ioctl(s.vm, KVM_CREATE_VCPU, (unsigned long)i);
		s.run[i] = s.vcpu[i] < 0 ? MAP_FAILED : api.mmap(NULL, s.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, s.vcpu[i], 0);
		if (s.run[i] == MAP_FAILED)
			return false;
		start_vcpu(&actors[0], s.vcpu[i]);
	}
	for (i = 0; i < n; i++)
		if (pthread_create(&actors[i].thread, NULL, roles[i], &actors[i]))
			return false;
	while (ms-- > 0) {
		usleep(1000);
		kick(actors, n);
	}
	__atomic_store_n(&s.over, true, __ATOMIC_RELAXED);
	/* A runner may have gone in just before it was over, and a caller wait for its vCPU */
	for (i = n; i-- > 0;) {
		while (pthread_tryjoin_np(actors[i].thread, NULL)) {
			kick(actors, i + 1);
			usleep(200);
		}
		count[0] += actors[i].calls;
		count[1] += actors[i].accepted;
		munmap(actors[i].arena, ARENA_SIZE + 4096);
	}
	/* In any order */
	if (round & 2)
		good = !api.close(s.vm) && good;
	for (i = 0; i < VCPUS; i++) {
		if (round & 4)
			munmap(s.run[i], s.run_size);
		good = !api.close(s.vcpu[i]) && good;
		if (!(round & 4))
			munmap(s.run[i], s.run_size);
	}
	if (!(round & 2))
		good = !api.close(s.vm) && good;
	close(s.eventfd);
	munmap(s.guest, GUEST_SIZE + 4096);
	return good;
}

static void still_works(void)
{
	static const uint8_t code[] = { 0xb0, 0x2a, 0xe6, 0x10, 0xf4 }; /* mov $42, %al; out %al, $0x10; hlt */
	struct guest g;

	if (guest_init(&g, 16)) {
		guest_code(&g, 0x1000, code, sizeof(code));
		equals(guest_run(&g), KVM_EXIT_IO, "a VM works afterwards");
	}
	guest_done(&g);
}

static int rounds(int usual)
{
	return getenv("TRINE_LONG") ? 100 * usual : usual;
}

static void any_ioctl(void)
{
	unsigned long count[2] = { 0 };
	int i, n = rounds(12), bad = 0;

	for (i = 0; i < n; i++)
		bad += !storm((unsigned)i, 100, count);
	tap_ok(!bad, "any ioctl with any argument, from several threads, %d times", n);
	tap_diag("%lu calls, %lu of them accepted", count[0], count[1]);
	tap_ok(count[1] > (unsigned long)n && count[1] < count[0], "some calls were accepted, some were refused");
	still_works();
}

static void killed(void)
{
	unsigned long count[2] = { 0 };
	int i, status, n = rounds(10), bad = 0;
	pid_t child;

	for (i = 0; i < n; i++) {
		child = fork();
		if (!child) {
			storm((unsigned)i, 1 << 30, count);
			_exit(1);
		}
		usleep(1000 + (unsigned)i * 7919 % 50000);
		kill(child, SIGKILL);
		bad += child < 0 || waitpid(child, &status, 0) != child || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
	}
	tap_ok(!bad, "a client is killed at any instant, %d times", n);
	still_works();
}

const struct api_case api_cases[] = {
	{ "any-ioctl", any_ioctl },
	{ "killed", killed },
	{ NULL, NULL },
};
