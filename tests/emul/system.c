/*
 * The emulator's system part against the manuals: segmentation, events in every mode, IRET, far
 * transfers, task switches, system calls, SMM. Two kinds of cases: a table of instructions with the
 * exception each must raise, error code included, and functions that look at the state and the
 * stack after something that works.
 */
#include <stdlib.h>

#include "tests/emul/machine.h"
#include "tests/tap.h"

/* The machine's furniture. */
#define GDT	0x1000
#define IDT	0x2000
#define TSS	0x3000
#define TSS2	0x3800
#define TSS16	0x3c00
#define LDT	0x4000
#define STACK0	0x8000
#define STACK3	0xa000
#define IST1	0xc000
#define CODE	0x10000
#define HANDLER 0x20000
#define DATA	0x30000

/* Selectors */
enum {
	CS0 = 0x08,
	DS0 = 0x10,
	CS3 = 0x1b,
	DS3 = 0x23,
	TR1 = 0x28,
	CS64 = 0x38,
	CS64_3 = 0x43,
	CONFORMING = 0x48,
	GATE = 0x50,
	ABSENT_DATA = 0x58,
	READ_ONLY = 0x60,
	CS16 = 0x68,
	TR2 = 0x70,
	TR16 = 0x78,
	GATE64 = 0x80,
	TASK_GATE = 0x90,
	EXEC_ONLY = 0x98,
	DOWN = 0xa0,
	LDT_SEL = 0xa8,
	LDT_HIGH = 0xb0,
	ABSENT_CODE = 0xb8,
	ABSENT_GATE = 0xc0,
	SMALL = 0xc8,
	GDT_END = 0xd0,
};

enum mode { REAL, V86, P32, U32, L64, U64 };

static struct machine m;
static struct x86_state *const s = &m.s;

static u64 desc(u32 base, u32 limit, unsigned type_s_dpl_p, unsigned flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)type_s_dpl_p << 40 |
	       (u64)(limit >> 16 & 15) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

static u64 gate(u16 sel, u32 offset, unsigned type_dpl_p, unsigned params)
{
	return (offset & 0xffff) | (u64)sel << 16 | (u64)params << 32 | (u64)type_dpl_p << 40 |
	       (u64)(offset >> 16) << 48;
}

static void put(u64 la, u64 value, unsigned size)
{
	memcpy(machine_at(&m, la, size), &value, size);
}

static u64 get(u64 la, unsigned size)
{
	u64 v = 0;

	memcpy(&v, machine_at(&m, la, size), size);
	return v;
}

static void set_desc(u16 sel, u64 d)
{
	put(GDT + (sel & ~7), d, 8);
}

static void load(unsigned reg, u16 sel)
{
	u64 d = get(GDT + (sel & ~7), 8) | BIT64(40);
	u32 limit = (d & 0xffff) | (d >> 32 & 0xf0000);

	s->seg[reg] = (struct x86_segment){ .sel = sel,
					    .base = (d >> 16 & 0xffffff) | d >> 56 << 24,
					    .limit = d & BIT64(55) ? limit << 12 | 0xfff : limit,
					    .ar = d >> 40 & 0xf0ff };
}

static void setup(enum mode mode)
{
	unsigned i;
	bool user = mode == U32 || mode == U64, wide = mode >= L64;

	memset(m.mem, 0, m.pages << 12);
	memset(s, 0, sizeof(*s));
	memset(m.rights, PAGE_WRITE, m.pages);
	m.vendor = "GenuineIntel";
	machine_real_mode(&m);
	s->rip = mode == REAL || mode == V86 ? 0x100 : CODE;
	s->gpr[REG_SP] = user ? STACK3 : STACK0;
	for (i = 0; i < 8; i++)
		if (i != REG_SP)
			s->gpr[i] = 0x1111111111111111ULL * (i + 1);
	for (i = 0; i < 256; i++)
		if (wide) {
			put(IDT + 16 * i, gate(CS64, HANDLER + i, 0x8e, 0), 8);
			put(IDT + 16 * i + 8, 0, 8);
		} else {
			put(IDT + 8 * i, gate(CS0, HANDLER + i, 0x8e, 0), 8);
		}
	set_desc(CS0, desc(0, 0xfffff, 0x9a, 0xc));
	set_desc(DS0, desc(0, 0xfffff, 0x92, 0xc));
	set_desc(CS3, desc(0, 0xfffff, 0xfa, 0xc));
	set_desc(DS3, desc(0, 0xfffff, 0xf2, 0xc));
	set_desc(TR1, desc(TSS, 0x67, 0x89, 0));
	set_desc(CS64, desc(0, 0xfffff, 0x9a, 0xa));
	set_desc(CS64_3, desc(0, 0xfffff, 0xfa, 0xa));
	set_desc(CONFORMING, desc(0, 0xfffff, 0x9e, wide ? 0xa : 0xc));
	set_desc(GATE, gate(CS0, HANDLER + 0x111, 0xec, 2));
	set_desc(ABSENT_DATA, desc(0, 0xfffff, 0x12, 0xc));
	set_desc(READ_ONLY, desc(0, 0xfffff, 0x90, 0xc));
	set_desc(CS16, desc(0, 0xffff, 0x9a, 0));
	set_desc(TR2, desc(TSS2, 0x67, 0x89, 0));
	set_desc(TR16, desc(TSS16, 0x2b, 0x81, 0));
	set_desc(GATE64, gate(CS64, HANDLER + 0x222, 0xec, 0));
	put(GDT + GATE64 + 8, 0, 8);
	set_desc(TASK_GATE, gate(TR2, 0, 0x85, 0));
	set_desc(EXEC_ONLY, desc(0, 0xfffff, 0x98, 0xc));
	set_desc(DOWN, desc(0, 0x30fff, 0x96, 0x4));
	set_desc(LDT_SEL, desc(LDT, 0xf, 0x82, 0));
	set_desc(ABSENT_CODE, desc(0, 0xfffff, 0x1a, 0xc));
	set_desc(ABSENT_GATE, gate(CS0, HANDLER, 0x6c, 0));
	set_desc(SMALL, desc(DATA, 0xff, 0x92, 0x4));
	put(LDT + 8, desc(0, 0xfffff, 0x92, 0xc), 8);
	if (mode == REAL) {
		s->seg[SEG_CS].sel = CODE >> 4;
		s->seg[SEG_CS].base = CODE;
		for (i = 0; i < 256; i++)
			put(4 * i, 0x20000000 | (i + 1), 4);
		return;
	}
	/* TSS: stack of privilege 0, then IST1. */
	if (wide) {
		put(TSS + 4, STACK0, 8);
		put(TSS + 36, IST1, 8);
	} else {
		put(TSS + 4, STACK0, 4);
		put(TSS + 8, DS0, 4);
	}
	put(TSS + 102, 0x68, 2);
	s->gdt = (struct x86_dtable){ GDT, GDT_END - 1 };
	s->idt = (struct x86_dtable){ IDT, wide ? 0xfff : 0x7ff };
	s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP;
	s->rflags = RFLAGS_ONE | RFLAGS_IF;
	s->seg[SEG_TR] = (struct x86_segment){ .sel = TR1, .base = TSS, .limit = 0x67, .ar = 0x8b };
	set_desc(TR1, desc(TSS, 0x67, 0x8b, 0));
	s->seg[SEG_LDTR] = (struct x86_segment){ .ar = AR_UNUSABLE };
	if (wide) {
		s->cr0 |= CR0_PG;
		s->cr4 = CR4_PAE | CR4_FSGSBASE | CR4_OSXSAVE | CR4_OSFXSR;
		s->efer = EFER_LME | EFER_LMA | EFER_SCE;
	}
	if (mode == V86) {
		for (i = 0; i < 6; i++)
			s->seg[i] = (struct x86_segment){ .limit = 0xffff, .ar = 0xf3 };
		s->seg[SEG_CS].sel = CODE >> 4;
		s->seg[SEG_CS].base = CODE;
		s->rflags |= RFLAGS_VM;
		s->gpr[REG_SP] = 0x7000;
	} else {
		load(SEG_CS, mode == P32 ? CS0 : mode == U32 ? CS3 : mode == L64 ? CS64 : CS64_3);
		for (i = 0; i < 6; i++)
			if (i != SEG_CS)
				load(i, user ? DS3 : DS0);
	}
	x86_update_mode(s);
}

static u64 code_base(void)
{
	return s->mode == X86_MODE_LONG ? s->rip : s->seg[SEG_CS].base + s->rip;
}

static enum x86_result step(const char *code, unsigned len)
{
	memcpy(machine_at(&m, code_base(), len), code, len);
	memset(machine_at(&m, code_base() + len, 15), 0x90, 15);
	return emul_step(&m.e);
}
#define STEP(code) step(code, sizeof(code) - 1)

/* ---- instructions that must fault ----------------------------------------------------------- */

/* clang-format off */
static void ax_as_selector(u64 v) { s->gpr[REG_AX] = v; }
static void data_at(u64 v) { put(DATA, v, 8); s->gpr[REG_BX] = DATA; }
static void ds_is(u64 v) { load(SEG_DS, v); s->gpr[REG_BX] = DATA; }
static void bx_is(u64 v) { s->gpr[REG_BX] = v; }
static void small_ds(u64 v) { load(SEG_DS, SMALL); s->gpr[REG_BX] = v; }
static void down_ds(u64 v) { load(SEG_DS, DOWN); s->gpr[REG_BX] = v; }
static void null_ds(u64 v) { s->seg[SEG_DS] = (struct x86_segment){ .ar = AR_UNUSABLE }; s->gpr[REG_BX] = DATA; }
static void sp_is(u64 v) { s->gpr[REG_SP] = v; }
static void cr4_set(u64 v) { s->cr4 |= v; }
static void cr4_clear(u64 v) { s->cr4 &= ~v; }
static void cr0_set(u64 v) { s->cr0 |= v; }
static void flags_set(u64 v) { s->rflags |= v; }
static void gdt_limit(u64 v) { s->gdt.limit = v; }
static void dr7_is(u64 v) { s->dr7 = v; }
static void sysenter_is(u64 v) { s->sysenter_cs = v; }
static void cx_is(u64 v) { s->gpr[REG_CX] = v; }
static void efer_clear(u64 v) { s->efer &= ~v; }
static void xcr0_is(u64 v) { s->xcr0 = v; }
static void stack_word(u64 v) { put(s->gpr[REG_SP], v, 8); }
static void stack_words(u64 v) { put(s->gpr[REG_SP], CODE, 4); put(s->gpr[REG_SP] + 4, v, 4); put(s->gpr[REG_SP] + 8, 2, 4); }
static void io_bitmap(u64 v) { put(TSS + 0x68, v, 8); s->seg[SEG_TR].limit = 0x6f; put(TSS + 102, 0x68, 2); }
static void none(u64 v) { }

static const struct fault_case {
	const char *name;
	enum mode mode;
	const char *code;
	unsigned len;
	void (*prepare)(u64 v);
	u64 arg;
	int vector; /* -1: no fault */
	u32 error;
} fault_cases[] = {
#define C(code) code, sizeof(code) - 1
	/* Segmentation, SDM 3A 5.3 to 5.5 */
	{ "a limit is inclusive", P32, C("\x8a\x03"), small_ds, 0xff, -1 },
	{ "a byte beyond the limit", P32, C("\x8a\x03"), small_ds, 0x100, VEC_GP, 0 },
	{ "a dword across the limit", P32, C("\x8b\x03"), small_ds, 0xfd, VEC_GP, 0 },
	{ "expand-down: above the limit", P32, C("\x8a\x03"), down_ds, 0x31000, -1 },
	{ "expand-down: at the limit", P32, C("\x8a\x03"), down_ds, 0x30fff, VEC_GP, 0 },
	{ "a null data segment", P32, C("\x8a\x03"), null_ds, 0, VEC_GP, 0 },
	{ "a null data segment is good in 64-bit mode", L64, C("\x8a\x03"), null_ds, 0, -1 },
	{ "a write to a read-only segment", P32, C("\x88\x03"), ds_is, READ_ONLY, VEC_GP, 0 },
	{ "a read of a read-only segment", P32, C("\x8a\x03"), ds_is, READ_ONLY, -1 },
	{ "a read of an execute-only segment", P32, C("\x8a\x03"), ds_is, EXEC_ONLY, VEC_GP, 0 },
	{ "a write through CS", P32, C("\x2e\x88\x03"), bx_is, DATA, VEC_GP, 0 },
	{ "a read through CS", P32, C("\x2e\x8a\x03"), bx_is, DATA, -1 },
	{ "a write through CS in real mode", REAL, C("\x2e\x88\x07"), bx_is, 0x10, -1 },
	{ "a word at 0xffff in real mode", REAL, C("\x8b\x07"), bx_is, 0xffff, VEC_GP, 0 },
	{ "a word at 0xffff of the stack in real mode", REAL, C("\x36\x8b\x07"), bx_is, 0xffff, VEC_SS, 0 },
	{ "a push at SP = 1 in real mode", REAL, C("\x50"), sp_is, 1, VEC_SS, 0 },
	{ "a push at SP = 0 in real mode wraps", REAL, C("\x50"), sp_is, 0, -1 },
	{ "a non-canonical address", L64, C("\x8a\x03"), bx_is, 0x800000000000, VEC_GP, 0 },
	{ "a qword into the non-canonical hole", L64, C("\x48\x8b\x03"), bx_is, 0x7ffffffffffc, VEC_GP, 0 },
	{ "a non-canonical address by RSP", L64, C("\x8a\x04\x24"), sp_is, 0x800000000000, VEC_SS, 0 },
	{ "a non-canonical push", L64, C("\x50"), sp_is, 0x800000000004, VEC_SS, 0 },
	/* Loading segment registers */
	{ "MOV DS, null", P32, C("\x8e\xd8"), ax_as_selector, 0, -1 },
	{ "MOV DS beyond the GDT", P32, C("\x8e\xd8"), ax_as_selector, GDT_END | 2, VEC_GP, GDT_END },
	{ "MOV DS from the LDT without one", P32, C("\x8e\xd8"), ax_as_selector, 0xc, VEC_GP, 0xc },
	{ "MOV DS, not present", P32, C("\x8e\xd8"), ax_as_selector, ABSENT_DATA, VEC_NP, ABSENT_DATA },
	{ "MOV DS, execute-only code", P32, C("\x8e\xd8"), ax_as_selector, EXEC_ONLY, VEC_GP, EXEC_ONLY },
	{ "MOV DS, system segment", P32, C("\x8e\xd8"), ax_as_selector, TR1, VEC_GP, TR1 },
	{ "MOV DS, RPL above DPL", P32, C("\x8e\xd8"), ax_as_selector, DS0 | 3, VEC_GP, DS0 },
	{ "MOV DS, DPL 0 at CPL 3", U32, C("\x8e\xd8"), ax_as_selector, DS0, VEC_GP, DS0 },
	{ "MOV DS, conforming code at CPL 3", U32, C("\x8e\xd8"), ax_as_selector, CONFORMING, -1 },
	{ "MOV SS, null", P32, C("\x8e\xd0"), ax_as_selector, 0, VEC_GP, 0 },
	{ "MOV SS, null at CPL 0 of 64-bit mode", L64, C("\x8e\xd0"), ax_as_selector, 0, -1 },
	{ "MOV SS, null at CPL 3 of 64-bit mode", U64, C("\x8e\xd0"), ax_as_selector, 3, VEC_GP, 0 },
	{ "MOV SS, RPL is not CPL", P32, C("\x8e\xd0"), ax_as_selector, DS3, VEC_GP, 0x20 },
	{ "MOV SS, read-only", P32, C("\x8e\xd0"), ax_as_selector, READ_ONLY, VEC_GP, READ_ONLY },
	{ "MOV SS, not present", P32, C("\x8e\xd0"), ax_as_selector, ABSENT_DATA, VEC_SS, ABSENT_DATA },
	{ "LLDT at CPL 3", U32, C("\x0f\x00\xd0"), ax_as_selector, LDT_SEL, VEC_GP, 0 },
	{ "LLDT of what is no LDT", P32, C("\x0f\x00\xd0"), ax_as_selector, DS0, VEC_GP, DS0 },
	{ "LLDT in real mode", REAL, C("\x0f\x00\xd0"), ax_as_selector, LDT_SEL, VEC_UD, 0 },
	{ "LTR of a busy TSS", P32, C("\x0f\x00\xd8"), ax_as_selector, TR1, VEC_GP, TR1 },
	{ "LTR, null", P32, C("\x0f\x00\xd8"), ax_as_selector, 0, VEC_GP, 0 },
	{ "LTR of a 16-bit TSS in long mode", L64, C("\x0f\x00\xd8"), ax_as_selector, TR16, VEC_GP, TR16 },
	/* Far transfers */
	{ "JMP to null", P32, C("\xea\x00\x00\x02\x00\x00\x00"), none, 0, VEC_GP, 0 },
	{ "JMP beyond the GDT", P32, C("\xea\x00\x00\x02\x00\xd8\x00"), none, 0, VEC_GP, 0xd8 },
	{ "JMP with a short GDT", P32, C("\xea\x00\x00\x02\x00\x68\x00"), gdt_limit, 0x6e, VEC_GP, 0x68 },
	{ "JMP to data", P32, C("\xea\x00\x00\x02\x00\x10\x00"), none, 0, VEC_GP, DS0 },
	{ "JMP to code that is not present", P32, C("\xea\x00\x00\x02\x00\xb8\x00"), none, 0, VEC_NP, ABSENT_CODE },
	{ "JMP beyond the limit", P32, C("\xea\x00\x00\x01\x00\x68\x00"), none, 0, VEC_GP, 0 },
	{ "JMP to less privilege", P32, C("\xea\x00\x00\x02\x00\x1b\x00"), none, 0, VEC_GP, 0x18 },
	{ "JMP to more privilege", U32, C("\xea\x00\x00\x02\x00\x08\x00"), none, 0, VEC_GP, CS0 },
	{ "JMP through a gate to more privilege", U32, C("\xea\x00\x00\x02\x00\x53\x00"), none, 0, VEC_GP, CS0 },
	{ "CALL of a gate that is not present", U32, C("\x9a\x00\x00\x02\x00\xc3\x00"), none, 0, VEC_NP, ABSENT_GATE },
	{ "CALL of a task gate above its DPL", U32, C("\x9a\x00\x00\x02\x00\x90\x00"), none, 0, VEC_GP, TASK_GATE },
	{ "JMP to a busy TSS", P32, C("\xea\x00\x00\x02\x00\x28\x00"), none, 0, VEC_GP, TR1 },
	{ "JMP to a TSS in long mode", L64, C("\xff\x2b"), data_at, 0x7000020000, VEC_GP, TR2 },
	{ "RETF to null", P32, C("\xcb"), stack_words, 0, VEC_GP, 0 },
	{ "RETF to more privilege", U32, C("\xcb"), stack_words, CS0, VEC_GP, CS0 },
	{ "IRET to null", P32, C("\xcf"), stack_words, 0, VEC_GP, 0 },
	{ "IRET to data", P32, C("\xcf"), stack_words, DS0, VEC_GP, DS0 },
	{ "IRET to absent code", P32, C("\xcf"), stack_words, ABSENT_CODE, VEC_NP, ABSENT_CODE },
	{ "IRET with NT in long mode", L64, C("\x48\xcf"), flags_set, RFLAGS_NT, VEC_GP, 0 },
	{ "IRET with NT, no task linked", P32, C("\xcf"), flags_set, RFLAGS_NT, VEC_TS, 0 },
	{ "RET to a non-canonical address", L64, C("\xc3"), stack_word, 0x1234800000000000, VEC_GP, 0 },
	/* Software interrupts */
	{ "INT n at CPL 3 through a gate of DPL 0", U32, C("\xcd\x80"), none, 0, VEC_GP, 0x402 },
	{ "INT3 at CPL 3 through a gate of DPL 0", U64, C("\xcc"), none, 0, VEC_GP, 0x1a },
	{ "INT n in V86 with IOPL 0", V86, C("\xcd\x21"), none, 0, VEC_GP, 0 },
	/* Flags */
	{ "CLI at CPL 3", U32, C("\xfa"), none, 0, VEC_GP, 0 },
	{ "CLI at CPL 3 with IOPL 3", U32, C("\xfa"), flags_set, RFLAGS_IOPL, -1 },
	{ "CLI at CPL 3 with PVI", U32, C("\xfa"), cr4_set, CR4_PVI, -1 },
	{ "CLI in V86 with IOPL 0", V86, C("\xfa"), none, 0, VEC_GP, 0 },
	{ "CLI in V86 with VME", V86, C("\xfa"), cr4_set, CR4_VME, -1 },
	{ "STI at CPL 3 with PVI", U32, C("\xfb"), cr4_set, CR4_PVI, -1 },
	{ "PUSHF in V86 with IOPL 0", V86, C("\x9c"), none, 0, VEC_GP, 0 },
	{ "POPF in V86 with IOPL 3", V86, C("\x9d"), flags_set, RFLAGS_IOPL, -1 },
	{ "IRET in V86 with IOPL 0", V86, C("\xcf"), none, 0, VEC_GP, 0 },
	/* Ports */
	{ "IN at CPL 3: bitmap beyond the limit", U32, C("\xe4\x10"), none, 0, VEC_GP, 0 },
	{ "IN at CPL 3: bit clear", U32, C("\xe4\x10"), io_bitmap, 0, -1 },
	{ "IN at CPL 3: bit set", U32, C("\xe4\x10"), io_bitmap, 0x10000, VEC_GP, 0 },
	{ "IN of four ports: the last bit set", U32, C("\xe5\x10"), io_bitmap, 0x80000, VEC_GP, 0 },
	{ "IN at CPL 3 with IOPL 3", U32, C("\xe4\x10"), flags_set, RFLAGS_IOPL, -1 },
	{ "IN in V86 with IOPL 3 still asks the bitmap", V86, C("\xe4\x10"), flags_set, RFLAGS_IOPL, VEC_GP, 0 },
	/* Privilege and control */
	{ "HLT at CPL 3", U64, C("\xf4"), none, 0, VEC_GP, 0 },
	{ "MOV CR0 at CPL 3", U64, C("\x0f\x22\xc0"), none, 0, VEC_GP, 0 },
	{ "MOV CR1", L64, C("\x0f\x20\xc8"), none, 0, VEC_UD, 0 },
	{ "MOV CR8 above 15", L64, C("\x44\x0f\x22\xc0"), none, 0, VEC_GP, 0 },
	{ "MOV DR4 with CR4.DE", L64, C("\x0f\x21\xe0"), cr4_set, CR4_DE, VEC_UD, 0 },
	{ "MOV DR4 is DR6 without CR4.DE", L64, C("\x0f\x21\xe0"), none, 0, -1 },
	{ "MOV DR7 at CPL 3", U64, C("\x0f\x21\xf8"), none, 0, VEC_GP, 0 },
	{ "MOV DR0 with general detect", L64, C("\x0f\x21\xc0"), dr7_is, DR7_GD | DR7_FIXED_1, VEC_DB, 0 },
	{ "RDMSR of what is no MSR", L64, C("\x0f\x32"), cx_is, 0x99999, VEC_GP, 0 },
	{ "RDTSC at CPL 3", U64, C("\x0f\x31"), none, 0, -1 },
	{ "RDTSC at CPL 3 with TSD", U64, C("\x0f\x31"), cr4_set, CR4_TSD, VEC_GP, 0 },
	{ "RDPMC at CPL 3 without PCE", U64, C("\x0f\x33"), none, 0, VEC_GP, 0 },
	{ "SGDT at CPL 3", U32, C("\x0f\x01\x03"), bx_is, DATA, -1 },
	{ "SGDT at CPL 3 with UMIP", U32, C("\x0f\x01\x03"), cr4_set, CR4_UMIP, VEC_GP, 0 },
	{ "SMSW at CPL 3 with UMIP", U64, C("\x0f\x01\xe0"), cr4_set, CR4_UMIP, VEC_GP, 0 },
	{ "LGDT of a non-canonical base", L64, C("\x0f\x01\x13"), data_at, 0x8123456789ab0027, VEC_GP, 0 },
	{ "XGETBV without OSXSAVE", L64, C("\x0f\x01\xd0"), cr4_clear, CR4_OSXSAVE, VEC_UD, 0 },
	{ "XGETBV of index 7", L64, C("\x0f\x01\xd0"), cx_is, 7, VEC_GP, 0 },
	{ "XSETBV at CPL 3", U64, C("\x0f\x01\xd1"), none, 0, VEC_GP, 0 },
	{ "CLAC at CPL 3", U64, C("\x0f\x01\xca"), none, 0, VEC_UD, 0 },
	{ "RDFSBASE without FSGSBASE", L64, C("\xf3\x48\x0f\xae\xc0"), cr4_clear, CR4_FSGSBASE, VEC_UD, 0 },
	{ "WRGSBASE, not canonical", L64, C("\xf3\x48\x0f\xae\xd8"), ax_as_selector, 0x800000000000, VEC_GP, 0 },
	{ "SWAPGS at CPL 3", U64, C("\x0f\x01\xf8"), none, 0, VEC_GP, 0 },
	{ "MONITOR at CPL 3", U64, C("\x0f\x01\xc8"), none, 0, VEC_UD, 0 },
	{ "INVPCID of type 4", L64, C("\x66\x0f\x38\x82\x03"), data_at, 0, VEC_GP, 0 },
	{ "RSM outside SMM", P32, C("\x0f\xaa"), none, 0, VEC_UD, 0 },
	/* System calls */
	{ "SYSCALL without SCE", U64, C("\x0f\x05"), efer_clear, EFER_SCE, VEC_UD, 0 },
	{ "SYSCALL in compatibility mode on Intel", U32, C("\x0f\x05"), none, 0, VEC_UD, 0 },
	{ "SYSRET at CPL 3", U64, C("\x48\x0f\x07"), none, 0, VEC_GP, 0 },
	{ "SYSRET to a non-canonical address", L64, C("\x48\x0f\x07"), cx_is, 0x800000000000, VEC_GP, 0 },
	{ "SYSENTER without a code segment", U64, C("\x0f\x34"), sysenter_is, 3, VEC_GP, 0 },
	{ "SYSENTER in real mode", REAL, C("\x0f\x34"), sysenter_is, 8, VEC_GP, 0 },
	{ "SYSEXIT at CPL 3", U64, C("\x0f\x35"), sysenter_is, 8, VEC_GP, 0 },
	/* x87, SSE, AVX: SDM 3A 2.5, 13.1 */
	{ "x87 with CR0.EM", P32, C("\xd9\xe8"), cr0_set, CR0_EM, VEC_NM, 0 },
	{ "x87 with CR0.TS", P32, C("\xd9\xe8"), cr0_set, CR0_TS, VEC_NM, 0 },
	{ "FWAIT with TS alone", P32, C("\x9b"), cr0_set, CR0_TS, -1 },
	{ "FWAIT with TS and MP", P32, C("\x9b"), cr0_set, CR0_TS | CR0_MP, VEC_NM, 0 },
	{ "MMX with CR0.EM", P32, C("\x0f\x6f\xc1"), cr0_set, CR0_EM, VEC_UD, 0 },
	{ "MMX with CR0.TS", P32, C("\x0f\x6f\xc1"), cr0_set, CR0_TS, VEC_NM, 0 },
	{ "SSE without OSFXSR", P32, C("\x0f\x28\xc1"), none, 0, VEC_UD, 0 },
	{ "SSE with CR0.TS", L64, C("\x0f\x28\xc1"), cr0_set, CR0_TS, VEC_NM, 0 },
	{ "SSE with CR0.EM and TS", L64, C("\x0f\x28\xc1"), cr0_set, CR0_TS | CR0_EM, VEC_UD, 0 },
	{ "AVX with XCR0 = 3", L64, C("\xc5\xf8\x28\xc1"), xcr0_is, 3, VEC_UD, 0 },
	{ "AVX with XCR0 = 7", L64, C("\xc5\xf8\x28\xc1"), xcr0_is, 7, -1 },
	{ "AVX-512 with XCR0 = 7", L64, C("\x62\xf1\x7c\x48\x28\xc1"), xcr0_is, 7, VEC_UD, 0 },
	{ "AVX-512 with XCR0 = e7", L64, C("\x62\xf1\x7c\x48\x28\xc1"), xcr0_is, 0xe7, -1 },
	{ "XSAVE without OSXSAVE", P32, C("\x0f\xae\x23"), none, 0, VEC_UD, 0 },
	{ "FXSAVE with CR0.EM", P32, C("\x0f\xae\x03"), cr0_set, CR0_EM, VEC_NM, 0 },
	/* Fetching */
	{ "fifteen bytes", L64, C("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90\x90"), none, 0, -1 },
	{ "more than fifteen bytes", L64, C("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"), none, 0,
	  VEC_GP, 0 },
	{ "LOCK where it may not be", L64, C("\xf0\x90"), none, 0, VEC_UD, 0 },
	{ "UD2", U64, C("\x0f\x0b"), none, 0, VEC_UD, 0 },
};
/* clang-format on */

static void test_faults(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(fault_cases); i++) {
		const struct fault_case *c = &fault_cases[i];
		struct x86_state before;
		enum x86_result r;
		bool good;

		setup(c->mode);
		c->prepare(c->arg);
		before = *s;
		r = step(c->code, c->len);
		if (c->vector < 0)
			good = r == X86_CONTINUE;
		else
			good = r == X86_FAULT && m.e.fault.vector == c->vector &&
			       m.e.fault.error == c->error && !memcmp(&before, s, sizeof(before));
		if (!tap_ok(good, "%s: %s", c->name,
			    c->vector < 0 ? "works" : "the right fault, nothing changed"))
			tap_diag("result %d vector %d error %x, state %s", r, m.e.fault.vector,
				 m.e.fault.error,
				 memcmp(&before, s, sizeof(before)) ? "changed" : "unchanged");
	}
}

/* ---- events --------------------------------------------------------------------------------- */

static enum x86_result deliver(u8 vector, enum x86_event_type type, bool has_error, u32 error)
{
	struct x86_event ev = { .vector = vector,
				.type = type,
				.has_error = has_error,
				.error = error,
				.insn_len = 2 };

	return emul_deliver_event(&m.e, &ev);
}

/* @n values of @size bytes from SP up. */
static bool stack_is(u64 sp, unsigned size, unsigned n, const u64 *want)
{
	unsigned i;

	for (i = 0; i < n; i++)
		if (get(sp + i * size, size) != want[i]) {
			tap_diag("stack[%u] is %llx, not %llx", i,
				 (unsigned long long)get(sp + i * size, size),
				 (unsigned long long)want[i]);
			return false;
		}
	return true;
}
#define STACK_IS(sp, size, ...) \
	stack_is(sp, size, sizeof((u64[]){ __VA_ARGS__ }) / 8, (const u64[]){ __VA_ARGS__ })

static void test_events(void)
{
	enum x86_result r;

	setup(REAL);
	s->rflags |= RFLAGS_IF | RFLAGS_TF | RFLAGS_AC;
	r = deliver(0x21, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == 0x22 && s->seg[SEG_CS].sel == 0x2000 &&
		       s->seg[SEG_CS].base == 0x20000 && s->gpr[REG_SP] == STACK0 - 6 &&
		       STACK_IS(STACK0 - 6, 2, 0x100, CODE >> 4, 0x302) &&
		       !(s->rflags & (RFLAGS_IF | RFLAGS_TF | RFLAGS_AC)),
	       "real mode: through the vector table, IF, TF and AC clear");

	setup(REAL);
	r = deliver(VEC_GP, X86_EVENT_EXCEPTION, true, 0x1234);
	tap_ok(r == X86_CONTINUE && s->gpr[REG_SP] == STACK0 - 6,
	       "real mode: no error code is pushed");

	setup(REAL);
	s->idt.limit = 3;
	tap_ok(deliver(0x21, X86_EVENT_INTR, false, 0) == X86_SHUTDOWN,
	       "real mode: no vector table, shutdown");

	setup(P32);
	s->rflags |= RFLAGS_NT;
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + 0x40 && s->seg[SEG_CS].sel == CS0 &&
		       s->cpl == 0 && STACK_IS(s->gpr[REG_SP], 4, CODE, CS0, 0x4202) &&
		       s->gpr[REG_SP] == STACK0 - 12 && !(s->rflags & (RFLAGS_IF | RFLAGS_NT)),
	       "protected mode, same privilege: EFLAGS, CS, EIP; NT and IF clear");

	setup(P32);
	put(IDT + 8 * 0x40, gate(CS0, HANDLER, 0x8f, 0), 8);
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && (s->rflags & RFLAGS_IF), "a trap gate leaves IF alone");

	setup(P32);
	put(IDT + 8 * 0x40, gate(CS0, 0x1234, 0x86, 0), 8);
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == 0x1234 && STACK_IS(STACK0 - 6, 2, 0, CS0, 0x202),
	       "a 16-bit gate pushes words");

	setup(U32);
	s->gpr[REG_SP] = 0x9abc;
	r = deliver(VEC_PF, X86_EVENT_EXCEPTION, true, 5);
	tap_ok(r == X86_CONTINUE && s->cpl == 0 && s->seg[SEG_SS].sel == DS0 &&
		       s->gpr[REG_SP] == STACK0 - 24 &&
		       STACK_IS(STACK0 - 24, 4, 5, CODE, CS3, 0x10202, 0x9abc, DS3),
	       "from privilege 3: the TSS's stack, SS and ESP, RF for a fault, the error code");

	setup(U32);
	put(TSS + 8, 0, 4);
	put(IDT + 8 * 14, gate(CS0, HANDLER, 0xee, 0), 8);
	r = STEP("\xcd\x0e");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_TS && m.e.fault.error == 0,
	       "a null SS in the TSS: #TS(0) for INT n");

	setup(U32);
	put(TSS + 8, DS3, 4);
	put(IDT + 8 * 14, gate(CS0, HANDLER, 0xee, 0), 8);
	r = STEP("\xcd\x0e");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_TS && m.e.fault.error == 0x20,
	       "the wrong SS in the TSS: #TS(SS)");

	setup(U32);
	put(TSS + 8, ABSENT_DATA, 4);
	put(IDT + 8 * 14, gate(CS0, HANDLER, 0xee, 0), 8);
	r = STEP("\xcd\x0e");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_SS && m.e.fault.error == ABSENT_DATA,
	       "an SS in the TSS that is not present: #SS(SS)");

	setup(P32);
	put(IDT + 8 * 0x40, gate(CS0, HANDLER, 0x0e, 0), 8);
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + VEC_NP && get(STACK0 - 16, 4) == 0x203,
	       "an external interrupt whose gate is not present: #NP with IDT and EXT bits");

	setup(P32);
	put(IDT + 8 * VEC_GP, gate(CS0, HANDLER, 0x0e, 0), 8);
	r = deliver(VEC_GP, X86_EVENT_EXCEPTION, true, 8);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + VEC_DF && get(s->gpr[REG_SP], 4) == 0,
	       "a contributory fault while a contributory fault is delivered: #DF(0)");

	setup(P32);
	put(IDT + 8 * VEC_PF, gate(CS0, HANDLER, 0x0e, 0), 8);
	r = deliver(VEC_PF, X86_EVENT_EXCEPTION, true, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + VEC_DF,
	       "a contributory fault while a page fault is delivered: #DF");

	setup(P32);
	put(IDT + 8 * VEC_UD, gate(CS0, HANDLER, 0x0e, 0), 8);
	r = deliver(VEC_UD, X86_EVENT_EXCEPTION, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + VEC_NP,
	       "a fault while a benign exception is delivered: that fault");

	setup(P32);
	put(IDT + 8 * VEC_GP, 0, 8);
	put(IDT + 8 * VEC_DF, 0, 8);
	tap_ok(deliver(VEC_GP, X86_EVENT_EXCEPTION, true, 0) == X86_SHUTDOWN,
	       "a fault while #DF is delivered: shutdown");

	setup(P32);
	m.rights[(STACK0 - 1) >> 12] = PAGE_READ;
	r = deliver(VEC_GP, X86_EVENT_EXCEPTION, true, 0);
	tap_ok(r == X86_SHUTDOWN && s->cr2 == STACK0 - 4,
	       "no stack to deliver anything on: shutdown, CR2 is its address");

	setup(L64);
	s->gpr[REG_SP] = STACK0 - 5;
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + 0x40 &&
		       s->gpr[REG_SP] == STACK0 - 16 - 40 &&
		       STACK_IS(s->gpr[REG_SP], 8, CODE, CS64, 0x202, STACK0 - 5, DS0) &&
		       s->seg[SEG_SS].sel == DS0,
	       "64-bit mode, same privilege: an aligned frame of five");

	setup(U64);
	r = deliver(VEC_PF, X86_EVENT_EXCEPTION, true, 7);
	tap_ok(r == X86_CONTINUE && s->cpl == 0 && s->gpr[REG_SP] == STACK0 - 48 &&
		       s->seg[SEG_SS].sel == 0 &&
		       STACK_IS(STACK0 - 48, 8, 7, CODE, CS64_3, 0x10202, STACK3, DS3),
	       "64-bit mode, from privilege 3: RSP0, a null SS, the error code");

	setup(L64);
	put(IDT + 16 * 2, gate(CS64, HANDLER, 0x8e, 1), 8);
	r = deliver(VEC_NMI, X86_EVENT_NMI, false, 0);
	tap_ok(r == X86_CONTINUE && s->gpr[REG_SP] == IST1 - 40,
	       "64-bit mode: the interrupt stack table");

	setup(L64);
	put(IDT + 16 * 0x40, gate(CS64, HANDLER, 0x8e, 0), 8);
	put(IDT + 16 * 0x40 + 8, 0x8000, 8);
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + VEC_GP && get(s->gpr[REG_SP], 8) == 1,
	       "64-bit mode: a handler at a non-canonical address: #GP(EXT)");

	setup(L64);
	put(IDT + 16 * 0x40, gate(CS0, HANDLER, 0x8e, 0), 8);
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + VEC_GP &&
		       get(s->gpr[REG_SP], 8) == (CS0 | 1),
	       "64-bit mode: a handler in 32-bit code: #GP(CS + EXT)");

	setup(L64);
	put(TSS + 36, 0x800000000000, 8);
	put(IDT + 16 * 0x40, gate(CS64, HANDLER, 0x8e, 1), 8);
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + VEC_SS && get(s->gpr[REG_SP], 8) == 1,
	       "64-bit mode: a non-canonical IST: #SS(EXT)");

	setup(V86);
	s->seg[SEG_DS].sel = 0x1234;
	s->seg[SEG_GS].sel = 0x5678;
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->mode == X86_MODE_PROT32 && s->cpl == 0 &&
		       s->gpr[REG_SP] == STACK0 - 36 &&
		       STACK_IS(STACK0 - 36, 4, 0x100, CODE >> 4, 0x20202, 0x7000, 0, 0, 0x1234, 0,
				0x5678) &&
		       (s->seg[SEG_DS].ar & AR_UNUSABLE) && !(s->rflags & RFLAGS_VM),
	       "virtual-8086 mode: nine values, data segments null");
	r = STEP("\xcf");
	tap_ok(r == X86_CONTINUE && s->mode == X86_MODE_V86 && s->rip == 0x100 &&
		       s->seg[SEG_DS].sel == 0x1234 && s->seg[SEG_DS].base == 0x12340 &&
		       s->seg[SEG_GS].sel == 0x5678 && s->gpr[REG_SP] == 0x7000 && s->cpl == 3,
	       "IRET back to virtual-8086 mode");

	setup(V86);
	put(IDT + 8 * 0x40, gate(CONFORMING, HANDLER, 0x8e, 0), 8);
	r = deliver(0x40, X86_EVENT_INTR, false, 0);
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + VEC_GP &&
		       get(s->gpr[REG_SP], 4) == (CONFORMING | 1),
	       "virtual-8086 mode to conforming code: #GP(CS + EXT)");

	setup(V86);
	s->cr4 |= CR4_VME;
	s->rflags |= RFLAGS_VIF;
	put(TSS + 102, 0x88, 2); /* the redirection bitmap lies at 0x68, all zero */
	s->seg[SEG_TR].limit = 0x90;
	put(4 * 0x21, 0x22220333, 4);
	r = STEP("\xcd\x21");
	tap_ok(r == X86_CONTINUE && s->mode == X86_MODE_V86 && s->rip == 0x333 &&
		       s->seg[SEG_CS].base == 0x22220 &&
		       STACK_IS(0x7000 - 6, 2, 0x102, CODE >> 4, 0x3202) &&
		       !(s->rflags & RFLAGS_VIF) && (s->rflags & RFLAGS_IF),
	       "VME: INT n to the 8086 program's handler; VIF for IF, IOPL 3 in the image");

	setup(L64);
	s->dr7 |= DR7_GD;
	r = emul_deliver_event(&m.e, &(struct x86_event){ .vector = VEC_DB,
							  .type = X86_EVENT_EXCEPTION,
							  .has_payload = true,
							  .payload = DR6_BS });
	tap_ok(r == X86_CONTINUE && s->dr6 == (DR6_FIXED_1 | DR6_BS) && !(s->dr7 & DR7_GD) &&
		       get(s->gpr[REG_SP] + 16, 8) == 0x202,
	       "#DB: DR6 tells why, general detect is off, no RF in the image");

	setup(L64);
	put(IDT + 16 * 3, gate(CS64, HANDLER + 3, 0x8e, 0), 8);
	r = STEP("\xcc");
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + 3 && get(s->gpr[REG_SP], 8) == CODE + 1,
	       "INT3 returns behind itself");
}

/* ---- IRET, far transfers -------------------------------------------------------------------- */

static void push_all(unsigned size, unsigned n, const u64 *v)
{
	unsigned i;

	for (i = 0; i < n; i++)
		put(s->gpr[REG_SP] + i * size, v[i], size);
}
#define PUSH_ALL(size, ...) \
	push_all(size, sizeof((u64[]){ __VA_ARGS__ }) / 8, (const u64[]){ __VA_ARGS__ })

static void test_returns(void)
{
	enum x86_result r;

	setup(P32);
	PUSH_ALL(4, 0x12345, CS3, 0x3246, STACK3, DS3);
	s->gpr[REG_SP] = STACK0;
	load(SEG_FS, DS0);
	load(SEG_GS, DS3);
	r = STEP("\xcf");
	tap_ok(r == X86_CONTINUE && s->cpl == 3 && s->rip == 0x12345 && s->gpr[REG_SP] == STACK3 &&
		       s->seg[SEG_SS].sel == DS3 && (s->seg[SEG_FS].ar & AR_UNUSABLE) &&
		       s->seg[SEG_FS].sel == 0 && s->seg[SEG_GS].sel == DS3 && s->rflags == 0x3246,
	       "IRET to privilege 3: the stack, the flags, segments of privilege 0 gone");

	setup(U32);
	PUSH_ALL(4, 0x12345, CS3, 0x3046);
	s->rflags = 0x202;
	r = STEP("\xcf");
	tap_ok(r == X86_CONTINUE && s->rflags == 0x246 && s->gpr[REG_SP] == STACK3 + 12,
	       "IRET at privilege 3: IF and IOPL stay");

	setup(L64);
	s->nmi_masked = true;
	PUSH_ALL(8, 0x7fff12345678, CS64_3, 0x10202, 0x7ffffffff000, DS3);
	r = STEP("\x48\xcf");
	tap_ok(r == X86_CONTINUE && s->cpl == 3 && s->rip == 0x7fff12345678 &&
		       s->gpr[REG_SP] == 0x7ffffffff000 && s->mode == X86_MODE_LONG &&
		       !s->nmi_masked && (s->rflags & RFLAGS_RF),
	       "IRETQ to privilege 3: RF is restored, NMIs are open");

	setup(L64);
	PUSH_ALL(8, CODE, CS64, 2, 0x7770, 0);
	r = STEP("\x48\xcf");
	tap_ok(r == X86_CONTINUE && s->cpl == 0 && s->gpr[REG_SP] == 0x7770 &&
		       (s->seg[SEG_SS].ar & AR_UNUSABLE),
	       "IRETQ at privilege 0 with a null SS");

	setup(L64);
	PUSH_ALL(8, CODE, CS64_3, 2, 0x7770, 3);
	r = STEP("\x48\xcf");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_GP && m.e.fault.error == 0,
	       "IRETQ to privilege 3 with a null SS: #GP(0)");

	setup(L64);
	PUSH_ALL(8, CODE, CS3, 0x202, 0x17770, DS3);
	r = STEP("\x48\xcf");
	tap_ok(r == X86_CONTINUE && s->mode == X86_MODE_PROT32 && s->cpl == 3 &&
		       s->gpr[REG_SP] == 0x17770,
	       "IRETQ to compatibility mode");

	setup(L64);
	PUSH_ALL(8, 0x800000000000, CS64_3, 0x202, 0x17770, DS3);
	r = STEP("\x48\xcf");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_GP && m.e.fault.error == 0 && s->cpl == 0,
	       "IRETQ to a non-canonical address: #GP(0) at privilege 0");

	setup(REAL);
	PUSH_ALL(2, 0x1234, 0x5678, 0x7fd7);
	r = STEP("\xcf");
	tap_ok(r == X86_CONTINUE && s->rip == 0x1234 && s->seg[SEG_CS].base == 0x56780 &&
		       s->rflags == 0x7fd7 && s->gpr[REG_SP] == STACK0 + 6,
	       "IRET in real mode");

	setup(P32);
	r = STEP("\x9a\x00\x00\x02\x00\x48\x00");
	tap_ok(r == X86_CONTINUE && s->rip == 0x20000 && s->seg[SEG_CS].sel == CONFORMING &&
		       STACK_IS(STACK0 - 8, 4, CODE + 7, CS0) && (get(GDT + CONFORMING + 5, 1) & 1),
	       "CALL far: CS and EIP are pushed, the descriptor becomes accessed");
	r = STEP("\xcb");
	tap_ok(r == X86_CONTINUE && s->rip == CODE + 7 && s->seg[SEG_CS].sel == CS0 &&
		       s->gpr[REG_SP] == STACK0,
	       "RETF");

	setup(U32);
	put(STACK3, 0xaaaa, 4);
	put(STACK3 + 4, 0xbbbb, 4);
	r = STEP("\x9a\x00\x00\x00\x00\x53\x00");
	tap_ok(r == X86_CONTINUE && s->cpl == 0 && s->rip == HANDLER + 0x111 &&
		       s->seg[SEG_CS].sel == CS0 && s->gpr[REG_SP] == STACK0 - 24 &&
		       STACK_IS(STACK0 - 24, 4, CODE + 7, CS3, 0xaaaa, 0xbbbb, STACK3, DS3),
	       "CALL through a gate to privilege 0: two parameters copied");
	r = STEP("\xca\x08\x00");
	tap_ok(r == X86_CONTINUE && s->cpl == 3 && s->rip == CODE + 7 &&
		       s->gpr[REG_SP] == STACK3 + 8 && s->seg[SEG_SS].sel == DS3,
	       "RETF 8 to privilege 3: the parameters are gone from both stacks");

	setup(U64);
	put(DATA, 0, 4);
	put(DATA + 4, GATE64 | 3, 2);
	s->gpr[REG_BX] = DATA;
	r = STEP("\xff\x1b");
	tap_ok(r == X86_CONTINUE && s->cpl == 0 && s->rip == HANDLER + 0x222 &&
		       s->seg[SEG_SS].sel == 0 &&
		       STACK_IS(STACK0 - 32, 8, CODE + 2, CS64_3, STACK3, DS3),
	       "CALL through a 64-bit gate");
	r = STEP("\x48\xcb");
	tap_ok(r == X86_CONTINUE && s->cpl == 3 && s->rip == CODE + 2 && s->gpr[REG_SP] == STACK3,
	       "RETFQ to privilege 3");

	setup(U64);
	put(GDT + GATE64 + 8, 0x1f0000000000ULL, 8);
	put(DATA + 4, GATE64 | 3, 2);
	s->gpr[REG_BX] = DATA;
	r = STEP("\xff\x1b");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_GP && m.e.fault.error == GATE64,
	       "a 64-bit gate with a type in its second half: #GP(gate)");

	setup(REAL);
	r = STEP("\x9a\x34\x12\x78\x56");
	tap_ok(r == X86_CONTINUE && s->rip == 0x1234 && s->seg[SEG_CS].base == 0x56780 &&
		       STACK_IS(STACK0 - 4, 2, 0x105, CODE >> 4),
	       "CALL far in real mode");
}

/* ---- tasks ---------------------------------------------------------------------------------- */

static void make_tss2(void)
{
	put(TSS2 + 0x20, HANDLER + 0x77, 4);
	put(TSS2 + 0x24, 0x202, 4);
	put(TSS2 + 0x28, 0xa0a0a0a0, 4);
	put(TSS2 + 0x38, STACK0 - 0x100, 4);
	put(TSS2 + 0x48, DS0, 4);
	put(TSS2 + 0x4c, CS0, 4);
	put(TSS2 + 0x50, DS0, 4);
	put(TSS2 + 0x54, DS0, 4);
}

static void test_tasks(void)
{
	enum x86_result r;

	setup(P32);
	make_tss2();
	r = STEP("\xea\x00\x00\x00\x00\x70\x00");
	tap_ok(r == X86_CONTINUE && s->rip == HANDLER + 0x77 && s->gpr[REG_AX] == 0xa0a0a0a0 &&
		       s->seg[SEG_TR].sel == TR2 && s->gpr[REG_SP] == STACK0 - 0x100 &&
		       (s->cr0 & CR0_TS) && get(TSS + 0x20, 4) == CODE + 7 &&
		       get(TSS + 0x28, 4) == 0x11111111 && get(TSS + 0x4c, 4) == CS0,
	       "JMP to a TSS: registers saved and loaded, TS set");
	tap_ok((get(GDT + TR1 + 5, 1) & 2) == 0 && (get(GDT + TR2 + 5, 1) & 2) &&
		       !(s->rflags & RFLAGS_NT) && !get(TSS2, 2),
	       "JMP to a TSS: the old one is free, the new one busy, no link");

	setup(P32);
	make_tss2();
	r = STEP("\x9a\x00\x00\x00\x00\x90\x00");
	tap_ok(r == X86_CONTINUE && s->seg[SEG_TR].sel == TR2 && (s->rflags & RFLAGS_NT) &&
		       get(TSS2, 2) == TR1 && (get(GDT + TR1 + 5, 1) & 2) &&
		       (get(GDT + TR2 + 5, 1) & 2),
	       "CALL through a task gate: nested, linked, both busy");
	r = STEP("\xcf");
	tap_ok(r == X86_CONTINUE && s->seg[SEG_TR].sel == TR1 && s->rip == CODE + 7 &&
		       s->gpr[REG_AX] == 0x11111111 && !(s->rflags & RFLAGS_NT) &&
		       !(get(GDT + TR2 + 5, 1) & 2) && get(TSS2 + 0x20, 4) == HANDLER + 0x78 &&
		       !(get(TSS2 + 0x24, 4) & RFLAGS_NT),
	       "IRET to the task that called: NT clear in the saved image");

	setup(P32);
	make_tss2();
	put(IDT + 8 * VEC_TS, gate(TR2, 0, 0x85, 0), 8);
	r = deliver(VEC_TS, X86_EVENT_EXCEPTION, true, 0x1234);
	tap_ok(r == X86_CONTINUE && s->seg[SEG_TR].sel == TR2 && s->gpr[REG_SP] == STACK0 - 0x104 &&
		       get(STACK0 - 0x104, 4) == 0x1234 && get(TSS + 0x20, 4) == CODE &&
		       (get(TSS + 0x24, 4) & RFLAGS_RF),
	       "an exception through a task gate: the error code on the new stack, RF in the old "
	       "image");

	setup(P32);
	make_tss2();
	set_desc(TR2, desc(TSS2, 0x66, 0x89, 0));
	r = STEP("\xea\x00\x00\x00\x00\x70\x00");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_TS && m.e.fault.error == TR2 &&
		       s->seg[SEG_TR].sel == TR1,
	       "a TSS that is too short: #TS(TSS) in the old task");

	setup(P32);
	make_tss2();
	put(TSS2 + 0x50, READ_ONLY, 4);
	r = STEP("\xea\x00\x00\x00\x00\x70\x00");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_TS && m.e.fault.error == READ_ONLY &&
		       s->seg[SEG_TR].sel == TR2 && s->rip == HANDLER + 0x77,
	       "a wrong SS in the new task: #TS(SS) in the new task");

	setup(P32);
	make_tss2();
	put(TSS2 + 0x4c, ABSENT_CODE, 4);
	r = STEP("\xea\x00\x00\x00\x00\x70\x00");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_NP && m.e.fault.error == ABSENT_CODE &&
		       s->seg[SEG_TR].sel == TR2,
	       "absent code in the new task: #NP(CS)");

	setup(P32);
	make_tss2();
	put(TSS2 + 0x64, 1, 2);
	r = STEP("\xea\x00\x00\x00\x00\x70\x00");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_DB && m.e.fault.payload == DR6_BT &&
		       s->rip == HANDLER + 0x77,
	       "the T bit: a debug trap before the new task's first instruction");

	setup(P32);
	put(TSS16 + 0x0e, 0x4321, 2);
	put(TSS16 + 0x10, 0x202, 2);
	put(TSS16 + 0x12, 0xbeef, 2);
	put(TSS16 + 0x1a, 0x7f00, 2);
	put(TSS16 + 0x22, DS0, 2);
	put(TSS16 + 0x24, CS16, 2);
	put(TSS16 + 0x26, DS0, 2);
	put(TSS16 + 0x28, DS0, 2);
	r = STEP("\xea\x00\x00\x00\x00\x78\x00");
	tap_ok(r == X86_CONTINUE && s->rip == 0x4321 && (u16)s->gpr[REG_AX] == 0xbeef &&
		       s->mode == X86_MODE_PROT16 && s->seg[SEG_CS].sel == CS16,
	       "JMP to a 16-bit TSS");
}

/* ---- system calls, flags, shadows ----------------------------------------------------------- */

static void test_system(void)
{
	enum x86_result r;
	u64 before;

	setup(U64);
	s->star = (u64)(0x30 | 3) << 48 | (u64)CS64 << 32;
	s->lstar = 0xffffffff81000000ULL;
	s->sfmask = RFLAGS_IF | RFLAGS_TF | RFLAGS_DF;
	s->rflags |= RFLAGS_DF | RFLAGS_RF;
	r = STEP("\x0f\x05");
	tap_ok(r == X86_CONTINUE && s->rip == 0xffffffff81000000ULL && s->gpr[REG_CX] == CODE + 2 &&
		       s->gpr[REG_R11] == 0x602 && s->cpl == 0 && s->seg[SEG_CS].sel == CS64 &&
		       s->seg[SEG_SS].sel == CS64 + 8 && s->rflags == 2,
	       "SYSCALL");
	s->rip = CODE;
	s->gpr[REG_R11] = 0x40ed7 | RFLAGS_RF | RFLAGS_VM;
	s->gpr[REG_CX] = 0x7fff00001234;
	r = STEP("\x48\x0f\x07");
	tap_ok(r == X86_CONTINUE && s->rip == 0x7fff00001234 && s->cpl == 3 &&
		       s->seg[SEG_CS].sel == 0x43 && s->seg[SEG_SS].sel == 0x3b &&
		       s->rflags == 0x40ed7,
	       "SYSRETQ: selectors from STAR, VM and RF never set");

	setup(U32);
	m.vendor = "AuthenticAMD";
	s->efer = EFER_LME | EFER_LMA | EFER_SCE;
	s->cr0 |= CR0_PG;
	s->star = (u64)CS64 << 32;
	s->cstar = 0xffffffff82000000ULL;
	r = STEP("\x0f\x05");
	tap_ok(r == X86_CONTINUE && s->rip == 0xffffffff82000000ULL && s->mode == X86_MODE_LONG,
	       "SYSCALL from compatibility mode on AMD goes to CSTAR");

	setup(U64);
	s->sysenter_cs = CS64;
	s->sysenter_eip = 0xffffffff81000000ULL;
	s->sysenter_esp = 0xffffffff82000000ULL;
	r = STEP("\x0f\x34");
	tap_ok(r == X86_CONTINUE && s->rip == 0xffffffff81000000ULL &&
		       s->gpr[REG_SP] == 0xffffffff82000000ULL && s->cpl == 0 &&
		       !(s->rflags & RFLAGS_IF) && s->mode == X86_MODE_LONG,
	       "SYSENTER");
	s->rip = CODE;
	s->gpr[REG_DX] = 0x401000;
	s->gpr[REG_CX] = 0x7fff0000;
	r = STEP("\x48\x0f\x35");
	tap_ok(r == X86_CONTINUE && s->rip == 0x401000 && s->gpr[REG_SP] == 0x7fff0000 &&
		       s->cpl == 3 && s->seg[SEG_CS].sel == ((CS64 + 32) | 3),
	       "SYSEXIT");

	setup(L64);
	s->rflags &= ~RFLAGS_IF;
	r = STEP("\xfb");
	tap_ok(r == X86_CONTINUE && s->shadow == SHADOW_STI,
	       "STI holds interrupts for one instruction");
	r = STEP("\xfb");
	tap_ok(r == X86_CONTINUE && !s->shadow, "STI again does not");

	setup(P32);
	s->gpr[REG_AX] = DS0;
	s->rflags |= RFLAGS_TF;
	r = STEP("\x8e\xd0");
	tap_ok(r == X86_CONTINUE && s->shadow == SHADOW_MOVSS && !m.e.tf_at_start,
	       "MOV SS holds interrupts and single-step traps");
	r = STEP("\x90");
	tap_ok(r == X86_CONTINUE && !s->shadow && m.e.tf_at_start,
	       "the instruction after MOV SS is followed by its trap");

	setup(U32);
	s->cr4 |= CR4_PVI;
	s->rflags |= RFLAGS_VIP;
	r = STEP("\xfb");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_GP,
	       "STI with PVI and VIP pending: #GP(0)");

	setup(U32);
	put(STACK3, 0x3202 | RFLAGS_NT | RFLAGS_AC, 4);
	s->rflags = 2;
	r = STEP("\x9d");
	tap_ok(r == X86_CONTINUE && s->rflags == (2 | RFLAGS_NT | RFLAGS_AC),
	       "POPF at CPL 3 changes neither IF nor IOPL");

	setup(L64);
	s->seg[SEG_GS].base = 1;
	s->kernel_gs_base = 2;
	before = m.mode_changes;
	r = STEP("\x0f\x01\xf8");
	tap_ok(r == X86_CONTINUE && s->seg[SEG_GS].base == 2 && s->kernel_gs_base == 1 &&
		       m.mode_changes > before,
	       "SWAPGS");

	setup(P32);
	s->gpr[REG_AX] = LDT_SEL;
	r = STEP("\x0f\x00\xd0");
	tap_ok(r == X86_CONTINUE && s->seg[SEG_LDTR].base == LDT && s->seg[SEG_LDTR].limit == 15,
	       "LLDT");
	s->gpr[REG_AX] = 0xc;
	r = STEP("\x8e\xd8");
	tap_ok(r == X86_CONTINUE && s->seg[SEG_DS].sel == 0xc && (get(LDT + 13, 1) & 1),
	       "a segment from the LDT, now accessed");
	s->gpr[REG_AX] = 0x14;
	r = STEP("\x8e\xd8");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_GP && m.e.fault.error == 0x14,
	       "beyond the LDT's limit: #GP(selector)");

	setup(L64);
	put(GDT + TR2 + 8, 0xffff8000, 8);
	s->gpr[REG_AX] = TR2;
	r = STEP("\x0f\x00\xd8");
	tap_ok(r == X86_CONTINUE && s->seg[SEG_TR].base == (0xffff800000000000ULL | TSS2) &&
		       (get(GDT + TR2 + 5, 1) & 2),
	       "LTR in long mode: a 64-bit base, busy");

	setup(P32);
	s->gpr[REG_CX] = CS0;
	r = STEP("\x0f\x02\xc1");
	tap_ok(r == X86_CONTINUE && (s->rflags & RFLAGS_ZF) && s->gpr[REG_AX] == 0x00cf9a00,
	       "LAR shows the rights, not the limit");
	s->gpr[REG_CX] = SMALL;
	r = STEP("\x0f\x03\xc1");
	tap_ok(r == X86_CONTINUE && (s->rflags & RFLAGS_ZF) && s->gpr[REG_AX] == 0xff, "LSL");
	s->gpr[REG_AX] = READ_ONLY;
	STEP("\x0f\x00\xe8");
	tap_ok(!(s->rflags & RFLAGS_ZF), "VERW of a read-only segment");
	STEP("\x0f\x00\xe0");
	tap_ok(s->rflags & RFLAGS_ZF, "VERR of a read-only segment");

	setup(P32);
	put(DATA, 0x12345678001fULL, 8);
	s->gpr[REG_BX] = DATA;
	r = STEP("\x66\x0f\x01\x13");
	tap_ok(r == X86_CONTINUE && s->gdt.limit == 0x1f && s->gdt.base == 0x345678,
	       "LGDT of 16 bits takes 24 bits of base");

	setup(P32);
	r = STEP("\xf4");
	tap_ok(r == X86_EXIT && s->rip == CODE + 1 && m.hlt, "HLT exits behind itself");

	setup(P32);
	s->seg[SEG_CS].limit = CODE + 2;
	r = STEP("\xb8\x01\x00\x00\x00");
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_GP,
	       "an instruction across the limit of CS: #GP(0)");

	setup(L64);
	s->rip = CODE + 0xffe;
	m.rights[(CODE >> 12) + 1] = PAGE_NONE;
	memcpy(machine_at(&m, s->rip, 2), "\xb8\x01", 2);
	r = emul_step(&m.e);
	tap_ok(r == X86_FAULT && m.e.fault.vector == VEC_PF && m.e.fault.payload == CODE + 0x1000 &&
		       (m.e.fault.error & PFERR_I),
	       "an instruction into a missing page: CR2 is that page");
	memcpy(machine_at(&m, s->rip, 2), "\x90\x90", 2);
	r = emul_step(&m.e);
	tap_ok(r == X86_CONTINUE, "an instruction that ends before it does not touch the page");

	setup(L64);
	s->gpr[REG_DI] = DATA + 0xffe;
	s->gpr[REG_CX] = 5;
	m.rights[(DATA >> 12) + 1] = PAGE_READ;
	r = STEP("\xf3\xaa");
	tap_ok(r == X86_FAULT && m.e.fault.payload == DATA + 0x1000 && s->gpr[REG_CX] == 3 &&
		       s->gpr[REG_DI] == DATA + 0x1000 && s->rip == CODE,
	       "REP STOS stops at the element that faults");
	m.rights[(DATA >> 12) + 1] = PAGE_WRITE;
	r = STEP("\xf3\xaa");
	tap_ok(r == X86_CONTINUE && s->gpr[REG_CX] == 0 && s->rip == CODE + 2,
	       "and goes on from there");

	setup(L64);
	s->rflags |= RFLAGS_TF;
	s->gpr[REG_DI] = DATA;
	s->gpr[REG_CX] = 2;
	r = STEP("\xf3\xaa");
	tap_ok(r == X86_CONTINUE && s->gpr[REG_CX] == 1 && s->rip == CODE && m.e.tf_at_start &&
		       (s->rflags & RFLAGS_RF),
	       "single-stepping stops REP after each element, RF set");
}

/* ---- SMM ------------------------------------------------------------------------------------ */

static void test_smm(void)
{
	struct x86_state before;
	enum x86_result r;
	bool hlt = false;
	u64 smbase = 0x30000;

	setup(L64);
	s->gpr[REG_R15] = 0xabcdef;
	s->nmi_masked = true;
	s->cr3 = 0x5000;
	before = *s;
	r = emul_smm_enter(&m.e, smbase, true, true);
	tap_ok(r == X86_CONTINUE && s->smm && s->mode == X86_MODE_REAL && s->rip == 0x8000 &&
		       s->seg[SEG_CS].base == 0x30000 && s->seg[SEG_CS].sel == 0x3000 &&
		       s->nmi_masked && !s->efer,
	       "SMM begins in big real mode at SMBASE + 8000");
	tap_ok(get(0x3fefc, 4) == 0x20064 && get(0x3ff00, 4) == 0x30000 &&
		       get(0x3ff78, 8) == CODE && get(0x3ff80, 8) == 0xabcdef &&
		       get(0x3fed0, 8) == (EFER_LME | EFER_LMA | EFER_SCE) && get(0x3fec9, 1) == 1,
	       "the 64-bit map: revision, SMBASE, RIP, R15, EFER, auto-halt");
	put(0x3ff00, 0x40000, 4);
	r = emul_smm_leave(&m.e, &smbase, true, &hlt);
	tap_ok(r == X86_CONTINUE && hlt && smbase == 0x40000 && !memcmp(&before, s, sizeof(before)),
	       "RSM restores everything, and the new SMBASE");

	smbase = 0x30000;
	setup(P32);
	before = *s;
	r = emul_smm_enter(&m.e, smbase, false, false);
	tap_ok(r == X86_CONTINUE && get(0x3fefc, 4) == 0x20000 && get(0x3fff0, 4) == CODE &&
		       get(0x3ffac, 4) == CS0,
	       "the 32-bit map: revision, EIP, CS");
	r = emul_smm_leave(&m.e, &smbase, false, &hlt);
	tap_ok(r == X86_CONTINUE && !hlt && s->rip == before.rip &&
		       !memcmp(s->seg, before.seg, sizeof(before.seg)) && s->cr0 == before.cr0 &&
		       s->mode == X86_MODE_PROT32,
	       "RSM restores it");

	setup(L64);
	emul_smm_enter(&m.e, smbase, true, false);
	put(0x3ff58, CR0_PG, 8);
	r = emul_smm_leave(&m.e, &smbase, true, &hlt);
	tap_ok(r == X86_SHUTDOWN, "RSM to paging without protection: shutdown");
}

int main(void)
{
	tap_begin();
	machine_init(&m, 0, 1024);
	test_faults();
	test_events();
	test_returns();
	test_tasks();
	test_system();
	test_smm();
	machine_free(&m);
	return tap_end();
}
