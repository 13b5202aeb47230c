/*
 * Intel VT-x: guest code runs on the processor itself, between VM entry and VM exit. Section numbers are SDM volume 3C's.
 *
 *	caps.c	  what the processor can do, and the controls that follow from it
 *	cpu.c	  VMX operation on each host CPU; which VMCS is loaded where
 *	host.c	  what of the host's state VM entry and exit do not keep
 *	state.c	  vcpu->x86 to and from the VMCS
 *	enter.c	  the entry itself
 *	exit.c	  what an exit means to core
 *	vmx.c	  the engine's table
 *
 * A VMCS is a structure of the processor's, cached by the CPU it is loaded on: struct vmx_vcpu is on one CPU's list from the first
 * VMPTRLD there until a VMCLEAR there. Between vcpu_load() and vcpu_put() VMREAD and VMWRITE work, with preemption on
 * too: the scheduler's hooks are those two.
 */
#ifndef ENGINES_VMX_VMX_H
#define ENGINES_VMX_VMX_H

#include "core/vcpu.h"
#include "core/x86/mmu/mmu.h"
#include "engines/vmx/options.h"
#include "engines/vmx/vmcs.h"

/* caps.c; (i) after vmx_setup() */
struct vmx_caps {
	u32 revision;
	u32 pin, cpu, cpu2, exit, entry; /* controls of every vCPU; a vCPU adds to them */
	u32 cpu2_optional;		 /* RDTSCP, INVPCID: for guests whose CPUID shows them; APIC_ACCESSES, PML: see vmx_vcpu */
	u64 cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
	u64 ept_vpid;
	u8 stay_shift; /* the preemption timer counts when this bit of the TSC changes: A.6 */
	bool efer, pat; /* switched by VM entry and exit */
	bool spec_ctrl, tsc_aux;
	u64 host_xcr0; /* 0: the host does not use XSAVE */
	struct mmu_config mmu;
	void *msr_bitmap, *msr_bitmap_x2apic, *msr_bitmap_all; /* pages: the usual one; with what CPU2_X2APIC serves; every access exits */
};
extern struct vmx_caps vmx_caps;
int vmx_caps_find(void);
void vmx_cpuid_mask(u32 function, u32 index, u32 regs[4]);

/* The MSRs that hold the guest's values from its first entry until vcpu_put(): entry and exit leave them alone. */
enum { SW_STAR, SW_LSTAR, SW_CSTAR, SW_SFMASK, SW_KERNEL_GS_BASE, SW_TSC_AUX, SW_COUNT };

/* The host's own state on this CPU that VM exit does not bring back, and the guest's that is there instead. */
struct vmx_host {
	u64 cr0, cr3, cr4; /* as the VMCS has them */
	u16 ds, es, fs, gs, ldt;
	u64 fs_base;
	bool msrs_in; /* the guest's values are in the CPU: */
	bool left;    /* a VM exit happened since vcpu_load() */
	u64 msr[SW_COUNT], guest_msr[SW_COUNT]; /* the host's; the guest's as they were written */
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) gdt, idt;
};

/* Work before the next entry */
#define FLUSH_LINEAR 1 /* what the guest's own paging made */
#define FLUSH_GPA    2 /* what EPT made */

struct vmx_vm {
	struct vm vm;
	struct mmu *mmu;
	void *apic_access; /* (i) the page that stands for local APICs; NULL: none does */
	struct host_mutex apic_mutex; /* of the two: */
	unsigned apics_elsewhere;     /* vCPUs that have theirs where the page is not, or none: while there are any, no page can stand for them */
	bool apic_mapped;	      /* the nested tables have the page */
};

struct vmx_vcpu {
	struct vcpu vcpu;
	struct vmcs *vmcs; /* (i) */
	u64 vmcs_phys;	   /* (i) */
	struct mmu_vcpu *mmu;
	struct host_fpu *fpu;
	u16 vpid; /* (i) 0: none */
	u64 *pml; /* (i) NULL: none */

	/* cpu.c */
	s32 cpu; /* on whose list this is; -1: on none. (a) changed on that CPU only, interrupts off */
	struct vmx_vcpu *next, **link;
	bool launched; /* VMRESUME, not VMLAUNCH */
	bool written;  /* the constant fields are */
	bool entry_failed; /* by enter.c */
	u64 host_rsp;  /* as the VMCS has it */

	struct vmx_host host;
	bool fpu_in;

	/* As the VMCS has them, so that equal values need no VMWRITE */
	u32 pin_ctl, cpu_ctl, cpu2_ctl, entry_ctl, exceptions;
	u32 interruptibility;
	u64 tsc_offset, tsc_multiplier, pat, root, cr3, msr_bitmap_phys;
	struct vmx_msr_entry *efer_switch; /* without EFER controls: the guest's and the host's, for the MSR areas */

	u64 apic_base; /* as it was when the page was last looked at */
	u8 apic_place; /* enum lapic_place, by that */
	bool apic_elsewhere; /* counted in apics_elsewhere */
	u64 eoi_exits[4];
	u32 stay; /* the preemption timer's value */
	u8 tpr_threshold, svi; /* the latter of the last entry with virtual_interrupts */
	u8 flush;	 /* FLUSH_* */
	bool runnable;	 /* the processor can run the state as it is; else it is emulated */
	bool window_irq, window_nmi;
	bool virtual_interrupts; /* the next entry is with virtual-interrupt delivery */
	bool event_valid, injected; /* for the next entry; at the last */
	bool step_added; /* RFLAGS.TF is the client's single step, not the guest's */
	struct x86_event event;

	/* Of the last exit */
	u32 reason, vectoring;
	u64 qualification;
};

static inline struct vmx_vcpu *to_vmx(struct vcpu *vcpu)
{
	return container_of(vcpu, struct vmx_vcpu, vcpu);
}

/* 24.6.11 */
static inline u64 vmx_eptp(const struct vmx_vcpu *c)
{
	return c->root | EPTP_WRITE_BACK | EPTP_LEVELS(vmx_caps.mmu.levels) | (vmx_options.ept_ad ? EPTP_ACCESSED_DIRTY : 0);
}

static inline struct vmx_vm *to_vmx_vm(struct vm *vm)
{
	return container_of(vm, struct vmx_vm, vm);
}

/* cpu.c */
int vmx_cpus_create(void);
void vmx_cpus_destroy(void);
int vmx_cpu_enable(void);
void vmx_cpu_disable(void);
void vmx_vcpu_load(struct vcpu *vcpu, unsigned cpu);
void vmx_vcpu_put(struct vcpu *vcpu);
/** Off the list of the CPU that has it. */
void vmx_vcpu_unload(struct vmx_vcpu *c);
u16 vmx_vpid_alloc(void); /* 0: all are taken */
void vmx_vpid_free(u16 vpid);
/** Interrupts off, before entry: what tlb_flush() asked for. */
void vmx_flush(struct vmx_vcpu *c);

/* host.c */
void vmx_host_cpu_changed(struct vmx_vcpu *c);
void vmx_host_load(struct vmx_vcpu *c);
void vmx_host_put(struct vmx_vcpu *c);
/** Around an entry, interrupts off. */
struct vmx_inner {
	u64 debugctl, spec_ctrl, dr7, dr[4];
	bool xcr0;
};
void vmx_host_leave(struct vmx_vcpu *c, struct vmx_inner *inner);
void vmx_host_back(struct vmx_vcpu *c, const struct vmx_inner *inner);
/** Makes KernelGSBase in vcpu->x86 current. */
void vmx_host_sync_msrs(struct vmx_vcpu *c);

/* state.c */
/** What the VMCS has from the first vcpu_load() on and never changes. */
void vmx_state_init(struct vmx_vcpu *c);
void vmx_state_sync(struct vcpu *vcpu, unsigned groups);
void vmx_state_changed(struct vcpu *vcpu, unsigned groups);
/** Writes what core changed, decides whether the processor can run it (c->runnable). */
void vmx_state_flush(struct vmx_vcpu *c);
/** After an exit: what is read always. */
void vmx_state_after_exit(struct vmx_vcpu *c);
/** Controls, exceptions, interruptibility for this entry, and the event. */
void vmx_state_entry(struct vmx_vcpu *c, const struct x86_event *event);

/* enter.c */
/** Runs guest code. False: VM entry failed before it began (VMfail, 30.2). Interrupts off. */
bool vmx_enter(struct vmx_vcpu *c);

/* exit.c */
/** Interrupts off, right behind the exit: what is the host's. */
void vmx_exit_first(struct vmx_vcpu *c);
void vmx_exit(struct vmx_vcpu *c, struct engine_exit *exit);
/** @event went through the IDT. */
void vmx_mark_delivered(struct vcpu *vcpu, const struct x86_event *event);
/** Takes @event through the guest's IDT by the emulator. */
void vmx_deliver(struct vmx_vcpu *c, const struct x86_event *event, struct engine_exit *exit);

#endif
