/*
 * Out of memory at any allocation: a VM's whole life, again and again, where each time another allocation fails. The call that needed it
 * says ENOMEM, and made once more it succeeds: nothing was left half done.
 */
#include <stdio.h>
#include <sys/eventfd.h>

#include "tests/api/api.h"

#define GUEST_SIZE (1UL << 20)
#define LIVES_MAX  4000

/* ---- the allocation that fails ------------------------------------------------------------------------------- */

#ifdef API_TRINE
extern int host_fail_alloc; /* hosts/host.h */

static bool set_failing(int number)
{
	__atomic_store_n(&host_fail_alloc, number, __ATOMIC_RELAXED);
	return true;
}

static int get_failing(void)
{
	return __atomic_load_n(&host_fail_alloc, __ATOMIC_RELAXED);
}
#else
#define PARAMETER "/sys/module/trine/parameters/fail_alloc"

static bool set_failing(int number)
{
	int fd = open(PARAMETER, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 && dprintf(fd, "%d", number) > 0;

	if (fd >= 0)
		close(fd);
	return good;
}

static int get_failing(void)
{
	int fd = open(PARAMETER, O_RDONLY | O_CLOEXEC);
	char text[16] = "";

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	if (fd >= 0)
		close(fd);
	return atoi(text);
}
#endif

/* ---- a life -------------------------------------------------------------------------------------------------- */

static unsigned failures; /* calls that failed for want of memory */
static unsigned bad;

static void complain(const char *what)
{
	if (bad++ < 20)
		tap_diag("%s: %d (%s)", what, errno, strerror(errno));
}

static int call(int fd, unsigned long cmd, unsigned long arg, const char *name)
{
	int r = api.ioctl(fd, cmd, arg);

	if (r >= 0)
		return r;
	if (errno != ENOMEM)
		complain(name);
	failures++;
	r = api.ioctl(fd, cmd, arg);
	if (r < 0)
		complain(name);
	return r;
}
#define CALL(fd, cmd, arg) call(fd, cmd, (unsigned long)(arg), #cmd)

static void *map_run(int vcpu, size_t size)
{
	void *run = api.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

	if (run != MAP_FAILED)
		return run;
	failures++;
	run = api.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		complain("mmap of a vCPU");
	return run;
}

static void create_vcpu(int vm, int *vcpu, struct kvm_run **run, size_t size, unsigned long id)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid;
	static struct { struct kvm_msrs head; struct kvm_msr_entry entries[1]; } msrs = { { 1, 0 }, { { .index = 0x174 } } };

	*vcpu = CALL(vm, KVM_CREATE_VCPU, id);
	*run = map_run(*vcpu, size);
	cpuid.head.nent = 256;
	CALL(api_system(), KVM_GET_SUPPORTED_CPUID, &cpuid);
	CALL(*vcpu, KVM_SET_CPUID2, &cpuid);
	CALL(*vcpu, KVM_SET_MSRS, &msrs);
}

/* Writes through memory and to a port: each exit is one for the client. */
static void run_guest(struct guest *g)
{
	/* mov $16, %cx; 1: mov %al, (%bx); add $0x1000, %bx; loop 1b; out %al, $0x10; hlt */
	static const uint8_t code[] = { 0xb9, 0x10, 0x00, 0x88, 0x07, 0x81, 0xc3, 0x00, 0x10, 0xe2, 0xf8, 0xe6, 0x10, 0xf4 };

	guest_code(g, 0x1000, code, sizeof(code));
	CALL(g->vcpu, KVM_RUN, 0);
	if (g->run->exit_reason != KVM_EXIT_IO)
		complain("the guest's exit");
}

static void live(void)
{
	static uint8_t bitmap[GUEST_SIZE / 4096 / 8];
	static struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entry; } routing = {
		{ .nr = 1 }, { .gsi = 5, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { KVM_IRQCHIP_IOAPIC, 5 } } };
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_SIZE, .flags = KVM_MEM_LOG_DIRTY_PAGES };
	struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
	struct kvm_pit_config pit = { 0 };
	struct kvm_irqfd irqfd = { .gsi = 5 };
	struct kvm_ioeventfd ioeventfd = { .addr = 0x200000, .len = 4 };
	struct kvm_coalesced_mmio_zone zone = { .addr = 0x300000, .size = 4096 };
	struct kvm_msr_filter_range range = { KVM_MSR_FILTER_READ, 8, 0xc0000080, bitmap };
	struct kvm_msr_filter filter = { .ranges = { range } };
	static struct kvm_lapic_state lapic;
	static struct kvm_xsave xsave;
	struct kvm_run *run[2];
	int vcpu[2], i, stats, event;
	size_t size = (size_t)CALL(api_system(), KVM_GET_VCPU_MMAP_SIZE, 0);
	struct guest g = { .vm = CALL(api_system(), KVM_CREATE_VM, 0) };

	event = eventfd(0, EFD_CLOEXEC);
	g.mem = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	region.userspace_addr = (uintptr_t)g.mem;
	CALL(g.vm, KVM_SET_USER_MEMORY_REGION, &region);
	CALL(g.vm, KVM_CREATE_IRQCHIP, 0);
	CALL(g.vm, KVM_CREATE_PIT2, &pit);
	CALL(g.vm, KVM_SET_GSI_ROUTING, &routing);
	irqfd.fd = ioeventfd.fd = event;
	CALL(g.vm, KVM_IRQFD, &irqfd);
	CALL(g.vm, KVM_IOEVENTFD, &ioeventfd);
	CALL(g.vm, KVM_REGISTER_COALESCED_MMIO, &zone);
	CALL(g.vm, KVM_X86_SET_MSR_FILTER, &filter);
	for (i = 0; i < 2; i++)
		create_vcpu(g.vm, &vcpu[i], &run[i], size, (unsigned long)i);
	g.vcpu = vcpu[0];
	g.run = run[0];
	run_guest(&g);
	CALL(g.vm, KVM_GET_DIRTY_LOG, &log);
	run_guest(&g);
	CALL(g.vcpu, KVM_GET_LAPIC, &lapic);
	CALL(g.vcpu, KVM_SET_LAPIC, &lapic);
	CALL(g.vcpu, KVM_GET_XSAVE, &xsave);
	CALL(g.vcpu, KVM_SET_XSAVE, &xsave);
	stats = CALL(g.vm, KVM_GET_STATS_FD, 0);
	region.flags = 0;
	CALL(g.vm, KVM_SET_USER_MEMORY_REGION, &region);
	run_guest(&g);
	irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
	CALL(g.vm, KVM_IRQFD, &irqfd);
	region.memory_size = 0;
	CALL(g.vm, KVM_SET_USER_MEMORY_REGION, &region);
	for (i = 0; i < 2; i++) {
		munmap(run[i], size);
		api.close(vcpu[i]);
	}
	api.close(stats);
	api.close(g.vm);
	close(event);
	munmap(g.mem, GUEST_SIZE);
}

static void every_allocation(void)
{
	int n, left = 0;

	if (!set_failing(0)) {
		tap_skip("nothing here makes an allocation fail", "every allocation fails once");
		return;
	}
	live();
	tap_ok(!bad && !failures, "a VM lives with all the memory it needs");
	for (n = 1; !left && n < LIVES_MAX && bad < 20; n++) {
		set_failing(n);
		live();
		left = get_failing();
		set_failing(0);
	}
	tap_ok(!bad, "each call that fails for want of memory says ENOMEM, and succeeds when there is some");
	tap_ok(left > 0 && failures > 20, "and every allocation of a VM's life has failed once");
	tap_diag("%d allocations, %u calls that failed", n - 2, failures);
}

const struct api_case api_cases[] = {
	{ "every-allocation", every_allocation },
	{ NULL, NULL },
};
