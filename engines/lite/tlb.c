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
#include "core/x86/debug.h"
#include "engines/lite/lite.h"

int lite_tlb_init(struct lite_vcpu *c)
{
	c->views = host_zalloc_pages(2 * sizeof(*c->views));
	c->l2 = host_zalloc_pages(LITE_L2_SIZE * sizeof(*c->l2));
	c->pcid_gen = host_zalloc_pages(4096 * sizeof(u64));
	c->scratch = host_zalloc_pages(2 * HOST_PAGE_SIZE);
	if (!c->views || !c->l2 || !c->pcid_gen || !c->scratch)
		return -ENOMEM;
	c->view = &c->views[0];
	c->gen_next = 1;
	c->views[0].used = c->views[1].used = true;
	lite_tlb_flush_all(c);
	return 0;
}

void lite_tlb_destroy(struct lite_vcpu *c)
{
	if (c->views)
		host_free_pages(c->views, 2 * sizeof(*c->views));
	if (c->l2)
		host_free_pages(c->l2, LITE_L2_SIZE * sizeof(*c->l2));
	if (c->pcid_gen)
		host_free_pages(c->pcid_gen, 4096 * sizeof(u64));
	if (c->scratch)
		host_free_pages(c->scratch, 2 * HOST_PAGE_SIZE);
}

static void clear_tags(struct lite_tlb_entry *e, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		e[i].tag = LITE_TAG_NONE;
}

void lite_jumps_flush(struct lite_vcpu *c)
{
	for (unsigned v = 0; v < 2; v++)
		for (unsigned i = 0; i < LITE_JUMP_SIZE; i++)
			c->views[v].jump[i].va = LITE_JUMP_NONE;
}

void lite_tlb_flush_exec(struct lite_vcpu *c)
{
	for (unsigned v = 0; v < 2; v++)
		for (unsigned i = 0; i < LITE_XTLB_SIZE; i++)
			c->views[v].x[i].tag = LITE_TAG_NONE;
	lite_jumps_flush(c);
}

void lite_tlb_flush_writes(struct lite_vcpu *c)
{
	for (unsigned v = 0; v < 2; v++)
		clear_tags(c->views[v].w, LITE_TLB_SIZE);
}

void lite_tlb_flush_first(struct lite_vcpu *c)
{
	for (unsigned v = 0; v < 2; v++) {
		struct lite_view *view = &c->views[v];

		if (!view->used)
			continue;
		view->used = view == c->view;
		clear_tags(view->r, LITE_TLB_SIZE);
		clear_tags(view->w, LITE_TLB_SIZE);
		for (unsigned i = 0; i < LITE_XTLB_SIZE; i++)
			view->x[i].tag = LITE_TAG_NONE;
		for (unsigned i = 0; i < LITE_JUMP_SIZE; i++)
			view->jump[i].va = LITE_JUMP_NONE;
	}
}

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
}

void lite_tlb_flush_all(struct lite_vcpu *c)
{
	memset(c->large_2m, 0, sizeof(c->large_2m));
	memset(c->large_1g, 0, sizeof(c->large_1g));
	c->gen_floor = c->gen_next;
	c->gen_global = ++c->gen_next;
	select_pcid(c);
	lite_tlb_flush_first(c);
}

static void flush_pcid(struct lite_vcpu *c, unsigned pcid)
{
	c->pcid_gen[pcid & 0xfff] = ++c->gen_next;
	select_pcid(c);
	lite_tlb_flush_first(c);
}

static void flush_page(struct lite_vcpu *c, u64 la)
{
	u64 page = la & PAGE_MASK_;
	unsigned i = (page >> 12) % LITE_TLB_SIZE, x = (page >> 12) % LITE_XTLB_SIZE;
	struct lite_walk_entry *e = &c->l2[(page >> 12) % LITE_L2_SIZE];

	for (unsigned v = 0; v < 2; v++) {
		struct lite_view *view = &c->views[v];

		view->r[i].tag = LITE_TAG_NONE;
		view->w[i].tag = LITE_TAG_NONE;
		if (view->x[x].tag == page) {
			view->x[x].tag = LITE_TAG_NONE;
			lite_jumps_flush(c);
		}
	}
	if (e->la == page)
		e->gen = 0;
}

/*
 * Large pages are cached in 4 KiB pieces, but INVLPG has to drop all of a large page (SDM 3A 4.10.4.1). Which 2 MiB
 * and 1 GiB regions had such pieces is remembered by a hash; INVLPG into one of them flushes everything.
 */
static bool *large_mark(struct lite_vcpu *c, u64 la, unsigned shift)
{
	return shift == 30 ? &c->large_1g[(la >> 30) % ARRAY_SIZE(c->large_1g)] :
			     &c->large_2m[(la >> 21) % ARRAY_SIZE(c->large_2m)];
}

void lite_tlb_flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg)
{
	struct lite_vcpu *c = to_lite(vcpu);

	switch (scope) {
	case TLB_PAGE:
		if (*large_mark(c, arg, 30) || *large_mark(c, arg, 21) || *large_mark(c, arg ^ BIT64(21), 21))
			lite_tlb_flush_all(c);
		else
			flush_page(c, arg);
		break;
	case TLB_NONGLOBAL:
	case TLB_PCID:
		flush_pcid(c, arg);
		break;
	case TLB_SWITCH:
		select_pcid(c);
		lite_tlb_flush_first(c);
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
		/* Whether the PCID's walks go as well was tlb_flush()'s business; the first level knows no PCID. */
		c->seen_cr3 = s->cr3;
		select_pcid(c);
		lite_tlb_flush_first(c);
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
	c->view->used = true;
	if (unlikely(c->view->code_mode != mode)) {
		c->view->code_mode = mode;
		for (unsigned i = 0; i < LITE_JUMP_SIZE; i++)
			c->view->jump[i].va = LITE_JUMP_NONE;
	}
}

/* The second level: was this access allowed by a walk that still counts? */
static bool walk_allows(const struct lite_vcpu *c, const struct lite_walk_entry *e, enum lite_access access, bool user)
{
	const struct x86_state *s = &c->vcpu.x86;

	if (user) {
		if (!e->user)
			return false;
	} else if (e->user) {
		if (access == LITE_EXEC && (s->cr4 & CR4_SMEP))
			return false;
		if (access != LITE_EXEC && (s->cr4 & CR4_SMAP))
			return false;
	}
	if (access == LITE_EXEC)
		return e->executable;
	if (access == LITE_WRITE)
		return e->dirty && (e->writable || (!user && !(s->cr0 & CR0_WP)));
	return true;
}

static enum x86_result walk(struct lite_vcpu *c, u64 la, enum lite_access access, bool system, u64 *gpa, bool *private)
{
	static const u32 pferr[] = { [LITE_READ] = 0, [LITE_WRITE] = PFERR_W, [LITE_EXEC] = PFERR_I };
	u64 page = la & PAGE_MASK_;
	struct lite_walk_entry *e = &c->l2[(page >> 12) % LITE_L2_SIZE];
	bool user = c->vcpu.x86.cpl == 3 && !system;
	struct walk_result w;

	*private = false;
	if (likely(e->la == page && (e->gen == c->gen || e->gen == c->gen_global) && walk_allows(c, e, access, user))) {
		*gpa = e->gpa;
		return X86_CONTINUE;
	}
	lite_fpu_save(c);
	c->count.tlb_walk++;
	if (!mmu_walk(&c->vcpu, la, pferr[access] | (user ? PFERR_U : 0), system, &w))
		return emul_page_fault(&c->vcpu.emul, la, w.error);
	*gpa = w.gpa & PAGE_MASK_;
	if (w.page_shift > 12)
		*large_mark(c, la, w.page_shift) = true;
	/* Under SMAP, supervisor access to user pages depends on RFLAGS.AC: never cached in the first level. */
	*private = !user && w.user && (c->vcpu.x86.cr4 & CR4_SMAP);
	e->la = page;
	e->gpa = *gpa;
	e->gen = w.global && (c->vcpu.x86.cr4 & CR4_PGE) ? c->gen_global : c->gen;
	e->user = w.user;
	e->writable = w.writable;
	e->executable = w.executable;
	e->dirty = w.dirty;
	return X86_CONTINUE;
}

enum x86_result lite_translate(struct lite_vcpu *c, u64 la, enum lite_access access, bool system, struct lite_place *place)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	bool user = c->vcpu.x86.cpl == 3 && !system;
	struct lite_view *view = &c->views[user];
	u64 page = la & PAGE_MASK_, gpa = 0, gfn;
	struct lite_tlb_entry *t;
	struct memslot *slot;
	enum x86_result r;
	bool private;
	u8 *host;

again:
	r = walk(c, la, access, system, &gpa, &private);
	if (r != X86_CONTINUE)
		return r;
	gfn = gpa >> 12;
	place->gpa = gpa | (la & 0xfff);
	place->host = NULL;
	place->code = false;
	slot = memslot_find(vm_slots(&lvm->vm, vcpu_as_id(&c->vcpu)), gfn);
	if (!slot || (access == LITE_WRITE && (slot->flags & KVM_MEM_READONLY)))
		return X86_CONTINUE;
	host = (u8 *)slot->hva + ((gfn - slot->base_gfn) << 12);
	place->host = host + (la & 0xfff);
	view->used = true;
	switch (access) {
	case LITE_EXEC: {
		struct lite_exec_entry *x = &view->x[(page >> 12) % LITE_XTLB_SIZE];

		if (x->tag != page || x->gpa != gpa || x->host != host) {
			u64 flushes = c->flush_count;

			lite_code_validate(c, gfn, host);
			if (flushes != c->flush_count)
				goto again;
			x->tag = page;
			x->gpa = gpa;
			x->host = host;
		}
		break;
	}
	case LITE_READ:
		if (private)
			break;
		t = &view->r[(page >> 12) % LITE_TLB_SIZE];
		t->addend = (u64)host - page;
		t->tag = page;
		c->count.tlb_fill++;
		break;
	case LITE_WRITE: {
		struct lite_gfns *g = lite_gfns(lvm, gfn, true);

		if (memslot_logs_dirty(slot))
			dirty_mark(&lvm->vm, &c->vcpu, slot, gfn);
		/*
		 * The other side of lite_page_make(): it sets the code bit, then looks at the written bit; here it is
		 * the other way round, so at least one of the two sees the other.
		 */
		if (g)
			__atomic_fetch_or(&g->written[(gfn / 64) % 512], BIT64(gfn % 64), __ATOMIC_SEQ_CST);
		place->code = !g || lite_is_code(lvm, gfn);
		if (private || place->code)
			break;
		t = &view->w[(page >> 12) % LITE_TLB_SIZE];
		t->addend = (u64)host - page;
		t->tag = page;
		c->count.tlb_fill++;
	}
	}
	return X86_CONTINUE;
}

bool lite_tlb_fill(struct lite_vcpu *c, u64 la, unsigned size, bool write)
{
	struct lite_tlb_entry *t;
	struct lite_place place;

	if ((la & 0xfff) + size > 4096 || !x86_is_canonical(la, 0))
		return false;
	if (lite_translate(c, la, write ? LITE_WRITE : LITE_READ, false, &place) != X86_CONTINUE)
		return false;
	t = write ? c->view->w : c->view->r;
	return t[(la >> 12) % LITE_TLB_SIZE].tag == (la & PAGE_MASK_);
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

	lite_fpu_save(c);
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

	lite_fpu_save(c);
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
	lite_fpu_save(c);
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

	lite_fpu_save(c);
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

	lite_fpu_save(c);
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
