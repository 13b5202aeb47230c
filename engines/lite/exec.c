/*
 * The interpreter's way in and out, and what the fast handlers leave to others: TLB misses, emulation, branches whose target
 * is not chained yet. See exec.h for the rules.
 */
#include "engines/lite/exec.h"

void lite_execute(struct lite_vcpu *c, const struct lite_op *op)
{
	while (op)
		op = op->fn(c, op);
	lite_flags_home(c);
}

/* Whether the op behind the one just emulated may run: nothing happened that the run loop has to see. */
static bool goes_on(struct lite_vcpu *c, const struct lite_op *op, u64 blocks)
{
	const struct x86_state *s = &c->vcpu.x86;

	/* In this order: after a flush of the block cache @op is gone. */
	return blocks == c->blocks_count &&
	       s->rip == ((c->vpage + op->off + op->len - c->cs_base) & c->rip_mask) &&
	       !(op->flags & LITE_OP_LEAVES) && !s->shadow &&
	       !(s->rflags & RFLAGS_TF) && c->seen_gen == __atomic_load_n(&to_lite_vm(c->vcpu.vm)->code_gen, __ATOMIC_SEQ_CST) &&
	       __atomic_load_n(&c->budget, __ATOMIC_RELAXED) >= 0 && !vcpu_must_exit(&c->vcpu);
}

static const struct lite_op *emulated(struct lite_vcpu *c, const struct lite_op *op, u64 blocks, enum x86_result r)
{
	lite_flags_take(c);
	if (likely(r == X86_CONTINUE)) {
		if (goes_on(c, op, blocks))
			GO(op + 1);
		return NULL;
	}
	c->emul_result = r;
	c->stop = LITE_STOP_SLOW;
	return NULL;
}

static void commit(struct lite_vcpu *c, const struct lite_op *op)
{
	c->vcpu.x86.rip = (c->vpage + op->off - c->cs_base) & c->rip_mask;
	lite_flags_home(c);
	lite_fpu_spare(c);
	c->count.slow_ops++;
}

/* Has struct insn at hand. */
const struct lite_op *lite_op_insn(struct lite_vcpu *c, const struct lite_op *op)
{
	u64 blocks = c->blocks_count;

	commit(c, op);
	return emulated(c, op, blocks, vcpu_insn_done(&c->vcpu, emul_exec(&c->vcpu.emul, op->insn)));
}

/* INT3 may be the client's breakpoint. */
const struct lite_op *lite_op_int3(struct lite_vcpu *c, const struct lite_op *op)
{
	if (likely(!(c->vcpu.guest_debug & KVM_GUESTDBG_USE_SW_BP)))
		return lite_op_insn(c, op);
	commit(c, op);
	c->stop = LITE_STOP_INT3;
	return NULL;
}

/* A fast handler gave up on this one instruction, or there is no block to be made of what is there: from memory. */
const struct lite_op *lite_op_emulate(struct lite_vcpu *c, const struct lite_op *op)
{
	u64 blocks = c->blocks_count;

	commit(c, op);
	return emulated(c, op, blocks, vcpu_insn_done(&c->vcpu, emul_step(&c->vcpu.emul)));
}

const struct lite_op *lite_op_step(struct lite_vcpu *c, const struct lite_op *op)
{
	enum x86_result r;

	commit(c, op);
	r = vcpu_insn_done(&c->vcpu, emul_step(&c->vcpu.emul));
	lite_flags_take(c);
	if (r != X86_CONTINUE) {
		c->emul_result = r;
		c->stop = LITE_STOP_SLOW;
	}
	return NULL;
}

/* The block died. Whoever chained here gets the new one. */
const struct lite_op *lite_op_dead(struct lite_vcpu *c, const struct lite_op *op)
{
	u64 blocks = c->blocks_count, va = c->vpage + op->off;
	const struct lite_op *from = c->op, *to;
	enum x86_result r;

	to = lite_block_at(c, va & c->rip_mask, &r);
	if (!to || blocks != c->blocks_count)
		return lite_goto(c, va & c->rip_mask);
	if (from && (from->flags & LITE_OP_CHAINED) && __atomic_load_n(&from->chain, __ATOMIC_ACQUIRE) == op)
		__atomic_store_n(&((struct lite_op *)from)->chain, to, __ATOMIC_RELEASE);
	GO(to);
}

/* There is no translation: the fault is known, or the emulator does it. */
static const struct lite_op *missed(struct lite_vcpu *c, const struct lite_op *op)
{
	if (!c->fill_fault || (op->flags & LITE_OP_OWN))
		return lite_op_emulate(c, op);
	c->vcpu.x86.rip = (c->vpage + op->off - c->cs_base) & c->rip_mask;
	c->emul_result = vcpu_insn_done(&c->vcpu, X86_FAULT);
	c->stop = LITE_STOP_SLOW;
	return NULL;
}

const struct lite_op *lite_miss_read(struct lite_vcpu *c, const struct lite_op *op, u64 la, unsigned size)
{
	u64 flushes = c->blocks_count;

	if (lite_tlb_fill(c, la, size, false) && flushes == c->blocks_count)
		GO(op);
	return missed(c, op);
}

const struct lite_op *lite_miss_write(struct lite_vcpu *c, const struct lite_op *op, u64 la, unsigned size)
{
	u64 flushes = c->blocks_count;

	if (lite_tlb_fill(c, la, size, true) && flushes == c->blocks_count)
		GO(op);
	return missed(c, op);
}

/* Back to the run loop, to go on at linear @va. */
static const struct lite_op *leave_at(struct lite_vcpu *c, u64 va)
{
	c->vcpu.x86.rip = (va - c->cs_base) & c->rip_mask;
	return NULL;
}

const struct lite_op *lite_poll(struct lite_vcpu *c, u64 va)
{
	__atomic_store_n(&c->budget, LITE_BUDGET, __ATOMIC_SEQ_CST);
	return leave_at(c, va);
}

const struct lite_op *lite_goto(struct lite_vcpu *c, u64 va)
{
	return leave_at(c, va);
}

const struct lite_op *lite_link(struct lite_vcpu *c, const struct lite_op *op)
{
	u64 va = (c->vpage + (s64)op->disp) & c->rip_mask, blocks = c->blocks_count;
	const struct lite_jump *jump = &c->view->jump[lite_jump_hash(va)];
	const struct lite_op *to;
	enum x86_result r;

	if ((va & PAGE_MASK_) == c->vpage) {
		to = lite_block_at(c, va, &r);
		if (!to || blocks != c->blocks_count)
			return leave_at(c, va);
		if (op->flags & LITE_OP_CHAINED)
			__atomic_store_n(&((struct lite_op *)op)->chain, to, __ATOMIC_RELEASE);
		GO(to);
	}
	if (jump->va == va) {
		c->vpage = va & PAGE_MASK_;
		GO(jump->ops);
	}
	return leave_at(c, va);
}
