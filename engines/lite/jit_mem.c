/*
 * The translator's memory accesses, and why they reach guest memory only.
 *
 * Translated code touches memory in two ways. [RSP + constant] and [RSP + T1 * 8 + constant], where RSP is the vCPU and the
 * constant an offset of one of its fields or tables, T1 an index that has just been made of as many bits as the table has
 * entries (jit.h). And [T0], after this check (without flags that anybody needs):
 *
 *	rorx T1, T0, 10
 *	and  T1d, page number bits	index
 *	sub  T0, tag[T1]		offset in the page, if it is the right one
 *	cmp  T0, 4096 - size
 *	ja   miss			unsigned: another page, and an access across the page's end
 *	add  T0, host[T1]
 *
 * tag[] and host[] are written by lite_translate() only, from a memslot, and every entry names a whole page of it. So whatever the guest
 * put into its registers, the access lies within one page that it may touch. Nothing comes between the check and the access that could change T0, for both
 * are emitted here and by the one instruction behind; nothing jumps between them, for guest jumps lead to instructions' beginnings only;
 * and entries are taken back by the vCPU's own thread alone, or while it is known to be outside of translated code.
 *
 * Accesses with the same registers that lie close together are checked together, as one of all their bytes; T2 then keeps the host address
 * of the first, and they are [T2 + constant]. T2 is given up when one of the registers is written (but for RSP, whose way is followed) or
 * when T2 is wanted, and whoever comes back from C finds it only if no TLB entry was taken back meanwhile.
 *
 * When the flags are needed later, RCX is lent for the same check made of instructions that leave them alone.
 *
 * User code whose address space has a window (window.h; LITE_MODE_WINDOW) has it shorter: to the address, in T0 or T2, the distance of
 * its slot is added,
 *
 *	rorx X, T1, 42			slot, in the low byte
 *	cmp  T1b, slot			that it was when this was translated
 *	jne  other
 *	add  X, delta[slot]
 *
 * or, where the flags are needed, the slot is another one or none was guessed,
 *
 *	movzx T1, T1b
 *	mov  T1, delta[T1]
 *	lea  X, [X + T1]
 *
 * The sum is an address in a slot that is reserved for this vCPU, or one that is not canonical: delta[] sees to that for all values of the eight bits, and bits
 * above them that are not zero stay what they are. [X + constant], less than LITE_WINDOW_SPAN away, then reaches a page of the guest's or faults.
 */
#include "engines/lite/jit.h"
#include "engines/lite/window.h"

bool jit_known_address(const struct jit_block *b, s64 off, s32 *imm)
{
	s64 va = (s64)b->va + off;

	*imm = (s32)va;
	return (b->mode & LITE_MODE_TEXT) && va == *imm;
}

bool jit_ea(struct jit_block *b, const struct insn *insn, unsigned to, bool w, bool with_seg)
{
	const struct insn_mem *m = &insn->mem;
	struct lite_emit *e = &b->e;
	bool seg = with_seg && (m->seg == SEG_FS || m->seg == SEG_GS);
	unsigned base = m->base, index = m->index, shift;
	unsigned out = seg ? T0 : to;
	s64 disp = m->disp;
	s32 known;

	if (m->vsib || (insn->addrsize != 8 && insn->addrsize != 4))
		return false;
	/* A code segment is never writable. */
	if (b->is32 && m->seg == SEG_CS && (m->access & OPA_WRITE))
		return false;
	if (m->rip_rel) {
		disp += b->cur->off + insn->len;
		if (disp != (s32)disp)
			return false;
		if (w && jit_known_address(b, disp, &known)) {
			e_mov_imm32(e, out, known);
		} else {
			e_load(e, true, T0, HOST_RSP, VCPU(vpage));
			e_lea(e, w, out, T0, disp);
		}
	} else if (base == INSN_REG_NONE && index == INSN_REG_NONE && seg && w && disp == (s32)disp) {
		e_load(e, true, T0, HOST_RSP, jit_seg_base(m->seg));
		e_lea(e, true, to, T0, (s32)disp);
		return true;
	} else if (base == INSN_REG_NONE && index == INSN_REG_NONE) {
		e_mov_imm64(e, out, w ? (u64)disp : (u32)disp);
	} else {
		shift = index == INSN_REG_NONE ? 0 : __builtin_ctz(m->scale ? m->scale : 1);
		if (disp != (s32)disp)
			return false;
		if (base != INSN_REG_NONE) {
			if (jit_displaced(base)) {
				e_load(e, true, T0, HOST_RSP, VCPU_GPR(base));
				base = T0;
			} else {
				base = jit_reg(base);
			}
		}
		if (index != INSN_REG_NONE) {
			if (jit_displaced(index)) {
				e_load(e, true, T1, HOST_RSP, VCPU_GPR(index));
				index = T1;
			} else {
				index = jit_reg(index);
			}
		}
		if (base == INSN_REG_NONE) {
			e_op_index(e, w, 0x8d, out, index, shift, (s32)disp);
		} else if (index == INSN_REG_NONE) {
			if (disp || !w)
				e_lea(e, w, out, base, disp);
			else if (base != out)
				e_mov(e, true, out, base);
		} else {
			e_op_mx(e, w, 0x8d, out, base, index, shift, disp);
		}
	}
	if (seg) {
		e_load(e, true, T1, HOST_RSP, jit_seg_base(m->seg));
		e_op_mx(e, !b->is32, 0x8d, to, T0, T1, 0, 0);
	}
	return true;
}

static struct jit_cold *check(struct jit_block *b, unsigned size, bool write)
{
	struct lite_emit *e = &b->e;
	s32 tags = jit_tags(b->view, write), hosts = jit_hosts(b->view, write);
	struct jit_cold *cold;
	u8 *hit, *miss;
	bool busy = b->t2_busy || b->group.active;

	jit_tlb_index(e, b->cur->live);
	if (!b->cur->live) {
		e_op_mx(e, true, 0x2b, T0, HOST_RSP, T1, 3, tags);	/* sub T0, tag */
		e_bytes(e, "\x49\x81\xf8", 3);				/* cmp T0, imm32 */
		e_u32(e, 4096 - size);
		miss = e_jcc(e, CC_A);
		cold = jit_cold(b, COLD_MISS, miss);
		e_op_mx(e, true, 0x03, T0, HOST_RSP, T1, 3, hosts);	/* add T0, host */
		cold->back = e->p;
	} else {
		/* ~tag + T0 + 1 is the offset; that of the last byte must have no bits above 11 (see LITE_TLB_NONE). */
		if (busy)
			e_store(e, true, REG_CX, HOST_RSP, VCPU(jit.save));
		else
			e_mov(e, true, T2, REG_CX);
		e_op_mx(e, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags);
		e_bytes(e, "\x48\xf7\xd1", 3); /* not rcx */
		e_op_mx(e, true, 0x8d, T0, T0, REG_CX, 0, 1);
		e_lea(e, true, REG_CX, T0, size - 1);
		e_store(e, true, REG_CX, HOST_RSP, VCPU(jit.sum));
		e_u8(e, 0xb8 | REG_CX);
		e_u32(e, 12);
		e_shiftx_m(e, E_SHRX, REG_CX, HOST_RSP, VCPU(jit.sum), REG_CX);
		hit = e_jrcxz(e);
		miss = e_jmp(e);
		e_here8(e, hit);
		if (busy)
			e_load(e, true, REG_CX, HOST_RSP, VCPU(jit.save));
		else
			e_mov(e, true, REG_CX, T2);
		e_op_mx(e, true, 0x8b, T1, HOST_RSP, T1, 3, hosts);
		e_op_mx(e, true, 0x8d, T0, T0, T1, 0, 0);
		cold = jit_cold(b, COLD_MISS, miss);
		cold->flags = true;
		cold->t2_busy = busy;
		cold->back = e->p;
	}
	cold->size = size;
	cold->write = write;
	cold->kept = b->kept;
	cold->masked = b->cur && lite_faults_itself(&b->cur->insn);
	return cold;
}

void jit_access(struct jit_block *b, unsigned size, bool write)
{
	if (jit_windowed(b))
		jit_window(b, T0, NULL, false);
	else
		check(b, size, write);
}

/* ---- accesses checked together ------------------------------------------------------------------------------------------ */

bool jit_key_of(const struct jit_insn *j, struct jit_key *key, s64 *disp)
{
	const struct insn_mem *m = &j->insn.mem;

	if (m->vsib || (m->base == INSN_REG_NONE && m->index == INSN_REG_NONE && !m->rip_rel))
		return false;
	*disp = m->disp + (m->rip_rel ? j->off + j->insn.len : 0);
	*key = (struct jit_key){ m->rip_rel ? JIT_BASE_PAGE : m->base, m->index, m->index == INSN_REG_NONE ? 0 : m->scale,
				 m->seg == SEG_FS || m->seg == SEG_GS ? m->seg : 0 };
	return *disp == (s32)*disp;
}

static bool same_key(const struct jit_key *a, const struct jit_key *b)
{
	return a->base == b->base && a->index == b->index && a->scale == b->scale && a->seg == b->seg;
}

static bool is_rsp(const struct jit_key *key)
{
	return key->base == REG_SP && key->index == INSN_REG_NONE;
}

bool jit_reg_change(const struct jit_block *b, const struct jit_insn *j, unsigned reg, s64 *change)
{
	const struct insn *insn = &j->insn;
	s32 size = b->is32 ? 4 : 8;
	bool sp = reg == REG_SP;

	*change = 0;
	if (!(j->use.write & (1U << reg)))
		return true;
	switch (insn->mnemonic) {
	case MN_PUSH:
		*change = -size;
		return sp && !insn->pfx66;
	case MN_POP:
		*change = size;
		return sp && !insn->pfx66 && insn->op[0].kind == OPK_GPR && insn->op[0].reg != REG_SP;
	case MN_ADD: case MN_SUB:
		*change = insn->mnemonic == MN_ADD ? (s64)insn->imm : -(s64)insn->imm;
		return insn->opsize == size && insn->op[0].kind == OPK_GPR && insn->op[0].reg == reg && insn->op[1].kind == OPK_IMM &&
		       *change == (s32)*change;
	case MN_INC: case MN_DEC:
		*change = insn->mnemonic == MN_INC ? 1 : -1;
		return insn->opsize == size && insn->op[0].kind == OPK_GPR;
	case MN_LEA:
		*change = insn->mem.disp;
		return insn->opsize == size && insn->op[0].reg == reg && insn->mem.base == reg && insn->mem.index == INSN_REG_NONE;
	default:
		return false;
	}
}

static bool writes_key(const struct jit_insn *j, const struct jit_key *key)
{
	return (key->base < 16 && (j->use.write >> key->base & 1)) || (key->index < 16 && (j->use.write >> key->index & 1));
}

struct ahead {
	s32 lo, hi;
	bool write, windowed;
	unsigned n;
};

/* One more access at @disp. False: the group ends before it. */
static bool take(struct ahead *a, s64 disp, unsigned size, bool write, bool branched)
{
	s64 lo = MIN((s64)a->lo, disp), hi = MAX((s64)a->hi, disp + size);

	/* A page is not to become dirty for a store that may not come. */
	if (hi - lo > (a->windowed ? LITE_WINDOW_SPAN : JIT_GROUP_MAX) || (write && branched && !a->windowed))
		return false;
	a->lo = (s32)lo;
	a->hi = (s32)hi;
	a->write |= write;
	a->n++;
	return true;
}

/* Which of the accesses behind the one of cur belong together with it. */
static void look_ahead(const struct jit_block *b, const struct jit_key *key, struct ahead *a)
{
	s32 size = b->is32 ? 4 : 8;
	s64 rsp = b->rsp, change;
	bool branched = false;

	for (unsigned i = b->i; i < b->n; i++) {
		const struct jit_insn *j = &b->insns[i];
		const struct insn *insn = &j->insn;
		struct jit_key other;
		s64 disp;

		if (!insn->len)
			return;
		if (i != b->i) {
			if (insn->has_mem && insn->mem.access && insn->mem.size && insn->mem.size <= 64 && insn->addrsize == (unsigned)size &&
			    jit_key_of(j, &other, &disp) && same_key(key, &other) &&
			    !take(a, disp + (is_rsp(key) ? rsp : 0), insn->mem.size, insn->mem.access & OPA_WRITE, branched))
				return;
			if (is_rsp(key) && (insn->mnemonic == MN_PUSH || insn->mnemonic == MN_CALL_NEAR) &&
			    !take(a, rsp - size, size, true, branched))
				return;
			if (is_rsp(key) && (insn->mnemonic == MN_POP || insn->mnemonic == MN_RET_NEAR) && !take(a, rsp, size, false, branched))
				return;
		}
		if (jit_ends(insn))
			return;
		branched |= insn->mnemonic == MN_JCC;
		if (is_rsp(key)) {
			if (!jit_reg_change(b, j, REG_SP, &change))
				return;
			rsp += change;
		} else if (writes_key(j, key)) {
			return;
		}
	}
}

/*
 * The access at @disp: by what is known of the window, by the group, or a new one, or alone. It is @insn's operand, @raw its displacement;
 * NULL: RSP + @raw.
 */
static bool grouped(struct jit_block *b, const struct insn *insn, const struct jit_key *key, s64 disp, s32 raw, unsigned size, bool write,
		    struct jit_place *place)
{
	struct jit_group *g = &b->group;
	struct ahead a = { (s32)disp, (s32)disp + (s32)size, write, jit_windowed(b), 0 };
	bool w = insn ? insn->addrsize == 8 : !b->is32, start = false;
	struct jit_cold *cold;
	s32 more = 0;
	unsigned x;

	if (key && disp == (s32)disp) {
		if (a.windowed && jit_window_place(b, key, raw, size, insn && lite_is_masked(insn), place))
			return true;
		if (g->active && same_key(&g->key, key) && disp >= g->lo && disp + size <= g->hi && (!write || g->write)) {
			*place = (struct jit_place){ T2, (s32)disp - g->lo, .gs = false };
			return true;
		}
		if (!b->no_groups && !b->t2_busy && b->delta == JIT_SLOT_NONE) {
			look_ahead(b, key, &a);
			start = a.n;
		}
	}
	if (start)
		jit_group_end(b);
	x = start && a.windowed ? T2 : T0;
	/* The address is the group's at once, if that is as long. */
	if (start && !a.windowed && raw + (a.lo - disp) == (s32)(raw + (a.lo - disp)))
		more = (s32)(a.lo - disp);
	if (!insn) {
		e_lea(&b->e, w, x, GSP, raw + more);
	} else {
		struct insn moved = *insn;

		moved.mem.disp += more;
		if (!jit_ea(b, &moved, x, w, true))
			return false;
	}
	if (a.windowed) {
		if (start && disp != a.lo)
			e_lea(&b->e, true, x, x, (s32)(a.lo - disp));
		jit_window(b, x, insn, true);
		if (start)
			*g = (struct jit_group){ true, true, *key, a.lo, a.hi };
		*place = (struct jit_place){ x, start ? (s32)disp - a.lo : 0, .gs = false };
		return true;
	}
	if (!start) {
		check(b, size, write);
		*place = (struct jit_place){ T0, 0, .gs = false };
		return true;
	}
	if (disp + more != a.lo)
		e_lea(&b->e, !b->is32, T0, T0, (s32)(a.lo - disp));
	cold = check(b, (unsigned)(a.hi - a.lo), a.write);
	cold->group = true;
	cold->masked = a.write && !write; /* the store comes later: its page is not to become dirty now */
	e_mov(&b->e, true, T2, T0);
	*g = (struct jit_group){ true, a.write, *key, a.lo, a.hi };
	*place = (struct jit_place){ T2, (s32)disp - a.lo, .gs = false };
	return true;
}

bool jit_operand(struct jit_block *b, const struct insn *insn, unsigned size, bool write, struct jit_place *place)
{
	struct jit_key key;
	s64 disp;
	s32 raw;
	bool can = insn->addrsize == (b->is32 ? 4 : 8) && jit_key_of(b->cur, &key, &disp);

	raw = can ? (s32)disp : 0;
	if (can && is_rsp(&key))
		disp += b->rsp;
	return grouped(b, insn, can ? &key : NULL, can ? disp : 0, raw, size, write, place);
}

void jit_stack(struct jit_block *b, s32 disp, unsigned size, bool write, struct jit_place *place)
{
	static const struct jit_key rsp = { REG_SP, INSN_REG_NONE, 0, 0 };

	grouped(b, NULL, &rsp, (s64)b->rsp + disp, disp, size, write, place);
}

void jit_group_step(struct jit_block *b)
{
	struct jit_group *g = &b->group;
	s64 change;

	if (jit_windowed(b))
		jit_window_step(b);
	if (!jit_reg_change(b, b->cur, REG_SP, &change) || (s64)b->rsp + change != (s32)(b->rsp + change)) {
		b->rsp = 0;
		if (g->key.base == REG_SP)
			jit_group_end(b);
	} else {
		b->rsp += (s32)change;
	}
	if (g->active && !is_rsp(&g->key) && writes_key(b->cur, &g->key))
		jit_group_end(b);
}

void jit_emit_miss(struct jit_block *b, const struct jit_cold *cold)
{
	struct lite_emit *e = &b->e;
	s32 tags = jit_tags(b->view, cold->write);
	enum lite_jit_fn fn = cold->group ? LITE_JIT_GROUP : LITE_JIT_MISS;

	/* T0 back from an offset to the address. */
	if (cold->flags) {
		e_op_mx(e, true, 0x8b, REG_CX, HOST_RSP, T1, 3, tags);
		e_op_mx(e, true, 0x8d, T0, T0, REG_CX, 0, 0);
		if (cold->t2_busy)
			e_load(e, true, REG_CX, HOST_RSP, VCPU(jit.save));
		else
			e_mov(e, true, REG_CX, T2);
	} else {
		e_op_mx(e, true, 0x03, T0, HOST_RSP, T1, 3, tags);
	}
	e_store_imm(e, false, HOST_RSP, VCPU(jit.site),
		    (s32)(cold->off | (u32)cold->size << 16 | (cold->masked ? JIT_MISS_APART : 0) | (cold->write ? JIT_MISS_WRITE : 0)));
	if (cold->kept)
		fn = cold->group ? LITE_JIT_GROUP_KEPT : LITE_JIT_MISS_KEPT;
	e_call_m(e, HOST_RSP, VCPU(jit.fn[fn]));
	e_jmp_to(e, cold->back);
}
