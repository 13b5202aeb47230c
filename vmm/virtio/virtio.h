/*
 * The part of virtio 1.2 that all devices share: features, status, configuration space and
 *virtqueues. How a guest reaches it is the transport's business (pci.h).
 *
 *	static void beeper_queue(struct virtio_device *vdev, struct virtq *vq)
 *	{
 *		do {
 *			virtq_notify_off(vq);
 *			while (virtq_pop(vq, &b->elem) > 0) {
 *				... b->elem.iov ...
 *				virtq_push(vq, &b->elem, written);
 *			}
 *		} while (virtq_notify_on(vq));
 *		virtq_signal(vq);
 *	}
 *
 * Everything in a ring is the guest's and may change while it is looked at: each value is read
 *once, checked, and used from the copy. What breaks the rules (an index out of range, a loop, an
 *address that is not RAM) ends in virtio_broken(): the device asks for a reset and touches its
 *queues no more until it gets one (virtio 1.2 §2.1.2).
 *
 * All of it runs under the machine lock.
 */
#ifndef VMM_VIRTIO_VIRTIO_H
#define VMM_VIRTIO_VIRTIO_H

#include "vmm/util.h"
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <sys/uio.h>

#define VIRTIO_CONFIG_MAX     256
#define VIRTIO_QUEUE_SIZE_MAX 1024
#define VIRTQ_SEGMENTS_MAX    1024 /* of one buffer */

struct machine;
struct virtio_device;
struct virtq;

/* What a kind of device does. */
struct virtio_type {
	const char *name;
	u16 id;	       /* VIRTIO_ID_* */
	u32 pci_class; /* 0xBBSSPP */
	/** The driver says that there may be something in @vq. */
	void (*queue)(struct virtio_device *vdev, struct virtq *vq);
	/** The features are agreed upon; false refuses them. May be NULL. */
	bool (*features_ok)(struct virtio_device *vdev);
	/** DRIVER_OK: queues are about to be served. May be NULL. */
	void (*start)(struct virtio_device *vdev);
	/** Back to the state after power-on: nothing of a queue may be touched after it returns.
	 * May be NULL. */
	void (*reset)(struct virtio_device *vdev);
	/** Brings vdev->config up to date before it is read. May be NULL. */
	void (*config_read)(struct virtio_device *vdev);
	/** The driver writes; within config_size. NULL: nothing is writable. */
	void (*config_write)(struct virtio_device *vdev, unsigned offset, const u8 *bytes,
			     unsigned size);
};

/* How the device reaches the guest. */
struct virtio_transport {
	void (*notify_queue)(struct virtio_device *vdev, struct virtq *vq);
	void (*notify_config)(struct virtio_device *vdev);
	/** Whether the device may touch guest memory now. */
	bool (*dma_allowed)(struct virtio_device *vdev);
};

struct virtq {
	struct virtio_device *vdev;
	u16 index;
	u16 size_max; /* 0: there is no such queue */

	/* what the driver has set */
	u16 size;
	u16 vector; /* MSI-X */
	bool enabled;
	u64 desc_gpa, driver_gpa, device_gpa;

	/* while enabled */
	u8 *desc, *driver, *device; /* the three areas (virtio 1.2 §2.6), wholly in RAM */
	u16 next_avail; /* split: a free-running index; packed: a position in the ring */
	u16 next_used;	/* the same, of what the driver has been told */
	bool avail_wrap, used_wrap; /* packed */
	u16 filled;		    /* entries written but not yet told, see virtq_flush() */
	u16 filled_descs;	    /* packed: descriptors they stand for */
	u16 held_flags;		    /* packed: the flags of the first of them, written last */
	u16 held_pos;
	u32 in_use;	 /* split: buffers, packed: descriptors that the device holds */
	u32 unsignalled; /* used entries (packed: descriptors) since the last look at virtq_signal()
			  */
	bool notify;	 /* the driver is asked to notify */
};

struct virtio_device {
	const struct virtio_type *type;
	const struct virtio_transport *transport;
	struct machine *machine;
	const char *name;   /* for messages */
	u64 host_features;  /* offered */
	u64 guest_features; /* accepted by the driver */
	u8 status;
	bool legacy; /* the driver came through the legacy interface */
	bool broken;
	u8 complaints;
	u8 generation; /* of config */
	u8 config[VIRTIO_CONFIG_MAX];
	unsigned config_size;
	struct virtq *vq;
	unsigned queues;
};

/* A range of guest memory that the device may have written, for the dirty log. */
struct virtq_range {
	u64 gpa;
	u32 bytes;
};

/* One buffer out of a queue: what the driver sent and where the answer goes. */
struct virtq_elem {
	u16 id;
	u16 descs;	     /* packed: descriptors in the ring */
	u16 out_num, in_num; /* segments */
	u64 out_bytes, in_bytes;
	struct iovec
		*iov; /* out_num to be read, then in_num to be written; the device may alter them */
	struct virtq_range *range; /* of the in_num */
};

/* ---- devices -------------------------------------------------------------------------------- */

/** Before the transport is set up. @queues: how many, each virtio_queue_init() afterwards. */
void virtio_init(struct virtio_device *vdev, const struct virtio_type *type, struct machine *m,
		 unsigned queues, unsigned config_size);
/** @size: a power of two, at most VIRTIO_QUEUE_SIZE_MAX. */
void virtio_queue_init(struct virtio_device *vdev, unsigned index, u16 size);
void virtio_destroy(struct virtio_device *vdev);

static inline bool virtio_has(const struct virtio_device *vdev, unsigned feature)
{
	return vdev->guest_features >> feature & 1;
}

/** DRIVER_OK and not broken: queues may be served. A legacy driver need not have said so (§2.1.2 is
 * lenient there). */
bool virtio_live(const struct virtio_device *vdev);

/** The device has changed vdev->config: a new generation, and the driver is told. */
void virtio_config_changed(struct virtio_device *vdev);

/** The driver breaks the rules: no more queues until a reset. The text is reported, a few times at
 * most. */
__attribute__((format(printf, 2, 3))) void virtio_broken(struct virtio_device *vdev,
							 const char *fmt, ...);

/* What a transport calls. */
void virtio_reset(struct virtio_device *vdev);
void virtio_set_status(struct virtio_device *vdev, u8 status);
/** 32 of the driver's features, @select 0 or 1. Ignored after FEATURES_OK. */
void virtio_set_features(struct virtio_device *vdev, unsigned select, u32 features);
/** @size 1, 2, 4 or 8. Beyond the end: zeroes. */
u64 virtio_config_read(struct virtio_device *vdev, u64 offset, unsigned size);
void virtio_config_write(struct virtio_device *vdev, u64 offset, u64 value, unsigned size);
void virtio_queue_notify(struct virtio_device *vdev, unsigned index);
/** Serves all enabled queues once, as after DRIVER_OK. */
void virtio_queue_notify_all(struct virtio_device *vdev);
/** With the addresses and size in @vq; on failure the device is broken. */
void virtio_queue_enable(struct virtq *vq);
/** The legacy interface's one number a queue (§4.1.5.1.3.1); 0 disables. */
void virtio_queue_set_pfn(struct virtq *vq, u32 pfn);

/* ---- queues --------------------------------------------------------------------------------- */

/** Room for a buffer of VIRTQ_SEGMENTS_MAX segments. */
void virtq_elem_init(struct virtq_elem *elem);
void virtq_elem_destroy(struct virtq_elem *elem);

/** Takes the next buffer: 1, or 0 if there is none or the queue cannot be served. */
int virtq_pop(struct virtq *vq, struct virtq_elem *elem);
/** Puts the last popped buffer back, as if it had not been popped. */
void virtq_unpop(struct virtq *vq, const struct virtq_elem *elem);
/** Gives a buffer back, @written bytes of its answer being valid, but does not tell yet. */
void virtq_fill(struct virtq *vq, const struct virtq_elem *elem, u32 written);
/** Tells the driver of all that was filled. */
void virtq_flush(struct virtq *vq);
/** virtq_fill() and virtq_flush(). An interrupt is due: virtq_signal() at the end of the batch. */
void virtq_push(struct virtq *vq, const struct virtq_elem *elem, u32 written);
/** Interrupts the driver if something was told since the last call and it wants to know. */
void virtq_signal(struct virtq *vq);

/** Whether there is a buffer. */
bool virtq_has_more(struct virtq *vq);
/** Asks the driver not to notify for a while. */
void virtq_notify_off(struct virtq *vq);
/** Asks for notifications again. True: something has arrived meanwhile, go round once more. */
bool virtq_notify_on(struct virtq *vq);

/** Copies from the first @bytes of what the driver sent, or to the answer at @offset. Returns bytes
 * copied. */
size_t iov_to_buf(const struct iovec *iov, unsigned num, size_t offset, void *buf, size_t bytes);
size_t iov_from_buf(const struct iovec *iov, unsigned num, size_t offset, const void *buf,
		    size_t bytes);
/** Drops @bytes at the front of *@iov. */
void iov_skip(struct iovec **iov, u16 *num, size_t bytes);

/* Between virtq.c and the two layouts. */
int split_pop(struct virtq *vq, struct virtq_elem *elem);
void split_unpop(struct virtq *vq, const struct virtq_elem *elem);
void split_fill(struct virtq *vq, const struct virtq_elem *elem, u32 written);
void split_flush(struct virtq *vq);
bool split_wants_signal(struct virtq *vq);
bool split_has_more(struct virtq *vq);
void split_set_notify(struct virtq *vq, bool on);
int packed_pop(struct virtq *vq, struct virtq_elem *elem);
void packed_unpop(struct virtq *vq, const struct virtq_elem *elem);
void packed_fill(struct virtq *vq, const struct virtq_elem *elem, u32 written);
void packed_flush(struct virtq *vq);
bool packed_wants_signal(struct virtq *vq);
bool packed_has_more(struct virtq *vq);
void packed_set_notify(struct virtq *vq, bool on);
/** Adds a descriptor's range to @elem. False: the device is broken. */
bool virtq_add_segment(struct virtq *vq, struct virtq_elem *elem, u64 gpa, u32 bytes, bool in);

/* The guest's memory is shared with its CPUs: each load and store happens once, in this order. */
static inline u16 shared_load16(const void *p)
{
	return __atomic_load_n((const u16 *)p, __ATOMIC_ACQUIRE);
}

/* An indirect table may stand at any address. */
struct shared_u64 {
	u64 v;
} __attribute__((packed, may_alias));

static inline u64 shared_load64(const void *p)
{
	u64 v = ((const volatile struct shared_u64 *)p)->v;

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return v;
}

static inline void shared_store16(void *p, u16 v)
{
	__atomic_store_n((u16 *)p, v, __ATOMIC_RELEASE);
}

static inline void shared_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
