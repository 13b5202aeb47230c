/*
 * The instruction decoder: see decode.h for what it promises, opcodes.h for how the tables work.
 *
 * The order is the processor's: prefixes, opcode, ModRM and SIB, displacement, immediate. Everything that
 * can select an instruction is gathered into one 32-bit key, the opcode's rows are tried in turn, and the
 * row that fits says what the operands are.
 */
#include "core/x86/emul/opcodes.h"

/* ---- the tables ---- */

#define TBL_CAT_(a, b) a##b
#define TBL_CAT(a, b) TBL_CAT_(a, b)

/* First, number the rows. Each group of rows follows a terminator, which ends the one before. */
#define AT(map, op) TERM_##map##_##op, ROW_##map##_##op, FIX_##map##_##op = ROW_##map##_##op - 1,
#define MD(map, op) TERM_##map##_##op, ROW_##map##_##op, FIX_##map##_##op = ROW_##map##_##op - 1,
#define ATR(map, op, last) AT(map, op)
#define MDR(map, op, last) MD(map, op)
#define R(...) TBL_CAT(ROW_NUMBER_, __COUNTER__),
enum {
#include "core/x86/emul/opcodes_legacy.h"
#include "core/x86/emul/opcodes_x87.h"
#include "core/x86/emul/opcodes_sse.h"
#include "core/x86/emul/opcodes_vex.h"
#include "core/x86/emul/opcodes_xop.h"
#include "core/x86/emul/opcodes_evex.h"
#include "core/x86/emul/opcodes_fp16.h"
	ROW_COUNT
};
#undef AT
#undef MD
#undef ATR
#undef MDR
#undef R

/* Second, where the rows of an opcode begin; 0 is a terminator: undefined. */
#define INDEX_MODRM 0x8000
_Static_assert(ROW_COUNT < INDEX_MODRM, "row numbers share a u16 with a flag");
#define AT(map, op) [TBL_##map][0x##op] = ROW_##map##_##op,
#define MD(map, op) [TBL_##map][0x##op] = ROW_##map##_##op | INDEX_MODRM,
#define ATR(map, op, last) [TBL_##map][0x##op ... 0x##last] = ROW_##map##_##op,
#define MDR(map, op, last) [TBL_##map][0x##op ... 0x##last] = ROW_##map##_##op | INDEX_MODRM,
#define R(...)
static const u16 row_index[TBL_COUNT][256] = {
#include "core/x86/emul/opcodes_legacy.h"
#include "core/x86/emul/opcodes_x87.h"
#include "core/x86/emul/opcodes_sse.h"
#include "core/x86/emul/opcodes_vex.h"
#include "core/x86/emul/opcodes_xop.h"
#include "core/x86/emul/opcodes_evex.h"
#include "core/x86/emul/opcodes_fp16.h"
};
#undef AT
#undef MD
#undef ATR
#undef MDR
#undef R

/* Third, the rows. */
#define ACCESS_DEFAULT (2ull | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8)
#define AT(map, op) { .mnemonic = MN_INVALID },
#define MD(map, op) AT(map, op)
#define ATR(map, op, last) AT(map, op)
#define MDR(map, op, last) AT(map, op)
#define R(mn, when_, attr_, ...) \
	{ .when = (when_), .attr = (attr_), .mnemonic = MN_##mn, .op = { __VA_ARGS__ } },
static const struct insn_row rows[] = {
#include "core/x86/emul/opcodes_legacy.h"
#include "core/x86/emul/opcodes_x87.h"
#include "core/x86/emul/opcodes_sse.h"
#include "core/x86/emul/opcodes_vex.h"
#include "core/x86/emul/opcodes_xop.h"
#include "core/x86/emul/opcodes_evex.h"
#include "core/x86/emul/opcodes_fp16.h"
	{ .mnemonic = MN_INVALID },
};
_Static_assert(ARRAY_SIZE(rows) == ROW_COUNT + 1, "the passes over the tables agree");
#undef AT
#undef MD
#undef ATR
#undef MDR
#undef R

#define N(suffix, mn, attr_) \
	[0x##suffix] = { .attr = S_MMX | (attr_), .mnemonic = MN_##mn, .op = { Pq, Qq } },
static const struct insn_row rows_3dnow[256] = {
#include "core/x86/emul/opcodes_3dnow.h"
};
#undef N

#define INSN_MNEMONIC_NAME(name) [MN_##name] = #name,
static const char *const mnemonic_names[MN_COUNT] = {
	[MN_INVALID] = "(invalid)",
	INSN_MNEMONICS(INSN_MNEMONIC_NAME)
	[MN_SIMD_FIRST] = "(invalid)",
	INSN_MNEMONICS_SIMD(INSN_MNEMONIC_NAME)
};
#undef INSN_MNEMONIC_NAME

const char *mnemonic_name(enum mnemonic mnemonic)
{
	return (unsigned int)mnemonic < MN_COUNT ? mnemonic_names[mnemonic] : mnemonic_names[0];
}

/* ---- operands ---- */

/* Sizes up to 64 are themselves, in bytes; the others depend on the instruction. */
enum {
	SZ_V = 0x80, /* operand size */
	SZ_Z,        /* 2 or 4 */
	SZ_Y,        /* 4, or 8 by W */
	SZ_M,        /* 4, or 8 in 64-bit mode */
	SZ_A,        /* address size */
	SZ_X,        /* vector length, and its fractions */
	SZ_XH,
	SZ_XF,
	SZ_XE,
	SZ_DD,       /* VMOVDDUP */
	SZ_P,        /* far pointer */
	SZ_2V,       /* BOUND's pair */
	SZ_S,        /* GDTR, IDTR */
	SZ_14,       /* x87 environment */
	SZ_94,       /* x87 state */
	SZ_512,
};

/* Where an operand is encoded, and what kind of register. */
enum {
	LOC_RM_GPR = 1, LOC_RM_VEC, LOC_RM_MMX, LOC_RM_K, LOC_RM_TMM, LOC_VSIB,
	LOC_REG_GPR, LOC_REG_VEC, LOC_REG_MMX, LOC_REG_K, LOC_REG_TMM, LOC_REG_SREG,
	LOC_REG_CR, LOC_REG_DR, LOC_V_GPR, LOC_V_VEC, LOC_V_K, LOC_V_TMM, LOC_OPC_GPR, LOC_OPC_SREG,
	LOC_IS4, LOC_FIXED_GPR, LOC_ONE, LOC_XMM0, LOC_ST0, LOC_STI, LOC_IMM, LOC_IMM_S, LOC_IMM2,
	LOC_REL, LOC_FAR, LOC_MOFFS,
};

static const u8 loc_field[] = {
	[LOC_RM_GPR ... LOC_VSIB] = OPF_RM, [LOC_REG_GPR ... LOC_REG_DR] = OPF_REG, [LOC_V_GPR ... LOC_V_TMM] = OPF_VVVV,
	[LOC_OPC_GPR] = OPF_LOW, [LOC_IS4] = OPF_IS4, [LOC_STI] = OPF_RM, [LOC_MOFFS] = OPF_NONE,
};

struct opspec {
	u8 loc;
	u8 reg_size; /* of a register or an immediate */
	u8 mem_size;
	u8 extra;    /* LOC_FIXED_GPR: the register */
};

static const struct opspec opspecs[OPSPEC_COUNT] = {
	[Eb] = { LOC_RM_GPR, 1, 1 },
	[Ew] = { LOC_RM_GPR, 2, 2 },
	[Ed] = { LOC_RM_GPR, 4, 4 },
	[Eq] = { LOC_RM_GPR, 8, 8 },
	[Ev] = { LOC_RM_GPR, SZ_V, SZ_V },
	[Ey] = { LOC_RM_GPR, SZ_Y, SZ_Y },
	[Ez] = { LOC_RM_GPR, SZ_Z, SZ_Z },
	[Ewv] = { LOC_RM_GPR, SZ_V, 2 },
	[Ewz] = { LOC_RM_GPR, SZ_Z, 2 },
	[Ebd] = { LOC_RM_GPR, 4, 1 },
	[Ewd] = { LOC_RM_GPR, 4, 2 },
	[Em] = { LOC_RM_GPR, SZ_M, SZ_M },
	[M0] = { LOC_RM_GPR, 0, 0 },
	[Mb] = { LOC_RM_GPR, 1, 1 },
	[Mw] = { LOC_RM_GPR, 2, 2 },
	[Md] = { LOC_RM_GPR, 4, 4 },
	[Mq] = { LOC_RM_GPR, 8, 8 },
	[Mo] = { LOC_RM_GPR, 16, 16 },
	[Mt] = { LOC_RM_GPR, 10, 10 },
	[Mv] = { LOC_RM_GPR, SZ_V, SZ_V },
	[My] = { LOC_RM_GPR, SZ_Y, SZ_Y },
	[Mx] = { LOC_RM_GPR, SZ_X, SZ_X },
	[Mp] = { LOC_RM_GPR, SZ_P, SZ_P },
	[Ma] = { LOC_RM_GPR, SZ_2V, SZ_2V },
	[Ms] = { LOC_RM_GPR, SZ_S, SZ_S },
	[M512] = { LOC_RM_GPR, SZ_512, SZ_512 },
	[M64B] = { LOC_RM_GPR, 64, 64 },
	[M48B] = { LOC_RM_GPR, 48, 48 },
	[M14] = { LOC_RM_GPR, SZ_14, SZ_14 },
	[M94] = { LOC_RM_GPR, SZ_94, SZ_94 },
	[Mst] = { LOC_RM_GPR, 0, 0 },
	[Gb] = { LOC_REG_GPR, 1 },
	[Gw] = { LOC_REG_GPR, 2 },
	[Gd] = { LOC_REG_GPR, 4 },
	[Gq] = { LOC_REG_GPR, 8 },
	[Gv] = { LOC_REG_GPR, SZ_V },
	[Gy] = { LOC_REG_GPR, SZ_Y },
	[Gm] = { LOC_REG_GPR, SZ_M },
	[Ga] = { LOC_REG_GPR, SZ_A },
	[Ra] = { LOC_RM_GPR, SZ_A, SZ_A },
	[Zb] = { LOC_OPC_GPR, 1 },
	[Zv] = { LOC_OPC_GPR, SZ_V },
	[By] = { LOC_V_GPR, SZ_Y },
	[AL] = { LOC_FIXED_GPR, 1, 0, GPR_RAX },
	[AX] = { LOC_FIXED_GPR, 2, 0, GPR_RAX },
	[CL] = { LOC_FIXED_GPR, 1, 0, GPR_RCX },
	[DX] = { LOC_FIXED_GPR, 2, 0, GPR_RDX },
	[rAX] = { LOC_FIXED_GPR, SZ_V, 0, GPR_RAX },
	[zAX] = { LOC_FIXED_GPR, SZ_Z, 0, GPR_RAX },
	[ONE] = { LOC_ONE, 1 },
	[XMM0] = { LOC_XMM0, 16 },
	[Ib] = { LOC_IMM, 1, 1 },
	[Ibs] = { LOC_IMM_S, SZ_V, 1 },
	[Iw] = { LOC_IMM, 2, 2 },
	[Iz] = { LOC_IMM_S, SZ_V, SZ_Z },
	[Iv] = { LOC_IMM, SZ_V, SZ_V },
	[Id] = { LOC_IMM, 4, 4 },
	[Ib2] = { LOC_IMM2, 1, 1 },
	[Ob] = { LOC_MOFFS, 0, 1 },
	[Ov] = { LOC_MOFFS, 0, SZ_V },
	[Jb] = { LOC_REL, SZ_V, 1 },
	[Jz] = { LOC_REL, SZ_V, SZ_Z },
	[Ap] = { LOC_FAR, SZ_P, SZ_Z },
	[Sw] = { LOC_REG_SREG, 2 },
	[Zs] = { LOC_OPC_SREG, 2 },
	[Cr] = { LOC_REG_CR, SZ_M },
	[Dr] = { LOC_REG_DR, SZ_M },
	[ST0] = { LOC_ST0, 10 },
	[STi] = { LOC_STI, 10 },
	[Pq] = { LOC_REG_MMX, 8 },
	[Qq] = { LOC_RM_MMX, 8, 8 },
	[Qd] = { LOC_RM_MMX, 8, 4 },
	[Vo] = { LOC_REG_VEC, 16 },
	[Vx] = { LOC_REG_VEC, SZ_X },
	[Vh] = { LOC_REG_VEC, SZ_XH },
	[Vf] = { LOC_REG_VEC, SZ_XF },
	[Ho] = { LOC_V_VEC, 16 },
	[Hx] = { LOC_V_VEC, SZ_X },
	[Wo] = { LOC_RM_VEC, 16, 16 },
	[Wx] = { LOC_RM_VEC, SZ_X, SZ_X },
	[Wh] = { LOC_RM_VEC, SZ_XH, SZ_XH },
	[Wf] = { LOC_RM_VEC, SZ_XF, SZ_XF },
	[We] = { LOC_RM_VEC, SZ_XE, SZ_XE },
	[Wq] = { LOC_RM_VEC, 16, 8 },
	[Wd] = { LOC_RM_VEC, 16, 4 },
	[Ww] = { LOC_RM_VEC, 16, 2 },
	[Wb] = { LOC_RM_VEC, 16, 1 },
	[Wy] = { LOC_RM_VEC, 32, 32 },
	[Wdd] = { LOC_RM_VEC, SZ_X, SZ_DD },
	[Lo] = { LOC_IS4, 16, 1 },
	[Lx] = { LOC_IS4, SZ_X, 1 },
	[VMd] = { LOC_VSIB, 0, 4 },
	[VMq] = { LOC_VSIB, 0, 8 },
	[Kr] = { LOC_REG_K, 8 },
	[Kr2] = { LOC_REG_K, 8, 0, 1 },
	[Kv] = { LOC_V_K, 8 },
	[Km] = { LOC_RM_K, 8, 8 },
	[Kmb] = { LOC_RM_K, 8, 1 },
	[Kmw] = { LOC_RM_K, 8, 2 },
	[Kmd] = { LOC_RM_K, 8, 4 },
	[Kmq] = { LOC_RM_K, 8, 8 },
	[Tr] = { LOC_REG_TMM, 0 },
	[Tv] = { LOC_V_TMM, 0 },
	[Tm] = { LOC_RM_TMM, 0 },
};

static unsigned int size_of(const struct insn *insn, u8 code)
{
	switch (code) {
	case SZ_V:   return insn->opsize;
	case SZ_Z:   return insn->opsize == 2 ? 2 : 4;
	case SZ_Y:   return insn->w && insn->mode == MODE_64 ? 8 : 4;
	case SZ_M:   return insn->mode == MODE_64 ? 8 : 4;
	case SZ_A:   return insn->addrsize;
	case SZ_X:   return insn->vl;
	case SZ_XH:  return insn->vl / 2;
	case SZ_XF:  return insn->vl / 4;
	case SZ_XE:  return insn->vl / 8;
	case SZ_DD:  return insn->vl == 16 ? 8 : insn->vl;
	case SZ_P:   return insn->opsize + 2;
	case SZ_2V:  return insn->opsize * 2;
	case SZ_S:   return insn->mode == MODE_64 ? 10 : 6;
	case SZ_14:  return insn->opsize == 2 ? 14 : 28;
	case SZ_94:  return insn->opsize == 2 ? 94 : 108;
	case SZ_512: return 512;
	default:     return code;
	}
}

/* ---- the decoder proper ---- */

/* The state of one call, beside what goes into struct insn. */
struct decoder {
	const u8 *bytes;
	unsigned int avail; /* readable bytes, at most INSN_MAX_LEN */
	unsigned int pos;
	bool truncated;     /* avail is the client's limit, not the architecture's */
	/* Register extensions, already in place: 8 or 0, 16 or 0 */
	u8 r, x, b, r2, v2;
	u8 vvvv; /* all of it: what no operand names must be zero in every mode */
};

static inline int need(struct decoder *d, unsigned int n)
{
	if (likely(d->pos + n <= d->avail))
		return 0;
	return d->truncated ? INSN_NEED_MORE : INSN_TOO_LONG;
}

/* Little-endian, any alignment; the caller has checked that the bytes are there. */
static inline __attribute__((always_inline)) u64 fetch(struct decoder *d, unsigned int n)
{
	u64 v = 0;

	__builtin_memcpy(&v, d->bytes + d->pos, n); /* a load: n is constant once inlined */
	d->pos += n;
	return v;
}

static inline u64 fetch_sized(struct decoder *d, unsigned int n)
{
	switch (n) {
	case 1:  return fetch(d, 1);
	case 2:  return fetch(d, 2);
	case 4:  return fetch(d, 4);
	default: return fetch(d, 8);
	}
}

static inline s64 extend(u64 v, unsigned int bytes)
{
	unsigned int shift = 64 - 8 * bytes;

	return (s64)(v << shift) >> shift;
}

enum { PFX_NONE, PFX_SEG, PFX_66, PFX_67, PFX_LOCK, PFX_REP, PFX_REX };

static const u8 prefix_class[256] = {
	[0x26] = PFX_SEG, [0x2e] = PFX_SEG, [0x36] = PFX_SEG, [0x3e] = PFX_SEG,
	[0x64] = PFX_SEG, [0x65] = PFX_SEG, [0x66] = PFX_66,  [0x67] = PFX_67,
	[0xf0] = PFX_LOCK, [0xf2] = PFX_REP, [0xf3] = PFX_REP, [0x40 ... 0x4f] = PFX_REX,
};

static int decode_prefixes(struct decoder *d, struct insn *insn)
{
	for (;;) {
		u8 byte, class;
		int err = need(d, 1);

		if (err)
			return err;
		byte = d->bytes[d->pos];
		class = prefix_class[byte];
		if (likely(class == PFX_NONE))
			return 0;
		if (class == PFX_REX) {
			if (insn->mode != MODE_64)
				return 0;
			insn->rex = byte;
			d->pos++;
			continue;
		}
		/* A REX prefix counts only right before the opcode (SDM 2A 2.2.1). */
		insn->rex = 0;
		d->pos++;
		switch (class) {
		case PFX_66:
			insn->pfx66 = true;
			break;
		case PFX_67:
			insn->pfx67 = true;
			break;
		case PFX_LOCK:
			insn->lock = true;
			break;
		case PFX_REP:
			insn->rep = byte;
			break;
		default:
			if (byte >= 0x64)
				insn->seg_override = byte == 0x64 ? SEG_FS : SEG_GS;
			else if (insn->mode != MODE_64)
				insn->seg_override = byte >> 3 & 3;
		}
	}
}

static void set_rex(struct decoder *d, struct insn *insn, bool w, bool r, bool x, bool b)
{
	/* The bits beyond eight registers mean nothing outside 64-bit mode (SDM 2A 2.3.5). */
	if (insn->mode != MODE_64)
		r = x = b = false;
	insn->w = w;
	d->r = r << 3;
	d->x = x << 3;
	d->b = b << 3;
	if (insn->encoding != INSN_ENC_LEGACY)
		insn->rex = 0x40 | w << 3 | r << 2 | x << 1 | b;
}

/* VEX, XOP, EVEX: the byte at pos is 62, 8F, C4 or C5 and begins one. */
static int decode_vex(struct decoder *d, struct insn *insn, int *table)
{
	u8 first = d->bytes[d->pos], p0, p1, p2;
	unsigned int map;
	int err;

	if (insn->lock || insn->pfx66 || insn->rep || insn->rex)
		return INSN_UD;
	err = need(d, first == 0xc5 ? 2 : first == 0x62 ? 4 : 3);
	if (err)
		return err;
	p0 = d->bytes[d->pos + 1];
	p1 = first == 0xc5 ? 0 : d->bytes[d->pos + 2];
	switch (first) {
	case 0xc5:
		insn->encoding = INSN_ENC_VEX;
		insn->vvvv = ~p0 >> 3 & 15;
		insn->ll = p0 >> 2 & 1;
		insn->pp = p0 & 3;
		set_rex(d, insn, false, !(p0 & 0x80), false, false);
		insn->map = INSN_MAP_0F;
		*table = TBL_V1;
		d->pos += 2;
		break;
	case 0x62:
		p2 = d->bytes[d->pos + 3];
		insn->encoding = INSN_ENC_EVEX;
		if ((p0 & 0x08) || !(p1 & 0x04))
			return INSN_UD;
		insn->vvvv = ~p1 >> 3 & 15;
		insn->pp = p1 & 3;
		insn->z = p2 >> 7;
		insn->ll = p2 >> 5 & 3;
		insn->b = p2 >> 4 & 1;
		insn->aaa = p2 & 7;
		set_rex(d, insn, p1 & 0x80, !(p0 & 0x80), !(p0 & 0x40), !(p0 & 0x20));
		d->v2 = p2 & 0x08 ? 0 : 16;
		d->r2 = p0 & 0x10 ? 0 : 16;
		if (insn->mode != MODE_64)
			d->r2 = 0;
		map = p0 & 7;
		insn->map = map;
		switch (map) {
		case 1: *table = TBL_E1; break;
		case 2: *table = TBL_E2; break;
		case 3: *table = TBL_E3; break;
		case 5: *table = TBL_E5; break;
		case 6: *table = TBL_E6; break;
		default: return INSN_UD;
		}
		d->pos += 4;
		break;
	default:
		insn->encoding = first == 0xc4 ? INSN_ENC_VEX : INSN_ENC_XOP;
		insn->vvvv = ~p1 >> 3 & 15;
		insn->ll = p1 >> 2 & 1;
		insn->pp = p1 & 3;
		set_rex(d, insn, p1 & 0x80, !(p0 & 0x80), !(p0 & 0x40), !(p0 & 0x20));
		map = p0 & 31;
		insn->map = map;
		if (first == 0xc4) {
			if (map < 1 || map > 3)
				return INSN_UD;
			*table = TBL_V1 + map - 1;
		} else {
			if (map < 8 || map > 10 || insn->pp)
				return INSN_UD;
			*table = TBL_X8 + map - 8;
		}
		d->pos += 3;
	}
	d->vvvv = insn->vvvv | d->v2;
	if (insn->mode != MODE_64) {
		if (d->v2)
			return INSN_UD;
		insn->vvvv &= 7;
	}
	return 0;
}

static int decode_opcode(struct decoder *d, struct insn *insn, int *table)
{
	u8 byte = d->bytes[d->pos];
	int err;

	insn->prefix_len = d->pos;
	if (byte == 0x62 || byte == 0xc4 || byte == 0xc5 || byte == 0x8f) {
		bool vex;

		err = need(d, 2);
		if (err)
			return err;
		/* Outside 64-bit mode these are BOUND, LES and LDS unless mod would be 3. */
		if (byte == 0x8f)
			vex = (d->bytes[d->pos + 1] & 0x1f) >= 8;
		else
			vex = insn->mode == MODE_64 || (d->bytes[d->pos + 1] & 0xc0) == 0xc0;
		if (vex) {
			err = decode_vex(d, insn, table);
			if (err)
				return err;
			goto opcode;
		}
	}
	insn->has_rex = insn->rex != 0;
	set_rex(d, insn, insn->rex & 8, insn->rex & 4, insn->rex & 2, insn->rex & 1);
	insn->pp = insn->rep ? insn->rep ^ 0xf1 : insn->pfx66; /* F3: 2, F2: 3 */
	*table = TBL_1B;
	if (byte == 0x0f) {
		d->pos++;
		err = need(d, 1);
		if (err)
			return err;
		byte = d->bytes[d->pos];
		*table = TBL_0F;
		insn->map = INSN_MAP_0F;
		if (byte == 0x38 || byte == 0x3a) {
			*table = byte == 0x38 ? TBL_38 : TBL_3A;
			insn->map = byte == 0x38 ? INSN_MAP_0F38 : INSN_MAP_0F3A;
			d->pos++;
		}
	}
opcode:
	err = need(d, 1);
	if (err)
		return err;
	insn->opcode_off = d->pos;
	insn->opcode = d->bytes[d->pos++];
	return 0;
}

/* 16-bit addressing, by ModRM.rm (SDM 2A table 2-1). */
static const struct {
	u8 base, index;
} addr16[8] = {
	{ GPR_RBX, GPR_RSI }, { GPR_RBX, GPR_RDI }, { GPR_RBP, GPR_RSI }, { GPR_RBP, GPR_RDI },
	{ GPR_RSI, INSN_REG_NONE }, { GPR_RDI, INSN_REG_NONE }, { GPR_RBP, INSN_REG_NONE },
	{ GPR_RBX, INSN_REG_NONE },
};

/* The memory form of ModRM: SIB, displacement, base, index. */
static int decode_address(struct decoder *d, struct insn *insn)
{
	struct insn_mem *mem = &insn->mem;
	unsigned int disp_size = insn->mod == 1 ? 1 : insn->mod == 2 ? 4 : 0;
	int err;

	mem->index = INSN_REG_NONE;
	if (insn->addrsize == 2) {
		if (disp_size == 4)
			disp_size = 2;
		mem->base = addr16[insn->rm].base;
		mem->index = addr16[insn->rm].index;
		if (mem->index != INSN_REG_NONE)
			mem->scale = 1;
		if (insn->mod == 0 && insn->rm == 6) {
			mem->base = INSN_REG_NONE;
			disp_size = 2;
		}
	} else {
		mem->base = insn->rm | d->b;
		if (insn->rm == 4) {
			u8 index;

			err = need(d, 1);
			if (err)
				return err;
			insn->has_sib = true;
			insn->sib_off = d->pos;
			insn->sib = d->bytes[d->pos++];
			mem->base = (insn->sib & 7) | d->b;
			index = (insn->sib >> 3 & 7) | d->x;
			if (index != GPR_RSP) {
				mem->index = index;
				mem->scale = 1 << (insn->sib >> 6);
			}
			if (insn->mod == 0 && (insn->sib & 7) == 5) {
				mem->base = INSN_REG_NONE;
				disp_size = 4;
			}
		} else if (insn->mod == 0 && insn->rm == 5) {
			mem->base = INSN_REG_NONE;
			disp_size = 4;
			mem->rip_rel = insn->mode == MODE_64;
		}
	}
	if (disp_size) {
		err = need(d, disp_size);
		if (err)
			return err;
		insn->disp_off = d->pos;
		insn->disp_size = disp_size;
		mem->disp = extend(fetch_sized(d, disp_size), disp_size);
	}
	mem->seg = mem->base == GPR_RSP || mem->base == GPR_RBP ? SEG_SS : SEG_DS;
	if (insn->seg_override != INSN_SEG_NONE)
		mem->seg = insn->seg_override;
	return 0;
}

/* The immediate at the current position; a second one follows the first. */
static int fetch_imm(struct decoder *d, struct insn *insn, unsigned int size, u64 *value)
{
	int err = need(d, size);

	if (err)
		return err;
	if (!insn->imm_off)
		insn->imm_off = d->pos;
	insn->imm_size += size;
	*value = fetch_sized(d, size);
	return 0;
}

static void gpr_operand(const struct insn *insn, struct operand *op, u8 reg, unsigned int size)
{
	op->kind = OPK_GPR;
	op->size = size;
	/* Without REX, 4 to 7 are AH, CH, DH, BH. */
	if (size == 1 && reg >= 4 && reg < 8 && !insn->has_rex && insn->encoding == INSN_ENC_LEGACY) {
		op->kind = OPK_GPR_HI;
		reg -= 4;
	}
	op->reg = reg;
}

static void vec_operand(struct operand *op, u8 reg, unsigned int size)
{
	op->kind = size <= 16 ? OPK_XMM : size == 32 ? OPK_YMM : OPK_ZMM;
	op->size = size <= 16 ? 16 : size;
	op->reg = reg;
}

static void mem_operand(struct insn *insn, struct operand *op, unsigned int size)
{
	op->kind = OPK_MEM;
	op->size = size;
	insn->has_mem = true;
	insn->mem_op = op - insn->op;
	insn->mem.size = size;
	insn->mem.access = op->access;
}

/* What the EVEX attributes of a row allow: masking, broadcast, rounding. */
static int check_evex(struct insn *insn, u64 attr)
{
	if (insn->aaa ? !(attr & MK) : insn->z || (attr & MREQ))
		return INSN_UD;
	if (insn->z && !(attr & ATTR_ZERO))
		return INSN_UD;
	if (insn->b) {
		if (insn->mod != 3) {
			if (!(attr & BC8))
				return INSN_UD;
		} else if (attr & SAE) {
			insn->sae = true;
			if ((attr & ATTR_ER))
				insn->round = 4 | insn->ll;
			insn->vl = 64;
		} else if (attr & IGNB) {
			insn->vl = 64;
		} else {
			return INSN_UD;
		}
	}
	return 0;
}

/* Broadcast, and the scaling of disp8, once the memory operand's size is known. */
static void finish_evex_mem(struct insn *insn, u64 attr)
{
	struct insn_mem *mem = &insn->mem;
	unsigned int n = attr >> ATTR_N & 7;

	if (insn->b) {
		unsigned int element = 1u << (attr >> ATTR_BCAST & 3);

		mem->bcast = mem->size / element;
		mem->size = element;
		insn->op[insn->mem_op].size = element;
	}
	if (insn->disp_size == 1)
		mem->disp *= n ? 1 << (n - 1) : mem->size;
}

/* CR1, CR5 to CR7 and those above CR8 do not exist. */
#define CREGS_DEFINED 0x011d

static int decode_operand(struct decoder *d, struct insn *insn, unsigned int i, u8 spec, u64 attr)
{
	const struct opspec *s = &opspecs[spec];
	struct operand *op = &insn->op[i];
	unsigned int size = size_of(insn, s->reg_size);
	int err;

	op->field = loc_field[s->loc];
	switch (s->loc) {
	case LOC_RM_GPR:
	case LOC_RM_VEC:
	case LOC_RM_MMX:
	case LOC_RM_K:
	case LOC_VSIB:
		if (insn->mod != 3) {
			mem_operand(insn, op, size_of(insn, s->mem_size));
			return 0;
		}
		break;
	}
	switch (s->loc) {
	case LOC_RM_GPR:
		gpr_operand(insn, op, insn->rm | d->b, size);
		return 0;
	case LOC_RM_VEC:
		/* EVEX: X is the fifth bit where there is no SIB (SDM 2A 2.7.2). */
		vec_operand(op, insn->rm | d->b | (insn->encoding == INSN_ENC_EVEX ? d->x << 1 : 0), size);
		return 0;
	case LOC_RM_MMX:
		op->kind = OPK_MMX;
		op->reg = insn->rm;
		break;
	case LOC_RM_K:
		op->kind = OPK_KREG;
		op->reg = insn->rm;
		break;
	case LOC_RM_TMM:
		op->kind = OPK_TMM;
		op->reg = insn->rm | d->b;
		if (op->reg > 7)
			return INSN_UD;
		break;
	case LOC_REG_GPR:
		if (d->r2)
			return INSN_UD;
		gpr_operand(insn, op, insn->reg | d->r, size);
		return 0;
	case LOC_REG_VEC:
		vec_operand(op, insn->reg | d->r | d->r2, size);
		return 0;
	case LOC_REG_MMX:
		op->kind = OPK_MMX;
		op->reg = insn->reg;
		break;
	case LOC_REG_K:
		op->kind = OPK_KREG;
		op->reg = insn->reg | d->r | d->r2;
		if (op->reg > 7)
			return INSN_UD;
		if (s->extra)
			op->reg &= ~1;
		break;
	case LOC_REG_TMM:
		op->kind = OPK_TMM;
		op->reg = insn->reg | d->r;
		if (op->reg > 7)
			return INSN_UD;
		break;
	case LOC_REG_SREG:
		op->kind = OPK_SREG;
		op->reg = insn->reg;
		break;
	case LOC_REG_CR:
		op->kind = OPK_CREG;
		op->reg = insn->reg | d->r;
		if (!(CREGS_DEFINED >> op->reg & 1))
			return INSN_UD;
		break;
	case LOC_REG_DR:
		op->kind = OPK_DREG;
		op->reg = insn->reg | d->r;
		if (op->reg > 7)
			return INSN_UD;
		break;
	case LOC_V_GPR:
		gpr_operand(insn, op, insn->vvvv, size);
		return 0;
	case LOC_V_VEC:
		vec_operand(op, insn->vvvv, size);
		return 0;
	case LOC_V_K:
		op->kind = OPK_KREG;
		op->reg = insn->vvvv;
		if (op->reg > 7)
			return INSN_UD;
		break;
	case LOC_V_TMM:
		op->kind = OPK_TMM;
		op->reg = insn->vvvv;
		if (op->reg > 7)
			return INSN_UD;
		break;
	case LOC_OPC_GPR:
		gpr_operand(insn, op, (insn->opcode & 7) | d->b, size);
		return 0;
	case LOC_OPC_SREG:
		op->kind = OPK_SREG;
		op->reg = insn->opcode >> 3 & 7;
		break;
	case LOC_IS4:
		/* The first of an immediate byte's users fetches it; its low half may be an operand too. */
		if (!insn->imm_off) {
			err = fetch_imm(d, insn, 1, &insn->imm);
			if (err)
				return err;
		}
		vec_operand(op, insn->imm >> 4 & (insn->mode == MODE_64 ? 15 : 7), size);
		return 0;
	case LOC_FIXED_GPR:
		op->kind = OPK_GPR;
		op->reg = s->extra;
		break;
	case LOC_ONE:
		op->kind = OPK_ONE;
		insn->imm = 1;
		break;
	case LOC_XMM0:
		op->kind = OPK_XMM;
		break;
	case LOC_ST0:
		op->kind = OPK_ST;
		break;
	case LOC_STI:
		op->kind = OPK_ST;
		op->reg = insn->rm;
		break;
	case LOC_IMM:
		op->kind = OPK_IMM;
		/* After a register in imm[7:4] the byte has been fetched. */
		if (!insn->imm_off) {
			err = fetch_imm(d, insn, size_of(insn, s->mem_size), &insn->imm);
			if (err)
				return err;
		} else {
			insn->imm &= 15;
		}
		break;
	case LOC_IMM_S:
	case LOC_REL: {
		unsigned int bytes = size_of(insn, s->mem_size);

		op->kind = s->loc == LOC_REL ? OPK_REL : OPK_IMM;
		err = fetch_imm(d, insn, bytes, &insn->imm);
		if (err)
			return err;
		insn->imm = extend(insn->imm, bytes);
		break;
	}
	case LOC_IMM2:
		op->kind = OPK_IMM;
		op->reg = 1;
		err = fetch_imm(d, insn, 1, &insn->imm2);
		if (err)
			return err;
		insn->imm2_size = 1;
		break;
	case LOC_FAR:
		op->kind = OPK_FAR;
		err = fetch_imm(d, insn, size_of(insn, s->mem_size), &insn->imm);
		if (!err)
			err = fetch_imm(d, insn, 2, &insn->imm2);
		if (err)
			return err;
		insn->imm2_size = 2;
		break;
	case LOC_MOFFS:
		err = need(d, insn->addrsize);
		if (err)
			return err;
		insn->disp_off = d->pos;
		insn->disp_size = insn->addrsize;
		insn->mem.disp = fetch_sized(d, insn->addrsize);
		insn->mem.base = insn->mem.index = INSN_REG_NONE;
		insn->mem.seg = insn->seg_override != INSN_SEG_NONE ? insn->seg_override : SEG_DS;
		mem_operand(insn, op, size_of(insn, s->mem_size));
		return 0;
	}
	op->size = size;
	return 0;
}

static inline bool names_vvvv(u8 spec)
{
	u8 loc = opspecs[spec].loc;

	return loc >= LOC_V_GPR && loc <= LOC_V_TMM;
}

/* Gathers, AMX and complex FP16: some registers must differ. */
static bool registers_clash(const struct insn *insn, u64 attr)
{
	const struct operand *op = insn->op;

	if (attr & RDST)
		return op[0].reg == op[1].reg ||
		       (op[2].kind != OPK_MEM && op[0].reg == op[2].reg);
	if (!insn->mem.vsib)
		return op[0].reg == op[1].reg || op[0].reg == op[2].reg || op[1].reg == op[2].reg;
	if (op[0].reg == insn->mem.index)
		return true;
	return insn->encoding == INSN_ENC_VEX &&
	       (op[2].reg == op[0].reg || op[2].reg == insn->mem.index);
}

static int decode_vsib(struct decoder *d, struct insn *insn, const struct insn_row *row)
{
	struct insn_mem *mem = &insn->mem;
	unsigned int width = insn->vl;
	bool elem4 = row->attr & VS4, data8 = row->op[0] == VMq || row->op[1] == VMq;

	if (!insn->has_sib)
		return INSN_UD;
	/* As many indices as elements: the index register is half as wide if data are twice as long. */
	if (elem4 && data8)
		width = width == 16 ? 16 : width / 2;
	mem->index = (insn->sib >> 3 & 7) | d->x | d->v2;
	mem->scale = 1 << (insn->sib >> 6);
	mem->vsib = width;
	mem->vsib_elem = elem4 ? 4 : 8;
	return 0;
}

static void set_opsize(struct insn *insn, const struct insn_row *row)
{
	u64 attr = row->attr;

	if (insn->encoding == INSN_ENC_LEGACY && (row->when & WHEN(3u << KEY_PP, 3u << KEY_PP)) == P66)
		insn->opsize = insn->w ? 8 : 4; /* here 66 is part of the opcode */
	if (insn->mode == MODE_64) {
		if ((attr & F64) || ((attr & D64) && insn->opsize == 4))
			insn->opsize = 8;
	}
	if ((attr & Z_LIM) && insn->opsize == 8)
		insn->opsize = 4;
	if (attr & BYTE)
		insn->opsize = 1;
	else if (opspecs[row->op[0]].reg_size == 1 && opspecs[row->op[0]].loc < LOC_IMM)
		insn->opsize = 1;
}

int insn_decode(struct insn *out, const u8 *bytes, unsigned int avail, enum insn_mode mode)
{
	struct insn *insn = out;
	struct decoder d = {
		.bytes = bytes,
		.avail = avail < INSN_MAX_LEN ? avail : INSN_MAX_LEN,
		.truncated = avail < INSN_MAX_LEN,
	};
	const struct insn_row *row;
	unsigned int index, i, access;
	bool vvvv_named = false;
	int table, err;
	u64 attr;
	u32 key;

	memset(insn, 0, sizeof(*insn)); /* many times faster than the initializer's rep stos */
	insn->mode = mode;
	insn->seg_override = INSN_SEG_NONE;
	err = decode_prefixes(&d, insn);
	if (unlikely(err))
		return err;
	err = decode_opcode(&d, insn, &table);
	if (unlikely(err))
		return err;

	insn->opsize = insn->w && mode == MODE_64 ? 8 : (mode == MODE_16) != insn->pfx66 ? 2 : 4;
	if (mode == MODE_64)
		insn->addrsize = insn->pfx67 ? 4 : 8;
	else
		insn->addrsize = (mode == MODE_16) != insn->pfx67 ? 2 : 4;

	if (unlikely(table == TBL_0F && insn->opcode == 0x0f)) {
		insn->encoding = INSN_ENC_3DNOW;
		insn->map = INSN_MAP_0F0F;
		index = INDEX_MODRM;
	} else {
		index = row_index[table][insn->opcode];
		if (!index)
			return INSN_UD;
	}

	key = insn->pp << KEY_PP | insn->ll << KEY_LL | (insn->w ? KEY_W : 0) |
	      (mode == MODE_64 ? KEY_64 : 0) | (insn->ll ? 0 : KEY_L128) |
	      (d.b ? KEY_REXB : 0);
	if (index & INDEX_MODRM) {
		err = need(&d, 1);
		if (unlikely(err))
			return err;
		insn->has_modrm = true;
		insn->modrm_off = d.pos;
		insn->modrm = bytes[d.pos++];
		insn->mod = insn->modrm >> 6;
		insn->reg = insn->modrm >> 3 & 7;
		insn->rm = insn->modrm & 7;
		key |= insn->reg << KEY_REG | insn->rm << KEY_RM | (insn->mod == 3 ? KEY_MOD3 : 0);
		/* L'L is the rounding mode of register forms with EVEX.b, their length is 512 bits. */
		if (insn->b && insn->mod == 3)
			key = (key & ~(3u << KEY_LL | KEY_L128)) | 2u << KEY_LL | KEY_B;
	}

	if (unlikely(insn->encoding == INSN_ENC_3DNOW)) {
		/* The opcode is where an immediate would be. */
		if (insn->mod != 3) {
			err = decode_address(&d, insn);
			if (err)
				return err;
		}
		err = need(&d, 1);
		if (err)
			return err;
		insn->opcode_off = d.pos;
		insn->opcode = bytes[d.pos++];
		row = &rows_3dnow[insn->opcode];
	} else {
		row = &rows[index & ~INDEX_MODRM];
		while ((key & (u32)(row->when >> 32)) != (u32)row->when)
			row++;
	}
	if (unlikely(row->mnemonic == MN_INVALID))
		return INSN_UD;
	attr = row->attr;
	insn->mnemonic = row->mnemonic;
	insn->flags = (u16)attr;
	insn->state = attr >> ATTR_STATE & 15;

	if (attr & MODREG)
		insn->mod = 3;
	if (insn->has_modrm && insn->mod != 3 && insn->encoding != INSN_ENC_3DNOW) {
		err = decode_address(&d, insn);
		if (unlikely(err))
			return err;
		if (unlikely((attr & NEEDSIB) && !insn->has_sib))
			return INSN_UD;
	}

	if (insn->encoding >= INSN_ENC_VEX) {
		insn->vl = 16 << insn->ll;
		if (insn->encoding == INSN_ENC_EVEX) {
			if (insn->ll == 3 && !(insn->b && insn->mod == 3))
				return INSN_UD;
			err = check_evex(insn, attr);
			if (err)
				return err;
			if (!insn->state)
				insn->state = INSN_STATE_AVX512;
		} else if (!insn->state) {
			insn->state = INSN_STATE_AVX;
		}
		if (attr & (VS4 | VS8)) {
			err = decode_vsib(&d, insn, row);
			if (err)
				return err;
		} else {
			insn->vvvv |= d.v2;
		}
	}

	set_opsize(insn, row);
	/* A row's own prefix: part of the opcode, not a modifier. */
	if (insn->encoding == INSN_ENC_LEGACY && (row->when >> 32 & (3u << KEY_PP)) == 3u << KEY_PP &&
	    insn->pp)
		insn->mandatory = insn->rep ? insn->rep : 0x66;

	access = (attr >> ATTR_ACCESS & 0x3ff) ^ ACCESS_DEFAULT;
	for (i = 0; i < ARRAY_SIZE(insn->op) && row->op[i]; i++, access >>= 2) {
		insn->op[i].access = access & 3;
		vvvv_named |= names_vvvv(row->op[i]);
		err = decode_operand(&d, insn, i, row->op[i], attr);
		if (unlikely(err))
			return err;
	}
	insn->nops = i;

	if (insn->encoding >= INSN_ENC_VEX) {
		if (!vvvv_named && (attr & (VS4 | VS8) ? d.vvvv & 15 : d.vvvv))
			return INSN_UD;
		if (insn->encoding == INSN_ENC_EVEX) {
			if (insn->has_mem) {
				if (insn->z && insn->mem_op == 0)
					return INSN_UD;
				finish_evex_mem(insn, attr);
			}
			/* Merging keeps what the mask leaves out. */
			if (insn->aaa && !insn->z && !(attr & NOMERGE) &&
			    insn->op[0].kind != OPK_MEM && insn->op[0].kind != OPK_KREG)
				insn->op[0].access |= OPA_READ;
		}
		if (unlikely(attr & (DISTINCT | RDST)) && registers_clash(insn, attr))
			return INSN_UD;
	}
	if (unlikely(insn->lock) &&
	    !((attr & LK) && insn->has_mem && insn->mem_op == 0))
		return INSN_UD;

	if (attr & COND) {
		static const u8 fcmov[4] = { 2, 4, 6, 10 };

		insn->cond = insn->mnemonic == MN_FCMOVCC ? fcmov[insn->reg & 3] | (insn->opcode & 1)
							  : insn->opcode & 15;
	}
	if (attr & STR)
		insn->mem.seg = insn->seg_override != INSN_SEG_NONE ? insn->seg_override : SEG_DS;
	if (insn->state == INSN_STATE_SSE && insn->mem.size == 16 && insn->encoding == INSN_ENC_LEGACY &&
	    !(attr & UNAL))
		insn->flags |= INSN_F_SSE_ALIGN;

	insn->len = d.pos;
	if (likely(avail >= INSN_MAX_LEN)) {
		__builtin_memcpy(insn->bytes, bytes, INSN_MAX_LEN);
	} else {
		memcpy(insn->bytes, bytes, d.pos);
	}
	return 0;
}
