/*
 * VMCALL and VMMCALL: KVM's hypercalls (the KVM API document, "Linux KVM Hypercall"). Number in RAX, arguments in RBX, RCX,
 * RDX, RSI, result in RAX; 32 bits of each outside of 64-bit mode.
 */
#include "core/x86/hypercall.h"

#include <linux/kvm_para.h>

#include "core/x86/clock.h"
#include "core/x86/cpuid.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/irqchip.h"
#include "core/x86/mmu/walk.h"

#define NSEC_PER_SEC 1000000000ULL

#define ICR_VECTOR    0xff
#define ICR_MODE(icr) (((icr) >> 8) & 7)
#define ICR_LOGICAL   BIT64(11)
#define ICR_SHORTHAND (3ULL << 18)

static struct vcpu *vcpu_by_apic_id(struct vm *vm, u64 apic_id)
{
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, vm) {
		if (vcpu->lapic && vcpu->id == apic_id)
			return vcpu;
	}
	return NULL;
}

static s64 kick_cpu(struct vcpu *vcpu, u64 apic_id)
{
	struct vcpu *target = vcpu_by_apic_id(vcpu->vm, apic_id);

	if (target) {
		__atomic_store_n(&target->pv_unhalted, true, __ATOMIC_SEQ_CST);
		vcpu_request_kick(target, REQ_UNBLOCK);
	}
	return 0;
}

/* @low, @high: bit n stands for APIC ID @min + n. */
static s64 send_ipi(struct vcpu *vcpu, u64 low, u64 high, u64 min, u64 icr, bool mode64)
{
	struct lapic_irq irq = { .vector = icr & ICR_VECTOR, .delivery_mode = ICR_MODE(icr), .assert = true };
	unsigned width = mode64 ? 64 : 32;
	u64 words[2] = { low, high };
	s64 count = 0;

	if (!vcpu->lapic || (icr & (ICR_LOGICAL | ICR_SHORTHAND)))
		return -KVM_EINVAL;
	for (unsigned w = 0; w < 2; w++) {
		for (u64 bits = words[w]; bits; bits &= bits - 1) {
			struct vcpu *target = vcpu_by_apic_id(vcpu->vm, min + w * width + __builtin_ctzll(bits));

			if (!target)
				continue;
			irq.dest = target->id;
			if (irq_deliver(vcpu->vm, vcpu, &irq) > 0)
				count++;
		}
	}
	return count;
}

static s64 clock_pairing(struct vcpu *vcpu, u64 gpa, u64 type)
{
	struct kvm_clock_pairing pairing = { 0 };
	u64 now;

	if (type != KVM_CLOCK_PAIRING_WALLCLOCK || !clock_is_stable(vcpu->vm))
		return -KVM_EOPNOTSUPP;
	now = host_realtime_ns();
	pairing.tsc = vcpu_read_tsc(vcpu);
	pairing.sec = now / NSEC_PER_SEC;
	pairing.nsec = now % NSEC_PER_SEC;
	if (vm_write_guest(vcpu->vm, vcpu, vcpu_as_id(vcpu), gpa, &pairing, sizeof(pairing)))
		return -KVM_EFAULT;
	return 0;
}

/* To the client, who answers in run->hypercall.ret. */
static enum x86_result map_gpa_range(struct vcpu *vcpu, u64 gpa, u64 pages, u64 attrs, bool mode64, s64 *ret)
{
	if (!(vcpu->vm->hypercall_exit_mask & BIT64(KVM_HC_MAP_GPA_RANGE))) {
		*ret = -KVM_ENOSYS;
		return X86_CONTINUE;
	}
	if (!pages || (gpa & (HOST_PAGE_SIZE - 1)) || gpa + pages * HOST_PAGE_SIZE <= gpa ||
	    pages > (1ULL << (52 - HOST_PAGE_SHIFT))) {
		*ret = -KVM_EINVAL;
		return X86_CONTINUE;
	}
	vcpu->run->exit_reason = KVM_EXIT_HYPERCALL;
	vcpu->run->hypercall.nr = KVM_HC_MAP_GPA_RANGE;
	vcpu->run->hypercall.args[0] = gpa;
	vcpu->run->hypercall.args[1] = pages;
	vcpu->run->hypercall.args[2] = attrs;
	vcpu->run->hypercall.ret = 0;
	vcpu->run->hypercall.longmode = mode64;
	vcpu->hypercall_pending = true;
	vcpu->io.exit = EXIT_USER;
	return X86_EXIT;
}

const char *hypercall_insn(const struct vcpu *vcpu)
{
	const char *own = vcpu->vm->engine->hypercall_insn;

	if (own)
		return own;
	return cpuid_vendor_is_amd(vcpu) ? VMMCALL_INSN : VMCALL_INSN;
}

bool hypercall_fix(struct vcpu *vcpu, const char *theirs, const char *own)
{
	const struct x86_state *st = &vcpu->x86;
	u32 user = st->cpl == 3 ? PFERR_U : 0;
	struct walk_result walk;
	u8 insn[HYPERCALL_LEN];
	u64 la = st->rip;

	if (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_FIX_HYPERCALL_INSN)
		return false;
	vcpu->vm->engine->state_sync(vcpu, REGS_SEG | REGS_CR);
	if (st->mode != X86_MODE_LONG)
		la = (u32)(la + st->seg[SEG_CS].base);
	if ((la & (HOST_PAGE_SIZE - 1)) + HYPERCALL_LEN > HOST_PAGE_SIZE || !mmu_walk(vcpu, la, PFERR_I | user, false, &walk) ||
	    vm_read_guest(vcpu->vm, vcpu_as_id(vcpu), walk.gpa, insn, HYPERCALL_LEN) || memcmp(insn, theirs, HYPERCALL_LEN))
		return false;
	/* Where the guest may not write it stays, and is recognized each time */
	if (mmu_walk(vcpu, la, PFERR_W | user, false, &walk))
		vm_write_guest(vcpu->vm, vcpu, vcpu_as_id(vcpu), walk.gpa, own, HYPERCALL_LEN);
	return true;
}

enum x86_result hypercall_run(struct vcpu *vcpu)
{
	struct x86_state *s = &vcpu->x86;
	bool mode64 = s->mode == X86_MODE_LONG;
	u64 mask = mode64 ? ~0ULL : 0xffffffffULL;
	u64 nr = s->gpr[REG_AX] & mask, a0 = s->gpr[REG_BX] & mask, a1 = s->gpr[REG_CX] & mask,
	    a2 = s->gpr[REG_DX] & mask, a3 = s->gpr[REG_SI] & mask;
	enum x86_result r = X86_CONTINUE;
	s64 ret = -KVM_ENOSYS;

	vcpu->stats->hypercalls++;
	if (unlikely(hyperv_hypercalls(vcpu)))
		return hyperv_hypercall(vcpu);
	host_event_hypercall(nr, a0, a1, a2, a3);
	if (s->cpl) {
		ret = -KVM_EPERM;
	} else {
		switch (nr) {
		case KVM_HC_VAPIC_POLL_IRQ: ret = 0; break;
		case KVM_HC_KICK_CPU:
			if (vcpu_has_pv(vcpu, KVM_FEATURE_PV_UNHALT))
				ret = kick_cpu(vcpu, a1);
			break;
		case KVM_HC_CLOCK_PAIRING: ret = clock_pairing(vcpu, a0, a1); break;
		case KVM_HC_SEND_IPI:
			if (vcpu_has_pv(vcpu, KVM_FEATURE_PV_SEND_IPI))
				ret = send_ipi(vcpu, a0, a1, a2, a3, mode64);
			break;
		case KVM_HC_SCHED_YIELD:
			if (vcpu_has_pv(vcpu, KVM_FEATURE_PV_SCHED_YIELD)) {
				host_cond_resched();
				ret = 0;
			}
			break;
		case KVM_HC_MAP_GPA_RANGE: r = map_gpa_range(vcpu, a0, a1, a2, mode64, &ret); break;
		}
	}
	if (r == X86_CONTINUE)
		s->gpr[REG_AX] = (u64)ret & mask;
	vcpu->regs_dirty |= REGS_GPR;
	return r;
}

void hypercall_complete(struct vcpu *vcpu)
{
	u64 ret = vcpu->run->hypercall.ret;

	vcpu->hypercall_pending = false;
	vcpu->x86.gpr[REG_AX] = vcpu->x86.mode == X86_MODE_LONG ? ret : (u32)ret;
	vcpu->regs_dirty |= REGS_GPR;
}
