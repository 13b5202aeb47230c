/*
 * What the processor can do (appendix A) and the one set of controls that follows from it: what is needed, and of the rest
 * what is there and wished. Everything is checked here once, so nothing fails later.
 */
#include "engines/vmx/vmx.h"

#include "core/x86/cpuid.h"
#include "core/x86/msr.h"

struct vmx_options vmx_options = {
	.ept = true, .ept_ad = true, .unrestricted_guest = true, .vpid = true, .vnmi = true, .flexpriority = true, .apicv = true, .pml = true, .preemption_timer = true,
	.ple_gap = 128, .ple_window = 4096,
};
struct vmx_caps vmx_caps;

static u64 msr_or_0(u32 index)
{
	u64 value;

	return host_rdmsr(index, &value) ? 0 : value;
}

/*
 * A.2: the low half of a capability MSR has the bits that must be 1, the high half those that may be. False: what is @needed cannot be.
 */
static bool choose(u32 index, u32 needed, u32 wished, u32 *controls)
{
	u64 msr = msr_or_0(index);
	u32 must = msr, may = msr >> 32;

	*controls = must | needed | (wished & may);
	return !(needed & ~may);
}

static void find_mmu(struct vmx_caps *caps)
{
	u64 ept = caps->ept_vpid;
	u32 r[4];

	cpuid_host(0x80000008, 0, r);
	caps->mmu = (struct mmu_config){
		.format = vmx_options.ept ? MMU_EPT : MMU_X86,
		.nested = vmx_options.ept,
		.huge_1g = vmx_options.ept && (ept & VMX_EPT_1G),
		.accessed_dirty = vmx_options.ept_ad,
		.notes_writes = vmx_options.pml,
		.levels = 4,
		.phys_bits = r[0] & 0xff,
	};
}

/* Options that the processor cannot follow. */
static void settle_options(struct vmx_caps *caps, u32 cpu2)
{
	const u64 ept = VMX_EPT_4_LEVELS | VMX_EPT_WRITE_BACK | VMX_EPT_2M | VMX_INVEPT | VMX_INVEPT_CONTEXT | VMX_INVEPT_ALL;
	const u32 apicv = CPU2_APIC_ACCESSES | CPU2_X2APIC | CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS;
	const u64 vpid = VMX_INVVPID | VMX_INVVPID_CONTEXT | VMX_INVVPID_ALL;

	vmx_options.ept &= (cpu2 & CPU2_EPT) && (caps->ept_vpid & ept) == ept;
	vmx_options.ept_ad &= vmx_options.ept && (caps->ept_vpid & VMX_EPT_ACCESSED_DIRTY);
	vmx_options.unrestricted_guest &= vmx_options.ept && (cpu2 & CPU2_UNRESTRICTED_GUEST);
	vmx_options.vpid &= (cpu2 & CPU2_VPID) && (caps->ept_vpid & vpid) == vpid;
	vmx_options.vnmi &= !!(caps->pin & PIN_VIRTUAL_NMIS);
	vmx_options.flexpriority &= !!(caps->cpu & CPU_TPR_SHADOW);
	vmx_options.apicv &= vmx_options.flexpriority && vmx_options.ept && (cpu2 & apicv) == apicv;
	vmx_options.pml &= vmx_options.ept_ad && (cpu2 & CPU2_PML);
	if (!(cpu2 & CPU2_PAUSE_LOOP))
		vmx_options.ple_gap = 0;
	if (!(caps->pin & PIN_PREEMPTION_TIMER)) {
		vmx_options.preemption_timer = false;
		vmx_options.longest_stay = 0;
	}
	caps->stay_shift = msr_or_0(MSR_VMX_MISC) & VMX_MISC_STAY_SHIFT;
}

static bool find_controls(struct vmx_caps *caps, unsigned true_ones)
{
	const u32 cpu_needed = CPU_HLT | CPU_TSC_OFFSETTING | CPU_INVLPG | CPU_MWAIT | CPU_MONITOR | CPU_RDPMC | CPU_CR3_LOAD |
			       CPU_CR3_STORE | CPU_CR8_LOAD | CPU_CR8_STORE | CPU_MOV_DR | CPU_IO | CPU_MSR_BITMAPS;
	u32 cpu2 = 0;

	/* Debug controls are ours to load (DR7), and so DEBUGCTL goes in and out as well */
	if (!choose(MSR_VMX_PIN + true_ones, PIN_EXTERNAL_INTERRUPT | PIN_NMI,
		    (vmx_options.vnmi ? PIN_VIRTUAL_NMIS : 0) | (vmx_options.preemption_timer || vmx_options.longest_stay ? PIN_PREEMPTION_TIMER : 0), &caps->pin) ||
	    !choose(MSR_VMX_CPU + true_ones, cpu_needed, CPU_SECONDARY | CPU_TPR_SHADOW, &caps->cpu) ||
	    !choose(MSR_VMX_EXIT + true_ones, EXIT_CTL_HOST_64, EXIT_CTL_LOAD_EFER | EXIT_CTL_LOAD_PAT, &caps->exit) ||
	    !choose(MSR_VMX_ENTRY + true_ones, ENTRY_CTL_LOAD_DEBUG, ENTRY_CTL_LOAD_EFER | ENTRY_CTL_LOAD_PAT, &caps->entry))
		return false;
	if (caps->cpu & CPU_SECONDARY) {
		choose(MSR_VMX_CPU2, 0,
		       CPU2_EPT | CPU2_VPID | CPU2_UNRESTRICTED_GUEST | CPU2_WBINVD | CPU2_PAUSE_LOOP | CPU2_RDTSCP | CPU2_INVPCID |
			       CPU2_TSC_SCALING | CPU2_APIC_ACCESSES | CPU2_X2APIC | CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS |
			       CPU2_PML, &cpu2);
		if (cpu2 & (CPU2_EPT | CPU2_VPID))
			caps->ept_vpid = msr_or_0(MSR_VMX_EPT_VPID);
	}
	settle_options(caps, cpu2);
	caps->cpu2_optional = cpu2 & (CPU2_RDTSCP | CPU2_INVPCID | CPU2_APIC_ACCESSES | CPU2_PML);
	/* state.c turns them on together, when it does */
	cpu2 &= ~(caps->cpu2_optional | CPU2_X2APIC | CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS);
	/* Of vCPUs whose local APIC is ours */
	caps->cpu &= ~CPU_TPR_SHADOW;
	if (!vmx_options.flexpriority || !vmx_options.ept)
		caps->cpu2_optional &= ~CPU2_APIC_ACCESSES;
	if (!vmx_options.pml)
		caps->cpu2_optional &= ~CPU2_PML;
	if (!vmx_options.ept)
		cpu2 &= ~CPU2_EPT;
	if (!vmx_options.unrestricted_guest)
		cpu2 &= ~CPU2_UNRESTRICTED_GUEST;
	if (!vmx_options.vpid)
		cpu2 &= ~CPU2_VPID;
	if (!vmx_options.ple_gap)
		cpu2 &= ~CPU2_PAUSE_LOOP;
	caps->cpu2 = cpu2;
	if (vmx_options.ept) {
		/* The guest's own page tables are its own business: 28.2. With capability MSRs that are not "true", these must be 1 */
		u32 must = msr_or_0(MSR_VMX_CPU + true_ones);

		if (must & (CPU_CR3_LOAD | CPU_CR3_STORE))
			return false;
		caps->cpu &= ~(CPU_CR3_LOAD | CPU_CR3_STORE | CPU_INVLPG);
	} else {
		caps->cpu2_optional &= ~CPU2_INVPCID;
	}
	/* Both ways or not at all */
	caps->efer = (caps->exit & EXIT_CTL_LOAD_EFER) && (caps->entry & ENTRY_CTL_LOAD_EFER);
	caps->pat = (caps->exit & EXIT_CTL_LOAD_PAT) && (caps->entry & ENTRY_CTL_LOAD_PAT);
	if (!caps->efer) {
		caps->exit &= ~EXIT_CTL_LOAD_EFER;
		caps->entry &= ~ENTRY_CTL_LOAD_EFER;
	}
	if (!caps->pat) {
		caps->exit &= ~EXIT_CTL_LOAD_PAT;
		caps->entry &= ~ENTRY_CTL_LOAD_PAT;
	}
	return true;
}

int vmx_caps_find(void)
{
	struct vmx_caps *caps = &vmx_caps;
	u32 r[4];
	u64 basic;

	cpuid_host(1, 0, r);
	if (!(r[2] & X86_FEATURE_BIT(X86_FEATURE_VMX)))
		return -EOPNOTSUPP;
	if (host_rdmsr(MSR_VMX_BASIC, &basic) || (basic & VMX_BASIC_MEMORY_TYPE) != VMX_BASIC_WRITE_BACK)
		return -EOPNOTSUPP;
	caps->revision = basic & VMX_BASIC_REVISION;
	caps->cr0_fixed0 = msr_or_0(MSR_VMX_CR0_FIXED0);
	caps->cr0_fixed1 = msr_or_0(MSR_VMX_CR0_FIXED1);
	caps->cr4_fixed0 = msr_or_0(MSR_VMX_CR4_FIXED0);
	caps->cr4_fixed1 = msr_or_0(MSR_VMX_CR4_FIXED1);
	if (!find_controls(caps, basic & VMX_BASIC_TRUE ? MSR_VMX_TRUE_CONTROLS : 0))
		return -EOPNOTSUPP;
	cpuid_host(1, 0, r);
	caps->host_xcr0 = r[2] & X86_FEATURE_BIT(X86_FEATURE_OSXSAVE) ? cpuid_host_xcr0() : 0;
	cpuid_host(0, 0, r);
	if (r[0] >= 7) {
		cpuid_host(7, 0, r);
		caps->spec_ctrl = r[3] & X86_FEATURE_BIT(X86_FEATURE_SPEC_CTRL);
	}
	cpuid_host(0x80000001, 0, r);
	caps->tsc_aux = r[3] & X86_FEATURE_BIT(X86_FEATURE_RDTSCP);
	find_mmu(caps);
	return 0;
}

/* ---- CPUID ------------------------------------------------------------------------------------------------------- */

#define F(name) X86_FEATURE_BIT(X86_FEATURE_##name)

/*
 * The guest has what the processor has, of all that its instructions do by themselves: core may offer more than that where it emulates.
 * Not served are states that would have to be switched (protection keys, CET, XSAVES' supervisor states, AMX, UINTR), and MONITOR, which
 * would be HLT.
 */
void vmx_cpuid_mask(u32 function, u32 index, u32 regs[4])
{
	u32 host[4];

	cpuid_host(function, index, host);
	switch (function) {
	case 1:
		regs[2] &= host[2] | F(X2APIC) | F(TSC_DEADLINE) | F(HYPERVISOR);
		regs[2] &= ~(F(MONITOR) | F(VMX) | (vmx_options.ept ? 0 : F(PCID)));
		/* A host that does not use XSAVE itself keeps no state of it */
		if (!vmx_caps.host_xcr0)
			regs[2] &= ~(F(XSAVE) | F(AVX) | F(FMA) | F(F16C));
		regs[3] &= host[3] | F(APIC) | F(MTRR) | F(MCE) | F(MCA);
		break;
	case 7:
		if (index == 0) {
			regs[1] &= host[1] | F(TSC_ADJUST);
			regs[1] &= vmx_caps.cpu2_optional & CPU2_INVPCID ? ~0U : ~F(INVPCID);
			regs[2] &= host[2] & ~F(PKU);
			regs[3] &= host[3] | F(ARCH_CAPABILITIES);
			if (!vmx_caps.host_xcr0) {
				regs[1] &= ~(F(AVX2) | F(AVX512F) | F(AVX512DQ) | F(AVX512IFMA) | F(AVX512CD) | F(AVX512BW) | F(AVX512VL));
				regs[2] &= ~(F(AVX512VBMI) | F(AVX512VBMI2) | F(VAES) | F(VPCLMULQDQ) | F(AVX512VNNI) | F(AVX512BITALG) |
					     F(AVX512VPOPCNTDQ));
				regs[3] &= ~(F(AVX512_4VNNIW) | F(AVX512_4FMAPS) | F(AVX512VP2INTERSECT) | F(AVX512FP16));
			}
		} else {
			for (unsigned i = 0; i < 4; i++)
				regs[i] &= host[i];
		}
		break;
	case 0xd:
		if (index == 0) {
			regs[0] &= XCR0_FP | XCR0_SSE | XCR0_AVX | XCR0_AVX512;
			regs[3] = 0;
		} else if (index == 1) {
			regs[0] &= host[0] & (F(XSAVEOPT) | F(XSAVEC) | F(XGETBV1));
			regs[2] = regs[3] = 0;
		}
		break;
	case 0x80000001:
		regs[2] &= host[2] & ~F(SVM);
		regs[3] &= host[3];
		regs[3] &= vmx_caps.cpu2_optional & CPU2_RDTSCP ? ~0U : ~F(RDTSCP);
		break;
	}
}
