/*
 * Disk images, the part that decides: opening and checking, locking, and where each request goes
 * (io_uring or the thread pool, alone or beside others). See block.h for the interface.
 *
 * With O_DIRECT the host wants offsets, lengths and buffers aligned. A buffer that is not is
 * bounced by a pool thread. An offset or length that is not goes through the page cache by a second
 * descriptor, and runs alone: Linux keeps the page cache and direct I/O coherent only for requests
 * that do not overlap in time.
 */
#include "vmm/block/block_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Alignments that a disk may ask for; the first one that a direct read accepts is taken. */
static const unsigned int direct_alignments[] = { 512, 4096, 65536 };

static const struct {
	const char *name;
	enum block_cache cache;
} cache_names[] = {
	{ "writeback", BLOCK_CACHE_WRITEBACK },
	{ "none", BLOCK_CACHE_NONE },
	{ "off", BLOCK_CACHE_NONE },
	{ "writethrough", BLOCK_CACHE_WRITETHROUGH },
	{ "directsync", BLOCK_CACHE_DIRECTSYNC },
	{ "unsafe", BLOCK_CACHE_UNSAFE },
};

int block_parse_cache(const char *name, enum block_cache *cache)
{
	for (size_t i = 0; i < sizeof(cache_names) / sizeof(cache_names[0]); i++) {
		if (!strcmp(name, cache_names[i].name)) {
			*cache = cache_names[i].cache;
			return 0;
		}
	}
	return -EINVAL;
}

int block_parse_aio(const char *name, enum block_aio *aio)
{
	if (!strcmp(name, "threads"))
		*aio = BLOCK_AIO_THREADS;
	else if (!strcmp(name, "io_uring"))
		*aio = BLOCK_AIO_IO_URING;
	else if (!strcmp(name, "native")) /* asynchronous in the kernel, however that is done */
		*aio = BLOCK_AIO_AUTO;
	else
		return -EINVAL;
	return 0;
}

static bool cache_is_direct(enum block_cache cache)
{
	return cache == BLOCK_CACHE_NONE || cache == BLOCK_CACHE_DIRECTSYNC;
}

static bool cache_is_sync(enum block_cache cache)
{
	return cache == BLOCK_CACHE_WRITETHROUGH || cache == BLOCK_CACHE_DIRECTSYNC;
}

/* A writer excludes everybody, readers share; the lock goes with the open file, however the process
 * ends. */
static int image_lock(int fd, bool read_only)
{
	struct flock lock = { .l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	/* A file system without locks cannot be asked; refusing its images would help nobody. */
	return errno == EAGAIN || errno == EACCES ? -EAGAIN : 0;
}

static int image_probe_alignment(struct block_image *image)
{
	void *buffer = aligned_alloc(65536, 65536);
	int result = -EINVAL;

	if (!buffer)
		return -ENOMEM;
	for (size_t i = 0; i < sizeof(direct_alignments) / sizeof(direct_alignments[0]); i++) {
		if (pread(image->fd, buffer, direct_alignments[i], 0) >= 0) {
			image->alignment = direct_alignments[i];
			image->mem_alignment = direct_alignments[i];
			result = 0;
			break;
		}
		if (errno != EINVAL) {
			result = -errno;
			break;
		}
	}
	free(buffer);
	return result;
}

/* The type and size of what was opened. */
static int image_measure(struct block_image *image, struct error *err)
{
	struct stat st;
	u64 size = 0;

	if (fstat(image->fd, &st) < 0)
		goto fail;
	if (S_ISBLK(st.st_mode)) {
		image->is_device = true;
		if (ioctl(image->fd, BLKGETSIZE64, &size) < 0)
			goto fail;
	} else {
		size = st.st_size;
	}
	if (!size) {
		return error_set(err, -EINVAL, "%s: the image is empty", image->filename);
	}
	image->file_size = size;
	/* A guest counts in sectors: the tail of an odd-sized image reads as zeroes beyond the
	 * file's end. */
	image->size = (size + BLOCK_SECTOR_SIZE - 1) & ~(u64)(BLOCK_SECTOR_SIZE - 1);
	return 0;
fail:
	return error_set(err, -errno, "%s: %s", image->filename, strerror(errno));
}

static int image_open_file(struct block_image *image, const struct block_options *opt,
			   struct error *err)
{
	int flags = O_CLOEXEC | O_NOCTTY | (cache_is_sync(opt->cache) ? O_DSYNC : 0);
	int direct = cache_is_direct(opt->cache) ? O_DIRECT : 0;
	struct stat st;
	int result = 0;

	/* Looked at before it is opened: opening a FIFO would wait, opening a device may do things.
	 */
	if (stat(opt->filename, &st) < 0) {
		return error_set(err, -errno, "%s: %s", opt->filename, strerror(errno));
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		return error_set(err, -EINVAL, "%s: %s, not a disk image", opt->filename,
				 S_ISDIR(st.st_mode) ? "a directory"
						     : "neither a file nor a block device");
	}
	image->fd = open(opt->filename, flags | direct | (image->read_only ? O_RDONLY : O_RDWR));
	if (image->fd < 0 && !image->read_only && opt->auto_read_only &&
	    (errno == EACCES || errno == EROFS || errno == EPERM)) {
		image->read_only = true;
		image->fd = open(opt->filename, flags | direct | O_RDONLY);
	}
	if (image->fd < 0) {
		result = -errno;
		if (errno == EINVAL && direct)
			error_set(err, result,
				  "%s: its file system has no O_DIRECT: use cache=writeback",
				  opt->filename);
		else
			error_set(err, result, "%s: %s%s", opt->filename, strerror(errno),
				  errno == EACCES && !image->read_only ? " (readonly=on needs less)"
								       : "");
		return result;
	}
	image->buffered_fd = image->fd;
	if (direct) {
		image->buffered_fd =
			open(opt->filename, flags | (image->read_only ? O_RDONLY : O_RDWR));
		if (image->buffered_fd < 0) {
			return error_set(err, -errno, "%s: %s", opt->filename, strerror(errno));
		}
	}
	return 0;
}

int block_open(struct block_image **out, struct loop *loop, const struct block_options *opt,
	       struct error *err)
{
	struct block_image *image = calloc(1, sizeof(*image));
	int result;

	if (!image || !(image->filename = strdup(opt->filename))) {
		free(image);
		return error_set(err, -ENOMEM, "%s: out of memory", opt->filename);
	}
	image->loop = loop;
	image->event.fd = -1;
	image->fd = image->buffered_fd = -1;
	image->cache = opt->cache;
	image->read_only = opt->read_only;
	image->discard = opt->discard;
	image->held_tail = &image->held;
	image->alignment = BLOCK_SECTOR_SIZE;
	image->mem_alignment = 1;

	result = image_open_file(image, opt, err);
	if (result < 0)
		goto fail;
	if (!opt->no_lock && image_lock(image->fd, image->read_only) < 0) {
		error_set(err, result, "%s: the image is in use by another drive or program%s",
			  opt->filename,
			  image->read_only ? "" : " (readers may share it by readonly=on)");
		result = -EAGAIN;
		goto fail;
	}
	result = image_measure(image, err);
	if (result < 0)
		goto fail;
	if (cache_is_direct(opt->cache)) {
		result = image_probe_alignment(image);
		if (result < 0) {
			error_set(err, result, "%s: cannot be read with O_DIRECT: %s",
				  opt->filename, strerror(-result));
			goto fail;
		}
	}
	if (opt->aio != BLOCK_AIO_THREADS) {
		image->uring = uring_open(image, &result);
		if (!image->uring && opt->aio == BLOCK_AIO_IO_URING) {
			error_set(err, result, "%s: aio=io_uring: %s on this host: use aio=threads",
				  opt->filename, strerror(-result));
			goto fail;
		}
	}
	result = pool_open(image);
	if (result < 0) {
		error_set(err, result, "%s: no I/O threads: %s", opt->filename, strerror(-result));
		goto fail;
	}
	/* A file-size limit is a full disk for the guest, not the monitor's end. */
	signal(SIGXFSZ, SIG_IGN);
	*out = image;
	return 0;

fail:
	pool_close(image);
	uring_close(image->uring);
	if (image->buffered_fd >= 0 && image->buffered_fd != image->fd)
		close(image->buffered_fd);
	if (image->fd >= 0)
		close(image->fd);
	free(image->filename);
	free(image);
	return result;
}

void block_close(struct block_image *image)
{
	if (!image)
		return;
	block_drain(image);
	pool_close(image);
	uring_close(image->uring);
	if (image->buffered_fd != image->fd)
		close(image->buffered_fd);
	close(image->fd);
	free(image->filename);
	free(image);
}

/* Must no other request be in flight beside this one? */
static bool req_is_serial(const struct block_image *image, const struct block_req *req)
{
	return image->fd != image->buffered_fd && req->op != BLOCK_FLUSH &&
	       req->op != BLOCK_DISCARD && ((req->offset | req->bytes) & (image->alignment - 1));
}

static bool req_is_bounced(const struct block_image *image, const struct block_req *req)
{
	if (image->mem_alignment == 1 || (req->op != BLOCK_READ && req->op != BLOCK_WRITE))
		return false;
	for (unsigned int i = 0; i < req->niov; i++) {
		if (((uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len) &
		    (image->mem_alignment - 1))
			return true;
	}
	return false;
}

static void image_dispatch(struct block_image *image, struct block_req *req)
{
	image->in_flight++;
	req->bounced = req_is_bounced(image, req);
	if (req_is_serial(image, req))
		image->serial = req;
	if (image->uring && !image->serial && !req->bounced &&
	    (req->op == BLOCK_READ || req->op == BLOCK_WRITE ||
	     (req->op == BLOCK_FLUSH && image->cache != BLOCK_CACHE_UNSAFE)))
		uring_submit(image->uring, req);
	else
		pool_submit(req);
}

static void image_run_held(struct block_image *image)
{
	while (image->held && !image->serial) {
		struct block_req *req = image->held;

		if (req_is_serial(image, req) && image->in_flight)
			return;
		image->held = req->next;
		if (!image->held)
			image->held_tail = &image->held;
		image_dispatch(image, req);
	}
}

static void req_finish(struct block_req *req, int error)
{
	struct block_image *image = req->image;

	image->in_flight--;
	if (image->serial == req)
		image->serial = NULL;
	if (!error && req->op == BLOCK_WRITE && req->offset + req->bytes > image->file_size)
		image->file_size = req->offset + req->bytes;
	req->done(req, error);
	if (image->held) {
		image_run_held(image);
		block_kick(image);
	}
}

void block_submit(struct block_image *image, struct block_req *req)
{
	req->image = image;
	req->progress = 0;
	req->result = 0;
	req->next = NULL;
	if (req->op == BLOCK_FLUSH)
		req->offset = req->bytes = 0;
	/* pool_submit() reports such a request from the event loop, where done() belongs. */
	if (req->bytes > image->size || req->offset > image->size - req->bytes)
		req->result = -EINVAL;
	else if (image->read_only && req->op != BLOCK_READ && req->op != BLOCK_FLUSH)
		req->result = -EROFS;
	if (req->result) {
		image->in_flight++;
		pool_submit(req);
		return;
	}
	if (image->serial || image->held || (req_is_serial(image, req) && image->in_flight)) {
		*image->held_tail = req;
		image->held_tail = &req->next;
		return;
	}
	image_dispatch(image, req);
}

void block_kick(struct block_image *image)
{
	if (image->uring)
		uring_kick(image->uring);
}

void block_drain(struct block_image *image)
{
	block_kick(image);
	while (image->in_flight) {
		if (image->uring && uring_busy(image->uring))
			uring_wait(image->uring);
		else
			pool_wait(image);
	}
}

static void iov_advance(struct block_req *req, u64 bytes)
{
	while (bytes && req->niov) {
		size_t n = req->iov->iov_len < bytes ? req->iov->iov_len : bytes;

		req->iov->iov_base = (char *)req->iov->iov_base + n;
		req->iov->iov_len -= n;
		bytes -= n;
		if (!req->iov->iov_len) {
			req->iov++;
			req->niov--;
		}
	}
}

static void iov_zero(struct block_req *req)
{
	for (unsigned int i = 0; i < req->niov; i++)
		memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
}

/* @result is what a read or write returned: bytes or -errno. Returns 1 when there is more to do,
 * else 0 or -errno. */
static int req_account(struct block_req *req, int result)
{
	if (result == -EINTR || result == -EAGAIN)
		return 1;
	if (result < 0)
		return result;
	if (result == 0) {
		if (req->op == BLOCK_WRITE)
			return -ENOSPC;
		/* Beyond the file's end: the tail of the last sector, or someone has truncated the
		 * file. */
		iov_zero(req);
		return 0;
	}
	req->progress += result;
	if (req->progress >= req->bytes)
		return 0;
	iov_advance(req, result);
	return 1;
}

void block_step_done(struct block_req *req, int result)
{
	struct block_image *image = req->image;

	if (req->op == BLOCK_READ || req->op == BLOCK_WRITE) {
		result = req_account(req, result);
		if (result > 0) {
			/* O_DIRECT cannot continue in the middle of a unit, the pool thread can. */
			if (image->mem_alignment > 1)
				pool_submit(req);
			else
				uring_submit(image->uring, req);
			block_kick(image);
			return;
		}
	}
	req_finish(req, result);
}

void block_set_user(struct block_image *image, struct block_user *user)
{
	image->user = user;
}

void block_batch_done(struct block_image *image)
{
	if (image->user)
		image->user->batch_end(image->user);
}

void block_pool_done(struct block_req *req)
{
	req_finish(req, req->result);
}

u64 block_size(const struct block_image *image)
{
	return image->size;
}

bool block_read_only(const struct block_image *image)
{
	return image->read_only;
}

bool block_can_discard(const struct block_image *image)
{
	return image->discard && !image->read_only;
}

bool block_write_cache(const struct block_image *image)
{
	return !cache_is_sync(image->cache);
}

unsigned int block_alignment(const struct block_image *image)
{
	return image->alignment;
}

const char *block_filename(const struct block_image *image)
{
	return image->filename;
}

const char *block_aio_name(const struct block_image *image)
{
	return image->uring ? "io_uring" : "threads";
}

/* ---- what a pool thread does ---------------------------------------------------------------- */

#define ZERO_CHUNK   65536
#define BOUNCE_CHUNK (1u << 20)
#define IOV_MAX_CALL 1024

static const char zeroes[ZERO_CHUNK] __attribute__((aligned(65536)));

static int run_transfer(struct block_req *req, int fd)
{
	int result;

	do {
		int n = req->niov < IOV_MAX_CALL ? req->niov : IOV_MAX_CALL;
		off_t at = req->offset + req->progress;
		ssize_t got = req->op == BLOCK_READ ? preadv(fd, req->iov, n, at)
						    : pwritev(fd, req->iov, n, at);

		result = req_account(req, got < 0 ? -errno : (int)got);
	} while (result > 0);
	return result;
}

/* Copies @bytes between a flat buffer and the request's remaining segments, without advancing them.
 */
static void iov_copy(struct block_req *req, char *flat, size_t bytes, bool to_iov)
{
	for (unsigned int i = 0; i < req->niov && bytes; i++) {
		size_t n = req->iov[i].iov_len < bytes ? req->iov[i].iov_len : bytes;

		if (to_iov)
			memcpy(req->iov[i].iov_base, flat, n);
		else
			memcpy(flat, req->iov[i].iov_base, n);
		flat += n;
		bytes -= n;
	}
}

static int run_bounced(struct block_req *req)
{
	struct block_image *image = req->image;
	char *buffer = aligned_alloc(65536, BOUNCE_CHUNK);
	int result = 1;

	if (!buffer)
		return -ENOMEM;
	/* A request that io_uring has cut short may stand in the middle of a unit: that part is
	 * redone. */
	while (result > 0) {
		u64 at = req->offset + req->progress;
		unsigned int skip = at & (image->mem_alignment - 1);
		u64 left = req->bytes - req->progress;
		size_t bytes = left < BOUNCE_CHUNK - 65536 ? left : BOUNCE_CHUNK - 65536;
		ssize_t got;

		if (skip && req->op == BLOCK_WRITE) {
			iov_copy(req, buffer, bytes, false);
			got = pwrite(image->buffered_fd, buffer, bytes, at);
		} else if (req->op == BLOCK_WRITE) {
			iov_copy(req, buffer, bytes, false);
			got = pwrite(image->fd, buffer, bytes, at);
		} else {
			got = pread(image->fd, buffer, bytes + skip, at - skip);
			got = got < 0 ? got : got <= skip ? 0 : got - skip;
			if (got > (ssize_t)bytes)
				got = bytes;
			if (got > 0)
				iov_copy(req, buffer + skip, got, true);
		}
		result = req_account(req, got < 0 ? -errno : (int)got);
	}
	free(buffer);
	return result;
}

static int run_fallocate(struct block_req *req, int mode, bool *unsupported)
{
	struct block_image *image = req->image;

	if (__atomic_load_n(unsupported, __ATOMIC_RELAXED))
		return -EOPNOTSUPP;
	while (fallocate(image->fd, mode, req->offset, req->bytes) < 0) {
		if (errno == EINTR)
			continue;
		if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV || errno == EINVAL) {
			__atomic_store_n(unsupported, true, __ATOMIC_RELAXED);
			return -EOPNOTSUPP;
		}
		return -errno;
	}
	return 0;
}

static int run_write_zeroes(struct block_req *req)
{
	struct block_image *image = req->image;
	bool aligned = !((req->offset | req->bytes) & (image->alignment - 1));
	int fd = aligned ? image->fd : image->buffered_fd;

	while (req->progress < req->bytes) {
		u64 left = req->bytes - req->progress;
		ssize_t got = pwrite(fd, zeroes, left < ZERO_CHUNK ? left : ZERO_CHUNK,
				     req->offset + req->progress);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -ENOSPC;
		req->progress += got;
	}
	return 0;
}

static int run_zeroes(struct block_req *req)
{
	struct block_image *image = req->image;
	int result = -EOPNOTSUPP;

	if (req->may_unmap && image->discard)
		result = run_fallocate(req, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       &image->no_punch_hole);
	if (result == -EOPNOTSUPP)
		result = run_fallocate(req, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				       &image->no_zero_range);
	if (result == -EOPNOTSUPP)
		result = run_write_zeroes(req);
	return result;
}

static int run_discard(struct block_req *req)
{
	struct block_image *image = req->image;
	int result;

	if (!image->discard)
		return 0;
	if (image->is_device) {
		u64 range[2] = { req->offset, req->bytes };

		result = ioctl(image->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	} else {
		result = run_fallocate(req, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       &image->no_punch_hole);
	}
	/* A discard is a hint: a host that cannot has lost nothing. */
	return result == -EOPNOTSUPP || result == -ENOTTY || result == -EINVAL ? 0 : result;
}

static int run_sync(struct block_image *image)
{
	return fdatasync(image->fd) < 0 ? -errno : 0;
}

int block_run(struct block_req *req)
{
	struct block_image *image = req->image;
	int result = -EINVAL;

	switch (req->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		if (req_is_serial(image, req))
			result = run_transfer(req, image->buffered_fd);
		else if (req->bounced)
			result = run_bounced(req);
		else
			result = run_transfer(req, image->fd);
		/* Continued in the middle of a unit. */
		if (result == -EINVAL && image->mem_alignment > 1 && !req->bounced)
			result = run_bounced(req);
		break;
	case BLOCK_FLUSH: result = image->cache == BLOCK_CACHE_UNSAFE ? 0 : run_sync(image); break;
	case BLOCK_DISCARD: result = run_discard(req); break;
	case BLOCK_ZEROES:
		result = run_zeroes(req);
		if (!result && cache_is_sync(image->cache))
			result = run_sync(image);
		break;
	}
	return result;
}
