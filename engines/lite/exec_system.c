/* Handlers of what system.h does fast. op->insn is in a struct lite_system, op->aux is LITE_AFTER_*. */
#include "engines/lite/exec.h"

static inline bool run_fast(struct lite_vcpu *c, const struct lite_op *op)
{
	const struct lite_system *sys = container_of(op->insn, struct lite_system, insn);

	c->vcpu.x86.rip = (c->vpage + op->off - c->cs_base) & c->rip_mask;
	lite_flags_home(c);
	if (unlikely(!sys->fn(c, op->insn)))
		return false;
	lite_flags_take(c);
	return true;
}

LITE_OP(lite_op_fast)
{
	if (unlikely(!run_fast(c, op)))
		return lite_op_insn(c, op);
	NEXT;
}

LITE_OP(lite_op_fast_events)
{
	if (unlikely(!run_fast(c, op)))
		return lite_op_insn(c, op);
	if (unlikely(lite_events_due(c)))
		return NULL;
	NEXT;
}

/* Done, or in part, with RIP where it was. */
LITE_OP(lite_op_fast_part)
{
	u64 blocks = c->blocks_count, rip;

	if (unlikely(!run_fast(c, op)))
		return lite_op_insn(c, op);
	rip = (c->vpage + op->off + op->len - c->cs_base) & c->rip_mask;
	if (unlikely(blocks != c->blocks_count || c->vcpu.x86.rip != rip))
		return NULL;
	NEXT;
}

LITE_OP(lite_op_fast_leave)
{
	if (unlikely(!run_fast(c, op)))
		return lite_op_insn(c, op);
	if (op->aux & LITE_AFTER_ALL)
		lite_refresh(c);
	else
		lite_refresh_cpl(c);
	if (unlikely(c->vcpu.x86.mode != X86_MODE_LONG || ((op->aux & LITE_AFTER_EVENTS) && lite_events_due(c))))
		return NULL;
	c->vcpu.x86.rflags &= ~RFLAGS_RF;
	GO_INDIRECT(c->vcpu.x86.rip);
}
