/*
 * Guest memory: which guest-physical ranges are RAM or ROM, and the only way from a guest-physical
 * address to a byte.
 *
 *	u8 *p = memory_ptr_write(m, gpa, len);		NULL: not wholly RAM, the device treats it as a bus error
 *
 *	if (p) {
 *		read(fd, p, len);
 *		memory_wrote(m, gpa, len);
 *	}
 *
 * A device can reach nothing but these ranges: an address in a device's registers, in a hole, or a
 * range that leaves its block gives NULL or -EFAULT, so DMA from a device into device registers
 * does not exist.
 *
 * The map is made while the machine is built and does not change while vCPUs run, so all of this
 * may be called from any thread without a lock. Whoever writes guest memory from the monitor goes
 * through memory_write() or says memory_wrote() afterwards: that is the single place where dirty
 * memory can be recorded.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include "vmm/util.h"

struct machine;

#define MEMORY_BLOCKS_MAX 16

enum memory_kind {
	MEMORY_RAM, /* the guest and devices read and write it */
	MEMORY_ROM, /* the guest's writes leave to the bus; devices cannot write it */
};

struct memory_block {
	const char *name;
	enum memory_kind kind;
	u64 gpa, size; /* bytes, page-aligned */
	u8 *host;      /* where it stands in this process */
	u32 slot;      /* KVM memory slot */
	bool alias;    /* host belongs to another block */
};

struct memory {
	struct memory_block blocks[MEMORY_BLOCKS_MAX];
	unsigned count;
	u8 *ram; /* the whole of -m, one mapping, split over the blocks */
	u64 ram_size;
	int ram_fd; /* a memfd, so that other processes can share it */
};

/**
 * Reserves @size bytes of guest RAM as one shared memfd mapping, m->memory.ram. Called once.
 * Errors: -ENOMEM with the value and what the host has.
 */
int memory_create_ram(struct machine *m, u64 size, struct error *err);

/**
 * Maps @size bytes at @host as guest-physical @gpa, in the next free KVM slot. Machine construction
 * only. Errors: -EINVAL (alignment, overlap), -ENOSPC, or what KVM_SET_USER_MEMORY_REGION answers.
 */
int memory_add(struct machine *m, const char *name, enum memory_kind kind, u64 gpa, u64 size,
	       void *host, struct error *err);

/**
 * Allocates zeroed memory of its own for a ROM or small RAM and maps it at @gpa. Returns it, or
 * NULL with @err set.
 */
void *memory_add_new(struct machine *m, const char *name, enum memory_kind kind, u64 gpa, u64 size,
		     struct error *err);

/**
 * The host's address of [@gpa, @gpa + @len) for reading: RAM or ROM, wholly in one block; else
 * NULL. @len may be 0.
 */
const void *memory_ptr(const struct machine *m, u64 gpa, u64 len);

/** The same for writing: RAM only. memory_wrote() is due after the bytes are there. */
void *memory_ptr_write(struct machine *m, u64 gpa, u64 len);

/** Declares that the monitor or a device has written [@gpa, @gpa + @len). */
void memory_wrote(struct machine *m, u64 gpa, u64 len);

/**
 * Copies out of guest memory, across adjoining blocks too. 0, or -EFAULT with @buf zeroed from the
 * first bad byte.
 */
int memory_read(const struct machine *m, u64 gpa, void *buf, u64 len);

/**
 * Copies into guest RAM. 0, or -EFAULT; what was RAM before the first bad byte has been written.
 */
int memory_write(struct machine *m, u64 gpa, const void *buf, u64 len);

/** Guest RAM below 4 GiB and above, in bytes. */
u64 memory_below_4g(const struct machine *m);
u64 memory_above_4g(const struct machine *m);

/** Unmaps everything. */
void memory_destroy(struct machine *m);

#endif
