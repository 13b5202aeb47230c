/* ACPI power management registers. */
#ifndef VMM_MACHINE_PM_H
#define VMM_MACHINE_PM_H

#include "vmm/util.h"

struct machine;
struct pc_pm;

struct pc_pm *pm_create(struct machine *m, struct error *err);

/** Sets the power button's status, and interrupts if the guest wants to know. */
void pm_power_button(struct pc_pm *pm);

#endif
