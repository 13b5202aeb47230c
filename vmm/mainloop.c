/*
 * The main loop: descriptors by epoll, timers by the wait's timeout, bottom halves by an eventfd.
 */
#include "vmm/mainloop.h"
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 32

/*
 * To wake a thread takes tens of microseconds, and who does it for a doorbell is a vCPU, perhaps with a lock of its guest's.
 * So while things happen at short intervals the loop looks for the next one before it sleeps. It stops looking when that
 * has kept others from the processor.
 */
#define POLL_NS	     50000
#define POLL_SHARED_NS 20000 /* between two looks, somebody else ran */

static void drain_wake(struct loop_fd *f, u32 events)
{
	u64 count;

	if (read(f->fd, &count, sizeof(count)) < 0)
		return; /* another round has drained it */
}

int loop_init(struct loop *loop, pthread_mutex_t *lock, struct error *err)
{
	unsigned i;
	int e;

	*loop = (struct loop){ .lock = lock, .epoll_fd = -1 };
	list_init(&loop->fds);
	list_init(&loop->hooks);
	list_init(&loop->bhs);
	for (i = 0; i < LOOP_CLOCKS; i++)
		list_init(&loop->timers[i]);
	pthread_mutex_init(&loop->bh_lock, NULL);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		return error_set(err, -errno, "epoll_create1: %s", strerror(errno));
	loop->wake = (struct loop_fd){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
				       .events = EPOLLIN,
				       .ready = drain_wake };
	if (loop->wake.fd < 0 || loop_fd_add(loop, &loop->wake) < 0) {
		e = errno;
		loop_destroy(loop);
		return error_set(err, -e, "eventfd: %s", strerror(e));
	}
	return 0;
}

void loop_destroy(struct loop *loop)
{
	if (loop->epoll_fd < 0)
		return;
	if (loop->wake.fd >= 0)
		close(loop->wake.fd);
	close(loop->epoll_fd);
	loop->epoll_fd = -1;
	pthread_mutex_destroy(&loop->bh_lock);
}

int loop_fd_add(struct loop *loop, struct loop_fd *f)
{
	struct epoll_event ev = { .events = f->events, .data.ptr = f };

	f->always = false;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, f->fd, &ev) < 0) {
		if (errno != EPERM)
			return -errno;
		f->always = true;
	}
	f->added = true;
	list_add_tail(&loop->fds, &f->link);
	return 0;
}

void loop_fd_events(struct loop *loop, struct loop_fd *f, u32 events)
{
	struct epoll_event ev = { .events = events, .data.ptr = f };

	if (!f->added || f->events == events) {
		f->events = events;
		return;
	}
	f->events = events;
	if (!f->always)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, f->fd, &ev);
}

void loop_fd_del(struct loop *loop, struct loop_fd *f)
{
	if (!f->added)
		return;
	if (!f->always)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, f->fd, NULL);
	list_del(&f->link);
	f->added = false;
	loop->generation++;
}

/*
 * The VM's clock is read by any thread while the main loop starts and stops it. The pair (running,
 * offset) is one 64-bit word for that: the offset's lowest bit says whether it runs, which costs a
 * nanosecond.
 */
s64 loop_now(struct loop *loop, enum loop_clock clock)
{
	s64 word;

	if (clock == LOOP_CLOCK_HOST)
		return now_ns();
	word = __atomic_load_n(&loop->vm_offset, __ATOMIC_ACQUIRE);
	return word & 1 ? now_ns() - (word & ~1ll) : word & ~1ll;
}

void loop_clock_run(struct loop *loop, bool run)
{
	s64 now = loop_now(loop, LOOP_CLOCK_VM);

	if (run == loop->vm_running)
		return;
	loop->vm_running = run;
	__atomic_store_n(&loop->vm_offset, run ? ((now_ns() - now) & ~1ll) | 1 : now & ~1ll,
			 __ATOMIC_RELEASE);
	loop_wake(loop);
}

void loop_timer_init(struct loop_timer *t, struct loop *loop, enum loop_clock clock,
		     void (*expired)(struct loop_timer *t))
{
	*t = (struct loop_timer){ .loop = loop, .clock = clock, .expired = expired };
	list_init(&t->link);
}

void loop_timer_set(struct loop_timer *t, s64 deadline)
{
	struct list *head = &t->loop->timers[t->clock], *pos;

	loop_timer_cancel(t);
	t->deadline = deadline;
	t->armed = true;
	list_for_each (pos, head)
		if (list_entry(pos, struct loop_timer, link)->deadline > deadline)
			break;
	list_add_tail(pos, &t->link);
	/* The waiting loop may be about to sleep longer than this. */
	if (head->next == &t->link)
		loop_renew(t->loop);
}

void loop_timer_cancel(struct loop_timer *t)
{
	if (!t->armed)
		return;
	t->armed = false;
	list_del(&t->link);
}

void loop_bh_init(struct loop_bh *bh, struct loop *loop, void (*run)(struct loop_bh *bh))
{
	*bh = (struct loop_bh){ .loop = loop, .run = run };
	list_init(&bh->link);
}

void loop_bh_schedule(struct loop_bh *bh)
{
	struct loop *loop = bh->loop;
	bool first = false;

	pthread_mutex_lock(&loop->bh_lock);
	if (!bh->scheduled) {
		bh->scheduled = true;
		list_add_tail(&loop->bhs, &bh->link);
		first = true;
	}
	pthread_mutex_unlock(&loop->bh_lock);
	if (first)
		loop_wake(loop);
}

void loop_bh_cancel(struct loop_bh *bh)
{
	if (!bh->loop)
		return;
	pthread_mutex_lock(&bh->loop->bh_lock);
	if (bh->scheduled) {
		bh->scheduled = false;
		list_del(&bh->link);
	}
	pthread_mutex_unlock(&bh->loop->bh_lock);
}

void loop_hook_add(struct loop *loop, struct loop_hook *h)
{
	list_add_tail(&loop->hooks, &h->link);
}

void loop_hook_del(struct loop *loop, struct loop_hook *h)
{
	list_del(&h->link);
}

void loop_wake(struct loop *loop)
{
	u64 one = 1;

	if (write(loop->wake.fd, &one, sizeof(one)) < 0)
		return; /* full: it is awake anyway */
}

void loop_renew(struct loop *loop)
{
	if (loop->waiting)
		loop_wake(loop);
}

void loop_quit(struct loop *loop)
{
	__atomic_store_n(&loop->quit, true, __ATOMIC_RELEASE);
	loop_wake(loop);
}

/* How long to wait, in ns; -1 is for ever. */
static s64 timeout_of(struct loop *loop)
{
	s64 timeout = -1, left;
	struct list *pos;
	unsigned i;

	for (i = 0; i < LOOP_CLOCKS; i++) {
		if (list_empty(&loop->timers[i]) || (i == LOOP_CLOCK_VM && !loop->vm_running))
			continue;
		left = list_entry(loop->timers[i].next, struct loop_timer, link)->deadline -
		       loop_now(loop, i);
		left = MAX(left, 0);
		if (timeout < 0 || left < timeout)
			timeout = left;
	}
	list_for_each (pos, &loop->fds) {
		struct loop_fd *f = list_entry(pos, struct loop_fd, link);

		if (f->always && f->events)
			timeout = 0;
	}
	pthread_mutex_lock(&loop->bh_lock);
	if (!list_empty(&loop->bhs))
		timeout = 0;
	pthread_mutex_unlock(&loop->bh_lock);
	return timeout;
}

static void run_timers(struct loop *loop)
{
	struct loop_timer *t;
	unsigned i;
	s64 now;

	for (i = 0; i < LOOP_CLOCKS; i++) {
		if (i == LOOP_CLOCK_VM && !loop->vm_running)
			continue;
		/* One reading: a timer that re-arms itself in the past waits for the next round. */
		now = loop_now(loop, i);
		while (!list_empty(&loop->timers[i])) {
			t = list_entry(loop->timers[i].next, struct loop_timer, link);
			if (t->deadline > now)
				break;
			loop_timer_cancel(t);
			t->expired(t);
			if (i == LOOP_CLOCK_VM && !loop->vm_running)
				break;
		}
	}
}

static void run_bhs(struct loop *loop)
{
	struct list todo;
	struct loop_bh *bh;

	list_init(&todo);
	pthread_mutex_lock(&loop->bh_lock);
	/* What a bottom half schedules is for the next round. */
	if (!list_empty(&loop->bhs)) {
		todo = loop->bhs;
		todo.next->prev = todo.prev->next = &todo;
		list_init(&loop->bhs);
	}
	while (!list_empty(&todo)) {
		bh = list_entry(todo.next, struct loop_bh, link);
		list_del(&bh->link);
		bh->scheduled = false;
		pthread_mutex_unlock(&loop->bh_lock);
		bh->run(bh);
		pthread_mutex_lock(&loop->bh_lock);
	}
	pthread_mutex_unlock(&loop->bh_lock);
}

static bool still_there(struct loop *loop, const struct loop_fd *f)
{
	struct list *pos;

	list_for_each (pos, &loop->fds)
		if (list_entry(pos, struct loop_fd, link) == f)
			return true;
	return false;
}

static void run_fds(struct loop *loop, struct epoll_event *events, int count)
{
	u64 generation = loop->generation;
	struct list *pos, *next;
	struct loop_fd *f;
	u32 ready;
	int i;

	for (i = 0; i < count; i++) {
		f = events[i].data.ptr;
		if (generation != loop->generation && !still_there(loop, f))
			continue;
		ready = events[i].events & (f->events | EPOLLERR | EPOLLHUP);
		if (ready)
			f->ready(f, ready);
	}
	list_for_each_safe (pos, next, &loop->fds) {
		f = list_entry(pos, struct loop_fd, link);
		generation = loop->generation;
		if (f->always && f->events)
			f->ready(f, f->events);
		if (generation != loop->generation)
			break; /* next may be gone; the rest are ready in the next round too */
	}
}

/* epoll_pwait2() for @timeout ns, -1: forever; looking first if the last waits were short. */
static int wait_for(struct loop *loop, struct epoll_event *events, s64 timeout)
{
	struct timespec ts = { .tv_sec = timeout / NS_PER_SEC, .tv_nsec = timeout % NS_PER_SEC };
	s64 start = now_ns(), last, now = start;
	int n = 0;

	if (loop->busy && (timeout < 0 || timeout > POLL_NS)) {
		do {
			last = now;
			n = epoll_wait(loop->epoll_fd, events, EVENTS_AT_ONCE, 0);
			if (n)
				return n;
			sched_yield();
			now = now_ns();
		} while (now - last < POLL_SHARED_NS && now - start < POLL_NS);
	}
	n = epoll_pwait2(loop->epoll_fd, events, EVENTS_AT_ONCE, timeout < 0 ? NULL : &ts, NULL);
	loop->busy = now_ns() - start < 2 * POLL_NS;
	return n;
}

void loop_step(struct loop *loop, bool wait)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	struct list *pos, *next;
	s64 timeout;
	int n;

	pthread_mutex_lock(loop->lock);
	timeout = timeout_of(loop);
	list_for_each_safe (pos, next, &loop->hooks)
		list_entry(pos, struct loop_hook, link)
			->prepare(list_entry(pos, struct loop_hook, link), &timeout);
	loop->waiting = true;
	pthread_mutex_unlock(loop->lock);
	if (!wait)
		timeout = 0;
	n = wait_for(loop, events, timeout);

	pthread_mutex_lock(loop->lock);
	loop->waiting = false;
	run_fds(loop, events, MAX(n, 0));
	list_for_each_safe (pos, next, &loop->hooks)
		list_entry(pos, struct loop_hook, link)
			->check(list_entry(pos, struct loop_hook, link));
	run_timers(loop);
	run_bhs(loop);
	pthread_mutex_unlock(loop->lock);
}

void loop_run(struct loop *loop)
{
	while (!__atomic_load_n(&loop->quit, __ATOMIC_ACQUIRE))
		loop_step(loop, true);
}
