/*
 * lite's native executor against the processor itself: every instruction of native_table.S on random register states, once
 * as it stands in this process and once as a guest's, through the KVM API. One verdict a mnemonic; the argument, or TRINE_LONG, sets how many states each
 * instruction gets.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "libtrine/trine.h"
#include "tests/random.h"
#include "tests/tap.h"

struct native_case {
	int64_t name, code, len; /* relative to themselves */
};
extern const struct native_case __start_native_cases[], __stop_native_cases[];

#define MEMORY	(1UL << 20)
#define TABLES	0x1000UL
#define CODE	0x10000UL
#define DATA	0x80000UL
#define SPAN	256
#define FLAGS	0x8d5U
#define XSIZE	832 /* x87, SSE, header, AVX in the standard format */

struct state {
	uint64_t gpr[16], rflags;
	uint8_t data[SPAN];
	uint8_t x[4096] __attribute__((aligned(64)));
};

void native_call(struct state *s, void *code);
__asm__(".text\n.globl native_call\nnative_call:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rdi; push %rsi\n"
	"mov $7, %eax; xor %edx, %edx; xrstor64 448(%rdi)\n"
	"pushq 128(%rdi); popfq\n"
	"mov 0(%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx; mov 24(%rdi), %rbx; mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
	"mov 64(%rdi), %r8; mov 72(%rdi), %r9; mov 80(%rdi), %r10; mov 88(%rdi), %r11; mov 96(%rdi), %r12; mov 104(%rdi), %r13\n"
	"mov 112(%rdi), %r14; mov 120(%rdi), %r15; mov 56(%rdi), %rdi\n"
	"call *(%rsp)\n"
	"pushfq; push %rdi; mov 24(%rsp), %rdi; popq 56(%rdi); popq 128(%rdi)\n"
	"mov %rax, 0(%rdi); mov %rcx, 8(%rdi); mov %rdx, 16(%rdi); mov %rbx, 24(%rdi); mov %rbp, 40(%rdi); mov %rsi, 48(%rdi)\n"
	"mov %r8, 64(%rdi); mov %r9, 72(%rdi); mov %r10, 80(%rdi); mov %r11, 88(%rdi); mov %r12, 96(%rdi); mov %r13, 104(%rdi)\n"
	"mov %r14, 112(%rdi); mov %r15, 120(%rdi)\n"
	"mov $7, %eax; xor %edx, %edx; xsave64 448(%rdi)\n"
	"fninit; cld; vzeroupper; push $0x1f80; ldmxcsr (%rsp); pop %rax\n"
	"pop %rsi; pop %rdi; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");

/* A word that arithmetic finds interesting: any bits, small numbers, floats, doubles, special ones. */
static uint64_t word(void)
{
	static const uint64_t special[] = {
		0, 0x8000000000000000ULL, 0x7ff0000000000000ULL, 0x7ff8000000000000ULL, 0x7ff0000000000001ULL, 0x3ff0000000000000ULL,
		0x0000000000000001ULL, 0x7f8000003f800000ULL, 0x7fc0000000000001ULL, 0xffffffffffffffffULL, 0x7fefffffffffffffULL,
		0x7fffffff80000000ULL,
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

static void randomize(struct state *s, const char *name)
{
	uint64_t *x = (uint64_t *)s->x;

	for (int i = 0; i < 16; i++)
		s->gpr[i] = word();
	s->gpr[6] = 8;
	s->rflags = (rnd() & FLAGS) | 2;
	for (int i = 0; i < SPAN / 8; i++)
		((uint64_t *)s->data)[i] = word();
	memset(s->x, 0, sizeof(s->x));
	*(uint16_t *)s->x = 0x7f | (rnd() & 0xf00);	   /* FCW */
	*(uint16_t *)(s->x + 2) = rnd() & 0x7f00 & ~0x80; /* FSW: TOP and condition codes */
	s->x[4] = rnd() & 3 ? 0xff : rnd();		   /* tags */
	*(uint32_t *)(s->x + 24) = 0x1f80 | (rnd() & 0xe040 & (rnd() & 1 ? ~0U : 0));
	for (int i = 0; i < 8; i++) {
		int integer = rnd() & 1;

		x[4 + 2 * i] = rnd() & 3 ? word() | 1ULL << 63 : word();
		x[5 + 2 * i] = rnd() & 7 ? (0x3fff + rnd() % 64 - 20) | (rnd() & 0x8000) : rnd() & 0xffff;
		if (!strncmp(name, "mmx", 3) && integer)
			x[5 + 2 * i] = 0xffff;
	}
	for (int i = 20; i < 52; i++)
		x[i] = word();
	for (int i = 72; i < 104; i++)
		x[i] = word();
	if (strstr(name, "gather")) {
		x[24] = rnd() & 31;
		x[25] = rnd() & 31;
		x[76] = rnd() & 31;
		x[77] = rnd() & 31;
	}
	if (strstr(name, "vgatherq") || strstr(name, "vpgatherq")) {
		x[24] &= 15;
		x[25] &= 15;
		x[76] &= 15;
		x[77] &= 15;
	}
	x[64] = 7; /* XSTATE_BV */
}

static int vcpu;
static struct kvm_run *run;
static uint8_t *memory;

static bool set_up(void)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	struct kvm_segment data = { .limit = ~0U, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = 7 };
	int kvm = trine_open("/dev/kvm", O_RDWR), vm = trine_ioctl(kvm, KVM_CREATE_VM, 0);
	struct kvm_sregs s;
	uint64_t *map;

	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || vm < 0)
		return false;
	map = (uint64_t *)(memory + TABLES);
	map[0] = (TABLES + 0x1000) | 3;
	map[512] = (TABLES + 0x2000) | 3;
	map[1024] = 0x83;
	region.userspace_addr = (uintptr_t)memory;
	if (trine_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		return false;
	vcpu = trine_ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0 || trine_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) || trine_ioctl(vcpu, KVM_SET_CPUID2, &cpuid))
		return false;
	run = trine_mmap(NULL, trine_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED || trine_ioctl(vcpu, KVM_GET_SREGS, &s))
		return false;
	s.cr3 = TABLES;
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

static int guest(struct state *s, uint64_t rip)
{
	struct kvm_regs r = {
		.rax = s->gpr[0], .rcx = s->gpr[1], .rdx = s->gpr[2], .rbx = DATA + 64, .rsp = 0x9000, .rbp = s->gpr[5], .rsi = s->gpr[6],
		.rdi = DATA + 64, .r8 = s->gpr[8], .r9 = s->gpr[9], .r10 = s->gpr[10], .r11 = s->gpr[11], .r12 = s->gpr[12],
		.r13 = s->gpr[13], .r14 = s->gpr[14], .r15 = s->gpr[15], .rip = rip, .rflags = s->rflags,
	};

	memcpy(memory + DATA, s->data, SPAN);
	if (trine_ioctl(vcpu, KVM_SET_REGS, &r) || trine_ioctl(vcpu, KVM_SET_XSAVE, s->x) || trine_ioctl(vcpu, KVM_RUN, 0) ||
	    trine_ioctl(vcpu, KVM_GET_REGS, &r) || trine_ioctl(vcpu, KVM_GET_XSAVE, s->x))
		return -errno;
	memcpy(s->data, memory + DATA, SPAN);
	s->gpr[0] = r.rax;
	s->gpr[1] = r.rcx;
	s->gpr[2] = r.rdx;
	s->gpr[5] = r.rbp;
	s->gpr[6] = r.rsi;
	memcpy(&s->gpr[8], &r.r8, 64);
	s->rflags = r.rflags;
	return run->exit_reason;
}

/* Where they differ, as words; NULL: nowhere. */
static const char *differ(const struct state *a, const struct state *b)
{
	static char text[64], text2[64];

	for (int i = 0; i < 16; i++) {
		if (i == 3 || i == 4 || i == 7 || a->gpr[i] == b->gpr[i])
			continue;
		snprintf(text, sizeof(text), "register %d: %llx, not %llx", i, (long long)b->gpr[i], (long long)a->gpr[i]);
		return text;
	}
	if ((a->rflags ^ b->rflags) & FLAGS)
		return "flags";
	if (memcmp(a->data, b->data, SPAN))
		return "memory";
	if (memcmp(a->x, b->x, 5))
		return "FCW, FSW or tags";
	if (memcmp(a->x + 24, b->x + 24, 4))
	{
		snprintf(text2, sizeof(text2), "MXCSR: %x, not %x", *(uint32_t *)(b->x + 24), *(uint32_t *)(a->x + 24));
		return text2;
	}
	for (int i = 0; i < 8; i++)
		if (memcmp(a->x + 32 + 16 * i, b->x + 32 + 16 * i, 10))
			return "an x87 register";
	if (memcmp(a->x + 160, b->x + 160, 256))
		return "an XMM register";
	if (memcmp(a->x + 576, b->x + 576, 256))
		return "the upper half of a YMM register";
	return NULL;
}

static void put_code(const struct native_case *t, uint8_t *code)
{
	memcpy(code, (const uint8_t *)&t->code + t->code, t->len);
	code[t->len] = 0xc3;
}

static sigjmp_buf undefined;

static void on_sigill(int sig)
{
	siglongjmp(undefined, 1);
}

/* Puts @t into @code. Whether the processor has it, in that form: CPUID has no bit for each. Before there is a VM, which takes SIGILL. */
static bool present(const struct native_case *t, uint8_t *code, uint8_t *scratch)
{
	struct state state;
	bool good = true;

	put_code(t, code);
	randomize(&state, (const char *)&t->name + t->name);
	state.gpr[3] = state.gpr[7] = (uintptr_t)scratch + 64;
	signal(SIGILL, on_sigill);
	if (sigsetjmp(undefined, 1))
		good = false;
	else
		native_call(&state, code);
	signal(SIGILL, SIG_DFL);
	return good;
}

int main(int argc, char **argv)
{
	unsigned states = argc > 1 ? strtoul(argv[1], NULL, 0) : getenv("TRINE_LONG") ? 3000 : 200, a, b, c = 0, d;
	size_t count = __stop_native_cases - __start_native_cases;
	static struct state start, here, there;
	const char *name = "", *wrong = NULL;
	uint8_t *code, *scratch;
	uint64_t total = 0;
	bool absent = false, *has = calloc(count, sizeof(*has));

	tap_begin();
	__cpuid(1, a, b, c, d);
	if (!(c & (1U << 28))) {
		tap_skip("the processor has no AVX", "native execution");
		return tap_end();
	}
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	scratch = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; has && code != MAP_FAILED && scratch != MAP_FAILED && i < count; i++)
		has[i] = present(&__start_native_cases[i], code, scratch);
	if (!tap_ok(has && code != MAP_FAILED && scratch != MAP_FAILED && set_up(), "a guest in long mode with AVX"))
		return tap_end();
	for (size_t i = 0; i < count; i++) {
		const struct native_case *t = &__start_native_cases[i];
		uint8_t *at = memory + CODE + i * 32;

		memcpy(at, (const uint8_t *)&t->code + t->code, t->len);
		at[t->len] = 0xf4;
	}
	for (size_t i = 0; i <= count; i++) {
		const struct native_case *t = &__start_native_cases[i];
		const char *next = i < count ? (const char *)&t->name + t->name : "";

		if (strcmp(name, next)) {
			if (absent)
				tap_skip("the processor does not have it", name);
			else if (*name)
				tap_ok(!wrong, "%s%s%s", name, wrong ? ": " : "", wrong ? wrong : "");
			name = next;
			wrong = NULL;
			absent = false;
		}
		if (i == count)
			break;
		absent |= !has[i];
		if (absent)
			continue;
		put_code(t, code);
		for (unsigned n = 0; n < states && !wrong; n++, total++) {
			int reason;

			randomize(&start, name);
			here = there = start;
			here.gpr[3] = here.gpr[7] = (uintptr_t)scratch + 64;
			memcpy(scratch, here.data, SPAN);
			native_call(&here, code);
			memcpy(here.data, scratch, SPAN);
			reason = guest(&there, CODE + i * 32);
			if (reason != KVM_EXIT_HLT) {
				static char text[32];

				snprintf(text, sizeof(text), "exit %d, case %zu", reason, i);
				wrong = text;
			} else {
				wrong = differ(&here, &there);
			}
			if (wrong)
				tap_diag("%s, instruction %zu, state %u", name, i, n);
		}
	}
	free(has);
	tap_diag("%llu states", (unsigned long long)total);
	return tap_end();
}
