/*
 * One way of running guest code: lite, vmx, svm. The table is listed once (ENGINE_OPS); nothing in it has the shape of
 * one vendor's hardware.
 */
#ifndef CORE_ENGINE_H
#define CORE_ENGINE_H

#include "core/x86/x86.h"

struct vm;
struct vcpu;
struct memslot;

/* Why vcpu_run() came back. Core serves all but those marked heavyweight, which go to the client. */
enum exit_reason {
	EXIT_NONE,	  /* a kick or a request: look at vcpu->requests and go on */
	EXIT_IRQ_WINDOW,  /* the guest can take interrupts now, as was asked */
	EXIT_HLT,	  /* insn_len bytes on from RIP */
	EXIT_SHUTDOWN,	  /* triple fault */
	EXIT_USER,	  /* heavyweight: vcpu->run is filled (PIO, MMIO, MSR filter, hypercall ...) */
	EXIT_DEBUG,	  /* heavyweight when the client debugs: exit->debug */
	EXIT_EXCEPTION,	  /* exit->event is to be queued for the guest */
	EXIT_EMULATE,	  /* hardware engines: emulate the instruction at RIP */
	EXIT_PAGE_FAULT,  /* hardware engines: exit->fault_gpa, fault_error (PFERR_*) */
	/* Hardware engines: the instruction at RIP, which has not run; its operands are in the registers or in exit->io, exit->cr. Where
	 * insn_len is 0 the emulator takes it. */
	EXIT_CPUID, EXIT_MSR_READ, EXIT_MSR_WRITE, EXIT_CR, EXIT_DR, EXIT_IO, EXIT_HYPERCALL, EXIT_PAUSE, EXIT_XSETBV,
	EXIT_INTERNAL_ERROR, /* heavyweight: KVM_EXIT_INTERNAL_ERROR, exit->suberror */
	EXIT_EFAULT,	     /* heavyweight: client memory at exit->fault_gpa is not there, KVM_RUN gives -EFAULT */
	EXIT_FAIL_ENTRY,     /* heavyweight: exit->suberror is hardware_entry_failure_reason */
};
#define EXIT_REASONS (EXIT_FAIL_ENTRY + 1)

struct engine_exit {
	enum exit_reason reason;
	u8 insn_len; /* of the instruction at RIP, when the engine knows */
	struct {
		u16 port;
		u8 size; /* 1, 2, 4 */
		bool in, string;
	} io;
	struct {
		u8 nr, gpr; /* MOV CRn, MOV DRn, from or to this general register */
		bool write;
	} cr;
	u64 fault_gpa; /* EXIT_EMULATE, 0: unknown: what the instruction's memory operand at this address met (no page table did) */
	u64 fault_error;
	u64 suberror;
	struct {
		u64 dr6;
		u64 pc;
		u8 vector;
	} debug;
	struct x86_event event;
};

/* Groups of state that an engine may keep in hardware; see vcpu->regs_avail. lite keeps everything in vcpu->x86. */
#define REGS_GPR  1
#define REGS_RIP  2
#define REGS_SEG  4
#define REGS_CR	  8
#define REGS_DR	  16
#define REGS_FPU  32
#define REGS_MSR  64 /* STAR, LSTAR, CSTAR, SFMASK, KernelGSBase, SYSENTER_*, TSC_AUX, PAT */
#define REGS_ALL  127

/* What changed of the guest's address translation, for engine->tlb_flush(). */
enum tlb_scope {
	TLB_ALL,	/* everything, global pages too */
	TLB_NONGLOBAL,	/* CR3 load without PCID, or PCID @arg */
	TLB_PAGE,	/* linear address @arg */
	TLB_PCID,	/* all non-global of PCID @arg (also a CR3 load that switches to it) */
	TLB_SWITCH,	/* CR3 loaded with bit 63: PCID @arg is current and its cached translations are still good */
	TLB_GPA,	/* GPA to host mapping changed: everything that names host memory */
};

/*
 * X(return type, name, arguments). Required unless in ENGINE_OPS_OPTIONAL. Called on the vCPU's own thread with
 * vcpu->mutex held, unless the comment says otherwise.
 */
#define ENGINE_OPS(X) \
	/* Sizes of the engine's structures; struct vm and struct vcpu are their first members. */ \
	X(int, vm_init, (struct vm * vm)) \
	X(void, vm_destroy, (struct vm * vm)) \
	X(int, vcpu_init, (struct vcpu * vcpu)) \
	X(void, vcpu_destroy, (struct vcpu * vcpu)) \
	/* State was replaced from outside (reset, KVM_SET_*): REGS_* groups that no longer hold what the engine cached. */ \
	X(void, state_changed, (struct vcpu * vcpu, unsigned groups)) \
	/* Make vcpu->x86 current for REGS_* groups before core reads them. */ \
	X(void, state_sync, (struct vcpu * vcpu, unsigned groups)) \
	/* Runs guest code. Events to inject were given by inject(). */ \
	X(void, vcpu_run, (struct vcpu * vcpu, struct engine_exit * exit)) \
	/* Takes @ev on the next vcpu_run(), before any instruction. The engine clears vcpu->events.*.injected when delivered; what was not \
	 * delivered when vcpu_run() returns is forgotten, core injects it again. vcpu_run() follows at once. */ \
	X(void, inject, (struct vcpu * vcpu, const struct x86_event *ev)) \
	/* In the next vcpu_run() only: leave guest code (EXIT_IRQ_WINDOW) as soon as an interrupt (nmi: an NMI) could be taken. */ \
	X(void, request_window, (struct vcpu * vcpu, bool nmi)) \
	/* Any thread: make vcpu_run() return EXIT_NONE soon; a request bit is already set. */ \
	X(void, kick, (struct vcpu * vcpu)) \
	X(void, tlb_flush, (struct vcpu * vcpu, enum tlb_scope scope, u64 arg)) \
	/* Any thread, vm->slots_lock held: slot @old is about to vanish, move, or become read-only or dirty-logged. When it \
	 * returns no vCPU uses a translation made from it. */ \
	X(void, slot_flush, (struct vm * vm, const struct memslot *old)) \
	/* Any thread, vm->slots_lock held: the pages of @mask at @gfn (dirty log cleared) must fault or be marked again when next written. \
	 * slot_flush_done() follows a series of these and waits for stale translations. */ \
	X(void, slot_write_protect, (struct vm * vm, const struct memslot *slot, u64 gfn_offset, u64 mask)) \
	X(void, slot_flush_done, (struct vm * vm))

#define ENGINE_OPS_OPTIONAL(X) \
	/* In the next vcpu_run(), the processor delivers the LAPIC's interrupts by itself as the guest comes to take them (core/x86/irqchip: \
	 * lapic_virtual_state()), and inject() is given none of these: if @on, and if it can (the result). Before each vcpu_run(). */ \
	X(bool, virtual_interrupts, (struct vcpu * vcpu, bool on)) \
	/* Any thread: a bit was set in the IRR of the LAPIC's page. True: the vCPU finds it by itself, or its processor was told; false: it has to be \
	 * kicked. With this op the IRR is written by whoever has an interrupt, not by the vCPU's thread alone: see lapic_page(). */ \
	X(bool, interrupt_arrived, (struct vcpu * vcpu)) \
	/* What others find the LAPIC by is another: ID, LDR, DFR, mode, enabled or not. Before the vCPU runs guest code again. */ \
	X(void, lapic_changed, (struct vcpu * vcpu)) \
	/* The vCPU begins to wait for something to happen, or has ended: in between nothing may count on its running. */ \
	X(void, vcpu_waits, (struct vcpu * vcpu, bool waits)) \
	/* Whether the engine sees to the LAPIC's timer while the vCPU does not wait: vcpu_run() returns when lapic_timer_left() is 0, and has called \
	 * lapic_timer_ended(). */ \
	X(bool, keeps_timer, (struct vcpu * vcpu)) \
	/* Any thread, vm->slots_lock held: the writes that the hardware has noted are marked (dirty_mark()) when it returns. */ \
	X(void, slot_dirty_sync, (struct vm * vm)) \
	/* TSC scaling: guest TSC = host TSC * ratio; 0 or -EINVAL. */ \
	X(int, set_tsc_khz, (struct vcpu * vcpu, u32 khz)) \
	/* The thread has come to host CPU @cpu with this vCPU, or leaves it: around every ioctl of the vCPU. They do not sleep. */ \
	X(void, vcpu_load, (struct vcpu * vcpu, unsigned cpu)) \
	X(void, vcpu_put, (struct vcpu * vcpu)) \
	/* KVM_RUN is over: what of the guest's stayed in the CPU between entries (FPU) leaves it. */ \
	X(void, run_end, (struct vcpu * vcpu)) \
	/* The calling CPU, interrupts off: takes the virtualization hardware (0, -EBUSY: another has it, -EIO), gives it back. Called on each CPU \
	 * with the first VM and after the last, and as CPUs come and go. */ \
	X(int, cpu_enable, (void)) \
	X(void, cpu_disable, (void)) \
	/* Engine-specific MSRs: X86_CONTINUE, or X86_UNHANDLED for the common code. */ \
	X(enum x86_result, get_msr, (struct vcpu * vcpu, u32 index, u64 * value)) \
	X(enum x86_result, set_msr, (struct vcpu * vcpu, u32 index, u64 value))

/*
 * A counter of the engine's for KVM_GET_STATS_FD, where it is called ENGINE_NAME: a u64 in what the engine adds to struct vcpu, which
 * the vCPU's thread writes, or to struct vm, written atomically. Tables of them end with a name that is NULL.
 */
struct engine_stat {
	const char *name;
	u32 offset; /* from struct vcpu, struct vm */
	enum stat_kind { STAT_CUMULATIVE, STAT_INSTANT, STAT_PEAK } kind;
	enum stat_unit { STAT_COUNT, STAT_BYTES, STAT_TICKS /* differences of stats_now(), shown in nanoseconds */ } unit;
};

struct engine_ops {
	const char *name;
	size_t vm_size, vcpu_size;
	u32 disable_exits; /* KVM_X86_DISABLE_EXITS_*: what a guest may do without leaving guest code, when the client wishes so */
	const char *hypercall_insn; /* the one of core/x86/hypercall.h that the processor has; NULL: both */
	bool records_branches; /* the last-branch records of REGS_MSR: vcpu->debugctl, vcpu->last_branch */
	size_t vcpu_headroom; /* bytes of the engine's own right below struct vcpu, a multiple of the page size */
	/* CPUID bits the engine can serve, applied to KVM_GET_SUPPORTED_CPUID: clears what it cannot. */
	void (*cpuid_mask)(u32 function, u32 index, u32 regs[4]);
	const struct engine_stat *vm_stats, *vcpu_stats; /* may be NULL */
#define X(ret, name, args) ret(*name) args;
	ENGINE_OPS(X)
	ENGINE_OPS_OPTIONAL(X)
#undef X
};

/** Declared by each engine; libtrine or a module registers one with core_init(). */
extern const struct engine_ops lite_engine;

#endif
