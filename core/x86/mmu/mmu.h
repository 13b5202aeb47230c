/*
 * The tables that the hardware walks, for engines that run guests on it.
 *
 * Nested: guest-physical to host-physical (NPT: APM 2 15.25; EPT: SDM 3C 28.3). Shadow, for processors without it: linear to
 * host-physical, made from the guest's own tables and kept in step with them.
 */
#ifndef CORE_X86_MMU_MMU_H
#define CORE_X86_MMU_MMU_H

#include "core/vcpu.h"

enum mmu_format {
	MMU_X86, /* entries as in long mode: NPT, and every shadow table */
	MMU_EPT,
};

/* What the hardware can do; the engine fills it once. */
struct mmu_config {
	enum mmu_format format;
	bool nested;
	bool huge_1g;	      /* 1 GiB pages; 2 MiB ones are always there */
	bool accessed_dirty;  /* EPT: A and D bits work */
	bool notes_writes;    /* nested: setting a D bit is noted, and the engine calls dirty_mark(); not in VMs with dirty rings */
	u8 levels;	      /* of nested tables: 4, 5 */
	u8 phys_bits;	      /* of a host-physical address */
};

struct mmu;	 /* one a VM */
struct mmu_vcpu; /* one a vCPU */

/** 0 or -errno. The engine's vm_init() and vcpu_init() call these; the VM's process is the calling one. */
int mmu_create(struct vm *vm, const struct mmu_config *config, struct mmu **mmu);
void mmu_destroy(struct mmu *mmu);
int mmu_vcpu_create(struct mmu *mmu, struct vcpu *vcpu, struct mmu_vcpu **m);
void mmu_vcpu_destroy(struct mmu_vcpu *m);

/**
 * The root table for the vCPU as it is now (paging mode, CR3, SMM), made when there is none: what nCR3, EPTP or, shadowed, CR3 point to.
 * For vcpu_run(), before each entry; cheap when nothing changed. While something is made the vCPU counts as out of guest code; when it cannot
 * count as in it again because of a request, vcpu_must_exit() says so, and the root is not to be entered with. In the vCPU's srcu section; may
 * sleep. 0, -ENOMEM, -EFAULT.
 *
 * Shadow roots are of long mode's format (4 levels; 5 with CR4.LA57) when EFER.LMA is set; else of PAE paging's, below 4 GiB, whose four
 * PDPTEs the processor has to load again at each entry. The processor runs on them with CR0.PG, CR0.WP, CR4.PAE and EFER.NX set and with
 * the guest's CR4.SMEP and SMAP while it has paging on; no entry is global. MOV to CR3, INVLPG and #PF exit. PCID, INVPCID and
 * protection keys are not for a guest on them: the engine hides their CPUID bits.
 */
int mmu_load(struct mmu_vcpu *m, u64 *root);

enum mmu_fault {
	MMU_FIXED,   /* enter again */
	MMU_EMULATE, /* a device, a read-only slot, a page table that is tracked: the instruction is emulated (EXIT_EMULATE) */
	MMU_INJECT,  /* shadow: the fault is the guest's own, @ev is it */
	MMU_ERROR,   /* @error: -EFAULT, -EHWPOISON, -ENOMEM, -EINTR */
};
/**
 * An exit for a translation that is missing or forbids: @addr is guest-physical when nested, else linear. @access: PFERR_W, PFERR_U,
 * PFERR_I, PFERR_P as the hardware told. In the vCPU's srcu section; may sleep, and therefore makes the vCPU count as out of guest code
 * (vcpu_leave_guest()): whoever changes the client's memory waits for those who are in it. Afterwards return from vcpu_run() with EXIT_NONE,
 * or vcpu_enter_guest() first.
 */
enum mmu_fault mmu_fault(struct mmu_vcpu *m, u64 addr, u32 access, struct x86_event *ev, int *error);
/** The exit that MMU_ERROR is, or that mmu_load() failed: KVM_RUN gives @error. */
void mmu_error_exit(struct vcpu *vcpu, int error, struct engine_exit *exit);

/** Shadow: the guest flushed translations (engine->tlb_flush), or they changed their meaning. The hardware's own TLB is the engine's to flush.
 *  TLB_PAGE: in the vCPU's srcu section. */
void mmu_guest_flush(struct mmu_vcpu *m, enum tlb_scope scope, u64 arg);
/** Shadow: core (the emulator) wrote guest memory; what was made from it is dropped. See vm_guest_written(). */
void mmu_guest_written(struct mmu *mmu, u64 gpa, unsigned len);
/** Shadow: the client may have written any of guest memory, the guest's tables too; all that was made from them is dropped. May sleep; the
 *  calling vCPU, if one does, is out of guest code. See vm_guest_replaced(). */
void mmu_guest_replaced(struct mmu *mmu);

/**
 * Nested: from now on the page @phys of the engine's is at @gfn, wherever no slot is; @phys 0: no more, and when it returns no vCPU uses it.
 * A vCPU that calls is out of guest code.
 */
void mmu_own_page(struct mmu *mmu, u64 gfn, u64 phys);

/* engine->slot_flush, slot_write_protect, slot_flush_done are these. Translations that the hardware may hold are flushed by REQ_TLB_FLUSH to
 * every vCPU, waited for; it comes back as engine->tlb_flush(TLB_GPA), which must drop everything (INVEPT, a new ASID). */
void mmu_slot_flush(struct mmu *mmu, const struct memslot *old);
void mmu_slot_write_protect(struct mmu *mmu, const struct memslot *slot, u64 gfn_offset, u64 mask);
void mmu_slot_flush_done(struct mmu *mmu);

#endif
