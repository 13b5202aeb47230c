/*
 * The local APIC of a processor that does much of it by itself, in the guest's stead (SDM 3C chapter 29): it reads and writes the register page,
 * moves vectors from IRR to ISR as it delivers them, and ends them at an EOI. What it goes by, and what it leaves to be done.
 *
 *	if (lapic_may_be_virtual(vcpu))			before an entry
 *		lapic_virtual_state(vcpu, &state);	to the processor
 *	...
 *	lapic_written(vcpu, offset);			after an exit that tells of a write
 *	lapic_eoi_done(vcpu, vector);			or of an EOI
 *
 * The page is the whole truth between entries: nothing has to be told when a processor begins or ends to do this.
 */
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/chips.h"

bool lapic_may_be_virtual(struct vcpu *vcpu)
{
	const u64 *auto_eoi = vcpu->hyperv->auto_eoi;

	/* What is requested of an APIC that is software-disabled waits: SDM 3A 10.4.7.2. What ends by itself no processor knows: TLFS 11.8.4 */
	return vcpu->lapic && lapic_sw_enabled(vcpu->lapic) && likely(!(auto_eoi[0] | auto_eoi[1] | auto_eoi[2] | auto_eoi[3]));
}

void lapic_virtual_state(struct vcpu *vcpu, struct lapic_virtual *state)
{
	const struct lapic *l = vcpu->lapic;
	int irr = lapic_highest(l, APIC_IRR), isr = lapic_highest(l, APIC_ISR);

	state->requested = MAX(irr, 0);
	state->in_service = MAX(isr, 0);
	/* Who besides the local APIC has to hear of an EOI: lapic_eoi_done() */
	for (unsigned i = 0; i < 4; i++)
		state->eoi_exits[i] = vcpu->hyperv->vectors[i] | ioapic_edge_vectors(vcpu->vm->ioapic, i) |
				      lapic_reg(l, APIC_TMR + 32 * i) | (u64)lapic_reg(l, APIC_TMR + 32 * i + 16) << 32;
}

void lapic_written(struct vcpu *vcpu, unsigned offset)
{
	u32 value = lapic_reg(vcpu->lapic, offset);

	host_event_apic(true, offset, value);
	lapic_write_reg(vcpu->lapic, offset, value);
}

bool lapic_x2apic_is_plain(u32 msr)
{
	unsigned offset = (msr - X2APIC_MSR) << 4;

	/* The ICR's halves are apart in the page, and the current count is counted when somebody asks */
	return lapic_x2apic_readable(offset) && offset != APIC_ICR && offset != APIC_TMCCT;
}
