/*
 * The main loop: one epoll set, one thread, in which everything that is not a vCPU or a data plane
 * happens.
 *
 *	static void beeper_expired(struct loop_timer *t)
 *	{
 *		struct beeper *b = container_of(t, struct beeper, timer);
 *		...
 *		loop_timer_set(t, t->deadline + NS_PER_SEC);
 *	}
 *	loop_timer_init(&b->timer, &m->loop, LOOP_CLOCK_VM, beeper_expired);
 *	loop_timer_set(&b->timer, loop_now(&m->loop, LOOP_CLOCK_VM) + NS_PER_SEC);
 *
 * Callbacks run with the machine lock held and may add, change or remove anything, themselves
 * included. Functions here want the machine lock, except the three that say that any thread may
 * call them without it.
 */
#ifndef VMM_MAINLOOP_H
#define VMM_MAINLOOP_H

#include "vmm/util.h"
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

enum loop_clock {
	LOOP_CLOCK_HOST, /* CLOCK_MONOTONIC */
	LOOP_CLOCK_VM,	 /* the same, standing still while the machine is stopped; starts at 0 */
	LOOP_CLOCKS,
};

struct loop_fd {
	int fd;
	u32 events; /* EPOLLIN | EPOLLOUT ..., level-triggered; 0: only errors and hang-ups */
	void (*ready)(struct loop_fd *f, u32 events);
	bool added;
	bool always; /* a regular file: epoll does not take it, it is always ready */
	struct list link;
};

struct loop_timer {
	struct loop *loop;
	enum loop_clock clock;
	s64 deadline; /* ns of its clock */
	void (*expired)(struct loop_timer *t);
	bool armed;
	struct list link;
};

/* Work to be done soon in the main loop, once however often it was scheduled. */
struct loop_bh {
	struct loop *loop;
	void (*run)(struct loop_bh *bh);
	bool scheduled;
	struct list link;
};

/*
 * For libraries that bring their own poll: prepare before each wait (may shorten *timeout, ns, -1:
 * forever), check after.
 */
struct loop_hook {
	void (*prepare)(struct loop_hook *h, s64 *timeout);
	void (*check)(struct loop_hook *h);
	struct list link;
};

struct loop {
	int epoll_fd;
	struct loop_fd wake; /* an eventfd */
	struct list fds, timers[LOOP_CLOCKS], hooks;
	u64 generation; /* changes when a loop_fd goes, so that stale events are dropped */
	pthread_mutex_t bh_lock;
	struct list bhs;
	pthread_mutex_t *lock; /* the machine lock */
	bool vm_running;
	s64 vm_offset; /* running: host = vm + offset; stopped: the VM's time */
	bool busy; /* the last wait was short */
	bool waiting; /* (machine lock) by what the prepare hooks said last */
	bool quit;
};

int loop_init(struct loop *loop, pthread_mutex_t *lock, struct error *err);
void loop_destroy(struct loop *loop);

/** Watches f->fd for f->events. 0 or -errno. */
int loop_fd_add(struct loop *loop, struct loop_fd *f);
/** Changes the events waited for. */
void loop_fd_events(struct loop *loop, struct loop_fd *f, u32 events);
/** Stops watching; before the descriptor is closed. Not added: nothing happens. */
void loop_fd_del(struct loop *loop, struct loop_fd *f);

/** Now, in ns, by @clock. Any thread, without lock. */
s64 loop_now(struct loop *loop, enum loop_clock clock);
void loop_timer_init(struct loop_timer *t, struct loop *loop, enum loop_clock clock,
		     void (*expired)(struct loop_timer *t));
/** Arms (or moves) @t to expire at @deadline, ns of its clock; it expires once. */
void loop_timer_set(struct loop_timer *t, s64 deadline);
void loop_timer_cancel(struct loop_timer *t);

void loop_bh_init(struct loop_bh *bh, struct loop *loop, void (*run)(struct loop_bh *bh));
/** Any thread, without lock. */
void loop_bh_schedule(struct loop_bh *bh);
void loop_bh_cancel(struct loop_bh *bh);

void loop_hook_add(struct loop *loop, struct loop_hook *h);
void loop_hook_del(struct loop *loop, struct loop_hook *h);

/** Starts or stops LOOP_CLOCK_VM. */
void loop_clock_run(struct loop *loop, bool run);

/**
 * One round: waits (if @wait) for something and does it. Called without the machine lock, which it
 * takes itself.
 */
void loop_step(struct loop *loop, bool wait);
/** Rounds until loop_quit(). Called without the machine lock. */
void loop_run(struct loop *loop);
/** Ends loop_run() after the present round. Any thread, without lock. */
void loop_quit(struct loop *loop);
/** Makes a waiting loop go round once more. Any thread, without lock. */
void loop_wake(struct loop *loop);
/** The same if it waits by what prepare hooks said before now. Any thread, machine lock held. */
void loop_renew(struct loop *loop);

#endif
