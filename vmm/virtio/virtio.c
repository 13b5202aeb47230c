/*
 * virtio devices: status, features and configuration space (virtio 1.2 §2.1-2.5, §3.1). See
 * virtio.h.
 */
#include "vmm/virtio/virtio.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A guest can break its device as often as it likes; the terminal is not its to fill. */
#define COMPLAINTS_MAX 5

void virtio_init(struct virtio_device *vdev, const struct virtio_type *type, struct machine *m,
		 unsigned queues, unsigned config_size)
{
	assert(config_size <= VIRTIO_CONFIG_MAX);
	vdev->type = type;
	vdev->machine = m;
	vdev->name = type->name;
	vdev->queues = queues;
	vdev->vq = xzalloc(queues * sizeof(*vdev->vq));
	vdev->config_size = config_size;
	vdev->host_features |= 1ull << VIRTIO_F_VERSION_1;
	for (unsigned i = 0; i < queues; i++) {
		vdev->vq[i].vdev = vdev;
		vdev->vq[i].index = i;
		vdev->vq[i].vector = 0xffff;
	}
}

void virtio_queue_init(struct virtio_device *vdev, unsigned index, u16 size)
{
	assert(index < vdev->queues && size && size <= VIRTIO_QUEUE_SIZE_MAX &&
	       !(size & (size - 1)));
	vdev->vq[index].size = vdev->vq[index].size_max = size;
}

void virtio_destroy(struct virtio_device *vdev)
{
	free(vdev->vq);
	vdev->vq = NULL;
	vdev->queues = 0;
}

bool virtio_live(const struct virtio_device *vdev)
{
	return !vdev->broken && (vdev->legacy || vdev->status & VIRTIO_CONFIG_S_DRIVER_OK);
}

void virtio_config_changed(struct virtio_device *vdev)
{
	vdev->generation++;
	if (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)
		vdev->transport->notify_config(vdev);
}

void virtio_broken(struct virtio_device *vdev, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (vdev->broken)
		return;
	vdev->broken = true;
	if (vdev->complaints < COMPLAINTS_MAX) {
		vdev->complaints++;
		va_start(ap, fmt);
		vsnprintf(text, sizeof(text), fmt, ap);
		va_end(ap);
		report("%s: the guest's driver is broken: %s; the device waits for a reset",
		       vdev->name, text);
	}
	/* The legacy interface has no such bit (§2.1.2). */
	if (virtio_has(vdev, VIRTIO_F_VERSION_1)) {
		vdev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
		if (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)
			vdev->transport->notify_config(vdev);
	}
}

void virtio_reset(struct virtio_device *vdev)
{
	/* The device ends what it has in flight before the queues go. */
	if (vdev->type->reset)
		vdev->type->reset(vdev);
	vdev->status = 0;
	vdev->guest_features = 0;
	vdev->legacy = false;
	vdev->broken = false;
	for (unsigned i = 0; i < vdev->queues; i++) {
		struct virtq *vq = &vdev->vq[i];
		u16 size = vq->size_max;

		*vq = (struct virtq){
			.vdev = vdev, .index = i, .size = size, .size_max = size, .vector = 0xffff
		};
	}
}

void virtio_set_features(struct virtio_device *vdev, unsigned select, u32 features)
{
	if (select > 1 || vdev->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	if (select)
		vdev->guest_features = (u32)vdev->guest_features | (u64)features << 32;
	else
		vdev->guest_features = (vdev->guest_features & ~0xffffffffull) | features;
}

static bool virtio_features_ok(struct virtio_device *vdev)
{
	if (vdev->guest_features & ~vdev->host_features)
		return false;
	if (!vdev->legacy && !virtio_has(vdev, VIRTIO_F_VERSION_1))
		return false;
	return !vdev->type->features_ok || vdev->type->features_ok(vdev);
}

void virtio_set_status(struct virtio_device *vdev, u8 status)
{
	u8 set = status & ~vdev->status;

	if (!status) {
		virtio_reset(vdev);
		return;
	}
	/* Bits are cleared by a reset only, and NEEDS_RESET is the device's. */
	set &= ~VIRTIO_CONFIG_S_NEEDS_RESET;
	if (vdev->legacy) {
		set &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	} else {
		/* What was not agreed upon stays unset, the driver reads it back (§3.1.1 step 6).
		 */
		if (set & VIRTIO_CONFIG_S_FEATURES_OK && !virtio_features_ok(vdev))
			set &= ~VIRTIO_CONFIG_S_FEATURES_OK;
		if (!((vdev->status | set) & VIRTIO_CONFIG_S_FEATURES_OK))
			set &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	}
	vdev->status |= set;
	if (set & VIRTIO_CONFIG_S_DRIVER_OK && !vdev->broken) {
		if (vdev->type->start)
			vdev->type->start(vdev);
		virtio_queue_notify_all(vdev);
	}
}

u64 virtio_config_read(struct virtio_device *vdev, u64 offset, unsigned size)
{
	u64 value = 0;

	if (offset >= vdev->config_size)
		return 0;
	if (vdev->type->config_read)
		vdev->type->config_read(vdev);
	memcpy(&value, vdev->config + offset, MIN(size, vdev->config_size - offset));
	return value;
}

void virtio_config_write(struct virtio_device *vdev, u64 offset, u64 value, unsigned size)
{
	if (offset >= vdev->config_size || size > vdev->config_size - offset ||
	    !vdev->type->config_write)
		return;
	vdev->type->config_write(vdev, offset, (const u8 *)&value, size);
}

void virtio_queue_notify(struct virtio_device *vdev, unsigned index)
{
	if (index < vdev->queues && vdev->vq[index].enabled && virtio_live(vdev) &&
	    vdev->transport->dma_allowed(vdev))
		vdev->type->queue(vdev, &vdev->vq[index]);
}

void virtio_queue_notify_all(struct virtio_device *vdev)
{
	for (unsigned i = 0; i < vdev->queues; i++)
		virtio_queue_notify(vdev, i);
}
