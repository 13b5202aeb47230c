/*
 * Two devices for tests and firmware: a port whose writes end the monitor, and one whose writes are
 * text.
 *
 *	-device isa-debug-exit,iobase=0x501,iosize=2	writing v ends with status (v << 1) | 1
 *	-device isa-debugcon,chardev=ID,iobase=0xe9	(-debugcon BACKEND is short for it)
 */
#include "vmm/chardev.h"
#include "vmm/machine.h"

struct debug_exit {
	struct device dev;
	struct io_region port;
	u32 iobase, iosize;
};

static void exit_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct debug_exit *d = container_of(r, struct debug_exit, port);

	machine_shutdown(d->dev.machine, ((value << 1) | 1) & 0xff);
}

static u64 exit_read(struct io_region *r, u64 offset, unsigned size)
{
	return 0;
}

static const struct io_ops exit_ops = { .read = exit_read, .write = exit_write };

static int place(struct machine *m, struct io_region *r, u32 iobase, u32 iosize, struct error *err)
{
	if (!iosize || iosize > 8 || iobase > 0x10000 - iosize)
		return error_set(err, -EINVAL, "iobase=0x%x,iosize=%u: not in the 64 KiB of ports",
				 iobase, iosize);
	if (bus_lookup(m, IO_PORT, iobase))
		return error_set(err, -EBUSY, "iobase=0x%x: not free", iobase);
	io_region_map(m, r, IO_PORT, iobase, 0);
	return 0;
}

static int exit_realize(struct device *dev, struct error *err)
{
	struct debug_exit *d = container_of(dev, struct debug_exit, dev);

	io_region_init(&d->port, "debug-exit", &exit_ops, d->iosize);
	return place(dev->machine, &d->port, d->iobase, d->iosize, err);
}

static void exit_unrealize(struct device *dev)
{
	io_region_unmap(dev->machine, &container_of(dev, struct debug_exit, dev)->port);
}

static const struct property exit_properties[] = {
	PROPERTY_U32("iobase", struct debug_exit, iobase, "0x501", "the port"),
	PROPERTY_U32("iosize", struct debug_exit, iosize, "2", "how many ports, 1 to 8"),
	{}
};

static const struct device_class debug_exit_class = {
	.name = "isa-debug-exit",
	.description = "a port that ends the monitor",
	.bus = "ISA",
	.size = sizeof(struct debug_exit),
	.properties = exit_properties,
	.realize = exit_realize,
	.unrealize = exit_unrealize,
};
DEVICE_REGISTER(debug_exit_class)

struct debugcon {
	struct device dev;
	struct io_region port;
	struct chardev_front front;
	char *chardev;
	u32 iobase, readback;
};

static void debugcon_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct debugcon *d = container_of(r, struct debugcon, port);
	u8 byte = value;

	chardev_write(&d->front, &byte, 1);
}

static u64 debugcon_read(struct io_region *r, u64 offset, unsigned size)
{
	return container_of(r, struct debugcon, port)->readback;
}

static const struct io_ops debugcon_ops = { .read = debugcon_read,
					    .write = debugcon_write,
					    .max_size = 1 };

static int debugcon_realize(struct device *dev, struct error *err)
{
	struct debugcon *d = container_of(dev, struct debugcon, dev);
	int r;

	if (!d->chardev)
		return error_set(err, -EINVAL, "chardev= is wanted");
	r = chardev_attach(dev->machine, d->chardev, &d->front, err);
	if (r < 0)
		return r;
	io_region_init(&d->port, "debugcon", &debugcon_ops, 1);
	r = place(dev->machine, &d->port, d->iobase, 1, err);
	if (r < 0)
		chardev_detach(&d->front);
	return r;
}

static void debugcon_unrealize(struct device *dev)
{
	struct debugcon *d = container_of(dev, struct debugcon, dev);

	io_region_unmap(dev->machine, &d->port);
	chardev_detach(&d->front);
}

static const struct property debugcon_properties[] = {
	PROPERTY_STRING("chardev", struct debugcon, chardev, NULL, "where the text goes"),
	PROPERTY_U32("iobase", struct debugcon, iobase, "0xe9", "the port"),
	PROPERTY_U32("readback", struct debugcon, readback, "0xe9",
		     "what reading it gives: the sign that it is there"),
	{}
};

static const struct device_class debugcon_class = {
	.name = "isa-debugcon",
	.description = "a port for debugging text",
	.bus = "ISA",
	.size = sizeof(struct debugcon),
	.properties = debugcon_properties,
	.realize = debugcon_realize,
	.unrealize = debugcon_unrealize,
};
DEVICE_REGISTER(debugcon_class)
