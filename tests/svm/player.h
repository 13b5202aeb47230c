/*
 * A processor with AVIC for engines/svm/avic.c and core's local APICs: what it does by itself, and which exits it takes, as APM 2 15.29 has it. No
 * emulator has AVIC, and no processor with it has run this engine.
 *
 * CPU n of the host, whose local APIC has the ID HOST_ID(n), runs vCPU n.
 *
 *	machine(2, NULL, false);
 *	all_enter();
 *	if (store(0, APIC_ICR, 0x51 | 3 << 18))	the guest on vCPU 0 writes a register
 *		serve(0);			and the engine serves the exit
 *	take(1) == 0x51				the guest on vCPU 1 takes an interrupt
 *	machine_end();
 */
#ifndef TESTS_SVM_PLAYER_H
#define TESTS_SVM_PLAYER_H

#include "core/x86/irqchip/chips.h"
#include "engines/svm/svm.h"
#include "tests/tap.h"

#define PLAYER_CPUS 4
#define HOST_ID(n)  (0x40 + 3 * (n))
#define BASE	    LAPIC_USUAL_ADDRESS

extern int vm_fd, cpu_fd[PLAYER_CPUS];
extern struct vm *vm;
extern struct vcpu *cpu[PLAYER_CPUS];
extern unsigned nr; /* of vCPUs */

/* Random numbers, of each thread its own. */
struct random {
	u64 state;
};
struct random random_begin(u64 seed);
u64 random_next(struct random *r);

/* ---- the host ---- */
extern __thread unsigned this_cpu;	   /* which one runs the caller; 99: one without vCPUs */
extern unsigned doorbells[PLAYER_CPUS];	   /* that came to each CPU */
extern unsigned other_msrs;		   /* writes of MSRs that are no doorbell */
extern u64 mapped_gfn, mapped_phys;	   /* the page of the engine's that the nested tables have; 0: none */
extern bool mapped_wrongly;		   /* while some vCPU ran guest code without AVIC */
extern bool kicks_come_at_once;		   /* a vCPU that is kicked is out of guest code; else it has to look */

/* ---- machines ---- */
bool player_begin(void);
/** vCPUs with these IDs (NULL: 0, 1, 2 ...); their APICs as an operating system leaves them: the PIC's pin masked, flat logical IDs 1, 2, 4 ... */
bool machine(unsigned count, const u32 *ids, bool x2avic);
/** One vCPU and not all chips in core: none, or with @split the local APIC. */
bool bare_machine(bool split);
void machine_end(void);
struct svm_vcpu *svm(unsigned n);
struct svm_vm *svm_vm(void);
/** Writes that are emulated: of the LAPIC's page, of an entry of the I/O APIC. */
void reg_write(unsigned n, unsigned reg, u32 value);
void ioapic_entry(unsigned pin, u64 value);
void line(u32 gsi, int level);
/** Is @vector in the IRR? Nothing requested, nothing told any more. */
bool has(unsigned n, u8 vector);
void forget(unsigned n);

/* ---- the processor ---- */
/** Goes to guest code as core/x86/run.c does. Whether with AVIC; then what the processor needs is in the VMCB. */
bool enter(unsigned n);
void leave(unsigned n);
bool all_enter(void);
/** The vCPU whose register page this is, NULL: none's; that of the page that @n runs with. */
struct vcpu *page_owner(u64 phys);
struct lapic *page_of(unsigned n);
/** What the guest takes now, -1: nothing. */
int take(unsigned n);
enum access { FAULTS, TRAPS, ALLOWED, SERVED };
/** 15.29.3: what a write of the register is. */
enum access of_write(unsigned offset);
/** The guest writes a register, sends an IPI. 0: without an exit, else its code. */
u64 store(unsigned n, unsigned offset, u32 value);
u64 ipi(unsigned n, u32 low, u8 dest);
/** A write, and whatever the engine or the emulator has to do for it. */
void guest_writes(unsigned n, unsigned offset, u32 value);
extern __thread unsigned sent_to; /* vCPUs, by bit, whose IRRs the last IPI of the thread's reached */
extern unsigned wild;	 /* accesses that no table may have led to */
extern bool eoi_clears;	 /* is a level-triggered vector out of the ISR when its EOI exits? The manual does not say */
u64 exit_is(unsigned n, u64 code, u64 info1, u64 info2);
bool incomplete(u64 code, unsigned n, enum avic_ipi_reason reason);
/** What the engine makes of the exit; true: the instruction is to be emulated. */
bool serve(unsigned n);

/* avic_storm.c */
void hostile(void);
void storms(void);

#endif
