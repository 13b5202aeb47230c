/*
 * Guest memory as lite sees it: the two levels of software TLB and the emulator's memory operations over them.
 *
 * The first level (struct lite_view, one for CPL 0 to 2, one for CPL 3) holds host addresses; a hit means that the access
 * is permitted, marked in the dirty log and harmless to decoded code, so the handlers ask nothing more. The second level keeps what the
 * page tables said (struct lite_walk_entry), tagged by PCID through a generation number, and is what an address-space switch
 * preserves: a first-level miss that hits there costs a slot lookup, no walk.
 *
 * Isolation: a host address comes only out of memslot_find(), page by page, and the addend is applied only to
 * addresses whose first and last byte lie in the page of the tag. A guest can therefore reach nothing but its slots.
 *
 * When the client removes a slot, or write-protects it for its dirty log, lite_shootdown() has emptied every TLB
 * before the call returns; vm_slots()' generation is compared at every entry as well.
 */
#include <sys/mman.h>

#include "core/x86/debug.h"
#include "engines/lite/text.h"
#include "engines/lite/window.h"
#include "hosts/user/fault.h"

/*
 * What a flush costs is what there is to flush: each table has a bit set of the entries in use (lite_view.*_set), and of those that do not
 * belong to global pages. A switch to another address space (CR3) keeps the global ones, and puts the user view's others aside, to be
 * put back when that address space is current again and its PCID was not flushed meanwhile.
 */
int lite_tlb_init(struct lite_vcpu *c)
{
	c->l2 = host_zalloc_pages(LITE_L2_SIZE * sizeof(*c->l2));
	c->pcid_gen = host_zalloc_pages(4096 * sizeof(u64));
	c->scratch = host_zalloc_pages(2 * HOST_PAGE_SIZE);
	c->pde = host_zalloc_pages(LITE_PDE_SIZE * sizeof(*c->pde));
	c->saved = host_zalloc_pages(LITE_SAVED * sizeof(*c->saved));
	if (!c->l2 || !c->pcid_gen || !c->scratch || !c->pde || !c->saved)
		return -ENOMEM;
	/* Tables of some MiB that are hit here and there. Where large pages are not to be had, so be it. */
	madvise((void *)ROUND_DOWN((uintptr_t)c->views, HOST_PAGE_SIZE), sizeof(c->views), MADV_HUGEPAGE);
	c->view = &c->views[0];
	c->gen_next = 1;
	for (unsigned v = 0; v < 2; v++) {
		struct lite_view *view = &c->views[v];

		for (unsigned i = 0; i < LITE_TLB_SIZE; i++)
			view->tlb[i].r.tag = view->tlb[i].w.tag = LITE_TLB_NONE(i);
		for (unsigned i = 0; i < LITE_XTLB_SIZE; i++)
			view->x[i].tag = LITE_TAG_NONE;
		for (unsigned i = 0; i < LITE_JUMP_SIZE; i++)
			view->jump[i].va = LITE_JUMP_NONE;
		for (unsigned i = 0; i < LITE_JIT_JUMPS; i++)
			view->jit[i].va = LITE_JIT_JUMP_NONE(i);
	}
	lite_tlb_flush_all(c);
	return 0;
}

void lite_tlb_destroy(struct lite_vcpu *c)
{
	host_free_pages(c->l2, LITE_L2_SIZE * sizeof(*c->l2));
	host_free_pages(c->pcid_gen, 4096 * sizeof(u64));
	host_free_pages(c->scratch, 2 * HOST_PAGE_SIZE);
	host_free_pages(c->pde, LITE_PDE_SIZE * sizeof(*c->pde));
	host_free_pages(c->saved, LITE_SAVED * sizeof(*c->saved));
}

/* ---- the first level: entries that go ------------------------------------------------------------------------- */

/* A table as these functions see it: @stride words from tag to tag. */
struct table {
	u64 *used, *local, *used_top, *local_top, *tag;
	unsigned tops, stride;
	u64 none; /* 0: LITE_TLB_NONE() */
	bool jit; /* LITE_JIT_JUMP_NONE() */
};
#define TABLE(set, tags, type, none, jit) \
	{ (set).used, (set).local, (set).used_top, (set).local_top, (tags), ARRAY_SIZE((set).used_top), sizeof(type) / 8, none, jit }
#define TABLES 5

static inline void tables_of(struct lite_view *view, struct table t[TABLES])
{
	t[0] = (struct table)TABLE(view->r_set, &view->tlb[0].r.tag, view->tlb[0], 0, false);
	t[1] = (struct table)TABLE(view->w_set, &view->tlb[0].w.tag, view->tlb[0], 0, false);
	t[2] = (struct table)TABLE(view->x_set, &view->x[0].tag, view->x[0], LITE_TAG_NONE, false);
	t[3] = (struct table)TABLE(view->jump_set, &view->jump[0].va, view->jump[0], LITE_JUMP_NONE, false);
	t[4] = (struct table)TABLE(view->jit_set, &view->jit[0].va, view->jit[0], 0, true);
}

static inline void drop_one(const struct table *t, unsigned i)
{
	t->tag[i * t->stride] = t->none ? t->none : t->jit ? LITE_JIT_JUMP_NONE(i) : LITE_TLB_NONE(i);
}

/* Drops all entries, or the local ones. */
static inline void drop(const struct table *t, bool all)
{
	u64 *top = all ? t->used_top : t->local_top;

	for (unsigned n = 0; n < t->tops; n++) {
		for (u64 left = top[n]; left; left &= left - 1) {
			unsigned w = n * 64 + __builtin_ctzll(left);
			u64 bits = all ? t->used[w] : t->local[w];

			t->used[w] &= ~bits;
			t->local[w] = 0;
			for (; bits; bits &= bits - 1)
				drop_one(t, w * 64 + __builtin_ctzll(bits));
		}
		t->local_top[n] = 0;
		if (all)
			t->used_top[n] = 0;
	}
}

/* Of the word @w: those whose address is @la under @mask. */
static inline void drop_matching(const struct table *t, unsigned w, u64 la, u64 mask)
{
	for (u64 bits = t->used[w]; bits; bits &= bits - 1) {
		unsigned i = w * 64 + __builtin_ctzll(bits);
		u64 tag = t->tag[i * t->stride];

		if ((tag & mask) != (la & mask))
			continue;
		drop_one(t, i);
		t->used[w] &= ~BIT64(i % 64);
		t->local[w] &= ~BIT64(i % 64);
	}
}

/* Drops entries whose address is @la under @mask. */
static inline void drop_range(const struct table *t, u64 la, u64 mask)
{
	for (unsigned n = 0; n < t->tops; n++)
		for (u64 left = t->used_top[n]; left; left &= left - 1)
			drop_matching(t, n * 64 + __builtin_ctzll(left), la, mask);
}

/* Of the translator's jump cache, the entries of the page of @la: they lie together, in two places. */
static void drop_jit_page(const struct table *t, u64 la)
{
	unsigned first = lite_jit_hash(la & PAGE_MASK_) / 64;

	for (unsigned w = 0; w < (4096 >> LITE_JIT_JUMP_SHIFT) / 64; w++) {
		drop_matching(t, first + w, la, PAGE_MASK_);
		drop_matching(t, (first + w) ^ (LITE_JIT_JUMP_OTHER / 64), la, PAGE_MASK_);
	}
}

static void drop_local(struct lite_view *view)
{
	struct table t[TABLES];

	tables_of(view, t);
	for (unsigned i = 0; i < TABLES; i++)
		drop(&t[i], false);
}

static void drop_all(struct lite_view *view)
{
	struct table t[TABLES];

	tables_of(view, t);
	for (unsigned i = 0; i < TABLES; i++)
		drop(&t[i], true);
	memset(view->code_pages, 0, sizeof(view->code_pages));
}

void lite_jit_jumps_flush(struct lite_view *view)
{
	struct table t[TABLES];

	tables_of(view, t);
	drop(&t[4], true);
}

void lite_jumps_flush(struct lite_vcpu *c)
{
	struct table t[TABLES];

	c->count.flush_jumps++;
	for (unsigned v = 0; v < 2; v++) {
		tables_of(&c->views[v], t);
		drop(&t[3], true);
		drop(&t[4], true);
	}
	for (unsigned i = 0; i < LITE_SAVED; i++)
		c->saved[i].nr_jit = 0;
}

void lite_tlb_flush_exec(struct lite_vcpu *c)
{
	struct table t[TABLES];

	c->count.flush_exec++;
	c->text_check = true;
	lite_text_flushed(c);
	for (unsigned v = 0; v < 2; v++) {
		tables_of(&c->views[v], t);
		drop(&t[2], true);
	}
	for (unsigned i = 0; i < LITE_SAVED; i++)
		c->saved[i].nr_x = 0;
	c->check_seq++;
	lite_jumps_flush(c);
}

static void saved_writes_drop(struct lite_vcpu *c)
{
	for (unsigned i = 0; i < LITE_SAVED; i++)
		c->saved[i].nr_w = 0;
}

void lite_tlb_flush_writes(struct lite_vcpu *c)
{
	struct table t[TABLES];

	c->count.flush_writes++;
	for (unsigned v = 0; v < 2; v++) {
		tables_of(&c->views[v], t);
		drop(&t[1], true);
	}
	saved_writes_drop(c);
}

void lite_tlb_flush_writes_to(struct lite_vcpu *c, const u8 *host)
{
	for (unsigned v = 0; v < 2; v++) {
		struct lite_view *view = &c->views[v];

		for (unsigned w = 0; w < ARRAY_SIZE(view->w_set.used); w++)
			for (u64 bits = view->w_set.used[w]; bits; bits &= bits - 1) {
				unsigned i = w * 64 + __builtin_ctzll(bits);

				if (view->tlb[i].w.host == host)
					view->tlb[i].w.tag = LITE_TLB_NONE(i); /* its bit may stay */
			}
	}
	saved_writes_drop(c);
}

void lite_tlb_flush_first(struct lite_vcpu *c)
{
	drop_all(&c->views[0]);
	drop_all(&c->views[1]);
}

/* ---- the user view of other address spaces -------------------------------------------------------------------- */

/* Global pages are few in a user view, and not worth the care that INVLPG would need here: only local entries are kept. */
static void view_save(struct lite_vcpu *c, u64 gen)
{
	struct lite_view *view = &c->views[1];
	struct lite_saved *s = &c->saved[0];

	for (unsigned i = 0; i < LITE_SAVED; i++) {
		if (c->saved[i].gen == gen) {
			s = &c->saved[i];
			break;
		}
		if (c->saved[i].used < s->used)
			s = &c->saved[i];
	}
	s->gen = gen;
	s->used = ++c->saved_clock;
	s->jit_mode = view->jit_mode;
	s->nr_r = s->nr_w = s->nr_x = s->nr_jit = 0;
#define FOR_LOCAL(set)                                                                                                           \
	for (unsigned n_ = 0, w_, i; n_ < ARRAY_SIZE((set).local_top); n_++)                                                     \
		for (u64 left_ = (set).local_top[n_]; left_ && (w_ = n_ * 64 + __builtin_ctzll(left_), true); left_ &= left_ - 1) \
			for (u64 bits_ = (set).local[w_]; bits_ && (i = w_ * 64 + __builtin_ctzll(bits_), true); bits_ &= bits_ - 1)
	FOR_LOCAL(view->r_set) {
		if (s->nr_r == ARRAY_SIZE(s->r))
			break;
		if (view->tlb[i].r.tag == LITE_TLB_NONE(i))
			continue;
		s->r[s->nr_r].tag = view->tlb[i].r.tag;
		s->r[s->nr_r++].host = view->tlb[i].r.host;
	}
	FOR_LOCAL(view->w_set) {
		if (s->nr_w == ARRAY_SIZE(s->w))
			break;
		if (view->tlb[i].w.tag == LITE_TLB_NONE(i))
			continue;
		s->w[s->nr_w].tag = view->tlb[i].w.tag;
		s->w[s->nr_w++].host = view->tlb[i].w.host;
	}
	FOR_LOCAL(view->x_set) {
		if (s->nr_x == ARRAY_SIZE(s->x))
			break;
		if (view->x[i].tag == LITE_TAG_NONE)
			continue;
		s->x[s->nr_x++] = view->x[i];
	}
	FOR_LOCAL(view->jit_set) {
		if (s->nr_jit == ARRAY_SIZE(s->jit))
			break;
		if (view->jit[i].va == LITE_JIT_JUMP_NONE(i))
			continue;
		s->jit[s->nr_jit].va = view->jit[i].va;
		s->jit[s->nr_jit].to = view->jit[i].to;
		s->jit[s->nr_jit++].i = i;
	}
}

static u64 page_bit(u64 la, unsigned *word)
{
	unsigned hash = (la >> 12) % 4096 + (la >> 63) * 4096;

	*word = hash / 64;
	return BIT64(hash % 64);
}

static void view_restore(struct lite_vcpu *c, u64 gen)
{
	struct lite_view *view = &c->views[1];
	struct lite_saved *s = c->saved;
	unsigned word;

	while (s < c->saved + LITE_SAVED && s->gen != gen)
		s++;
	if (s == c->saved + LITE_SAVED)
		return;
	c->count.flush_restored++;
	s->gen = 0;
	s->used = 0;
	for (unsigned n = 0; n < s->nr_r; n++) {
		unsigned i = (s->r[n].tag >> 12) % LITE_TLB_SIZE;

		view->tlb[i].r.tag = s->r[n].tag;
		view->tlb[i].r.host = s->r[n].host;
		lite_set_add(&view->r_set, i, false);
	}
	for (unsigned n = 0; n < s->nr_w; n++) {
		unsigned i = (s->w[n].tag >> 12) % LITE_TLB_SIZE;

		view->tlb[i].w.tag = s->w[n].tag;
		view->tlb[i].w.host = s->w[n].host;
		lite_set_add(&view->w_set, i, false);
	}
	for (unsigned n = 0; n < s->nr_x; n++) {
		unsigned i = (s->x[n].tag >> 12) % LITE_XTLB_SIZE;
		u64 bit = page_bit(s->x[n].tag, &word);

		view->x[i] = s->x[n];
		view->code_pages[word] |= bit;
		lite_set_add(&view->x_set, i, false);
	}
	if (s->jit_mode != view->jit_mode && s->nr_jit) {
		lite_jit_jumps_flush(view);
		view->jit_mode = s->jit_mode;
	}
	for (unsigned n = 0; n < s->nr_jit; n++) {
		unsigned i = s->jit[n].i;
		u64 bit = page_bit(s->jit[n].va, &word);

		view->jit[i].va = s->jit[n].va;
		view->jit[i].to = s->jit[n].to;
		view->code_pages[word] |= bit;
		lite_set_add(&view->jit_set, i, false);
	}
}

/* ---- flushes ----------------------------------------------------------------------------------------------------- */

static unsigned current_pcid(const struct lite_vcpu *c)
{
	return c->vcpu.x86.cr4 & CR4_PCIDE ? c->vcpu.x86.cr3 & CR3_PCID_MASK : 0;
}

/* The generation under which walks of the current PCID are found. */
static void select_pcid(struct lite_vcpu *c)
{
	u64 *gen = &c->pcid_gen[current_pcid(c)];

	if (*gen <= c->gen_floor)
		*gen = ++c->gen_next;
	c->gen = *gen;
	c->pcid = current_pcid(c);
}

void lite_tlb_flush_all(struct lite_vcpu *c)
{
	c->count.flush_all++;
	c->text_check = true;
	lite_text_flushed(c);
	lite_window_close(c);
	memset(c->large, 0, sizeof(c->large));
	c->gen_floor = c->gen_next;
	c->gen_global = ++c->gen_next;
	select_pcid(c);
	lite_tlb_flush_first(c);
}

/* Another address space, or the same one after a flush, is current. */
static void switch_pcid(struct lite_vcpu *c)
{
	unsigned pcid = c->pcid;
	u64 old = c->gen;

	select_pcid(c);
	if (c->gen == old)
		return;
	c->text_stale |= !c->text_ok;
	/* Worth it only if it can come back: not when it was just flushed. */
	if ((c->vcpu.x86.cr4 & CR4_PCIDE) && c->pcid_gen[pcid] == old)
		view_save(c, old);
	drop_local(&c->views[0]);
	drop_all(&c->views[1]);
	view_restore(c, c->gen);
	lite_window_switched(c);
}

static void flush_pcid(struct lite_vcpu *c, unsigned pcid)
{
	c->count.flush_pcid++;
	c->pcid_gen[pcid & 0xfff] = ++c->gen_next;
	switch_pcid(c);
}

/*
 * Large pages are cached in 4 KiB pieces, but INVLPG has to drop all of a large page (SDM 3A 4.10.4.1). Pieces carry the number of
 * their 4 MiB, or of their 1 GiB, which INVLPG changes (lite_vcpu.large[], by hash; 0: there are no pieces).
 */
#define LARGE_4M(la) ((unsigned)(((la) >> 22 ^ (la) >> 36) % LITE_LARGE_4M))
#define LARGE_1G(la) (LITE_LARGE_4M + (unsigned)(((la) >> 30 ^ (la) >> 38) % LITE_LARGE_1G))

/*
 * Where a walk is remembered. The place of what is not global depends on the address space as well: processes are alike in what
 * they have where.
 */
static inline struct lite_walk_entry *l2_place(struct lite_vcpu *c, u64 la, bool global)
{
	return &c->l2[((la >> 12) + (global ? 0 : c->gen * 0x333)) % LITE_L2_SIZE];
}

static void flush_page(struct lite_vcpu *c, u64 la)
{
	u64 page = la & PAGE_MASK_;
	unsigned i = (page >> 12) % LITE_TLB_SIZE, x = (page >> 12) % LITE_XTLB_SIZE, word;
	u64 bit = page_bit(la, &word);
	struct table t[TABLES];

	c->count.flush_page++;
	/* The paging-structure caches go as a whole (4.10.4.1). */
	c->pde_seq++;
	for (unsigned global = 0; global < 2; global++) {
		struct lite_walk_entry *e = l2_place(c, la, global);

		if (e->la == page)
			e->gen = 0;
	}
	if (unlikely(c->large[LARGE_4M(la)] | c->large[LARGE_1G(la)])) {
		u64 mask = c->large[LARGE_1G(la)] ? ~MASK64(29, 0) : ~MASK64(21, 0);

		c->count.flush_large++;
		lite_text_flushed(c);
		if (c->large[LARGE_4M(la)])
			c->large[LARGE_4M(la)] = ++c->large_next;
		if (c->large[LARGE_1G(la)])
			c->large[LARGE_1G(la)] = ++c->large_next;
		/* What is put aside is other address spaces', and not global. */
		for (unsigned v = 0; v < 2; v++) {
			tables_of(&c->views[v], t);
			for (unsigned n = 0; n < TABLES; n++)
				drop_range(&t[n], la, mask);
		}
		lite_window_drop(c, la, mask);
		return;
	}
	lite_window_drop(c, la, PAGE_MASK_);
	for (unsigned v = 0; v < 2; v++) {
		struct lite_view *view = &c->views[v];

		/* Bits of what is gone may stay set. */
		if (view->tlb[i].r.tag == page)
			view->tlb[i].r.tag = LITE_TLB_NONE(i);
		if (view->tlb[i].w.tag == page)
			view->tlb[i].w.tag = LITE_TLB_NONE(i);
		if (view->x[x].tag == page)
			view->x[x].tag = LITE_TAG_NONE;
		/* Jumps outlive their page's exec entry. */
		if (!(view->code_pages[word] & bit))
			continue;
		tables_of(view, t);
		drop_range(&t[3], la, PAGE_MASK_);
		drop_jit_page(&t[4], la);
	}
}

void lite_tlb_flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg)
{
	struct lite_vcpu *c = to_lite(vcpu);

	switch (scope) {
	case TLB_PAGE:
		flush_page(c, arg);
		break;
	case TLB_NONGLOBAL:
	case TLB_PCID:
		flush_pcid(c, arg);
		c->seen_cr3 = vcpu->x86.cr3;
		break;
	case TLB_SWITCH:
		c->count.flush_switch++;
		switch_pcid(c);
		c->seen_cr3 = vcpu->x86.cr3;
		break;
	case TLB_ALL:
	case TLB_GPA:
	default:
		lite_tlb_flush_all(c);
	}
}

#define CR0_OF_TLB (CR0_PE | CR0_PG | CR0_WP)
#define CR4_OF_TLB (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_PCIDE | CR4_LA57 | CR4_PKE)
#define EFER_OF_TLB (EFER_NX | EFER_LMA)

static bool flat_segments(const struct x86_state *s)
{
	static const u8 segs[] = { SEG_CS, SEG_DS, SEG_ES, SEG_SS };

	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++) {
		const struct x86_segment *seg = &s->seg[segs[i]];

		if (seg->base || seg->limit != 0xffffffff || (seg->ar & AR_UNUSABLE))
			return false;
		/* Expand-down and read-only data, or execute-only code, need the checks of the slow path. */
		if (segs[i] != SEG_CS && (seg->ar & 0xe) != 2)
			return false;
	}
	return true;
}

void lite_refresh(struct lite_vcpu *c)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 generation;
	u32 mode;

	generation = vm_slots(c->vcpu.vm, vcpu_as_id(&c->vcpu))->generation;
	if (unlikely(((c->seen_cr0 ^ s->cr0) & CR0_OF_TLB) || ((c->seen_cr4 ^ s->cr4) & CR4_OF_TLB) ||
		     ((c->seen_efer ^ s->efer) & EFER_OF_TLB) || c->seen_smm != s->smm || c->seen_slots != generation)) {
		c->seen_slots = generation;
		c->seen_smm = s->smm;
		c->seen_cr3 = s->cr3;
		lite_tlb_flush_all(c);
	} else if (c->seen_cr3 != s->cr3) {
		/* Not by way of tlb_flush(): nothing is known of what went before. */
		c->seen_cr3 = s->cr3;
		flush_pcid(c, current_pcid(c));
	}
	if (c->seen_cr0 != s->cr0 || c->seen_cr4 != s->cr4 || c->seen_xcr0 != s->xcr0) {
		c->seen_xcr0 = s->xcr0;
		lite_fpu_refresh(c);
	}
	c->seen_cr0 = s->cr0;
	c->seen_cr4 = s->cr4;
	c->seen_efer = s->efer;

	mode = s->mode;
	if (mode == X86_MODE_PROT32 && flat_segments(s))
		mode |= LITE_MODE_FLAT;
	c->code_mode = mode;
	c->view = &c->views[s->cpl == 3];
	if (unlikely(c->view->code_mode != mode)) {
		struct table t[TABLES];

		c->view->code_mode = mode;
		tables_of(c->view, t);
		drop(&t[3], true);
	}
}

/* ---- walks ------------------------------------------------------------------------------------------------------- */

/* SDM 3A 4.6.1, for supervisor and for user accesses, with CR0 and CR4 as they are: a change of them flushes everything. */
static void rights_of(const struct x86_state *s, const struct walk_result *w, u8 rights[2], bool *private)
{
	/* Under SMAP, supervisor access to user pages depends on RFLAGS.AC: never cached. */
	*private = w->user && (s->cr4 & CR4_SMAP);
	rights[0] = *private ? 0 : LITE_MAY_READ;
	if (!*private && w->dirty && (w->writable || !(s->cr0 & CR0_WP)))
		rights[0] |= LITE_MAY_WRITE;
	if (w->executable && !(w->user && (s->cr4 & CR4_SMEP)))
		rights[0] |= LITE_MAY_EXEC;
	rights[1] = !w->user ? 0 : LITE_MAY_READ | (w->dirty && w->writable ? LITE_MAY_WRITE : 0) | (w->executable ? LITE_MAY_EXEC : 0);
}

/* The host's page at @gpa, or NULL; *@slot is where it lies. */
static u8 *gpa_to_host(struct lite_vcpu *c, u64 gpa, struct memslot **slot)
{
	u64 gfn = gpa >> 12;

	*slot = memslot_find(vm_slots(c->vcpu.vm, vcpu_as_id(&c->vcpu)), gfn);
	return *slot ? (u8 *)(*slot)->hva + ((gfn - (*slot)->base_gfn) << 12) : NULL;
}

#define PTE_P  BIT64(0)
#define PTE_W  BIT64(1)
#define PTE_U  BIT64(2)
#define PTE_A  BIT64(5)
#define PTE_D  BIT64(6)
#define PTE_G  BIT64(8)
#define PTE_NX BIT64(63)

static struct lite_pde *pde_entry(struct lite_vcpu *c, u64 la)
{
	return &c->pde[((la >> 21) ^ (la >> 30)) % LITE_PDE_SIZE];
}

/* A walk of one step, where the page table is known and says yes, accessed and dirty bits included. What is otherwise is a whole walk's. */
static bool walk_short(struct lite_vcpu *c, u64 la, u8 right, bool user, struct walk_result *w)
{
	const struct x86_state *s = &c->vcpu.x86;
	const struct lite_pde *p = pde_entry(c, la);
	const u64 *at;
	u8 rights[2];
	bool private;
	int err = 0;
	u64 pte;

	if (p->region != la >> 21 || p->gen != c->gen || p->seq != c->pde_seq)
		return false;
	at = &p->table[(la >> 12) % 512];
	__asm__ volatile("1: movq %[at], %[pte]\n2:\n" HOST_EX_ERROR("1b", "2b", "%k[err]")
			 : [err] "+&r"(err), [pte] "=&r"(pte)
			 : [at] "m"(*at));
	if (unlikely(err || (pte & (PTE_P | PTE_A)) != (PTE_P | PTE_A) ||
		     (pte & (c->vcpu.rsvd_gpa | (s->efer & EFER_NX ? 0 : PTE_NX)))))
		return false;
	w->gpa = pte & MASK64(51, 12);
	w->page_shift = 12;
	w->user = p->user && (pte & PTE_U);
	w->writable = p->writable && (pte & PTE_W);
	w->executable = p->executable && !((s->efer & EFER_NX) && (pte & PTE_NX));
	w->global = (pte & PTE_G) && (s->cr4 & CR4_PGE);
	w->dirty = pte & PTE_D;
	rights_of(s, w, rights, &private);
	c->count.tlb_pde++;
	return rights[user] & right;
}

/* Remembers the page table that a whole walk of 4-level paging ended in. */
static void pde_fill(struct lite_vcpu *c, u64 la, const struct walk_result *w)
{
	struct lite_pde *p = pde_entry(c, la);
	struct memslot *slot;
	u8 *host;

	if (!w->table || !(c->vcpu.x86.efer & EFER_LMA))
		return;
	host = gpa_to_host(c, w->table, &slot);
	if (!host)
		return;
	p->region = la >> 21;
	p->gen = c->gen;
	p->seq = c->pde_seq;
	p->table = (const u64 *)host;
	p->user = w->table_user;
	p->writable = w->table_writable;
	p->executable = w->table_executable;
}

static inline struct lite_walk_entry *l2_find(struct lite_vcpu *c, u64 la)
{
	/* The upper half is where the global pages are. */
	for (unsigned n = 0; n < 2; n++) {
		bool global = (la >> 63) ^ n;
		struct lite_walk_entry *e = l2_place(c, la, global);

		if (e->la == (la & PAGE_MASK_) && e->gen == (global ? c->gen_global : c->gen) &&
		    (!e->large || e->large == c->large[e->large_at]))
			return e;
	}
	return NULL;
}

struct lite_walk_entry *lite_walk_find(struct lite_vcpu *c, u64 la)
{
	return l2_find(c, la);
}

/* What the page tables say of the page of @la for this access; NULL: X86_FAULT, recorded. */
static struct lite_walk_entry *walk(struct lite_vcpu *c, u64 la, enum lite_access access, bool system)
{
	static const u32 pferr[] = { [LITE_READ] = 0, [LITE_WRITE] = PFERR_W, [LITE_EXEC] = PFERR_I };
	static const u8 right[] = { [LITE_READ] = LITE_MAY_READ, [LITE_WRITE] = LITE_MAY_WRITE, [LITE_EXEC] = LITE_MAY_EXEC };
	struct lite_walk_entry *e = l2_find(c, la);
	bool user = c->vcpu.x86.cpl == 3 && !system;
	struct walk_result w;

	if (e && (e->rights[user] & right[access])) {
		c->count.tlb_l2++;
		return e;
	}
	lite_fpu_spare(c);
	c->count.tlb_walk++;
	if (!walk_short(c, la, right[access], user, &w)) {
		if (!mmu_walk(&c->vcpu, la, pferr[access] | (user ? PFERR_U : 0), system, &w)) {
			emul_page_fault(&c->vcpu.emul, la, w.error);
			return NULL;
		}
		pde_fill(c, la, &w);
	}
	/* One entry for an address: it may not have been global, or it is no longer. */
	if (e)
		e->gen = 0;
	w.global = w.global && (c->vcpu.x86.cr4 & CR4_PGE);
	e = l2_place(c, la, w.global);
	e->la = la & PAGE_MASK_;
	e->gpa = w.gpa & PAGE_MASK_;
	e->global = w.global;
	e->gen = e->global ? c->gen_global : c->gen;
	e->large = 0;
	if (w.page_shift > 12) {
		e->large_at = w.page_shift == 30 ? LARGE_1G(la) : LARGE_4M(la);
		if (!c->large[e->large_at])
			c->large[e->large_at] = ++c->large_next;
		e->large = c->large[e->large_at];
	}
	rights_of(&c->vcpu.x86, &w, e->rights, &e->private);
	e->host = gpa_to_host(c, e->gpa, &e->slot);
	e->checked = c->check_seq - 1;
	return e;
}

/* The bit for writes of @gfn, and whether the page holds code. */
static inline bool note_written(struct lite_vm *lvm, u64 gfn)
{
	struct lite_gfns *g = lite_gfns(lvm, gfn, true);
	u64 bit = BIT64(gfn % 64);
	unsigned word = (gfn / 64) % 512;

	if (unlikely(!g))
		return true;
	/*
	 * The other side of page_make(): it sets the code bit, then clears the written bit and, if that was set, has all write entries
	 * dropped; here it is the other way round, so at least one of the two sees the other. A bit that is already set was seen
	 * before page_make() cleared it, and then the entry that is now made goes with the others.
	 */
	if (!(__atomic_load_n(&g->written[word], __ATOMIC_RELAXED) & bit))
		__atomic_fetch_or(&g->written[word], bit, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&g->code[word], __ATOMIC_SEQ_CST) & bit;
}

static inline void fill_read(struct lite_view *view, const struct lite_walk_entry *e)
{
	unsigned i = (e->la >> 12) % LITE_TLB_SIZE;

	view->tlb[i].r.host = e->host;
	view->tlb[i].r.tag = e->la;
	lite_set_add(&view->r_set, i, e->global);
}

static inline void fill_write(struct lite_view *view, const struct lite_walk_entry *e)
{
	unsigned i = (e->la >> 12) % LITE_TLB_SIZE;

	view->tlb[i].w.host = e->host;
	view->tlb[i].w.tag = e->la;
	lite_set_add(&view->w_set, i, e->global);
}

enum x86_result lite_translate(struct lite_vcpu *c, u64 la, enum lite_access access, bool system, struct lite_place *place)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	bool user = c->vcpu.x86.cpl == 3 && !system;
	struct lite_view *view = &c->views[user];
	struct lite_walk_entry *e;
	u64 gfn;

again:
	e = walk(c, la, access, system);
	if (!e)
		return X86_FAULT;
	place->gpa = e->gpa | (la & 0xfff);
	place->host = NULL;
	place->code = false;
	gfn = e->gpa >> 12;
	/* Memory may have come since; what was there cannot have gone. */
	if (unlikely(!e->host))
		e->host = gpa_to_host(c, e->gpa, &e->slot);
	if (!e->host || (access == LITE_WRITE && (e->slot->flags & KVM_MEM_READONLY)))
		return X86_CONTINUE;
	place->host = e->host + (la & 0xfff);
	switch (access) {
	case LITE_EXEC: {
		unsigned i = (e->la >> 12) % LITE_XTLB_SIZE, word;
		struct lite_exec_entry *x = &view->x[i];
		u64 bit;

		if (x->tag == e->la && x->gpa == e->gpa && x->host == e->host)
			break;
		if (e->checked != c->check_seq) {
			u64 flushes = c->flush_count;

			lite_code_validate(c, gfn, e->host);
			if (flushes != c->flush_count)
				goto again;
			e->checked = c->check_seq;
		}
		x->tag = e->la;
		x->gpa = e->gpa;
		x->host = e->host;
		x->global = e->global;
		lite_set_add(&view->x_set, i, e->global);
		bit = page_bit(la, &word);
		view->code_pages[word] |= bit;
		break;
	}
	case LITE_READ:
		if (e->private && !user)
			break;
		fill_read(view, e);
		c->count.tlb_fill++;
		break;
	case LITE_WRITE:
		if (memslot_logs_dirty(e->slot))
			dirty_mark(&lvm->vm, &c->vcpu, e->slot, gfn);
		place->code = note_written(lvm, gfn);
		if ((e->private && !user) || place->code)
			break;
		fill_write(view, e);
		c->count.tlb_fill++;
	}
	return X86_CONTINUE;
}

bool lite_tlb_fill(struct lite_vcpu *c, u64 la, unsigned size, bool write)
{
	struct lite_walk_entry *e = l2_find(c, la);
	bool user = c->vcpu.x86.cpl == 3;
	struct lite_place place;
	enum x86_result r;

	c->fill_fault = false;
	if ((la & 0xfff) + size > 4096)
		return false;
	/* A walk that is remembered was of a canonical address. */
	if (likely(e && (e->rights[user] & (write ? LITE_MAY_WRITE : LITE_MAY_READ)) && e->host &&
		   (!write || !(e->slot->flags & (KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES))))) {
		c->count.tlb_l2++;
		if (!write) {
			fill_read(c->view, e);
		} else {
			if (note_written(to_lite_vm(c->vcpu.vm), e->gpa >> 12))
				return false;
			fill_write(c->view, e);
		}
		c->count.tlb_fill++;
		return true;
	}
	if (!x86_is_canonical(la, 0))
		return false;
	r = lite_translate(c, la, write ? LITE_WRITE : LITE_READ, false, &place);
	if (r != X86_CONTINUE) {
		/* What is misaligned may have to raise #AC or #GP instead. */
		c->fill_fault = r == X86_FAULT && !(la & (size - 1));
		return false;
	}
	return lite_tlb_page(c->view, la, write)->tag == (la & PAGE_MASK_);
}

/* ---- the emulator's memory operations ------------------------------------------------------------------------ */

static enum x86_result efault(struct lite_vcpu *c, u64 gpa)
{
	c->efault = true;
	c->efault_gpa = gpa;
	return X86_RETRY;
}

static enum x86_result put(struct lite_vcpu *c, const struct lite_place *p, u64 la, bool system, const void *buf, unsigned len)
{
	if (!p->host)
		return vcpu_phys_write(&c->vcpu, p->gpa, buf, len);
	if (p->code)
		return lite_code_write(c, la, system, buf, len, NULL, NULL);
	return host_copy_to_client((u64)p->host, buf, len) ? efault(c, p->gpa) : X86_CONTINUE;
}

static enum x86_result get(struct lite_vcpu *c, const struct lite_place *p, void *buf, unsigned len)
{
	if (!p->host)
		return vcpu_phys_read(&c->vcpu, p->gpa, buf, len);
	return host_copy_from_client(buf, (u64)p->host, len) ? efault(c, p->gpa) : X86_CONTINUE;
}

static u64 next_page(const struct lite_vcpu *c, u64 la)
{
	la = (la & PAGE_MASK_) + 4096;
	return c->vcpu.x86.mode == X86_MODE_LONG ? la : (u32)la;
}

enum x86_result lite_read(struct emul *e, u64 la, void *buf, unsigned len, unsigned acc)
{
	struct lite_vcpu *c = emul_lite(e);
	enum lite_access access = acc & EMUL_ACC_RMW ? LITE_WRITE : LITE_READ;
	unsigned first = MIN(len, 4096 - (unsigned)(la & 0xfff));
	struct lite_place place, second;
	enum x86_result r;

	lite_fpu_spare(c);
	r = lite_translate(c, la, access, acc & EMUL_ACC_SYSTEM, &place);
	if (r != X86_CONTINUE)
		return r;
	if (unlikely(c->watching))
		c->debug_hits |= debug_data_hit(&c->vcpu, la, len, false);
	if (likely(first == len))
		return get(c, &place, buf, len);
	r = lite_translate(c, next_page(c, la), access, acc & EMUL_ACC_SYSTEM, &second);
	if (r == X86_CONTINUE)
		r = get(c, &place, buf, first);
	if (r == X86_CONTINUE)
		r = get(c, &second, (u8 *)buf + first, len - first);
	return r;
}

enum x86_result lite_write(struct emul *e, u64 la, const void *buf, unsigned len, unsigned acc)
{
	struct lite_vcpu *c = emul_lite(e);
	unsigned first = MIN(len, 4096 - (unsigned)(la & 0xfff));
	bool system = acc & EMUL_ACC_SYSTEM;
	struct lite_place place, second;
	enum x86_result r;

	lite_fpu_spare(c);
	r = lite_translate(c, la, LITE_WRITE, acc & EMUL_ACC_SYSTEM, &place);
	if (r != X86_CONTINUE)
		return r;
	if (unlikely(c->watching))
		c->debug_hits |= debug_data_hit(&c->vcpu, la, len, true);
	if (likely(first == len))
		return put(c, &place, la, system, buf, len);
	r = lite_translate(c, next_page(c, la), LITE_WRITE, acc & EMUL_ACC_SYSTEM, &second);
	if (r == X86_CONTINUE)
		r = put(c, &place, la, system, buf, first);
	if (r == X86_CONTINUE)
		r = put(c, &second, next_page(c, la), system, (const u8 *)buf + first, len - first);
	return r;
}

enum x86_result lite_probe(struct emul *e, u64 la, unsigned len, bool write, unsigned acc)
{
	struct lite_vcpu *c = emul_lite(e);
	enum lite_access access = write || (acc & EMUL_ACC_RMW) ? LITE_WRITE : LITE_READ;
	struct lite_place place;
	enum x86_result r;

	if (!len)
		return X86_CONTINUE;
	lite_fpu_spare(c);
	for (;;) {
		unsigned n = 4096 - (unsigned)(la & 0xfff);

		r = lite_translate(c, la, access, acc & EMUL_ACC_SYSTEM, &place);
		if (r != X86_CONTINUE || len <= n)
			return r;
		len -= n;
		la = next_page(c, la);
	}
}

static enum x86_result lite_fetch(struct emul *e, u64 la, void *buf, unsigned len)
{
	struct lite_vcpu *c = emul_lite(e);

	lite_fpu_spare(c);
	while (len) {
		unsigned n = MIN(len, 4096 - (unsigned)(la & 0xfff));
		struct lite_place place;
		enum x86_result r;

		r = lite_translate(c, la, LITE_EXEC, false, &place);
		if (r == X86_CONTINUE)
			r = get(c, &place, buf, n);
		if (r != X86_CONTINUE)
			return r;
		buf = (u8 *)buf + n;
		len -= n;
		la = next_page(c, la);
	}
	return X86_CONTINUE;
}

static enum x86_result lite_cmpxchg(struct emul *e, u64 la, void *old, const void *new, unsigned len, unsigned acc,
				    bool *done)
{
	struct lite_vcpu *c = emul_lite(e);
	bool system = acc & EMUL_ACC_SYSTEM;
	unsigned first = MIN(len, 4096 - (unsigned)(la & 0xfff));
	struct lite_place place, second;
	enum x86_result r;
	u8 was[16];
	int err;

	lite_fpu_spare(c);
	r = lite_translate(c, la, LITE_WRITE, system, &place);
	if (r != X86_CONTINUE)
		return r;
	if (unlikely(c->watching))
		c->debug_hits |= debug_data_hit(&c->vcpu, la, len, true);
	if (first == len && !place.host) {
		/* A device: the read was seen by it, as on a bus; nothing can come between that and the write. */
		*done = true;
		return vcpu_phys_write(&c->vcpu, place.gpa, new, len);
	}
	if (first == len) {
		if (place.code)
			return lite_code_write(c, la, system, new, len, old, done);
		if (la & (len - 1))
			err = lite_cmpxchg_unaligned(place.host, old, new, len);
		else
			err = host_client_cmpxchg((u64)place.host, old, new, len);
		if (err < 0)
			return efault(c, place.gpa);
		*done = !err;
		return X86_CONTINUE;
	}
	/*
	 * Across two pages: not atomic towards a store of another vCPU that comes between the two steps. No Linux does
	 * this (split locks are #AC or seconds of delay on hardware).
	 */
	r = lite_translate(c, next_page(c, la), LITE_WRITE, system, &second);
	if (r != X86_CONTINUE)
		return r;
	r = get(c, &place, was, first);
	if (r == X86_CONTINUE)
		r = get(c, &second, was + first, len - first);
	if (r != X86_CONTINUE)
		return r;
	*done = !memcmp(was, old, len);
	if (*done) {
		r = put(c, &place, la, system, new, first);
		if (r == X86_CONTINUE)
			r = put(c, &second, next_page(c, la), system, (const u8 *)new + first, len - first);
	}
	memcpy(old, was, len);
	return r;
}

static void lite_invlpg(struct emul *e, u64 la)
{
	struct lite_vcpu *c = emul_lite(e);

	lite_tlb_flush(&c->vcpu, TLB_PAGE, la);
}

static enum x86_result lite_in(struct emul *e, u16 port, unsigned size, u32 *value)
{
	struct lite_vcpu *c = emul_lite(e);

	if (unlikely(c->watching))
		c->debug_hits |= debug_io_hit(&c->vcpu, port, size);
	return vcpu_emul_ops.in(e, port, size, value);
}

static enum x86_result lite_out(struct emul *e, u16 port, unsigned size, u32 value)
{
	struct lite_vcpu *c = emul_lite(e);

	if (unlikely(c->watching))
		c->debug_hits |= debug_io_hit(&c->vcpu, port, size);
	return vcpu_emul_ops.out(e, port, size, value);
}

/* CPUID has these features only where the host has. */
static bool lite_random(struct emul *e, bool seed, u64 *value)
{
	bool ok;

	if (seed)
		__asm__ volatile("rdseed %0" : "=r"(*value), "=@ccc"(ok));
	else
		__asm__ volatile("rdrand %0" : "=r"(*value), "=@ccc"(ok));
	return ok;
}

static enum x86_result lite_pause(struct emul *e)
{
	/* The lock holder may be a vCPU whose thread waits for this very processor. */
	if (++emul_lite(e)->pauses % 64 == 0)
		host_cond_resched();
	return X86_CONTINUE;
}

static void lite_nothing(struct emul *e)
{
}

struct emul_ops lite_emul_ops;

void lite_emul_ops_init(void)
{
	lite_emul_ops = vcpu_emul_ops;
	lite_emul_ops.fetch = lite_fetch;
	lite_emul_ops.read = lite_read;
	lite_emul_ops.write = lite_write;
	lite_emul_ops.cmpxchg = lite_cmpxchg;
	lite_emul_ops.probe = lite_probe;
	lite_emul_ops.invlpg = lite_invlpg;
	lite_emul_ops.in = lite_in;
	lite_emul_ops.out = lite_out;
	lite_emul_ops.random = lite_random;
	lite_emul_ops.pause = lite_pause;
	lite_emul_ops.native = lite_native;
	if (!lite_emul_ops.mode_changed)
		lite_emul_ops.mode_changed = lite_nothing;
}
