/*
 * Instructions that move processor state as a whole, on the guest's register image: XSAVE and XRSTOR in all forms (SDM 1
 * chapter 13), FXSAVE and FXRSTOR (SDM 1 10.5), FNSAVE, FRSTOR, FNSTENV, FLDENV (SDM 1 8.1.10) in their 16- and 32-bit,
 * real and protected layouts. (FNSTCW, FNSTSW, FNINIT ... run natively.)
 */
#include "core/x86/fpu.h"
#include "engines/lite/native.h"

#define XSAVE_HEADER 512
#define XSAVE_EXTENDED 576
#define XCOMP_COMPACT BIT64(63)

bool lite_is_xstate(const struct insn *insn)
{
	switch (insn->mnemonic) {
	case MN_FXSAVE: case MN_FXRSTOR: case MN_XSAVE: case MN_XRSTOR: case MN_XSAVEOPT: case MN_XSAVEC: case MN_XSAVES:
	case MN_XRSTORS: case MN_FLDENV: case MN_FNSTENV: case MN_FRSTOR: case MN_FNSAVE:
		return true;
	default:
		return false;
	}
}

/* CPUID takes microseconds where the host is itself a guest: asked once. */
static struct {
	u32 offset, size;
	bool aligned;
} layout[64];

void lite_xstate_init(void)
{
	/* XCR0 has nothing above in a guest. */
	for (u32 i = 2; i < 10; i++) {
		u32 a = 0xd, b, cx = i, d;

		__asm__("cpuid" : "+a"(a), "=b"(b), "+c"(cx), "=d"(d));
		layout[i].size = a;
		layout[i].offset = b;
		layout[i].aligned = cx & 2;
	}
}

u32 lite_xstate_offset(unsigned component, u32 *size, bool *aligned)
{
	*size = layout[component].size;
	*aligned = layout[component].aligned;
	return layout[component].offset;
}

/* ---- guest memory in pieces -------------------------------------------------------------------------------------- */

/* By pages: at most two of them take part in one access. */
static unsigned piece(u64 la, unsigned len)
{
	return MIN(len, 4096 - (unsigned)(la & 0xfff));
}

static enum x86_result read_area(struct emul *e, u64 la, u8 *buf, unsigned len)
{
	enum x86_result r = X86_CONTINUE;

	for (unsigned n; len && r == X86_CONTINUE; la += n, buf += n, len -= n) {
		n = piece(la, len);
		r = e->ops->read(e, la, buf, n, 0);
	}
	return r;
}

/* The caller has probed. */
static enum x86_result write_area(struct emul *e, u64 la, const u8 *buf, unsigned len)
{
	enum x86_result r = X86_CONTINUE;

	for (unsigned n; len && r == X86_CONTINUE; la += n, buf += n, len -= n) {
		n = piece(la, len);
		r = e->ops->write(e, la, buf, n, 0);
	}
	return r;
}

/* ---- the x87 environment --------------------------------------------------------------------------------------------- */

/* The two-bit tags of the environment, by physical register, from the one-bit tags and the contents (SDM 1 table 10-1). */
static u16 full_tags(const struct xsave_legacy *x)
{
	unsigned top = (x->fsw >> 11) & 7;
	u16 tags = 0;

	for (unsigned phys = 0; phys < 8; phys++) {
		const u8 *st = x->st[(phys - top) & 7];
		u16 exponent;
		u64 mantissa;
		unsigned tag;

		memcpy(&mantissa, st, 8);
		memcpy(&exponent, st + 8, 2);
		exponent &= 0x7fff;
		if (!(x->ftw & (1U << phys)))
			tag = 3;
		else if (exponent == 0 && mantissa == 0)
			tag = 1;
		else if (exponent == 0 || exponent == 0x7fff || !(mantissa >> 63))
			tag = 2;
		else
			tag = 0;
		tags |= tag << (phys * 2);
	}
	return tags;
}

static u8 short_tags(u16 tags)
{
	u8 ftw = 0;

	for (unsigned i = 0; i < 8; i++)
		if (((tags >> (i * 2)) & 3) != 3)
			ftw |= 1U << i;
	return ftw;
}

static bool real_layout(const struct x86_state *s)
{
	return s->mode == X86_MODE_REAL || s->mode == X86_MODE_V86;
}

/* SDM 1 figures 8-9 to 8-12. Returns the length. */
static unsigned env_out(const struct x86_state *s, const struct xsave_legacy *x, bool wide, u8 *out)
{
	u32 fip = (u32)x->fip, fdp = (u32)x->fdp;
	u16 w[7] = { x->fcw, x->fsw, full_tags(x) };
	u32 d[7] = { 0xffff0000U | x->fcw, 0xffff0000U | x->fsw, 0xffff0000U | full_tags(x) };

	if (wide) {
		if (real_layout(s)) {
			d[3] = 0xffff0000U | (u16)fip;
			d[4] = (fip >> 16 & 0xffff) << 12 | (x->fop & 0x7ff);
			d[5] = 0xffff0000U | (u16)fdp;
			d[6] = (fdp >> 16 & 0xffff) << 12;
		} else {
			d[3] = fip;
			d[4] = (u32)(x->fop & 0x7ff) << 16 | (u16)(x->fip >> 32);
			d[5] = fdp;
			d[6] = 0xffff0000U | (u16)(x->fdp >> 32);
		}
		memcpy(out, d, 28);
		return 28;
	}
	w[3] = (u16)fip;
	w[5] = (u16)fdp;
	if (real_layout(s)) {
		w[4] = (u16)((fip >> 16 & 0xf) << 12 | (x->fop & 0x7ff));
		w[6] = (u16)((fdp >> 16 & 0xf) << 12);
	} else {
		w[4] = (u16)(x->fip >> 32);
		w[6] = (u16)(x->fdp >> 32);
	}
	memcpy(out, w, 14);
	return 14;
}

static void env_in(const struct x86_state *s, struct xsave_legacy *x, bool wide, const u8 *in)
{
	u32 d[7];
	u16 w[7];

	if (wide) {
		memcpy(d, in, 28);
	} else {
		memcpy(w, in, 14);
		for (unsigned i = 0; i < 7; i++)
			d[i] = w[i];
	}
	x->fcw = (d[0] & 0x1f7f) | 0x40;
	x->fsw = (u16)d[1];
	x->ftw = short_tags((u16)d[2]);
	if (real_layout(s)) {
		x->fip = (d[3] & 0xffff) | (d[4] >> 12 & 0xffff) << 16;
		x->fdp = (d[5] & 0xffff) | (d[6] >> 12 & 0xffff) << 16;
		x->fop = d[4] & 0x7ff;
	} else {
		x->fip = d[3] | (u64)(d[4] & 0xffff) << 32;
		x->fdp = d[5] | (u64)(d[6] & 0xffff) << 32;
		x->fop = wide ? d[4] >> 16 & 0x7ff : 0;
	}
	/* ES and B follow from the flags and masks (SDM 1 8.1.3.3). */
	if (x->fsw & ~x->fcw & 0x3f)
		x->fsw |= 0x8080;
	else
		x->fsw &= ~0x8080;
}

/* TOP was @top: the registers stay where they are, so that each is another ST(i) now, by which the image has them. */
static void turn(struct xsave_legacy *x, unsigned top)
{
	unsigned by = ((x->fsw >> 11) - top) & 7;
	u8 st[8][16];

	memcpy(st, x->st, sizeof(st));
	for (unsigned i = 0; i < 8; i++)
		memcpy(x->st[i], st[(i + by) & 7], sizeof(st[i]));
}

static enum x86_result x87_state(struct lite_vcpu *c, const struct insn *insn)
{
	bool whole = insn->mnemonic == MN_FNSAVE || insn->mnemonic == MN_FRSTOR;
	bool store = insn->mnemonic == MN_FNSAVE || insn->mnemonic == MN_FNSTENV;
	struct xsave_legacy *x = fpu_legacy(&c->vcpu);
	bool wide = insn->opsize != 2;
	unsigned env = wide ? 28 : 14, len = env + (whole ? 80 : 0), top;
	struct emul *e = &c->vcpu.emul;
	enum x86_result r;
	u8 buf[112];
	u64 la;

	r = emul_linear(e, insn->mem.seg, emul_effective_address(e, insn), len, store, &la);
	if (r != X86_CONTINUE)
		return r;
	if (store) {
		r = e->ops->probe(e, la, len, true, 0);
		if (r != X86_CONTINUE)
			return r;
		lite_fpu_normalize(c);
		env_out(&c->vcpu.x86, x, wide, buf);
		for (unsigned i = 0; whole && i < 8; i++)
			memcpy(buf + env + i * 10, x->st[i], 10);
		r = write_area(e, la, buf, len);
		if (r != X86_CONTINUE)
			return r;
		if (whole) {
			x->fcw = FCW_INIT;
			top = x->fsw >> 11 & 7;
			x->fsw = x->ftw = 0;
			x->fop = 0;
			x->fip = x->fdp = 0;
			turn(x, top);
		} else {
			x->fcw |= 0x3f; /* FNSTENV masks all exceptions */
			x->fsw &= ~0x8080;
		}
	} else {
		r = read_area(e, la, buf, len);
		if (r != X86_CONTINUE)
			return r;
		lite_fpu_normalize(c);
		top = x->fsw >> 11 & 7;
		env_in(&c->vcpu.x86, x, wide, buf);
		turn(x, top);
		for (unsigned i = 0; whole && i < 8; i++)
			memcpy(x->st[i], buf + env + i * 10, 10);
	}
	fpu_header(&c->vcpu)->xstate_bv |= XCR0_FP;
	return X86_CONTINUE;
}

/* ---- FXSAVE, FXRSTOR ------------------------------------------------------------------------------------------------ */

static enum x86_result fxstate(struct lite_vcpu *c, const struct insn *insn)
{
	struct xsave_legacy *x = fpu_legacy(&c->vcpu), area;
	bool store = insn->mnemonic == MN_FXSAVE, long_mode = c->vcpu.x86.mode == X86_MODE_LONG;
	unsigned xmm = long_mode ? 256 : 128, len = 160 + xmm;
	struct emul *e = &c->vcpu.emul;
	enum x86_result r;
	u64 la;

	r = emul_linear(e, insn->mem.seg, emul_effective_address(e, insn), 512, store, &la);
	if (r != X86_CONTINUE)
		return r;
	if (la & 15)
		return emul_fault_code(e, VEC_GP, 0);
	if (store) {
		r = e->ops->probe(e, la, 512, true, 0);
		if (r != X86_CONTINUE)
			return r;
		lite_fpu_normalize(c);
		area = *x;
		area.mxcsr_mask = fpu_mxcsr_mask();
		if (!insn->w && !(insn->rex & 8)) { /* selectors instead of the upper halves; this processor stores none */
			area.fip = (u32)area.fip;
			area.fdp = (u32)area.fdp;
		}
		return write_area(e, la, (u8 *)&area, len);
	}
	r = read_area(e, la, (u8 *)&area, 512);
	if (r != X86_CONTINUE)
		return r;
	if (area.mxcsr & ~fpu_mxcsr_mask())
		return emul_fault_code(e, VEC_GP, 0);
	lite_fpu_normalize(c);
	area.mxcsr_mask = x->mxcsr_mask;
	area.reserved = 0;
	if (!(insn->rex & 8)) {
		area.fip = (u32)area.fip;
		area.fdp = (u32)area.fdp;
	}
	memcpy(x, &area, len);
	fpu_header(&c->vcpu)->xstate_bv |= XCR0_FP | XCR0_SSE;
	return X86_CONTINUE;
}

/* ---- XSAVE, XRSTOR -------------------------------------------------------------------------------------------------- */

/* Where component @i lies in an area in the compacted format that holds @bv; *@size receives its length. */
static u32 compact_offset(u64 bv, unsigned component, u32 *size)
{
	u32 offset = XSAVE_EXTENDED, length;
	bool aligned;

	for (unsigned i = 2; i <= component; i++) {
		if (!(bv & BIT64(i)))
			continue;
		lite_xstate_offset(i, &length, &aligned);
		if (aligned)
			offset = ROUND_UP(offset, 64U);
		if (i == component) {
			*size = length;
			return offset;
		}
		offset += length;
	}
	*size = 0;
	return 0;
}

u32 lite_xstate_end(u64 rfbm, bool compact)
{
	u32 end = XSAVE_EXTENDED, offset, size;
	bool aligned;

	for (unsigned i = 2; i < 63; i++) {
		if (!(rfbm & BIT64(i)))
			continue;
		offset = lite_xstate_offset(i, &size, &aligned);
		if (compact)
			offset = compact_offset(rfbm, i, &size);
		end = MAX(end, offset + size);
	}
	return end;
}

u32 lite_xstate_most(void)
{
	static u32 most;

	/* The compacted format is the longer one when what is between components is not enough to align them. */
	if (!most)
		most = MAX(lite_xstate_end(LITE_XSTATE_LOADED, false), lite_xstate_end(0xff, true));
	return most;
}

static enum x86_result xsave(struct lite_vcpu *c, const struct insn *insn, u64 la, u64 rfbm)
{
	bool compact = insn->mnemonic == MN_XSAVEC || insn->mnemonic == MN_XSAVES;
	bool only_in_use = insn->mnemonic != MN_XSAVE;
	struct xsave_legacy *x = fpu_legacy(&c->vcpu);
	u64 in_use, header[2] = { 0, 0 };
	struct emul *e = &c->vcpu.emul;
	u32 size, offset, std;
	enum x86_result r;
	bool aligned;
	u64 write;

	r = e->ops->probe(e, la, lite_xstate_end(rfbm, compact), true, 0);
	if (r != X86_CONTINUE)
		return r;
	lite_fpu_normalize(c);
	in_use = fpu_header(&c->vcpu)->xstate_bv;
	if (!compact) {
		r = read_area(e, la + XSAVE_HEADER, (u8 *)header, 8);
		if (r != X86_CONTINUE)
			return r;
	}
	header[0] = (header[0] & ~rfbm & (compact ? 0 : ~0ULL)) | (in_use & rfbm);
	header[1] = compact ? rfbm | XCOMP_COMPACT : 0;
	/* MXCSR out of its initial state counts as SSE in use for the compacted forms (SDM 1 13.10). */
	if (only_in_use && (rfbm & XCR0_SSE) && x->mxcsr != MXCSR_INIT)
		header[0] |= compact ? XCR0_SSE : 0;
	write = only_in_use ? rfbm & (compact ? header[0] : in_use) : rfbm;
	if (write & XCR0_FP) {
		r = write_area(e, la, (u8 *)x, 24);
		if (r == X86_CONTINUE)
			r = write_area(e, la + 32, (u8 *)x + 32, 128);
	}
	if (r == X86_CONTINUE && (compact ? (write & XCR0_SSE) : (rfbm & (XCR0_SSE | XCR0_AVX)))) {
		u32 mxcsr[2] = { x->mxcsr, fpu_mxcsr_mask() };

		r = write_area(e, la + 24, (u8 *)mxcsr, 8);
	}
	if (r == X86_CONTINUE && (write & XCR0_SSE))
		r = write_area(e, la + 160, (u8 *)x + 160, c->vcpu.x86.mode == X86_MODE_LONG ? 256 : 128);
	for (unsigned i = 2; i < 63 && r == X86_CONTINUE; i++) {
		if (!(write & BIT64(i)))
			continue;
		std = offset = lite_xstate_offset(i, &size, &aligned);
		if (compact)
			offset = compact_offset(rfbm, i, &size);
		if (std + size <= c->vcpu.xsave_size)
			r = write_area(e, la + offset, c->vcpu.xsave + std, size);
	}
	/* XSAVE and XSAVEOPT leave bytes 8 to 63 of the header alone. */
	if (r == X86_CONTINUE)
		r = write_area(e, la + XSAVE_HEADER, (u8 *)header, compact ? 16 : 8);
	return r;
}

static enum x86_result xrstor(struct lite_vcpu *c, const struct insn *insn, u64 la, u64 rfbm)
{
	struct xsave_legacy *x = fpu_legacy(&c->vcpu);
	struct xsave_header *mine = fpu_header(&c->vcpu), header;
	struct emul *e = &c->vcpu.emul;
	u32 size, offset, std, mxcsr;
	bool compact, aligned, long_mode = c->vcpu.x86.mode == X86_MODE_LONG;
	u8 *staged = c->scratch; /* two pages; the components of AVX-512 end below 2,700 */
	enum x86_result r;
	u64 load, init;

	r = read_area(e, la + XSAVE_HEADER, (u8 *)&header, sizeof(header));
	if (r != X86_CONTINUE)
		return r;
	compact = header.xcomp_bv & XCOMP_COMPACT;
	/* SDM 1 13.8.1, 13.8.2 */
	if (insn->mnemonic == MN_XRSTORS && !compact)
		return emul_fault_code(e, VEC_GP, 0);
	if (compact ? ((header.xcomp_bv & ~XCOMP_COMPACT & ~c->vcpu.x86.xcr0) || (header.xstate_bv & ~header.xcomp_bv)) :
		      ((header.xstate_bv & ~c->vcpu.x86.xcr0) || header.xcomp_bv || header.reserved[0]))
		return emul_fault_code(e, VEC_GP, 0);
	for (unsigned i = 0; compact && i < ARRAY_SIZE(header.reserved); i++)
		if (header.reserved[i])
			return emul_fault_code(e, VEC_GP, 0);
	load = rfbm & header.xstate_bv;
	init = rfbm & ~header.xstate_bv;

	/* Everything is read before anything changes. */
	r = read_area(e, la, staged, 512);
	if (r != X86_CONTINUE)
		return r;
	memcpy(&mxcsr, staged + 24, 4);
	if ((compact ? (load & XCR0_SSE) : (rfbm & (XCR0_SSE | XCR0_AVX))) && (mxcsr & ~fpu_mxcsr_mask()))
		return emul_fault_code(e, VEC_GP, 0);
	for (unsigned i = 2; i < 63; i++) {
		if (!(load & BIT64(i)))
			continue;
		std = offset = lite_xstate_offset(i, &size, &aligned);
		if (compact)
			offset = compact_offset(header.xcomp_bv, i, &size);
		if (std + size > 2 * HOST_PAGE_SIZE || std + size > c->vcpu.xsave_size)
			return emul_fault_code(e, VEC_GP, 0);
		r = read_area(e, la + offset, staged + std, size);
		if (r != X86_CONTINUE)
			return r;
	}
	lite_fpu_normalize(c);
	if (load & XCR0_FP) {
		memcpy(x, staged, 24);
		memcpy((u8 *)x + 32, staged + 32, 128);
	} else if (init & XCR0_FP) {
		memset(x, 0, 24);
		memset((u8 *)x + 32, 0, 128);
		x->fcw = FCW_INIT;
	}
	if (compact) {
		if (load & XCR0_SSE)
			x->mxcsr = mxcsr;
		else if (init & XCR0_SSE)
			x->mxcsr = MXCSR_INIT;
	} else if (rfbm & (XCR0_SSE | XCR0_AVX)) {
		x->mxcsr = mxcsr;
	}
	if (load & XCR0_SSE)
		memcpy((u8 *)x + 160, staged + 160, long_mode ? 256 : 128);
	else if (init & XCR0_SSE)
		memset((u8 *)x + 160, 0, long_mode ? 256 : 128);
	for (unsigned i = 2; i < 63; i++) {
		if (!(rfbm & BIT64(i)))
			continue;
		std = lite_xstate_offset(i, &size, &aligned);
		if (std + size > c->vcpu.xsave_size)
			continue;
		if (load & BIT64(i))
			memcpy(c->vcpu.xsave + std, staged + std, size);
		else
			memset(c->vcpu.xsave + std, 0, size);
	}
	mine->xstate_bv = (mine->xstate_bv & ~init) | load | (x->mxcsr != MXCSR_INIT ? XCR0_SSE : 0);
	return X86_CONTINUE;
}

enum x86_result lite_xstate(struct lite_vcpu *c, const struct insn *insn)
{
	struct x86_state *s = &c->vcpu.x86;
	struct emul *e = &c->vcpu.emul;
	bool store, supervisor = insn->mnemonic == MN_XSAVES || insn->mnemonic == MN_XRSTORS;
	enum x86_result r;
	u64 la, rfbm;

	switch (insn->mnemonic) {
	case MN_FLDENV: case MN_FNSTENV: case MN_FRSTOR: case MN_FNSAVE:
		return x87_state(c, insn);
	case MN_FXSAVE: case MN_FXRSTOR:
		return fxstate(c, insn);
	default:
		break;
	}
	if (supervisor && s->cpl)
		return emul_fault_code(e, VEC_GP, 0);
	store = insn->mnemonic != MN_XRSTOR && insn->mnemonic != MN_XRSTORS;
	r = emul_linear(e, insn->mem.seg, emul_effective_address(e, insn), XSAVE_EXTENDED, store, &la);
	if (r != X86_CONTINUE)
		return r;
	if (la & 63)
		return emul_fault_code(e, VEC_GP, 0);
	rfbm = ((u64)(u32)s->gpr[REG_DX] << 32 | (u32)s->gpr[REG_AX]) & s->xcr0;
	return store ? xsave(c, insn, la, rfbm) : xrstor(c, insn, la, rfbm);
}
