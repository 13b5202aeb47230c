/*
 * What the monitor's unit tests share: a machine without an accelerator, and its ports, memory and
 * clock at hand.
 *
 *	bare_start(16 * MiB);
 *	outb(0x70, 0x0a);
 *	tap_ok(inb(0x71) == 0x26, "...");
 *	bare_stop();
 */
#ifndef TESTS_VMM_BARE_H
#define TESTS_VMM_BARE_H

#include "tests/tap.h"
#include "vmm/machine.h"
#include <stdlib.h>
#include <time.h>

static struct machine bare;

static inline void bare_start(u64 ram)
{
	struct error err = { "" };

	if (machine_init_bare(&bare, ram, &err) < 0) {
		printf("Bail out! %s\n", err.text);
		exit(1);
	}
	machine_lock(&bare);
	loop_clock_run(&bare.loop, true);
	machine_unlock(&bare);
}

static inline void bare_stop(void)
{
	machine_destroy(&bare);
}

static inline u64 port_in(u16 port, unsigned size)
{
	u64 v;

	machine_lock(&bare);
	v = bus_read(&bare, IO_PORT, port, size);
	machine_unlock(&bare);
	return v;
}

static inline void port_out(u16 port, u64 v, unsigned size)
{
	machine_lock(&bare);
	bus_write(&bare, IO_PORT, port, v, size);
	machine_unlock(&bare);
}

static inline u8 inb(u16 port)
{
	return port_in(port, 1);
}

static inline u32 inl(u16 port)
{
	return port_in(port, 4);
}

static inline void outb(u16 port, u8 v)
{
	port_out(port, v, 1);
}

static inline void outw(u16 port, u16 v)
{
	port_out(port, v, 2);
}

static inline void outl(u16 port, u32 v)
{
	port_out(port, v, 4);
}

static inline u64 mmio_in(u64 addr, unsigned size)
{
	u64 v;

	machine_lock(&bare);
	v = bus_read(&bare, IO_MEMORY, addr, size);
	machine_unlock(&bare);
	return v;
}

static inline void mmio_out(u64 addr, u64 v, unsigned size)
{
	machine_lock(&bare);
	bus_write(&bare, IO_MEMORY, addr, v, size);
	machine_unlock(&bare);
}

/* Lets the main loop do what is due. */
static inline void settle(void)
{
	int i;

	for (i = 0; i < 4; i++)
		loop_step(&bare.loop, false);
}

/*
 * Rounds of the main loop until @done holds, or ten seconds have passed. Returns whether it does.
 */
static inline bool settle_until(bool (*done)(void))
{
	s64 end = now_ns() + 10 * NS_PER_SEC;

	while (!done() && now_ns() < end) {
		struct timespec ms = { .tv_nsec = 1000000 };

		loop_step(&bare.loop, false);
		nanosleep(&ms, NULL);
	}
	return done();
}

static inline struct device *bare_device(const char *text, struct error *err)
{
	struct device *dev;

	machine_lock(&bare);
	dev = device_add(&bare, text, err);
	machine_unlock(&bare);
	return dev;
}

#endif
