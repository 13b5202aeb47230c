/*
 * AMD-V (APM 2 chapter 15): guests on the processor itself.
 *
 * What lives where. RAX, RSP, RIP, RFLAGS, CR0, CR2, CR3 and the mode are copied from the VMCB after every exit, the other general
 * registers are stored to vcpu->x86 by the world switch; segments and MSRs stay in the VMCB until state_sync() is asked for them, the FPU
 * in the processor. What core changed (regs_dirty) is loaded before the next entry. CR4, EFER, XCR0 and the debug registers change by
 * exits only, so vcpu->x86 always has them.
 *
 *	cpu.c	the processor: what it can, taking and giving back, ASIDs
 *	state.c	between vcpu->x86 and the VMCB
 *	run.c	one stay in the guest
 *	exit.c	what an exit code means to core
 *	msr.c	which MSRs the guest reaches directly
 *	assist.c	NMIs and branch records that the processor keeps
 *	avic.c	the local APIC that the processor serves
 *	svm.c	the table
 */
#ifndef ENGINES_SVM_SVM_H
#define ENGINES_SVM_SVM_H

#include "core/vcpu.h"
#include "core/x86/mmu/mmu.h"
#include "engines/svm/options.h"
#include "engines/svm/vmcb.h"

/* CPUID 0x8000000a EDX: APM 3 appendix E */
#define SVM_FEATURE_NPT		  BIT64(0)
#define SVM_FEATURE_LBRV	  BIT64(1)
#define SVM_FEATURE_NRIPS	  BIT64(3)
#define SVM_FEATURE_TSC_RATE	  BIT64(4)
#define SVM_FEATURE_VMCB_CLEAN	  BIT64(5)
#define SVM_FEATURE_FLUSH_BY_ASID BIT64(6)
#define SVM_FEATURE_DECODE_ASSIST BIT64(7)
#define SVM_FEATURE_PAUSE_FILTER  BIT64(10)
#define SVM_FEATURE_PAUSE_THRESH  BIT64(12)
#define SVM_FEATURE_AVIC	  BIT64(13)
#define SVM_FEATURE_X2AVIC	  BIT64(18)
#define SVM_FEATURE_VNMI	  BIT64(25)

/* The processor, after svm_setup(). */
extern struct svm_caps {
	u32 features; /* SVM_FEATURE_* */
	u32 nr_asids;
	bool npt, vnmi, lbrv;
	bool avic, x2avic; /* the latter: in x2APIC mode too */
	bool avic_ipis;	   /* it can be trusted with what others send each other: see cpu.c */
	bool rdtscp;	 /* there is TSC_AUX */
	bool ibpb, spec_ctrl;
	bool pku;	 /* the host has switched it on, and nested paging leaves it to the guest */
	u64 host_xcr0;	 /* 0: no XSAVE */
	bool xsetbv_silent; /* XSETBV has no exit: QEMU's TCG, 7.2 for one */
	u8 phys_bits;
	u8 levels; /* of nested tables: those of the host's own, 15.25.3 */
} svm_caps;

struct svm_vm {
	struct vm vm;
	struct mmu *mmu; /* (i) */

	/* avic.c */
	u64 *avic_physical;   /* (i) a page, by APIC ID; (a) entries: each its vCPU's. NULL: no AVIC */
	u32 *avic_logical;    /* (i) a page; avic_lock for writing, the processors read */
	void *avic_access;    /* (i) what the nested tables have where guests see their APICs: its contents are nobody's */
	struct host_mutex avic_mutex;
	bool avic_on;	      /* (a) avic_mutex for writing: every vCPU that runs guest code has AVIC enabled */
	bool avic_mapped;     /* (a) avic_mutex for writing: avic_access is in the nested tables */
	u32 avic_objections;  /* (a) vCPUs that cannot have it as they are */
	struct host_spinlock avic_lock;
	bool avic_mixed;      /* (a) avic_lock for writing: APICs of both modes are enabled */
};

struct svm_vcpu {
	struct vcpu vcpu;
	/* (i) */
	struct vmcb *vmcb;
	u64 vmcb_pa;
	u8 *msrpm;
	struct mmu_vcpu *mmu;
	struct host_fpu *fpu;
	u64 id; /* no other vCPU ever has it; not 0 */

	/* (v) and interrupts off, or vcpu_load() and vcpu_put(): what of this vCPU is on CPU @cpu */
	struct svm_cpu *cpu;	  /* NULL: on none */
	struct svm_cpu *last_cpu; /* where it ran last */
	u64 asid_generation;	  /* of last_cpu, in which vmcb->asid is ours */
	bool host_saved;	  /* the host's FS, GS, TR ... are in cpu's host VMCB */
	bool tsc_aux_loaded;
	u64 host_tsc_aux;

	/* (v) */
	bool fpu_in;
	u64 xcr0_left;		 /* with xsetbv_silent: as the guest has left it */
	u32 pkru;		 /* the guest's; the rest of its FPU is the host's to swap */
	bool flush;		 /* guest translations before the next entry */
	bool inject;		 /* @event in the next run */
	bool window_irq, window_nmi;
	bool stepping;		 /* RFLAGS.TF is ours: a step out of an interrupt shadow, or the client's */
	bool guest_tf;		 /* then the guest's own */
	bool nmi_given;		 /* one that core has pending is in the VMCB */
	struct x86_event event;
	u64 event_rip;		 /* RIP when it was injected */
	u32 filter_seen;	 /* vm->msr_filter_generation that msrpm was made for */

	/* avic.c */
	u64 *avic_entry;    /* (i) in the VM's physical table; NULL: it has none for so high an ID */
	u64 avic_cpu;	    /* (a) the CPU's number and, in the upper half, its APIC ID; AVIC_NO_CPU */
	bool avic_active;   /* (a) the processor finds what is in the IRR, in guest code and as it enters there */
	bool avic_objects;  /* (v) counted in avic_objections */
	bool avic_switch;   /* (v) before guest code the VM has to be switched: svm_avic_switch() */
	bool avic_x2;	    /* (v) the VMCB and msrpm are for x2APIC mode */
	bool avic_known;    /* (v) the tables were made with this vCPU among the VM's */
	bool waits;	    /* (v) */
};
#define AVIC_NO_CPU (~0ULL)

static inline struct svm_vm *to_svm_vm(struct vm *vm)
{
	return container_of(vm, struct svm_vm, vm);
}

static inline struct svm_vcpu *to_svm(struct vcpu *vcpu)
{
	return container_of(vcpu, struct svm_vcpu, vcpu);
}

static inline void svm_intercept(struct svm_vcpu *svm, unsigned bit, bool on)
{
	u32 *word = &svm->vmcb->intercept[bit / 32], was = *word;

	*word = on ? was | 1U << (bit % 32) : was & ~(1U << (bit % 32));
	if (*word != was)
		svm->vmcb->clean &= ~VMCB_CLEAN_INTERCEPTS;
}

/* ---- cpu.c ------------------------------------------------------------------------------------------------------ */
struct svm_cpu {
	struct vmcb *host; /* where VMSAVE puts what VMRUN does not save of the host; its other half is VM_HSAVE_PA's page */
	u64 host_pa;
	void *hsave;
	u64 generation; /* of ASIDs */
	u32 next_asid;
	u64 tsc_ratio; /* in MSR_TSC_RATIO */
	u32 apic_id;
	u64 last; /* id of the vCPU whose branch predictions are in the processor */
};
int svm_cpus_setup(struct svm_options *options);
void svm_cpus_teardown(void);
u64 svm_iopm_pa(void);
int svm_cpu_enable(void);
void svm_cpu_disable(void);
void svm_vcpu_load(struct vcpu *vcpu, unsigned cpu);
void svm_vcpu_put(struct vcpu *vcpu);
/** On the CPU that will run it, interrupts off: ASID, TLB control, host state to be saved. */
void svm_cpu_prepare(struct svm_vcpu *svm);

/* ---- state.c ---------------------------------------------------------------------------------------------------- */
void svm_state_init(struct svm_vcpu *svm);
void svm_state_load(struct svm_vcpu *svm);
void svm_state_sync(struct vcpu *vcpu, unsigned groups);
void svm_state_changed(struct vcpu *vcpu, unsigned groups);
/** After an exit: what core always finds current. */
void svm_state_exit(struct svm_vcpu *svm);

/* ---- run.c, exit.c ---------------------------------------------------------------------------------------------- */
void svm_vcpu_run(struct vcpu *vcpu, struct engine_exit *exit);
void svm_run_end(struct vcpu *vcpu);
/** What the exit in the VMCB is to core. Interrupts on; may sleep. */
void svm_handle_exit(struct svm_vcpu *svm, struct engine_exit *exit);

/* ---- assist.c --------------------------------------------------------------------------------------------------- */
/** Before an entry: what the guest's NMIs are, as core has them. */
void svm_nmi_load(struct svm_vcpu *svm);
/** After an exit: what became of them. */
void svm_nmi_sync(struct svm_vcpu *svm);
/** Between vcpu->debugctl, vcpu->last_branch and the VMCB. */
void svm_lbr_load(struct svm_vcpu *svm);
void svm_lbr_sync(struct svm_vcpu *svm);
/** The guest is about to take #DB. */
void svm_lbr_stop(struct svm_vcpu *svm);

/* ---- avic.c ----------------------------------------------------------------------------------------------------- */
int svm_avic_vm_init(struct svm_vm *v);
void svm_avic_vm_destroy(struct svm_vm *v);
void svm_avic_vcpu_init(struct svm_vcpu *svm);
/** The engine's ops: core/engine.h. */
bool svm_virtual_interrupts(struct vcpu *vcpu, bool on);
bool svm_interrupt_arrived(struct vcpu *vcpu);
void svm_lapic_changed(struct vcpu *vcpu);
void svm_vcpu_waits(struct vcpu *vcpu, bool waits);
/** The thread is on CPU @cpu, whose local APIC has the ID @apic_id, or leaves it. */
void svm_avic_load(struct svm_vcpu *svm, unsigned cpu, u32 apic_id);
void svm_avic_put(struct svm_vcpu *svm);
/**
 * After svm_virtual_interrupts(), where that set avic_switch: gives AVIC to the VM, or takes it. The vCPU was out of guest code meanwhile, and
 * starts over. May sleep.
 */
void svm_avic_switch(struct svm_vcpu *svm);
/** The task priority, with AVIC or without: into the VMCB; and what the guest has made of it since it was @before, into core's LAPIC. */
void svm_tpr_load(struct svm_vcpu *svm);
void svm_tpr_sync(struct svm_vcpu *svm, u64 before);
/** Into the VMCB, before an entry. */
void svm_avic_entry(struct svm_vcpu *svm);
void svm_avic_incomplete_ipi(struct svm_vcpu *svm);
void svm_avic_noaccel(struct svm_vcpu *svm, struct engine_exit *exit);

/* ---- msr.c ------------------------------------------------------------------------------------------------------ */
#define SVM_MSRPM_PAGES 2
void svm_msrpm_update(struct svm_vcpu *svm);

#endif
