/* Exceptions that meet exceptions, NMIs, and all of it through KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS. */
#include "core/x86/events.h"

#include <errno.h>

#include "tests/tap.h"
#include "tests/x86/fake.h"

static struct machine m;

static void clear(void)
{
	memset(&m.vcpu->events, 0, sizeof(m.vcpu->events));
	m.vcpu->requests = 0;
}

/* SDM 3A table 6-5 */
static void merging(void)
{
	static const struct {
		u8 first, second;
		u8 result; /* 0xff: shutdown */
	} cases[] = {
		{ VEC_UD, VEC_GP, VEC_GP }, { VEC_GP, VEC_UD, VEC_UD }, { VEC_GP, VEC_GP, VEC_DF }, { VEC_NP, VEC_SS, VEC_DF },
		{ VEC_DE, VEC_TS, VEC_DF }, { VEC_GP, VEC_PF, VEC_PF }, { VEC_PF, VEC_GP, VEC_DF }, { VEC_PF, VEC_PF, VEC_DF },
		{ VEC_PF, VEC_UD, VEC_UD }, { VEC_DB, VEC_PF, VEC_PF }, { VEC_DF, VEC_GP, 0xff }, { VEC_DF, VEC_PF, 0xff },
		{ VEC_AC, VEC_GP, VEC_GP }, { VEC_MF, VEC_DE, VEC_DE },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct x86_event *ev = &m.vcpu->events.exception.ev;

		clear();
		vcpu_queue_fault(m.vcpu, cases[i].first, false, 0);
		m.vcpu->events.exception.injected = true;
		m.vcpu->events.exception.pending = false;
		vcpu_queue_fault(m.vcpu, cases[i].second, true, 5);
		if (cases[i].result == 0xff)
			tap_ok(vcpu_test_request(m.vcpu, REQ_TRIPLE_FAULT) && !m.vcpu->events.exception.pending,
			       "vector %u while %u is delivered: shutdown", cases[i].second, cases[i].first);
		else
			tap_ok(ev->vector == cases[i].result && m.vcpu->events.exception.pending &&
				       !m.vcpu->events.exception.injected &&
				       ev->error == (cases[i].result == VEC_DF ? 0U : 5U),
			       "vector %u while %u is delivered: vector %u", cases[i].second, cases[i].first, cases[i].result);
	}
	clear();
}

static void windows(void)
{
	struct x86_state *s = &m.vcpu->x86;

	machine_real_mode(&m, 0x1000);
	clear();
	s->rflags |= RFLAGS_IF;
	tap_ok(vcpu_interrupt_allowed(m.vcpu), "interrupts are allowed with IF");
	s->shadow = SHADOW_STI;
	tap_ok(!vcpu_interrupt_allowed(m.vcpu) && vcpu_nmi_allowed(m.vcpu), "not behind STI; NMIs are");
	s->shadow = SHADOW_MOVSS;
	tap_ok(!vcpu_interrupt_allowed(m.vcpu) && !vcpu_nmi_allowed(m.vcpu), "neither behind MOV SS");
	s->shadow = 0;
	m.vcpu->guest_debug = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ;
	tap_ok(!vcpu_interrupt_allowed(m.vcpu), "not while the client blocks them");
	m.vcpu->events.nmi.pending = 1;
	vcpu_inject_events(m.vcpu);
	tap_ok(m.vcpu->events.nmi.pending == 1 && !m.vcpu->events.nmi.injected, "nor is an NMI given then: it waits");
	clear();
	m.vcpu->guest_debug = 0;
	vcpu_queue_fault(m.vcpu, VEC_GP, true, 0);
	tap_ok(!vcpu_interrupt_allowed(m.vcpu) && !vcpu_nmi_allowed(m.vcpu), "neither before a pending exception");
	clear();
	s->nmi_masked = true;
	tap_ok(vcpu_interrupt_allowed(m.vcpu) && !vcpu_nmi_allowed(m.vcpu), "an NMI masks NMIs alone");
	events_process_nmi(m.vcpu);
	events_process_nmi(m.vcpu);
	tap_ok(m.vcpu->events.nmi.pending == 1, "one NMI is remembered while another is handled");
	s->nmi_masked = false;
	events_process_nmi(m.vcpu);
	events_process_nmi(m.vcpu);
	tap_ok(m.vcpu->events.nmi.pending == 2, "two otherwise");
	clear();
}

static long get(struct kvm_vcpu_events *ev)
{
	return machine_ioctl(m.vcpu_fd, KVM_GET_VCPU_EVENTS, ev);
}

static long set(const struct kvm_vcpu_events *ev)
{
	return machine_ioctl(m.vcpu_fd, KVM_SET_VCPU_EVENTS, ev);
}

static void by_client(void)
{
	struct kvm_enable_cap payload = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } },
			      triple = { .cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT, .args = { 1 } };
	struct x86_event pf = { .vector = VEC_PF, .type = X86_EVENT_EXCEPTION, .has_error = true, .error = 2,
				.has_payload = true, .payload = 0xdead000 };
	struct kvm_vcpu_events ev, out;

	machine_real_mode(&m, 0x1000);
	clear();
	tap_ok(!get(&ev) && ev.flags == (KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
					 KVM_VCPUEVENT_VALID_SMM) &&
		       !ev.exception.injected && !ev.nmi.pending,
	       "events: none at first");
	m.vcpu->x86.cr2 = 0;
	vcpu_queue_exception(m.vcpu, &pf);
	get(&ev);
	tap_ok(ev.exception.injected && ev.exception.nr == VEC_PF && ev.exception.error_code == 2 && m.vcpu->x86.cr2 == 0xdead000,
	       "events: a client without payloads sees a pending #PF as injected, and CR2 set");
	clear();
	machine_ioctl(m.vm_fd, KVM_ENABLE_CAP, &payload);
	m.vcpu->x86.cr2 = 0;
	vcpu_queue_exception(m.vcpu, &pf);
	get(&ev);
	tap_ok(!ev.exception.injected && ev.exception.pending && ev.exception_has_payload &&
		       ev.exception_payload == 0xdead000 && !m.vcpu->x86.cr2,
	       "events: with payloads it is pending, and CR2 is as it was");
	clear();
	tap_ok(!set(&ev) && m.vcpu->events.exception.pending && m.vcpu->events.exception.ev.payload == 0xdead000,
	       "events: and comes back so");
	ev.flags = 1U << 30;
	tap_ok(set(&ev) == -EINVAL, "events: unknown flags are EINVAL");
	memset(&ev, 0, sizeof(ev));
	ev.exception.injected = 1;
	ev.exception.nr = 32;
	tap_ok(set(&ev) == -EINVAL, "events: vector 32 is no exception");
	ev.exception.nr = 2;
	tap_ok(set(&ev) == -EINVAL, "events: nor is 2");
	memset(&ev, 0, sizeof(ev));
	ev.flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	ev.triple_fault.pending = 1;
	tap_ok(set(&ev) == -EINVAL, "events: the triple fault needs its capability");
	machine_ioctl(m.vm_fd, KVM_ENABLE_CAP, &triple);
	tap_ok(!set(&ev) && vcpu_test_request(m.vcpu, REQ_TRIPLE_FAULT) && !get(&out) && out.triple_fault.pending,
	       "events: with it, it is kept");
	machine_code(&m, 0x1000, "\xf4", 1);
	tap_ok(!machine_run(&m) && m.run->exit_reason == KVM_EXIT_SHUTDOWN, "and ends the guest");
	memset(&ev, 0, sizeof(ev));
	ev.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING;
	ev.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	ev.nmi.masked = 1;
	ev.nmi.pending = 1;
	set(&ev);
	get(&out);
	tap_ok(out.interrupt.shadow == KVM_X86_SHADOW_INT_MOV_SS && out.nmi.masked && out.nmi.pending,
	       "events: shadow and NMI come back");
	memset(&ev, 0, sizeof(ev));
	ev.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING;
	ev.interrupt.injected = 1;
	ev.interrupt.nr = 0x33;
	set(&ev);
	get(&out);
	tap_ok(out.interrupt.injected && out.interrupt.nr == 0x33, "events: an interrupt in flight comes back");
	put32(&m, 0x33 * 4, 0x2000);
	machine_code(&m, 0x2000, "\xf4", 1);
	tap_ok(!machine_run(&m) && m.run->exit_reason == KVM_EXIT_HLT && m.vcpu->x86.rip == 0x2001,
	       "and is delivered whatever IF says");
}

int main(void)
{
	tap_begin();
	machine_init(&m, 1, false);
	merging();
	windows();
	by_client();
	machine_destroy(&m);
	return tap_end();
}
