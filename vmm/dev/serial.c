/*
 * The 16550A UART (National Semiconductor PC16550D data sheet).
 *
 * A byte written leaves at once, at no baud rate: the transmitter is empty again before the guest
 * can look, unless the back end is full, and then it stays busy until there is room. Receiving
 * fills the FIFO and interrupts; a few bytes below the trigger level are announced at once as a
 * character timeout, since there is no line on which more could be on their way.
 *
 * Input that waits when the guest starts (a pipe, what was typed while it booted) would be lost:
 * drivers empty the FIFO while they probe and open the port. So the line holds it back, as a modem
 * does without RTS, until the guest raises RTS with receive interrupts on, or has had those on for
 * a while without RTS, or polls for input, which shows by its reading the line status again and
 * again and doing nothing else.
 */
#include "vmm/dev/serial.h"
#include "vmm/chardev.h"
#include "vmm/machine.h"
#include <stdio.h>

#define FIFO	  16
#define POLLS_MIN 64		   /* status reads in a row that are polling */
#define PATIENCE  (NS_PER_SEC / 2) /* with receive interrupts on, but no RTS */

enum { RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_RDI	 0x01
#define IER_THRI 0x02
#define IER_RLSI 0x04
#define IER_MSI	 0x08

#define IIR_NONE    0x01
#define IIR_MSI	    0x00
#define IIR_THRI    0x02
#define IIR_RDI	    0x04
#define IIR_RLSI    0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO    0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04

#define LCR_BREAK 0x40
#define LCR_DLAB  0x80

#define MCR_DTR	 0x01
#define MCR_RTS	 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DR	 0x01
#define LSR_OE	 0x02
#define LSR_BI	 0x10
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

#define MSR_DCTS 0x01
#define MSR_DDSR 0x02
#define MSR_TERI 0x04
#define MSR_DDCD 0x08
#define MSR_CTS	 0x10
#define MSR_DSR	 0x20
#define MSR_RI	 0x40
#define MSR_DCD	 0x80

struct serial {
	struct device dev;
	struct io_region regs;
	struct chardev_front front;
	char *chardev;
	u32 index, iobase, irq;
	u16 divisor;
	u8 ier, fcr, lcr, mcr, lsr, msr, scr;
	bool thr_interrupt; /* the transmitter became empty and nobody has read of it yet */
	bool interrupting;
	u8 rx[FIFO], rx_at, rx_count;
	struct loop_timer patience;
	bool ready; /* to receive, see above */
	u8 polls;   /* reads of the line status with nothing else in between */
	u8 tx;	    /* waits for the back end while THRE is clear */
};

static const u16 com_base[SERIAL_PORTS] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
static const u8 com_irq[SERIAL_PORTS] = { 4, 3, 4, 3 };

static unsigned rx_room(const struct serial *s)
{
	return (s->fcr & FCR_ENABLE ? FIFO : 1) - s->rx_count;
}

static unsigned trigger(const struct serial *s)
{
	static const u8 levels[] = { 1, 4, 8, 14 };

	return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* What interrupts now, by priority (table 4 of the data sheet), as the IIR tells it. */
static u8 interrupt(const struct serial *s)
{
	if (s->ier & IER_RLSI && s->lsr & (LSR_OE | LSR_BI))
		return IIR_RLSI;
	if (s->ier & IER_RDI && s->lsr & LSR_DR)
		return s->rx_count >= trigger(s) ? IIR_RDI : IIR_TIMEOUT;
	if (s->ier & IER_THRI && s->thr_interrupt)
		return IIR_THRI;
	if (s->ier & IER_MSI && s->msr & (MSR_DCTS | MSR_DDSR | MSR_TERI | MSR_DDCD))
		return IIR_MSI;
	return IIR_NONE;
}

/*
 * COM1 and COM3 share a line, COM2 and COM4 the other: the line is high while any of them wants it.
 */
static void update(struct serial *s)
{
	bool level = interrupt(s) != IIR_NONE, any = false;
	struct list *pos;

	if (level == s->interrupting)
		return;
	s->interrupting = level;
	list_for_each (pos, &s->dev.machine->devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->class == s->dev.class) {
			struct serial *other = container_of(dev, struct serial, dev);

			any |= other->irq == s->irq && other->interrupting;
		}
	}
	irq_set(s->dev.machine, s->irq, any || level);
}

static void put_rx(struct serial *s, u8 byte)
{
	if (!rx_room(s)) {
		s->lsr |= LSR_OE;
		return;
	}
	s->rx[(s->rx_at + s->rx_count++) % FIFO] = byte;
	s->lsr |= LSR_DR;
}

static u8 take_rx(struct serial *s)
{
	u8 byte;

	if (!s->rx_count)
		return 0;
	byte = s->rx[s->rx_at];
	s->rx_at = (s->rx_at + 1) % FIFO;
	if (!--s->rx_count)
		s->lsr &= ~(LSR_DR | LSR_BI);
	return byte;
}

static void transmit(struct serial *s)
{
	if (s->mcr & MCR_LOOP)
		put_rx(s, s->tx);
	else if (!chardev_write(&s->front, &s->tx, 1))
		return; /* serial_writable() will try again */
	s->lsr |= LSR_THRE | LSR_TEMT;
	s->thr_interrupt = true;
}

static void serial_writable(struct chardev_front *f)
{
	struct serial *s = container_of(f, struct serial, front);

	if (s->lsr & LSR_THRE)
		return;
	transmit(s);
	update(s);
}

static size_t serial_can_receive(struct chardev_front *f)
{
	struct serial *s = container_of(f, struct serial, front);

	return s->mcr & MCR_LOOP || !s->ready ? 0 : rx_room(s);
}

/*
 * Looks, after a change of a register, whether the guest is ready. Once it is, it stays so until it
 * turns receiving off.
 */
static void update_ready(struct serial *s)
{
	bool interrupts = s->ier & IER_RDI;

	if (s->polls >= POLLS_MIN || (interrupts && s->mcr & MCR_RTS))
		s->ready = true;
	else if (!interrupts)
		s->ready = false;
	if (!interrupts || s->ready)
		loop_timer_cancel(&s->patience);
	else if (!s->patience.armed)
		loop_timer_set(&s->patience, loop_now(s->patience.loop, LOOP_CLOCK_VM) + PATIENCE);
	if (s->ready)
		chardev_poke(&s->front);
}

static void patience_over(struct loop_timer *t)
{
	struct serial *s = container_of(t, struct serial, patience);

	s->ready = true;
	chardev_poke(&s->front);
}

static void serial_receive(struct chardev_front *f, const u8 *bytes, size_t count)
{
	struct serial *s = container_of(f, struct serial, front);

	while (count--)
		put_rx(s, *bytes++);
	update(s);
}

static void serial_event(struct chardev_front *f, enum chardev_event event)
{
	struct serial *s = container_of(f, struct serial, front);

	if (event != CHARDEV_BREAK || !rx_room(s))
		return;
	put_rx(s, 0);
	s->lsr |= LSR_BI;
	update(s);
}

/*
 * In loopback the outputs of the modem register are its inputs; else a null modem is ready for all.
 */
static void modem_update(struct serial *s)
{
	u8 lines = MSR_CTS | MSR_DSR | MSR_DCD, delta;

	if (s->mcr & MCR_LOOP)
		lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
			(s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
	delta = (s->msr ^ lines) >> 4 & (MSR_DCTS | MSR_DDSR | MSR_DDCD);
	if (s->msr & MSR_RI && !(lines & MSR_RI))
		delta |= MSR_TERI;
	s->msr = lines | (s->msr & 0x0f) | delta;
}

static u64 serial_read(struct io_region *r, u64 offset, unsigned size)
{
	struct serial *s = container_of(r, struct serial, regs);
	u8 v = 0;

	/* Taking what came is part of polling. */
	if (offset != LSR && (offset != RBR_THR_DLL || s->polls < POLLS_MIN))
		s->polls = 0;
	switch (offset) {
	case RBR_THR_DLL:
		if (s->lcr & LCR_DLAB)
			return s->divisor & 0xff;
		v = take_rx(s);
		update(s);
		if (!(s->mcr & MCR_LOOP))
			chardev_poke(&s->front);
		break;
	case IER_DLM: return s->lcr & LCR_DLAB ? s->divisor >> 8 : s->ier;
	case IIR_FCR:
		v = interrupt(s);
		/* Reading it as the source ends the transmitter's interrupt. */
		if (v == IIR_THRI)
			s->thr_interrupt = false;
		update(s);
		v |= s->fcr & FCR_ENABLE ? IIR_FIFO : 0;
		break;
	case LCR: return s->lcr;
	case MCR: return s->mcr;
	case LSR:
		v = s->lsr;
		s->lsr &= ~(LSR_OE | LSR_BI);
		if (s->polls < POLLS_MIN && ++s->polls == POLLS_MIN)
			update_ready(s);
		update(s);
		break;
	case MSR:
		v = s->msr;
		s->msr &= 0xf0;
		update(s);
		break;
	case SCR: return s->scr;
	}
	return v;
}

static void write_fcr(struct serial *s, u8 v)
{
	if ((v ^ s->fcr) & FCR_ENABLE)
		v |= FCR_CLEAR_RX | FCR_CLEAR_TX;
	if (v & FCR_CLEAR_RX) {
		s->rx_count = 0;
		s->lsr &= ~(LSR_DR | LSR_BI);
	}
	if (v & FCR_CLEAR_TX) {
		s->lsr |= LSR_THRE | LSR_TEMT;
		s->thr_interrupt = true;
	}
	s->fcr = v & FCR_ENABLE ? v & 0xc9 : 0;
	if (v & FCR_CLEAR_RX)
		chardev_poke(&s->front);
}

static void serial_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct serial *s = container_of(r, struct serial, regs);
	u8 v = value;

	s->polls = 0;
	switch (offset) {
	case RBR_THR_DLL:
		if (s->lcr & LCR_DLAB) {
			s->divisor = (s->divisor & 0xff00) | v;
			return;
		}
		if (!(s->lsr & LSR_THRE))
			return; /* overwrites what waits: an overrun, which the chip does not report */
		s->tx = v;
		s->lsr &= ~(LSR_THRE | LSR_TEMT);
		s->thr_interrupt = false;
		transmit(s);
		break;
	case IER_DLM:
		if (s->lcr & LCR_DLAB) {
			s->divisor = (s->divisor & 0xff) | v << 8;
			return;
		}
		/* Switched on over an empty transmitter, its interrupt comes at once. */
		if (v & ~s->ier & IER_THRI)
			s->thr_interrupt = s->lsr & LSR_THRE;
		s->ier = v & 0x0f;
		update_ready(s);
		break;
	case IIR_FCR: write_fcr(s, v); break;
	case LCR: s->lcr = v; break;
	case MCR:
		s->mcr = v & 0x1f;
		modem_update(s);
		update_ready(s);
		break;
	case SCR: s->scr = v; return;
	}
	update(s);
}

static const struct io_ops serial_ops = { .read = serial_read,
					  .write = serial_write,
					  .max_size = 1 };

static void serial_reset(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	s->divisor = 12; /* 9600 baud, what firmware leaves */
	s->ier = s->fcr = s->lcr = s->scr = 0;
	s->mcr = MCR_OUT2;
	s->lsr = LSR_THRE | LSR_TEMT;
	s->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	s->thr_interrupt = s->ready = false;
	loop_timer_cancel(&s->patience);
	s->rx_count = s->rx_at = s->polls = 0;
	update(s);
	chardev_poke(&s->front);
}

static int serial_realize(struct device *dev, struct error *err)
{
	struct serial *s = container_of(dev, struct serial, dev);
	struct machine *m = dev->machine;
	int r;

	if (!s->iobase) {
		if (s->index == UINT32_MAX)
			for (s->index = 0; s->index < SERIAL_PORTS; s->index++)
				if (!bus_lookup(m, IO_PORT, com_base[s->index]))
					break;
		if (s->index >= SERIAL_PORTS)
			return error_set(
				err, -EINVAL,
				"the four standard ports are taken: iobase= and irq= are wanted");
		s->iobase = com_base[s->index];
		if (!s->irq)
			s->irq = com_irq[s->index];
	}
	if (s->iobase > 0xfff8 || bus_lookup(m, IO_PORT, s->iobase))
		return error_set(err, -EBUSY, "iobase=0x%x: not free", s->iobase);
	if (!s->irq || s->irq >= IRQ_ISA_LINES)
		return error_set(err, -EINVAL, "irq=%u: 1 to 15 are possible", s->irq);
	s->front.can_receive = serial_can_receive;
	s->front.receive = serial_receive;
	s->front.event = serial_event;
	s->front.writable = serial_writable;
	if (s->chardev) {
		r = chardev_attach(m, s->chardev, &s->front, err);
		if (r < 0)
			return r;
	}
	loop_timer_init(&s->patience, &m->loop, LOOP_CLOCK_VM, patience_over);
	io_region_init(&s->regs, "serial", &serial_ops, 8);
	io_region_map(m, &s->regs, IO_PORT, s->iobase, 0);
	return 0;
}

static void serial_unrealize(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	loop_timer_cancel(&s->patience);
	io_region_unmap(dev->machine, &s->regs);
	chardev_detach(&s->front);
}

static const struct property serial_properties[] = {
	PROPERTY_STRING("chardev", struct serial, chardev, NULL, "the back end"),
	PROPERTY_U32("index", struct serial, index, "4294967295",
		     "0 to 3: COM1 to COM4; the first free one if absent"),
	PROPERTY_U32("iobase", struct serial, iobase, NULL, "first of eight ports"),
	PROPERTY_U32("irq", struct serial, irq, NULL, "ISA interrupt"),
	{}
};

static const struct device_class serial_class = {
	.name = "isa-serial",
	.description = "16550A serial port",
	.bus = "ISA",
	.size = sizeof(struct serial),
	.properties = serial_properties,
	.realize = serial_realize,
	.unrealize = serial_unrealize,
	.reset = serial_reset,
};
DEVICE_REGISTER(serial_class)

u32 serial_ports_present(struct machine *m)
{
	struct list *pos;
	u32 mask = 0;
	unsigned i;

	list_for_each (pos, &m->devices) {
		struct device *dev = list_entry(pos, struct device, link);

		for (i = 0; dev->class == &serial_class && i < SERIAL_PORTS; i++)
			if (container_of(dev, struct serial, dev)->iobase == com_base[i])
				mask |= 1u << i;
	}
	return mask;
}

int serial_create(struct machine *m, unsigned index, const char *chardev, struct error *err)
{
	struct opts o = { .count = 0 };
	struct device *dev;
	char text[16];

	snprintf(text, sizeof(text), "%u", index);
	opts_set(&o, "index", text);
	opts_set(&o, "chardev", chardev);
	dev = device_create(m, &serial_class, &o, err);
	opts_free(&o);
	return dev ? 0 : -EINVAL;
}
