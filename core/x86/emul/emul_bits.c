/*
 * Shifts, rotates, bit instructions, BMI1, BMI2 and CRC32 (SDM 2A, 2B).
 */
#include "core/x86/emul/emul_priv.h"

/* ---- shifts and rotates --------------------------------------------------------------------- */

/*
 * The count arrives masked to 5 or 6 bits and is not zero: a zero count changes neither flags nor
 * operand, though memory is still written. OF is defined for counts of one; for others the same
 * formula is used, as processors do.
 */
EMUL_INLINE u64 shift_flags(u64 old, u64 r, unsigned size, bool cf, bool of)
{
	return (old & ~RFLAGS_ARITH) | emul_szp(r, size) | emul_flag(cf, RFLAGS_CF) |
	       emul_flag(of, RFLAGS_OF);
}

static u64 bits_shl(unsigned size, u64 a, u64 n, u64 *flags)
{
	unsigned bits = 8 * size;
	u64 r;
	bool cf;

	if (!n)
		return a;
	r = n < bits ? (a << n) & emul_mask(size) : 0;
	cf = n <= bits && ((a >> (bits - n)) & 1);
	* flags = shift_flags(*flags, r, size, cf, !!(r & emul_sign(size)) != cf);
	return r;
}

static u64 bits_shr(unsigned size, u64 a, u64 n, u64 *flags)
{
	unsigned bits = 8 * size;
	u64 r;
	bool cf;

	if (!n)
		return a;
	r = n < bits ? a >> n : 0;
	cf = n <= bits && ((a >> (n - 1)) & 1);
	* flags = shift_flags(*flags, r, size, cf, a & emul_sign(size));
	return r;
}

static u64 bits_sar(unsigned size, u64 a, u64 n, u64 *flags)
{
	unsigned bits = 8 * size;
	s64 v = sign_extend(a, bits);
	u64 r;
	bool cf;

	if (!n)
		return a;
	r = (v >> (n < 64 ? n : 63)) & emul_mask(size);
	cf = (v >> (n - 1 < 64 ? n - 1 : 63)) & 1;
	* flags = shift_flags(*flags, r, size, cf, false);
	return r;
}

static u64 bits_rol(unsigned size, u64 a, u64 n, u64 *flags)
{
	unsigned bits = 8 * size, k = n & (bits - 1);
	bool cf;

	if (!n)
		return a;
	if (k)
		a = (a << k | a >> (bits - k)) & emul_mask(size);
	cf = a & 1;
	* flags = (*flags & ~(RFLAGS_CF | RFLAGS_OF)) | emul_flag(cf, RFLAGS_CF) |
		 emul_flag(!!(a & emul_sign(size)) != cf, RFLAGS_OF);
	return a;
}

static u64 bits_ror(unsigned size, u64 a, u64 n, u64 *flags)
{
	unsigned bits = 8 * size, k = n & (bits - 1);

	if (!n)
		return a;
	if (k)
		a = (a >> k | a << (bits - k)) & emul_mask(size);
	* flags = (*flags & ~(RFLAGS_CF | RFLAGS_OF)) | emul_flag(a & emul_sign(size), RFLAGS_CF) |
		 emul_flag((a ^ a << 1) & emul_sign(size), RFLAGS_OF);
	return a;
}

/* Through carry: a rotation of bits + 1 places (SDM 2B RCL: counts are taken modulo 9, 17; 33 and
 * 65 exceed the mask). */
static u64 bits_rcl(unsigned size, u64 a, u64 n, u64 *flags)
{
	unsigned bits = 8 * size, k = n % (bits + 1);
	u64 cf = *flags & RFLAGS_CF, out, r;

	if (!n)
		return a;
	if (k) {
		out = (a >> (bits - k)) & 1;
		r = k < 64 ? a << k : 0;
		r |= cf << (k - 1);
		if (k > 1)
			r |= a >> (bits + 1 - k);
		a = r & emul_mask(size);
		cf = out;
	}
	* flags = (*flags & ~(RFLAGS_CF | RFLAGS_OF)) | emul_flag(cf, RFLAGS_CF) |
		 emul_flag(!!(a & emul_sign(size)) != cf, RFLAGS_OF);
	return a;
}

static u64 bits_rcr(unsigned size, u64 a, u64 n, u64 *flags)
{
	unsigned bits = 8 * size, k = n % (bits + 1);
	u64 cf = *flags & RFLAGS_CF, out, r;

	if (!n)
		return a;
	if (k) {
		out = (a >> (k - 1)) & 1;
		r = k < 64 ? a >> k : 0;
		r |= cf << (bits - k);
		if (k > 1)
			r |= a << (bits + 1 - k);
		a = r & emul_mask(size);
		cf = out;
	}
	* flags = (*flags & ~(RFLAGS_CF | RFLAGS_OF)) | emul_flag(cf, RFLAGS_CF) |
		 emul_flag((a ^ a << 1) & emul_sign(size), RFLAGS_OF);
	return a;
}

#define SHIFT(name)                                                                       \
	enum x86_result emul_##name(struct emul *e, const struct insn *in)                \
	{                                                                                 \
		u64 n;                                                                    \
                                                                                          \
		EMUL_TRY(emul_get(e, in, 1, &n));                                         \
		return emul_rmw(e, in, n & (in->op[0].size == 8 ? 63 : 31), bits_##name); \
	}
SHIFT(rol)
SHIFT(ror)
SHIFT(rcl)
SHIFT(rcr)
SHIFT(shl)
SHIFT(shr)
SHIFT(sar)

/* SHLD, SHRD. With 16 bits counts above 16 are undefined; processors shift through dest:src:dest.
 */
static enum x86_result double_shift(struct emul *e, const struct insn *in, bool left)
{
	unsigned size = in->op[0].size, bits = 8 * size, n;
	u64 mask = emul_mask(size), flags, a, b, r, count, la = 0;
	bool mem = in->op[0].kind == OPK_MEM, cf;

	EMUL_TRY(emul_get(e, in, 2, &count));
	EMUL_TRY(emul_get(e, in, 1, &b));
	n = count & (size == 8 ? 63 : 31);
	if (mem) {
		EMUL_TRY(emul_mem_la(e, in, size, true, &la));
		EMUL_TRY(emul_read_int(e, la, size, EMUL_ACC_RMW, &a));
	} else {
		EMUL_TRY(emul_get(e, in, 0, &a));
	}
	flags = e->s->rflags;
	r = a;
	if (n && size == 2) {
		u64 wide = left ? a << 32 | b << 16 | a : a << 32 | b << 16 | a;

		if (left) {
			r = (wide << n >> 32) & mask;
			cf = (wide >> (48 - n)) & 1;
		} else {
			r = (wide >> n) & mask;
			cf = (wide >> (n - 1)) & 1;
		}
		flags = shift_flags(flags, r, size, cf, (a ^ r) & emul_sign(size));
	} else if (n) {
		if (left) {
			r = (a << n | b >> (bits - n)) & mask;
			cf = (a >> (bits - n)) & 1;
		} else {
			r = (a >> n | b << (bits - n)) & mask;
			cf = (a >> (n - 1)) & 1;
		}
		flags = shift_flags(flags, r, size, cf, (a ^ r) & emul_sign(size));
	}
	if (mem)
		EMUL_TRY(emul_write(e, la, &r, size, 0));
	else
		emul_put_reg(e, &in->op[0], r);
	e->s->rflags = flags;
	return X86_CONTINUE;
}

enum x86_result emul_shld(struct emul *e, const struct insn *in)
{
	return double_shift(e, in, true);
}

enum x86_result emul_shrd(struct emul *e, const struct insn *in)
{
	return double_shift(e, in, false);
}

/* BMI2: no flags, the count is the last operand. */
enum x86_result emul_rorx(struct emul *e, const struct insn *in)
{
	unsigned size = in->op[0].size, bits = 8 * size, n = in->imm & (bits - 1);
	u64 a;

	EMUL_TRY(emul_get(e, in, 1, &a));
	emul_put_reg(e, &in->op[0], n ? a >> n | a << (bits - n) : a);
	return X86_CONTINUE;
}

enum x86_result emul_shlx(struct emul *e, const struct insn *in)
{
	u64 a, n;

	EMUL_TRY(emul_get(e, in, 1, &a));
	EMUL_TRY(emul_get(e, in, 2, &n));
	emul_put_reg(e, &in->op[0], a << (n & (8 * in->op[0].size - 1)));
	return X86_CONTINUE;
}

enum x86_result emul_shrx(struct emul *e, const struct insn *in)
{
	u64 a, n;

	EMUL_TRY(emul_get(e, in, 1, &a));
	EMUL_TRY(emul_get(e, in, 2, &n));
	emul_put_reg(e, &in->op[0], a >> (n & (8 * in->op[0].size - 1)));
	return X86_CONTINUE;
}

enum x86_result emul_sarx(struct emul *e, const struct insn *in)
{
	unsigned bits = 8 * in->op[0].size;
	u64 a, n;

	EMUL_TRY(emul_get(e, in, 1, &a));
	EMUL_TRY(emul_get(e, in, 2, &n));
	emul_put_reg(e, &in->op[0], sign_extend(a, bits) >> (n & (bits - 1)));
	return X86_CONTINUE;
}

/* ---- bit tests ------------------------------------------------------------------------------ */

EMUL_INLINE u64 bit_flags(u64 flags, bool bit)
{
	return (flags & ~RFLAGS_CF) | emul_flag(bit, RFLAGS_CF);
}
static u64 bit_none(unsigned size, u64 a, u64 n, u64 *flags)
{
	* flags = bit_flags(*flags, a >> n & 1);
	return a;
}
static u64 bit_set(unsigned size, u64 a, u64 n, u64 *flags)
{
	* flags = bit_flags(*flags, a >> n & 1);
	return a | 1ULL << n;
}
static u64 bit_reset(unsigned size, u64 a, u64 n, u64 *flags)
{
	* flags = bit_flags(*flags, a >> n & 1);
	return a & ~(1ULL << n);
}
static u64 bit_complement(unsigned size, u64 a, u64 n, u64 *flags)
{
	* flags = bit_flags(*flags, a >> n & 1);
	return a ^ 1ULL << n;
}

/*
 * A register as bit offset reaches beyond the operand: the address moves by whole operands, signed
 * (SDM 2A BT). An immediate does not.
 */
EMUL_INLINE enum x86_result bit_test(struct emul *e, const struct insn *in, bool write,
				     u64 (*fn)(unsigned size, u64 a, u64 n, u64 *flags))
{
	unsigned size = in->op[0].size, bits = 8 * size;
	u64 n, ea, la, a, val, flags;
	bool done = true;

	EMUL_TRY(emul_get(e, in, 1, &n));
	if (in->op[0].kind != OPK_MEM) {
		if (write)
			return emul_rmw(e, in, n & (bits - 1), fn);
		EMUL_TRY(emul_get(e, in, 0, &a));
		fn(size, a, n & (bits - 1), &e->s->rflags);
		return X86_CONTINUE;
	}
	ea = emul_effective_address(e, in);
	if (in->op[1].kind == OPK_GPR) {
		ea += (sign_extend(n, bits) >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * (s64)size;
		ea &= emul_mask(in->addrsize);
	}
	n &= bits - 1;
	EMUL_TRY(emul_linear(e, in->mem.seg, ea, size, write, &la));
	EMUL_TRY(emul_read_int(e, la, size,
			       (write ? EMUL_ACC_RMW : 0) | (in->lock ? EMUL_ACC_LOCKED : 0), &a));
	do {
		flags = e->s->rflags;
		val = fn(size, a, n, &flags);
		if (in->lock)
			EMUL_TRY(emul_done(e, e->ops->cmpxchg(e, la, &a, &val, size,
							      EMUL_ACC_LOCKED, &done)));
		else if (write)
			EMUL_TRY(emul_write(e, la, &val, size, 0));
	} while (!done);
	e->s->rflags = flags;
	return X86_CONTINUE;
}

enum x86_result emul_bt(struct emul *e, const struct insn *in)
{
	return bit_test(e, in, false, bit_none);
}

enum x86_result emul_bts(struct emul *e, const struct insn *in)
{
	return bit_test(e, in, true, bit_set);
}

enum x86_result emul_btr(struct emul *e, const struct insn *in)
{
	return bit_test(e, in, true, bit_reset);
}

enum x86_result emul_btc(struct emul *e, const struct insn *in)
{
	return bit_test(e, in, true, bit_complement);
}

/* ---- scans and counts ----------------------------------------------------------------------- */

/* A zero source leaves the destination alone on every processor, whatever the manual calls it. */
enum x86_result emul_bsf(struct emul *e, const struct insn *in)
{
	u64 a;

	EMUL_TRY(emul_get(e, in, 1, &a));
	emul_set_flags(e->s, emul_flag(!a, RFLAGS_ZF), RFLAGS_ZF);
	if (a)
		emul_put_reg(e, &in->op[0], __builtin_ctzll(a));
	return X86_CONTINUE;
}

enum x86_result emul_bsr(struct emul *e, const struct insn *in)
{
	u64 a;

	EMUL_TRY(emul_get(e, in, 1, &a));
	emul_set_flags(e->s, emul_flag(!a, RFLAGS_ZF), RFLAGS_ZF);
	if (a)
		emul_put_reg(e, &in->op[0], 63 - __builtin_clzll(a));
	return X86_CONTINUE;
}

/* LZCNT and TZCNT are BSR and BSF where CPUID does not show them: the prefix meant nothing then. */
enum x86_result emul_lzcnt(struct emul *e, const struct insn *in)
{
	unsigned bits = 8 * in->op[0].size, n;
	u64 a;

	if (!emul_has(e, X86_FEATURE_LZCNT))
		return emul_bsr(e, in);
	EMUL_TRY(emul_get(e, in, 1, &a));
	n = a ? __builtin_clzll(a) - (64 - bits) : bits;
	emul_put_reg(e, &in->op[0], n);
	emul_set_flags(e->s, emul_flag(!a, RFLAGS_CF) | emul_flag(!n, RFLAGS_ZF),
		       RFLAGS_CF | RFLAGS_ZF);
	return X86_CONTINUE;
}

enum x86_result emul_tzcnt(struct emul *e, const struct insn *in)
{
	unsigned bits = 8 * in->op[0].size, n;
	u64 a;

	if (!emul_has(e, X86_FEATURE_BMI1))
		return emul_bsf(e, in);
	EMUL_TRY(emul_get(e, in, 1, &a));
	n = a ? __builtin_ctzll(a) : bits;
	emul_put_reg(e, &in->op[0], n);
	emul_set_flags(e->s, emul_flag(!a, RFLAGS_CF) | emul_flag(!n, RFLAGS_ZF),
		       RFLAGS_CF | RFLAGS_ZF);
	return X86_CONTINUE;
}

static unsigned count_ones(u64 a)
{
	a -= (a >> 1) & 0x5555555555555555ULL;
	a = (a & 0x3333333333333333ULL) + ((a >> 2) & 0x3333333333333333ULL);
	a = (a + (a >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (a * 0x0101010101010101ULL) >> 56;
}

enum x86_result emul_popcnt(struct emul *e, const struct insn *in)
{
	u64 a;

	EMUL_TRY(emul_get(e, in, 1, &a));
	emul_put_reg(e, &in->op[0], count_ones(a));
	emul_set_flags(e->s, emul_flag(!a, RFLAGS_ZF), RFLAGS_ARITH);
	return X86_CONTINUE;
}

/* 16 bits are undefined; AMD's and Intel's processors give zero. */
enum x86_result emul_bswap(struct emul *e, const struct insn *in)
{
	const struct operand *op = &in->op[0];
	u64 a = emul_get_gpr(e->s, op->reg, op->size);

	if (op->size == 8)
		a = __builtin_bswap64(a);
	else
		a = op->size == 4 ? __builtin_bswap32(a) : 0;
	emul_put_reg(e, op, a);
	return X86_CONTINUE;
}

/* CRC-32C, reflected polynomial, bit by bit (SDM 2A CRC32). */
enum x86_result emul_crc32(struct emul *e, const struct insn *in)
{
	u32 crc = e->s->gpr[in->op[0].reg];
	unsigned i, bits = 8 * in->op[1].size;
	u64 a;

	EMUL_TRY(emul_get(e, in, 1, &a));
	for (i = 0; i < bits; i++, a >>= 1)
		crc = (crc ^ a) & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
	e->s->gpr[in->op[0].reg] = crc;
	return X86_CONTINUE;
}

/* ---- BMI1, BMI2 ----------------------------------------------------------------------------- */

/* SF and ZF by the result, CF given, OF clear; PF undefined, computed; AF undefined, clear. */
static void bmi_put(struct emul *e, const struct operand *dst, u64 r, bool cf)
{
	r &= emul_mask(dst->size);
	emul_put_reg(e, dst, r);
	emul_set_flags(e->s, (emul_szp(r, dst->size) & ~RFLAGS_PF) | emul_flag(cf, RFLAGS_CF),
		       RFLAGS_ARITH);
}

enum x86_result emul_andn(struct emul *e, const struct insn *in)
{
	u64 a, b;

	EMUL_TRY(emul_get(e, in, 1, &a));
	EMUL_TRY(emul_get(e, in, 2, &b));
	bmi_put(e, &in->op[0], ~a & b, false);
	return X86_CONTINUE;
}

/* Operand 2: start in bits 0..7, length in bits 8..15. */
enum x86_result emul_bextr(struct emul *e, const struct insn *in)
{
	unsigned start, length;
	u64 a, control;

	EMUL_TRY(emul_get(e, in, 1, &a));
	EMUL_TRY(emul_get(e, in, 2, &control));
	start = control & 0xff;
	length = (control >> 8) & 0xff;
	a = start < 64 ? a >> start : 0;
	if (length < 64)
		a &= BIT64(length) - 1;
	bmi_put(e, &in->op[0], a, false);
	emul_set_flags(e->s, 0, RFLAGS_SF); /* undefined; clear on processors */
	return X86_CONTINUE;
}

enum x86_result emul_blsi(struct emul *e, const struct insn *in)
{
	u64 a;

	EMUL_TRY(emul_get(e, in, 1, &a));
	bmi_put(e, &in->op[0], a & -a, a != 0);
	return X86_CONTINUE;
}

enum x86_result emul_blsmsk(struct emul *e, const struct insn *in)
{
	u64 a;

	EMUL_TRY(emul_get(e, in, 1, &a));
	bmi_put(e, &in->op[0], a ^ (a - 1), a == 0);
	return X86_CONTINUE;
}

enum x86_result emul_blsr(struct emul *e, const struct insn *in)
{
	u64 a;

	EMUL_TRY(emul_get(e, in, 1, &a));
	bmi_put(e, &in->op[0], a & (a - 1), a == 0);
	return X86_CONTINUE;
}

enum x86_result emul_bzhi(struct emul *e, const struct insn *in)
{
	unsigned bits = 8 * in->op[0].size;
	u64 a, n;

	EMUL_TRY(emul_get(e, in, 1, &a));
	EMUL_TRY(emul_get(e, in, 2, &n));
	n &= 0xff;
	bmi_put(e, &in->op[0], n < bits ? a & (BIT64(n) - 1) : a, n >= bits);
	return X86_CONTINUE;
}

enum x86_result emul_pdep(struct emul *e, const struct insn *in)
{
	u64 a, mask, r = 0;

	EMUL_TRY(emul_get(e, in, 1, &a));
	EMUL_TRY(emul_get(e, in, 2, &mask));
	for (; mask; mask &= mask - 1, a >>= 1)
		if (a & 1)
			r |= mask & -mask;
	emul_put_reg(e, &in->op[0], r);
	return X86_CONTINUE;
}

enum x86_result emul_pext(struct emul *e, const struct insn *in)
{
	u64 a, mask, bit = 1, r = 0;

	EMUL_TRY(emul_get(e, in, 1, &a));
	EMUL_TRY(emul_get(e, in, 2, &mask));
	for (; mask; mask &= mask - 1, bit <<= 1)
		if (a & mask & -mask)
			r |= bit;
	emul_put_reg(e, &in->op[0], r);
	return X86_CONTINUE;
}
