/*
 * The synthetic interrupt controller (TLFS chapter 11): sixteen interrupt sources of each virtual processor, each with a vector of the
 * local APIC's and a slot for a message; its synthetic timers (TLFS 12.4); and the eventfds that HvCallSignalEvent reaches.
 *
 * Messages but for the timers' and all event flags are the client's to write, into the pages whose addresses it is told.
 */
#include "core/x86/hyperv/hyperv.h"

#include "core/x86/irqchip/chips.h"

#define SYNIC_VERSION  1
#define SYNIC_ENABLE   BIT64(0) /* of SCONTROL, SIEFP and SIMP */
#define SYNIC_PAGE     MASK64(51, 12)
#define SINT_VECTOR(s) ((u8)(s))
#define SINT_MASKED    BIT64(16)
#define SINT_AUTO_EOI  BIT64(17)
#define SINT_POLLING   BIT64(18)
#define SINT_RESET     SINT_MASKED
#define FIRST_VECTOR   16

#define STIMER_ENABLE	   BIT64(0)
#define STIMER_PERIODIC	   BIT64(1)
#define STIMER_AUTO_ENABLE BIT64(3)
#define STIMER_VECTOR(c)   ((u8)((c) >> 4))
#define STIMER_DIRECT	   BIT64(12)
#define STIMER_SINT(c)	   ((c) >> 16 & 0xf)
#define STIMER_WRITABLE	   (0xf0000ULL | MASK64(12, 0))
/* In units of 100 ns: a guest may not keep a host CPU busy with its own timer. */
#define STIMER_MIN_PERIOD 1000ULL
#define STIMER_MAX_PERIOD BIT64(62) /* so that sums do not wrap */

#define MESSAGE_TIMER_EXPIRED 0x80000010
#define MESSAGE_PENDING	      1

/* A slot of the message page, TLFS 11.7.3, with a timer's payload. */
struct timer_message {
	u32 type; /* 0: the slot is free */
	u8 payload_size, flags;
	u8 reserved[2];
	u64 sender;
	u32 timer_index, reserved2;
	u64 expiration_time, delivery_time;
};
_Static_assert(sizeof(struct timer_message) == 40, "TLFS 12.4.5");
#define MESSAGE_SIZE 256

/* ---- interrupt sources ---------------------------------------------------------------------------------------- */

long synic_enable(struct vcpu *vcpu, bool keep_pages)
{
	if (!vcpu->lapic)
		return -EINVAL;
	vcpu->hyperv->keep_pages = keep_pages;
	__atomic_store_n(&vcpu->hyperv->active, true, __ATOMIC_RELEASE);
	return 0;
}

static int raise(struct vcpu *vcpu, u32 sint)
{
	u64 value = __atomic_load_n(&vcpu->hyperv->sint[sint], __ATOMIC_RELAXED);
	int r;

	if (!__atomic_load_n(&vcpu->hyperv->active, __ATOMIC_ACQUIRE) || (value & SINT_MASKED))
		return -1;
	if (value & SINT_POLLING)
		return 0;
	r = lapic_accept(vcpu->lapic, &(struct lapic_irq){ .vector = SINT_VECTOR(value), .delivery_mode = APIC_DM_FIXED,
							   .assert = true });
	host_event_hv_synic_set_irq(vcpu->id, sint, SINT_VECTOR(value), r);
	return r;
}

int synic_set_sint(struct vm *vm, u32 vp_index, u32 sint)
{
	struct vcpu *vcpu;
	unsigned i;

	if (sint >= HV_SINTS)
		return -1;
	vm_for_each_vcpu(i, vcpu, vm) {
		if (__atomic_load_n(&vcpu->hyperv->vp_index, __ATOMIC_RELAXED) == vp_index)
			return raise(vcpu, sint);
	}
	return -1;
}

/* The guest is done with what it had from @sint: there is room for more. */
static void sint_acked(struct vcpu *vcpu, u32 sint)
{
	struct hv_vcpu *hv = vcpu->hyperv;

	host_event_hv_notify_acked_sint(vcpu->id, sint);
	irq_notify_sint_acked(vcpu->vm, hv->vp_index, sint);
	for (unsigned i = 0; i < HV_STIMERS; i++) {
		struct hv_stimer *s = &hv->stimer[i];

		if (s->blocked && STIMER_SINT(s->config) == sint) {
			__atomic_store_n(&s->expired, true, __ATOMIC_RELEASE);
			vcpu_set_request(vcpu, REQ_HYPERV_STIMER);
		}
	}
}

void synic_eoi(struct vcpu *vcpu, u8 vector)
{
	host_event_hv_synic_send_eoi(vcpu->id, vector);
	for (u32 i = 0; i < HV_SINTS; i++) {
		u64 value = vcpu->hyperv->sint[i];

		if (!(value & SINT_MASKED) && SINT_VECTOR(value) == vector)
			sint_acked(vcpu, i);
	}
}

static enum x86_result set_sint(struct vcpu *vcpu, u32 sint, u64 value, bool from_client)
{
	struct hv_vcpu *hv = vcpu->hyperv;

	/* TLFS 11.8.4 */
	if (!from_client && !(value & SINT_MASKED) && SINT_VECTOR(value) < FIRST_VECTOR)
		return X86_FAULT;
	__atomic_store_n(&hv->sint[sint], value, __ATOMIC_RELAXED);
	memset(hv->vectors, 0, sizeof(hv->vectors));
	memset(hv->auto_eoi, 0, sizeof(hv->auto_eoi));
	for (unsigned i = 0; i < HV_SINTS; i++) {
		u8 vector = SINT_VECTOR(hv->sint[i]);

		if (hv->sint[i] & SINT_MASKED)
			continue;
		hv->vectors[vector / 64] |= BIT64(vector % 64);
		if (hv->sint[i] & SINT_AUTO_EOI)
			hv->auto_eoi[vector / 64] |= BIT64(vector % 64);
	}
	return X86_CONTINUE;
}

/* SIEFP, SIMP */
static enum x86_result set_page(struct vcpu *vcpu, u32 index, u64 *page, u64 value, bool from_client)
{
	static const u8 zeros[MESSAGE_SIZE];

	if (!from_client && (value & SYNIC_ENABLE) && !vcpu->hyperv->keep_pages) {
		for (unsigned at = 0; at < HOST_PAGE_SIZE; at += sizeof(zeros)) {
			if (vm_write_guest(vcpu->vm, vcpu, vcpu_as_id(vcpu), (value & SYNIC_PAGE) + at, zeros, sizeof(zeros)))
				return X86_FAULT;
		}
	}
	*page = value;
	if (!from_client)
		hyperv_ask_exit(vcpu, HV_EXIT_SYNIC, index);
	return X86_CONTINUE;
}

/* ---- timers --------------------------------------------------------------------------------------------------- */

static void stimer_fire(struct host_timer *timer)
{
	struct hv_stimer *s = container_of(timer, struct hv_stimer, timer);

	__atomic_store_n(&s->expired, true, __ATOMIC_RELEASE);
	vcpu_request_kick(s->vcpu, REQ_HYPERV_STIMER);
}

void stimers_init(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < HV_SINTS; i++)
		vcpu->hyperv->sint[i] = SINT_RESET;
	for (unsigned i = 0; i < HV_STIMERS; i++) {
		struct hv_stimer *s = &vcpu->hyperv->stimer[i];

		s->vcpu = vcpu;
		s->index = i;
		host_timer_init(&s->timer, stimer_fire);
	}
}

void stimers_destroy(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < HV_STIMERS; i++)
		host_timer_cancel(&vcpu->hyperv->stimer[i].timer);
}

static void stimer_arm(struct hv_stimer *s, u64 now)
{
	u64 units = s->expiration > now ? s->expiration - now : 0;

	host_timer_start(&s->timer, host_now_ns() + MIN(units, 1ULL << 55) * 100);
}

static u64 stimer_period(const struct hv_stimer *s)
{
	return MIN(MAX(s->count, STIMER_MIN_PERIOD), STIMER_MAX_PERIOD);
}

static void stimer_start(struct hv_stimer *s)
{
	u64 now;

	host_timer_cancel(&s->timer);
	__atomic_store_n(&s->expired, false, __ATOMIC_RELAXED);
	s->blocked = false;
	if (!(s->config & STIMER_ENABLE) || !s->count)
		return;
	now = hyperv_time(s->vcpu);
	/* Once: COUNT is when; a moment in the past is now. TLFS 12.4.1 */
	s->expiration = s->config & STIMER_PERIODIC ? now + stimer_period(s) : s->count;
	stimer_arm(s, now);
}

void stimers_restart(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < HV_STIMERS; i++) {
		if (vcpu->hyperv->stimer[i].config & STIMER_ENABLE)
			stimer_start(&vcpu->hyperv->stimer[i]);
	}
}

/* Into the slot of @sint. False: there is something in it, the guest will write EOM; or there is no page. */
static bool post_message(struct vcpu *vcpu, u32 sint, const struct timer_message *message)
{
	struct hv_vcpu *hv = vcpu->hyperv;
	u64 gpa = (hv->simp & SYNIC_PAGE) + sint * MESSAGE_SIZE;
	unsigned as_id = vcpu_as_id(vcpu);
	struct vm *vm = vcpu->vm;
	u32 type;
	u8 flags;

	if (!(hv->control & SYNIC_ENABLE) || !(hv->simp & SYNIC_ENABLE) || vm_read_guest(vm, as_id, gpa, &type, sizeof(type)))
		return false;
	if (type) {
		u64 at = gpa + offsetof(struct timer_message, flags);

		if (vm_read_guest(vm, as_id, at, &flags, sizeof(flags)))
			return false;
		flags |= MESSAGE_PENDING;
		vm_write_guest(vm, vcpu, as_id, at, &flags, sizeof(flags));
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		/* Another processor of the guest's may have emptied it before it could see the flag */
		if (vm_read_guest(vm, as_id, gpa, &type, sizeof(type)) || type)
			return false;
	}
	if (vm_write_guest(vm, vcpu, as_id, gpa + sizeof(type), &message->payload_size, sizeof(*message) - sizeof(type)))
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !vm_write_guest(vm, vcpu, as_id, gpa, &message->type, sizeof(type));
}

static bool stimer_deliver(struct hv_stimer *s, u64 now)
{
	struct vcpu *vcpu = s->vcpu;
	u32 sint = STIMER_SINT(s->config);
	struct timer_message message = {
		.type = MESSAGE_TIMER_EXPIRED, .payload_size = sizeof(message) - offsetof(struct timer_message, timer_index),
		.timer_index = s->index, .expiration_time = s->expiration, .delivery_time = now,
	};

	if (s->config & STIMER_DIRECT) {
		if (vcpu->lapic)
			lapic_accept(vcpu->lapic, &(struct lapic_irq){ .vector = STIMER_VECTOR(s->config),
								       .delivery_mode = APIC_DM_FIXED, .assert = true });
		return true;
	}
	if (!post_message(vcpu, sint, &message))
		return false;
	raise(vcpu, sint);
	return true;
}

void stimers_process(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < HV_STIMERS; i++) {
		struct hv_stimer *s = &vcpu->hyperv->stimer[i];
		u64 now;

		if (!__atomic_exchange_n(&s->expired, false, __ATOMIC_ACQUIRE) || !(s->config & STIMER_ENABLE))
			continue;
		now = hyperv_time(vcpu);
		/* The host's clock may be ahead of the guest's by a little */
		if (now < s->expiration) {
			stimer_arm(s, now);
			continue;
		}
		s->blocked = !stimer_deliver(s, now);
		host_event_hv_stimer_expiration(vcpu->id, s->index, s->config & STIMER_DIRECT, s->blocked ? -EAGAIN : 0);
		if (s->blocked)
			continue;
		if (!(s->config & STIMER_PERIODIC)) {
			s->config &= ~STIMER_ENABLE;
			continue;
		}
		/* Ticks that nobody could have taken in time are one tick */
		s->expiration += stimer_period(s);
		if (s->expiration <= now)
			s->expiration = now + stimer_period(s) - (now - s->expiration) % stimer_period(s);
		stimer_arm(s, now);
	}
}

/* SINT0 is no timer's: TLFS 12.4.2. */
static bool stimer_has_target(u64 config)
{
	return (config & STIMER_DIRECT) || STIMER_SINT(config);
}

static enum x86_result set_stimer(struct vcpu *vcpu, unsigned n, u64 value, bool from_client)
{
	struct hv_stimer *s = &vcpu->hyperv->stimer[n / 2];

	if (n & 1) {
		host_event_hv_stimer_set_count(vcpu->id, n / 2, value, from_client);
		s->count = value;
		if (!value)
			s->config &= ~STIMER_ENABLE;
		else if ((s->config & STIMER_AUTO_ENABLE) && stimer_has_target(s->config))
			s->config |= STIMER_ENABLE;
	} else {
		host_event_hv_stimer_set_config(vcpu->id, n / 2, value, from_client);
		if (!from_client && (value & STIMER_DIRECT) &&
		    !hyperv_allows(vcpu->hyperv, vcpu->hyperv->features_d, HV_D_STIMER_DIRECT))
			return X86_FAULT;
		s->config = value & STIMER_WRITABLE;
		if (!stimer_has_target(s->config))
			s->config &= ~STIMER_ENABLE;
	}
	stimer_start(s);
	return X86_CONTINUE;
}

/* ---- MSRs ----------------------------------------------------------------------------------------------------- */

enum x86_result synic_get_msr(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	struct hv_vcpu *hv = vcpu->hyperv;

	/* A timer that cannot be set can be read */
	if (!hv->active && !from_client && index < HV_X64_MSR_STIMER0_CONFIG)
		return X86_FAULT;
	switch (index) {
	case HV_X64_MSR_SCONTROL: *value = hv->control; return X86_CONTINUE;
	case HV_X64_MSR_SVERSION: *value = SYNIC_VERSION; return X86_CONTINUE;
	case HV_X64_MSR_SIEFP: *value = hv->siefp; return X86_CONTINUE;
	case HV_X64_MSR_SIMP: *value = hv->simp; return X86_CONTINUE;
	case HV_X64_MSR_EOM: *value = 0; return X86_CONTINUE;
	case HV_X64_MSR_SINT0 ... HV_X64_MSR_SINT15: *value = hv->sint[index - HV_X64_MSR_SINT0]; return X86_CONTINUE;
	default: {
		const struct hv_stimer *s = &hv->stimer[(index - HV_X64_MSR_STIMER0_CONFIG) / 2];

		*value = (index - HV_X64_MSR_STIMER0_CONFIG) & 1 ? s->count : s->config;
		return X86_CONTINUE;
	}
	}
}

enum x86_result synic_set_msr(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	struct hv_vcpu *hv = vcpu->hyperv;
	u64 old;

	/* Where it is not in use the client may say so, by writing what it read */
	if (!hv->active)
		return from_client && synic_get_msr(vcpu, index, &old, true) == X86_CONTINUE && old == value ? X86_CONTINUE :
													       X86_FAULT;
	if (index < HV_X64_MSR_STIMER0_CONFIG)
		host_event_hv_synic_set_msr(vcpu->id, index, value, from_client);
	switch (index) {
	case HV_X64_MSR_SCONTROL:
		hv->control = value;
		if (!from_client)
			hyperv_ask_exit(vcpu, HV_EXIT_SYNIC, index);
		return X86_CONTINUE;
	case HV_X64_MSR_SVERSION: return from_client && value == SYNIC_VERSION ? X86_CONTINUE : X86_FAULT;
	case HV_X64_MSR_SIEFP: return set_page(vcpu, index, &hv->siefp, value, from_client);
	case HV_X64_MSR_SIMP: return set_page(vcpu, index, &hv->simp, value, from_client);
	case HV_X64_MSR_EOM:
		for (u32 i = 0; i < HV_SINTS; i++)
			sint_acked(vcpu, i);
		return X86_CONTINUE;
	case HV_X64_MSR_SINT0 ... HV_X64_MSR_SINT15:
		return set_sint(vcpu, index - HV_X64_MSR_SINT0, value, from_client);
	default: return set_stimer(vcpu, index - HV_X64_MSR_STIMER0_CONFIG, value, from_client);
	}
}

/* ---- eventfds ------------------------------------------------------------------------------------------------- */

/* Where @conn_id's entry stands or would stand. vm->lock held. */
static struct hv_eventfd **find(struct vm *vm, u32 conn_id)
{
	struct hv_eventfd **p = &vm->hyperv->eventfds;

	while (*p && (*p)->conn_id != conn_id)
		p = &(*p)->next;
	return p;
}

static long assign(struct vm *vm, const struct kvm_hyperv_eventfd *args)
{
	struct hv_eventfd *e = host_zalloc(sizeof(*e));
	int r = -ENOMEM;

	if (!e)
		return r;
	e->conn_id = args->conn_id;
	e->eventfd = host_eventfd_get(args->fd, &r);
	if (!e->eventfd)
		goto free;
	host_mutex_lock(&vm->lock);
	r = *find(vm, args->conn_id) ? -EEXIST : 0;
	if (!r) {
		e->next = vm->hyperv->eventfds;
		__atomic_store_n(&vm->hyperv->eventfds, e, __ATOMIC_RELEASE);
	}
	host_mutex_unlock(&vm->lock);
	if (!r)
		return 0;
	host_eventfd_put(e->eventfd);
free:
	host_free(e);
	return r;
}

static long deassign(struct vm *vm, u32 conn_id)
{
	struct hv_eventfd **p, *e;

	host_mutex_lock(&vm->lock);
	p = find(vm, conn_id);
	e = *p;
	if (e) {
		__atomic_store_n(p, e->next, __ATOMIC_RELEASE);
		vm_synchronize(vm);
	}
	host_mutex_unlock(&vm->lock);
	if (!e)
		return -ENOENT;
	host_eventfd_put(e->eventfd);
	host_free(e);
	return 0;
}

long hyperv_ioctl_eventfd(struct vm *vm, const struct kvm_hyperv_eventfd *args)
{
	if ((args->flags & ~KVM_HYPERV_EVENTFD_DEASSIGN) || (args->conn_id & ~KVM_HYPERV_CONN_ID_MASK))
		return -EINVAL;
	return args->flags & KVM_HYPERV_EVENTFD_DEASSIGN ? deassign(vm, args->conn_id) : assign(vm, args);
}

bool hyperv_signal_event(struct vm *vm, u32 conn_id)
{
	struct hv_eventfd *e = __atomic_load_n(&vm->hyperv->eventfds, __ATOMIC_ACQUIRE);

	while (e && e->conn_id != conn_id)
		e = __atomic_load_n(&e->next, __ATOMIC_ACQUIRE);
	if (e)
		host_eventfd_signal(e->eventfd, 1);
	return e;
}
