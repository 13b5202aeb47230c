/*
 * What every handler of the interpreter is made of. A handler does one pre-decoded instruction and passes on to the next by a
 * tail call, so that each has its own indirect jump for the host to predict; builds that cannot promise
 * tail calls (-O0, the sanitizers) return the next op to a loop instead.
 *
 *	LITE_OP(lite_inc64)
 *	{
 *		REG(op->r1, u64)++;
 *		NEXT;
 *	}
 *
 * Rule: a handler changes nothing before its last access that can miss. A miss re-runs the handler from its start or
 * emulates the whole instruction, and a host fault (the client's memory is not there) drops it on the spot.
 *
 * Guest memory is reached only through HOST_READ() and HOST_WRITE(): tag compare, then one host access within the page of the tag.
 */
#ifndef ENGINES_LITE_EXEC_H
#define ENGINES_LITE_EXEC_H

#include "engines/lite/system.h"

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define LITE_TAIL_CALLS 1
#else
#define LITE_TAIL_CALLS 0
#endif

/* One section, so that fault.c recognizes a fault in a handler by its address. */
#define LITE_FAST __attribute__((section("lite_fast")))
#define LITE_OP(name) LITE_FAST const struct lite_op *name(struct lite_vcpu *c, const struct lite_op *op)

#if LITE_TAIL_CALLS
#define GO(next)                                      \
	do {                                          \
		const struct lite_op *go_ = (next);   \
		return go_->fn(c, go_);               \
	} while (0)
#else
#define GO(next) return (next)
#endif
#define NEXT GO(op + 1)

#define REG(offset, type) (*(type *)((char *)&c->vcpu + (offset)))
/* Writing 32 bits clears the upper half (SDM 1 3.4.1.1); 8 and 16 leave the rest. */
#define SET_u8(offset, v)  (REG(offset, u8) = (v))
#define SET_u16(offset, v) (REG(offset, u16) = (v))
#define SET_u32(offset, v) (REG(offset, u64) = (u32)(v))
#define SET_u64(offset, v) (REG(offset, u64) = (v))

#define GPR_OFFSET(n) (LITE_OFFSET(vcpu.x86.gpr) + 8 * (n))
#define GPR(n)	      (c->vcpu.x86.gpr[n])

/* Effective addresses: D base and displacement; X everything, with a segment base; E the same in 32-bit flat code. */
#define EA_D() (REG(op->base, u64) + (s64)op->disp)
#define EA_X() (REG(op->base, u64) + (REG(op->index, u64) << op->shift) + REG(op->seg, u64) + (s64)op->disp)
#define EA_E() ((u64)(u32)(REG(op->base, u32) + (REG(op->index, u32) << op->shift) + REG(op->seg, u32) + (u32)op->disp))

#define TLB_LOOKUP(table, miss, la, size)                                                         \
	({                                                                                        \
		u64 la_ = (la);                                                                   \
		const struct lite_tlb_page *t_ = &c->view->tlb[(la_ >> 12) % LITE_TLB_SIZE].table; \
		c->op = op;                                                                       \
		if (unlikely(t_->tag != ((la_ + (size) - 1) & PAGE_MASK_)))                        \
			return miss(c, op, la_, size);                                            \
		(void *)(t_->host + (la_ & 0xfff));                                               \
	})
#define HOST_READ(la, size)  TLB_LOOKUP(r, lite_miss_read, la, size)
#define HOST_WRITE(la, size) TLB_LOOKUP(w, lite_miss_write, la, size)
/* A locked access across cache lines is left to the slow path: the host may punish it. */
#define HOST_LOCKED(la, size)                                                                     \
	({                                                                                        \
		u64 ll_ = (la);                                                                   \
		void *p_ = HOST_WRITE(ll_, size);                                                 \
		if (unlikely((ll_ & 63) + (size) > 64))                                           \
			return lite_op_emulate(c, op);                                            \
		p_;                                                                               \
	})

/* Captures and restores the six arithmetic flags around one host instruction; ax is struct lite_vcpu.fl's format. */
#define FL_OUT "\n\tlahf\n\tseto %%al"
#define FL_IN  "addb $127, %%al\n\tsahf\n\t"

#define COND_0  (fl & 1)
#define COND_1  (!(fl & 1))
#define COND_2  (fl & 0x100)
#define COND_3  (!(fl & 0x100))
#define COND_4  (fl & 0x4000)
#define COND_5  (!(fl & 0x4000))
#define COND_6  (fl & 0x4100)
#define COND_7  (!(fl & 0x4100))
#define COND_8  (fl & 0x8000)
#define COND_9  (!(fl & 0x8000))
#define COND_10 (fl & 0x400)
#define COND_11 (!(fl & 0x400))
#define COND_12 (((fl >> 15) ^ fl) & 1)
#define COND_13 (!(((fl >> 15) ^ fl) & 1))
#define COND_14 ((((fl >> 15) ^ fl) & 1) || (fl & 0x4000))
#define COND_15 (!((((fl >> 15) ^ fl) & 1) || (fl & 0x4000)))
#define FOR_CONDS(M, ...) \
	M(0, o, __VA_ARGS__) M(1, no, __VA_ARGS__) M(2, b, __VA_ARGS__) M(3, ae, __VA_ARGS__) M(4, e, __VA_ARGS__) \
	M(5, ne, __VA_ARGS__) M(6, be, __VA_ARGS__) M(7, a, __VA_ARGS__) M(8, s, __VA_ARGS__) M(9, ns, __VA_ARGS__) \
	M(10, p, __VA_ARGS__) M(11, np, __VA_ARGS__) M(12, l, __VA_ARGS__) M(13, ge, __VA_ARGS__) M(14, le, __VA_ARGS__) \
	M(15, g, __VA_ARGS__)

/* A taken branch described by @b: chained within the page, else looked up. Backward ones poll. */
#define TAKE(b)                                                                                   \
	do {                                                                                      \
		const struct lite_op *b_ = (b), *t_;                                              \
		if (b_->flags & LITE_OP_BACKWARD) {                                               \
			s32 left_ = __atomic_load_n(&c->budget, __ATOMIC_RELAXED) - 1;            \
			__atomic_store_n(&c->budget, left_, __ATOMIC_RELAXED);                    \
			if (unlikely(left_ < 0))                                                  \
				return lite_poll(c, (c->vpage + (s64)b_->disp) & c->rip_mask);    \
		}                                                                                 \
		t_ = __atomic_load_n(&b_->chain, __ATOMIC_ACQUIRE);                               \
		if (unlikely(!t_))                                                                \
			return lite_link(c, b_);                                                  \
		c->op = b_;                                                                       \
		GO(t_);                                                                           \
	} while (0)

/* A jump to linear address @target, through the jump cache. */
#define GO_INDIRECT(target)                                                                       \
	do {                                                                                      \
		u64 va_ = (target);                                                               \
		const struct lite_jump *j_ = &c->view->jump[lite_jump_hash(va_)];                 \
		s32 left_ = __atomic_load_n(&c->budget, __ATOMIC_RELAXED) - 1;                    \
		__atomic_store_n(&c->budget, left_, __ATOMIC_RELAXED);                            \
		if (unlikely(left_ < 0))                                                          \
			return lite_poll(c, va_);                                                 \
		if (unlikely(j_->va != va_))                                                      \
			return lite_goto(c, va_);                                                 \
		c->vpage = va_ & PAGE_MASK_;                                                      \
		GO(j_->ops);                                                                      \
	} while (0)

/* Operand sizes by number, 0 to 3. */
enum { SZ_8, SZ_16, SZ_32, SZ_64, SZ_COUNT };
#define FOR_SIZES(M, ...) \
	M(u8, b, __VA_ARGS__) M(u16, w, __VA_ARGS__) M(u32, l, __VA_ARGS__) M(u64, q, __VA_ARGS__)
/* Operand forms. The last letter is the kind of effective address; L: with LOCK. */
enum lite_form {
	FORM_RR, FORM_RI,
	FORM_RM_D, FORM_RM_X, FORM_RM_E,
	FORM_MR_D, FORM_MR_X, FORM_MR_E,
	FORM_MI_D, FORM_MI_X, FORM_MI_E,
	FORM_LMR_X, FORM_LMR_E, FORM_LMI_X, FORM_LMI_E,
	FORM_COUNT
};
enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP, ALU_TEST, ALU_COUNT };
enum { UN_INC, UN_DEC, UN_NEG, UN_NOT, UN_COUNT };
enum { SH_SHL, SH_SHR, SH_SAR, SH_ROL, SH_ROR, SH_RCL, SH_RCR, SH_COUNT };
enum { EA_KIND_D, EA_KIND_X, EA_KIND_E, EA_KIND_COUNT };
enum { FUSE_CMP_RR, FUSE_CMP_RI, FUSE_TEST_RR, FUSE_TEST_RI, FUSE_CMP_RM, FUSE_CMP_MI, FUSE_TEST_MI, FUSE_DEC, FUSE_INC, FUSE_ADD_RI,
       FUSE_SUB_RI, FUSE_AND_RI, FUSE_ADD_RR, FUSE_SUB_RR, FUSE_COUNT };

/* exec_alu.c */
extern lite_handler *const lite_alu_ops[ALU_COUNT][SZ_COUNT][FORM_COUNT];
extern lite_handler *const lite_unary_ops[UN_COUNT][SZ_COUNT][1 + EA_KIND_COUNT];
extern lite_handler *const lite_shift_ops[SH_COUNT][SZ_COUNT][2]; /* by immediate, by CL */
extern lite_handler *const lite_fused_ops[FUSE_COUNT][SZ_COUNT][16];
extern lite_handler *const lite_bt_ops[4][SZ_COUNT][2];	/* BT BTS BTR BTC; by register, by immediate */
extern lite_handler *const lite_count_ops[5][SZ_COUNT]; /* BSF BSR TZCNT LZCNT POPCNT */
extern lite_handler *const lite_imul_ops[SZ_COUNT][1 + EA_KIND_COUNT], *const lite_imul_imm_ops[SZ_COUNT];
extern lite_handler *const lite_muldiv_ops[4][SZ_COUNT]; /* MUL IMUL DIV IDIV of a register */
extern lite_handler *const lite_xadd_ops[SZ_COUNT][EA_KIND_COUNT], *const lite_cmpxchg_ops[SZ_COUNT][EA_KIND_COUNT];
lite_handler lite_bswap32, lite_bswap64, lite_clc, lite_stc, lite_cmc;

/* exec_move.c */
extern lite_handler *const lite_mov_ops[SZ_COUNT][FORM_COUNT];
extern lite_handler *const lite_movx_ops[2][2][SZ_COUNT][1 + EA_KIND_COUNT]; /* [sign][from 8, 16][to][reg, mem] */
extern lite_handler *const lite_movsxd_ops[1 + EA_KIND_COUNT];
extern lite_handler *const lite_lea_ops[SZ_COUNT][EA_KIND_COUNT];
extern lite_handler *const lite_xchg_ops[SZ_COUNT][1 + EA_KIND_COUNT];
extern lite_handler *const lite_setcc_ops[16][1 + EA_KIND_COUNT];
extern lite_handler *const lite_cmov_ops[16][SZ_COUNT][1 + EA_KIND_COUNT];
lite_handler lite_mov64_imm64, lite_nop, lite_cwd32, lite_cwd64, lite_cbw16, lite_cbw32, lite_cbw64;

/* exec_branch.c; [0] 64-bit, [1] 32-bit flat */
extern lite_handler *const lite_jcc_ops[16];
extern lite_handler *const lite_push_ops[2], *const lite_push_imm_ops[2], *const lite_pop_ops[2], *const lite_leave_ops[2], *const lite_call_ops[2],
	*const lite_ret_ops[2], *const lite_call_reg_ops[2], *const lite_jmp_reg_ops[2],
	*const lite_push_mem_ops[2], *const lite_call_mem_ops[2], *const lite_jmp_mem_ops[2];

/* exec_system.c */
struct lite_system {
	lite_fast_fn *fn;
	struct insn insn; /* op->insn */
};
lite_handler lite_op_fast, lite_op_fast_events, lite_op_fast_part, lite_op_fast_leave;

#endif
