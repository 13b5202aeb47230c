/*
 * The types behind hosts/host.h inside Linux. Core and the engines see nothing of Linux but its ABI headers: what embeds one of
 * Linux's own structures is so many words here, counted by sizes.c when the modules are built. Files that do see Linux
 * include hosts/kernel/linux.h, which has the basic types from there.
 */
#ifndef HOST_TYPES_H
#define HOST_TYPES_H

#ifndef HOST_SEES_LINUX
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <asm/errno.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;

/* What <stdint.h> would give. */
typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef unsigned long uintptr_t;
typedef __u64 uint64_t;

#define static_assert _Static_assert

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t size);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);
#endif

#include "host_sizes.h"

/**
 * In inline assembly: when the instruction at label @from faults, what comes next is at label @to. For what cannot fault while the
 * machine is not going down.
 */
#define HOST_FIXUP(from, to)                                                                                           \
	".pushsection __ex_table, \"a\"\n\t"                                                                           \
	".balign 4\n\t"                                                                                                \
	".long (" from ") - ., (" to ") - ., " HOST_STRING(HOST_EX_TYPE) "\n\t"                                        \
	".popsection\n\t"
#define HOST_STRING(value)  HOST_STRING_(value)
#define HOST_STRING_(value) #value

struct host_mutex {
	unsigned long words[HOST_MUTEX_WORDS];
};

struct host_spinlock {
	unsigned long words[HOST_SPINLOCK_WORDS];
};

struct host_rwlock {
	unsigned long words[HOST_RWLOCK_WORDS];
};

struct host_wait {
	unsigned long words[HOST_WAIT_WORDS];
};

struct host_timer {
	void (*fn)(struct host_timer *timer);
	u32 running_on; /* (a) CPU + 1 while fn runs */
	unsigned long words[HOST_TIMER_WORDS];
};

struct host_sched {
	const struct host_sched_ops *ops;
	s32 cpu; /* (a) where the thread is with it; -1: nowhere */
	unsigned long words[HOST_SCHED_WORDS];
};

struct host_mm_watch {
	const struct host_mm_watch_ops *ops;
	u64 seq;	/* (a) of changes that are done */
	u32 changing;	/* (a) changes under way */
	u64 start, end; /* of all of them */
	unsigned long words[HOST_MM_WATCH_WORDS];
};

struct host_shrinker {
	unsigned long (*count)(struct host_shrinker *shrinker);
	unsigned long (*scan)(struct host_shrinker *shrinker, unsigned long nr);
	unsigned long words[HOST_SHRINKER_WORDS];
};

/* hosts/common/srcu.c */
struct host_srcu {
	u64 epoch;     /* (a) */
	unsigned high; /* (a) slots in use never reach this */
	struct host_srcu_slot *slots;
};

struct host_shared {
	void *addr;
	size_t size;
};

struct host_file;
struct host_eventfd;

#endif
