/*
 * PCI configuration space: both ways in, write masks, BARs, capabilities, INTx, MSI-X state,
 * against a device made for it.
 */
#include "tests/vmm/bare.h"
#include "vmm/machine/pc.h"

struct probe {
	struct pci_device pci;
	struct io_region small, ports, large;
	unsigned reads;
};

static u64 probe_read(struct io_region *r, u64 offset, unsigned size)
{
	return 0x12345678;
}

static const struct io_ops probe_ops = { .read = probe_read };

static int probe_realize(struct device *dev, struct error *err)
{
	struct probe *p = container_of(dev, struct probe, pci.dev);

	pci_set_ids(&p->pci, 0x1b36, 0x0005, 0x00ff00, 1);
	io_region_init(&p->small, "small", &probe_ops, 0x1000);
	io_region_init(&p->ports, "ports", &probe_ops, 0x20);
	io_region_init(&p->large, "large", &probe_ops, 64 * MiB);
	pci_bar_add(&p->pci, 0, PCI_BAR_MEM32, &p->small);
	pci_bar_add(&p->pci, 1, PCI_BAR_IO, &p->ports);
	pci_bar_add(&p->pci, 2, PCI_BAR_MEM64_PREFETCH, &p->large);
	pci_intx_init(&p->pci);
	pci_pcie_init(&p->pci);
	return pci_msix_init(&p->pci, 4, 3, err);
}

static const struct device_class probe_class = {
	.name = "probe",
	.description = "for tests",
	.bus = "PCI",
	.size = sizeof(struct probe),
	.realize = probe_realize,
};

#define SLOT 4

static u32 config(unsigned offset, unsigned size)
{
	outl(0xcf8, 0x80000000 | SLOT << 11 | (offset & 0xfc));
	return port_in(0xcfc + (offset & 3), size);
}

static void config_set(unsigned offset, u32 v, unsigned size)
{
	outl(0xcf8, 0x80000000 | SLOT << 11 | (offset & 0xfc));
	port_out(0xcfc + (offset & 3), v, size);
}

static u64 ecam(unsigned slot, unsigned offset)
{
	return PC_ECAM_BASE + (slot << 15) + offset;
}

static void test_access(void)
{
	tap_ok(config(0, 4) == 0x00051b36, "vendor and device through 0xcfc");
	tap_ok(config(2, 2) == 0x0005 && config(3, 1) == 0x00, "a word and a byte of it");
	tap_ok(mmio_in(ecam(SLOT, 0), 4) == 0x00051b36, "the same through ECAM");
	tap_ok(mmio_in(ecam(9, 0), 4) == 0xffffffff, "an empty slot reads as all ones");
	tap_ok(mmio_in(ecam(SLOT, 0) + (1 << 20), 4) == 0xffffffff, "so does another bus");
	outl(0xcf8, SLOT << 11);
	tap_ok(inl(0xcfc) == 0xffffffff, "without the enable bit there is nothing at 0xcfc");
	outb(0xcfb, 1);
	tap_ok(inl(0xcf8) == SLOT << 11, "a byte write does not change the address");
	outl(0xcf8, 0x80000000);
	tap_ok(inl(0xcf8) == 0x80000000, "the address reads back");
	tap_ok(mmio_in(ecam(SLOT, 0xffc), 4) == 0, "the end of extended space reads as zero");
	tap_ok(mmio_in(ecam(0, 0), 4) == 0x29c08086, "the host bridge is function 0");
	tap_ok(mmio_in(ecam(31, 0), 4) == 0x29188086, "the ISA bridge is 1f.0");
	tap_ok(mmio_in(ecam(31, 0xe), 1) == 0x80, "which says that it has several functions");
}

static void test_masks(void)
{
	config_set(0, 0xdeadbeef, 4);
	tap_ok(config(0, 4) == 0x00051b36, "the ids cannot be written");
	config_set(8, 0xffffffff, 4);
	tap_ok(config(8, 4) == 0x00ff0001, "nor class and revision");
	config_set(0x3c, 0x1234, 2);
	tap_ok(config(0x3c, 2) == 0x0134, "the interrupt line can, the pin not");
	config_set(4, 0xffff, 2);
	tap_ok(config(4, 2) == 0x0547, "of the command register what means something");
	config_set(4, 0, 2);
	config_set(6, 0xffff, 2);
	tap_ok(config(6, 2) == 0x0010, "the status register has capabilities, and no errors");
}

static void test_bars(struct probe *p)
{
	config_set(0x10, 0xffffffff, 4);
	tap_ok(config(0x10, 4) == 0xfffff000, "sizing a memory BAR of 4 KiB");
	config_set(0x14, 0xffffffff, 4);
	tap_ok(config(0x14, 4) == 0x0000ffe1, "sizing a port BAR of 32");
	config_set(0x18, 0xffffffff, 4);
	config_set(0x1c, 0xffffffff, 4);
	tap_ok(config(0x18, 4) == 0xfc00000c && config(0x1c, 4) == 0xffffffff,
	       "sizing a 64-bit BAR of 64 MiB");
	config_set(0x24, 0xffffffff, 4);
	tap_ok(config(0x24, 4) == 0, "a BAR that is not there is zero");
	config_set(0x30, 0xffffffff, 4);
	tap_ok(config(0x30, 4) == 0, "nor is there a ROM");
	config_set(0x10, 0xe0000000, 4);
	tap_ok(mmio_in(0xe0000000, 4) == 0xffffffff, "with decoding off nothing answers");
	config_set(4, 2, 2);
	tap_ok(mmio_in(0xe0000000, 4) == 0x12345678, "with memory decoding on it does");
	config_set(0x10, 0xe1000000, 4);
	tap_ok(mmio_in(0xe0000000, 4) == 0xffffffff && mmio_in(0xe1000000, 4) == 0x12345678,
	       "it moves");
	config_set(0x12, 0xe200, 2);
	tap_ok(mmio_in(0xe2000000, 4) == 0x12345678, "half a BAR can be written");
	config_set(0x18, 0, 4);
	config_set(0x1c, 0x20, 4);
	tap_ok(mmio_in(0x2000000000ull, 4) == 0x12345678, "above 4 GiB");
	config_set(0x14, 0xc100, 4);
	tap_ok(inl(0xc100) == 0xffffffff, "ports want their own enable bit");
	config_set(4, 3, 2);
	tap_ok(inl(0xc100) == 0x12345678, "and have it now");
	config_set(0x10, 0x00001000, 4);
	tap_ok(memory_write(&bare, 0x1000, "test", 4) == 0 &&
		       !memcmp(memory_ptr(&bare, 0x1000, 4), "test", 4),
	       "a BAR put over RAM does not take it away");
	config_set(0x10, 0xffffffff, 4);
	config_set(0x10, 0, 4);
	tap_ok(!p->small.mapped, "at address 0 a BAR is not there");
	config_set(4, 0, 2);
	tap_ok(!p->large.mapped && !p->ports.mapped, "decoding off unmaps all");
}

static void test_capabilities(struct probe *p)
{
	unsigned at = config(0x34, 1), count = 0, seen = 0;

	while (at && count++ < 48) {
		unsigned id = config(at, 1);

		seen |= id == 0x10 ? 1 : id == 0x11 ? 2 : 4;
		at = config(at + 1, 1);
	}
	tap_ok(seen == 3 && count == 2, "the list has PCI Express and MSI-X, and ends");
	at = p->pci.msix.cap;
	tap_ok((config(at + 2, 2) & 0x7ff) == 2, "three vectors");
	config_set(at + 2, 0xffff, 2);
	tap_ok(config(at + 2, 2) == 0xc002, "of its control two bits can be written");
	config_set(at + 2, 0, 2);
	config_set(0x20, 0xe0000000, 4);
	config_set(4, 6, 2);
	tap_ok(mmio_in(0xe000000c, 4) == 1 && mmio_in(0xe000002c, 4) == 1,
	       "vectors are masked at first");
	mmio_out(0xe0000000, 0xfee00007, 4);
	tap_ok(mmio_in(0xe0000000, 4) == 0xfee00004, "a message's address has no low bits");
	mmio_out(0xe0000030, 0xffffffff, 4);
	tap_ok(mmio_in(0xe0000030, 4) == 0, "behind the last vector there is nothing");
	config_set(at + 2, 0x8000, 2);
	pci_msix_notify(&p->pci, 2);
	tap_ok(mmio_in(0xe0000800, 4) == 4, "a masked vector becomes pending");
	mmio_out(0xe000002c, 0, 4);
	tap_ok(mmio_in(0xe0000800, 4) == 0, "unmasked, it is sent");
	config_set(at + 2, 0xc000, 2);
	pci_msix_notify(&p->pci, 2);
	tap_ok(mmio_in(0xe0000800, 4) == 4, "the function's mask holds too");
	mmio_out(0xe0000800, 0, 4);
	tap_ok(mmio_in(0xe0000800, 4) == 4, "pending bits cannot be written");
	pci_msix_notify(&p->pci, 3);
	pci_msix_notify(&p->pci, 65535);
	tap_ok(mmio_in(0xe0000800, 4) == 4, "a vector that is not there is nothing");
	config_set(at + 2, 0, 2);
	config_set(4, 0, 2);
}

static void test_intx(struct probe *p)
{
	pci_intx_set(&p->pci, true);
	tap_ok(bare.irq.level[16 + SLOT], "pin A of slot 4 is GSI 20");
	tap_ok(config(6, 2) & 8, "the status register shows it");
	config_set(4, 0x400, 2);
	tap_ok(!bare.irq.level[16 + SLOT] && config(6, 2) & 8,
	       "INTx disable takes the line, not the status");
	config_set(4, 0, 2);
	tap_ok(bare.irq.level[16 + SLOT], "enabled again it is back");
	mmio_out(ecam(31, 0x68), 0x0b, 1);
	tap_ok(bare.irq.level[11], "the ISA bridge routes the wire to interrupt 11 too");
	mmio_out(ecam(31, 0x68), 0x0a, 1);
	tap_ok(!bare.irq.level[11] && bare.irq.level[10], "and to another");
	pci_intx_set(&p->pci, false);
	tap_ok(!bare.irq.level[10] && !bare.irq.level[16 + SLOT], "all fall together");
}

static void test_places(void)
{
	struct error err;

	tap_ok(!bare_device("probe,addr=4", &err) && strstr(err.text, "addr=4"), "a taken slot: %s",
	       err.text);
	tap_ok(!bare_device("probe,addr=20", &err) && strstr(err.text, "addr=20"),
	       "no such slot: %s", err.text);
	tap_ok(!bare_device("probe,addr=4.1", &err) && strstr(err.text, "multifunction"),
	       "one function only: %s", err.text);
	tap_ok(!bare_device("probe,bus=pci.9", &err) && strstr(err.text, "pci.9"),
	       "no such bus: %s", err.text);
	tap_ok(bare_device("probe,addr=5.0,multifunction=on,id=first", &err) &&
		       bare_device("probe,addr=5.3", &err),
	       "several functions");
	tap_ok(!bare_device("probe,id=first", &err) && strstr(err.text, "first"), "a taken id: %s",
	       err.text);
	machine_lock(&bare);
	device_remove(device_find(&bare, "first"));
	machine_unlock(&bare);
	tap_ok(mmio_in(ecam(5, 0), 4) == 0xffffffff, "a removed device is gone");
}

int main(void)
{
	struct error err = { "" };
	struct device *dev;
	struct probe *p;

	device_register(&probe_class);
	tap_begin();
	bare_start(16 * MiB);
	dev = bare_device("probe,addr=4", &err);
	if (!tap_ok(dev, "a device in slot 4 %s", err.text))
		return tap_end();
	p = container_of(dev, struct probe, pci.dev);
	test_access();
	test_masks();
	test_bars(p);
	test_capabilities(p);
	test_intx(p);
	machine_lock(&bare);
	device_reset_all(&bare);
	machine_unlock(&bare);
	tap_ok(config(0x10, 4) == 0 && config(4, 2) == 0 && config(0x3c, 1) == 0,
	       "reset forgets what was written");
	test_places();
	bare_stop();
	return tap_end();
}
