/*
 * The guest page walker: SDM 3A chapter 4 in one loop over levels. 64-bit entries (PAE, 4- and 5-level paging) and
 * 32-bit entries differ in size and in a few masks only, which struct paging gathers from CR0, CR4 and EFER.
 *
 * Accessed and dirty bits are set only when the access is allowed, by compare-and-exchange against what the walk read;
 * a guest that changes the entry meanwhile makes the walk start again.
 */
#include "core/x86/mmu/walk.h"

#include "core/vcpu.h"
#include "core/x86/cpuid.h"

#define PTE_P	BIT64(0)
#define PTE_W	BIT64(1)
#define PTE_U	BIT64(2)
#define PTE_A	BIT64(5)
#define PTE_D	BIT64(6)
#define PTE_PS	BIT64(7)
#define PTE_G	BIT64(8)
#define PTE_NX	BIT64(63)
#define PTE_GPA MASK64(51, 12)

/* SDM 3A tables 4-8 and following: in a PDPTE of PAE paging these are reserved besides the high address bits. */
#define PAE_PDPTE_RSVD (MASK64(2, 1) | MASK64(8, 5))

struct paging {
	u64 root;	   /* GPA of the first table */
	u64 rsvd;	   /* bits that must be zero in every entry */
	u8 level;	   /* of the first table */
	u8 entry_size;	   /* 4 or 8 */
	u8 index_bits;	   /* 10 or 9 */
	bool nx;	   /* bit 63 means no execution */
	bool large_2m;	   /* PS counts in level 2 */
	bool large_1g;	   /* PS counts in level 3 */
	bool absent;	   /* PAE: the PDPTE is not present */
};

static void paging_of(struct vcpu *vcpu, u64 la, struct paging *p)
{
	const struct x86_state *s = &vcpu->x86;

	p->absent = false;
	if (!(s->cr4 & CR4_PAE)) {
		p->root = s->cr3 & 0xfffff000U;
		p->rsvd = 0;
		p->level = 2;
		p->entry_size = 4;
		p->index_bits = 10;
		p->nx = false;
		p->large_2m = s->cr4 & CR4_PSE;
		p->large_1g = false;
		return;
	}
	p->entry_size = 8;
	p->index_bits = 9;
	p->nx = s->efer & EFER_NX;
	p->rsvd = vcpu->rsvd_gpa | (p->nx ? 0 : PTE_NX);
	p->large_2m = true;
	if (s->efer & EFER_LMA) {
		p->root = s->cr3 & PTE_GPA & ~vcpu->rsvd_gpa;
		p->level = s->cr4 & CR4_LA57 ? 5 : 4;
		p->large_1g = vcpu_has_feature(vcpu, X86_FEATURE_GBPAGES);
	} else {
		u64 pdpte = s->pdptr[(la >> 30) & 3];

		/* 4.4.2: bits 62:52 are reserved with PAE paging, ignored with 4-level paging */
		p->rsvd |= MASK64(62, 52);
		p->root = pdpte & PTE_GPA;
		p->level = 2;
		p->large_1g = false;
		p->absent = !(pdpte & PTE_P);
	}
}

/* Reserved bits of an entry that maps a page of 1 << @shift bytes. */
static u64 large_page_rsvd(struct vcpu *vcpu, const struct paging *p, unsigned shift)
{
	if (shift == 12)
		return 0;
	if (p->entry_size == 4) {
		/* PSE-36, table 4-4: bits 20:13 are address bits 39:32, so far as MAXPHYADDR goes; 21 is reserved */
		unsigned phys = MIN(vcpu->maxphyaddr, 40);

		return MASK64(21, 21) | (phys < 40 ? MASK64(20, 13 + MAX(phys, 32U) - 32) : 0);
	}
	return MASK64(shift - 1, 13);
}

static bool entry_read(struct vcpu *vcpu, u64 gpa, unsigned size, struct walk_entry *e)
{
	e->value = 0;
	e->gpa = gpa;
	e->hva = vm_gpa_to_hva(vcpu->vm, vcpu_as_id(vcpu), gpa, &e->slot);
	return e->hva && !host_copy_from_client(&e->value, e->hva, size);
}

/* Sets @bits in an entry that was read as e->value. 0; 1: it changed meanwhile, walk again. */
static int entry_set(struct vcpu *vcpu, struct walk_entry *e, unsigned size, u64 bits)
{
	u64 old = e->value, new = old | bits;
	int r;

	if (old == new || (e->slot->flags & KVM_MEM_READONLY))
		return 0;
	r = host_client_cmpxchg(e->hva, &old, &new, size);
	if (r)
		return r == 1;
	e->value = new;
	if (memslot_logs_dirty(e->slot))
		dirty_mark(vcpu->vm, vcpu, e->slot, e->gpa >> HOST_PAGE_SHIFT);
	return 0;
}

/* Whether SDM 3A 4.6.1 allows @access given the combined rights in @out. */
static bool access_allowed(const struct x86_state *s, u32 access, bool implicit, const struct walk_result *out)
{
	if (access & PFERR_U) {
		if (!out->user || ((access & PFERR_W) && !out->writable))
			return false;
		return !(access & PFERR_I) || out->executable;
	}
	if ((access & PFERR_W) && !out->writable && (s->cr0 & CR0_WP))
		return false;
	if (access & PFERR_I)
		return out->executable && !(out->user && (s->cr4 & CR4_SMEP));
	if (out->user && (s->cr4 & CR4_SMAP))
		return (s->rflags & RFLAGS_AC) && !implicit;
	return true;
}

static bool walk_once(struct vcpu *vcpu, u64 la, u32 access, bool implicit, bool debug, struct walk_result *out,
		      struct walk_trace *trace, bool *again)
{
	const struct x86_state *s = &vcpu->x86;
	/* The I/D bit is reported only where fetches can be told apart: 4.7 */
	u32 error = access & (PFERR_W | PFERR_U |
			      (((s->cr4 & CR4_PAE) && (s->efer & EFER_NX)) || (s->cr4 & CR4_SMEP) ? PFERR_I : 0));
	struct walk_entry *entries = trace->entry;
	struct paging p;
	unsigned n = 0, level;
	u64 table, value;

	*again = false;
	trace->count = 0;
	if (!(s->cr0 & CR0_PG)) {
		*out = (struct walk_result){ .gpa = la, .page_shift = 12, .user = true, .writable = true,
					     .executable = true, .dirty = true };
		return true;
	}
	paging_of(vcpu, la, &p);
	*out = (struct walk_result){ .user = true, .writable = true, .executable = true, .error = error };
	if (p.absent)
		return false;
	table = p.root;
	for (level = p.level;; level--) {
		unsigned shift = 12 + (level - 1) * p.index_bits;
		u64 index = (la >> shift) & ((1U << p.index_bits) - 1);
		bool leaf = level == 1;

		if (!entry_read(vcpu, table + index * p.entry_size, p.entry_size, &entries[n]))
			return false;
		value = entries[n++].value;
		if (!(value & PTE_P))
			return false;
		if (value & PTE_PS)
			leaf |= (level == 2 && p.large_2m) || (level == 3 && p.large_1g);
		if ((value & p.rsvd) || (leaf && (value & large_page_rsvd(vcpu, &p, shift))) ||
		    /* PS is reserved where it maps nothing, except that 32-bit paging without PSE ignores it */
		    (!leaf && (value & PTE_PS) && level >= 3)) {
			out->error = error | PFERR_P | PFERR_RSVD;
			return false;
		}
		if (level == 1 && p.entry_size == 8) {
			out->table = table;
			out->table_user = out->user;
			out->table_writable = out->writable;
			out->table_executable = out->executable;
		}
		out->user &= !!(value & PTE_U);
		out->writable &= !!(value & PTE_W);
		out->executable &= !(p.nx && (value & PTE_NX));
		table = value & (p.entry_size == 4 ? 0xfffff000ULL : PTE_GPA);
		if (leaf) {
			u64 offset = la & ((1ULL << shift) - 1);

			if (p.entry_size == 4 && shift == 22)
				table = (value & 0xffc00000U) | (u64)((value >> 13) & 0xff) << 32;
			out->gpa = (table & ~((1ULL << shift) - 1)) | offset;
			out->page_shift = shift;
			out->global = (value & PTE_G) && (s->cr4 & CR4_PGE);
			break;
		}
	}
	out->dirty = value & PTE_D;
	trace->count = n;
	if (debug)
		return true;
	if (!access_allowed(s, access, implicit, out)) {
		out->error = error | PFERR_P;
		return false;
	}
	for (unsigned i = 0; i < n; i++) {
		bool dirty = i == n - 1 && (access & PFERR_W);

		if (likely((entries[i].value & PTE_A) && (!dirty || (entries[i].value & PTE_D))))
			continue;
		if (entry_set(vcpu, &entries[i], p.entry_size, dirty ? PTE_A | PTE_D : PTE_A)) {
			*again = true;
			return false;
		}
	}
	out->dirty |= !!(access & PFERR_W);
	out->error = 0;
	return true;
}

bool mmu_walk_trace(struct vcpu *vcpu, u64 la, u32 access, bool implicit, struct walk_result *out, struct walk_trace *trace)
{
	bool again, good;

	do {
		good = walk_once(vcpu, la, access, implicit, false, out, trace, &again);
	} while (again);
	return good;
}

bool mmu_walk(struct vcpu *vcpu, u64 la, u32 access, bool implicit, struct walk_result *out)
{
	struct walk_trace trace;

	return mmu_walk_trace(vcpu, la, access, implicit, out, &trace);
}

bool mmu_walk_debug(struct vcpu *vcpu, u64 la, struct walk_result *out)
{
	struct walk_trace trace;
	bool again;

	return walk_once(vcpu, la, 0, false, true, out, &trace, &again);
}

bool mmu_load_pdptrs(struct vcpu *vcpu, u64 cr3)
{
	u64 pdptr[4];

	if (vm_read_guest(vcpu->vm, vcpu_as_id(vcpu), cr3 & 0xffffffe0U, pdptr, sizeof(pdptr)))
		return false;
	for (unsigned i = 0; i < 4; i++) {
		if ((pdptr[i] & PTE_P) && (pdptr[i] & (PAE_PDPTE_RSVD | vcpu->rsvd_gpa | MASK64(63, 52))))
			return false;
	}
	memcpy(vcpu->x86.pdptr, pdptr, sizeof(pdptr));
	return true;
}
