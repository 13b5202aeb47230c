/*
 * The address spaces of devices: who answers where regions overlap, how accesses are split, what
 * DMA reaches.
 */
#include "tests/vmm/bare.h"

struct recorder {
	struct io_region region;
	u8 value;
	u64 offset, written;
	unsigned size, calls;
};

static u64 recorder_read(struct io_region *r, u64 offset, unsigned size)
{
	struct recorder *c = container_of(r, struct recorder, region);

	c->offset = offset;
	c->size = size;
	c->calls++;
	return 0x0101010101010101ull * c->value;
}

static void recorder_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct recorder *c = container_of(r, struct recorder, region);

	c->offset = offset;
	c->size = size;
	c->written = value;
	c->calls++;
}

static const struct io_ops wide = { .read = recorder_read, .write = recorder_write };
static const struct io_ops narrow = { .read = recorder_read,
				      .write = recorder_write,
				      .max_size = 1 };
static const struct io_ops none = { .max_size = 4 };

static struct recorder a = { .value = 0xaa }, b = { .value = 0xbb }, c = { .value = 0xcc };

#define BASE 0xd0000000ull

static void map(struct recorder *r, const struct io_ops *ops, u64 base, u64 size, int priority)
{
	machine_lock(&bare);
	io_region_unmap(&bare, &r->region);
	io_region_init(&r->region, "recorder", ops, size);
	io_region_map(&bare, &r->region, IO_MEMORY, base, priority);
	machine_unlock(&bare);
	r->calls = 0;
}

static void unmap(struct recorder *r)
{
	machine_lock(&bare);
	io_region_unmap(&bare, &r->region);
	machine_unlock(&bare);
}

static void test_overlap(void)
{
	map(&a, &wide, BASE, 0x1000, 0);
	tap_ok(mmio_in(BASE, 4) == 0xaaaaaaaa, "a region answers at its base");
	tap_ok(mmio_in(BASE + 0xffc, 4) == 0xaaaaaaaa && a.offset == 0xffc, "and at its end");
	tap_ok(mmio_in(BASE + 0x1000, 4) == 0xffffffff, "behind it nobody answers");
	tap_ok(mmio_in(BASE - 4, 4) == 0xffffffff, "nor before it");
	map(&b, &wide, BASE + 0x400, 0x100, 1);
	tap_ok(mmio_in(BASE + 0x3fc, 4) == 0xaaaaaaaa && mmio_in(BASE + 0x400, 4) == 0xbbbbbbbb &&
		       mmio_in(BASE + 0x4fc, 4) == 0xbbbbbbbb &&
		       mmio_in(BASE + 0x500, 4) == 0xaaaaaaaa,
	       "the higher priority is seen through a hole in the lower");
	tap_ok(a.offset == 0x500, "behind the hole offsets are still from the region's base");
	map(&c, &wide, BASE + 0x400, 0x100, 0);
	tap_ok(mmio_in(BASE + 0x400, 4) == 0xbbbbbbbb,
	       "a later region of lower priority stays below");
	unmap(&b);
	tap_ok(mmio_in(BASE + 0x400, 4) == 0xcccccccc, "of equal priority the later is seen");
	unmap(&c);
	tap_ok(mmio_in(BASE + 0x400, 4) == 0xaaaaaaaa, "taken away, what was below is seen again");
	map(&a, &wide, BASE + 0x100000, 0x1000, 0);
	tap_ok(mmio_in(BASE, 4) == 0xffffffff && mmio_in(BASE + 0x100000, 4) == 0xaaaaaaaa,
	       "a region moves");
	map(&a, &wide, ~0ull - 0xfff, 0x1000, 0);
	tap_ok(mmio_in(~0ull - 3, 4) == 0xaaaaaaaa, "the last page of the space can be mapped");
	map(&a, &wide, ~0ull - 0xffe, 0x1000, 0);
	tap_ok(!a.region.mapped, "a region that would wrap around is not mapped");
	unmap(&a);
}

static void test_split(void)
{
	map(&a, &narrow, BASE, 0x1000, 0);
	tap_ok(mmio_in(BASE, 4) == 0xaaaaaaaa && a.calls == 4 && a.size == 1,
	       "a byte-wide device sees four bytes");
	mmio_out(BASE + 8, 0x04030201, 4);
	tap_ok(a.offset == 11 && a.written == 4, "written lowest address first");
	map(&a, &wide, BASE, 0x1000, 0);
	mmio_out(BASE + 8, 0x1122334455667788ull, 8);
	tap_ok(a.calls == 1 && a.size == 8 && a.written == 0x1122334455667788ull,
	       "a wide device takes eight at once");
	tap_ok(mmio_in(BASE + 0xffe, 4) == 0xffffaaaa && a.size == 2,
	       "an access over the end is cut there");
	mmio_in(BASE, 3);
	tap_ok(a.calls == 4 && a.size == 1, "three bytes are two and one");
	map(&b, &none, BASE + 0x2000, 0x1000, 0);
	tap_ok(mmio_in(BASE + 0x2000, 4) == 0xffffffff,
	       "a region that cannot be read reads as all ones");
	mmio_out(BASE + 0x2000, 1, 4);
	unmap(&a);
	unmap(&b);
}

static void test_memory(void)
{
	u8 buffer[16];

	map(&a, &wide, BASE, 0x1000, 0);
	tap_ok(!memory_ptr(&bare, BASE, 4) && !memory_ptr_write(&bare, BASE, 4),
	       "DMA into device registers is refused");
	tap_ok(memory_write(&bare, BASE, "abcd", 4) == -EFAULT && !a.calls,
	       "and does not reach the device");
	tap_ok(memory_ptr(&bare, 0, 0xa0000) && !memory_ptr(&bare, 0, 0xa0001),
	       "RAM ends at the screen's hole");
	tap_ok(!memory_ptr(&bare, 16 * MiB - 4, 8), "and at its size");
	tap_ok(memory_ptr(&bare, 16 * MiB - 8, 8) && memory_ptr(&bare, 0x1000, 0),
	       "up to the last byte");
	tap_ok(!memory_ptr(&bare, 0x1000, ~0ull) && !memory_ptr(&bare, ~0ull, 2),
	       "lengths that overflow are refused");
	memset(buffer, 0x55, sizeof(buffer));
	tap_ok(memory_read(&bare, 0xa0000 - 8, buffer, 16) == -EFAULT && !buffer[8] && !buffer[15],
	       "a read over the end gives zeroes there");
	unmap(&a);
}

int main(void)
{
	tap_begin();
	bare_start(16 * MiB);
	test_overlap();
	test_split();
	test_memory();
	bare_stop();
	return tap_end();
}
