/*
 * Events: single steps, breakpoints, watchpoints; exceptions in the middle of blocks, in handlers, in their delivery; stacks of the IST; interrupts
 * between any two instructions.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lite/rig.h"

static struct rig r;

#define SITE (RIG_CODE + 0x800)
#define HOLE 0x7f0000UL /* a page that is not there */
#define LOG  0x300000UL /* words: a count, then what was logged */

static struct kvm_regs start;

static int run(enum rig_mode mode, const uint8_t *code, const uint8_t *end)
{
	memcpy(r.mem + SITE, code, end - code);
	rig_mode(&r, 0, mode);
	start.rsp = r.cpu[0].regs.rsp;
	start.rip = SITE;
	start.rflags |= 2;
	r.cpu[0].regs = start;
	return rig_go(&r, 0);
}
#define RUN(mode, name) run(mode, guest_##name, guest_##name##_end)

static void debugregs(uint64_t dr7, const uint64_t at[4])
{
	struct kvm_debugregs d = { .dr6 = 0xffff0ff0, .dr7 = dr7 };

	for (unsigned i = 0; at && i < 4; i++)
		d.db[i] = at[i];
	trine_ioctl(r.cpu[0].fd, KVM_SET_DEBUGREGS, &d);
}

static uint64_t dr6(void)
{
	struct kvm_debugregs d = { 0 };

	trine_ioctl(r.cpu[0].fd, KVM_GET_DEBUGREGS, &d);
	return d.dr6;
}

/* ---- single steps -------------------------------------------------------------------------------------------------------- */

/* Something of everything, the same for kernel and user. RBX: data. */
GUEST(mixture,
      "mov ecx, 3\n xor eax, eax\n 1: add rax, rcx\n adc r8, rax\n mov [rbx], rax\n cmp [rbx], rcx\n jbe 2f\n lea r9, [r8 + rax * 2]\n push r9\n pop r10\n 2: call 3f\n"
      "dec ecx\n jnz 1b\n mov ecx, 4\n mov rsi, rbx\n lea rdi, [rbx + 64]\n rep movsb\n cld\n movups xmm0, [rbx]\n movups [rbx + 32], xmm0\n lea rdx, [rip + 4f]\n"
      "jmp rdx\n ud2\n 4: shl r8, 3\n setc al\n lock xadd [rbx], r8\n xchg rax, r11\n jmp 5f\n 3: inc r12\n ret\n ud2\n 5: int 0x80");
/* Logs RIP and goes on. */
GUEST(log_step, "push rax\n push rdx\n mov rax, [0x300000]\n mov rdx, [rsp + 16]\n mov [0x300008 + rax * 8], rdx\n inc rax\n mov [0x300000], rax\n pop rdx\n pop rax\n iretq");

static void single_steps(void)
{
	static uint64_t client[512], guest[512];
	struct kvm_guest_debug dbg = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP }, none = { 0 };
	struct rig_cpu *c = &r.cpu[0];

	RIG_LOAD(&r, RIG_HANDLERS, log_step);
	for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
		unsigned nc = 0, ng;
		struct kvm_regs plain, stepped;
		int reason;

		memset(&start, 0, sizeof(start));
		start.rbx = RIG_DATA;
		start.r8 = 0x123456789;
		memset(r.mem + RIG_DATA, 0, 256);
		reason = RUN(mode, mixture);
		plain = c->regs;
		/* By the client */
		memset(r.mem + RIG_DATA, 0, 256);
		trine_ioctl(c->fd, KVM_SET_GUEST_DEBUG, &dbg);
		for (reason = RUN(mode, mixture); reason == KVM_EXIT_DEBUG && nc < 500; reason = rig_again(&r, 0))
			client[nc++] = c->regs.rip;
		trine_ioctl(c->fd, KVM_SET_GUEST_DEBUG, &none);
		stepped = c->regs;
		while (nc && client[nc - 1] >= RIG_VECTORS && client[nc - 1] < RIG_VECTORS + 0x1000)
			nc--;
		tap_ok(reason == RIG_DONE && nc > 50 && !memcmp(&plain.rax, &stepped.rax, 32) && !memcmp(&plain.r8, &stepped.r8, 64),
		       "%s: the client steps through %u instructions", rig_mode_names[mode], nc);
		/* By TF */
		memset(r.mem + RIG_DATA, 0, 256);
		rig_gate(&r, 1, RIG_HANDLERS, 2, 0);
		rig_put(&r, LOG, 0);
		start.rflags = 0x102;
		reason = RUN(mode, mixture);
		start.rflags = 2;
		rig_gate_default(&r, 1);
		ng = rig_get(&r, LOG);
		memcpy(guest, r.mem + LOG + 8, sizeof(guest));
		/* INT clears TF: the client's last step, into the handler, is not the guest's. */
		tap_ok(reason == RIG_DONE && ng == nc && !memcmp(guest, client, ng * 8) && plain.r8 == c->regs.r8 && plain.r11 == c->regs.r11,
		       "%s: TF traps after the same %u instructions (%u)", rig_mode_names[mode], nc, ng);
		/* A breakpoint at each of them */
		{
			unsigned wrong = 0, tried = 0;

			for (unsigned i = 0; i < nc && i < 40; i++) {
				uint64_t at[4] = { client[i] };

				debugregs(0x402, at);
				reason = RUN(mode, mixture);
				tried++;
				if (reason != RIG_STOPPED || c->vector != 1 || c->rip != client[i] || (dr6() & 0xf) != 1) {
					if (!wrong++)
						rig_diag(&r, 0, "breakpoint", reason);
				}
			}
			debugregs(0x400, NULL);
			tap_ok(!wrong, "%s: a breakpoint stops before each of %u instructions", rig_mode_names[mode], tried);
		}
	}
}

/* ---- watchpoints ---------------------------------------------------------------------------------------------------------- */

/* RDI: where. */
#define TOUCHES(X) \
	X(w1, "mov [rdi], al", 1, 2) X(w2, "mov [rdi], ax", 2, 2) X(w4, "mov [rdi], eax", 4, 2) X(w8, "mov [rdi], rax", 8, 2) X(r1, "mov al, [rdi]", 1, 1) \
	X(r4, "mov eax, [rdi]", 4, 1) X(r8, "mov rax, [rdi]", 8, 1) X(rmw4, "add [rdi], eax", 4, 3) X(lock8, "lock inc qword ptr [rdi]", 8, 3) \
	X(sse, "movups [rdi], xmm0", 16, 2) X(push, "lea rsp, [rdi + 8]\n push rax", 8, 2)
#define DEFINE(id, text, size, kind) GUEST(touch_##id, "inc r12\n inc r13\n" text "\n lea r14, [r14 + 1]\n int 0x80");
TOUCHES(DEFINE)

static void watchpoints(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
		unsigned size, kind;
	} touches[] = {
#define ENTRY(id, text, size, kind) { text, guest_touch_##id, guest_touch_##id##_end, size, kind },
		TOUCHES(ENTRY)
	};
	static const unsigned len_code[] = { [1] = 0, [2] = 1, [4] = 3, [8] = 2 };
	struct rig_cpu *c = &r.cpu[0];

	for (unsigned t = 0; t < sizeof(touches) / sizeof(touches[0]); t++) {
		unsigned wrong = 0, n = 0;

		for (unsigned len = 1; len <= 8; len *= 2)
			for (unsigned rw = 1; rw <= 3; rw += 2)
				for (int off = -16; off <= 9; off++, n++) {
					unsigned reg = n & 3;
					uint64_t watch = RIG_DATA + 0x100, at[4] = { 0 };
					bool hit = off < (int)len && off + (int)touches[t].size > 0 && (rw == 3 || (touches[t].kind & 2));
					int reason;

					at[reg] = watch;
					debugregs(0x400 | 2u << (2 * reg) | (uint64_t)(rw | len_code[len] << 2) << (16 + 4 * reg), at);
					memset(&start, 0, sizeof(start));
					start.rdi = watch + off;
					reason = run(n & 4 ? RIG_U64 : RIG_K64, touches[t].code, touches[t].end);
					if (hit ? reason != RIG_STOPPED || c->vector != 1 || c->regs.r14 || c->regs.r13 != 1 || !(dr6() & 1u << reg)
						: reason != RIG_DONE || c->regs.r14 != 1) {
						if (!wrong++) {
							tap_diag("len %u, rw %u, offset %d: a hit is %s", len, rw, off, hit ? "due" : "wrong");
							rig_diag(&r, 0, touches[t].name, reason);
						}
					}
				}
		tap_ok(!wrong, "%.*s hits a watchpoint where it should: %u", (int)strcspn(touches[t].name, "\n"), touches[t].name, n);
	}
	debugregs(0x400, NULL);
}

/* ---- exceptions ------------------------------------------------------------------------------------------------------------ */

/* The faulting instruction is at 7:, behind others of its block; what is behind it must not have been run. */
#define FAULTS(X) \
	X(de, "xor edx, edx\n xor ecx, ecx\n 7: div rcx", 0, 0) X(de8, "mov eax, 0x7fff\n mov cl, 1\n 7: div cl", 0, 0) \
	X(idiv, "mov rdx, 0x4000000000000000\n mov rcx, 1\n 7: idiv rcx", 0, 0) X(ud2, "7: ud2", 6, 0) X(ud1, "7: ud1 eax, eax", 6, 0) \
	X(ud_lock, "7: .byte 0xf0, 0x89, 0xc0", 6, 0) X(ud_vex, "7: .byte 0xc4, 0xe2, 0x40, 0xff, 0xc0", 6, 0) X(bp, "7: int3", 3, 1) X(icebp, "7: .byte 0xf1", 1, 1) \
	X(gp_canonical, "mov rcx, 0x8000000000000000\n 7: mov rax, [rcx]", 13, 0) X(ss_canonical, "mov rbp, 0x8000000000000000\n 7: mov rax, [rbp]", 12, 0) \
	X(gp_r9, "mov r9, 0x800000000000\n 7: mov [r9], r10", 13, 4) X(gp_aligned, "7: movaps xmm0, [rbx + 1]", 13, 0) \
	X(gp_jump, "mov rcx, 0x8000000000000000\n 7: jmp rcx", 13, 8) X(gp_sse, "lea rcx, [rbx + 8]\n 7: paddb xmm1, [rcx]", 13, 0) \
	X(gp_cmpxchg16b, "lea rcx, [rbx + 8]\n 7: lock cmpxchg16b [rcx]", 13, 0) X(gp_mxcsr, "mov dword ptr [rbx], 0xffffffff\n 7: ldmxcsr [rbx]", 13, 0) \
	X(gp_msr, "mov ecx, 0x12345678\n 7: rdmsr", 13, 0) X(gp_seg, "mov eax, 0x1234\n 7: mov ds, eax", 13, 0) X(pf, "mov ecx, 0x7f0000\n 7: mov eax, [rcx]", 14, 0) \
	X(pf_write, "mov ecx, 0x7f0000\n 7: xor [rcx], r11", 14, 0) X(pf_sse, "mov ecx, 0x7f0000\n 7: addps xmm3, [rcx]", 14, 0) \
	X(pf_jump, "mov ecx, 0x7f0000\n jmp rcx\n 7: nop", 14, 2) \
	X(xm, "push 0x1d00\n ldmxcsr [rsp]\n pop rcx\n xorps xmm0, xmm0\n 7: divps xmm1, xmm0", 19, 0) \
	X(mf, "fninit\n push 0x37b\n fldcw [rsp]\n pop rcx\n fld1\n fldz\n fdivp st(1), st\n mov eax, 5\n 7: fld1", 16, 0) \
	X(mf_wait, "fninit\n push 0x37b\n fldcw [rsp]\n pop rcx\n fld1\n fldz\n fdivp st(1), st\n nop\n 7: fwait", 16, 0)
#define DEFINE_FAULT(id, text, vector, kind) \
	GUEST(fault_##id, "mov r8, 0x1111\n mov r10, r8\n stc\n inc r11\n push r8\n pop r9\n" text "\n 8: mov r15, 1\n mov r8, 7\n int 0x80");
FAULTS(DEFINE_FAULT)

static void exceptions(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
		const char *text;
		int vector, kind;
	} faults[] = {
#define ENTRY_FAULT(id, text, vector, kind) { #id, guest_fault_##id, guest_fault_##id##_end, text, vector, kind },
		FAULTS(ENTRY_FAULT)
	};
	struct rig_cpu *c = &r.cpu[0];

	rig_map(&r, HOLE, 0, 0);
	for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		const char *wrong = NULL;
		/* What is behind 8: has a known length, so that the instruction's end is known. */
		uint64_t behind = SITE + (faults[i].end - faults[i].code) - (7 + 7 + 2);

		for (int mode = RIG_K64; mode <= RIG_U64 && !wrong; mode++)
			for (unsigned round = 0; round < 3 && !wrong; round++) {
				static uint8_t x[4096];
				int reason;

				memset(x, 0, sizeof(x));
				x[0] = 0x7f;
				x[1] = 3;
				x[24] = 0x80;
				x[25] = 0x1f;
				x[512] = 7;
				memset(x + 160 + 16, 0x3f, 16);
				trine_ioctl(c->fd, KVM_SET_XSAVE, x);
				memset(&start, 0, sizeof(start));
				start.rbx = RIG_DATA;
				if (!strcmp(faults[i].name, "gp_msr") && mode == RIG_U64)
					continue;
				reason = run(mode, faults[i].code, faults[i].end);
				if (reason != RIG_STOPPED || c->vector != faults[i].vector)
					wrong = "another vector";
				/* AMD faults where the jump leads, Intel at the jump. */
				else if (faults[i].kind == 8 && c->rip == 1ULL << 63)
					;
				else if (faults[i].kind == 2 ? c->rip != HOLE : faults[i].kind == 1 ? c->rip != behind : c->rip >= behind || c->rip + 15 < behind)
					wrong = "RIP";
				else if (c->regs.r8 != 0x1111 || (c->regs.r9 != 0x1111 && faults[i].kind != 4) || c->regs.r10 != 0x1111 || c->regs.r11 != 1 || c->regs.r15)
					wrong = "registers";
				else if (c->rsp != start.rsp)
					wrong = "RSP";
				if (wrong)
					rig_diag(&r, 0, faults[i].name, reason);
			}
		tap_ok(!wrong, "%s in the middle of a block is exact%s%s", faults[i].name, wrong ? ": " : "", wrong ? wrong : "");
	}
}

GUEST(raise_ud, "inc r8\n ud2\n inc r8\n int 0x80");
GUEST(handler_faults, "mov rax, [0x7f0008]\n hlt");
GUEST(skip_two, "add qword ptr [rsp], 2\n iretq");
GUEST(pf_fix, "add rsp, 8\n add qword ptr [rsp], 8\n inc r14\n iretq");

static void nesting(void)
{
	struct rig_cpu *c = &r.cpu[0];
	int reason;

	/* A fault in a handler, repaired; then the first one is done. */
	RIG_LOAD(&r, RIG_HANDLERS, handler_faults);
	memcpy(r.mem + RIG_HANDLERS + 8, guest_skip_two, RIG_SIZE(skip_two));
	RIG_LOAD(&r, RIG_HANDLERS + 0x100, pf_fix);
	rig_gate(&r, 6, RIG_HANDLERS, 1, 0);
	rig_gate(&r, 14, RIG_HANDLERS + 0x100, 2, 0);
	memset(&start, 0, sizeof(start));
	reason = RUN(RIG_U64, raise_ud);
	tap_ok(reason == RIG_DONE && c->regs.r8 == 2 && c->regs.r14 == 1, "a page fault in a handler, and back to where the first exception was");
	rig_gate_default(&r, 14);
	reason = RUN(RIG_U64, raise_ud);
	tap_ok(reason == RIG_STOPPED && c->vector == 14 && c->rip == RIG_HANDLERS && c->cs == RIG_CS64 && c->cr2 == HOLE + 8,
	       "a page fault in a handler comes from the kernel");
	/* Stacks: vector 6 by each IST entry and by none */
	{
		bool good = true;

		for (unsigned ist = 0; ist <= 3 && good; ist++)
			for (int mode = RIG_K64; mode <= RIG_U64 && good; mode++) {
				uint64_t top = ist ? RIG_STACKS + 0x1000 * (ist + 1) : mode == RIG_U64 ? RIG_STACKS + 0x1000 : RIG_STACK + 0x1000;

				rig_gate(&r, 6, RIG_VECTORS + 6 * 16, ist, 0);
				reason = RUN(mode, raise_ud);
				good = reason == RIG_STOPPED && c->vector == 6 && c->regs.rsp == top - 40 && c->rsp == start.rsp && c->rip == SITE + 3;
			}
		tap_ok(good, "exceptions use the stack that the IST says, or RSP0, or their own");
	}
	/* #UD cannot be delivered: its gate is not present, then #NP's stack is missing. */
	rig_gate_default(&r, 6);
	rig_put(&r, RIG_IDT + 6 * 16, rig_get(&r, RIG_IDT + 6 * 16) & ~(1ULL << 47));
	reason = RUN(RIG_U64, raise_ud);
	tap_ok(reason == RIG_STOPPED && c->vector == 11 && c->error == 6 * 8 + 3 && c->rip == SITE + 3, "a gate that is not present is #NP with its number");
	rig_put(&r, RIG_IDT + 11 * 16, rig_get(&r, RIG_IDT + 11 * 16) & ~(1ULL << 47));
	reason = RUN(RIG_U64, raise_ud);
	tap_ok(reason == RIG_STOPPED && c->vector == 8 && c->error == 0, "two that are not are #DF");
	rig_put(&r, RIG_IDT + 8 * 16, rig_get(&r, RIG_IDT + 8 * 16) & ~(1ULL << 47));
	reason = RUN(RIG_U64, raise_ud);
	tap_ok(reason == KVM_EXIT_SHUTDOWN, "three are a shutdown");
	for (unsigned v = 0; v < 32; v++)
		rig_gate_default(&r, v);
	/* A page fault whose stack is not there */
	rig_gate(&r, 14, RIG_VECTORS + 14 * 16, 0, 0);
	memcpy(r.mem + SITE, "\xbc\x00\x08\x7f\x00\x50", 6); /* mov esp, HOLE + 0x800; push rax */
	rig_mode(&r, 0, RIG_K64);
	c->regs.rip = SITE;
	reason = rig_go(&r, 0);
	tap_ok(reason == RIG_STOPPED && c->vector == 8 && c->error == 0 && c->rip == SITE + 5, "a page fault on the missing stack itself is #DF");
	rig_gate_default(&r, 14);
}

/* ---- interrupts -------------------------------------------------------------------------------------------------------------- */

/* All registers and flags go into the result; memory, stack, calls, indirect jumps, SIMD. RCX rounds. The kernel's stack: [RSP - 8] is not its own. */
GUEST(checksum,
      "mov rax, 1\n mov rbx, 0x123456789abcdef\n mov rdx, 2\n mov rsi, 3\n mov rdi, 4\n mov rbp, 5\n mov r8, 6\n mov r9, 7\n mov r10, 8\n mov r11, 9\n mov r12, 10\n"
      "mov r13, 11\n mov r14, 12\n mov r15, 13\n movq xmm0, rbx\n pxor xmm1, xmm1\n"
      "1: add rax, rbx\n adc rdx, rax\n rol rbx, 7\n adc rsi, rdx\n xor rdi, rsi\n sbb rbp, rdi\n lea r8, [r8 + rbp * 4 + 1]\n cmp r8, r9\n cmovb r9, r8\n adc r10, r9\n"
      "push r10\n mov [0x51000], r11\n add r11, [0x51000]\n pop r12\n sbb r12, r11\n imul r13, r12, 31\n call 3f\n setc r15b\n adc rax, r15\n bt rbx, 5\n jc 2f\n inc r14\n"
      "xor r13, r14\n 2: paddq xmm1, xmm0\n movq xmm0, r13\n lahf\n xor rbx, rax\n lea r15, [rip + 4f]\n jmp r15\n ud2\n 4: mov r15, r13\n shld r13, rax, 9\n dec rcx\n jnz 1b\n"
      "movq rcx, xmm1\n int 0x80\n 3: rcl r13, 1\n adc r14, r13\n ret");
GUEST(set_apic, "mov ecx, 0x1b\n rdmsr\n or eax, 0xc00\n wrmsr\n mov ecx, 0x80f\n mov eax, 0x1ff\n xor edx, edx\n wrmsr\n mov ecx, 0x83e\n mov eax, 0xb\n wrmsr\n"
		"mov ecx, 0x832\n mov eax, 0x20040\n wrmsr\n mov ecx, 0x838\n mov eax, r8d\n wrmsr\n int 0x80");
GUEST(timer, "push rax\n push rcx\n push rdx\n inc qword ptr [0x300000]\n mov ecx, 0x80b\n xor eax, eax\n xor edx, edx\n wrmsr\n pop rdx\n pop rcx\n pop rax\n iretq");

static bool same_result(const struct kvm_regs *a, const struct kvm_regs *b)
{
	for (unsigned i = 0; i < 16; i++)
		if (i != 4 && *rig_gpr((struct kvm_regs *)a, i) != *rig_gpr((struct kvm_regs *)b, i))
			return false;
	return true;
}

static void storm(void)
{
	struct rig_cpu *c = &r.cpu[0];
	struct kvm_regs plain;
	int reason;

	for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
		memset(&start, 0, sizeof(start));
		start.rcx = 1500000;
		reason = RUN(mode, checksum);
		plain = c->regs;
		memcpy(r.mem + RIG_HANDLERS, guest_timer, RIG_SIZE(timer));
		rig_gate(&r, 64, RIG_HANDLERS, 3, 0);
		memset(&start, 0, sizeof(start));
		start.r8 = 20000; /* of 1 GHz */
		if (RUN(RIG_K64, set_apic) != RIG_DONE) {
			rig_diag(&r, 0, "the timer", reason);
			tap_ok(false, "a local APIC's timer");
			continue;
		}
		rig_put(&r, LOG, 0);
		memset(&start, 0, sizeof(start));
		start.rcx = 1500000;
		start.rflags = 0x202;
		reason = RUN(mode, checksum);
		tap_ok(reason == RIG_DONE && same_result(&plain, &c->regs) && rig_get(&r, LOG) > 20, "%s: a checksum under %llu timer interrupts", rig_mode_names[mode],
		       (long long)rig_get(&r, LOG));
		start.r8 = 0;
		start.rflags = 2;
		RUN(RIG_K64, set_apic);
	}
}

/* A self-IPI is waiting; the handler logs where it came. */
#define PENDING(name, text) \
	GUEST(name, "cli\n mov ecx, 0x83f\n mov eax, 0x41\n xor edx, edx\n wrmsr\n xor eax, eax\n" text "\n 9: cli\n int 0x80");
PENDING(shadow_sti, "sti\n inc eax\n inc eax\n inc eax");
PENDING(shadow_sti_sti, "sti\n sti\n inc eax\n inc eax");
PENDING(shadow_ss, "mov edx, ss\n nop\n push 0x202\n popfq\n inc eax\n inc eax");
PENDING(shadow_mov_ss, "mov edx, ss\n sti\n mov ss, edx\n inc eax\n inc eax");
PENDING(shadow_cli, "sti\n cli\n inc eax\n inc eax");
PENDING(shadow_iret, "mov rdx, rsp\n push 0x10\n push rdx\n push 0x202\n push 0x8\n lea rdx, [rip + 1f]\n push rdx\n iretq\n 1: inc eax\n inc eax");
PENDING(shadow_tpr, "mov edx, 15\n mov cr8, rdx\n sti\n inc eax\n xor edx, edx\n mov cr8, rdx\n inc eax\n inc eax");
GUEST(note, "mov [0x300000], rax\n push rax\n push rcx\n push rdx\n inc qword ptr [0x300008]\n mov ecx, 0x80b\n xor eax, eax\n xor edx, edx\n wrmsr\n pop rdx\n pop rcx\n pop rax\n iretq");

static void shadows(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
		unsigned times, rax; /* how often the interrupt comes, and what RAX is then */
	} cases[] = {
#define SHADOW(name, text, times, rax) { text, guest_##name, guest_##name##_end, times, rax }
		SHADOW(shadow_sti, "STI", 1, 1),	     SHADOW(shadow_sti_sti, "STI, STI", 1, 0),
		SHADOW(shadow_ss, "POPF", 1, 0),	     SHADOW(shadow_mov_ss, "STI, MOV SS", 1, 1),
		SHADOW(shadow_cli, "STI, CLI", 0, 0),	     SHADOW(shadow_iret, "IRET", 1, 0),
		SHADOW(shadow_tpr, "CR8", 1, 1),
	};
	struct rig_cpu *c = &r.cpu[0];

	RIG_LOAD(&r, RIG_HANDLERS, note);
	rig_gate(&r, 0x41, RIG_HANDLERS, 3, 0);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned wrong = 0;
		int reason;

		for (unsigned round = 0; round < 4; round++) {
			/* What the last one left */
			memcpy(r.mem + SITE, "\xfb\x90\x90\xfa\xcd\x80", 6);
			rig_mode(&r, 0, RIG_K64);
			c->regs.rip = SITE;
			rig_go(&r, 0);
			rig_put(&r, LOG, 99);
			rig_put(&r, LOG + 8, 0);
			memset(&start, 0, sizeof(start));
			reason = run(RIG_K64, cases[i].code, cases[i].end);
			if (reason != RIG_DONE || rig_get(&r, LOG + 8) != cases[i].times || (cases[i].times && (uint32_t)rig_get(&r, LOG) != cases[i].rax)) {
				if (!wrong++) {
					rig_diag(&r, 0, cases[i].name, reason);
					tap_diag("it came %llu times, RAX %llu", (long long)rig_get(&r, LOG + 8), (long long)rig_get(&r, LOG));
				}
			}
			/* The one that CLI kept away */
			if (!cases[i].times) {
				memcpy(r.mem + SITE, "\xfb\x90\x90\xfa\xcd\x80", 6);
				rig_mode(&r, 0, RIG_K64);
				c->regs.rip = SITE;
				rig_go(&r, 0);
				wrong += rig_get(&r, LOG + 8) != 1;
			}
		}
		tap_ok(!wrong, "a waiting interrupt comes where %s lets it", cases[i].name);
	}
}

/* ---- signals ------------------------------------------------------------------------------------------------------------- */

/* A loop in which nothing else ends: no interrupts, no exits. [RBX]: it runs; [RBX + 8]: it is enough. */
GUEST(closed_loop, "cli\n 1: pause\n inc qword ptr [rbx]\n cmp qword ptr [rbx + 8], 0\n je 1b\n int 0x80");

static pthread_t runner;

static void ignore(int sig)
{
}

static void *send_signal(void *unused)
{
	volatile uint64_t *runs = (uint64_t *)(r.mem + RIG_DATA), *enough = runs + 1;

	while (*runs < 100000)
		usleep(100);
	pthread_kill(runner, SIGUSR1);
	/* Long after that. */
	for (uint64_t before = *runs; *runs < before + 20000000 && !*enough;)
		usleep(1000);
	*enough = 1;
	return unused;
}

static void signals(void)
{
	struct sigaction act = { .sa_handler = ignore };
	unsigned wrong = 0;

	sigaction(SIGUSR1, &act, NULL);
	runner = pthread_self();
	for (unsigned i = 0; i < 20 && !wrong; i++) {
		pthread_t thread;
		int reason;

		memset(r.mem + RIG_DATA, 0, 16);
		memset(&start, 0, sizeof(start));
		start.rbx = RIG_DATA;
		pthread_create(&thread, NULL, send_signal, NULL);
		reason = RUN(RIG_K64, closed_loop);
		rig_put(&r, RIG_DATA + 8, 1);
		pthread_join(thread, NULL);
		wrong += reason != -EINTR;
	}
	tap_ok(!wrong, "a signal ends KVM_RUN in a loop that nothing else ends");
}

int main(void)
{
	tap_begin();
	if (!rig_make(&r, 1))
		return tap_end();
	single_steps();
	watchpoints();
	exceptions();
	nesting();
	signals();
	rig_free(&r);
	if (!rig_make_irqchip(&r, 1))
		return tap_end();
	storm();
	shadows();
	rig_free(&r);
	return tap_end();
}
