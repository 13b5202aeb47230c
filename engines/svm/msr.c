/*
 * Which MSRs the guest reaches without an exit: those that VMLOAD and VMSAVE switch, as far as the client's filter lets it; and those of the
 * x2APIC that AVIC serves, which no filter is for.
 */
#include "core/x86/irqchip/irqchip.h"
#include "core/x86/msr.h"

#include "engines/svm/svm.h"

static const u32 direct[] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE,
	MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP,
};

/* The bit of reads, the next one is of writes: APM 2 15.11 */
static unsigned bit_of(u32 index)
{
	unsigned base = index < 0xc0000000 ? 0 : 0x800 * 8;

	return base + (index & 0x1fff) * 2;
}

static void allow(u8 *msrpm, unsigned bit)
{
	msrpm[bit / 8] &= ~(1U << (bit % 8));
}

/* 15.29.10. The ICR's halves are apart in the page, so reads of it are core's. */
static void allow_x2apic(u8 *msrpm)
{
	static const u32 written[] = { MSR_IA32_X2APIC_TPR, MSR_IA32_X2APIC_EOI, MSR_IA32_X2APIC_ICR };

	for (u32 msr = MSR_IA32_X2APIC_FIRST; msr <= MSR_IA32_X2APIC_LAST; msr++) {
		if (lapic_x2apic_is_plain(msr))
			allow(msrpm, bit_of(msr));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(written); i++)
		allow(msrpm, bit_of(written[i]) + 1);
}

void svm_msrpm_update(struct svm_vcpu *svm)
{
	struct vm *vm = svm->vcpu.vm;

	svm->filter_seen = __atomic_load_n(&vm->msr_filter_generation, __ATOMIC_ACQUIRE);
	memset(svm->msrpm, 0xff, SVM_MSRPM_PAGES * HOST_PAGE_SIZE);
	for (unsigned i = 0; i < ARRAY_SIZE(direct); i++) {
		unsigned bit = bit_of(direct[i]);

		if (msr_filter_allows(vm, direct[i], KVM_MSR_FILTER_READ))
			allow(svm->msrpm, bit);
		if (msr_filter_allows(vm, direct[i], KVM_MSR_FILTER_WRITE))
			allow(svm->msrpm, bit + 1);
	}
	if (svm->avic_x2)
		allow_x2apic(svm->msrpm);
	svm->vmcb->clean &= ~(VMCB_CLEAN_IOPM | VMCB_CLEAN_INTERCEPTS);
}
