/*
 * User networking, by frames made here: DHCP gives an address, ARP finds the router, a connection
 * to a forwarded port reaches the guest and its answer comes back; a guest's own connection reaches
 * the host's loopback.
 */
#include "tests/tap.h"
#include "vmm/machine.h"
#include "vmm/net/net.h"
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct machine m;
static struct error err;
static const u8 own_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static u8 router_mac[6];
static u32 own_ip, router_ip;

static u8 got[2048];
static size_t got_bytes;
static bool room = true;
static bool (*wanted)(const u8 *frame, size_t bytes);

/* Of TCP's data, since somebody put them to 0. */
static size_t data_bytes, data_frames, data_largest;
static u16 data_segment;

static void count_data(const u8 *frame, size_t bytes, const struct net_gso *gso)
{
	if (bytes <= 54 || frame[12] != 8 || frame[23] != 6 || bytes <= 34 + frame[46] / 16 * 4)
		return;
	data_bytes += bytes - 34 - frame[46] / 16 * 4;
	data_frames++;
	data_largest = MAX(data_largest, bytes);
	data_segment = gso->size;
}

static bool receive(struct net_front *f, const u8 *frame, size_t bytes, const struct net_gso *gso)
{
	if (!room)
		return false;
	count_data(frame, bytes, gso);
	if (!got_bytes && bytes <= sizeof(got) && wanted && wanted(frame, bytes)) {
		memcpy(got, frame, bytes);
		got_bytes = bytes;
	}
	return true;
}

static struct net_front front = { .receive = receive };

static void go_round(unsigned ms)
{
	machine_unlock(&m);
	if (ms)
		poll(NULL, 0, ms);
	loop_step(&m.loop, false);
	machine_lock(&m);
}

/* The next frame that @want likes. */
static bool expect(bool (*want)(const u8 *frame, size_t bytes))
{
	wanted = want;
	for (unsigned i = 0; i < 1000 && !got_bytes; i++)
		go_round(i > 10);
	return got_bytes;
}

static void forget(bool (*want)(const u8 *frame, size_t bytes))
{
	got_bytes = 0;
	wanted = want;
}

static u16 checksum(const u8 *p, size_t bytes, u32 sum)
{
	for (size_t i = 0; i < bytes; i++)
		sum += i % 2 ? p[i] : p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void send_ip(const u8 *to_mac, u32 from, u32 to, u8 protocol, const u8 *payload,
		    size_t bytes)
{
	static u8 frame[34 + 32768];
	u8 *ip = frame + 14;

	memcpy(frame, to_mac, 6);
	memcpy(frame + 6, own_mac, 6);
	put_be16(frame + 12, 0x0800);
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put_be16(ip + 2, 20 + bytes);
	ip[8] = 64;
	ip[9] = protocol;
	put_be32(ip + 12, from);
	put_be32(ip + 16, to);
	put_be16(ip + 10, checksum(ip, 20, 0));
	memcpy(ip + 20, payload, bytes);
	netdev_send(&front, frame, 34 + bytes);
}

/* ---- DHCP ----------------------------------------------------------------------------------- */

static bool is_dhcp(const u8 *f, size_t bytes)
{
	return bytes >= 14 + 20 + 8 + 244 && get_be16(f + 12) == 0x0800 && f[23] == 17 &&
	       get_be16(f + 36) == 68;
}

static void send_dhcp(u8 type, u32 request)
{
	static const u8 broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	u8 udp[8 + 300] = { 0 };
	u8 *dhcp = udp + 8, *option = dhcp + 236;

	put_be16(udp, 68);
	put_be16(udp + 2, 67);
	put_be16(udp + 4, sizeof(udp));
	dhcp[0] = 1;
	dhcp[1] = 1;
	dhcp[2] = 6;
	put_be32(dhcp + 4, 0x12345678);
	memcpy(dhcp + 28, own_mac, 6);
	put_be32(option, 0x63825363);
	option += 4;
	*option++ = 53;
	*option++ = 1;
	*option++ = type;
	if (request) {
		*option++ = 50;
		*option++ = 4;
		put_be32(option, request);
		option += 4;
	}
	*option = 255;
	send_ip(broadcast, 0, 0xffffffff, 17, udp, sizeof(udp));
}

/* The value of DHCP option @code in the frame that was got, or 0. */
static u32 dhcp_option(u8 code)
{
	const u8 *p = got + 14 + 20 + 8 + 240, *end = got + got_bytes;

	while (p + 2 < end && *p != 255) {
		if (!*p) {
			p++;
			continue;
		}
		if (*p == code)
			return p[1] >= 4 ? get_be32(p + 2) : p[2];
		p += 2 + p[1];
	}
	return 0;
}

static void test_dhcp(void)
{
	forget(is_dhcp);
	send_dhcp(1, 0);
	tap_ok(expect(is_dhcp) && dhcp_option(53) == 2, "DHCP offers an address");
	own_ip = get_be32(got + 42 + 16);
	tap_ok(own_ip == 0x0a00020f, "it is 10.0.2.15");
	tap_ok(dhcp_option(3) == 0x0a000202 && dhcp_option(6) == 0x0a000203 &&
		       dhcp_option(1) == 0xffffff00,
	       "with router 10.0.2.2, DNS 10.0.2.3 and mask 255.255.255.0");
	forget(is_dhcp);
	send_dhcp(3, own_ip);
	tap_ok(expect(is_dhcp) && dhcp_option(53) == 5, "and acknowledges it");
	router_ip = 0x0a000202;
}

/* ---- ARP ------------------------------------------------------------------------------------ */

static bool is_arp_reply(const u8 *f, size_t bytes)
{
	return bytes >= 42 && get_be16(f + 12) == 0x0806 && get_be16(f + 20) == 2;
}

static void send_arp(u16 operation, const u8 *to, u32 to_ip)
{
	u8 frame[60] = { 0 };

	memcpy(frame, to, 6);
	memcpy(frame + 6, own_mac, 6);
	put_be16(frame + 12, 0x0806);
	put_be16(frame + 14, 1);
	put_be16(frame + 16, 0x0800);
	frame[18] = 6;
	frame[19] = 4;
	put_be16(frame + 20, operation);
	memcpy(frame + 22, own_mac, 6);
	put_be32(frame + 28, own_ip);
	memcpy(frame + 32, to, 6);
	put_be32(frame + 38, to_ip);
	netdev_send(&front, frame, sizeof(frame));
}

static void test_arp(void)
{
	static const u8 broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	forget(is_arp_reply);
	send_arp(1, broadcast, router_ip);
	tap_ok(expect(is_arp_reply) && get_be32(got + 28) == router_ip, "ARP finds the router");
	memcpy(router_mac, got + 22, 6);
}

/* ---- TCP ------------------------------------------------------------------------------------ */

#define FIN 1
#define SYN 2
#define ACK 16

static u16 guest_port, peer_port;
static u32 peer_ip, sequence, acknowledge;

static bool is_tcp(const u8 *f, size_t bytes)
{
	return bytes >= 54 && get_be16(f + 12) == 0x0800 && f[23] == 6 && get_be16(f + 36) == guest_port;
}

static const u8 *tcp_data(size_t *bytes)
{
	const u8 *tcp = got + 34;
	size_t header = (tcp[12] >> 4) * 4;

	*bytes = get_be16(got + 16) - 20 - header;
	return tcp + header;
}

static bool is_tcp_data(const u8 *f, size_t bytes)
{
	return is_tcp(f, bytes) && get_be16(f + 16) > 20u + (f[46] >> 4) * 4;
}

static bool is_syn_ack(const u8 *f, size_t bytes)
{
	return is_tcp(f, bytes) && (f[47] & (SYN | ACK)) == (SYN | ACK);
}

static bool is_syn(const u8 *f, size_t bytes)
{
	return is_tcp(f, bytes) && (f[47] & (SYN | ACK)) == SYN;
}

static void send_tcp(u8 flags, const void *data, size_t bytes)
{
	static u8 segment[32768];
	u8 pseudo[12] = { 0 };
	unsigned options = flags & SYN ? 4 : 0;

	put_be16(segment, guest_port);
	put_be16(segment + 2, peer_port);
	put_be32(segment + 4, sequence);
	put_be32(segment + 8, acknowledge);
	segment[12] = (20 + options) / 4 << 4;
	segment[13] = flags;
	put_be16(segment + 14, 32768);
	put_be16(segment + 16, 0);
	put_be32(segment + 20, 0x020405b4); /* MSS 1460 */
	memcpy(segment + 20 + options, data, bytes);
	bytes += options;
	put_be32(pseudo, own_ip);
	put_be32(pseudo + 4, peer_ip);
	pseudo[9] = 6;
	put_be16(pseudo + 10, 20 + bytes);
	put_be16(segment + 16, checksum(segment, 20 + bytes, (u16)~checksum(pseudo, 12, 0)));
	send_ip(router_mac, own_ip, peer_ip, 6, segment, 20 + bytes);
	sequence += bytes - options + !!(flags & (SYN | FIN));
}

static int listen_on_loopback(u16 *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 5) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &length) < 0) {
		printf("Bail out! no socket on the loopback\n");
		exit(1);
	}
	*port = ntohs(a.sin_port);
	return fd;
}

static bool read_within(int fd, char *buf, size_t bytes)
{
	size_t have = 0;

	for (unsigned i = 0; i < 1000 && have < bytes; i++) {
		ssize_t n = recv(fd, buf + have, bytes - have, MSG_DONTWAIT);

		if (n > 0)
			have += n;
		else
			go_round(1);
	}
	return have == bytes;
}

static void test_forward(u16 port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const u8 *data;
	char answer[16];
	size_t bytes;

	guest_port = 8080;
	forget(is_syn);
	tap_ok(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0,
	       "a forwarded port takes connections");
	if (!tap_ok(expect(is_syn), "the guest gets a SYN"))
		return;
	peer_ip = get_be32(got + 26);
	peer_port = get_be16(got + 34);
	acknowledge = get_be32(got + 38) + 1;
	sequence = 1000;
	send_tcp(SYN | ACK, "", 0);
	forget(is_tcp_data);
	if (write(fd, "hello, guest", 12) != 12)
		tap_diag("write: %s", strerror(errno));
	if (!tap_ok(expect(is_tcp_data), "and the data"))
		return;
	data = tcp_data(&bytes);
	tap_ok(bytes == 12 && !memcmp(data, "hello, guest", 12), "as they were sent");
	acknowledge += bytes;
	send_tcp(ACK, data, bytes);
	tap_ok(read_within(fd, answer, 12) && !memcmp(answer, "hello, guest", 12),
	       "what the guest answers comes back");
	close(fd);
}

static void test_outgoing(void)
{
	u16 port;
	int listener = listen_on_loopback(&port), fd;
	struct pollfd p = { listener, POLLIN, 0 };
	char request[16];
	const u8 *data;
	size_t bytes;

	guest_port = 40000;
	peer_port = port;
	peer_ip = router_ip;
	sequence = 5000;
	acknowledge = 0;
	forget(is_syn_ack);
	send_tcp(SYN, "", 0);
	if (!tap_ok(expect(is_syn_ack), "10.0.2.2 is the host's loopback"))
		return;
	acknowledge = get_be32(got + 38) + 1;
	send_tcp(ACK, "GET /", 5);
	poll(&p, 1, 1000);
	fd = accept(listener, NULL, NULL);
	tap_ok(fd >= 0 && read_within(fd, request, 5) && !memcmp(request, "GET /", 5),
	       "a server there gets the request");
	forget(is_tcp_data);
	if (write(fd, "200 OK", 6) != 6)
		tap_diag("write: %s", strerror(errno));
	tap_ok(expect(is_tcp_data), "the guest gets the answer");
	data = tcp_data(&bytes);
	tap_ok(bytes == 6 && !memcmp(data, "200 OK", 6), "as it was sent");
	close(fd);
	close(listener);
}

static void *other_thread(void *arg)
{
	loop_run(&m.loop);
	return NULL;
}

static bool loop_is_woken(void)
{
	struct pollfd p = { m.loop.wake.fd, POLLIN, 0 };

	return poll(&p, 1, 0) == 1;
}

/* The loop waits, without end, on a thread of its own while a frame is sent on this one: as by a vCPU without ioeventfd. */
static void test_waiting(void)
{
	pthread_t thread;
	u16 port;
	int listener = listen_on_loopback(&port);
	bool answered;

	guest_port = 40100;
	peer_port = port;
	peer_ip = router_ip;
	sequence = 7000;
	acknowledge = 0;
	forget(is_syn_ack);
	if (!tap_ok(!pthread_create(&thread, NULL, other_thread, NULL), "a thread for the loop"))
		return;
	wanted = is_syn_ack;
	while (!m.loop.waiting || loop_is_woken()) {
		machine_unlock(&m);
		poll(NULL, 0, 1);
		machine_lock(&m);
	}
	send_tcp(SYN, "", 0);
	/* It cannot go on, and read that, before this thread gives up the machine lock. */
	tap_ok(loop_is_woken(), "a waiting loop is woken when a frame comes from another thread");
	for (unsigned i = 0; i < 20000 && !got_bytes; i++) {
		machine_unlock(&m);
		poll(NULL, 0, 1);
		machine_lock(&m);
	}
	answered = got_bytes;
	machine_unlock(&m);
	tap_ok(answered, "and serves the connection that the frame asks for");
	loop_quit(&m.loop);
	pthread_join(thread, NULL);
	machine_lock(&m);
	close(listener);
}

/* 20,000 bytes in each direction, of which a guest of an MTU of 1500 takes large segments, or does not. */
static void test_large(unsigned types, u16 from)
{
	static u8 data[20000];
	static char back[20000];
	const char *what = types ? "a guest that takes large segments" : "a guest that does not";
	struct pollfd p;
	u16 port;
	int listener = listen_on_loopback(&port), fd;

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = i * 7 + i / 256;
	front.gso_types = types;
	guest_port = from;
	peer_port = port;
	peer_ip = router_ip;
	sequence = 7000;
	acknowledge = 0;
	forget(is_syn_ack);
	send_tcp(SYN, "", 0);
	if (!tap_ok(expect(is_syn_ack), "%s connects", what))
		return;
	acknowledge = get_be32(got + 38) + 1;
	send_tcp(ACK, data, sizeof(data));
	p = (struct pollfd){ listener, POLLIN, 0 };
	poll(&p, 1, 1000);
	fd = accept(listener, NULL, NULL);
	tap_ok(fd >= 0 && read_within(fd, back, sizeof(back)) && !memcmp(back, data, sizeof(data)),
	       "%s sends 20000 bytes in one frame", what);
	data_bytes = data_frames = data_largest = 0;
	if (write(fd, data, sizeof(data)) != sizeof(data))
		tap_diag("write: %s", strerror(errno));
	for (unsigned i = 0; i < 1000 && data_bytes < sizeof(data); i++)
		go_round(i > 10);
	if (!tap_ok(data_bytes == sizeof(data) && (types ? data_frames == 1 && data_segment == 1460
							 : data_frames == 14 && data_largest == 1514),
		    "%s gets 20000 in %s", what, types ? "one" : "14"))
		tap_diag("%zu bytes in %zu frames of at most %zu", data_bytes, data_frames, data_largest);
	acknowledge += sizeof(data);
	send_tcp(ACK, "", 0);
	front.gso_types = 0;
	close(fd);
	close(listener);
}

/* ---- frames and room ------------------------------------------------------------------------ */

static bool is_anything(const u8 *f, size_t bytes)
{
	return true;
}

static void test_room(void)
{
	struct netdev *n = netdev_find(&m, "n0");
	u8 frame[1500] = { 1, 2, 3 };

	room = false;
	forget(is_anything);
	netdev_deliver(n, frame, 60);
	tap_ok(!got_bytes && n->held_bytes == 60, "a frame waits for room");
	room = true;
	netdev_poke(&front);
	tap_ok(got_bytes == 60 && !n->held_bytes, "and comes when there is some");
	room = false;
	for (unsigned i = 0; i < 1000; i++)
		netdev_deliver(n, frame, 1500);
	tap_ok(n->held_bytes <= NET_HELD_BYTES && n->dropped > 0, "of too many some are lost");
	room = true;
	netdev_poke(&front);
	netdev_set_link(&m, "n0", false, &err);
	forget(is_anything);
	netdev_deliver(n, frame, 60);
	tap_ok(!got_bytes, "nothing comes through a pulled cable");
	netdev_set_link(&m, "n0", true, &err);
	/* Sizes that are none. */
	netdev_send(&front, frame, 0);
	netdev_send(&front, frame, 13);
	tap_ok(true, "frames of no size are survived");
}

static void test_nonsense(void)
{
	u8 frame[1600];
	u64 state = 88172645463325252ull;

	forget(NULL);
	for (unsigned i = 0; i < 20000; i++) {
		size_t bytes = 14 + i % 1500;

		for (size_t j = 0; j < bytes; j++) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			frame[j] = state;
		}
		memcpy(frame, router_mac, 6);
		/* Half of them as IPv4, ARP or IPv6, so that they are looked at. */
		if (i % 2) {
			put_be16(frame + 12, i % 4 == 1 ? 0x0800 : i % 8 == 3 ? 0x0806 : 0x86dd);
			frame[14] = i % 4 == 1 ? 0x45 : frame[14];
		}
		/* Not to anywhere outside. */
		if (bytes > 34)
			put_be32(frame + 30, router_ip);
		netdev_send(&front, frame, bytes);
	}
	go_round(0);
	tap_ok(true, "20000 frames of nonsense are survived");
}

static const struct {
	const char *text, *says;
} refusals[] = {
	{ "user", "id= is missing" },
	{ "user,id=n0", "n0" },
	{ "user,id=x,net=10.0.2.0/33", "net=10.0.2.0/33" },
	{ "user,id=x,net=banana", "net=banana" },
	{ "user,id=x,host=192.168.1.1", "host=192.168.1.1" },
	{ "user,id=x,dns=10.0.2.2", "must differ" },
	{ "user,id=x,ipv4=off", "leave nothing" },
	{ "user,id=x,hostfwd=80", "hostfwd=80" },
	{ "user,id=x,hostfwd=tcp::70000-:80", "tcp::70000-:80" },
	{ "user,id=x,hostfwd=tcp::80-:0", "tcp::80-:0" },
	{ "user,id=x,hostfwd=sctp::8080-:80", "sctp" },
	{ "user,id=x,hostfwd=tcp:1.2.3:8080-:80", "tcp:1.2.3:8080" },
	{ "user,id=x,colour=blue", "colour" },
	{ "user,id=x,restrict=perhaps", "restrict" },
};

int main(void)
{
	char text[128];
	u16 port, forwarded;
	int fd;

	tap_begin();
	if (machine_init_bare(&m, 2 * MiB, &err) < 0) {
		printf("Bail out! %s\n", err.text);
		return 1;
	}
	machine_lock(&m);
	/* A port that was free a moment ago. */
	fd = listen_on_loopback(&forwarded);
	close(fd);
	snprintf(text, sizeof(text), "user,id=n0,hostfwd=tcp:127.0.0.1:%u-:8080,hostname=guest",
		 forwarded);
	if (!tap_ok(netdev_add(&m, text, &err) == 0, "-netdev user")) {
		tap_diag("%s", err.text);
		return tap_end();
	}
	tap_ok(netdev_attach(&m, "n0", &front, &err) == 0, "a card attaches");
	for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++) {
		err.text[0] = 0;
		if (!tap_ok(netdev_add(&m, refusals[i].text, &err) < 0 &&
				    strstr(err.text, refusals[i].says),
			    "refused: %s", refusals[i].text))
			tap_diag("%s", err.text);
	}
	fd = listen_on_loopback(&port);
	snprintf(text, sizeof(text), "user,id=x,hostfwd=tcp:127.0.0.1:%u-:8080", port);
	tap_ok(netdev_add(&m, text, &err) < 0 && strstr(err.text, "cannot listen"),
	       "a port that is taken is refused");
	close(fd);
	test_dhcp();
	test_arp();
	test_forward(forwarded);
	test_outgoing();
	test_large(0, 40001);
	test_large(NET_GSO_TCP4, 40002);
	test_room();
	test_nonsense();
	test_waiting(); /* the last: the loop has quit then */
	netdev_close_all(&m);
	machine_unlock(&m);
	return tap_end();
}
