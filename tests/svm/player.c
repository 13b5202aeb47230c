/* The processor that player.h tells of. */
#include "tests/svm/player.h"

#include "hosts/user/file.h"
#include "tests/null_engine.h"

struct svm_caps svm_caps;

int vm_fd, cpu_fd[PLAYER_CPUS];
struct vm *vm;
struct vcpu *cpu[PLAYER_CPUS];
unsigned nr;

static struct engine_ops player;

struct random random_begin(u64 seed)
{
	return (struct random){ seed * 0x9e3779b97f4a7c15ULL | 1 };
}

u64 random_next(struct random *r)
{
	r->state ^= r->state << 13;
	r->state ^= r->state >> 7;
	r->state ^= r->state << 17;
	return r->state * 0x2545f4914f6cdd1dULL;
}

/* ---- the host's CPUs -------------------------------------------------------------------------------------------------- */

__thread unsigned this_cpu = 99;
unsigned doorbells[PLAYER_CPUS], other_msrs;

unsigned host_cpu(void)
{
	return this_cpu;
}
void host_preempt_off(void)
{
}
void host_preempt_on(void)
{
}

static void ring(u64 host_id)
{
	for (unsigned n = 0; n < PLAYER_CPUS; n++)
		if (HOST_ID(n) == host_id)
			__atomic_fetch_add(&doorbells[n], 1, __ATOMIC_SEQ_CST);
}

int host_wrmsr(u32 msr, u64 value)
{
	if (msr == 0xc001011b)
		ring(value);
	else
		other_msrs++;
	return 0;
}

/* ---- nested tables: one page of them matters ----------------------------------------------------------------------------- */

u64 mapped_gfn, mapped_phys;
bool mapped_wrongly;

void __wrap_mmu_own_page(struct mmu *mmu, u64 gfn, u64 phys);
void __wrap_mmu_own_page(struct mmu *mmu, u64 gfn, u64 phys)
{
	for (unsigned n = 0; phys && n < nr; n++)
		mapped_wrongly |= __atomic_load_n(&cpu[n]->place, __ATOMIC_SEQ_CST) == VCPU_IN_GUEST &&
				  !(to_svm(cpu[n])->vmcb->vintr & VINTR_AVIC);
	/* All leave guest code for a page that goes, if some vCPU has used it: here none has */
	__atomic_store_n(&mapped_gfn, gfn, __ATOMIC_SEQ_CST);
	__atomic_store_n(&mapped_phys, phys, __ATOMIC_SEQ_CST);
}

/* ---- machines ------------------------------------------------------------------------------------------------------------ */

struct svm_vcpu *svm(unsigned n)
{
	return to_svm(cpu[n]);
}

struct svm_vm *svm_vm(void)
{
	return to_svm_vm(vm);
}

static int player_vm_init(struct vm *m)
{
	vm = m;
	return svm_avic_vm_init(to_svm_vm(m));
}

static void player_vm_destroy(struct vm *m)
{
	svm_avic_vm_destroy(to_svm_vm(m));
}

static int player_vcpu_init(struct vcpu *vcpu)
{
	struct svm_vcpu *s = to_svm(vcpu);

	cpu[nr] = vcpu;
	s->vmcb = host_page_alloc();
	s->msrpm = host_pages_alloc(SVM_MSRPM_PAGES);
	if (!s->vmcb || !s->msrpm)
		return -ENOMEM;
	svm_avic_vcpu_init(s);
	svm_msrpm_update(s);
	s->vmcb->vintr = VINTR_MASKING;
	return 0;
}

static void player_vcpu_destroy(struct vcpu *vcpu)
{
	host_pages_free(to_svm(vcpu)->msrpm, SVM_MSRPM_PAGES);
	host_page_free(to_svm(vcpu)->vmcb);
}

static void player_inject(struct vcpu *vcpu, const struct x86_event *ev)
{
	to_svm(vcpu)->event = *ev;
	to_svm(vcpu)->inject = true;
}

static void player_window(struct vcpu *vcpu, bool nmi)
{
	to_svm(vcpu)->window_irq |= !nmi;
}

bool kicks_come_at_once = true;

/* An interrupt of the host's: guest code is left. */
static void player_kick(struct vcpu *vcpu)
{
	if (kicks_come_at_once)
		__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
}

void reg_write(unsigned n, unsigned reg, u32 value)
{
	int idx = host_srcu_read_lock(&vm->srcu);

	io_write(cpu[n], IO_MMIO, BASE + reg, 4, &value);
	host_srcu_read_unlock(&vm->srcu, idx);
}

void ioapic_entry(unsigned pin, u64 value)
{
	int idx = host_srcu_read_lock(&vm->srcu);
	const u32 words[4] = { 0x11 + 2 * pin, value >> 32, 0x10 + 2 * pin, value };

	for (unsigned i = 0; i < 4; i++)
		io_write(cpu[0], IO_MMIO, 0xfec00000 + (i & 1) * 0x10, 4, &words[i]);
	host_srcu_read_unlock(&vm->srcu, idx);
}

void line(u32 gsi, int level)
{
	int idx = host_srcu_read_lock(&vm->srcu);

	irq_set_gsi(vm, 0, gsi, level);
	host_srcu_read_unlock(&vm->srcu, idx);
}

/* vCPUs with these IDs; their APICs as an operating system leaves them, the PIC's pin masked, flat logical IDs 1, 2, 4 ... */
bool machine(unsigned count, const u32 *ids, bool x2avic)
{
	svm_caps = (struct svm_caps){ .npt = true, .avic = true, .avic_ipis = true, .x2avic = x2avic };
	nr = 0;
	mapped_gfn = mapped_phys = 0;
	mapped_wrongly = false;
	memset(doorbells, 0, sizeof(doorbells));
	vm_fd = core_system_ioctl(KVM_CREATE_VM, 0);
	if (vm_fd < 0 || host_file_ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0))
		return false;
	for (unsigned n = 0; n < count; n++) {
		cpu_fd[n] = host_file_ioctl(vm_fd, KVM_CREATE_VCPU, ids ? ids[n] : n);
		if (cpu_fd[n] < 0)
			return false;
		nr = n + 1;
		cpu[n]->place = VCPU_IN_CORE;
		cpu[n]->mp_state = KVM_MP_STATE_RUNNABLE;
		svm_avic_load(svm(n), n, HOST_ID(n));
		reg_write(n, APIC_SVR, 0x1ff);
		reg_write(n, APIC_LDR, 1U << (24 + n));
		reg_write(n, APIC_LVT_LINT0, APIC_LVT_MASKED);
	}
	return true;
}

bool bare_machine(bool split)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	svm_caps = (struct svm_caps){ .npt = true, .avic = true, .avic_ipis = true };
	nr = 0;
	mapped_phys = 0;
	vm_fd = core_system_ioctl(KVM_CREATE_VM, 0);
	if (vm_fd < 0 || (split && host_file_ioctl(vm_fd, KVM_ENABLE_CAP, (u64)(uintptr_t)&cap)))
		return false;
	cpu_fd[0] = host_file_ioctl(vm_fd, KVM_CREATE_VCPU, 0);
	if (cpu_fd[0] < 0)
		return false;
	nr = 1;
	svm_avic_load(svm(0), 0, HOST_ID(0));
	return true;
}

void machine_end(void)
{
	for (unsigned n = 0; n < nr; n++)
		host_file_close(cpu_fd[n]);
	host_file_close(vm_fd);
}

/* ---- the processor ---------------------------------------------------------------------------------------------------------- */

/* As core/x86/run.c goes to guest code. Whether with AVIC; then what the processor needs is in the VMCB. */
bool enter(unsigned n)
{
	struct svm_vcpu *s = svm(n);

	for (unsigned tries = 0; tries < 6; tries++) {
		__atomic_store_n(&cpu[n]->requests, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&cpu[n]->place, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
		s->inject = s->window_irq = false;
		vcpu_inject_events(cpu[n]);
		if (!s->avic_switch) {
			s->vmcb->clean = VMCB_CLEAN_ALL;
			svm_tpr_load(s);
			svm_avic_entry(s);
			return s->vmcb->vintr & VINTR_AVIC;
		}
		svm_avic_switch(s);
	}
	return false;
}

void leave(unsigned n)
{
	__atomic_store_n(&cpu[n]->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
}

bool all_enter(void)
{
	bool avic = true;

	/* The first ones may have to come back for the last one's sake */
	for (unsigned pass = 0; pass < 2; pass++) {
		avic = true;
		for (unsigned n = 0; n < nr; n++)
			avic &= enter(n);
	}
	return avic;
}

/* The vCPU whose page this is. NULL: none's, and the processor would write to whatever it is. */
struct vcpu *page_owner(u64 phys)
{
	for (unsigned n = 0; n < nr; n++)
		if (host_page_phys(lapic_page(cpu[n])) == phys)
			return cpu[n];
	return NULL;
}

struct lapic *page_of(unsigned n)
{
	struct vcpu *owner = page_owner(svm(n)->vmcb->avic_page);

	return owner ? owner->lapic : NULL;
}

/* 15.29.6: what the guest takes now, -1: nothing. */
int take(unsigned n)
{
	struct lapic *l = page_of(n);
	int vector;

	if (!(svm(n)->vmcb->vintr & VINTR_AVIC) || !l)
		return -1;
	vector = lapic_highest(l, APIC_IRR);
	if (vector < 0 || ((unsigned)vector & 0xf0) <= (lapic_ppr(l) & 0xf0))
		return -1;
	lapic_clear_request(l, vector);
	lapic_set_vector(l, APIC_ISR, vector);
	return vector;
}

unsigned wild;

/* An entry of the physical table as the processor reads it; 0: not valid, or beyond the highest index. */
static u64 physical(unsigned n, u32 id)
{
	u64 field = svm(n)->vmcb->avic_physical;
	const u64 *table = (const u64 *)(uintptr_t)(field & AVIC_PHYSICAL_PAGE);
	u64 entry;

	if (table != svm_vm()->avic_physical || (field & 0xfff) >= 512)
		__atomic_fetch_add(&wild, 1, __ATOMIC_SEQ_CST);
	if (id > (field & 0xfff))
		return 0;
	entry = __atomic_load_n(&table[id], __ATOMIC_SEQ_CST);
	return entry & AVIC_PHYSICAL_VALID ? entry : 0;
}

/* The ID that a logical one leads to, -1: the entry is not valid. */
static int logical(unsigned n, unsigned index)
{
	const u32 *table = (const u32 *)(uintptr_t)svm(n)->vmcb->avic_logical;
	u32 entry;

	if (table != svm_vm()->avic_logical || index >= HOST_PAGE_SIZE / 4)
		__atomic_fetch_add(&wild, 1, __ATOMIC_SEQ_CST);
	entry = __atomic_load_n(&table[index], __ATOMIC_SEQ_CST);
	return entry & AVIC_LOGICAL_VALID ? (int)(entry & AVIC_LOGICAL_ID) : -1;
}

/* The IDs that the ICR names, in @ids; -1: one that is not valid. 15.29.7 */
static int destinations(unsigned n, u32 low, u32 high, u32 ids[512])
{
	bool x2 = svm(n)->vmcb->vintr & VINTR_X2AVIC;
	u32 dest = x2 ? high : high >> 24, all = x2 ? 0xffffffff : 0xff, highest = svm(n)->vmcb->avic_physical & 0xfff;
	unsigned shorthand = (low >> 18) & 3, count = 0;

	if (shorthand == 1) {
		ids[count++] = cpu[n]->id;
	} else if (shorthand || dest == all) {
		for (u32 id = 0; id <= highest; id++)
			if (physical(n, id) && !(shorthand == 3 && id == cpu[n]->id))
				ids[count++] = id;
	} else if (!(low & BIT64(11))) {
		ids[count++] = dest;
	} else {
		bool flat = !x2 && lapic_reg(page_of(n), APIC_DFR) >> 28;
		u32 bits = flat ? dest : x2 ? dest & 0xffff : dest & 0xf;

		for (unsigned bit = 0; bit < 16; bit++) {
			int id;

			if (!(bits & (1U << bit)))
				continue;
			id = x2 ? (int)((dest >> 16) * 16 + bit) : logical(n, flat ? bit : (dest >> 4) * 4 + bit);
			if (id < 0)
				return -1;
			ids[count++] = id;
		}
	}
	return count;
}

u64 exit_is(unsigned n, u64 code, u64 info1, u64 info2)
{
	struct vmcb *b = svm(n)->vmcb;

	b->exit_code = code;
	b->exit_info_1 = info1;
	b->exit_info_2 = info2;
	return code;
}

__thread unsigned sent_to;

/* The ICR is written. 0: done without an exit. */
static u64 send(unsigned n)
{
	struct lapic *l = page_of(n);
	u32 low = lapic_reg(l, APIC_ICR), high = lapic_reg(l, APIC_ICR2), ids[512];
	u64 reason = 0, icr = (u64)high << 32 | low;
	bool incomplete = false;
	int count;

	sent_to = 0;
	if ((low & 0x700) || (low & BIT64(15)))
		return exit_is(n, SVM_EXIT_AVIC_INCOMPLETE_IPI, icr, (u64)AVIC_IPI_TYPE << 32);
	if ((low & 0xff) < 16)
		return exit_is(n, SVM_EXIT_AVIC_INCOMPLETE_IPI, icr, (u64)AVIC_IPI_VECTOR << 32);
	count = destinations(n, low, high, ids);
	for (int i = 0; i < count; i++)
		if (!physical(n, ids[i]))
			count = -1;
	if (count < 0)
		return exit_is(n, SVM_EXIT_AVIC_INCOMPLETE_IPI, icr, (u64)AVIC_IPI_TARGET << 32);
	for (int i = 0; i < count; i++) {
		u64 entry = physical(n, ids[i]);
		struct vcpu *owner = page_owner(entry & AVIC_PHYSICAL_PAGE);

		if (!owner || owner->id != ids[i]) {
			__atomic_fetch_add(&wild, 1, __ATOMIC_SEQ_CST);
			continue;
		}
		sent_to |= 1U << owner->idx;
		lapic_set_requests(owner->lapic, (low & 0xff) / 32, 1U << (low & 31));
		entry = __atomic_load_n(&svm_vm()->avic_physical[ids[i]], __ATOMIC_SEQ_CST);
		if (!(entry & AVIC_PHYSICAL_RUNNING)) {
			incomplete = true;
			reason = (u64)AVIC_IPI_NOT_RUNNING << 32 | ids[i];
		} else if (owner != cpu[n]) {
			ring(entry & AVIC_PHYSICAL_HOST_ID);
		}
	}
	return incomplete ? exit_is(n, SVM_EXIT_AVIC_INCOMPLETE_IPI, icr, reason) : 0;
}

/* 15.29.3: what a write of the register is. */
enum access of_write(unsigned offset)
{
	switch (offset) {
	case APIC_TPR:
	case APIC_EOI:
	case APIC_ICR: return SERVED;
	case APIC_ICR2: return ALLOWED;
	case APIC_ID: case APIC_RRD: case APIC_LDR: case APIC_DFR: case APIC_SVR: case APIC_ESR: case APIC_LVT_TIMER: case APIC_LVT_THERMAL:
	case APIC_LVT_PERF: case APIC_LVT_LINT0: case APIC_LVT_LINT1: case APIC_LVT_ERROR: case APIC_TMICT: case APIC_TDCR: return TRAPS;
	default: return FAULTS;
	}
}

bool eoi_clears;

/* The guest writes the register; 0: without an exit. */
u64 store(unsigned n, unsigned offset, u32 value)
{
	struct lapic *l = page_of(n);
	u64 info = AVIC_NOACCEL_WRITE | offset;
	int vector;

	switch (of_write(offset)) {
	case FAULTS: return exit_is(n, SVM_EXIT_AVIC_NOACCEL, info, 0);
	case TRAPS: lapic_set_reg(l, offset, value); return exit_is(n, SVM_EXIT_AVIC_NOACCEL, info, 0);
	case ALLOWED: lapic_set_reg(l, offset, value); return 0;
	case SERVED: break;
	}
	if (offset != APIC_EOI)
		lapic_set_reg(l, offset, value);
	if (offset == APIC_ICR)
		return send(n);
	if (offset == APIC_TPR)
		return 0;
	vector = lapic_highest(l, APIC_ISR);
	if (vector < 0)
		return 0;
	if (!lapic_test_vector(l, APIC_TMR, vector) || eoi_clears)
		lapic_clear_vector(l, APIC_ISR, vector);
	return lapic_test_vector(l, APIC_TMR, vector) ? exit_is(n, SVM_EXIT_AVIC_NOACCEL, info, vector) : 0;
}

/* What the engine makes of the exit; true: the instruction is to be emulated. */
bool serve(unsigned n)
{
	struct engine_exit exit = { .reason = EXIT_NONE };
	int idx = host_srcu_read_lock(&vm->srcu);

	leave(n);
	if (svm(n)->vmcb->exit_code == SVM_EXIT_AVIC_INCOMPLETE_IPI)
		svm_avic_incomplete_ipi(svm(n));
	else
		svm_avic_noaccel(svm(n), &exit);
	host_srcu_read_unlock(&vm->srcu, idx);
	return exit.reason == EXIT_EMULATE;
}

void guest_writes(unsigned n, unsigned offset, u32 value)
{
	if (store(n, offset, value) && serve(n))
		reg_write(n, offset, value);
}

u64 ipi(unsigned n, u32 low, u8 dest)
{
	store(n, APIC_ICR2, (u32)dest << 24);
	return store(n, APIC_ICR, low);
}

bool has(unsigned n, u8 vector)
{
	return lapic_test_vector(cpu[n]->lapic, APIC_IRR, vector);
}

void forget(unsigned n)
{
	for (unsigned word = 0; word < 8; word++) {
		lapic_set_reg(cpu[n]->lapic, APIC_IRR + word * 16, 0);
		lapic_set_reg(cpu[n]->lapic, APIC_ISR + word * 16, 0);
	}
	__atomic_store_n(&cpu[n]->requests, 0, __ATOMIC_SEQ_CST);
	memset(doorbells, 0, sizeof(doorbells));
}

bool incomplete(u64 code, unsigned n, enum avic_ipi_reason reason)
{
	return code == SVM_EXIT_AVIC_INCOMPLETE_IPI && AVIC_IPI_REASON(svm(n)->vmcb->exit_info_2) == reason;
}

bool player_begin(void)
{
	player = null_engine;
	player.name = "svm";
	player.vm_size = sizeof(struct svm_vm);
	player.vcpu_size = sizeof(struct svm_vcpu);
	player.vm_init = player_vm_init;
	player.vm_destroy = player_vm_destroy;
	player.vcpu_init = player_vcpu_init;
	player.vcpu_destroy = player_vcpu_destroy;
	player.inject = player_inject;
	player.request_window = player_window;
	player.kick = player_kick;
	player.virtual_interrupts = svm_virtual_interrupts;
	player.interrupt_arrived = svm_interrupt_arrived;
	player.lapic_changed = svm_lapic_changed;
	player.vcpu_waits = svm_vcpu_waits;
	return !core_init(&player);
}
