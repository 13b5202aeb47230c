/*
 * What translated code calls, and the way into it. Every call finds the guest's general registers in vcpu->x86.gpr, the arithmetic
 * flags in lite_vcpu.fl and the vector registers in the CPU, and returns where translated code goes on: behind the call (@ret), where
 * the guest's RIP leads (next()), or NULL for the run loop.
 */
#include "core/x86/debug.h"
#include "engines/lite/jit.h"
#include "engines/lite/options.h"
#include "engines/lite/system_priv.h"
#include "engines/lite/text.h"
#include "engines/lite/window.h"

static const void *on(struct lite_vcpu *c, const void *to)
{
	lite_fpu_load(c);
	lite_jit_gs(c);
	return to;
}

static void set_rip(struct lite_vcpu *c, u64 la)
{
	c->vcpu.x86.rip = (la - c->cs_base) & c->rip_mask;
}

/* What blocks of the current state are translated for; 0: none can be. */
u32 lite_jit_mode(const struct lite_vcpu *c)
{
	const struct x86_state *s = &c->vcpu.x86;

	if (c->code_mode != X86_MODE_LONG && c->code_mode != (X86_MODE_PROT32 | LITE_MODE_FLAT))
		return 0;
	/* Nobody is there; so what is not the user is CPL 0, to which all is allowed. */
	if (unlikely(s->cpl == 1 || s->cpl == 2))
		return 0;
	return c->code_mode | LITE_MODE_JIT | (s->cpl == 3 ? LITE_MODE_USER : 0) | c->fpu_usable << LITE_MODE_FPU_SHIFT |
	       (c->code_mode != X86_MODE_LONG ? 0 : s->cpl != 3 ? (lite_text_sure(c) ? LITE_MODE_TEXT : 0) : c->window_gen == c->gen ? c->window_mode : 0);
}

/* The same, where a window may be had first. */
static u32 new_mode(struct lite_vcpu *c)
{
	if (unlikely(lite_options.windows == LITE_WINDOWS_EAGER))
		lite_window_open(c);
	if (unlikely(c->text_stale) && c->vcpu.x86.cpl != 3 && c->code_mode == X86_MODE_LONG)
		lite_text_look(c);
	return lite_jit_mode(c);
}

/* The run loop has something to do before the next instruction. */
static bool must_leave(const struct lite_vcpu *c)
{
	const struct x86_state *s = &c->vcpu.x86;

	/* Alignment checks are the emulator's. */
	if (unlikely((s->rflags & RFLAGS_AC) && (s->cr0 & CR0_AM) && s->cpl == 3))
		return true;
	return __atomic_load_n(&c->budget, __ATOMIC_RELAXED) < 0 || s->shadow || (s->rflags & RFLAGS_TF) || c->window_irq || c->window_nmi ||
	       (c->vcpu.eff_dr7 & 0xff) || debug_client_steps(&c->vcpu) || vcpu_must_exit((struct vcpu *)&c->vcpu);
}

/* Whether what was asked for meanwhile ends c->jit.mode. */
static bool mode_ended(const struct lite_vcpu *c)
{
	return (c->jit.mode & LITE_MODE_TEXT) && !lite_text_sure(c);
}

/* The translation at linear @va, made if need be and entered into the jump cache. */
static const void *find(struct lite_vcpu *c, u64 va)
{
	struct lite_view *view = c->view;
	unsigned i = lite_jit_find(view, va);
	struct lite_block *block;
	enum x86_result r;

	if (unlikely(view->jit[i].va != va || view->jit_mode != c->jit.mode)) {
		block = lite_jit_block_at(c, va, &r);
		if (!block || unlikely(mode_ended(c)))
			return NULL;
		i = lite_jit_find(c->view, va);
	}
	c->jit.t0 = va;
	c->jit.t1 = i * JIT_JUMP_SCALE;
	return c->view->jit[i].to;
}

/* On with what is at RIP. */
static const void *next(struct lite_vcpu *c)
{
	const void *to;
	u32 mode;

	if (unlikely(must_leave(c)))
		return NULL;
	mode = new_mode(c);
	if (unlikely(!mode))
		return NULL;
	c->jit.mode = mode;
	/* A far jump, a system call or an interrupt may have gone to code of the other size. */
	c->cs_base = 0;
	c->rip_mask = c->code_mode == X86_MODE_LONG ? ~0ULL : 0xffffffff;
	c->vcpu.x86.rflags &= ~RFLAGS_RF; /* as the instruction does that comes now */
	to = find(c, c->vcpu.x86.rip & c->rip_mask);
	return to ? on(c, to) : NULL;
}

/* The instruction at @off of the page, from memory or @insn, by the emulator. */
static const void *emulate(struct lite_vcpu *c, unsigned off, const struct insn *insn)
{
	struct emul *e = &c->vcpu.emul;
	enum x86_result r;

	set_rip(c, c->vpage + off);
	if (unlikely(c->jit.lockstep))
		return NULL;
	lite_flags_home(c);
	lite_fpu_spare(c);
	c->count.slow_ops++;
	r = vcpu_insn_done(&c->vcpu, insn ? emul_exec(e, insn) : emul_step(e));
	lite_flags_take(c);
	if (unlikely(r != X86_CONTINUE)) {
		/* A page fault, mostly. */
		if (r == X86_FAULT && !c->vcpu.guest_debug && !c->efault && lite_fast_event(c, &e->fault)) {
			lite_flags_take(c);
			lite_refresh_cpl(c);
			return next(c);
		}
		c->emul_result = r;
		c->stop = LITE_STOP_SLOW;
		return NULL;
	}
	lite_refresh(c);
	return next(c);
}

static unsigned site_offset(const struct lite_vcpu *c)
{
	return c->jit.site & 0xfff;
}

/* Fills the TLB for the site's bytes at T0 and goes on at *@to. False: they are not to be had that way. */
static bool refill(struct lite_vcpu *c, const u8 *ret, const void **to)
{
	u64 blocks = c->blocks_count, flushes = c->flush_count, la = c->jit.t0;
	unsigned size = JIT_MISS_BYTES(c->jit.site);
	bool write = c->jit.site & JIT_MISS_WRITE;

	if (unlikely(!lite_tlb_fill(c, la, size, write)))
		return false;
	/* What the block holds in T2 may be no more, or the block itself: the instruction from its start. */
	if (unlikely(blocks != c->blocks_count || flushes != c->flush_count)) {
		set_rip(c, c->vpage + site_offset(c));
		*to = next(c);
		return true;
	}
	c->jit.t0 = (u64)lite_tlb_page(c->view, la, write)->host + (la & 0xfff);
	*to = on(c, ret);
	return true;
}

/*
 * A group of accesses reached over the end of a page: a frame on the stack, say, or a structure that lies so. That is well served by a way
 * around when it is seldom; a block where it happens all the time is to have no groups. One in 16 is looked at, for finding the block takes time.
 */
#define CROSSINGS_MAX 8
static void crossed(struct lite_vcpu *c, const u8 *ret)
{
	struct lite_jit_code *code;

	if (++c->group_crossings % 16)
		return;
	code = lite_jit_code_at(to_lite_vm(c->vcpu.vm)->jit, (u64)(uintptr_t)ret);
	if (code && __atomic_add_fetch(&code->crossings, 1, __ATOMIC_RELAXED) == CROSSINGS_MAX)
		lite_jit_drop(c, ret, true);
}

/* No TLB entry for a group of accesses. When they cannot be had together, the instruction is the first of a block that checks each by itself. */
static const void *group(struct lite_vcpu *c, const u8 *ret)
{
	struct lite_block *block;
	enum x86_result r;
	const void *to;

	if (likely(!(c->jit.site & JIT_MISS_APART) && refill(c, ret, &to)))
		return to;
	set_rip(c, c->vpage + site_offset(c));
	if (unlikely(c->jit.lockstep))
		return NULL;
	if ((c->jit.t0 & 0xfff) + JIT_MISS_BYTES(c->jit.site) > 4096)
		crossed(c, ret);
	/* Not by way of the run loop, which would only come back here. */
	block = lite_jit_block_apart(c, (c->vpage + site_offset(c)) & c->rip_mask, c->jit.mode | LITE_MODE_ALONE, &r);
	return block && !mode_ended(c) ? on(c, block->jit->direct) : NULL;
}

/* No TLB entry for the site's bytes at T0. */
static const void *miss(struct lite_vcpu *c, const u8 *ret)
{
	const void *to;

	if (likely(refill(c, ret, &to)))
		return to;
	if (c->fill_fault && !(c->jit.site & JIT_MISS_APART) && likely(!c->vcpu.guest_debug && !to_lite_vm(c->vcpu.vm)->no_links)) {
		struct x86_event pf = c->vcpu.emul.fault;

		set_rip(c, c->vpage + site_offset(c));
		lite_flags_home(c);
		if (likely(lite_fast_event(c, &pf))) {
			lite_refresh_cpl(c);
			return next(c);
		}
	}
	return emulate(c, site_offset(c), NULL);
}

/* The page behind the block's. */
static u64 next_page(const struct lite_vcpu *c)
{
	return (c->vpage + 4096) & c->rip_mask;
}

/*
 * What the translator could not decode: nothing that is an instruction, or one that goes on in the next page while that was not in the TLB.
 * When it is now, the block is made anew.
 */
static const void *emulate_site(struct lite_vcpu *c, const u8 *ret)
{
	unsigned off = site_offset(c);
	struct lite_place place;
	struct insn insn;
	u8 bytes[INSN_MAX_LEN];

	if (off + INSN_MAX_LEN > 4096 && !c->jit.lockstep && lite_translate(c, next_page(c), LITE_EXEC, false, &place) == X86_CONTINUE &&
	    place.host && c->vcpu.emul.ops->fetch(&c->vcpu.emul, c->vpage + off, bytes, sizeof(bytes)) == X86_CONTINUE &&
	    insn_decode(&insn, bytes, sizeof(bytes), c->code_mode == X86_MODE_LONG ? MODE_64 : MODE_32) == INSN_OK)
		lite_jit_drop(c, ret - 1, false); /* the call is the last of the code */
	return emulate(c, site_offset(c), NULL);
}

static const void *emulate_insn(struct lite_vcpu *c, const u8 *ret)
{
	const struct insn *insn = (const struct insn *)c->jit.t0;

	if (unlikely(insn->mnemonic == MN_INT3 && (c->vcpu.guest_debug & KVM_GUESTDBG_USE_SW_BP))) {
		set_rip(c, c->vpage + site_offset(c));
		c->stop = LITE_STOP_INT3;
		return NULL;
	}
	return emulate(c, site_offset(c), insn);
}

/* An instruction of system.h's: behind it the block goes on, unless it changed the level or something waits. */
static const void *fast(struct lite_vcpu *c, const u8 *ret)
{
	const struct jit_fast *f = (const struct jit_fast *)c->jit.t0;
	u64 blocks = c->blocks_count, flushes = c->flush_count, rip;
	u64 gen = __atomic_load_n(&to_lite_vm(c->vcpu.vm)->code_gen, __ATOMIC_RELAXED);

	set_rip(c, c->vpage + site_offset(c));
	if (unlikely(c->jit.lockstep))
		return NULL;
	rip = c->vcpu.x86.rip;
	lite_flags_home(c);
	if (unlikely(!f->fn(c, &f->insn)))
		return emulate(c, site_offset(c), &f->insn);
	lite_flags_take(c);
	if (f->after & LITE_AFTER_ALL) {
		lite_refresh(c);
		return next(c);
	}
	if (f->after & LITE_AFTER_CPL) {
		lite_refresh_cpl(c);
		return next(c);
	}
	if (unlikely((f->after & LITE_AFTER_PART) && c->vcpu.x86.rip == rip))
		return next(c);
	if (unlikely(((f->after & LITE_AFTER_EVENTS) && lite_events_due(c)) || blocks != c->blocks_count || flushes != c->flush_count ||
		     gen != __atomic_load_n(&to_lite_vm(c->vcpu.vm)->code_gen, __ATOMIC_RELAXED)))
		return next(c);
	return on(c, ret);
}

/* Whether the page behind the block's begins with @x's bytes; *@known: it could be looked at. */
static bool same_bytes(struct lite_vcpu *c, const struct jit_cross *x, bool *known)
{
	const struct lite_exec_entry *e = &c->view->x[(next_page(c) >> 12) % LITE_XTLB_SIZE];
	u64 low, high;
	int err = 0;

	*known = e->tag == next_page(c);
	if (unlikely(!*known))
		return false;
	low = load64(e->host, &err) & x->mask[0];
	high = load64(e->host + 8, &err) & x->mask[1];
	return !err && low == x->bytes[0] && high == x->bytes[1];
}

/* Before an instruction whose last bytes are in the next page. */
static const void *cross(struct lite_vcpu *c, const u8 *ret)
{
	const struct jit_cross *x = (const struct jit_cross *)c->jit.t0;
	u64 blocks = c->blocks_count, flushes = c->flush_count;
	u64 gen = __atomic_load_n(&to_lite_vm(c->vcpu.vm)->code_gen, __ATOMIC_RELAXED);
	struct lite_place place;
	bool known;

	if (likely(same_bytes(c, x, &known)))
		return on(c, ret);
	set_rip(c, c->vpage + site_offset(c));
	if (known || lite_translate(c, next_page(c), LITE_EXEC, false, &place) != X86_CONTINUE || !place.host) {
		/* Other bytes now: the block is of no use, unless who maps others there takes turns with who does not. */
		if (known && !c->jit.lockstep && ++c->crossings % 16 == 0)
			lite_jit_drop(c, ret, false);
		return emulate(c, site_offset(c), NULL);
	}
	if (blocks != c->blocks_count || flushes != c->flush_count || gen != __atomic_load_n(&to_lite_vm(c->vcpu.vm)->code_gen, __ATOMIC_RELAXED))
		return next(c);
	return same_bytes(c, x, &known) ? on(c, ret) : emulate(c, site_offset(c), NULL);
}

/* A jump within the page that is not linked yet; behind the call are the distance to its field and the target. */
static const void *link(struct lite_vcpu *c, const u8 *ret)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	u64 blocks = c->blocks_count;
	struct lite_block *block;
	u32 back, target;
	enum x86_result r;
	const void *to;
	bool poll, alone;
	u64 va;

	memcpy(&back, ret, 4);
	memcpy(&target, ret + 4, 4);
	poll = target & JIT_LINK_POLL;
	alone = target & JIT_LINK_ALONE;
	target &= 0xffff;
	va = c->vpage + target;
	set_rip(c, va);
	if (must_leave(c))
		return NULL;
	c->jit.linking = true;
	block = alone ? lite_jit_block_apart(c, va & c->rip_mask, c->jit.mode | LITE_MODE_ALONE, &r) : lite_jit_block_at(c, va & c->rip_mask, &r);
	c->jit.linking = false;
	if (!block || unlikely(mode_ended(c)))
		return NULL;
	if (blocks == c->blocks_count && !lvm->no_links) {
		u8 *stub = (u8 *)lvm->jit->room.rw + (ret - lvm->jit->room.rx);

		/* The call is as long as the others of its kind: 7 bytes. */
		lite_jit_link(c, ret - 7, stub - back, stub - 7, block, va, poll);
	}
	if (alone)
		return c->jit.lockstep || mode_ended(c) ? NULL : on(c, block->jit->direct);
	to = find(c, va & c->rip_mask);
	return to ? on(c, to) : NULL;
}

/* T0 is where the guest goes and the jump cache does not know it. */
static const void *jump(struct lite_vcpu *c, const u8 *ret)
{
	c->count.jit_jumps++;
	set_rip(c, c->jit.t0);
	return next(c);
}

static const void *poll(struct lite_vcpu *c, const u8 *ret)
{
	set_rip(c, c->jit.t0);
	lite_window_consider(c);
	return NULL;
}

/* The block died, or found that it is not what the code is; its page is current, its first instruction at the site. */
static const void *dead(struct lite_vcpu *c, const u8 *ret)
{
	u64 va = (c->vpage + site_offset(c)) & c->rip_mask;
	unsigned i = lite_jit_find(c->view, va);
	struct lite_block *block;
	enum x86_result r;

	if (c->view->jit[i].va == va)
		c->view->jit[i].va = LITE_JIT_JUMP_NONE(i);
	set_rip(c, va);
	/* When it is the same after all, reads and fetches go to different places: the guest is yet to flush something. Not here again, then. */
	if (unlikely(to_lite_vm(c->vcpu.vm)->nr_checked && lite_code_same(c, va)))
		return emulate(c, site_offset(c), NULL);
	/* Links of the page lead here for good. */
	if (!c->jit.lockstep) {
		block = lite_jit_block_at(c, va, &r);
		if (block)
			lite_jit_forward(c, ret - 1, block); /* the call is the last of the code, or near it */
	}
	return next(c);
}

/*
 * A host exception in translated code, which is as good as before the instruction: a page that the window has not got yet, or the
 * emulator finds out what to make of it.
 */
static const void *fault(struct lite_vcpu *c, const u8 *ret)
{
	unsigned off = lite_jit_site_at(to_lite_vm(c->vcpu.vm)->jit, c->jit.fault_pc)->guest & JIT_SITE_OFFSET;
	u64 blocks = c->blocks_count, flushes = c->flush_count;
	enum lite_window_result r;

	if (c->jit.mode & LITE_MODE_WINDOW) {
		r = lite_window_fault(c, c->jit.fault_addr, c->jit.fault_write);
		if (likely(r == LITE_WINDOW_MAPPED && blocks == c->blocks_count && flushes == c->flush_count))
			return on(c, (const void *)c->jit.fault_pc);
		if (r != LITE_WINDOW_NONE) {
			set_rip(c, c->vpage + off);
			return c->jit.lockstep ? NULL : next(c);
		}
	}
	return emulate(c, off, NULL);
}

bool lite_jit_fault(struct lite_vcpu *c, u64 *rip)
{
	struct lite_jit *jit = to_lite_vm(c->vcpu.vm)->jit;
	const struct lite_jit_site *site = lite_jit_site_at(jit, *rip);

	if (!site)
		return false;
	c->jit.fault_pc = *rip;
	*rip = (u64)(uintptr_t)(site->guest & JIT_SITE_KEPT ? jit->fault_kept : jit->fault);
	return true;
}

lite_jit_call *const lite_jit_calls[LITE_JIT_FNS] = {
	[LITE_JIT_MISS] = miss,
	[LITE_JIT_GROUP] = group,
	[LITE_JIT_EMULATE] = emulate_site,
	[LITE_JIT_INSN] = emulate_insn,
	[LITE_JIT_FAST] = fast,
	[LITE_JIT_LINK] = link,
	[LITE_JIT_JUMP] = jump,
	[LITE_JIT_DEAD] = dead,
	[LITE_JIT_POLL] = poll,
	[LITE_JIT_FAULT] = fault,
	[LITE_JIT_CROSS] = cross,
	[LITE_JIT_MISS_KEPT] = miss,
	[LITE_JIT_GROUP_KEPT] = group,
	[LITE_JIT_POLL_KEPT] = poll,
	[LITE_JIT_FAULT_KEPT] = fault,
};

bool lite_jit_run(struct lite_vcpu *c)
{
	struct lite_jit *jit = to_lite_vm(c->vcpu.vm)->jit;
	const void *to;
	u32 mode = new_mode(c);

	if (!mode || !jit || lite_options.engine == LITE_ENGINE_INTERP)
		return false;
	c->jit.mode = mode;
	if (unlikely(__atomic_load_n(&to_lite_vm(c->vcpu.vm)->nr_checked, __ATOMIC_RELAXED)))
		lite_code_settle(c, (c->vcpu.x86.rip + c->cs_base) & c->rip_mask);
	if (unlikely(to_lite_vm(c->vcpu.vm)->no_links))
		return lite_lockstep_run(c);
	to = find(c, (c->vcpu.x86.rip + c->cs_base) & c->rip_mask);
	if (!to)
		return false;
	c->stop = LITE_STOP_NONE;
	lite_flags_take(c);
	lite_fpu_load(c);
	lite_jit_gs(c);
	jit->enter(c, to);
	lite_flags_home(c);
	return true;
}
