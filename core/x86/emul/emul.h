/*
 * The emulator: what one instruction, or one event, does to a processor's state. It knows nothing
 * of VMs: everything beyond struct x86_state goes through struct emul_ops. The kernel modules use it
 * for MMIO, string I/O and real mode; lite for everything it does not translate; the tests against
 * the real CPU.
 *
 *	struct emul e = { .s = &state, .ops = &my_ops };
 *	switch (emul_step(&e)) {
 *	case X86_FAULT: emul_deliver_event(&e, &e.fault); ...
 *
 * Rule that makes everything restartable: a handler changes no state before its last operation that
 * can return anything but X86_CONTINUE. String instructions commit after every element.
 */
#ifndef CORE_X86_EMUL_EMUL_H
#define CORE_X86_EMUL_EMUL_H

#include "core/x86/emul/decode.h"
#include "core/x86/x86.h"

struct emul;

/* Access kinds handed to read/write/cmpxchg, beside the direction. */
#define EMUL_ACC_SYSTEM 1 /* implicit supervisor access (descriptor tables, TSS) at any CPL */
#define EMUL_ACC_RMW	2 /* a read that a write to the same place follows: needs write permission */
#define EMUL_ACC_LOCKED 4 /* part of a locked operation */

/*
 * Every op that returns enum x86_result records its exception with emul_fault() before it returns
 * X86_FAULT. Linear addresses are after segmentation, canonical or 32-bit wrapped already.
 */
struct emul_ops {
	/* Up to 64 bytes at linear address @la, may cross a page; nothing is written unless all of
	 * it can be. */
	enum x86_result (*fetch)(struct emul *e, u64 la, void *buf, unsigned len);
	enum x86_result (*read)(struct emul *e, u64 la, void *buf, unsigned len, unsigned acc);
	enum x86_result (*write)(struct emul *e, u64 la, const void *buf, unsigned len,
				 unsigned acc);
	/* Compare and exchange @len (1, 2, 4, 8, 16) bytes atomically towards other vCPUs, even
	 * across a cache line. *@old receives what was there; *@done whether it was exchanged.
	 * Needs write permission either way. @acc as for write. */
	enum x86_result (*cmpxchg)(struct emul *e, u64 la, void *old, const void *new, unsigned len,
				   unsigned acc, bool *done);
	/* Would an access of @len at @la fault? (ENTER, task switches, XSAVE: probes before
	 * committing.) */
	enum x86_result (*probe)(struct emul *e, u64 la, unsigned len, bool write, unsigned acc);
	/* Ports; permission was checked. One element of @size 1, 2, 4 bytes. */
	enum x86_result (*in)(struct emul *e, u16 port, unsigned size, u32 *value);
	enum x86_result (*out)(struct emul *e, u16 port, unsigned size, u32 value);
	/* Rules of these registers are the implementer's (core/x86/cr.c, msr.c): #GP and side
	 * effects (TLB, mode). CR0/3/4/8. */
	enum x86_result (*set_cr)(struct emul *e, unsigned cr, u64 value);
	enum x86_result (*get_cr)(struct emul *e, unsigned cr, u64 *value);
	enum x86_result (*set_dr)(struct emul *e, unsigned dr, u64 value);
	enum x86_result (*get_msr)(struct emul *e, u32 index, u64 *value);
	enum x86_result (*set_msr)(struct emul *e, u32 index, u64 value);
	enum x86_result (*set_xcr)(struct emul *e, u32 index, u64 value);
	enum x86_result (*rdpmc)(struct emul *e, u32 index, u64 *value);
	/* In: EAX and ECX in [0] and [2]; out: EAX, EBX, ECX, EDX. */
	void (*cpuid)(struct emul *e, u32 regs[4]);
	bool (*has_feature)(struct emul *e, u32 feature); /* X86_FEATURE_* of core/x86/cpuid.h */
	u64 (*rdtsc)(struct emul *e);
	void (*invlpg)(struct emul *e, u64 la);
	enum x86_result (*invpcid)(struct emul *e, u64 type, u64 pcid, u64 la);
	enum x86_result (*hlt)(struct emul *e); /* X86_EXIT; also MWAIT */
	enum x86_result (*pause)(struct emul *e);
	enum x86_result (*hypercall)(struct emul *e);
	enum x86_result (*wbinvd)(struct emul *e);
	/* SIMD, x87, XSAVE family: run the decoded instruction on the guest's register image.
	 * X86_UNHANDLED in the kernel. */
	enum x86_result (*native)(struct emul *e, const struct insn *insn);
	/* SMM: RSM, SDM 3C 31.7; see emul_smm_leave() */
	enum x86_result (*rsm)(struct emul *e);
	/* Optional, all below. IRET ends NMI blocking. */
	void (*nmi_unmasked)(struct emul *e);
	/* The mode, CPL or a segment changed (cached translations keyed by them); after SMM entry,
	 * RSM and task switches CR0, CR3, CR4 and EFER too. */
	void (*mode_changed)(struct emul *e);
	/* One element of a repeated string instruction is committed: answers of the client that it
	 * consumed are no longer needed. True: stop here; the instruction returns X86_CONTINUE with
	 * RIP unmoved and goes on when it is executed again. Without this hook it stops after
	 * EMUL_STRING_BATCH elements. */
	bool (*element_done)(struct emul *e);
	/* RDRAND (@seed: RDSEED): false when there is none now. Without this op they are undefined.
	 */
	bool (*random)(struct emul *e, bool seed, u64 *value);
};

#define EMUL_STRING_BATCH 1024

struct emul {
	struct x86_state *s;
	const struct emul_ops *ops;
	struct insn insn;	/* decoded by emul_step() */
	const struct insn *cur; /* the one being executed, for ops that want to know */
	u64 next_rip; /* committed to s->rip when the handler returned X86_CONTINUE or X86_EXIT */
	struct x86_event fault; /* valid after X86_FAULT */
	bool tf_at_start; /* after an instruction: a #DB trap (DR6.BS) follows it. RFLAGS.TF when it
			     began, mostly */
	u8 after;	  /* the handler's wishes for the commit: EMUL_AFTER_* */
	bool task_switched; /* a fault came after the commit point of a task switch: it belongs to
			       the new task */
	bool general_detect; /* debug registers are guarded as by DR7.GD, whatever the guest's says */
	u8 ext;		    /* while an event is delivered: the EXT bit of error codes */
};

/* @after: the low bits are the new interrupt shadow (SHADOW_*) */
#define EMUL_AFTER_EXIT	   0x40 /* an op returned X86_EXIT: so does the instruction */
#define EMUL_AFTER_KEEP_RF 0x80 /* RFLAGS.RF was set by the instruction itself */

/* Records an exception; always returns X86_FAULT, so that "return emul_fault(...)" reads well. */
enum x86_result emul_fault(struct emul *e, u8 vector);
enum x86_result emul_fault_code(struct emul *e, u8 vector, u32 error);
enum x86_result emul_page_fault(struct emul *e, u64 la, u32 error);

/** Fetches, decodes and executes the instruction at CS:RIP. */
enum x86_result emul_step(struct emul *e);
/** Its first half: e->insn is the instruction at CS:RIP, or X86_FAULT. */
enum x86_result emul_decode(struct emul *e);
/**
 * Executes @insn, already decoded and located at CS:RIP, wherever it is kept: a cache of decoded
 * instructions need not copy. Clears RFLAGS.RF and the interrupt shadow unless the instruction sets
 * them.
 */
enum x86_result emul_exec(struct emul *e, const struct insn *insn);
/** Executes @e->insn, already decoded and located at CS:RIP. Clears the interrupt shadow unless the
 * instruction sets one. */
enum x86_result emul_insn(struct emul *e);
/**
 * Takes @ev through the IDT (or IVT, or a task gate) in whatever mode the processor is. Faults
 * while it does so are merged by SDM 3A table 6-5 into #DF and shutdown. Returns X86_CONTINUE,
 * X86_RETRY, X86_SHUTDOWN.
 */
enum x86_result emul_deliver_event(struct emul *e, const struct x86_event *ev);

/* ---- for implementers of ops->native and fast handlers -------------------------------------- */

/** The effective address (offset in its segment) of @insn's memory operand, truncated to the
 * address size. Not for VSIB. */
u64 emul_effective_address(const struct emul *e, const struct insn *insn);
/**
 * Segmentation: the linear address of @len bytes (0: no access, no checks) at @seg:@ea, with the
 * limit, rights and canonical checks of the mode and, at CPL 3 with CR0.AM and RFLAGS.AC, the
 * alignment check. @write: needs write rights. X86_CONTINUE, or X86_FAULT with #GP(0), #SS(0) or
 * #AC(0).
 */
enum x86_result emul_linear(struct emul *e, unsigned seg, u64 ea, unsigned len, bool write,
			    u64 *la);
/**
 * A repeated string instruction with 32-bit addresses in 64-bit code begins. It counts in ECX, and what writes ECX clears the upper half of
 * RCX (SDM 1 3.4.1.1). Whether that is written, and ESI and EDI, although the count is 0 or the first element faults, the manuals do not
 * say and processors do not agree on: here the host's does it.
 */
void emul_string_begin(struct x86_state *s, const struct insn *insn);
/** Whether CR0, CR4 and XCR0 allow @insn's state (x87 ... AVX-512): X86_CONTINUE, or X86_FAULT with
 * #UD or #NM. */
enum x86_result emul_check_state(struct emul *e, const struct insn *insn);

/* ---- system management mode, SDM 3C 31, APM 2 10 -------------------------------------------- */

/**
 * Saves the state to SMRAM at @smbase + 0xfe00 (@long_mode: the CPU has long mode, AMD64's
 * save-state map, else the 32-bit one) and enters SMM at its entry point. @hlt: the processor was
 * halted (auto-halt restart). X86_CONTINUE, or X86_SHUTDOWN.
 */
enum x86_result emul_smm_enter(struct emul *e, u64 smbase, bool long_mode, bool hlt);
/** RSM: the way back; *@smbase receives the possibly relocated base. X86_CONTINUE, or X86_SHUTDOWN
 * when the saved state is invalid. */
enum x86_result emul_smm_leave(struct emul *e, u64 *smbase, bool long_mode, bool *hlt);

#endif
