/*
 * Integer arithmetic: ADD to CMP, INC to NEG, multiplication and division, BCD, ADX, XADD and
 * CMPXCHG (SDM 2A, 2B). Flags that the manual leaves undefined are computed as processors commonly
 * do.
 */
#include "core/x86/emul/emul_priv.h"

#define SZP (RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF)

/* ---- two operands --------------------------------------------------------------------------- */

EMUL_INLINE u64 add_flags(unsigned size, u64 a, u64 b, u64 carry, u64 *flags)
{
	u64 r = (a + b + carry) & emul_mask(size), f;

	f = emul_szp(r, size);
	f |= emul_flag(carry ? r <= a : r < a, RFLAGS_CF);
	f |= (a ^ b ^ r) & RFLAGS_AF;
	f |= emul_flag((a ^ r) & (b ^ r) & emul_sign(size), RFLAGS_OF);
	* flags = (*flags & ~RFLAGS_ARITH) | f;
	return r;
}

EMUL_INLINE u64 sub_flags(unsigned size, u64 a, u64 b, u64 borrow, u64 *flags)
{
	u64 r = (a - b - borrow) & emul_mask(size), f;

	f = emul_szp(r, size);
	f |= emul_flag(borrow ? a <= b : a < b, RFLAGS_CF);
	f |= (a ^ b ^ r) & RFLAGS_AF;
	f |= emul_flag((a ^ b) & (a ^ r) & emul_sign(size), RFLAGS_OF);
	* flags = (*flags & ~RFLAGS_ARITH) | f;
	return r;
}

EMUL_INLINE u64 logic_flags(unsigned size, u64 r, u64 *flags)
{
	* flags = (*flags & ~RFLAGS_ARITH) | emul_szp(r, size);
	return r;
}

EMUL_INLINE u64 alu_add(unsigned size, u64 a, u64 b, u64 *flags)
{
	return add_flags(size, a, b, 0, flags);
}
EMUL_INLINE u64 alu_adc(unsigned size, u64 a, u64 b, u64 *flags)
{
	return add_flags(size, a, b, *flags & RFLAGS_CF, flags);
}
EMUL_INLINE u64 alu_sub(unsigned size, u64 a, u64 b, u64 *flags)
{
	return sub_flags(size, a, b, 0, flags);
}
u64 emul_alu_sub(unsigned size, u64 a, u64 b, u64 *flags)
{
	return alu_sub(size, a, b, flags);
}
EMUL_INLINE u64 alu_sbb(unsigned size, u64 a, u64 b, u64 *flags)
{
	return sub_flags(size, a, b, *flags & RFLAGS_CF, flags);
}
EMUL_INLINE u64 alu_or(unsigned size, u64 a, u64 b, u64 *flags)
{
	return logic_flags(size, a | b, flags);
}
EMUL_INLINE u64 alu_and(unsigned size, u64 a, u64 b, u64 *flags)
{
	return logic_flags(size, a & b, flags);
}
EMUL_INLINE u64 alu_xor(unsigned size, u64 a, u64 b, u64 *flags)
{
	return logic_flags(size, a ^ b, flags);
}
EMUL_INLINE u64 alu_inc(unsigned size, u64 a, u64 b, u64 *flags)
{
	u64 cf = *flags & RFLAGS_CF;

	a = add_flags(size, a, 1, 0, flags);
	* flags = (*flags & ~RFLAGS_CF) | cf;
	return a;
}
EMUL_INLINE u64 alu_dec(unsigned size, u64 a, u64 b, u64 *flags)
{
	u64 cf = *flags & RFLAGS_CF;

	a = sub_flags(size, a, 1, 0, flags);
	* flags = (*flags & ~RFLAGS_CF) | cf;
	return a;
}
EMUL_INLINE u64 alu_neg(unsigned size, u64 a, u64 b, u64 *flags)
{
	return sub_flags(size, 0, a, 0, flags);
}
EMUL_INLINE u64 alu_not(unsigned size, u64 a, u64 b, u64 *flags)
{
	return ~a & emul_mask(size);
}

/* Operand 1 is narrower than operand 0 in no form but the sign-extended immediate. */
EMUL_INLINE enum x86_result source(struct emul *e, const struct insn *in, u64 *b)
{
	EMUL_TRY(emul_get(e, in, 1, b));
	* b &= emul_mask(in->op[0].size);
	return X86_CONTINUE;
}

#define BINARY(name)                                                       \
	enum x86_result emul_##name(struct emul *e, const struct insn *in) \
	{                                                                  \
		u64 b;                                                     \
                                                                           \
		EMUL_TRY(source(e, in, &b));                               \
		return emul_rmw(e, in, b, alu_##name);                     \
	}
BINARY(add)
BINARY(or)
BINARY(adc)
BINARY(sbb)
BINARY(and)
BINARY(sub)
BINARY(xor)

#define UNARY(name)                                                        \
	enum x86_result emul_##name(struct emul *e, const struct insn *in) \
	{                                                                  \
		return emul_rmw(e, in, 0, alu_##name);                     \
	}
UNARY(not )
UNARY(neg)
UNARY(inc)
UNARY(dec)

enum x86_result emul_cmp(struct emul *e, const struct insn *in)
{
	u64 a, b;

	EMUL_TRY(emul_get(e, in, 0, &a));
	EMUL_TRY(source(e, in, &b));
	alu_sub(in->op[0].size, a, b, &e->s->rflags);
	return X86_CONTINUE;
}

enum x86_result emul_test(struct emul *e, const struct insn *in)
{
	u64 a, b;

	EMUL_TRY(emul_get(e, in, 0, &a));
	EMUL_TRY(source(e, in, &b));
	alu_and(in->op[0].size, a, b, &e->s->rflags);
	return X86_CONTINUE;
}

/* ADCX, ADOX: an addition whose carry is one flag, no other changes. */
EMUL_INLINE enum x86_result add_with(struct emul *e, const struct insn *in, u64 flag)
{
	unsigned size = in->op[0].size;
	u64 a, b, carry = !!(e->s->rflags & flag), r;

	EMUL_TRY(emul_get(e, in, 0, &a));
	EMUL_TRY(emul_get(e, in, 1, &b));
	r = (a + b + carry) & emul_mask(size);
	emul_put_reg(e, &in->op[0], r);
	emul_set_flags(e->s, emul_flag(carry ? r <= a : r < a, flag), flag);
	return X86_CONTINUE;
}

enum x86_result emul_adcx(struct emul *e, const struct insn *in)
{
	return add_with(e, in, RFLAGS_CF);
}

enum x86_result emul_adox(struct emul *e, const struct insn *in)
{
	return add_with(e, in, RFLAGS_OF);
}

/* ---- exchange and compare ------------------------------------------------------------------- */

enum x86_result emul_xadd(struct emul *e, const struct insn *in)
{
	const struct operand *dst = &in->op[0];
	unsigned size = dst->size;
	u64 flags = e->s->rflags, a, b, sum, la;
	bool done = true;

	EMUL_TRY(emul_get(e, in, 1, &b));
	if (dst->kind != OPK_MEM) {
		EMUL_TRY(emul_get(e, in, 0, &a));
		sum = alu_add(size, a, b, &flags);
		emul_put_reg(e, &in->op[1], a);
		emul_put_reg(e, dst, sum);
		e->s->rflags = flags;
		return X86_CONTINUE;
	}
	EMUL_TRY(emul_mem_la(e, in, size, true, &la));
	EMUL_TRY(emul_read_int(e, la, size,
			       in->lock ? EMUL_ACC_RMW | EMUL_ACC_LOCKED : EMUL_ACC_RMW, &a));
	do {
		flags = e->s->rflags;
		sum = alu_add(size, a, b, &flags);
		if (in->lock)
			EMUL_TRY(emul_done(e, e->ops->cmpxchg(e, la, &a, &sum, size,
							      EMUL_ACC_LOCKED, &done)));
		else
			EMUL_TRY(emul_write(e, la, &sum, size, 0));
	} while (!done);
	emul_put_reg(e, &in->op[1], a);
	e->s->rflags = flags;
	return X86_CONTINUE;
}

/* The destination is written either way, so it must be writable either way (SDM 2A CMPXCHG). */
enum x86_result emul_cmpxchg(struct emul *e, const struct insn *in)
{
	const struct operand *dst = &in->op[0];
	unsigned size = dst->size;
	u64 acc = emul_get_gpr(e->s, REG_AX, size), old, src, la = 0;
	bool done;

	EMUL_TRY(emul_get(e, in, 1, &src));
	if (dst->kind == OPK_MEM) {
		EMUL_TRY(emul_mem_la(e, in, size, true, &la));
		if (in->lock) {
			old = acc;
			EMUL_TRY(emul_done(e, e->ops->cmpxchg(e, la, &old, &src, size,
							      EMUL_ACC_LOCKED, &done)));
		} else {
			EMUL_TRY(emul_read_int(e, la, size, EMUL_ACC_RMW, &old));
			EMUL_TRY(emul_write(e, la, old == acc ? &src : &old, size, 0));
		}
	} else {
		EMUL_TRY(emul_get(e, in, 0, &old));
	}
	alu_sub(size, acc, old, &e->s->rflags);
	if (acc != old)
		emul_put_gpr(e->s, REG_AX, size, old);
	else if (dst->kind != OPK_MEM)
		emul_put_reg(e, dst, src);
	return X86_CONTINUE;
}

/* CMPXCHG8B and CMPXCHG16B: @half is the size of one register of the pairs. */
static enum x86_result cmpxchg_pair(struct emul *e, const struct insn *in, unsigned half)
{
	struct x86_state *s = e->s;
	u64 want[2], new[2], old[2] = { 0, 0 }, la;
	u8 old_bytes[16], new_bytes[16];
	bool same = false;

	want[0] = emul_get_gpr(s, REG_AX, half);
	want[1] = emul_get_gpr(s, REG_DX, half);
	new[0] = s->gpr[REG_BX];
	new[1] = s->gpr[REG_CX];
	EMUL_TRY(emul_mem_la(e, in, 2 * half, true, &la));
	if (half == 8 && (la & 15))
		return emul_fault_code(e, VEC_GP, 0);
	memcpy(new_bytes, &new[0], half);
	memcpy(new_bytes + half, &new[1], half);
	if (in->lock) {
		memcpy(old_bytes, &want[0], half);
		memcpy(old_bytes + half, &want[1], half);
		EMUL_TRY(emul_done(e, e->ops->cmpxchg(e, la, old_bytes, new_bytes, 2 * half,
						      EMUL_ACC_LOCKED, &same)));
	} else {
		EMUL_TRY(emul_read(e, la, old_bytes, 2 * half, EMUL_ACC_RMW));
		same = !memcmp(old_bytes, &want[0], half) &&
		       !memcmp(old_bytes + half, &want[1], half);
		EMUL_TRY(emul_write(e, la, same ? new_bytes : old_bytes, 2 * half, 0));
	}
	memcpy(&old[0], old_bytes, half);
	memcpy(&old[1], old_bytes + half, half);
	emul_set_flags(s, emul_flag(same, RFLAGS_ZF), RFLAGS_ZF);
	if (!same) {
		emul_put_gpr(s, REG_AX, half, old[0]);
		emul_put_gpr(s, REG_DX, half, old[1]);
	}
	return X86_CONTINUE;
}

enum x86_result emul_cmpxchg8b(struct emul *e, const struct insn *in)
{
	return cmpxchg_pair(e, in, 4);
}

enum x86_result emul_cmpxchg16b(struct emul *e, const struct insn *in)
{
	return cmpxchg_pair(e, in, 8);
}

/* ---- multiplication ------------------------------------------------------------------------- */

/* CF = OF = @overflow; the rest is undefined: it stays as it was, as on AMD's processors. */
static void mul_flags(struct x86_state *s, bool overflow)
{
	emul_set_flags(s, emul_flag(overflow, RFLAGS_CF | RFLAGS_OF), RFLAGS_CF | RFLAGS_OF);
}

/* The double-width result of the one-operand forms: AX, or DX:AX in their widths. */
static void put_pair(struct x86_state *s, unsigned size, u64 low, u64 high)
{
	if (size == 1) {
		emul_put_gpr(s, REG_AX, 2, (low & 0xff) | high << 8);
		return;
	}
	emul_put_gpr(s, REG_AX, size, low);
	emul_put_gpr(s, REG_DX, size, high);
}

enum x86_result emul_mul(struct emul *e, const struct insn *in)
{
	unsigned size = in->op[0].size;
	unsigned __int128 r;
	u64 b, high;

	EMUL_TRY(emul_get(e, in, 0, &b));
	r = (unsigned __int128)emul_get_gpr(e->s, REG_AX, size) * b;
	high = (u64)(r >> (8 * size)) & emul_mask(size);
	put_pair(e->s, size, (u64)r, high);
	mul_flags(e->s, high != 0);
	return X86_CONTINUE;
}

enum x86_result emul_imul(struct emul *e, const struct insn *in)
{
	unsigned size = in->op[0].size, bits = 8 * size;
	u64 a, b;
	__int128 r;

	if (in->nops == 1) {
		a = e->s->gpr[REG_AX];
		EMUL_TRY(emul_get(e, in, 0, &b));
	} else {
		EMUL_TRY(emul_get(e, in, in->nops == 3, &a));
		if (in->nops == 3)
			b = in->imm;
		else
			EMUL_TRY(emul_get(e, in, 1, &b));
	}
	r = (__int128)sign_extend(a, bits) * sign_extend(b, bits);
	mul_flags(e->s, r != sign_extend((u64)r, bits));
	if (in->nops == 1)
		put_pair(e->s, size, (u64)r, (u64)(r >> bits) & emul_mask(size));
	else
		emul_put_reg(e, &in->op[0], (u64)r);
	return X86_CONTINUE;
}

enum x86_result emul_mulx(struct emul *e, const struct insn *in)
{
	unsigned size = in->op[0].size;
	unsigned __int128 r;
	u64 b;

	EMUL_TRY(emul_get(e, in, 2, &b));
	r = (unsigned __int128)emul_get_gpr(e->s, REG_DX, size) * b;
	/* The same register twice: the high half wins (SDM 2B MULX). */
	emul_put_reg(e, &in->op[1], (u64)r & emul_mask(size));
	emul_put_reg(e, &in->op[0], (u64)(r >> (8 * size)) & emul_mask(size));
	return X86_CONTINUE;
}

/* ---- division ------------------------------------------------------------------------------- */

/* 128 by 64 bits; C's operator would call a library function. @high < @d. */
static void divide128(u64 high, u64 low, u64 d, u64 *quotient, u64 *remainder)
{
	__asm__("divq %4" : "=a"(*quotient), "=d"(*remainder) : "a"(low), "d"(high), "r"(d) : "cc");
}

/* The dividend: AX, or DX:AX in their widths. */
static void get_pair(const struct x86_state *s, unsigned size, u64 *low, u64 *high)
{
	if (size == 1) {
		*low = (u8)s->gpr[REG_AX];
		*high = (u8)(s->gpr[REG_AX] >> 8);
	} else {
		*low = emul_get_gpr(s, REG_AX, size);
		*high = emul_get_gpr(s, REG_DX, size);
	}
}

static void put_quotient(struct x86_state *s, unsigned size, u64 quotient, u64 remainder)
{
	put_pair(s, size, quotient, remainder);
}

static void divide(unsigned size, u64 high, u64 low, u64 d, u64 *q, u64 *r)
{
	if (size == 8) {
		divide128(high, low, d, q, r);
	} else {
		u64 n = high << (8 * size) | low;

		*q = n / d;
		*r = n % d;
	}
}

enum x86_result emul_div(struct emul *e, const struct insn *in)
{
	unsigned size = in->op[0].size;
	u64 low, high, d, q, r;

	EMUL_TRY(emul_get(e, in, 0, &d));
	get_pair(e->s, size, &low, &high);
	if (high >= d)
		return emul_fault(e, VEC_DE); /* zero, or a quotient that is too large */
	divide(size, high, low, d, &q, &r);
	put_quotient(e->s, size, q, r);
	return X86_CONTINUE;
}

/* By magnitudes: the quotient rounds towards zero, the remainder has the dividend's sign. */
enum x86_result emul_idiv(struct emul *e, const struct insn *in)
{
	unsigned size = in->op[0].size;
	u64 mask = emul_mask(size), sign = emul_sign(size), low, high, d, q, r;
	bool neg_n, neg_d;

	EMUL_TRY(emul_get(e, in, 0, &d));
	get_pair(e->s, size, &low, &high);
	neg_n = high & sign;
	neg_d = d & sign;
	if (neg_n) {
		high = (~high + !low) & mask;
		low = -low & mask;
	}
	if (neg_d)
		d = -d & mask;
	if (high >= d)
		return emul_fault(e, VEC_DE);
	divide(size, high, low, d, &q, &r);
	if (q > (neg_n != neg_d ? sign : sign - 1))
		return emul_fault(e, VEC_DE);
	put_quotient(e->s, size, (neg_n != neg_d ? -q : q) & mask, (neg_n ? -r : r) & mask);
	return X86_CONTINUE;
}

/* ---- decimal -------------------------------------------------------------------------------- */

static enum x86_result decimal_adjust(struct emul *e, bool subtract)
{
	struct x86_state *s = e->s;
	u8 al = s->gpr[REG_AX], old = al;
	bool cf = s->rflags & RFLAGS_CF, af = s->rflags & RFLAGS_AF, carry = false;
	u64 f = 0;

	if ((al & 15) > 9 || af) {
		carry = cf || (subtract ? al < 6 : al > 0xf9);
		al = subtract ? al - 6 : al + 6;
		f |= RFLAGS_AF;
	}
	if (old > 0x99 || cf) {
		al = subtract ? al - 0x60 : al + 0x60;
		carry = true;
	}
	f |= emul_flag(carry, RFLAGS_CF) | emul_szp(al, 1);
	emul_put_gpr(s, REG_AX, 1, al);
	emul_set_flags(s, f, RFLAGS_ARITH);
	return X86_CONTINUE;
}

enum x86_result emul_daa(struct emul *e, const struct insn *in)
{
	return decimal_adjust(e, false);
}

enum x86_result emul_das(struct emul *e, const struct insn *in)
{
	return decimal_adjust(e, true);
}

static enum x86_result ascii_adjust(struct emul *e, bool subtract)
{
	struct x86_state *s = e->s;
	u16 ax = s->gpr[REG_AX];
	bool adjust = (ax & 15) > 9 || (s->rflags & RFLAGS_AF);

	if (adjust)
		ax = subtract ? ax - 0x106 : ax + 0x106;
	ax &= 0xff0f;
	emul_put_gpr(s, REG_AX, 2, ax);
	emul_set_flags(s, emul_flag(adjust, RFLAGS_AF | RFLAGS_CF) | emul_szp(ax & 0xff, 1),
		       RFLAGS_ARITH);
	return X86_CONTINUE;
}

enum x86_result emul_aaa(struct emul *e, const struct insn *in)
{
	return ascii_adjust(e, false);
}

enum x86_result emul_aas(struct emul *e, const struct insn *in)
{
	return ascii_adjust(e, true);
}

enum x86_result emul_aam(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	u8 al = s->gpr[REG_AX], base = in->imm;

	if (!base)
		return emul_fault(e, VEC_DE);
	emul_put_gpr(s, REG_AX, 2, (u16)(al / base) << 8 | al % base);
	emul_set_flags(s, emul_szp(al % base, 1), RFLAGS_ARITH);
	return X86_CONTINUE;
}

enum x86_result emul_aad(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	u8 al = s->gpr[REG_AX] + (u8)(s->gpr[REG_AX] >> 8) * (u8)in->imm;

	emul_put_gpr(s, REG_AX, 2, al);
	emul_set_flags(s, emul_szp(al, 1), RFLAGS_ARITH);
	return X86_CONTINUE;
}
