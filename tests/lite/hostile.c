/*
 * A guest that would get at the host: every form of address, aimed at and around the test process's own memory - a page of its own, its
 * stack, its heap, its code, the vCPU's run page, libtrine's data - must fault as the page that the guest does not have, and must leave the host's
 * memory as it was. The guest's own data is reached in the same blocks, so that everything is translated and warm.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/lite/rig.h"

enum { R = 1, W = 2 };
enum { AX, CX, DX, BX, SP, BP, SI, DI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum { P_BX = 1, AVX = 2, AVX512 = 4, ANY = 8, KERNEL = 16 };

/* id, instruction, what it does, flags. The address is in every register that its form uses, so that it comes to @target. */
/* clang-format off */
#define FORMS(X) \
	X(load_b, "mov al, [rbx]", BX, 0, 1, 0, 0) X(load_w, "mov ax, [rbx]", BX, 0, 1, 0, 0) X(load_d, "mov eax, [rbx]", BX, 0, 1, 0, 0) \
	X(load_q, "mov rax, [rbx]", BX, 0, 1, 0, 0) X(store_b, "mov [rbx], al", BX, 0, 1, 0, 0) X(store_w, "mov [rbx], ax", BX, 0, 1, 0, 0) \
	X(store_d, "mov [rbx], eax", BX, 0, 1, 0, 0) X(store_q, "mov [rbx], rax", BX, 0, 1, 0, 0) \
	X(store_imm, "mov qword ptr [rbx], 0x5a5a", BX, 0, 1, 0, 0) \
	X(base_rax, "mov [rax], dl", AX, 0, 1, 0, 0) X(base_rcx, "mov [rcx], rdx", CX, 0, 1, 0, 0) X(base_rdx, "add [rdx], rcx", DX, 0, 1, 0, 0) \
	X(base_rsp, "mov [rsp], rdx", SP, 0, 1, 0, 0) X(base_rbp, "mov [rbp], rdx", BP, 0, 1, 0, 0) X(base_rsi, "mov [rsi], rdx", SI, 0, 1, 0, 0) \
	X(base_rdi, "mov [rdi], rdx", DI, 0, 1, 0, 0) X(base_r8, "mov [r8], rdx", R8, 0, 1, 0, 0) X(base_r9, "mov [r9], rdx", R9, 0, 1, 0, 0) \
	X(base_r10, "mov [r10], rdx", R10, 0, 1, 0, 0) X(base_r11, "mov [r11], rdx", R11, 0, 1, 0, 0) X(base_r12, "mov [r12], rdx", R12, 0, 1, 0, 0) \
	X(base_r13, "mov [r13], rdx", R13, 0, 1, 0, 0) X(base_r14, "mov [r14], rdx", R14, 0, 1, 0, 0) X(base_r15, "mov [r15], rdx", R15, 0, 1, 0, 0) \
	X(disp8, "mov [rbx + 0x7f], rdx", BX, 0x7f, 1, 0, 0) X(disp8n, "mov [r8 - 0x80], rdx", R8, -0x80, 1, 0, 0) \
	X(disp32, "mov [rbx + 0x7fffffff], rdx", BX, 0x7fffffff, 1, 0, 0) X(disp32n, "mov [r9 - 0x80000000], rdx", R9, -0x80000000LL, 1, 0, 0) \
	X(index1, "mov [rcx + rdx], rsi", DX, 0x1000, 1, 0, 0) X(index2, "mov [rcx + rdx * 2], rsi", DX, 0x1000, 2, 0, 0) \
	X(index4, "mov [rcx + r9 * 4], rsi", R9, 0x1000, 4, 0, 0) X(index8, "mov [rcx + r10 * 8 + 0x55], rsi", R10, 0x1055, 8, 0, 0) \
	X(index8r11, "mov [rcx + r11 * 8 - 8], rsi", R11, 0xff8, 8, 0, 0) X(index_none, "mov [rdx * 8], rsi", DX, 0, 8, 0, 0) \
	X(index_rbp, "mov [rcx + rbp * 4 + 4], esi", BP, 0x1004, 4, 0, 0) X(index_r12, "mov [rcx + r12 * 1 + 4], esi", R12, 0x1004, 1, 0, 0) \
	X(push, "push rdx", SP, -8, 1, 0, 0) X(push_r9, "push r9", SP, -8, 1, 0, 0) X(push_imm, "push 0x1234", SP, -8, 1, 0, 0) X(push16, "push dx", SP, -2, 1, 0, 0) \
	X(pushf, "pushfq", SP, -8, 1, 0, 0) X(pop, "pop rdx", SP, 0, 1, 0, 0) X(pop_r10, "pop r10", SP, 0, 1, 0, 0) X(popf, "popfq", SP, 0, 1, 0, 0) \
	X(pop_mem, "pop qword ptr [rbx]", BX, 0, 1, 0, 0) X(push_mem, "push qword ptr [rbx]", BX, 0, 1, 0, 0) \
	X(call, "call 1f\n 1:", SP, -8, 1, 0, 0) X(call_mem, "call [rbx]", BX, 0, 1, 0, 0) X(jmp_mem, "jmp [rbx]", BX, 0, 1, 0, 0) \
	X(jmp_mem_r11, "jmp [r11 + 8]", R11, 8, 1, 0, 0) X(ret, "ret", SP, 0, 1, 0, 0) X(ret_imm, "ret 8", SP, 0, 1, 0, 0) \
	X(leave, "leave", BP, 0, 1, 0, 0) X(enter, "enter 8, 0", SP, -8, 1, 0, 0) X(iretq, "iretq", SP, 0, 1, 0, KERNEL | ANY) \
	X(movsb_to, "movsb", DI, 0, 1, 0, 0) X(movsq_to, "movsq", DI, 0, 1, 0, 0) X(movsq_from, "movsq", SI, 0, 1, 0, 0) \
	X(rep_movs_to, "rep movsb", DI, 0, 1, 0, 0) X(rep_movs_from, "rep movsq", SI, 0, 1, 0, 0) X(std_movs, "std\n movsq", DI, 0, 1, 0, 0) \
	X(stosb, "stosb", DI, 0, 1, 0, 0) X(rep_stos, "rep stosq", DI, 0, 1, 0, 0) X(lods, "lodsq", SI, 0, 1, 0, 0) X(scas, "scasb", DI, 0, 1, 0, 0) \
	X(repne_scas, "repne scasb", DI, 0, 1, 0, 0) X(cmps, "cmpsb", SI, 0, 1, 0, 0) X(repe_cmps, "repe cmpsq", DI, 0, 1, 0, 0) \
	X(xlat, "xlatb", BX, 0x11, 1, 0, 0) X(add, "add [rbx], rdx", BX, 0, 1, 0, 0) X(adc, "adc qword ptr [r8], 1", R8, 0, 1, 0, 0) \
	X(inc, "inc dword ptr [rbx]", BX, 0, 1, 0, 0) X(neg, "neg qword ptr [rbx]", BX, 0, 1, 0, 0) X(shl, "shl qword ptr [rbx], cl", BX, 0, 1, 0, 0) \
	X(bts_reg, "bts qword ptr [rcx], rbx", BX, 0x1000, -8, 0, 0) X(btr_imm, "btr qword ptr [rbx], 3", BX, 0, 1, 0, 0) \
	X(lock_add, "lock add [rbx], rdx", BX, 0, 1, 0, 0) X(lock_xadd, "lock xadd [rbx], rdx", BX, 0, 1, 0, 0) X(xchg, "xchg [rbx], rdx", BX, 0, 1, 0, 0) \
	X(lock_cmpxchg, "lock cmpxchg [rbx], rdx", BX, 0, 1, 0, 0) X(cmpxchg8b, "lock cmpxchg8b [rsi]", SI, 0, 1, 0, 0) \
	X(cmpxchg16b, "lock cmpxchg16b [rsi]", SI, 0, 1, 15, 0) X(movnti, "movnti [rbx], rdx", BX, 0, 1, 0, 0) X(setc, "setc [rbx]", BX, 0, 1, 0, 0) \
	X(cmov, "cmovc rax, [rbx]", BX, 0, 1, 0, 0) X(mul, "mul qword ptr [rbx]", BX, 0, 1, 0, 0) X(div, "div dword ptr [rbx]", BX, 0, 1, 0, 0) \
	X(movbe, "movbe [rbx], rdx", BX, 0, 1, 0, 0) X(shld, "shld [rbx], rdx, 3", BX, 0, 1, 0, 0) \
	X(movss, "movss dword ptr [rbx], xmm1", BX, 0, 1, 0, 0) X(movups_l, "movups xmm1, [rbx]", BX, 0, 1, 0, 0) X(movups_s, "movups [rbx], xmm1", BX, 0, 1, 0, 0) \
	X(movaps_s, "movaps [rbx], xmm1", BX, 0, 1, 15, 0) X(movntdq, "movntdq [r9], xmm1", R9, 0, 1, 15, 0) X(maskmov, "pcmpeqd xmm1, xmm1\n maskmovdqu xmm0, xmm1", DI, 0, 1, 0, 0) \
	X(mmx, "movq [rbx], mm1", BX, 0, 1, 0, 0) X(fld, "fld tbyte ptr [rbx]", BX, 0, 1, 0, 0) X(fstp, "fstp tbyte ptr [rbx]", BX, 0, 1, 0, 0) \
	X(fistp, "fistp qword ptr [rbx]", BX, 0, 1, 0, 0) X(fnsave, "fnsave [rbx]", BX, 0, 1, 0, 0) X(fnstenv, "fnstenv [rbx]", BX, 0, 1, 0, 0) \
	X(frstor, "frstor [rbx]", BX, 0, 1, 0, 0) X(stmxcsr, "stmxcsr [rbx]", BX, 0, 1, 0, 0) X(ldmxcsr, "ldmxcsr [rbx]", BX, 0, 1, 0, 0) \
	X(fxsave, "fxsave64 [rbx]", BX, 0, 1, 15, 0) X(fxrstor, "fxrstor64 [rbx]", BX, 0, 1, 15, 0) \
	X(xsave, "mov eax, 7\n xor edx, edx\n xsave64 [rbx]", BX, 0, 1, 63, AVX) X(xrstor, "mov eax, 7\n xor edx, edx\n xrstor64 [rbx]", BX, 0, 1, 63, AVX) \
	X(xsaveopt, "mov eax, 7\n xor edx, edx\n xsaveopt64 [r11]", R11, 0, 1, 63, AVX) X(xsavec, "mov eax, 7\n xor edx, edx\n xsavec64 [rbx]", BX, 0, 1, 63, AVX) \
	X(ymm_l, "vmovups ymm1, [rbx]", BX, 0, 1, 0, AVX) X(ymm_s, "vmovups [rbx], ymm1", BX, 0, 1, 0, AVX) \
	X(vmaskmov, "vpcmpeqd ymm0, ymm0, ymm0\n vmaskmovps [rbx], ymm0, ymm1", BX, 0, 1, 0, AVX) \
	X(vgather, "vpcmpeqd ymm0, ymm0, ymm0\n vpxor ymm2, ymm2, ymm2\n vpgatherdd ymm1, [rbx + ymm2], ymm0", BX, 0, 1, 0, AVX) \
	X(vgather_index, "vpcmpeqd ymm0, ymm0, ymm0\n vmovq xmm2, rbx\n vpbroadcastq ymm2, xmm2\n vpgatherqq ymm1, [rcx + ymm2], ymm0", BX, 0x1000, 1, 0, AVX) \
	X(zmm_l, "vmovups zmm17, [rbx]", BX, 0, 1, 0, AVX512) X(zmm_s, "vmovups [r8], zmm1", R8, 0, 1, 0, AVX512) X(zmm_nt, "vmovntps [rbx], zmm1", BX, 0, 1, 63, AVX512) \
	X(zmm_disp, "vmovups [rbx + 0x1fc0], zmm1", BX, 0x1fc0, 1, 0, AVX512) X(zmm_bcast, "vaddps zmm1, zmm2, [rbx]{1to16}", BX, 0, 1, 0, AVX512) \
	X(kmov, "kmovq [rbx], k1", BX, 0, 1, 0, AVX512) \
	X(vscatter, "kxnorw k1, k1, k1\n vpxord zmm2, zmm2, zmm2\n vpscatterdd [rbx + zmm2]{k1}, zmm1", BX, 0, 1, 0, AVX512) \
	X(vcompress, "kxnorw k1, k1, k1\n vpcompressd [rbx]{k1}, zmm1", BX, 0, 1, 0, AVX512) \
	X(prefetch, "prefetcht0 [rbx]\n mov al, [rbx]", BX, 0, 1, 0, 0) X(clflush, "clflush [rbx]\n mov [rbx], al", BX, 0, 1, 0, ANY) \
	X(jmp_reg, "jmp rbx", BX, 0, 1, 0, ANY) X(call_reg, "call rbx", BX, 0, 1, 0, ANY) \
	X(lgdt, "lgdt [rbx]", BX, 0, 1, 0, KERNEL) X(sidt, "sidt [rbx]", BX, 0, 1, 0, KERNEL) X(fs_store, "mov fs:[rbx], rdx", BX, 0x2000, 1, 0, 0) \
	X(gs_store, "mov gs:[rbx + rcx], rdx", BX, 0x4000, 1, 0, 0) X(gs_rmw, "lock inc dword ptr gs:[r10]", R10, 0x3000, 1, 0, 0)
/* clang-format on */
/* FS base is 0x2000, GS base 0x3000, RCX 0x1000 */

#define DEFINE(id, text, ...) GUEST(id, text "\n int 0x80");
FORMS(DEFINE)
static const struct form {
	const char *text;
	const uint8_t *code, *end;
	uint8_t reg;
	int64_t off;
	int scale;
	unsigned align, flags;
} forms[] = {
#define ENTRY(id, text, reg, off, scale, align, flags) { text, guest_##id, guest_##id##_end, reg, off, scale, align, flags },
	FORMS(ENTRY)
};

/* The displacement is the target's, for what has no register: to be patched at the first 0x11223344. */
GUEST(moffs_l, "movabs rax, [0x1122334455667788]\n int 0x80");
GUEST(moffs_s, "movabs [0x1122334455667788], rax\n int 0x80");

static struct rig r;
static uint64_t known[32]; /* host addresses */
static unsigned nr_known;
static uint8_t *canary;
#define CANARY_SIZE 0x3000

static void know(uint64_t at)
{
	known[nr_known++] = at;
}

static bool canary_lives(void)
{
	for (unsigned i = 0; i < CANARY_SIZE; i++)
		if (canary[i] != (uint8_t)(i * 7 + 3))
			return false;
	return true;
}

static void registers(struct rig_cpu *c, enum rig_mode mode)
{
	uint64_t rsp = RIG_STACK + 0x1000;

	for (unsigned i = 0; i < 16; i++)
		*rig_gpr(&c->regs, i) = RIG_DATA + 0x100;
	c->regs.rax = 0x11;
	c->regs.rcx = 0x1000;
	c->regs.rdx = 0;
	c->regs.rsp = rsp;
	c->regs.rbp = rsp - 64;
	c->regs.rflags = 2;
	c->regs.rip = RIG_CODE + 0x400;
}

static bool stopped_right(const struct form *f, struct rig_cpu *c, int reason, uint64_t target)
{
	int64_t canonical = (int64_t)target << 16 >> 16;

	if (reason != RIG_STOPPED)
		return false;
	if (f->flags & ANY)
		return c->vector >= 12 && c->vector <= 14;
	/* It may end beyond what is canonical. */
	if ((int64_t)((target + 0xfff) << 16) >> 16 != (int64_t)(target + 0xfff) && (c->vector == 12 || c->vector == 13))
		return true;
	if (canonical != (int64_t)target)
		return c->vector == 13 || c->vector == 12;
	/* Within the page in question or, accesses being as long as they are, the next one. */
	return c->vector == 14 && c->cr2 - (target & ~0xfffULL) < 0x2000;
}

static void one_form(const struct form *f)
{
	struct rig_cpu *c = &r.cpu[0];
	unsigned n = 0, wrong = 0;
	char name[120];

	memcpy(r.mem + RIG_CODE + 0x400, f->code, f->end - f->code);
	for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
		struct kvm_sregs s;

		if ((f->flags & KERNEL) && mode != RIG_K64)
			continue;
		rig_mode(&r, 0, mode);
		rig_get_sregs(&r, 0, &s);
		s.fs.base = 0x2000;
		s.gs.base = 0x3000;
		rig_set_sregs(&r, 0, &s);
		/* Warm, with the guest's own memory; what the form then does is of no interest. */
		for (unsigned warm = 0; warm < 2 && !(f->flags & ANY); warm++) {
			uint64_t target = RIG_DATA + 0x200;

			registers(c, mode);
			*rig_gpr(&c->regs, f->reg) = f->scale < 0 ? (target - f->off) * -f->scale : (target - f->off) / f->scale;
			memset(r.mem + RIG_DATA, 0, 0x1000);
			rig_put(&r, target, RIG_CODE + 0x600);
			r.mem[RIG_CODE + 0x600] = 0xf4;
			rig_go(&r, 0);
			rig_mode(&r, 0, mode);
			rig_set_sregs(&r, 0, &s);
		}
		for (unsigned k = 0; k < nr_known && wrong < 3; k++) {
			for (int delta = -64; delta <= 64; delta += 16) {
				uint64_t target = (known[k] + delta) & ~(uint64_t)f->align, reg = target - f->off;
				int reason;

				if (f->scale < 0) {
					reg *= -f->scale; /* a bit offset */
					if ((int64_t)reg / -f->scale != (int64_t)(target - f->off))
						continue;
				} else if (f->scale > 1) {
					target = (reg & ~(uint64_t)(f->scale - 1)) + f->off;
					reg = (target - f->off) / f->scale;
				}
				registers(c, mode);
				*rig_gpr(&c->regs, f->reg) = reg;
				reason = rig_go(&r, 0);
				n++;
				if (!stopped_right(f, c, reason, target)) {
					rig_diag(&r, 0, f->text, reason);
					tap_diag("... aimed at %llx as %s", (long long)target, rig_mode_names[mode]);
					wrong++;
				}
				if (!c->in_kernel || wrong)
					break;
			}
		}
	}
	snprintf(name, sizeof(name), "%s", f->text);
	for (char *p = name; *p; p++)
		if (*p == '\n')
			*p = ';';
	tap_ok(!wrong && canary_lives(), "%s reaches nothing of the host: %u", name, n);
}

static void absolute(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
	} all[] = { { "load", guest_moffs_l, guest_moffs_l_end }, { "store", guest_moffs_s, guest_moffs_s_end } };
	struct rig_cpu *c = &r.cpu[0];

	for (unsigned i = 0; i < 2; i++) {
		unsigned wrong = 0;

		for (unsigned k = 0; k < nr_known; k++) {
			int reason;

			rig_mode(&r, 0, RIG_U64);
			memcpy(r.mem + RIG_CODE + 0x400, all[i].code, all[i].end - all[i].code);
			memcpy(r.mem + RIG_CODE + 0x402, &known[k], 8);
			registers(c, RIG_U64);
			reason = rig_go(&r, 0);
			if (!stopped_right(&forms[0], c, reason, known[k]))
				wrong++;
		}
		tap_ok(!wrong && canary_lives(), "a 64-bit absolute %s reaches nothing of the host: %u", all[i].name, nr_known);
	}
}

GUEST(sweep_code,
      "1: mov al, [rbx]\n 2: lea rbx, [rbx + rdx]\n dec rcx\n jnz 1b\n int 0x80\n");
/* The handler skips the load, which is of two bytes. */
GUEST(sweep_handler, "inc qword ptr [rsi]\n add rsp, 8\n add qword ptr [rsp], 2\n iretq");

/* Every page of a stretch around each address, and the low 4 GiB in steps: as many faults as accesses. */
static void sweep(void)
{
	struct rig_cpu *c = &r.cpu[0];
	unsigned wrong = 0;
	uint64_t n = 0;

	RIG_LOAD(&r, RIG_CODE, sweep_code);
	RIG_LOAD(&r, RIG_HANDLERS, sweep_handler);
	rig_gate(&r, 14, RIG_HANDLERS, 1, 0);
	for (unsigned k = 0; k <= nr_known; k++) {
		bool low = k == nr_known;
		uint64_t at = low ? 0x1000000 : (known[k] & ~0xfffULL) - 0x40000, step = low ? 0x100000 - 0x1000 : 0x1000;
		uint64_t count = low ? 4000 : 128;

		/* Not over the ends of what is canonical, nor to where the guest has memory. */
		if (!low && ((known[k] >> 47 && known[k] >> 47 != 0x1ffff) || (at + 0x80000) >> 47 != at >> 47 || at < 0x1000000 || at + 0x80000 < at))
			continue;
		rig_mode(&r, 0, RIG_K64);
		c->regs.rbx = at + 1;
		c->regs.rdx = step;
		c->regs.rcx = count;
		c->regs.rsi = RIG_DATA;
		rig_put(&r, RIG_DATA, 0);
		n += count;
		if (rig_go(&r, 0) != RIG_DONE || rig_get(&r, RIG_DATA) != count)
			wrong++;
	}
	rig_gate_default(&r, 14);
	tap_ok(!wrong && canary_lives(), "%llu pages at and around the host's, none is the guest's", (long long)n);
}

/* Offsets within the empty entries of a TLB whose tags are small numbers, and what is far beyond. */
static void corners(void)
{
	for (unsigned i = 0; i < 12; i++)
		know((uint64_t[]){ 0x10000000, 0x7ffffffff000, 0x800000000000, 0xffff7fffffffffff, 0xffff800000000000, 0xffffffffffffffc0,
				   0x8000000000000000, 0x7fffffffffffffc0, 0x100000000, 0xffffffff, 0x80000000, 0x7fffffc0 }[i]);
}

int main(void)
{
	unsigned a, b, c, d, b7 = 0;
	uint64_t local;

	tap_begin();
	if (!rig_make(&r, 1))
		return tap_end();
	canary = mmap(NULL, CANARY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (canary == MAP_FAILED)
		return tap_ok(false, "a canary"), tap_end();
	for (unsigned i = 0; i < CANARY_SIZE; i++)
		canary[i] = i * 7 + 3;
	know((uintptr_t)canary);
	know((uintptr_t)canary + 0x1800);
	know((uintptr_t)r.mem);
	know((uintptr_t)r.mem + RIG_DATA);
	know((uintptr_t)r.cpu[0].run);
	know((uintptr_t)&local);
	know((uintptr_t)&r);
	know((uintptr_t)malloc(1 << 16));
	know((uintptr_t)main);
	know((uintptr_t)trine_ioctl);
	know((uintptr_t)memcpy);
	know((uintptr_t)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	corners();
	/* Linear page 0 and some more are missing; the first bytes of what is not there count, too. */
	for (uint64_t la = 0; la < 0x8000; la += 0x1000)
		if (la != RIG_GDT && la != RIG_IDT && la != RIG_TSS && la != RIG_VECTORS)
			rig_map(&r, la, 0, 0);
	know(0x40);
	know(0xfc0 - 0x40);
	__cpuid(1, a, b, c, d);
	__cpuid_count(7, 0, a, b7, d, d);
	for (unsigned i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		char name[48];

		snprintf(name, sizeof(name), "%.40s", forms[i].text);
		if (((forms[i].flags & AVX) && !(c & 1U << 28)) || ((forms[i].flags & AVX512) && !(b7 & 1U << 16)))
			tap_skip("the processor does not have it", name);
		else
			one_form(&forms[i]);
	}
	absolute();
	sweep();
	rig_free(&r);
	return tap_end();
}
