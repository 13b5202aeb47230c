/*
 * How a guest comes to the registers of its local APIC (lapic.c): the page in memory, the MSRs of x2APIC mode, and Hyper-V's.
 */
#include "core/x86/irqchip/chips.h"

/* Both halves at once: the destination is 32 bits wide in x2APIC mode, else the upper 8. */
static void lapic_write_icr(struct lapic *l, u64 value)
{
	value &= ~APIC_ICR_BUSY;
	lapic_set_reg(l, APIC_ICR2, value >> 32);
	lapic_set_reg(l, APIC_ICR, value);
	lapic_send_ipi(l, value, lapic_is_x2apic(l) ? value >> 32 : value >> 56);
}

/* ---- x2APIC MSRs, SDM 3A table 10-6 -------------------------------------------------------------------------- */

bool lapic_x2apic_readable(unsigned offset)
{
	switch (offset) {
	case APIC_ID: case APIC_VERSION: case APIC_TPR: case APIC_PPR: case APIC_LDR: case APIC_SVR: case APIC_ESR:
	case APIC_ICR: case APIC_LVT_TIMER: case APIC_LVT_THERMAL: case APIC_LVT_PERF: case APIC_LVT_LINT0:
	case APIC_LVT_LINT1: case APIC_LVT_ERROR: case APIC_TMICT: case APIC_TMCCT: case APIC_TDCR:
		return true;
	default:
		return offset >= APIC_ISR && offset < APIC_ESR;
	}
}

enum x86_result lapic_x2apic_read(struct vcpu *vcpu, u32 msr, u64 *value)
{
	struct lapic *l = vcpu->lapic;
	unsigned offset = (msr - X2APIC_MSR) << 4;

	if (!l || !lapic_is_x2apic(l) || !lapic_x2apic_readable(offset))
		return X86_FAULT;
	*value = lapic_read_reg(l, offset);
	if (offset == APIC_ICR)
		*value |= (u64)lapic_reg(l, APIC_ICR2) << 32;
	host_event_apic(false, offset, *value);
	return X86_CONTINUE;
}

/* Which bits of a writable register may be set; 0 for those that cannot be written. */
static u64 x2apic_writable(unsigned offset)
{
	switch (offset) {
	case APIC_TPR: return 0xff;
	case APIC_SVR: return 0x11ff;
	case APIC_ICR: return 0xffffffff000ccfffULL | APIC_ICR_BUSY; /* who writes back what an xAPIC gave: KVM lets it pass */
	case APIC_LVT_TIMER: return 0x710ff;
	case APIC_LVT_THERMAL:
	case APIC_LVT_PERF: return 0x117ff;
	case APIC_LVT_LINT0:
	case APIC_LVT_LINT1: return 0x1f7ff;
	case APIC_LVT_ERROR: return 0x110ff;
	case APIC_TMICT: return 0xffffffff;
	case APIC_TDCR: return 0xb;
	case APIC_SELF_IPI: return 0xff;
	default: return 0;
	}
}

/* A register that its MSR may be written to; of the ICR both halves at once. */
static void write_by_msr(struct lapic *l, unsigned reg, u64 value)
{
	host_event_apic(true, reg, value);
	if (reg == APIC_ICR)
		lapic_write_icr(l, value);
	else
		lapic_write_reg(l, reg, value);
}

enum x86_result lapic_x2apic_write(struct vcpu *vcpu, u32 msr, u64 value)
{
	struct lapic *l = vcpu->lapic;
	unsigned offset = (msr - X2APIC_MSR) << 4;
	u64 writable = x2apic_writable(offset);

	if (!l || !lapic_is_x2apic(l))
		return X86_FAULT;
	if (offset == APIC_EOI || offset == APIC_ESR) {
		if (value)
			return X86_FAULT;
	} else if (!writable || (value & ~writable)) {
		return X86_FAULT;
	}
	write_by_msr(l, offset, value);
	return X86_CONTINUE;
}

/* ---- Hyper-V's MSRs ------------------------------------------------------------------------------------------- */

enum x86_result lapic_msr_read(struct vcpu *vcpu, unsigned reg, u64 *value)
{
	struct lapic *l = vcpu->lapic;

	if (!l || !lapic_hw_enabled(l))
		return X86_FAULT;
	*value = lapic_reg(l, reg);
	if (reg == APIC_ICR)
		*value |= (u64)lapic_reg(l, APIC_ICR2) << 32;
	return X86_CONTINUE;
}

enum x86_result lapic_msr_write(struct vcpu *vcpu, unsigned reg, u64 value)
{
	struct lapic *l = vcpu->lapic;

	if (!l || !lapic_hw_enabled(l))
		return X86_FAULT;
	write_by_msr(l, reg, value);
	return X86_CONTINUE;
}

/* ---- the register page in memory ----------------------------------------------------------------------------- */

/* One device answers for the pages of all vCPUs: each sees its own, where its IA32_APIC_BASE puts it. */
static bool lapic_claims(struct vcpu *vcpu, u64 addr)
{
	return vcpu && vcpu->lapic && lapic_hw_enabled(vcpu->lapic) && !lapic_is_x2apic(vcpu->lapic) &&
	       addr - (vcpu->apic_base & APIC_BASE_ADDR) < HOST_PAGE_SIZE;
}

int lapic_mmio_read(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, void *buf)
{
	unsigned byte = addr & 0xf;
	u8 data[16] = { 0 };
	u32 value;

	if (!lapic_claims(vcpu, addr))
		return -EOPNOTSUPP;
	value = (addr & 0xfff) < 0x400 ? lapic_read_reg(vcpu->lapic, addr & 0xff0) : 0;
	host_event_apic(false, addr & 0xff0, value);
	if ((addr & 0xfff) >= 0x400)
		lapic_error(vcpu->lapic, APIC_ESR_REGISTER);
	memcpy(data, &value, 4);
	memset(buf, 0, len);
	if (byte < 4)
		memcpy(buf, data + byte, MIN(len, 4 - byte));
	return 0;
}

int lapic_mmio_write(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, const void *buf)
{
	u32 value;

	if (!lapic_claims(vcpu, addr))
		return -EOPNOTSUPP;
	/* SDM 3A 10.4.1: only aligned 32-bit accesses are defined; others are dropped. */
	if (len < 4 || (addr & 0xf))
		return 0;
	memcpy(&value, buf, 4);
	host_event_apic(true, addr & 0xff0, value);
	if ((addr & 0xfff) < 0x400 && (addr & 0xff0) != APIC_SELF_IPI)
		lapic_write_reg(vcpu->lapic, addr & 0xff0, value);
	else
		lapic_error(vcpu->lapic, APIC_ESR_REGISTER);
	return 0;
}
