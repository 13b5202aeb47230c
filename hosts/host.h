/*
 * The services that core and the engines need of whatever they run in. hosts/user serves them in a process,
 * hosts/kernel in Linux. Core includes nothing else of the host; there are no conditionals on the world.
 *
 * host_types.h supplies: u8..u64, s8..s64, bool, size_t, NULL, the E* error numbers, the mem* and str* functions, and the
 * structures that are embedded by value (host_mutex, host_spinlock, host_srcu, host_timer, host_wait, host_shared).
 */
#ifndef HOSTS_HOST_H
#define HOSTS_HOST_H

#include "host_types.h"

#define HOST_PAGE_SHIFT 12
#define HOST_PAGE_SIZE	(1UL << HOST_PAGE_SHIFT)

#ifndef container_of
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#endif
#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#endif
#ifndef likely
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

/* ---- memory ------------------------------------------------------------------------------------------------ */

/** Zeroed memory, aligned to 16 bytes, charged to the client. NULL when there is none. May sleep. */
void *host_zalloc(size_t size);
void host_free(void *ptr);
/** Zeroed whole pages (@size is rounded up), page-aligned. NULL when there is none. May sleep. */
void *host_zalloc_pages(size_t size);
void host_free_pages(void *ptr, size_t size);
/** Zeroed pages that the client can map (kvm_run, rings, statistics); a read of their descriptor ends at @size. 0 or -ENOMEM. */
int host_shared_alloc(struct host_shared *shared, size_t size);
void host_shared_free(struct host_shared *shared);

/* ---- locks ------------------------------------------------------------------------------------------------- */

void host_mutex_init(struct host_mutex *m);
void host_mutex_destroy(struct host_mutex *m);
void host_mutex_lock(struct host_mutex *m);
void host_mutex_unlock(struct host_mutex *m);

/* Spinlocks may be taken from timer and eventfd callbacks; nothing sleeps under them. */
void host_spin_init(struct host_spinlock *l);
void host_spin_destroy(struct host_spinlock *l);
unsigned long host_spin_lock(struct host_spinlock *l);
void host_spin_unlock(struct host_spinlock *l, unsigned long flags);

/* Sleepable read-copy-update: one domain a VM protects memslots, IRQ routing, I/O buses and filters. */
int host_srcu_init(struct host_srcu *s);
void host_srcu_destroy(struct host_srcu *s);
int host_srcu_read_lock(struct host_srcu *s);
void host_srcu_read_unlock(struct host_srcu *s, int idx);
/** Returns when every reader that began before the call has ended. The caller is no reader. */
void host_srcu_synchronize(struct host_srcu *s);
/* The same in two steps, so that readers can be asked to leave in between: those that enter after host_srcu_begin() are not waited for. */
u64 host_srcu_begin(struct host_srcu *s);
void host_srcu_wait(struct host_srcu *s, u64 ticket);

/* ---- time -------------------------------------------------------------------------------------------------- */

/** Monotonic nanoseconds since some fixed moment; counts on while the host sleeps (CLOCK_BOOTTIME). */
u64 host_now_ns(void);
/** Nanoseconds since 1970 UTC. */
u64 host_realtime_ns(void);
/** Frequency of the host's TSC in kHz, 0 when it is not usable as a clock. */
u32 host_tsc_khz(void);

/** Nanoseconds, since it began, in which the calling thread could have run but others had the CPU. 0: the host does not say. */
u64 host_run_delay_ns(void);

static inline u64 host_rdtsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

/** @fn runs once per start, in a service thread or interrupt context: it may take spinlocks, never sleep. */
void host_timer_init(struct host_timer *t, void (*fn)(struct host_timer *t));
/** (Re)arms @t for @deadline_ns of host_now_ns(); a moment in the past fires at once. Callable from @fn. */
void host_timer_start(struct host_timer *t, u64 deadline_ns);
/** Disarms @t; when it returns, @fn does not run and will not (unless called from @fn itself). */
void host_timer_cancel(struct host_timer *t);

/* ---- threads, sleeping, signals ---------------------------------------------------------------------------- */

/** An opaque, non-zero name of the calling thread; equal only in that thread. */
u64 host_thread_self(void);

void host_wait_init(struct host_wait *w);
void host_wait_destroy(struct host_wait *w);
/**
 * Sleeps until @ready(@w) holds. Wake-ups are never lost when the waker changes the condition before it calls
 * host_wait_wake(). Returns 0, or -EINTR when host_signal_pending() became true first.
 */
int host_wait_sleep(struct host_wait *w, bool (*ready)(struct host_wait *w));
void host_wait_wake(struct host_wait *w);
/** The vCPU thread has work for its signal handler: KVM_RUN must return -EINTR. Cheap: polled in loops. */
bool host_signal_pending(void);
/**
 * Brackets KVM_RUN: a signal that arrives between the two makes host_signal_pending() true until host_run_end(), and
 * sets @bits in *@requests, which guest code polls. (In the kernel a signal interrupts guest code by itself.)
 */
void host_run_begin(u64 *requests, u64 bits);
/** Signals that arrived are delivered to the client when the ioctl returns, not here: no locks are held then. */
void host_run_end(void);
/** Between host_run_begin() and host_run_end(): the signal mask (bit n-1 for signal n) until then. */
void host_run_sigmask(u64 mask);
/** Makes the CPU that runs vCPU thread @thread leave guest code (kernel: an IPI; lite polls, so nothing to do). */
void host_thread_kick(u64 thread);
void host_cond_resched(void);
/** One turn of a loop that waits for another thread without a lock: spins in the first rounds, then yields, then naps. */
void host_backoff(unsigned round);

static inline void host_cpu_relax(void)
{
	__builtin_ia32_pause();
}

/* ---- the client's memory ----------------------------------------------------------------------------------- */

/* All take client addresses and never fault: 0 or -EFAULT. A failed copy may have written part of it. */
int host_copy_from_client(void *dst, u64 src, size_t len);
int host_copy_to_client(u64 dst, const void *src, size_t len);
/** Atomically: if *@hva == *@old then *@hva = *@new. @len is 1, 2, 4, 8 or 16, @hva aligned to it.
 *  Returns 0 when exchanged, 1 when not (@old then holds what was there), -EFAULT. */
int host_client_cmpxchg(u64 hva, void *old, const void *new, unsigned len);
/** Whether [@addr, @addr + @len) lies in the part of the address space that belongs to the client. */
bool host_client_range_ok(u64 addr, u64 len);

/* ---- files and eventfds ------------------------------------------------------------------------------------ */

/* An object behind a file descriptor; embedded in struct vm, struct vcpu, ... */
struct host_file_ops {
	const char *name; /* "kvm-vm" */
	/** As ioctl(2): >= 0 or -errno. @arg is a value or a client address. */
	long (*ioctl)(struct host_file *file, unsigned cmd, u64 arg);
	/** Which memory backs page @pgoff of the descriptor; NULL: SIGBUS/-EINVAL. *@index is the page in it. */
	struct host_shared *(*mmap)(struct host_file *file, u64 pgoff, u64 *index);
	/** As pread(2) to client memory. NULL: -EINVAL. */
	long (*read)(struct host_file *file, u64 dst, size_t len, u64 offset);
	/** What a plain read(2) or mmap(2) of the descriptor sees where the host has no other way to serve it. May be NULL. */
	struct host_shared *(*backing)(struct host_file *file);
	/** The last descriptor of @file is gone. */
	void (*release)(struct host_file *file);
};

struct host_file {
	const struct host_file_ops *ops;
};

/** A new descriptor of @file with close-on-exec. Owns nothing on failure: -EMFILE, -ENFILE, -ENOMEM. */
int host_file_install(struct host_file *file);

/* A reference to the client's eventfd. */
struct host_eventfd *host_eventfd_get(int fd, int *error); /* NULL and *error = -EBADF, -EINVAL */
void host_eventfd_put(struct host_eventfd *e);
void host_eventfd_signal(struct host_eventfd *e, u64 n);
/** Whether two references name the same eventfd. */
bool host_eventfd_same(const struct host_eventfd *a, const struct host_eventfd *b);
struct host_eventfd_listener {
	/** Runs in a service thread after @e was signalled; the count was consumed. No sleeping. */
	void (*fn)(struct host_eventfd_listener *l);
	struct host_eventfd_listener *next; /* the host's */
	struct host_eventfd *eventfd;	    /* the host's */
};
int host_eventfd_listen(struct host_eventfd *e, struct host_eventfd_listener *l);
/** When it returns, l->fn does not run and will not. */
void host_eventfd_unlisten(struct host_eventfd_listener *l);

/* ---- words ------------------------------------------------------------------------------------------------- */

enum host_log_level { HOST_LOG_ERROR, HOST_LOG_WARNING, HOST_LOG_INFO, HOST_LOG_DEBUG };
/** One line for the host's log, rate-limited. */
__attribute__((format(printf, 2, 3))) void host_log(enum host_log_level level, const char *fmt, ...);
/** As snprintf(3), integers and strings only. */
__attribute__((format(printf, 3, 4))) int host_snprintf(char *buf, size_t size, const char *fmt, ...);
/** The client's process id (statistics names). */
u32 host_client_pid(void);

#endif
