/*
 * MSRs. Most are state with a mask of what may be written, and stand in a table; those that do something have functions.
 * An MSR that is not here does not exist: #GP, or the client's decision (KVM_CAP_X86_USER_SPACE_MSR).
 *
 * A client that restores a VM may write what a guest may not (read-only registers, features that CPUID does not show);
 * from_client says so.
 */
#include "core/x86/msr.h"

#include <linux/kvm_para.h>

#include "core/vcpu.h"
#include "core/x86/clock.h"
#include "core/x86/cpuid.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/irqchip.h"

#define ARCH_CAP_RDCL_NO     BIT64(0)
#define ARCH_CAP_IBRS_ALL    BIT64(1)
#define ARCH_CAP_SKIP_L1DFL  BIT64(3)
#define ARCH_CAP_SSB_NO	     BIT64(4)
#define ARCH_CAP_MDS_NO	     BIT64(5)
#define ARCH_CAP_PSCHANGE_NO BIT64(6)
#define ARCH_CAP_TAA_NO	     BIT64(8)
#define ARCH_CAP_SBDR_NO     BIT64(13)
#define ARCH_CAP_FBSDP_NO    BIT64(14)
#define ARCH_CAP_PSDP_NO     BIT64(15)
#define ARCH_CAP_BHI_NO	     BIT64(20)
#define ARCH_CAP_PBRSB_NO    BIT64(24)
#define ARCH_CAP_GDS_NO	     BIT64(26)
#define ARCH_CAP_RFDS_NO     BIT64(27)
#define ARCH_CAP_ITS_NO	     BIT64(62)
/* None of these holds data of the guest's neighbours where guest code is translated, and hardware engines correct it. */
#define ARCH_CAP_OFFERED                                                                                               \
	(ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_SKIP_L1DFL | ARCH_CAP_SSB_NO | ARCH_CAP_MDS_NO |              \
	 ARCH_CAP_PSCHANGE_NO | ARCH_CAP_TAA_NO | ARCH_CAP_SBDR_NO | ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO |            \
	 ARCH_CAP_BHI_NO | ARCH_CAP_PBRSB_NO | ARCH_CAP_GDS_NO | ARCH_CAP_RFDS_NO | ARCH_CAP_ITS_NO)

#define SPEC_CTRL_BHI_DIS_S	  BIT64(10)
#define PLATFORM_INFO_CPUID_FAULT BIT64(31)
#define HWCR_TSC_FREQ_SEL	  BIT64(24)
#define MTRR_CAP		  0x508 /* 8 variable ranges, fixed ranges, write-combining */

#define M_LIST	  1  /* in KVM_GET_MSR_INDEX_LIST */
#define M_FEATURE 2  /* in KVM_GET_MSR_FEATURE_INDEX_LIST; @init is what is offered */
#define M_RO	  4  /* a guest's write is #GP */
#define M_NOP	  8  /* a guest's write is accepted and forgotten */
#define M_CONST	  16 /* no state: reads @init */
#define M_CANON	  32 /* a canonical address */
#define M_KEEP	  64 /* not reset */
#define M_PV	  128 /* @feature is a bit number of the KVM feature leaf */
#define M_REGS	  256 /* of REGS_MSR: an engine may keep it in hardware */

struct msr_desc {
	u32 index, count;
	u16 offset; /* in struct vcpu; consecutive u64 for count > 1 */
	u16 flags;
	u32 feature; /* the guest needs it, 0: none (X86_FEATURE_FPU is never asked for) */
	u64 writable; /* other bits are #GP */
	u64 init;
	enum x86_result (*get)(struct vcpu *vcpu, u32 index, u64 *value, bool from_client);
	enum x86_result (*set)(struct vcpu *vcpu, u32 index, u64 value, bool from_client);
};

/* ---- those that do something ---------------------------------------------------------------------------------- */

static enum x86_result get_tsc(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu_read_tsc(vcpu);
	return X86_CONTINUE;
}

static enum x86_result set_tsc(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	clock_write_tsc(vcpu, value, from_client);
	return X86_CONTINUE;
}

static enum x86_result set_tsc_adjust(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	/* SDM 3B 17.17.3: the TSC moves with the adjustment. The client restores the TSC itself. */
	if (!from_client)
		clock_adjust_tsc(vcpu, value - vcpu->tsc_adjust);
	vcpu->tsc_adjust = value;
	return X86_CONTINUE;
}

static enum x86_result get_perf(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu_read_tsc(vcpu);
	return X86_CONTINUE;
}

static enum x86_result set_feature_control(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	/* SDM 3C 23.7: a guest finds it open and locks it, once. None of what it switches on is there. */
	if (!from_client && ((vcpu->feature_control & 1) || value & ~1ULL))
		return X86_FAULT;
	vcpu->feature_control = value;
	return X86_CONTINUE;
}

static enum x86_result get_apic_base(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu->apic_base;
	return X86_CONTINUE;
}

/* Without an in-kernel LAPIC the register is state; the client's LAPIC sees it in kvm_run. */
enum x86_result msr_set_apic_base(struct vcpu *vcpu, u64 value, bool from_client)
{
	enum x86_result r = X86_CONTINUE;

	if (vcpu->lapic) {
		r = lapic_set_base(vcpu, value, from_client);
	} else {
		u64 reserved = vcpu->rsvd_gpa | MASK64(63, 52) | 0x2ff |
			       (vcpu_has_feature(vcpu, X86_FEATURE_X2APIC) ? 0 : APIC_BASE_X2APIC);

		if (!from_client &&
		    ((value & reserved) || (value & (APIC_BASE_X2APIC | APIC_BASE_ENABLE)) == APIC_BASE_X2APIC))
			return X86_FAULT;
		vcpu->apic_base = value;
	}
	if (r == X86_CONTINUE)
		cpuid_runtime_update(vcpu);
	return r;
}

static enum x86_result set_apic_base(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	return msr_set_apic_base(vcpu, value, from_client);
}

static enum x86_result get_deadline(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu->lapic ? lapic_get_tsc_deadline(vcpu) : vcpu->tsc_deadline;
	return X86_CONTINUE;
}

static enum x86_result set_deadline(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	vcpu->tsc_deadline = value;
	if (vcpu->lapic)
		lapic_set_tsc_deadline(vcpu, value);
	return X86_CONTINUE;
}

static enum x86_result get_x2apic(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	return vcpu->lapic ? lapic_x2apic_read(vcpu, index, value) : X86_FAULT;
}

static enum x86_result set_x2apic(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	return vcpu->lapic ? lapic_x2apic_write(vcpu, index, value) : X86_FAULT;
}

static enum x86_result get_efer(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu->x86.efer;
	return X86_CONTINUE;
}

static enum x86_result set_efer(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	return vcpu_set_efer(vcpu, value, from_client);
}

static enum x86_result get_base(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	vcpu->vm->engine->state_sync(vcpu, REGS_SEG);
	*value = vcpu->x86.seg[index == MSR_FS_BASE ? SEG_FS : SEG_GS].base;
	return X86_CONTINUE;
}

static enum x86_result set_base(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	vcpu->vm->engine->state_sync(vcpu, REGS_SEG);
	vcpu->x86.seg[index == MSR_FS_BASE ? SEG_FS : SEG_GS].base = value;
	vcpu->regs_dirty |= REGS_SEG;
	return X86_CONTINUE;
}

static enum x86_result set_sysenter_eip(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	/* A non-canonical value is #GP on Intel; AMD keeps 32 bits and does not check: both are safe, the stricter serves */
	if (index == MSR_IA32_SYSENTER_ESP)
		vcpu->x86.sysenter_esp = value;
	else
		vcpu->x86.sysenter_eip = value;
	return X86_CONTINUE;
}

static bool pat_valid(u64 value)
{
	for (unsigned i = 0; i < 8; i++, value >>= 8) {
		/* SDM 3A 11.12.2: memory types 0, 1, 4, 5, 6, 7 */
		if ((value & 0xff) > 7 || (value & 0xff) == 2 || (value & 0xff) == 3)
			return false;
	}
	return true;
}

static bool mtrr_type_valid(u64 type)
{
	return type < 8 && (BIT64(type) & 0x73); /* UC, WC, WT, WP, WB: SDM 3A 11.11.2.1 */
}

static enum x86_result set_pat(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	if (!pat_valid(value))
		return X86_FAULT;
	vcpu->pat = value;
	return X86_CONTINUE;
}

static int mtrr_fixed_slot(u32 index)
{
	switch (index) {
	case MSR_MTRRfix64K_00000: return 0;
	case MSR_MTRRfix16K_80000:
	case MSR_MTRRfix16K_A0000: return 1 + index - MSR_MTRRfix16K_80000;
	default: return 3 + index - MSR_MTRRfix4K_C0000;
	}
}

static enum x86_result get_mtrr_fixed(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu->mtrr_fixed[mtrr_fixed_slot(index)];
	return X86_CONTINUE;
}

static enum x86_result set_mtrr_fixed(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	for (unsigned i = 0; i < 8; i++) {
		if (!mtrr_type_valid((value >> (i * 8)) & 0xff))
			return X86_FAULT;
	}
	vcpu->mtrr_fixed[mtrr_fixed_slot(index)] = value;
	return X86_CONTINUE;
}

static enum x86_result set_mtrr_var(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	u64 reserved = vcpu->rsvd_gpa | MASK64(63, 52);

	if (index & 1) {
		reserved |= 0x7ff;
	} else {
		reserved |= 0xf00;
		if (!mtrr_type_valid(value & 0xff))
			return X86_FAULT;
	}
	/* A client that saved the VM where addresses were wider restores what it saved */
	if ((value & reserved) && !(from_client && !(value & 0xf00 & reserved)))
		return X86_FAULT;
	vcpu->mtrr_var[index - MSR_IA32_MTRR_PHYSBASE0] = value;
	return X86_CONTINUE;
}

static enum x86_result set_mtrr_def(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	if ((value & ~0xcffULL) || !mtrr_type_valid(value & 0xff))
		return X86_FAULT;
	vcpu->mtrr_def_type = value;
	return X86_CONTINUE;
}

static enum x86_result get_mce(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	unsigned banks = vcpu->mcg_cap & 0xff;

	switch (index) {
	case MSR_IA32_P5_MC_ADDR:
	case MSR_IA32_P5_MC_TYPE: *value = 0; return X86_CONTINUE;
	case MSR_IA32_MCG_CAP: *value = vcpu->mcg_cap; return X86_CONTINUE;
	case MSR_IA32_MCG_STATUS: *value = vcpu->mcg_status; return X86_CONTINUE;
	case MSR_IA32_MCG_CTL:
		if (!(vcpu->mcg_cap & MCG_CTL_P) && !from_client)
			return X86_FAULT;
		*value = vcpu->mcg_ctl;
		return X86_CONTINUE;
	}
	if (index - MSR_IA32_MC0_CTL >= banks * 4)
		return X86_UNHANDLED;
	*value = vcpu->mce_banks[index - MSR_IA32_MC0_CTL];
	return X86_CONTINUE;
}

static enum x86_result set_mce(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	unsigned banks = vcpu->mcg_cap & 0xff, n;

	switch (index) {
	case MSR_IA32_P5_MC_ADDR:
	case MSR_IA32_P5_MC_TYPE: return X86_CONTINUE;
	case MSR_IA32_MCG_CAP: return X86_FAULT;
	case MSR_IA32_MCG_STATUS: vcpu->mcg_status = value; return X86_CONTINUE;
	case MSR_IA32_MCG_CTL:
		if (!(vcpu->mcg_cap & MCG_CTL_P) && (value || !from_client))
			return X86_FAULT;
		if (value && value != ~0ULL)
			return X86_FAULT;
		vcpu->mcg_ctl = value;
		return X86_CONTINUE;
	}
	n = index - MSR_IA32_MC0_CTL;
	if (n >= banks * 4)
		return X86_UNHANDLED;
	/* SDM 3B 15.3.2: CTL takes all ones or zeros (Linux on AMD clears bit 10 of bank 4, on Intel bit 0); STATUS only zero */
	if ((n & 3) == 0 && value && (value | (1 << 10) | 1) != ~0ULL)
		return X86_FAULT;
	if ((n & 3) == 1 && value && !from_client)
		return X86_FAULT;
	vcpu->mce_banks[n] = value;
	return X86_CONTINUE;
}

static enum x86_result set_misc_enable(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	u64 fixed = MISC_ENABLE_EMON | MISC_ENABLE_BTS_UNAVAIL | MISC_ENABLE_PEBS_UNAVAIL;
	bool mwait;

	if (!from_client && ((vcpu->misc_enable ^ value) & fixed & ~MISC_ENABLE_EMON))
		return X86_FAULT;
	mwait = (vcpu->misc_enable ^ value) & MISC_ENABLE_MWAIT;
	vcpu->misc_enable = value;
	if (mwait)
		cpuid_runtime_update(vcpu);
	return X86_CONTINUE;
}

static enum x86_result set_spec_ctrl(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	if (value & ~(7ULL | (vcpu_has_feature(vcpu, X86_FEATURE_BHI_CTRL) ? SPEC_CTRL_BHI_DIS_S : 0)))
		return X86_FAULT;
	vcpu->spec_ctrl = value;
	return X86_CONTINUE;
}

static enum x86_result set_pred_cmd(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	if (value & ~1ULL)
		return X86_FAULT;
	if (value)
		host_branch_barrier();
	return X86_CONTINUE;
}

static enum x86_result get_write_only(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = 0;
	return from_client ? X86_CONTINUE : X86_FAULT;
}

static enum x86_result set_hwcr(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	/* What a guest writes without effect: FFDIS 6, MCi status write enable 18, SmmLock, MONITOR in user mode ... */
	value &= ~(BIT64(3) | BIT64(6) | BIT64(8) | HWCR_TSC_FREQ_SEL);
	return value & ~BIT64(18) ? X86_FAULT : X86_CONTINUE;
}

static enum x86_result set_kvmclock(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	vcpu->kvmclock_msr = value;
	if (value & 1)
		vcpu_set_request(vcpu, REQ_CLOCK_UPDATE);
	return X86_CONTINUE;
}

static enum x86_result get_kvmclock(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu->kvmclock_msr;
	return X86_CONTINUE;
}

static enum x86_result set_wall_clock(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	vcpu->wall_clock_msr = value;
	vcpu->vm->wall_clock_msr = value;
	clock_write_wall(vcpu, value);
	return X86_CONTINUE;
}

static enum x86_result get_wall_clock(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu->vm->wall_clock_msr;
	return X86_CONTINUE;
}

static enum x86_result set_steal(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	if (value & KVM_STEAL_RESERVED_MASK)
		return X86_FAULT;
	vcpu->steal_msr = value;
	if (value & KVM_MSR_ENABLED)
		vcpu_steal_begin(vcpu);
	return X86_CONTINUE;
}

static enum x86_result set_async_pf(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	/* Host page faults are never told to the guest: it may be set up, nothing comes of it. Bits 5:4 are reserved. */
	if (value & 0x30)
		return X86_FAULT;
	vcpu->async_pf_msr = value;
	return X86_CONTINUE;
}

static enum x86_result set_pv_eoi(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	if ((value & 1) && (value & 2))
		return X86_FAULT;
	vcpu->pv_eoi_msr = value;
	return X86_CONTINUE;
}

static enum x86_result set_poll_control(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	if (value & ~1ULL)
		return X86_FAULT;
	vcpu->poll_control = value;
	return X86_CONTINUE;
}

static enum x86_result set_xss(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	/* No supervisor state component is offered */
	if (value)
		return X86_FAULT;
	vcpu->ia32_xss = 0;
	return X86_CONTINUE;
}

static enum x86_result get_xss(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = vcpu->ia32_xss;
	return X86_CONTINUE;
}

static enum x86_result set_zero(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	return value ? X86_FAULT : X86_CONTINUE;
}

static enum x86_result set_smbase(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	if (!from_client)
		return X86_FAULT;
	vcpu->smbase = (u32)value;
	return X86_CONTINUE;
}

static enum x86_result set_debugctl(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	/* A guest may set LBR and BTF; where the engine keeps no records it sees them empty. BTF is not offered */
	if (value & ~3ULL)
		return X86_FAULT;
	vcpu->debugctl = vcpu->vm->engine->records_branches ? value & DEBUGCTL_LBR : 0;
	return X86_CONTINUE;
}

static enum x86_result get_perf_status(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = 1000ULL | (u64)4 << 40; /* TSC increments by tick, current multiplier */
	return X86_CONTINUE;
}

static enum x86_result get_svm_off(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	*value = BIT64(3) | BIT64(4); /* VM_CR: SVMDIS and LOCK, APM 2 15.30.1 */
	return X86_CONTINUE;
}

/* ---- the table, by index -------------------------------------------------------------------------------------- */

#define AT(field) offsetof(struct vcpu, field)
#define ALL	  (~0ULL)

static const struct msr_desc descs[] = {
	{ MSR_IA32_P5_MC_ADDR, 2, .get = get_mce, .set = set_mce },
	{ MSR_IA32_TSC, 1, .flags = M_LIST, .get = get_tsc, .set = set_tsc },
	{ MSR_KVM_WALL_CLOCK, 1, 0, M_LIST | M_PV, KVM_FEATURE_CLOCKSOURCE, .get = get_wall_clock, .set = set_wall_clock },
	{ MSR_KVM_SYSTEM_TIME, 1, 0, M_LIST | M_PV, KVM_FEATURE_CLOCKSOURCE, .get = get_kvmclock, .set = set_kvmclock },
	{ MSR_IA32_PLATFORM_ID, 1, .flags = M_CONST | M_RO },
	{ MSR_IA32_APICBASE, 1, .get = get_apic_base, .set = set_apic_base },
	{ MSR_EBC_FREQUENCY_ID, 1, .flags = M_CONST | M_RO, .init = 1 << 24 },
	{ MSR_IA32_FEAT_CTL, 1, AT(feature_control), M_LIST, .writable = ALL, .set = set_feature_control },
	{ MSR_IA32_TSC_ADJUST, 1, AT(tsc_adjust), M_LIST, X86_FEATURE_TSC_ADJUST, ALL, .set = set_tsc_adjust },
	{ MSR_IA32_SPEC_CTRL, 1, AT(spec_ctrl), M_LIST, X86_FEATURE_SPEC_CTRL, 7 | SPEC_CTRL_BHI_DIS_S, .set = set_spec_ctrl },
	{ MSR_IA32_PRED_CMD, 1, 0, 0, X86_FEATURE_SPEC_CTRL, .get = get_write_only, .set = set_pred_cmd },
	{ MSR_IA32_UCODE_WRITE, 1, .flags = M_CONST | M_NOP },
	{ MSR_IA32_UCODE_REV, 1, AT(microcode_version), M_LIST | M_FEATURE | M_NOP, .writable = ALL, .init = 1ULL << 32 },
	{ MSR_IA32_SMBASE, 1, AT(smbase), M_LIST, .writable = ALL, .init = 0x30000, .set = set_smbase },
	{ MSR_PLATFORM_INFO, 1, AT(platform_info), M_LIST | M_RO | M_KEEP, .writable = ALL,
	  .init = PLATFORM_INFO_CPUID_FAULT },
	{ MSR_IA32_MPERF, 2, .flags = M_RO, .get = get_perf },
	{ MSR_MTRRcap, 1, .flags = M_CONST | M_RO, .init = MTRR_CAP },
	{ MSR_IA32_ARCH_CAPABILITIES, 1, AT(arch_capabilities), M_LIST | M_FEATURE | M_RO | M_KEEP,
	  X86_FEATURE_ARCH_CAPABILITIES, ALL, ARCH_CAP_OFFERED },
	{ MSR_IA32_FLUSH_CMD, 1, 0, 0, X86_FEATURE_FLUSH_L1D, .get = get_write_only, .set = set_pred_cmd },
	{ MSR_IA32_BBL_CR_CTL3, 1, .flags = M_CONST | M_RO, .init = 0xbe702111 },
	{ MSR_MISC_FEATURES_ENABLES, 1, AT(misc_features), M_LIST, .writable = 0 },
	{ MSR_IA32_SYSENTER_CS, 1, AT(x86.sysenter_cs), M_LIST | M_REGS, .writable = ALL },
	{ MSR_IA32_SYSENTER_ESP, 2, AT(x86.sysenter_esp), M_LIST | M_CANON | M_REGS, .writable = ALL, .set = set_sysenter_eip },
	{ MSR_IA32_MCG_CAP, 1, .get = get_mce, .set = set_mce },
	{ MSR_IA32_MCG_STATUS, 2, .flags = M_LIST, .get = get_mce, .set = set_mce },
	{ MSR_P6_EVNTSEL0, 2, .flags = M_CONST | M_NOP },
	{ MSR_IA32_PERF_STATUS, 1, .flags = M_RO, .get = get_perf_status },
	{ MSR_IA32_PERF_CTL, 1, .flags = M_CONST | M_NOP },
	{ MSR_IA32_MISC_ENABLE, 1, AT(misc_enable), M_LIST, .writable = ALL,
	  .init = MISC_ENABLE_FAST_STRING | MISC_ENABLE_BTS_UNAVAIL | MISC_ENABLE_PEBS_UNAVAIL, .set = set_misc_enable },
	{ MSR_IA32_TEMPERATURE_TARGET, 1, .flags = M_CONST | M_RO },
	{ MSR_IA32_DEBUGCTL, 1, AT(debugctl), M_REGS, .set = set_debugctl },
	{ MSR_IA32_LASTBRANCHFROMIP, 4, AT(last_branch), M_REGS | M_NOP, .writable = ALL },
	{ MSR_IA32_POWER_CTL, 1, AT(power_ctl), M_LIST, .writable = ALL },
	{ MSR_IA32_MTRR_PHYSBASE0, 16, AT(mtrr_var), M_LIST, X86_FEATURE_MTRR, ALL, .set = set_mtrr_var },
	{ MSR_MTRRfix64K_00000, 1, 0, M_LIST, X86_FEATURE_MTRR, .get = get_mtrr_fixed, .set = set_mtrr_fixed },
	{ MSR_MTRRfix16K_80000, 2, 0, M_LIST, X86_FEATURE_MTRR, .get = get_mtrr_fixed, .set = set_mtrr_fixed },
	{ MSR_MTRRfix4K_C0000, 8, 0, M_LIST, X86_FEATURE_MTRR, .get = get_mtrr_fixed, .set = set_mtrr_fixed },
	{ MSR_IA32_CR_PAT, 1, AT(pat), M_LIST | M_KEEP | M_REGS, .writable = ALL, .init = 0x0007040600070406ULL, .set = set_pat },
	{ MSR_MTRRdefType, 1, AT(mtrr_def_type), M_LIST, X86_FEATURE_MTRR, ALL, .set = set_mtrr_def },
	{ MSR_IA32_PERF_CAPABILITIES, 1, 0, M_FEATURE | M_CONST | M_RO, X86_FEATURE_PDCM, .set = set_zero },
	{ MSR_IA32_MC0_CTL, MCE_BANKS * 4, .get = get_mce, .set = set_mce },
	{ MSR_RAPL_POWER_UNIT, 1, .flags = M_CONST | M_RO },
	{ 0x00000611, 1, .flags = M_CONST | M_RO }, /* RAPL energy counters, which Linux probes without an exception handler */
	{ 0x00000619, 1, .flags = M_CONST | M_RO },
	{ 0x00000639, 1, .flags = M_CONST | M_RO },
	{ 0x00000641, 1, .flags = M_CONST | M_RO },
	{ MSR_IA32_TSC_DEADLINE, 1, 0, M_LIST, X86_FEATURE_TSC_DEADLINE, .get = get_deadline, .set = set_deadline },
	{ MSR_IA32_X2APIC_FIRST, 256, .get = get_x2apic, .set = set_x2apic },
	{ MSR_IA32_XSS, 1, 0, M_LIST, X86_FEATURE_XSAVES, .get = get_xss, .set = set_xss },
	/* In this order the client restores them: who the guest is, then what that lets it have */
	{ HV_X64_MSR_GUEST_OS_ID, 4, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_VP_RUNTIME, 1, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_TIME_REF_COUNT, 4, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_EOI, 3, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_VP_ASSIST_PAGE, 1, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_SCONTROL, 4, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_EOM, 1, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_SINT0, 16, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_STIMER0_CONFIG, 8, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_SYNDBG_CONTROL, 5, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_SYNDBG_OPTIONS, 1, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_CRASH_P0, 6, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ HV_X64_MSR_REENLIGHTENMENT_CONTROL, 3, .flags = M_LIST, .get = hyperv_get_msr, .set = hyperv_set_msr },
	{ MSR_KVM_WALL_CLOCK_NEW, 1, 0, M_LIST | M_PV, KVM_FEATURE_CLOCKSOURCE2, .get = get_wall_clock,
	  .set = set_wall_clock },
	{ MSR_KVM_SYSTEM_TIME_NEW, 1, 0, M_LIST | M_PV, KVM_FEATURE_CLOCKSOURCE2, .get = get_kvmclock,
	  .set = set_kvmclock },
	{ MSR_KVM_ASYNC_PF_EN, 1, AT(async_pf_msr), M_LIST | M_PV, KVM_FEATURE_ASYNC_PF, ALL, .set = set_async_pf },
	{ MSR_KVM_STEAL_TIME, 1, AT(steal_msr), M_LIST | M_PV, KVM_FEATURE_STEAL_TIME, ALL, .set = set_steal },
	{ MSR_KVM_PV_EOI_EN, 1, AT(pv_eoi_msr), M_LIST | M_PV, KVM_FEATURE_PV_EOI, ALL, .set = set_pv_eoi },
	{ MSR_KVM_POLL_CONTROL, 1, AT(poll_control), M_LIST | M_PV, KVM_FEATURE_POLL_CONTROL, 1, 1,
	  .set = set_poll_control },
	{ MSR_KVM_ASYNC_PF_INT, 1, AT(async_pf_int_msr), M_LIST | M_PV, KVM_FEATURE_ASYNC_PF_INT, 0xff },
	{ MSR_KVM_ASYNC_PF_ACK, 1, 0, M_CONST | M_NOP | M_PV, KVM_FEATURE_ASYNC_PF_INT },
	{ MSR_EFER, 1, .get = get_efer, .set = set_efer },
	{ MSR_STAR, 1, AT(x86.star), M_LIST | M_REGS, .writable = ALL },
	{ MSR_LSTAR, 1, AT(x86.lstar), M_LIST | M_CANON | M_REGS, X86_FEATURE_LM, ALL },
	{ MSR_CSTAR, 1, AT(x86.cstar), M_LIST | M_CANON | M_REGS, X86_FEATURE_LM, ALL },
	{ MSR_SYSCALL_MASK, 1, AT(x86.sfmask), M_LIST | M_REGS, X86_FEATURE_LM, 0xffffffffULL },
	{ MSR_FS_BASE, 2, 0, M_CANON, X86_FEATURE_LM, .get = get_base, .set = set_base },
	{ MSR_KERNEL_GS_BASE, 1, AT(x86.kernel_gs_base), M_LIST | M_CANON | M_REGS, X86_FEATURE_LM, ALL },
	{ MSR_TSC_AUX, 1, AT(x86.tsc_aux), M_LIST | M_REGS, X86_FEATURE_RDTSCP, 0xffffffffULL },
	{ MSR_K7_EVNTSEL0, 8, .flags = M_CONST | M_NOP },
	{ MSR_AMD64_SYSCFG, 1, .flags = M_CONST | M_NOP },
	{ MSR_K7_HWCR, 1, .flags = M_CONST, .init = HWCR_TSC_FREQ_SEL, .set = set_hwcr },
	{ 0xc0010016, 8, .flags = M_CONST | M_NOP }, /* IORR, TOP_MEM, TOP_MEM2 */
	{ MSR_AMD64_NB_CFG, 1, .flags = M_CONST | M_NOP },
	{ MSR_AMD64_PATCH_LOADER, 1, .flags = M_CONST | M_NOP },
	{ MSR_K8_INT_PENDING_MSG, 1, .flags = M_CONST | M_NOP },
	{ MSR_FAM10H_MMIO_CONF_BASE, 1, .flags = M_CONST | M_RO },
	{ MSR_AMD64_TSEG_ADDR, 2, .flags = M_CONST | M_NOP },
	{ MSR_VM_CR, 1, .flags = M_RO, .get = get_svm_off },
	{ MSR_AMD64_OSVW_ID_LENGTH, 2, .flags = M_CONST | M_RO },
	{ MSR_F15H_PERF_CTL, 12, .flags = M_CONST | M_NOP },
	{ MSR_AMD64_LS_CFG, 1, .flags = M_CONST | M_NOP },
	{ MSR_AMD64_DC_CFG, 1, .flags = M_CONST | M_NOP },
	{ MSR_AMD64_DE_CFG, 1, .flags = M_CONST | M_FEATURE | M_NOP, .init = DE_CFG_LFENCE_SERIALIZE },
	{ MSR_AMD64_BU_CFG2, 1, .flags = M_CONST | M_NOP },
};

static const struct msr_desc *find(u32 index)
{
	unsigned low = 0, high = ARRAY_SIZE(descs);

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (index < descs[mid].index)
			high = mid;
		else if (index - descs[mid].index >= descs[mid].count)
			low = mid + 1;
		else
			return &descs[mid];
	}
	return NULL;
}

static u64 *state_of(struct vcpu *vcpu, const struct msr_desc *d, u32 index)
{
	return (u64 *)((char *)vcpu + d->offset) + (index - d->index);
}

static bool guest_has(struct vcpu *vcpu, const struct msr_desc *d)
{
	if (d->index == MSR_PLATFORM_INFO)
		return !vcpu->vm->platform_info_hidden;
	if (d->flags & M_PV)
		return vcpu_has_pv(vcpu, d->feature);
	if (d->index == MSR_IA32_SPEC_CTRL || d->index == MSR_IA32_PRED_CMD)
		return vcpu_has_feature(vcpu, X86_FEATURE_SPEC_CTRL) || vcpu_has_feature(vcpu, X86_FEATURE_AMD_IBRS) ||
		       vcpu_has_feature(vcpu, X86_FEATURE_AMD_STIBP) || vcpu_has_feature(vcpu, X86_FEATURE_AMD_SSBD) ||
		       vcpu_has_feature(vcpu, X86_FEATURE_AMD_IBPB);
	return !d->feature || vcpu_has_feature(vcpu, d->feature);
}

enum x86_result msr_get(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	const struct msr_desc *d = find(index);

	if (!d) {
		if (vcpu->vm->engine->get_msr)
			return vcpu->vm->engine->get_msr(vcpu, index, value);
		return X86_UNHANDLED;
	}
	if (!(from_client && !(d->flags & M_PV)) && !guest_has(vcpu, d))
		return X86_FAULT;
	if (d->get)
		return d->get(vcpu, index, value, from_client);
	if (d->flags & M_REGS)
		vcpu->vm->engine->state_sync(vcpu, REGS_MSR);
	*value = d->flags & M_CONST ? d->init : *state_of(vcpu, d, index);
	return X86_CONTINUE;
}

enum x86_result msr_set(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	const struct msr_desc *d = find(index);

	if (!d) {
		if (vcpu->vm->engine->set_msr)
			return vcpu->vm->engine->set_msr(vcpu, index, value);
		return X86_UNHANDLED;
	}
	if (!(from_client && !(d->flags & M_PV)) && !guest_has(vcpu, d))
		return X86_FAULT;
	if (!from_client) {
		if (d->flags & M_RO)
			return X86_FAULT;
		if (d->flags & M_NOP)
			return X86_CONTINUE;
	}
	if ((d->flags & M_CANON) && !x86_is_canonical(value, vcpu->x86.cr4)) {
		/* The client may restore what a processor of the other vendor kept */
		if (!from_client)
			return X86_FAULT;
		value = sign_extend(value, 48);
	}
	if (d->flags & M_REGS) {
		vcpu->vm->engine->state_sync(vcpu, REGS_MSR);
		vcpu->regs_dirty |= REGS_MSR;
	}
	if (d->set)
		return d->set(vcpu, index, value, from_client);
	if (d->flags & M_CONST)
		return from_client ? X86_CONTINUE : X86_FAULT;
	if (value & ~d->writable)
		return X86_FAULT;
	*state_of(vcpu, d, index) = value;
	return X86_CONTINUE;
}

void msr_reset(struct vcpu *vcpu, bool init)
{
	if (init)
		return; /* SDM 3A table 9-1: INIT leaves the MSRs alone but those that x86_vcpu_reset() names */
	for (unsigned i = 0; i < ARRAY_SIZE(descs); i++) {
		const struct msr_desc *d = &descs[i];

		if (d->offset && !(d->flags & M_CONST)) {
			for (u32 n = 0; n < d->count; n++)
				*state_of(vcpu, d, d->index + n) = d->init;
		}
	}
	memset(vcpu->mtrr_fixed, 0, sizeof(vcpu->mtrr_fixed));
	vcpu->mcg_status = 0;
	vcpu->kvmclock_msr = 0;
	vcpu->wall_clock_msr = 0;
	vcpu->ia32_xss = 0;
}

/* ---- filter and the client's decisions ------------------------------------------------------------------------ */

bool msr_filter_allows(struct vm *vm, u32 index, u32 kind)
{
	struct msr_filter *f = __atomic_load_n(&vm->msr_filter, __ATOMIC_ACQUIRE);

	/* The x2APIC's registers are never filtered: KVM API, KVM_X86_SET_MSR_FILTER */
	if (!f || (index >= MSR_IA32_X2APIC_FIRST && index <= MSR_IA32_X2APIC_LAST))
		return true;
	for (unsigned i = 0; i < f->count; i++) {
		u32 n = index - f->range[i].base;

		if ((f->range[i].flags & kind) && n < f->range[i].nmsrs)
			return f->range[i].bitmap[n / 8] & (1 << (n % 8));
	}
	return f->default_allow;
}

/* A guest's access that failed for @reason: the client's when it asked for such, else #GP. */
static enum x86_result ask_client(struct vcpu *vcpu, u32 index, bool write, u64 data, u32 reason)
{
	if (!(vcpu->vm->user_space_msr_mask & reason))
		return X86_FAULT;
	vcpu->msr_exit.state = MSR_EXIT_ASKED;
	vcpu->msr_exit.write = write;
	vcpu->msr_exit.index = index;
	vcpu->msr_exit.data = data;
	vcpu->msr_exit.reason = reason;
	vcpu->msr_exit.rip = vcpu->x86.rip;
	return X86_RETRY;
}

/* True: the client has answered this very access; *@r and *@value are the outcome. */
static bool answered(struct vcpu *vcpu, u32 index, bool write, u64 *value, enum x86_result *r)
{
	if (likely(vcpu->msr_exit.state != MSR_EXIT_ANSWERED))
		return false;
	vcpu->msr_exit.state = MSR_EXIT_NONE;
	if (vcpu->msr_exit.index != index || vcpu->msr_exit.write != write || vcpu->msr_exit.rip != vcpu->x86.rip)
		return false;
	*r = vcpu->msr_exit.error ? X86_FAULT : X86_CONTINUE;
	if (!write)
		*value = vcpu->msr_exit.data;
	return true;
}

static u32 reason_of(enum x86_result r)
{
	return r == X86_UNHANDLED ? KVM_MSR_EXIT_REASON_UNKNOWN : KVM_MSR_EXIT_REASON_INVAL;
}

enum x86_result vcpu_get_msr(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	enum x86_result r;

	if (from_client)
		return msr_get(vcpu, index, value, true);
	if (answered(vcpu, index, false, value, &r))
		return r;
	if (!msr_filter_allows(vcpu->vm, index, KVM_MSR_FILTER_READ))
		return ask_client(vcpu, index, false, 0, KVM_MSR_EXIT_REASON_FILTER);
	r = msr_get(vcpu, index, value, false);
	host_event_msr(false, index, *value, r != X86_CONTINUE);
	if (r == X86_FAULT || r == X86_UNHANDLED)
		return ask_client(vcpu, index, false, 0, reason_of(r));
	return r;
}

enum x86_result vcpu_set_msr(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	enum x86_result r;

	if (from_client)
		return msr_set(vcpu, index, value, true);
	if (answered(vcpu, index, true, &value, &r))
		return r;
	if (!msr_filter_allows(vcpu->vm, index, KVM_MSR_FILTER_WRITE))
		return ask_client(vcpu, index, true, value, KVM_MSR_EXIT_REASON_FILTER);
	r = msr_set(vcpu, index, value, false);
	host_event_msr(true, index, value, r != X86_CONTINUE);
	if (r == X86_FAULT || r == X86_UNHANDLED)
		return ask_client(vcpu, index, true, value, reason_of(r));
	return r;
}

/* ---- ioctls ---------------------------------------------------------------------------------------------------- */

/** KVM_GET_MSR_INDEX_LIST, KVM_GET_MSR_FEATURE_INDEX_LIST: 0, -E2BIG (nmsrs is what is needed), -EFAULT. */
long msr_ioctl_index_list(u64 arg, struct kvm_msr_list *head, bool feature)
{
	u32 nr = 0, room = head->nmsrs;
	u16 want = feature ? M_FEATURE : M_LIST;

	for (unsigned i = 0; i < ARRAY_SIZE(descs); i++)
		nr += descs[i].flags & want ? descs[i].count : 0;
	head->nmsrs = nr;
	if (room < nr)
		return -E2BIG;
	arg += sizeof(*head);
	for (unsigned i = 0; i < ARRAY_SIZE(descs); i++) {
		for (u32 n = 0; (descs[i].flags & want) && n < descs[i].count; n++, arg += sizeof(u32)) {
			u32 index = descs[i].index + n;

			if (host_copy_to_client(arg, &index, sizeof(index)))
				return -EFAULT;
		}
	}
	return 0;
}

#define MSR_IO_MAX 256 /* KVM_GET_MSRS: -E2BIG from here on */

/** KVM_GET_MSRS, KVM_SET_MSRS: how many were done before the first that failed, -E2BIG, -EFAULT. */
long msr_ioctl_get_set(struct vcpu *vcpu, u64 arg, const struct kvm_msrs *head, bool set)
{
	u32 done;
	int srcu;
	long r = 0;

	if (head->nmsrs >= MSR_IO_MAX)
		return -E2BIG;
	arg += sizeof(*head);
	srcu = host_srcu_read_lock(&vcpu->vm->srcu);
	for (done = 0; done < head->nmsrs; done++, arg += sizeof(struct kvm_msr_entry)) {
		struct kvm_msr_entry e;
		u64 value;

		if (host_copy_from_client(&e, arg, sizeof(e))) {
			r = -EFAULT;
			break;
		}
		if (set) {
			if (vcpu_set_msr(vcpu, e.index, e.data, true) != X86_CONTINUE)
				break;
			continue;
		}
		if (vcpu_get_msr(vcpu, e.index, &value, true) != X86_CONTINUE)
			break;
		e.data = value;
		if (host_copy_to_client(arg, &e, sizeof(e))) {
			r = -EFAULT;
			break;
		}
	}
	host_srcu_read_unlock(&vcpu->vm->srcu, srcu);
	if (set)
		vcpu->vm->engine->state_changed(vcpu, REGS_CR | REGS_SEG);
	return r ? r : (long)done;
}

/** KVM_GET_MSRS on the system descriptor: what the feature MSRs may be at most. */
long msr_ioctl_get_features(u64 arg, const struct kvm_msrs *head)
{
	u32 done;

	if (head->nmsrs >= MSR_IO_MAX)
		return -E2BIG;
	arg += sizeof(*head);
	for (done = 0; done < head->nmsrs; done++, arg += sizeof(struct kvm_msr_entry)) {
		struct kvm_msr_entry e;
		const struct msr_desc *d;

		if (host_copy_from_client(&e, arg, sizeof(e)))
			return -EFAULT;
		d = find(e.index);
		if (!d || !(d->flags & M_FEATURE))
			break;
		e.data = d->init;
		if (host_copy_to_client(arg, &e, sizeof(e)))
			return -EFAULT;
	}
	return done;
}

void msr_filter_free(struct msr_filter *filter)
{
	if (!filter)
		return;
	for (unsigned i = 0; i < filter->count; i++)
		host_free(filter->range[i].bitmap);
	host_free(filter);
}

/** KVM_X86_SET_MSR_FILTER: 0, -EINVAL, -EFAULT, -ENOMEM. */
long msr_ioctl_set_filter(struct vm *vm, const struct kvm_msr_filter *in)
{
	struct msr_filter *filter, *old;
	bool empty = true;
	long r;

	if (in->flags & ~KVM_MSR_FILTER_DEFAULT_DENY)
		return -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(in->ranges); i++)
		empty &= !in->ranges[i].nmsrs;
	if (empty && (in->flags & KVM_MSR_FILTER_DEFAULT_DENY))
		return -EINVAL;
	filter = host_zalloc(sizeof(*filter));
	if (!filter)
		return -ENOMEM;
	filter->default_allow = !(in->flags & KVM_MSR_FILTER_DEFAULT_DENY);
	for (unsigned i = 0; i < ARRAY_SIZE(in->ranges); i++) {
		const struct kvm_msr_filter_range *range = &in->ranges[i];
		u32 bytes = ROUND_UP(range->nmsrs, 64U) / 8;

		if (!range->nmsrs)
			continue;
		r = -EINVAL;
		if (!range->flags || (range->flags & ~(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)) ||
		    range->nmsrs > KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8)
			goto out_free;
		r = -ENOMEM;
		filter->range[filter->count].bitmap = host_zalloc(bytes);
		if (!filter->range[filter->count].bitmap)
			goto out_free;
		filter->range[filter->count].flags = range->flags;
		filter->range[filter->count].base = range->base;
		filter->range[filter->count].nmsrs = range->nmsrs;
		filter->count++;
		r = -EFAULT;
		if (host_copy_from_client(filter->range[filter->count - 1].bitmap, (u64)(unsigned long)range->bitmap,
					  (range->nmsrs + 7) / 8))
			goto out_free;
	}
	host_mutex_lock(&vm->lock);
	old = vm->msr_filter;
	__atomic_store_n(&vm->msr_filter, filter, __ATOMIC_RELEASE);
	__atomic_fetch_add(&vm->msr_filter_generation, 1, __ATOMIC_RELEASE);
	host_mutex_unlock(&vm->lock);
	vm_synchronize(vm);
	msr_filter_free(old);
	return 0;

out_free:
	msr_filter_free(filter);
	return r;
}

/** KVM_X86_SETUP_MCE: 0 or -EINVAL. */
long msr_ioctl_setup_mce(struct vcpu *vcpu, u64 mcg_cap)
{
	unsigned banks = mcg_cap & 0xff;

	if (!banks || banks > MCE_BANKS || (mcg_cap & ~(MCG_CAP_SUPPORTED | 0xff | 0xff0000)))
		return -EINVAL;
	vcpu->mcg_cap = mcg_cap;
	if (mcg_cap & MCG_CTL_P)
		vcpu->mcg_ctl = ~0ULL;
	for (unsigned i = 0; i < banks; i++)
		vcpu->mce_banks[i * 4] = ~0ULL;
	return 0;
}

#define MCI_STATUS_VAL	BIT64(63)
#define MCI_STATUS_OVER BIT64(62)
#define MCI_STATUS_UC	BIT64(61)
#define MCG_STATUS_MCIP BIT64(2)

long msr_ioctl_set_mce(struct vcpu *vcpu, const struct kvm_x86_mce *mce)
{
	u64 *bank;
	u64 status = mce->status;

	if (mce->bank >= (vcpu->mcg_cap & 0xff) || !(status & MCI_STATUS_VAL))
		return -EINVAL;
	bank = &vcpu->mce_banks[mce->bank * 4];
	if (status & MCI_STATUS_UC) {
		/* SDM 3B 15.3.2.1: reporting may be disabled for all banks or this one */
		if (((vcpu->mcg_cap & MCG_CTL_P) && vcpu->mcg_ctl != ~0ULL) || bank[0] != ~0ULL)
			return 0;
		if ((vcpu->mcg_status & MCG_STATUS_MCIP) || !(vcpu->x86.cr4 & CR4_MCE)) {
			vcpu_set_request(vcpu, REQ_TRIPLE_FAULT);
			return 0;
		}
		if (bank[1] & MCI_STATUS_VAL)
			status |= MCI_STATUS_OVER;
		bank[2] = mce->addr;
		bank[3] = mce->misc;
		vcpu->mcg_status = mce->mcg_status;
		bank[1] = status;
		vcpu_queue_exception(vcpu, &(struct x86_event){ .vector = VEC_MC, .type = X86_EVENT_EXCEPTION });
	} else if (!(bank[1] & MCI_STATUS_VAL) || !(bank[1] & MCI_STATUS_UC)) {
		if (bank[1] & MCI_STATUS_VAL)
			status |= MCI_STATUS_OVER;
		bank[2] = mce->addr;
		bank[3] = mce->misc;
		bank[1] = status;
	} else {
		bank[1] |= MCI_STATUS_OVER;
	}
	return 0;
}
