/*
 * String and port instructions. Every element is one unit: its memory accesses, then the registers;
 * a fault, an exit or an interrupt between two elements leaves a state in which the same
 * instruction goes on (SDM 2B REP).
 */
#include "core/x86/emul/emul_priv.h"

static void advance(struct emul *e, const struct insn *in, unsigned reg)
{
	s64 step = e->s->rflags & RFLAGS_DF ? -(s64)in->opsize : in->opsize;

	emul_put_gpr(e->s, reg, in->addrsize, e->s->gpr[reg] + step);
}

/* DS:SI, whose segment can be overridden. */
static enum x86_result source_la(struct emul *e, const struct insn *in, u64 *la)
{
	unsigned seg = in->seg_override != INSN_SEG_NONE ? in->seg_override : SEG_DS;

	return emul_linear(e, seg, emul_get_gpr(e->s, REG_SI, in->addrsize), in->opsize, false, la);
}

/* ES:DI, always. */
static enum x86_result dest_la(struct emul *e, const struct insn *in, bool write, u64 *la)
{
	return emul_linear(e, SEG_ES, emul_get_gpr(e->s, REG_DI, in->addrsize), in->opsize, write,
			   la);
}

/* ---- one element ---------------------------------------------------------------------------- */

static enum x86_result movs_element(struct emul *e, const struct insn *in)
{
	u64 from, to, v;

	EMUL_TRY(source_la(e, in, &from));
	EMUL_TRY(emul_read_int(e, from, in->opsize, 0, &v));
	EMUL_TRY(dest_la(e, in, true, &to));
	EMUL_TRY(emul_write(e, to, &v, in->opsize, 0));
	advance(e, in, REG_SI);
	advance(e, in, REG_DI);
	return X86_CONTINUE;
}

static enum x86_result cmps_element(struct emul *e, const struct insn *in)
{
	u64 la, a, b;

	EMUL_TRY(source_la(e, in, &la));
	EMUL_TRY(emul_read_int(e, la, in->opsize, 0, &a));
	EMUL_TRY(dest_la(e, in, false, &la));
	EMUL_TRY(emul_read_int(e, la, in->opsize, 0, &b));
	emul_alu_sub(in->opsize, a, b, &e->s->rflags);
	advance(e, in, REG_SI);
	advance(e, in, REG_DI);
	return X86_CONTINUE;
}

static enum x86_result stos_element(struct emul *e, const struct insn *in)
{
	u64 la;

	EMUL_TRY(dest_la(e, in, true, &la));
	EMUL_TRY(emul_write(e, la, &e->s->gpr[REG_AX], in->opsize, 0));
	advance(e, in, REG_DI);
	return X86_CONTINUE;
}

static enum x86_result lods_element(struct emul *e, const struct insn *in)
{
	u64 la, v;

	EMUL_TRY(source_la(e, in, &la));
	EMUL_TRY(emul_read_int(e, la, in->opsize, 0, &v));
	emul_put_gpr(e->s, REG_AX, in->opsize, v);
	advance(e, in, REG_SI);
	return X86_CONTINUE;
}

static enum x86_result scas_element(struct emul *e, const struct insn *in)
{
	u64 la, v;

	EMUL_TRY(dest_la(e, in, false, &la));
	EMUL_TRY(emul_read_int(e, la, in->opsize, 0, &v));
	emul_alu_sub(in->opsize, emul_get_gpr(e->s, REG_AX, in->opsize), v, &e->s->rflags);
	advance(e, in, REG_DI);
	return X86_CONTINUE;
}

/* Reading a port has effects that cannot be taken back, so the destination is probed before. */
static enum x86_result ins_element(struct emul *e, const struct insn *in)
{
	u32 v = 0;
	u64 la;

	EMUL_TRY(dest_la(e, in, true, &la));
	EMUL_TRY(e->ops->probe(e, la, in->opsize, true, 0));
	EMUL_TRY(emul_done(e, e->ops->in(e, e->s->gpr[REG_DX], in->opsize, &v)));
	EMUL_TRY(emul_write(e, la, &v, in->opsize, 0));
	advance(e, in, REG_DI);
	return X86_CONTINUE;
}

static enum x86_result outs_element(struct emul *e, const struct insn *in)
{
	u64 la, v;

	EMUL_TRY(source_la(e, in, &la));
	EMUL_TRY(emul_read_int(e, la, in->opsize, 0, &v));
	EMUL_TRY(emul_done(e, e->ops->out(e, e->s->gpr[REG_DX], in->opsize, v)));
	advance(e, in, REG_SI);
	return X86_CONTINUE;
}

/* ---- repetition ----------------------------------------------------------------------------- */

/* One of these with ECX = 0, which touches no memory. */
#define REP32(opcode) __asm__ volatile(".byte 0x67, 0xf3, " opcode : "+c"(cx), "+S"(si), "+D"(di), "+a"(ax) : : "memory", "cc")

void emul_string_begin(struct x86_state *s, const struct insn *in)
{
	u64 cx = s->gpr[REG_CX] & ~0xffffffffULL, si = s->gpr[REG_SI], di = s->gpr[REG_DI], ax = 0;

	switch (in->mnemonic) {
	case MN_MOVS: REP32("0xa4"); break;
	case MN_CMPS: REP32("0xa6"); break;
	case MN_STOS: REP32("0xaa"); break;
	case MN_LODS: REP32("0xac"); break;
	case MN_SCAS: REP32("0xae"); break;
	default: return; /* no program may try INS and OUTS */
	}
	s->gpr[REG_CX] = cx | (u32)s->gpr[REG_CX];
	s->gpr[REG_SI] = si;
	s->gpr[REG_DI] = di;
}

static void keep_flags(struct x86_state *s, u64 flags)
{
	s->rflags = (s->rflags & ~(u64)RFLAGS_ARITH) | (flags & RFLAGS_ARITH);
}

/*
 * @compares: CMPS and SCAS, which REPE and REPNE end early; for the others both prefixes mean REP. Whoever comes in between finds the
 * flags from before the instruction (SDM 2B REP; of a fault it says so, processors do it at traps, too).
 */
EMUL_INLINE enum x86_result repeat(struct emul *e, const struct insn *in, bool compares,
				   enum x86_result (*element)(struct emul *e,
							      const struct insn *in))
{
	struct x86_state *s = e->s;
	unsigned batch = EMUL_STRING_BATCH;
	u64 count, flags = s->rflags;
	enum x86_result r;

	if (!in->rep)
		return element(e, in);
	if (in->addrsize == 4 && s->mode == X86_MODE_LONG)
		emul_string_begin(s, in);
	count = emul_get_gpr(s, REG_CX, in->addrsize);
	while (count) {
		r = element(e, in);
		if (r != X86_CONTINUE) {
			keep_flags(s, flags);
			return r;
		}
		emul_put_gpr(s, REG_CX, in->addrsize, --count);
		if (compares && !(s->rflags & RFLAGS_ZF) == (in->rep == INSN_REP_E))
			break;
		if (!count)
			break;
		if (e->tf_at_start || (e->after & EMUL_AFTER_EXIT) ||
		    (e->ops->element_done ? e->ops->element_done(e) : !--batch)) {
			/* An interrupt here returns with RF set: no second instruction breakpoint
			 * (SDM 3B 17.3.1.1). */
			e->next_rip = s->rip;
			keep_flags(s, flags);
			s->rflags |= RFLAGS_RF;
			e->after |= EMUL_AFTER_KEEP_RF;
			break;
		}
	}
	return X86_CONTINUE;
}

enum x86_result emul_movs(struct emul *e, const struct insn *in)
{
	return repeat(e, in, false, movs_element);
}

enum x86_result emul_cmps(struct emul *e, const struct insn *in)
{
	return repeat(e, in, true, cmps_element);
}

enum x86_result emul_stos(struct emul *e, const struct insn *in)
{
	return repeat(e, in, false, stos_element);
}

enum x86_result emul_lods(struct emul *e, const struct insn *in)
{
	return repeat(e, in, false, lods_element);
}

enum x86_result emul_scas(struct emul *e, const struct insn *in)
{
	return repeat(e, in, true, scas_element);
}

/* ---- ports ---------------------------------------------------------------------------------- */

/* IOPL, then the TSS's permission bitmap (SDM 1 19.5.2). Two bytes are read, both within the limit.
 */
enum x86_result emul_check_io(struct emul *e, u16 port, unsigned size)
{
	const struct x86_state *s = e->s;
	const struct x86_segment *tr = &s->seg[SEG_TR];
	u64 base, bits;

	if (s->mode == X86_MODE_REAL || (s->mode != X86_MODE_V86 && s->cpl <= emul_iopl(s)))
		return X86_CONTINUE;
	if ((tr->ar & AR_UNUSABLE) || ((tr->ar & AR_TYPE) | 2) != DESC_TSS32_BUSY ||
	    tr->limit < 103)
		return emul_fault_code(e, VEC_GP, 0);
	EMUL_TRY(emul_read_int(e, tr->base + 102, 2, EMUL_ACC_SYSTEM, &base));
	base += port / 8;
	if (base + 1 > tr->limit)
		return emul_fault_code(e, VEC_GP, 0);
	EMUL_TRY(emul_read_int(e, tr->base + base, 2, EMUL_ACC_SYSTEM, &bits));
	if (bits >> (port & 7) & ((1U << size) - 1))
		return emul_fault_code(e, VEC_GP, 0);
	return X86_CONTINUE;
}

enum x86_result emul_ins(struct emul *e, const struct insn *in)
{
	EMUL_TRY(emul_check_io(e, e->s->gpr[REG_DX], in->opsize));
	return repeat(e, in, false, ins_element);
}

enum x86_result emul_outs(struct emul *e, const struct insn *in)
{
	EMUL_TRY(emul_check_io(e, e->s->gpr[REG_DX], in->opsize));
	return repeat(e, in, false, outs_element);
}

static u16 port_of(struct emul *e, const struct insn *in, unsigned i)
{
	return in->op[i].kind == OPK_IMM ? (u8)in->imm : (u16)e->s->gpr[REG_DX];
}

enum x86_result emul_in_port(struct emul *e, const struct insn *in)
{
	u16 port = port_of(e, in, 1);
	unsigned size = in->op[0].size;
	u32 v = 0;

	EMUL_TRY(emul_check_io(e, port, size));
	EMUL_TRY(emul_done(e, e->ops->in(e, port, size, &v)));
	emul_put_gpr(e->s, REG_AX, size, v);
	return X86_CONTINUE;
}

enum x86_result emul_out_port(struct emul *e, const struct insn *in)
{
	u16 port = port_of(e, in, 0);
	unsigned size = in->op[1].size;

	EMUL_TRY(emul_check_io(e, port, size));
	return emul_done(e, e->ops->out(e, port, size, emul_get_gpr(e->s, REG_AX, size)));
}
