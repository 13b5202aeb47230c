/*
 * What compares lite's fast functions with core's emulator: one vCPU in this process, got hold of behind the API, with memory from
 * guest-physical 0 on.
 */
#ifndef TESTS_LITE_FAST_H
#define TESTS_LITE_FAST_H

#include <linux/kvm.h>
#include <sys/mman.h>

#include "engines/lite/system.h"
#include "hosts/user/file.h"
#include "hosts/user/signals.h"
#include "tests/tap.h"

static struct lite_vcpu *c;
static u8 *memory;
static bool report; /* differences are told of */

static int fast_capture(struct vcpu *vcpu)
{
	c = to_lite(vcpu);
	return lite_engine.vcpu_init(vcpu);
}

static void put64(u64 at, u64 v)
{
	memcpy(memory + at, &v, 8);
}

/* @size bytes for the guest, and one slot of @slot bytes, of which those behind them are not there: accesses fail. */
static bool fast_machine(u64 size, u64 slot)
{
	static struct engine_ops engine;
	struct kvm_userspace_memory_region region = { .memory_size = slot };
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	long vm, cpu;

	engine = lite_engine;
	engine.vcpu_init = fast_capture;
	host_thread_prepare();
	memory = mmap(NULL, slot, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || core_init(&engine) || (slot > size && mprotect(memory + size, slot - size, PROT_NONE)))
		return false;
	region.userspace_addr = (uintptr_t)memory;
	vm = core_system_ioctl(KVM_CREATE_VM, 0);
	if (vm < 0 || host_file_ioctl(vm, KVM_CREATE_IRQCHIP, 0) || host_file_ioctl(vm, KVM_SET_USER_MEMORY_REGION, (u64)(uintptr_t)&region))
		return false;
	cpu = host_file_ioctl(vm, KVM_CREATE_VCPU, 0);
	if (cpu < 0 || core_system_ioctl(KVM_GET_SUPPORTED_CPUID, (u64)(uintptr_t)&cpuid) ||
	    host_file_ioctl(cpu, KVM_SET_CPUID2, (u64)(uintptr_t)&cpuid))
		return false;
	vcpu_srcu_lock(&c->vcpu);
	return true;
}

static bool same64(const char *what, u64 fast, u64 emul)
{
	if (fast == emul)
		return true;
	if (report)
		tap_diag("%s: fast %#llx, emulated %#llx", what, (unsigned long long)fast, (unsigned long long)emul);
	return false;
}

#endif
