/*
 * Vector instructions whose memory accesses depend on a mask: VMASKMOV, VPMASKMOV, gathers, scatters, and AVX-512 forms with an
 * opmask. Only active elements are touched, one by one, lowest first, so that faults are exact (SDM 2, VGATHERDPS: elements done before the
 * fault are done).
 *
 * Where the whole operand can be accessed, masked instructions run natively on guest memory like any other; here they come when it
 * cannot. Gathers and scatters are done on the register image.
 */
#include <sys/mman.h>

#include "core/x86/cpuid.h"
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

/* Bytes @at and up of vector register @reg become zero. */
static void clear_from(struct lite_vcpu *c, unsigned reg, unsigned at)
{
	for (; at < 64; at += 4)
		if (at < 32 || (c->vcpu.x86.xcr0 & c->xfeatures & XCR0_AVX512) == XCR0_AVX512)
			if (at < 16 || (c->xfeatures & XCR0_AVX))
				memset(vector(c, reg, at), 0, 4);
}

/* Outside 64-bit mode the registers that cannot be named there keep their values; the processor, which runs stubs in 64-bit mode, would clear all. */
enum x86_result lite_vzero(struct lite_vcpu *c, const struct insn *insn)
{
	lite_fpu_normalize(c);
	used(c, 32);
	for (unsigned reg = 0; reg < 8; reg++)
		clear_from(c, reg, insn->mnemonic == MN_VZEROALL ? 0 : 16);
	return X86_CONTINUE;
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

	/* Prefetches touch nothing. Their opcodes are AVX512PF's. */
	if (evex && (insn->opcode == 0xc6 || insn->opcode == 0xc7)) {
		u32 regs[4];

		cpuid_host(7, 0, regs);
		return regs[1] & (1U << 26) ? X86_CONTINUE : emul_fault(e, VEC_UD);
	}
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
	if (!scatter)
		clear_from(c, dst, count * elem);
	if (!evex)
		clear_from(c, insn->vvvv, 0);
	return X86_CONTINUE;
}

/* ---- masked moves and operations ---------------------------------------------------------------------------------------- */

/*
 * Which bytes of memory a masked instruction touches - one element for one bit of the mask, or all as with shuffles, or a packed few - is
 * known best by the processor. So the instruction runs natively on a copy of its operand. What of the operand the guest cannot
 * access lies in pages of the copy that are not accessible either: if the instruction touches it, the fault says so, and
 * becomes the guest's. Where in the operand a store writes comes out of two runs over different bytes.
 */
#define ROOM_PAGES 4 /* none, data, none, none */

int lite_mask_room_make(struct lite_vcpu *c)
{
	c->mask_room = host_zalloc_pages(ROOM_PAGES * HOST_PAGE_SIZE);
	if (!c->mask_room)
		return -ENOMEM;
	if (mprotect(c->mask_room, HOST_PAGE_SIZE, PROT_NONE) ||
	    mprotect(c->mask_room + 2 * HOST_PAGE_SIZE, (ROOM_PAGES - 2) * HOST_PAGE_SIZE, PROT_NONE))
		return -ENOMEM;
	return 0;
}

void lite_mask_room_free(struct lite_vcpu *c)
{
	if (c->mask_room)
		host_free_pages(c->mask_room, ROOM_PAGES * HOST_PAGE_SIZE);
}

struct masked_run {
	const struct insn *insn;
	void *mem;
	enum x86_result r;
};

static void masked_run(struct lite_vcpu *c, const void *arg)
{
	struct masked_run *m = (struct masked_run *)arg;

	m->r = lite_native_run(c, m->insn, m->mem);
}

/* What of @size bytes was written: the same over zeros (@a) as over ones (@b). In aligned pieces, as whole as they go. */
static enum x86_result write_written(struct emul *e, u64 la, const u8 *a, const u8 *b, unsigned size)
{
	enum x86_result r = X86_CONTINUE;

	for (unsigned i = 0, n; i < size && r == X86_CONTINUE; i += n) {
		for (n = 0; i + n < size && n < 8 && a[i + n] == b[i + n]; n++)
			;
		while (n & (n - 1) || (n && ((la + i) & (n - 1))))
			n--;
		if (n)
			r = e->ops->write(e, la + i, a + i, n, 0);
		else
			n = 1;
	}
	return r;
}

enum x86_result lite_masked(struct lite_vcpu *c, const struct insn *insn)
{
	unsigned size = insn->mem.size, first, bad, len[2], runs;
	bool write = insn->mem.access & OPA_WRITE;
	struct emul *e = &c->vcpu.emul;
	u8 data[64], out[2][64], *at;
	struct x86_event outside;
	struct masked_run run;
	enum x86_result r;
	bool nowhere;
	u64 la[2];

	if (insn->mem.vsib)
		return gather(c, insn);
	if (!size || size > sizeof(data))
		return X86_UNHANDLED;
again:
	r = emul_linear(e, insn->mem.seg, emul_effective_address(e, insn), size, write, &la[0]);
	/* Not canonical, or beyond the segment: that too counts only if something is touched. */
	nowhere = r == X86_FAULT;
	if (nowhere) {
		outside = e->fault;
		la[0] = emul_effective_address(e, insn) & 63;
	} else if (r != X86_CONTINUE) {
		return r;
	}
	first = MIN(size, 4096 - (unsigned)(la[0] & 0xfff));
	len[0] = first;
	len[1] = size - first;
	la[1] = la[0] + first;
	if (c->vcpu.x86.mode != X86_MODE_LONG)
		la[1] = (u32)la[1];
	bad = nowhere;
	for (unsigned i = 0; i < 2 && len[i] && !nowhere; i++) {
		r = write ? e->ops->probe(e, la[i], len[i], true, 0) : e->ops->read(e, la[i], data + i * first, len[i], 0);
		if (r == X86_FAULT)
			bad |= 1U << i;
		else if (r != X86_CONTINUE)
			return r;
	}
	/* At the same place in a page, so that it is as aligned, and with its bad parts in pages that are not there. */
	if (!len[1])
		at = c->mask_room + (bad ? 2 : 1) * HOST_PAGE_SIZE + (la[0] & 0xfff);
	else if (!bad)
		at = c->mask_room + HOST_PAGE_SIZE + (la[0] & 63);
	else
		at = c->mask_room + bad * HOST_PAGE_SIZE - first;
	c->x87_dp = la[0];
	for (runs = 0; runs < 1U + write; runs++) {
		for (unsigned i = 0; i < 2 && len[i]; i++) {
			if (bad & (1U << i))
				continue;
			if (write)
				memset(at + i * first, runs ? 0xff : 0, len[i]);
			else
				memcpy(at + i * first, data + i * first, len[i]);
		}
		run = (struct masked_run){ insn, at, X86_CONTINUE };
		if (!lite_fault_guard(masked_run, c, &run)) {
			u64 addr = lite_fault_addr();
			unsigned i = len[1] && addr >= (u64)at + first;

			if (nowhere) {
				e->fault = outside;
				return X86_FAULT;
			}
			/* No address: alignment. */
			if (!addr || !bad)
				return emul_fault_code(e, VEC_GP, 0);
			r = write ? e->ops->probe(e, la[i], len[i], true, 0) : e->ops->read(e, la[i], data, len[i], 0);
			if (r != X86_CONTINUE)
				return r;
			goto again; /* it has become accessible meanwhile */
		}
		if (run.r != X86_CONTINUE)
			return run.r;
		for (unsigned i = 0; write && i < 2 && len[i]; i++) {
			if (bad & (1U << i))
				memset(out[runs] + i * first, runs ? 0xff : 0, len[i]);
			else
				memcpy(out[runs] + i * first, at + i * first, len[i]);
		}
	}
	if (write)
		r = write_written(e, la[0], out[0], out[1], first);
	else
		r = X86_CONTINUE;
	if (write && len[1] && r == X86_CONTINUE)
		r = write_written(e, la[1], out[0] + first, out[1] + first, len[1]);
	return r;
}

/* ---- stores that fault ------------------------------------------------------------------------------------------------------ */

bool lite_is_loose_store(const struct insn *insn)
{
	if (!insn->has_mem || !(insn->mem.access & OPA_WRITE))
		return false;
	switch (insn->state) {
	case INSN_STATE_X87:
		return insn->mem.size <= 10; /* the environment and all of the state are lite_xstate()'s */
	case INSN_STATE_MMX:
		return true;
	default:
		return insn->mnemonic == MN_VCVTPS2PH;
	}
}

/*
 * Where the operand of these cannot be written, there is more to say than that, and each processor says something else:
 *
 *   - which comes first, the page fault or an exception of the operation itself, which on x87 means that nothing is stored and no fault
 *     happens. They are of one class, within which the order is the processor's (SDM 3A 6.9);
 *   - whether the flags of a conversion are in MXCSR and TOP is 0 for MMX when the fault comes;
 *   - whether the first quadword of ten bytes has been written when the page of the others is missing (SDM 3A 8.1.1).
 *
 * The guest is to find what the processor does that it sees in CPUID, by whatever way its code runs. So the processor is asked: the
 * instruction runs on an operand that goes into a missing page at the same byte.
 */
enum x86_result lite_store_fault(struct lite_vcpu *c, const struct insn *insn, u64 la)
{
	u8 *missing = c->mask_room + 2 * HOST_PAGE_SIZE, before[64];
	u64 rip = c->x87_rip, dp = c->x87_dp;
	struct emul *e = &c->vcpu.emul;
	struct x86_event fault = e->fault;
	struct lite_place place;
	struct masked_run run = { insn, missing, X86_CONTINUE };
	unsigned good = 0;
	u16 op = c->x87_op;

	/* The judge in lockstep takes back what it did to memory, not this. */
	if (e->ops != &lite_emul_ops)
		return X86_FAULT;
	if (fault.vector == VEC_PF && fault.payload - la < insn->mem.size)
		good = fault.payload - la;
	if (good) {
		/* No device's: it would be asked for what nobody wants. */
		if (lite_translate(c, la, LITE_WRITE, false, &place) != X86_CONTINUE || !place.host ||
		    e->ops->read(e, la, before, good, 0) != X86_CONTINUE)
			goto faults;
		run.mem = memcpy(missing - good, before, good);
	}
	c->x87_dp = la;
	if (lite_fault_guard(masked_run, c, &run))
		return run.r;
	lite_fpu_spare(c);
	/* It has not been: FIP and FDP name the last that was. */
	c->x87_rip = rip;
	c->x87_dp = dp;
	c->x87_op = op;
	if (memcmp(before, run.mem, good))
		e->ops->write(e, la, run.mem, good, 0);
faults:
	e->fault = fault;
	return X86_FAULT;
}
