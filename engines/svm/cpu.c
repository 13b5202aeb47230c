/*
 * The processor: what it can, taking it and giving it back, and what each CPU holds (ASIDs, the host's state).
 *
 * An ASID names a guest's translations in one CPU's TLB. Each CPU gives them out in turn; when they are used up its generation
 * ends: everything is flushed, and whoever comes next takes a new one.
 */
#include "core/x86/cpuid.h"
#include "core/x86/msr.h"
#include "engines/svm/svm.h"

#define VM_CR_SVMDIS BIT64(4)
#define FIRST_ASID   1 /* 0 is the host's */
#define MAX_ASIDS    0x8000
#define PRED_CMD_IBPB 1
#define MSR_TSC_RATIO 0xc0000104 /* 8.32 fixed point, of what guests read: 15.30.5 */

#define IOPM_PAGES 3

struct svm_caps svm_caps;
static struct svm_cpu *cpus; /* by number */
static void *iopm;

u64 svm_iopm_pa(void)
{
	return host_page_phys(iopm);
}

/* 15.29.1. Says why not: who asks for it wants to know. */
static bool has_avic(const struct svm_options *options)
{
	if (!options->avic)
		return false;
	if (!(svm_caps.features & SVM_FEATURE_AVIC))
		host_log(HOST_LOG_WARNING, "trine-amd: avic: the processor has none (CPUID 8000000Ah EDX bit 13); going on without");
	else if (!svm_caps.npt)
		host_log(HOST_LOG_WARNING, "trine-amd: avic: needs nested paging (npt=1, and a processor that has it); going on without");
	else
		return true;
	return false;
}

/*
 * Family 17h, and Hygon's 18h, may send an IPI to a vCPU whose IsRunning bit was just cleared without an exit (erratum 1235), and it is
 * not woken. With the bit never set every such IPI exits; registers and devices' interrupts are served all the same.
 */
static bool has_avic_ipis(void)
{
	u32 r[4], family;

	cpuid_host(1, 0, r);
	family = (r[0] >> 8 & 0xf) + (r[0] >> 20 & 0xff);
	return family != 0x17 && family != 0x18;
}

/* Of this CPU: the x2APIC ID, 32 bits wide, where CPUID has it. */
static u32 host_apic_id(void)
{
	u32 r[4];

	cpuid_host(0, 0, r);
	if (r[0] >= 0xb) {
		cpuid_host(0xb, 0, r);
		if (r[1])
			return r[3];
	}
	cpuid_host(1, 0, r);
	return r[1] >> 24;
}

static int detect(struct svm_options *options)
{
	u32 r[4];
	u64 vm_cr, cr4;

	cpuid_host(0x80000000, 0, r);
	if (r[0] < 0x8000000a)
		return -EOPNOTSUPP;
	cpuid_host(0x80000001, 0, r);
	if (!(r[2] & X86_FEATURE_BIT(X86_FEATURE_SVM)))
		return -EOPNOTSUPP;
	svm_caps.rdtscp = r[3] & X86_FEATURE_BIT(X86_FEATURE_RDTSCP);
	if (host_rdmsr(MSR_VM_CR, &vm_cr) || (vm_cr & VM_CR_SVMDIS))
		return -EOPNOTSUPP;
	cpuid_host(0x8000000a, 0, r);
	svm_caps.features = r[3];
	svm_caps.nr_asids = MIN(r[1], (u32)MAX_ASIDS);
	svm_caps.npt = options->npt = options->npt && (r[3] & SVM_FEATURE_NPT);
	svm_caps.vnmi = options->vnmi = options->vnmi && (r[3] & SVM_FEATURE_VNMI);
	svm_caps.lbrv = options->lbrv = options->lbrv && (r[3] & SVM_FEATURE_LBRV);
	svm_caps.avic = options->avic = has_avic(options);
	svm_caps.avic_ipis = svm_caps.avic && has_avic_ipis();
	svm_caps.x2avic = svm_caps.avic && (r[3] & SVM_FEATURE_X2AVIC);
	if (svm_caps.nr_asids <= FIRST_ASID)
		return -EOPNOTSUPP;
	cpuid_host(0x80000008, 0, r);
	svm_caps.phys_bits = r[0];
	svm_caps.ibpb = r[1] & X86_FEATURE_BIT(X86_FEATURE_AMD_IBPB);
	svm_caps.spec_ctrl = r[1] & (X86_FEATURE_BIT(X86_FEATURE_AMD_IBRS) | X86_FEATURE_BIT(X86_FEATURE_AMD_STIBP) |
				     X86_FEATURE_BIT(X86_FEATURE_AMD_SSBD));
	__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
	svm_caps.levels = cr4 & CR4_LA57 ? 5 : 4;
	cpuid_host(7, 0, r);
	svm_caps.pku = svm_caps.npt && (r[2] & X86_FEATURE_BIT(X86_FEATURE_OSPKE));
	cpuid_host(1, 0, r);
	svm_caps.host_xcr0 = 0;
	if (r[2] & X86_FEATURE_BIT(X86_FEATURE_OSXSAVE)) {
		u32 low, high;

		__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
		svm_caps.host_xcr0 = (u64)high << 32 | low;
	}
	svm_caps.xsetbv_silent = false;
	if (svm_caps.host_xcr0 && (r[2] & X86_FEATURE_BIT(X86_FEATURE_HYPERVISOR))) {
		cpuid_host(0x40000000, 0, r);
		svm_caps.xsetbv_silent = !memcmp(&r[1], "TCGTCGTCGTCG", 12);
	}
	return 0;
}

int svm_cpus_setup(struct svm_options *options)
{
	unsigned nr = host_nr_cpus();
	int error = detect(options);

	if (error)
		return error;
	iopm = host_pages_alloc(IOPM_PAGES);
	cpus = host_zalloc(nr * sizeof(*cpus));
	if (!iopm || !cpus)
		goto no_memory;
	/* One for all guests, and every access of a port exits: KVM gives a guest no port of the host's, all are core's or the client's */
	memset(iopm, 0xff, IOPM_PAGES * HOST_PAGE_SIZE);
	for (unsigned i = 0; i < nr; i++) {
		cpus[i].host = host_page_alloc();
		cpus[i].hsave = host_page_alloc();
		if (!cpus[i].host || !cpus[i].hsave)
			goto no_memory;
		cpus[i].host_pa = host_page_phys(cpus[i].host);
		cpus[i].generation = 1;
		cpus[i].next_asid = FIRST_ASID;
		cpus[i].tsc_ratio = BIT64(32);
	}
	return 0;

no_memory:
	svm_cpus_teardown();
	return -ENOMEM;
}

void svm_cpus_teardown(void)
{
	for (unsigned i = 0; cpus && i < host_nr_cpus(); i++) {
		if (cpus[i].host)
			host_page_free(cpus[i].host);
		if (cpus[i].hsave)
			host_page_free(cpus[i].hsave);
	}
	host_free(cpus);
	cpus = NULL;
	if (iopm)
		host_pages_free(iopm, IOPM_PAGES);
	iopm = NULL;
}

int svm_cpu_enable(void)
{
	struct svm_cpu *cpu = &cpus[host_cpu()];
	u64 efer, vm_cr;

	if (host_rdmsr(MSR_EFER, &efer))
		return -EIO;
	/* Another hypervisor is at work here */
	if (efer & EFER_SVME)
		return -EBUSY;
	if (host_rdmsr(MSR_VM_CR, &vm_cr) || (vm_cr & VM_CR_SVMDIS))
		return -EIO;
	if (host_wrmsr(MSR_EFER, efer | EFER_SVME))
		return -EIO;
	if (host_wrmsr(MSR_VM_HSAVE_PA, host_page_phys(cpu->hsave))) {
		host_wrmsr(MSR_EFER, efer);
		return -EIO;
	}
	if ((svm_caps.features & SVM_FEATURE_TSC_RATE) && !host_wrmsr(MSR_TSC_RATIO, BIT64(32)))
		cpu->tsc_ratio = BIT64(32);
	cpu->apic_id = host_apic_id();
	/* The TLB may hold anything under our ASIDs: begin with a flush */
	cpu->generation++;
	cpu->next_asid = svm_caps.nr_asids;
	return 0;
}

void svm_cpu_disable(void)
{
	u64 efer;

	host_wrmsr(MSR_VM_HSAVE_PA, 0);
	if (!host_rdmsr(MSR_EFER, &efer))
		host_wrmsr(MSR_EFER, efer & ~EFER_SVME);
}

/* ---- a vCPU on a CPU --------------------------------------------------------------------------------------------- */

void svm_vcpu_load(struct vcpu *vcpu, unsigned n)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct svm_cpu *cpu = &cpus[n];

	svm->cpu = cpu;
	if (svm_caps.avic)
		svm_avic_load(svm, n, cpu->apic_id);
	if (svm->last_cpu == cpu)
		return;
	/* Nothing that the other CPU kept of the VMCB, or of translations, is known to this one */
	svm->last_cpu = cpu;
	svm->asid_generation = 0;
	svm->vmcb->clean = 0;
}

void svm_vcpu_put(struct vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (svm_caps.avic)
		svm_avic_put(svm);
	svm->host_saved = false;
	if (svm->tsc_aux_loaded)
		host_wrmsr(MSR_TSC_AUX, svm->host_tsc_aux);
	svm->tsc_aux_loaded = false;
	svm->cpu = NULL;
}

static void new_asid(struct svm_vcpu *svm, struct svm_cpu *cpu)
{
	if (cpu->next_asid >= svm_caps.nr_asids) {
		cpu->generation++;
		cpu->next_asid = FIRST_ASID;
		svm->vmcb->tlb_control = VMCB_TLB_FLUSH_ALL;
	}
	svm->asid_generation = cpu->generation;
	svm->vmcb->asid = cpu->next_asid++;
	svm->vmcb->clean &= ~VMCB_CLEAN_ASID;
}

void svm_cpu_prepare(struct svm_vcpu *svm)
{
	struct svm_cpu *cpu = svm->cpu;

	if (unlikely(svm->asid_generation != cpu->generation))
		new_asid(svm, cpu);
	else if (unlikely(svm->flush)) {
		if (svm_caps.features & SVM_FEATURE_FLUSH_BY_ASID)
			svm->vmcb->tlb_control = VMCB_TLB_FLUSH_ASID;
		else
			new_asid(svm, cpu);
	}
	svm->flush = false;
	if (unlikely(cpu->tsc_ratio != svm->vcpu.tsc_ratio) && !host_wrmsr(MSR_TSC_RATIO, svm->vcpu.tsc_ratio))
		cpu->tsc_ratio = svm->vcpu.tsc_ratio;
	if (likely(svm->host_saved))
		return;
	/* First entry since the thread came here. */
	__asm__ volatile("vmsave %0" : : "a"(cpu->host_pa) : "memory");
	svm->host_saved = true;
	if (svm_caps.rdtscp && !host_rdmsr(MSR_TSC_AUX, &svm->host_tsc_aux)) {
		host_wrmsr(MSR_TSC_AUX, svm->vcpu.x86.tsc_aux);
		svm->tsc_aux_loaded = true;
	}
	/* No guest steers what is speculated in another: APM 2 3.2.9 */
	if (unlikely(cpu->last != svm->id)) {
		if (svm_caps.ibpb && cpu->last)
			host_wrmsr(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
		cpu->last = svm->id;
	}
}
