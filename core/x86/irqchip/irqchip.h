/*
 * Interrupt controllers in core: local APIC (SDM 3A chapter 10), I/O APIC, the PIC pair, the PIT, and the routing of GSIs to
 * them. Everything may be called from any thread unless stated; each chip has its own spinlock.
 */
#ifndef CORE_X86_IRQCHIP_H
#define CORE_X86_IRQCHIP_H

#include "core/vcpu.h"

/* ---- a vCPU's view, used by events.c and run.c (vCPU thread) -------------------------------------------------- */
/** An interrupt (LAPIC above its PPR, or the PIC through LINT0 / without LAPIC) waits. Any thread. */
bool irqchip_has_interrupt(struct vcpu *vcpu);
/** The same of what is not the LAPIC's: the PIC's, or the client's with a split irqchip. */
bool irqchip_has_external(struct vcpu *vcpu);
/** Takes the highest one (moves it to in-service); the vector, or -1. */
int irqchip_ack_interrupt(struct vcpu *vcpu);

/* Register offsets of the local APIC's page, SDM 3A table 10-1. */
enum {
	APIC_ID = 0x20, APIC_VERSION = 0x30, APIC_TPR = 0x80, APIC_APR = 0x90, APIC_PPR = 0xa0, APIC_EOI = 0xb0, APIC_RRD = 0xc0,
	APIC_LDR = 0xd0, APIC_DFR = 0xe0, APIC_SVR = 0xf0, APIC_ISR = 0x100, APIC_TMR = 0x180, APIC_IRR = 0x200,
	APIC_ESR = 0x280, APIC_LVT_CMCI = 0x2f0, APIC_ICR = 0x300, APIC_ICR2 = 0x310, APIC_LVT_TIMER = 0x320,
	APIC_LVT_THERMAL = 0x330, APIC_LVT_PERF = 0x340, APIC_LVT_LINT0 = 0x350, APIC_LVT_LINT1 = 0x360,
	APIC_LVT_ERROR = 0x370, APIC_TMICT = 0x380, APIC_TMCCT = 0x390, APIC_TDCR = 0x3e0, APIC_SELF_IPI = 0x3f0,
};

/* ---- lapic.c -------------------------------------------------------------------------------------------------- */
int lapic_create(struct vcpu *vcpu);
void lapic_destroy(struct vcpu *vcpu);
void lapic_reset(struct vcpu *vcpu, bool init);
/** Writes to IA32_APIC_BASE: the state change (enable, x2APIC) was validated here. X86_FAULT: #GP. */
enum x86_result lapic_set_base(struct vcpu *vcpu, u64 value, bool from_client);
enum x86_result lapic_x2apic_read(struct vcpu *vcpu, u32 msr, u64 *value);	/* MSRs 0x800..0x8ff */
enum x86_result lapic_x2apic_write(struct vcpu *vcpu, u32 msr, u64 value);
/** Hyper-V's MSRs for APIC_EOI (write only), APIC_ICR, APIC_TPR, in whatever mode the APIC is. X86_FAULT without one. */
enum x86_result lapic_msr_read(struct vcpu *vcpu, unsigned reg, u64 *value);
enum x86_result lapic_msr_write(struct vcpu *vcpu, unsigned reg, u64 value);
/** The vCPU's thread, out of guest code: moves what has arrived into IRR and TMR. */
void lapic_collect(struct lapic *l);
u64 lapic_get_tsc_deadline(struct vcpu *vcpu);
void lapic_set_tsc_deadline(struct vcpu *vcpu, u64 tsc);
u64 lapic_get_cr8(struct vcpu *vcpu);
void lapic_set_cr8(struct vcpu *vcpu, u64 value);
/**
 * For processors that work on the registers themselves (SDM 3C 29.1): the page of them, which host_page_phys() knows; where the guest
 * has them (as vcpu->apic_base says); the class of the highest request when it waits for a lower TPR, else 0.
 */
void *lapic_page(struct vcpu *vcpu);
enum lapic_place { LAPIC_ELSEWHERE /* or disabled, or the client's */, LAPIC_AT_USUAL_ADDRESS, LAPIC_AT_MSRS } lapic_place(struct vcpu *vcpu);
unsigned lapic_tpr_threshold(struct vcpu *vcpu);
#define LAPIC_USUAL_ADDRESS 0xfee00000ULL
/** lapic_virtual.c, the same thread. Whether a processor can deliver the LAPIC's interrupts as things are. */
bool lapic_may_be_virtual(struct vcpu *vcpu);
struct lapic_virtual {
	u8 requested, in_service; /* the highest vectors of IRR and ISR, or 0: SDM 3C 24.4.2 has them as RVI and SVI */
	u64 eoi_exits[4];	  /* by vector: those whose EOI is not the LAPIC's alone, 24.6.8 */
};
/** What such a processor goes by until it comes back, as the registers are. */
void lapic_virtual_state(struct vcpu *vcpu, struct lapic_virtual *state);
/** The guest wrote the register at @offset, and the page has what it wrote: 29.4.3.3. */
void lapic_written(struct vcpu *vcpu, unsigned offset);
/** The EOI of @vector, which has left the ISR: it goes to whom else it concerns. */
void lapic_eoi_done(struct vcpu *vcpu, u8 vector);
/**
 * The same seam for processors that also send and take what vCPUs send each other, setting bits in the IRRs of others, and that tell of no EOI but
 * those of level-triggered interrupts (AVIC: APM 2 15.29). What stands against it in this vCPU now; 0: nothing does.
 */
enum lapic_obstacle {
	LAPIC_CHIPS_ELSEWHERE = 1, /* no local APIC, or not all chips are core's */
	LAPIC_TAKES_PIC = 2,	   /* the PIC's interrupts come through LINT0, or past a disabled LAPIC: they need windows */
	LAPIC_OTHER_ID = 4,	   /* than the vCPU's number, by which it is found */
	LAPIC_EOI_HEARD = 8,	   /* the VM's: somebody waits for the EOI of an edge-triggered input, as a PIT that repeats ticks does */
	LAPIC_SYNIC = 16,	   /* waits for EOIs of its vectors, or has some that end as they are taken (auto-EOI) */
	LAPIC_HELD_BACK = 32,	   /* by KVM_GUESTDBG_BLOCKIRQ, or what was requested before the LAPIC was disabled by software */
};
unsigned lapic_obstacles(struct vcpu *vcpu);
/** By what the LAPIC is found; any thread. */
struct lapic_names {
	enum lapic_place place;
	bool enabled; /* by software too: it accepts interrupts */
	u32 id;	      /* as its mode has it */
	u8 ldr, dfr;  /* the logical ID and the model's four bits; of an xAPIC */
};
void lapic_get_names(struct vcpu *vcpu, struct lapic_names *names);
/** The page as the guest is to find it, where the processor leaves it as it is. */
void lapic_refresh_page(struct vcpu *vcpu);
/**
 * The guest wrote the ICR (@high as the register is in its mode) and the processor did not do all of it. @requested: the IRRs of all targets have it,
 * but not all of them run; else nothing was done.
 */
void lapic_ipi_left(struct vcpu *vcpu, u32 low, u32 high, bool requested);
/** The guest wrote to EOI while level-triggered @vector was, or still is, the highest in service. */
void lapic_eoi_left(struct vcpu *vcpu, u8 vector);
/** The delivery of @vector, which is in service, did not take place: it is requested again. */
void lapic_take_back(struct vcpu *vcpu, u8 vector);
/** The timer is the engine's to keep (engine->keeps_timer()): ticks of clock_counter() that are left; ~0: it is not, or is not running. */
u64 lapic_timer_left(const struct vcpu *vcpu);
/** Gives the timer's interrupt if nothing is left. */
void lapic_timer_ended(struct vcpu *vcpu);
/** The engine does not keep it any more: the vCPU begins to wait, for this interrupt perhaps. */
void lapic_timer_to_host(struct vcpu *vcpu);
/** Whether reading the register of x2APIC's @msr (0x800..0x8ff) is reading the page: 29.5. */
bool lapic_x2apic_is_plain(u32 msr);
void lapic_get_state(struct vcpu *vcpu, struct kvm_lapic_state *state);
int lapic_set_state(struct vcpu *vcpu, const struct kvm_lapic_state *state);
/** INIT and SIPI that arrived: applied on the vCPU thread by run.c; true when mp_state changed. */
bool lapic_accept_events(struct vcpu *vcpu);
bool lapic_has_init_or_sipi(struct vcpu *vcpu);
/** NMI on LINT1 / LINT0 (KVM_NMI does not pass here). */
void lapic_deliver_lvt(struct vcpu *vcpu, unsigned lvt);
u32 lapic_id(const struct vcpu *vcpu);
/** The TSC offset or frequency changed: re-arm a TSC-deadline timer. */
void lapic_tsc_changed(struct vcpu *vcpu);

/* ---- delivery (irq.c) ----------------------------------------------------------------------------------------- */
struct lapic_irq {
	u32 dest;
	bool logical, level, assert, redirect_hint;
	u8 vector, delivery_mode;	/* SDM 3A 10.6.1: 0 fixed, 1 lowest, 2 SMI, 4 NMI, 5 INIT, 6 SIPI, 7 ExtINT */
	u8 shorthand;			/* 0 none, 1 self, 2 all, 3 all but self */
};
/** How many vCPUs got it; -1 none. @src NULL from a device. */
int irq_deliver(struct vm *vm, struct vcpu *src, const struct lapic_irq *irq);
/** The IRRs of all destinations of @irq have it already: those that do not look by themselves are told. */
void irq_tell(struct vm *vm, struct vcpu *src, const struct lapic_irq *irq);
/** Moves line @gsi for @source (IRQ_SOURCE_* of chips.h; 0 is the client). In an srcu section. > 0 delivered, 0 pending already, -1 masked or unrouted. */
int irq_set_gsi(struct vm *vm, unsigned source, u32 gsi, int level);
int irq_send_msi(struct vm *vm, u64 address, u32 data);
int irq_routing_default(struct vm *vm);	/* PIC 0-15, I/O APIC 0-23 */
int irq_set_routing(struct vm *vm, const struct kvm_irq_routing_entry *entries, unsigned nr);
/** An EOI that acknowledges line @pin of @chip (KVM_IRQCHIP_*): irqfd resample, PIT. */
struct irq_ack_notifier {
	struct irq_ack_notifier *next;
	u32 gsi;
	void (*acked)(struct irq_ack_notifier *n);
};
void irq_register_ack_notifier(struct vm *vm, struct irq_ack_notifier *n);
void irq_unregister_ack_notifier(struct vm *vm, struct irq_ack_notifier *n);
void irq_notify_acked(struct vm *vm, unsigned chip, unsigned pin);
/** Whether anybody is told then. */
bool irq_has_ack_notifier(struct vm *vm, unsigned chip, unsigned pin);
/** The same of the SynIC: virtual processor @vp is done with its @sint. */
void irq_notify_sint_acked(struct vm *vm, u32 vp, u32 sint);

/* ---- ioctls, called by x86_vm_ioctl ----------------------------------------------------------------------------- */
int irqchip_create(struct vm *vm);			/* KVM_CREATE_IRQCHIP */
int irqchip_enable_split(struct vm *vm, u64 pins);	/* KVM_CAP_SPLIT_IRQCHIP */
void irqchip_destroy(struct vm *vm);
int irqchip_get(struct vm *vm, struct kvm_irqchip *chip);
int irqchip_set(struct vm *vm, const struct kvm_irqchip *chip);
int pit_create(struct vm *vm, u32 flags);
void pit_destroy(struct vm *vm);
int pit_get(struct vm *vm, struct kvm_pit_state2 *state);
int pit_set(struct vm *vm, const struct kvm_pit_state2 *state);
int pit_reinject(struct vm *vm, bool on);

#endif
