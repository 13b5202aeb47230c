/*
 * The hypervisor interface that Windows knows, Microsoft's Hypervisor Top-Level Functional Specification ("TLFS"), as the KVM API
 * document offers it: CPUID leaves 0x40000000 and up, synthetic MSRs, reference time, SynIC with its timers, hypercalls.
 *
 * A guest has it when its CPUID says so ("Hv#1" in leaf 0x40000001). Names of registers, fields and hypercalls are the TLFS's.
 */
#ifndef CORE_X86_HYPERV_H
#define CORE_X86_HYPERV_H

#include "core/vcpu.h"

struct kvm_cpuid2;

#define HV_X64_MSR_GUEST_OS_ID		   0x40000000
#define HV_X64_MSR_HYPERCALL		   0x40000001
#define HV_X64_MSR_VP_INDEX		   0x40000002
#define HV_X64_MSR_RESET		   0x40000003
#define HV_X64_MSR_VP_RUNTIME		   0x40000010
#define HV_X64_MSR_TIME_REF_COUNT	   0x40000020
#define HV_X64_MSR_REFERENCE_TSC	   0x40000021
#define HV_X64_MSR_TSC_FREQUENCY	   0x40000022
#define HV_X64_MSR_APIC_FREQUENCY	   0x40000023
#define HV_X64_MSR_EOI			   0x40000070
#define HV_X64_MSR_ICR			   0x40000071
#define HV_X64_MSR_TPR			   0x40000072
#define HV_X64_MSR_VP_ASSIST_PAGE	   0x40000073
#define HV_X64_MSR_SCONTROL		   0x40000080
#define HV_X64_MSR_SVERSION		   0x40000081
#define HV_X64_MSR_SIEFP		   0x40000082
#define HV_X64_MSR_SIMP			   0x40000083
#define HV_X64_MSR_EOM			   0x40000084
#define HV_X64_MSR_SINT0		   0x40000090
#define HV_X64_MSR_SINT15		   0x4000009f
#define HV_X64_MSR_STIMER0_CONFIG	   0x400000b0
#define HV_X64_MSR_STIMER3_COUNT	   0x400000b7
#define HV_X64_MSR_SYNDBG_CONTROL	   0x400000f1
#define HV_X64_MSR_SYNDBG_STATUS	   0x400000f2
#define HV_X64_MSR_SYNDBG_SEND_BUFFER	   0x400000f3
#define HV_X64_MSR_SYNDBG_RECV_BUFFER	   0x400000f4
#define HV_X64_MSR_SYNDBG_PENDING_BUFFER   0x400000f5
#define HV_X64_MSR_SYNDBG_OPTIONS	   0x400000ff
#define HV_X64_MSR_CRASH_P0		   0x40000100
#define HV_X64_MSR_CRASH_P4		   0x40000104
#define HV_X64_MSR_CRASH_CTL		   0x40000105
#define HV_X64_MSR_REENLIGHTENMENT_CONTROL 0x40000106
#define HV_X64_MSR_TSC_EMULATION_CONTROL   0x40000107
#define HV_X64_MSR_TSC_EMULATION_STATUS	   0x40000108

/* Leaf 0x40000003: EAX, EBX (partition privileges), EDX */
#define HV_A_VP_RUNTIME	     BIT64(0)
#define HV_A_TIME_REF_COUNT  BIT64(1)
#define HV_A_SYNIC	     BIT64(2)
#define HV_A_SYNTIMER	     BIT64(3)
#define HV_A_APIC_ACCESS     BIT64(4)
#define HV_A_HYPERCALL	     BIT64(5)
#define HV_A_VP_INDEX	     BIT64(6)
#define HV_A_RESET	     BIT64(7)
#define HV_A_REFERENCE_TSC   BIT64(9)
#define HV_A_FREQUENCY	     BIT64(11)
#define HV_A_REENLIGHTENMENT BIT64(13)
#define HV_B_POST_MESSAGES   BIT64(4)
#define HV_B_SIGNAL_EVENTS   BIT64(5)
#define HV_B_DEBUGGING	     BIT64(11)
#define HV_D_XMM_INPUT	     BIT64(4)
#define HV_D_FREQUENCY	     BIT64(8)
#define HV_D_CRASH	     BIT64(10)
#define HV_D_DEBUG	     BIT64(11)
#define HV_D_STIMER_DIRECT   BIT64(19)
/* Leaf 0x40000004 EAX: what the guest had better use */
#define HV_R_REMOTE_TLB_FLUSH BIT64(2)
#define HV_R_APIC_ACCESS      BIT64(3)
#define HV_R_RELAXED_TIMING   BIT64(5)
#define HV_R_CLUSTER_IPI      BIT64(10)
#define HV_R_EX_MASKS	      BIT64(11)
#define HV_R_NO_CORE_SHARING  BIT64(18) /* NoNonArchitecturalCoreSharing */
/* Leaf 0x40000082 EAX */
#define HV_SYNDBG_ALLOWED BIT64(1)

#define HV_SINTS   16
#define HV_STIMERS 4

/* One synthetic timer (TLFS 12.4). Its vCPU's thread; the host's timer only sets @expired and a request. */
struct hv_stimer {
	struct host_timer timer;
	struct vcpu *vcpu; /* (i) */
	u8 index;	   /* (i) */
	bool expired;	   /* (a) */
	bool blocked;	   /* (v) its message waits for the guest to empty the slot */
	u64 config, count; /* (v) the MSRs */
	u64 expiration;	   /* (v) reference time at which it expires next */
};

/* What leaves to the client behind the instruction that asked for it. */
enum hv_exit { HV_EXIT_NONE, HV_EXIT_SYNIC, HV_EXIT_SYNDBG, HV_EXIT_CRASH, HV_EXIT_RESET };
/* What the client's answer is for. */
enum hv_answer { HV_ANSWER_NONE, HV_ANSWER_HYPERCALL, HV_ANSWER_SYNDBG };

struct hv_vcpu {
	u32 vp_index; /* (a) */
	bool enforce; /* (v) KVM_CAP_HYPERV_ENFORCE_CPUID */
	/* From CPUID */
	bool enabled;
	u32 features_a, features_b, features_d, recommended, spins, syndbg;

	u64 vp_assist;		/* (v) */
	s64 runtime_offset;	/* (v) */
	u8 exit;		/* (v) enum hv_exit, with REQ_HYPERV_EXIT */
	u8 answer;		/* (v) enum hv_answer */
	u32 exit_msr;		/* (v) */
	u64 left[(VM_MAX_VCPUS + 63) / 64]; /* (v) with REQ_HYPERV_FLUSH: vCPUs, by index, that have to have left guest code */

	/* SynIC */
	bool active;		/* (a) the client has enabled KVM_CAP_HYPERV_SYNIC or _SYNIC2 */
	bool keep_pages;	/* (v) _SYNIC2 */
	u64 control, siefp, simp; /* (v) */
	u64 sint[HV_SINTS];	/* (a) */
	u64 vectors[4];		/* (v) those that some SINT has; */
	u64 auto_eoi[4];	/* (v) of these, those that need no EOI */
	struct hv_stimer stimer[HV_STIMERS];
};

/* A connection ID that signals an eventfd. */
struct hv_eventfd {
	u32 conn_id;
	struct host_eventfd *eventfd;
	struct hv_eventfd *next; /* (s) */
};

/* Who knows the reference time: the TSC page while it is HV_TSC_VALID, else kvmclock. */
enum hv_tsc { HV_TSC_OFF, HV_TSC_STALE /* to be written by the next vCPU */, HV_TSC_VALID, HV_TSC_UNUSABLE };

struct hv_vm {
	struct host_mutex lock; /* a leaf but for guest memory */
	u64 guest_os_id;	/* (a), written under lock; likewise: */
	u64 hypercall, reference_tsc;
	u64 reenlightenment, tsc_emulation, tsc_emulation_status;
	u64 crash[5], crash_ctl;
	u64 syndbg_control, syndbg_status, syndbg_send, syndbg_recv, syndbg_pending, syndbg_options;
	u8 tsc;			/* (a), written under lock: enum hv_tsc */
	u32 tsc_sequence;	/* (lock) of the page; 0 is not valid */
	u64 tsc_scale;		/* (lock) units of 100 ns = (tsc * scale >> 64) + offset */
	s64 tsc_offset;
	struct hv_eventfd *eventfds; /* (s) */
};

int hyperv_vm_init(struct vm *vm);
void hyperv_vm_destroy(struct vm *vm);
int hyperv_vcpu_init(struct vcpu *vcpu);
void hyperv_vcpu_destroy(struct vcpu *vcpu);

/* ---- hyperv.c ------------------------------------------------------------------------------------------------- */
/** KVM_GET_SUPPORTED_HV_CPUID, @vcpu NULL on the system descriptor: 0, -E2BIG, -EFAULT, -ENOMEM. */
long hyperv_ioctl_supported_cpuid(struct vcpu *vcpu, u64 arg, struct kvm_cpuid2 *head);
/** The vCPU's CPUID changed. */
void hyperv_cpuid_update(struct vcpu *vcpu);
enum x86_result hyperv_get_msr(struct vcpu *vcpu, u32 index, u64 *value, bool from_client);
enum x86_result hyperv_set_msr(struct vcpu *vcpu, u32 index, u64 value, bool from_client);
/** Reference time in units of 100 ns. The vCPU's thread. */
u64 hyperv_time(struct vcpu *vcpu);
/** kvmclock or a TSC was set: the TSC page does not tell the time any more. REQ_CLOCK_UPDATE follows. */
void hyperv_clock_changed(struct vm *vm);
/** REQ_CLOCK_UPDATE: writes the page if nobody did yet, and starts the timers anew. In an srcu section. */
void hyperv_clock_update(struct vcpu *vcpu);
/** REQ_HYPERV_EXIT: fills vcpu->run. */
void hyperv_fill_exit(struct vcpu *vcpu);
void hyperv_ask_exit(struct vcpu *vcpu, enum hv_exit exit, u32 msr);
/** Whether the guest may use what bit @bit of @word (features_a ...) stands for. */
static inline bool hyperv_allows(const struct hv_vcpu *hv, u32 word, u64 bit)
{
	return !hv->enforce || (word & bit);
}

/* ---- synic.c -------------------------------------------------------------------------------------------------- */
/** KVM_CAP_HYPERV_SYNIC, _SYNIC2: 0, -EINVAL without a local APIC. */
long synic_enable(struct vcpu *vcpu, bool keep_pages);
enum x86_result synic_get_msr(struct vcpu *vcpu, u32 index, u64 *value, bool from_client);
enum x86_result synic_set_msr(struct vcpu *vcpu, u32 index, u64 value, bool from_client);
/** Raises @sint of virtual processor @vp_index: 1 delivered, 0 was pending, -1 masked or not there. Any thread, in an srcu section. */
int synic_set_sint(struct vm *vm, u32 vp_index, u32 sint);
/** An EOI of @vector at @vcpu. Its thread, in an srcu section. */
void synic_eoi(struct vcpu *vcpu, u8 vector);
/** Whether @vector, now taken, ends by itself. */
static inline bool synic_auto_eoi(const struct vcpu *vcpu, u8 vector)
{
	return unlikely(vcpu->hyperv->auto_eoi[vector / 64] & BIT64(vector % 64));
}
static inline bool synic_has_vector(const struct vcpu *vcpu, u8 vector)
{
	return unlikely(vcpu->hyperv->vectors[vector / 64] & BIT64(vector % 64));
}
void stimers_init(struct vcpu *vcpu);
void stimers_destroy(struct vcpu *vcpu);
/** REQ_HYPERV_STIMER: delivers what expired. In an srcu section. */
void stimers_process(struct vcpu *vcpu);
/** The reference time jumped. */
void stimers_restart(struct vcpu *vcpu);
/** KVM_HYPERV_EVENTFD: 0, -EINVAL, -ENOENT, -EEXIST, -EBADF, -ENOMEM. */
long hyperv_ioctl_eventfd(struct vm *vm, const struct kvm_hyperv_eventfd *args);
/** Signals what is registered for @conn_id. In an srcu section. */
bool hyperv_signal_event(struct vm *vm, u32 conn_id);

/* ---- hypercall.c ---------------------------------------------------------------------------------------------- */
/** Whether VMCALL and VMMCALL of the guest's are the TLFS's, not KVM's: it has told its identity. */
static inline bool hyperv_hypercalls(const struct vcpu *vcpu)
{
	return vcpu->hyperv->enabled && __atomic_load_n(&vcpu->vm->hyperv->guest_os_id, __ATOMIC_RELAXED);
}
/** X86_CONTINUE; X86_EXIT: vcpu->run is filled; X86_FAULT: #UD. In an srcu section. */
enum x86_result hyperv_hypercall(struct vcpu *vcpu);
/** REQ_HYPERV_FLUSH: out of guest code. */
void hyperv_wait_flushed(struct vcpu *vcpu);
/** The client answered KVM_EXIT_HYPERV. */
void hyperv_complete(struct vcpu *vcpu);

#endif
