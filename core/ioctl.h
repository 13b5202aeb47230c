/*
 * The one place where fixed-size structures cross between client and core. Handlers of ioctls get a copy: @data is as large
 * as _IOC_SIZE(cmd) says, filled from the client where the command gives something to KVM, zeroed where it only takes,
 * and copied back where it takes something, if the handler succeeded.
 *
 *	case KVM_GET_REGS: {
 *		struct kvm_regs *regs = data;
 *		regs->rip = vcpu->x86.rip;
 *		return 0;
 *	}
 *
 * Of commands whose structure ends in an array (KVM_SET_CPUID2, KVM_GET_MSRS, KVM_SET_GSI_ROUTING ...) @data is the head; the handler
 * reads or writes the elements itself at @arg + the head's size with host_copy_from_client() and host_copy_to_client(),
 * after it checked the count. KVM_GET_XSAVE2 has a size that depends on the vCPU: @data is NULL, @arg the client's address.
 */
#ifndef CORE_IOCTL_H
#define CORE_IOCTL_H

#include "hosts/host.h"

/* Which descriptors know a command. */
#define IOCTL_SYSTEM 1
#define IOCTL_VM     2
#define IOCTL_VCPU   4

/** Answers -ENOTTY to commands it does not know. */
typedef long (*ioctl_handler)(struct host_file *file, unsigned cmd, u64 arg, void *data);

/**
 * Copies the structure of @cmd in, calls @handler, copies it out. @object is one of IOCTL_SYSTEM, IOCTL_VM, IOCTL_VCPU.
 * Returns what @handler returned, or -EFAULT, -ENOMEM. May sleep; takes no locks.
 */
long ioctl_dispatch(struct host_file *file, unsigned object, unsigned cmd, u64 arg, ioctl_handler handler);

#endif
