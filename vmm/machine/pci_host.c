/*
 * The chipset's own PCI functions, and the three ways into the rest: ports 0xcf8/0xcfc and the ECAM
 * window (PCI 3.0 3.2.2.3, PCI Express 3.0 7.2.2); and port 0xcf9, which resets (ICH9 data sheet
 * 13.7.5).
 */
#include "vmm/machine/pci_host.h"
#include "vmm/machine.h"
#include "vmm/machine/pc.h"

#define VENDOR_INTEL 0x8086
#define DEVICE_Q35   0x29c0
#define DEVICE_ICH9  0x2918

#define Q35_PCIEXBAR 0x60
#define LPC_PMBASE   0x40
#define LPC_ACPI_CNT 0x44
#define LPC_PIRQA    0x60
#define LPC_PIRQE    0x68
#define PIRQ_OFF     0x80

#define RST_FULL 0x08
#define RST_CPU	 0x04
#define RST_SYS	 0x02

/* --- the host bridge --- */

struct pci_host {
	struct pci_device pci;
	struct io_region address, data, ecam;
	u32 selected;
	u8 reset_control;
};

/*
 * Config space of bus 0; other buses do not exist. Accesses that straddle a dword were split by the
 * bus.
 */
static u32 read_config(struct pci_host *h, u32 bdf, unsigned offset, unsigned size)
{
	struct pci_device *pci = bdf < 256 ? pci_find(h->pci.bus, bdf) : NULL;

	return pci ? pci_config_read(pci, offset, size) : ~0u;
}

static void write_config(struct pci_host *h, u32 bdf, unsigned offset, u32 value, unsigned size)
{
	struct pci_device *pci = bdf < 256 ? pci_find(h->pci.bus, bdf) : NULL;

	if (pci)
		pci_config_write(pci, offset, value, size);
}

static void reset_write(struct pci_host *h, u8 value)
{
	/*
	 * Setting RST_CPU does it; the other two say how thoroughly, and there is only one way
	 * here.
	 */
	h->reset_control = value & (RST_FULL | RST_SYS);
	if (value & RST_CPU)
		machine_reset(h->pci.dev.machine);
}

static u64 address_read(struct io_region *r, u64 offset, unsigned size)
{
	struct pci_host *h = container_of(r, struct pci_host, address);

	if (offset == PC_RESET_PORT - 0xcf8 && size == 1)
		return h->reset_control;
	return offset == 0 && size == 4 ? h->selected : 0xff;
}

static void address_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct pci_host *h = container_of(r, struct pci_host, address);

	/* Only whole dwords reach the register; a byte at 0xcf9 is the reset control. */
	if (offset == 0 && size == 4)
		h->selected = value & 0x80fffffc;
	else if (offset == PC_RESET_PORT - 0xcf8 && size == 1)
		reset_write(h, value);
}

static u64 data_read(struct io_region *r, u64 offset, unsigned size)
{
	struct pci_host *h = container_of(r, struct pci_host, data);

	if (!(h->selected & 0x80000000))
		return ~0ull;
	return read_config(h, h->selected >> 8 & 0xffff, (h->selected & 0xfc) + offset, size);
}

static void data_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct pci_host *h = container_of(r, struct pci_host, data);

	if (h->selected & 0x80000000)
		write_config(h, h->selected >> 8 & 0xffff, (h->selected & 0xfc) + offset, value,
			     size);
}

static u64 ecam_read(struct io_region *r, u64 offset, unsigned size)
{
	return read_config(container_of(r, struct pci_host, ecam), offset >> 12, offset & 0xfff,
			   size);
}

static void ecam_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	write_config(container_of(r, struct pci_host, ecam), offset >> 12, offset & 0xfff, value,
		     size);
}

static const struct io_ops address_ops = { .read = address_read,
					   .write = address_write,
					   .max_size = 4 };
static const struct io_ops data_ops = { .read = data_read, .write = data_write, .max_size = 4 };
static const struct io_ops ecam_ops = { .read = ecam_read, .write = ecam_write, .max_size = 4 };

static int host_realize(struct device *dev, struct error *err)
{
	struct pci_host *h = container_of(dev, struct pci_host, pci.dev);
	struct machine *m = dev->machine;

	pci_set_ids(&h->pci, VENDOR_INTEL, DEVICE_Q35, 0x060000, 2);
	/* Where firmware has put the ECAM window, enabled, 256 MiB. It does not move. */
	put_le32(h->pci.config + Q35_PCIEXBAR, PC_ECAM_BASE | 1);
	io_region_init(&h->address, "pci-address", &address_ops, 4);
	io_region_init(&h->data, "pci-data", &data_ops, 4);
	io_region_init(&h->ecam, "pci-ecam", &ecam_ops, PC_ECAM_SIZE);
	io_region_map(m, &h->address, IO_PORT, 0xcf8, 0);
	io_region_map(m, &h->data, IO_PORT, 0xcfc, 0);
	io_region_map(m, &h->ecam, IO_MEMORY, PC_ECAM_BASE, 0);
	return 0;
}

static void host_unrealize(struct device *dev)
{
	struct pci_host *h = container_of(dev, struct pci_host, pci.dev);

	io_region_unmap(dev->machine, &h->address);
	io_region_unmap(dev->machine, &h->data);
	io_region_unmap(dev->machine, &h->ecam);
}

static void host_reset(struct device *dev)
{
	struct pci_host *h = container_of(dev, struct pci_host, pci.dev);

	h->selected = 0;
	h->reset_control = 0;
}

static const struct device_class host_class = {
	.name = "q35-host",
	.description = "PCI Express host bridge",
	.bus = "PCI",
	.internal = true,
	.size = sizeof(struct pci_host),
	.realize = host_realize,
	.unrealize = host_unrealize,
	.reset = host_reset,
};
DEVICE_REGISTER(host_class)

/* --- the ISA bridge --- */

struct lpc {
	struct pci_device pci;
	struct io_region port92;
	u8 port92_value;
};

static unsigned pirq_register(unsigned wire)
{
	return wire < 4 ? LPC_PIRQA + wire : LPC_PIRQE + wire - 4;
}

static void route(struct lpc *l)
{
	unsigned wire;

	for (wire = 0; wire < PCI_PIRQS; wire++) {
		u8 v = l->pci.config[pirq_register(wire)];

		pci_route_wire(l->pci.bus, wire, v & PIRQ_OFF ? 0 : v & 15);
	}
}

static void lpc_config_write(struct pci_device *pci, unsigned offset, unsigned size)
{
	if (offset < LPC_PIRQE + 4 && offset + size > LPC_PIRQA)
		route(container_of(pci, struct lpc, pci));
}

static const struct pci_ops lpc_ops = { .config_write = lpc_config_write };

/* Fast A20 and reset: A20 is always open, so only bit 0 does something. */
static u64 port92_read(struct io_region *r, u64 offset, unsigned size)
{
	return container_of(r, struct lpc, port92)->port92_value;
}

static void port92_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct lpc *l = container_of(r, struct lpc, port92);

	if (value & 1 && !(l->port92_value & 1))
		machine_reset(l->pci.dev.machine);
	l->port92_value = value & 3;
}

static const struct io_ops port92_ops = { .read = port92_read,
					  .write = port92_write,
					  .max_size = 1 };

static int lpc_realize(struct device *dev, struct error *err)
{
	struct lpc *l = container_of(dev, struct lpc, pci.dev);
	unsigned wire;

	l->pci.ops = &lpc_ops;
	pci_set_ids(&l->pci, VENDOR_INTEL, DEVICE_ICH9, 0x060100, 2);
	put_le16(l->pci.config + PCI_COMMAND,
		 PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	/* The ACPI registers stand where the tables say; they do not move. */
	put_le32(l->pci.config + LPC_PMBASE, PC_PM_BASE | 1);
	l->pci.config[LPC_ACPI_CNT] = 0x80;
	for (wire = 0; wire < PCI_PIRQS; wire++) {
		l->pci.config[pirq_register(wire)] = PIRQ_OFF;
		l->pci.writable[pirq_register(wire)] = PIRQ_OFF | 0x0f;
	}
	io_region_init(&l->port92, "port92", &port92_ops, 1);
	io_region_map(dev->machine, &l->port92, IO_PORT, 0x92, 0);
	return 0;
}

static void lpc_unrealize(struct device *dev)
{
	io_region_unmap(dev->machine, &container_of(dev, struct lpc, pci.dev)->port92);
}

static void lpc_reset(struct device *dev)
{
	struct lpc *l = container_of(dev, struct lpc, pci.dev);

	l->port92_value = 2;
	route(l);
}

static const struct device_class lpc_class = {
	.name = "ich9-lpc",
	.description = "ISA bridge",
	.bus = "PCI",
	.internal = true,
	.size = sizeof(struct lpc),
	.realize = lpc_realize,
	.unrealize = lpc_unrealize,
	.reset = lpc_reset,
};
DEVICE_REGISTER(lpc_class)

static int create_at(struct machine *m, const struct device_class *class, const char *addr,
		     struct error *err)
{
	struct opts o = { .count = 0 };
	struct device *dev;

	opts_set(&o, "addr", addr);
	opts_set(&o, "multifunction", class == &lpc_class ? "on" : "off");
	dev = device_create(m, class, &o, err);
	opts_free(&o);
	return dev ? 0 : -EINVAL;
}

int pci_host_create(struct machine *m, struct error *err)
{
	int r = create_at(m, &host_class, "0", err);

	return r < 0 ? r : create_at(m, &lpc_class, "1f", err);
}
