/* Disk images: every way of doing I/O reads what was written, and says what went wrong. */
#include "tests/tap.h"
#include "vmm/block/block.h"
#include "vmm/mainloop.h"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE (4u << 20)

static struct loop loop;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char directory[] = "/tmp/trine-block-XXXXXX", path[64];
static struct error err;
static unsigned batches;

struct request {
	struct block_req req;
	struct iovec iov[4];
	bool finished;
	int error;
};

static void done(struct block_req *req, int error)
{
	struct request *r = container_of(req, struct request, req);

	r->finished = true;
	r->error = error;
}

static void count_batch(struct block_user *user)
{
	batches++;
}

static void submit(struct block_image *image, struct request *r, enum block_op op, u64 offset,
		   u64 bytes)
{
	r->req.op = op;
	r->req.offset = offset;
	r->req.bytes = bytes;
	r->req.done = done;
	r->finished = false;
	block_submit(image, &r->req);
}

static int finish(struct block_image *image, struct request *r)
{
	block_kick(image);
	while (!r->finished) {
		pthread_mutex_unlock(&lock);
		loop_step(&loop, true);
		pthread_mutex_lock(&lock);
	}
	return r->error;
}

static int transfer(struct block_image *image, enum block_op op, u64 offset, void *buf,
		    size_t bytes)
{
	struct request r = { .iov = { { buf, bytes } } };

	r.req.iov = r.iov;
	r.req.niov = 1;
	submit(image, &r, op, offset, bytes);
	return finish(image, &r);
}

static int simple(struct block_image *image, enum block_op op, u64 offset, u64 bytes)
{
	struct request r = { .req = { .may_unmap = true } };

	submit(image, &r, op, offset, bytes);
	return finish(image, &r);
}

static void make_file(u64 size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, size) < 0) {
		printf("Bail out! %s cannot be made\n", path);
		exit(1);
	}
	close(fd);
}

static struct block_image *open_image(const struct block_options *opt)
{
	struct block_image *image = NULL;

	if (block_open(&image, &loop, opt, &err) < 0) {
		tap_diag("%s", err.text);
		return NULL;
	}
	return image;
}

static void pattern(u8 *buf, size_t bytes, unsigned seed)
{
	for (size_t i = 0; i < bytes; i++)
		buf[i] = i * 31 + i / 512 + seed;
}

static bool all(const u8 *buf, size_t bytes, u8 value)
{
	for (size_t i = 0; i < bytes; i++) {
		if (buf[i] != value)
			return false;
	}
	return true;
}

/* ---- what works, in each mode --------------------------------------------------------------- */

static u8 out[256 * 1024 + 4096], in[256 * 1024 + 4096];

static bool round_trip(struct block_image *image, u64 offset, size_t bytes, unsigned misaligned)
{
	u8 *o = (u8 *)ALIGN_UP((uintptr_t)out, 4096ul) + misaligned,
	   *i = (u8 *)ALIGN_UP((uintptr_t)in, 4096ul) + misaligned;

	pattern(o, bytes, offset + bytes);
	memset(i, 0, bytes);
	return transfer(image, BLOCK_WRITE, offset, o, bytes) == 0 &&
	       simple(image, BLOCK_FLUSH, 0, 0) == 0 &&
	       transfer(image, BLOCK_READ, offset, i, bytes) == 0 && !memcmp(o, i, bytes);
}

static bool scattered(struct block_image *image)
{
	struct request r = { .req = { .niov = 4 } };

	pattern(out, 4096, 9);
	if (transfer(image, BLOCK_WRITE, 8192, out, 4096) != 0)
		return false;
	memset(in, 0, 8192);
	r.iov[0] = (struct iovec){ in, 100 };
	r.iov[1] = (struct iovec){ in + 200, 412 };
	r.iov[2] = (struct iovec){ in + 1000, 1 };
	r.iov[3] = (struct iovec){ in + 2001, 3583 };
	r.req.iov = r.iov;
	submit(image, &r, BLOCK_READ, 8192, 4096);
	return finish(image, &r) == 0 && !memcmp(in, out, 100) &&
	       !memcmp(in + 200, out + 100, 412) && in[1000] == out[512] &&
	       !memcmp(in + 2001, out + 513, 3583);
}

/* Many at once, overlapping nowhere; drained without the loop. */
static bool many(struct block_image *image)
{
	enum { COUNT = 200 };
	static struct request r[COUNT];
	static u8 data[COUNT][4096] __attribute__((aligned(4096)));
	bool good = true;

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			if (!round)
				memset(data[i], i, 4096);
			else
				memset(data[i], 0xff, 4096);
			memset(&r[i], 0, sizeof(r[i]));
			r[i].iov[0] = (struct iovec){ data[i], 4096 };
			r[i].req.iov = r[i].iov;
			r[i].req.niov = 1;
			submit(image, &r[i], round ? BLOCK_READ : BLOCK_WRITE, i * 4096, 4096);
		}
		block_drain(image);
		for (unsigned i = 0; i < COUNT; i++)
			good = good && r[i].finished && !r[i].error && all(data[i], 4096, i);
	}
	return good;
}

static bool zeroed(struct block_image *image, enum block_op op)
{
	memset(out, 0x5a, 65536);
	if (transfer(image, BLOCK_WRITE, 65536, out, 65536) != 0 ||
	    simple(image, op, 65536 + 4096, 8192) != 0 ||
	    transfer(image, BLOCK_READ, 65536, in, 65536) != 0)
		return false;
	return all(in, 4096, 0x5a) && all(in + 4096, 8192, 0) &&
	       all(in + 12288, 65536 - 12288, 0x5a);
}

static const struct {
	const char *name;
	enum block_cache cache;
	enum block_aio aio;
} modes[] = {
	{ "writeback, threads", BLOCK_CACHE_WRITEBACK, BLOCK_AIO_THREADS },
	{ "writeback, io_uring", BLOCK_CACHE_WRITEBACK, BLOCK_AIO_IO_URING },
	{ "none, threads", BLOCK_CACHE_NONE, BLOCK_AIO_THREADS },
	{ "none, io_uring", BLOCK_CACHE_NONE, BLOCK_AIO_IO_URING },
	{ "writethrough, threads", BLOCK_CACHE_WRITETHROUGH, BLOCK_AIO_THREADS },
	{ "writethrough, io_uring", BLOCK_CACHE_WRITETHROUGH, BLOCK_AIO_IO_URING },
	{ "directsync, io_uring", BLOCK_CACHE_DIRECTSYNC, BLOCK_AIO_IO_URING },
	{ "unsafe, io_uring", BLOCK_CACHE_UNSAFE, BLOCK_AIO_IO_URING },
};

static void test_mode(unsigned i)
{
	struct block_options opt = {
		.filename = path, .cache = modes[i].cache, .aio = modes[i].aio, .discard = true
	};
	struct block_user user = { count_batch };
	struct block_image *image;
	struct stat before, after;
	char what[64];

	make_file(SIZE);
	if (block_open(&image, &loop, &opt, &err) < 0) {
		/* A host may forbid io_uring, a file system have no O_DIRECT; both must be said. */
		if (strstr(err.text, "io_uring") || strstr(err.text, "O_DIRECT"))
			tap_skip(err.text, modes[i].name);
		else
			tap_ok(false, "%s: %s", modes[i].name, err.text);
		return;
	}
	block_set_user(image, &user);
	batches = 0;
	tap_ok(block_size(image) == SIZE && round_trip(image, 0, 4096, 0),
	       "%s: a block is written and read", modes[i].name);
	tap_ok(round_trip(image, 512 * 7, 512 * 9, 0), "%s: sectors within blocks", modes[i].name);
	tap_ok(round_trip(image, 65536, 256 * 1024, 0), "%s: 256 KiB", modes[i].name);
	tap_ok(round_trip(image, 65536, 64 * 1024, 1), "%s: a buffer at an odd address",
	       modes[i].name);
	tap_ok(round_trip(image, SIZE - 512, 512, 3), "%s: the last sector", modes[i].name);
	tap_ok(batches > 0, "%s: the user is told of batches", modes[i].name);
	tap_ok(scattered(image), "%s: scattered buffers", modes[i].name);
	tap_ok(many(image), "%s: 200 requests at once", modes[i].name);
	tap_ok(zeroed(image, BLOCK_ZEROES), "%s: zeroes", modes[i].name);
	tap_ok(zeroed(image, BLOCK_DISCARD), "%s: discard", modes[i].name);
	simple(image, BLOCK_FLUSH, 0, 0);
	stat(path, &before);
	simple(image, BLOCK_DISCARD, 0, SIZE);
	stat(path, &after);
	tap_ok(after.st_blocks < before.st_blocks && after.st_size == SIZE,
	       "%s: discard gives space back", modes[i].name);
	tap_ok(transfer(image, BLOCK_READ, SIZE, in, 512) == -EINVAL &&
		       transfer(image, BLOCK_WRITE, SIZE - 512, in, 1024) == -EINVAL &&
		       transfer(image, BLOCK_READ, ~0ull - 511, in, 512) == -EINVAL &&
		       simple(image, BLOCK_DISCARD, 0, ~0ull) == -EINVAL,
	       "%s: what is out of range fails", modes[i].name);
	snprintf(what, sizeof(what), "%s", block_aio_name(image));
	tap_ok(strstr(modes[i].name, what) != NULL, "%s: is %s", modes[i].name, what);
	block_close(image);
}

/* ---- what does not work --------------------------------------------------------------------- */

static const struct {
	const char *name, *file, *says;
	enum block_aio aio;
} failures[] = {
	{ "a file that does not exist", "/nonexistent/disk.img", "No such file" },
	{ "a directory", "/tmp", "a directory" },
	{ "a character device", "/dev/null", "neither a file nor a block device" },
};

static void test_refusals(void)
{
	struct block_options opt = { .filename = path };
	struct block_image *first, *second = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(failures); i++) {
		struct block_options bad = { .filename = failures[i].file };

		tap_ok(block_open(&second, &loop, &bad, &err) < 0 &&
			       strstr(err.text, failures[i].says) &&
			       strstr(err.text, failures[i].file),
		       "%s is refused, by name", failures[i].name);
	}
	make_file(0);
	tap_ok(block_open(&second, &loop, &opt, &err) < 0 && strstr(err.text, "empty"),
	       "an empty image is refused");

	make_file(SIZE);
	first = open_image(&opt);
	tap_ok(first && block_open(&second, &loop, &opt, &err) == -EAGAIN &&
		       strstr(err.text, "in use"),
	       "an image in use cannot be opened again");
	opt.read_only = true;
	tap_ok(block_open(&second, &loop, &opt, &err) == -EAGAIN, "nor by a reader");
	opt.read_only = false;
	opt.no_lock = true;
	tap_ok(block_open(&second, &loop, &opt, &err) == 0, "unless locking is off");
	block_close(second);
	block_close(first);
	opt.no_lock = false;
	opt.read_only = true;
	first = open_image(&opt);
	second = open_image(&opt);
	tap_ok(first && second, "readers share an image");
	tap_ok(transfer(first, BLOCK_WRITE, 0, out, 512) == -EROFS &&
		       transfer(first, BLOCK_READ, 0, in, 512) == 0,
	       "a read-only image is not written");
	block_close(first);
	opt.read_only = false;
	tap_ok(block_open(&first, &loop, &opt, &err) == -EAGAIN,
	       "an image with a reader has no writer");
	block_close(second);
	first = open_image(&opt);
	tap_ok(first, "closed, it can be opened again");
	block_close(first);
}

static void test_odd_size(void)
{
	struct block_options opt = { .filename = path };
	struct block_image *image;
	struct stat st;

	make_file(1000);
	image = open_image(&opt);
	tap_ok(image && block_size(image) == 1024, "an image of 1000 bytes has two sectors");
	memset(in, 0xff, 1024);
	tap_ok(transfer(image, BLOCK_READ, 0, in, 1024) == 0 && all(in, 1024, 0),
	       "its tail reads as zeroes");
	pattern(out, 1024, 3);
	tap_ok(transfer(image, BLOCK_WRITE, 0, out, 1024) == 0 &&
		       transfer(image, BLOCK_READ, 0, in, 1024) == 0 && !memcmp(in, out, 1024) &&
		       stat(path, &st) == 0 && st.st_size == 1024,
	       "its tail can be written");
	block_close(image);
}

/* A full disk, by a limit on the file's size: an error, and what was there before is there after.
 */
static void test_full(enum block_aio aio, const char *name)
{
	struct block_options opt = { .filename = path, .aio = aio };
	struct rlimit unlimited, limit;
	struct block_image *image;
	int error;

	make_file(1024 * 1024);
	if (block_open(&image, &loop, &opt, &err) < 0) {
		tap_skip(err.text, name);
		return;
	}
	pattern(out, 65536, 77);
	transfer(image, BLOCK_WRITE, 0, out, 65536);
	getrlimit(RLIMIT_FSIZE, &unlimited);
	limit = unlimited;
	limit.rlim_cur = 512 * 1024;
	setrlimit(RLIMIT_FSIZE, &limit);
	error = transfer(image, BLOCK_WRITE, 512 * 1024, out, 65536);
	tap_ok(error == -EFBIG || error == -ENOSPC,
	       "%s: a write that the host cannot take fails (%d)", name, error);
	error = transfer(image, BLOCK_WRITE, 512 * 1024 - 4096, out, 65536);
	tap_ok(error == -EFBIG || error == -ENOSPC, "%s: so does one that fits in part (%d)", name,
	       error);
	setrlimit(RLIMIT_FSIZE, &unlimited);
	tap_ok(transfer(image, BLOCK_READ, 0, in, 65536) == 0 && !memcmp(in, out, 65536),
	       "%s: nothing else is lost", name);
	tap_ok(round_trip(image, 512 * 1024, 65536, 0), "%s: with room again it goes on", name);
	block_close(image);
}

int main(void)
{
	tap_begin();
	if (!mkdtemp(directory) || loop_init(&loop, &lock, &err) < 0) {
		printf("Bail out! no directory or loop\n");
		return 1;
	}
	snprintf(path, sizeof(path), "%s/disk.img", directory);
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
		test_mode(i);
	test_refusals();
	test_odd_size();
	test_full(BLOCK_AIO_THREADS, "threads");
	test_full(BLOCK_AIO_IO_URING, "io_uring");
	pthread_mutex_unlock(&lock);
	loop_destroy(&loop);
	unlink(path);
	rmdir(directory);
	return tap_end();
}
