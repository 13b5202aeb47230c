/*
 * Split virtqueues (virtio 1.2 §2.7): a descriptor table, a ring of heads from the driver, a ring
 *of used heads back.
 *
 *	desc:   size * { u64 addr; u32 len; u16 flags; u16 next }
 *	driver: u16 flags, idx, ring[size], used_event
 *	device: u16 flags, idx; size * { u32 id, len }; u16 avail_event
 */
#include "vmm/virtio/virtio.h"
#include "vmm/memory.h"

#define SPLIT_AVAIL_FLAGS(vq)	  ((vq)->driver)
#define SPLIT_AVAIL_IDX(vq)	  ((vq)->driver + 2)
#define SPLIT_AVAIL_RING(vq, i)	  ((vq)->driver + 4 + 2 * (size_t)((i) & ((vq)->size - 1)))
#define SPLIT_USED_EVENT(vq)	  ((vq)->driver + 4 + 2 * (size_t)(vq)->size)
#define SPLIT_USED_FLAGS(vq)	  ((vq)->device)
#define SPLIT_USED_IDX(vq)	  ((vq)->device + 2)
#define SPLIT_USED_RING_AT(i, vq) (4 + 8 * (size_t)((i) & ((vq)->size - 1)))
#define SPLIT_AVAIL_EVENT_AT(vq)  (4 + 8 * (size_t)(vq)->size)

struct split_desc {
	u64 gpa;
	u32 bytes;
	u16 flags, next;
};

static struct split_desc split_load(const u8 *table, unsigned index)
{
	const u8 *p = table + 16 * (size_t)index;
	u64 rest = shared_load64(p + 8);

	return (struct split_desc){ shared_load64(p), (u32)rest, (u16)(rest >> 32),
				    (u16)(rest >> 48) };
}

/* Buffers that wait, or -1. The driver can have no more in flight than the ring has entries. */
static int split_waiting(struct virtq *vq)
{
	u16 waiting = shared_load16(SPLIT_AVAIL_IDX(vq)) - vq->next_avail;

	if (waiting + vq->in_use > vq->size) {
		virtio_broken(vq->vdev, "queue %u: the available index runs %u entries ahead",
			      vq->index, waiting);
		return -1;
	}
	return waiting;
}

bool split_has_more(struct virtq *vq)
{
	return split_waiting(vq) > 0;
}

int split_pop(struct virtq *vq, struct virtq_elem *elem)
{
	struct virtio_device *vdev = vq->vdev;
	const u8 *table = vq->desc;
	unsigned entries = vq->size, walked = 0;
	bool indirect = false;
	struct split_desc d;
	u16 next;

	if (split_waiting(vq) <= 0)
		return 0;
	next = shared_load16(SPLIT_AVAIL_RING(vq, vq->next_avail));
	elem->id = next;
	for (;;) {
		if (next >= entries) {
			virtio_broken(vdev, "queue %u: descriptor %u of %u", vq->index, next,
				      entries);
			return 0;
		}
		if (++walked > entries) {
			virtio_broken(vdev, "queue %u: a chain of descriptors has a loop",
				      vq->index);
			return 0;
		}
		d = split_load(table, next);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			/* §2.7.5.3: offered, not nested, the last of its chain. */
			if (indirect || !virtio_has(vdev, VIRTIO_RING_F_INDIRECT_DESC) ||
			    (d.flags & VRING_DESC_F_NEXT)) {
				virtio_broken(vdev,
					      "queue %u: an indirect descriptor where none may be",
					      vq->index);
				return 0;
			}
			if (!d.bytes || d.bytes % 16 || d.bytes / 16 > 65536 ||
			    !(table = memory_ptr(vdev->machine, d.gpa, d.bytes))) {
				virtio_broken(vdev,
					      "queue %u: an indirect table of %u bytes at 0x%llx",
					      vq->index, d.bytes, (unsigned long long)d.gpa);
				return 0;
			}
			indirect = true;
			entries = d.bytes / 16;
			walked = 0;
			next = 0;
			continue;
		}
		if (!virtq_add_segment(vq, elem, d.gpa, d.bytes, d.flags & VRING_DESC_F_WRITE))
			return 0;
		if (!(d.flags & VRING_DESC_F_NEXT))
			break;
		next = d.next;
	}
	vq->next_avail++;
	vq->in_use++;
	/* While notifications are wanted the driver must see how far we are. */
	if (vq->notify && virtio_has(vdev, VIRTIO_RING_F_EVENT_IDX))
		split_set_notify(vq, true);
	return 1;
}

void split_unpop(struct virtq *vq, const struct virtq_elem *elem)
{
	vq->next_avail--;
	vq->in_use--;
}

void split_fill(struct virtq *vq, const struct virtq_elem *elem, u32 written)
{
	size_t at = SPLIT_USED_RING_AT(vq->next_used + vq->filled, vq);

	put_le32(vq->device + at, elem->id);
	put_le32(vq->device + at + 4, written);
	memory_wrote(vq->vdev->machine, vq->device_gpa + at, 8);
	vq->filled++;
}

void split_flush(struct virtq *vq)
{
	vq->next_used += vq->filled;
	shared_store16(SPLIT_USED_IDX(vq), vq->next_used);
	memory_wrote(vq->vdev->machine, vq->device_gpa + 2, 2);
	vq->in_use -= vq->filled;
	vq->unsignalled += vq->filled;
	vq->filled = 0;
}

bool split_wants_signal(struct virtq *vq)
{
	if (!virtio_has(vq->vdev, VIRTIO_RING_F_EVENT_IDX))
		return !(shared_load16(SPLIT_AVAIL_FLAGS(vq)) & VRING_AVAIL_F_NO_INTERRUPT);
	/* §2.7.7: if the entry that the driver named is among those since the last look. */
	return vq->unsignalled > 0xffff ||
	       (u16)(vq->next_used - shared_load16(SPLIT_USED_EVENT(vq)) - 1) < vq->unsignalled;
}

void split_set_notify(struct virtq *vq, bool on)
{
	if (virtio_has(vq->vdev, VIRTIO_RING_F_EVENT_IDX)) {
		/* Off is simply not moving the event on. */
		if (!on)
			return;
		shared_store16(vq->device + SPLIT_AVAIL_EVENT_AT(vq), vq->next_avail);
		memory_wrote(vq->vdev->machine, vq->device_gpa + SPLIT_AVAIL_EVENT_AT(vq), 2);
		return;
	}
	shared_store16(SPLIT_USED_FLAGS(vq), on ? 0 : VRING_USED_F_NO_NOTIFY);
	memory_wrote(vq->vdev->machine, vq->device_gpa, 2);
}
