/*
 * What the parts of vmm/block share: the image, and the two ways of doing I/O (aio_uring.c,
 * aio_pool.c).
 */
#ifndef VMM_BLOCK_BLOCK_INT_H
#define VMM_BLOCK_BLOCK_INT_H

#include "vmm/block/block.h"
#include "vmm/mainloop.h"

struct aio_uring;

struct block_image {
	char *filename;	 /* (i) */
	int fd;		 /* (i) */
	int buffered_fd; /* (i) with O_DIRECT: for requests that are not aligned; otherwise fd */
	u64 size;	 /* (i) multiple of 512 */
	u64 file_size;	 /* bytes that exist in the file; grows to size when the tail is written */
	unsigned int alignment;	    /* (i) of offsets and lengths */
	unsigned int mem_alignment; /* (i) of buffers; 1 without O_DIRECT */
	enum block_cache cache;	    /* (i) */
	bool read_only;		    /* (i) */
	bool discard;		    /* (i) */
	bool is_device;		    /* (i) a block device, not a file */
	bool no_zero_range;	    /* (a) the file system has no FALLOC_FL_ZERO_RANGE */
	bool no_punch_hole;	    /* (a) ... no FALLOC_FL_PUNCH_HOLE */

	struct loop *loop;	 /* (i) */
	struct block_user *user; /* machine lock */
	struct aio_uring *uring; /* (i) NULL: the thread pool */
	struct loop_fd event;	 /* an eventfd: the pool has finished something */
	struct block_req *pool_done, **pool_done_tail; /* the pool's lock */
	unsigned int pool_busy;			       /* requests that the pool has */
	unsigned int in_flight;			       /* machine lock, as below */
	/* A request that must run alone runs alone; those behind it wait here, in order. */
	struct block_req *serial;
	struct block_req *held, **held_tail;
};

/** Takes a finished step of a request: continues it when it is partial, else calls its done(). */
void block_step_done(struct block_req *req, int result);

/** Several requests have been finished. */
void block_batch_done(struct block_image *image);

/** Ends a request that the pool has run (its result is final). */
void block_pool_done(struct block_req *req);

/* The thread pool, shared by all images: it runs block_run() of any request. */
int pool_open(struct block_image *image);
void pool_close(struct block_image *image);
/** A request whose result is set already is only reported. */
void pool_submit(struct block_req *req);
/** Waits until something of @image has been finished, and finishes it. pool_busy must not be 0. */
void pool_wait(struct block_image *image);

/** Does one request with ordinary system calls. Called without locks, by any thread. 0 or -errno.
 */
int block_run(struct block_req *req);

/* io_uring, one ring an image. */
struct aio_uring *uring_open(struct block_image *image, int *err);
void uring_close(struct aio_uring *ring);
/** Queues a read, write or flush. */
void uring_submit(struct aio_uring *ring, struct block_req *req);
void uring_kick(struct aio_uring *ring);
void uring_wait(struct aio_uring *ring);
bool uring_busy(const struct aio_uring *ring);

#endif
