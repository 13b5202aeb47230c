/*
 * Hyper-V's interface: CPUID, synthetic MSRs, reference time, hypercalls, SynIC and its timers. The guest runs one short piece of 64-bit
 * code at a time, which says by a port that it is through, or which vector it met.
 */
#include <sys/eventfd.h>

#include "tests/api/api.h"

#define GUEST_OS_ID	  0x40000000
#define HYPERCALL	  0x40000001
#define VP_INDEX	  0x40000002
#define RESET		  0x40000003
#define VP_RUNTIME	  0x40000010
#define TIME_REF_COUNT	  0x40000020
#define REFERENCE_TSC	  0x40000021
#define TSC_FREQUENCY	  0x40000022
#define APIC_FREQUENCY	  0x40000023
#define EOI		  0x40000070
#define ICR		  0x40000071
#define TPR		  0x40000072
#define VP_ASSIST_PAGE	  0x40000073
#define SCONTROL	  0x40000080
#define SVERSION	  0x40000081
#define SIEFP		  0x40000082
#define SIMP		  0x40000083
#define EOM		  0x40000084
#define SINT(n)		  (0x40000090 + (n))
#define STIMER_CONFIG(n)  (0x400000b0 + 2 * (n))
#define STIMER_COUNT(n)	  (0x400000b1 + 2 * (n))
#define SYNDBG_CONTROL	  0x400000f1
#define SYNDBG_STATUS	  0x400000f2
#define SYNDBG_PENDING	  0x400000f5
#define SYNDBG_OPTIONS	  0x400000ff
#define CRASH_P0	  0x40000100
#define CRASH_CTL	  0x40000105
#define REENLIGHTENMENT	  0x40000106
#define TSC_EMULATION	  0x40000107
#define EMULATION_STATUS  0x40000108

#define FAST (1ULL << 16)
#define OS_ID (0x8100ULL << 48)

enum { UD = 6, GP = 13 };

/* Where things are in the guest's memory of 64 pages. */
enum { CODE = 0x1000, STACK = 0x3000, IDT = 0x4000, STUBS = 0x5000, TABLES = 0x6000, GDT = 0x9000, TSS = 0xb000, INPUT = 0x10000,
       HCALL_PAGE = 0x12000, TSC_PAGE = 0x13000, MESSAGES = 0x14000, EVENTS = 0x15000, ASSIST = 0x16000, PAGES = 64 };

struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 e[160];
};

static struct kvm_cpuid_entry2 *leaf(struct cpuid *c, uint32_t function)
{
	unsigned i;

	for (i = 0; i < c->head.nent; i++)
		if (c->e[i].function == function)
			return &c->e[i];
	return NULL;
}

/* What KVM can do with Hyper-V's leaves in the place of its own. */
static bool get_cpuid(struct cpuid *c)
{
	struct cpuid kvm = { .head.nent = 160 }, hv = { .head.nent = 160 };
	unsigned i, n = 0;

	if (api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, &kvm) || api.ioctl(api_system(), KVM_GET_SUPPORTED_HV_CPUID, &hv))
		return false;
	memset(c, 0, sizeof(*c));
	for (i = 0; i < kvm.head.nent; i++)
		if (kvm.e[i].function >> 8 != 0x400000)
			c->e[n++] = kvm.e[i];
	for (i = 0; i < hv.head.nent; i++)
		c->e[n++] = hv.e[i];
	c->head.nent = n;
	return true;
}

static void put64(uint8_t *at, uint64_t value)
{
	memcpy(at, &value, 8);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, 8);
	return value;
}

/* 64-bit mode; every vector's stub tells its number at port 81. @bits is 64, or 32 for a compatibility segment. */
static void set_mode(int vcpu, unsigned bits)
{
	struct kvm_sregs s;

	api.ioctl(vcpu, KVM_GET_SREGS, &s);
	long_segments(&s, GDT, IDT);
	s.cs.selector = bits == 64 ? 8 : 0x18;
	s.cs.l = bits == 64;
	s.cs.db = bits != 64;
	s.gdt.limit = 0x1f;
	s.cr0 = 0x80000033;
	s.cr3 = TABLES;
	s.cr4 = 0x220;
	s.efer = 0x500;
	accepts(api.ioctl(vcpu, KVM_SET_SREGS, &s), "%u-bit code", bits);
}

static void lay_out(struct guest *g)
{
	unsigned i;

	put64(g->mem + GDT + 8, 0x00af9b000000ffff);
	put64(g->mem + GDT + 16, 0x00cf93000000ffff);
	put64(g->mem + GDT + 24, 0x00cf9b000000ffff);
	put64(g->mem + TABLES, (TABLES + 0x1000) | 3);
	put64(g->mem + TABLES + 0x1000, (TABLES + 0x2000) | 3);
	put64(g->mem + TABLES + 0x2000, 0x83); /* 2 MiB at 0 */
	for (i = 0; i < 256; i++) {
		const uint8_t stub[] = { 0xb0, (uint8_t)i, 0xe6, 0x81 }; /* mov al, i; out 0x81, al */

		put64(g->mem + IDT + i * 16, 0x00008e0000080000 | (STUBS + i * 4));
		memcpy(g->mem + STUBS + i * 4, stub, 4);
	}
}

static bool set_cpuid(int vcpu, struct cpuid *c)
{
	return accepts(api.ioctl(vcpu, KVM_SET_CPUID2, c), "KVM_SET_CPUID2 with Hyper-V's leaves") >= 0;
}

/* With a LAPIC. @c NULL: a CPUID with all of Hyper-V's. */
static bool hv_init(struct guest *g, struct cpuid *c)
{
	struct cpuid all;

	if (!guest_init_irqchip(g, PAGES))
		return false;
	if (!c && !tap_ok(get_cpuid(&all), "the CPUID leaves"))
		return false;
	lay_out(g);
	if (!set_cpuid(g->vcpu, c ? c : &all))
		return false;
	set_mode(g->vcpu, 64);
	return true;
}

static int enable(int vcpu, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap e = { .cap = cap, .args = { arg } };

	return api.ioctl(vcpu, KVM_ENABLE_CAP, &e);
}

/* Runs the code until it is through: 0; a vector that came before: that; another exit: its reason + 1000. @regs in and out. */
static int run_code(struct guest *g, const void *code, size_t len, struct kvm_regs *regs)
{
	int r;

	memcpy(g->mem + CODE, code, len);
	memcpy(g->mem + CODE + len, "\xe6\x80", 2); /* out 0x80, al */
	regs->rip = CODE;
	regs->rsp = STACK;
	regs->rflags |= 2;
	api.ioctl(g->vcpu, KVM_SET_REGS, regs);
	r = guest_run(g);
	api.ioctl(g->vcpu, KVM_GET_REGS, regs);
	if (r != KVM_EXIT_IO)
		return r < 0 ? r : r + 1000;
	return g->run->io.port == 0x81 ? *((uint8_t *)g->run + g->run->io.data_offset) : 0;
}

/* Goes on behind an exit that was not the end. */
static int go_on(struct guest *g, struct kvm_regs *regs)
{
	int r = guest_run(g);

	api.ioctl(g->vcpu, KVM_GET_REGS, regs);
	if (r != KVM_EXIT_IO)
		return r < 0 ? r : r + 1000;
	return g->run->io.port == 0x81 ? *((uint8_t *)g->run + g->run->io.data_offset) : 0;
}

static int rdmsr(struct guest *g, uint32_t index, uint64_t *value)
{
	struct kvm_regs regs = { .rcx = index };
	int r = run_code(g, "\x0f\x32", 2, &regs);

	*value = regs.rdx << 32 | (uint32_t)regs.rax;
	return r;
}

static int wrmsr(struct guest *g, uint32_t index, uint64_t value)
{
	struct kvm_regs regs = { .rcx = index, .rax = (uint32_t)value, .rdx = value >> 32 };

	return run_code(g, "\x0f\x30", 2, &regs);
}

static bool reads(struct guest *g, uint32_t index, uint64_t wanted)
{
	uint64_t value = 0;
	int r = rdmsr(g, index, &value);
	bool good = !r && value == wanted;

	if (!good)
		tap_diag("MSR %#x: %d, %#llx, not %#llx", index, r, (unsigned long long)value, (unsigned long long)wanted);
	return good;
}

/* Nothing but interrupts: HLT with IF, until a handler speaks. */
static int wait_interrupt(struct guest *g)
{
	struct kvm_regs regs = { .rflags = 0x202 };

	return run_code(g, "\xf4\xeb\xfd", 3, &regs);
}

/* The client's side. */
static int get_msr(int vcpu, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head.nmsrs = 1, .e.index = index };
	int r = api.ioctl(vcpu, KVM_GET_MSRS, &m);

	*value = m.e.data;
	return r;
}

static int set_msr(int vcpu, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head.nmsrs = 1, .e = { .index = index, .data = value } };

	return api.ioctl(vcpu, KVM_SET_MSRS, &m);
}

static uint64_t msr(struct guest *g, uint32_t index)
{
	uint64_t value = ~0ULL;

	if (get_msr(g->vcpu, index, &value) != 1)
		tap_diag("the client cannot read MSR %#x", index);
	return value;
}

/* ---- cases ---------------------------------------------------------------------------------------------------- */

static void leaves(void)
{
	static const int caps[] = { KVM_CAP_HYPERV, KVM_CAP_HYPERV_VAPIC, KVM_CAP_HYPERV_SPIN, KVM_CAP_HYPERV_TIME, KVM_CAP_HYPERV_SYNIC,
				    KVM_CAP_HYPERV_SYNIC2, KVM_CAP_HYPERV_VP_INDEX, KVM_CAP_HYPERV_EVENTFD, KVM_CAP_HYPERV_TLBFLUSH,
				    KVM_CAP_HYPERV_SEND_IPI, KVM_CAP_HYPERV_CPUID, KVM_CAP_SYS_HYPERV_CPUID,
				    KVM_CAP_HYPERV_ENFORCE_CPUID };
	struct cpuid c = { .head.nent = 9 };
	struct guest g;
	unsigned i;

	for (i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		tap_ok(has_cap(api_system(), caps[i]), "capability %d", caps[i]);
	refuses(E2BIG, api.ioctl(api_system(), KVM_GET_SUPPORTED_HV_CPUID, &c), "nine entries are too few");
	c.head.nent = 160;
	accepts(api.ioctl(api_system(), KVM_GET_SUPPORTED_HV_CPUID, &c), "KVM_GET_SUPPORTED_HV_CPUID");
	equals(c.head.nent, 10, "it gives ten leaves");
	refuses(EFAULT, api.ioctl(api_system(), KVM_GET_SUPPORTED_HV_CPUID, NOWHERE), "to nowhere is refused");
	tap_ok(leaf(&c, 0x40000001) && leaf(&c, 0x40000001)->eax == 0x31237648, "the interface is Hv#1");
	tap_ok(leaf(&c, 0x40000003) && (leaf(&c, 0x40000003)->edx & 1 << 19), "timers may be direct");
	if (!guest_init(&g, 16))
		return;
	c.head.nent = 160;
	accepts(api.ioctl(g.vcpu, KVM_GET_SUPPORTED_HV_CPUID, &c), "the same of a vCPU");
	tap_ok(!(leaf(&c, 0x40000003)->edx & 1 << 19), "without a LAPIC timers are not direct");
	refuses(EINVAL, enable(g.vcpu, KVM_CAP_HYPERV_SYNIC, 0), "and there is no SynIC");
	guest_done(&g);
}

static void identity(void)
{
	struct cpuid plain = { .head.nent = 160 }, c;
	struct guest g;
	uint64_t v;

	/* Without Hyper-V's leaves */
	api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, &plain);
	if (!hv_init(&g, &plain))
		return;
	equals(rdmsr(&g, GUEST_OS_ID, &v), GP, "without the leaves there are no MSRs");
	equals(wrmsr(&g, GUEST_OS_ID, OS_ID), GP, "to write neither");
	equals(set_msr(g.vcpu, GUEST_OS_ID, 0), 1, "but for the client");
	guest_done(&g);

	if (!hv_init(&g, NULL))
		return;
	tap_ok(reads(&g, GUEST_OS_ID, 0), "with them the guest's identity is 0");
	equals(wrmsr(&g, HYPERCALL, HCALL_PAGE | 1), 0, "a hypercall page before the identity");
	tap_ok(reads(&g, HYPERCALL, 0), "is ignored");
	equals(wrmsr(&g, GUEST_OS_ID, OS_ID), 0, "the guest tells its identity");
	equals(wrmsr(&g, HYPERCALL, HCALL_PAGE | 1), 0, "and wants a hypercall page");
	tap_ok(reads(&g, HYPERCALL, HCALL_PAGE | 1), "it has it");
	tap_ok(!memcmp(g.mem + HCALL_PAGE, "\x0f\x01\xc1\xc3", 4) || !memcmp(g.mem + HCALL_PAGE, "\x0f\x01\xd9\xc3", 4) ||
		       g.mem[HCALL_PAGE + 3] == 0x0f || g.mem[HCALL_PAGE + 5] == 0x0f, "with VMCALL or VMMCALL");
	equals(wrmsr(&g, HYPERCALL, 0x10000000 | 1), GP, "one where there is no memory is #GP");
	equals(wrmsr(&g, GUEST_OS_ID, 0), 0, "no identity any more");
	tap_ok(reads(&g, HYPERCALL, HCALL_PAGE), "no hypercall page either");
	guest_done(&g);

	/* What CPUID does not show, as the client wants it */
	if (!tap_ok(get_cpuid(&c), "the CPUID leaves"))
		return;
	leaf(&c, 0x40000003)->eax &= ~(1U << 6);
	if (!hv_init(&g, &c))
		return;
	equals(rdmsr(&g, VP_INDEX, &v), 0, "an MSR that CPUID does not show");
	guest_done(&g);
	if (!hv_init(&g, &c))
		return;
	accepts(enable(g.vcpu, KVM_CAP_HYPERV_ENFORCE_CPUID, 1), "KVM_CAP_HYPERV_ENFORCE_CPUID");
	equals(rdmsr(&g, VP_INDEX, &v), GP, "it is not there then");
	equals(get_msr(g.vcpu, VP_INDEX, &v), 1, "but for the client");
	guest_done(&g);
}

static void processor(void)
{
	struct kvm_lapic_state lapic;
	struct guest g;
	uint64_t v, w;
	long khz;

	if (!hv_init(&g, NULL))
		return;
	tap_ok(reads(&g, VP_INDEX, 0), "the first vCPU's index is 0");
	equals(wrmsr(&g, VP_INDEX, 5), GP, "a guest cannot change it");
	equals(set_msr(g.vcpu, VP_INDEX, 5), 1, "the client can");
	tap_ok(reads(&g, VP_INDEX, 5), "and the guest sees it");
	equals(set_msr(g.vcpu, VP_INDEX, 1 << 20), 0, "too large an index is refused");
	equals(rdmsr(&g, VP_RUNTIME, &v), 0, "the time that it ran");
	equals(rdmsr(&g, VP_RUNTIME, &w), 0, "and again");
	tap_ok(w > v, "grows: %llu, %llu", (unsigned long long)v, (unsigned long long)w);
	equals(wrmsr(&g, VP_RUNTIME, 0), GP, "a guest cannot set it");
	equals(set_msr(g.vcpu, VP_RUNTIME, 1ULL << 50), 1, "the client can");
	tap_ok(!rdmsr(&g, VP_RUNTIME, &v) && v >> 50 == 1, "and it goes on from there");
	khz = api.ioctl(g.vcpu, KVM_GET_TSC_KHZ, 0UL);
	tap_ok(reads(&g, TSC_FREQUENCY, khz * 1000ULL), "the TSC's frequency in Hz");
	equals(wrmsr(&g, TSC_FREQUENCY, 1), GP, "is not a guest's to write");
	equals(rdmsr(&g, APIC_FREQUENCY, &v), 0, "the APIC's frequency");
	tap_ok(v >= 1000000, "is %llu Hz", (unsigned long long)v);
	equals(wrmsr(&g, TPR, 0x40), 0, "the APIC's TPR");
	tap_ok(reads(&g, TPR, 0x40), "is what was written");
	api.ioctl(g.vcpu, KVM_GET_LAPIC, &lapic);
	equals(lapic.regs[0x80], 0x40, "in the APIC too");
	wrmsr(&g, TPR, 0);
	/* Software-enables the APIC, then an IPI to itself */
	lapic.regs[0x80] = 0;
	memcpy(lapic.regs + 0xf0, "\xff\x01\x00\x00", 4);
	api.ioctl(g.vcpu, KVM_SET_LAPIC, &lapic);
	equals(wrmsr(&g, ICR, 0x44051), 0, "ICR: vector 51h to itself");
	equals(wait_interrupt(&g), 0x51, "arrives");
	api.ioctl(g.vcpu, KVM_GET_LAPIC, &lapic);
	equals(lapic.regs[0x120], 0, "no other vector is in service");
	tap_ok(lapic.regs[0x122] & 2, "it is in service");
	equals(rdmsr(&g, EOI, &v), GP, "EOI cannot be read");
	equals(wrmsr(&g, EOI, 0), 0, "but written");
	api.ioctl(g.vcpu, KVM_GET_LAPIC, &lapic);
	tap_ok(!(lapic.regs[0x122] & 2), "it is over");
	memset(g.mem + ASSIST, 0xff, 8);
	equals(wrmsr(&g, VP_ASSIST_PAGE, ASSIST | 1), 0, "an assist page");
	tap_ok(reads(&g, VP_ASSIST_PAGE, ASSIST | 1), "is remembered");
	equals(get64(g.mem + ASSIST), 0xffffffff00000000, "and assists with no EOI");
	guest_done(&g);
}

/* What leaves to the client. */
static void events(void)
{
	struct kvm_regs regs;
	struct cpuid c;
	struct guest g;

	if (!hv_init(&g, NULL))
		return;
	equals(wrmsr(&g, RESET, 0), 0, "RESET of 0 is nothing");
	equals(wrmsr(&g, RESET, 1), 1000 + KVM_EXIT_SYSTEM_EVENT, "RESET of 1 exits");
	equals(g.run->system_event.type, KVM_SYSTEM_EVENT_RESET, "as a reset");
	equals(go_on(&g, &regs), 0, "the guest can go on");
	equals(wrmsr(&g, CRASH_P0 + 4, 0x1234), 0, "a crash parameter");
	tap_ok(reads(&g, CRASH_P0 + 4, 0x1234), "is what was written");
	equals(set_msr(g.vcpu, CRASH_CTL, ~0ULL), 1, "the client allows crashes to be told");
	tap_ok(reads(&g, CRASH_CTL, 1ULL << 63), "the guest sees that");
	equals(wrmsr(&g, CRASH_CTL, 1ULL << 63), 1000 + KVM_EXIT_SYSTEM_EVENT, "a crash exits");
	equals(g.run->system_event.type, KVM_SYSTEM_EVENT_CRASH, "as such");
	equals(go_on(&g, &regs), 0, "the guest can go on");
	equals(wrmsr(&g, EMULATION_STATUS, 1), GP, "the emulation status can only be cleared");
	equals(wrmsr(&g, EMULATION_STATUS, 0), 0, "which is done");
	equals(wrmsr(&g, SYNDBG_STATUS, 7), 0, "the debugger's status");
	equals(wrmsr(&g, SYNDBG_PENDING, 0x5000), 1000 + KVM_EXIT_HYPERV, "its pending page exits");
	tap_ok(g.run->hyperv.type == KVM_EXIT_HYPERV_SYNDBG && g.run->hyperv.u.syndbg.msr == SYNDBG_PENDING &&
	       g.run->hyperv.u.syndbg.pending_page == 0x5000, "with all that the client needs");
	equals(go_on(&g, &regs), 0, "the guest goes on");
	equals(wrmsr(&g, SYNDBG_CONTROL, 1), 1000 + KVM_EXIT_HYPERV, "so does its control");
	g.run->hyperv.u.syndbg.status = 0x77;
	equals(go_on(&g, &regs), 0, "the guest goes on");
	tap_ok(reads(&g, SYNDBG_STATUS, 0x77), "and sees the status that the client gave");
	guest_done(&g);

	if (!get_cpuid(&c))
		return;
	leaf(&c, 0x40000082)->eax = 0;
	if (!hv_init(&g, &c))
		return;
	equals(wrmsr(&g, SYNDBG_STATUS, 7), GP, "without its leaf there is no debugger");
	guest_done(&g);
}

/* What each MSR of the list has can be read by the client, and written back. */
static void saved(void)
{
	struct {
		struct kvm_msr_list head;
		uint32_t index[1000];
	} list = { .head.nmsrs = 1000 };
	struct guest a, b;
	unsigned i, n = 0, bad = 0;
	uint64_t v, w;

	if (!hv_init(&a, NULL) || !hv_init(&b, NULL))
		return;
	accepts(enable(a.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), "a SynIC in one machine");
	accepts(enable(b.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), "and in the other");
	wrmsr(&a, GUEST_OS_ID, OS_ID);
	wrmsr(&a, HYPERCALL, HCALL_PAGE | 1);
	wrmsr(&a, SINT(3), 0x30053);
	wrmsr(&a, STIMER_CONFIG(2), 0x30008);
	wrmsr(&a, VP_ASSIST_PAGE, ASSIST);
	wrmsr(&a, CRASH_P0, 5);
	wrmsr(&a, REENLIGHTENMENT, 0x10040);
	accepts(api.ioctl(api_system(), KVM_GET_MSR_INDEX_LIST, &list), "the MSRs to be saved");
	for (i = 0; i < list.head.nmsrs; i++) {
		uint32_t index = list.index[i];

		if (index < 0x40000000 || index > 0x40000fff)
			continue;
		n++;
		if (get_msr(a.vcpu, index, &v) != 1 || set_msr(b.vcpu, index, v) != 1 || get_msr(b.vcpu, index, &w) != 1 ||
		    (v != w && index != VP_RUNTIME && index != TIME_REF_COUNT)) {
			tap_diag("MSR %#x: %#llx", index, (unsigned long long)v);
			bad++;
		}
	}
	tap_ok(n >= 15 && !bad, "%u MSRs of Hyper-V's are among them and move", n);
	equals(msr(&b, GUEST_OS_ID), OS_ID, "the guest's identity has arrived");
	equals(set_msr(b.vcpu, SINT(3), 0x30053), 1, "what is not in the list can be set too");
	equals(msr(&b, SINT(3)), 0x30053, "and is there");
	guest_done(&a);
	guest_done(&b);
}

static void reference_time(void)
{
	struct kvm_clock_data clock = { 0 };
	uint64_t t1, t2, offset, scale, tsc;
	uint32_t sequence;
	struct kvm_regs regs = { 0 };
	struct guest g;

	if (!hv_init(&g, NULL))
		return;
	equals(rdmsr(&g, TIME_REF_COUNT, &t1), 0, "the reference time");
	equals(rdmsr(&g, TIME_REF_COUNT, &t2), 0, "and again");
	tap_ok(t2 > t1, "goes on: %llu, %llu", (unsigned long long)t1, (unsigned long long)t2);
	equals(wrmsr(&g, TIME_REF_COUNT, 1), GP, "a guest cannot set it");
	equals(set_msr(g.vcpu, TIME_REF_COUNT, 1), 1, "from the client it is ignored");
	clock.clock = 5000000000ULL;
	accepts(api.ioctl(g.vm, KVM_SET_CLOCK, &clock), "KVM_SET_CLOCK to 5 s");
	rdmsr(&g, TIME_REF_COUNT, &t1);
	tap_ok(t1 >= 50000000 && t1 < 50000000 + 600000000ULL, "moves it there: %llu", (unsigned long long)t1);
	memset(g.mem + TSC_PAGE, 0, 24);
	equals(wrmsr(&g, REFERENCE_TSC, TSC_PAGE), 0, "a TSC page that is switched off");
	equals(get64(g.mem + TSC_PAGE) | get64(g.mem + TSC_PAGE + 8), 0, "is left alone");
	equals(wrmsr(&g, REFERENCE_TSC, TSC_PAGE | 1), 0, "one that is on");
	memcpy(&sequence, g.mem + TSC_PAGE, 4);
	if (!sequence) {
		/* Where the host's TSC is no clock, or not the same on all processors, the MSR is what guests read */
		tap_skip("the host's TSC is no clock", "its sequence is not 0");
		guest_done(&g);
		return;
	}
	tap_ok(sequence, "its sequence is not 0");
	scale = get64(g.mem + TSC_PAGE + 8);
	offset = get64(g.mem + TSC_PAGE + 16);
	/* RDTSC, then the MSR: both in one piece of code */
	regs.rcx = TIME_REF_COUNT;
	equals(run_code(&g, "\x0f\x31\x89\xc6\x89\xd7\x0f\x32", 8, &regs), 0, "the TSC and the MSR are read"); /* to esi, edi */
	tsc = regs.rdi << 32 | (uint32_t)regs.rsi;
	t1 = (uint64_t)((unsigned __int128)tsc * scale >> 64) + offset;
	t2 = regs.rdx << 32 | (uint32_t)regs.rax;
	tap_ok(t2 >= t1 && t2 - t1 < 50000000, "what the page makes of the TSC is the MSR's time: %llu, %llu", (unsigned long long)t1,
	       (unsigned long long)t2);
	clock.clock = 7000000000000ULL;
	api.ioctl(g.vm, KVM_SET_CLOCK, &clock);
	rdmsr(&g, TIME_REF_COUNT, &t1);
	tap_ok(t1 >= 70000000000ULL && t1 < 70600000000ULL, "KVM_SET_CLOCK moves the MSR");
	tap_ok(get64(g.mem + TSC_PAGE + 16) != offset, "and the page");
	tap_ok(memcmp(&sequence, g.mem + TSC_PAGE, 4), "whose sequence changes");
	/* A guest whose TSC is emulated after a migration has its page left alone */
	wrmsr(&g, REENLIGHTENMENT, 0x100ff);
	wrmsr(&g, TSC_EMULATION, 1);
	offset = get64(g.mem + TSC_PAGE + 16);
	clock.clock = 1000000000ULL;
	api.ioctl(g.vm, KVM_SET_CLOCK, &clock);
	rdmsr(&g, TIME_REF_COUNT, &t1);
	equals(get64(g.mem + TSC_PAGE + 16), offset, "while the guest's TSC is emulated the page stays");
	tap_ok(t1 >= 70000000000ULL, "and the MSR goes with it");
	equals(wrmsr(&g, TSC_EMULATION, 0), 0, "it is over");
	wrmsr(&g, REFERENCE_TSC, 0);
	memset(g.mem + TSC_PAGE, 0, 24);
	api.ioctl(g.vm, KVM_SET_CLOCK, &clock);
	rdmsr(&g, TIME_REF_COUNT, &t1);
	equals(get64(g.mem + TSC_PAGE) | get64(g.mem + TSC_PAGE + 8) | get64(g.mem + TSC_PAGE + 16), 0, "switched off it is left alone");
	guest_done(&g);
}

/* Result of the hypercall, -vector, or what run_code() gave. */
static int64_t hypercall(struct guest *g, uint64_t control, uint64_t input, uint64_t output)
{
	struct kvm_regs regs = { .rcx = control, .rdx = input, .r8 = output, .rax = ~0ULL };
	int r = run_code(g, g->mem + HCALL_PAGE, 3, &regs);

	return !r ? (int64_t)regs.rax : r < 256 ? -r : r;
}

static bool hypercalls_on(struct guest *g)
{
	return equals(wrmsr(g, GUEST_OS_ID, OS_ID), 0, "an identity") &&
	       equals(wrmsr(g, HYPERCALL, HCALL_PAGE | 1), 0, "a hypercall page") &&
	       /* Linux puts something before it when it serves Xen too */
	       (g->mem[HCALL_PAGE] == 0x0f || (memmove(g->mem + HCALL_PAGE, g->mem + HCALL_PAGE + 5, 4), true));
}

static void calls(void)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
	struct cpuid c;
	struct guest g;
	int r;

	if (!hv_init(&g, NULL) || !hypercalls_on(&g))
		return;
	equals(hypercall(&g, 0xbeef, 0, 0), 2, "an unknown code");
	equals(hypercall(&g, 2 | 1ULL << 63, INPUT, 0), 3, "a reserved bit of the control word");
	equals(hypercall(&g, 8, 0, 0), 0, "a long spin");
	equals(hypercall(&g, 8 | 1ULL << 32, 0, 0), 3, "with a repetition is refused");
	memset(g.mem + INPUT, 0, 4096);
	equals(hypercall(&g, 2, INPUT, 0), 0, "a flush of no processor");
	if (!api.plain) /* Linux takes it */
		equals(hypercall(&g, 2, INPUT + 1, 0), 4, "input that is not aligned");
	equals(hypercall(&g, 2, 0x10000000, 0), 3, "or not there");
	equals(hypercall(&g, 2 | 1ULL << 32, INPUT, 0), 3, "a flush of a space has no repetitions");
	equals(hypercall(&g, 3, INPUT, 0), 3, "one of a list has some");
	put64(g.mem + INPUT + 16, 1);
	equals(hypercall(&g, 2, INPUT, 0), 0, "a flush of this processor");
	put64(g.mem + INPUT + 8, 1);
	equals(hypercall(&g, 3 | 7ULL << 32, INPUT, 0), 7LL << 32, "a list of seven for all");
	memset(g.mem + INPUT, 0, 4096);
	put64(g.mem + INPUT + 24, 1); /* bank 0 is there */
	put64(g.mem + INPUT + 32, 1);
	equals(hypercall(&g, 0x13 | 1ULL << 17, INPUT, 0), 0, "a set of processors");
	equals(hypercall(&g, 0x13, INPUT, 0), 3, "whose banks are not counted in the control word is refused");
	put64(g.mem + INPUT + 16, 1);
	put64(g.mem + INPUT + 24, 0);
	equals(hypercall(&g, 0x14 | 3ULL << 32, INPUT, 0), 3LL << 32, "all, and a list");
	put64(g.mem + INPUT + 16, 2);
	if (!api.plain) /* to Linux that is all */
		equals(hypercall(&g, 0x13, INPUT, 0), 3, "an unknown format");
	/* Fast: address space, flags, and XMM0 with the processors */
	api.ioctl(g.vcpu, KVM_GET_FPU, &fpu);
	memset(fpu.xmm, 0, sizeof(fpu.xmm));
	api.ioctl(g.vcpu, KVM_SET_FPU, &fpu);
	equals(hypercall(&g, 2 | FAST, 0, 1), 0, "a fast flush");
	equals(hypercall(&g, 0x0b | FAST, 0xf, 1), 3, "an IPI of vector 15");
	equals(hypercall(&g, 0x0b | FAST, 0x100, 1), 3, "or 256");
	equals(hypercall(&g, 0x0b | FAST, 0x52, 2), 0, "to a processor that is not there");
	equals(hypercall(&g, 0x0b | FAST, 0x52, 1), 0, "an IPI");
	/* From level 3; the handler has its stack from the TSS */
	api.ioctl(g.vcpu, KVM_GET_SREGS, &sregs);
	put64(g.mem + TSS + 4, STACK);
	sregs.tr = (struct kvm_segment){ .base = TSS, .limit = 0x67, .selector = 0x20, .type = 11, .present = 1 };
	sregs.cs.dpl = sregs.ss.dpl = 3;
	sregs.cs.selector |= 3;
	sregs.ss.selector |= 3;
	put64(g.mem + TABLES, get64(g.mem + TABLES) | 4);
	put64(g.mem + TABLES + 0x1000, get64(g.mem + TABLES + 0x1000) | 4);
	put64(g.mem + TABLES + 0x2000, get64(g.mem + TABLES + 0x2000) | 4);
	api.ioctl(g.vcpu, KVM_SET_SREGS, &sregs);
	equals(hypercall(&g, 8, 0, 0), -UD, "for a program it is #UD");
	set_mode(g.vcpu, 64);
	/* Messages */
	equals(hypercall(&g, 0x5c, INPUT, 0), 3, "a message without a SynIC");
	accepts(enable(g.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), "a SynIC");
	equals(hypercall(&g, 0x5c, INPUT, 0x777), 1000 + KVM_EXIT_HYPERV, "with one exits");
	tap_ok(g.run->hyperv.type == KVM_EXIT_HYPERV_HCALL && g.run->hyperv.u.hcall.input == 0x5c &&
	       g.run->hyperv.u.hcall.params[0] == INPUT && g.run->hyperv.u.hcall.params[1] == 0x777, "with what the guest gave");
	g.run->hyperv.u.hcall.result = 0x13;
	r = go_on(&g, &regs);
	tap_ok(!r && regs.rax == 0x13, "the client's result arrives");
	equals(hypercall(&g, 0x6b, 0, 0), 8, "the debugger's session, not by hypercall");
	equals(wrmsr(&g, SYNDBG_OPTIONS, 4), 0, "unless it is allowed");
	equals(hypercall(&g, 0x6b, 0, 0), 1000 + KVM_EXIT_HYPERV, "then it is the client's");
	g.run->hyperv.u.hcall.result = 0;
	go_on(&g, &regs);
	guest_done(&g);

	/* As the client wants it: only what CPUID shows */
	if (!get_cpuid(&c))
		return;
	leaf(&c, 0x40000003)->ebx = 0;
	leaf(&c, 0x40000003)->edx = 0;
	leaf(&c, 0x40000004)->eax = 1 << 2;
	leaf(&c, 0x40000004)->ebx = 0xffffffff;
	leaf(&c, 0x40000082)->eax = 0;
	if (!hv_init(&g, &c))
		return;
	accepts(enable(g.vcpu, KVM_CAP_HYPERV_ENFORCE_CPUID, 1), "KVM_CAP_HYPERV_ENFORCE_CPUID");
	if (!hypercalls_on(&g))
		return;
	memset(g.mem + INPUT, 0, 4096);
	equals(hypercall(&g, 0x5c, INPUT, 0), 6, "messages are denied");
	equals(hypercall(&g, 0x5d, INPUT, 0), 6, "events");
	equals(hypercall(&g, 0x0b, INPUT, 0), 6, "IPIs");
	equals(hypercall(&g, 0x15, INPUT, 0), 6, "to sets too");
	equals(hypercall(&g, 8, 0, 0), 6, "long spins");
	equals(hypercall(&g, 0x13, INPUT, 0), 6, "flushes of sets");
	equals(hypercall(&g, 2, INPUT, 0), 0, "not of masks");
	equals(hypercall(&g, 2 | FAST, 0, 0), -UD, "input in XMM0 is #UD");
	equals(hypercall(&g, 0x6b, 0, 0), 2, "there is no debugger");
	guest_done(&g);
}

/* Pairs of 32 bits. */
static void calls32(void)
{
	struct kvm_regs regs = { .rax = 0x0b | (uint32_t)FAST, .rdx = 0, .rbx = 0, .rcx = 0xf, .rdi = 0, .rsi = 1 };
	struct guest g;

	if (!hv_init(&g, NULL) || !hypercalls_on(&g))
		return;
	set_mode(g.vcpu, 32);
	equals(run_code(&g, g.mem + HCALL_PAGE, 3, &regs), 0, "a hypercall of 32-bit code");
	tap_ok(regs.rax == 3 && regs.rdx == 0, "an IPI of vector 15 is refused in EDX:EAX");
	regs = (struct kvm_regs){ .rax = 3, .rdx = 2, .rbx = 0, .rcx = INPUT };
	memset(g.mem + INPUT, 0, 4096);
	equals(run_code(&g, g.mem + HCALL_PAGE, 3, &regs), 0, "a flush of a list");
	tap_ok(regs.rax == 0 && regs.rdx == 2, "tells in EDX how many are done");
	guest_done(&g);
}

static void signals(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct kvm_hyperv_eventfd e = { .conn_id = 0x123, .fd = fd };
	struct kvm_regs regs;
	uint64_t count = 0;
	struct guest g;

	if (!hv_init(&g, NULL) || !hypercalls_on(&g))
		return;
	accepts(enable(g.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), "a SynIC");
	accepts(api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e), "an eventfd for connection 123");
	refuses(EEXIST, api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e), "the same again is refused");
	e.conn_id = 1 << 24;
	refuses(EINVAL, api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e), "a connection beyond 24 bits is refused");
	e.conn_id = 0x124;
	e.flags = 2;
	refuses(EINVAL, api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e), "unknown flags are refused");
	e.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
	refuses(ENOENT, api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e), "taking away what is not there is refused");
	e.flags = 0;
	e.fd = 1000000;
	refuses(EBADF, api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e), "a descriptor that is not there is refused");
	equals(hypercall(&g, 0x5d | FAST, 0x123, 0), 0, "the guest signals it");
	tap_ok(read(fd, &count, 8) == 8 && count == 1, "once");
	memset(g.mem + INPUT, 0, 16);
	put64(g.mem + INPUT, 0x123);
	equals(hypercall(&g, 0x5d, INPUT, 0), 0, "and with its input in memory");
	tap_ok(read(fd, &count, 8) == 8 && count == 1, "once");
	equals(hypercall(&g, 0x5d | FAST, 1ULL << 48 | 0x123, 0), 3, "reserved bits are refused");
	equals(hypercall(&g, 0x5d | FAST, 0x124, 0), 1000 + KVM_EXIT_HYPERV, "another connection is the client's");
	g.run->hyperv.u.hcall.result = 0x12;
	equals(go_on(&g, &regs), 0, "who answers");
	equals(hypercall(&g, 0x5d | FAST, 5ULL << 32 | 0x123, 0), 1000 + KVM_EXIT_HYPERV, "so is another flag than 0");
	g.run->hyperv.u.hcall.result = 0;
	go_on(&g, &regs);
	e = (struct kvm_hyperv_eventfd){ .conn_id = 0x123, .flags = KVM_HYPERV_EVENTFD_DEASSIGN };
	accepts(api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e), "it is taken away");
	equals(hypercall(&g, 0x5d | FAST, 0x123, 0), 1000 + KVM_EXIT_HYPERV, "then it is the client's too");
	guest_done(&g);
	close(fd);
}

static void lapic_on(struct guest *g)
{
	struct kvm_lapic_state lapic;

	api.ioctl(g->vcpu, KVM_GET_LAPIC, &lapic);
	memcpy(lapic.regs + 0xf0, "\xff\x01\x00\x00", 4);
	api.ioctl(g->vcpu, KVM_SET_LAPIC, &lapic);
}

static int in_service(struct guest *g)
{
	struct kvm_lapic_state lapic;
	int i;

	api.ioctl(g->vcpu, KVM_GET_LAPIC, &lapic);
	for (i = 255; i >= 0; i--)
		if (lapic.regs[0x100 + i / 32 * 16 + i % 32 / 8] & 1 << i % 8)
			return i;
	return -1;
}

static void sources(void)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} route = { { 1, 0 }, { .gsi = 30, .type = KVM_IRQ_ROUTING_HV_SINT, .u.hv_sint = { .vcpu = 0, .sint = 4 } } };
	struct kvm_irqfd irqfd = { .fd = eventfd(0, EFD_CLOEXEC), .gsi = 30, .flags = KVM_IRQFD_FLAG_RESAMPLE,
				   .resamplefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	struct kvm_irq_level level = { .irq = 30, .level = 1 };
	uint64_t one = 1, count = 0, v;
	struct kvm_regs regs;
	struct guest g;

	if (!hv_init(&g, NULL))
		return;
	lapic_on(&g);
	equals(rdmsr(&g, SCONTROL, &v), GP, "the SynIC is not there");
	equals(set_msr(g.vcpu, SCONTROL, 0), 1, "what it is after power-up the client may set");
	equals(set_msr(g.vcpu, SCONTROL, 1), 0, "but no more");
	refuses(EINVAL, enable(g.vcpu, KVM_CAP_HYPERV_SYNIC2, 1), "an argument is refused");
	accepts(enable(g.vcpu, KVM_CAP_HYPERV_SYNIC, 0), "until the client enables it");
	tap_ok(reads(&g, SVERSION, 1), "version 1");
	tap_ok(reads(&g, SINT(4), 0x10000), "the sources are masked");
	equals(wrmsr(&g, SCONTROL, 1), 1000 + KVM_EXIT_HYPERV, "SCONTROL exits");
	tap_ok(g.run->hyperv.type == KVM_EXIT_HYPERV_SYNIC && g.run->hyperv.u.synic.msr == SCONTROL && g.run->hyperv.u.synic.control == 1,
	       "with the new value");
	equals(go_on(&g, &regs), 0, "the guest goes on");
	memset(g.mem + MESSAGES, 0xff, 4096);
	equals(wrmsr(&g, SIMP, MESSAGES | 1), 1000 + KVM_EXIT_HYPERV, "SIMP exits");
	equals(g.run->hyperv.u.synic.msg_page, MESSAGES | 1, "with the new value");
	equals(go_on(&g, &regs), 0, "the guest goes on");
	tap_ok(!get64(g.mem + MESSAGES) && !get64(g.mem + MESSAGES + 4088), "its page was cleared");
	equals(wrmsr(&g, SIEFP, EVENTS | 1), 1000 + KVM_EXIT_HYPERV, "SIEFP exits");
	equals(g.run->hyperv.u.synic.evt_page, EVENTS | 1, "with the new value");
	equals(go_on(&g, &regs), 0, "the guest goes on");
	equals(wrmsr(&g, SIMP, 0x10000000 | 1), GP, "a page where there is no memory is #GP");
	equals(wrmsr(&g, SINT(4), 15), GP, "vector 15 is #GP");
	equals(wrmsr(&g, SINT(4), 0x10000 | 15), 0, "unless it is masked");
	equals(wrmsr(&g, SINT(4), 0x61), 0, "vector 61h");

	route.e.u.hv_sint.sint = 16;
	accepts(api.ioctl(g.vm, KVM_SET_GSI_ROUTING, &route), "a line leads to a source that is not there");
	equals(api.ioctl(g.vm, KVM_IRQ_LINE_STATUS, &level), 0, "it is raised");
	equals((int)level.status, -1, "and that reaches nobody");
	route.e.u.hv_sint.sint = 4;
	accepts(api.ioctl(g.vm, KVM_SET_GSI_ROUTING, &route), "a line leads to the source");
	accepts(api.ioctl(g.vm, KVM_IRQFD, &irqfd), "an irqfd moves it");
	tap_ok(write(irqfd.fd, &one, 8) == 8, "it is raised");
	equals(wait_interrupt(&g), 0x61, "the interrupt arrives");
	equals(in_service(&g), 0x61, "and is in service");
	tap_ok(read(irqfd.resamplefd, &count, 8) < 0, "the client does not hear yet");
	equals(wrmsr(&g, EOI, 0), 0, "EOI");
	tap_ok(read(irqfd.resamplefd, &count, 8) == 8 && count == 1, "now it does");
	equals(wrmsr(&g, SINT(4), 0x20062), 0, "vector 62h, which needs no EOI");
	tap_ok(write(irqfd.fd, &one, 8) == 8, "it is raised");
	equals(wait_interrupt(&g), 0x62, "the interrupt arrives");
	equals(in_service(&g), -1, "and is not in service");
	tap_ok(read(irqfd.resamplefd, &count, 8) < 0, "the client does not hear of it");
	equals(wrmsr(&g, EOM, 0), 0, "before EOM");
	tap_ok(read(irqfd.resamplefd, &count, 8) == 8, "which is an acknowledgement too");
	guest_done(&g);
	close(irqfd.fd);
	close(irqfd.resamplefd);
}

static uint64_t now(struct guest *g)
{
	uint64_t v = 0;

	rdmsr(g, TIME_REF_COUNT, &v);
	return v;
}

static void timers(void)
{
	uint8_t *slot;
	struct guest g;
	uint64_t v, t;
	uint32_t type;
	unsigned i;

	if (!hv_init(&g, NULL))
		return;
	lapic_on(&g);
	slot = g.mem + MESSAGES + 2 * 256;
	equals(wrmsr(&g, STIMER_CONFIG(0), 0x20000), GP, "without a SynIC there are no timers");
	accepts(enable(g.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), "a SynIC");
	/* Direct, once */
	equals(wrmsr(&g, STIMER_CONFIG(0), 0x1000 | 0x71 << 4 | 1), 0, "a timer with vector 71h");
	tap_ok(reads(&g, STIMER_CONFIG(0), 0x1711), "is enabled");
	t = now(&g) + 100000;
	equals(wrmsr(&g, STIMER_COUNT(0), t), 0, "for ten milliseconds from now");
	equals(wait_interrupt(&g), 0x71, "its interrupt comes");
	tap_ok(now(&g) >= t, "not before the time");
	tap_ok(reads(&g, STIMER_CONFIG(0), 0x1710), "the timer is off then");
	wrmsr(&g, EOI, 0);
	/* Direct, again and again, enabled by the count */
	equals(wrmsr(&g, STIMER_CONFIG(0), 0x1000 | 0x72 << 4 | 8 | 2), 0, "a periodic one that enables itself");
	equals(wrmsr(&g, STIMER_COUNT(0), 20000), 0, "every two milliseconds");
	for (i = 0; i < 3; i++) {
		equals(wait_interrupt(&g), 0x72, "its interrupt comes");
		wrmsr(&g, EOI, 0);
	}
	tap_ok(reads(&g, STIMER_CONFIG(0), 0x172b), "and it stays enabled");
	equals(wrmsr(&g, STIMER_COUNT(0), 0), 0, "a count of 0");
	tap_ok(reads(&g, STIMER_CONFIG(0), 0x172a), "ends it");
	wrmsr(&g, STIMER_CONFIG(3), 0x1000 | 0x74 << 4 | 8 | 2);
	equals(wrmsr(&g, STIMER_COUNT(3), ~0ULL), 0, "a period without end");
	/* What came before that may still be in the APIC */
	while (in_service(&g) >= 0)
		wrmsr(&g, EOI, 0);
	/* By message */
	set_msr(g.vcpu, SCONTROL, 1);
	set_msr(g.vcpu, SIMP, MESSAGES | 1);
	wrmsr(&g, SINT(2), 0x73);
	equals(wrmsr(&g, STIMER_CONFIG(1), 1), 0, "a timer for source 0");
	rdmsr(&g, STIMER_CONFIG(1), &v);
	tap_ok(!v || (api.plain && v == 1), "is not enabled"); /* Linux: unless it was before */
	wrmsr(&g, STIMER_CONFIG(1), 2 << 16 | 1);
	t = now(&g) - 1;
	equals(wrmsr(&g, STIMER_COUNT(1), t), 0, "one for source 2, at once");
	do {
		i = wait_interrupt(&g);
		if (i == 0x72)
			wrmsr(&g, EOI, 0);
	} while (i == 0x72);
	equals(i, 0x73, "its interrupt comes");
	memcpy(&type, slot, 4);
	equals(type, 0x80000010, "with a message");
	tap_ok(slot[4] == 24 && slot[16] == 1 && get64(slot + 24) == t && get64(slot + 32) >= t, "of which timer and when");
	equals(slot[5] & 1, 0, "no other waits");
	wrmsr(&g, EOI, 0);
	/* The slot is not free */
	wrmsr(&g, STIMER_CONFIG(1), 2 << 16 | 1);
	t = now(&g);
	equals(wrmsr(&g, STIMER_COUNT(1), t), 0, "the next while the message is still there");
	while (!(__atomic_load_n(&slot[5], __ATOMIC_ACQUIRE) & 1) && now(&g) < t + 600000000)
		;
	equals(slot[5] & 1, 1, "is told by its flag");
	tap_ok(get64(slot + 24) != t, "the message is the old one");
	memset(slot, 0, 8);
	equals(wrmsr(&g, EOM, 0), 0, "the guest is through with it");
	equals(wait_interrupt(&g), 0x73, "the interrupt comes");
	equals(get64(slot + 24), t, "with the new one");
	wrmsr(&g, EOI, 0);
	guest_done(&g);
}

/* ---- two processors ------------------------------------------------------------------------------------------- */

struct second {
	struct guest *g;
	int vcpu;
	struct kvm_run *run;
	int result;
};

/* Runs until it says something by a port. */
static void *run_second(void *arg)
{
	struct second *s = arg;
	int r;

	do
		r = api.ioctl(s->vcpu, KVM_RUN, 0UL);
	while (r < 0 && (errno == EINTR || errno == EAGAIN));
	r = r < 0 ? errno + 2000 : s->run->exit_reason == KVM_EXIT_IO ? *((uint8_t *)s->run + s->run->io.data_offset) :
								   1000 + (int)s->run->exit_reason;
	__atomic_store_n(&s->result, r, __ATOMIC_RELEASE);
	return NULL;
}

static bool start_second(struct second *s, struct guest *g, const void *code, size_t len)
{
	struct kvm_mp_state mp = { KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = { .rip = 0x2000, .rsp = STACK - 0x800, .rflags = 0x202 };
	struct kvm_lapic_state lapic;
	struct cpuid c;

	if (!get_cpuid(&c))
		return false;
	s->g = g;
	s->vcpu = g->extra[0] = (int)accepts(api.ioctl(g->vm, KVM_CREATE_VCPU, 1UL), "a second vCPU");
	s->run = api.mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, s->vcpu, 0);
	set_cpuid(s->vcpu, &c);
	set_mode(s->vcpu, 64);
	memcpy(g->mem + 0x2000, code, len);
	api.ioctl(s->vcpu, KVM_SET_REGS, &regs);
	api.ioctl(s->vcpu, KVM_SET_MP_STATE, &mp);
	api.ioctl(s->vcpu, KVM_GET_LAPIC, &lapic);
	memcpy(lapic.regs + 0xf0, "\xff\x01\x00\x00", 4);
	api.ioctl(s->vcpu, KVM_SET_LAPIC, &lapic);
	return s->run != MAP_FAILED;
}

static void ipis(void)
{
	static const uint8_t idle[] = { 0xf4, 0xeb, 0xfd }; /* hlt, again */
	struct kvm_regs regs = { .rip = 0x2000, .rsp = STACK - 0x800, .rflags = 0x202 };
	struct second s = { 0 };
	pthread_t thread;
	struct guest g;
	uint64_t v;

	if (!hv_init(&g, NULL) || !start_second(&s, &g, idle, sizeof(idle)) || !hypercalls_on(&g))
		return;
	equals(get_msr(s.vcpu, VP_INDEX, &v), 1, "its index");
	equals(v, 1, "is 1");
	pthread_create(&thread, NULL, run_second, &s);
	equals(hypercall(&g, 0x0b | FAST, 0x81, 2), 0, "an IPI to processor 1");
	pthread_join(thread, NULL);
	equals(s.result, 0x81, "arrives");
	set_msr(s.vcpu, VP_INDEX, 70);
	set_msr(s.vcpu, EOI, 0);
	api.ioctl(s.vcpu, KVM_SET_REGS, &regs);
	pthread_create(&thread, NULL, run_second, &s);
	memset(g.mem + INPUT, 0, 64);
	put64(g.mem + INPUT, 0x82);
	put64(g.mem + INPUT + 16, 3); /* banks 0 and 1 */
	put64(g.mem + INPUT + 32, 1 << 6);
	equals(hypercall(&g, 0x15 | 2ULL << 17, INPUT, 0), 0, "one to processor 70 of a set");
	pthread_join(thread, NULL);
	equals(s.result, 0x82, "arrives");
	guest_done(&g);
}

/*
 * The second processor reads through a page and looks at a flag; the first changes the page's table entry, has the TLBs flushed, and raises
 * the flag: what is read behind that is the new page's.
 */
static void flushes(void)
{
	static const uint8_t code[] = {
		0x48, 0x8b, 0x0c, 0x25, 0x00, 0x00, 0x20, 0x00, /* again: mov rcx, [0x200000] */
		0xff, 0x04, 0x25, 0x08, 0x00, 0x01, 0x00,	/* inc dword [0x10008]: it runs */
		0x83, 0x3c, 0x25, 0x00, 0x00, 0x01, 0x00, 0x00, /* cmp dword [0x10000], 0 */
		0x74, 0xe7,					/* je again */
		0x48, 0x8b, 0x0c, 0x25, 0x00, 0x00, 0x20, 0x00, /* mov rcx, [0x200000] */
		0x88, 0xc8, 0xe6, 0x80,				/* mov al, cl; out 0x80, al */
	};
	/* Behind MOV [R9], R10, which changes the entry, and the hypercall: mov dword [0x10000], 1 */
	static const uint8_t raise[] = { 0xc7, 0x04, 0x25, 0x00, 0x00, 0x01, 0x00, 0x01, 0x00, 0x00, 0x00 };
	uint32_t *runs;
	uint8_t first[64];
	struct second s = { 0 };
	struct kvm_regs regs;
	pthread_t thread;
	struct guest g;
	int wrong = 0, round;

	if (!hv_init(&g, NULL) || !start_second(&s, &g, code, sizeof(code)) || !hypercalls_on(&g))
		return;
	runs = (uint32_t *)(g.mem + INPUT + 8);
	put64(g.mem + TABLES + 0x2008, 0xa000 | 3); /* 2 MiB on: a table at A000 */
	g.mem[0x20000] = 0x11;
	g.mem[0x21000] = 0x22;
	memcpy(first, "\x4d\x89\x11", 3);
	memcpy(first + 3, g.mem + HCALL_PAGE, 3);
	memcpy(first + 6, raise, sizeof(raise));
	for (round = 0; round < 20; round++) {
		put64(g.mem + 0xa000, 0x20003);
		memset(g.mem + INPUT, 0, 16);
		regs = (struct kvm_regs){ .rip = 0x2000, .rsp = STACK - 0x800, .rflags = 2 };
		api.ioctl(s.vcpu, KVM_SET_REGS, &regs);
		pthread_create(&thread, NULL, run_second, &s);
		while (__atomic_load_n(runs, __ATOMIC_ACQUIRE) < 1000)
			;
		/* Fast: this address space, all processors */
		regs = (struct kvm_regs){ .rcx = 2 | FAST, .rdx = TABLES, .r8 = 1, .r9 = 0xa000, .r10 = 0x21003 };
		if (run_code(&g, first, 6 + sizeof(raise), &regs) || regs.rax)
			wrong++;
		pthread_join(thread, NULL);
		if (s.result != 0x22)
			wrong++;
	}
	equals(wrong, 0, "twenty times the other processor sees the new page behind the flush");
	guest_done(&g);
}

/* What two processors and the client do at the same time: the processors wait for each other's flushes, but not for ever. */
static void together(void)
{
	static const uint8_t head[] = {
		0x41, 0xbc, 0xd0, 0x07, 0x00, 0x00,	    /* mov r12d, 2000 */
		0xb9, 0x20, 0x00, 0x00, 0x40, 0x0f, 0x32,   /* again: mov ecx, 0x40000020; rdmsr */
		0xb9, 0x5d, 0x00, 0x01, 0x00,		    /* mov ecx, 0x1005d: an event */
		0xba, 0x23, 0x01, 0x00, 0x00, 0x45, 0x31, 0xc0, /* mov edx, 0x123; xor r8d, r8d */
	}, middle[] = {
		0xb9, 0x02, 0x00, 0x01, 0x00,		    /* mov ecx, 0x10002: a flush */
		0x31, 0xd2, 0x41, 0xb8, 0x01, 0x00, 0x00, 0x00, /* xor edx, edx; mov r8d, 1 */
	}, end[] = { 0x41, 0xff, 0xcc, 0x75, (uint8_t)-44, 0xe6, 0x80 }; /* dec r12d; jnz again; out 0x80, al */
	struct kvm_hyperv_eventfd e = { .conn_id = 0x123 };
	struct kvm_clock_data clock = { 0 };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} route = { { 1, 0 }, { .gsi = 30, .type = KVM_IRQ_ROUTING_HV_SINT, .u.hv_sint = { .vcpu = 0, .sint = 4 } } };
	struct kvm_regs regs = { .rip = 0x2000, .rsp = STACK - 0x800, .rflags = 2 };
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), rounds = 0, bad = 0;
	uint8_t code[64], *at = code;
	struct second s = { 0 }, first;
	pthread_t threads[2];
	struct guest g;

	if (!hv_init(&g, NULL) || !start_second(&s, &g, "\xf4", 1) || !hypercalls_on(&g))
		return;
	wrmsr(&g, REFERENCE_TSC, TSC_PAGE | 1);
	memcpy(at, head, sizeof(head));
	memcpy(at += sizeof(head), g.mem + HCALL_PAGE, 3);
	memcpy(at += 3, middle, sizeof(middle));
	memcpy(at += sizeof(middle), g.mem + HCALL_PAGE, 3);
	memcpy(at += 3, end, sizeof(end));
	memcpy(g.mem + 0x2000, code, sizeof(code));
	first = (struct second){ .g = &g, .vcpu = g.vcpu, .run = g.run };
	e.fd = fd;
	api.ioctl(s.vcpu, KVM_SET_REGS, &regs);
	api.ioctl(g.vcpu, KVM_SET_REGS, &regs);
	s.result = first.result = -1;
	pthread_create(&threads[0], NULL, run_second, &first);
	pthread_create(&threads[1], NULL, run_second, &s);
	while (__atomic_load_n(&s.result, __ATOMIC_ACQUIRE) < 0 || __atomic_load_n(&first.result, __ATOMIC_ACQUIRE) < 0) {
		e.flags = 0;
		bad += api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e) != 0;
		clock.clock += 1000000;
		bad += api.ioctl(g.vm, KVM_SET_CLOCK, &clock) != 0;
		bad += api.ioctl(g.vm, KVM_SET_GSI_ROUTING, &route) != 0;
		e.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
		bad += api.ioctl(g.vm, KVM_HYPERV_EVENTFD, &e) != 0;
		rounds++;
	}
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	tap_ok(s.result < 256 && first.result < 256, "two processors read the time, signal events, and flush each other 2000 times: %d, %d",
	       s.result, first.result);
	equals(bad, 0, "while the client takes eventfds, the clock and routes away and back");
	tap_diag("%d times", rounds);
	guest_done(&g);
	close(fd);
}

const struct api_case api_cases[] = {
	{ "leaves", leaves },
	{ "identity", identity },
	{ "processor", processor },
	{ "events", events },
	{ "saved", saved },
	{ "time", reference_time },
	{ "calls", calls },
	{ "calls32", calls32 },
	{ "signals", signals },
	{ "sources", sources },
	{ "timers", timers },
	{ "ipis", ipis },
	{ "flushes", flushes },
	{ "together", together },
	{ NULL, NULL },
};
