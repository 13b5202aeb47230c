/*
 * The 8042 keyboard controller and the two PS/2 devices behind it, as IBM's PS/2 technical
 * reference describes them and as operating systems probe them: controller self-test, interface
 * tests, identification, resets.
 */
#include "vmm/dev/i8042.h"
#include "vmm/machine.h"

#define KBD_IRQ 1
#define AUX_IRQ 12
#define QUEUE	64

#define STS_OBF	     0x01
#define STS_IBF	     0x02
#define STS_SYS	     0x04
#define STS_CMD	     0x08
#define STS_UNLOCKED 0x10
#define STS_AUX	     0x20

#define MODE_KBD_INT   0x01
#define MODE_AUX_INT   0x02
#define MODE_SYS       0x04
#define MODE_KBD_OFF   0x10
#define MODE_AUX_OFF   0x20
#define MODE_TRANSLATE 0x40

#define OUT_RESET 0x01 /* 0: the processor is held in reset */
#define OUT_A20	  0x02

#define ACK    0xfa
#define RESEND 0xfe
#define BAT_OK 0xaa

struct ps2 {
	u8 queue[QUEUE], at, count;
	u8 expects; /* the command whose parameter comes next, or 0 */
	u8 last;    /* the byte sent last, for "resend" */
	bool enabled;
	/* keyboard */
	u8 scan_set, leds, rate;
	/* mouse */
	u8 sample, resolution, buttons, wheel_knock;
	bool scale2, remote, wrap, wheel;
	int dx, dy;
};

struct i8042 {
	struct device dev;
	struct io_region data, command;
	u8 mode, outport, pending; /* pending: a controller command that awaits its byte */
	u8 ram[32];
	bool full; /* a byte lies in the output buffer */
	bool from_aux;
	u8 out;
	u8 status_cmd;
	struct ps2 kbd, aux;
};

static void put(struct ps2 *p, u8 v)
{
	if (p->count < QUEUE)
		p->queue[(p->at + p->count++) % QUEUE] = v;
}

static u8 take(struct ps2 *p)
{
	u8 v = p->queue[p->at];

	p->at = (p->at + 1) % QUEUE;
	p->count--;
	p->last = v;
	return v;
}

static void update(struct i8042 *s)
{
	struct machine *m = s->dev.machine;

	irq_set(m, KBD_IRQ, s->full && !s->from_aux && s->mode & MODE_KBD_INT);
	irq_set(m, AUX_IRQ, s->full && s->from_aux && s->mode & MODE_AUX_INT);
}

/*
 * The output buffer holds one byte; the next comes when that has been read, the keyboard's first.
 */
static void refill(struct i8042 *s)
{
	if (!s->full && s->kbd.count && !(s->mode & MODE_KBD_OFF)) {
		s->out = take(&s->kbd);
		s->full = true;
		s->from_aux = false;
	} else if (!s->full && s->aux.count && !(s->mode & MODE_AUX_OFF)) {
		s->out = take(&s->aux);
		s->full = true;
		s->from_aux = true;
	}
	update(s);
}

/* An answer of the controller itself. */
static void answer(struct i8042 *s, u8 v, bool aux)
{
	s->out = v;
	s->full = true;
	s->from_aux = aux;
	update(s);
}

/* --- keyboard --- */

static void kbd_defaults(struct ps2 *k)
{
	k->scan_set = 2;
	k->leds = 0;
	k->rate = 0x2b;
}

static void kbd_parameter(struct ps2 *k, u8 v)
{
	u8 command = k->expects;

	k->expects = 0;
	switch (command) {
	case 0xed: k->leds = v & 7; break;
	case 0xf3: k->rate = v; break;
	case 0xf0:
		if (v == 0) {
			put(k, ACK);
			put(k, k->scan_set);
			return;
		}
		if (v > 3) {
			put(k, RESEND);
			return;
		}
		k->scan_set = v;
		break;
	}
	put(k, ACK);
}

static void kbd_write(struct ps2 *k, u8 v, bool translated)
{
	/* A command in place of a parameter ends the wait for that. */
	if (k->expects && v < 0xed) {
		kbd_parameter(k, v);
		return;
	}
	k->expects = 0;
	switch (v) {
	case 0xed:
	case 0xf0:
	case 0xf3:
		k->expects = v;
		put(k, ACK);
		break;
	case 0xee: put(k, 0xee); break;
	case 0xf2:
		put(k, ACK);
		put(k, 0xab);
		put(k, translated ? 0x41 : 0x83);
		break;
	case 0xf4:
		k->enabled = true;
		put(k, ACK);
		break;
	case 0xf5:
	case 0xf6:
		kbd_defaults(k);
		k->enabled = v == 0xf6;
		put(k, ACK);
		break;
	case 0xfe: put(k, k->last); break;
	case 0xff:
		k->count = 0;
		kbd_defaults(k);
		k->enabled = true;
		put(k, ACK);
		put(k, BAT_OK);
		break;
	default: put(k, v >= 0xf7 && v <= 0xfd ? ACK : RESEND); break;
	}
}

/* --- mouse --- */

static void mouse_defaults(struct ps2 *a)
{
	a->sample = 100;
	a->resolution = 2;
	a->scale2 = a->remote = a->wrap = a->enabled = false;
	a->dx = a->dy = 0;
}

/* Setting the rates 200, 100, 80 in a row turns on the wheel. */
static void mouse_rate(struct ps2 *a, u8 v)
{
	static const u8 knock[] = { 200, 100, 80 };

	a->sample = v;
	a->wheel_knock = v == knock[a->wheel_knock] ? a->wheel_knock + 1 : v == knock[0];
	if (a->wheel_knock == ARRAY_SIZE(knock)) {
		a->wheel = true;
		a->wheel_knock = 0;
	}
}

static void mouse_packet(struct ps2 *a)
{
	int dx = MAX(MIN(a->dx, 255), -256), dy = MAX(MIN(a->dy, 255), -256);

	if (a->count + 4 > QUEUE)
		return; /* it will be told when there is room */
	put(a, 0x08 | (a->buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0));
	put(a, dx);
	put(a, dy);
	if (a->wheel)
		put(a, 0);
	a->dx -= dx;
	a->dy -= dy;
}

static void mouse_write(struct ps2 *a, u8 v)
{
	if (a->expects) {
		if (a->expects == 0xf3)
			mouse_rate(a, v);
		else
			a->resolution = v & 3;
		a->expects = 0;
		put(a, ACK);
		return;
	}
	if (a->wrap && v != 0xec && v != 0xff) {
		put(a, v);
		return;
	}
	switch (v) {
	case 0xe6:
	case 0xe7: a->scale2 = v == 0xe7; break;
	case 0xe8:
	case 0xf3: a->expects = v; break;
	case 0xe9:
		put(a, ACK);
		put(a, (a->remote ? 0x40 : 0) | (a->enabled ? 0x20 : 0) | (a->scale2 ? 0x10 : 0) |
			       (a->buttons & 7));
		put(a, a->resolution);
		put(a, a->sample);
		return;
	case 0xea: a->remote = false; break;
	case 0xeb:
		put(a, ACK);
		mouse_packet(a);
		return;
	case 0xec: a->wrap = false; break;
	case 0xee: a->wrap = true; break;
	case 0xf0: a->remote = true; break;
	case 0xf2:
		put(a, ACK);
		put(a, a->wheel ? 3 : 0);
		return;
	case 0xf4: a->enabled = true; break;
	case 0xf5: a->enabled = false; break;
	case 0xf6: mouse_defaults(a); break;
	case 0xfe: put(a, a->last); return;
	case 0xff:
		a->count = 0;
		mouse_defaults(a);
		a->wheel = false;
		put(a, ACK);
		put(a, BAT_OK);
		put(a, 0);
		return;
	default: put(a, RESEND); return;
	}
	put(a, ACK);
}

/* --- the controller --- */

static void set_outport(struct i8042 *s, u8 v)
{
	s->outport = v;
	if (!(v & OUT_RESET))
		machine_reset(s->dev.machine);
}

static u64 data_read(struct io_region *r, u64 offset, unsigned size)
{
	struct i8042 *s = container_of(r, struct i8042, data);
	u8 v = s->out;

	/* The line falls before it rises for the next byte: its interrupt is an edge. */
	s->full = false;
	update(s);
	refill(s);
	return v;
}

static void data_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct i8042 *s = container_of(r, struct i8042, data);
	u8 v = value, command = s->pending;

	s->status_cmd = 0;
	s->pending = 0;
	switch (command) {
	case 0:
		s->mode &= ~MODE_KBD_OFF; /* writing to the keyboard turns its clock on */
		kbd_write(&s->kbd, v, s->mode & MODE_TRANSLATE);
		break;
	case 0x60: s->mode = v; break;
	case 0xd1: set_outport(s, v); break;
	case 0xd2: answer(s, v, false); break;
	case 0xd3: answer(s, v, true); break;
	case 0xd4: mouse_write(&s->aux, v); break;
	default: s->ram[command & 0x1f] = v; break; /* 0x61-0x7f */
	}
	refill(s);
}

static u64 status_read(struct io_region *r, u64 offset, unsigned size)
{
	struct i8042 *s = container_of(r, struct i8042, command);

	return (s->full ? STS_OBF : 0) | (s->full && s->from_aux ? STS_AUX : 0) |
	       (s->mode & MODE_SYS ? STS_SYS : 0) | s->status_cmd | STS_UNLOCKED;
}

static void command_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct i8042 *s = container_of(r, struct i8042, command);
	u8 v = value;

	s->status_cmd = STS_CMD;
	s->pending = 0;
	switch (v) {
	case 0x20: answer(s, s->mode, false); break;
	case 0x60:
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4: s->pending = v; break;
	case 0xa7: s->mode |= MODE_AUX_OFF; break;
	case 0xa8: s->mode &= ~MODE_AUX_OFF; break;
	case 0xa9: answer(s, 0, false); break; /* the auxiliary interface is well */
	case 0xaa:
		s->mode |= MODE_SYS;
		answer(s, 0x55, false);
		break;
	case 0xab: answer(s, 0, false); break;
	case 0xad: s->mode |= MODE_KBD_OFF; break;
	case 0xae: s->mode &= ~MODE_KBD_OFF; break;
	case 0xc0: answer(s, 0x80, false); break;
	case 0xd0: answer(s, s->outport, false); break;
	case 0xe0: answer(s, 0, false); break;
	default:
		if (v >= 0x21 && v <= 0x3f)
			answer(s, s->ram[v & 0x1f], false);
		else if (v >= 0x61 && v <= 0x7f)
			s->pending = v;
		else if (v >= 0xf0 && !(v & OUT_RESET))
			machine_reset(s->dev.machine); /* a pulse on output bit 0 */
		break;
	}
	refill(s);
}

static const struct io_ops data_ops = { .read = data_read, .write = data_write, .max_size = 1 };
static const struct io_ops command_ops = { .read = status_read,
					   .write = command_write,
					   .max_size = 1 };

static void i8042_reset(struct device *dev)
{
	struct i8042 *s = container_of(dev, struct i8042, dev);

	s->mode = MODE_KBD_INT | MODE_AUX_INT | MODE_TRANSLATE | MODE_SYS;
	s->outport = OUT_RESET | OUT_A20 | 0xcc;
	s->pending = s->status_cmd = 0;
	s->full = false;
	memset(&s->kbd, 0, sizeof(s->kbd));
	memset(&s->aux, 0, sizeof(s->aux));
	kbd_defaults(&s->kbd);
	s->kbd.enabled = true;
	mouse_defaults(&s->aux);
	update(s);
}

static int i8042_realize(struct device *dev, struct error *err)
{
	struct i8042 *s = container_of(dev, struct i8042, dev);

	io_region_init(&s->data, "i8042-data", &data_ops, 1);
	io_region_init(&s->command, "i8042-command", &command_ops, 1);
	io_region_map(dev->machine, &s->data, IO_PORT, 0x60, 0);
	io_region_map(dev->machine, &s->command, IO_PORT, 0x64, 0);
	return 0;
}

static void i8042_unrealize(struct device *dev)
{
	struct i8042 *s = container_of(dev, struct i8042, dev);

	io_region_unmap(dev->machine, &s->data);
	io_region_unmap(dev->machine, &s->command);
}

static const struct device_class i8042_class = {
	.name = "i8042",
	.description = "PS/2 keyboard controller",
	.bus = "ISA",
	.internal = true,
	.size = sizeof(struct i8042),
	.realize = i8042_realize,
	.unrealize = i8042_unrealize,
	.reset = i8042_reset,
};
DEVICE_REGISTER(i8042_class)

int i8042_create(struct machine *m, struct error *err)
{
	return device_create(m, &i8042_class, NULL, err) ? 0 : -EINVAL;
}

static struct i8042 *find(struct machine *m)
{
	struct list *pos;

	list_for_each (pos, &m->devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->class == &i8042_class)
			return container_of(dev, struct i8042, dev);
	}
	return NULL;
}

void i8042_key(struct machine *m, u8 code, bool extended, bool down)
{
	struct i8042 *s = find(m);

	/*
	 * What leaves the keyboard in set 2 arrives in set 1 when the controller translates, which
	 * everything expects.
	 */
	if (!s || !s->kbd.enabled || s->kbd.count + 2 > QUEUE)
		return;
	if (extended)
		put(&s->kbd, 0xe0);
	put(&s->kbd, (code & 0x7f) | (down ? 0 : 0x80));
	refill(s);
}

void i8042_mouse(struct machine *m, int dx, int dy, u8 buttons)
{
	struct i8042 *s = find(m);

	if (!s || !s->aux.enabled || s->aux.remote)
		return;
	s->aux.dx += dx;
	s->aux.dy += dy;
	s->aux.buttons = buttons;
	mouse_packet(&s->aux);
	refill(s);
}
