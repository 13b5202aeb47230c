/*
 * Networks: what a NIC is connected to, by kind and id.
 *
 *	-netdev user,id=n0				a back end
 *	-device virtio-net-pci,netdev=n0		a NIC, which attaches to it by name
 *
 *	nic->front.receive = ...; nic->front.link = ...;
 *	netdev_attach(m, nic->netdev, &nic->front, err);
 *	netdev_send(&nic->front, iov, n);		a frame to the network
 *	netdev_poke(&nic->front);			there is room for frames again
 *
 * Frames are Ethernet without checksum, 14 to NET_FRAME_MAX bytes. TCP segments may be as large as that whatever the MTU:
 * from the guest, when its NIC offers that; to it, when its NIC takes them (segment.h). All of it under the machine lock.
 */
#ifndef VMM_NET_NET_H
#define VMM_NET_NET_H

#include "vmm/opts.h"
#include "vmm/util.h"
#include <sys/uio.h>

#define NET_FRAME_MAX  65550 /* 64 KiB of IP and the Ethernet header */
#define NET_FRAME_MIN  14
#define NET_HELD_BYTES (256u << 10) /* frames kept for a NIC that has no room */

struct machine;
struct netdev;

/* What a NIC takes uncut. */
#define NET_GSO_TCP4 1
#define NET_GSO_TCP6 2

/* How a frame of several TCP segments comes apart; its TCP checksum is that of the pseudo header, not inverted. */
struct net_gso {
	u8 type;     /* NET_GSO_TCP4 or NET_GSO_TCP6 */
	u16 size;    /* of TCP's data in every segment but the last; 0: an ordinary frame, and the rest says nothing */
	u16 tcp;     /* where TCP's header begins */
	u16 headers; /* where TCP's data begins */
};

struct net_front {
	/** Takes a frame; false: there is no room, netdev_poke() says when. */
	bool (*receive)(struct net_front *f, const u8 *frame, size_t bytes, const struct net_gso *gso);
	unsigned gso_types; /* NET_GSO_*: what receive() takes now */
	/** The cable was plugged or pulled. May be NULL. */
	void (*link)(struct net_front *f, bool up);
	struct netdev *netdev; /* NULL: not attached */
};

struct netdev_class {
	const char *name;
	const char *help; /* its options, for -netdev help */
	size_t size;
	/** Opens; the struct netdev is the beginning of the kind's own structure. The caller calls
	 * opts_finish(). */
	int (*open)(struct netdev *n, struct opts *o, struct error *err);
	void (*close)(struct netdev *n);
	/** A frame from the guest, which may be a TCP segment of any size; what cannot be sent is lost, as on a wire. */
	void (*send)(struct netdev *n, const u8 *frame, size_t bytes);
};

struct netdev {
	const struct netdev_class *class;
	struct machine *machine;
	char *id;
	struct net_front *front; /* NULL: none yet */
	bool link_up;
	struct list held; /* frames for which the NIC had no room */
	size_t held_bytes;
	u64 dropped;
	struct list link;
};

void netdev_register(const struct netdev_class *class);
#define NETDEV_REGISTER(c)                                          \
	__attribute__((constructor)) static void register_##c(void) \
	{                                                           \
		netdev_register(&c);                                \
	}

/** Makes a back end out of "-netdev" text: "kind,id=NAME,...". */
int netdev_add(struct machine *m, const char *text, struct error *err);
/** "-nic kind,model=DEVICE,mac=...,...": a back end and its NIC; "none" is nothing. */
int netdev_add_nic(struct machine *m, const char *text, struct error *err);
void netdev_close_all(struct machine *m);
struct netdev *netdev_find(struct machine *m, const char *id);
/** Plugs and pulls the cable. -ENOENT. */
int netdev_set_link(struct machine *m, const char *id, bool up, struct error *err);

/** -ENOENT, -EBUSY; text set. */
int netdev_attach(struct machine *m, const char *id, struct net_front *front, struct error *err);
void netdev_detach(struct net_front *front);
/** A frame from the guest. Not attached, without link, or of an impossible size: lost. */
void netdev_send(struct net_front *front, const u8 *frame, size_t bytes);
/** The NIC has room again: it gets what was held. */
void netdev_poke(struct net_front *front);
bool netdev_link_up(const struct net_front *front);

/** For back ends: a frame to the NIC, held while it has no room, lost when too much is held. */
void netdev_deliver(struct netdev *n, const u8 *frame, size_t bytes);
/** The same for one that may be large, of a type that the NIC takes. */
void netdev_deliver_gso(struct netdev *n, const u8 *frame, size_t bytes, const struct net_gso *gso);
/** NET_GSO_*, what the NIC takes now. */
static inline unsigned netdev_gso_types(const struct netdev *n)
{
	return n->front ? n->front->gso_types : 0;
}

/** "52:54:00:12:34:56". -EINVAL: malformed, multicast or zero. */
int net_parse_mac(const char *text, u8 mac[6], struct error *err);
/** The next of the addresses 52:54:00:12:34:56 and on. */
void net_default_mac(u8 mac[6]);

#endif
