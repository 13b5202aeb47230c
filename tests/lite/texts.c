/*
 * Kernel code in large global pages (engines/lite/text.h): branches from page to page that are linked must lead to where they would have led
 * without, whatever the guest does to the pages: patches, maps others, maps them twice, or elsewhere for another vCPU.
 */
#include <pthread.h>
#include <unistd.h>

#include "tests/lite/rig.h"

static struct rig r;

/* The first text is frame X; the second Y or Z. Y and Z are alike but for what they add. */
#define TEXT  0x40000000UL
#define LARGE 0x200000UL
#define X     0x200000UL
#define Y     0x400000UL
#define Z     0x600000UL
#define CR3_2 0x7ff000UL /* a word that nothing else uses */
#define ENTRY (PTE_P | PTE_W | PTE_PS | PTE_G)

/* Offsets in the first text that its code calls, and, LARGE more, in the second. */
#define NEAR_F 0x3000
#define FAR_G  0x201000

/* At the beginning of the first text, which label 0 is. */
#define TEXT_GUEST(name, text) GUEST(name, "0:" text)
TEXT_GUEST(calls, "xor eax, eax\n 1: call 0b + 0x3000\n call 0b + 0x201000\n dec ecx\n jnz 1b\n int 0x80");
/* F, and what it jumps back to; flags are as they were: the carry is added. */
GUEST(f, "stc\n 0: jmp 0b - 0x1801\n");
GUEST(f2, "adc eax, 0\n ret");
GUEST(g, "add eax, 0x100\n ret");
GUEST(g2, "add eax, 0x10000\n ret");
/* R9: the second text's entry, which is R10 and R11 by turns. */
TEXT_GUEST(by_invlpg, "xor eax, eax\n 1: call 0b + 0x201000\n mov [r9], r11\n invlpg [r8]\n xchg r10, r11\n dec ecx\n jnz 1b\n int 0x80");
TEXT_GUEST(by_pge, "xor eax, eax\n mov rdx, cr4\n mov rbx, rdx\n xor rbx, 0x80\n 1: call 0b + 0x201000\n mov [r9], r11\n mov cr4, rbx\n mov cr4, rdx\n"
		   "xchg r10, r11\n dec ecx\n jnz 1b\n int 0x80");
/* CR3 (RDX) is loaded in between, which global pages do not mind. */
TEXT_GUEST(by_cr3, "xor eax, eax\n 1: call 0b + 0x201000\n mov cr3, rdx\n call 0b + 0x3000\n dec ecx\n jnz 1b\n int 0x80");
/* R9: G's immediate, another each time. */
TEXT_GUEST(stores, "xor eax, eax\n 1: mov [r9], ecx\n call 0b + 0x201000\n call 0b + 0x201000\n dec ecx\n jnz 1b\n int 0x80");
/* F is where it is. */
TEXT_GUEST(where, "mov ecx, 50\n 1: call 0b + 0x3000\n dec ecx\n jnz 1b\n int 0x80");
GUEST(here, "lea rax, [rip]\n ret");
/* Flags for what is called, here and by a register, and from it; memory is gone to in between, which must not cost them. */
TEXT_GUEST(flags, "xor eax, eax\n 1: stc\n push rax\n call 0b + 0x201000\n call 0b + 0x3000\n pop rdx\n adc eax, 0\n stc\n push rax\n call r9\n pop rdx\n"
		  "dec ecx\n jnz 1b\n int 0x80");
GUEST(takes, "mov rdx, [rsp]\n adc eax, 0x100\n ret");
GUEST(gives, "push rax\n stc\n pop rdx\n mov [rsp - 8], rdx\n ret");
/* F until [R8] is not 0, then G. */
TEXT_GUEST(waits, "1: call 0b + 0x3000\n cmp dword ptr [r8], 0\n je 1b\n xor eax, eax\n 2: call 0b + 0x201000\n dec ecx\n jnz 2b\n int 0x80");
/*
 * Round and round, through F, until that is another instruction; [R8] says that it has begun. The other vCPU first makes code at R10, which it
 * wrote: that has to wait for all who might write there, too.
 */
TEXT_GUEST(round, "mov dword ptr [r8], 1\n 1: inc rbx\n jmp 0b + 0x3000");
GUEST(round_back, "0: jmp 0b - 0x3000 + 7");
GUEST(stop_round, "1: pause\n cmp dword ptr [r8], 0\n je 1b\n mov ecx, 100000\n 2: dec ecx\n jnz 2b\n mov byte ptr [r10], 0xc3\n call r10\n"
		  "mov word ptr [r9], 0x80cd\n int 0x80");

static uint64_t *pde(uint64_t cr3, uint64_t la)
{
	uint64_t table = cr3;

	rig_pte_in(&r, cr3, la & ~(LARGE - 1) & ~0x3fffffffUL); /* makes the tables; the entry that it is for is written here */
	for (int shift = 39; shift > 21; shift -= 9)
		table = rig_get(&r, table + (la >> shift & 511) * 8) & 0xffffffffff000ULL;
	return (uint64_t *)(r.mem + table) + (la >> 21 & 511);
}

static void cr(int cpu, uint64_t cr3)
{
	struct kvm_sregs s;

	rig_get_sregs(&r, cpu, &s);
	s.cr3 = cr3;
	s.cr4 &= ~0x80ULL;
	rig_set_sregs(&r, cpu, &s); /* nothing global is left */
	s.cr4 |= 0x80;
	rig_set_sregs(&r, cpu, &s);
}

/* The texts as they begin, in the address space of @cr3, where the second is @second. */
static void map(uint64_t cr3, uint64_t second)
{
	*pde(cr3, TEXT) = X | ENTRY;
	*pde(cr3, TEXT + LARGE) = second | ENTRY;
	*pde(cr3, TEXT + 2 * LARGE) = 0;
}

static void begin(void)
{
	map(RIG_PML4, Y);
	RIG_LOAD(&r, X + NEAR_F, f);
	RIG_LOAD(&r, X + NEAR_F + 1 - 0x1801, f2);
	RIG_LOAD(&r, Y + FAR_G - LARGE, g);
	RIG_LOAD(&r, Z + FAR_G - LARGE, g2);
	for (int i = 0; i < r.cpus; i++)
		cr(i, RIG_PML4);
}

static struct kvm_regs *set(int cpu, uint64_t rip)
{
	struct kvm_regs *k = &r.cpu[cpu].regs;

	rig_mode(&r, cpu, RIG_K64);
	k->rip = rip;
	return k;
}

static uint64_t stat(const char *name)
{
	struct kvm_stats_header head;
	struct {
		struct kvm_stats_desc desc;
		char name[64];
	} d;
	int fd = (int)trine_ioctl(r.vm, KVM_GET_STATS_FD, 0);
	uint64_t value = ~0ULL;

	if (pread(fd, &head, sizeof(head), 0) == sizeof(head))
		for (uint32_t i = 0; i < head.num_desc; i++) {
			size_t size = sizeof(d.desc) + head.name_size;

			if (size <= sizeof(d) && pread(fd, &d, size, head.desc_offset + i * size) == (ssize_t)size && !strcmp(d.name, name) &&
			    pread(fd, &value, 8, head.data_offset + d.desc.offset) != 8)
				value = ~0ULL;
		}
	close(fd);
	return value;
}

static bool is(int cpu, const char *what, int reason, uint64_t value)
{
	uint64_t rax = r.cpu[cpu].regs.rax;

	if (reason != RIG_DONE)
		rig_diag(&r, cpu, what, reason);
	return tap_ok(reason == RIG_DONE && rax == value, "%s: 0x%llx", what, (unsigned long long)rax);
}

static void one_vcpu(void)
{
	static const struct {
		const char *what;
		const uint8_t *code, *end;
		uint64_t each; /* round */
	} ways[] = {
		{ "calls and jumps from page to page", guest_calls, guest_calls_end, 0x101 },
		{ "another second text, by INVLPG", guest_by_invlpg, guest_by_invlpg_end, 0x10100 / 2 },
		{ "another second text, by CR4.PGE", guest_by_pge, guest_by_pge_end, 0x10100 / 2 },
		{ "loads of CR3 in between", guest_by_cr3, guest_by_cr3_end, 0x101 },
		{ "and again", guest_calls, guest_calls_end, 0x101 },
	};
	struct kvm_regs *k;

	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		begin();
		memcpy(r.mem + X, ways[i].code, ways[i].end - ways[i].code);
		k = set(0, TEXT);
		k->rcx = 60;
		k->r8 = TEXT + LARGE;
		k->r9 = (uint64_t)((uint8_t *)pde(RIG_PML4, TEXT + LARGE) - r.mem);
		k->r10 = Y | ENTRY;
		k->r11 = Z | ENTRY;
		k->rdx = i == 3 ? RIG_PML4 : 0;
		is(0, ways[i].what, rig_go(&r, 0), 60 * ways[i].each);
		if (!i)
			tap_ok(!rig_translates() || stat("lite_texts") == 2, "which are two texts: %llu", (unsigned long long)stat("lite_texts"));
	}
	tap_ok(!rig_translates() || stat("lite_texts_removed") >= 100, "texts that went: %llu", (unsigned long long)stat("lite_texts_removed"));
}

static void patches(void)
{
	struct kvm_regs *k;

	begin();
	RIG_LOAD(&r, X, stores);
	k = set(0, TEXT);
	k->rcx = 1000;
	k->r9 = Y + FAR_G - LARGE + 1; /* as it is known where everything is mapped by itself */
	is(0, "a store to what is called", rig_go(&r, 0), 1000 * 1001);
	/* By the client, who says nothing. */
	begin();
	RIG_LOAD(&r, X, calls);
	set(0, TEXT)->rcx = 10;
	is(0, "before the client writes", rig_go(&r, 0), 10 * 0x101);
	RIG_LOAD(&r, Y + FAR_G - LARGE, g2);
	set(0, TEXT)->rcx = 10;
	is(0, "what the client wrote", rig_go(&r, 0), 10 * 0x10001);
}

static void flags(void)
{
	struct kvm_regs *k;

	begin();
	RIG_LOAD(&r, X, flags);
	RIG_LOAD(&r, Y + FAR_G - LARGE, takes);
	RIG_LOAD(&r, X + NEAR_F, gives);
	k = set(0, TEXT);
	k->rcx = 60;
	k->r9 = TEXT + FAR_G;
	is(0, "flags for what is called, and from it", rig_go(&r, 0), 60 * 0x203);
}

static void twice(void)
{
	begin();
	RIG_LOAD(&r, X, where);
	RIG_LOAD(&r, X + NEAR_F, here);
	*pde(RIG_PML4, TEXT + 2 * LARGE) = X | ENTRY;
	cr(0, RIG_PML4);
	for (int i = 0; i < 6; i++) {
		uint64_t at = TEXT + (i & 1) * 2 * LARGE;

		set(0, at);
		is(0, i & 1 ? "the same memory, elsewhere" : "each call knows where it is", rig_go(&r, 0), at + NEAR_F + 7);
	}
}

static void *second(void *arg)
{
	return (void *)(intptr_t)rig_go(&r, 1);
}

static void two_vcpus(void)
{
	uint64_t other = rig_new_space(&r);
	pthread_t thread;
	void *reason;
	int first;

	begin();
	map(other, Z);
	RIG_LOAD(&r, X, calls);
	for (int round = 0; round < 20; round++) {
		cr(1, other);
		set(0, TEXT)->rcx = 20000;
		set(1, TEXT)->rcx = 20000;
		pthread_create(&thread, NULL, second, NULL);
		first = rig_go(&r, 0);
		pthread_join(thread, &reason);
		if (first != RIG_DONE || (intptr_t)reason != RIG_DONE || r.cpu[0].regs.rax != 20000 * 0x101 || r.cpu[1].regs.rax != 20000 * 0x10001)
			break;
		if (round == 19) {
			tap_ok(true, "the second text is another one for another vCPU");
			return;
		}
	}
	is(0, "the second text", first, 20000 * 0x101);
	is(1, "the other vCPU's", (int)(intptr_t)reason, 20000 * 0x10001);
}

/* The second text becomes one, for the other vCPU, while this one runs code that will lead there. */
static void comes_later(void)
{
	uint64_t other = rig_new_space(&r);
	pthread_t thread;
	void *reason;

	begin();
	map(other, Z);
	cr(1, other);
	RIG_LOAD(&r, X, waits);
	rig_put(&r, RIG_DATA, 0);
	rig_put(&r, RIG_DATA + 8, 1);
	set(1, TEXT)->r8 = RIG_DATA; /* the one that waits */
	r.cpu[1].regs.rcx = 100;
	pthread_create(&thread, NULL, second, NULL);
	usleep(20000);
	set(0, TEXT)->r8 = RIG_DATA + 8;
	r.cpu[0].regs.rcx = 100;
	is(0, "a second text", rig_go(&r, 0), 100 * 0x100);
	__atomic_store_n((uint32_t *)rig_at(&r, RIG_DATA), 1, __ATOMIC_SEQ_CST);
	pthread_join(thread, &reason);
	is(1, "another one for who ran all the time", (int)(intptr_t)reason, 100 * 0x10000);
}

static void rounds(void)
{
	pthread_t thread;
	void *reason;
	int first;

	begin();
	RIG_LOAD(&r, X, round);
	RIG_LOAD(&r, X + NEAR_F, round_back);
	RIG_LOAD(&r, RIG_CODE, stop_round);
	rig_put(&r, RIG_DATA, 0);
	set(0, TEXT)->r8 = RIG_DATA;
	set(1, RIG_CODE)->r8 = RIG_DATA;
	r.cpu[1].regs.r9 = X + NEAR_F;
	r.cpu[1].regs.r10 = RIG_CODE + 0x8000;
	pthread_create(&thread, NULL, second, NULL);
	first = rig_go(&r, 0);
	pthread_join(thread, &reason);
	tap_ok(first == RIG_DONE && (intptr_t)reason == RIG_DONE && r.cpu[0].rip == TEXT + NEAR_F + 2, "a loop through two pages ends when it is patched: %llu rounds",
	       (long long)r.cpu[0].regs.rbx);
}

int main(void)
{
	tap_begin();
	if (!rig_make(&r, 2))
		return tap_end();
	one_vcpu();
	rig_free(&r);
	if (!rig_make(&r, 2))
		return tap_end();
	patches();
	flags();
	twice();
	two_vcpus();
	rig_free(&r);
	if (!rig_make(&r, 2))
		return tap_end();
	comes_later();
	rounds();
	rig_free(&r);
	return tap_end();
}
