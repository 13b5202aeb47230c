/*
 * What lite promises a guest, by small guests of guest_code.S: self- and cross-modifying code, exact faults, debugging, address spaces,
 * dirty logging, restarted I/O, interrupts anywhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libtrine/trine.h"
#include "tests/tap.h"

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]
GUEST(smc_next);
GUEST(smc_loop);
GUEST(smc_alias);
GUEST(cross_run);
GUEST(cross_patch);
GUEST(cross_page_write);
GUEST(cross_page_read);
GUEST(fault_handler);
GUEST(count);
GUEST(touch);
GUEST(mmio);
GUEST(pio);
GUEST(interrupts);
GUEST(interrupt_handler);
GUEST(pcid);
GUEST(simd_exception);
GUEST(x87_exception);
GUEST(simple_handler);

#define MEMORY	 (2UL << 20)
#define PML4	 0x1000UL
#define PT	 0x4000UL /* 4 KiB pages of the first 2 MiB */
#define GDT	 0x6000UL
#define IDT	 0x7000UL
#define TSS	 0x8000UL
#define CODE	 0x10000UL
#define HANDLER	 0x18000UL
#define DATA	 0x20000UL
#define STACK	 0x30000UL
#define OTHER	 0x50000UL /* a second set of tables: PML4, PDPT, PD, PT */
#define HOLE	 0x80000UL /* linear page that is not present */
#define ALIAS	 0x90000UL /* linear page that shows DATA */
#define DEVICE	 0xd0000000UL
#define MAX_CPUS 2

struct machine {
	int kvm, vm, cpu[MAX_CPUS];
	struct kvm_run *run[MAX_CPUS];
	uint8_t *memory;
	struct kvm_regs regs[MAX_CPUS];
};

static void put64(struct machine *m, uint64_t at, uint64_t value)
{
	memcpy(m->memory + at, &value, 8);
}

static void gate(struct machine *m, unsigned vector, uint64_t to)
{
	put64(m, IDT + vector * 16, (to & 0xffff) | 8ULL << 16 | 0x8eULL << 40 | (to >> 16 & 0xffff) << 48);
	put64(m, IDT + vector * 16 + 8, to >> 32);
}

static void tables(struct machine *m, uint64_t pml4, uint64_t pt)
{
	put64(m, pml4, (pml4 + 0x1000) | 7);
	put64(m, pml4 + 0x1000, (pml4 + 0x2000) | 7);
	put64(m, pml4 + 0x2000, pt | 7);
	/* the device's gigabyte */
	put64(m, pml4 + 0x1000 + 3 * 8, (DEVICE & ~0x3fffffffULL) | 0x83);
	for (uint64_t i = 0; i < 512; i++)
		put64(m, pt + i * 8, i << 12 | 7);
	put64(m, pt + (HOLE >> 12) * 8, HOLE & ~1ULL);
	put64(m, pt + (ALIAS >> 12) * 8, DATA | 7);
}

static bool machine_make(struct machine *m, int cpus)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	struct kvm_segment data = { .limit = ~0U, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY };

	memset(m, 0, sizeof(*m));
	m->kvm = trine_open("/dev/kvm", O_RDWR);
	m->vm = trine_ioctl(m->kvm, KVM_CREATE_VM, 0);
	m->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->vm < 0 || m->memory == MAP_FAILED)
		return false;
	tables(m, PML4, PT);
	put64(m, GDT + 8, 0x00af9b000000ffffULL);
	put64(m, GDT + 16, 0x00cf93000000ffffULL);
	region.userspace_addr = (uintptr_t)m->memory;
	if (trine_ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region) || trine_ioctl(m->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid))
		return false;
	for (int i = 0; i < cpus; i++) {
		struct kvm_sregs s;

		m->cpu[i] = trine_ioctl(m->vm, KVM_CREATE_VCPU, i);
		m->run[i] = trine_mmap(NULL, trine_ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED,
				       m->cpu[i], 0);
		if (m->cpu[i] < 0 || m->run[i] == MAP_FAILED || trine_ioctl(m->cpu[i], KVM_SET_CPUID2, &cpuid) ||
		    trine_ioctl(m->cpu[i], KVM_GET_SREGS, &s))
			return false;
		s.cr3 = PML4;
		s.cr4 = 0x20620;
		s.cr0 = 0x80010033;
		s.efer = 0x500;
		s.gdt.base = GDT;
		s.gdt.limit = 23;
		s.idt.base = IDT;
		s.idt.limit = 0xfff;
		s.ds = s.es = s.ss = s.fs = s.gs = data;
		s.cs = data;
		s.cs.selector = 8;
		s.cs.type = 11;
		s.cs.db = 0;
		s.cs.l = 1;
		if (trine_ioctl(m->cpu[i], KVM_SET_SREGS, &s))
			return false;
		m->regs[i] = (struct kvm_regs){ .rip = CODE + i * 0x1000, .rsp = STACK + i * 0x1000, .rbx = DATA, .rflags = 2 };
	}
	return true;
}

static void machine_free(struct machine *m)
{
	for (int i = 0; i < MAX_CPUS; i++)
		if (m->run[i])
			trine_close(m->cpu[i]);
	trine_close(m->vm);
	trine_close(m->kvm);
	munmap(m->memory, MEMORY);
}

#define LOAD(m, at, name) memcpy((m)->memory + (at), guest_##name, guest_##name##_end - guest_##name)

/* KVM_RUN from m->regs on; the exit reason, or -errno. */
static int go(struct machine *m, int i)
{
	int r = trine_ioctl(m->cpu[i], KVM_SET_REGS, &m->regs[i]);

	if (!r)
		r = trine_ioctl(m->cpu[i], KVM_RUN, 0);
	r = r ? -errno : (int)m->run[i]->exit_reason;
	trine_ioctl(m->cpu[i], KVM_GET_REGS, &m->regs[i]);
	return r;
}

static int again(struct machine *m, int i)
{
	int r = trine_ioctl(m->cpu[i], KVM_RUN, 0);

	r = r ? -errno : (int)m->run[i]->exit_reason;
	trine_ioctl(m->cpu[i], KVM_GET_REGS, &m->regs[i]);
	return r;
}

static void self_modifying(void)
{
	struct machine m;

	if (!machine_make(&m, 1)) {
		tap_ok(false, "a machine");
		return;
	}
	LOAD(&m, CODE, smc_next);
	tap_ok(go(&m, 0) == KVM_EXIT_HLT && m.regs[0].rax == 0x42, "a write to the next instruction takes effect at once");
	LOAD(&m, CODE + 0x200, smc_loop);
	m.regs[0].rip = CODE + 0x200;
	tap_ok(go(&m, 0) == KVM_EXIT_HLT && m.regs[0].rax == 5050, "a loop that patches itself every round sees each patch");
	LOAD(&m, CODE + 0x400, smc_alias);
	m.regs[0].rip = CODE + 0x400;
	m.regs[0].r9 = ALIAS;
	tap_ok(go(&m, 0) == KVM_EXIT_HLT && m.regs[0].rax == 0x107, "code is patched through an alias of its page");
	machine_free(&m);
}

static void *other_cpu(void *arg)
{
	return (void *)(intptr_t)go(arg, 1);
}

static void cross_modifying(void)
{
	static const uint8_t routine[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
	struct machine m;
	pthread_t thread;
	void *result;
	int good = 0, r;

	for (int round = 0; round < 20; round++) {
		if (!machine_make(&m, 2))
			break;
		LOAD(&m, CODE, cross_run);
		LOAD(&m, CODE + 0x1000, cross_patch);
		memcpy(m.memory + DATA + 0x800, routine, sizeof(routine));
		m.regs[0].r8 = m.regs[1].r8 = DATA + 0x800;
		pthread_create(&thread, NULL, other_cpu, &m);
		r = go(&m, 0);
		pthread_join(thread, &result);
		good += r == KVM_EXIT_HLT && (intptr_t)result == KVM_EXIT_HLT && m.regs[0].rax == 2;
		machine_free(&m);
	}
	tap_ok(good == 20, "code patched by another vCPU is seen, %d of 20", good);
}

static void page_crossing(void)
{
	struct kvm_sregs s;
	struct machine m;
	bool good = true;

	if (!machine_make(&m, 1))
		return;
	LOAD(&m, CODE, cross_page_write);
	LOAD(&m, CODE + 0x100, cross_page_read);
	LOAD(&m, HANDLER, fault_handler);
	gate(&m, 14, HANDLER);
	for (unsigned i = 1; i < 8 && good; i++) {
		uint64_t before;

		m.regs[0].rip = CODE;
		m.regs[0].rsp = STACK;
		m.regs[0].r8 = HOLE - i;
		memcpy(&before, m.memory + HOLE - 8, 8);
		good = go(&m, 0) == KVM_EXIT_HLT && m.regs[0].rax == 2 && m.regs[0].rcx == CODE &&
		       !trine_ioctl(m.cpu[0], KVM_GET_SREGS, &s) && s.cr2 == HOLE && !memcmp(&before, m.memory + HOLE - 8, 8);
	}
	tap_ok(good, "a write into a missing second page: CR2 and error code are its own, nothing is written");
	good = true;
	for (unsigned i = 1; i < 8 && good; i++) {
		m.regs[0].rip = CODE + 0x100;
		m.regs[0].rsp = STACK;
		m.regs[0].r8 = HOLE - i;
		good = go(&m, 0) == KVM_EXIT_HLT && m.regs[0].rax == 0 && m.regs[0].rcx == CODE + 0x100 &&
		       !trine_ioctl(m.cpu[0], KVM_GET_SREGS, &s) && s.cr2 == HOLE;
	}
	tap_ok(good, "a read from a missing second page: CR2 and error code are its own");
	machine_free(&m);
}

static void debugging(void)
{
	struct kvm_guest_debug dbg = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	struct machine m;
	unsigned steps = 0;
	int r;

	if (!machine_make(&m, 1))
		return;
	LOAD(&m, CODE, count);
	trine_ioctl(m.cpu[0], KVM_SET_GUEST_DEBUG, &dbg);
	for (r = go(&m, 0); r == KVM_EXIT_DEBUG && steps < 100; r = again(&m, 0))
		steps++;
	tap_ok(r == KVM_EXIT_HLT && steps == 31 && m.regs[0].rax == 10, "single-stepping stops after every instruction: %u of 31", steps);

	memset(&dbg, 0, sizeof(dbg));
	dbg.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	dbg.arch.debugreg[0] = CODE + 8; /* DEC ECX */
	dbg.arch.debugreg[7] = 0x401;
	trine_ioctl(m.cpu[0], KVM_SET_GUEST_DEBUG, &dbg);
	m.regs[0].rip = CODE;
	m.regs[0].rax = 0;
	r = go(&m, 0);
	tap_ok(r == KVM_EXIT_DEBUG && m.regs[0].rip == CODE + 8 && m.regs[0].rax == 1 && (m.run[0]->debug.arch.dr6 & 15) == 1,
	       "an instruction breakpoint stops before its instruction");

	LOAD(&m, CODE, touch);
	dbg.arch.debugreg[0] = DATA + 0x104;
	dbg.arch.debugreg[7] = 0x401 | 1 << 16 | 3 << 18; /* write, 4 bytes */
	trine_ioctl(m.cpu[0], KVM_SET_GUEST_DEBUG, &dbg);
	m.regs[0].rip = CODE;
	m.regs[0].r8 = DATA + 0x100;
	r = go(&m, 0);
	tap_ok(r == KVM_EXIT_DEBUG && m.regs[0].rip == CODE + 3, "a watchpoint stops after the write that hits it");
	r = again(&m, 0);
	tap_ok(r == KVM_EXIT_HLT, "and a read does not hit it");

	memset(&dbg, 0, sizeof(dbg));
	dbg.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
	trine_ioctl(m.cpu[0], KVM_SET_GUEST_DEBUG, &dbg);
	m.memory[CODE + 0x300] = 0x90;
	m.memory[CODE + 0x301] = 0xcc;
	m.regs[0].rip = CODE + 0x300;
	r = go(&m, 0);
	tap_ok(r == KVM_EXIT_DEBUG && m.regs[0].rip == CODE + 0x301 && m.run[0]->debug.arch.exception == 3,
	       "the client's INT3 stops at itself");
	machine_free(&m);
}

static void address_spaces(void)
{
	struct kvm_sregs s;
	struct machine m;

	if (!machine_make(&m, 1))
		return;
	tables(&m, OTHER, OTHER + 0x3000);
	/* the same linear page shows two physical ones */
	put64(&m, OTHER + 0x3000 + (ALIAS >> 12) * 8, STACK | 7);
	put64(&m, DATA + 0x10, 0x1111);
	put64(&m, STACK + 0x10, 0x2222);
	LOAD(&m, CODE, pcid);
	trine_ioctl(m.cpu[0], KVM_GET_SREGS, &s);
	s.cr3 = PML4 | 1;
	s.cr4 |= 1 << 17;
	if (trine_ioctl(m.cpu[0], KVM_SET_SREGS, &s)) {
		tap_skip("no PCID", "address spaces by PCID");
		machine_free(&m);
		return;
	}
	m.regs[0].r8 = ALIAS + 0x10;
	m.regs[0].r9 = OTHER | 2;
	m.regs[0].rsp = 0x40000;
	tap_ok(go(&m, 0) == KVM_EXIT_HLT && m.regs[0].rax == 0x111122221111ULL, "each PCID sees its own page");
	/* global: the first translation of the page survives the switch, as G says */
	put64(&m, PT + (ALIAS >> 12) * 8, DATA | 0x107);
	trine_ioctl(m.cpu[0], KVM_GET_SREGS, &s);
	s.cr3 = PML4 | 1;
	s.cr4 |= 0x80;
	trine_ioctl(m.cpu[0], KVM_SET_SREGS, &s);
	m.regs[0].rip = CODE;
	tap_ok(go(&m, 0) == KVM_EXIT_HLT && m.regs[0].rax == 0x111111111111ULL, "a global page stays over a switch");
	machine_free(&m);
}

static void dirty_logging(void)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .flags = KVM_MEM_LOG_DIRTY_PAGES };
	uint64_t bitmap[MEMORY / 4096 / 64];
	struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
	struct machine m;
	bool good = true;

	if (!machine_make(&m, 1))
		return;
	LOAD(&m, CODE, touch);
	m.regs[0].r8 = DATA + 0x100;
	go(&m, 0); /* the write entry exists before logging begins */
	region.userspace_addr = (uintptr_t)m.memory;
	good = !trine_ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &region);
	trine_ioctl(m.vm, KVM_GET_DIRTY_LOG, &log);
	for (int round = 0; round < 3 && good; round++) {
		uint64_t page = (round == 1 ? STACK : DATA) >> 12;

		m.regs[0].rip = CODE;
		m.regs[0].r8 = (page << 12) + 0x100;
		good = go(&m, 0) == KVM_EXIT_HLT && !trine_ioctl(m.vm, KVM_GET_DIRTY_LOG, &log);
		for (uint64_t i = 0; i < MEMORY / 4096; i++) {
			bool bit = bitmap[i / 64] >> (i % 64) & 1;

			/* accessed and dirty bits are the guest's writes too: its page tables may be in the log */
			if (bit != (i == page) && !(i >= PML4 >> 12 && i <= PT >> 12))
				good = false;
		}
	}
	tap_ok(good, "the dirty log has the pages written since it was read, and no others");
	machine_free(&m);
}

static void client_io(void)
{
	struct machine m;
	uint32_t v;
	bool good;

	if (!machine_make(&m, 1))
		return;
	LOAD(&m, CODE, mmio);
	m.regs[0].r8 = DEVICE;
	good = go(&m, 0) == KVM_EXIT_MMIO && !m.run[0]->mmio.is_write && m.run[0]->mmio.phys_addr == DEVICE && m.run[0]->mmio.len == 4;
	v = 41;
	memcpy(m.run[0]->mmio.data, &v, 4);
	good = good && again(&m, 0) == KVM_EXIT_MMIO && m.run[0]->mmio.is_write && m.run[0]->mmio.phys_addr == DEVICE + 4;
	memcpy(&v, m.run[0]->mmio.data, 4);
	tap_ok(good && v == 42, "MMIO: a read is answered, a write arrives, each once");
	good = again(&m, 0) == KVM_EXIT_MMIO && !m.run[0]->mmio.is_write && m.run[0]->mmio.phys_addr == DEVICE + 8;
	v = 7;
	memcpy(m.run[0]->mmio.data, &v, 4);
	good = good && again(&m, 0) == KVM_EXIT_MMIO && m.run[0]->mmio.is_write;
	memcpy(&v, m.run[0]->mmio.data, 4);
	tap_ok(good && v == 12 && again(&m, 0) == KVM_EXIT_HLT, "a locked read-modify-write of a device is a read and a write");

	LOAD(&m, CODE, pio);
	m.regs[0].rip = CODE;
	good = go(&m, 0) == KVM_EXIT_IO && m.run[0]->io.direction == KVM_EXIT_IO_IN && m.run[0]->io.port == 0x1234;
	v = 99;
	memcpy((uint8_t *)m.run[0] + m.run[0]->io.data_offset, &v, 4);
	good = good && again(&m, 0) == KVM_EXIT_IO && m.run[0]->io.direction == KVM_EXIT_IO_OUT;
	memcpy(&v, (uint8_t *)m.run[0] + m.run[0]->io.data_offset, 4);
	good = good && v == 100;
	for (unsigned n = 0; good && n < 5;) {
		good = again(&m, 0) == KVM_EXIT_IO && m.run[0]->io.direction == KVM_EXIT_IO_IN && m.run[0]->io.count;
		for (unsigned i = 0; good && i < m.run[0]->io.count; i++)
			((uint8_t *)m.run[0])[m.run[0]->io.data_offset + i] = 'a' + n++;
	}
	tap_ok(good && again(&m, 0) == KVM_EXIT_HLT && !memcmp(m.memory + DATA, "abcde", 5), "PIO: in, out, and REP INS, restarted");
	machine_free(&m);
}

static void missing_memory(void)
{
	struct machine m;
	bool good;

	if (!machine_make(&m, 1))
		return;
	LOAD(&m, CODE, touch);
	m.regs[0].r8 = DATA + 0x100;
	go(&m, 0);
	m.regs[0].rip = CODE;
	m.regs[0].rax = 0x77;
	mprotect(m.memory + DATA, 4096, PROT_NONE);
	good = go(&m, 0) == -EFAULT && m.regs[0].rip == CODE;
	mprotect(m.memory + DATA, 4096, PROT_READ | PROT_WRITE);
	tap_ok(good, "memory that the client took away: KVM_RUN gives EFAULT at the instruction");
	tap_ok(again(&m, 0) == KVM_EXIT_HLT && m.memory[DATA + 0x100] == 0x77, "and the guest goes on when it is back");
	machine_free(&m);
}

static void interrupts(void)
{
	struct kvm_guest_debug dbg = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	struct kvm_interrupt irq = { .irq = 32 };
	struct machine m;
	unsigned injected = 0, steps = 0;
	uint64_t last = 0;
	int r;

	if (!machine_make(&m, 1))
		return;
	LOAD(&m, CODE, interrupts);
	LOAD(&m, HANDLER, interrupt_handler);
	gate(&m, 32, HANDLER);
	m.regs[0].r10 = 200;
	trine_ioctl(m.cpu[0], KVM_SET_GUEST_DEBUG, &dbg);
	/* At each instruction of the loop in turn; the handler's are stepped through. */
	for (r = go(&m, 0); r == KVM_EXIT_DEBUG && steps < 20000; r = again(&m, 0), steps++) {
		if (m.regs[0].rip >= HANDLER || m.regs[0].rip == last || !m.run[0]->ready_for_interrupt_injection)
			continue;
		last = m.regs[0].rip;
		if (trine_ioctl(m.cpu[0], KVM_INTERRUPT, &irq))
			break;
		injected++;
	}
	tap_ok(r == KVM_EXIT_HLT && m.regs[0].rax == 1 && injected >= 200, "interrupts between any two instructions lose no register: %u",
	       injected);
	machine_free(&m);
}

static void floating_point(void)
{
	struct machine m;
	struct kvm_fpu fpu;

	if (!machine_make(&m, 1))
		return;
	LOAD(&m, HANDLER, simple_handler);
	gate(&m, 19, HANDLER);
	gate(&m, 16, HANDLER);
	LOAD(&m, CODE, simd_exception);
	tap_ok(go(&m, 0) == KVM_EXIT_HLT && m.regs[0].rcx == CODE + 0x1e - 0 && !trine_ioctl(m.cpu[0], KVM_GET_FPU, &fpu) &&
	       (fpu.mxcsr & 4) && !memcmp(fpu.xmm[1], fpu.xmm[2], 16), "an unmasked SIMD exception is #XM, the destination stays");
	LOAD(&m, CODE + 0x100, x87_exception);
	m.regs[0].rip = CODE + 0x100;
	tap_ok(go(&m, 0) == KVM_EXIT_HLT && !trine_ioctl(m.cpu[0], KVM_GET_FPU, &fpu) && (fpu.fsw & 0x84) == 0x84,
	       "an unmasked x87 exception is #MF at the next waiting instruction");
	machine_free(&m);
}

int main(void)
{
	tap_begin();
	self_modifying();
	cross_modifying();
	page_crossing();
	debugging();
	address_spaces();
	dirty_logging();
	client_io();
	missing_memory();
	interrupts();
	floating_point();
	return tap_end();
}
