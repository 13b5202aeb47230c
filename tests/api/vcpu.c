/* A vCPU's state: every KVM_GET_* and KVM_SET_*, what they refuse, and who else may be calling them. */
#include <linux/kvm_para.h>
#include <sched.h>

#include "tests/api/api.h"

static void creation(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), vcpu, other, max;

	vcpu = (int)accepts(api.ioctl(vm, KVM_CREATE_VCPU, 0UL), "vCPU 0");
	equals(fcntl(vcpu, F_GETFD), FD_CLOEXEC, "its descriptor closes on exec");
	refuses(EEXIST, api.ioctl(vm, KVM_CREATE_VCPU, 0UL), "a second vCPU 0 is refused");
	max = api.ioctl(vm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MAX_VCPU_ID);
	refuses(EINVAL, api.ioctl(vm, KVM_CREATE_VCPU, (unsigned long)max), "vCPU %d is refused", max);
	refuses(EINVAL, api.ioctl(vm, KVM_CREATE_VCPU, ~0UL), "vCPU -1 is refused");
	other = (int)accepts(api.ioctl(vm, KVM_CREATE_VCPU, (unsigned long)max - 1), "vCPU %d", max - 1);
	api.close(vm);
	accepts(api.ioctl(vcpu, KVM_GET_MP_STATE, &(struct kvm_mp_state){ 0 }), "a vCPU outlives the VM's descriptor");
	api.close(other);
	api.close(vcpu);
}

static void too_many(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), n, vcpu;
	int *fd = calloc(5000, sizeof(*fd));
	int max = api.ioctl(vm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MAX_VCPUS);

	for (n = 0; n < max && n < 64; n++) {
		fd[n] = api.ioctl(vm, KVM_CREATE_VCPU, (unsigned long)n);
		if (fd[n] < 0)
			break;
	}
	equals(n, max < 64 ? max : 64, "%d vCPUs", n);
	vcpu = n == max ? api.ioctl(vm, KVM_CREATE_VCPU, (unsigned long)n) : -1;
	tap_ok(vcpu < 0, "and not more than there may be");
	while (n--)
		api.close(fd[n]);
	api.close(vm);
	free(fd);
}

static void mapping(void)
{
	struct guest g;
	void *p;

	if (!guest_init(&g, 4))
		return;
	equals(g.run->exit_reason, 0, "kvm_run is zero at first");
	p = api.mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, g.vcpu, 0);
	tap_ok(p != MAP_FAILED, "kvm_run can be mapped twice");
	g.run->immediate_exit = 1;
	equals(((struct kvm_run *)p)->immediate_exit, 1, "and is the same memory");
	munmap(p, 4096);
	p = api.mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, g.vm, 0);
	tap_ok(p == MAP_FAILED && errno == ENODEV, "a VM cannot be mapped");
	guest_done(&g);
}

static void regs(void)
{
	struct kvm_regs want = { .rax = 1, .rbx = 0x1122334455667788, .r8 = ~0ULL, .r15 = 15, .rsp = 0x7000, .rip = 0x1234,
				 .rflags = 0x246 },
			got;
	struct guest g;

	if (!guest_init(&g, 4))
		return;
	accepts(api.ioctl(g.vcpu, KVM_GET_REGS, &got), "KVM_GET_REGS");
	equals(got.rip, 0xfff0, "RIP is FFF0 after power-up");
	equals(got.rflags, 2, "RFLAGS is 2 after power-up");
	accepts(api.ioctl(g.vcpu, KVM_SET_REGS, &want), "KVM_SET_REGS");
	api.ioctl(g.vcpu, KVM_GET_REGS, &got);
	tap_ok(!memcmp(&want, &got, sizeof(want)), "what was set is read");
	want.rflags = 0;
	api.ioctl(g.vcpu, KVM_SET_REGS, &want);
	api.ioctl(g.vcpu, KVM_GET_REGS, &got);
	equals(got.rflags, 2, "bit 1 of RFLAGS is always set");
	guest_done(&g);
}

static void sregs(void)
{
	struct kvm_sregs want, got;
	struct kvm_sregs2 s2;
	struct guest g;

	if (!guest_init(&g, 4))
		return;
	accepts(api.ioctl(g.vcpu, KVM_GET_SREGS, &want), "KVM_GET_SREGS");
	equals(want.cs.selector, 0xf000, "CS is F000 after power-up");
	equals(want.cs.base, 0xffff0000, "its base is FFFF0000");
	equals(want.cr0, 0x60000010, "CR0 is 60000010");
	equals(want.apic_base & 0x800, 0x800, "the local APIC is on");
	want.ds.base = 0x12340;
	want.ds.selector = 0x1234;
	want.gdt.base = 0x5000;
	want.gdt.limit = 0x27;
	want.cr2 = 0xabcdef;
	accepts(api.ioctl(g.vcpu, KVM_SET_SREGS, &want), "KVM_SET_SREGS");
	api.ioctl(g.vcpu, KVM_GET_SREGS, &got);
	tap_ok(!memcmp(&want, &got, sizeof(want)), "what was set is read");
	accepts(api.ioctl(g.vcpu, KVM_GET_SREGS2, &s2), "KVM_GET_SREGS2");
	equals(s2.cr2, 0xabcdef, "it says the same");
	accepts(api.ioctl(g.vcpu, KVM_SET_SREGS2, &s2), "KVM_SET_SREGS2");
	got = want;
	got.cr4 = 0x7ff;
	accepts(api.ioctl(g.vcpu, KVM_SET_SREGS, &got), "without CPUID every old bit of CR4 is there");
	got = want;
	got.cr4 = ~0ULL;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_SREGS, &got), "reserved bits of CR4 are refused");
	got = want;
	got.cr0 = 0x80000010;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_SREGS, &got), "paging without protection is refused");
	got = want;
	got.efer = 0x500;
	got.cr0 = 0x80000011;
	got.cr4 = 0;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_SREGS, &got), "long mode without PAE is refused");
	guest_done(&g);
}

static void fpu(void)
{
	struct kvm_fpu want, got;
	struct kvm_xsave *x = calloc(1, 65536);
	struct kvm_xcrs xcrs;
	struct guest g;
	long size;

	if (!guest_init(&g, 4)) {
		free(x);
		return;
	}
	accepts(api.ioctl(g.vcpu, KVM_GET_FPU, &want), "KVM_GET_FPU");
	equals(want.fcw, 0x37f, "FCW is 37F after power-up");
	want.fcw = 0x27f;
	memset(want.xmm[3], 0x5a, 16);
	memset(want.fpr[1], 0x11, 10);
	accepts(api.ioctl(g.vcpu, KVM_SET_FPU, &want), "KVM_SET_FPU");
	api.ioctl(g.vcpu, KVM_GET_FPU, &got);
	tap_ok(got.fcw == 0x27f && !memcmp(got.xmm, want.xmm, sizeof(got.xmm)) && !memcmp(got.fpr[1], want.fpr[1], 10), "what was set is read");
	accepts(api.ioctl(g.vcpu, KVM_GET_XSAVE, x), "KVM_GET_XSAVE");
	accepts(api.ioctl(g.vcpu, KVM_SET_XSAVE, x), "what it gave is taken");
	x->region[0] = 0x17f;
	x->region[128] = 3;
	accepts(api.ioctl(g.vcpu, KVM_SET_XSAVE, x), "KVM_SET_XSAVE");
	memset(x, 0, sizeof(*x));
	api.ioctl(g.vcpu, KVM_GET_XSAVE, x);
	equals(x->region[0] & 0xffff, 0x17f, "what was set is read");
	x->region[128] = 0;
	x->region[129] = 0x80000000;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_XSAVE, x), "unknown components are refused");
	x->region[129] = 0;
	x->region[6] = 0xffffffff;
	x->region[128] = 3;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_XSAVE, x), "reserved bits of MXCSR are refused");
	size = api.ioctl(g.vm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_XSAVE2);
	tap_ok(size >= 4096 && size <= 65536, "KVM_GET_XSAVE2 takes %ld bytes", size);
	accepts(api.ioctl(g.vcpu, KVM_GET_XSAVE2, x), "KVM_GET_XSAVE2");
	accepts(api.ioctl(g.vcpu, KVM_GET_XCRS, &xcrs), "KVM_GET_XCRS");
	tap_ok(xcrs.nr_xcrs == 1 && xcrs.xcrs[0].xcr == 0 && xcrs.xcrs[0].value == 1, "XCR0 is 1 after power-up");
	accepts(api.ioctl(g.vcpu, KVM_SET_XCRS, &xcrs), "KVM_SET_XCRS");
	xcrs.xcrs[0].value = 0;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_XCRS, &xcrs), "XCR0 without x87 is refused");
	xcrs.flags = 1;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_XCRS, &xcrs), "flags are refused");
	xcrs.flags = 0;
	xcrs.nr_xcrs = KVM_MAX_XCRS + 1;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_XCRS, &xcrs), "too many are refused");
	guest_done(&g);
	free(x);
}

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[3];
};

static void msrs(void)
{
	struct one_msr m = { .head.nmsrs = 3, .entry = { { .index = 0x174, .data = 0x10 }, { .index = 0x175, .data = 0x2000 },
							 { .index = 0xdeadbeef } } };
	struct guest g;

	if (!guest_init(&g, 4))
		return;
	equals(api.ioctl(g.vcpu, KVM_SET_MSRS, &m), 2, "KVM_SET_MSRS stops at the one that is not there");
	m.entry[0].data = m.entry[1].data = 0;
	equals(api.ioctl(g.vcpu, KVM_GET_MSRS, &m), 2, "KVM_GET_MSRS too");
	tap_ok(m.entry[0].data == 0x10 && m.entry[1].data == 0x2000, "what was set is read");
	m.entry[0] = (struct kvm_msr_entry){ .index = 0xce, .data = 0x1800ff00 };
	m.entry[1] = (struct kvm_msr_entry){ .index = 0x1fc, .data = 0x1234 };
	equals(api.ioctl(g.vcpu, KVM_SET_MSRS, &m), 2, "a client sets PLATFORM_INFO and POWER_CTL as it likes");
	m.entry[0].data = m.entry[1].data = 0;
	equals(api.ioctl(g.vcpu, KVM_GET_MSRS, &m), 2, "they are read");
	tap_ok(m.entry[0].data == 0x1800ff00 && m.entry[1].data == 0x1234, "as they were set");
	m.head.nmsrs = 1;
	m.entry[0] = (struct kvm_msr_entry){ .index = 0x345, .data = 1ULL << 40 };
	equals(api.ioctl(g.vcpu, KVM_SET_MSRS, &m), 0, "of PERF_CAPABILITIES, which has no bits without a PMU, none is set");
	m.entry[0] = (struct kvm_msr_entry){ .index = 0xc0000080, .data = ~0ULL };
	equals(api.ioctl(g.vcpu, KVM_SET_MSRS, &m), 0, "reserved bits of EFER are not set");
	m.head.nmsrs = 100000;
	refuses(E2BIG, api.ioctl(g.vcpu, KVM_GET_MSRS, &m), "too many are refused");
	refuses(E2BIG, api.ioctl(g.vcpu, KVM_SET_MSRS, &m), "too many to set are refused");
	guest_done(&g);
}

static void cpuid(void)
{
	enum { ROOM = 256 };
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + ROOM * sizeof(c->entries[0]));
	unsigned n;
	struct guest g;

	if (!guest_init(&g, 4)) {
		free(c);
		return;
	}
	c->nent = ROOM;
	api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, c);
	n = c->nent;
	accepts(api.ioctl(g.vcpu, KVM_SET_CPUID2, c), "KVM_SET_CPUID2");
	accepts(api.ioctl(g.vcpu, KVM_SET_CPUID2, c), "and again");
	guest_code(&g, 0x1000, "\xf4", 1);
	equals(guest_run(&g), KVM_EXIT_HLT, "guest code runs");
	accepts(api.ioctl(g.vcpu, KVM_SET_CPUID2, c), "the same CPUID may be set afterwards");
	c->entries[n - 1].eax ^= 1;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_CPUID2, c), "another is refused");
	c->entries[n - 1].eax ^= 1;
	c->nent--;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_CPUID2, c), "so is one of fewer leaves");
	c->nent = ROOM;
	accepts(api.ioctl(g.vcpu, KVM_GET_CPUID2, c), "KVM_GET_CPUID2");
	equals(c->nent, n, "as many leaves as were set");
	c->nent = 1;
	refuses(E2BIG, api.ioctl(g.vcpu, KVM_GET_CPUID2, c), "too little room is refused");
	c->nent = 100000;
	refuses(E2BIG, api.ioctl(g.vcpu, KVM_SET_CPUID2, c), "too many leaves are refused");
	guest_done(&g);
	free(c);
}

static void events(void)
{
	struct kvm_vcpu_events ev, got;
	struct kvm_debugregs dr;
	struct kvm_mp_state mp;
	struct guest g;

	if (!guest_init_irqchip(&g, 4))
		return;
	accepts(api.ioctl(g.vcpu, KVM_GET_VCPU_EVENTS, &ev), "KVM_GET_VCPU_EVENTS");
	ev.nmi.pending = 1;
	ev.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
	accepts(api.ioctl(g.vcpu, KVM_SET_VCPU_EVENTS, &ev), "KVM_SET_VCPU_EVENTS");
	api.ioctl(g.vcpu, KVM_GET_VCPU_EVENTS, &got);
	equals(got.nmi.pending, 1, "an NMI is pending");
	ev.flags = 1 << 30;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_VCPU_EVENTS, &ev), "unknown flags are refused");
	ev.flags = 0;
	ev.exception.injected = 1;
	ev.exception.nr = 32;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_VCPU_EVENTS, &ev), "exception 32 is refused");
	ev.exception.nr = 2;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_VCPU_EVENTS, &ev), "exception 2, which is NMI, is refused");

	accepts(api.ioctl(g.vcpu, KVM_GET_DEBUGREGS, &dr), "KVM_GET_DEBUGREGS");
	tap_ok(dr.dr6 == 0xffff0ff0 && dr.dr7 == 0x400, "DR6 and DR7 are FFFF0FF0 and 400 after power-up");
	dr.db[0] = 0x1000;
	accepts(api.ioctl(g.vcpu, KVM_SET_DEBUGREGS, &dr), "KVM_SET_DEBUGREGS");
	dr.dr7 = 1ULL << 40;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_DEBUGREGS, &dr), "upper bits of DR7 are refused");
	dr.dr7 = 0x400;
	dr.dr6 = 1ULL << 40;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_DEBUGREGS, &dr), "upper bits of DR6 are refused");
	dr.dr6 = 0xffff0ff0;
	dr.flags = 1;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_DEBUGREGS, &dr), "flags are refused");

	accepts(api.ioctl(g.vcpu, KVM_GET_MP_STATE, &mp), "KVM_GET_MP_STATE");
	equals(mp.mp_state, KVM_MP_STATE_RUNNABLE, "the first vCPU is runnable");
	mp.mp_state = KVM_MP_STATE_HALTED;
	accepts(api.ioctl(g.vcpu, KVM_SET_MP_STATE, &mp), "KVM_SET_MP_STATE");
	mp.mp_state = KVM_MP_STATE_STOPPED;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_MP_STATE, &mp), "another architecture's state is refused");
	guest_done(&g);
}

static void lapic(void)
{
	struct kvm_lapic_state state;
	struct guest g;

	if (!guest_init(&g, 4))
		return;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_GET_LAPIC, &state), "without a local APIC there is no state");
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_LAPIC, &state), "nor can it be set");
	guest_done(&g);
	if (!guest_init_irqchip(&g, 4))
		return;
	accepts(api.ioctl(g.vcpu, KVM_GET_LAPIC, &state), "KVM_GET_LAPIC");
	equals(*(uint32_t *)(state.regs + 0xf0) & 0x1ff, 0xff, "the spurious vector is FF and the APIC software-disabled");
	equals(*(uint32_t *)(state.regs + 0x30) & 0xff, 0x14, "the version is 14");
	accepts(api.ioctl(g.vcpu, KVM_SET_LAPIC, &state), "KVM_SET_LAPIC");
	refuses(EFAULT, api.ioctl(g.vcpu, KVM_SET_LAPIC, NOWHERE), "KVM_SET_LAPIC from nowhere is refused");
	guest_done(&g);
}

static void injection(void)
{
	struct kvm_interrupt irq = { .irq = 0x20 }, wild = { .irq = 256 };
	struct guest g;

	if (!guest_init(&g, 4))
		return;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_INTERRUPT, &wild), "interrupt 256 is refused");
	accepts(api.ioctl(g.vcpu, KVM_INTERRUPT, &irq), "KVM_INTERRUPT");
	accepts(api.ioctl(g.vcpu, KVM_NMI, 0UL), "KVM_NMI");
	guest_done(&g);
	if (!guest_init_irqchip(&g, 4))
		return;
	refuses(ENXIO, api.ioctl(g.vcpu, KVM_INTERRUPT, &irq), "with chips in the kernel KVM_INTERRUPT is refused");
	guest_done(&g);
}

static void signal_mask(void)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t mask;
	} __attribute__((packed)) m = { .head.len = 8 };
	struct guest g;

	if (!guest_init(&g, 4))
		return;
	accepts(api.ioctl(g.vcpu, KVM_SET_SIGNAL_MASK, &m), "KVM_SET_SIGNAL_MASK");
	accepts(api.ioctl(g.vcpu, KVM_SET_SIGNAL_MASK, NULL), "none");
	m.head.len = 4;
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_SET_SIGNAL_MASK, &m), "another length is refused");
	refuses(EFAULT, api.ioctl(g.vcpu, KVM_SET_SIGNAL_MASK, NOWHERE), "a mask from nowhere is refused");
	guest_done(&g);
}

static void debugging(void)
{
	struct kvm_guest_debug d = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	struct kvm_translation t = { .linear_address = 0x1234 };
	struct guest g;

	if (!guest_init(&g, 4))
		return;
	accepts(api.ioctl(g.vcpu, KVM_SET_GUEST_DEBUG, &d), "KVM_SET_GUEST_DEBUG");
	d.control = 0;
	accepts(api.ioctl(g.vcpu, KVM_SET_GUEST_DEBUG, &d), "none");
	accepts(api.ioctl(g.vcpu, KVM_TRANSLATE, &t), "KVM_TRANSLATE");
	tap_ok(t.valid && t.physical_address == 0x1234, "without paging addresses are their own");
	guest_done(&g);
}

static void clocks(void)
{
	struct guest g;
	long khz;

	if (!guest_init(&g, 4))
		return;
	khz = accepts(api.ioctl(g.vcpu, KVM_GET_TSC_KHZ, 0UL), "KVM_GET_TSC_KHZ");
	/* Bochs counts 50 million a second */
	tap_ok(khz > 10000, "the TSC runs at %ld kHz", khz);
	accepts(api.ioctl(g.vcpu, KVM_SET_TSC_KHZ, (unsigned long)khz), "KVM_SET_TSC_KHZ to what it is");
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_KVMCLOCK_CTRL, 0UL), "KVM_KVMCLOCK_CTRL without a kvmclock is refused");
	guest_done(&g);
}

/* Every command that takes a structure refuses one that is nowhere. */
static void nowhere(void)
{
	static const struct {
		unsigned long cmd;
		const char *name;
	} cmds[] = {
#define CMD(name) { name, #name }
		CMD(KVM_GET_REGS), CMD(KVM_SET_REGS), CMD(KVM_GET_SREGS), CMD(KVM_SET_SREGS), CMD(KVM_GET_SREGS2),
		CMD(KVM_SET_SREGS2), CMD(KVM_GET_FPU), CMD(KVM_SET_FPU), CMD(KVM_GET_XSAVE), CMD(KVM_SET_XSAVE),
		CMD(KVM_GET_XSAVE2), CMD(KVM_GET_XCRS), CMD(KVM_SET_XCRS), CMD(KVM_GET_MSRS), CMD(KVM_SET_MSRS),
		CMD(KVM_SET_CPUID2), CMD(KVM_GET_CPUID2), CMD(KVM_GET_LAPIC), CMD(KVM_SET_LAPIC), CMD(KVM_GET_MP_STATE),
		CMD(KVM_SET_MP_STATE), CMD(KVM_GET_VCPU_EVENTS), CMD(KVM_SET_VCPU_EVENTS), CMD(KVM_GET_DEBUGREGS),
		CMD(KVM_SET_DEBUGREGS), CMD(KVM_TRANSLATE), CMD(KVM_INTERRUPT), CMD(KVM_SET_GUEST_DEBUG),
		CMD(KVM_TPR_ACCESS_REPORTING), CMD(KVM_SET_VAPIC_ADDR), CMD(KVM_X86_SETUP_MCE), CMD(KVM_X86_SET_MCE),
		CMD(KVM_ENABLE_CAP),
	};
	struct guest g;
	unsigned i;

	if (!guest_init_irqchip(&g, 4))
		return;
	for (i = 0; i < sizeof(cmds) / sizeof(cmds[0]); i++)
		refuses(EFAULT, api.ioctl(g.vcpu, cmds[i].cmd, NOWHERE), "%s with nothing behind it is refused", cmds[i].name);
	refuses(EINVAL, api.ioctl(g.vcpu, _IO(KVMIO, 0xf9), 0UL), "an unknown command is refused");
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_CREATE_VCPU, 0UL), "a VM's command is refused");
	refuses(EINVAL, api.ioctl(g.vcpu, KVM_RUN, 1UL), "KVM_RUN takes no argument");
	guest_done(&g);
}

/* ---- races: each command by two threads on one vCPU ----------------------------------------------------------------- */

#define GETTER(name, cmd, type)                                                                    \
	static int name(void *arg, int round)                                                      \
	{                                                                                          \
		static __thread type state;                                                        \
		(void)round;                                                                       \
		return api.ioctl(((struct guest *)arg)->vcpu, cmd, &state) < 0;                    \
	}
#define BOTH(name, get, set, type)                                                                 \
	static int name(void *arg, int round)                                                      \
	{                                                                                          \
		static __thread type state;                                                        \
		int vcpu = ((struct guest *)arg)->vcpu;                                            \
		if (round & 1)                                                                     \
			return api.ioctl(vcpu, set, &state) < 0;                                   \
		return api.ioctl(vcpu, get, &state) < 0;                                           \
	}
BOTH(race_regs, KVM_GET_REGS, KVM_SET_REGS, struct kvm_regs)
BOTH(race_sregs, KVM_GET_SREGS, KVM_SET_SREGS, struct kvm_sregs)
BOTH(race_sregs2, KVM_GET_SREGS2, KVM_SET_SREGS2, struct kvm_sregs2)
BOTH(race_fpu, KVM_GET_FPU, KVM_SET_FPU, struct kvm_fpu)
BOTH(race_xsave, KVM_GET_XSAVE, KVM_SET_XSAVE, struct kvm_xsave)
BOTH(race_xcrs, KVM_GET_XCRS, KVM_SET_XCRS, struct kvm_xcrs)
BOTH(race_lapic, KVM_GET_LAPIC, KVM_SET_LAPIC, struct kvm_lapic_state)
BOTH(race_mp, KVM_GET_MP_STATE, KVM_SET_MP_STATE, struct kvm_mp_state)
BOTH(race_events, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, struct kvm_vcpu_events)
BOTH(race_dr, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, struct kvm_debugregs)
GETTER(race_translate, KVM_TRANSLATE, struct kvm_translation)

static int race_msrs(void *arg, int round)
{
	struct one_msr m = { .head.nmsrs = 1, .entry = { { .index = 0x174, .data = 0x10 } } };

	return api.ioctl(((struct guest *)arg)->vcpu, round & 1 ? KVM_SET_MSRS : KVM_GET_MSRS, &m) != 1;
}

static int race_nmi(void *arg, int round)
{
	(void)round;
	return api.ioctl(((struct guest *)arg)->vcpu, KVM_NMI, 0UL) != 0;
}

static int race_create(void *arg, int round)
{
	static __thread int fd;

	fd = api.ioctl(((struct guest *)arg)->vm, KVM_CREATE_VCPU, (unsigned long)round + 1);
	if (fd < 0)
		return errno != EEXIST;
	return api.close(fd);
}

static int race_cpuid(void *arg, int round)
{
	static __thread struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[256];
	} c;
	int vcpu = ((struct guest *)arg)->vcpu;

	c.head.nent = 256;
	if (round & 1)
		return api.ioctl(vcpu, KVM_GET_CPUID2, &c) != 0;
	if (api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, &c))
		return 1;
	return api.ioctl(vcpu, KVM_SET_CPUID2, &c) != 0;
}

static int race_mask(void *arg, int round)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t mask;
	} __attribute__((packed)) m = { .head.len = 8 };

	return api.ioctl(((struct guest *)arg)->vcpu, KVM_SET_SIGNAL_MASK, round & 1 ? &m : NULL) != 0;
}

static int race_debug(void *arg, int round)
{
	struct kvm_guest_debug d = { .control = round & 1 ? KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP : 0 };

	return api.ioctl(((struct guest *)arg)->vcpu, KVM_SET_GUEST_DEBUG, &d) != 0;
}

static void races(void)
{
	static const struct {
		const char *name;
		int (*fn)(void *arg, int round);
	} list[] = {
		{ "general registers", race_regs }, { "system registers", race_sregs }, { "SREGS2", race_sregs2 },
		{ "FPU", race_fpu }, { "XSAVE", race_xsave }, { "XCRS", race_xcrs }, { "local APIC", race_lapic },
		{ "MP state", race_mp }, { "events", race_events }, { "debug registers", race_dr },
		{ "translation", race_translate }, { "MSRs", race_msrs }, { "NMI", race_nmi }, { "CPUID", race_cpuid },
		{ "signal mask", race_mask }, { "guest debug", race_debug },
	};
	struct guest g;
	unsigned i;

	if (!guest_init_irqchip(&g, 4))
		return;
	for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		char name[64];

		snprintf(name, sizeof(name), "two threads on a vCPU's %s", list[i].name);
		race(name, 100, list[i].fn, list[i].fn, &g);
	}
	race("general registers and MSRs", 100, race_regs, race_msrs, &g);
	race("the same vCPU is made by two threads", 20, race_create, race_create, &g);
	guest_done(&g);
}

/* ---- steal time ------------------------------------------------------------------------------------------------ */

/* Nanoseconds for which this thread waited for a processor; 0 where the host does not say. */
static uint64_t run_delay(void)
{
	unsigned long long ns = 0;
	FILE *f = fopen("/proc/thread-self/schedstat", "re");

	if (!f || fscanf(f, "%*u %llu", &ns) != 1)
		ns = 0;
	if (f)
		fclose(f);
	return ns;
}

static void *busy(void *end)
{
	while (!__atomic_load_n((bool *)end, __ATOMIC_ACQUIRE))
		;
	return NULL;
}

/* Another thread on this one's processor, until that has taken @ns of its time or, where nothing is taken, for a while. */
static void be_stolen_from(uint64_t ns)
{
	uint64_t start = run_delay();
	pthread_t thread;
	bool end = false;
	int tries = 0;

	if (pthread_create(&thread, NULL, busy, &end))
		return;
	while (run_delay() - start < ns && ++tries < 1000000)
		sched_yield();
	__atomic_store_n(&end, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
}

static void steal_time(void)
{
	enum { PAGE = 0x3000, STOLEN = 20000000 };
	static const uint8_t code[] = { 0xf4, 0xeb, 0xfd }; /* 1: hlt; jmp 1b */
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msr = {
		.head.nmsrs = 1, .entry = { .index = MSR_KVM_STEAL_TIME, .data = PAGE | KVM_MSR_ENABLED },
	};
	cpu_set_t before, one;
	uint64_t first, began, delay;
	struct kvm_steal_time *st;
	uint32_t version;
	struct guest g;
	int cpu;

	if (!guest_init(&g, 16))
		return;
	st = (struct kvm_steal_time *)(g.mem + PAGE);
	guest_code(&g, 0x1000, code, sizeof(code));
	equals(api.ioctl(g.vcpu, KVM_SET_MSRS, &msr), 1, "a page for steal time");
	began = run_delay();
	equals(guest_run(&g), KVM_EXIT_HLT, "the guest runs");
	tap_ok(st->version && !(st->version & 1) && !st->flags, "the page is filled in: an even version, no flags");
	first = st->steal;
	version = st->version;

	sched_getaffinity(0, sizeof(before), &before);
	cpu = sched_getcpu();
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (cpu < 0 || sched_setaffinity(0, sizeof(one), &one)) {
		tap_skip("this thread cannot be kept on one processor", "what another thread took was stolen");
	} else {
		delay = run_delay();
		be_stolen_from(STOLEN);
		delay = run_delay() - delay;
		if (delay < STOLEN) {
			tap_skip("this host does not say how long a thread waits for a processor",
				 "what another thread took was stolen");
		} else {
			/* A host where it costs to ask says what was true 4 ms ago: hence the sleep, and what may be above. */
			usleep(5000);
			equals(guest_run(&g), KVM_EXIT_HLT, "the guest runs after another thread did");
			tap_ok(st->steal - first >= delay && st->steal - first <= run_delay() - began + 4000000,
			       "what that took was stolen: %llu of %llu us", (unsigned long long)(st->steal - first) / 1000,
			       (unsigned long long)delay / 1000);
			tap_ok(st->version > version && !(st->version & 1), "the version is another, and even");
		}
		sched_setaffinity(0, sizeof(before), &before);
	}
	guest_done(&g);
}

const struct api_case api_cases[] = {
	{ "creation", creation },
	{ "too-many", too_many },
	{ "mapping", mapping },
	{ "regs", regs },
	{ "sregs", sregs },
	{ "fpu", fpu },
	{ "msrs", msrs },
	{ "cpuid", cpuid },
	{ "events", events },
	{ "lapic", lapic },
	{ "injection", injection },
	{ "signal-mask", signal_mask },
	{ "debugging", debugging },
	{ "clocks", clocks },
	{ "nowhere", nowhere },
	{ "steal-time", steal_time },
	{ "races", races },
	{ NULL, NULL },
};
