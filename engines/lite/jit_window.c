/*
 * Accesses of user code that has a window (window.h): what jit_mem.c says of them at its beginning, and how they need no look at all.
 *
 * GS reaches one slot, or two at the same distance, which is where nearly everything lies. An operand there is itself with GS before it, once its
 * address is known to be no further than LITE_WINDOW_SPAN from the slot:
 *
 *	lea  T0, [base + index * scale + center]	or the base register itself
 *	rorx T1, T0, 42
 *	cmp  T1b, slot
 *	jne  alone
 *	...
 *	mov  RAX, GS:[base + index * scale + disp]
 *
 * In the one other slot that a block has to do with, T2 is the slot's distance, and the operand becomes [base + T2 + disp]; with an index
 * [T0 + T2], where T0 is all the rest. A base that is no register of the host's, R8 to R11 or the page of a RIP-relative operand, is fetched to T0.
 *
 * Where an index is known to be small (lite_below(): it was masked, say), to know of the base is enough.
 *
 * That is a fact about these registers and holds until they change. A register that moves by a constant takes its facts along, and an access that came
 * through is as good as a look: where it went memory is mapped, and none is within LITE_WINDOW_ROOM of a slot's ends. So a loop over an array
 * never looks again: the block first finds out all that it will want to know about the registers that it begins with, and when that
 * still holds, give or take JIT_LOOP_SLACK bytes, where it jumps to its own beginning, it goes to behind these instructions.
 *
 * An address that is in another slot after all is served by a block that takes each access by itself (LITE_MODE_ALONE).
 */
#include "engines/lite/jit.h"
#include "engines/lite/window.h"

/* ---- any slot ------------------------------------------------------------------------------------------------------------ */

/* The distance of T1's low byte, in register @x's address; the flags go unless @flags. */
static void add_delta(struct jit_block *b, unsigned x, bool flags)
{
	struct lite_emit *e = &b->e;

	e_bytes(e, "\x45\x0f\xb6\xc9", 4); /* movzx r9d, r9b */
	if (flags) {
		e_op_mx(e, true, 0x8b, T1, HOST_RSP, T1, 3, VCPU(jit.delta));
		e_op_mx(e, true, 0x8d, x, x, T1, 0, 0);
	} else {
		e_op_mx(e, true, 0x03, x, HOST_RSP, T1, 3, VCPU(jit.delta));
	}
}

/* CMP T1b, @slot */
static void compare_slot(struct lite_emit *e, unsigned slot)
{
	e_bytes(e, "\x41\x80\xf9", 3);
	e_u8(e, slot);
}

/*
 * Where an operand is, as far as registers are known: those that the block began with, and what became of them. Good enough for a guess at
 * its slot; an index that is not known is taken for small.
 */
static bool guess(const struct jit_block *b, const struct insn *insn, u64 *la)
{
	const struct insn_mem *m = &insn->mem;
	bool known = m->base == INSN_REG_NONE || (m->base < 16 && (b->guessed >> m->base & 1));

	if (m->vsib)
		return false;
	*la = m->disp;
	if (m->rip_rel)
		*la += (b->c->vcpu.x86.rip & PAGE_MASK_) + b->cur->off + insn->len; /* RIP is where the block begins */
	else if (m->base != INSN_REG_NONE && known)
		*la += b->guess[m->base];
	if (m->index != INSN_REG_NONE && (b->guessed >> m->index & 1))
		*la += b->guess[m->index] * (m->scale ? m->scale : 1);
	if (m->seg == SEG_FS || m->seg == SEG_GS)
		*la += b->c->vcpu.x86.seg[m->seg].base;
	return m->rip_rel || known;
}

/* The operand's slot, or the stack's; -1: not known, or none that a window has. */
static int slot_of(const struct jit_block *b, const struct insn *insn)
{
	u64 la = b->guess[REG_SP];

	if (insn ? !guess(b, insn, &la) : !(b->guessed >> REG_SP & 1))
		return -1;
	la >>= LITE_WINDOW_SHIFT;
	return la < LITE_WINDOW_SLOTS ? (int)la : -1;
}

void jit_window(struct jit_block *b, unsigned x, const struct insn *insn, bool guessed)
{
	int slot = guessed ? slot_of(b, insn) : -1;
	struct lite_emit *e = &b->e;
	struct jit_cold *cold;

	e_rorx(e, T1, x, LITE_WINDOW_SHIFT);
	if (slot < 0 || b->cur->live) {
		add_delta(b, x, b->cur->live);
		return;
	}
	compare_slot(e, (unsigned)slot);
	cold = jit_cold(b, COLD_SLOT, e_jcc(e, CC_NE));
	e_op_m(e, true, 0x03, x, HOST_RSP, VCPU(jit.delta[slot]));
	cold->reg = x;
	cold->back = e->p;
}

/* What a load of eight bytes will find, if the page is at hand. */
static bool peek(const struct jit_block *b, u64 la, u64 *value)
{
	const struct lite_tlb_page *t = lite_tlb_page(&b->c->views[b->view], la, false);

	return t->tag == (la & PAGE_MASK_) && (la & 0xfff) <= 4088 && !host_copy_from_client(value, (u64)t->host + (la & 0xfff), 8);
}

/* cur has been emitted: what its result may be. */
static void guess_step(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	const struct operand *to = &insn->op[0], *from = &insn->op[1];
	u16 write = b->cur->use.write;
	u64 la, value = 0;
	bool known = false;

	/* Pointers that are stepped stay where they were, more or less. */
	if (insn->flags & INSN_F_STACK)
		write &= ~(1U << REG_SP);
	if (!write)
		return;
	if (to->kind == OPK_GPR && to->size == 8 && to->reg < 16) {
		switch (insn->mnemonic) {
		case MN_MOV:
			if (from->kind == OPK_GPR) {
				known = b->guessed >> from->reg & 1;
				value = b->guess[from->reg];
			} else if (from->kind == OPK_IMM) {
				known = true;
				value = insn->imm;
			} else if (from->kind == OPK_MEM) {
				known = guess(b, insn, &la) && peek(b, la, &value);
			}
			break;
		case MN_POP:
			known = (b->guessed >> REG_SP & 1) && peek(b, b->guess[REG_SP], &value);
			break;
		case MN_LEA:
			known = guess(b, insn, &value);
			break;
		case MN_ADD:
			known = b->guessed >> to->reg & 1;
			value = b->guess[to->reg];
			if (known && from->kind == OPK_GPR && (b->guessed >> from->reg & 1))
				value += b->guess[from->reg];
			break;
		case MN_SUB: case MN_INC: case MN_DEC: case MN_AND:
			known = b->guessed >> to->reg & 1;
			value = b->guess[to->reg];
			break;
		}
		if (known) {
			b->guess[to->reg] = value;
			b->guessed |= 1U << to->reg;
			write &= ~(1U << to->reg);
		}
	}
	b->guessed &= ~write;
}


/* ---- facts ---------------------------------------------------------------------------------------------------------------- */

/* An index that is no register of the host's is not looked after. */
static bool can_know(const struct jit_key *key)
{
	return !key->seg && (key->index == INSN_REG_NONE || !jit_displaced(key->index));
}

static bool about(const struct jit_fact *f, const struct jit_key *key)
{
	return f->base == key->base && f->index == key->index && (f->index == INSN_REG_NONE || f->scale == key->scale);
}

static bool covers(const struct jit_fact *f, s64 disp, unsigned size)
{
	s64 far = disp - f->center;

	return (far < 0 ? -far : far) + f->slack + size <= LITE_WINDOW_SPAN;
}

/* The last byte that is @size bytes from where @key's base points, when its index is small: then the index is left out of @key. */
static unsigned without_index(struct jit_key *key, unsigned size, const u32 below[16])
{
	unsigned scale = key->scale ? key->scale : 1;
	bool small = key->base != INSN_REG_NONE && key->index != INSN_REG_NONE && below[key->index];

	if (!small || below[key->index] * scale > LITE_WINDOW_SPAN / 4)
		return size;
	size += (below[key->index] - 1) * scale;
	key->index = INSN_REG_NONE;
	return size;
}

static struct jit_fact *fact_of(struct jit_block *b, const struct jit_key *key, s64 disp, unsigned size)
{
	for (unsigned i = 0; i < b->nfacts; i++)
		if (about(&b->facts[i], key) && covers(&b->facts[i], disp, size) && (b->facts[i].slot == JIT_SLOT_GS || !b->t2_busy))
			return &b->facts[i];
	return NULL;
}

static void forget(struct jit_block *b, unsigned i)
{
	b->facts[i] = b->facts[--b->nfacts];
}

static unsigned host_of(unsigned gpr)
{
	return gpr == INSN_REG_NONE ? LITE_NO_REG : jit_reg(gpr);
}

/* The host register that the base is in: T0, when it has to be fetched. */
static unsigned base_of(struct jit_block *b, unsigned base)
{
	if (base != JIT_BASE_PAGE && (base == INSN_REG_NONE || !jit_displaced(base)))
		return host_of(base);
	e_load(&b->e, true, T0, HOST_RSP, base == JIT_BASE_PAGE ? VCPU(vpage) : VCPU_GPR(base));
	return T0;
}

/* T0 = what the fact is about; the register itself where that is it. */
static unsigned address(struct jit_block *b, const struct jit_fact *f)
{
	unsigned base = base_of(b, f->base), index = host_of(f->index), shift = f->index == INSN_REG_NONE ? 0 : __builtin_ctz(f->scale ? f->scale : 1);
	struct lite_emit *e = &b->e;

	if (index == LITE_NO_REG && !f->center)
		return base;
	if (index == LITE_NO_REG) {
		e_lea(e, true, T0, base, f->center);
	} else if (base == LITE_NO_REG) {
		e_op_index(e, true, 0x8d, T0, index, shift, f->center);
	} else {
		e_op_mx(e, true, 0x8d, T0, base, index, shift, f->center);
	}
	return T0;
}

/* Finds out that @f, whose slack is 0 then; else the rest of the block is done by another from cur on. Flags go. */
static void find_out(struct jit_block *b, struct jit_fact f, unsigned slot)
{
	struct lite_emit *e = &b->e;
	struct jit_cold *cold;

	e_rorx(e, T1, address(b, &f), LITE_WINDOW_SHIFT);
	compare_slot(e, slot);
	cold = jit_cold(b, COLD_ALONE, e_jcc(e, CC_NE));
	cold->slot = slot;
	cold->kept = b->kept;
	cold->back = e->p;
	f.slot = lite_window_by_gs(b->mode, slot) ? JIT_SLOT_GS : (u8)slot;
	f.slack = 0;
	if (b->nfacts == JIT_FACTS)
		forget(b, 0);
	b->facts[b->nfacts++] = f;
}

/* Whether an operand at about @la can be had with what is known; *@slot is where that lies. */
static bool can_reach(const struct jit_block *b, u64 la, unsigned *slot)
{
	*slot = (unsigned)MIN(la >> LITE_WINDOW_SHIFT, 255ULL);
	if (lite_window_by_gs(b->mode, *slot))
		return true;
	return (!*slot || *slot == LITE_WINDOW_EXE || *slot == LITE_WINDOW_LIB) && !b->t2_busy;
}

/* T2 = the distance of @slot. */
static void load_delta(struct jit_block *b, u8 slot)
{
	if (b->delta == slot)
		return;
	jit_group_end(b);
	e_load(&b->e, true, T2, HOST_RSP, VCPU(jit.delta[slot]));
	b->delta = slot;
}

static u64 guess_key(const struct jit_block *b, const struct jit_key *key, s64 disp)
{
	u64 la = (u64)disp;

	if (key->base == JIT_BASE_PAGE)
		la += b->c->vcpu.x86.rip & PAGE_MASK_; /* RIP is where the block begins */
	else if (key->base != INSN_REG_NONE)
		la += b->guess[key->base];
	if (key->index != INSN_REG_NONE && (b->guessed >> key->index & 1))
		la += b->guess[key->index] * (key->scale ? key->scale : 1);
	return la;
}

/* The register alone is looked at where that is near enough, for others will ask for it. */
static bool is_near(const struct jit_key *key, s64 disp)
{
	return key->base != INSN_REG_NONE && disp > -LITE_WINDOW_SPAN / 4 && disp < LITE_WINDOW_SPAN / 4;
}

/* [base + index * scale + disp] in @f's slot. */
static void place_of(struct jit_block *b, const struct jit_key *key, s32 disp, const struct jit_fact *f, struct jit_place *place)
{
	unsigned scale = key->scale ? key->scale : 1, base;

	if (f->slot != JIT_SLOT_GS)
		load_delta(b, f->slot);
	base = base_of(b, key->base);
	if (f->slot == JIT_SLOT_GS) {
		*place = (struct jit_place){ (u8)base, disp, .gs = true, .indexed = key->index != INSN_REG_NONE, .index = (u8)host_of(key->index),
					     .scale = (u8)scale };
		return;
	}
	/* T2 takes the index's place. */
	if (key->index != INSN_REG_NONE) {
		if (base == LITE_NO_REG)
			e_op_index(&b->e, true, 0x8d, T0, host_of(key->index), __builtin_ctz(scale), disp);
		else
			e_op_mx(&b->e, true, 0x8d, T0, base, host_of(key->index), __builtin_ctz(scale), disp);
		base = T0;
		disp = 0;
	}
	*place = (struct jit_place){ (u8)base, disp, .indexed = true, .index = T2, .scale = 1 };
}

bool jit_window_place(struct jit_block *b, const struct jit_key *key, s64 disp, unsigned size, bool masked, struct jit_place *place)
{
	bool known = key->base >= 16 || (b->guessed >> key->base & 1);
	struct jit_key wide = *key;
	unsigned reach, slot;
	struct jit_fact *f;

	if (b->no_groups || !can_know(key) || disp != (s32)disp)
		return false;
	reach = without_index(&wide, size, b->below);
	f = fact_of(b, key, disp, size);
	if (!f)
		f = fact_of(b, &wide, disp, reach);
	if (!f) {
		/* Where nothing is known of the register it is worth a try. */
		slot = b->mode & LITE_MODE_WINDOW_LOW ? 0 : LITE_WINDOW_EXE;
		if (b->cur->live || (known && !can_reach(b, guess_key(b, key, disp), &slot)))
			return false;
		find_out(b, (struct jit_fact){ wide.base, wide.index, wide.scale, .center = is_near(&wide, disp) ? 0 : (s32)disp }, slot);
		f = &b->facts[b->nfacts - 1];
	}
	place_of(b, key, (s32)disp, f, place);
	/* Done, it was in mapped memory. A mask may leave out everything. */
	if (!masked && f->index == key->index) {
		f->center = (s32)disp;
		f->slack = 0;
	}
	return true;
}

/* cur has been emitted: facts about registers that it changes. */
static void facts_step(struct jit_block *b)
{
	for (unsigned i = b->nfacts; i-- > 0;) {
		struct jit_fact *f = &b->facts[i];
		u16 regs = (f->base < 16 ? 1U << f->base : 0) | (f->index < 16 ? 1U << f->index : 0);
		s64 change = 0, sum = f->center;

		if (!(b->cur->use.write & regs))
			continue;
		if (f->base < 16 && jit_reg_change(b, b->cur, f->base, &change))
			sum -= change;
		else if (f->base < 16)
			sum = BIT64(40);
		if (f->index < 16 && jit_reg_change(b, b->cur, f->index, &change))
			sum -= change * (f->scale ? f->scale : 1);
		else if (f->index < 16)
			sum = BIT64(40);
		if (sum != (s32)sum)
			forget(b, i);
		else
			f->center = (s32)sum;
	}
}

void jit_window_step(struct jit_block *b)
{
	guess_step(b);
	facts_step(b);
	lite_below(&b->cur->insn, &b->cur->use, b->below);
}

/* ---- the beginning, and loops ------------------------------------------------------------------------------------------------ */

static bool jumps_to(const struct jit_block *b, const struct jit_insn *j, unsigned off)
{
	return (j->insn.mnemonic == MN_JCC || j->insn.mnemonic == MN_JMP_NEAR) && j->insn.op[0].kind == OPK_REL &&
	       j->off + j->insn.len + (s64)j->insn.imm == off;
}

/* How many of the block's instructions are in a loop: up to the last jump to its beginning. 0: there is none. */
static unsigned in_loop(const struct jit_block *b)
{
	unsigned n = b->lvm->no_links ? 0 : b->n;

	while (n && !(b->insns[n - 1].insn.len && jumps_to(b, &b->insns[n - 1], b->insns[0].off)))
		n--;
	return n;
}

/* An access of the block, @disp from what the registers of @key were when it began. */
static void wanted(struct jit_block *b, const struct jit_key *key, s64 disp, unsigned size)
{
	struct jit_fact f = { key->base, key->index, key->scale, .center = (s32)disp };
	unsigned slot, same;

	if (!can_know(key) || disp != (s32)disp || fact_of(b, key, disp, size + 2 * JIT_LOOP_SLACK) || b->nfacts == JIT_FACTS - 2)
		return;
	if (is_near(key, disp))
		f.center = 0;
	if (can_reach(b, guess_key(b, key, disp), &slot) && can_reach(b, guess_key(b, key, f.center), &same) && same == slot)
		find_out(b, f, slot);
}

void jit_window_begin(struct jit_block *b)
{
	static const struct jit_key stack = { REG_SP, INSN_REG_NONE, 0, 0 };
	unsigned size, loop = in_loop(b);
	bool known[16];
	s64 moved[16] = { 0 }, disp, change;
	u32 below[16] = { 0 };
	struct jit_key key;

	if (b->no_groups || b->insns[0].live)
		return;
	memset(known, true, sizeof(known));
	b->cur = &b->insns[0];
	for (unsigned i = 0; i < (loop ? loop : b->n) && b->insns[i].insn.len; i++) {
		const struct jit_insn *j = &b->insns[i];
		const struct insn *insn = &j->insn;

		if (insn->has_mem && insn->mem.access && insn->mem.size && insn->addrsize == 8 && jit_key_of(j, &key, &disp) && can_know(&key)) {
			size = without_index(&key, insn->mem.size, below);
			if ((key.base >= 16 || known[key.base]) && (key.index == INSN_REG_NONE || known[key.index])) {
				if (key.base < 16)
					disp += moved[key.base];
				if (key.index != INSN_REG_NONE)
					disp += moved[key.index] * (key.scale ? key.scale : 1);
				wanted(b, &key, disp, size);
			}
		}
		if (known[REG_SP] && (insn->mnemonic == MN_PUSH || insn->mnemonic == MN_CALL_NEAR))
			wanted(b, &stack, moved[REG_SP] - 8, 8);
		if (known[REG_SP] && (insn->mnemonic == MN_POP || insn->mnemonic == MN_RET_NEAR))
			wanted(b, &stack, moved[REG_SP], 8);
		/* What comes behind a branch, or a loop, may never come, and not in this slot. */
		if (jit_ends(insn) || (insn->mnemonic == MN_JCC && !loop))
			break;
		for (unsigned r = 0; r < 16; r++) {
			known[r] &= jit_reg_change(b, j, r, &change);
			moved[r] += change;
		}
		lite_below(insn, &j->use, below);
	}
	if (!loop || !b->nfacts)
		return;
	for (unsigned i = 0; i < b->nfacts; i++) {
		b->facts[i].slack = JIT_LOOP_SLACK;
		if (b->facts[i].slot != JIT_SLOT_GS && b->delta == JIT_SLOT_NONE)
			load_delta(b, b->facts[i].slot);
	}
	b->first_delta = b->delta;
	memcpy(b->first, b->facts, sizeof(b->first));
	b->nfirst = b->nfacts;
	b->loop = jit_entry_nop(&b->e);
}

bool jit_window_loop(struct jit_block *b, s32 target)
{
	struct lite_emit *e = &b->e;

	if (!b->loop || target != b->insns[0].off)
		return false;
	for (unsigned i = 0; i < b->nfirst; i++) {
		const struct jit_fact *was = &b->first[i];
		const struct jit_key key = { was->base, was->index, was->scale, 0 };
		bool holds = false;

		for (unsigned n = 0; n < b->nfacts && !holds; n++) {
			s64 far = (s64)b->facts[n].center - was->center;

			holds = about(&b->facts[n], &key) && b->facts[n].slot == was->slot && (far < 0 ? -far : far) + b->facts[n].slack <= was->slack;
		}
		if (!holds)
			return false;
	}
	if (b->first_delta != JIT_SLOT_NONE && b->delta != b->first_delta)
		e_load(e, true, T2, HOST_RSP, VCPU(jit.delta[b->first_delta]));
	e_op_m(e, false, 0x83, 7, HOST_RSP, VCPU(budget)); /* cmp dword, 0 */
	e_u8(e, 0);
	e_jcc_to(e, CC_NS, b->loop);
	e_load(e, true, T0, HOST_RSP, VCPU(vpage));
	e_lea(e, true, T0, T0, target);
	e_jmp_to(e, b->jit->poll);
	return true;
}

void jit_emit_window(struct jit_block *b, const struct jit_cold *cold)
{
	struct lite_emit *e = &b->e;
	u8 *field;

	if (cold->kind == COLD_SLOT) {
		add_delta(b, cold->reg, false);
		e_jmp_to(e, cold->back);
		return;
	}
	if (!(b->mode & LITE_MODE_WINDOW_LOW) && lite_window_by_gs(b->mode, cold->slot)) {
		compare_slot(e, cold->slot == LITE_WINDOW_EXE ? LITE_WINDOW_LIB : LITE_WINDOW_EXE);
		e_jcc_to(e, CC_E, cold->back);
	}
	if (cold->kept)
		jit_flags_from(e, T1, VCPU(fl));
	jit_align_field(b, 1);
	field = e_jmp(e);
	jit_emit_link(b, field, cold->off, JIT_LINK_ALONE);
}
