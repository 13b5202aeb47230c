/*
 * virtio-net (virtio 1.2 §5.1): an Ethernet card.
 *
 *	-netdev user,id=n0 -device virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56
 *
 * Offloads (§5.1.6.2, §5.1.6.4): a back end in this process takes TCP segments of any size, so the guest need not cut what it
 * sends, and the checksums that it leaves out are computed here. What comes needs no verifying, and is large too.
 */
#include "vmm/net/segment.h"
#include "vmm/machine.h"
#include "vmm/virtio/pci.h"
#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <stdlib.h>

#define NET_RX	   0
#define NET_TX	   1
#define NET_CTRL   2
#define NET_QUEUES 3

#define NET_RX_BUFFERS 256 /* that one frame may be spread over */
#define NET_TX_BURST   256 /* frames before others get their turn */

/*
 * What has been sent is told of with a delay when it is little, acknowledgements and requests above all: most drivers look
 * for it themselves when they send again or receive, and then want no interrupt (§2.7.10: used_event has moved on).
 */
#define NET_TX_DELAY_NS 200000
#define NET_TX_OWED_MAX 8192 /* bytes whose buffers may be withheld that long */
#define NET_MACS_MAX   64
#define NET_VLANS      4096

#define HDR_LEGACY sizeof(struct virtio_net_hdr)
#define HDR_MRG	   sizeof(struct virtio_net_hdr_mrg_rxbuf)
static_assert(HDR_LEGACY == 10 && HDR_MRG == 12, "virtio 1.2 §5.1.6");

/* What the guest can turn off and on again (§5.1.6.5.6). */
#define NET_GUEST_OFFLOADS \
	(1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO6)

#define TCP_CSUM_OFFSET 16

#define NET_CONFIG_SIZE (offsetof(struct virtio_net_config, mtu) + 2)

struct virtio_net {
	struct virtio_pci v;

	/* properties */
	char *netdev, *mac_text;
	bool mrg_rxbuf, status, ctrl_vq, ctrl_rx, ctrl_vlan, ctrl_mac, announce;
	bool csum, host_tso4, host_tso6, guest_csum, guest_tso4, guest_tso6, ctrl_offloads;
	u16 rx_queue_size, tx_queue_size, host_mtu;

	struct net_front front;
	u8 mac[ETH_ALEN]; /* from the command line; reset restores it */
	struct virtq_elem rx[NET_RX_BUFFERS], tx, ctrl;
	unsigned rx_ready; /* elements of rx that have their memory */
	struct loop_bh tx_more;
	struct loop_timer tx_signal;
	size_t tx_owed;	 /* bytes sent since the last signal */
	u64 offloads; /* of NET_GUEST_OFFLOADS, those that are on */
	u8 frame[NET_FRAME_MAX];

	/* the receive filter */
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	bool all_unicast, all_multicast; /* a table that is too long lets everything through */
	u8 unicast[NET_MACS_MAX][ETH_ALEN], multicast[NET_MACS_MAX][ETH_ALEN];
	unsigned unicasts, multicasts;
	u8 vlans[NET_VLANS / 8];
};

static size_t net_header_size(const struct virtio_net *n)
{
	const struct virtio_device *vdev = &n->v.vdev;

	return virtio_has(vdev, VIRTIO_F_VERSION_1) || virtio_has(vdev, VIRTIO_NET_F_MRG_RXBUF)
		       ? HDR_MRG
		       : HDR_LEGACY;
}

/* ---- receiving ------------------------------------------------------------------------------ */

static bool mac_listed(u8 (*table)[ETH_ALEN], unsigned count, const u8 *mac)
{
	for (unsigned i = 0; i < count; i++) {
		if (!memcmp(table[i], mac, ETH_ALEN))
			return true;
	}
	return false;
}

static bool net_filter(struct virtio_net *n, const u8 *frame, size_t bytes)
{
	static const u8 broadcast[ETH_ALEN] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (n->promisc)
		return true;
	if (virtio_has(&n->v.vdev, VIRTIO_NET_F_CTRL_VLAN) && bytes >= ETH_HLEN + 4 &&
	    frame[12] == 0x81 && !frame[13]) {
		unsigned vlan = (frame[14] << 8 | frame[15]) & (NET_VLANS - 1);

		if (!(n->vlans[vlan / 8] >> (vlan % 8) & 1))
			return false;
	}
	if (!memcmp(frame, broadcast, ETH_ALEN))
		return !n->nobcast;
	if (frame[0] & 1)
		return !n->nomulti && (n->allmulti || n->all_multicast ||
				       mac_listed(n->multicast, n->multicasts, frame));
	return !n->nouni &&
	       (n->alluni || n->all_unicast || !memcmp(frame, n->v.vdev.config, ETH_ALEN) ||
		mac_listed(n->unicast, n->unicasts, frame));
}

/* Takes buffers for @bytes. Returns how many, 0 when there are not enough (yet), -1 when there
 * never will be. */
static int net_rx_buffers(struct virtio_net *n, struct virtq *vq, size_t bytes)
{
	bool merge = virtio_has(&n->v.vdev, VIRTIO_NET_F_MRG_RXBUF);
	size_t room = 0;
	unsigned used = 0;
	int result = 0;

	while (room < bytes) {
		if (used == (merge ? MIN(NET_RX_BUFFERS, vq->size) : 1)) {
			/* Large segments do not fit in after all (§5.1.6.3.1 has it that they do). */
			n->front.gso_types = 0;
			result = -1;
			goto give_back;
		}
		while (n->rx_ready <= used)
			virtq_elem_init(&n->rx[n->rx_ready++]);
		if (virtq_pop(vq, &n->rx[used]) <= 0)
			goto give_back;
		if (n->rx[used].out_num || (!used && n->rx[used].in_bytes < HDR_MRG)) {
			virtio_broken(&n->v.vdev, "a receive buffer of %llu bytes",
				      (unsigned long long)n->rx[used].in_bytes);
			return -1;
		}
		room += n->rx[used++].in_bytes;
	}
	return used;

give_back:
	while (used)
		virtq_unpop(vq, &n->rx[--used]);
	return result;
}

static void net_rx_write(struct virtio_net *n, struct virtq *vq, unsigned buffers, const u8 *frame,
			 size_t bytes, const struct net_gso *gso)
{
	struct virtio_net_hdr_mrg_rxbuf header = { .num_buffers = buffers };
	size_t skip = net_header_size(n);

	if (gso->size) {
		header.hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		header.hdr.gso_type = gso->type == NET_GSO_TCP4 ? VIRTIO_NET_HDR_GSO_TCPV4
								: VIRTIO_NET_HDR_GSO_TCPV6;
		header.hdr.hdr_len = gso->headers;
		header.hdr.gso_size = gso->size;
		header.hdr.csum_start = gso->tcp;
		header.hdr.csum_offset = TCP_CSUM_OFFSET;
	} else if (n->offloads >> VIRTIO_NET_F_GUEST_CSUM & 1) {
		/* What a back end in this process makes needs no second look (§5.1.6.4.1). */
		header.hdr.flags = VIRTIO_NET_HDR_F_DATA_VALID;
	}
	for (unsigned i = 0; i < buffers; i++) {
		struct virtq_elem *elem = &n->rx[i];
		size_t copied;

		if (!i)
			iov_from_buf(elem->iov, elem->in_num, 0, &header, skip);
		copied = iov_from_buf(elem->iov, elem->in_num, skip, frame, bytes);
		virtq_fill(vq, elem, skip + copied);
		frame += copied;
		bytes -= copied;
		skip = 0;
	}
	virtq_flush(vq);
}

static bool net_receive(struct net_front *front, const u8 *frame, size_t bytes,
			const struct net_gso *gso)
{
	struct virtio_net *n = container_of(front, struct virtio_net, front);
	struct virtq *vq = &n->v.vdev.vq[NET_RX];
	int buffers;

	/* Without a driver the card is not there, and frames are not kept for it. */
	if (!virtio_live(&n->v.vdev) || !vq->enabled || !net_filter(n, frame, bytes))
		return true;
	buffers = net_rx_buffers(n, vq, net_header_size(n) + bytes);
	if (!buffers) {
		/* The driver tells when it adds some; it may have done so just before it was asked
		 * to. */
		virtq_notify_on(vq);
		buffers = net_rx_buffers(n, vq, net_header_size(n) + bytes);
		if (!buffers)
			return n->v.vdev.broken;
	}
	if (buffers < 0)
		return true;
	if (vq->notify)
		virtq_notify_off(vq);
	net_rx_write(n, vq, buffers, frame, bytes, gso);
	virtq_signal(vq);
	return true;
}

/* Which offloads are on has changed. Large segments go only to who also takes partial checksums (§5.1.3.1). */
static void net_set_offloads(struct virtio_net *n, u64 offloads)
{
	bool csum = offloads >> VIRTIO_NET_F_GUEST_CSUM & 1;

	n->offloads = offloads;
	n->front.gso_types = 0;
	if (csum && offloads >> VIRTIO_NET_F_GUEST_TSO4 & 1)
		n->front.gso_types |= NET_GSO_TCP4;
	if (csum && offloads >> VIRTIO_NET_F_GUEST_TSO6 & 1)
		n->front.gso_types |= NET_GSO_TCP6;
}

/* ---- sending -------------------------------------------------------------------------------- */

/* Whether a frame is complete, or could be made so by what was agreed upon (§5.1.6.2). */
static bool net_complete(struct virtio_net *n, const struct virtio_net_hdr *header, size_t bytes)
{
	const struct virtio_device *vdev = &n->v.vdev;
	size_t start = header->csum_start, at = start + header->csum_offset;
	u16 sum;

	switch (header->gso_type) {
	case VIRTIO_NET_HDR_GSO_NONE:
		if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
			return true;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		if (!virtio_has(vdev, VIRTIO_NET_F_HOST_TSO4))
			return false;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		if (!virtio_has(vdev, VIRTIO_NET_F_HOST_TSO6))
			return false;
		break;
	default: return false;
	}
	if (!virtio_has(vdev, VIRTIO_NET_F_CSUM) || !(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
	    at + sizeof(sum) > bytes)
		return false;
	/* The pseudo header's sum is in the field already. Zero would mean "no checksum" to UDP. */
	sum = ~segment_sum(n->frame + start, bytes - start, 0);
	put_le16(n->frame + at, sum ? sum : 0xffff);
	return true;
}

static void net_tx_signal(struct virtio_net *n)
{
	loop_timer_cancel(&n->tx_signal);
	n->tx_owed = 0;
	virtq_signal(&n->v.vdev.vq[NET_TX]);
}

static void net_transmit(struct virtio_net *n, struct virtq *vq)
{
	size_t header_size = net_header_size(n);
	unsigned frames = 0;

	do {
		virtq_notify_off(vq);
		while (frames < NET_TX_BURST && virtq_pop(vq, &n->tx) > 0) {
			struct virtq_elem *elem = &n->tx;
			struct virtio_net_hdr header;
			size_t bytes;

			frames++;
			if (elem->in_num || elem->out_bytes < header_size) {
				virtio_broken(&n->v.vdev, "a frame of %llu bytes to send",
					      (unsigned long long)elem->out_bytes);
				return;
			}
			iov_to_buf(elem->iov, elem->out_num, 0, &header, sizeof(header));
			bytes = elem->out_bytes - header_size;
			n->tx_owed += bytes;
			if (bytes <= sizeof(n->frame)) {
				/* A copy, as the back end looks more than once. */
				iov_to_buf(elem->iov, elem->out_num, header_size, n->frame, bytes);
				if (net_complete(n, &header, bytes))
					netdev_send(&n->front, n->frame, bytes);
			}
			virtq_push(vq, elem, 0);
		}
		if (frames == NET_TX_BURST && virtq_has_more(vq)) {
			loop_bh_schedule(&n->tx_more);
			break;
		}
	} while (virtq_notify_on(vq));
	if (n->tx_owed > NET_TX_OWED_MAX || vq->unsignalled >= vq->size / 4u)
		net_tx_signal(n);
	else if (vq->unsignalled && !n->tx_signal.armed)
		loop_timer_set(&n->tx_signal, loop_now(&n->v.vdev.machine->loop, LOOP_CLOCK_VM) + NET_TX_DELAY_NS);
}

static void net_transmit_later(struct loop_timer *t)
{
	net_tx_signal(container_of(t, struct virtio_net, tx_signal));
}

static void net_transmit_more(struct loop_bh *bh)
{
	struct virtio_net *n = container_of(bh, struct virtio_net, tx_more);

	virtio_queue_notify(&n->v.vdev, NET_TX);
}

/* ---- control -------------------------------------------------------------------------------- */

/* What stands behind the two bytes of class and command. */
struct net_command {
	const struct iovec *iov;
	unsigned num;
	size_t at, bytes;
};

static bool command_take(struct net_command *c, void *to, size_t bytes)
{
	if (c->bytes - c->at < bytes || iov_to_buf(c->iov, c->num, c->at, to, bytes) != bytes)
		return false;
	c->at += bytes;
	return true;
}

static bool net_ctrl_rx(struct virtio_net *n, u8 command, struct net_command *c)
{
	bool *const modes[] = {
		[VIRTIO_NET_CTRL_RX_PROMISC] = &n->promisc,
		[VIRTIO_NET_CTRL_RX_ALLMULTI] = &n->allmulti,
		[VIRTIO_NET_CTRL_RX_ALLUNI] = &n->alluni,
		[VIRTIO_NET_CTRL_RX_NOMULTI] = &n->nomulti,
		[VIRTIO_NET_CTRL_RX_NOUNI] = &n->nouni,
		[VIRTIO_NET_CTRL_RX_NOBCAST] = &n->nobcast,
	};
	u8 on;

	if (command >= ARRAY_SIZE(modes) || !command_take(c, &on, 1))
		return false;
	*modes[command] = on;
	return true;
}

static bool net_ctrl_mac_list(struct net_command *c, u8 (*table)[ETH_ALEN], unsigned *count,
			      bool *all)
{
	u32 entries;
	u8 mac[ETH_ALEN];

	*count = 0;
	*all = false;
	if (!command_take(c, &entries, sizeof(entries)) || entries > (c->bytes - c->at) / ETH_ALEN)
		return false;
	for (u32 i = 0; i < entries; i++) {
		if (!command_take(c, mac, sizeof(mac)))
			return false;
		if (*count < NET_MACS_MAX)
			memcpy(table[(*count)++], mac, sizeof(mac));
		else
			*all = true;
	}
	return true;
}

static bool net_ctrl_mac(struct virtio_net *n, u8 command, struct net_command *c)
{
	u8 mac[ETH_ALEN];

	if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
		if (c->bytes - c->at != sizeof(mac) || !command_take(c, mac, sizeof(mac)))
			return false;
		memcpy(n->v.vdev.config, mac, sizeof(mac));
		return true;
	}
	return command == VIRTIO_NET_CTRL_MAC_TABLE_SET &&
	       net_ctrl_mac_list(c, n->unicast, &n->unicasts, &n->all_unicast) &&
	       net_ctrl_mac_list(c, n->multicast, &n->multicasts, &n->all_multicast);
}

static bool net_ctrl_vlan(struct virtio_net *n, u8 command, struct net_command *c)
{
	u16 vlan;

	if (!command_take(c, &vlan, sizeof(vlan)) || vlan >= NET_VLANS ||
	    command > VIRTIO_NET_CTRL_VLAN_DEL)
		return false;
	if (command == VIRTIO_NET_CTRL_VLAN_ADD)
		n->vlans[vlan / 8] |= 1 << (vlan % 8);
	else
		n->vlans[vlan / 8] &= ~(1 << (vlan % 8));
	return true;
}

static bool net_ctrl_announce(struct virtio_net *n, u8 command)
{
	u8 *status = n->v.vdev.config + offsetof(struct virtio_net_config, status);

	if (command != VIRTIO_NET_CTRL_ANNOUNCE_ACK || !(get_le16(status) & VIRTIO_NET_S_ANNOUNCE))
		return false;
	put_le16(status, get_le16(status) & ~VIRTIO_NET_S_ANNOUNCE);
	return true;
}

static bool net_ctrl_offloads(struct virtio_net *n, u8 command, struct net_command *c)
{
	u64 offloads;

	if (command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
	    !command_take(c, &offloads, sizeof(offloads)) ||
	    offloads & ~(n->v.vdev.guest_features & NET_GUEST_OFFLOADS))
		return false;
	net_set_offloads(n, offloads);
	return true;
}

static bool net_command(struct virtio_net *n, const struct virtq_elem *elem)
{
	struct net_command c = { elem->iov, elem->out_num, 0, elem->out_bytes };
	struct virtio_device *vdev = &n->v.vdev;
	struct virtio_net_ctrl_hdr header;

	if (!command_take(&c, &header, sizeof(header)))
		return false;
	switch (header.class) {
	case VIRTIO_NET_CTRL_RX:
		return virtio_has(vdev, VIRTIO_NET_F_CTRL_RX) && net_ctrl_rx(n, header.cmd, &c);
	case VIRTIO_NET_CTRL_MAC: return net_ctrl_mac(n, header.cmd, &c);
	case VIRTIO_NET_CTRL_VLAN:
		return virtio_has(vdev, VIRTIO_NET_F_CTRL_VLAN) && net_ctrl_vlan(n, header.cmd, &c);
	case VIRTIO_NET_CTRL_ANNOUNCE:
		return virtio_has(vdev, VIRTIO_NET_F_GUEST_ANNOUNCE) &&
		       net_ctrl_announce(n, header.cmd);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return virtio_has(vdev, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) &&
		       net_ctrl_offloads(n, header.cmd, &c);
	default: return false;
	}
}

static void net_control(struct virtio_net *n, struct virtq *vq)
{
	do {
		virtq_notify_off(vq);
		while (virtq_pop(vq, &n->ctrl) > 0) {
			struct virtq_elem *elem = &n->ctrl;
			u8 ack;

			if (elem->out_bytes < sizeof(struct virtio_net_ctrl_hdr) ||
			    !elem->in_bytes) {
				virtio_broken(&n->v.vdev,
					      "a command without header or place for the answer");
				return;
			}
			ack = net_command(n, elem) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
			iov_from_buf(elem->iov + elem->out_num, elem->in_num, 0, &ack, 1);
			virtq_push(vq, elem, 1);
		}
	} while (virtq_notify_on(vq));
	virtq_signal(vq);
}

/* ---- the device ----------------------------------------------------------------------------- */

static void net_queue(struct virtio_device *vdev, struct virtq *vq)
{
	struct virtio_net *n = container_of(vdev, struct virtio_net, v.vdev);

	switch (vq->index) {
	case NET_RX: netdev_poke(&n->front); break;
	case NET_TX: net_transmit(n, vq); break;
	default: net_control(n, vq); break;
	}
}

static void net_link(struct net_front *front, bool up)
{
	struct virtio_net *n = container_of(front, struct virtio_net, front);
	struct virtio_device *vdev = &n->v.vdev;
	u16 status = up ? VIRTIO_NET_S_LINK_UP : 0;

	if (!n->status)
		return;
	/* Whatever is on the other end now has not heard of us yet. */
	if (up && virtio_has(vdev, VIRTIO_NET_F_GUEST_ANNOUNCE))
		status |= VIRTIO_NET_S_ANNOUNCE;
	put_le16(vdev->config + offsetof(struct virtio_net_config, status), status);
	virtio_config_changed(vdev);
}

static void net_start(struct virtio_device *vdev)
{
	struct virtio_net *n = container_of(vdev, struct virtio_net, v.vdev);

	net_set_offloads(n, vdev->guest_features & NET_GUEST_OFFLOADS);
}

static void net_reset(struct virtio_device *vdev)
{
	struct virtio_net *n = container_of(vdev, struct virtio_net, v.vdev);

	loop_bh_cancel(&n->tx_more);
	loop_timer_cancel(&n->tx_signal);
	n->tx_owed = 0;
	net_set_offloads(n, 0);
	/* Everything is received until the driver says what it wants (§5.1.6.5.1 is for drivers
	 * that do). */
	n->promisc = true;
	n->allmulti = n->alluni = n->nomulti = n->nouni = n->nobcast = false;
	n->all_unicast = n->all_multicast = false;
	n->unicasts = n->multicasts = 0;
	memset(n->vlans, 0, sizeof(n->vlans));
	memcpy(vdev->config, n->mac, ETH_ALEN);
	put_le16(vdev->config + offsetof(struct virtio_net_config, status),
		 n->status && netdev_link_up(&n->front) ? VIRTIO_NET_S_LINK_UP : 0);
}

static void net_config_write(struct virtio_device *vdev, unsigned offset, const u8 *bytes,
			     unsigned size)
{
	/* A legacy driver sets its address here (§5.1.4.3); later ones use a command. */
	if (virtio_has(vdev, VIRTIO_F_VERSION_1) || offset >= ETH_ALEN)
		return;
	memcpy(vdev->config + offset, bytes, MIN(size, ETH_ALEN - offset));
}

static const struct virtio_type net_type = {
	.name = "virtio-net",
	.id = VIRTIO_ID_NET,
	.pci_class = 0x020000, /* Ethernet */
	.queue = net_queue,
	.start = net_start,
	.reset = net_reset,
	.config_write = net_config_write,
};

static int net_check_queue(const char *name, u16 size, struct error *err)
{
	if (size < 64 || size > VIRTIO_QUEUE_SIZE_MAX || size & (size - 1))
		return error_set(err, -EINVAL, "%s=%u: a power of two, 64 to %u", name, size,
				 VIRTIO_QUEUE_SIZE_MAX);
	return 0;
}

static u64 net_features(const struct virtio_net *n)
{
	const struct {
		bool on;
		unsigned bit;
	} features[] = {
		{ true, VIRTIO_NET_F_MAC },
		{ n->mrg_rxbuf, VIRTIO_NET_F_MRG_RXBUF },
		{ n->csum, VIRTIO_NET_F_CSUM },
		{ n->csum && n->host_tso4, VIRTIO_NET_F_HOST_TSO4 },
		{ n->csum && n->host_tso6, VIRTIO_NET_F_HOST_TSO6 },
		{ n->guest_csum, VIRTIO_NET_F_GUEST_CSUM },
		{ n->guest_csum && n->guest_tso4, VIRTIO_NET_F_GUEST_TSO4 },
		{ n->guest_csum && n->guest_tso6, VIRTIO_NET_F_GUEST_TSO6 },
		{ n->ctrl_vq && n->ctrl_offloads, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS },
		{ n->status, VIRTIO_NET_F_STATUS },
		{ n->host_mtu, VIRTIO_NET_F_MTU },
		{ n->ctrl_vq, VIRTIO_NET_F_CTRL_VQ },
		{ n->ctrl_vq && n->ctrl_rx, VIRTIO_NET_F_CTRL_RX },
		{ n->ctrl_vq && n->ctrl_rx, VIRTIO_NET_F_CTRL_RX_EXTRA },
		{ n->ctrl_vq && n->ctrl_vlan, VIRTIO_NET_F_CTRL_VLAN },
		{ n->ctrl_vq && n->ctrl_mac, VIRTIO_NET_F_CTRL_MAC_ADDR },
		{ n->ctrl_vq && n->announce && n->status, VIRTIO_NET_F_GUEST_ANNOUNCE },
	};
	u64 result = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
		result |= (u64)features[i].on << features[i].bit;
	return result;
}

static int realize(struct device *dev, struct error *err)
{
	struct virtio_net *n = container_of(dev, struct virtio_net, v.pci.dev);
	struct virtio_device *vdev = &n->v.vdev;
	int result;

	if (n->mac_text)
		result = net_parse_mac(n->mac_text, n->mac, err);
	else
		result = 0, net_default_mac(n->mac);
	if (result < 0 || (result = net_check_queue("rx_queue_size", n->rx_queue_size, err)) < 0 ||
	    (result = net_check_queue("tx_queue_size", n->tx_queue_size, err)) < 0)
		return result;
	if (n->host_mtu && n->host_mtu < 68)
		return error_set(err, -EINVAL, "host_mtu=%u: at least 68", n->host_mtu);
	n->front.receive = net_receive;
	n->front.link = net_link;
	if (n->netdev && (result = netdev_attach(dev->machine, n->netdev, &n->front, err)) < 0)
		return result;

	virtio_init(vdev, &net_type, dev->machine, n->ctrl_vq ? NET_QUEUES : NET_QUEUES - 1,
		    NET_CONFIG_SIZE);
	virtio_queue_init(vdev, NET_RX, n->rx_queue_size);
	virtio_queue_init(vdev, NET_TX, n->tx_queue_size);
	if (n->ctrl_vq)
		virtio_queue_init(vdev, NET_CTRL, 64);
	vdev->host_features |= net_features(n);
	put_le16(vdev->config + offsetof(struct virtio_net_config, max_virtqueue_pairs), 1);
	put_le16(vdev->config + offsetof(struct virtio_net_config, mtu), n->host_mtu);
	loop_bh_init(&n->tx_more, &dev->machine->loop, net_transmit_more);
	loop_timer_init(&n->tx_signal, &dev->machine->loop, LOOP_CLOCK_VM, net_transmit_later);
	result = virtio_pci_realize(&n->v, err);
	if (result < 0) {
		netdev_detach(&n->front);
		return result;
	}
	virtq_elem_init(&n->tx);
	virtq_elem_init(&n->ctrl);
	return 0;
}

static void unrealize(struct device *dev)
{
	struct virtio_net *n = container_of(dev, struct virtio_net, v.pci.dev);

	netdev_detach(&n->front);
	loop_timer_cancel(&n->tx_signal);
	virtio_pci_unrealize(&n->v);
	while (n->rx_ready)
		virtq_elem_destroy(&n->rx[--n->rx_ready]);
	virtq_elem_destroy(&n->tx);
	virtq_elem_destroy(&n->ctrl);
}

static const struct property properties[] = {
	PROPERTY_STRING("netdev", struct virtio_net, netdev, NULL, "the network: an id of -netdev"),
	PROPERTY_STRING("mac", struct virtio_net, mac_text, NULL,
			"the card's address (default: 52:54:00:12:34:56 and on)"),
	PROPERTY_BOOL("mrg_rxbuf", struct virtio_net, mrg_rxbuf, "on",
		      "offer frames over several buffers"),
	PROPERTY_BOOL("csum", struct virtio_net, csum, "on", "complete the checksums of what the guest sends"),
	PROPERTY_BOOL("host_tso4", struct virtio_net, host_tso4, "on",
		      "the guest may send IPv4's TCP segments of 64 KiB (needs csum)"),
	PROPERTY_BOOL("host_tso6", struct virtio_net, host_tso6, "on", "and IPv6's"),
	PROPERTY_BOOL("guest_csum", struct virtio_net, guest_csum, "on",
		      "the guest need not verify checksums"),
	PROPERTY_BOOL("guest_tso4", struct virtio_net, guest_tso4, "on",
		      "it gets IPv4's TCP segments of up to 64 KiB (needs guest_csum)"),
	PROPERTY_BOOL("guest_tso6", struct virtio_net, guest_tso6, "on", "and IPv6's"),
	PROPERTY_BOOL("status", struct virtio_net, status, "on", "offer the link's state"),
	PROPERTY_BOOL("ctrl_vq", struct virtio_net, ctrl_vq, "on", "offer commands"),
	PROPERTY_BOOL("ctrl_rx", struct virtio_net, ctrl_rx, "on", "offer receive modes"),
	PROPERTY_BOOL("ctrl_vlan", struct virtio_net, ctrl_vlan, "on", "offer a VLAN filter"),
	PROPERTY_BOOL("ctrl_guest_offloads", struct virtio_net, ctrl_offloads, "on",
		      "the guest may turn guest_csum and the like off"),
	PROPERTY_BOOL("ctrl_mac_addr", struct virtio_net, ctrl_mac, "on",
		      "the guest may change the address"),
	PROPERTY_BOOL("guest_announce", struct virtio_net, announce, "on",
		      "ask the guest to announce itself"),
	PROPERTY_U16("rx_queue_size", struct virtio_net, rx_queue_size, "256", "entries"),
	PROPERTY_U16("tx_queue_size", struct virtio_net, tx_queue_size, "256", "entries"),
	PROPERTY_U16("host_mtu", struct virtio_net, host_mtu, "0",
		     "bytes that the guest is told to keep to; 0: nothing"),
	VIRTIO_PCI_PROPERTIES(struct virtio_net, v),
	{}
};

VIRTIO_PCI_REGISTER(virtio_net, "virtio-net", "an Ethernet card", struct virtio_net)
