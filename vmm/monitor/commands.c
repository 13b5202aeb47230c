/*
 * The monitor's commands on the machine as a whole; a subject's own are registered where the
 * subject is.
 */
#include "vmm/cpuid.h"
#include "vmm/machine.h"
#include "vmm/monitor/monitor.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void quit(struct monitor *mon, struct machine *m, const char *arguments)
{
	machine_quit(m, 0);
}

static void stop(struct monitor *mon, struct machine *m, const char *arguments)
{
	machine_stop(m);
}

static void cont(struct monitor *mon, struct machine *m, const char *arguments)
{
	if (m->state == MACHINE_SHUTDOWN)
		monitor_printf(mon, "The machine is off; system_reset starts it again\n");
	machine_continue(m);
}

static void system_reset(struct monitor *mon, struct machine *m, const char *arguments)
{
	machine_reset(m);
}

static void system_powerdown(struct monitor *mon, struct machine *m, const char *arguments)
{
	machine_powerdown(m);
}

static void nmi(struct monitor *mon, struct machine *m, const char *arguments)
{
	u32 i;

	for (i = 0; i < m->config.cpus; i++)
		accel_ioctl_value(m, m->vcpus[i].fd, KVM_NMI, 0);
}

static void info_status(struct monitor *mon, struct machine *m, const char *arguments)
{
	static const char *const names[] = {
		[MACHINE_BUILDING] = "being built", [MACHINE_PAUSED] = "paused",
		[MACHINE_RUNNING] = "running",	    [MACHINE_SHUTDOWN] = "shut down",
		[MACHINE_FAILED] = "failed",
	};

	monitor_printf(mon, "VM status: %s\n", names[m->state]);
}

static void info_version(struct monitor *mon, struct machine *m, const char *arguments)
{
	monitor_printf(mon, "%s, accelerator %s: %s\n", TRINE_VERSION, m->accel->name,
		       m->accel->description);
}

static void info_name(struct monitor *mon, struct machine *m, const char *arguments)
{
	if (m->config.name)
		monitor_printf(mon, "%s\n", m->config.name);
}

static void info_uuid(struct monitor *mon, struct machine *m, const char *arguments)
{
	monitor_printf(mon, "%s\n",
		       m->config.uuid ? m->config.uuid : "00000000-0000-0000-0000-000000000000");
}

/* vcpu_dump() prints by a plain function; this is who it prints for. */
static struct monitor *dump_to;

static void __attribute__((format(printf, 1, 2))) dump_print(const char *fmt, ...)
{
	char text[512], *cr;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cr = strchr(text, '\r');
	if (cr)
		memmove(cr, cr + 1, strlen(cr));
	monitor_printf(dump_to, "%s", text);
}

static void info_registers(struct monitor *mon, struct machine *m, const char *arguments)
{
	bool running = m->state == MACHINE_RUNNING, all = !strcmp(arguments, "-a");
	u32 i;

	vcpu_pause_all(m);
	dump_to = mon;
	for (i = 0; i < (all ? m->config.cpus : 1); i++) {
		monitor_printf(mon, "CPU#%u\n", i);
		vcpu_dump(&m->vcpus[i], dump_print);
	}
	if (running && !m->reset_wanted && !m->shutdown_wanted)
		vcpu_resume_all(m);
}

static void info_cpus(struct monitor *mon, struct machine *m, const char *arguments)
{
	u32 i;

	for (i = 0; i < m->config.cpus; i++)
		monitor_printf(mon, "CPU#%u: APIC ID %u, %llu exits to the monitor\n", i,
			       m->vcpus[i].apic_id, (unsigned long long)m->vcpus[i].exits);
}

static void info_pci(struct monitor *mon, struct machine *m, const char *arguments)
{
	unsigned devfn, i;

	for (devfn = 0; devfn < 256; devfn++) {
		struct pci_device *pci = pci_find(&m->pci, devfn);

		if (!pci)
			continue;
		monitor_printf(mon, "00:%02x.%u %s [%04x:%04x] class %06x%s%s\n", PCI_SLOT(devfn),
			       PCI_FUNC(devfn), pci->dev.class->name, get_le16(pci->config),
			       get_le16(pci->config + 2),
			       get_le32(pci->config + PCI_CLASS_REVISION) >> 8,
			       pci->dev.id ? " id " : "", pci->dev.id ? pci->dev.id : "");
		for (i = 0; i < PCI_BARS; i++)
			if (pci->bar[i].region && pci->bar[i].base != ~0ull)
				monitor_printf(mon, "    BAR%u: %s at 0x%llx, 0x%llx bytes\n", i,
					       pci->bar[i].type == PCI_BAR_IO ? "ports" : "memory",
					       (unsigned long long)pci->bar[i].base,
					       (unsigned long long)pci->bar[i].region->size);
	}
}

static void info_mtree(struct monitor *mon, struct machine *m, const char *arguments)
{
	static const char *const spaces[] = { [IO_PORT] = "ports", [IO_MEMORY] = "memory" };
	unsigned space, i;

	for (i = 0; i < m->memory.count; i++)
		monitor_printf(mon, "%016llx-%016llx %s\n",
			       (unsigned long long)m->memory.blocks[i].gpa,
			       (unsigned long long)(m->memory.blocks[i].gpa +
						    m->memory.blocks[i].size - 1),
			       m->memory.blocks[i].name);
	for (space = 0; space < IO_SPACES; space++) {
		monitor_printf(mon, "%s:\n", spaces[space]);
		for (i = 0; i < m->bus.ranges[space]; i++)
			monitor_printf(mon, "%016llx-%016llx %s\n",
				       (unsigned long long)m->bus.view[space][i].base,
				       (unsigned long long)m->bus.view[space][i].end,
				       m->bus.view[space][i].region->name);
	}
}

static void info_qtree(struct monitor *mon, struct machine *m, const char *arguments)
{
	struct list *pos;

	list_for_each (pos, &m->devices) {
		struct device *dev = list_entry(pos, struct device, link);

		monitor_printf(mon, "%s%s%s on %s\n", dev->class->name, dev->id ? ", id " : "",
			       dev->id ? dev->id : "", dev->bus ? dev->bus->name : "no bus");
	}
}

/* As -d and -D; "none" ends it. */
static void set_log(struct monitor *mon, struct machine *m, const char *arguments)
{
	struct error err = { "" };
	char *items = xstrdup(arguments), *p;

	for (p = items; (p = strchr(p, ',')); p++)
		*p = '+';
	if (accel_set_option(m->accel, "log", items, &err) < 0)
		monitor_printf(mon, "%s\n", err.text);
	free(items);
}

static void set_log_file(struct monitor *mon, struct machine *m, const char *arguments)
{
	struct error err = { "" };

	if (accel_set_option(m->accel, "logfile", arguments, &err) < 0)
		monitor_printf(mon, "%s\n", err.text);
}

static const struct monitor_command machine_commands[] = {
	{ "quit", "", "end the machine", quit },
	{ "stop", "", "stop the vCPUs", stop },
	{ "cont", "", "let them go on", cont },
	{ "system_reset", "", "press the reset button", system_reset },
	{ "system_powerdown", "", "press the power button", system_powerdown },
	{ "nmi", "", "send an NMI to every vCPU", nmi },
	{ "log", "ITEM[,ITEM...]|none", "what is logged: in_asm, out_asm, exits", set_log },
	{ "logfile", "FILE", "where to", set_log_file },
	{ "info status", "", "whether it runs", info_status },
	{ "info version", "", "of the monitor and its accelerator", info_version },
	{ "info name", "", "of the machine", info_name },
	{ "info uuid", "", "of the machine", info_uuid },
	{ "info registers", "[-a]", "of the first vCPU, or of all", info_registers },
	{ "info cpus", "", "the vCPUs", info_cpus },
	{ "info pci", "", "PCI devices", info_pci },
	{ "info mtree", "", "memory and registers by address", info_mtree },
	{ "info qtree", "", "devices", info_qtree },
	{}
};
MONITOR_REGISTER(machine_commands)
