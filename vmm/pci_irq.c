/*
 * Interrupts of PCI devices: the INTx wires, MSI (PCI 3.0 6.8.1) and MSI-X (6.8.2).
 *
 * Devices notify from any thread, the guest masks and moves vectors from vCPU threads; irq_lock of
 * the device orders the two, so that a notification is either sent with the message it saw or left
 * pending. Nesting: device's irq_lock, then the bus's.
 */
#include "vmm/machine.h"
#include "vmm/pci.h"
#include <stdlib.h>

#define MSIX_ENTRY     PCI_MSIX_ENTRY_SIZE
#define MSI_MASK_64    0x10 /* with a 64-bit address: mask bits, then pending bits */
#define MSI_PENDING_64 0x14

void pci_irq_init(struct pci_device *pci)
{
	pthread_mutex_init(&pci->irq_lock, NULL);
}

/* --- INTx --- */

void pci_intx_init(struct pci_device *pci)
{
	pci->config[PCI_INTERRUPT_PIN] = 1;
}

/* Both levels go out under the bus's lock, so that wires and interrupt lines agree. */
static void wire_drive(struct pci_bus *bus, unsigned wire)
{
	struct machine *m = bus->bus.machine;
	u8 irq = bus->isa_route[wire];
	bool isa = false;
	unsigned i;

	irq_set(m, IRQ_ISA_LINES + wire, bus->wire[wire]);
	if (!irq)
		return;
	for (i = 0; i < PCI_PIRQS; i++)
		isa |= bus->isa_route[i] == irq && bus->wire[i];
	irq_set(m, irq, isa);
}

void pci_route_wire(struct pci_bus *bus, unsigned wire, u8 irq)
{
	u8 old;

	pthread_mutex_lock(&bus->irq_lock);
	old = bus->isa_route[wire];
	if (old != irq) {
		u16 pulled = bus->wire[wire];

		/* The old interrupt loses this wire first. */
		bus->wire[wire] = 0;
		wire_drive(bus, wire);
		bus->isa_route[wire] = irq;
		bus->wire[wire] = pulled;
		wire_drive(bus, wire);
	}
	pthread_mutex_unlock(&bus->irq_lock);
}

static void intx_drive(struct pci_device *pci)
{
	bool level = pci->intx && !(get_le16(pci->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);
	struct pci_bus *bus = pci->bus;
	unsigned wire;

	if (!pci->config[PCI_INTERRUPT_PIN] || level == pci->intx_driven)
		return;
	pci->intx_driven = level;
	wire = (PCI_SLOT(pci->devfn) + pci->config[PCI_INTERRUPT_PIN] - 1) % PCI_PIRQS;
	pthread_mutex_lock(&bus->irq_lock);
	bus->wire[wire] += level ? 1 : -1;
	wire_drive(bus, wire);
	pthread_mutex_unlock(&bus->irq_lock);
}

void pci_intx_update(struct pci_device *pci)
{
	pthread_mutex_lock(&pci->irq_lock);
	intx_drive(pci);
	pthread_mutex_unlock(&pci->irq_lock);
}

void pci_intx_set(struct pci_device *pci, bool level)
{
	pthread_mutex_lock(&pci->irq_lock);
	__atomic_store_n(&pci->intx, level, __ATOMIC_RELAXED);
	intx_drive(pci);
	pthread_mutex_unlock(&pci->irq_lock);
}

/* A device that has been told to stop mastering the bus does not write messages either. */
static void send(struct pci_device *pci, u64 address, u32 data)
{
	if (pci_dma_allowed(pci))
		irq_msi(pci->dev.machine, address, data);
}

/* --- MSI --- */

int pci_msi_init(struct pci_device *pci, unsigned vectors, struct error *err)
{
	unsigned log2 = 0;
	u8 *writable;

	while (1u << log2 < vectors)
		log2++;
	if (vectors != 1u << log2 || vectors > 32)
		return error_set(err, -EINVAL, "%u MSI vectors: 1, 2, 4, 8, 16 or 32 are possible",
				 vectors);
	pci->msi = pci_cap_add(pci, PCI_CAP_ID_MSI, 0x18);
	put_le16(pci->config + pci->msi + PCI_MSI_FLAGS,
		 PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | log2 << 1);
	writable = pci->writable + pci->msi;
	put_le16(writable + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	put_le32(writable + PCI_MSI_ADDRESS_LO, ~3u);
	put_le32(writable + PCI_MSI_ADDRESS_HI, ~0u);
	put_le16(writable + PCI_MSI_DATA_64, 0xffff);
	put_le32(writable + MSI_MASK_64, vectors == 32 ? ~0u : (1u << vectors) - 1);
	return 0;
}

bool pci_msi_enabled(const struct pci_device *pci)
{
	return pci->msi && pci->config[pci->msi + PCI_MSI_FLAGS] & PCI_MSI_FLAGS_ENABLE;
}

/* irq_lock held. */
static void msi_send(struct pci_device *pci, unsigned vector)
{
	const u8 *cap = pci->config + pci->msi;
	unsigned granted = 1u << ((get_le16(cap + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_QSIZE) >> 4);
	u32 data = get_le16(cap + PCI_MSI_DATA_64);

	/* With fewer vectors than asked for the device folds them (6.8.1.6). */
	granted = MIN(granted, 32);
	data = (data & ~(granted - 1)) | (vector & (granted - 1));
	send(pci,
	     get_le32(cap + PCI_MSI_ADDRESS_LO) | (u64)get_le32(cap + PCI_MSI_ADDRESS_HI) << 32,
	     data);
}

void pci_msi_notify(struct pci_device *pci, unsigned vector)
{
	u8 *cap = pci->config + pci->msi;

	if (vector >= 32)
		return;
	pthread_mutex_lock(&pci->irq_lock);
	if (pci_msi_enabled(pci)) {
		if (get_le32(cap + MSI_MASK_64) & 1u << vector)
			put_le32(cap + MSI_PENDING_64,
				 get_le32(cap + MSI_PENDING_64) | 1u << vector);
		else
			msi_send(pci, vector);
	}
	pthread_mutex_unlock(&pci->irq_lock);
}

static void msi_written(struct pci_device *pci)
{
	u8 *cap = pci->config + pci->msi;
	unsigned v;
	u32 due;

	if (!pci_msi_enabled(pci))
		return;
	due = get_le32(cap + MSI_PENDING_64) & ~get_le32(cap + MSI_MASK_64);
	put_le32(cap + MSI_PENDING_64, get_le32(cap + MSI_PENDING_64) & ~due);
	for (v = 0; v < 32; v++)
		if (due & 1u << v)
			msi_send(pci, v);
}

/* --- MSI-X --- */

static u8 *entry(struct pci_device *pci, unsigned vector)
{
	return pci->msix.table + vector * MSIX_ENTRY;
}

static bool vector_masked(struct pci_device *pci, unsigned vector)
{
	return !pci->msix.enabled || pci->msix.masked ||
	       get_le32(entry(pci, vector) + PCI_MSIX_ENTRY_VECTOR_CTRL) &
		       PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

static u64 message_address(struct pci_device *pci, unsigned vector)
{
	return get_le64(entry(pci, vector) + PCI_MSIX_ENTRY_LOWER_ADDR);
}

static u32 message_data(struct pci_device *pci, unsigned vector)
{
	return get_le32(entry(pci, vector) + PCI_MSIX_ENTRY_DATA);
}

/* irq_lock held. */
static void send_if_pending(struct pci_device *pci, unsigned vector)
{
	u8 *byte = &pci->msix.pba[vector / 8], bit = 1u << (vector % 8);

	if (!(*byte & bit) || vector_masked(pci, vector))
		return;
	*byte &= ~bit;
	send(pci, message_address(pci, vector), message_data(pci, vector));
}

static void changed(struct pci_device *pci, unsigned vector)
{
	if (pci->ops && pci->ops->msix_changed)
		pci->ops->msix_changed(pci, vector);
}

static u32 table_size(const struct pci_device *pci)
{
	return pci->msix.vectors * MSIX_ENTRY;
}

static u32 pba_offset(unsigned vectors)
{
	return ALIGN_UP(vectors * MSIX_ENTRY, 2048);
}

static u64 msix_read(struct io_region *r, u64 offset, unsigned size)
{
	struct pci_device *pci = container_of(r, struct pci_device, msix.bar);
	u32 pba = pba_offset(pci->msix.vectors), pba_size = ALIGN_UP(pci->msix.vectors, 64) / 8;
	u64 v = 0;

	pthread_mutex_lock(&pci->irq_lock);
	if (offset + size <= table_size(pci))
		memcpy(&v, pci->msix.table + offset, size);
	else if (offset >= pba && offset + size <= pba + pba_size)
		memcpy(&v, pci->msix.pba + (offset - pba), size);
	pthread_mutex_unlock(&pci->irq_lock);
	return v;
}

static void msix_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct pci_device *pci = container_of(r, struct pci_device, msix.bar);
	unsigned vector = offset / MSIX_ENTRY;

	/*
	 * Software writes dwords or qwords, aligned; anything else is undefined (6.8.2) and ignored
	 * here.
	 */
	if (offset + size > table_size(pci) || size < 4 || offset % size)
		return;
	pthread_mutex_lock(&pci->irq_lock);
	memcpy(pci->msix.table + offset, &value, size);
	entry(pci, vector)[PCI_MSIX_ENTRY_LOWER_ADDR] &= ~3;
	put_le32(entry(pci, vector) + PCI_MSIX_ENTRY_VECTOR_CTRL,
		 get_le32(entry(pci, vector) + PCI_MSIX_ENTRY_VECTOR_CTRL) &
			 PCI_MSIX_ENTRY_CTRL_MASKBIT);
	send_if_pending(pci, vector);
	pthread_mutex_unlock(&pci->irq_lock);
	changed(pci, vector);
}

static const struct io_ops msix_ops = { .read = msix_read, .write = msix_write };

int pci_msix_init(struct pci_device *pci, unsigned bar, unsigned vectors, struct error *err)
{
	struct pci_msix *msix = &pci->msix;
	u32 size = 4096;
	unsigned i;
	u8 *cap;

	if (!vectors || vectors > PCI_MSIX_MAX)
		return error_set(err, -EINVAL, "vectors=%u: 1 to %d are possible", vectors,
				 PCI_MSIX_MAX);
	while (size < pba_offset(vectors) + ALIGN_UP(vectors, 64) / 8)
		size *= 2;
	msix->vectors = vectors;
	msix->table = xzalloc(vectors * MSIX_ENTRY);
	msix->pba = xzalloc(ALIGN_UP(vectors, 64) / 8);
	msix->routes = xzalloc(vectors * sizeof(msix->routes[0]));
	msix->eventfds = xzalloc(vectors * sizeof(msix->eventfds[0]));
	for (i = 0; i < vectors; i++) {
		msix->eventfds[i] = -1;
		put_le32(entry(pci, i) + PCI_MSIX_ENTRY_VECTOR_CTRL, PCI_MSIX_ENTRY_CTRL_MASKBIT);
	}
	io_region_init(&msix->bar, "msix", &msix_ops, size);
	pci_bar_add(pci, bar, PCI_BAR_MEM32, &msix->bar);
	msix->cap = pci_cap_add(pci, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	cap = pci->config + msix->cap;
	put_le16(cap + PCI_MSIX_FLAGS, vectors - 1);
	put_le32(cap + PCI_MSIX_TABLE, bar);
	put_le32(cap + PCI_MSIX_PBA, pba_offset(vectors) | bar);
	put_le16(pci->writable + msix->cap + PCI_MSIX_FLAGS,
		 PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	return 0;
}

bool pci_msix_enabled(const struct pci_device *pci)
{
	return __atomic_load_n(&pci->msix.enabled, __ATOMIC_RELAXED);
}

void pci_msix_notify(struct pci_device *pci, unsigned vector)
{
	if (vector >= pci->msix.vectors)
		return;
	pthread_mutex_lock(&pci->irq_lock);
	if (pci->msix.enabled) {
		pci->msix.pba[vector / 8] |= 1u << (vector % 8);
		send_if_pending(pci, vector);
	}
	pthread_mutex_unlock(&pci->irq_lock);
}

/* irq_lock held. */
static void eventfd_disconnect(struct pci_device *pci, unsigned vector)
{
	int *fd = &pci->msix.eventfds[vector];

	if (*fd >= 0)
		irq_eventfd_del(pci->dev.machine, *fd, pci->msix.routes[vector].gsi);
	*fd = -1;
}

int pci_msix_eventfd_add(struct pci_device *pci, unsigned vector, int fd)
{
	struct machine *m = pci->dev.machine;
	struct irq_route *route;
	int r = -EAGAIN;

	if (vector >= pci->msix.vectors)
		return -EINVAL;
	route = &pci->msix.routes[vector];
	pthread_mutex_lock(&pci->irq_lock);
	if (vector_masked(pci, vector)) {
		eventfd_disconnect(pci, vector);
		goto out;
	}
	r = irq_route_msi(m, route, message_address(pci, vector), message_data(pci, vector));
	if (!r && pci->msix.eventfds[vector] != fd) {
		eventfd_disconnect(pci, vector);
		r = irq_eventfd_add(m, fd, route->gsi, -1);
		if (!r)
			pci->msix.eventfds[vector] = fd;
	}
out:
	pthread_mutex_unlock(&pci->irq_lock);
	return r;
}

void pci_msix_eventfd_del(struct pci_device *pci, unsigned vector, int fd)
{
	if (vector >= pci->msix.vectors)
		return;
	pthread_mutex_lock(&pci->irq_lock);
	if (pci->msix.eventfds[vector] == fd) {
		eventfd_disconnect(pci, vector);
		irq_route_release(pci->dev.machine, &pci->msix.routes[vector]);
	}
	pthread_mutex_unlock(&pci->irq_lock);
}

static void msix_written(struct pci_device *pci)
{
	u16 flags = get_le16(pci->config + pci->msix.cap + PCI_MSIX_FLAGS);
	bool enabled = flags & PCI_MSIX_FLAGS_ENABLE, masked = flags & PCI_MSIX_FLAGS_MASKALL;
	unsigned v;

	pthread_mutex_lock(&pci->irq_lock);
	if (enabled == pci->msix.enabled && masked == pci->msix.masked) {
		pthread_mutex_unlock(&pci->irq_lock);
		return;
	}
	__atomic_store_n(&pci->msix.enabled, enabled, __ATOMIC_RELAXED);
	pci->msix.masked = masked;
	for (v = 0; v < pci->msix.vectors; v++)
		send_if_pending(pci, v);
	pthread_mutex_unlock(&pci->irq_lock);
	for (v = 0; v < pci->msix.vectors; v++)
		changed(pci, v);
}

void pci_irq_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	if (pci->msi && offset < pci->msi + 0x18u && offset + size > pci->msi) {
		pthread_mutex_lock(&pci->irq_lock);
		msi_written(pci);
		pthread_mutex_unlock(&pci->irq_lock);
	}
	if (pci->msix.cap && offset < pci->msix.cap + 4u && offset + size > pci->msix.cap)
		msix_written(pci);
}

void pci_irq_reset(struct pci_device *pci)
{
	struct pci_msix *msix = &pci->msix;
	unsigned v;

	pthread_mutex_lock(&pci->irq_lock);
	__atomic_store_n(&pci->intx, false, __ATOMIC_RELAXED);
	intx_drive(pci);
	if (msix->vectors) {
		__atomic_store_n(&msix->enabled, false, __ATOMIC_RELAXED);
		msix->masked = false;
		memset(msix->table, 0, table_size(pci));
		memset(msix->pba, 0, ALIGN_UP(msix->vectors, 64) / 8);
		for (v = 0; v < msix->vectors; v++) {
			put_le32(entry(pci, v) + PCI_MSIX_ENTRY_VECTOR_CTRL,
				 PCI_MSIX_ENTRY_CTRL_MASKBIT);
			eventfd_disconnect(pci, v);
			irq_route_release(pci->dev.machine, &msix->routes[v]);
		}
	}
	pthread_mutex_unlock(&pci->irq_lock);
	for (v = 0; v < msix->vectors; v++)
		changed(pci, v);
}

void pci_irq_release(struct pci_device *pci)
{
	struct pci_msix *msix = &pci->msix;
	unsigned v;

	for (v = 0; v < msix->vectors; v++) {
		eventfd_disconnect(pci, v);
		irq_route_release(pci->dev.machine, &msix->routes[v]);
	}
	free(msix->table);
	free(msix->pba);
	free(msix->routes);
	free(msix->eventfds);
	*msix = (struct pci_msix){};
	pthread_mutex_destroy(&pci->irq_lock);
}
