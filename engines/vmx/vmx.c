/*
 * The engine's table for core, and one stay in guest code.
 */
#include "engines/vmx/vmx.h"

#include "core/x86/hypercall.h"
#include "core/x86/irqchip/irqchip.h"
#include "core/x86/msr.h"

/* ---- for the module ----------------------------------------------------------------------------------------------------- */

/* 24.6.9: reads of MSRs up to 0x1fff, of those from 0xc0000000 on, writes of either, 1 KiB each. */
static void pass_msr(u8 *bitmap, u32 index, bool write)
{
	unsigned bit = index & 0x1fff, at = (index >> 31 ? 1024 : 0) + (write ? 2048 : 0);

	bitmap[at + bit / 8] &= ~(1U << (bit % 8));
}

/* 29.5: reads are of the page, writes virtualized are those of TPR, EOI and SELF IPI; others would be the host's own APIC's. */
static void pass_x2apic_msrs(u8 *bitmap)
{
	static const u32 written[] = { MSR_IA32_X2APIC_TPR, MSR_IA32_X2APIC_EOI, MSR_IA32_X2APIC_SELF_IPI };

	for (u32 msr = MSR_IA32_X2APIC_FIRST; msr <= MSR_IA32_X2APIC_LAST; msr++) {
		if (lapic_x2apic_is_plain(msr))
			pass_msr(bitmap, msr, false);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(written); i++)
		pass_msr(bitmap, written[i], true);
}

static int make_msr_bitmaps(void)
{
	/* Those that are the guest's own while it runs: read without an exit, and written those whose value only hardware keeps */
	static const u32 read[] = { MSR_IA32_TSC, MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP,
				    MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK };
	static const u32 both[] = { MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE };

	vmx_caps.msr_bitmap = host_page_alloc();
	vmx_caps.msr_bitmap_x2apic = host_page_alloc();
	vmx_caps.msr_bitmap_all = host_page_alloc();
	if (!vmx_caps.msr_bitmap || !vmx_caps.msr_bitmap_x2apic || !vmx_caps.msr_bitmap_all)
		return -ENOMEM;
	memset(vmx_caps.msr_bitmap, 0xff, HOST_PAGE_SIZE);
	memset(vmx_caps.msr_bitmap_all, 0xff, HOST_PAGE_SIZE);
	for (unsigned i = 0; i < ARRAY_SIZE(read); i++)
		pass_msr(vmx_caps.msr_bitmap, read[i], false);
	for (unsigned i = 0; i < ARRAY_SIZE(both); i++) {
		pass_msr(vmx_caps.msr_bitmap, both[i], false);
		pass_msr(vmx_caps.msr_bitmap, both[i], true);
	}
	memcpy(vmx_caps.msr_bitmap_x2apic, vmx_caps.msr_bitmap, HOST_PAGE_SIZE);
	pass_x2apic_msrs(vmx_caps.msr_bitmap_x2apic);
	return 0;
}

void vmx_teardown(void)
{
	if (vmx_caps.msr_bitmap)
		host_page_free(vmx_caps.msr_bitmap);
	if (vmx_caps.msr_bitmap_x2apic)
		host_page_free(vmx_caps.msr_bitmap_x2apic);
	if (vmx_caps.msr_bitmap_all)
		host_page_free(vmx_caps.msr_bitmap_all);
	vmx_caps.msr_bitmap = vmx_caps.msr_bitmap_x2apic = vmx_caps.msr_bitmap_all = NULL;
	vmx_cpus_destroy();
}

int vmx_setup(void)
{
	int error = vmx_caps_find();

	if (error)
		return error;
	if (!(vmx_caps.cpu2 & CPU2_TSC_SCALING))
		vmx_engine.set_tsc_khz = NULL;
	if (!vmx_options.apicv)
		vmx_engine.virtual_interrupts = NULL;
	if (!vmx_options.preemption_timer)
		vmx_engine.keeps_timer = NULL;
	error = vmx_cpus_create();
	if (!error)
		error = make_msr_bitmaps();
	if (error)
		vmx_teardown();
	return error;
}

/* ---- VMs and vCPUs --------------------------------------------------------------------------------------------------------- */

/* 29.4: accesses to this page are accesses to the local APIC of whose vCPU it is. */
static int make_apic_access_page(struct vmx_vm *v)
{
	if (!(vmx_caps.cpu2_optional & CPU2_APIC_ACCESSES))
		return 0;
	v->apic_access = host_page_alloc();
	if (!v->apic_access)
		return -ENOMEM;
	host_mutex_init(&v->apic_mutex);
	mmu_own_page(v->mmu, LAPIC_USUAL_ADDRESS >> HOST_PAGE_SHIFT, host_page_phys(v->apic_access));
	v->apic_mapped = true;
	return 0;
}

static void vmx_vm_destroy(struct vm *vm)
{
	struct vmx_vm *v = to_vmx_vm(vm);

	mmu_destroy(v->mmu);
	if (!v->apic_access)
		return;
	host_page_free(v->apic_access);
	host_mutex_destroy(&v->apic_mutex);
}

static int vmx_vm_init(struct vm *vm)
{
	struct vmx_vm *v = to_vmx_vm(vm);
	int error = mmu_create(vm, &vmx_caps.mmu, &v->mmu);

	if (error)
		return error;
	error = make_apic_access_page(v);
	if (error)
		mmu_destroy(v->mmu);
	return error;
}

static void vmx_vcpu_destroy(struct vcpu *vcpu)
{
	struct vmx_vcpu *c = to_vmx(vcpu);

	vmx_vcpu_unload(c);
	vmx_vpid_free(c->vpid);
	if (c->mmu)
		mmu_vcpu_destroy(c->mmu);
	if (c->fpu)
		host_fpu_free(c->fpu);
	if (c->efer_switch)
		host_page_free(c->efer_switch);
	if (c->pml)
		host_page_free(c->pml);
	if (c->vmcs)
		host_page_free(c->vmcs);
}

static int vmx_vcpu_init(struct vcpu *vcpu)
{
	struct vmx_vcpu *c = to_vmx(vcpu);
	bool logs = vmx_options.pml && !vcpu->vm->dirty_ring_bytes;
	int error;

	vcpu->emul.s = &vcpu->x86;
	vcpu->emul.ops = &vcpu_emul_ops;
	vcpu->regs_avail = vcpu->regs_dirty = REGS_ALL;
	c->cpu = -1;
	c->cr3 = c->root = c->pat = c->apic_base = ~0ULL; /* no value of any: all are written at first */
	c->tsc_offset = BIT64(63);
	c->interruptibility = ~0U;
	c->vmcs = host_page_alloc();
	c->fpu = host_fpu_alloc();
	if (!vmx_caps.efer)
		c->efer_switch = host_page_alloc();
	if (logs)
		c->pml = host_page_alloc();
	error = c->vmcs && c->fpu && (vmx_caps.efer || c->efer_switch) && (!logs || c->pml) ? 0 : -ENOMEM;
	if (!error)
		error = mmu_vcpu_create(to_vmx_vm(vcpu->vm)->mmu, vcpu, &c->mmu);
	if (error) {
		vmx_vcpu_destroy(vcpu);
		return error;
	}
	c->vmcs->revision = vmx_caps.revision;
	c->vmcs_phys = host_page_phys(c->vmcs);
	if (c->efer_switch)
		c->efer_switch[0].index = c->efer_switch[1].index = MSR_EFER;
	if (vmx_options.vpid)
		c->vpid = vmx_vpid_alloc();
	return 0;
}

static int vmx_set_tsc_khz(struct vcpu *vcpu, u32 khz)
{
	return 0; /* vcpu->tsc_ratio is looked at before each entry, and core knows the limits */
}

/* ---- running ------------------------------------------------------------------------------------------------------------------ */

static void vmx_inject(struct vcpu *vcpu, const struct x86_event *ev)
{
	struct vmx_vcpu *c = to_vmx(vcpu);

	c->event = *ev;
	c->event_valid = true;
}

static void vmx_request_window(struct vcpu *vcpu, bool nmi)
{
	struct vmx_vcpu *c = to_vmx(vcpu);

	if (nmi)
		c->window_nmi = true;
	else
		c->window_irq = true;
}

static bool vmx_virtual_interrupts(struct vcpu *vcpu, bool on)
{
	struct vmx_vcpu *c = to_vmx(vcpu);

	/* Code that is emulated has its interrupts injected, from the second instruction on */
	c->virtual_interrupts = on && c->runnable;
	return c->virtual_interrupts;
}

/* Code that is emulated is left by nothing but requests. */
static bool vmx_keeps_timer(struct vcpu *vcpu)
{
	return to_vmx(vcpu)->runnable && host_tsc_khz();
}

static void vmx_kick(struct vcpu *vcpu)
{
	/* The interrupt of host_thread_kick() is what makes an exit */
}

static void vmx_tlb_flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg)
{
	struct vmx_vcpu *c = to_vmx(vcpu);

	if (!vmx_options.ept)
		mmu_guest_flush(c->mmu, scope, arg);
	c->flush |= FLUSH_LINEAR;
	if (scope == TLB_GPA)
		c->flush |= FLUSH_GPA;
}

static void vmx_slot_flush(struct vm *vm, const struct memslot *old)
{
	mmu_slot_flush(to_vmx_vm(vm)->mmu, old);
}

static void vmx_slot_write_protect(struct vm *vm, const struct memslot *slot, u64 gfn_offset, u64 mask)
{
	mmu_slot_write_protect(to_vmx_vm(vm)->mmu, slot, gfn_offset, mask);
}

static void vmx_slot_flush_done(struct vm *vm)
{
	mmu_slot_flush_done(to_vmx_vm(vm)->mmu);
}

static void vmx_slot_dirty_sync(struct vm *vm)
{
	/* Who leaves guest code empties its log */
	if (vmx_options.pml && !vm->dirty_ring_bytes)
		vm_request_all(vm, REQ_EVENT, true);
}

/*
 * The page of the local APIC is one for all vCPUs: while one of them has its APIC elsewhere, or none, or the client has the APICs, accesses
 * exit as those to any device. A vCPU that moves its APIC comes here before it runs guest code again, so whoever is in guest code while the page
 * comes back has it where the page is. False: the vCPU was out of guest code meanwhile.
 */
static bool apic_page_is_right(struct vmx_vcpu *c)
{
	struct vmx_vm *v = to_vmx_vm(c->vcpu.vm);
	bool elsewhere, map;

	c->apic_base = c->vcpu.apic_base;
	c->apic_place = lapic_place(&c->vcpu);
	/* "Virtualize APIC accesses" may come on: 28.4.3.4 */
	c->flush |= FLUSH_LINEAR | FLUSH_GPA;
	elsewhere = c->apic_place != LAPIC_AT_USUAL_ADDRESS;
	if (!v->apic_access || elsewhere == c->apic_elsewhere)
		return true;
	vcpu_leave_guest(&c->vcpu);
	c->apic_elsewhere = elsewhere;
	host_mutex_lock(&v->apic_mutex);
	v->apics_elsewhere += elsewhere ? 1 : -1;
	map = !v->apics_elsewhere;
	if (map != v->apic_mapped) {
		mmu_own_page(v->mmu, map ? LAPIC_USUAL_ADDRESS >> HOST_PAGE_SHIFT : 0, map ? host_page_phys(v->apic_access) : 0);
		v->apic_mapped = map;
	}
	host_mutex_unlock(&v->apic_mutex);
	return false;
}

/* The root of this entry's tables. False: @exit says why there is none. */
static bool load_root(struct vmx_vcpu *c, struct engine_exit *exit)
{
	u64 root;
	int error = mmu_load(c->mmu, &root);

	if (unlikely(error)) {
		mmu_error_exit(&c->vcpu, error, exit);
		return false;
	}
	if (likely(root == c->root))
		return true;
	c->root = root;
	if (vmx_options.ept) {
		vmwrite(VMCS_EPTP, vmx_eptp(c));
		/* While another root was in use, the flushes were not of this one */
		c->flush |= FLUSH_GPA;
	} else {
		vmwrite(VMCS_GUEST_CR3, root);
	}
	return true;
}

static void fpu_in(struct vmx_vcpu *c)
{
	struct vcpu *vcpu = &c->vcpu;

	if (unlikely(vcpu->regs_dirty & REGS_FPU)) {
		u32 pkru; /* protection keys are not offered */

		host_fpu_load(c->fpu, vcpu->xsave, vcpu->xsave_size, &pkru);
		vcpu->regs_dirty &= ~REGS_FPU;
	}
	if (unlikely(!c->fpu_in)) {
		c->fpu_in = true;
		host_fpu_in(c->fpu);
	}
}

static void vmx_run_end(struct vcpu *vcpu)
{
	struct vmx_vcpu *c = to_vmx(vcpu);

	if (c->fpu_in) {
		c->fpu_in = false;
		host_fpu_out(c->fpu);
	}
}

/* False: something came up before guest code could run. */
static bool enter(struct vmx_vcpu *c, const struct x86_event *event, struct engine_exit *exit)
{
	struct vmx_inner inner;
	bool entered;

	host_irq_off();
	/* A kick that came until now was no interrupt of guest code's: its request bit is */
	if (unlikely(vcpu_must_exit(&c->vcpu) || host_must_leave())) {
		host_irq_on();
		host_cond_resched();
		exit->reason = EXIT_NONE;
		return false;
	}
	host_event_entry(c->vcpu.id, c->vcpu.x86.rip);
	if (unlikely(c->flush))
		vmx_flush(c);
	vmx_state_entry(c, event);
	vmx_host_leave(c, &inner);
	host_guest_enters(vmx_options.ept);
	entered = vmx_enter(c);
	vmx_host_back(c, &inner);
	if (likely(entered)) {
		c->launched = true;
		vmx_exit_first(c);
	}
	host_irq_on();
	if (unlikely(!entered)) {
		vmwrite(VMCS_ENTRY_EVENT, 0);
		exit->reason = EXIT_FAIL_ENTRY;
		exit->suberror = vmread(VMCS_INSN_ERROR);
	}
	return entered;
}

static void vmx_vcpu_run(struct vcpu *vcpu, struct engine_exit *exit)
{
	struct vmx_vcpu *c = to_vmx(vcpu);
	struct x86_event event = c->event;
	bool injects = c->event_valid;

	memset(exit, 0, sizeof(*exit));
	c->event_valid = false;
	c->injected = injects;
	if (unlikely(c->apic_base != vcpu->apic_base) && !apic_page_is_right(c))
		goto out;
	vmx_state_flush(c);
	if (unlikely(!c->runnable)) {
		lapic_timer_to_host(vcpu);
		if (injects)
			vmx_deliver(c, &event, exit);
		else
			exit->reason = EXIT_EMULATE;
		goto out;
	}
	if (!load_root(c, exit))
		goto out;
	fpu_in(c);
	if (!enter(c, injects ? &event : NULL, exit))
		goto out;
	/* The FPU and the MSRs are the guest's now as well */
	vmx_state_after_exit(c);
	/* What was on its way and did not arrive is in the vectoring word */
	if (injects && likely(!(c->reason & VMX_EXIT_ENTRY_FAILED)))
		vmx_mark_delivered(vcpu, &event);
	vmx_exit(c, exit);
out:
	c->window_irq = c->window_nmi = false;
}

struct engine_ops vmx_engine = {
	.name = "vmx",
	.disable_exits = KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE,
	.hypercall_insn = VMCALL_INSN,
	.vm_size = sizeof(struct vmx_vm),
	.vcpu_size = sizeof(struct vmx_vcpu),
	.cpuid_mask = vmx_cpuid_mask,
	.vm_init = vmx_vm_init,
	.vm_destroy = vmx_vm_destroy,
	.vcpu_init = vmx_vcpu_init,
	.vcpu_destroy = vmx_vcpu_destroy,
	.state_changed = vmx_state_changed,
	.state_sync = vmx_state_sync,
	.vcpu_run = vmx_vcpu_run,
	.inject = vmx_inject,
	.request_window = vmx_request_window,
	.virtual_interrupts = vmx_virtual_interrupts,
	.keeps_timer = vmx_keeps_timer,
	.kick = vmx_kick,
	.tlb_flush = vmx_tlb_flush,
	.slot_flush = vmx_slot_flush,
	.slot_write_protect = vmx_slot_write_protect,
	.slot_flush_done = vmx_slot_flush_done,
	.slot_dirty_sync = vmx_slot_dirty_sync,
	.set_tsc_khz = vmx_set_tsc_khz,
	.vcpu_load = vmx_vcpu_load,
	.vcpu_put = vmx_vcpu_put,
	.run_end = vmx_run_end,
	.cpu_enable = vmx_cpu_enable,
	.cpu_disable = vmx_cpu_disable,
};
