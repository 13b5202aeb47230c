/*
 * engines/lite/system.h against the emulator: the same instruction, or event, on the same random state, once by the fast function
 * and once by core. What the fast function did must be the same to the last bit, of registers and of memory; what it refused it must not have
 * touched. States are such that a good share is taken, and that share is checked. The argument, or TRINE_LONG, sets how many states each
 * case gets.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/x86/cpuid.h"
#include "core/x86/msr.h"
#include "tests/lite/fast.h"
#include "tests/random.h"

/* Guest-physical pages; linear addresses are the same, at the bottom and again at HIGH. */
enum { PML4 = 1, PDPT, PD, PT, GDT, GDT_2, IDT, IDT_2, TSS, TSS_2, KERNEL, KERNEL_END = KERNEL + 3, BLOCKS, USER, USER_END = USER + 3, PAGES };
enum { ABSENT = PAGES, READ_ONLY, USER_READ_ONLY, ABSENT_2, DEVICE, LINEAR_END };
#define HIGH	   0xffffff8000000000ULL
#define DEVICE_GPA 0xd0000000ULL
#define MEMORY	   (PAGES * 4096UL)

static u8 saved[MEMORY], after_fast[MEMORY];

/* ---- the machine ------------------------------------------------------------------------------------------------ */

static void page_tables(void)
{
	u64 all = 0x67; /* present, writable, user, accessed, dirty: walks change nothing */

	put64(PML4 << 12, PDPT << 12 | all);
	put64((PML4 << 12) + 511 * 8, PDPT << 12 | all);
	put64(PDPT << 12, PD << 12 | all);
	put64(PD << 12, PT << 12 | all);
	for (u64 i = 1; i < PAGES; i++)
		put64((PT << 12) + i * 8, i << 12 | (i >= USER ? all : all & ~4ULL));
	put64((PT << 12) + READ_ONLY * 8, KERNEL << 12 | 0x61);
	put64((PT << 12) + USER_READ_ONLY * 8, USER << 12 | 0x65);
	put64((PT << 12) + DEVICE * 8, DEVICE_GPA | all);
}

static bool machine(void)
{
	if (!fast_machine(MEMORY, MEMORY))
		return false;
	page_tables();
	return vcpu_set_msr(&c->vcpu, MSR_IA32_APICBASE, 0xfee00d00, true) == X86_CONTINUE;
}

/* ---- random states ---------------------------------------------------------------------------------------------- */

static u64 half(void)
{
	return chance(50) ? HIGH : 0;
}

static u64 address(void)
{
	switch (below(20)) {
	case 0: return rnd();
	case 1: return 0x800000000000ULL - below(16);
	case 2: return 0xffff800000000000ULL - below(2);
	default: return (u64)((s64)(rnd() << 16) >> 16);
	}
}

/* Of a stack that mostly exists, for @cpl. */
static u64 stack(unsigned cpl)
{
	static const unsigned odd[] = { ABSENT, READ_ONLY, USER_READ_ONLY, ABSENT_2, DEVICE, BLOCKS, USER, KERNEL, LINEAR_END };
	u64 page = cpl == 3 ? USER + below(USER_END - USER) : KERNEL + below(KERNEL_END - KERNEL), at;

	if (chance(3))
		return chance(50) ? address() : below(64);
	if (chance(12))
		page = odd[below(ARRAY_SIZE(odd))];
	at = chance(8) ? 4096 - below(64) : chance(5) ? below(64) : below(4096);
	at += half() + page * 4096;
	if (chance(3))
		at ^= 1ULL << (47 + below(17)); /* not canonical */
	return chance(85) ? at & ~7ULL : at;
}

static u64 descriptor(void)
{
	static const u8 access[] = { 0x9b, 0x9b, 0xfb, 0xfb, 0x93, 0xf3, 0xf3, 0x9f, 0xff, 0xdb };
	u64 a = access[below(ARRAY_SIZE(access))], flags = a & 8 && chance(65) ? 0xa : 0xc, raw;

	raw = 0xffff | a << 40 | 0xfULL << 48 | flags << 52;
	if (chance(5))
		raw ^= 1ULL << (40 + below(16));
	if (chance(5))
		raw ^= rnd() & 0xff0fffffffffULL;
	return raw;
}

#define DESCRIPTORS 16
static u64 gdt[DESCRIPTORS];

/* A selector, mostly of a descriptor with type bits @value under @mask. */
static u16 selector(u64 mask, u64 value, unsigned rpl)
{
	unsigned n = below(DESCRIPTORS);

	if (chance(4))
		return rnd();
	for (unsigned i = 0; i < DESCRIPTORS && (gdt[n] & mask) != value; i++)
		n = (n + 1) % DESCRIPTORS;
	return n << 3 | rpl;
}

#define ACCESS(n) ((u64)(n) << 40)
static u16 code_selector(unsigned rpl, bool wide)
{
	return selector(ACCESS(0xfd) | BIT64(53), ACCESS(0x99 | rpl << 5) | (wide ? BIT64(53) : 0), rpl);
}

static u16 stack_selector(unsigned rpl)
{
	return chance(15) ? rpl : selector(ACCESS(0xff), ACCESS(0x93 | rpl << 5), rpl);
}

static struct x86_segment random_segment(void)
{
	static const u8 access[] = { 0x93, 0xf3, 0xf3, 0xfb, 0x9f, 0xff, 0xb3 };
	u16 sel = below(DESCRIPTORS) << 3 | below(4);

	if (chance(40))
		return (struct x86_segment){ .sel = sel & 3, .ar = AR_UNUSABLE };
	return (struct x86_segment){ .sel = sel, .base = chance(50) ? 0 : address(), .limit = ~0U,
				     .ar = access[below(ARRAY_SIZE(access))] | AR_G | AR_DB };
}

static const struct x86_state *start; /* as the machine came up */

/* What stays for a while: changing it empties the TLB. */
static void environment(struct x86_state *s)
{
	static const u64 cr0_bits = CR0_WP | CR0_AM | CR0_TS,
			 cr4_bits = CR4_FSGSBASE | CR4_UMIP | CR4_TSD | CR4_PCIDE | CR4_OSXSAVE | CR4_PVI | CR4_PGE;

	s->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | (rnd() & cr0_bits);
	s->cr4 = CR4_PAE | CR4_OSFXSR | (rnd() & cr4_bits) | (chance(60) ? CR4_FSGSBASE : 0);
	s->cr3 = PML4 << 12 | (s->cr4 & CR4_PCIDE ? below(4) : 0);
	s->efer = EFER_LME | EFER_LMA | EFER_NX | (chance(95) ? EFER_SCE : 0);
	s->xcr0 = chance(50) ? 7 : 3;
}

static void random_state(struct x86_state *s, unsigned n, bool compat)
{
	unsigned cpl = chance(60) ? 0 : chance(90) ? 3 : 1 + below(2);

	if (n % 64 == 0) {
		*s = *start;
		environment(s);
	}
	for (unsigned i = 0; i < DESCRIPTORS; i++)
		gdt[i] = descriptor();
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = chance(30) ? stack(cpl) : chance(40) ? address() : chance(50) ? below(256) : rnd();
	s->gpr[REG_SP] = stack(cpl);
	s->rip = address();
	if (!x86_is_canonical(s->rip, 0))
		s->rip = half() + 0x1234;
	s->rflags = (rnd() & (RFLAGS_ARITH | RFLAGS_IF | RFLAGS_DF | RFLAGS_ID | RFLAGS_VIF | RFLAGS_VIP)) | RFLAGS_ONE;
	s->rflags |= (chance(5) ? RFLAGS_NT : 0) | (chance(20) ? RFLAGS_RF : 0) | (chance(20) ? RFLAGS_AC : 0) |
		     (chance(10) ? RFLAGS_IOPL & rnd() : 0);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = random_segment();
	s->seg[SEG_CS] = (struct x86_segment){ .sel = below(DESCRIPTORS) << 3 | cpl, .limit = ~0U,
					       .ar = 0x9b | AR_G | cpl << 5 | (compat && cpl == 3 ? AR_DB : AR_L) };
	if (compat)
		s->rip = (u32)s->rip;
	s->seg[SEG_SS] = chance(20) && cpl < 3 ?
				 (struct x86_segment){ .sel = cpl, .ar = AR_UNUSABLE | cpl << 5 } :
				 (struct x86_segment){ .sel = below(DESCRIPTORS) << 3 | cpl, .limit = ~0U, .ar = 0x93 | AR_G | AR_DB | cpl << 5 };
	s->seg[SEG_TR] = (struct x86_segment){ .sel = 0x40, .base = half() + TSS * 4096 + (chance(90) ? 8 * below(400) : 4096 - below(0x68)),
					       .limit = chance(95) ? 0x67 : below(0x68), .ar = 0x8b };
	s->gdt.base = half() + GDT * 4096 + (chance(90) ? 8 * below(380) : 4096 - below(DESCRIPTORS * 8));
	s->gdt.limit = chance(90) ? DESCRIPTORS * 8 - 1 : below(DESCRIPTORS * 8);
	s->idt.base = half() + IDT * 4096 + (chance(90) ? 0 : below(4096));
	s->idt.limit = chance(95) ? 0xfff : below(0x1000);
	s->star = (u64)below(0x10000) << 48 | (u64)below(0x10000) << 32;
	s->lstar = half() + below(0x10000);
	s->sfmask = rnd() & 0x257fd5;
	s->kernel_gs_base = address();
	s->tsc_aux = below(1000);
	s->cr2 = address();
	s->shadow = 0;
	s->nmi_masked = chance(10);
	x86_update_mode(s);
	memset(memory + 5 * 4096, 0, MEMORY - 5 * 4096);
	for (unsigned i = 0; i < DESCRIPTORS; i++)
		put64((s->gdt.base & 0xffffff) + i * 8, gdt[i]);
}

/* ---- cases ------------------------------------------------------------------------------------------------------ */

static void prepare_sysret(struct x86_state *s)
{
	s->gpr[REG_CX] = address();
}

static void prepare_iret(struct x86_state *s)
{
	u64 at = s->gpr[REG_SP] & 0xffffff;
	unsigned cpl = chance(40) || s->cpl == 3 ? 3 : 0;
	bool wide = chance(70);

	if (at + 40 > MEMORY || at < KERNEL * 4096)
		return;
	put64(at, wide ? address() : (u32)rnd());
	put64(at + 8, code_selector(cpl, wide) | (chance(50) ? rnd() << 16 : 0));
	put64(at + 16, (rnd() & 0x3f7fd7) | (chance(90) ? 0 : RFLAGS_TF));
	put64(at + 24, chance(50) ? stack(cpl) : rnd());
	put64(at + 32, stack_selector(cpl) | (chance(50) ? rnd() << 16 : 0));
	if (chance(90))
		s->rflags &= ~RFLAGS_NT;
}

static void prepare_popf(struct x86_state *s)
{
	u64 at = s->gpr[REG_SP] & 0xffffff;

	if (at + 8 <= MEMORY && at >= KERNEL * 4096)
		put64(at, rnd());
}

/* Selectors in all registers, and where RAX points. */
static void prepare_selector(struct x86_state *s)
{
	u64 at;

	for (unsigned i = 0; i < 16; i++)
		if (i != REG_SP)
			s->gpr[i] = (rnd() << 16) |
				    (chance(30) ? below(4) : selector(ACCESS(0x19), ACCESS(0x11), chance(70) ? s->cpl : below(4)));
	s->gpr[REG_AX] = stack(s->cpl);
	s->seg[SEG_FS].base = chance(80) ? 0 : 16;
	at = s->gpr[REG_AX] & 0xffffff;
	if (at + 16 <= MEMORY && at >= KERNEL * 4096)
		put64(at, s->gpr[REG_DX] & 0xffff);
	/* Misaligned reads find one too. */
	if (chance(30))
		s->rflags &= ~RFLAGS_AC;
}

static void prepare_cr(struct x86_state *s)
{
	s->gpr[REG_AX] = PML4 << 12 | (s->cr4 & CR4_PCIDE ? below(4096) | (chance(50) ? CR3_NOFLUSH : 0) : below(4) << 3);
	if (chance(10))
		s->gpr[REG_AX] |= rnd() & 0xfff0000000000000ULL;
}

static void prepare_invpcid(struct x86_state *s)
{
	u64 at;

	s->gpr[REG_CX] = chance(90) ? below(4) : rnd();
	s->gpr[REG_AX] = stack(s->cpl);
	at = s->gpr[REG_AX] & 0xffffff;
	if (at + 16 <= MEMORY && at >= KERNEL * 4096) {
		put64(at, chance(60) ? 0 : chance(80) ? below(4096) : rnd());
		put64(at + 8, address());
	}
}

static const u32 msrs[] = {
	MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_TSC_AUX, MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SPEC_CTRL,
	MSR_IA32_PRED_CMD, MSR_EFER, MSR_LSTAR, MSR_STAR, MSR_IA32_X2APIC_FIRST + 8, MSR_IA32_X2APIC_FIRST + 0xb,
	MSR_IA32_X2APIC_FIRST + 2, 0x12345678,
};

static void prepare_msr(struct x86_state *s)
{
	u64 v = chance(70) ? address() : below(256);

	s->gpr[REG_CX] = (rnd() << 32) | msrs[below(ARRAY_SIZE(msrs))];
	s->gpr[REG_AX] = (rnd() << 32) | (u32)v;
	s->gpr[REG_DX] = (rnd() << 32) | v >> 32;
}

static void prepare_cpuid(struct x86_state *s)
{
	s->gpr[REG_AX] = (chance(60) ? 0 : chance(50) ? 0x80000000U : 0x40000000U) + below(0x20);
	s->gpr[REG_CX] = below(8);
}

static void prepare_xgetbv(struct x86_state *s)
{
	s->gpr[REG_CX] = chance(80) ? 0 : below(3);
}

/* RDI: an area, mostly aligned, also over a page's end and where it may not be written. */
static void prepare_xsave(struct x86_state *s)
{
	s->cr4 |= chance(95) ? CR4_OSXSAVE : 0;
	s->xcr0 = chance(70) ? 7 : 3;
	s->gpr[REG_AX] = chance(80) ? below(8) : ~0ULL;
	s->gpr[REG_DI] = (s->cpl == 3 ? (u64)USER : (u64)KERNEL) * 4096 + below(3 * 64) * 64 + (chance(5) ? 8 : 0);
}

/* Over page ends, into what is absent or read-only, over each other. Not into the device, which would ask the client. */
static void prepare_string(struct x86_state *s)
{
	u64 first = s->cpl == 3 ? USER : KERNEL;

	s->gpr[REG_DI] = half() + (first + below(3)) * 4096 + (chance(50) ? 4096 - below(80) : below(4096));
	s->gpr[REG_SI] = half() + (first + below(3)) * 4096 + (chance(50) ? 4096 - below(80) : below(4096));
	if (chance(20))
		s->gpr[REG_DI] = s->gpr[REG_SI] + below(16);
	if (chance(10))
		s->gpr[chance(50) ? REG_DI : REG_SI] = half() + (ABSENT + below(3)) * 4096ULL - below(100);
	s->gpr[REG_CX] = chance(10) ? 0 : chance(80) ? below(40) : below(5000);
	if (chance(85))
		s->rflags &= ~(RFLAGS_DF | RFLAGS_AC);
	/* Not down into the page tables. */
	if (s->rflags & RFLAGS_DF)
		s->gpr[REG_CX] %= (KERNEL - PT - 1) * 4096 / 8;
	if (chance(70)) {
		s->gpr[REG_DI] &= ~7ULL;
		s->gpr[REG_SI] &= ~7ULL;
	}
	for (unsigned i = KERNEL * 4096; i < MEMORY; i += 8)
		put64(i, i * 0x9e3779b97f4a7c15ULL);
}

#define TIME   1 /* RAX and RDX are the time of day */
#define STRING 2 /* may be left half done: the emulator does the rest */
#define INUSE  4 /* tells what is in use, of which a host's switch to another task in between makes something else: wrong is what is so twice */

static const struct test {
	const char *name;
	unsigned share; /* in percent: at least so many are to be taken */
	void (*prepare)(struct x86_state *s);
	unsigned flags;
	struct {
		u8 len, bytes[7];
	} code[6];
} tests[] = {
	{ "SYSCALL", 85, NULL, 0, { { 2, { 0x0f, 0x05 } } } },
	{ "SYSRET", 40, prepare_sysret, 0, { { 3, { 0x48, 0x0f, 0x07 } }, { 2, { 0x0f, 0x07 } } } },
	{ "IRETQ", 20, prepare_iret, 0, { { 2, { 0x48, 0xcf } } } },
	{ "SWAPGS", 50, NULL, 0, { { 3, { 0x0f, 0x01, 0xf8 } } } },
	{ "CLI", 50, NULL, 0, { { 1, { 0xfa } } } },
	{ "STI", 50, NULL, 0, { { 1, { 0xfb } } } },
	{ "PUSHFQ", 50, NULL, 0, { { 1, { 0x9c } } } },
	{ "POPFQ", 50, prepare_popf, 0, { { 1, { 0x9d } } } },
	{ "MOV to ES, DS, FS, GS", 25, prepare_selector, 0,
	  { { 2, { 0x8e, 0xc2 } }, { 2, { 0x8e, 0xd9 } }, { 3, { 0x41, 0x8e, 0xe0 } }, { 2, { 0x8e, 0xeb } }, { 2, { 0x8e, 0x18 } },
	    { 3, { 0x64, 0x8e, 0x28 } } } },
	{ "MOV from a segment register", 95, NULL, 0,
	  { { 2, { 0x8c, 0xd0 } }, { 3, { 0x48, 0x8c, 0xd9 } }, { 3, { 0x66, 0x8c, 0xe2 } }, { 3, { 0x41, 0x8c, 0xe8 } } } },
	{ "STR, SLDT", 70, NULL, 0, { { 3, { 0x0f, 0x00, 0xc8 } }, { 4, { 0x48, 0x0f, 0x00, 0xc1 } }, { 4, { 0x66, 0x0f, 0x00, 0xca } } } },
	{ "LLDT of a null selector", 10, prepare_selector, 0, { { 3, { 0x0f, 0x00, 0xd2 } }, { 3, { 0x0f, 0x00, 0x10 } } } },
	{ "VERW", 40, prepare_selector, 0, { { 3, { 0x0f, 0x00, 0xea } }, { 3, { 0x0f, 0x00, 0x28 } } } },
	{ "RDFSBASE, RDGSBASE", 60, NULL, 0,
	  { { 4, { 0xf3, 0x0f, 0xae, 0xc0 } }, { 5, { 0xf3, 0x48, 0x0f, 0xae, 0xc9 } }, { 5, { 0xf3, 0x49, 0x0f, 0xae, 0xc1 } } } },
	{ "WRFSBASE, WRGSBASE", 40, NULL, 0,
	  { { 4, { 0xf3, 0x0f, 0xae, 0xd0 } }, { 5, { 0xf3, 0x48, 0x0f, 0xae, 0xd9 } }, { 5, { 0xf3, 0x49, 0x0f, 0xae, 0xd1 } } } },
	{ "MOV from CR0, CR2, CR3, CR4", 50, NULL, 0,
	  { { 3, { 0x0f, 0x20, 0xc0 } }, { 3, { 0x0f, 0x20, 0xd1 } }, { 4, { 0x41, 0x0f, 0x20, 0xd9 } }, { 3, { 0x0f, 0x20, 0xe2 } } } },
	{ "MOV to CR3", 45, prepare_cr, 0, { { 3, { 0x0f, 0x22, 0xd8 } } } },
	{ "MOV to CR2", 50, NULL, 0, { { 3, { 0x0f, 0x22, 0xd0 } } } },
	{ "CLTS", 50, NULL, 0, { { 2, { 0x0f, 0x06 } } } },
	{ "INVLPG", 50, NULL, 0, { { 3, { 0x0f, 0x01, 0x38 } }, { 4, { 0x64, 0x0f, 0x01, 0x3c } } } },
	{ "INVPCID", 25, prepare_invpcid, 0, { { 5, { 0x66, 0x0f, 0x38, 0x82, 0x08 } } } },
	{ "XGETBV", 35, prepare_xgetbv, 0, { { 3, { 0x0f, 0x01, 0xd0 } } } },
	{ "XSAVE, XSAVEC", 25, prepare_xsave, INUSE, { { 4, { 0x48, 0x0f, 0xae, 0x27 } }, { 4, { 0x48, 0x0f, 0xc7, 0x27 } } } },
	{ "RDMSR", 40, prepare_msr, 0, { { 2, { 0x0f, 0x32 } } } },
	{ "WRMSR", 15, prepare_msr, 0, { { 2, { 0x0f, 0x30 } } } },
	{ "RDTSC, RDTSCP", 70, NULL, TIME, { { 2, { 0x0f, 0x31 } }, { 3, { 0x0f, 0x01, 0xf9 } } } },
	{ "RDPID", 0, NULL, 0, { { 4, { 0xf3, 0x0f, 0xc7, 0xf8 } }, { 5, { 0xf3, 0x41, 0x0f, 0xc7, 0xf9 } } } },
	{ "CPUID", 95, prepare_cpuid, 0, { { 2, { 0x0f, 0xa2 } } } },
	{ "CLD, STD", 95, NULL, 0, { { 1, { 0xfc } }, { 1, { 0xfd } } } },
	{ "MOVS", 40, prepare_string, STRING,
	  { { 2, { 0xf3, 0xa4 } }, { 3, { 0x66, 0xf3, 0xa5 } }, { 2, { 0xf2, 0xa5 } }, { 3, { 0xf3, 0x48, 0xa5 } }, { 1, { 0xa4 } },
	    { 2, { 0x48, 0xa5 } } } },
	{ "STOS", 40, prepare_string, STRING,
	  { { 2, { 0xf3, 0xaa } }, { 3, { 0x66, 0xf3, 0xab } }, { 2, { 0xf2, 0xab } }, { 3, { 0xf3, 0x48, 0xab } }, { 1, { 0xaa } },
	    { 2, { 0x48, 0xab } } } },
	{ "LFENCE, MFENCE, SFENCE, PAUSE", 95, NULL, 0,
	  { { 3, { 0x0f, 0xae, 0xe8 } }, { 3, { 0x0f, 0xae, 0xf0 } }, { 3, { 0x0f, 0xae, 0xf8 } }, { 2, { 0xf3, 0x90 } } } },
};

/* ---- comparing -------------------------------------------------------------------------------------------------- */

/* All that an instruction of these may change. */
struct outcome {
	struct x86_state x;
	u64 requests, spec_ctrl, tsc_deadline, cr8;
};

static void record(struct outcome *o)
{
	memset(o, 0, sizeof(*o));
	o->x = c->vcpu.x86;
	o->requests = c->vcpu.requests;
	o->spec_ctrl = c->vcpu.spec_ctrl;
	o->tsc_deadline = c->vcpu.tsc_deadline;
	o->cr8 = vcpu_get_cr8(&c->vcpu);
}

static void restore(const struct outcome *o)
{
	vcpu_set_cr(&c->vcpu, 8, o->cr8); /* may make a request */
	c->vcpu.x86 = o->x;
	c->vcpu.requests = o->requests;
	c->vcpu.spec_ctrl = o->spec_ctrl;
	c->vcpu.tsc_deadline = o->tsc_deadline;
	memcpy(memory, saved, MEMORY);
	lite_refresh(c);
}

static const char *const gpr_names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
					 "r15" };
static const char *const seg_names[] = { "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr" };

static bool same(const struct outcome *a, const struct outcome *b)
{
	const struct x86_state *x = &a->x, *y = &b->x;
	bool good = true;

	for (unsigned i = 0; i < 16; i++)
		good &= same64(gpr_names[i], x->gpr[i], y->gpr[i]);
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		good &= same64(seg_names[i], x->seg[i].sel, y->seg[i].sel);
		good &= same64(seg_names[i], x->seg[i].base, y->seg[i].base);
		good &= same64(seg_names[i], x->seg[i].limit, y->seg[i].limit);
		good &= same64(seg_names[i], x->seg[i].ar, y->seg[i].ar);
	}
	good &= same64("rip", x->rip, y->rip) & same64("rflags", x->rflags, y->rflags) & same64("cr0", x->cr0, y->cr0) &
		same64("cr2", x->cr2, y->cr2) & same64("cr3", x->cr3, y->cr3) & same64("cr4", x->cr4, y->cr4) &
		same64("cr8", a->cr8, b->cr8) & same64("efer", x->efer, y->efer) & same64("xcr0", x->xcr0, y->xcr0) &
		same64("dr6", x->dr6, y->dr6) & same64("dr7", x->dr7, y->dr7) & same64("star", x->star, y->star) &
		same64("lstar", x->lstar, y->lstar) & same64("sfmask", x->sfmask, y->sfmask) &
		same64("kernel_gs_base", x->kernel_gs_base, y->kernel_gs_base) & same64("sysenter_cs", x->sysenter_cs, y->sysenter_cs) &
		same64("sysenter_esp", x->sysenter_esp, y->sysenter_esp) & same64("tsc_aux", x->tsc_aux, y->tsc_aux) &
		same64("gdtr", x->gdt.base, y->gdt.base) & same64("idtr", x->idt.base, y->idt.base) & same64("mode", x->mode, y->mode) &
		same64("cpl", x->cpl, y->cpl) & same64("shadow", x->shadow, y->shadow) & same64("nmi_masked", x->nmi_masked, y->nmi_masked) &
		same64("requests", a->requests, b->requests) & same64("spec_ctrl", a->spec_ctrl, b->spec_ctrl) &
		same64("tsc_deadline", a->tsc_deadline, b->tsc_deadline);
	return good;
}

static void no_time(struct outcome *o)
{
	o->x.gpr[REG_AX] = o->x.gpr[REG_DX] = 0;
}

struct run {
	const struct insn *insn; /* or */
	const struct x86_event *event;
	unsigned flags;
};

/* One state. 1: taken, and right; 0: refused, rightly; -1: wrong. */
static int compare(const struct run *run)
{
	struct outcome before, fast, emul;
	unsigned after;
	enum x86_result r, rest = X86_CONTINUE;
	u64 times[2];
	bool done;

	memcpy(saved, memory, MEMORY);
	c->vcpu.requests = 0;
	if (chance(10))
		lite_tlb_flush_all(c);
	lite_refresh(c);
	record(&before);
	done = run->insn ? lite_fast_lookup(run->insn, &after)(c, run->insn) : lite_fast_event(c, run->event);
	if (!done) {
		record(&fast);
		return same(&fast, &before) && !memcmp(memory, saved, MEMORY) && c->sti_rip == LITE_STI_NONE ? 0 : -1;
	}
	lite_shadow_home(c);
	if (run->event || (after & LITE_AFTER_CPL)) {
		const struct lite_view *view;

		lite_refresh_cpl(c);
		view = c->view;
		lite_refresh(c);
		if (view != c->view)
			return -1;
	}
	record(&fast);
	if ((run->flags & STRING) && fast.x.rip == before.x.rip) {
		/* RF is for an interrupt that comes in here; the run loop takes it back before the rest. */
		if (!(fast.x.rflags & RFLAGS_RF))
			return -1;
		c->vcpu.x86.rflags ^= (fast.x.rflags ^ before.x.rflags) & RFLAGS_RF;
		rest = emul_exec(&c->vcpu.emul, run->insn);
		record(&fast);
	}
	memcpy(after_fast, memory, MEMORY);
	restore(&before);
	/* A processor may call in use what is in its initial state (XINUSE): what it says of these registers holds for both */
	lite_fpu_save(c);
	c->vcpu.emul.tf_at_start = false;
	r = run->insn ? emul_exec(&c->vcpu.emul, run->insn) : emul_deliver_event(&c->vcpu.emul, run->event);
	if (r != rest) {
		if (report)
			tap_diag("done, and emulated: result %d, vector %u, error %#x", r, c->vcpu.emul.fault.vector, c->vcpu.emul.fault.error);
		return -1;
	}
	record(&emul);
	if (run->flags & TIME) {
		times[0] = (u32)fast.x.gpr[REG_AX] | fast.x.gpr[REG_DX] << 32;
		times[1] = (u32)emul.x.gpr[REG_AX] | emul.x.gpr[REG_DX] << 32;
		if (times[1] < times[0])
			return -1;
		no_time(&fast);
		no_time(&emul);
	}
	if (memcmp(memory, after_fast, MEMORY)) {
		for (unsigned i = 0; report && i < MEMORY; i += 8)
			if (memcmp(memory + i, after_fast + i, 8))
				tap_diag("memory at %#x", i);
		return -1;
	}
	return same(&fast, &emul) ? 1 : -1;
}

struct count {
	unsigned long states, taken, wrong;
};

/* A wrong one is run again, aloud. */
static void count(struct count *n, const struct run *run)
{
	struct outcome start;
	int r, again;

	record(&start);
	memcpy(saved, memory, MEMORY);
	r = compare(run);
	n->states++;
	n->taken += r > 0;
	if (r >= 0 || n->wrong >= 3) {
		n->wrong += r < 0;
		return;
	}
	memcpy(memory, saved, MEMORY);
	restore(&start);
	report = true;
	again = compare(run);
	report = false;
	n->wrong += again < 0 || !(run->flags & INUSE);
}

static void verdict(const char *name, const struct count *n, unsigned share)
{
	tap_ok(!n->wrong && n->taken * 100 >= n->states * share, "%s: %lu states, %lu taken, %lu wrong", name, n->states, n->taken, n->wrong);
}

static void test_insn(const struct test *t, unsigned long states)
{
	struct count n = { 0 };
	unsigned codes = 0;

	while (codes < ARRAY_SIZE(t->code) && t->code[codes].len)
		codes++;
	for (unsigned long i = 0; i < states; i++) {
		u8 bytes[INSN_MAX_LEN] = { 0 };
		struct insn insn;
		unsigned after, which = below(codes);

		memcpy(bytes, t->code[which].bytes, t->code[which].len);
		if (insn_decode(&insn, bytes, sizeof(bytes), MODE_64) || !lite_fast_lookup(&insn, &after)) {
			tap_ok(false, "%s: encoding %u is known", t->name, which);
			return;
		}
		random_state(&c->vcpu.x86, i, false);
		if (t->prepare)
			t->prepare(&c->vcpu.x86);
		count(&n, &(struct run){ .insn = &insn, .flags = t->flags });
	}
	verdict(t->name, &n, t->share);
}

static void random_event(struct x86_state *s, struct x86_event *ev)
{
	static const u8 types[] = { X86_EVENT_INTR, X86_EVENT_EXCEPTION, X86_EVENT_EXCEPTION, X86_EVENT_NMI, X86_EVENT_SOFT_INT,
				    X86_EVENT_SOFT_EXC, X86_EVENT_PRIV_SOFT };
	u64 at, gate, target = chance(95) ? half() + below(1 << 20) : address();
	unsigned type = types[below(ARRAY_SIZE(types))];

	*ev = (struct x86_event){ .type = type, .vector = type == X86_EVENT_EXCEPTION ? below(32) : below(256) };
	if (type >= X86_EVENT_SOFT_INT)
		ev->insn_len = 1 + below(3);
	if (type == X86_EVENT_EXCEPTION && chance(50)) {
		ev->has_error = true;
		ev->error = rnd() & 0xffff;
		if (chance(50)) {
			ev->vector = chance(90) ? VEC_PF : VEC_DB;
			ev->has_payload = true;
			ev->payload = ev->vector == VEC_PF ? address() : rnd() & 0xe00f;
		}
	}
	gate = (target & 0xffff) | (u64)code_selector(chance(90) ? 0 : s->cpl, true) << 16 | (u64)(chance(50) ? 0 : below(8)) << 32 |
	       (u64)(0x8e | below(2) | (chance(50) ? 0x60 : 0)) << 40 | (target >> 16 & 0xffff) << 48;
	if (chance(8))
		gate ^= 1ULL << below(64);
	at = (s->idt.base & 0xffffff) + ev->vector * 16;
	put64(at, gate);
	put64(at + 8, target >> 32);
	at = s->seg[SEG_TR].base & 0xffffff;
	for (unsigned i = 0; i < 3; i++)
		put64(at + 4 + 8 * i, stack(i));
	for (unsigned i = 0; i < 7; i++)
		put64(at + 36 + 8 * i, stack(0));
}

static void test_events(const char *name, bool compat, unsigned long states, unsigned share)
{
	struct count n = { 0 };

	for (unsigned long i = 0; i < states; i++) {
		struct x86_event ev;

		random_state(&c->vcpu.x86, i, compat);
		random_event(&c->vcpu.x86, &ev);
		count(&n, &(struct run){ .event = &ev });
	}
	verdict(name, &n, share);
}

int main(int argc, char **argv)
{
	unsigned long states = argc > 1 ? strtoul(argv[1], NULL, 0) : getenv("TRINE_LONG") ? 1000000 : 50000;
	static struct x86_state up;
	enum x86_result r;

	tap_begin();
	if (!tap_ok(machine(), "a vCPU of lite's"))
		return tap_end();
	up = c->vcpu.x86;
	start = &up;
	/* A page with decoded code, which no TLB lets write. */
	random_state(&c->vcpu.x86, 0, false);
	c->vcpu.x86.cpl = 0;
	lite_refresh(c);
	tap_ok(lite_block_at(c, BLOCKS * 4096, &r), "a page holds code");
	for (unsigned i = 0; i < ARRAY_SIZE(tests); i++)
		test_insn(&tests[i], states);
	test_events("events in 64-bit mode", false, 4 * states, 30);
	test_events("events in compatibility mode", true, states, 30);
	return tap_end();
}
