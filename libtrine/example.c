/*
 * The embedding API at work: a machine whose only device is a character port, and a real-mode guest that greets through
 * it, adds up what port 0x10 gives, shows the sum and halts.
 *
 *	trine-example               the guest built in
 *	trine-example bios.bin      a firmware of up to 64 KiB, loaded at 0xF0000, started at F000:FFF0
 */
#include <stdio.h>
#include <string.h>

#include "libtrine/embed.h"

#define MEMORY	 (16UL << 20)
#define FIRMWARE 0xf0000

/* Assembled by hand, 16-bit, at F000:0000. */
static const unsigned char guest[] = {
	0x8c, 0xc8,		/* mov ax, cs */
	0x8e, 0xd8,		/* mov ds, ax */
	0xbe, 0x28, 0x00,	/* mov si, message */
	0xfc,			/* cld */
	0xac,			/* next: lodsb */
	0x84, 0xc0,		/* test al, al */
	0x74, 0x04,		/* jz sum */
	0xe6, 0xe9,		/* out 0xe9, al */
	0xeb, 0xf7,		/* jmp next */
	0x31, 0xdb,		/* sum: xor bx, bx */
	0xb9, 0x03, 0x00,	/* mov cx, 3 */
	0xe4, 0x10,		/* again: in al, 0x10 */
	0x00, 0xc3,		/* add bl, al */
	0xe2, 0xfa,		/* loop again */
	0x88, 0xd8,		/* mov al, bl */
	0x04, 0x30,		/* add al, '0' */
	0xe6, 0xe9,		/* out 0xe9, al */
	0xb0, 0x0a,		/* mov al, '\n' */
	0xe6, 0xe9,		/* out 0xe9, al */
	0xf4,			/* hlt */
	0x90,			/* nop */
	'h', 'e', 'l', 'l', 'o', ' ', 'f', 'r', 'o', 'm', ' ', 't', 'h', 'e', ' ', 'g', 'u', 'e', 's', 't', ':', ' ', '1', '+',
	'2', '+', '3', '=', 0,
};
static const unsigned char entry[] = { 0xea, 0x00, 0x00, 0x00, 0xf0 }; /* jmp F000:0000 */

struct machine {
	unsigned char next; /* what port 0x10 gives */
};

static int machine_inb(void *opaque, uint16_t port, uint8_t *data)
{
	struct machine *m = opaque;

	if (port == 0x10)
		*data = ++m->next;
	return 0;
}

static int machine_outb(void *opaque, uint16_t port, uint8_t data)
{
	(void)opaque;
	if (port == 0xe9)
		putchar(data);
	return 0;
}

static int machine_halt(void *opaque, int vcpu)
{
	(void)opaque, (void)vcpu;
	return 1;
}

static struct kvm_callbacks callbacks = {
	.inb = machine_inb,
	.outb = machine_outb,
	.halt = machine_halt,
};

static int load(char *vm_mem, const char *path)
{
	long n;

	if (!path) {
		memcpy(vm_mem + FIRMWARE, guest, sizeof(guest));
		memcpy(vm_mem + FIRMWARE + 0xfff0, entry, sizeof(entry));
		return 0;
	}
	n = load_file(vm_mem + FIRMWARE, path);
	if (n < 0)
		fprintf(stderr, "trine-example: %s: %s\n", path, strerror((int)-n));
	return n < 0;
}

int main(int argc, char **argv)
{
	struct machine machine = { 0 };
	struct kvm_context *kvm = kvm_init(&callbacks, &machine);
	void *vm_mem;
	int r;

	if (!kvm) {
		fprintf(stderr, "trine-example: no memory for a context\n");
		return 1;
	}
	r = kvm_create(kvm, MEMORY, &vm_mem);
	if (r) {
		fprintf(stderr, "trine-example: no VM with %lu bytes: %s\n", MEMORY, strerror(-r));
		kvm_finalize(kvm);
		return 1;
	}
	if (load(vm_mem, argc > 1 ? argv[1] : NULL)) {
		kvm_finalize(kvm);
		return 1;
	}
	r = kvm_run(kvm, 0);
	fflush(stdout);
	if (r < 0)
		fprintf(stderr, "trine-example: the guest stopped: %s\n", strerror(-r));
	kvm_show_regs(kvm, 0);
	kvm_finalize(kvm);
	return r != 1;
}
