/* See api.h. */
#include "tests/api/api.h"

#ifdef API_TRINE
#include "libtrine/trine.h"

const struct api api = { false, trine_open, trine_ioctl, trine_mmap, trine_close };
#else
#include <stdarg.h>
#include <sys/ioctl.h>

static int plain_open(const char *path, int flags)
{
	return open(path, flags);
}

static int plain_ioctl(int fd, unsigned long cmd, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, cmd);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	return ioctl(fd, cmd, arg);
}

const struct api api = { true, plain_open, plain_ioctl, mmap, close };
#endif

static int system_fd = -1;

int api_system(void)
{
	return system_fd;
}

bool has_cap(int fd, int cap)
{
	return api.ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)cap) > 0;
}

int set_region(int vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, const void *hva)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return api.ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static bool init(struct guest *g, unsigned pages, bool irqchip, const struct kvm_enable_cap *cap)
{
	memset(g, 0, sizeof(*g));
	g->vcpu = -1;
	g->vm = api.ioctl(system_fd, KVM_CREATE_VM, 0UL);
	if (g->vm < 0)
		return tap_ok(false, "a VM: %s", strerror(errno));
	g->mem_size = pages * 4096UL;
	g->mem = mmap(NULL, g->mem_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->mem == MAP_FAILED || set_region(g->vm, 0, 0, 0, g->mem_size, g->mem))
		return tap_ok(false, "guest memory: %s", strerror(errno));
	if (irqchip && api.ioctl(g->vm, KVM_CREATE_IRQCHIP, 0UL))
		return tap_ok(false, "interrupt chips: %s", strerror(errno));
	if (cap && api.ioctl(g->vm, KVM_ENABLE_CAP, cap))
		return tap_ok(false, "KVM_ENABLE_CAP %u: %s", cap->cap, strerror(errno));
	g->vcpu = api.ioctl(g->vm, KVM_CREATE_VCPU, 0UL);
	if (g->vcpu < 0)
		return tap_ok(false, "a vCPU: %s", strerror(errno));
	g->run_size = (size_t)api.ioctl(system_fd, KVM_GET_VCPU_MMAP_SIZE, 0UL);
	g->run = api.mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED)
		return tap_ok(false, "kvm_run: %s", strerror(errno));
	return true;
}

bool guest_init(struct guest *g, unsigned pages)
{
	return init(g, pages, false, NULL);
}

bool guest_init_irqchip(struct guest *g, unsigned pages)
{
	return init(g, pages, true, NULL);
}

bool guest_init_cap(struct guest *g, unsigned pages, uint32_t cap, uint64_t arg)
{
	return init(g, pages, false, &(struct kvm_enable_cap){ .cap = cap, .args = { arg } });
}

void guest_done(struct guest *g)
{
	unsigned i;

	for (i = 0; i < sizeof(g->extra) / sizeof(g->extra[0]); i++)
		if (g->extra[i])
			api.close(g->extra[i]);
	if (g->run && g->run != MAP_FAILED)
		munmap(g->run, g->run_size);
	if (g->vcpu >= 0)
		api.close(g->vcpu);
	if (g->vm >= 0)
		api.close(g->vm);
	if (g->mem && g->mem != MAP_FAILED)
		munmap(g->mem, g->mem_size);
}

void guest_code(struct guest *g, uint16_t ip, const void *code, size_t len)
{
	struct kvm_regs regs = { .rip = ip, .rflags = 2, .rsp = 0x8000 };
	struct kvm_sregs sregs;

	memcpy(g->mem + ip, code, len);
	api.ioctl(g->vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs.base = sregs.ds.base = sregs.es.base = sregs.ss.base = 0;
	sregs.cs.selector = sregs.ds.selector = sregs.es.selector = sregs.ss.selector = 0;
	api.ioctl(g->vcpu, KVM_SET_SREGS, &sregs);
	api.ioctl(g->vcpu, KVM_SET_REGS, &regs);
}

enum { LONG_PML4 = 0x8000, LONG_PDPT = 0x9000, LONG_PD = 0xa000, LONG_PD_3 = 0xb000, LONG_GDT = 0xc000, LONG_IDT = 0xd000 };

void long_segments(struct kvm_sregs *s, uint64_t gdt, uint64_t idt)
{
	const struct kvm_segment data = { .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };

	s->cs = s->ds = s->es = s->fs = s->gs = s->ss = data;
	s->cs.selector = 8;
	s->cs.type = 11;
	s->cs.db = 0;
	s->cs.l = 1;
	s->gdt.base = gdt;
	s->gdt.limit = 23;
	s->idt.base = idt;
	s->idt.limit = 0xfff;
}

void guest_long_code(struct guest *g, uint16_t ip, const void *code, size_t len)
{
	struct kvm_regs regs = { .rip = ip, .rflags = 2, .rsp = 0x8000 };
	uint64_t *table = (uint64_t *)(g->mem + LONG_PML4);
	struct kvm_sregs sregs;

	memset(table, 0, LONG_IDT - LONG_PML4);
	table[0] = LONG_PDPT | 3;
	table[512] = LONG_PD | 3;
	table[512 + 3] = LONG_PD_3 | 3;
	for (unsigned i = 0; i < 32; i++)
		table[1024 + i] = (uint64_t)i << 21 | 0x83;
	table[1536 + 0x1f7] = 0xfee00000 | 0x9b;
	table = (uint64_t *)(g->mem + LONG_GDT);
	table[1] = 0x00af9b000000ffffULL;
	table[2] = 0x00cf93000000ffffULL;
	memcpy(g->mem + ip, code, len);
	api.ioctl(g->vcpu, KVM_GET_SREGS, &sregs);
	long_segments(&sregs, LONG_GDT, LONG_IDT);
	sregs.cr0 = 0x80050033;
	sregs.cr3 = LONG_PML4;
	sregs.cr4 = 0x20;
	sregs.efer = 0x500;
	accepts(api.ioctl(g->vcpu, KVM_SET_SREGS, &sregs), "64-bit mode");
	api.ioctl(g->vcpu, KVM_SET_REGS, &regs);
}

void guest_gate(struct guest *g, uint8_t vector, uint16_t ip, const void *code, size_t len)
{
	memcpy(g->mem + LONG_IDT + 16 * vector, &(uint64_t[]){ ip | 8 << 16 | 0x8eULL << 40, 0 }, 16);
	memcpy(g->mem + ip, code, len);
}

int guest_run(struct guest *g)
{
	int r;

	do
		r = api.ioctl(g->vcpu, KVM_RUN, 0UL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : (int)g->run->exit_reason;
}

struct racer {
	pthread_barrier_t *barrier;
	int (*fn)(void *arg, int round);
	void *arg;
	int rounds, bad;
};

static void *run_racer(void *arg)
{
	struct racer *r = arg;
	int i;

	pthread_barrier_wait(r->barrier);
	for (i = 0; i < r->rounds; i++)
		r->bad += r->fn(r->arg, i) != 0;
	return NULL;
}

void race(const char *name, int rounds, int (*a)(void *arg, int round), int (*b)(void *arg, int round), void *arg)
{
	pthread_barrier_t barrier;
	struct racer racers[2] = { { &barrier, a, arg, rounds, 0 }, { &barrier, b, arg, rounds, 0 } };
	pthread_t thread;

	pthread_barrier_init(&barrier, NULL, 2);
	if (pthread_create(&thread, NULL, run_racer, &racers[1])) {
		tap_ok(false, "race: %s: no thread", name);
		return;
	}
	run_racer(&racers[0]);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&barrier);
	if (!tap_ok(!racers[0].bad && !racers[1].bad, "race: %s", name))
		tap_diag("%d and %d of %d calls went wrong", racers[0].bad, racers[1].bad, rounds);
}

int main(int argc, char **argv)
{
	const char *device = "/dev/kvm", *only = NULL;
	const struct api_case *c;
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--dev") && i + 1 < argc)
			device = argv[++i];
		else
			only = argv[i];
	}
	tap_begin();
	system_fd = api.open(device, O_RDWR | O_CLOEXEC);
	if (!tap_ok(system_fd >= 0, "%s opens", device))
		return tap_end();
	for (c = api_cases; c->run; c++) {
		if (only && strcmp(only, c->name))
			continue;
		tap_diag("%s", c->name);
		c->run();
	}
	tap_ok(api.close(system_fd) == 0, "%s closes", device);
	return tap_end();
}
