/*
 * virtio-balloon: see balloon.h.
 *
 *	-device virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on
 *
 * A page that the guest gives up is punched out of its memory, and is there again, zeroed, when it
 *is touched. Only RAM can be given: what else a guest names is ignored.
 */
#include "vmm/virtio/balloon.h"
#include "vmm/machine.h"
#include "vmm/monitor/monitor.h"
#include "vmm/virtio/pci.h"
#include <linux/virtio_balloon.h>
#include <sys/mman.h>

#define PAGE		    4096u
#define PAGES_BATCH	    256 /* page numbers read at once */
#define QUEUE_SIZE	    128
#define BALLOON_CONFIG_SIZE offsetof(struct virtio_balloon_config, free_page_hint_cmd_id)

enum balloon_role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_REPORTING, ROLE_NONE };

static_assert(sizeof(struct virtio_balloon_stat) == 10, "virtio 1.2 §5.5.6.3");

struct virtio_balloon {
	struct virtio_pci v;

	/* properties */
	bool deflate_on_oom, free_page_reporting;
	u32 polling; /* seconds */

	struct virtq_elem elem, stats_elem;
	bool stats_held; /* the driver's statistics buffer is here: giving it back asks for new ones
			  */
	struct balloon_stats stats;
	struct loop_timer timer;
};

static struct virtio_balloon *balloon; /* a machine has one */

/* Queues that were not agreed upon are left out, not left empty. */
static enum balloon_role queue_role(struct virtio_device *vdev, unsigned index)
{
	unsigned next = 2;

	if (index < next)
		return index ? ROLE_DEFLATE : ROLE_INFLATE;
	if (virtio_has(vdev, VIRTIO_BALLOON_F_STATS_VQ) && index == next++)
		return ROLE_STATS;
	if (virtio_has(vdev, VIRTIO_BALLOON_F_REPORTING) && index == next)
		return ROLE_REPORTING;
	return ROLE_NONE;
}

/* @host and @bytes are whole pages of guest RAM. Its memory is a shared mapping, where only REMOVE
 * frees. */
static void pages_release(void *host, size_t bytes)
{
	if (bytes && madvise(host, bytes, MADV_REMOVE) < 0)
		madvise(host, bytes, MADV_DONTNEED);
}

/* ---- inflating and deflating ---------------------------------------------------------------- */

static void balloon_inflate(struct virtio_balloon *b, const struct virtq_elem *elem)
{
	u8 *run = NULL;
	size_t run_bytes = 0;
	u32 pfn[PAGES_BATCH];

	for (size_t at = 0; at < elem->out_bytes;) {
		size_t n =
			iov_to_buf(elem->iov, elem->out_num, at, pfn, sizeof(pfn)) / sizeof(pfn[0]);

		if (!n)
			break;
		at += n * sizeof(pfn[0]);
		for (size_t i = 0; i < n; i++) {
			u8 *host = memory_ptr_write(b->v.vdev.machine, (u64)pfn[i] * PAGE, PAGE);

			if (!host)
				continue;
			/* Neighbours, in either direction, are released together. */
			if (run && host == run + run_bytes) {
				run_bytes += PAGE;
				continue;
			}
			if (run && host + PAGE == run) {
				run = host;
				run_bytes += PAGE;
				continue;
			}
			pages_release(run, run_bytes);
			run = host;
			run_bytes = PAGE;
		}
	}
	pages_release(run, run_bytes);
}

static void balloon_report(struct virtio_balloon *b, const struct virtq_elem *elem)
{
	for (unsigned i = 0; i < elem->in_num; i++) {
		const struct iovec *iov = &elem->iov[elem->out_num + i];
		uintptr_t first = ALIGN_UP((uintptr_t)iov->iov_base, (uintptr_t)PAGE);
		uintptr_t end =
			ALIGN_DOWN((uintptr_t)iov->iov_base + iov->iov_len, (uintptr_t)PAGE);

		if (first < end)
			pages_release((void *)first, end - first);
	}
}

/* ---- statistics ----------------------------------------------------------------------------- */

static void stats_receive(struct virtio_balloon *b)
{
	struct virtio_balloon_stat stat;

	memset(b->stats.value, 0xff, sizeof(b->stats.value));
	for (size_t at = 0; iov_to_buf(b->stats_elem.iov, b->stats_elem.out_num, at, &stat,
				       sizeof(stat)) == sizeof(stat);
	     at += sizeof(stat)) {
		if (stat.tag < BALLOON_STATS)
			b->stats.value[stat.tag] = stat.val;
	}
	b->stats.updated = loop_now(&b->v.vdev.machine->loop, LOOP_CLOCK_HOST);
}

static void stats_ask(struct virtio_balloon *b)
{
	struct virtio_device *vdev = &b->v.vdev;

	if (!b->stats_held)
		return;
	b->stats_held = false;
	for (unsigned i = 2; i < vdev->queues; i++) {
		if (queue_role(vdev, i) == ROLE_STATS) {
			virtq_push(&vdev->vq[i], &b->stats_elem, 0);
			virtq_signal(&vdev->vq[i]);
		}
	}
}

static void stats_timer(struct loop_timer *t)
{
	struct virtio_balloon *b = container_of(t, struct virtio_balloon, timer);

	stats_ask(b);
	loop_timer_set(t, loop_now(t->loop, LOOP_CLOCK_VM) + b->polling * NS_PER_SEC);
}

static void stats_queue(struct virtio_balloon *b, struct virtq *vq)
{
	/* One buffer goes back and forth. A second one means that the driver wants the first no
	 * more. */
	for (;;) {
		struct virtq_elem next = b->elem;

		if (virtq_pop(vq, &next) <= 0)
			break;
		if (b->stats_held)
			virtq_push(vq, &b->stats_elem, 0);
		b->elem = b->stats_elem;
		b->stats_elem = next;
		b->stats_held = true;
		stats_receive(b);
	}
	virtq_signal(vq);
}

/* ---- the device ----------------------------------------------------------------------------- */

static void balloon_queue(struct virtio_device *vdev, struct virtq *vq)
{
	struct virtio_balloon *b = container_of(vdev, struct virtio_balloon, v.vdev);
	enum balloon_role role = queue_role(vdev, vq->index);

	if (role == ROLE_STATS) {
		stats_queue(b, vq);
		return;
	}
	do {
		virtq_notify_off(vq);
		while (virtq_pop(vq, &b->elem) > 0) {
			if (role == ROLE_INFLATE)
				balloon_inflate(b, &b->elem);
			else if (role == ROLE_REPORTING)
				balloon_report(b, &b->elem);
			virtq_push(vq, &b->elem, 0);
		}
	} while (virtq_notify_on(vq));
	virtq_signal(vq);
}

static void balloon_start(struct virtio_device *vdev)
{
	struct virtio_balloon *b = container_of(vdev, struct virtio_balloon, v.vdev);

	if (b->polling && virtio_has(vdev, VIRTIO_BALLOON_F_STATS_VQ))
		loop_timer_set(&b->timer,
			       loop_now(b->timer.loop, LOOP_CLOCK_VM) + b->polling * NS_PER_SEC);
}

static void balloon_reset(struct virtio_device *vdev)
{
	struct virtio_balloon *b = container_of(vdev, struct virtio_balloon, v.vdev);

	loop_timer_cancel(&b->timer);
	b->stats_held = false;
	/* The pages are the guest's again; how many there should be is the user's wish, which
	 * stays. */
	put_le32(vdev->config + offsetof(struct virtio_balloon_config, actual), 0);
}

static void balloon_config_write(struct virtio_device *vdev, unsigned offset, const u8 *bytes,
				 unsigned size)
{
	if (offset == offsetof(struct virtio_balloon_config, actual) && size == 4)
		memcpy(vdev->config + offset, bytes, 4);
}

static const struct virtio_type balloon_type = {
	.name = "virtio-balloon",
	.id = VIRTIO_ID_BALLOON,
	.pci_class = 0x00ff00, /* unclassified */
	.queue = balloon_queue,
	.start = balloon_start,
	.reset = balloon_reset,
	.config_write = balloon_config_write,
};

int balloon_set_target(struct machine *m, u64 bytes, struct error *err)
{
	struct virtio_device *vdev;

	if (!balloon)
		return error_set(err, -ENODEV,
				 "the machine has no balloon (-device virtio-balloon-pci)");
	if (!bytes)
		return error_set(err, -EINVAL, "a guest cannot run in 0 bytes");
	vdev = &balloon->v.vdev;
	bytes = MIN(bytes, m->memory.ram_size);
	put_le32(vdev->config + offsetof(struct virtio_balloon_config, num_pages),
		 (m->memory.ram_size - bytes) / PAGE);
	virtio_config_changed(vdev);
	return 0;
}

int balloon_query(struct machine *m, u64 *bytes)
{
	u64 taken;

	if (!balloon)
		return -ENODEV;
	taken = (u64)get_le32(balloon->v.vdev.config +
			      offsetof(struct virtio_balloon_config, actual)) *
		PAGE;
	*bytes = m->memory.ram_size - MIN(taken, m->memory.ram_size);
	return 0;
}

int balloon_set_polling(struct machine *m, u32 seconds)
{
	if (!balloon)
		return -ENODEV;
	balloon->polling = seconds;
	loop_timer_cancel(&balloon->timer);
	if (virtio_live(&balloon->v.vdev))
		balloon_start(&balloon->v.vdev);
	return 0;
}

int balloon_get_stats(struct machine *m, struct balloon_stats *stats)
{
	if (!balloon)
		return -ENODEV;
	*stats = balloon->stats;
	return 0;
}

static int realize(struct device *dev, struct error *err)
{
	struct virtio_balloon *b = container_of(dev, struct virtio_balloon, v.pci.dev);
	struct virtio_device *vdev = &b->v.vdev;
	int result;

	if (balloon)
		return error_set(err, -EBUSY, "the machine has a balloon already");
	virtio_init(vdev, &balloon_type, dev->machine, 3 + b->free_page_reporting,
		    BALLOON_CONFIG_SIZE);
	for (unsigned i = 0; i < vdev->queues; i++)
		virtio_queue_init(vdev, i, QUEUE_SIZE);
	vdev->host_features |= 1ull << VIRTIO_BALLOON_F_STATS_VQ;
	if (b->deflate_on_oom)
		vdev->host_features |= 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM;
	if (b->free_page_reporting)
		vdev->host_features |= 1ull << VIRTIO_BALLOON_F_REPORTING;
	result = virtio_pci_realize(&b->v, err);
	if (result < 0)
		return result;
	virtq_elem_init(&b->elem);
	virtq_elem_init(&b->stats_elem);
	memset(b->stats.value, 0xff, sizeof(b->stats.value));
	loop_timer_init(&b->timer, &dev->machine->loop, LOOP_CLOCK_VM, stats_timer);
	balloon = b;
	return 0;
}

static void unrealize(struct device *dev)
{
	struct virtio_balloon *b = container_of(dev, struct virtio_balloon, v.pci.dev);

	balloon = NULL;
	virtio_pci_unrealize(&b->v);
	virtq_elem_destroy(&b->elem);
	virtq_elem_destroy(&b->stats_elem);
}

static const struct property properties[] = {
	PROPERTY_BOOL("deflate-on-oom", struct virtio_balloon, deflate_on_oom, "off",
		      "the guest may take pages back when it runs out of memory"),
	PROPERTY_BOOL("free-page-reporting", struct virtio_balloon, free_page_reporting, "off",
		      "the guest reports free pages, which go to the host until they are used"),
	PROPERTY_U32("guest-stats-polling-interval", struct virtio_balloon, polling, "0",
		     "seconds; 0: no statistics"),
	VIRTIO_PCI_PROPERTIES(struct virtio_balloon, v),
	{}
};

VIRTIO_PCI_REGISTER(virtio_balloon, "virtio-balloon", "gives and takes the guest's memory",
		    struct virtio_balloon)

static void command_balloon(struct monitor *mon, struct machine *m, const char *arguments)
{
	struct error err;
	u64 bytes;

	if (parse_size(arguments, MiB, &bytes) < 0)
		monitor_printf(mon, "balloon SIZE: in MiB, or with a suffix\n");
	else if (balloon_set_target(m, bytes, &err) < 0)
		monitor_printf(mon, "%s\n", err.text);
}

static void command_info_balloon(struct monitor *mon, struct machine *m, const char *arguments)
{
	u64 bytes;

	if (balloon_query(m, &bytes) < 0)
		monitor_printf(mon, "the machine has no balloon\n");
	else
		monitor_printf(mon, "balloon: actual=%llu\n", (unsigned long long)(bytes / MiB));
}

static const struct monitor_command balloon_commands[] = {
	{ "balloon", "SIZE", "ask the guest to make do with SIZE MiB", command_balloon },
	{ "info balloon", "", "the memory that the guest has, in MiB", command_info_balloon },
	{}
};
MONITOR_REGISTER(balloon_commands)
