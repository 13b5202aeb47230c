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

/** For tests: the how manieth allocation from now on fails; 0 and below: none does. */
extern int host_fail_alloc;
/** Asked by each allocation of the host's: whether it is the one. */
bool host_alloc_fails(void);
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
/** For what may be held for as long as a guest runs: 0, or -EINTR when the thread's process is to die first. */
int host_mutex_lock_killable(struct host_mutex *m);
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

/**
 * Nanoseconds, since it began, in which the calling thread could have run but others had the CPU. 0: the host does not say. Cheap; a
 * host where it is not may say what was true 4 ms ago.
 */
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
/** A small number, mostly another one in another thread that runs at the same time: where to look first for a place that is free. */
unsigned host_thread_hint(void);

void host_wait_init(struct host_wait *w);
void host_wait_destroy(struct host_wait *w);
/**
 * Sleeps until @ready(@w) holds. One thread at a time sleeps on @w. Wake-ups are never lost when the waker changes the condition before it calls
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
/** @masked: host_run_sigmask() was called. Signals that arrived are delivered to the client when the ioctl returns, not here: no locks
 *  are held then. */
void host_run_end(bool masked);
/** Between host_run_begin() and host_run_end(): the signal mask (bit n-1 for signal n) until then. */
void host_run_sigmask(u64 mask);
/** Something of the host's waits for this thread (another that wants the CPU, deferred work). Cheap: asked before each entry of guest code. */
bool host_work_pending(void);
/** Does it; may sleep, in no srcu section. 0, or what KVM_RUN returns at once: the host then does the rest and calls it again. */
int host_work(void);
void host_cond_resched(void);
/** As far as the host tells, nobody else wants this CPU: a thread may spin for a while rather than sleep. It may let others run to find out. */
bool host_may_spin(void);
/** One turn of a loop that waits for another thread without a lock: spins in the first rounds, then yields, then naps, where that can be. */
void host_backoff(unsigned round);

/*
 * A stay of the calling thread on some CPU with a vCPU's state loaded there: in() runs on the CPU at the beginning and whenever the
 * scheduler brings the thread back, out() whenever it takes the thread away and at the end. Neither sleeps, locks, or wakes anybody.
 * hosts/user, whose threads carry everything with them, calls them at the beginning and at the end.
 */
struct host_sched;
struct host_sched_ops {
	void (*in)(struct host_sched *s, unsigned cpu);
	void (*out)(struct host_sched *s);
};
void host_sched_init(struct host_sched *s, const struct host_sched_ops *ops);
void host_sched_begin(struct host_sched *s);
void host_sched_end(struct host_sched *s);
/** Any thread: makes the CPU that the thread is on leave guest code (kernel: an IPI; lite polls, so nothing to do). */
void host_sched_kick(struct host_sched *s);

static inline void host_cpu_relax(void)
{
	__builtin_ia32_pause();
}

/* ---- the client's memory ----------------------------------------------------------------------------------- */

/* All take client addresses and never fault: 0 or -EFAULT. A failed copy may have written part of it. */
int host_copy_from_client(void *dst, u64 src, size_t len);
int host_copy_to_client(u64 dst, const void *src, size_t len);
/** The same under a lock: what is not there at once is -EFAULT. Does not sleep. */
int host_copy_from_client_nosleep(void *dst, u64 src, size_t len);
/** Atomically: if *@hva == *@old then *@hva = *@new. @len is 1, 2, 4, 8 or 16, @hva aligned to it.
 *  Returns 0 when exchanged, 1 when not (@old then holds what was there), -EFAULT. */
int host_client_cmpxchg(u64 hva, void *old, const void *new, unsigned len);
/* The process whose memory a VM's is. No other process is it before the put. */
struct host_client *host_client_get(void);
void host_client_put(struct host_client *client);
/** Whether the calling thread belongs to it. */
bool host_client_is_mine(const struct host_client *client);
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
	/** From this page on only what is shared and not executable can be mapped, -EINVAL otherwise. 0: no such page. */
	u64 shared_from;
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
/** The client has closed its last descriptor of what is listened to: nothing will come. False where the host cannot tell. */
bool host_eventfd_gone(const struct host_eventfd *e);
struct host_eventfd_listener {
	/** Runs in a service thread or, in the kernel, in the one that signals, after it did; the count was consumed. No sleeping. */
	void (*fn)(struct host_eventfd_listener *l);
	struct host_eventfd_listener *next; /* the host's */
	struct host_eventfd *eventfd;	    /* the host's */
};
int host_eventfd_listen(struct host_eventfd *e, struct host_eventfd_listener *l);
/** When it returns, l->fn does not run and will not. */
void host_eventfd_unlisten(struct host_eventfd_listener *l);

/* ---- for engines that run guests on the hardware ------------------------------------------------------------- */

/*
 * Pages that the hardware reads (page tables, control blocks), charged to the client. hosts/user serves these too, with an
 * address of its own choice as the physical one, so that the tables are tested in a process.
 */
/** A zeroed page; NULL. May sleep. */
void *host_page_alloc(void);
/** The same below 4 GiB (hosts/user: anywhere): a table that CR3 points to outside of long mode. */
void *host_page_alloc_low(void);
void host_page_free(void *page);
/** Of such a page, or of a single one from host_zalloc_pages(). */
u64 host_page_phys(void *page);
/** @nr such pages that follow each other for the hardware too. Their physical address is the first one's. */
void *host_pages_alloc(unsigned nr);
void host_pages_free(void *pages, unsigned nr);
/** The inverse, for what host_page_alloc() gave. */
void *host_page_at(u64 phys);
/** A word of the owner's that goes with such a page, not in it: the hardware may still be reading that. At first anything. */
u64 *host_page_private(void *page);

/* Neither sleeps; taken from threads only, never from timers or eventfds. */
void host_rwlock_init(struct host_rwlock *l);
void host_rwlock_destroy(struct host_rwlock *l);
void host_read_lock(struct host_rwlock *l);
void host_read_unlock(struct host_rwlock *l);
void host_write_lock(struct host_rwlock *l);
void host_write_unlock(struct host_rwlock *l);

/* What stands behind one page of the client's address space at this moment. */
struct host_client_page {
	u64 phys;
	bool writable; /* may be mapped for writing; true for every get with @write */
	bool memory;   /* RAM (to be cached write-back), not a device's page */
	void *ref;     /* the host's */
};
/**
 * Brings @hva in as an access of the client would (swap, copy-on-write, ...). The page stays until host_client_page_put(); what maps it
 * beyond that asks a host_mm_watch whether it still stands there. May sleep. 0, -EFAULT (nothing mapped, or no right), -EHWPOISON,
 * -EINTR (a fatal signal), -ENOMEM. Without @write a page that is writable anyway says so.
 */
int host_client_page_get(u64 hva, bool write, struct host_client_page *page);
/** @dirty: it was, or may have been, written through the mapping made meanwhile. */
void host_client_page_put(struct host_client_page *page, bool dirty);
/** Log2 of the size of the host mapping that holds @hva: 12, 21 or 30; 12 when unknown. Does not sleep. Under the lock in which
 *  host_mm_watch_retry() said no. */
unsigned host_client_page_shift(u64 hva);

/*
 * Hears of changes to the client's address space before they happen. To map a client page: take host_mm_watch_seq(), get the page,
 * take the lock of the tables, and start over if host_mm_watch_retry(); else map.
 */
struct host_mm_watch;
struct host_mm_watch_ops {
	/** [@start, @end) is about to change: nothing may use a translation of it when this returns. Does not sleep. */
	void (*invalidate)(struct host_mm_watch *w, u64 start, u64 end);
	/** Was [@start, @end) accessed since the last call with @clear? Does not sleep. */
	bool (*age)(struct host_mm_watch *w, u64 start, u64 end, bool clear);
	/** The address space goes (the client was killed): every translation is dropped, now. */
	void (*gone)(struct host_mm_watch *w);
};
/** Watches the calling process. 0 or -errno. Pair with host_mm_watch_stop(). */
int host_mm_watch_start(struct host_mm_watch *w, const struct host_mm_watch_ops *ops);
void host_mm_watch_stop(struct host_mm_watch *w);
u64 host_mm_watch_seq(struct host_mm_watch *w);
/** Under a lock that invalidate() also takes: is @hva being changed, or was something since @seq? */
bool host_mm_watch_retry(struct host_mm_watch *w, u64 seq, u64 hva);
/** Whether the calling thread belongs to the process that is watched: only its memory is the VM's. */
bool host_mm_watch_mine(struct host_mm_watch *w);

/* Called when memory is short: gives back up to @nr pages, returns how many. Does not sleep. hosts/user never calls it. */
int host_shrinker_start(struct host_shrinker *s, const char *name, unsigned long (*count)(struct host_shrinker *s),
			unsigned long (*scan)(struct host_shrinker *s, unsigned long nr));
void host_shrinker_stop(struct host_shrinker *s);

/** Whether logical processors of the host may be threads of one core. */
bool host_smt_possible(void);

/* The processor below: hosts/kernel only. */

unsigned host_cpu(void);	 /* the one that runs this, preemption off */
unsigned host_nr_cpus(void);	 /* all numbers are below */
void host_preempt_off(void);
void host_preempt_on(void);
void host_irq_off(void);
void host_irq_on(void);
/** Runs @fn on @cpu, or on each CPU that is online, with interrupts off, and waits for it. */
void host_on_cpu(unsigned cpu, void (*fn)(void *arg), void *arg);
void host_on_each_cpu(void (*fn)(void *arg), void *arg);
/**
 * Something more important than guest code waits on this CPU (a signal, another thread, work). Interrupts off, and on again only after
 * guest code when the answer is no: then what host_fpu_in() loaded is in the registers, even if the host used them meanwhile.
 */
bool host_must_leave(void);
/** Takes the interrupts that made guest code exit: those held back by host_irq_off(). */
void host_take_irqs(void);
/** A machine check or an NMI that arrived in guest code is the host's: handles it as if it had arrived here. Interrupts off. */
void host_take_nmi(void);
void host_take_machine_check(void);

/** What runs from here on is not steered by branch predictions made before (hosts/user: its guests never are). */
void host_branch_barrier(void);
/** Right before guest code, interrupts off: takes from the processor's buffers and, where @nested tables let a guest reach them (L1TF), from its
 *  first cache what of the host's the guest could sample. */
void host_guest_enters(bool nested);
/** Right behind guest code, interrupts off: takes from the processor's predictors what the guest left there for the host to follow. */
void host_guest_left(void);
/** Sets and clears bits of CR4 on this CPU so that the host knows of it. Interrupts off. */
void host_cr4_change(u64 set, u64 clear);
/** The limit of the task register is 0x67 now: the host loads its own before it needs the I/O bitmap behind that. Preemption off. */
void host_task_limit_spoilt(void);

/** RDMSR and WRMSR that report #GP: 0 or -EIO. */
int host_rdmsr(u32 msr, u64 *value);
int host_wrmsr(u32 msr, u64 value);

/* The guest's x87 to AVX-512 state, swapped with the thread's own by the host, which also keeps it across its scheduler. */
struct host_fpu *host_fpu_alloc(void);
void host_fpu_free(struct host_fpu *fpu);
/** In: the guest's registers are in the CPU until host_fpu_out(). Preemption may be on. */
void host_fpu_in(struct host_fpu *fpu);
void host_fpu_out(struct host_fpu *fpu);
/**
 * To and from an image in the standard format (SDM 1 13.4) of @size bytes, which has room for what XSTATE_BV names. The guest's is not in
 * the CPU of another thread. 0, -EINVAL.
 * The host keeps PKRU apart, for its own accesses obey it: in() and out() leave it alone, here it goes in and out of the image.
 */
void host_fpu_save(struct host_fpu *fpu, void *image, u32 size, u32 pkru);
int host_fpu_load(struct host_fpu *fpu, const void *image, u32 size, u32 *pkru);

/* ---- events, for who watches a machine from outside ------------------------------------------------------------------ */

/* How the hardware put it: SVM's exit code and exit information, VMX's exit reason and qualification. */
struct host_exit {
	u32 isa; /* what follows is of: */
#define HOST_ISA_VMX 1
#define HOST_ISA_SVM 2
	u32 reason;
	u64 info1, info2;
	u32 intr_info, error_code; /* of the event that was being delivered */
};
/* @flags of the event emulate_insn: the mode of the instruction */
#define HOST_INSN_PE   1 /* CR0.PE */
#define HOST_INSN_VM   2 /* RFLAGS.VM */
#define HOST_INSN_CS_D 4
#define HOST_INSN_CS_L 8
/*
 * Linux's events kvm_NAME, with the same arguments. Cheap: nobody listens most of the time. hosts/user has nobody who could.
 * X(name, (parameters), (their names))
 */
#define HOST_EVENTS(X)													\
	X(entry, (u32 vcpu, u64 rip), (vcpu, rip))									\
	X(exit, (u32 vcpu, u64 rip, const struct host_exit *exit), (vcpu, rip, exit))					\
	X(userspace_exit, (u32 reason, int error), (reason, error))							\
	X(vcpu_wakeup, (u64 ns, bool waited, bool valid), (ns, waited, valid))						\
	X(halt_poll_ns, (u32 vcpu, u32 now, u32 before), (vcpu, now, before))						\
	X(pio, (bool write, u16 port, u32 size, u32 count, const void *data), (write, port, size, count, data))		\
	X(mmio, (bool write, u64 gpa, u32 len, const void *data), (write, gpa, len, data))				\
	X(emulate_insn, (u64 rip, u32 cs_base, const u8 *insn, u8 len, u8 flags, bool failed), (rip, cs_base, insn, len, flags, failed)) \
	X(msr, (bool write, u32 index, u64 value, bool fault), (write, index, value, fault))				\
	X(cpuid, (u32 function, u32 index, const u32 *regs, bool found, bool used_max_basic), (function, index, regs, found, used_max_basic)) \
	X(cr, (bool write, u32 cr, u64 value), (write, cr, value))							\
	X(page_fault, (u32 vcpu, u64 rip, u64 address, u64 error), (vcpu, rip, address, error))				\
	X(pml_full, (u32 vcpu), (vcpu))											\
	X(fpu, (bool load), (load))											\
	X(inj_virq, (u8 vector, bool soft, bool again), (vector, soft, again))						\
	X(inj_exception, (u8 vector, bool has_error, u32 error, bool again), (vector, has_error, error, again))		\
	X(smm_transition, (u32 vcpu, u64 smbase, bool entering), (vcpu, smbase, entering))				\
	X(hypercall, (u64 nr, u64 a0, u64 a1, u64 a2, u64 a3), (nr, a0, a1, a2, a3))					\
	X(apic, (bool write, u32 reg, u64 value), (write, reg, value))							\
	X(apic_ipi, (u32 icr_low, u32 dest), (icr_low, dest))								\
	X(apic_accept_irq, (u32 apic_id, u8 mode, bool level, u8 vector), (apic_id, mode, level, vector))		\
	X(eoi, (u32 apic_id, u8 vector), (apic_id, vector))								\
	X(set_irq, (u32 gsi, int level, int source), (gsi, level, source))						\
	X(pic_set_irq, (u8 chip, u8 pin, u8 elcr, u8 imr, bool coalesced), (chip, pin, elcr, imr, coalesced))		\
	X(ioapic_set_irq, (u64 redirection, u32 pin, bool coalesced), (redirection, pin, coalesced))			\
	X(msi_set_irq, (u64 address, u64 data), (address, data))							\
	X(ack_irq, (u32 chip, u32 pin), (chip, pin))									\
	X(dirty_ring_push, (u32 vcpu, u32 dirty, u32 reset, u32 slot, u64 offset), (vcpu, dirty, reset, slot, offset))	\
	X(dirty_ring_reset, (u32 vcpu, u32 dirty, u32 reset), (vcpu, dirty, reset))					\
	X(dirty_ring_exit, (u32 vcpu), (vcpu))										\
	X(write_tsc_offset, (u32 vcpu, u64 before, u64 now), (vcpu, before, now))					\
	X(hv_hypercall, (u16 code, bool fast, u16 var, u16 count, u16 start, u64 in, u64 out), (code, fast, var, count, start, in, out)) \
	X(hv_hypercall_done, (u64 result), (result))									\
	X(hv_send_ipi, (u32 vector, u64 mask), (vector, mask))								\
	X(hv_send_ipi_ex, (u32 vector, u64 format, u64 banks), (vector, format, banks))					\
	X(hv_flush_tlb, (u64 mask, u64 space, u64 flags), (mask, space, flags))						\
	X(hv_flush_tlb_ex, (u64 banks, u64 format, u64 space, u64 flags), (banks, format, space, flags))		\
	X(hv_synic_set_irq, (u32 vcpu, u32 sint, int vector, int result), (vcpu, sint, vector, result))			\
	X(hv_synic_send_eoi, (u32 vcpu, int vector), (vcpu, vector))							\
	X(hv_notify_acked_sint, (u32 vcpu, u32 sint), (vcpu, sint))							\
	X(hv_synic_set_msr, (u32 vcpu, u32 msr, u64 data, bool host), (vcpu, msr, data, host))				\
	X(hv_stimer_set_config, (u32 vcpu, u32 timer, u64 config, bool host), (vcpu, timer, config, host))		\
	X(hv_stimer_set_count, (u32 vcpu, u32 timer, u64 count, bool host), (vcpu, timer, count, host))			\
	X(hv_stimer_expiration, (u32 vcpu, u32 timer, bool direct, int result), (vcpu, timer, direct, result))
#define X(name, parameters, names) void host_event_##name parameters;
HOST_EVENTS(X)
#undef X

/**
 * Shows the numbers in @area, which has the format of KVM_GET_STATS_FD, to who looks from outside: a directory @name in @parent's, or in
 * that of all VMs. NULL when that cannot be. hosts/user has trine-stat for it, which reads the memory of the process.
 */
struct host_stats_dir *host_stats_show(struct host_stats_dir *parent, const char *name, struct host_shared *area);
/** With all that is below. @dir may be NULL. When it returns nobody reads @area for it. */
void host_stats_hide(struct host_stats_dir *dir);

/* ---- words ------------------------------------------------------------------------------------------------- */

enum host_log_level { HOST_LOG_ERROR, HOST_LOG_WARNING, HOST_LOG_INFO, HOST_LOG_DEBUG };
/** One line for the host's log, rate-limited. */
__attribute__((format(printf, 2, 3))) void host_log(enum host_log_level level, const char *fmt, ...);
/** Text for the trace that the user asked for (guest code, exits), newlines included: all of it, unlike the log. One call, one piece. */
void host_trace(const char *text, size_t len);
/** As snprintf(3), integers and strings only. */
__attribute__((format(printf, 3, 4))) int host_snprintf(char *buf, size_t size, const char *fmt, ...);
__attribute__((format(printf, 3, 0))) int host_vsnprintf(char *buf, size_t size, const char *fmt, va_list ap);
/** The client's process id (statistics names). */
u32 host_client_pid(void);

#endif
