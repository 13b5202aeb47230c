/*
 * What the interrupt chips show to each other; irqchip.h is what the rest of core sees.
 */
#ifndef CORE_X86_IRQCHIP_CHIPS_H
#define CORE_X86_IRQCHIP_CHIPS_H

#include "core/x86/irqchip/irqchip.h"

/* Who holds a line up: a line is the OR of its sources. */
#define IRQ_SOURCE_USER	    0 /* KVM_IRQ_LINE, plain irqfd */
#define IRQ_SOURCE_RESAMPLE 1 /* irqfd with a resample eventfd */
#define IRQ_SOURCE_PIT	    2

#define PIC_PINS 16
#define PIC_CASCADE_PIN 2

/* The two 8259As. */
struct pic {
	struct vm *vm;			/* (i) */
	struct host_spinlock lock;
	struct kvm_pic_state chip[2];	/* (lock) master, slave; the API's own form */
	u8 sources[PIC_PINS];		/* (lock) */
	bool output;			/* (lock for writing, a for reading) the INTR line */
	struct io_device master, slave, elcr[2];
};

int pic_create(struct vm *vm);
void pic_destroy(struct vm *vm);
/** Moves line @pin (0..15). 1 it makes a new interrupt, 0 it was pending already or went down, -1 masked. */
int pic_set_irq(struct pic *pic, unsigned pin, unsigned source, bool level);
static inline bool pic_output(const struct pic *pic)
{
	return pic && __atomic_load_n(&pic->output, __ATOMIC_ACQUIRE);
}
/** INTA: the vector of the highest request (the spurious one of input 7 if there is none). */
u8 pic_ack(struct pic *pic);
void pic_get(struct pic *pic, unsigned chip, struct kvm_pic_state *state);
void pic_set(struct pic *pic, unsigned chip, const struct kvm_pic_state *state);

#define IOAPIC_PINS KVM_IOAPIC_NUM_PINS

struct ioapic {
	struct vm *vm;			/* (i) */
	struct host_spinlock lock;
	struct kvm_ioapic_state s;	/* (lock) */
	u8 sources[IOAPIC_PINS];	/* (lock) */
	u64 edge_vectors[4];		/* (lock for writing, a for reading) of edge-triggered inputs whose EOI somebody waits for */
	struct io_device dev;
};

int ioapic_create(struct vm *vm);
void ioapic_destroy(struct vm *vm);
/** As pic_set_irq(), for input @pin (0..23). */
int ioapic_set_irq(struct ioapic *ioapic, unsigned pin, unsigned source, bool level);
/** A local APIC broadcasts the EOI of level-triggered @vector, or of one of edge_vectors. */
void ioapic_eoi(struct ioapic *ioapic, u8 vector);
/** Who is told of EOIs, or what leads to which input, is another: finds edge_vectors. */
void ioapic_notifiers_changed(struct ioapic *ioapic);
static inline u64 ioapic_edge_vectors(const struct ioapic *ioapic, unsigned word)
{
	return ioapic ? __atomic_load_n(&ioapic->edge_vectors[word], __ATOMIC_RELAXED) : 0;
}
void ioapic_get(struct ioapic *ioapic, struct kvm_ioapic_state *state);
void ioapic_set(struct ioapic *ioapic, const struct kvm_ioapic_state *state);

#define APIC_LVT_MASKED	    BIT64(16)
#define APIC_SVR_ENABLED    BIT64(8)
#define APIC_DELIVERY_MODE(x) (((x) >> 8) & 7)
#define APIC_TIMER_MODE(x)  (((x) >> 17) & 3)
enum { APIC_TIMER_ONESHOT, APIC_TIMER_PERIODIC, APIC_TIMER_DEADLINE };
enum { APIC_DM_FIXED, APIC_DM_LOWEST, APIC_DM_SMI, APIC_DM_RESERVED, APIC_DM_NMI, APIC_DM_INIT, APIC_DM_SIPI, APIC_DM_EXTINT };

#define APIC_BASE_BSP	 BIT64(8)
#define APIC_BASE_EXTD	 BIT64(10)
#define APIC_BASE_ENABLE BIT64(11)
#define APIC_BASE_ADDR	 MASK64(51, 12)
#define APIC_DEFAULT_BASE LAPIC_USUAL_ADDRESS

/*
 * A local APIC. The register page belongs to its vCPU's thread, and while guest code runs perhaps to the processor, which then wants nobody else
 * to write there (SDM 3C 24.11.4): other threads leave interrupts beside it, set the latches of INIT and SIPI, and read registers. All of
 * that is atomic, so there is no lock but the timer's.
 */
struct lapic {
	struct vcpu *vcpu;	/* (i) */
	u32 *regs;		/* (a) one page, in the layout of struct kvm_lapic_state */
	u32 arrived[8];		/* (a) by vector: what lapic_collect() will move into the IRR */
	u32 arrived_level[8];	/* (a) which of these will be set in the TMR */
	u32 arrived_words;	/* (a) which words of @arrived have something */
	u32 esr_latch;		/* (a) errors since the last write to ESR */
	u32 init_sipi;		/* (a) LAPIC_INIT, LAPIC_SIPI */
	u32 sipi_vector;	/* (a) */

	u8 timer_mode, timer_shift; /* (v) what the timer goes by; the page may already have what the guest has written since */
	struct host_timer timer;
	struct host_spinlock timer_lock;
	u64 period_ns;		/* (timer_lock) 0 unless periodic */
	u64 target_ns;		/* (timer_lock) when the timer fires next, host_now_ns(); 0 stopped */
	u64 tsc_deadline;	/* (timer_lock) the MSR's value; 0 disarmed */
	/* Written with the lock by the vCPU's thread, which reads them without: no timer of the host's runs, the engine leaves guest code at @due. */
	bool by_engine;
	u64 due;		/* clock_counter() */
};
#define LAPIC_INIT 1
#define LAPIC_SIPI 2

static inline u32 lapic_reg(const struct lapic *l, unsigned offset)
{
	return __atomic_load_n(&l->regs[offset / 4], __ATOMIC_RELAXED);
}
static inline void lapic_set_reg(struct lapic *l, unsigned offset, u32 value)
{
	__atomic_store_n(&l->regs[offset / 4], value, __ATOMIC_RELAXED);
}
/* A bit of a 256-bit register; the vCPU's thread. */
static inline void lapic_set_vector(struct lapic *l, unsigned reg, u8 vector)
{
	reg += vector / 32 * 16;
	lapic_set_reg(l, reg, lapic_reg(l, reg) | 1U << (vector % 32));
}
static inline void lapic_clear_vector(struct lapic *l, unsigned reg, u8 vector)
{
	reg += vector / 32 * 16;
	lapic_set_reg(l, reg, lapic_reg(l, reg) & ~(1U << (vector % 32)));
}
/* The IRR may be the processors', and those of other vCPUs, to write at the same time: engine->interrupt_arrived(). */
static inline u32 lapic_set_requests(struct lapic *l, unsigned word, u32 bits) /* what was set before */
{
	return __atomic_fetch_or(&l->regs[APIC_IRR / 4 + word * 4], bits, __ATOMIC_SEQ_CST);
}
static inline void lapic_clear_request(struct lapic *l, u8 vector)
{
	__atomic_fetch_and(&l->regs[APIC_IRR / 4 + vector / 32 * 4], ~(1U << (vector % 32)), __ATOMIC_SEQ_CST);
}
static inline bool lapic_test_vector(const struct lapic *l, unsigned reg, u8 vector)
{
	return lapic_reg(l, reg + vector / 32 * 16) & (1U << (vector % 32));
}
static inline bool lapic_is_x2apic(const struct lapic *l)
{
	return (__atomic_load_n(&l->vcpu->apic_base, __ATOMIC_RELAXED) & (APIC_BASE_EXTD | APIC_BASE_ENABLE)) ==
	       (APIC_BASE_EXTD | APIC_BASE_ENABLE);
}
static inline bool lapic_hw_enabled(const struct lapic *l)
{
	return __atomic_load_n(&l->vcpu->apic_base, __ATOMIC_RELAXED) & APIC_BASE_ENABLE;
}
static inline bool lapic_sw_enabled(const struct lapic *l)
{
	return lapic_hw_enabled(l) && (lapic_reg(l, APIC_SVR) & APIC_SVR_ENABLED);
}
/** Does @l take interrupts of the PIC: through LINT0 in ExtINT mode, or past a disabled APIC (SDM 3A 10.1). */
bool lapic_accepts_pic(const struct lapic *l);
/** A message for this APIC, already matched. 1 accepted, 0 was pending already, -1 refused. Any thread. */
int lapic_accept(struct lapic *l, const struct lapic_irq *irq);
/** Is @l a destination of @irq (shorthand 0)? */
bool lapic_matches(const struct lapic *l, struct vcpu *src, const struct lapic_irq *irq);
/** Highest vector in a 256-bit register of eight words, -1 if none. */
int lapic_highest(const struct lapic *l, unsigned reg);
/** Highest vector that is requested: in the IRR, or on its way there. Any thread. */
int lapic_highest_request(const struct lapic *l);
u32 lapic_ppr(const struct lapic *l);
#define APIC_ESR_SEND_ILLEGAL BIT64(5)
#define APIC_ESR_RECV_ILLEGAL BIT64(6)
#define APIC_ESR_REGISTER     BIT64(7)
/** An APIC_ESR_* bit arises; the first since the guest looked interrupts. Any thread. */
void lapic_error(struct lapic *l, u32 bit);
/** A register as the guest reads it. vCPU thread. */
u32 lapic_read_reg(struct lapic *l, unsigned offset);
/** What a write of the ICR sends: its lower half, and its destination. */
void lapic_send_ipi(struct lapic *l, u32 low, u32 dest);
struct lapic_irq lapic_ipi(u32 low, u32 dest);
/** EOI for the highest vector in service. */
void lapic_eoi(struct lapic *l);
#define APIC_ICR_BUSY BIT64(12)
/** What follows from a write to register @offset, in xAPIC mode or through an x2APIC MSR (then already checked). */
void lapic_write_reg(struct lapic *l, unsigned offset, u32 value);
/** SDM 3A table 10-6. */
bool lapic_x2apic_readable(unsigned offset);
#define X2APIC_MSR 0x800

/** The register page as an in-kernel device: each vCPU reaches its own. */
int lapic_mmio_read(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, void *buf);
int lapic_mmio_write(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, const void *buf);

/* lapic_timer.c */
void lapic_timer_init(struct lapic *l);
void lapic_timer_destroy(struct lapic *l);
/** TMICT or the mode changed: starts anew from @count bus cycles (1 ns each) of the divided clock. vCPU thread. */
void lapic_timer_start(struct lapic *l, u32 count);
/**
 * The registers were set as a whole, the current count with them: goes on from there. No client tells whether a one-shot timer with
 * nothing left has given its interrupt: it gives one, as the guest can bear one too many and not one too few. A periodic one with
 * nothing left begins its period.
 */
void lapic_timer_resume(struct lapic *l);
void lapic_timer_stop(struct lapic *l);
u32 lapic_timer_current(struct lapic *l);
/** LVT timer was written: in another mode the timer is disarmed, SDM 3A 10.5.4.1. */
void lapic_timer_set_mode(struct lapic *l);
/** TDCR was written: what is left is counted at the new speed. */
void lapic_timer_set_divisor(struct lapic *l);
/** All registers were replaced; the timer stands. */
void lapic_timer_replaced(struct lapic *l);

/* irq.c: the routing table in force */
struct irq_route {
	u32 gsi, type; /* KVM_IRQ_ROUTING_IRQCHIP, _MSI or _HV_SINT */
	u32 chip, pin; /* of the latter: virtual processor and SINT */
	u64 msi_address;
	u32 msi_data;
};
struct irq_routing {
	u32 nr;
	u32 first[VM_MAX_IRQ_ROUTES + 1]; /* entries of GSI g: first[g] .. first[g + 1] - 1 */
	s32 gsi_of[3][IOAPIC_PINS];	  /* chip and pin to GSI; -1 */
	struct irq_route route[];
};

#endif
