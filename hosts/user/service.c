/*
 * The service thread: one a process, started when the first timer is armed or the first eventfd is listened to. It waits in
 * epoll for one timerfd, set to the earliest deadline, and for the client's eventfds. It runs callbacks without the lock.
 * All signals but those of faults are blocked in it. A forked child has no such thread and no timers: it starts over.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

#include "hosts/user/signals.h"
#include "hosts/user/sys.h"
#include "hosts/user/vectors.h"

struct host_eventfd {
	int fd;
	u64 id; /* the kernel's number for the object behind it */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t idle; /* a callback has returned */
	bool started, failed;
	pthread_t thread;
	int epoll, timerfd;
	u64 armed_ns; /* what the timerfd is set to, 0: nothing */
	struct host_timer *timers; /* by deadline */
	struct host_timer *running_timer;
	struct host_eventfd_listener *listeners, *running_listener;
} service = { .lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER };

/* ---- timers, under service.lock ----------------------------------------------------------------------------- */

static void set_timerfd(u64 deadline_ns)
{
	struct itimerspec when = { .it_value = { .tv_sec = (time_t)(deadline_ns / 1000000000),
						 .tv_nsec = (long)(deadline_ns % 1000000000) } };

	/* A moment that no time_t reaches never comes. */
	if (deadline_ns > INT64_MAX)
		when.it_value = (struct timespec){ .tv_sec = INT64_MAX / 1000000000 };
	service.armed_ns = deadline_ns;
	timerfd_settime(service.timerfd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void unlink_timer(struct host_timer *t)
{
	*t->pprev = t->next;
	if (t->next)
		t->next->pprev = t->pprev;
	t->next = NULL;
	t->pprev = NULL;
	t->deadline_ns = 0;
}

static void link_timer(struct host_timer *t, u64 deadline_ns)
{
	struct host_timer **p = &service.timers;

	while (*p && (*p)->deadline_ns <= deadline_ns)
		p = &(*p)->next;
	t->deadline_ns = deadline_ns;
	t->next = *p;
	t->pprev = p;
	*p = t;
	if (t->next)
		t->next->pprev = &t->next;
}

/* Called and returns with the lock held. */
static void run_timers(void)
{
	u64 now = host_now_ns();

	/* One moment for all: a timer that re-arms itself for the past must not keep the eventfds waiting. */
	service.armed_ns = 0;
	while (service.timers && service.timers->deadline_ns <= now) {
		struct host_timer *t = service.timers;

		unlink_timer(t);
		t->running = true;
		service.running_timer = t;
		pthread_mutex_unlock(&service.lock);
		t->fn(t);
		pthread_mutex_lock(&service.lock);
		/* A canceller that waits may free it as soon as it hears of this. */
		t->running = false;
		service.running_timer = NULL;
		pthread_cond_broadcast(&service.idle);
	}
	if (service.timers && service.armed_ns != service.timers->deadline_ns)
		set_timerfd(service.timers->deadline_ns);
}

/* ---- eventfds ------------------------------------------------------------------------------------------------ */

/* The client may have left its eventfd in blocking mode and may read it too. */
static bool consume(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	u64 count;
	struct iovec iov = { .iov_base = &count, .iov_len = sizeof(count) };
	ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

	if (n < 0 && (errno == EOPNOTSUPP || errno == EINVAL) && poll(&p, 1, 0) == 1)
		n = read(fd, &count, sizeof(count));
	return n == sizeof(count);
}

/* Called and returns with the lock held. @l may be gone: it is only compared until it is found. */
static void run_listener(struct host_eventfd_listener *l)
{
	struct host_eventfd_listener *known;

	for (known = service.listeners; known && known != l; known = known->next)
		;
	if (!known || !consume(l->eventfd->fd))
		return;
	service.running_listener = l;
	pthread_mutex_unlock(&service.lock);
	l->fn(l);
	pthread_mutex_lock(&service.lock);
	service.running_listener = NULL;
	pthread_cond_broadcast(&service.idle);
}

/* ---- the thread ---------------------------------------------------------------------------------------------- */

static void *serve(void *unused)
{
	struct epoll_event events[16];

	(void)unused;
	pthread_setname_np(pthread_self(), "trine-service");
	for (;;) {
		int i, n = epoll_wait(service.epoll, events, ARRAY_SIZE(events), -1);

		if (n < 0 && errno != EINTR)
			return NULL;
		pthread_mutex_lock(&service.lock);
		for (i = 0; i < n; i++) {
			u64 expirations;

			if (events[i].data.ptr) {
				run_listener(events[i].data.ptr);
				continue;
			}
			if (read(service.timerfd, &expirations, sizeof(expirations)) < 0)
				expirations = 0; /* set anew meanwhile */
			run_timers();
		}
		pthread_mutex_unlock(&service.lock);
	}
}

static void start_over_in_child(void)
{
	if (service.started) {
		host_fd_close_hidden(service.epoll);
		host_fd_close_hidden(service.timerfd);
	}
	memset(&service, 0, sizeof(service));
	pthread_mutex_init(&service.lock, NULL);
	pthread_cond_init(&service.idle, NULL);
}

static void watch_fork(void)
{
	pthread_atfork(NULL, NULL, start_over_in_child);
}

static int start_thread(void)
{
	HOST_KEEP_VECTORS;
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct epoll_event event = { .events = EPOLLIN };
	u64 all = ~SYS_FAULT_SIGNALS, old;
	pthread_attr_t attr;
	int error;

	pthread_once(&once, watch_fork);
	service.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (service.epoll < 0)
		return -errno;
	service.timerfd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (service.timerfd < 0) {
		error = -errno;
		goto close_epoll;
	}
	service.epoll = host_fd_hide(service.epoll);
	service.timerfd = host_fd_hide(service.timerfd);
	if (epoll_ctl(service.epoll, EPOLL_CTL_ADD, service.timerfd, &event)) {
		error = -errno;
		goto close_timerfd;
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 512 << 10);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sys_sigmask(SIG_SETMASK, &all, &old);
	error = -pthread_create(&service.thread, &attr, serve, NULL);
	sys_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (error)
		goto close_timerfd;
	service.started = true;
	return 0;

close_timerfd:
	host_fd_close_hidden(service.timerfd);
close_epoll:
	host_fd_close_hidden(service.epoll);
	return error;
}

/* Under the lock. 0 or -errno. */
static int start(void)
{
	return likely(service.started) ? 0 : start_thread();
}

static bool on_service_thread(void)
{
	return service.started && pthread_equal(pthread_self(), service.thread);
}

void host_timer_init(struct host_timer *t, void (*fn)(struct host_timer *t))
{
	memset(t, 0, sizeof(*t));
	t->fn = fn;
}

void host_timer_start(struct host_timer *t, u64 deadline_ns)
{
	int error;

	pthread_mutex_lock(&service.lock);
	if (t->pprev)
		unlink_timer(t);
	error = start();
	if (!error) {
		link_timer(t, deadline_ns ? deadline_ns : 1);
		/* run_timers() sets the timerfd itself when it is done */
		if (service.timers == t && (!service.armed_ns || service.armed_ns > t->deadline_ns))
			set_timerfd(t->deadline_ns);
	} else if (!service.failed) {
		service.failed = true;
		host_log(HOST_LOG_ERROR, "trine: timers do not work: the service thread did not start (error %d)", error);
	}
	pthread_mutex_unlock(&service.lock);
}

void host_timer_cancel(struct host_timer *t)
{
	pthread_mutex_lock(&service.lock);
	for (;;) {
		if (t->pprev)
			unlink_timer(t);
		if (service.running_timer != t || on_service_thread())
			break;
		pthread_cond_wait(&service.idle, &service.lock);
	}
	pthread_mutex_unlock(&service.lock);
}

/* ---- eventfds as core sees them -------------------------------------------------------------------------------- */

/* The number that the kernel gives an eventfd: the same for all its descriptors. 0: not known. */
static u64 eventfd_id(int fd)
{
	char path[64], line[128];
	unsigned long long id = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "eventfd-id: %llu", &id) == 1)
			break;
	fclose(f);
	return id;
}

/* Without /proc the client is trusted. */
static bool is_eventfd(int fd)
{
	char path[64], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return true;
	target[n] = 0;
	return strstr(target, "[eventfd]");
}

struct host_eventfd *host_eventfd_get(int fd, int *error)
{
	struct host_eventfd *e;

	if (sys_fcntl(fd, F_GETFD, 0) < 0) {
		*error = -EBADF;
		return NULL;
	}
	if (!is_eventfd(fd)) {
		*error = -EINVAL;
		return NULL;
	}
	e = host_alloc_fails() ? NULL : calloc(1, sizeof(*e));
	if (!e) {
		*error = -ENOMEM;
		return NULL;
	}
	e->fd = sys_fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (e->fd < 0) {
		*error = -errno;
		free(e);
		return NULL;
	}
	e->fd = host_fd_hide(e->fd);
	e->id = eventfd_id(fd);
	*error = 0;
	return e;
}

void host_eventfd_put(struct host_eventfd *e)
{
	if (!e)
		return;
	host_fd_close_hidden(e->fd);
	free(e);
}

void host_eventfd_signal(struct host_eventfd *e, u64 n)
{
	/* A full counter is signalled already. */
	while (write(e->fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
}

bool host_eventfd_same(const struct host_eventfd *a, const struct host_eventfd *b)
{
	if (a == b)
		return true;
	if (a->id || b->id)
		return a->id == b->id;
	/* KCMP_FILE is 0 */
	return syscall(SYS_kcmp, getpid(), getpid(), 0, a->fd, b->fd) == 0;
}

bool host_eventfd_gone(const struct host_eventfd *e)
{
	(void)e; /* our own duplicate keeps it open */
	return false;
}

int host_eventfd_listen(struct host_eventfd *e, struct host_eventfd_listener *l)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = l };
	int error;

	pthread_mutex_lock(&service.lock);
	error = start();
	if (!error && epoll_ctl(service.epoll, EPOLL_CTL_ADD, e->fd, &event))
		error = -errno;
	if (!error) {
		l->eventfd = e;
		l->next = service.listeners;
		service.listeners = l;
	}
	pthread_mutex_unlock(&service.lock);
	return error;
}

void host_eventfd_unlisten(struct host_eventfd_listener *l)
{
	struct host_eventfd_listener **p;

	pthread_mutex_lock(&service.lock);
	for (p = &service.listeners; *p; p = &(*p)->next) {
		if (*p == l) {
			*p = l->next;
			epoll_ctl(service.epoll, EPOLL_CTL_DEL, l->eventfd->fd, NULL);
			break;
		}
	}
	while (service.running_listener == l && !on_service_thread())
		pthread_cond_wait(&service.idle, &service.lock);
	pthread_mutex_unlock(&service.lock);
}
