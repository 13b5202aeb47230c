/* The system descriptor's ioctls. */
#include "tests/api/api.h"

static void version(void)
{
	equals(api.ioctl(api_system(), KVM_GET_API_VERSION, 0UL), 12, "the API version is 12");
	refuses(EINVAL, api.ioctl(api_system(), KVM_GET_API_VERSION, 1UL), "KVM_GET_API_VERSION takes no argument");
	accepts(api.ioctl(api_system(), KVM_GET_VCPU_MMAP_SIZE, 0UL) - 3 * 4096, "kvm_run, PIO data and the coalesced ring can be mapped");
	refuses(EINVAL, api.ioctl(api_system(), KVM_GET_VCPU_MMAP_SIZE, 1UL), "KVM_GET_VCPU_MMAP_SIZE takes no argument");
}

static void create_vm(void)
{
	int vm = (int)accepts(api.ioctl(api_system(), KVM_CREATE_VM, 0UL), "a VM is created");
	int other = (int)accepts(api.ioctl(api_system(), KVM_CREATE_VM, 0UL), "and another beside it");

	tap_ok(vm != other, "they have different descriptors");
	equals(fcntl(vm, F_GETFD), FD_CLOEXEC, "a VM's descriptor closes on exec");
	api.close(vm);
	api.close(other);
	refuses(EINVAL, api.ioctl(api_system(), KVM_CREATE_VM, 0x1234UL), "a VM of an unknown type is refused");
}

static void extensions(void)
{
	static const struct {
		int cap;
		const char *name;
	} caps[] = {
#define CAP(name) { KVM_CAP_##name, #name }
		CAP(IRQCHIP), CAP(HLT), CAP(USER_MEMORY), CAP(SET_TSS_ADDR), CAP(EXT_CPUID), CAP(CLOCKSOURCE), CAP(NR_VCPUS),
		CAP(NR_MEMSLOTS), CAP(MP_STATE), CAP(COALESCED_MMIO), CAP(SYNC_MMU), CAP(DESTROY_MEMORY_REGION_WORKS),
		CAP(USER_NMI), CAP(SET_GUEST_DEBUG), CAP(IRQ_ROUTING), CAP(IRQ_INJECT_STATUS), CAP(JOIN_MEMORY_REGIONS_WORKS),
		CAP(MCE), CAP(IRQFD), CAP(PIT2), CAP(SET_BOOT_CPU_ID), CAP(PIT_STATE2), CAP(IOEVENTFD),
		CAP(SET_IDENTITY_MAP_ADDR), CAP(ADJUST_CLOCK), CAP(INTERNAL_ERROR_DATA), CAP(VCPU_EVENTS),
		CAP(DEBUGREGS), CAP(X86_ROBUST_SINGLESTEP), CAP(ENABLE_CAP), CAP(XSAVE), CAP(XCRS), CAP(GET_TSC_KHZ),
		CAP(MAX_VCPUS), CAP(TSC_DEADLINE_TIMER), CAP(KVMCLOCK_CTRL), CAP(SIGNAL_MSI), CAP(READONLY_MEM),
		CAP(IRQFD_RESAMPLE), CAP(IOEVENTFD_NO_LENGTH), CAP(ENABLE_CAP_VM), CAP(CHECK_EXTENSION_VM),
		CAP(SPLIT_IRQCHIP), CAP(IOEVENTFD_ANY_LENGTH), CAP(MAX_VCPU_ID), CAP(X2APIC_API), CAP(IMMEDIATE_EXIT),
		CAP(GET_MSR_FEATURES), CAP(COALESCED_PIO), CAP(EXCEPTION_PAYLOAD), CAP(MANUAL_DIRTY_LOG_PROTECT2),
		CAP(X86_USER_SPACE_MSR), CAP(X86_MSR_FILTER), CAP(DIRTY_LOG_RING), CAP(SREGS2), CAP(BINARY_STATS_FD), CAP(XSAVE2),
		CAP(HALT_POLL), CAP(EXIT_ON_EMULATION_FAILURE), CAP(STEAL_TIME), CAP(SYS_ATTRIBUTES), CAP(IOAPIC_POLARITY_IGNORED),
	};
	unsigned i;
	int vm;

	for (i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		tap_ok(api.ioctl(api_system(), KVM_CHECK_EXTENSION, (unsigned long)caps[i].cap) > 0, "KVM_CAP_%s is there",
		       caps[i].name);
	equals(api.ioctl(api_system(), KVM_CHECK_EXTENSION, 0x7fffffffUL), 0, "an unknown extension is not");
	vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	equals(api.ioctl(vm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_NR_MEMSLOTS),
	       api.ioctl(api_system(), KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_NR_MEMSLOTS), "a VM answers as the system does");
	api.close(vm);
}

static void cpuid(void)
{
	enum { ROOM = 256 };
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + ROOM * sizeof(c->entries[0]));
	bool vendor = false;
	unsigned i;

	c->nent = ROOM;
	accepts(api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, c), "KVM_GET_SUPPORTED_CPUID answers");
	tap_ok(c->nent > 5 && c->nent < ROOM, "and says how many leaves there are");
	for (i = 0; i < c->nent; i++)
		vendor |= c->entries[i].function == 0 && c->entries[i].ebx;
	tap_ok(vendor, "leaf 0 is among them");
	c->nent = 1;
	refuses(E2BIG, api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, c), "too little room is refused");
	c->nent = 0;
	refuses(E2BIG, api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, c), "no room is refused");
	refuses(EFAULT, api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, NOWHERE), "KVM_GET_SUPPORTED_CPUID from nowhere is refused");
	c->nent = ROOM;
	accepts(api.ioctl(api_system(), KVM_GET_EMULATED_CPUID, c), "KVM_GET_EMULATED_CPUID answers");
	free(c);
}

static void msr_lists(void)
{
	static const struct {
		unsigned long cmd;
		const char *name;
	} lists[] = {
		{ KVM_GET_MSR_INDEX_LIST, "KVM_GET_MSR_INDEX_LIST" },
		{ KVM_GET_MSR_FEATURE_INDEX_LIST, "KVM_GET_MSR_FEATURE_INDEX_LIST" },
	};
	enum { ROOM = 4096 };
	unsigned i;

	for (i = 0; i < 2; i++) {
		struct kvm_msr_list *l = calloc(1, sizeof(*l) + ROOM * sizeof(l->indices[0]));

		l->nmsrs = 0;
		refuses(E2BIG, api.ioctl(api_system(), lists[i].cmd, l), "%s without room is refused", lists[i].name);
		if (tap_ok(l->nmsrs > 0 && l->nmsrs < ROOM, "and says how much it takes"))
			accepts(api.ioctl(api_system(), lists[i].cmd, l), "%s answers", lists[i].name);
		refuses(EFAULT, api.ioctl(api_system(), lists[i].cmd, NOWHERE), "%s to nowhere is refused", lists[i].name);
		free(l);
	}
}

static void unknown(void)
{
	struct kvm_regs regs;

	refuses(EINVAL, api.ioctl(api_system(), _IO(KVMIO, 0xf9), 0UL), "an unknown command is refused");
	refuses(EINVAL, api.ioctl(api_system(), KVM_RUN, 0UL), "KVM_RUN is a vCPU's");
	refuses(EINVAL, api.ioctl(api_system(), KVM_GET_REGS, &regs), "KVM_GET_REGS too");
}

static int make_and_close(void *arg, int round)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), vcpu;

	(void)arg, (void)round;
	if (vm < 0)
		return -1;
	vcpu = api.ioctl(vm, KVM_CREATE_VCPU, 0UL);
	/* Either order. */
	if (round & 1) {
		api.close(vcpu);
		return api.close(vm) || vcpu < 0;
	}
	api.close(vm);
	return vcpu < 0 || api.close(vcpu);
}

static void races(void)
{
	race("VMs are made and closed", 20, make_and_close, make_and_close, NULL);
}

const struct api_case api_cases[] = {
	{ "version", version },
	{ "create-vm", create_vm },
	{ "extensions", extensions },
	{ "cpuid", cpuid },
	{ "msr-lists", msr_lists },
	{ "unknown", unknown },
	{ "races", races },
	{ NULL, NULL },
};
