/*
 * Between a back end whose TCP knows no small segments and a link of 1500 bytes. A user-mode TCP spends its time by the
 * segment, and so does a guest; so the back end is let believe in large ones, and they are cut on the way to the guest, or
 * by it: a card with TCP segmentation offload takes a large segment whole (virtio 1.2 §5.1.6.4).
 *
 *	frame = segment_raise_mss(frame, bytes, LARGE, copy);	from the guest
 *	segment_cut(frame, bytes, types, room, take, opaque);		to it
 *
 * The guest's wish is kept: only who takes NET_MTU's segments is said to take larger ones, so cutting to NET_MTU is right.
 */
#ifndef VMM_NET_SEGMENT_H
#define VMM_NET_SEGMENT_H

#include "vmm/net/net.h"

#define NET_MTU		1500
#define NET_HEADERS_MAX (14 + 60 + 60) /* Ethernet, IPv4 or IPv6, TCP */

/** If @frame is a TCP SYN with an option MSS (RFC 9293 3.7.1) that fills NET_MTU, or more, returns @copy with @mss in its
 * place, otherwise @frame. */
const u8 *segment_raise_mss(const u8 *frame, size_t bytes, u16 mss, u8 copy[NET_HEADERS_MAX]);

typedef void segment_take_fn(void *opaque, const u8 *frame, size_t bytes, const struct net_gso *gso);
/**
 * Hands @frame on in pieces that fit NET_MTU: segments of TCP, fragments of IPv4; it itself when it fits or cannot be cut.
 * TCP of @types (NET_GSO_*) is not cut but prepared for the guest to do it, *gso saying how; otherwise gso->size is 0.
 * @room: for the pieces, NET_FRAME_MAX bytes.
 */
void segment_cut(const u8 *frame, size_t bytes, unsigned types, u8 *room, segment_take_fn *take, void *opaque);

/** The ones' complement sum of @bytes and @sum, in the host's byte order; ~ of it is the Internet checksum (RFC 1071), to be
 * stored as it is. What follows an odd number of bytes cannot be summed so. */
u16 segment_sum(const void *data, size_t bytes, u16 sum);

#endif
