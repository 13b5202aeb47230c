/* The 16550A as drivers probe and use it, with a back end of our own at the other end. */
#include "tests/vmm/bare.h"
#include "vmm/chardev.h"

#define COM1 0x3f8

/*
 * A back end that remembers what it got, takes as much as the test allows, and sends what the test
 * wants.
 */
struct line {
	struct chardev chr;
	u8 got[256];
	unsigned count, limit;
};

static struct line *line;

static int line_open(struct chardev *chr, struct opts *o, struct error *err)
{
	line = container_of(chr, struct line, chr);
	line->limit = sizeof(line->got);
	chr->opened = true;
	return 0;
}

static void line_close(struct chardev *chr)
{
}

static size_t line_write(struct chardev *chr, const u8 *bytes, size_t n)
{
	size_t i;

	for (i = 0; i < n && line->count < line->limit; i++)
		line->got[line->count++] = bytes[i];
	return i;
}

static const struct chardev_class line_class = {
	.name = "line",
	.help = "for tests",
	.size = sizeof(struct line),
	.open = line_open,
	.close = line_close,
	.write = line_write,
};

static size_t line_send(const char *text)
{
	size_t n;

	machine_lock(&bare);
	n = MIN(chardev_room(&line->chr), strlen(text));
	chardev_input(&line->chr, (const u8 *)text, n);
	machine_unlock(&bare);
	return n;
}

static bool irq(void)
{
	return bare.irq.level[4];
}

static void test_probe(void)
{
	outb(COM1 + 7, 0x5a);
	tap_ok(inb(COM1 + 7) == 0x5a, "the scratch register keeps a byte");
	outb(COM1 + 1, 0xff);
	tap_ok(inb(COM1 + 1) == 0x0f, "the interrupt enables are four");
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x80);
	outb(COM1, 0x01), outb(COM1 + 1, 0x02);
	tap_ok(inb(COM1) == 1 && inb(COM1 + 1) == 2, "the divisor is behind DLAB");
	outb(COM1 + 3, 0x03);
	tap_ok(inb(COM1 + 1) == 0, "and hidden without");
	outb(COM1 + 2, 0x01);
	tap_ok((inb(COM1 + 2) & 0xc0) == 0xc0, "FIFOs on: a 16550A");
	outb(COM1 + 2, 0x00);
	tap_ok((inb(COM1 + 2) & 0xc0) == 0, "FIFOs off");
	outb(COM1 + 4, 0x1a);
	tap_ok((inb(COM1 + 6) & 0xf0) == 0x90, "loopback: RTS and OUT2 come back as CTS and DCD");
	outb(COM1 + 4, 0x15);
	tap_ok((inb(COM1 + 6) & 0xf0) == 0x60, "loopback: DTR and OUT1 come back as DSR and RI");
	outb(COM1 + 4, 0x10);
	tap_ok(inb(COM1 + 6) == 0x06, "their change is noted, of RI its fall");
	outb(COM1, 0x42);
	tap_ok(inb(COM1 + 5) & 1 && inb(COM1) == 0x42 && !line->count,
	       "loopback: a byte comes back and does not leave");
	outb(COM1 + 4, 0x0b);
	tap_ok((inb(COM1 + 6) & 0xf0) == 0xb0, "outside of loopback the other side is ready");
}

static void test_transmit(void)
{
	inb(COM1 + 2);
	outb(COM1, 'a');
	tap_ok(line->count == 1 && line->got[0] == 'a', "a byte leaves at once");
	tap_ok((inb(COM1 + 5) & 0x60) == 0x60, "the transmitter is empty again");
	outb(COM1 + 1, 2);
	tap_ok(irq() && (inb(COM1 + 2) & 15) == 2, "its interrupt comes when it is switched on");
	tap_ok(!irq() && (inb(COM1 + 2) & 15) == 1, "and ends when it has been read of");
	outb(COM1, 'b');
	tap_ok(irq(), "sending raises it anew");
	outb(COM1 + 1, 0);
	tap_ok(!irq(), "disabled, it is gone");
	line->limit = line->count;
	outb(COM1, 'c');
	tap_ok((inb(COM1 + 5) & 0x60) == 0, "a full back end keeps the transmitter busy");
	line->limit = sizeof(line->got);
	machine_lock(&bare);
	chardev_can_write(&line->chr);
	machine_unlock(&bare);
	tap_ok((inb(COM1 + 5) & 0x60) == 0x60 && line->got[line->count - 1] == 'c',
	       "until there is room");
}

static void test_receive(void)
{
	outb(COM1 + 4, 0), outb(COM1 + 1, 0);
	tap_ok(line_send("x") == 0, "before the guest is ready nothing is received");
	outb(COM1 + 4, 0x0b), outb(COM1 + 1, 1);
	tap_ok(line_send("xyz") == 1 && irq(), "without FIFO one byte fits");
	tap_ok(inb(COM1 + 5) & 1 && (inb(COM1 + 2) & 15) == 4 && inb(COM1) == 'x' && !irq(),
	       "and is read");
	outb(COM1 + 2, 0x81);
	tap_ok(line_send("0123456789abcdefXX") == 16, "with FIFO sixteen");
	tap_ok((inb(COM1 + 2) & 15) == 4, "above the trigger level: data");
	for (unsigned i = 0; i < 9; i++)
		inb(COM1);
	tap_ok((inb(COM1 + 2) & 15) == 12 && irq(), "below it: the time-out");
	for (unsigned i = 9; i < 15; i++)
		inb(COM1);
	tap_ok(inb(COM1) == 'f' && !(inb(COM1 + 5) & 1) && !irq(), "the last byte");
	line_send("q");
	outb(COM1 + 2, 0x83);
	tap_ok(!(inb(COM1 + 5) & 1), "clearing the FIFO throws away what is in it");
	outb(COM1 + 1, 5);
	machine_lock(&bare);
	chardev_send_event(&line->chr, CHARDEV_BREAK);
	machine_unlock(&bare);
	tap_ok((inb(COM1 + 2) & 15) == 6 && inb(COM1 + 5) & 0x10 && inb(COM1) == 0,
	       "a break is a line status interrupt");
	outb(COM1 + 1, 0), outb(COM1 + 4, 0x08);
	for (unsigned i = 0; i < 100; i++)
		inb(COM1 + 5);
	tap_ok(line_send("p") == 1, "a guest that polls the status is ready too");
}

static void test_places(void)
{
	struct error err = { "" };

	tap_ok(!bare_device("isa-serial,index=0", &err) && strstr(err.text, "0x3f8"),
	       "a port that is taken: %s", err.text);
	tap_ok(!bare_device("isa-serial,chardev=line0", &err) && strstr(err.text, "line0"),
	       "a back end that is taken: %s", err.text);
	tap_ok(!bare_device("isa-serial,iobase=0x5000,irq=99", &err) && strstr(err.text, "99"),
	       "no such interrupt: %s", err.text);
	tap_ok(bare_device("isa-serial", &err) && inb(0x2f8 + 5) == 0x60, "the next is COM2");
	tap_ok(bare_device("isa-serial", &err) && bare_device("isa-serial", &err),
	       "there are four");
	tap_ok(!bare_device("isa-serial", &err), "and not five: %s", err.text);
	/* COM1 and COM3 share a line. */
	outb(0x3e8 + 1, 2);
	outb(COM1 + 4, 0x0b), outb(COM1 + 1, 2);
	inb(COM1 + 2);
	tap_ok(irq(), "a shared line stays up while one of two wants it");
	inb(0x3e8 + 2);
	tap_ok(!irq(), "and falls when none does");
}

int main(void)
{
	struct error err = { "" };

	chardev_register(&line_class);
	tap_begin();
	bare_start(16 * MiB);
	machine_lock(&bare);
	chardev_add(&bare, "line,id=line0", &err);
	machine_unlock(&bare);
	if (!tap_ok(bare_device("isa-serial,chardev=line0", &err), "COM1 %s", err.text))
		return tap_end();
	test_probe();
	test_transmit();
	test_receive();
	test_places();
	bare_stop();
	return tap_end();
}
