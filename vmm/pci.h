/*
 * PCI Express devices: configuration space, base address registers, capabilities, INTx, MSI and
 * MSI-X.
 *
 *	static int beeper_realize(struct device *dev, struct error *err)
 *	{
 *		struct beeper *b = container_of(dev, struct beeper, pci.dev);
 *
 *		pci_set_ids(&b->pci, 0x1234, 0x5678, 0x040100, 1);	vendor, device, class code, revision
 *		io_region_init(&b->regs, "beeper", &beeper_ops, 0x1000);
 *		pci_bar_add(&b->pci, 0, PCI_BAR_MEM32, &b->regs);
 *		return pci_msix_init(&b->pci, 1, 3, err);		table and PBA in BAR 1, 3 vectors
 *	}
 *	...
 *	pci_msix_notify(&b->pci, 2);
 *
 * The guest's writes to configuration space change only bits that `writable` allows; whatever has a
 * meaning (command, BARs, MSI) is acted upon here, and class-specific registers by
 * pci_ops.config_write afterwards.
 */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include <linux/pci_regs.h>

#define PCI_CONFIG_SIZE 4096
#define PCI_BARS	7 /* six and the expansion ROM */
#define PCI_BAR_ROM	6
#define PCI_MSIX_MAX	2048
#define PCI_DEVFN(s, f) (((s) << 3) | (f))
#define PCI_SLOT(devfn) ((devfn) >> 3)
#define PCI_FUNC(devfn) ((devfn)&7)

enum pci_bar_type {
	PCI_BAR_NONE,
	PCI_BAR_IO,
	PCI_BAR_MEM32,
	PCI_BAR_MEM64, /* not prefetchable; takes two registers */
	PCI_BAR_MEM64_PREFETCH,
};

struct pci_device;

struct pci_bar {
	enum pci_bar_type type;
	struct io_region *
		region; /* its size is the BAR's: a power of two, at least 16 (memory) or 4 (ports) */
	u64 base;	/* where it is mapped now, if it is */
};

struct pci_ops {
	/** After the default handling of a write to [@offset, @offset + @size). */
	void (*config_write)(struct pci_device *pci, unsigned offset, unsigned size);
	/** Before a read, to bring registers up to date. */
	void (*config_read)(struct pci_device *pci, unsigned offset, unsigned size);
	/** A vector was masked or unmasked, or its message changed. */
	void (*msix_changed)(struct pci_device *pci, unsigned vector);
	/** A BAR was mapped, moved or unmapped (base is ~0 then). For eventfds at its address. */
	void (*bar_mapped)(struct pci_device *pci, unsigned bar, u64 base);
};

struct pci_msix {
	u16 vectors;
	u8 cap; /* offset of the capability, 0: none */
	u8 *table, *pba;
	struct io_region bar; /* when it has a BAR of its own */
	bool enabled, masked;
	struct irq_route *routes; /* for eventfds, made on demand */
	int *eventfds;		  /* connected now, or -1 */
};

struct pci_device {
	struct device dev;
	struct pci_bus *bus;
	const struct pci_ops *ops; /* may be NULL */
	u8 devfn;
	char *addr; /* the property: "SLOT" or "SLOT.FUNCTION", hexadecimal */
	bool multifunction;
	u8 config[PCI_CONFIG_SIZE];
	u8 writable[PCI_CONFIG_SIZE];	  /* bits that the guest can change */
	u8 write_clears[PCI_CONFIG_SIZE]; /* bits that writing 1 clears */
	u8 reset_config[PCI_CONFIG_SIZE]; /* the state that reset restores, taken when realized */
	struct pci_bar bar[PCI_BARS];
	u16 cap_next; /* first free byte for a capability */
	u8 msi, pcie; /* offsets of capabilities */
	struct pci_msix msix;
	pthread_mutex_t irq_lock; /* msix table and pba, msi, INTx state */
	bool intx;		  /* the level that the device wants */
	bool intx_driven;	  /* what the bus has been told, INTx disable considered */
};

#define PCI_PIRQS 8

/*
 * The interrupt wires of the bus: pin A of slot n is wire n % 8, pins B to D the ones after it
 * (PIRQA-PIRQH of the ISA bridge).
 */
struct pci_bus {
	struct device_bus bus;
	u8 number;
	struct pci_device *devices[256];
	pthread_mutex_t irq_lock;
	u16 wire[PCI_PIRQS];	 /* (irq_lock) how many devices pull it */
	u8 isa_route[PCI_PIRQS]; /* (irq_lock) the ISA interrupt it also drives, or 0 */
};

/** Vendor and device id, class code as 0xBBSSPP, revision. Subsystem ids are set to the same. */
void pci_set_ids(struct pci_device *pci, u16 vendor, u16 device, u32 class_code, u8 revision);
void pci_set_subsystem(struct pci_device *pci, u16 vendor, u16 device);

/** @region's size is the BAR's. In realize. */
void pci_bar_add(struct pci_device *pci, unsigned bar, enum pci_bar_type type,
		 struct io_region *region);
/** An expansion ROM: @size a power of two, at least 2 KiB. The bytes are copied. */
int pci_rom_add(struct pci_device *pci, const void *bytes, u32 size, struct error *err);

/**
 * Adds a capability of @size bytes (id and next pointer included), zeroed, read-only until
 * `writable` says otherwise. Returns its offset; asserts that there is room: what a device has is
 * fixed at build time.
 */
u8 pci_cap_add(struct pci_device *pci, u8 id, u8 size);
/** An extended capability (offset 0x100 and above). Returns its offset. */
u16 pci_ext_cap_add(struct pci_device *pci, u16 id, u8 version, u16 size);
/** The PCI Express capability, as an integrated end point. */
void pci_pcie_init(struct pci_device *pci);

/** INTx pin A. Without this a device has none. */
void pci_intx_init(struct pci_device *pci);
/** Sets what the device drives on its pin. Any thread. */
void pci_intx_set(struct pci_device *pci, bool level);

/** A 64-bit capability with per-vector mask for 2^n = @vectors. */
int pci_msi_init(struct pci_device *pci, unsigned vectors, struct error *err);
bool pci_msi_enabled(const struct pci_device *pci);
void pci_msi_notify(struct pci_device *pci, unsigned vector);

/** Table and PBA in @bar, which is made here (memory, 32-bit); @vectors 1-2048. */
int pci_msix_init(struct pci_device *pci, unsigned bar, unsigned vectors, struct error *err);
bool pci_msix_enabled(const struct pci_device *pci);
/** Sends vector @vector, or marks it pending while masked. Out of range: nothing. Any thread. */
void pci_msix_notify(struct pci_device *pci, unsigned vector);
/**
 * Connects @fd to @vector so that signalling it sends the message from inside the accelerator.
 * Masked vectors and changes of the message are followed by calling this again from msix_changed
 * (with the vector masked it disconnects and returns -EAGAIN).
 */
int pci_msix_eventfd_add(struct pci_device *pci, unsigned vector, int fd);
void pci_msix_eventfd_del(struct pci_device *pci, unsigned vector, int fd);

/** Bus mastering: a device does DMA only while this holds. */
bool pci_dma_allowed(const struct pci_device *pci);

/** DMA of a device: as memory_read/memory_write, -EFAULT too while bus mastering is off. */
int pci_dma_read(struct pci_device *pci, u64 gpa, void *buf, u64 len);
int pci_dma_write(struct pci_device *pci, u64 gpa, const void *buf, u64 len);

/**
 * The guest's access to configuration space, @size 1, 2 or 4, not crossing a dword. Machine lock
 * held.
 */
u32 pci_config_read(struct pci_device *pci, unsigned offset, unsigned size);
void pci_config_write(struct pci_device *pci, unsigned offset, u32 value, unsigned size);

/** Makes the bus @name and its INTx wires; called by the machine. */
void pci_bus_init(struct machine *m, struct pci_bus *bus, const char *name);
void pci_bus_destroy(struct pci_bus *bus);

/** Makes wire @wire drive ISA interrupt @irq too, for a guest that uses the PICs; 0: none. */
void pci_route_wire(struct pci_bus *bus, unsigned wire, u8 irq);

/** The configuration space of function @devfn, or NULL. Machine lock held. */
struct pci_device *pci_find(struct pci_bus *bus, u8 devfn);

/**
 * What firmware does, for a kernel that is started without any: gives every BAR an address in
 * [@mem, @mem_end), [@mem64, @mem64_end) or port range [@io, @io_end), fills in the interrupt line.
 * BARs that do not fit stay 0.
 */
struct pci_windows {
	u64 mem, mem_end, mem64, mem64_end, io, io_end;
};
void pci_assign(struct pci_bus *bus, const struct pci_windows *windows);

/* Between pci.c and pci_irq.c. */
void pci_irq_init(struct pci_device *pci);
void pci_irq_reset(struct pci_device *pci);
void pci_irq_release(struct pci_device *pci);
void pci_irq_config_written(struct pci_device *pci, unsigned offset, unsigned size);
void pci_intx_update(struct pci_device *pci);

#endif
