/*
 * Exceptions, NMIs, SMIs and interrupts on their way into the guest: queueing and merging (SDM 3A 6.15, table 6-5), who goes
 * first (table 6-2), when the guest can take one, and the state of all this for the client.
 *
 * An event is pending until the guest may take it, injected from then until the engine reports that it went through the
 * IDT; what is injected when the guest stops is injected again, for the client may move it to another machine.
 */
#include "core/x86/events.h"

#include "core/x86/debug.h"
#include "core/x86/irqchip/irqchip.h"

/* SDM 3A table 6-4 */
enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

static enum fault_class class_of(u8 vector)
{
	switch (vector) {
	case VEC_PF: return PAGE_FAULT;
	case VEC_DE:
	case VEC_TS:
	case VEC_NP:
	case VEC_SS:
	case VEC_GP: return CONTRIBUTORY;
	default: return BENIGN;
	}
}

void vcpu_queue_exception(struct vcpu *vcpu, const struct x86_event *ev)
{
	struct vcpu_events *events = &vcpu->events;
	enum fault_class first, second;

	vcpu_set_request(vcpu, REQ_EVENT);
	if (!events->exception.pending && !events->exception.injected) {
		events->exception.pending = true;
		events->exception.ev = *ev;
		return;
	}
	if (events->exception.ev.vector == VEC_DF) {
		/* SDM 3A 6.15: a fault while #DF is delivered shuts the processor down */
		events->exception.pending = events->exception.injected = false;
		vcpu_set_request(vcpu, REQ_TRIPLE_FAULT);
		return;
	}
	first = class_of(events->exception.ev.vector);
	second = class_of(ev->vector);
	if ((first == CONTRIBUTORY && second == CONTRIBUTORY) || (first == PAGE_FAULT && second != BENIGN))
		events->exception.ev = (struct x86_event){ .vector = VEC_DF, .type = X86_EVENT_EXCEPTION,
							   .has_error = true };
	else
		events->exception.ev = *ev; /* the first is lost: its instruction runs again and raises it again */
	events->exception.pending = true;
	events->exception.injected = false;
}

void vcpu_queue_fault(struct vcpu *vcpu, u8 vector, bool has_error, u32 error)
{
	vcpu_queue_exception(vcpu, &(struct x86_event){ .vector = vector, .type = X86_EVENT_EXCEPTION,
							.has_error = has_error, .error = error });
}

static bool in_flight(const struct vcpu *vcpu)
{
	return vcpu->events.exception.injected || vcpu->events.nmi.injected || vcpu->events.interrupt.injected;
}

/* Data of a port that the client has already read belong to this instruction and to no handler's. */
static bool in_batch(const struct vcpu *vcpu)
{
	return vcpu->io.batch.state == IO_BATCH_IN_READY;
}

/* Not by the guest, so that no window opens: it would be open at once, and no instruction run. */
static bool interrupts_held(const struct vcpu *vcpu)
{
	return in_batch(vcpu) || (vcpu->guest_debug & KVM_GUESTDBG_BLOCKIRQ);
}

bool vcpu_interrupt_allowed(struct vcpu *vcpu)
{
	return (vcpu->x86.rflags & RFLAGS_IF) && !vcpu->x86.shadow && !in_flight(vcpu) &&
	       !vcpu->events.exception.pending && !interrupts_held(vcpu);
}

bool vcpu_nmi_allowed(struct vcpu *vcpu)
{
	return !vcpu->x86.nmi_masked && !(vcpu->x86.shadow & SHADOW_MOVSS) && !in_flight(vcpu) &&
	       !vcpu->events.exception.pending && !in_batch(vcpu);
}

/* CR2 and DR6 change when the exception is taken, not when it is raised. */
void vcpu_deliver_payload(struct vcpu *vcpu)
{
	struct x86_event *ev = &vcpu->events.exception.ev;

	if (!ev->has_payload)
		return;
	switch (ev->vector) {
	case VEC_DB:
		/* SDM 3B 17.2.3: B0-B3 are of this exception alone, the rest stays until software clears it */
		vcpu->x86.dr6 = DR6_FIXED_1 | (vcpu->x86.dr6 & (DR6_BD | DR6_BS | DR6_BT)) |
				(ev->payload & DR6_WRITABLE);
		vcpu->regs_dirty |= REGS_DR;
		break;
	case VEC_PF:
		vcpu->x86.cr2 = ev->payload;
		vcpu->regs_dirty |= REGS_CR;
		break;
	}
	ev->has_payload = false;
	ev->payload = 0;
}

static void inject_exception(struct vcpu *vcpu)
{
	struct x86_event *ev = &vcpu->events.exception.ev;

	vcpu_deliver_payload(vcpu);
	if (ev->vector == VEC_DB && (vcpu->x86.dr7 & DR7_GD)) {
		/* SDM 3B 17.2.4: cleared on entry to the handler, so that it can use the registers */
		vcpu->x86.dr7 &= ~DR7_GD;
		debug_update(vcpu);
		vcpu->regs_dirty |= REGS_DR;
	}
	/* In real mode there are no error codes: SDM 3A 20.1.4 */
	if (!(vcpu->x86.cr0 & CR0_PE))
		ev->has_error = false;
	vcpu->events.exception.pending = false;
	host_event_inj_exception(ev->vector, ev->has_error, ev->error, vcpu->events.exception.injected);
	vcpu->events.exception.injected = true;
	vcpu->vm->engine->inject(vcpu, ev);
}

/* Exceptions, then what was on its way when the guest stopped. */
static bool reinject(struct vcpu *vcpu)
{
	const struct engine_ops *engine = vcpu->vm->engine;
	struct x86_event ev = { 0 };

	/* A pending exception belongs to the instruction before: what the client injected since waits until it is taken */
	if (vcpu->events.exception.injected || vcpu->events.exception.pending) {
		inject_exception(vcpu);
		if (vcpu->events.nmi.injected || vcpu->events.interrupt.injected)
			vcpu_set_request(vcpu, REQ_EVENT);
		return true;
	}
	if (vcpu->events.nmi.injected) {
		ev.vector = VEC_NMI;
		ev.type = X86_EVENT_NMI;
		engine->inject(vcpu, &ev);
		return true;
	}
	if (vcpu->events.interrupt.injected) {
		ev.vector = vcpu->events.interrupt.vector;
		ev.type = vcpu->events.interrupt.soft ? X86_EVENT_SOFT_INT : X86_EVENT_INTR;
		ev.insn_len = vcpu->events.interrupt.soft ? vcpu->events.interrupt.soft_len : 0;
		host_event_inj_virq(ev.vector, vcpu->events.interrupt.soft, true);
		engine->inject(vcpu, &ev);
		return true;
	}
	return false;
}

/* Whether the LAPIC's interrupts are delivered by the processor, which knows what the guest holds back. */
static bool interrupts_are_virtual(struct vcpu *vcpu)
{
	const struct engine_ops *engine = vcpu->vm->engine;

	return engine->virtual_interrupts &&
	       engine->virtual_interrupts(vcpu, lapic_may_be_virtual(vcpu) && !interrupts_held(vcpu));
}

static bool has_interrupt(struct vcpu *vcpu, bool virtual)
{
	if (vcpu->vm->irqchip == IRQCHIP_NONE)
		return false;
	return virtual ? irqchip_has_external(vcpu) : irqchip_has_interrupt(vcpu);
}

void vcpu_inject_events(struct vcpu *vcpu)
{
	const struct engine_ops *engine = vcpu->vm->engine;
	struct vcpu_events *events = &vcpu->events;
	bool busy = reinject(vcpu), virtual;

	if (vcpu->lapic)
		lapic_collect(vcpu->lapic);
	/* The KVM API, KVM_SET_GUEST_DEBUG: no SMI, NMI or interrupt. Nor does anybody wait for a moment to give one */
	if (unlikely(vcpu->guest_debug & KVM_GUESTDBG_BLOCKIRQ)) {
		interrupts_are_virtual(vcpu); /* they are not */
		return;
	}
	/* SDM 3A table 6-2: after the traps of the last instruction SMI, then NMI, then interrupts */
	if (events->smi_pending && !vcpu->x86.smm && !busy) {
		events->smi_pending = false;
		smm_enter(vcpu);
	}
	if (events->nmi.pending) {
		if (!busy && vcpu_nmi_allowed(vcpu)) {
			events->nmi.pending--;
			events->nmi.injected = true;
			vcpu->x86.nmi_masked = true;
			vcpu->stats->nmi_injections++;
			engine->inject(vcpu, &(struct x86_event){ .vector = VEC_NMI, .type = X86_EVENT_NMI });
			busy = true;
		}
		if (events->nmi.pending && !in_batch(vcpu))
			engine->request_window(vcpu, true);
	}
	virtual = interrupts_are_virtual(vcpu);
	if (interrupts_held(vcpu))
		return;
	if (has_interrupt(vcpu, virtual)) {
		if (!busy && vcpu_interrupt_allowed(vcpu)) {
			int vector = irqchip_ack_interrupt(vcpu);

			if (vector >= 0) {
				events->interrupt.injected = true;
				events->interrupt.soft = false;
				events->interrupt.vector = vector;
				vcpu->stats->irq_injections++;
				host_event_inj_virq(vector, false, false);
				engine->inject(vcpu, &(struct x86_event){ .vector = vector, .type = X86_EVENT_INTR });
			}
		}
		if (has_interrupt(vcpu, virtual))
			engine->request_window(vcpu, false);
	} else if (vcpu->request_irq_window) {
		engine->request_window(vcpu, false);
	}
}

void events_process_nmi(struct vcpu *vcpu)
{
	/* One may wait behind the one that is being handled; else two: SDM 3A 6.7.1 */
	u32 limit = vcpu->x86.nmi_masked || vcpu->events.nmi.injected ? 1 : 2;

	vcpu->events.nmi.pending = MIN(vcpu->events.nmi.pending + 1, limit);
}

void events_get(struct vcpu *vcpu, struct kvm_vcpu_events *out)
{
	struct vcpu_events *ev = &vcpu->events;
	const struct x86_event *x = &ev->exception.ev;
	bool soft = x->type == X86_EVENT_SOFT_EXC;

	memset(out, 0, sizeof(*out));
	/* NMIs and SMIs that nobody looked at yet are as pending as the others */
	if (vcpu_take_request(vcpu, REQ_NMI))
		events_process_nmi(vcpu);
	if (vcpu_take_request(vcpu, REQ_SMI))
		ev->smi_pending = true;
	/* A client that does not know payloads is shown CR2 and DR6 as they will be */
	if (ev->exception.pending && !vcpu->vm->exception_payload)
		vcpu_deliver_payload(vcpu);
	x = &ev->exception.ev;
	/* INT3 and INTO will be executed again, so they are not events */
	if (!soft) {
		out->exception.injected = ev->exception.injected;
		out->exception.pending = ev->exception.pending;
		if (!vcpu->vm->exception_payload)
			out->exception.injected |= ev->exception.pending;
	}
	if (ev->exception.pending || ev->exception.injected) {
		out->exception.nr = x->vector;
		out->exception.has_error_code = x->has_error;
		out->exception.error_code = x->error;
		out->exception_has_payload = x->has_payload;
		out->exception_payload = x->payload;
	}
	out->interrupt.injected = ev->interrupt.injected && !ev->interrupt.soft;
	out->interrupt.nr = ev->interrupt.vector;
	out->interrupt.shadow = (vcpu->x86.shadow & SHADOW_STI ? KVM_X86_SHADOW_INT_STI : 0) |
				(vcpu->x86.shadow & SHADOW_MOVSS ? KVM_X86_SHADOW_INT_MOV_SS : 0);
	out->nmi.injected = ev->nmi.injected;
	out->nmi.pending = ev->nmi.pending != 0;
	out->nmi.masked = vcpu->x86.nmi_masked;
	out->smi.smm = vcpu->x86.smm;
	out->smi.pending = ev->smi_pending;
	out->smi.smm_inside_nmi = vcpu->smm_inside_nmi;
	out->smi.latched_init = ev->smi_latched_init || (vcpu->x86.smm && lapic_has_init_or_sipi(vcpu));
	out->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
	if (vcpu->vm->exception_payload)
		out->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (vcpu->vm->triple_fault_event) {
		out->triple_fault.pending = vcpu_test_request(vcpu, REQ_TRIPLE_FAULT);
		out->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	}
}

int events_set(struct vcpu *vcpu, const struct kvm_vcpu_events *in)
{
	struct vcpu_events *ev = &vcpu->events;
	bool injected = in->exception.injected, pending = in->exception.pending, payload = in->exception_has_payload;

	if (in->flags & ~(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			  KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM | KVM_VCPUEVENT_VALID_PAYLOAD |
			  KVM_VCPUEVENT_VALID_TRIPLE_FAULT))
		return -EINVAL;
	if (in->flags & KVM_VCPUEVENT_VALID_PAYLOAD) {
		if (!vcpu->vm->exception_payload)
			return -EINVAL;
		if (pending)
			injected = false;
		else
			payload = false;
	} else {
		pending = payload = false;
	}
	if ((injected || pending) && (in->exception.nr > 31 || in->exception.nr == VEC_NMI))
		return -EINVAL;
	/* INIT is latched in SMM: both at once cannot be */
	if ((in->flags & KVM_VCPUEVENT_VALID_SMM) && (in->smi.smm || in->smi.pending) &&
	    vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return -EINVAL;
	if ((in->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) && !vcpu->vm->triple_fault_event)
		return -EINVAL;

	ev->exception.injected = injected;
	ev->exception.pending = pending;
	ev->exception.ev = (struct x86_event){ .vector = in->exception.nr, .type = X86_EVENT_EXCEPTION,
					       .has_error = in->exception.has_error_code,
					       .error = in->exception.error_code, .has_payload = payload,
					       .payload = in->exception_payload };
	ev->interrupt.injected = in->interrupt.injected;
	ev->interrupt.vector = in->interrupt.nr;
	ev->interrupt.soft = in->interrupt.soft;
	ev->interrupt.soft_len = 0;
	if (in->flags & KVM_VCPUEVENT_VALID_SHADOW)
		vcpu->x86.shadow = (in->interrupt.shadow & KVM_X86_SHADOW_INT_STI ? SHADOW_STI : 0) |
				   (in->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOVSS : 0);
	ev->nmi.injected = in->nmi.injected;
	if (in->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
		ev->nmi.pending = !!in->nmi.pending;
	vcpu->x86.nmi_masked = in->nmi.masked;
	if (in->flags & KVM_VCPUEVENT_VALID_SMM) {
		vcpu->x86.smm = in->smi.smm;
		ev->smi_pending = in->smi.pending;
		vcpu->smm_inside_nmi = in->smi.smm && in->smi.smm_inside_nmi;
		ev->smi_latched_init = in->smi.smm && in->smi.latched_init;
	}
	if (in->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) {
		if (in->triple_fault.pending)
			vcpu_set_request(vcpu, REQ_TRIPLE_FAULT);
		else
			vcpu_take_request(vcpu, REQ_TRIPLE_FAULT);
	}
	vcpu_set_request(vcpu, REQ_EVENT);
	vcpu->vm->engine->state_changed(vcpu, REGS_CR | REGS_DR);
	return 0;
}

int events_ioctl_interrupt(struct vcpu *vcpu, u32 vector)
{
	if (vector > 255)
		return -EINVAL;
	switch (vcpu->vm->irqchip) {
	case IRQCHIP_NONE:
		vcpu->events.interrupt.injected = true;
		vcpu->events.interrupt.soft = false;
		vcpu->events.interrupt.vector = vector;
		break;
	case IRQCHIP_KERNEL: return -ENXIO;
	default:
		if (vcpu->pending_external_vector >= 0)
			return -EEXIST;
		vcpu->pending_external_vector = vector;
		break;
	}
	vcpu_set_request(vcpu, REQ_EVENT);
	return 0;
}
