/*
 * What is x86's of a VM and of the system descriptor: ioctls of the interrupt chips, clock and MSRs, capabilities and what
 * is reported of them. A capability is in the table below when it works and nowhere else.
 */
#include <linux/kvm.h>

#include "core/vm.h"
#include "core/x86/clock.h"
#include "core/x86/cpuid.h"
#include "core/x86/fpu.h"
#include "core/x86/hypercall.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/irqchip.h"
#include "core/x86/msr.h"

#define SUPPORTED_QUIRKS                                                                                               \
	(KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_FIX_HYPERCALL_INSN |           \
	 KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)
#define MSR_REASONS (KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER)
#define X2APIC_API_VALID (KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
#define IDENTITY_MAP_DEFAULT 0xfffbc000ULL

static const struct {
	u32 cap;
	int value;
} caps[] = {
	{ KVM_CAP_IRQCHIP, 1 }, { KVM_CAP_HLT, 1 }, { KVM_CAP_SET_TSS_ADDR, 1 }, { KVM_CAP_SET_IDENTITY_MAP_ADDR, 1 },
	{ KVM_CAP_EXT_CPUID, 1 }, { KVM_CAP_EXT_EMUL_CPUID, 1 }, { KVM_CAP_CLOCKSOURCE, 1 }, { KVM_CAP_PIT, 1 },
	{ KVM_CAP_PIT2, 1 }, { KVM_CAP_PIT_STATE2, 1 }, { KVM_CAP_REINJECT_CONTROL, 1 }, { KVM_CAP_NOP_IO_DELAY, 1 },
	{ KVM_CAP_MP_STATE, 1 }, { KVM_CAP_USER_NMI, 1 }, { KVM_CAP_SET_GUEST_DEBUG, 1 },
	{ KVM_CAP_GUEST_DEBUG_HW_BPS, 4 },
	{ KVM_CAP_SET_GUEST_DEBUG2, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP |
				    KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP |
				    KVM_GUESTDBG_BLOCKIRQ },
	{ KVM_CAP_X86_ROBUST_SINGLESTEP, 1 }, { KVM_CAP_VCPU_EVENTS, 1 }, { KVM_CAP_DEBUGREGS, 1 },
	{ KVM_CAP_IRQ_INJECT_STATUS, 1 }, { KVM_CAP_IRQ_ROUTING, VM_MAX_IRQ_ROUTES }, { KVM_CAP_SIGNAL_MSI, 1 },
	{ KVM_CAP_SPLIT_IRQCHIP, 1 },
	{ KVM_CAP_ADJUST_CLOCK, KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC },
	{ KVM_CAP_KVMCLOCK_CTRL, 1 }, { KVM_CAP_GET_TSC_KHZ, 1 }, { KVM_CAP_TSC_DEADLINE_TIMER, 1 },
	{ KVM_CAP_VCPU_ATTRIBUTES, 1 }, { KVM_CAP_GET_MSR_FEATURES, 1 }, { KVM_CAP_MSR_PLATFORM_INFO, 1 },
	{ KVM_CAP_EXCEPTION_PAYLOAD, 1 }, { KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1 }, { KVM_CAP_XCRS, 1 }, { KVM_CAP_XSAVE, 1 },
	{ KVM_CAP_SREGS2, 1 }, { KVM_CAP_SYNC_REGS, KVM_SYNC_X86_VALID_FIELDS }, { KVM_CAP_MCE, MCE_BANKS },
	{ KVM_CAP_X86_USER_SPACE_MSR, MSR_REASONS }, { KVM_CAP_X86_MSR_FILTER, 1 },
	{ KVM_CAP_EXIT_HYPERCALL, HYPERCALL_EXIT_VALID }, { KVM_CAP_X2APIC_API, X2APIC_API_VALID },
	{ KVM_CAP_DISABLE_QUIRKS, 1 }, { KVM_CAP_DISABLE_QUIRKS2, SUPPORTED_QUIRKS },
	{ KVM_CAP_SET_BOOT_CPU_ID, 1 }, { KVM_CAP_INTERNAL_ERROR_DATA, 1 }, { KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1 },
	{ KVM_CAP_ENABLE_CAP, 1 }, { KVM_CAP_X86_SMM, 1 }, { KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1 }, { KVM_CAP_STEAL_TIME, 1 },
	{ KVM_CAP_HYPERV, 1 }, { KVM_CAP_HYPERV_VAPIC, 1 }, { KVM_CAP_HYPERV_SPIN, 1 }, { KVM_CAP_HYPERV_TIME, 1 },
	{ KVM_CAP_HYPERV_SYNIC, 1 }, { KVM_CAP_HYPERV_SYNIC2, 1 }, { KVM_CAP_HYPERV_VP_INDEX, 1 },
	{ KVM_CAP_HYPERV_EVENTFD, 1 }, { KVM_CAP_HYPERV_TLBFLUSH, 1 }, { KVM_CAP_HYPERV_SEND_IPI, 1 },
	{ KVM_CAP_HYPERV_CPUID, 1 }, { KVM_CAP_SYS_HYPERV_CPUID, 1 }, { KVM_CAP_HYPERV_ENFORCE_CPUID, 1 },
	{ KVM_CAP_SYS_ATTRIBUTES, 1 }, { KVM_CAP_MMU_SHADOW_CACHE_CONTROL, 1 }, { KVM_CAP_IOAPIC_POLARITY_IGNORED, 1 },
};

int x86_check_extension(struct vm *vm, u64 cap)
{
	switch (cap) {
	case KVM_CAP_XSAVE2: return fpu_client_size();
	case KVM_CAP_X86_DISABLE_EXITS: return core_engine()->disable_exits;
	case KVM_CAP_TSC_CONTROL:
	case KVM_CAP_VM_TSC_CONTROL: return clock_can_scale();
	}
	for (unsigned i = 0; i < ARRAY_SIZE(caps); i++) {
		if (caps[i].cap == cap)
			return caps[i].value;
	}
	return 0;
}

int x86_vm_enable_cap(struct vm *vm, const struct kvm_enable_cap *cap)
{
	u64 arg = cap->args[0];
	int r = -EINVAL;

	if (cap->flags)
		return -EINVAL;
	switch (cap->cap) {
	case KVM_CAP_DISABLE_QUIRKS2:
		if (arg & ~(u64)SUPPORTED_QUIRKS)
			return -EINVAL;
		/* fallthrough */
	case KVM_CAP_DISABLE_QUIRKS: vm->disabled_quirks = arg; return 0;
	case KVM_CAP_SPLIT_IRQCHIP:
		host_mutex_lock(&vm->lock);
		if (arg <= 24)
			r = vm->irqchip != IRQCHIP_NONE || vm->nr_vcpus ? -EEXIST : irqchip_enable_split(vm, arg);
		host_mutex_unlock(&vm->lock);
		return r;
	case KVM_CAP_X2APIC_API:
		if (arg & ~(u64)X2APIC_API_VALID)
			return -EINVAL;
		if (arg & KVM_X2APIC_API_USE_32BIT_IDS)
			vm->x2apic_api = true;
		if (arg & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
			vm->x2apic_no_broadcast_quirk = true;
		return 0;
	case KVM_CAP_EXCEPTION_PAYLOAD: vm->exception_payload = arg; return 0;
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT: vm->triple_fault_event = arg; return 0;
	case KVM_CAP_X86_USER_SPACE_MSR:
		if (arg & ~(u64)MSR_REASONS)
			return -EINVAL;
		vm->user_space_msr_mask = arg;
		return 0;
	case KVM_CAP_EXIT_HYPERCALL:
		if (arg & ~HYPERCALL_EXIT_VALID)
			return -EINVAL;
		vm->hypercall_exit_mask = arg;
		return 0;
	case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
		if (arg & ~1ULL)
			return -EINVAL;
		vm->exit_on_emulation_failure = arg;
		return 0;
	case KVM_CAP_X86_DISABLE_EXITS:
		if (!arg || (arg & ~(u64)vm->engine->disable_exits))
			return -EINVAL;
		host_mutex_lock(&vm->lock);
		if (!vm->nr_vcpus) {
			vm->exits_disabled |= arg;
			r = 0;
		}
		host_mutex_unlock(&vm->lock);
		return r;
	case KVM_CAP_MSR_PLATFORM_INFO: vm->platform_info_hidden = !arg; return 0;
	}
	return -EINVAL;
}

int x86_vm_init(struct vm *vm)
{
	clock_vm_init(vm);
	vm->identity_map_addr = IDENTITY_MAP_DEFAULT;
	return hyperv_vm_init(vm);
}

void x86_vm_destroy(struct vm *vm)
{
	irqchip_destroy(vm);
	hyperv_vm_destroy(vm);
	msr_filter_free(vm->msr_filter);
	vm->msr_filter = NULL;
}

/* ---- ioctls ----------------------------------------------------------------------------------------------------- */

static long create_irqchip(struct vm *vm)
{
	long r;

	host_mutex_lock(&vm->lock);
	if (vm->irqchip != IRQCHIP_NONE)
		r = -EEXIST;
	else if (vm->nr_vcpus)
		r = -EINVAL;
	else
		r = irqchip_create(vm);
	host_mutex_unlock(&vm->lock);
	return r;
}

static long create_pit(struct vm *vm, u32 flags)
{
	long r;

	host_mutex_lock(&vm->lock);
	if (vm->pit)
		r = -EEXIST;
	else if (vm->irqchip != IRQCHIP_KERNEL)
		r = -ENOENT;
	else
		r = pit_create(vm, flags);
	host_mutex_unlock(&vm->lock);
	return r;
}

static long irq_line(struct vm *vm, struct kvm_irq_level *level, bool status)
{
	int srcu, r;

	if (__atomic_load_n(&vm->irqchip, __ATOMIC_ACQUIRE) == IRQCHIP_NONE)
		return -ENXIO;
	srcu = host_srcu_read_lock(&vm->srcu);
	r = irq_set_gsi(vm, 0, level->irq, level->level);
	host_srcu_read_unlock(&vm->srcu, srcu);
	if (status)
		level->status = r;
	return 0;
}

static long signal_msi(struct vm *vm, const struct kvm_msi *msi)
{
	int srcu, r;

	if (__atomic_load_n(&vm->irqchip, __ATOMIC_ACQUIRE) == IRQCHIP_NONE || msi->flags)
		return -EINVAL;
	srcu = host_srcu_read_lock(&vm->srcu);
	r = irq_send_msi(vm, (u64)msi->address_hi << 32 | msi->address_lo, msi->data);
	host_srcu_read_unlock(&vm->srcu, srcu);
	return r;
}

static long set_routing(struct vm *vm, u64 arg, const struct kvm_irq_routing *head)
{
	struct kvm_irq_routing_entry *entries = NULL;
	long r;

	if (__atomic_load_n(&vm->irqchip, __ATOMIC_ACQUIRE) == IRQCHIP_NONE)
		return -EINVAL;
	if (head->nr > VM_MAX_IRQ_ROUTES || head->flags)
		return -EINVAL;
	if (head->nr) {
		entries = host_zalloc(head->nr * sizeof(*entries));
		if (!entries)
			return -ENOMEM;
		if (host_copy_from_client(entries, arg + sizeof(*head), head->nr * sizeof(*entries))) {
			host_free(entries);
			return -EFAULT;
		}
	}
	r = irq_set_routing(vm, entries, head->nr);
	host_free(entries);
	return r;
}

static long set_identity_map(struct vm *vm, u64 addr)
{
	long r = -EINVAL;

	host_mutex_lock(&vm->lock);
	if (!vm->nr_vcpus) {
		vm->identity_map_addr = addr ? addr : IDENTITY_MAP_DEFAULT;
		r = 0;
	}
	host_mutex_unlock(&vm->lock);
	return r;
}

static long set_boot_cpu(struct vm *vm, u64 id)
{
	long r = -EBUSY;

	host_mutex_lock(&vm->lock);
	if (!vm->nr_vcpus) {
		vm->boot_vcpu_id = (u32)id;
		r = 0;
	}
	host_mutex_unlock(&vm->lock);
	return r;
}

static long set_vm_tsc_khz(struct vm *vm, u32 khz)
{
	u32 host = clock_counter_khz();
	long r = -EINVAL;

	if (!khz)
		khz = host;
	if (khz != host && !clock_can_scale())
		return -EINVAL;
	host_mutex_lock(&vm->lock);
	if (!vm->nr_vcpus) {
		vm->tsc_khz = khz;
		r = 0;
	}
	host_mutex_unlock(&vm->lock);
	return r;
}

/* The older PIT structure lacks the flags. */
static long pit_get_old(struct vm *vm, struct kvm_pit_state *out)
{
	struct kvm_pit_state2 state;
	long r = pit_get(vm, &state);

	if (!r)
		memcpy(out->channels, state.channels, sizeof(out->channels));
	return r;
}

static long pit_set_old(struct vm *vm, const struct kvm_pit_state *in)
{
	struct kvm_pit_state2 state;
	long r = pit_get(vm, &state);

	if (r)
		return r;
	memcpy(state.channels, in->channels, sizeof(state.channels));
	return pit_set(vm, &state);
}

/* Its number has no size: there is no @data. */
static long reinject_control(struct vm *vm, u64 arg)
{
	struct kvm_reinject_control control;
	long r;

	if (host_copy_from_client(&control, arg, sizeof(control)))
		return -EFAULT;
	/* Two at once would put one notifier into the list twice: a ring, walked for ever */
	host_mutex_lock(&vm->lock);
	r = vm->pit ? pit_reinject(vm, control.pit_reinject) : -ENXIO;
	host_mutex_unlock(&vm->lock);
	return r;
}

/* What shadow paging may have of tables; nested paging has no use for it, and needs as many as the guest's memory is large. */
static long set_nr_mmu_pages(struct vm *vm, u64 pages)
{
	if (pages < VM_MIN_MMU_PAGES || pages > ~0U)
		return -EINVAL;
	__atomic_store_n(&vm->nr_mmu_pages, pages, __ATOMIC_RELAXED);
	return 0;
}

long x86_vm_ioctl(struct vm *vm, unsigned cmd, u64 arg, void *data)
{
	switch (cmd) {
	case KVM_SET_TSS_ADDR:
		/* Three pages that some processors need in real mode; none of the engines' */
		if (arg > 0xffffffffULL - 3 * HOST_PAGE_SIZE)
			return -EINVAL;
		vm->tss_addr = arg;
		return 0;
	case KVM_SET_IDENTITY_MAP_ADDR: return set_identity_map(vm, *(u64 *)data);
	case KVM_SET_NR_MMU_PAGES: return set_nr_mmu_pages(vm, arg);
	case KVM_GET_NR_MMU_PAGES: return __atomic_load_n(&vm->nr_mmu_pages, __ATOMIC_RELAXED);
	case KVM_CREATE_IRQCHIP: return create_irqchip(vm);
	case KVM_CREATE_PIT: return create_pit(vm, KVM_PIT_SPEAKER_DUMMY);
	case KVM_CREATE_PIT2: return create_pit(vm, ((struct kvm_pit_config *)data)->flags);
	case KVM_IRQ_LINE: return irq_line(vm, data, false);
	case KVM_IRQ_LINE_STATUS: return irq_line(vm, data, true);
	case KVM_SIGNAL_MSI: return signal_msi(vm, data);
	case KVM_SET_GSI_ROUTING: return set_routing(vm, arg, data);
	case KVM_GET_IRQCHIP: return vm->irqchip == IRQCHIP_KERNEL ? irqchip_get(vm, data) : -ENXIO;
	case KVM_SET_IRQCHIP: return vm->irqchip == IRQCHIP_KERNEL ? irqchip_set(vm, data) : -ENXIO;
	case KVM_GET_PIT: return vm->pit ? pit_get_old(vm, data) : -ENXIO;
	case KVM_SET_PIT: return vm->pit ? pit_set_old(vm, data) : -ENXIO;
	case KVM_GET_PIT2: return vm->pit ? pit_get(vm, data) : -ENXIO;
	case KVM_SET_PIT2: return vm->pit ? pit_set(vm, data) : -ENXIO;
	case KVM_REINJECT_CONTROL: return reinject_control(vm, arg);
	case KVM_SET_BOOT_CPU_ID: return set_boot_cpu(vm, arg);
	case KVM_GET_CLOCK: clock_ioctl_get(vm, data); return 0;
	case KVM_SET_CLOCK: return clock_ioctl_set(vm, data);
	case KVM_SET_TSC_KHZ: return clock_can_scale() || !arg ? set_vm_tsc_khz(vm, arg) : -EINVAL;
	case KVM_GET_TSC_KHZ: return vm->tsc_khz;
	case KVM_HYPERV_EVENTFD: return hyperv_ioctl_eventfd(vm, data);
	case KVM_X86_SET_MSR_FILTER: return msr_ioctl_set_filter(vm, data);
	}
	return -ENOTTY;
}

static long system_has_attr(const struct kvm_device_attr *attr)
{
	return attr->group || attr->attr != KVM_X86_XCOMP_GUEST_SUPP ? -ENXIO : 0;
}

static long system_get_attr(const struct kvm_device_attr *attr)
{
	u64 value = cpuid_supported_xcr0();

	if (system_has_attr(attr))
		return -ENXIO;
	return host_copy_to_client(attr->addr, &value, sizeof(value)) ? -EFAULT : 0;
}

long x86_system_ioctl(unsigned cmd, u64 arg, void *data)
{
	switch (cmd) {
	case KVM_GET_SUPPORTED_CPUID: return cpuid_ioctl_supported(arg, data, false);
	case KVM_GET_SUPPORTED_HV_CPUID: return hyperv_ioctl_supported_cpuid(NULL, arg, data);
	case KVM_GET_EMULATED_CPUID: return cpuid_ioctl_supported(arg, data, true);
	case KVM_GET_MSR_INDEX_LIST: return msr_ioctl_index_list(arg, data, false);
	case KVM_GET_MSR_FEATURE_INDEX_LIST: return msr_ioctl_index_list(arg, data, true);
	case KVM_GET_MSRS: return msr_ioctl_get_features(arg, data);
	case KVM_X86_GET_MCE_CAP_SUPPORTED:
		*(u64 *)data = MCG_CAP_SUPPORTED;
		return 0;
	case KVM_HAS_DEVICE_ATTR: return system_has_attr(data);
	case KVM_GET_DEVICE_ATTR: return system_get_attr(data);
	}
	return -ENOTTY;
}
