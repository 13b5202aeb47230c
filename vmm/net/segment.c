/* Large TCP segments; headers by RFC 791 (IPv4), 8200 (IPv6) and 9293 (TCP). See segment.h. */
#include "vmm/net/segment.h"

#define ETH_BYTES  14
#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define TCP_BYTES  20

#define PROTO_TCP   6
#define IPV4_MF	    0x2000
#define IPV4_DF	    0x4000
#define IPV4_OFFSET 0x1fff /* in units of 8 bytes */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_PSH 0x08
#define TCP_CWR 0x80

#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_MSS 2

/* Where things begin in a frame; all of them within it. */
struct layout {
	u8 type; /* NET_GSO_*; 0: IPv4, not TCP */
	unsigned tcp, data, end;
};

static u16 fold(u64 sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

u16 segment_sum(const void *data, size_t bytes, u16 sum)
{
	const u8 *p = data;
	u64 total = sum;

	for (; bytes >= 4; p += 4, bytes -= 4)
		total += get_le32(p);
	if (bytes >= 2) {
		total += get_le16(p);
		p += 2;
		bytes -= 2;
	}
	if (bytes)
		total += *p;
	return fold(total);
}

/* False: not IP, or not whole. */
static bool parse(const u8 *f, size_t bytes, struct layout *l)
{
	const u8 *ip = f + ETH_BYTES;
	unsigned end;

	if (bytes < ETH_BYTES + IPV4_BYTES)
		return false;
	if (get_be16(f + 12) == 0x0800 && ip[0] >> 4 == 4) {
		l->tcp = ETH_BYTES + 4 * (ip[0] & 15);
		end = ETH_BYTES + get_be16(ip + 2);
		l->type = ip[9] == PROTO_TCP && !(get_be16(ip + 6) & (IPV4_MF | IPV4_OFFSET)) ? NET_GSO_TCP4 : 0;
		if (l->tcp < ETH_BYTES + IPV4_BYTES || l->tcp > end)
			return false;
	} else if (get_be16(f + 12) == 0x86dd && bytes >= ETH_BYTES + IPV6_BYTES && ip[6] == PROTO_TCP) {
		l->tcp = ETH_BYTES + IPV6_BYTES;
		end = l->tcp + get_be16(ip + 4);
		l->type = NET_GSO_TCP6;
	} else {
		return false;
	}
	if (end > bytes || end > NET_FRAME_MAX)
		return false;
	l->end = end;
	l->data = l->tcp;
	if (!l->type)
		return true;
	if (l->tcp + TCP_BYTES > end)
		return false;
	l->data += 4 * (f[l->tcp + 12] >> 4);
	return l->data >= l->tcp + TCP_BYTES && l->data <= end;
}

/* ---- from the guest ---------------------------------------------------------------------------------------------------- */

/* Where the option MSS has its value in a SYN; 0: it has none. */
static unsigned find_mss(const u8 *f, const struct layout *l)
{
	unsigned at = l->tcp + TCP_BYTES;

	while (at < l->data && f[at] != OPTION_END) {
		if (f[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (at + 2 > l->data || f[at + 1] < 2 || at + f[at + 1] > l->data)
			break;
		if (f[at] == OPTION_MSS && f[at + 1] == 4)
			return at + 2;
		at += f[at + 1];
	}
	return 0;
}

const u8 *segment_raise_mss(const u8 *frame, size_t bytes, u16 mss, u8 copy[NET_HEADERS_MAX])
{
	struct layout l;
	unsigned at, odd, words;
	u16 wish;

	if (bytes > NET_HEADERS_MAX || !parse(frame, bytes, &l) || !l.type || !(frame[l.tcp + 13] & TCP_SYN))
		return frame;
	at = find_mss(frame, &l);
	wish = at ? get_be16(frame + at) : 0;
	if (wish < NET_MTU - (l.tcp - ETH_BYTES) - TCP_BYTES || wish >= mss)
		return frame;
	memcpy(copy, frame, bytes);
	put_be16(copy + at, mss);
	/* RFC 1624: out with the old, in with the new, by the 16-bit words that they are in. A wrong checksum stays wrong. */
	odd = (at - l.tcp) % 2;
	words = odd ? 4 : 2;
	put_le16(copy + l.tcp + 16,
		 ~fold((u64)(u16)~get_le16(frame + l.tcp + 16) + (u16)~segment_sum(frame + at - odd, words, 0) +
		       segment_sum(copy + at - odd, words, 0)));
	return copy;
}

/* ---- to the guest ------------------------------------------------------------------------------------------------------ */

/* The sum of TCP's pseudo header for a frame that ends at @end. */
static u16 pseudo_sum(const u8 *f, const struct layout *l, unsigned end)
{
	bool v4 = l->type == NET_GSO_TCP4;
	const u8 *addresses = f + ETH_BYTES + (v4 ? 12 : 8);
	unsigned bytes = end - l->tcp;
	u8 rest[4] = { 0, PROTO_TCP, bytes >> 8, bytes };

	return segment_sum(addresses, v4 ? 8 : 32, segment_sum(rest, sizeof(rest), 0));
}

static void ipv4_checksum(u8 *ip)
{
	put_le16(ip + 10, 0);
	put_le16(ip + 10, ~segment_sum(ip, 4 * (ip[0] & 15), 0));
}

/* Says in the headers of @f that it ends at @end and is the @i-th of a row. */
static void set_length(u8 *f, const struct layout *l, unsigned end, unsigned i)
{
	u8 *ip = f + ETH_BYTES;

	if (l->type == NET_GSO_TCP6) {
		put_be16(ip + 4, end - l->tcp);
		return;
	}
	put_be16(ip + 2, end - ETH_BYTES);
	put_be16(ip + 4, get_be16(ip + 4) + i);
	ipv4_checksum(ip);
}

/* The part of a TCP segment that goes from @at to @to, which is its @i-th. */
static unsigned tcp_part(u8 *piece, const u8 *f, const struct layout *l, unsigned at, unsigned to, unsigned i)
{
	unsigned end = l->data + (to - at);
	u8 *tcp = piece + l->tcp;

	memcpy(piece, f, l->data);
	memcpy(piece + l->data, f + at, to - at);
	set_length(piece, l, end, i);
	put_be32(tcp + 4, get_be32(tcp + 4) + (at - l->data));
	/* What ends the data ends the last part of it, and what was said once is said once. */
	if (to < l->end)
		tcp[13] &= ~(TCP_FIN | TCP_PSH);
	if (i)
		tcp[13] &= ~TCP_CWR;
	put_le16(tcp + 16, 0);
	put_le16(tcp + 16, ~segment_sum(tcp, end - l->tcp, pseudo_sum(piece, l, end)));
	return end;
}

/* The fragment of an IPv4 packet without options that has the bytes from @at to @to. */
static unsigned ipv4_part(u8 *piece, const u8 *f, const struct layout *l, unsigned at, unsigned to)
{
	u8 *ip = piece + ETH_BYTES;
	unsigned end = l->tcp + (to - at), flags;

	memcpy(piece, f, l->tcp);
	memcpy(piece + l->tcp, f + at, to - at);
	flags = get_be16(ip + 6) + (at - l->tcp) / 8;
	put_be16(ip + 6, to < l->end ? flags | IPV4_MF : flags);
	put_be16(ip + 2, end - ETH_BYTES);
	ipv4_checksum(ip);
	return end;
}

void segment_cut(const u8 *frame, size_t bytes, unsigned types, u8 *room, segment_take_fn *take, void *opaque)
{
	static const struct net_gso ordinary;
	const u8 *ip = frame + ETH_BYTES;
	struct layout l;
	unsigned part, i = 0;

	/* Not cut: what fits, what is not understood, what must not or needs more care than it is worth. */
	if (bytes <= ETH_BYTES + NET_MTU || bytes > NET_FRAME_MAX || !parse(frame, bytes, &l) ||
	    (!l.type && (l.tcp != ETH_BYTES + IPV4_BYTES || get_be16(ip + 6) & IPV4_DF))) {
		take(opaque, frame, bytes, &ordinary);
		return;
	}
	part = NET_MTU - (l.data - ETH_BYTES);
	if (l.type & types) {
		struct net_gso gso = { .type = l.type, .size = part, .tcp = l.tcp, .headers = l.data };

		memcpy(room, frame, l.end);
		put_le16(room + l.tcp + 16, pseudo_sum(room, &l, l.end));
		take(opaque, room, l.end, &gso);
		return;
	}
	if (!l.type)
		part &= ~7u;
	for (unsigned at = l.data, to; at < l.end; at = to, i++) {
		unsigned end;

		to = MIN(at + part, l.end);
		end = l.type ? tcp_part(room, frame, &l, at, to, i) : ipv4_part(room, frame, &l, at, to);
		take(opaque, room, end, &ordinary);
	}
}
