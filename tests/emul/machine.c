/* See machine.h. */
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/emul/machine.h"

static struct machine *of(struct emul *e)
{
	return container_of(e, struct machine, e);
}

/* The first byte of [@la, +@len) that may not be accessed faults. */
static enum x86_result check(struct emul *e, u64 la, unsigned len, bool write, bool system)
{
	struct machine *m = of(e);
	u64 size = (u64)m->pages << 12, at, done;

	if (m->retry_in && !--m->retry_in)
		return X86_RETRY;
	u32 error = (write ? PFERR_W : 0) | (!system && e->s->cpl == 3 ? PFERR_U : 0);

	for (done = 0; done < len; done += 0x1000 - (at & 0xfff)) {
		at = la + done;
		if (at - m->base >= size) {
			m->touched_outside = true;
			return emul_page_fault(e, at, error);
		}
		switch (m->rights[(at - m->base) >> 12]) {
		case PAGE_NONE: return emul_page_fault(e, at, error);
		case PAGE_READ:
			if (write)
				return emul_page_fault(e, at, error | PFERR_P);
		}
	}
	return X86_CONTINUE;
}

static enum x86_result m_fetch(struct emul *e, u64 la, void *buf, unsigned len)
{
	enum x86_result r = check(e, la, len, false, false);

	if (r == X86_CONTINUE)
		memcpy(buf, of(e)->mem + (la - of(e)->base), len);
	else if (r == X86_FAULT)
		e->fault.error |= PFERR_I;
	return r;
}

static enum x86_result m_read(struct emul *e, u64 la, void *buf, unsigned len, unsigned acc)
{
	enum x86_result r = check(e, la, len, acc & EMUL_ACC_RMW, acc & EMUL_ACC_SYSTEM);

	if (r == X86_CONTINUE)
		memcpy(buf, of(e)->mem + (la - of(e)->base), len);
	return r;
}

static enum x86_result m_write(struct emul *e, u64 la, const void *buf, unsigned len, unsigned acc)
{
	enum x86_result r = check(e, la, len, true, acc & EMUL_ACC_SYSTEM);

	if (r == X86_CONTINUE)
		memcpy(of(e)->mem + (la - of(e)->base), buf, len);
	return r;
}

static enum x86_result m_cmpxchg(struct emul *e, u64 la, void *old, const void *new, unsigned len,
				 unsigned acc, bool *done)
{
	enum x86_result r = check(e, la, len, true, acc & EMUL_ACC_SYSTEM);
	u8 *p = of(e)->mem + (la - of(e)->base);

	if (r != X86_CONTINUE)
		return r;
	* done = !memcmp(p, old, len);
	if (*done)
		memcpy(p, new, len);
	else
		memcpy(old, p, len);
	return r;
}

static enum x86_result m_probe(struct emul *e, u64 la, unsigned len, bool write, unsigned acc)
{
	return check(e, la, len, write, acc & EMUL_ACC_SYSTEM);
}

static enum x86_result m_in(struct emul *e, u16 port, unsigned size, u32 *value)
{
	of(e)->last_port = port;
	* value = 0x12345678;
	return X86_CONTINUE;
}

static enum x86_result m_out(struct emul *e, u16 port, unsigned size, u32 value)
{
	of(e)->last_port = port;
	of(e)->last_out = value;
	return X86_CONTINUE;
}

static enum x86_result m_set_cr(struct emul *e, unsigned cr, u64 value)
{
	switch (cr) {
	case 0: e->s->cr0 = value; break;
	case 3: e->s->cr3 = value; break;
	case 4: e->s->cr4 = value; break;
	case 8:
		if (value > 15)
			return emul_fault_code(e, VEC_GP, 0);
		e->s->cr8 = value;
		break;
	}
	return X86_CONTINUE;
}

static enum x86_result m_get_cr(struct emul *e, unsigned cr, u64 *value)
{
	* value = cr == 0 ? e->s->cr0 : cr == 3 ? e->s->cr3 : cr == 4 ? e->s->cr4 : e->s->cr8;
	return X86_CONTINUE;
}

static enum x86_result m_set_dr(struct emul *e, unsigned dr, u64 value)
{
	if (dr < 4)
		e->s->dr[dr] = value;
	else if (dr == 6)
		e->s->dr6 = value;
	else
		e->s->dr7 = value;
	return X86_CONTINUE;
}

/* Four MSRs exist: indices 0x1000 to 0x1003. */
static enum x86_result m_get_msr(struct emul *e, u32 index, u64 *value)
{
	if (index >> 2 != 0x400)
		return emul_fault_code(e, VEC_GP, 0);
	* value = of(e)->msr[index & 3];
	return X86_CONTINUE;
}

static enum x86_result m_set_msr(struct emul *e, u32 index, u64 value)
{
	if (index >> 2 != 0x400)
		return emul_fault_code(e, VEC_GP, 0);
	of(e)->msr[index & 3] = value;
	return X86_CONTINUE;
}

static enum x86_result m_set_xcr(struct emul *e, u32 index, u64 value)
{
	if (index || !(value & XCR0_FP))
		return emul_fault_code(e, VEC_GP, 0);
	e->s->xcr0 = value;
	return X86_CONTINUE;
}

static enum x86_result m_rdpmc(struct emul *e, u32 index, u64 *value)
{
	* value = index;
	return X86_CONTINUE;
}

static void m_cpuid(struct emul *e, u32 regs[4])
{
	u32 index = regs[2];

	memset(regs, 0, 16);
	regs[0] = index + 1;
	memcpy(&regs[1], of(e)->vendor, 4);
	memcpy(&regs[3], of(e)->vendor + 4, 4);
	memcpy(&regs[2], of(e)->vendor + 8, 4);
}

static bool m_has_feature(struct emul *e, u32 feature)
{
	return of(e)->features[feature];
}

static u64 m_rdtsc(struct emul *e)
{
	return 0x123456789abcdef0ULL;
}

static void m_invlpg(struct emul *e, u64 la)
{
	of(e)->invlpg++;
}

static enum x86_result m_invpcid(struct emul *e, u64 type, u64 pcid, u64 la)
{
	of(e)->invlpg++;
	return X86_CONTINUE;
}

static enum x86_result m_hlt(struct emul *e)
{
	of(e)->hlt++;
	return X86_EXIT;
}

static enum x86_result m_pause(struct emul *e)
{
	return X86_CONTINUE;
}

static enum x86_result m_hypercall(struct emul *e)
{
	of(e)->hypercalls++;
	return X86_CONTINUE;
}

static enum x86_result m_native(struct emul *e, const struct insn *insn)
{
	of(e)->native++;
	return X86_CONTINUE;
}

static enum x86_result m_rsm(struct emul *e)
{
	u64 smbase = 0x30000;
	bool hlt;

	return emul_smm_leave(e, &smbase, of(e)->features[X86_FEATURE_LM], &hlt);
}

static void m_mode_changed(struct emul *e)
{
	of(e)->mode_changes++;
}

static const struct emul_ops ops = {
	.fetch = m_fetch,
	.read = m_read,
	.write = m_write,
	.cmpxchg = m_cmpxchg,
	.probe = m_probe,
	.in = m_in,
	.out = m_out,
	.set_cr = m_set_cr,
	.get_cr = m_get_cr,
	.set_dr = m_set_dr,
	.get_msr = m_get_msr,
	.set_msr = m_set_msr,
	.set_xcr = m_set_xcr,
	.rdpmc = m_rdpmc,
	.cpuid = m_cpuid,
	.has_feature = m_has_feature,
	.rdtsc = m_rdtsc,
	.invlpg = m_invlpg,
	.invpcid = m_invpcid,
	.hlt = m_hlt,
	.pause = m_pause,
	.hypercall = m_hypercall,
	.wbinvd = m_pause,
	.native = m_native,
	.rsm = m_rsm,
	.mode_changed = m_mode_changed,
};

void machine_init(struct machine *m, u64 base, unsigned pages)
{
	memset(m, 0, sizeof(*m));
	m->e.s = &m->s;
	m->e.ops = &ops;
	m->base = base;
	m->pages = pages;
	m->mem = calloc(pages, 4096);
	m->rights = malloc(pages);
	memset(m->rights, PAGE_WRITE, pages);
	memset(m->features, true, sizeof(m->features));
	m->vendor = "GenuineIntel";
	machine_real_mode(m);
}

void machine_free(struct machine *m)
{
	free(m->mem);
	free(m->rights);
}

void *machine_at(struct machine *m, u64 la, unsigned len)
{
	if (la - m->base + len > (u64)m->pages << 12) {
		fprintf(stderr, "machine_at: %llx is outside the test's memory\n",
			(unsigned long long)la);
		exit(1);
	}
	return m->mem + (la - m->base);
}

static void flat(struct machine *m, unsigned cpl, u32 code_bits)
{
	struct x86_state *s = &m->s;
	u32 dpl = cpl << AR_DPL_SHIFT;
	unsigned i;

	for (i = 0; i <= SEG_GS; i++)
		s->seg[i] = (struct x86_segment){ .limit = ~0U,
						  .sel = cpl ? 0x2b : 0x18,
						  .ar = 3 | AR_S | AR_P | AR_G | AR_DB | dpl };
	s->seg[SEG_CS].ar = 11 | AR_S | AR_P | AR_G | code_bits | dpl;
	s->seg[SEG_CS].sel = cpl ? (code_bits & AR_L ? 0x33 : 0x23) : 0x10;
	s->rflags = RFLAGS_ONE | RFLAGS_IF;
	s->cr0 = CR0_PE | CR0_PG | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	s->xcr0 = XCR0_FP | XCR0_SSE | XCR0_AVX;
	x86_update_mode(s);
}

void machine_long_mode(struct machine *m, unsigned cpl)
{
	m->s.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
	flat(m, cpl, AR_L);
}

void machine_prot32(struct machine *m, unsigned cpl)
{
	m->s.efer = 0;
	flat(m, cpl, AR_DB);
}

void machine_real_mode(struct machine *m)
{
	struct x86_state *s = &m->s;
	unsigned i;

	for (i = 0; i <= SEG_GS; i++)
		s->seg[i] = (struct x86_segment){ .limit = 0xffff, .ar = 3 | AR_S | AR_P };
	s->seg[SEG_LDTR] = (struct x86_segment){ .limit = 0xffff, .ar = 2 | AR_P };
	s->seg[SEG_TR] = (struct x86_segment){ .limit = 0xffff, .ar = 11 | AR_P };
	s->idt.limit = s->gdt.limit = 0xffff;
	s->cr0 = CR0_ET;
	s->cr4 = 0;
	s->efer = 0;
	s->rflags = RFLAGS_ONE;
	s->dr6 = DR6_FIXED_1;
	s->dr7 = DR7_FIXED_1;
	x86_update_mode(s);
}

void machine_host_features(struct machine *m)
{
	static const struct {
		u32 leaf, sub, reg;
	} from[CPUID_WORDS] = {
		[CPUID_1_EDX] = { 1, 0, 3 },
		[CPUID_1_ECX] = { 1, 0, 2 },
		[CPUID_7_EBX] = { 7, 0, 1 },
		[CPUID_7_ECX] = { 7, 0, 2 },
		[CPUID_7_EDX] = { 7, 0, 3 },
		[CPUID_80000001_EDX] = { 0x80000001, 0, 3 },
		[CPUID_80000001_ECX] = { 0x80000001, 0, 2 },
		[CPUID_D_1_EAX] = { 13, 1, 0 },
		[CPUID_80000008_EBX] = { 0x80000008, 0, 1 },
	};
	unsigned word, bit;
	u32 r[4];

	for (word = 0; word < CPUID_WORDS; word++) {
		memset(r, 0, sizeof(r));
		if (from[word].leaf)
			__get_cpuid_count(from[word].leaf, from[word].sub, &r[0], &r[1], &r[2],
					  &r[3]);
		for (bit = 0; bit < 32; bit++)
			m->features[word * 32 + bit] = r[from[word].reg] >> bit & 1;
	}
}
