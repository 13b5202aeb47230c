/*
 * The ports of virtio-serial as devices: virtconsole and virtserialport. See serial.h.
 */
#include "vmm/machine.h"
#include "vmm/virtio/serial_int.h"

static bool port_is_console(const struct device *dev)
{
	return *(const bool *)dev->class->data;
}

static int port_realize(struct device *dev, struct error *err)
{
	struct serial_port *port = container_of(dev, struct serial_port, dev);
	struct virtio_serial *s = container_of(dev->bus, struct virtio_serial, bus);
	int result;

	port->console = port_is_console(dev);
	port->front.can_receive = serial_port_can_receive;
	port->front.receive = serial_port_receive;
	port->front.event = serial_port_event;
	port->front.writable = serial_port_writable;
	result = serial_port_add(s, port, err);
	if (result < 0)
		return result;
	if (port->chardev &&
	    (result = chardev_attach(dev->machine, port->chardev, &port->front, err)) < 0)
		serial_port_remove(port);
	return result;
}

static void port_unrealize(struct device *dev)
{
	struct serial_port *port = container_of(dev, struct serial_port, dev);

	chardev_detach(&port->front);
	serial_port_remove(port);
}

static const struct property port_properties[] = {
	PROPERTY_STRING("chardev", struct serial_port, chardev, NULL,
			"where the bytes go: an id of -chardev"),
	PROPERTY_STRING("name", struct serial_port, name, NULL, "the guest finds the port by it"),
	PROPERTY_U32("nr", struct serial_port, nr, "4294967295",
		     "number (default: the next that is free)"),
	{}
};

static const bool is_console = true, is_channel;

static const struct device_class virtconsole_class = {
	.name = "virtconsole",
	.description = "a terminal on virtio-serial",
	.bus = SERIAL_BUS,
	.size = sizeof(struct serial_port),
	.properties = port_properties,
	.data = &is_console,
	.realize = port_realize,
	.unrealize = port_unrealize,
};
DEVICE_REGISTER(virtconsole_class)

static const struct device_class virtserialport_class = {
	.name = "virtserialport",
	.description = "a channel on virtio-serial",
	.bus = SERIAL_BUS,
	.size = sizeof(struct serial_port),
	.properties = port_properties,
	.data = &is_channel,
	.realize = port_realize,
	.unrealize = port_unrealize,
};
DEVICE_REGISTER(virtserialport_class)
