/*
 * Fuzz target: the emulator. The input is a processor's state and then its memory, 4 KiB that repeat all over the
 * address space; a few instructions are executed, faults delivered. Whatever a guest sets up, the emulator stays
 * within what its operations give it, makes progress, and keeps the state's invariants.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/x86/emul/emul.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY 4096
#define STEPS  64

struct fuzzed {
	struct emul e;
	struct x86_state state;
	const u8 *choices;	/* what operations answer */
	size_t left;
	u8 memory[MEMORY];
};

static struct fuzzed *of(struct emul *e)
{
	return container_of(e, struct fuzzed, e);
}

static u8 choice(struct emul *e)
{
	struct fuzzed *f = of(e);

	if (!f->left)
		return 0xff;
	f->left--;
	return *f->choices++;
}

/* One access in sixteen page-faults, one in thirty-two wants the client. */
static enum x86_result outcome(struct emul *e, u64 la)
{
	switch (choice(e) & 31) {
	case 0:
	case 16:
		return emul_page_fault(e, la, 0);
	case 1:
		return X86_RETRY;
	}
	return X86_CONTINUE;
}

static void check(bool good)
{
	if (!good)
		abort();
}

static enum x86_result fuzz_read(struct emul *e, u64 la, void *buf, unsigned len, unsigned acc)
{
	enum x86_result r = outcome(e, la);

	check(len <= 64 * 1024);
	for (unsigned i = 0; r == X86_CONTINUE && i < len; i++)
		((u8 *)buf)[i] = of(e)->memory[(la + i) % MEMORY];
	return r;
}

static enum x86_result fuzz_fetch(struct emul *e, u64 la, void *buf, unsigned len)
{
	check(len <= 64);
	for (unsigned i = 0; i < len; i++)
		((u8 *)buf)[i] = of(e)->memory[(la + i) % MEMORY];
	return X86_CONTINUE;
}

static enum x86_result fuzz_write(struct emul *e, u64 la, const void *buf, unsigned len, unsigned acc)
{
	enum x86_result r = outcome(e, la);

	for (unsigned i = 0; r == X86_CONTINUE && i < len; i++)
		of(e)->memory[(la + i) % MEMORY] = ((const u8 *)buf)[i];
	return r;
}

static enum x86_result fuzz_cmpxchg(struct emul *e, u64 la, void *old, const void *new, unsigned len, unsigned acc,
				    bool *done)
{
	enum x86_result r = outcome(e, la);
	u8 was[16];

	check(len == 1 || len == 2 || len == 4 || len == 8 || len == 16);
	if (r != X86_CONTINUE)
		return r;
	for (unsigned i = 0; i < len; i++)
		was[i] = of(e)->memory[(la + i) % MEMORY];
	*done = !memcmp(was, old, len);
	memcpy(old, was, len);
	for (unsigned i = 0; *done && i < len; i++)
		of(e)->memory[(la + i) % MEMORY] = ((const u8 *)new)[i];
	return X86_CONTINUE;
}

static enum x86_result fuzz_probe(struct emul *e, u64 la, unsigned len, bool write, unsigned acc)
{
	return outcome(e, la);
}

static enum x86_result fuzz_in(struct emul *e, u16 port, unsigned size, u32 *value)
{
	check(size == 1 || size == 2 || size == 4);
	*value = choice(e) * 0x01010101U;
	return choice(e) & 3 ? X86_CONTINUE : X86_RETRY;
}

static enum x86_result fuzz_out(struct emul *e, u16 port, unsigned size, u32 value)
{
	check(size == 1 || size == 2 || size == 4);
	return choice(e) & 3 ? X86_CONTINUE : X86_RETRY;
}

static enum x86_result fuzz_set_cr(struct emul *e, unsigned cr, u64 value)
{
	check(cr < 16);
	switch (cr) {
	case 0:
		e->s->cr0 = value;
		break;
	case 3:
		e->s->cr3 = value;
		break;
	case 4:
		e->s->cr4 = value;
		break;
	default:
		return emul_fault_code(e, VEC_GP, 0);
	}
	x86_update_mode(e->s);
	return X86_CONTINUE;
}

static enum x86_result fuzz_get_cr(struct emul *e, unsigned cr, u64 *value)
{
	*value = cr == 0 ? e->s->cr0 : cr == 3 ? e->s->cr3 : e->s->cr4;
	return X86_CONTINUE;
}

static enum x86_result fuzz_set_dr(struct emul *e, unsigned dr, u64 value)
{
	check(dr < 16);
	return choice(e) & 1 ? X86_CONTINUE : emul_fault_code(e, VEC_GP, 0);
}

static enum x86_result fuzz_msr(struct emul *e, u32 index, u64 *value)
{
	*value = choice(e) * 0x0101010101010101ULL;
	return choice(e) & 3 ? X86_CONTINUE : emul_fault_code(e, VEC_GP, 0);
}

static enum x86_result fuzz_set_index(struct emul *e, u32 index, u64 value)
{
	return choice(e) & 3 ? X86_CONTINUE : emul_fault_code(e, VEC_GP, 0);
}

static void fuzz_cpuid(struct emul *e, u32 regs[4])
{
	memset(regs, choice(e), 16);
}

static bool fuzz_has_feature(struct emul *e, u32 feature)
{
	return choice(e) & 7;
}

static u64 fuzz_rdtsc(struct emul *e)
{
	return 0x123456789abcdef;
}

static void fuzz_invlpg(struct emul *e, u64 la)
{
}

static enum x86_result fuzz_invpcid(struct emul *e, u64 type, u64 pcid, u64 la)
{
	return X86_CONTINUE;
}

static enum x86_result fuzz_leave(struct emul *e)
{
	return choice(e) & 1 ? X86_EXIT : X86_CONTINUE;
}

static enum x86_result fuzz_native(struct emul *e, const struct insn *insn)
{
	return X86_UNHANDLED;
}

static enum x86_result fuzz_rsm(struct emul *e)
{
	bool hlt;
	u64 base = 0x30000;

	return emul_smm_leave(e, &base, choice(e) & 1, &hlt);
}

static const struct emul_ops ops = {
	.fetch = fuzz_fetch, .read = fuzz_read, .write = fuzz_write, .cmpxchg = fuzz_cmpxchg, .probe = fuzz_probe,
	.in = fuzz_in, .out = fuzz_out, .set_cr = fuzz_set_cr, .get_cr = fuzz_get_cr, .set_dr = fuzz_set_dr,
	.get_msr = fuzz_msr, .set_msr = fuzz_set_index, .set_xcr = fuzz_set_index, .rdpmc = fuzz_msr,
	.cpuid = fuzz_cpuid, .has_feature = fuzz_has_feature, .rdtsc = fuzz_rdtsc, .invlpg = fuzz_invlpg,
	.invpcid = fuzz_invpcid, .hlt = fuzz_leave, .pause = fuzz_leave, .hypercall = fuzz_leave, .wbinvd = fuzz_leave,
	.native = fuzz_native, .rsm = fuzz_rsm,
};

/* A state that a processor can be in, whatever the bytes: the modes are consistent, flags have their fixed bits. */
static void make_state(struct x86_state *s, const u8 *data, unsigned mode)
{
	memcpy(s, data, sizeof(*s));
	s->rflags = (s->rflags & ~(RFLAGS_VM | 0xffffffffffc08028ULL)) | 2;
	s->cr0 &= ~(u64)(CR0_PE | CR0_PG);
	s->efer &= ~(u64)(EFER_LME | EFER_LMA);
	s->nmi_masked = data[0] & 1;
	s->smm = data[0] & 2;
	s->shadow = 0;
	for (int i = 0; i < SEG_COUNT; i++)
		s->seg[i].ar &= 0x1ffff;
	switch (mode % 5) {
	case 1:
		s->rflags |= RFLAGS_VM;
		s->cr0 |= CR0_PE;
		break;
	case 2:
		s->cr0 |= CR0_PE;
		break;
	case 3:
	case 4:
		s->cr0 |= CR0_PE | CR0_PG;
		s->efer |= EFER_LME | EFER_LMA;
		s->cr4 |= CR4_PAE;
		if (mode % 5 == 4)
			s->seg[SEG_CS].ar = (s->seg[SEG_CS].ar & ~(u32)AR_DB) | AR_L;
		s->rip = x86_is_canonical(s->rip, s->cr4) ? s->rip : s->rip & 0x7fffffffffff;
		break;
	}
	if (mode % 5 != 4)
		s->rip &= 0xffff;
	x86_update_mode(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzzed f;

	if (size < 1 + sizeof(f.state) + 16)
		return 0;
	memset(&f, 0, sizeof(f));
	make_state(&f.state, data + 1, data[0]);
	data += 1 + sizeof(f.state);
	size -= 1 + sizeof(f.state);
	for (unsigned i = 0; i < MEMORY; i++)
		f.memory[i] = data[i % size];
	f.choices = data;
	f.left = size;
	f.e.s = &f.state;
	f.e.ops = &ops;

	for (int i = 0; i < STEPS; i++) {
		enum x86_result r = emul_step(&f.e);

		if (r == X86_FAULT) {
			struct x86_event fault = f.e.fault;

			check(fault.vector < 32);
			r = emul_deliver_event(&f.e, &fault);
			check(r == X86_CONTINUE || r == X86_RETRY || r == X86_SHUTDOWN);
		}
		check(r <= X86_UNHANDLED);
		check(f.state.rflags & 2);
		check(f.state.cpl <= 3 && f.state.mode <= X86_MODE_LONG);
		if (r == X86_SHUTDOWN || r == X86_UNHANDLED)
			break;
	}
	return 0;
}
