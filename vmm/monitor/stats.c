/*
 * `info stats` and `info jit`: the accelerator's counters, KVM_GET_STATS_FD, summed over the vCPUs.
 */
#include "vmm/machine.h"
#include "vmm/monitor/monitor.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NAME_MOST 256

struct counter {
	char name[NAME_MOST];
	u32 flags;
	int exponent;
	u64 value;
	struct list link;
};

static void add(struct list *counters, const char *name, const struct kvm_stats_desc *desc,
		u64 value)
{
	struct counter *c;
	struct list *pos;

	list_for_each (pos, counters) {
		c = list_entry(pos, struct counter, link);
		if (!strcmp(c->name, name)) {
			c->value += value;
			return;
		}
	}
	c = xzalloc(sizeof(*c));
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->flags = desc->flags;
	c->exponent = desc->exponent;
	c->value = value;
	list_add_tail(counters, &c->link);
}

/* Histograms, which have more than one value, are passed over. 0 or a negative errno. */
static int read_all(int fd, struct list *counters)
{
	struct kvm_stats_header header;
	char text[sizeof(struct kvm_stats_desc) + NAME_MOST];
	struct kvm_stats_desc desc;
	size_t size;
	u64 value;
	u32 i;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
	    header.name_size >= NAME_MOST)
		return -EIO;
	size = sizeof(desc) + header.name_size;
	memset(text, 0, sizeof(text));
	for (i = 0; i < header.num_desc; i++) {
		if (pread(fd, text, size, header.desc_offset + i * size) != (ssize_t)size)
			return -EIO;
		memcpy(&desc, text, sizeof(desc));
		if (desc.size != 1)
			continue;
		if (pread(fd, &value, sizeof(value), (u64)header.data_offset + desc.offset) !=
		    sizeof(value))
			return -EIO;
		add(counters, text + sizeof(desc), &desc, value);
	}
	return 0;
}

static int read_from(struct machine *m, int object, struct list *counters)
{
	int fd = accel_ioctl_value(m, object, KVM_GET_STATS_FD, 0), r;

	if (fd < 0)
		return fd;
	r = read_all(fd, counters);
	m->accel->close(fd);
	return r;
}

static void show(struct monitor *mon, const struct counter *c)
{
	u32 unit = c->flags & KVM_STATS_UNIT_MASK;

	monitor_printf(mon, "  %-28s %20" PRIu64 "%s\n", c->name, c->value,
		       unit == KVM_STATS_UNIT_BYTES			      ? " bytes"
		       : unit == KVM_STATS_UNIT_SECONDS && c->exponent == -9 ? " ns"
									      : "");
}

/*
 * What is not zero and has @prefix at the beginning and @part in it. The vCPUs stand still
 * meanwhile: their ioctls wait for them, and then the counters are exact.
 */
static unsigned print(struct monitor *mon, struct machine *m, const char *prefix, const char *part)
{
	bool running = m->state == MACHINE_RUNNING;
	struct list counters, *pos;
	struct counter *c;
	unsigned shown = 0;
	u32 i;
	int r;

	list_init(&counters);
	vcpu_pause_all(m);
	r = read_from(m, m->vm_fd, &counters);
	for (i = 0; !r && i < m->config.cpus; i++)
		r = read_from(m, m->vcpus[i].fd, &counters);
	if (running && !m->reset_wanted && !m->shutdown_wanted)
		vcpu_resume_all(m);
	if (r < 0)
		monitor_printf(mon, "The statistics cannot be read: %s\n", strerror(-r));
	list_for_each (pos, &counters) {
		c = list_entry(pos, struct counter, link);
		if (!c->value || strncmp(c->name, prefix, strlen(prefix)) || !strstr(c->name, part))
			continue;
		show(mon, c);
		shown++;
	}
	while (!list_empty(&counters)) {
		c = list_entry(counters.next, struct counter, link);
		list_del(&c->link);
		free(c);
	}
	return r < 0 ? 1 : shown;
}

static void info_stats(struct monitor *mon, struct machine *m, const char *arguments)
{
	if (!print(mon, m, "", arguments))
		monitor_printf(mon, "Nothing was counted%s%s\n",
			       *arguments ? " by a name with " : "", arguments);
}

/* The counters of an accelerator's own begin with its name. */
static void info_jit(struct monitor *mon, struct machine *m, const char *arguments)
{
	char *prefix = xasprintf("%s_", m->accel->name);

	if (!print(mon, m, prefix, ""))
		monitor_printf(mon, "The accelerator %s has no translator\n", m->accel->name);
	free(prefix);
}

static const struct monitor_command stats_commands[] = {
	{ "info stats", "[PART]", "the accelerator's counters, those with PART in their name",
	  info_stats },
	{ "info jit", "", "those of the engine that translates", info_jit },
	{}
};
MONITOR_REGISTER(stats_commands)
