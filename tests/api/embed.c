/* The embedding API, and its example program (given as the argument). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrine/embed.h"
#include "tests/tap.h"

struct machine {
	uint64_t mmio_addr;
	uint32_t mmio_value;
	uint16_t port;
	uint32_t port_value;
	int halts, leaves, runs, windows, debugs, pushed;
	struct kvm_context *kvm;
};

static int on_cpuid(void *opaque, uint32_t function, uint32_t index, uint32_t regs[4])
{
	((struct machine *)opaque)->leaves++;
	(void)index, (void)regs;
	return function == 0x80000008;
}

static int on_outl(void *opaque, uint16_t port, uint32_t data)
{
	struct machine *m = opaque;

	m->port = port;
	m->port_value = data;
	return 0;
}

static int on_inw(void *opaque, uint16_t port, uint16_t *data)
{
	(void)opaque;
	*data = port + 1;
	return 0;
}

static int on_writel(void *opaque, uint64_t addr, uint32_t data)
{
	struct machine *m = opaque;

	m->mmio_addr = addr;
	m->mmio_value = data;
	return 0;
}

static int on_halt(void *opaque, int vcpu)
{
	struct machine *m = opaque;

	(void)vcpu;
	return ++m->halts == 2 ? 7 : 0;
}

static int on_pre_run(void *opaque, int vcpu)
{
	((struct machine *)opaque)->runs++;
	(void)vcpu;
	return 0;
}

static int on_debug(void *opaque, int vcpu)
{
	(void)vcpu;
	return ++((struct machine *)opaque)->debugs == 3 ? 9 : 0;
}

static int on_push(void *opaque)
{
	struct machine *m = opaque;

	if (m->pushed != 1)
		return 0;
	if (!kvm_can_inject(m->kvm, 0))
		return 1;
	m->pushed = 2;
	return kvm_inject_irq(m->kvm, 0, 0x30) ? 1 : 0;
}

static int on_window(void *opaque)
{
	((struct machine *)opaque)->windows++;
	return 0;
}

static const uint8_t code[] = {
	0x66, 0xb8, 0x78, 0x56, 0x34, 0x12,	/* mov eax, 0x12345678 */
	0xba, 0x00, 0x05, 0x66, 0xef,		/* mov dx, 0x500; out dx, eax */
	0xed,					/* in ax, dx */
	0xb9, 0xff, 0xff, 0x8e, 0xd9,		/* mov cx, 0xffff; mov ds, cx */
	0x66, 0xa3, 0x10, 0x00,			/* mov [0x10], eax: at 0x100000 */
	0xf4, 0xf4,				/* hlt; hlt */
	0x90, 0x90, 0x90, 0x90,			/* nop ... */
	0xfb, 0xeb, 0xfe,			/* sti; jmp . */
};

static void example(const char *path)
{
	char command[4096], out[256] = "";
	FILE *f;
	size_t n;

	snprintf(command, sizeof(command), "%s 2>/dev/null", path);
	f = popen(command, "r");
	n = f ? fread(out, 1, sizeof(out) - 1, f) : 0;
	out[n] = 0;
	tap_ok(f && !pclose(f), "the example ends with status 0");
	tap_ok(!strcmp(out, "hello from the guest: 1+2+3=6\n"), "and prints what its guest says");
}

static void loading(struct kvm_context *kvm, char *mem)
{
	char name[] = "/tmp/trine-embed-XXXXXX", text[100];
	int fd = mkstemp(name);

	memset(text, 'x', sizeof(text));
	if (fd < 0 || write(fd, text, sizeof(text)) != sizeof(text))
		return;
	close(fd);
	tap_ok(load_file(mem + 0x5000, name) == 100 && mem[0x5063] == 'x' && !mem[0x5064], "load_file loads a file");
	tap_ok(load_file(mem + 0x100000 - 100, name) == 100, "it may reach to the end of memory");
	tap_ok(load_file(mem + 0x100000 - 99, name) == -EFBIG, "but not beyond");
	tap_ok(load_file(text, name) == -EFBIG, "nor into other memory");
	tap_ok(load_file(mem, "/nowhere/at/all") == -ENOENT, "a file that is not there is -ENOENT");
	unlink(name);
	(void)kvm;
}

int main(int argc, char **argv)
{
	struct kvm_callbacks callbacks = { .cpuid = on_cpuid, .outl = on_outl, .inw = on_inw, .writel = on_writel, .halt = on_halt,
					   .debug = on_debug, .pre_kvm_run = on_pre_run, .try_push_interrupts = on_push,
					   .io_window = on_window };
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	struct machine m = { 0 };
	struct kvm_regs regs;
	void *mem = NULL;

	tap_begin();
	if (argc > 1)
		example(argv[1]);
	m.kvm = kvm_init(&callbacks, &m);
	if (!tap_ok(m.kvm, "kvm_init"))
		return tap_end();
	tap_ok(kvm_run(m.kvm, 0) == -EINVAL, "without a VM nothing runs");
	tap_ok(kvm_create(m.kvm, 4097, &mem) == -EINVAL, "memory that is no page's multiple is refused");
	tap_ok(!kvm_create(m.kvm, 1 << 20, &mem) && mem, "kvm_create");
	tap_ok(kvm_create(m.kvm, 1 << 20, &mem) == -EEXIST, "a second VM is refused");
	tap_ok(m.leaves > 5, "the callback saw %d CPUID leaves", m.leaves);
	loading(m.kvm, mem);
	memcpy((char *)mem + 0xf0000, code, sizeof(code));
	memcpy((char *)mem + 0xffff0, "\xea\x00\x00\x00\xf0", 5);
	tap_ok(kvm_run(m.kvm, 0) == 7, "kvm_run returns what the callback said");
	tap_ok(m.port == 0x500 && m.port_value == 0x12345678, "outl saw a port and a value");
	tap_ok(m.mmio_addr == 0x100000 && m.mmio_value == 0x12340501, "writel saw the address beyond memory, and inw's answer");
	tap_ok(m.halts == 2 && m.runs >= 5, "it ran until the second halt");
	tap_ok(!kvm_get_regs(m.kvm, 0, &regs) && regs.rip == 23, "RIP is behind it");
	tap_ok(!kvm_guest_debug(m.kvm, 0, &debug) && kvm_run(m.kvm, 0) == 9, "single steps stop by the debug callback");
	kvm_get_regs(m.kvm, 0, &regs);
	tap_ok(regs.rip == 26, "after three instructions");
	debug.control = 0;
	kvm_guest_debug(m.kvm, 0, &debug);
	/* Interrupt 0x30 goes to a HLT; it is held back until STI has made a window. */
	memcpy((char *)mem + 0x30 * 4, "\x15\x00\x00\xf0", 4);
	m.pushed = 1;
	m.halts = 1;
	tap_ok(kvm_run(m.kvm, 0) == 7 && m.windows && m.pushed == 2, "an interrupt is pushed when its window opens");
	tap_ok(!kvm_create_vcpu(m.kvm, 1) && kvm_create_vcpu(m.kvm, 1) == -EEXIST && kvm_create_vcpu(m.kvm, 16) == -EINVAL, "more vCPUs");
	kvm_finalize(m.kvm);
	return tap_end();
}
