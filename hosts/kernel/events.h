/*
 * Trace events under the names, fields and formats of Linux's kvm events, so that trace-cmd, perf kvm stat and people's scripts go
 * on working: what they are is listed by /sys/kernel/tracing/events/kvm of any Linux, and tests/modules/events.py compares.
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
	TP_STRUCT__entry(__field(unsigned int, vcpu_id) __field(unsigned long, rip) __field(bool, immediate_exit)),
	/* No engine enters a guest only to leave it at once */
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->rip = rip; __entry->immediate_exit = false;),
	TP_printk("vcpu %u, rip 0x%lx%s", __entry->vcpu_id, __entry->rip, __entry->immediate_exit ? "[immediate exit]" : "")
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
			{ KVM_EXIT_UNKNOWN, "KVM_EXIT_UNKNOWN" }, { KVM_EXIT_HYPERV, "KVM_EXIT_HYPERV" }, { KVM_EXIT_IO, "KVM_EXIT_IO" },
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
	TP_PROTO(u32 function, u32 index, const u32 *regs, bool found, bool used_max_basic),
	TP_ARGS(function, index, regs, found, used_max_basic),
	TP_STRUCT__entry(__field(unsigned int, function) __field(unsigned int, index) __field(unsigned long, rax)
			 __field(unsigned long, rbx) __field(unsigned long, rcx) __field(unsigned long, rdx) __field(bool, found)
			 __field(bool, used_max_basic)),
	TP_fast_assign(__entry->function = function; __entry->index = index; __entry->rax = regs[0]; __entry->rbx = regs[1];
		       __entry->rcx = regs[2]; __entry->rdx = regs[3]; __entry->found = found;
		       __entry->used_max_basic = used_max_basic;),
	TP_printk("func %x idx %x rax %lx rbx %lx rcx %lx rdx %lx, cpuid entry %s%s", __entry->function, __entry->index,
		  __entry->rax, __entry->rbx, __entry->rcx, __entry->rdx, __entry->found ? "found" : "not found",
		  __entry->used_max_basic ? ", used max basic" : "")
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
	TP_printk("nr 0x%lx a0 0x%lx a1 0x%lx a2 0x%lx a3 0x%lx", __entry->nr, __entry->a0, __entry->a1, __entry->a2,
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

TRACE_EVENT(kvm_vcpu_wakeup,
	TP_PROTO(u64 ns, bool waited, bool valid),
	TP_ARGS(ns, waited, valid),
	TP_STRUCT__entry(__field(__u64, ns) __field(bool, waited) __field(bool, valid)),
	TP_fast_assign(__entry->ns = ns; __entry->waited = waited; __entry->valid = valid;),
	TP_printk("%s time %lld ns, polling %s", __entry->waited ? "wait" : "poll", __entry->ns,
		  __entry->valid ? "valid" : "invalid")
);

TRACE_EVENT(kvm_halt_poll_ns,
	TP_PROTO(u32 vcpu_id, u32 now, u32 before),
	TP_ARGS(vcpu_id, now, before),
	TP_STRUCT__entry(__field(bool, grow) __field(unsigned int, vcpu_id) __field(unsigned int, new) __field(unsigned int, old)),
	TP_fast_assign(__entry->grow = now > before; __entry->vcpu_id = vcpu_id; __entry->new = now; __entry->old = before;),
	TP_printk("vcpu %u: halt_poll_ns %u (%s %u)", __entry->vcpu_id, __entry->new, __entry->grow ? "grow" : "shrink",
		  __entry->old)
);

/* @flags: what the instruction is decoded as */
#define EVENTS_INSN_MODES                                                                                              \
	{ 0, "real" }, { HOST_INSN_PE | HOST_INSN_VM, "vm16" }, { HOST_INSN_PE, "prot16" },                             \
	{ HOST_INSN_PE | HOST_INSN_CS_D, "prot32" }, { HOST_INSN_PE | HOST_INSN_CS_L, "prot64" }

TRACE_EVENT(kvm_emulate_insn,
	TP_PROTO(u64 rip, u32 cs_base, const u8 *insn, u8 len, u8 flags, bool failed),
	TP_ARGS(rip, cs_base, insn, len, flags, failed),
	TP_STRUCT__entry(__field(__u64, rip) __field(__u32, csbase) __field(__u8, len) __array(__u8, insn, 15) __field(__u8, flags)
			 __field(__u8, failed)),
	TP_fast_assign(__entry->rip = rip; __entry->csbase = cs_base; __entry->len = min_t(u8, len, 15);
		       memset(__entry->insn, 0, sizeof(__entry->insn)); memcpy(__entry->insn, insn, __entry->len);
		       __entry->flags = flags; __entry->failed = failed;),
	TP_printk("%x:%llx:%s (%s)%s", __entry->csbase, __entry->rip, __print_hex(__entry->insn, __entry->len),
		  __print_symbolic(__entry->flags, EVENTS_INSN_MODES), __entry->failed ? " failed" : "")
);

TRACE_EVENT(kvm_pml_full,
	TP_PROTO(u32 vcpu_id),
	TP_ARGS(vcpu_id),
	TP_STRUCT__entry(__field(unsigned int, vcpu_id)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id;),
	TP_printk("vcpu %d: PML full", __entry->vcpu_id)
);

TRACE_EVENT(kvm_fpu,
	TP_PROTO(bool load),
	TP_ARGS(load),
	TP_STRUCT__entry(__field(u32, load)),
	TP_fast_assign(__entry->load = load;),
	TP_printk("%s", __print_symbolic(__entry->load, { 0, "unload" }, { 1, "load" }))
);

TRACE_EVENT(kvm_smm_transition,
	TP_PROTO(u32 vcpu_id, u64 smbase, bool entering),
	TP_ARGS(vcpu_id, smbase, entering),
	TP_STRUCT__entry(__field(unsigned int, vcpu_id) __field(u64, smbase) __field(bool, entering)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->smbase = smbase; __entry->entering = entering;),
	TP_printk("vcpu %u: %s SMM, smbase 0x%llx", __entry->vcpu_id, __entry->entering ? "entering" : "leaving", __entry->smbase)
);

TRACE_EVENT(kvm_write_tsc_offset,
	TP_PROTO(u32 vcpu_id, u64 before, u64 now),
	TP_ARGS(vcpu_id, before, now),
	TP_STRUCT__entry(__field(unsigned int, vcpu_id) __field(__u64, previous_tsc_offset) __field(__u64, next_tsc_offset)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->previous_tsc_offset = before; __entry->next_tsc_offset = now;),
	TP_printk("vcpu=%u prev=%llu next=%llu", __entry->vcpu_id, __entry->previous_tsc_offset, __entry->next_tsc_offset)
);

/* ---- interrupts ---------------------------------------------------------------------------------------------------- */

#define EVENTS_DELIVERY_MODES                                                                                          \
	{ 0, "Fixed" }, { 1, "LowPrio" }, { 2, "SMI" }, { 3, "Res3" }, { 4, "NMI" }, { 5, "INIT" }, { 6, "SIPI" }, { 7, "ExtINT" }

TRACE_EVENT(kvm_apic_ipi,
	TP_PROTO(u32 icr_low, u32 dest),
	TP_ARGS(icr_low, dest),
	TP_STRUCT__entry(__field(__u32, icr_low) __field(__u32, dest_id)),
	TP_fast_assign(__entry->icr_low = icr_low; __entry->dest_id = dest;),
	TP_printk("dst %x vec %u (%s|%s|%s|%s|%s)", __entry->dest_id, (u8)__entry->icr_low,
		  __print_symbolic((__entry->icr_low >> 8 & 0x7), EVENTS_DELIVERY_MODES),
		  (__entry->icr_low & (1 << 11)) ? "logical" : "physical", (__entry->icr_low & (1 << 14)) ? "assert" : "de-assert",
		  (__entry->icr_low & (1 << 15)) ? "level" : "edge",
		  __print_symbolic((__entry->icr_low >> 18 & 0x3), { 0, "dst" }, { 1, "self" }, { 2, "all" }, { 3, "all-but-self" }))
);

TRACE_EVENT(kvm_apic_accept_irq,
	TP_PROTO(u32 apic_id, u8 mode, bool level, u8 vector),
	TP_ARGS(apic_id, mode, level, vector),
	TP_STRUCT__entry(__field(__u32, apicid) __field(__u16, dm) __field(__u16, tm) __field(__u8, vec)),
	/* The mode stands where the ICR has it */
	TP_fast_assign(__entry->apicid = apic_id; __entry->dm = mode << 8; __entry->tm = level; __entry->vec = vector;),
	TP_printk("apicid %x vec %u (%s|%s)", __entry->apicid, __entry->vec,
		  __print_symbolic((__entry->dm >> 8 & 0x7), EVENTS_DELIVERY_MODES), __entry->tm ? "level" : "edge")
);

TRACE_EVENT(kvm_set_irq,
	TP_PROTO(u32 gsi, int level, int source),
	TP_ARGS(gsi, level, source),
	TP_STRUCT__entry(__field(unsigned int, gsi) __field(int, level) __field(int, irq_source_id)),
	TP_fast_assign(__entry->gsi = gsi; __entry->level = level; __entry->irq_source_id = source;),
	TP_printk("gsi %u level %d source %d", __entry->gsi, __entry->level, __entry->irq_source_id)
);

TRACE_EVENT(kvm_pic_set_irq,
	TP_PROTO(u8 chip, u8 pin, u8 elcr, u8 imr, bool coalesced),
	TP_ARGS(chip, pin, elcr, imr, coalesced),
	TP_STRUCT__entry(__field(__u8, chip) __field(__u8, pin) __field(__u8, elcr) __field(__u8, imr) __field(bool, coalesced)),
	TP_fast_assign(__entry->chip = chip; __entry->pin = pin; __entry->elcr = elcr; __entry->imr = imr;
		       __entry->coalesced = coalesced;),
	TP_printk("chip %u pin %u (%s%s)%s", __entry->chip, __entry->pin, (__entry->elcr & (1 << __entry->pin)) ? "level" : "edge",
		  (__entry->imr & (1 << __entry->pin)) ? "|masked" : "", __entry->coalesced ? " (coalesced)" : "")
);

TRACE_EVENT(kvm_ioapic_set_irq,
	TP_PROTO(u64 redirection, u32 pin, bool coalesced),
	TP_ARGS(redirection, pin, coalesced),
	TP_STRUCT__entry(__field(__u64, e) __field(int, pin) __field(bool, coalesced)),
	TP_fast_assign(__entry->e = redirection; __entry->pin = pin; __entry->coalesced = coalesced;),
	TP_printk("pin %u dst %x vec %u (%s|%s|%s%s)%s", __entry->pin, (u8)(__entry->e >> 56), (u8)__entry->e,
		  __print_symbolic((__entry->e >> 8 & 0x7), EVENTS_DELIVERY_MODES),
		  (__entry->e & (1 << 11)) ? "logical" : "physical", (__entry->e & (1 << 15)) ? "level" : "edge",
		  (__entry->e & (1 << 16)) ? "|masked" : "", __entry->coalesced ? " (coalesced)" : "")
);

TRACE_EVENT(kvm_msi_set_irq,
	TP_PROTO(u64 address, u64 data),
	TP_ARGS(address, data),
	TP_STRUCT__entry(__field(__u64, address) __field(__u64, data)),
	TP_fast_assign(__entry->address = address; __entry->data = data;),
	TP_printk("dst %llx vec %u (%s|%s|%s%s)", (u8)(__entry->address >> 12) | ((__entry->address >> 32) & 0xffffff00),
		  (u8)__entry->data, __print_symbolic((__entry->data >> 8 & 0x7), EVENTS_DELIVERY_MODES),
		  (__entry->address & (1 << 2)) ? "logical" : "physical", (__entry->data & (1 << 15)) ? "level" : "edge",
		  (__entry->address & (1 << 3)) ? "|rh" : "")
);

TRACE_EVENT(kvm_ack_irq,
	TP_PROTO(u32 chip, u32 pin),
	TP_ARGS(chip, pin),
	TP_STRUCT__entry(__field(unsigned int, irqchip) __field(unsigned int, pin)),
	TP_fast_assign(__entry->irqchip = chip; __entry->pin = pin;),
	TP_printk("irqchip %s pin %u", __print_symbolic(__entry->irqchip, { KVM_IRQCHIP_PIC_MASTER, "PIC master" },
							{ KVM_IRQCHIP_PIC_SLAVE, "PIC slave" }, { KVM_IRQCHIP_IOAPIC, "IOAPIC" }),
		  __entry->pin)
);

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

TRACE_EVENT(kvm_dirty_ring_push,
	TP_PROTO(u32 vcpu, u32 dirty, u32 reset, u32 slot, u64 offset),
	TP_ARGS(vcpu, dirty, reset, slot, offset),
	TP_STRUCT__entry(__field(int, index) __field(u32, dirty_index) __field(u32, reset_index) __field(u32, slot)
			 __field(u64, offset)),
	TP_fast_assign(__entry->index = vcpu; __entry->dirty_index = dirty; __entry->reset_index = reset; __entry->slot = slot;
		       __entry->offset = offset;),
	TP_printk("ring %d: dirty 0x%x reset 0x%x slot %u offset 0x%llx (used %u)", __entry->index, __entry->dirty_index,
		  __entry->reset_index, __entry->slot, __entry->offset, __entry->dirty_index - __entry->reset_index)
);

TRACE_EVENT(kvm_dirty_ring_reset,
	TP_PROTO(u32 vcpu, u32 dirty, u32 reset),
	TP_ARGS(vcpu, dirty, reset),
	TP_STRUCT__entry(__field(int, index) __field(u32, dirty_index) __field(u32, reset_index)),
	TP_fast_assign(__entry->index = vcpu; __entry->dirty_index = dirty; __entry->reset_index = reset;),
	TP_printk("ring %d: dirty 0x%x reset 0x%x (used %u)", __entry->index, __entry->dirty_index, __entry->reset_index,
		  __entry->dirty_index - __entry->reset_index)
);

TRACE_EVENT(kvm_dirty_ring_exit,
	TP_PROTO(u32 vcpu_id),
	TP_ARGS(vcpu_id),
	TP_STRUCT__entry(__field(int, vcpu_id)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id;),
	TP_printk("vcpu %d", __entry->vcpu_id)
);

TRACE_EVENT(kvm_unmap_hva_range,
	TP_PROTO(unsigned long start, unsigned long end),
	TP_ARGS(start, end),
	TP_STRUCT__entry(__field(unsigned long, start) __field(unsigned long, end)),
	TP_fast_assign(__entry->start = start; __entry->end = end;),
	TP_printk("mmu notifier unmap range: %#016lx -- %#016lx", __entry->start, __entry->end)
);

TRACE_EVENT(kvm_age_hva,
	TP_PROTO(unsigned long start, unsigned long end),
	TP_ARGS(start, end),
	TP_STRUCT__entry(__field(unsigned long, start) __field(unsigned long, end)),
	TP_fast_assign(__entry->start = start; __entry->end = end;),
	TP_printk("mmu notifier age hva: %#016lx -- %#016lx", __entry->start, __entry->end)
);

TRACE_EVENT(kvm_test_age_hva,
	TP_PROTO(unsigned long hva),
	TP_ARGS(hva),
	TP_STRUCT__entry(__field(unsigned long, hva)),
	TP_fast_assign(__entry->hva = hva;),
	TP_printk("mmu notifier test age hva: %#016lx", __entry->hva)
);

/* ---- Hyper-V --------------------------------------------------------------------------------------------------------- */

TRACE_EVENT(kvm_hv_hypercall,
	TP_PROTO(u16 code, bool fast, u16 var, u16 count, u16 start, u64 in, u64 out),
	TP_ARGS(code, fast, var, count, start, in, out),
	TP_STRUCT__entry(__field(__u16, rep_cnt) __field(__u16, rep_idx) __field(__u64, ingpa) __field(__u64, outgpa)
			 __field(__u16, code) __field(__u16, var_cnt) __field(bool, fast)),
	TP_fast_assign(__entry->rep_cnt = count; __entry->rep_idx = start; __entry->ingpa = in; __entry->outgpa = out;
		       __entry->code = code; __entry->var_cnt = var; __entry->fast = fast;),
	TP_printk("code 0x%x %s var_cnt 0x%x rep_cnt 0x%x idx 0x%x in 0x%llx out 0x%llx", __entry->code,
		  __entry->fast ? "fast" : "slow", __entry->var_cnt, __entry->rep_cnt, __entry->rep_idx, __entry->ingpa,
		  __entry->outgpa)
);

TRACE_EVENT(kvm_hv_hypercall_done,
	TP_PROTO(u64 result),
	TP_ARGS(result),
	TP_STRUCT__entry(__field(__u64, result)),
	TP_fast_assign(__entry->result = result;),
	TP_printk("result 0x%llx", __entry->result)
);

TRACE_EVENT(kvm_hv_send_ipi,
	TP_PROTO(u32 vector, u64 mask),
	TP_ARGS(vector, mask),
	TP_STRUCT__entry(__field(u32, vector) __field(u64, processor_mask)),
	TP_fast_assign(__entry->vector = vector; __entry->processor_mask = mask;),
	TP_printk("vector %x processor_mask 0x%llx", __entry->vector, __entry->processor_mask)
);

TRACE_EVENT(kvm_hv_send_ipi_ex,
	TP_PROTO(u32 vector, u64 format, u64 banks),
	TP_ARGS(vector, format, banks),
	TP_STRUCT__entry(__field(u32, vector) __field(u64, format) __field(u64, valid_bank_mask)),
	TP_fast_assign(__entry->vector = vector; __entry->format = format; __entry->valid_bank_mask = banks;),
	TP_printk("vector %x format %llx valid_bank_mask 0x%llx", __entry->vector, __entry->format, __entry->valid_bank_mask)
);

TRACE_EVENT(kvm_hv_flush_tlb,
	TP_PROTO(u64 mask, u64 space, u64 flags),
	TP_ARGS(mask, space, flags),
	TP_STRUCT__entry(__field(u64, processor_mask) __field(u64, address_space) __field(u64, flags)),
	TP_fast_assign(__entry->processor_mask = mask; __entry->address_space = space; __entry->flags = flags;),
	TP_printk("processor_mask 0x%llx address_space 0x%llx flags 0x%llx", __entry->processor_mask, __entry->address_space,
		  __entry->flags)
);

TRACE_EVENT(kvm_hv_flush_tlb_ex,
	TP_PROTO(u64 banks, u64 format, u64 space, u64 flags),
	TP_ARGS(banks, format, space, flags),
	TP_STRUCT__entry(__field(u64, valid_bank_mask) __field(u64, format) __field(u64, address_space) __field(u64, flags)),
	TP_fast_assign(__entry->valid_bank_mask = banks; __entry->format = format; __entry->address_space = space;
		       __entry->flags = flags;),
	TP_printk("valid_bank_mask 0x%llx format 0x%llx address_space 0x%llx flags 0x%llx", __entry->valid_bank_mask,
		  __entry->format, __entry->address_space, __entry->flags)
);

TRACE_EVENT(kvm_hv_synic_set_irq,
	TP_PROTO(u32 vcpu_id, u32 sint, int vector, int result),
	TP_ARGS(vcpu_id, sint, vector, result),
	TP_STRUCT__entry(__field(int, vcpu_id) __field(u32, sint) __field(int, vector) __field(int, ret)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->sint = sint; __entry->vector = vector; __entry->ret = result;),
	TP_printk("vcpu_id %d sint %u vector %d ret %d", __entry->vcpu_id, __entry->sint, __entry->vector, __entry->ret)
);

TRACE_EVENT(kvm_hv_synic_send_eoi,
	TP_PROTO(u32 vcpu_id, int vector),
	TP_ARGS(vcpu_id, vector),
	/* The format has two more than there is to say */
	TP_STRUCT__entry(__field(int, vcpu_id) __field(u32, sint) __field(int, vector) __field(int, ret)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->sint = 0; __entry->vector = vector; __entry->ret = 0;),
	TP_printk("vcpu_id %d vector %d", __entry->vcpu_id, __entry->vector)
);

TRACE_EVENT(kvm_hv_notify_acked_sint,
	TP_PROTO(u32 vcpu_id, u32 sint),
	TP_ARGS(vcpu_id, sint),
	TP_STRUCT__entry(__field(int, vcpu_id) __field(u32, sint)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->sint = sint;),
	TP_printk("vcpu_id %d sint %u", __entry->vcpu_id, __entry->sint)
);

TRACE_EVENT(kvm_hv_synic_set_msr,
	TP_PROTO(u32 vcpu_id, u32 msr, u64 data, bool host),
	TP_ARGS(vcpu_id, msr, data, host),
	TP_STRUCT__entry(__field(int, vcpu_id) __field(u32, msr) __field(u64, data) __field(bool, host)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->msr = msr; __entry->data = data; __entry->host = host;),
	TP_printk("vcpu_id %d msr 0x%x data 0x%llx host %d", __entry->vcpu_id, __entry->msr, __entry->data, __entry->host)
);

TRACE_EVENT(kvm_hv_stimer_set_config,
	TP_PROTO(u32 vcpu_id, u32 timer, u64 config, bool host),
	TP_ARGS(vcpu_id, timer, config, host),
	TP_STRUCT__entry(__field(int, vcpu_id) __field(int, timer_index) __field(u64, config) __field(bool, host)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->timer_index = timer; __entry->config = config; __entry->host = host;),
	TP_printk("vcpu_id %d timer %d config 0x%llx host %d", __entry->vcpu_id, __entry->timer_index, __entry->config,
		  __entry->host)
);

TRACE_EVENT(kvm_hv_stimer_set_count,
	TP_PROTO(u32 vcpu_id, u32 timer, u64 count, bool host),
	TP_ARGS(vcpu_id, timer, count, host),
	TP_STRUCT__entry(__field(int, vcpu_id) __field(int, timer_index) __field(u64, count) __field(bool, host)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->timer_index = timer; __entry->count = count; __entry->host = host;),
	TP_printk("vcpu_id %d timer %d count %llu host %d", __entry->vcpu_id, __entry->timer_index, __entry->count, __entry->host)
);

TRACE_EVENT(kvm_hv_stimer_expiration,
	TP_PROTO(u32 vcpu_id, u32 timer, bool direct, int result),
	TP_ARGS(vcpu_id, timer, direct, result),
	TP_STRUCT__entry(__field(int, vcpu_id) __field(int, timer_index) __field(int, direct) __field(int, msg_send_result)),
	TP_fast_assign(__entry->vcpu_id = vcpu_id; __entry->timer_index = timer; __entry->direct = direct;
		       __entry->msg_send_result = result;),
	TP_printk("vcpu_id %d timer %d direct %d send result %d", __entry->vcpu_id, __entry->timer_index, __entry->direct,
		  __entry->msg_send_result)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH hosts/kernel
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>
