/*
 * What the files of core/x86/mmu share: the VM's and the vCPU's part, the way of one guest page into the tables, and how translations that
 * the hardware may still hold are flushed.
 *
 *	mmu.c     life, the client's address space and slots that change, a guest page's way
 *	nested.c  tables from guest-physical to host-physical
 *	shadow*   tables from linear to host-physical; see shadow.h
 *	entry.h   one entry of a table
 *	walk.c    the guest's own tables
 *
 * mmu->lock guards the tables. Nothing sleeps under it, so what needs memory takes it from the vCPU's stock, filled before, and what needs
 * a page of the client gets it before and asks afterwards, under the lock, whether it still stands there (mmu_page_holds()).
 *
 * A table or a page that was taken out may live on in the TLBs and paging-structure caches of processors that run the guest. So, in this order:
 * take it out under the lock and say so (mmu_stale()), unlock, mmu_flush(), and only then give it back (kind->reap()). Whoever has to be sure that a
 * translation is gone but finds nothing to take out still calls mmu_flush(): another thread may have taken it out and not flushed yet.
 */
#ifndef CORE_X86_MMU_PRIV_H
#define CORE_X86_MMU_PRIV_H

#include "core/x86/mmu/entry.h"

struct mmu {
	struct vm *vm;			     /* (i) */
	struct mmu_config config;	     /* (i) */
	const struct mmu_kind *kind;	     /* (i) */
	const struct entry_format *format;   /* (i) */
	struct host_mm_watch watch;
	struct host_shrinker shrinker;
	struct host_rwlock lock;
	bool gone;	    /* (a) the client's address space is */
	u64 stale, flushed; /* (a) how often something was taken out; up to which of these everybody has flushed */
	u64 nr_tables;	    /* (a) */

	/* Nested: one root for each of the VM's address spaces, there for as long as the VM is. */
	u64 *root[VM_ADDRESS_SPACES]; /* (i) */
	u64 dead;		      /* the first of the tables that were taken out, strung together by their owner's word */
	u64 shrink_gfn;		      /* where the shrinker goes on */
	u64 own_gfn, own_phys;	      /* mmu_own_page() */

	struct shadow *shadow; /* (i) shadow.h; NULL when nested */
};

/* As many tables as one mapping can need, and one to split a large page with. */
#define MMU_STOCK 6

struct mmu_vcpu {
	struct mmu *mmu;   /* (i) */
	struct vcpu *vcpu; /* (i) */
	void *stock[MMU_STOCK]; /* nested: zeroed pages */
	unsigned nr_stock;
	struct shadow_vcpu *shadow; /* (i) */
	/* The last page that no slot had, and the generation of slots in which that was so. */
	u64 hole_gfn, hole_generation;
	unsigned hole_as;
};

/* ---- mmu.c --------------------------------------------------------------------------------------------------- */

/* One guest page on its way into the tables. */
struct mmu_page {
	u64 gfn;
	unsigned as_id;
	bool write;		 /* what it is wanted for */
	struct memslots *slots;
	struct memslot *slot;
	u64 hva, seq;
	struct host_client_page client;
};

/** Gets what stands behind p->gfn, for p->write. MMU_FIXED: p is filled, mmu_page_put() is due. May sleep. */
enum mmu_fault mmu_page_get(struct mmu_vcpu *m, struct mmu_page *p, int *error);
/** Under the lock: is it still what the client and the slots say? If not, the guest's access is tried again. */
bool mmu_page_holds(struct mmu *mmu, const struct mmu_page *p);
/** Under the lock: the highest level at which the page can be mapped. */
unsigned mmu_page_level(struct mmu *mmu, const struct mmu_page *p);
/** May the guest write it (when it is heard of, if the slot is logged)? */
static inline bool mmu_page_may_write(const struct mmu_page *p)
{
	return p->client.writable && !(p->slot->flags & KVM_MEM_READONLY);
}
/** Does the hardware tell of writes by itself? */
static inline bool mmu_notes_writes(const struct mmu *mmu)
{
	return mmu->config.notes_writes && !mmu->vm->dirty_ring_bytes;
}
/** Is it to be mapped for writing now? */
static inline bool mmu_page_writes(const struct mmu *mmu, const struct mmu_page *p)
{
	return mmu_page_may_write(p) && (p->write || !memslot_logs_dirty(p->slot) || mmu_notes_writes(mmu));
}
void mmu_page_put(struct mmu_page *p);

/** Something is being taken out of the tables. Before it is, under the lock. */
static inline void mmu_stale(struct mmu *mmu)
{
	__atomic_fetch_add(&mmu->stale, 1, __ATOMIC_SEQ_CST);
}
/** When it returns no processor uses what had been taken out when it was called. Without the lock; does not sleep. */
void mmu_flush(struct mmu *mmu);

/* ---- the two kinds of tables ----------------------------------------------------------------------------------- */

/* Pages [@start, @end) are of address space @as. */
struct mmu_kind {
	int (*create)(struct mmu *mmu);
	void (*destroy)(struct mmu *mmu); /* also after a create() that failed */
	int (*vcpu_create)(struct mmu_vcpu *m);
	void (*vcpu_destroy)(struct mmu_vcpu *m);
	int (*load)(struct mmu_vcpu *m, u64 *root); /* mmu_load() */
	enum mmu_fault (*fault)(struct mmu_vcpu *m, u64 addr, u32 access, struct x86_event *ev, int *error);
	/* Under the write lock. */
	void (*zap)(struct mmu *mmu, unsigned as, u64 start, u64 end);	  /* takes out pages */
	void (*detach)(struct mmu *mmu, unsigned as, u64 start, u64 end); /* and the tables that are for these alone */
	void (*write_protect)(struct mmu *mmu, unsigned as, u64 start, u64 end); /* writes are to be heard of again */
	bool (*age)(struct mmu *mmu, unsigned as, u64 start, u64 end, bool clear);
	void (*shrink)(struct mmu *mmu, unsigned long nr); /* takes out about @nr tables, always others; all: ~0 */
	/* Without the lock: mmu_flush(), then frees the tables that had been taken out. How many. */
	unsigned long (*reap)(struct mmu *mmu);
};
extern const struct mmu_kind nested_kind, shadow_kind;

/* shadow.c */
void shadow_flushed(struct mmu_vcpu *m, enum tlb_scope scope, u64 arg);
void shadow_written(struct mmu *mmu, u64 gpa, unsigned len);

#endif
