/* The events of hosts/host.h as Linux's trace events: while nobody listens each is a call, a no-op and a return. */
#include "hosts/kernel/linux.h"

#define CREATE_TRACE_POINTS
#include "hosts/kernel/events.h"

void host_event_entry(u32 vcpu, u64 rip)
{
	trace_kvm_entry(vcpu, rip);
}

void host_event_exit(u32 vcpu, u64 rip, const struct host_exit *exit)
{
	trace_kvm_exit(vcpu, rip, exit);
}

void host_event_userspace_exit(u32 reason, int error)
{
	trace_kvm_userspace_exit(reason, error);
}

void host_event_pio(bool write, u16 port, u32 size, u32 count, const void *data)
{
	trace_kvm_pio(write, port, size, count, data);
}

void host_event_mmio(bool write, u64 gpa, u32 len, const void *data)
{
	trace_kvm_mmio(write, gpa, len, data);
}

void host_event_msr(bool write, u32 index, u64 value, bool fault)
{
	trace_kvm_msr(write, index, value, fault);
}

void host_event_cpuid(u32 function, u32 index, const u32 regs[4], bool found)
{
	trace_kvm_cpuid(function, index, regs, found);
}

void host_event_page_fault(u32 vcpu, u64 rip, u64 address, u64 error)
{
	trace_kvm_page_fault(vcpu, rip, address, error);
}

void host_event_inj_virq(u8 vector, bool soft, bool again)
{
	trace_kvm_inj_virq(vector, soft, again);
}

void host_event_inj_exception(u8 vector, bool has_error, u32 error, bool again)
{
	trace_kvm_inj_exception(vector, has_error, error, again);
}

void host_event_hypercall(u64 nr, u64 a0, u64 a1, u64 a2, u64 a3)
{
	trace_kvm_hypercall(nr, a0, a1, a2, a3);
}

void host_event_apic(bool write, u32 reg, u64 value)
{
	trace_kvm_apic(write, reg, value);
}

void host_event_eoi(u32 apic_id, u8 vector)
{
	trace_kvm_eoi(apic_id, vector);
}

void host_event_cr(bool write, u32 cr, u64 value)
{
	trace_kvm_cr(write, cr, value);
}
