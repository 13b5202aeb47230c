/* See both.h. */
#include "tests/lite/both.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "libtrine/trine.h"
#include "tests/random.h"

uint8_t *both_memory;
static struct kvm_run *run;
static int vcpu;

_Static_assert(offsetof(struct state, x) == 1216, "both_here() knows");
uint32_t both_mask; /* for XRSTOR and XSAVE */
__asm__(".text\n.globl both_here\nboth_here:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rdi; push %rsi\n"
	"mov both_mask(%rip), %eax; xor %edx, %edx; xrstor64 1216(%rdi)\n"
	"pushq 128(%rdi); popfq\n"
	"mov 0(%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx; mov 24(%rdi), %rbx; mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
	"mov 64(%rdi), %r8; mov 72(%rdi), %r9; mov 80(%rdi), %r10; mov 88(%rdi), %r11; mov 96(%rdi), %r12; mov 104(%rdi), %r13\n"
	"mov 112(%rdi), %r14; mov 120(%rdi), %r15; mov 56(%rdi), %rdi\n"
	"call *(%rsp)\n"
	"pushfq; push %rdi; mov 24(%rsp), %rdi; popq 56(%rdi); popq 128(%rdi)\n"
	"mov %rax, 0(%rdi); mov %rcx, 8(%rdi); mov %rdx, 16(%rdi); mov %rbx, 24(%rdi); mov %rbp, 40(%rdi); mov %rsi, 48(%rdi)\n"
	"mov %r8, 64(%rdi); mov %r9, 72(%rdi); mov %r10, 80(%rdi); mov %r11, 88(%rdi); mov %r12, 96(%rdi); mov %r13, 104(%rdi)\n"
	"mov %r14, 112(%rdi); mov %r15, 120(%rdi)\n"
	"mov both_mask(%rip), %eax; xor %edx, %edx; xsave64 1216(%rdi)\n"
	"fninit; cld; vzeroupper; push $0x1f80; ldmxcsr (%rsp); pop %rax\n"
	"pop %rsi; pop %rdi; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");

uint64_t both_word(void)
{
	static const uint64_t special[] = {
		0, 0x8000000000000000ULL, 0x7ff0000000000000ULL, 0x7ff8000000000000ULL, 0x7ff0000000000001ULL, 0x3ff0000000000000ULL,
		0x0000000000000001ULL, 0x7f8000003f800000ULL, 0x7fc0000000000001ULL, 0xffffffffffffffffULL, 0x7fefffffffffffffULL,
		0x7fffffff80000000ULL, 0x3c007c00fc007e00ULL,
	};
	double d;
	float f[2];
	uint64_t v;

	switch (rnd() % 5) {
	case 0: return rnd();
	case 1: return rnd() & 0xff;
	case 2: d = (double)(int64_t)rnd() / (double)(1ULL << (rnd() % 60)); memcpy(&v, &d, 8); return v;
	case 3:
		f[0] = (float)(int32_t)rnd() / 1024;
		f[1] = (float)(int32_t)rnd() / 65536;
		memcpy(&v, f, 8);
		return v;
	default: return special[rnd() % (sizeof(special) / sizeof(special[0]))];
	}
}

void both_randomize(struct state *s)
{
	for (int i = 0; i < 16; i++)
		s->gpr[i] = both_word();
	s->gpr[6] = 8;
	s->rflags = (rnd() & BOTH_FLAGS) | 2;
	for (int i = 0; i < BOTH_SPAN / 8; i++)
		((uint64_t *)s->data)[i] = both_word();
	memset(s->x, 0, sizeof(s->x));
}

static void page_tables(bool holes)
{
	uint64_t *map = (uint64_t *)(both_memory + BOTH_TABLES);

	map[0] = (BOTH_TABLES + 0x1000) | 3;
	map[512] = (BOTH_TABLES + 0x2000) | 3;
	map[1024] = 0x83;
	if (!holes)
		return;
	map[1024] = (BOTH_TABLES + 0x3000) | 3;
	for (unsigned i = 0; i < 256; i++)
		map[1536 + i] = i * 4096 | (i * 4096 == BOTH_DATA - BOTH_DATA % 4096 + 4096 ? 0 : 3);
}

bool both_set_up(uint64_t xcr0, bool holes)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	struct kvm_segment data = { .limit = ~0U, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
	struct kvm_userspace_memory_region region = { .memory_size = BOTH_MEMORY };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = xcr0 };
	int kvm = trine_open("/dev/kvm", O_RDWR), vm = trine_ioctl(kvm, KVM_CREATE_VM, 0);
	struct kvm_sregs s;

	both_mask = (uint32_t)xcr0;
	both_memory = mmap(NULL, BOTH_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (both_memory == MAP_FAILED || vm < 0)
		return false;
	page_tables(holes);
	region.userspace_addr = (uintptr_t)both_memory;
	if (trine_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		return false;
	vcpu = trine_ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0 || trine_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) || trine_ioctl(vcpu, KVM_SET_CPUID2, &cpuid))
		return false;
	run = trine_mmap(NULL, trine_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED || trine_ioctl(vcpu, KVM_GET_SREGS, &s))
		return false;
	s.cr3 = BOTH_TABLES;
	s.cr4 = 0x40620; /* OSXSAVE, OSXMMEXCPT, OSFXSR, PAE */
	s.cr0 = 0x80000031;
	s.efer = 0x500;
	s.ds = s.es = s.ss = s.fs = s.gs = data;
	s.cs = data;
	s.cs.selector = 8;
	s.cs.type = 11;
	s.cs.db = 0;
	s.cs.l = 1;
	return !trine_ioctl(vcpu, KVM_SET_SREGS, &s) && !trine_ioctl(vcpu, KVM_SET_XCRS, &xcrs);
}

int both_guest(struct state *s, uint64_t rip, unsigned rbx)
{
	struct kvm_regs r = {
		.rax = s->gpr[0], .rcx = s->gpr[1], .rdx = s->gpr[2], .rbx = BOTH_DATA + rbx, .rsp = 0x9000, .rbp = s->gpr[5],
		.rsi = s->gpr[6], .rdi = BOTH_DATA + rbx, .r8 = s->gpr[8], .r9 = s->gpr[9], .r10 = s->gpr[10], .r11 = s->gpr[11],
		.r12 = s->gpr[12], .r13 = s->gpr[13], .r14 = s->gpr[14], .r15 = s->gpr[15], .rip = rip, .rflags = s->rflags,
	};
	int reason;

	memcpy(both_memory + BOTH_DATA, s->data, BOTH_SPAN);
	if (trine_ioctl(vcpu, KVM_SET_REGS, &r) || trine_ioctl(vcpu, KVM_SET_XSAVE, s->x) || trine_ioctl(vcpu, KVM_RUN, 0) ||
	    trine_ioctl(vcpu, KVM_GET_REGS, &r) || trine_ioctl(vcpu, KVM_GET_XSAVE, s->x))
		return -errno;
	reason = run->exit_reason;
	memcpy(s->data, both_memory + BOTH_DATA, BOTH_SPAN);
	s->gpr[0] = r.rax;
	s->gpr[1] = r.rcx;
	s->gpr[2] = r.rdx;
	s->gpr[5] = r.rbp;
	s->gpr[6] = r.rsi;
	memcpy(&s->gpr[8], &r.r8, 64);
	s->rflags = r.rflags;
	return reason;
}

const char *both_differ(const struct state *a, const struct state *b)
{
	static char text[64];

	for (int i = 0; i < 16; i++) {
		if (i == 3 || i == 4 || i == 7 || a->gpr[i] == b->gpr[i])
			continue;
		snprintf(text, sizeof(text), "register %d: %llx, not %llx", i, (long long)b->gpr[i], (long long)a->gpr[i]);
		return text;
	}
	if ((a->rflags ^ b->rflags) & BOTH_FLAGS)
		return "flags";
	if (memcmp(a->data, b->data, BOTH_SPAN))
		return "memory";
	if (memcmp(a->x + 24, b->x + 24, 4)) {
		snprintf(text, sizeof(text), "MXCSR: %x, not %x", *(uint32_t *)(b->x + 24), *(uint32_t *)(a->x + 24));
		return text;
	}
	return NULL;
}

void both_calm(void)
{
	__asm__ volatile("fninit; cld; vzeroupper; ldmxcsr %0" : : "m"((const uint32_t){ 0x1f80 }));
}
