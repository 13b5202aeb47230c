/*
 * Trace events under the names, fields and formats of Linux's kvm events, so that trace-cmd, perf kvm stat and people's scripts go
 * on working: what they are is listed by /sys/kernel/tracing/events/kvm of any Linux.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm

#if !defined(HOSTS_KERNEL_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define HOSTS_KERNEL_EVENTS_H

#include <linux/kvm.h>
#include <linux/tracepoint.h>
#include <uapi/asm/svm.h>
#include <uapi/asm/vmx.h>

#define EVENTS_EXCEPTIONS                                                                                              \
	{ 0, "#DE" }, { 1, "#DB" }, { 3, "#BP" }, { 4, "#OF" }, { 5, "#BR" }, { 6, "#UD" }, { 7, "#NM" }, { 8, "#DF" },  \
	{ 10, "#TS" }, { 11, "#NP" }, { 12, "#SS" }, { 13, "#GP" }, { 14, "#PF" }, { 16, "#MF" }, { 17, "#AC" },       \
	{ 18, "#MC" }, { 19, "#XM" }

TRACE_EVENT(kvm_entry,
	TP_PROTO(u32 vcpu_id, u64 rip),
	TP_ARGS(vcpu_id, rip),
	TP_STRUCT__entry(__field(unsigned int, vcpu_id) __field(unsigned long, rip)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->rip = rip;),
	TP_printk("vcpu %u, rip 0x%lx", __entry->vcpu_id, __entry->rip)
);

TRACE_EVENT(kvm_exit,
	TP_PROTO(u32 vcpu_id, u64 rip, const struct host_exit *exit),
	TP_ARGS(vcpu_id, rip, exit),
	TP_STRUCT__entry(__field(unsigned int, exit_reason) __field(unsigned long, guest_rip) __field(u32, isa) __field(u64, info1)
			 __field(u64, info2) __field(u32, intr_info) __field(u32, error_code) __field(unsigned int, vcpu_id)),
	TP_fast_assign(__entry->exit_reason = exit->reason; __entry->guest_rip = rip; __entry->isa = exit->isa;
		       __entry->info1 = exit->info1; __entry->info2 = exit->info2; __entry->intr_info = exit->intr_info;
		       __entry->error_code = exit->error_code; __entry->vcpu_id = vcpu_id;),
	TP_printk("vcpu %u reason %s%s%s rip 0x%lx info1 0x%016llx info2 0x%016llx intr_info 0x%08x error_code 0x%08x",
		  __entry->vcpu_id,
		  __entry->isa == HOST_ISA_VMX ? __print_symbolic(__entry->exit_reason & 0xffff, VMX_EXIT_REASONS) :
						 __print_symbolic(__entry->exit_reason, SVM_EXIT_REASONS),
		  __entry->isa == HOST_ISA_VMX && __entry->exit_reason & ~0xffffU ? " " : "",
		  __entry->isa == HOST_ISA_VMX ?
			  __print_flags(__entry->exit_reason & ~0xffffU, " ", VMX_EXIT_REASON_FLAGS) : "",
		  __entry->guest_rip, __entry->info1, __entry->info2, __entry->intr_info, __entry->error_code)
);

TRACE_EVENT(kvm_userspace_exit,
	TP_PROTO(u32 reason, int error),
	TP_ARGS(reason, error),
	TP_STRUCT__entry(__field(__u32, reason) __field(int, errno)),
	TP_fast_assign(__entry->reason = reason; __entry->errno = error;),
	TP_printk("reason %s (%d)",
		  __entry->errno < 0 ? (__entry->errno == -EINTR ? "restart" : "error") :
		  __print_symbolic(__entry->reason,
			{ KVM_EXIT_UNKNOWN, "KVM_EXIT_UNKNOWN" }, { KVM_EXIT_IO, "KVM_EXIT_IO" },
			{ KVM_EXIT_HYPERCALL, "KVM_EXIT_HYPERCALL" }, { KVM_EXIT_DEBUG, "KVM_EXIT_DEBUG" },
			{ KVM_EXIT_HLT, "KVM_EXIT_HLT" }, { KVM_EXIT_MMIO, "KVM_EXIT_MMIO" },
			{ KVM_EXIT_IRQ_WINDOW_OPEN, "KVM_EXIT_IRQ_WINDOW_OPEN" }, { KVM_EXIT_SHUTDOWN, "KVM_EXIT_SHUTDOWN" },
			{ KVM_EXIT_FAIL_ENTRY, "KVM_EXIT_FAIL_ENTRY" }, { KVM_EXIT_INTR, "KVM_EXIT_INTR" },
			{ KVM_EXIT_SET_TPR, "KVM_EXIT_SET_TPR" }, { KVM_EXIT_TPR_ACCESS, "KVM_EXIT_TPR_ACCESS" },
			{ KVM_EXIT_INTERNAL_ERROR, "KVM_EXIT_INTERNAL_ERROR" }, { KVM_EXIT_SYSTEM_EVENT, "KVM_EXIT_SYSTEM_EVENT" },
			{ KVM_EXIT_IOAPIC_EOI, "KVM_EXIT_IOAPIC_EOI" }, { KVM_EXIT_X86_RDMSR, "KVM_EXIT_X86_RDMSR" },
			{ KVM_EXIT_X86_WRMSR, "KVM_EXIT_X86_WRMSR" }, { KVM_EXIT_DIRTY_RING_FULL, "KVM_EXIT_DIRTY_RING_FULL" }),
		  __entry->errno < 0 ? -__entry->errno : __entry->reason)
);

TRACE_EVENT(kvm_pio,
	TP_PROTO(bool write, u16 port, u32 size, u32 count, const void *data),
	TP_ARGS(write, port, size, count, data),
	TP_STRUCT__entry(__field(unsigned int, rw) __field(unsigned int, port) __field(unsigned int, size)
			 __field(unsigned int, count) __field(unsigned int, val)),
	TP_fast_assign(__entry->rw = write; __entry->port = port; __entry->size = size; __entry->count = count;
		       __entry->val = 0; memcpy(&__entry->val, data, min_t(size_t, size, sizeof(__entry->val)));),
	TP_printk("pio_%s at 0x%x size %d count %d val 0x%x %s", __entry->rw ? "write" : "read", __entry->port, __entry->size,
		  __entry->count, __entry->val, __entry->count > 1 ? "(...)" : "")
);

TRACE_EVENT(kvm_mmio,
	TP_PROTO(bool write, u64 gpa, u32 len, const void *data),
	TP_ARGS(write, gpa, len, data),
	TP_STRUCT__entry(__field(u32, type) __field(u32, len) __field(u64, gpa) __field(u64, val)),
	TP_fast_assign(__entry->type = write ? 2 : 1; __entry->len = len; __entry->gpa = gpa; __entry->val = 0;
		       memcpy(&__entry->val, data, min_t(size_t, len, sizeof(__entry->val)));),
	TP_printk("mmio %s len %u gpa 0x%llx val 0x%llx",
		  __print_symbolic(__entry->type, { 0, "unsatisfied-read" }, { 1, "read" }, { 2, "write" }), __entry->len,
		  __entry->gpa, __entry->val)
);

TRACE_EVENT(kvm_msr,
	TP_PROTO(bool write, u32 index, u64 value, bool fault),
	TP_ARGS(write, index, value, fault),
	TP_STRUCT__entry(__field(unsigned, write) __field(u32, ecx) __field(u64, data) __field(u8, exception)),
	TP_fast_assign(__entry->write = write; __entry->ecx = index; __entry->data = value; __entry->exception = fault;),
	TP_printk("msr_%s %x = 0x%llx%s", __entry->write ? "write" : "read", __entry->ecx, __entry->data,
		  __entry->exception ? " (#GP)" : "")
);

TRACE_EVENT(kvm_cpuid,
	TP_PROTO(u32 function, u32 index, const u32 *regs, bool found),
	TP_ARGS(function, index, regs, found),
	TP_STRUCT__entry(__field(unsigned int, function) __field(unsigned int, index) __field(unsigned long, rax)
			 __field(unsigned long, rbx) __field(unsigned long, rcx) __field(unsigned long, rdx) __field(bool, found)),
	TP_fast_assign(__entry->function = function; __entry->index = index; __entry->rax = regs[0]; __entry->rbx = regs[1];
		       __entry->rcx = regs[2]; __entry->rdx = regs[3]; __entry->found = found;),
	TP_printk("func %x idx %x rax %lx rbx %lx rcx %lx rdx %lx, cpuid entry %s", __entry->function, __entry->index,
		  __entry->rax, __entry->rbx, __entry->rcx, __entry->rdx, __entry->found ? "found" : "not found")
);

TRACE_EVENT(kvm_page_fault,
	TP_PROTO(u32 vcpu_id, u64 rip, u64 address, u64 error_code),
	TP_ARGS(vcpu_id, rip, address, error_code),
	TP_STRUCT__entry(__field(unsigned int, vcpu_id) __field(unsigned long, guest_rip) __field(u64, fault_address)
			 __field(u64, error_code)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->guest_rip = rip; __entry->fault_address = address;
		       __entry->error_code = error_code;),
	TP_printk("vcpu %u rip 0x%lx address 0x%016llx error_code 0x%llx", __entry->vcpu_id, __entry->guest_rip,
		  __entry->fault_address, __entry->error_code)
);

TRACE_EVENT(kvm_inj_virq,
	TP_PROTO(u8 vector, bool soft, bool reinjected),
	TP_ARGS(vector, soft, reinjected),
	TP_STRUCT__entry(__field(unsigned int, vector) __field(bool, soft) __field(bool, reinjected)),
	TP_fast_assign(__entry->vector = vector; __entry->soft = soft; __entry->reinjected = reinjected;),
	TP_printk("%s 0x%x%s", __entry->soft ? "Soft/INTn" : "IRQ", __entry->vector, __entry->reinjected ? " [reinjected]" : "")
);

TRACE_EVENT(kvm_inj_exception,
	TP_PROTO(u8 vector, bool has_error, u32 error_code, bool reinjected),
	TP_ARGS(vector, has_error, error_code, reinjected),
	TP_STRUCT__entry(__field(u8, exception) __field(u8, has_error) __field(u32, error_code) __field(bool, reinjected)),
	TP_fast_assign(__entry->exception = vector; __entry->has_error = has_error; __entry->error_code = error_code;
		       __entry->reinjected = reinjected;),
	/* A code without names for its values is printed as the number that it is. */
	TP_printk("%s%s%s%s%s", __print_symbolic(__entry->exception, EVENTS_EXCEPTIONS), !__entry->has_error ? "" : " (",
		  !__entry->has_error ? "" : __print_symbolic(__entry->error_code, { 0, "0x0" }), !__entry->has_error ? "" : ")",
		  __entry->reinjected ? " [reinjected]" : "")
);

TRACE_EVENT(kvm_hypercall,
	TP_PROTO(u64 nr, u64 a0, u64 a1, u64 a2, u64 a3),
	TP_ARGS(nr, a0, a1, a2, a3),
	TP_STRUCT__entry(__field(unsigned long, nr) __field(unsigned long, a0) __field(unsigned long, a1) __field(unsigned long, a2)
			 __field(unsigned long, a3)),
	TP_fast_assign(__entry->nr = nr; __entry->a0 = a0; __entry->a1 = a1; __entry->a2 = a2; __entry->a3 = a3;),
	TP_printk("nr 0x%lx a0 0x%lx a1 0x%lx a2 0x%lx  a3 0x%lx", __entry->nr, __entry->a0, __entry->a1, __entry->a2,
		  __entry->a3)
);

#define EVENTS_APIC_REGISTERS                                                                                          \
	{ 0x2, "APIC_ID" }, { 0x3, "APIC_LVR" }, { 0x8, "APIC_TASKPRI" }, { 0x9, "APIC_ARBPRI" }, { 0xa, "APIC_PROCPRI" }, \
	{ 0xb, "APIC_EOI" }, { 0xd, "APIC_LDR" }, { 0xe, "APIC_DFR" }, { 0xf, "APIC_SPIV" }, { 0x10, "APIC_ISR" },       \
	{ 0x18, "APIC_TMR" }, { 0x20, "APIC_IRR" }, { 0x28, "APIC_ESR" }, { 0x30, "APIC_ICR" }, { 0x31, "APIC_ICR2" },   \
	{ 0x32, "APIC_LVTT" }, { 0x33, "APIC_LVTTHMR" }, { 0x34, "APIC_LVTPC" }, { 0x35, "APIC_LVT0" },                  \
	{ 0x36, "APIC_LVT1" }, { 0x37, "APIC_LVTERR" }, { 0x38, "APIC_TMICT" }, { 0x39, "APIC_TMCCT" },                  \
	{ 0x3e, "APIC_TDCR" }, { 0x3f, "APIC_SELF_IPI" }

TRACE_EVENT(kvm_apic,
	TP_PROTO(bool write, u32 reg, u64 value),
	TP_ARGS(write, reg, value),
	TP_STRUCT__entry(__field(unsigned int, rw) __field(unsigned int, reg) __field(u64, val)),
	TP_fast_assign(__entry->rw = write; __entry->reg = reg; __entry->val = value;),
	TP_printk("apic_%s %s = 0x%llx", __entry->rw ? "write" : "read",
		  __print_symbolic(__entry->reg >> 4, EVENTS_APIC_REGISTERS), __entry->val)
);

TRACE_EVENT(kvm_eoi,
	TP_PROTO(u32 apic_id, u8 vector),
	TP_ARGS(apic_id, vector),
	TP_STRUCT__entry(__field(__u32, apicid) __field(int, vector)),
	TP_fast_assign(__entry->apicid = apic_id; __entry->vector = vector;),
	TP_printk("apicid %x vector %d", __entry->apicid, __entry->vector)
);

TRACE_EVENT(kvm_cr,
	TP_PROTO(bool write, u32 cr, u64 value),
	TP_ARGS(write, cr, value),
	TP_STRUCT__entry(__field(unsigned int, rw) __field(unsigned int, cr) __field(unsigned long, val)),
	TP_fast_assign(__entry->rw = write; __entry->cr = cr; __entry->val = value;),
	TP_printk("cr_%s %x = 0x%lx", __entry->rw ? "write" : "read", __entry->cr, __entry->val)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH hosts/kernel
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>
