/*
 * SMBIOS structures: BIOS, system, chassis, processors, memory, and the end of the table. Strings
 * follow each structure, counted from 1, ended by an empty one (DSP0134 6.1).
 */
#include "vmm/machine/smbios.h"
#include "vmm/machine.h"
#include "vmm/machine/acpi.h"
#include "vmm/machine/boot.h"
#include "vmm/machine/table.h"
#include <stdio.h>
#include <stdlib.h>

#define STRINGS_MAX 8

struct writer {
	struct table out;
	u32 structure; /* where the open one begins */
	u16 handle, count, largest;
	const char *strings[STRINGS_MAX];
	unsigned string_count;
};

static void begin(struct writer *w, u8 type, u16 handle)
{
	w->structure = w->out.at;
	w->string_count = 0;
	put8(&w->out, type);
	put8(&w->out, 0); /* the length, known at the end */
	put16(&w->out, handle);
}

static void put_string(struct writer *w, const char *s)
{
	if (!s || !*s) {
		put8(&w->out, 0);
		return;
	}
	assert(w->string_count < STRINGS_MAX);
	w->strings[w->string_count++] = s;
	put8(&w->out, w->string_count);
}

static void end(struct writer *w)
{
	unsigned i;

	w->out.bytes[w->structure + 1] = w->out.at - w->structure;
	for (i = 0; i < w->string_count; i++)
		put(&w->out, w->strings[i], strlen(w->strings[i]) + 1);
	put8(&w->out, 0);
	if (!w->string_count)
		put8(&w->out, 0);
	w->count++;
	w->largest = MAX(w->largest, w->out.at - w->structure);
}

static void bios(struct machine *m, struct writer *w)
{
	begin(w, 0, 0);
	put_string(w, "Trine");
	put_string(w, "0.1");
	put16(&w->out, 0xe800);
	put_string(w, "01/01/2026");
	put8(&w->out, 0);
	put64(&w->out, 1 << 3);	      /* characteristics are not supported */
	put8(&w->out, 0x01), put8(&w->out, 0x14); /* ACPI; a virtual machine, targeted content distribution */
	put8(&w->out, 0), put8(&w->out, 1), put8(&w->out, 0xff), put8(&w->out, 0xff);
	end(w);
}

/* The UUID's first three fields are little-endian here, and big-endian in text (7.2.1). */
static void put_uuid(struct machine *m, struct writer *w)
{
	static const u8 order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	u8 raw[16] = { 0 };
	unsigned i;

	if (m->config.uuid)
		machine_parse_uuid(m->config.uuid, raw);
	for (i = 0; i < 16; i++)
		put8(&w->out, raw[order[i]]);
}

static const char *or_else(const char *given, const char *otherwise)
{
	return given ? given : otherwise;
}

static void system_information(struct machine *m, struct writer *w)
{
	const struct machine_config *c = &m->config;

	begin(w, 1, 0x100);
	put_string(w, or_else(c->smbios_manufacturer, "Trine"));
	put_string(w, or_else(c->smbios_product, "Standard PC (Q35 + ICH9)"));
	put_string(w, or_else(c->smbios_version, "1.0"));
	put_string(w, c->smbios_serial);
	put_uuid(m, w);
	put8(&w->out, 6); /* woken by the power switch */
	put_string(w, c->smbios_sku);
	put_string(w, c->smbios_family);
	end(w);
}

static void chassis(struct machine *m, struct writer *w)
{
	begin(w, 3, 0x300);
	put_string(w, "Trine");
	put8(&w->out, 1); /* other */
	put_string(w, "1.0");
	put_string(w, NULL), put_string(w, NULL);
	put8(&w->out, 3), put8(&w->out, 3), put8(&w->out, 3), put8(&w->out, 2); /* safe; security unknown */
	put32(&w->out, 0);
	put8(&w->out, 0), put8(&w->out, 0), put8(&w->out, 0), put8(&w->out, 0);
	put_string(w, NULL);
	end(w);
}

static void processor(struct machine *m, struct writer *w, u32 socket)
{
	char name[16];
	u32 cores = m->config.cores, threads = m->config.cores * m->config.threads;

	snprintf(name, sizeof(name), "CPU %u", socket);
	begin(w, 4, 0x400 + socket);
	put_string(w, name);
	put8(&w->out, 3), put8(&w->out, 1); /* central processor; family other */
	put_string(w, "Trine");
	put64(&w->out, 0);
	put_string(w, "1.0");
	put8(&w->out, 0), put16(&w->out, 0), put16(&w->out, 2000), put16(&w->out, 2000);
	put8(&w->out, 0x41), put8(&w->out, 1); /* populated and enabled */
	put16(&w->out, 0xffff), put16(&w->out, 0xffff), put16(&w->out, 0xffff);
	put_string(w, NULL), put_string(w, NULL), put_string(w, NULL);
	put8(&w->out, MIN(cores, 255u)), put8(&w->out, MIN(cores, 255u)), put8(&w->out, MIN(threads, 255u));
	put16(&w->out, 2); /* unknown characteristics */
	put16(&w->out, 1);
	put16(&w->out, cores), put16(&w->out, cores), put16(&w->out, threads);
	end(w);
}

static void memory(struct machine *m, struct writer *w)
{
	u64 mib = m->memory.ram_size / MiB;

	begin(w, 16, 0x1000);
	put8(&w->out, 1), put8(&w->out, 3), put8(&w->out, 6); /* system board, system memory, multi-bit ECC */
	put32(&w->out, mib * 1024 < 0x80000000u ? mib * 1024 : 0x80000000u);
	put16(&w->out, 0xfffe);
	put16(&w->out, 1);
	put64(&w->out, mib * 1024 < 0x80000000u ? 0 : m->memory.ram_size);
	end(w);

	begin(w, 17, 0x1100);
	put16(&w->out, 0x1000), put16(&w->out, 0xfffe), put16(&w->out, 0xffff), put16(&w->out, 0xffff);
	put16(&w->out, mib < 0x7fff ? mib : 0x7fff);
	put8(&w->out, 9), put8(&w->out, 0); /* DIMM */
	put_string(w, "DIMM 0"), put_string(w, NULL);
	put8(&w->out, 7), put16(&w->out, 2); /* RAM */
	put16(&w->out, 0);
	put_string(w, "Trine"), put_string(w, NULL), put_string(w, NULL), put_string(w, NULL);
	put8(&w->out, 0);
	put32(&w->out, mib < 0x7fff ? 0 : mib);
	put16(&w->out, 0), put16(&w->out, 0), put16(&w->out, 0), put16(&w->out, 0);
	end(w);

	begin(w, 19, 0x1300);
	put32(&w->out, 0xffffffff), put32(&w->out, 0xffffffff);
	put16(&w->out, 0x1000), put8(&w->out, 1);
	put64(&w->out, 0), put64(&w->out, memory_below_4g(m) - 1);
	end(w);
	if (memory_above_4g(m)) {
		begin(w, 19, 0x1301);
		put32(&w->out, 0xffffffff), put32(&w->out, 0xffffffff);
		put16(&w->out, 0x1000), put8(&w->out, 1);
		put64(&w->out, 4 * GiB), put64(&w->out, 4 * GiB + memory_above_4g(m) - 1);
		end(w);
	}
}

/* The 32-bit entry point, 2.8 (5.2.1). */
static void entry_28(u8 *e, u32 table, const struct writer *w)
{
	memset(e, 0, 0x20);
	memcpy(e, "_SM_", 4);
	e[5] = 0x1f;
	e[6] = 2, e[7] = 8;
	put_le16(e + 8, w->largest);
	memcpy(e + 0x10, "_DMI_", 5);
	put_le16(e + 0x16, w->out.at);
	put_le32(e + 0x18, table);
	put_le16(e + 0x1c, w->count);
	e[0x1e] = 0x28;
	e[0x15] = -table_sum(e + 0x10, 15);
	e[4] = -table_sum(e, 0x1f);
}

/* The 64-bit entry point, 3.0 (5.2.2). */
static void entry_30(u8 *e, u64 table, const struct writer *w)
{
	memset(e, 0, 0x18);
	memcpy(e, "_SM3_", 5);
	e[6] = 0x18;
	e[7] = 3;
	e[10] = 1;
	put_le32(e + 0xc, w->out.at);
	put_le64(e + 0x10, table);
	e[5] = -table_sum(e, 0x18);
}

int smbios_place(struct machine *m, struct boot *b, struct error *err)
{
	struct writer w = { .out.size = SMBIOS_TABLES_SIZE };
	u64 table = b->tables + ACPI_TABLES_SIZE;
	u8 entry[0x40];
	u32 i;
	int r;

	w.out.bytes = xzalloc(w.out.size);
	bios(m, &w);
	system_information(m, &w);
	chassis(m, &w);
	for (i = 0; i < m->config.sockets; i++)
		processor(m, &w, i);
	memory(m, &w);
	begin(&w, 32, 0x2000);
	put(&w.out, "\0\0\0\0\0\0", 6);
	put8(&w.out, 0); /* no error while booting */
	end(&w);
	begin(&w, 127, 0x7f00);
	end(&w);
	memset(entry, 0, sizeof(entry));
	entry_28(entry, table, &w);
	entry_30(entry + 0x20, table, &w);
	r = memory_write(m, table, w.out.bytes, w.out.size);
	if (!r)
		r = memory_write(m, BOOT_TABLES, entry, sizeof(entry));
	free(w.out.bytes);
	return r < 0 ? error_set(err, r, "the SMBIOS tables do not fit into guest memory") : 0;
}
