/*
 * The local APIC of each vCPU (SDM 3A chapter 10): its registers, priorities, IPIs, and the messages it takes from others.
 * The ways to its registers are in lapic_access.c, the timer in lapic_timer.c, finding destinations in irq.c, what
 * processors do of it by themselves in lapic_virtual.c.
 *
 * chips.h says which fields other threads touch.
 */
#include "core/x86/cpuid.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/chips.h"

#define LAPIC_VERSION	 (0x14 | (LAPIC_NR_LVT - 1) << 16)
#define LAPIC_NR_LVT	 6

static void changed(struct lapic *l)
{
	const struct engine_ops *engine = l->vcpu->vm->engine;

	if (unlikely(engine->lapic_changed))
		engine->lapic_changed(l->vcpu);
}

void lapic_error(struct lapic *l, u32 bit)
{
	if (!(__atomic_fetch_or(&l->esr_latch, bit, __ATOMIC_RELAXED) & bit))
		lapic_deliver_lvt(l->vcpu, APIC_LVT_ERROR);
}

/* ---- 256-bit registers --------------------------------------------------------------------------------------- */

/* Of eight words, @stride apart in units of a word. */
static int highest(const u32 *words, unsigned stride)
{
	int word;

	for (word = 7; word >= 0; word--) {
		u32 bits = __atomic_load_n(&words[word * stride], __ATOMIC_ACQUIRE);

		if (bits)
			return word * 32 + 31 - __builtin_clz(bits);
	}
	return -1;
}

int lapic_highest(const struct lapic *l, unsigned reg)
{
	return highest(&l->regs[reg / 4], 4);
}

int lapic_highest_request(const struct lapic *l)
{
	int irr = lapic_highest(l, APIC_IRR), arrived;

	if (likely(!__atomic_load_n(&l->arrived_words, __ATOMIC_ACQUIRE)))
		return irr;
	arrived = highest(l->arrived, 1);
	return MAX(irr, arrived);
}

/* SDM 3A 10.8.3.1: the processor priority is the higher class of TPR and the highest vector in service. */
u32 lapic_ppr(const struct lapic *l)
{
	int isr = lapic_highest(l, APIC_ISR);
	u32 tpr = lapic_reg(l, APIC_TPR) & 0xff;

	if (isr < 0 || (tpr >> 4) >= (unsigned)isr >> 4)
		return tpr;
	return isr & 0xf0;
}

/* ---- messages that arrive (any thread) ------------------------------------------------------------------------ */

u32 lapic_id(const struct vcpu *vcpu)
{
	return lapic_is_x2apic(vcpu->lapic) ? lapic_reg(vcpu->lapic, APIC_ID) : lapic_reg(vcpu->lapic, APIC_ID) >> 24;
}

/* SDM 3A 10.12.10.2: the logical ID in x2APIC mode is made of the APIC ID. */
static u32 x2apic_ldr(u32 id)
{
	return (id >> 4) << 16 | 1U << (id & 0xf);
}

static bool matches_physical(const struct lapic *l, u32 dest)
{
	if (lapic_is_x2apic(l))
		return dest == l->vcpu->id;
	return dest == lapic_reg(l, APIC_ID) >> 24;
}

static bool matches_logical(const struct lapic *l, u32 dest)
{
	u32 ldr = lapic_reg(l, APIC_LDR);

	if (lapic_is_x2apic(l))
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	ldr >>= 24;
	switch (lapic_reg(l, APIC_DFR) >> 28) {
	case 0xf: return ldr & dest & 0xff; /* flat, SDM 3A 10.6.2.2 */
	case 0x0: return (ldr >> 4) == ((dest >> 4) & 0xf) && (ldr & dest & 0xf);
	default: return false;
	}
}

bool lapic_matches(const struct lapic *l, struct vcpu *src, const struct lapic_irq *irq)
{
	bool x2 = src && src->lapic && lapic_is_x2apic(src->lapic);
	u32 broadcast = x2 ? 0xffffffff : 0xff;

	if (!lapic_hw_enabled(l))
		return false;
	/* A device's 8-bit FFh means everybody, unless the client says that its x2APIC IDs go that far. */
	if (irq->dest == broadcast && (src || !l->vcpu->vm->x2apic_no_broadcast_quirk || !lapic_is_x2apic(l)))
		return true;
	if (irq->dest == 0xffffffff && lapic_is_x2apic(l))
		return true;
	return irq->logical ? matches_logical(l, irq->dest) : matches_physical(l, irq->dest);
}

/* Where the IRR is anybody's to write. The vCPU, or its processor, looks there at the latest when it enters guest code. */
static int arrive_in_page(struct lapic *l, unsigned word, u32 bit, bool level)
{
	const struct engine_ops *engine = l->vcpu->vm->engine;
	u32 *tmr = &l->regs[APIC_TMR / 4 + word * 4];

	if (level)
		__atomic_fetch_or(tmr, bit, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(tmr, ~bit, __ATOMIC_SEQ_CST);
	if (lapic_set_requests(l, word, bit) & bit)
		return 0;
	if (!engine->interrupt_arrived(l->vcpu))
		vcpu_request_kick(l->vcpu, REQ_EVENT);
	return 1;
}

/* Leaves @vector for lapic_collect(). As lapic_accept(). */
static int arrive(struct lapic *l, u8 vector, bool level)
{
	unsigned word = vector / 32;
	u32 bit = 1U << (vector % 32);
	bool was_requested;

	if (unlikely(l->vcpu->vm->engine->interrupt_arrived))
		return arrive_in_page(l, word, bit, level);
	if (level)
		__atomic_fetch_or(&l->arrived_level[word], bit, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(&l->arrived_level[word], ~bit, __ATOMIC_SEQ_CST);
	if (__atomic_fetch_or(&l->arrived[word], bit, __ATOMIC_SEQ_CST) & bit)
		return 0;
	__atomic_fetch_or(&l->arrived_words, 1U << word, __ATOMIC_SEQ_CST);
	was_requested = lapic_test_vector(l, APIC_IRR, vector);
	vcpu_request_kick(l->vcpu, REQ_EVENT);
	return !was_requested;
}

void lapic_collect(struct lapic *l)
{
	u32 words;

	if (likely(!__atomic_load_n(&l->arrived_words, __ATOMIC_ACQUIRE)))
		return;
	words = __atomic_exchange_n(&l->arrived_words, 0, __ATOMIC_SEQ_CST);
	for (; words; words &= words - 1) {
		unsigned word = __builtin_ctz(words), tmr = APIC_TMR + word * 16;
		u32 bits = __atomic_exchange_n(&l->arrived[word], 0, __ATOMIC_SEQ_CST);
		u32 level = __atomic_load_n(&l->arrived_level[word], __ATOMIC_SEQ_CST);

		lapic_set_reg(l, tmr, (lapic_reg(l, tmr) & ~bits) | (level & bits));
		lapic_set_requests(l, word, bits);
	}
}

/* The registers are replaced, what was on its way with them. */
static void forget_arrived(struct lapic *l)
{
	__atomic_store_n(&l->arrived_words, 0, __ATOMIC_SEQ_CST);
	for (unsigned word = 0; word < 8; word++)
		__atomic_store_n(&l->arrived[word], 0, __ATOMIC_SEQ_CST);
}

int lapic_accept(struct lapic *l, const struct lapic_irq *irq)
{
	struct vcpu *vcpu = l->vcpu;

	host_event_apic_accept_irq(vcpu->id, irq->delivery_mode, irq->level, irq->vector);
	switch (irq->delivery_mode) {
	case APIC_DM_FIXED:
	case APIC_DM_LOWEST:
		if (!lapic_sw_enabled(l))
			return -1;
		if (irq->vector < 16) {
			lapic_error(l, APIC_ESR_RECV_ILLEGAL);
			return -1;
		}
		return arrive(l, irq->vector, irq->level);
	case APIC_DM_SMI:
		vcpu_request_kick(vcpu, REQ_SMI);
		return 1;
	case APIC_DM_NMI:
		vcpu_request_kick(vcpu, REQ_NMI);
		return 1;
	case APIC_DM_INIT:
		/* Level de-assert only synchronizes arbitration IDs of processors long gone, SDM 3A 10.6.1. */
		if (irq->level && !irq->assert)
			return 0;
		__atomic_store_n(&l->init_sipi, LAPIC_INIT, __ATOMIC_SEQ_CST); /* an older SIPI is void */
		vcpu_request_kick(vcpu, REQ_APIC);
		return 1;
	case APIC_DM_SIPI:
		__atomic_store_n(&l->sipi_vector, irq->vector, __ATOMIC_RELAXED);
		__atomic_fetch_or(&l->init_sipi, LAPIC_SIPI, __ATOMIC_SEQ_CST);
		vcpu_request_kick(vcpu, REQ_APIC);
		return 1;
	case APIC_DM_EXTINT:
		vcpu_request_kick(vcpu, REQ_EVENT);
		return 1;
	default: return -1;
	}
}

/* Bits that an LVT entry can hold; the timer's has the mode, LINT0 and LINT1 polarity and trigger. */
static u32 lvt_mask(unsigned offset)
{
	switch (offset) {
	case APIC_LVT_TIMER: return 0x700ff;
	case APIC_LVT_LINT0:
	case APIC_LVT_LINT1: return 0x1a7ff;
	case APIC_LVT_ERROR: return 0x100ff;
	default: return 0x107ff;
	}
}

void lapic_deliver_lvt(struct vcpu *vcpu, unsigned lvt)
{
	struct lapic *l = vcpu->lapic;
	u32 value = lapic_reg(l, lvt) & lvt_mask(lvt); /* as the guest wrote it, perhaps, with what no entry has */
	struct lapic_irq irq = {
		.vector = value,
		.delivery_mode = APIC_DELIVERY_MODE(value),
		.level = (lvt == APIC_LVT_LINT0 || lvt == APIC_LVT_LINT1) && (value & BIT64(15)),
		.assert = true,
	};

	if (!(value & APIC_LVT_MASKED) && lapic_hw_enabled(l))
		lapic_accept(l, &irq);
}

bool lapic_accepts_pic(const struct lapic *l)
{
	u32 lint0 = lapic_reg(l, APIC_LVT_LINT0);

	if (!lapic_hw_enabled(l))
		return true;
	return !(lint0 & APIC_LVT_MASKED) && APIC_DELIVERY_MODE(lint0) == APIC_DM_EXTINT;
}

/* ---- the vCPU's own side ------------------------------------------------------------------------------------- */

bool lapic_has_init_or_sipi(struct vcpu *vcpu)
{
	return vcpu->lapic && __atomic_load_n(&vcpu->lapic->init_sipi, __ATOMIC_ACQUIRE);
}

bool lapic_accept_events(struct vcpu *vcpu)
{
	struct lapic *l = vcpu->lapic;
	bool changed = false;
	u32 bits;

	/* INIT is latched while in SMM, SDM 3C 31.3.1; SIPI then is lost. */
	if (!l || vcpu->x86.smm)
		return false;
	bits = __atomic_load_n(&l->init_sipi, __ATOMIC_ACQUIRE);
	if (bits & LAPIC_INIT) {
		__atomic_fetch_and(&l->init_sipi, ~LAPIC_INIT, __ATOMIC_SEQ_CST);
		x86_vcpu_reset(vcpu, true);
		vcpu->mp_state = vcpu->apic_base & APIC_BASE_BSP ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
		changed = true;
	}
	if (bits & LAPIC_SIPI) {
		__atomic_fetch_and(&l->init_sipi, ~LAPIC_SIPI, __ATOMIC_SEQ_CST);
		if (vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED) {
			u8 vector = __atomic_load_n(&l->sipi_vector, __ATOMIC_RELAXED);
			struct x86_segment *cs = &vcpu->x86.seg[SEG_CS];

			cs->sel = vector << 8; /* SDM 3A 8.4.3 */
			cs->base = (u64)vector << 12;
			vcpu->x86.rip = 0;
			vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
			vcpu->vm->engine->state_changed(vcpu, REGS_SEG | REGS_RIP);
			changed = true;
		}
	}
	return changed;
}

static void lapic_send_eoi(struct vcpu *vcpu, u8 vector)
{
	struct vm *vm = vcpu->vm;

	if (!lapic_test_vector(vcpu->lapic, APIC_TMR, vector)) {
		if (ioapic_edge_vectors(vm->ioapic, vector / 64) & BIT64(vector % 64))
			ioapic_eoi(vm->ioapic, vector);
		return;
	}
	if (vm->irqchip == IRQCHIP_SPLIT) {
		vcpu->pending_ioapic_eoi = vector;
		vcpu_set_request(vcpu, REQ_IOAPIC_EOI);
	} else if (vm->ioapic) {
		ioapic_eoi(vm->ioapic, vector);
	}
}

void lapic_eoi_done(struct vcpu *vcpu, u8 vector)
{
	host_event_eoi(vcpu->id, vector);
	lapic_send_eoi(vcpu, vector);
	if (synic_has_vector(vcpu, vector))
		synic_eoi(vcpu, vector);
}

void lapic_eoi(struct lapic *l)
{
	int vector = lapic_highest(l, APIC_ISR);

	if (vector < 0)
		return;
	lapic_clear_vector(l, APIC_ISR, vector);
	lapic_eoi_done(l->vcpu, vector);
	if (lapic_highest(l, APIC_IRR) >= 0)
		vcpu_set_request(l->vcpu, REQ_EVENT);
}

struct lapic_irq lapic_ipi(u32 low, u32 dest)
{
	return (struct lapic_irq){
		.dest = dest,
		.logical = low & BIT64(11),
		.vector = low,
		.delivery_mode = APIC_DELIVERY_MODE(low),
		.level = low & BIT64(15),
		.assert = low & BIT64(14),
		.shorthand = (low >> 18) & 3,
	};
}

void lapic_send_ipi(struct lapic *l, u32 low, u32 dest)
{
	struct lapic_irq irq = lapic_ipi(low, dest);

	host_event_apic_ipi(low, dest);
	if (irq.vector < 16 && (irq.delivery_mode == APIC_DM_FIXED || irq.delivery_mode == APIC_DM_LOWEST)) {
		lapic_error(l, APIC_ESR_SEND_ILLEGAL);
		return;
	}
	irq_deliver(l->vcpu->vm, l->vcpu, &irq);
}

void *lapic_page(struct vcpu *vcpu)
{
	return vcpu->lapic->regs;
}

enum lapic_place lapic_place(struct vcpu *vcpu)
{
	if (!vcpu->lapic || !lapic_hw_enabled(vcpu->lapic))
		return LAPIC_ELSEWHERE;
	if (lapic_is_x2apic(vcpu->lapic))
		return LAPIC_AT_MSRS;
	return (vcpu->apic_base & APIC_BASE_ADDR) == LAPIC_USUAL_ADDRESS ? LAPIC_AT_USUAL_ADDRESS : LAPIC_ELSEWHERE;
}

unsigned lapic_tpr_threshold(struct vcpu *vcpu)
{
	int irr = lapic_highest(vcpu->lapic, APIC_IRR);
	unsigned class = irr < 0 ? 0 : (unsigned)irr >> 4;

	return class <= lapic_get_cr8(vcpu) ? class : 0;
}

u64 lapic_get_cr8(struct vcpu *vcpu)
{
	return (lapic_reg(vcpu->lapic, APIC_TPR) >> 4) & 0xf;
}

static void lapic_set_tpr(struct lapic *l, u32 value)
{
	lapic_set_reg(l, APIC_TPR, value & 0xff);
	vcpu_set_request(l->vcpu, REQ_EVENT);
}

void lapic_set_cr8(struct vcpu *vcpu, u64 value)
{
	lapic_set_tpr(vcpu->lapic, (value & 0xf) << 4);
}

u32 lapic_read_reg(struct lapic *l, unsigned offset)
{
	lapic_collect(l);
	switch (offset) {
	case APIC_PPR: return lapic_ppr(l);
	case APIC_TMCCT: return lapic_timer_current(l);
	case APIC_SELF_IPI: return 0; /* a processor may leave there what was written */
	default: return lapic_reg(l, offset);
	}
}

static void lapic_write_lvt(struct lapic *l, unsigned offset, u32 value)
{
	value &= lvt_mask(offset);
	if (!lapic_sw_enabled(l))
		value |= APIC_LVT_MASKED; /* SDM 3A 10.4.7.2 */
	if (offset == APIC_LVT_TIMER && APIC_TIMER_MODE(value) == APIC_TIMER_DEADLINE &&
	    !vcpu_has_feature(l->vcpu, X86_FEATURE_TSC_DEADLINE))
		value &= ~(3U << 17);
	lapic_set_reg(l, offset, value);
	if (offset == APIC_LVT_TIMER)
		lapic_timer_set_mode(l);
	if (offset == APIC_LVT_LINT0 && pic_output(l->vcpu->vm->pic))
		vcpu_set_request(l->vcpu, REQ_EVENT);
}

/* A write to the spurious-interrupt register; clearing its enable bit masks all LVT entries. */
static void lapic_write_svr(struct lapic *l, u32 value)
{
	static const u16 lvts[LAPIC_NR_LVT] = { APIC_LVT_TIMER, APIC_LVT_THERMAL, APIC_LVT_PERF,
						APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR };
	unsigned i;

	lapic_set_reg(l, APIC_SVR, value & 0x3ff);
	changed(l);
	if (!(value & APIC_SVR_ENABLED))
		for (i = 0; i < LAPIC_NR_LVT; i++)
			lapic_set_reg(l, lvts[i], lapic_reg(l, lvts[i]) | APIC_LVT_MASKED);
	vcpu_set_request(l->vcpu, REQ_EVENT);
}

void lapic_write_reg(struct lapic *l, unsigned offset, u32 value)
{
	bool x2apic = lapic_is_x2apic(l);

	switch (offset) {
	case APIC_ID:
		if (!x2apic)
			lapic_set_reg(l, APIC_ID, value & 0xff000000);
		changed(l);
		break;
	case APIC_TPR: lapic_set_tpr(l, value); break;
	case APIC_EOI: lapic_eoi(l); break;
	case APIC_LDR:
		if (!x2apic)
			lapic_set_reg(l, APIC_LDR, value & 0xff000000);
		changed(l);
		break;
	case APIC_DFR:
		if (!x2apic)
			lapic_set_reg(l, APIC_DFR, value | 0x0fffffff);
		changed(l);
		break;
	case APIC_SVR: lapic_write_svr(l, value); break;
	case APIC_ESR: /* SDM 3A 10.5.3: a write makes the errors since the last one readable */
		lapic_set_reg(l, APIC_ESR, __atomic_exchange_n(&l->esr_latch, 0, __ATOMIC_RELAXED));
		break;
	case APIC_ICR:
		value &= ~APIC_ICR_BUSY;
		lapic_set_reg(l, APIC_ICR, value);
		lapic_send_ipi(l, value, lapic_reg(l, APIC_ICR2) >> 24);
		break;
	case APIC_ICR2: lapic_set_reg(l, APIC_ICR2, value & 0xff000000); break;
	case APIC_LVT_TIMER:
	case APIC_LVT_THERMAL:
	case APIC_LVT_PERF:
	case APIC_LVT_LINT0:
	case APIC_LVT_LINT1:
	case APIC_LVT_ERROR: lapic_write_lvt(l, offset, value); break;
	case APIC_TMICT:
		/* SDM 3A 10.5.4.1: ignored where a deadline is what counts, and the page may have it already */
		if (l->timer_mode == APIC_TIMER_DEADLINE) {
			lapic_set_reg(l, APIC_TMICT, 0);
			break;
		}
		lapic_set_reg(l, APIC_TMICT, value);
		lapic_timer_start(l, value);
		break;
	case APIC_TDCR:
		lapic_set_reg(l, APIC_TDCR, value & 0xb);
		lapic_timer_set_divisor(l);
		break;
	case APIC_SELF_IPI:
		if (x2apic)
			lapic_send_ipi(l, (1 << 18) | (value & 0xff), 0);
		break;
	case APIC_RRD: /* read-only, but a processor may have left there what was written */
		lapic_set_reg(l, APIC_RRD, 0);
		lapic_error(l, APIC_ESR_REGISTER);
		break;
	default:
		lapic_error(l, APIC_ESR_REGISTER);
		break;
	}
}

/* ---- IA32_APIC_BASE, reset, state ---------------------------------------------------------------------------- */

enum x86_result lapic_set_base(struct vcpu *vcpu, u64 value, bool from_client)
{
	struct lapic *l = vcpu->lapic;
	u64 old = vcpu->apic_base, mode = APIC_BASE_EXTD | APIC_BASE_ENABLE;
	u64 reserved = ~(MASK64(vcpu->maxphyaddr ? vcpu->maxphyaddr - 1 : 35, 12) | mode | APIC_BASE_BSP);

	if (!vcpu_has_feature(vcpu, X86_FEATURE_X2APIC) && !from_client)
		reserved |= APIC_BASE_EXTD;
	if ((value & reserved) || (value & mode) == APIC_BASE_EXTD)
		return X86_FAULT;
	/* SDM 3A figure 10-27: x2APIC is entered from xAPIC only and left to disabled only. */
	if (!from_client) {
		if ((old & mode) == mode && (value & mode) == APIC_BASE_ENABLE)
			return X86_FAULT;
		if (!(old & mode) && (value & mode) == mode)
			return X86_FAULT;
	}
	__atomic_store_n(&vcpu->apic_base, value, __ATOMIC_RELAXED);
	if (!l)
		return X86_CONTINUE;
	if ((old ^ value) & APIC_BASE_ENABLE) {
		if (value & APIC_BASE_ENABLE)
			lapic_set_reg(l, APIC_ID, vcpu->id << 24);
		else
			lapic_timer_stop(l);
	}
	if ((value & mode) == mode && (old & mode) != mode) {
		lapic_set_reg(l, APIC_ID, vcpu->id);
		lapic_set_reg(l, APIC_LDR, x2apic_ldr(vcpu->id));
	}
	changed(l);
	vcpu_set_request(vcpu, REQ_EVENT);
	return X86_CONTINUE;
}

void lapic_reset(struct vcpu *vcpu, bool init)
{
	struct lapic *l = vcpu->lapic;
	unsigned offset;

	if (!l)
		return;
	lapic_timer_stop(l);
	if (!init) {
		u64 bsp = vcpu->id == vcpu->vm->boot_vcpu_id ? APIC_BASE_BSP : 0;

		__atomic_store_n(&vcpu->apic_base, APIC_DEFAULT_BASE | APIC_BASE_ENABLE | bsp, __ATOMIC_RELAXED);
		__atomic_store_n(&l->init_sipi, 0, __ATOMIC_RELAXED);
		lapic_set_reg(l, APIC_ID, vcpu->id << 24);
	}
	/* SDM 3A 10.4.7.1 and 10.4.7.3: INIT keeps the APIC ID and the mode. */
	lapic_set_reg(l, APIC_VERSION, LAPIC_VERSION);
	forget_arrived(l);
	for (offset = APIC_TPR; offset < 0x400; offset += 0x10)
		lapic_set_reg(l, offset, 0);
	lapic_set_reg(l, APIC_DFR, 0xffffffff);
	lapic_set_reg(l, APIC_SVR, 0xff);
	if (lapic_is_x2apic(l))
		lapic_set_reg(l, APIC_LDR, x2apic_ldr(vcpu->id));
	for (offset = APIC_LVT_TIMER; offset <= APIC_LVT_ERROR; offset += 0x10)
		lapic_set_reg(l, offset, APIC_LVT_MASKED);
	lapic_timer_replaced(l);
	/* As firmware leaves it on a PC: the PIC reaches the boot processor through LINT0. KVM clients rely on it. */
	if (!init && vcpu->id == vcpu->vm->boot_vcpu_id && !(vcpu->vm->disabled_quirks & KVM_X86_QUIRK_LINT0_REENABLED))
		lapic_set_reg(l, APIC_LVT_LINT0, APIC_DM_EXTINT << 8);
	__atomic_store_n(&l->esr_latch, 0, __ATOMIC_RELAXED);
	changed(l);
}

void lapic_get_state(struct vcpu *vcpu, struct kvm_lapic_state *state)
{
	struct lapic *l = vcpu->lapic;
	unsigned offset;
	u32 value;

	lapic_timer_ended(vcpu);
	memset(state, 0, sizeof(*state));
	for (offset = 0; offset < sizeof(state->regs); offset += 0x10) {
		value = lapic_read_reg(l, offset);
		/* Without the x2APIC API the ID keeps its old place whatever the mode. */
		if (offset == APIC_ID && lapic_is_x2apic(l) && !vcpu->vm->x2apic_api)
			value <<= 24;
		memcpy(&state->regs[offset], &value, 4);
	}
}

int lapic_set_state(struct vcpu *vcpu, const struct kvm_lapic_state *state)
{
	struct lapic *l = vcpu->lapic;
	u64 deadline = lapic_get_tsc_deadline(vcpu);
	unsigned offset;
	u32 value;

	if (lapic_is_x2apic(l)) {
		memcpy(&value, &state->regs[APIC_ID], 4);
		if (value != (vcpu->vm->x2apic_api ? vcpu->id : vcpu->id << 24))
			return -EINVAL;
	}
	lapic_timer_stop(l);
	forget_arrived(l);
	for (offset = 0; offset < sizeof(state->regs); offset += 0x10) {
		memcpy(&value, &state->regs[offset], 4);
		if (offset == APIC_ID && lapic_is_x2apic(l))
			value = vcpu->id;
		if (offset == APIC_LDR && lapic_is_x2apic(l))
			value = x2apic_ldr(vcpu->id);
		if (offset == APIC_VERSION)
			value = LAPIC_VERSION;
		if (offset >= APIC_LVT_TIMER && offset <= APIC_LVT_ERROR)
			value &= lvt_mask(offset);
		/* Vectors 0 to 15 are never in service; in the IRR they wait for ever, below every priority */
		if (offset == APIC_ISR)
			value &= ~0xffffU;
		lapic_set_reg(l, offset, value);
	}
	lapic_timer_replaced(l);
	changed(l);
	/* The deadline is no part of this state: a client may have set it before. */
	if (l->timer_mode == APIC_TIMER_DEADLINE)
		lapic_set_tsc_deadline(vcpu, deadline);
	else
		lapic_timer_resume(l);
	vcpu_set_request(vcpu, REQ_EVENT);
	return 0;
}

int lapic_create(struct vcpu *vcpu)
{
	struct lapic *l = host_zalloc(sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->regs = host_zalloc_pages(HOST_PAGE_SIZE);
	if (!l->regs) {
		host_free(l);
		return -ENOMEM;
	}
	l->vcpu = vcpu;
	vcpu->pending_external_vector = -1;
	lapic_timer_init(l);
	vcpu->lapic = l;
	lapic_reset(vcpu, false);
	return 0;
}

void lapic_destroy(struct vcpu *vcpu)
{
	struct lapic *l = vcpu->lapic;

	if (!l)
		return;
	lapic_timer_destroy(l);
	vcpu->lapic = NULL;
	host_free_pages(l->regs, HOST_PAGE_SIZE);
	host_free(l);
}
