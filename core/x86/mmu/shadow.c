/*
 * Shadow tables as the guest drives them: roots, faults, flushes and writes. See shadow.h.
 *
 * A guest's entry is trusted when it was read after its table was write-protected, and every vCPU has flushed since: a fault reads the guest's
 * tables first (mmu_walk_trace()), then, under the lock, sees to it that all of them are shadowed, and compares. If one had to be protected
 * only now, the flush and another try follow.
 */
#include "core/x86/mmu/shadow.h"

#include "core/x86/mmu/walk.h"

#define PTE_P  BIT64(0)
#define PTE_W  BIT64(1)
#define PTE_U  BIT64(2)
#define PTE_A  BIT64(5)
#define PTE_D  BIT64(6)
#define PTE_NX BIT64(63)

/* As many emulated writes in a row, and nobody uses the page as a table any more. */
#define FLOOD 3

/* Above this level, 2 MiB, whether a table of the guest's lies in the page is not worth asking. */
#define LEVEL_MAX 2

/* ---- roots --------------------------------------------------------------------------------------------------- */

static struct shadow_key key_of(const struct vcpu *vcpu)
{
	const struct x86_state *s = &vcpu->x86;

	return (struct shadow_key){ .cr0 = s->cr0 & (CR0_PG | CR0_WP), .cr3 = s->cr3, .cr4 = s->cr4 & (CR4_PSE | CR4_PAE | CR4_LA57),
				    .efer = s->efer & (EFER_LMA | EFER_NX), .as_id = vcpu_as_id(vcpu) };
}

static bool key_is(const struct shadow_key *a, const struct shadow_key *b)
{
	return a->cr0 == b->cr0 && a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->efer == b->efer && a->as_id == b->as_id;
}

static union shadow_role role_of(const struct shadow_key *k, unsigned level)
{
	union shadow_role role = { .level = level, .access = SHADOW_ALL, .as_id = k->as_id };

	if (!(k->cr0 & CR0_PG)) {
		role.direct = 1;
		return role;
	}
	role.wide = !!(k->cr4 & CR4_PAE);
	role.long_mode = !!(k->efer & EFER_LMA);
	role.wp = !!(k->cr0 & CR0_WP);
	role.nx = !!(k->efer & EFER_NX);
	role.pse = !role.wide && (k->cr4 & CR4_PSE);
	return role;
}

/* The quarter @i of a linear address space of 4 GiB. */
static void load_quarter(struct mmu_vcpu *m, const struct shadow_key *k, unsigned i)
{
	u64 *entry = &m->shadow->pdpt->entries[i], gfn = (u64)i * level_pages(3);
	union shadow_role role = role_of(k, 2);

	if (role.wide) {
		u64 pdpte = m->vcpu->x86.pdptr[i];

		if (!(pdpte & PTE_P)) {
			shadow_drop(m->mmu, entry);
			return;
		}
		gfn = (pdpte & ENTRY_ADDR) >> HOST_PAGE_SHIFT;
	} else if (!role.direct) {
		role.quadrant = i;
		gfn = (u32)k->cr3 >> HOST_PAGE_SHIFT;
	}
	shadow_set_link(m->mmu, entry, shadow_get_table(m, gfn, role));
}

static struct shadow_table *make_root(struct mmu_vcpu *m, const struct shadow_key *k)
{
	struct shadow_table *root;

	if (k->efer & EFER_LMA) {
		root = shadow_get_table(m, (k->cr3 & ENTRY_ADDR & ~m->vcpu->rsvd_gpa) >> HOST_PAGE_SHIFT,
					role_of(k, k->cr4 & CR4_LA57 ? 5 : 4));
		/* It is not old while it is used */
		list_remove(&root->all);
		list_add(&m->mmu->shadow->tables, &root->all);
		return root;
	}
	for (unsigned i = 0; i < 4; i++)
		load_quarter(m, k, i);
	return m->shadow->pdpt;
}

static void settle(struct mmu *mmu);

static bool root_holds(struct mmu_vcpu *m)
{
	return __atomic_load_n(&m->shadow->generation, __ATOMIC_SEQ_CST) ==
	       __atomic_load_n(&m->mmu->shadow->generation, __ATOMIC_SEQ_CST);
}

static int make(struct mmu_vcpu *m, const struct shadow_key *key)
{
	struct shadow_vcpu *s = m->shadow;
	struct mmu *mmu = m->mmu;
	int error = shadow_stock(m);

	if (error)
		return error;
	if (s->flushed)
		settle(mmu);
	s->flushed = false;
	host_write_lock(&mmu->lock);
	s->root = make_root(m, key);
	s->root_phys = host_page_phys(s->root->entries);
	s->key = *key;
	__atomic_store_n(&s->generation, __atomic_load_n(&mmu->shadow->generation, __ATOMIC_SEQ_CST), __ATOMIC_SEQ_CST);
	host_write_unlock(&mmu->lock);
	shadow_kind.reap(mmu);
	return 0;
}

/*
 * A root is freed after all vCPUs that count as being in guest code have left it. So one that holds while the vCPU counts so is good for an
 * entry; what has to wait for other vCPUs is done while it does not. When a request keeps the vCPU out, *@root may be no more, but will not be
 * entered with.
 */
static int load(struct mmu_vcpu *m, u64 *root)
{
	struct shadow_vcpu *s = m->shadow;
	struct shadow_key key = key_of(m->vcpu);
	bool inside = true;

	while (unlikely(inside && (s->flushed || !key_is(&key, &s->key) || !root_holds(m)))) {
		int error;

		vcpu_leave_guest(m->vcpu);
		error = make(m, &key);
		if (error)
			return error;
		inside = vcpu_enter_guest(m->vcpu);
	}
	*root = s->root_phys;
	return 0;
}

/* ---- what the guest's entries allow ---------------------------------------------------------------------------- */

/* Combined rights of all levels, and the page is dirty or not: what the shadow entry may give. Without CR0.WP a supervisor may write
 * everywhere, but an entry cannot say so of a page that is the user's, too: those writes are emulated. */
static unsigned leaf_rights(union shadow_role role, unsigned access, bool dirty)
{
	if (!role.wp && !(access & SHADOW_U))
		access |= SHADOW_W;
	return dirty ? access : access & ~SHADOW_W;
}

static unsigned entry_rights(u64 guest, bool nx)
{
	return (guest & PTE_W ? SHADOW_W : 0) | (guest & PTE_U ? SHADOW_U : 0) | (nx && (guest & PTE_NX) ? 0 : SHADOW_X);
}

/* ---- unsync tables --------------------------------------------------------------------------------------------- */

static void set_sync(struct mmu *mmu, struct shadow_table *t, enum shadow_sync sync)
{
	list_remove(&t->unsettled);
	t->sync = sync;
	if (sync == SHADOW_UNSYNC)
		list_add(&mmu->shadow->unsync, &t->unsettled);
	else if (sync == SHADOW_AWAITS)
		list_add(&mmu->shadow->awaiting, &t->unsettled);
}

/* Drops an entry that gives more than the guest's @guest does, or something else. */
static void compare(struct mmu *mmu, struct shadow_table *t, unsigned i, u64 guest, u64 rsvd)
{
	const struct entry_format *f = mmu->format;
	u64 entry = entry_load(&t->entries[i]);
	unsigned rights = leaf_rights(t->role, t->role.access & entry_rights(guest, t->role.nx), guest & PTE_D);

	if (!entry_is_present(f, entry))
		return;
	if ((guest & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || (guest & rsvd) ||
	    t->maps[i].gfn != (guest & ENTRY_ADDR) >> HOST_PAGE_SHIFT || !(entry & f->user) != !(rights & SHADOW_U) ||
	    ((entry & (ENTRY_W | ENTRY_MAY_WRITE)) && !(rights & SHADOW_W)) || (!(entry & f->noexec) && !(rights & SHADOW_X)))
		shadow_drop(mmu, &t->entries[i]);
}

/* What is reserved in the guest's entries that @t was made from; the address bits above MAXPHYADDR can map nothing anyhow. */
static u64 reserved(const struct shadow_table *t)
{
	if (!t->role.wide)
		return 0;
	return (t->role.nx ? 0 : PTE_NX) | (t->role.long_mode ? 0 : MASK64(62, 52));
}

/* Entries [@first, @end) of @t, with those of the guest's table. */
static void compare_table(struct mmu *mmu, struct shadow_table *t, unsigned first, unsigned end)
{
	unsigned size = t->role.wide ? 8 : 4, skip = t->role.quadrant * ENTRIES;
	u64 hva = vm_gpa_to_hva(mmu->vm, t->role.as_id, t->gfn << HOST_PAGE_SHIFT, NULL), rsvd = reserved(t);
	u8 *copy = mmu->shadow->guest_table;

	/* The host has taken the page away for the moment: it will have to be asked again, entry by entry. */
	if (!hva || host_copy_from_client_nosleep(copy, hva + (skip + first) * size, (end - first) * size))
		memset(copy, 0, (end - first) * size);
	for (unsigned i = first; i < end; i++) {
		u64 guest = 0;

		memcpy(&guest, copy + (i - first) * size, size);
		compare(mmu, t, i, guest, rsvd);
	}
}

/*
 * All tables that are unsync are protected, then everybody flushes, so that no write goes unseen from then on, then they are compared. A vCPU
 * that writes one of them between these makes it unsync again, and will have to flush. Two that come here at once do each other's work.
 */
static void settle(struct mmu *mmu)
{
	struct shadow *s = mmu->shadow;
	struct shadow_list *l, *next;
	bool any;

	host_write_lock(&mmu->lock);
	while (!list_is_empty(&s->unsync)) {
		struct shadow_table *t = container_of(s->unsync.next, struct shadow_table, unsettled);

		shadow_protect(mmu, t);
		set_sync(mmu, t, SHADOW_AWAITS);
	}
	any = !list_is_empty(&s->awaiting);
	host_write_unlock(&mmu->lock);
	if (!any)
		return;
	mmu_flush(mmu);
	host_write_lock(&mmu->lock);
	for (l = s->awaiting.next; l != &s->awaiting; l = next) {
		struct shadow_table *t = container_of(l, struct shadow_table, unsettled);

		next = l->next;
		if (!shadow_is_protected(mmu, t))
			continue; /* since a moment ago: another vCPU's */
		compare_table(mmu, t, 0, ENTRIES);
		set_sync(mmu, t, SHADOW_SYNC);
	}
	host_write_unlock(&mmu->lock);
}

static void compare_list(struct mmu *mmu, struct shadow_list *list)
{
	for (struct shadow_list *l = list->next; l != list; l = l->next)
		compare_table(mmu, container_of(l, struct shadow_table, unsettled), 0, ENTRIES);
}

/* What comes below @entry again was out of INVLPG's sight: tables there that are unsync are compared first. */
static void link_up(struct mmu *mmu, u64 *entry, struct shadow_table *child)
{
	u64 old = entry_load(entry);

	if (entry_is_link(mmu->format, old, shadow_table_of(entry)->role.level) && shadow_child(old) == child)
		return;
	if (child->role.level == 1) {
		if (child->sync != SHADOW_SYNC)
			compare_table(mmu, child, 0, ENTRIES);
	} else {
		compare_list(mmu, &mmu->shadow->unsync);
		compare_list(mmu, &mmu->shadow->awaiting);
	}
	shadow_set_link(mmu, entry, child);
}

/* A write to a page that is tracked. False: it has to be emulated, a table at a higher level was made from it. */
static bool let_unsync(struct mmu *mmu, u64 gfn)
{
	for (int change = 0; change < 2; change++) {
		for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++) {
			struct guest_page *page = shadow_guest_page(mmu, as, gfn);

			for (struct shadow_table *t = page ? page->tables : NULL; t; t = t->next) {
				if (t->role.direct)
					continue;
				if (t->role.level > 1)
					return false;
				if (change)
					set_sync(mmu, t, SHADOW_UNSYNC);
			}
		}
	}
	return true;
}

/* ---- faults ---------------------------------------------------------------------------------------------------- */

/* The entry for @la in the tables below the vCPU's root, at level 1 or where they end before. */
static u64 *find(struct mmu_vcpu *m, u64 la)
{
	struct shadow_table *t = m->shadow->root;

	for (;;) {
		u64 *entry = &t->entries[level_index(la >> HOST_PAGE_SHIFT, t->role.level)], value = entry_load(entry);

		if (!entry_is_link(m->mmu->format, value, t->role.level))
			return entry;
		t = shadow_child(value);
	}
}

/* A write to a page that is write-protected for the dirty log alone: neither the host nor the guest's tables need be asked. */
static bool let_write(struct mmu_vcpu *m, u64 la, u32 access)
{
	struct mmu *mmu = m->mmu;
	bool done = false;

	host_write_lock(&mmu->lock);
	if (root_holds(m)) {
		u64 *entry = find(m, la), old = entry_load(entry);
		struct shadow_table *t = shadow_table_of(entry);

		if (t->role.level == 1 && entry_is_present(mmu->format, old) && (old & (ENTRY_MAY_WRITE | ENTRY_W)) == ENTRY_MAY_WRITE &&
		    (!(access & PFERR_U) || (old & mmu->format->user))) {
			u64 gfn = t->maps[entry - t->entries].gfn;
			struct memslot *slot = memslot_find(vm_slots(mmu->vm, t->role.as_id), gfn);

			done = slot;
			if (slot) {
				entry_store(entry, old | ENTRY_W | mmu->format->accessed | mmu->format->dirty);
				dirty_mark(mmu->vm, m->vcpu, slot, gfn);
			}
		}
	}
	host_write_unlock(&mmu->lock);
	return done;
}

struct fault {
	u64 la;
	struct shadow_key key;
	struct walk_result walk;
	struct walk_trace trace;
	struct mmu_page page;
	unsigned rights;      /* of the page: SHADOW_* */
	unsigned guest_level; /* at which the guest's tables end; paging off: above all of ours */
};

/* Which of the walk's entries was the guest's at @level. */
static const struct walk_entry *guest_entry(const struct fault *f, unsigned level)
{
	return &f->trace.entry[f->trace.count - 1 - (level - f->guest_level)];
}

/* What of the guest's stands behind our table at @level on the way: the page, and the role. */
static u64 origin(const struct fault *f, unsigned level, union shadow_role *role)
{
	if (level < f->guest_level) {
		*role = (union shadow_role){ .level = level, .direct = 1, .access = f->rights, .as_id = f->key.as_id };
		return ROUND_DOWN(f->page.gfn, level_pages(level + 1));
	}
	*role = role_of(&f->key, level);
	for (const struct walk_entry *e = f->trace.entry; e < guest_entry(f, level); e++)
		role->access &= entry_rights(e->value, role->nx);
	if (!role->wide)
		role->quadrant = level == 1 ? (f->la >> 21) & 1 : (f->la >> 30) & 3;
	return guest_entry(f, level)->gpa >> HOST_PAGE_SHIFT;
}

/* Are the guest's entries what the walk saw? */
static bool entries_hold(const struct fault *f)
{
	unsigned size = f->key.cr4 & CR4_PAE ? 8 : 4;

	for (unsigned i = 0; i < f->trace.count; i++) {
		u64 now = 0;

		if (host_copy_from_client_nosleep(&now, f->trace.entry[i].hva, size) || now != f->trace.entry[i].value)
			return false;
	}
	return true;
}

static unsigned level_for(struct mmu *mmu, const struct fault *f)
{
	unsigned level = MIN(mmu_page_level(mmu, &f->page), MIN(f->guest_level, (unsigned)LEVEL_MAX));

	while (level > 1 && shadow_tracks(mmu, ROUND_DOWN(f->page.gfn, level_pages(level)), level_pages(level)))
		level--;
	return level;
}

static u64 leaf_of(struct mmu *mmu, const struct fault *f, unsigned level, bool writes)
{
	const struct entry_format *fmt = mmu->format;
	u64 leaf = f->page.client.phys & ENTRY_ADDR & ~((level_pages(level) << HOST_PAGE_SHIFT) - 1);

	leaf |= fmt->read | fmt->accessed | (f->page.client.memory ? fmt->memory : fmt->device);
	leaf |= f->rights & SHADOW_U ? fmt->user : 0;
	leaf |= f->rights & SHADOW_X ? 0 : fmt->noexec;
	leaf |= level > 1 ? ENTRY_LARGE : 0;
	leaf |= writes ? ENTRY_W | ENTRY_MAY_WRITE | (f->page.write ? fmt->dirty : 0) : 0;
	return leaf;
}

enum map { MAPPED, AGAIN, EMULATE };

static enum map map(struct mmu_vcpu *m, struct fault *f)
{
	struct mmu *mmu = m->mmu;
	unsigned top = m->shadow->root->role.level, level = level_for(mmu, f);
	struct shadow_table *path[6];
	bool writes = (f->rights & SHADOW_W) && mmu_page_writes(m->mmu, &f->page), settled = true;
	u64 *entry;

	path[top] = m->shadow->root;
	for (unsigned at = top - 1; at >= level; at--) {
		union shadow_role role;
		u64 gfn;

		if (at == 2 && top == 3) {
			/* What the PDPTEs say was settled when they were loaded */
			u64 link = entry_load(&path[3]->entries[(f->la >> 30) & 3]);

			if (!entry_is_present(mmu->format, link))
				return AGAIN;
			path[at] = shadow_child(link);
		} else {
			gfn = origin(f, at, &role);
			path[at] = shadow_get_table(m, gfn, role);
		}
	}
	for (unsigned at = top; at >= level; at--) {
		path[at]->writes = 0;
		settled &= shadow_is_protected(mmu, path[at]);
	}
	if (!settled || !entries_hold(f))
		return AGAIN;
	if (writes && shadow_tracks(mmu, f->page.gfn, 1))
		writes = f->page.write && let_unsync(mmu, f->page.gfn);
	if (f->page.write && !writes)
		return EMULATE;
	for (unsigned at = MIN(top, top == 3 ? 2U : top); at > level; at--)
		link_up(mmu, &path[at]->entries[level_index(f->la >> HOST_PAGE_SHIFT, at)], path[at - 1]);
	entry = &path[level]->entries[level_index(f->la >> HOST_PAGE_SHIFT, level)];
	shadow_set_leaf(m, entry, ROUND_DOWN(f->page.gfn, level_pages(level)), leaf_of(mmu, f, level, writes));
	if (writes)
		dirty_mark(mmu->vm, m->vcpu, f->page.slot, f->page.gfn);
	return MAPPED;
}

/* The guest's own translation. False: the fault is its own, too. */
static bool walk(struct mmu_vcpu *m, struct fault *f, u32 access)
{
	struct vcpu *vcpu = m->vcpu;
	/* A system access at CPL 3: SDM 3A 4.6 */
	bool implicit = vcpu->x86.cpl == 3 && !(access & PFERR_U);
	struct walk_result *w = &f->walk;

	if (!mmu_walk_trace(vcpu, f->la, access & (PFERR_W | PFERR_U | PFERR_I), implicit, w, &f->trace))
		return false;
	f->page = (struct mmu_page){ .gfn = w->gpa >> HOST_PAGE_SHIFT, .as_id = f->key.as_id, .write = access & PFERR_W };
	f->guest_level = f->trace.count ? (w->page_shift == 12 ? 1 : w->page_shift == 30 ? 3 : 2) : 6;
	f->rights = leaf_rights(role_of(&f->key, 1),
				(w->writable ? SHADOW_W : 0) | (w->user ? SHADOW_U : 0) | (w->executable ? SHADOW_X : 0), w->dirty);
	return true;
}

static enum mmu_fault fault(struct mmu_vcpu *m, u64 la, u32 access, struct x86_event *ev, int *error)
{
	struct mmu *mmu = m->mmu;
	struct fault f = { .la = la, .key = key_of(m->vcpu) };
	enum map done = AGAIN;
	enum mmu_fault r;

	if ((access & (PFERR_P | PFERR_W)) == (PFERR_P | PFERR_W) && let_write(m, la, access))
		return MMU_FIXED;
	/* The second time all tables on the way are protected */
	for (unsigned tries = 0; tries < 2 && done == AGAIN; tries++) {
		*error = shadow_stock(m);
		if (*error)
			return MMU_ERROR;
		if (!walk(m, &f, access)) {
			*ev = (struct x86_event){ .vector = VEC_PF, .type = X86_EVENT_EXCEPTION, .has_error = true, .error = f.walk.error,
						  .has_payload = true, .payload = la };
			return MMU_INJECT;
		}
		r = mmu_page_get(m, &f.page, error);
		if (r != MMU_FIXED)
			return r;
		host_write_lock(&mmu->lock);
		if (root_holds(m) && key_is(&f.key, &m->shadow->key) && mmu_page_holds(mmu, &f.page))
			done = map(m, &f);
		host_write_unlock(&mmu->lock);
		shadow_kind.reap(mmu);
		mmu_page_put(&f.page);
	}
	return done == EMULATE ? MMU_EMULATE : MMU_FIXED;
}

/* ---- what the guest does to its tables ------------------------------------------------------------------------- */

/* INVLPG: only what is unsync can differ from the guest's. */
static void flush_page(struct mmu_vcpu *m, u64 la)
{
	struct mmu *mmu = m->mmu;

	host_write_lock(&mmu->lock);
	if (m->shadow->root && root_holds(m)) {
		u64 *entry = find(m, la);
		struct shadow_table *t = shadow_table_of(entry);
		unsigned i = entry - t->entries;

		if (t->role.level == 1 && t->sync != SHADOW_SYNC)
			compare_table(mmu, t, i, i + 1);
	} else {
		m->shadow->flushed = true; /* tables that are not below this root may come below the next */
	}
	host_write_unlock(&mmu->lock);
}

void shadow_flushed(struct mmu_vcpu *m, enum tlb_scope scope, u64 arg)
{
	/* What names host memory is flushed by whoever changes it */
	if (scope == TLB_GPA)
		return;
	if (scope == TLB_PAGE)
		flush_page(m, arg);
	else
		m->shadow->flushed = true; /* for load(): here the vCPU may count as being in guest code, and must not wait for others */
}

/* The entries of @t that were made from bytes [@offset, @end) of the guest's table. */
static void drop_written(struct mmu *mmu, struct shadow_table *t, unsigned offset, unsigned end)
{
	unsigned size = t->role.wide ? 8 : 4, each = size == 4 && t->role.level == 2 ? 2 : 1; /* of ours for one of the guest's */
	unsigned share = ENTRIES / each, part = t->role.quadrant * share;

	for (unsigned i = offset / size; i * size < end; i++)
		for (unsigned n = 0; i - part < share && n < each; n++)
			shadow_drop(mmu, &t->entries[(i - part) * each + n]);
}

void shadow_written(struct mmu *mmu, u64 gpa, unsigned len)
{
	u64 gfn = gpa >> HOST_PAGE_SHIFT;
	unsigned offset = gpa % HOST_PAGE_SIZE;

	if (!__atomic_load_n(&mmu->shadow->nr_guest_tables, __ATOMIC_SEQ_CST))
		return;
	host_write_lock(&mmu->lock);
	for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++) {
		struct guest_page *page = shadow_guest_page(mmu, as, gfn);
		struct shadow_table *t, *next;

		for (t = page ? page->tables : NULL; t; t = next) {
			next = t->next;
			if (t->role.direct)
				continue;
			/* Nobody writes entries like that */
			if (len < 4 || (gpa & 3) || ++t->writes > FLOOD)
				shadow_zap_table(mmu, t);
			else
				drop_written(mmu, t, offset, offset + len);
		}
	}
	host_write_unlock(&mmu->lock);
	/* No flush: the guest will, and frees wait for it. Whoever writes may count as being in guest code. */
}

const struct mmu_kind shadow_kind = {
	.create = shadow_create,
	.destroy = shadow_destroy,
	.vcpu_create = shadow_vcpu_create,
	.vcpu_destroy = shadow_vcpu_destroy,
	.load = load,
	.fault = fault,
	.zap = shadow_zap,
	.detach = shadow_detach,
	.write_protect = shadow_write_protect,
	.age = shadow_age,
	.shrink = shadow_shrink,
	.reap = shadow_reap,
};
