/* SMBIOS tables (DSP0134 3.0): what dmidecode and the kernel's DMI code read. */
#ifndef VMM_MACHINE_SMBIOS_H
#define VMM_MACHINE_SMBIOS_H

#include "vmm/util.h"

struct machine;
struct boot;

/**
 * After acpi_place(): structures after the ACPI tables, both entry points (2.8 and 3.0) at
 * BOOT_TABLES.
 */
int smbios_place(struct machine *m, struct boot *b, struct error *err);

#endif
