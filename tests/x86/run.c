/* KVM_RUN: what leaves to the client, what the client's answers do, and that no instruction is left half done. */
#include <errno.h>

#include <asm/kvm_para.h>

#include "core/x86/clock.h"
#include "core/x86/debug.h"
#include "core/x86/irqchip/irqchip.h"
#include "tests/tap.h"
#include "tests/x86/fake.h"

#define CODE 0x1000
#define MMIO 0xf0000000ULL

static struct machine m;

static u8 *pio(void)
{
	return (u8 *)m.run + m.run->io.data_offset;
}

static u64 *gpr(unsigned n)
{
	return &m.vcpu->x86.gpr[n];
}

#define REAL(bytes)                                                                                                    \
	do {                                                                                                           \
		machine_code(&m, CODE, bytes, sizeof(bytes) - 1);                                                      \
		machine_real_mode(&m, CODE);                                                                           \
	} while (0)
#define LONG64(bytes)                                                                                                  \
	do {                                                                                                           \
		machine_code(&m, CODE, bytes, sizeof(bytes) - 1);                                                      \
		machine_long_mode(&m, CODE);                                                                           \
	} while (0)

static bool ran_to(u32 reason)
{
	long r = machine_run(&m);

	if (!r && m.run->exit_reason == reason)
		return true;
	tap_diag("KVM_RUN %ld, exit %u (suberror %u), rip %llx", r, m.run->exit_reason, m.run->internal.suberror,
		 (unsigned long long)m.vcpu->x86.rip);
	return false;
}

static bool is_pio(u8 direction, u16 port, u8 size, u32 count)
{
	return m.run->io.direction == direction && m.run->io.port == port && m.run->io.size == size &&
	       m.run->io.count == count;
}

static void ports(void)
{
	REAL("\xb8\x34\x12\xba\x80\x00\xef\xf4"); /* mov ax,1234h; mov dx,80h; out dx,ax; hlt */
	tap_ok(ran_to(KVM_EXIT_IO) && is_pio(KVM_EXIT_IO_OUT, 0x80, 2, 1) && pio()[0] == 0x34 && pio()[1] == 0x12,
	       "OUT leaves with port, size and data");
	tap_ok(ran_to(KVM_EXIT_HLT) && m.vcpu->x86.rip == CODE + 8, "and goes on behind the instruction");

	REAL("\xe4\x60\xf4"); /* in al,60h; hlt */
	*gpr(REG_AX) = 0x1200;
	tap_ok(ran_to(KVM_EXIT_IO) && is_pio(KVM_EXIT_IO_IN, 0x60, 1, 1), "IN leaves");
	pio()[0] = 0xa5;
	m.run->immediate_exit = 1;
	tap_ok(machine_run(&m) == -EINTR && (u16)*gpr(REG_AX) == 0x12a5 && m.vcpu->x86.rip == CODE + 2,
	       "immediate_exit after IN: the instruction is complete");
	m.run->immediate_exit = 0;
	tap_ok(ran_to(KVM_EXIT_HLT), "and the guest goes on");

	REAL("\xe4\x60\xe4\x60\xf4"); /* in al,60h twice */
	ran_to(KVM_EXIT_IO);
	pio()[0] = 1;
	tap_ok(ran_to(KVM_EXIT_IO) && (u8)*gpr(REG_AX) == 1, "the next IN of the same port is asked anew");
	pio()[0] = 2;
	tap_ok(ran_to(KVM_EXIT_HLT) && (u8)*gpr(REG_AX) == 2, "and gets its own answer");
}

static void string_ports(void)
{
	unsigned exits = 0, words = 0;

	REAL("\xf3\x6d\xf4"); /* rep insw; hlt */
	*gpr(REG_CX) = 256;
	*gpr(REG_DX) = 0x1f0;
	*gpr(REG_DI) = 0x2f80; /* across a page's end */
	while (!machine_run(&m) && m.run->exit_reason == KVM_EXIT_IO) {
		for (u32 i = 0; i < m.run->io.count; i++, words++)
			memcpy(pio() + i * 2, &words, 2);
		exits++;
	}
	tap_ok(m.run->exit_reason == KVM_EXIT_HLT && words == 256 && exits <= 4,
	       "REP INSW moves many words an exit (%u exits for %u words)", exits, words);
	words = 0;
	while (words < 256 && m.ram[0x2f80 + words * 2] == (u8)words && m.ram[0x2f81 + words * 2] == words >> 8)
		words++;
	tap_ok(words == 256 && (u16)*gpr(REG_CX) == 0 && (u16)*gpr(REG_DI) == 0x3180, "each at its place, in order");

	REAL("\xf3\x6e\xf4"); /* rep outsb; hlt */
	machine_code(&m, 0x3000, "hello, world", 12);
	*gpr(REG_CX) = 12;
	*gpr(REG_DX) = 0x402;
	*gpr(REG_SI) = 0x3000;
	tap_ok(ran_to(KVM_EXIT_IO) && is_pio(KVM_EXIT_IO_OUT, 0x402, 1, 12) && !memcmp(pio(), "hello, world", 12),
	       "REP OUTSB hands over the whole string at once");
	tap_ok(ran_to(KVM_EXIT_HLT), "and goes on");

	REAL("\xfd\xf3\x6c\xf4"); /* std; rep insb; hlt */
	*gpr(REG_CX) = 3;
	*gpr(REG_DX) = 0x71;
	*gpr(REG_DI) = 0x3002;
	for (exits = 0; !machine_run(&m) && m.run->exit_reason == KVM_EXIT_IO; exits++)
		pio()[0] = 0x10 + exits;
	tap_ok(exits == 3 && m.ram[0x3002] == 0x10 && m.ram[0x3000] == 0x12, "with DF set the elements go down, one by one");
}

static void mmio(void)
{
	LONG64("\x48\x89\x03\xf4"); /* mov [rbx],rax; hlt */
	*gpr(REG_AX) = 0x1122334455667788;
	*gpr(REG_BX) = MMIO;
	tap_ok(ran_to(KVM_EXIT_MMIO) && m.run->mmio.is_write && m.run->mmio.phys_addr == MMIO && m.run->mmio.len == 8 &&
		       !memcmp(m.run->mmio.data, gpr(REG_AX), 8),
	       "a write to nothing is MMIO");
	tap_ok(ran_to(KVM_EXIT_HLT), "and goes on");

	LONG64("\x8b\x03\xf4"); /* mov eax,[rbx]; hlt */
	*gpr(REG_BX) = MMIO + 4;
	tap_ok(ran_to(KVM_EXIT_MMIO) && !m.run->mmio.is_write && m.run->mmio.phys_addr == MMIO + 4 && m.run->mmio.len == 4,
	       "a read too");
	memcpy(m.run->mmio.data, "\x78\x56\x34\x12", 4);
	tap_ok(ran_to(KVM_EXIT_HLT) && *gpr(REG_AX) == 0x12345678, "and gets what the client says");

	LONG64("\x83\x0b\x01\xf4"); /* or dword [rbx],1; hlt */
	*gpr(REG_BX) = MMIO;
	ran_to(KVM_EXIT_MMIO);
	memcpy(m.run->mmio.data, "\x10\x00\x00\x00", 4);
	tap_ok(ran_to(KVM_EXIT_MMIO) && m.run->mmio.is_write && m.run->mmio.data[0] == 0x11,
	       "read-modify-write is a read and a write");
	tap_ok(ran_to(KVM_EXIT_HLT), "and goes on");

	LONG64("\x48\x89\x03\xf4");
	*gpr(REG_AX) = 0x1122334455667788;
	*gpr(REG_BX) = MMIO + 0xffd; /* two pages of the same device */
	tap_ok(ran_to(KVM_EXIT_MMIO) && m.run->mmio.len == 3 && m.run->mmio.phys_addr == MMIO + 0xffd,
	       "a write over a page's end comes in two pieces: the first");
	tap_ok(ran_to(KVM_EXIT_MMIO) && m.run->mmio.len == 5 && m.run->mmio.phys_addr == MMIO + 0x1000 &&
		       m.run->mmio.data[0] == 0x55,
	       "and the second");
	tap_ok(ran_to(KVM_EXIT_HLT), "and goes on");

	LONG64("\xf3\xa4\xf4"); /* rep movsb; hlt */
	*gpr(REG_CX) = 3;
	*gpr(REG_SI) = MMIO;
	*gpr(REG_DI) = 0x3000;
	for (unsigned i = 0; i < 3; i++) {
		tap_ok(ran_to(KVM_EXIT_MMIO) && m.run->mmio.phys_addr == MMIO + i, "REP MOVSB from a device: element %u", i);
		m.run->mmio.data[0] = 'a' + i;
	}
	tap_ok(ran_to(KVM_EXIT_HLT) && !memcmp(m.ram + 0x3000, "abc", 3), "and all arrive");

	LONG64("\x48\xa5\xf4"); /* movsq: device to device */
	*gpr(REG_SI) = MMIO;
	*gpr(REG_DI) = MMIO + 0x100;
	ran_to(KVM_EXIT_MMIO);
	memcpy(m.run->mmio.data, "12345678", 8);
	tap_ok(ran_to(KVM_EXIT_MMIO) && m.run->mmio.is_write && m.run->mmio.phys_addr == MMIO + 0x100 &&
		       !memcmp(m.run->mmio.data, "12345678", 8) && *gpr(REG_SI) == MMIO + 8,
	       "MOVSQ from a device to a device");
	ran_to(KVM_EXIT_HLT);

	LONG64("\x8b\x03\xf4");
	*gpr(REG_BX) = MMIO;
	ran_to(KVM_EXIT_MMIO);
	machine_long_mode(&m, CODE + 2);
	tap_ok(ran_to(KVM_EXIT_HLT), "an answer after the client moved the vCPU elsewhere is dropped");
}

static void read_only_memory(void)
{
	struct kvm_userspace_memory_region region = { .slot = 1, .flags = KVM_MEM_READONLY, .memory_size = 0x1000,
						      .guest_phys_addr = MMIO,
						      .userspace_addr = (u64)(unsigned long)m.ram + 0x5000 };

	machine_ioctl(m.vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
	put32(&m, 0x5000, 0xcafe);
	LONG64("\x8b\x03\x89\x0b\xf4"); /* mov eax,[rbx]; mov [rbx],ecx; hlt */
	*gpr(REG_BX) = MMIO;
	*gpr(REG_CX) = 7;
	tap_ok(ran_to(KVM_EXIT_MMIO) && *gpr(REG_AX) == 0xcafe && m.run->mmio.is_write && m.run->mmio.data[0] == 7 &&
		       get32(&m, 0x5000) == 0xcafe,
	       "read-only memory is read directly, a write is MMIO");
	ran_to(KVM_EXIT_HLT);
	region.memory_size = 0;
	machine_ioctl(m.vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static void interrupts_by_client(void)
{
	struct kvm_interrupt irq = { .irq = 0x20 };

	REAL("\xfa\xeb\xfe"); /* cli; jmp $ */
	put32(&m, 0x20 * 4, 0x2000); /* IVT: 0:2000h */
	machine_code(&m, 0x2000, "\xf4", 1);
	machine_code(&m, CODE, "\xfb\x90\x90\xeb\xfe", 5); /* sti; nop; nop; jmp $ */
	m.run->request_interrupt_window = 1;
	tap_ok(ran_to(KVM_EXIT_IRQ_WINDOW_OPEN) && m.vcpu->x86.rip == CODE + 2 && m.run->ready_for_interrupt_injection &&
		       m.run->if_flag,
	       "the interrupt window opens after the instruction behind STI");
	m.run->request_interrupt_window = 0;
	tap_ok(!machine_ioctl(m.vcpu_fd, KVM_INTERRUPT, &irq) && ran_to(KVM_EXIT_HLT) && m.vcpu->x86.rip == 0x2001 &&
		       !m.run->if_flag && get32(&m, m.vcpu->x86.gpr[REG_SP]) == CODE + 2,
	       "KVM_INTERRUPT goes through the vector table");
	REAL("\xe4\x60\xf4"); /* in al,60h; hlt, with interrupts on */
	m.vcpu->x86.rflags |= RFLAGS_IF;
	ran_to(KVM_EXIT_IO);
	pio()[0] = 0x5a;
	machine_ioctl(m.vcpu_fd, KVM_INTERRUPT, &irq);
	tap_ok(ran_to(KVM_EXIT_HLT) && m.vcpu->x86.rip == 0x2001 && (u8)*gpr(REG_AX) == 0x5a &&
		       (u16)get32(&m, *gpr(REG_SP)) == CODE + 2,
	       "KVM_INTERRUPT while IN waits: the instruction first, its answer once, then the interrupt");

	/* rdmsr of nothing, answered with an error: #GP, and an interrupt behind it */
	{
		struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { KVM_MSR_EXIT_REASON_UNKNOWN } };

		machine_ioctl(m.vm_fd, KVM_ENABLE_CAP, &cap);
		REAL("\x0f\x32\xf4");
		put32(&m, 13 * 4, 0x2100);
		machine_code(&m, 0x2100, "\x90\xf4", 2);
		*gpr(REG_CX) = 0x12345678;
		ran_to(KVM_EXIT_X86_RDMSR);
		m.run->msr.error = 1;
		machine_ioctl(m.vcpu_fd, KVM_INTERRUPT, &irq);
		tap_ok(ran_to(KVM_EXIT_HLT) && m.vcpu->x86.rip == 0x2001 && (u16)get32(&m, *gpr(REG_SP)) == 0x2100 &&
			       (u16)get32(&m, *gpr(REG_SP) + 6) == CODE,
		       "an exception of the instruction before goes first, and loses no interrupt");
		cap.args[0] = 0;
		machine_ioctl(m.vm_fd, KVM_ENABLE_CAP, &cap);
	}
	irq.irq = 256;
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_INTERRUPT, &irq) == -EINVAL, "KVM_INTERRUPT refuses vector 256");
}

static void nmi(void)
{
	REAL("\x90\xf4");
	put32(&m, 2 * 4, 0x2000);
	machine_code(&m, 0x2000, "\xb0\x01\xcf", 3); /* mov al,1; iret */
	*gpr(REG_AX) = 0;
	machine_ioctl(m.vcpu_fd, KVM_NMI, NULL);
	tap_ok(ran_to(KVM_EXIT_HLT) && *gpr(REG_AX) == 1 && m.vcpu->x86.rip == CODE + 2 && !m.vcpu->x86.nmi_masked,
	       "an NMI interrupts, IRET unmasks");
	machine_code(&m, 0x2000, "\xf4\xcf", 2);
	REAL("\x90\xf4");
	machine_ioctl(m.vcpu_fd, KVM_NMI, NULL);
	ran_to(KVM_EXIT_HLT);
	machine_ioctl(m.vcpu_fd, KVM_NMI, NULL);
	tap_ok(m.vcpu->x86.rip == 0x2001 && m.vcpu->x86.nmi_masked && ran_to(KVM_EXIT_HLT) && m.vcpu->x86.rip == 0x2001,
	       "an NMI during an NMI waits for IRET and is taken then");
}

static void debugging(void)
{
	struct kvm_guest_debug dbg = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };

	REAL("\x90\x90\xf4");
	machine_ioctl(m.vcpu_fd, KVM_SET_GUEST_DEBUG, &dbg);
	tap_ok(ran_to(KVM_EXIT_DEBUG) && m.run->debug.arch.exception == 1 && m.run->debug.arch.pc == CODE + 1 &&
		       (m.run->debug.arch.dr6 & DR6_BS),
	       "single-stepping leaves after each instruction");
	tap_ok(ran_to(KVM_EXIT_DEBUG) && m.run->debug.arch.pc == CODE + 2, "and again");

	REAL("\xe4\x60\xf4");
	ran_to(KVM_EXIT_IO);
	tap_ok(ran_to(KVM_EXIT_DEBUG) && m.run->debug.arch.pc == CODE + 2, "a step over IN ends after the client's answer");
	REAL("\xe6\x60\xf4");
	ran_to(KVM_EXIT_IO);
	tap_ok(ran_to(KVM_EXIT_DEBUG) && m.run->debug.arch.pc == CODE + 2, "a step over OUT ends after it");

	dbg.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	dbg.arch.debugreg[0] = CODE + 1;
	dbg.arch.debugreg[7] = 0x402;
	REAL("\x90\x90\xf4");
	machine_ioctl(m.vcpu_fd, KVM_SET_GUEST_DEBUG, &dbg);
	tap_ok(ran_to(KVM_EXIT_DEBUG) && m.run->debug.arch.pc == CODE + 1 && (m.run->debug.arch.dr6 & 1),
	       "a hardware breakpoint of the client");
	dbg.arch.debugreg[0] = 0x3000;
	dbg.arch.debugreg[7] = 0x402 | 1 << 16 | 3 << 18; /* write, 4 bytes */
	REAL("\xa3\x02\x30\xf4"); /* mov [3002h],ax */
	machine_ioctl(m.vcpu_fd, KVM_SET_GUEST_DEBUG, &dbg);
	tap_ok(ran_to(KVM_EXIT_DEBUG) && m.run->debug.arch.pc == CODE + 3, "a watchpoint traps after the write");
	dbg.control = 0;
	machine_ioctl(m.vcpu_fd, KVM_SET_GUEST_DEBUG, &dbg);

	REAL("\x9c\x58\x0d\x00\x01\x50\x9d\x90\xf4"); /* pushf; pop ax; or ax,100h; push ax; popf; nop; hlt */
	put32(&m, 4, 0x2000);
	machine_code(&m, 0x2000, "\xf4", 1);
	tap_ok(ran_to(KVM_EXIT_HLT) && m.vcpu->x86.rip == 0x2001 && (m.vcpu->x86.dr6 & DR6_BS) &&
		       (u16)get32(&m, *gpr(REG_SP)) == CODE + 8,
	       "the guest's own TF raises #DB with DR6.BS after one instruction");
	dbg.control = 1U << 31;
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_GUEST_DEBUG, &dbg) == -EINVAL, "unknown debug bits are refused");
}

static void msr_exits(void)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_USER_SPACE_MSR,
				      .args = { KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER } };
	u8 bitmap[1] = { 0 };
	struct kvm_msr_filter filter = { .ranges[0] = { .flags = KVM_MSR_FILTER_READ, .nmsrs = 1, .base = 0x277,
							 .bitmap = bitmap } };

	machine_ioctl(m.vm_fd, KVM_ENABLE_CAP, &cap);
	LONG64("\x0f\x32\xf4"); /* rdmsr; hlt */
	*gpr(REG_CX) = 0x12345678;
	tap_ok(ran_to(KVM_EXIT_X86_RDMSR) && m.run->msr.index == 0x12345678 &&
		       m.run->msr.reason == KVM_MSR_EXIT_REASON_UNKNOWN,
	       "an unknown MSR is the client's when it asked for that");
	m.run->msr.data = 0x1111111122222222;
	tap_ok(ran_to(KVM_EXIT_HLT) && *gpr(REG_AX) == 0x22222222 && *gpr(REG_DX) == 0x11111111, "the client's value arrives");

	LONG64("\x0f\x30\xf4"); /* wrmsr; hlt */
	*gpr(REG_CX) = 0x12345678;
	*gpr(REG_AX) = 5;
	tap_ok(ran_to(KVM_EXIT_X86_WRMSR) && m.run->msr.data == 5, "a write too");
	m.run->msr.error = 1;
	tap_ok(ran_to(KVM_EXIT_SHUTDOWN), "an error of the client's is #GP (here without an IDT)");

	tap_ok(!machine_ioctl(m.vm_fd, KVM_X86_SET_MSR_FILTER, &filter), "KVM_X86_SET_MSR_FILTER");
	LONG64("\x0f\x32\xf4");
	*gpr(REG_CX) = 0x277;
	tap_ok(ran_to(KVM_EXIT_X86_RDMSR) && m.run->msr.reason == KVM_MSR_EXIT_REASON_FILTER, "a filtered MSR leaves");
	m.run->msr.data = 9;
	tap_ok(ran_to(KVM_EXIT_HLT) && *gpr(REG_AX) == 9, "and is answered");
	filter.ranges[0].nmsrs = 0;
	machine_ioctl(m.vm_fd, KVM_X86_SET_MSR_FILTER, &filter);
	cap.args[0] = 0;
	machine_ioctl(m.vm_fd, KVM_ENABLE_CAP, &cap);
	LONG64("\x0f\x32\xf4");
	*gpr(REG_CX) = 0x277;
	tap_ok(ran_to(KVM_EXIT_HLT) && *gpr(REG_AX) == 0x00070406, "without the filter the MSR is the vCPU's again");
}

static void sync_regs(void)
{
	REAL("\xf4\xf4");
	m.run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	tap_ok(ran_to(KVM_EXIT_HLT) && m.run->s.regs.regs.rip == CODE + 1 && m.run->s.regs.sregs.cs.base == 0,
	       "kvm_valid_regs: registers come with the exit");
	m.run->s.regs.regs.rax = 0x77;
	m.run->s.regs.regs.rip = CODE;
	m.run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	tap_ok(ran_to(KVM_EXIT_HLT) && *gpr(REG_AX) == 0x77 && m.vcpu->x86.rip == CODE + 1 && !m.run->kvm_dirty_regs,
	       "kvm_dirty_regs: and go with the entry");
	m.run->kvm_valid_regs = BIT64(20);
	tap_ok(machine_run(&m) == -EINVAL, "unknown register groups are refused");
	m.run->kvm_valid_regs = 0;
	m.run->kvm_dirty_regs = BIT64(20);
	tap_ok(machine_run(&m) == -EINVAL, "in either direction");
	m.run->kvm_dirty_regs = 0;
}

static void hard_ends(void)
{
	LONG64("\x0f\x0b"); /* ud2 without an IDT */
	tap_ok(ran_to(KVM_EXIT_SHUTDOWN), "a fault with no way to deliver it ends in a triple fault");
	LONG64("\xf4");
	m.run->immediate_exit = 1;
	tap_ok(machine_run(&m) == -EINTR && m.vcpu->x86.rip == CODE, "immediate_exit: nothing runs");
	m.run->immediate_exit = 0;
	LONG64("\xff\xe3"); /* jmp rbx, into a device */
	*gpr(REG_BX) = MMIO;
	tap_ok(ran_to(KVM_EXIT_INTERNAL_ERROR) && m.run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION,
	       "code in a device cannot be run");
	LONG64("\x44\x0f\x22\xc0\xf4"); /* mov cr8,rax */
	*gpr(REG_AX) = 3;
	m.run->cr8 = 8;
	tap_ok(ran_to(KVM_EXIT_SET_TPR) && m.run->cr8 == 3, "a lowered CR8 is told to a client with its own LAPIC");
	m.run->cr8 = 16;
	tap_ok(machine_run(&m) == -EINVAL, "CR8 has four bits");
	m.run->cr8 = 0;
}

static void hypercalls(void)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1ULL << 12 } };

	LONG64("\x0f\x01\xc1\xf4"); /* vmcall; hlt */
	*gpr(REG_AX) = 12;
	*gpr(REG_BX) = 0x1000;
	*gpr(REG_CX) = 1;
	tap_ok(ran_to(KVM_EXIT_HLT) && *gpr(REG_AX) == (u64)-1000, "a hypercall that nobody offers gives -KVM_ENOSYS");
	machine_ioctl(m.vm_fd, KVM_ENABLE_CAP, &cap);
	LONG64("\x0f\x01\xd9\xf4"); /* vmmcall; hlt */
	*gpr(REG_AX) = 12;
	*gpr(REG_BX) = 0x1000;
	*gpr(REG_CX) = 1;
	tap_ok(ran_to(KVM_EXIT_HYPERCALL) && m.run->hypercall.nr == 12 && m.run->hypercall.args[0] == 0x1000 &&
		       m.run->hypercall.longmode,
	       "KVM_HC_MAP_GPA_RANGE leaves when the client asked for it");
	m.run->hypercall.ret = 42;
	tap_ok(ran_to(KVM_EXIT_HLT) && *gpr(REG_AX) == 42, "and returns what it says");
	cap.args[0] = 1;
	tap_ok(machine_ioctl(m.vm_fd, KVM_ENABLE_CAP, &cap) == -EINVAL, "other hypercalls cannot be asked for");
}

static void in_core_chips(void)
{
	struct machine two;
	struct kvm_mp_state mp;
	struct kvm_msrs *msrs;
	u8 buf[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] __attribute__((aligned(8))) = { 0 };

	machine_init(&two, 2, true);
	machine_ioctl(two.vcpu2_fd, KVM_GET_MP_STATE, &mp);
	tap_ok(mp.mp_state == KVM_MP_STATE_UNINITIALIZED, "a second vCPU waits for INIT and SIPI");
	machine_ioctl(two.vcpu_fd, KVM_GET_MP_STATE, &mp);
	tap_ok(mp.mp_state == KVM_MP_STATE_RUNNABLE, "the first runs");

	/* x2APIC by MSR from the client, then INIT and SIPI to APIC 1 */
	msrs = (void *)buf;
	msrs->nmsrs = 1;
	msrs->entries[0].index = 0x1b;
	msrs->entries[0].data = 0xfee00d00;
	tap_ok(machine_ioctl(two.vcpu_fd, KVM_SET_MSRS, msrs) == 1, "x2APIC mode");
	irq_deliver(two.vm, two.vcpu, &(struct lapic_irq){ .dest = 1, .delivery_mode = 5, .assert = true, .level = true });
	irq_deliver(two.vm, two.vcpu, &(struct lapic_irq){ .dest = 1, .delivery_mode = 6, .vector = 2 });
	tap_ok(machine_ioctl(two.vcpu2_fd, KVM_RUN, NULL) == -EAGAIN && two.vcpu2->mp_state == KVM_MP_STATE_RUNNABLE &&
		       two.vcpu2->x86.seg[SEG_CS].base == 0x2000 && two.vcpu2->x86.rip == 0,
	       "INIT and SIPI start it at the vector's page");

	/* HLT with an interrupt pending: does not sleep */
	machine_code(&two, CODE, "\xfb\xf4\xeb\xfd", 4); /* sti; hlt; jmp back to hlt */
	machine_code(&two, 0x2000, "\xe6\x80\xcf", 3);	  /* out 80h,al; iret */
	put32(&two, 0x40 * 4, 0x2000);
	machine_real_mode(&two, CODE);
	msrs->entries[0].index = 0x1b;
	msrs->entries[0].data = 0xfee00d00;
	machine_ioctl(two.vcpu_fd, KVM_SET_MSRS, msrs);
	msrs->entries[0].index = 0x80f; /* SVR: software enable */
	msrs->entries[0].data = 0x1ff;
	machine_ioctl(two.vcpu_fd, KVM_SET_MSRS, msrs);
	irq_deliver(two.vm, NULL, &(struct lapic_irq){ .dest = 0, .vector = 0x40, .assert = true });
	tap_ok(!machine_run(&two) && two.run->exit_reason == KVM_EXIT_IO && two.run->io.port == 0x80,
	       "an interrupt of the LAPIC wakes HLT and goes through the vector table");
	irq_deliver(two.vm, NULL, &(struct lapic_irq){ .dest = 0, .vector = 0x40, .assert = true });
	tap_ok(two.vcpu->stats->irq_injections == 1, "and is counted");
	machine_destroy(&two);
}

/* The VM's clock by what its kvmclock page says at the vCPU's TSC now. */
static u64 page_clock(u64 at)
{
	u64 ticks = vcpu_read_tsc(m.vcpu) - get64(&m, at + 8);
	s8 shift = (s8)m.ram[at + 28];
	u32 mul;

	memcpy(&mul, m.ram + at + 24, sizeof(mul));
	ticks = shift < 0 ? ticks >> -shift : ticks << shift;
	return get64(&m, at + 16) + (u64)((unsigned __int128)ticks * mul >> 32);
}

static void host_slept(void)
{
	u8 buf[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] __attribute__((aligned(8))) = { 0 };
	struct kvm_msrs *msrs = (void *)buf;
	const u64 lost = 1ULL << 50; /* days */
	u64 tsc = vcpu_read_tsc(m.vcpu), clock = vm_kvmclock_ns(m.vm), page, offset = m.vcpu->tsc_offset;
	const u64 minute = 60000000000ULL, minute_ticks = 60000ULL * clock_counter_khz();

	msrs->nmsrs = 1;
	msrs->entries[0].index = MSR_KVM_SYSTEM_TIME_NEW;
	msrs->entries[0].data = 0x3000 | KVM_MSR_ENABLED;
	machine_code(&m, CODE, "\xf4\xf4", 2); /* hlt, twice */
	machine_real_mode(&m, CODE);
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_MSRS, msrs) == 1, "a guest has kvmclock");
	tap_ok(ran_to(KVM_EXIT_HLT), "and runs");
	tap_ok(m.vcpu->host_tsc_offset == offset, "its TSC is the host's and its own offset");
	clock_woke(host_rdtsc() - 1000);
	tap_ok(vcpu_read_tsc(m.vcpu) - tsc < minute_ticks && !clock_lost, "a host whose TSC went on while it slept");
	/* The TSC was @lost ahead: now its guests' would be as much behind, were it not made up for */
	clock_woke(host_rdtsc() + lost);
	tap_ok(vcpu_read_tsc(m.vcpu) - tsc - lost < minute_ticks, "the TSC of a guest, which read it before, does not go back with the host's");
	page = vm_kvmclock_ns(m.vm);
	tap_ok(page > clock && page - clock > lost / clock_counter_khz() * 999000, "nor does its VM's clock");
	tap_ok(ran_to(KVM_EXIT_HLT) && m.vcpu->host_tsc_offset == offset + clock_lost, "the processor gets an offset that makes up for it");
	tap_ok(page_clock(0x3000) - vm_kvmclock_ns(m.vm) + minute < 2 * minute, "kvmclock's page says the same");
	tap_ok(m.vcpu->tsc_offset == offset, "what a client sees of the offset is as before");
	clock_lost = 0;
}

int main(void)
{
	tap_begin();
	machine_init(&m, 1, false);
	ports();
	string_ports();
	mmio();
	read_only_memory();
	interrupts_by_client();
	nmi();
	debugging();
	msr_exits();
	sync_regs();
	hard_ends();
	hypercalls();
	machine_destroy(&m);
	machine_init(&m, 1, false);
	host_slept();
	machine_destroy(&m);
	in_core_chips();
	return tap_end();
}
