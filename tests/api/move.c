/*
 * A VM is saved through the API in the middle of what it does, and goes on from the file: on the same engine, or on another.
 *
 *	api-move					both, in one process, on libtrine
 *	TRINE_MOVE=FILE api-move save			on lite, then
 *	TRINE_MOVE=FILE api-kvm-move load		on the machine's /dev/kvm; and the other way round
 *
 * One and two vCPUs run 64-bit code with paging and AVX on in which all that can get lost matters: sums that are kept in general,
 * x87 and AVX registers, the APIC's timer, the PIT through the PIC, interrupts of the I/O APIC, IPIs to and fro, an NMI and an interrupt
 * that are pending when the VM is saved, a breakpoint that fires only afterwards, a TSC that must not go back, MSRs, kvmclock. CPUID
 * and MSRs are what every engine offers. The vCPUs are stopped wherever they happen to be.
 *
 * TRINE_NO_BREAKPOINTS=WHY: the processor has none in guests (QEMU's TCG, where VMRUN does not arm them).
 */
#include <stddef.h>
#include <stdio.h>

#include "tests/api/api.h"

#define NR_PAGES    512
#define TABLES	    0x10000
#define GDT	    0x14000
#define IDT	    0x15000
#define CODE	    0x17000
#define CLOCK	    0x1f000
#define DATA	    0x20000 /* a struct block for each vCPU, 0x1000 apart */
#define STACK	    0x31000 /* their tops, 0x1000 apart */
#define PORT_READY  0x501
#define PORT_DONE   0x502
#define NR_MSRS	    13
#define LINE_PIN    4
#define NOT_YET	    (1ULL << 62)
#define DR7_WATCH   0xd0402ULL /* DR0: global, four bytes, writes */
#define MXCSR	    0x3fa0 /* upward; with the flag of an inexact result */

/* The guest's, which knows the offsets as its OFF_*. */
struct block {
	uint64_t rounds, sum, tsc, tsc_bad, ticks, pit, line, ipis, nmis, breakpoints; /* 0 to 72 */
	uint64_t want_rounds, want_ticks, want_pit, want_ipis;			       /* 80 to 104 */
	uint64_t watched, id, count;						       /* 112, 120, 128: vCPUs */
	uint64_t xcr0, mxcsr, dr6, dr[8];					       /* 136, 144, 152, 160 */
	uint64_t sent;								       /* 224 */
	uint64_t reserved[3];
	double one[4];		/* 256 */
	uint8_t pattern[16][32]; /* 288 */
	uint8_t ymm[16][32];	/* 800 */
	uint8_t x87[3][16];	/* 1312 */
	struct {
		uint64_t index, value, result;
	} msr[NR_MSRS]; /* 1360 */
};
_Static_assert(offsetof(struct block, want_rounds) == 80 && offsetof(struct block, dr) == 160 && offsetof(struct block, one) == 256 &&
	       offsetof(struct block, ymm) == 800 && offsetof(struct block, msr) == 1360 && sizeof(struct block) <= 4096, "guest");

/*
 * R12: the vCPU's block, RBX: its local APIC, R13: rounds, R14: their sum. The handlers change what they save.
 */
extern const uint8_t guest_begin[], guest_end[], guest_timer[], guest_pit[], guest_line[], guest_ipi[],
	guest_nmi[], guest_debug[], guest_none[];
__asm__(".pushsection .rodata\n"
	"guest_begin:\n"
	"	mov $7, %eax\n	xor %edx, %edx\n	xor %ecx, %ecx\n	xsetbv\n"
	/* MSRs */
	"	lea 1360(%r12), %rsi\n	mov $13, %edi\n"
	"1:	mov (%rsi), %ecx\n	mov 8(%rsi), %eax\n	mov 12(%rsi), %edx\n	wrmsr\n"
	"	add $24, %rsi\n	dec %edi\n	jnz 1b\n"
	/* SSE, AVX, x87: pi, 1, 0 */
	"	movl $0x3fa0, 144(%r12)\n	ldmxcsr 144(%r12)\n"
	"	vmovups 256(%r12), %ymm0\n	vxorps %ymm1, %ymm1, %ymm1\n"
	".irp n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	vmovups 288 + 32 * \\n(%r12), %ymm\\n\n"
	".endr\n"
	"	fninit\n	fldpi\n	fld1\n	fldz\n"
	/* Debug registers */
	"	lea 112(%r12), %rax\n	mov %rax, %dr0\n	mov $0x12345678, %eax\n	mov %rax, %dr1\n"
	"	mov $0x9abcdef0, %eax\n	mov %rax, %dr2\n	mov $0x55aa55aa, %eax\n	mov %rax, %dr3\n"
	"	mov $0xd0402, %eax\n	mov %rax, %dr7\n"
	/* The local APIC: on, its timer once in 30 ms */
	"	mov $0xfee00000, %ebx\n	movl $0x1ff, 0xf0(%rbx)\n	movl $0xb, 0x3e0(%rbx)\n"
	"	movl $0x20040, 0x320(%rbx)\n	movl $30000000, 0x380(%rbx)\n"
	"	cmpq $0, 120(%r12)\n	jne 2f\n"
	/* The first: the PIC behind LINT0, the PIT at 36 Hz, a pin of the I/O APIC */
	"	movl $0x700, 0x350(%rbx)\n"
	"	mov $0x11, %al\n	out %al, $0x20\n	mov $0x50, %al\n	out %al, $0x21\n"
	"	mov $4, %al\n	out %al, $0x21\n	mov $1, %al\n	out %al, $0x21\n	mov $0xfe, %al\n	out %al, $0x21\n"
	"	mov $0x34, %al\n	out %al, $0x43\n	mov $0xff, %al\n"
	"	out %al, $0x40\n	mov $0x7f, %al\n	out %al, $0x40\n"
	"	mov $0xfec00000, %ecx\n	movl $0x19, (%rcx)\n	movl $0, 0x10(%rcx)\n	movl $0x18, (%rcx)\n	movl $0x60, 0x10(%rcx)\n"
	"2:	xor %r13d, %r13d\n	xor %r14d, %r14d\n	sti\n"
	"	mov $0x501, %edx\n	out %al, (%dx)\n"
	"3:	inc %r13\n	rol $7, %r14\n	xor %r13, %r14\n	mov %r14, 8(%r12)\n	mov %r13, (%r12)\n"
	"	vaddpd %ymm0, %ymm1, %ymm1\n	fadd %st(1), %st\n"
	"	rdtsc\n	shl $32, %rdx\n	or %rdx, %rax\n	cmp 16(%r12), %rax\n	jae 4f\n	incq 24(%r12)\n"
	"4:	mov %rax, 16(%r12)\n"
	/* An IPI to the other, when that is in its loop and has received the last */
	"	cmpq $2, 128(%r12)\n	jne 6f\n"
	"	mov %r12, %rax\n	xor $0x1000, %rax\n	cmpq $0, (%rax)\n	je 6f\n"
	"	mov 224(%r12), %rcx\n	cmp 56(%rax), %rcx\n	jne 6f\n"
	"	incq 224(%r12)\n	mov 120(%r12), %eax\n	xor $1, %eax\n	shl $24, %eax\n"
	"	cli\n	mov %eax, 0x310(%rbx)\n	movl $0x4070, 0x300(%rbx)\n	sti\n"
	"6:	cmp %r13, 80(%r12)\n	ja 3b\n	mov 32(%r12), %rax\n	cmp %rax, 88(%r12)\n	ja 3b\n"
	"	mov 40(%r12), %rax\n	cmp %rax, 96(%r12)\n	ja 3b\n	mov 56(%r12), %rax\n	cmp %rax, 104(%r12)\n	ja 3b\n"
	/* Not before the other has its IPIs, for nobody else sends them */
	"	cmpq $2, 128(%r12)\n	jne 5f\n	mov %r12, %rax\n	xor $0x1000, %rax\n	mov 104(%rax), %rcx\n	cmp %rcx, 56(%rax)\n	jb 3b\n5:\n"
	/* The end: what the registers hold */
	"	movl $1, 112(%r12)\n	nop\n	cli\n"
	".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	vmovups %ymm\\n, 800 + 32 * \\n(%r12)\n"
	".endr\n"
	"	fstpt 1312(%r12)\n	fstpt 1328(%r12)\n	fstpt 1344(%r12)\n	stmxcsr 144(%r12)\n"
	"	xor %ecx, %ecx\n	xgetbv\n	mov %eax, 136(%r12)\n"
	".irp n, 0, 1, 2, 3, 6, 7\n"
	"	mov %dr\\n, %rax\n	mov %rax, 160 + 8 * \\n(%r12)\n"
	".endr\n"
	"	lea 1360(%r12), %rsi\n	mov $13, %edi\n"
	"7:	mov (%rsi), %ecx\n	rdmsr\n	mov %eax, 16(%rsi)\n	mov %edx, 20(%rsi)\n	add $24, %rsi\n	dec %edi\n	jnz 7b\n"
	"	mov $0x502, %edx\n	out %al, (%dx)\n"
	"guest_timer:\n	incq 32(%r12)\n	movl $0, 0xb0(%rbx)\n	iretq\n"
	"guest_pit:\n	push %rax\n	incq 40(%r12)\n	mov $0x20, %al\n	out %al, $0x20\n	pop %rax\n	iretq\n"
	"guest_line:\n	incq 48(%r12)\n	movl $0, 0xb0(%rbx)\n	iretq\n"
	"guest_ipi:\n	incq 56(%r12)\n	movl $0, 0xb0(%rbx)\n	iretq\n"
	"guest_nmi:\n	incq 64(%r12)\n	iretq\n"
	"guest_debug:\n	push %rax\n	mov %dr6, %rax\n	mov %rax, 152(%r12)\n	incq 72(%r12)\n	pop %rax\n"
	"guest_none:\n	iretq\n"
	"guest_end:\n"
	".popsection\n");

/* What the guest writes and reads back. */
static const struct {
	uint64_t index, value;
} msrs[NR_MSRS] = {
	{ 0xc0000081, 0x0023001000000000 }, { 0xc0000082, 0xffffffff81000000 }, { 0xc0000083, 0xffffffff81001000 },
	{ 0xc0000084, 0x47700 }, { 0xc0000100, 0x7f0012345000 }, { 0xc0000101, 0xffff888000001000 }, { 0xc0000102, 0x7ffd00002000 },
	{ 0xc0000103, 7 }, { 0x174, 0x10 }, { 0x175, 0xfffffe0000003000 }, { 0x176, 0xffffffff81002000 }, { 0x277, 0x0407050600070106 },
	/* kvmclock's page, written by KVM: the enabling bit */
	{ 0x4b564d01, CLOCK | 1 },
};

/* ---- the file: records, each of a struct tag and its bytes ---------------------------------------------------------- */

enum { NR_VCPUS, MEMORY, CHIP, PIT, VM_CLOCK, CPUID, TSC_KHZ, SREGS, REGS, XCRS, XSAVE, MSRS, LAPIC, MP_STATE, DEBUGREGS, EVENTS };

struct tag {
	uint32_t what, len;
};

static bool put(FILE *f, unsigned what, const void *data, size_t len)
{
	struct tag tag = { what, (uint32_t)len };

	return fwrite(&tag, sizeof(tag), 1, f) == 1 && fwrite(data, len, 1, f) == 1;
}

/* The next record, which must be @what, of at most @len bytes. */
static bool get(FILE *f, unsigned what, void *data, size_t len)
{
	struct tag tag;

	return fread(&tag, sizeof(tag), 1, f) == 1 && tag.what == what && tag.len <= len && fread(data, tag.len, 1, f) == 1;
}

/* ---- the machine ---------------------------------------------------------------------------------------------------- */

struct machine {
	int vm, vcpu[2];
	struct kvm_run *run[2];
	size_t run_size;
	uint8_t *mem;
	unsigned count;
	/* Each vCPU's thread */
	pthread_t thread[2];
	int ended[2]; /* the port that was written, 0: stopped, negative: an exit that should not be */
};

struct runner {
	struct machine *m;
	unsigned id;
};

static union {
	struct kvm_cpuid2 c;
	uint8_t room[sizeof(struct kvm_cpuid2) + 100 * sizeof(struct kvm_cpuid_entry2)];
} cpuid;
static union {
	struct kvm_msrs m;
	uint8_t room[sizeof(struct kvm_msrs) + 400 * sizeof(struct kvm_msr_entry)];
} values;

static struct block *block(struct machine *m, unsigned id)
{
	return (struct block *)(m->mem + DATA + id * 0x1000);
}

static bool machine_init(struct machine *m, unsigned count)
{
	struct kvm_pit_config pit = { 0 };

	memset(m, 0, sizeof(*m));
	m->count = count;
	m->vcpu[0] = m->vcpu[1] = -1;
	m->mem = mmap(NULL, NR_PAGES * 4096UL, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	m->vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	m->run_size = (size_t)api.ioctl(api_system(), KVM_GET_VCPU_MMAP_SIZE, 0UL);
	if (m->mem == MAP_FAILED || m->vm < 0 || set_region(m->vm, 0, 0, 0, NR_PAGES * 4096UL, m->mem) ||
	    api.ioctl(m->vm, KVM_CREATE_IRQCHIP, 0UL) || api.ioctl(m->vm, KVM_CREATE_PIT2, &pit))
		return tap_ok(false, "a VM with chips: %s", strerror(errno));
	for (unsigned i = 0; i < count; i++) {
		m->vcpu[i] = api.ioctl(m->vm, KVM_CREATE_VCPU, (unsigned long)i);
		if (m->vcpu[i] < 0)
			return tap_ok(false, "vCPU %u: %s", i, strerror(errno));
		m->run[i] = api.mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu[i], 0);
		if (m->run[i] == MAP_FAILED)
			return tap_ok(false, "vCPU %u: kvm_run: %s", i, strerror(errno));
	}
	return true;
}

static void machine_done(struct machine *m)
{
	for (unsigned i = 0; i < m->count; i++) {
		if (m->run[i])
			munmap(m->run[i], m->run_size);
		api.close(m->vcpu[i]);
	}
	api.close(m->vm);
	munmap(m->mem, NR_PAGES * 4096UL);
}

static void nothing(int sig)
{
}

static void *run_vcpu(void *arg)
{
	struct runner *r = arg;
	struct machine *m = r->m;
	struct kvm_run *run = m->run[r->id];

	for (;;) {
		if (api.ioctl(m->vcpu[r->id], KVM_RUN, 0UL)) {
			if (errno == EINTR && !__atomic_load_n(&run->immediate_exit, __ATOMIC_ACQUIRE))
				continue;
			return (void *)(long)(errno == EINTR ? 0 : -errno);
		}
		if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_DONE)
			return (void *)PORT_DONE;
		if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT_READY)
			return (void *)(long)(-1000 - (int)run->exit_reason);
	}
}

/* Runs all vCPUs until they end by themselves or, with @until_ready, until all have been in their loop for a while. */
static bool machine_run(struct machine *m, bool until_ready)
{
	struct runner runners[2] = { { m, 0 }, { m, 1 } };
	struct sigaction sa = { .sa_handler = nothing };
	bool good = true;
	void *result;

	sigaction(SIGUSR1, &sa, NULL);
	for (unsigned i = 0; i < m->count; i++)
		if (pthread_create(&m->thread[i], NULL, run_vcpu, &runners[i]))
			return tap_ok(false, "a thread for vCPU %u", i);
	for (unsigned i = 0; until_ready && i < m->count; i++) {
		struct block *b = block(m, i);

		/* Every source has been seen to work */
		for (unsigned tries = 0; tries < 120000; tries++) {
			if (__atomic_load_n(&b->rounds, __ATOMIC_ACQUIRE) > 1000 && __atomic_load_n(&b->ticks, __ATOMIC_ACQUIRE) > 2 &&
			    (i || __atomic_load_n(&b->pit, __ATOMIC_ACQUIRE) > 2) &&
			    (m->count == 1 || __atomic_load_n(&b->ipis, __ATOMIC_ACQUIRE) > 2))
				break;
			usleep(1000);
		}
	}
	for (unsigned i = 0; until_ready && i < m->count; i++) {
		__atomic_store_n(&m->run[i]->immediate_exit, 1, __ATOMIC_SEQ_CST);
		pthread_kill(m->thread[i], SIGUSR1);
	}
	for (unsigned i = 0; i < m->count; i++) {
		pthread_join(m->thread[i], &result);
		m->ended[i] = (int)(long)result;
		m->run[i]->immediate_exit = 0;
		if (m->ended[i] != (until_ready ? 0 : PORT_DONE)) {
			tap_diag("vCPU %u ended with %d", i, m->ended[i]);
			good = false;
		}
	}
	return good;
}

/* ---- what it begins as ---------------------------------------------------------------------------------------------- */

/* Of KVM_GET_SUPPORTED_CPUID what the guest uses, and what any engine has. */
static void common_cpuid(void)
{
	unsigned n = 0;

	cpuid.c.nent = 100;
	api.ioctl(api_system(), KVM_GET_SUPPORTED_CPUID, &cpuid.c);
	for (unsigned i = 0; i < cpuid.c.nent; i++) {
		struct kvm_cpuid_entry2 e = cpuid.c.entries[i];

		switch (e.function) {
		case 0:
			e.eax = 0xd;
			e.ebx = 0x68747541; /* AuthenticAMD */
			e.edx = 0x69746e65;
			e.ecx = 0x444d4163;
			break;
		case 1:
			e.eax = 0x600f12;
			e.ebx = 0;
			e.ecx &= 0x1c182201; /* SSE3, SSSE3, CX16, SSE4.1, SSE4.2, XSAVE, OSXSAVE, AVX */
			e.edx &= 0x078bfbff;
			break;
		case 7:
			e.ebx = e.ecx = e.edx = e.eax = 0;
			break;
		case 0xd:
			if (e.index > 2)
				continue;
			if (e.index == 0) {
				e.eax = 7;
				e.ecx = 0x340;
				e.edx = 0;
			} else if (e.index == 1) {
				e.eax = e.ebx = e.ecx = e.edx = 0;
			}
			break;
		case 0x80000000: e.eax = 0x80000001; break;
		case 0x80000001:
			e.eax = 0x600f12;
			e.ecx &= 1;
			e.edx &= 0x28100800; /* SYSCALL, NX, RDTSCP, LM */
			break;
		case 0x40000000:
		case 0x40000001: e.eax &= e.function & 1 ? 8 : ~0U; break; /* the clock */
		default: continue;
		}
		cpuid.c.entries[n++] = e;
	}
	cpuid.c.nent = n;
}

static void tables(struct machine *m)
{
	static const struct {
		unsigned vector;
		const uint8_t *handler;
	} gates[] = { { 1, guest_debug }, { 2, guest_nmi }, { 0x40, guest_timer }, { 0x50, guest_pit }, { 0x57, guest_none },
		      { 0x60, guest_line }, { 0x70, guest_ipi }, { 0xff, guest_none } };
	uint64_t *pml4 = (uint64_t *)(m->mem + TABLES), *pdpt = pml4 + 512, *low = pdpt + 512, *high = low + 512;
	uint64_t *gdt = (uint64_t *)(m->mem + GDT);

	pml4[0] = (TABLES + 0x1000) | 3;
	pdpt[0] = (TABLES + 0x2000) | 3;
	pdpt[3] = (TABLES + 0x3000) | 3;
	low[0] = 0x83;
	high[0x1f6] = 0xfec00000 | 0x9b;
	high[0x1f7] = 0xfee00000 | 0x9b;
	gdt[1] = 0x00af9b000000ffffULL;
	gdt[2] = 0x00cf93000000ffffULL;
	for (unsigned i = 0; i < sizeof(gates) / sizeof(gates[0]); i++) {
		uint64_t at = CODE + (uint64_t)(gates[i].handler - guest_begin), *gate = (uint64_t *)(m->mem + IDT + gates[i].vector * 16);

		gate[0] = (at & 0xffff) | 8 << 16 | 0x8eULL << 40 | (at >> 16) << 48;
	}
	memcpy(m->mem + CODE, guest_begin, (size_t)(guest_end - guest_begin));
}

static bool first_state(struct machine *m, unsigned id)
{
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rsp = STACK + id * 0x1000, .r12 = DATA + id * 0x1000 };
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	/* So far on that no engine takes it for the TSC of a vCPU that was just created, which all are to agree in */
	struct {
		struct kvm_msrs m;
		struct kvm_msr_entry e;
	} tsc = { .m.nmsrs = 1, .e = { .index = 0x10, .data = 1ULL << 50 } };
	struct block *b = block(m, id);
	struct kvm_sregs s;

	if (api.ioctl(m->vcpu[id], KVM_SET_CPUID2, &cpuid.c) || api.ioctl(m->vcpu[id], KVM_GET_SREGS, &s))
		return tap_ok(false, "CPUID: %s", strerror(errno));
	long_segments(&s, GDT, IDT);
	s.cr0 = 0x80010033;
	s.cr3 = TABLES;
	s.cr4 = 0x406a0; /* PAE, PGE, OSFXSR, OSXMMEXCPT, OSXSAVE */
	s.cr4 &= ~0x40ULL;
	s.efer = 0xd01;
	b->id = id;
	b->count = m->count;
	b->want_rounds = b->want_ticks = b->want_pit = b->want_ipis = NOT_YET;
	for (unsigned i = 0; i < 4; i++)
		b->one[i] = 1;
	for (unsigned i = 0; i < sizeof(b->pattern); i++)
		b->pattern[i / 32][i % 32] = (uint8_t)(i * 37 + 11 + id);
	for (unsigned i = 0; i < NR_MSRS; i++) {
		b->msr[i].index = msrs[i].index;
		b->msr[i].value = msrs[i].value;
	}
	return !api.ioctl(m->vcpu[id], KVM_SET_SREGS, &s) && !api.ioctl(m->vcpu[id], KVM_SET_REGS, &regs) &&
	       !api.ioctl(m->vcpu[id], KVM_SET_MP_STATE, &runnable) && api.ioctl(m->vcpu[id], KVM_SET_MSRS, &tsc) == 1;
}

/* ---- saved and loaded ----------------------------------------------------------------------------------------------- */

/* Each state of a vCPU's that is one structure, in the order in which it is loaded. */
static const struct {
	unsigned what;
	const char *name;
	unsigned long get, set;
	size_t size;
} states[] = {
	{ SREGS, "KVM_SET_SREGS", KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs) },
	{ REGS, "KVM_SET_REGS", KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs) },
	{ XCRS, "KVM_SET_XCRS", KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs) },
	{ XSAVE, "KVM_SET_XSAVE", KVM_GET_XSAVE, KVM_SET_XSAVE, sizeof(struct kvm_xsave) },
	{ LAPIC, "KVM_SET_LAPIC", KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state) },
	{ MP_STATE, "KVM_SET_MP_STATE", KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state) },
	{ DEBUGREGS, "KVM_SET_DEBUGREGS", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs) },
	{ EVENTS, "KVM_SET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events) },
};
#define NR_STATES (sizeof(states) / sizeof(states[0]))
static uint8_t state[4096] __attribute__((aligned(64)));

/* The MSRs of the system's list: as many as this system has. */
static unsigned msr_list(uint32_t *list)
{
	static union {
		struct kvm_msr_list l;
		uint8_t room[sizeof(struct kvm_msr_list) + 400 * sizeof(uint32_t)];
	} indices;

	indices.l.nmsrs = 400;
	if (api.ioctl(api_system(), KVM_GET_MSR_INDEX_LIST, &indices.l))
		return 0;
	memcpy(list, indices.l.indices, indices.l.nmsrs * sizeof(uint32_t));
	return indices.l.nmsrs;
}

static bool save_vcpu(struct machine *m, unsigned id, FILE *f)
{
	uint32_t list[400], khz = (uint32_t)api.ioctl(m->vcpu[id], KVM_GET_TSC_KHZ, 0UL);
	unsigned n = msr_list(list), kept = 0;

	cpuid.c.nent = 100;
	if (api.ioctl(m->vcpu[id], KVM_GET_CPUID2, &cpuid.c) || !put(f, CPUID, &cpuid, sizeof(cpuid)) ||
	    !put(f, TSC_KHZ, &khz, sizeof(khz)))
		return false;
	for (unsigned i = 0; i < NR_STATES; i++)
		if (api.ioctl(m->vcpu[id], states[i].get, state) || !put(f, states[i].what, state, states[i].size))
			return false;
	/* One by one: some are not readable with this CPUID */
	for (unsigned i = 0; i < n; i++) {
		struct {
			struct kvm_msrs m;
			struct kvm_msr_entry e;
		} one = { .m.nmsrs = 1, .e.index = list[i] };

		if (api.ioctl(m->vcpu[id], KVM_GET_MSRS, &one) == 1)
			values.m.entries[kept++] = one.e;
	}
	values.m.nmsrs = kept;
	return put(f, MSRS, &values, sizeof(values));
}

static bool is_guests(uint32_t index)
{
	for (unsigned i = 0; i < NR_MSRS; i++)
		if (msrs[i].index == index)
			return true;
	return index == 0x10 || index == 0x1b;
}

static bool load_msrs(struct machine *m, unsigned id, FILE *f)
{
	unsigned refused = 0;

	if (!get(f, MSRS, &values, sizeof(values)))
		return false;
	for (unsigned i = 0; i < values.m.nmsrs; i++) {
		struct {
			struct kvm_msrs m;
			struct kvm_msr_entry e;
		} one = { .m.nmsrs = 1, .e = values.m.entries[i] };

		if (api.ioctl(m->vcpu[id], KVM_SET_MSRS, &one) == 1)
			continue;
		/* What the one offers beyond the other is of no matter to this guest, if there is nothing in it */
		if (is_guests(one.e.index) || one.e.data) {
			tap_diag("MSR %#x is refused %#llx", one.e.index, one.e.data);
			refused += is_guests(one.e.index);
		}
	}
	return !refused;
}

static bool load_vcpu(struct machine *m, unsigned id, FILE *f)
{
	uint32_t khz;

	if (!get(f, CPUID, &cpuid, sizeof(cpuid)) || api.ioctl(m->vcpu[id], KVM_SET_CPUID2, &cpuid.c))
		return tap_ok(false, "KVM_SET_CPUID2: %s", strerror(errno));
	if (!get(f, TSC_KHZ, &khz, sizeof(khz)))
		return tap_ok(false, "the file has a TSC rate");
	/* Where it can be; the guest does not count on it */
	if (api.ioctl(m->vcpu[id], KVM_SET_TSC_KHZ, (unsigned long)khz))
		tap_diag("TSC: %u kHz are refused: %s", khz, strerror(errno));
	for (unsigned i = 0; i < NR_STATES; i++)
		if (!get(f, states[i].what, state, states[i].size) || api.ioctl(m->vcpu[id], states[i].set, state)) {
			tap_ok(false, "%s: %s", states[i].name, strerror(errno));
			if (states[i].what == XSAVE)
				tap_diag("MXCSR %#x, XSTATE_BV %#llx", *(uint32_t *)(state + 24),
					 *(unsigned long long *)(state + 512));
			return false;
		}
	return tap_ok(load_msrs(m, id, f), "vCPU %u of %u: state and MSRs are taken", id, m->count);
}

static bool save_vm(struct machine *m, FILE *f)
{
	struct kvm_clock_data clock;
	struct kvm_pit_state2 pit;
	uint32_t count = m->count;

	if (!put(f, NR_VCPUS, &count, sizeof(count)))
		return false;
	for (unsigned i = 0; i < m->count; i++)
		if (!save_vcpu(m, i, f))
			return false;
	for (uint32_t i = 0; i < 3; i++) {
		struct kvm_irqchip chip = { .chip_id = i };

		if (api.ioctl(m->vm, KVM_GET_IRQCHIP, &chip) || !put(f, CHIP, &chip, sizeof(chip)))
			return false;
	}
	return !api.ioctl(m->vm, KVM_GET_PIT2, &pit) && put(f, PIT, &pit, sizeof(pit)) && !api.ioctl(m->vm, KVM_GET_CLOCK, &clock) &&
	       put(f, VM_CLOCK, &clock, sizeof(clock)) && put(f, MEMORY, m->mem, NR_PAGES * 4096UL);
}

static bool load_vm(struct machine *m, FILE *f)
{
	struct kvm_clock_data clock, now;
	struct kvm_irqchip chip;
	struct kvm_pit_state2 pit;

	for (unsigned i = 0; i < m->count; i++)
		if (!load_vcpu(m, i, f))
			return false;
	for (uint32_t i = 0; i < 3; i++)
		if (!get(f, CHIP, &chip, sizeof(chip)) || api.ioctl(m->vm, KVM_SET_IRQCHIP, &chip))
			return tap_ok(false, "interrupt chip %u: %s", i, strerror(errno));
	if (!get(f, PIT, &pit, sizeof(pit)) || api.ioctl(m->vm, KVM_SET_PIT2, &pit))
		return tap_ok(false, "KVM_SET_PIT2: %s", strerror(errno));
	if (!get(f, VM_CLOCK, &clock, sizeof(clock)))
		return tap_ok(false, "the file has a clock");
	clock.flags = 0;
	if (api.ioctl(m->vm, KVM_SET_CLOCK, &clock) || api.ioctl(m->vm, KVM_GET_CLOCK, &now))
		return tap_ok(false, "KVM_SET_CLOCK: %s", strerror(errno));
	tap_ok(now.clock >= clock.clock && now.clock - clock.clock < 600ULL * 1000000000, "the clock goes on from where it was");
	return tap_ok(get(f, MEMORY, m->mem, NR_PAGES * 4096UL), "chips, PIT, clock and memory are taken");
}

/* ---- the cases ------------------------------------------------------------------------------------------------------ */

static const char *file_name(unsigned count)
{
	static char name[256];
	const char *given = getenv("TRINE_MOVE");

	if (given)
		snprintf(name, sizeof(name), "%s.%u", given, count);
	else
		snprintf(name, sizeof(name), "/tmp/trine-move-%d.%u", (int)getpid(), count);
	return name;
}

static void save_one(unsigned count)
{
	struct kvm_irq_level line = { .irq = LINE_PIN };
	struct machine m;
	FILE *f;

	if (!machine_init(&m, count))
		return;
	tables(&m);
	common_cpuid();
	for (unsigned i = 0; i < count; i++)
		if (!tap_ok(first_state(&m, i), "vCPU %u of %u begins", i, count))
			goto out;
	if (!tap_ok(machine_run(&m, true), "%u vCPU: they run until they are stopped", count))
		goto out;
	/* Pending: an NMI, an interrupt */
	line.level = 1;
	accepts(api.ioctl(m.vm, KVM_IRQ_LINE, &line), "an interrupt comes");
	line.level = 0;
	api.ioctl(m.vm, KVM_IRQ_LINE, &line);
	accepts(api.ioctl(m.vcpu[0], KVM_NMI, 0UL), "and an NMI");
	f = fopen(file_name(count), "w");
	tap_ok(f && save_vm(&m, f) && !fclose(f), "%u vCPU: all state is saved", count);
	tap_ok(block(&m, 0)->nmis == 0 && block(&m, 0)->line == 0, "what is pending has not been delivered");
out:
	machine_done(&m);
}

/* A double of the value 1, of 80 bits, is this: the integer bit, an exponent of its logarithm. */
static bool is_x87(const uint8_t *at, uint64_t value)
{
	uint64_t mantissa;
	uint16_t exponent, log = 63;

	memcpy(&mantissa, at, 8);
	memcpy(&exponent, at + 8, 2);
	while (log && !(value >> log))
		log--;
	return mantissa == value << (63 - log) && exponent == 0x3fff + log;
}

static void check(struct machine *m, unsigned id, const struct block *before)
{
	static const uint8_t pi[] = { 0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40 };
	const struct block *b = block(m, id);
	uint64_t sum = 0;
	double lanes[4];
	unsigned same = 0;

	for (uint64_t i = 1; i <= b->rounds; i++)
		sum = (sum << 7 | sum >> 57) ^ i;
	tap_ok(b->sum == sum && b->rounds > before->rounds, "vCPU %u of %u: general registers: %llu rounds, %llu of them before", id,
	       m->count, (unsigned long long)b->rounds, (unsigned long long)before->rounds);
	memcpy(lanes, b->ymm[1], sizeof(lanes));
	for (unsigned i = 0; i < 4; i++)
		same += lanes[i] == (double)b->rounds;
	equals(same, 4, "vCPU %u of %u: AVX: the sum is right in all four lanes", id, m->count);
	tap_ok(!memcmp(b->ymm[0], b->one, 32) && !memcmp(b->ymm[2], b->pattern[2], 14 * 32), "vCPU %u of %u: AVX: the other registers", id,
	       m->count);
	tap_ok(is_x87(b->x87[0], b->rounds) && is_x87(b->x87[1], 1) && !memcmp(b->x87[2], pi, sizeof(pi)),
	       "vCPU %u of %u: x87", id, m->count);
	equals(b->mxcsr, MXCSR, "vCPU %u of %u: MXCSR", id, m->count);
	equals(b->xcr0, 7, "vCPU %u of %u: XCR0", id, m->count);
	equals(b->tsc_bad, 0, "vCPU %u of %u: the TSC never goes back", id, m->count);
	tap_ok(b->tsc > before->tsc && b->tsc - before->tsc < 1ULL << 42, "vCPU %u of %u: and goes on from where it was", id, m->count);
	tap_ok(b->ticks >= before->want_ticks, "vCPU %u of %u: the APIC's timer goes on", id, m->count);
	if (getenv("TRINE_NO_BREAKPOINTS"))
		tap_skip(getenv("TRINE_NO_BREAKPOINTS"), "the breakpoint fires");
	else
		tap_ok(b->breakpoints == 1 && (b->dr6 & 0xf) == 1, "vCPU %u of %u: the breakpoint fires, once", id, m->count);
	tap_ok(b->dr[0] == DATA + id * 0x1000 + offsetof(struct block, watched) && b->dr[1] == 0x12345678 && b->dr[2] == 0x9abcdef0 &&
		       b->dr[3] == 0x55aa55aa && b->dr[7] == DR7_WATCH, "vCPU %u of %u: debug registers", id, m->count);
	same = 0;
	for (unsigned i = 0; i < NR_MSRS; i++) {
		same += b->msr[i].result == msrs[i].value;
		if (b->msr[i].result != msrs[i].value)
			tap_diag("MSR %#llx: %#llx", (unsigned long long)msrs[i].index, (unsigned long long)b->msr[i].result);
	}
	equals(same, NR_MSRS, "vCPU %u of %u: MSRs", id, m->count);
}

static void load_one(unsigned count)
{
	struct block before[2];
	struct machine m;
	uint32_t saved;
	FILE *f = fopen(file_name(count), "r");

	if (!tap_ok(f && get(f, NR_VCPUS, &saved, sizeof(saved)) && saved == count, "%u vCPU: there is a file", count))
		return;
	if (!machine_init(&m, count) || !load_vm(&m, f))
		goto out;
	for (unsigned i = 0; i < count; i++) {
		struct block *b = block(&m, i);

		b->want_rounds = b->rounds + 1000;
		b->want_ticks = b->ticks + 3;
		b->want_pit = i ? 0 : b->pit + 3;
		b->want_ipis = count > 1 ? b->ipis + 3 : 0;
		before[i] = *b;
	}
	if (!tap_ok(machine_run(&m, false), "%u vCPU: they go on to their end", count)) {
		for (unsigned i = 0; i < count; i++) {
			struct block *b = block(&m, i);

			tap_diag("vCPU %u: rounds %llu of %llu, ticks %llu of %llu, PIT %llu of %llu, IPIs %llu of %llu", i,
				 (unsigned long long)b->rounds, (unsigned long long)b->want_rounds, (unsigned long long)b->ticks,
				 (unsigned long long)b->want_ticks, (unsigned long long)b->pit, (unsigned long long)b->want_pit,
				 (unsigned long long)b->ipis, (unsigned long long)b->want_ipis);
		}
		goto out;
	}
	for (unsigned i = 0; i < count; i++)
		check(&m, i, &before[i]);
	equals(block(&m, 0)->nmis, 1, "%u vCPU: the NMI that was pending comes, once", count);
	equals(block(&m, 0)->line, 1, "%u vCPU: the interrupt that was pending comes, once", count);
	tap_ok(block(&m, 0)->pit >= before[0].want_pit, "%u vCPU: the PIT goes on", count);
	if (count > 1)
		tap_ok(block(&m, 1)->ipis >= before[1].want_ipis && block(&m, 0)->ipis >= before[0].want_ipis, "IPIs go to and fro");
out:
	machine_done(&m);
	fclose(f);
	if (!getenv("TRINE_MOVE"))
		unlink(file_name(count));
}

static void save(void)
{
	save_one(1);
	save_one(2);
}

static void load(void)
{
	load_one(1);
	load_one(2);
}

const struct api_case api_cases[] = { { "save", save }, { "load", load }, { NULL, NULL } };
