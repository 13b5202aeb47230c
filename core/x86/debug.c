/*
 * Breakpoints and single-stepping; see debug.h.
 */
#include "core/x86/debug.h"

#include "core/x86/irqchip/irqchip.h"

#define DEBUG_BP_CODE  0
#define DEBUG_BP_WRITE 1
#define DEBUG_BP_IO    2
#define DEBUG_BP_RW    3

#define GUESTDBG_VALID                                                                                                 \
	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP |             \
	 KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP | KVM_GUESTDBG_BLOCKIRQ)

void debug_update(struct vcpu *vcpu)
{
	if (vcpu->guest_debug & KVM_GUESTDBG_USE_HW_BP) {
		memcpy(vcpu->eff_dr, vcpu->guest_debug_dr, sizeof(vcpu->eff_dr));
		vcpu->eff_dr7 = vcpu->guest_debug_dr7;
	} else {
		memcpy(vcpu->eff_dr, vcpu->x86.dr, sizeof(vcpu->eff_dr));
		vcpu->eff_dr7 = vcpu->x86.dr7;
	}
	vcpu->emul.general_detect = vcpu->guest_debug & KVM_GUESTDBG_USE_HW_BP && vcpu->guest_debug_dr7 & DR7_GD;
}

static unsigned bp_type(u64 dr7, unsigned n)
{
	return (dr7 >> (16 + n * 4)) & 3;
}

static unsigned bp_len(u64 dr7, unsigned n)
{
	static const u8 len[4] = { 1, 2, 8, 4 };

	return len[(dr7 >> (18 + n * 4)) & 3];
}

/*
 * SDM 3B 17.2.3: LE/GE aside, the processor reports in DR6 also conditions that are not enabled, but only an enabled one
 * raises #DB. So: bits of all that match, if one of them is enabled.
 */
static u64 match(struct vcpu *vcpu, u64 addr, unsigned len, unsigned type, bool write)
{
	u64 dr7 = vcpu->eff_dr7, hits = 0;
	bool enabled = false;

	for (unsigned n = 0; n < 4; n++) {
		unsigned t = bp_type(dr7, n), l = bp_len(dr7, n);
		u64 start = vcpu->eff_dr[n] & ~(u64)(l - 1);

		if (type == DEBUG_BP_RW ? !(t == DEBUG_BP_RW || (t == DEBUG_BP_WRITE && write)) : t != type)
			continue;
		if (type == DEBUG_BP_CODE ? vcpu->eff_dr[n] != addr : addr >= start + l || addr + len <= start)
			continue;
		hits |= BIT64(n);
		enabled |= !!(dr7 & (3ULL << (n * 2)));
	}
	return enabled ? hits : 0;
}

u64 debug_code_hit(struct vcpu *vcpu, u64 la)
{
	if (!(vcpu->eff_dr7 & 0xff))
		return 0;
	/* RF holds back the guest's own breakpoints; a client's step or continue passes its breakpoint the same way */
	return vcpu->x86.rflags & RFLAGS_RF ? 0 : match(vcpu, la, 1, DEBUG_BP_CODE, false);
}

u64 debug_data_hit(struct vcpu *vcpu, u64 la, unsigned len, bool write)
{
	return vcpu->eff_dr7 & 0xff ? match(vcpu, la, len, DEBUG_BP_RW, write) : 0;
}

u64 debug_io_hit(struct vcpu *vcpu, u16 port, unsigned size)
{
	if (!(vcpu->eff_dr7 & 0xff) || !(vcpu->x86.cr4 & CR4_DE))
		return 0;
	return match(vcpu, port, size, DEBUG_BP_IO, false);
}

bool debug_trap(struct vcpu *vcpu, u64 dr6_bits, struct engine_exit *exit)
{
	u32 mine = KVM_GUESTDBG_USE_HW_BP | (dr6_bits & DR6_BS ? KVM_GUESTDBG_SINGLESTEP : 0);
	u64 never = DR6_BT | (vcpu->emul.general_detect ? 0 : DR6_BD);

	if ((vcpu->guest_debug & KVM_GUESTDBG_ENABLE) && (vcpu->guest_debug & mine) && !(dr6_bits & never)) {
		vcpu->vm->engine->state_sync(vcpu, REGS_SEG);
		exit->reason = EXIT_DEBUG;
		exit->debug.vector = VEC_DB;
		exit->debug.dr6 = DR6_FIXED_1 | dr6_bits;
		exit->debug.pc = vcpu->x86.seg[SEG_CS].base + vcpu->x86.rip;
		return true;
	}
	vcpu_queue_exception(vcpu, &(struct x86_event){ .vector = VEC_DB, .type = X86_EVENT_EXCEPTION,
							.has_payload = true, .payload = dr6_bits });
	return false;
}

bool debug_int3(struct vcpu *vcpu, struct engine_exit *exit)
{
	if (!(vcpu->guest_debug & KVM_GUESTDBG_USE_SW_BP))
		return false;
	vcpu->vm->engine->state_sync(vcpu, REGS_SEG);
	exit->reason = EXIT_DEBUG;
	exit->debug.vector = VEC_BP;
	exit->debug.dr6 = 0;
	exit->debug.pc = vcpu->x86.seg[SEG_CS].base + vcpu->x86.rip;
	return true;
}

/** KVM_SET_GUEST_DEBUG. 0, -EINVAL, -EBUSY (an exception is already pending). */
int debug_ioctl_set(struct vcpu *vcpu, const struct kvm_guest_debug *dbg)
{
	if (dbg->control & ~GUESTDBG_VALID)
		return -EINVAL;
	if (dbg->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		struct x86_event ev = { .type = X86_EVENT_EXCEPTION };

		if (vcpu->events.exception.pending || vcpu->events.exception.injected)
			return -EBUSY;
		ev.vector = dbg->control & KVM_GUESTDBG_INJECT_DB ? VEC_DB : VEC_BP;
		vcpu_queue_exception(vcpu, &ev);
	}
	vcpu->guest_debug = dbg->control & KVM_GUESTDBG_ENABLE ? dbg->control : 0;
	if (vcpu->guest_debug & KVM_GUESTDBG_USE_HW_BP) {
		memcpy(vcpu->guest_debug_dr, dbg->arch.debugreg, sizeof(vcpu->guest_debug_dr));
		vcpu->guest_debug_dr7 = dbg->arch.debugreg[7];
	} else {
		memset(vcpu->guest_debug_dr, 0, sizeof(vcpu->guest_debug_dr));
		vcpu->guest_debug_dr7 = 0;
	}
	if (vcpu->guest_debug & KVM_GUESTDBG_SINGLESTEP)
		vcpu->singlestep_rip = vcpu->x86.seg[SEG_CS].base + vcpu->x86.rip;
	debug_update(vcpu);
	vcpu->vm->engine->state_changed(vcpu, REGS_DR);
	return 0;
}

void debug_get_regs(struct vcpu *vcpu, struct kvm_debugregs *regs)
{
	memset(regs, 0, sizeof(*regs));
	memcpy(regs->db, vcpu->x86.dr, sizeof(regs->db));
	regs->dr6 = vcpu->x86.dr6;
	regs->dr7 = vcpu->x86.dr7;
}

/** KVM_SET_DEBUGREGS: 0 or -EINVAL. */
int debug_set_regs(struct vcpu *vcpu, const struct kvm_debugregs *regs)
{
	if (regs->flags || regs->dr6 >> 32 || regs->dr7 >> 32)
		return -EINVAL;
	memcpy(vcpu->x86.dr, regs->db, sizeof(regs->db));
	vcpu->x86.dr6 = dr6_canonical(regs->dr6);
	vcpu->x86.dr7 = dr7_canonical(regs->dr7);
	debug_update(vcpu);
	vcpu->vm->engine->state_changed(vcpu, REGS_DR);
	return 0;
}
