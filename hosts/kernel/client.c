/* The client's memory: copies that may fault, pages and what becomes of them. */
#include "hosts/kernel/linux.h"
#include "hosts/kernel/compat.h"
#include "hosts/kernel/events.h"

#include <linux/ioport.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

/* What page tables and devices' registers are read and written with comes by words, an instruction in two: no need for a general copy. */
#define COPY_WORD_FROM(type)                                                                                           \
	case sizeof(type): {                                                                                           \
		type value;                                                                                            \
		if (get_user(value, (const type __user *)src))                                                         \
			return -EFAULT;                                                                                \
		memcpy(dst, &value, sizeof(type));                                                                     \
		return 0;                                                                                              \
	}

int host_copy_from_client(void *dst, u64 src, size_t len)
{
	switch (len) {
	COPY_WORD_FROM(u8)
	COPY_WORD_FROM(u16)
	COPY_WORD_FROM(u32)
	COPY_WORD_FROM(u64)
	}
	if (len > sizeof(u64) && len < 2 * sizeof(u64)) {
		u64 first, last;

		if (get_user(first, (const u64 __user *)src) || get_user(last, (const u64 __user *)(src + len - sizeof(u64))))
			return -EFAULT;
		memcpy(dst, &first, sizeof(u64));
		memcpy(dst + len - sizeof(u64), &last, sizeof(u64));
		return 0;
	}
	return copy_from_user(dst, (const void __user *)src, len) ? -EFAULT : 0;
}

int host_copy_from_client_nosleep(void *dst, u64 src, size_t len)
{
	int r;

	pagefault_disable();
	r = host_copy_from_client(dst, src, len);
	pagefault_enable();
	return r;
}

int host_copy_to_client(u64 dst, const void *src, size_t len)
{
	return copy_to_user((void __user *)dst, src, len) ? -EFAULT : 0;
}

bool host_client_range_ok(u64 addr, u64 len)
{
	return access_ok((const void __user *)addr, len);
}

/* ---- exchange -------------------------------------------------------------------------------------------------- */

/* 0 exchanged, 1 not; a fault goes to @label. Between user_access_begin() and user_access_end(). */
#define EXCHANGE(type, hva, old, new, label) \
	(!unsafe_try_cmpxchg_user((type __user *)(hva), (type *)(old), *(const type *)(new), label))

static int exchange16(u64 hva, u64 old[2], const u64 new[2])
{
	bool exchanged = false;
	int error = 0;

	__asm__ volatile("1: lock cmpxchg16b %[mem]\n\tsetz %[exchanged]\n2:\n" _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %[error])
			 : [exchanged] "+q"(exchanged), [error] "+r"(error), [mem] "+m"(*(u64 (*)[2])hva), "+a"(old[0]), "+d"(old[1])
			 : "b"(new[0]), "c"(new[1])
			 : "memory", "cc");
	return error ? error : !exchanged;
}

int host_client_cmpxchg(u64 hva, void *old, const void *new, unsigned len)
{
	int r;

	if (!IS_ALIGNED(hva, len) || !user_access_begin((void __user *)hva, len))
		return -EFAULT;
	switch (len) {
	case 1: r = EXCHANGE(u8, hva, old, new, fault); break;
	case 2: r = EXCHANGE(u16, hva, old, new, fault); break;
	case 4: r = EXCHANGE(u32, hva, old, new, fault); break;
	case 8: r = EXCHANGE(u64, hva, old, new, fault); break;
	case 16: r = exchange16(hva, old, new); break;
	default: goto fault;
	}
	user_access_end();
	return r;
fault:
	user_access_end();
	return -EFAULT;
}

/* ---- pages ----------------------------------------------------------------------------------------------------- */

static int page_error(long r)
{
	switch (r) {
	case -EHWPOISON:
	case -EINTR:
	case -ENOMEM: return (int)r;
	case -ERESTARTSYS: return -EINTR;
	default: return -EFAULT;
	}
}

/* The physical page of a mapping that has no struct page, or none that is counted: a device's. */
static int get_unmanaged(u64 hva, bool write, struct host_client_page *page)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	unsigned long pfn = 0;
	bool writable = false, unlocked = false;
	/* A mapping may go as soon as it came. One that is there and still cannot be followed, by a huge page for one, stays so. */
	unsigned tries = 16;
	int r = -EFAULT;

	mmap_read_lock(mm);
	do {
		unlocked = false;
		vma = vma_lookup(mm, hva);
		if (!vma || !(vma->vm_flags & (VM_IO | VM_PFNMAP)) || (write && !(vma->vm_flags & VM_WRITE))) {
			r = -EFAULT;
			break;
		}
		{
#ifdef COMPAT_FOLLOW_PFNMAP
			struct follow_pfnmap_args args = { .vma = vma, .address = hva };

			r = follow_pfnmap_start(&args);
			if (!r) {
				pfn = args.pfn;
				writable = args.writable;
				follow_pfnmap_end(&args);
			}
#else
			spinlock_t *lock;
			pte_t *pte;

			r = follow_pte(mm, hva, &pte, &lock);
			if (!r) {
				pfn = pte_pfn(*pte);
				writable = pte_write(*pte);
				pte_unmap_unlock(pte, lock);
			}
#endif
		}
		if (!r && (writable || !write))
			break;
		r = fixup_user_fault(mm, hva, write ? FAULT_FLAG_WRITE : 0, &unlocked);
		if (r)
			break;
		r = -EAGAIN;
	} while (--tries && !fatal_signal_pending(current));
	mmap_read_unlock(mm);
	if (r)
		return r == -EAGAIN && tries ? -EINTR : page_error(r);
	page->phys = PFN_PHYS(pfn);
	page->writable = writable;
	page->memory = page_is_ram(pfn);
	page->ref = NULL;
	return 0;
}

int host_client_page_get(u64 hva, bool write, struct host_client_page *page)
{
	struct page *p;
	bool writable = true;
	long r;

	/* A page that may be written anyway is best known as such: the next fault on it is saved. */
	if (!get_user_page_fast_only(hva & PAGE_MASK, FOLL_WRITE, &p)) {
		r = get_user_pages_unlocked(hva & PAGE_MASK, 1, &p, FOLL_HWPOISON | (write ? FOLL_WRITE : 0));
		if (r == -EFAULT)
			return get_unmanaged(hva & PAGE_MASK, write, page);
		if (r != 1)
			return page_error(r);
		writable = write;
	}
	page->phys = PFN_PHYS(page_to_pfn(p));
	page->writable = writable;
	page->memory = true;
	page->ref = p;
	return 0;
}

void host_client_page_put(struct host_client_page *page, bool dirty)
{
	struct page *p = page->ref;

	if (!p)
		return;
	if (dirty && !PageReserved(p))
		SetPageDirty(p);
	put_page(p);
	page->ref = NULL;
}

unsigned host_client_page_shift(u64 hva)
{
	struct mm_struct *mm = current->mm;
	unsigned long flags;
	unsigned shift = PAGE_SHIFT;
	pgd_t pgd;
	p4d_t p4d;
	pud_t pud;
	pmd_t pmd;

	/* Page tables are freed only after an interrupt has gone to each CPU that may be reading them. */
	local_irq_save(flags);
	pgd = READ_ONCE(*pgd_offset(mm, hva));
	if (pgd_none(pgd))
		goto out;
	p4d = READ_ONCE(*p4d_offset(&pgd, hva));
	if (p4d_none(p4d) || !p4d_present(p4d))
		goto out;
	pud = READ_ONCE(*pud_offset(&p4d, hva));
	if (pud_none(pud) || !pud_present(pud))
		goto out;
	if (pud_leaf(pud)) {
		shift = PUD_SHIFT;
		goto out;
	}
	pmd = READ_ONCE(*pmd_offset(&pud, hva));
	if (pmd_present(pmd) && pmd_leaf(pmd))
		shift = PMD_SHIFT;
out:
	local_irq_restore(flags);
	return shift;
}

/* ---- watching the address space --------------------------------------------------------------------------------- */

static struct mm_watch_inside *inside_of(struct mmu_notifier *notifier)
{
	return container_of(notifier, struct mm_watch_inside, notifier);
}

static int change_begins(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct mm_watch_inside *inside = inside_of(notifier);
	struct host_mm_watch *w = inside->outside;

	trace_kvm_unmap_hva_range(range->start, range->end);
	spin_lock(&inside->lock);
	if (w->changing++) {
		w->start = min_t(u64, w->start, range->start);
		w->end = max_t(u64, w->end, range->end);
	} else {
		w->start = range->start;
		w->end = range->end;
	}
	spin_unlock(&inside->lock);
	w->ops->invalidate(w, range->start, range->end);
	return 0;
}

static void change_ends(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct mm_watch_inside *inside = inside_of(notifier);
	struct host_mm_watch *w = inside->outside;

	spin_lock(&inside->lock);
	WRITE_ONCE(w->seq, w->seq + 1);
	w->changing--;
	spin_unlock(&inside->lock);
}

static int age(struct mmu_notifier *notifier, unsigned long start, unsigned long end, bool clear)
{
	struct host_mm_watch *w = inside_of(notifier)->outside;

	return w->ops->age(w, start, end, clear);
}

static int clear_young(struct mmu_notifier *notifier, struct mm_struct *mm, unsigned long start, unsigned long end)
{
	trace_kvm_age_hva(start, end);
	return age(notifier, start, end, true);
}

static int test_young(struct mmu_notifier *notifier, struct mm_struct *mm, unsigned long addr)
{
	trace_kvm_test_age_hva(addr);
	return age(notifier, addr, addr + 1, false);
}

static void address_space_goes(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	struct host_mm_watch *w = inside_of(notifier)->outside;

	w->ops->gone(w);
}

static const struct mmu_notifier_ops watch_ops = {
	.invalidate_range_start = change_begins,
	.invalidate_range_end = change_ends,
	.clear_flush_young = clear_young,
	.clear_young = clear_young,
	.test_young = test_young,
	.release = address_space_goes,
};

int host_mm_watch_start(struct host_mm_watch *w, const struct host_mm_watch_ops *ops)
{
	struct mm_watch_inside *inside = INSIDE(struct mm_watch_inside, w);

	w->ops = ops;
	w->seq = 0;
	w->changing = 0;
	inside->outside = w;
	inside->notifier.ops = &watch_ops;
	spin_lock_init(&inside->lock);
	return mmu_notifier_register(&inside->notifier, current->mm);
}

void host_mm_watch_stop(struct host_mm_watch *w)
{
	struct mmu_notifier *notifier = &INSIDE(struct mm_watch_inside, w)->notifier;

	mmu_notifier_unregister(notifier, notifier->mm);
}

/* Pages that are got afterwards are not looked up before. */
u64 host_mm_watch_seq(struct host_mm_watch *w)
{
	u64 seq = READ_ONCE(w->seq);

	smp_rmb();
	return seq;
}

bool host_mm_watch_retry(struct host_mm_watch *w, u64 seq, u64 hva)
{
	struct mm_watch_inside *inside = INSIDE(struct mm_watch_inside, w);
	bool retry;

	spin_lock(&inside->lock);
	retry = w->seq != seq || (w->changing && hva + PAGE_SIZE > w->start && hva < w->end);
	spin_unlock(&inside->lock);
	return retry;
}

bool host_mm_watch_mine(struct host_mm_watch *w)
{
	return INSIDE(struct mm_watch_inside, w)->notifier.mm == current->mm;
}

/* ---- memory is short --------------------------------------------------------------------------------------------- */

/* What stands in the words: the shrinker itself, or where the kernel allocates them, the pointer to it. */
static struct host_shrinker *shrinker_outside(struct shrinker *shrinker)
{
#ifdef COMPAT_SHRINKER_ALLOC
	return shrinker->private_data;
#else
	return container_of((unsigned long (*)[HOST_SHRINKER_WORDS])shrinker, struct host_shrinker, words);
#endif
}

static unsigned long shrink_count(struct shrinker *shrinker, struct shrink_control *control)
{
	struct host_shrinker *s = shrinker_outside(shrinker);

	return s->count(s);
}

static unsigned long shrink_scan(struct shrinker *shrinker, struct shrink_control *control)
{
	struct host_shrinker *s = shrinker_outside(shrinker);

	return s->scan(s, control->nr_to_scan);
}

int host_shrinker_start(struct host_shrinker *s, const char *name, unsigned long (*count)(struct host_shrinker *s),
			unsigned long (*scan)(struct host_shrinker *s, unsigned long nr))
{
	struct shrinker *shrinker;

	s->count = count;
	s->scan = scan;
#ifdef COMPAT_SHRINKER_ALLOC
	shrinker = shrinker_alloc(0, "%s", name);
	if (!shrinker)
		return -ENOMEM;
	*(struct shrinker **)s->words = shrinker;
	shrinker->private_data = s;
#else
	shrinker = INSIDE(struct shrinker, s);
	memset(shrinker, 0, sizeof(*shrinker));
#endif
	shrinker->count_objects = shrink_count;
	shrinker->scan_objects = shrink_scan;
	shrinker->seeks = DEFAULT_SEEKS;
#ifdef COMPAT_SHRINKER_ALLOC
	shrinker_register(shrinker);
	return 0;
#else
	return register_shrinker(shrinker, "%s", name);
#endif
}

void host_shrinker_stop(struct host_shrinker *s)
{
#ifdef COMPAT_SHRINKER_ALLOC
	shrinker_free(*(struct shrinker **)s->words);
#else
	unregister_shrinker(INSIDE(struct shrinker, s));
#endif
}
