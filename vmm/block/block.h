/*
 * Disk images: opening, locking, and asynchronous reads, writes, flushes, discards and zeroing.
 *
 * A device fills a struct block_req, submits it and is told by its done() in the event loop's
 *thread. Nothing here blocks on the disk except block_open(), block_drain() and block_close().
 *
 *	struct block_options opt = BLOCK_OPTIONS_DEFAULT;
 *	opt.filename = "disk.img";
 *	if (block_open(&img, &m->loop, &opt, err) < 0) ...
 *	req->op = BLOCK_READ; req->offset = 0; req->bytes = 4096; req->iov = &iov; req->niov = 1;
 *	req->done = my_done;
 *	block_submit(img, req);
 *	block_kick(img);
 *
 * A request may be in flight with any other; the guest orders what it wants ordered by waiting, and
 *a flush covers the writes that were completed before it was submitted (virtio 1.2 §5.2.6.2).
 *
 * Everything here is called with the machine lock held (vmm/bus.h), done() as well.
 */
#ifndef VMM_BLOCK_BLOCK_H
#define VMM_BLOCK_BLOCK_H

#include "vmm/util.h"
#include <sys/uio.h>

struct loop;

#define BLOCK_SECTOR_SIZE 512

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,
	BLOCK_DISCARD, /* the range's contents may be lost */
	BLOCK_ZEROES,  /* the range reads as zeroes afterwards */
};

/* What the host's page cache does for us, by QEMU's names. */
enum block_cache {
	BLOCK_CACHE_WRITEBACK,	  /* page cache, a flush reaches the disk */
	BLOCK_CACHE_NONE,	  /* no page cache, a flush reaches the disk */
	BLOCK_CACHE_WRITETHROUGH, /* page cache, every write reaches the disk */
	BLOCK_CACHE_DIRECTSYNC,	  /* no page cache, every write reaches the disk */
	BLOCK_CACHE_UNSAFE,	  /* page cache, flushes are ignored */
};

enum block_aio {
	BLOCK_AIO_AUTO,	    /* io_uring, threads where the host has none */
	BLOCK_AIO_IO_URING, /* io_uring or an error */
	BLOCK_AIO_THREADS,
};

struct block_options {
	const char *filename;
	enum block_cache cache;
	enum block_aio aio;
	bool read_only;
	bool auto_read_only; /* fall back to read-only where writing is not permitted */
	bool discard;	     /* discards release the host's space; otherwise they do nothing */
	bool no_lock;
};

#define BLOCK_OPTIONS_DEFAULT                  \
	{                                      \
		.cache = BLOCK_CACHE_WRITEBACK \
	}

struct block_image;

/* Whoever uses an image: told when a batch of requests has been finished, to interrupt its guest
 * once for all. */
struct block_user {
	void (*batch_end)(struct block_user *user);
};

struct block_req {
	enum block_op op;
	bool may_unmap; /* BLOCK_ZEROES: the range may be deallocated */
	u64 offset;	/* bytes from the image's beginning */
	u64 bytes;
	struct iovec *iov; /* reads and writes; altered as a partial transfer is continued */
	unsigned int niov;
	/* 0 or -errno. The request is the caller's again. */
	void (*done)(struct block_req *req, int error);

	/* block's own, from submit to done */
	struct block_image *image;
	struct block_req *next;
	u64 progress; /* bytes already transferred */
	int result;
	bool bounced;
};

/**
 * Opens and locks an image; @loop runs the done() of its requests.
 * Returns 0, or a negative errno with the text set ("disk.img: No such file or directory").
 */
int block_open(struct block_image **image, struct loop *loop, const struct block_options *opt,
	       struct error *err);

/** Who is told of batches; NULL: nobody (any more). */
void block_set_user(struct block_image *image, struct block_user *user);

/** Waits for what is in flight, unlocks and closes. */
void block_close(struct block_image *image);

/** Submits; done() is called later, never from within. Out-of-range requests fail with -EINVAL. */
void block_submit(struct block_image *image, struct block_req *req);

/** Hands what was submitted since the last call to the host in one go. Must follow every batch of
 * submits. */
void block_kick(struct block_image *image);

/** Returns when nothing is in flight; runs the done() of what was. */
void block_drain(struct block_image *image);

/** The image's size in bytes as the guest sees it: a multiple of 512. */
u64 block_size(const struct block_image *image);

bool block_read_only(const struct block_image *image);
bool block_can_discard(const struct block_image *image);

/** True when a write is only safe after a flush (the guest is told of a write cache). */
bool block_write_cache(const struct block_image *image);

/** The smallest unit that the host reads and writes without copying, in bytes (512 or 4096). */
unsigned int block_alignment(const struct block_image *image);

const char *block_filename(const struct block_image *image);

/** "io_uring" or "threads". */
const char *block_aio_name(const struct block_image *image);

/* The names of the options above; -EINVAL where the name is unknown. */
int block_parse_cache(const char *name, enum block_cache *cache);
int block_parse_aio(const char *name, enum block_aio *aio);

#endif
