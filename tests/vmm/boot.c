/*
 * The boot loaders with images made here, whole and broken; what they leave in memory; and the ACPI
 * and SMBIOS tables beside them. With a directory as argument the ACPI tables are written there,
 * for iasl.
 */
#include "tests/vmm/bare.h"
#include "vmm/dev/fw_cfg.h"
#include "vmm/machine/boot.h"
#include "vmm/machine/pc.h"
#include <asm/bootparam.h>
#include <elf.h>
#include <fcntl.h>
#include <stdarg.h>
#include <unistd.h>

#define RAM (64 * MiB)

static char path[] = "/tmp/trine-boot-XXXXXX";
static u8 image[1 << 20];

/* Writes @size bytes of image[] to the file. */
static void save(u64 size)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	if (write(fd, image, size) != (ssize_t)size)
		abort();
	close(fd);
}

/* Loads the file as -kernel, and places it. The error's text if that fails. */
static const char *boot(const char *append, const char *initrd)
{
	static struct error err;
	int r;

	machine_lock(&bare);
	boot_free(&bare);
	free(bare.config.kernel);
	free(bare.config.append);
	free(bare.config.initrd);
	bare.config.kernel = xstrdup(path);
	bare.config.append = append ? xstrdup(append) : NULL;
	bare.config.initrd = initrd ? xstrdup(initrd) : NULL;
	err.text[0] = 0;
	r = boot_load(&bare, &err);
	if (!r)
		r = boot_place(&bare, &err);
	machine_unlock(&bare);
	return r < 0 ? err.text : NULL;
}

/* Booting the file is refused with one line that has @want in it. */
static void refuses(const char *append, const char *initrd, const char *want, const char *what)
{
	const char *text = boot(append, initrd);

	tap_ok(text && strstr(text, want) && !strchr(text, '\n'), "%s: %s", what,
	       text ? text : "it was not refused");
}

/* --- bzImage --- */

#define SETUP_SECTS 2
#define SETUP	    ((SETUP_SECTS + 1) * 512)
#define PAYLOAD	    0x4000

static struct setup_header *make_bzimage(void)
{
	struct setup_header *h = (struct setup_header *)(image + 0x1f1);

	memset(image, 0, sizeof(image));
	h->setup_sects = SETUP_SECTS;
	h->syssize = PAYLOAD / 16;
	h->boot_flag = 0xaa55;
	h->jump = 0x6aeb; /* 0x202 + 0x6a: where the header ends */
	h->header = 0x53726448;
	h->version = 0x20f;
	h->loadflags = LOADED_HIGH;
	h->initrd_addr_max = 0x7fffffff;
	h->kernel_alignment = 0x200000;
	h->relocatable_kernel = 1;
	h->xloadflags = XLF_KERNEL_64;
	h->cmdline_size = 255;
	h->pref_address = 0x1000000;
	h->init_size = 0x100000;
	memset(image + SETUP, 0x90, PAYLOAD);
	return h;
}

static const struct boot_params *params(void)
{
	return memory_ptr(&bare, BOOT_INFO, sizeof(struct boot_params));
}

static void test_bzimage(void)
{
	const struct boot_params *p;
	struct setup_header *h;
	const char *text;
	u64 total = 0;
	unsigned i;

	make_bzimage();
	save(SETUP + PAYLOAD);
	text = boot("console=ttyS0", path);
	if (!tap_ok(!text, "bzImage: boots %s", text ? text : ""))
		return;
	p = params();
	tap_ok(bare.boot->entry.mode == BOOT_MODE_LONG && bare.boot->entry.rip == 0x1000200 &&
		       bare.boot->entry.rsi == BOOT_INFO,
	       "bzImage: enters 64-bit code at 0x200 behind its address");
	tap_ok(!memcmp(memory_ptr(&bare, 0x1000000, PAYLOAD), image + SETUP, PAYLOAD),
	       "bzImage: the kernel is there");
	tap_ok(p->hdr.header == 0x53726448 && p->hdr.type_of_loader == 0xff,
	       "bzImage: boot_params has the header");
	tap_ok(!strcmp(memory_ptr(&bare, p->hdr.cmd_line_ptr, 14), "console=ttyS0"),
	       "bzImage: the command line");
	tap_ok(p->hdr.ramdisk_size == SETUP + PAYLOAD &&
		       !memcmp(memory_ptr(&bare, p->hdr.ramdisk_image, SETUP), image, SETUP) &&
		       p->hdr.ramdisk_image % 4096 == 0 && p->hdr.ramdisk_image >= 0x1100000,
	       "bzImage: the initrd is above what the kernel unpacks into");
	for (i = 0; i < p->e820_entries; i++)
		total += p->e820_table[i].type == E820_RAM ? p->e820_table[i].size : 0;
	tap_ok(total > RAM - 2 * MiB && total < RAM,
	       "bzImage: E820 tells of all RAM but the reserved");
	for (i = 1; i < p->e820_entries; i++)
		if (p->e820_table[i].addr < p->e820_table[i - 1].addr + p->e820_table[i - 1].size)
			break;
	tap_ok(i == p->e820_entries, "bzImage: E820 is in order, without overlap");
	tap_ok(p->acpi_rsdp_addr == bare.boot->rsdp, "bzImage: boot_params knows the RSDP");

	h = make_bzimage();
	h->xloadflags = 0;
	save(SETUP + PAYLOAD);
	tap_ok(!boot(NULL, NULL) && bare.boot->entry.mode == BOOT_MODE_PROTECTED &&
		       bare.boot->entry.rip == 0x1000000,
	       "bzImage: a 32-bit one enters 32-bit code");
	h->pref_address = 0x10000000;
	save(SETUP + PAYLOAD);
	tap_ok(!boot(NULL, NULL) && bare.boot->entry.rip == 0x100000,
	       "bzImage: moves down when memory ends before its place");
	h->relocatable_kernel = 0;
	save(SETUP + PAYLOAD);
	refuses(NULL, NULL, "needs", "bzImage: not if it cannot move");
	h = make_bzimage();
	h->init_size = 0x10000000;
	save(SETUP + PAYLOAD);
	refuses(NULL, NULL, "needs", "bzImage: room to unpack is wanted");
	make_bzimage();
	save(SETUP + PAYLOAD - 100);
	refuses(NULL, NULL, "truncated", "bzImage: cut in the payload");
	save(0x220);
	refuses(NULL, NULL, "truncated", "bzImage: cut in the header");
	save(600);
	refuses(NULL, NULL, "truncated", "bzImage: cut in the setup");
	h = make_bzimage();
	h->version = 0x201;
	save(SETUP + PAYLOAD);
	refuses(NULL, NULL, "2.01", "bzImage: an old protocol");
	h = make_bzimage();
	h->loadflags = 0;
	save(SETUP + PAYLOAD);
	refuses(NULL, NULL, "zImage", "bzImage: a zImage");
	h = make_bzimage();
	h->cmdline_size = 4;
	save(SETUP + PAYLOAD);
	refuses("quiet", NULL, "-append", "bzImage: a command line longer than it takes");
	h = make_bzimage();
	h->initrd_addr_max = 0x1000000;
	save(SETUP + PAYLOAD);
	refuses(NULL, path, "-initrd", "bzImage: an initrd that has no place");
}

/* --- ELF --- */

struct elf64 {
	Elf64_Ehdr e;
	Elf64_Phdr p[2];
	struct {
		u32 name_size, desc_size, type;
		char name[4];
		u64 entry;
	} note;
	u32 pad;
	u32 multiboot[8];
	u8 code[256];
};

static struct elf64 *make_elf64(bool pvh, bool multiboot)
{
	struct elf64 *f = (struct elf64 *)image;

	memset(image, 0, sizeof(image));
	memcpy(f->e.e_ident,
	       "\x7f"
	       "ELF\x02\x01\x01",
	       7);
	f->e.e_type = ET_EXEC;
	f->e.e_machine = EM_X86_64;
	f->e.e_version = 1;
	f->e.e_entry = 0xffffffff81000000ull;
	f->e.e_phoff = offsetof(struct elf64, p);
	f->e.e_ehsize = sizeof(f->e);
	f->e.e_phentsize = sizeof(f->p[0]);
	f->e.e_phnum = 2;
	f->p[0] = (Elf64_Phdr){ .p_type = PT_LOAD,
				.p_offset = 0,
				.p_vaddr = 0xffffffff81000000ull,
				.p_paddr = 0x200000,
				.p_filesz = sizeof(*f),
				.p_memsz = 0x10000 };
	f->p[1] = (Elf64_Phdr){ .p_type = PT_NOTE,
				.p_offset = offsetof(struct elf64, note),
				.p_filesz = sizeof(f->note),
				.p_memsz = sizeof(f->note),
				.p_align = 4 };
	f->note.name_size = 4;
	f->note.desc_size = 8;
	f->note.type = pvh ? 18 : 17;
	memcpy(f->note.name, "Xen", 4);
	f->note.entry = 0x200100;
	if (multiboot) {
		f->multiboot[0] = 0x1badb002;
		f->multiboot[1] = 2;
		f->multiboot[2] = -(0x1badb002u + 2);
	}
	memset(f->code, 0x90, sizeof(f->code));
	return f;
}

static void test_elf(void)
{
	const u32 *info;
	struct elf64 *f;
	const char *text;

	make_elf64(true, false);
	save(sizeof(*f));
	text = boot("hi there", path);
	if (!tap_ok(!text, "ELF: boots through PVH %s", text ? text : ""))
		return;
	info = memory_ptr(&bare, bare.boot->entry.ebx, 56);
	tap_ok(bare.boot->entry.mode == BOOT_MODE_PROTECTED && bare.boot->entry.rip == 0x200100 &&
		       info[0] == 0x336ec578,
	       "ELF: enters at the note's address, the start information in EBX");
	tap_ok(info[3] == 1 && *(const u64 *)(info + 8) == bare.boot->rsdp &&
		       info[12] == bare.boot->e820_count,
	       "ELF: a module, the RSDP and the memory map are in it");
	tap_ok(!strcmp(memory_ptr(&bare, info[6], 9), "hi there"), "ELF: and the command line");
	tap_ok(!memcmp(memory_ptr(&bare, 0x200000, sizeof(*f)), image, sizeof(*f)) &&
		       !*(const u8 *)memory_ptr(&bare, 0x20ffff, 1),
	       "ELF: the segment is there, its rest zeroed");
	f = make_elf64(false, true);
	f->e.e_entry = 0x200080;
	save(sizeof(*f));
	text = boot("mb", path);
	tap_ok(!text && bare.boot->entry.eax == 0x2badb002 && bare.boot->entry.rip == 0x200080,
	       "ELF: through a multiboot header %s", text ? text : "");
	info = memory_ptr(&bare, bare.boot->entry.ebx, 88);
	tap_ok(info[0] == 0x24d && info[1] == 639 && info[5] == 1 &&
		       info[11] == bare.boot->e820_count * 24,
	       "ELF: multiboot information with memory, a module and the map");
	f->multiboot[1] = 2 | 8;
	f->multiboot[2] = -(0x1badb002u + 10);
	save(sizeof(*f));
	refuses(NULL, NULL, "flags", "ELF: a multiboot requirement that is not known");
	make_elf64(false, false);
	save(sizeof(*f));
	refuses(NULL, NULL, "neither", "ELF: with no way in");
	f = make_elf64(true, false);
	f->e.e_machine = EM_AARCH64;
	save(sizeof(*f));
	refuses(NULL, NULL, "183", "ELF: for another machine");
	f = make_elf64(true, false);
	f->e.e_ident[EI_DATA] = ELFDATA2MSB;
	save(sizeof(*f));
	refuses(NULL, NULL, "big-endian", "ELF: of another order");
	make_elf64(true, false);
	save(sizeof(*f) - 1);
	refuses(NULL, NULL, "truncated", "ELF: cut in a segment");
	save(80);
	refuses(NULL, NULL, "program headers", "ELF: cut in the program headers");
	save(20);
	refuses(NULL, NULL, "truncated", "ELF: cut in the header");
	f = make_elf64(true, false);
	f->e.e_phoff = ~0ull - 10;
	save(sizeof(*f));
	refuses(NULL, NULL, "program headers", "ELF: program headers beyond everything");
	f = make_elf64(true, false);
	f->p[0].p_offset = ~0ull - 100;
	save(sizeof(*f));
	refuses(NULL, NULL, "truncated", "ELF: an offset that overflows");
	f = make_elf64(true, false);
	f->p[0].p_memsz = 8;
	save(sizeof(*f));
	refuses(NULL, NULL, "damaged", "ELF: larger in the file than in memory");
	f = make_elf64(true, false);
	f->p[0].p_paddr = RAM - 4096;
	save(sizeof(*f));
	refuses(NULL, NULL, "does not fit", "ELF: a segment beyond memory");
	f = make_elf64(true, false);
	f->p[0].p_memsz = ~0ull;
	save(sizeof(*f));
	refuses(NULL, NULL, "does not fit", "ELF: a segment that overflows");
	f = make_elf64(true, false);
	f->note.name_size = 0xffffffff;
	save(sizeof(*f));
	refuses(NULL, NULL, "neither", "ELF: a note that overflows is no note");
	f = make_elf64(true, false);
	f->note.entry = 0x100000000ull;
	save(sizeof(*f));
	refuses(NULL, NULL, "above 4 GiB", "ELF: an entry that 32-bit code cannot reach");
}

static void test_flat_multiboot(void)
{
	u32 *h = (u32 *)(image + 16);
	const char *text;

	memset(image, 0, sizeof(image));
	h[0] = 0x1badb002, h[1] = 0x10003, h[2] = -(h[0] + h[1]);
	h[3] = 0x100010, h[4] = 0x100000, h[5] = 0x101000, h[6] = 0x102000, h[7] = 0x100040;
	save(0x1000);
	text = boot(NULL, NULL);
	tap_ok(!text && bare.boot->entry.rip == 0x100040 &&
		       *(const u32 *)memory_ptr(&bare, 0x100010, 4) == 0x1badb002,
	       "multiboot: an image that is not ELF %s", text ? text : "");
	save(0x800);
	refuses(NULL, NULL, "truncated", "multiboot: cut");
	h[4] = 0x0ffff0;
	save(0x1000);
	refuses(NULL, NULL, "before", "multiboot: from before the file");
	h[1] = 3, h[2] = -(h[0] + h[1]);
	save(0x1000);
	refuses(NULL, NULL, "without load addresses", "multiboot: without addresses");
}

static void test_other(void)
{
	save(0);
	refuses(NULL, NULL, "empty", "an empty file");
	memset(image, 'x', 5000);
	save(5000);
	refuses(NULL, NULL, path, "a file that is no kernel");
	make_bzimage();
	save(SETUP + PAYLOAD);
	refuses(NULL, "/nonexistent/initrd", "/nonexistent/initrd", "no initrd there");
	refuses(NULL, "/tmp", "directory", "an initrd that is a directory");
}

/* --- tables --- */

static u8 sum(const void *p, u32 n)
{
	const u8 *b = p;
	u8 s = 0;

	while (n--)
		s += *b++;
	return s;
}

static void dump(const char *directory, const char *name, const void *p, u32 n)
{
	char file[256];
	int fd;

	if (!directory)
		return;
	snprintf(file, sizeof(file), "%s/%.4s.dat", directory, name);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		tap_diag("%s: cannot be written", file);
	close(fd);
}

static void test_acpi(const char *directory)
{
	static const char *const wanted[] = { "FACP", "APIC", "MCFG", "SSDT" };
	const u8 *rsdp, *xsdt, *table, *dsdt;
	unsigned i, j, count;
	u32 length;

	make_bzimage();
	save(SETUP + PAYLOAD);
	boot(NULL, NULL);
	rsdp = memory_ptr(&bare, bare.boot->rsdp, 36);
	if (!tap_ok(rsdp && !memcmp(rsdp, "RSD PTR ", 8) && !sum(rsdp, 20) && !sum(rsdp, 36),
		    "ACPI: RSDP"))
		return;
	xsdt = memory_ptr(&bare, get_le64(rsdp + 24), 36);
	if (!tap_ok(xsdt && !memcmp(xsdt, "XSDT", 4) && !sum(xsdt, get_le32(xsdt + 4)),
		    "ACPI: XSDT"))
		return;
	count = (get_le32(xsdt + 4) - 36) / 8;
	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		table = NULL;
		for (j = 0; j < count; j++) {
			const u8 *t = memory_ptr(&bare, get_le64(xsdt + 36 + 8 * j), 36);

			if (t && !memcmp(t, wanted[i], 4))
				table = t;
		}
		if (!tap_ok(table, "ACPI: %s is listed", wanted[i]))
			continue;
		length = get_le32(table + 4);
		tap_ok(!sum(table, length), "ACPI: %s's checksum", wanted[i]);
		dump(directory, wanted[i], table, length);
		if (i)
			continue;
		dsdt = memory_ptr(&bare, get_le64(table + 140), 36);
		tap_ok(dsdt && !memcmp(dsdt, "DSDT", 4) && !sum(dsdt, get_le32(dsdt + 4)),
		       "ACPI: DSDT, and its checksum");
		dump(directory, "DSDT", dsdt, get_le32(dsdt + 4));
		tap_ok(get_le32(table + 76) == 0x608 && table[128] == 0x0e &&
			       get_le64(table + 120) == 0xcf9,
		       "ACPI: FADT has timer and reset register");
	}
}

static void test_smbios(void)
{
	const u8 *e28 = memory_ptr(&bare, BOOT_TABLES, 0x40), *e30 = e28 + 0x20, *s, *end;
	unsigned types[256] = { 0 }, count = 0;

	tap_ok(!memcmp(e28, "_SM_", 4) && !sum(e28, 0x1f) && !sum(e28 + 0x10, 15),
	       "SMBIOS: the 2.8 entry point");
	tap_ok(!memcmp(e30, "_SM3_", 5) && !sum(e30, 0x18), "SMBIOS: the 3.0 entry point");
	s = memory_ptr(&bare, get_le64(e30 + 16), get_le32(e30 + 12));
	end = s + get_le32(e30 + 12);
	while (s + 4 <= end && s[1] >= 4) {
		types[s[0]]++;
		count++;
		for (s += s[1]; s + 2 <= end && get_le16(s); s++)
			;
		s += 2;
	}
	tap_ok(s == end && count == get_le16(e28 + 0x1c),
	       "SMBIOS: %u structures fill the table exactly", count);
	tap_ok(types[0] == 1 && types[1] == 1 && types[3] == 1 && types[4] == 1 && types[16] &&
		       types[17] && types[19] && types[32] == 1 && types[127] == 1,
	       "SMBIOS: BIOS, system, chassis, processor, memory, boot, end");
}

int main(int argc, char **argv)
{
	int fd = mkstemp(path);

	tap_begin();
	close(fd);
	bare_start(RAM);
	test_bzimage();
	test_elf();
	test_flat_multiboot();
	test_other();
	test_acpi(argc > 1 ? argv[1] : NULL);
	test_smbios();
	bare_stop();
	unlink(path);
	return tap_end();
}
