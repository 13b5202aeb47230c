/* What serial.c and serial_port.c share. */
#ifndef VMM_VIRTIO_SERIAL_INT_H
#define VMM_VIRTIO_SERIAL_INT_H

#include "vmm/virtio/serial.h"

#define SERIAL_BUS "virtio-serial-bus"

/** Gives @port its number and place. -ENOSPC, -EBUSY, -EINVAL with text. */
int serial_port_add(struct virtio_serial *s, struct serial_port *port, struct error *err);
void serial_port_remove(struct serial_port *port);
/** A message to the multiport driver; without one nothing happens. */
void serial_ctl_send(struct virtio_serial *s, u32 port, u16 event, u16 value);

/* The port's side of its chardev. */
size_t serial_port_can_receive(struct chardev_front *front);
void serial_port_receive(struct chardev_front *front, const u8 *bytes, size_t count);
void serial_port_event(struct chardev_front *front, enum chardev_event event);
void serial_port_writable(struct chardev_front *front);

#endif
