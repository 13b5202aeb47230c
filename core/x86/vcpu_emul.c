/*
 * The emulator on a real vCPU: linear addresses through the guest's page tables, guest-physical ones to memory, to devices in
 * core, or to the client. core/vcpu.h (struct vcpu_io) tells how an instruction waits for the client.
 *
 * Two rules keep this correct. What was asked is answered to the same element of the same instruction or to nobody (struct
 * io_key). And core itself finishes the instruction when the client comes back, before anything else, so that a client
 * that saves its VM after KVM_RUN finds no instruction half done.
 */
#include "core/x86/clock.h"
#include "core/x86/cpuid.h"
#include "core/x86/debug.h"
#include "core/x86/events.h"
#include "core/x86/hypercall.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/mmu/walk.h"
#include "core/x86/run.h"

#define MMIO_MAX 8 /* bytes in run->mmio */

static struct vcpu *vcpu_of(struct emul *e)
{
	return container_of(e, struct vcpu, emul);
}

/* ---- what waits for the client -------------------------------------------------------------------------------- */

static u8 *pio_page(struct vcpu *vcpu)
{
	return (u8 *)vcpu->run + HOST_PAGE_SIZE;
}

static struct io_key key_now(const struct vcpu *vcpu)
{
	const struct x86_state *s = &vcpu->x86;

	return (struct io_key){ s->rip, s->gpr[REG_CX], s->gpr[REG_SI], s->gpr[REG_DI] };
}

static bool key_equal(const struct io_key *a, const struct io_key *b)
{
	return a->rip == b->rip && a->cx == b->cx && a->si == b->si && a->di == b->di;
}

static void forget_answers(struct vcpu *vcpu)
{
	vcpu->io.nr_answered = vcpu->io.next_answer = 0;
}

static bool writes_queued(const struct vcpu *vcpu)
{
	return vcpu->io.nr_writes || vcpu->io.batch.state == IO_BATCH_OUT;
}

/* True: the client has answered this read, and @buf holds what. */
static bool answered(struct vcpu *vcpu, enum io_space kind, u64 addr, void *buf, unsigned len)
{
	struct vcpu_io *io = &vcpu->io;
	const struct io_fragment *f = &io->answered[io->next_answer];
	struct io_key key;

	if (likely(io->next_answer == io->nr_answered))
		return false;
	key = key_now(vcpu);
	if (!key_equal(&io->key, &key) || f->kind != kind || f->addr != addr || f->len != len)
		return false;
	memcpy(buf, f->data, len);
	io->next_answer++;
	return true;
}

/* The question, of a read that is not answered(): an answer that waits is another's. */
static enum x86_result client_read(struct vcpu *vcpu, enum io_space kind, u64 addr, unsigned len)
{
	struct vcpu_io *io = &vcpu->io;
	struct io_key key = key_now(vcpu);

	if (io->next_answer < io->nr_answered || !key_equal(&io->key, &key))
		forget_answers(vcpu);
	if (writes_queued(vcpu))
		return X86_RETRY; /* what was written before comes first */
	if (io->nr_answered == IO_MAX_FRAGMENTS)
		return X86_UNHANDLED;
	io->key = key;
	io->pending_read = (struct io_fragment){ .addr = addr, .len = len, .kind = kind };
	io->read_pending = true;
	io->for_event = !io->in_core && (vcpu->events.exception.injected || vcpu->events.interrupt.injected ||
					 vcpu->events.nmi.injected);
	return X86_RETRY;
}

static enum x86_result client_write(struct vcpu *vcpu, enum io_space kind, u64 addr, const void *buf, unsigned len)
{
	struct vcpu_io *io = &vcpu->io;
	struct io_key key = key_now(vcpu);
	struct io_fragment *f;

	if (io->batch.state == IO_BATCH_OUT)
		return X86_RETRY;
	if (!io->nr_writes)
		io->write_key = key;
	if (io->nr_writes == IO_MAX_FRAGMENTS)
		return key_equal(&io->write_key, &key) ? X86_UNHANDLED : X86_RETRY;
	f = &io->writes[io->nr_writes++];
	*f = (struct io_fragment){ .addr = addr, .len = len, .kind = kind };
	memcpy(f->data, buf, len);
	vcpu_set_request(vcpu, REQ_IO);
	return X86_EXIT;
}

/* ---- guest-physical ------------------------------------------------------------------------------------------- */

/* The client's own memory is not there (unmapped, a truncated file): KVM_RUN gives -EFAULT. */
static enum x86_result client_fault(struct vcpu *vcpu)
{
	vcpu->io.error = -EFAULT;
	vcpu->io.exit = EXIT_USER;
	return X86_RETRY;
}

enum x86_result vcpu_phys_read(struct vcpu *vcpu, u64 gpa, void *buf, unsigned len)
{
	while (len) {
		unsigned n = MIN(len, (unsigned)MMIO_MAX);

		if (!answered(vcpu, IO_MMIO, gpa, buf, n)) {
			struct memslot *slot;
			u64 hva = vm_gpa_to_hva(vcpu->vm, vcpu_as_id(vcpu), gpa, &slot);

			if (likely(hva))
				return host_copy_from_client(buf, hva, len) ? client_fault(vcpu) : X86_CONTINUE;
			if (io_read(vcpu, IO_MMIO, gpa, n, buf))
				return client_read(vcpu, IO_MMIO, gpa, n);
			__atomic_fetch_add(&vcpu->vm->stats->mmio_exits_in_kernel, 1, __ATOMIC_RELAXED);
		}
		gpa += n;
		buf = (u8 *)buf + n;
		len -= n;
	}
	return X86_CONTINUE;
}

enum x86_result vcpu_phys_write(struct vcpu *vcpu, u64 gpa, const void *buf, unsigned len)
{
	struct memslot *slot;
	u64 hva = vm_gpa_to_hva(vcpu->vm, vcpu_as_id(vcpu), gpa, &slot);
	enum x86_result result = X86_CONTINUE;

	if (likely(hva && !(slot->flags & KVM_MEM_READONLY))) {
		if (host_copy_to_client(hva, buf, len))
			return client_fault(vcpu);
		if (memslot_logs_dirty(slot))
			dirty_mark(vcpu->vm, vcpu, slot, gpa >> HOST_PAGE_SHIFT);
		vm_guest_written(vcpu->vm, gpa, len);
		return X86_CONTINUE;
	}
	while (len) {
		unsigned n = MIN(len, (unsigned)MMIO_MAX);

		if (!io_write(vcpu, IO_MMIO, gpa, n, buf)) {
			__atomic_fetch_add(&vcpu->vm->stats->mmio_exits_in_kernel, 1, __ATOMIC_RELAXED);
		} else {
			enum x86_result r = client_write(vcpu, IO_MMIO, gpa, buf, n);

			if (r == X86_EXIT)
				result = X86_EXIT;
			else if (r != X86_CONTINUE)
				return r;
		}
		gpa += n;
		buf = (const u8 *)buf + n;
		len -= n;
	}
	return result;
}

/* ---- linear --------------------------------------------------------------------------------------------------- */

enum x86_result vcpu_translate(struct vcpu *vcpu, u64 la, u32 pferr_access, u64 *gpa)
{
	struct walk_result walk;
	/* A system access at CPL 3 is one that RFLAGS.AC does not excuse: SDM 3A 4.6 */
	bool implicit = vcpu->x86.cpl == 3 && !(pferr_access & PFERR_U);

	if (unlikely(!mmu_walk(vcpu, la, pferr_access, implicit, &walk))) {
		vcpu->stats->pf_taken++;
		return emul_page_fault(&vcpu->emul, la, walk.error);
	}
	*gpa = walk.gpa;
	return X86_CONTINUE;
}

static u32 pferr_of(const struct vcpu *vcpu, u32 access, unsigned acc)
{
	if (acc & EMUL_ACC_RMW)
		access |= PFERR_W;
	if (vcpu->x86.cpl == 3 && !(acc & EMUL_ACC_SYSTEM))
		access |= PFERR_U;
	return access;
}

/* At most two pages: an access is no longer than 64 bytes, a probe no longer than a page. */
struct span {
	u64 gpa[2];
	unsigned len[2];
};

static enum x86_result span_of(struct vcpu *vcpu, u64 la, unsigned len, u32 access, struct span *span)
{
	unsigned first = HOST_PAGE_SIZE - (la & (HOST_PAGE_SIZE - 1));
	enum x86_result r;

	span->len[0] = MIN(len, first);
	span->len[1] = len - span->len[0];
	/* The hardware has just walked for this operand, and found it permitted */
	if (vcpu->io.operand_gpa && !(access & PFERR_I) && !span->len[1] &&
	    !((la ^ vcpu->io.operand_gpa) & (HOST_PAGE_SIZE - 1))) {
		span->gpa[0] = vcpu->io.operand_gpa;
		return X86_CONTINUE;
	}
	r = vcpu_translate(vcpu, la, access, &span->gpa[0]);
	if (r == X86_CONTINUE && span->len[1]) {
		u64 next = la + first;

		if (vcpu->x86.mode != X86_MODE_LONG)
			next = (u32)next;
		r = vcpu_translate(vcpu, next, access, &span->gpa[1]);
	}
	return r;
}

static void watch(struct vcpu *vcpu, u64 la, unsigned len, bool write)
{
	if (unlikely(vcpu->eff_dr7 & 0xff))
		vcpu->debug_hits |= debug_data_hit(vcpu, la, len, write);
}

static enum x86_result op_fetch(struct emul *e, u64 la, void *buf, unsigned len)
{
	struct vcpu *vcpu = vcpu_of(e);
	struct span span;
	enum x86_result r = span_of(vcpu, la, len, pferr_of(vcpu, PFERR_I, 0), &span);
	struct memslot *slot;

	for (unsigned i = 0; i < 2 && r == X86_CONTINUE && span.len[i]; i++) {
		u64 hva = vm_gpa_to_hva(vcpu->vm, vcpu_as_id(vcpu), span.gpa[i], &slot);

		if (!hva)
			return X86_UNHANDLED; /* code in a device */
		if (host_copy_from_client((u8 *)buf + (i ? span.len[0] : 0), hva, span.len[i]))
			return client_fault(vcpu);
	}
	return r;
}

static enum x86_result op_read(struct emul *e, u64 la, void *buf, unsigned len, unsigned acc)
{
	struct vcpu *vcpu = vcpu_of(e);
	struct span span;
	enum x86_result r = span_of(vcpu, la, len, pferr_of(vcpu, 0, acc), &span);

	if (r == X86_CONTINUE)
		r = vcpu_phys_read(vcpu, span.gpa[0], buf, span.len[0]);
	if (r == X86_CONTINUE && span.len[1])
		r = vcpu_phys_read(vcpu, span.gpa[1], (u8 *)buf + span.len[0], span.len[1]);
	if (r == X86_CONTINUE && !(acc & EMUL_ACC_SYSTEM))
		watch(vcpu, la, len, acc & EMUL_ACC_RMW);
	return r;
}

static enum x86_result op_write(struct emul *e, u64 la, const void *buf, unsigned len, unsigned acc)
{
	struct vcpu *vcpu = vcpu_of(e);
	struct span span;
	enum x86_result first, r = span_of(vcpu, la, len, pferr_of(vcpu, PFERR_W, acc), &span);

	if (r != X86_CONTINUE)
		return r;
	first = vcpu_phys_write(vcpu, span.gpa[0], buf, span.len[0]);
	if (first != X86_CONTINUE && first != X86_EXIT)
		return first;
	if (span.len[1]) {
		r = vcpu_phys_write(vcpu, span.gpa[1], (const u8 *)buf + span.len[0], span.len[1]);
		if (r != X86_CONTINUE && r != X86_EXIT)
			return r;
	}
	if (!(acc & EMUL_ACC_SYSTEM))
		watch(vcpu, la, len, true);
	return first == X86_EXIT ? first : r;
}

/* Within an aligned 16 bytes: exchange all 16, of which only @len are compared with what the instruction expects. */
static int cmpxchg_within(u64 hva, void *old, const void *new, unsigned len)
{
	u64 base = hva & ~15ULL;
	unsigned at = hva - base;
	u8 was[16], wanted[16];
	int r;

	do {
		if (host_copy_from_client(was, base, sizeof(was)))
			return -EFAULT;
		if (memcmp(was + at, old, len)) {
			memcpy(old, was + at, len);
			return 1;
		}
		memcpy(wanted, was, sizeof(wanted));
		memcpy(wanted + at, new, len);
		r = host_client_cmpxchg(base, was, wanted, sizeof(was));
	} while (r == 1);
	return r;
}

static enum x86_result op_cmpxchg(struct emul *e, u64 la, void *old, const void *new, unsigned len, unsigned acc,
				  bool *done)
{
	struct vcpu *vcpu = vcpu_of(e);
	struct memslot *slot;
	struct span span;
	enum x86_result r = span_of(vcpu, la, len, pferr_of(vcpu, PFERR_W, acc), &span);
	u8 was[16];
	u64 hva;

	if (r != X86_CONTINUE)
		return r;
	hva = vm_gpa_to_hva(vcpu->vm, vcpu_as_id(vcpu), span.gpa[0], &slot);
	if (likely(hva && !(slot->flags & KVM_MEM_READONLY) && !span.len[1])) {
		int ret = 2;

		if (!(hva & (len - 1)))
			ret = host_client_cmpxchg(hva, old, new, len);
		else if ((hva & 15) + len <= 16)
			ret = cmpxchg_within(hva, old, new, len);
		if (ret < 0)
			return client_fault(vcpu);
		if (ret < 2) {
			*done = !ret;
			if (memslot_logs_dirty(slot))
				dirty_mark(vcpu->vm, vcpu, slot, span.gpa[0] >> HOST_PAGE_SHIFT);
			vm_guest_written(vcpu->vm, span.gpa[0], len);
			watch(vcpu, la, len, true);
			return X86_CONTINUE;
		}
	}
	/* A device's register, or over a cache line's end: a bus lock orders these, and no guest has both sides of one race on it */
	r = op_read(e, la, was, len, acc | EMUL_ACC_RMW);
	if (r != X86_CONTINUE)
		return r;
	*done = !memcmp(was, old, len);
	memcpy(old, was, len);
	return op_write(e, la, *done ? new : was, len, acc);
}

static enum x86_result op_probe(struct emul *e, u64 la, unsigned len, bool write, unsigned acc)
{
	struct vcpu *vcpu = vcpu_of(e);
	u32 access = pferr_of(vcpu, write ? PFERR_W : 0, acc);
	enum x86_result r = X86_CONTINUE;
	u64 gpa, last = (la + len - 1) & ~(u64)(HOST_PAGE_SIZE - 1);

	for (u64 at = la; len && r == X86_CONTINUE; at = (at & ~(u64)(HOST_PAGE_SIZE - 1)) + HOST_PAGE_SIZE) {
		r = vcpu_translate(vcpu, vcpu->x86.mode == X86_MODE_LONG ? at : (u32)at, access, &gpa);
		if ((at & ~(u64)(HOST_PAGE_SIZE - 1)) == last)
			break;
	}
	return r;
}

/* ---- ports ---------------------------------------------------------------------------------------------------- */

/* How many elements REP INS or OUTS (with DF clear) may move at once: those left, a page of them, up to the end of the guest's page. */
static u32 batch_room(struct emul *e, unsigned size, bool in)
{
	const struct x86_state *s = e->s;
	const struct insn *insn = e->cur;
	u64 mask = insn->addrsize == 8 ? ~0ULL : insn->addrsize == 4 ? 0xffffffffULL : 0xffffULL;
	u64 count = s->gpr[REG_CX] & mask, la, in_page;

	if (!insn || !insn->rep || insn->mnemonic != (in ? MN_INS : MN_OUTS))
		return 1;
	if (!in)
		return MIN(count, HOST_PAGE_SIZE / size);
	if (s->rflags & RFLAGS_DF)
		return 1;
	la = s->seg[SEG_ES].base + (s->gpr[REG_DI] & mask);
	in_page = (HOST_PAGE_SIZE - (la & (HOST_PAGE_SIZE - 1))) / size;
	return MAX(MIN(count, in_page), 1ULL);
}

static enum x86_result op_in(struct emul *e, u16 port, unsigned size, u32 *value)
{
	struct vcpu *vcpu = vcpu_of(e);
	struct vcpu_io *io = &vcpu->io;
	u32 count;

	*value = 0;
	vcpu->debug_hits |= debug_io_hit(vcpu, port, size);
	if (!io_read(vcpu, IO_PIO, port, size, value))
		return X86_CONTINUE;
	if (io->batch.state == IO_BATCH_IN_READY && io->batch.rip == vcpu->x86.rip && io->batch.port == port &&
	    io->batch.size == size) {
		memcpy(value, pio_page(vcpu) + io->batch.next * size, size);
		if (++io->batch.next == io->batch.count)
			io->batch.state = IO_BATCH_NONE;
		return X86_CONTINUE;
	}
	count = batch_room(e, size, true);
	if (count > 1 && !writes_queued(vcpu)) {
		io->key = key_now(vcpu);
		io->batch.state = IO_BATCH_IN_ASKED;
		io->batch.port = port;
		io->batch.size = size;
		io->batch.count = count;
		io->batch.next = 0;
		io->batch.rip = vcpu->x86.rip;
		return X86_RETRY;
	}
	return answered(vcpu, IO_PIO, port, value, size) ? X86_CONTINUE : client_read(vcpu, IO_PIO, port, size);
}

static enum x86_result op_out(struct emul *e, u16 port, unsigned size, u32 value)
{
	struct vcpu *vcpu = vcpu_of(e);
	struct vcpu_io *io = &vcpu->io;
	u32 room;

	vcpu->debug_hits |= debug_io_hit(vcpu, port, size);
	if (!io_write(vcpu, IO_PIO, port, size, &value))
		return X86_CONTINUE;
	room = batch_room(e, size, false);
	if (room <= 1 && io->batch.state != IO_BATCH_OUT)
		return client_write(vcpu, IO_PIO, port, &value, size);
	if (io->batch.state == IO_BATCH_NONE && !io->nr_writes) {
		io->batch.state = IO_BATCH_OUT;
		io->batch.port = port;
		io->batch.size = size;
		io->batch.count = 0;
		io->batch.rip = vcpu->x86.rip;
		vcpu_set_request(vcpu, REQ_IO);
	}
	if (io->batch.state != IO_BATCH_OUT || io->batch.port != port || io->batch.size != size ||
	    io->batch.rip != vcpu->x86.rip)
		return X86_RETRY;
	memcpy(pio_page(vcpu) + io->batch.count * size, &value, size);
	io->batch.count++;
	return room == 1 || (io->batch.count + 1) * size > HOST_PAGE_SIZE ? X86_EXIT : X86_CONTINUE;
}

/* ---- registers and the rest ----------------------------------------------------------------------------------- */

static enum x86_result or_gp(struct emul *e, enum x86_result r)
{
	return r == X86_FAULT || r == X86_UNHANDLED ? emul_fault_code(e, VEC_GP, 0) : r;
}

static enum x86_result op_set_cr(struct emul *e, unsigned cr, u64 value)
{
	struct vcpu *vcpu = vcpu_of(e);
	u64 old = vcpu->x86.cr8;
	enum x86_result r;

	host_event_cr(true, cr, value);
	r = or_gp(e, vcpu_set_cr(vcpu, cr, value));

	/* A client with its own LAPIC has to hear of a lowered priority */
	if (r == X86_CONTINUE && cr == 8 && !vcpu->lapic && value < old) {
		vcpu->run->exit_reason = KVM_EXIT_SET_TPR;
		vcpu->io.exit = EXIT_USER;
		return X86_EXIT;
	}
	return r;
}

static enum x86_result op_get_cr(struct emul *e, unsigned cr, u64 *value)
{
	struct vcpu *vcpu = vcpu_of(e);

	switch (cr) {
	case 0: *value = vcpu->x86.cr0; return X86_CONTINUE;
	case 2: *value = vcpu->x86.cr2; return X86_CONTINUE;
	case 3: *value = vcpu->x86.cr3; return X86_CONTINUE;
	case 4: *value = vcpu->x86.cr4; return X86_CONTINUE;
	case 8: *value = vcpu_get_cr8(vcpu); return X86_CONTINUE;
	}
	return emul_fault(e, VEC_UD);
}

static enum x86_result op_set_dr(struct emul *e, unsigned dr, u64 value)
{
	return or_gp(e, vcpu_set_dr(vcpu_of(e), dr, value));
}

static enum x86_result op_get_msr(struct emul *e, u32 index, u64 *value)
{
	return or_gp(e, vcpu_get_msr(vcpu_of(e), index, value, false));
}

static enum x86_result op_set_msr(struct emul *e, u32 index, u64 value)
{
	return or_gp(e, vcpu_set_msr(vcpu_of(e), index, value, false));
}

static enum x86_result op_set_xcr(struct emul *e, u32 index, u64 value)
{
	return or_gp(e, vcpu_set_xcr(vcpu_of(e), index, value));
}

static enum x86_result op_rdpmc(struct emul *e, u32 index, u64 *value)
{
	return emul_fault_code(e, VEC_GP, 0); /* CPUID shows no counters */
}

static void op_cpuid(struct emul *e, u32 regs[4])
{
	vcpu_cpuid(vcpu_of(e), regs);
}

static bool op_has_feature(struct emul *e, u32 feature)
{
	struct vcpu *vcpu = vcpu_of(e);

	/* KVM's quirk: MONITOR and MWAIT are there for who tries them, though CPUID does not show them */
	if (feature == X86_FEATURE_MONITOR && !(vcpu->vm->disabled_quirks & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS))
		return true;
	return vcpu_has_feature(vcpu, feature);
}

static u64 op_rdtsc(struct emul *e)
{
	return vcpu_read_tsc(vcpu_of(e));
}

static void flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg)
{
	vcpu->stats->tlb_flush++;
	vcpu->vm->engine->tlb_flush(vcpu, scope, arg);
}

static void op_invlpg(struct emul *e, u64 la)
{
	vcpu_of(e)->stats->invlpg++;
	vcpu_of(e)->vm->engine->tlb_flush(vcpu_of(e), TLB_PAGE, la);
}

/* SDM 2A INVPCID */
static enum x86_result op_invpcid(struct emul *e, u64 type, u64 pcid, u64 la)
{
	struct vcpu *vcpu = vcpu_of(e);
	bool enabled = vcpu->x86.cr4 & CR4_PCIDE;

	if (type > 3 || (type < 2 && (pcid >> 12 || (pcid && !enabled))) ||
	    (type == 0 && !x86_is_canonical(la, vcpu->x86.cr4)))
		return emul_fault_code(e, VEC_GP, 0);
	switch (type) {
	case 0:
		if (pcid == (enabled ? vcpu->x86.cr3 & CR3_PCID_MASK : 0)) {
			op_invlpg(e, la);
			break;
		}
		flush(vcpu, TLB_PCID, pcid);
		break;
	case 1: flush(vcpu, enabled ? TLB_PCID : TLB_NONGLOBAL, pcid); break;
	default: flush(vcpu, TLB_ALL, 0); break;
	}
	return X86_CONTINUE;
}

static enum x86_result op_hlt(struct emul *e)
{
	vcpu_of(e)->io.exit = EXIT_HLT;
	return X86_EXIT;
}

static enum x86_result op_pause(struct emul *e)
{
	return X86_CONTINUE;
}

static enum x86_result op_hypercall(struct emul *e)
{
	struct vcpu *vcpu = vcpu_of(e);
	/* VMMCALL is AMD's, VMCALL Intel's */
	bool own = (e->cur->mnemonic == MN_VMMCALL) == cpuid_vendor_is_amd(vcpu);
	enum x86_result r;

	if (!own && (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_FIX_HYPERCALL_INSN))
		return emul_fault(e, VEC_UD);
	r = hypercall_run(vcpu);
	return r == X86_FAULT ? emul_fault(e, VEC_UD) : r;
}

static enum x86_result op_wbinvd(struct emul *e)
{
	return X86_CONTINUE; /* caches are coherent with every device there is */
}

static enum x86_result op_native(struct emul *e, const struct insn *insn)
{
	return X86_UNHANDLED;
}

static enum x86_result op_rsm(struct emul *e)
{
	return smm_leave(vcpu_of(e));
}

static void op_nmi_unmasked(struct emul *e)
{
	vcpu_set_request(vcpu_of(e), REQ_EVENT);
}

static bool op_element_done(struct emul *e)
{
	struct vcpu *vcpu = vcpu_of(e);

	if (unlikely(vcpu->io.nr_answered))
		forget_answers(vcpu);
	/* A batch of OUTS goes on, unless something else is due as well */
	if (vcpu->io.batch.state == IO_BATCH_OUT && !(__atomic_load_n(&vcpu->requests, __ATOMIC_RELAXED) & ~BIT64(REQ_IO)))
		return false;
	/* A client that steps sees every iteration, as with TF (SDM 3B 18.3.1.4). */
	return vcpu_must_exit(vcpu) || debug_client_steps(vcpu);
}

/* The host's own generator: CPUID offers these only where the host has them. */
static bool op_random(struct emul *e, bool seed, u64 *value)
{
	u8 ok;

	if (seed)
		__asm__ volatile("rdseed %0; setc %1" : "=r"(*value), "=qm"(ok) : : "cc");
	else
		__asm__ volatile("rdrand %0; setc %1" : "=r"(*value), "=qm"(ok) : : "cc");
	return ok;
}

const struct emul_ops vcpu_emul_ops = {
	.fetch = op_fetch,
	.read = op_read,
	.write = op_write,
	.cmpxchg = op_cmpxchg,
	.probe = op_probe,
	.in = op_in,
	.out = op_out,
	.set_cr = op_set_cr,
	.get_cr = op_get_cr,
	.set_dr = op_set_dr,
	.get_msr = op_get_msr,
	.set_msr = op_set_msr,
	.set_xcr = op_set_xcr,
	.rdpmc = op_rdpmc,
	.cpuid = op_cpuid,
	.has_feature = op_has_feature,
	.rdtsc = op_rdtsc,
	.invlpg = op_invlpg,
	.invpcid = op_invpcid,
	.hlt = op_hlt,
	.pause = op_pause,
	.hypercall = op_hypercall,
	.wbinvd = op_wbinvd,
	.native = op_native,
	.rsm = op_rsm,
	.nmi_unmasked = op_nmi_unmasked,
	.element_done = op_element_done,
	.random = op_random,
};

/* ---- to the client and back ------------------------------------------------------------------------------------ */

static void ask_pio(struct vcpu *vcpu, u8 direction, u16 port, u8 size, u32 count)
{
	struct kvm_run *run = vcpu->run;

	vcpu->stats->io_exits++;
	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = direction;
	run->io.size = size;
	run->io.port = port;
	run->io.count = count;
	run->io.data_offset = HOST_PAGE_SIZE;
}

static void ask_mmio(struct vcpu *vcpu, const struct io_fragment *f, bool write)
{
	struct kvm_run *run = vcpu->run;

	vcpu->stats->mmio_exits++;
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = f->addr;
	run->mmio.len = f->len;
	run->mmio.is_write = write;
	memcpy(run->mmio.data, f->data, sizeof(run->mmio.data));
}

static void ask_write(struct vcpu *vcpu)
{
	struct vcpu_io *io = &vcpu->io;
	const struct io_fragment *f;

	if (!io->nr_writes) {
		ask_pio(vcpu, KVM_EXIT_IO_OUT, io->batch.port, io->batch.size, io->batch.count);
		io->batch.state = IO_BATCH_OUT_ASKED;
		return;
	}
	f = &io->writes[io->next_write];
	io->write_pending = true;
	if (f->kind == IO_MMIO) {
		ask_mmio(vcpu, f, true);
	} else {
		memcpy(pio_page(vcpu), f->data, sizeof(f->data));
		ask_pio(vcpu, KVM_EXIT_IO_OUT, f->addr, f->len, 1);
	}
}

static void ask_read(struct vcpu *vcpu)
{
	const struct io_fragment *f = &vcpu->io.pending_read;

	if (f->kind == IO_MMIO)
		ask_mmio(vcpu, f, false);
	else
		ask_pio(vcpu, KVM_EXIT_IO_IN, f->addr, f->len, 1);
}

static void ask_msr(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = vcpu->msr_exit.write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
	run->msr.error = 0;
	memset(run->msr.pad, 0, sizeof(run->msr.pad));
	run->msr.reason = vcpu->msr_exit.reason;
	run->msr.index = vcpu->msr_exit.index;
	run->msr.data = vcpu->msr_exit.data;
}

enum x86_result vcpu_io_insn_done(struct vcpu *vcpu, enum x86_result r)
{
	struct vcpu_io *io = &vcpu->io;

	if (r != X86_RETRY) {
		forget_answers(vcpu);
		if (vcpu->msr_exit.state == MSR_EXIT_ANSWERED)
			vcpu->msr_exit.state = MSR_EXIT_NONE;
		/* Left over only when the instruction stopped in its midst, to go on later */
		if (io->batch.state == IO_BATCH_IN_READY && io->batch.rip != vcpu->x86.rip)
			io->batch.state = IO_BATCH_NONE;
	}
	return r == X86_CONTINUE && writes_queued(vcpu) ? X86_EXIT : r;
}

bool vcpu_io_ask(struct vcpu *vcpu)
{
	struct vcpu_io *io = &vcpu->io;

	vcpu_take_request(vcpu, REQ_IO);
	if (writes_queued(vcpu))
		ask_write(vcpu);
	else if (io->read_pending)
		ask_read(vcpu);
	else if (io->batch.state == IO_BATCH_IN_ASKED)
		ask_pio(vcpu, KVM_EXIT_IO_IN, io->batch.port, io->batch.size, io->batch.count);
	else if (vcpu->msr_exit.state == MSR_EXIT_ASKED)
		ask_msr(vcpu);
	else
		return false;
	return true;
}

void vcpu_emul_exit(struct vcpu *vcpu, enum x86_result r, struct engine_exit *exit)
{
	memset(exit, 0, sizeof(*exit));
	vcpu->io.next_answer = 0;
	switch (r) {
	case X86_CONTINUE: exit->reason = EXIT_NONE; break;
	case X86_RETRY:
	case X86_EXIT:
		if (vcpu_io_ask(vcpu)) {
			exit->reason = EXIT_USER;
			if (r == X86_EXIT && debug_client_steps(vcpu))
				vcpu->io.pending_dr6 |= DR6_BS;
			break;
		}
		exit->reason = vcpu->io.exit;
		vcpu->io.exit = EXIT_NONE;
		break;
	case X86_FAULT:
		exit->reason = EXIT_EXCEPTION;
		exit->event = vcpu->emul.fault;
		break;
	case X86_SHUTDOWN: exit->reason = EXIT_SHUTDOWN; break;
	case X86_UNHANDLED:
		exit->reason = EXIT_INTERNAL_ERROR;
		exit->suberror = KVM_INTERNAL_ERROR_EMULATION;
		break;
	}
}

/*
 * Instructions of general registers and one memory operand, which nothing else of the state has a part in: what devices are mostly reached
 * with. For them the MSRs and, in 64-bit code, the segments stay where the engine has them, and nothing but the general registers is loaded
 * again.
 */
static bool is_plain(const struct insn *insn)
{
	return insn->has_mem && insn->mnemonic <= MN_SETCC && insn->mnemonic != MN_XLAT &&
	       !(insn->flags & (INSN_F_STACK | INSN_F_STRING | INSN_F_BRANCH | INSN_F_NO_REAL_MEM | INSN_F_PRIVILEGED));
}

static enum x86_result execute(struct vcpu *vcpu, u64 gpa)
{
	struct emul *e = &vcpu->emul;
	enum x86_result r;

	if (is_plain(&e->insn)) {
		if (e->insn.mem.seg >= SEG_FS)
			vcpu->vm->engine->state_sync(vcpu, REGS_SEG);
		vcpu->io.operand_gpa = gpa;
		r = emul_insn(e);
		vcpu->io.operand_gpa = 0;
		vcpu->regs_dirty |= REGS_GPR | REGS_RIP;
		return r;
	}
	vcpu->vm->engine->state_sync(vcpu, REGS_ALL & ~REGS_FPU);
	r = emul_insn(e);
	/* SWAPGS is the only one that writes MSRs past vcpu_set_msr() */
	vcpu->regs_dirty |= REGS_GPR | REGS_RIP | REGS_SEG | REGS_MSR;
	return r;
}

static void tell(const struct vcpu *vcpu, bool failed)
{
	static const u8 flags[] = { [X86_MODE_REAL] = 0, [X86_MODE_V86] = HOST_INSN_PE | HOST_INSN_VM, [X86_MODE_PROT16] = HOST_INSN_PE,
				    [X86_MODE_PROT32] = HOST_INSN_PE | HOST_INSN_CS_D,
				    [X86_MODE_LONG] = HOST_INSN_PE | HOST_INSN_CS_L };
	const struct x86_state *s = &vcpu->x86;
	const struct insn *insn = &vcpu->emul.insn;

	host_event_emulate_insn(s->rip, s->mode == X86_MODE_LONG ? 0 : s->seg[SEG_CS].base, insn->bytes, insn->len, flags[s->mode],
				failed);
}

/* @decoded: emul.insn holds it already. @gpa: of its memory operand, 0: unknown. */
static void emulate(struct vcpu *vcpu, bool decoded, u64 gpa, struct engine_exit *exit)
{
	enum x86_result r = X86_CONTINUE;
	u64 dr6;

	if (vcpu->x86.mode != X86_MODE_LONG)
		vcpu->vm->engine->state_sync(vcpu, REGS_SEG | REGS_CR);
	vcpu->stats->insn_emulation++;
	vcpu->debug_hits = 0;
	vcpu->io.in_core = true;
	if (!decoded)
		r = emul_decode(&vcpu->emul);
	if (likely(r == X86_CONTINUE)) {
		if (!decoded)
			tell(vcpu, false);
		r = execute(vcpu, gpa);
	}
	if (unlikely(r == X86_UNHANDLED))
		tell(vcpu, true);
	r = vcpu_insn_done(vcpu, r);
	vcpu->io.decoded = r == X86_RETRY && vcpu->io.read_pending;
	vcpu->io.in_core = false;
	vcpu_emul_exit(vcpu, r, exit);
	dr6 = vcpu->debug_hits | (vcpu->emul.tf_at_start || debug_client_steps(vcpu) ? DR6_BS : 0);
	vcpu->debug_hits = 0;
	if (r == X86_CONTINUE && unlikely(dr6))
		debug_trap(vcpu, dr6, exit);
	else if (r == X86_EXIT && exit->reason == EXIT_USER)
		vcpu->io.pending_dr6 |= dr6;
}

void vcpu_emulate(struct vcpu *vcpu, u64 gpa, struct engine_exit *exit)
{
	emulate(vcpu, false, gpa, exit);
}

/* ---- instructions that an engine decoded: the short ways past the emulator ------------------------------------------- */

void vcpu_skip_insn(struct vcpu *vcpu, unsigned len)
{
	struct x86_state *s = &vcpu->x86;

	s->rip += len;
	if (s->mode != X86_MODE_LONG)
		s->rip = (u32)s->rip;
	s->rflags &= ~RFLAGS_RF;
	s->shadow = 0;
	vcpu->regs_dirty |= REGS_RIP;
}

int vcpu_insn_traps(struct vcpu *vcpu)
{
	struct engine_exit exit = { 0 };

	if (likely(!(vcpu->x86.rflags & RFLAGS_TF) && !debug_client_steps(vcpu)))
		return 1;
	return debug_trap(vcpu, DR6_BS, &exit) ? run_handle_exit(vcpu, &exit) : 1;
}

static void in_done(struct vcpu *vcpu, unsigned size, const void *data)
{
	/* 32 bits are zero-extended, fewer leave the rest of RAX alone: SDM 1 3.4.1.1 */
	if (size == 4)
		vcpu->x86.gpr[REG_AX] = 0;
	memcpy(&vcpu->x86.gpr[REG_AX], data, size);
	vcpu->regs_dirty |= REGS_GPR;
}

int vcpu_port_io(struct vcpu *vcpu, const struct engine_exit *exit)
{
	u16 port = exit->io.port;
	u8 size = exit->io.size;
	u32 value = vcpu->x86.gpr[REG_AX];

	if (exit->io.in) {
		if (io_read(vcpu, IO_PIO, port, size, &value)) {
			vcpu->io.in.len = exit->insn_len;
			vcpu->io.in.size = size;
			vcpu->io.in.rip = vcpu->x86.rip;
			ask_pio(vcpu, KVM_EXIT_IO_IN, port, size, 1);
			return 0;
		}
		in_done(vcpu, size, &value);
		vcpu_skip_insn(vcpu, exit->insn_len);
		return vcpu_insn_traps(vcpu);
	}
	if (!io_write(vcpu, IO_PIO, port, size, &value)) {
		vcpu_skip_insn(vcpu, exit->insn_len);
		return vcpu_insn_traps(vcpu);
	}
	vcpu_skip_insn(vcpu, exit->insn_len);
	if (unlikely((vcpu->x86.rflags & RFLAGS_TF) || debug_client_steps(vcpu)))
		vcpu->io.pending_dr6 |= DR6_BS;
	memcpy(pio_page(vcpu), &value, size);
	ask_pio(vcpu, KVM_EXIT_IO_OUT, port, size, 1);
	return 0;
}

/* ---- when the client comes back ----------------------------------------------------------------------------------- */

/* run_handle_exit()'s answer as vcpu_complete_io()'s: 1 is to leave. */
static int left(int r)
{
	return r < 0 ? r : !r;
}

/* The instruction that asked goes on, unless the client moved the vCPU elsewhere meanwhile. */
static int finish_instruction(struct vcpu *vcpu, u64 rip, bool for_event)
{
	struct engine_exit exit;
	u64 gpa;

	if (vcpu->x86.rip != rip) {
		forget_answers(vcpu);
		vcpu->io.batch.state = IO_BATCH_NONE;
		vcpu->msr_exit.state = MSR_EXIT_NONE;
		return 0;
	}
	/* The engine delivers the event again and finds the answer. (What the client injected meanwhile comes after the instruction.) */
	if (for_event)
		return 0;
	/* The first read's address is its operand's */
	gpa = vcpu->io.decoded && vcpu->io.answered[0].kind == IO_MMIO ? vcpu->io.answered[0].addr : 0;
	emulate(vcpu, vcpu->io.decoded, gpa, &exit);
	return left(run_handle_exit(vcpu, &exit));
}

int vcpu_complete_io(struct vcpu *vcpu)
{
	struct vcpu_io *io = &vcpu->io;

	if (vcpu->hypercall_pending)
		hypercall_complete(vcpu);
	if (vcpu->hyperv->answer)
		hyperv_complete(vcpu);
	if (io->in.len) {
		u8 len = io->in.len;

		io->in.len = 0;
		if (vcpu->x86.rip == io->in.rip) {
			io_tell(IO_PIO, false, vcpu->run->io.port, io->in.size, pio_page(vcpu));
			in_done(vcpu, io->in.size, pio_page(vcpu));
			vcpu_skip_insn(vcpu, len);
			return left(vcpu_insn_traps(vcpu));
		}
	}
	if (io->write_pending) {
		io->write_pending = false;
		if (++io->next_write < io->nr_writes) {
			ask_write(vcpu);
			return 1;
		}
		io->nr_writes = io->next_write = 0;
	}
	if (io->batch.state == IO_BATCH_OUT_ASKED)
		io->batch.state = IO_BATCH_NONE;
	if (io->read_pending) {
		struct io_fragment *f = &io->answered[io->nr_answered];

		io->read_pending = false;
		*f = io->pending_read;
		memcpy(f->data, f->kind == IO_MMIO ? vcpu->run->mmio.data : pio_page(vcpu), f->len);
		io_tell(f->kind, false, f->addr, f->len, f->data);
		io->nr_answered++;
		io->next_answer = 0;
		return finish_instruction(vcpu, io->key.rip, io->for_event);
	}
	if (io->batch.state == IO_BATCH_IN_ASKED) {
		io->batch.state = IO_BATCH_IN_READY;
		return finish_instruction(vcpu, io->batch.rip, false);
	}
	if (vcpu->msr_exit.state == MSR_EXIT_ASKED) {
		vcpu->msr_exit.state = MSR_EXIT_ANSWERED;
		vcpu->msr_exit.error = vcpu->run->msr.error;
		vcpu->msr_exit.data = vcpu->run->msr.data;
		return finish_instruction(vcpu, vcpu->msr_exit.rip, false);
	}
	if (io->pending_dr6) {
		struct engine_exit exit = { 0 };
		u64 dr6 = io->pending_dr6;

		io->pending_dr6 = 0;
		if (debug_trap(vcpu, dr6, &exit))
			return left(run_handle_exit(vcpu, &exit));
	}
	return 0;
}
