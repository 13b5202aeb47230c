/*
 * What an exit costs: a 64-bit guest that does one thing @LOOPS times, and the time that takes by the clock of the machine below. In
 * QEMU with -icount shift=0 that clock counts instructions.
 *
 *	cost [NAME...]		prints "NAME: nanoseconds each" for all, or the named ones
 *
 * Two vCPU runs of different lengths are subtracted, so that entry, first page faults and the last exit do not count; of each length
 * the shortest of three counts: what the kernel does besides only adds. What a round waits for, or works while it waits, is subtracted
 * too: what is left is what the host does for it. All threads are on one processor: what two do at once cannot be counted so.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEM	   (64UL << 20)
#define PAGE	   4096UL
#define TABLES	   0x10000 /* PML4, PDPT, PD */
#define GDT	   0x14000
#define IDT	   0x15000
#define HANDLER	   0x16000
#define CODE	   0x17000
#define OTHER	   0x18000 /* the second vCPU's code */
#define COUNT	   0x19000 /* interrupts taken, 64 bits */
#define STOP	   0x19008 /* a byte: the second vCPU shall end */
#define STACK	   0x20000
#define OTHER_STACK 0x28000
#define FRESH	   0x1000000 /* pages that nothing has touched */
#define DEVICE	   0xc0000000UL
#define END_PORT   0x501
#define LOOPS	   2000
#define ROUNDS	   3
#define SETTLE_US  100000
#define VECTOR	   0x40

struct test {
	const char *name;
	const char *code; /* the loop's body, R15 counts, R14 is FRESH, R13 DEVICE */
	unsigned len;
	bool apic, eventfd_pio, eventfd_mmio;
	unsigned waits;	   /* nanoseconds of each round that are the guest's own */
	bool pair;	   /* a second vCPU answers each interrupt with one */
};
#define CODE_OF(bytes) .code = bytes, .len = sizeof(bytes) - 1
#define X2APIC_SELF_IPI "\xb9\x3f\x08\x00\x00\xb8\x40\x00\x00\x00\x31\xd2\x0f\x30" /* mov ecx, 0x83f; mov eax, VECTOR; wrmsr */
#define X2APIC_TIMER(ns) "\xb9\x38\x08\x00\x00\xb8" ns "\x31\xd2\x0f\x30"		    /* mov ecx, 0x838; mov eax, ns; wrmsr */
/* mov ecx, 0x830; mov eax, VECTOR; mov edx, id; wrmsr */
#define X2APIC_IPI(id) "\xb9\x30\x08\x00\x00\xb8\x40\x00\x00\x00\xba" id "\x0f\x30"

static const struct test tests[] = {
	{ "cpuid", CODE_OF("\x31\xc0\x31\xc9\x0f\xa2") },
	{ "rdmsr", CODE_OF("\xb9\x77\x02\x00\x00\x0f\x32") },			   /* PAT */
	{ "wrmsr", CODE_OF("\xb9\xa0\x01\x00\x00\x0f\x32\x0f\x30") },		   /* MISC_ENABLE, read and written */
	{ "hypercall", CODE_OF("\xb8\x01\x00\x00\x00\x0f\x01\xd9") },		   /* KVM_HC_VAPIC_POLL_IRQ */
	{ "pio out", CODE_OF("\x66\xba\x00\x05\xee") },
	{ "pio in", CODE_OF("\x66\xba\x00\x05\xec") },
	{ "mmio write", CODE_OF("\x41\x89\x45\x00") },
	{ "mmio read", CODE_OF("\x41\x8b\x45\x00") },
	{ "page fault", CODE_OF("\x41\x88\x06\x49\x81\xc6\x00\x10\x00\x00") },	   /* mov [r14], al; add r14, 4096 */
	{ "ioeventfd pio", CODE_OF("\x66\xba\x00\x05\xee"), .eventfd_pio = true },
	{ "ioeventfd mmio", CODE_OF("\x41\x89\x45\x00"), .eventfd_mmio = true },
	{ "self ipi", CODE_OF("\xfb" X2APIC_SELF_IPI "\x90"), .apic = true },
	{ "hlt", CODE_OF("\xfa" X2APIC_SELF_IPI "\xfb\xf4"), .apic = true },
	/* There and back, each vCPU asleep when it comes */
	{ "ipi to hlt, twice", CODE_OF("\xfa" X2APIC_IPI("\x01\x00\x00\x00") "\xfb\xf4"), .apic = true, .pair = true },
	/* 10 us, while the guest works for 40: mov ebx, 20000; 1: dec ebx; jnz 1b */
	{ "apic timer", CODE_OF("\xfb" X2APIC_TIMER("\x10\x27\x00\x00") "\xbb\x20\x4e\x00\x00\xff\xcb\x75\xfc"), .apic = true,
	  .waits = 40000 },
	/* A millisecond, longer than KVM spins for */
	{ "apic timer hlt", CODE_OF("\xfa" X2APIC_TIMER("\x40\x42\x0f\x00") "\xfb\xf4"), .apic = true, .waits = 1000000 },
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void tables(uint8_t *mem)
{
	uint64_t *pml4 = (uint64_t *)(mem + TABLES), *pdpt = pml4 + 512, *pd = pdpt + 512;

	*pml4 = (TABLES + PAGE) | 7;
	pdpt[0] = (TABLES + 2 * PAGE) | 7;
	pdpt[3] = DEVICE | 0x83;
	for (uint64_t i = 0; i < 512; i++)
		pd[i] = i << 21 | 0x83;
}

static void interrupts(uint8_t *mem)
{
	/* Type 14 at VECTOR; the handler: inc qword [COUNT]; mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; iretq */
	static const uint8_t handler[] = { 0x48, 0xff, 0x04, 0x25, 0,	 0x90, 0x01, 0,	   0xb9, 0x0b, 0x08,
					   0,	 0,    0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30, 0x48, 0xcf };
	uint64_t *gate = (uint64_t *)(mem + IDT + VECTOR * 16), *gdt = (uint64_t *)(mem + GDT);

	gate[0] = (HANDLER & 0xffff) | 8 << 16 | 0x8eULL << 40 | (uint64_t)(HANDLER >> 16) << 48;
	memcpy(mem + HANDLER, handler, sizeof(handler));
	gdt[1] = 0x00af9b000000ffffULL;
	gdt[2] = 0x00cf93000000ffffULL;
}

#define END_CODE "\x66\xba\x01\x05\xee" /* out END_PORT */
/* 1: sti; hlt; cli; an IPI to the first vCPU; cmp byte [STOP], 0; je 1b */
#define ANSWER "\xfb\xf4\xfa" X2APIC_IPI("\x00\x00\x00\x00") "\x80\x3c\x25\x08\x90\x01\x00\x00\x74\xe2"

static void code(uint8_t *mem, const struct test *t)
{
	uint8_t *p = mem + CODE, *loop = p;

	memcpy(p, t->code, t->len);
	p += t->len;
	*p++ = 0x49; /* dec r15 */
	*p++ = 0xff;
	*p++ = 0xcf;
	*p++ = 0x0f; /* jnz */
	*p++ = 0x85;
	*(int32_t *)p = loop - (p + 4);
	p += 4;
	memcpy(p, END_CODE, sizeof(END_CODE));
	memcpy(mem + OTHER, ANSWER END_CODE, sizeof(ANSWER END_CODE));
}

static void long_mode(int vcpu, unsigned loops, uint64_t rip, uint64_t rsp)
{
	struct kvm_sregs s;
	struct kvm_segment seg = { .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_regs r = { .rip = rip, .rflags = 2, .rsp = rsp, .r15 = loops, .r14 = FRESH, .r13 = DEVICE };

	if (ioctl(vcpu, KVM_GET_SREGS, &s))
		die("KVM_GET_SREGS");
	s.ds = s.es = s.ss = s.fs = s.gs = seg;
	seg.selector = 8;
	seg.type = 11;
	seg.db = 0;
	seg.l = 1;
	s.cs = seg;
	s.gdt.base = GDT;
	s.gdt.limit = 23;
	s.idt.base = IDT;
	s.idt.limit = 0xfff;
	s.cr0 = 0x80050033;
	s.cr3 = TABLES;
	s.cr4 = 0x20;
	s.efer = 0x500;
	s.apic_base |= 0xc00;
	if (ioctl(vcpu, KVM_SET_SREGS, &s) || ioctl(vcpu, KVM_SET_REGS, &r))
		die("KVM_SET_SREGS");
}

static void cpuid(int kvm, int vcpu)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 100 * sizeof(c->entries[0]));

	c->nent = 100;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c) || ioctl(vcpu, KVM_SET_CPUID2, c))
		die("KVM_SET_CPUID2");
	free(c);
}

static void software_enable(int vcpu)
{
	/* On; the timer once, undivided, at VECTOR */
	static const struct kvm_msr_entry entries[] = { { .index = 0x80f, .data = 0x1ff }, { .index = 0x83e, .data = 0xb },
							{ .index = 0x832, .data = VECTOR } };
	struct kvm_msrs *m = calloc(1, sizeof(*m) + sizeof(entries));

	m->nmsrs = 3;
	memcpy(m->entries, entries, sizeof(entries));
	if (ioctl(vcpu, KVM_SET_MSRS, m) != 3)
		die("x2APIC");
	free(m);
}

static void ioeventfd(int vm, uint64_t addr, unsigned len, unsigned flags)
{
	struct kvm_ioeventfd e = { .addr = addr, .len = len, .fd = eventfd(0, 0), .flags = flags };

	if (ioctl(vm, KVM_IOEVENTFD, &e))
		die("KVM_IOEVENTFD");
}

struct machine {
	const struct test *t;
	int kvm, vm;
	uint8_t *mem;
};

struct processor {
	struct machine *m;
	int vcpu;
	struct kvm_run *state;
};

static void create(struct processor *p, struct machine *m, unsigned id, unsigned loops)
{
	struct kvm_mp_state runs = { .mp_state = KVM_MP_STATE_RUNNABLE };

	p->m = m;
	p->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, id);
	if (p->vcpu < 0)
		die("KVM_CREATE_VCPU");
	p->state = mmap(NULL, ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	cpuid(m->kvm, p->vcpu);
	long_mode(p->vcpu, loops, id ? OTHER : CODE, id ? OTHER_STACK : STACK);
	if (m->t->apic)
		software_enable(p->vcpu);
	if (id && ioctl(p->vcpu, KVM_SET_MP_STATE, &runs))
		die("KVM_SET_MP_STATE");
}

static void destroy(struct processor *p)
{
	munmap(p->state, ioctl(p->m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(p->vcpu);
}

static void until_end(struct processor *p)
{
	for (;;) {
		if (ioctl(p->vcpu, KVM_RUN, 0))
			die("KVM_RUN");
		if (p->state->exit_reason == KVM_EXIT_MMIO)
			continue;
		if (p->state->exit_reason != KVM_EXIT_IO) {
			fprintf(stderr, "%s: exit reason %u\n", p->m->t->name, p->state->exit_reason);
			exit(1);
		}
		if (p->state->io.port == END_PORT)
			return;
	}
}

static void *other(void *arg)
{
	until_end(arg);
	return NULL;
}

/* Out of HLT as well */
static void stop_other(struct machine *m, pthread_t thread)
{
	struct kvm_msi wake = { .address_lo = 0xfee01000, .data = VECTOR };

	__atomic_store_n(m->mem + STOP, 1, __ATOMIC_SEQ_CST);
	if (ioctl(m->vm, KVM_SIGNAL_MSI, &wake) < 0)
		die("KVM_SIGNAL_MSI");
	pthread_join(thread, NULL);
}

/* Nanoseconds of @loops rounds. */
static uint64_t run(int kvm, const struct test *t, unsigned loops)
{
	struct machine m = { .t = t, .kvm = kvm, .vm = ioctl(kvm, KVM_CREATE_VM, 0) };
	struct kvm_userspace_memory_region region = { .memory_size = MEM };
	struct processor first, second;
	pthread_t thread;
	uint64_t time, taken;

	m.mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(m.mem, MEM, MADV_NOHUGEPAGE);
	region.userspace_addr = (uintptr_t)m.mem;
	if (m.vm < 0 || ioctl(m.vm, KVM_SET_TSS_ADDR, 0xfffbd000UL) || ioctl(m.vm, KVM_CREATE_IRQCHIP, 0) ||
	    ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &region))
		die("VM");
	tables(m.mem);
	interrupts(m.mem);
	code(m.mem, t);
	create(&first, &m, 0, loops);
	if (t->eventfd_pio)
		ioeventfd(m.vm, 0x500, 1, KVM_IOEVENTFD_FLAG_PIO);
	if (t->eventfd_mmio)
		ioeventfd(m.vm, DEVICE, 4, 0);
	if (t->pair) {
		create(&second, &m, 1, 0);
		if (pthread_create(&thread, NULL, other, &second))
			die("pthread_create");
	}
	/* What the last machine left to be done later is done now */
	usleep(SETTLE_US);
	time = now();
	until_end(&first);
	time = now() - time;
	taken = __atomic_load_n((uint64_t *)(m.mem + COUNT), __ATOMIC_SEQ_CST);
	/* One too many: QEMU's TCG has delivered one twice, on Linux's KVM */
	if (t->apic && taken < (t->pair ? 2 : 1) * (uint64_t)loops) {
		fprintf(stderr, "%s: %llu interrupts in %u rounds\n", t->name, (unsigned long long)taken, loops);
		exit(1);
	}
	if (t->pair) {
		stop_other(&m, thread);
		destroy(&second);
	}
	destroy(&first);
	munmap(m.mem, MEM);
	close(m.vm);
	return time - (uint64_t)loops * t->waits;
}

static bool wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc < 2;
}

int main(int argc, char **argv)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	cpu_set_t processor;

	if (kvm < 0)
		die("/dev/kvm");
	setvbuf(stdout, NULL, _IOLBF, 0);
	CPU_ZERO(&processor);
	CPU_SET(0, &processor);
	if (sched_setaffinity(0, sizeof(processor), &processor))
		die("sched_setaffinity");
	for (unsigned i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		uint64_t least_few = UINT64_MAX, least_many = UINT64_MAX;

		if (!wanted(tests[i].name, argc, argv))
			continue;
		for (unsigned round = 0; round < ROUNDS; round++) {
			uint64_t few = run(kvm, &tests[i], LOOPS / 2), many = run(kvm, &tests[i], LOOPS / 2 + LOOPS);

			least_few = few < least_few ? few : least_few;
			least_many = many < least_many ? many : least_many;
		}
		printf("%s: %llu\n", tests[i].name, (unsigned long long)(least_many - least_few) / LOOPS);
	}
	return 0;
}
