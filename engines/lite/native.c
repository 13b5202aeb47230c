/*
 * SIMD and x87 by running the instruction itself. Each is re-encoded once into a stub of its own:
 *
 *	[mov rax, [rdi]; mov rcx, [rdi+8]; mov rdx, [rdi+16]]	general registers, where it names some
 *	the instruction, its memory operand [rsi], its general registers RCX (ModRM.reg) and RDX (ModRM.rm)
 *	[mov [rdi], rax ...; lahf; seto al; mov [rdi+24], ax]	and back, with the flags, where it sets them
 *	ret
 *
 * Vector, mask and x87 registers are the guest's own, loaded lazily: lite_fpu_load() at the first such instruction, lite_fpu_save() by what
 * works on their image, and when KVM_RUN ends. Everything between leaves them alone: core, lite and hosts/user are compiled -mgeneral-regs-only,
 * and what they call of the C library is chosen (hosts/user/general.h). Where that does not hold, in the sanitizers' builds,
 * lite_fpu_spare() is lite_fpu_save().
 *
 * Faults: memory is translated and its alignment checked before the stub runs. Unmasked floating-point exceptions and
 * instructions that the host lacks arrive as SIGFPE and SIGILL with RIP in a stub; the handler returns from the stub with R8 set, and
 * the guest gets #XM, #MF or #UD with MXCSR or FSW as the processor left them.
 *
 * The stubs are written through one mapping of a memfd and executed through another, which is never writable. They are
 * found again by their bytes and are never freed before the VM; when the room is used up, instructions run from one slot a vCPU.
 */
#include "engines/lite/native.h"

#include "core/x86/fpu.h"
#include "engines/lite/recode.h"

#define STUB_ROOM  (4UL << 20)
#define STUB_SLOT  64
#define SLOTS_ROOM (VM_MAX_VCPUS * 1UL * STUB_SLOT)
#define STUB_HASH  8192U

struct lite_stubs {
	struct lite_stub_room room;
	size_t used;
	u32 hash[STUB_HASH]; /* offset of a stub, 0: none; found by linear probing */
};

int lite_stubs_init(struct lite_vm *lvm)
{
	struct lite_stubs *stubs = host_zalloc_pages(sizeof(*stubs));
	int err;

	if (!stubs)
		return -ENOMEM;
	err = lite_stub_room_make(&stubs->room, STUB_ROOM, NULL);
	if (err) {
		host_free_pages(stubs, sizeof(*stubs));
		return err;
	}
	stubs->used = ROUND_UP(SLOTS_ROOM, 4096UL);
	lvm->stubs = stubs;
	lite_fault_add_stubs(stubs, stubs->room.rx, STUB_ROOM);
	return 0;
}

void lite_stubs_destroy(struct lite_vm *lvm)
{
	if (!lvm->stubs)
		return;
	lite_fault_remove_stubs(lvm->stubs);
	lite_stub_room_free(&lvm->stubs->room);
	host_free_pages(lvm->stubs, sizeof(*lvm->stubs));
	lvm->stubs = NULL;
}

/* ---- the register file --------------------------------------------------------------------------------------------- */

static u64 host_xcr0(void)
{
	u32 a, b, cx = 1, d;

	__asm__("cpuid" : "=a"(a), "=b"(b), "+c"(cx), "=d"(d) : "0"(1));
	if (!(cx & (1U << 27)))
		return 3;
	__asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return (u64)d << 32 | a;
}

int lite_fpu_init(struct lite_vcpu *c)
{
	struct xsave_legacy *x;

	c->fpu_init = host_zalloc_pages(HOST_PAGE_SIZE * 4);
	if (!c->fpu_init)
		return -ENOMEM;
	x = (struct xsave_legacy *)c->fpu_init;
	x->mxcsr = MXCSR_INIT;
	x->fcw = FCW_INIT;
	c->xfeatures = host_xcr0() & LITE_XSTATE_LOADED;
	return 0;
}

void lite_fpu_destroy(struct lite_vcpu *c)
{
	if (c->fpu_init)
		host_free_pages(c->fpu_init, HOST_PAGE_SIZE * 4);
}

void lite_fpu_refresh(struct lite_vcpu *c)
{
	const struct x86_state *s = &c->vcpu.x86;
	u32 usable = 0;

	if (!(s->cr0 & CR0_TS)) {
		if (!(s->cr0 & CR0_EM)) {
			usable |= LITE_FPU_CLASS(INSN_STATE_X87) | LITE_FPU_CLASS(INSN_STATE_MMX);
			if (s->cr4 & CR4_OSFXSR)
				usable |= LITE_FPU_CLASS(INSN_STATE_SSE);
		}
		if ((s->cr4 & CR4_OSXSAVE) && (s->xcr0 & 6) == 6) {
			usable |= LITE_FPU_CLASS(INSN_STATE_AVX);
			if ((s->xcr0 & XCR0_AVX512) == XCR0_AVX512)
				usable |= LITE_FPU_CLASS(INSN_STATE_AVX512);
		}
	}
	c->fpu_usable = usable;
	c->fpu_live = c->fpu_loaded ? usable : 0;
}

void lite_fpu_load(struct lite_vcpu *c)
{
	struct xsave_header *h = fpu_header(&c->vcpu);

	if (c->fpu_loaded)
		return;
	/* Components that are not the host's cannot be in use; a bad header would fault. */
	h->xstate_bv &= c->xfeatures;
	h->xcomp_bv = 0;
	__asm__ volatile("xrstor64 %0"
			 :
			 : "m"(*c->vcpu.xsave), "a"((u32)c->xfeatures), "d"((u32)(c->xfeatures >> 32))
			 : "memory");
	c->fpu_loaded = true;
	c->fpu_live = c->fpu_usable;
}

void lite_fpu_save_slow(struct lite_vcpu *c)
{
	const struct lite_stub_room *room = &to_lite_vm(c->vcpu.vm)->stubs->room;
	struct xsave_legacy *x = fpu_legacy(&c->vcpu);

	__asm__ volatile("xsave64 %0\n\txrstor64 %1"
			 : "+m"(*c->vcpu.xsave)
			 : "m"(*c->fpu_init), "a"((u32)c->xfeatures), "d"((u32)(c->xfeatures >> 32))
			 : "memory");
	c->fpu_loaded = false;
	c->fpu_live = 0;
	/* Readers of the image take a component whose bit is clear for initial, MXCSR with it; XRSTOR does not (SDM 1 13.8.1). */
	if (x->mxcsr != MXCSR_INIT)
		fpu_header(&c->vcpu)->xstate_bv |= XCR0_SSE;
	/* Where our stub and its operand lie is nothing for the guest: its own instruction and operand instead. */
	if (x->fip >= (u64)room->rx && x->fip < (u64)room->rx + STUB_ROOM) {
		x->fip = c->x87_rip;
		x->fdp = c->x87_dp;
		x->fop = c->x87_op;
	}
	if (lite_jit_contains(to_lite_vm(c->vcpu.vm), x->fip))
		x->fip = x->fdp = x->fop = 0;
}

void lite_fpu_normalize(struct lite_vcpu *c)
{
	lite_fpu_load(c);
	lite_fpu_save(c);
}

/* ---- stubs --------------------------------------------------------------------------------------------------------- */

/* How an instruction uses general registers. */
struct gpr_use {
	bool any, flags_out, flags_in;
	u8 reg, rm; /* the guest's in ModRM.reg, ModRM.rm; LITE_NO_REG: none there */
	bool out_ax, out_cx; /* implied results: FNSTSW AX; PCMPESTRI, PCMPISTRI */
};

static void find_gprs(const struct insn *insn, struct gpr_use *gprs)
{
	struct lite_fields f;
	struct lite_use use;

	lite_fields(insn, &f);
	lite_use(insn, &use);
	gprs->reg = f.reg;
	gprs->rm = f.rm;
	gprs->flags_in = use.fl_read;
	gprs->flags_out = use.fl_may;
	gprs->any = f.reg != LITE_NO_REG || f.rm != LITE_NO_REG || gprs->flags_in || gprs->flags_out;
	/* Beyond its fields there is what it implies. Of memory, the address is computed elsewhere. */
	gprs->out_ax = insn->mnemonic == MN_FNSTSW && !insn->has_mem;
	gprs->out_cx = f.reg == LITE_NO_REG && f.rm == LITE_NO_REG && (use.write & 1U << REG_CX);
	gprs->any |= gprs->out_ax;
}

static unsigned emit(u8 *p, unsigned n, const char *bytes, unsigned len)
{
	memcpy(p + n, bytes, len);
	return n + len;
}
#define EMIT(bytes) (n = emit(p, n, bytes, sizeof(bytes) - 1))

static unsigned build(const struct insn *insn, u8 *p)
{
	static const struct lite_recode where = { .reg = REG_CX, .rm = REG_DX, .base = REG_SI, .index = LITE_NO_REG };
	struct gpr_use use;
	unsigned n = 0, len;

	find_gprs(insn, &use);
	if (use.any) {
		EMIT("\x48\x8b\x07");	  /* mov rax, [rdi] */
		EMIT("\x48\x8b\x4f\x08"); /* mov rcx, [rdi+8] */
		EMIT("\x48\x8b\x57\x10"); /* mov rdx, [rdi+16] */
		if (use.flags_in)
			EMIT("\xff\x77\x18\x9d"); /* push [rdi+24]; popfq */
	}
	len = lite_recode(insn, &where, p + n);
	if (!len)
		return 0;
	n += len;
	if (use.any) {
		if (use.out_ax)
			EMIT("\x48\x89\x07");
		EMIT("\x48\x89\x4f\x08");
		EMIT("\x48\x89\x57\x10");
		if (use.flags_out)
			EMIT("\x9f\x0f\x90\xc0\x66\x89\x47\x18"); /* lahf; seto al; mov [rdi+24], ax */
	}
	p[n++] = 0xc3;
	return n;
}

/* A stub with these bytes, found or made. code_lock held. NULL: no room. */
static const u8 *stub_find(struct lite_stubs *stubs, const u8 *bytes, unsigned len)
{
	u32 h = 2166136261U;

	for (unsigned i = 0; i < len; i++)
		h = (h ^ bytes[i]) * 16777619U;
	for (unsigned probe = 0; probe < 64; probe++) {
		u32 *slot = &stubs->hash[(h + probe) % STUB_HASH];

		if (*slot) {
			/* The byte before a stub is its length. */
			if (stubs->room.rw[*slot - 1] == len && !memcmp(stubs->room.rw + *slot, bytes, len))
				return stubs->room.rx + *slot;
			continue;
		}
		if (stubs->used + len + 33 > STUB_ROOM)
			return NULL;
		stubs->used = ROUND_UP(stubs->used + 1, 16UL);
		stubs->room.rw[stubs->used - 1] = len;
		memcpy(stubs->room.rw + stubs->used, bytes, len);
		*slot = stubs->used;
		stubs->used += len;
		return stubs->room.rx + *slot;
	}
	return NULL;
}

/* ---- the slow path: one instruction, from the emulator ------------------------------------------------------------- */

static bool records_fip(const struct insn *insn)
{
	switch (insn->mnemonic) {
	case MN_FNCLEX: case MN_FLDCW: case MN_FNSTCW: case MN_FNSTSW: case MN_FNINIT: case MN_FNENI: case MN_FNDISI: case MN_FNSETPM:
	case MN_FWAIT:
		return false;
	default:
		return insn->state == INSN_STATE_X87;
	}
}

static enum x86_result raise(struct lite_vcpu *c, unsigned what, unsigned state)
{
	struct emul *e = &c->vcpu.emul;

	if (what == LITE_STUB_UD)
		return emul_fault(e, VEC_UD);
	if (state == INSN_STATE_X87 || state == INSN_STATE_MMX || state == INSN_STATE_WAIT)
		return emul_fault(e, VEC_MF);
	return emul_fault(e, c->vcpu.x86.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}

enum x86_result lite_native_run(struct lite_vcpu *c, const struct insn *insn, void *mem)
{
	struct lite_stubs *stubs = to_lite_vm(c->vcpu.vm)->stubs;
	struct x86_state *s = &c->vcpu.x86;
	size_t slot = c->vcpu.idx * (size_t)STUB_SLOT;
	u64 *regs = c->native_regs;
	struct gpr_use use;
	unsigned len, what;
	u8 bytes[64];

	len = build(insn, bytes);
	if (!len || len > STUB_SLOT)
		return emul_fault(&c->vcpu.emul, VEC_UD);
	find_gprs(insn, &use);
	memcpy(stubs->room.rw + slot, bytes, len);
	regs[0] = s->gpr[REG_AX];
	regs[1] = s->gpr[use.reg != LITE_NO_REG ? use.reg : REG_CX];
	regs[2] = s->gpr[use.rm != LITE_NO_REG ? use.rm : REG_DX];
	regs[3] = use.flags_in ? (s->rflags & RFLAGS_ARITH) | RFLAGS_ONE : 0;
	lite_fpu_load(c);
	if (records_fip(insn)) {
		c->x87_rip = s->rip;
		c->x87_op = (insn->opcode & 7) << 8 | insn->modrm;
	}
	what = lite_stub_call(stubs->room.rx + slot, regs, mem);
	lite_fpu_spare(c);
	if (what)
		return raise(c, what, insn->state);
	if (use.out_ax)
		*(u16 *)&s->gpr[REG_AX] = regs[0];
	if (use.out_cx)
		s->gpr[REG_CX] = (u32)regs[1];
	if (use.reg != LITE_NO_REG)
		s->gpr[use.reg] = regs[1];
	if (use.rm != LITE_NO_REG)
		s->gpr[use.rm] = regs[2];
	if (use.flags_out)
		s->rflags = (s->rflags & ~(u64)RFLAGS_ARITH) | lite_fl_to_rflags(regs[3]);
	return X86_CONTINUE;
}

static enum x86_result maskmov(struct lite_vcpu *c, const struct insn *insn)
{
	struct emul *e = &c->vcpu.emul;
	unsigned n = insn->op[0].kind == OPK_MMX ? 8 : 16;
	u64 di = c->vcpu.x86.gpr[REG_DI], la;
	struct xsave_legacy *x;
	enum x86_result r;
	u8 data[16], mask[16];

	if (insn->addrsize != 8)
		di &= insn->addrsize == 4 ? 0xffffffff : 0xffff;
	/* The form with MMX registers has to do what x87 state it touches: TOS, tags. EMMS-like effects by a register move. */
	lite_fpu_normalize(c);
	x = fpu_legacy(&c->vcpu);
	if (n == 8) {
		unsigned top = (x->fsw >> 11) & 7;

		if ((x->fsw & 0x80))
			return emul_fault(e, VEC_MF);
		memcpy(data, x->st[((insn->op[0].reg & 7) - top) & 7], 8);
		memcpy(mask, x->st[((insn->op[1].reg & 7) - top) & 7], 8);
	} else {
		memcpy(data, x->xmm[insn->op[0].reg & 15], 16);
		memcpy(mask, x->xmm[insn->op[1].reg & 15], 16);
	}
	r = emul_linear(e, insn->seg_override != INSN_SEG_NONE ? insn->seg_override : SEG_DS, di, n, true, &la);
	for (unsigned i = 0; r == X86_CONTINUE && i < n; i++)
		if (mask[i] & 0x80)
			r = e->ops->probe(e, la + i, 1, true, 0);
	for (unsigned i = 0; r == X86_CONTINUE && i < n; i++)
		if (mask[i] & 0x80)
			r = e->ops->write(e, la + i, data + i, 1, 0);
	if (r == X86_CONTINUE && n == 8) {
		/* Every MMX instruction clears TOS and marks all registers valid (SDM 1 9.5.1). */
		unsigned top = (x->fsw >> 11) & 7;
		u8 st[8][16];

		for (unsigned i = 0; i < 8; i++)
			memcpy(st[i], x->st[(i - top) & 7], 16);
		memcpy(x->st, st, sizeof(st));
		x->fsw &= ~0x3800;
		x->ftw = 0xff;
	}
	return r;
}

enum x86_result lite_native(struct emul *e, const struct insn *insn)
{
	struct lite_vcpu *c = emul_lite(e);
	unsigned size = insn->mem.size;
	enum x86_result r;
	u8 bounce[128] __attribute__((aligned(64)));
	bool write;
	u64 la = 0;

	c->count.native_slow++;
	r = emul_check_state(e, insn);
	if (r != X86_CONTINUE)
		return r;
	if (lite_is_xstate(insn))
		return lite_xstate(c, insn);
	if (lite_is_masked(insn))
		return lite_masked(c, insn);
	if (lite_is_vzero32(insn))
		return lite_vzero(c, insn);
	if (insn->map == INSN_MAP_0F && insn->opcode == 0xf7 && insn->state != INSN_STATE_NONE && !insn->has_mem)
		return maskmov(c, insn);
	if (!insn->has_mem || !size) {
		r = lite_native_run(c, insn, bounce);
		return r;
	}
	if (size > 64)
		return X86_UNHANDLED;
	write = insn->mem.access & OPA_WRITE;
	r = emul_linear(e, insn->mem.seg, emul_effective_address(e, insn), size, write, &la);
	if (r == X86_FAULT && lite_is_loose_store(insn))
		return lite_store_fault(c, insn, emul_effective_address(e, insn));
	if (r != X86_CONTINUE)
		return r;
	if (lite_native_align(insn) && (la & (lite_native_align(insn) - 1)))
		return emul_fault_code(e, VEC_GP, 0);
	memset(bounce, 0, sizeof(bounce));
	if (insn->state == INSN_STATE_X87 && write)
		lite_fpu_save(c); /* FCW at home */
	if (write)
		r = e->ops->probe(e, la, size, true, 0);
	if (r == X86_FAULT && lite_is_loose_store(insn))
		return lite_store_fault(c, insn, la);
	/* An x87 store whose exception is not masked leaves memory as it was. */
	if (r == X86_CONTINUE && ((insn->mem.access & OPA_READ) || (insn->state == INSN_STATE_X87 && (fpu_legacy(&c->vcpu)->fcw & 0x3f) != 0x3f)))
		r = e->ops->read(e, la, bounce, size, 0);
	if (r != X86_CONTINUE)
		return r;
	if ((insn->mnemonic == MN_LDMXCSR || insn->mnemonic == MN_VLDMXCSR) && (*(u32 *)bounce & ~fpu_mxcsr_mask()))
		return emul_fault_code(e, VEC_GP, 0);
	c->x87_dp = la;
	r = lite_native_run(c, insn, bounce);
	if (r == X86_CONTINUE && write)
		r = e->ops->write(e, la, bounce, size, 0);
	return r;
}

/* ---- fast handlers ------------------------------------------------------------------------------------------------- */

unsigned lite_native_align(const struct insn *insn)
{
	if (insn->flags & INSN_F_ALIGNED)
		return insn->mem.size;
	return (insn->flags & INSN_F_SSE_ALIGN) && insn->mem.size == 16 ? 16 : 0;
}

bool lite_native_lower(struct lite_lower *l, struct lite_op *op)
{
	const struct insn *insn = &l->insn;
	struct lite_native *native;
	struct gpr_use use;
	u8 bytes[64];
	unsigned len;
	int ea = 0;

	if (insn->state > INSN_STATE_AVX512 || insn->state == INSN_STATE_WAIT || insn->state == INSN_STATE_FXSR ||
	    insn->state == INSN_STATE_XSAVE || lite_is_xstate(insn) || (insn->has_mem && insn->mem.vsib) || insn->mnemonic == MN_LDMXCSR || insn->mnemonic == MN_VLDMXCSR ||
	    lite_is_vzero32(insn))
		return false;
	if (insn->map == INSN_MAP_0F && insn->opcode == 0xf7 && !insn->has_mem)
		return false;
	if (insn->has_mem) {
		if (!insn->mem.size || insn->mem.size > 64 || insn->mem.access == OPA_RW || !insn->mem.access)
			return false;
		ea = lite_lower_mem(l, op, insn);
		if (ea < 0)
			return false;
	}
	len = build(insn, bytes);
	if (!len)
		return false;
	native = lite_arena_alloc(l->lvm, sizeof(*native));
	if (!native)
		return false;
	native->code = stub_find(l->lvm->stubs, bytes, len);
	if (!native->code)
		return false;
	find_gprs(insn, &use);
	native->state = insn->state;
	native->class = LITE_FPU_CLASS(insn->state);
	native->size = insn->has_mem ? insn->mem.size : 0;
	native->align = insn->has_mem && lite_native_align(insn) ? lite_native_align(insn) - 1 : 0;
	native->fip = records_fip(insn);
	native->fop = (insn->opcode & 7) << 8 | insn->modrm;
	native->reg = use.reg != LITE_NO_REG ? use.reg : REG_CX;
	native->rm = use.rm != LITE_NO_REG ? use.rm : REG_DX;
	native->out_ax = use.out_ax;
	native->out_reg = use.reg != LITE_NO_REG || use.out_cx;
	native->out_rm = use.rm != LITE_NO_REG;
	native->flags_in = use.flags_in;
	native->flags_out = use.flags_out;
	op->native = native;
	if (lite_faults_itself(insn))
		op->flags |= LITE_OP_OWN;
	op->fn = lite_native_handler(insn->has_mem, insn->mem.access & OPA_WRITE, ea, use.any, insn->state == INSN_STATE_X87);
	return true;
}
