/*
 * For the files that stand with one foot in Linux: its headers first, then hosts/host.h on top of them, and how the words of
 * host_types.h become Linux's structures again.
 */
#ifndef HOSTS_KERNEL_LINUX_H
#define HOSTS_KERNEL_LINUX_H

#include <linux/errno.h>
#include <linux/hrtimer.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/rcuwait.h>
#include <linux/sched.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>

#ifndef HOST_COUNTS_SIZES
#define HOST_SEES_LINUX
#include "hosts/host.h"
#endif

/* What stands in the words of host_sched and of host_mm_watch. */
struct sched_inside {
	struct preempt_notifier notifier;
	struct host_sched *outside;
};

struct mm_watch_inside {
	struct mmu_notifier notifier;
	spinlock_t lock; /* of seq, changing, start and end */
	struct host_mm_watch *outside;
};

/** Linux's structure of @type in the words of a host structure. */
#define INSIDE(type, host)                                                                                             \
	({                                                                                                             \
		static_assert(sizeof(type) <= sizeof((host)->words));                                                  \
		(type *)(host)->words;                                                                                 \
	})

/** The directory of all VMs' statistics, while trine.ko is loaded. */
void host_stats_open(void);
void host_stats_close(void);
/** Guest code is not entered any more; KVM_RUN gives -EIO. */
void host_stop_guests(void);
bool host_guests_stopped(void);

#endif
