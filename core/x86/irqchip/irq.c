/*
 * How an interrupt finds its way: GSIs to chips and messages (the KVM API document, KVM_SET_GSI_ROUTING), and messages to
 * local APICs (SDM 3A 10.6.2).
 */
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/chips.h"

/* ---- messages to local APICs --------------------------------------------------------------------------------- */

/* SDM 3A 10.6.2.4: of the matching processors the one with the lowest priority; ties go round by vector. */
static struct lapic *pick_lowest(struct vm *vm, struct vcpu *src, const struct lapic_irq *irq)
{
	unsigned nr = __atomic_load_n(&vm->nr_vcpus, __ATOMIC_ACQUIRE), n, best_ppr = 256;
	struct lapic *best = NULL;

	for (n = 0; n < nr; n++) {
		struct vcpu *vcpu = vm->vcpus[(irq->vector + n) % nr];
		unsigned ppr;

		if (!vcpu || !vcpu->lapic || !lapic_sw_enabled(vcpu->lapic) || !lapic_matches(vcpu->lapic, src, irq))
			continue;
		ppr = lapic_ppr(vcpu->lapic);
		if (ppr < best_ppr) {
			best = vcpu->lapic;
			best_ppr = ppr;
		}
	}
	return best;
}

static bool lapic_is_destination(struct lapic *l, struct vcpu *src, const struct lapic_irq *irq)
{
	switch (irq->shorthand) {
	case 0: return lapic_matches(l, src, irq);
	case 1: return l->vcpu == src;
	case 2: return true;
	default: return l->vcpu != src;
	}
}

int irq_deliver(struct vm *vm, struct vcpu *src, const struct lapic_irq *irq)
{
	struct vcpu *vcpu;
	int result = -1;
	unsigned i;

	if (irq->shorthand == 1)
		return lapic_accept(src->lapic, irq);
	if (!irq->shorthand && (irq->delivery_mode == APIC_DM_LOWEST ||
				(irq->redirect_hint && irq->logical && irq->delivery_mode == APIC_DM_FIXED))) {
		struct lapic *l = pick_lowest(vm, src, irq);

		return l ? lapic_accept(l, irq) : -1;
	}
	vm_for_each_vcpu(i, vcpu, vm) {
		int r;

		if (!vcpu->lapic || !lapic_is_destination(vcpu->lapic, src, irq))
			continue;
		r = lapic_accept(vcpu->lapic, irq);
		if (r >= 0)
			result = MAX(result, 0) + r;
	}
	return result;
}

void irq_tell(struct vm *vm, struct vcpu *src, const struct lapic_irq *irq)
{
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, vm) {
		if (!vcpu->lapic || !lapic_is_destination(vcpu->lapic, src, irq))
			continue;
		if (!vm->engine->interrupt_arrived(vcpu))
			vcpu_request_kick(vcpu, REQ_EVENT);
	}
}

/* SDM 3A 10.11: the message address and data formats. Address bits 63:40 carry more of an x2APIC ID (KVM_CAP_X2APIC_API). */
int irq_send_msi(struct vm *vm, u64 address, u32 data)
{
	struct lapic_irq irq = {
		.dest = (address >> 12) & 0xff,
		.logical = address & BIT64(2),
		.redirect_hint = address & BIT64(3),
		.vector = data,
		.delivery_mode = (data >> 8) & 7,
		.level = data & BIT64(15),
		.assert = true,
	};

	host_event_msi_set_irq(address, data);
	if (vm->x2apic_api) {
		if ((address >> 32) & 0xff)
			return -EINVAL;
		irq.dest |= (u32)(address >> 32) & 0xffffff00;
	}
	return irq_deliver(vm, NULL, &irq);
}

/* ---- the routing table --------------------------------------------------------------------------------------- */

static void notifiers_changed(struct vm *vm)
{
	if (!vm->ioapic)
		return;
	ioapic_notifiers_changed(vm->ioapic);
	/* What the processor goes by at an EOI is made before an entry */
	if (vm->engine->virtual_interrupts)
		vm_request_all(vm, REQ_EVENT, false);
}

int irq_set_gsi(struct vm *vm, unsigned source, u32 gsi, int level)
{
	const struct irq_routing *routing = __atomic_load_n(&vm->routing, __ATOMIC_ACQUIRE);
	int result = -1;
	u32 i;

	host_event_set_irq(gsi, level, source);
	if (!routing || gsi >= VM_MAX_IRQ_ROUTES)
		return -1;
	for (i = routing->first[gsi]; i < routing->first[gsi + 1]; i++) {
		const struct irq_route *route = &routing->route[i];
		int r;

		if (route->type == KVM_IRQ_ROUTING_MSI)
			r = level ? irq_send_msi(vm, route->msi_address, route->msi_data) : -1;
		else if (route->type == KVM_IRQ_ROUTING_HV_SINT)
			r = level ? synic_set_sint(vm, route->chip, route->pin) : -1;
		else if (route->chip == KVM_IRQCHIP_IOAPIC)
			r = vm->ioapic ? ioapic_set_irq(vm->ioapic, route->pin, source, level) : -1;
		else
			r = vm->pic ? pic_set_irq(vm->pic, route->chip * 8 + route->pin, source, level) : -1;
		if (r >= 0)
			result = MAX(result, 0) + r;
	}
	return result;
}

/* Checks one entry of the client and turns it into ours. 0 or -EINVAL. */
static int irq_route_check(struct vm *vm, const struct kvm_irq_routing_entry *e, struct irq_route *route)
{
	*route = (struct irq_route){ .gsi = e->gsi, .type = e->type };
	if (e->gsi >= VM_MAX_IRQ_ROUTES)
		return -EINVAL;
	switch (e->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		if (e->flags || vm->irqchip != IRQCHIP_KERNEL)
			return -EINVAL;
		if (e->u.irqchip.irqchip > KVM_IRQCHIP_IOAPIC ||
		    e->u.irqchip.pin >= (e->u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC ? IOAPIC_PINS : 8))
			return -EINVAL;
		route->chip = e->u.irqchip.irqchip;
		route->pin = e->u.irqchip.pin;
		return 0;
	case KVM_IRQ_ROUTING_MSI:
		if (e->flags || (vm->x2apic_api && (e->u.msi.address_hi & 0xff)))
			return -EINVAL;
		route->msi_address = (u64)e->u.msi.address_hi << 32 | e->u.msi.address_lo;
		route->msi_data = e->u.msi.data;
		return 0;
	case KVM_IRQ_ROUTING_HV_SINT:
		if (e->flags)
			return -EINVAL;
		route->chip = e->u.hv_sint.vcpu;
		route->pin = e->u.hv_sint.sint;
		return 0;
	default:
		return -EINVAL;
	}
}

/* A GSI may lead to one input of each chip, or to one message or synthetic source. */
static bool irq_routes_clash(const struct irq_routing *routing, const struct irq_route *route)
{
	u32 i;

	for (i = routing->first[route->gsi]; i < routing->nr && routing->route[i].gsi == route->gsi; i++) {
		const struct irq_route *other = &routing->route[i];

		if (other == route)
			continue;
		if (other->type != KVM_IRQ_ROUTING_IRQCHIP || route->type != KVM_IRQ_ROUTING_IRQCHIP || other->chip == route->chip)
			return true;
	}
	return false;
}

int irq_set_routing(struct vm *vm, const struct kvm_irq_routing_entry *entries, unsigned nr)
{
	struct irq_routing *new, *old;
	unsigned i, chip, pin;
	struct irq_route route;
	u32 *next;
	int r = -EINVAL;

	if (nr > VM_MAX_IRQ_ROUTES)
		return -EINVAL;
	new = host_zalloc(sizeof(*new) + nr * sizeof(new->route[0]));
	next = host_zalloc(VM_MAX_IRQ_ROUTES * sizeof(*next));
	if (!new || !next) {
		r = -ENOMEM;
		goto free;
	}
	for (chip = 0; chip < 3; chip++)
		for (pin = 0; pin < IOAPIC_PINS; pin++)
			new->gsi_of[chip][pin] = -1;

	/* Counting sort by GSI. */
	for (i = 0; i < nr; i++) {
		r = irq_route_check(vm, &entries[i], &route);
		if (r)
			goto free;
		new->first[route.gsi + 1]++;
	}
	for (i = 0; i < VM_MAX_IRQ_ROUTES; i++) {
		new->first[i + 1] += new->first[i];
		next[i] = new->first[i];
	}
	for (i = 0; i < nr; i++) {
		irq_route_check(vm, &entries[i], &route);
		new->route[next[route.gsi]++] = route;
		if (route.type == KVM_IRQ_ROUTING_IRQCHIP)
			new->gsi_of[route.chip][route.pin] = route.gsi;
	}
	new->nr = nr;
	for (i = 0; i < nr; i++) {
		if (irq_routes_clash(new, &new->route[i])) {
			r = -EINVAL;
			goto free;
		}
	}
	host_free(next);

	host_mutex_lock(&vm->slots_lock);
	old = vm->routing;
	__atomic_store_n(&vm->routing, new, __ATOMIC_RELEASE);
	notifiers_changed(vm);
	vm_synchronize(vm);
	host_mutex_unlock(&vm->slots_lock);
	host_free(old);
	return 0;

free:
	host_free(new);
	host_free(next);
	return r;
}

/* GSIs 0 to 15 reach the PIC and the I/O APIC, 16 to 23 the I/O APIC alone. With a split irqchip there are none. */
int irq_routing_default(struct vm *vm)
{
	struct kvm_irq_routing_entry entries[PIC_PINS + IOAPIC_PINS];
	unsigned i, nr = 0;

	if (vm->irqchip != IRQCHIP_KERNEL)
		return irq_set_routing(vm, NULL, 0);
	memset(entries, 0, sizeof(entries));
	for (i = 0; i < IOAPIC_PINS; i++) {
		entries[nr].gsi = i;
		entries[nr].type = KVM_IRQ_ROUTING_IRQCHIP;
		entries[nr].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		entries[nr++].u.irqchip.pin = i;
		if (i >= PIC_PINS)
			continue;
		entries[nr].gsi = i;
		entries[nr].type = KVM_IRQ_ROUTING_IRQCHIP;
		entries[nr].u.irqchip.irqchip = i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
		entries[nr++].u.irqchip.pin = i & 7;
	}
	return irq_set_routing(vm, entries, nr);
}

/* ---- acknowledge notifiers ----------------------------------------------------------------------------------- */

void irq_register_ack_notifier(struct vm *vm, struct irq_ack_notifier *n)
{
	host_mutex_lock(&vm->slots_lock);
	n->next = vm->ack_notifiers;
	__atomic_store_n(&vm->ack_notifiers, n, __ATOMIC_RELEASE);
	notifiers_changed(vm);
	host_mutex_unlock(&vm->slots_lock);
}

void irq_unregister_ack_notifier(struct vm *vm, struct irq_ack_notifier *n)
{
	struct irq_ack_notifier **p;

	host_mutex_lock(&vm->slots_lock);
	for (p = &vm->ack_notifiers; *p && *p != n; p = &(*p)->next)
		;
	if (*p)
		__atomic_store_n(p, n->next, __ATOMIC_RELEASE);
	notifiers_changed(vm);
	vm_synchronize(vm);
	host_mutex_unlock(&vm->slots_lock);
}

static void notify_gsi(struct vm *vm, u32 gsi)
{
	struct irq_ack_notifier *n = __atomic_load_n(&vm->ack_notifiers, __ATOMIC_ACQUIRE);

	for (; n; n = __atomic_load_n(&n->next, __ATOMIC_ACQUIRE))
		if (n->gsi == gsi)
			n->acked(n);
}

/* In an srcu section. -1: none */
static s32 gsi_of(struct vm *vm, unsigned chip, unsigned pin)
{
	const struct irq_routing *routing = __atomic_load_n(&vm->routing, __ATOMIC_ACQUIRE);

	return routing && chip < 3 && pin < IOAPIC_PINS ? routing->gsi_of[chip][pin] : -1;
}

void irq_notify_acked(struct vm *vm, unsigned chip, unsigned pin)
{
	int idx = host_srcu_read_lock(&vm->srcu);
	s32 gsi = gsi_of(vm, chip, pin);

	host_event_ack_irq(chip, pin);
	if (gsi >= 0)
		notify_gsi(vm, gsi);
	host_srcu_read_unlock(&vm->srcu, idx);
}

bool irq_has_ack_notifier(struct vm *vm, unsigned chip, unsigned pin)
{
	int idx = host_srcu_read_lock(&vm->srcu);
	struct irq_ack_notifier *n = __atomic_load_n(&vm->ack_notifiers, __ATOMIC_ACQUIRE);
	s32 gsi = gsi_of(vm, chip, pin);

	while (n && (s32)n->gsi != gsi)
		n = __atomic_load_n(&n->next, __ATOMIC_ACQUIRE);
	host_srcu_read_unlock(&vm->srcu, idx);
	return n;
}

void irq_notify_sint_acked(struct vm *vm, u32 vp, u32 sint)
{
	const struct irq_routing *routing;
	int idx;
	u32 i;

	if (!__atomic_load_n(&vm->ack_notifiers, __ATOMIC_ACQUIRE))
		return;
	idx = host_srcu_read_lock(&vm->srcu);
	routing = __atomic_load_n(&vm->routing, __ATOMIC_ACQUIRE);
	for (i = 0; routing && i < routing->nr; i++) {
		const struct irq_route *route = &routing->route[i];

		if (route->type == KVM_IRQ_ROUTING_HV_SINT && route->chip == vp && route->pin == sint)
			notify_gsi(vm, route->gsi);
	}
	host_srcu_read_unlock(&vm->srcu, idx);
}
