/*
 * The functions of system.h by decoded instruction: those of system.c, and what else a kernel executes at every switch of address space,
 * task or level: segment and control registers, MSRs, the TSC, invalidation.
 *
 * Rules that are core's own (MSRs, CR3, CPUID) are asked for through the emulator's ops, so they are the same ones. An op that
 * fails changed nothing, and is asked again by the general path, which raises what follows.
 */
#include "core/x86/cpuid.h"
#include "core/x86/msr.h"
#include "engines/lite/system_priv.h"

/* ---- operands ----------------------------------------------------------------------------------------------- */

static inline u64 get_reg(const struct x86_state *s, const struct operand *o)
{
	u64 v = s->gpr[o->reg];

	return o->size == 8 ? v : o->size == 4 ? (u32)v : (u16)v;
}

static inline void put_reg(struct x86_state *s, const struct operand *o, u64 v)
{
	if (o->size == 8)
		s->gpr[o->reg] = v;
	else if (o->size == 4)
		s->gpr[o->reg] = (u32)v;
	else
		s->gpr[o->reg] = (s->gpr[o->reg] & ~0xffffULL) | (u16)v;
}

static inline void put_edx_eax(struct x86_state *s, u64 v)
{
	s->gpr[REG_AX] = (u32)v;
	s->gpr[REG_DX] = v >> 32;
}

static u64 mem_la(struct lite_vcpu *c, const struct insn *in)
{
	u64 la = emul_effective_address(&c->vcpu.emul, in);

	return in->mem.seg >= SEG_FS ? la + c->vcpu.x86.seg[in->mem.seg].base : la;
}

/* A selector operand. */
static bool get_sel(struct lite_vcpu *c, const struct insn *in, unsigned n, u16 *sel)
{
	const struct operand *o = &in->op[n];
	int err = 0;
	u64 la;
	u8 *p;

	if (o->kind == OPK_GPR) {
		*sel = c->vcpu.x86.gpr[o->reg];
		return true;
	}
	la = mem_la(c, in);
	/* Misaligned, it may have to raise #AC. */
	if (o->kind != OPK_MEM || (la & 1))
		return false;
	p = lite_reach(c, c->view, la, 2, false);
	if (!p)
		return false;
	*sel = load16(p, &err);
	return !err;
}

/* Whether an MSR access that the client answers is under way: it is the general path's. */
static inline bool msr_busy(const struct lite_vcpu *c)
{
	return unlikely(c->vcpu.msr_exit.state != MSR_EXIT_NONE);
}

/* ---- those of system.c ---------------------------------------------------------------------------------------- */

static bool fast_syscall(struct lite_vcpu *c, const struct insn *in)
{
	return lite_fast_syscall(c, in->len);
}

static bool fast_sysret(struct lite_vcpu *c, const struct insn *in)
{
	return lite_fast_sysret(c, in->opsize == 8);
}

static bool fast_iret(struct lite_vcpu *c, const struct insn *in)
{
	return lite_fast_iret(c);
}

static bool fast_swapgs(struct lite_vcpu *c, const struct insn *in)
{
	return lite_fast_swapgs(c, in->len);
}

static bool fast_cli(struct lite_vcpu *c, const struct insn *in)
{
	return lite_fast_cli(c, in->len);
}

static bool fast_sti(struct lite_vcpu *c, const struct insn *in)
{
	return lite_fast_sti(c, in->len);
}

static bool fast_pushf(struct lite_vcpu *c, const struct insn *in)
{
	return lite_fast_pushf(c, in->len);
}

static bool fast_popf(struct lite_vcpu *c, const struct insn *in)
{
	return lite_fast_popf(c, in->len);
}

/* ---- segments --------------------------------------------------------------------------------------------------- */

static bool fast_load_sreg(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	struct x86_segment *seg = &s->seg[in->op[0].reg];
	unsigned dpl;
	u64 raw;
	u16 sel;

	if (unlikely(!get_sel(c, in, 1, &sel)))
		return false;
	if (sel & ~3) {
		if (unlikely(!lite_read_desc(c, sel, &raw)))
			return false;
		dpl = raw >> 45 & 3;
		/* Data or readable code, present, accessed; not conforming, for which other rules hold */
		if ((raw & DESC(AR_S | AR_P | 1)) != DESC(AR_S | AR_P | 1) || (raw & DESC(10)) == DESC(8) ||
		    (raw & DESC(12)) == DESC(12) || (sel & 3) > dpl || s->cpl > dpl)
			return false;
		seg_from_desc(seg, sel, raw);
	} else {
		*seg = (struct x86_segment){ .sel = sel, .ar = AR_UNUSABLE };
	}
	insn_done(s, in->len);
	return true;
}

static bool fast_store_sreg(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	put_reg(s, &in->op[0], s->seg[in->op[1].reg].sel);
	insn_done(s, in->len);
	return true;
}

/* SLDT, STR */
static bool fast_store_system(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	if (unlikely(s->cpl && (s->cr4 & CR4_UMIP)))
		return false;
	put_reg(s, &in->op[0], s->seg[in->mnemonic == MN_STR ? SEG_TR : SEG_LDTR].sel);
	insn_done(s, in->len);
	return true;
}

/* To no local table, which is what nearly all processes have. */
static bool fast_lldt(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	u16 sel;

	if (unlikely(s->cpl || !get_sel(c, in, 0, &sel) || (sel & ~3)))
		return false;
	s->seg[SEG_LDTR] = (struct x86_segment){ .sel = sel, .ar = AR_UNUSABLE };
	insn_done(s, in->len);
	return true;
}

static bool fast_verw(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	unsigned dpl;
	u64 raw;
	u16 sel;

	if (unlikely(!get_sel(c, in, 0, &sel) || !lite_read_desc(c, sel, &raw)))
		return false;
	dpl = raw >> 45 & 3;
	insn_done(s, in->len);
	s->rflags &= ~RFLAGS_ZF;
	/* Writable data that is visible from here */
	if ((raw & DESC(AR_S | 10)) == DESC(AR_S | 2) && dpl >= s->cpl && dpl >= (sel & 3))
		s->rflags |= RFLAGS_ZF;
	return true;
}

static inline struct x86_segment *base_of(struct x86_state *s, const struct insn *in)
{
	return &s->seg[in->mnemonic == MN_RDFSBASE || in->mnemonic == MN_WRFSBASE ? SEG_FS : SEG_GS];
}

static bool fast_rdbase(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	if (unlikely(!(s->cr4 & CR4_FSGSBASE)))
		return false;
	put_reg(s, &in->op[0], base_of(s, in)->base);
	insn_done(s, in->len);
	return true;
}

static bool fast_wrbase(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 base = get_reg(s, &in->op[0]);

	if (unlikely(!(s->cr4 & CR4_FSGSBASE) || !x86_is_canonical(base, s->cr4)))
		return false;
	base_of(s, in)->base = base;
	insn_done(s, in->len);
	return true;
}

/* ---- control registers and what hangs on them ------------------------------------------------------------------- */

static bool fast_read_cr(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 v;

	if (unlikely(s->cpl))
		return false;
	switch (in->op[1].reg) {
	case 0: v = s->cr0; break;
	case 2: v = s->cr2; break;
	case 3: v = s->cr3; break;
	default: v = s->cr4; break;
	}
	put_reg(s, &in->op[0], v);
	insn_done(s, in->len);
	return true;
}

static bool fast_write_cr3(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	lite_fpu_spare(c);
	if (unlikely(s->cpl || vcpu_set_cr(&c->vcpu, 3, get_reg(s, &in->op[1])) != X86_CONTINUE))
		return false;
	/* tlb_flush() has done what lite_refresh() would do for it. */
	c->seen_cr3 = s->cr3;
	insn_done(s, in->len);
	return true;
}

static bool fast_write_cr2(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	if (unlikely(s->cpl))
		return false;
	s->cr2 = get_reg(s, &in->op[1]);
	insn_done(s, in->len);
	return true;
}

static bool fast_clts(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	lite_fpu_spare(c);
	if (unlikely(s->cpl || vcpu_set_cr(&c->vcpu, 0, s->cr0 & ~CR0_TS) != X86_CONTINUE))
		return false;
	insn_done(s, in->len);
	return true;
}

static bool fast_invlpg(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 la;

	if (unlikely(s->cpl))
		return false;
	la = mem_la(c, in);
	if (likely(x86_is_canonical(la, s->cr4)))
		lite_tlb_flush(&c->vcpu, TLB_PAGE, la);
	insn_done(s, in->len);
	return true;
}

static bool fast_invpcid(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 type = get_reg(s, &in->op[0]), pcid, la;
	int err = 0;
	u8 *p;

	if (unlikely(s->cpl || !vcpu_has_feature(&c->vcpu, X86_FEATURE_INVPCID)))
		return false;
	p = lite_reach(c, c->view, mem_la(c, in), 16, false);
	if (unlikely(!p))
		return false;
	pcid = load64(p, &err);
	la = load64(p + 8, &err);
	if (unlikely(err || type > 3 || pcid >> 12 || (type == 0 && !x86_is_canonical(la, s->cr4)) ||
		     (type < 2 && pcid && !(s->cr4 & CR4_PCIDE))))
		return false;
	lite_fpu_spare(c);
	if (c->vcpu.emul.ops->invpcid(&c->vcpu.emul, type, pcid, la) != X86_CONTINUE)
		return false;
	insn_done(s, in->len);
	return true;
}

static bool fast_xgetbv(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	if (unlikely(!(s->cr4 & CR4_OSXSAVE) || (u32)s->gpr[REG_CX]))
		return false;
	put_edx_eax(s, s->xcr0);
	insn_done(s, in->len);
	return true;
}

/* ---- XSAVE, XSAVEC, XRSTOR -------------------------------------------------------------------------------------- */

#define XSAVE_BV   512
#define XCOMP_BV   520

/* The area at @la when it is one piece of the host's memory, too. */
static u8 *reach_area(struct lite_vcpu *c, u64 la, u32 size, bool write)
{
	unsigned first = MIN(size, 4096 - (unsigned)(la & 0xfff));
	u64 flushes = c->flush_count;
	u8 *p, *q;

	p = lite_reach(c, c->view, la, first, write);
	if (likely(first == size) || unlikely(!p))
		return p;
	q = lite_reach(c, c->view, la + first, size - first, write);
	return q == p + first && flushes == c->flush_count ? p : NULL;
}

static bool x87_in_use(const struct lite_vcpu *c)
{
	u32 a, d;

	if (!vcpu_has_feature(&c->vcpu, X86_FEATURE_XGETBV1))
		return true;
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(1));
	return a & XCR0_FP;
}

/*
 * The instruction itself, on the guest's memory, for its registers are in the CPU: every switch of tasks saves and loads them. Not where the
 * x87's pointers would come along, which may be the host's (lite_fpu_save()), and not XSAVEOPT: by host addresses it might take an area for
 * the one that was loaded last. XRSTOR believes the area's header, which another vCPU may write meanwhile: as much as any header can make it
 * read has to be there. What faults is raised by the general path.
 */
static bool fast_xsave(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	bool load = in->mnemonic == MN_XRSTOR, compact = in->mnemonic == MN_XSAVEC;
	u64 rfbm = ((u32)s->gpr[REG_AX] | s->gpr[REG_DX] << 32) & s->xcr0, la, bv, comp;
	u32 size;
	int err = 0;
	u8 *p;

	if (unlikely(!(s->cr4 & CR4_OSXSAVE) || (s->cr0 & (CR0_TS | CR0_EM)) || (rfbm & ~c->xfeatures) ||
		     (compact && !vcpu_has_feature(&c->vcpu, X86_FEATURE_XSAVEC))))
		return false;
	la = mem_la(c, in);
	if (unlikely(la & 63))
		return false;
	if (load) {
		size = lite_xstate_most();
	} else if (likely(compact && c->area_rfbm == rfbm && c->area_end)) {
		size = c->area_end;
	} else {
		size = lite_xstate_end(rfbm, compact);
		if (compact) {
			c->area_rfbm = rfbm;
			c->area_end = size;
		}
	}
	p = reach_area(c, la, size, !load);
	if (unlikely(!p))
		return false;
	if (load) {
		bv = load64(p + XSAVE_BV, &err);
		comp = load64(p + XCOMP_BV, &err);
		if (unlikely(err || (comp & ~BIT64(63) & ~s->xcr0) || (bv & ~s->xcr0) ||
			     (comp && !vcpu_has_feature(&c->vcpu, X86_FEATURE_XSAVEC))))
			return false;
	}
	lite_fpu_load(c);
	if (!load && (rfbm & XCR0_FP) && x87_in_use(c))
		return false;
#define ON_AREA(insn)                                                                            \
	__asm__ volatile("1: " insn " (%[p])\n2:\n" HOST_EX_ERROR("1b", "2b", "%k[err]")          \
			 : [err] "+&r"(err)                                                      \
			 : [p] "r"(p), "a"((u32)rfbm), "d"((u32)(rfbm >> 32))                    \
			 : "memory")
	if (load)
		ON_AREA("xrstor64");
	else if (compact)
		ON_AREA("xsavec64");
	else
		ON_AREA("xsave64");
	if (unlikely(err))
		return false;
	insn_done(s, in->len);
	return true;
}

/* ---- MSRs, TSC, CPUID ------------------------------------------------------------------------------------------- */

static bool fast_rdmsr(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 v = 0;

	if (unlikely(s->cpl || msr_busy(c)))
		return false;
	lite_fpu_spare(c);
	if (unlikely(vcpu_get_msr(&c->vcpu, s->gpr[REG_CX], &v, false) != X86_CONTINUE))
		return false;
	put_edx_eax(s, v);
	insn_done(s, in->len);
	return true;
}

/* Written all the time, and nothing in translations or blocks stands on them. */
static bool plain_msr(u32 index)
{
	switch (index) {
	case MSR_FS_BASE:
	case MSR_GS_BASE:
	case MSR_KERNEL_GS_BASE:
	case MSR_IA32_TSC_DEADLINE:
	case MSR_IA32_SPEC_CTRL:
	case MSR_IA32_PRED_CMD:
	case MSR_IA32_SYSENTER_CS:
	case MSR_IA32_SYSENTER_ESP:
	case MSR_TSC_AUX:
	case MSR_MISC_FEATURES_ENABLES:
		return true;
	default:
		return index >= MSR_IA32_X2APIC_FIRST && index <= MSR_IA32_X2APIC_LAST;
	}
}

static bool fast_wrmsr(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	u32 index = s->gpr[REG_CX];
	u64 v = (u32)s->gpr[REG_AX] | s->gpr[REG_DX] << 32;

	if (unlikely(s->cpl || msr_busy(c) || !plain_msr(index)))
		return false;
	lite_fpu_spare(c);
	if (unlikely(vcpu_set_msr(&c->vcpu, index, v, false) != X86_CONTINUE))
		return false;
	insn_done(s, in->len);
	return true;
}

/* RDTSC, RDTSCP */
static bool fast_rdtsc(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	if (unlikely(s->cpl && (s->cr4 & CR4_TSD)))
		return false;
	if (in->mnemonic == MN_RDTSCP) {
		if (unlikely(!vcpu_has_feature(&c->vcpu, X86_FEATURE_RDTSCP)))
			return false;
		s->gpr[REG_CX] = (u32)s->tsc_aux;
	}
	lite_fpu_spare(c);
	put_edx_eax(s, vcpu_read_tsc(&c->vcpu));
	insn_done(s, in->len);
	return true;
}

static bool fast_rdpid(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	if (unlikely(!vcpu_has_feature(&c->vcpu, X86_FEATURE_RDPID)))
		return false;
	put_reg(s, &in->op[0], (u32)s->tsc_aux);
	insn_done(s, in->len);
	return true;
}

static bool fast_cpuid(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;
	u32 regs[4] = { s->gpr[REG_AX], 0, s->gpr[REG_CX], 0 };

	lite_fpu_spare(c);
	vcpu_cpuid(&c->vcpu, regs);
	s->gpr[REG_AX] = regs[0];
	s->gpr[REG_BX] = regs[1];
	s->gpr[REG_CX] = regs[2];
	s->gpr[REG_DX] = regs[3];
	insn_done(s, in->len);
	return true;
}

/* ---- small ones --------------------------------------------------------------------------------------------------- */

/* CLD, STD */
static bool fast_df(struct lite_vcpu *c, const struct insn *in)
{
	struct x86_state *s = &c->vcpu.x86;

	insn_done(s, in->len);
	s->rflags = in->mnemonic == MN_STD ? s->rflags | RFLAGS_DF : s->rflags & ~RFLAGS_DF;
	return true;
}

/*
 * LFENCE and SFENCE order nothing that is not in order already. MFENCE keeps its loads behind its stores, as seen by other vCPUs, and
 * they are the host's own loads and stores.
 */
static bool fast_fence(struct lite_vcpu *c, const struct insn *in)
{
	if (in->mnemonic == MN_MFENCE)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	insn_done(&c->vcpu.x86, in->len);
	return true;
}

static bool fast_pause(struct lite_vcpu *c, const struct insn *in)
{
	lite_fpu_spare(c);
	c->vcpu.emul.ops->pause(&c->vcpu.emul);
	insn_done(&c->vcpu.x86, in->len);
	return true;
}

/* ---- lookup --------------------------------------------------------------------------------------------------------- */

static lite_fast_fn *lookup_sreg(const struct insn *in)
{
	if (in->op[0].kind == OPK_GPR)
		return fast_store_sreg;
	if (in->op[0].kind != OPK_SREG)
		return NULL;
	switch (in->op[0].reg) {
	case SEG_ES:
	case SEG_DS:
	case SEG_FS:
	case SEG_GS: return fast_load_sreg;
	default: return NULL; /* MOV to SS has a shadow */
	}
}

static lite_fast_fn *lookup_cr(const struct insn *in, unsigned *after)
{
	if (in->op[0].kind != OPK_CREG)
		return in->op[1].reg < 5 && in->op[1].reg != 1 ? fast_read_cr : NULL;
	switch (in->op[0].reg) {
	case 2: return fast_write_cr2;
	case 3:
		*after = LITE_AFTER_ALL;
		return fast_write_cr3;
	default: return NULL;
	}
}

static bool is_string(const struct insn *in)
{
	switch (in->mnemonic) {
	case MN_MOVS:
	case MN_STOS:
	case MN_LODS:
	case MN_CMPS:
	case MN_SCAS: return true;
	default: return false;
	}
}

lite_fast_fn *lite_fast_lookup(const struct insn *in, unsigned *after)
{
	*after = 0;
	if (in->lock)
		return NULL;
	if (is_string(in)) {
		*after = LITE_AFTER_PART;
		return in->mode != MODE_16 && in->addrsize >= 4 ? lite_fast_string : NULL;
	}
	if (in->mode != MODE_64)
		return NULL;
	switch (in->mnemonic) {
	case MN_SYSCALL:
		*after = LITE_AFTER_CPL;
		return fast_syscall;
	case MN_SYSRET:
		*after = LITE_AFTER_CPL | LITE_AFTER_EVENTS;
		return fast_sysret;
	case MN_IRET:
		*after = LITE_AFTER_CPL | LITE_AFTER_EVENTS;
		return in->opsize == 8 ? fast_iret : NULL;
	case MN_SWAPGS: return fast_swapgs;
	case MN_CLI: return fast_cli;
	case MN_STI:
		*after = LITE_AFTER_EVENTS;
		return fast_sti;
	case MN_PUSHF: return in->opsize == 8 ? fast_pushf : NULL;
	case MN_POPF:
		*after = LITE_AFTER_EVENTS;
		return in->opsize == 8 ? fast_popf : NULL;
	case MN_MOV_SREG: return lookup_sreg(in);
	case MN_STR:
	case MN_SLDT: return in->op[0].kind == OPK_GPR ? fast_store_system : NULL;
	case MN_LLDT: return fast_lldt;
	case MN_VERW: return fast_verw;
	case MN_RDFSBASE:
	case MN_RDGSBASE: return fast_rdbase;
	case MN_WRFSBASE:
	case MN_WRGSBASE: return fast_wrbase;
	case MN_MOV_CR: return lookup_cr(in, after);
	case MN_CLTS:
		*after = LITE_AFTER_ALL;
		return fast_clts;
	case MN_INVLPG:
		*after = LITE_AFTER_CPL; /* the page of the next instruction may be the one */
		return fast_invlpg;
	case MN_INVPCID:
		*after = LITE_AFTER_CPL;
		return fast_invpcid;
	case MN_XGETBV: return fast_xgetbv;
	case MN_XSAVE:
	case MN_XSAVEC:
	case MN_XRSTOR: return fast_xsave;
	case MN_RDMSR: return fast_rdmsr;
	case MN_WRMSR:
		*after = LITE_AFTER_EVENTS;
		return fast_wrmsr;
	case MN_RDTSC:
	case MN_RDTSCP: return fast_rdtsc;
	case MN_RDPID: return fast_rdpid;
	case MN_CPUID: return fast_cpuid;
	case MN_CLD:
	case MN_STD: return fast_df;
	case MN_LFENCE:
	case MN_MFENCE:
	case MN_SFENCE: return fast_fence;
	case MN_PAUSE: return fast_pause;
	default: return NULL;
	}
}
