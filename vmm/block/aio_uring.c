/*
 * Disk I/O by io_uring: one ring an image, its descriptor polled by the event loop. A burst of
 * requests costs one system call (uring_kick), and so does a burst of completions.
 *
 * A host may have no io_uring, or forbid it (containers do): uring_open() says so and the pool
 * serves instead.
 */
#include "vmm/block/block_int.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#define URING_ENTRIES  128
#define URING_IOV_MAX  1024
#define URING_REAP_MAX 64

struct aio_uring {
	struct block_image *image;
	struct io_uring ring;
	struct loop_fd event;
	unsigned int in_flight;
	bool unsubmitted;
};

static void uring_reap(struct aio_uring *ring)
{
	struct io_uring_cqe *cqes[URING_REAP_MAX];
	struct {
		struct block_req *req;
		int result;
	} done[URING_REAP_MAX];
	unsigned int n, total = 0;

	/* The ring's slots are given back before done() can submit again. */
	while ((n = io_uring_peek_batch_cqe(&ring->ring, cqes, URING_REAP_MAX))) {
		for (unsigned int i = 0; i < n; i++) {
			done[i].req = io_uring_cqe_get_data(cqes[i]);
			done[i].result = cqes[i]->res;
		}
		io_uring_cq_advance(&ring->ring, n);
		ring->in_flight -= n;
		total += n;
		for (unsigned int i = 0; i < n; i++)
			block_step_done(done[i].req, done[i].result);
	}
	if (total)
		block_batch_done(ring->image);
}

static void uring_ready(struct loop_fd *event, u32 events)
{
	uring_reap(container_of(event, struct aio_uring, event));
}

struct aio_uring *uring_open(struct block_image *image, int *err)
{
	struct aio_uring *ring = calloc(1, sizeof(*ring));

	if (!ring) {
		*err = -ENOMEM;
		return NULL;
	}
	*err = io_uring_queue_init(URING_ENTRIES, &ring->ring, 0);
	if (*err < 0)
		goto fail;
	/* Without this a burst beyond the completion queue would lose results (Linux before 5.5).
	 */
	if (!(ring->ring.features & IORING_FEAT_NODROP)) {
		*err = -EOPNOTSUPP;
		goto fail_ring;
	}
	ring->event.fd = ring->ring.ring_fd;
	ring->event.events = EPOLLIN;
	ring->event.ready = uring_ready;
	ring->image = image;
	*err = loop_fd_add(image->loop, &ring->event);
	if (*err < 0)
		goto fail_ring;
	return ring;

fail_ring:
	io_uring_queue_exit(&ring->ring);
fail:
	free(ring);
	return NULL;
}

void uring_close(struct aio_uring *ring)
{
	if (!ring)
		return;
	loop_fd_del(ring->image->loop, &ring->event);
	io_uring_queue_exit(&ring->ring);
	free(ring);
}

void uring_submit(struct aio_uring *ring, struct block_req *req)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);
	unsigned int n = req->niov < URING_IOV_MAX ? req->niov : URING_IOV_MAX;
	u64 at = req->offset + req->progress;

	if (!sqe) {
		uring_kick(ring);
		sqe = io_uring_get_sqe(&ring->ring);
	}
	if (!sqe) {
		/* The kernel takes no more for now. */
		pool_submit(req);
		return;
	}
	switch (req->op) {
	case BLOCK_READ: io_uring_prep_readv(sqe, req->image->fd, req->iov, n, at); break;
	case BLOCK_WRITE: io_uring_prep_writev(sqe, req->image->fd, req->iov, n, at); break;
	default: io_uring_prep_fsync(sqe, req->image->fd, IORING_FSYNC_DATASYNC); break;
	}
	io_uring_sqe_set_data(sqe, req);
	ring->in_flight++;
	ring->unsubmitted = true;
}

void uring_kick(struct aio_uring *ring)
{
	int result;

	while (ring->unsubmitted && io_uring_sq_ready(&ring->ring)) {
		result = io_uring_submit(&ring->ring);
		if (result == -EAGAIN || result == -EBUSY) {
			/* Out of memory for now, or results are waiting to be taken: both pass. */
			io_uring_submit_and_wait(&ring->ring, 0);
			if (io_uring_sq_ready(&ring->ring))
				return;
		} else if (result < 0 && result != -EINTR) {
			return;
		}
	}
	ring->unsubmitted = false;
}

void uring_wait(struct aio_uring *ring)
{
	struct io_uring_cqe *cqe;

	uring_kick(ring);
	if (io_uring_wait_cqe(&ring->ring, &cqe) == 0)
		uring_reap(ring);
}

bool uring_busy(const struct aio_uring *ring)
{
	return ring->in_flight;
}
