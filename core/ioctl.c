/* See ioctl.h. The table of structures, then the copying. */
#include "core/ioctl.h"

#include <linux/kvm.h>

enum { IN = 1, OUT = 2, OUT_ON_E2BIG = 4 };

/* What is not listed has a plain value as argument, or copies by itself. */
static const struct {
	u32 cmd;
	u8 objects;
	u8 flow; /* the direction in _IOC_DIR is wrong for some, and means the client's side for others */
} table[] = {
	{ KVM_GET_MSR_INDEX_LIST, IOCTL_SYSTEM, IN | OUT | OUT_ON_E2BIG },
	{ KVM_GET_MSR_FEATURE_INDEX_LIST, IOCTL_SYSTEM, IN | OUT | OUT_ON_E2BIG },
	{ KVM_GET_SUPPORTED_CPUID, IOCTL_SYSTEM, IN | OUT },
	{ KVM_GET_EMULATED_CPUID, IOCTL_SYSTEM, IN | OUT },
	{ KVM_GET_SUPPORTED_HV_CPUID, IOCTL_SYSTEM | IOCTL_VCPU, IN | OUT },
	{ KVM_X86_GET_MCE_CAP_SUPPORTED, IOCTL_SYSTEM, OUT },
	{ KVM_GET_DEVICE_ATTR, IOCTL_SYSTEM | IOCTL_VCPU, IN },
	{ KVM_HAS_DEVICE_ATTR, IOCTL_SYSTEM | IOCTL_VCPU, IN },
	{ KVM_SET_DEVICE_ATTR, IOCTL_VCPU, IN },
	{ KVM_GET_MSRS, IOCTL_SYSTEM | IOCTL_VCPU, IN },

	{ KVM_SET_USER_MEMORY_REGION, IOCTL_VM, IN },
	{ KVM_GET_DIRTY_LOG, IOCTL_VM, IN },
	{ KVM_CLEAR_DIRTY_LOG, IOCTL_VM, IN },
	{ KVM_REGISTER_COALESCED_MMIO, IOCTL_VM, IN },
	{ KVM_UNREGISTER_COALESCED_MMIO, IOCTL_VM, IN },
	{ KVM_ENABLE_CAP, IOCTL_VM | IOCTL_VCPU, IN },
	{ KVM_IRQFD, IOCTL_VM, IN },
	{ KVM_IOEVENTFD, IOCTL_VM, IN },
	{ KVM_SIGNAL_MSI, IOCTL_VM, IN },
	{ KVM_SET_GSI_ROUTING, IOCTL_VM, IN },
	{ KVM_IRQ_LINE, IOCTL_VM, IN },
	{ KVM_IRQ_LINE_STATUS, IOCTL_VM, IN | OUT },
	{ KVM_GET_IRQCHIP, IOCTL_VM, IN | OUT },
	{ KVM_SET_IRQCHIP, IOCTL_VM, IN },
	{ KVM_CREATE_PIT2, IOCTL_VM, IN },
	{ KVM_GET_PIT, IOCTL_VM, OUT },
	{ KVM_SET_PIT, IOCTL_VM, IN },
	{ KVM_GET_PIT2, IOCTL_VM, OUT },
	{ KVM_SET_PIT2, IOCTL_VM, IN },
	{ KVM_GET_CLOCK, IOCTL_VM, OUT },
	{ KVM_SET_CLOCK, IOCTL_VM, IN },
	{ KVM_SET_IDENTITY_MAP_ADDR, IOCTL_VM, IN },
	{ KVM_X86_SET_MSR_FILTER, IOCTL_VM, IN },
	{ KVM_HYPERV_EVENTFD, IOCTL_VM, IN },

	{ KVM_GET_REGS, IOCTL_VCPU, OUT },
	{ KVM_SET_REGS, IOCTL_VCPU, IN },
	{ KVM_GET_SREGS, IOCTL_VCPU, OUT },
	{ KVM_SET_SREGS, IOCTL_VCPU, IN },
	{ KVM_GET_SREGS2, IOCTL_VCPU, OUT },
	{ KVM_SET_SREGS2, IOCTL_VCPU, IN },
	{ KVM_GET_FPU, IOCTL_VCPU, OUT },
	{ KVM_SET_FPU, IOCTL_VCPU, IN },
	{ KVM_GET_XSAVE, IOCTL_VCPU, OUT },
	{ KVM_SET_XSAVE, IOCTL_VCPU, IN },
	{ KVM_GET_XCRS, IOCTL_VCPU, OUT },
	{ KVM_SET_XCRS, IOCTL_VCPU, IN },
	{ KVM_GET_DEBUGREGS, IOCTL_VCPU, OUT },
	{ KVM_SET_DEBUGREGS, IOCTL_VCPU, IN },
	{ KVM_GET_VCPU_EVENTS, IOCTL_VCPU, OUT },
	{ KVM_SET_VCPU_EVENTS, IOCTL_VCPU, IN },
	{ KVM_GET_LAPIC, IOCTL_VCPU, OUT },
	{ KVM_SET_LAPIC, IOCTL_VCPU, IN },
	{ KVM_GET_MP_STATE, IOCTL_VCPU, OUT },
	{ KVM_SET_MP_STATE, IOCTL_VCPU, IN },
	{ KVM_SET_MSRS, IOCTL_VCPU, IN },
	{ KVM_SET_CPUID, IOCTL_VCPU, IN },
	{ KVM_SET_CPUID2, IOCTL_VCPU, IN },
	{ KVM_GET_CPUID2, IOCTL_VCPU, IN | OUT },
	{ KVM_TRANSLATE, IOCTL_VCPU, IN | OUT },
	{ KVM_INTERRUPT, IOCTL_VCPU, IN },
	{ KVM_SET_GUEST_DEBUG, IOCTL_VCPU, IN },
	{ KVM_TPR_ACCESS_REPORTING, IOCTL_VCPU, IN | OUT },
	{ KVM_SET_VAPIC_ADDR, IOCTL_VCPU, IN },
	{ KVM_X86_SETUP_MCE, IOCTL_VCPU, IN },
	{ KVM_X86_SET_MCE, IOCTL_VCPU, IN },
};

#define SMALL 512

long ioctl_dispatch(struct host_file *file, unsigned object, unsigned cmd, u64 arg, ioctl_handler handler)
{
	u64 small[SMALL / 8];
	unsigned i, flow = 0, size = _IOC_SIZE(cmd);
	void *data = NULL;
	long r;

	/* KVM_RUN above all: without a size there is nothing to copy */
	for (i = 0; size && i < ARRAY_SIZE(table); i++) {
		if (table[i].cmd == cmd && (table[i].objects & object)) {
			flow = table[i].flow;
			break;
		}
	}
	if (!flow) {
		r = handler(file, cmd, arg, NULL);
		/* Only a VM's descriptor says it so. */
		return r == -ENOTTY && object != IOCTL_VM ? -EINVAL : r;
	}
	if (size <= SMALL) {
		data = small;
		memset(small, 0, size);
	} else {
		data = host_zalloc(size);
		if (!data)
			return -ENOMEM;
	}
	r = -EFAULT;
	if (!(flow & IN) || !host_copy_from_client(data, arg, size)) {
		r = handler(file, cmd, arg, data);
		if ((r >= 0 && (flow & OUT)) || (r == -E2BIG && (flow & OUT_ON_E2BIG)))
			if (host_copy_to_client(arg, data, size))
				r = -EFAULT;
	}
	if (data != small)
		host_free(data);
	return r;
}
