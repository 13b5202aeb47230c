/* Control registers, EFER, XCR0, debug registers, MSRs: what is refused, what follows from what is taken. */
#include <errno.h>
#include <stdlib.h>

#include <asm/kvm_para.h>

#include "core/x86/cpuid.h"
#include "core/x86/fpu.h"
#include "core/x86/msr.h"
#include "tests/tap.h"
#include "tests/x86/fake.h"

static struct machine m;

/* ---- CR0, CR3, CR4, EFER -------------------------------------------------------------------------------------- */

struct cr_case {
	const char *name;
	u64 cr0, cr3, cr4, efer; /* before */
	bool cs_l;
	u8 cr;	   /* 0, 3, 4; 0xef: EFER */
	u64 value;
	bool good;
	u64 result; /* of that register, when good */
};

#define PROT (CR0_PE | CR0_ET)
#define PG   (CR0_PE | CR0_ET | CR0_PG)
#define LONG (EFER_LME | EFER_LMA)

static const struct cr_case cr_cases[] = {
	{ "CR0: high half is #GP", PROT, .cr = 0, .value = 1ULL << 32 | PROT },
	{ "CR0: reserved bits are dropped, ET stays", PROT, .cr = 0, .value = CR0_PE | 1 << 6, .good = true, .result = PROT },
	{ "CR0: NW without CD is #GP", PROT, .cr = 0, .value = PROT | CR0_NW },
	{ "CR0: NW with CD", PROT, .cr = 0, .value = PROT | CR0_NW | CR0_CD, .good = true, .result = PROT | CR0_NW | CR0_CD },
	{ "CR0: PG without PE is #GP", PROT, .cr = 0, .value = CR0_PG },
	{ "CR0: paging on", PROT, .cr = 0, .value = PG, .good = true, .result = PG },
	{ "CR0: paging on with LME and no PAE is #GP", PROT, .efer = EFER_LME, .cr = 0, .value = PG },
	{ "CR0: paging on with LME and a 64-bit CS is #GP", PROT, .cr4 = CR4_PAE, .efer = EFER_LME, .cs_l = true, .cr = 0, .value = PG },
	{ "CR0: paging on with LME and PAE", PROT, .cr4 = CR4_PAE, .efer = EFER_LME, .cr = 0, .value = PG, .good = true, .result = PG },
	{ "CR0: paging off in 64-bit code is #GP", PG, .cr4 = CR4_PAE, .efer = LONG, .cs_l = true, .cr = 0, .value = PROT },
	{ "CR0: paging off in compatibility code", PG, .cr4 = CR4_PAE, .efer = LONG, .cr = 0, .value = PROT, .good = true, .result = PROT },
	{ "CR0: paging off with PCIDE is #GP", PG, .cr4 = CR4_PAE | CR4_PCIDE, .efer = LONG, .cr = 0, .value = PROT },
	{ "CR0: PAE paging on with bad PDPTEs is #GP", PROT, 0x600000, CR4_PAE, .cr = 0, .value = PG },
	{ "CR3: reserved address bits are #GP in long mode", PG, .cr4 = CR4_PAE, .efer = LONG, .cr = 3, .value = 1ULL << 51 },
	{ "CR3: bit 63 without PCIDE is #GP", PG, .cr4 = CR4_PAE, .efer = LONG, .cr = 3, .value = 1ULL << 63 | 0x5000 },
	{ "CR3: bit 63 with PCIDE is not kept", PG, .cr4 = CR4_PAE | CR4_PCIDE, .efer = LONG, .cr = 3, .value = 1ULL << 63 | 0x5001, .good = true, .result = 0x5001 },
	{ "CR3: PAE paging with bad PDPTEs is #GP", PG, .cr4 = CR4_PAE, .cr = 3, .value = 0x600000 },
	{ "CR4: reserved bits are #GP", PROT, .cr = 4, .value = 1ULL << 15 },
	{ "CR4: LA57 is not offered", PROT, .cr = 4, .value = CR4_LA57 },
	{ "CR4: VMXE is not offered", PROT, .cr = 4, .value = CR4_VMXE },
	{ "CR4: high half is #GP", PROT, .cr = 4, .value = 1ULL << 40 },
	{ "CR4: clearing PAE in long mode is #GP", PG, .cr4 = CR4_PAE, .efer = LONG, .cr = 4, .value = 0 },
	{ "CR4: PCIDE outside of long mode is #GP", PROT, .cr = 4, .value = CR4_PAE | CR4_PCIDE },
	{ "CR4: PCIDE with CR3[11:0] set is #GP", PG, 0x5008, CR4_PAE, LONG, .cr = 4, .value = CR4_PAE | CR4_PCIDE },
	{ "CR4: PCIDE", PG, 0x5000, CR4_PAE, LONG, .cr = 4, .value = CR4_PAE | CR4_PCIDE, .good = true, .result = CR4_PAE | CR4_PCIDE },
	{ "EFER: LME with paging on is #GP", PG, .cr = 0xef, .value = EFER_LME },
	{ "EFER: LME with paging off", PROT, .cr = 0xef, .value = EFER_LME | EFER_NX, .good = true, .result = EFER_LME | EFER_NX },
	{ "EFER: LMA is not for software", PROT, .cr = 0xef, .value = EFER_LMA | EFER_SCE, .good = true, .result = EFER_SCE },
	{ "EFER: SVME is #GP", PROT, .cr = 0xef, .value = EFER_SVME },
	{ "EFER: a reserved bit is #GP", PROT, .cr = 0xef, .value = 1 << 1 },
};

static void cr_table(void)
{
	struct x86_state *s = &m.vcpu->x86;

	put64(&m, 0x600000, 7); /* a PDPTE with reserved bits */
	for (unsigned i = 0; i < ARRAY_SIZE(cr_cases); i++) {
		const struct cr_case *c = &cr_cases[i];
		enum x86_result r;
		u64 before, after;

		s->cr0 = c->cr0;
		s->cr3 = c->cr3;
		s->cr4 = c->cr4;
		s->efer = c->efer;
		s->seg[SEG_CS].ar = (s->seg[SEG_CS].ar & ~AR_L) | (c->cs_l ? AR_L : 0);
		x86_update_mode(s);
		before = c->cr == 0 ? s->cr0 : c->cr == 3 ? s->cr3 : c->cr == 4 ? s->cr4 : s->efer;
		r = c->cr == 0xef ? vcpu_set_efer(m.vcpu, c->value, false) : vcpu_set_cr(m.vcpu, c->cr, c->value);
		after = c->cr == 0 ? s->cr0 : c->cr == 3 ? s->cr3 : c->cr == 4 ? s->cr4 : s->efer;
		tap_ok(r == (c->good ? X86_CONTINUE : X86_FAULT) && after == (c->good ? c->result : before), "%s", c->name);
	}
}

static bool flushed(enum tlb_scope scope, u64 arg)
{
	bool r = flush_log.count == 1 && flush_log.last == scope && flush_log.arg == arg;

	flush_log.count = 0;
	return r;
}

static void flushes(void)
{
	struct x86_state *s = &m.vcpu->x86;

	machine_long_mode(&m, 0x1000);
	flush_log.count = 0;
	vcpu_set_cr(m.vcpu, 3, 0x5000);
	tap_ok(flushed(TLB_NONGLOBAL, 0), "a CR3 load flushes what is not global");
	vcpu_set_cr(m.vcpu, 4, s->cr4 | CR4_PCIDE);
	tap_ok(!flush_log.count, "turning PCIDE on flushes nothing");
	vcpu_set_cr(m.vcpu, 3, 0x5007);
	tap_ok(flushed(TLB_PCID, 7), "a CR3 load with PCIDs flushes its PCID");
	vcpu_set_cr(m.vcpu, 3, CR3_NOFLUSH | 0x6009);
	tap_ok(flushed(TLB_SWITCH, 9), "with bit 63 it only switches");
	vcpu_set_cr(m.vcpu, 4, s->cr4 ^ CR4_PGE);
	tap_ok(flushed(TLB_ALL, 0), "CR4.PGE flushes everything");
	vcpu_set_cr(m.vcpu, 0, s->cr0 ^ CR0_TS);
	tap_ok(!flush_log.count, "CR0.TS flushes nothing");
	vcpu_set_cr(m.vcpu, 0, s->cr0 ^ CR0_WP);
	tap_ok(flushed(TLB_ALL, 0), "CR0.WP does");
	vcpu_set_cr(m.vcpu, 0, s->cr0 & ~CR0_PG);
}

static void long_mode_switch(void)
{
	struct x86_state *s = &m.vcpu->x86;

	machine_real_mode(&m, 0x1000);
	vcpu_set_cr(m.vcpu, 4, CR4_PAE);
	vcpu_set_efer(m.vcpu, EFER_LME, false);
	vcpu_set_cr(m.vcpu, 0, PG);
	tap_ok((s->efer & EFER_LMA) && s->mode == X86_MODE_PROT16, "CR0.PG with EFER.LME sets LMA: compatibility mode");
	vcpu_set_cr(m.vcpu, 0, PROT);
	tap_ok(!(s->efer & EFER_LMA) && (s->efer & EFER_LME), "and clearing it clears LMA");
}

static void xcr_dr(void)
{
	u64 max = m.vcpu->guest_supported_xcr0;

	tap_ok(vcpu_set_xcr(m.vcpu, 0, 3) == X86_CONTINUE && m.vcpu->x86.xcr0 == 3, "XCR0: x87 and SSE");
	tap_ok(vcpu_set_xcr(m.vcpu, 0, 2) == X86_FAULT, "XCR0: x87 cannot be off");
	tap_ok(vcpu_set_xcr(m.vcpu, 0, 5) == X86_FAULT, "XCR0: AVX needs SSE");
	tap_ok(vcpu_set_xcr(m.vcpu, 1, 1) == X86_FAULT, "there is no XCR1");
	tap_ok(vcpu_set_xcr(m.vcpu, 0, 0x27) == X86_FAULT, "XCR0: AVX-512's three components come together");
	tap_ok(vcpu_set_xcr(m.vcpu, 0, max | 1ULL << 17) == X86_FAULT, "XCR0: AMX is not offered");
	tap_ok(vcpu_set_xcr(m.vcpu, 0, max) == X86_CONTINUE, "XCR0: all that CPUID shows");
	tap_ok(vcpu_cpuid_entry(m.vcpu, 0xd, 0)->ebx == cpuid_xsave_size(max), "CPUID 0xD.EBX follows XCR0");

	tap_ok(vcpu_set_dr(m.vcpu, 6, 1ULL << 32) == X86_FAULT && vcpu_set_dr(m.vcpu, 7, 1ULL << 32) == X86_FAULT,
	       "DR6 and DR7: the high half is #GP");
	tap_ok(vcpu_set_dr(m.vcpu, 7, 0) == X86_CONTINUE && m.vcpu->x86.dr7 == 0x400 &&
		       vcpu_set_dr(m.vcpu, 6, 0) == X86_CONTINUE && m.vcpu->x86.dr6 == DR6_FIXED_1,
	       "fixed bits of DR6 and DR7 stay");
	tap_ok(vcpu_set_dr(m.vcpu, 0, 0x1234) == X86_CONTINUE && m.vcpu->eff_dr[0] == 0x1234, "a DR0 written is live");
}

/* ---- MSRs ------------------------------------------------------------------------------------------------------ */

struct msr_case {
	const char *name;
	u32 index;
	u64 value;
	bool good;
	bool client;
};

static const struct msr_case msr_cases[] = {
	{ "PAT", MSR_IA32_CR_PAT, 0x0007010600070106, true },
	{ "PAT with memory type 2", MSR_IA32_CR_PAT, 2, false },
	{ "PAT with memory type 3 on top", MSR_IA32_CR_PAT, 3ULL << 56, false },
	{ "MTRR default type: WB, enabled", MSR_MTRRdefType, 0xc06, true },
	{ "MTRR default type 2", MSR_MTRRdefType, 0xc02, false },
	{ "MTRR default type, reserved bit", MSR_MTRRdefType, 0x1006, false },
	{ "fixed MTRR", MSR_MTRRfix64K_00000, 0x0606060606060606, true },
	{ "fixed MTRR with type 7", MSR_MTRRfix4K_C0000 + 7, 0x07ULL << 56, false },
	{ "variable MTRR base", MSR_IA32_MTRR_PHYSBASE0, 0xc0000006, true },
	{ "variable MTRR base, reserved type", MSR_IA32_MTRR_PHYSBASE0, 0xc0000003, false },
	{ "variable MTRR mask, reserved bit", MSR_IA32_MTRR_PHYSBASE0 + 1, 0xc0000001, false },
	{ "variable MTRR 7's mask", MSR_IA32_MTRR_PHYSBASE0 + 15, 0xc0000800, true },
	{ "MTRR capabilities are read-only", MSR_MTRRcap, 0, false },
	{ "LSTAR", MSR_LSTAR, 0xffffffff81000000, true },
	{ "LSTAR, not canonical", MSR_LSTAR, 0x8000000000000000, false },
	{ "KERNEL_GS_BASE, not canonical", MSR_KERNEL_GS_BASE, 1ULL << 47, false },
	{ "FS base, not canonical", MSR_FS_BASE, 1ULL << 47, false },
	{ "SYSENTER_EIP, not canonical", MSR_IA32_SYSENTER_EIP, 1ULL << 47, false },
	{ "TSC_AUX", MSR_TSC_AUX, 0xffffffff, true },
	{ "TSC_AUX, 33 bits", MSR_TSC_AUX, 1ULL << 32, false },
	{ "ARCH_CAPABILITIES is read-only", MSR_IA32_ARCH_CAPABILITIES, 0, false },
	{ "ARCH_CAPABILITIES by the client", MSR_IA32_ARCH_CAPABILITIES, 1, true, true },
	{ "SPEC_CTRL", MSR_IA32_SPEC_CTRL, 1, true },
	{ "SPEC_CTRL, BHI_DIS_S", MSR_IA32_SPEC_CTRL, 1 << 10, true },
	{ "SPEC_CTRL, reserved bit", MSR_IA32_SPEC_CTRL, 1 << 11, false },
	{ "microcode update trigger is ignored", MSR_IA32_UCODE_WRITE, 0x1000, true },
	{ "SMBASE is not the guest's", MSR_IA32_SMBASE, 0xa0000, false },
	{ "SMBASE by the client", MSR_IA32_SMBASE, 0xa0000, true, true },
	{ "FEATURE_CONTROL is locked to the guest", MSR_IA32_FEAT_CTL, 5, false },
	{ "MCG_CAP is read-only", MSR_IA32_MCG_CAP, 0, false },
	{ "MC0_CTL, all ones", MSR_IA32_MC0_CTL, ~0ULL, true },
	{ "MC0_CTL, some ones", MSR_IA32_MC0_CTL, 0x1234, false },
	{ "MC0_STATUS, zero", MSR_IA32_MC0_CTL + 1, 0, true },
	{ "MC0_STATUS, else", MSR_IA32_MC0_CTL + 1, 1, false },
	{ "MC0_STATUS by the client", MSR_IA32_MC0_CTL + 1, 1, true, true },
	{ "poll control", 0x4b564d05, 0, true },
	{ "poll control, reserved bit", 0x4b564d05, 2, false },
	{ "EFER, reserved bit", MSR_EFER, 2, false },
	{ "HWCR, TSC frequency bit is ignored", MSR_K7_HWCR, 1 << 24, true },
	{ "HWCR, another bit", MSR_K7_HWCR, 1 << 20, false },
	{ "XSS: no supervisor states", MSR_IA32_XSS, 1 << 11, false },
	{ "an MSR that does not exist", 0x12345, 0, false },
	{ "VMX capabilities do not exist", 0x480, 0, false },
	{ "x2APIC registers without a LAPIC in core", 0x808, 0, false },
};

static void msr_table(void)
{
	struct kvm_msr_list *list;
	u8 buf[sizeof(*list) + 512 * 4] __attribute__((aligned(8)));
	unsigned failed = 0;
	u64 value, tsc;

	machine_long_mode(&m, 0x1000);
	for (unsigned i = 0; i < ARRAY_SIZE(msr_cases); i++) {
		const struct msr_case *c = &msr_cases[i];
		enum x86_result r = vcpu_set_msr(m.vcpu, c->index, c->value, c->client);

		tap_ok((r == X86_CONTINUE) == c->good, "MSR: %s: %s", c->name, c->good ? "taken" : "#GP");
	}
	tap_ok(vcpu_set_msr(m.vcpu, MSR_IA32_DEBUGCTL, DEBUGCTL_LBR, false) == X86_CONTINUE &&
		       vcpu_get_msr(m.vcpu, MSR_IA32_DEBUGCTL, &value, false) == X86_CONTINUE && !value &&
		       vcpu_set_msr(m.vcpu, MSR_IA32_DEBUGCTL, 4, false) == X86_FAULT,
	       "DEBUGCTL.LBR is taken and stays off without an engine that records");
	vcpu_set_msr(m.vcpu, MSR_IA32_LASTBRANCHFROMIP + 1, 0x1234, true);
	tap_ok(vcpu_set_msr(m.vcpu, MSR_IA32_LASTBRANCHFROMIP + 1, 5, false) == X86_CONTINUE &&
		       vcpu_get_msr(m.vcpu, MSR_IA32_LASTBRANCHFROMIP + 1, &value, false) == X86_CONTINUE && value == 0x1234,
	       "the last branch is the client's to restore, not the guest's to write");
	tap_ok(vcpu_get_msr(m.vcpu, MSR_LSTAR, &value, false) == X86_CONTINUE && value == 0xffffffff81000000 &&
		       m.vcpu->x86.lstar == value,
	       "LSTAR is where SYSCALL looks");
	vcpu_set_msr(m.vcpu, MSR_GS_BASE, 0xffff888000000000, false);
	tap_ok(m.vcpu->x86.seg[SEG_GS].base == 0xffff888000000000, "GS base is the segment's");

	/* Whatever is listed can be read by the client and written back: a VM is saved and restored by this list */
	list = (void *)buf;
	list->nmsrs = 1;
	tap_ok(core_system_ioctl(KVM_GET_MSR_INDEX_LIST, (u64)(unsigned long)list) == -E2BIG && list->nmsrs > 40,
	       "KVM_GET_MSR_INDEX_LIST says how much room it needs");
	tap_ok(list->nmsrs <= 512 && !core_system_ioctl(KVM_GET_MSR_INDEX_LIST, (u64)(unsigned long)list), "and then lists");
	x86_vcpu_reset(m.vcpu, false);
	for (u32 i = 0; i < list->nmsrs; i++) {
		if (vcpu_get_msr(m.vcpu, list->indices[i], &value, true) != X86_CONTINUE ||
		    vcpu_set_msr(m.vcpu, list->indices[i], value, true) != X86_CONTINUE) {
			tap_diag("MSR %x", list->indices[i]);
			failed++;
		}
		if (i && list->indices[i] <= list->indices[i - 1])
			failed++;
	}
	tap_ok(!failed, "each listed MSR is read and written back by the client, in ascending order");

	vcpu_set_msr(m.vcpu, MSR_IA32_TSC_ADJUST, 0, true);
	vcpu_set_msr(m.vcpu, MSR_IA32_TSC, 0, false);
	tsc = vcpu_read_tsc(m.vcpu);
	tap_ok(tsc < 1000000000 && (s64)m.vcpu->tsc_adjust < 0, "a guest's write of the TSC moves TSC_ADJUST");
	vcpu_set_msr(m.vcpu, MSR_IA32_TSC_ADJUST, m.vcpu->tsc_adjust + (1ULL << 50), false);
	tap_ok(vcpu_read_tsc(m.vcpu) >= 1ULL << 50, "a guest's write of TSC_ADJUST moves the TSC");
}

/* ---- CPUID ------------------------------------------------------------------------------------------------------ */

static struct kvm_cpuid_entry2 *entry(struct kvm_cpuid2 *c, u32 function, u32 index)
{
	for (u32 i = 0; i < c->nent; i++) {
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	}
	return NULL;
}

static void cpuid_rules(void)
{
	struct kvm_cpuid2 *c = machine_supported_cpuid(), few = { .nent = 1 };
	u32 regs[4] = { 1 }, beyond[4] = { 0x30000000 }, last[4] = { 0 };
	struct kvm_cpuid_entry2 *e;

	tap_ok(core_system_ioctl(KVM_GET_SUPPORTED_CPUID, (u64)(unsigned long)&few) == -E2BIG,
	       "KVM_GET_SUPPORTED_CPUID with too little room is E2BIG");
	e = entry(c, 1, 0);
	tap_ok(e && !(e->ecx & (X86_FEATURE_BIT(X86_FEATURE_VMX) | X86_FEATURE_BIT(X86_FEATURE_MONITOR))) &&
		       (e->ecx & X86_FEATURE_BIT(X86_FEATURE_HYPERVISOR)) && (e->ecx & X86_FEATURE_BIT(X86_FEATURE_X2APIC)),
	       "CPUID 1: x2APIC and a hypervisor, no VMX, no MONITOR");
	tap_ok(e && !(e->ecx & X86_FEATURE_BIT(X86_FEATURE_TSC_DEADLINE)),
	       "CPUID 1: the TSC deadline is a capability's to tell, for it needs a LAPIC in core");
	e = entry(c, 7, 0);
	tap_ok(e && !(e->ebx & X86_FEATURE_BIT(X86_FEATURE_RTM)) && !(e->ecx & X86_FEATURE_BIT(X86_FEATURE_PKU)) &&
		       !(e->ecx & X86_FEATURE_BIT(X86_FEATURE_LA57)) && !(e->edx & 1U << 24),
	       "CPUID 7: no RTM, PKU, LA57, AMX");
	e = entry(c, 0x40000000, 0);
	tap_ok(e && !memcmp(&e->ebx, "KVMKVMKVM\0\0", 12) && e->eax == 0x40000001, "CPUID 0x40000000 is KVM's signature");
	e = entry(c, 0x80000001, 0);
	tap_ok(e && !(e->ecx & X86_FEATURE_BIT(X86_FEATURE_SVM)) && (e->edx & X86_FEATURE_BIT(X86_FEATURE_LM)),
	       "CPUID 0x80000001: long mode, no SVM");

	machine_long_mode(&m, 0x1000);
	vcpu_cpuid(m.vcpu, regs);
	tap_ok(!(regs[2] & X86_FEATURE_BIT(X86_FEATURE_OSXSAVE)), "OSXSAVE is clear");
	vcpu_set_cr(m.vcpu, 4, m.vcpu->x86.cr4 | CR4_OSXSAVE);
	regs[0] = 1;
	vcpu_cpuid(m.vcpu, regs);
	tap_ok(regs[2] & X86_FEATURE_BIT(X86_FEATURE_OSXSAVE), "and follows CR4");
	vcpu_set_msr(m.vcpu, MSR_IA32_APICBASE, 0xfee00000, false);
	regs[0] = 1;
	vcpu_cpuid(m.vcpu, regs);
	tap_ok(!(regs[3] & X86_FEATURE_BIT(X86_FEATURE_APIC)), "the APIC bit follows IA32_APIC_BASE");
	vcpu_cpuid(m.vcpu, beyond);
	last[0] = entry(c, 0, 0)->eax;
	vcpu_cpuid(m.vcpu, last);
	if (cpuid_vendor_is_amd(m.vcpu))
		tap_ok(!(beyond[0] | beyond[1] | beyond[2] | beyond[3]), "a leaf beyond the last is zero on AMD");
	else
		tap_ok(!memcmp(beyond, last, sizeof(last)), "a leaf beyond the last repeats the last basic one");
	few.nent = 1;
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_GET_CPUID2, &few) == -E2BIG, "KVM_GET_CPUID2 with too little room is E2BIG");
	few.nent = 1000;
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_CPUID2, &few) == -E2BIG, "KVM_SET_CPUID2 of too many entries is E2BIG");

	/* Without NX and long mode in CPUID they cannot be switched on */
	entry(c, 0x80000001, 0)->edx &= ~(X86_FEATURE_BIT(X86_FEATURE_NX) | X86_FEATURE_BIT(X86_FEATURE_LM));
	machine_ioctl(m.vcpu_fd, KVM_SET_CPUID2, c);
	machine_real_mode(&m, 0x1000);
	tap_ok(vcpu_set_efer(m.vcpu, EFER_NX, false) == X86_FAULT && vcpu_set_efer(m.vcpu, EFER_LME, false) == X86_FAULT &&
		       vcpu_set_msr(m.vcpu, MSR_LSTAR, 0, false) == X86_FAULT,
	       "what CPUID does not show is #GP");
	free(c);
}

/* ---- FPU --------------------------------------------------------------------------------------------------------- */

static void fpu_image(void)
{
	struct kvm_xsave *x = calloc(1, sizeof(*x)), *y = calloc(1, sizeof(*y));
	struct kvm_fpu fpu;
	struct kvm_xcrs xcrs = { .nr_xcrs = KVM_MAX_XCRS + 1 };

	x86_vcpu_reset(m.vcpu, false);
	machine_ioctl(m.vcpu_fd, KVM_GET_FPU, &fpu);
	tap_ok(fpu.fcw == 0x37f && fpu.mxcsr == 0x1f80 && !fpu.ftwx, "FPU: initial state");
	fpu.xmm[3][5] = 0x42;
	fpu.fcw = 0x27f;
	machine_ioctl(m.vcpu_fd, KVM_SET_FPU, &fpu);
	machine_ioctl(m.vcpu_fd, KVM_GET_XSAVE, x);
	tap_ok(((u8 *)x)[160 + 3 * 16 + 5] == 0x42 && ((u16 *)x)[0] == 0x27f && (x->region[128] & 3) == 3,
	       "FPU: KVM_SET_FPU shows in KVM_GET_XSAVE");
	x->region[6] = 0xffffffff;
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_XSAVE, x) == -EINVAL, "XSAVE: MXCSR bits that no processor has");
	x->region[6] = 0x1f80;
	x->region[129] = 1U << 31;
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_XSAVE, x) == -EINVAL, "XSAVE: unknown components");
	x->region[129] = 0;
	x->region[131] = 1U << 31;
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_XSAVE, x) == -EINVAL, "XSAVE: the compacted format is not accepted");
	x->region[131] = 0;
	x->region[140] = 1;
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_XSAVE, x) == -EINVAL, "XSAVE: reserved header bytes");
	x->region[140] = 0;
	tap_ok(!machine_ioctl(m.vcpu_fd, KVM_SET_XSAVE, x) && !machine_ioctl(m.vcpu_fd, KVM_GET_XSAVE, y) &&
		       !memcmp(x, y, sizeof(*x)),
	       "XSAVE: a round trip");
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_XCRS, &xcrs) == -EINVAL, "XCRS: too many");
	xcrs = (struct kvm_xcrs){ .nr_xcrs = 1, .xcrs[0].value = 2 };
	tap_ok(machine_ioctl(m.vcpu_fd, KVM_SET_XCRS, &xcrs) == -EINVAL, "XCRS: an XCR0 that cannot be");
	free(x);
	free(y);
}

/* struct kvm_steal_time: steal, version, flags; the KVM API document's MSR_KVM_STEAL_TIME. */
static void steal_time(void)
{
	static const u64 page = 0x3000;
	int idx = host_srcu_read_lock(&m.vm->srcu);

	put64(&m, page, 5);
	put32(&m, page + 8, 0);
	tap_ok(vcpu_set_msr(m.vcpu, MSR_KVM_STEAL_TIME, page | 3, true) == X86_FAULT, "steal time: reserved bits are #GP");
	tap_ok(vcpu_set_msr(m.vcpu, MSR_KVM_STEAL_TIME, page | 1, true) == X86_CONTINUE, "steal time: its page is taken");
	m.vcpu->steal_last_ns = 0;
	vcpu_steal_update(m.vcpu, true);
	tap_ok(get64(&m, page) == 5 + m.vcpu->steal_last_ns, "steal time: this thread's run delay is added");
	tap_ok(get32(&m, page + 8) == 2, "steal time: the version is even again");
	/* A new delay may come at any instant: once more, then */
	do {
		put32(&m, page + 8, 0);
		m.vcpu->steal_last_ns = host_run_delay_ns();
		vcpu_steal_update(m.vcpu, false);
	} while (host_run_delay_ns() != m.vcpu->steal_last_ns);
	tap_ok(get32(&m, page + 8) == 0, "steal time: nothing new is not written");
	vcpu_steal_update(m.vcpu, true);
	tap_ok(get32(&m, page + 8) == 2, "steal time: unless it must be");
	tap_ok(vcpu_set_msr(m.vcpu, MSR_KVM_STEAL_TIME, 0, true) == X86_CONTINUE, "steal time: is switched off");
	vcpu_steal_update(m.vcpu, true);
	tap_ok(get32(&m, page + 8) == 2, "steal time: and the page is left alone");
	host_srcu_read_unlock(&m.vm->srcu, idx);
}

int main(void)
{
	tap_begin();
	machine_init(&m, 1, false);
	steal_time();
	cr_table();
	flushes();
	long_mode_switch();
	xcr_dr();
	msr_table();
	fpu_image();
	cpuid_rules();
	machine_destroy(&m);
	return tap_end();
}
