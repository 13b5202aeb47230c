/*
 * The smallest machine that boots a Linux kernel on libtrine: bzImage by the 64-bit boot protocol, in-kernel interrupt
 * chips and PIT, the transmitting half of a 16550, the ACPI tables that name the vCPUs. For trying the engine without a monitor.
 *
 *	build/tests/lite-boot build/guest/vmlinuz build/guest/initramfs.cpio [VCPUS [COMMAND LINE]]
 *
 * Ends when the guest writes to port 0xf4 or 0x604, resets, or halts for good; exit status 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libtrine/trine.h"

#define RAM	   (512UL << 20)
#define ZERO_PAGE  0x10000UL
#define CMDLINE	   0x20000UL
#define TABLES	   0x30000UL
#define GDT	   0x38000UL
#define ACPI	   0xe0000UL
#define KERNEL	   0x1000000UL
#define INITRD	   0x8000000UL
#define MAX_VCPUS  8

static uint8_t *ram;
static int vm, vcpus[MAX_VCPUS], nr_vcpus = 1;
static struct kvm_run *runs[MAX_VCPUS];

static void die(const char *what)
{
	fprintf(stderr, "lite-boot: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint8_t *read_whole(const char *path, size_t *size)
{
	struct stat st;
	uint8_t *data;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &st))
		die(path);
	data = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		die(path);
	*size = st.st_size;
	close(fd);
	return data;
}

static uint8_t sum(const uint8_t *p, unsigned n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return -s;
}

static void table(uint8_t *t, const char *signature, unsigned length, unsigned revision)
{
	memcpy(t, signature, 4);
	*(uint32_t *)(t + 4) = length;
	t[8] = revision;
	memcpy(t + 10, "TRINE LITEBOOT", 14);
	t[9] = 0;
	t[9] = sum(t, length);
}

/* ACPI 6.4 chapter 5: RSDP, XSDT, hardware-reduced FADT, an empty DSDT, and the MADT that names the processors. */
static void acpi(void)
{
	uint8_t *rsdp = ram + ACPI, *xsdt = rsdp + 0x100, *fadt = rsdp + 0x200, *dsdt = rsdp + 0x400, *madt = rsdp + 0x500, *e = madt + 44;

	for (int i = 0; i < nr_vcpus; i++, e += 8) {
		e[1] = 8;
		e[2] = e[3] = i;
		e[4] = 1;
	}
	e[0] = 1;
	e[1] = 12;
	*(uint32_t *)(e + 4) = 0xfec00000;
	e += 12;
	e[0] = 2; /* the PIT is on pin 2 */
	e[1] = 10;
	*(uint32_t *)(e + 4) = 2;
	e += 10;
	*(uint32_t *)(madt + 36) = 0xfee00000;
	*(uint32_t *)(madt + 40) = 1;
	table(madt, "APIC", e - madt, 4);
	table(dsdt, "DSDT", 36, 2);
	*(uint32_t *)(fadt + 40) = ACPI + 0x400;
	*(uint64_t *)(fadt + 140) = ACPI + 0x400;
	*(uint32_t *)(fadt + 112) = 1U << 20 | 1U << 4 | 1U << 5;
	table(fadt, "FACP", 276, 6);
	*(uint64_t *)(xsdt + 36) = ACPI + 0x200;
	*(uint64_t *)(xsdt + 44) = ACPI + 0x500;
	table(xsdt, "XSDT", 52, 1);
	memcpy(rsdp, "RSD PTR ", 8);
	rsdp[15] = 2;
	*(uint32_t *)(rsdp + 20) = 36;
	*(uint64_t *)(rsdp + 24) = ACPI + 0x100;
	rsdp[8] = sum(rsdp, 20);
	rsdp[32] = sum(rsdp, 36);
}

static void load(const char *kernel, const char *initrd, const char *cmdline)
{
	size_t size, rdsize = 0;
	uint8_t *image = read_whole(kernel, &size), *zero = ram + ZERO_PAGE;
	unsigned setup = (image[0x1f1] ? image[0x1f1] : 4) * 512 + 512;
	uint64_t *map = (uint64_t *)(ram + TABLES);

	memcpy(zero + 0x1f1, image + 0x1f1, 0x202 + image[0x201] - 0x1f1);
	memcpy(ram + KERNEL, image + setup, size - setup);
	if (initrd) {
		uint8_t *rd = read_whole(initrd, &rdsize);

		memcpy(ram + INITRD, rd, rdsize);
	}
	zero[0x210] = 0xff;
	zero[0x211] |= 1;
	*(uint32_t *)(zero + 0x214) = KERNEL;
	*(uint32_t *)(zero + 0x218) = rdsize ? INITRD : 0;
	*(uint32_t *)(zero + 0x21c) = rdsize;
	*(uint32_t *)(zero + 0x228) = CMDLINE;
	strcpy((char *)ram + CMDLINE, cmdline);
	zero[0x1e8] = 2;
	*(uint64_t *)(zero + 0x2d0) = 0;
	*(uint64_t *)(zero + 0x2d8) = 0x9fc00;
	*(uint32_t *)(zero + 0x2e0) = 1;
	*(uint64_t *)(zero + 0x2e4) = 0x100000;
	*(uint64_t *)(zero + 0x2ec) = RAM - 0x100000;
	*(uint32_t *)(zero + 0x2f4) = 1;
	map[0] = (TABLES + 0x1000) | 3;
	for (int g = 0; g < 4; g++) {
		map[512 + g] = (TABLES + 0x2000 + g * 0x1000) | 3;
		for (int i = 0; i < 512; i++)
			map[1024 + g * 512 + i] = ((uint64_t)g << 30 | (uint64_t)i << 21) | 0x83;
	}
	*(uint64_t *)(ram + GDT + 16) = 0x00af9a000000ffffULL;
	*(uint64_t *)(ram + GDT + 24) = 0x00cf92000000ffffULL;
	*(uint64_t *)(zero + 0x70) = ACPI;
	acpi();
}

static void set_up(int kvm, int i)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	struct kvm_segment data = { .limit = ~0U, .selector = 24, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
	struct kvm_regs regs = { .rip = KERNEL + 0x200, .rsi = ZERO_PAGE, .rflags = 2 };
	struct kvm_sregs s;

	if (trine_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid))
		die("KVM_GET_SUPPORTED_CPUID");
	for (unsigned n = 0; n < cpuid.head.nent; n++) {
		struct kvm_cpuid_entry2 *e = &cpuid.entries[n];

		if (e->function == 1)
			e->ebx = (e->ebx & 0xffff) | (uint32_t)nr_vcpus << 16 | (uint32_t)i << 24;
		if (e->function == 0xb || e->function == 0x1f)
			e->edx = i;
	}
	if (trine_ioctl(vcpus[i], KVM_SET_CPUID2, &cpuid))
		die("KVM_SET_CPUID2");
	if (i)
		return;
	if (trine_ioctl(vcpus[i], KVM_GET_SREGS, &s))
		die("KVM_GET_SREGS");
	s.cr3 = TABLES;
	s.cr4 = 0x20;
	s.cr0 = 0x80000031;
	s.efer = 0x500;
	s.gdt.base = GDT;
	s.gdt.limit = 31;
	s.ds = s.es = s.ss = data;
	s.cs = data;
	s.cs.selector = 16;
	s.cs.type = 11;
	s.cs.db = 0;
	s.cs.l = 1;
	if (trine_ioctl(vcpus[i], KVM_SET_SREGS, &s) || trine_ioctl(vcpus[i], KVM_SET_REGS, &regs))
		die("setting registers");
}

/* The serial port's interrupt: transmitter empty, which it always is. */
static void line(int level)
{
	struct kvm_irq_level irq = { .irq = 4, .level = !!level };

	trine_ioctl(vm, KVM_IRQ_LINE, &irq);
}

static void io(struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	unsigned n = run->io.size * run->io.count;
	static uint8_t lcr, ier, scratch, irq;

	if (run->io.direction == KVM_EXIT_IO_OUT) {
		switch (run->io.port) {
		case 0x3f8:
			if (!(lcr & 0x80)) {
				fwrite(data, 1, n, stdout);
				fflush(stdout);
				line(irq = ier & 2);
			}
			break;
		case 0x3f9:
			if (!(lcr & 0x80))
				line(irq = (ier = data[0]) & 2);
			break;
		case 0x3fb: lcr = data[0]; break;
		case 0x3ff: scratch = data[0]; break;
		case 0x64:
			if (data[0] == 0xfe)
				exit(0);
			break;
		case 0xf4:
		case 0x604:
		case 0xcf9: exit(0);
		}
		return;
	}
	memset(data, 0xff, n);
	switch (run->io.port) {
	case 0x3f8: data[0] = 0; break;
	case 0x3f9: data[0] = ier; break;
	case 0x3fa:
		data[0] = irq ? 2 : 1;
		line(irq = 0);
		break;
	case 0x3fb: data[0] = lcr; break;
	case 0x3fc: data[0] = 8; break;
	case 0x3fd: data[0] = 0x60; break;
	case 0x3fe: data[0] = 0xb0; break;
	case 0x3ff: data[0] = scratch; break;
	case 0x71: data[0] = 0; break;
	}
}

/* What a person who looks for the reason of a failed exit wants to see first. */
static void dump(int i)
{
	struct kvm_translation t;
	struct kvm_sregs s;
	struct kvm_regs r;

	trine_ioctl(vcpus[i], KVM_GET_REGS, &r);
	trine_ioctl(vcpus[i], KVM_GET_SREGS, &s);
	fprintf(stderr, "rax %llx rbx %llx rcx %llx rdx %llx rsi %llx rdi %llx rbp %llx r8 %llx r9 %llx r10 %llx r11 %llx r12 %llx r13 %llx "
		"r14 %llx r15 %llx rflags %llx\ncr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx cs %x idt %llx gs %llx\n",
		r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rflags,
		s.cr0, s.cr2, s.cr3, s.cr4, s.efer, s.cs.selector, s.idt.base, s.gs.base);
	t.linear_address = r.rip;
	if (!trine_ioctl(vcpus[i], KVM_TRANSLATE, &t) && t.valid && t.physical_address + 16 < RAM) {
		for (int n = -16; n < 16; n++)
			fprintf(stderr, "%s%02x", n ? " " : " >", ram[t.physical_address + n]);
		fprintf(stderr, "\n");
	}
}

static void *vcpu_thread(void *arg)
{
	int i = (int)(intptr_t)arg;
	struct kvm_run *run = runs[i];
	struct kvm_regs regs;

	for (;;) {
		if (trine_ioctl(vcpus[i], KVM_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			die("KVM_RUN");
		}
		switch (run->exit_reason) {
		case KVM_EXIT_IO: io(run); break;
		case KVM_EXIT_MMIO:
			if (!run->mmio.is_write)
				memset(run->mmio.data, 0xff, 8);
			break;
		case KVM_EXIT_INTR: break;
		default:
			trine_ioctl(vcpus[i], KVM_GET_REGS, &regs);
			dump(i);
			fprintf(stderr, "lite-boot: vCPU %d: exit reason %u (%u) at %#llx, rsp %#llx\n", i, run->exit_reason,
				run->internal.suberror, regs.rip, regs.rsp);
			exit(run->exit_reason == KVM_EXIT_SHUTDOWN ? 2 : 3);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region region = { .memory_size = RAM };
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	pthread_t thread;
	int kvm, size;

	if (argc < 3)
		return fprintf(stderr, "usage: %s VMLINUZ INITRAMFS [VCPUS [COMMAND LINE]]\n", argv[0]), 1;
	if (argc > 3)
		nr_vcpus = atoi(argv[3]);
	if (nr_vcpus < 1 || nr_vcpus > MAX_VCPUS)
		return fprintf(stderr, "lite-boot: %s vCPUs: 1 to %d\n", argv[3], MAX_VCPUS), 1;
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram == MAP_FAILED)
		die("memory");
	load(argv[1], argv[2], argc > 4 ? argv[4] : "console=ttyS0 earlyprintk=ttyS0 pci=off panic=-1 reboot=k");
	kvm = trine_open("/dev/kvm", O_RDWR);
	vm = trine_ioctl(kvm, KVM_CREATE_VM, 0);
	size = trine_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm < 0 || size < 0)
		die("KVM_CREATE_VM");
	region.userspace_addr = (uintptr_t)ram;
	if (trine_ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL) || trine_ioctl(vm, KVM_CREATE_IRQCHIP, 0) ||
	    trine_ioctl(vm, KVM_CREATE_PIT2, &pit) || trine_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		die("setting the VM up");
	for (int i = 0; i < nr_vcpus; i++) {
		vcpus[i] = trine_ioctl(vm, KVM_CREATE_VCPU, i);
		if (vcpus[i] < 0)
			die("KVM_CREATE_VCPU");
		runs[i] = trine_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpus[i], 0);
		set_up(kvm, i);
	}
	for (int i = 1; i < nr_vcpus; i++)
		pthread_create(&thread, NULL, vcpu_thread, (void *)(intptr_t)i);
	vcpu_thread(NULL);
	return 0;
}
