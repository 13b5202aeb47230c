/*
 * The ports of virtio-serial as devices: virtconsole and virtserialport. See serial.h.
 */
#include "vmm/machine.h"
#include "vmm/virtio/serial_int.h"
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

/*
 * The terminal that the monitor runs in tells of a new size by SIGWINCH. The handler may run in any
 * thread, so it does no more than signal this descriptor, and the main loop passes the size on to
 * the console that has the terminal.
 */
static struct loop_fd window = { .fd = -1, .events = EPOLLIN };
static struct serial_port *window_port;

static void window_signal(int number)
{
	static const u64 one = 1;
	int saved = errno;

	if (write(window.fd, &one, sizeof(one)) < 0)
		errno = saved; /* full: the loop will look anyway */
}

static void window_pass_on(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
		serial_port_resize(window_port, size.ws_col, size.ws_row);
}

static void window_ready(struct loop_fd *f, u32 events)
{
	u64 count;

	if (read(f->fd, &count, sizeof(count)) == sizeof(count) && window_port)
		window_pass_on();
}

/* The first console on the terminal gets its size. */
static void window_watch(struct serial_port *port)
{
	struct sigaction action = { .sa_handler = window_signal, .sa_flags = SA_RESTART };

	if (window_port || !port->console || !port->front.chardev ||
	    strcmp(port->front.chardev->class->name, "stdio") || !isatty(STDOUT_FILENO))
		return;
	if (window.fd < 0)
		window.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (window.fd < 0)
		return;
	window.ready = window_ready;
	if (loop_fd_add(&port->dev.machine->loop, &window) < 0)
		return;
	window_port = port;
	sigaction(SIGWINCH, &action, NULL);
	window_pass_on();
}

static void window_forget(struct serial_port *port)
{
	if (window_port != port)
		return;
	signal(SIGWINCH, SIG_DFL);
	loop_fd_del(&port->dev.machine->loop, &window);
	window_port = NULL;
}

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
	else
		window_watch(port);
	return result;
}

static void port_unrealize(struct device *dev)
{
	struct serial_port *port = container_of(dev, struct serial_port, dev);

	window_forget(port);
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
