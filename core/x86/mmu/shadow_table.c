/*
 * Shadow tables as a structure; see shadow.h.
 */
#include "core/x86/mmu/shadow.h"

/* Of all guest pages, as many in fiftieths may be tables at once: a guest decides what it calls a table. */
#define LIMIT_SHARE 50
#define LIMIT_MIN   VM_MIN_MMU_PAGES
#define RECYCLE	    16

#define PDPT_LINK BIT64(0) /* SDM 3A table 4-8: the rest is reserved there */

/* A page that more entries than this map (zeroes, a library) is dropped from all: chains must end. */
#define CHAIN_MAX 1000

/* ---- memory -------------------------------------------------------------------------------------------------- */

struct shadow_table *shadow_table_alloc(bool low)
{
	struct shadow_table *t = host_zalloc(sizeof(*t));

	if (!t)
		return NULL;
	t->entries = low ? host_page_alloc_low() : host_page_alloc();
	t->maps = host_zalloc_pages(ENTRIES * sizeof(*t->maps));
	if (!t->entries || !t->maps) {
		shadow_table_free(t);
		return NULL;
	}
	*host_page_private(t->entries) = (uintptr_t)t;
	list_init(&t->all);
	list_init(&t->unsettled);
	return t;
}

void shadow_table_free(struct shadow_table *t)
{
	if (t->entries)
		host_page_free(t->entries);
	host_free_pages(t->maps, ENTRIES * sizeof(*t->maps));
	host_free(t);
}

static void row_free(struct guest_pages *row)
{
	host_free_pages(row->page, GUEST_PAGES * sizeof(*row->page));
	host_free(row);
}

static struct guest_pages *row_alloc(void)
{
	struct guest_pages *row = host_zalloc(sizeof(*row));

	if (!row)
		return NULL;
	row->page = host_zalloc_pages(GUEST_PAGES * sizeof(*row->page));
	if (row->page)
		return row;
	host_free(row);
	return NULL;
}

static u64 table_limit(struct vm *vm)
{
	u64 pages = __atomic_load_n(&vm->nr_mmu_pages, __ATOMIC_RELAXED);

	if (pages)
		return pages;
	for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++) {
		struct memslots *slots = vm_slots(vm, as);

		for (unsigned i = 0; i < slots->count; i++)
			pages += slots->slot[i]->npages;
	}
	return MAX(pages / LIMIT_SHARE, (u64)LIMIT_MIN);
}

int shadow_stock(struct mmu_vcpu *m)
{
	struct shadow_vcpu *s = m->shadow;
	struct mmu *mmu = m->mmu;

	while (s->nr_tables < SHADOW_STOCK_TABLES) {
		struct shadow_table *t = shadow_table_alloc(false);

		if (!t)
			return -ENOMEM;
		s->tables[s->nr_tables++] = t;
	}
	while (s->nr_rows < SHADOW_STOCK_ROWS) {
		struct guest_pages *row = row_alloc();

		if (!row)
			return -ENOMEM;
		s->rows[s->nr_rows++] = row;
	}
	if (unlikely(__atomic_load_n(&mmu->nr_tables, __ATOMIC_RELAXED) >= LIMIT_MIN &&
		     __atomic_load_n(&mmu->nr_tables, __ATOMIC_RELAXED) >= table_limit(mmu->vm))) {
		host_write_lock(&mmu->lock);
		shadow_shrink(mmu, RECYCLE);
		host_write_unlock(&mmu->lock);
		shadow_reap(mmu);
	}
	return 0;
}

/* ---- guest pages --------------------------------------------------------------------------------------------- */

static struct guest_pages **bucket(struct mmu *mmu, unsigned as_id, u64 gfn)
{
	return &mmu->shadow->hash[(gfn / GUEST_PAGES * VM_ADDRESS_SPACES + as_id) % SHADOW_HASH];
}

static struct guest_pages *find_row(struct mmu *mmu, unsigned as_id, u64 gfn)
{
	struct guest_pages *row = *bucket(mmu, as_id, gfn);

	while (row && (row->first != ROUND_DOWN(gfn, GUEST_PAGES) || row->as_id != as_id))
		row = row->next;
	return row;
}

struct guest_page *shadow_guest_page(struct mmu *mmu, unsigned as_id, u64 gfn)
{
	struct guest_pages *row = find_row(mmu, as_id, gfn);

	return row ? &row->page[gfn % GUEST_PAGES] : NULL;
}

static struct guest_pages *make_row(struct mmu_vcpu *m, unsigned as_id, u64 gfn)
{
	struct guest_pages *row = find_row(m->mmu, as_id, gfn), **at;

	if (row)
		return row;
	at = bucket(m->mmu, as_id, gfn);
	row = m->shadow->rows[--m->shadow->nr_rows];
	row->first = ROUND_DOWN(gfn, GUEST_PAGES);
	row->as_id = as_id;
	row->next = *at;
	*at = row;
	return row;
}

/* Both address spaces mostly show the same memory: what SMM's code writes counts, too. */
bool shadow_tracks(struct mmu *mmu, u64 gfn, u64 pages)
{
	for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++) {
		struct guest_pages *row = find_row(mmu, as, gfn);

		if (!row || !row->tables)
			continue;
		if (pages > 1)
			return true;
		for (struct shadow_table *t = row->page[gfn % GUEST_PAGES].tables; t; t = t->next)
			if (!t->role.direct)
				return true;
	}
	return false;
}

/* ---- chains -------------------------------------------------------------------------------------------------- */

static struct shadow_map *map_of(u64 *entry)
{
	struct shadow_table *t = shadow_table_of(entry);

	return &t->maps[entry - t->entries];
}

static void chain_add(u64 **head, u64 *entry)
{
	map_of(entry)->next = *head;
	*head = entry;
}

static void chain_remove(u64 **head, u64 *entry)
{
	while (*head != entry)
		head = &map_of(*head)->next;
	*head = map_of(entry)->next;
}

void shadow_drop(struct mmu *mmu, u64 *entry)
{
	struct shadow_table *t = shadow_table_of(entry);
	u64 old = entry_load(entry);

	if (!entry_is_present(mmu->format, old))
		return;
	mmu_stale(mmu);
	entry_store(entry, 0);
	if (entry_is_link(mmu->format, old, t->role.level))
		chain_remove(&shadow_child(old)->parents, entry);
	else
		chain_remove(&shadow_guest_page(mmu, t->role.as_id, map_of(entry)->gfn)->maps, entry);
	if (t->pdpt_of)
		__atomic_store_n(&t->pdpt_of->generation, 0, __ATOMIC_SEQ_CST);
}

void shadow_set_link(struct mmu *mmu, u64 *entry, struct shadow_table *child)
{
	u64 link = shadow_table_of(entry)->pdpt_of ? host_page_phys(child->entries) | PDPT_LINK : entry_link(mmu->format, child->entries);
	u64 old = entry_load(entry);

	if (!((old ^ link) & (ENTRY_ADDR | ENTRY_LARGE)) && entry_is_present(mmu->format, old))
		return;
	shadow_drop(mmu, entry);
	chain_add(&child->parents, entry);
	entry_store(entry, link);
}

void shadow_set_leaf(struct mmu_vcpu *m, u64 *entry, u64 gfn, u64 leaf)
{
	struct mmu *mmu = m->mmu;
	const struct entry_format *f = mmu->format;
	struct shadow_table *t = shadow_table_of(entry);
	u64 old = entry_load(entry);
	struct guest_pages *row;
	struct guest_page *page;
	unsigned length = 0;

	if (entry_is_leaf(f, old, t->role.level) && map_of(entry)->gfn == gfn && !((old ^ leaf) & ENTRY_ADDR)) {
		if ((old & ~leaf & (ENTRY_W | f->user)) | (leaf & ~old & f->noexec))
			mmu_stale(mmu);
		entry_store(entry, leaf);
		return;
	}
	shadow_drop(mmu, entry);
	row = make_row(m, t->role.as_id, gfn);
	page = &row->page[gfn % GUEST_PAGES];
	for (u64 *e = page->maps; e; e = map_of(e)->next)
		length++;
	while (length >= CHAIN_MAX && page->maps)
		shadow_drop(mmu, page->maps);
	map_of(entry)->gfn = gfn;
	chain_add(&page->maps, entry);
	entry_store(entry, leaf);
}

/* ---- tables -------------------------------------------------------------------------------------------------- */

struct shadow_table *shadow_get_table(struct mmu_vcpu *m, u64 gfn, union shadow_role role)
{
	struct mmu *mmu = m->mmu;
	struct guest_pages *row = make_row(m, role.as_id, gfn);
	struct guest_page *page = &row->page[gfn % GUEST_PAGES];
	struct shadow_table *t;

	for (t = page->tables; t; t = t->next)
		if (t->role.word == role.word)
			return t;
	t = m->shadow->tables[--m->shadow->nr_tables];
	t->role = role;
	t->gfn = gfn;
	t->next = page->tables;
	page->tables = t;
	list_add(&mmu->shadow->tables, &t->all);
	__atomic_fetch_add(&mmu->nr_tables, 1, __ATOMIC_RELAXED);
	if (!role.direct) {
		row->tables++;
		__atomic_fetch_add(&mmu->shadow->nr_guest_tables, 1, __ATOMIC_SEQ_CST);
		shadow_protect(mmu, t);
	}
	return t;
}

void shadow_zap_table(struct mmu *mmu, struct shadow_table *t)
{
	struct guest_pages *row = find_row(mmu, t->role.as_id, t->gfn);
	struct shadow_table **at = &row->page[t->gfn % GUEST_PAGES].tables;

	for (unsigned i = 0; i < ENTRIES; i++)
		shadow_drop(mmu, &t->entries[i]);
	while (t->parents)
		shadow_drop(mmu, t->parents);
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	list_remove(&t->all);
	list_remove(&t->unsettled);
	__atomic_fetch_sub(&mmu->nr_tables, 1, __ATOMIC_RELAXED);
	if (!t->role.direct) {
		row->tables--;
		__atomic_fetch_sub(&mmu->shadow->nr_guest_tables, 1, __ATOMIC_RELAXED);
	}
	/* CR3 may point to it */
	if (t->role.level > 3) {
		mmu_stale(mmu);
		__atomic_fetch_add(&mmu->shadow->generation, 1, __ATOMIC_SEQ_CST);
	}
	t->next = mmu->shadow->dead;
	mmu->shadow->dead = t;
}

unsigned long shadow_reap(struct mmu *mmu)
{
	struct shadow_table *t;
	unsigned long count = 0;

	host_write_lock(&mmu->lock);
	t = mmu->shadow->dead;
	mmu->shadow->dead = NULL;
	host_write_unlock(&mmu->lock);
	mmu_flush(mmu);
	while (t) {
		struct shadow_table *next = t->next;

		shadow_table_free(t);
		t = next;
		count++;
	}
	return count;
}

/* ---- from below: the entries that map pages of a range --------------------------------------------------------- */

struct visit {
	bool (*entry)(struct mmu *mmu, u64 *entry, unsigned level, bool clear);
	bool clear, found;
};

static void over_page(struct mmu *mmu, struct guest_page *page, unsigned lowest, struct visit *v)
{
	u64 *entry, *next;

	for (entry = page->maps; entry; entry = next) {
		unsigned level = shadow_table_of(entry)->role.level;

		next = map_of(entry)->next;
		if (level >= lowest)
			v->found |= v->entry(mmu, entry, level, v->clear);
	}
}

/* Large pages stand on the chain of their first page, which may lie before @start. */
static void over_pages(struct mmu *mmu, unsigned as, u64 start, u64 end, struct visit *v)
{
	u64 gfn = ROUND_DOWN(start, GUEST_PAGES);

	while (gfn < end) {
		struct guest_pages *row = find_row(mmu, as, gfn);
		u64 next = ROUND_DOWN(gfn, GUEST_PAGES) + GUEST_PAGES;

		for (; row && gfn < MIN(next, end); gfn = gfn < start ? start : gfn + 1)
			over_page(mmu, &row->page[gfn % GUEST_PAGES], gfn < start ? 2 : 1, v);
		gfn = next;
	}
}

static bool visit_drop(struct mmu *mmu, u64 *entry, unsigned level, bool clear)
{
	shadow_drop(mmu, entry);
	return true;
}

void shadow_zap(struct mmu *mmu, unsigned as, u64 start, u64 end)
{
	struct visit v = { .entry = visit_drop };

	over_pages(mmu, as, start, end, &v);
}

static bool visit_track(struct mmu *mmu, u64 *entry, unsigned level, bool clear)
{
	if (level > 1) {
		shadow_drop(mmu, entry);
	} else if (entry_load(entry) & (ENTRY_W | ENTRY_MAY_WRITE)) {
		mmu_stale(mmu);
		entry_clear(entry, ENTRY_W | ENTRY_MAY_WRITE);
	}
	return true;
}

void shadow_protect(struct mmu *mmu, struct shadow_table *t)
{
	struct visit v = { .entry = visit_track };

	for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++)
		over_pages(mmu, as, t->gfn, t->gfn + 1, &v);
	/* A processor may still have what was taken out long ago and never flushed */
	t->protected_at = __atomic_load_n(&mmu->stale, __ATOMIC_SEQ_CST);
}

static bool visit_protect(struct mmu *mmu, u64 *entry, unsigned level, bool clear)
{
	if (level > 1) {
		shadow_drop(mmu, entry);
	} else if (entry_load(entry) & ENTRY_W) {
		mmu_stale(mmu);
		entry_clear(entry, ENTRY_W);
	}
	return true;
}

void shadow_write_protect(struct mmu *mmu, unsigned as, u64 start, u64 end)
{
	struct visit v = { .entry = visit_protect };

	over_pages(mmu, as, start, end, &v);
}

static bool visit_age(struct mmu *mmu, u64 *entry, unsigned level, bool clear)
{
	u64 accessed = mmu->format->accessed;

	if (!(entry_load(entry) & accessed))
		return false;
	if (clear)
		entry_clear(entry, accessed);
	return true;
}

bool shadow_age(struct mmu *mmu, unsigned as, u64 start, u64 end, bool clear)
{
	struct visit v = { .entry = visit_age, .clear = clear };

	over_pages(mmu, as, start, end, &v);
	return v.found;
}

/* The pages go, and tables that were made from guest tables in them. */
void shadow_detach(struct mmu *mmu, unsigned as, u64 start, u64 end)
{
	shadow_zap(mmu, as, start, end);
	for (u64 gfn = start; gfn < end;) {
		struct guest_pages *row = find_row(mmu, as, gfn);
		u64 next = ROUND_DOWN(gfn, GUEST_PAGES) + GUEST_PAGES;

		for (; row && gfn < MIN(next, end); gfn++)
			while (row->page[gfn % GUEST_PAGES].tables)
				shadow_zap_table(mmu, row->page[gfn % GUEST_PAGES].tables);
		gfn = next;
	}
}


void shadow_shrink(struct mmu *mmu, unsigned long nr)
{
	struct shadow_list *all = &mmu->shadow->tables;

	for (; nr && !list_is_empty(all); nr--)
		shadow_zap_table(mmu, container_of(all->prev, struct shadow_table, all));
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

int shadow_create(struct mmu *mmu)
{
	struct shadow *s = host_zalloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	mmu->shadow = s;
	list_init(&s->tables);
	list_init(&s->unsync);
	list_init(&s->awaiting);
	s->generation = 1;
	s->hash = host_zalloc_pages(SHADOW_HASH * sizeof(*s->hash));
	s->guest_table = host_zalloc_pages(HOST_PAGE_SIZE);
	return s->hash && s->guest_table ? 0 : -ENOMEM;
}

void shadow_destroy(struct mmu *mmu)
{
	struct shadow *s = mmu->shadow;

	if (!s)
		return;
	if (s->hash) {
		shadow_shrink(mmu, ~0UL);
		shadow_reap(mmu);
	}
	for (unsigned i = 0; s->hash && i < SHADOW_HASH; i++) {
		while (s->hash[i]) {
			struct guest_pages *row = s->hash[i];

			s->hash[i] = row->next;
			row_free(row);
		}
	}
	host_free_pages(s->hash, SHADOW_HASH * sizeof(*s->hash));
	host_free_pages(s->guest_table, HOST_PAGE_SIZE);
	host_free(s);
}

int shadow_vcpu_create(struct mmu_vcpu *m)
{
	struct shadow_vcpu *s = host_zalloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->pdpt = shadow_table_alloc(true);
	if (!s->pdpt) {
		host_free(s);
		return -ENOMEM;
	}
	s->pdpt->pdpt_of = s;
	s->pdpt->role.level = 3;
	m->shadow = s;
	return 0;
}

void shadow_vcpu_destroy(struct mmu_vcpu *m)
{
	struct shadow_vcpu *s = m->shadow;

	if (!s)
		return;
	host_write_lock(&m->mmu->lock);
	for (unsigned i = 0; i < 4; i++)
		shadow_drop(m->mmu, &s->pdpt->entries[i]);
	host_write_unlock(&m->mmu->lock);
	shadow_table_free(s->pdpt);
	while (s->nr_tables)
		shadow_table_free(s->tables[--s->nr_tables]);
	while (s->nr_rows)
		row_free(s->rows[--s->nr_rows]);
	host_free(s);
}
