/* Virtqueues of both layouts: what a driver may do works, what it may not do breaks the device and
 * nothing else. */
#include "tests/virtio/guest.h"

static unsigned interrupts, config_interrupts;
static bool dma = true;

static void count_queue(struct virtio_device *vdev, struct virtq *vq)
{
	interrupts++;
}

static void count_config(struct virtio_device *vdev)
{
	config_interrupts++;
}

static bool allow_dma(struct virtio_device *vdev)
{
	return dma;
}

static const struct virtio_transport transport = { count_queue, count_config, allow_dma };

static void no_queue(struct virtio_device *vdev, struct virtq *vq)
{
}

static const struct virtio_type type = { .name = "test", .id = 42, .queue = no_queue };

static struct guest g;
static struct virtio_device vdev;
static struct virtq_elem elem;
static struct ring r;
static u64 page; /* a page of RAM for buffers */

#define BOTH_FEATURES (1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX)

/* A fresh device with one queue of @size and @features, and its ring. */
static struct virtq *start(bool packed, u16 size, u64 features)
{
	free(vdev.vq);
	memset(&vdev, 0, sizeof(vdev));
	vdev.transport = &transport;
	vdev.complaints = 100;
	virtio_init(&vdev, &type, &g.m, 1, 0);
	virtio_queue_init(&vdev, 0, 256);
	features |= 1ull << VIRTIO_F_VERSION_1;
	if (packed)
		features |= 1ull << VIRTIO_F_RING_PACKED;
	vdev.host_features = features;
	virtio_set_features(&vdev, 0, features);
	virtio_set_features(&vdev, 1, features >> 32);
	virtio_set_status(&vdev, 1 | 2 | VIRTIO_CONFIG_S_FEATURES_OK);
	g.next = 0x10000;
	page = guest_alloc(&g, 4096);
	ring_init(&r, &g, size, packed);
	ring_attach(&r, &vdev.vq[0]);
	virtio_set_status(&vdev, 1 | 2 | 4 | 8);
	interrupts = config_interrupts = 0;
	dma = true;
	return &vdev.vq[0];
}

/* ---- what works ----------------------------------------------------------------------------- */

static bool pass_one(bool packed, bool indirect)
{
	struct virtq *vq = start(packed, 8, BOTH_FEATURES);
	const struct segment s[] = { { page, 16, false },
				     { page + 100, 50, false },
				     { page + 512, 1000, true } };
	u16 id, used;
	u32 bytes;
	u8 out[66];

	for (unsigned i = 0; i < 66; i++)
		guest_ptr(&g, page)[i < 16 ? i : i + 84] = i;
	id = ring_add(&r, s, 3, indirect);
	if (virtq_pop(vq, &elem) != 1 || elem.out_num != 2 || elem.in_num != 1 ||
	    elem.out_bytes != 66 || elem.in_bytes != 1000)
		return false;
	if (iov_to_buf(elem.iov, elem.out_num, 0, out, 66) != 66)
		return false;
	for (unsigned i = 0; i < 66; i++) {
		if (out[i] != i)
			return false;
	}
	iov_from_buf(elem.iov + elem.out_num, elem.in_num, 990, "0123456789abc", 13);
	virtq_push(vq, &elem, 1000);
	return ring_used(&r, &used, &bytes) && used == id && bytes == 1000 &&
	       !ring_used(&r, &used, &bytes) &&
	       !memcmp(guest_ptr(&g, page + 512 + 990), "0123456789", 10) && !vdev.broken;
}

/* Buffers of 1 to 3 descriptors, some in flight, given back in another order, many times round. */
static bool pass_many(bool packed, u16 size)
{
	struct virtq *vq = start(packed, size, 0);
	struct virtq_elem held[4];
	u16 ids[4], used;
	u32 bytes;
	bool good = true;

	for (unsigned i = 0; i < 4; i++)
		virtq_elem_init(&held[i]);
	for (unsigned round = 0; round < 20000 && good; round++) {
		unsigned n = 1 + round % 4;

		if (n * 3 > size)
			n = 1;
		for (unsigned i = 0; i < n; i++) {
			struct segment s[3];
			unsigned count = 1 + (round + i) % 3;

			for (unsigned j = 0; j < count; j++)
				s[j] = (struct segment){ page + j, 1 + round % 100, j == 2 };
			ids[i] = ring_add(&r, s, count, false);
			good = good && virtq_pop(vq, &held[i]) == 1 &&
			       held[i].out_num + held[i].in_num == count;
		}
		/* The last first; in one batch every other round. */
		for (unsigned i = n; i-- > 0;) {
			virtq_fill(vq, &held[i], i);
			if (round % 2)
				virtq_flush(vq);
		}
		virtq_flush(vq);
		for (unsigned i = n; i-- > 0;)
			good = good && ring_used(&r, &used, &bytes) && used == ids[i] && bytes == i;
		good = good && !ring_used(&r, &used, &bytes) && !vq->in_use;
	}
	for (unsigned i = 0; i < 4; i++)
		virtq_elem_destroy(&held[i]);
	return good && !vdev.broken;
}

static bool pass_unpop(bool packed)
{
	struct virtq *vq = start(packed, 8, 0);
	struct segment s[] = { { page, 10, false }, { page, 10, false }, { page, 10, true } };
	bool good = true;

	/* Over the end of the ring and back. */
	for (unsigned i = 0; i < 100 && good; i++) {
		u16 id = ring_add(&r, s, 3, false), used;
		u32 bytes;

		good = virtq_pop(vq, &elem) == 1;
		virtq_unpop(vq, &elem);
		good = good && virtq_pop(vq, &elem) == 1 && elem.out_num == 2 &&
		       !virtq_has_more(vq);
		virtq_push(vq, &elem, i);
		good = good && ring_used(&r, &used, &bytes) && used == id && bytes == i;
	}
	return good && !vdev.broken;
}

static void push_some(struct virtq *vq, unsigned n)
{
	struct segment s = { page, 10, true };
	u16 id;
	u32 bytes;

	while (n--) {
		ring_add(&r, &s, 1, false);
		virtq_pop(vq, &elem);
		virtq_push(vq, &elem, 1);
		ring_used(&r, &id, &bytes);
	}
}

static bool pass_no_interrupt(bool packed)
{
	struct virtq *vq = start(packed, 8, 0);
	unsigned before;

	push_some(vq, 1);
	virtq_signal(vq);
	virtq_signal(vq); /* nothing new: no second one */
	before = interrupts;
	if (packed)
		put_le16(guest_ptr(&g, r.driver) + 2, VRING_PACKED_EVENT_FLAG_DISABLE);
	else
		put_le16(guest_ptr(&g, r.driver), VRING_AVAIL_F_NO_INTERRUPT);
	push_some(vq, 3);
	virtq_signal(vq);
	return before == 1 && interrupts == 1;
}

/* The driver wants to hear of the tenth: not of nine, of a batch that passes it, once; over several
 * laps. */
static bool pass_event_index(bool packed)
{
	struct virtq *vq = start(packed, 8, BOTH_FEATURES);
	bool good = true;

	for (unsigned lap = 0; lap < 100 && good; lap++) {
		u16 want = r.seen + 4;

		if (packed) {
			bool wrap = want >= 8 ? !r.used_wrap : r.used_wrap;

			put_le16(guest_ptr(&g, r.driver), want % 8 | wrap << 15);
			put_le16(guest_ptr(&g, r.driver) + 2, VRING_PACKED_EVENT_FLAG_DESC);
		} else {
			put_le16(guest_ptr(&g, r.driver) + 4 + 2 * 8, want);
		}
		interrupts = 0;
		push_some(vq, 2);
		virtq_signal(vq);
		push_some(vq, 2);
		virtq_signal(vq);
		good = interrupts == 0;
		push_some(vq, lap % 3 + 1);
		virtq_signal(vq);
		good = good && interrupts == 1;
		push_some(vq, 1);
		virtq_signal(vq);
		good = good && interrupts == 1;
	}
	return good;
}

static bool pass_suppress_kicks(bool packed, u64 features)
{
	struct virtq *vq = start(packed, 8, features);
	struct segment s = { page, 10, false };
	bool event = features & 1ull << VIRTIO_RING_F_EVENT_IDX, good;

	virtq_notify_off(vq);
	if (packed)
		good = get_le16(guest_ptr(&g, r.device) + 2) == VRING_PACKED_EVENT_FLAG_DISABLE;
	else
		good = event || get_le16(guest_ptr(&g, r.device)) == VRING_USED_F_NO_NOTIFY;
	ring_add(&r, &s, 1, false);
	good = good && virtq_notify_on(vq); /* something came meanwhile */
	good = good && virtq_pop(vq, &elem) == 1 && !virtq_notify_on(vq);
	if (packed && event)
		good = good && get_le16(guest_ptr(&g, r.device)) == (1 | 0x8000) &&
		       get_le16(guest_ptr(&g, r.device) + 2) == VRING_PACKED_EVENT_FLAG_DESC;
	else if (packed)
		good = good &&
		       get_le16(guest_ptr(&g, r.device) + 2) == VRING_PACKED_EVENT_FLAG_ENABLE;
	else if (event)
		good = good && get_le16(guest_ptr(&g, r.device) + 4 + 8 * 8) == 1;
	else
		good = good && get_le16(guest_ptr(&g, r.device)) == 0;
	return good;
}

static bool pass_without_dma(bool packed)
{
	struct virtq *vq = start(packed, 8, 0);
	struct segment s = { page, 10, false };

	ring_add(&r, &s, 1, false);
	dma = false;
	if (virtq_pop(vq, &elem) != 0)
		return false;
	dma = true;
	return virtq_pop(vq, &elem) == 1 && !vdev.broken;
}

static bool pass_reset(bool packed)
{
	struct virtq *vq = start(packed, 8, 0);
	struct segment s = { page, 10, true };
	u16 id;
	u32 bytes;

	ring_add(&r, &s, 1, false);
	if (virtq_pop(vq, &elem) != 1)
		return false;
	virtio_set_status(&vdev, 0);
	/* What comes back after the reset touches nothing. */
	virtq_push(vq, &elem, 10);
	virtq_signal(vq);
	return !ring_used(&r, &id, &bytes) && !interrupts && virtq_pop(vq, &elem) == 0 &&
	       !vq->enabled;
}

/* ---- what does not -------------------------------------------------------------------------- */

#define NEXT	 VRING_DESC_F_NEXT
#define WRITE	 VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

/* A ring of 8 whose descriptors are these; the table at page + 0x800 is for indirect ones. */
struct hostile {
	const char *name;
	bool packed;
	u64 features;
	struct {
		u64 gpa; /* 0: the page */
		u32 bytes;
		u16 flags, next;
	} desc[8], table[4];
	u16 head;      /* split: what the ring says */
	u16 avail;     /* split: the available index; 0: 1 */
	u64 table_gpa; /* where the first descriptor's table is; 0: it is none */
	bool good;     /* it is odd, but allowed */
};

#define PAST_END (GUEST_RAM + 0x100000)
#define TABLE	 1
#define IND	 (1ull << VIRTIO_RING_F_INDIRECT_DESC)

static const struct hostile hostiles[] = {
	{ "split: a plain buffer", .desc = { { 0, 10, 0, 0 } }, .good = true },
	{ "split: a head past the table", .desc = { { 0, 10, 0, 0 } }, .head = 8 },
	{ "split: a head of 65535", .desc = { { 0, 10, 0, 0 } }, .head = 65535 },
	{ "split: next past the table", .desc = { { 0, 10, NEXT, 8 } } },
	{ "split: a descriptor that follows itself", .desc = { { 0, 10, NEXT, 0 } } },
	{ "split: a loop of two", .desc = { { 0, 10, NEXT, 1 }, { 0, 10, NEXT, 0 } } },
	{ "split: a loop behind a beginning",
	  .desc = { { 0, 1, NEXT, 1 }, { 0, 1, NEXT, 2 }, { 0, 1, NEXT, 1 } } },
	{ "split: an available index of 9 in a ring of 8", .desc = { { 0, 10, 0, 0 } },
	  .avail = 9 },
	{ "split: an available index that ran backwards", .desc = { { 0, 10, 0, 0 } },
	  .avail = 65535 },
	{ "split: no bytes", .desc = { { 0, 0, 0, 0 } } },
	{ "split: readable after writable",
	  .desc = { { 0, 10, NEXT | WRITE, 1 }, { 0, 10, 0, 0 } } },
	{ "split: an address past RAM", .desc = { { PAST_END, 10, 0, 0 } } },
	{ "split: a buffer that leaves RAM", .desc = { { GUEST_RAM - 8, 16, 0, 0 } } },
	{ "split: a buffer that ends with RAM", .desc = { { GUEST_RAM - 8, 8, 0, 0 } },
	  .good = true },
	{ "split: 4 GiB - 1 of buffer", .desc = { { 0, 0xffffffff, 0, 0 } } },
	{ "split: an address that overflows", .desc = { { ~0ull - 7, 16, 0, 0 } } },
	{ "split: an address of all ones", .desc = { { ~0ull, 1, 0, 0 } } },
	{ "split: device registers as a buffer", .desc = { { GUEST_BAR_BASE, 64, WRITE, 0 } } },
	{ "split: indirect, not negotiated", .desc = { { TABLE, 16, INDIRECT, 0 } },
	  .table = { { 0, 10, 0, 0 } } },
	{ "split: indirect", .features = IND, .desc = { { TABLE, 32, INDIRECT, 0 } },
	  .table = { { 0, 10, NEXT, 1 }, { 0, 10, WRITE, 0 } }, .good = true },
	{ "split: indirect behind a direct one", .features = IND,
	  .desc = { { 0, 8, NEXT, 1 }, { TABLE, 16, INDIRECT, 0 } }, .table = { { 0, 10, 0, 0 } },
	  .good = true },
	{ "split: indirect within indirect", .features = IND,
	  .desc = { { TABLE, 32, INDIRECT, 0 } }, .table = { { TABLE, 32, INDIRECT, 0 } } },
	{ "split: indirect with next", .features = IND,
	  .desc = { { TABLE, 16, INDIRECT | NEXT, 1 }, { 0, 1, 0, 0 } },
	  .table = { { 0, 10, 0, 0 } } },
	{ "split: an empty table", .features = IND, .desc = { { TABLE, 0, INDIRECT, 0 } },
	  .table = { { 0, 10, 0, 0 } } },
	{ "split: a table of 17 bytes", .features = IND, .desc = { { TABLE, 17, INDIRECT, 0 } },
	  .table = { { 0, 1, 0, 0 } } },
	{ "split: a table past RAM", .features = IND, .desc = { { PAST_END, 32, INDIRECT, 0 } } },
	{ "split: a table that leaves RAM", .features = IND,
	  .desc = { { GUEST_RAM - 16, 32, INDIRECT, 0 } } },
	{ "split: a table of 4 GiB", .features = IND,
	  .desc = { { TABLE, 0xfffffff0, INDIRECT, 0 } } },
	{ "split: next past the indirect table", .features = IND,
	  .desc = { { TABLE, 32, INDIRECT, 0 } },
	  .table = { { 0, 10, NEXT, 2 }, { 0, 10, 0, 0 }, { 0, 10, 0, 0 } } },
	{ "split: a loop in the indirect table", .features = IND,
	  .desc = { { TABLE, 32, INDIRECT, 0 } },
	  .table = { { 0, 10, NEXT, 1 }, { 0, 10, NEXT, 0 } } },
	{ "split: no bytes in the indirect table", .features = IND,
	  .desc = { { TABLE, 16, INDIRECT, 0 } } },
	{ "packed: a plain buffer", .packed = true, .desc = { { 0, 10, 0, 0 } }, .good = true },
	{ "packed: no bytes", .packed = true, .desc = { { 0, 0, 0, 0 } } },
	{ "packed: every descriptor has a next", .packed = true,
	  .desc = { { 0, 1, NEXT },
		    { 0, 1, NEXT },
		    { 0, 1, NEXT },
		    { 0, 1, NEXT },
		    { 0, 1, NEXT },
		    { 0, 1, NEXT },
		    { 0, 1, NEXT },
		    { 0, 1, NEXT } } },
	{ "packed: readable after writable", .packed = true,
	  .desc = { { 0, 10, NEXT | WRITE }, { 0, 10, 0 } } },
	{ "packed: an address past RAM", .packed = true, .desc = { { PAST_END, 10, 0 } } },
	{ "packed: an address that overflows", .packed = true, .desc = { { ~0ull - 7, 16, 0 } } },
	{ "packed: 4 GiB - 1 of buffer", .packed = true, .desc = { { 0, 0xffffffff, WRITE } } },
	{ "packed: device registers as a buffer", .packed = true,
	  .desc = { { GUEST_BAR_BASE, 64, WRITE } } },
	{ "packed: any id", .packed = true, .desc = { { 0, 10, 0, 65535 } }, .good = true },
	{ "packed: indirect, not negotiated", .packed = true, .desc = { { TABLE, 16, INDIRECT } },
	  .table = { { 0, 10, 0 } } },
	{ "packed: indirect", .packed = true, .features = IND, .desc = { { TABLE, 32, INDIRECT } },
	  .table = { { 0, 10, 0 }, { 0, 10, WRITE } }, .good = true },
	{ "packed: indirect behind a direct one", .packed = true, .features = IND,
	  .desc = { { 0, 8, NEXT }, { TABLE, 16, INDIRECT } }, .table = { { 0, 10, 0 } } },
	{ "packed: indirect with next", .packed = true, .features = IND,
	  .desc = { { TABLE, 16, INDIRECT | NEXT }, { 0, 8, 0 } }, .table = { { 0, 10, 0 } } },
	{ "packed: indirect within indirect", .packed = true, .features = IND,
	  .desc = { { TABLE, 16, INDIRECT } }, .table = { { TABLE, 16, INDIRECT } } },
	{ "packed: an empty table", .packed = true, .features = IND,
	  .desc = { { TABLE, 0, INDIRECT } } },
	{ "packed: a table of 31 bytes", .packed = true, .features = IND,
	  .desc = { { TABLE, 31, INDIRECT } } },
	{ "packed: a table past RAM", .packed = true, .features = IND,
	  .desc = { { PAST_END, 32, INDIRECT } } },
};

static u64 hostile_gpa(u64 gpa)
{
	return gpa == TABLE ? page + 0x800 : gpa ? gpa : page;
}

static bool try_hostile(const struct hostile *h)
{
	struct virtq *vq = start(h->packed, 8, h->features);
	int popped;

	memset(guest_ptr(&g, page), 0, 4096);
	for (unsigned i = 0; i < 4; i++) {
		if (h->packed)
			desc_write(&g, page + 0x800, i, hostile_gpa(h->table[i].gpa),
				   h->table[i].bytes, 0, h->table[i].flags);
		else
			desc_write(&g, page + 0x800, i, hostile_gpa(h->table[i].gpa),
				   h->table[i].bytes, h->table[i].flags, h->table[i].next);
	}
	for (unsigned i = 0; i < 8; i++) {
		u64 gpa = hostile_gpa(h->desc[i].gpa);

		if (h->packed)
			desc_write(&g, r.desc, i, gpa, h->desc[i].bytes, h->desc[i].next,
				   h->desc[i].flags | 1 << VRING_PACKED_DESC_F_AVAIL);
		else
			desc_write(&g, r.desc, i, gpa, h->desc[i].bytes, h->desc[i].flags,
				   h->desc[i].next);
	}
	if (!h->packed) {
		put_le16(guest_ptr(&g, r.driver) + 4, h->head);
		put_le16(guest_ptr(&g, r.driver) + 2, h->avail ? h->avail : 1);
	}
	popped = virtq_pop(vq, &elem);
	if (h->good)
		return popped == 1 && !vdev.broken;
	/* It stands still, says so, and a reset heals it. */
	if (popped || !vdev.broken || !(vdev.status & VIRTIO_CONFIG_S_NEEDS_RESET) ||
	    config_interrupts != 1 || virtq_pop(vq, &elem) || virtq_has_more(vq))
		return false;
	virtio_set_status(&vdev, 0);
	return !vdev.broken && !vdev.status;
}

/* A table with more entries than a buffer may have segments. */
static bool fail_too_long(bool packed)
{
	struct virtq *vq = start(packed, 8, IND);
	u64 table = guest_alloc(&g, 16 * 2000);

	for (unsigned i = 0; i < 2000; i++) {
		if (packed)
			desc_write(&g, table, i, page, 1, 0, 0);
		else
			desc_write(&g, table, i, page, 1, i < 1999 ? NEXT : 0, i + 1);
	}
	if (packed) {
		desc_write(&g, r.desc, 0, table, 16 * 2000, 0,
			   INDIRECT | 1 << VRING_PACKED_DESC_F_AVAIL);
	} else {
		desc_write(&g, r.desc, 0, table, 16 * 2000, INDIRECT, 0);
		put_le16(guest_ptr(&g, r.driver) + 2, 1);
	}
	return virtq_pop(vq, &elem) == 0 && vdev.broken;
}

/* More buffers than descriptors: the driver gives what the device still has. */
static bool fail_twice(bool packed)
{
	struct virtq *vq = start(packed, 8, 0);
	struct segment s = { page, 10, false };

	for (unsigned i = 0; i < 8; i++) {
		ring_add(&r, &s, 1, false);
		if (virtq_pop(vq, &elem) != 1)
			return false;
	}
	ring_add(&r, &s, 1, false);
	return virtq_pop(vq, &elem) == 0 && vdev.broken;
}

static const struct {
	const char *name;
	u16 size;
	u64 desc, driver, device; /* 0: a good one */
	bool packed, good;
} areas[] = {
	{ "of one entry", 1, 0, 0, 0, false, true },
	{ "of 256", 256, 0, 0, 0, false, true },
	{ "packed, of 7", 7, 0, 0, 0, true, true },
	{ "of no entries", 0, 0, 0, 0, false, false },
	{ "split, of 7", 7, 0, 0, 0, false, false },
	{ "larger than offered", 512, 0, 0, 0, false, false },
	{ "packed, of 65535", 65535, 0, 0, 0, true, false },
	{ "whose descriptors are not in RAM", 8, PAST_END, 0, 0, false, false },
	{ "whose descriptors are not aligned", 8, 0x10008, 0, 0, false, false },
	{ "whose descriptors leave RAM", 8, GUEST_RAM - 16, 0, 0, false, false },
	{ "whose driver area is at the end of the world", 8, 0, ~0ull - 1, 0, false, false },
	{ "whose driver area is not aligned", 8, 0, 0x10001, 0, false, false },
	{ "whose device area is in device registers", 8, 0, 0, GUEST_BAR_BASE, false, false },
	{ "whose device area is not aligned", 8, 0, 0, 0x10002, false, false },
	{ "packed, whose driver area is past RAM", 8, 0, PAST_END, 0, true, false },
};

static bool try_area(unsigned i)
{
	struct virtq *vq = start(areas[i].packed, 8, 0);

	vq->enabled = false;
	vq->size = areas[i].size;
	vq->desc_gpa = areas[i].desc ? areas[i].desc : 0x20000;
	vq->driver_gpa = areas[i].driver ? areas[i].driver : 0x30000;
	vq->device_gpa = areas[i].device ? areas[i].device : 0x40000;
	virtio_queue_enable(vq);
	return vq->enabled == areas[i].good && vdev.broken == !areas[i].good;
}

/* Another CPU of the guest rewrites the ring while the device reads it. */
struct rewriter {
	pthread_t thread;
	bool stop;
};

static void *rewrite(void *arg)
{
	struct rewriter *w = arg;
	u8 *ring = guest_ptr(&g, r.desc), *driver = guest_ptr(&g, r.driver);
	u64 state = 88172645463325252ull;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		__atomic_store_n((u16 *)(ring + (state % 128 & ~1ull)), state >> 40,
				 __ATOMIC_RELAXED);
		__atomic_store_n((u16 *)(driver + 4 + (state >> 8) % 8 * 2), (state >> 16) % 10,
				 __ATOMIC_RELAXED);
	}
	return NULL;
}

static bool survive_rewriting(bool packed)
{
	struct rewriter w = { .stop = false };
	bool good = true;

	start(packed, 8, BOTH_FEATURES);
	pthread_create(&w.thread, NULL, rewrite, &w);
	for (unsigned i = 0; i < 100000 && good; i++) {
		struct virtq *vq = &vdev.vq[0];

		if (!packed)
			shared_store16(guest_ptr(&g, r.driver) + 2, vq->next_avail + 1);
		if (virtq_pop(vq, &elem) > 0) {
			/* Whatever it is, it is RAM of the guest. */
			for (unsigned j = 0; j < elem.out_num + elem.in_num; j++) {
				u8 *base = elem.iov[j].iov_base;

				good = good && base >= g.m.memory.ram &&
				       base + elem.iov[j].iov_len <=
					       g.m.memory.ram + g.m.memory.ram_size;
			}
			virtq_push(vq, &elem, 0);
		}
		if (vdev.broken) {
			vdev.broken = false;
			vq->in_use = 0;
		}
	}
	__atomic_store_n(&w.stop, true, __ATOMIC_RELAXED);
	pthread_join(w.thread, NULL);
	return good;
}

int main(void)
{
	tap_begin();
	guest_init(&g);
	virtq_elem_init(&elem);
	for (int packed = 0; packed < 2; packed++) {
		const char *name = packed ? "packed" : "split";

		tap_ok(pass_one(packed, false), "%s: a chain goes there and back", name);
		tap_ok(pass_one(packed, true), "%s: an indirect table goes there and back", name);
		tap_ok(pass_many(packed, 8), "%s: 20000 rounds in a ring of 8", name);
		tap_ok(pass_many(packed, 256), "%s: 20000 rounds in a ring of 256", name);
		if (packed)
			tap_ok(pass_many(packed, 13), "packed: 20000 rounds in a ring of 13");
		tap_ok(pass_unpop(packed), "%s: what is put back comes again", name);
		tap_ok(pass_no_interrupt(packed),
		       "%s: no interrupt that is not wanted, nor a second one", name);
		tap_ok(pass_event_index(packed), "%s: interrupts by the event index", name);
		tap_ok(pass_suppress_kicks(packed, 0), "%s: notifications off and on", name);
		tap_ok(pass_suppress_kicks(packed, BOTH_FEATURES),
		       "%s: notifications off and on by event index", name);
		tap_ok(pass_without_dma(packed),
		       "%s: without bus mastering the ring is not touched", name);
		tap_ok(pass_reset(packed), "%s: after a reset the ring is not touched", name);
		tap_ok(fail_too_long(packed), "%s: a table of 2000 segments is refused", name);
		tap_ok(fail_twice(packed), "%s: more buffers than descriptors are refused", name);
		tap_ok(survive_rewriting(packed), "%s: a ring that changes while it is read", name);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(hostiles); i++)
		tap_ok(try_hostile(&hostiles[i]), "%s", hostiles[i].name);
	for (unsigned i = 0; i < ARRAY_SIZE(areas); i++)
		tap_ok(try_area(i), "a queue %s is %s", areas[i].name,
		       areas[i].good ? "taken" : "refused");
	return tap_end();
}
