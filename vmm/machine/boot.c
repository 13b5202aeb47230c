/* The common part of starting a kernel: reading the files, E820, GDT, page tables, initrd. */
#include "vmm/machine/boot.h"
#include "vmm/machine.h"
#include "vmm/machine/acpi.h"
#include "vmm/machine/pc.h"
#include "vmm/machine/smbios.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (2 * GiB)
#define PAGE	 4096ull

static int read_file(struct boot_file *f, const char *path, struct error *err)
{
	u64 room = 0, n;
	struct stat st;
	ssize_t got;
	int fd, r;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode)) {
		close(fd);
		return error_set(err, -EISDIR, "%s: is a directory", path);
	}
	f->path = xstrdup(path);
	/* A pipe has no size, so read until the end whatever it is. */
	for (r = 0;;) {
		if (f->size == room) {
			room = room ? room * 2 : MAX((u64)st.st_size + 1, 64 * KiB);
			if (f->size >= FILE_MAX) {
				r = error_set(err, -EFBIG, "%s: larger than 2 GiB", path);
				break;
			}
			f->bytes = realloc(f->bytes, room);
			if (!f->bytes) {
				r = error_set(err, -ENOMEM, "%s: no memory for it", path);
				break;
			}
		}
		n = room - f->size;
		got = read(fd, f->bytes + f->size, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			r = error_set(err, -errno, "%s: %s", path, strerror(errno));
		if (got <= 0)
			break;
		f->size += got;
	}
	close(fd);
	if (!r && !f->size)
		r = error_set(err, -EINVAL, "%s: the file is empty", path);
	return r;
}

int boot_load(struct machine *m, struct error *err)
{
	static const struct boot_format *const formats[] = { &boot_linux, &boot_elf,
							     &boot_multiboot };
	const struct machine_config *config = &m->config;
	struct boot *b;
	unsigned i;
	int r;

	if (!config->kernel) {
		if (config->initrd)
			return error_set(err, -EINVAL, "-initrd %s: wants a -kernel",
					 config->initrd);
		if (config->append)
			return error_set(err, -EINVAL, "-append %s: wants a -kernel",
					 config->append);
		return 0;
	}
	b = m->boot = xzalloc(sizeof(*b));
	b->cmdline = config->append ? config->append : "";
	r = read_file(&b->kernel, config->kernel, err);
	if (r < 0)
		return error_prefix(err, r, "-kernel");
	if (config->initrd) {
		r = read_file(&b->initrd, config->initrd, err);
		if (r < 0)
			return error_prefix(err, r, "-initrd");
	}
	if (strlen(b->cmdline) >= BOOT_CMDLINE_MAX)
		return error_set(err, -E2BIG, "-append: %zu bytes, at most %llu are possible",
				 strlen(b->cmdline), BOOT_CMDLINE_MAX - 1);
	for (i = 0; i < ARRAY_SIZE(formats); i++) {
		r = formats[i]->probe(m, b, err);
		if (r < 0)
			return error_prefix(err, r, "-kernel %s", config->kernel);
		if (r) {
			b->format = formats[i];
			return 0;
		}
	}
	return error_set(err, -ENOEXEC,
			 "-kernel %s: not a Linux bzImage, an ELF file or a multiboot image",
			 config->kernel);
}

void boot_free(struct machine *m)
{
	struct boot *b = m->boot;

	if (!b)
		return;
	free(b->kernel.path);
	free(b->kernel.bytes);
	free(b->initrd.path);
	free(b->initrd.bytes);
	free(b);
	m->boot = NULL;
}

static void e820_add(struct boot *b, u64 base, u64 end, u32 type)
{
	assert(b->e820_count < E820_MAX);
	if (base < end)
		b->e820[b->e820_count++] = (struct e820_entry){ base, end - base, type };
}

static void make_e820(struct machine *m, struct boot *b)
{
	u64 low = memory_below_4g(m), high = memory_above_4g(m);

	b->e820_count = 0;
	e820_add(b, 0, BOOT_LOW_END, E820_RAM);
	e820_add(b, BOOT_LOW_END, 0xa0000, E820_RESERVED);
	e820_add(b, BOOT_TABLES, BOOT_HIGH, E820_RESERVED);
	e820_add(b, BOOT_HIGH, b->tables, E820_RAM);
	e820_add(b, b->tables, b->tables_end, E820_ACPI);
	e820_add(b, b->tables_end, low, E820_RAM);
	e820_add(b, PC_ECAM_BASE, PC_ECAM_BASE + PC_ECAM_SIZE, E820_RESERVED);
	e820_add(b, 4 * GiB, 4 * GiB + high, E820_RAM);
}

int boot_place(struct machine *m, struct error *err)
{
	struct boot *b = m->boot;
	int r;

	if (!b)
		return 0;
	pc_assign_pci(m);
	/* The tables first: the kernel and its initrd must stay clear of them. */
	r = acpi_place(m, b, err);
	if (!r)
		r = smbios_place(m, b, err);
	if (r < 0)
		return r;
	make_e820(m, b);
	r = b->format->place(m, b, err);
	return r < 0 ? error_prefix(err, r, "-kernel %s", b->kernel.path) : 0;
}

/* RAM that firmware's tables do not take; NULL: there is none. */
static void *room_for(struct machine *m, u64 gpa, u64 size, const char *what, struct error *err)
{
	const struct boot *b = m->boot;
	void *to = memory_ptr_write(m, gpa, size);

	if (to && (gpa >= b->tables_end || gpa + size <= b->tables))
		return to;
	error_set(err, -ENOMEM, "%s, %llu KiB at 0x%llx, does not fit into -m %llu MiB", what,
		  (unsigned long long)(size / KiB + !!(size % KiB)), (unsigned long long)gpa,
		  (unsigned long long)(m->memory.ram_size / MiB));
	return NULL;
}

int boot_copy(struct machine *m, u64 gpa, const void *bytes, u64 size, const char *what,
	      struct error *err)
{
	void *to = room_for(m, gpa, size, what, err);

	if (!to)
		return -ENOMEM;
	memcpy(to, bytes, size);
	memory_wrote(m, gpa, size);
	return 0;
}

int boot_clear(struct machine *m, u64 gpa, u64 size, const char *what, struct error *err)
{
	void *to = room_for(m, gpa, size, what, err);

	if (!to)
		return -ENOMEM;
	memset(to, 0, size);
	memory_wrote(m, gpa, size);
	return 0;
}

int boot_place_initrd(struct machine *m, u64 floor, u64 limit, u64 *at, struct error *err)
{
	struct boot *b = m->boot;
	u64 top = MIN(limit, b->tables);

	*at = 0;
	if (!b->initrd.size)
		return 0;
	if (top < b->initrd.size || ALIGN_DOWN(top - b->initrd.size, PAGE) < floor)
		return error_set(err, -ENOMEM,
				 "-initrd %s of %llu MiB does not fit into -m %llu MiB",
				 b->initrd.path,
				 (unsigned long long)((b->initrd.size + MiB - 1) / MiB),
				 (unsigned long long)(m->memory.ram_size / MiB));
	*at = ALIGN_DOWN(top - b->initrd.size, PAGE);
	return boot_copy(m, *at, b->initrd.bytes, b->initrd.size, "the initrd", err);
}

int boot_place_gdt(struct machine *m, bool long_mode, struct boot_entry *entry, struct error *err)
{
	/* SDM 3A 3.4.5: base 0, limit 4 GiB, present, accessed; code with L or D, data with B. */
	u64 gdt[4] = { 0, 0, long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull,
		       0x00cf93000000ffffull };

	entry->gdt = BOOT_GDT;
	entry->gdt_limit = sizeof(gdt) - 1;
	entry->cs = 0x10;
	entry->ds = 0x18;
	return boot_copy(m, BOOT_GDT, gdt, sizeof(gdt), "the GDT", err);
}

int boot_place_page_tables(struct machine *m, struct error *err)
{
	u64 table[512], *pd;
	unsigned i;
	int r;

	r = boot_clear(m, BOOT_PAGE_TABLES, 6 * PAGE, "the page tables", err);
	if (r < 0)
		return r;
	memset(table, 0, sizeof(table));
	table[0] = (BOOT_PAGE_TABLES + PAGE) | 3;
	memory_write(m, BOOT_PAGE_TABLES, table, sizeof(table));
	for (i = 0; i < 4; i++)
		table[i] = (BOOT_PAGE_TABLES + (2 + i) * PAGE) | 3;
	memory_write(m, BOOT_PAGE_TABLES + PAGE, table, sizeof(table));
	pd = memory_ptr_write(m, BOOT_PAGE_TABLES + 2 * PAGE, 4 * PAGE);
	for (i = 0; i < 2048; i++)
		pd[i] = i * 2 * MiB | 0x83; /* present, writable, 2 MiB */
	memory_wrote(m, BOOT_PAGE_TABLES + 2 * PAGE, 4 * PAGE);
	return 0;
}
