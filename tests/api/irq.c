/* Interrupt chips, routing, MSIs, irqfds, ioeventfds, the PIT and the clock: a VM's ioctls about them. */
#include <poll.h>
#include <sys/eventfd.h>

#include "tests/api/api.h"

static int line(int vm, uint32_t gsi, uint32_t level)
{
	struct kvm_irq_level irq = { .irq = gsi, .level = level };

	return api.ioctl(vm, KVM_IRQ_LINE, &irq);
}

static int enable(int fd, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg } };

	return api.ioctl(fd, KVM_ENABLE_CAP, &c);
}

static void chips(void)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), vcpu;

	refuses(ENXIO, line(vm, 4, 1), "without chips KVM_IRQ_LINE is refused");
	refuses(ENXIO, api.ioctl(vm, KVM_GET_IRQCHIP, &chip), "without chips there is no state");
	refuses(ENXIO, api.ioctl(vm, KVM_SET_IRQCHIP, &chip), "nor can it be set");
	accepts(api.ioctl(vm, KVM_CREATE_IRQCHIP, 0UL), "KVM_CREATE_IRQCHIP");
	refuses(EEXIST, api.ioctl(vm, KVM_CREATE_IRQCHIP, 0UL), "a second time is refused");
	accepts(api.ioctl(vm, KVM_GET_IRQCHIP, &chip), "KVM_GET_IRQCHIP");
	accepts(api.ioctl(vm, KVM_SET_IRQCHIP, &chip), "KVM_SET_IRQCHIP");
	chip.chip_id = 7;
	refuses(EINVAL, api.ioctl(vm, KVM_GET_IRQCHIP, &chip), "an unknown chip is refused");
	refuses(EINVAL, api.ioctl(vm, KVM_SET_IRQCHIP, &chip), "an unknown chip to set is refused");
	refuses(EFAULT, api.ioctl(vm, KVM_GET_IRQCHIP, NOWHERE), "KVM_GET_IRQCHIP to nowhere is refused");
	refuses(EFAULT, api.ioctl(vm, KVM_IRQ_LINE, NOWHERE), "KVM_IRQ_LINE from nowhere is refused");
	accepts(line(vm, 4, 1), "a line is raised");
	accepts(line(vm, 4, 0), "and lowered");
	api.close(vm);
	vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	vcpu = api.ioctl(vm, KVM_CREATE_VCPU, 0UL);
	refuses(EINVAL, api.ioctl(vm, KVM_CREATE_IRQCHIP, 0UL), "chips after the first vCPU are refused");
	api.close(vcpu);
	api.close(vm);
}

static void split(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), vcpu;

	refuses(EINVAL, enable(vm, KVM_CAP_SPLIT_IRQCHIP, 100000), "a split chip with 100000 pins is refused");
	accepts(enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24), "a split chip");
	refuses(EEXIST, enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24), "a second time is refused");
	refuses(EEXIST, api.ioctl(vm, KVM_CREATE_IRQCHIP, 0UL), "whole chips beside it are refused");
	vcpu = api.ioctl(vm, KVM_CREATE_VCPU, 0UL);
	accepts(api.ioctl(vcpu, KVM_GET_LAPIC, &(struct kvm_lapic_state){ { 0 } }), "its vCPUs have local APICs");
	api.close(vcpu);
	api.close(vm);
}

static void pit(void)
{
	struct kvm_pit_config config = { 0 };
	struct kvm_pit_state2 state;
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);

	refuses(ENOENT, api.ioctl(vm, KVM_CREATE_PIT2, &config), "a PIT without chips is refused");
	api.ioctl(vm, KVM_CREATE_IRQCHIP, 0UL);
	refuses(ENXIO, api.ioctl(vm, KVM_GET_PIT2, &state), "without a PIT there is no state");
	accepts(api.ioctl(vm, KVM_CREATE_PIT2, &config), "KVM_CREATE_PIT2");
	refuses(EEXIST, api.ioctl(vm, KVM_CREATE_PIT2, &config), "a second time is refused");
	accepts(api.ioctl(vm, KVM_GET_PIT2, &state), "KVM_GET_PIT2");
	accepts(api.ioctl(vm, KVM_SET_PIT2, &state), "KVM_SET_PIT2");
	refuses(EFAULT, api.ioctl(vm, KVM_GET_PIT2, NOWHERE), "KVM_GET_PIT2 to nowhere is refused");
	refuses(EFAULT, api.ioctl(vm, KVM_SET_PIT2, NOWHERE), "KVM_SET_PIT2 from nowhere is refused");
	accepts(api.ioctl(vm, KVM_REINJECT_CONTROL, &(struct kvm_reinject_control){ .pit_reinject = 1 }), "KVM_REINJECT_CONTROL");
	refuses(EFAULT, api.ioctl(vm, KVM_REINJECT_CONTROL, NOWHERE), "KVM_REINJECT_CONTROL from nowhere is refused");
	api.close(vm);
}

struct routes {
	struct kvm_irq_routing head;
	struct kvm_irq_routing_entry entry[4];
};

static void routing(void)
{
	struct routes r = { .head.nr = 2,
			    .entry = { { .gsi = 0, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { KVM_IRQCHIP_IOAPIC, 2 } },
				       { .gsi = 40, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0x41 } } } };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x41 };
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);

	refuses(EINVAL, api.ioctl(vm, KVM_SET_GSI_ROUTING, &r), "routing without chips is refused");
	refuses(EINVAL, api.ioctl(vm, KVM_SIGNAL_MSI, &msi), "an MSI without chips is refused");
	api.ioctl(vm, KVM_CREATE_IRQCHIP, 0UL);
	accepts(api.ioctl(vm, KVM_SET_GSI_ROUTING, &r), "KVM_SET_GSI_ROUTING");
	r.head.flags = 1;
	refuses(EINVAL, api.ioctl(vm, KVM_SET_GSI_ROUTING, &r), "flags are refused");
	r.head.flags = 0;
	r.head.nr = 100000;
	refuses(EINVAL, api.ioctl(vm, KVM_SET_GSI_ROUTING, &r), "too many routes are refused");
	r.head.nr = 2;
	r.entry[0].type = 99;
	refuses(EINVAL, api.ioctl(vm, KVM_SET_GSI_ROUTING, &r), "an unknown type is refused");
	r.entry[0].type = KVM_IRQ_ROUTING_IRQCHIP;
	r.entry[0].u.irqchip.pin = 24;
	refuses(EINVAL, api.ioctl(vm, KVM_SET_GSI_ROUTING, &r), "a pin that is not there is refused");
	r.entry[0].u.irqchip.pin = 2;
	r.entry[0].gsi = 100000;
	refuses(EINVAL, api.ioctl(vm, KVM_SET_GSI_ROUTING, &r), "a GSI that is not there is refused");
	r.head.nr = 0;
	accepts(api.ioctl(vm, KVM_SET_GSI_ROUTING, &r), "no routes at all");
	refuses(EFAULT, api.ioctl(vm, KVM_SET_GSI_ROUTING, NOWHERE), "routes from nowhere are refused");
	msi.flags = 1 << 10;
	refuses(EINVAL, api.ioctl(vm, KVM_SIGNAL_MSI, &msi), "an MSI with unknown flags is refused");
	refuses(EFAULT, api.ioctl(vm, KVM_SIGNAL_MSI, NOWHERE), "an MSI from nowhere is refused");
	api.close(vm);
}

static int irqfd(int vm, int fd, uint32_t gsi, uint32_t flags, int resample)
{
	struct kvm_irqfd args = { .fd = (uint32_t)fd, .gsi = gsi, .flags = flags, .resamplefd = (uint32_t)resample };

	return api.ioctl(vm, KVM_IRQFD, &args);
}

static void irqfds(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), fd = eventfd(0, EFD_CLOEXEC), re = eventfd(0, EFD_CLOEXEC), file;

	refuses(EINVAL, irqfd(vm, fd, 4, 0, 0), "an irqfd without chips is refused");
	api.ioctl(vm, KVM_CREATE_IRQCHIP, 0UL);
	accepts(irqfd(vm, fd, 4, 0, 0), "an irqfd");
	refuses(EBUSY, irqfd(vm, fd, 5, 0, 0), "a second one on its eventfd is refused");
	accepts(irqfd(vm, fd, 4, KVM_IRQFD_FLAG_DEASSIGN, 0), "it is taken away");
	accepts(irqfd(vm, fd, 4, KVM_IRQFD_FLAG_DEASSIGN, 0), "taking away what is not there is no mistake");
	refuses(EBADF, irqfd(vm, 1000000, 4, 0, 0), "a descriptor that is not there is refused");
	file = open("/dev/null", O_RDWR | O_CLOEXEC);
	refuses(EINVAL, irqfd(vm, file, 4, 0, 0), "a descriptor of something else is refused");
	refuses(EINVAL, irqfd(vm, fd, 4, 1 << 20, 0), "unknown flags are refused");
	accepts(irqfd(vm, fd, 1000, 0, 0), "a GSI that is not routed may be one day");
	accepts(irqfd(vm, fd, 1000, KVM_IRQFD_FLAG_DEASSIGN, 0), "it is taken away");
	accepts(irqfd(vm, fd, 4, KVM_IRQFD_FLAG_RESAMPLE, re), "one with a resampler");
	accepts(irqfd(vm, fd, 4, KVM_IRQFD_FLAG_DEASSIGN, 0), "it is taken away too");
	refuses(EBADF, irqfd(vm, fd, 4, KVM_IRQFD_FLAG_RESAMPLE, 1000000), "a resampler that is not there is refused");
	refuses(EFAULT, api.ioctl(vm, KVM_IRQFD, NOWHERE), "an irqfd from nowhere is refused");
	api.close(vm);
	close(file);
	close(fd);
	close(re);
}

static int ioeventfd(int vm, int fd, uint64_t addr, uint32_t len, uint32_t flags, uint64_t match)
{
	struct kvm_ioeventfd args = { .fd = fd, .addr = addr, .len = len, .flags = flags, .datamatch = match };

	return api.ioctl(vm, KVM_IOEVENTFD, &args);
}

static void ioeventfds(void)
{
	static const uint8_t code[] = {
		0xb0, 0x01, 0xe6, 0x10,			/* mov al, 1; out 0x10, al */
		0xb0, 0x02, 0xe6, 0x10,			/* mov al, 2; out 0x10, al: not matched */
		0xb8, 0x00, 0xf0, 0x8e, 0xd8,		/* mov ax, 0xf000; mov ds, ax */
		0xc7, 0x06, 0x00, 0x01, 0x00, 0x00,	/* mov word [0x100], 0 */
		0xf4,
	};
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), mmio = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t count = 0;
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	accepts(ioeventfd(g.vm, fd, 0x10, 1, KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH, 1), "an ioeventfd for value 1 at port 10");
	refuses(EEXIST, ioeventfd(g.vm, fd, 0x10, 1, KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH, 1), "the same again is refused");
	accepts(ioeventfd(g.vm, mmio, 0xf0100, 0, 0, 0), "one for any write to F0100");
	refuses(EINVAL, ioeventfd(g.vm, fd, 0x10, 3, KVM_IOEVENTFD_FLAG_PIO, 0), "three bytes are refused");
	refuses(EINVAL, ioeventfd(g.vm, fd, 0x10, 1, 1 << 20, 0), "unknown flags are refused");
	refuses(EINVAL, ioeventfd(g.vm, fd, ~0ULL, 2, 0, 0), "a range that wraps is refused");
	refuses(EINVAL, ioeventfd(g.vm, fd, 0x20, 0, KVM_IOEVENTFD_FLAG_DATAMATCH, 0), "a match without a length is refused");
	refuses(ENOENT, ioeventfd(g.vm, fd, 0x20, 1, KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN, 0), "taking away what is not there is refused");
	refuses(EBADF, ioeventfd(g.vm, 1000000, 0x20, 1, KVM_IOEVENTFD_FLAG_PIO, 0), "a descriptor that is not there is refused");
	refuses(EFAULT, api.ioctl(g.vm, KVM_IOEVENTFD, NOWHERE), "an ioeventfd from nowhere is refused");
	equals(guest_run(&g), KVM_EXIT_IO, "the value that does not match exits");
	equals(*((uint8_t *)g.run + g.run->io.data_offset), 2, "it is the second");
	equals(guest_run(&g), KVM_EXIT_HLT, "the write to F0100 does not");
	tap_ok(read(fd, &count, 8) == 8 && count == 1, "the first eventfd was signalled once");
	tap_ok(read(mmio, &count, 8) == 8 && count == 1, "so was the second");
	accepts(ioeventfd(g.vm, fd, 0x10, 1, KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_DEASSIGN, 1), "it is taken away");
	guest_done(&g);
	close(fd);
	close(mmio);
}

/* An irqfd wakes a halted guest, whose handler tells that it came. */
static void delivery(void)
{
	static const uint8_t code[] = {
		/* PIC: ICW1-4 with vectors from 0x20, all but line 4 masked */
		0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, 0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21,
		0xb0, 0xef, 0xe6, 0x21,
		0xe6, 0x81,				/* out 0x81, al: ready; an earlier edge would be forgotten */
		0xfb, 0xf4, 0xeb, 0xfd,		/* sti; hlt; again */
	};
	static const uint8_t handler[] = { 0xb0, 0x99, 0xe6, 0x80, 0xcf }; /* mov al, 0x99; out 0x80, al; iret */
	int fd = eventfd(0, EFD_CLOEXEC);
	uint64_t one = 1;
	struct guest g;

	if (!guest_init_irqchip(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	memcpy(g.mem + 0x2000, handler, sizeof(handler));
	memcpy(g.mem + 0x24 * 4, "\x00\x20\x00\x00", 4);
	accepts(irqfd(g.vm, fd, 4, 0, 0), "an irqfd for line 4");
	equals(guest_run(&g), KVM_EXIT_IO, "the guest has set up the PIC");
	if (write(fd, &one, 8) != 8)
		tap_ok(false, "the eventfd takes a count");
	equals(guest_run(&g), KVM_EXIT_IO, "the guest's handler runs");
	equals(g.run->io.port, 0x80, "and says so");
	guest_done(&g);
	close(fd);
}

static void on_alarm(int signal) { (void)signal; }

/* Linux takes a local APIC's timer for a one-shot one until the vCPU has a CPUID. */
static void has_deadline_timer(struct guest *g)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entry; } cpuid = {
		.head.nent = 1, .entry = { .function = 1, .ecx = 1 << 24 } };

	api.ioctl(g->vcpu, KVM_SET_CPUID2, &cpuid);
}

static uint32_t *lapic_reg(struct kvm_lapic_state *state, unsigned offset) { return (uint32_t *)(state->regs + offset); }

/* What KVM_SET_LAPIC makes of the timer's registers. QEMU leaves the current count 0. */
static void lapic_timer(void)
{
	static const uint8_t code[] = { 0xfb, 0xf4, 0xeb, 0xfd };     /* sti; hlt; again */
	static const uint8_t handler[] = { 0xe6, 0x80, 0xcf };	      /* out 0x80, al; iret */
	enum { SVR = 0xf0, LVT_TIMER = 0x320, TMICT = 0x380, TMCCT = 0x390, TDCR = 0x3e0, BY_1 = 0xb, BY_128 = 0xa, PERIODIC = 0x20000 };
	static const struct {
		uint32_t mode, initial, current, divide;
		const char *what;
	} timers[] = {
		{ 0, 1000000, 0, BY_1, "a one-shot timer with nothing left" },
		{ 0, 0xf0000000, 1000000, BY_1, "a one-shot timer with something left" },
		{ 0, 1000000, 0xffffffff, BY_128, "a one-shot timer with more left than it began with" },
		{ PERIODIC, 0x10000000, 0, BY_1, "a periodic timer with nothing left" },
		{ PERIODIC, 0xf0000000, 1000000, BY_1, "a periodic timer with something left" },
	};
	struct kvm_lapic_state state, now;
	struct sigaction old;
	struct guest g;
	size_t i;

	if (!guest_init_irqchip(&g, 16))
		return;
	has_deadline_timer(&g);
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, &old);
	memcpy(g.mem + 0x2000, handler, sizeof(handler));
	memcpy(g.mem + 0x40 * 4, "\x00\x20\x00\x00", 4);
	api.ioctl(g.vcpu, KVM_GET_LAPIC, &state);
	*lapic_reg(&state, SVR) = 0x1ff;
	for (i = 0; i < sizeof(timers) / sizeof(timers[0]); i++) {
		guest_code(&g, 0x1000, code, sizeof(code));
		*lapic_reg(&state, LVT_TIMER) = timers[i].mode | 0x40;
		*lapic_reg(&state, TMICT) = timers[i].initial;
		*lapic_reg(&state, TMCCT) = timers[i].current;
		*lapic_reg(&state, TDCR) = timers[i].divide;
		accepts(api.ioctl(g.vcpu, KVM_SET_LAPIC, &state), "KVM_SET_LAPIC of %s", timers[i].what);
		alarm(60);
		tap_ok(!api.ioctl(g.vcpu, KVM_RUN, 0UL) && g.run->exit_reason == KVM_EXIT_IO, "it interrupts the guest");
		alarm(0);
		api.ioctl(g.vcpu, KVM_GET_LAPIC, &now);
		equals(*lapic_reg(&now, TMCCT) != 0, timers[i].mode == PERIODIC, "%s", timers[i].mode ? "and goes on" : "and has stopped");
	}
	*lapic_reg(&state, TMICT) = 0;
	*lapic_reg(&state, TMCCT) = 0x10000000;
	api.ioctl(g.vcpu, KVM_SET_LAPIC, &state);
	api.ioctl(g.vcpu, KVM_GET_LAPIC, &now);
	equals(*lapic_reg(&now, TMCCT), 0, "without an initial count it stands");
	sigaction(SIGALRM, &old, NULL);
	guest_done(&g);
}

static void lapic_deadline(void)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msr = {
		.head.nmsrs = 1, .entry = { .index = 0x6e0, .data = 1ULL << 62 } };
	struct kvm_lapic_state state;
	struct guest g;

	if (!guest_init_irqchip(&g, 16))
		return;
	has_deadline_timer(&g);
	api.ioctl(g.vcpu, KVM_GET_LAPIC, &state);
	*lapic_reg(&state, 0xf0) = 0x1ff;
	*lapic_reg(&state, 0x320) = 0x40040;
	accepts(api.ioctl(g.vcpu, KVM_SET_LAPIC, &state), "KVM_SET_LAPIC with a timer of the mode TSC-deadline");
	equals(api.ioctl(g.vcpu, KVM_SET_MSRS, &msr), 1, "KVM_SET_MSRS of the deadline");
	accepts(api.ioctl(g.vcpu, KVM_SET_LAPIC, &state), "KVM_SET_LAPIC after it");
	msr.entry.data = 0;
	equals(api.ioctl(g.vcpu, KVM_GET_MSRS, &msr), 1, "KVM_GET_MSRS of the deadline");
	equals(msr.entry.data, 1ULL << 62, "it is still what it was");
	guest_done(&g);
}

static void vm_clock(void)
{
	struct kvm_clock_data a, b = { .clock = 1000000000000ULL };
	uint64_t identity = 0xfffbc000;
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), vcpu;

	accepts(api.ioctl(vm, KVM_GET_CLOCK, &a), "KVM_GET_CLOCK");
	accepts(api.ioctl(vm, KVM_SET_CLOCK, &b), "KVM_SET_CLOCK");
	api.ioctl(vm, KVM_GET_CLOCK, &a);
	tap_ok(a.clock >= 1000000000000ULL && a.clock < 2000000000000ULL, "it goes on from there");
	b.flags = 1 << 30;
	refuses(EINVAL, api.ioctl(vm, KVM_SET_CLOCK, &b), "unknown flags are refused");
	refuses(EFAULT, api.ioctl(vm, KVM_GET_CLOCK, NOWHERE), "KVM_GET_CLOCK to nowhere is refused");
	refuses(EFAULT, api.ioctl(vm, KVM_SET_CLOCK, NOWHERE), "KVM_SET_CLOCK from nowhere is refused");
	accepts(api.ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL), "KVM_SET_TSS_ADDR");
	accepts(api.ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity), "KVM_SET_IDENTITY_MAP_ADDR");
	accepts(api.ioctl(vm, KVM_SET_BOOT_CPU_ID, 0UL), "KVM_SET_BOOT_CPU_ID");
	vcpu = api.ioctl(vm, KVM_CREATE_VCPU, 0UL);
	refuses(EBUSY, api.ioctl(vm, KVM_SET_BOOT_CPU_ID, 0UL), "after the first vCPU that is refused");
	refuses(EINVAL, api.ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity), "and a new identity map too");
	api.close(vcpu);
	refuses(ENOTTY, api.ioctl(vm, _IO(KVMIO, 0xf9), 0UL), "an unknown command is refused");
	refuses(ENOTTY, api.ioctl(vm, KVM_RUN, 0UL), "a vCPU's command is refused");
	api.close(vm);
}

/* The multiplier and the shift of a vCPU's kvmclock, after KVM_SET_TSC_KHZ to @more parts in a million above what it is. */
static uint64_t clock_page_speed(int more)
{
	static const uint8_t code[] = { 0xe6, 0x80 }; /* out 0x80, al */
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msr = {
		.head.nmsrs = 1, .entry = { .index = 0x4b564d01, .data = 0x3000 | 1 } };
	uint64_t speed = 0;
	struct guest g;
	int khz;

	if (!guest_init(&g, 16))
		return 0;
	khz = api.ioctl(g.vcpu, KVM_GET_TSC_KHZ, 0UL);
	if (more)
		accepts(api.ioctl(g.vcpu, KVM_SET_TSC_KHZ, khz + 1UL * khz * more / 1000000),
			"KVM_SET_TSC_KHZ, %d parts in a million more", more);
	equals(api.ioctl(g.vcpu, KVM_SET_MSRS, &msr), 1, "a page for kvmclock");
	guest_code(&g, 0x1000, code, sizeof(code));
	equals(guest_run(&g), KVM_EXIT_IO, "the guest runs");
	memcpy(&speed, g.mem + 0x3000 + 24, 5);
	guest_done(&g);
	return speed;
}

/*
 * Nothing is scaled for what crystals differ by: the TSC keeps its speed. The guest must be told that one, or its clock and that of
 * KVM_GET_CLOCK part.
 */
static void clock_speed(void)
{
	uint64_t speed = clock_page_speed(0);

	tap_ok(speed != 0, "kvmclock has a speed");
	equals(clock_page_speed(200), speed, "it is the TSC's own");
}

static void msr_filter(void)
{
	struct kvm_msr_filter f = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	uint8_t bitmap[16] = { 0 };
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);

	accepts(enable(vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN), "unknown MSRs exit");
	refuses(EINVAL, enable(vm, KVM_CAP_X86_USER_SPACE_MSR, 1 << 20), "an unknown reason is refused");
	accepts(api.ioctl(vm, KVM_X86_SET_MSR_FILTER, &f), "an empty filter");
	f.ranges[0] = (struct kvm_msr_filter_range){ .flags = KVM_MSR_FILTER_READ, .nmsrs = 8, .base = 0x10, .bitmap = bitmap };
	accepts(api.ioctl(vm, KVM_X86_SET_MSR_FILTER, &f), "a range");
	f.ranges[0].flags = 1 << 10;
	refuses(EINVAL, api.ioctl(vm, KVM_X86_SET_MSR_FILTER, &f), "unknown flags of a range are refused");
	f.ranges[0].flags = KVM_MSR_FILTER_READ;
	f.ranges[0].bitmap = NOWHERE;
	refuses(EFAULT, api.ioctl(vm, KVM_X86_SET_MSR_FILTER, &f), "a bitmap from nowhere is refused");
	f.flags = 1 << 10;
	refuses(EINVAL, api.ioctl(vm, KVM_X86_SET_MSR_FILTER, &f), "unknown flags are refused");
	api.close(vm);
}

/* ---- races -------------------------------------------------------------------------------------------------------- */

struct race_arg {
	int vm, fd;
};

static int toggle_irqfd(void *arg, int round)
{
	struct race_arg *r = arg;

	return irqfd(r->vm, r->fd, 4, round & 1 ? KVM_IRQFD_FLAG_DEASSIGN : 0, 0) && errno != EBUSY;
}

static int signal_irqfd(void *arg, int round)
{
	uint64_t one = 1;

	(void)round;
	return write(((struct race_arg *)arg)->fd, &one, 8) != 8;
}

static int toggle_ioeventfd(void *arg, int round)
{
	struct race_arg *r = arg;

	return ioeventfd(r->vm, r->fd, 0x10, 1, KVM_IOEVENTFD_FLAG_PIO | (round & 1 ? KVM_IOEVENTFD_FLAG_DEASSIGN : 0), 0) &&
	       errno != EEXIST && errno != ENOENT;
}

static int pulse(void *arg, int round)
{
	return line(((struct race_arg *)arg)->vm, 4, round & 1) != 0;
}

static int reroute(void *arg, int round)
{
	struct routes r = { .head.nr = 1 + (round & 1),
			    .entry = { { .gsi = 4, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { KVM_IRQCHIP_PIC_MASTER, 4 } },
				       { .gsi = 40, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0x41 } } } };

	return api.ioctl(((struct race_arg *)arg)->vm, KVM_SET_GSI_ROUTING, &r) != 0;
}

static int chip_state(void *arg, int round)
{
	struct kvm_irqchip chip = { .chip_id = (uint32_t)round % 3 };

	return api.ioctl(((struct race_arg *)arg)->vm, KVM_GET_IRQCHIP, &chip) ||
	       api.ioctl(((struct race_arg *)arg)->vm, KVM_SET_IRQCHIP, &chip);
}

static int pit_state(void *arg, int round)
{
	struct kvm_pit_state2 state;

	(void)round;
	return api.ioctl(((struct race_arg *)arg)->vm, KVM_GET_PIT2, &state) ||
	       api.ioctl(((struct race_arg *)arg)->vm, KVM_SET_PIT2, &state);
}

static int create_chips(void *arg, int round)
{
	static __thread int vm;

	(void)arg, (void)round;
	vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	return api.ioctl(vm, KVM_CREATE_IRQCHIP, 0UL) || api.close(vm);
}

static int create_here(void *arg, int round)
{
	struct race_arg *r = arg;

	(void)round;
	return api.ioctl(r->vm, KVM_CREATE_IRQCHIP, 0UL) && errno != EEXIST;
}

static int clock_state(void *arg, int round)
{
	struct kvm_clock_data c = { .clock = 1000 };

	return api.ioctl(((struct race_arg *)arg)->vm, round & 1 ? KVM_SET_CLOCK : KVM_GET_CLOCK, &c) != 0;
}

static int send_msi(void *arg, int round)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x41 };

	(void)round;
	/* There is no vCPU to take it. */
	return api.ioctl(((struct race_arg *)arg)->vm, KVM_SIGNAL_MSI, &msi) < 0 && errno != EPERM;
}

static int filters(void *arg, int round)
{
	struct kvm_msr_filter f = { .flags = (uint32_t)round & 1 };

	f.flags = 0;
	return api.ioctl(((struct race_arg *)arg)->vm, KVM_X86_SET_MSR_FILTER, &f) != 0;
}

static void races(void)
{
	struct race_arg r = { api.ioctl(api_system(), KVM_CREATE_VM, 0UL), eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	struct kvm_pit_config config = { 0 };

	race("chips are made by two threads", 2, create_here, create_here, &r);
	api.ioctl(r.vm, KVM_CREATE_PIT2, &config);
	race("an irqfd comes and goes", 200, toggle_irqfd, toggle_irqfd, &r);
	race("an irqfd comes and goes while it is signalled", 200, toggle_irqfd, signal_irqfd, &r);
	race("an ioeventfd comes and goes", 100, toggle_ioeventfd, toggle_ioeventfd, &r);
	race("routes change while a line moves", 200, reroute, pulse, &r);
	race("routes change while a line's irqfd is signalled", 200, reroute, signal_irqfd, &r);
	race("routes are changed by both", 100, reroute, reroute, &r);
	race("chips are read and set while a line moves", 200, chip_state, pulse, &r);
	race("the PIT's state", 200, pit_state, pit_state, &r);
	race("the clock", 200, clock_state, clock_state, &r);
	race("MSIs and routes", 200, send_msi, reroute, &r);
	race("MSR filters", 100, filters, filters, &r);
	race("VMs with chips", 10, create_chips, create_chips, &r);
	api.close(r.vm);
	close(r.fd);
}

const struct api_case api_cases[] = {
	{ "chips", chips },
	{ "split", split },
	{ "pit", pit },
	{ "routing", routing },
	{ "irqfds", irqfds },
	{ "ioeventfds", ioeventfds },
	{ "delivery", delivery },
	{ "lapic-timer", lapic_timer },
	{ "lapic-deadline", lapic_deadline },
	{ "clock", vm_clock },
	{ "clock-speed", clock_speed },
	{ "msr-filter", msr_filter },
	{ "races", races },
	{ NULL, NULL },
};
