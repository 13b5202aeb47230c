/* The PC around the vCPUs: where things stand, and the chipset's devices. */
#ifndef VMM_MACHINE_PC_H
#define VMM_MACHINE_PC_H

#include "vmm/util.h"

struct machine;
struct pc_pm;

#define PC_LOW_MAX    0xb0000000ull /* RAM below 4 GiB ends here at the latest ... */
#define PC_LOW_SPLIT  0x80000000ull /* ... and here when there is more than that */
#define PC_ECAM_BASE  0xb0000000ull
#define PC_ECAM_SIZE  0x10000000ull
#define PC_PCI_BASE   0xc0000000ull /* memory for PCI devices, up to the I/O APIC */
#define PC_PCI_END    0xfe000000ull
#define PC_IOAPIC     0xfec00000ull
#define PC_LAPIC      0xfee00000ull
#define PC_PCI64_SIZE (64 * GiB)
#define PC_IO_BASE    0xc000ull /* ports for PCI devices */
#define PC_IO_END     0x10000ull

#define PC_PM_BASE     0x600 /* ACPI registers: PM1a event and control, timer, GPE0 */
#define PC_PM_EVENT    0x00
#define PC_PM_CONTROL  0x04
#define PC_PM_TIMER    0x08
#define PC_PM_GPE0     0x20
#define PC_PM_GPE0_LEN 0x10
#define PC_PM_SIZE     0x80
#define PC_SCI	       9
#define PC_RESET_PORT  0xcf9

struct pc {
	u64 pci64_base, pci64_end; /* equal: there is no such window */
	struct pc_pm *pm;
};

/** RAM in its places. */
int pc_create_memory(struct machine *m, struct error *err);
/** The chipset, ISA devices and what -serial and friends ask for. */
int pc_create_devices(struct machine *m, struct error *err);
void pc_destroy(struct machine *m);

/** Addresses for all PCI devices, in the place of firmware. */
void pc_assign_pci(struct machine *m);

/** Presses the power button. */
void pc_power_button(struct machine *m);

#endif
