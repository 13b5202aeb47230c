/*
 * Code that changes: by the instruction before, by every kind of store, through an alias, by the client, by another vCPU as Linux's
 * text_poke does it, by other page tables. What runs must be what is in memory.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/lite/rig.h"

static struct rig r;

#define SITE (RIG_CODE + 0x800)

static int run_at(enum rig_mode mode, uint64_t rip)
{
	struct kvm_regs k = r.cpu[0].regs;

	rig_mode(&r, 0, mode);
	if (!k.rsp)
		k.rsp = r.cpu[0].regs.rsp;
	k.rflags = 2;
	k.rip = rip;
	r.cpu[0].regs = k;
	return rig_go(&r, 0);
}

/* ---- the instruction behind the store ------------------------------------------------------------------------------ */

/* Each writes the 32 bits of EAX to where RDI points, somehow. RBX: scratch memory, RSP: a stack. */
#define STORES(X) \
	X(mov, "mov [rdi], eax") X(mov_byte, "mov [rdi], al") X(mov_word, "mov [rdi], ax") X(mov_r9, "mov r9, rdi\n mov [r9], eax") \
	X(xchg, "mov edx, eax\n xchg [rdi], edx") X(lock_xchg, "mov edx, [rdi]\n mov ecx, eax\n mov eax, edx\n lock cmpxchg [rdi], ecx") \
	X(add, "mov edx, eax\n sub edx, [rdi]\n add [rdi], edx") X(lock_add, "mov edx, eax\n sub edx, [rdi]\n lock add [rdi], edx") \
	X(xor, "mov edx, eax\n xor edx, [rdi]\n xor [rdi], edx") X(stos, "mov rdx, rdi\n stosd\n mov rdi, rdx") \
	X(movs, "mov [rbx], eax\n mov rsi, rbx\n movsd") X(rep_movs, "mov [rbx], eax\n mov rsi, rbx\n mov ecx, 4\n rep movsb") \
	X(push, "mov rdx, rsp\n lea rsp, [rdi + 8]\n mov ecx, [rdi + 4]\n shl rcx, 32\n or rcx, rax\n push rcx\n mov rsp, rdx") \
	X(pop, "mov ecx, [rdi + 4]\n shl rcx, 32\n or rcx, rax\n push rcx\n pop qword ptr [rdi]") \
	X(movd, "movd xmm0, eax\n movd [rdi], xmm0") X(movss, "movd xmm0, eax\n movss [rdi], xmm0") \
	X(movups, "movups xmm0, [rdi]\n movd xmm1, eax\n movss xmm0, xmm1\n movups [rdi], xmm0") X(movnti, "movnti [rdi], eax") \
	X(fist, "mov [rbx], eax\n fild dword ptr [rbx]\n fistp dword ptr [rdi]") \
	X(cmpxchg8b, "mov ebp, eax\n mov r8, rbx\n mov eax, [rdi]\n mov edx, [rdi + 4]\n mov ebx, ebp\n mov ecx, edx\n lock cmpxchg8b [rdi]\n mov rbx, r8") \
	X(bts, "mov edx, eax\n not edx\n and [rdi], eax\n or [rdi], eax") X(setcc_mov, "mov [rdi + 1], ah\n mov [rdi], al")

#define DEFINE(id, text) GUEST(store_##id, text);
STORES(DEFINE)
static const struct {
	const char *name;
	const uint8_t *code, *end;
} stores[] = {
#define ENTRY(id, text) { text, guest_store_##id, guest_store_##id##_end },
	STORES(ENTRY)
};

/* MOV ESI, imm32; the store replaces the low bytes of the immediate. */
static void next_instruction(void)
{
	for (unsigned s = 0; s < sizeof(stores) / sizeof(stores[0]); s++) {
		unsigned wrong = 0, n = 0, len = stores[s].end - stores[s].code;
		struct kvm_regs *k = &r.cpu[0].regs;
		char name[64];

		for (int mode = RIG_K64; mode <= RIG_U64; mode++)
			for (unsigned gap = 0; gap < 12; gap++)
				/* In the page, over its end, and by an alias of the page. */
				for (unsigned where = 0; where < 3; where++)
					for (unsigned round = 0; round < 3; round++, n++) {
						uint64_t start = where == 1 ? RIG_CODE + 0x1000 - len - gap - 3 : SITE, imm = start + len + gap + 1;
						uint8_t *p = r.mem + start;
						uint32_t value = 0x00000101 * (round + 1) + gap;

						memcpy(p, stores[s].code, len);
						memset(p + len, 0x90, gap);
						memcpy(p + len + gap, "\xbe\x00\x00\x00\x00\xcd\x80\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90", 17);
						memset(k, 0, sizeof(*k));
						k->rax = value;
						k->rbx = RIG_DATA;
						k->rdi = imm + (where == 2 ? 0x400000 : 0);
						if (run_at(mode, start) != RIG_DONE ||
						    (k->rsi & (strstr(stores[s].name, "al") == stores[s].name + 11 ? 0xff : 0xffff)) !=
							    (value & (!strcmp(stores[s].name, "mov [rdi], al") ? 0xff : 0xffff))) {
							if (!wrong++)
								tap_diag("%s, gap %u, place %u, round %u: %llx, not %x", rig_mode_names[mode], gap, where, round,
									 (long long)k->rsi, value);
						}
					}
		snprintf(name, sizeof(name), "%s", stores[s].name);
		for (char *p = name; *p; p++)
			if (*p == '\n')
				*p = ';';
		tap_ok(!wrong, "patched by %s, the next instruction is the new one: %u", name, n);
	}
}

/* ---- loops ----------------------------------------------------------------------------------------------------------- */

/* A routine (R8) that is patched each round, far away, and called. Sum of 1 to 200. */
GUEST(call_patched, "xor eax, eax\n mov ecx, 1\n 1: mov [r9 + 1], ecx\n call r8\n add eax, edx\n inc ecx\n cmp ecx, 200\n jbe 1b\n int 0x80");
/* A branch whose condition is flipped each round: JZ, JNZ. */
GUEST(flip_branch, "xor eax, eax\n mov ecx, 100\n lea rdi, [rip + 2f]\n 1: xor byte ptr [rdi], 1\n test ecx, 0\n 2: jz 3f\n inc eax\n 3: dec ecx\n"
		   "jnz 1b\n int 0x80");
/* A chained block far behind in the loop is patched: MOV EDX, imm, then the sum. */
GUEST(patch_ahead, "xor eax, eax\n mov ecx, 300\n lea rdi, [rip + 9f + 1]\n 1: mov [rdi], ecx\n test cl, 1\n jz 4f\n nop\n 4: test cl, 2\n jz 5f\n nop\n"
		   "5: jmp 6f\n .fill 64, 1, 0x90\n 6: test cl, 4\n jz 9f\n nop\n 9: mov edx, 0\n add eax, edx\n dec ecx\n jnz 1b\n int 0x80");

static void loops(void)
{
	static const uint8_t routine[] = { 0xba, 0, 0, 0, 0, 0xc3 };
	struct kvm_regs *k = &r.cpu[0].regs;
	static const char *const names[] = { "its page", "another page", "an alias" };
	int reason;

	for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
		for (unsigned where = 0; where < 3; where++) {
			uint64_t at = where == 0 ? SITE + 0x100 : RIG_CODE + 0x3ffd; /* the latter over a page's end */

			RIG_LOAD(&r, SITE, call_patched);
			memcpy(r.mem + at, routine, 6);
			memset(k, 0, sizeof(*k));
			k->r8 = at;
			k->r9 = at + (where == 2 ? 0x400000 : 0);
			reason = run_at(mode, SITE);
			tap_ok(reason == RIG_DONE && (uint32_t)k->rax == 20100, "%s: a routine in %s, patched each round: %u", rig_mode_names[mode],
			       names[where], (unsigned)k->rax);
		}
		RIG_LOAD(&r, SITE, flip_branch);
		memset(k, 0, sizeof(*k));
		reason = run_at(mode, SITE);
		tap_ok(reason == RIG_DONE && k->rax == 50, "%s: a branch whose condition is flipped each round: %u", rig_mode_names[mode],
		       (unsigned)k->rax);
		RIG_LOAD(&r, SITE, patch_ahead);
		memset(k, 0, sizeof(*k));
		reason = run_at(mode, SITE);
		tap_ok(reason == RIG_DONE && k->rax == 45150, "%s: a block some branches ahead, patched each round: %u", rig_mode_names[mode],
		       (unsigned)k->rax);
	}
}

/* ---- the client ------------------------------------------------------------------------------------------------------- */

/* With what a kernel does before it uses a page that it had read for something new. */
GUEST(ask_client, "1: mov eax, 0x1111\n add ecx, eax\n out 0x80, al\n invlpg [rip]\n invlpg [r8]\n mov eax, 0x2222\n add ecx, eax\n call r8\n out 0x81, al\n jmp 1b");
GUEST(ask_client_cr3, "1: mov eax, 0x1111\n add ecx, eax\n out 0x80, al\n mov rdx, cr3\n mov cr3, rdx\n mov eax, 0x2222\n add ecx, eax\n call r8\n out 0x81, al\n"
		      "jmp 1b");
GUEST(ask_client_regs, "1: mov eax, 0x1111\n add ecx, eax\n out 0x80, al\n mov eax, 0x2222\n add ecx, eax\n call r8\n out 0x81, al\n jmp 1b");

/* While the vCPU waits for the client (as for a disk's DMA), code that ran before is written. */
static void by_client(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
	} ways[] = { { "INVLPG", guest_ask_client, guest_ask_client_end },
		     { "a CR3 load", guest_ask_client_cr3, guest_ask_client_cr3_end },
		     { "KVM_SET_REGS", guest_ask_client_regs, guest_ask_client_regs_end } };
	struct rig_cpu *c = &r.cpu[0];

	for (unsigned way = 0; way < 3; way++) {
		unsigned wrong = 0, size = ways[way].end - ways[way].code;
		uint8_t *patch = memmem(ways[way].code, size, "\xb8\x22\x22", 3);

		memcpy(r.mem + SITE, ways[way].code, size);
		memcpy(r.mem + RIG_CODE + 0x2000, "\xbb\x00\x00\x00\x00\xc3", 6);
		rig_mode(&r, 0, RIG_K64);
		c->regs.rip = SITE;
		c->regs.r8 = RIG_CODE + 0x2000;
		for (unsigned i = 0; i < 50; i++) {
			uint32_t v = i * 3 + 1, w = i * 5 + 2;
			int reason = i ? rig_again(&r, 0) : rig_go(&r, 0);

			if (reason != KVM_EXIT_IO || c->run->io.port != 0x80) {
				rig_diag(&r, 0, "first stop", reason);
				wrong++;
				break;
			}
			memcpy(r.mem + SITE + (patch - ways[way].code) + 1, &v, 4);
			memcpy(r.mem + RIG_CODE + 0x2001, &w, 4);
			if (way == 2) {
				/* Finish the OUT, then continue from where that is. */
				c->run->immediate_exit = 1;
				trine_ioctl(c->fd, KVM_RUN, 0);
				c->run->immediate_exit = 0;
				trine_ioctl(c->fd, KVM_GET_REGS, &c->regs);
				reason = rig_go(&r, 0);
			} else {
				reason = rig_again(&r, 0);
			}
			if (reason != KVM_EXIT_IO || c->run->io.port != 0x81 || (uint32_t)c->regs.rax != v || (uint32_t)c->regs.rbx != w)
				wrong++;
		}
		tap_ok(!wrong, "code that the client writes between two KVM_RUNs is what runs after %s", ways[way].name);
	}
}

/* ---- another vCPU: text_poke --------------------------------------------------------------------------------------------- */

/* vCPU 0: runs the site until [RBX + 8] is set; CPUID serializes each round, [RBX] counts them. R12 counts in the called routine. */
GUEST(poked, "1: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n inc r13\n push rbx\n xor eax, eax\n cpuid\n pop rbx\n lock inc qword ptr [rbx]\n"
	     "cmp qword ptr [rbx + 8], 0\n je 1b\n int 0x80");
GUEST(poked_routine, "inc r12\n ret");
/* The INT3's handler: at the site, as if the NOP were still there, else stops. */
GUEST(poke_handler, "inc r15\n add qword ptr [rsp], 4\n iretq");
/* vCPU 1: R14 rounds of NOP to CALL and back at RDI; the CALL's bytes are in R8, the NOP's in R9. */
GUEST(poker,
      "1: mov rax, r8\n call 2f\n mov rax, r9\n call 2f\n dec r14\n jnz 1b\n mov qword ptr [rbx + 8], 1\n int 0x80\n"
      "2: mov byte ptr [rdi], 0xcc\n call 3f\n mov rdx, rax\n shr rdx, 8\n mov [rdi + 1], edx\n call 3f\n mov [rdi], al\n call 3f\n ret\n"
      /* Until the other one has gone round twice */
      "3: mov rsi, [rbx]\n 4: pause\n mov rcx, [rbx]\n sub rcx, rsi\n cmp rcx, 2\n jb 4b\n ret");

static void *run_second(void *arg)
{
	return (void *)(intptr_t)rig_go(&r, 1);
}

static void text_poke(void)
{
	uint64_t call = 0xe8 | (uint64_t)(uint32_t)(RIG_CODE + 0x2000 - (SITE + 5)) << 8;
	struct rig_cpu *c = r.cpu;
	pthread_t thread;
	void *second;
	int first;

	RIG_LOAD(&r, SITE, poked);
	RIG_LOAD(&r, RIG_CODE + 0x2000, poked_routine);
	RIG_LOAD(&r, RIG_CODE + 0x5000, poker);
	RIG_LOAD(&r, RIG_HANDLERS, poke_handler);
	rig_gate(&r, 3, RIG_HANDLERS, 1, 3);
	memset(r.mem + RIG_DATA, 0, 64);
	rig_mode(&r, 0, RIG_K64);
	rig_mode(&r, 1, RIG_K64);
	c[0].regs.rip = SITE;
	c[0].regs.rbx = c[1].regs.rbx = RIG_DATA;
	c[1].regs.rip = RIG_CODE + 0x5000;
	c[1].regs.rdi = SITE;
	c[1].regs.r8 = call;
	c[1].regs.r9 = 0x0000441f0fULL;
	c[1].regs.r14 = 40;
	pthread_create(&thread, NULL, run_second, NULL);
	first = rig_go(&r, 0);
	pthread_join(thread, &second);
	if (first != RIG_DONE || (intptr_t)second != RIG_DONE) {
		rig_diag(&r, 0, "first", first);
		rig_diag(&r, 1, "second", (int)(intptr_t)second);
	}
	tap_ok(first == RIG_DONE && (intptr_t)second == RIG_DONE && c[0].regs.r12 >= 40 && c[0].regs.r15 && c[0].regs.r13 > c[0].regs.r12,
	       "NOP to CALL and back by INT3 under another vCPU: %llu rounds, %llu calls, %llu breakpoints", (long long)c[0].regs.r13,
	       (long long)c[0].regs.r12, (long long)c[0].regs.r15);
	rig_gate_default(&r, 3);
}

/* ---- page tables ------------------------------------------------------------------------------------------------------------ */

/* R8: routine; R9: its table entry; R10, R11: the two values of that. Counts 1 and 256 by turns. */
GUEST(remap, "xor eax, eax\n mov ecx, 100\n 1: call r8\n mov [r9], r11\n invlpg [r8]\n call r8\n mov [r9], r10\n invlpg [r8]\n dec ecx\n jnz 1b\n int 0x80");
GUEST(remap_cr3, "xor eax, eax\n mov ecx, 100\n mov rdx, cr3\n 1: call r8\n mov [r9], r11\n mov cr3, rdx\n call r8\n mov [r9], r10\n mov cr3, rdx\n"
		 "dec ecx\n jnz 1b\n int 0x80");
/* The code remaps the page that it runs in: what follows comes from the other one. */
GUEST(remap_self, "mov [r9], r11\n invlpg [r8]\n mov eax, 1\n int 0x80");

/* R8: ADD EAX, imm32, whose immediate is in the next page. R9: that page's table entry, which is R10 and R11 by turns; or the immediate. */
GUEST(remap_half, "xor eax, eax\n mov ecx, 1000\n 1: call r8\n call r8\n mov [r9], r11\n invlpg [r8 + 8]\n call r8\n call r8\n mov [r9], r10\n"
		  "invlpg [r8 + 8]\n dec ecx\n jnz 1b\n int 0x80");
GUEST(store_half, "xor eax, eax\n mov ecx, 1000\n 1: mov [r9], ecx\n call r8\n call r8\n dec ecx\n jnz 1b\n int 0x80");

static void halves(void)
{
	struct kvm_regs *k = &r.cpu[0].regs;
	const uint64_t la = 0x40010000;
	int reason;

	rig_map(&r, la, 0x304000, PTE_ALL);
	rig_map(&r, la + 0x1000, 0x305000, PTE_ALL);
	rig_map(&r, la + 0x5000, 0x305000, PTE_ALL);
	r.mem[0x304fff] = 0x05;
	memcpy(r.mem + 0x305000, "\x01\x00\x00\x00\xc3", 5);
	memcpy(r.mem + 0x306000, "\x00\x01\x00\x00\xc3", 5);
	RIG_LOAD(&r, SITE, remap_half);
	memset(k, 0, sizeof(*k));
	k->r8 = la + 0xfff;
	k->r9 = (uint8_t *)rig_pte(&r, la + 0x1000) - r.mem;
	k->r10 = 0x305000 | PTE_ALL;
	k->r11 = 0x306000 | PTE_ALL;
	reason = run_at(RIG_K64, SITE);
	tap_ok(reason == RIG_DONE && k->rax == 514000, "an instruction's second page remapped each round: %llu", (long long)k->rax);
	for (unsigned alias = 0; alias < 2; alias++) {
		RIG_LOAD(&r, SITE, store_half);
		memset(k, 0, sizeof(*k));
		k->r8 = la + 0xfff;
		k->r9 = la + (alias ? 0x5000 : 0x1000);
		reason = run_at(RIG_K64, SITE);
		tap_ok(reason == RIG_DONE && k->rax == 1001000, "an instruction's second page written each round%s: %llu", alias ? " by an alias" : "",
		       (long long)k->rax);
	}
}

static void remapping(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
	} ways[] = { { "INVLPG", guest_remap, guest_remap_end }, { "a CR3 load", guest_remap_cr3, guest_remap_cr3_end } };
	struct kvm_regs *k = &r.cpu[0].regs;
	const uint64_t la = 0x40000000;
	uint64_t pte;
	int reason;

	rig_map(&r, la, 0x300000, PTE_ALL);
	pte = (uint8_t *)rig_pte(&r, la) - r.mem;
	memcpy(r.mem + 0x300000, "\xff\xc0\xc3", 3);		     /* inc eax; ret */
	memcpy(r.mem + 0x301000, "\x05\x00\x01\x00\x00\xc3", 6); /* add eax, 256; ret */
	for (unsigned i = 0; i < 2; i++) {
		memcpy(r.mem + SITE, ways[i].code, ways[i].end - ways[i].code);
		memset(k, 0, sizeof(*k));
		k->r8 = la;
		k->r9 = pte;
		k->r10 = 0x300000 | PTE_ALL;
		k->r11 = 0x301000 | PTE_ALL;
		reason = run_at(RIG_K64, SITE);
		tap_ok(reason == RIG_DONE && k->rax == 25700, "a code page remapped with %s each round: %llu", ways[i].name, (long long)k->rax);
	}
	RIG_LOAD(&r, 0x302000, remap_self);
	RIG_LOAD(&r, 0x303000, remap_self);
	memcpy(memmem(r.mem + 0x303000, 64, "\xb8\x01", 2), "\xb8\x02", 2);
	rig_map(&r, la + 0x2000, 0x302000, PTE_ALL);
	memset(k, 0, sizeof(*k));
	k->r8 = la + 0x2000;
	k->r9 = (uint8_t *)rig_pte(&r, la + 0x2000) - r.mem;
	k->r11 = 0x303000 | PTE_ALL;
	reason = run_at(RIG_K64, la + 0x2000);
	tap_ok(reason == RIG_DONE && k->rax == 2, "code that remaps its own page goes on in the other one");
}

/* 32-bit user code that patches itself. */
GUEST32(patch32, "xor eax, eax\n mov ecx, 100\n 1: mov [2f - 1b + ebx + 2], cl\n 2: add eax, 0x7f\n dec ecx\n jnz 1b\n int 0x80");

static void compat(void)
{
	struct kvm_regs *k = &r.cpu[0].regs;
	int reason;

	RIG_LOAD(&r, SITE, patch32);
	memset(k, 0, sizeof(*k));
	k->rbx = SITE + 7;
	reason = run_at(RIG_U32, SITE);
	tap_ok(reason == RIG_DONE && k->rax == 5050, "32-bit user code that patches itself: %u", (unsigned)k->rax);
}

/* ---- pages that keep being patched ------------------------------------------------------------------------------------------ */

#define ROUTINE (RIG_CODE + 0x3000)

/* The translator's counters of the VM; 0 where there is no translator. */
static long counted(const char *name)
{
	static int fd;
	struct kvm_stats_header h;
	long value = 0;
	char buf[256];

	if (!fd)
		fd = (int)trine_ioctl(r.vm, KVM_GET_STATS_FD, 0);
	if (pread(fd, &h, sizeof(h), 0) != sizeof(h))
		return -1;
	for (unsigned i = 0; i < h.num_desc; i++) {
		struct kvm_stats_desc *d = (void *)buf;
		size_t size = sizeof(*d) + h.name_size;

		if (size > sizeof(buf) || pread(fd, buf, size, (off_t)(h.desc_offset + i * size)) != (ssize_t)size)
			return -1;
		if (!strcmp(d->name, name) && pread(fd, &value, 8, (off_t)(h.data_offset + d->offset)) == 8)
			return value;
	}
	return -1;
}

static bool translates(void)
{
	const char *options = getenv("TRINE_LITE");

	return !options || !strstr(options, "engine=interp");
}

/* One line a form: its text, the bytes of its immediate, which ends it, the flags that mean something. */
#define NO_AF 0x8c5
#define FORMS(X) \
	X(add_eax, "add eax, 0x12345678", 4, NO_AF) X(add_rax, "add rax, 0x12345678", 4, NO_AF) X(adc_rax, "adc rax, 0x12345678", 4, NO_AF) \
	X(adc_edx, "adc edx, 0x12345678", 4, NO_AF) X(sbb_rdx, "sbb rdx, 0x12345678", 4, NO_AF) X(and_rdx, "and rdx, 0x12345678", 4, NO_AF) \
	X(or_r9, "or r9, 0x12345678", 4, NO_AF) X(xor_r9d, "xor r9d, 0x12345678", 4, NO_AF) X(cmp_rax, "cmp rax, 0x12345678", 4, NO_AF) \
	X(cmp_r9d, "cmp r9d, 0x12345678", 4, NO_AF) X(sub_ax, "sub ax, 0x1234", 2, NO_AF) X(add_r9w, "add r9w, 0x1234", 2, NO_AF) \
	X(add_al, "add al, 0x12", 1, NO_AF) X(xor_dl, "xor dl, 0x12", 1, NO_AF) X(sub_r9b, "sub r9b, 0x12", 1, NO_AF) \
	X(add_rax_8, "add rax, 0x12", 1, NO_AF) X(add_eax_8, "add eax, 0x12", 1, NO_AF) X(sbb_dx_8, "sbb dx, 0x12", 1, NO_AF) \
	X(cmp_r9_8, "cmp r9, 0x12", 1, NO_AF) X(test_eax, "test eax, 0x12345678", 4, NO_AF) X(test_rdx, "test rdx, 0x12345678", 4, NO_AF) \
	X(test_r9, "test r9, 0x12345678", 4, NO_AF) X(test_dl, "test dl, 0x12", 1, NO_AF) X(test_ax, "test ax, 0x1234", 2, NO_AF) \
	X(mov_eax, "mov eax, 0x12345678", 4, NO_AF) X(mov_r9d, "mov r9d, 0x12345678", 4, NO_AF) X(mov_rdx, "mov rdx, 0x12345678", 4, NO_AF) \
	X(mov_rax_64, "movabs rax, 0x123456789abcdef0", 8, NO_AF) X(mov_r9_64, "movabs r9, 0x123456789abcdef0", 8, NO_AF) \
	X(mov_ax, "mov ax, 0x1234", 2, NO_AF) X(mov_r9w, "mov r9w, 0x1234", 2, NO_AF) X(mov_dl, "mov dl, 0x12", 1, NO_AF) \
	X(mov_r9b, "mov r9b, 0x12", 1, NO_AF) X(mov_mem, "mov dword ptr [rdi], 0x12345678", 4, NO_AF) \
	X(mov_mem_64, "mov qword ptr [rdi], 0x12345678", 4, NO_AF) X(mov_mem_8, "mov byte ptr [rdi], 0x12", 1, NO_AF) \
	X(mov_mem_16, "mov word ptr [rdi], 0x1234", 2, NO_AF) X(add_mem, "add dword ptr [rdi], 0x12345678", 4, NO_AF) \
	X(add_mem_64, "add qword ptr [rdi], 0x12", 1, NO_AF) X(adc_mem_16, "adc word ptr [rdi], 0x1234", 2, NO_AF) \
	X(adc_mem_8, "adc byte ptr [rdi], 0x12", 1, NO_AF) X(cmp_mem, "cmp qword ptr [rdi], 0x12345678", 4, NO_AF) \
	X(cmp_mem_index, "xor eax, eax\n cmp dword ptr [rdi + rax * 2], 0x12", 1, NO_AF) X(test_mem, "test byte ptr [rdi], 0x12", 1, NO_AF) \
	X(two, "add rax, 0x11223344\n mov r9, rdx\n xadd r9, r9\n or rax, 0x12345678", 4, NO_AF) \
	X(three, "mov r8, rax\n mov r9, rdx\n mov r10, rax\n add r8, r9\n xchg r8, r10\n add r10, r9\n mov rax, r10\n sub rax, 0x12345678", 4, NO_AF) \
	/* These are compared. */ \
	X(lock_add, "lock add dword ptr [rdi], 0x12345678", 4, NO_AF) X(imul, "imul rax, rdx, 0x12345678", 4, 0x801) X(shl, "shl rax, 0x12", 1, 0) \
	X(add_ah, "add ah, 0x12", 1, NO_AF) X(lea, "lea rax, [rdx + 0x12345678]", 4, NO_AF) X(bt, "bt rdx, 0x12", 1, 1)
#define DEFINE_FORM(id, text, size, flags) GUEST(form_##id, text "\n ret");
FORMS(DEFINE_FORM)
GUEST(form_push, "push 0x12345678\n pop rax\n ret");
GUEST(form_push_8, "push 0x12\n pop rax\n ret");

static const struct form {
	const char *name;
	const uint8_t *code, *end;
	unsigned size, behind; /* of the immediate; bytes behind it */
	uint32_t flags;
} forms[] = {
#define FORM_ENTRY(id, text, size, flags) { text, guest_form_##id, guest_form_##id##_end, size, 1, flags },
	FORMS(FORM_ENTRY)
	{ "push 0x12345678", guest_form_push, guest_form_push_end, 4, 2, NO_AF },
	{ "push 0x12", guest_form_push_8, guest_form_push_8_end, 1, 2, NO_AF },
};

struct form_result {
	uint64_t rax, rdx, r9, mem, flags;
};

/*
 * Calls the routine at R12 R11D times, each after a store of the next of the values at RSI to R10, EBP bytes; registers from R13 on, results to RBX
 * on. RCX and R8 are free.
 */
GUEST(form_driver, "1: mov rcx, [rsi]\n cmp ebp, 2\n jb 2f\n je 3f\n cmp ebp, 4\n je 4f\n mov [r10], rcx\n jmp 5f\n 2: mov [r10], cl\n jmp 5f\n"
		   "3: mov [r10], cx\n jmp 5f\n 4: mov [r10], ecx\n 5: mov rax, [r13]\n mov rdx, [r13 + 8]\n mov r9, [r13 + 16]\n mov rcx, [r13 + 24]\n"
		   "mov [rdi], rcx\n push r10\n push rbp\n mov ecx, r11d\n and ecx, 1\n neg ecx\n call r12\n pushfq\n pop r14\n pop rbp\n pop r10\n mov [rbx], rax\n mov [rbx + 8], rdx\n"
		   "mov [rbx + 16], r9\n mov rcx, [rdi]\n mov [rbx + 24], rcx\n mov [rbx + 32], r14\n add rbx, 40\n add rsi, 8\n dec r11d\n jnz 1b\n int 0x80");

#define FORM_ROUNDS 150

/* What the processor makes of it. */
static void form_native(const uint8_t *code, bool carry, const uint64_t in[4], uint64_t *mem, struct form_result *out)
{
	register uint64_t r9 __asm__("r9") = in[2];
	uint64_t rax = in[0], rdx = in[1], flags, set = carry;

	*mem = in[3];
	__asm__ volatile("lea -128(%%rsp), %%rsp\n neg %k[carry]\n call *%[code]\n pushfq\n pop %[flags]\n lea 128(%%rsp), %%rsp"
			 : "+a"(rax), "+d"(rdx), "+r"(r9), [flags] "=&r"(flags), [carry] "+S"(set)
			 : [code] "b"(code), "D"(mem)
			 : "rcx", "r8", "r10", "r11", "cc", "memory");
	*out = (struct form_result){ rax, rdx, r9, *mem, flags };
}

static void immediates(void)
{
	static const uint64_t in[4] = { 0x8123456789abcdef, 0x7fffffff00000001, 0xf0f0f0f0a5a5a5a5, 0x80000000ffff7fff };
	uint8_t *native = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t mem, values[FORM_ROUNDS], state = 1;
	struct form_result want, got;
	struct kvm_regs *k = &r.cpu[0].regs;

	for (unsigned f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
		const struct form *form = &forms[f];
		unsigned len = form->end - form->code, at = len - form->behind - form->size, wrong = 0;

		for (unsigned i = 0; i < FORM_ROUNDS; i++) {
			state = state * 6364136223846793005 + 1442695040888963407;
			values[i] = i % 8 == 0 ? i / 8 : i % 8 == 1 ? ~0ULL >> i / 8 : state >> 7 ^ state << 32;
		}
		for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
			memcpy(native, form->code, len);
			memcpy(r.mem + ROUTINE + f * 16, form->code, len);
			RIG_LOAD(&r, SITE, form_driver);
			memcpy(r.mem + RIG_DATA, in, sizeof(in));
			memcpy(r.mem + RIG_DATA + 0x100, values, sizeof(values));
			memset(k, 0, sizeof(*k));
			k->r11 = FORM_ROUNDS;
			k->r12 = ROUTINE + f * 16;
			k->r10 = k->r12 + at;
			k->rbp = form->size;
			k->rsi = RIG_DATA + 0x100;
			k->rbx = RIG_FREE;
			k->r13 = RIG_DATA;
			k->rdi = RIG_DATA + 0x80;
			if (run_at(mode, SITE) != RIG_DONE)
				wrong++;
			for (unsigned i = 0; i < FORM_ROUNDS; i++) {
				memcpy(native + at, &values[i], form->size);
				form_native(native, (FORM_ROUNDS - i) & 1, in, &mem, &want);
				memcpy(&got, r.mem + RIG_FREE + i * sizeof(got), sizeof(got));
				if ((want.rax != got.rax || want.rdx != got.rdx || want.r9 != got.r9 || want.mem != got.mem ||
				     ((want.flags ^ got.flags) & form->flags)) &&
				    !wrong++)
					tap_diag("%s, round %u, %llx: rax %llx/%llx rdx %llx/%llx r9 %llx/%llx memory %llx/%llx flags %llx/%llx", rig_mode_names[mode], i,
						 (long long)values[i], (long long)want.rax, (long long)got.rax, (long long)want.rdx, (long long)got.rdx,
						 (long long)want.r9, (long long)got.r9, (long long)want.mem, (long long)got.mem, (long long)want.flags,
						 (long long)got.flags);
			}
		}
		tap_ok(!wrong, "an immediate that is patched %u times: %.*s", FORM_ROUNDS, (int)strcspn(form->name, "\n"), form->name);
	}
	munmap(native, 4096);
}

/* The routine at R8, INC EAX or DEC EAX by turns: R9 is the byte that says which. R10: called by that address as well. */
GUEST(flip_opcode, "xor eax, eax\n mov ecx, 301\n 1: xor byte ptr [r9], 8\n call r8\n call r10\n dec ecx\n jnz 1b\n int 0x80");
/* ADC EAX, 0 and NOP by turns, right behind what sets CF; in a block that begins there, and that did not need the flags. */
GUEST(flip_adc, "xor eax, eax\n mov ecx, 200\n lea rdi, [rip + 2f]\n mov edx, 0x9000d083\n mov ebx, 0x00401f0f\n 1: xchg edx, ebx\n cmp ecx, 1000\n mov [rdi], edx\n"
		"2: nop dword ptr [rax]\n nop\n inc esi\n dec ecx\n jnz 1b\n int 0x80");
/* Data beside code: a counter in the page that the loop is in. */
GUEST(count_beside, "xor eax, eax\n mov ecx, 20000\n 1: add [rip + 2f], eax\n inc eax\n dec ecx\n jnz 1b\n mov rax, [rip + 2f]\n int 0x80\n 2: .quad 0");
/* Code on the stack, written, called and overwritten by pushes: MOV EAX, [counter]; RET. */
GUEST(on_stack, "xor ebx, ebx\n mov ecx, 400\n 1: mov rax, 0xc300000000b8\n mov edx, ecx\n shl rdx, 8\n or rax, rdx\n push rax\n call rsp\n add ebx, eax\n pop rdx\n push rcx\n"
		"pop rdx\n dec ecx\n jnz 1b\n int 0x80");
/* As call_patched, for ever: stops each round. */
GUEST(rounds, "1: out 0x80, al\n call r8\n add ebx, edx\n jmp 1b");

/* Makes @page one that keeps being patched: call_patched's routine at its end. */
static bool heat(uint64_t page)
{
	static const uint8_t routine[] = { 0xba, 0, 0, 0, 0, 0xc3 };
	struct kvm_regs *k = &r.cpu[0].regs;

	memcpy(r.mem + page + 0xff0, routine, 6);
	RIG_LOAD(&r, RIG_CODE + 0x7000, call_patched);
	memset(k, 0, sizeof(*k));
	k->r8 = k->r9 = page + 0xff0;
	return run_at(RIG_K64, RIG_CODE + 0x7000) == RIG_DONE && (uint32_t)k->rax == 20100;
}

static void patched_pages(void)
{
	struct kvm_regs *k = &r.cpu[0].regs;
	int reason;

	for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
		for (unsigned alias = 0; alias < 2; alias++) {
			RIG_LOAD(&r, SITE, flip_opcode);
			memcpy(r.mem + ROUTINE, "\xff\xc0\xc3", 3);
			memset(k, 0, sizeof(*k));
			k->r8 = ROUTINE;
			k->r9 = ROUTINE + 1;
			k->r10 = ROUTINE + (alias ? 0x400000 : 0);
			reason = run_at(mode, SITE);
			tap_ok(reason == RIG_DONE && (int)k->rax == -2, "%s: an opcode that changes each round%s: %d", rig_mode_names[mode],
			       alias ? ", run by two addresses" : "", (int)k->rax);
		}
		RIG_LOAD(&r, SITE, flip_adc);
		memset(k, 0, sizeof(*k));
		reason = run_at(mode, SITE);
		tap_ok(reason == RIG_DONE && k->rax == 100 && k->rsi == 200, "%s: flags that the new code needs and the old did not: %llu", rig_mode_names[mode],
		       (long long)k->rax);
		RIG_LOAD(&r, SITE, count_beside);
		memset(k, 0, sizeof(*k));
		reason = run_at(mode, SITE);
		tap_ok(reason == RIG_DONE && (uint32_t)k->rax == 199990000, "%s: data beside code: %u", rig_mode_names[mode], (unsigned)k->rax);
		RIG_LOAD(&r, SITE, on_stack);
		memset(k, 0, sizeof(*k));
		reason = run_at(mode, SITE);
		tap_ok(reason == RIG_DONE && k->rbx == 80200, "%s: code on the stack: %llu", rig_mode_names[mode], (long long)k->rbx);
	}

	tap_ok(heat(RIG_CODE + 0x4000), "a page that is patched all the time");
	tap_ok(!translates() || counted("lite_pages_checked") > 0, "checks itself");
}

/* The client, without INVLPG or anything else, patches a page that checks itself: immediate and opcode. */
static void client_patches(void)
{
	struct rig_cpu *c = &r.cpu[0];
	unsigned wrong = 0;

	if (!translates())
		return;
	heat(RIG_CODE + 0x4000);
	RIG_LOAD(&r, SITE, rounds);
	memcpy(r.mem + RIG_CODE + 0x4000, "\xba\x00\x00\x00\x00\xc3", 6);
	memset(&c->regs, 0, sizeof(c->regs));
	c->regs.r8 = RIG_CODE + 0x4000;
	for (unsigned i = 0, sum = 0; i < 60; i++) {
		int reason = i ? rig_again(&r, 0) : run_at(RIG_K64, SITE);

		if (reason != KVM_EXIT_IO || (uint32_t)c->regs.rbx != sum) {
			wrong++;
			break;
		}
		if (i % 3 == 2) {
			memcpy(r.mem + RIG_CODE + 0x4000, "\x6a\x05\x5a\xc3\x90\x90", 6); /* push 5; pop rdx; ret */
			sum += 5;
		} else {
			uint32_t v = i * 7;

			memcpy(r.mem + RIG_CODE + 0x4000, "\xba\x00\x00\x00\x00\xc3", 6);
			memcpy(r.mem + RIG_CODE + 0x4001, &v, 4);
			sum += v;
		}
	}
	tap_ok(!wrong, "what the client patches between two KVM_RUNs is what runs, where the guest patches as well");
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* A compiler has done its work. */
static void settles(void)
{
	struct rig_cpu *c = &r.cpu[0];
	long before = counted("lite_pages_settled");
	double end = seconds() + 10;
	unsigned wrong = 0, rounds = 0;

	if (!translates())
		return;
	heat(RIG_CODE + 0x4000);
	memcpy(r.mem + RIG_CODE + 0x4000 + SITE - RIG_CODE, guest_rounds, guest_rounds_end - guest_rounds);
	memset(&c->regs, 0, sizeof(c->regs));
	c->regs.r8 = RIG_CODE + 0x4ff0;
	memcpy(r.mem + RIG_CODE + 0x4ff0, "\xba\x03\x00\x00\x00\xc3", 6);
	for (; counted("lite_pages_settled") == before && seconds() < end; rounds++)
		if ((rounds ? rig_again(&r, 0) : run_at(RIG_K64, SITE + 0x4000)) != KVM_EXIT_IO || (uint32_t)c->regs.rbx != rounds * 3)
			wrong++;
	tap_ok(!wrong && counted("lite_pages_settled") > before, "code that is no longer patched does not check itself for ever: %u rounds", rounds);
	before = counted("lite_pages_checked");
	tap_ok(heat(RIG_CODE + 0x4000) && heat(RIG_CODE + 0x4000) && counted("lite_pages_checked") > before, "until it is patched again");
}

/* vCPU 0 calls R8 once each time that [RBX] is odd, after CPUID, and adds up what it gives; vCPU 1 patches the immediate, and an opcode each eighth time. */
GUEST(patched_by_other, "xor r12d, r12d\n 1: mov rax, [rbx]\n test al, 1\n jnz 2f\n pause\n jmp 1b\n 2: push rbx\n xor eax, eax\n cpuid\n pop rbx\n call r8\n add r12, rdx\n"
			"lock inc qword ptr [rbx]\n dec r14d\n jnz 1b\n int 0x80");
GUEST(patches_other, "mov r12, 0\n 1: mov [r8 + 1], r14d\n mov al, 0xba\n mov edx, r14d\n test r14b, 7\n jnz 2f\n mov al, 0x68\n 2: mov [r8], al\n add r12, rdx\n"
		     "lock inc qword ptr [rbx]\n 3: pause\n mov rax, [rbx]\n test al, 1\n jnz 3b\n dec r14d\n jnz 1b\n int 0x80");

static void other_patches(void)
{
	struct rig_cpu *c = r.cpu;
	pthread_t thread;
	void *second;
	int first;

	heat(RIG_CODE + 0x4000);
	RIG_LOAD(&r, SITE, patched_by_other);
	RIG_LOAD(&r, RIG_CODE + 0x5000, patches_other);
	/* mov edx, imm32, or push imm32; then what makes both the same: push rdx; pop rdx, or pop rdx. */
	memcpy(r.mem + RIG_CODE + 0x4100, "\xba\x00\x00\x00\x00\x80\x3d\xf4\xff\xff\xff\xba\x74\x01\x5a\xc3", 16); /* cmp byte [start], 0xba; je ret; pop rdx; ret */
	memset(r.mem + RIG_DATA, 0, 64);
	rig_mode(&r, 0, RIG_K64);
	rig_mode(&r, 1, RIG_K64);
	c[0].regs.rip = SITE;
	c[1].regs.rip = RIG_CODE + 0x5000;
	c[0].regs.r8 = c[1].regs.r8 = RIG_CODE + 0x4100;
	c[0].regs.rbx = c[1].regs.rbx = RIG_DATA;
	c[0].regs.r14 = c[1].regs.r14 = 300;
	pthread_create(&thread, NULL, run_second, NULL);
	first = rig_go(&r, 0);
	pthread_join(thread, &second);
	if (first != RIG_DONE || (intptr_t)second != RIG_DONE) {
		rig_diag(&r, 0, "first", first);
		rig_diag(&r, 1, "second", (int)(intptr_t)second);
	}
	tap_ok(first == RIG_DONE && (intptr_t)second == RIG_DONE && c[0].regs.r12 == 300 * 301 / 2 && c[1].regs.r12 == c[0].regs.r12,
	       "patched by another vCPU 300 times: %llu", (long long)c[0].regs.r12);
}

/* ---- returns that are none, and others ------------------------------------------------------------------------------ */

/* RCX rounds each. The result is in RAX; RBX: a page of data with a large stack behind it. */
#define ROUNDS 3000
#define RETURNS(X) \
	X(plain, 3 * ROUNDS, "1: call 2f\n add eax, 2\n dec ecx\n jnz 1b\n int 0x80\n 2: inc eax\n ret") \
	X(rewritten, 5 * ROUNDS, "1: call 2f\n add eax, 2\n 3: add eax, 4\n dec ecx\n jnz 1b\n int 0x80\n" \
	  "2: inc eax\n lea rdx, [rip + 3b]\n mov [rsp], rdx\n ret") \
	X(popped, 4 * ROUNDS, "1: call 2f\n add eax, 2\n 3: add eax, 3\n dec ecx\n jnz 1b\n int 0x80\n 2: inc eax\n pop rdx\n jmp 3b") \
	X(by_register, 3 * ROUNDS, "1: call 2f\n add eax, 2\n dec ecx\n jnz 1b\n int 0x80\n 2: inc eax\n pop rdx\n jmp rdx") \
	X(pushed, 3 * ROUNDS, "1: lea rdx, [rip + 3f]\n push rdx\n jmp 2f\n 3: add eax, 2\n dec ecx\n jnz 1b\n int 0x80\n 2: inc eax\n ret") \
	X(thunk, 3 * ROUNDS, "lea rdx, [rip + 2f]\n 1: call 4f\n add eax, 2\n dec ecx\n jnz 1b\n int 0x80\n 2: inc eax\n ret\n" \
	  "4: call 5f\n 6: pause\n jmp 6b\n 5: mov [rsp], rdx\n ret") \
	X(released, 3 * ROUNDS, "1: push 77\n call 2f\n add eax, 2\n dec ecx\n jnz 1b\n int 0x80\n 2: inc eax\n ret 8") \
	X(far_away, 3 * ROUNDS, "1: mov ebp, 40\n mov rdi, rsp\n call 2f\n add eax, 1000000\n 3: mov rsp, rdi\n add eax, 3\n dec ecx\n jnz 1b\n int 0x80\n" \
	  "2: dec ebp\n jz 3b\n call 2b\n inc eax\n ret") \
	X(deep, 600 * ROUNDS, "1: mov ebp, 600\n call 2f\n dec ecx\n jnz 1b\n int 0x80\n 2: dec ebp\n jz 4f\n call 2b\n inc eax\n ret\n 4: inc eax\n ret") \
	X(two_stacks, 3 * ROUNDS, "lea rdi, [rbx + 0x800]\n lea rdx, [rip + 5f]\n mov [rdi], rdx\n 1: call 4f\n inc eax\n dec ecx\n jnz 1b\n int 0x80\n" \
	  "4: xchg rsp, rdi\n ret\n 5: add eax, 2\n call 4b\n jmp 5b") \
	X(one_for_two, 4 * ROUNDS, "1: test ecx, 1\n jz 3f\n add eax, 2\n 3: inc eax\n call 2f\n inc eax\n dec ecx\n jnz 1b\n int 0x80\n 2: inc eax\n ret") \
	X(to_itself, ROUNDS, "1: lea rdx, [rip + 2f]\n call 2f\n 2: inc eax\n dec ecx\n jz 3f\n mov rsp, rbx\n push rdx\n push rdx\n ret\n 3: int 0x80") \
	X(patched_behind, 3 * ROUNDS, "lea rdx, [rip + 3f + 2]\n 1: call 2f\n 3: add eax, 0x7f\n dec ecx\n jnz 1b\n int 0x80\n" \
	  "2: inc eax\n mov byte ptr [rdx], 2\n ret") \
	X(patched_in_turn, 2 * ROUNDS, "lea rdx, [rip + 3f + 2]\n mov edi, 1\n 1: call 2f\n 3: add eax, 0x7f\n dec ecx\n jnz 1b\n int 0x80\n" \
	  "2: mov [rdx], dil\n xor edi, 2\n ret") \
	X(callee_patched, 2 * ROUNDS, "lea rdx, [rip + 2f + 2]\n mov edi, 1\n 1: mov [rdx], dil\n xor edi, 2\n call 2f\n dec ecx\n jnz 1b\n int 0x80\n" \
	  "2: add eax, 0x7f\n ret")

#define DEFINE_RETURN(id, want, text) GUEST(return_##id, text);
RETURNS(DEFINE_RETURN)
static const struct {
	const char *name;
	uint32_t want;
	const uint8_t *code, *end;
} returns[] = {
#define RETURN_ENTRY(id, want, text) { #id, want, guest_return_##id, guest_return_##id##_end },
	RETURNS(RETURN_ENTRY)
};

static void other_returns(void)
{
	struct kvm_regs *k = &r.cpu[0].regs;

	for (unsigned i = 0; i < 2 * sizeof(returns) / sizeof(returns[0]); i++) {
		unsigned n = i / 2, reason;

		memcpy(r.mem + SITE, returns[n].code, returns[n].end - returns[n].code);
		memset(k, 0, sizeof(*k));
		k->rcx = ROUNDS;
		k->rbx = RIG_DATA + 0xe000;
		k->rsp = RIG_DATA + 0xe000;
		reason = run_at(i & 1 ? RIG_U64 : RIG_K64, SITE);
		tap_ok(reason == RIG_DONE && k->rax == returns[n].want, "returns, %s, %s: %llu of %u", returns[n].name, i & 1 ? "user" : "kernel", (long long)k->rax,
		       returns[n].want);
	}
}

int main(void)
{
	tap_begin();
	if (!rig_make(&r, 2))
		return tap_end();
	for (uint64_t at = RIG_CODE; at < RIG_CODE + 0x8000; at += 0x1000)
		rig_map(&r, at + 0x400000, at, PTE_ALL);
	next_instruction();
	other_returns();
	loops();
	by_client();
	text_poke();
	remapping();
	halves();
	compat();
	immediates();
	patched_pages();
	client_patches();
	other_patches();
	settles();
	/* The same again where everything is patched all the time. */
	for (uint64_t at = RIG_CODE; at < RIG_CODE + 0x8000; at += 0x1000)
		heat(at);
	loops();
	by_client();
	text_poke();
	rig_free(&r);
	return tap_end();
}
