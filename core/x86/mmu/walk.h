/*
 * The guest's own page tables: linear to guest-physical, all paging modes (SDM 3A chapter 4). Sets accessed and dirty
 * bits as the CPU does, atomically.
 */
#ifndef CORE_X86_MMU_WALK_H
#define CORE_X86_MMU_WALK_H

#include "core/x86/x86.h"

struct vcpu;

struct walk_result {
	u64 gpa;	 /* of the linear address itself */
	u8 page_shift;	 /* 12, 21, 22, 30; with paging off: 12 */
	bool user, writable, executable, global; /* combined rights of all levels, CR0.WP etc. not applied */
	bool dirty;	 /* the D bit is set: a write needs no further walk */
	/* Of a walk of 64-bit entries that ended at a 4 KiB page: the table it ended in, and the rights without the last entry's. Else 0. */
	u64 table;
	bool table_user, table_writable, table_executable;
	u32 error;	 /* #PF error code when the walk failed */
};

#define WALK_LEVELS 5

/* Which entries a walk went through, from the top. */
struct walk_trace {
	unsigned count;
	struct walk_entry {
		u64 gpa, value; /* as the walk leaves it, accessed and dirty bits included */
		u64 hva;
		struct memslot *slot;
	} entry[WALK_LEVELS];
};

/**
 * Walks for an access of kind @access (PFERR_W, PFERR_U, PFERR_I; PFERR_U means CPL 3 or user-mode access). @implicit:
 * a system access that RFLAGS.AC does not excuse from SMAP. Returns true, or false with @out->error. In an srcu section.
 */
bool mmu_walk(struct vcpu *vcpu, u64 la, u32 access, bool implicit, struct walk_result *out);
/** The same, and how it went; @trace->count is 0 with paging off. */
bool mmu_walk_trace(struct vcpu *vcpu, u64 la, u32 access, bool implicit, struct walk_result *out, struct walk_trace *trace);
/** As mmu_walk for a debugger (KVM_TRANSLATE): no rights checked, no bits set. */
bool mmu_walk_debug(struct vcpu *vcpu, u64 la, struct walk_result *out);
/** PAE paging: loads the four PDPTEs from @cr3; false: reserved bits (#GP). */
bool mmu_load_pdptrs(struct vcpu *vcpu, u64 cr3);

#endif
