/*
 * Virtual CPUs: each a thread that calls KVM_RUN and serves its exits.
 *
 * Device code sees this header for the reset and stop requests in vmm/machine.h only; vCPU state is
 * read and written by the vCPU's own thread, or by others while all are paused (vcpu_pause_all()).
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "vmm/util.h"
#include <pthread.h>
#include <linux/kvm.h>

struct machine;
struct boot_entry;

/* What the KVM API says of a vCPU, all of it that reset restores. */
struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
	struct kvm_xcrs xcrs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
	struct kvm_mp_state mp_state;
	struct kvm_msrs *msrs;
};

struct vcpu {
	struct machine *machine;
	u32 id;	     /* index */
	u32 apic_id; /* also the KVM vCPU id */
	int fd;
	struct kvm_run *run;
	size_t run_size;
	pthread_t thread;
	bool started;
	bool paused;	 /* machine lock: the thread stands outside KVM_RUN */
	bool failed;	 /* an exit that cannot be served; stays paused until reset */
	bool unfinished; /* its last exit is completed by the next KVM_RUN */
	u64 exits;
	struct vcpu_state power_on;
};

/** Creates vCPU @id with its CPUID and threads waiting in pause. */
int vcpu_create_all(struct machine *m, struct error *err);
void vcpu_destroy_all(struct machine *m);

/**
 * Stops all vCPUs and returns when none is in the guest. Machine lock held (released while
 * waiting). Not from a vCPU thread.
 */
void vcpu_pause_all(struct machine *m);
void vcpu_resume_all(struct machine *m);

/**
 * The state after reset; with @entry (may be NULL) the first vCPU starts there instead of at the
 * reset vector. All paused.
 */
int vcpu_reset_all(struct machine *m, const struct boot_entry *entry, struct error *err);

/** Prints registers of @vcpu to @print. Paused. */
void vcpu_dump(struct vcpu *vcpu, void (*print)(const char *fmt, ...));

#endif
