/*
 * Translations and memory: what a flush must forget and what may stay, PCIDs, global and large pages, accessed and dirty bits, permissions that
 * come and go; slots that are read-only, vanish, are logged; devices in the middle of blocks.
 */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lite/rig.h"

static struct rig r;

#define LA    0x40000000UL /* the page in question: frame A or B */
#define A     0x300000UL
#define B     0x301000UL
#define VALUE 0x1111111111111111ULL
#define SITE  (RIG_CODE + 0x800)

static uint64_t pte_at(uint64_t la)
{
	return (uint8_t *)rig_pte(&r, la) - r.mem;
}

static int run(enum rig_mode mode, const uint8_t *code, const uint8_t *end, struct kvm_regs *k)
{
	int reason;

	memcpy(r.mem + SITE, code, end - code);
	rig_mode(&r, 0, mode);
	k->rsp = r.cpu[0].regs.rsp;
	k->rflags = 2;
	k->rip = SITE;
	r.cpu[0].regs = *k;
	reason = rig_go(&r, 0);
	*k = r.cpu[0].regs;
	return reason;
}
#define RUN(mode, name, k) run(mode, guest_##name, guest_##name##_end, k)

static void cr(uint64_t cr3, uint64_t cr4_set, uint64_t cr4_clear)
{
	struct kvm_sregs s;

	rig_get_sregs(&r, 0, &s);
	s.cr3 = cr3;
	s.cr4 = (s.cr4 | cr4_set) & ~cr4_clear;
	rig_set_sregs(&r, 0, &s);
}

/* ---- flushes ----------------------------------------------------------------------------------------------------------- */

/*
 * Reads [R8] (RAX), changes its entry at R9 to R10, flushes in one of the ways, reads again (RDX), writes to it R11's low byte, which must go to
 * the same frame. R12: for the flush.
 */
#define FLUSH(name, text) \
	GUEST(name, "mov rax, [r8]\n mov rbx, [r8]\n mov [r9], r10\n mov rcx, cr3\n" text "\n mov rdx, [r8]\n mov [r8 + 8], r11b\n int 0x80")
FLUSH(by_invlpg, "invlpg [r8]");
FLUSH(by_cr3, "mov cr3, rcx");
FLUSH(by_pge, "mov rbx, cr4\n xor rbx, 0x80\n mov cr4, rbx\n xor rbx, 0x80\n mov cr4, rbx");
FLUSH(by_pcid0, "push r8\n push r12\n xor ebx, ebx\n invpcid rbx, [rsp]\n add rsp, 16");
FLUSH(by_pcid1, "push 0\n push r12\n mov ebx, 1\n invpcid rbx, [rsp]\n add rsp, 16");
FLUSH(by_pcid2, "push 0\n push 0\n mov ebx, 2\n invpcid rbx, [rsp]\n add rsp, 16");
FLUSH(by_pcid3, "push 0\n push 0\n mov ebx, 3\n invpcid rbx, [rsp]\n add rsp, 16");
FLUSH(by_cr3_away, "mov cr3, r13\n mov cr3, rcx");
FLUSH(by_cr0, "mov rbx, cr0\n btr rbx, 16\n mov cr0, rbx\n bts rbx, 16\n mov cr0, rbx\n invlpg [r8]");

static void flushes(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
		bool global; /* also global entries */
		bool pcid;
	} ways[] = {
#define WAY(name, text, global, pcid) { text, guest_##name, guest_##name##_end, global, pcid }
		WAY(by_invlpg, "INVLPG", true, false),	     WAY(by_cr3, "a CR3 load", false, false),
		WAY(by_pge, "CR4.PGE", true, false),	     WAY(by_pcid0, "INVPCID 0", false, true),
		WAY(by_pcid1, "INVPCID 1", false, true),     WAY(by_pcid2, "INVPCID 2", true, true),
		WAY(by_pcid3, "INVPCID 3", false, true),     WAY(by_cr3_away, "CR3 loads, away and back", false, false),
		WAY(by_cr0, "CR0.WP and INVLPG", true, false), WAY(by_invlpg, "INVLPG", true, true),
	};
	uint64_t other = rig_new_space(&r);

	for (unsigned w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
		unsigned wrong = 0, n = 0;

		for (int large = 0; large < 2; large++)
			for (int global = 0; global <= ways[w].global; global++)
				for (unsigned round = 0; round < 4; round++, n++) {
					uint64_t flags = PTE_ALL | (global ? PTE_G : 0) | (large ? PTE_PS : 0);
					uint64_t from = large ? 0x200000 : A, to = large ? 0x400000 : B, entry;
					struct kvm_regs k = { 0 };
					uint64_t la = large ? LA + 0x40000000 : LA;

					rig_put(&r, from, VALUE);
					rig_put(&r, to, VALUE * 2);
					rig_put(&r, from + 8, 0);
					rig_put(&r, to + 8, 0);
					if (large) {
						uint64_t *pdpt = (uint64_t *)(r.mem + (rig_get(&r, RIG_PML4) & ~0xfffULL));
						uint64_t *pd;

						if (!(pdpt[la >> 30 & 511] & 1))
							rig_pte(&r, la); /* makes the tables */
						pd = (uint64_t *)(r.mem + (pdpt[la >> 30 & 511] & ~0xfffULL));
						entry = (uint8_t *)pd - r.mem;
					} else {
						entry = pte_at(la);
					}
					rig_put(&r, entry, from | flags);
					cr(RIG_PML4 | (ways[w].pcid ? 5 : 0), 0x80 | (ways[w].pcid ? 0x20000 : 0), ways[w].pcid ? 0 : 0x20000);
					k.r8 = la;
					k.r9 = entry;
					k.r10 = to | flags;
					k.r11 = 0x77;
					k.r12 = 5;
					k.r13 = other | (ways[w].pcid ? 6 : 0);
					/* What was cached before is another test's. */
					r.cpu[0].regs = k;
					if (run(RIG_K64, ways[w].code, ways[w].end, &k) != RIG_DONE || k.rdx != VALUE * 2 ||
					    (k.rax != VALUE && !global) || (uint8_t)rig_get(&r, to + 8) != 0x77 || rig_get(&r, from + 8)) {
						if (!wrong++)
							rig_diag(&r, 0, ways[w].name, RIG_STOPPED);
						tap_diag("%s%s round %u: %llx then %llx", large ? "large " : "", global ? "global" : "local", round, (long long)k.rax,
							 (long long)k.rdx);
					}
					/* Nothing global is left for the next. */
					cr(RIG_PML4, 0, 0x20080);
					cr(RIG_PML4, 0x80, 0);
				}
		tap_ok(!wrong, "after %s%s the new entry counts: %u", ways[w].name, ways[w].pcid ? " with PCIDs" : "", n);
	}
	cr(RIG_PML4, 0, 0x20080);
}

/* Two spaces by PCID, entered without a flush: each sees its own page at R8, over and over; R9, R10 are their CR3s with bit 63. */
GUEST(by_turns, "mov ecx, 50\n xor eax, eax\n xor ebx, ebx\n 1: mov cr3, r9\n add rax, [r8]\n mov cr3, r10\n add rbx, [r8]\n mov [r8 + 8], ecx\n dec ecx\n jnz 1b\n int 0x80");
/* PCID 2's entry of R8 changes (at R11, to R12) while PCID 1 is in use; then INVPCID for PCID 2. */
GUEST(other_pcid, "mov cr3, r10\n mov rax, [r8]\n mov cr3, r9\n mov [r11], r12\n push r8\n push 2\n mov ebx, r13d\n invpcid rbx, [rsp]\n add rsp, 16\n"
		  "mov rcx, [r8]\n mov cr3, r10\n mov rdx, [r8]\n mov cr3, r9\n int 0x80");

static void pcids(void)
{
	uint64_t other = rig_new_space(&r), e;
	struct kvm_regs k = { 0 };
	unsigned wrong = 0;

	rig_map(&r, LA, A, PTE_ALL);
	*rig_pte_in(&r, other, LA) = B | PTE_ALL;
	e = (uint8_t *)rig_pte_in(&r, other, LA) - r.mem;
	rig_put(&r, A, 3);
	rig_put(&r, B, 5);
	rig_put(&r, A + 8, 0);
	rig_put(&r, B + 8, 0);
	cr(RIG_PML4 | 1, 0x20080, 0);
	k.r8 = LA;
	k.r9 = RIG_PML4 | 1 | 1ULL << 63;
	k.r10 = other | 2 | 1ULL << 63;
	tap_ok(RUN(RIG_K64, by_turns, &k) == RIG_DONE && k.rax == 150 && k.rbx == 250 && rig_get(&r, B + 8) == 1 && !rig_get(&r, A + 8),
	       "two address spaces by turns, without flushes: %llu, %llu", (long long)k.rax, (long long)k.rbx);
	for (unsigned type = 0; type < 4; type++) {
		rig_put(&r, e, B | PTE_ALL);
		rig_put(&r, B + 0x1000, 7);
		cr(RIG_PML4 | 1, 0, 0x20000);
		cr(RIG_PML4 | 1, 0x20080, 0);
		k.r11 = e;
		k.r12 = (B + 0x1000) | PTE_ALL;
		k.r13 = type;
		k.r9 = RIG_PML4 | 1 | 1ULL << 63;
		k.r10 = other | 2 | 1ULL << 63;
		k.r8 = LA;
		if (RUN(RIG_K64, other_pcid, &k) != RIG_DONE || k.rcx != 3 || k.rdx != 7) {
			rig_diag(&r, 0, "INVPCID", RIG_STOPPED);
			tap_diag("type %u: %llu %llu %llu", type, (long long)k.rax, (long long)k.rcx, (long long)k.rdx);
			wrong++;
		}
	}
	tap_ok(!wrong, "INVPCID, all types, for an address space that is not current");
	cr(RIG_PML4, 0, 0x20080);
}

/* ---- permissions, accessed and dirty bits ------------------------------------------------------------------------------- */

GUEST(read_only, "mov rax, [r8]\n int 0x80");
GUEST(write_only, "mov [r8], rax\n int 0x80");
GUEST(rmw, "add [r8], rax\n int 0x80");
GUEST(cmpxchg_fails, "mov eax, 1234567\n lock cmpxchg [r8], rcx\n int 0x80");
GUEST(execute, "call r8\n int 0x80");
GUEST(lea_only, "lea rax, [r8]\n nop dword ptr [r8]\n int 0x80");
GUEST(rep_zero, "xor ecx, ecx\n mov rdi, r8\n mov rsi, r8\n rep movsb\n int 0x80");

static void accessed_dirty(void)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
		uint64_t want;
	} cases[] = {
#define CASE(name, text, want) { text, guest_##name, guest_##name##_end, want }
		CASE(read_only, "a read", PTE_A),
		CASE(write_only, "a write", PTE_A | PTE_D),
		CASE(rmw, "a read-modify-write", PTE_A | PTE_D),
		CASE(cmpxchg_fails, "a CMPXCHG that fails", PTE_A | PTE_D),
		CASE(execute, "execution", PTE_A),
		CASE(lea_only, "LEA and NOP", 0),
		CASE(rep_zero, "REP MOVS of nothing", 0),
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned wrong = 0;

		for (int mode = RIG_K64; mode <= RIG_U64; mode++)
			for (unsigned n = 0; n < 4; n++) {
				uint64_t la = LA + 0x100000 + (i * 2 + mode) * 0x1000;
				struct kvm_regs k = { .r8 = la, .rax = 1 };

				/* Again after the bits were cleared and the entry flushed */
				rig_map(&r, la, A, PTE_ALL);
				memcpy(r.mem + A, "\xc3\x90", 2);
				cr(RIG_PML4, 0x80, 0);
				cr(RIG_PML4, 0, 0x80);
				if (run(mode, cases[i].code, cases[i].end, &k) != RIG_DONE || (*rig_pte(&r, la) & (PTE_A | PTE_D)) != cases[i].want) {
					if (!wrong++)
						tap_diag("%s, round %u: entry %llx", rig_mode_names[mode], n, (long long)*rig_pte(&r, la));
				}
			}
		tap_ok(!wrong, "%s sets the bits that it should", cases[i].name);
	}
}

/* A read makes the entry; then a write must set D in the tables, the first time only. R9: the entry. */
GUEST(read_write, "mov rax, [r8]\n mov rbx, [r9]\n mov [r8], rax\n mov rcx, [r9]\n btr qword ptr [r9], 6\n invlpg [r8]\n mov rdx, [r8]\n mov rsi, [r9]\n mov [r8], rax\n"
		  "mov rdi, [r9]\n int 0x80");
/* Not present, then present without a flush: that must do. */
GUEST(comes, "mov ecx, 20\n 1: mov [r9], r10\n mov rax, [r8]\n mov qword ptr [r9], 0\n invlpg [r8]\n dec ecx\n jnz 1b\n mov rax, [r8]\n int 0x80");
/* Writable, then read-only and flushed: the write faults. */
GUEST(goes, "mov [r8], rax\n and qword ptr [r9], -3\n invlpg [r8]\n mov rbx, [r8]\n mov [r8], rax\n int 0x80");
GUEST(wp_off, "mov rbx, cr0\n btr rbx, 16\n mov cr0, rbx\n mov [r8], rax\n bts rbx, 16\n mov cr0, rbx\n mov [r8], rcx\n int 0x80");
GUEST(smep, "mov rbx, cr4\n btr rbx, 20\n mov cr4, rbx\n call r8\n bts rbx, 20\n mov cr4, rbx\n call r8\n int 0x80");

static void permissions(void)
{
	struct kvm_regs k = { .r8 = LA + 0x200000 };
	struct rig_cpu *c = &r.cpu[0];
	int reason;

	rig_map(&r, k.r8, A, PTE_ALL);
	k.r9 = pte_at(k.r8);
	reason = RUN(RIG_K64, read_write, &k);
	tap_ok(reason == RIG_DONE && !(k.rbx & PTE_D) && (k.rcx & PTE_D) && !(k.rsi & PTE_D) && (k.rdi & PTE_D), "D is set by the first write, and again after it was cleared");
	k.r8 = LA + 0x201000;
	rig_map(&r, k.r8, 0, 0);
	k.r9 = pte_at(k.r8);
	k.r10 = A | PTE_ALL;
	reason = RUN(RIG_K64, comes, &k);
	tap_ok(reason == RIG_STOPPED && c->vector == 14 && !k.rcx && c->error == 0, "a page that comes needs no flush; when it went, it faults");
	k.r8 = LA + 0x202000;
	rig_map(&r, k.r8, A, PTE_ALL);
	k.r9 = pte_at(k.r8);
	reason = RUN(RIG_K64, goes, &k);
	tap_ok(reason == RIG_STOPPED && c->vector == 14 && c->error == 3 && c->cr2 == k.r8, "a page that becomes read-only faults on writes");
	k.r8 = LA + 0x203000;
	rig_map(&r, k.r8, B, PTE_P | PTE_U);
	k.rax = 0x1234;
	k.rcx = 0x5678;
	reason = RUN(RIG_K64, wp_off, &k);
	tap_ok(reason == RIG_STOPPED && c->vector == 14 && c->error == 3 && rig_get(&r, B) == 0x1234, "with CR0.WP clear the kernel writes read-only pages, with it set not");
	k.r8 = LA + 0x204000;
	rig_map(&r, k.r8, B, PTE_ALL);
	r.mem[B] = 0xc3;
	/* The kernel's own code is then not the user's. */
	rig_map(&r, RIG_CODE, RIG_CODE, PTE_P | PTE_W);
	rig_map(&r, RIG_VECTORS, RIG_VECTORS, PTE_P | PTE_W);
	cr(RIG_PML4, 0x80, 0);
	cr(RIG_PML4, 0, 0x80);
	reason = RUN(RIG_K64, smep, &k);
	tap_ok(reason == RIG_STOPPED && c->vector == 14 && c->error == 0x11 && c->rip == k.r8 && k.rsp, "CR4.SMEP: the kernel runs user pages, and then not");
	rig_map(&r, RIG_CODE, RIG_CODE, PTE_ALL);
	rig_map(&r, RIG_VECTORS, RIG_VECTORS, PTE_ALL);
	cr(RIG_PML4, 0x80, 1 << 20);
	cr(RIG_PML4, 0, 0x80);
}

/* ---- slots and devices ---------------------------------------------------------------------------------------------------- */

#define DEVICE 0x10000000UL
#define ROM    0x20000000UL
#define SLOT2  0x30000000UL

/* RDI: the device. Between the accesses there is arithmetic whose flags and registers must survive. */
GUEST(device,
      "mov r10, 0x0123456789abcdef\n mov r11, r10\n stc\n mov eax, [rdi]\n adc r10, 0\n add dword ptr [rdi + 4], 3\n sbb r11, 0\n push rax\n"
      "lea rbx, [rdi + 0x108]\n xchg rsp, rbx\n push r10\n xchg rsp, rbx\n pop rcx\n movups xmm0, [rsi]\n movups [rdi + 0x20], xmm0\n mov r9b, [rdi + 1]\n"
      "xchg r8w, [rdi + 2]\n movzx r12d, word ptr [rdi + 6]\n lock bts dword ptr [rdi + 8], 5\n mov [rdi + 0xffe], r10d\n int 0x80");

static void device(void)
{
	static const struct {
		bool write;
		unsigned at, len;
		uint64_t data;
	} want[] = {
		{ false, 0, 4, 0x11 },	 { false, 4, 4, 0x22 }, { true, 4, 4, 0x25 },	     { true, 0x100, 8, 0x0123456789abcdf0 },
		{ true, 0x20, 8, 1 },	 { true, 0x28, 8, 2 },	{ false, 1, 1, 0x33 },	     { false, 2, 2, 0x4444 },
		{ true, 2, 2, 0x9876 },	 { false, 6, 2, 0xfedc }, { false, 8, 4, 0x100 }, { true, 8, 4, 0x120 },
	};
	struct rig_cpu *c = &r.cpu[0];

	for (int mode = RIG_K64; mode <= RIG_U64; mode++) {
		unsigned n, total = sizeof(want) / sizeof(want[0]);
		const char *wrong = NULL;
		int reason;

		for (uint64_t page = 0; page < 2; page++)
			rig_map(&r, LA + 0x300000 + page * 0x1000, DEVICE + page * 0x1000, PTE_ALL);
		RIG_LOAD(&r, SITE, device);
		rig_put(&r, RIG_DATA, 1);
		rig_put(&r, RIG_DATA + 8, 2);
		rig_mode(&r, 0, mode);
		c->regs.rip = SITE;
		c->regs.rdi = LA + 0x300000;
		c->regs.rsi = RIG_DATA;
		c->regs.r8 = 0x9876;
		reason = rig_go(&r, 0);
		for (n = 0; n < total && !wrong; n++) {
			uint64_t v = 0;

			if (reason != KVM_EXIT_MMIO || c->run->mmio.is_write != want[n].write || c->run->mmio.phys_addr != DEVICE + want[n].at ||
			    c->run->mmio.len != want[n].len) {
				wrong = "another access";
				break;
			}
			memcpy(&v, c->run->mmio.data, 8);
			if (want[n].write && (v & (want[n].len == 8 ? ~0ULL : (1ULL << want[n].len * 8) - 1)) != want[n].data)
				wrong = "other data";
			memcpy(c->run->mmio.data, &want[n].data, 8);
			reason = rig_again(&r, 0);
		}
		/* The last store is over a page's end: in how many pieces is the processor's affair. */
		for (unsigned i = 0; i < 4 && reason == KVM_EXIT_MMIO && c->run->mmio.is_write; i++)
			reason = rig_again(&r, 0);
		if (!wrong && (reason != RIG_DONE || c->regs.rax != 0x11 || c->regs.rcx != 0x11 || c->regs.r10 != 0x0123456789abcdf0 ||
			       c->regs.r11 != 0x0123456789abcdef || (uint8_t)c->regs.r9 != 0x33 || (uint16_t)c->regs.r8 != 0x4444 || c->regs.r12 != 0xfedc))
			wrong = "registers";
		if (wrong) {
			rig_diag(&r, 0, "device", reason);
			tap_diag("access %u: %s at %llx, %u bytes", n, c->run->mmio.is_write ? "write" : "read", (long long)c->run->mmio.phys_addr,
				 c->run->mmio.len);
		}
		tap_ok(!wrong, "%s: a device in the middle of a block%s%s", rig_mode_names[mode], wrong ? ": " : "", wrong ? wrong : "");
	}
}

static uint8_t *add_slot(unsigned slot, uint64_t gpa, uint64_t size, unsigned flags, uint8_t *mem)
{
	struct kvm_userspace_memory_region region = { .slot = slot, .guest_phys_addr = gpa, .memory_size = size, .flags = flags };

	region.userspace_addr = (uintptr_t)mem;
	return trine_ioctl(r.vm, KVM_SET_USER_MEMORY_REGION, &region) ? NULL : mem;
}

GUEST(rom, "mov rax, [rdi]\n call rsi\n mov [rdi + 8], rax\n inc byte ptr [rdi + 16]\n mov rdx, [rdi + 8]\n int 0x80");

static void rom(void)
{
	static uint8_t mem[4096] __attribute__((aligned(4096)));
	struct rig_cpu *c = &r.cpu[0];
	unsigned writes = 0;
	int reason;

	if (!add_slot(1, ROM, 4096, KVM_MEM_READONLY, mem)) {
		tap_skip("no read-only slots", "a read-only slot");
		return;
	}
	memcpy(mem + 0x100, "\xbb\x07\x00\x00\x00\xc3", 6);
	memset(mem, 0x5a, 24);
	rig_map(&r, LA + 0x310000, ROM, PTE_ALL);
	RIG_LOAD(&r, SITE, rom);
	rig_mode(&r, 0, RIG_K64);
	c->regs.rip = SITE;
	c->regs.rdi = LA + 0x310000;
	c->regs.rsi = LA + 0x310100;
	for (reason = rig_go(&r, 0); reason == KVM_EXIT_MMIO && c->run->mmio.is_write && writes < 5; reason = rig_again(&r, 0))
		writes++;
	tap_ok(reason == RIG_DONE && writes == 2 && c->regs.rax == 0x5a5a5a5a5a5a5a5aULL && c->regs.rdx == c->regs.rax && c->regs.rbx == 7 && mem[16] == 0x5a,
	       "a read-only slot is read and run; writes are the client's: %u", writes);
	add_slot(1, ROM, 0, 0, mem);
}

/* Reads from the slot until it reads something else than its data; RCX counts. */
GUEST(poll_slot, "1: inc rcx\n mov [rdx], rcx\n mov rax, [rdi]\n cmp rax, [rdi + 8]\n je 1b\n int 0x80");

static void *run_first(void *arg)
{
	return (void *)(intptr_t)rig_go(&r, 0);
}

static void deletion(void)
{
	static uint8_t mem[8192] __attribute__((aligned(4096)));
	struct rig_cpu *c = &r.cpu[0];
	unsigned good = 0;

	rig_map(&r, LA + 0x320000, SLOT2, PTE_ALL);
	RIG_LOAD(&r, SITE, poll_slot);
	for (unsigned round = 0; round < 10; round++) {
		pthread_t thread;
		void *reason;

		add_slot(2, SLOT2, 8192, 0, mem);
		rig_mode(&r, 0, round & 1 ? RIG_U64 : RIG_K64);
		c->regs.rip = SITE;
		c->regs.rdi = LA + 0x320000;
		c->regs.rdx = RIG_DATA;
		rig_put(&r, RIG_DATA, 0);
		pthread_create(&thread, NULL, run_first, NULL);
		while (*(volatile uint64_t *)(r.mem + RIG_DATA) < 1000)
			usleep(100);
		add_slot(2, SLOT2, 0, 0, mem);
		pthread_join(thread, &reason);
		/* The access is still to be finished. */
		c->run->immediate_exit = 1;
		trine_ioctl(c->fd, KVM_RUN, 0);
		c->run->immediate_exit = 0;
		good += (intptr_t)reason == KVM_EXIT_MMIO && !c->run->mmio.is_write && c->run->mmio.phys_addr - SLOT2 < 16;
	}
	tap_ok(good == 10, "a slot that goes while the guest reads it: %u of 10", good);
}

/* ---- the dirty log ------------------------------------------------------------------------------------------------------------ */

#define STORM_PAGES 256
/* Stores RCX (counting down) to pseudo-random places of R8's STORM_PAGES pages, of several sizes. */
GUEST(storm, "mov eax, 12345\n 1: imul eax, eax, 1103515245\n add eax, 12345\n mov edx, eax\n shr edx, 8\n and edx, 0xff000 + 0xff8\n mov [r8 + rdx], rcx\n"
	     "bswap edx\n test al, 0x10\n jz 2f\n add byte ptr [r8 + 0x1234], 1\n 2: test al, 0x60\n jnz 3f\n lock inc dword ptr [r8 + 0x2ff0]\n push rcx\n pop rdi\n"
	     "movups [r8 + 0x5ffa], xmm0\n 3: dec rcx\n jnz 1b\n int 0x80");

static struct {
	uint8_t *mem, *replica;
	uint64_t bitmap[STORM_PAGES / 64];
} storm;

static bool harvest(void)
{
	struct kvm_dirty_log log = { .slot = 3, .dirty_bitmap = storm.bitmap };

	if (trine_ioctl(r.vm, KVM_GET_DIRTY_LOG, &log))
		return false;
	for (unsigned i = 0; i < STORM_PAGES; i++)
		if (storm.bitmap[i / 64] >> (i % 64) & 1)
			memcpy(storm.replica + i * 4096, storm.mem + i * 4096, 4096);
	return true;
}

static volatile bool storm_over;
static void *storm_thread(void *arg)
{
	intptr_t reason = rig_go(&r, 0);

	storm_over = true;
	return (void *)reason;
}

static void dirty_log(void)
{
	const uint64_t la = LA + 0x400000, gpa = 0x38000000;
	struct rig_cpu *c = &r.cpu[0];
	unsigned harvests = 0;
	pthread_t thread;
	bool good;
	void *reason;

	storm.mem = aligned_alloc(4096, STORM_PAGES * 4096);
	storm.replica = calloc(STORM_PAGES, 4096);
	memset(storm.mem, 0, STORM_PAGES * 4096);
	add_slot(3, gpa, STORM_PAGES * 4096, 0, storm.mem);
	for (uint64_t i = 0; i < STORM_PAGES; i++)
		rig_map(&r, la + i * 4096, gpa + i * 4096, PTE_ALL);
	RIG_LOAD(&r, SITE, storm);
	/* Write entries exist before there is a log. */
	rig_mode(&r, 0, RIG_U64);
	c->regs.rip = SITE;
	c->regs.r8 = la;
	c->regs.rcx = 20000;
	good = rig_go(&r, 0) == RIG_DONE;
	memcpy(storm.replica, storm.mem, STORM_PAGES * 4096);
	add_slot(3, gpa, STORM_PAGES * 4096, KVM_MEM_LOG_DIRTY_PAGES, storm.mem);
	rig_mode(&r, 0, RIG_U64);
	c->regs.rip = SITE;
	c->regs.r8 = la;
	c->regs.rcx = 3000000;
	storm_over = false;
	pthread_create(&thread, NULL, storm_thread, NULL);
	while (!storm_over && good && harvests < 20000) {
		good = harvest();
		harvests++;
		usleep(300);
	}
	pthread_join(thread, &reason);
	good = good && (intptr_t)reason == RIG_DONE && harvest();
	tap_ok(good && !memcmp(storm.mem, storm.replica, STORM_PAGES * 4096), "a copy by the dirty log is complete after a storm of stores: %u harvests", harvests);
	add_slot(3, gpa, 0, 0, storm.mem);
	free(storm.mem);
	free(storm.replica);
}

/* ---- jumps to where others go, too ---------------------------------------------------------------------------------------- */

/*
 * Functions at the same place of 256 KiB share an entry of the translator's jump cache. Called in turn, by address and from one place; then one of
 * them becomes another function, and is flushed: INVLPG of RBP's page, whose entry at R9 becomes R10. RAX collects what they return; R13: what
 * is at RBP returns then.
 */
#define IN_TURN "mov r12d, 6\n 1: call rbx\n lea rax, [rax + rax * 4]\n add rax, rdx\n call rsi\n lea rax, [rax + rax * 4]\n add rax, rdx\n" \
		"call rdi\n lea rax, [rax + rax * 4]\n add rax, rdx\n dec r12d\n jnz 1b\n"
GUEST(in_turn, "xor eax, eax\n" IN_TURN "mov r8, rax\n mov [r9], r10\n invlpg [rbp]\n call rbp\n mov r13, rdx\n xor eax, eax\n" IN_TURN "int 0x80");
GUEST(one, "mov edx, 1\n ret");
GUEST(two, "mov edx, 2\n ret");
GUEST(three, "mov edx, 3\n ret");
GUEST(four, "mov edx, 4\n ret");

static uint64_t collected(unsigned first, unsigned second, unsigned third)
{
	uint64_t rax = 0;

	for (unsigned i = 0; i < 6; i++)
		rax = ((rax * 5 + first) * 5 + second) * 5 + third;
	return rax;
}

static void collisions(void)
{
	static const uint64_t at[] = { 0x40035870, 0x40075870, 0x400f5870 };

	for (unsigned other = 0; other < 3; other++) {
		struct kvm_regs k = { .rbx = at[0], .rsi = at[1], .rdi = at[2], .rbp = at[other] };
		unsigned value[] = { 1, 2, 3 };
		int reason;

		for (unsigned i = 0; i < 3; i++)
			rig_map(&r, at[i] & ~0xfffULL, A + i * 0x1000, PTE_ALL);
		RIG_LOAD(&r, A + 0x870, one);
		RIG_LOAD(&r, A + 0x1870, two);
		RIG_LOAD(&r, A + 0x2870, three);
		RIG_LOAD(&r, A + 0x3870, four);
		k.r9 = pte_at(at[other] & ~0xfffULL);
		k.r10 = (A + 0x3000) | PTE_ALL;
		reason = RUN(RIG_K64, in_turn, &k);
		tap_ok(reason == RIG_DONE && k.r8 == collected(1, 2, 3), "three functions at one place of 256 KiB, called in turn");
		value[other] = 4;
		if (!tap_ok(k.r13 == 4 && k.rax == collected(value[0], value[1], value[2]), "and when number %u has become another", other + 1))
			rig_diag(&r, 0, "in turn", reason);
	}
}

int main(void)
{
	tap_begin();
	if (!rig_make(&r, 1))
		return tap_end();
	flushes();
	pcids();
	accessed_dirty();
	permissions();
	device();
	rom();
	deletion();
	dirty_log();
	collisions();
	rig_free(&r);
	return tap_end();
}
