/* Fuzzes virtio-net, with frames from the network too; see virtio.h. */
#include "fuzz/virtio.h"
#include "vmm/net/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int null_open(struct netdev *n, struct opts *o, struct error *err)
{
	return 0;
}

static void null_close(struct netdev *n)
{
}

static u32 sum;

static void null_send(struct netdev *n, const u8 *frame, size_t bytes)
{
	/* Every byte is looked at, so that a sanitizer sees those that are not there. */
	while (bytes--)
		sum += *frame++;
}

static const struct netdev_class fuzz_net = { .name = "fuzz",
					      .help = "",
					      .size = sizeof(struct netdev),
					      .open = null_open,
					      .close = null_close,
					      .send = null_send };
NETDEV_REGISTER(fuzz_net)

static void make(struct guest *g)
{
	struct error err;

	if (netdev_add(&g->m, "fuzz,id=n0", &err) < 0)
		abort();
}

static void deliver(void *n, const u8 *frame, size_t bytes, const struct net_gso *gso)
{
	netdev_deliver_gso(n, frame, bytes, gso);
}

static void receive(struct fuzz_input *in)
{
	static u8 frame[NET_FRAME_MAX], room[NET_FRAME_MAX];
	struct netdev *n = netdev_find(&fuzz_guest.m, "n0");
	u32 bytes = fuzz_take(in, 2), what = fuzz_take(in, 1);
	struct error err;

	if (what == 255)
		netdev_set_link(&fuzz_guest.m, "n0", bytes & 1, &err);
	for (u32 i = 0; i < MIN(bytes, 20); i++)
		frame[i] = fuzz_take(in, 1);
	if (what & 2) { /* a segment that may be large */
		frame[12] = 8;
		frame[13] = 0;
		frame[14] = 0x45;
		frame[16] = (bytes - 14) >> 8;
		frame[17] = bytes - 14;
		frame[20] = frame[21] = 0;
		frame[23] = 6;
		frame[46] = 0x50;
	}
	segment_cut(frame, what & 1 ? bytes % 1600 : MIN(bytes, NET_FRAME_MAX), netdev_gso_types(n), room, deliver, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_virtio("virtio-net-pci,netdev=n0,packed=on", make, receive, data, size);
}
