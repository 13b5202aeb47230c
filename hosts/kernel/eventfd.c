/*
 * Eventfds. A listener stands in the eventfd's own wait queue and is called when the client writes, with that queue's lock held:
 * it takes what was counted and passes it on at once. When the last descriptor is closed it leaves the queue.
 */
#include "hosts/kernel/linux.h"
#include "hosts/kernel/compat.h"

#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/poll.h>
#include <linux/wait.h>

struct host_eventfd {
	struct eventfd_ctx *ctx;
	int fd; /* what the client called it; looked up again, and compared, to listen */
	bool gone;
	struct host_eventfd_listener *listener;
	wait_queue_entry_t entry;
	poll_table poll;
};

struct host_eventfd *host_eventfd_get(int fd, int *error)
{
	struct host_eventfd *e = host_alloc_fails() ? NULL : kzalloc(sizeof(*e), GFP_KERNEL_ACCOUNT);

	*error = -ENOMEM;
	if (!e)
		return NULL;
	e->fd = fd;
	e->ctx = eventfd_ctx_fdget(fd);
	if (IS_ERR(e->ctx)) {
		*error = PTR_ERR(e->ctx);
		kfree(e);
		return NULL;
	}
	*error = 0;
	return e;
}

void host_eventfd_put(struct host_eventfd *e)
{
	eventfd_ctx_put(e->ctx);
	kfree(e);
}

void host_eventfd_signal(struct host_eventfd *e, u64 n)
{
	compat_eventfd_signal(e->ctx, n);
}

bool host_eventfd_same(const struct host_eventfd *a, const struct host_eventfd *b)
{
	return a->ctx == b->ctx;
}

bool host_eventfd_gone(const struct host_eventfd *e)
{
	return READ_ONCE(e->gone);
}

static int woken(wait_queue_entry_t *entry, unsigned mode, int sync, void *key)
{
	struct host_eventfd *e = container_of(entry, struct host_eventfd, entry);
	__poll_t events = key_to_poll(key);
	int taken = 0;
	u64 count;

	if (events & EPOLLIN) {
		eventfd_ctx_do_read(e->ctx, &count);
		e->listener->fn(e->listener);
		taken = 1; /* nobody else has to wake for it */
	}
	if (events & EPOLLHUP)
		WRITE_ONCE(e->gone, true);
	return taken;
}

static void enqueue(struct file *filp, wait_queue_head_t *queue, poll_table *poll)
{
	add_wait_queue_priority(queue, &container_of(poll, struct host_eventfd, poll)->entry);
}

int host_eventfd_listen(struct host_eventfd *e, struct host_eventfd_listener *l)
{
	struct file *file = eventfd_fget(e->fd);
	struct eventfd_ctx *ctx;
	bool same;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ctx = eventfd_ctx_fileget(file);
	same = ctx == e->ctx;
	if (!IS_ERR(ctx))
		eventfd_ctx_put(ctx);
	if (!same) {
		fput(file);
		return -EBADF; /* closed meanwhile, and the number used again */
	}
	l->eventfd = e;
	e->listener = l;
	init_waitqueue_func_entry(&e->entry, woken);
	init_poll_funcptr(&e->poll, enqueue);
	/* What was signalled before is due now. */
	if (vfs_poll(file, &e->poll) & EPOLLIN) {
		unsigned long flags;

		local_irq_save(flags);
		l->fn(l);
		local_irq_restore(flags);
	}
	fput(file);
	return 0;
}

void host_eventfd_unlisten(struct host_eventfd_listener *l)
{
	u64 count;

	eventfd_ctx_remove_wait_queue(l->eventfd->ctx, &l->eventfd->entry, &count);
}
