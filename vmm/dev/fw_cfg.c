/* The firmware configuration interface. Items are read-only for the guest. */
#include "vmm/dev/fw_cfg.h"
#include "vmm/machine.h"
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>

#define ITEMS	      0x80
#define FILES_MAX     (ITEMS - FW_CFG_FILES)
#define FILE_NAME_MAX 56

#define ID_PORTS 1
#define ID_DMA	 2

#define DMA_ERROR  1
#define DMA_READ   2
#define DMA_SKIP   4
#define DMA_SELECT 8
#define DMA_WRITE  16
#define DMA_MAGIC  0x51454d5520434647ull /* "QEMU CFG" */

/* Everything in the directory and the DMA structure is big-endian. */
struct fw_cfg_file {
	u32 size;
	u16 select, reserved;
	char name[FILE_NAME_MAX];
};
static_assert(sizeof(struct fw_cfg_file) == 64, "an entry of the directory");

struct fw_cfg_dma {
	u32 control, length;
	u64 address;
};
static_assert(sizeof(struct fw_cfg_dma) == 16, "the access structure");

struct item {
	u8 *bytes;
	u32 size;
};

struct fw_cfg {
	struct device dev;
	struct io_region ports;
	struct item items[ITEMS];
	struct {
		u32 count;
		struct fw_cfg_file file[FILES_MAX];
	} directory;
	u32 files;
	u16 selected;
	u32 offset;
	u64 dma; /* the address, as far as it has been written */
};

static const struct item *current(const struct fw_cfg *f)
{
	static const struct item nothing;
	u16 key = f->selected &
		  0x3fff; /* the upper bits tell apart write and architecture-local items */

	return key < ITEMS && !(f->selected & 0xc000) ? &f->items[key] : &nothing;
}

static u8 next_byte(struct fw_cfg *f)
{
	const struct item *item = current(f);

	return f->offset < item->size ? item->bytes[f->offset++] : 0;
}

static void dma_run(struct fw_cfg *f)
{
	struct machine *m = f->dev.machine;
	struct fw_cfg_dma d;
	const struct item *item;
	u64 gpa = f->dma;
	u32 control, length, n;
	u64 address;
	bool bad = false;

	f->dma = 0;
	if (memory_read(m, gpa, &d, sizeof(d)) < 0)
		return;
	control = be32toh(d.control);
	length = be32toh(d.length);
	address = be64toh(d.address);
	if (control & DMA_SELECT) {
		f->selected = control >> 16;
		f->offset = 0;
	}
	item = current(f);
	if (control & DMA_READ) {
		n = MIN(length, item->size - MIN(f->offset, item->size));
		if (n && memory_write(m, address, item->bytes + f->offset, n) < 0)
			bad = true;
		f->offset += n;
		/* Past the end of an item there are zeroes. */
		for (; !bad && n < length; n += MIN(length - n, 4096u)) {
			static const u8 zeroes[4096];

			bad = memory_write(m, address + n, zeroes, MIN(length - n, 4096u)) < 0;
		}
	} else if (control & DMA_WRITE) {
		bad = true;
	} else if (control & DMA_SKIP) {
		f->offset += MIN(length, item->size - MIN(f->offset, item->size));
	}
	d.control = htobe32(bad ? DMA_ERROR : 0);
	memory_write(m, gpa, &d.control, sizeof(d.control));
}

static u64 fw_cfg_read(struct io_region *r, u64 offset, unsigned size)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, ports);
	u64 v = 0;
	unsigned i;

	if (offset == 1 && size == 1)
		return next_byte(f);
	/* Reading the DMA register tells that there is one. */
	if (offset >= 4)
		for (i = 0; i < size; i++)
			v |= (DMA_MAGIC >> (8 * (7 - (offset - 4 + i) % 8)) & 0xff) << (8 * i);
	return v;
}

static void fw_cfg_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, ports);

	if (offset == 0 && size == 2) {
		f->selected = value;
		f->offset = 0;
	} else if (offset == 4 && size == 4) {
		f->dma = (u64)be32toh((u32)value) << 32;
	} else if (offset == 8 && size == 4) {
		f->dma |= be32toh((u32)value);
		dma_run(f);
	}
}

static const struct io_ops fw_cfg_ops = { .read = fw_cfg_read,
					  .write = fw_cfg_write,
					  .max_size = 4 };

void fw_cfg_add_item(struct machine *m, u16 key, const void *bytes, u32 size)
{
	struct item *item = &m->fw_cfg->items[key];

	assert(key < ITEMS);
	free(item->bytes);
	item->bytes = xzalloc(size);
	memcpy(item->bytes, bytes, size);
	item->size = size;
}

int fw_cfg_add_file(struct machine *m, const char *name, const void *bytes, u32 size)
{
	struct fw_cfg *f = m->fw_cfg;
	struct fw_cfg_file *file;
	u32 i;

	if (strlen(name) >= FILE_NAME_MAX)
		return -ENAMETOOLONG;
	for (i = 0; i < f->files; i++)
		if (!strcmp(f->directory.file[i].name, name))
			return -EEXIST;
	if (f->files == FILES_MAX)
		return -ENOSPC;
	file = &f->directory.file[f->files];
	file->size = htobe32(size);
	file->select = htobe16(FW_CFG_FILES + f->files);
	snprintf(file->name, sizeof(file->name), "%s", name);
	fw_cfg_add_item(m, FW_CFG_FILES + f->files, bytes, size);
	f->files++;
	f->directory.count = htobe32(f->files);
	fw_cfg_add_item(m, FW_CFG_FILE_DIR, &f->directory, 4 + f->files * sizeof(*file));
	return 0;
}

static void fw_cfg_reset(struct device *dev)
{
	struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);

	f->selected = f->offset = f->dma = 0;
}

static int fw_cfg_realize(struct device *dev, struct error *err)
{
	struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);

	io_region_init(&f->ports, "fw_cfg", &fw_cfg_ops, 12);
	io_region_map(dev->machine, &f->ports, IO_PORT, 0x510, 0);
	return 0;
}

static void fw_cfg_unrealize(struct device *dev)
{
	struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
	unsigned i;

	io_region_unmap(dev->machine, &f->ports);
	for (i = 0; i < ITEMS; i++)
		free(f->items[i].bytes);
	dev->machine->fw_cfg = NULL;
}

static const struct device_class fw_cfg_class = {
	.name = "fw_cfg",
	.description = "firmware configuration interface",
	.bus = "ISA",
	.internal = true,
	.size = sizeof(struct fw_cfg),
	.realize = fw_cfg_realize,
	.unrealize = fw_cfg_unrealize,
	.reset = fw_cfg_reset,
};
DEVICE_REGISTER(fw_cfg_class)

int fw_cfg_create(struct machine *m, struct error *err)
{
	struct device *dev = device_create(m, &fw_cfg_class, NULL, err);
	u8 uuid[16] = { 0 };
	u32 empty = 0;
	u16 cpus = m->config.cpus;
	u64 ram = m->memory.ram_size;

	if (!dev)
		return -EINVAL;
	m->fw_cfg = container_of(dev, struct fw_cfg, dev);
	if (m->config.uuid)
		machine_parse_uuid(m->config.uuid, uuid);
	fw_cfg_add_item(m, FW_CFG_SIGNATURE, "QEMU", 4);
	fw_cfg_add_item(m, FW_CFG_ID, &(u32){ ID_PORTS | ID_DMA }, 4);
	fw_cfg_add_item(m, FW_CFG_UUID, uuid, sizeof(uuid));
	fw_cfg_add_item(m, FW_CFG_RAM_SIZE, &ram, sizeof(ram));
	fw_cfg_add_item(m, FW_CFG_NB_CPUS, &cpus, sizeof(cpus));
	fw_cfg_add_item(m, FW_CFG_MAX_CPUS, &cpus, sizeof(cpus));
	fw_cfg_add_item(m, FW_CFG_FILE_DIR, &empty, sizeof(empty));
	return 0;
}
