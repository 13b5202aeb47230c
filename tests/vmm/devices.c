/*
 * The ISA devices as a driver sees them: RTC, PM registers, PS/2 controller, fw_cfg, debug exit,
 * reset ports.
 */
#include "tests/vmm/bare.h"
#include "vmm/dev/fw_cfg.h"
#include "vmm/dev/i8042.h"
#include "vmm/machine/pc.h"
#include <linux/kvm.h>

/* --- RTC --- */

static u8 rtc(u8 index)
{
	outb(0x70, index);
	return inb(0x71);
}

static void rtc_set(u8 index, u8 v)
{
	outb(0x70, index);
	outb(0x71, v);
}

static bool rtc_pending(void)
{
	return bare.irq.level[8];
}

static void test_rtc_time(void)
{
	tap_ok(rtc(0x0d) == 0x80, "rtc: the battery is good");
	tap_ok((rtc(0x0a) & 0x7f) == 0x26, "rtc: the divider runs");
	rtc_set(0x0b, 0x82);
	rtc_set(0x00, 0x58), rtc_set(0x02, 0x59), rtc_set(0x04, 0x23);
	rtc_set(0x07, 0x29), rtc_set(0x08, 0x02), rtc_set(0x09, 0x24), rtc_set(0x32, 0x20);
	tap_ok(rtc(0x00) == 0x58 && rtc(0x04) == 0x23 && rtc(0x09) == 0x24,
	       "rtc: a time is set while SET holds");
	tap_ok(!(rtc(0x0a) & 0x80), "rtc: no update is announced while SET holds");
	rtc_set(0x0b, 0x86);
	tap_ok(rtc(0x02) == 0x59,
	       "rtc: changing the format does not change the bytes while SET holds");
	rtc_set(0x02, 59), rtc_set(0x00, 58), rtc_set(0x04, 23), rtc_set(0x07, 29),
		rtc_set(0x08, 2), rtc_set(0x09, 24);
	rtc_set(0x32, 20);
	rtc_set(0x0b, 0x06);
	tap_ok(rtc(0x02) == 59 && rtc(0x04) == 23 && rtc(0x07) == 29 && rtc(0x32) == 20,
	       "rtc: binary format");
	rtc_set(0x0b, 0x00);
	tap_ok(rtc(0x04) == 0x91, "rtc: 11 p.m. in 12-hour BCD");
	rtc_set(0x0b, 0x02);
	tap_ok(rtc(0x04) == 0x23 && rtc(0x08) == 0x02 && rtc(0x06) == 0x05,
	       "rtc: the weekday of 29 February 2024 is Thursday");
}

static void test_rtc_interrupts(void)
{
	rtc(0x0c);
	rtc_set(0x0b, 0x42);
	tap_ok(settle_until(rtc_pending), "rtc: the periodic interrupt arrives");
	tap_ok((rtc(0x0c) & 0xc0) == 0xc0 && !rtc_pending(),
	       "rtc: register C says so, and reading it ends it");
	tap_ok(settle_until(rtc_pending), "rtc: and comes again");
	rtc_set(0x0b, 0x12);
	rtc(0x0c);
	tap_ok(settle_until(rtc_pending) && (rtc(0x0c) & 0x90) == 0x90,
	       "rtc: the update-ended interrupt arrives");
	rtc_set(0x01, 0xff), rtc_set(0x03, 0xff), rtc_set(0x05, 0xff);
	rtc_set(0x0b, 0x22);
	rtc(0x0c);
	tap_ok(settle_until(rtc_pending) && rtc(0x0c) & 0x20,
	       "rtc: an alarm for every second arrives");
	rtc_set(0x0b, 0x02);
	rtc(0x0c);
	rtc_set(0x38, 0x5a);
	tap_ok(rtc(0x38) == 0x5a, "rtc: CMOS memory keeps a byte");
	outb(0x70, 0xff);
	tap_ok(inb(0x71) == rtc(0x7f), "rtc: bit 7 of the index is not part of it");
	tap_ok(rtc(0x15) == 0x80 && rtc(0x16) == 0x02 && rtc(0x30) == 0x00 && rtc(0x31) == 0x3c,
	       "rtc: the memory sizes of 16 MiB");
}

/* --- power management --- */

static void test_pm(void)
{
	u32 t1, t2;
	s64 start;

	t1 = inl(0x608);
	start = now_ns();
	while (now_ns() < start + 2000000)
		;
	t2 = inl(0x608);
	tap_ok(t2 != t1 && t2 - t1 >= 7159, "pm: the timer counts at least 3.579545 MHz for 2 ms");
	t1 = inl(0x608);
	t2 = port_in(0x60a, 2);
	tap_ok((u16)(t2 - (t1 >> 16)) <= 1, "pm: its upper half can be read alone");
	tap_ok(port_in(0x604, 2) == 1, "pm: ACPI mode is on");
	machine_lock(&bare);
	pc_power_button(&bare);
	machine_unlock(&bare);
	tap_ok(port_in(0x600, 2) == 0x100 && !bare.irq.level[9],
	       "pm: the power button sets its status");
	outw(0x602, 0x100);
	tap_ok(bare.irq.level[9], "pm: enabled, it interrupts");
	outw(0x600, 0x100);
	tap_ok(!bare.irq.level[9] && port_in(0x600, 2) == 0, "pm: writing 1 clears it");
	outw(0x602, 0xffff);
	tap_ok(port_in(0x602, 2) == 0x521, "pm: only the enables that exist can be set");
	outl(0x628, 0xffffffff);
	tap_ok(inl(0x628) == 0xffffffff && inl(0x620) == 0,
	       "pm: general-purpose enables, no events");
	outw(0x604, 0x1c00);
	settle();
	tap_ok(!bare.shutdown_wanted && !bare.loop.quit,
	       "pm: a sleep type without the enable bit does nothing");
	outw(0x604, 0x2000 | 5 << 10);
	settle();
	tap_ok(!bare.loop.quit, "pm: a sleep state that does not exist does nothing");
	outw(0x604, 0x2000);
	settle();
	tap_ok(bare.loop.quit && bare.exit_status == 0, "pm: S5 switches off");
	tap_ok(port_in(0x604, 2) == 1, "pm: the enable bit reads as 0");
	bare.loop.quit = false;
}

/* --- PS/2 --- */

static u8 kbd_data(void)
{
	return inb(0x60);
}

static bool kbd_full(void)
{
	return inb(0x64) & 1;
}

static u8 kbd_command(u8 c)
{
	outb(0x64, c);
	return kbd_full() ? kbd_data() : 0;
}

static void kbd_drain(void)
{
	int i;

	for (i = 0; i < 64 && kbd_full(); i++)
		kbd_data();
}

/* An accelerator that counts the edges of each line. */
static unsigned int edges[16];

static int count_edges(int fd, unsigned long request, unsigned long argument)
{
	const struct kvm_irq_level *line = (const struct kvm_irq_level *)argument;

	if (request == KVM_IRQ_LINE && line->level && line->irq < ARRAY_SIZE(edges))
		edges[line->irq]++;
	return 0;
}

/* The lines are edges to both interrupt controllers: what a driver reads byte by byte interrupts for each. */
static void test_i8042_edges(void)
{
	static const struct accel counter = { .name = "counter", .ioctl = count_edges };
	const struct accel *before = bare.accel;

	kbd_drain();
	bare.accel = &counter;
	outb(0x60, 0xf2);
	tap_ok(edges[1] == 1, "i8042: the first byte of an answer interrupts");
	kbd_data();
	tap_ok(edges[1] == 2, "i8042: so does the second");
	kbd_data();
	tap_ok(edges[1] == 3, "i8042: and the third");
	kbd_data();
	tap_ok(edges[1] == 3 && !kbd_full(), "i8042: then there is quiet");
	outb(0x64, 0xd4), outb(0x60, 0xff), kbd_drain();
	tap_ok(edges[12] == 3 && edges[1] == 3, "i8042: three bytes of the mouse are three interrupts of its own");
	outb(0x64, 0xd4), outb(0x60, 0xf2), outb(0x60, 0xee), kbd_drain();
	tap_ok(edges[12] == 5 && edges[1] == 4, "i8042: each byte of both on the line it belongs to");
	bare.accel = before;
}

static void test_i8042(void)
{
	kbd_drain();
	tap_ok(kbd_command(0xaa) == 0x55, "i8042: the self-test passes");
	tap_ok(kbd_command(0xab) == 0 && kbd_command(0xa9) == 0, "i8042: both interfaces are well");
	tap_ok(kbd_command(0x20) == 0x47, "i8042: the mode after reset");
	outb(0x64, 0x60), outb(0x60, 0x77);
	tap_ok(kbd_command(0x20) == 0x77, "i8042: the mode can be written");
	outb(0x64, 0x60), outb(0x60, 0x47);
	outb(0x60, 0xf2);
	tap_ok(kbd_data() == 0xfa && kbd_data() == 0xab && kbd_data() == 0x41,
	       "i8042: the keyboard identifies itself, translated");
	outb(0x60, 0xff);
	tap_ok(kbd_data() == 0xfa && kbd_data() == 0xaa && !kbd_full(),
	       "i8042: the keyboard resets");
	outb(0x60, 0xed);
	tap_ok(kbd_data() == 0xfa, "i8042: LEDs are a command ...");
	outb(0x60, 0x02);
	tap_ok(kbd_data() == 0xfa, "i8042: ... with a parameter");
	outb(0x60, 0xf0), kbd_data(), outb(0x60, 0x00);
	tap_ok(kbd_data() == 0xfa && kbd_data() == 2, "i8042: scan code set 2");
	outb(0x64, 0xd4), outb(0x60, 0xf2);
	tap_ok((inb(0x64) & 0x21) == 0x21, "i8042: what the mouse says is marked");
	tap_ok(kbd_data() == 0xfa && kbd_data() == 0, "i8042: a plain mouse");
	outb(0x64, 0xd4), outb(0x60, 0xff);
	tap_ok(kbd_data() == 0xfa && kbd_data() == 0xaa && kbd_data() == 0,
	       "i8042: the mouse resets");
	outb(0x64, 0xd3), outb(0x60, 0x5a);
	tap_ok((inb(0x64) & 0x21) == 0x21 && kbd_data() == 0x5a,
	       "i8042: the auxiliary loop answers");
	tap_ok(!bare.irq.level[1] && !bare.irq.level[12],
	       "i8042: no line is up when nothing is there");
	machine_lock(&bare);
	i8042_key(&bare, 0x1e, false, true);
	i8042_key(&bare, 0x48, true, false);
	machine_unlock(&bare);
	tap_ok(bare.irq.level[1], "i8042: a key interrupts");
	tap_ok(kbd_data() == 0x1e && kbd_data() == 0xe0 && kbd_data() == 0xc8 && !bare.irq.level[1],
	       "i8042: scan codes of set 1");
	outb(0x64, 0xd4), outb(0x60, 0xf4), kbd_drain();
	machine_lock(&bare);
	i8042_mouse(&bare, 5, -3, 1);
	machine_unlock(&bare);
	tap_ok(bare.irq.level[12] && kbd_data() == 0x29 && kbd_data() == 5 && kbd_data() == 0xfd,
	       "i8042: the mouse moves");
	outb(0x64, 0xfe);
	tap_ok(bare.reset_wanted, "i8042: the pulse on output 0 resets");
	bare.reset_wanted = false;
}

/* --- fw_cfg --- */

static u32 be32(const u8 *p)
{
	return (u32)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

static void fw_select(u16 key)
{
	outw(0x510, key);
}

static void fw_read(void *p, unsigned n)
{
	u8 *to = p;

	while (n--)
		*to++ = inb(0x511);
}

static void dma(u32 control, u32 length, u64 address)
{
	u8 d[16];
	int i;

	for (i = 0; i < 4; i++)
		d[i] = control >> (24 - 8 * i), d[4 + i] = length >> (24 - 8 * i);
	for (i = 0; i < 8; i++)
		d[8 + i] = address >> (56 - 8 * i);
	memory_write(&bare, 0x3000, d, sizeof(d));
	outl(0x514, 0);
	outl(0x518, __builtin_bswap32(0x3000));
}

static u32 dma_result(void)
{
	u8 d[4];

	memory_read(&bare, 0x3000, d, 4);
	return be32(d);
}

static void test_fw_cfg(void)
{
	u8 buffer[64];
	u16 key = 0;
	u32 count, i;

	tap_ok(fw_cfg_add_file(&bare, "opt/test/greeting", "hello", 5) == 0,
	       "fw_cfg: a file is added");
	tap_ok(fw_cfg_add_file(&bare, "opt/test/greeting", "again", 5) == -EEXIST,
	       "fw_cfg: not twice");
	tap_ok(fw_cfg_add_file(&bare, "opt/a-name-that-is-longer-than-the-directory-has-room-for",
			       "", 0) == -ENAMETOOLONG,
	       "fw_cfg: nor with a name that does not fit");
	fw_select(0);
	fw_read(buffer, 6);
	tap_ok(!memcmp(buffer, "QEMU\0\0", 6), "fw_cfg: the signature, and zeroes behind it");
	fw_select(1);
	fw_read(buffer, 4);
	tap_ok(buffer[0] == 3, "fw_cfg: ports and DMA");
	fw_select(0x19);
	fw_read(buffer, 4);
	count = be32(buffer);
	for (i = 0; i < count && i < 96; i++) {
		fw_read(buffer, 64);
		if (!strcmp((char *)buffer + 8, "opt/test/greeting") && be32(buffer) == 5)
			key = buffer[4] << 8 | buffer[5];
	}
	tap_ok(key >= 0x20, "fw_cfg: the directory lists the file");
	fw_select(key);
	fw_read(buffer, 5);
	tap_ok(!memcmp(buffer, "hello", 5), "fw_cfg: which reads");
	tap_ok(inl(0x514) == __builtin_bswap32(0x51454d55) &&
		       inl(0x518) == __builtin_bswap32(0x20434647),
	       "fw_cfg: the DMA register has its signature");
	dma(key << 16 | 8 | 2, 8, 0x4000);
	memory_read(&bare, 0x4000, buffer, 8);
	tap_ok(dma_result() == 0 && !memcmp(buffer, "hello\0\0\0", 8),
	       "fw_cfg: DMA reads, and zeroes behind the end");
	dma(key << 16 | 8 | 4, 3, 0);
	dma(2, 2, 0x4000);
	memory_read(&bare, 0x4000, buffer, 2);
	tap_ok(!memcmp(buffer, "lo", 2), "fw_cfg: DMA skips");
	dma(key << 16 | 8 | 2, 5, PC_ECAM_BASE);
	tap_ok(dma_result() == 1, "fw_cfg: DMA into device registers is an error");
	dma(key << 16 | 8 | 2, 0xffffffff, 15 * MiB);
	tap_ok(dma_result() == 1, "fw_cfg: and past the end of memory");
	dma(key << 16 | 8 | 16, 5, 0x4000);
	tap_ok(dma_result() == 1, "fw_cfg: the guest cannot write items");
	fw_select(0x7fff);
	tap_ok(inb(0x511) == 0, "fw_cfg: an item that is not there is empty");
}

/* --- resets and exits --- */

static bool reset_asked(void)
{
	bool asked = bare.reset_wanted;

	bare.reset_wanted = false;
	return asked;
}

static void test_ports(void)
{
	struct error err = { "" };

	outb(0xcf9, 0x02);
	tap_ok(!reset_asked() && inb(0xcf9) == 2, "reset: choosing how does not reset");
	outb(0xcf9, 0x06);
	tap_ok(reset_asked(), "reset: 0xcf9");
	outb(0x92, 0x02);
	tap_ok(!reset_asked() && inb(0x92) == 2, "reset: A20 at port 0x92 does not");
	outb(0x92, 0x03);
	tap_ok(reset_asked(), "reset: bit 0 of port 0x92 does");
	tap_ok(bare_device("isa-debug-exit,iobase=0x501,iosize=2", &err),
	       "debug-exit: can be added %s", err.text);
	tap_ok(!bare_device("isa-debug-exit,iobase=0x501", &err) && strstr(err.text, "0x501"),
	       "debug-exit: not twice: %s", err.text);
	tap_ok(!bare_device("isa-debug-exit,iobase=0xffff,iosize=4", &err),
	       "debug-exit: not beyond the ports: %s", err.text);
	tap_ok(!bare_device("isa-debugcon", &err) && strstr(err.text, "chardev"),
	       "debugcon: wants a chardev: %s", err.text);
	outb(0x501, 0x10);
	settle();
	tap_ok(bare.loop.quit && bare.exit_status == 0x21, "debug-exit: 0x10 is status 0x21");
}

int main(void)
{
	tap_begin();
	bare_start(16 * MiB);
	test_rtc_time();
	test_rtc_interrupts();
	test_pm();
	test_i8042();
	test_i8042_edges();
	test_fw_cfg();
	test_ports();
	bare_stop();
	return tap_end();
}
