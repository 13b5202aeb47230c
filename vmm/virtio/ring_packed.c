/*
 * Packed virtqueues (virtio 1.2 §2.8): one ring of descriptors in which driver and device take
 *turns, the turn being told by two flag bits against a wrap counter of each side.
 *
 *	desc:   size * { u64 addr; u32 len; u16 id; u16 flags }
 *	driver: u16 event (position, bit 15: wrap counter), u16 flags: which used descriptors it
 *wants to hear of device: the same for available ones
 */
#include "vmm/virtio/virtio.h"
#include "vmm/memory.h"

#define PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED  (1u << VRING_PACKED_DESC_F_USED)

struct packed_desc {
	u64 gpa;
	u32 bytes;
	u16 id, flags;
};

static struct packed_desc packed_load(const u8 *table, unsigned index)
{
	const u8 *p = table + 16 * (size_t)index;
	u64 rest = shared_load64(p + 8);

	return (struct packed_desc){ shared_load64(p), (u32)rest, (u16)(rest >> 32),
				     (u16)(rest >> 48) };
}

bool packed_has_more(struct virtq *vq)
{
	u16 flags = shared_load16(vq->desc + 16 * (size_t)vq->next_avail + 14);

	return !!(flags & PACKED_AVAIL) == vq->avail_wrap &&
	       !!(flags & PACKED_USED) != vq->avail_wrap;
}

/* The entries of an indirect table stand one after the other, without chaining (§2.8.8). */
static bool packed_indirect(struct virtq *vq, struct virtq_elem *elem, const struct packed_desc *d)
{
	struct virtio_device *vdev = vq->vdev;
	const u8 *table;

	if (!virtio_has(vdev, VIRTIO_RING_F_INDIRECT_DESC)) {
		virtio_broken(vdev, "queue %u: an indirect descriptor where none may be",
			      vq->index);
		return false;
	}
	if (!d->bytes || d->bytes % 16 || d->bytes / 16 > 65536 ||
	    !(table = memory_ptr(vdev->machine, d->gpa, d->bytes))) {
		virtio_broken(vdev, "queue %u: an indirect table of %u bytes at 0x%llx", vq->index,
			      d->bytes, (unsigned long long)d->gpa);
		return false;
	}
	for (unsigned i = 0; i < d->bytes / 16; i++) {
		struct packed_desc e = packed_load(table, i);

		if (e.flags & VRING_DESC_F_INDIRECT) {
			virtio_broken(vdev, "queue %u: an indirect descriptor where none may be",
				      vq->index);
			return false;
		}
		if (!virtq_add_segment(vq, elem, e.gpa, e.bytes, e.flags & VRING_DESC_F_WRITE))
			return false;
	}
	return true;
}

int packed_pop(struct virtq *vq, struct virtq_elem *elem)
{
	struct virtio_device *vdev = vq->vdev;
	unsigned pos = vq->next_avail, descs = 0;
	struct packed_desc d;

	if (!packed_has_more(vq))
		return 0;
	do {
		if (++descs + vq->in_use > vq->size) {
			virtio_broken(vdev, "queue %u: more descriptors than the ring has",
				      vq->index);
			return 0;
		}
		d = packed_load(vq->desc, pos);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (descs > 1 || (d.flags & VRING_DESC_F_NEXT)) {
				virtio_broken(vdev,
					      "queue %u: an indirect descriptor where none may be",
					      vq->index);
				return 0;
			}
			if (!packed_indirect(vq, elem, &d))
				return 0;
		} else if (!virtq_add_segment(vq, elem, d.gpa, d.bytes,
					      d.flags & VRING_DESC_F_WRITE)) {
			return 0;
		}
		if (++pos == vq->size)
			pos = 0;
	} while (d.flags & VRING_DESC_F_NEXT);

	/* The buffer's id stands in its last descriptor (§2.8.6). */
	elem->id = d.id;
	elem->descs = descs;
	if (pos <= vq->next_avail)
		vq->avail_wrap = !vq->avail_wrap;
	vq->next_avail = pos;
	vq->in_use += descs;
	if (vq->notify && virtio_has(vdev, VIRTIO_RING_F_EVENT_IDX))
		packed_set_notify(vq, true);
	return 1;
}

void packed_unpop(struct virtq *vq, const struct virtq_elem *elem)
{
	if (vq->next_avail < elem->descs) {
		vq->next_avail += vq->size;
		vq->avail_wrap = !vq->avail_wrap;
	}
	vq->next_avail -= elem->descs;
	vq->in_use -= elem->descs;
}

/*
 * A used descriptor replaces the first of its buffer's, and the position moves on by all of them.
 * The driver looks at the position that is next, so of a batch only the first one's flags must wait
 * for the end.
 */
void packed_fill(struct virtq *vq, const struct virtq_elem *elem, u32 written)
{
	size_t at = 16 * (size_t)vq->next_used;
	u16 flags = vq->used_wrap ? PACKED_AVAIL | PACKED_USED : 0;

	if (elem->in_num)
		flags |= VRING_DESC_F_WRITE;
	put_le32(vq->desc + at + 8, written);
	put_le16(vq->desc + at + 12, elem->id);
	if (vq->filled++) {
		shared_store16(vq->desc + at + 14, flags);
	} else {
		vq->held_flags = flags;
		vq->held_pos = vq->next_used;
	}
	memory_wrote(vq->vdev->machine, vq->desc_gpa + at, 16);
	vq->filled_descs += elem->descs;
	vq->next_used += elem->descs;
	if (vq->next_used >= vq->size) {
		vq->next_used -= vq->size;
		vq->used_wrap = !vq->used_wrap;
	}
}

void packed_flush(struct virtq *vq)
{
	shared_store16(vq->desc + 16 * (size_t)vq->held_pos + 14, vq->held_flags);
	vq->in_use -= vq->filled_descs;
	vq->unsignalled += vq->filled_descs;
	vq->filled = vq->filled_descs = 0;
}

bool packed_wants_signal(struct virtq *vq)
{
	u16 event = shared_load16(vq->driver), flags = shared_load16(vq->driver + 2) & 3;
	int pos = event & 0x7fff;

	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !virtio_has(vq->vdev, VIRTIO_RING_F_EVENT_IDX))
		return true;
	/* §2.8.10: a position of the lap before is counted backwards from this lap's beginning. */
	if ((event >> VRING_PACKED_EVENT_F_WRAP_CTR) != vq->used_wrap)
		pos -= vq->size;
	return vq->unsignalled >= vq->size ||
	       (pos < vq->next_used && pos >= (int)vq->next_used - (int)vq->unsignalled);
}

void packed_set_notify(struct virtq *vq, bool on)
{
	u16 flags = VRING_PACKED_EVENT_FLAG_DISABLE;

	if (on && virtio_has(vq->vdev, VIRTIO_RING_F_EVENT_IDX)) {
		shared_store16(vq->device,
			       vq->next_avail | vq->avail_wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
		flags = VRING_PACKED_EVENT_FLAG_DESC;
	} else if (on) {
		flags = VRING_PACKED_EVENT_FLAG_ENABLE;
	}
	shared_store16(vq->device + 2, flags);
	memory_wrote(vq->vdev->machine, vq->device_gpa, 4);
}
