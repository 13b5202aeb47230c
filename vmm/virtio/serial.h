/*
 * virtio-serial (virtio 1.2 §5.3): one PCI device with many ports, each a device of its own on the
 *bus that it makes.
 *
 *	-device virtio-serial-pci,id=s0 -chardev stdio,id=c0 -device virtconsole,chardev=c0,bus=s0.0
 *	-device virtserialport,chardev=c1,name=org.example.agent
 *
 * virtconsole is a terminal (hvc0 in a Linux guest), virtserialport a channel
 *(/dev/virtio-ports/NAME).
 */
#ifndef VMM_VIRTIO_SERIAL_H
#define VMM_VIRTIO_SERIAL_H

#include "vmm/chardev.h"
#include "vmm/virtio/pci.h"

#define SERIAL_PORTS_MAX 31
#define SERIAL_CTL_HELD	 256 /* control messages that wait for buffers */
#define SERIAL_INPUT	 4096

struct serial_port;

struct serial_ctl {
	u32 port;
	u16 event, value;
};

struct virtio_serial {
	struct virtio_pci v;

	/* properties */
	u32 max_ports;
	bool emergency_write;

	struct device_bus bus;
	struct serial_port *ports[SERIAL_PORTS_MAX];
	struct virtq_elem ctl_in, ctl_out, rx;
	struct serial_ctl held[SERIAL_CTL_HELD]; /* a ring */
	unsigned held_first, held_count;
	bool driver_ready; /* the multiport driver has said so */
};

struct serial_port {
	struct device dev;

	/* properties */
	char *chardev, *name;
	u32 nr; /* ~0: the next that is free */

	struct virtio_serial *serial;
	struct chardev_front front;
	bool console;
	bool guest_ready; /* knows of the port */
	bool guest_open;  /* somebody in the guest has it open */
	u16 columns, rows;
	struct virtq_elem out; /* being written to the chardev */
	bool out_pending;
	size_t out_at;
	u8 input[SERIAL_INPUT]; /* of the chardev, on its way to the guest */
	size_t input_count;
};

/** The terminal behind a console has a new size. Machine lock held. */
void serial_port_resize(struct serial_port *port, u16 columns, u16 rows);

#endif
