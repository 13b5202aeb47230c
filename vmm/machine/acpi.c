/*
 * The ACPI tables. The DSDT is compiled from dsdt.asl at build time; here are the tables that hold
 * addresses and CPUs, and an SSDT of a few names and processors, whose byte code is simple enough
 * to write down (ACPI 6.4 chapter 20).
 */
#include "vmm/machine/acpi.h"
#include "vmm/cpuid.h"
#include "vmm/dev/serial.h"
#include "vmm/machine.h"
#include "vmm/machine/boot.h"
#include "vmm/machine/pc.h"
#include "vmm/machine/table.h"
#include "dsdt.hex"
#include <stdlib.h>

#define OEM_ID	     "TRINE "
#define OEM_TABLE_ID "TRINEPC "
#define CREATOR_ID   "TRIN"

struct acpi_header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem_id[6], oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
} __attribute__((packed));
static_assert(sizeof(struct acpi_header) == 36, "5.2.6");

struct acpi_address {
	u8 space, bits, offset, access;
	u64 address;
} __attribute__((packed));

struct acpi_rsdp {
	char signature[8];
	u8 checksum;
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 checksum2, reserved[3];
} __attribute__((packed));
static_assert(sizeof(struct acpi_rsdp) == 36, "5.2.5.3");

struct acpi_fadt {
	struct acpi_header header;
	u32 facs, dsdt;
	u8 reserved, profile;
	u16 sci_int;
	u32 smi_cmd;
	u8 acpi_enable, acpi_disable, s4bios, pstate;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst;
	u16 lvl2_lat, lvl3_lat, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 boot_arch;
	u8 reserved2;
	u32 flags;
	struct acpi_address reset_reg;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor;
	u64 x_facs, x_dsdt;
	struct acpi_address x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr,
		x_gpe0, x_gpe1;
	struct acpi_address sleep_control, sleep_status;
	u64 hypervisor;
} __attribute__((packed));
static_assert(sizeof(struct acpi_fadt) == 276, "5.2.9");

#define FADT_WBINVD	 (1u << 0)
#define FADT_PROC_C1	 (1u << 2)
#define FADT_SLP_BUTTON	 (1u << 5) /* no fixed sleep button */
#define FADT_TMR_VAL_EXT (1u << 8) /* the timer has 32 bits */
#define FADT_RESET	 (1u << 10)
#define BOOT_LEGACY	 (1u << 0)
#define BOOT_8042	 (1u << 1)
#define BOOT_NO_VGA	 (1u << 2)

struct acpi_facs {
	char signature[4];
	u32 length, hardware_signature, waking_vector, global_lock, flags;
	u64 x_waking_vector;
	u8 version, reserved[31];
} __attribute__((packed));
static_assert(sizeof(struct acpi_facs) == 64, "5.2.10");

/* Tables are written one after another into a buffer that stands for guest memory from @base on. */
struct writer {
	struct table out;
	u64 base;
	u64 tables[16];
	unsigned count;
};

/* Opens a table; returns where it begins in the buffer. */
static u32 begin(struct writer *w, const char *signature, u8 revision)
{
	struct acpi_header h = { .revision = revision, .oem_revision = 1, .creator_revision = 1 };
	u32 at;

	w->out.at = ALIGN_UP(w->out.at, 16);
	at = w->out.at;
	memcpy(h.signature, signature, 4);
	memcpy(h.oem_id, OEM_ID, 6);
	memcpy(h.oem_table_id, OEM_TABLE_ID, 8);
	memcpy(h.creator_id, CREATOR_ID, 4);
	put(&w->out, &h, sizeof(h));
	return at;
}

static u64 end(struct writer *w, u32 at)
{
	struct acpi_header *h = (struct acpi_header *)(w->out.bytes + at);

	h->length = w->out.at - at;
	h->checksum = 0;
	h->checksum = -table_sum(h, h->length);
	return w->base + at;
}

static void listed(struct writer *w, u64 table)
{
	assert(w->count < ARRAY_SIZE(w->tables));
	w->tables[w->count++] = table;
}

static struct acpi_address port(u16 address, u8 bytes)
{
	return (struct acpi_address){
		.space = 1, .bits = bytes * 8, .access = bytes == 4 ? 3 : bytes, .address = address
	};
}

static void fadt(struct writer *w, u64 facs, u64 dsdt)
{
	struct acpi_fadt f = {
		.facs = facs,
		.dsdt = dsdt,
		.sci_int = PC_SCI,
		.pm1a_evt = PC_PM_BASE + PC_PM_EVENT,
		.pm1_evt_len = 4,
		.pm1a_cnt = PC_PM_BASE + PC_PM_CONTROL,
		.pm1_cnt_len = 2,
		.pm_tmr = PC_PM_BASE + PC_PM_TIMER,
		.pm_tmr_len = 4,
		.gpe0 = PC_PM_BASE + PC_PM_GPE0,
		.gpe0_len = PC_PM_GPE0_LEN,
		.lvl2_lat = 0xfff,
		.lvl3_lat = 0xfff, /* no C2 and C3 */
		.century = 0x32,
		.boot_arch = BOOT_LEGACY | BOOT_8042 | BOOT_NO_VGA,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_TMR_VAL_EXT |
			 FADT_RESET,
		.reset_reg = port(PC_RESET_PORT, 1),
		.reset_value = 0x0e,
		.minor = 4,
		.x_dsdt = dsdt,
		.x_pm1a_evt = port(PC_PM_BASE + PC_PM_EVENT, 4),
		.x_pm1a_cnt = port(PC_PM_BASE + PC_PM_CONTROL, 2),
		.x_pm_tmr = port(PC_PM_BASE + PC_PM_TIMER, 4),
		.x_gpe0 = port(PC_PM_BASE + PC_PM_GPE0, 4),
	};
	u32 at = begin(w, "FACP", 6);

	f.x_gpe0.bits = PC_PM_GPE0_LEN * 8;
	f.x_gpe0.access = 1;
	put(&w->out, (u8 *)&f + sizeof(f.header), sizeof(f) - sizeof(f.header));
	listed(w, end(w, at));
}

static void madt(struct machine *m, struct writer *w)
{
	u32 at = begin(w, "APIC", 5), i;

	put32(&w->out, PC_LAPIC);
	put32(&w->out, 1); /* there are PICs too */
	for (i = 0; i < m->config.cpus; i++) {
		put8(&w->out, 0), put8(&w->out, 8);
		put8(&w->out, i), put8(&w->out, cpuid_apic_id(m, i));
		put32(&w->out, 1);
	}
	put8(&w->out, 1), put8(&w->out, 12);
	put8(&w->out, 0), put8(&w->out, 0);
	put32(&w->out, PC_IOAPIC), put32(&w->out, 0);
	/* The timer arrives at pin 2; the SCI is a level, active high. */
	put8(&w->out, 2), put8(&w->out, 10), put8(&w->out, 0), put8(&w->out, 0), put32(&w->out, 2), put16(&w->out, 0);
	put8(&w->out, 2), put8(&w->out, 10), put8(&w->out, 0), put8(&w->out, PC_SCI), put32(&w->out, PC_SCI), put16(&w->out, 0x000d);
	/* NMI at LINT1 of every CPU. */
	put8(&w->out, 4), put8(&w->out, 6), put8(&w->out, 0xff), put16(&w->out, 0), put8(&w->out, 1);
	listed(w, end(w, at));
}

static void mcfg(struct writer *w)
{
	u32 at = begin(w, "MCFG", 1);

	put64(&w->out, 0);
	put64(&w->out, PC_ECAM_BASE);
	put16(&w->out, 0);
	put8(&w->out, 0), put8(&w->out, PC_ECAM_SIZE / MiB - 1);
	put32(&w->out, 0);
	listed(w, end(w, at));
}

/* --- AML, as much as is needed --- */

#define AML_NAME   0x08
#define AML_SCOPE  0x10
#define AML_QWORD  0x0e
#define AML_STRING 0x0d
#define AML_EXT	   0x5b
#define AML_DEVICE 0x82

static void aml_integer(struct writer *w, const char *name, u64 value)
{
	put8(&w->out, AML_NAME);
	put(&w->out, name, 4);
	put8(&w->out, AML_QWORD);
	put64(&w->out, value);
}

/* Packages with their length in the three-byte form, which serves up to 1 MiB (20.2.4). */
static u32 aml_open(struct writer *w)
{
	u32 at = w->out.at;

	w->out.at += 3;
	return at;
}

static void aml_close(struct writer *w, u32 at)
{
	u32 length = w->out.at - at;

	w->out.bytes[at] = 0x80 | (length & 15);
	w->out.bytes[at + 1] = length >> 4;
	w->out.bytes[at + 2] = length >> 12;
}

static void ssdt(struct machine *m, struct writer *w)
{
	static const char digits[] = "0123456789ABCDEF";
	u32 at = begin(w, "SSDT", 2), scope, device, i;

	aml_integer(w, "P32B", PC_PCI_BASE);
	aml_integer(w, "P32E", PC_PCI_END - 1);
	aml_integer(w, "P64B", m->pc->pci64_base == m->pc->pci64_end ? 0 : m->pc->pci64_base);
	aml_integer(w, "P64E", m->pc->pci64_end - 1);
	aml_integer(w, "COMS", serial_ports_present(m));
	put8(&w->out, AML_SCOPE);
	scope = aml_open(w);
	put(&w->out, "\\_SB_", 5);
	for (i = 0; i < m->config.cpus; i++) {
		put8(&w->out, AML_EXT), put8(&w->out, AML_DEVICE);
		device = aml_open(w);
		put8(&w->out, 'C'), put8(&w->out, '0');
		put8(&w->out, digits[i >> 4]), put8(&w->out, digits[i & 15]);
		put8(&w->out, AML_NAME), put(&w->out, "_HID", 4), put8(&w->out, AML_STRING), put(&w->out, "ACPI0007", 9);
		aml_integer(w, "_UID", i);
		aml_close(w, device);
	}
	aml_close(w, scope);
	listed(w, end(w, at));
}

static u64 facs(struct writer *w)
{
	struct acpi_facs f = { .signature = "FACS", .length = sizeof(f), .version = 2 };
	u64 at;

	w->out.at = ALIGN_UP(w->out.at, 64);
	at = w->base + w->out.at;
	put(&w->out, &f, sizeof(f));
	return at;
}

static u64 dsdt(struct writer *w)
{
	u64 at;

	w->out.at = ALIGN_UP(w->out.at, 16);
	at = w->base + w->out.at;
	put(&w->out, dsdt_aml_code, sizeof(dsdt_aml_code));
	return at;
}

static void rsdp(struct boot *b, struct writer *w, u64 rsdt, u64 xsdt, struct acpi_rsdp *r)
{
	*r = (struct acpi_rsdp){ .revision = 2, .rsdt = rsdt, .length = sizeof(*r), .xsdt = xsdt };
	memcpy(r->signature, "RSD PTR ", 8);
	memcpy(r->oem_id, OEM_ID, 6);
	r->checksum = -table_sum(r, 20);
	r->checksum2 = -table_sum(r, sizeof(*r));
}

int acpi_place(struct machine *m, struct boot *b, struct error *err)
{
	struct writer w = { .out.size = ACPI_TABLES_SIZE };
	u64 low = memory_below_4g(m), facs_at, dsdt_at, rsdt_at, xsdt_at;
	struct acpi_rsdp r;
	unsigned i;
	u32 at;
	int ret;

	b->tables_end = ALIGN_DOWN(low, 64 * KiB);
	b->tables = b->tables_end - ACPI_TABLES_SIZE - SMBIOS_TABLES_SIZE;
	w.base = b->tables;
	w.out.bytes = xzalloc(w.out.size);
	facs_at = facs(&w);
	dsdt_at = dsdt(&w);
	fadt(&w, facs_at, dsdt_at);
	madt(m, &w);
	mcfg(&w);
	ssdt(m, &w);
	at = begin(&w, "RSDT", 1);
	for (i = 0; i < w.count; i++)
		put32(&w.out, w.tables[i]);
	rsdt_at = end(&w, at);
	at = begin(&w, "XSDT", 1);
	for (i = 0; i < w.count; i++)
		put64(&w.out, w.tables[i]);
	xsdt_at = end(&w, at);
	rsdp(b, &w, rsdt_at, xsdt_at, &r);
	b->rsdp = BOOT_TABLES + 0x100;
	ret = memory_write(m, b->tables, w.out.bytes, w.out.size);
	if (!ret)
		ret = memory_write(m, b->rsdp, &r, sizeof(r));
	free(w.out.bytes);
	return ret < 0 ? error_set(err, ret, "the ACPI tables do not fit into guest memory") : 0;
}
