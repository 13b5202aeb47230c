/* The page walker: every paging mode, rights, reserved bits, accessed and dirty bits, error codes. SDM 3A chapter 4. */
#include "core/x86/mmu/walk.h"

#include "core/x86/cpuid.h"
#include "tests/paging.h"
#include "tests/tap.h"
#include "tests/x86/fake.h"

#define RSVD (1ULL << 51)

#define ROOT  0x100000ULL
#define PDPT  0x101000ULL
#define PD    0x102000ULL
#define PT    0x103000ULL
#define FRAME 0x200000ULL

static struct machine m;

enum mode { OFF, BITS32, PAE, LONG };

static void set_mode(enum mode mode, u64 cr0, u64 cr4, u64 efer)
{
	struct x86_state *s = &m.vcpu->x86;

	s->cr0 = CR0_PE | CR0_ET | (mode == OFF ? 0 : CR0_PG) | cr0;
	s->cr4 = (mode >= PAE ? CR4_PAE : 0) | cr4;
	s->efer = (mode == LONG ? EFER_LME | EFER_LMA : 0) | efer;
	s->cr3 = ROOT;
	s->rflags = 2;
	s->cpl = 0;
}

struct walk_case {
	const char *name;
	u64 cr0, cr4, efer;
	bool ac, implicit;
	u64 pml4, pdpt, pd, pt; /* bits that are flipped in a present, writable, user entry */
	u32 access;
	s64 error; /* -1: allowed */
};

static const struct walk_case cases[] = {
	{ "a supervisor reads", .error = -1 },
	{ "a supervisor writes", .access = PFERR_W, .error = -1 },
	{ "a user reads", .access = PFERR_U, .error = -1 },
	{ "a user writes", .access = PFERR_U | PFERR_W, .error = -1 },
	{ "PML4E not present", .pml4 = P, .error = 0 },
	{ "PDPTE not present", .pdpt = P, .access = PFERR_W, .error = PFERR_W },
	{ "PDE not present", .pd = P, .access = PFERR_U, .error = PFERR_U },
	{ "PTE not present", .pt = P, .access = PFERR_U | PFERR_W, .error = PFERR_U | PFERR_W },
	{ "a fetch that fails has I/D only with NX or SMEP", .pt = P, .access = PFERR_I, .error = 0 },
	{ "a fetch that fails, NX on", .efer = EFER_NX, .pt = P, .access = PFERR_I, .error = PFERR_I },
	{ "a fetch that fails, SMEP on", .cr4 = CR4_SMEP, .pt = P, .access = PFERR_I, .error = PFERR_I },
	{ "a user on a supervisor page", .pt = U, .access = PFERR_U, .error = PFERR_P | PFERR_U },
	{ "a user under a supervisor PML4E", .pml4 = U, .access = PFERR_U, .error = PFERR_P | PFERR_U },
	{ "a user writes a read-only page", .pt = W, .access = PFERR_U | PFERR_W, .error = PFERR_P | PFERR_U | PFERR_W },
	{ "a user writes under a read-only PDE", .pd = W, .access = PFERR_U | PFERR_W,
	  .error = PFERR_P | PFERR_U | PFERR_W },
	{ "a supervisor writes a read-only page, WP off", .pt = W, .access = PFERR_W, .error = -1 },
	{ "a supervisor writes a read-only page, WP on", .cr0 = CR0_WP, .pt = W, .access = PFERR_W,
	  .error = PFERR_P | PFERR_W },
	{ "NX bit with NX off is reserved", .pt = NX, .error = PFERR_P | PFERR_RSVD },
	{ "a fetch from an NX page", .efer = EFER_NX, .pt = NX, .access = PFERR_I, .error = PFERR_P | PFERR_I },
	{ "a fetch under an NX PDPTE", .efer = EFER_NX, .pdpt = NX, .access = PFERR_I, .error = PFERR_P | PFERR_I },
	{ "a read of an NX page", .efer = EFER_NX, .pt = NX, .error = -1 },
	{ "SMEP stops a supervisor's fetch from a user page", .cr4 = CR4_SMEP, .access = PFERR_I,
	  .error = PFERR_P | PFERR_I },
	{ "SMEP lets a user fetch", .cr4 = CR4_SMEP, .access = PFERR_I | PFERR_U, .error = -1 },
	{ "SMEP lets a supervisor fetch a supervisor page", .cr4 = CR4_SMEP, .pt = U, .access = PFERR_I, .error = -1 },
	{ "SMAP stops a supervisor's read of a user page", .cr4 = CR4_SMAP, .error = PFERR_P },
	{ "SMAP stops a supervisor's write", .cr4 = CR4_SMAP, .access = PFERR_W, .error = PFERR_P | PFERR_W },
	{ "SMAP with AC set lets it pass", .cr4 = CR4_SMAP, .ac = true, .error = -1 },
	{ "SMAP with AC set does not excuse implicit accesses", .cr4 = CR4_SMAP, .ac = true, .implicit = true,
	  .error = PFERR_P },
	{ "SMAP says nothing of supervisor pages", .cr4 = CR4_SMAP, .pt = U, .error = -1 },
	{ "reserved address bit in the PML4E", .pml4 = RSVD, .error = PFERR_P | PFERR_RSVD },
	{ "reserved address bit in the PTE, by a user's write", .pt = RSVD, .access = PFERR_U | PFERR_W,
	  .error = PFERR_P | PFERR_RSVD | PFERR_U | PFERR_W },
	{ "PS in a PML4E is reserved", .pml4 = PS, .error = PFERR_P | PFERR_RSVD },
	{ "not present wins over reserved", .pt = P | RSVD, .error = 0 },
	{ "PTE's bit 7 is PAT, not PS", .pt = PS, .error = -1 },
};

static void long_mode_cases(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct walk_case *c = &cases[i];
		u64 la = 0x123456789abcULL & ~0xfffULL;
		struct walk_result out;
		bool good;

		set_mode(LONG, c->cr0, c->cr4, c->efer);
		m.vcpu->x86.rflags |= c->ac ? RFLAGS_AC : 0;
		put64(&m, ROOT + ((la >> 39) & 511) * 8, (PDPT | P | W | U) ^ c->pml4);
		put64(&m, PDPT + ((la >> 30) & 511) * 8, (PD | P | W | U) ^ c->pdpt);
		put64(&m, PD + ((la >> 21) & 511) * 8, (PT | P | W | U) ^ c->pd);
		put64(&m, PT + ((la >> 12) & 511) * 8, (FRAME | P | W | U) ^ c->pt);
		good = mmu_walk(m.vcpu, la + 0x123, c->access, c->implicit, &out);
		if (c->error < 0) {
			u64 pte = get64(&m, PT + ((la >> 12) & 511) * 8);

			tap_ok(good && out.gpa == FRAME + 0x123 && out.page_shift == 12 && (pte & A) &&
				       !(pte & D) == !(c->access & PFERR_W) && out.dirty == !!(c->access & PFERR_W),
			       "4-level: %s", c->name);
		} else if (!tap_ok(!good && out.error == c->error && !(get64(&m, PT + ((la >> 12) & 511) * 8) & (A | D)),
				   "4-level: %s: error %llx", c->name, (unsigned long long)c->error)) {
			tap_diag("got %s error %x", good ? "a translation, " : "", out.error);
		}
	}
}

static void large_pages(void)
{
	u64 la = 0xffff888040000000ULL, pdpte = PDPT + ((la >> 30) & 511) * 8, pde = PD + ((la >> 21) & 511) * 8;
	struct walk_result out;

	set_mode(LONG, CR0_WP, CR4_PGE, EFER_NX);
	put64(&m, ROOT + ((la >> 39) & 511) * 8, PDPT | P | W | U);
	put64(&m, pdpte, PD | P | W | U);
	put64(&m, pde, 0x400000 | P | W | PS | G);
	tap_ok(mmu_walk(m.vcpu, la + 0x12345, PFERR_W, false, &out) && out.gpa == 0x412345 && out.page_shift == 21 &&
		       out.global && !out.user && out.writable && (get64(&m, pde) & (A | D)) == (A | D) &&
		       (get64(&m, pdpte) & (A | D)) == A,
	       "4-level: 2 MiB page, dirty in the leaf alone");
	put64(&m, pde, 0x402000 | P | W | PS);
	tap_ok(!mmu_walk(m.vcpu, la, 0, false, &out) && out.error == (PFERR_P | PFERR_RSVD),
	       "4-level: 2 MiB page with a misaligned frame is reserved");
	put64(&m, pdpte, 0x40000000 | P | W | U | PS);
	tap_ok(mmu_walk(m.vcpu, la + 0x3abcdef, 0, false, &out) && out.gpa == 0x43abcdefULL && out.page_shift == 30,
	       "4-level: 1 GiB page");
	m.vcpu->features[CPUID_80000001_EDX] &= ~X86_FEATURE_BIT(X86_FEATURE_GBPAGES);
	tap_ok(!mmu_walk(m.vcpu, la, 0, false, &out) && out.error == (PFERR_P | PFERR_RSVD),
	       "4-level: 1 GiB page is reserved where CPUID has none");
	m.vcpu->features[CPUID_80000001_EDX] |= X86_FEATURE_BIT(X86_FEATURE_GBPAGES);
	put64(&m, ROOT + ((la >> 39) & 511) * 8, 0x10000000000ULL | P | W | U);
	tap_ok(!mmu_walk(m.vcpu, la, PFERR_W, false, &out) && out.error == PFERR_W,
	       "a page table outside of memory reads as not present");
}

static void legacy_modes(void)
{
	u32 la = 0x12345678;
	struct walk_result out;

	set_mode(OFF, 0, 0, 0);
	tap_ok(mmu_walk(m.vcpu, 0xfffff123, PFERR_W, false, &out) && out.gpa == 0xfffff123 && out.writable && out.user &&
		       out.executable && out.dirty,
	       "paging off: addresses are physical, everything is allowed");

	set_mode(BITS32, 0, 0, 0);
	put32(&m, ROOT + (la >> 22) * 4, PT | P | W | U);
	put32(&m, PT + ((la >> 12) & 1023) * 4, FRAME | P | W | U);
	tap_ok(mmu_walk(m.vcpu, la, PFERR_W | PFERR_U, false, &out) && out.gpa == FRAME + 0x678 &&
		       (get32(&m, PT + ((la >> 12) & 1023) * 4) & (A | D)) == (A | D),
	       "32-bit: 4 KiB page");
	put32(&m, PT + ((la >> 12) & 1023) * 4, 0);
	tap_ok(!mmu_walk(m.vcpu, la, PFERR_W, false, &out) && out.error == PFERR_W, "32-bit: not present");
	put32(&m, ROOT + (la >> 22) * 4, 0x400000 | P | W | PS);
	tap_ok(!mmu_walk(m.vcpu, la, 0, false, &out), "32-bit: PS is ignored without CR4.PSE");
	set_mode(BITS32, 0, CR4_PSE, 0);
	tap_ok(mmu_walk(m.vcpu, la, 0, false, &out) && out.gpa == 0x400000 + (la & 0x3fffff) && out.page_shift == 22,
	       "PSE: 4 MiB page");
	put32(&m, ROOT + (la >> 22) * 4, 0x400000 | 3 << 13 | P | W | PS);
	tap_ok(mmu_walk(m.vcpu, la, 0, false, &out) && out.gpa == 0x300400000ULL + (la & 0x3fffff),
	       "PSE-36: address bits 39:32 come from bits 20:13");
	put32(&m, ROOT + (la >> 22) * 4, 0x400000 | 1 << 21 | P | W | PS);
	tap_ok(!mmu_walk(m.vcpu, la, 0, false, &out) && out.error == (PFERR_P | PFERR_RSVD),
	       "PSE: bit 21 is reserved");

	set_mode(PAE, 0, 0, EFER_NX);
	put64(&m, ROOT, PD | P);
	put64(&m, ROOT + 8, 0);
	put64(&m, ROOT + 16, 0);
	put64(&m, ROOT + 24, 0);
	put64(&m, PD + ((la >> 21) & 511) * 8, PT | P | W | U);
	put64(&m, PT + ((la >> 12) & 511) * 8, FRAME | P | W | U | NX);
	tap_ok(mmu_load_pdptrs(m.vcpu, ROOT) && mmu_walk(m.vcpu, la, 0, false, &out) && out.gpa == FRAME + 0x678 &&
		       !out.executable,
	       "PAE: 4 KiB page, NX");
	tap_ok(!mmu_walk(m.vcpu, 0x40000000, PFERR_U, false, &out) && out.error == PFERR_U, "PAE: PDPTE not present");
	put64(&m, PT + ((la >> 12) & 511) * 8, FRAME | P | W | U | 1ULL << 52);
	tap_ok(!mmu_walk(m.vcpu, la, 0, false, &out) && out.error == (PFERR_P | PFERR_RSVD),
	       "PAE: bits 62:52 are reserved");
	put64(&m, ROOT, 0);
	put64(&m, PT + ((la >> 12) & 511) * 8, FRAME | P);
	tap_ok(mmu_walk(m.vcpu, la, 0, false, &out) && out.gpa == FRAME + 0x678,
	       "PAE: the PDPTEs in use are those that the load of CR3 read");
	put64(&m, ROOT, PD | P | W);
	tap_ok(!mmu_load_pdptrs(m.vcpu, ROOT), "PAE: a reserved bit in a PDPTE refuses the load");
	tap_ok(!mmu_load_pdptrs(m.vcpu, 0xfffff000), "PAE: PDPTEs outside of memory refuse the load");
}

static void debug_walk(void)
{
	u64 la = 0x1000;
	struct walk_result out;

	set_mode(LONG, CR0_WP, CR4_SMAP | CR4_SMEP, EFER_NX);
	put64(&m, ROOT, PDPT | P | U);
	put64(&m, PDPT, PD | P | U);
	put64(&m, PD, PT | P | U);
	put64(&m, PT + 8, FRAME | P | U | NX);
	tap_ok(mmu_walk_debug(m.vcpu, la, &out) && out.gpa == FRAME && !(get64(&m, PT + 8) & A) && !out.writable,
	       "a debugger's walk checks no rights and leaves no traces");
}

static void dirty_log(void)
{
	struct kvm_userspace_memory_region region = { .memory_size = MACHINE_RAM, .flags = KVM_MEM_LOG_DIRTY_PAGES,
						      .userspace_addr = (u64)(unsigned long)m.ram };
	u64 bitmap[MACHINE_RAM / 4096 / 64] = { 0 };
	struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
	struct walk_result out;

	set_mode(LONG, 0, 0, 0);
	put64(&m, ROOT, PDPT | P | W | A);
	put64(&m, PDPT, PD | P | W | A);
	put64(&m, PD, PT | P | W | A);
	put64(&m, PT + 8, FRAME | P | W);
	machine_ioctl(m.vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
	mmu_walk(m.vcpu, 0x1000, 0, false, &out);
	tap_ok(!machine_ioctl(m.vm_fd, KVM_GET_DIRTY_LOG, &log) && bitmap[(PT >> 12) / 64] & BIT64((PT >> 12) % 64) &&
		       !(bitmap[(PD >> 12) / 64] & BIT64((PD >> 12) % 64)),
	       "a page table whose accessed bit was set is logged as dirty, one that had it is not");
}

int main(void)
{
	tap_begin();
	machine_init(&m, 1, false);
	long_mode_cases();
	large_pages();
	legacy_modes();
	debug_walk();
	dirty_log();
	machine_destroy(&m);
	return tap_end();
}
