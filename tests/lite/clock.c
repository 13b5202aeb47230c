/*
 * RDTSC and RDTSCP, which a kernel's translated code does itself: at every offset they read what the client reads, with flags as they were, and
 * a vCPU without RDTSCP has none, in the same code.
 */
#include <stdlib.h>

#include "tests/lite/rig.h"

#define MSR_TSC	    0x10
#define MSR_TSC_AUX 0xc0000103
#define AUX	    0xabcd1234U

static struct rig r;

/* R13 and R14: what is read, R15: RCX behind RDTSCP, R12: whether the carry is still set behind RDTSC. */
GUEST(reads, "mov rax, -1\n mov rdx, -1\n xor r12d, r12d\n stc\n rdtsc\n adc r12d, 0\n mov r13, rdx\n shl r13, 32\n add r13, rax\n"
	     "mov rax, -1\n mov rdx, -1\n mov rcx, -1\n rdtscp\n mov r14, rdx\n shl r14, 32\n add r14, rax\n mov r15, rcx\n int 0x80");

static uint64_t msr(int cpu, uint32_t index, const uint64_t *set)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { .head.nmsrs = 1, .entry = { .index = index, .data = set ? *set : 0 } };

	if (trine_ioctl(r.cpu[cpu].fd, set ? KVM_SET_MSRS : KVM_GET_MSRS, (unsigned long)&m) != 1)
		tap_diag("MSR 0x%x: not to be had", index);
	return m.entry.data;
}

static void reads(enum rig_mode mode, uint64_t from)
{
	const uint64_t aux = AUX;
	struct kvm_regs *k = &r.cpu[0].regs;
	uint64_t before, after;
	int reason;

	msr(0, MSR_TSC, &from);
	msr(0, MSR_TSC_AUX, &aux);
	for (int i = 0; i < 20; i++) {
		rig_mode(&r, 0, mode);
		k->rip = RIG_CODE;
		before = msr(0, MSR_TSC, NULL);
		reason = rig_go(&r, 0);
		after = msr(0, MSR_TSC, NULL);
		if (reason != RIG_DONE || k->r12 != 1 || k->r15 != AUX || k->r13 < before || k->r14 < k->r13 || after < k->r14) {
			rig_diag(&r, 0, "the TSC", reason);
			tap_diag("0x%llx, then 0x%llx and 0x%llx, then 0x%llx; AUX 0x%llx, carry %llu", (unsigned long long)before, (unsigned long long)k->r13,
				 (unsigned long long)k->r14, (unsigned long long)after, (unsigned long long)k->r15, (unsigned long long)k->r12);
			tap_ok(false, "%s: from 0x%llx on", rig_mode_names[mode], (unsigned long long)from);
			return;
		}
	}
	tap_ok(true, "%s: from 0x%llx on", rig_mode_names[mode], (unsigned long long)from);
}

/* Another vCPU, whose CPUID lacks it. */
static void missing(void)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	int reason;

	if (trine_ioctl(r.cpu[1].fd, KVM_GET_CPUID2, (unsigned long)&cpuid))
		tap_diag("KVM_GET_CPUID2 fails");
	for (uint32_t i = 0; i < cpuid.head.nent; i++)
		if (cpuid.entries[i].function == 0x80000001)
			cpuid.entries[i].edx &= ~(1U << 27);
	tap_ok(!trine_ioctl(r.cpu[1].fd, KVM_SET_CPUID2, (unsigned long)&cpuid), "a vCPU without RDTSCP");
	rig_mode(&r, 1, RIG_K64);
	r.cpu[1].regs.rip = RIG_CODE;
	reason = rig_go(&r, 1);
	tap_ok(reason == RIG_STOPPED && r.cpu[1].vector == 6 && r.cpu[1].regs.r13, "gets #UD where the other has it: %d, vector %d", reason, r.cpu[1].vector);
}

int main(void)
{
	static const uint64_t from[] = { 0, 0x123456789abcULL, 0x7fffffff00000000ULL };

	tap_begin();
	if (!rig_make(&r, 2))
		return tap_end();
	RIG_LOAD(&r, RIG_CODE, reads);
	for (enum rig_mode mode = RIG_K64; mode <= RIG_U64; mode++)
		for (unsigned i = 0; i < sizeof(from) / sizeof(from[0]); i++)
			reads(mode, from[i]);
	missing();
	rig_free(&r);
	return tap_end();
}
