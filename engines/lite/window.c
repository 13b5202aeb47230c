/* See window.h. */
#include "engines/lite/window.h"

#include "core/stats.h"
#include "engines/lite/options.h"
#include "hosts/user/sys.h"

#include <sys/auxv.h>

#define HWCAP2_FSGSBASE 2

/* mremap() without the C library's name, which the preload shim's process may have another idea of. */
static void *sys_mremap(void *old, size_t old_len, size_t len, int flags, void *new)
{
	return (void *)syscall(SYS_mremap, old, old_len, len, flags, new);
}

#define PAGES	   8192U /* mappings of a window; the process may have 65,530 (vm.max_map_count) */
#define HEADS	   4096U
#define NONE	   0xffffU
#define SLOT_SIZE  BIT64(LITE_WINDOW_SHIFT)
#define LARGE_SIZE BIT64(21)
/* The distance of a slot that has none: bit 48 is set and bit 47 is not. */
#define POISON	   BIT64(48)

/* When an address space is worth it: it has run so long, and a number of page flushes is not reached meanwhile. */
#define HOT_NS	     2000000ULL
#define HOT_FLUSHES  64U
/* What faults it may have: so many at once, and one more in each such time. */
#define CREDIT	     768U
#define CREDIT_NS    100000ULL
/* Having asked for more, it waits so long; twice as long each time, and half as long again for each second without. */
#define QUIET_NS     20000000ULL
#define QUIET_MAX_NS 2000000000ULL

struct page {
	u64 la;
	u8 *host;
	u16 next;
	bool large, writable;
};

struct lite_window {
	struct host_mutex lock; /* of the pages; other vCPUs take writable ones back */
	u64 gen;		/* whose pages they are; 0: there are none */
	u16 head[HEADS], free;
	u32 n;
	struct page pages[PAGES];
	/* By slot of the guest's: where it is, 0: it has none; what of it was mapped since it was last empty */
	u64 place[LITE_WINDOW_SLOTS], low[LITE_WINDOW_SLOTS], high[LITE_WINDOW_SLOTS];
	int number;   /* of window_take(); -1: it has no slots yet */
	bool useless; /* memory of this client cannot be mapped twice, or there are no slots */
	/* (v) */
	u64 hot_gen, hot_since, hot_flushes;
	u64 credit_at, quiet_until, quiet_ns;
	u32 credit;
};

/* ---- slots of this process ------------------------------------------------------------------------------------------- */

/*
 * The slots of a window: those of the guest's that programs use, and where window @n has them. Code above the lowest slot has the others at one
 * distance (LITE_WINDOW_HIGH), so one base of GS serves both.
 */
#define WINDOWS 9U
static const u8 guest_slots[] = { 0, LITE_WINDOW_EXE, LITE_WINDOW_LIB };

static u64 place_in(unsigned window, unsigned slot)
{
	return (u64)(slot ? slot - 1 - window : 1 + window) << LITE_WINDOW_SHIFT;
}

/*
 * What is reserved of the process's address space: for each slot in use all of it, and LITE_WINDOW_ROOM more at both ends, where never
 * anything is mapped. Reserved once, it stays so; ends are shared by neighbours.
 */
static struct {
	pthread_mutex_t lock;
	u64 ends, inner; /* a bit each: around the beginning of a slot; the rest of it */
	u32 taken;	 /* windows */
} slots = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool reserve(u64 *done, unsigned i, u64 from, u64 to)
{
	void *p;

	if (*done & BIT64(i))
		return true;
	p = sys_mmap((void *)from, to - from, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (p == MAP_FAILED)
		return false;
	/* Kernels before 4.17 take the address for a wish. */
	if (p != (void *)from) {
		syscall(SYS_munmap, p, to - from);
		return false;
	}
	*done |= BIT64(i);
	return true;
}

static bool reserve_slot(u64 at)
{
	unsigned i = (unsigned)(at >> LITE_WINDOW_SHIFT);
	u64 next = at + SLOT_SIZE;

	return reserve(&slots.ends, i, at - LITE_WINDOW_ROOM, at + LITE_WINDOW_ROOM) &&
	       reserve(&slots.ends, i + 1, next - LITE_WINDOW_ROOM, next + LITE_WINDOW_ROOM) &&
	       reserve(&slots.inner, i, at + LITE_WINDOW_ROOM, next - LITE_WINDOW_ROOM);
}

/* The number of a window that nobody has; -1: there is none. */
static int window_take(void)
{
	int n = -1;

	pthread_mutex_lock(&slots.lock);
	for (unsigned w = 0; w < WINDOWS && n < 0; w++) {
		bool good = !(slots.taken & 1U << w);

		for (unsigned i = 0; good && i < ARRAY_SIZE(guest_slots); i++)
			good = reserve_slot(place_in(w, guest_slots[i]));
		if (good) {
			slots.taken |= 1U << w;
			n = (int)w;
		}
	}
	pthread_mutex_unlock(&slots.lock);
	return n;
}

static void window_give(unsigned n)
{
	pthread_mutex_lock(&slots.lock);
	slots.taken &= ~(1U << n);
	pthread_mutex_unlock(&slots.lock);
}

/* ---- pages ----------------------------------------------------------------------------------------------------------- */

static u64 page_size(const struct page *p)
{
	return p->large ? LARGE_SIZE : 4096;
}

static u16 *head_of(struct lite_window *w, u64 la, bool large)
{
	u64 n = large ? la >> 21 : la >> 12;

	return &w->head[(n ^ n >> 12) % HEADS];
}

static struct page *find_kind(struct lite_window *w, u64 la, bool large)
{
	u16 i = *head_of(w, la, large);

	la &= large ? ~(LARGE_SIZE - 1) : PAGE_MASK_;
	while (i != NONE && (w->pages[i].la != la || w->pages[i].large != large))
		i = w->pages[i].next;
	return i == NONE ? NULL : &w->pages[i];
}

static struct page *find(struct lite_window *w, u64 la)
{
	struct page *p = find_kind(w, la, false);

	return p ? p : find_kind(w, la, true);
}

static u64 slot_of(u64 la)
{
	return la >> LITE_WINDOW_SHIFT;
}

static void *place_of(const struct lite_window *w, u64 la)
{
	return (void *)(w->place[slot_of(la)] + (la & (SLOT_SIZE - 1)));
}

static void unmap(void *at, u64 size)
{
	sys_mmap(at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

/* Of the table only. */
static void forget(struct lite_window *w, struct page *p)
{
	u16 i = (u16)(p - w->pages), *link = head_of(w, p->la, p->large);

	while (*link != i)
		link = &w->pages[*link].next;
	*link = p->next;
	p->next = w->free;
	p->host = NULL;
	w->free = i;
	w->n--;
}

static void drop(struct lite_window *w, struct page *p)
{
	unmap(place_of(w, p->la), page_size(p));
	forget(w, p);
}

static void reset_table(struct lite_window *w)
{
	memset(w->head, 0xff, sizeof(w->head));
	for (unsigned i = 0; i < PAGES; i++) {
		w->pages[i].next = i + 1 < PAGES ? i + 1 : NONE;
		w->pages[i].host = NULL;
	}
	w->free = 0;
	w->n = 0;
}

static void drop_all(struct lite_window *w)
{
	w->gen = 0;
	if (!w->n)
		return;
	for (unsigned s = 0; s < LITE_WINDOW_SLOTS; s++)
		if (w->high[s] > w->low[s]) {
			unmap((void *)(w->place[s] + w->low[s]), w->high[s] - w->low[s]);
			w->low[s] = SLOT_SIZE;
			w->high[s] = 0;
		}
	reset_table(w);
}

/* Notes that @gfn may be written by a window; false: it holds code. The other side of lite_window_revoke(). */
static bool note_writable(struct lite_vm *lvm, u64 gfn)
{
	struct lite_gfns *g = lite_gfns(lvm, gfn, true);

	if (!g)
		return false;
	__atomic_fetch_or(&g->windowed[(gfn / 64) % 512], BIT64(gfn % 64), __ATOMIC_SEQ_CST);
	return !lite_is_code(lvm, gfn);
}

/*
 * Maps @size bytes at @la to @host, in place of whatever is there; w->lock held. A second mapping of the same pages is to be had of shared
 * memory only (mremap(2)).
 */
static bool map(struct lite_window *w, u64 la, u8 *host, u64 size, bool writable)
{
	void *at = place_of(w, la);
	struct page *p;
	u64 off = la & (SLOT_SIZE - 1);
	u16 i = w->free;

	if (i == NONE)
		return false;
	if (sys_mremap(host, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED) {
		w->useless = errno == EINVAL;
		return false;
	}
	if (!writable && mprotect(at, size, PROT_READ)) {
		unmap(at, size);
		return false;
	}
	p = &w->pages[i];
	w->free = p->next;
	*p = (struct page){ .la = la, .host = host, .large = size == LARGE_SIZE, .writable = writable };
	p->next = *head_of(w, la, p->large);
	*head_of(w, la, p->large) = i;
	w->n++;
	w->low[slot_of(la)] = MIN(w->low[slot_of(la)], off);
	w->high[slot_of(la)] = MAX(w->high[slot_of(la)], off + size);
	return true;
}

/* Nothing is mapped at the ends of a slot. */
static bool at_end(u64 la)
{
	return ((la + LITE_WINDOW_ROOM) & (SLOT_SIZE - 1)) < 2 * LITE_WINDOW_ROOM;
}

/* The 2 MiB around @la, when the guest has a large page there that lies in one piece of memory. */
static bool map_large(struct lite_vcpu *c, struct lite_window *w, const struct lite_walk_entry *e, bool writable)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	u64 into = e->la & (LARGE_SIZE - 1), la = e->la - into, gfn = (e->gpa - into) >> 12;
	const struct memslot *slot = e->slot;
	struct page *p;

	if (!e->large || e->large_at >= LITE_LARGE_4M || (e->gpa & (LARGE_SIZE - 1)) != into || at_end(la) || at_end(la + LARGE_SIZE - 1))
		return false;
	if (gfn < slot->base_gfn || gfn + 512 > slot->base_gfn + slot->npages)
		return false;
	for (unsigned i = 0; writable && i < 512; i++)
		if (!note_writable(lvm, gfn + i))
			return false;
	for (unsigned i = 0; i < 512; i++) {
		p = find_kind(w, la + i * 4096, false);
		if (p)
			forget(w, p); /* what is mapped now replaces it */
	}
	p = find_kind(w, la, true);
	if (p)
		forget(w, p);
	return map(w, la, e->host - into, LARGE_SIZE, writable);
}

/* Maps the page of @la, which has a first-level entry for such an access. */
static bool map_page(struct lite_vcpu *c, u64 la, bool write)
{
	struct lite_window *w = c->window;
	struct lite_walk_entry *e = lite_walk_find(c, la);
	struct page *p;
	bool writable;

	if (!e || !e->host || !(e->rights[1] & LITE_MAY_READ) || at_end(la))
		return false;
	/* INVLPG takes a global page from all address spaces, lite_window_drop() from the current one. */
	if (e->global)
		return false;
	/* What is in the dirty log already may be written at once. */
	writable = (e->rights[1] & LITE_MAY_WRITE) && !(e->slot->flags & (KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES));
	if (write && !writable)
		return false;
	if (map_large(c, w, e, writable))
		return true;
	if (writable && !note_writable(to_lite_vm(c->vcpu.vm), e->gpa >> 12)) {
		if (write)
			return false;
		writable = false;
	}
	p = find(w, la);
	if (p && p->large)
		drop(w, p);
	else if (p)
		forget(w, p);
	return map(w, e->la, e->host, 4096, writable);
}

/* ---- whose it is ----------------------------------------------------------------------------------------------------- */

/* Of stats_now(); less than 4 s. */
static u64 ticks_of(const struct lite_vcpu *c, u64 ns)
{
	return (ns << 32) / c->vcpu.vm->tick_ns;
}

static bool may_have_one(const struct lite_vcpu *c)
{
	return c->window && !c->window->useless && c->vcpu.x86.cpl == 3 && c->code_mode == X86_MODE_LONG && c->window_gen != c->gen;
}

void lite_window_close(struct lite_vcpu *c)
{
	struct lite_window *w = c->window;

	c->window_gen = 0;
	if (!w || (!w->n && !w->gen))
		return;
	lite_fpu_spare(c);
	host_mutex_lock(&w->lock);
	drop_all(w);
	host_mutex_unlock(&w->lock);
	c->count.window_closed++;
}

/* It asks for more than it is worth. */
static void give_up(struct lite_vcpu *c, u64 now)
{
	struct lite_window *w = c->window;

	lite_window_close(c);
	if (unlikely(lite_options.windows == LITE_WINDOWS_EAGER)) {
		w->quiet_until = now + ticks_of(c, QUIET_NS / 64);
		return;
	}
	w->quiet_until = now + ticks_of(c, w->quiet_ns);
	w->quiet_ns = MIN(w->quiet_ns * 2, QUIET_MAX_NS);
}

/* Another fault, or page mapped: whether that is in the credit. */
static bool afford(struct lite_vcpu *c, u64 now)
{
	struct lite_window *w = c->window;
	u64 more = (now - w->credit_at) / ticks_of(c, CREDIT_NS);

	if (unlikely(lite_options.windows == LITE_WINDOWS_EAGER))
		return true;
	if (more) {
		w->credit = (u32)MIN(w->credit + more, (u64)CREDIT);
		w->credit_at = now;
	}
	if (!w->credit)
		return false;
	w->credit--;
	return true;
}

/* The first time: the window gets its slots. */
static bool slots_open(struct lite_vcpu *c)
{
	struct lite_window *w = c->window;

	if (likely(w->number >= 0))
		return true;
	w->number = window_take();
	w->useless = w->number < 0;
	for (unsigned i = 0; !w->useless && i < ARRAY_SIZE(guest_slots); i++) {
		unsigned s = guest_slots[i];

		w->place[s] = place_in((unsigned)w->number, s);
		c->jit.delta[s] = w->place[s] - ((u64)s << LITE_WINDOW_SHIFT);
	}
	return !w->useless;
}

void lite_window_open(struct lite_vcpu *c)
{
	struct lite_window *w = c->window;
	struct lite_view *view = &c->views[1];
	u64 now = stats_now(c->vcpu.vm);

	if (!may_have_one(c) || (s64)(now - w->quiet_until) < 0)
		return;
	lite_fpu_spare(c);
	if (!slots_open(c))
		return;
	if (w->gen != c->gen) {
		lite_window_close(c);
		if (now - w->credit_at > ticks_of(c, 1000000000))
			w->quiet_ns = MAX(w->quiet_ns / 2, QUIET_NS);
		w->credit = CREDIT;
		w->credit_at = now;
		w->gen = c->gen;
		c->count.window_opened++;
		/* What it uses now it will go on with. */
		host_mutex_lock(&w->lock);
		for (unsigned word = 0; word < ARRAY_SIZE(view->w_set.local); word++)
			for (u64 bits = view->w_set.local[word]; bits && w->credit > CREDIT / 2; bits &= bits - 1) {
				unsigned i = word * 64 + __builtin_ctzll(bits);
				u64 la = view->tlb[i].w.tag;

				if (la == LITE_TLB_NONE(i) || slot_of(la) >= LITE_WINDOW_SLOTS || !w->place[slot_of(la)] || find(w, la))
					continue;
				w->credit -= map_page(c, la, true);
			}
		host_mutex_unlock(&w->lock);
	}
	if (w->useless)
		return;
	c->window_gen = c->gen;
	c->window_mode = LITE_MODE_WINDOW | (slot_of(c->vcpu.x86.rip) ? 0 : LITE_MODE_WINDOW_LOW);
	c->window_gs = c->jit.delta[slot_of(c->vcpu.x86.rip) ? LITE_WINDOW_LIB : 0];
}

void lite_window_switched(struct lite_vcpu *c)
{
	struct lite_window *w = c->window;

	if (!w || w->hot_gen == c->gen)
		return;
	w->hot_gen = c->gen;
	w->hot_since = stats_now(c->vcpu.vm);
	w->hot_flushes = c->count.flush_page;
}

void lite_window_consider(struct lite_vcpu *c)
{
	struct lite_window *w = c->window;
	u64 now;

	if (!may_have_one(c))
		return;
	if (w->hot_gen != c->gen || c->count.flush_page - w->hot_flushes > HOT_FLUSHES) {
		w->hot_gen = 0;
		lite_window_switched(c);
		return;
	}
	now = stats_now(c->vcpu.vm);
	if (now - w->hot_since >= ticks_of(c, HOT_NS))
		lite_window_open(c);
}

/* ---- faults ---------------------------------------------------------------------------------------------------------- */

/* What an address that faulted was before its slot's distance was added. */
static bool guest_address(const struct lite_window *w, u64 addr, u64 *la)
{
	for (unsigned s = 0; s < LITE_WINDOW_SLOTS; s++)
		if (w->place[s] && addr - w->place[s] < SLOT_SIZE) {
			*la = ((u64)s << LITE_WINDOW_SHIFT) | (addr - w->place[s]);
			return true;
		}
	return false;
}

/* #GP: the access may have been in a slot without a place, which is nothing for a window. Its address is in one of two registers. */
static enum lite_window_result unplaced(struct lite_vcpu *c)
{
	struct lite_window *w = c->window;
	u64 found[2] = { c->jit.t0 - POISON, c->jit.t2 - POISON };

	for (unsigned i = 0; i < 2; i++) {
		if (found[i] >= BIT64(47) || w->place[slot_of(found[i])])
			continue;
		give_up(c, stats_now(c->vcpu.vm));
		return LITE_WINDOW_AGAIN;
	}
	return LITE_WINDOW_NONE;
}

enum lite_window_result lite_window_fault(struct lite_vcpu *c, u64 addr, bool write)
{
	struct lite_window *w = c->window;
	struct page *p;
	bool mapped;
	u64 la, now;

	if (!addr)
		return unplaced(c);
	if (!guest_address(w, addr, &la))
		return LITE_WINDOW_NONE;
	if (c->window_gen != c->gen)
		return LITE_WINDOW_AGAIN;
	lite_fpu_spare(c);
	c->count.window_faults++;
	now = stats_now(c->vcpu.vm);
	if (w->free == NONE || !afford(c, now)) {
		give_up(c, now);
		return LITE_WINDOW_AGAIN;
	}
	host_mutex_lock(&w->lock);
	p = find(w, la);
	mapped = p && (p->writable || !write);
	host_mutex_unlock(&w->lock);
	/* Mapped as it should be, and no memory there: the client's fault. */
	if (mapped || !lite_tlb_fill(c, la, 1, write))
		return LITE_WINDOW_NONE;
	/* The fill may have waited, and been asked to flush. */
	if (c->window_gen != c->gen)
		return LITE_WINDOW_AGAIN;
	host_mutex_lock(&w->lock);
	mapped = map_page(c, la, write);
	host_mutex_unlock(&w->lock);
	if (!mapped && w->useless) {
		lite_window_close(c);
		return LITE_WINDOW_AGAIN;
	}
	c->count.window_maps += mapped;
	return mapped ? LITE_WINDOW_MAPPED : LITE_WINDOW_NONE;
}

/* ---- pages that go --------------------------------------------------------------------------------------------------- */

void lite_window_drop(struct lite_vcpu *c, u64 la, u64 mask)
{
	struct lite_window *w = c->window;
	struct page *p;

	/* Pages of an address space that was flushed are never seen again. */
	if (!w || !w->n || w->gen != c->gen)
		return;
	lite_fpu_spare(c);
	host_mutex_lock(&w->lock);
	if (mask == PAGE_MASK_) {
		p = find(w, la);
		if (p)
			drop(w, p);
	} else {
		for (unsigned i = 0; i < PAGES; i++)
			if (w->pages[i].host && (w->pages[i].la & mask) == (la & mask))
				drop(w, &w->pages[i]);
	}
	host_mutex_unlock(&w->lock);
}

void lite_window_revoke(struct lite_vm *lvm, u64 gfn, const u8 *host)
{
	struct lite_gfns *g = lite_gfns(lvm, gfn, false);
	u64 bit = BIT64(gfn % 64);
	struct vcpu *vcpu;
	unsigned i;

	if (!g || !(__atomic_load_n(&g->windowed[(gfn / 64) % 512], __ATOMIC_SEQ_CST) & bit))
		return;
	__atomic_fetch_and(&g->windowed[(gfn / 64) % 512], ~bit, __ATOMIC_SEQ_CST);
	vm_for_each_vcpu(i, vcpu, &lvm->vm) {
		struct lite_window *w = to_lite(vcpu)->window;

		if (!w)
			continue;
		host_mutex_lock(&w->lock);
		for (unsigned n = 0; w->n && n < PAGES; n++) {
			struct page *p = &w->pages[n];

			if (p->host && p->writable && (u64)(host - p->host) < page_size(p))
				drop(w, p);
		}
		host_mutex_unlock(&w->lock);
	}
}

/* ---- a vCPU's -------------------------------------------------------------------------------------------------------- */

int lite_window_init(struct lite_vcpu *c)
{
	struct lite_window *w;

	for (unsigned i = 0; i < ARRAY_SIZE(c->jit.delta); i++)
		c->jit.delta[i] = i < LITE_WINDOW_SLOTS ? POISON : 0;
	/* Translated code uses GS, whose base has to be set without the kernel. */
	if (!to_lite_vm(c->vcpu.vm)->jit || lite_options.windows == LITE_WINDOWS_OFF || !(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
		return 0;
	w = host_zalloc_pages(sizeof(*w));
	if (!w)
		return -ENOMEM;
	host_mutex_init(&w->lock);
	reset_table(w);
	for (unsigned s = 0; s < LITE_WINDOW_SLOTS; s++)
		w->low[s] = SLOT_SIZE;
	w->quiet_ns = QUIET_NS;
	w->number = -1;
	c->window = w;
	return 0;
}

void lite_window_destroy(struct lite_vcpu *c)
{
	struct lite_window *w = c->window;

	if (!w)
		return;
	drop_all(w);
	if (w->number >= 0)
		window_give((unsigned)w->number);
	host_mutex_destroy(&w->lock);
	host_free_pages(w, sizeof(*w));
	c->window = NULL;
}
