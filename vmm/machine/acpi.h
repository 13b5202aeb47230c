/* ACPI tables (ACPI 6.4): made from the machine's configuration and put into guest memory. */
#ifndef VMM_MACHINE_ACPI_H
#define VMM_MACHINE_ACPI_H

#include "vmm/util.h"

struct machine;
struct boot;

/**
 * Writes all tables into the last part of RAM below 4 GiB, the RSDP below 1 MiB. Sets b->tables,
 * tables_end and rsdp. SMBIOS goes in the same part, after this.
 */
int acpi_place(struct machine *m, struct boot *b, struct error *err);

/* How much of that part each may use. */
#define ACPI_TABLES_SIZE   (64 * KiB)
#define SMBIOS_TABLES_SIZE (64 * KiB)

#endif
