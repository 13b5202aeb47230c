/*
 * Shadow tables: linear to host-physical, for processors that cannot nest. Each is made from a table of the guest's, entry by entry as faults
 * ask for them, and is found again by the guest page it was made from and by all else that its entries depend on (union shadow_role): so
 * roots and what hangs below them outlive the guest's switches of CR3.
 *
 * How they stay in step with the guest's. A page that is shadowed at all is write-protected; a guest's write to it faults, is emulated, and
 * shadow_written() drops what was made from the bytes. That is dear for the tables at the lowest level, which guests change most. Those
 * may be written freely once they have been written: they are then "unsync", as translations in a TLB are, and are compared with the
 * guest's again when the guest flushes (INVLPG: the one entry; a load of CR3 and others: all tables that are unsync).
 *
 * Every present entry stands on one chain: a link on that of its child's parents, a leaf on that of the guest page it maps. Chains run from
 * entry to entry (struct shadow_map). All this under the write lock.
 *
 *	shadow_table.c  these structures, and what happens to them from below: slots, the host, memory pressure
 *	shadow.c        roots, faults, flushes, writes: what the guest does
 */
#ifndef CORE_X86_MMU_SHADOW_H
#define CORE_X86_MMU_SHADOW_H

#include "core/x86/mmu/mmu_priv.h"

#define SHADOW_W 1
#define SHADOW_U 2
#define SHADOW_X 4
#define SHADOW_ALL 7

/* What besides the guest page a table depends on. */
union shadow_role {
	struct {
		u32 level : 3;	  /* of the shadow table */
		u32 direct : 1;	  /* no guest table: maps pages in a row (paging off, parts of a large page); the rest but access and as_id is 0 */
		u32 wide : 1;	  /* the guest's entries have 8 bytes, else 4 */
		u32 quadrant : 2; /* which part of a table of 4-byte entries, which covers 2 (level 1) or 4 (level 2) of ours */
		u32 access : 3;	  /* SHADOW_*: what the levels above leave */
		u32 long_mode : 1;
		u32 wp : 1;	  /* CR0.WP */
		u32 nx : 1;	  /* EFER.NX */
		u32 pse : 1;	  /* CR4.PSE, with 4-byte entries */
		u32 as_id : 1;
	};
	u32 word;
};
static_assert(sizeof(union shadow_role) == 4, "compared as a word");

struct shadow_list {
	struct shadow_list *next, *prev;
};

/* Beside each entry of a table. */
struct shadow_map {
	u64 *next; /* entry on its chain */
	u64 gfn;   /* of a leaf */
};

enum shadow_sync { SHADOW_SYNC, SHADOW_AWAITS /* protected again, to be compared */, SHADOW_UNSYNC };

struct shadow_table {
	u64 *entries;
	struct shadow_map *maps;
	union shadow_role role;
	struct shadow_vcpu *pdpt_of; /* its own, with 4 entries, which CR3 points to outside of long mode; else NULL */
	u8 sync;   /* enum shadow_sync; level 1 only */
	u8 writes; /* emulated ones since it was last of use */
	u64 gfn;   /* of the guest's table; direct: the first page mapped */
	u64 protected_at; /* mmu->stale when writes of the guest's table were made to fault: true on all processors when so much is flushed */
	u64 *parents;
	struct shadow_table *next;    /* made from the same guest page; dead: the next dead one */
	struct shadow_list all;	      /* shadow->tables */
	struct shadow_list unsettled; /* shadow->unsync, ->awaiting */
};

struct guest_page {
	u64 *maps;
	struct shadow_table *tables;
};

#define GUEST_PAGES 512

/* A row of guest pages, as long as a page of 2 MiB. */
struct guest_pages {
	struct guest_pages *next;
	u64 first;
	unsigned as_id;
	unsigned tables; /* not direct: pages must not be mapped as one */
	struct guest_page *page;
};

#define SHADOW_HASH 4096

struct shadow {
	struct guest_pages **hash;
	struct shadow_list tables; /* the last made, or used as a root, first */
	struct shadow_list unsync, awaiting;
	struct shadow_table *dead; /* taken out, not flushed */
	unsigned long nr_guest_tables; /* (a) not direct */
	u64 generation;		       /* (a) grows when a root goes */
	void *guest_table;	   /* a copy of one while it is compared */
};

/* One mapping takes up to 5 tables, and rows for these and for the page itself. */
#define SHADOW_STOCK_TABLES 8 /* also: 4 at once outside of long mode */
#define SHADOW_STOCK_ROWS   8

/* What the root depends on. */
struct shadow_key {
	u64 cr0, cr3, cr4, efer;
	unsigned as_id;
};

struct shadow_vcpu {
	struct shadow_table *tables[SHADOW_STOCK_TABLES];
	struct guest_pages *rows[SHADOW_STOCK_ROWS];
	unsigned nr_tables, nr_rows;
	struct shadow_table *pdpt, *root; /* root: while it holds, see root_holds() */
	u64 root_phys;
	struct shadow_key key;
	u64 generation; /* (a) of the root; 0: something is missing */
	bool flushed; /* the guest did: settle what is unsync, look at the root again */
};

static inline void list_init(struct shadow_list *l)
{
	l->next = l->prev = l;
}

static inline bool list_is_empty(const struct shadow_list *l)
{
	return l->next == l;
}

static inline void list_add(struct shadow_list *head, struct shadow_list *l)
{
	l->next = head->next;
	l->prev = head;
	head->next->prev = l;
	head->next = l;
}

static inline void list_remove(struct shadow_list *l)
{
	l->next->prev = l->prev;
	l->prev->next = l->next;
	list_init(l);
}

/* ---- shadow_table.c: all but the first three under the write lock ---------------------------------------------- */

/** Fills the vCPU's stock, and takes out old tables when there are too many. May sleep. 0 or -ENOMEM. */
int shadow_stock(struct mmu_vcpu *m);
struct shadow_table *shadow_table_alloc(bool low);
void shadow_table_free(struct shadow_table *t);

static inline struct shadow_table *shadow_table_of(const u64 *entry)
{
	void *page = (void *)ROUND_DOWN((uintptr_t)entry, HOST_PAGE_SIZE);

	return (struct shadow_table *)(uintptr_t)*host_page_private(page);
}

/** The table below a link. */
static inline struct shadow_table *shadow_child(u64 link)
{
	return shadow_table_of(entry_table(link));
}

/** NULL: nothing is known of it. */
struct guest_page *shadow_guest_page(struct mmu *mmu, unsigned as_id, u64 gfn);
/** Whether a guest's table is shadowed that lies in [@gfn, @gfn + @pages), a page or a row. */
bool shadow_tracks(struct mmu *mmu, u64 gfn, u64 pages);
/** The table of @role made from @gfn; from the stock when it is new, then its guest's table is write-protected. */
struct shadow_table *shadow_get_table(struct mmu_vcpu *m, u64 gfn, union shadow_role role);
/** Makes writes of the guest's table fault; of those that follow the next mmu_flush() none goes unseen. */
void shadow_protect(struct mmu *mmu, struct shadow_table *t);
static inline bool shadow_is_protected(struct mmu *mmu, const struct shadow_table *t)
{
	return t->protected_at <= __atomic_load_n(&mmu->flushed, __ATOMIC_SEQ_CST);
}
/** Takes @entry out. */
void shadow_drop(struct mmu *mmu, u64 *entry);
void shadow_set_link(struct mmu *mmu, u64 *entry, struct shadow_table *child);
void shadow_set_leaf(struct mmu_vcpu *m, u64 *entry, u64 gfn, u64 leaf);
void shadow_zap_table(struct mmu *mmu, struct shadow_table *t);
/** Frees tables that were zapped, after a flush. Without the lock. How many. */
unsigned long shadow_reap(struct mmu *mmu);

/* The parts of struct mmu_kind that are there. */
int shadow_create(struct mmu *mmu);
void shadow_destroy(struct mmu *mmu);
int shadow_vcpu_create(struct mmu_vcpu *m);
void shadow_vcpu_destroy(struct mmu_vcpu *m);
void shadow_zap(struct mmu *mmu, unsigned as, u64 start, u64 end);
void shadow_detach(struct mmu *mmu, unsigned as, u64 start, u64 end);
void shadow_write_protect(struct mmu *mmu, unsigned as, u64 start, u64 end);
bool shadow_age(struct mmu *mmu, unsigned as, u64 start, u64 end, bool clear);
void shadow_shrink(struct mmu *mmu, unsigned long nr);

#endif
