/*
 * Decoded blocks: what of the guest's code is kept as arrays of struct lite_op, and when that stops being true.
 *
 * Blocks are keyed by guest-physical address and code mode, shared by all vCPUs of a VM, and stay within one page; an
 * instruction that crosses into the next page is stepped. Readers take no lock: a block is published with its contents complete, a dead one stays
 * readable until the whole cache is thrown away, and its first op sends every comer to look again (lite_op_dead).
 *
 * Self- and cross-modifying code (SDM 3A 8.1.3). A page with live blocks has its bit in lite_gfns.code, and no TLB of
 * any vCPU has a write entry for it: lite_page_make() sets the bit and then shoots down the write entries that exist; a
 * vCPU that fills a write entry notes that in lite_gfns.written before it looks at the code bit, so that one of the two sees the other. Every guest write to such a page
 * comes to lite_code_write(), which kills the blocks decoded from the written bytes before the bytes change, both under
 * code_lock, under which blocks are made too. The writing vCPU looks at code_gen after each slow instruction and leaves its block if
 * anything died, so a write to the next instruction takes effect at once. Other vCPUs meet the dead mark when they next enter the block, which is
 * what the architecture demands of cross-modification with a serializing instruction between.
 *
 * The client writes guest memory without telling us (DMA by a device model). Each page keeps a copy of the bytes that its blocks were
 * decoded from, and whenever an exec translation of the page is walked anew (after a flush, a CR3 load, an eviction), lite_code_validate()
 * compares. With paging on that suffices: a page becomes code of something else only by a new mapping, which
 * needs a flush of the old one by the guest. With paging off there are no mappings, so the run loop drops the exec entries after every exit to the client and every
 * injected interrupt: a boot loader learns of the end of its DMA by one of the two. They are dropped too whenever the client replaces
 * registers or debug state, as it does around everything else that rewrites memory under a guest: loading a saved VM,
 * a debugger's breakpoints, reset. And a page that gets another block is compared as well.
 *
 * A page that keeps being written to (a compiler's output, a trampoline on the stack, data beside code) costs more that way than its code is worth.
 * So stores to it heat it up, by what they cost: HEAT_KILL if blocks died, else HEAT_STORE; half of the heat is gone after 8 ms. At HEAT_MAX
 * it becomes a checked page: all its blocks die, it gives up its code bit, so that stores to it are like any other, and its new blocks
 * compare themselves with the guest's memory whenever they are entered (jit_check.c). One that finds itself stale dies there and then (lite_code_same()).
 * Nothing else need be told of changes to such a page, be it the client who makes them. Where its code is what it was for SETTLE_NS, immediates
 * included, it becomes an ordinary page again: a compiler has done its work, and now that runs. That is looked at when one of its blocks is asked
 * for, and in the page that RIP is in when the run loop comes by (lite_code_settle()), so code that runs a lot is found soon. A page is checked or
 * it is not; the interpreter, which does not check, makes it ordinary at once.
 */
#include "engines/lite/jit.h"
#include "engines/lite/options.h"
#include "engines/lite/text.h"
#include "engines/lite/window.h"

#define MAX_INSNS 64

#define HEAT_KILL	  8
#define HEAT_STORE	  1
#define HEAT_MAX	  64
#define HEAT_HALVED_SHIFT 23 /* of ns */
#define SETTLE_NS	  100000000ULL

int lite_code_init(struct lite_vm *lvm)
{
	host_mutex_init(&lvm->code_lock);
	lvm->arena_max = ((u64)lite_options.cache_mib << 20) + LITE_ARENA_MORE;
	return 0;
}

static void chunks_free(struct lite_chunk **chunks)
{
	while (*chunks) {
		struct lite_chunk *chunk = *chunks;

		*chunks = chunk->next;
		host_free_pages(chunk, LITE_ARENA_CHUNK);
	}
}

/*
 * What was thrown away is freed when no vCPU can be in the middle of an instruction that it found there: each has passed the top of
 * its run loop, or is outside of KVM_RUN, since. Looked at before each new block, for it is as much memory again. code_lock held.
 */
static void arena_free_condemned(struct lite_vm *lvm)
{
	u64 oldest = ~0ULL;
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, &lvm->vm)
		oldest = MIN(oldest, __atomic_load_n(&to_lite(vcpu)->quiet_gen, __ATOMIC_SEQ_CST));
	if (oldest >= lvm->condemned_gen)
		chunks_free(&lvm->condemned);
}

static void arena_condemn(struct lite_vm *lvm)
{
	while (lvm->chunks) {
		struct lite_chunk *chunk = lvm->chunks;

		lvm->chunks = chunk->next;
		chunk->next = lvm->condemned;
		lvm->condemned = chunk;
	}
	__atomic_store_n(&lvm->arena_used, 0, __ATOMIC_RELAXED);
	lvm->condemned_gen = __atomic_add_fetch(&lvm->flush_gen, 1, __ATOMIC_SEQ_CST);
}

void lite_code_destroy(struct lite_vm *lvm)
{
	chunks_free(&lvm->chunks);
	chunks_free(&lvm->condemned);
	for (unsigned i = 0; i < lvm->gfns_end; i++)
		if (lvm->gfns[i])
			host_free_pages(lvm->gfns[i], sizeof(struct lite_gfns));
	host_mutex_destroy(&lvm->code_lock);
}

void *lite_arena_alloc(struct lite_vm *lvm, size_t size)
{
	struct lite_chunk *chunk = lvm->chunks;

	size = ROUND_UP(size, (size_t)16);
	if (!chunk || chunk->used + size > LITE_ARENA_CHUNK - sizeof(*chunk) - 64) {
		chunk = host_zalloc_pages(LITE_ARENA_CHUNK);
		if (!chunk)
			return NULL;
		chunk->used = -sizeof(*chunk) & 63;
		chunk->next = lvm->chunks;
		lvm->chunks = chunk;
		__atomic_store_n(&lvm->arena_used, lvm->arena_used + LITE_ARENA_CHUNK, __ATOMIC_RELAXED);
	}
	chunk->used += size;
	return chunk->data + chunk->used - size;
}

struct lite_gfns *lite_gfns(struct lite_vm *lvm, u64 gfn, bool make)
{
	struct lite_gfns **place, *g, *none = NULL;
	u32 end;

	if ((gfn >> LITE_GFNS_SHIFT) >= LITE_GFNS_TOP)
		return NULL;
	place = &lvm->gfns[gfn >> LITE_GFNS_SHIFT];
	g = __atomic_load_n(place, __ATOMIC_ACQUIRE);
	if (g || !make)
		return g;
	g = host_zalloc_pages(sizeof(*g));
	/* Before the pointer can be seen: who goes through all looks no further. */
	end = __atomic_load_n(&lvm->gfns_end, __ATOMIC_RELAXED);
	while (end <= gfn >> LITE_GFNS_SHIFT &&
	       !__atomic_compare_exchange_n(&lvm->gfns_end, &end, (u32)(gfn >> LITE_GFNS_SHIFT) + 1, false, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
	if (g && !__atomic_compare_exchange_n(place, &none, g, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		host_free_pages(g, sizeof(*g));
		g = none;
	}
	return g;
}

/* ---- vCPUs and each other ------------------------------------------------------------------------------------ */

void lite_serve_pending(struct lite_vcpu *c)
{
	u32 what = __atomic_load_n(&c->pending, __ATOMIC_SEQ_CST);

	if (likely(!what))
		return;
	c->flush_count++;
	if (what & LITE_PEND_ALL)
		lite_tlb_flush_all(c);
	else if (what & LITE_PEND_WRITE)
		lite_tlb_flush_writes(c);
	if (what & LITE_PEND_TEXT)
		lite_text_flushed(c);
	if (what & LITE_PEND_BLOCKS) {
		lite_jumps_flush(c);
		lite_jit_forget(c);
		c->blocks_count++;
		c->op = NULL;
	}
	__atomic_fetch_and(&c->pending, ~what, __ATOMIC_SEQ_CST);
}

void lite_leave_guest(struct lite_vcpu *c)
{
	__atomic_store_n(&c->in_guest, 0, __ATOMIC_SEQ_CST);
}

void lite_enter_guest(struct lite_vcpu *c)
{
	__atomic_store_n(&c->in_guest, 1, __ATOMIC_SEQ_CST);
	lite_serve_pending(c);
}

void lite_shootdown(struct lite_vm *lvm, struct lite_vcpu *self, u32 what)
{
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, &lvm->vm) {
		struct lite_vcpu *c = to_lite(vcpu);

		if (c == self)
			continue;
		__atomic_fetch_or(&c->pending, what, __ATOMIC_SEQ_CST);
		__atomic_store_n(&c->budget, -1, __ATOMIC_SEQ_CST);
	}
	vm_for_each_vcpu(i, vcpu, &lvm->vm) {
		struct lite_vcpu *c = to_lite(vcpu);

		if (c == self)
			continue;
		for (unsigned spins = 0; __atomic_load_n(&c->in_guest, __ATOMIC_SEQ_CST) &&
					 (__atomic_load_n(&c->pending, __ATOMIC_SEQ_CST) & what); spins++) {
			/* A hint that lost against the vCPU's own count of its budget is given again. */
			__atomic_store_n(&c->budget, -1, __ATOMIC_SEQ_CST);
			if (spins % 64 == 63)
				host_cond_resched();
			else
				host_cpu_relax();
		}
	}
	if (self)
		self->count.shootdowns++;
}

/* Blocking with translations in hand would stop a shootdown by the lock's holder: so not counted as in the guest meanwhile. */
void lite_code_lock(struct lite_vcpu *c)
{
	lite_fpu_spare(c);
	lite_leave_guest(c);
	host_mutex_lock(&to_lite_vm(c->vcpu.vm)->code_lock);
	lite_enter_guest(c);
}

void lite_code_unlock(struct lite_vcpu *c)
{
	host_mutex_unlock(&to_lite_vm(c->vcpu.vm)->code_lock);
}

/* ---- pages ---------------------------------------------------------------------------------------------------- */

static unsigned page_hash(u64 gfn)
{
	return (gfn ^ (gfn >> 13)) % LITE_PAGE_HASH;
}

static unsigned block_hash(u64 gpa)
{
	return (gpa ^ (gpa >> 15)) % LITE_BLOCK_HASH;
}

static unsigned apart_hash(u64 gpa)
{
	return (gpa ^ (gpa >> 16)) % LITE_APART;
}

static struct lite_page *page_find(struct lite_vm *lvm, u64 gfn)
{
	struct lite_page *page = __atomic_load_n(&lvm->pages[page_hash(gfn)], __ATOMIC_ACQUIRE);

	while (page && page->gfn != gfn)
		page = page->hash_next;
	return page;
}

/* Everything goes. code_lock held; @c's own pointers into the cache are void afterwards. */
static void flush_blocks(struct lite_vcpu *c)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);

	/* First nobody finds them any more, then those go who had. */
	for (unsigned i = 0; i < LITE_BLOCK_HASH; i++)
		__atomic_store_n(&lvm->blocks[i], NULL, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < LITE_PAGE_HASH; i++)
		__atomic_store_n(&lvm->pages[i], NULL, __ATOMIC_RELEASE);
	lite_shootdown(lvm, c, LITE_PEND_BLOCKS);
	for (unsigned i = 0; i < __atomic_load_n(&lvm->gfns_end, __ATOMIC_ACQUIRE); i++)
		if (lvm->gfns[i])
			for (unsigned j = 0; j < ARRAY_SIZE(lvm->gfns[i]->code); j++)
				__atomic_store_n(&lvm->gfns[i]->code[j], 0, __ATOMIC_SEQ_CST);
	lite_jit_flush(lvm);
	__atomic_store_n(&lvm->nr_checked, 0, __ATOMIC_RELAXED);
	memset(lvm->apart, 0, sizeof(lvm->apart));
	arena_condemn(lvm);
	lite_jumps_flush(c);
	lite_jit_forget(c);
	c->blocks_count++;
	c->op = NULL;
	__atomic_fetch_add(&lvm->code_gen, 1, __ATOMIC_SEQ_CST);
}

static void block_kill(struct lite_vm *lvm, struct lite_block *block)
{
	struct lite_block **link = &lvm->blocks[block_hash(block->gpa)];

	while (*link && *link != block)
		link = &(*link)->hash_next;
	if (*link)
		__atomic_store_n(link, block->hash_next, __ATOMIC_RELEASE);
	__atomic_store_n(&block->dead, true, __ATOMIC_RELEASE);
	if (block->jit)
		lite_jit_kill(lvm, block);
	else
		__atomic_store_n(&block->ops[0].fn, lite_op_dead, __ATOMIC_SEQ_CST);
}

/* The bits of [@off, @end) in word @off / 64; *@next is where the next word's begin. */
static u64 covered_bits(unsigned off, unsigned end, unsigned *next)
{
	unsigned last = MIN(end - 1, off | 63);

	*next = (off | 63) + 1;
	return (~0ULL << off % 64) & (~0ULL >> (63 - last % 64));
}

static bool covered(const struct lite_page *page, unsigned off, unsigned len)
{
	for (unsigned i = off, next; i < off + len; i = next)
		if (covered_bits(i, off + len, &next) & page->covered[i / 64])
			return true;
	return false;
}

static void cover(struct lite_page *page, unsigned off, unsigned len)
{
	for (unsigned i = off, next; i < off + len && i < 4096; i = next)
		__atomic_store_n(&page->covered[i / 64], page->covered[i / 64] | covered_bits(i, off + len, &next), __ATOMIC_RELEASE);
}

static void uncover(struct lite_page *page)
{
	for (unsigned i = 0; i < ARRAY_SIZE(page->covered); i++)
		__atomic_store_n(&page->covered[i], 0, __ATOMIC_RELAXED);
}

static void kill_range(struct lite_vcpu *c, struct lite_page *page, unsigned off, unsigned len)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	struct lite_block **link = &page->blocks;
	struct lite_gfns *g;

	uncover(page);
	while (*link) {
		struct lite_block *block = *link;

		if (block->from < off + len && off < block->to) {
			__atomic_store_n(link, block->page_next, __ATOMIC_RELEASE);
			block_kill(lvm, block);
			c->count.blocks_killed++;
		} else {
			cover(page, block->from, block->to - block->from);
			link = &block->page_next;
		}
	}
	__atomic_fetch_add(&lvm->code_gen, 1, __ATOMIC_SEQ_CST);
	g = lite_gfns(lvm, page->gfn, false);
	if (!page->blocks && g)
		__atomic_fetch_and(&g->code[(page->gfn / 64) % 512], ~BIT64(page->gfn % 64), __ATOMIC_SEQ_CST);
}

void lite_code_kill(struct lite_vcpu *c, u64 gfn)
{
	struct lite_page *page = page_find(to_lite_vm(c->vcpu.vm), gfn);

	if (page && page->blocks)
		kill_range(c, page, 0, 4096);
}

/* What it was made from stays covered, until something else of the page dies. */
static void block_drop(struct lite_vcpu *c, struct lite_block *block)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	u64 gfn = block->gpa >> 12;
	struct lite_page *page = page_find(lvm, gfn);
	struct lite_gfns *g = lite_gfns(lvm, gfn, false);
	struct lite_block **link;

	if (block->dead || !page || !g)
		return;
	for (link = &page->blocks; *link && *link != block; link = &(*link)->page_next)
		;
	if (!*link)
		return;
	__atomic_store_n(link, block->page_next, __ATOMIC_RELEASE);
	block_kill(lvm, block);
	c->count.blocks_killed++;
	if (!page->blocks)
		__atomic_fetch_and(&g->code[(gfn / 64) % 512], ~BIT64(gfn % 64), __ATOMIC_SEQ_CST);
}

/* ---- pages whose blocks check themselves ------------------------------------------------------------------------ */

static bool is_checked(const struct lite_page *page)
{
	return __atomic_load_n(&page->checked, __ATOMIC_RELAXED);
}

static void set_checked(struct lite_vcpu *c, struct lite_page *page, bool checked)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	u64 *count = checked ? &lvm->pages_checked : &lvm->pages_settled;

	kill_range(c, page, 0, 4096);
	__atomic_store_n(&page->checked, checked, __ATOMIC_RELAXED);
	__atomic_store_n(&lvm->nr_checked, lvm->nr_checked + (checked ? 1 : -1), __ATOMIC_RELAXED);
	__atomic_store_n(count, *count + 1, __ATOMIC_RELAXED);
	page->checked_since = host_now_ns();
	page->heat = 0;
}

/* A store came to @page, which holds code that is watched. Whether it shall be checked from now on. */
static bool heats(struct lite_vcpu *c, struct lite_page *page, bool kills)
{
	u64 now, halved;

	page->heat += kills ? HEAT_KILL : HEAT_STORE;
	if (likely(page->heat < HEAT_MAX))
		return false;
	/* Only now: the clock costs as much as the rest. */
	now = host_now_ns();
	halved = (now - page->heat_since) >> HEAT_HALVED_SHIFT;
	if (halved) {
		page->heat >>= MIN(halved, 15ULL);
		page->heat_since = now;
		return false;
	}
	if (!to_lite_vm(c->vcpu.vm)->jit)
		return false;
	for (const struct lite_block *block = page->blocks; block; block = block->page_next)
		if (!block->jit)
			return false;
	return true;
}

/* Whether a checked page's block is still made from what is at @host. Of immediates that it reads the new ones are noted, and *@other_imm is set. */
static bool same_bytes(struct lite_vcpu *c, const struct lite_block *block, const u8 *host, bool *other_imm)
{
	const u8 *mask = block->jit->bytes + block->jit->nr_bytes;
	unsigned n = block->jit->nr_bytes;
	u8 *was = block->jit->bytes;

	if (host_copy_from_client(c->scratch, (u64)host + block->from, n))
		return false;
	for (unsigned i = 0; i < n; i++) {
		if (likely(was[i] == c->scratch[i]))
			continue;
		if (mask[i])
			return false;
		was[i] = c->scratch[i];
		*other_imm = true;
	}
	return true;
}

/* Where code at @va is, if that is known. */
static bool exec_known(const struct lite_vcpu *c, u64 va, u64 *gpa, u8 **host)
{
	const struct lite_exec_entry *x = &c->view->x[(va >> 12) % LITE_XTLB_SIZE];

	*gpa = x->gpa | (va & 0xfff);
	*host = x->host;
	return x->tag == (va & PAGE_MASK_);
}

/*
 * Of @page, checked and at @host, those blocks die that are made from other bytes: the ones at @gpa, or all when @gpa is ~0. How many; *@changed
 * is set when there were some, or other immediates, and the page then counts as changed now. code_lock held.
 */
static unsigned drop_stale(struct lite_vcpu *c, struct lite_page *page, u64 gpa, const u8 *host, bool *changed)
{
	unsigned dropped = 0;

	for (struct lite_block **link = &page->blocks, *block; (block = *link);) {
		if ((gpa != ~0ULL && block->gpa != gpa) || same_bytes(c, block, host, changed)) {
			link = &block->page_next;
			continue;
		}
		__atomic_store_n(link, block->page_next, __ATOMIC_RELEASE);
		block_kill(to_lite_vm(c->vcpu.vm), block);
		dropped++;
	}
	*changed |= dropped;
	if (*changed)
		__atomic_store_n(&page->checked_since, host_now_ns(), __ATOMIC_RELAXED);
	return dropped;
}

bool lite_code_same(struct lite_vcpu *c, u64 va)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	bool same = false, changed = false;
	unsigned dropped = 0;
	u64 gpa, flushes = c->flush_count;
	struct lite_page *page;
	u8 *host;

	if (!exec_known(c, va, &gpa, &host))
		return false;
	page = page_find(lvm, gpa >> 12);
	if (!page || !is_checked(page))
		return false;
	lite_code_lock(c);
	page = page_find(lvm, gpa >> 12);
	if (flushes == c->flush_count && page && page->checked) {
		dropped = drop_stale(c, page, gpa, host, &changed);
		c->count.jit_stale += dropped;
		for (const struct lite_block *block = page->blocks; block; block = block->page_next)
			same |= block->gpa == gpa;
	}
	lite_code_unlock(c);
	return same && !dropped;
}

bool lite_code_settle(struct lite_vcpu *c, u64 va)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	u64 gpa, flushes = c->flush_count;
	bool changed = false, settled = false;
	struct lite_page *page;
	u8 *host;

	if (!exec_known(c, va, &gpa, &host))
		return false;
	page = page_find(lvm, gpa >> 12);
	if (!page || !is_checked(page) || host_now_ns() - __atomic_load_n(&page->checked_since, __ATOMIC_RELAXED) < SETTLE_NS)
		return false;
	lite_code_lock(c);
	page = page_find(lvm, gpa >> 12);
	if (flushes == c->flush_count && page && page->checked) {
		drop_stale(c, page, ~0ULL, host, &changed);
		settled = !changed;
		if (settled)
			set_checked(c, page, false);
	}
	lite_code_unlock(c);
	return settled;
}

/* ---- pages again --------------------------------------------------------------------------------------------------- */

/* The page of @gfn, ready for blocks: write entries are gone, the copy is true; or it is checked. code_lock held. */
static struct lite_page *page_make(struct lite_vcpu *c, u64 gfn, const u8 *host)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	struct lite_page *page = page_find(lvm, gfn);
	struct lite_gfns *g;
	u64 bit = BIT64(gfn % 64);
	unsigned word = (gfn / 64) % 512;

	if (page && page->checked)
		return page;
	if (page && page->blocks) {
		/* Blocks made at different times must come from the same bytes. */
		if (host_copy_from_client(c->scratch, (u64)host, 4096))
			return NULL;
		if (!memcmp(c->scratch, page->copy, 4096))
			return page;
		kill_range(c, page, 0, 4096);
	}
	g = lite_gfns(lvm, gfn, true);
	if (!g)
		return NULL;
	if (!page) {
		page = lite_arena_alloc(lvm, sizeof(*page));
		if (!page)
			return NULL;
		page->gfn = gfn;
		page->heat_since = host_now_ns();
		page->hash_next = lvm->pages[page_hash(gfn)];
		__atomic_store_n(&lvm->pages[page_hash(gfn)], page, __ATOMIC_RELEASE);
	}
	__atomic_fetch_or(&g->code[word], bit, __ATOMIC_SEQ_CST);
	if (__atomic_fetch_and(&g->written[word], ~bit, __ATOMIC_SEQ_CST) & bit) {
		lite_tlb_flush_writes_to(c, host);
		lite_shootdown(lvm, c, LITE_PEND_WRITE);
	}
	lite_window_revoke(lvm, gfn, host);
	uncover(page);
	if (host_copy_from_client(page->copy, (u64)host, 4096)) {
		__atomic_fetch_and(&g->code[word], ~bit, __ATOMIC_SEQ_CST);
		return NULL;
	}
	return page;
}

/*
 * Whether @page's blocks are what @host holds. Other bytes may differ: page_make() compares them before it makes another block. Without
 * code_lock: of what comes in meanwhile nothing need be looked at, for it is made from what is there now.
 */
static bool same_code(struct lite_vcpu *c, const struct lite_page *page, const u8 *host)
{
	for (unsigned i = 0, n; i < ARRAY_SIZE(page->covered); i += n) {
		for (n = 0; i + n < ARRAY_SIZE(page->covered) && __atomic_load_n(&page->covered[i + n], __ATOMIC_ACQUIRE); n++)
			;
		if (n && (host_copy_from_client(c->scratch, (u64)host + i * 64, n * 64) ||
			  memcmp(c->scratch, page->copy + i * 64, n * 64)))
			return false;
		n += !n;
	}
	return true;
}

void lite_code_validate(struct lite_vcpu *c, u64 gfn, const u8 *host)
{
	struct lite_page *page = page_find(to_lite_vm(c->vcpu.vm), gfn);

	if (!page || is_checked(page) || !__atomic_load_n(&page->blocks, __ATOMIC_RELAXED))
		return;
	lite_fpu_spare(c);
	if (same_code(c, page, host))
		return;
	lite_code_lock(c);
	page = page_find(to_lite_vm(c->vcpu.vm), gfn);
	if (page && !page->checked && page->blocks)
		kill_range(c, page, 0, 4096);
	lite_code_unlock(c);
}

enum x86_result lite_code_write(struct lite_vcpu *c, u64 la, bool system, const void *buf, unsigned len, void *old, bool *done)
{
	struct lite_place place;
	struct lite_page *page;
	enum x86_result r;
	unsigned off;
	int err = 0;

	lite_code_lock(c);
	r = lite_translate(c, la, LITE_WRITE, system, &place);
	if (r != X86_CONTINUE)
		goto out;
	if (!place.host) {
		r = X86_UNHANDLED; /* the slot became read-only this very moment: as a write to ROM, lost */
		goto out;
	}
	off = place.gpa & 0xfff;
	page = page_find(to_lite_vm(c->vcpu.vm), place.gpa >> 12);
	if (page && page->blocks && !page->checked) {
		bool kills = covered(page, off, len);

		if (unlikely(heats(c, page, kills)))
			set_checked(c, page, true);
		else if (kills)
			kill_range(c, page, off, len);
	}
	if (old) {
		err = host_client_cmpxchg((u64)place.host, old, buf, len);
		*done = !err;
	} else {
		/* Small aligned stores stay whole for other vCPUs. */
		u64 was = 0;

		if ((len == 2 || len == 4 || len == 8) && !((u64)place.host & (len - 1))) {
			do
				err = host_client_cmpxchg((u64)place.host, &was, buf, len);
			while (err == 1);
		} else {
			err = host_copy_to_client((u64)place.host, buf, len);
		}
	}
	if (err < 0) {
		c->efault = true;
		c->efault_gpa = place.gpa;
		r = X86_RETRY;
	} else if (!err && page) {
		memcpy(page->copy + off, buf, len);
	}
out:
	lite_code_unlock(c);
	return r;
}

/* ---- blocks --------------------------------------------------------------------------------------------------- */

static struct lite_block *block_find(struct lite_vm *lvm, u64 gpa, u32 mode)
{
	struct lite_block *block = __atomic_load_n(&lvm->blocks[block_hash(gpa)], __ATOMIC_ACQUIRE);

	while (block && (block->gpa != gpa || block->mode != mode || __atomic_load_n(&block->dead, __ATOMIC_ACQUIRE)))
		block = __atomic_load_n(&block->hash_next, __ATOMIC_ACQUIRE);
	return block;
}

static enum insn_mode decode_mode(u32 mode)
{
	switch (mode & 7) {
	case X86_MODE_LONG: return MODE_64;
	case X86_MODE_PROT32: return MODE_32;
	default: return MODE_16;
	}
}

/* Decodes from @off of @page until the block ends. Returns the number of ops, *@end is behind the last byte used. */
static unsigned decode(struct lite_vcpu *c, struct lite_page *page, unsigned off, struct lite_op *ops, unsigned *end)
{
	struct lite_lower *l = &c->lower;
	enum insn_mode mode = decode_mode(c->code_mode);
	unsigned n = 0;

	l->lvm = to_lite_vm(c->vcpu.vm);
	l->mode = c->code_mode;
	l->has_prev = false;
	l->ended = false;
	memset(ops, 0, sizeof(*ops) * (MAX_INSNS + 1));
	while (n < MAX_INSNS && off < 4096 && !l->ended) {
		ops[n].off = off;
		if (insn_decode(&l->insn, page->copy + off, MIN(4096 - off, INSN_MAX_LEN), mode) != INSN_OK) {
			ops[n++].fn = lite_op_step;
			*end = MIN(off + INSN_MAX_LEN, 4096U);
			return n;
		}
		ops[n].len = l->insn.len;
		lite_lower(l, &ops[n], off);
		l->prev = l->insn;
		l->has_prev = true;
		off += l->insn.len;
		n++;
	}
	*end = off;
	if (l->ended)
		return n;
	ops[n].off = off;
	ops[n].disp = off;
	ops[n].flags = LITE_OP_CHAINED;
	ops[n].fn = off == 4096 ? lite_op_next_page : lite_op_jump;
	return n + 1;
}

static void block_enter(struct lite_vcpu *c, struct lite_page *page, struct lite_block *block, u64 gpa, u32 mode, u16 from, u16 to)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	unsigned h = block_hash(gpa);

	block->gpa = gpa;
	block->mode = mode;
	block->from = from;
	block->to = to;
	if (!page->checked)
		cover(page, from, to - from);
	block->page_next = page->blocks;
	__atomic_store_n(&page->blocks, block, __ATOMIC_RELEASE);
	block->hash_next = lvm->blocks[h];
	__atomic_store_n(&lvm->blocks[h], block, __ATOMIC_RELEASE);
	c->count.blocks++;
}

const u8 *lite_jit_tail(const struct lite_page *page, u32 mode, unsigned call, unsigned back)
{
	for (const struct lite_block *block = page->blocks; block; block = block->page_next) {
		const struct lite_jit_code *code = block->jit;

		if (!block->dead && code && code->lands && code->call == call && code->back == back && block->mode == mode)
			return code->lands - 1 - JIT_CALL_LEN;
	}
	return NULL;
}

/* code_lock held. @block, which is new, may return to another of its page, and others to it: the newest shows the host where. */
static void pair_calls(struct lite_vm *lvm, const struct lite_page *page, struct lite_block *block)
{
	struct lite_jit_code *code = block->jit;
	struct lite_block *to = code->lands ? block_find(lvm, (block->gpa & PAGE_MASK_) + code->back, block->mode) : NULL;

	for (struct lite_block *from = page->blocks; from; from = from->page_next) {
		if (from->dead || !from->jit || !from->jit->lands || from->jit->back != (block->gpa & 0xfff) || from->mode != block->mode)
			continue;
		jit_pair(lvm, from->jit, code);
		if (!code->landing)
			code->landing = jit_landing(lvm, from->jit->lands);
	}
	if (to) {
		jit_pair(lvm, code, to->jit);
		__atomic_store_n(&to->jit->landing, jit_landing(lvm, code->lands), __ATOMIC_RELAXED);
	}
}

/* code_lock held. @mode says which kind. */
static struct lite_block *block_make(struct lite_vcpu *c, u64 gpa, const u8 *host, u32 mode)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	bool jit = mode & LITE_MODE_JIT;
	struct lite_op *ops = c->decode_ops;
	struct lite_jit_code *code = NULL;
	unsigned n = 0, end, off = gpa & 0xfff;
	struct lite_block *block;
	struct lite_page *page;
	u16 from, to;

	if (unlikely(lvm->condemned))
		arena_free_condemned(lvm);
	if (lvm->arena_used >= lvm->arena_max || (jit && lite_jit_full(lvm)))
		flush_blocks(c);
	page = page_find(lvm, gpa >> 12);
	if (page && page->checked && !jit)
		set_checked(c, page, false);
	page = page_make(c, gpa >> 12, host);
	if (!page)
		return NULL;
	if (jit) {
		if (page->checked && host_copy_from_client(c->scratch, (u64)host, 4096))
			return NULL;
		c->jit.apart = lvm->apart[apart_hash(gpa) / 64] & BIT64(apart_hash(gpa) % 64);
		code = lite_jit_translate(c, page, page->checked ? c->scratch : page->copy, mode,
					  mode & LITE_MODE_TEXT ? lite_text_va(lvm, gpa) : 0, off, &from, &to);
		if (!code)
			return NULL;
	} else {
		n = decode(c, page, off, ops, &end);
		from = off;
		to = end;
	}
	block = lite_arena_alloc(lvm, sizeof(*block) + n * sizeof(*ops));
	if (!block)
		return NULL;
	block->jit = code;
	if (code)
		code->block = block;
	memcpy(block->ops, ops, n * sizeof(*ops));
	block_enter(c, page, block, gpa, mode, from, to);
	if (jit)
		pair_calls(lvm, page, block);
	return block;
}

/* The block of @mode at linear @va, found or made; see lite_block_at(). */
static struct lite_block *block_get(struct lite_vcpu *c, u64 va, u32 mode, enum x86_result *r)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	struct lite_block *block;
	struct lite_place place;
	u64 gpa, flushes;
	u8 *host;

	c->count.lookups++;
again:
	if (unlikely(!exec_known(c, va, &gpa, &host))) {
		/* Translated branches do not look, and a walk sees 48 bits: fetching says #GP. */
		if (unlikely(!x86_is_canonical(va, c->vcpu.x86.cr4))) {
			*r = X86_RETRY;
			return NULL;
		}
		*r = lite_translate(c, va, LITE_EXEC, false, &place);
		if (*r != X86_CONTINUE)
			return NULL;
		if (!place.host) {
			*r = X86_RETRY;
			return NULL;
		}
		gpa = place.gpa;
		host = place.host - (gpa & 0xfff);
	}
	if ((mode & LITE_MODE_TEXT) && !lite_text_at(lvm, va, gpa))
		mode &= ~LITE_MODE_TEXT;
	block = block_find(lvm, gpa, mode);
	if (unlikely(!block)) {
		flushes = c->flush_count;
		lite_code_lock(c);
		/* Another vCPU may have removed the text before the lock was ours */
		if (flushes != c->flush_count || ((mode & LITE_MODE_TEXT) && !lite_text_at(lvm, va, gpa))) {
			lite_code_unlock(c);
			goto again;
		}
		block = block_find(lvm, gpa, mode);
		if (!block)
			block = block_make(c, gpa, host, mode);
		lite_code_unlock(c);
		if (!block)
			*r = X86_RETRY;
	}
	return block;
}

const struct lite_op *lite_block_at(struct lite_vcpu *c, u64 va, enum x86_result *r)
{
	struct lite_block *block = block_get(c, va, c->code_mode, r);

	if (!block)
		return NULL;
	lite_jump_set(c->view, va, block->ops);
	return block->ops;
}

struct lite_block *lite_jit_block_apart(struct lite_vcpu *c, u64 va, u32 mode, enum x86_result *r)
{
	return block_get(c, va, mode, r);
}

struct lite_block *lite_jit_block_at(struct lite_vcpu *c, u64 va, enum x86_result *r)
{
	struct lite_block *block = block_get(c, va, c->jit.mode, r);

	/* Not linked to, or found by the jump cache, for ever. */
	if (block && unlikely(block->jit->bytes) && lite_code_settle(c, va))
		block = block_get(c, va, c->jit.mode, r);
	if (!block)
		return NULL;
	if (unlikely(!(block->mode & (LITE_MODE_TEXT | LITE_MODE_USER))))
		lite_text_note(c, va);
	if (unlikely(c->view->jit_mode != c->jit.mode)) {
		lite_jit_jumps_flush(c->view);
		c->view->jit_mode = c->jit.mode;
	}
	lite_jit_jump_set(c->view, va, lite_jit_entry(block->jit));
	if (__atomic_load_n(&block->jit->paired, __ATOMIC_ACQUIRE)) {
		u64 back = (va & PAGE_MASK_) + block->jit->back;
		unsigned i = lite_jit_find(c->view, back);

		/* Maybe the one that this is paired with was known before it. (Not paired, it would lead who comes back to C, again and again.) */
		if (c->view->jit[i].va == back)
			c->view->jit[i].to = jit_landing(to_lite_vm(c->vcpu.vm), block->jit->lands);
	}
	return block;
}

/* Whether what is at @va, where @from leads, is @block for as long as either lives: in the same page, or from text to text. */
static bool stays(struct lite_vm *lvm, const struct lite_jit_code *from, const struct lite_block *block, u64 va)
{
	if (!from || !from->block)
		return false;
	return (from->block->gpa ^ block->gpa) < 4096 || ((from->block->mode & block->mode & LITE_MODE_TEXT) && lite_text_at(lvm, va, block->gpa));
}

void lite_jit_link(struct lite_vcpu *c, const u8 *from, u8 *field, u8 *stub, struct lite_block *block, u64 va, bool poll)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	u64 blocks = c->blocks_count;

	lite_code_lock(c);
	if (blocks == c->blocks_count && !block->dead && stays(lvm, lite_jit_code_at(lvm->jit, (u64)(uintptr_t)from), block, va))
		jit_link(lvm, field, stub, block, va & 0xfff, poll);
	lite_code_unlock(c);
}

void lite_jit_drop(struct lite_vcpu *c, const u8 *pc, bool apart)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	u64 blocks = c->blocks_count;
	struct lite_jit_code *code;

	lite_code_lock(c);
	code = blocks == c->blocks_count ? lite_jit_code_at(lvm->jit, (u64)(uintptr_t)pc) : NULL;
	if (code) {
		if (apart)
			lvm->apart[apart_hash(code->block->gpa) / 64] |= BIT64(apart_hash(code->block->gpa) % 64);
		block_drop(c, code->block);
	}
	lite_code_unlock(c);
}

void lite_jit_forward(struct lite_vcpu *c, const u8 *pc, struct lite_block *block)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	u64 blocks = c->blocks_count;
	struct lite_jit_code *code;

	lite_code_lock(c);
	code = blocks == c->blocks_count ? lite_jit_code_at(lvm->jit, (u64)(uintptr_t)pc) : NULL;
	/* Code that keeps being patched would become a row of blocks, each leading to the next; when its page has settled the row ends. */
	if (code && !(code->nr_bytes && block->jit->nr_bytes) && code->block->dead && !block->dead && code->block->gpa == block->gpa &&
	    code->block->mode == block->mode)
		jit_forward(lvm, code, block);
	lite_code_unlock(c);
}
