/*
 * Hypercalls of the TLFS (chapter 3 and appendix B): remote TLB flushes, IPIs, long spins; messages and events go to the client, events
 * that have an eventfd there.
 *
 * 64-bit mode: control in RCX, address of the input in RDX, of the output in R8, result in RAX. Else pairs of 32 bits: EDX:EAX, EBX:ECX,
 * EDI:ESI, result in EDX:EAX. A fast hypercall has its input in the two address registers and, when it is longer, XMM0 to XMM5.
 */
#include "core/x86/fpu.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/chips.h"

#define HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE    0x0002
#define HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST     0x0003
#define HVCALL_NOTIFY_LONG_SPIN_WAIT	      0x0008
#define HVCALL_SEND_IPI			      0x000b
#define HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX 0x0013
#define HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX  0x0014
#define HVCALL_SEND_IPI_EX		      0x0015
#define HVCALL_POST_MESSAGE		      0x005c
#define HVCALL_SIGNAL_EVENT		      0x005d
#define HVCALL_POST_DEBUG_DATA		      0x0069
#define HVCALL_RETRIEVE_DEBUG_DATA	      0x006a
#define HVCALL_RESET_DEBUG_SESSION	      0x006b

enum hv_status {
	HV_STATUS_SUCCESS = 0,
	HV_STATUS_INVALID_HYPERCALL_CODE = 2,
	HV_STATUS_INVALID_HYPERCALL_INPUT = 3,
	HV_STATUS_INVALID_ALIGNMENT = 4,
	HV_STATUS_ACCESS_DENIED = 6,
	HV_STATUS_OPERATION_DENIED = 8,
	HV_STATUS_INVALID_PORT_ID = 17,
	HV_STATUS_INVALID_CONNECTION_ID = 18,
	TO_CLIENT = 0x10000, /* none of the TLFS's */
	UNDEFINED,	     /* #UD */
};

/* The control word, TLFS 3.7 */
#define CONTROL_CODE(c)	 ((u16)(c))
#define CONTROL_FAST	 BIT64(16)
#define CONTROL_VAR(c)	 ((c) >> 17 & 0x3ff)
#define CONTROL_COUNT(c) ((c) >> 32 & 0xfff)
#define CONTROL_START(c) ((c) >> 48 & 0xfff)
#define CONTROL_RESERVED (MASK64(63, 60) | MASK64(47, 44) | MASK64(31, 27))
#define RESULT_COUNT(n)	 ((u64)(n) << 32)

#define FLUSH_ALL_PROCESSORS BIT64(0)
#define SET_SPARSE_4K	     0
#define SET_ALL		     1
#define SET_BANKS	     64

#define EVENT_FLAG(param)     ((u16)((param) >> 32))
#define EVENT_RESERVED(param) ((param) >> 48)
#define SYNDBG_USE_HCALLS     BIT64(2)

#define FAST_REGISTERS 2
#define FAST_WORDS     (FAST_REGISTERS + 2 * 6)

struct call {
	struct vcpu *vcpu;
	u64 control, input, output;
	u16 code;
	bool fast;
	u64 targets[(VM_MAX_VCPUS + 63) / 64]; /* by vCPU index */
};

/* ---- input ---------------------------------------------------------------------------------------------------- */

/* @nr words of the input from word @first on, where they are. */
static enum hv_status read_input(struct call *c, unsigned first, u64 *words, unsigned nr)
{
	const struct hv_vcpu *hv = c->vcpu->hyperv;

	if (!c->fast) {
		if (c->input & 7)
			return HV_STATUS_INVALID_ALIGNMENT;
		if (vm_read_guest(c->vcpu->vm, vcpu_as_id(c->vcpu), c->input + first * 8, words, nr * 8))
			return HV_STATUS_INVALID_HYPERCALL_INPUT;
		return HV_STATUS_SUCCESS;
	}
	if (first + nr > FAST_REGISTERS && !hyperv_allows(hv, hv->features_d, HV_D_XMM_INPUT))
		return UNDEFINED;
	if (first + nr > FAST_WORDS)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	for (unsigned i = 0; i < nr; i++) {
		unsigned at = first + i;

		if (at < FAST_REGISTERS)
			words[i] = at ? c->output : c->input;
		else
			words[i] = fpu_get_xmm_half(c->vcpu, at - FAST_REGISTERS);
	}
	return HV_STATUS_SUCCESS;
}

static void add_target(struct call *c, const struct vcpu *vcpu)
{
	c->targets[vcpu->idx / 64] |= BIT64(vcpu->idx % 64);
}

static u64 vp_index(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->hyperv->vp_index, __ATOMIC_RELAXED);
}

static void target_all(struct call *c)
{
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, c->vcpu->vm)
		add_target(c, vcpu);
}

/* Bit n stands for virtual processor n. */
static void target_mask(struct call *c, u64 mask)
{
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, c->vcpu->vm) {
		if (vp_index(vcpu) < 64 && (mask & BIT64(vp_index(vcpu))))
			add_target(c, vcpu);
	}
}

static unsigned count_bits(u64 word)
{
	unsigned n = 0;

	for (; word; word &= word - 1)
		n++;
	return n;
}

/* A set of virtual processors, TLFS 7.8.7.2, whose banks are at word @first. @head: format, banks that follow, those of 64 each. */
static enum hv_status target_set(struct call *c, unsigned first, const u64 head[2])
{
	u64 banks[SET_BANKS];
	enum hv_status status;
	struct vcpu *vcpu;
	unsigned i, nr;

	if (head[0] == SET_ALL) {
		target_all(c);
		return HV_STATUS_SUCCESS;
	}
	nr = count_bits(head[1]);
	if (head[0] != SET_SPARSE_4K || CONTROL_VAR(c->control) != nr)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	status = nr ? read_input(c, first, banks, nr) : HV_STATUS_SUCCESS;
	if (status)
		return status;
	vm_for_each_vcpu(i, vcpu, c->vcpu->vm) {
		u64 bank = vp_index(vcpu) / 64, bit = vp_index(vcpu) % 64;

		if (bank < SET_BANKS && (head[1] & BIT64(bank)) &&
		    (banks[count_bits(head[1] & (BIT64(bank) - 1))] & BIT64(bit)))
			add_target(c, vcpu);
	}
	return HV_STATUS_SUCCESS;
}

static bool has_targets(const struct call *c)
{
	u64 any = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(c->targets); i++)
		any |= c->targets[i];
	return any;
}

/* ---- the hypercalls ------------------------------------------------------------------------------------------- */

/* HvCallFlushVirtualAddressSpace, ...List and both Ex. More than was asked for is flushed: all that the processors have. */
static enum hv_status flush(struct call *c, bool ex, bool list)
{
	struct hv_vcpu *hv = c->vcpu->hyperv;
	u64 count = CONTROL_COUNT(c->control), head[4] = { 0 };
	enum hv_status status;

	if (list ? !count || CONTROL_START(c->control) : count || CONTROL_START(c->control))
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (!ex && CONTROL_VAR(c->control))
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	/* Address space, flags, and which processors */
	status = read_input(c, 0, head, 3);
	if (!status && ex && !(head[1] & FLUSH_ALL_PROCESSORS))
		status = read_input(c, 3, &head[3], 1);
	if (status)
		return status;
	if (ex)
		host_event_hv_flush_tlb_ex(head[3], head[2], head[0], head[1]);
	else
		host_event_hv_flush_tlb(head[2], head[0], head[1]);
	if (head[1] & FLUSH_ALL_PROCESSORS)
		target_all(c);
	else if (ex)
		status = target_set(c, 4, &head[2]);
	else
		target_mask(c, head[2]);
	if (status || !has_targets(c))
		return status;
	__atomic_fetch_add(&c->vcpu->vm->stats->remote_tlb_flush, 1, __ATOMIC_RELAXED);
	vm_request_some(c->vcpu->vm, REQ_TLB_GUEST, c->targets);
	/* The guest goes on when all of them have left their code */
	for (unsigned i = 0; i < ARRAY_SIZE(c->targets); i++)
		hv->left[i] |= c->targets[i];
	vcpu_set_request(c->vcpu, REQ_HYPERV_FLUSH);
	return HV_STATUS_SUCCESS;
}

void hyperv_wait_flushed(struct vcpu *vcpu)
{
	vm_wait_left(vcpu->vm, vcpu->hyperv->left);
	memset(vcpu->hyperv->left, 0, sizeof(vcpu->hyperv->left));
}

static enum hv_status send_ipi(struct call *c, bool ex)
{
	struct lapic_irq irq = { .delivery_mode = APIC_DM_FIXED, .assert = true };
	enum hv_status status;
	struct vcpu *vcpu;
	unsigned i;
	u64 head[3];

	if (CONTROL_COUNT(c->control) || CONTROL_START(c->control) || (!ex && CONTROL_VAR(c->control)))
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	/* Vector and target VTL, which is 0; then which processors */
	status = read_input(c, 0, head, ex ? 3 : 2);
	if (status)
		return status;
	if (ex) {
		host_event_hv_send_ipi_ex(head[0], head[1], head[2]);
		status = target_set(c, 3, &head[1]);
	} else {
		host_event_hv_send_ipi(head[0], head[1]);
		target_mask(c, head[1]);
	}
	if (status || (ex && !has_targets(c)))
		return status;
	if (head[0] >> 32 || head[0] < 16 || head[0] > 255)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	irq.vector = head[0];
	vm_for_each_vcpu(i, vcpu, c->vcpu->vm) {
		if ((c->targets[vcpu->idx / 64] & BIT64(vcpu->idx % 64)) && vcpu->lapic)
			lapic_accept(vcpu->lapic, &irq);
	}
	return HV_STATUS_SUCCESS;
}

/* Messages are the client's, who needs a SynIC to answer with. */
static enum hv_status post_message(struct call *c)
{
	if (CONTROL_COUNT(c->control) || CONTROL_START(c->control) || !c->vcpu->hyperv->active)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	return TO_CLIENT;
}

static enum hv_status signal_event(struct call *c)
{
	enum hv_status status;
	u64 param;

	if (CONTROL_COUNT(c->control) || CONTROL_START(c->control))
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	status = read_input(c, 0, &param, 1);
	if (status)
		return status;
	if (EVENT_RESERVED(param))
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (!EVENT_FLAG(param)) {
		if ((u32)param & ~KVM_HYPERV_CONN_ID_MASK)
			return HV_STATUS_INVALID_CONNECTION_ID;
		if (hyperv_signal_event(c->vcpu->vm, (u32)param))
			return HV_STATUS_SUCCESS;
	}
	return post_message(c);
}

static enum hv_status debug_call(struct call *c)
{
	u64 options = __atomic_load_n(&c->vcpu->vm->hyperv->syndbg_options, __ATOMIC_RELAXED);

	if (c->code != HVCALL_RESET_DEBUG_SESSION && c->fast)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	return options & SYNDBG_USE_HCALLS ? TO_CLIENT : HV_STATUS_OPERATION_DENIED;
}

static enum hv_status long_spin(struct call *c)
{
	if (CONTROL_COUNT(c->control) || CONTROL_START(c->control))
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	host_cond_resched();
	return HV_STATUS_SUCCESS;
}

/* What CPUID must show for @code when the client wants it so: TLFS 2.5 and the recommendations. */
static bool guest_may(const struct hv_vcpu *hv, u16 code)
{
	switch (code) {
	case HVCALL_NOTIFY_LONG_SPIN_WAIT: return !hv->enforce || (hv->spins && hv->spins != 0xffffffff);
	case HVCALL_POST_MESSAGE: return hyperv_allows(hv, hv->features_b, HV_B_POST_MESSAGES);
	case HVCALL_SIGNAL_EVENT: return hyperv_allows(hv, hv->features_b, HV_B_SIGNAL_EVENTS);
	case HVCALL_POST_DEBUG_DATA:
	case HVCALL_RETRIEVE_DEBUG_DATA:
	case HVCALL_RESET_DEBUG_SESSION:
		return !(hv->syndbg & HV_SYNDBG_ALLOWED) || hyperv_allows(hv, hv->features_b, HV_B_DEBUGGING);
	case HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX:
	case HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX:
		if (!hyperv_allows(hv, hv->recommended, HV_R_EX_MASKS))
			return false;
		/* fallthrough */
	case HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE:
	case HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST: return hyperv_allows(hv, hv->recommended, HV_R_REMOTE_TLB_FLUSH);
	case HVCALL_SEND_IPI_EX:
		if (!hyperv_allows(hv, hv->recommended, HV_R_EX_MASKS))
			return false;
		/* fallthrough */
	case HVCALL_SEND_IPI: return hyperv_allows(hv, hv->recommended, HV_R_CLUSTER_IPI);
	default: return true;
	}
}

static enum hv_status run(struct call *c)
{
	const struct hv_vcpu *hv = c->vcpu->hyperv;

	if (c->control & CONTROL_RESERVED)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (!guest_may(hv, c->code))
		return HV_STATUS_ACCESS_DENIED;
	switch (c->code) {
	case HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE: return flush(c, false, false);
	case HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST: return flush(c, false, true);
	case HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX: return flush(c, true, false);
	case HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX: return flush(c, true, true);
	case HVCALL_SEND_IPI: return send_ipi(c, false);
	case HVCALL_SEND_IPI_EX: return send_ipi(c, true);
	case HVCALL_NOTIFY_LONG_SPIN_WAIT: return long_spin(c);
	case HVCALL_POST_MESSAGE: return post_message(c);
	case HVCALL_SIGNAL_EVENT: return signal_event(c);
	case HVCALL_POST_DEBUG_DATA:
	case HVCALL_RETRIEVE_DEBUG_DATA:
	case HVCALL_RESET_DEBUG_SESSION:
		return hv->syndbg & HV_SYNDBG_ALLOWED ? debug_call(c) : HV_STATUS_INVALID_HYPERCALL_CODE;
	default: return HV_STATUS_INVALID_HYPERCALL_CODE;
	}
}

/* ---- in and out ----------------------------------------------------------------------------------------------- */

static u64 pair(const struct x86_state *s, unsigned high, unsigned low)
{
	return s->gpr[high] << 32 | (u32)s->gpr[low];
}

static void set_result(struct vcpu *vcpu, u64 result)
{
	struct x86_state *s = &vcpu->x86;

	host_event_hv_hypercall_done(result);
	if (s->mode == X86_MODE_LONG) {
		s->gpr[REG_AX] = result;
	} else {
		s->gpr[REG_DX] = result >> 32;
		s->gpr[REG_AX] = (u32)result;
	}
	vcpu->regs_dirty |= REGS_GPR;
}

enum x86_result hyperv_hypercall(struct vcpu *vcpu)
{
	const struct x86_state *s = &vcpu->x86;
	struct kvm_run *client = vcpu->run;
	struct call c = { .vcpu = vcpu };
	enum hv_status status;

	/* TLFS 3.5: from the most privileged level of protected mode only */
	if (s->cpl || !(s->cr0 & CR0_PE))
		return X86_FAULT;
	if (s->mode == X86_MODE_LONG) {
		c.control = s->gpr[REG_CX];
		c.input = s->gpr[REG_DX];
		c.output = s->gpr[REG_R8];
	} else {
		c.control = pair(s, REG_DX, REG_AX);
		c.input = pair(s, REG_BX, REG_CX);
		c.output = pair(s, REG_DI, REG_SI);
	}
	c.code = CONTROL_CODE(c.control);
	c.fast = c.control & CONTROL_FAST;
	host_event_hv_hypercall(c.code, c.fast, CONTROL_VAR(c.control), CONTROL_COUNT(c.control), CONTROL_START(c.control), c.input,
				c.output);
	status = run(&c);
	if (status == UNDEFINED)
		return X86_FAULT;
	if (status == TO_CLIENT) {
		client->exit_reason = KVM_EXIT_HYPERV;
		memset(&client->hyperv, 0, sizeof(client->hyperv));
		client->hyperv.type = KVM_EXIT_HYPERV_HCALL;
		client->hyperv.u.hcall.input = c.control;
		client->hyperv.u.hcall.params[0] = c.input;
		client->hyperv.u.hcall.params[1] = c.output;
		vcpu->hyperv->answer = HV_ANSWER_HYPERCALL;
		vcpu->io.exit = EXIT_USER;
		return X86_EXIT;
	}
	set_result(vcpu, status | (status == HV_STATUS_SUCCESS ? RESULT_COUNT(CONTROL_COUNT(c.control)) : 0));
	return X86_CONTINUE;
}

void hyperv_complete(struct vcpu *vcpu)
{
	struct hv_vm *vm = vcpu->vm->hyperv;
	enum hv_answer answer = vcpu->hyperv->answer;

	vcpu->hyperv->answer = HV_ANSWER_NONE;
	if (answer == HV_ANSWER_HYPERCALL) {
		set_result(vcpu, vcpu->run->hyperv.u.hcall.result);
	} else {
		host_mutex_lock(&vm->lock);
		__atomic_store_n(&vm->syndbg_status, vcpu->run->hyperv.u.syndbg.status, __ATOMIC_RELAXED);
		host_mutex_unlock(&vm->lock);
	}
}
