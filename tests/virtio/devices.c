/*
 * virtio devices over PCI, driven as a guest drives them: identification, negotiation, every
 * transport and ring layout, and what a driver may get wrong.
 */
#include "tests/virtio/guest.h"
#include "vmm/block/drive.h"
#include "vmm/chardev.h"
#include "vmm/net/net.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/serial.h"
#include <fcntl.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>
#include <linux/virtio_net.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK_SECTORS 256

static struct guest g;
static struct pci_driver p;
static struct error err;
static char disk[] = "/tmp/trine-virtio-XXXXXX";
static const char *const mode_names[] = { "modern", "modern packed", "legacy" };

static bool plug(const char *text)
{
	if (pci_plug(&p, &g, text, &err))
		return true;
	tap_diag("%s", err.text);
	return false;
}

static void unplug(void)
{
	device_remove(p.dev);
	g.next = 0x10000;
}

/* ---- identification ------------------------------------------------------------------------- */

static const struct {
	const char *text;
	u16 device;
	u8 revision;
	bool legacy, modern;
} identities[] = {
	{ "virtio-rng-pci", 0x1005, 0, true, true },
	{ "virtio-rng-pci,disable-legacy=on", 0x1044, 1, false, true },
	{ "virtio-rng-pci,disable-modern=on", 0x1005, 0, true, false },
	{ "virtio-rng-pci-transitional", 0x1005, 0, true, true },
	{ "virtio-rng-pci-non-transitional", 0x1044, 1, false, true },
	{ "virtio-net-pci", 0x1000, 0, true, true },
	{ "virtio-net-pci-non-transitional", 0x1041, 1, false, true },
	{ "virtio-serial-pci", 0x1003, 0, true, true },
	{ "virtio-balloon-pci", 0x1002, 0, true, true },
};

static bool has_cap(u8 id, u8 type)
{
	for (u8 at = p.pci->config[PCI_CAPABILITY_LIST]; at; at = p.pci->config[at + 1]) {
		if (p.pci->config[at] == id &&
		    (id != PCI_CAP_ID_VNDR || p.pci->config[at + 3] == type))
			return true;
	}
	return false;
}

static bool try_identity(unsigned i)
{
	bool good;

	if (!plug(identities[i].text))
		return false;
	good = pci_config_read(p.pci, PCI_VENDOR_ID, 2) == 0x1af4 &&
	       pci_config_read(p.pci, PCI_DEVICE_ID, 2) == identities[i].device &&
	       pci_config_read(p.pci, PCI_REVISION_ID, 1) == identities[i].revision &&
	       !!p.pci->bar[0].region == identities[i].legacy && has_cap(PCI_CAP_ID_MSIX, 0);
	for (u8 type = VIRTIO_PCI_CAP_COMMON_CFG; type <= VIRTIO_PCI_CAP_PCI_CFG; type++)
		good = good && has_cap(PCI_CAP_ID_VNDR, type) == identities[i].modern;
	unplug();
	return good;
}

static const struct {
	const char *text, *says;
} refusals[] = {
	{ "virtio-rng-pci,disable-legacy=on,disable-modern=on", "leave nothing" },
	{ "virtio-rng-pci,vectors=5000", "vectors=5000" },
	{ "virtio-rng-pci,max-bytes=0", "max-bytes" },
	{ "virtio-rng-pci,colour=blue", "colour" },
	{ "virtio-blk-pci", "drive= is missing" },
	{ "virtio-blk-pci,drive=nowhere", "nowhere" },
	{ "virtio-blk-pci,drive=d0,num-queues=100", "num-queues=100" },
	{ "virtio-blk-pci,drive=d0,queue-size=100", "queue-size=100" },
	{ "virtio-blk-pci,drive=d0,serial=123456789012345678901", "serial" },
	{ "virtio-blk-pci,drive=d0,logical_block_size=1000", "logical_block_size=1000" },
	{ "virtio-net-pci,mac=01:02:03:04:05:06", "multicast" },
	{ "virtio-net-pci,mac=hello", "mac=hello" },
	{ "virtio-net-pci,netdev=nowhere", "nowhere" },
	{ "virtio-net-pci,rx_queue_size=7", "rx_queue_size=7" },
	{ "virtio-serial-pci,max_ports=0", "max_ports=0" },
	{ "virtconsole", "virtio-serial-bus" },
};

static bool try_refusal(unsigned i)
{
	struct pci_driver q;

	err.text[0] = 0;
	if (pci_plug(&q, &g, refusals[i].text, &err)) {
		device_remove(q.dev);
		return false;
	}
	if (!strstr(err.text, refusals[i].says))
		tap_diag("%s", err.text);
	return strstr(err.text, refusals[i].says) != NULL;
}

/* ---- negotiation ---------------------------------------------------------------------------- */

static bool refuse_unoffered(void)
{
	bool good;

	p.mode = PCI_MODERN;
	pci_set_status(&p, 0);
	pci_set_status(&p, 3);
	common_set(&p, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	common_set(&p, VIRTIO_PCI_COMMON_GF, 0xffffffff, 4);
	common_set(&p, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	common_set(&p, VIRTIO_PCI_COMMON_GF, 1, 4);
	pci_set_status(&p, 3 | VIRTIO_CONFIG_S_FEATURES_OK);
	good = !(pci_status(&p) & VIRTIO_CONFIG_S_FEATURES_OK);
	pci_set_status(&p, 3 | 4 | 8);
	return good && !(pci_status(&p) & VIRTIO_CONFIG_S_DRIVER_OK);
}

static bool refuse_without_version_1(void)
{
	return !pci_init(&p, PCI_MODERN, 1ull << VIRTIO_F_VERSION_1);
}

static bool fixed_after_features_ok(void)
{
	u64 before;

	pci_init(&p, PCI_MODERN, 0);
	before = p.v->vdev.guest_features;
	common_set(&p, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	common_set(&p, VIRTIO_PCI_COMMON_GF, 0, 4);
	return p.v->vdev.guest_features == before && before;
}

static bool no_such_vector(void)
{
	pci_init(&p, PCI_MODERN, 0);
	common_set(&p, VIRTIO_PCI_COMMON_MSIX, 1, 2);
	if (common_get(&p, VIRTIO_PCI_COMMON_MSIX, 2) != 1)
		return false;
	common_set(&p, VIRTIO_PCI_COMMON_MSIX, 500, 2);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	common_set(&p, VIRTIO_PCI_COMMON_Q_MSIX, 500, 2);
	return common_get(&p, VIRTIO_PCI_COMMON_MSIX, 2) == 0xffff &&
	       common_get(&p, VIRTIO_PCI_COMMON_Q_MSIX, 2) == 0xffff;
}

static bool no_such_queue(void)
{
	pci_init(&p, PCI_MODERN, 0);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SELECT, 99, 2);
	common_set(&p, VIRTIO_PCI_COMMON_Q_SIZE, 8, 2);
	common_set(&p, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	common_set(&p, 0x3000 + 4 * 99, 99, 2);
	return common_get(&p, VIRTIO_PCI_COMMON_Q_SIZE, 2) == 0 &&
	       !(pci_status(&p) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* The registers through configuration space, as firmware reaches them. */
static bool through_the_window(void)
{
	unsigned at = p.v->cfg_cap;
	u8 status;

	pci_init(&p, PCI_MODERN, 0);
	pci_config_write(p.pci, at + 4, 4, 1);
	pci_config_write(p.pci, at + 8, VIRTIO_PCI_COMMON_STATUS, 4);
	pci_config_write(p.pci, at + 12, 1, 4);
	status = pci_config_read(p.pci, at + 16, 4);
	pci_config_write(p.pci, at + 16, 0, 4);
	if (status != pci_status(&p) + 15 || pci_status(&p) != 0)
		return false;
	/* Aimed outside, it does nothing. */
	pci_config_write(p.pci, at + 8, 0xfffffffc, 4);
	pci_config_write(p.pci, at + 12, 4, 4);
	pci_config_write(p.pci, at + 16, 0xffffffff, 4);
	pci_config_read(p.pci, at + 16, 4);
	pci_config_write(p.pci, at + 8, 0x3fff, 4);
	pci_config_read(p.pci, at + 16, 4);
	return pci_status(&p) == 0;
}

static bool isr_clears(void)
{
	struct segment s = { guest_alloc(&g, 64), 64, true };
	u16 id;
	u32 bytes;

	pci_init(&p, PCI_MODERN, 0);
	ring_add(&p.ring[0], &s, 1, false);
	pci_kick(&p, 0);
	return pci_wait(&p, 0, &id, &bytes) && p.pci->intx && common_get(&p, 0x1000, 1) == 1 &&
	       !p.pci->intx && common_get(&p, 0x1000, 1) == 0;
}

/* ---- rng ------------------------------------------------------------------------------------ */

static bool rng_gives(enum pci_mode mode, bool indirect)
{
	struct segment s[] = { { guest_alloc(&g, 4096), 300, true },
			       { guest_alloc(&g, 4096), 200, true } };
	u8 *a = guest_ptr(&g, s[0].gpa);
	u16 id, expected;
	unsigned zeroes = 0;
	u32 bytes;

	if (!pci_init(&p, mode, 0))
		return false;
	memset(a, 0, 300);
	expected = ring_add(&p.ring[0], s, 2, indirect);
	pci_kick(&p, 0);
	if (!pci_wait(&p, 0, &id, &bytes) || id != expected || bytes != 500)
		return false;
	for (unsigned i = 0; i < 300; i++)
		zeroes += !a[i];
	return zeroes < 30;
}

/* ---- blk ------------------------------------------------------------------------------------ */

/* One request; the answer's status, or -1 when none comes. */
static int blk_do(u32 type, u64 sector, u64 data, u32 bytes, bool in, bool indirect)
{
	u64 page = guest_alloc(&g, 32);
	struct virtio_blk_outhdr header = { .type = type, .sector = sector };
	struct segment s[] = { { page, 16, false }, { data, bytes, in }, { page + 16, 1, true } };
	u16 id, expected;
	u32 written;

	memcpy(guest_ptr(&g, page), &header, sizeof(header));
	*guest_ptr(&g, page + 16) = 0xee;
	if (!bytes)
		s[1] = s[2];
	expected = ring_add(&p.ring[0], s, bytes ? 3 : 2, indirect);
	pci_kick(&p, 0);
	if (!pci_wait(&p, 0, &id, &written) || id != expected)
		return -1;
	return *guest_ptr(&g, page + 16);
}

static bool blk_round_trip(enum pci_mode mode, bool indirect, u64 without)
{
	u64 data = guest_alloc(&g, 64 * 512), back = guest_alloc(&g, 64 * 512);
	u8 on_disk[512];
	int fd;
	bool good;

	if (!pci_init(&p, mode, without))
		return false;
	for (unsigned i = 0; i < 64 * 512; i++)
		guest_ptr(&g, data)[i] = i * 7 + i / 512 + mode;
	good = blk_do(VIRTIO_BLK_T_OUT, 3, data, 64 * 512, false, indirect) == VIRTIO_BLK_S_OK &&
	       blk_do(VIRTIO_BLK_T_FLUSH, 0, 0, 0, false, indirect) == VIRTIO_BLK_S_OK &&
	       blk_do(VIRTIO_BLK_T_IN, 3, back, 64 * 512, true, indirect) == VIRTIO_BLK_S_OK &&
	       !memcmp(guest_ptr(&g, data), guest_ptr(&g, back), 64 * 512);
	fd = open(disk, O_RDONLY | O_CLOEXEC);
	good = good && pread(fd, on_disk, 512, 5 * 512) == 512 &&
	       !memcmp(on_disk, guest_ptr(&g, data + 2 * 512), 512);
	close(fd);
	return good;
}

static const struct {
	const char *name;
	u32 type;
	u64 sector;
	u32 bytes;
	bool in;
	int status;
} blk_cases[] = {
	{ "the last sector is read", VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 512, true,
	  VIRTIO_BLK_S_OK },
	{ "a read behind the end fails", VIRTIO_BLK_T_IN, DISK_SECTORS, 512, true,
	  VIRTIO_BLK_S_IOERR },
	{ "a read over the end fails", VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 1024, true,
	  VIRTIO_BLK_S_IOERR },
	{ "a write over the end fails", VIRTIO_BLK_T_OUT, DISK_SECTORS - 1, 1024, false,
	  VIRTIO_BLK_S_IOERR },
	{ "a sector number that overflows fails", VIRTIO_BLK_T_OUT, ~0ull, 512, false,
	  VIRTIO_BLK_S_IOERR },
	{ "2^55 fails", VIRTIO_BLK_T_IN, 1ull << 55, 512, true, VIRTIO_BLK_S_IOERR },
	{ "half a sector fails", VIRTIO_BLK_T_IN, 0, 256, true, VIRTIO_BLK_S_IOERR },
	{ "a read of nothing is done", VIRTIO_BLK_T_IN, 0, 0, true, VIRTIO_BLK_S_OK },
	{ "an unknown request is unsupported", 77, 0, 512, true, VIRTIO_BLK_S_UNSUPP },
	{ "SCSI is unsupported", VIRTIO_BLK_T_SCSI_CMD, 0, 512, false, VIRTIO_BLK_S_UNSUPP },
	{ "a discard of 3 bytes fails", VIRTIO_BLK_T_DISCARD, 0, 3, false, VIRTIO_BLK_S_IOERR },
};

static int blk_range(u32 type, u64 sector, u32 sectors, u32 flags)
{
	struct virtio_blk_discard_write_zeroes range = { .sector = sector,
							 .num_sectors = sectors,
							 .flags = flags };
	u64 page = guest_alloc(&g, 16);

	memcpy(guest_ptr(&g, page), &range, sizeof(range));
	return blk_do(type, 0, page, sizeof(range), false, false);
}

static bool blk_zeroes(u32 type, u32 flags)
{
	u64 data = guest_alloc(&g, 4096);
	bool good;

	pci_init(&p, PCI_MODERN, 0);
	memset(guest_ptr(&g, data), 0x55, 4096);
	good = blk_do(VIRTIO_BLK_T_OUT, 8, data, 4096, false, false) == 0 &&
	       blk_range(type, 9, 6, flags) == 0 &&
	       blk_do(VIRTIO_BLK_T_IN, 8, data, 4096, true, false) == 0;
	for (unsigned i = 0; i < 4096; i++)
		good = good && guest_ptr(&g, data)[i] == (i < 512 || i >= 7 * 512 ? 0x55 : 0);
	return good;
}

/* A buffer without a header, or without a place for the status: the device waits for a reset. */
static bool blk_malformed(const struct segment *s, unsigned count)
{
	bool good;

	pci_init(&p, PCI_MODERN, 0);
	ring_add(&p.ring[0], s, count, false);
	pci_kick(&p, 0);
	good = pci_status(&p) & VIRTIO_CONFIG_S_NEEDS_RESET;
	pci_init(&p, PCI_MODERN, 0);
	return good && blk_do(VIRTIO_BLK_T_FLUSH, 0, 0, 0, false, false) == 0;
}

/* Requests are in flight when the driver resets: nothing is written afterwards. */
static bool blk_reset_in_flight(void)
{
	u64 data = guest_alloc(&g, 64 * 4096), page = guest_alloc(&g, 4096);

	pci_init(&p, PCI_MODERN, 0);
	for (unsigned i = 0; i < 30; i++) {
		struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_IN, .sector = i };
		struct segment s[] = { { page + 32 * i, 16, false },
				       { data + 4096 * i, 4096, true },
				       { page + 32 * i + 16, 1, true } };

		memcpy(guest_ptr(&g, page + 32 * i), &header, sizeof(header));
		ring_add(&p.ring[0], s, 3, false);
	}
	pci_kick(&p, 0);
	pci_set_status(&p, 0);
	memset(guest_ptr(&g, data), 0xaa, 64 * 4096);
	for (unsigned i = 0; i < 20; i++)
		guest_loop(&g, false);
	for (unsigned i = 0; i < 64 * 4096; i++) {
		if (guest_ptr(&g, data)[i] != 0xaa)
			return false;
	}
	return true;
}

static bool blk_identifies(void)
{
	u64 data = guest_alloc(&g, 20);

	pci_init(&p, PCI_MODERN, 0);
	return blk_do(VIRTIO_BLK_T_GET_ID, 0, data, 20, true, false) == 0 &&
	       !memcmp(guest_ptr(&g, data), "serial-of-the-disk\0", 20);
}

static void test_blk(void)
{
	struct segment no_status[] = { { 0x8000, 16, false } },
		       no_header[] = { { 0x8000, 8, false }, { 0x9000, 1, true } };
	char text[128];
	int fd = mkstemp(disk);

	if (fd < 0 || ftruncate(fd, DISK_SECTORS * 512) < 0) {
		tap_ok(false, "a disk image can be made");
		return;
	}
	close(fd);
	snprintf(text, sizeof(text), "file=%s,format=raw,if=none,id=d0,discard=unmap", disk);
	tap_ok(drive_add(&g.m, text, &err) == 0, "-drive opens an image");
	snprintf(text, sizeof(text), "file=%s,format=raw,if=none,id=d1", disk);
	tap_ok(drive_add(&g.m, text, &err) < 0 && strstr(err.text, "in use"),
	       "a second -drive of the image is refused");
	for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++)
		tap_ok(try_refusal(i), "refused: %s", refusals[i].text);

	if (!tap_ok(plug("virtio-blk-pci,drive=d0,packed=on,serial=serial-of-the-disk,num-queues="
			 "2"),
		    "virtio-blk-pci"))
		return;
	for (enum pci_mode mode = PCI_MODERN; mode <= PCI_LEGACY; mode++) {
		tap_ok(blk_round_trip(mode, false, 0),
		       "blk, %s: written, flushed, read, and on the disk", mode_names[mode]);
		tap_ok(blk_round_trip(mode, true, 0), "blk, %s, indirect: the same",
		       mode_names[mode]);
		tap_ok(blk_round_trip(mode, false, 1ull << VIRTIO_RING_F_EVENT_IDX),
		       "blk, %s, without event index: the same", mode_names[mode]);
	}
	tap_ok(blk_round_trip(PCI_MODERN, false,
			      1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_CONFIG_WCE),
	       "blk: a driver that cannot flush");
	pci_init(&p, PCI_MODERN, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(blk_cases); i++)
		tap_ok(blk_do(blk_cases[i].type, blk_cases[i].sector, guest_alloc(&g, 4096),
			      blk_cases[i].bytes, blk_cases[i].in, false) == blk_cases[i].status,
		       "blk: %s", blk_cases[i].name);
	tap_ok(blk_zeroes(VIRTIO_BLK_T_WRITE_ZEROES, 0), "blk: write-zeroes");
	tap_ok(blk_zeroes(VIRTIO_BLK_T_WRITE_ZEROES, 1), "blk: write-zeroes that may unmap");
	tap_ok(blk_zeroes(VIRTIO_BLK_T_DISCARD, 0), "blk: a discard of a file punches a hole");
	tap_ok(blk_range(VIRTIO_BLK_T_DISCARD, 0, 1, 1) == VIRTIO_BLK_S_UNSUPP,
	       "blk: unmap with discard is unsupported");
	tap_ok(blk_range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2) == VIRTIO_BLK_S_UNSUPP,
	       "blk: unknown flags are unsupported");
	tap_ok(blk_range(VIRTIO_BLK_T_WRITE_ZEROES, DISK_SECTORS - 1, 2, 0) == VIRTIO_BLK_S_IOERR,
	       "blk: zeroes over the end fail");
	tap_ok(blk_range(VIRTIO_BLK_T_WRITE_ZEROES, 1, 0xffffffff, 0) == VIRTIO_BLK_S_IOERR,
	       "blk: 2 TiB of zeroes fail");
	tap_ok(blk_identifies(), "blk: the serial number");
	tap_ok(blk_malformed(no_status, 1),
	       "blk: a request without status breaks the device, a reset heals it");
	tap_ok(blk_malformed(no_header, 2),
	       "blk: a request without header breaks the device, a reset heals it");
	tap_ok(blk_reset_in_flight(), "blk: nothing is written after a reset");
	tap_ok(pci_config(&p, 0, 8) == DISK_SECTORS && pci_config(&p, 34, 2) == 2,
	       "blk: capacity and queues in the configuration");
	unplug();
	drive_close_all(&g.m);

	snprintf(text, sizeof(text), "file=%s,format=raw,if=none,id=ro,readonly=on", disk);
	tap_ok(drive_add(&g.m, text, &err) == 0 && plug("virtio-blk-pci,drive=ro") &&
		       pci_init(&p, PCI_MODERN, 0) &&
		       p.v->vdev.guest_features >> VIRTIO_BLK_F_RO & 1 &&
		       blk_do(VIRTIO_BLK_T_OUT, 0, guest_alloc(&g, 512), 512, false, false) ==
			       VIRTIO_BLK_S_IOERR &&
		       blk_do(VIRTIO_BLK_T_IN, 0, guest_alloc(&g, 512), 512, true, false) ==
			       VIRTIO_BLK_S_OK,
	       "blk: a read-only image is read and not written");
	unplug();
	drive_close_all(&g.m);
	unlink(disk);
}

/* ---- net ------------------------------------------------------------------------------------ */

static u8 sent[2048];
static size_t sent_bytes, sent_frames;

static int null_open(struct netdev *n, struct opts *o, struct error *e)
{
	return 0;
}

static void null_close(struct netdev *n)
{
}

static void null_send(struct netdev *n, const u8 *frame, size_t bytes)
{
	sent_frames++;
	sent_bytes = bytes;
	memcpy(sent, frame, MIN(bytes, sizeof(sent)));
}

static const struct netdev_class test_class = { .name = "test",
						.help = "",
						.size = sizeof(struct netdev),
						.open = null_open,
						.close = null_close,
						.send = null_send };
NETDEV_REGISTER(test_class)

static size_t net_header(void)
{
	return p.mode == PCI_LEGACY && !(p.v->vdev.guest_features >> VIRTIO_NET_F_MRG_RXBUF & 1)
		       ? 10
		       : 12;
}

static bool net_sends(enum pci_mode mode)
{
	u64 page = guest_alloc(&g, 4096);
	struct segment s[] = { { page, 0, false }, { page + 64, 100, false } };
	u16 id;
	u32 bytes;

	if (!pci_init(&p, mode, 0))
		return false;
	memset(guest_ptr(&g, page), 0, 64);
	for (unsigned i = 0; i < 100; i++)
		guest_ptr(&g, page + 64)[i] = i;
	s[0].bytes = net_header();
	sent_bytes = 0;
	ring_add(&p.ring[1], s, 2, false);
	pci_kick(&p, 1);
	return pci_wait(&p, 1, &id, &bytes) && sent_bytes == 100 && sent[99] == 99;
}

/* Sends @bytes and waits for the buffer. Returns whether there is an interrupt, -1: no buffer. The ISR is clear afterwards. */
static int net_signals(u32 bytes)
{
	struct segment s = { guest_alloc(&g, 12 + bytes), 12 + bytes, false };
	u16 id;
	u32 written;

	memset(guest_ptr(&g, s.gpa), 0, 12);
	ring_add(&p.ring[1], &s, 1, false);
	pci_kick(&p, 1);
	if (!pci_wait(&p, 1, &id, &written))
		return -1;
	guest_loop(&g, false);
	return common_get(&p, 0x1000, 1) & 1;
}

/* The guest's time stands still and goes on as this wants. */
static bool net_signals_late(void)
{
	struct loop *loop = &g.m.loop;
	bool runs = loop->vm_running, good;

	loop_clock_run(loop, false);
	good = pci_init(&p, PCI_MODERN, 1ull << VIRTIO_RING_F_EVENT_IDX) && net_signals(100) == 0 && net_signals(100) == 0;
	loop_clock_run(loop, true);
	for (unsigned i = 0; good && !p.pci->intx; i++) {
		guest_loop(&g, true);
		good = i < 1000;
	}
	good = good && common_get(&p, 0x1000, 1) == 1;
	loop_clock_run(loop, runs);
	return good;
}

static bool net_signals_much(void)
{
	struct loop *loop = &g.m.loop;
	bool runs = loop->vm_running, good;
	unsigned n = 0;

	loop_clock_run(loop, false);
	good = pci_init(&p, PCI_MODERN, 1ull << VIRTIO_RING_F_EVENT_IDX) && net_signals(9000) == 1 && net_signals(5000) == 0 && net_signals(5000) == 1;
	while (good && n < p.ring[1].size && !net_signals(60))
		n++;
	good = good && n && n < p.ring[1].size / 4u;
	/* Nothing of before is told of after a reset. */
	good = good && !net_signals(60) && pci_init(&p, PCI_MODERN, 0);
	loop_clock_run(loop, true);
	for (unsigned i = 0; i < 10; i++) {
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		guest_loop(&g, false);
	}
	good = good && !p.pci->intx;
	loop_clock_run(loop, runs);
	return good;
}

static bool net_receives(enum pci_mode mode, unsigned buffer, size_t bytes, u64 without)
{
	struct netdev *n = netdev_find(&g.m, "n0");
	u64 page = guest_alloc(&g, 16 * 4096);
	u8 frame[4000], got[4200];
	size_t total = 0;
	unsigned count = 0;
	u16 id;
	u32 written;

	if (!pci_init(&p, mode, without))
		return false;
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = i * 3 + i / 256;
	memset(frame, 0xff, 6);
	/* Held until there is room. */
	netdev_deliver(n, frame, bytes);
	for (unsigned i = 0; i < 16; i++) {
		struct segment s = { page + 4096 * i, buffer, true };

		ring_add(&p.ring[0], &s, 1, false);
	}
	pci_kick(&p, 0);
	while (ring_used(&p.ring[0], &id, &written)) {
		memcpy(got + total, guest_ptr(&g, page + 4096 * count++), written);
		total += written;
	}
	return total == bytes + net_header() && !memcmp(got + net_header(), frame, bytes) &&
	       (net_header() == 10 || get_le16(got + 10) == count) && !n->held_bytes;
}

/* A large segment, of 30 buffers or of one. */
static bool net_receives_large(enum pci_mode mode, u64 without)
{
	static const struct net_gso gso = { .type = NET_GSO_TCP4, .size = 1460, .tcp = 34, .headers = 54 };
	const u64 tso = 1ull << VIRTIO_NET_F_GUEST_TSO4, mrg = 1ull << VIRTIO_NET_F_MRG_RXBUF;
	struct netdev *n = netdev_find(&g.m, "n0");
	unsigned each = without & mrg ? 32768 : 1024, count = 0;
	u64 memory = guest_alloc(&g, 2 * 32768);
	static u8 frame[30000], got[32768];
	struct virtio_net_hdr_mrg_rxbuf h = { 0 };
	size_t total = 0;
	u16 id;
	u32 written;

	if (!pci_init(&p, mode, without))
		return false;
	if (without & tso || without & 1ull << VIRTIO_NET_F_GUEST_CSUM)
		return !(netdev_gso_types(n) & NET_GSO_TCP4);
	if (!(netdev_gso_types(n) & NET_GSO_TCP4))
		return false;
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = i * 3 + i / 256;
	for (unsigned i = 0; i < 2 * 32768 / each; i++) {
		struct segment s = { memory + each * i, each, true };

		ring_add(&p.ring[0], &s, 1, false);
	}
	pci_kick(&p, 0);
	netdev_deliver_gso(n, frame, sizeof(frame), &gso);
	while (ring_used(&p.ring[0], &id, &written) && total + written <= sizeof(got)) {
		memcpy(got + total, guest_ptr(&g, memory + each * count++), written);
		total += written;
	}
	memcpy(&h, got, net_header());
	return total == sizeof(frame) + net_header() && !memcmp(got + net_header(), frame, sizeof(frame)) &&
	       h.hdr.flags == VIRTIO_NET_HDR_F_NEEDS_CSUM && h.hdr.gso_type == VIRTIO_NET_HDR_GSO_TCPV4 &&
	       h.hdr.hdr_len == 54 && h.hdr.gso_size == 1460 && h.hdr.csum_start == 34 && h.hdr.csum_offset == 16 &&
	       (net_header() == 10 || h.num_buffers == count);
}

/* A driver whose buffers cannot hold what it asked for gets small segments from then on. */
static bool net_small_buffers(void)
{
	static const struct net_gso gso = { .type = NET_GSO_TCP6, .size = 1440, .tcp = 54, .headers = 74 };
	struct netdev *n = netdev_find(&g.m, "n0");
	static u8 frame[30000];
	struct segment s = { guest_alloc(&g, 4096), 2048, true };
	u16 id;
	u32 written;

	if (!pci_init(&p, PCI_MODERN, 1ull << VIRTIO_NET_F_MRG_RXBUF))
		return false;
	ring_add(&p.ring[0], &s, 1, false);
	pci_kick(&p, 0);
	netdev_deliver_gso(n, frame, sizeof(frame), &gso);
	if (n->held_bytes || netdev_gso_types(n) || ring_used(&p.ring[0], &id, &written))
		return false;
	netdev_deliver(n, frame, 1000);
	return ring_used(&p.ring[0], &id, &written) && pci_init(&p, PCI_MODERN, 0) && netdev_gso_types(n);
}

/* What is sent with a header of the driver's making. */
static const struct {
	const char *name;
	u64 without;
	struct virtio_net_hdr header;
	bool goes;
	u16 sum; /* at 40, of the 60 bytes from 20 on, which are 0x0101 with 0x1234 there */
} sendings[] = {
	{ "a checksum is completed", 0, { 1, 0, 0, 0, 20, 20 }, true, 0xd0ae },
	{ "not when that was not agreed upon", 1ull << VIRTIO_NET_F_CSUM, { 1, 0, 0, 0, 20, 20 }, false, 0 },
	{ "nor behind the end", 0, { 1, 0, 0, 0, 20, 59 }, false, 0 },
	{ "nor far behind it", 0, { 1, 0, 0, 0, 0xffff, 0xffff }, false, 0 },
	{ "nor where it would begin there", 0, { 1, 0, 0, 0, 0xffff, 0 }, false, 0 },
	{ "a large segment of IPv4", 0, { 1, 1, 54, 10, 20, 20 }, true, 0xd0ae },
	{ "of IPv6", 0, { 1, 4, 54, 10, 20, 20 }, true, 0xd0ae },
	{ "not without checksum", 0, { 0, 1, 54, 10, 20, 20 }, false, 0 },
	{ "not of IPv4 unless agreed upon", 1ull << VIRTIO_NET_F_HOST_TSO4, { 1, 1, 54, 10, 20, 20 }, false, 0 },
	{ "not of IPv6 unless agreed upon", 1ull << VIRTIO_NET_F_HOST_TSO6, { 1, 4, 54, 10, 20, 20 }, false, 0 },
	{ "nothing of UDP", 0, { 1, 3, 42, 10, 20, 20 }, false, 0 },
	{ "nothing with ECN", 0, { 1, 0x81, 54, 10, 20, 20 }, false, 0 },
};

static bool net_sends_header(unsigned i)
{
	u64 page = guest_alloc(&g, 4096);
	struct segment s[] = { { page, 12, false }, { page + 64, 80, false } };
	size_t before = sent_frames;
	u16 id;
	u32 bytes;

	if (!pci_init(&p, PCI_MODERN, sendings[i].without))
		return false;
	memset(guest_ptr(&g, page), 0, 64);
	memset(guest_ptr(&g, page + 64), 1, 80);
	memcpy(guest_ptr(&g, page), &sendings[i].header, sizeof(sendings[i].header));
	put_le16(guest_ptr(&g, page + 64) + 40, 0x1234);
	ring_add(&p.ring[1], s, 2, false);
	pci_kick(&p, 1);
	if (!pci_wait(&p, 1, &id, &bytes) || p.v->vdev.broken)
		return false;
	if (!sendings[i].goes)
		return sent_frames == before;
	if (get_le16(sent + 40) != sendings[i].sum)
		tap_diag("the checksum is 0x%04x", get_le16(sent + 40));
	return sent_frames == before + 1 && sent_bytes == 80 && get_le16(sent + 40) == sendings[i].sum;
}

static int net_command(u8 class, u8 command, const void *data, u32 bytes)
{
	u64 page = guest_alloc(&g, 4096);
	struct segment s[] = { { page, 2, false },
			       { page + 16, bytes, false },
			       { page + 8, 1, true } };
	u16 id;
	u32 written;

	guest_ptr(&g, page)[0] = class;
	guest_ptr(&g, page)[1] = command;
	guest_ptr(&g, page)[8] = 0xee;
	memcpy(guest_ptr(&g, page + 16), data, bytes);
	if (!bytes)
		s[1] = s[2];
	ring_add(&p.ring[2], s, bytes ? 3 : 2, false);
	pci_kick(&p, 2);
	return pci_wait(&p, 2, &id, &written) ? guest_ptr(&g, page)[8] : -1;
}

static bool net_filters(void)
{
	static const u8 off, on = 1;
	static const u8 own[60] = { 0x52, 0x54, 0, 1, 2, 3 },
			other[60] = { 0x52, 0x54, 0, 9, 9, 9 };
	static const u8 group[60] = { 0x33, 0x33, 0, 0, 0, 1 },
			everybody[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const u8 lists[] = { 0, 0, 0, 0, 1, 0, 0, 0, 0x33, 0x33, 0, 0, 0, 1 };
	struct netdev *n = netdev_find(&g.m, "n0");
	u64 page = guest_alloc(&g, 16 * 4096);
	u16 id;
	u32 bytes;
	unsigned got = 0;

	pci_init(&p, PCI_MODERN, 0);
	for (unsigned i = 0; i < 16; i++) {
		struct segment s = { page + 4096 * i, 2048, true };

		ring_add(&p.ring[0], &s, 1, false);
	}
	if (net_command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1) != 0)
		return false;
	netdev_deliver(n, own, 60);
	netdev_deliver(n, other, 60);
	netdev_deliver(n, group, 60);
	netdev_deliver(n, everybody, 60);
	while (ring_used(&p.ring[0], &id, &bytes))
		got++;
	if (got != 2 || net_command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, lists,
				    sizeof(lists)) != 0)
		return false;
	netdev_deliver(n, group, 60);
	if (!ring_used(&p.ring[0], &id, &bytes) ||
	    net_command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &on, 1) != 0)
		return false;
	netdev_deliver(n, other, 60);
	return ring_used(&p.ring[0], &id, &bytes);
}

static const struct {
	const char *name;
	u8 class, command;
	u8 data[12];
	u32 bytes;
	int answer;
} net_commands[] = {
	{ "an address is set",
	  VIRTIO_NET_CTRL_MAC,
	  VIRTIO_NET_CTRL_MAC_ADDR_SET,
	  { 2, 0, 0, 0, 0, 9 },
	  6,
	  0 },
	{ "half an address is refused",
	  VIRTIO_NET_CTRL_MAC,
	  VIRTIO_NET_CTRL_MAC_ADDR_SET,
	  { 2, 0, 0 },
	  3,
	  1 },
	{ "a table of 2^32 - 1 addresses is refused",
	  VIRTIO_NET_CTRL_MAC,
	  VIRTIO_NET_CTRL_MAC_TABLE_SET,
	  { 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0 },
	  8,
	  1 },
	{ "a receive mode without value is refused", VIRTIO_NET_CTRL_RX, 0, {}, 0, 1 },
	{ "an unknown receive mode is refused", VIRTIO_NET_CTRL_RX, 99, { 1 }, 1, 1 },
	{ "a VLAN is added", VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, { 0xff, 0x0f }, 2, 0 },
	{ "VLAN 4096 is refused",
	  VIRTIO_NET_CTRL_VLAN,
	  VIRTIO_NET_CTRL_VLAN_ADD,
	  { 0, 0x10 },
	  2,
	  1 },
	{ "an announcement that nobody asked for is refused",
	  VIRTIO_NET_CTRL_ANNOUNCE,
	  0,
	  {},
	  0,
	  1 },
	{ "offloads are turned off", VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, { 1 << VIRTIO_NET_F_GUEST_CSUM }, 8, 0 },
	{ "one that does not exist is refused", VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, { 1 << VIRTIO_NET_F_CSUM }, 8, 1 },
	{ "half of a set of offloads is refused", VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, { 0 }, 4, 1 },
	{ "an unknown command for offloads is refused", VIRTIO_NET_CTRL_GUEST_OFFLOADS, 1, { 0 }, 8, 1 },
	{ "an unknown class is refused", 200, 0, { 1 }, 1, 1 },
};

static void test_net(void)
{
	tap_ok(netdev_add(&g.m, "test,id=n0", &err) == 0, "-netdev");
	tap_ok(netdev_add(&g.m, "test,id=n0", &err) < 0, "a second network of the name is refused");
	tap_ok(netdev_add(&g.m, "carrier-pigeon,id=n1", &err) < 0 &&
		       strstr(err.text, "carrier-pigeon"),
	       "an unknown kind of network is refused");
	if (!tap_ok(plug("virtio-net-pci,netdev=n0,packed=on,mac=52:54:00:01:02:03"),
		    "virtio-net-pci"))
		return;
	for (enum pci_mode mode = PCI_MODERN; mode <= PCI_LEGACY; mode++) {
		tap_ok(net_sends(mode), "net, %s: a frame is sent", mode_names[mode]);
		tap_ok(net_receives(mode, 2048, 1514, 0), "net, %s: a frame is received",
		       mode_names[mode]);
		tap_ok(net_receives(mode, 300, 1514, 0),
		       "net, %s: a frame over several buffers is received", mode_names[mode]);
		tap_ok(net_receives(mode, 2048, 1514, 1ull << VIRTIO_NET_F_MRG_RXBUF),
		       "net, %s: a frame is received without merging", mode_names[mode]);
	}
	for (enum pci_mode mode = PCI_MODERN; mode <= PCI_LEGACY; mode++) {
		tap_ok(net_receives_large(mode, 0), "net, %s: a large segment is received", mode_names[mode]);
		tap_ok(net_receives_large(mode, 1ull << VIRTIO_NET_F_MRG_RXBUF),
		       "net, %s: a large segment is received without merging", mode_names[mode]);
		tap_ok(net_receives_large(mode, 1ull << VIRTIO_NET_F_GUEST_TSO4),
		       "net, %s: none unless agreed upon", mode_names[mode]);
		tap_ok(net_receives_large(mode, 1ull << VIRTIO_NET_F_GUEST_CSUM),
		       "net, %s: none without partial checksums", mode_names[mode]);
	}
	tap_ok(net_signals_late(), "net: of a small frame that was sent the driver hears late");
	tap_ok(net_signals_much(), "net: of much, or of many frames, at once; of none after a reset");
	tap_ok(net_small_buffers(), "net: buffers that are too small for large segments");
	for (unsigned i = 0; i < ARRAY_SIZE(sendings); i++)
		tap_ok(net_sends_header(i), "net: %s", sendings[i].name);
	tap_ok(net_filters(), "net: the receive filter");
	pci_init(&p, PCI_MODERN, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(net_commands); i++)
		tap_ok(net_command(net_commands[i].class, net_commands[i].command,
				   net_commands[i].data,
				   net_commands[i].bytes) == net_commands[i].answer,
		       "net: %s", net_commands[i].name);
	tap_ok(pci_config(&p, 5, 1) == 9, "net: the address that was set is read");
	tap_ok(!netdev_gso_types(netdev_find(&g.m, "n0")), "net: an offload that was turned off is off");
	netdev_set_link(&g.m, "n0", false, &err);
	tap_ok((pci_config(&p, 6, 2) & 1) == 0 && common_get(&p, 0x1000, 1) & 2,
	       "net: a pulled cable is told");
	netdev_set_link(&g.m, "n0", true, &err);
	tap_ok(pci_config(&p, 6, 2) == 3 && net_command(VIRTIO_NET_CTRL_ANNOUNCE, 0, "", 0) == 0 &&
		       pci_config(&p, 6, 2) == 1,
	       "net: plugged in again it asks for an announcement");
	pci_set_status(&p, 0);
	tap_ok(pci_init(&p, PCI_MODERN, 0) && pci_config(&p, 5, 1) == 3,
	       "net: a reset restores the address");
	unplug();
	netdev_close_all(&g.m);
}

/* ---- balloon -------------------------------------------------------------------------------- */

static bool resident(u64 gpa)
{
	unsigned char in_core = 0;

	mincore(guest_ptr(&g, gpa), 4096, &in_core);
	return in_core & 1;
}

static bool balloon_inflates(enum pci_mode mode)
{
	u64 page = guest_alloc(&g, 4096), victim = guest_alloc(&g, 4 * 4096);
	u32 pfns[] = { victim / 4096, victim / 4096 + 1, 0xffffffff, GUEST_BAR_BASE / 4096,
		       victim / 4096 + 3 };
	struct segment s = { page, sizeof(pfns), false };
	u16 id;
	u32 bytes;

	if (!pci_init(&p, mode, 0))
		return false;
	memset(guest_ptr(&g, victim), 0x77, 4 * 4096);
	memcpy(guest_ptr(&g, page), pfns, sizeof(pfns));
	ring_add(&p.ring[0], &s, 1, false);
	pci_kick(&p, 0);
	return pci_wait(&p, 0, &id, &bytes) && !resident(victim) && !resident(victim + 4096) &&
	       resident(victim + 8192) && !resident(victim + 12288) && !guest_ptr(&g, victim)[0] &&
	       guest_ptr(&g, victim + 8192)[5] == 0x77;
}

static void test_balloon(void)
{
	struct balloon_stats stats;
	struct virtio_balloon_stat given[2] = { { VIRTIO_BALLOON_S_MEMFREE, 123 }, { 999, 1 } };
	u64 now, page;
	struct segment s;

	tap_ok(balloon_set_target(&g.m, MiB, &err) == -ENODEV,
	       "balloon: without a device there is no target");
	if (!tap_ok(plug("virtio-balloon-pci,packed=on,free-page-reporting=on"),
		    "virtio-balloon-pci"))
		return;
	for (enum pci_mode mode = PCI_MODERN; mode <= PCI_LEGACY; mode++)
		tap_ok(balloon_inflates(mode),
		       "balloon, %s: pages are given up, what is not RAM is ignored",
		       mode_names[mode]);
	pci_init(&p, PCI_MODERN, 0);
	common_get(&p, 0x1000, 1);
	tap_ok(balloon_set_target(&g.m, 6 * MiB, &err) == 0 && pci_config(&p, 0, 4) == 512 &&
		       common_get(&p, 0x1000, 1) & 2,
	       "balloon: a target is told");
	common_set(&p, 0x2004, 256, 4);
	tap_ok(balloon_query(&g.m, &now) == 0 && now == 7 * MiB,
	       "balloon: what the guest has given is known");
	page = guest_alloc(&g, 4096);
	memcpy(guest_ptr(&g, page), given, sizeof(given));
	s = (struct segment){ page, sizeof(given), false };
	ring_add(&p.ring[2], &s, 1, false);
	pci_kick(&p, 2);
	tap_ok(balloon_get_stats(&g.m, &stats) == 0 &&
		       stats.value[VIRTIO_BALLOON_S_MEMFREE] == 123 &&
		       stats.value[VIRTIO_BALLOON_S_MEMTOT] == ~0ull,
	       "balloon: statistics");
	page = guest_alloc(&g, 8192);
	memset(guest_ptr(&g, page), 1, 8192);
	s = (struct segment){ page, 8192, true };
	ring_add(&p.ring[3], &s, 1, false);
	pci_kick(&p, 3);
	tap_ok(!resident(page) && !resident(page + 4096), "balloon: reported pages are released");
	unplug();
}

/* ---- serial --------------------------------------------------------------------------------- */

static struct chardev *ends[2];
static char written[128];
static size_t written_bytes, appetite = 1000;

static int end_open(struct chardev *chr, struct opts *o, struct error *e)
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
	count = MIN(count, MIN(appetite, sizeof(written) - written_bytes));
	memcpy(written + written_bytes, bytes, count);
	written_bytes += count;
	appetite -= count;
	return count;
}

static const struct chardev_class end_class = { .name = "test",
						.help = "",
						.size = sizeof(struct chardev),
						.open = end_open,
						.close = end_close,
						.write = end_write };
CHARDEV_REGISTER(end_class)

static u64 ctl_buffers;

static void serial_give(unsigned queue, unsigned count)
{
	ctl_buffers = guest_alloc(&g, 4096 * count);
	for (unsigned i = 0; i < count; i++) {
		struct segment s = { ctl_buffers + 4096 * i, 4096, true };

		ring_add(&p.ring[queue], &s, 1, false);
	}
	pci_kick(&p, queue);
}

static void serial_tell(u32 port, u16 event, u16 value)
{
	struct virtio_console_control c = { port, event, value };
	u64 page = guest_alloc(&g, 16);
	struct segment s = { page, sizeof(c), false };

	memcpy(guest_ptr(&g, page), &c, sizeof(c));
	ring_add(&p.ring[3], &s, 1, false);
	pci_kick(&p, 3);
}

/* Has the device said this? All that it has said is looked through once. */
static bool serial_said(u32 port, u16 event, const char *text)
{
	static struct virtio_console_control said[64];
	static char names[64][32];
	static unsigned count;
	u16 id;
	u32 bytes;

	if (!text)
		text = "";
	while (ring_used(&p.ring[2], &id, &bytes) && count < 64) {
		u8 *at = guest_ptr(&g, ctl_buffers + 4096 * (id % 32));

		memcpy(&said[count], at, sizeof(said[0]));
		memset(names[count], 0, sizeof(names[0]));
		memcpy(names[count++], at + sizeof(said[0]), MIN(bytes - sizeof(said[0]), 31));
	}
	for (unsigned i = 0; i < count; i++) {
		if (said[i].id == port && said[i].event == event && !strcmp(names[i], text))
			return true;
	}
	return false;
}

static bool serial_write(unsigned queue, const char *text)
{
	u64 page = guest_alloc(&g, 4096);
	struct segment s = { page, strlen(text), false };
	u16 id;
	u32 bytes;

	memcpy(guest_ptr(&g, page), text, strlen(text));
	ring_add(&p.ring[queue], &s, 1, false);
	pci_kick(&p, queue);
	return ring_used(&p.ring[queue], &id, &bytes);
}

static bool serial_reads(unsigned queue, const char *text)
{
	u64 page = guest_alloc(&g, 4096);
	struct segment s = { page, 4096, true };
	u16 id;
	u32 bytes;

	ring_add(&p.ring[queue], &s, 1, false);
	pci_kick(&p, queue);
	return pci_wait(&p, queue, &id, &bytes) && bytes == strlen(text) &&
	       !memcmp(guest_ptr(&g, page), text, bytes);
}

static void test_serial(void)
{
	struct device *console, *channel;

	if (!tap_ok(plug("virtio-serial-pci,packed=on,max_ports=3"), "virtio-serial-pci"))
		return;
	tap_ok(chardev_add(&g.m, "test,id=c0", &err) && chardev_add(&g.m, "test,id=c1", &err),
	       "two chardevs");
	tap_ok((console = device_add(&g.m, "virtconsole,chardev=c0", &err)) &&
		       (channel =
				device_add(&g.m, "virtserialport,chardev=c1,name=org.trine", &err)),
	       "a console and a channel");
	tap_ok(!device_add(&g.m, "virtserialport,nr=0", &err) &&
		       !device_add(&g.m, "virtserialport,nr=1", &err) &&
		       !device_add(&g.m, "virtserialport,nr=3", &err) &&
		       !device_add(&g.m, "virtconsole,chardev=nowhere", &err),
	       "ports that cannot be are refused");
	tap_ok(pci_init(&p, PCI_LEGACY, 1ull << VIRTIO_CONSOLE_F_MULTIPORT) &&
		       serial_write(1, "old") && written_bytes == 3 && !memcmp(written, "old", 3),
	       "serial: a driver without ports has a console");

	pci_init(&p, PCI_MODERN, 0);
	tap_ok(chardev_room(ends[0]) == 0, "serial: nobody reads yet, so nothing is taken");
	serial_give(2, 32);
	serial_tell(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	tap_ok(serial_said(0, VIRTIO_CONSOLE_PORT_ADD, NULL) &&
		       serial_said(1, VIRTIO_CONSOLE_PORT_ADD, NULL) &&
		       !serial_said(2, VIRTIO_CONSOLE_PORT_ADD, NULL),
	       "serial: ports are announced");
	serial_tell(0, VIRTIO_CONSOLE_PORT_READY, 1);
	serial_tell(1, VIRTIO_CONSOLE_PORT_READY, 1);
	tap_ok(serial_said(0, VIRTIO_CONSOLE_CONSOLE_PORT, NULL) &&
		       !serial_said(1, VIRTIO_CONSOLE_CONSOLE_PORT, NULL),
	       "serial: the console is told as one");
	tap_ok(serial_said(1, VIRTIO_CONSOLE_PORT_NAME, "org.trine"),
	       "serial: the channel has its name");
	tap_ok(serial_said(1, VIRTIO_CONSOLE_PORT_OPEN, NULL), "serial: somebody is there");
	serial_port_resize(container_of(console, struct serial_port, dev), 80, 25);
	tap_ok(serial_said(0, VIRTIO_CONSOLE_RESIZE, "P"), "serial: a new size is told");
	serial_tell(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	serial_tell(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	written_bytes = 0;
	tap_ok(serial_write(5, "hello, host") && written_bytes == 11 &&
		       !memcmp(written, "hello, host", 11),
	       "serial: a channel writes");
	written_bytes = 0;
	appetite = 4;
	tap_ok(!serial_write(5, "piecemeal") && written_bytes == 4,
	       "serial: a slow reader holds the buffer");
	appetite = 1000;
	chardev_can_write(ends[1]);
	tap_ok(written_bytes == 9 && !memcmp(written, "piecemeal", 9), "serial: and gets the rest");
	chardev_input(ends[1], (const u8 *)"hello, guest", 12);
	tap_ok(serial_reads(4, "hello, guest"), "serial: input waits for a buffer and comes");
	chardev_send_event(ends[1], CHARDEV_CLOSED);
	serial_tell(77, VIRTIO_CONSOLE_PORT_OPEN, 1);
	serial_tell(1, 999, 1);
	tap_ok(!(pci_status(&p) & VIRTIO_CONFIG_S_NEEDS_RESET),
	       "serial: messages about nothing are survived");
	pci_set_status(&p, 0);
	tap_ok(chardev_room(ends[1]) == 0, "serial: after a reset nobody reads");
	device_remove(channel);
	device_remove(console);
	unplug();
}

int main(void)
{
	tap_begin();
	guest_init(&g);
	g.m.config.cpus = 2;
	for (unsigned i = 0; i < ARRAY_SIZE(identities); i++)
		tap_ok(try_identity(i), "%s is what it should be", identities[i].text);
	if (tap_ok(plug("virtio-rng-pci,packed=on"), "virtio-rng-pci")) {
		tap_ok(refuse_unoffered(), "features that were not offered are refused");
		tap_ok(refuse_without_version_1(), "a modern driver without VERSION_1 is refused");
		tap_ok(fixed_after_features_ok(), "features are fixed by FEATURES_OK");
		tap_ok(no_such_vector(), "a vector that does not exist reads as none");
		tap_ok(no_such_queue(), "a queue that does not exist is empty");
		tap_ok(through_the_window(), "the window in configuration space");
		tap_ok(isr_clears(), "INTx is raised, and lowered by reading the ISR");
		for (enum pci_mode mode = PCI_MODERN; mode <= PCI_LEGACY; mode++) {
			tap_ok(rng_gives(mode, false), "rng, %s: random bytes", mode_names[mode]);
			tap_ok(rng_gives(mode, true), "rng, %s: random bytes by an indirect table",
			       mode_names[mode]);
		}
		unplug();
	}
	test_blk();
	test_net();
	test_balloon();
	test_serial();
	machine_unlock(&g.m);
	return tap_end();
}
