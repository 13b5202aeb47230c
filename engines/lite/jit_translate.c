/*
 * A block: decoded up to an unconditional branch, an instruction for the emulator, the end of the page or JIT_MAX_INSNS; conditional
 * branches leave it at the side. Then which flags are needed where, backwards; then code, forwards; then what happens seldom, in a place of its own.
 * There the entry by the jump cache is, too, when another block's branch was what the block was made for.
 *
 * Flags. What nobody reads before it is set again may be clobbered, by checks of memory accesses and by polls: neither the instructions behind
 * in the block read it, nor, where the block goes to, the ones that are looked at there (and belong to the bytes that the block depends on). An
 * instruction that sets flags itself and may fault finds them as they were. What remains: when MOV (say) faults, its frame's arithmetic flags
 * are undefined if the block certainly sets them again behind it, unread.
 *
 * A kernel's text (text.h), where most of this is won, goes further: there CMP is like MOV, and branches to other pages of texts are looked at as
 * they were when the block was made. So a function that is patched to begin with a use of flags, which it did not before, may find others
 * than its caller set.
 *
 * Where the block ends by the jump cache the flags go to memory (jit_keep_flags()), and that is done as soon as a check would have to spare them.
 */
#include "core/stats.h"
#include "engines/lite/jit.h"
#include "engines/lite/log.h"
#include "engines/lite/options.h"
#include "engines/lite/text.h"

static enum insn_mode decode_mode(const struct jit_block *b)
{
	return b->is32 ? MODE_32 : MODE_64;
}

static void depends(struct jit_block *b, unsigned from, unsigned to)
{
	b->from = MIN(b->from, from);
	b->to = MAX(b->to, to);
}

bool jit_ends(const struct insn *insn)
{
	unsigned after;

	if (insn->mnemonic == MN_JCC || !(insn->flags & (INSN_F_BRANCH | INSN_F_ENDS_BLOCK)))
		return false;
	return !lite_fast_lookup(insn, &after) || (after & (LITE_AFTER_CPL | LITE_AFTER_ALL));
}

#define LOOK_AHEAD 12

/* A piece of another page of a text. */
struct piece {
	s32 off;
	unsigned n;
	u8 bytes[64];
};

/* The code at @off, *@n bytes of it; NULL: not known. */
static const u8 *look_at(const struct jit_block *b, struct piece *p, s32 off, unsigned *n)
{
	u64 va = b->va + (s64)off;

	if (off >= 0 && off < 4096) {
		*n = MIN(4096U - (unsigned)off, INSN_MAX_LEN);
		return b->page + off;
	}
	if (!(b->mode & LITE_MODE_TEXT))
		return NULL;
	if (off < p->off || off + INSN_MAX_LEN > p->off + (s32)p->n) {
		p->off = off;
		p->n = MIN((unsigned)(4096 - (va & 0xfff)), sizeof(p->bytes));
		if (!lite_text_bytes(b->c, va, p->bytes, p->n)) {
			p->n = 0;
			return NULL;
		}
	}
	*n = MIN(p->n - (unsigned)(off - p->off), INSN_MAX_LEN);
	return p->bytes + (off - p->off);
}

/* The flags that the code at @off may read before it sets them. */
static u8 live_at(struct jit_block *b, s32 off)
{
	u8 unset = LITE_FL_ALL, read = 0;
	struct piece piece = { .n = 0 };
	struct lite_use use;
	const u8 *code;
	struct insn insn;
	unsigned n;

	/* What a block looks at it has to compare, each time. */
	if (b->lvm->no_links || b->checked)
		return LITE_FL_ALL;
	for (unsigned i = 0; i < LOOK_AHEAD; i++) {
		code = look_at(b, &piece, off, &n);
		if (!code || insn_decode(&insn, code, n, decode_mode(b)) != INSN_OK)
			break;
		lite_use(&insn, &use);
		if (code >= b->page && code < b->page + 4096)
			depends(b, off, off + insn.len);
		read |= use.fl_read & unset;
		unset &= ~use.fl_write;
		if (!unset)
			return read;
		if ((insn.mnemonic == MN_JMP_NEAR || insn.mnemonic == MN_CALL_NEAR) && insn.op[0].kind == OPK_REL && insn.opsize >= 4)
			off += insn.len + (s32)insn.imm;
		else if (insn.mnemonic == MN_JCC || jit_ends(&insn))
			break;
		else
			off += insn.len;
	}
	return read | unset;
}

static s32 target_of(const struct jit_insn *j)
{
	return (s32)(j->off + j->insn.len + (s64)j->insn.imm);
}

/* What the page behind the block's begins with, 16 bytes of it. False: it is not known. */
static bool next_bytes(const struct jit_block *b, u8 *bytes)
{
	struct lite_vcpu *c = b->c;
	/* RIP is in the block's page, whoever asks for it. */
	u64 next = (((c->vcpu.x86.rip + c->cs_base) & PAGE_MASK_) + 4096) & c->rip_mask;
	const struct lite_exec_entry *x = &c->view->x[(next >> 12) % LITE_XTLB_SIZE];

	if ((b->mode & LITE_MODE_TEXT) && lite_text_bytes(c, b->va + 4096, bytes, 16))
		return true;
	return x->tag == next && !host_copy_from_client(bytes, (u64)x->host, 16);
}

/* Decodes the instruction at the end of the page as one that goes on in the next. */
static bool decode_across(struct jit_block *b, struct jit_insn *j, unsigned off)
{
	u8 bytes[16 + INSN_MAX_LEN];
	unsigned here = 4096 - off, there;
	struct jit_cross *cross;

	if (here >= INSN_MAX_LEN)
		return false;
	memcpy(bytes, b->page + off, here);
	if (!next_bytes(b, bytes + here) || insn_decode(&j->insn, bytes, INSN_MAX_LEN, decode_mode(b)) != INSN_OK)
		return false;
	there = j->insn.len - here;
	cross = lite_arena_alloc(b->lvm, sizeof(*cross));
	if (!cross)
		return false;
	memset(cross, 0, sizeof(*cross));
	memcpy(cross->bytes, bytes + here, there);
	memset(cross->mask, 0xff, there);
	j->cross = cross;
	return true;
}

static void decode(struct jit_block *b, unsigned off)
{
	while (b->n < (b->checked ? JIT_CHECKED_INSNS : JIT_MAX_INSNS) && off < 4096) {
		struct jit_insn *j = &b->insns[b->n];

		j->given = NULL;
		j->reads_imm = false;
		j->cross = NULL;
		if (insn_decode(&j->insn, b->page + off, MIN(4096 - off, INSN_MAX_LEN), decode_mode(b)) != INSN_OK &&
		    (b->checked || !decode_across(b, j, off))) {
			j->insn.len = 0;
			j->off = off;
			j->live = LITE_FL_ALL;
			b->n++;
			depends(b, off, MIN(off + INSN_MAX_LEN, 4096U));
			return;
		}
		lite_use(&j->insn, &j->use);
		j->off = off;
		b->n++;
		off += j->insn.len;
		depends(b, j->off, MIN(off, 4096U));
		if (jit_ends(&j->insn) || (b->checked && jit_check_ends(j)))
			return;
	}
}

static bool may_fault(const struct jit_insn *j)
{
	return j->insn.has_mem ? j->insn.mem.access : j->use.implied_mem;
}

static void find_live(struct jit_block *b)
{
	const struct jit_insn *last = &b->insns[b->n - 1];
	u8 live = LITE_FL_ALL;

	if (last->insn.len) {
		if (!jit_ends(&last->insn))
			live = live_at(b, last->off + last->insn.len);
		else if ((last->insn.mnemonic == MN_JMP_NEAR || last->insn.mnemonic == MN_CALL_NEAR) && last->insn.op[0].kind == OPK_REL)
			live = live_at(b, target_of(last));
	}
	for (unsigned i = b->n; i-- > 0;) {
		struct jit_insn *j = &b->insns[i];

		if (!j->insn.len)
			continue;
		if (j->insn.mnemonic == MN_JCC)
			live |= live_at(b, target_of(j));
		j->live = live = j->use.fl_read | (live & ~j->use.fl_write);
		if (may_fault(j) && j->use.fl_may && !(b->mode & LITE_MODE_TEXT))
			j->live = live = LITE_FL_ALL;
	}
}

/* Whether the block ends by the jump cache, whatever comes. */
static bool ends_by_cache(const struct jit_block *b)
{
	const struct jit_insn *last = &b->insns[b->n - 1];
	s32 to = last->off + last->insn.len;

	if (b->checked || !last->insn.len)
		return false;
	switch (last->insn.mnemonic) {
	case MN_RET_NEAR:
		return true;
	case MN_JMP_NEAR: case MN_CALL_NEAR:
		if (last->insn.op[0].kind != OPK_REL)
			return true;
		to = target_of(last);
		break;
	default:
		if (jit_ends(&last->insn))
			return false;
	}
	return (to < 0 || to >= 4096) && !(b->mode & LITE_MODE_TEXT);
}

/* From which instruction on the flags may be kept in memory until the block ends. */
static void find_keep(struct jit_block *b)
{
	unsigned after;

	b->keep_from = b->n;
	if (!ends_by_cache(b))
		return;
	while (b->keep_from) {
		const struct jit_insn *j = &b->insns[b->keep_from - 1];

		if (j->use.fl_read || j->use.fl_may || j->cross || lite_fast_lookup(&j->insn, &after))
			return;
		b->keep_from--;
	}
}

/* What came of it, all (rw). */
struct jit_made {
	u8 *hot, *end, *cold, *cold_end;
	u8 *indirect, *direct, *dead;
};

/* From the jump cache: is T0 really the address that this block is for, and does anybody want the vCPU? */
static void emit_indirect(struct jit_block *b)
{
	struct lite_emit *e = &b->e;
	s32 view = jit_view(b->view);

	e_op_mx(e, true, 0x3b, T0, HOST_RSP, T1, 3, view + (s32)offsetof(struct lite_view, jit[0].va)); /* cmp T0, va */
	e_jcc_to(e, CC_NE, b->jit->jump_miss[b->view]);
	e_op_m(e, false, 0x83, 7, HOST_RSP, VCPU(budget)); /* cmp dword, 0 */
	e_u8(e, 0);
	e_jcc_to(e, CC_S, b->jit->poll_kept);
	e_lea(e, !b->is32, T1, T0, -(s32)b->insns[0].off);
	e_store(e, true, T1, HOST_RSP, VCPU(vpage));
	if (b->lvm->no_links || b->live_in)
		jit_flags_from(e, T1, VCPU(fl));
}

static const u8 nops[9][8] = {
	{ 0 }, { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 }, { 0x0f, 0x1f, 0x40, 0 }, { 0x0f, 0x1f, 0x44, 0, 0 }, { 0x66, 0x0f, 0x1f, 0x44, 0, 0 },
	{ 0x0f, 0x1f, 0x80, 0, 0, 0, 0 }, { 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0 },
};

u8 *jit_entry_nop(struct lite_emit *e)
{
	u8 *at;

	e_bytes(e, nops[-(uintptr_t)e->p & 7], -(uintptr_t)e->p & 7);
	at = e->p;
	e_bytes(e, nops[8], 8);
	return at;
}

static void emit(struct jit_block *b, struct jit_made *made)
{
	struct lite_emit *e = &b->e;
	u8 *start = e->p, *first;

	b->cur = NULL;
	made->indirect = e->p;
	if (!b->c->jit.linking)
		emit_indirect(b);
	made->direct = jit_entry_nop(e);
	first = e->p;
	if (b->checked)
		jit_emit_check(b);
	else if (jit_windowed(b))
		jit_window_begin(b);
	for (unsigned i = 0; i < b->n && !b->ended; i++) {
		b->cur = &b->insns[i];
		b->i = i;
		b->sites[b->nsites++] = (struct lite_jit_site){ (u16)((i ? e->p : first) - start), b->cur->off, b->cur->live };
		if (!b->cur->insn.len) {
			e_store_imm(e, false, HOST_RSP, VCPU(jit.site), b->cur->off);
			e_call_m(e, HOST_RSP, VCPU(jit.fn[LITE_JIT_EMULATE]));
			b->sites[b->nsites - 1].guest |= JIT_SITE_EMULATED;
			b->ended = true;
		} else {
			if (b->kept || (i >= b->keep_from && b->cur->live && may_fault(b->cur)))
				jit_keep_flags(b);
			if (b->cur->cross)
				jit_emit_cross(b);
			jit_emit_insn(b);
			jit_group_step(b);
		}
	}
	if (!b->ended)
		jit_emit_goto(b, b->cur->off + b->cur->insn.len);
	made->end = e->p;
	e->p = made->cold;
	e->end = made->cold + LITE_JIT_BLOCK_MAX;
	if (b->c->jit.linking) {
		made->indirect = e->p;
		emit_indirect(b);
		e_jmp_to(e, made->direct);
	}
	for (unsigned i = 0; i < b->ncold; i++) {
		struct jit_cold *cold = &b->cold[i];

		e_here(e, cold->from);
		if (cold->kind == COLD_MISS)
			jit_emit_miss(b, cold);
		else if (cold->kind == COLD_SLOT || cold->kind == COLD_ALONE)
			jit_emit_window(b, cold);
		else
			jit_emit_cold(b, cold);
	}
	if (b->checked)
		jit_emit_check_differs(b);
	made->dead = e->p;
	e_store_imm(e, false, HOST_RSP, VCPU(jit.site), b->insns[0].off);
	e_call_m(e, HOST_RSP, VCPU(jit.fn[LITE_JIT_DEAD]));
	made->cold_end = e->p;
}

/* Behind a call of LITE_JIT_LINK stand eight bytes of data. */
static void log_host(const u8 *p, const u8 *end)
{
	struct insn insn;
	const u8 *q;

	while (p < end) {
		bool link = false;

		for (q = p; q < end && !link; q += insn.len) {
			if (insn_decode(&insn, q, MIN((unsigned)(end - q), INSN_MAX_LEN), MODE_64) != INSN_OK)
				insn.len = (u8)MIN(end - q, 255);
			else
				link = insn.mnemonic == MN_CALL_NEAR && insn.has_mem && insn.mem.disp == VCPU(jit.fn[LITE_JIT_LINK]);
		}
		lite_log_code(p, (size_t)(q - p), (u64)(uintptr_t)p, MODE_64);
		if (link)
			lite_log("0x%08llx:  .quad\n", (unsigned long long)(uintptr_t)q);
		p = q + (link ? 8 : 0);
	}
}

/* RIP is where the block begins, whoever asks for it. */
static void log_block(const struct jit_block *b, const struct lite_jit_code *code)
{
	const struct lite_vcpu *c = b->c;
	u64 page = (c->vcpu.x86.rip + c->cs_base) & c->rip_mask & PAGE_MASK_;

	if (lite_log_wants(LITE_LOG_IN_ASM)) {
		lite_log("IN: 0x%llx, mode 0x%x\n", (unsigned long long)(page + b->insns[0].off), b->mode);
		for (unsigned i = 0; i < b->nsites; i++)
			if (b->insns[i].insn.len)
				lite_log_insn(&b->insns[i].insn, page + b->insns[i].off);
		lite_log("\n");
	}
	if (lite_log_wants(LITE_LOG_OUT_ASM)) {
		lite_log("OUT: for 0x%llx, %u + %u bytes\n", (unsigned long long)(page + b->insns[0].off), code->size, code->cold_size);
		log_host(code->hot, code->hot + code->size);
		log_host(code->cold, code->cold + code->cold_size);
		lite_log("\n");
	}
}

/* As jit_verify counts. */
static u32 offset(const struct jit_made *m, const u8 *p)
{
	return (u32)(p >= m->cold && p < m->cold_end ? (m->end - m->hot) + (p - m->cold) : p - m->hot);
}

static bool verified(const struct jit_block *b, const struct jit_made *m)
{
	struct jit_verify v = {
		.lands = b->host_call ? offset(m, b->host_call) : 0, .tail = b->tail, .tail_t0 = b->tail && b->cur->insn.op[0].kind != OPK_REL,
		.loop = b->loop ? offset(m, b->loop) : 0, .mode = b->mode, .code = m->hot, .size = (u32)(m->end - m->hot),
		.cold = m->cold, .cold_size = (u32)(m->cold_end - m->cold), .indirect = offset(m, m->indirect), .direct = offset(m, m->direct),
		.dead = offset(m, m->dead), .is_block = true,
		.view = b->view, .fpu_usable = b->fpu_usable, .jump_miss = b->jit->jump_miss[b->view], .poll = b->jit->poll, .poll_kept = b->jit->poll_kept,
		.insns = b->insns, .n = b->n,
	};

	return likely(!lite_options.verify) || jit_verified(b->lvm, &v, "a block");
}

/* Decodes and emits the block at @off. */
static void translate(struct jit_block *b, unsigned off, struct jit_made *made)
{
	b->e = (struct lite_emit){ made->hot, made->hot + LITE_JIT_BLOCK_MAX, b->jit->room.rx - b->jit->room.rw, false };
	b->from = b->to = off;
	decode(b, off);
	if (b->checked && !b->no_imm)
		jit_check_plan(b);
	find_live(b);
	find_keep(b);
	/* When the code is found to be another, that may need flags that this does not. */
	b->live_in = b->checked ? LITE_FL_ALL : b->insns[0].live;
	emit(b, made);
}

struct lite_jit_code *lite_jit_translate(struct lite_vcpu *c, const struct lite_page *in, const u8 *page, u32 mode, u64 va, unsigned off,
					 u16 *from, u16 *to)
{
	bool checked = in->checked;
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	struct lite_jit *jit = lvm->jit;
	struct jit_block *b = c->jit.block;
	struct lite_jit_code *code;
	struct jit_made made;
	u64 began;

	if (!jit_room(lvm, &made.hot, &made.cold))
		return NULL;
	began = stats_now(&lvm->vm);
	if (!b) {
		b = c->jit.block = host_zalloc_pages(sizeof(*b));
		if (!b)
			return NULL;
	}
	for (bool again = false, placed = false;;) {
		memset(b, 0, offsetof(struct jit_block, insns));
		b->c = c;
		b->lvm = lvm;
		b->jit = jit;
		b->page = page;
		b->in = in;
		b->va = va;
		b->mode = mode;
		b->is32 = (b->mode & 7) != X86_MODE_LONG;
		b->view = !!(b->mode & LITE_MODE_USER);
		b->fpu_usable = b->mode >> LITE_MODE_FPU_SHIFT & LITE_MODE_FPU_BITS;
		b->checked = checked;
		/* Groups that reach over the end of a page are nothing with a window. */
		b->no_groups = checked || (b->mode & LITE_MODE_ALONE) || (c->jit.apart && !jit_windowed(b));
		b->no_imm = again;
		b->guessed = 0xffff;
		b->delta = b->first_delta = JIT_SLOT_NONE;
		memcpy(b->guess, c->vcpu.x86.gpr, sizeof(b->guess));
		translate(b, off, &made);
		if (b->imm_failed) {
			again = true;
		} else if (b->loop && !placed && ((uintptr_t)b->loop & (JIT_LINE - 1))) {
			/* Only what is emitted tells where the loop begins */
			made.hot += -(uintptr_t)b->loop & (JIT_LINE - 1);
			placed = true;
		} else {
			break;
		}
	}
	if (b->e.full || !verified(b, &made))
		return NULL;
	code = lite_arena_alloc(lvm, sizeof(*code) + b->nsites * sizeof(code->sites[0]));
	if (!code)
		return NULL;
	code->hot = e_rx(&b->e, made.hot);
	code->size = (u32)(made.end - made.hot);
	code->cold = e_rx(&b->e, made.cold);
	code->cold_size = (u32)(made.cold_end - made.cold);
	code->indirect = e_rx(&b->e, made.indirect);
	code->direct = e_rx(&b->e, made.direct);
	code->loop = b->loop ? e_rx(&b->e, b->loop) : NULL;
	code->dead = made.dead;
	code->lands = b->lands;
	code->call = b->call;
	code->back = b->back;
	code->landing = NULL;
	code->paired = false;
	code->live_in = b->live_in;
	code->nr_sites = b->nsites;
	code->edges = NULL;
	code->runs = code->crossings = 0;
	code->vectors = false;
	for (unsigned i = 0; i < b->n; i++)
		code->vectors |= b->insns[i].insn.state != INSN_STATE_NONE;
	memcpy(code->sites, b->sites, b->nsites * sizeof(code->sites[0]));
	code->bytes = NULL;
	if (checked) {
		code->nr_bytes = b->to - b->from;
		code->bytes = lite_arena_alloc(lvm, 2 * code->nr_bytes);
		if (!code->bytes)
			return NULL;
		jit_check_bytes(b, code->bytes);
		c->count.jit_checked++;
	}
	jit_commit(lvm, code);
	*from = b->from;
	*to = b->to;
	c->count.jit_blocks++;
	c->count.jit_insns += b->nsites;
	c->count.translate_ticks += stats_now(&lvm->vm) - began;
	if (unlikely(lite_log_wants(LITE_LOG_IN_ASM | LITE_LOG_OUT_ASM)))
		log_block(b, code);
	return code;
}
