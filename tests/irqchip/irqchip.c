/*
 * The interrupt chips against their data sheets: core is driven directly, with an engine that runs no guest, so that
 * every register can be written as a guest would and every consequence looked at.
 */
#include <linux/kvm.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/x86/clock.h"
#include "core/x86/irqchip/chips.h"
#include "hosts/user/file.h"
#include "tests/null_engine.h"
#include "tests/tap.h"

#define vm  null_vm_created
#define cpu null_vcpu_created

static int vm_fd, cpu_fd[4];

static bool machine(unsigned cpus, bool with_pit)
{
	struct kvm_pit_config pit = { 0 };
	unsigned i;

	null_nr_vcpus = 0;
	vm_fd = core_system_ioctl(KVM_CREATE_VM, 0);
	if (vm_fd < 0 || host_file_ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0))
		return false;
	if (with_pit && host_file_ioctl(vm_fd, KVM_CREATE_PIT2, (u64)(uintptr_t)&pit))
		return false;
	for (i = 0; i < cpus; i++) {
		cpu_fd[i] = host_file_ioctl(vm_fd, KVM_CREATE_VCPU, i);
		if (cpu_fd[i] < 0)
			return false;
	}
	return true;
}

static void machine_end(void)
{
	unsigned i;

	for (i = 0; i < null_nr_vcpus; i++)
		host_file_close(cpu_fd[i]);
	host_file_close(vm_fd);
}

static void outb(u16 port, u8 value)
{
	int idx = host_srcu_read_lock(&vm->srcu);

	io_write(cpu[0], IO_PIO, port, 1, &value);
	host_srcu_read_unlock(&vm->srcu, idx);
}

static u8 inb(u16 port)
{
	int idx = host_srcu_read_lock(&vm->srcu);
	u8 value = 0xff;

	io_read(cpu[0], IO_PIO, port, 1, &value);
	host_srcu_read_unlock(&vm->srcu, idx);
	return value;
}

static void mmio_write(struct vcpu *v, u64 addr, u32 value)
{
	int idx = host_srcu_read_lock(&vm->srcu);

	io_write(v, IO_MMIO, addr, 4, &value);
	host_srcu_read_unlock(&vm->srcu, idx);
}

static u32 mmio_read(struct vcpu *v, u64 addr)
{
	int idx = host_srcu_read_lock(&vm->srcu);
	u32 value = 0xdeadbeef;

	io_read(v, IO_MMIO, addr, 4, &value);
	host_srcu_read_unlock(&vm->srcu, idx);
	return value;
}

static void line(u32 gsi, int level)
{
	int idx = host_srcu_read_lock(&vm->srcu);

	irq_set_gsi(vm, 0, gsi, level);
	host_srcu_read_unlock(&vm->srcu, idx);
}

static u32 apic_read(unsigned n, unsigned reg) { return mmio_read(cpu[n], 0xfee00000 + reg); }
static void apic_write(unsigned n, unsigned reg, u32 value) { mmio_write(cpu[n], 0xfee00000 + reg, value); }
static void apic_enable(unsigned n) { apic_write(n, APIC_SVR, 0x1ff); }

static void rte(unsigned pin, u64 value)
{
	mmio_write(cpu[0], 0xfec00000, 0x11 + 2 * pin);
	mmio_write(cpu[0], 0xfec00010, value >> 32);
	mmio_write(cpu[0], 0xfec00000, 0x10 + 2 * pin);
	mmio_write(cpu[0], 0xfec00010, value);
}

static u64 rte_read(unsigned pin)
{
	u64 value;

	mmio_write(cpu[0], 0xfec00000, 0x11 + 2 * pin);
	value = (u64)mmio_read(cpu[0], 0xfec00010) << 32;
	mmio_write(cpu[0], 0xfec00000, 0x10 + 2 * pin);
	return value | mmio_read(cpu[0], 0xfec00010);
}

/* The interrupt that CPU @n would take next, -1 if none. */
static int take(unsigned n)
{
	return irqchip_has_interrupt(cpu[n]) ? irqchip_ack_interrupt(cpu[n]) : -1;
}

static bool soon(bool (*condition)(void))
{
	int i;

	for (i = 0; i < 1000; i++) {
		if (condition())
			return true;
		usleep(5000);
	}
	return false;
}

/* ---- PIC ----------------------------------------------------------------------------------------------------- */

static void pic_init(u8 icw4)
{
	outb(0x20, 0x11); outb(0x21, 0x20); outb(0x21, 4); outb(0x21, icw4);
	outb(0xa0, 0x11); outb(0xa1, 0x28); outb(0xa1, 2); outb(0xa1, icw4);
	outb(0x21, 0); outb(0xa1, 0);
}

static void test_pic(void)
{
	if (!tap_ok(machine(1, false), "a machine with the chips in core is made"))
		return;
	/* LINT0 of the boot CPU is in ExtINT mode after reset. */
	pic_init(1);
	tap_ok(take(0) == -1, "pic: nothing is pending after ICW1 to ICW4");
	line(1, 1);
	line(1, 0);
	tap_ok(take(0) == 0x21, "pic: an edge on input 1 gives vector base + 1");
	outb(0x20, 0x0b);
	tap_ok(inb(0x20) == 0x02, "pic: OCW3 selects ISR, input 1 is in service");
	line(3, 1);
	line(3, 0);
	tap_ok(take(0) == -1, "pic: a lower priority waits while a higher one is in service");
	line(0, 1);
	line(0, 0);
	tap_ok(take(0) == 0x20, "pic: a higher priority nests");
	outb(0x20, 0x20);
	outb(0x20, 0x20);
	tap_ok(take(0) == 0x23, "pic: two non-specific EOIs let the waiting one through");
	outb(0x20, 0x63);
	outb(0x20, 0x0b);
	tap_ok(inb(0x20) == 0, "pic: a specific EOI ends the service of its input");

	line(10, 1);
	line(10, 0);
	tap_ok(take(0) == 0x2a, "pic: the slave's input 2 arrives through the cascade");
	outb(0xa0, 0x20);
	outb(0x20, 0x62);
	outb(0x20, 0x0a);
	tap_ok(inb(0x20) == 0, "pic: OCW3 selects IRR, nothing is requested");

	outb(0x21, 0x08);
	line(3, 1);
	line(3, 0);
	tap_ok(take(0) == -1, "pic: a masked input is held back");
	outb(0x21, 0);
	tap_ok(take(0) == 0x23, "pic: and delivered when it is unmasked");
	outb(0x20, 0x20);

	outb(0x4d0, 0xff);
	tap_ok(inb(0x4d0) == 0xf8, "pic: ELCR keeps inputs 0 to 2 edge-triggered");
	outb(0x4d1, 0xff);
	tap_ok(inb(0x4d1) == 0xde, "pic: ELCR keeps inputs 8 and 13 edge-triggered");
	line(5, 1);
	tap_ok(take(0) == 0x25, "pic: a level asserts");
	outb(0x20, 0x65);
	tap_ok(take(0) == 0x25, "pic: a level still asserted after EOI interrupts again");
	line(5, 0);
	outb(0x20, 0x65);
	tap_ok(take(0) == -1, "pic: and stops when the line drops");
	line(5, 1);
	tap_ok(irqchip_has_interrupt(cpu[0]), "pic: a level request is seen");
	line(5, 0);
	tap_ok(pic_ack(vm->pic) == 0x27, "pic: INTA after the request went away gives the spurious vector 7");
	outb(0x20, 0x0b);
	tap_ok(inb(0x20) == 0, "pic: and a spurious interrupt is not in service");
	outb(0x4d0, 0);
	outb(0x4d1, 0);

	outb(0x20, 0xc2); /* set priority: input 2 lowest, 3 highest */
	line(1, 1); line(1, 0); line(4, 1); line(4, 0);
	tap_ok(take(0) == 0x24, "pic: rotated priorities: input 4 before input 1");
	outb(0x20, 0xa0); /* rotate on non-specific EOI */
	line(5, 1); line(5, 0);
	tap_ok(take(0) == 0x25, "pic: after rotation on EOI input 5 is the highest");
	outb(0x20, 0x20);
	tap_ok(take(0) == 0x21, "pic: input 1 comes last");
	outb(0x20, 0x20);
	outb(0x20, 0xc7);

	line(3, 1); line(3, 0);
	take(0);
	outb(0x21, 0x08);
	outb(0x20, 0x68); /* special mask mode */
	line(6, 1); line(6, 0);
	tap_ok(take(0) == 0x26, "pic: special mask mode lets lower inputs past a masked one in service");
	outb(0x20, 0x66);
	outb(0x20, 0x63);
	outb(0x20, 0x48);
	outb(0x21, 0);

	outb(0x20, 0x0c); /* poll */
	tap_ok(inb(0x20) == 0x07, "pic: polling without a request reads no interrupt");
	line(4, 1); line(4, 0);
	outb(0x20, 0x0c);
	tap_ok(inb(0x20) == 0x84, "pic: polling acknowledges the request it reports");
	outb(0x20, 0x64);

	pic_init(3); /* automatic EOI */
	line(1, 1); line(1, 0);
	tap_ok(take(0) == 0x21, "pic: automatic EOI delivers");
	outb(0x20, 0x0b);
	tap_ok(inb(0x20) == 0, "pic: and leaves nothing in service");
	machine_end();
}

/* ---- I/O APIC ------------------------------------------------------------------------------------------------ */

#define LEVEL  0x8000ULL
#define MASKED 0x10000ULL
#define DEST(n) ((u64)(n) << 56)

static void test_ioapic(void)
{
	if (!tap_ok(machine(2, false), "a machine with two CPUs is made"))
		return;
	apic_enable(0);
	apic_enable(1);
	outb(0x21, 0xff); /* the PIC, to which GSIs 0 to 15 lead too, is out of the way */
	outb(0xa1, 0xff);
	mmio_write(cpu[0], 0xfec00000, 1);
	tap_ok(mmio_read(cpu[0], 0xfec00010) == 0x170011, "ioapic: version 11h with 24 inputs");
	tap_ok(rte_read(5) == MASKED, "ioapic: entries are masked after reset");

	line(5, 1); line(5, 0);
	tap_ok(take(0) == -1, "ioapic: a masked edge is not delivered");
	rte(5, 0x35 | DEST(1));
	tap_ok(take(1) == 0x35 && take(0) == -1, "ioapic: unmasking sends the latched edge, to CPU 1 alone");
	apic_write(1, APIC_EOI, 0);
	line(5, 1);
	tap_ok(take(1) == 0x35, "ioapic: an edge is sent");
	apic_write(1, APIC_EOI, 0);
	line(5, 1);
	tap_ok(take(1) == -1, "ioapic: a line that stays up makes no second edge");
	line(5, 0);

	rte(20, 0x60 | LEVEL);
	line(20, 1);
	tap_ok(take(0) == 0x60, "ioapic: a level is sent");
	tap_ok(rte_read(20) & 0x4000, "ioapic: and sets remote IRR");
	line(20, 1);
	tap_ok(take(0) == -1, "ioapic: no second message before the EOI");
	apic_write(0, APIC_EOI, 0);
	tap_ok(take(0) == 0x60, "ioapic: the EOI of a level still asserted sends it again");
	line(20, 0);
	apic_write(0, APIC_EOI, 0);
	tap_ok(take(0) == -1 && !(rte_read(20) & 0x4000), "ioapic: the EOI after the line dropped ends it");
	rte(20, 0x60 | LEVEL | MASKED);
	line(20, 1);
	tap_ok(take(0) == -1, "ioapic: a masked level waits");
	rte(20, 0x60 | LEVEL);
	tap_ok(take(0) == 0x60, "ioapic: and is sent when unmasked");
	rte(20, 0x60 | 0x4000 | LEVEL | MASKED);
	tap_ok(rte_read(20) & 0x4000, "ioapic: remote IRR is read-only");
	rte(20, 0x60 | MASKED);
	tap_ok(!(rte_read(20) & 0x4000), "ioapic: an edge-triggered entry has no remote IRR");
	line(20, 0);
	apic_write(0, APIC_EOI, 0);

	apic_write(0, APIC_LDR, 1 << 24);
	apic_write(1, APIC_LDR, 2 << 24);
	rte(6, 0x41 | 0x800 | DEST(3));
	line(6, 1); line(6, 0);
	tap_ok(take(0) == 0x41 && take(1) == 0x41, "ioapic: a flat logical destination of two bits reaches both");
	apic_write(0, APIC_EOI, 0);
	apic_write(1, APIC_EOI, 0);
	apic_write(0, APIC_TPR, 0x20);
	rte(6, 0x41 | 0x900 | DEST(3));
	line(6, 1); line(6, 0);
	tap_ok(take(0) == -1 && take(1) == 0x41, "ioapic: lowest priority picks the CPU with the lower TPR");
	apic_write(1, APIC_EOI, 0);
	apic_write(0, APIC_TPR, 0);
	rte(7, 0x42 | DEST(0xff));
	line(7, 1); line(7, 0);
	tap_ok(take(0) == 0x42 && take(1) == 0x42, "ioapic: physical FFh is a broadcast");
	rte(8, 0x05);
	line(8, 1); line(8, 0);
	apic_write(0, APIC_ESR, 0);
	tap_ok(apic_read(0, APIC_ESR) == 0x40, "lapic: a message with vector 5 is a receive-illegal error");
	machine_end();
}

/* ---- local APIC ---------------------------------------------------------------------------------------------- */

static bool timer_arrived(void) { return irqchip_has_interrupt(cpu[0]); }

static void icr(unsigned n, u32 dest, u32 low)
{
	apic_write(n, APIC_ICR2, dest << 24);
	apic_write(n, APIC_ICR, low);
}

static void test_lapic(void)
{
	u64 value;

	if (!tap_ok(machine(4, false), "a machine with four CPUs is made"))
		return;
	tap_ok(apic_read(2, APIC_ID) == 2U << 24, "lapic: each CPU reads its own ID at the same address");
	tap_ok(apic_read(0, APIC_VERSION) == 0x50014, "lapic: version 14h, six LVT entries");
	tap_ok(apic_read(1, APIC_LVT_LINT0) == 0x10000, "lapic: LVT entries are masked after reset");
	icr(0, 1, 0x4031);
	tap_ok(take(1) == -1, "lapic: a software-disabled APIC takes no fixed interrupt");
	for (int i = 0; i < 4; i++)
		apic_enable(i);
	icr(0, 1, 0x4031);
	tap_ok(take(1) == 0x31 && take(0) == -1 && take(2) == -1, "lapic: a physical IPI");
	icr(0, 1, 0x4032);
	tap_ok(take(1) == -1, "lapic: a vector of the class in service waits");
	icr(0, 1, 0x4051);
	tap_ok(take(1) == 0x51, "lapic: a higher class nests");
	tap_ok(apic_read(1, APIC_PPR) == 0x50, "lapic: PPR is the class in service");
	apic_write(1, APIC_EOI, 0);
	apic_write(1, APIC_EOI, 0);
	tap_ok(take(1) == 0x32, "lapic: EOIs end the highest in service first");
	apic_write(1, APIC_EOI, 0);
	apic_write(1, APIC_TPR, 0x60);
	icr(0, 1, 0x4061);
	tap_ok(take(1) == -1, "lapic: TPR holds its own class back");
	tap_ok(lapic_get_cr8(cpu[1]) == 6, "lapic: CR8 is TPR's class");
	lapic_set_cr8(cpu[1], 5);
	tap_ok(take(1) == 0x61, "lapic: lowering CR8 lets it through");
	apic_write(1, APIC_EOI, 0);
	apic_write(1, APIC_TPR, 0);
	icr(0, 0, 0x44000 | 0x71);
	tap_ok(take(0) == 0x71 && take(1) == -1, "lapic: shorthand self");
	apic_write(0, APIC_EOI, 0);
	icr(0, 0, 0x84000 | 0x72);
	tap_ok(take(0) == 0x72 && take(3) == 0x72, "lapic: shorthand all");
	apic_write(0, APIC_EOI, 0);
	apic_write(3, APIC_EOI, 0);
	take(1); take(2);
	apic_write(1, APIC_EOI, 0); apic_write(2, APIC_EOI, 0);
	icr(0, 0, 0xc4000 | 0x73);
	tap_ok(take(0) == -1 && take(1) == 0x73 && take(2) == 0x73, "lapic: shorthand all but self");
	apic_write(1, APIC_EOI, 0); apic_write(2, APIC_EOI, 0);
	take(3);
	apic_write(3, APIC_EOI, 0);

	apic_write(1, APIC_DFR, 0);
	apic_write(1, APIC_LDR, 0x21U << 24);
	apic_write(2, APIC_DFR, 0);
	apic_write(2, APIC_LDR, 0x22U << 24);
	icr(0, 0x21, 0x4800 | 0x74);
	tap_ok(take(1) == 0x74 && take(2) == -1, "lapic: a cluster destination reaches its members only");
	apic_write(1, APIC_EOI, 0);

	icr(0, 1, 0x4009);
	apic_write(0, APIC_ESR, 0);
	tap_ok(apic_read(0, APIC_ESR) == 0x20, "lapic: sending vector 9 is a send-illegal error");
	apic_write(0, 0x3f8 & 0xff0, 0);
	apic_write(0, APIC_ESR, 0);
	tap_ok(apic_read(0, APIC_ESR) == 0x80, "lapic: writing a register that is not there is an error");

	apic_write(0, APIC_TDCR, 0xb);
	apic_write(0, APIC_LVT_TIMER, 0x81);
	apic_write(0, APIC_TMICT, 0x40000000);
	value = apic_read(0, APIC_TMCCT);
	tap_ok(value > 0 && value <= 0x40000000, "lapic: the timer counts down from its initial count");
	apic_write(0, APIC_TMICT, 1000000);
	tap_ok(soon(timer_arrived) && take(0) == 0x81, "lapic: the one-shot timer fires");
	apic_write(0, APIC_EOI, 0);
	tap_ok(apic_read(0, APIC_TMCCT) == 0, "lapic: and then stands at zero");
	apic_write(0, APIC_LVT_TIMER, 0x20082);
	apic_write(0, APIC_TMICT, 1000000);
	tap_ok(soon(timer_arrived) && take(0) == 0x82, "lapic: the periodic timer fires");
	apic_write(0, APIC_EOI, 0);
	tap_ok(soon(timer_arrived) && take(0) == 0x82, "lapic: and fires again");
	apic_write(0, APIC_LVT_TIMER, 0x30083);
	apic_write(0, APIC_EOI, 0);

	apic_write(0, APIC_SVR, 0xff);
	tap_ok(apic_read(0, APIC_LVT_TIMER) & 0x10000, "lapic: software disable masks the LVT");
	apic_write(0, APIC_LVT_TIMER, 0x81);
	tap_ok(apic_read(0, APIC_LVT_TIMER) & 0x10000, "lapic: and keeps it masked");

	icr(0, 1, 0x4500);
	tap_ok(lapic_has_init_or_sipi(cpu[1]), "lapic: INIT is latched");
	lapic_accept_events(cpu[1]);
	tap_ok(cpu[1]->mp_state == KVM_MP_STATE_INIT_RECEIVED, "lapic: INIT makes an AP wait for SIPI");
	icr(0, 1, 0x4600 | 0x9a);
	lapic_accept_events(cpu[1]);
	tap_ok(cpu[1]->mp_state == KVM_MP_STATE_RUNNABLE && cpu[1]->x86.seg[SEG_CS].sel == 0x9a00 &&
	       cpu[1]->x86.seg[SEG_CS].base == 0x9a000 && cpu[1]->x86.rip == 0, "lapic: SIPI starts it at its page");
	icr(0, 1, 0x4600 | 0x55);
	lapic_accept_events(cpu[1]);
	tap_ok(cpu[1]->x86.seg[SEG_CS].sel == 0x9a00, "lapic: a second SIPI is ignored");
	icr(0, 1, 0x400);
	tap_ok(vcpu_test_request(cpu[1], REQ_NMI), "lapic: an NMI message requests an NMI");
	machine_end();
}

/* IA32_APIC_BASE's transitions (SDM 3A figure 10-27). */
static void test_apic_base(void)
{
	static const struct {
		u64 from, to;
		bool good;
	} moves[] = {
		{ 0x800, 0xc00, true }, { 0x800, 0, true }, { 0xc00, 0x800, false }, { 0xc00, 0, true },
		{ 0, 0xc00, false }, { 0, 0x400, false }, { 0, 0x800, true }, { 0x800, 0x400, false },
	};
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 leaf1;
	} cpuid = { .head.nent = 1, .leaf1 = { .function = 1, .ecx = BIT64(21) } };
	unsigned i;

	if (!tap_ok(machine(1, false), "a machine with one CPU is made"))
		return;
	tap_ok(host_file_ioctl(cpu_fd[0], KVM_SET_CPUID2, (u64)(uintptr_t)&cpuid) == 0, "apic base: CPUID offers x2APIC");
	for (i = 0; i < ARRAY_SIZE(moves); i++) {
		u64 base = 0xfee00100;
		enum x86_result r;

		/* Through the disabled state, then to where the move begins, as the client may. */
		lapic_set_base(cpu[0], base, true);
		lapic_set_base(cpu[0], base | moves[i].from, true);
		r = lapic_set_base(cpu[0], base | moves[i].to, false);
		tap_ok((r == X86_CONTINUE) == moves[i].good, "apic base: %03llx to %03llx is %s",
		       (unsigned long long)moves[i].from, (unsigned long long)moves[i].to,
		       moves[i].good ? "allowed" : "#GP");
	}
	tap_ok(lapic_set_base(cpu[0], 0xfee00801 | 0x800, false) == X86_FAULT, "apic base: reserved bits are #GP");
	machine_end();
}

static void test_x2apic(void)
{
	u64 value;
	unsigned i;

	if (!tap_ok(machine(2, false), "a machine with two CPUs is made"))
		return;
	for (i = 0; i < 2; i++) {
		lapic_set_base(cpu[i], 0xfee00c00 | (i ? 0 : 0x100), true);
		lapic_x2apic_write(cpu[i], 0x80f, 0x1ff);
	}
	tap_ok(lapic_x2apic_read(cpu[1], 0x802, &value) == X86_CONTINUE && value == 1, "x2apic: the ID is 32 bits wide");
	tap_ok(lapic_x2apic_read(cpu[1], 0x80d, &value) == X86_CONTINUE && value == 2, "x2apic: LDR is made of the ID");
	tap_ok(lapic_x2apic_write(cpu[1], 0x802, 5) == X86_FAULT, "x2apic: the ID cannot be written");
	tap_ok(lapic_x2apic_write(cpu[1], 0x80d, 5) == X86_FAULT, "x2apic: LDR cannot be written");
	tap_ok(lapic_x2apic_read(cpu[1], 0x80e, &value) == X86_FAULT, "x2apic: there is no DFR");
	tap_ok(lapic_x2apic_read(cpu[1], 0x831, &value) == X86_FAULT, "x2apic: there is no ICR2");
	tap_ok(lapic_x2apic_read(cpu[1], 0x80b, &value) == X86_FAULT, "x2apic: EOI cannot be read");
	tap_ok(lapic_x2apic_write(cpu[1], 0x80b, 1) == X86_FAULT, "x2apic: EOI takes zero only");
	tap_ok(lapic_x2apic_write(cpu[1], 0x828, 1) == X86_FAULT, "x2apic: ESR takes zero only");
	tap_ok(lapic_x2apic_write(cpu[0], 0x830, 1ULL << 32 | 0x4055) == X86_CONTINUE && take(1) == 0x55,
	       "x2apic: one write to ICR sends an IPI");
	lapic_x2apic_write(cpu[1], 0x80b, 0);
	tap_ok(lapic_x2apic_write(cpu[1], 0x83f, 0x56) == X86_CONTINUE && take(1) == 0x56, "x2apic: SELF IPI");
	lapic_x2apic_write(cpu[1], 0x80b, 0);
	tap_ok(lapic_x2apic_write(cpu[0], 0x830, 3ULL << 32 | 0x4857) == X86_CONTINUE && take(1) == 0x57 && take(0) == 0x57,
	       "x2apic: a logical destination of two bits reaches both");
	tap_ok(lapic_x2apic_write(cpu[0], 0x830, BIT64(13)) == X86_FAULT, "x2apic: reserved bits of ICR are #GP");
	tap_ok(lapic_x2apic_write(cpu[0], 0x830, 3ULL << 32 | 0x4867 | BIT64(12)) == X86_CONTINUE &&
		       lapic_x2apic_read(cpu[0], 0x830, &value) == X86_CONTINUE && value == (3ULL << 32 | 0x4867) && take(1) == 0x67 &&
		       take(0) == 0x67,
	       "x2apic: but for the delivery status of an xAPIC, which is forgotten");
	tap_ok(mmio_read(cpu[0], 0xfee00020) == 0xdeadbeef, "x2apic: the page in memory is gone");
	machine_end();
}

/* ---- a processor that does it by itself ------------------------------------------------------------------------ */

/* SDM 3C 29.2.2, 29.1.4: what the processor does to the page when it delivers a vector, and at an EOI. */
static void processor_delivers(struct lapic *l, u8 vector)
{
	lapic_clear_vector(l, APIC_IRR, vector);
	lapic_set_vector(l, APIC_ISR, vector);
}

/* 29.4.3.2 */
static void processor_writes(struct lapic *l, unsigned reg, u32 value)
{
	lapic_set_reg(l, reg, value);
	lapic_written(l->vcpu, reg);
}

static bool state_is(u8 requested, u8 in_service)
{
	struct lapic_virtual state;

	lapic_collect(cpu[0]->lapic);
	lapic_virtual_state(cpu[0], &state);
	return state.requested == requested && state.in_service == in_service;
}

static bool eoi_exits(u8 vector)
{
	struct lapic_virtual state;

	lapic_virtual_state(cpu[0], &state);
	return state.eoi_exits[vector / 64] >> vector % 64 & 1;
}

static void test_virtual(void)
{
	struct lapic *l;
	u32 left;

	if (!tap_ok(machine(2, false), "a machine with two CPUs is made"))
		return;
	l = cpu[0]->lapic;
	tap_ok(!lapic_may_be_virtual(cpu[0]), "virtual: not while software-disabled");
	apic_enable(0);
	tap_ok(lapic_may_be_virtual(cpu[0]) && state_is(0, 0), "virtual: at first there is nothing");
	icr(1, 0, 0x4051);
	tap_ok(irqchip_has_interrupt(cpu[0]) && !lapic_test_vector(l, APIC_IRR, 0x51), "virtual: what arrives waits beside the page");
	tap_ok(state_is(0x51, 0), "virtual: and is collected");
	icr(1, 0, 0x4071);
	icr(1, 0, 0x4071);
	tap_ok(state_is(0x71, 0), "virtual: the highest is told");
	processor_delivers(l, 0x71);
	lapic_take_back(cpu[0], 0x71);
	tap_ok(state_is(0x71, 0), "virtual: what is taken back is requested again");
	processor_delivers(l, 0x71);
	tap_ok(state_is(0x51, 0x71) && !irqchip_has_interrupt(cpu[0]) && apic_read(0, APIC_PPR) == 0x70, "virtual: what it delivers is in service");
	apic_write(0, APIC_EOI, 0);
	tap_ok(state_is(0x51, 0) && take(0) == 0x51 && state_is(0, 0x51), "virtual: core goes on from there");
	lapic_clear_vector(l, APIC_ISR, 0x51);
	lapic_eoi_done(cpu[0], 0x51);

	rte(20, 0x60 | LEVEL);
	line(20, 1);
	tap_ok(state_is(0x60, 0) && eoi_exits(0x60) && !eoi_exits(0x51), "virtual: the end of a level-triggered interrupt is asked for");
	processor_delivers(l, 0x60);
	lapic_clear_vector(l, APIC_ISR, 0x60);
	lapic_eoi_done(cpu[0], 0x60);
	tap_ok(state_is(0x60, 0), "virtual: it reaches the I/O APIC, whose line is still up");
	line(20, 0);
	processor_delivers(l, 0x60);
	lapic_clear_vector(l, APIC_ISR, 0x60);
	lapic_eoi_done(cpu[0], 0x60);
	tap_ok(state_is(0, 0) && !(rte_read(20) & 0x4000), "virtual: and ends it when the line is down");

	processor_writes(l, APIC_LVT_TIMER, 0xfff2ff62);
	tap_ok(apic_read(0, APIC_LVT_TIMER) == 0x20062, "virtual: an entry of the LVT keeps what it can hold");
	processor_writes(l, APIC_TDCR, 0xb);
	processor_writes(l, APIC_TMICT, 0x70000000);
	tap_ok(apic_read(0, APIC_TMCCT) > 0x60000000, "virtual: the timer counts");
	left = apic_read(0, APIC_TMCCT);
	processor_writes(l, APIC_TDCR, 0xa);
	tap_ok(apic_read(0, APIC_TMCCT) <= left && apic_read(0, APIC_TMCCT) > 0x60000000, "virtual: its count stays when the divisor changes");
	processor_writes(l, APIC_LVT_TIMER, 0x62);
	tap_ok(!apic_read(0, APIC_TMCCT) && !apic_read(0, APIC_TMICT), "virtual: another mode disarms it");
	l->timer_mode = APIC_TIMER_DEADLINE;
	processor_writes(l, APIC_TMICT, 0x70000000);
	tap_ok(!apic_read(0, APIC_TMICT) && !l->target_ns, "virtual: with a deadline the initial count does not stay, nor start anything");
	l->timer_mode = APIC_TIMER_ONESHOT;
	processor_writes(l, APIC_TMICT, 0x70000000);
	tap_ok(apic_read(0, APIC_TMICT) == 0x70000000 && apic_read(0, APIC_TMCCT) > 0x60000000, "virtual: else it does");
	processor_writes(l, APIC_TMICT, 0);
	lapic_set_reg(l, APIC_RRD, 5);
	lapic_written(cpu[0], APIC_RRD);
	tap_ok(!apic_read(0, APIC_RRD) && l->esr_latch == APIC_ESR_REGISTER, "virtual: remote read is read-only");
	l->esr_latch = 0;
	lapic_set_reg(l, APIC_LVT_ERROR, 0x4fe);
	lapic_set_reg(l, APIC_ESR, 0);
	processor_writes(l, APIC_ICR, 0x40005);
	tap_ok(!vcpu_test_request(cpu[0], REQ_NMI) && state_is(0xfe, 0), "virtual: LVT bits that nothing has are not looked at");
	processor_writes(l, APIC_ESR, 0x1234);
	tap_ok(apic_read(0, APIC_ESR) == 0x20, "virtual: ESR is what happened, not what was written");
	processor_writes(l, APIC_SVR, 0x2ff);
	tap_ok(!lapic_may_be_virtual(cpu[0]) && apic_read(0, APIC_LVT_ERROR) & 0x10000, "virtual: it ends with the APIC");
	tap_ok(lapic_x2apic_is_plain(0x808) && lapic_x2apic_is_plain(0x80a) && lapic_x2apic_is_plain(0x827) && !lapic_x2apic_is_plain(0x830) &&
		       !lapic_x2apic_is_plain(0x839) && !lapic_x2apic_is_plain(0x80b) && !lapic_x2apic_is_plain(0x83f) && !lapic_x2apic_is_plain(0x8ff),
	       "virtual: which MSRs are read from the page");
	machine_end();
}

/* ---- PIT ----------------------------------------------------------------------------------------------------- */

static bool irq0_arrived(void) { return irqchip_has_interrupt(cpu[0]); }

static void test_pit(void)
{
	u16 first, second;
	u8 status;

	if (!tap_ok(machine(1, true), "a machine with a PIT is made"))
		return;
	pic_init(1);
	outb(0x43, 0x34); /* channel 0, both bytes, mode 2 */
	outb(0x40, 0xff);
	outb(0x40, 0xff);
	outb(0x43, 0x00);
	first = inb(0x40);
	first |= inb(0x40) << 8;
	tap_ok(first > 0, "pit: a latched count reads low byte, high byte");
	outb(0x43, 0x00);
	usleep(2000);
	second = inb(0x40);
	second |= inb(0x40) << 8;
	outb(0x43, 0x00);
	first = inb(0x40);
	first |= inb(0x40) << 8;
	tap_ok(first != second, "pit: the count goes on behind the latch");
	outb(0x43, 0xe2); /* read back the status of channel 0 */
	status = inb(0x40);
	tap_ok((status & 0x3f) == 0x34, "pit: read-back gives access and mode (%02x)", status);
	outb(0x43, 0x34);
	outb(0x40, 0x00);
	outb(0x40, 0x10);
	tap_ok(soon(irq0_arrived) && take(0) == 0x20, "pit: mode 2 interrupts on IRQ 0");
	outb(0x20, 0x20);
	tap_ok(soon(irq0_arrived) && take(0) == 0x20, "pit: every period");
	outb(0x43, 0x30); /* mode 0: stops the periods */
	outb(0x40, 0x10);
	outb(0x40, 0x00);
	outb(0x20, 0x20);
	tap_ok(soon(irq0_arrived) && take(0) == 0x20, "pit: mode 0 interrupts once");
	outb(0x20, 0x20);
	outb(0x21, 0xff);
	apic_enable(0);
	rte(0, 0x31);
	outb(0x43, 0x34);
	outb(0x40, 0x00);
	outb(0x40, 0x10);
	tap_ok(soon(irq0_arrived) && take(0) == 0x31, "pit: interrupts through the I/O APIC");
	apic_write(0, APIC_EOI, 0);
	tap_ok(soon(irq0_arrived) && take(0) == 0x31, "pit: every period");
	apic_write(0, APIC_EOI, 0);
	tap_ok(soon(irq0_arrived) && take(0) == 0x31, "pit: again");
	tap_ok(eoi_exits(0x31) && !eoi_exits(0x41), "pit: the end of its interrupt is asked for");
	rte(0, 0x41);
	tap_ok(soon(irq0_arrived) && take(0) == 0x41, "pit: with another vector before that the next comes too");
	tap_ok(!eoi_exits(0x31) && eoi_exits(0x41), "pit: whose end is asked for then");
	machine_end();
}

/* ---- routing, irqfd, ioeventfd ------------------------------------------------------------------------------- */

static long routing(unsigned nr, struct kvm_irq_routing_entry *entries)
{
	return irq_set_routing(vm, entries, nr);
}

static void test_routing(void)
{
	struct kvm_irq_routing_entry msi = { .gsi = 30, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = 0xfee01000, .data = 0x4091 } };
	struct kvm_irq_routing_entry pin = { .gsi = 4, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { KVM_IRQCHIP_IOAPIC, 9 } };
	struct kvm_irq_routing_entry bad, two[2];

	if (!tap_ok(machine(2, false), "a machine with two CPUs is made"))
		return;
	apic_enable(0);
	apic_enable(1);
	tap_ok(routing(1, &msi) == 0, "routing: a message route is taken");
	line(30, 1);
	tap_ok(take(1) == 0x91, "routing: raising its GSI sends the message");
	apic_write(1, APIC_EOI, 0);
	line(4, 1);
	tap_ok(take(0) == -1, "routing: a GSI without a route leads nowhere");
	tap_ok(routing(1, &pin) == 0, "routing: a pin route is taken");
	rte(9, 0x44);
	line(4, 1);
	tap_ok(take(0) == 0x44, "routing: and leads to the pin");
	bad = pin;
	bad.u.irqchip.pin = 24;
	tap_ok(routing(1, &bad) == -EINVAL, "routing: I/O APIC pin 24 is refused");
	bad = pin;
	bad.u.irqchip.irqchip = 3;
	tap_ok(routing(1, &bad) == -EINVAL, "routing: chip 3 is refused");
	bad = pin;
	bad.gsi = VM_MAX_IRQ_ROUTES;
	tap_ok(routing(1, &bad) == -EINVAL, "routing: GSI 4096 is refused");
	bad = pin;
	bad.type = 77;
	tap_ok(routing(1, &bad) == -EINVAL, "routing: type 77 is refused");
	two[0] = pin;
	two[1] = pin;
	tap_ok(routing(2, two) == -EINVAL, "routing: two pins of one chip for a GSI are refused");
	two[1] = msi;
	two[1].gsi = pin.gsi;
	tap_ok(routing(2, two) == -EINVAL, "routing: a pin and a message for one GSI are refused");
	machine_end();
}

static bool acked_eventfd(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	u64 n;

	return poll(&p, 1, 5000) == 1 && read(fd, &n, 8) == 8;
}

static bool cpu0_interrupt(void) { return irqchip_has_interrupt(cpu[0]); }

static void test_eventfds(void)
{
	int fd = eventfd(0, 0), resample = eventfd(0, 0);
	struct kvm_irqfd irqfd = { .fd = fd, .gsi = 20 };
	struct kvm_ioeventfd io = { .addr = 0x600, .len = 2, .fd = fd, .datamatch = 0x1234,
		.flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH };
	u64 one = 1;
	u16 word = 0x1234;
	int idx;

	if (!tap_ok(machine(1, false), "a machine with one CPU is made"))
		return;
	apic_enable(0);
	rte(20, 0x50);
	tap_ok(vm_irqfd(vm, &irqfd) == 0, "irqfd: is assigned");
	tap_ok(vm_irqfd(vm, &irqfd) == -EBUSY, "irqfd: the same eventfd again is EBUSY");
	tap_ok(write(fd, &one, 8) == 8 && soon(cpu0_interrupt) && take(0) == 0x50, "irqfd: a signal raises its GSI");
	apic_write(0, APIC_EOI, 0);
	irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
	tap_ok(vm_irqfd(vm, &irqfd) == 0, "irqfd: is deassigned");
	tap_ok(write(fd, &one, 8) == 8 && (usleep(50000), take(0) == -1), "irqfd: and silent then");
	tap_ok(read(fd, &one, 8) == 8 && one == 1, "irqfd: its count stays with the client");
	irqfd.flags = 0x80;
	tap_ok(vm_irqfd(vm, &irqfd) == -EINVAL, "irqfd: unknown flags are EINVAL");
	irqfd.flags = 0;
	irqfd.fd = -1;
	tap_ok(vm_irqfd(vm, &irqfd) == -EBADF, "irqfd: no descriptor is EBADF");
	irqfd = (struct kvm_irqfd){ .fd = fd, .gsi = 20, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = resample };
	rte(20, 0x50 | LEVEL);
	one = 1;
	tap_ok(vm_irqfd(vm, &irqfd) == 0 && write(fd, &one, 8) == 8 && soon(cpu0_interrupt) && take(0) == 0x50,
	       "irqfd: a resampled line rises");
	apic_write(0, APIC_EOI, 0);
	tap_ok(acked_eventfd(resample), "irqfd: its EOI signals the resample eventfd");
	tap_ok(take(0) == -1, "irqfd: and the line is down");
	irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
	vm_irqfd(vm, &irqfd);

	tap_ok(vm_ioeventfd(vm, &io) == 0, "ioeventfd: is assigned");
	tap_ok(vm_ioeventfd(vm, &io) == -EEXIST, "ioeventfd: the same again is EEXIST");
	idx = host_srcu_read_lock(&vm->srcu);
	tap_ok(io_write(cpu[0], IO_PIO, 0x600, 2, &word) == 0, "ioeventfd: a matching write is served");
	word = 1;
	tap_ok(io_write(cpu[0], IO_PIO, 0x600, 2, &word) == -EOPNOTSUPP, "ioeventfd: other data is not its");
	word = 0x1234;
	tap_ok(io_write(cpu[0], IO_PIO, 0x600, 1, &word) == -EOPNOTSUPP, "ioeventfd: another length is not its");
	tap_ok(io_read(cpu[0], IO_PIO, 0x600, 2, &word) == -EOPNOTSUPP, "ioeventfd: reads are the client's");
	host_srcu_read_unlock(&vm->srcu, idx);
	tap_ok(acked_eventfd(fd), "ioeventfd: the client hears of it");
	io.len = 3;
	tap_ok(vm_ioeventfd(vm, &io) == -EINVAL, "ioeventfd: length 3 is EINVAL");
	io.len = 2;
	io.flags |= 0x100;
	tap_ok(vm_ioeventfd(vm, &io) == -EINVAL, "ioeventfd: unknown flags are EINVAL");
	io.flags &= ~0x100;
	io.addr = ~0ULL;
	tap_ok(vm_ioeventfd(vm, &io) == -EINVAL, "ioeventfd: an address that wraps is EINVAL");
	io.addr = 0x600;
	io.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	tap_ok(vm_ioeventfd(vm, &io) == 0, "ioeventfd: is deassigned");
	tap_ok(vm_ioeventfd(vm, &io) == -ENOENT, "ioeventfd: once");
	machine_end();
	close(fd);
	close(resample);
}

/* ---- a timer that the engine keeps ------------------------------------------------------------------------------- */

static bool kept;

static bool keeps_timer(struct vcpu *vcpu)
{
	return kept;
}

static void set_kept_timer(u32 lvt)
{
	apic_write(0, APIC_LVT_TIMER, lvt);
	apic_write(0, APIC_TMICT, 1000000);
}

static void pass_5ms(void)
{
	const struct timespec t = { 0, 5000000 };

	nanosleep(&t, NULL);
}

static void test_kept_timer(void)
{
	u64 khz = clock_counter_khz();
	struct kvm_lapic_state state;

	if (!tap_ok(machine(1, false), "a machine whose engine keeps the timer is made"))
		return;
	kept = true;
	apic_write(0, APIC_SVR, 0x1ff);
	apic_write(0, APIC_TDCR, 0xb);
	tap_ok(lapic_timer_left(cpu[0]) == ~0ULL, "kept timer: nothing is left of one that is not set");
	apic_write(0, APIC_LVT_TIMER, 0x81);
	apic_write(0, APIC_TMICT, 900000000); /* this process may not run for a while */
	lapic_timer_ended(cpu[0]);
	tap_ok(lapic_timer_left(cpu[0]) != ~0ULL, "kept timer: to look too early ends nothing");
	set_kept_timer(0x81);
	tap_ok(lapic_timer_left(cpu[0]) <= khz, "kept timer: a millisecond is left, in ticks");
	pass_5ms();
	tap_ok(!timer_arrived(), "kept timer: no timer of the host's gives its interrupt");
	tap_ok(!lapic_timer_left(cpu[0]), "kept timer: when it is due nothing is left");
	lapic_timer_ended(cpu[0]);
	tap_ok(take(0) == 0x81, "kept timer: the engine's word gives it");
	apic_write(0, APIC_EOI, 0);
	tap_ok(lapic_timer_left(cpu[0]) == ~0ULL && !apic_read(0, APIC_TMCCT), "kept timer: once");

	set_kept_timer(0x20082);
	pass_5ms();
	lapic_timer_ended(cpu[0]);
	tap_ok(take(0) == 0x82, "kept timer: a periodic one gives it");
	apic_write(0, APIC_EOI, 0);
	tap_ok(lapic_timer_left(cpu[0]) <= khz, "kept timer: and is kept on, for a period at most");
	lapic_timer_to_host(cpu[0]);
	tap_ok(lapic_timer_left(cpu[0]) == ~0ULL, "kept timer: where the vCPU waits it is the host's");
	tap_ok(soon(timer_arrived) && take(0) == 0x82, "kept timer: which gives it");
	apic_write(0, APIC_EOI, 0);
	tap_ok(soon(timer_arrived) && take(0) == 0x82, "kept timer: and again");
	apic_write(0, APIC_TMICT, 0);
	do /* there may have been time for one more */
		apic_write(0, APIC_EOI, 0);
	while (take(0) == 0x82);

	set_kept_timer(0x83);
	tap_ok(lapic_timer_left(cpu[0]) <= khz, "kept timer: set anew it is the engine's");
	apic_write(0, APIC_TMICT, 0);
	tap_ok(lapic_timer_left(cpu[0]) == ~0ULL, "kept timer: until it is stopped");
	apic_write(0, APIC_TMICT, 2000000000);
	tap_ok(lapic_timer_left(cpu[0]) == ~0ULL && apic_read(0, APIC_TMCCT), "kept timer: two seconds are the host's");
	set_kept_timer(0x84);
	pass_5ms();
	lapic_get_state(cpu[0], &state);
	tap_ok(((u8 *)state.regs)[APIC_IRR + 0x40] == 1 << 4, "kept timer: who saves the APIC when it is due finds the interrupt");
	tap_ok(take(0) == 0x84, "kept timer: and so does the guest");
	kept = false;
	machine_end();
}

int main(void)
{
	static struct engine_ops engine;

	tap_begin();
	engine = null_engine;
	engine.keeps_timer = keeps_timer;
	if (!tap_ok(core_init(&engine) == 0, "core takes an engine"))
		return tap_end();
	test_pic();
	test_ioapic();
	test_lapic();
	test_apic_base();
	test_x2apic();
	test_virtual();
	test_kept_timer();
	test_pit();
	test_routing();
	test_eventfds();
	return tap_end();
}
