/*
 * -drive and -blockdev. See drive.h.
 *
 *	-drive file=disk.img,format=raw,if=virtio,cache=none,discard=unmap
 *	-drive file=disk.img,if=none,id=d0,readonly=on -device virtio-blk-pci,drive=d0
 *	-blockdev driver=file,node-name=f0,filename=disk.img -blockdev
 *driver=raw,node-name=d0,file=f0 -blockdev
 *driver=raw,node-name=d0,file.driver=file,file.filename=disk.img
 */
#include "vmm/block/drive.h"
#include "vmm/cli.h"
#include "vmm/machine.h"
#include "vmm/monitor/monitor.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct drive {
	char *name;	 /* of -drive: the id; of -blockdev: the node's name */
	char *node_name; /* -drive node-name=, or NULL */
	struct block_image *image;
	struct drive *on_top; /* a raw node over a file node: the same image */
	bool claimed;
	enum drive_error_action on_read_error, on_write_error;
	struct list link;
};

static struct list drives = LIST_INIT(drives);
static bool undo_registered;

static struct drive *drive_find(const char *name)
{
	struct list *pos;

	list_for_each (pos, &drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (!strcmp(d->name, name) || (d->node_name && !strcmp(d->node_name, name)))
			return d;
	}
	return NULL;
}

static struct drive *drive_of(const struct block_image *image)
{
	struct list *pos;

	list_for_each (pos, &drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (d->image == image)
			return d;
	}
	return NULL;
}

struct block_image *drive_claim(struct machine *m, const char *name, struct error *err)
{
	struct drive *d = name ? drive_find(name) : NULL;

	if (!d) {
		error_set(err, -ENOENT, name ? "drive=%s: no such drive" : "drive= is missing",
			  name);
		return NULL;
	}
	if (d->claimed || d->on_top) {
		error_set(err, -EBUSY, "drive=%s: in use by another %s", name,
			  d->on_top ? "node" : "device");
		return NULL;
	}
	d->claimed = true;
	return d->image;
}

void drive_release(struct machine *m, struct block_image *image)
{
	struct list *pos;

	list_for_each (pos, &drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (d->image == image)
			d->claimed = false;
	}
}

enum drive_error_action drive_on_error(const struct block_image *image, bool write)
{
	const struct drive *d = drive_of(image);

	if (!d)
		return DRIVE_ERROR_REPORT;
	return write ? d->on_write_error : d->on_read_error;
}

void drive_close_all(struct machine *m)
{
	struct list *pos, *n;

	list_for_each_safe (pos, n, &drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		list_del(&d->link);
		if (!d->on_top)
			block_close(d->image);
		free(d->name);
		free(d->node_name);
		free(d);
	}
	undo_registered = false;
}

static int check_name(const char *name, struct error *err)
{
	if (drive_find(name))
		return error_set(err, -EEXIST, "there is a drive \"%s\" already", name);
	if (!*name ||
	    name[strspn(name,
			"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._#")])
		return error_set(err, -EINVAL, "\"%s\" is not a name: letters, digits and -._ only",
				 name);
	return 0;
}

static struct drive *drive_new(struct machine *m, const char *name, struct block_image *image)
{
	struct drive *d = xzalloc(sizeof(*d));

	d->name = xstrdup(name);
	d->image = image;
	list_add_tail(&drives, &d->link);
	if (!undo_registered) {
		undo_registered = true;
		cli_at_exit(m, drive_close_all);
	}
	return d;
}

/* One of @names, whose place goes into *@value. */
static int opts_choice(struct opts *o, const char *key, const char *const *names, unsigned *value,
		       struct error *err)
{
	const char *text = opts_get(o, key);

	if (!text)
		return 0;
	for (unsigned i = 0; names[i]; i++) {
		if (!strcmp(text, names[i])) {
			*value = i;
			return 0;
		}
	}
	return error_set(err, -EINVAL, "%s=%s: unknown", key, text);
}

static const char *const error_actions[] = { "report", "ignore", NULL };
static const char *const discard_names[] = { "ignore", "off", "unmap", "on", NULL };
#define DISCARD_UNMAP 2

static int get_error_action(struct opts *o, const char *key, enum drive_error_action *action,
			    struct error *err)
{
	const char *text = opts_get(o, key);
	unsigned value = DRIVE_ERROR_REPORT;
	int result;

	if (text && (!strcmp(text, "stop") || !strcmp(text, "enospc")))
		return error_set(err, -ENOTSUP, "%s=%s: only report and ignore are supported", key,
				 text);
	result = opts_choice(o, key, error_actions, &value, err);
	*action = value;
	return result;
}

/* What both options spell alike. */
static int get_common(struct opts *o, const char *prefix, struct block_options *opt,
		      struct error *err)
{
	char key[64];
	unsigned discard = 0;
	bool locking = true;
	const char *aio;
	int result;

	snprintf(key, sizeof(key), "%sdiscard", prefix);
	result = opts_choice(o, key, discard_names, &discard, err);
	if (result < 0)
		return result;
	if (discard >= DISCARD_UNMAP)
		opt->discard = true;
	snprintf(key, sizeof(key), "%saio", prefix);
	aio = opts_get(o, key);
	if (aio && block_parse_aio(aio, &opt->aio) < 0)
		return error_set(err, -EINVAL, "%s=%s: threads, native or io_uring", key, aio);
	snprintf(key, sizeof(key), "%slocking", prefix);
	if (opts_get(o, key) && strcmp(opts_get(o, key), "auto")) {
		result = opts_bool(o, key, &locking, err);
		if (result < 0)
			return result;
	}
	if (!locking)
		opt->no_lock = true;
	snprintf(key, sizeof(key), "%sread-only", prefix);
	result = opts_bool(o, key, &opt->read_only, err);
	if (result < 0)
		return result;
	snprintf(key, sizeof(key), "%sauto-read-only", prefix);
	return opts_bool(o, key, &opt->auto_read_only, err);
}

/* Without a format raw is assumed, unless the image says that it is something else. */
static int check_magic(const char *filename, struct error *err)
{
	static const struct {
		const char *magic, *format;
	} magics[] = { { "QFI\xfb", "qcow2" },
		       { "KDMV", "vmdk" },
		       { "vhdxfile", "vhdx" },
		       { "conectix", "vpc" } };
	char head[8] = "";
	int fd = open(filename, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	ssize_t n;

	if (fd < 0)
		return 0; /* block_open() says why, in the way it opens */
	n = read(fd, head, sizeof(head));
	close(fd);
	for (unsigned i = 0; n == sizeof(head) && i < ARRAY_SIZE(magics); i++) {
		if (!memcmp(head, magics[i].magic, strlen(magics[i].magic)))
			return error_set(err, -ENOTSUP,
					 "%s: looks like a %s image, which is not supported "
					 "(format=raw gives it as it is)",
					 filename, magics[i].format);
	}
	return 0;
}

static int drive_parse(struct machine *m, struct opts *o, struct error *err)
{
	static const char *const media_names[] = { "disk", "cdrom", NULL };
	struct block_options opt = BLOCK_OPTIONS_DEFAULT;
	const char *format = opts_get(o, "format");
	const char *interface = opts_get_or(o, "if", "virtio");
	const char *cache = opts_get(o, "cache");
	const char *id = opts_get(o, "id"), *node_name = opts_get(o, "node-name");
	enum drive_error_action on_read, on_write;
	char automatic[32], device[128];
	struct block_image *image;
	unsigned media = 0;
	struct drive *d;
	int result;

	opt.filename = opts_get(o, "file");
	if (!opt.filename || !*opt.filename)
		return error_set(err, -EINVAL, "file= is missing");
	if (format && strcmp(format, "raw"))
		return error_set(err, -ENOTSUP, "format=%s: only raw is supported", format);
	if (strcmp(interface, "virtio") && strcmp(interface, "none"))
		return error_set(err, -ENOTSUP, "if=%s: only virtio and none are supported",
				 interface);
	if (cache && block_parse_cache(cache, &opt.cache) < 0)
		return error_set(err, -EINVAL,
				 "cache=%s: writeback, none, writethrough, directsync or unsafe",
				 cache);
	result = opts_choice(o, "media", media_names, &media, err);
	if (result < 0)
		return result;
	opt.read_only = media == 1;
	if ((result = opts_bool(o, "readonly", &opt.read_only, err)) < 0 ||
	    (result = get_common(o, "", &opt, err)) < 0 ||
	    (result = get_error_action(o, "rerror", &on_read, err)) < 0 ||
	    (result = get_error_action(o, "werror", &on_write, err)) < 0)
		return result;
	if (!id) {
		for (unsigned i = 0; snprintf(automatic, sizeof(automatic), "%s%u", interface, i),
			      drive_find(automatic);
		     i++)
			;
		id = automatic;
	}
	if ((result = check_name(id, err)) < 0 ||
	    (node_name && (result = check_name(node_name, err)) < 0) ||
	    (result = opts_finish(o, "-drive", err)) < 0)
		return result;
	if (!format && (result = check_magic(opt.filename, err)) < 0)
		return result;
	result = block_open(&image, &m->loop, &opt, err);
	if (result < 0)
		return result;
	d = drive_new(m, id, image);
	d->node_name = node_name ? xstrdup(node_name) : NULL;
	d->on_read_error = on_read;
	d->on_write_error = on_write;
	if (!strcmp(interface, "none"))
		return 0;
	snprintf(device, sizeof(device), "virtio-blk-pci,drive=%s", id);
	return device_queue(m, device, err);
}

int drive_add(struct machine *m, const char *text, struct error *err)
{
	struct opts o;
	int result = opts_parse(&o, text, NULL, err);

	if (result < 0)
		return result;
	result = drive_parse(m, &o, err);
	opts_free(&o);
	return result;
}

static int is_file_driver(const char *driver)
{
	return !strcmp(driver, "file") || !strcmp(driver, "host_device");
}

static int blockdev_parse(struct machine *m, struct opts *o, struct error *err)
{
	struct block_options opt = BLOCK_OPTIONS_DEFAULT;
	const char *driver = opts_get(o, "driver"), *name = opts_get(o, "node-name"), *prefix = "",
		   *below;
	bool direct = false, no_flush = false;
	struct block_image *image;
	struct drive *file = NULL, *d;
	char key[64];
	int result;

	if (!driver)
		return error_set(err, -EINVAL, "driver= is missing");
	if (!name)
		return error_set(err, -EINVAL, "node-name= is missing");
	if ((result = check_name(name, err)) < 0)
		return result;
	if (!is_file_driver(driver)) {
		if (strcmp(driver, "raw"))
			return error_set(err, -ENOTSUP,
					 "driver=%s: only raw and file are supported", driver);
		below = opts_get(o, "file");
		if (below) {
			file = drive_find(below);
			if (!file)
				return error_set(err, -ENOENT, "file=%s: no such node", below);
			if (file->claimed || file->on_top)
				return error_set(err, -EBUSY, "file=%s: in use", below);
		} else {
			prefix = "file.";
			below = opts_get(o, "file.driver");
			if (!below || !is_file_driver(below))
				return error_set(err, -EINVAL,
						 below ? "file.driver=%s: only file is supported"
						       : "file= is missing",
						 below);
			/* The upper node may only take away. */
			if ((result = get_common(o, "", &opt, err)) < 0)
				return result;
		}
	}
	if (file) {
		if ((result = get_common(o, "", &opt, err)) < 0)
			return result;
		if (opt.read_only && !block_read_only(file->image))
			return error_set(err, -EINVAL, "read-only=on: say so on the node \"%s\"",
					 file->name);
		if ((result = opts_finish(o, "-blockdev", err)) < 0)
			return result;
		d = drive_new(m, name, file->image);
		file->on_top = d;
		return 0;
	}
	snprintf(key, sizeof(key), "%sfilename", prefix);
	opt.filename = opts_get(o, key);
	if (!opt.filename || !*opt.filename)
		return error_set(err, -EINVAL, "%s= is missing", key);
	if ((result = get_common(o, prefix, &opt, err)) < 0)
		return result;
	snprintf(key, sizeof(key), "%scache.direct", prefix);
	if ((result = opts_bool(o, key, &direct, err)) < 0)
		return result;
	snprintf(key, sizeof(key), "%scache.no-flush", prefix);
	if ((result = opts_bool(o, key, &no_flush, err)) < 0 ||
	    (result = opts_finish(o, "-blockdev", err)) < 0)
		return result;
	if (direct && no_flush)
		return error_set(err, -ENOTSUP,
				 "cache.direct=on and cache.no-flush=on exclude each other");
	opt.cache = direct     ? BLOCK_CACHE_NONE
		    : no_flush ? BLOCK_CACHE_UNSAFE
			       : BLOCK_CACHE_WRITEBACK;
	result = block_open(&image, &m->loop, &opt, err);
	if (result == 0)
		drive_new(m, name, image);
	return result;
}

int drive_add_blockdev(struct machine *m, const char *text, struct error *err)
{
	struct opts o;
	int result;

	if (*text == '{')
		return error_set(err, -ENOTSUP,
				 "JSON is not supported here: "
				 "driver=raw,node-name=...,file.driver=file,...");
	result = opts_parse(&o, text, "driver", err);
	if (result < 0)
		return result;
	result = blockdev_parse(m, &o, err);
	opts_free(&o);
	return result;
}

static const struct cli_option drive_options[] = {
	{ "drive",
	  "file=FILE[,format=raw][,if=virtio|none][,id=ID][,readonly=on][,cache=MODE][,discard="
	  "unmap][,aio=HOW]",
	  "a disk", drive_add },
	{ "blockdev", "driver=raw|file,node-name=NAME,...",
	  "a disk image for -device ...,drive=NAME", drive_add_blockdev },
	{}
};
CLI_REGISTER(drive_options)

static void info_block(struct monitor *mon, struct machine *m, const char *arguments)
{
	struct list *pos;

	list_for_each (pos, &drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		monitor_printf(mon, "%s: %s, %llu bytes, %s%s%s\n", d->name,
			       block_filename(d->image), (unsigned long long)block_size(d->image),
			       block_aio_name(d->image),
			       block_read_only(d->image) ? ", read-only" : "",
			       d->claimed ? "" : ", no device");
	}
}

static const struct monitor_command drive_commands[] = {
	{ "info block", "", "the drives", info_block }, {}
};
MONITOR_REGISTER(drive_commands)
