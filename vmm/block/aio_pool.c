/*
 * The I/O threads: they run what io_uring cannot (or everything, on a host without io_uring) by
 * ordinary system calls, and hand the results back to the event loop through an eventfd.
 *
 * Threads are started as they are needed, up to POOL_THREADS, and shared by all images.
 */
#include "vmm/block/block_int.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define POOL_THREADS 16

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work;	 /* todo is not empty */
	pthread_cond_t finished; /* some image's pool_done is not empty */
	struct block_req *todo, **todo_tail;
	unsigned int threads, idle;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .work = PTHREAD_COND_INITIALIZER,
	   .finished = PTHREAD_COND_INITIALIZER,
	   .todo_tail = &pool.todo };

static void pool_push_done(struct block_req *req)
{
	static const u64 one = 1;
	struct block_image *image = req->image;

	req->next = NULL;
	pthread_mutex_lock(&pool.lock);
	/* One wake-up serves everything that is finished until the loop comes to it. */
	if (!image->pool_done) {
		while (write(image->event.fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	}
	*image->pool_done_tail = req;
	image->pool_done_tail = &req->next;
	/* Once this lock is released the image may go. */
	pthread_cond_broadcast(&pool.finished);
	pthread_mutex_unlock(&pool.lock);
}

static void *pool_thread(void *unused)
{
	pthread_mutex_lock(&pool.lock);
	for (;;) {
		struct block_req *req = pool.todo;

		if (!req) {
			pool.idle++;
			pthread_cond_wait(&pool.work, &pool.lock);
			pool.idle--;
			continue;
		}
		pool.todo = req->next;
		if (!pool.todo)
			pool.todo_tail = &pool.todo;
		pthread_mutex_unlock(&pool.lock);
		req->result = block_run(req);
		pool_push_done(req);
		pthread_mutex_lock(&pool.lock);
	}
	return NULL;
}

/* Signals are the main thread's. A thread that cannot be had is done without while there is one. */
static int pool_add_thread(void)
{
	sigset_t all, old;
	pthread_t thread;
	int result;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	result = pthread_create(&thread, NULL, pool_thread, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (result)
		return -result;
	pthread_detach(thread);
	pool.threads++;
	return 0;
}

static void pool_reap(struct block_image *image)
{
	struct block_req *req;
	bool any;

	pthread_mutex_lock(&pool.lock);
	req = image->pool_done;
	image->pool_done = NULL;
	image->pool_done_tail = &image->pool_done;
	pthread_mutex_unlock(&pool.lock);
	any = req;
	while (req) {
		struct block_req *next = req->next;

		image->pool_busy--;
		block_pool_done(req);
		req = next;
	}
	if (any)
		block_batch_done(image);
}

static void pool_ready(struct loop_fd *event, u32 events)
{
	u64 count;

	if (read(event->fd, &count, sizeof(count)) < 0)
		return;
	pool_reap(container_of(event, struct block_image, event));
}

int pool_open(struct block_image *image)
{
	int result = 0;

	image->pool_done = NULL;
	image->pool_done_tail = &image->pool_done;
	image->event.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (image->event.fd < 0)
		return -errno;
	image->event.events = EPOLLIN;
	image->event.ready = pool_ready;
	pthread_mutex_lock(&pool.lock);
	if (!pool.threads)
		result = pool_add_thread();
	pthread_mutex_unlock(&pool.lock);
	if (!result)
		result = loop_fd_add(image->loop, &image->event);
	if (result < 0) {
		close(image->event.fd);
		image->event.fd = -1;
	}
	return result;
}

void pool_close(struct block_image *image)
{
	if (image->event.fd < 0)
		return;
	loop_fd_del(image->loop, &image->event);
	close(image->event.fd);
}

void pool_submit(struct block_req *req)
{
	req->image->pool_busy++;
	if (req->result) {
		pool_push_done(req);
		return;
	}
	req->next = NULL;
	pthread_mutex_lock(&pool.lock);
	*pool.todo_tail = req;
	pool.todo_tail = &req->next;
	if (!pool.idle && pool.threads < POOL_THREADS)
		pool_add_thread();
	pthread_cond_signal(&pool.work);
	pthread_mutex_unlock(&pool.lock);
}

void pool_wait(struct block_image *image)
{
	pthread_mutex_lock(&pool.lock);
	while (!image->pool_done)
		pthread_cond_wait(&pool.finished, &pool.lock);
	pthread_mutex_unlock(&pool.lock);
	pool_reap(image);
}
