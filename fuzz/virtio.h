/*
 * What the fuzz targets of the virtio devices share: the input is a little program for a hostile
 *guest, which writes registers, rings and buffers, rings doorbells and lets the main loop go round.
 *
 *	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
 *	{
 *		return fuzz_virtio("virtio-rng-pci,packed=on", NULL, NULL, data, size);
 *	}
 */
#ifndef FUZZ_VIRTIO_H
#define FUZZ_VIRTIO_H

#include "tests/virtio/guest.h"

struct fuzz_input {
	const u8 *data;
	size_t size;
};

static inline u32 fuzz_take(struct fuzz_input *in, unsigned bytes)
{
	u32 v = 0;

	bytes = MIN(bytes, in->size);
	memcpy(&v, in->data, bytes);
	in->data += bytes;
	in->size -= bytes;
	return v;
}

static struct guest fuzz_guest;
static struct pci_driver fuzz_driver;

#define FUZZ_QUEUES 5
#define FUZZ_RINGS  0x10000 /* where the rings and buffers stand */
#define FUZZ_WINDOW 0x40000

/* Up to 8 segments, of sizes and places that are mostly sensible, with bytes of the input in them.
 */
static inline void fuzz_add(struct fuzz_input *in)
{
	struct ring *r = &fuzz_driver.ring[fuzz_take(in, 1) % FUZZ_QUEUES];
	unsigned shape = fuzz_take(in, 1), count = 1 + shape % 8;
	struct segment s[8];

	if (!r->size || count > r->size)
		return;
	for (unsigned i = 0; i < count; i++) {
		unsigned what = fuzz_take(in, 1);
		u8 *p;

		s[i].bytes = what & 64 ? fuzz_take(in, 2) : what & 15;
		s[i].gpa = what & 32 ? fuzz_take(in, 4) : MiB + 8192 * i;
		s[i].in = what & 128;
		p = memory_ptr_write(&fuzz_guest.m, s[i].gpa, s[i].bytes);
		for (u32 j = 0; p && !s[i].in && j < s[i].bytes && j < 64 && in->size; j++)
			p[j] = fuzz_take(in, 1);
	}
	/* The tables of indirect ones are not kept. */
	fuzz_guest.next = 2 * MiB;
	ring_add(r, s, count, shape & 0x80);
}

static inline void fuzz_write_memory(struct fuzz_input *in)
{
	u64 gpa = FUZZ_RINGS + fuzz_take(in, 3) % FUZZ_WINDOW;
	unsigned bytes = fuzz_take(in, 1) % 32;

	while (bytes--)
		*guest_ptr(&fuzz_guest, gpa++) = fuzz_take(in, 1);
}

static inline void fuzz_config_space(struct fuzz_input *in)
{
	unsigned offset = fuzz_take(in, 1), size = 1 << fuzz_take(in, 1) % 3;

	offset &= ~(size - 1);
	pci_config_write(fuzz_driver.pci, offset, fuzz_take(in, 4), size);
	pci_config_read(fuzz_driver.pci, offset, size);
}

/* One run. @make readies what the device needs, once; @special does what only this device can have
 * done to it. */
static inline int fuzz_virtio(const char *device, void (*make)(struct guest *g),
			      void (*special)(struct fuzz_input *in), const uint8_t *data,
			      size_t size)
{
	struct fuzz_input in = { data, size };
	struct pci_driver *p = &fuzz_driver;
	struct error err;

	if (!p->dev) {
		guest_init(&fuzz_guest);
		if (make)
			make(&fuzz_guest);
		if (!pci_plug(p, &fuzz_guest, device, &err)) {
			fprintf(stderr, "%s: %s\n", device, err.text);
			abort();
		}
	}
	device_reset_all(&fuzz_guest.m);
	pci_config_write(p->pci, PCI_BASE_ADDRESS_0, GUEST_IO_BASE, 4);
	pci_config_write(p->pci, PCI_BASE_ADDRESS_1, GUEST_MSIX_BASE, 4);
	pci_config_write(p->pci, PCI_BASE_ADDRESS_4, GUEST_BAR_BASE, 4);
	pci_config_write(p->pci, PCI_COMMAND, 7, 2);
	memset(p->ring, 0, sizeof(p->ring));

	while (in.size) {
		u32 offset, bytes;

		switch (fuzz_take(&in, 1) % 12) {
		case 0:
			fuzz_guest.next = FUZZ_RINGS;
			pci_init(p, fuzz_take(&in, 1) % 3, fuzz_take(&in, 4));
			break;
		case 1:
			offset = fuzz_take(&in, 1) % 64;
			common_set(p, offset, fuzz_take(&in, 4), 1 << offset % 3);
			break;
		case 2:
			offset = fuzz_take(&in, 2);
			bytes = 1 << fuzz_take(&in, 1) % 4;
			common_set(p, MIN(offset % 0x4000, 0x4000 - bytes), fuzz_take(&in, 4),
				   bytes);
			break;
		case 3:
			offset = fuzz_take(&in, 2);
			common_get(p, offset % 0x3ff8, 1 << offset % 4);
			break;
		case 4:
			offset = fuzz_take(&in, 1);
			legacy_set(p, offset % 64, fuzz_take(&in, 4), 1 << (offset >> 6) % 3);
			break;
		case 5: legacy_get(p, fuzz_take(&in, 1) % 64, 4); break;
		case 6: fuzz_config_space(&in); break;
		case 7: fuzz_write_memory(&in); break;
		case 8:
		case 9: fuzz_add(&in); break;
		case 10:
			if (special)
				special(&in);
			else
				guest_loop(&fuzz_guest, false);
			break;
		default: pci_kick(p, fuzz_take(&in, 1) % 8); break;
		}
	}
	guest_loop(&fuzz_guest, false);
	return 0;
}

#endif
