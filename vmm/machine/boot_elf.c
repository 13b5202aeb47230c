/*
 * ELF kernels, 64-bit and 32-bit: through the PVH note that Linux, FreeBSD and Xen guests carry,
 * else through a multiboot 1 header; and multiboot 1 images that are not ELF but say in the header
 * where they go. All are entered in 32-bit protected mode.
 *
 * What is in the file is not trusted: offsets and sizes are checked against it before use.
 */
#include "vmm/machine.h"
#include "vmm/machine/boot.h"
#include <elf.h>
#include <stdlib.h>

#define PVH_NOTE_TYPE	   18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define MULTIBOOT_SEARCH   8192
#define MULTIBOOT_MAGIC	   0x1badb002
#define MULTIBOOT_BOOTED   0x2badb002
#define MULTIBOOT_ALIGN	   0x00001
#define MULTIBOOT_MEMORY   0x00002
#define MULTIBOOT_VIDEO	   0x00004
#define MULTIBOOT_ADDRESS  0x10000 /* load addresses in the header */
#define MULTIBOOT_REQUIRED 0x0ffff /* bits that a loader must understand */

/* The PVH start information, all of it guest-physical addresses. */
#define XEN_HVM_START_MAGIC_VALUE 0x336ec578

struct hvm_start_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	u32 memmap_entries, reserved;
};
static_assert(sizeof(struct hvm_start_info) == 56, "version 1 of the ABI");

struct hvm_modlist_entry {
	u64 paddr, size, cmdline_paddr, reserved;
};

struct hvm_memmap_table_entry {
	u64 addr, size;
	u32 type, reserved;
};

/* A program header of either class. */
struct segment {
	u32 type;
	u64 offset, paddr, file_size, memory_size, align;
};

struct elf_view {
	const u8 *bytes;
	u64 size;
	bool is64;
	u16 machine, type, segments, segment_size;
	u64 entry, segment_table;
};

/* --- reading ELF --- */

static int elf_open(const struct boot_file *k, struct elf_view *v, struct error *err)
{
	const u8 *p = k->bytes;

	*v = (struct elf_view){ .bytes = p, .size = k->size };
	if (k->size < SELFMAG || memcmp(p, ELFMAG, SELFMAG))
		return 0;
	if (k->size < sizeof(Elf32_Ehdr))
		return error_set(err, -ENOEXEC, "the ELF file is truncated after %llu bytes",
				 (unsigned long long)k->size);
	if (p[EI_DATA] != ELFDATA2LSB)
		return error_set(err, -ENOEXEC, "a big-endian ELF file: an x86 kernel is wanted");
	v->is64 = p[EI_CLASS] == ELFCLASS64;
	if (v->is64) {
		Elf64_Ehdr h;

		if (k->size < sizeof(h))
			return error_set(err, -ENOEXEC,
					 "the ELF file is truncated after %llu bytes",
					 (unsigned long long)k->size);
		memcpy(&h, p, sizeof(h));
		v->machine = h.e_machine, v->type = h.e_type, v->entry = h.e_entry;
		v->segments = h.e_phnum, v->segment_size = h.e_phentsize,
		v->segment_table = h.e_phoff;
	} else {
		Elf32_Ehdr h;

		memcpy(&h, p, sizeof(h));
		v->machine = h.e_machine, v->type = h.e_type, v->entry = h.e_entry;
		v->segments = h.e_phnum, v->segment_size = h.e_phentsize,
		v->segment_table = h.e_phoff;
	}
	if (v->machine != EM_X86_64 && v->machine != EM_386)
		return error_set(err, -ENOEXEC,
				 "an ELF file for machine %u: x86-64 (%u) or i386 (%u) is wanted",
				 v->machine, EM_X86_64, EM_386);
	if (v->segment_size < (v->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) ||
	    v->segment_table > k->size ||
	    (u64)v->segments * v->segment_size > k->size - v->segment_table)
		return error_set(err, -ENOEXEC,
				 "the ELF file is truncated: its program headers are not in it");
	return 1;
}

static void segment_get(const struct elf_view *v, unsigned i, struct segment *s)
{
	const u8 *at = v->bytes + v->segment_table + (u64)i * v->segment_size;

	if (v->is64) {
		Elf64_Phdr h;

		memcpy(&h, at, sizeof(h));
		*s = (struct segment){ h.p_type,   h.p_offset, h.p_paddr,
				       h.p_filesz, h.p_memsz,  h.p_align };
	} else {
		Elf32_Phdr h;

		memcpy(&h, at, sizeof(h));
		*s = (struct segment){ h.p_type,   h.p_offset, h.p_paddr,
				       h.p_filesz, h.p_memsz,  h.p_align };
	}
}

static bool in_file(const struct elf_view *v, const struct segment *s)
{
	return s->offset <= v->size && s->file_size <= v->size - s->offset;
}

/*
 * Looks through a segment of notes: name size, descriptor size, type, then both padded to the
 * alignment.
 */
static bool find_pvh(const struct elf_view *v, const struct segment *s, u64 *entry)
{
	u64 at = s->offset, end = s->offset + s->file_size, align = s->align == 8 ? 8 : 4, name,
	    desc, next;
	u32 name_size, desc_size, type;

	while (end - at >= 12) {
		name_size = get_le32(v->bytes + at);
		desc_size = get_le32(v->bytes + at + 4);
		type = get_le32(v->bytes + at + 8);
		name = at + 12;
		desc = ALIGN_UP(name + name_size, align);
		next = ALIGN_UP(desc + desc_size, align);
		if (desc > end || desc_size > end - desc)
			return false;
		if (type == PVH_NOTE_TYPE && name_size == 4 && !memcmp(v->bytes + name, "Xen", 4) &&
		    desc_size >= 4) {
			*entry = desc_size >= 8 ? get_le64(v->bytes + desc)
						: get_le32(v->bytes + desc);
			return true;
		}
		if (next > end)
			return false;
		at = next;
	}
	return false;
}

static bool find_multiboot(const struct boot_file *k, u32 *offset)
{
	u64 i, end = MIN(k->size, (u64)MULTIBOOT_SEARCH);

	for (i = 0; i + 12 <= end; i += 4) {
		const u8 *p = k->bytes + i;

		if (get_le32(p) == MULTIBOOT_MAGIC &&
		    get_le32(p) + get_le32(p + 4) + get_le32(p + 8) == 0) {
			*offset = i;
			return true;
		}
	}
	return false;
}

static int check_multiboot(const struct boot *b, struct error *err)
{
	u32 flags = get_le32(b->kernel.bytes + b->multiboot_offset + 4);

	if (flags & MULTIBOOT_REQUIRED & ~(MULTIBOOT_ALIGN | MULTIBOOT_MEMORY | MULTIBOOT_VIDEO))
		return error_set(err, -ENOEXEC,
				 "its multiboot header requires flags 0x%x, which are not known",
				 flags);
	return 1;
}

static int elf_probe(struct machine *m, struct boot *b, struct error *err)
{
	struct elf_view v;
	struct segment s;
	unsigned i;
	int r;

	r = elf_open(&b->kernel, &v, err);
	if (r <= 0)
		return r;
	for (i = 0; i < v.segments; i++) {
		segment_get(&v, i, &s);
		if (s.type != PT_LOAD && s.type != PT_NOTE)
			continue;
		if (!in_file(&v, &s))
			return error_set(err, -ENOEXEC,
					 "the ELF file is truncated: it has %llu bytes, segment %u "
					 "needs %llu",
					 (unsigned long long)v.size, i,
					 (unsigned long long)(s.offset + s.file_size));
		if (s.memory_size < s.file_size)
			return error_set(err, -ENOEXEC,
					 "the ELF file is damaged: segment %u is larger in the "
					 "file than in memory",
					 i);
		if (s.type == PT_NOTE && !b->pvh_entry)
			find_pvh(&v, &s, &b->pvh_entry);
	}
	if (b->pvh_entry)
		return 1;
	if (find_multiboot(&b->kernel, &b->multiboot_offset))
		return check_multiboot(b, err);
	return error_set(
		err, -ENOEXEC,
		"an ELF file with neither a PVH note nor a multiboot header cannot be started");
}

static int multiboot_probe(struct machine *m, struct boot *b, struct error *err)
{
	u32 flags;

	if (!find_multiboot(&b->kernel, &b->multiboot_offset))
		return 0;
	flags = get_le32(b->kernel.bytes + b->multiboot_offset + 4);
	if (!(flags & MULTIBOOT_ADDRESS) || b->kernel.size < b->multiboot_offset + 32)
		return error_set(
			err, -ENOEXEC,
			"a multiboot header without load addresses, in a file that is not ELF");
	return check_multiboot(b, err);
}

/* --- loading --- */

static int load_segments(struct machine *m, struct boot *b, struct elf_view *v, u64 *end,
			 struct error *err)
{
	struct segment s;
	unsigned i;
	int r;

	for (i = 0; i < v->segments; i++) {
		segment_get(v, i, &s);
		if (s.type != PT_LOAD || !s.memory_size)
			continue;
		r = boot_copy(m, s.paddr, v->bytes + s.offset, s.file_size, "a segment", err);
		if (!r)
			r = boot_clear(m, s.paddr + s.file_size, s.memory_size - s.file_size,
				       "a segment", err);
		if (r < 0)
			return r;
		*end = MAX(*end, s.paddr + s.memory_size);
	}
	return 0;
}

/*
 * multiboot 3.1.3: header, load, end of data, end of bss addresses; the file offset follows from
 * where the header is.
 */
static int load_flat(struct machine *m, struct boot *b, u64 *end, struct error *err)
{
	const u8 *h = b->kernel.bytes + b->multiboot_offset;
	u32 header = get_le32(h + 12), load = get_le32(h + 16), load_end = get_le32(h + 20),
	    bss_end = get_le32(h + 24);
	u64 offset, size;
	int r;

	if (load > header || header - load > b->multiboot_offset)
		return error_set(err, -ENOEXEC,
				 "its multiboot header says that it is loaded from before the "
				 "file's beginning");
	offset = b->multiboot_offset - (header - load);
	size = load_end ? (u64)load_end - load : b->kernel.size - offset;
	if ((load_end && load_end < load) || size > b->kernel.size - offset)
		return error_set(err, -ENOEXEC,
				 "the multiboot image is truncated: it has %llu bytes",
				 (unsigned long long)b->kernel.size);
	r = boot_copy(m, load, b->kernel.bytes + offset, size, "the image", err);
	*end = load + size;
	if (!r && bss_end > *end) {
		r = boot_clear(m, *end, bss_end - *end, "its bss", err);
		*end = bss_end;
	}
	return r;
}

/* The kernel's modules, command line and memory map, as Xen's PVH start information (version 1). */
static int place_start_info(struct machine *m, struct boot *b, u64 end, struct error *err)
{
	struct {
		struct hvm_start_info info;
		struct hvm_modlist_entry module;
		struct hvm_memmap_table_entry map[E820_MAX];
	} start = { .info = { .magic = XEN_HVM_START_MAGIC_VALUE, .version = 1 } };
	unsigned i;
	u64 initrd;
	int r;

	r = boot_place_initrd(m, ALIGN_UP(end, 4096), 4 * GiB, &initrd, err);
	if (r < 0)
		return r;
	if (initrd) {
		start.module =
			(struct hvm_modlist_entry){ .paddr = initrd, .size = b->initrd.size };
		start.info.nr_modules = 1;
		start.info.modlist_paddr = BOOT_INFO + offsetof(__typeof__(start), module);
	}
	start.info.cmdline_paddr = BOOT_CMDLINE;
	start.info.rsdp_paddr = b->rsdp;
	start.info.memmap_paddr = BOOT_INFO + offsetof(__typeof__(start), map);
	start.info.memmap_entries = b->e820_count;
	for (i = 0; i < b->e820_count; i++)
		start.map[i] = (struct hvm_memmap_table_entry){ b->e820[i].base, b->e820[i].size,
								b->e820[i].type, 0 };
	return boot_copy(m, BOOT_INFO, &start, sizeof(start), "the start information", err);
}

struct multiboot_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4],
		mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
} __attribute__((packed));

struct multiboot_map {
	u32 size;
	u64 base, length;
	u32 type;
} __attribute__((packed));

struct multiboot_module {
	u32 start, end, string, reserved;
} __attribute__((packed));

static int place_multiboot_info(struct machine *m, struct boot *b, u64 end, struct error *err)
{
	struct {
		struct multiboot_info info;
		struct multiboot_module module;
		char name[8];
		struct multiboot_map map[E820_MAX];
	} __attribute__((packed)) mb = { .name = "trine" };
	unsigned i;
	u64 initrd;
	int r;

	r = boot_place_initrd(m, ALIGN_UP(end, 4096), 4 * GiB, &initrd, err);
	if (r < 0)
		return r;
	mb.info.flags =
		1 << 0 | 1 << 2 | 1 << 6 | 1 << 9; /* memory, command line, map, loader's name */
	mb.info.mem_lower = BOOT_LOW_END / 1024;
	mb.info.mem_upper = (b->tables - BOOT_HIGH) / 1024;
	mb.info.cmdline = BOOT_CMDLINE;
	mb.info.boot_loader_name = BOOT_INFO + offsetof(__typeof__(mb), name);
	if (initrd) {
		mb.info.flags |= 1 << 3;
		mb.info.mods_count = 1;
		mb.info.mods_addr = BOOT_INFO + offsetof(__typeof__(mb), module);
		mb.module = (struct multiboot_module){ initrd, initrd + b->initrd.size,
						       BOOT_CMDLINE, 0 };
	}
	for (i = 0; i < b->e820_count; i++)
		mb.map[i] = (struct multiboot_map){ 20, b->e820[i].base, b->e820[i].size,
						    b->e820[i].type };
	mb.info.mmap_length = b->e820_count * sizeof(mb.map[0]);
	mb.info.mmap_addr = BOOT_INFO + offsetof(__typeof__(mb), map);
	return boot_copy(m, BOOT_INFO, &mb, sizeof(mb), "the multiboot information", err);
}

static int enter(struct machine *m, struct boot *b, u64 rip, bool multiboot, struct error *err)
{
	b->entry = (struct boot_entry){
		.mode = BOOT_MODE_PROTECTED,
		.rip = rip,
		.ebx = BOOT_INFO,
		.eax = multiboot ? MULTIBOOT_BOOTED : 0,
	};
	if (rip > 0xffffffffull)
		return error_set(err, -ENOEXEC, "its entry point 0x%llx is above 4 GiB",
				 (unsigned long long)rip);
	if (boot_copy(m, BOOT_CMDLINE, b->cmdline, strlen(b->cmdline) + 1, "the command line",
		      err) < 0)
		return -ENOMEM;
	return boot_place_gdt(m, false, &b->entry, err);
}

static int elf_place(struct machine *m, struct boot *b, struct error *err)
{
	struct elf_view v;
	u64 end = BOOT_HIGH;
	int r;

	r = elf_open(&b->kernel, &v, err);
	if (r >= 0)
		r = load_segments(m, b, &v, &end, err);
	if (r < 0)
		return r;
	if (b->pvh_entry) {
		r = place_start_info(m, b, end, err);
		return r < 0 ? r : enter(m, b, b->pvh_entry, false, err);
	}
	r = place_multiboot_info(m, b, end, err);
	return r < 0 ? r : enter(m, b, v.entry, true, err);
}

static int multiboot_place(struct machine *m, struct boot *b, struct error *err)
{
	u64 end = 0;
	int r;

	r = load_flat(m, b, &end, err);
	if (!r)
		r = place_multiboot_info(m, b, end, err);
	if (!r)
		r = enter(m, b, get_le32(b->kernel.bytes + b->multiboot_offset + 28), true, err);
	return r;
}

const struct boot_format boot_elf = { .name = "ELF", .probe = elf_probe, .place = elf_place };
const struct boot_format boot_multiboot = { .name = "multiboot",
					    .probe = multiboot_probe,
					    .place = multiboot_place };
