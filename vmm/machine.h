/*
 * The machine: everything that belongs to one guest.
 *
 * The machine lock protects devices, buses and the main loop's lists; vmm/bus.h states the rule.
 * Time for devices is loop_now(&m->loop, LOOP_CLOCK_VM).
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "vmm/accel.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/mainloop.h"
#include "vmm/memory.h"
#include "vmm/pci.h"
#include "vmm/util.h"
#include "vmm/vcpu.h"
#include <pthread.h>

#define MACHINE_CPUS_MAX 255 /* APIC IDs that fit into 8 bits */

#define SERIAL_PORTS 4

enum machine_state {
	MACHINE_BUILDING,
	MACHINE_PAUSED,
	MACHINE_RUNNING,
	MACHINE_SHUTDOWN, /* the guest is off; -no-shutdown keeps the monitor */
	MACHINE_FAILED,	  /* a vCPU could not go on */
};

/* What the command line says. Strings are owned. */
struct machine_config {
	char *name, *kernel, *initrd, *append, *accel, *cpu, *pidfile, *uuid;
	char *smbios_manufacturer, *smbios_product, *smbios_version, *smbios_serial, *smbios_sku,
		*smbios_family;
	char *serial[SERIAL_PORTS]; /* back ends of COM1 to COM4; "none": no port */
	char *debugcon, *monitor;
	char *log;	/* items of -d, or NULL: the accelerator has to have a log */
	u64 ram;	/* bytes */
	char *ram_text; /* as it was given, or NULL */
	u32 cpus, sockets, cores, threads;
	bool no_reboot, no_shutdown, stopped, nographic, display_none, nodefaults;
	s64 rtc_offset; /* seconds that the guest's clock is ahead of the host's UTC */
};

struct pc;   /* the chipset's devices, vmm/machine/pc.h */
struct boot; /* the loaded kernel, vmm/machine/boot.h */
struct fw_cfg;
struct cpuid; /* the guest's CPUID leaves, vmm/cpuid.c */

struct machine {
	struct machine_config config;
	const struct accel *accel;
	int kvm_fd, vm_fd;	  /* (i) */
	struct memory memory;	  /* (i) while vCPUs run */
	pthread_mutex_t lock;	  /* the machine lock */
	pthread_cond_t vcpu_cond; /* vCPUs paused or to be resumed */
	struct bus bus;		  /* (lock) */
	struct irq_table irq;
	struct loop loop;
	struct vcpu *vcpus;				/* (i) config.cpus of them */
	struct cpuid *cpuid;				/* (i) */
	struct list devices, buses, chardevs, monitors; /* (lock) */
	struct list queued;				/* devices to make when built */
	struct pci_bus pci;				/* pcie.0 */
	struct device_bus *isa;				/* isa.0 */
	struct pc *pc;
	struct boot *boot;
	struct fw_cfg *fw_cfg;
	enum machine_state state; /* (lock) */
	bool vcpus_stop;	  /* (lock) vCPU threads are to stand still */
	bool vcpus_end;		  /* (lock) ... and to end */
	bool reset_wanted, shutdown_wanted, powerdown_wanted; /* (lock) */
	struct loop_bh requests; /* serves the wanted ones in the main loop */
	int exit_status;
};

/** "8-4-4-4-12" hexadecimal digits into 16 bytes as written. -EINVAL. */
int machine_parse_uuid(const char *text, u8 raw[16]);

void machine_lock(struct machine *m);
void machine_unlock(struct machine *m);

/* Requests, carried out in the main loop with all vCPUs paused. Any thread, machine lock held. */
void machine_reset(struct machine *m); /* the guest or the user resets */
void machine_shutdown(struct machine *m, int status); /* the guest powered off */
void machine_quit(struct machine *m, int status); /* ... and ends it, -no-shutdown or not */
void machine_powerdown(struct machine *m);	  /* the power button */
void machine_fail(struct machine *m);		  /* a vCPU cannot go on: status 1 */

/** Stops and starts the vCPUs and the VM clock. Main loop, machine lock held. */
void machine_stop(struct machine *m);
void machine_continue(struct machine *m);

/** An empty machine, able to take options. */
int machine_init(struct machine *m, struct error *err);
/**
 * Builds it after options: accelerator, memory, chipset, vCPUs, devices, kernel. On failure
 * machine_destroy() cleans up.
 */
int machine_build(struct machine *m, struct error *err);
/** Runs until shutdown. Called without the machine lock. */
int machine_run(struct machine *m);
void machine_destroy(struct machine *m);
void machine_config_free(struct machine_config *c);

/**
 * A machine without accelerator and vCPUs, with @ram bytes, for unit tests and fuzzing: interrupts
 * go nowhere but into m->irq.level.
 */
int machine_init_bare(struct machine *m, u64 ram, struct error *err);

#endif
