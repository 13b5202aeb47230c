/*
 * Debugging, of the guest by itself (DR0 to DR7, SDM 3B 17.2) and by the client (KVM_SET_GUEST_DEBUG). An engine asks here
 * what is armed and reports what it hit; who gets it is decided here.
 *
 *	if (unlikely(vcpu->eff_dr7 & 0xff) && (hit = debug_code_hit(vcpu, la)))
 *		if (debug_trap(vcpu, hit, exit))
 *			return;                 // exit is KVM_EXIT_DEBUG
 *		// else #DB is queued for the guest
 */
#ifndef CORE_X86_DEBUG_H
#define CORE_X86_DEBUG_H

#include "core/vcpu.h"

#define DR6_WRITABLE (0xfULL | DR6_BD | DR6_BS | DR6_BT)

static inline u64 dr6_canonical(u64 value)
{
	return DR6_FIXED_1 | (value & DR6_WRITABLE);
}

static inline u64 dr7_canonical(u64 value)
{
	return DR7_FIXED_1 | (value & 0xffff2bffULL);
}

/** Recomputes eff_dr*: call after any change of DR0 to DR7 or of guest_debug. */
void debug_update(struct vcpu *vcpu);
/** DR6 bits 0-3 of the enabled breakpoints that match; 0: none. Code: an instruction begins at linear @la (faults, so RFLAGS.RF
 *  is honoured here). Data: @len bytes at @la were read or written. I/O: needs CR4.DE. */
u64 debug_code_hit(struct vcpu *vcpu, u64 la);
u64 debug_data_hit(struct vcpu *vcpu, u64 la, unsigned len, bool write);
u64 debug_io_hit(struct vcpu *vcpu, u16 port, unsigned size);
/**
 * A debug condition (DR6 bits 0-3, BS, BT, BD) arose. True: the client gets it, @exit is EXIT_DEBUG. False: #DB was queued
 * for the guest.
 */
bool debug_trap(struct vcpu *vcpu, u64 dr6_bits, struct engine_exit *exit);
/** INT3 executed at the current RIP: true when the client planted it (KVM_GUESTDBG_USE_SW_BP), @exit is filled. */
bool debug_int3(struct vcpu *vcpu, struct engine_exit *exit);
/** The engine must step one instruction at a time: the guest's TF, or the client's KVM_GUESTDBG_SINGLESTEP. */
static inline bool debug_client_steps(const struct vcpu *vcpu)
{
	return unlikely(vcpu->guest_debug & KVM_GUESTDBG_SINGLESTEP);
}

int debug_ioctl_set(struct vcpu *vcpu, const struct kvm_guest_debug *dbg);
void debug_get_regs(struct vcpu *vcpu, struct kvm_debugregs *regs);
int debug_set_regs(struct vcpu *vcpu, const struct kvm_debugregs *regs);

#endif
