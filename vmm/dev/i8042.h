/*
 * The PS/2 keyboard controller with a keyboard and a mouse, ports 0x60 and 0x64, interrupts 1 and
 * 12.
 */
#ifndef VMM_DEV_I8042_H
#define VMM_DEV_I8042_H

#include "vmm/util.h"

struct machine;

int i8042_create(struct machine *m, struct error *err);

/**
 * A key, as its scan code of set 1 without the break bit; @extended: with the prefix 0xe0. Machine
 * lock held.
 */
void i8042_key(struct machine *m, u8 code, bool extended, bool down);

/**
 * Movement (right and up positive) and buttons (bit 0 left, 1 right, 2 middle). Machine lock held.
 */
void i8042_mouse(struct machine *m, int dx, int dy, u8 buttons);

#endif
