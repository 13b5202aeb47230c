/*
 * Interrupts into the guest: GSI lines of the in-kernel PIC and I/O APIC, and messages (MSI,
 * MSI-X).
 *
 *	irq_set(m, 4, true);			the serial port's line
 *	irq_msi(m, address, data);		a message, now
 *
 *	irq_route_msi(m, &route, addr, data);	a GSI of its own that sends this message,
 *	irq_eventfd_add(m, fd, route.gsi, -1);	whenever fd is signalled, without the monitor
 *
 * All of this may be called from any thread, with or without the machine lock.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include "vmm/util.h"
#include <pthread.h>
#include <linux/kvm.h>

struct machine;

#define IRQ_ISA_LINES  16
#define IRQ_GSI_LINES  24   /* pins of the I/O APIC; 0-15 go to the PICs too */
#define IRQ_ROUTES_MAX 1024 /* lines and messages */

struct irq_table {
	pthread_mutex_t lock;
	struct kvm_irq_routing *routes; /* as KVM_SET_GSI_ROUTING takes it */
	u8 used[IRQ_ROUTES_MAX / 8];	/* GSIs handed out */
	bool level[IRQ_GSI_LINES];
	bool msi, irqfd;		/* what the accelerator can */
	struct kvm_irqchip power_on[3]; /* the chips after creation */
	struct kvm_pit_state2 pit_power_on;
};

/** Creates the interrupt chips and the PIT in the accelerator and installs the default routes. */
int irq_init(struct machine *m, struct error *err);
void irq_destroy(struct machine *m);

/**
 * Remembers the chips' state as that after power-on; irq_reset() goes back to it, with all lines
 * low. vCPUs stand still.
 */
int irq_save(struct machine *m, struct error *err);
void irq_reset(struct machine *m);

/**
 * Sets the level of line @gsi (0 .. IRQ_GSI_LINES - 1). Lines are not counted: who shares one ORs
 * first (pci_irq_set does).
 */
void irq_set(struct machine *m, u32 gsi, bool level);

/** A rising and a falling edge. */
void irq_pulse(struct machine *m, u32 gsi);

/** Sends one message. Returns 0, or a negative errno (-EIO: blocked by the guest). */
int irq_msi(struct machine *m, u64 address, u32 data);

/* A GSI number that stands for a message. gsi is 0 while there is none. */
struct irq_route {
	u32 gsi;
	u64 address;
	u32 data;
};

/** Gives @r a GSI (if it has none) and makes that send (@address, @data). -ENOSPC, -ENOSYS. */
int irq_route_msi(struct machine *m, struct irq_route *r, u64 address, u32 data);
void irq_route_release(struct machine *m, struct irq_route *r);

/**
 * Connects eventfd @fd to @gsi: KVM_IRQFD. @resample, an eventfd or -1, is signalled when the guest
 * ends a level interrupt. Errors: -ENOSYS where the accelerator cannot; KVM's.
 */
int irq_eventfd_add(struct machine *m, int fd, u32 gsi, int resample);
int irq_eventfd_del(struct machine *m, int fd, u32 gsi);

#endif
