/*
 * Nested tables: guest-physical to host-physical, indexed by the page number, one tree for each of the VM's address spaces (the second is
 * what a vCPU in SMM sees). NPT: APM 2 15.25; EPT: SDM 3C 28.3.
 *
 * Faults of several vCPUs go on at once, under the read lock: each step is one compare-and-exchange, and who loses one lets the guest
 * fault again. A table leaves the tree only under the write lock.
 */
#include "core/x86/mmu/mmu_priv.h"

/* ---- walking ------------------------------------------------------------------------------------------------- */

/* The entry for @gfn at *@level, or higher where the tree ends before; *@level tells. */
static u64 *find(struct mmu *mmu, u64 *table, u64 gfn, unsigned *level)
{
	unsigned at = mmu->config.levels;

	for (;; at--) {
		u64 *entry = &table[level_index(gfn, at)], value = entry_load(entry);

		if (at == *level || !entry_is_link(mmu->format, value, at)) {
			*level = at;
			return entry;
		}
		table = entry_table(value);
	}
}

struct range {
	struct mmu *mmu;
	u64 start, end; /* page numbers */
	/* For each entry that is present in the range; @whole: it stands for nothing outside. True: go on below a link. */
	bool (*visit)(struct range *r, u64 *entry, unsigned level, bool whole);
	u64 gfn; /* the entry's first */
	bool clear, found;
	unsigned long quota;
};

/* Over [@gfn, end) of @table, whose first page is that of @gfn rounded down. */
static void over_table(struct range *r, u64 *table, unsigned level, u64 gfn, u64 end)
{
	while (gfn < end) {
		u64 *entry = &table[level_index(gfn, level)], value = entry_load(entry);
		u64 first = ROUND_DOWN(gfn, level_pages(level)), next = first + level_pages(level);

		r->gfn = first;
		if (entry_is_present(r->mmu->format, value) &&
		    r->visit(r, entry, level, gfn == first && next <= end) && entry_is_link(r->mmu->format, value, level))
			over_table(r, entry_table(value), level - 1, gfn, MIN(next, end));
		gfn = next;
	}
}

static void over(struct range *r, unsigned as)
{
	u64 end = MIN(r->end, level_pages(r->mmu->config.levels + 1));

	over_table(r, r->mmu->root[as], r->mmu->config.levels, r->start, end);
}

/* ---- taking away --------------------------------------------------------------------------------------------- */

static bool visit_zap(struct range *r, u64 *entry, unsigned level, bool whole)
{
	if (entry_is_link(r->mmu->format, entry_load(entry), level))
		return true;
	mmu_stale(r->mmu);
	entry_store(entry, 0);
	return false;
}

static void zap(struct mmu *mmu, unsigned as, u64 start, u64 end)
{
	struct range r = { .mmu = mmu, .start = start, .end = end, .visit = visit_zap };

	over(&r, as);
}

/* Tables are page-aligned: there is room for their level beside their address. */
static void condemn(struct mmu *mmu, u64 *table, unsigned level)
{
	*host_page_private(table) = mmu->dead;
	mmu->dead = (uintptr_t)table | level;
}

static bool visit_detach(struct range *r, u64 *entry, unsigned level, bool whole)
{
	u64 value = entry_load(entry);
	bool link = entry_is_link(r->mmu->format, value, level);

	if (link && !whole)
		return true;
	mmu_stale(r->mmu);
	entry_store(entry, 0);
	if (link)
		condemn(r->mmu, entry_table(value), level - 1);
	return false;
}

static void detach(struct mmu *mmu, unsigned as, u64 start, u64 end)
{
	struct range r = { .mmu = mmu, .start = start, .end = end, .visit = visit_detach };

	over(&r, as);
}

static bool visit_shrink(struct range *r, u64 *entry, unsigned level, bool whole)
{
	u64 value = entry_load(entry);

	if (!r->quota || level > 2 || !entry_is_link(r->mmu->format, value, level))
		return r->quota;
	r->quota--;
	r->mmu->shrink_gfn = r->gfn + 1;
	return visit_detach(r, entry, level, true);
}

static void shrink(struct mmu *mmu, unsigned long nr)
{
	u64 all = level_pages(mmu->config.levels + 1);
	struct range r = { .mmu = mmu, .start = mmu->shrink_gfn, .end = all, .visit = visit_shrink, .quota = nr };

	if (nr == ~0UL) {
		for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++)
			detach(mmu, as, 0, all);
		return;
	}
	over(&r, 0);
	if (r.quota) {
		r.start = mmu->shrink_gfn = 0;
		over(&r, 0);
	}
}

static bool visit_protect(struct range *r, u64 *entry, unsigned level, bool whole)
{
	u64 right = ENTRY_W;

	if (entry_is_link(r->mmu->format, entry_load(entry), level))
		return true;
	/* What a write that sets D will tell is not asked for by a fault */
	if (level == 1 && mmu_notes_writes(r->mmu))
		right = r->mmu->format->dirty;
	if (entry_load(entry) & right) {
		mmu_stale(r->mmu);
		entry_clear(entry, right);
	}
	return false;
}

static void write_protect(struct mmu *mmu, unsigned as, u64 start, u64 end)
{
	struct range r = { .mmu = mmu, .start = start, .end = end, .visit = visit_protect };

	over(&r, as);
}

/* The TLBs keep what they have: a page that is in use there looks idle until it leaves them, as with the host's own tables. */
static bool visit_age(struct range *r, u64 *entry, unsigned level, bool whole)
{
	u64 value = entry_load(entry);

	if (entry_is_link(r->mmu->format, value, level))
		return true;
	if (!r->mmu->config.accessed_dirty) {
		/* What the hardware does not tell, the next fault will. */
		r->found = true;
		return r->clear && visit_zap(r, entry, level, whole);
	}
	if (value & r->mmu->format->accessed) {
		r->found = true;
		if (r->clear)
			entry_clear(entry, r->mmu->format->accessed);
	}
	return false;
}

static bool age(struct mmu *mmu, unsigned as, u64 start, u64 end, bool clear)
{
	struct range r = { .mmu = mmu, .start = start, .end = end, .visit = visit_age, .clear = clear };

	over(&r, as);
	return r.found;
}

static unsigned long free_tree(const struct entry_format *f, u64 *table, unsigned level)
{
	unsigned long count = 1;

	for (unsigned i = 0; level > 1 && i < ENTRIES; i++)
		if (entry_is_link(f, table[i], level))
			count += free_tree(f, entry_table(table[i]), level - 1);
	host_page_free(table);
	return count;
}

static unsigned long reap(struct mmu *mmu)
{
	unsigned long count = 0;
	u64 dead;

	host_write_lock(&mmu->lock);
	dead = mmu->dead;
	mmu->dead = 0;
	host_write_unlock(&mmu->lock);
	mmu_flush(mmu);
	while (dead) {
		u64 *table = (u64 *)(uintptr_t)ROUND_DOWN(dead, HOST_PAGE_SIZE), next = *host_page_private(table);

		count += free_tree(mmu->format, table, dead % HOST_PAGE_SIZE);
		dead = next;
	}
	__atomic_fetch_sub(&mmu->nr_tables, count, __ATOMIC_RELAXED);
	return count;
}

/* ---- faults -------------------------------------------------------------------------------------------------- */

/* The parts of the large page @large: their writes are to be heard of. */
static void split(const struct entry_format *f, u64 *table, u64 large, unsigned level)
{
	u64 part = large & ~ENTRY_W;

	if (level == 1)
		part &= ~ENTRY_LARGE;
	for (unsigned i = 0; i < ENTRIES; i++)
		table[i] = part + ((u64)i << (HOST_PAGE_SHIFT + level_bits(level)));
}

static int stock(struct mmu_vcpu *m)
{
	while (m->nr_stock < MMU_STOCK) {
		void *page = host_page_alloc();

		if (!page)
			return -ENOMEM;
		m->stock[m->nr_stock++] = page;
	}
	return 0;
}

enum install { INSTALLED, AGAIN, COLLAPSE };

/* Puts @leaf, which maps @gfn at @level, into the tree. COLLAPSE: a table stands where it belongs. */
static enum install install(struct mmu_vcpu *m, u64 *table, u64 gfn, unsigned level, u64 leaf)
{
	struct mmu *mmu = m->mmu;
	const struct entry_format *f = mmu->format;
	u64 *entry, old;

	for (unsigned at = mmu->config.levels; at > level; at--) {
		u64 *below;

		entry = &table[level_index(gfn, at)];
		old = entry_load(entry);
		if (entry_is_link(f, old, at)) {
			table = entry_table(old);
			continue;
		}
		below = m->stock[--m->nr_stock];
		if (old) {
			split(f, below, old, at - 1);
			mmu_stale(mmu);
		}
		if (!entry_exchange(entry, old, entry_link(f, below))) {
			memset(below, 0, HOST_PAGE_SIZE);
			m->stock[m->nr_stock++] = below;
			return AGAIN;
		}
		__atomic_fetch_add(&mmu->nr_tables, 1, __ATOMIC_RELAXED);
		table = below;
	}
	entry = &table[level_index(gfn, level)];
	old = entry_load(entry);
	if (entry_is_link(f, old, level))
		return COLLAPSE;
	/* Another vCPU may have been here first, and more may be allowed to it. Rights go only where they are taken. */
	if (!((old ^ leaf) & ENTRY_ADDR))
		leaf |= old;
	else if (old)
		mmu_stale(mmu);
	return entry_exchange(entry, old, leaf) ? INSTALLED : AGAIN;
}

static u64 leaf_of(struct mmu *mmu, const struct mmu_page *p, unsigned level)
{
	const struct entry_format *f = mmu->format;
	u64 leaf = p->client.phys & ENTRY_ADDR & ~((level_pages(level) << HOST_PAGE_SHIFT) - 1);

	leaf |= f->read | f->user | f->exec | f->accessed | (p->client.memory ? f->memory : f->device);
	if (level > 1)
		leaf |= ENTRY_LARGE;
	if (mmu_page_may_write(p))
		leaf |= ENTRY_MAY_WRITE;
	/* Of pages whose writes nobody asks for none is noted */
	if (mmu_page_writes(mmu, p))
		leaf |= ENTRY_W | (p->write || (mmu_notes_writes(mmu) && !memslot_logs_dirty(p->slot)) ? f->dirty : 0);
	return leaf;
}

static enum install map(struct mmu_vcpu *m, struct mmu_page *p)
{
	unsigned level = mmu_page_level(m->mmu, p);

	return install(m, m->mmu->root[p->as_id], p->gfn, level, leaf_of(m->mmu, p, level));
}

/* A huge page where smaller ones were: their table goes. */
static void collapse(struct mmu_vcpu *m, struct mmu_page *p)
{
	struct mmu *mmu = m->mmu;

	host_write_lock(&mmu->lock);
	if (mmu_page_holds(mmu, p)) {
		u64 pages = level_pages(mmu_page_level(mmu, p)), first = ROUND_DOWN(p->gfn, pages);

		detach(mmu, p->as_id, first, first + pages);
		map(m, p);
	}
	host_write_unlock(&mmu->lock);
	reap(mmu);
}

/* The page of the engine's, if it is that. */
static bool map_own(struct mmu_vcpu *m, const struct mmu_page *p)
{
	struct mmu *mmu = m->mmu;
	const struct entry_format *f = mmu->format;
	bool own;

	host_read_lock(&mmu->lock);
	own = mmu->own_phys && p->gfn == mmu->own_gfn && !mmu->gone;
	if (own)
		install(m, mmu->root[p->as_id], p->gfn, 1, mmu->own_phys | f->read | f->user | f->accessed | f->dirty | f->memory | ENTRY_W);
	host_read_unlock(&mmu->lock);
	return own;
}

/* A write to a page that is write-protected for the dirty log alone: the host need not be asked. The mark comes after the right: who takes
 * marks takes the right afterwards, so whatever was written before is marked, now or then. */
static bool let_write(struct mmu_vcpu *m, unsigned as, u64 gfn)
{
	struct mmu *mmu = m->mmu;
	unsigned level = 1;
	u64 *entry, old;
	bool done = false;

	host_read_lock(&mmu->lock);
	entry = find(mmu, mmu->root[as], gfn, &level);
	old = entry_load(entry);
	if (entry_is_present(mmu->format, old) && (old & ENTRY_W)) {
		done = true; /* by another vCPU */
	} else if (level == 1 && entry_is_present(mmu->format, old) && (old & ENTRY_MAY_WRITE)) {
		struct memslot *slot = memslot_find(vm_slots(mmu->vm, as), gfn);

		done = slot && entry_exchange(entry, old, old | ENTRY_W | mmu->format->accessed | mmu->format->dirty);
		if (done)
			dirty_mark(mmu->vm, m->vcpu, slot, gfn);
	}
	host_read_unlock(&mmu->lock);
	return done;
}

static enum mmu_fault fault(struct mmu_vcpu *m, u64 gpa, u32 access, struct x86_event *ev, int *error)
{
	struct mmu *mmu = m->mmu;
	struct mmu_page p = { .gfn = gpa >> HOST_PAGE_SHIFT, .as_id = vcpu_as_id(m->vcpu), .write = access & PFERR_W };
	enum install done = AGAIN;
	enum mmu_fault r;

	if (p.gfn >= level_pages(mmu->config.levels + 1))
		return MMU_EMULATE;
	if ((access & (PFERR_P | PFERR_W)) == (PFERR_P | PFERR_W) && let_write(m, p.as_id, p.gfn))
		return MMU_FIXED;
	*error = stock(m);
	if (*error)
		return MMU_ERROR;
	r = mmu_page_get(m, &p, error);
	if (r == MMU_EMULATE && !p.slot && map_own(m, &p))
		return MMU_FIXED;
	if (r != MMU_FIXED)
		return r;
	host_read_lock(&mmu->lock);
	if (mmu_page_holds(mmu, &p))
		done = map(m, &p);
	if (done == INSTALLED && p.write && mmu_page_may_write(&p))
		dirty_mark(mmu->vm, m->vcpu, p.slot, p.gfn);
	host_read_unlock(&mmu->lock);
	if (done == COLLAPSE)
		collapse(m, &p);
	else
		mmu_flush(mmu);
	mmu_page_put(&p);
	return MMU_FIXED;
}

void mmu_own_page(struct mmu *mmu, u64 gfn, u64 phys)
{
	host_write_lock(&mmu->lock);
	for (unsigned as = 0; mmu->own_phys && as < VM_ADDRESS_SPACES; as++)
		zap(mmu, as, mmu->own_gfn, mmu->own_gfn + 1);
	mmu->own_gfn = gfn;
	mmu->own_phys = phys;
	host_write_unlock(&mmu->lock);
	mmu_flush(mmu);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static int load(struct mmu_vcpu *m, u64 *root)
{
	*root = host_page_phys(m->mmu->root[vcpu_as_id(m->vcpu)]);
	return 0;
}

static int create_vcpu(struct mmu_vcpu *m)
{
	return 0;
}

static void destroy_vcpu(struct mmu_vcpu *m)
{
	while (m->nr_stock)
		host_page_free(m->stock[--m->nr_stock]);
}

static int create(struct mmu *mmu)
{
	for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++) {
		mmu->root[as] = host_page_alloc();
		if (!mmu->root[as])
			return -ENOMEM;
	}
	return 0;
}

static void destroy(struct mmu *mmu)
{
	for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++)
		if (mmu->root[as])
			free_tree(mmu->format, mmu->root[as], mmu->config.levels);
}

const struct mmu_kind nested_kind = {
	.create = create,
	.destroy = destroy,
	.vcpu_create = create_vcpu,
	.vcpu_destroy = destroy_vcpu,
	.load = load,
	.fault = fault,
	.zap = zap,
	.detach = detach,
	.write_protect = write_protect,
	.age = age,
	.shrink = shrink,
	.reap = reap,
};
