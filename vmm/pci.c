/*
 * PCI configuration space: the bus, write masks, BARs and capabilities (PCI 3.0 chapter 6, PCI
 * Express base 3.0 chapter 7). Interrupts are in pci_irq.c, the chipset's ways to get here in
 * machine/pci_host.c.
 */
#include "vmm/pci.h"
#include "vmm/machine.h"
#include <stdio.h>
#include <stdlib.h>

static u32 config_get(const u8 *config, unsigned offset, unsigned size)
{
	u32 v = 0;

	memcpy(&v, config + offset, size);
	return v;
}

void pci_set_ids(struct pci_device *pci, u16 vendor, u16 device, u32 class_code, u8 revision)
{
	put_le16(pci->config + PCI_VENDOR_ID, vendor);
	put_le16(pci->config + PCI_DEVICE_ID, device);
	put_le32(pci->config + PCI_CLASS_REVISION, class_code << 8 | revision);
	pci_set_subsystem(pci, vendor, device);
}

void pci_set_subsystem(struct pci_device *pci, u16 vendor, u16 device)
{
	put_le16(pci->config + PCI_SUBSYSTEM_VENDOR_ID, vendor);
	put_le16(pci->config + PCI_SUBSYSTEM_ID, device);
}

static unsigned bar_offset(unsigned bar)
{
	return bar == PCI_BAR_ROM ? PCI_ROM_ADDRESS : PCI_BASE_ADDRESS_0 + 4 * bar;
}

static bool bar_is_64(const struct pci_bar *bar)
{
	return bar->type == PCI_BAR_MEM64 || bar->type == PCI_BAR_MEM64_PREFETCH;
}

void pci_bar_add(struct pci_device *pci, unsigned bar, enum pci_bar_type type,
		 struct io_region *region)
{
	static const u32 flags[] = {
		[PCI_BAR_IO] = PCI_BASE_ADDRESS_SPACE_IO,
		[PCI_BAR_MEM32] = 0,
		[PCI_BAR_MEM64] = PCI_BASE_ADDRESS_MEM_TYPE_64,
		[PCI_BAR_MEM64_PREFETCH] =
			PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH,
	};
	unsigned at = bar_offset(bar);
	u64 mask = ~(region->size - 1);

	assert(bar < PCI_BARS && !(region->size & (region->size - 1)));
	assert(region->size >= (type == PCI_BAR_IO ? 4 : 16));
	pci->bar[bar] = (struct pci_bar){ .type = type, .region = region, .base = ~0ull };
	put_le32(pci->config + at, bar == PCI_BAR_ROM ? 0 : flags[type]);
	if (type == PCI_BAR_IO)
		mask &= 0xffff; /* 64 KiB of ports: the upper half is wired to 0 */
	put_le32(pci->writable + at,
		 bar == PCI_BAR_ROM ? (u32)mask | PCI_ROM_ADDRESS_ENABLE : (u32)mask);
	if (bar_is_64(&pci->bar[bar])) {
		assert(bar + 1 < PCI_BAR_ROM);
		put_le32(pci->writable + at + 4, mask >> 32);
	}
	pci->writable[PCI_COMMAND] |= type == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
}

struct pci_rom {
	struct io_region region;
	u8 bytes[];
};

static u64 rom_read(struct io_region *r, u64 offset, unsigned size)
{
	struct pci_rom *rom = container_of(r, struct pci_rom, region);
	u64 v = 0;

	memcpy(&v, rom->bytes + offset, size);
	return v;
}

static const struct io_ops rom_ops = { .read = rom_read };

int pci_rom_add(struct pci_device *pci, const void *bytes, u32 size, struct error *err)
{
	struct pci_rom *rom;

	if (size < 2048 || size & (size - 1))
		return error_set(err, -EINVAL,
				 "an expansion ROM of %u bytes: a power of two from 2048 is wanted",
				 size);
	rom = xzalloc(sizeof(*rom) + size);
	memcpy(rom->bytes, bytes, size);
	io_region_init(&rom->region, "rom", &rom_ops, size);
	pci_bar_add(pci, PCI_BAR_ROM, PCI_BAR_MEM32, &rom->region);
	return 0;
}

u8 pci_cap_add(struct pci_device *pci, u8 id, u8 size)
{
	u8 *last = pci->config + PCI_CAPABILITY_LIST;
	u16 at = pci->cap_next ? pci->cap_next : PCI_STD_HEADER_SIZEOF;

	assert(at + size <= 256);
	while (*last)
		last = pci->config + *last + PCI_CAP_LIST_NEXT;
	*last = at;
	pci->config[at + PCI_CAP_LIST_ID] = id;
	pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	pci->cap_next = ALIGN_UP(at + size, 4);
	return at;
}

u16 pci_ext_cap_add(struct pci_device *pci, u16 id, u8 version, u16 size)
{
	u16 at = PCI_CFG_SPACE_SIZE, last = 0;
	u32 header;

	/*
	 * The list is in order, each next pointer tells the following one; sizes are not recorded,
	 * so look for zeroes.
	 */
	while ((header = get_le32(pci->config + at))) {
		last = at;
		if (!PCI_EXT_CAP_NEXT(header))
			break;
		at = PCI_EXT_CAP_NEXT(header);
	}
	if (last) {
		at = last + 0x40;
		put_le32(pci->config + last, get_le32(pci->config + last) | (u32)at << 20);
	}
	assert(size <= 0x40 && at + size <= PCI_CONFIG_SIZE);
	put_le32(pci->config + at, id | (u32)(version & 15) << 16);
	return at;
}

void pci_pcie_init(struct pci_device *pci)
{
	u8 *cap;

	pci->pcie = pci_cap_add(pci, PCI_CAP_ID_EXP, PCI_CAP_EXP_ENDPOINT_SIZEOF_V2);
	cap = pci->config + pci->pcie;
	put_le16(cap + PCI_EXP_FLAGS, 2 | PCI_EXP_TYPE_RC_END << 4);
	put_le32(cap + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER);
	/*
	 * An integrated end point has no link registers; of the control registers it keeps what it
	 * is told.
	 */
	put_le16(pci->writable + pci->pcie + PCI_EXP_DEVCTL, 0x7fff & ~PCI_EXP_DEVCTL_BCR_FLR);
	put_le16(pci->write_clears + pci->pcie + PCI_EXP_DEVSTA, 0x000f);
}

bool pci_dma_allowed(const struct pci_device *pci)
{
	return pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

int pci_dma_read(struct pci_device *pci, u64 gpa, void *buf, u64 len)
{
	if (!pci_dma_allowed(pci)) {
		memset(buf, 0, len);
		return -EFAULT;
	}
	return memory_read(pci->dev.machine, gpa, buf, len);
}

int pci_dma_write(struct pci_device *pci, u64 gpa, const void *buf, u64 len)
{
	return pci_dma_allowed(pci) ? memory_write(pci->dev.machine, gpa, buf, len) : -EFAULT;
}

/* Where the guest has put BAR @i, or ~0 while it is not decoded. */
static u64 bar_address(const struct pci_device *pci, unsigned i)
{
	const struct pci_bar *bar = &pci->bar[i];
	u16 command = get_le16(pci->config + PCI_COMMAND);
	u32 low = get_le32(pci->config + bar_offset(i));
	u64 base;

	if (bar->type == PCI_BAR_IO) {
		base = low & PCI_BASE_ADDRESS_IO_MASK & 0xffff;
		return command & PCI_COMMAND_IO && base ? base : ~0ull;
	}
	if (!(command & PCI_COMMAND_MEMORY) ||
	    (i == PCI_BAR_ROM && !(low & PCI_ROM_ADDRESS_ENABLE)))
		return ~0ull;
	base = i == PCI_BAR_ROM ? low & PCI_ROM_ADDRESS_MASK : low & ~15u;
	if (bar_is_64(bar))
		base |= (u64)get_le32(pci->config + bar_offset(i) + 4) << 32;
	/* All ones is what sizing leaves, for a moment; 0 is "not assigned". */
	if (!base || base + bar->region->size - 1 < base ||
	    (!bar_is_64(bar) && base + bar->region->size > 0xffffffffull))
		return ~0ull;
	return base;
}

static void bars_update(struct pci_device *pci)
{
	struct machine *m = pci->dev.machine;
	struct pci_bar *bar;
	unsigned i;
	u64 base;

	for (i = 0; i < PCI_BARS; i++) {
		bar = &pci->bar[i];
		if (!bar->region)
			continue;
		base = bar_address(pci, i);
		if (base == bar->base)
			continue;
		bar->base = base;
		if (base == ~0ull)
			io_region_unmap(m, bar->region);
		else
			io_region_map(m, bar->region, bar->type == PCI_BAR_IO ? IO_PORT : IO_MEMORY,
				      base, 1);
		if (pci->ops && pci->ops->bar_mapped)
			pci->ops->bar_mapped(pci, i, base);
	}
}

u32 pci_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
	u32 v;

	if (offset + size > PCI_CONFIG_SIZE)
		return ~0u;
	/* Extended space belongs to PCI Express functions; on others it reads as absent. */
	if (pci->ops && pci->ops->config_read)
		pci->ops->config_read(pci, offset, size);
	v = config_get(pci->config, offset, size);
	if (offset <= PCI_STATUS && offset + size > PCI_STATUS &&
	    __atomic_load_n(&pci->intx, __ATOMIC_RELAXED))
		v |= (u32)PCI_STATUS_INTERRUPT << (8 * (PCI_STATUS - offset));
	return v;
}

static bool overlaps(unsigned offset, unsigned size, unsigned at, unsigned n)
{
	return offset < at + n && at < offset + size;
}

void pci_config_write(struct pci_device *pci, unsigned offset, u32 value, unsigned size)
{
	unsigned i;

	if (offset + size > PCI_CONFIG_SIZE)
		return;
	pthread_mutex_lock(&pci->irq_lock);
	for (i = 0; i < size; i++) {
		u8 v = value >> (8 * i), *byte = &pci->config[offset + i],
		   mask = pci->writable[offset + i];

		*byte = (*byte & ~mask) | (v & mask);
		*byte &= ~(v & pci->write_clears[offset + i]);
	}
	pthread_mutex_unlock(&pci->irq_lock);
	if (overlaps(offset, size, PCI_COMMAND, 2) ||
	    overlaps(offset, size, PCI_BASE_ADDRESS_0, 24) ||
	    overlaps(offset, size, PCI_ROM_ADDRESS, 4))
		bars_update(pci);
	if (overlaps(offset, size, PCI_COMMAND, 2))
		pci_intx_update(pci);
	pci_irq_config_written(pci, offset, size);
	if (pci->ops && pci->ops->config_write)
		pci->ops->config_write(pci, offset, size);
}

static void pci_reset(struct pci_device *pci)
{
	memcpy(pci->config, pci->reset_config, sizeof(pci->config));
	pci_irq_reset(pci);
	bars_update(pci);
}

struct pci_device *pci_find(struct pci_bus *bus, u8 devfn)
{
	return bus->devices[devfn];
}

static int parse_addr(const char *text, unsigned *slot, unsigned *function)
{
	char *end;

	*function = 0;
	*slot = strtoul(text, &end, 16);
	if (end == text)
		return -EINVAL;
	if (*end == '.') {
		text = end + 1;
		*function = strtoul(text, &end, 16);
		if (end == text)
			return -EINVAL;
	}
	return *end || *slot > 31 || *function > 7 ? -EINVAL : 0;
}

/* The bus's part before the device's own: a place, and an empty configuration space. */
static int pci_attach(struct device_bus *b, struct device *dev, struct error *err)
{
	struct pci_bus *bus = container_of(b, struct pci_bus, bus);
	struct pci_device *pci = container_of(dev, struct pci_device, dev);
	unsigned slot, function = 0;

	if (pci->addr) {
		if (parse_addr(pci->addr, &slot, &function) < 0)
			return error_set(err, -EINVAL,
					 "addr=%s: a slot up to 1f, or slot.function, is wanted",
					 pci->addr);
		if (bus->devices[PCI_DEVFN(slot, function)])
			return error_set(err, -EBUSY, "addr=%s: taken by %s", pci->addr,
					 bus->devices[PCI_DEVFN(slot, function)]->dev.class->name);
		if (function && !bus->devices[PCI_DEVFN(slot, 0)])
			return error_set(err, -EINVAL,
					 "addr=%s: function 0 of the slot must come first",
					 pci->addr);
		if (function && !(bus->devices[PCI_DEVFN(slot, 0)]->config[PCI_HEADER_TYPE] & 0x80))
			return error_set(err, -EINVAL,
					 "addr=%s: function 0 of the slot is not multifunction=on",
					 pci->addr);
	} else {
		for (slot = 1; slot < 31 && bus->devices[PCI_DEVFN(slot, 0)]; slot++)
			;
		if (slot == 31)
			return error_set(err, -ENOSPC, "no slot is free on %s", b->name);
	}
	pci->bus = bus;
	pci->devfn = PCI_DEVFN(slot, function);
	put_le16(pci->writable + PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
						      PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	pci->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	pci->writable[PCI_LATENCY_TIMER] = 0xff;
	pci->writable[PCI_INTERRUPT_LINE] = 0xff;
	put_le16(pci->write_clears + PCI_STATUS, 0xf900);
	if (pci->multifunction)
		pci->config[PCI_HEADER_TYPE] |= 0x80;
	pci_irq_init(pci);
	bus->devices[pci->devfn] = pci;
	return 0;
}

static int pci_attached(struct device_bus *b, struct device *dev, struct error *err)
{
	struct pci_device *pci = container_of(dev, struct pci_device, dev);

	memcpy(pci->reset_config, pci->config, sizeof(pci->config));
	return 0;
}

static void pci_detach(struct device_bus *b, struct device *dev)
{
	struct pci_bus *bus = container_of(b, struct pci_bus, bus);
	struct pci_device *pci = container_of(dev, struct pci_device, dev);
	unsigned i;

	put_le16(pci->config + PCI_COMMAND, 0);
	for (i = 0; i < PCI_BARS; i++)
		if (pci->bar[i].region)
			io_region_unmap(dev->machine, pci->bar[i].region);
	pci_intx_set(pci, false);
	pci_irq_release(pci);
	if (pci->bar[PCI_BAR_ROM].region && pci->bar[PCI_BAR_ROM].region->ops == &rom_ops)
		free(container_of(pci->bar[PCI_BAR_ROM].region, struct pci_rom, region));
	bus->devices[pci->devfn] = NULL;
}

static void pci_device_reset(struct device_bus *b, struct device *dev)
{
	pci_reset(container_of(dev, struct pci_device, dev));
}

static const struct property pci_properties[] = {
	PROPERTY_STRING("addr", struct pci_device, addr, NULL,
			"slot, or slot.function, in hexadecimal"),
	PROPERTY_BOOL("multifunction", struct pci_device, multifunction, "off",
		      "more functions follow in this slot"),
	{}
};

void pci_bus_init(struct machine *m, struct pci_bus *bus, const char *name)
{
	*bus = (struct pci_bus){
		.bus = {
			.type = "PCI", .name = xstrdup(name), .properties = pci_properties,
			.attach = pci_attach, .attached = pci_attached, .detach = pci_detach, .reset = pci_device_reset,
		},
	};
	pthread_mutex_init(&bus->irq_lock, NULL);
	device_bus_add(m, NULL, &bus->bus);
}

void pci_bus_destroy(struct pci_bus *bus)
{
	if (!bus->bus.name)
		return;
	device_bus_remove(&bus->bus);
	free(bus->bus.name);
	bus->bus.name = NULL;
	pthread_mutex_destroy(&bus->irq_lock);
}

static u64 take(u64 *next, u64 end, u64 size)
{
	u64 at = ALIGN_UP(*next, size);

	if (at < *next || at + size < at || at + size > end)
		return 0;
	*next = at + size;
	return at;
}

void pci_assign(struct pci_bus *bus, const struct pci_windows *windows)
{
	struct pci_windows w = *windows;
	struct pci_device *pci;
	struct pci_bar *bar;
	unsigned devfn, i;
	u64 at;

	for (devfn = 0; devfn < 256; devfn++) {
		pci = bus->devices[devfn];
		if (!pci)
			continue;
		for (i = 0; i < PCI_BARS; i++) {
			bar = &pci->bar[i];
			if (!bar->region)
				continue;
			if (bar->type == PCI_BAR_IO)
				at = take(&w.io, w.io_end, bar->region->size);
			else
				at = bar_is_64(bar) ? take(&w.mem64, w.mem64_end,
							   MAX(bar->region->size, 4096))
						    : 0;
			if (!at && bar->type != PCI_BAR_IO)
				at = take(&w.mem, w.mem_end, MAX(bar->region->size, 4096));
			pci_config_write(pci, bar_offset(i), (u32)at, 4);
			if (bar_is_64(bar))
				pci_config_write(pci, bar_offset(i) + 4, at >> 32, 4);
		}
		if (pci->config[PCI_INTERRUPT_PIN])
			pci->config[PCI_INTERRUPT_LINE] =
				16 +
				(PCI_SLOT(devfn) + pci->config[PCI_INTERRUPT_PIN] - 1) % PCI_PIRQS;
	}
}
