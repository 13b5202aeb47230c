/*
 * Hyper-V's CPUID leaves, its synthetic MSRs but for the SynIC's, and its reference time; see hyperv.h.
 *
 * Of the MSRs some are the partition's (TLFS 2.4), that is the VM's: they are under hv_vm.lock. The rest is the virtual processor's and
 * belongs to its thread.
 */
#include "core/x86/hyperv/hyperv.h"

#include "core/stats.h"
#include "core/x86/clock.h"
#include "core/x86/cpuid.h"
#include "core/x86/hypercall.h"
#include "core/x86/irqchip/chips.h"

#define LEAF_VENDOR	   0x40000000
#define LEAF_INTERFACE	   0x40000001
#define LEAF_VERSION	   0x40000002
#define LEAF_FEATURES	   0x40000003
#define LEAF_RECOMMENDED   0x40000004
#define LEAF_LIMITS	   0x40000005
#define LEAF_NESTED	   0x4000000a
#define LEAF_SYNDBG_VENDOR 0x40000080
#define LEAF_SYNDBG	   0x40000081
#define LEAF_SYNDBG_CAPS   0x40000082

#define INTERFACE_HV1	    0x31237648 /* "Hv#1" */
#define INTERFACE_VS1	    0x31235356 /* "VS#1" */
#define NESTED_MSR_BITMAP   BIT64(19)
#define NEVER_NOTIFY	    0xffffffff /* of spinlocks that take long: the number of attempts before */
#define LOGICAL_PROCESSORS  64

#define FEATURES_A                                                                                                     \
	(HV_A_VP_RUNTIME | HV_A_TIME_REF_COUNT | HV_A_SYNIC | HV_A_SYNTIMER | HV_A_APIC_ACCESS | HV_A_HYPERCALL |      \
	 HV_A_VP_INDEX | HV_A_RESET | HV_A_REFERENCE_TSC | HV_A_FREQUENCY | HV_A_REENLIGHTENMENT)
#define FEATURES_B (HV_B_POST_MESSAGES | HV_B_SIGNAL_EVENTS | HV_B_DEBUGGING)
#define FEATURES_D (HV_D_XMM_INPUT | HV_D_FREQUENCY | HV_D_CRASH | HV_D_DEBUG)
#define RECOMMENDED                                                                                                    \
	(HV_R_REMOTE_TLB_FLUSH | HV_R_APIC_ACCESS | HV_R_RELAXED_TIMING | HV_R_CLUSTER_IPI | HV_R_EX_MASKS)

#define PAGE_ENABLE	       BIT64(0) /* of the MSRs that hold a page's address */
#define PAGE_GPA	       MASK64(51, 12)
#define HYPERCALL_LOCKED       BIT64(1)
#define RESET_NOW	       BIT64(0)
#define CRASH_NOTIFY	       BIT64(63)
#define REENLIGHTENMENT_ENABLE BIT64(16)

/* Reference time counts units of 100 ns: TLFS 12.3. */
#define UNIT_NS		  100
#define UNITS_PER_MS	  10000
#define SEQUENCE_NO_PAGE  0
#define SEQUENCE_INVALID  0xffffffff /* what older guests take for it */
#define APIC_BUS_HZ	  1000000000 /* lapic_timer.c */

struct tsc_page {
	u32 sequence, reserved;
	u64 scale;
	s64 offset;
};
_Static_assert(sizeof(struct tsc_page) == 24, "TLFS 12.4.2");

/* ---- making and unmaking -------------------------------------------------------------------------------------- */

int hyperv_vm_init(struct vm *vm)
{
	vm->hyperv = host_zalloc(sizeof(*vm->hyperv));
	if (!vm->hyperv)
		return -ENOMEM;
	host_mutex_init(&vm->hyperv->lock);
	return 0;
}

void hyperv_vm_destroy(struct vm *vm)
{
	struct hv_vm *hv = vm->hyperv;

	while (hv->eventfds) {
		struct hv_eventfd *e = hv->eventfds;

		hv->eventfds = e->next;
		host_eventfd_put(e->eventfd);
		host_free(e);
	}
	host_mutex_destroy(&hv->lock);
	host_free(hv);
	vm->hyperv = NULL;
}

int hyperv_vcpu_init(struct vcpu *vcpu)
{
	struct hv_vcpu *hv = host_zalloc(sizeof(*hv));

	if (!hv)
		return -ENOMEM;
	vcpu->hyperv = hv;
	hv->vp_index = vcpu->vm->nr_vcpus;
	stimers_init(vcpu);
	return 0;
}

void hyperv_vcpu_destroy(struct vcpu *vcpu)
{
	stimers_destroy(vcpu);
	host_free(vcpu->hyperv);
	vcpu->hyperv = NULL;
}

/* ---- CPUID ---------------------------------------------------------------------------------------------------- */

long hyperv_ioctl_supported_cpuid(struct vcpu *vcpu, u64 arg, struct kvm_cpuid2 *head)
{
	/* A direct timer needs a local APIC to go to; the system descriptor says what there is at all */
	u32 features_d = FEATURES_D | (!vcpu || vcpu->lapic ? HV_D_STIMER_DIRECT : 0);
	/* "Linux KVM Hv" is KVM's own name here; guests look at the interface */
	const u32 vendor[3] = { 0x756e694c, 0x564b2078, 0x7648204d };
	const struct kvm_cpuid_entry2 leaves[] = {
		{ .function = LEAF_VENDOR, .eax = LEAF_SYNDBG_CAPS, .ebx = vendor[0], .ecx = vendor[1], .edx = vendor[2] },
		{ .function = LEAF_INTERFACE, .eax = INTERFACE_HV1 },
		{ .function = LEAF_VERSION, .eax = 14393, .ebx = 10 << 16 },
		{ .function = LEAF_FEATURES, .eax = FEATURES_A, .ebx = FEATURES_B, .edx = features_d },
		{ .function = LEAF_RECOMMENDED, .eax = RECOMMENDED | (host_smt_possible() ? 0 : HV_R_NO_CORE_SHARING),
		  .ebx = NEVER_NOTIFY },
		{ .function = LEAF_LIMITS, .eax = VM_MAX_VCPUS, .ebx = LOGICAL_PROCESSORS },
		/* Hints about MSR bitmaps of nested guests: without such every one is honoured */
		{ .function = LEAF_NESTED, .eax = NESTED_MSR_BITMAP },
		{ .function = LEAF_SYNDBG_VENDOR, .eax = LEAF_SYNDBG_CAPS, .ebx = vendor[0], .ecx = vendor[1],
		  .edx = vendor[2] },
		{ .function = LEAF_SYNDBG, .eax = INTERFACE_VS1 },
		{ .function = LEAF_SYNDBG_CAPS, .eax = HV_SYNDBG_ALLOWED },
	};

	if (head->nent < ARRAY_SIZE(leaves))
		return -E2BIG;
	head->nent = ARRAY_SIZE(leaves);
	return host_copy_to_client(arg + sizeof(*head), leaves, sizeof(leaves)) ? -EFAULT : 0;
}

void hyperv_cpuid_update(struct vcpu *vcpu)
{
	struct hv_vcpu *hv = vcpu->hyperv;
	const struct kvm_cpuid_entry2 *e = vcpu_cpuid_entry(vcpu, LEAF_INTERFACE, 0);

	hv->enabled = e && e->eax == INTERFACE_HV1;
	e = vcpu_cpuid_entry(vcpu, LEAF_FEATURES, 0);
	hv->features_a = e ? e->eax : 0;
	hv->features_b = e ? e->ebx : 0;
	hv->features_d = e ? e->edx : 0;
	e = vcpu_cpuid_entry(vcpu, LEAF_RECOMMENDED, 0);
	hv->recommended = e ? e->eax : 0;
	hv->spins = e ? e->ebx : 0;
	e = vcpu_cpuid_entry(vcpu, LEAF_SYNDBG_CAPS, 0);
	hv->syndbg = e ? e->eax : 0;
}

/* ---- reference time ------------------------------------------------------------------------------------------- */

static u64 high_product(u64 a, u64 b)
{
	return (unsigned __int128)a * b >> 64;
}

/* From its own scale, so that the MSR and the page are one clock. hv->lock held. */
static u64 page_time(const struct hv_vm *hv, u64 tsc)
{
	return high_product(tsc, hv->tsc_scale) + hv->tsc_offset;
}

u64 hyperv_time(struct vcpu *vcpu)
{
	struct hv_vm *hv = vcpu->vm->hyperv;
	u64 now = 0;
	bool valid;

	if (__atomic_load_n(&hv->tsc, __ATOMIC_ACQUIRE) == HV_TSC_VALID) {
		host_mutex_lock(&hv->lock);
		valid = hv->tsc == HV_TSC_VALID;
		if (valid)
			now = page_time(hv, vcpu_read_tsc(vcpu));
		host_mutex_unlock(&hv->lock);
		if (valid)
			return now;
	}
	return vm_kvmclock_ns(vcpu->vm) / UNIT_NS;
}

/* A guest that has its TSC emulated, after a migration, still counts with the old scale: TLFS 12.5. */
static bool page_frozen(const struct hv_vm *hv)
{
	return (hv->reenlightenment & REENLIGHTENMENT_ENABLE) && (hv->tsc_emulation & 1);
}

static void set_tsc_state(struct hv_vm *hv, enum hv_tsc state)
{
	__atomic_store_n(&hv->tsc, state, __ATOMIC_RELEASE);
}

/* hv->lock held. */
static void page_outdated(struct hv_vm *hv)
{
	if (hv->tsc != HV_TSC_OFF && !(hv->tsc == HV_TSC_VALID && page_frozen(hv)))
		set_tsc_state(hv, HV_TSC_STALE);
}

void hyperv_clock_changed(struct vm *vm)
{
	host_mutex_lock(&vm->hyperv->lock);
	page_outdated(vm->hyperv);
	host_mutex_unlock(&vm->hyperv->lock);
}

/* hv->lock held. */
static enum hv_tsc write_tsc_page(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	struct hv_vm *hv = vm->hyperv;
	struct tsc_page page = { .sequence = SEQUENCE_NO_PAGE };
	u64 gpa = hv->reference_tsc & PAGE_GPA, tsc;
	unsigned as_id = vcpu_as_id(vcpu);
	u32 sequence;

	if (vm_read_guest(vm, as_id, gpa, &sequence, sizeof(sequence)))
		return HV_TSC_UNUSABLE;
	/* Guests read the MSR while it says so */
	if (vm_write_guest(vm, vcpu, as_id, gpa, &page.sequence, sizeof(page.sequence)))
		return HV_TSC_UNUSABLE;
	if (!clock_is_stable(vm) || vcpu->tsc_khz <= UNITS_PER_MS)
		return HV_TSC_UNUSABLE;
	hv->tsc_scale = page.scale = div_wide(UNITS_PER_MS, 0, vcpu->tsc_khz);
	tsc = vcpu_read_tsc(vcpu);
	hv->tsc_offset = page.offset = vm_kvmclock_ns(vm) / UNIT_NS - high_product(tsc, page.scale);
	/* From what stands there, for the page may have come from another host */
	page.sequence = MAX(sequence, hv->tsc_sequence) + 1;
	if (page.sequence == SEQUENCE_NO_PAGE || page.sequence == SEQUENCE_INVALID)
		page.sequence = 1;
	hv->tsc_sequence = page.sequence;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (vm_write_guest(vm, vcpu, as_id, gpa + offsetof(struct tsc_page, scale), &page.scale,
			   sizeof(page) - offsetof(struct tsc_page, scale)))
		return HV_TSC_UNUSABLE;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (vm_write_guest(vm, vcpu, as_id, gpa, &page.sequence, sizeof(page.sequence)))
		return HV_TSC_UNUSABLE;
	return HV_TSC_VALID;
}

void hyperv_clock_update(struct vcpu *vcpu)
{
	struct hv_vm *hv = vcpu->vm->hyperv;

	if (__atomic_load_n(&hv->tsc, __ATOMIC_ACQUIRE) == HV_TSC_STALE) {
		host_mutex_lock(&hv->lock);
		if (hv->tsc == HV_TSC_STALE)
			set_tsc_state(hv, write_tsc_page(vcpu));
		host_mutex_unlock(&hv->lock);
	}
	stimers_restart(vcpu);
}

/* ---- to the client -------------------------------------------------------------------------------------------- */

void hyperv_ask_exit(struct vcpu *vcpu, enum hv_exit exit, u32 msr)
{
	vcpu->hyperv->exit = exit;
	vcpu->hyperv->exit_msr = msr;
	vcpu_set_request(vcpu, REQ_HYPERV_EXIT);
}

void hyperv_fill_exit(struct vcpu *vcpu)
{
	struct hv_vcpu *hv = vcpu->hyperv;
	struct hv_vm *vm = vcpu->vm->hyperv;
	struct kvm_run *run = vcpu->run;

	if (hv->exit == HV_EXIT_CRASH || hv->exit == HV_EXIT_RESET) {
		run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
		memset(&run->system_event, 0, sizeof(run->system_event));
		run->system_event.type = hv->exit == HV_EXIT_CRASH ? KVM_SYSTEM_EVENT_CRASH : KVM_SYSTEM_EVENT_RESET;
		return;
	}
	run->exit_reason = KVM_EXIT_HYPERV;
	memset(&run->hyperv, 0, sizeof(run->hyperv));
	if (hv->exit == HV_EXIT_SYNIC) {
		run->hyperv.type = KVM_EXIT_HYPERV_SYNIC;
		run->hyperv.u.synic.msr = hv->exit_msr;
		run->hyperv.u.synic.control = hv->control;
		run->hyperv.u.synic.evt_page = hv->siefp;
		run->hyperv.u.synic.msg_page = hv->simp;
		return;
	}
	run->hyperv.type = KVM_EXIT_HYPERV_SYNDBG;
	run->hyperv.u.syndbg.msr = hv->exit_msr;
	host_mutex_lock(&vm->lock);
	run->hyperv.u.syndbg.control = vm->syndbg_control;
	run->hyperv.u.syndbg.status = vm->syndbg_status;
	run->hyperv.u.syndbg.send_page = vm->syndbg_send;
	run->hyperv.u.syndbg.recv_page = vm->syndbg_recv;
	run->hyperv.u.syndbg.pending_page = vm->syndbg_pending;
	host_mutex_unlock(&vm->lock);
	hv->answer = HV_ANSWER_SYNDBG;
}

/* ---- MSRs ----------------------------------------------------------------------------------------------------- */

/* Whether the guest's CPUID has what @index belongs to. */
static bool guest_may(const struct hv_vcpu *hv, u32 index)
{
	if (!hv->enabled)
		return false;
	switch (index) {
	case HV_X64_MSR_GUEST_OS_ID:
	case HV_X64_MSR_HYPERCALL: return hyperv_allows(hv, hv->features_a, HV_A_HYPERCALL);
	case HV_X64_MSR_VP_INDEX: return hyperv_allows(hv, hv->features_a, HV_A_VP_INDEX);
	case HV_X64_MSR_RESET: return hyperv_allows(hv, hv->features_a, HV_A_RESET);
	case HV_X64_MSR_VP_RUNTIME: return hyperv_allows(hv, hv->features_a, HV_A_VP_RUNTIME);
	case HV_X64_MSR_TIME_REF_COUNT: return hyperv_allows(hv, hv->features_a, HV_A_TIME_REF_COUNT);
	case HV_X64_MSR_REFERENCE_TSC: return hyperv_allows(hv, hv->features_a, HV_A_REFERENCE_TSC);
	case HV_X64_MSR_TSC_FREQUENCY:
	case HV_X64_MSR_APIC_FREQUENCY: return hyperv_allows(hv, hv->features_a, HV_A_FREQUENCY);
	case HV_X64_MSR_EOI ... HV_X64_MSR_VP_ASSIST_PAGE: return hyperv_allows(hv, hv->features_a, HV_A_APIC_ACCESS);
	case HV_X64_MSR_SCONTROL ... HV_X64_MSR_SINT15: return hyperv_allows(hv, hv->features_a, HV_A_SYNIC);
	case HV_X64_MSR_STIMER0_CONFIG ... HV_X64_MSR_STIMER3_COUNT:
		return hyperv_allows(hv, hv->features_a, HV_A_SYNTIMER);
	case HV_X64_MSR_CRASH_P0 ... HV_X64_MSR_CRASH_CTL: return hyperv_allows(hv, hv->features_d, HV_D_CRASH);
	case HV_X64_MSR_REENLIGHTENMENT_CONTROL ... HV_X64_MSR_TSC_EMULATION_STATUS:
		return hyperv_allows(hv, hv->features_a, HV_A_REENLIGHTENMENT);
	case HV_X64_MSR_SYNDBG_CONTROL ... HV_X64_MSR_SYNDBG_OPTIONS:
		return (hv->syndbg & HV_SYNDBG_ALLOWED) && hyperv_allows(hv, hv->features_d, HV_D_DEBUG);
	default: return false;
	}
}

/* Where a partition's MSR is kept; NULL: no such, or no state. */
static u64 *partition_msr(struct hv_vm *hv, u32 index)
{
	switch (index) {
	case HV_X64_MSR_GUEST_OS_ID: return &hv->guest_os_id;
	case HV_X64_MSR_HYPERCALL: return &hv->hypercall;
	case HV_X64_MSR_REFERENCE_TSC: return &hv->reference_tsc;
	case HV_X64_MSR_CRASH_P0 ... HV_X64_MSR_CRASH_P4: return &hv->crash[index - HV_X64_MSR_CRASH_P0];
	case HV_X64_MSR_CRASH_CTL: return &hv->crash_ctl;
	case HV_X64_MSR_REENLIGHTENMENT_CONTROL: return &hv->reenlightenment;
	case HV_X64_MSR_TSC_EMULATION_CONTROL: return &hv->tsc_emulation;
	case HV_X64_MSR_TSC_EMULATION_STATUS: return &hv->tsc_emulation_status;
	case HV_X64_MSR_SYNDBG_CONTROL: return &hv->syndbg_control;
	case HV_X64_MSR_SYNDBG_STATUS: return &hv->syndbg_status;
	case HV_X64_MSR_SYNDBG_SEND_BUFFER: return &hv->syndbg_send;
	case HV_X64_MSR_SYNDBG_RECV_BUFFER: return &hv->syndbg_recv;
	case HV_X64_MSR_SYNDBG_PENDING_BUFFER: return &hv->syndbg_pending;
	case HV_X64_MSR_SYNDBG_OPTIONS: return &hv->syndbg_options;
	default: return NULL;
	}
}

/* What the processor spent on the guest and for it. The vCPU's thread. */
static u64 runtime(const struct vcpu *vcpu)
{
	u64 ticks = vcpu->time.ticks[TIME_GUEST] + vcpu->time.ticks[TIME_CORE];

	if (vcpu->place != VCPU_OUTSIDE)
		ticks += stats_now(vcpu->vm) - vcpu->time.since;
	return (u64)((unsigned __int128)ticks * vcpu->vm->tick_ns >> 32) / UNIT_NS;
}

enum x86_result hyperv_get_msr(struct vcpu *vcpu, u32 index, u64 *value, bool from_client)
{
	struct hv_vcpu *hv = vcpu->hyperv;
	u64 *state = partition_msr(vcpu->vm->hyperv, index);

	if (!from_client && !guest_may(hv, index))
		return X86_FAULT;
	if (state) {
		*value = __atomic_load_n(state, __ATOMIC_RELAXED);
		return X86_CONTINUE;
	}
	switch (index) {
	case HV_X64_MSR_VP_INDEX: *value = hv->vp_index; return X86_CONTINUE;
	case HV_X64_MSR_RESET: *value = 0; return X86_CONTINUE;
	case HV_X64_MSR_VP_RUNTIME: *value = runtime(vcpu) + hv->runtime_offset; return X86_CONTINUE;
	case HV_X64_MSR_TIME_REF_COUNT: *value = hyperv_time(vcpu); return X86_CONTINUE;
	case HV_X64_MSR_TSC_FREQUENCY: *value = vcpu->tsc_khz * 1000ULL; return X86_CONTINUE;
	case HV_X64_MSR_APIC_FREQUENCY: *value = APIC_BUS_HZ; return X86_CONTINUE;
	case HV_X64_MSR_ICR: return lapic_msr_read(vcpu, APIC_ICR, value);
	case HV_X64_MSR_TPR: return lapic_msr_read(vcpu, APIC_TPR, value);
	case HV_X64_MSR_VP_ASSIST_PAGE: *value = hv->vp_assist; return X86_CONTINUE;
	case HV_X64_MSR_SCONTROL ... HV_X64_MSR_STIMER3_COUNT: return synic_get_msr(vcpu, index, value, from_client);
	default: return X86_FAULT;
	}
}

/* TLFS 3.13 */
static enum x86_result set_hypercall(struct vcpu *vcpu, u64 value, bool from_client)
{
	struct hv_vm *hv = vcpu->vm->hyperv;
	u8 code[HYPERCALL_LEN + 1];

	/* Who has not said who he is has no hypercalls */
	if (!hv->guest_os_id || (!from_client && (hv->hypercall & HYPERCALL_LOCKED)))
		return X86_CONTINUE;
	if (value & PAGE_ENABLE) {
		memcpy(code, hypercall_insn(vcpu), HYPERCALL_LEN);
		code[HYPERCALL_LEN] = 0xc3; /* RET */
		if (vm_write_guest(vcpu->vm, vcpu, vcpu_as_id(vcpu), value & PAGE_GPA, code, sizeof(code)))
			return X86_FAULT;
	}
	__atomic_store_n(&hv->hypercall, value, __ATOMIC_RELAXED);
	return X86_CONTINUE;
}

/* hv->lock held. */
static enum x86_result set_partition_msr(struct vcpu *vcpu, u32 index, u64 *state, u64 value, bool from_client)
{
	struct hv_vm *hv = vcpu->vm->hyperv;
	bool frozen = page_frozen(hv);

	switch (index) {
	case HV_X64_MSR_GUEST_OS_ID:
		if (!value)
			__atomic_store_n(&hv->hypercall, hv->hypercall & ~PAGE_ENABLE, __ATOMIC_RELAXED);
		break;
	case HV_X64_MSR_HYPERCALL: return set_hypercall(vcpu, value, from_client);
	case HV_X64_MSR_REFERENCE_TSC:
		set_tsc_state(hv, value & PAGE_ENABLE ? HV_TSC_STALE : HV_TSC_OFF);
		vcpu_set_request(vcpu, REQ_CLOCK_UPDATE);
		break;
	case HV_X64_MSR_CRASH_CTL:
		/* The client says what the guest may ask for; the guest asks */
		if (from_client) {
			value &= CRASH_NOTIFY;
			break;
		}
		if (value & CRASH_NOTIFY)
			hyperv_ask_exit(vcpu, HV_EXIT_CRASH, index);
		return X86_CONTINUE;
	case HV_X64_MSR_TSC_EMULATION_STATUS:
		if (value && !from_client)
			return X86_FAULT;
		break;
	case HV_X64_MSR_SYNDBG_CONTROL:
	case HV_X64_MSR_SYNDBG_PENDING_BUFFER:
		if (!from_client)
			hyperv_ask_exit(vcpu, HV_EXIT_SYNDBG, index);
		break;
	}
	__atomic_store_n(state, value, __ATOMIC_RELAXED);
	if (frozen && !page_frozen(hv)) {
		page_outdated(hv);
		vcpu_set_request(vcpu, REQ_CLOCK_UPDATE);
	}
	return X86_CONTINUE;
}

static enum x86_result set_vp_assist(struct vcpu *vcpu, u64 value, bool from_client)
{
	const u32 no_assist = 0; /* every EOI is wanted: TLFS 10.3.5 */

	if (!from_client && (value & PAGE_ENABLE) &&
	    vm_write_guest(vcpu->vm, vcpu, vcpu_as_id(vcpu), value & PAGE_GPA, &no_assist, sizeof(no_assist)))
		return X86_FAULT;
	vcpu->hyperv->vp_assist = value;
	return X86_CONTINUE;
}

enum x86_result hyperv_set_msr(struct vcpu *vcpu, u32 index, u64 value, bool from_client)
{
	struct hv_vcpu *hv = vcpu->hyperv;
	u64 *state = partition_msr(vcpu->vm->hyperv, index);
	enum x86_result r;

	if (!from_client && !guest_may(hv, index))
		return X86_FAULT;
	if (state) {
		host_mutex_lock(&vcpu->vm->hyperv->lock);
		r = set_partition_msr(vcpu, index, state, value, from_client);
		host_mutex_unlock(&vcpu->vm->hyperv->lock);
		return r;
	}
	switch (index) {
	case HV_X64_MSR_VP_INDEX:
		if (!from_client || value >= VM_MAX_VCPUS)
			return X86_FAULT;
		__atomic_store_n(&hv->vp_index, value, __ATOMIC_RELAXED);
		return X86_CONTINUE;
	case HV_X64_MSR_RESET:
		if (!from_client && (value & RESET_NOW))
			hyperv_ask_exit(vcpu, HV_EXIT_RESET, index);
		return X86_CONTINUE;
	case HV_X64_MSR_VP_RUNTIME:
		if (!from_client)
			return X86_FAULT;
		hv->runtime_offset = value - runtime(vcpu);
		return X86_CONTINUE;
	case HV_X64_MSR_TIME_REF_COUNT:
	case HV_X64_MSR_TSC_FREQUENCY:
	case HV_X64_MSR_APIC_FREQUENCY:
		/* The client may write back what it saved; kvmclock and the TSC are what it restores */
		return from_client ? X86_CONTINUE : X86_FAULT;
	case HV_X64_MSR_EOI: return lapic_msr_write(vcpu, APIC_EOI, value);
	case HV_X64_MSR_ICR: return lapic_msr_write(vcpu, APIC_ICR, value);
	case HV_X64_MSR_TPR: return lapic_msr_write(vcpu, APIC_TPR, value);
	case HV_X64_MSR_VP_ASSIST_PAGE: return set_vp_assist(vcpu, value, from_client);
	case HV_X64_MSR_SCONTROL ... HV_X64_MSR_STIMER3_COUNT: return synic_set_msr(vcpu, index, value, from_client);
	default: return X86_FAULT;
	}
}
