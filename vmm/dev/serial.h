/*
 * 16550A serial ports: `-serial` makes COM1 to COM4, `-device
 * isa-serial,chardev=ID,iobase=0x3f8,irq=4` any other.
 */
#ifndef VMM_DEV_SERIAL_H
#define VMM_DEV_SERIAL_H

#include "vmm/util.h"

struct machine;

/** Bit n set: a port stands where COM(n + 1) is looked for. */
u32 serial_ports_present(struct machine *m);

/** COM(@index + 1) on the back end @chardev. */
int serial_create(struct machine *m, unsigned index, const char *chardev, struct error *err);

#endif
