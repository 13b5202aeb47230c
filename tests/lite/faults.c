/*
 * Page faults, exactly: every kind of memory access over a page border at every byte, where one of the two pages is missing, read-only or
 * the supervisor's. The fault must name the first byte that cannot be accessed, and registers, flags, memory and the
 * stack must be as before; where both pages are there, the result must be that of the same access within one page.
 */
#include <cpuid.h>
#include <stdlib.h>

#include "tests/lite/rig.h"

enum { R = 1, W = 2, RW = 3 };
enum { K = 1 << RIG_K64, U = 1 << RIG_U64, C = 1 << RIG_U32, ALL = K | U | C, LONG = K | U };
enum { AX, CX, DX, BX, SP, BP, SI, DI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum { F_TARGET = 1, F_AVX = 2, F_AVX512 = 4, F_STEP16 = 8, F_BASE0 = 16, F_STACK = 32, F_SETS = 64 /* all arithmetic flags, and reads none */, F_UNDEFINED = 128 /* some of them undefined */, F_QUAD = 256 /* see may_be_left() */ };

/* id, instruction, bytes, access, modes, register that holds the address, operand's distance from it, flags */
/* clang-format off */
#define ACCESSES(X) \
	X(load8, "mov al, [rbx]", 1, R, ALL, BX, 0, 0) \
	X(load16, "mov ax, [rbx]", 2, R, ALL, BX, 0, 0) \
	X(load32, "mov eax, [rbx]", 4, R, ALL, BX, 0, 0) \
	X(load64, "mov rax, [rbx]", 8, R, LONG, BX, 0, 0) \
	X(load_r8, "mov r8, [r8]", 8, R, LONG, R8, 0, 0) \
	X(load_r9, "mov r10d, [r9 + 0x100]", 4, R, LONG, R9, 0x100, 0) \
	X(load_r11, "mov cx, [r11 - 0x80]", 2, R, LONG, R11, -0x80, 0) \
	X(load_r12, "mov rsi, [r12]", 8, R, LONG, R12, 0, 0) \
	X(load_r13, "mov rdi, [r13]", 8, R, LONG, R13, 0, 0) \
	X(load_rbp, "mov edi, [rbp + 4]", 4, R, ALL, BP, 4, 0) \
	X(load_rsp, "mov edi, [rsp + 4]", 4, R, ALL, SP, 4, 0) \
	X(load_index, "mov edi, [rdx + rcx * 4 - 12]", 4, R, ALL, DX, 0, F_BASE0) \
	X(store8, "mov [rbx], ah", 1, W, ALL, BX, 0, 0) \
	X(store16, "mov [rbx], ax", 2, W, ALL, BX, 0, 0) \
	X(store32, "mov [rbx], eax", 4, W, ALL, BX, 0, 0) \
	X(store64, "mov [rbx], rax", 8, W, LONG, BX, 0, 0) \
	X(store_r10, "mov [r10], r9", 8, W, LONG, R10, 0, 0) \
	X(store_r11, "mov [r11], r11", 8, W, LONG, R11, 0, 0) \
	X(store_rsp, "mov [rsp], rsp", 8, W, LONG, SP, 0, 0) \
	X(store_imm8, "mov byte ptr [rbx], 0x5a", 1, W, ALL, BX, 0, 0) \
	X(store_imm16, "mov word ptr [rbx], 0x5a5b", 2, W, ALL, BX, 0, 0) \
	X(store_imm32, "mov dword ptr [rbx], 0x5a5b5c5d", 4, W, ALL, BX, 0, 0) \
	X(store_imm64, "mov qword ptr [rbx], -7", 8, W, LONG, BX, 0, 0) \
	X(movnti, "movnti [rbx], eax", 4, W, ALL, BX, 0, 0) \
	X(movzx16, "movzx eax, word ptr [rbx]", 2, R, ALL, BX, 0, 0) \
	X(movsx16, "movsx eax, word ptr [rbx]", 2, R, ALL, BX, 0, 0) \
	X(movsxd, "movsxd rax, dword ptr [rbx]", 4, R, LONG, BX, 0, 0) \
	X(add_load, "add eax, [rbx]", 4, R, ALL, BX, 0, F_SETS) \
	X(adc_load, "adc rax, [rbx]", 8, R, LONG, BX, 0, 0) \
	X(cmp_load, "cmp [rbx], ax", 2, R, ALL, BX, 0, F_SETS) \
	X(test_load, "test [rbx], rax", 8, R, LONG, BX, 0, F_SETS) \
	X(imul_load, "imul eax, [rbx]", 4, R, ALL, BX, 0, F_SETS | F_UNDEFINED) \
	X(mul_load, "mul dword ptr [rbx]", 4, R, ALL, BX, 0, F_SETS | F_UNDEFINED) \
	X(div_load, "div qword ptr [rbx]", 8, R, LONG, BX, 0, F_SETS | F_UNDEFINED) \
	X(cmov_load, "cmovc eax, [rbx]", 4, R, ALL, BX, 0, 0) \
	X(cmovn_load, "cmovnc rax, [rbx]", 8, R, LONG, BX, 0, 0) \
	X(bt_load, "bt dword ptr [rbx], 9", 4, R, ALL, BX, 0, 0) \
	X(bsf_load, "bsf rax, [rbx]", 8, R, LONG, BX, 0, F_SETS | F_UNDEFINED) \
	X(movbe_load, "movbe eax, [rbx]", 4, R, ALL, BX, 0, 0) \
	X(movbe_store, "movbe [rbx], rax", 8, W, LONG, BX, 0, 0) \
	X(crc32, "crc32 eax, dword ptr [rbx]", 4, R, ALL, BX, 0, 0) \
	X(add8, "add [rbx], al", 1, RW, ALL, BX, 0, F_SETS) \
	X(add16, "add [rbx], ax", 2, RW, ALL, BX, 0, F_SETS) \
	X(add32, "add [rbx], eax", 4, RW, ALL, BX, 0, F_SETS) \
	X(add64, "add [rbx], rax", 8, RW, LONG, BX, 0, F_SETS) \
	X(adc_r8, "adc [r8], r11", 8, RW, LONG, R8, 0, 0) \
	X(sbb32, "sbb dword ptr [rbx], 0x1234567", 4, RW, ALL, BX, 0, 0) \
	X(and16, "and word ptr [rbx], 0x7fff", 2, RW, ALL, BX, 0, F_SETS) \
	X(inc32, "inc dword ptr [rbx]", 4, RW, ALL, BX, 0, 0) \
	X(dec64, "dec qword ptr [rbx]", 8, RW, LONG, BX, 0, 0) \
	X(neg32, "neg dword ptr [rbx]", 4, RW, ALL, BX, 0, F_SETS) \
	X(not64, "not qword ptr [rbx]", 8, RW, LONG, BX, 0, 0) \
	X(shl32, "shl dword ptr [rbx], 3", 4, RW, ALL, BX, 0, F_SETS | F_UNDEFINED) \
	X(rcl32, "rcl dword ptr [rbx], 1", 4, RW, ALL, BX, 0, 0) \
	X(sar64_cl, "sar qword ptr [rbx], cl", 8, RW, LONG, BX, 0, F_SETS | F_UNDEFINED) \
	X(shld64, "shld [rbx], rax, 9", 8, RW, LONG, BX, 0, F_SETS | F_UNDEFINED) \
	X(bts32, "bts dword ptr [rbx], 17", 4, RW, ALL, BX, 0, 0) \
	X(btc_reg, "btc [rbx], ecx", 4, RW, ALL, BX, 0, 0) \
	X(xchg32, "xchg [rbx], eax", 4, RW, ALL, BX, 0, 0) \
	X(xchg_r9, "xchg [rbx], r9", 8, RW, LONG, BX, 0, 0) \
	X(xadd64, "xadd [rbx], rax", 8, RW, LONG, BX, 0, F_SETS) \
	X(cmpxchg32, "cmpxchg [rbx], ecx", 4, RW, ALL, BX, 0, F_SETS) \
	X(cmpxchg64, "cmpxchg [rbx], r8", 8, RW, LONG, BX, 0, F_SETS) \
	X(cmpxchg8b, "cmpxchg8b [rsi]", 8, RW, ALL, SI, 0, 0) \
	X(setcc, "setc byte ptr [rbx]", 1, W, ALL, BX, 0, 0) \
	X(lock_add16, "lock add [rbx], ax", 2, RW, ALL, BX, 0, F_SETS) \
	X(lock_add32, "lock add [rbx], eax", 4, RW, ALL, BX, 0, F_SETS) \
	X(lock_add64, "lock add [rbx], rax", 8, RW, LONG, BX, 0, F_SETS) \
	X(lock_dec, "lock dec dword ptr [rbx]", 4, RW, ALL, BX, 0, 0) \
	X(lock_xadd, "lock xadd [rbx], rax", 8, RW, LONG, BX, 0, F_SETS) \
	X(lock_cmpxchg, "lock cmpxchg [rbx], ecx", 4, RW, ALL, BX, 0, F_SETS) \
	X(lock_cmpxchg8b, "lock cmpxchg8b [rsi]", 8, RW, ALL, SI, 0, 0) \
	X(lock_bts, "lock bts qword ptr [rbx], 40", 8, RW, LONG, BX, 0, 0) \
	X(lock_not, "lock not dword ptr [rbx]", 4, RW, ALL, BX, 0, 0) \
	X(push, "push rax", 8, W, LONG, SP, -8, F_STACK) \
	X(push_r9, "push r9", 8, W, LONG, SP, -8, F_STACK) \
	X(push_rsp, "push rsp", 8, W, LONG, SP, -8, F_STACK) \
	X(push16, "push ax", 2, W, ALL, SP, -2, F_STACK) \
	X(push32, "push rax", 4, W, C, SP, -4, F_STACK) \
	X(push_imm, "push 0x12345", 8, W, LONG, SP, -8, F_STACK) \
	X(push_mem, "push qword ptr [rbx]", 8, R, LONG, BX, 0, F_STACK) \
	X(push_mem_stack, "push qword ptr [rbx]", 8, W, LONG, SP, -8, F_STACK) \
	X(pushf, "pushfq", 8, W, LONG, SP, -8, F_STACK) \
	X(pop, "pop rax", 8, R, LONG, SP, 0, F_STACK) \
	X(pop_r10, "pop r10", 8, R, LONG, SP, 0, F_STACK) \
	X(pop_rsp, "pop rsp", 8, R, LONG, SP, 0, F_STACK) \
	X(pop32, "pop rax", 4, R, C, SP, 0, F_STACK) \
	X(pop16, "pop cx", 2, R, ALL, SP, 0, F_STACK) \
	X(pop_mem, "pop qword ptr [rbx]", 8, W, LONG, BX, 0, F_STACK) \
	X(pop_mem_stack, "pop qword ptr [rbx]", 8, R, LONG, SP, 0, F_STACK) \
	X(call_rel, "call 1f\n 1:", 8, W, LONG, SP, -8, F_STACK) \
	X(call_rel32, "call 1f\n 1:", 4, W, C, SP, -4, F_STACK) \
	X(call_reg, "call rdx", 8, W, LONG, SP, -8, F_STACK) \
	X(call_mem, "call [rbx]", 8, R, LONG, BX, 0, F_TARGET | F_STACK) \
	X(call_mem32, "call [rbx]", 4, R, C, BX, 0, F_TARGET | F_STACK) \
	X(jmp_mem, "jmp [rbx]", 8, R, LONG, BX, 0, F_TARGET) \
	X(jmp_r11, "jmp [r11]", 8, R, LONG, R11, 0, F_TARGET) \
	X(ret, "ret", 8, R, LONG, SP, 0, F_TARGET | F_STACK) \
	X(ret_imm, "ret 24", 8, R, LONG, SP, 0, F_TARGET | F_STACK) \
	X(ret32, "ret", 4, R, C, SP, 0, F_TARGET | F_STACK) \
	X(leave, "leave", 8, R, LONG, BP, 0, F_STACK) \
	X(enter, "enter 32, 0", 8, W, LONG, SP, -8, F_STACK) \
	X(lodsq, "lodsq", 8, R, LONG, SI, 0, 0) \
	X(lodsd, "lodsd", 4, R, ALL, SI, 0, 0) \
	X(stosq, "stosq", 8, W, LONG, DI, 0, 0) \
	X(stosw, "stosw", 2, W, ALL, DI, 0, 0) \
	X(movs_read, "movsq", 8, R, LONG, SI, 0, 0) \
	X(movs_write, "movsq", 8, W, LONG, DI, 0, 0) \
	X(movsd_write, "movsd", 4, W, ALL, DI, 0, 0) \
	X(scasd, "scasd", 4, R, ALL, DI, 0, F_SETS) \
	X(cmps_first, "cmpsq", 8, R, LONG, SI, 0, F_SETS) \
	X(cmps_second, "cmpsq", 8, R, LONG, DI, 0, F_SETS) \
	X(xlat, "xlatb", 1, R, ALL, BX, 3, 0) \
	X(fld32, "fld dword ptr [rbx]", 4, R, ALL, BX, 0, 0) \
	X(fld64, "fld qword ptr [rbx]", 8, R, ALL, BX, 0, 0) \
	X(fld80, "fld tbyte ptr [rbx]", 10, R, ALL, BX, 0, 0) \
	X(fild64, "fild qword ptr [rbx]", 8, R, ALL, BX, 0, 0) \
	X(fst32, "fst dword ptr [rbx]", 4, W, ALL, BX, 0, 0) \
	X(fstp64, "fstp qword ptr [rbx]", 8, W, ALL, BX, 0, 0) \
	X(fstp80, "fstp tbyte ptr [rbx]", 10, W, ALL, BX, 0, F_QUAD) \
	X(fistp64, "fistp qword ptr [rbx]", 8, W, ALL, BX, 0, 0) \
	X(fbstp, "fbstp tbyte ptr [rbx]", 10, W, ALL, BX, 0, F_QUAD) \
	X(fadd64, "fadd qword ptr [rbx]", 8, R, ALL, BX, 0, 0) \
	X(fnstsw, "fnstsw word ptr [rbx]", 2, W, ALL, BX, 0, 0) \
	X(fnstenv, "fnstenv [rbx]", 28, W, ALL, BX, 0, 0) \
	X(movss_load, "movss xmm1, dword ptr [rbx]", 4, R, ALL, BX, 0, 0) \
	X(movsd_load, "movsd xmm1, qword ptr [rbx]", 8, R, ALL, BX, 0, 0) \
	X(movups_load, "movups xmm1, [rbx]", 16, R, ALL, BX, 0, 0) \
	X(movups_load_r9, "movups xmm9, [r9]", 16, R, LONG, R9, 0, 0) \
	X(movss_store, "movss dword ptr [rbx], xmm2", 4, W, ALL, BX, 0, 0) \
	X(movsd_store, "movsd qword ptr [rbx], xmm2", 8, W, ALL, BX, 0, 0) \
	X(movups_store, "movups [rbx], xmm2", 16, W, ALL, BX, 0, 0) \
	X(movups_store_r10, "movups [r10], xmm12", 16, W, LONG, R10, 0, 0) \
	X(movq_mmx, "movq mm1, [rbx]", 8, R, ALL, BX, 0, 0) \
	X(movq_mmx_store, "movq [rbx], mm1", 8, W, ALL, BX, 0, 0) \
	X(cvtsi2sd, "cvtsi2sd xmm3, dword ptr [rbx]", 4, R, ALL, BX, 0, 0) \
	X(addsd, "addsd xmm3, qword ptr [rbx]", 8, R, ALL, BX, 0, 0) \
	X(pextrw, "pextrw word ptr [rbx], xmm2, 3", 2, W, ALL, BX, 0, 0) \
	X(vmovups_ymm, "vmovups ymm1, [rbx]", 32, R, ALL, BX, 0, F_AVX) \
	X(vmovups_ymm_store, "vmovups [rbx], ymm2", 32, W, ALL, BX, 0, F_AVX) \
	X(vaddps_ymm, "vaddps ymm1, ymm2, [rbx]", 32, R, ALL, BX, 0, F_AVX) \
	X(vbroadcastsd, "vbroadcastsd ymm1, qword ptr [rbx]", 8, R, ALL, BX, 0, F_AVX) \
	X(vmovups_zmm, "vmovups zmm1, [rbx]", 64, R, ALL, BX, 0, F_AVX512) \
	X(vmovups_zmm_r11, "vmovups zmm17, [r11]", 64, R, LONG, R11, 0, F_AVX512) \
	X(vmovups_zmm_store, "vmovups [rbx], zmm2", 64, W, ALL, BX, 0, F_AVX512) \
	X(vmovups_zmm_store_r8, "vmovups [r8], zmm18", 64, W, LONG, R8, 0, F_AVX512) \
	X(vpaddd_zmm, "vpaddd zmm1, zmm2, [rbx]", 64, R, ALL, BX, 0, F_AVX512) \
	X(fxsave, "fxsave [rbx]", 512, W, ALL, BX, 0, F_STEP16) \
	X(fxrstor, "fxrstor [rbx]", 512, R, ALL, BX, 0, F_STEP16)
/* clang-format on */

#define DEFINE(id, text, ...) GUEST(id, text);
ACCESSES(DEFINE)

static const struct access {
	const char *name;
	const uint8_t *code, *end;
	unsigned size, access, modes;
	uint8_t reg;
	int off;
	unsigned flags;
} accesses[] = {
#define ENTRY(id, text, size, access, modes, reg, off, flags) { text, guest_##id, guest_##id##_end, size, access, modes, reg, off, flags },
	ACCESSES(ENTRY)
};

/* Three pages each; the one in the middle is the bad one. */
#define AREA	0x40000000ULL
#define SPACING 0x4000ULL
enum area { MISSING, READ_ONLY, SUPERVISOR, GOOD, AREAS };
static const char *const area_names[] = { "missing", "read-only", "supervisor" };
#define FRAMES 0x300000UL /* physical pages behind the areas, out of order */
#define AT     (RIG_CODE + 0x800)
#define TARGET (RIG_CODE + 0x400)
#define OTHER  (RIG_DATA + 0x800) /* what the registers that are not under test point to */

static struct rig r;

static uint64_t frame_of(enum area area, unsigned page)
{
	return FRAMES + (area * 8 + 6 - 2 * page) * 0x1000;
}

static uint64_t area_la(enum area area, unsigned page)
{
	return AREA + area * SPACING + page * 0x1000;
}

static void poke(uint64_t la, const void *buf, unsigned len)
{
	for (unsigned i = 0; i < len; i++, la++)
		if (la >= AREA && la < AREA + AREAS * SPACING)
			r.mem[frame_of((la - AREA) / SPACING, (la - AREA) % SPACING >> 12) + (la & 0xfff)] = ((const uint8_t *)buf)[i];
		else
			r.mem[la] = ((const uint8_t *)buf)[i];
}

static void peek(uint64_t la, void *buf, unsigned len)
{
	for (unsigned i = 0; i < len; i++, la++)
		((uint8_t *)buf)[i] = la >= AREA && la < AREA + AREAS * SPACING
					      ? r.mem[frame_of((la - AREA) / SPACING, (la - AREA) % SPACING >> 12) + (la & 0xfff)]
					      : r.mem[la];
}

static void set_up(void)
{
	static const uint64_t bad[] = { 0, PTE_P | PTE_U, PTE_P | PTE_W, PTE_ALL };

	for (int a = 0; a < AREAS; a++)
		for (unsigned page = 0; page < 3; page++)
			rig_map(&r, area_la(a, page), frame_of(a, page), page == 1 ? bad[a] : PTE_ALL);
	memcpy(r.mem + TARGET, "\xcd\x80", 2);
}

static void registers(const struct access *a, enum rig_mode mode, uint64_t la, struct kvm_regs *k)
{
	rig_mode(&r, 0, mode);
	*k = r.cpu[0].regs;
	for (unsigned i = 0; i < 16; i++)
		if (i != SP)
			*rig_gpr(k, i) = mode == RIG_U32 ? (i < 8 ? 0x01020304U * (i + 1) : 0) : 0x0102030405060708ULL * (i + 1);
	k->rax = 3; /* XLAT, DIV */
	k->rdx = 0;
	k->rcx = a->flags & F_BASE0 ? 3 : 5;
	k->rsi = k->rdi = k->rbx = k->rbp = OTHER;
	if (a->reg != DX && strstr(a->name, "rdx"))
		k->rdx = TARGET;
	*rig_gpr(k, a->reg) = la - a->off;
	k->rflags = 0x8d7;
	k->rip = AT;
}

/* The code: one more instruction in front, so that it is the middle of a block. */
static void load(const struct access *a, bool middle)
{
	static const uint8_t front[] = { 0x8d, 0x64, 0x24, 0x00, 0x0f, 0x1f, 0x00 }; /* lea esp, [rsp]; nop */
	uint8_t *at = r.mem + AT;
	size_t len = a->end - a->code;

	if (middle)
		memcpy(at - sizeof(front) + 4, front + 4, 3);
	memcpy(at, a->code, len);
	memcpy(at + len, "\xcd\x80", 2);
}

struct picture {
	uint8_t around[64 + 512 + 64];
	uint8_t other[128];
	struct kvm_regs regs;
	uint8_t x[4096];
};

static void look(uint64_t la, struct picture *p)
{
	peek(la - 64, p->around, sizeof(p->around));
	memcpy(p->other, r.mem + OTHER - 64, 128);
	if (trine_ioctl(r.cpu[0].fd, KVM_GET_XSAVE, p->x))
		memset(p->x, 0, sizeof(p->x));
	memset(p->x + 6, 0, 18); /* FOP, FIP, FDP: of the last instruction that did something */
	memset(p->x + 464, 0, 64);
}

static void reset_x(void)
{
	static uint8_t x[4096];

	memset(x, 0, sizeof(x));
	x[0] = 0x7f;
	x[1] = 3;
	x[4] = 0xff;
	x[24] = 0x80;
	x[25] = 0x1f;
	x[512] = 7;
	for (unsigned i = 0; i < 8; i++) {
		uint64_t m = 0x8000000000000000ULL + i * 0x123456;
		uint16_t e = 0x4000 + i;

		memcpy(x + 32 + 16 * i, &m, 8);
		memcpy(x + 40 + 16 * i, &e, 2);
	}
	for (unsigned i = 160; i < 416; i++)
		x[i] = i;
	for (unsigned i = 576; i < 832; i++)
		x[i] = i * 3;
	trine_ioctl(r.cpu[0].fd, KVM_SET_XSAVE, x);
}

static void fill(const struct access *a, uint64_t la, unsigned seed)
{
	uint8_t pattern[64 + 512 + 64];
	uint64_t target = TARGET;

	for (unsigned i = 0; i < sizeof(pattern); i++)
		pattern[i] = (i * 37 + seed) | 1;
	memset(pattern + 64 + 24, 0x1f, 4); /* a MXCSR that FXRSTOR takes */
	pattern[64 + 26] = pattern[64 + 27] = 0;
	if (a->flags & F_TARGET)
		memcpy(pattern + 64, &target, 8);
	poke(la - 64, pattern, sizeof(pattern));
	for (unsigned i = 0; i < 128; i++)
		r.mem[OTHER - 64 + i] = i * 11 + 1;
}

static uint8_t result[8]; /* that the access has stored where nothing was in its way */

/*
 * More than a quadword may be stored by more than one access, of which some are done when another faults (SDM 3A 8.1.1): of ten bytes, nothing
 * or all of the first eight.
 */
static bool may_be_left(const struct access *a, uint64_t la, uint64_t first, const struct picture *before, const struct picture *after)
{
	uint8_t around[sizeof(before->around)];

	if (!(a->flags & F_QUAD) || first - la < 8)
		return false;
	memcpy(around, before->around, sizeof(around));
	memcpy(around + 64, result, 8);
	return !memcmp(around, after->around, sizeof(around));
}

/* One access at @la of which the first byte that cannot be used is @first. NULL or what is wrong. */
static const char *must_fault(const struct access *a, enum rig_mode mode, enum area area, uint64_t la, uint64_t first)
{
	static struct picture before, after;
	struct rig_cpu *c = &r.cpu[0];
	uint64_t error = (area == MISSING ? 0 : 1) | (a->access & W ? 2 : 0) | (mode == RIG_K64 ? 0 : 4);
	struct kvm_regs k;

	fill(a, la, la);
	registers(a, mode, la, &k);
	reset_x();
	c->regs = k;
	if (a->flags & F_STACK)
		c->regs.rip = AT;
	else
		c->regs.rip = AT - 3;
	look(la, &before);
	if (rig_go(&r, 0) != RIG_STOPPED || c->vector != 14)
		return "no page fault";
	look(la, &after);
	if (c->error != error)
		return "error code";
	if (c->cr2 != first)
		return "CR2";
	if (c->rip != AT)
		return "RIP";
	if (c->rsp != k.rsp)
		return "RSP";
	/* See jit_translate.c: flags that nobody will need may be anything in the translator. */
	if (((c->rflags & ~0x10000ULL) ^ k.rflags) & ~(a->flags & F_SETS && rig_translates() ? 0x8d5ULL : 0))
		return "flags";
	if (!(c->rflags & 0x10000))
		return "RF in the flags on the stack";
	for (unsigned i = 0; i < (mode == RIG_U32 ? 8 : 16); i++)
		if (i != SP && *rig_gpr(&c->regs, i) != *rig_gpr(&k, i))
			return "a register changed";
	/* FXSAVE and FNSTENV may have written what can be written. */
	if ((a->size <= 64 && a->size != 28 && memcmp(before.around, after.around, sizeof(after.around)) &&
	     !may_be_left(a, la, first, &before, &after)) ||
	    memcmp(before.other, after.other, sizeof(after.other)))
		return "memory changed";
	if (memcmp(before.x, after.x, sizeof(after.x)))
		return "extended state changed";
	return NULL;
}

/* Over a border where both pages are there, as within a page. */
static const char *must_work(const struct access *a, enum rig_mode mode, uint64_t la, uint64_t within)
{
	static struct picture here, there;
	struct rig_cpu *c = &r.cpu[0];
	struct kvm_regs k;
	int reason, vector;

	for (unsigned n = 0; n < 2; n++) {
		struct picture *p = n ? &there : &here;
		uint64_t at = n ? within : la;

		fill(a, at, 7);
		registers(a, mode, at, &k);
		reset_x();
		c->regs = k;
		reason = rig_go(&r, 0);
		if (!n)
			vector = c->vector;
		else if (vector != c->vector)
			return "another vector";
		if (reason != RIG_DONE && !(reason == RIG_STOPPED && c->vector == 0))
			return "it stopped";
		look(at, p);
		p->regs = c->regs;
		p->regs.rsp = c->rsp;
		p->regs.rflags = c->rflags & (a->flags & F_UNDEFINED ? 0xf72a : 0xffff);
		p->regs.rip = c->rip;
		/* Addresses, as distances. */
		for (unsigned i = 0; i < 16; i++)
			if (*rig_gpr(&p->regs, i) - at + 1024 < 2048)
				*rig_gpr(&p->regs, i) -= at;
		if (a->access & W)
			for (unsigned i = 0; i + (mode == RIG_U32 ? 4 : 8) <= sizeof(p->around); i++) {
				uint64_t v = 0;

				memcpy(&v, p->around + i, mode == RIG_U32 ? 4 : 8);
				if (v == at - a->off)
					memset(p->around + i, 0, 4);
			}
	}
	if (memcmp(&here.regs, &there.regs, sizeof(here.regs)))
		return "registers";
	if (memcmp(here.around, there.around, sizeof(here.around)) || memcmp(here.other, there.other, sizeof(here.other)))
		return "memory";
	if (memcmp(here.x, there.x, sizeof(here.x)))
		return "extended state";
	return NULL;
}

static unsigned cases;

static const char *one_access(const struct access *a, enum rig_mode mode)
{
	static char text[128];
	unsigned step = a->flags & F_STEP16 ? 16 : 1;
	const char *wrong;

	for (unsigned over = step; over < a->size; over += step, cases++) {
		uint64_t la = area_la(GOOD, 1) - over;

		wrong = must_work(a, mode, la, area_la(GOOD, 0) + 0x400);
		if (wrong) {
			snprintf(text, sizeof(text), "%u bytes before a border, %s: %s", over, rig_mode_names[mode], wrong);
			return text;
		}
		/* must_work() ended with the one within a page. */
		if (a->flags & F_QUAD)
			peek(area_la(GOOD, 0) + 0x400, result, sizeof(result));
	}
	for (int area = 0; area < GOOD; area++) {
		if ((area == READ_ONLY && !(a->access & W)) || (area == SUPERVISOR && mode == RIG_K64))
			continue;
		/* The second page is bad, then the first, then the only one. */
		for (unsigned over = 0; over < 2 * a->size; over += step, cases++) {
			bool second = over < a->size;
			uint64_t la = second ? area_la(area, 1) - over : area_la(area, 2) - (over - a->size);
			uint64_t first = second ? area_la(area, 1) : la;

			if (!second && over == a->size)
				continue;
			/* FNSTENV, FXSAVE: in pieces, of which any may come first. */
			wrong = must_fault(a, mode, area, la, first);
			if (wrong) {
				snprintf(text, sizeof(text), "%s page, %s page %s, %u bytes before a border: %s", rig_mode_names[mode],
					 second ? "second" : "first", area_names[area], second ? over : over - a->size, wrong);
				rig_diag(&r, 0, a->name, RIG_STOPPED);
				return text;
			}
		}
	}
	return NULL;
}

/* ---- fetches ------------------------------------------------------------------------------------------------------- */

GUEST(fetch_long, "movabs r11, 0x1122334455667788\n add qword ptr [rbx + 0x12345678], 0x5a5a5a5a\n int 0x80");
GUEST(fetch_short, "inc eax\n add ecx, eax\n mov edx, [rbx]\n adc esi, 0x12345678\n jc 1f\n nop\n 1: int 0x80");

/* Code that goes into a page that cannot be fetched from: the fault is at the instruction that needs it, those before are done. */
static void fetches(void)
{
	static const struct {
		const char *name;
		uint64_t flags;
		unsigned error;
	} pages[] = { { "missing", 0, 0x10 }, { "no-execute", PTE_ALL | PTE_NX, 0x11 }, { "supervisor", PTE_P | PTE_W, 0x11 } };
	static const struct {
		const uint8_t *code, *end;
		uint8_t lens[8], modes;
	} codes[] = { { guest_fetch_long, guest_fetch_long_end, { 10, 11, 2 }, LONG },
		      { guest_fetch_short, guest_fetch_short_end, { 2, 2, 2, 6, 2, 1, 2 }, LONG } };
	const uint64_t border = AREA + 0x100000 + 0x1000;
	struct rig_cpu *c = &r.cpu[0];

	rig_map(&r, border - 0x1000, 0x380000, PTE_ALL);
	for (unsigned p = 0; p < 3; p++) {
		for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
			bool good = true;
			unsigned n = 0;

			if (p == 2 && mode == RIG_K64)
				continue;
			/* A linear page of its own for each, for nothing is flushed here. */
			rig_map(&r, border + (p * 2 + mode) * 0x10000 - 0x1000, 0x380000, PTE_ALL);
			rig_map(&r, border + (p * 2 + mode) * 0x10000, 0x382000, pages[p].flags);
			for (unsigned i = 0; i < 2 && good; i++) {
				unsigned size = codes[i].end - codes[i].code;

				for (unsigned before = 1; before < size && good; before++, n++) {
					uint64_t here = border + (p * 2 + mode) * 0x10000;
					uint64_t want = here - before;
					unsigned k = 0;

					while (want + codes[i].lens[k] <= here)
						want += codes[i].lens[k++];
					memcpy(r.mem + 0x381000 - before, codes[i].code, before);
					rig_mode(&r, 0, mode);
					c->regs.rip = here - before;
					c->regs.rbx = RIG_DATA - (i ? 0 : 0x12345678);
					good = rig_go(&r, 0) == RIG_STOPPED && c->vector == 14 && c->rip == want && c->cr2 == here &&
					       c->error == pages[p].error + (mode == RIG_K64 ? 0 : 4);
					if (good && i)
						good = c->regs.rax == (before >= 2) && c->regs.rcx == (before >= 4);
					if (!good) {
						tap_diag("code %u, %u bytes before the border, fault wanted at %llx", i, before,
							 (long long)want);
						rig_diag(&r, 0, pages[p].name, RIG_STOPPED);
					}
				}
			}
			tap_ok(good, "%s code that runs into a %s page faults where it needs it: %u", rig_mode_names[mode], pages[p].name, n);
		}
	}
}

/* Instructions whose bytes lie in two pages that are not neighbours. */
static void crossing_instructions(void)
{
	const uint64_t border = AREA + 0x201000;
	struct rig_cpu *c = &r.cpu[0];
	unsigned size = RIG_SIZE(fetch_long), n = 0;
	bool good = true;

	rig_map(&r, border - 0x1000, 0x385000, PTE_ALL);
	rig_map(&r, border, 0x383000, PTE_ALL);
	for (int mode = RIG_K64; mode <= RIG_U64; mode++)
		for (unsigned before = 0; before <= size && good; before++, n++) {
			memcpy(r.mem + 0x386000 - before, guest_fetch_long, before);
			memcpy(r.mem + 0x383000, guest_fetch_long + before, size - before);
			rig_mode(&r, 0, mode);
			c->regs.rip = border - before;
			c->regs.rbx = RIG_DATA - 0x12345678;
			rig_put(&r, RIG_DATA, n);
			good = rig_go(&r, 0) == RIG_DONE && c->regs.r11 == 0x1122334455667788ULL && rig_get(&r, RIG_DATA) == n + 0x5a5a5a5aULL;
			if (!good)
				rig_diag(&r, 0, "crossing", RIG_STOPPED);
		}
	tap_ok(good, "instructions over the border of two pages that are not neighbours: %u", n);
}

GUEST(jump_reg, "jmp rdx");
GUEST(call_reg_there, "call rdx");
GUEST(ret_there, "ret");

/* Code at what the address would be with bits 48 to 63 as they ought to be. The fault may come before the branch or behind it (AMD). */
static void not_canonical(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
	} branches[] = { { "JMP", guest_jump_reg, guest_jump_reg_end },
			 { "CALL", guest_call_reg_there, guest_call_reg_there_end },
			 { "RET", guest_ret_there, guest_ret_there_end } };
	const uint64_t to = TARGET | 0x1234ULL << 48;
	struct rig_cpu *c = &r.cpu[0];

	for (unsigned i = 0; i < 3; i++)
		for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
			bool good = true;

			/* Again with the way there known, and once where the branch is allowed. */
			for (unsigned n = 0; n < 8 && good; n++) {
				uint64_t there = n == 3 ? TARGET : to;

				memcpy(r.mem + AT, branches[i].code, branches[i].end - branches[i].code);
				rig_mode(&r, 0, mode);
				rig_put(&r, OTHER, there);
				c->regs.rip = AT;
				c->regs.rdx = there;
				c->regs.rsp = OTHER;
				if (n == 3)
					good = rig_go(&r, 0) == RIG_DONE;
				else
					good = rig_go(&r, 0) == RIG_STOPPED && c->vector == 13 && !c->error && (c->rip == AT || c->rip == to);
				if (!good)
					rig_diag(&r, 0, branches[i].name, RIG_STOPPED);
			}
			tap_ok(good, "%s to code by an address that is not canonical is #GP, %s", branches[i].name, rig_mode_names[mode]);
		}
}

int main(void)
{
	unsigned eax, ebx, ecx, edx, ebx7 = 0;

	tap_begin();
	if (!rig_make(&r, 1))
		return tap_end();
	set_up();
	__cpuid(1, eax, ebx, ecx, edx);
	if (__get_cpuid_count(7, 0, &eax, &ebx, &edx, &edx))
		ebx7 = ebx;
	for (unsigned i = 0; i < sizeof(accesses) / sizeof(accesses[0]); i++) {
		const struct access *a = &accesses[i];
		const char *wrong = NULL;
		char name[64];

		snprintf(name, sizeof(name), "%s", a->name);
		if (strchr(name, '\n'))
			*strchr(name, '\n') = 0;
		if (((a->flags & F_AVX) && !(ecx & 1U << 28)) || ((a->flags & F_AVX512) && !(ebx7 & 1U << 16))) {
			tap_skip("the processor does not have it", name);
			continue;
		}
		cases = 0;
		load(a, true);
		for (int mode = 0; mode < RIG_MODES && !wrong; mode++)
			if (a->modes & 1 << mode)
				wrong = one_access(a, mode);
		tap_ok(!wrong, "%s (%s%u bytes) at every byte of a page border: %u%s%s", name, a->modes == C ? "32-bit, " : "", a->size, cases,
		       wrong ? "; " : "", wrong ? wrong : "");
	}
	fetches();
	crossing_instructions();
	not_canonical();
	rig_free(&r);
	return tap_end();
}
