/*
 * System instructions: flags that guard interrupts, descriptor table registers, control and debug
 * registers, MSRs, time, identification, caches and hints (SDM 2A to 2D, SDM 3A chapters 2 and 20).
 */
#include "core/x86/emul/emul_priv.h"

/* "AuthenticAMD" or "HygonGenuine": some instructions differ by vendor, by as much as their
 * existence. */
bool emul_vendor_amd(struct emul *e)
{
	u32 regs[4] = { 0 };

	e->ops->cpuid(e, regs);
	return regs[2] == 0x444d4163 || regs[2] == 0x656e6975;
}

static enum x86_result gp0(struct emul *e)
{
	return emul_fault_code(e, VEC_GP, 0);
}

/* ---- CLI, STI, CLAC, STAC ------------------------------------------------------------------- */

/* Which flag CLI and STI mean here: IF, VIF by VME or PVI (SDM 3B 20.3.3.5, 20.4), or none (0). */
static u64 interrupt_flag(const struct x86_state *s)
{
	if (s->mode == X86_MODE_REAL || s->cpl <= emul_iopl(s))
		return RFLAGS_IF;
	if (s->mode == X86_MODE_V86)
		return s->cr4 & CR4_VME ? RFLAGS_VIF : 0;
	return s->cpl == 3 && (s->cr4 & CR4_PVI) ? RFLAGS_VIF : 0;
}

enum x86_result emul_cli(struct emul *e, const struct insn *in)
{
	u64 flag = interrupt_flag(e->s);

	if (!flag)
		return gp0(e);
	e->s->rflags &= ~flag;
	return X86_CONTINUE;
}

enum x86_result emul_sti(struct emul *e, const struct insn *in)
{
	u64 flag = interrupt_flag(e->s);

	if (!flag || (flag == RFLAGS_VIF && (e->s->rflags & RFLAGS_VIP)))
		return gp0(e);
	if (flag == RFLAGS_IF && !(e->s->rflags & RFLAGS_IF))
		e->after |= SHADOW_STI;
	e->s->rflags |= flag;
	return X86_CONTINUE;
}

enum x86_result emul_clac(struct emul *e, const struct insn *in)
{
	if (e->s->cpl)
		return emul_fault(e, VEC_UD);
	e->s->rflags &= ~RFLAGS_AC;
	return X86_CONTINUE;
}

enum x86_result emul_stac(struct emul *e, const struct insn *in)
{
	if (e->s->cpl)
		return emul_fault(e, VEC_UD);
	e->s->rflags |= RFLAGS_AC;
	return X86_CONTINUE;
}

/* ---- GDTR, IDTR, machine status word -------------------------------------------------------- */

static enum x86_result store_table(struct emul *e, const struct insn *in,
				   const struct x86_dtable *t)
{
	unsigned base_size = e->s->mode == X86_MODE_LONG ? 8 : 4;
	u8 buf[10];
	u64 la;

	memcpy(buf, &t->limit, 2);
	memcpy(buf + 2, &t->base, 8);
	EMUL_TRY(emul_mem_la(e, in, 2 + base_size, true, &la));
	return emul_write(e, la, buf, 2 + base_size, 0);
}

static enum x86_result load_table(struct emul *e, const struct insn *in, struct x86_dtable *t)
{
	unsigned base_size = e->s->mode == X86_MODE_LONG ? 8 : 4;
	u64 base = 0, la;
	u8 buf[10];

	EMUL_TRY(emul_mem_la(e, in, 2 + base_size, false, &la));
	EMUL_TRY(emul_read(e, la, buf, 2 + base_size, 0));
	memcpy(&base, buf + 2, base_size);
	if (base_size == 4 && in->opsize == 2)
		base &= 0xffffff;
	if (base_size == 8 && !emul_canonical(e->s, base))
		return gp0(e);
	memcpy(&t->limit, buf, 2);
	t->base = base;
	if (e->ops->mode_changed)
		e->ops->mode_changed(e);
	return X86_CONTINUE;
}

enum x86_result emul_sgdt(struct emul *e, const struct insn *in)
{
	return store_table(e, in, &e->s->gdt);
}

enum x86_result emul_sidt(struct emul *e, const struct insn *in)
{
	return store_table(e, in, &e->s->idt);
}

enum x86_result emul_lgdt(struct emul *e, const struct insn *in)
{
	return load_table(e, in, &e->s->gdt);
}

enum x86_result emul_lidt(struct emul *e, const struct insn *in)
{
	return load_table(e, in, &e->s->idt);
}

enum x86_result emul_smsw(struct emul *e, const struct insn *in)
{
	return emul_put(e, in, 0, e->s->cr0);
}

static enum x86_result set_cr(struct emul *e, unsigned cr, u64 value)
{
	EMUL_TRY(emul_done(e, e->ops->set_cr(e, cr, value)));
	x86_update_mode(e->s);
	return X86_CONTINUE;
}

/* PE can be set by it, not cleared (SDM 2A LMSW). */
enum x86_result emul_lmsw(struct emul *e, const struct insn *in)
{
	u64 v, cr0 = e->s->cr0 & ~(CR0_MP | CR0_EM | CR0_TS);

	EMUL_TRY(emul_get(e, in, 0, &v));
	return set_cr(e, 0, cr0 | (v & 15));
}

enum x86_result emul_clts(struct emul *e, const struct insn *in)
{
	return set_cr(e, 0, e->s->cr0 & ~CR0_TS);
}

/* ---- control and debug registers ------------------------------------------------------------ */

enum x86_result emul_mov_cr(struct emul *e, const struct insn *in)
{
	bool load = in->op[0].kind == OPK_CREG;
	unsigned cr = in->op[load ? 0 : 1].reg;
	u64 v = 0;

	if (cr > 8 || !(0x11d >> cr & 1))
		return emul_fault(e, VEC_UD);
	if (load) {
		EMUL_TRY(emul_get(e, in, 1, &v));
		if (cr != 2)
			return set_cr(e, cr, v);
		e->s->cr2 = v;
		return X86_CONTINUE;
	}
	if (cr == 2)
		v = e->s->cr2;
	else
		EMUL_TRY(emul_done(e, e->ops->get_cr(e, cr, &v)));
	emul_put_reg(e, &in->op[0], v);
	return X86_CONTINUE;
}

enum x86_result emul_mov_dr(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	bool load = in->op[0].kind == OPK_DREG;
	unsigned dr = in->op[load ? 0 : 1].reg;
	u64 v;

	if (dr > 7)
		return emul_fault(e, VEC_UD);
	if (dr == 4 || dr == 5) {
		if (s->cr4 & CR4_DE)
			return emul_fault(e, VEC_UD);
		dr += 2;
	}
	if (s->cpl)
		return gp0(e);
	/* General detect: a fault before any access (SDM 3B 17.2.4). */
	if ((s->dr7 & DR7_GD) || e->general_detect) {
		emul_fault(e, VEC_DB);
		e->fault.has_payload = true;
		e->fault.payload = DR6_BD;
		return X86_FAULT;
	}
	if (load) {
		EMUL_TRY(emul_get(e, in, 1, &v));
		return emul_done(e, e->ops->set_dr(e, dr, v));
	}
	v = dr < 4 ? s->dr[dr] : dr == 6 ? s->dr6 : s->dr7;
	emul_put_reg(e, &in->op[0], v);
	return X86_CONTINUE;
}

/* ---- MSRs, counters, identification --------------------------------------------------------- */

static void put_edx_eax(struct x86_state *s, u64 v)
{
	s->gpr[REG_AX] = (u32)v;
	s->gpr[REG_DX] = v >> 32;
}

static u64 get_edx_eax(const struct x86_state *s)
{
	return (u32)s->gpr[REG_AX] | s->gpr[REG_DX] << 32;
}

enum x86_result emul_rdmsr(struct emul *e, const struct insn *in)
{
	u64 v = 0;

	EMUL_TRY(emul_done(e, e->ops->get_msr(e, e->s->gpr[REG_CX], &v)));
	put_edx_eax(e->s, v);
	return X86_CONTINUE;
}

enum x86_result emul_wrmsr(struct emul *e, const struct insn *in)
{
	EMUL_TRY(emul_done(e, e->ops->set_msr(e, e->s->gpr[REG_CX], get_edx_eax(e->s))));
	/* FS and GS bases, EFER */
	emul_mode_changed(e);
	return X86_CONTINUE;
}

static enum x86_result check_tsd(struct emul *e)
{
	return (e->s->cr4 & CR4_TSD) && e->s->cpl ? gp0(e) : X86_CONTINUE;
}

enum x86_result emul_rdtsc(struct emul *e, const struct insn *in)
{
	EMUL_TRY(check_tsd(e));
	put_edx_eax(e->s, e->ops->rdtsc(e));
	return X86_CONTINUE;
}

enum x86_result emul_rdtscp(struct emul *e, const struct insn *in)
{
	EMUL_TRY(check_tsd(e));
	put_edx_eax(e->s, e->ops->rdtsc(e));
	e->s->gpr[REG_CX] = (u32)e->s->tsc_aux;
	return X86_CONTINUE;
}

enum x86_result emul_rdpid(struct emul *e, const struct insn *in)
{
	emul_put_reg(e, &in->op[0], (u32)e->s->tsc_aux);
	return X86_CONTINUE;
}

enum x86_result emul_rdpmc(struct emul *e, const struct insn *in)
{
	u64 v = 0;

	if (!(e->s->cr4 & CR4_PCE) && e->s->cpl)
		return gp0(e);
	EMUL_TRY(emul_done(e, e->ops->rdpmc(e, e->s->gpr[REG_CX], &v)));
	put_edx_eax(e->s, v);
	return X86_CONTINUE;
}

enum x86_result emul_cpuid(struct emul *e, const struct insn *in)
{
	struct x86_state *s = e->s;
	u32 regs[4] = { s->gpr[REG_AX], 0, s->gpr[REG_CX], 0 };

	e->ops->cpuid(e, regs);
	s->gpr[REG_AX] = regs[0];
	s->gpr[REG_BX] = regs[1];
	s->gpr[REG_CX] = regs[2];
	s->gpr[REG_DX] = regs[3];
	return X86_CONTINUE;
}

static enum x86_result random(struct emul *e, const struct insn *in, bool seed)
{
	u64 v = 0;
	bool ok;

	if (!e->ops->random)
		return emul_fault(e, VEC_UD);
	ok = e->ops->random(e, seed, &v);
	emul_put_reg(e, &in->op[0], ok ? v : 0);
	emul_set_flags(e->s, emul_flag(ok, RFLAGS_CF), RFLAGS_ARITH);
	return X86_CONTINUE;
}

enum x86_result emul_rdrand(struct emul *e, const struct insn *in)
{
	return random(e, in, false);
}

enum x86_result emul_rdseed(struct emul *e, const struct insn *in)
{
	return random(e, in, true);
}

/* Index 1 is XINUSE, which may always answer that everything enabled is in use (SDM 1 13.6). */
enum x86_result emul_xgetbv(struct emul *e, const struct insn *in)
{
	u32 index = e->s->gpr[REG_CX];

	if (!(e->s->cr4 & CR4_OSXSAVE))
		return emul_fault(e, VEC_UD);
	if (index > 1 || (index == 1 && !emul_has(e, X86_FEATURE_XGETBV1)))
		return gp0(e);
	put_edx_eax(e->s, e->s->xcr0);
	return X86_CONTINUE;
}

enum x86_result emul_xsetbv(struct emul *e, const struct insn *in)
{
	if (!(e->s->cr4 & CR4_OSXSAVE))
		return emul_fault(e, VEC_UD);
	if (e->s->cpl)
		return gp0(e);
	return emul_done(e, e->ops->set_xcr(e, e->s->gpr[REG_CX], get_edx_eax(e->s)));
}

/* ---- FS and GS bases ------------------------------------------------------------------------ */

static unsigned base_reg(const struct insn *in)
{
	return in->mnemonic == MN_RDFSBASE || in->mnemonic == MN_WRFSBASE ? SEG_FS : SEG_GS;
}

/* RDFSBASE, RDGSBASE */
enum x86_result emul_rdbase(struct emul *e, const struct insn *in)
{
	if (!(e->s->cr4 & CR4_FSGSBASE))
		return emul_fault(e, VEC_UD);
	emul_put_reg(e, &in->op[0], e->s->seg[base_reg(in)].base);
	return X86_CONTINUE;
}

/* WRFSBASE, WRGSBASE */
enum x86_result emul_wrbase(struct emul *e, const struct insn *in)
{
	u64 v;

	if (!(e->s->cr4 & CR4_FSGSBASE))
		return emul_fault(e, VEC_UD);
	EMUL_TRY(emul_get(e, in, 0, &v));
	if (!emul_canonical(e->s, v))
		return gp0(e);
	e->s->seg[base_reg(in)].base = v;
	emul_mode_changed(e);
	return X86_CONTINUE;
}

enum x86_result emul_swapgs(struct emul *e, const struct insn *in)
{
	u64 base = e->s->seg[SEG_GS].base;

	e->s->seg[SEG_GS].base = e->s->kernel_gs_base;
	e->s->kernel_gs_base = base;
	emul_mode_changed(e);
	return X86_CONTINUE;
}

/* ---- caches, TLB, waiting ------------------------------------------------------------------- */

enum x86_result emul_hlt(struct emul *e, const struct insn *in)
{
	return emul_done(e, e->ops->hlt(e));
}

/* INVD, WBINVD, WBNOINVD */
enum x86_result emul_wbinvd(struct emul *e, const struct insn *in)
{
	return emul_done(e, e->ops->wbinvd(e));
}

enum x86_result emul_invlpg(struct emul *e, const struct insn *in)
{
	u64 la;

	emul_mem_la(e, in, 0, false, &la);
	if (e->s->mode != X86_MODE_LONG || emul_canonical(e->s, la))
		e->ops->invlpg(e, la);
	return X86_CONTINUE;
}

/* SDM 2A INVPCID: descriptor of PCID and address. */
enum x86_result emul_invpcid(struct emul *e, const struct insn *in)
{
	u64 type, la, d[2];

	if (e->s->mode == X86_MODE_V86)
		return gp0(e);
	if (e->s->cpl)
		return gp0(e);
	EMUL_TRY(emul_get(e, in, 0, &type));
	EMUL_TRY(emul_mem_la(e, in, 16, false, &la));
	EMUL_TRY(emul_read(e, la, d, 16, 0));
	if (type > 3 || d[0] >> 12)
		return gp0(e);
	if (type == 0 && !emul_canonical(e->s, d[1]))
		return gp0(e);
	if (type < 2 && d[0] && !(e->s->cr4 & CR4_PCIDE))
		return gp0(e);
	return emul_done(e, e->ops->invpcid(e, type, d[0], d[1]));
}

enum x86_result emul_monitor(struct emul *e, const struct insn *in)
{
	unsigned seg = in->seg_override != INSN_SEG_NONE ? in->seg_override : SEG_DS;
	u64 la, v;

	if (e->s->cpl)
		return emul_fault(e, VEC_UD);
	if ((u32)e->s->gpr[REG_CX])
		return gp0(e);
	EMUL_TRY(emul_linear(e, seg, emul_get_gpr(e->s, REG_AX, in->addrsize), 1, false, &la));
	return emul_read_int(e, la, 1, 0, &v);
}

/*
 * Nothing watches the monitored line, and software must expect MWAIT to end at any time (SDM
 * 3A 8.10.4): it ends at once.
 */
enum x86_result emul_mwait(struct emul *e, const struct insn *in)
{
	if (e->s->cpl)
		return emul_fault(e, VEC_UD);
	if ((u32)e->s->gpr[REG_CX] & ~1U)
		return gp0(e);
	return emul_done(e, e->ops->pause(e));
}

/* VMCALL, VMMCALL */
enum x86_result emul_hypercall(struct emul *e, const struct insn *in)
{
	return emul_done(e, e->ops->hypercall(e));
}

/* Hints, fences and prefetches: every access here is in program order already. */
enum x86_result emul_nop(struct emul *e, const struct insn *in)
{
	return X86_CONTINUE;
}

enum x86_result emul_pause(struct emul *e, const struct insn *in)
{
	return emul_done(e, e->ops->pause(e));
}

/* CLFLUSH, CLFLUSHOPT, CLWB: as a byte load, whose faults they have (SDM 2A CLFLUSH). */
enum x86_result emul_clflush(struct emul *e, const struct insn *in)
{
	u64 la;

	EMUL_TRY(emul_mem_la(e, in, 1, false, &la));
	return emul_done(e, e->ops->probe(e, la, 1, false, 0));
}

/* APM 3 CLZERO: the line that rAX points into. */
enum x86_result emul_clzero(struct emul *e, const struct insn *in)
{
	unsigned seg = in->seg_override != INSN_SEG_NONE ? in->seg_override : SEG_DS;
	u64 ea = emul_get_gpr(e->s, REG_AX, in->addrsize) & ~63ULL, la;
	static const u8 zero[64];

	EMUL_TRY(emul_linear(e, seg, ea, 64, true, &la));
	return emul_write(e, la, zero, 64, 0);
}

/* ---- x87, SIMD, XSAVE ----------------------------------------------------------------------- */

/* Where #UD ends and #NM begins: SDM 2A 2.4 and 2.8, SDM 3A tables 2-3 and 13-1. */
enum x86_result emul_check_state(struct emul *e, const struct insn *in)
{
	const struct x86_state *s = e->s;
	u64 need = XCR0_SSE | XCR0_AVX;

	switch (in->state) {
	case INSN_STATE_NONE: return X86_CONTINUE;
	case INSN_STATE_VEX_GPR:
		if (!emul_protected(s))
			return emul_fault(e, VEC_UD);
		return X86_CONTINUE;
	case INSN_STATE_X87:
	case INSN_STATE_FXSR:
		if (s->cr0 & (CR0_EM | CR0_TS))
			return emul_fault(e, VEC_NM);
		return X86_CONTINUE;
	case INSN_STATE_WAIT:
		if ((s->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
			return emul_fault(e, VEC_NM);
		return X86_CONTINUE;
	case INSN_STATE_MMX:
		if (s->cr0 & CR0_EM)
			return emul_fault(e, VEC_UD);
		break;
	case INSN_STATE_SSE:
		if ((s->cr0 & CR0_EM) || !(s->cr4 & CR4_OSFXSR))
			return emul_fault(e, VEC_UD);
		break;
	case INSN_STATE_XSAVE:
		if (!(s->cr4 & CR4_OSXSAVE))
			return emul_fault(e, VEC_UD);
		break;
	case INSN_STATE_AVX512: need |= XCR0_AVX512; __attribute__((fallthrough));
	case INSN_STATE_AVX:
		if (!emul_protected(s) || !(s->cr4 & CR4_OSXSAVE) || (s->xcr0 & need) != need)
			return emul_fault(e, VEC_UD);
		break;
	default: return emul_fault(e, VEC_UD);
	}
	return s->cr0 & CR0_TS ? emul_fault(e, VEC_NM) : X86_CONTINUE;
}

enum x86_result emul_native(struct emul *e, const struct insn *in)
{
	EMUL_TRY(emul_check_state(e, in));
	if (unlikely(in->flags & INSN_F_PRIVILEGED) && e->s->cpl)
		return gp0(e);
	return emul_done(e, e->ops->native(e, in));
}

/* RDSSP without shadow stacks is a NOP (SDM 2B RDSSPD). */
enum x86_result emul_rdssp(struct emul *e, const struct insn *in)
{
	return X86_CONTINUE;
}
