/*
 * The engine's table for core.
 */
#include "core/x86/cpuid.h"
#include "core/x86/hypercall.h"
#include "engines/svm/svm.h"

#define F(name)	  X86_FEATURE_BIT(X86_FEATURE_##name)
#define XFD	  BIT64(4) /* leaf 0xd.1 EAX */
#define XCR0_PKRU BIT64(9)

static int svm_vm_init(struct vm *vm)
{
	const struct mmu_config config = {
		.format = MMU_X86,
		.nested = svm_caps.npt,
		.huge_1g = true, /* with long mode, APM 2 15.25.10 knows no exception */
		.levels = svm_caps.levels,
		.accessed_dirty = true,
		.phys_bits = svm_caps.phys_bits,
	};

	struct svm_vm *v = to_svm_vm(vm);
	int error = mmu_create(vm, &config, &v->mmu);

	if (error)
		return error;
	error = svm_avic_vm_init(v);
	if (error)
		mmu_destroy(v->mmu);
	return error;
}

static void svm_vm_destroy(struct vm *vm)
{
	mmu_destroy(to_svm_vm(vm)->mmu);
	svm_avic_vm_destroy(to_svm_vm(vm));
}

static void svm_vcpu_destroy(struct vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (svm->mmu)
		mmu_vcpu_destroy(svm->mmu);
	host_fpu_free(svm->fpu);
	if (svm->msrpm)
		host_pages_free(svm->msrpm, SVM_MSRPM_PAGES);
	if (svm->vmcb)
		host_page_free(svm->vmcb);
}

static int svm_vcpu_init(struct vcpu *vcpu)
{
	static u64 ids;
	struct svm_vcpu *svm = to_svm(vcpu);
	int error = -ENOMEM;

	svm->id = __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED);
	svm->vmcb = host_page_alloc();
	svm->msrpm = host_pages_alloc(SVM_MSRPM_PAGES);
	svm->fpu = host_fpu_alloc();
	if (svm->vmcb && svm->msrpm && svm->fpu)
		error = mmu_vcpu_create(to_svm_vm(vcpu->vm)->mmu, vcpu, &svm->mmu);
	if (error) {
		svm_vcpu_destroy(vcpu);
		return error;
	}
	svm->vmcb_pa = host_page_phys(svm->vmcb);
	svm_avic_vcpu_init(svm);
	svm_state_init(svm);
	svm_msrpm_update(svm);
	return 0;
}

static void svm_inject(struct vcpu *vcpu, const struct x86_event *ev)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (unlikely(ev->vector == VEC_DB && ev->type == X86_EVENT_EXCEPTION))
		svm_lbr_stop(svm);
	svm->event = *ev;
	svm->inject = true;
}

static void svm_request_window(struct vcpu *vcpu, bool nmi)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (nmi)
		svm->window_nmi = true;
	else
		svm->window_irq = true;
}

static void svm_kick(struct vcpu *vcpu)
{
	/* The host's interrupt makes the guest exit. */
}

static void svm_tlb_flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (!svm_caps.npt)
		mmu_guest_flush(svm->mmu, scope, arg);
	svm->flush = true;
}

/* The ratio itself is loaded before the next entry. */
static int svm_set_tsc_khz(struct vcpu *vcpu, u32 khz)
{
	return 0;
}

static void svm_slot_flush(struct vm *vm, const struct memslot *old)
{
	mmu_slot_flush(to_svm_vm(vm)->mmu, old);
}

static void svm_slot_write_protect(struct vm *vm, const struct memslot *slot, u64 gfn_offset, u64 mask)
{
	mmu_slot_write_protect(to_svm_vm(vm)->mmu, slot, gfn_offset, mask);
}

static void svm_slot_flush_done(struct vm *vm)
{
	mmu_slot_flush_done(to_svm_vm(vm)->mmu);
}

/*
 * The guest has what the processor has, of all that its instructions do by themselves: core may offer more than that where it emulates.
 * Not served are states that would have to be switched (CET, XSAVES' supervisor states, AMX, UINTR), and MONITOR, which would be HLT.
 */
static void svm_cpuid_mask(u32 function, u32 index, u32 regs[4])
{
	u32 host[4];

	cpuid_host(function, index, host);
	switch (function) {
	case 1:
		regs[2] &= host[2] | F(X2APIC) | F(TSC_DEADLINE) | F(HYPERVISOR);
		regs[2] &= ~(F(MONITOR) | F(VMX) | (svm_caps.npt ? 0 : F(PCID)));
		regs[3] &= host[3] | F(APIC) | F(MTRR) | F(MCE) | F(MCA);
		break;
	case 7:
		if (index)
			break;
		regs[1] &= host[1] | F(TSC_ADJUST);
		regs[1] &= svm_caps.npt ? ~0U : ~F(INVPCID);
		regs[2] &= host[2];
		regs[2] &= svm_caps.pku ? ~0U : ~F(PKU);
		break;
	case 0xd:
		if (index == 0) {
			regs[0] &= XCR0_FP | XCR0_SSE | XCR0_AVX | XCR0_AVX512 | (svm_caps.pku ? XCR0_PKRU : 0);
			regs[3] = 0;
		} else if (index == 1) {
			regs[0] &= host[0] & ~(F(XSAVES) | XFD);
			regs[2] = regs[3] = 0;
		}
		break;
	case 0x80000001:
		regs[2] &= host[2] & ~F(SVM);
		regs[3] &= host[3];
		break;
	case 0x80000008:
		regs[1] &= host[1];
		break;
	case 0x80000021:
		regs[0] &= host[0];
		break;
	}
}

struct engine_ops svm_engine = {
	.name = "svm",
	/* No processor of AMD's has the MSRs of C-state residency */
	.disable_exits = KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_CSTATE,
	.hypercall_insn = VMMCALL_INSN,
	.vm_size = sizeof(struct svm_vm),
	.vcpu_size = sizeof(struct svm_vcpu),
	.cpuid_mask = svm_cpuid_mask,
	.vm_init = svm_vm_init,
	.vm_destroy = svm_vm_destroy,
	.vcpu_init = svm_vcpu_init,
	.vcpu_destroy = svm_vcpu_destroy,
	.state_changed = svm_state_changed,
	.state_sync = svm_state_sync,
	.vcpu_run = svm_vcpu_run,
	.inject = svm_inject,
	.request_window = svm_request_window,
	.kick = svm_kick,
	.tlb_flush = svm_tlb_flush,
	.slot_flush = svm_slot_flush,
	.slot_write_protect = svm_slot_write_protect,
	.slot_flush_done = svm_slot_flush_done,
	.vcpu_load = svm_vcpu_load,
	.vcpu_put = svm_vcpu_put,
	.run_end = svm_run_end,
	.cpu_enable = svm_cpu_enable,
	.cpu_disable = svm_cpu_disable,
};

int svm_setup(struct svm_options *options)
{
	int r = svm_cpus_setup(options);

	/* Core takes an engine without this for one that cannot scale */
	svm_engine.set_tsc_khz = !r && (svm_caps.features & SVM_FEATURE_TSC_RATE) ? svm_set_tsc_khz : NULL;
	svm_engine.records_branches = !r && svm_caps.lbrv;
	svm_engine.virtual_interrupts = !r && svm_caps.avic ? svm_virtual_interrupts : NULL;
	svm_engine.interrupt_arrived = !r && svm_caps.avic ? svm_interrupt_arrived : NULL;
	svm_engine.lapic_changed = !r && svm_caps.avic ? svm_lapic_changed : NULL;
	svm_engine.vcpu_waits = !r && svm_caps.avic ? svm_vcpu_waits : NULL;
	return r;
}

void svm_teardown(void)
{
	svm_cpus_teardown();
}
