/*
 * The advanced virtual interrupt controller (15.29): while guest code runs the processor reads and writes the local APIC's register page by
 * itself, sends IPIs by setting bits in the IRRs of other vCPUs' pages, and takes what is in the vCPU's own. Two tables of the VM's lead it
 * to the others, by physical and by logical APIC ID.
 *
 * On or off is the whole VM's: what makes accesses reach the processor is a page in the nested tables, which are the VM's, and a vCPU without AVIC
 * would find that page where it expects its APIC. So a vCPU that cannot have AVIC as it is objects, and before it runs guest code every
 * other has left it and come back without:
 *
 *	off -> on	avic_on is set; all vCPUs leave guest code once; then the page may be mapped
 *	on -> off	the page goes; avic_on is cleared; all vCPUs leave guest code once, and from then on nobody sends by the tables.
 *			Only then the vCPU that objects looks at its IRR and enters
 *
 * An interrupt is not lost: who sends sets the IRR, then looks whether the vCPU is active here, runs, sleeps (core: svm_interrupt_arrived(); the
 * processor: IsRunning). The vCPU changes that first, and then looks at its IRR. What was found not to run is told by the sender.
 *
 * Touches the VMCB, the tables and core, so that tests/svm/avic.c plays the processor. No processor with AVIC has run this.
 */
#include "core/x86/irqchip/irqchip.h"
#include "engines/svm/svm.h"

/* Writing a CPU's APIC ID there makes that CPU look at the IRR of the guest that runs on it, if one does: 15.29.8 */
#define MSR_AVIC_DOORBELL 0xc001011b

#define XAPIC_IDS   255 /* FFh is everybody */
#define X2APIC_IDS  (HOST_PAGE_SIZE / sizeof(u64))
#define LOGICAL_IDS 60 /* flat: 8; cluster: 15 of 4, as Fh is everybody */

/* ---- the tables ---------------------------------------------------------------------------------------------------- */

static unsigned nr_ids(enum lapic_place place)
{
	switch (place) {
	case LAPIC_AT_USUAL_ADDRESS: return XAPIC_IDS;
	case LAPIC_AT_MSRS: return svm_caps.x2avic ? X2APIC_IDS : 0;
	default: return 0;
	}
}

/* Can others find the vCPU by the tables, and send it what is fixed and edge-triggered? */
static bool is_target(const struct svm_vcpu *svm, const struct lapic_names *names)
{
	return names->enabled && names->id == svm->vcpu.id && svm->vcpu.id < nr_ids(names->place);
}

/* Does it get messages that the tables do not lead to it? Then nobody may go by them: a broadcast passes over who has no valid entry. */
static bool is_beyond(const struct svm_vcpu *svm, const struct lapic_names *names)
{
	return names->enabled && !is_target(svm, names);
}

static void set_objects(struct svm_vcpu *svm, bool objects)
{
	if (svm->avic_objects == objects)
		return;
	svm->avic_objects = objects;
	__atomic_fetch_add(&to_svm_vm(svm->vcpu.vm)->avic_objections, objects ? 1 : -1, __ATOMIC_SEQ_CST);
}

/* Its index in the logical table; -1: no logical ID leads there, -2: none that the table can have. */
static int logical_index(const struct lapic_names *names)
{
	u8 bits = names->dfr ? names->ldr : names->ldr & 0xf;

	if (!bits)
		return -1;
	if ((bits & (bits - 1)) || (!names->dfr && names->ldr >= 0xf0))
		return -2;
	return __builtin_ctz(bits) + (names->dfr ? 0 : names->ldr >> 4 << 2);
}

/*
 * The processor reads the table as the sender's DFR says. So all have to have the same one, one bit each, and no two the same: else the table stays
 * empty, and each logical IPI exits. (x2APIC's logical IDs are made of the physical ones, without a table.)
 */
static void make_logical(struct svm_vm *v, u32 table[LOGICAL_IDS])
{
	bool fits = true, xapic = false, x2apic = false;
	struct lapic_names names;
	struct vcpu *vcpu;
	int index, dfr = -1;
	unsigned i;

	memset(table, 0, LOGICAL_IDS * sizeof(*table));
	vm_for_each_vcpu(i, vcpu, &v->vm) {
		lapic_get_names(vcpu, &names);
		xapic |= names.enabled && names.place == LAPIC_AT_USUAL_ADDRESS;
		x2apic |= names.enabled && names.place == LAPIC_AT_MSRS;
		if (names.place != LAPIC_AT_USUAL_ADDRESS)
			continue;
		/* One that is disabled by software sends, too */
		if ((names.dfr != 0 && names.dfr != 0xf) || (dfr >= 0 && dfr != names.dfr))
			fits = false;
		dfr = names.dfr;
		index = is_target(to_svm(vcpu), &names) ? logical_index(&names) : -1;
		if (index == -2 || (index >= 0 && table[index]))
			fits = false;
		else if (index >= 0)
			table[index] = AVIC_LOGICAL_VALID | vcpu->id;
	}
	if (!fits)
		memset(table, 0, LOGICAL_IDS * sizeof(*table));
	__atomic_store_n(&v->avic_mixed, xapic && x2apic, __ATOMIC_SEQ_CST);
}

void svm_lapic_changed(struct vcpu *vcpu)
{
	struct svm_vm *v = to_svm_vm(vcpu->vm);
	struct svm_vcpu *svm = to_svm(vcpu);
	struct lapic_names names;
	u32 table[LOGICAL_IDS];
	unsigned long flags;

	lapic_get_names(vcpu, &names);
	/* First AVIC goes, then the entry */
	if (unlikely(is_beyond(svm, &names))) {
		set_objects(svm, true);
		svm_avic_switch(svm);
	}
	/* Bit by bit: the scheduler may take the thread from its CPU in between, see svm_avic_put() */
	if (svm->avic_entry && is_target(svm, &names))
		__atomic_fetch_or(svm->avic_entry, AVIC_PHYSICAL_VALID | host_page_phys(lapic_page(vcpu)), __ATOMIC_SEQ_CST);
	else if (svm->avic_entry)
		__atomic_fetch_and(svm->avic_entry, ~(AVIC_PHYSICAL_VALID | AVIC_PHYSICAL_PAGE), __ATOMIC_SEQ_CST);
	flags = host_spin_lock(&v->avic_lock);
	make_logical(v, table);
	/* What is no more goes before anything new comes: other processors may be reading */
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < LOGICAL_IDS; i++) {
			if (v->avic_logical[i] != table[i])
				__atomic_store_n(&v->avic_logical[i], pass ? table[i] : 0, __ATOMIC_SEQ_CST);
		}
	}
	host_spin_unlock(&v->avic_lock, flags);
}

/* ---- where it runs --------------------------------------------------------------------------------------------------- */

static u64 max_host_id(void)
{
	return svm_caps.x2avic ? AVIC_PHYSICAL_HOST_ID : 0xff;
}

static void set_running(struct svm_vcpu *svm, u32 apic_id)
{
	/* To one on a CPU that the table cannot name each IPI exits, and core kicks it */
	if (!svm->avic_entry || svm->waits || apic_id > max_host_id() || !svm_caps.avic_ipis)
		return;
	__atomic_fetch_and(svm->avic_entry, ~AVIC_PHYSICAL_HOST_ID, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(svm->avic_entry, AVIC_PHYSICAL_RUNNING | apic_id, __ATOMIC_SEQ_CST);
}

static void clear_running(struct svm_vcpu *svm)
{
	if (svm->avic_entry)
		__atomic_fetch_and(svm->avic_entry, ~AVIC_PHYSICAL_RUNNING, __ATOMIC_SEQ_CST);
}

void svm_avic_load(struct svm_vcpu *svm, unsigned cpu, u32 apic_id)
{
	__atomic_store_n(&svm->avic_cpu, (u64)apic_id << 32 | cpu, __ATOMIC_SEQ_CST);
	set_running(svm, apic_id);
}

void svm_avic_put(struct svm_vcpu *svm)
{
	clear_running(svm);
	__atomic_store_n(&svm->avic_cpu, AVIC_NO_CPU, __ATOMIC_SEQ_CST);
}

/* A doorbell that comes between core's last look at the IRR and the host's scheduler, which would clear the bit, wakes nobody. */
void svm_vcpu_waits(struct vcpu *vcpu, bool waits)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (waits) {
		struct lapic_names names;

		svm->waits = true;
		clear_running(svm);
		if (vcpu->mp_state == KVM_MP_STATE_RUNNABLE || vcpu->mp_state == KVM_MP_STATE_HALTED)
			return;
		/* What waits to be started runs no code that could mind */
		lapic_get_names(vcpu, &names);
		set_objects(svm, is_beyond(svm, &names));
		return;
	}
	host_preempt_off();
	svm->waits = false;
	if (svm->avic_cpu != AVIC_NO_CPU)
		set_running(svm, svm->avic_cpu >> 32);
	host_preempt_on();
}

bool svm_interrupt_arrived(struct vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	u64 cpu;

	if (!__atomic_load_n(&svm->avic_active, __ATOMIC_SEQ_CST))
		return false;
	switch (__atomic_load_n(&vcpu->place, __ATOMIC_SEQ_CST)) {
	case VCPU_SLEEPING: return false;
	case VCPU_IN_GUEST: break;
	default: return true; /* it enters, or looks before it sleeps */
	}
	cpu = __atomic_load_n(&svm->avic_cpu, __ATOMIC_SEQ_CST);
	/* It was taken from its CPU, and will enter again */
	if (cpu == AVIC_NO_CPU)
		return true;
	if (cpu >> 32 > max_host_id())
		return false;
	host_preempt_off();
	/* On this one it is not in guest code: we are here. A CPU that it has left meanwhile does nothing, and it has entered since. */
	if ((u32)cpu != host_cpu())
		host_wrmsr(MSR_AVIC_DOORBELL, cpu >> 32);
	host_preempt_on();
	return true;
}

/* ---- on and off ------------------------------------------------------------------------------------------------------ */

static bool vcpu_may(const struct svm_vcpu *svm, unsigned obstacles, enum lapic_place place)
{
	return !(obstacles & ~LAPIC_EOI_HEARD) && svm->vcpu.id < nr_ids(place);
}

static bool any_at_msrs(struct svm_vm *v)
{
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, &v->vm) {
		if (lapic_place(vcpu) == LAPIC_AT_MSRS)
			return true;
	}
	return false;
}

/* Who waits for which EOI is the VM's matter: it binds whoever looks. */
static bool vm_may(struct svm_vm *v, unsigned obstacles)
{
	return !(obstacles & LAPIC_EOI_HEARD) && !__atomic_load_n(&v->avic_mixed, __ATOMIC_SEQ_CST) &&
	       !__atomic_load_n(&v->avic_objections, __ATOMIC_SEQ_CST);
}

bool svm_virtual_interrupts(struct vcpu *vcpu, bool on)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct svm_vm *v = to_svm_vm(vcpu->vm);
	unsigned obstacles = lapic_obstacles(vcpu);
	enum lapic_place place = lapic_place(vcpu);
	bool active;

	/* As it was made, nobody could find it yet */
	if (unlikely(!svm->avic_known)) {
		svm->avic_known = true;
		svm_lapic_changed(vcpu);
	}
	set_objects(svm, !vcpu_may(svm, obstacles, place)); /* who is beyond the tables is among these */
	active = __atomic_load_n(&v->avic_on, __ATOMIC_SEQ_CST);
	/* In x2APIC mode there is nothing of the APIC in memory: 15.29.10 */
	svm->avic_switch = active != vm_may(v, obstacles) ||
			   (active && place == LAPIC_AT_MSRS && __atomic_load_n(&v->avic_mapped, __ATOMIC_SEQ_CST));
	/* Before core looks at the IRR: see the top */
	__atomic_store_n(&svm->avic_active, active && !svm->avic_switch, __ATOMIC_SEQ_CST);
	return on && active && !svm->avic_switch;
}

static void unmap(struct svm_vm *v)
{
	if (!v->avic_mapped)
		return;
	mmu_own_page(v->mmu, 0, 0);
	__atomic_store_n(&v->avic_mapped, false, __ATOMIC_SEQ_CST);
}

void svm_avic_switch(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;
	struct svm_vm *v = to_svm_vm(vcpu->vm);
	bool on;

	/* Or the client changes its APIC, which runs nothing then */
	if (vcpu->place == VCPU_IN_GUEST)
		vcpu_leave_guest(vcpu);
	host_mutex_lock(&v->avic_mutex);
	on = vm_may(v, lapic_obstacles(vcpu));
	if (on && !v->avic_on) {
		__atomic_store_n(&v->avic_on, true, __ATOMIC_SEQ_CST);
		vm_request_all(&v->vm, REQ_EVENT, true);
		if (!any_at_msrs(v)) {
			mmu_own_page(v->mmu, LAPIC_USUAL_ADDRESS >> HOST_PAGE_SHIFT, host_page_phys(v->avic_access));
			__atomic_store_n(&v->avic_mapped, true, __ATOMIC_SEQ_CST);
		}
	} else if (!on && v->avic_on) {
		unmap(v);
		__atomic_store_n(&v->avic_on, false, __ATOMIC_SEQ_CST);
		vm_request_all(&v->vm, REQ_EVENT, true);
	} else if (on && lapic_place(vcpu) == LAPIC_AT_MSRS) {
		unmap(v);
	}
	host_mutex_unlock(&v->avic_mutex);
	svm->avic_switch = false;
}

/* ---- one stay in guest code -------------------------------------------------------------------------------------------- */

void svm_tpr_load(struct svm_vcpu *svm)
{
	struct vcpu *vcpu = &svm->vcpu;
	struct vmcb *v = svm->vmcb;
	u64 tpr = vcpu_get_cr8(vcpu);

	if (unlikely((v->vintr & VINTR_TPR) != tpr)) {
		v->vintr = (v->vintr & ~VINTR_TPR) | tpr;
		v->clean &= ~VMCB_CLEAN_TPR;
	}
	/* Lowering it may let an interrupt through, unless the processor looks itself; and a client with its own LAPIC wants to know */
	svm_intercept(svm, SVM_EXIT_CR_WRITE + 8, !svm->avic_active && (tpr || !vcpu->lapic));
}

void svm_tpr_sync(struct svm_vcpu *svm, u64 before)
{
	u64 tpr = svm->vmcb->vintr & VINTR_TPR;

	/* With AVIC it is in the page already, all eight bits of it */
	if (unlikely(tpr != before && !svm->avic_active))
		vcpu_set_cr(&svm->vcpu, 8, tpr);
}

void svm_avic_entry(struct svm_vcpu *svm)
{
	const struct svm_vm *v = to_svm_vm(svm->vcpu.vm);
	struct vmcb *vmcb = svm->vmcb;
	bool active = svm->avic_active, x2 = active && lapic_place(&svm->vcpu) == LAPIC_AT_MSRS;
	u64 mode = (active ? VINTR_AVIC : 0) | (x2 ? VINTR_X2AVIC : 0);
	u64 physical;

	if (unlikely(svm->avic_x2 != x2)) {
		svm->avic_x2 = x2;
		svm_msrpm_update(svm);
	}
	if (unlikely((vmcb->vintr & (VINTR_AVIC | VINTR_X2AVIC)) != mode)) {
		/* V_IRQ and what goes with it would be ignored: 15.29.2 */
		vmcb->vintr = (vmcb->vintr & ~(VINTR_AVIC | VINTR_X2AVIC | VINTR_IRQ)) | mode;
		vmcb->clean &= ~(VMCB_CLEAN_TPR | VMCB_CLEAN_AVIC);
	}
	if (!active)
		return;
	lapic_refresh_page(&svm->vcpu);
	physical = host_page_phys(v->avic_physical) | (nr_ids(x2 ? LAPIC_AT_MSRS : LAPIC_AT_USUAL_ADDRESS) - 1);
	if (likely(vmcb->avic_physical == physical))
		return;
	vmcb->avic_physical = physical;
	vmcb->avic_logical = host_page_phys(v->avic_logical);
	vmcb->avic_page = host_page_phys(lapic_page(&svm->vcpu));
	vmcb->avic_bar = LAPIC_USUAL_ADDRESS;
	vmcb->clean &= ~VMCB_CLEAN_AVIC;
}

/*
 * A trap: the ICR is written, and RIP is behind. Where only some of the targets do not run, all have the interrupt in their IRRs. Every other
 * reason comes of the look at the ICR and the tables, before the first IRR was written.
 */
void svm_avic_incomplete_ipi(struct svm_vcpu *svm)
{
	const struct vmcb *v = svm->vmcb;

	lapic_ipi_left(&svm->vcpu, v->exit_info_1, v->exit_info_1 >> 32, AVIC_IPI_REASON(v->exit_info_2) == AVIC_IPI_NOT_RUNNING);
}

/* 15.29.3: the writes that are traps, done but for what follows from them. */
static bool is_trap(unsigned offset)
{
	switch (offset) {
	case APIC_ID:
	case APIC_EOI:
	case APIC_RRD:
	case APIC_LDR:
	case APIC_DFR:
	case APIC_SVR:
	case APIC_ESR:
	case APIC_ICR:
	case APIC_LVT_TIMER:
	case APIC_LVT_THERMAL:
	case APIC_LVT_PERF:
	case APIC_LVT_LINT0:
	case APIC_LVT_LINT1:
	case APIC_LVT_ERROR:
	case APIC_TMICT:
	case APIC_TDCR: return true;
	default: return false;
	}
}

void svm_avic_noaccel(struct svm_vcpu *svm, struct engine_exit *exit)
{
	const struct vmcb *v = svm->vmcb;
	unsigned offset = AVIC_NOACCEL_OFFSET(v->exit_info_1);

	if (!(v->exit_info_1 & AVIC_NOACCEL_WRITE) || !is_trap(offset))
		exit->reason = EXIT_EMULATE; /* a fault: nothing was done */
	else if (offset == APIC_EOI)
		lapic_eoi_left(&svm->vcpu, AVIC_NOACCEL_VECTOR(v->exit_info_2));
	else
		lapic_written(&svm->vcpu, offset);
}

/* ---- life -------------------------------------------------------------------------------------------------------------- */

void svm_avic_vm_destroy(struct svm_vm *v)
{
	if (!svm_caps.avic)
		return;
	if (v->avic_physical)
		host_page_free(v->avic_physical);
	if (v->avic_logical)
		host_page_free(v->avic_logical);
	if (v->avic_access)
		host_page_free(v->avic_access);
	host_spin_destroy(&v->avic_lock);
	host_mutex_destroy(&v->avic_mutex);
}

int svm_avic_vm_init(struct svm_vm *v)
{
	if (!svm_caps.avic)
		return 0;
	host_mutex_init(&v->avic_mutex);
	host_spin_init(&v->avic_lock);
	v->avic_physical = host_page_alloc();
	v->avic_logical = host_page_alloc();
	v->avic_access = host_page_alloc();
	if (v->avic_physical && v->avic_logical && v->avic_access)
		return 0;
	svm_avic_vm_destroy(v);
	return -ENOMEM;
}

void svm_avic_vcpu_init(struct svm_vcpu *svm)
{
	svm->avic_cpu = AVIC_NO_CPU;
	if (svm_caps.avic && svm->vcpu.id < X2APIC_IDS)
		svm->avic_entry = &to_svm_vm(svm->vcpu.vm)->avic_physical[svm->vcpu.id];
}
