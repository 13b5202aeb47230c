/*
 * The part that is the same for nested and shadow tables; see mmu_priv.h.
 */
#include "core/x86/mmu/mmu_priv.h"

#include "core/memslot.h"

/* ---- flushing ------------------------------------------------------------------------------------------------ */

void mmu_flush(struct mmu *mmu)
{
	u64 stale = __atomic_load_n(&mmu->stale, __ATOMIC_SEQ_CST), flushed = __atomic_load_n(&mmu->flushed, __ATOMIC_SEQ_CST);

	if (flushed >= stale)
		return;
	__atomic_fetch_add(&mmu->vm->stats->remote_tlb_flush, 1, __ATOMIC_RELAXED);
	vm_request_all(mmu->vm, REQ_TLB_FLUSH, true);
	while (flushed < stale && !__atomic_compare_exchange_n(&mmu->flushed, &flushed, stale, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

/* ---- one guest page ------------------------------------------------------------------------------------------ */

enum mmu_fault mmu_page_get(struct mmu_vcpu *m, struct mmu_page *p, int *error)
{
	struct mmu *mmu = m->mmu;

	p->slots = vm_slots(mmu->vm, p->as_id);
	if (m->hole_gfn == p->gfn && m->hole_as == p->as_id && m->hole_generation == p->slots->generation)
		return MMU_EMULATE;
	p->slot = memslot_find(p->slots, p->gfn);
	if (!p->slot) {
		m->hole_gfn = p->gfn;
		m->hole_as = p->as_id;
		m->hole_generation = p->slots->generation;
		return MMU_EMULATE;
	}
	if (p->write && (p->slot->flags & KVM_MEM_READONLY))
		return MMU_EMULATE;
	p->hva = p->slot->hva + ((p->gfn - p->slot->base_gfn) << HOST_PAGE_SHIFT);
	p->seq = host_mm_watch_seq(&mmu->watch);
	*error = host_client_page_get(p->hva, p->write, &p->client);
	return *error ? MMU_ERROR : MMU_FIXED;
}

bool mmu_page_holds(struct mmu *mmu, const struct mmu_page *p)
{
	/* Slots are published before mmu_slot_flush() comes for the lock: either we see the new ones, or it sees what we map. */
	return !mmu->gone && vm_slots(mmu->vm, p->as_id) == p->slots && !host_mm_watch_retry(&mmu->watch, p->seq, p->hva);
}

unsigned mmu_page_level(struct mmu *mmu, const struct mmu_page *p)
{
	unsigned shift = host_client_page_shift(p->hva), level = mmu->config.huge_1g ? 3 : 2;
	const struct memslot *slot = p->slot;

	/* The log knows pages of 4 KiB */
	if (memslot_logs_dirty(slot))
		return 1;
	for (; level > 1; level--) {
		u64 pages = level_pages(level), first = ROUND_DOWN(p->gfn, pages);

		if (shift >= HOST_PAGE_SHIFT + level_bits(level) && first >= slot->base_gfn &&
		    first + pages <= slot->base_gfn + slot->npages && !(((p->hva >> HOST_PAGE_SHIFT) ^ p->gfn) & (pages - 1)))
			break;
	}
	return level;
}

void mmu_page_put(struct mmu_page *p)
{
	/* As dirty as it can get while it is mapped: the host takes the mapping away before it counts the page as clean. */
	host_client_page_put(&p->client, mmu_page_may_write(p));
}

/* ---- the client's address space changes ---------------------------------------------------------------------- */

static struct mmu *of_watch(struct host_mm_watch *w)
{
	return container_of(w, struct mmu, watch);
}

/* The part of @slot that lies in client addresses [@start, @end); false: none. */
static bool overlap(const struct memslot *slot, u64 start, u64 end, u64 *first, u64 *last)
{
	u64 from = MAX(start, slot->hva), to = MIN(end, slot->hva + (slot->npages << HOST_PAGE_SHIFT));

	if (from >= to)
		return false;
	*first = slot->base_gfn + ((from - slot->hva) >> HOST_PAGE_SHIFT);
	*last = slot->base_gfn + ((to - 1 - slot->hva) >> HOST_PAGE_SHIFT) + 1;
	return true;
}

/* What is to be done to the pages of a range of client addresses. */
struct change {
	void (*apply)(struct mmu *mmu, struct change *c, unsigned as, u64 first, u64 end);
	bool clear, found;
};

static void apply_to_slot(struct mmu *mmu, struct change *c, const struct memslot *slot, u64 start, u64 end)
{
	u64 first, last;

	if (overlap(slot, start, end, &first, &last))
		c->apply(mmu, c, slot->as_id, first, last);
}

/* In every slot that shows them, one that is just leaving included. Under the lock. */
static void apply(struct mmu *mmu, struct change *c, u64 start, u64 end)
{
	struct vm *vm = mmu->vm;
	int srcu = host_srcu_read_lock(&vm->srcu);
	struct memslot *leaving;

	for (unsigned as = 0; as < VM_ADDRESS_SPACES; as++) {
		struct memslots *slots = vm_slots(vm, as);

		for (unsigned i = 0; i < slots->count; i++)
			apply_to_slot(mmu, c, slots->slot[i], start, end);
	}
	leaving = __atomic_load_n(&vm->leaving, __ATOMIC_ACQUIRE);
	if (leaving)
		apply_to_slot(mmu, c, leaving, start, end);
	host_srcu_read_unlock(&vm->srcu, srcu);
}

static void apply_zap(struct mmu *mmu, struct change *c, unsigned as, u64 first, u64 end)
{
	mmu->kind->zap(mmu, as, first, end);
}

static void invalidate(struct host_mm_watch *w, u64 start, u64 end)
{
	struct mmu *mmu = of_watch(w);
	struct change c = { .apply = apply_zap };

	host_write_lock(&mmu->lock);
	apply(mmu, &c, start, end);
	host_write_unlock(&mmu->lock);
	mmu_flush(mmu);
}

static void apply_age(struct mmu *mmu, struct change *c, unsigned as, u64 first, u64 end)
{
	c->found |= mmu->kind->age(mmu, as, first, end, c->clear);
}

static bool age(struct host_mm_watch *w, u64 start, u64 end, bool clear)
{
	struct mmu *mmu = of_watch(w);
	struct change c = { .apply = apply_age, .clear = clear };

	host_write_lock(&mmu->lock);
	apply(mmu, &c, start, end);
	host_write_unlock(&mmu->lock);
	return c.found;
}

static void gone(struct host_mm_watch *w)
{
	struct mmu *mmu = of_watch(w);

	host_write_lock(&mmu->lock);
	__atomic_store_n(&mmu->gone, true, __ATOMIC_RELAXED);
	mmu->kind->shrink(mmu, ~0UL);
	host_write_unlock(&mmu->lock);
	mmu->kind->reap(mmu);
}

static const struct host_mm_watch_ops watch_ops = { .invalidate = invalidate, .age = age, .gone = gone };

static unsigned long shrink_count(struct host_shrinker *s)
{
	return __atomic_load_n(&container_of(s, struct mmu, shrinker)->nr_tables, __ATOMIC_RELAXED);
}

static unsigned long shrink_scan(struct host_shrinker *s, unsigned long nr)
{
	struct mmu *mmu = container_of(s, struct mmu, shrinker);

	host_write_lock(&mmu->lock);
	mmu->kind->shrink(mmu, nr);
	host_write_unlock(&mmu->lock);
	return mmu->kind->reap(mmu);
}

/* ---- slots change -------------------------------------------------------------------------------------------- */

/* The slot that took @old's place and differs in being logged or not; NULL: it is gone, or elsewhere. */
static struct memslot *successor(struct mmu *mmu, const struct memslot *old)
{
	struct memslot *now = memslot_by_id(mmu->vm, old->as_id, old->id);

	return now && now->base_gfn == old->base_gfn && now->npages == old->npages && now->hva == old->hva &&
			       !((now->flags ^ old->flags) & KVM_MEM_READONLY) ? now : NULL;
}

void mmu_slot_flush(struct mmu *mmu, const struct memslot *old)
{
	struct memslot *now = successor(mmu, old);
	u64 end = old->base_gfn + old->npages;

	host_write_lock(&mmu->lock);
	/* No more logged, or not the same pages: the next faults make new tables, of huge pages again. */
	if (!now || !memslot_logs_dirty(now))
		mmu->kind->detach(mmu, old->as_id, old->base_gfn, end);
	/* Where all pages count as written in the beginning, those that the client clears are protected, and none before. */
	else if (!memslot_logs_dirty(old) && !(now->dirty_bitmap && mmu->vm->dirty_init_set))
		mmu->kind->write_protect(mmu, old->as_id, old->base_gfn, end);
	host_write_unlock(&mmu->lock);
	mmu->kind->reap(mmu);
}

void mmu_slot_write_protect(struct mmu *mmu, const struct memslot *slot, u64 gfn_offset, u64 mask)
{
	u64 gfn = slot->base_gfn + gfn_offset;

	host_write_lock(&mmu->lock);
	while (mask) {
		unsigned first = __builtin_ctzll(mask);
		u64 run = mask >> first;
		unsigned len = ~run ? __builtin_ctzll(~run) : 64;

		mmu->kind->write_protect(mmu, slot->as_id, gfn + first, gfn + first + len);
		mask &= len < 64 ? ~(((1ULL << len) - 1) << first) : 0;
	}
	host_write_unlock(&mmu->lock);
}

void mmu_slot_flush_done(struct mmu *mmu)
{
	mmu_flush(mmu);
}

/* ---- the engine's side --------------------------------------------------------------------------------------- */

int mmu_load(struct mmu_vcpu *m, u64 *root)
{
	if (unlikely(__atomic_load_n(&m->mmu->gone, __ATOMIC_RELAXED)))
		return -EFAULT;
	return m->mmu->kind->load(m, root);
}

enum mmu_fault mmu_fault(struct mmu_vcpu *m, u64 addr, u32 access, struct x86_event *ev, int *error)
{
	struct vcpu_stats *stats = m->vcpu->stats;
	enum mmu_fault r;

	/* A change of the client's memory waits for those in guest code, and we may have to wait for the change. */
	vcpu_leave_guest(m->vcpu);
	host_event_page_fault(m->vcpu->id, m->vcpu->x86.rip, addr, access);
	r = m->mmu->kind->fault(m, addr, access, ev, error);
	if (r == MMU_FIXED)
		stats->pf_fixed++;
	else if (r == MMU_EMULATE)
		stats->pf_emulate++;
	return r;
}

void mmu_error_exit(struct vcpu *vcpu, int error, struct engine_exit *exit)
{
	/* The signal is still there: KVM_RUN ends by itself */
	if (error == -EINTR)
		return;
	exit->reason = EXIT_USER;
	vcpu->io.error = error;
}

void mmu_guest_flush(struct mmu_vcpu *m, enum tlb_scope scope, u64 arg)
{
	if (m->shadow)
		shadow_flushed(m, scope, arg);
}

void mmu_guest_written(struct mmu *mmu, u64 gpa, unsigned len)
{
	shadow_written(mmu, gpa, len);
}

void mmu_guest_replaced(struct mmu *mmu)
{
	host_write_lock(&mmu->lock);
	mmu->kind->shrink(mmu, ~0UL);
	host_write_unlock(&mmu->lock);
	mmu->kind->reap(mmu);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

int mmu_create(struct vm *vm, const struct mmu_config *config, struct mmu **out)
{
	struct mmu *mmu = host_zalloc(sizeof(*mmu));
	int error;

	if (!mmu)
		return -ENOMEM;
	mmu->vm = vm;
	mmu->config = *config;
	mmu->format = &entry_formats[config->format];
	mmu->kind = config->nested ? &nested_kind : &shadow_kind;
	host_rwlock_init(&mmu->lock);
	error = mmu->kind->create(mmu);
	if (!error)
		error = host_mm_watch_start(&mmu->watch, &watch_ops);
	if (error)
		goto free;
	error = host_shrinker_start(&mmu->shrinker, "trine-mmu", shrink_count, shrink_scan);
	if (error)
		goto stop;
	if (!config->nested)
		vm->shadow = mmu;
	*out = mmu;
	return 0;

stop:
	host_mm_watch_stop(&mmu->watch);
free:
	mmu->kind->destroy(mmu);
	host_rwlock_destroy(&mmu->lock);
	host_free(mmu);
	return error;
}

void mmu_destroy(struct mmu *mmu)
{
	host_shrinker_stop(&mmu->shrinker);
	host_mm_watch_stop(&mmu->watch);
	mmu->kind->destroy(mmu);
	host_rwlock_destroy(&mmu->lock);
	host_free(mmu);
}

int mmu_vcpu_create(struct mmu *mmu, struct vcpu *vcpu, struct mmu_vcpu **out)
{
	struct mmu_vcpu *m = host_zalloc(sizeof(*m));
	int error;

	if (!m)
		return -ENOMEM;
	m->mmu = mmu;
	m->vcpu = vcpu;
	m->hole_gfn = ~0ULL;
	error = mmu->kind->vcpu_create(m);
	if (error) {
		host_free(m);
		return error;
	}
	*out = m;
	return 0;
}

void mmu_vcpu_destroy(struct mmu_vcpu *m)
{
	m->mmu->kind->vcpu_destroy(m);
	host_free(m);
}
