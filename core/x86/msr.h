/*
 * Model-specific registers by number (SDM 4, APM 2 appendix A, the KVM API document for 0x4b564dxx), their bits, and the
 * entry points of msr.c.
 */
#ifndef CORE_X86_MSR_H
#define CORE_X86_MSR_H

#include "core/x86/x86.h"

struct vcpu;
struct vm;
struct kvm_msr_list;
struct kvm_msrs;
struct kvm_msr_filter;

#define MSR_IA32_P5_MC_ADDR	    0x00000000
#define MSR_IA32_P5_MC_TYPE	    0x00000001
#define MSR_IA32_TSC		    0x00000010
#define MSR_IA32_PLATFORM_ID	    0x00000017
#define MSR_IA32_APICBASE	    0x0000001b
#define MSR_EBC_FREQUENCY_ID	    0x0000002c
#define MSR_IA32_FEAT_CTL	    0x0000003a
#define MSR_IA32_TSC_ADJUST	    0x0000003b
#define MSR_IA32_SPEC_CTRL	    0x00000048
#define MSR_IA32_PRED_CMD	    0x00000049
#define MSR_IA32_UCODE_WRITE	    0x00000079
#define MSR_IA32_UCODE_REV	    0x0000008b
#define MSR_IA32_SMBASE		    0x0000009e
#define MSR_PLATFORM_INFO	    0x000000ce
#define MSR_IA32_MPERF		    0x000000e7
#define MSR_IA32_APERF		    0x000000e8
#define MSR_MTRRcap		    0x000000fe
#define MSR_IA32_ARCH_CAPABILITIES  0x0000010a
#define MSR_IA32_FLUSH_CMD	    0x0000010b
#define MSR_IA32_BBL_CR_CTL3	    0x0000011e
#define MSR_MISC_FEATURES_ENABLES   0x00000140
#define MSR_IA32_SYSENTER_CS	    0x00000174
#define MSR_IA32_SYSENTER_ESP	    0x00000175
#define MSR_IA32_SYSENTER_EIP	    0x00000176
#define MSR_IA32_MCG_CAP	    0x00000179
#define MSR_IA32_MCG_STATUS	    0x0000017a
#define MSR_IA32_MCG_CTL	    0x0000017b
#define MSR_P6_EVNTSEL0		    0x00000186
#define MSR_IA32_PERF_STATUS	    0x00000198
#define MSR_IA32_PERF_CTL	    0x00000199
#define MSR_IA32_MISC_ENABLE	    0x000001a0
#define MSR_IA32_TEMPERATURE_TARGET 0x000001a2
#define MSR_IA32_DEBUGCTL	    0x000001d9
#define DEBUGCTL_LBR		    1
#define MSR_IA32_LASTBRANCHFROMIP   0x000001db
#define MSR_IA32_POWER_CTL	    0x000001fc
#define MSR_IA32_MTRR_PHYSBASE0	    0x00000200
#define MSR_MTRRfix64K_00000	    0x00000250
#define MSR_MTRRfix16K_80000	    0x00000258
#define MSR_MTRRfix16K_A0000	    0x00000259
#define MSR_MTRRfix4K_C0000	    0x00000268
#define MSR_IA32_CR_PAT		    0x00000277
#define MSR_IA32_MC0_CTL2	    0x00000280
#define MSR_MTRRdefType		    0x000002ff
#define MSR_IA32_PERF_CAPABILITIES  0x00000345
#define MSR_IA32_MC0_CTL	    0x00000400
#define MSR_RAPL_POWER_UNIT	    0x00000606
#define MSR_IA32_TSC_DEADLINE	    0x000006e0
#define MSR_IA32_X2APIC_FIRST	    0x00000800
#define MSR_IA32_X2APIC_LAST	    0x000008ff
#define MSR_IA32_X2APIC_TPR	    0x00000808
#define MSR_IA32_X2APIC_EOI	    0x0000080b
#define MSR_IA32_X2APIC_ICR	    0x00000830
#define MSR_IA32_X2APIC_SELF_IPI    0x0000083f
#define MSR_IA32_XSS		    0x00000da0

#define MSR_EFER	   0xc0000080
#define MSR_STAR	   0xc0000081
#define MSR_LSTAR	   0xc0000082
#define MSR_CSTAR	   0xc0000083
#define MSR_SYSCALL_MASK   0xc0000084
#define MSR_FS_BASE	   0xc0000100
#define MSR_GS_BASE	   0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX	   0xc0000103

#define MSR_K7_EVNTSEL0		  0xc0010000
#define MSR_AMD64_SYSCFG	  0xc0010010
#define MSR_K7_HWCR		  0xc0010015
#define MSR_K8_INT_PENDING_MSG	  0xc0010055
#define MSR_AMD64_NB_CFG	  0xc001001f
#define MSR_FAM10H_MMIO_CONF_BASE 0xc0010058
#define MSR_AMD64_TSEG_ADDR	  0xc0010112
#define MSR_VM_CR		  0xc0010114
#define MSR_VM_HSAVE_PA		  0xc0010117
#define MSR_AMD64_VIRT_SPEC_CTRL  0xc001011f
#define MSR_AMD64_OSVW_ID_LENGTH  0xc0010140
#define MSR_AMD64_OSVW_STATUS	  0xc0010141
#define MSR_F15H_PERF_CTL	  0xc0010200
#define MSR_AMD64_PATCH_LOADER	  0xc0010020
#define MSR_AMD64_LS_CFG	  0xc0011020
#define MSR_AMD64_DC_CFG	  0xc0011022
#define MSR_AMD64_DE_CFG	  0xc0011029
#define MSR_AMD64_BU_CFG2	  0xc001102a

#define APIC_BASE_BSP	 BIT64(8)
#define APIC_BASE_X2APIC BIT64(10)
#define APIC_BASE_ENABLE BIT64(11)
#define APIC_DEFAULT_GPA 0xfee00000ULL

#define MISC_ENABLE_FAST_STRING BIT64(0)
#define MISC_ENABLE_EMON	BIT64(7)
#define MISC_ENABLE_BTS_UNAVAIL	 BIT64(11)
#define MISC_ENABLE_PEBS_UNAVAIL BIT64(12)
#define MISC_ENABLE_MWAIT	BIT64(18)

#define DE_CFG_LFENCE_SERIALIZE BIT64(1)

#define MCE_BANKS 32 /* KVM_MAX_MCE_BANKS */

/* Replaced as a whole by KVM_X86_SET_MSR_FILTER, read in an srcu section. */
struct msr_filter {
	bool default_allow;
	u8 count;
	struct {
		u32 flags, base, nmsrs;
		u8 *bitmap;
	} range[16];
};

/** Power-up values (@init: what INIT leaves alone stays). */
void msr_reset(struct vcpu *vcpu, bool init);
/** The reads and writes without filter and without the client's say: X86_CONTINUE, X86_FAULT, X86_UNHANDLED (no such MSR). */
enum x86_result msr_get(struct vcpu *vcpu, u32 index, u64 *value, bool from_client);
enum x86_result msr_set_apic_base(struct vcpu *vcpu, u64 value, bool from_client);
enum x86_result msr_set(struct vcpu *vcpu, u32 index, u64 value, bool from_client);

/* @arg: the client's address of the structure, of which @head is core's copy. */
long msr_ioctl_index_list(u64 arg, struct kvm_msr_list *head, bool feature);
long msr_ioctl_get_set(struct vcpu *vcpu, u64 arg, const struct kvm_msrs *head, bool set);
long msr_ioctl_get_features(u64 arg, const struct kvm_msrs *head);
long msr_ioctl_set_filter(struct vm *vm, const struct kvm_msr_filter *in);
/** Whether the client's filter lets a guest's access of @kind (KVM_MSR_FILTER_READ, _WRITE) through. In an srcu section. */
bool msr_filter_allows(struct vm *vm, u32 index, u32 kind);
void msr_filter_free(struct msr_filter *filter);
long msr_ioctl_setup_mce(struct vcpu *vcpu, u64 mcg_cap);
/** KVM_X86_SET_MCE: 0 or -EINVAL. */
struct kvm_x86_mce;
long msr_ioctl_set_mce(struct vcpu *vcpu, const struct kvm_x86_mce *mce);

#define MCG_CTL_P	  BIT64(8)
#define MCG_SER_P	  BIT64(24)
#define MCG_CAP_SUPPORTED (MCG_CTL_P | MCG_SER_P)

#endif
