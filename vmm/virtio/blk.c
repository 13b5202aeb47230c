/*
 * virtio-blk (virtio 1.2 §5.2): a disk image as a block device.
 *
 *	-drive file=disk.img,if=none,id=d0 -device virtio-blk-pci,drive=d0,num-queues=2,serial=disk0
 *
 * A request is popped, checked and submitted to vmm/block with the guest's own memory as its
 *buffers; when it is done, the status byte is written and the buffer given back. Interrupts follow
 *once a batch.
 */
#include "vmm/block/drive.h"
#include "vmm/machine.h"
#include "vmm/virtio/pci.h"
#include <linux/virtio_blk.h>
#include <stdlib.h>

#define BLK_QUEUES_MAX	 64
#define BLK_QUEUES_AUTO	 0xffff
#define BLK_SERIAL_BYTES VIRTIO_BLK_ID_BYTES
#define BLK_RANGE_MAX	 (1u << 22) /* sectors in one discard or write-zeroes: 2 GiB */

/* The configuration ends before what later versions of the header add (secure erase, zones). */
#define BLK_CONFIG_SIZE (offsetof(struct virtio_blk_config, unused1) + 3)
static_assert(BLK_CONFIG_SIZE == 60, "virtio 1.2 §5.2.4");

struct virtio_blk {
	struct virtio_pci v;

	/* properties */
	char *drive, *serial;
	u16 num_queues, queue_size;
	u32 logical_block_size, physical_block_size, min_io_size, opt_io_size;
	bool discard, write_zeroes, config_wce;

	struct block_image *image;
	struct block_user user;
	struct virtio_blk_req *free;
	bool writethrough;		 /* a write is done when it is on the disk */
	bool queue_done[BLK_QUEUES_MAX]; /* has buffers that were given back without a signal yet */
};

struct virtio_blk_req {
	struct virtq_elem elem;
	struct block_req io;
	struct virtio_blk *blk;
	struct virtq *vq;
	struct virtio_blk_req *next;
	u8 *status;
	u32 type;
	bool flushing; /* a write that is followed by a flush of its own */
};

/* ---- requests ------------------------------------------------------------------------------- */

static struct virtio_blk_req *req_get(struct virtio_blk *b, struct virtq *vq)
{
	struct virtio_blk_req *req = b->free;

	if (req) {
		b->free = req->next;
	} else {
		/* As many as were ever in flight at once are kept; a queue's size bounds them. */
		req = xzalloc(sizeof(*req));
		virtq_elem_init(&req->elem);
		req->blk = b;
	}
	req->vq = vq;
	req->flushing = false;
	return req;
}

static void req_put(struct virtio_blk_req *req)
{
	req->next = req->blk->free;
	req->blk->free = req;
}

static void req_complete(struct virtio_blk_req *req, u8 status)
{
	struct virtio_blk *b = req->blk;

	*req->status = status;
	virtq_push(req->vq, &req->elem, MIN(req->elem.in_bytes, 0xffffffffu));
	b->queue_done[req->vq->index] = true;
	req_put(req);
}

static void blk_signal(struct virtio_blk *b)
{
	for (unsigned i = 0; i < b->v.vdev.queues; i++) {
		if (b->queue_done[i]) {
			b->queue_done[i] = false;
			virtq_signal(&b->v.vdev.vq[i]);
		}
	}
}

static void blk_batch_end(struct block_user *user)
{
	blk_signal(container_of(user, struct virtio_blk, user));
}

static void req_done(struct block_req *io, int error)
{
	struct virtio_blk_req *req = container_of(io, struct virtio_blk_req, io);
	struct virtio_blk *b = req->blk;
	bool changes = io->op == BLOCK_WRITE || io->op == BLOCK_ZEROES || io->op == BLOCK_DISCARD;

	if (!error && changes && b->writethrough && !req->flushing) {
		req->flushing = true;
		io->op = BLOCK_FLUSH;
		block_submit(b->image, io);
		block_kick(b->image);
		return;
	}
	if (error && drive_on_error(b->image, io->op != BLOCK_READ) == DRIVE_ERROR_IGNORE)
		error = 0;
	req_complete(req, error ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

/* Whole sectors within the disk. */
static bool range_ok(const struct virtio_blk *b, u64 sector, u64 bytes)
{
	u64 sectors = block_size(b->image) / BLOCK_SECTOR_SIZE;

	return bytes % BLOCK_SECTOR_SIZE == 0 && sector <= sectors &&
	       bytes / BLOCK_SECTOR_SIZE <= sectors - sector;
}

static void req_transfer(struct virtio_blk_req *req, enum block_op op, u64 sector,
			 struct iovec *iov, unsigned niov, u64 bytes)
{
	struct virtio_blk *b = req->blk;

	if (!range_ok(b, sector, bytes) || (op == BLOCK_WRITE && block_read_only(b->image))) {
		req_complete(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!bytes) {
		req_complete(req, VIRTIO_BLK_S_OK);
		return;
	}
	req->io.op = op;
	req->io.offset = sector * BLOCK_SECTOR_SIZE;
	req->io.bytes = bytes;
	req->io.iov = iov;
	req->io.niov = niov;
	block_submit(b->image, &req->io);
}

/* Discard and write-zeroes: one range a request, as the configuration says. */
static void req_range(struct virtio_blk_req *req, struct iovec *iov, unsigned niov, u64 bytes)
{
	struct virtio_blk *b = req->blk;
	bool discard = req->type == VIRTIO_BLK_T_DISCARD;
	struct virtio_blk_discard_write_zeroes range;
	u64 length;

	if (!(b->v.vdev.host_features >>
		      (discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES) &
	      1)) {
		req_complete(req, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (bytes != sizeof(range) ||
	    iov_to_buf(iov, niov, 0, &range, sizeof(range)) != sizeof(range)) {
		req_complete(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	/* §5.2.6.2: unknown flags, and unmap with discard, are unsupported. */
	if (range.flags & ~(discard ? 0u : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)) {
		req_complete(req, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	length = (u64)range.num_sectors * BLOCK_SECTOR_SIZE;
	if (range.num_sectors > BLK_RANGE_MAX || !range_ok(b, range.sector, length)) {
		req_complete(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!length) {
		req_complete(req, VIRTIO_BLK_S_OK);
		return;
	}
	req->io.op = discard ? BLOCK_DISCARD : BLOCK_ZEROES;
	req->io.may_unmap = range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	req->io.offset = range.sector * BLOCK_SECTOR_SIZE;
	req->io.bytes = length;
	req->io.niov = 0;
	block_submit(b->image, &req->io);
}

static void req_get_id(struct virtio_blk_req *req, struct iovec *iov, unsigned niov)
{
	struct virtio_blk *b = req->blk;
	char id[BLK_SERIAL_BYTES] = "";

	if (b->serial)
		memcpy(id, b->serial, MIN(strlen(b->serial), sizeof(id)));
	iov_from_buf(iov, niov, 0, id, sizeof(id));
	req_complete(req, VIRTIO_BLK_S_OK);
}

/* False: it has no header or no place for the status, and the device is broken. */
static bool req_start(struct virtio_blk_req *req)
{
	struct virtq_elem *elem = &req->elem;
	struct iovec *out = elem->iov, *in = elem->iov + elem->out_num, *last;
	u16 out_num = elem->out_num, in_num = elem->in_num;
	struct virtio_blk_outhdr header;

	if (elem->out_bytes < sizeof(header) || !elem->in_bytes) {
		virtio_broken(&req->blk->v.vdev,
			      "a request of %llu bytes to read and %llu to write",
			      (unsigned long long)elem->out_bytes,
			      (unsigned long long)elem->in_bytes);
		return false;
	}
	iov_to_buf(out, out_num, 0, &header, sizeof(header));
	iov_skip(&out, &out_num, sizeof(header));
	/* The status is the last byte, in whatever segment (§2.7.4: no assumptions about framing).
	 */
	last = &in[in_num - 1];
	req->status = (u8 *)last->iov_base + last->iov_len - 1;
	if (!--last->iov_len)
		in_num--;

	/* Bit 31 was the barrier flag of drivers long gone. */
	req->type = header.type & ~(u32)VIRTIO_BLK_T_BARRIER;
	req->io.done = req_done;
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
		req_transfer(req, BLOCK_READ, header.sector, in, in_num, elem->in_bytes - 1);
		break;
	case VIRTIO_BLK_T_OUT:
		req_transfer(req, BLOCK_WRITE, header.sector, out, out_num,
			     elem->out_bytes - sizeof(header));
		break;
	case VIRTIO_BLK_T_FLUSH:
		req->io.op = BLOCK_FLUSH;
		block_submit(req->blk->image, &req->io);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		req_range(req, out, out_num, elem->out_bytes - sizeof(header));
		break;
	case VIRTIO_BLK_T_GET_ID: req_get_id(req, in, in_num); break;
	default: req_complete(req, VIRTIO_BLK_S_UNSUPP); break;
	}
	return true;
}

static void blk_queue(struct virtio_device *vdev, struct virtq *vq)
{
	struct virtio_blk *b = container_of(vdev, struct virtio_blk, v.vdev);

	do {
		virtq_notify_off(vq);
		for (;;) {
			struct virtio_blk_req *req = req_get(b, vq);

			if (virtq_pop(vq, &req->elem) <= 0 || !req_start(req)) {
				req_put(req);
				break;
			}
		}
	} while (virtq_notify_on(vq));
	block_kick(b->image);
	blk_signal(b);
}

/* ---- the device ----------------------------------------------------------------------------- */

static void blk_set_writethrough(struct virtio_blk *b)
{
	struct virtio_device *vdev = &b->v.vdev;

	/* §5.2.6.2: a driver that cannot flush gets every write on the disk. An image that does so
	 * anyway needs no more. */
	if (!block_write_cache(b->image))
		b->writethrough = false;
	else if (virtio_has(vdev, VIRTIO_BLK_F_CONFIG_WCE))
		b->writethrough = !vdev->config[offsetof(struct virtio_blk_config, wce)];
	else
		b->writethrough = !virtio_has(vdev, VIRTIO_BLK_F_FLUSH);
}

static void blk_start(struct virtio_device *vdev)
{
	blk_set_writethrough(container_of(vdev, struct virtio_blk, v.vdev));
}

static void blk_reset(struct virtio_device *vdev)
{
	struct virtio_blk *b = container_of(vdev, struct virtio_blk, v.vdev);

	/* What is in flight points into guest memory. */
	block_drain(b->image);
	memset(b->queue_done, 0, sizeof(b->queue_done));
	vdev->config[offsetof(struct virtio_blk_config, wce)] = block_write_cache(b->image);
	b->writethrough = block_write_cache(b->image);
}

static void blk_config_write(struct virtio_device *vdev, unsigned offset, const u8 *bytes,
			     unsigned size)
{
	struct virtio_blk *b = container_of(vdev, struct virtio_blk, v.vdev);

	if (offset != offsetof(struct virtio_blk_config, wce) || size != 1 ||
	    !virtio_has(vdev, VIRTIO_BLK_F_CONFIG_WCE))
		return;
	vdev->config[offset] = bytes[0] & 1;
	blk_set_writethrough(b);
}

static const struct virtio_type blk_type = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.pci_class = 0x018000, /* mass storage, other */
	.queue = blk_queue,
	.start = blk_start,
	.reset = blk_reset,
	.config_write = blk_config_write,
};

static int blk_check(struct virtio_blk *b, struct error *err)
{
	u32 alignment = block_alignment(b->image);

	if (b->num_queues == BLK_QUEUES_AUTO)
		b->num_queues = MIN(MAX(b->v.pci.dev.machine->config.cpus, 1), BLK_QUEUES_MAX);
	if (!b->num_queues || b->num_queues > BLK_QUEUES_MAX)
		return error_set(err, -EINVAL, "num-queues=%u: 1 to %u", b->num_queues,
				 BLK_QUEUES_MAX);
	if (b->queue_size < 4 || b->queue_size > VIRTIO_QUEUE_SIZE_MAX ||
	    b->queue_size & (b->queue_size - 1))
		return error_set(err, -EINVAL, "queue-size=%u: a power of two, 4 to %u",
				 b->queue_size, VIRTIO_QUEUE_SIZE_MAX);
	if (b->serial && strlen(b->serial) > BLK_SERIAL_BYTES)
		return error_set(err, -EINVAL, "serial=%s: more than %u letters", b->serial,
				 BLK_SERIAL_BYTES);
	if (!b->logical_block_size)
		b->logical_block_size = alignment;
	if (!b->physical_block_size)
		b->physical_block_size = MAX(b->logical_block_size, alignment);
	if (b->logical_block_size < 512 || b->logical_block_size > 32768 ||
	    b->logical_block_size & (b->logical_block_size - 1))
		return error_set(err, -EINVAL,
				 "logical_block_size=%u: a power of two, 512 to 32768",
				 b->logical_block_size);
	if (b->physical_block_size < b->logical_block_size || b->physical_block_size > 2097152 ||
	    b->physical_block_size & (b->physical_block_size - 1))
		return error_set(err, -EINVAL,
				 "physical_block_size=%u: a power of two, at least the logical one",
				 b->physical_block_size);
	if (b->min_io_size % b->logical_block_size || b->opt_io_size % b->logical_block_size)
		return error_set(err, -EINVAL, "min_io_size and opt_io_size: multiples of %u",
				 b->logical_block_size);
	return 0;
}

static void blk_configure(struct virtio_blk *b)
{
	struct virtio_device *vdev = &b->v.vdev;
	u64 sectors = block_size(b->image) / BLOCK_SECTOR_SIZE, cylinders = sectors / (16 * 63);
	struct virtio_blk_config c = {
		.capacity = sectors,
		.seg_max = b->queue_size - 2,
		.geometry = { .cylinders = MIN(cylinders, 16383), .heads = 16, .sectors = 63 },
		.blk_size = b->logical_block_size,
		.physical_block_exp = __builtin_ctz(b->physical_block_size / b->logical_block_size),
		.min_io_size = b->min_io_size / b->logical_block_size,
		.opt_io_size = b->opt_io_size / b->logical_block_size,
		.wce = block_write_cache(b->image),
		.num_queues = b->num_queues,
		.max_discard_sectors = BLK_RANGE_MAX,
		.max_discard_seg = 1,
		.discard_sector_alignment = b->logical_block_size / BLOCK_SECTOR_SIZE,
		.max_write_zeroes_sectors = BLK_RANGE_MAX,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = block_can_discard(b->image),
	};

	memcpy(vdev->config, &c, BLK_CONFIG_SIZE);
	vdev->host_features |= 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_GEOMETRY |
			       1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY |
			       1ull << VIRTIO_BLK_F_FLUSH;
	if (b->num_queues > 1)
		vdev->host_features |= 1ull << VIRTIO_BLK_F_MQ;
	if (block_read_only(b->image)) {
		vdev->host_features |= 1ull << VIRTIO_BLK_F_RO;
		return;
	}
	if (b->config_wce && block_write_cache(b->image))
		vdev->host_features |= 1ull << VIRTIO_BLK_F_CONFIG_WCE;
	/* A discard that the image ignores is better not offered: the guest would believe in it. */
	if (b->discard && block_can_discard(b->image))
		vdev->host_features |= 1ull << VIRTIO_BLK_F_DISCARD;
	if (b->write_zeroes)
		vdev->host_features |= 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
}

static void blk_free_requests(struct virtio_blk *b)
{
	while (b->free) {
		struct virtio_blk_req *req = b->free;

		b->free = req->next;
		virtq_elem_destroy(&req->elem);
		free(req);
	}
}

static int realize(struct device *dev, struct error *err)
{
	struct virtio_blk *b = container_of(dev, struct virtio_blk, v.pci.dev);
	int result;

	b->image = drive_claim(dev->machine, b->drive, err);
	if (!b->image)
		return b->drive ? -ENOENT : -EINVAL;
	result = blk_check(b, err);
	if (result < 0)
		goto fail;
	virtio_init(&b->v.vdev, &blk_type, dev->machine, b->num_queues, BLK_CONFIG_SIZE);
	for (unsigned i = 0; i < b->num_queues; i++)
		virtio_queue_init(&b->v.vdev, i, b->queue_size);
	blk_configure(b);
	result = virtio_pci_realize(&b->v, err);
	if (result < 0)
		goto fail;
	b->user.batch_end = blk_batch_end;
	block_set_user(b->image, &b->user);
	return 0;
fail:
	drive_release(dev->machine, b->image);
	return result;
}

static void unrealize(struct device *dev)
{
	struct virtio_blk *b = container_of(dev, struct virtio_blk, v.pci.dev);

	virtio_pci_unrealize(&b->v);
	block_set_user(b->image, NULL);
	drive_release(dev->machine, b->image);
	blk_free_requests(b);
}

static const struct property properties[] = {
	PROPERTY_STRING("drive", struct virtio_blk, drive, NULL,
			"the image: an id of -drive or a node of -blockdev"),
	PROPERTY_STRING("serial", struct virtio_blk, serial, NULL,
			"serial number, up to 20 letters"),
	PROPERTY_U16("num-queues", struct virtio_blk, num_queues, "65535",
		     "queues (default: one a vCPU)"),
	PROPERTY_U16("queue-size", struct virtio_blk, queue_size, "256", "entries of a queue"),
	PROPERTY_U32("logical_block_size", struct virtio_blk, logical_block_size, "0",
		     "bytes (default: what the image needs)"),
	PROPERTY_U32("physical_block_size", struct virtio_blk, physical_block_size, "0", "bytes"),
	PROPERTY_U32("min_io_size", struct virtio_blk, min_io_size, "0", "bytes"),
	PROPERTY_U32("opt_io_size", struct virtio_blk, opt_io_size, "0", "bytes"),
	PROPERTY_BOOL("discard", struct virtio_blk, discard, "on",
		      "offer discard, if the drive has discard=unmap"),
	PROPERTY_BOOL("write-zeroes", struct virtio_blk, write_zeroes, "on", "offer write-zeroes"),
	PROPERTY_BOOL("config-wce", struct virtio_blk, config_wce, "on",
		      "the guest may switch the write cache"),
	VIRTIO_PCI_PROPERTIES(struct virtio_blk, v),
	{}
};

VIRTIO_PCI_REGISTER(virtio_blk, "virtio-blk", "a block device", struct virtio_blk)
