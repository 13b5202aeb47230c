/* Fuzzes virtio-serial with a console and a channel, whose other side is there and not, and takes
 * much and little; see virtio.h. */
#include "fuzz/virtio.h"
#include "vmm/chardev.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct chardev *ends[2];
static size_t appetite = 1000;
static u32 sum;

static int end_open(struct chardev *chr, struct opts *o, struct error *err)
{
	ends[!!ends[0]] = chr;
	chr->opened = true;
	return 0;
}

static void end_close(struct chardev *chr)
{
}

static size_t end_write(struct chardev *chr, const u8 *bytes, size_t count)
{
	count = MIN(count, appetite);
	appetite -= count;
	for (size_t i = 0; i < count; i++)
		sum += bytes[i];
	return count;
}

static const struct chardev_class end_class = {
	.name = "fuzz",
	.help = "",
	.size = sizeof(struct chardev),
	.open = end_open,
	.close = end_close,
	.write = end_write,
};
CHARDEV_REGISTER(end_class)

static void input(struct fuzz_input *in)
{
	static u8 bytes[8192];
	u32 what = fuzz_take(in, 2);
	struct chardev *chr = ends[what & 1];

	switch (what >> 1 & 3) {
	case 0: chardev_input(chr, bytes, MIN(what >> 3, chardev_room(chr))); break;
	case 1:
		appetite = what >> 3;
		chardev_can_write(chr);
		break;
	case 2: chardev_send_event(chr, what & 8 ? CHARDEV_OPENED : CHARDEV_CLOSED); break;
	default: guest_loop(&fuzz_guest, false); break;
	}
}

static void plug_ports(struct guest *g)
{
	struct error err;

	if (!device_add(&g->m, "virtconsole,chardev=c0", &err) ||
	    !device_add(&g->m, "virtserialport,chardev=c1,name=channel", &err)) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
}

static void make(struct guest *g)
{
	struct error err;

	if (!chardev_add(&g->m, "fuzz,id=c0", &err) || !chardev_add(&g->m, "fuzz,id=c1", &err))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool plugged;

	if (!plugged) {
		fuzz_virtio("virtio-serial-pci,packed=on,max_ports=3", make, NULL, NULL, 0);
		plug_ports(&fuzz_guest);
		plugged = true;
	}
	return fuzz_virtio("virtio-serial-pci", make, input, data, size);
}
