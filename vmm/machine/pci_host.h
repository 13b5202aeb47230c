/* The PCI Express host bridge (00:00.0) and the ISA bridge (00:1f.0) of a Q35 with ICH9. */
#ifndef VMM_MACHINE_PCI_HOST_H
#define VMM_MACHINE_PCI_HOST_H

#include "vmm/util.h"

struct machine;

int pci_host_create(struct machine *m, struct error *err);

#endif
