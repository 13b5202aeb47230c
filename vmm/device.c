/* The registry of device kinds, properties, buses, and the life of a device. */
#include "vmm/device.h"
#include "vmm/machine.h"
#include <stdio.h>
#include <stdlib.h>

#define CLASSES_MAX 256

static const struct device_class *classes[CLASSES_MAX];
static unsigned class_count;

struct queued_device {
	struct list link;
	char *text;
};

void device_register(const struct device_class *class)
{
	assert(class_count < CLASSES_MAX);
	classes[class_count++] = class;
}

const struct device_class *device_class_find(const char *name)
{
	unsigned i;

	for (i = 0; i < class_count; i++)
		if (!strcmp(classes[i]->name, name) ||
		    (classes[i]->alias && !strcmp(classes[i]->alias, name)))
			return classes[i];
	return NULL;
}

static int property_set(struct device *dev, const struct property *p, const char *text,
			struct error *err)
{
	static const u64 max[] = {
		[PROPERTY_TYPE_U8] = UINT8_MAX,
		[PROPERTY_TYPE_U16] = UINT16_MAX,
		[PROPERTY_TYPE_U32] = UINT32_MAX,
		[PROPERTY_TYPE_U64] = UINT64_MAX,
	};
	void *field = (char *)dev + p->offset;
	u64 value = 0;
	bool on;
	int r;

	switch (p->type) {
	case PROPERTY_TYPE_BOOL:
		if (parse_bool(text, field) < 0)
			return error_set(err, -EINVAL, "%s=%s: on or off is wanted", p->name, text);
		return 0;
	case PROPERTY_TYPE_TRISTATE:
		if (!strcmp(text, "auto"))
			*(int *)field = -1;
		else if (parse_bool(text, &on) == 0)
			*(int *)field = on;
		else
			return error_set(err, -EINVAL, "%s=%s: on, off or auto is wanted", p->name,
					 text);
		return 0;
	case PROPERTY_TYPE_STRING:
		free(*(char **)field);
		*(char **)field = xstrdup(text);
		return 0;
	case PROPERTY_TYPE_SIZE:
		if (parse_size(text, 1, field) < 0)
			return error_set(err, -EINVAL, "%s=%s: a size is wanted, as in 512M or 4G",
					 p->name, text);
		return 0;
	case PROPERTY_TYPE_U8:
	case PROPERTY_TYPE_U16:
	case PROPERTY_TYPE_U32:
	case PROPERTY_TYPE_U64:
		r = parse_u64(text, &value);
		if (r == -EINVAL)
			return error_set(err, r, "%s=%s: a number is wanted", p->name, text);
		if (r < 0 || value > max[p->type])
			return error_set(err, -ERANGE, "%s=%s: at most %llu", p->name, text,
					 (unsigned long long)max[p->type]);
		break;
	}
	switch (p->type) {
	case PROPERTY_TYPE_U8: *(u8 *)field = value; break;
	case PROPERTY_TYPE_U16: *(u16 *)field = value; break;
	case PROPERTY_TYPE_U32: *(u32 *)field = value; break;
	default: *(u64 *)field = value; break;
	}
	return 0;
}

static int properties_set(struct device *dev, const struct property *table, struct opts *o,
			  struct error *err)
{
	const struct property *p;
	const char *text;
	int r;

	for (p = table; p && p->name; p++) {
		text = opts_get(o, p->name);
		if (!text)
			text = p->otherwise;
		r = text ? property_set(dev, p, text, err) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static void properties_free(struct device *dev, const struct property *table)
{
	const struct property *p;

	for (p = table; p && p->name; p++)
		if (p->type == PROPERTY_TYPE_STRING)
			free(*(char **)((char *)dev + p->offset));
}

static void device_free(struct device *dev)
{
	properties_free(dev, dev->class->properties);
	if (dev->bus)
		properties_free(dev, dev->bus->properties);
	free(dev->id);
	free(dev->bus_name);
	free(dev);
}

static void unrealize(struct device *dev)
{
	if (dev->class->unrealize)
		dev->class->unrealize(dev);
	if (dev->bus && dev->bus->detach)
		dev->bus->detach(dev->bus, dev);
	dev->realized = false;
}

static int find_bus(struct device *dev, struct error *err)
{
	const char *name = dev->class->name, *type = dev->class->bus;

	if (!type)
		return 0;
	dev->bus = device_bus_find(dev->machine, type, dev->bus_name);
	if (!dev->bus && dev->bus_name)
		return error_set(err, -ENOENT, "%s: no bus of type %s called %s", name, type,
				 dev->bus_name);
	if (!dev->bus)
		return error_set(err, -ENOENT, "%s: needs a bus of type %s, and there is none",
				 name, type);
	return 0;
}

static int realize(struct device *dev, struct opts *o, struct error *err)
{
	int r;

	r = properties_set(dev, dev->class->properties, o, err);
	if (!r && dev->bus)
		r = properties_set(dev, dev->bus->properties, o, err);
	if (r < 0)
		return error_prefix(err, r, "%s", dev->class->name);
	r = opts_finish(o, dev->class->name, err);
	if (r < 0)
		return r;
	if (dev->bus && dev->bus->attach) {
		r = dev->bus->attach(dev->bus, dev, err);
		if (r < 0)
			return error_prefix(err, r, "%s", dev->class->name);
	}
	r = dev->class->realize ? dev->class->realize(dev, err) : 0;
	if (r < 0) {
		if (dev->bus && dev->bus->detach)
			dev->bus->detach(dev->bus, dev);
		return error_prefix(err, r, "%s", dev->class->name);
	}
	if (dev->bus && dev->bus->attached) {
		r = dev->bus->attached(dev->bus, dev, err);
		if (r < 0) {
			unrealize(dev);
			return error_prefix(err, r, "%s", dev->class->name);
		}
	}
	return 0;
}

static void reset(struct device *dev)
{
	if (dev->bus && dev->bus->reset)
		dev->bus->reset(dev->bus, dev);
	if (dev->class->reset)
		dev->class->reset(dev);
}

struct device *device_create(struct machine *m, const struct device_class *class, struct opts *o,
			     struct error *err)
{
	struct opts none = { .count = 0 };
	struct device *dev;
	const char *text;

	if (!o)
		o = &none;
	dev = xzalloc(class->size);
	dev->class = class;
	dev->machine = m;
	list_init(&dev->link);
	list_init(&dev->bus_link);
	text = opts_get(o, "id");
	dev->id = text ? xstrdup(text) : NULL;
	text = opts_get(o, "bus");
	dev->bus_name = text ? xstrdup(text) : NULL;
	if (dev->id && device_find(m, dev->id)) {
		error_set(err, -EEXIST, "%s: id=%s is another device's", class->name, dev->id);
		goto fail;
	}
	if (find_bus(dev, err) < 0 || realize(dev, o, err) < 0)
		goto fail;
	dev->realized = true;
	list_add_tail(&m->devices, &dev->link);
	if (dev->bus)
		list_add_tail(&dev->bus->devices, &dev->bus_link);
	reset(dev);
	return dev;
fail:
	device_free(dev);
	return NULL;
}

static const struct device_class *class_for_user(const char *name, struct error *err)
{
	const struct device_class *class = device_class_find(name);

	if (!class)
		error_set(err, -ENOENT, "%s: no such device; -device help lists them", name);
	else if (class->internal) {
		error_set(err, -EPERM, "%s: is part of the machine and cannot be added", name);
		class = NULL;
	}
	return class;
}

struct device *device_add(struct machine *m, const char *text, struct error *err)
{
	const struct device_class *class;
	struct device *dev = NULL;
	const char *name;
	struct opts o;

	if (opts_parse(&o, text, "driver", err) < 0)
		return NULL;
	name = opts_get(&o, "driver");
	if (!name)
		error_set(err, -EINVAL, "%s: which device?", text);
	else if ((class = class_for_user(name, err)))
		dev = device_create(m, class, &o, err);
	opts_free(&o);
	return dev;
}

int device_queue(struct machine *m, const char *text, struct error *err)
{
	struct queued_device *q;
	char *name = xstrdup(text);
	bool known;

	name[strcspn(name, ",")] = 0;
	known = !strncmp(name, "driver=", 7) || class_for_user(name, err);
	free(name);
	if (!known)
		return -ENOENT;
	q = xzalloc(sizeof(*q));
	q->text = xstrdup(text);
	list_add_tail(&m->queued, &q->link);
	return 0;
}

int device_add_queued(struct machine *m, struct error *err)
{
	struct queued_device *q;
	struct device *dev;

	while (!list_empty(&m->queued)) {
		q = list_entry(m->queued.next, struct queued_device, link);
		dev = err ? device_add(m, q->text, err) : NULL;
		list_del(&q->link);
		free(q->text);
		free(q);
		if (!dev && err)
			return -EINVAL;
	}
	return 0;
}

void device_remove(struct device *dev)
{
	list_del(&dev->link);
	list_del(&dev->bus_link);
	unrealize(dev);
	device_free(dev);
}

void device_remove_all(struct machine *m)
{
	/* In reverse: what was made later may stand on what was made before. */
	while (!list_empty(&m->devices))
		device_remove(list_entry(m->devices.prev, struct device, link));
}

struct device *device_find(struct machine *m, const char *id)
{
	struct device *dev;
	struct list *pos;

	list_for_each (pos, &m->devices) {
		dev = list_entry(pos, struct device, link);
		if (dev->id && !strcmp(dev->id, id))
			return dev;
	}
	return NULL;
}

void device_reset_all(struct machine *m)
{
	struct list *pos;

	list_for_each (pos, &m->devices)
		reset(list_entry(pos, struct device, link));
}

static int compare_classes(const void *a, const void *b)
{
	return strcmp((*(const struct device_class *const *)a)->name,
		      (*(const struct device_class *const *)b)->name);
}

void device_help(void)
{
	const struct device_class *sorted[CLASSES_MAX];
	unsigned i;

	memcpy(sorted, classes, class_count * sizeof(classes[0]));
	qsort(sorted, class_count, sizeof(sorted[0]), compare_classes);
	for (i = 0; i < class_count; i++)
		if (!sorted[i]->internal)
			printf("%-28s %s%s%s\n", sorted[i]->name,
			       sorted[i]->bus ? sorted[i]->bus : "", sorted[i]->bus ? ": " : "",
			       sorted[i]->description);
}

static void print_properties(const struct property *p)
{
	static const char *const types[] = {
		[PROPERTY_TYPE_BOOL] = "on/off",   [PROPERTY_TYPE_U8] = "0-255",
		[PROPERTY_TYPE_U16] = "0-65535",   [PROPERTY_TYPE_U32] = "number",
		[PROPERTY_TYPE_U64] = "number",	   [PROPERTY_TYPE_SIZE] = "size",
		[PROPERTY_TYPE_STRING] = "string", [PROPERTY_TYPE_TRISTATE] = "on/off/auto",
	};

	for (; p && p->name; p++)
		printf("  %s=<%s>  %s%s%s%s\n", p->name, types[p->type], p->help ? p->help : "",
		       p->otherwise ? " (default: " : "", p->otherwise ? p->otherwise : "",
		       p->otherwise ? ")" : "");
}

int device_class_help(struct machine *m, const char *name, struct error *err)
{
	const struct device_class *class = device_class_find(name);
	struct device_bus *bus;

	if (!class)
		return error_set(err, -ENOENT, "%s: no such device; -device help lists them", name);
	printf("%s: %s\n", class->name, class->description);
	print_properties(class->properties);
	bus = class->bus ? device_bus_find(m, class->bus, NULL) : NULL;
	if (bus)
		print_properties(bus->properties);
	printf("  id=<string>  a name for the device\n");
	if (class->bus)
		printf("  bus=<string>  the %s bus to sit on\n", class->bus);
	return 0;
}

void device_bus_add(struct machine *m, struct device *owner, struct device_bus *bus)
{
	bus->machine = m;
	bus->owner = owner;
	list_init(&bus->devices);
	list_add_tail(&m->buses, &bus->link);
}

void device_bus_remove(struct device_bus *bus)
{
	list_del(&bus->link);
}

struct device_bus *device_bus_find(struct machine *m, const char *type, const char *name)
{
	struct device_bus *bus;
	struct list *pos;

	list_for_each (pos, &m->buses) {
		bus = list_entry(pos, struct device_bus, link);
		if (!strcmp(bus->type, type) && (!name || !strcmp(bus->name, name)))
			return bus;
	}
	return NULL;
}
