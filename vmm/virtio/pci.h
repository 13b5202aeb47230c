/*
 * virtio over PCI (virtio 1.2 §4.1): modern, legacy and transitional.
 *
 *	struct virtio_beeper { struct virtio_pci v; ...; };	v first
 *
 *	static int beeper_realize(struct device *dev, struct error *err)
 *	{
 *		struct virtio_beeper *b = container_of(dev, struct virtio_beeper, v.pci.dev);
 *
 *		virtio_init(&b->v.vdev, &beeper_type, dev->machine, 1, sizeof(struct
 *beeper_config)); virtio_queue_init(&b->v.vdev, 0, 64); b->v.vdev.host_features |= ...; return
 *virtio_pci_realize(&b->v, err);
 *	}
 *	static const struct property beeper_properties[] = { ..., VIRTIO_PCI_PROPERTIES(struct
 *virtio_beeper, v), {} }; VIRTIO_PCI_REGISTER(beeper, "virtio-beeper", "a beeper", struct
 *virtio_beeper)
 *
 * which makes virtio-beeper-pci, virtio-beeper-pci-transitional and
 *virtio-beeper-pci-non-transitional.
 */
#ifndef VMM_VIRTIO_PCI_H
#define VMM_VIRTIO_PCI_H

#include "vmm/mainloop.h"
#include "vmm/pci.h"
#include "vmm/virtio/virtio.h"

/* A queue's doorbell: a guest's write signals the eventfd without leaving the accelerator. */
struct virtio_pci_doorbell {
	struct loop_fd event;
	struct virtio_pci *v;
	u16 index;
	bool added, legacy;
	u64 address;
};

struct virtio_pci {
	struct pci_device pci;
	struct virtio_device vdev;

	/* properties */
	int disable_legacy; /* -1: not where it sits, which is the root complex */
	bool disable_modern, ioeventfd, packed, indirect, event_idx;
	u32 vectors; /* ~0: one a queue and one for configuration */

	struct io_region legacy_region, modern_region;
	u64 legacy_base, modern_base;	  /* ~0: not mapped */
	u8 cfg_cap;			  /* the window into the BARs, in configuration space */
	u32 device_select, driver_select; /* of features */
	u16 queue_select;
	u16 config_vector;
	u8 isr;
	struct virtio_pci_doorbell *doorbells;
};

enum virtio_pci_variant {
	VIRTIO_PCI_BY_OPTION,
	VIRTIO_PCI_TRANSITIONAL,
	VIRTIO_PCI_NON_TRANSITIONAL
};
extern const enum virtio_pci_variant virtio_pci_variants[3];

int virtio_pci_realize(struct virtio_pci *v, struct error *err);
/** Resets the device first. */
void virtio_pci_unrealize(struct virtio_pci *v);
/** The class's reset. */
void virtio_pci_reset(struct device *dev);

#define VIRTIO_PCI_PROPERTIES(s, f)                                                                \
	PROPERTY_TRISTATE("disable-legacy", s, f.disable_legacy, "auto",                           \
			  "no interface of virtio 0.9"),                                           \
		PROPERTY_BOOL("disable-modern", s, f.disable_modern, "off",                        \
			      "no interface of virtio 1"),                                         \
		PROPERTY_BOOL("ioeventfd", s, f.ioeventfd, "on",                                   \
			      "the accelerator signals the driver's notifications"),               \
		PROPERTY_BOOL("packed", s, f.packed, "off", "offer packed virtqueues"),            \
		PROPERTY_BOOL("indirect_desc", s, f.indirect, "on", "offer indirect descriptors"), \
		PROPERTY_BOOL("event_idx", s, f.event_idx, "on", "offer the event index"),         \
		PROPERTY_U32("vectors", s, f.vectors, "4294967295",                                \
			     "MSI-X vectors (default: one a queue, one more)")

#define VIRTIO_PCI_CLASS(symbol, name_, alias_, description_, s, variant) \
	static const struct device_class symbol = {                       \
		.name = name_,                                            \
		.alias = alias_,                                          \
		.description = description_,                              \
		.bus = "PCI",                                             \
		.size = sizeof(s),                                        \
		.properties = properties,                                 \
		.data = &virtio_pci_variants[variant],                    \
		.realize = realize,                                       \
		.unrealize = unrealize,                                   \
		.reset = virtio_pci_reset,                                \
	};                                                                \
	DEVICE_REGISTER(symbol)

/* In a file with static `properties`, `realize` and `unrealize`. */
#define VIRTIO_PCI_REGISTER(prefix, name, description, s)                                         \
	VIRTIO_PCI_CLASS(prefix##_class, name "-pci", name, description, s, VIRTIO_PCI_BY_OPTION) \
	VIRTIO_PCI_CLASS(prefix##_transitional_class, name "-pci-transitional", NULL,             \
			 description ", virtio 0.9 and 1", s, VIRTIO_PCI_TRANSITIONAL)            \
	VIRTIO_PCI_CLASS(prefix##_non_transitional_class, name "-pci-non-transitional", NULL,     \
			 description ", virtio 1 only", s, VIRTIO_PCI_NON_TRANSITIONAL)

#endif
