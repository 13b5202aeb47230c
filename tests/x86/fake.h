/*
 * A small machine for the tests of core/x86: one VM, one or two vCPUs, memory that the test reads and writes directly, and an
 * engine that executes every instruction by the emulator with core's own ops. It is the simplest engine there can be, so
 * what these tests find is core's doing.
 *
 *	struct machine m;
 *	machine_init(&m, 1, false);
 *	machine_code(&m, 0x1000, "\xf4", 1);            // hlt
 *	machine_real_mode(&m, 0x1000);
 *	tap_ok(machine_run(&m) == 0 && m.run->exit_reason == KVM_EXIT_HLT, "hlt leaves");
 *	machine_destroy(&m);
 */
#ifndef TESTS_X86_FAKE_H
#define TESTS_X86_FAKE_H

#include "core/vcpu.h"

#define MACHINE_RAM 0x800000

struct machine {
	int vm_fd, vcpu_fd, vcpu2_fd;
	struct vm *vm;
	struct vcpu *vcpu, *vcpu2;
	struct kvm_run *run;
	u8 *ram; /* guest-physical 0 to MACHINE_RAM */
};

/* What the engine was asked to flush since the test last looked. */
struct flush_log {
	unsigned count;
	enum tlb_scope last;
	u64 arg;
};
extern struct flush_log flush_log;

/** @vcpus 1 or 2; @irqchip: in core. The CPUID is KVM_GET_SUPPORTED_CPUID's. Aborts the test on failure. */
void machine_init(struct machine *m, unsigned vcpus, bool irqchip);
void machine_destroy(struct machine *m);
long machine_ioctl(int fd, unsigned cmd, const void *arg);
/** KVM_RUN: 0 or -errno. */
long machine_run(struct machine *m);
void machine_code(struct machine *m, u64 gpa, const void *bytes, unsigned len);
/** 16-bit real mode with all bases 0 and RIP = @ip; 64-bit mode with an identity mapping of RAM and of 0xf0000000 (MMIO). */
void machine_real_mode(struct machine *m, u16 ip);
void machine_long_mode(struct machine *m, u64 rip);
/** The CPUID that KVM_GET_SUPPORTED_CPUID gives; the caller frees it. */
struct kvm_cpuid2 *machine_supported_cpuid(void);

static inline void put64(struct machine *m, u64 gpa, u64 value)
{
	memcpy(m->ram + gpa, &value, sizeof(value));
}

static inline u64 get64(struct machine *m, u64 gpa)
{
	u64 value;

	memcpy(&value, m->ram + gpa, sizeof(value));
	return value;
}

static inline void put32(struct machine *m, u64 gpa, u32 value)
{
	memcpy(m->ram + gpa, &value, sizeof(value));
}

static inline u32 get32(struct machine *m, u64 gpa)
{
	u32 value;

	memcpy(&value, m->ram + gpa, sizeof(value));
	return value;
}

#endif
