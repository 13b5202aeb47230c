/*
 * User networking: -netdev user. libslirp plays a router, a DHCP and a DNS server and turns the guest's connections into
 * sockets of this process, so that a guest has the network without any privilege.
 *
 *	-netdev user,id=n0,hostfwd=tcp:127.0.0.1:2222-:22	the guest's port 22 is the host's 2222
 *
 * The guest sees 10.0.2.2 (router, and the host's loopback), 10.0.2.3 (DNS) and gets 10.0.2.15 unless net= says otherwise.
 *
 * libslirp names the descriptors it wants polled before each wait; they are kept in an epoll set of its own, which the main
 * loop watches as one descriptor.
 */
#include "vmm/machine.h"
#include "vmm/net/segment.h"
#include <arpa/inet.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FORWARDS_MAX  64
#define SEARCHES_MAX  16
#define NS_PER_MS     1000000
#define POLL_FDS_STEP 64

/*
 * The segments that libslirp's TCP makes. Without window scaling a guest's window is at most 64 KiB and usually 64,240: three
 * such segments fill it, so that the guest has something to do while libslirp makes the next.
 */
#define LARGE_MSS 21413
#define LARGE_MTU (LARGE_MSS + 40)

struct slirp_net {
	struct netdev netdev;
	Slirp *slirp;
	struct loop_hook hook;
	struct loop_fd epoll;
	struct pollfd *fds; /* what libslirp wants in this round */
	unsigned count, room;
	struct slirp_watch { /* what the epoll set has, by descriptor */
		u32 events;
		u64 round;
	} * watches;
	int watch_room;
	u64 round;
	u8 piece[NET_FRAME_MAX];
};

struct slirp_timer {
	struct loop_timer timer;
	struct slirp_net *s;
	SlirpTimerId id;
	void *cookie; /* libslirp's */
};

/* ---- what libslirp calls -------------------------------------------------------------------- */

static void slirp_deliver(void *opaque, const u8 *frame, size_t bytes, const struct net_gso *gso)
{
	struct slirp_net *s = opaque;

	netdev_deliver_gso(&s->netdev, frame, bytes, gso);
}

static ssize_t slirp_cb_send(const void *frame, size_t bytes, void *opaque)
{
	struct slirp_net *s = opaque;

	segment_cut(frame, bytes, netdev_gso_types(&s->netdev), s->piece, slirp_deliver, s);
	return bytes;
}

static void slirp_cb_guest_error(const char *text, void *opaque)
{
	/* A guest that sends nonsense harms itself; it does not get to write on the terminal. */
}

static int64_t slirp_cb_clock(void *opaque)
{
	struct slirp_net *s = opaque;

	return loop_now(&s->netdev.machine->loop, LOOP_CLOCK_VM);
}

static void slirp_timer_expired(struct loop_timer *t)
{
	struct slirp_timer *timer = container_of(t, struct slirp_timer, timer);

	slirp_handle_timer(timer->s->slirp, timer->id, timer->cookie);
}

static void *slirp_cb_timer_new(SlirpTimerId id, void *cookie, void *opaque)
{
	struct slirp_net *s = opaque;
	struct slirp_timer *timer = xzalloc(sizeof(*timer));

	timer->s = s;
	timer->id = id;
	timer->cookie = cookie;
	loop_timer_init(&timer->timer, &s->netdev.machine->loop, LOOP_CLOCK_VM,
			slirp_timer_expired);
	return timer;
}

static void slirp_cb_timer_free(void *p, void *opaque)
{
	struct slirp_timer *timer = p;

	if (timer)
		loop_timer_cancel(&timer->timer);
	free(timer);
}

static void slirp_cb_timer_mod(void *p, int64_t expire_ms, void *opaque)
{
	struct slirp_timer *timer = p;

	loop_timer_set(&timer->timer, expire_ms * NS_PER_MS);
}

static void slirp_cb_register(int fd, void *opaque)
{
}

/* The descriptor is about to be closed: its number may come back as something else. */
static void slirp_cb_unregister(int fd, void *opaque)
{
	struct slirp_net *s = opaque;

	if (fd < 0 || fd >= s->watch_room || !s->watches[fd].events)
		return;
	s->watches[fd].events = 0;
	epoll_ctl(s->epoll.fd, EPOLL_CTL_DEL, fd, NULL);
}

static void slirp_cb_notify(void *opaque)
{
	struct slirp_net *s = opaque;

	loop_wake(&s->netdev.machine->loop);
}

static const SlirpCb slirp_callbacks = {
	.send_packet = slirp_cb_send,
	.guest_error = slirp_cb_guest_error,
	.clock_get_ns = slirp_cb_clock,
	.timer_new_opaque = slirp_cb_timer_new,
	.timer_free = slirp_cb_timer_free,
	.timer_mod = slirp_cb_timer_mod,
	.register_poll_fd = slirp_cb_register,
	.unregister_poll_fd = slirp_cb_unregister,
	.notify = slirp_cb_notify,
};

/* ---- polling -------------------------------------------------------------------------------- */

/* libslirp's conditions are poll's, which are epoll's. */
static short poll_events(int events)
{
	return (events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0) |
	       (events & SLIRP_POLL_PRI ? POLLPRI : 0);
}

static void slirp_watch(struct slirp_net *s, int fd, u32 events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };
	struct slirp_watch *w;

	if (fd >= s->watch_room) {
		int room = MAX(fd + 1, s->watch_room * 2);
		struct slirp_watch *more = realloc(s->watches, room * sizeof(*more));

		if (!more)
			return;
		memset(more + s->watch_room, 0, (room - s->watch_room) * sizeof(*more));
		s->watches = more;
		s->watch_room = room;
	}
	w = &s->watches[fd];
	if (w->round == s->round)
		event.events = events |= w->events;
	w->round = s->round;
	if (w->events == events)
		return;
	if (epoll_ctl(s->epoll.fd, w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0 &&
	    (errno == ENOENT || errno == EEXIST))
		epoll_ctl(s->epoll.fd, errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
	w->events = events;
}

static int slirp_add_poll(int fd, int events, void *opaque)
{
	struct slirp_net *s = opaque;

	if (s->count == s->room) {
		struct pollfd *more = realloc(s->fds, (s->room + POLL_FDS_STEP) * sizeof(*more));

		if (!more)
			return -1;
		s->fds = more;
		s->room += POLL_FDS_STEP;
	}
	s->fds[s->count] = (struct pollfd){ .fd = fd, .events = poll_events(events) };
	if (fd >= 0)
		slirp_watch(s, fd, s->fds[s->count].events);
	return s->count++;
}

static int slirp_get_revents(int index, void *opaque)
{
	struct slirp_net *s = opaque;
	int events, result = 0;

	if (index < 0 || index >= (int)s->count)
		return 0;
	events = s->fds[index].revents;
	result |= events & POLLIN ? SLIRP_POLL_IN : 0;
	result |= events & POLLOUT ? SLIRP_POLL_OUT : 0;
	result |= events & POLLPRI ? SLIRP_POLL_PRI : 0;
	result |= events & (POLLERR | POLLNVAL) ? SLIRP_POLL_ERR : 0;
	result |= events & POLLHUP ? SLIRP_POLL_HUP : 0;
	return result;
}

static void slirp_prepare(struct loop_hook *hook, s64 *timeout)
{
	struct slirp_net *s = container_of(hook, struct slirp_net, hook);
	u32 ms = *timeout < 0 || *timeout / NS_PER_MS > INT32_MAX ? UINT32_MAX
								  : (u32)(*timeout / NS_PER_MS);
	u32 before = ms;

	s->count = 0;
	s->round++;
	slirp_pollfds_fill(s->slirp, &ms, slirp_add_poll, s);
	/* What is not wanted any more must not wake the loop. */
	for (int fd = 0; fd < s->watch_room; fd++) {
		if (s->watches[fd].events && s->watches[fd].round != s->round)
			slirp_cb_unregister(fd, s);
	}
	if (ms != before)
		*timeout = (s64)ms * NS_PER_MS;
}

static void slirp_check(struct loop_hook *hook)
{
	struct slirp_net *s = container_of(hook, struct slirp_net, hook);
	int ready = 0;

	if (s->count)
		ready = poll(s->fds, s->count, 0);
	slirp_pollfds_poll(s->slirp, ready < 0, slirp_get_revents, s);
}

static void slirp_ready(struct loop_fd *f, u32 events)
{
	/* The hook's check follows. */
}

static void slirp_net_send(struct netdev *n, const u8 *frame, size_t bytes)
{
	struct slirp_net *s = container_of(n, struct slirp_net, netdev);
	u8 copy[NET_HEADERS_MAX];

	slirp_input(s->slirp, segment_raise_mss(frame, bytes, LARGE_MSS, copy), bytes);
	/* On a vCPU's thread, if the device has no ioeventfd: libslirp may want other descriptors now than those that are waited for. */
	loop_renew(&s->netdev.machine->loop);
}

/* ---- options -------------------------------------------------------------------------------- */

static int get_ipv4(struct opts *o, const char *key, struct in_addr *address, struct error *err)
{
	const char *text = opts_get(o, key);

	if (text && inet_pton(AF_INET, text, address) != 1)
		return error_set(err, -EINVAL, "%s=%s: not an IPv4 address", key, text);
	return 0;
}

/* "10.0.2.0/24" or "10.0.2.0/255.255.255.0"; without a mask the address's old class decides. */
static int get_net(struct opts *o, SlirpConfig *c, struct error *err)
{
	const char *text = opts_get(o, "net");
	char address[64], *slash;
	u32 net, mask;
	u64 bits;

	if (!text)
		return 0;
	snprintf(address, sizeof(address), "%s", text);
	slash = strchr(address, '/');
	if (slash)
		*slash++ = 0;
	if (inet_pton(AF_INET, address, &c->vnetwork) != 1)
		return error_set(err, -EINVAL, "net=%s: not an IPv4 network such as 10.0.2.0/24",
				 text);
	net = ntohl(c->vnetwork.s_addr);
	if (!slash)
		mask = net < 0x80000000 ? 0xff000000 : net < 0xc0000000 ? 0xffff0000 : 0xffffff00;
	else if (inet_pton(AF_INET, slash, &c->vnetmask) == 1)
		mask = ntohl(c->vnetmask.s_addr);
	else if (parse_u64(slash, &bits) == 0 && bits >= 4 && bits <= 30)
		mask = ~0u << (32 - bits);
	else
		return error_set(err, -EINVAL, "net=%s: a mask of 4 to 30 bits", text);
	if (!mask || (~mask & (~mask + 1)) || ~mask < 31)
		return error_set(err, -EINVAL,
				 "net=%s: the network has no room for router, DNS and guest", text);
	net &= mask;
	c->vnetwork.s_addr = htonl(net);
	c->vnetmask.s_addr = htonl(mask);
	c->vhost.s_addr = htonl(net | 2);
	c->vnameserver.s_addr = htonl(net | 3);
	c->vdhcp_start.s_addr = htonl(net | 15);
	return 0;
}

static int check_in_net(const SlirpConfig *c, const char *key, struct in_addr a, struct error *err)
{
	char text[INET_ADDRSTRLEN];

	if ((a.s_addr & c->vnetmask.s_addr) == c->vnetwork.s_addr && a.s_addr != c->vnetwork.s_addr)
		return 0;
	inet_ntop(AF_INET, &a, text, sizeof(text));
	return error_set(err, -EINVAL, "%s=%s: not in the network", key, text);
}

static int get_ipv6(struct opts *o, SlirpConfig *c, struct error *err)
{
	const char *net = opts_get(o, "ipv6-net"), *host = opts_get(o, "ipv6-host"),
		   *dns = opts_get(o, "ipv6-dns");
	char address[64], *slash;
	u64 bits = 64;

	inet_pton(AF_INET6, "fec0::", &c->vprefix_addr6);
	c->vprefix_len = 64;
	if (net) {
		snprintf(address, sizeof(address), "%s", net);
		slash = strchr(address, '/');
		if (slash)
			*slash++ = 0;
		if (inet_pton(AF_INET6, address, &c->vprefix_addr6) != 1 ||
		    (slash && (parse_u64(slash, &bits) < 0 || bits > 126)))
			return error_set(err, -EINVAL,
					 "ipv6-net=%s: not an IPv6 network such as fec0::/64", net);
		c->vprefix_len = bits;
	}
	c->vhost6 = c->vnameserver6 = c->vprefix_addr6;
	c->vhost6.s6_addr[15] |= 2;
	c->vnameserver6.s6_addr[15] |= 3;
	if (host && inet_pton(AF_INET6, host, &c->vhost6) != 1)
		return error_set(err, -EINVAL, "ipv6-host=%s: not an IPv6 address", host);
	if (dns && inet_pton(AF_INET6, dns, &c->vnameserver6) != 1)
		return error_set(err, -EINVAL, "ipv6-dns=%s: not an IPv6 address", dns);
	return 0;
}

static int parse_port(const char *text, size_t length, bool zero, u64 *port)
{
	char number[8];

	if (!length || length >= sizeof(number))
		return -EINVAL;
	memcpy(number, text, length);
	number[length] = 0;
	if (number[strspn(number, "0123456789")])
		return -EINVAL;
	*port = strtoul(number, NULL, 10);
	return *port > 65535 || (!*port && !zero) ? -EINVAL : 0;
}

/* "address:port", the address may be missing; @end stands behind it. */
static int parse_endpoint(const char *text, const char *end, struct in_addr *address, u64 *port)
{
	const char *colon = memchr(text, ':', end - text);
	char copy[INET_ADDRSTRLEN];

	if (!colon || colon - text >= (ssize_t)sizeof(copy))
		return -EINVAL;
	if (colon > text) {
		memcpy(copy, text, colon - text);
		copy[colon - text] = 0;
		if (inet_pton(AF_INET, copy, address) != 1)
			return -EINVAL;
	}
	return parse_port(colon + 1, end - colon - 1, false, port);
}

/* "[tcp|udp]:[host address]:host port-[guest address]:guest port" */
static int slirp_forward(struct slirp_net *s, const char *text, struct error *err)
{
	struct in_addr host = { .s_addr = htonl(INADDR_ANY) }, guest = { .s_addr = 0 };
	const char *rest = strchr(text, ':'), *dash = rest ? strchr(rest, '-') : NULL;
	u64 host_port, guest_port;
	bool udp = false;

	if (!rest || !dash)
		goto malformed;
	if (rest - text == 3 && !memcmp(text, "udp", 3))
		udp = true;
	else if (rest != text && !(rest - text == 3 && !memcmp(text, "tcp", 3)))
		goto malformed;
	if (parse_endpoint(rest + 1, dash, &host, &host_port) < 0 ||
	    parse_endpoint(dash + 1, dash + strlen(dash), &guest, &guest_port) < 0)
		goto malformed;
	errno = 0;
	if (slirp_add_hostfwd(s->slirp, udp, host, host_port, guest, guest_port) < 0)
		return error_set(err, errno ? -errno : -EADDRINUSE, "hostfwd=%s: cannot listen: %s",
				 text, strerror(errno ? errno : EADDRINUSE));
	return 0;
malformed:
	return error_set(err, -EINVAL,
			 "hostfwd=%s: not of the form tcp:[ADDRESS]:PORT-[ADDRESS]:PORT", text);
}

/* Keys that may stand several times: calls @each for those named @key. */
static unsigned opts_all(struct opts *o, const char *key, const char **values, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < o->count && n < max; i++) {
		if (strcmp(o->opt[i].key, key))
			continue;
		o->opt[i].used = true;
		values[n++] = o->opt[i].value;
	}
	return n;
}

static int slirp_configure(struct opts *o, SlirpConfig *c, struct error *err)
{
	bool ipv4 = true, ipv6 = false, restrict_ = false;
	int result;

	c->version = 4;
	c->if_mtu = c->if_mru = LARGE_MTU;
	inet_pton(AF_INET, "10.0.2.0", &c->vnetwork);
	inet_pton(AF_INET, "255.255.255.0", &c->vnetmask);
	inet_pton(AF_INET, "10.0.2.2", &c->vhost);
	inet_pton(AF_INET, "10.0.2.3", &c->vnameserver);
	inet_pton(AF_INET, "10.0.2.15", &c->vdhcp_start);
	if ((result = opts_bool(o, "ipv4", &ipv4, err)) < 0 ||
	    (result = opts_bool(o, "ipv6", &ipv6, err)) < 0 ||
	    (result = opts_bool(o, "restrict", &restrict_, err)) < 0 ||
	    (result = get_net(o, c, err)) < 0 ||
	    (result = get_ipv4(o, "host", &c->vhost, err)) < 0 ||
	    (result = get_ipv4(o, "dhcpstart", &c->vdhcp_start, err)) < 0 ||
	    (result = get_ipv4(o, "dns", &c->vnameserver, err)) < 0 ||
	    (result = get_ipv6(o, c, err)) < 0 ||
	    (result = check_in_net(c, "host", c->vhost, err)) < 0 ||
	    (result = check_in_net(c, "dhcpstart", c->vdhcp_start, err)) < 0 ||
	    (result = check_in_net(c, "dns", c->vnameserver, err)) < 0)
		return result;
	if (!ipv4 && !ipv6)
		return error_set(err, -EINVAL, "ipv4=off and ipv6=off leave nothing");
	if (c->vhost.s_addr == c->vnameserver.s_addr || c->vhost.s_addr == c->vdhcp_start.s_addr)
		return error_set(err, -EINVAL, "host=, dns= and dhcpstart= must differ");
	c->restricted = restrict_;
	c->in_enabled = ipv4;
	c->in6_enabled = ipv6;
	c->vhostname = opts_get(o, "hostname");
	c->vdomainname = opts_get(o, "domainname");
	c->tftp_path = opts_get(o, "tftp");
	c->tftp_server_name = opts_get(o, "tftp-server-name");
	c->bootfile = opts_get(o, "bootfile");
	if (c->vhostname && strlen(c->vhostname) > 32)
		return error_set(err, -EINVAL, "hostname=%s: more than 32 letters", c->vhostname);
	return 0;
}

static void slirp_net_close(struct netdev *n)
{
	struct slirp_net *s = container_of(n, struct slirp_net, netdev);

	loop_hook_del(&n->machine->loop, &s->hook);
	slirp_cleanup(s->slirp);
	loop_fd_del(&n->machine->loop, &s->epoll);
	close(s->epoll.fd);
	free(s->fds);
	free(s->watches);
}

static int slirp_net_open(struct netdev *n, struct opts *o, struct error *err)
{
	struct slirp_net *s = container_of(n, struct slirp_net, netdev);
	const char *forwards[FORWARDS_MAX], *searches[SEARCHES_MAX + 1] = { NULL };
	unsigned count;
	SlirpConfig c = { 0 };
	int result;

	result = slirp_configure(o, &c, err);
	if (result < 0)
		return result;
	if (opts_all(o, "dnssearch", searches, SEARCHES_MAX))
		c.vdnssearch = searches;
	s->epoll.fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll.fd < 0)
		return error_set(err, -errno, "epoll: %s", strerror(errno));
	s->epoll.events = EPOLLIN;
	s->epoll.ready = slirp_ready;
	result = loop_fd_add(&n->machine->loop, &s->epoll);
	if (result < 0) {
		close(s->epoll.fd);
		return error_set(err, result, "epoll: %s", strerror(-result));
	}
	s->slirp = slirp_new(&c, &slirp_callbacks, s);
	if (!s->slirp) {
		loop_fd_del(&n->machine->loop, &s->epoll);
		close(s->epoll.fd);
		return error_set(err, -EINVAL, "libslirp refuses this configuration");
	}
	s->hook.prepare = slirp_prepare;
	s->hook.check = slirp_check;
	loop_hook_add(&n->machine->loop, &s->hook);

	count = opts_all(o, "hostfwd", forwards, FORWARDS_MAX);
	for (unsigned i = 0; i < count; i++) {
		result = slirp_forward(s, forwards[i], err);
		if (result < 0) {
			slirp_net_close(n);
			return result;
		}
	}
	return 0;
}

static const struct netdev_class slirp_class = {
	.name = "user",
	.help = "[,net=10.0.2.0/24][,host=ADDRESS][,dns=ADDRESS][,dhcpstart=ADDRESS][,hostname=NAME]\n"
		"    [,hostfwd=tcp|udp:[ADDRESS]:PORT-[ADDRESS]:PORT][,restrict=on][,ipv4=off][,ipv6=on][,ipv6-net=fec0::/64]\n"
		"    [,dnssearch=DOMAIN][,domainname=DOMAIN][,tftp=DIRECTORY][,bootfile=FILE]",
	.size = sizeof(struct slirp_net),
	.open = slirp_net_open,
	.close = slirp_net_close,
	.send = slirp_net_send,
};
NETDEV_REGISTER(slirp_class)
