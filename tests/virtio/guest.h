/*
 * A guest without a CPU, for tests of virtio devices: a machine with RAM and devices, and a driver
 *for their rings.
 *
 *	struct guest g;
 *	struct ring r;
 *
 *	guest_init(&g);
 *	ring_init(&r, &g, 64, GUEST_PACKED);		memory for it
 *	ring_attach(&r, vq);				straight to the device's queue, no PCI
 *between ring_add(&r, segments, count, true);		by an indirect table if (ring_used(&r, &id,
 *&bytes)) ...
 *
 *	pci_start(&p, &g, "virtio-blk-pci,drive=d0", PCI_MODERN, features);	the whole way
 */
#ifndef TESTS_VIRTIO_GUEST_H
#define TESTS_VIRTIO_GUEST_H

#include "tests/tap.h"
#include "vmm/machine.h"
#include "vmm/virtio/pci.h"
#include <linux/virtio_pci.h>
#include <stdlib.h>

#define GUEST_RAM    (8 * MiB)
#define GUEST_SPLIT  false
#define GUEST_PACKED true
#define RING_MAX     256

struct guest {
	struct machine m;
	u64 next; /* of memory not given out yet */
};

struct segment {
	u64 gpa;
	u32 bytes;
	bool in;
};

struct ring {
	struct guest *g;
	bool packed;
	u16 size;
	u64 desc, driver, device;
	u16 next; /* split: avail index; packed: position */
	u16 seen; /* used */
	bool avail_wrap, used_wrap;
	u16 descs[RING_MAX]; /* packed: of the buffer with this id */
	u16 free;	     /* split: next descriptor to use */
};

static inline void guest_init(struct guest *g)
{
	struct error err;

	memset(g, 0, sizeof(*g));
	if (machine_init_bare(&g->m, GUEST_RAM, &err) < 0) {
		printf("Bail out! %s\n", err.text);
		exit(1);
	}
	machine_lock(&g->m);
	g->next = 0x10000;
}

static inline u64 guest_alloc(struct guest *g, u64 bytes)
{
	u64 at = g->next;

	g->next = ALIGN_UP(g->next + bytes, 4096ull);
	if (g->next > 640 * KiB && at < MiB) {
		at = MiB;
		g->next = ALIGN_UP(at + bytes, 4096ull);
	}
	if (g->next > GUEST_RAM) {
		printf("Bail out! the test's guest is out of memory\n");
		exit(1);
	}
	return at;
}

static inline u8 *guest_ptr(struct guest *g, u64 gpa)
{
	return memory_ptr_write(&g->m, gpa, 1);
}

/* Lets the main loop go round a few times, without and then with waiting. */
static inline void guest_loop(struct guest *g, bool wait)
{
	machine_unlock(&g->m);
	loop_step(&g->m.loop, wait);
	machine_lock(&g->m);
}

/* ---- rings ---------------------------------------------------------------------------------- */

static inline void ring_init(struct ring *r, struct guest *g, u16 size, bool packed)
{
	memset(r, 0, sizeof(*r));
	r->g = g;
	r->size = size;
	r->packed = packed;
	r->desc = guest_alloc(g, 16 * size);
	r->driver = guest_alloc(g, 6 + 2 * size);
	r->device = guest_alloc(g, 6 + 8 * size);
	r->avail_wrap = r->used_wrap = true;
	memset(guest_ptr(g, r->desc), 0, 16 * size);
	memset(guest_ptr(g, r->driver), 0, 6 + 2 * size);
	memset(guest_ptr(g, r->device), 0, 6 + 8 * size);
}

static inline void ring_attach(struct ring *r, struct virtq *vq)
{
	vq->size = r->size;
	vq->desc_gpa = r->desc;
	vq->driver_gpa = r->driver;
	vq->device_gpa = r->device;
	virtio_queue_enable(vq);
}

static inline void desc_write(struct guest *g, u64 table, unsigned i, u64 gpa, u32 bytes, u16 a,
			      u16 b)
{
	u8 *p = guest_ptr(g, table + 16 * i);

	put_le64(p, gpa);
	put_le32(p + 8, bytes);
	put_le16(p + 12, a);
	put_le16(p + 14, b);
}

/* Returns the id that will come back. */
static inline u16 ring_add(struct ring *r, const struct segment *s, unsigned count, bool indirect)
{
	struct guest *g = r->g;
	u16 id, first_flags = 0, first_pos = r->next;
	u64 table = 0;

	if (indirect) {
		table = guest_alloc(g, 16 * count);
		for (unsigned i = 0; i < count; i++) {
			u16 flags = (s[i].in ? VRING_DESC_F_WRITE : 0) |
				    (i + 1 < count && !r->packed ? VRING_DESC_F_NEXT : 0);

			if (r->packed)
				desc_write(g, table, i, s[i].gpa, s[i].bytes, 0, flags);
			else
				desc_write(g, table, i, s[i].gpa, s[i].bytes, flags, i + 1);
		}
	}
	if (!r->packed) {
		id = r->free;
		if (indirect) {
			desc_write(g, r->desc, r->free, table, 16 * count, VRING_DESC_F_INDIRECT,
				   0);
			r->free = (r->free + 1) % r->size;
		}
		for (unsigned i = 0; !indirect && i < count; i++) {
			u16 next = (r->free + 1) % r->size;

			desc_write(g, r->desc, r->free, s[i].gpa, s[i].bytes,
				   (s[i].in ? VRING_DESC_F_WRITE : 0) |
					   (i + 1 < count ? VRING_DESC_F_NEXT : 0),
				   next);
			r->free = next;
		}
		put_le16(guest_ptr(g, r->driver) + 4 + 2 * (r->next % r->size), id);
		r->next++;
		shared_store16(guest_ptr(g, r->driver) + 2, r->next);
		return id;
	}
	id = r->next;
	r->descs[id] = indirect ? 1 : count;
	for (unsigned i = 0; i < r->descs[id]; i++) {
		u16 flags = r->avail_wrap ? 1 << VRING_PACKED_DESC_F_AVAIL
					  : 1 << VRING_PACKED_DESC_F_USED;

		if (indirect) {
			flags |= VRING_DESC_F_INDIRECT;
			desc_write(g, r->desc, r->next, table, 16 * count, id, 0);
		} else {
			flags |= (s[i].in ? VRING_DESC_F_WRITE : 0) |
				 (i + 1 < count ? VRING_DESC_F_NEXT : 0);
			desc_write(g, r->desc, r->next, s[i].gpa, s[i].bytes, id, i ? flags : 0);
		}
		if (!i)
			first_flags = flags;
		if (++r->next == r->size) {
			r->next = 0;
			r->avail_wrap = !r->avail_wrap;
		}
	}
	shared_store16(guest_ptr(g, r->desc) + 16 * first_pos + 14, first_flags);
	return id;
}

static inline bool ring_used(struct ring *r, u16 *id, u32 *bytes)
{
	u8 *p;

	if (!r->packed) {
		p = guest_ptr(r->g, r->device);
		if (shared_load16(p + 2) == r->seen)
			return false;
		p += 4 + 8 * (r->seen % r->size);
		*id = get_le32(p);
		*bytes = get_le32(p + 4);
		r->seen++;
		return true;
	}
	p = guest_ptr(r->g, r->desc) + 16 * r->seen;
	u16 flags = shared_load16(p + 14);

	if (!!(flags & 1 << VRING_PACKED_DESC_F_AVAIL) != r->used_wrap ||
	    !!(flags & 1 << VRING_PACKED_DESC_F_USED) != r->used_wrap)
		return false;
	*id = get_le16(p + 12);
	*bytes = get_le32(p + 8);
	r->seen += r->descs[*id % RING_MAX];
	if (r->seen >= r->size) {
		r->seen -= r->size;
		r->used_wrap = !r->used_wrap;
	}
	return true;
}

/* ---- a driver over PCI ---------------------------------------------------------------------- */

enum pci_mode { PCI_MODERN, PCI_MODERN_PACKED, PCI_LEGACY };
#define PCI_QUEUES	16
#define GUEST_IO_BASE	0xc000u
#define GUEST_BAR_BASE	0xe0000000ull
#define GUEST_MSIX_BASE 0xe1000000ull

struct pci_driver {
	struct guest *g;
	struct device *dev;
	struct pci_device *pci;
	struct virtio_pci *v;
	enum pci_mode mode;
	struct ring ring[PCI_QUEUES];
	u16 pushed[PCI_QUEUES];
};

static inline u64 common_get(struct pci_driver *p, unsigned offset, unsigned size)
{
	return bus_read(&p->g->m, IO_MEMORY, GUEST_BAR_BASE + offset, size);
}

static inline void common_set(struct pci_driver *p, unsigned offset, u64 value, unsigned size)
{
	bus_write(&p->g->m, IO_MEMORY, GUEST_BAR_BASE + offset, value, size);
}

static inline u64 legacy_get(struct pci_driver *p, unsigned offset, unsigned size)
{
	return bus_read(&p->g->m, IO_PORT, GUEST_IO_BASE + offset, size);
}

static inline void legacy_set(struct pci_driver *p, unsigned offset, u64 value, unsigned size)
{
	bus_write(&p->g->m, IO_PORT, GUEST_IO_BASE + offset, value, size);
}

static inline u64 pci_config(struct pci_driver *p, unsigned offset, unsigned size)
{
	return p->mode == PCI_LEGACY ? legacy_get(p, 20 + offset, size)
				     : common_get(p, 0x2000 + offset, size);
}

static inline u8 pci_status(struct pci_driver *p)
{
	return p->mode == PCI_LEGACY ? legacy_get(p, VIRTIO_PCI_STATUS, 1)
				     : common_get(p, VIRTIO_PCI_COMMON_STATUS, 1);
}

static inline void pci_set_status(struct pci_driver *p, u8 status)
{
	if (p->mode == PCI_LEGACY)
		legacy_set(p, VIRTIO_PCI_STATUS, status, 1);
	else
		common_set(p, VIRTIO_PCI_COMMON_STATUS, status, 1);
}

static inline void pci_kick(struct pci_driver *p, unsigned queue)
{
	if (p->mode == PCI_LEGACY)
		legacy_set(p, VIRTIO_PCI_QUEUE_NOTIFY, queue, 2);
	else
		common_set(p, 0x3000 + 4 * queue, queue, 2);
}

static inline void pci_setup_queue(struct pci_driver *p, unsigned q)
{
	struct ring *r = &p->ring[q];
	u16 size;

	if (p->mode == PCI_LEGACY) {
		legacy_set(p, VIRTIO_PCI_QUEUE_SEL, q, 2);
		size = legacy_get(p, VIRTIO_PCI_QUEUE_NUM, 2);
		if (!size || size > RING_MAX)
			return;
		ring_init(r, p->g, size, GUEST_SPLIT);
		r->desc = guest_alloc(p->g, 16 * size + 4096 + 6 + 8 * size + 4096);
		r->driver = r->desc + 16 * size;
		r->device = ALIGN_UP(r->driver + 6 + 2 * size, 4096ull);
		memset(guest_ptr(p->g, r->desc), 0, r->device - r->desc + 6 + 8 * size);
		legacy_set(p, VIRTIO_PCI_QUEUE_PFN, r->desc >> 12, 4);
		return;
	}
	common_set(p, VIRTIO_PCI_COMMON_Q_SELECT, q, 2);
	size = MIN(common_get(p, VIRTIO_PCI_COMMON_Q_SIZE, 2), RING_MAX);
	if (!size)
		return;
	common_set(p, VIRTIO_PCI_COMMON_Q_SIZE, size, 2);
	ring_init(r, p->g, size, p->mode == PCI_MODERN_PACKED);
	common_set(p, VIRTIO_PCI_COMMON_Q_DESCLO, r->desc, 8);
	common_set(p, VIRTIO_PCI_COMMON_Q_AVAILLO, r->driver, 8);
	common_set(p, VIRTIO_PCI_COMMON_Q_USEDLO, r->device, 8);
	common_set(p, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

/* Makes the device that @text describes and maps its BARs; NULL: it could not be. */
static inline struct device *pci_plug(struct pci_driver *p, struct guest *g, const char *text,
				      struct error *err)
{
	memset(p, 0, sizeof(*p));
	p->g = g;
	p->dev = device_add(&g->m, text, err);
	if (!p->dev)
		return NULL;
	p->pci = container_of(p->dev, struct pci_device, dev);
	p->v = container_of(p->pci, struct virtio_pci, pci);
	pci_config_write(p->pci, PCI_BASE_ADDRESS_0, GUEST_IO_BASE, 4);
	pci_config_write(p->pci, PCI_BASE_ADDRESS_1, GUEST_MSIX_BASE, 4);
	pci_config_write(p->pci, PCI_BASE_ADDRESS_4, GUEST_BAR_BASE, 4);
	pci_config_write(p->pci, PCI_BASE_ADDRESS_5, 0, 4);
	pci_config_write(p->pci, PCI_COMMAND,
			 PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	return p->dev;
}

/* Resets and initializes with all features offered but @without. False: FEATURES_OK did not stay.
 */
static inline bool pci_init(struct pci_driver *p, enum pci_mode mode, u64 without)
{
	u64 features;

	p->mode = mode;
	pci_set_status(p, 0);
	pci_set_status(p, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	if (mode == PCI_LEGACY) {
		legacy_set(p, VIRTIO_PCI_GUEST_FEATURES,
			   legacy_get(p, VIRTIO_PCI_HOST_FEATURES, 4) & ~without, 4);
	} else {
		common_set(p, VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
		features = common_get(p, VIRTIO_PCI_COMMON_DF, 4);
		common_set(p, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
		features |= common_get(p, VIRTIO_PCI_COMMON_DF, 4) << 32;
		features &= ~without;
		if (mode != PCI_MODERN_PACKED)
			features &= ~(1ull << VIRTIO_F_RING_PACKED);
		common_set(p, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
		common_set(p, VIRTIO_PCI_COMMON_GF, (u32)features, 4);
		common_set(p, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
		common_set(p, VIRTIO_PCI_COMMON_GF, features >> 32, 4);
		pci_set_status(p, pci_status(p) | VIRTIO_CONFIG_S_FEATURES_OK);
		if (!(pci_status(p) & VIRTIO_CONFIG_S_FEATURES_OK))
			return false;
	}
	for (unsigned q = 0; q < MIN(p->v->vdev.queues, PCI_QUEUES); q++)
		pci_setup_queue(p, q);
	pci_set_status(p, pci_status(p) | VIRTIO_CONFIG_S_DRIVER_OK);
	return true;
}

/* Waits for the next used buffer of @queue; false after a while without one. */
static inline bool pci_wait(struct pci_driver *p, unsigned queue, u16 *id, u32 *bytes)
{
	for (unsigned i = 0; i < 2000; i++) {
		if (ring_used(&p->ring[queue], id, bytes))
			return true;
		guest_loop(p->g, false);
		if (i > 20) {
			machine_unlock(&p->g->m);
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			machine_lock(&p->g->m);
		}
	}
	return false;
}

#endif
