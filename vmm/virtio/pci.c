/*
 * virtio over PCI: the registers. See pci.h.
 *
 * BAR 0, ports: the legacy interface (§4.1.4.10). BAR 1: the MSI-X table. BAR 4, memory: the modern
 * interface, a page each for the common configuration, the ISR, the device's configuration and the
 * doorbells (§4.1.4).
 */
#include "vmm/virtio/pci.h"
#include "vmm/machine.h"
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BAR_LEGACY 0
#define BAR_MSIX   1
#define BAR_MODERN 4

#define MODERN_COMMON	0x0000
#define MODERN_ISR	0x1000
#define MODERN_DEVICE	0x2000
#define MODERN_NOTIFY	0x3000
#define MODERN_PART	0x1000
#define MODERN_SIZE	0x4000
#define NOTIFY_MULTIPLE 4

#define ISR_QUEUE  1
#define ISR_CONFIG 2

#define NO_VECTOR	 0xffff
#define VENDOR_VIRTIO	 0x1af4
#define SUBSYSTEM_MODERN 0x1100
#define VECTORS_AUTO	 0xffffffff

static_assert(sizeof(struct virtio_pci_cap) == 16, "virtio 1.2 §4.1.4");
static_assert(sizeof(struct virtio_pci_common_cfg) == 56, "virtio 1.2 §4.1.4.3");

const enum virtio_pci_variant virtio_pci_variants[3] = { VIRTIO_PCI_BY_OPTION,
							 VIRTIO_PCI_TRANSITIONAL,
							 VIRTIO_PCI_NON_TRANSITIONAL };

/* §4.1.2.1: transitional devices have numbers from before the rule. */
static const struct {
	u16 id, pci_device;
} transitional_ids[] = {
	{ VIRTIO_ID_NET, 0x1000 },     { VIRTIO_ID_BLOCK, 0x1001 }, { VIRTIO_ID_BALLOON, 0x1002 },
	{ VIRTIO_ID_CONSOLE, 0x1003 }, { VIRTIO_ID_RNG, 0x1005 },
};

/* ---- interrupts ----------------------------------------------------------------------------- */

static void virtio_pci_interrupt(struct virtio_pci *v, u16 vector, u8 isr)
{
	if (pci_msix_enabled(&v->pci)) {
		if (vector != NO_VECTOR)
			pci_msix_notify(&v->pci, vector);
		return;
	}
	v->isr |= isr;
	pci_intx_set(&v->pci, true);
}

static void virtio_pci_notify_queue(struct virtio_device *vdev, struct virtq *vq)
{
	virtio_pci_interrupt(container_of(vdev, struct virtio_pci, vdev), vq->vector, ISR_QUEUE);
}

static void virtio_pci_notify_config(struct virtio_device *vdev)
{
	struct virtio_pci *v = container_of(vdev, struct virtio_pci, vdev);

	/* Without MSI-X bit 0 stays clear: no queue has anything. */
	virtio_pci_interrupt(v, v->config_vector, ISR_CONFIG);
}

static bool virtio_pci_dma_allowed(struct virtio_device *vdev)
{
	return pci_dma_allowed(&container_of(vdev, struct virtio_pci, vdev)->pci);
}

static const struct virtio_transport virtio_pci_transport = {
	.notify_queue = virtio_pci_notify_queue,
	.notify_config = virtio_pci_notify_config,
	.dma_allowed = virtio_pci_dma_allowed,
};

static u8 isr_read(struct virtio_pci *v)
{
	u8 isr = v->isr;

	v->isr = 0;
	pci_intx_set(&v->pci, false);
	return isr;
}

/* A vector that does not exist reads back as none (§4.1.5.1.2). */
static u16 valid_vector(struct virtio_pci *v, u16 vector)
{
	return vector < v->vectors ? vector : NO_VECTOR;
}

/* ---- doorbells ------------------------------------------------------------------------------ */

static void doorbell_ready(struct loop_fd *event, u32 events)
{
	struct virtio_pci_doorbell *bell = container_of(event, struct virtio_pci_doorbell, event);
	u64 count;

	if (read(event->fd, &count, sizeof(count)) == sizeof(count))
		virtio_queue_notify(&bell->v->vdev, bell->index);
}

static void doorbell_remove(struct virtio_pci_doorbell *bell)
{
	struct machine *m = bell->v->vdev.machine;

	if (!bell->added)
		return;
	if (bell->legacy)
		bus_eventfd_del(m, IO_PORT, bell->address, 2, true, bell->index, bell->event.fd);
	else
		bus_eventfd_del(m, IO_MEMORY, bell->address, 2, false, 0, bell->event.fd);
	loop_fd_del(&m->loop, &bell->event);
	bell->added = false;
	/* A ring that came before is heard still; after a reset it finds no queue. */
	doorbell_ready(&bell->event, 0);
}

static void doorbell_add(struct virtio_pci_doorbell *bell, bool legacy, u64 address)
{
	struct machine *m = bell->v->vdev.machine;
	int result;

	if (bell->event.fd < 0)
		bell->event.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bell->event.fd < 0)
		return;
	if (legacy)
		result = bus_eventfd_add(m, IO_PORT, address, 2, true, bell->index, bell->event.fd);
	else
		result = bus_eventfd_add(m, IO_MEMORY, address, 2, false, 0, bell->event.fd);
	/* Without it the write comes to the region, which serves as well. */
	if (result < 0)
		return;
	bell->legacy = legacy;
	bell->address = address;
	bell->added = true;
	if (loop_fd_add(&m->loop, &bell->event) < 0)
		doorbell_remove(bell);
}

/* Brings the doorbells to where the driver would ring now: nowhere until it is ready. */
static void doorbells_update(struct virtio_pci *v)
{
	bool legacy = v->vdev.legacy;
	bool wanted = v->ioeventfd && v->vdev.status & VIRTIO_CONFIG_S_DRIVER_OK;
	u64 base = legacy ? v->legacy_base : v->modern_base;

	for (unsigned i = 0; i < v->vdev.queues; i++) {
		struct virtio_pci_doorbell *bell = &v->doorbells[i];
		u64 address = legacy ? base + VIRTIO_PCI_QUEUE_NOTIFY
				     : base + MODERN_NOTIFY + NOTIFY_MULTIPLE * i;
		bool want = wanted && base != ~0ull && v->vdev.vq[i].enabled;

		if (bell->added && (!want || bell->legacy != legacy || bell->address != address))
			doorbell_remove(bell);
		if (want && !bell->added)
			doorbell_add(bell, legacy, address);
	}
}

static void virtio_pci_reset_device(struct virtio_pci *v)
{
	virtio_reset(&v->vdev);
	doorbells_update(v);
	v->device_select = v->driver_select = 0;
	v->queue_select = 0;
	v->config_vector = NO_VECTOR;
	isr_read(v);
}

static void virtio_pci_set_status(struct virtio_pci *v, u8 status)
{
	if (!status) {
		virtio_pci_reset_device(v);
		return;
	}
	virtio_set_status(&v->vdev, status);
	doorbells_update(v);
}

static struct virtq *selected_queue(struct virtio_pci *v)
{
	return v->queue_select < v->vdev.queues ? &v->vdev.vq[v->queue_select] : NULL;
}

/* ---- the legacy interface ------------------------------------------------------------------- */

static unsigned legacy_config_offset(struct virtio_pci *v)
{
	return VIRTIO_PCI_CONFIG_OFF(pci_msix_enabled(&v->pci));
}

static u64 legacy_read(struct io_region *r, u64 offset, unsigned size)
{
	struct virtio_pci *v = container_of(r, struct virtio_pci, legacy_region);
	struct virtq *vq = selected_queue(v);

	if (offset >= legacy_config_offset(v))
		return virtio_config_read(&v->vdev, offset - legacy_config_offset(v), size);
	switch (offset) {
	case VIRTIO_PCI_HOST_FEATURES: return (u32)v->vdev.host_features;
	case VIRTIO_PCI_GUEST_FEATURES: return (u32)v->vdev.guest_features;
	case VIRTIO_PCI_QUEUE_PFN:
		return vq && vq->enabled ? vq->desc_gpa >> VIRTIO_PCI_QUEUE_ADDR_SHIFT : 0;
	case VIRTIO_PCI_QUEUE_NUM: return vq ? vq->size_max : 0;
	case VIRTIO_PCI_QUEUE_SEL: return v->queue_select;
	case VIRTIO_PCI_STATUS: return v->vdev.status;
	case VIRTIO_PCI_ISR: return isr_read(v);
	case VIRTIO_MSI_CONFIG_VECTOR: return v->config_vector;
	case VIRTIO_MSI_QUEUE_VECTOR: return vq ? vq->vector : NO_VECTOR;
	default: return 0;
	}
}

static void legacy_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct virtio_pci *v = container_of(r, struct virtio_pci, legacy_region);
	struct virtq *vq = selected_queue(v);

	/* Whoever sets a device up here means it so; a driver of virtio 1 never comes here. */
	if (offset != VIRTIO_PCI_QUEUE_NOTIFY && !(v->vdev.status & VIRTIO_CONFIG_S_FEATURES_OK))
		v->vdev.legacy = true;
	if (offset >= legacy_config_offset(v)) {
		virtio_config_write(&v->vdev, offset - legacy_config_offset(v), value, size);
		return;
	}
	switch (offset) {
	case VIRTIO_PCI_GUEST_FEATURES:
		virtio_set_features(&v->vdev, 0, value & v->vdev.host_features);
		break;
	case VIRTIO_PCI_QUEUE_PFN:
		if (vq && vq->size_max && !(v->vdev.status & VIRTIO_CONFIG_S_FEATURES_OK)) {
			virtio_queue_set_pfn(vq, value);
			doorbells_update(v);
		}
		break;
	case VIRTIO_PCI_QUEUE_SEL: v->queue_select = value; break;
	case VIRTIO_PCI_QUEUE_NOTIFY: virtio_queue_notify(&v->vdev, value & 0xffff); break;
	case VIRTIO_PCI_STATUS: virtio_pci_set_status(v, value); break;
	case VIRTIO_MSI_CONFIG_VECTOR: v->config_vector = valid_vector(v, value); break;
	case VIRTIO_MSI_QUEUE_VECTOR:
		if (vq)
			vq->vector = valid_vector(v, value);
		break;
	default: break;
	}
}

static const struct io_ops legacy_ops = { .read = legacy_read,
					  .write = legacy_write,
					  .max_size = 4 };

/* ---- the modern interface ------------------------------------------------------------------- */

static u64 common_read(struct virtio_pci *v, u64 offset, unsigned size)
{
	struct virtq *vq = selected_queue(v);
	struct virtio_pci_common_cfg c = {
		.device_feature_select = v->device_select,
		.guest_feature_select = v->driver_select,
		.msix_config = v->config_vector,
		.num_queues = v->vdev.queues,
		.device_status = v->vdev.status,
		.config_generation = v->vdev.generation,
		.queue_select = v->queue_select,
	};
	u64 value = 0;

	if (v->device_select < 2)
		c.device_feature = v->vdev.host_features >> (32 * v->device_select);
	if (v->driver_select < 2)
		c.guest_feature = v->vdev.guest_features >> (32 * v->driver_select);
	if (vq) {
		c.queue_size = vq->size;
		c.queue_msix_vector = vq->vector;
		c.queue_enable = vq->enabled;
		c.queue_notify_off = vq->index;
		c.queue_desc_lo = vq->desc_gpa;
		c.queue_desc_hi = vq->desc_gpa >> 32;
		c.queue_avail_lo = vq->driver_gpa;
		c.queue_avail_hi = vq->driver_gpa >> 32;
		c.queue_used_lo = vq->device_gpa;
		c.queue_used_hi = vq->device_gpa >> 32;
	}
	if (offset < sizeof(c))
		memcpy(&value, (u8 *)&c + offset, MIN(size, sizeof(c) - offset));
	return value;
}

static void set_half(u64 *address, bool high, u32 value)
{
	*address = high ? (u32)*address | (u64)value << 32 : (*address & ~0xffffffffull) | value;
}

/* The selected queue's registers: fixed once it is enabled (§4.1.4.3.2). */
static void common_write_queue(struct virtio_pci *v, struct virtq *vq, u64 offset, u32 value)
{
	if (offset == VIRTIO_PCI_COMMON_Q_MSIX) {
		vq->vector = valid_vector(v, value);
		return;
	}
	if (vq->enabled || !vq->size_max)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		/* What cannot be is refused when the queue is enabled. */
		vq->size = value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if ((value & 0xffff) == 1 && v->vdev.status & VIRTIO_CONFIG_S_FEATURES_OK &&
		    !v->vdev.broken) {
			virtio_queue_enable(vq);
			doorbells_update(v);
		}
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		set_half(&vq->desc_gpa, offset == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		set_half(&vq->driver_gpa, offset == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		set_half(&vq->device_gpa, offset == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		break;
	default: break;
	}
}

static void common_write(struct virtio_pci *v, u64 offset, u32 value)
{
	struct virtq *vq = selected_queue(v);

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT: v->device_select = value; break;
	case VIRTIO_PCI_COMMON_GFSELECT: v->driver_select = value; break;
	case VIRTIO_PCI_COMMON_GF: virtio_set_features(&v->vdev, v->driver_select, value); break;
	case VIRTIO_PCI_COMMON_MSIX: v->config_vector = valid_vector(v, value); break;
	case VIRTIO_PCI_COMMON_STATUS: virtio_pci_set_status(v, value); break;
	case VIRTIO_PCI_COMMON_Q_SELECT: v->queue_select = value; break;
	default:
		if (vq)
			common_write_queue(v, vq, offset, value);
		break;
	}
}

static u64 modern_read(struct io_region *r, u64 offset, unsigned size)
{
	struct virtio_pci *v = container_of(r, struct virtio_pci, modern_region);
	u64 at = offset % MODERN_PART;

	switch (offset - at) {
	case MODERN_COMMON: return common_read(v, at, size);
	case MODERN_ISR: return at == 0 ? isr_read(v) : 0;
	case MODERN_DEVICE: return virtio_config_read(&v->vdev, at, size);
	default: return 0;
	}
}

static void modern_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct virtio_pci *v = container_of(r, struct virtio_pci, modern_region);
	u64 at = offset % MODERN_PART;

	switch (offset - at) {
	case MODERN_COMMON: common_write(v, at, value); break;
	case MODERN_DEVICE: virtio_config_write(&v->vdev, at, value, size); break;
	case MODERN_NOTIFY: virtio_queue_notify(&v->vdev, at / NOTIFY_MULTIPLE); break;
	default: break;
	}
}

/* 64-bit fields arrive as two halves, lower first. */
static const struct io_ops modern_ops = { .read = modern_read,
					  .write = modern_write,
					  .max_size = 4 };

/* ---- configuration space -------------------------------------------------------------------- */

static void modern_cap(struct virtio_pci *v, u8 type, u32 offset, u32 length, u8 size)
{
	u8 at = pci_cap_add(&v->pci, PCI_CAP_ID_VNDR, size);
	u8 *cap = v->pci.config + at;

	cap[VIRTIO_PCI_CAP_LEN] = size;
	cap[VIRTIO_PCI_CAP_CFG_TYPE] = type;
	cap[VIRTIO_PCI_CAP_BAR] = BAR_MODERN;
	put_le32(cap + VIRTIO_PCI_CAP_OFFSET, offset);
	put_le32(cap + VIRTIO_PCI_CAP_LENGTH, length);
	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		put_le32(cap + VIRTIO_PCI_NOTIFY_CAP_MULT, NOTIFY_MULTIPLE);
	if (type != VIRTIO_PCI_CAP_PCI_CFG)
		return;
	/* The driver aims the window: BAR, offset and length are its to set (§4.1.4.9). */
	v->cfg_cap = at;
	cap[VIRTIO_PCI_CAP_BAR] = 0;
	v->pci.writable[at + VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(v->pci.writable + at + VIRTIO_PCI_CAP_OFFSET, 0xff, 4);
	memset(v->pci.writable + at + VIRTIO_PCI_CAP_LENGTH, 0xff, 4);
	memset(v->pci.writable + at + sizeof(struct virtio_pci_cap), 0xff, 4);
}

static bool overlaps(unsigned offset, unsigned size, unsigned at, unsigned bytes)
{
	return offset < at + bytes && at < offset + size;
}

/* Does the access go through the window, and is the window aimed at something? */
static bool window_open(struct virtio_pci *v, unsigned offset, unsigned size, u32 *target,
			u32 *length)
{
	const u8 *cap = v->pci.config + v->cfg_cap;

	if (!v->cfg_cap || !overlaps(offset, size, v->cfg_cap + sizeof(struct virtio_pci_cap), 4))
		return false;
	*target = get_le32(cap + VIRTIO_PCI_CAP_OFFSET);
	*length = get_le32(cap + VIRTIO_PCI_CAP_LENGTH);
	return cap[VIRTIO_PCI_CAP_BAR] == BAR_MODERN &&
	       (*length == 1 || *length == 2 || *length == 4) && *target < MODERN_SIZE &&
	       *target % *length == 0;
}

static void virtio_pci_config_write(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct virtio_pci *v = container_of(pci, struct virtio_pci, pci);
	u32 target, length;

	if (window_open(v, offset, size, &target, &length)) {
		u32 value = get_le32(pci->config + v->cfg_cap + sizeof(struct virtio_pci_cap));

		if (length < 4)
			value &= (1u << 8 * length) - 1;
		modern_write(&v->modern_region, target, value, length);
	}
	/* What was notified while DMA was off is still there. */
	if (overlaps(offset, size, PCI_COMMAND, 2) && pci_dma_allowed(pci))
		virtio_queue_notify_all(&v->vdev);
}

static void virtio_pci_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct virtio_pci *v = container_of(pci, struct virtio_pci, pci);
	u32 target, length;

	if (window_open(v, offset, size, &target, &length))
		put_le32(pci->config + v->cfg_cap + sizeof(struct virtio_pci_cap),
			 modern_read(&v->modern_region, target, length));
}

static void virtio_pci_bar_mapped(struct pci_device *pci, unsigned bar, u64 base)
{
	struct virtio_pci *v = container_of(pci, struct virtio_pci, pci);

	if (bar == BAR_LEGACY && v->legacy_region.size)
		v->legacy_base = base;
	else if (bar == BAR_MODERN)
		v->modern_base = base;
	else
		return;
	doorbells_update(v);
}

static const struct pci_ops virtio_pci_ops = {
	.config_write = virtio_pci_config_write,
	.config_read = virtio_pci_config_read,
	.bar_mapped = virtio_pci_bar_mapped,
};

/* ---- making and unmaking -------------------------------------------------------------------- */

static u16 transitional_id(u16 id)
{
	for (unsigned i = 0; i < ARRAY_SIZE(transitional_ids); i++) {
		if (transitional_ids[i].id == id)
			return transitional_ids[i].pci_device;
	}
	return 0;
}

static u64 legacy_size(const struct virtio_device *vdev)
{
	u64 size = 32;

	while (size < VIRTIO_PCI_CONFIG_OFF(1) + vdev->config_size)
		size *= 2;
	return size;
}

int virtio_pci_realize(struct virtio_pci *v, struct error *err)
{
	struct virtio_device *vdev = &v->vdev;
	struct pci_device *pci = &v->pci;
	enum virtio_pci_variant variant = *(const enum virtio_pci_variant *)pci->dev.class->data;
	u16 old_id = transitional_id(vdev->type->id);
	bool legacy = v->disable_legacy != 1 && old_id, modern = !v->disable_modern;
	int result;

	if (variant == VIRTIO_PCI_TRANSITIONAL)
		legacy = modern = true;
	else if (variant == VIRTIO_PCI_NON_TRANSITIONAL)
		legacy = false, modern = true;
	if (!legacy && !modern) {
		result = error_set(err, -EINVAL,
				   "disable-legacy=on and disable-modern=on leave nothing");
		goto fail;
	}
	if (v->vectors == VECTORS_AUTO)
		v->vectors = vdev->queues + 1;
	if (v->vectors > PCI_MSIX_MAX) {
		result =
			error_set(err, -EINVAL, "vectors=%u: at most %u", v->vectors, PCI_MSIX_MAX);
		goto fail;
	}
	vdev->transport = &virtio_pci_transport;
	if (pci->dev.id)
		vdev->name = pci->dev.id;
	if (v->packed)
		vdev->host_features |= 1ull << VIRTIO_F_RING_PACKED;
	if (v->indirect)
		vdev->host_features |= 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	if (v->event_idx)
		vdev->host_features |= 1ull << VIRTIO_RING_F_EVENT_IDX;
	if (legacy)
		vdev->host_features |= 1ull << VIRTIO_F_ANY_LAYOUT;

	v->doorbells = xzalloc(vdev->queues * sizeof(*v->doorbells));
	for (unsigned i = 0; i < vdev->queues; i++) {
		v->doorbells[i].v = v;
		v->doorbells[i].index = i;
		v->doorbells[i].event.fd = -1;
		v->doorbells[i].event.events = EPOLLIN;
		v->doorbells[i].event.ready = doorbell_ready;
	}
	v->legacy_base = v->modern_base = ~0ull;
	v->config_vector = NO_VECTOR;

	/* §4.1.2: a device that can be driven by the old interface has the old number, and revision
	 * 0. */
	if (legacy) {
		pci_set_ids(pci, VENDOR_VIRTIO, old_id, vdev->type->pci_class, 0);
		pci_set_subsystem(pci, VENDOR_VIRTIO, vdev->type->id);
		io_region_init(&v->legacy_region, vdev->type->name, &legacy_ops, legacy_size(vdev));
		pci_bar_add(pci, BAR_LEGACY, PCI_BAR_IO, &v->legacy_region);
	} else {
		pci_set_ids(pci, VENDOR_VIRTIO, 0x1040 + vdev->type->id, vdev->type->pci_class, 1);
		pci_set_subsystem(pci, VENDOR_VIRTIO, SUBSYSTEM_MODERN);
	}
	pci->ops = &virtio_pci_ops;
	pci_intx_init(pci);
	if (modern) {
		io_region_init(&v->modern_region, vdev->type->name, &modern_ops, MODERN_SIZE);
		pci_bar_add(pci, BAR_MODERN, PCI_BAR_MEM64_PREFETCH, &v->modern_region);
		modern_cap(v, VIRTIO_PCI_CAP_COMMON_CFG, MODERN_COMMON,
			   sizeof(struct virtio_pci_common_cfg), 16);
		modern_cap(v, VIRTIO_PCI_CAP_ISR_CFG, MODERN_ISR, 1, 16);
		modern_cap(v, VIRTIO_PCI_CAP_DEVICE_CFG, MODERN_DEVICE, MODERN_PART, 16);
		modern_cap(v, VIRTIO_PCI_CAP_NOTIFY_CFG, MODERN_NOTIFY,
			   NOTIFY_MULTIPLE * vdev->queues, 20);
		modern_cap(v, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 20);
	}
	if (v->vectors) {
		result = pci_msix_init(pci, BAR_MSIX, v->vectors, err);
		if (result < 0)
			goto fail;
	}
	return 0;

fail:
	free(v->doorbells);
	v->doorbells = NULL;
	virtio_destroy(vdev);
	return result;
}

void virtio_pci_unrealize(struct virtio_pci *v)
{
	virtio_pci_reset_device(v);
	for (unsigned i = 0; i < v->vdev.queues; i++) {
		if (v->doorbells[i].event.fd >= 0)
			close(v->doorbells[i].event.fd);
	}
	free(v->doorbells);
	v->doorbells = NULL;
	virtio_destroy(&v->vdev);
}

void virtio_pci_reset(struct device *dev)
{
	virtio_pci_reset_device(container_of(dev, struct virtio_pci, pci.dev));
}
