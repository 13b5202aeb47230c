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
 * AMD's (AVIC, APM 2 15.29) are told less and tell less: lapic_obstacles() and what follows it.
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

unsigned lapic_obstacles(struct vcpu *vcpu)
{
	const struct lapic *l = vcpu->lapic;
	unsigned found = 0;

	if (!l || vcpu->vm->irqchip != IRQCHIP_KERNEL)
		return LAPIC_CHIPS_ELSEWHERE;
	if (lapic_accepts_pic(l))
		found |= LAPIC_TAKES_PIC;
	if (lapic_hw_enabled(l) && lapic_id(vcpu) != vcpu->id)
		found |= LAPIC_OTHER_ID;
	for (unsigned i = 0; i < 4; i++) {
		if (ioapic_edge_vectors(vcpu->vm->ioapic, i))
			found |= LAPIC_EOI_HEARD;
		if (vcpu->hyperv->vectors[i]) /* those of auto_eoi are among them */
			found |= LAPIC_SYNIC;
	}
	if ((vcpu->guest_debug & KVM_GUESTDBG_BLOCKIRQ) || (!lapic_sw_enabled(l) && lapic_highest(l, APIC_IRR) >= 0))
		found |= LAPIC_HELD_BACK;
	return found;
}

void lapic_get_names(struct vcpu *vcpu, struct lapic_names *names)
{
	const struct lapic *l = vcpu->lapic;

	*names = (struct lapic_names){ .place = lapic_place(vcpu) };
	if (!l)
		return;
	names->enabled = lapic_sw_enabled(l);
	names->id = lapic_id(vcpu);
	names->ldr = lapic_reg(l, APIC_LDR) >> 24;
	names->dfr = lapic_reg(l, APIC_DFR) >> 28;
}

void lapic_refresh_page(struct vcpu *vcpu)
{
	lapic_set_reg(vcpu->lapic, APIC_PPR, lapic_ppr(vcpu->lapic));
}

void lapic_ipi_left(struct vcpu *vcpu, u32 low, u32 high, bool requested)
{
	struct lapic *l = vcpu->lapic;
	u32 dest = lapic_is_x2apic(l) ? high : high >> 24;
	struct lapic_irq irq = lapic_ipi(low, dest);

	/* Whether the processor leaves this set is not said */
	lapic_set_reg(l, APIC_ICR, lapic_reg(l, APIC_ICR) & ~APIC_ICR_BUSY);
	if (requested)
		irq_tell(vcpu->vm, vcpu, &irq);
	else
		lapic_send_ipi(l, low, dest);
}

void lapic_eoi_left(struct vcpu *vcpu, u8 vector)
{
	struct lapic *l = vcpu->lapic;

	/* Vectors that cannot be in service are no answer to which it was */
	if (vector < 16 || lapic_highest(l, APIC_ISR) == vector)
		lapic_eoi(l);
	else
		lapic_eoi_done(vcpu, vector);
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

void lapic_take_back(struct vcpu *vcpu, u8 vector)
{
	lapic_clear_vector(vcpu->lapic, APIC_ISR, vector);
	lapic_set_requests(vcpu->lapic, vector / 32, 1U << (vector % 32));
	vcpu_set_request(vcpu, REQ_EVENT);
}

bool lapic_x2apic_is_plain(u32 msr)
{
	unsigned offset = (msr - X2APIC_MSR) << 4;

	/* The ICR's halves are apart in the page, and the current count is counted when somebody asks */
	return lapic_x2apic_readable(offset) && offset != APIC_ICR && offset != APIC_TMCCT;
}
