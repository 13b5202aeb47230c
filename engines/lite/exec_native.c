/* Handlers that call native stubs; see native.c. */
#include "engines/lite/native.h"

/* The registers are not loaded, or what they hold may not be used: load, or let the emulator raise #NM or #UD. */
static LITE_OP(native_enter)
{
	if (!(c->fpu_usable & op->native->class))
		return lite_op_emulate(c, op);
	lite_fpu_load(c);
	GO(op);
}

/* An exception: the emulator runs the instruction again and raises it. */
#define READY()                                                                                   \
	const struct lite_native *n = op->native;                                                 \
	if (unlikely(!(c->fpu_live & n->class)))                                                  \
	return native_enter(c, op)
#define CALL(mem)                                                                                 \
	do {                                                                                      \
		if (unlikely(lite_stub_call(n->code, c->native_regs, mem)))                       \
			return lite_op_emulate(c, op);                                            \
	} while (0)

static LITE_OP(native_reg)
{
	READY();
	CALL(NULL);
	NEXT;
}

static inline void gprs_in(struct lite_vcpu *c, const struct lite_native *n)
{
	u64 *regs = c->native_regs;

	regs[0] = GPR(REG_AX);
	regs[1] = GPR(n->reg);
	regs[2] = GPR(n->rm);
	if (n->flags_in)
		regs[3] = lite_fl_to_rflags(c->fl) | RFLAGS_ONE;
}

static inline void gprs_out(struct lite_vcpu *c, const struct lite_native *n)
{
	const u64 *regs = c->native_regs;

	if (n->out_ax)
		*(u16 *)&GPR(REG_AX) = regs[0];
	if (n->out_reg)
		GPR(n->reg) = regs[1];
	if (n->out_rm)
		GPR(n->rm) = regs[2];
	if (n->flags_out)
		c->fl = regs[3];
}

#define X87_NOTE()                                                                                \
	do {                                                                                      \
		if (n->fip) {                                                                     \
			c->x87_rip = c->vpage + op->off;                                          \
			c->x87_op = n->fop;                                                       \
		}                                                                                 \
	} while (0)

static LITE_OP(native_reg_gpr)
{
	READY();
	gprs_in(c, n);
	X87_NOTE();
	CALL(NULL);
	gprs_out(c, n);
	NEXT;
}

static LITE_OP(native_reg_x87)
{
	READY();
	X87_NOTE();
	CALL(NULL);
	NEXT;
}

#define NATIVE_MEM(name, lookup, ea)                                                              \
	static LITE_OP(native_##name##_##ea)                                                      \
	{                                                                                         \
		u64 la = EA_##ea();                                                               \
		void *mem;                                                                        \
		READY();                                                                          \
		mem = lookup(la, n->size);                                                        \
		if (unlikely(la & n->align))                                                      \
			return lite_op_emulate(c, op);                                            \
		CALL(mem);                                                                        \
		NEXT;                                                                             \
	}                                                                                         \
	static LITE_OP(native_##name##_gpr_##ea)                                                  \
	{                                                                                         \
		u64 la = EA_##ea();                                                               \
		void *mem;                                                                        \
		READY();                                                                          \
		mem = lookup(la, n->size);                                                        \
		if (unlikely(la & n->align))                                                      \
			return lite_op_emulate(c, op);                                            \
		gprs_in(c, n);                                                                    \
		X87_NOTE();                                                                       \
		c->x87_dp = la;                                                                   \
		CALL(mem);                                                                        \
		gprs_out(c, n);                                                                   \
		NEXT;                                                                             \
	}
#define NATIVE_EA(ea) NATIVE_MEM(load, HOST_READ, ea) NATIVE_MEM(store, HOST_WRITE, ea)
NATIVE_EA(D)
NATIVE_EA(X)
NATIVE_EA(E)

lite_handler *lite_native_handler(bool mem, bool write, int ea, bool gprs, bool x87)
{
	static lite_handler *const table[2][2][EA_KIND_COUNT] = {
		{ { native_load_D, native_load_X, native_load_E }, { native_load_gpr_D, native_load_gpr_X, native_load_gpr_E } },
		{ { native_store_D, native_store_X, native_store_E }, { native_store_gpr_D, native_store_gpr_X, native_store_gpr_E } },
	};

	if (mem)
		return table[write][gprs || x87][ea];
	return gprs ? native_reg_gpr : x87 ? native_reg_x87 : native_reg;
}
