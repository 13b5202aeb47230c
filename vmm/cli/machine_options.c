/* The options on the machine as a whole. */
#include "vmm/chardev.h"
#include "vmm/cli.h"
#include "vmm/cpuid.h"
#include "vmm/machine.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void set(char **field, const char *value)
{
	free(*field);
	*field = xstrdup(value);
}

static int option_m(struct machine *m, const char *value, struct error *err)
{
	const char *text;
	struct opts o;
	u64 size = 0;
	int r;

	r = opts_parse(&o, value, "size", err);
	if (r < 0)
		return r;
	text = opts_get(&o, "size");
	if (!text || parse_size(text, MiB, &size) == -EINVAL)
		r = error_set(err, -EINVAL, "a size is wanted, as in 512M or 4G");
	else if (parse_size(text, MiB, &size) < 0)
		r = error_set(err, -EINVAL, "too large");
	else if (size < 2 * MiB)
		r = error_set(err, -EINVAL, "at least 2 MiB are wanted");
	else
		r = opts_finish(&o, "memory", err);
	opts_free(&o);
	m->config.ram = ALIGN_UP(size, 64 * KiB);
	set(&m->config.ram_text, value);
	return r;
}

static int option_smp(struct machine *m, const char *value, struct error *err)
{
	u64 cpus = 0, sockets = 0, cores = 0, threads = 0, most = 0;
	struct machine_config *c = &m->config;
	struct opts o;
	int r;

	r = opts_parse(&o, value, "cpus", err);
	if (r < 0)
		return r;
	if (opts_u64(&o, "cpus", &cpus, 4096, err) < 0 ||
	    opts_u64(&o, "sockets", &sockets, 4096, err) < 0 ||
	    opts_u64(&o, "cores", &cores, 4096, err) < 0 ||
	    opts_u64(&o, "threads", &threads, 4096, err) < 0 ||
	    opts_u64(&o, "maxcpus", &most, 4096, err) < 0 || opts_finish(&o, "smp", err) < 0) {
		opts_free(&o);
		return -EINVAL;
	}
	r = opts_get(&o, "cpus") && !cpus ? -EINVAL : 0;
	opts_free(&o);
	if (r < 0)
		return error_set(err, r, "at least one CPU is wanted");
	/* What is missing follows from the rest; then cores before sockets before threads. */
	threads = threads ? threads : 1;
	if (!cpus)
		cpus = (sockets ? sockets : 1) * (cores ? cores : 1) * threads;
	if (!cores)
		cores = MAX(cpus / ((sockets ? sockets : 1) * threads), 1);
	if (!sockets)
		sockets = MAX(cpus / (cores * threads), 1);
	if (sockets * cores * threads != cpus)
		return error_set(err, -EINVAL,
				 "%llu sockets of %llu cores of %llu threads are not %llu CPUs",
				 (unsigned long long)sockets, (unsigned long long)cores,
				 (unsigned long long)threads, (unsigned long long)cpus);
	if (most && most != cpus)
		return error_set(
			err, -EINVAL,
			"maxcpus=%llu: CPUs cannot be added later, so it is cpus or nothing",
			(unsigned long long)most);
	c->cpus = cpus, c->sockets = sockets, c->cores = cores, c->threads = threads;
	if (cpus > MACHINE_CPUS_MAX || cpuid_apic_id(m, cpus - 1) >= MACHINE_CPUS_MAX)
		return error_set(err, -EINVAL,
				 "more than %d CPUs, or APIC IDs above %d, are not possible",
				 MACHINE_CPUS_MAX, MACHINE_CPUS_MAX - 1);
	return 0;
}

static int option_kernel(struct machine *m, const char *value, struct error *err)
{
	set(&m->config.kernel, value);
	return 0;
}

static int option_initrd(struct machine *m, const char *value, struct error *err)
{
	set(&m->config.initrd, value);
	return 0;
}

static int option_append(struct machine *m, const char *value, struct error *err)
{
	set(&m->config.append, value);
	return 0;
}

static int option_cpu(struct machine *m, const char *value, struct error *err)
{
	if (!strcmp(value, "help") || !strcmp(value, "?")) {
		cpuid_help();
		return CLI_DONE;
	}
	set(&m->config.cpu, value);
	return 0;
}

static int accel_help(void)
{
	printf("auto  kvm if a probe guest shows that /dev/kvm runs at native speed, else lite "
	       "(default)\n"
	       "kvm   %s\n"
	       "lite  %s; properties:\n"
	       "      engine=auto|interp|jit  what runs guest code: interpreter, translator\n"
	       "      lockstep=on|off|N       the interpreter checks every (Nth) translated block\n"
	       "      windows=on|off|eager    guest pages may be mapped at a fixed distance\n"
	       "      cache=MIB               translated code, at most\n"
	       "      verify=on|off|abort     translated code is checked before it runs\n",
	       accel_kvm.description, accel_lite.description);
	return CLI_DONE;
}

static int set_accel(struct machine *m, const char *name, struct error *err)
{
	if (strcmp(name, "lite") && strcmp(name, "kvm") && strcmp(name, "auto"))
		return error_set(err, -EINVAL,
				 "%s: no such accelerator; there are lite, kvm and auto", name);
	set(&m->config.accel, name);
	return 0;
}

static int accel_properties(const char *accel, struct opts *o, struct error *err)
{
	static const char *const names[] = { "engine", "lockstep", "windows", "cache", "verify" };
	const struct opt *opt;
	unsigned i, k;
	int r = 0;

	for (i = 0; !r && i < o->count; i++) {
		opt = &o->opt[i];
		if (!strcmp(opt->key, "accel"))
			continue;
		if (strcmp(accel, "lite"))
			return error_set(err, -EINVAL,
					 "%s: accelerator %s has no properties; lite has", opt->key,
					 accel);
		for (k = 0; k < ARRAY_SIZE(names) && strcmp(opt->key, names[k]); k++)
			;
		if (k == ARRAY_SIZE(names))
			return error_set(err, -EINVAL,
					 "%s: accelerator lite has no such property; there are "
					 "engine, lockstep, windows, cache and verify",
					 opt->key);
		r = accel_set_option(&accel_lite, opt->key, opt->value, err);
	}
	return r;
}

static int option_accel(struct machine *m, const char *value, struct error *err)
{
	struct opts o;
	const char *name;
	int r;

	if (!strcmp(value, "help"))
		return accel_help();
	r = opts_parse(&o, value, "accel", err);
	if (r < 0)
		return r;
	name = opts_get(&o, "accel");
	r = name ? set_accel(m, name, err) : error_set(err, -EINVAL, "which accelerator?");
	if (!r)
		r = accel_properties(name, &o, err);
	opts_free(&o);
	return r;
}

/* Commas between the items, as QEMU has them. */
static int option_d(struct machine *m, const char *value, struct error *err)
{
	char *items, *p;
	int r;

	if (!strcmp(value, "help") || !strcmp(value, "?")) {
		printf("in_asm   guest code that is translated\n"
		       "out_asm  the code that it becomes\n"
		       "exits    each return from guest code, and why\n");
		return CLI_DONE;
	}
	items = xstrdup(value);
	for (p = items; (p = strchr(p, ',')); p++)
		*p = '+';
	r = accel_set_option(&accel_lite, "log", items, err);
	free(items);
	if (!r)
		set(&m->config.log, value);
	return r;
}

static int option_log_file(struct machine *m, const char *value, struct error *err)
{
	return accel_set_option(&accel_lite, "logfile", value, err);
}

static int option_enable_kvm(struct machine *m, const char *value, struct error *err)
{
	return set_accel(m, "kvm", err);
}

static int option_machine(struct machine *m, const char *value, struct error *err)
{
	const char *type, *accel;
	struct opts o;
	int r;

	if (!strcmp(value, "help") || !strcmp(value, "?")) {
		printf("q35     PC with PCI Express, as Intel's Q35 and ICH9 (default)\n");
		return CLI_DONE;
	}
	r = opts_parse(&o, value, "type", err);
	if (r < 0)
		return r;
	type = opts_get_or(&o, "type", "q35");
	accel = opts_get(&o, "accel");
	if (strcmp(type, "q35"))
		r = error_set(err, -EINVAL, "%s: no such machine; -machine help lists them", type);
	else if (accel)
		r = set_accel(m, accel, err);
	if (!r)
		r = opts_finish(&o, "machine", err);
	opts_free(&o);
	return r;
}

static int option_name(struct machine *m, const char *value, struct error *err)
{
	const char *name;
	struct opts o;
	bool ignored;
	int r;

	r = opts_parse(&o, value, "guest", err);
	if (r < 0)
		return r;
	name = opts_get(&o, "guest");
	if (name)
		set(&m->config.name, name);
	r = opts_bool(&o, "debug-threads", &ignored, err); /* threads always have names */
	if (!r)
		r = opts_finish(&o, "name", err);
	opts_free(&o);
	return r;
}

static int option_uuid(struct machine *m, const char *value, struct error *err)
{
	u8 raw[16];

	if (machine_parse_uuid(value, raw) < 0)
		return error_set(err, -EINVAL,
				 "a UUID is wanted, as in 550e8400-e29b-41d4-a716-446655440000");
	set(&m->config.uuid, value);
	return 0;
}

/* base=utc|localtime|2026-01-31T12:00:00, clock=host */
static int option_rtc(struct machine *m, const char *value, struct error *err)
{
	const char *base, *clock, *end;
	time_t now = time(NULL);
	struct tm tm = { 0 };
	struct opts o;
	int r;

	r = opts_parse(&o, value, NULL, err);
	if (r < 0)
		return r;
	base = opts_get_or(&o, "base", "utc");
	clock = opts_get_or(&o, "clock", "host");
	if (strcmp(clock, "host")) {
		r = error_set(err, -EINVAL, "clock=%s: host is the only one", clock);
	} else if (!strcmp(base, "localtime")) {
		localtime_r(&now, &tm);
		m->config.rtc_offset = tm.tm_gmtoff;
	} else if (strcmp(base, "utc")) {
		end = strptime(base, strchr(base, 'T') ? "%Y-%m-%dT%H:%M:%S" : "%Y-%m-%d", &tm);
		if (!end || *end)
			r = error_set(
				err, -EINVAL,
				"base=%s: utc, localtime, or a date as in 2026-01-31T12:00:00",
				base);
		else
			m->config.rtc_offset = timegm(&tm) - now;
	}
	opts_get(&o, "driftfix"); /* lost ticks are not caught up */
	if (!r)
		r = opts_finish(&o, "rtc", err);
	opts_free(&o);
	return r;
}

static int option_smbios(struct machine *m, const char *value, struct error *err)
{
	struct machine_config *c = &m->config;
	struct {
		const char *key;
		char **field;
	} fields[] = {
		{ "manufacturer", &c->smbios_manufacturer },
		{ "product", &c->smbios_product },
		{ "version", &c->smbios_version },
		{ "serial", &c->smbios_serial },
		{ "sku", &c->smbios_sku },
		{ "family", &c->smbios_family },
		{ "uuid", &c->uuid },
	};
	const char *text;
	struct opts o;
	unsigned i;
	u8 raw[16];
	int r;

	r = opts_parse(&o, value, NULL, err);
	if (r < 0)
		return r;
	text = opts_get_or(&o, "type", "");
	if (strcmp(text, "1"))
		r = error_set(err, -EINVAL, "type=%s: only type 1, the system, can be set", text);
	for (i = 0; !r && i < ARRAY_SIZE(fields); i++) {
		text = opts_get(&o, fields[i].key);
		if (text && strlen(text) > 64)
			r = error_set(err, -EINVAL, "%s has more than 64 characters",
				      fields[i].key);
		else if (text && fields[i].field == &c->uuid && machine_parse_uuid(text, raw) < 0)
			r = error_set(err, -EINVAL, "uuid=%s: not a UUID", text);
		else if (text)
			set(fields[i].field, text);
	}
	if (!r)
		r = opts_finish(&o, "smbios", err);
	opts_free(&o);
	return r;
}

static int option_device(struct machine *m, const char *value, struct error *err)
{
	size_t n = strlen(value);
	char *name;
	int r;

	if (!strcmp(value, "help") || !strcmp(value, "?")) {
		device_help();
		return CLI_DONE;
	}
	if (n > 5 && (!strcmp(value + n - 5, ",help") || !strcmp(value + n - 2, ",?"))) {
		name = xstrdup(value);
		*strrchr(name, ',') = 0;
		r = device_class_help(m, name, err);
		free(name);
		return r < 0 ? r : CLI_DONE;
	}
	return device_queue(m, value, err);
}

static int option_chardev(struct machine *m, const char *value, struct error *err)
{
	if (!strcmp(value, "help") || !strcmp(value, "?")) {
		chardev_help();
		return CLI_DONE;
	}
	return chardev_add(m, value, err) ? 0 : -EINVAL;
}

static int option_serial(struct machine *m, const char *value, struct error *err)
{
	unsigned i;

	for (i = 0; i < SERIAL_PORTS; i++) {
		if (!m->config.serial[i]) {
			m->config.serial[i] = xstrdup(value);
			return 0;
		}
	}
	return error_set(err, -EINVAL, "a PC has %d serial ports", SERIAL_PORTS);
}

static int option_monitor(struct machine *m, const char *value, struct error *err)
{
	set(&m->config.monitor, value);
	return 0;
}

static int option_mon(struct machine *m, const char *value, struct error *err)
{
	const char *id, *mode;
	struct opts o;
	int r;

	r = opts_parse(&o, value, "chardev", err);
	if (r < 0)
		return r;
	id = opts_get(&o, "chardev");
	mode = opts_get_or(&o, "mode", "readline");
	if (!id)
		r = error_set(err, -EINVAL, "chardev= is wanted");
	else if (strcmp(mode, "readline"))
		r = error_set(err, -EINVAL, "mode=%s: readline is the only one", mode);
	else
		r = opts_finish(&o, "mon", err);
	if (!r) {
		free(m->config.monitor);
		m->config.monitor = xasprintf("chardev:%s", id);
	}
	opts_free(&o);
	return r;
}

static int option_debugcon(struct machine *m, const char *value, struct error *err)
{
	set(&m->config.debugcon, value);
	return 0;
}

static int option_nographic(struct machine *m, const char *value, struct error *err)
{
	m->config.nographic = true;
	return 0;
}

/* There is no picture to show yet, and saying so is allowed. */
static int option_display(struct machine *m, const char *value, struct error *err)
{
	if (strcmp(value, "none"))
		return error_set(err, -EINVAL, "none is the only display");
	m->config.display_none = true;
	return 0;
}

static int option_only_none(struct machine *m, const char *value, struct error *err)
{
	return strcmp(value, "none") ? error_set(err, -EINVAL, "none is the only one") : 0;
}

static int option_nodefaults(struct machine *m, const char *value, struct error *err)
{
	m->config.nodefaults = true;
	return 0;
}

static int option_no_reboot(struct machine *m, const char *value, struct error *err)
{
	m->config.no_reboot = true;
	return 0;
}

static int option_no_shutdown(struct machine *m, const char *value, struct error *err)
{
	m->config.no_shutdown = true;
	return 0;
}

static int option_stopped(struct machine *m, const char *value, struct error *err)
{
	m->config.stopped = true;
	return 0;
}

static int option_pidfile(struct machine *m, const char *value, struct error *err)
{
	set(&m->config.pidfile, value);
	return 0;
}

static int option_nothing(struct machine *m, const char *value, struct error *err)
{
	return 0;
}

static int option_version(struct machine *m, const char *value, struct error *err)
{
	printf("trine %s\n", TRINE_VERSION);
	return CLI_DONE;
}

static int option_help(struct machine *m, const char *value, struct error *err)
{
	cli_help();
	return CLI_DONE;
}

static const struct cli_option machine_options[] = {
	{ "m", "SIZE", "guest memory, in MiB without a suffix (default 512M)", option_m },
	{ "smp", "N[,sockets=N,cores=N,threads=N]", "CPUs", option_smp },
	{ "kernel", "FILE", "a Linux bzImage, or an ELF or multiboot kernel", option_kernel },
	{ "initrd", "FILE", "its initial RAM disk", option_initrd },
	{ "append", "TEXT", "its command line", option_append },
	{ "cpu", "MODEL[,+FEATURE,-FEATURE]", "host (default) or max; help lists features",
	  option_cpu },
	{ "accel", "NAME[,PROPERTY=VALUE...]", "lite, kvm or auto (default); help lists properties",
	  option_accel },
	{ "d", "ITEM[,ITEM...]", "logs what lite does; help lists the items", option_d },
	{ "D", "FILE", "where -d goes, instead of standard error", option_log_file },
	{ "machine", "TYPE[,accel=NAME]", "q35 (default)", option_machine },
	{ "M", "TYPE", "the same as -machine", option_machine },
	{ "enable-kvm", NULL, "the same as -accel kvm", option_enable_kvm },
	{ "name", "NAME", "the machine's name", option_name },
	{ "uuid", "UUID", "the machine's UUID", option_uuid },
	{ "rtc", "base=utc|localtime|DATE", "where the clock starts", option_rtc },
	{ "smbios", "type=1,KEY=TEXT...",
	  "manufacturer, product, version, serial, sku, family, uuid", option_smbios },
	{ "device", "NAME[,PROPERTY=VALUE...]",
	  "adds a device; help lists them, NAME,help its properties", option_device },
	{ "chardev", "KIND,id=ID[,...]", "a character back end; help lists the kinds",
	  option_chardev },
	{ "serial", "BACKEND", "the next serial port: mon:stdio, stdio, null, pty, file:PATH ...",
	  option_serial },
	{ "monitor", "BACKEND", "where the monitor is: stdio, none ...", option_monitor },
	{ "mon", "chardev=ID", "the monitor on a -chardev", option_mon },
	{ "debugcon", "BACKEND", "debugging text, port 0xe9", option_debugcon },
	{ "parallel", "none", "no parallel port", option_only_none },
	{ "nographic", NULL, "serial port and monitor on this terminal (default)",
	  option_nographic },
	{ "display", "none", "no terminal either", option_display },
	{ "vga", "none", "no graphics card", option_only_none },
	{ "nodefaults", NULL, "no serial port and monitor unless asked for", option_nodefaults },
	{ "no-reboot", NULL, "a guest that reboots ends the monitor", option_no_reboot },
	{ "no-shutdown", NULL, "a guest that is off does not", option_no_shutdown },
	{ "no-user-config", NULL, "there is no such file to read", option_nothing },
	{ "S", NULL, "does not start the CPUs: type cont", option_stopped },
	{ "pidfile", "FILE", "where the process id is written", option_pidfile },
	{ "version", NULL, "prints it", option_version },
	{ "help", NULL, "prints this", option_help },
	{ "h", NULL, "the same", option_help },
	{}
};
CLI_REGISTER(machine_options)
