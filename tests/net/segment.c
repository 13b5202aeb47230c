/* Large TCP segments on their way to a guest, and the MSS on its way from it. */
#include "tests/tap.h"
#include "vmm/net/segment.h"
#include <stdlib.h>

#define LARGE 21413

static u8 whole[NET_FRAME_MAX], room[NET_FRAME_MAX];

/* The sum of big-endian words, the slow way; 0xffff over what carries its checksum. */
static u16 sum(const u8 *p, size_t bytes, u32 before)
{
	for (size_t i = 0; i < bytes; i++)
		before += i % 2 ? p[i] : p[i] << 8;
	while (before >> 16)
		before = (before & 0xffff) + (before >> 16);
	return before;
}

static u16 pseudo(const u8 *f, bool v6, unsigned tcp, unsigned end)
{
	return sum(f + tcp - (v6 ? 32 : 8), v6 ? 32 : 8, 6 + (end - tcp));
}

static bool sums_right(const u8 *f, bool v6, unsigned tcp, unsigned end)
{
	return (v6 || sum(f + 14, tcp - 14, 0) == 0xffff) && sum(f + tcp, end - tcp, pseudo(f, v6, tcp, end)) == 0xffff;
}

/* A frame of TCP in @f, with @options bytes of options given and @data of a pattern. Returns its size. */
static unsigned make(u8 *f, bool v6, u8 flags, const u8 *options, unsigned option_bytes, unsigned data)
{
	unsigned tcp = v6 ? 54 : 34, end = tcp + 20 + option_bytes + data;

	memset(f, 0, tcp + 20);
	memset(f, 0x52, 12);
	put_be16(f + 12, v6 ? 0x86dd : 0x0800);
	if (v6) {
		f[14] = 0x60;
		put_be16(f + 18, end - tcp);
		f[20] = 6;
		f[21] = 64;
		memset(f + 22, 0xfe, 32);
	} else {
		f[14] = 0x45;
		put_be16(f + 16, end - 14);
		put_be16(f + 18, 0xfffe); /* identification */
		f[22] = 64;
		f[23] = 6;
		memset(f + 26, 10, 8);
		put_be16(f + 24, ~sum(f + 14, 20, 0));
	}
	put_be16(f + tcp + 2, 80);
	put_be16(f + tcp + 4, 0xffff); /* the sequence number runs over */
	put_be16(f + tcp + 6, 0xff00);
	f[tcp + 12] = (20 + option_bytes) / 4 << 4;
	f[tcp + 13] = flags;
	memcpy(f + tcp + 20, options, option_bytes);
	for (unsigned i = 0; i < data; i++)
		f[tcp + 20 + option_bytes + i] = i * 7 + i / 256;
	put_be16(f + tcp + 16, ~sum(f + tcp, end - tcp, pseudo(f, v6, tcp, end)));
	return end;
}

/* ---- the MSS ----------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	u8 flags, options[8];
	bool raised[2]; /* IPv4, IPv6 */
} wishes[] = {
	{ "1460 is raised", 2, { 2, 4, 0x05, 0xb4 }, { true, true } },
	{ "1440, with IPv6 only", 2, { 2, 4, 0x05, 0xa0 }, { false, true } },
	{ "8960 is raised", 2, { 4, 2, 2, 4, 0x23, 0x00 }, { true, true } },
	{ "at an odd place", 2, { 1, 2, 4, 0x05, 0xb4 }, { true, true } },
	{ "of SYN and ACK, too", 0x12, { 2, 4, 0x05, 0xb4 }, { true, true } },
	{ "as the last", 2, { 1, 1, 1, 1, 2, 4, 0x05, 0xb4 }, { true, true } },
	{ "as the last at an odd place", 2, { 1, 1, 1, 2, 4, 0x05, 0xb4, 1 }, { true, true } },
	{ "536 stays", 2, { 2, 4, 0x02, 0x18 } },
	{ "more than that stays", 2, { 2, 4, 0xff, 0xd7 } },
	{ "without SYN it means nothing", 0x10, { 2, 4, 0x05, 0xb4 } },
	{ "behind the end of options it is none", 2, { 0, 2, 4, 0x05, 0xb4 } },
	{ "one of 3 bytes is none", 2, { 2, 3, 0x05, 0xb4 } },
	{ "an option without length ends the search", 2, { 8, 0, 2, 4, 0x05, 0xb4 } },
	{ "one that goes over the end is none", 2, { 1, 1, 1, 1, 1, 2, 4, 0x05 } },
};

static void test_mss(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(wishes); i++) {
		bool good = true;

		for (unsigned v6 = 0; v6 < 2; v6++) {
			u8 copy[NET_HEADERS_MAX] = { 0xee };
			unsigned tcp = v6 ? 54 : 34, bytes = make(whole, v6, wishes[i].flags, wishes[i].options, 8, 0);
			const u8 *f;
			unsigned changed = 0;

			memset(whole + bytes, 0xaa, 8); /* not the frame's any more */
			f = segment_raise_mss(whole, bytes, LARGE, copy);

			for (unsigned j = 0; f == copy && j < bytes; j++)
				changed += copy[j] != whole[j];
			/* Two bytes of the option and two of the checksum. */
			good &= (f == copy) == wishes[i].raised[v6] &&
				(f == whole || (changed <= 4 && sums_right(copy, v6, tcp, bytes) && memmem(copy, bytes, "\2\4\x53\xa5", 4)));
			if (f == whole)
				continue;
			whole[tcp]++;
			f = segment_raise_mss(whole, bytes, LARGE, copy);
			good &= !sums_right(f, v6, tcp, bytes);
		}
		tap_ok(good, "MSS: %s", wishes[i].name);
	}
}

/* ---- cutting ----------------------------------------------------------------------------------------------------------- */

static struct {
	bool v6, good;
	unsigned tcp, headers, at, pieces, whole_bytes;
	u8 flags;
} want;

static void take_tcp(void *opaque, const u8 *f, size_t bytes, const struct net_gso *gso)
{
	unsigned data = bytes - want.headers;
	bool first = !want.at, last = want.headers + want.at + data == want.whole_bytes;
	u8 flags = want.flags & ~(first ? 0 : 0x80) & ~(last ? 0 : 0x09);

	want.good &= opaque == &want && !gso->size && bytes <= 1514 && bytes > want.headers &&
		     (last || bytes == 1514) && sums_right(f, want.v6, want.tcp, bytes) &&
		     get_be16(f + (want.v6 ? 18 : 16)) == bytes - (want.v6 ? 54 : 14) &&
		     get_be32(f + want.tcp + 4) == get_be32(whole + want.tcp + 4) + want.at && f[want.tcp + 13] == flags &&
		     (want.v6 || get_be16(f + 18) == (u16)(0xfffe + want.pieces)) &&
		     !memcmp(f + want.tcp + 20, whole + want.tcp + 20, want.headers - want.tcp - 20) &&
		     !memcmp(f + want.headers, whole + want.headers + want.at, data);
	want.at += data;
	want.pieces++;
}

static void take_large(void *opaque, const u8 *f, size_t bytes, const struct net_gso *gso)
{
	want.pieces++;
	want.good &= bytes == want.whole_bytes && gso->type == (want.v6 ? NET_GSO_TCP6 : NET_GSO_TCP4) &&
		     gso->size == 1514 - want.headers && gso->tcp == want.tcp && gso->headers == want.headers &&
		     get_be16(f + want.tcp + 16) == pseudo(f, want.v6, want.tcp, bytes) &&
		     !memcmp(f, whole, want.tcp + 16) && !memcmp(f + want.tcp + 18, whole + want.tcp + 18, bytes - want.tcp - 18);
}

static void take_same(void *opaque, const u8 *f, size_t bytes, const struct net_gso *gso)
{
	want.pieces++;
	want.good &= f == whole && bytes == want.whole_bytes && !gso->size;
}

static void test_tcp(bool v6, unsigned options, unsigned data)
{
	static const u8 nops[40] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
	unsigned tcp = v6 ? 54 : 34, headers = tcp + 20 + options, expect = (data + 1513 - headers) / (1514 - headers);
	const char *ip = v6 ? "IPv6" : "IPv4";

	want = (typeof(want)){ .v6 = v6, .good = true, .tcp = tcp, .headers = headers, .flags = 0x99 };
	want.whole_bytes = make(whole, v6, want.flags, nops, options, data);
	segment_cut(whole, want.whole_bytes, 0, room, take_tcp, &want);
	tap_ok(want.good && want.at == data && want.pieces == expect, "%s: %u bytes and %u of options are cut", ip, data, options);

	want.pieces = 0;
	segment_cut(whole, want.whole_bytes, NET_GSO_TCP4 | NET_GSO_TCP6, room, take_large, &want);
	tap_ok(want.good && want.pieces == 1, "%s: or left to the guest", ip);

	want.pieces = want.at = 0;
	segment_cut(whole, want.whole_bytes, v6 ? NET_GSO_TCP4 : NET_GSO_TCP6, room, take_tcp, &want);
	tap_ok(want.good && want.pieces == expect, "%s: not when it takes the other kind only", ip);
}

static void test_same(const char *name, unsigned bytes)
{
	want = (typeof(want)){ .good = true, .whole_bytes = bytes };
	segment_cut(whole, bytes, NET_GSO_TCP4 | NET_GSO_TCP6, room, take_same, NULL);
	tap_ok(want.good && want.pieces == 1, "handed on as it is: %s", name);
}

static u8 packet[65536];
static unsigned packet_end;

static void take_fragment(void *opaque, const u8 *f, size_t bytes, const struct net_gso *gso)
{
	unsigned flags = get_be16(f + 20), at = (flags & 0x1fff) * 8, data = bytes - 34;

	want.good &= bytes <= 1514 && !gso->size && sum(f + 14, 20, 0) == 0xffff && get_be16(f + 16) == bytes - 14 &&
		     get_be16(f + 18) == 0xfffe && at == want.at && (flags & 0x2000 ? !(data % 8) : !packet_end);
	memcpy(packet + at, f + 34, data);
	want.at += data;
	if (!(flags & 0x2000))
		packet_end = want.at;
}

static void test_fragments(void)
{
	unsigned bytes = make(whole, false, 0x10, (const u8 *)"", 0, 40000);

	whole[23] = 17;
	want = (typeof(want)){ .good = true };
	segment_cut(whole, bytes, NET_GSO_TCP4, room, take_fragment, NULL);
	tap_ok(want.good && packet_end == bytes - 34 && !memcmp(packet, whole + 34, packet_end), "UDP becomes fragments");

	/* A piece of something larger. */
	put_be16(whole + 20, 0x2000 | 8);
	memset(packet, 0, sizeof(packet));
	packet_end = 0;
	want = (typeof(want)){ .good = true, .at = 64 };
	bytes -= (bytes - 34) % 8;
	put_be16(whole + 16, bytes - 14);
	segment_cut(whole, bytes, NET_GSO_TCP4, room, take_fragment, NULL);
	tap_ok(want.good && !packet_end && want.at == 64 + bytes - 34 && !memcmp(packet + 64, whole + 34, bytes - 34),
	       "and so does a fragment");

	put_be16(whole + 20, 0x4000);
	test_same("what must not be cut", bytes);
	put_be16(whole + 20, 0);
	whole[14] = 0x46;
	test_same("IPv4 with options", bytes);
}

static void take_any(void *opaque, const u8 *f, size_t bytes, const struct net_gso *gso)
{
	static volatile u8 sink;

	for (size_t i = 0; i < bytes; i++)
		sink += f[i];
}

/* In memory of its size, so that a sanitizer sees each byte too many. */
static void test_nonsense(void)
{
	u64 state = 88172645463325252ull;
	u8 copy[NET_HEADERS_MAX];

	for (unsigned i = 0; i < 20000; i++) {
		unsigned bytes, change;
		u8 *f;

		bytes = make(whole, i % 2, 2, (const u8[8]){ 1, 1, 2, 4, 5, 180 }, 8, i % 3 ? i % 60 : i);
		f = malloc(bytes);
		memcpy(f, whole, bytes);
		for (change = 0; change < i % 5; change++) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			f[12 + state % MIN(bytes - 12, 80)] = state >> 32;
		}
		bytes -= i % 7 ? 0 : state % bytes;
		f = realloc(f, MAX(bytes, 1));
		take_any(NULL, segment_raise_mss(f, bytes, LARGE, copy), bytes, NULL);
		segment_cut(f, bytes, i % 4, room, take_any, NULL);
		free(f);
	}
	tap_ok(true, "20000 malformed frames are survived");
}

static void test_sum(void)
{
	bool good = true;

	for (unsigned bytes = 0; bytes < 300; bytes++) {
		u8 got[2];

		put_le16(got, segment_sum(whole + bytes % 3, bytes, 0));
		good &= get_be16(got) == sum(whole + bytes % 3, bytes, 0);
	}
	memset(room, 0xff, sizeof(room));
	good &= segment_sum(room, sizeof(room), 0xffff) == 0xffff && segment_sum(room, 0, 0x1234) == 0x1234;
	tap_ok(good, "sums of 0 to 300 bytes, and of the largest frame");
}

int main(void)
{
	tap_begin();
	test_mss();
	for (unsigned v6 = 0; v6 < 2; v6++) {
		test_tcp(v6, 0, 1461);
		test_tcp(v6, 12, LARGE);
		test_tcp(v6, 40, NET_FRAME_MAX - 1 - (v6 ? 54 : 34) - 60);
	}
	test_same("what fits", make(whole, false, 0x10, (const u8 *)"", 0, 1460));
	make(whole, false, 0x10, (const u8 *)"", 0, 3000);
	put_be16(whole + 16, 3100);
	test_same("a packet that is not whole", 3054);
	put_be16(whole + 12, 0x88cc);
	test_same("what is not IP", 3054);
	test_fragments();
	test_sum();
	test_nonsense();
	return tap_end();
}
