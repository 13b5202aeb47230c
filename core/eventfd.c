/*
 * Eventfds tied to a VM. irqfd: a signal from the client raises a GSI; with a resample eventfd the line stays up until the
 * guest acknowledges it, and the client then hears so. ioeventfd: a guest's write to a port or address signals the client
 * without leaving the kernel.
 */
#include "core/x86/irqchip/chips.h"

/* ---- irqfd --------------------------------------------------------------------------------------------------- */

struct irqfd {
	struct vm *vm;
	u32 gsi;
	struct host_eventfd *eventfd;
	struct host_eventfd_listener listener;
	struct host_eventfd *resample;	 /* NULL: an edge */
	struct irq_ack_notifier notifier; /* when resampling */
	struct irqfd *next;
};

static void irqfd_raised(struct host_eventfd_listener *listener)
{
	struct irqfd *irqfd = container_of(listener, struct irqfd, listener);
	struct vm *vm = irqfd->vm;
	int idx = host_srcu_read_lock(&vm->srcu);

	if (irqfd->resample) {
		irq_set_gsi(vm, IRQ_SOURCE_RESAMPLE, irqfd->gsi, 1);
	} else {
		irq_set_gsi(vm, IRQ_SOURCE_USER, irqfd->gsi, 1);
		irq_set_gsi(vm, IRQ_SOURCE_USER, irqfd->gsi, 0);
	}
	host_srcu_read_unlock(&vm->srcu, idx);
}

/* The guest's EOI: the line drops, and each client that shares it is asked to raise it again if it still wants to. */
static void irqfd_acked(struct irq_ack_notifier *n)
{
	struct irqfd *irqfd = container_of(n, struct irqfd, notifier);

	irq_set_gsi(irqfd->vm, IRQ_SOURCE_RESAMPLE, irqfd->gsi, 0);
	host_eventfd_signal(irqfd->resample, 1);
}

/* Takes @irqfd, already out of the list, apart. vm->lock held. */
static void irqfd_destroy(struct irqfd *irqfd)
{
	host_eventfd_unlisten(&irqfd->listener);
	if (irqfd->resample) {
		int idx;

		irq_unregister_ack_notifier(irqfd->vm, &irqfd->notifier);
		idx = host_srcu_read_lock(&irqfd->vm->srcu);
		irq_set_gsi(irqfd->vm, IRQ_SOURCE_RESAMPLE, irqfd->gsi, 0);
		host_srcu_read_unlock(&irqfd->vm->srcu, idx);
		host_eventfd_put(irqfd->resample);
	}
	host_eventfd_put(irqfd->eventfd);
	host_free(irqfd);
}

/* Those whose eventfd the client has closed for good: nobody could name them to take them away. vm->lock held. */
static void irqfds_sweep(struct vm *vm)
{
	struct irqfd **p = &vm->irqfds, *irqfd;

	while ((irqfd = *p)) {
		if (host_eventfd_gone(irqfd->eventfd)) {
			*p = irqfd->next;
			irqfd_destroy(irqfd);
		} else {
			p = &irqfd->next;
		}
	}
}

static int irqfd_assign(struct vm *vm, const struct kvm_irqfd *args)
{
	struct irqfd *irqfd, *other;
	int r = -ENOMEM;

	irqfd = host_zalloc(sizeof(*irqfd));
	if (!irqfd)
		return -ENOMEM;
	irqfd->vm = vm;
	irqfd->gsi = args->gsi;
	irqfd->listener.fn = irqfd_raised;
	irqfd->eventfd = host_eventfd_get(args->fd, &r);
	if (!irqfd->eventfd)
		goto free;
	if (args->flags & KVM_IRQFD_FLAG_RESAMPLE) {
		irqfd->resample = host_eventfd_get(args->resamplefd, &r);
		if (!irqfd->resample)
			goto put;
	}
	host_mutex_lock(&vm->lock);
	irqfds_sweep(vm);
	for (other = vm->irqfds; other; other = other->next) {
		if (host_eventfd_same(other->eventfd, irqfd->eventfd)) {
			r = -EBUSY;
			goto unlock;
		}
	}
	if (irqfd->resample) {
		irqfd->notifier.gsi = args->gsi;
		irqfd->notifier.acked = irqfd_acked;
		irq_register_ack_notifier(vm, &irqfd->notifier);
	}
	r = host_eventfd_listen(irqfd->eventfd, &irqfd->listener);
	if (r)
		goto unregister;
	irqfd->next = vm->irqfds;
	vm->irqfds = irqfd;
	host_mutex_unlock(&vm->lock);
	return 0;

unregister:
	if (irqfd->resample)
		irq_unregister_ack_notifier(vm, &irqfd->notifier);
unlock:
	host_mutex_unlock(&vm->lock);
	if (irqfd->resample)
		host_eventfd_put(irqfd->resample);
put:
	host_eventfd_put(irqfd->eventfd);
free:
	host_free(irqfd);
	return r;
}

static int irqfd_deassign(struct vm *vm, const struct kvm_irqfd *args)
{
	struct host_eventfd *eventfd;
	struct irqfd **p;
	int r = 0;

	eventfd = host_eventfd_get(args->fd, &r);
	if (!eventfd)
		return r;
	host_mutex_lock(&vm->lock);
	for (p = &vm->irqfds; *p;) {
		struct irqfd *irqfd = *p;

		if (irqfd->gsi == args->gsi && host_eventfd_same(irqfd->eventfd, eventfd)) {
			*p = irqfd->next;
			irqfd_destroy(irqfd);
		} else {
			p = &irqfd->next;
		}
	}
	host_mutex_unlock(&vm->lock);
	host_eventfd_put(eventfd);
	return 0;
}

int vm_irqfd(struct vm *vm, const struct kvm_irqfd *args)
{
	if (args->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN)
		return irqfd_deassign(vm, args);
	if (vm->irqchip == IRQCHIP_NONE)
		return -EINVAL;
	/* A resampling line needs an EOI that core sees: an I/O APIC or PIC of its own. */
	if ((args->flags & KVM_IRQFD_FLAG_RESAMPLE) && vm->irqchip != IRQCHIP_KERNEL)
		return -EINVAL;
	if (args->gsi >= VM_MAX_IRQ_ROUTES)
		return -EINVAL;
	return irqfd_assign(vm, args);
}

void vm_irqfds_destroy(struct vm *vm)
{
	while (vm->irqfds) {
		struct irqfd *irqfd = vm->irqfds;

		vm->irqfds = irqfd->next;
		irqfd_destroy(irqfd);
	}
}

/* ---- ioeventfd ----------------------------------------------------------------------------------------------- */

struct ioeventfd {
	struct io_device dev;
	enum io_space space;
	u32 len; /* 0: a write of any length */
	bool wildcard;
	u64 datamatch;
	struct host_eventfd *eventfd;
	struct ioeventfd *next; /* vm->ioeventfds */
};

static int ioeventfd_write(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, const void *buf)
{
	struct ioeventfd *io = container_of(dev, struct ioeventfd, dev);
	u64 value = 0;

	if (addr != dev->base || (io->len && len != io->len) || len > 8)
		return -EOPNOTSUPP;
	memcpy(&value, buf, len);
	if (!io->wildcard && value != io->datamatch)
		return -EOPNOTSUPP;
	host_eventfd_signal(io->eventfd, 1);
	return 0;
}

static int ioeventfd_read(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, void *buf)
{
	return -EOPNOTSUPP;
}

static const struct io_device_ops ioeventfd_ops = { .read = ioeventfd_read, .write = ioeventfd_write };

static bool ioeventfd_same_place(const struct ioeventfd *a, const struct ioeventfd *b)
{
	return a->space == b->space && a->dev.base == b->dev.base && (!a->len || !b->len || a->len == b->len) &&
	       (a->wildcard || b->wildcard || a->datamatch == b->datamatch);
}

static int ioeventfd_assign(struct vm *vm, struct ioeventfd *io)
{
	struct ioeventfd *other;
	int r;

	for (other = vm->ioeventfds; other; other = other->next)
		if (ioeventfd_same_place(other, io))
			return -EEXIST;
	r = io_device_register(vm, io->space, &io->dev);
	if (r)
		return r;
	io->next = vm->ioeventfds;
	vm->ioeventfds = io;
	return 0;
}

static int ioeventfd_deassign(struct vm *vm, const struct ioeventfd *wanted)
{
	struct ioeventfd **p;

	for (p = &vm->ioeventfds; *p; p = &(*p)->next) {
		struct ioeventfd *io = *p;

		if (io->space != wanted->space || io->dev.base != wanted->dev.base || io->len != wanted->len ||
		    io->wildcard != wanted->wildcard || (!io->wildcard && io->datamatch != wanted->datamatch) ||
		    !host_eventfd_same(io->eventfd, wanted->eventfd))
			continue;
		*p = io->next;
		io_device_unregister(vm, io->space, &io->dev);
		host_eventfd_put(io->eventfd);
		host_free(io);
		return 0;
	}
	return -ENOENT;
}

int vm_ioeventfd(struct vm *vm, const struct kvm_ioeventfd *args)
{
	struct ioeventfd *io;
	bool assign = !(args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN);
	int r = -ENOMEM;

	switch (args->len) {
	case 0: case 1: case 2: case 4: case 8: break;
	default: return -EINVAL;
	}
	if (args->addr + args->len < args->addr)
		return -EINVAL;
	if (args->flags & ~(KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN))
		return -EINVAL;
	if (!args->len && (args->flags & (KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO)))
		return -EINVAL;
	io = host_zalloc(sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->space = args->flags & KVM_IOEVENTFD_FLAG_PIO ? IO_PIO : IO_MMIO;
	io->len = args->len;
	io->wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	io->datamatch = args->datamatch;
	io->dev = (struct io_device){ .ops = &ioeventfd_ops, .base = args->addr, .len = args->len ? args->len : 8 };
	io->eventfd = host_eventfd_get(args->fd, &r);
	if (!io->eventfd)
		goto free;
	host_mutex_lock(&vm->lock);
	r = assign ? ioeventfd_assign(vm, io) : ioeventfd_deassign(vm, io);
	host_mutex_unlock(&vm->lock);
	if (assign && !r)
		return 0;
	host_eventfd_put(io->eventfd);
free:
	host_free(io);
	return r;
}

void vm_ioeventfds_destroy(struct vm *vm)
{
	while (vm->ioeventfds) {
		struct ioeventfd *io = vm->ioeventfds;

		vm->ioeventfds = io->next;
		io_device_unregister(vm, io->space, &io->dev);
		host_eventfd_put(io->eventfd);
		host_free(io);
	}
}
