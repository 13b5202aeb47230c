/*
 * A virtual CPU. The lock legend stands in core/vm.h. A vCPU is run by one client thread at a time (vcpu->mutex); other
 * threads reach it through requests and kicks only.
 */
#ifndef CORE_VCPU_H
#define CORE_VCPU_H

#include "core/vm.h"
#include "core/x86/emul/emul.h"
#include "core/x86/x86.h"

/* Work for the vCPU's own thread before it enters the guest again: bits of vcpu->requests. */
enum vcpu_request {
	REQ_TLB_FLUSH,		/* every translation, guest-physical ones too (TLB_GPA) */
	REQ_EVENT,		/* look for interrupts again */
	REQ_NMI, REQ_SMI,
	REQ_TRIPLE_FAULT,
	REQ_CLOCK_UPDATE,	/* write kvmclock's page again */
	REQ_STEAL_UPDATE,
	REQ_APIC,		/* INIT or SIPI arrived, LAPIC timer */
	REQ_DIRTY_FULL,		/* leave with KVM_EXIT_DIRTY_RING_FULL */
	REQ_UNBLOCK,		/* wake from HLT without an event */
	REQ_EXIT,		/* vm_kill */
	REQ_ACK,		/* leave guest code once, for vm_request_all(wait) */
	REQ_SCAN_IOAPIC,
	REQ_IOAPIC_EOI,		/* leave with KVM_EXIT_IOAPIC_EOI for vcpu->pending_ioapic_eoi (split irqchip) */
	REQ_IO,			/* a queued write waits for the client */
	REQ_SLOTS,		/* leave the srcu section once: memslots or another (s) field were replaced */
	REQ_SIGNAL,		/* a signal arrived: look at host_signal_pending() */
	REQ_TLB_GUEST,		/* every translation of the guest's */
	REQ_HYPERV_EXIT,	/* leave for vcpu->hyperv->exit */
	REQ_HYPERV_STIMER,	/* a synthetic timer expired, or its message may go now */
	REQ_HYPERV_FLUSH,	/* wait until the vCPUs of vcpu->hyperv->left have left guest code */
};

/* Where the vCPU thread is; (a). A kick matters in VCPU_IN_GUEST and VCPU_SLEEPING only. */
enum vcpu_place { VCPU_OUTSIDE, VCPU_IN_CORE, VCPU_IN_GUEST, VCPU_SLEEPING };

#define VCPU_USER_EXITS (KVM_EXIT_NOTIFY + 1)

/* What a vCPU's time goes to. */
enum vcpu_time {
	TIME_MONITOR, /* the client, outside of KVM_RUN */
	TIME_CORE,    /* KVM_RUN, but for: */
	TIME_GUEST,   /* engine->vcpu_run() */
	TIME_HALT,    /* waiting */
	VCPU_TIMES
};

/* Statistics by their KVM names; lives in a page that KVM_GET_STATS_FD reads. */
struct vcpu_stats {
	u64 exits, io_exits, mmio_exits, halt_exits, halt_wakeup, halt_successful_poll, halt_attempted_poll, irq_exits, irq_injections, nmi_injections,
		signal_exits, irq_window_exits, nmi_window_exits, request_irq_exits, insn_emulation, insn_emulation_fail, hypercalls, fpu_reload,
		tlb_flush, invlpg, pf_taken, pf_fixed, pf_emulate, req_event, guest_mode;
	u64 exit_reason[EXIT_REASONS];		 /* returns of engine->vcpu_run() */
	u64 user_exit[VCPU_USER_EXITS], user_exit_error; /* returns of KVM_RUN */
	u64 time_ns[VCPU_TIMES];
};

/* Events as KVM_GET_VCPU_EVENTS knows them; (v). */
struct vcpu_events {
	struct {
		bool pending;	/* raised, not yet through the IDT */
		bool injected;	/* handed to the engine; delivery may have to be repeated */
		struct x86_event ev;
	} exception;
	struct {
		bool injected, soft;
		u8 vector, soft_len;
	} interrupt;
	struct {
		bool injected;
		u32 pending;	/* (a) 0..2 */
	} nmi;		/* masked: vcpu->x86.nmi_masked */
	bool smi_pending, smi_latched_init;
	bool triple_fault;
};

/*
 * Accesses that only the client can answer. Owner: core/x86/vcpu_emul.c.
 *
 * A read makes the instruction return X86_RETRY, nothing changed; the client answers; vcpu_complete_io() runs that one
 * instruction again (emul_step with vcpu->emul), which finds its answers here, in order. A write is queued, the
 * instruction goes on, and vcpu_insn_done() turns its X86_CONTINUE into X86_EXIT. So whoever executes an instruction with
 * these ops ends with:
 *
 *	r = vcpu_insn_done(vcpu, emul_insn(&vcpu->emul));
 *	if (r == X86_EXIT || r == X86_RETRY)
 *		return vcpu_emul_exit(vcpu, r, exit);
 */
#define IO_MAX_FRAGMENTS 16
struct io_fragment {
	u64 addr;
	u8 len;	 /* 1..8 */
	u8 kind; /* IO_PIO, IO_MMIO */
	u8 data[8];
};
/* Which element of which instruction an answer belongs to: a string instruction commits element by element. */
struct io_key {
	u64 rip, cx, si, di;
};
struct vcpu_io {
	struct io_key key;				/* of @answered */
	struct io_fragment answered[IO_MAX_FRAGMENTS];	/* reads already answered for this instruction */
	u8 nr_answered, next_answer;
	struct io_key write_key;			/* when the first of @writes was queued */
	struct io_fragment writes[IO_MAX_FRAGMENTS];	/* for the client, in order */
	u8 nr_writes, next_write;
	struct io_fragment pending_read;		/* the one the client is answering */
	bool read_pending, write_pending;		/* what run->mmio or run->io asks for now */
	bool for_event;					/* the read is the delivery of an event's, not an instruction's */
	bool in_core;					/* vcpu_emulate() runs: what it reads is the instruction's */
	bool decoded;					/* vcpu->emul.insn is the one at @key, which waits for its reads */
	u64 operand_gpa;				/* where its only memory operand is, when the hardware told; 0 */
	u8 exit; /* enum exit_reason that an op which returned X86_EXIT asks for; EXIT_NONE: none */
	s16 error; /* -errno of KVM_RUN, with EXIT_USER */
	u64 pending_dr6; /* debug traps of an instruction that went to the client first: they follow its answer */
	struct {
		u8 len, size; /* @len 0: none */
		u64 rip;
	} in; /* IN that the engine decoded waits for its value */
	/*
	 * REP INS and REP OUTS move up to a page per exit; the data lie in the second page of the run area. IN: the client
	 * fills @count elements, of which @next were consumed. OUT: @count elements collected so far.
	 */
	struct {
		u8 state; /* enum io_batch */
		u8 size;
		u16 port;
		u32 count, next;
		u64 rip;
	} batch;
};
enum io_batch { IO_BATCH_NONE, IO_BATCH_IN_ASKED, IO_BATCH_IN_READY, IO_BATCH_OUT, IO_BATCH_OUT_ASKED };

enum msr_exit { MSR_EXIT_NONE, MSR_EXIT_ASKED, MSR_EXIT_ANSWERED };

struct vcpu {
	struct host_file file;
	struct vm *vm;		/* (i) */
	u32 id;			/* (i) KVM's vcpu_id = initial APIC ID */
	u32 idx;		/* (i) place in vm->vcpus */
	struct host_mutex mutex;
	struct kvm_run *run;	/* (i) shared with the client: read each field once, check it */
	struct host_shared run_area;	/* page 0 kvm_run, page 1 PIO data */
	struct host_shared stats_area;
	struct vcpu_stats *stats;
	struct host_stats_dir *stats_dir;	/* (i) */
	struct {
		u64 since;	/* (v) stats_now() when the running one began */
		u64 ticks[VCPU_TIMES];
		u64 copied;	/* stats_now() of the last stats_sync() */
	} time;

	u64 requests;		/* (a) bits of enum vcpu_request */
	u8 place;		/* (a) enum vcpu_place */
	bool immediate_kick;	/* (a) */
	struct host_sched sched; /* of the thread in an ioctl */
	struct host_wait wait;
	bool (*sleep_ready)(struct vcpu *vcpu);	/* (v) what vcpu_sleep() waits for */
	u32 halt_poll_ns;	/* (v) how long vcpu_sleep() spins first */
	int srcu_idx;		/* (v) of the open read section while in KVM_RUN */

	struct x86_state x86;	/* (v) architectural state */
	struct emul emul;	/* (v) .s = &x86, .ops = &vcpu_emul_ops or the engine's */
	struct vcpu_events events;
	struct vcpu_io io;
	u32 mp_state;		/* (v), KVM_MP_STATE_*; SIPI and INIT arrive through the LAPIC */
	u32 regs_avail;		/* (v) REGS_* current in x86 */
	u32 regs_dirty;		/* (v) REGS_* that the engine must load */

	/* FPU and extended state: the guest's XSAVE area in the standard format, always valid when the engine is not in guest code. */
	u8 *xsave;		/* (v) page-aligned, xsave_size bytes */
	u32 xsave_size;
	u64 guest_supported_xcr0;	/* (v) from CPUID leaf 0xD */
	u64 ia32_xss;

	/* CPUID: (v) after KVM_SET_CPUID2, fixed once guest code has run */
	bool has_run;
	struct kvm_cpuid_entry2 *cpuid;
	u32 nr_cpuid;
	u32 features[32];	/* by X86_FEATURE_* word, core/x86/cpuid.h */
	u8 maxphyaddr;
	u64 rsvd_gpa;		/* bits of a page table entry's address that must be zero */
	u64 cr4_reserved, efer_allowed;
	u32 pv_features;	/* KVM_CPUID_FEATURES eax */
	bool pv_enforced;	/* KVM_CAP_ENFORCE_PV_FEATURE_CPUID: the guest has no others */

	/* MSRs that are state only; (v) */
	u64 pat, mtrr_def_type, mtrr_fixed[11], mtrr_var[16];
	u64 misc_enable, apic_base, feature_control, arch_capabilities, spec_ctrl, smi_count, smbase, microcode_version;
	u64 power_ctl;
	u64 debugctl, last_branch[4]; /* REGS_MSR; DEBUGCTL.LBR alone, 0 without engine->records_branches; FROM, TO, those of the last exception */
	u64 mcg_status, mcg_cap, mcg_ctl, mce_banks[32 * 4], platform_info, misc_features;
	u64 tsc_offset, tsc_adjust, tsc_deadline;
	u64 host_tsc_offset; /* what an engine gives to the processor: tsc_offset, and what the host's TSC lost while the machine slept */
	u32 tsc_khz;
	u64 tsc_ratio;	/* 32.32 fixed point guest/host, 1 << 32 when equal */
	/* Paravirtual (SDM has none: the KVM API document, x86 MSRs) */
	u64 kvmclock_msr, wall_clock_msr, steal_msr, async_pf_msr, async_pf_int_msr, pv_eoi_msr, poll_control;
	u64 steal_last_ns; /* (v) run delay accounted for */
	u32 clock_version;	/* of the kvmclock page, even */
	bool clock_guest_stopped;	/* KVM_KVMCLOCK_CTRL: tell the guest at the next update */

	/* Interrupts */
	struct lapic *lapic;	/* (i) NULL without an in-kernel LAPIC */
	bool request_irq_window;	/* (v) run->request_interrupt_window seen */
	s16 pending_external_vector;	/* (v) KVM_INTERRUPT's ExtINT with a split irqchip; -1: none */
	u8 pending_ioapic_eoi;		/* (v) vector, with REQ_IOAPIC_EOI */
	bool smm_inside_nmi;		/* (v) the SMI came while NMIs were masked */
	bool pv_unhalted;		/* (a) KVM_HC_KICK_CPU: wake from HLT once */

	/* Debugging by the client; (v) */
	u32 guest_debug;	/* KVM_GUESTDBG_* */
	u64 guest_debug_dr[4], guest_debug_dr7;
	u64 singlestep_rip;
	u64 eff_dr[4], eff_dr7;	/* what breakpoints are live: the guest's, or the client's */
	u64 debug_hits;		/* DR6 bits of data and I/O breakpoints that the running instruction met */

	struct host_shared dirty_ring;	/* (i) once created */
	u32 dirty_ring_size, dirty_index, dirty_reset_index, dirty_soft_limit;	/* (v), reset under slots_lock */
	bool sigmask_set;
	u64 sigmask;		/* (v) KVM_SET_SIGNAL_MASK */
	u64 last_exit_ns;
	struct {
		u8 state;	/* enum msr_exit: an MSR access that the client decides */
		bool error, write;
		u32 index, reason;
		u64 data, rip;
	} msr_exit;
	struct hv_vcpu *hyperv;	/* (i) */
	bool hypercall_pending;	/* KVM_EXIT_HYPERCALL: RAX comes from run->hypercall.ret */
};

/* ---- core/vcpu.c ---------------------------------------------------------------------------------------------- */
int vm_create_vcpu(struct vm *vm, u32 id);	/* descriptor or -errno */
void vcpu_destroy(struct vcpu *vcpu);		/* vm.c, when the VM goes */
/** Sets the bit; does not make the vCPU look. */
static inline void vcpu_set_request(struct vcpu *vcpu, enum vcpu_request req)
{
	__atomic_fetch_or(&vcpu->requests, BIT64(req), __ATOMIC_SEQ_CST);
}
static inline bool vcpu_test_request(struct vcpu *vcpu, enum vcpu_request req)
{
	return __atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE) & BIT64(req);
}
static inline bool vcpu_take_request(struct vcpu *vcpu, enum vcpu_request req)
{
	return (__atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE) & BIT64(req)) &&
	       (__atomic_fetch_and(&vcpu->requests, ~BIT64(req), __ATOMIC_SEQ_CST) & BIT64(req));
}
/** Any thread: makes the vCPU leave guest code or wake up, so that it looks at its requests. Never lost. */
void vcpu_kick(struct vcpu *vcpu);
static inline void vcpu_request_kick(struct vcpu *vcpu, enum vcpu_request req)
{
	vcpu_set_request(vcpu, req);
	vcpu_kick(vcpu);
}
/** Sends @req to all vCPUs and, with @wait, returns when each has left guest code since. Never with a vcpu->mutex whose vCPU is in guest. */
void vm_request_all(struct vm *vm, enum vcpu_request req, bool wait);
/** The same in two steps for the vCPUs whose bits, by index, are set in @which (NULL: all). The second waits for those that have not left
 *  guest code since the first. */
void vm_request_some(struct vm *vm, enum vcpu_request req, const u64 *which);
void vm_wait_left(struct vm *vm, const u64 *which);
/**
 * For the loop of KVM_RUN, before each entry of guest code and after each sleep, in the open srcu section: immediate_exit and
 * signals, vm_kill, a full dirty ring; takes REQ_SLOTS, REQ_ACK, REQ_SIGNAL, REQ_EXIT, REQ_DIRTY_FULL and leaves and re-opens the srcu
 * section where that is asked for (so pointers read under it are stale afterwards). 0: go on; 1: vcpu->run is filled, leave
 * with 0; -EINTR (run->exit_reason = KVM_EXIT_INTR); -EIO.
 */
int vcpu_check_exit(struct vcpu *vcpu);
/** The vCPU's own srcu section: open throughout x86_vcpu_run() except in vcpu_sleep(). core/vcpu.c opens it before x86_vcpu_run(). */
static inline void vcpu_srcu_lock(struct vcpu *vcpu)
{
	vcpu->srcu_idx = host_srcu_read_lock(&vcpu->vm->srcu);
}
static inline void vcpu_srcu_unlock(struct vcpu *vcpu)
{
	host_srcu_read_unlock(&vcpu->vm->srcu, vcpu->srcu_idx);
}
/**
 * Declares that guest code is about to run, so that kicks reach it. False: a request or immediate_exit is due, look at those
 * first. Pair with vcpu_leave_guest() after engine->vcpu_run().
 */
static inline bool vcpu_enter_guest(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->place, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
	if (likely(!(__atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) |
		     __atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_RELAXED))))
		return true;
	__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
	return false;
}
static inline void vcpu_leave_guest(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
}
/**
 * HLT and its kin: sleeps, outside of the srcu section, until @ready, a request, immediate_exit, or a signal. 0 or -EINTR
 * (a signal; vcpu_check_exit() says the same). Keeps the halt statistics.
 */
int vcpu_sleep(struct vcpu *vcpu, bool (*ready)(struct vcpu *vcpu));
/** Which memslots view the vCPU uses: 1 in SMM. */
static inline unsigned vcpu_as_id(const struct vcpu *vcpu)
{
	return vcpu->x86.smm;
}

/* ---- core/x86: one header would be a hundred lines each; they are together here, by file ------------------------------- */
/* vcpu_ioctl.c */
int x86_vcpu_init(struct vcpu *vcpu);
void x86_vcpu_destroy(struct vcpu *vcpu);
/** @vcpu comes to a CPU. */
void x86_vcpu_load(struct vcpu *vcpu);
/** @data: core's copy of the fixed-size structure at the client's @arg, see core/ioctl.h; NULL for commands without one. */
long x86_vcpu_ioctl(struct vcpu *vcpu, unsigned cmd, u64 arg, void *data);
/** Power-up (@init false) or INIT state, SDM 3A table 9-1. */
void x86_vcpu_reset(struct vcpu *vcpu, bool init);
/* run.c: KVM_RUN. core/vcpu.c holds vcpu->mutex, has set vcpu->place (VCPU_IN_CORE) and the signal mask, has opened the
 * vCPU's srcu section, and undoes all this afterwards. 0 (exit reason in run) or -errno. */
int x86_vcpu_run(struct vcpu *vcpu);
/** Whether a halted vCPU has a reason to wake. Any thread. */
bool x86_vcpu_runnable(struct vcpu *vcpu);
/** After an instruction, also in lite: is there something for which guest code must be left? */
static inline bool vcpu_must_exit(struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->requests, __ATOMIC_RELAXED) | __atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_RELAXED);
}
/* events.c */
void vcpu_queue_exception(struct vcpu *vcpu, const struct x86_event *ev);	/* merges into #DF, triple fault */
bool vcpu_interrupt_allowed(struct vcpu *vcpu);	/* IF, shadow, no event in flight */
bool vcpu_nmi_allowed(struct vcpu *vcpu);
/** Injects what is due through engine->inject(); asks for windows. */
void vcpu_inject_events(struct vcpu *vcpu);
/* cr.c */
enum x86_result vcpu_set_cr(struct vcpu *vcpu, unsigned cr, u64 value);	/* X86_FAULT: #GP(0) is the caller's to raise */
u64 vcpu_get_cr8(struct vcpu *vcpu);
enum x86_result vcpu_set_efer(struct vcpu *vcpu, u64 value, bool from_client);
enum x86_result vcpu_set_xcr(struct vcpu *vcpu, u32 index, u64 value);
enum x86_result vcpu_set_dr(struct vcpu *vcpu, unsigned dr, u64 value);
/* msr.c: X86_CONTINUE, X86_FAULT (#GP), X86_RETRY (the client decides) */
enum x86_result vcpu_get_msr(struct vcpu *vcpu, u32 index, u64 *value, bool from_client);
enum x86_result vcpu_set_msr(struct vcpu *vcpu, u32 index, u64 value, bool from_client);
/* cpuid.c */
void vcpu_cpuid(struct vcpu *vcpu, u32 regs[4]);
bool vcpu_has_feature(const struct vcpu *vcpu, u32 feature);
/** @feature: KVM_FEATURE_*. Unless the client wants it otherwise a guest may use what CPUID does not show it. */
static inline bool vcpu_has_pv(const struct vcpu *vcpu, u32 feature)
{
	return !vcpu->pv_enforced || (vcpu->pv_features & (1U << feature));
}
/* clock.c */
u64 vcpu_read_tsc(struct vcpu *vcpu);
u64 vm_kvmclock_ns(struct vm *vm);
void vcpu_clock_update(struct vcpu *vcpu);
/** The guest (or the client) gave the page of MSR_KVM_STEAL_TIME: time is counted from here on. */
void vcpu_steal_begin(struct vcpu *vcpu);
/** Brings the page up to date; not @always, then only where host_run_delay_ns() has left steal_last_ns. Before each entry. */
void vcpu_steal_update(struct vcpu *vcpu, bool always);
/* vcpu_emul.c: the emulator's ops on a real vCPU (walks page tables at every access), reusable one by one by lite */
extern const struct emul_ops vcpu_emul_ops;
/** Linear to physical with the faults of @acc; write: PFERR_W semantics. Splits are the caller's. */
enum x86_result vcpu_translate(struct vcpu *vcpu, u64 la, u32 pferr_access, u64 *gpa);
/** Physical accesses that may hit memory, in-kernel devices, or need the client. @len within one page. */
enum x86_result vcpu_phys_read(struct vcpu *vcpu, u64 gpa, void *buf, unsigned len);
enum x86_result vcpu_phys_write(struct vcpu *vcpu, u64 gpa, const void *buf, unsigned len);
enum x86_result vcpu_io_insn_done(struct vcpu *vcpu, enum x86_result r);
/** Whoever executed an instruction passes its result through here: forgets used answers, sees queued writes. */
static inline enum x86_result vcpu_insn_done(struct vcpu *vcpu, enum x86_result r)
{
	if (likely(!(vcpu->io.nr_answered | vcpu->io.nr_writes | vcpu->io.batch.state | vcpu->msr_exit.state)))
		return r;
	return vcpu_io_insn_done(vcpu, r);
}
/** After an emulated instruction returned X86_EXIT or X86_RETRY: fills vcpu->run; the exit for vcpu_run(). */
void vcpu_emul_exit(struct vcpu *vcpu, enum x86_result r, struct engine_exit *exit);
/** Completes what the client answered, at the start of KVM_RUN. 1: run->... filled again, leave at once; 0; -errno. */
int vcpu_complete_io(struct vcpu *vcpu);

#endif
