/*
 * Vector instructions whose memory accesses depend on a mask: VMASKMOV, VPMASKMOV, gathers, scatters, and AVX-512 forms with an
 * opmask. Only active elements are touched, one by one, lowest first, so that faults are exact (SDM 2, VGATHERDPS: elements done before the
 * fault are done).
 *
 * Moves run natively over a bounce buffer that was filled with, or is written back from, the active elements. Gathers and scatters are done on
 * the register image.
 */
#include "core/x86/fpu.h"
#include "engines/lite/native.h"

#define XSTATE_YMM	2
#define XSTATE_OPMASK	5
#define XSTATE_ZMM_HI	6
#define XSTATE_HI16_ZMM 7

static bool is_vex_maskmov(const struct insn *insn)
{
	return insn->encoding == INSN_ENC_VEX && insn->map == INSN_MAP_0F38 && insn->has_mem &&
	       ((insn->opcode >= 0x2c && insn->opcode <= 0x2f) || insn->opcode == 0x8c || insn->opcode == 0x8e);
}

bool lite_is_masked(const struct insn *insn)
{
	if (insn->state != INSN_STATE_AVX && insn->state != INSN_STATE_AVX512)
		return false;
	if (!insn->has_mem)
		return false;
	return insn->mem.vsib || is_vex_maskmov(insn) || (insn->encoding == INSN_ENC_EVEX && insn->aaa);
}

/* ---- the image by register; normalized ------------------------------------------------------------------------------ */

/* Bytes [@at, @at + @len) of vector register @reg; they lie within one of the four parts that the image has. */
static u8 *vector(struct lite_vcpu *c, unsigned reg, unsigned at)
{
	u8 *image = c->vcpu.xsave;
	bool aligned;
	u32 size;

	if (reg >= 16)
		return image + lite_xstate_offset(XSTATE_HI16_ZMM, &size, &aligned) + (reg - 16) * 64 + at;
	if (at < 16)
		return image + 160 + reg * 16 + at;
	if (at < 32)
		return image + lite_xstate_offset(XSTATE_YMM, &size, &aligned) + reg * 16 + at - 16;
	return image + lite_xstate_offset(XSTATE_ZMM_HI, &size, &aligned) + reg * 32 + at - 32;
}

static u64 *opmask(struct lite_vcpu *c, unsigned k)
{
	bool aligned;
	u32 size;

	return (u64 *)(c->vcpu.xsave + lite_xstate_offset(XSTATE_OPMASK, &size, &aligned)) + k;
}

static void used(struct lite_vcpu *c, unsigned vl)
{
	fpu_header(&c->vcpu)->xstate_bv |= XCR0_SSE | (vl > 16 ? XCR0_AVX : 0);
	fpu_header(&c->vcpu)->xstate_bv |= c->vcpu.x86.xcr0 & c->xfeatures & XCR0_AVX512;
}

/* ---- gathers and scatters -------------------------------------------------------------------------------------------- */

static enum x86_result gather(struct lite_vcpu *c, const struct insn *insn)
{
	const struct insn_mem *m = &insn->mem;
	bool evex = insn->encoding == INSN_ENC_EVEX, scatter = evex && insn->opcode >= 0xa0;
	unsigned elem = insn->w ? 8 : 4, index = m->vsib_elem, vl = insn->vl ? insn->vl : 16;
	unsigned count = vl / MAX(elem, index), dst = insn->op[scatter ? 1 : 0].reg;
	u64 base = m->base == INSN_REG_NONE ? 0 : c->vcpu.x86.gpr[m->base];
	struct emul *e = &c->vcpu.emul;
	enum x86_result r = X86_CONTINUE;

	if (!evex && (dst == insn->vvvv || dst == m->index || insn->vvvv == m->index))
		return emul_fault(e, VEC_UD);
	if (evex && (!insn->aaa || (!scatter && dst == m->index)))
		return emul_fault(e, VEC_UD);
	lite_fpu_normalize(c);
	if (!evex) {
		/* Mask bits are spread over the elements, as the instruction does first. */
		for (unsigned i = 0; i < vl / elem; i++) {
			u8 *mask = vector(c, insn->vvvv, i * elem);

			memset(mask, i < count && (mask[elem - 1] & 0x80) ? 0xff : 0, elem);
		}
	}
	for (unsigned i = 0; i < count; i++) {
		u8 *mask = evex ? NULL : vector(c, insn->vvvv, i * elem);
		u64 ea = 0, la;
		u8 value[8];

		if (evex ? !(*opmask(c, insn->aaa) & BIT64(i)) : !mask[0])
			continue;
		memcpy(&ea, vector(c, m->index, i * index), index);
		ea = (index == 4 ? (u64)(s64)(s32)ea : ea) * (m->scale ? m->scale : 1) + base + (u64)m->disp;
		if (insn->addrsize == 4)
			ea = (u32)ea;
		r = emul_linear(e, m->seg, ea, elem, scatter, &la);
		if (r == X86_CONTINUE && scatter) {
			memcpy(value, vector(c, dst, i * elem), elem);
			r = e->ops->write(e, la, value, elem, 0);
		} else if (r == X86_CONTINUE) {
			r = e->ops->read(e, la, value, elem, 0);
		}
		if (r != X86_CONTINUE)
			break;
		/* The accesses above may have gone through the registers' home; it is the image again. */
		lite_fpu_save(c);
		if (!scatter)
			memcpy(vector(c, dst, i * elem), value, elem);
		if (evex)
			*opmask(c, insn->aaa) &= ~BIT64(i);
		else
			memset(mask, 0, elem);
	}
	used(c, vl);
	if (r != X86_CONTINUE)
		return r;
	/* Upper parts of the destination (and, VEX, of the mask register) become zero. */
	if (evex)
		*opmask(c, insn->aaa) = 0;
	for (unsigned at = scatter ? 64 : count * elem; at < 64; at += 4)
		if (at < 32 || (c->vcpu.x86.xcr0 & c->xfeatures & XCR0_AVX512) == XCR0_AVX512)
			if (at < 16 || (c->xfeatures & XCR0_AVX))
				memset(vector(c, dst, at), 0, 4);
	for (unsigned at = 0; !evex && at < 32; at += 4)
		memset(vector(c, insn->vvvv, at), 0, 4);
	return X86_CONTINUE;
}

/* ---- masked moves and operations ---------------------------------------------------------------------------------------- */

/* The size of the elements that the opmask counts, where it is not that of EVEX.W. */
static unsigned element_size(const struct insn *insn)
{
	if (insn->encoding == INSN_ENC_VEX)
		return insn->opcode == 0x8c || insn->opcode == 0x8e ? (insn->w ? 8 : 4) : (insn->opcode & 1 ? 8 : 4);
	/* Byte and word instructions: the register's width over the number of mask bits comes from the mnemonic's kind. */
	if (insn->map == INSN_MAP_0F && (insn->opcode == 0x6f || insn->opcode == 0x7f) && insn->pp == 3)
		return insn->w ? 2 : 1; /* VMOVDQU8, VMOVDQU16 */
	if (insn->map == INSN_MAP_0F38 && (insn->opcode == 0x62 || insn->opcode == 0x63))
		return insn->w ? 2 : 1; /* VPEXPANDB/W, VPCOMPRESSB/W */
	return insn->w ? 8 : 4;
}

static bool packs(const struct insn *insn)
{
	return insn->map == INSN_MAP_0F38 && (insn->opcode == 0x62 || insn->opcode == 0x63 || (insn->opcode >= 0x88 && insn->opcode <= 0x8b));
}

enum x86_result lite_masked(struct lite_vcpu *c, const struct insn *insn)
{
	unsigned size = insn->mem.size, elem, count;
	bool write = insn->mem.access & OPA_WRITE;
	struct emul *e = &c->vcpu.emul;
	u8 bounce[128] __attribute__((aligned(64)));
	enum x86_result r = X86_CONTINUE;
	u64 active = 0, ea, la;

	if (insn->mem.vsib)
		return gather(c, insn);
	if (!size || size > 64)
		return X86_UNHANDLED;
	lite_fpu_normalize(c);
	elem = element_size(insn);
	if (insn->encoding == INSN_ENC_VEX) {
		count = size / elem;
		for (unsigned i = 0; i < count; i++)
			if (vector(c, insn->vvvv, i * elem)[elem - 1] & 0x80)
				active |= BIT64(i);
	} else {
		active = *opmask(c, insn->aaa);
		if (insn->mem.bcast || size < elem) {
			/* One element for all, or a scalar: read if any (the) element is active. */
			unsigned all = insn->mem.bcast ? (insn->vl ? insn->vl : 16) / size : 1;

			active = (active & MASK64(all - 1, 0)) ? 1 : 0;
			elem = size;
			count = 1;
		} else {
			/*
			 * Conversions and widening moves have memory elements of another size than the
			 * register's; each mask bit then stands for an equal share of the memory operand.
			 */
			unsigned lanes = (insn->vl ? insn->vl : 16) / elem;

			if (lanes && size % lanes == 0 && size / lanes && !packs(insn) && size != (insn->vl ? insn->vl : 16))
				elem = size / lanes;
			count = size / elem;
			if (packs(insn)) {
				unsigned n = __builtin_popcountll(active & (count >= 64 ? ~0ULL : MASK64(count - 1, 0)));

				active = n >= 64 ? ~0ULL : BIT64(n) - 1;
			}
		}
	}
	ea = emul_effective_address(e, insn);
	memset(bounce, 0, sizeof(bounce));
	for (unsigned i = 0; i < count && r == X86_CONTINUE; i++) {
		if (!(active & BIT64(i)))
			continue;
		r = emul_linear(e, insn->mem.seg, ea + i * elem, elem, write, &la);
		if (r == X86_CONTINUE)
			r = write ? e->ops->probe(e, la, elem, true, 0) : e->ops->read(e, la, bounce + i * elem, elem, 0);
	}
	if (r != X86_CONTINUE)
		return r;
	if (lite_native_align(insn) && active) {
		r = emul_linear(e, insn->mem.seg, ea, 0, write, &la);
		if (r == X86_CONTINUE && (la & (lite_native_align(insn) - 1)))
			return emul_fault_code(e, VEC_GP, 0);
	}
	r = lite_native_run(c, insn, bounce);
	for (unsigned i = 0; write && i < count && r == X86_CONTINUE; i++) {
		if (!(active & BIT64(i)))
			continue;
		r = emul_linear(e, insn->mem.seg, ea + i * elem, elem, true, &la);
		if (r == X86_CONTINUE)
			r = e->ops->write(e, la, bounce + i * elem, elem, 0);
	}
	return r;
}
