/*
 * The local APIC as the guest has it: registers in memory and as MSRs, priorities, interrupts to itself, ends of interrupts, and what the client
 * sees and changes meanwhile. Engines may leave all this to the processor, and take it back at any time.
 */
#include <sys/eventfd.h>
#include <time.h>

#include "tests/api/api.h"

/* mov dword [0xfee00000 + reg], value; R13 is the page */
#define APIC_WRITE(reg, value) "\x41\xc7\x85" reg "\x00\x00" value
#define APIC_READ(reg)	       "\x41\x8b\x85" reg "\x00\x00" /* mov eax, [r13 + reg] */
#define MOV_CR8(value)	       "\xb8" value "\x00\x00\x00\x44\x0f\x22\xc0"
#define OUT(port)	       "\xe7" port /* out port, eax */

static bool leaves_with(struct guest *g, uint8_t port, uint32_t value)
{
	return guest_run(g) == KVM_EXIT_IO && g->run->io.port == port && *(uint32_t *)((uint8_t *)g->run + g->run->io.data_offset) == value;
}

/* What the TPR holds back, by whichever way it is written; interrupts are counted at 0x2000 (class 6) and 0x2001 (class 3). */
static void priority(void)
{
	static const char code[] =
		APIC_WRITE("\xf0\x00", "\xff\x01\x00\x00")
		MOV_CR8("\x05") "\xfb"
		APIC_WRITE("\x00\x03", "\x31\x00\x04\x00")	/* to itself: held back */
		APIC_WRITE("\x00\x03", "\x61\x00\x04\x00")	/* not held back */
		APIC_READ("\x80\x00") OUT("\x10")
		APIC_WRITE("\x80\x00", "\x3f\x00\x00\x00") "\x44\x0f\x20\xc0" OUT("\x11")	/* mov rax, cr8 */
		MOV_CR8("\x02") "\x90" OUT("\x12")
		APIC_READ("\x80\x00") OUT("\x13")
		APIC_WRITE("\x80\x00", "\xf0\x00\x00\x00") APIC_WRITE("\x00\x03", "\x31\x00\x04\x00")
		APIC_WRITE("\x80\x00", "\x00\x00\x00\x00") "\x90" OUT("\x14")
		APIC_READ("\x80\x00");
	static const char six[] = "\x41\xfe\x06" APIC_WRITE("\xb0\x00", "\x00\x00\x00\x00") "\x48\xcf";	    /* inc byte [r14]; EOI; iretq */
	static const char three[] = "\x41\xfe\x46\x01" APIC_WRITE("\xb0\x00", "\x00\x00\x00\x00") "\x48\xcf"; /* inc byte [r14 + 1] ... */
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct guest g;

	if (!guest_init_irqchip(&g, 16))
		return;
	guest_long_code(&g, 0x1000, code, sizeof(code));
	guest_gate(&g, 0x61, 0x3000, six, sizeof(six));
	guest_gate(&g, 0x31, 0x3100, three, sizeof(three));
	api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
	regs.r13 = 0xfee00000;
	regs.r14 = 0x2000;
	api.ioctl(g.vcpu, KVM_SET_REGS, &regs);
	tap_ok(leaves_with(&g, 0x10, 0x50) && g.run->cr8 == 5, "MOV to CR8 is seen in the TPR and in kvm_run");
	tap_ok(g.mem[0x2000] == 1 && !g.mem[0x2001], "an interrupt above the priority is taken, one below waits");
	tap_ok(leaves_with(&g, 0x11, 3) && g.run->cr8 == 3, "a write of the TPR is seen in CR8");
	equals(g.mem[0x2001], 0, "an interrupt of the priority's own class waits");
	tap_ok(leaves_with(&g, 0x12, 2) && g.run->cr8 == 2 && g.mem[0x2001] == 1, "when MOV to CR8 lowers the priority it is taken");
	tap_ok(leaves_with(&g, 0x13, 0x20), "MOV to CR8 clears the TPR's low half");
	tap_ok(leaves_with(&g, 0x14, 0x20) && g.mem[0x2000] == 1 && g.mem[0x2001] == 2, "and when a write of the TPR lowers it");
	api.ioctl(g.vcpu, KVM_GET_SREGS, &sregs);
	sregs.apic_base = 0xfed00800;
	accepts(api.ioctl(g.vcpu, KVM_SET_SREGS, &sregs), "the local APIC moves");
	tap_ok(guest_run(&g) == KVM_EXIT_MMIO && g.run->mmio.phys_addr == 0xfee00080 && g.run->mmio.len == 4 && !g.run->mmio.is_write,
	       "where it was is nothing");
	guest_done(&g);
}

#define TIMES	      50
#define MOV_ECX(value) "\xb9" value
#define X2APIC(reg)   MOV_ECX(reg "\x08\x00\x00") /* mov ecx, 0x800 + reg */
#define WRMSR_0	      "\x31\xd2\x31\xc0\x0f\x30"  /* xor edx, edx; xor eax, eax; wrmsr */
#define RDMSR	      "\x0f\x32"
#define COUNT	      "\x41\xff\x06" /* inc dword [r14] */
#define IRETQ	      "\x48\xcf"
#define EOI	      APIC_WRITE("\xb0\x00", "\x00\x00\x00\x00")

enum { COUNTER = 0x2000, HANDLER = 0x3000, ID = 0x20, TPR = 0x80, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ISR = 0x100, TMR = 0x180, IRR = 0x200,
       ESR = 0x280, ICR = 0x300, ICR2 = 0x310, LVT_TIMER = 0x320, LVT_ERROR = 0x370, TMICT = 0x380, TDCR = 0x3e0,
       SELF_IPI = 0x3f0 };

static uint32_t reg_of(struct guest *g, unsigned offset)
{
	struct kvm_lapic_state state;

	api.ioctl(g->vcpu, KVM_GET_LAPIC, &state);
	return *(uint32_t *)(state.regs + offset);
}

static void set_reg_of(struct guest *g, unsigned offset, uint32_t value)
{
	struct kvm_lapic_state state;

	api.ioctl(g->vcpu, KVM_GET_LAPIC, &state);
	*(uint32_t *)(state.regs + offset) = value;
	accepts(api.ioctl(g->vcpu, KVM_SET_LAPIC, &state), "KVM_SET_LAPIC");
}

static bool has_vector(struct guest *g, unsigned reg, unsigned vector)
{
	return reg_of(g, reg + vector / 32 * 16) >> vector % 32 & 1;
}

/* An eventfd's interrupt is on its way for a moment. */
static bool arrives(struct guest *g, unsigned vector)
{
	for (int i = 0; i < 10000; i++) {
		if (has_vector(g, IRR, vector))
			return true;
		usleep(1000);
	}
	return false;
}

static uint32_t counted(struct guest *g)
{
	return *(uint32_t *)(g->mem + COUNTER);
}

/* 64-bit @code at 0x1000 with its local APIC enabled; @handler is that of vector 0x61. */
static bool begin(struct guest *g, const char *code, size_t len, const char *handler, size_t handler_len)
{
	struct kvm_regs regs;

	guest_long_code(g, 0x1000, code, len);
	guest_gate(g, 0x61, HANDLER, handler, handler_len);
	api.ioctl(g->vcpu, KVM_GET_REGS, &regs);
	regs.r13 = 0xfee00000;
	regs.r14 = COUNTER;
	api.ioctl(g->vcpu, KVM_SET_REGS, &regs);
	set_reg_of(g, SVR, 0x1ff);
	return true;
}

static int line(int vm, uint32_t gsi, uint32_t level)
{
	return api.ioctl(vm, KVM_IRQ_LINE, &(struct kvm_irq_level){ .irq = gsi, .level = level });
}

/* ---- many times, for those who count what it takes --------------------------------------------------------------- */

static void xapic(void)
{
	static const char code[] =
		"\xfb\x41\xbf\x32\x00\x00\x00"			/* sti; mov r15d, TIMES */
		APIC_WRITE("\x80\x00", "\x10\x00\x00\x00")
		APIC_WRITE("\x00\x03", "\x61\x00\x04\x00")	/* to itself */
		APIC_READ("\x80\x00") APIC_READ("\x00\x03") APIC_READ("\x00\x01") APIC_READ("\x20\x00") APIC_READ("\xf0\x00")
		"\x41\xff\xcf\x75\xc2"				/* dec r15d; jnz */
		OUT("\x10");
	static const char handler[] = COUNT EOI IRETQ;
	struct guest g;

	if (!guest_init_irqchip(&g, 16) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	tap_ok(leaves_with(&g, 0x10, 0x1ff), "the registers are read as they were written");
	equals(counted(&g), TIMES, "each interrupt to itself arrives");
	equals(reg_of(&g, TPR), 0x10, "the TPR is what it was last");
	equals(reg_of(&g, ICR), 0x40061, "so is the ICR");
	tap_ok(!has_vector(&g, ISR, 0x61) && !has_vector(&g, IRR, 0x61), "nothing is left over");
	guest_done(&g);
}

static void x2apic(void)
{
	static const char code[] =
		"\xfb\x41\xbf\x32\x00\x00\x00"			/* sti; mov r15d, TIMES */
		X2APIC("\x08") "\x31\xd2\xb8\x10\x00\x00\x00\x0f\x30" /* TPR: 0x10 */
		X2APIC("\x3f") "\xb8\x61\x00\x00\x00\x0f\x30"	/* SELF IPI */
		X2APIC("\x08") RDMSR X2APIC("\x0a") RDMSR X2APIC("\x10") RDMSR X2APIC("\x0f") RDMSR X2APIC("\x02") RDMSR
		"\x41\xff\xcf\x75\xbe"				/* dec r15d; jnz */
		OUT("\x10")					/* the ID */
		X2APIC("\x0d") RDMSR OUT("\x11")		/* the logical ID */
		X2APIC("\x30") RDMSR OUT("\x12")		/* ICR */
		X2APIC("\x30") "\xb8\x61\x00\x04\x00\x0f\x30" OUT("\x13")
		X2APIC("\x0b") "\xb8\x01\x00\x00\x00\x0f\x30";	/* EOI takes 0 only */
	static const char handler[] = COUNT "\x50\x51\x52" X2APIC("\x0b") WRMSR_0 "\x5a\x59\x58" IRETQ; /* push and pop RAX, RCX, RDX */
	static const char fault[] = OUT("\x20");
	struct kvm_sregs sregs;
	struct guest g;

	if (!guest_init_irqchip(&g, 16) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	guest_gate(&g, 13, 0x3200, fault, sizeof(fault));
	api.ioctl(g.vcpu, KVM_GET_SREGS, &sregs);
	sregs.apic_base |= 0x400;
	accepts(api.ioctl(g.vcpu, KVM_SET_SREGS, &sregs), "x2APIC mode");
	tap_ok(leaves_with(&g, 0x10, 0), "the ID is read");
	equals(counted(&g), TIMES, "each SELF IPI arrives");
	equals(reg_of(&g, SELF_IPI), 0, "what was written there is not read");
	equals(reg_of(&g, TPR), 0x10, "the TPR is what it was last");
	tap_ok(leaves_with(&g, 0x11, 1), "the logical ID is read");
	tap_ok(leaves_with(&g, 0x12, 0), "the ICR is as it was");
	tap_ok(leaves_with(&g, 0x13, 0x40061) && counted(&g) == TIMES + 1, "and sends interrupts too");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20, "an EOI other than 0 faults");
	guest_done(&g);
}

/* The registers follow IA32_APIC_BASE, away and back; what spares exits at the usual address does so again then. */
static void moved(void)
{
	static const char code[] =
		APIC_WRITE("\x80\x00", "\x20\x00\x00\x00") APIC_READ("\x80\x00") OUT("\x10")
		APIC_READ("\x80\x00") OUT("\x11")	/* nothing of the APIC's meanwhile */
		APIC_READ("\x80\x00") OUT("\x12")
		"\x41\xbf\xc8\x00\x00\x00"		/* mov r15d, 200 */
		APIC_READ("\x80\x00") "\x41\xff\xcf\x75\xf4" /* dec r15d; jnz */
		OUT("\x13");
	static const char handler[] = IRETQ;
	struct kvm_sregs sregs;
	struct guest g;

	if (!guest_init_irqchip(&g, 16) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	tap_ok(leaves_with(&g, 0x10, 0x20), "the TPR where it usually is");
	api.ioctl(g.vcpu, KVM_GET_SREGS, &sregs);
	sregs.apic_base += 0x100000;
	accepts(api.ioctl(g.vcpu, KVM_SET_SREGS, &sregs), "the APIC moves");
	tap_ok(guest_run(&g) == KVM_EXIT_MMIO && g.run->mmio.phys_addr == 0xfee00080, "there is nothing");
	*(uint32_t *)g.run->mmio.data = 0x77;
	tap_ok(leaves_with(&g, 0x11, 0x77), "but what the client has there");
	sregs.apic_base -= 0x100000;
	accepts(api.ioctl(g.vcpu, KVM_SET_SREGS, &sregs), "and comes back");
	tap_ok(leaves_with(&g, 0x12, 0x20), "its TPR is there again");
	tap_ok(leaves_with(&g, 0x13, 0x20), "two hundred times");
	guest_done(&g);
}

/* ---- what waits for IF ----------------------------------------------------------------------------------------------- */

#define SELF_XAPIC(vector)  APIC_WRITE("\x00\x03", vector "\x00\x04\x00")
#define SELF_X2APIC(vector) X2APIC("\x3f") "\x31\xd2\xb8" vector "\x00\x00\x00\x0f\x30"
#define EOI_X2APIC	    X2APIC("\x0b") WRMSR_0
#define SPIN		    "\xb9\xf4\x01\x00\x00\xff\xc9\x75\xfc" /* mov ecx, 500; 1: dec ecx; jnz 1b */
/* cli; two to itself; what [r14] gains meanwhile goes to R12; sti; nop. Back to the first @back bytes before the end. */
#define WAITING(self, back)                                                                                                                      \
	"\x45\x31\xe4\x41\xbf\xe8\x03\x00\x00" /* xor r12d, r12d; mov r15d, 1000 */                                                            \
	"\xfa" self("\x61") self("\x31") "\x41\x8b\x1e" SPIN "\x41\x2b\x1e\x41\x09\xdc\xfb\x90\x41\xff\xcf\x75" back                       \
	"\x44\x89\xe0" OUT("\x10")
#define PUSHED(code) "\x50\x51\x52" code "\x5a\x59\x58" IRETQ /* push and pop RAX, RCX, RDX */
/* Ends its own interrupt, and the other, whose priority is lower, has to wait for IRET: what [r14 + 4] gains goes to R12, too. */
#define FIRST(eoi)  PUSHED(COUNT eoi "\x41\x8b\x46\x04" SPIN "\x41\x2b\x46\x04\x41\x09\xc4")
#define SECOND(eoi) PUSHED("\x41\xff\x46\x04" eoi)

static void waits(bool x2)
{
	static const char code[] = WAITING(SELF_XAPIC, "\xd0"), x2_code[] = WAITING(SELF_X2APIC, "\xca");
	static const char first[] = FIRST(EOI), x2_first[] = FIRST(EOI_X2APIC), second[] = SECOND(EOI), x2_second[] = SECOND(EOI_X2APIC);
	struct kvm_sregs sregs;
	struct guest g;

	if (!guest_init_irqchip(&g, 16))
		return;
	if (x2)
		begin(&g, x2_code, sizeof(x2_code), x2_first, sizeof(x2_first));
	else
		begin(&g, code, sizeof(code), first, sizeof(first));
	guest_gate(&g, 0x31, HANDLER + 0x100, x2 ? x2_second : second, x2 ? sizeof(x2_second) : sizeof(second));
	api.ioctl(g.vcpu, KVM_GET_SREGS, &sregs);
	sregs.apic_base |= x2 ? 0x400 : 0;
	accepts(api.ioctl(g.vcpu, KVM_SET_SREGS, &sregs), x2 ? "x2APIC mode" : "xAPIC mode");
	tap_ok(leaves_with(&g, 0x10, 0), "an interrupt to itself waits for IF, and for IRET");
	equals(counted(&g), 1000, "each arrives");
	equals(*(uint32_t *)(g.mem + COUNTER + 4), 1000, "and each that waited for another");
	guest_done(&g);
}

static void xapic_waits(void)
{
	waits(false);
}

static void x2apic_waits(void)
{
	waits(true);
}

/* ---- the timer -------------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* While the guest runs all the time, and while it waits. */
static void timer(void)
{
	static const char code[] =
		APIC_WRITE("\xe0\x03", "\x0b\x00\x00\x00") "\xfb"	   /* a nanosecond each; sti */
		APIC_WRITE("\x20\x03", "\x61\x00\x02\x00")		   /* periodic */
		APIC_WRITE("\x80\x03", "\x40\x42\x0f\x00")		   /* a millisecond */
		"\x41\x8b\x06\x83\xf8\x32\x72\xf8"			   /* 1: mov eax, [r14]; cmp eax, TIMES; jb 1b */
		APIC_WRITE("\x80\x03", "\x00\x00\x00\x00") OUT("\x10") /* off */
		"\xfa" APIC_WRITE("\x20\x03", "\x61\x00\x00\x00")	   /* cli; one-shot */
		APIC_WRITE("\x80\x03", "\x40\x42\x0f\x00")
		"\xfb\xf4" OUT("\x11")				   /* sti; hlt */
		"\xfa" APIC_WRITE("\x80\x03", "\x40\x42\x0f\x00") OUT("\x12")
		"\xfb\x90" OUT("\x13");
	static const char handler[] = COUNT EOI IRETQ;
	const struct timespec wait = { 0, 5000000 };
	uint64_t start = now_ns(), passed;
	uint32_t ticks;
	struct guest g;

	if (!guest_init_irqchip(&g, 16) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x10, "a periodic timer interrupts a guest that does not wait");
	passed = now_ns() - start;
	ticks = counted(&g); /* one more if it came as the timer was being stopped */
	if (!tap_ok(passed >= (TIMES - 1) * 1000000, "in its time, not earlier"))
		tap_diag("%u times a millisecond took %llu ns", TIMES, (unsigned long long)passed);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x11, "one that fires once wakes a guest that waits");
	equals(counted(&g), ticks + 1, "with one interrupt");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x12, "it is set again, and the client has the vCPU");
	nanosleep(&wait, NULL);
	tap_ok(arrives(&g, 0x61), "when the time is over the interrupt is there");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x13, "the guest goes on");
	equals(counted(&g), ticks + 2, "and takes it");
	guest_done(&g);
}

/* ---- what the guest writes ----------------------------------------------------------------------------------------- */

static void registers(void)
{
	static const char code[] =
		APIC_WRITE("\xd0\x00", "\xff\xff\xff\x02") APIC_WRITE("\xe0\x00", "\x00\x00\x00\x00")
		APIC_WRITE("\x70\x03", "\x55\xff\xff\x00") APIC_WRITE("\x10\x03", "\x34\x12\x00\x05")
		APIC_WRITE("\xe0\x03", "\xff\xff\xff\xff")
		APIC_WRITE("\x20\x03", "\x62\x00\x02\x00") APIC_WRITE("\x80\x03", "\x00\x00\x00\x70")	/* periodic */
		APIC_READ("\x80\x03") OUT("\x10")
		APIC_WRITE("\x20\x03", "\x62\x00\x00\x00")	/* one-shot: another mode */
		APIC_READ("\x80\x03") OUT("\x11")
		APIC_WRITE("\xe0\x03", "\x0a\x00\x00\x00") APIC_WRITE("\x80\x03", "\x00\x00\x00\x70")	/* divided by 128 */
		APIC_READ("\x90\x03") "\x3d\x00\x00\x00\x6f\x0f\x97\xc0\x0f\xb6\xc0" OUT("\x12")	/* cmp eax, 0x6f000000; seta al */
		APIC_WRITE("\xe0\x03", "\x08\x00\x00\x00")	/* by 32 */
		APIC_READ("\x90\x03") "\x3d\x00\x00\x00\x6e\x0f\x97\xc0\x0f\xb6\xc0" OUT("\x13")
		APIC_WRITE("\xf0\x00", "\xff\x00\x00\x00")	/* disabled */
		APIC_READ("\x20\x03") OUT("\x14")
		APIC_WRITE("\x20\x03", "\x62\x00\x00\x00") APIC_READ("\x20\x03") OUT("\x15")
		APIC_WRITE("\x30\x00", "\x00\x00\x00\x00") APIC_WRITE("\x80\x02", "\x77\x00\x00\x00") APIC_READ("\x80\x02") OUT("\x16");
	static const char handler[] = COUNT EOI IRETQ;
	struct guest g;

	if (!guest_init_irqchip(&g, 16) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	tap_ok(leaves_with(&g, 0x10, 0x70000000), "the initial count is read");
	equals(reg_of(&g, LDR), 0x02000000, "the LDR has eight bits");
	equals(reg_of(&g, DFR), 0x0fffffff, "the DFR four");
	equals(reg_of(&g, LVT_ERROR), 0x10055, "an entry of the LVT what it can hold");
	equals(reg_of(&g, ICR2), 0x05000000, "the ICR's upper half eight");
	equals(reg_of(&g, TDCR), 0xb, "the divide configuration three");
	tap_ok(leaves_with(&g, 0x11, 0), "the timer's new mode clears the count");
	tap_ok(leaves_with(&g, 0x12, 1), "the timer counts at its new speed");
	tap_ok(leaves_with(&g, 0x13, 1), "what is left stays when the speed changes");
	tap_ok(leaves_with(&g, 0x14, 0x10062), "software-disabled, the LVT is masked");
	tap_ok(leaves_with(&g, 0x15, 0x10062), "and stays so");
	tap_ok(leaves_with(&g, 0x16, 0x80), "a write of what cannot be written is an error");
	guest_done(&g);
}

/* ---- the client in between ------------------------------------------------------------------------------------------ */

static void set_debug(struct guest *g, uint32_t control)
{
	api.ioctl(g->vcpu, KVM_SET_GUEST_DEBUG, &(struct kvm_guest_debug){ .control = control });
}

static void changes(void)
{
	static const char code[] =
		"\xfb" APIC_WRITE("\x00\x03", "\x61\x00\x04\x00") OUT("\x10")
		APIC_WRITE("\x00\x03", "\x61\x00\x04\x00") OUT("\x11")
		"\x90" OUT("\x12") "\x90" OUT("\x13") "\x90" OUT("\x14");
	static const char handler[] = COUNT OUT("\x20") EOI OUT("\x21") IRETQ;
	struct guest g;

	if (!guest_init_irqchip(&g, 16) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20 && counted(&g) == 1, "an interrupt is taken");
	tap_ok(has_vector(&g, ISR, 0x61) && !has_vector(&g, IRR, 0x61), "it is in service");
	equals(reg_of(&g, 0xa0), 0x60, "which is the processor's priority");
	api.ioctl(g.vm, KVM_SIGNAL_MSI, &(struct kvm_msi){ .address_lo = 0xfee00000, .data = 0x61 });
	tap_ok(has_vector(&g, ISR, 0x61) && has_vector(&g, IRR, 0x61), "the same from a device is requested meanwhile");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x21 && !has_vector(&g, ISR, 0x61), "the EOI ends the first");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20 && counted(&g) == 2, "then the second is taken");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x21 && guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x10, "and ended");

	set_debug(&g, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x11, "while the client holds interrupts back one to itself is not taken");
	tap_ok(has_vector(&g, IRR, 0x61) && counted(&g) == 2, "it waits");
	set_debug(&g, 0);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20 && counted(&g) == 3, "and is taken when it may");
	set_debug(&g, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x21 && !has_vector(&g, ISR, 0x61), "what was taken one way is ended the other");
	set_debug(&g, 0);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x12 && counted(&g) == 3, "and does not come again");

	set_reg_of(&g, ISR + 0x61 / 32 * 16, 1U << 0x61 % 32);
	set_reg_of(&g, IRR + 0x61 / 32 * 16, 1U << 0x61 % 32);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x13 && counted(&g) == 3, "a vector that the client puts into service holds its class back");
	set_reg_of(&g, ISR + 0x61 / 32 * 16, 0);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20 && counted(&g) == 4, "no longer");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x21 && guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x14,
	       "and the guest goes on");
	guest_done(&g);
}

/* ---- whose end concerns others ---------------------------------------------------------------------------------------- */

static void level(void)
{
	static const char code[] = "\xfb\x90" OUT("\x10") "\x90" OUT("\x11") "\x90" OUT("\x12");
	static const char handler[] = COUNT OUT("\x20") EOI IRETQ;
	struct kvm_irqfd irqfd = { .fd = (uint32_t)eventfd(0, EFD_CLOEXEC), .gsi = 20, .flags = KVM_IRQFD_FLAG_RESAMPLE,
				   .resamplefd = (uint32_t)eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	uint64_t count = 0, one = 1;
	struct guest g;

	if (!guest_init_irqchip(&g, 16) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	api.ioctl(g.vm, KVM_GET_IRQCHIP, &chip);
	chip.chip.ioapic.redirtbl[20].bits = 0x8061;
	chip.chip.ioapic.redirtbl[21].bits = 0x8061;
	accepts(api.ioctl(g.vm, KVM_SET_IRQCHIP, &chip), "two level-triggered inputs of the I/O APIC");
	accepts(api.ioctl(g.vm, KVM_IRQFD, &irqfd), "an irqfd with a resampler for one");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x10 && !counted(&g), "the guest runs");
	tap_ok(write((int)irqfd.fd, &one, 8) == 8 && arrives(&g, 0x61) && guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20, "its interrupt is taken");
	tap_ok(has_vector(&g, TMR, 0x61) && read((int)irqfd.resamplefd, &count, 8) < 0, "it is level-triggered, and not at its end");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x11 && read((int)irqfd.resamplefd, &count, 8) == 8 && count == 1,
	       "its end signals the resampler");
	equals(counted(&g), 1, "and it does not come again");
	line(g.vm, 21, 1);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20, "a line of the client's interrupts");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20 && counted(&g) == 3, "and again at its end while it is up");
	line(g.vm, 21, 0);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x12 && counted(&g) == 3, "but not when it is down");
	guest_done(&g);
	close((int)irqfd.fd);
	close((int)irqfd.resamplefd);
}

static void set_msr(struct guest *g, uint32_t index, uint64_t value)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msr = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

	equals(api.ioctl(g->vcpu, KVM_SET_MSRS, &msr), 1, "KVM_SET_MSRS of %#x", index);
}

/* Hyper-V's synthetic interrupt controller hears of EOIs as well, or its interrupts end by themselves. */
static void synic(void)
{
	static const char code[] = "\xfb\x90" OUT("\x10") "\x90" OUT("\x11") "\x90" OUT("\x12") "\x90" OUT("\x13");
	static const char handler[] = COUNT OUT("\x20") EOI IRETQ;
	enum { SCONTROL = 0x40000080, SINT_2 = 0x40000092, AUTO_EOI = 1 << 17 };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} route = { { 1, 0 }, { .gsi = 30, .type = KVM_IRQ_ROUTING_HV_SINT, .u.hv_sint = { .vcpu = 0, .sint = 2 } } };
	struct kvm_irqfd irqfd = { .fd = (uint32_t)eventfd(0, EFD_CLOEXEC), .gsi = 30, .flags = KVM_IRQFD_FLAG_RESAMPLE,
				   .resamplefd = (uint32_t)eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	uint64_t count = 0, one = 1;
	struct guest g;

	if (!guest_init_irqchip(&g, 16) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	accepts(api.ioctl(g.vcpu, KVM_ENABLE_CAP, &(struct kvm_enable_cap){ .cap = KVM_CAP_HYPERV_SYNIC2 }), "a SynIC");
	set_msr(&g, SCONTROL, 1);
	set_msr(&g, SINT_2, 0x61);
	accepts(api.ioctl(g.vm, KVM_SET_GSI_ROUTING, &route), "a GSI of its");
	accepts(api.ioctl(g.vm, KVM_IRQFD, &irqfd), "an irqfd with a resampler for it");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x10 && !counted(&g), "the guest runs");
	tap_ok(write((int)irqfd.fd, &one, 8) == 8 && arrives(&g, 0x61) && guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20 &&
		       has_vector(&g, ISR, 0x61) && read((int)irqfd.resamplefd, &count, 8) < 0, "its interrupt is in service");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x11 && read((int)irqfd.resamplefd, &count, 8) == 8 && count == 1,
	       "the end signals the resampler");
	set_msr(&g, SINT_2, 0x61 | AUTO_EOI);
	tap_ok(write((int)irqfd.fd, &one, 8) == 8 && arrives(&g, 0x61) && guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20 &&
		       counted(&g) == 2 && !has_vector(&g, ISR, 0x61), "with AutoEOI it is not in service");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x12, "the guest goes on");
	set_msr(&g, SINT_2, 0x61);
	tap_ok(write((int)irqfd.fd, &one, 8) == 8 && arrives(&g, 0x61) && guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x20 &&
		       counted(&g) == 3 && has_vector(&g, ISR, 0x61), "without it it is");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x13 && !has_vector(&g, ISR, 0x61), "and ends as before");
	guest_done(&g);
	close((int)irqfd.fd);
	close((int)irqfd.resamplefd);
}

static void split(void)
{
	static const char code[] = "\xfb\x90" OUT("\x10") "\x90" OUT("\x11") "\x90" OUT("\x12");
	static const char handler[] = COUNT EOI IRETQ;
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} route = { { 1, 0 }, { .gsi = 5, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0xc061 } } };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x61 };
	struct guest g;

	if (!guest_init_cap(&g, 16, KVM_CAP_SPLIT_IRQCHIP, 24) || !begin(&g, code, sizeof(code), handler, sizeof(handler)))
		return;
	accepts(api.ioctl(g.vm, KVM_SET_GSI_ROUTING, &route), "an input of the client's I/O APIC");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x10 && !counted(&g), "the guest runs");
	api.ioctl(g.vm, KVM_SIGNAL_MSI, &msi);
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x11 && counted(&g) == 1, "the end of a message's interrupt is nobody's");
	msi.data = 0xc061;
	api.ioctl(g.vm, KVM_SIGNAL_MSI, &msi);
	tap_ok(guest_run(&g) == KVM_EXIT_IOAPIC_EOI && g.run->eoi.vector == 0x61 && counted(&g) == 2, "that of a level-triggered one is the client's");
	tap_ok(guest_run(&g) == KVM_EXIT_IO && g.run->io.port == 0x12, "then the guest goes on");
	guest_done(&g);
}

const struct api_case api_cases[] = {
	{ "priority", priority },
	{ "xapic", xapic },
	{ "x2apic", x2apic },
	{ "moved", moved },
	{ "xapic-waits", xapic_waits },
	{ "x2apic-waits", x2apic_waits },
	{ "timer", timer },
	{ "registers", registers },
	{ "changes", changes },
	{ "level", level },
	{ "synic", synic },
	{ "split", split },
	{ NULL, NULL },
};
