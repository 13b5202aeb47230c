/*
 * A machine for the guest-side tests of lite: memory, paging, segments for every privilege, a stop at every vector, and small
 * guests written beside the test that uses them.
 *
 *	GUEST(twice, "add rax, rax\n int 0x80");
 *	struct rig r;
 *
 *	rig_make(&r, 1);
 *	RIG_LOAD(&r, RIG_CODE, twice);
 *	rig_mode(&r, 0, RIG_U64);
 *	r.cpu[0].regs.rip = RIG_CODE;
 *	if (rig_go(&r, 0) == RIG_DONE) ... r.cpu[0].regs.rax
 *
 * Linear memory is the physical, in pages of 4 KiB that user code may use, but for what rig_map() makes of it. Every vector leads
 * to a HLT on a stack of its own (IST 1), so that whatever happens comes out of rig_go(); a test that wants a handler
 * replaces the gate (rig_gate()). INT 0x80, which every privilege may use, is how a guest ends.
 *
 * The engine is the one that TRINE_LITE in the environment names.
 */
#ifndef TESTS_LITE_RIG_H
#define TESTS_LITE_RIG_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "libtrine/trine.h"
#include "tests/tap.h"

/* Guest code: position-independent Intel syntax, in the test's own file. */
#define GUEST_BITS(bits, name, text)                                                                            \
	extern const uint8_t guest_##name[], guest_##name##_end[];                                             \
	__asm__(".pushsection .rodata\n.intel_syntax noprefix\n.code" #bits "\n.globl guest_" #name            \
		", guest_" #name "_end\nguest_" #name ":\n" text "\nguest_" #name "_end:\n.code64\n"            \
		".att_syntax\n.popsection")
#define GUEST(name, text)   GUEST_BITS(64, name, text)
#define GUEST32(name, text) GUEST_BITS(32, name, text)

#define RIG_MEMORY   (8UL << 20)
#define RIG_GDT	     0x1000UL
#define RIG_IDT	     0x2000UL
#define RIG_TSS	     0x3000UL /* 0x80 a vCPU */
#define RIG_VECTORS  0x4000UL /* 16 bytes a vector, a HLT each */
#define RIG_IRETQ    (RIG_VECTORS + 8)
#define RIG_STACKS   0x8000UL /* a page a vCPU and use: top of RSP0, IST1, IST2, IST3 */
#define RIG_CODE     0x20000UL
#define RIG_HANDLERS 0x40000UL
#define RIG_DATA     0x50000UL
#define RIG_STACK    0x60000UL /* tops, 0x1000 a vCPU, growing down from RIG_STACK + 0x1000 * (i + 1) */
#define RIG_PML4     0x100000UL
#define RIG_TABLES   0x101000UL /* page tables are allocated from here */
#define RIG_FREE     0x200000UL /* and nothing is put from here on */
#define RIG_CPUS     4

/* Selectors */
#define RIG_CS64  0x08
#define RIG_DS	  0x10
#define RIG_CS32U 0x23
#define RIG_DSU	  0x2b
#define RIG_CS64U 0x33
#define RIG_TR	  0x40 /* + 0x10 a vCPU */

/* Page table entries */
#define PTE_P	1ULL
#define PTE_W	2ULL
#define PTE_U	4ULL
#define PTE_A	0x20ULL
#define PTE_D	0x40ULL
#define PTE_PS	0x80ULL
#define PTE_G	0x100ULL
#define PTE_NX	(1ULL << 63)
#define PTE_ALL (PTE_P | PTE_W | PTE_U)

enum rig_mode { RIG_K64, RIG_U64, RIG_U32, RIG_MODES };
extern const char *const rig_mode_names[RIG_MODES];

struct rig_cpu {
	int fd;
	struct kvm_run *run;
	enum rig_mode mode;
	bool in_kernel; /* it stopped at a vector since rig_mode(): user code is entered by IRETQ */
	struct kvm_regs regs; /* given to the vCPU by rig_go(), taken from it after every run */
	/* What the gate of the vector pushed, where it stopped in one: */
	int vector; /* -1: it did not */
	uint64_t error, rip, cs, rflags, rsp, ss, cr2;
};

struct rig {
	int kvm, vm, cpus;
	bool irqchip;
	uint8_t *mem;
	uint64_t next_table;
	uint64_t system; /* linear address of GDT, IDT, TSS, vectors and their stacks, less the physical one */
	struct rig_cpu cpu[RIG_CPUS];
};

/* rig_go() and rig_again(): an exit reason of KVM_RUN, -errno, or: */
#define RIG_DONE    1000 /* INT 0x80; .rip is behind it */
#define RIG_STOPPED 1001 /* a vector; .vector and the others say more */

bool rig_make(struct rig *r, int cpus);
/** The same with interrupt controllers in the VM: HLT then waits for an interrupt, and a port takes its place at the vectors. */
bool rig_make_irqchip(struct rig *r, int cpus);
/** What the system needs is at @base from now on, a multiple of 64 KiB, and the lowest 128 KiB are not there any more. */
void rig_move_system(struct rig *r, uint64_t base);
void rig_free(struct rig *r);
/** Segments of @mode and CPL; the stack pointer becomes the vCPU's, flags 2. */
void rig_mode(struct rig *r, int cpu, enum rig_mode mode);
int rig_go(struct rig *r, int cpu);
/** Goes on from where the vCPU is, or with .regs when @set. */
int rig_again(struct rig *r, int cpu);
/** Where the table entry for @la is in guest memory, tables made as needed. */
uint64_t *rig_pte(struct rig *r, uint64_t la);
/** In another address space, whose top table is at @cr3. */
uint64_t *rig_pte_in(struct rig *r, uint64_t cr3, uint64_t la);
void rig_map(struct rig *r, uint64_t la, uint64_t gpa, uint64_t flags);
/** A second address space that is the same as the first but has tables of its own for the low 2 MiB. */
uint64_t rig_new_space(struct rig *r);
/** Sends @vector to 64-bit code at @to; @ist 0: no stack switch. */
void rig_gate(struct rig *r, unsigned vector, uint64_t to, unsigned ist, unsigned dpl);
/** The gate to HLT again. */
void rig_gate_default(struct rig *r, unsigned vector);
void rig_get_sregs(struct rig *r, int cpu, struct kvm_sregs *s);
void rig_set_sregs(struct rig *r, int cpu, struct kvm_sregs *s);
static inline void *rig_at(struct rig *r, uint64_t gpa)
{
	return r->mem + gpa;
}
static inline void rig_put(struct rig *r, uint64_t gpa, uint64_t v)
{
	memcpy(r->mem + gpa, &v, 8);
}
static inline uint64_t rig_get(struct rig *r, uint64_t gpa)
{
	uint64_t v;

	memcpy(&v, r->mem + gpa, 8);
	return v;
}
static inline uint64_t *rig_gpr(struct kvm_regs *k, unsigned n)
{
	__u64 *const gpr[16] = { &k->rax, &k->rcx, &k->rdx, &k->rbx, &k->rsp, &k->rbp, &k->rsi, &k->rdi,
				    &k->r8,  &k->r9,  &k->r10, &k->r11, &k->r12, &k->r13, &k->r14, &k->r15 };

	return (uint64_t *)gpr[n];
}

#define RIG_LOAD(r, gpa, name) memcpy((r)->mem + (gpa), guest_##name, guest_##name##_end - guest_##name)
#define RIG_SIZE(name)	       ((size_t)(guest_##name##_end - guest_##name))

/** Whether TRINE_LITE says engine=jit. */
bool rig_translates(void);
/** One line about the vCPU's stop, for a diagnosis. */
void rig_diag(struct rig *r, int cpu, const char *what, int reason);

#endif
