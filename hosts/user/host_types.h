/*
 * The types behind hosts/host.h for an ordinary process. hosts/kernel has a file of the same name; the
 * include path decides which world a file is compiled for.
 */
#ifndef HOST_TYPES_H
#define HOST_TYPES_H

#include <assert.h> /* static_assert */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

struct host_mutex {
	pthread_mutex_t mutex;
};

struct host_spinlock {
	pthread_mutex_t mutex; /* threads may be preempted: sleeping beats spinning */
};

/* hosts/common/srcu.c */
struct host_srcu {
	uint64_t epoch; /* (a) */
	unsigned high;	/* (a) slots in use never reach this */
	struct host_srcu_slot *slots;
};

struct host_timer {
	void (*fn)(struct host_timer *timer);
	u64 deadline_ns; /* 0: not armed */
	struct host_timer *next, **pprev; /* in the service thread's list, by deadline */
	bool running;
};

/* A futex: @seq changes with every wake-up. */
struct host_wait {
	u32 seq;
	u32 sleeping;
};

/* Memory shared with the client by mmap; @fd is the memfd behind it. */
struct host_shared {
	void *addr;
	size_t size;
	int fd;
};

struct host_rwlock {
	pthread_rwlock_t lock;
};

/* What is being changed now, and how many changes are over: hosts/user/pages.h. */
struct host_mm_watch {
	const struct host_mm_watch_ops *ops;
	pthread_mutex_t mutex;
	u64 seq, start, end;
	u32 pid;
	struct host_mm_watch *next;
};

struct host_sched {
	const struct host_sched_ops *ops;
};

struct host_shrinker {
	unsigned long (*count)(struct host_shrinker *shrinker);
	unsigned long (*scan)(struct host_shrinker *shrinker, unsigned long nr);
};

struct host_file;
struct host_eventfd;

#endif
