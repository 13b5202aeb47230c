/*
 * Starting a kernel without firmware: the image of -kernel, -initrd and -append, put into guest
 * memory at every reset.
 *
 * Formats are tried in order, each in a file of its own: Linux bzImage (boot_linux.c); ELF through
 * a PVH note or multiboot 1, and multiboot 1 without ELF (boot_elf.c). What stands in low memory:
 *
 *	0x00500	GDT			0x07000	boot_params, hvm_start_info or multiboot_info
 *	0x09000	page tables		0x20000	command line
 *	0x9fc00	EBDA (reserved)		0xf0000	SMBIOS entry point, RSDP
 */
#ifndef VMM_MACHINE_BOOT_H
#define VMM_MACHINE_BOOT_H

#include "vmm/util.h"
#include "vmm/vcpu_state.h"

struct machine;

#define BOOT_GDT	 0x500ull
#define BOOT_INFO	 0x7000ull
#define BOOT_INFO_END	 0x9000ull
#define BOOT_PAGE_TABLES 0x9000ull /* PML4, PDPT, four page directories: 24 KiB */
#define BOOT_CMDLINE	 0x20000ull
#define BOOT_CMDLINE_MAX 0x10000ull
#define BOOT_LOW_END	 0x9fc00ull
#define BOOT_TABLES	 0xf0000ull /* SMBIOS anchor and RSDP, where they are looked for */
#define BOOT_HIGH	 0x100000ull

#define E820_MAX      32
#define E820_RAM      1
#define E820_RESERVED 2
#define E820_ACPI     3

struct e820_entry {
	u64 base, size;
	u32 type;
} __attribute__((packed));
static_assert(sizeof(struct e820_entry) == 20, "the zero page has 20 bytes an entry");

/* A file in memory. */
struct boot_file {
	char *path;
	u8 *bytes;
	u64 size;
};

struct boot_format;

struct boot {
	struct boot_file kernel, initrd;
	const char *cmdline;
	const struct boot_format *format;
	u64 pvh_entry;	      /* found by the format's probe */
	u32 multiboot_offset; /* of the header in the file */
	u64 tables; /* guest-physical place of the ACPI and SMBIOS tables, at the end of low RAM */
	u64 tables_end;
	u64 rsdp;
	struct e820_entry e820[E820_MAX];
	unsigned e820_count;
	struct boot_entry entry;
};

struct boot_format {
	const char *name;
	/** 1: it is this format; 0: it is not; negative: it is, but cannot be started, text set. */
	int (*probe)(struct machine *m, struct boot *b, struct error *err);
	/** Puts it into memory and fills in b->entry. */
	int (*place)(struct machine *m, struct boot *b, struct error *err);
};

extern const struct boot_format boot_linux, boot_elf, boot_multiboot;

/** Reads and checks the files of m->config. Without a kernel nothing happens. */
int boot_load(struct machine *m, struct error *err);
/** Puts everything into guest memory, before the first start and at each reset. */
int boot_place(struct machine *m, struct error *err);
void boot_free(struct machine *m);

/* For the formats. */

/** Copies @size bytes to @gpa; -EFAULT with a text if that is not all RAM below the tables. */
int boot_copy(struct machine *m, u64 gpa, const void *bytes, u64 size, const char *what,
	      struct error *err);
/** Zeroes. */
int boot_clear(struct machine *m, u64 gpa, u64 size, const char *what, struct error *err);
/**
 * Puts the initrd as high as @limit (exclusive) and the tables allow, at or above @floor. Sets *at
 * and returns 0, also when there is none (then *at is 0).
 */
int boot_place_initrd(struct machine *m, u64 floor, u64 limit, u64 *at, struct error *err);
/** The flat GDT at BOOT_GDT: 0x10 code, 0x18 data; 64-bit or 32-bit code. */
int boot_place_gdt(struct machine *m, bool long_mode, struct boot_entry *entry, struct error *err);
/** Identity-maps the first 4 GiB with 2 MiB pages. */
int boot_place_page_tables(struct machine *m, struct error *err);

#endif
