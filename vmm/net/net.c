/*
 * The list of networks, -netdev, -nic, and frames on their way to a NIC. See net.h.
 */
#include "vmm/net/net.h"
#include "vmm/cli.h"
#include "vmm/machine.h"
#include "vmm/monitor/monitor.h"
#include <stdio.h>
#include <stdlib.h>

#define CLASSES_MAX 16

struct held_frame {
	struct list link;
	struct net_gso gso;
	size_t bytes;
	u8 data[];
};

static const struct netdev_class *classes[CLASSES_MAX];
static unsigned class_count;
static struct list netdevs = LIST_INIT(netdevs);
static unsigned nic_count;
static bool undo_registered;

void netdev_register(const struct netdev_class *class)
{
	assert(class_count < CLASSES_MAX);
	classes[class_count++] = class;
}

struct netdev *netdev_find(struct machine *m, const char *id)
{
	struct list *pos;

	list_for_each (pos, &netdevs) {
		struct netdev *n = list_entry(pos, struct netdev, link);

		if (!strcmp(n->id, id))
			return n;
	}
	return NULL;
}

static void held_free(struct netdev *n)
{
	struct list *pos, *next;

	list_for_each_safe (pos, next, &n->held) {
		list_del(pos);
		free(list_entry(pos, struct held_frame, link));
	}
	n->held_bytes = 0;
}

static void netdev_free(struct netdev *n)
{
	held_free(n);
	free(n->id);
	free(n);
}

void netdev_close_all(struct machine *m)
{
	struct list *pos, *next;

	list_for_each_safe (pos, next, &netdevs) {
		struct netdev *n = list_entry(pos, struct netdev, link);

		if (n->front)
			netdev_detach(n->front);
		list_del(&n->link);
		n->class->close(n);
		netdev_free(n);
	}
	undo_registered = false;
}

static void print_help(void)
{
	printf("Networks:\n");
	for (unsigned i = 0; i < class_count; i++)
		printf("%s,id=ID%s\n", classes[i]->name, classes[i]->help);
}

/* @o has "type"; @what is the option, for its unknown keys. */
static int netdev_make(struct machine *m, struct opts *o, const char *what, struct error *err)
{
	const char *type = opts_get(o, "type"), *id = opts_get(o, "id");
	const struct netdev_class *class = NULL;
	struct netdev *n;
	int result;

	for (unsigned i = 0; type && i < class_count; i++) {
		if (!strcmp(classes[i]->name, type))
			class = classes[i];
	}
	if (!class)
		return error_set(err, -EINVAL, "%s: no such kind of network (%s help lists them)",
				 type ? type : "", what);
	if (!id || !*id)
		return error_set(err, -EINVAL, "id= is missing");
	if (netdev_find(m, id))
		return error_set(err, -EEXIST, "id=%s: there is a network of this name already",
				 id);
	n = xzalloc(class->size);
	n->class = class;
	n->machine = m;
	n->id = xstrdup(id);
	n->link_up = true;
	list_init(&n->held);
	result = class->open(n, o, err);
	if (result < 0) {
		netdev_free(n);
		return result;
	}
	result = opts_finish(o, what, err);
	if (result < 0) {
		class->close(n);
		netdev_free(n);
		return result;
	}
	list_add_tail(&netdevs, &n->link);
	if (!undo_registered) {
		undo_registered = true;
		cli_at_exit(m, netdev_close_all);
	}
	return 0;
}

int netdev_add(struct machine *m, const char *text, struct error *err)
{
	struct opts o;
	int result;

	if (!strcmp(text, "help")) {
		print_help();
		return CLI_DONE;
	}
	result = opts_parse(&o, text, "type", err);
	if (result < 0)
		return result;
	result = netdev_make(m, &o, "-netdev", err);
	opts_free(&o);
	return result;
}

int netdev_add_nic(struct machine *m, const char *text, struct error *err)
{
	char automatic[32], *device;
	const char *model, *mac, *id;
	struct opts o;
	int result;

	if (!strcmp(text, "none"))
		return 0;
	if (!strcmp(text, "help")) {
		print_help();
		return CLI_DONE;
	}
	result = opts_parse(&o, text, "type", err);
	if (result < 0)
		return result;
	model = opts_get_or(&o, "model", "virtio-net-pci");
	mac = opts_get(&o, "mac");
	id = opts_get(&o, "id");
	if (!id) {
		do
			snprintf(automatic, sizeof(automatic), "nic%u", nic_count++);
		while (netdev_find(m, automatic));
		opts_set(&o, "id", automatic);
		id = opts_get(&o, "id");
	}
	if (strpbrk(model, ",=") || strpbrk(id, ",=") || (mac && strpbrk(mac, ",="))) {
		result = error_set(err, -EINVAL, "model=, id= and mac= cannot contain a comma");
		goto out;
	}
	result = netdev_make(m, &o, "-nic", err);
	if (result < 0)
		goto out;
	device = xasprintf("%s,netdev=%s%s%s", model, id, mac ? ",mac=" : "", mac ? mac : "");
	result = device_queue(m, device, err);
	free(device);
out:
	opts_free(&o);
	return result;
}

/* ---- a NIC and its network ------------------------------------------------------------------ */

int netdev_attach(struct machine *m, const char *id, struct net_front *front, struct error *err)
{
	struct netdev *n = id ? netdev_find(m, id) : NULL;

	if (!n)
		return error_set(err, -ENOENT,
				 id ? "netdev=%s: no such network" : "netdev= is missing", id);
	if (n->front)
		return error_set(err, -EBUSY, "netdev=%s: in use by another device", id);
	n->front = front;
	front->netdev = n;
	return 0;
}

void netdev_detach(struct net_front *front)
{
	if (!front->netdev)
		return;
	held_free(front->netdev);
	front->netdev->front = NULL;
	front->netdev = NULL;
}

bool netdev_link_up(const struct net_front *front)
{
	return front->netdev && front->netdev->link_up;
}

int netdev_set_link(struct machine *m, const char *id, bool up, struct error *err)
{
	struct netdev *n = netdev_find(m, id);

	if (!n)
		return error_set(err, -ENOENT, "%s: no such network", id);
	if (n->link_up == up)
		return 0;
	n->link_up = up;
	held_free(n);
	if (n->front && n->front->link)
		n->front->link(n->front, up);
	return 0;
}

void netdev_send(struct net_front *front, const u8 *frame, size_t bytes)
{
	struct netdev *n = front->netdev;

	if (n && n->link_up && bytes >= NET_FRAME_MIN && bytes <= NET_FRAME_MAX)
		n->class->send(n, frame, bytes);
}

void netdev_deliver_gso(struct netdev *n, const u8 *frame, size_t bytes, const struct net_gso *gso)
{
	struct held_frame *held;

	if (!n->front || !n->link_up || bytes > NET_FRAME_MAX)
		return;
	if (list_empty(&n->held) && n->front->receive(n->front, frame, bytes, gso))
		return;
	held = n->held_bytes + bytes <= NET_HELD_BYTES ? malloc(sizeof(*held) + bytes) : NULL;
	if (!held) {
		n->dropped++;
		return;
	}
	held->gso = *gso;
	held->bytes = bytes;
	memcpy(held->data, frame, bytes);
	list_add_tail(&n->held, &held->link);
	n->held_bytes += bytes;
}

void netdev_deliver(struct netdev *n, const u8 *frame, size_t bytes)
{
	static const struct net_gso ordinary;

	netdev_deliver_gso(n, frame, bytes, &ordinary);
}

void netdev_poke(struct net_front *front)
{
	struct netdev *n = front->netdev;

	while (n && !list_empty(&n->held)) {
		struct held_frame *held = list_entry(n->held.next, struct held_frame, link);

		if (!front->receive(front, held->data, held->bytes, &held->gso))
			return;
		list_del(&held->link);
		n->held_bytes -= held->bytes;
		free(held);
	}
}

int net_parse_mac(const char *text, u8 mac[6], struct error *err)
{
	unsigned byte[6];
	int end = 0;

	if (sscanf(text, "%2x%*1[:-]%2x%*1[:-]%2x%*1[:-]%2x%*1[:-]%2x%*1[:-]%2x%n", &byte[0],
		   &byte[1], &byte[2], &byte[3], &byte[4], &byte[5], &end) != 6 ||
	    text[end] || strlen(text) != 17)
		return error_set(err, -EINVAL,
				 "mac=%s: not an Ethernet address such as 52:54:00:12:34:56", text);
	if (byte[0] & 1)
		return error_set(err, -EINVAL, "mac=%s: a multicast address", text);
	for (unsigned i = 0; i < 6; i++)
		mac[i] = byte[i];
	return 0;
}

void net_default_mac(u8 mac[6])
{
	static u8 last = 0x56;
	const u8 base[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, last++ };

	memcpy(mac, base, sizeof(base));
}

static const struct cli_option net_options[] = {
	{ "netdev", "user,id=ID[,hostfwd=tcp::HOSTPORT-:GUESTPORT][,...]",
	  "a network for -device ...,netdev=ID", netdev_add },
	{ "nic", "user|none[,model=DEVICE][,mac=ADDRESS][,...]", "a network and a device on it",
	  netdev_add_nic },
	{}
};
CLI_REGISTER(net_options)

static void info_network(struct monitor *mon, struct machine *m, const char *arguments)
{
	struct list *pos;

	list_for_each (pos, &netdevs) {
		struct netdev *n = list_entry(pos, struct netdev, link);

		monitor_printf(mon, "%s: %s, link %s%s, %llu frames dropped\n", n->id,
			       n->class->name, n->link_up ? "on" : "off",
			       n->front ? "" : ", no device", (unsigned long long)n->dropped);
	}
}

static void set_link(struct monitor *mon, struct machine *m, const char *arguments)
{
	char id[64];
	struct error err;
	const char *space = strchr(arguments, ' ');
	bool up;

	if (!space || (size_t)(space - arguments) >= sizeof(id) || parse_bool(space + 1, &up) < 0) {
		monitor_printf(mon, "set_link ID on|off\n");
		return;
	}
	memcpy(id, arguments, space - arguments);
	id[space - arguments] = 0;
	if (netdev_set_link(m, id, up, &err) < 0)
		monitor_printf(mon, "%s\n", err.text);
}

static const struct monitor_command net_commands[] = {
	{ "info network", "", "the networks", info_network },
	{ "set_link", "ID on|off", "plug in or pull the cable of a network", set_link },
	{}
};
MONITOR_REGISTER(net_commands)
