/*
 * The multiplexer: several front ends (a serial port, the monitor) on one back end. All write; one
 * has the keyboard, and Ctrl-A C hands it to the next. What is typed for a front end that has no
 * room waits here, so that Ctrl-A is always heard.
 */
#include "vmm/chardev.h"
#include "vmm/machine.h"
#include <stdio.h>

#define FRONTS	8
#define WAITING 8192
#define ESCAPE	0x01 /* Ctrl-A */

struct mux_front {
	struct chardev_front *front;
	u8 queue[WAITING];
	unsigned at, count;
};

struct mux {
	struct chardev chr;
	struct chardev_front lower;
	struct mux_front fronts[FRONTS];
	unsigned count, focus;
	bool escape; /* the last byte was Ctrl-A */
};

static struct mux *to_mux(struct chardev *chr)
{
	return container_of(chr, struct mux, chr);
}

static void print(struct mux *x, const char *text)
{
	chardev_write(&x->lower, (const u8 *)text, strlen(text));
}

static void deliver(struct mux *x, struct mux_front *f)
{
	size_t room;
	u8 byte;

	while (f->count && f->front && f->front->can_receive &&
	       (room = f->front->can_receive(f->front))) {
		byte = f->queue[f->at];
		f->at = (f->at + 1) % WAITING;
		f->count--;
		f->front->receive(f->front, &byte, 1);
	}
}

static void set_focus(struct mux *x, unsigned focus)
{
	struct chardev_front *old = x->fronts[x->focus].front, *new;

	x->focus = focus;
	new = x->fronts[focus].front;
	if (old && old != new && old->event)
		old->event(old, CHARDEV_FOCUS_OUT);
	x->chr.front = new;
	if (new &&new->event)
		new->event(new, CHARDEV_FOCUS_IN);
	deliver(x, &x->fronts[focus]);
}

static void next_focus(struct mux *x)
{
	unsigned i, next;

	for (i = 1; i <= x->count; i++) {
		next = (x->focus + i) % x->count;
		if (x->fronts[next].front) {
			set_focus(x, next);
			return;
		}
	}
}

static void help(struct mux *x)
{
	print(x, "\r\n"
		 "Ctrl-A H    this help\r\n"
		 "Ctrl-A X    end the machine\r\n"
		 "Ctrl-A C    switch between the console and the monitor\r\n"
		 "Ctrl-A B    send a break (with Linux: magic SysRq)\r\n"
		 "Ctrl-A A    send Ctrl-A\r\n");
}

static void queue(struct mux *x, u8 byte)
{
	struct mux_front *f = &x->fronts[x->focus];

	if (f->count < WAITING)
		f->queue[(f->at + f->count++) % WAITING] = byte;
}

static void command(struct mux *x, u8 byte)
{
	switch (byte) {
	case 'h':
	case 'H':
	case '?': help(x); break;
	case 'x':
	case 'X':
		print(x, "\r\n");
		report("ended from the keyboard");
		machine_quit(x->chr.machine, 0);
		break;
	case 'c':
	case 'C': next_focus(x); break;
	case 'b':
	case 'B':
		if (x->chr.front && x->chr.front->event)
			x->chr.front->event(x->chr.front, CHARDEV_BREAK);
		break;
	case 'a':
	case 'A':
	case ESCAPE: queue(x, ESCAPE); break;
	default: break;
	}
}

static size_t mux_can_receive(struct chardev_front *lower)
{
	struct mux *x = container_of(lower, struct mux, lower);

	return WAITING - x->fronts[x->focus].count;
}

static void mux_receive(struct chardev_front *lower, const u8 *bytes, size_t count)
{
	struct mux *x = container_of(lower, struct mux, lower);

	for (; count--; bytes++) {
		if (x->escape) {
			x->escape = false;
			command(x, *bytes);
		} else if (*bytes == ESCAPE) {
			x->escape = true;
		} else {
			queue(x, *bytes);
		}
	}
	deliver(x, &x->fronts[x->focus]);
}

static void mux_event(struct chardev_front *lower, enum chardev_event event)
{
	struct mux *x = container_of(lower, struct mux, lower);
	unsigned i;

	if (event == CHARDEV_BREAK) {
		chardev_send_event(&x->chr, event);
		return;
	}
	x->chr.opened = event == CHARDEV_OPENED;
	for (i = 0; i < x->count; i++)
		if (x->fronts[i].front && x->fronts[i].front->event)
			x->fronts[i].front->event(x->fronts[i].front, event);
}

static void mux_writable(struct chardev_front *lower)
{
	struct mux *x = container_of(lower, struct mux, lower);
	unsigned i;

	for (i = 0; i < x->count; i++)
		if (x->fronts[i].front && x->fronts[i].front->writable)
			x->fronts[i].front->writable(x->fronts[i].front);
}

static int mux_open(struct chardev *chr, struct opts *o, struct error *err)
{
	struct mux *x = to_mux(chr);
	const char *id = opts_get(o, "chardev");

	if (!id)
		return error_set(err, -EINVAL, "mux: chardev= is wanted");
	x->lower = (struct chardev_front){ .can_receive = mux_can_receive,
					   .receive = mux_receive,
					   .event = mux_event,
					   .writable = mux_writable };
	return chardev_attach(chr->machine, id, &x->lower, err);
}

static void mux_close(struct chardev *chr)
{
	struct mux *x = to_mux(chr);
	unsigned i;

	for (i = 0; i < x->count; i++)
		if (x->fronts[i].front)
			x->fronts[i].front->chardev = NULL;
	chardev_detach(&x->lower);
}

static size_t mux_write(struct chardev *chr, const u8 *bytes, size_t count)
{
	return chardev_write(&to_mux(chr)->lower, bytes, count);
}

static void mux_accept_input(struct chardev *chr)
{
	struct mux *x = to_mux(chr);

	deliver(x, &x->fronts[x->focus]);
	chardev_poke(&x->lower);
}

/* The first front end has the keyboard: on -nographic that is the console. */
static int mux_attach(struct chardev *chr, struct chardev_front *front, struct error *err)
{
	struct mux *x = to_mux(chr);
	unsigned i;

	for (i = 0; i < x->count && x->fronts[i].front; i++)
		;
	if (i == FRONTS)
		return error_set(err, -ENOSPC, "chardev=%s: has %d users, and can have no more",
				 chr->id, FRONTS);
	x->fronts[i].front = front;
	x->fronts[i].at = 0;
	/* What was typed before anybody was there is for the first who comes. */
	if (i)
		x->fronts[i].count = 0;
	x->count = MAX(x->count, i + 1);
	if (!chr->front) {
		x->focus = i;
		chr->front = front;
	}
	return 0;
}

static void mux_detach(struct chardev *chr, struct chardev_front *front)
{
	struct mux *x = to_mux(chr);
	unsigned i;

	for (i = 0; i < x->count; i++)
		if (x->fronts[i].front == front)
			x->fronts[i].front = NULL;
	if (chr->front == front) {
		chr->front = NULL;
		next_focus(x);
	}
}

static const struct chardev_class mux_class = {
	.name = "mux",
	.help = "chardev=ID: shares that one; the same as mux=on with any other",
	.size = sizeof(struct mux),
	.open = mux_open,
	.close = mux_close,
	.write = mux_write,
	.accept_input = mux_accept_input,
	.attach = mux_attach,
	.detach = mux_detach,
};
CHARDEV_REGISTER(mux_class)
