/*
 * One guest instruction to host code. Most are the same instruction with a translated address (generic()); stack, branches, LEA and bit
 * strings have code of their own; system instructions call system.h; the rest is given, decoded, to the emulator, which ends the block.
 *
 * Rule: nothing of the guest's state changes before the last access that can miss or fault, for the emulator then does the whole instruction.
 */
#include "core/x86/cpuid.h"
#include "engines/lite/jit.h"
#include "engines/lite/text.h"

/* T0 = offset @off of the page as a linear address. */
static void address_of(struct jit_block *b, unsigned to, s32 off)
{
	e_load(&b->e, true, to, HOST_RSP, VCPU(vpage));
	e_lea(&b->e, !b->is32, to, to, off);
}

/* A call of C for this instruction that does not come back here. */
static void call_end(struct jit_block *b, enum lite_jit_fn fn, unsigned off)
{
	e_store_imm(&b->e, false, HOST_RSP, VCPU(jit.site), (s32)off);
	e_call_m(&b->e, HOST_RSP, VCPU(jit.fn[fn]));
}

/* The same with @given in T0. */
static void call_with(struct jit_block *b, enum lite_jit_fn fn, const void *given)
{
	b->cur->given = given;
	b->cur->fn = fn;
	e_mov_imm64(&b->e, T0, (u64)(uintptr_t)given);
	call_end(b, fn, b->cur->off);
}

/* EDX:EAX = vcpu_read_tsc() where the guest's TSC runs at the host's rate. No flags change. */
static void read_tsc(struct jit_block *b, bool waits)
{
	struct lite_emit *e = &b->e;

	e_bytes(e, waits ? "\x0f\x01\xf9" : "\x0f\x31", waits ? 3 : 2); /* rdtscp, rdtsc */
	e_rorx(e, REG_DX, REG_DX, 32);
	e_op_mx(e, true, 0x8d, REG_DX, REG_DX, REG_AX, 0, 0); /* lea rdx, [rdx + rax] */
	e_load(e, true, T1, HOST_RSP, VCPU(vcpu.tsc_offset));
	e_op_mx(e, true, 0x8d, REG_DX, REG_DX, T1, 0, 0);
	e_mov(e, false, REG_AX, REG_DX);
	e_rorx(e, REG_DX, REG_DX, 32);
	e_mov(e, false, REG_DX, REG_DX);
	if (waits)
		e_load(e, false, REG_CX, HOST_RSP, VCPU(vcpu.x86.tsc_aux));
}

/*
 * Those that system calls, locks and clocks are made of, where they are what they are at CPL 0 in 64-bit mode. @f is what does it when there is more
 * to it: somebody wants the vCPU, or waits for IF, or the CPU has no such instruction. False: flags are in the way, or the guest's clock is another.
 * What CLI, STI and CLD do to the host's flags is made up for by way of lite_vcpu.fl, where nothing is as long as the flags are in the CPU.
 */
static bool inline_system(struct jit_block *b, const struct jit_fast *f)
{
	bool same_clock = host_tsc_khz() && !b->lvm->vm.engine->set_tsc_khz;
	s32 rflags = VCPU(vcpu.x86.rflags);
	struct jit_cold *busy, *waits;
	struct lite_emit *e = &b->e;
	bool live = b->cur->live;
	u8 *done;

	if (b->is32 || b->view || b->lvm->no_links || b->checked)
		return false;
	switch (b->cur->insn.mnemonic) {
	case MN_SWAPGS:
		e_load(e, true, T0, HOST_RSP, jit_seg_base(SEG_GS));
		e_load(e, true, T1, HOST_RSP, VCPU(vcpu.x86.kernel_gs_base));
		e_store(e, true, T1, HOST_RSP, jit_seg_base(SEG_GS));
		e_store(e, true, T0, HOST_RSP, VCPU(vcpu.x86.kernel_gs_base));
		return true;
	case MN_CLI: case MN_CLD:
		if (live)
			jit_flags_to(e, T0, VCPU(fl));
		e_op_m(e, false, 0x81, 4, HOST_RSP, rflags); /* and dword, imm32 */
		e_u32(e, ~(u32)(b->cur->insn.mnemonic == MN_CLI ? RFLAGS_IF : RFLAGS_DF));
		if (live)
			jit_flags_from(e, T0, VCPU(fl));
		return true;
	case MN_STI:
		if (live)
			jit_flags_to(e, T0, VCPU(fl));
		e_op_m(e, false, 0x83, 7, HOST_RSP, VCPU(budget)); /* cmp dword, 0 */
		e_u8(e, 0);
		busy = jit_cold(b, COLD_FAST, e_jcc(e, CC_S));
		e_op_m(e, false, 0x80, 7, HOST_RSP, VCPU(window_irq)); /* cmp byte, 0 */
		e_u8(e, 0);
		waits = jit_cold(b, COLD_FAST, e_jcc(e, CC_NE));
		e_op_m(e, false, 0xf7, 0, HOST_RSP, rflags); /* test dword, imm32 */
		e_u32(e, RFLAGS_IF);
		done = e_jcc(e, CC_NE);
		e_op_m(e, false, 0x81, 1, HOST_RSP, rflags); /* or dword, imm32 */
		e_u32(e, RFLAGS_IF);
		address_of(b, T0, b->cur->off + b->cur->insn.len);
		e_store(e, true, T0, HOST_RSP, VCPU(sti_rip));
		e_here(e, done);
		if (live)
			jit_flags_from(e, T0, VCPU(fl));
		busy->flags = waits->flags = live;
		b->cur->given = busy->given = waits->given = f;
		b->cur->fn = LITE_JIT_FAST;
		busy->back = waits->back = e->p;
		return true;
	case MN_RDTSC:
		if (!same_clock)
			return false;
		read_tsc(b, false);
		return true;
	case MN_RDTSCP:
		if (!same_clock || live)
			return false;
		e_op_m(e, false, 0xf7, 0, HOST_RSP, VCPU(vcpu.features[X86_FEATURE_WORD(X86_FEATURE_RDTSCP)])); /* test dword, imm32 */
		e_u32(e, X86_FEATURE_BIT(X86_FEATURE_RDTSCP));
		waits = jit_cold(b, COLD_FAST, e_jcc(e, CC_E));
		read_tsc(b, true);
		b->cur->given = waits->given = f;
		b->cur->fn = LITE_JIT_FAST;
		waits->back = e->p;
		return true;
	default:
		return false;
	}
}

/* One that system.h knows: the block goes on behind it when it can. */
static bool system_insn(struct jit_block *b)
{
	struct jit_fast *f;
	unsigned after;
	lite_fast_fn *fn = lite_fast_lookup(&b->cur->insn, &after);

	if (!fn)
		return false;
	f = lite_arena_alloc(b->lvm, sizeof(*f));
	if (!f)
		return false;
	f->fn = fn;
	f->after = after;
	f->insn = b->cur->insn;
	if (!inline_system(b, f)) {
		b->sites[b->nsites - 1].guest |= JIT_SITE_EMULATED;
		call_with(b, b->lvm->no_links ? LITE_JIT_FAST : jit_short_way(&f->insn, b->view), f);
	}
	b->ended = after & (LITE_AFTER_CPL | LITE_AFTER_ALL);
	if (b->group.key.seg)
		jit_group_end(b); /* it may have changed the segment's base */
	return true;
}

static void emulated(struct jit_block *b)
{
	struct insn *copy = lite_arena_alloc(b->lvm, sizeof(*copy));

	b->ended = true;
	b->sites[b->nsites - 1].guest |= JIT_SITE_EMULATED;
	if (!copy) {
		call_end(b, LITE_JIT_EMULATE, b->cur->off);
		return;
	}
	*copy = b->cur->insn;
	call_with(b, LITE_JIT_INSN, copy);
}

void jit_emit_cross(struct jit_block *b)
{
	e_mov_imm64(&b->e, T0, (u64)(uintptr_t)b->cur->cross);
	call_end(b, b->is32 || b->lvm->no_links ? LITE_JIT_CROSS : LITE_JIT_ACROSS + b->view, b->cur->off);
}

/* ---- branches --------------------------------------------------------------------------------------------------------- */

void jit_align_field(struct jit_block *b, unsigned behind)
{
	static const u8 nops[4][3] = { "", { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 } };
	unsigned at = ((uintptr_t)b->e.p + behind) & 7;

	if (at > 4)
		e_bytes(&b->e, nops[8 - at], 8 - at);
}

void jit_keep_flags(struct jit_block *b)
{
	if (!b->kept)
		jit_flags_to(&b->e, T0, VCPU(fl));
	b->kept = true;
	b->cur->live = 0;
	b->sites[b->nsites - 1].guest |= JIT_SITE_KEPT;
}

/* To the linear address in T0. */
static void jump_t0(struct jit_block *b)
{
	s32 view = jit_view(b->view);

	jit_jump_index(&b->e);
	e_jmp_mx(&b->e, HOST_RSP, T1, view + (s32)offsetof(struct lite_view, jit[0].to));
}

static void goto_other_page(struct jit_block *b, s32 target, bool kept)
{
	if (!kept)
		jit_flags_to(&b->e, T0, VCPU(fl));
	address_of(b, T0, target);
	jump_t0(b);
}

/* From text to text: the page that is entered is noted, then it is a jump like others. False: it is none. */
static bool enter_page(struct jit_block *b, s32 target)
{
	u64 va = b->va + (s64)target;

	if (!(b->mode & LITE_MODE_TEXT) || !lite_text_has(b->lvm, va))
		return false;
	e_store_imm(&b->e, true, HOST_RSP, VCPU(vpage), (s32)(va & PAGE_MASK_));
	jit_align_field(b, 1);
	return true;
}

void jit_emit_goto(struct jit_block *b, s32 target)
{
	u8 *field;

	if (jit_window_loop(b, target))
		return;
	if (target < 0 || target >= 4096) {
		if (enter_page(b, target))
			jit_cold(b, COLD_FAR, e_jmp(&b->e))->target = target;
		else
			goto_other_page(b, target, b->kept);
		return;
	}
	jit_align_field(b, 1);
	field = e_jmp(&b->e);
	jit_cold(b, COLD_LINK, field)->target = target;
}

void jit_emit_cold(struct jit_block *b, const struct jit_cold *cold)
{
	u8 *field = cold->from;

	if (cold->kind == COLD_FAST) {
		if (cold->flags)
			jit_flags_from(&b->e, T0, VCPU(fl));
		e_mov_imm64(&b->e, T0, (u64)(uintptr_t)cold->given);
		call_end(b, LITE_JIT_FAST, cold->off);
		e_jmp_to(&b->e, cold->back);
		return;
	}
	if (cold->kind == COLD_LINK && (cold->target < 0 || cold->target >= 4096)) {
		if (!enter_page(b, cold->target)) {
			goto_other_page(b, cold->target, false);
			return;
		}
		field = e_jmp(&b->e);
		e_here(&b->e, field);
	}
	jit_emit_link(b, field, cold->target & 0xfff, cold->target <= cold->off ? JIT_LINK_POLL : 0);
}

void jit_emit_link(struct jit_block *b, const u8 *field, s32 target, u32 flags)
{
	struct lite_emit *e = &b->e;

	e_call_m(e, HOST_RSP, VCPU(jit.fn[LITE_JIT_LINK]));
	/* For lite_jit_link(): how far back the jump's field is, and where it is to go. */
	e_u32(e, (u32)(e->p - field));
	e_u32(e, (u32)target | flags);
}

static s32 branch_target(const struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	s64 target = (s64)b->cur->off + insn->len + (s64)insn->imm;

	return (s32)target;
}

/* Targets more than 2 GiB away do not exist; an operand size of 16 bits truncates. */
static bool plain_branch(const struct jit_block *b)
{
	return b->cur->insn.opsize == (b->is32 ? 4 : 8) || (!b->is32 && b->cur->insn.opsize == 4);
}

static void jcc(struct jit_block *b)
{
	u8 *field, *start = b->e.p, *out;

	out = e_jcc(&b->e, b->cur->insn.cond ^ 1);
	if (jit_window_loop(b, branch_target(b))) {
		e_here(&b->e, out);
		return;
	}
	b->e.p = start;
	jit_align_field(b, 2);
	field = e_jcc(&b->e, b->cur->insn.cond);
	jit_cold(b, COLD_LINK, field)->target = branch_target(b);
}

static unsigned stack_size(const struct jit_block *b)
{
	return b->is32 ? 4 : 8;
}

/* *@place = the stack's new top. The caller then stores there and calls pushed(). */
static void push_place(struct jit_block *b, struct jit_place *place)
{
	jit_stack(b, -(s32)stack_size(b), stack_size(b), true, place);
}
static void pushed(struct jit_block *b)
{
	e_lea(&b->e, !b->is32, GSP, GSP, -(s32)stack_size(b));
}
static void pop_place(struct jit_block *b, struct jit_place *place)
{
	jit_stack(b, 0, stack_size(b), false, place);
}
static void popped(struct jit_block *b, s32 more)
{
	e_lea(&b->e, !b->is32, GSP, GSP, (s32)stack_size(b) + more);
}

void jit_move(struct jit_block *b, bool w, u8 op, unsigned reg, const struct jit_place *place)
{
	if (place->gs)
		e_u8(&b->e, 0x65);
	if (!place->indexed)
		e_op_m(&b->e, w, op, reg, place->base, place->disp);
	else if (place->base != LITE_NO_REG)
		e_op_mx(&b->e, w, op, reg, place->base, place->index, __builtin_ctz(place->scale), place->disp);
	else
		e_op_index(&b->e, w, op, reg, place->index, __builtin_ctz(place->scale), place->disp);
}

static void store_imm(struct jit_block *b, bool w, s32 imm, const struct jit_place *place)
{
	if (place->gs)
		e_u8(&b->e, 0x65);
	if (place->indexed)
		e_store_imm_x(&b->e, w, place->base, place->index, place->disp, imm);
	else
		e_store_imm(&b->e, w, place->base, place->disp, imm);
}

/* A CALL's half on the stack. */
static void push_return(struct jit_block *b)
{
	s32 off = b->cur->off + b->cur->insn.len, imm;
	struct jit_place top;

	push_place(b, &top);
	if (jit_known_address(b, off, &imm)) {
		store_imm(b, true, imm, &top);
	} else {
		address_of(b, T1, off);
		jit_move(b, !b->is32, 0x89, T1, &top);
	}
	pushed(b);
}

/* @to = the register or memory operand, stack-sized. False: cannot. */
static bool operand_to(struct jit_block *b, const struct insn *insn, unsigned n, unsigned to)
{
	const struct operand *o = &insn->op[n];
	struct jit_place place;

	if (to == T2 && o->kind != OPK_MEM)
		jit_group_end(b);
	if (o->kind == OPK_GPR) {
		if (jit_displaced(o->reg))
			e_load(&b->e, !b->is32, to, HOST_RSP, VCPU_GPR(o->reg));
		else
			e_mov(&b->e, !b->is32, to, jit_reg(o->reg));
		return true;
	}
	if (o->kind != OPK_MEM || !jit_operand(b, insn, stack_size(b), false, &place))
		return false;
	jit_move(b, !b->is32, 0x8b, to, &place);
	return true;
}

/*
 * The end of a block with a CALL: what is on the stack is there. The host calls, too, for the sake of its return predictor: it expects a RET to
 * lead behind that CALL, and the jump cache lets the guest's RET lead to the jump that stands there, which leads to the block that is for the return
 * address. Whoever comes there has T0, T1 and the flags as the jump cache wants them, so it is an entry to that block like its own. What the CALL
 * pushed is not looked at: RSP is the vCPU again at once, and RET pushes where it wants to go. A guest that returns to somewhere else, or never,
 * is not predicted, that is all.
 *
 * A return address has one place in the jump cache. So blocks that end in the same CALL of the guest's share one of the host's; but for those that
 * check themselves, for while one lives the code may have become another. A block of LITE_MODE_ALONE takes that of the ordinary ones.
 *
 * C that is called meanwhile returns by RET (restore_regs()), wherever the guest goes on.
 *
 * False: another block's CALL does the rest.
 */
static bool host_call(struct jit_block *b)
{
	s32 back = b->cur->off + b->cur->insn.len;
	struct lite_emit *e = &b->e;
	bool shared = back < 4096 && !b->checked;
	u8 *on, *field;

	b->call = b->cur->off;
	b->back = (u16)back;
	b->tail = shared && !b->lvm->no_links ? lite_jit_tail(b->in, b->mode & ~LITE_MODE_ALONE, b->call, b->back) : NULL;
	if (b->tail) {
		e_jmp_to(e, b->tail);
		return false;
	}
	jit_align_field(b, JIT_CALL_LEN + 1);
	on = e_call(e);
	b->host_call = e->p;
	field = e_jmp(e);
	e_aim(e, field, b->jit->jump_miss[b->view]);
	if (shared)
		b->lands = field;
	e_here(e, on);
	e_lea(e, true, HOST_RSP, HOST_RSP, 8);
	return true;
}

/* To the linear address in T0, by the host's RET. */
static void return_t0(struct jit_block *b)
{
	s32 view = jit_view(b->view);

	jit_jump_index(&b->e);
	e_push_mx(&b->e, HOST_RSP, T1, view + (s32)offsetof(struct lite_view, jit[0].to));
	e_ret(&b->e);
}

static bool branch_indirect(struct jit_block *b, bool call)
{
	const struct insn *insn = &b->cur->insn;

	if (insn->opsize != stack_size(b) && !(insn->opsize == 4 && !b->is32))
		return false;
	jit_keep_flags(b);
	if (!operand_to(b, insn, 0, call ? T2 : T0))
		return false;
	if (call) {
		jit_group_end(b);
		b->t2_busy = true;
		push_return(b);
		b->t2_busy = false;
		e_mov(&b->e, true, T0, T2);
	}
	if (!call || host_call(b))
		jump_t0(b);
	return true;
}

static bool branch(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	struct jit_place top;

	switch (insn->mnemonic) {
	case MN_JCC:
		if (!plain_branch(b))
			return false;
		jcc(b);
		return true; /* the block goes on */
	case MN_JMP_NEAR:
		if (insn->op[0].kind == OPK_REL) {
			if (!plain_branch(b))
				return false;
			jit_emit_goto(b, branch_target(b));
		} else if (!branch_indirect(b, false)) {
			return false;
		}
		break;
	case MN_CALL_NEAR:
		if (insn->op[0].kind == OPK_REL) {
			if (!plain_branch(b))
				return false;
			push_return(b);
			/* Not to the middle of its own loop: others come here, who do not know what it knows. */
			b->nfacts = 0;
			if (host_call(b))
				jit_emit_goto(b, branch_target(b));
		} else if (!branch_indirect(b, true)) {
			return false;
		}
		break;
	case MN_RET_NEAR:
		if (insn->pfx66)
			return false;
		jit_keep_flags(b);
		pop_place(b, &top);
		jit_move(b, !b->is32, 0x8b, T0, &top);
		popped(b, insn->nops ? (s32)(u16)insn->imm : 0);
		return_t0(b);
		break;
	case MN_JCXZ: {
		u8 *zero, *field;

		if (insn->addrsize != stack_size(b) || !plain_branch(b))
			return false;
		if (b->is32)
			e_u8(&b->e, 0x67);
		zero = e_jrcxz(&b->e);
		jit_align_field(b, 1);
		field = e_jmp(&b->e);
		jit_cold(b, COLD_LINK, field)->target = b->cur->off + insn->len;
		e_here8(&b->e, zero);
		jit_emit_goto(b, branch_target(b));
		break;
	}
	default:
		return false;
	}
	b->ended = true;
	return true;
}

/* ---- the stack ---------------------------------------------------------------------------------------------------------- */

static bool push(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	const struct operand *o = &insn->op[0];
	unsigned size = stack_size(b), from = T2;
	struct jit_place top;

	if (insn->pfx66)
		return false;
	if (o->kind == OPK_IMM) {
		if ((s64)insn->imm != (s32)insn->imm && size == 8)
			return false;
		push_place(b, &top);
		store_imm(b, size == 8, (s32)insn->imm, &top);
		pushed(b);
		return true;
	}
	if (o->kind == OPK_GPR && !jit_displaced(o->reg))
		from = jit_reg(o->reg);
	else if (!operand_to(b, insn, 0, T2))
		return false;
	if (from == T2) {
		jit_group_end(b);
		b->t2_busy = true;
	}
	push_place(b, &top);
	b->t2_busy = false;
	jit_move(b, size == 8, 0x89, from, &top);
	pushed(b);
	return true;
}

static bool pop(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	const struct operand *o = &insn->op[0];
	bool w = !b->is32;
	struct jit_place top;

	if (insn->pfx66 || o->kind != OPK_GPR)
		return false;
	pop_place(b, &top);
	if (o->reg == REG_SP) {
		jit_move(b, w, 0x8b, GSP, &top);
		return true;
	}
	jit_move(b, w, 0x8b, jit_displaced(o->reg) ? T1 : o->reg, &top);
	if (jit_displaced(o->reg))
		e_store(&b->e, true, T1, HOST_RSP, VCPU_GPR(o->reg));
	popped(b, 0);
	return true;
}

static bool leave(struct jit_block *b)
{
	if (b->cur->insn.pfx66)
		return false;
	e_mov(&b->e, !b->is32, T0, REG_BP);
	jit_access(b, stack_size(b), false);
	e_load(&b->e, !b->is32, T1, T0, 0);
	e_lea(&b->e, !b->is32, GSP, REG_BP, stack_size(b));
	e_mov(&b->e, !b->is32, REG_BP, T1);
	return true;
}

/* ---- everything that is itself with another address ----------------------------------------------------------------------- */

struct temps {
	u8 guest[3], host[3];
	unsigned n, max;
};

/* The host register for guest register @gpr. LITE_NO_REG: none is left. */
static u8 host_reg(struct temps *t, u8 gpr)
{
	if (gpr == LITE_NO_REG)
		return LITE_NO_REG;
	if (!jit_displaced(gpr))
		return jit_reg(gpr);
	for (unsigned i = 0; i < t->n; i++)
		if (t->guest[i] == gpr)
			return t->host[i];
	if (t->n == t->max)
		return LITE_NO_REG;
	t->guest[t->n] = gpr;
	return t->host[t->n++];
}

static bool write_of(const struct lite_fields *f, u8 gpr)
{
	return (f->reg == gpr && (f->reg_acc & OPA_WRITE)) || (f->rm == gpr && (f->rm_acc & OPA_WRITE)) ||
	       (f->vvvv == gpr && (f->vvvv_acc & OPA_WRITE)) || (f->low == gpr && (f->low_acc & OPA_WRITE));
}

static bool generic(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	struct temps t = { .host = { T1, T0, T2 }, .max = 3 };
	struct jit_place place = { T0, 0, .gs = false };
	struct lite_fields f;
	struct lite_recode r = { .base = T0, .index = LITE_NO_REG };
	u8 code[LITE_RECODE_MAX];
	unsigned len;

	lite_fields(insn, &f);
	if (insn->has_mem) {
		if (!insn->mem.size || insn->mem.size > 64 || !insn->mem.access || !lite_recode(insn, &r, code) ||
		    !jit_operand(b, insn, insn->mem.size, insn->mem.access & OPA_WRITE, &place))
			return false;
		/* The one of T0 and T2 that is not in the address is free, T2 only without a group. */
		if (place.base == T0)
			t.host[1] = T2;
		if (place.base == T0 || place.base == T2 || (place.indexed && place.index == T2))
			t.max = 2;
		if (place.base == T0 && place.indexed && place.index == T2)
			t.max = 1;
	}
	r.base = place.base;
	if (place.indexed) {
		r.index = place.index;
		r.scale = place.scale;
	}
	r.disp = place.disp;
	r.reg = host_reg(&t, f.reg);
	r.rm = host_reg(&t, f.rm);
	r.vvvv = host_reg(&t, f.vvvv);
	r.low = host_reg(&t, f.low);
	if ((r.reg == LITE_NO_REG && f.reg != LITE_NO_REG) || (r.rm == LITE_NO_REG && f.rm != LITE_NO_REG) ||
	    (r.vvvv == LITE_NO_REG && f.vvvv != LITE_NO_REG) || (r.low == LITE_NO_REG && f.low != LITE_NO_REG))
		return false;
	for (unsigned i = 0; i < t.n; i++)
		if (t.host[i] == T2)
			jit_group_end(b);
	len = lite_recode(insn, &r, code);
	if (!len)
		return false;
	for (unsigned i = 0; i < t.n; i++)
		e_load(&b->e, true, t.host[i], HOST_RSP, VCPU_GPR(t.guest[i]));
	if (place.gs)
		e_u8(&b->e, 0x65);
	e_bytes(&b->e, code, len);
	for (unsigned i = 0; i < t.n; i++)
		if (write_of(&f, t.guest[i]))
			e_store(&b->e, true, t.host[i], HOST_RSP, VCPU_GPR(t.guest[i]));
	return true;
}

static bool lea(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	unsigned gpr = insn->op[0].reg, to = jit_displaced(gpr) ? T0 : jit_reg(gpr);

	if (insn->opsize < 4 || !jit_ea(b, insn, to, insn->opsize == 8 && insn->addrsize == 8, false))
		return false;
	if (jit_displaced(gpr))
		e_store(&b->e, true, T0, HOST_RSP, VCPU_GPR(gpr));
	return true;
}

/* BT and kin with a bit string in memory (SDM 2, BT: the bit offset reaches beyond the operand). */
static bool bit_string(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	struct lite_recode r = { .base = T0, .index = LITE_NO_REG, .reg = T2, .rm = LITE_NO_REG, .vvvv = LITE_NO_REG, .low = LITE_NO_REG };
	unsigned size = insn->op[0].size, reg = insn->op[1].reg, len;
	bool w = size == 8;
	u8 code[LITE_RECODE_MAX];

	len = lite_recode(insn, &r, code);
	if (size < 4 || !len || !jit_ea(b, insn, T0, insn->addrsize == 8, true))
		return false;
	jit_group_end(b);
	if (jit_displaced(reg))
		e_load(&b->e, true, T2, HOST_RSP, VCPU_GPR(reg));
	else
		e_mov(&b->e, true, T2, jit_reg(reg));
	if (w)
		e_mov(&b->e, true, T1, T2);
	else
		e_op_r(&b->e, true, 0x63, T1, T2); /* movsxd */
	/* T1 = the offset in operands, T2 = that within one; RCX counts, for the flags have to stay. */
	e_store(&b->e, true, REG_CX, HOST_RSP, VCPU(jit.save));
	e_u8(&b->e, 0xb8 | REG_CX);
	e_u32(&b->e, w ? 6 : 5);
	e_shiftx(&b->e, E_SARX, T1, T1, REG_CX);
	e_u8(&b->e, 0xb8 | REG_CX);
	e_u32(&b->e, w ? 58 : 59);
	e_shiftx(&b->e, E_SHLX, T2, T2, REG_CX);
	e_shiftx(&b->e, E_SHRX, T2, T2, REG_CX);
	e_load(&b->e, true, REG_CX, HOST_RSP, VCPU(jit.save));
	e_op_mx(&b->e, insn->addrsize == 8, 0x8d, T0, T0, T1, w ? 3 : 2, 0);
	b->t2_busy = true;
	jit_access(b, size, insn->mnemonic != MN_BT);
	b->t2_busy = false;
	e_bytes(&b->e, code, len);
	return true;
}

/* General instructions that only work on registers, flags and their operands. */
static bool is_plain(const struct insn *insn)
{
	if (insn->flags & (INSN_F_BRANCH | INSN_F_ENDS_BLOCK | INSN_F_PRIVILEGED | INSN_F_IOPL | INSN_F_MOV_SS | INSN_F_STACK | INSN_F_STRING))
		return false;
	if (insn->mnemonic >= MN_ADD && insn->mnemonic <= MN_SHRX)
		return true;
	switch (insn->mnemonic) {
	case MN_MOV: case MN_MOVZX: case MN_MOVSX: case MN_MOVSXD: case MN_CBW: case MN_CWD: case MN_LAHF: case MN_SAHF: case MN_CMOVCC:
	case MN_SETCC: case MN_MOVNTI: case MN_MOVDIRI: case MN_CLC: case MN_STC: case MN_CMC: case MN_LFENCE: case MN_MFENCE: case MN_SFENCE:
		return true;
	default:
		return false;
	}
}

static bool is_nothing(const struct insn *insn)
{
	switch (insn->mnemonic) {
	case MN_NOP: case MN_ENDBR32: case MN_ENDBR64: case MN_PREFETCH: case MN_PREFETCHW: case MN_PREFETCHWT1: case MN_PREFETCHNTA:
	case MN_PREFETCHT0: case MN_PREFETCHT1: case MN_PREFETCHT2: case MN_CLDEMOTE:
		return !insn->lock;
	default:
		return false;
	}
}

static bool is_simd(const struct jit_block *b, const struct insn *insn)
{
	switch (insn->state) {
	case INSN_STATE_X87: case INSN_STATE_MMX: case INSN_STATE_SSE: case INSN_STATE_AVX: case INSN_STATE_AVX512:
		break;
	default:
		return false;
	}
	if (!(b->fpu_usable & LITE_FPU_CLASS(insn->state)) || lite_is_xstate(insn))
		return false;
	/* Masked operands: the whole of one is checked, and left to the emulator when it is not all there. MASKMOVQ, MASKMOVDQU: [RDI]. */
	return !b->cur->use.implied_mem;
}

void jit_emit_insn(struct jit_block *b)
{
	const struct insn *insn = &b->cur->insn;
	u8 *start = b->e.p;
	unsigned ncold = b->ncold;
	struct jit_group group = b->group;
	struct jit_fact facts[JIT_FACTS];
	unsigned nfacts = b->nfacts;
	u8 delta = b->delta, live = b->cur->live;
	bool kept = b->kept, done;

	if (is_nothing(insn))
		return;
	memcpy(facts, b->facts, nfacts * sizeof(*facts));
	if (b->cur->reads_imm) {
		b->imm_failed |= !jit_emit_imm(b);
		return;
	}
	switch (insn->mnemonic) {
	case MN_JCC: case MN_JMP_NEAR: case MN_CALL_NEAR: case MN_RET_NEAR: case MN_JCXZ:
		done = branch(b);
		break;
	case MN_PUSH:
		done = push(b);
		break;
	case MN_POP:
		done = pop(b);
		break;
	case MN_LEAVE:
		done = leave(b);
		break;
	case MN_LEA:
		done = lea(b);
		break;
	case MN_BT: case MN_BTS: case MN_BTR: case MN_BTC:
		done = insn->has_mem && insn->op[1].kind == OPK_GPR ? bit_string(b) : generic(b);
		break;
	default:
		done = (insn->state == INSN_STATE_NONE || insn->state == INSN_STATE_VEX_GPR ? is_plain(insn) : is_simd(b, insn)) && generic(b);
	}
	if (done)
		return;
	b->e.p = start;
	b->ncold = ncold;
	b->group = group;
	memcpy(b->facts, facts, nfacts * sizeof(*facts));
	b->nfacts = nfacts;
	b->delta = delta;
	b->cur->live = live;
	b->kept = false;
	b->sites[b->nsites - 1].guest &= ~JIT_SITE_KEPT;
	if (kept)
		jit_flags_from(&b->e, T1, VCPU(fl));
	if (!system_insn(b))
		emulated(b);
}
