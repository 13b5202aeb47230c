/*
 * A VM whose "engine" is the hardware's table walker: translations come from the tables that core/x86/mmu makes, walked as the manuals say, and
 * what the walker does not find goes to mmu_fault(). Nothing executes. The host's answers about pages can be bent.
 *
 *	struct rig r;
 *	rig_open(&r, &(struct mmu_config){ .format = MMU_EPT, .nested = true, .levels = 4 }, 1);
 *	rig_slot(&r, 0, 0x100000, ram, 0x200000, 0);
 *	rig_touch(&r, 0, 0x101234, PFERR_W);        // RIG_DONE; where: r.at.phys
 *	rig_close(&r);
 */
#ifndef TESTS_MMU_RIG_H
#define TESTS_MMU_RIG_H

#include "core/vcpu.h"
#include "core/x86/mmu/mmu.h"

#define RIG_VCPUS 2

/* What the hardware's walk found. */
struct rig_translation {
	u64 phys, entry;
	unsigned level;
	bool writable, executable, user;
	u32 error;	/* PFERR_*, when there is none */
	int load_error; /* mmu_load()'s */
};

struct rig {
	int vm_fd, vcpu_fd[RIG_VCPUS];
	struct vm *vm;
	struct vcpu *vcpu[RIG_VCPUS];
	struct mmu *mmu;
	struct mmu_vcpu *m[RIG_VCPUS];
	struct mmu_config config;
	unsigned faults;	   /* that mmu_fault() was asked to fix */
	unsigned flushes;	   /* of TLBs, all vCPUs */
	unsigned noted;		   /* writes that set a D bit, where the configuration says that they are noted */
	struct rig_translation at; /* of the last rig_touch() */
	struct x86_event event;	   /* and the guest's own fault */
	int error;
};

/* How the host is bent; zeroes: not. Allocations fail by host_fail_alloc. */
struct rig_host {
	unsigned shift;			       /* of every client mapping; 0: 12 */
	u64 device_start, device_end;	       /* client addresses that are a device's */
	u64 read_only_start, read_only_end;    /* that may be read only (as a copy-on-write page does) */
	int error;			       /* of every host_client_page_get() */
	unsigned long gets;		       /* calls of host_client_page_get() */
	void (*on_get)(void);		       /* once, in the next of them: between the guest's walk and the mapping */
	void (*on_kick)(struct vcpu *vcpu);    /* a vCPU in guest code is made to leave */
	void (*on_slot_flush)(bool done);      /* before and after the engine's slot_flush() */
};
extern struct rig_host rig_host;

void rig_open(struct rig *r, const struct mmu_config *config, unsigned vcpus);
/** As rig_open() with one vCPU, made after KVM_ENABLE_CAP(@cap). */
void rig_open_ring(struct rig *r, const struct mmu_config *config, const struct kvm_enable_cap *cap);
void rig_close(struct rig *r);
/** KVM_SET_USER_MEMORY_REGION: 0 or -errno. @id with the address space in bits 31:16. */
int rig_slot(struct rig *r, u32 id, u64 gpa, void *ram, u64 size, u32 flags);
long rig_ioctl(struct rig *r, unsigned cmd, const void *arg);
/** KVM_GET_DIRTY_LOG of slot 0 into @bitmap, which is cleared before. False: it failed. */
bool rig_get_log(struct rig *r, u64 *bitmap, size_t size);

enum rig_result { RIG_DONE, RIG_EMULATE, RIG_INJECT, RIG_ERROR, RIG_STUCK };
/** An access by vCPU @i to @addr (nested: guest-physical, else linear) of kind PFERR_W, PFERR_I, PFERR_U. Faults until it is through. */
enum rig_result rig_touch(struct rig *r, unsigned i, u64 addr, u32 access);
/** The hardware's walk alone; sets accessed and dirty bits when @touch. False: t->error. A vCPU in guest code (VCPU_IN_GUEST)
 *  may be called out of it, then nothing is found: see to vcpu_must_exit(). */
bool rig_walk(struct rig *r, unsigned i, u64 addr, u32 access, bool touch, struct rig_translation *t);
/** The vCPU has looked at its requests. True: its TLB was flushed. */
bool rig_serve(struct rig *r, unsigned i);

#endif
