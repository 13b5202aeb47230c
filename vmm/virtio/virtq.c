/*
 * Virtqueues, the part that both layouts share: enabling, segments of guest memory, suppression of
 * notifications and interrupts.
 */
#include "vmm/virtio/virtio.h"
#include "vmm/memory.h"
#include <stdlib.h>

#define LEGACY_ALIGN 4096
#define PAGE	     4096

static bool virtq_packed(const struct virtq *vq)
{
	return virtio_has(vq->vdev, VIRTIO_F_RING_PACKED);
}

/* Nothing of a queue is touched unless this holds. */
static bool virtq_usable(const struct virtq *vq)
{
	const struct virtio_device *vdev = vq->vdev;

	return vq->enabled && virtio_live(vdev) && vdev->transport->dma_allowed(vq->vdev);
}

void virtio_queue_enable(struct virtq *vq)
{
	struct virtio_device *vdev = vq->vdev;
	u64 desc_bytes = 16 * (u64)vq->size, driver_bytes, device_bytes;
	unsigned driver_align, device_align;

	if (!vq->size || vq->size > vq->size_max ||
	    (!virtq_packed(vq) && (vq->size & (vq->size - 1)))) {
		virtio_broken(vdev, "queue %u: a size of %u", vq->index, vq->size);
		return;
	}
	if (virtq_packed(vq)) {
		driver_bytes = device_bytes = 4;
		driver_align = device_align = 4;
	} else {
		driver_bytes = 6 + 2 * (u64)vq->size;
		device_bytes = 6 + 8 * (u64)vq->size;
		driver_align = 2;
		device_align = 4;
	}
	vq->desc = vq->driver = vq->device = NULL;
	/* What the device writes must be RAM, what it only reads may be anything that has bytes. */
	if (!(vq->desc_gpa % 16) && !(vq->driver_gpa % driver_align) &&
	    !(vq->device_gpa % device_align)) {
		vq->desc = virtq_packed(vq)
				   ? memory_ptr_write(vdev->machine, vq->desc_gpa, desc_bytes)
				   : (u8 *)memory_ptr(vdev->machine, vq->desc_gpa, desc_bytes);
		vq->driver = (u8 *)memory_ptr(vdev->machine, vq->driver_gpa, driver_bytes);
		vq->device = memory_ptr_write(vdev->machine, vq->device_gpa, device_bytes);
	}
	if (!vq->desc || !vq->driver || !vq->device) {
		virtio_broken(vdev, "queue %u: areas at 0x%llx, 0x%llx, 0x%llx are not aligned RAM",
			      vq->index, (unsigned long long)vq->desc_gpa,
			      (unsigned long long)vq->driver_gpa,
			      (unsigned long long)vq->device_gpa);
		return;
	}
	vq->next_avail = vq->next_used = 0;
	vq->avail_wrap = vq->used_wrap = true;
	vq->filled = vq->filled_descs = 0;
	vq->in_use = vq->unsignalled = 0;
	vq->notify = true;
	vq->enabled = true;
}

void virtio_queue_set_pfn(struct virtq *vq, u32 pfn)
{
	vq->enabled = false;
	vq->desc_gpa = vq->driver_gpa = vq->device_gpa = 0;
	if (!pfn)
		return;
	vq->desc_gpa = (u64)pfn * PAGE;
	vq->driver_gpa = vq->desc_gpa + 16 * (u64)vq->size;
	vq->device_gpa = ALIGN_UP(vq->driver_gpa + 6 + 2 * (u64)vq->size, (u64)LEGACY_ALIGN);
	virtio_queue_enable(vq);
}

/* ---- buffers -------------------------------------------------------------------------------- */

void virtq_elem_init(struct virtq_elem *elem)
{
	memset(elem, 0, sizeof(*elem));
	/* Large and mostly untouched: the host gives pages for what is used only. */
	elem->iov = xzalloc(VIRTQ_SEGMENTS_MAX * sizeof(*elem->iov));
	elem->range = xzalloc(VIRTQ_SEGMENTS_MAX * sizeof(*elem->range));
}

void virtq_elem_destroy(struct virtq_elem *elem)
{
	free(elem->iov);
	free(elem->range);
	elem->iov = NULL;
	elem->range = NULL;
}

static bool elem_add(struct virtq *vq, struct virtq_elem *elem, u64 gpa, void *host, u32 bytes,
		     bool in)
{
	unsigned n = elem->out_num + elem->in_num;

	if (n == VIRTQ_SEGMENTS_MAX) {
		virtio_broken(vq->vdev, "queue %u: a buffer of more than %u segments", vq->index,
			      VIRTQ_SEGMENTS_MAX);
		return false;
	}
	elem->iov[n] = (struct iovec){ host, bytes };
	if (in) {
		elem->range[elem->in_num++] = (struct virtq_range){ gpa, bytes };
		elem->in_bytes += bytes;
	} else {
		elem->out_num++;
		elem->out_bytes += bytes;
	}
	return true;
}

static void *segment_ptr(struct virtq *vq, u64 gpa, u64 bytes, bool in)
{
	struct machine *m = vq->vdev->machine;

	return in ? memory_ptr_write(m, gpa, bytes) : (void *)memory_ptr(m, gpa, bytes);
}

bool virtq_add_segment(struct virtq *vq, struct virtq_elem *elem, u64 gpa, u32 bytes, bool in)
{
	u8 *host;

	if (!bytes) {
		virtio_broken(vq->vdev, "queue %u: a segment without bytes", vq->index);
		return false;
	}
	if (!in && elem->in_num) {
		virtio_broken(vq->vdev, "queue %u: a segment to read after one to write",
			      vq->index);
		return false;
	}
	if (gpa + bytes < gpa)
		goto bad;
	host = segment_ptr(vq, gpa, bytes, in);
	if (host)
		return elem_add(vq, elem, gpa, host, bytes, in);
	/* It may lie across two blocks of RAM: taken page by page, joined where the host's
	 * addresses join. */
	while (bytes) {
		u32 n = MIN(bytes, PAGE - (u32)(gpa % PAGE)), run = n;

		host = segment_ptr(vq, gpa, n, in);
		if (!host)
			goto bad;
		while (run < bytes) {
			n = MIN(bytes - run, PAGE);
			if (segment_ptr(vq, gpa + run, n, in) != host + run)
				break;
			run += n;
		}
		if (!elem_add(vq, elem, gpa, host, run, in))
			return false;
		gpa += run;
		bytes -= run;
	}
	return true;
bad:
	virtio_broken(vq->vdev, "queue %u: %u bytes at 0x%llx are not RAM", vq->index, bytes,
		      (unsigned long long)gpa);
	return false;
}

int virtq_pop(struct virtq *vq, struct virtq_elem *elem)
{
	if (!virtq_usable(vq))
		return 0;
	elem->out_num = elem->in_num = 0;
	elem->out_bytes = elem->in_bytes = 0;
	elem->descs = 1;
	return virtq_packed(vq) ? packed_pop(vq, elem) : split_pop(vq, elem);
}

void virtq_unpop(struct virtq *vq, const struct virtq_elem *elem)
{
	if (!vq->enabled)
		return;
	if (virtq_packed(vq))
		packed_unpop(vq, elem);
	else
		split_unpop(vq, elem);
}

void virtq_fill(struct virtq *vq, const struct virtq_elem *elem, u32 written)
{
	u32 left = written;

	if (!virtq_usable(vq))
		return;
	for (unsigned i = 0; i < elem->in_num && left; i++) {
		u32 n = MIN(left, elem->range[i].bytes);

		memory_wrote(vq->vdev->machine, elem->range[i].gpa, n);
		left -= n;
	}
	if (virtq_packed(vq))
		packed_fill(vq, elem, written);
	else
		split_fill(vq, elem, written);
}

void virtq_flush(struct virtq *vq)
{
	if (!vq->filled || !virtq_usable(vq))
		return;
	if (virtq_packed(vq))
		packed_flush(vq);
	else
		split_flush(vq);
}

void virtq_push(struct virtq *vq, const struct virtq_elem *elem, u32 written)
{
	virtq_fill(vq, elem, written);
	virtq_flush(vq);
}

void virtq_signal(struct virtq *vq)
{
	bool wanted;

	if (!vq->unsignalled || !virtq_usable(vq))
		return;
	/* What was told must be seen before the driver's wish is read, or both sides wait for each
	 * other. */
	shared_barrier();
	wanted = virtq_packed(vq) ? packed_wants_signal(vq) : split_wants_signal(vq);
	vq->unsignalled = 0;
	if (wanted)
		vq->vdev->transport->notify_queue(vq->vdev, vq);
}

bool virtq_has_more(struct virtq *vq)
{
	if (!virtq_usable(vq))
		return false;
	return virtq_packed(vq) ? packed_has_more(vq) : split_has_more(vq);
}

static void virtq_set_notify(struct virtq *vq, bool on)
{
	if (!virtq_usable(vq))
		return;
	vq->notify = on;
	if (virtq_packed(vq))
		packed_set_notify(vq, on);
	else
		split_set_notify(vq, on);
}

void virtq_notify_off(struct virtq *vq)
{
	virtq_set_notify(vq, false);
}

bool virtq_notify_on(struct virtq *vq)
{
	virtq_set_notify(vq, true);
	shared_barrier();
	return virtq_has_more(vq);
}

/* ---- segments ------------------------------------------------------------------------------- */

static size_t iov_copy(const struct iovec *iov, unsigned num, size_t offset, void *buf,
		       const void *from, size_t bytes)
{
	size_t done = 0;

	for (unsigned i = 0; i < num && done < bytes; i++) {
		u8 *base = iov[i].iov_base;
		size_t n = iov[i].iov_len;

		if (offset >= n) {
			offset -= n;
			continue;
		}
		n = MIN(n - offset, bytes - done);
		if (buf)
			memcpy((u8 *)buf + done, base + offset, n);
		else
			memcpy(base + offset, (const u8 *)from + done, n);
		done += n;
		offset = 0;
	}
	return done;
}

size_t iov_to_buf(const struct iovec *iov, unsigned num, size_t offset, void *buf, size_t bytes)
{
	return iov_copy(iov, num, offset, buf, NULL, bytes);
}

size_t iov_from_buf(const struct iovec *iov, unsigned num, size_t offset, const void *buf,
		    size_t bytes)
{
	return iov_copy(iov, num, offset, NULL, buf, bytes);
}

void iov_skip(struct iovec **iov, u16 *num, size_t bytes)
{
	while (bytes && *num) {
		size_t n = MIN(bytes, (*iov)->iov_len);

		(*iov)->iov_base = (u8 *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
		bytes -= n;
		if (!(*iov)->iov_len) {
			(*iov)++;
			(*num)--;
		}
	}
}
