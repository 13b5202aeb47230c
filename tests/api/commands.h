/*
 * The ioctls of /dev/kvm, of a VM and of a vCPU, for what calls them with anything: fuzz/ioctl.c and tests/api/storm.c. A command that sets
 * what another one gets stands right behind that.
 */
#ifndef TESTS_API_COMMANDS_H
#define TESTS_API_COMMANDS_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum target { SYSTEM, VM, VCPU };

/* @pointers and @fds: offsets of fields to be made ours; 0 is no field, so an offset is told plus one. */
struct command {
	unsigned long number;
	enum target target;
	bool by_value; /* the argument is no address */
	uint8_t pointers[2], fds[2];
};

#define AT(type, field) (offsetof(struct type, field) + 1)

static const struct command commands[] = {
	{ KVM_GET_API_VERSION, SYSTEM, true },
	{ KVM_CHECK_EXTENSION, SYSTEM, true },
	{ KVM_GET_VCPU_MMAP_SIZE, SYSTEM, true },
	{ KVM_GET_SUPPORTED_CPUID, SYSTEM },
	{ KVM_GET_EMULATED_CPUID, SYSTEM },
	{ KVM_GET_MSR_INDEX_LIST, SYSTEM },
	{ KVM_GET_MSR_FEATURE_INDEX_LIST, SYSTEM },
	{ KVM_GET_MSRS, SYSTEM },
	{ KVM_X86_GET_MCE_CAP_SUPPORTED, SYSTEM },

	{ KVM_CHECK_EXTENSION, VM, true },
	{ KVM_SET_USER_MEMORY_REGION, VM, false, { AT(kvm_userspace_memory_region, userspace_addr) } },
	{ KVM_GET_DIRTY_LOG, VM, false, { AT(kvm_dirty_log, dirty_bitmap) } },
	{ KVM_CLEAR_DIRTY_LOG, VM, false, { AT(kvm_clear_dirty_log, dirty_bitmap) } },
	{ KVM_SET_TSS_ADDR, VM, true },
	{ KVM_SET_IDENTITY_MAP_ADDR, VM },
	{ KVM_SET_NR_MMU_PAGES, VM, true },
	{ KVM_GET_NR_MMU_PAGES, VM, true },
	{ KVM_CREATE_IRQCHIP, VM, true },
	{ KVM_IRQ_LINE, VM },
	{ KVM_IRQ_LINE_STATUS, VM },
	{ KVM_GET_IRQCHIP, VM },
	{ KVM_SET_IRQCHIP, VM },
	{ KVM_CREATE_PIT2, VM },
	{ KVM_GET_PIT2, VM },
	{ KVM_SET_PIT2, VM },
	{ KVM_GET_PIT, VM },
	{ KVM_SET_PIT, VM },
	{ KVM_REINJECT_CONTROL, VM },
	{ KVM_SET_GSI_ROUTING, VM },
	{ KVM_SIGNAL_MSI, VM },
	{ KVM_IRQFD, VM, false, { 0 }, { AT(kvm_irqfd, fd), AT(kvm_irqfd, resamplefd) } },
	{ KVM_IOEVENTFD, VM, false, { 0 }, { AT(kvm_ioeventfd, fd) } },
	{ KVM_REGISTER_COALESCED_MMIO, VM },
	{ KVM_UNREGISTER_COALESCED_MMIO, VM },
	{ KVM_SET_BOOT_CPU_ID, VM, true },
	{ KVM_GET_CLOCK, VM },
	{ KVM_SET_CLOCK, VM },
	{ KVM_ENABLE_CAP, VM },
	{ KVM_X86_SET_MSR_FILTER, VM, false, { AT(kvm_msr_filter, ranges[0].bitmap), AT(kvm_msr_filter, ranges[1].bitmap) } },
	{ KVM_CREATE_DEVICE, VM },
	{ KVM_SET_DEVICE_ATTR, VM, false, { AT(kvm_device_attr, addr) } },
	{ KVM_RESET_DIRTY_RINGS, VM, true },
	{ KVM_SET_TSC_KHZ, VM, true },
	{ KVM_GET_STATS_FD, VM, true },

	{ KVM_RUN, VCPU, true },
	{ KVM_RUN, VCPU, true },
	{ KVM_RUN, VCPU, true },
	{ KVM_GET_REGS, VCPU },
	{ KVM_SET_REGS, VCPU },
	{ KVM_GET_SREGS, VCPU },
	{ KVM_SET_SREGS, VCPU },
	{ KVM_GET_SREGS2, VCPU },
	{ KVM_SET_SREGS2, VCPU },
	{ KVM_GET_FPU, VCPU },
	{ KVM_SET_FPU, VCPU },
	{ KVM_GET_XSAVE, VCPU },
	{ KVM_GET_XSAVE2, VCPU },
	{ KVM_SET_XSAVE, VCPU },
	{ KVM_GET_XCRS, VCPU },
	{ KVM_SET_XCRS, VCPU },
	{ KVM_GET_MSRS, VCPU },
	{ KVM_SET_MSRS, VCPU },
	{ KVM_SET_CPUID, VCPU },
	{ KVM_SET_CPUID2, VCPU },
	{ KVM_GET_CPUID2, VCPU },
	{ KVM_GET_LAPIC, VCPU },
	{ KVM_SET_LAPIC, VCPU },
	{ KVM_INTERRUPT, VCPU },
	{ KVM_NMI, VCPU, true },
	{ KVM_SMI, VCPU, true },
	{ KVM_GET_MP_STATE, VCPU },
	{ KVM_SET_MP_STATE, VCPU },
	{ KVM_GET_VCPU_EVENTS, VCPU },
	{ KVM_SET_VCPU_EVENTS, VCPU },
	{ KVM_GET_DEBUGREGS, VCPU },
	{ KVM_SET_DEBUGREGS, VCPU },
	{ KVM_SET_GUEST_DEBUG, VCPU },
	{ KVM_TRANSLATE, VCPU },
	{ KVM_GET_TSC_KHZ, VCPU, true },
	{ KVM_SET_TSC_KHZ, VCPU, true },
	{ KVM_TPR_ACCESS_REPORTING, VCPU },
	{ KVM_SET_VAPIC_ADDR, VCPU },
	{ KVM_X86_SETUP_MCE, VCPU },
	{ KVM_X86_SET_MCE, VCPU },
	{ KVM_KVMCLOCK_CTRL, VCPU, true },
	{ KVM_ENABLE_CAP, VCPU },
	{ KVM_SET_DEVICE_ATTR, VCPU, false, { AT(kvm_device_attr, addr) } },
	{ KVM_GET_DEVICE_ATTR, VCPU, false, { AT(kvm_device_attr, addr) } },
	{ KVM_GET_STATS_FD, VCPU, true },
	{ KVM_GET_SUPPORTED_HV_CPUID, SYSTEM },
	{ KVM_GET_SUPPORTED_HV_CPUID, VCPU },
	{ KVM_HYPERV_EVENTFD, VM, false, { 0 }, { AT(kvm_hyperv_eventfd, fd) } },
};

#undef AT

#endif
