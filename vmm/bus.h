/*
 * The two address spaces in which devices have registers: I/O ports and memory-mapped I/O.
 *
 *	struct beeper { struct device dev; struct io_region regs; };
 *
 *	static u64 beeper_read(struct io_region *r, u64 offset, unsigned size)
 *	{
 *		struct beeper *b = container_of(r, struct beeper, regs);
 *		...
 *	}
 *	static const struct io_ops beeper_ops = { .read = beeper_read, .write = beeper_write, .max_size = 1 };
 *
 *	io_region_init(&b->regs, "beeper", &beeper_ops, 4);
 *	io_region_map(m, &b->regs, IO_PORT, 0x42, 0);
 *
 * The rule of locking: device code runs under the machine lock (machine_lock(), vmm/machine.h). A
 * vCPU thread takes it around the access, the main loop around each callback; map, unmap and
 * dispatch want it held. Data-plane threads run without it and may use only what says that it needs
 * no lock (vmm/memory.h, vmm/irq.h, loop_bh_schedule()).
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include "vmm/util.h"

struct machine;
struct io_region;

enum io_space {
	IO_PORT,   /* 64 KiB of ports */
	IO_MEMORY, /* guest-physical addresses that are not RAM */
	IO_SPACES,
};

/*
 * @offset is from the region's base and @offset + @size never passes its end. A wider or straddling
 * access than max_size is split, lowest address first. Sizes are 1, 2, 4, 8. A missing read answers
 * all ones, a missing write ignores.
 */
struct io_ops {
	u64 (*read)(struct io_region *r, u64 offset, unsigned size);
	void (*write)(struct io_region *r, u64 offset, u64 value, unsigned size);
	unsigned max_size; /* 1, 2, 4 or 8; 0 is 8 */
};

struct io_region {
	const char *name;
	const struct io_ops *ops;
	u64 base, size; /* base counts only while mapped */
	enum io_space space;
	int priority; /* where regions overlap the higher is seen; of equals the one mapped last */
	bool mapped;
	u64 order; /* when it was mapped, for the rule above */
	struct list link;
};

/*
 * A run of addresses that one region answers; the view of a space is these, sorted, without
 * overlap.
 */
struct io_range {
	u64 base, end; /* end: the last address */
	struct io_region *region;
};

struct bus {
	struct list regions[IO_SPACES];
	struct io_range *view[IO_SPACES];
	unsigned ranges[IO_SPACES];
	u64 order;
};

void bus_init(struct bus *bus);
void bus_destroy(struct bus *bus);

void io_region_init(struct io_region *r, const char *name, const struct io_ops *ops, u64 size);

/** Makes @r answer at @base. Mapped already, it moves. Machine lock held. */
void io_region_map(struct machine *m, struct io_region *r, enum io_space space, u64 base,
		   int priority);

/** Takes @r away; nothing happens if it is not mapped. Machine lock held. */
void io_region_unmap(struct machine *m, struct io_region *r);

/**
 * A guest's access of @size bytes (1-8) at @addr. Unclaimed reads give all ones. Machine lock held.
 */
u64 bus_read(struct machine *m, enum io_space space, u64 addr, unsigned size);
void bus_write(struct machine *m, enum io_space space, u64 addr, u64 value, unsigned size);

/** The region that answers at @addr, or NULL. Machine lock held. */
struct io_region *bus_lookup(struct machine *m, enum io_space space, u64 addr);

/**
 * From now on (until taken back) a guest's write of @size bytes at @addr signals @fd inside the
 * accelerator instead of coming to the monitor: KVM_IOEVENTFD. @size 0 matches any size (memory
 * only). With @match only writes of @value. Errors: -ENOSYS if the accelerator has none (the write
 * then arrives at the region as usual); KVM's others.
 */
int bus_eventfd_add(struct machine *m, enum io_space space, u64 addr, unsigned size, bool match,
		    u64 value, int fd);
int bus_eventfd_del(struct machine *m, enum io_space space, u64 addr, unsigned size, bool match,
		    u64 value, int fd);

#endif
