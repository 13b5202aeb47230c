/*
 * The address spaces of devices: regions may overlap and move; a flat view, rebuilt when they do,
 * makes a lookup one binary search. Accesses are split to what a device can take.
 */
#include "vmm/bus.h"
#include "vmm/machine.h"
#include <linux/kvm.h>
#include <stdlib.h>

void bus_init(struct bus *bus)
{
	unsigned i;

	*bus = (struct bus){};
	for (i = 0; i < IO_SPACES; i++)
		list_init(&bus->regions[i]);
}

void bus_destroy(struct bus *bus)
{
	unsigned i;

	for (i = 0; i < IO_SPACES; i++) {
		free(bus->view[i]);
		bus->view[i] = NULL;
		bus->ranges[i] = 0;
	}
}

static int compare_u64(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static bool above(const struct io_region *a, const struct io_region *b)
{
	return a->priority != b->priority ? a->priority > b->priority : a->order > b->order;
}

/*
 * Between two neighbouring edges (a region's first address, or the one after its last) the answer
 * is the same everywhere, so one winner is found for each such stretch. There are tens of regions:
 * quadratic is cheap, and this runs only on a change.
 */
static void rebuild(struct bus *bus, enum io_space space)
{
	struct list *head = &bus->regions[space], *pos;
	struct io_region *r, *winner;
	struct io_range *view;
	unsigned count = 0, edges = 0, i, n = 0;
	u64 *edge;

	list_for_each (pos, head)
		count++;
	edge = xzalloc((2 * count + 1) * sizeof(*edge));
	view = xzalloc((2 * count + 1) * sizeof(*view));
	list_for_each (pos, head) {
		r = list_entry(pos, struct io_region, link);
		edge[edges++] = r->base;
		if (r->base + r->size) /* ends at the very top: no edge after it */
			edge[edges++] = r->base + r->size;
	}
	qsort(edge, edges, sizeof(*edge), compare_u64);
	for (i = 0; i < edges; i++) {
		if (i && edge[i] == edge[i - 1])
			continue;
		winner = NULL;
		list_for_each (pos, head) {
			r = list_entry(pos, struct io_region, link);
			if (edge[i] - r->base < r->size && (!winner || above(r, winner)))
				winner = r;
		}
		if (n && view[n - 1].end == ~0ull)
			view[n - 1].end = edge[i] - 1;
		if (winner && n && view[n - 1].region == winner && view[n - 1].end == edge[i] - 1)
			view[n - 1].end = ~0ull;
		else if (winner)
			view[n++] = (struct io_range){ edge[i], ~0ull, winner };
	}
	if (n && view[n - 1].end == ~0ull)
		view[n - 1].end = view[n - 1].region->base + view[n - 1].region->size - 1;
	free(edge);
	free(bus->view[space]);
	bus->view[space] = view;
	bus->ranges[space] = n;
}

void io_region_init(struct io_region *r, const char *name, const struct io_ops *ops, u64 size)
{
	*r = (struct io_region){ .name = name, .ops = ops, .size = size };
}

void io_region_map(struct machine *m, struct io_region *r, enum io_space space, u64 base,
		   int priority)
{
	struct bus *bus = &m->bus;

	if (r->mapped && r->space == space && r->base == base && r->priority == priority)
		return;
	if (r->mapped)
		io_region_unmap(m, r);
	/*
	 * A region that would wrap around the top of its space cannot be reached in full: it is cut
	 * off by not mapping it.
	 */
	if (!r->size || base + (r->size - 1) < base ||
	    (space == IO_PORT && base + r->size > 0x10000))
		return;
	r->space = space;
	r->base = base;
	r->priority = priority;
	r->order = ++bus->order;
	r->mapped = true;
	list_add_tail(&bus->regions[space], &r->link);
	rebuild(bus, space);
}

void io_region_unmap(struct machine *m, struct io_region *r)
{
	if (!r->mapped)
		return;
	list_del(&r->link);
	r->mapped = false;
	rebuild(&m->bus, r->space);
}

static const struct io_range *find(const struct bus *bus, enum io_space space, u64 addr)
{
	const struct io_range *view = bus->view[space];
	unsigned low = 0, high = bus->ranges[space], mid;

	while (low < high) {
		mid = (low + high) / 2;
		if (addr < view[mid].base)
			high = mid;
		else if (addr > view[mid].end)
			low = mid + 1;
		else
			return &view[mid];
	}
	return NULL;
}

struct io_region *bus_lookup(struct machine *m, enum io_space space, u64 addr)
{
	const struct io_range *range = find(&m->bus, space, addr);

	return range ? range->region : NULL;
}

/* The largest power of two that the device takes, that is left, and that stays inside the range. */
static unsigned chunk(const struct io_range *range, u64 addr, unsigned size)
{
	unsigned max = range->region->ops->max_size ? range->region->ops->max_size : 8;
	u64 room = range->end - addr + 1;
	unsigned n = 8;

	while (n > size || n > max || (room && n > room))
		n /= 2;
	return n;
}

static u64 ones(unsigned size)
{
	return size >= 8 ? ~0ull : (1ull << (8 * size)) - 1;
}

u64 bus_read(struct machine *m, enum io_space space, u64 addr, unsigned size)
{
	const struct io_range *range;
	unsigned done = 0, n;
	u64 value = 0, part;

	while (done < size) {
		range = find(&m->bus, space, addr + done);
		n = range ? chunk(range, addr + done, size - done) : 1;
		part = ~0ull;
		if (range && range->region->ops->read)
			part = range->region->ops->read(range->region,
							addr + done - range->region->base, n);
		value |= (part & ones(n)) << (8 * done);
		done += n;
	}
	return value;
}

void bus_write(struct machine *m, enum io_space space, u64 addr, u64 value, unsigned size)
{
	const struct io_range *range;
	unsigned done = 0, n;

	while (done < size) {
		range = find(&m->bus, space, addr + done);
		n = range ? chunk(range, addr + done, size - done) : 1;
		if (range && range->region->ops->write)
			range->region->ops->write(range->region, addr + done - range->region->base,
						  (value >> (8 * done)) & ones(n), n);
		done += n;
	}
}

static int eventfd_ioctl(struct machine *m, enum io_space space, u64 addr, unsigned size,
			 bool match, u64 value, int fd, u32 flags)
{
	struct kvm_ioeventfd io = {
		.datamatch = match ? value : 0,
		.addr = addr,
		.len = size,
		.fd = fd,
		.flags = flags | (match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
			 (space == IO_PORT ? KVM_IOEVENTFD_FLAG_PIO : 0),
	};

	if (!m->accel || accel_has(m, KVM_CAP_IOEVENTFD) <= 0)
		return -ENOSYS;
	return accel_ioctl(m, m->vm_fd, KVM_IOEVENTFD, &io);
}

int bus_eventfd_add(struct machine *m, enum io_space space, u64 addr, unsigned size, bool match,
		    u64 value, int fd)
{
	return eventfd_ioctl(m, space, addr, size, match, value, fd, 0);
}

int bus_eventfd_del(struct machine *m, enum io_space space, u64 addr, unsigned size, bool match,
		    u64 value, int fd)
{
	return eventfd_ioctl(m, space, addr, size, match, value, fd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}
