/*
 * virtio-rng (virtio 1.2 §5.4): the host's random numbers for the guest.
 *
 *	-device virtio-rng-pci,max-bytes=1024,period=1000	at most 1 KiB a second
 */
#include "vmm/machine.h"
#include "vmm/virtio/pci.h"
#include <sys/random.h>

#define RNG_CHUNK     256u	  /* what getrandom() gives without being interrupted */
#define RNG_ROUND_MAX (64u << 10) /* bytes in one go, so that one guest does not keep the loop */
#define NS_PER_MS     1000000

struct virtio_rng {
	struct virtio_pci v;

	/* properties */
	u64 max_bytes; /* in a period */
	u32 period;    /* ms; 0: no limit */

	struct virtq_elem elem;
	struct loop_timer timer;
	u64 left; /* of this period */
};

static size_t rng_fill(const struct iovec *iov, unsigned num, size_t bytes)
{
	size_t done = 0;

	for (unsigned i = 0; i < num && done < bytes; i++) {
		size_t at = 0, want = MIN(iov[i].iov_len, bytes - done);

		while (at < want) {
			ssize_t n =
				getrandom((u8 *)iov[i].iov_base + at, MIN(want - at, RNG_CHUNK), 0);

			if (n <= 0 && errno != EINTR)
				return done;
			if (n > 0) {
				at += n;
				done += n;
			}
		}
	}
	return done;
}

static void rng_queue(struct virtio_device *vdev, struct virtq *vq)
{
	struct virtio_rng *r = container_of(vdev, struct virtio_rng, v.vdev);
	struct loop *loop = &vdev->machine->loop;

	for (;;) {
		u64 room = r->period ? MIN(r->left, RNG_ROUND_MAX) : RNG_ROUND_MAX;
		size_t n;

		/* Out of entropy for this period: the buffers wait in the queue. */
		if (!room || virtq_pop(vq, &r->elem) <= 0)
			break;
		if (r->elem.out_num) {
			virtio_broken(vdev, "a buffer with something to read");
			break;
		}
		n = rng_fill(r->elem.iov, r->elem.in_num, MIN(r->elem.in_bytes, room));
		if (r->period) {
			r->left -= n;
			if (!r->timer.armed)
				loop_timer_set(&r->timer, loop_now(loop, LOOP_CLOCK_VM) +
								  (s64)r->period * NS_PER_MS);
		}
		virtq_push(vq, &r->elem, n);
	}
	virtq_signal(vq);
}

static void rng_period_over(struct loop_timer *t)
{
	struct virtio_rng *r = container_of(t, struct virtio_rng, timer);

	r->left = r->max_bytes;
	virtio_queue_notify(&r->v.vdev, 0);
}

/* Without a reset: the period goes on, a reset is no way to get more. */
static const struct virtio_type rng_type = {
	.name = "virtio-rng",
	.id = VIRTIO_ID_RNG,
	.pci_class = 0x00ff00, /* unclassified */
	.queue = rng_queue,
};

static int realize(struct device *dev, struct error *err)
{
	struct virtio_rng *r = container_of(dev, struct virtio_rng, v.pci.dev);
	int result;

	if (!r->max_bytes)
		return error_set(err, -EINVAL, "max-bytes=0: at least 1");
	/* Without a limit there is no period to keep. */
	if (r->max_bytes == UINT64_MAX)
		r->period = 0;
	r->left = r->max_bytes;
	virtio_init(&r->v.vdev, &rng_type, dev->machine, 1, 0);
	virtio_queue_init(&r->v.vdev, 0, 8);
	result = virtio_pci_realize(&r->v, err);
	if (result < 0)
		return result;
	virtq_elem_init(&r->elem);
	loop_timer_init(&r->timer, &dev->machine->loop, LOOP_CLOCK_VM, rng_period_over);
	return 0;
}

static void unrealize(struct device *dev)
{
	struct virtio_rng *r = container_of(dev, struct virtio_rng, v.pci.dev);

	loop_timer_cancel(&r->timer);
	virtio_pci_unrealize(&r->v);
	virtq_elem_destroy(&r->elem);
}

static const struct property properties[] = {
	PROPERTY_U64("max-bytes", struct virtio_rng, max_bytes, "18446744073709551615",
		     "bytes in a period"),
	PROPERTY_U32("period", struct virtio_rng, period, "65536", "milliseconds"),
	VIRTIO_PCI_PROPERTIES(struct virtio_rng, v),
	{}
};

VIRTIO_PCI_REGISTER(virtio_rng, "virtio-rng", "random numbers of the host", struct virtio_rng)
