/* Putting the PC together: memory, chipset, ISA devices. */
#include "vmm/machine/pc.h"
#include "vmm/chardev.h"
#include "vmm/cpuid.h"
#include "vmm/dev/fw_cfg.h"
#include "vmm/dev/i8042.h"
#include "vmm/dev/rtc.h"
#include "vmm/dev/serial.h"
#include "vmm/machine.h"
#include "vmm/machine/pci_host.h"
#include "vmm/machine/pm.h"
#include "vmm/monitor/monitor.h"
#include <stdio.h>
#include <stdlib.h>

int pc_create_memory(struct machine *m, struct error *err)
{
	u64 ram = m->config.ram, low = ram, limit;
	struct pc *pc = xzalloc(sizeof(*pc));
	int r;

	m->pc = pc;
	if (ram > PC_LOW_MAX)
		low = PC_LOW_SPLIT;
	r = memory_create_ram(m, ram, err);
	/* The hole is the screen's. */
	if (!r)
		r = memory_add(m, "low", MEMORY_RAM, 0, 0xa0000, m->memory.ram, err);
	if (!r)
		r = memory_add(m, "ram", MEMORY_RAM, 0xc0000, low - 0xc0000,
			       m->memory.ram + 0xc0000, err);
	if (!r && ram > low)
		r = memory_add(m, "high", MEMORY_RAM, 4 * GiB, ram - low, m->memory.ram + low, err);
	if (r < 0)
		return r;
	limit = 1ull << cpuid_physical_bits(m);
	pc->pci64_base = ALIGN_UP(4 * GiB + (ram - low), GiB);
	pc->pci64_end = MIN(pc->pci64_base + PC_PCI64_SIZE, limit);
	if (pc->pci64_end <= pc->pci64_base)
		pc->pci64_end = pc->pci64_base;
	if (4 * GiB + (ram - low) > limit && ram > low)
		return error_set(err, -EINVAL,
				 "the processor's %u physical address bits are too few for it",
				 cpuid_physical_bits(m));
	return 0;
}

static int create_serial_ports(struct machine *m, struct error *err)
{
	struct chardev *chr;
	char id[16];
	unsigned i;
	int r;

	for (i = 0; i < SERIAL_PORTS; i++) {
		const char *spec = m->config.serial[i];

		if (!spec || !strcmp(spec, "none"))
			continue;
		snprintf(id, sizeof(id), "serial%u", i);
		chr = chardev_add_short(m, spec, id, err);
		if (!chr)
			return error_prefix(err, -EINVAL, "-serial %s", spec);
		r = serial_create(m, i, chr->id, err);
		/* "mon:" is a terminal for both; Ctrl-A C switches. */
		if (!r && !strncmp(spec, "mon:", 4) && !m->config.monitor)
			r = monitor_create(m, chr->id, err);
		if (r < 0)
			return error_prefix(err, r, "-serial %s", spec);
	}
	return 0;
}

static int create_monitor(struct machine *m, struct error *err)
{
	const char *spec = m->config.monitor;
	struct chardev *chr;
	int r;

	if (!spec || !strcmp(spec, "none"))
		return 0;
	chr = chardev_add_short(m, spec, "monitor", err);
	r = chr ? monitor_create(m, chr->id, err) : -EINVAL;
	return r < 0 ? error_prefix(err, r, "-monitor %s", spec) : 0;
}

/*
 * Without -serial the first port is on the terminal, with the monitor, unless -display none asks
 * for silence or the terminal is the monitor's.
 */
static void default_consoles(struct machine_config *c)
{
	bool taken =
		c->monitor && (!strcmp(c->monitor, "stdio") || !strcmp(c->monitor, "mon:stdio"));

	if (c->nodefaults || c->serial[0])
		return;
	c->serial[0] = xstrdup(taken || (c->display_none && !c->nographic) ? "null" : "mon:stdio");
}

static int create_debugcon(struct machine *m, struct error *err)
{
	struct chardev *chr;
	char text[128];

	if (!m->config.debugcon)
		return 0;
	chr = chardev_add_short(m, m->config.debugcon, "debugcon", err);
	if (!chr)
		return error_prefix(err, -EINVAL, "-debugcon %s", m->config.debugcon);
	snprintf(text, sizeof(text), "isa-debugcon,chardev=%s", chr->id);
	return device_add(m, text, err) ? 0 : -EINVAL;
}

static struct device_bus *isa_bus(struct machine *m)
{
	struct device_bus *bus = xzalloc(sizeof(*bus));

	bus->type = "ISA";
	bus->name = xstrdup("isa.0");
	device_bus_add(m, NULL, bus);
	return bus;
}

int pc_create_devices(struct machine *m, struct error *err)
{
	int r;

	if (m->accel)
		default_consoles(&m->config);
	pci_bus_init(m, &m->pci, "pcie.0");
	m->isa = isa_bus(m);
	r = pci_host_create(m, err);
	if (!r) {
		m->pc->pm = pm_create(m, err);
		r = m->pc->pm ? 0 : -EINVAL;
	}
	if (!r)
		r = rtc_create(m, err);
	if (!r)
		r = i8042_create(m, err);
	if (!r)
		r = fw_cfg_create(m, err);
	if (!r)
		r = create_serial_ports(m, err);
	if (!r)
		r = create_monitor(m, err);
	return r ? r : create_debugcon(m, err);
}

void pc_destroy(struct machine *m)
{
	pci_bus_destroy(&m->pci);
	if (m->isa) {
		device_bus_remove(m->isa);
		free(m->isa->name);
		free(m->isa);
		m->isa = NULL;
	}
	free(m->pc);
	m->pc = NULL;
}

void pc_assign_pci(struct machine *m)
{
	struct pci_windows w = {
		.mem = PC_PCI_BASE,
		.mem_end = PC_PCI_END,
		.mem64 = m->pc->pci64_base,
		.mem64_end = m->pc->pci64_end,
		.io = PC_IO_BASE,
		.io_end = PC_IO_END,
	};

	pci_assign(&m->pci, &w);
}

void pc_power_button(struct machine *m)
{
	pm_power_button(m->pc->pm);
}
