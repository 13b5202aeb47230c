/*
 * CPUID: what is offered (the host's bits, those that core serves in software on any host, less what the engine cannot) and
 * what a vCPU answers (the client's table with the few bits that follow the vCPU's own state).
 */
#include "core/x86/cpuid.h"

#include <linux/kvm_para.h>

#include "core/vcpu.h"
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/irqchip.h"
#include "core/x86/msr.h"

#define CPUID_MAX_ENTRIES 256 /* KVM_MAX_CPUID_ENTRIES */
#define XSAVE_AVX_OFFSET  576

#define F(name) X86_FEATURE_BIT(X86_FEATURE_##name)

/* ---- what may be offered ------------------------------------------------------------------------------------- */

/*
 * @host: offered when the host has it, because guest code runs (in part) on the host's own units. @core: offered always,
 * core or any engine's handling of system instructions serves it; an engine that runs on hardware clears what that lacks.
 */
static const struct {
	u32 function;
	u8 index, reg;
	u32 host, core;
} words[CPUID_WORDS] = {
	[CPUID_1_EDX] = { 1, 0, 3,
		F(MMX) | F(FXSR) | F(SSE) | F(SSE2) | F(CLFSH),
		F(FPU) | F(VME) | F(DE) | F(PSE) | F(TSC) | F(MSR) | F(PAE) | F(MCE) | F(CX8) | F(APIC) | F(SEP) | F(MTRR) |
		F(PGE) | F(MCA) | F(CMOV) | F(PAT) | F(PSE36) },
	[CPUID_1_ECX] = { 1, 0, 2,
		F(SSE3) | F(PCLMULQDQ) | F(SSSE3) | F(FMA) | F(CX16) | F(SSE41) | F(SSE42) | F(MOVBE) | F(POPCNT) | F(AES) |
		F(XSAVE) | F(AVX) | F(F16C) | F(RDRAND),
		/* Not TSC_DEADLINE: it needs a LAPIC in core, so KVM_CAP_TSC_DEADLINE_TIMER tells of it and the client adds it */
		F(PCID) | F(X2APIC) | F(HYPERVISOR) },
	[CPUID_7_EBX] = { 7, 0, 1,
		F(BMI1) | F(AVX2) | F(BMI2) | F(ERMS) | F(AVX512F) | F(AVX512DQ) | F(RDSEED) | F(ADX) | F(AVX512IFMA) |
		F(CLFLUSHOPT) | F(CLWB) | F(AVX512CD) | F(SHA) | F(AVX512BW) | F(AVX512VL),
		F(FSGSBASE) | F(TSC_ADJUST) | F(SMEP) | F(INVPCID) | F(SMAP) },
	[CPUID_7_ECX] = { 7, 0, 2,
		F(AVX512VBMI) | F(AVX512VBMI2) | F(GFNI) | F(VAES) | F(VPCLMULQDQ) | F(AVX512VNNI) | F(AVX512BITALG) |
		F(AVX512VPOPCNTDQ) | F(RDPID) | F(MOVDIRI),
		F(UMIP) },
	[CPUID_7_EDX] = { 7, 0, 3,
		F(AVX512_4VNNIW) | F(AVX512_4FMAPS) | F(FSRM) | F(AVX512VP2INTERSECT) | F(AVX512FP16),
		F(SPEC_CTRL) | F(STIBP) | F(ARCH_CAPABILITIES) | F(SPEC_CTRL_SSBD) },
	[CPUID_80000001_EDX] = { 0x80000001, 0, 3,
		F(MMXEXT) | F(FXSR_OPT),
		F(SYSCALL) | F(NX) | F(GBPAGES) | F(RDTSCP) | F(LM) },
	[CPUID_80000001_ECX] = { 0x80000001, 0, 2,
		F(LZCNT) | F(SSE4A) | F(MISALIGNSSE) | F(3DNOWPREFETCH) | F(CMP_LEGACY) | F(TOPOEXT),
		F(LAHF_LM) | F(CR8_LEGACY) },
	[CPUID_D_1_EAX] = { 0xd, 1, 0, F(XSAVEOPT) | F(XSAVEC) | F(XGETBV1), 0 },
	/* Without it, kernels in a virtual machine clear the branch history by a loop at every entry, BHI_NO or not. */
	[CPUID_7_2_EDX] = { 7, 2, 3, 0, F(BHI_CTRL) },
	[CPUID_7_1_EAX] = { 7, 1, 0, F(AVX_VNNI) | F(AVX512_BF16) | F(FZRM) | F(FSRS) | F(FSRC) | F(AVX_IFMA), 0 },
	/*
	 * BTC_NO, as SRSO_NO below: a guest's return is none of the host's where guest code is translated, and how a kernel would train
	 * the predictor anew (each return by way of a thunk) does nothing there but take time. Engines on hardware say what that has.
	 */
	[CPUID_80000008_EBX] = { 0x80000008, 0, 1, F(CLZERO) | F(XSAVEERPTR), F(AMD_SSB_NO) | F(AMD_BTC_NO) },
	[CPUID_80000007_EDX] = { 0x80000007, 0, 3, F(NONSTOP_TSC), 0 },
	[CPUID_6_EAX] = { 6, 0, 0, 0, F(ARAT) },
	[CPUID_KVM_EAX] = { KVM_CPUID_FEATURES, 0, 0, 0,
		1U << KVM_FEATURE_CLOCKSOURCE | 1U << KVM_FEATURE_NOP_IO_DELAY | 1U << KVM_FEATURE_CLOCKSOURCE2 |
		1U << KVM_FEATURE_PV_UNHALT | 1U << KVM_FEATURE_POLL_CONTROL | 1U << KVM_FEATURE_PV_SEND_IPI |
		1U << KVM_FEATURE_PV_SCHED_YIELD | 1U << KVM_FEATURE_STEAL_TIME | 1U << KVM_FEATURE_CLOCKSOURCE_STABLE_BIT },
	/* LFENCE serializes, null selectors clear the base, return prediction is not the guest's to poison (SRSO_NO) */
	[CPUID_80000021_EAX] = { 0x80000021, 0, 0, 1U << 2 | 1U << 6, 1U << 29 },
};

/* In leaf 0x80000001 EDX an AMD processor repeats these bits of leaf 1. */
#define AMD_REPEATED 0x0183f3ffU

void cpuid_host(u32 function, u32 index, u32 regs[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
			 : "a"(function), "c"(index));
}

static bool host_is_amd(void)
{
	u32 r[4];

	cpuid_host(0, 0, r);
	return (r[1] == 0x68747541 && r[3] == 0x69746e65) || (r[1] == 0x6f677948 && r[3] == 0x6e65476e);
}

static u32 host_max(u32 range)
{
	u32 r[4];

	cpuid_host(range, 0, r);
	return (r[0] & 0xffff0000) == range ? r[0] : 0;
}

/* Like cpuid_host(), with zeros beyond what the host has instead of Intel's repetition. */
static void host_leaf(u32 function, u32 index, u32 regs[4])
{
	memset(regs, 0, 4 * sizeof(u32));
	if (function <= host_max(function & 0xffff0000))
		cpuid_host(function, index, regs);
}

u64 cpuid_host_xcr0(void)
{
	u32 r[4], lo, hi;

	host_leaf(1, 0, r);
	if (!(r[2] & F(OSXSAVE)))
		return XCR0_FP | XCR0_SSE;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (u64)hi << 32 | lo;
}

static u64 xcr0_of_features(u64 xcr0, u32 ecx1, u32 ebx7)
{
	xcr0 &= XCR0_FP | XCR0_SSE | XCR0_AVX | XCR0_AVX512;
	if (!(ecx1 & F(XSAVE)))
		return XCR0_FP | XCR0_SSE;
	if (!(ecx1 & F(AVX)))
		xcr0 &= ~(XCR0_AVX | XCR0_AVX512);
	if ((xcr0 & XCR0_AVX512) != XCR0_AVX512 || !(xcr0 & XCR0_AVX) || !(ebx7 & F(AVX512F)))
		xcr0 &= ~XCR0_AVX512;
	return xcr0;
}

static u32 offered_word(enum cpuid_word word)
{
	u32 r[4], offer = words[word].core;

	host_leaf(words[word].function, words[word].index, r);
	offer |= r[words[word].reg] & words[word].host;
	memset(r, 0, sizeof(r));
	r[words[word].reg] = offer;
	if (core_engine() && core_engine()->cpuid_mask)
		core_engine()->cpuid_mask(words[word].function, words[word].index, r);
	return r[words[word].reg];
}

/* CPUID traps where the host is itself a guest: a few microseconds each time, and every KVM_SET_XSAVE asks. 0: to be asked. */
static u64 known_xcr0;

void cpuid_engine_changed(void)
{
	__atomic_store_n(&known_xcr0, 0, __ATOMIC_RELAXED);
}

u64 cpuid_supported_xcr0(void)
{
	u64 xcr0 = __atomic_load_n(&known_xcr0, __ATOMIC_RELAXED);

	if (xcr0)
		return xcr0;
	xcr0 = xcr0_of_features(cpuid_host_xcr0(), offered_word(CPUID_1_ECX), offered_word(CPUID_7_EBX));
	if (core_engine())
		__atomic_store_n(&known_xcr0, xcr0, __ATOMIC_RELAXED);
	return xcr0;
}

/* A word with what depends on XCR0 taken away. */
static u32 supported_word(enum cpuid_word word)
{
	u32 bits = offered_word(word);
	u64 xcr0 = cpuid_supported_xcr0();

	if (!(xcr0 & XCR0_AVX)) {
		switch (word) {
		case CPUID_1_ECX: bits &= ~(F(AVX) | F(FMA) | F(F16C)); break;
		case CPUID_7_EBX: bits &= ~F(AVX2); break;
		case CPUID_7_ECX: bits &= ~(F(VAES) | F(VPCLMULQDQ)); break;
		case CPUID_7_1_EAX: bits &= ~(F(AVX_VNNI) | F(AVX_IFMA)); break;
		default: break;
		}
	}
	if (!(xcr0 & XCR0_AVX512)) {
		switch (word) {
		case CPUID_7_EBX:
			bits &= ~(F(AVX512F) | F(AVX512DQ) | F(AVX512IFMA) | F(AVX512CD) | F(AVX512BW) | F(AVX512VL));
			break;
		case CPUID_7_ECX:
			bits &= ~(F(AVX512VBMI) | F(AVX512VBMI2) | F(AVX512VNNI) | F(AVX512BITALG) | F(AVX512VPOPCNTDQ));
			break;
		case CPUID_7_EDX:
			bits &= ~(F(AVX512_4VNNIW) | F(AVX512_4FMAPS) | F(AVX512VP2INTERSECT) | F(AVX512FP16));
			break;
		case CPUID_7_1_EAX: bits &= ~F(AVX512_BF16); break;
		default: break;
		}
	}
	return bits;
}

bool cpuid_supported(u32 f)
{
	return supported_word(X86_FEATURE_WORD(f)) & X86_FEATURE_BIT(f);
}

/* Standard-format layout: each component's place is the processor's own (leaf 0xD). */
u32 cpuid_xsave_size(u64 xcr0)
{
	u32 size = XSAVE_AVX_OFFSET, r[4];

	for (unsigned i = 2; i < 63; i++) {
		if (!(xcr0 & BIT64(i)))
			continue;
		host_leaf(0xd, i, r);
		size = MAX(size, r[0] + r[1]);
	}
	return size;
}

struct cpuid_list {
	struct kvm_cpuid_entry2 *entry;
	u32 nr, max;
	bool full;
};

static void emit(struct cpuid_list *l, u32 function, u32 index, bool indexed, const u32 r[4])
{
	if (l->nr == l->max) {
		l->full = true;
		return;
	}
	l->entry[l->nr++] = (struct kvm_cpuid_entry2){ .function = function, .index = index,
						       .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
						       .eax = r[0], .ebx = r[1], .ecx = r[2], .edx = r[3] };
}

static void emit_xsave(struct cpuid_list *l, u64 xcr0)
{
	u32 size = cpuid_xsave_size(xcr0), r[4], features = supported_word(CPUID_D_1_EAX);

	emit(l, 0xd, 0, true, (u32[]){ xcr0, size, size, xcr0 >> 32 });
	emit(l, 0xd, 1, true, (u32[]){ features, features & F(XSAVEC) ? size : 0, 0, 0 });
	for (unsigned i = 2; i < 63; i++) {
		if (!(xcr0 & BIT64(i)))
			continue;
		host_leaf(0xd, i, r);
		emit(l, 0xd, i, true, (u32[]){ r[0], r[1], r[2] & 2, 0 });
	}
}

static void emit_basic(struct cpuid_list *l, u32 function)
{
	u64 xcr0 = cpuid_supported_xcr0();
	u32 r[4], none[4] = { 0 };

	host_leaf(function, 0, r);
	switch (function) {
	case 1:
		/* EBX: the CLFLUSH size; APIC id and counts are the client's to fill */
		emit(l, 1, 0, false, (u32[]){ r[0], r[1] & 0xff00, supported_word(CPUID_1_ECX),
					      supported_word(CPUID_1_EDX) });
		break;
	case 2:
		if (!host_is_amd() && (r[0] & 0xff) == 1)
			emit(l, 2, 0, false, r);
		else
			emit(l, 2, 0, false, none);
		break;
	case 4:
		for (u32 i = 0; i < 16 && !host_is_amd(); i++) {
			host_leaf(4, i, r);
			r[0] &= 0x3fff;
			emit(l, 4, i, true, r);
			if (!(r[0] & 0x1f))
				return;
		}
		emit(l, 4, 0, true, none);
		break;
	case 6: emit(l, 6, 0, false, (u32[]){ supported_word(CPUID_6_EAX), 0, 0, 0 }); break;
	case 7: {
		u32 sub1 = supported_word(CPUID_7_1_EAX), sub2 = supported_word(CPUID_7_2_EDX);

		emit(l, 7, 0, true, (u32[]){ sub2 ? 2 : !!sub1, supported_word(CPUID_7_EBX), supported_word(CPUID_7_ECX),
					     supported_word(CPUID_7_EDX) });
		if (sub1 || sub2)
			emit(l, 7, 1, true, (u32[]){ sub1, 0, 0, 0 });
		if (sub2)
			emit(l, 7, 2, true, (u32[]){ 0, 0, 0, sub2 });
		break;
	}
	case 0xb:
	case 0x1f: emit(l, function, 0, true, none); break;
	case 0xd:
		if (supported_word(CPUID_1_ECX) & F(XSAVE))
			emit_xsave(l, xcr0);
		else
			emit(l, 0xd, 0, true, none);
		break;
	default: emit(l, function, 0, false, none); break;
	}
}

static void emit_extended(struct cpuid_list *l, u32 function)
{
	u32 r[4], none[4] = { 0 };

	host_leaf(function, 0, r);
	switch (function) {
	case 0x80000001: {
		u32 edx = supported_word(CPUID_80000001_EDX);

		if (host_is_amd())
			edx |= supported_word(CPUID_1_EDX) & AMD_REPEATED;
		emit(l, function, 0, false,
		     (u32[]){ r[0], r[1] & 0xf0000000, supported_word(CPUID_80000001_ECX), edx });
		break;
	}
	case 0x80000002 ... 0x80000006: /* brand string, AMD's cache and TLB descriptions */
	case 0x80000019:
		emit(l, function, 0, false, r);
		break;
	case 0x80000007: emit(l, function, 0, false, (u32[]){ 0, 0, 0, supported_word(CPUID_80000007_EDX) }); break;
	case 0x80000008:
		emit(l, function, 0, false, (u32[]){ MIN(r[0] & 0xff, (u32)GPA_BITS) | 48 << 8,
						     supported_word(CPUID_80000008_EBX), 0, 0 });
		break;
	case 0x8000001d:
		for (u32 i = 0; i < 16 && (supported_word(CPUID_80000001_ECX) & F(TOPOEXT)); i++) {
			host_leaf(function, i, r);
			r[0] &= 0x3fff;
			emit(l, function, i, true, r);
			if (!(r[0] & 0x1f))
				return;
		}
		emit(l, function, 0, true, none);
		break;
	case 0x80000021: emit(l, function, 0, false, (u32[]){ supported_word(CPUID_80000021_EAX), 0, 0, 0 }); break;
	default: emit(l, function, 0, false, none); break;
	}
}

static void emit_all(struct cpuid_list *l)
{
	bool xsave = supported_word(CPUID_1_ECX) & F(XSAVE);
	u32 r[4], max, ext;

	host_leaf(0, 0, r);
	max = MIN(MAX(r[0], xsave ? 0xdU : 7U), 0x1fU);
	emit(l, 0, 0, false, (u32[]){ max, r[1], r[2], r[3] });
	for (u32 f = 1; f <= max; f++)
		emit_basic(l, f);

	/* The KVM API document, "KVM CPUID bits" */
	emit(l, KVM_CPUID_SIGNATURE, 0, false, (u32[]){ KVM_CPUID_FEATURES, 0x4b4d564b, 0x564b4d56, 0x4d });
	emit(l, KVM_CPUID_FEATURES, 0, false, (u32[]){ supported_word(CPUID_KVM_EAX), 0, 0, 0 });

	host_leaf(0x80000000, 0, r);
	ext = MAX(0x80000008U, host_is_amd() ? 0x80000021U : MIN(r[0], 0x80000021U));
	emit(l, 0x80000000, 0, false, (u32[]){ ext, r[1], r[2], r[3] });
	for (u32 f = 0x80000001; f <= ext; f++)
		emit_extended(l, f);
}

/**
 * KVM_GET_SUPPORTED_CPUID and KVM_GET_EMULATED_CPUID. @arg: struct kvm_cpuid2 of the client. 0, -E2BIG (nent too small),
 * -EFAULT, -ENOMEM.
 */
long cpuid_ioctl_supported(u64 arg, struct kvm_cpuid2 *head, bool emulated)
{
	struct cpuid_list list = { .max = CPUID_MAX_ENTRIES };
	long r = 0;

	if (!head->nent)
		return -E2BIG;
	list.entry = host_zalloc(CPUID_MAX_ENTRIES * sizeof(list.entry[0]));
	if (!list.entry)
		return -ENOMEM;
	if (emulated) {
		/* Served though not offered: MOVBE and RDPID by the emulator; leaf 0 tells how far this list goes */
		emit(&list, 0, 0, false, (u32[]){ 7, 0, 0, 0 });
		emit(&list, 1, 0, false, (u32[]){ 0, 0, F(MOVBE), 0 });
		emit(&list, 7, 0, true, (u32[]){ 0, 0, F(RDPID), 0 });
	} else {
		emit_all(&list);
	}
	if (list.nr > head->nent)
		r = -E2BIG;
	else if (host_copy_to_client(arg + sizeof(*head), list.entry, list.nr * sizeof(list.entry[0])))
		r = -EFAULT;
	head->nent = list.nr;
	head->padding = 0;
	host_free(list.entry);
	return r;
}

/* ---- what a vCPU has ------------------------------------------------------------------------------------------ */

struct kvm_cpuid_entry2 *vcpu_cpuid_entry(struct vcpu *vcpu, u32 function, u32 index)
{
	for (u32 i = 0; i < vcpu->nr_cpuid; i++) {
		struct kvm_cpuid_entry2 *e = &vcpu->cpuid[i];

		if (e->function == function &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index))
			return e;
	}
	return NULL;
}

bool vcpu_has_feature(const struct vcpu *vcpu, u32 feature)
{
	return vcpu->features[X86_FEATURE_WORD(feature)] & X86_FEATURE_BIT(feature);
}

bool cpuid_vendor_is_amd(const struct vcpu *vcpu)
{
	const struct kvm_cpuid_entry2 *e = vcpu_cpuid_entry((struct vcpu *)vcpu, 0, 0);

	return e && ((e->ebx == 0x68747541 && e->edx == 0x69746e65) || (e->ebx == 0x6f677948 && e->edx == 0x6e65476e));
}

static void set_bit32(u32 *word, u32 bits, bool on)
{
	*word = on ? *word | bits : *word & ~bits;
}

/* The KVM leaves may stand at 0x40000100 when the client shows another hypervisor's first. */
static u32 kvm_base(struct vcpu *vcpu)
{
	for (u32 base = 0x40000000; base < 0x40010000; base += 0x100) {
		struct kvm_cpuid_entry2 *e = vcpu_cpuid_entry(vcpu, base, 0);

		if (e && e->ebx == 0x4b4d564b && e->ecx == 0x564b4d56 && e->edx == 0x4d)
			return base;
	}
	return 0;
}

void cpuid_runtime_update(struct vcpu *vcpu)
{
	struct kvm_cpuid_entry2 *e;

	e = vcpu_cpuid_entry(vcpu, 1, 0);
	if (e) {
		set_bit32(&e->ecx, F(OSXSAVE), (e->ecx & F(XSAVE)) && (vcpu->x86.cr4 & CR4_OSXSAVE));
		set_bit32(&e->edx, F(APIC), vcpu->apic_base & APIC_BASE_ENABLE);
		if (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT)
			set_bit32(&e->ecx, F(MONITOR), vcpu->misc_enable & MISC_ENABLE_MWAIT);
	}
	if (unlikely(vcpu->vm->exits_disabled & KVM_X86_DISABLE_EXITS_HLT)) {
		/* Who halts without an exit cannot be woken by a hypercall */
		u32 base = kvm_base(vcpu);

		e = base ? vcpu_cpuid_entry(vcpu, base + 1, 0) : NULL;
		if (e)
			e->eax &= ~(1U << KVM_FEATURE_PV_UNHALT);
	}
	e = vcpu_cpuid_entry(vcpu, 7, 0);
	if (e)
		set_bit32(&e->ecx, F(OSPKE), (e->ecx & F(PKU)) && (vcpu->x86.cr4 & CR4_PKE));
	e = vcpu_cpuid_entry(vcpu, 0xd, 0);
	if (e)
		e->ebx = cpuid_xsave_size(vcpu->x86.xcr0);
	e = vcpu_cpuid_entry(vcpu, 0xd, 1);
	if (e && (e->eax & (F(XSAVEC) | F(XSAVES)))) {
		u32 size = XSAVE_AVX_OFFSET;

		/* compacted: SDM 1 13.4.3 */
		for (unsigned i = 2; i < 63; i++) {
			struct kvm_cpuid_entry2 *c = vcpu->x86.xcr0 & BIT64(i) ? vcpu_cpuid_entry(vcpu, 0xd, i) : NULL;

			if (c && c->index == i)
				size = (c->ecx & 2 ? ROUND_UP(size, 64U) : size) + c->eax;
		}
		e->ebx = size;
	}
	for (unsigned w = 0; w < CPUID_WORDS; w++) {
		u32 function = words[w].function;

		if (w == CPUID_KVM_EAX) {
			u32 base = kvm_base(vcpu);

			function = base ? base + 1 : 0;
		}
		e = function ? vcpu_cpuid_entry(vcpu, function, words[w].index) : NULL;
		if (!e || (words[w].index && e->index != words[w].index))
			vcpu->features[w] = 0;
		else
			vcpu->features[w] = words[w].reg == 0 ? e->eax : words[w].reg == 1 ? e->ebx :
					    words[w].reg == 2 ? e->ecx : e->edx;
	}
	vcpu->pv_features = vcpu->features[CPUID_KVM_EAX];
}

/* CR4 bits that exist only with a feature. */
static const struct {
	u64 cr4;
	u32 feature;
} cr4_features[] = {
	{ CR4_VME | CR4_PVI, X86_FEATURE_VME }, { CR4_TSD, X86_FEATURE_TSC }, { CR4_DE, X86_FEATURE_DE },
	{ CR4_PSE, X86_FEATURE_PSE }, { CR4_PAE, X86_FEATURE_PAE }, { CR4_MCE, X86_FEATURE_MCE },
	{ CR4_PGE, X86_FEATURE_PGE }, { CR4_OSFXSR, X86_FEATURE_FXSR }, { CR4_OSXMMEXCPT, X86_FEATURE_SSE },
	{ CR4_UMIP, X86_FEATURE_UMIP }, { CR4_FSGSBASE, X86_FEATURE_FSGSBASE }, { CR4_PCIDE, X86_FEATURE_PCID },
	{ CR4_OSXSAVE, X86_FEATURE_XSAVE }, { CR4_SMEP, X86_FEATURE_SMEP }, { CR4_SMAP, X86_FEATURE_SMAP },
};

u64 cpuid_cr4_reserved(const struct vcpu *vcpu)
{
	u64 reserved = ~CR4_PCE;

	for (unsigned i = 0; i < ARRAY_SIZE(cr4_features); i++) {
		u32 f = cr4_features[i].feature;

		/* Before CPUID, KVM takes the oldest as given */
		if (vcpu->cpuid ? vcpu_has_feature(vcpu, f) : X86_FEATURE_WORD(f) == CPUID_1_EDX || cpuid_supported(f))
			reserved &= ~cr4_features[i].cr4;
	}
	return reserved;
}

/* Derives everything from a new table. */
static void after_set(struct vcpu *vcpu)
{
	struct kvm_cpuid_entry2 *e = vcpu_cpuid_entry(vcpu, 0xd, 0);
	u64 xcr0 = e ? ((u64)e->edx << 32 | e->eax) : 0;

	hyperv_cpuid_update(vcpu);
	vcpu->guest_supported_xcr0 = (xcr0 & cpuid_supported_xcr0()) | XCR0_FP | (xcr0 ? 0 : XCR0_SSE);
	cpuid_runtime_update(vcpu);

	e = vcpu_cpuid_entry(vcpu, 0x80000000, 0);
	vcpu->maxphyaddr = 36;
	if (e && e->eax >= 0x80000008) {
		e = vcpu_cpuid_entry(vcpu, 0x80000008, 0);
		if (e && (e->eax & 0xff) >= 32)
			vcpu->maxphyaddr = MIN(e->eax & 0xff, 52U);
	}
	vcpu->rsvd_gpa = vcpu->maxphyaddr < 52 ? MASK64(51, vcpu->maxphyaddr) : 0;
	vcpu->cr4_reserved = cpuid_cr4_reserved(vcpu);
	vcpu->efer_allowed = (vcpu_has_feature(vcpu, X86_FEATURE_SYSCALL) ? EFER_SCE : 0) |
			     (vcpu_has_feature(vcpu, X86_FEATURE_LM) ? EFER_LME : 0) |
			     (vcpu_has_feature(vcpu, X86_FEATURE_NX) ? EFER_NX : 0) |
			     (vcpu_has_feature(vcpu, X86_FEATURE_FXSR_OPT) ? EFER_FFXSR : 0);
	vcpu->vm->engine->tlb_flush(vcpu, TLB_ALL, 0);
	vcpu->vm->engine->state_changed(vcpu, REGS_CR);
}

/* Takes ownership of @entries. 0 or -EINVAL. */
static long install(struct vcpu *vcpu, struct kvm_cpuid_entry2 *entries, u32 nr)
{
	struct kvm_cpuid_entry2 *old;
	u32 old_nr;

	for (u32 i = 0; i < nr; i++) {
		/* The linear address width is what pages tables of four or five levels give */
		if (entries[i].function == 0x80000008) {
			u32 virt = (entries[i].eax >> 8) & 0xff;

			if (virt && virt != 48 && virt != 57) {
				host_free(entries);
				return -EINVAL;
			}
		}
	}
	old = vcpu->cpuid;
	old_nr = vcpu->nr_cpuid;
	vcpu->cpuid = entries;
	vcpu->nr_cpuid = nr;
	if (vcpu->has_run) {
		bool same = nr == old_nr;

		/* A guest knows its processor by now: only the same may be said again. What is derived does not count. */
		cpuid_runtime_update(vcpu);
		for (u32 i = 0; same && i < nr; i++)
			same = !memcmp(&entries[i], &old[i], offsetof(struct kvm_cpuid_entry2, padding));
		vcpu->cpuid = old;
		vcpu->nr_cpuid = old_nr;
		cpuid_runtime_update(vcpu);
		host_free(entries);
		return same ? 0 : -EINVAL;
	}
	host_free(old);
	after_set(vcpu);
	return 0;
}

/* Room for @n; 0, -E2BIG, -ENOMEM. */
static int alloc_entries(u32 n, struct kvm_cpuid_entry2 **entries)
{
	if (n > CPUID_MAX_ENTRIES)
		return -E2BIG;
	*entries = host_zalloc(MAX(n, 1U) * sizeof(**entries));
	return *entries ? 0 : -ENOMEM;
}

/** KVM_SET_CPUID2: 0, -E2BIG, -EFAULT, -ENOMEM, -EINVAL. */
long cpuid_ioctl_set2(struct vcpu *vcpu, u64 arg, const struct kvm_cpuid2 *head)
{
	struct kvm_cpuid_entry2 *entries;
	int r = alloc_entries(head->nent, &entries);

	if (r)
		return r;
	if (host_copy_from_client(entries, arg + sizeof(*head), head->nent * sizeof(*entries))) {
		host_free(entries);
		return -EFAULT;
	}
	return install(vcpu, entries, head->nent);
}

/** KVM_SET_CPUID, whose entries have no index: as above. */
long cpuid_ioctl_set(struct vcpu *vcpu, u64 arg, const struct kvm_cpuid *head)
{
	struct kvm_cpuid_entry2 *entries;
	int r = alloc_entries(head->nent, &entries);

	if (r)
		return r;
	for (u32 i = 0; i < head->nent; i++) {
		struct kvm_cpuid_entry old;

		if (host_copy_from_client(&old, arg + sizeof(*head) + i * sizeof(old), sizeof(old))) {
			host_free(entries);
			return -EFAULT;
		}
		entries[i] = (struct kvm_cpuid_entry2){ .function = old.function, .eax = old.eax, .ebx = old.ebx,
							.ecx = old.ecx, .edx = old.edx };
	}
	return install(vcpu, entries, head->nent);
}

/** KVM_GET_CPUID2: 0, -E2BIG, -EFAULT. */
long cpuid_ioctl_get2(struct vcpu *vcpu, u64 arg, struct kvm_cpuid2 *head)
{
	u32 room = head->nent;

	head->nent = vcpu->nr_cpuid;
	if (room < vcpu->nr_cpuid)
		return -E2BIG;
	if (host_copy_to_client(arg + sizeof(*head), vcpu->cpuid, vcpu->nr_cpuid * sizeof(vcpu->cpuid[0])))
		return -EFAULT;
	return 0;
}

/* Whether a leaf beyond the basic range's end repeats the last basic leaf, as Intel's processors do (SDM 2A CPUID). */
static bool out_of_range(struct vcpu *vcpu, u32 function)
{
	u32 base = function & 0x80000000;
	struct kvm_cpuid_entry2 *top;

	if (cpuid_vendor_is_amd(vcpu))
		return false;
	if (function >= 0x40000000 && function <= 0x4fffffff)
		base = function & 0xffffff00;
	top = vcpu_cpuid_entry(vcpu, base, 0);
	return !top || function > top->eax;
}

/** The CPUID instruction: in EAX, ECX in regs[0], regs[2]; out all four. */
void vcpu_cpuid(struct vcpu *vcpu, u32 regs[4])
{
	u32 function = regs[0], asked = function, index = regs[2];
	struct kvm_cpuid_entry2 *e = vcpu_cpuid_entry(vcpu, function, index);
	bool used_max_basic = false;

	if (!e && out_of_range(vcpu, function)) {
		struct kvm_cpuid_entry2 *basic = vcpu_cpuid_entry(vcpu, 0, 0);

		if (basic) {
			used_max_basic = true;
			function = basic->eax;
			e = vcpu_cpuid_entry(vcpu, function, index);
		}
	}
	memset(regs, 0, 4 * sizeof(u32));
	if (e) {
		regs[0] = e->eax;
		regs[1] = e->ebx;
		regs[2] = e->ecx;
		regs[3] = e->edx;
	} else if (function == 0xb || function == 0x1f) {
		/* An unknown level still names the level asked for and the x2APIC id */
		struct kvm_cpuid_entry2 *first = vcpu_cpuid_entry(vcpu, function, 1);

		if (first) {
			regs[2] = index & 0xff;
			regs[3] = first->edx;
		}
	}
	host_event_cpuid(asked, index, regs, e, used_max_basic);
}
