/* Handlers of branches and the stack, for 64-bit code and for 32-bit code with flat segments. See exec.h. */
#include "engines/lite/exec.h"

#define JCC(n, cc, ...)                                                                           \
	static LITE_OP(jcc_##n)                                                                   \
	{                                                                                         \
		u32 fl = c->fl;                                                                   \
		if (COND_##n)                                                                     \
			TAKE(op);                                                                 \
		NEXT;                                                                             \
	}
FOR_CONDS(JCC, )
#define JCC_ROW(n, cc, ...) [n] = jcc_##n,
lite_handler *const lite_jcc_ops[16] = { FOR_CONDS(JCC_ROW, ) };

LITE_OP(lite_op_jump)
{
	TAKE(op);
}

LITE_OP(lite_op_next_page)
{
	GO_INDIRECT((c->vpage + 4096) & c->rip_mask);
}

/* The linear address behind the instruction, which is RIP's value: CS has no base here. */
#define RETURN_ADDRESS(type) ((type)(c->vpage + op->off + op->len))
#define MEM_EA_u64 EA_X()
#define MEM_EA_u32 EA_E()

/* W: the stack's width. PUSH of RSP stores the old value, POP into it wins (SDM 2, PUSH, POP). */
#define STACK(W)                                                                                  \
	static LITE_OP(push_##W)                                                                  \
	{                                                                                         \
		W sp = (W)(GPR(REG_SP) - sizeof(W));                                              \
		*(volatile W *)HOST_WRITE((u64)sp, sizeof(W)) = REG(op->r1, W);                   \
		GPR(REG_SP) = sp;                                                                 \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(push_imm_##W)                                                              \
	{                                                                                         \
		W sp = (W)(GPR(REG_SP) - sizeof(W));                                              \
		*(volatile W *)HOST_WRITE((u64)sp, sizeof(W)) = (W)(s64)op->imm;                  \
		GPR(REG_SP) = sp;                                                                 \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(push_mem_##W)                                                              \
	{                                                                                         \
		W sp = (W)(GPR(REG_SP) - sizeof(W));                                              \
		W v = *(volatile W *)HOST_READ(MEM_EA_##W, sizeof(W));                            \
		*(volatile W *)HOST_WRITE((u64)sp, sizeof(W)) = v;                                \
		GPR(REG_SP) = sp;                                                                 \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(pop_##W)                                                                   \
	{                                                                                         \
		W sp = (W)GPR(REG_SP);                                                            \
		W v = *(volatile W *)HOST_READ((u64)sp, sizeof(W));                               \
		GPR(REG_SP) = (W)(sp + sizeof(W));                                                \
		REG(op->r1, u64) = v;                                                             \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(leave_##W)                                                                 \
	{                                                                                         \
		W bp = (W)GPR(REG_BP);                                                            \
		W v = *(volatile W *)HOST_READ((u64)bp, sizeof(W));                               \
		GPR(REG_SP) = (W)(bp + sizeof(W));                                                \
		GPR(REG_BP) = v;                                                                  \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(call_##W)                                                                  \
	{                                                                                         \
		W sp = (W)(GPR(REG_SP) - sizeof(W));                                              \
		*(volatile W *)HOST_WRITE((u64)sp, sizeof(W)) = RETURN_ADDRESS(W);                \
		GPR(REG_SP) = sp;                                                                 \
		TAKE(op);                                                                         \
	}                                                                                         \
	static LITE_OP(ret_##W)                                                                   \
	{                                                                                         \
		W sp = (W)GPR(REG_SP);                                                            \
		W v = *(volatile W *)HOST_READ((u64)sp, sizeof(W));                               \
		if (sizeof(W) == 8 && unlikely(!x86_is_canonical(v, 0)))                          \
			return lite_op_emulate(c, op);                                            \
		GPR(REG_SP) = (W)(sp + sizeof(W) + (u32)op->imm);                                 \
		GO_INDIRECT((u64)v);                                                              \
	}                                                                                         \
	static LITE_OP(call_reg_##W)                                                              \
	{                                                                                         \
		W sp = (W)(GPR(REG_SP) - sizeof(W));                                              \
		W v = REG(op->r1, W);                                                             \
		if (sizeof(W) == 8 && unlikely(!x86_is_canonical(v, 0)))                          \
			return lite_op_emulate(c, op);                                            \
		*(volatile W *)HOST_WRITE((u64)sp, sizeof(W)) = RETURN_ADDRESS(W);                \
		GPR(REG_SP) = sp;                                                                 \
		GO_INDIRECT((u64)v);                                                              \
	}                                                                                         \
	static LITE_OP(call_mem_##W)                                                              \
	{                                                                                         \
		W sp = (W)(GPR(REG_SP) - sizeof(W));                                              \
		W v = *(volatile W *)HOST_READ(MEM_EA_##W, sizeof(W));                            \
		if (sizeof(W) == 8 && unlikely(!x86_is_canonical(v, 0)))                          \
			return lite_op_emulate(c, op);                                            \
		*(volatile W *)HOST_WRITE((u64)sp, sizeof(W)) = RETURN_ADDRESS(W);                \
		GPR(REG_SP) = sp;                                                                 \
		GO_INDIRECT((u64)v);                                                              \
	}                                                                                         \
	static LITE_OP(jmp_reg_##W)                                                               \
	{                                                                                         \
		W v = REG(op->r1, W);                                                             \
		if (sizeof(W) == 8 && unlikely(!x86_is_canonical(v, 0)))                          \
			return lite_op_emulate(c, op);                                            \
		GO_INDIRECT((u64)v);                                                              \
	}                                                                                         \
	static LITE_OP(jmp_mem_##W)                                                               \
	{                                                                                         \
		W v = *(volatile W *)HOST_READ(MEM_EA_##W, sizeof(W));                            \
		if (sizeof(W) == 8 && unlikely(!x86_is_canonical(v, 0)))                          \
			return lite_op_emulate(c, op);                                            \
		GO_INDIRECT((u64)v);                                                              \
	}
STACK(u64)
STACK(u32)

#define PAIR(name) { name##_u64, name##_u32 }
lite_handler *const lite_push_ops[2] = PAIR(push);
lite_handler *const lite_push_imm_ops[2] = PAIR(push_imm);
lite_handler *const lite_push_mem_ops[2] = PAIR(push_mem);
lite_handler *const lite_pop_ops[2] = PAIR(pop);
lite_handler *const lite_leave_ops[2] = PAIR(leave);
lite_handler *const lite_call_ops[2] = PAIR(call);
lite_handler *const lite_ret_ops[2] = PAIR(ret);
lite_handler *const lite_call_reg_ops[2] = PAIR(call_reg);
lite_handler *const lite_call_mem_ops[2] = PAIR(call_mem);
lite_handler *const lite_jmp_reg_ops[2] = PAIR(jmp_reg);
lite_handler *const lite_jmp_mem_ops[2] = PAIR(jmp_mem);
