/*
 * What the fuzz targets of the PC's own devices share: the input is a list of port and memory
 * accesses by a hostile guest, to the registers of one device, with rounds of the main loop
 *between.
 *
 *	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
 *	{
 *		static const struct fuzz_window windows[] = { { IO_PORT, 0x70, 2 }, {} };
 *
 *		return fuzz_pc(windows, NULL, data, size);
 *	}
 *
 * A step is five bytes: the window and what to do (bit 7 write, bits 4-6 the size, all bits on: a
 * round of the main loop), the offset (one byte, scaled to the window), and three of the value.
 */
#ifndef FUZZ_PC_H
#define FUZZ_PC_H

#include "vmm/machine.h"
#include <stdint.h>
#include <stdlib.h>

struct fuzz_window {
	enum io_space space;
	u64 base, size; /* size 0 ends the list */
};

static struct machine fuzz_machine;

static inline void fuzz_pc_step(const struct fuzz_window *w, const uint8_t *d)
{
	unsigned bytes = 1u << (d[0] >> 4 & 3);
	u64 offset = w->size <= 256 ? d[1] % w->size : (d[1] | (u64)d[4] << 8) % w->size;
	u64 value = d[2] | d[3] << 8 | (u64)d[4] << 16 | (u64)d[1] << 24;

	if (d[0] & 0x80)
		bus_write(&fuzz_machine, w->space, w->base + offset, value, bytes);
	else
		bus_read(&fuzz_machine, w->space, w->base + offset, bytes);
}

static inline int fuzz_pc(const struct fuzz_window *windows, const char *device,
			  const uint8_t *data, size_t size)
{
	static bool ready;
	unsigned count = 0;
	struct error err;

	while (windows[count].size)
		count++;
	if (!ready) {
		if (machine_init_bare(&fuzz_machine, 4 * MiB, &err) < 0)
			abort();
		machine_lock(&fuzz_machine);
		if (device && !device_add(&fuzz_machine, device, &err))
			abort();
		loop_clock_run(&fuzz_machine.loop, true);
		machine_unlock(&fuzz_machine);
		ready = true;
	}
	/* Every input starts from the state after reset, so that it does the same each time. */
	machine_lock(&fuzz_machine);
	device_reset_all(&fuzz_machine);
	for (; size >= 5; data += 5, size -= 5) {
		if ((data[0] & 0xf0) == 0xf0) {
			machine_unlock(&fuzz_machine);
			loop_step(&fuzz_machine.loop, false);
			machine_lock(&fuzz_machine);
			continue;
		}
		fuzz_pc_step(&windows[(data[0] & 15) % count], data);
	}
	fuzz_machine.reset_wanted = fuzz_machine.shutdown_wanted = false;
	fuzz_machine.loop.quit = false;
	machine_unlock(&fuzz_machine);
	return 0;
}

#endif
