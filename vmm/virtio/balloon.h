/*
 * virtio-balloon (virtio 1.2 §5.5): the guest gives memory back to the host and gets it again.
 *
 *	balloon_set_target(m, 256 * MiB);	the guest should make do with 256 MiB
 *	balloon_query(m, &bytes);		what it has now
 *
 * Machine lock held for all of it. Errors: -ENODEV: the machine has no balloon.
 */
#ifndef VMM_VIRTIO_BALLOON_H
#define VMM_VIRTIO_BALLOON_H

#include "vmm/util.h"

struct machine;

/* Tags of the guest's statistics, VIRTIO_BALLOON_S_*; a value that it has not given is ~0. */
#define BALLOON_STATS 16

struct balloon_stats {
	u64 value[BALLOON_STATS];
	s64 updated; /* ns of LOOP_CLOCK_HOST, 0: never */
};

int balloon_set_target(struct machine *m, u64 bytes, struct error *err);
int balloon_query(struct machine *m, u64 *bytes);
/** Asks the driver for fresh statistics every @seconds; 0: no more. */
int balloon_set_polling(struct machine *m, u32 seconds);
int balloon_get_stats(struct machine *m, struct balloon_stats *stats);

#endif
