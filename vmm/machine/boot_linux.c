/*
 * Linux's x86 boot protocol: a bzImage of version 2.12 or newer by its 64-bit entry, an older or
 * 32-bit one (2.02 and up) by its 32-bit entry. The structures are the kernel's own,
 * <asm/bootparam.h>.
 */
#include "vmm/machine.h"
#include "vmm/machine/boot.h"
#include <asm/bootparam.h>

#define SETUP_HEADER   0x1f1
#define HEADER_MAGIC   0x53726448 /* "HdrS" */
#define SECTOR	       512
#define LOADER_UNKNOWN 0xff

static void header_get(const struct boot *b, struct setup_header *h)
{
	/*
	 * The header says itself where it ends: the byte at 0x201 is the offset of a short jump
	 * over it.
	 */
	u64 end = 0x202 + b->kernel.bytes[0x201];

	memset(h, 0, sizeof(*h));
	memcpy(h, b->kernel.bytes + SETUP_HEADER, MIN(end - SETUP_HEADER, sizeof(*h)));
}

static u64 setup_size(const struct setup_header *h)
{
	return ((h->setup_sects ? h->setup_sects : 4) + 1) * (u64)SECTOR;
}

static int linux_probe(struct machine *m, struct boot *b, struct error *err)
{
	const struct boot_file *k = &b->kernel;
	struct setup_header h;
	u64 want;

	if (k->size < 0x206 || get_le16(k->bytes + 0x1fe) != 0xaa55 ||
	    get_le32(k->bytes + 0x202) != HEADER_MAGIC)
		return 0;
	if (k->size < SETUP_HEADER + sizeof(h))
		return error_set(err, -ENOEXEC, "the bzImage is truncated after %llu bytes",
				 (unsigned long long)k->size);
	header_get(b, &h);
	if (h.version < 0x202)
		return error_set(err, -ENOEXEC, "boot protocol %u.%02u: 2.02 or newer is wanted",
				 h.version >> 8, h.version & 0xff);
	if (!(h.loadflags & LOADED_HIGH))
		return error_set(err, -ENOEXEC, "a zImage: a bzImage is wanted");
	want = setup_size(&h) + (h.version >= 0x204 ? h.syssize * 16ull : 1);
	/* The last 16 bytes of syssize are rounding. */
	if (k->size + 15 < want)
		return error_set(err, -ENOEXEC,
				 "the bzImage is truncated: it has %llu bytes of %llu",
				 (unsigned long long)k->size, (unsigned long long)want);
	if (h.version >= 0x206 && strlen(b->cmdline) > h.cmdline_size)
		return error_set(err, -E2BIG, "-append has %zu bytes, this kernel takes %u",
				 strlen(b->cmdline), h.cmdline_size);
	return 1;
}

static void fill_params(struct boot *b, struct boot_params *p, const struct setup_header *h)
{
	unsigned i;

	p->hdr = *h;
	p->hdr.type_of_loader = LOADER_UNKNOWN;
	p->hdr.cmd_line_ptr = BOOT_CMDLINE;
	p->hdr.loadflags &= ~CAN_USE_HEAP;
	p->acpi_rsdp_addr = b->rsdp;
	/* Where the 32-bit code looks for memory when E820 is not to its liking. */
	p->alt_mem_k = b->e820_count ? (b->tables - BOOT_HIGH) / 1024 : 0;
	p->e820_entries = b->e820_count;
	for (i = 0; i < b->e820_count; i++)
		p->e820_table[i] = (struct boot_e820_entry){ b->e820[i].base, b->e820[i].size,
							     b->e820[i].type };
	/* VIDEO_TYPE 0: no text screen; the kernel does not then write to one that is not there. */
}

static int linux_place(struct machine *m, struct boot *b, struct error *err)
{
	struct boot_entry *entry = &b->entry;
	struct boot_params params;
	struct setup_header h;
	u64 load, end, payload, initrd, limit;
	bool long_mode;
	int r;

	header_get(b, &h);
	long_mode = h.version >= 0x20c && h.xloadflags & XLF_KERNEL_64;
	payload = b->kernel.size - setup_size(&h);
	load = h.version >= 0x20a && h.relocatable_kernel && h.pref_address ? h.pref_address
									    : BOOT_HIGH;
	/*
	 * It unpacks itself upwards, init_size bytes in all, from where it stands, or from where it
	 * goes if that cannot change.
	 */
	end = load + payload;
	if (h.version >= 0x20a) {
		end = MAX(end, load + h.init_size);
		if (end > b->tables && h.relocatable_kernel) {
			load = BOOT_HIGH;
			end = load + MAX(h.init_size, payload);
		} else if (!h.relocatable_kernel) {
			end = MAX(end, h.pref_address + h.init_size);
		}
	}
	r = boot_copy(m, load, b->kernel.bytes + setup_size(&h), payload, "the kernel", err);
	if (!r && end > b->tables)
		r = error_set(err, -ENOMEM,
			      "the kernel needs %llu MiB to unpack, -m %llu MiB is too little",
			      (unsigned long long)(end / MiB + 1),
			      (unsigned long long)(m->memory.ram_size / MiB));
	if (r < 0)
		return r;
	limit = h.version >= 0x203 ? h.initrd_addr_max + 1ull : 0x38000000;
	r = boot_place_initrd(m, end, limit, &initrd, err);
	if (r < 0)
		return r;
	memset(&params, 0, sizeof(params));
	fill_params(b, &params, &h);
	params.hdr.ramdisk_image = initrd;
	params.hdr.ramdisk_size = initrd ? b->initrd.size : 0;
	params.hdr.code32_start = load;
	r = boot_copy(m, BOOT_INFO, &params, sizeof(params), "boot_params", err);
	if (!r)
		r = boot_copy(m, BOOT_CMDLINE, b->cmdline, strlen(b->cmdline) + 1,
			      "the command line", err);
	if (r < 0)
		return r;
	*entry = (struct boot_entry){
		.mode = long_mode ? BOOT_MODE_LONG : BOOT_MODE_PROTECTED,
		.rip = long_mode ? load + 0x200 : load,
		.rsi = BOOT_INFO,
		.cr3 = BOOT_PAGE_TABLES,
	};
	r = boot_place_gdt(m, long_mode, entry, err);
	if (!r && long_mode)
		r = boot_place_page_tables(m, err);
	return r;
}

const struct boot_format boot_linux = { .name = "bzImage",
					.probe = linux_probe,
					.place = linux_place };
