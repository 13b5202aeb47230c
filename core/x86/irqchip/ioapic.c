/*
 * The I/O APIC (Intel 82093AA data sheet, order number 290566): 24 inputs, each with a redirection entry that says which
 * message to send to which local APICs. Index register at offset 0, data window at 10h of its page.
 *
 * @s.irr holds, for a level-triggered input, the level of the line, and for an edge-triggered one that an edge still has
 * to be sent (it arrived while the entry was masked).
 */
#include "core/x86/irqchip/chips.h"

#define IOAPIC_DEFAULT_BASE 0xfec00000ULL
#define IOAPIC_LEN	    0x100
#define IOAPIC_VERSION	    (0x11 | (IOAPIC_PINS - 1) << 16)

enum { REG_INDEX = 0x00, REG_WINDOW = 0x10 };
enum { IDX_ID = 0, IDX_VERSION = 1, IDX_ARBITRATION = 2, IDX_TABLE = 0x10 };

#define RTE_VECTOR	    0xffULL
#define RTE_DELIVERY_STATUS BIT64(12)
#define RTE_REMOTE_IRR	    BIT64(14)
#define RTE_LEVEL	    BIT64(15)
#define RTE_MASKED	    BIT64(16)
#define RTE_READ_ONLY	    (RTE_DELIVERY_STATUS | RTE_REMOTE_IRR)

/* An edge needs no EOI, but ticks that are owed and clients that look again may wait for it. Lock held. */
static void find_edge_vectors(struct ioapic *ioapic)
{
	u64 vectors[4] = { 0 };

	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 bits = ioapic->s.redirtbl[pin].bits;

		/* As out of reset: the first sixteen are no interrupts, SDM 3A 10.5.2 */
		if ((bits & RTE_VECTOR) >= 16 && !(bits & RTE_LEVEL) && irq_has_ack_notifier(ioapic->vm, KVM_IRQCHIP_IOAPIC, pin))
			vectors[(bits & RTE_VECTOR) / 64] |= BIT64((bits & RTE_VECTOR) % 64);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(vectors); i++)
		__atomic_store_n(&ioapic->edge_vectors[i], vectors[i], __ATOMIC_RELAXED);
}

void ioapic_notifiers_changed(struct ioapic *ioapic)
{
	unsigned long flags = host_spin_lock(&ioapic->lock);

	find_edge_vectors(ioapic);
	host_spin_unlock(&ioapic->lock, flags);
}

/* Sends input @pin's message if its entry lets it. Lock held. Returns as pic_set_irq(). */
static int ioapic_service(struct ioapic *ioapic, unsigned pin)
{
	__auto_type e = &ioapic->s.redirtbl[pin];
	struct lapic_irq irq;
	int r;

	if (e->fields.mask)
		return -1;
	if (e->fields.trig_mode && e->fields.remote_irr)
		return 0;
	irq = (struct lapic_irq){
		.dest = e->fields.dest_id,
		.logical = e->fields.dest_mode,
		.level = e->fields.trig_mode,
		.assert = true,
		.vector = e->fields.vector,
		.delivery_mode = e->fields.delivery_mode,
	};
	r = irq_deliver(ioapic->vm, NULL, &irq);
	if (e->fields.trig_mode) {
		if (r >= 0)
			e->fields.remote_irr = 1;
	} else {
		ioapic->s.irr &= ~(1U << pin);
	}
	return r;
}

int ioapic_set_irq(struct ioapic *ioapic, unsigned pin, unsigned source, bool level)
{
	__typeof__(&ioapic->s.redirtbl[0]) e;
	unsigned long flags;
	bool was;
	int r = 0;

	if (pin >= IOAPIC_PINS)
		return -1;
	flags = host_spin_lock(&ioapic->lock);
	e = &ioapic->s.redirtbl[pin];
	was = ioapic->sources[pin];
	if (level)
		ioapic->sources[pin] |= 1 << source;
	else
		ioapic->sources[pin] &= ~(1 << source);
	/* Active-low lines are given as asserted or not by their drivers, so that polarity inverts nothing here. */
	if (!ioapic->sources[pin]) {
		if (e->fields.trig_mode)
			ioapic->s.irr &= ~(1U << pin);
		r = 1;
	} else if (e->fields.trig_mode) {
		ioapic->s.irr |= 1U << pin;
		r = ioapic_service(ioapic, pin);
		host_event_ioapic_set_irq(e->bits, pin, !r);
	} else {
		ioapic->s.irr |= was ? 0 : 1U << pin;
		r = was ? 0 : ioapic_service(ioapic, pin);
		host_event_ioapic_set_irq(e->bits, pin, !r);
	}
	host_spin_unlock(&ioapic->lock, flags);
	return r;
}

void ioapic_eoi(struct ioapic *ioapic, u8 vector)
{
	unsigned long flags;
	u32 acked = 0;
	unsigned pin;

	flags = host_spin_lock(&ioapic->lock);
	for (pin = 0; pin < IOAPIC_PINS; pin++) {
		__auto_type e = &ioapic->s.redirtbl[pin];

		if (e->fields.vector == vector && (!e->fields.trig_mode || e->fields.remote_irr))
			acked |= 1U << pin;
	}
	host_spin_unlock(&ioapic->lock, flags);
	if (!acked)
		return;

	/* Devices that hold a line up until it is acknowledged drop it here, before the line is looked at again. */
	for (pin = 0; pin < IOAPIC_PINS; pin++)
		if (acked & (1U << pin))
			irq_notify_acked(ioapic->vm, KVM_IRQCHIP_IOAPIC, pin);

	flags = host_spin_lock(&ioapic->lock);
	for (pin = 0; pin < IOAPIC_PINS; pin++) {
		__auto_type e = &ioapic->s.redirtbl[pin];

		if (!(acked & (1U << pin)))
			continue;
		e->fields.remote_irr = 0;
		if (e->fields.trig_mode && (ioapic->s.irr & (1U << pin)))
			ioapic_service(ioapic, pin);
	}
	host_spin_unlock(&ioapic->lock, flags);
}

static u32 ioapic_read_index(const struct ioapic *ioapic)
{
	unsigned index = ioapic->s.ioregsel & 0xff, pin = (index - IDX_TABLE) / 2;

	switch (index) {
	case IDX_ID:
	case IDX_ARBITRATION: return (ioapic->s.id & 0xf) << 24;
	case IDX_VERSION: return IOAPIC_VERSION;
	}
	if (index < IDX_TABLE || pin >= IOAPIC_PINS)
		return 0xffffffff;
	return ioapic->s.redirtbl[pin].bits >> (index & 1 ? 32 : 0);
}

/* The input whose interrupt, if it is on its way, will not be known at its EOI; -1: none. */
static int ioapic_write_index(struct ioapic *ioapic, u32 value)
{
	unsigned index = ioapic->s.ioregsel & 0xff, pin = (index - IDX_TABLE) / 2;
	__typeof__(&ioapic->s.redirtbl[0]) e;
	u64 old;

	if (index == IDX_ID) {
		ioapic->s.id = (value >> 24) & 0xf;
		return -1;
	}
	if (index < IDX_TABLE || pin >= IOAPIC_PINS)
		return -1;
	e = &ioapic->s.redirtbl[pin];
	old = e->bits;
	if (index & 1)
		e->bits = (u32)old | (u64)value << 32;
	else
		e->bits = (old & ~0xffffffffULL) | (value & ~RTE_READ_ONLY & 0x1ffff) | (old & RTE_READ_ONLY);
	if (!(e->bits & RTE_LEVEL)) {
		e->fields.remote_irr = 0;
		/* A line that is up makes no edge when its entry becomes edge-triggered. */
		if (old & RTE_LEVEL)
			ioapic->s.irr &= ~(1U << pin);
	} else if (!(old & RTE_LEVEL)) {
		if (ioapic->sources[pin])
			ioapic->s.irr |= 1U << pin;
		else
			ioapic->s.irr &= ~(1U << pin);
	}
	if (!(e->bits & RTE_MASKED) && (ioapic->s.irr & (1U << pin)))
		ioapic_service(ioapic, pin);
	if (!((old ^ e->bits) & (RTE_VECTOR | RTE_LEVEL)))
		return -1;
	find_edge_vectors(ioapic);
	return old & RTE_LEVEL ? -1 : (int)pin;
}

static int ioapic_read(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, void *buf)
{
	struct ioapic *ioapic = container_of(dev, struct ioapic, dev);
	u8 data[8] = { 0 };
	unsigned long flags;
	u32 value = 0;

	if (len > 8)
		return -EOPNOTSUPP;
	flags = host_spin_lock(&ioapic->lock);
	switch (addr & 0xff & ~0xfU) {
	case REG_INDEX: value = ioapic->s.ioregsel; break;
	case REG_WINDOW: value = ioapic_read_index(ioapic); break;
	}
	host_spin_unlock(&ioapic->lock, flags);
	memcpy(data, &value, 4);
	memcpy(buf, data, len);
	return 0;
}

static int ioapic_write(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, const void *buf)
{
	struct ioapic *ioapic = container_of(dev, struct ioapic, dev);
	unsigned long flags;
	int forgotten = -1;
	u32 value = 0;

	memcpy(&value, buf, MIN(len, 4u));
	flags = host_spin_lock(&ioapic->lock);
	switch (addr & 0xff & ~0xfU) {
	case REG_INDEX: ioapic->s.ioregsel = value & 0xff; break;
	case REG_WINDOW: forgotten = ioapic_write_index(ioapic, value); break;
	}
	host_spin_unlock(&ioapic->lock, flags);
	if (forgotten >= 0)
		irq_notify_acked(ioapic->vm, KVM_IRQCHIP_IOAPIC, forgotten);
	return 0;
}

static const struct io_device_ops ioapic_ops = { .read = ioapic_read, .write = ioapic_write };

void ioapic_get(struct ioapic *ioapic, struct kvm_ioapic_state *state)
{
	unsigned long flags = host_spin_lock(&ioapic->lock);

	*state = ioapic->s;
	host_spin_unlock(&ioapic->lock, flags);
}

void ioapic_set(struct ioapic *ioapic, const struct kvm_ioapic_state *state)
{
	unsigned long flags = host_spin_lock(&ioapic->lock);
	u64 base = ioapic->s.base_address;
	unsigned pin;

	ioapic->s = *state;
	ioapic->s.base_address = base; /* the device does not move */
	ioapic->s.ioregsel &= 0xff;
	ioapic->s.irr &= (1U << IOAPIC_PINS) - 1;
	for (pin = 0; pin < IOAPIC_PINS; pin++) {
		/* A line that is up was up when the state was taken, whoever held it. */
		ioapic->sources[pin] = 0;
		if (ioapic->s.irr & (1U << pin)) {
			if (ioapic->s.redirtbl[pin].fields.trig_mode)
				ioapic->sources[pin] = 1 << IRQ_SOURCE_USER;
			ioapic_service(ioapic, pin);
		}
	}
	find_edge_vectors(ioapic);
	host_spin_unlock(&ioapic->lock, flags);
}

int ioapic_create(struct vm *vm)
{
	struct ioapic *ioapic = host_zalloc(sizeof(*ioapic));
	unsigned pin;
	int r;

	if (!ioapic)
		return -ENOMEM;
	ioapic->vm = vm;
	host_spin_init(&ioapic->lock);
	ioapic->s.base_address = IOAPIC_DEFAULT_BASE;
	for (pin = 0; pin < IOAPIC_PINS; pin++)
		ioapic->s.redirtbl[pin].bits = RTE_MASKED;
	ioapic->dev = (struct io_device){ .ops = &ioapic_ops, .base = IOAPIC_DEFAULT_BASE, .len = IOAPIC_LEN };
	r = io_device_register(vm, IO_MMIO, &ioapic->dev);
	if (r) {
		host_spin_destroy(&ioapic->lock);
		host_free(ioapic);
		return r;
	}
	__atomic_store_n(&vm->ioapic, ioapic, __ATOMIC_RELEASE);
	return 0;
}

void ioapic_destroy(struct vm *vm)
{
	struct ioapic *ioapic = vm->ioapic;

	if (!ioapic)
		return;
	vm->ioapic = NULL;
	io_device_unregister(vm, IO_MMIO, &ioapic->dev);
	host_spin_destroy(&ioapic->lock);
	host_free(ioapic);
}
