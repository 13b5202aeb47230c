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
 */
#include "engines/lite/lite.h"

#define MAX_INSNS 64

int lite_code_init(struct lite_vm *lvm)
{
	host_mutex_init(&lvm->code_lock);
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
 * its run loop, or is outside of KVM_RUN, since. Others wait for the next flush. code_lock held.
 */
static void arena_condemn(struct lite_vm *lvm)
{
	u64 oldest = ~0ULL;
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, &lvm->vm)
		oldest = MIN(oldest, __atomic_load_n(&to_lite(vcpu)->quiet_gen, __ATOMIC_SEQ_CST));
	if (oldest >= lvm->condemned_gen)
		chunks_free(&lvm->condemned);
	while (lvm->chunks) {
		struct lite_chunk *chunk = lvm->chunks;

		lvm->chunks = chunk->next;
		chunk->next = lvm->condemned;
		lvm->condemned = chunk;
	}
	lvm->arena_used = 0;
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

	size = ROUND_UP(size, (size_t)64);
	if (!chunk || chunk->used + size > LITE_ARENA_CHUNK - sizeof(*chunk) - 64) {
		chunk = host_zalloc_pages(LITE_ARENA_CHUNK);
		if (!chunk)
			return NULL;
		chunk->used = -sizeof(*chunk) & 63;
		chunk->next = lvm->chunks;
		lvm->chunks = chunk;
		lvm->arena_used += LITE_ARENA_CHUNK;
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
	if (what & LITE_PEND_BLOCKS) {
		lite_jumps_flush(c);
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
static void code_lock(struct lite_vcpu *c)
{
	lite_fpu_save(c);
	lite_leave_guest(c);
	host_mutex_lock(&to_lite_vm(c->vcpu.vm)->code_lock);
	lite_enter_guest(c);
}

static void code_unlock(struct lite_vcpu *c)
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
	arena_condemn(lvm);
	lite_jumps_flush(c);
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
	__atomic_store_n(&block->ops[0].fn, lite_op_dead, __ATOMIC_SEQ_CST);
}

static bool covered(const struct lite_page *page, unsigned off, unsigned len)
{
	for (unsigned i = off; i < off + len; i++)
		if (page->covered[i / 64] & BIT64(i % 64))
			return true;
	return false;
}

static void cover(struct lite_page *page, unsigned off, unsigned len)
{
	for (unsigned i = off; i < off + len && i < 4096; i++)
		page->covered[i / 64] |= BIT64(i % 64);
}

static void kill_range(struct lite_vcpu *c, struct lite_page *page, unsigned off, unsigned len)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	struct lite_block **link = &page->blocks;
	struct lite_gfns *g;

	memset(page->covered, 0, sizeof(page->covered));
	while (*link) {
		struct lite_block *block = *link;
		unsigned start = block->gpa & 0xfff;

		if (start < off + len && off < start + block->len) {
			*link = block->page_next;
			block_kill(lvm, block);
			c->count.blocks_killed++;
		} else {
			cover(page, start, block->len);
			link = &block->page_next;
		}
	}
	__atomic_fetch_add(&lvm->code_gen, 1, __ATOMIC_SEQ_CST);
	g = lite_gfns(lvm, page->gfn, false);
	if (!page->blocks && g)
		__atomic_fetch_and(&g->code[(page->gfn / 64) % 512], ~BIT64(page->gfn % 64), __ATOMIC_SEQ_CST);
}

/* The page of @gfn, ready for blocks: write entries are gone, the copy is true. code_lock held. */
static struct lite_page *page_make(struct lite_vcpu *c, u64 gfn, const u8 *host)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	struct lite_page *page = page_find(lvm, gfn);
	struct lite_gfns *g;
	u64 bit = BIT64(gfn % 64);
	unsigned word = (gfn / 64) % 512;

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
		page->hash_next = lvm->pages[page_hash(gfn)];
		__atomic_store_n(&lvm->pages[page_hash(gfn)], page, __ATOMIC_RELEASE);
	}
	__atomic_fetch_or(&g->code[word], bit, __ATOMIC_SEQ_CST);
	if (__atomic_fetch_and(&g->written[word], ~bit, __ATOMIC_SEQ_CST) & bit) {
		lite_tlb_flush_writes(c);
		lite_shootdown(lvm, c, LITE_PEND_WRITE);
	}
	memset(page->covered, 0, sizeof(page->covered));
	if (host_copy_from_client(page->copy, (u64)host, 4096)) {
		__atomic_fetch_and(&g->code[word], ~bit, __ATOMIC_SEQ_CST);
		return NULL;
	}
	return page;
}

void lite_code_validate(struct lite_vcpu *c, u64 gfn, const u8 *host)
{
	struct lite_page *page = page_find(to_lite_vm(c->vcpu.vm), gfn);

	if (!page || !__atomic_load_n(&page->blocks, __ATOMIC_RELAXED))
		return;
	lite_fpu_save(c);
	if (!host_copy_from_client(c->scratch, (u64)host, 4096) && !memcmp(c->scratch, page->copy, 4096))
		return;
	code_lock(c);
	page = page_find(to_lite_vm(c->vcpu.vm), gfn);
	if (page && page->blocks)
		kill_range(c, page, 0, 4096);
	code_unlock(c);
}

enum x86_result lite_code_write(struct lite_vcpu *c, u64 la, bool system, const void *buf, unsigned len, void *old, bool *done)
{
	struct lite_place place;
	struct lite_page *page;
	enum x86_result r;
	unsigned off;
	int err = 0;

	code_lock(c);
	r = lite_translate(c, la, LITE_WRITE, system, &place);
	if (r != X86_CONTINUE)
		goto out;
	if (!place.host) {
		r = X86_UNHANDLED; /* the slot became read-only this very moment: as a write to ROM, lost */
		goto out;
	}
	off = place.gpa & 0xfff;
	page = page_find(to_lite_vm(c->vcpu.vm), place.gpa >> 12);
	if (page && page->blocks && covered(page, off, len))
		kill_range(c, page, off, len);
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
	code_unlock(c);
	return r;
}

/* ---- blocks --------------------------------------------------------------------------------------------------- */

static const struct lite_block *block_find(struct lite_vm *lvm, u64 gpa, u32 mode)
{
	const struct lite_block *block = __atomic_load_n(&lvm->blocks[block_hash(gpa)], __ATOMIC_ACQUIRE);

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

static const struct lite_block *block_make(struct lite_vcpu *c, u64 gpa, const u8 *host)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	struct lite_op *ops = c->decode_ops;
	struct lite_block *block;
	struct lite_page *page;
	unsigned n, end, h;

	if (lvm->arena_used >= LITE_ARENA_MAX)
		flush_blocks(c);
	page = page_make(c, gpa >> 12, host);
	if (!page)
		return NULL;
	n = decode(c, page, gpa & 0xfff, ops, &end);
	block = lite_arena_alloc(lvm, sizeof(*block) + n * sizeof(*ops));
	if (!block)
		return NULL;
	block->gpa = gpa;
	block->mode = c->code_mode;
	block->len = end - (gpa & 0xfff);
	memcpy(block->ops, ops, n * sizeof(*ops));
	cover(page, gpa & 0xfff, block->len);
	block->page_next = page->blocks;
	page->blocks = block;
	h = block_hash(gpa);
	block->hash_next = lvm->blocks[h];
	__atomic_store_n(&lvm->blocks[h], block, __ATOMIC_RELEASE);
	c->count.blocks++;
	return block;
}

const struct lite_op *lite_block_at(struct lite_vcpu *c, u64 va, enum x86_result *r)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	const struct lite_block *block;
	struct lite_exec_entry *x;
	struct lite_jump *jump;
	struct lite_place place;
	u64 gpa, flushes;
	u8 *host;

	c->count.lookups++;
again:
	x = &c->view->x[(va >> 12) % LITE_XTLB_SIZE];
	if (likely(x->tag == (va & PAGE_MASK_))) {
		gpa = x->gpa | (va & 0xfff);
		host = x->host;
	} else {
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
	block = block_find(lvm, gpa, c->code_mode);
	if (unlikely(!block)) {
		flushes = c->flush_count;
		code_lock(c);
		if (flushes != c->flush_count) {
			code_unlock(c);
			goto again;
		}
		block = block_find(lvm, gpa, c->code_mode);
		if (!block)
			block = block_make(c, gpa, host);
		code_unlock(c);
		if (!block) {
			*r = X86_RETRY;
			return NULL;
		}
	}
	jump = &c->view->jump[lite_jump_hash(va)];
	jump->ops = block->ops;
	jump->va = va;
	return block->ops;
}
