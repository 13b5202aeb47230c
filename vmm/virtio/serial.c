/*
 * virtio-serial: the device, its control queue, and data on its way through the ports. See
 * serial.h; the ports as devices are in serial_port.c.
 *
 * Queues: 0 and 1 are port 0's, 2 and 3 control, from 4 on the further ports'; the even ones lead
 * to the guest (§5.3.2).
 */
#include "vmm/machine.h"
#include "vmm/virtio/serial.h"
#include "vmm/virtio/serial_int.h"
#include <linux/virtio_console.h>
#include <stdlib.h>

#define CTL_IN	   2
#define CTL_OUT	   3
#define QUEUE_SIZE 64
#define NR_AUTO	   0xffffffff

static_assert(sizeof(struct virtio_console_config) == 12, "virtio 1.2 §5.3.4");

static unsigned port_queue(u32 nr)
{
	return nr ? 2 * (nr + 1) : 0;
}

static struct virtq *port_vq(struct serial_port *port, bool to_host)
{
	return &port->serial->v.vdev.vq[port_queue(port->nr) + to_host];
}

static struct serial_port *queue_port(struct virtio_serial *s, unsigned queue)
{
	u32 nr = queue < 2 ? 0 : queue / 2 - 1;

	return nr < s->max_ports ? s->ports[nr] : NULL;
}

static bool serial_multiport(const struct virtio_serial *s)
{
	return virtio_has(&s->v.vdev, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* Does anybody in the guest read? A driver without ports has one that is always open. */
static bool port_guest_open(const struct serial_port *port)
{
	const struct virtio_device *vdev = &port->serial->v.vdev;

	if (!virtio_live(vdev))
		return false;
	return serial_multiport(port->serial) ? port->guest_open : !port->nr;
}

/* ---- control -------------------------------------------------------------------------------- */

/* Sends what waits, as far as there are buffers. */
static void ctl_flush(struct virtio_serial *s)
{
	struct virtq *vq = &s->v.vdev.vq[CTL_IN];

	while (s->held_count) {
		struct serial_ctl *ctl = &s->held[s->held_first];
		struct serial_port *port = ctl->port < s->max_ports ? s->ports[ctl->port] : NULL;
		struct virtio_console_control message = { ctl->port, ctl->event, ctl->value };
		u8 buf[sizeof(message) + 256];
		size_t bytes = sizeof(message), extra = 0;

		if (virtq_pop(vq, &s->rx) <= 0)
			break;
		memcpy(buf, &message, sizeof(message));
		if (ctl->event == VIRTIO_CONSOLE_PORT_NAME && port && port->name) {
			extra = MIN(strlen(port->name), sizeof(buf) - sizeof(message));
			memcpy(buf + bytes, port->name, extra);
		} else if (ctl->event == VIRTIO_CONSOLE_RESIZE && port) {
			put_le16(buf + bytes, port->columns);
			put_le16(buf + bytes + 2, port->rows);
			extra = 4;
		}
		bytes = iov_from_buf(s->rx.iov + s->rx.out_num, s->rx.in_num, 0, buf,
				     bytes + extra);
		virtq_push(vq, &s->rx, bytes);
		s->held_first = (s->held_first + 1) % SERIAL_CTL_HELD;
		s->held_count--;
	}
	virtq_signal(vq);
}

void serial_ctl_send(struct virtio_serial *s, u32 port, u16 event, u16 value)
{
	if (!serial_multiport(s) || !s->driver_ready)
		return;
	/* A driver that asks and asks and takes no answers loses some. */
	if (s->held_count == SERIAL_CTL_HELD)
		return;
	s->held[(s->held_first + s->held_count++) % SERIAL_CTL_HELD] =
		(struct serial_ctl){ port, event, value };
	ctl_flush(s);
}

static void port_send_size(struct serial_port *port)
{
	struct virtio_device *vdev = &port->serial->v.vdev;

	if (!port->columns || !port->rows || !virtio_has(vdev, VIRTIO_CONSOLE_F_SIZE))
		return;
	if (serial_multiport(port->serial)) {
		if (port->guest_ready)
			serial_ctl_send(port->serial, port->nr, VIRTIO_CONSOLE_RESIZE, 0);
	} else if (!port->nr) {
		virtio_config_changed(vdev);
	}
}

void serial_port_resize(struct serial_port *port, u16 columns, u16 rows)
{
	struct virtio_device *vdev = &port->serial->v.vdev;

	if (!port->console || (port->columns == columns && port->rows == rows))
		return;
	port->columns = columns;
	port->rows = rows;
	if (!port->nr) {
		put_le16(vdev->config + offsetof(struct virtio_console_config, cols), columns);
		put_le16(vdev->config + offsetof(struct virtio_console_config, rows), rows);
	}
	port_send_size(port);
}

/* The driver knows the port: it hears what kind it is, its size, its name, and whether somebody is
 * there. */
static void port_introduce(struct serial_port *port)
{
	struct virtio_serial *s = port->serial;

	port->guest_ready = true;
	if (port->console) {
		serial_ctl_send(s, port->nr, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
		port_send_size(port);
	}
	if (port->name)
		serial_ctl_send(s, port->nr, VIRTIO_CONSOLE_PORT_NAME, 1);
	if (port->console || chardev_connected(&port->front))
		serial_ctl_send(s, port->nr, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static void ctl_receive(struct virtio_serial *s, const struct virtio_console_control *message)
{
	struct serial_port *port;

	if (message->event == VIRTIO_CONSOLE_DEVICE_READY) {
		if (!message->value)
			return;
		s->driver_ready = true;
		for (u32 i = 0; i < s->max_ports; i++) {
			if (s->ports[i])
				serial_ctl_send(s, i, VIRTIO_CONSOLE_PORT_ADD, 1);
		}
		return;
	}
	port = message->id < s->max_ports ? s->ports[message->id] : NULL;
	if (!port)
		return;
	switch (message->event) {
	case VIRTIO_CONSOLE_PORT_READY:
		/* 0: the driver could not make the port. */
		if (message->value)
			port_introduce(port);
		break;
	case VIRTIO_CONSOLE_PORT_OPEN:
		port->guest_open = message->value;
		if (port->guest_open)
			chardev_poke(&port->front);
		else
			port->input_count = 0;
		break;
	default: break;
	}
}

static void ctl_queue(struct virtio_serial *s, struct virtq *vq)
{
	do {
		virtq_notify_off(vq);
		while (virtq_pop(vq, &s->ctl_out) > 0) {
			struct virtio_console_control message;

			if (iov_to_buf(s->ctl_out.iov, s->ctl_out.out_num, 0, &message,
				       sizeof(message)) == sizeof(message))
				ctl_receive(s, &message);
			virtq_push(vq, &s->ctl_out, 0);
		}
	} while (virtq_notify_on(vq));
	virtq_signal(vq);
}

/* ---- data to the guest ---------------------------------------------------------------------- */

static void port_input(struct serial_port *port)
{
	struct virtio_serial *s = port->serial;
	struct virtq *vq = port_vq(port, false);
	size_t at = 0;

	if (!port_guest_open(port))
		return;
	while (at < port->input_count && virtq_pop(vq, &s->rx) > 0) {
		size_t n = iov_from_buf(s->rx.iov + s->rx.out_num, s->rx.in_num, 0,
					port->input + at, port->input_count - at);

		if (!n) {
			virtio_broken(&s->v.vdev, "an input buffer without room");
			return;
		}
		virtq_push(vq, &s->rx, n);
		at += n;
	}
	port->input_count -= at;
	memmove(port->input, port->input + at, port->input_count);
	virtq_signal(vq);
}

size_t serial_port_can_receive(struct chardev_front *front)
{
	struct serial_port *port = container_of(front, struct serial_port, front);

	return port_guest_open(port) ? sizeof(port->input) - port->input_count : 0;
}

void serial_port_receive(struct chardev_front *front, const u8 *bytes, size_t count)
{
	struct serial_port *port = container_of(front, struct serial_port, front);

	count = MIN(count, sizeof(port->input) - port->input_count);
	memcpy(port->input + port->input_count, bytes, count);
	port->input_count += count;
	port_input(port);
}

/* ---- data to the host ----------------------------------------------------------------------- */

/* Writes what is left of port->out. False: the chardev takes no more for now. */
static bool port_output(struct serial_port *port)
{
	struct virtq_elem *elem = &port->out;
	size_t skip = port->out_at;

	for (unsigned i = 0; i < elem->out_num; i++) {
		const u8 *base = elem->iov[i].iov_base;
		size_t n = elem->iov[i].iov_len, taken;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		taken = chardev_write(&port->front, base + skip, n - skip);
		port->out_at += taken;
		if (taken < n - skip)
			return false;
		skip = 0;
	}
	return true;
}

static void port_drain(struct serial_port *port)
{
	struct virtq *vq = port_vq(port, true);

	do {
		virtq_notify_off(vq);
		for (;;) {
			if (!port->out_pending) {
				if (virtq_pop(vq, &port->out) <= 0)
					break;
				port->out_at = 0;
				port->out_pending = true;
			}
			/* The queue stands still until the chardev is writable. */
			if (!port_output(port)) {
				virtq_signal(vq);
				return;
			}
			port->out_pending = false;
			virtq_push(vq, &port->out, 0);
		}
	} while (virtq_notify_on(vq));
	virtq_signal(vq);
}

void serial_port_writable(struct chardev_front *front)
{
	struct serial_port *port = container_of(front, struct serial_port, front);

	if (port->out_pending && virtio_live(&port->serial->v.vdev))
		port_drain(port);
}

/* ---- the device ----------------------------------------------------------------------------- */

static void serial_discard(struct virtio_serial *s, struct virtq *vq)
{
	while (virtq_pop(vq, &s->rx) > 0)
		virtq_push(vq, &s->rx, 0);
	virtq_signal(vq);
}

static void serial_queue(struct virtio_device *vdev, struct virtq *vq)
{
	struct virtio_serial *s = container_of(vdev, struct virtio_serial, v.vdev);
	struct serial_port *port;

	if (vq->index == CTL_IN) {
		ctl_flush(s);
		return;
	}
	if (vq->index == CTL_OUT) {
		ctl_queue(s, vq);
		return;
	}
	port = queue_port(s, vq->index);
	if (vq->index % 2) {
		if (port)
			port_drain(port);
		else
			serial_discard(s, vq);
	} else if (port) {
		port_input(port);
		chardev_poke(&port->front);
	}
}

static void serial_start(struct virtio_device *vdev)
{
	struct virtio_serial *s = container_of(vdev, struct virtio_serial, v.vdev);

	if (!serial_multiport(s) && s->ports[0]) {
		s->ports[0]->guest_ready = true;
		chardev_poke(&s->ports[0]->front);
	}
}

static void serial_reset(struct virtio_device *vdev)
{
	struct virtio_serial *s = container_of(vdev, struct virtio_serial, v.vdev);

	s->driver_ready = false;
	s->held_first = s->held_count = 0;
	for (u32 i = 0; i < s->max_ports; i++) {
		struct serial_port *port = s->ports[i];

		if (!port)
			continue;
		port->guest_ready = port->guest_open = false;
		port->out_pending = false;
		port->input_count = 0;
	}
}

/* §5.3.4: a character for when nothing else works yet. */
static void serial_config_write(struct virtio_device *vdev, unsigned offset, const u8 *bytes,
				unsigned size)
{
	struct virtio_serial *s = container_of(vdev, struct virtio_serial, v.vdev);

	if (offset == offsetof(struct virtio_console_config, emerg_wr) && s->emergency_write &&
	    s->ports[0] && s->ports[0]->console)
		chardev_write(&s->ports[0]->front, bytes, 1);
}

static const struct virtio_type serial_type = {
	.name = "virtio-serial",
	.id = VIRTIO_ID_CONSOLE,
	.pci_class = 0x078000, /* communication, other */
	.queue = serial_queue,
	.start = serial_start,
	.reset = serial_reset,
	.config_write = serial_config_write,
};

int serial_port_add(struct virtio_serial *s, struct serial_port *port, struct error *err)
{
	/* Port 0 is the console of drivers that know of no others; channels begin with 1 (as with
	 * QEMU). */
	if (port->nr == NR_AUTO) {
		for (port->nr = !port->console; port->nr < s->max_ports && s->ports[port->nr];
		     port->nr++)
			;
	}
	if (port->nr >= s->max_ports)
		return error_set(err, -ENOSPC, "no port %u: the bus has %u (max_ports=)", port->nr,
				 s->max_ports);
	if (s->ports[port->nr])
		return error_set(err, -EBUSY, "nr=%u: in use by another port", port->nr);
	if (!port->nr && !port->console)
		return error_set(err, -EINVAL, "nr=0: port 0 is for a virtconsole");
	port->serial = s;
	s->ports[port->nr] = port;
	virtq_elem_init(&port->out);
	serial_ctl_send(s, port->nr, VIRTIO_CONSOLE_PORT_ADD, 1);
	return 0;
}

void serial_port_remove(struct serial_port *port)
{
	struct virtio_serial *s = port->serial;

	/* A buffer that was half written goes back, or its queue would stand still for ever. */
	if (port->out_pending) {
		virtq_push(port_vq(port, true), &port->out, 0);
		virtq_signal(port_vq(port, true));
	}
	s->ports[port->nr] = NULL;
	serial_ctl_send(s, port->nr, VIRTIO_CONSOLE_PORT_REMOVE, 1);
	virtq_elem_destroy(&port->out);
}

void serial_port_event(struct chardev_front *front, enum chardev_event event)
{
	struct serial_port *port = container_of(front, struct serial_port, front);

	/* A console stays open: its guest writes on, and who comes back sees it. */
	if (!port->console && port->guest_ready &&
	    (event == CHARDEV_OPENED || event == CHARDEV_CLOSED))
		serial_ctl_send(port->serial, port->nr, VIRTIO_CONSOLE_PORT_OPEN,
				event == CHARDEV_OPENED);
}

static unsigned bus_number;

static int realize(struct device *dev, struct error *err)
{
	struct virtio_serial *s = container_of(dev, struct virtio_serial, v.pci.dev);
	struct virtio_device *vdev = &s->v.vdev;
	int result;

	if (!s->max_ports || s->max_ports > SERIAL_PORTS_MAX)
		return error_set(err, -EINVAL, "max_ports=%u: 1 to %u", s->max_ports,
				 SERIAL_PORTS_MAX);
	virtio_init(vdev, &serial_type, dev->machine, 2 * (s->max_ports + 1),
		    sizeof(struct virtio_console_config));
	for (unsigned i = 0; i < vdev->queues; i++)
		virtio_queue_init(vdev, i, QUEUE_SIZE);
	put_le32(vdev->config + offsetof(struct virtio_console_config, max_nr_ports), s->max_ports);
	vdev->host_features |= 1ull << VIRTIO_CONSOLE_F_MULTIPORT | 1ull << VIRTIO_CONSOLE_F_SIZE;
	if (s->emergency_write)
		vdev->host_features |= 1ull << VIRTIO_CONSOLE_F_EMERG_WRITE;
	result = virtio_pci_realize(&s->v, err);
	if (result < 0)
		return result;
	virtq_elem_init(&s->ctl_in);
	virtq_elem_init(&s->ctl_out);
	virtq_elem_init(&s->rx);
	s->bus.type = SERIAL_BUS;
	s->bus.name =
		dev->id ? xasprintf("%s.0", dev->id) : xasprintf("virtio-serial%u.0", bus_number++);
	device_bus_add(dev->machine, dev, &s->bus);
	return 0;
}

static void unrealize(struct device *dev)
{
	struct virtio_serial *s = container_of(dev, struct virtio_serial, v.pci.dev);
	struct list *pos, *n;

	list_for_each_safe (pos, n, &s->bus.devices)
		device_remove(list_entry(pos, struct device, bus_link));
	device_bus_remove(&s->bus);
	free(s->bus.name);
	virtio_pci_unrealize(&s->v);
	virtq_elem_destroy(&s->ctl_in);
	virtq_elem_destroy(&s->ctl_out);
	virtq_elem_destroy(&s->rx);
}

static const struct property properties[] = {
	PROPERTY_U32("max_ports", struct virtio_serial, max_ports, "8", "ports, 1 to 31"),
	PROPERTY_BOOL("emergency-write", struct virtio_serial, emergency_write, "on",
		      "offer a register for last words"),
	VIRTIO_PCI_PROPERTIES(struct virtio_serial, v),
	{}
};

VIRTIO_PCI_REGISTER(virtio_serial, "virtio-serial", "a bus of consoles and channels",
		    struct virtio_serial)
