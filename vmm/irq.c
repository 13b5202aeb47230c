/*
 * Interrupt lines and messages, through the in-kernel interrupt chips. Without an accelerator only
 * levels are kept.
 */
#include "vmm/irq.h"
#include "vmm/machine.h"
#include <linux/kvm.h>
#include <stdlib.h>

static bool gsi_used(const struct irq_table *t, u32 gsi)
{
	return t->used[gsi / 8] & (1u << (gsi % 8));
}

static int routes_commit(struct machine *m)
{
	return accel_ioctl(m, m->vm_fd, KVM_SET_GSI_ROUTING, m->irq.routes);
}

static void route_chip(struct irq_table *t, u32 gsi, u32 chip, u32 pin)
{
	t->routes->entries[t->routes->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = chip, .pin = pin },
	};
	t->used[gsi / 8] |= 1u << (gsi % 8);
}

int irq_init(struct machine *m, struct error *err)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct irq_table *t = &m->irq;
	u32 gsi;
	int r;

	pthread_mutex_init(&t->lock, NULL);
	t->routes = xzalloc(sizeof(*t->routes) +
			    (IRQ_ROUTES_MAX + IRQ_ISA_LINES) * sizeof(t->routes->entries[0]));
	t->used[0] = 1; /* 0 is "no route" to struct irq_route, and the timer's line */
	if (!m->accel)
		return 0;
	r = accel_ioctl_value(m, m->vm_fd, KVM_CREATE_IRQCHIP, 0);
	if (r < 0)
		return error_set(err, r, "KVM_CREATE_IRQCHIP: %s", strerror(-r));
	r = accel_ioctl(m, m->vm_fd, KVM_CREATE_PIT2, &pit);
	if (r < 0)
		return error_set(err, r, "KVM_CREATE_PIT2: %s", strerror(-r));
	/*
	 * ISA interrupts reach both chips; the timer arrives at pin 2 of the I/O APIC, and pin 2 of
	 * the PIC is the cascade.
	 */
	for (gsi = 0; gsi < IRQ_ISA_LINES; gsi++)
		if (gsi != 2)
			route_chip(t, gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
				   gsi % 8);
	for (gsi = 0; gsi < IRQ_GSI_LINES; gsi++)
		if (gsi != 2)
			route_chip(t, gsi, KVM_IRQCHIP_IOAPIC, gsi ? gsi : 2);
	t->used[0] |= 1u << 2;
	if (accel_has(m, KVM_CAP_IRQ_ROUTING) > 0) {
		r = routes_commit(m);
		if (r < 0)
			return error_set(err, r, "KVM_SET_GSI_ROUTING: %s", strerror(-r));
	}
	t->msi = accel_has(m, KVM_CAP_SIGNAL_MSI) > 0;
	t->irqfd = accel_has(m, KVM_CAP_IRQFD) > 0 && accel_has(m, KVM_CAP_IRQ_ROUTING) > 0;
	if (!t->msi)
		return error_set(err, -ENOSYS, "the accelerator has no KVM_CAP_SIGNAL_MSI");
	return 0;
}

void irq_destroy(struct machine *m)
{
	struct irq_table *t = &m->irq;

	if (!t->routes)
		return;
	free(t->routes);
	t->routes = NULL;
	pthread_mutex_destroy(&t->lock);
}

int irq_save(struct machine *m, struct error *err)
{
	struct irq_table *t = &m->irq;
	unsigned i;
	int r;

	for (i = 0; i < ARRAY_SIZE(t->power_on); i++) {
		t->power_on[i].chip_id = i;
		r = accel_ioctl(m, m->vm_fd, KVM_GET_IRQCHIP, &t->power_on[i]);
		if (r < 0)
			return error_set(err, r, "KVM_GET_IRQCHIP: %s", strerror(-r));
	}
	r = accel_ioctl(m, m->vm_fd, KVM_GET_PIT2, &t->pit_power_on);
	return r < 0 ? error_set(err, r, "KVM_GET_PIT2: %s", strerror(-r)) : 0;
}

void irq_reset(struct machine *m)
{
	struct irq_table *t = &m->irq;
	unsigned i;

	for (i = 0; i < IRQ_GSI_LINES; i++)
		irq_set(m, i, false);
	if (!m->accel)
		return;
	for (i = 0; i < ARRAY_SIZE(t->power_on); i++)
		accel_ioctl(m, m->vm_fd, KVM_SET_IRQCHIP, &t->power_on[i]);
	accel_ioctl(m, m->vm_fd, KVM_SET_PIT2, &t->pit_power_on);
}

void irq_set(struct machine *m, u32 gsi, bool level)
{
	struct irq_table *t = &m->irq;
	struct kvm_irq_level line = { .irq = gsi, .level = level };

	if (gsi >= IRQ_GSI_LINES)
		return;
	/* The lock makes the accelerator see levels in the order in which we record them. */
	pthread_mutex_lock(&t->lock);
	if (t->level[gsi] != level) {
		t->level[gsi] = level;
		if (m->accel)
			accel_ioctl(m, m->vm_fd, KVM_IRQ_LINE, &line);
	}
	pthread_mutex_unlock(&t->lock);
}

void irq_pulse(struct machine *m, u32 gsi)
{
	irq_set(m, gsi, true);
	irq_set(m, gsi, false);
}

int irq_msi(struct machine *m, u64 address, u32 data)
{
	struct kvm_msi msi = { .address_lo = (u32)address,
			       .address_hi = address >> 32,
			       .data = data };
	int r;

	if (!m->accel)
		return 0;
	r = accel_ioctl(m, m->vm_fd, KVM_SIGNAL_MSI, &msi);
	if (r < 0)
		return r;
	return r ? 0 : -EIO;
}

static struct kvm_irq_routing_entry *entry_of(struct irq_table *t, u32 gsi)
{
	u32 i;

	for (i = 0; i < t->routes->nr; i++)
		if (t->routes->entries[i].gsi == gsi &&
		    t->routes->entries[i].type == KVM_IRQ_ROUTING_MSI)
			return &t->routes->entries[i];
	return NULL;
}

int irq_route_msi(struct machine *m, struct irq_route *r, u64 address, u32 data)
{
	struct irq_table *t = &m->irq;
	struct kvm_irq_routing_entry *e;
	int ret = 0;
	u32 gsi;

	if (!m->accel || !t->irqfd)
		return -ENOSYS;
	if (r->gsi && r->address == address && r->data == data)
		return 0;
	pthread_mutex_lock(&t->lock);
	if (!r->gsi) {
		for (gsi = IRQ_GSI_LINES; gsi < IRQ_ROUTES_MAX && gsi_used(t, gsi); gsi++)
			;
		if (gsi == IRQ_ROUTES_MAX) {
			ret = -ENOSPC;
			goto out;
		}
		t->used[gsi / 8] |= 1u << (gsi % 8);
		r->gsi = gsi;
		e = &t->routes->entries[t->routes->nr++];
	} else {
		e = entry_of(t, r->gsi);
	}
	*e = (struct kvm_irq_routing_entry){
		.gsi = r->gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = (u32)address, .address_hi = address >> 32, .data = data },
	};
	r->address = address;
	r->data = data;
	ret = routes_commit(m);
out:
	pthread_mutex_unlock(&t->lock);
	return ret;
}

void irq_route_release(struct machine *m, struct irq_route *r)
{
	struct irq_table *t = &m->irq;
	struct kvm_irq_routing_entry *e;

	if (!r->gsi)
		return;
	pthread_mutex_lock(&t->lock);
	e = entry_of(t, r->gsi);
	if (e)
		*e = t->routes->entries[--t->routes->nr];
	t->used[r->gsi / 8] &= ~(1u << (r->gsi % 8));
	r->gsi = 0;
	routes_commit(m);
	pthread_mutex_unlock(&t->lock);
}

static int irqfd(struct machine *m, int fd, u32 gsi, int resample, u32 flags)
{
	struct kvm_irqfd irqfd = {
		.fd = fd,
		.gsi = gsi,
		.flags = flags | (resample >= 0 ? KVM_IRQFD_FLAG_RESAMPLE : 0),
		.resamplefd = resample >= 0 ? resample : 0,
	};

	if (!m->accel || !m->irq.irqfd)
		return -ENOSYS;
	return accel_ioctl(m, m->vm_fd, KVM_IRQFD, &irqfd);
}

int irq_eventfd_add(struct machine *m, int fd, u32 gsi, int resample)
{
	return irqfd(m, fd, gsi, resample, 0);
}

int irq_eventfd_del(struct machine *m, int fd, u32 gsi)
{
	return irqfd(m, fd, gsi, -1, KVM_IRQFD_FLAG_DEASSIGN);
}
