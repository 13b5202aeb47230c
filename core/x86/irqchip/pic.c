/*
 * The pair of 8259A interrupt controllers of a PC (Intel 8259A data sheet, order number 231468), with the ELCR ports of
 * later chipsets that make an input level-triggered. Master at ports 20h and 21h, slave on its input 2 at A0h and A1h.
 *
 * The chip's state is KVM's struct kvm_pic_state, so that KVM_GET_IRQCHIP is a copy. Priorities rotate: @priority_add is
 * the input that has the highest one.
 */
#include "core/x86/irqchip/chips.h"

enum { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

/* Place of the highest-priority bit of @mask, counted from the input of highest priority; 8: none. */
static unsigned priority_of(const struct kvm_pic_state *s, u8 mask)
{
	unsigned rank;

	for (rank = 0; rank < 8; rank++)
		if (mask & (1 << ((rank + s->priority_add) & 7)))
			return rank;
	return 8;
}

/* The input that the chip wants to interrupt with, -1 if none does. */
static int pic_pending(const struct kvm_pic_state *s, bool master)
{
	unsigned request = priority_of(s, s->irr & ~s->imr);
	u8 in_service = s->isr;

	if (request == 8)
		return -1;
	/* Special mask mode: a masked input in service does not hold back lower ones. */
	if (s->special_mask)
		in_service &= ~s->imr;
	/* Special fully nested mode: the slave may interrupt again while its input is in service. */
	if (s->special_fully_nested_mode && master)
		in_service &= ~(1 << PIC_CASCADE_PIN);
	if (request >= priority_of(s, in_service))
		return -1;
	return (request + s->priority_add) & 7;
}

/* Moves one input of one chip. Returns 1, 0, -1 as pic_set_irq(). */
static int pic_set_input(struct kvm_pic_state *s, unsigned input, bool level)
{
	u8 bit = 1 << input;
	bool was = s->irr & bit;

	if (s->elcr & bit) {
		s->irr = level ? s->irr | bit : s->irr & ~bit;
		s->last_irr = level ? s->last_irr | bit : s->last_irr & ~bit;
	} else if (level) {
		if (!(s->last_irr & bit))
			s->irr |= bit;
		else
			was = true;
		s->last_irr |= bit;
	} else {
		s->last_irr &= ~bit;
	}
	if (s->imr & bit)
		return -1;
	return level && !was;
}

/* Passes the slave's output to the master's input 2 and the master's to the CPUs. Lock held. */
static void pic_update(struct pic *pic)
{
	bool output;

	pic_set_input(&pic->chip[0], PIC_CASCADE_PIN, pic_pending(&pic->chip[1], false) >= 0);
	output = pic_pending(&pic->chip[0], true) >= 0;
	if (output != pic->output) {
		struct vcpu *vcpu;
		unsigned i;

		__atomic_store_n(&pic->output, output, __ATOMIC_RELEASE);
		if (!output)
			return;
		vm_for_each_vcpu(i, vcpu, pic->vm)
			if (!vcpu->lapic || lapic_accepts_pic(vcpu->lapic))
				vcpu_request_kick(vcpu, REQ_EVENT);
	}
}

int pic_set_irq(struct pic *pic, unsigned pin, unsigned source, bool level)
{
	const struct kvm_pic_state *s = &pic->chip[pin >> 3 & 1];
	unsigned long flags;
	int r;

	if (pin >= PIC_PINS)
		return -1;
	flags = host_spin_lock(&pic->lock);
	if (level)
		pic->sources[pin] |= 1 << source;
	else
		pic->sources[pin] &= ~(1 << source);
	r = pic_set_input(&pic->chip[pin >> 3], pin & 7, pic->sources[pin]);
	pic_update(pic);
	host_event_pic_set_irq(pin >> 3, pin & 7, s->elcr, s->imr, !r);
	host_spin_unlock(&pic->lock, flags);
	return r;
}

/* Input @input goes in service; with automatic EOI it has left it again. Returns whether that was an EOI. */
static bool pic_take(struct kvm_pic_state *s, unsigned input)
{
	u8 bit = 1 << input;

	if (!(s->elcr & bit))
		s->irr &= ~bit;
	if (!s->auto_eoi) {
		s->isr |= bit;
		return false;
	}
	if (s->rotate_on_auto_eoi)
		s->priority_add = (input + 1) & 7;
	return true;
}

u8 pic_ack(struct pic *pic)
{
	struct kvm_pic_state *master = &pic->chip[0], *slave = &pic->chip[1];
	unsigned long flags = host_spin_lock(&pic->lock);
	int in = pic_pending(master, true), acked = -1;
	u8 vector;

	if (in < 0) {
		/* The request went away before INTA: input 7's vector, nothing in service. */
		vector = master->irq_base + 7;
	} else if (in != PIC_CASCADE_PIN) {
		vector = master->irq_base + in;
		if (pic_take(master, in))
			acked = in;
	} else {
		int sub = pic_pending(slave, false);

		pic_take(master, in);
		if (sub < 0) {
			vector = slave->irq_base + 7;
		} else {
			vector = slave->irq_base + sub;
			if (pic_take(slave, sub))
				acked = 8 + sub;
		}
	}
	pic_update(pic);
	host_spin_unlock(&pic->lock, flags);
	if (acked >= 0)
		irq_notify_acked(pic->vm, acked >> 3, acked & 7);
	return vector;
}

/* ICW1 restarts the chip: edge detectors, masks and modes are cleared, the line levels stay. */
static void pic_icw1(struct kvm_pic_state *s, u8 value)
{
	s->init4 = value & 1;
	s->imr = s->isr = 0;
	s->irr &= s->elcr; /* edges seen before must happen again */
	s->last_irr = 0;
	s->priority_add = 0;
	s->special_mask = s->read_reg_select = 0;
	if (!s->init4) {
		s->special_fully_nested_mode = 0;
		s->auto_eoi = 0;
	}
	s->init_state = INIT_ICW2;
}

/* OCW2: the EOI and rotation commands. Returns the input that was ended, -1 if none. */
static int pic_ocw2(struct kvm_pic_state *s, u8 value)
{
	unsigned command = value >> 5, input, rank;

	switch (command) {
	case 0: /* rotate in automatic EOI mode: clear, set */
	case 4:
		s->rotate_on_auto_eoi = command >> 2;
		return -1;
	case 1: /* non-specific EOI, with and without rotation */
	case 5:
		rank = priority_of(s, s->isr);
		if (rank == 8)
			return -1;
		input = (rank + s->priority_add) & 7;
		s->isr &= ~(1 << input);
		if (command == 5)
			s->priority_add = (input + 1) & 7;
		return input;
	case 3: /* specific EOI, with and without rotation */
	case 7:
		input = value & 7;
		s->isr &= ~(1 << input);
		if (command == 7)
			s->priority_add = (input + 1) & 7;
		return input;
	case 6: /* set priority */
		s->priority_add = (value + 1) & 7;
		return -1;
	default:
		return -1;
	}
}

/* A write to a chip's even (@a0 0) or odd port. Returns the input whose service it ended, -1 if none. */
static int pic_write_port(struct kvm_pic_state *s, bool a0, u8 value)
{
	if (!a0) {
		if (value & 0x10) {
			pic_icw1(s, value);
		} else if (value & 0x08) { /* OCW3 */
			if (value & 0x04)
				s->poll = 1;
			if (value & 0x02)
				s->read_reg_select = value & 1;
			if (value & 0x40)
				s->special_mask = (value >> 5) & 1;
		} else {
			return pic_ocw2(s, value);
		}
		return -1;
	}
	switch (s->init_state) {
	case INIT_DONE:
		s->imr = value;
		break;
	case INIT_ICW2:
		s->irq_base = value & 0xf8;
		s->init_state = INIT_ICW3; /* a PC's pair is always cascaded */
		break;
	case INIT_ICW3:
		s->init_state = s->init4 ? INIT_ICW4 : INIT_DONE;
		break;
	default:
		s->special_fully_nested_mode = (value >> 4) & 1;
		s->auto_eoi = (value >> 1) & 1;
		s->init_state = INIT_DONE;
		break;
	}
	return -1;
}

/* Poll mode: the read is the acknowledge. */
static u8 pic_poll(struct pic *pic, unsigned chip, int *acked)
{
	struct kvm_pic_state *s = &pic->chip[chip];
	int in = pic_pending(s, chip == 0);

	s->poll = 0;
	if (in < 0)
		return 0x07;
	if (pic_take(s, in))
		*acked = in;
	return 0x80 | in;
}

static int pic_io_read(struct pic *pic, unsigned chip, u64 port, unsigned len, void *buf)
{
	struct kvm_pic_state *s = &pic->chip[chip];
	unsigned long flags;
	int acked = -1;
	u8 value;

	if (len != 1) {
		memset(buf, 0, len);
		return 0;
	}
	flags = host_spin_lock(&pic->lock);
	if (s->poll) {
		value = pic_poll(pic, chip, &acked);
		pic_update(pic);
	} else if (port & 1) {
		value = s->imr;
	} else {
		value = s->read_reg_select ? s->isr : s->irr;
	}
	host_spin_unlock(&pic->lock, flags);
	if (acked >= 0)
		irq_notify_acked(pic->vm, chip, acked);
	*(u8 *)buf = value;
	return 0;
}

static int pic_io_write(struct pic *pic, unsigned chip, u64 port, unsigned len, const void *buf)
{
	unsigned long flags;
	int acked;

	if (len != 1)
		return 0;
	flags = host_spin_lock(&pic->lock);
	acked = pic_write_port(&pic->chip[chip], port & 1, *(const u8 *)buf);
	pic_update(pic);
	host_spin_unlock(&pic->lock, flags);
	if (acked >= 0)
		irq_notify_acked(pic->vm, chip, acked);
	return 0;
}

static int master_read(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, void *buf)
{
	return pic_io_read(container_of(dev, struct pic, master), 0, port, len, buf);
}

static int master_write(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, const void *buf)
{
	return pic_io_write(container_of(dev, struct pic, master), 0, port, len, buf);
}

static int slave_read(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, void *buf)
{
	return pic_io_read(container_of(dev, struct pic, slave), 1, port, len, buf);
}

static int slave_write(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, const void *buf)
{
	return pic_io_write(container_of(dev, struct pic, slave), 1, port, len, buf);
}

/* ELCR at 4D0h (inputs 0-7) and 4D1h (8-15): one bit an input, 1 is level-triggered. */
static struct kvm_pic_state *elcr_chip(struct io_device *dev, struct pic **pic)
{
	unsigned chip = dev->base & 1;

	*pic = container_of(dev - chip, struct pic, elcr[0]);
	return &(*pic)->chip[chip];
}

static int elcr_read(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, void *buf)
{
	struct pic *pic;
	struct kvm_pic_state *s = elcr_chip(dev, &pic);
	unsigned long flags;

	memset(buf, 0, len);
	flags = host_spin_lock(&pic->lock);
	*(u8 *)buf = s->elcr;
	host_spin_unlock(&pic->lock, flags);
	return 0;
}

static int elcr_write(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, const void *buf)
{
	struct pic *pic;
	struct kvm_pic_state *s = elcr_chip(dev, &pic);
	unsigned long flags;

	if (len != 1)
		return 0;
	flags = host_spin_lock(&pic->lock);
	s->elcr = *(const u8 *)buf & s->elcr_mask;
	pic_update(pic);
	host_spin_unlock(&pic->lock, flags);
	return 0;
}

static const struct io_device_ops master_ops = { .read = master_read, .write = master_write };
static const struct io_device_ops slave_ops = { .read = slave_read, .write = slave_write };
static const struct io_device_ops elcr_ops = { .read = elcr_read, .write = elcr_write };

void pic_get(struct pic *pic, unsigned chip, struct kvm_pic_state *state)
{
	unsigned long flags = host_spin_lock(&pic->lock);

	*state = pic->chip[chip];
	host_spin_unlock(&pic->lock, flags);
}

void pic_set(struct pic *pic, unsigned chip, const struct kvm_pic_state *state)
{
	struct kvm_pic_state *s = &pic->chip[chip];
	unsigned long flags = host_spin_lock(&pic->lock);
	u8 mask = s->elcr_mask;

	*s = *state;
	/* The client's values index nothing, but must stay in the ranges that the logic knows. */
	s->priority_add &= 7;
	s->init_state &= 3;
	s->elcr_mask = mask;
	s->elcr &= mask;
	__atomic_store_n(&pic->output, false, __ATOMIC_RELEASE); /* a pending request kicks the vCPUs anew */
	pic_update(pic);
	host_spin_unlock(&pic->lock, flags);
}

int pic_create(struct vm *vm)
{
	struct pic *pic = host_zalloc(sizeof(*pic));
	struct io_device *devs[4];
	unsigned i;
	int r;

	if (!pic)
		return -ENOMEM;
	devs[0] = &pic->master;
	devs[1] = &pic->slave;
	devs[2] = &pic->elcr[0];
	devs[3] = &pic->elcr[1];
	pic->vm = vm;
	host_spin_init(&pic->lock);
	/* Inputs 0, 1, 2, 8 and 13 are the board's own and always edge-triggered. */
	pic->chip[0].elcr_mask = 0xf8;
	pic->chip[1].elcr_mask = 0xde;
	pic->master = (struct io_device){ .ops = &master_ops, .base = 0x20, .len = 2 };
	pic->slave = (struct io_device){ .ops = &slave_ops, .base = 0xa0, .len = 2 };
	pic->elcr[0] = (struct io_device){ .ops = &elcr_ops, .base = 0x4d0, .len = 1 };
	pic->elcr[1] = (struct io_device){ .ops = &elcr_ops, .base = 0x4d1, .len = 1 };
	for (i = 0; i < ARRAY_SIZE(devs); i++) {
		r = io_device_register(vm, IO_PIO, devs[i]);
		if (r)
			goto unregister;
	}
	__atomic_store_n(&vm->pic, pic, __ATOMIC_RELEASE);
	return 0;

unregister:
	while (i--)
		io_device_unregister(vm, IO_PIO, devs[i]);
	host_spin_destroy(&pic->lock);
	host_free(pic);
	return r;
}

void pic_destroy(struct vm *vm)
{
	struct pic *pic = vm->pic;

	if (!pic)
		return;
	vm->pic = NULL;
	io_device_unregister(vm, IO_PIO, &pic->master);
	io_device_unregister(vm, IO_PIO, &pic->slave);
	io_device_unregister(vm, IO_PIO, &pic->elcr[0]);
	io_device_unregister(vm, IO_PIO, &pic->elcr[1]);
	host_spin_destroy(&pic->lock);
	host_free(pic);
}
