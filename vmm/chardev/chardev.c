/* Character devices: the registry of back ends, and the connection between the two ends. */
#include "vmm/chardev.h"
#include "vmm/machine.h"
#include <stdio.h>
#include <stdlib.h>

#define CLASSES_MAX 32

static const struct chardev_class *classes[CLASSES_MAX];
static unsigned class_count;

void chardev_register(const struct chardev_class *class)
{
	assert(class_count < CLASSES_MAX);
	classes[class_count++] = class;
}

void chardev_help(void)
{
	unsigned i;

	for (i = 0; i < class_count; i++)
		printf("%-8s %s\n", classes[i]->name, classes[i]->help);
}

static const struct chardev_class *class_find(const char *name)
{
	unsigned i;

	for (i = 0; i < class_count; i++)
		if (!strcmp(classes[i]->name, name))
			return classes[i];
	return NULL;
}

struct chardev *chardev_find(struct machine *m, const char *id)
{
	struct list *pos;

	list_for_each (pos, &m->chardevs)
		if (!strcmp(list_entry(pos, struct chardev, link)->id, id))
			return list_entry(pos, struct chardev, link);
	return NULL;
}

static struct chardev *create(struct machine *m, const struct chardev_class *class, const char *id,
			      struct opts *o, struct error *err)
{
	struct chardev *chr;

	if (chardev_find(m, id)) {
		error_set(err, -EEXIST, "id=%s: is another chardev's", id);
		return NULL;
	}
	chr = xzalloc(class->size);
	chr->class = class;
	chr->machine = m;
	chr->id = xstrdup(id);
	list_init(&chr->link);
	if (class->open(chr, o, err) < 0) {
		free(chr->id);
		free(chr);
		return NULL;
	}
	if (opts_finish(o, class->name, err) < 0) {
		class->close(chr);
		free(chr->id);
		free(chr);
		return NULL;
	}
	list_add_tail(&m->chardevs, &chr->link);
	return chr;
}

struct chardev *chardev_create(struct machine *m, struct opts *o, struct error *err)
{
	const char *kind = opts_get(o, "backend"), *given = opts_get(o, "id");
	const struct chardev_class *class = kind ? class_find(kind) : NULL;
	struct chardev *chr, *lower = NULL;
	char *id, *lower_id = NULL;
	bool mux = false;

	if (!class) {
		error_set(err, -ENOENT, "%s: no such back end; -chardev help lists them",
			  kind ? kind : "");
		return NULL;
	}
	if (!given) {
		error_set(err, -EINVAL, "%s: id= is wanted", kind);
		return NULL;
	}
	if (opts_bool(o, "mux", &mux, err) < 0)
		return NULL;
	id = xstrdup(given);
	/* With mux=on the name is the multiplexer's, and the back end stands behind it. */
	if (mux && strcmp(kind, "mux")) {
		struct opts over = { .count = 0 };

		lower_id = xasprintf("%s-base", id);
		lower = create(m, class, lower_id, o, err);
		chr = NULL;
		if (lower) {
			opts_set(&over, "chardev", lower_id);
			chr = create(m, class_find("mux"), id, &over, err);
			opts_free(&over);
		}
		free(lower_id);
	} else {
		chr = create(m, class, id, o, err);
	}
	free(id);
	return chr;
}

struct chardev *chardev_add(struct machine *m, const char *text, struct error *err)
{
	struct chardev *chr;
	struct opts o;

	if (opts_parse(&o, text, "backend", err) < 0)
		return NULL;
	chr = chardev_create(m, &o, err);
	opts_free(&o);
	return chr;
}

/* "tcp:HOST:PORT,server=on": the address before the first comma, options after it. */
static int parse_address(struct opts *o, const char *text, bool unix_path, struct error *err)
{
	char *address = xstrdup(text), *options = strchr(address, ','), *colon;
	struct opts more = { .count = 0 };
	unsigned i;
	int r = 0;

	if (options) {
		*options++ = 0;
		r = opts_parse(&more, options, NULL, err);
	}
	opts_set(o, "backend", "socket");
	if (unix_path) {
		opts_set(o, "path", address);
	} else {
		colon = strrchr(address, ':');
		if (!colon) {
			r = error_set(err, -EINVAL, "tcp:%s: tcp:HOST:PORT is wanted", text);
		} else {
			*colon = 0;
			opts_set(o, "host", address);
			opts_set(o, "port", colon + 1);
		}
	}
	for (i = 0; !r && i < more.count; i++)
		opts_set(o, more.opt[i].key, more.opt[i].value);
	opts_free(&more);
	free(address);
	return r;
}

struct chardev *chardev_add_short(struct machine *m, const char *text, const char *id,
				  struct error *err)
{
	struct opts o = { .count = 0 };
	struct chardev *chr = NULL;
	int r = 0;

	if (!strncmp(text, "chardev:", 8)) {
		chr = chardev_find(m, text + 8);
		if (!chr)
			error_set(err, -ENOENT, "no chardev has the id %s", text + 8);
		return chr;
	}
	opts_set(&o, "id", id);
	if (!strncmp(text, "mon:", 4)) {
		opts_set(&o, "mux", "on");
		text += 4;
		/* Ctrl-C is the guest's: the way out is Ctrl-A X. */
		if (!strcmp(text, "stdio"))
			opts_set(&o, "signal", "off");
	}
	if (!strncmp(text, "file:", 5)) {
		opts_set(&o, "backend", "file");
		opts_set(&o, "path", text + 5);
	} else if (!strncmp(text, "pipe:", 5)) {
		opts_set(&o, "backend", "pipe");
		opts_set(&o, "path", text + 5);
	} else if (!strncmp(text, "unix:", 5)) {
		r = parse_address(&o, text + 5, true, err);
	} else if (!strncmp(text, "tcp:", 4)) {
		r = parse_address(&o, text + 4, false, err);
	} else {
		opts_set(&o, "backend", text);
	}
	if (!r)
		chr = chardev_create(m, &o, err);
	opts_free(&o);
	return chr;
}

static void destroy(struct chardev *chr)
{
	if (chr->front && !chr->class->attach) {
		chr->front->chardev = NULL;
		chr->front = NULL;
	}
	list_del(&chr->link);
	chr->class->close(chr);
	free(chr->id);
	free(chr);
}

void chardev_close_all(struct machine *m)
{
	/* In reverse: a multiplexer goes before what it stands on. */
	while (!list_empty(&m->chardevs))
		destroy(list_entry(m->chardevs.prev, struct chardev, link));
}

int chardev_attach(struct machine *m, const char *id, struct chardev_front *front,
		   struct error *err)
{
	struct chardev *chr = chardev_find(m, id);
	int r;

	if (!chr)
		return error_set(err, -ENOENT, "chardev=%s: there is no such chardev", id);
	list_init(&front->link);
	if (chr->class->attach) {
		r = chr->class->attach(chr, front, err);
		if (r < 0)
			return r;
		front->chardev = chr;
	} else {
		if (chr->front)
			return error_set(err, -EBUSY, "chardev=%s: is in use", id);
		front->chardev = chr;
		chr->front = front;
	}
	if (chr->opened && front->event)
		front->event(front, CHARDEV_OPENED);
	chardev_poke(front);
	return 0;
}

void chardev_detach(struct chardev_front *front)
{
	struct chardev *chr = front->chardev;

	if (!chr)
		return;
	if (chr->class->detach)
		chr->class->detach(chr, front);
	else
		chr->front = NULL;
	front->chardev = NULL;
}

size_t chardev_write(struct chardev_front *front, const u8 *bytes, size_t count)
{
	struct chardev *chr = front->chardev;
	size_t n;

	if (!chr)
		return count;
	n = chr->class->write(chr, bytes, count);
	return front->writable ? n : count;
}

void chardev_poke(struct chardev_front *front)
{
	struct chardev *chr = front->chardev;

	if (chr && chr->class->accept_input)
		chr->class->accept_input(chr);
}

bool chardev_connected(const struct chardev_front *front)
{
	return front->chardev && front->chardev->opened;
}

size_t chardev_room(struct chardev *chr)
{
	struct chardev_front *f = chr->front;

	return f && f->can_receive ? f->can_receive(f) : 0;
}

void chardev_input(struct chardev *chr, const u8 *bytes, size_t count)
{
	if (chr->front && chr->front->receive && count)
		chr->front->receive(chr->front, bytes, count);
}

void chardev_send_event(struct chardev *chr, enum chardev_event event)
{
	if (event == CHARDEV_OPENED || event == CHARDEV_CLOSED) {
		if (chr->opened == (event == CHARDEV_OPENED))
			return;
		chr->opened = event == CHARDEV_OPENED;
	}
	if (chr->front && chr->front->event)
		chr->front->event(chr->front, event);
}

void chardev_can_write(struct chardev *chr)
{
	if (chr->front && chr->front->writable)
		chr->front->writable(chr->front);
}
