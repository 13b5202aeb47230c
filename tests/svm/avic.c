/*
 * engines/svm/avic.c, step by step in one thread, with player.c as the processor.
 */
#include "tests/svm/player.h"

#include "core/x86/hyperv/hyperv.h"
#include "hosts/user/file.h"

static void begins(void)
{
	struct vmcb *b;

	machine(2, NULL, false);
	reg_write(0, APIC_LVT_LINT0, APIC_DM_EXTINT << 8);
	tap_ok(!enter(0) && !mapped_phys && svm(0)->avic_objects, "not while the PIC's interrupts come through LINT0");
	leave(0);
	reg_write(0, APIC_LVT_LINT0, APIC_LVT_MASKED);
	tap_ok(!enter(1), "nor for the other vCPU, until that one has been asked again");
	tap_ok(enter(0) && mapped_gfn == BASE >> 12 && mapped_phys == host_page_phys(svm_vm()->avic_access) && !mapped_wrongly,
	       "then with, and the page is in the nested tables");
	tap_ok(enter(1), "the other one, too");
	b = svm(0)->vmcb;
	tap_ok(b->avic_bar == BASE && page_of(0) == cpu[0]->lapic && b->avic_physical == (host_page_phys(svm_vm()->avic_physical) | 254) &&
	       b->avic_logical == host_page_phys(svm_vm()->avic_logical), "the VMCB says where the APIC, its page and the tables are");
	tap_ok(!(b->clean & VMCB_CLEAN_AVIC) && !(b->clean & VMCB_CLEAN_TPR), "and that this is new");
	enter(0);
	tap_ok(b->clean == VMCB_CLEAN_ALL, "the next time nothing is");
	tap_ok(svm_vm()->avic_physical[1] == (AVIC_PHYSICAL_VALID | AVIC_PHYSICAL_RUNNING | host_page_phys(lapic_page(cpu[1])) | HOST_ID(1)),
	       "the entry of a vCPU: its page, and the APIC ID of the CPU that it runs on");
	b->vintr |= VINTR_IRQ;
	b->vintr &= ~VINTR_AVIC;
	enter(0);
	tap_ok(!(b->vintr & VINTR_IRQ), "no virtual interrupt of the VMCB's besides");
	machine_end();
}

static void devices(void)
{
	machine(2, NULL, false);
	all_enter();
	forget(1);
	tap_ok(irq_send_msi(vm, 0xfee01000, 0x51) == 1 && has(1, 0x51) && doorbells[1] == 1 && !cpu[1]->requests,
	       "to a vCPU that runs: the IRR and a doorbell, no kick");
	tap_ok(take(1) == 0x51 && take(1) == -1, "it is taken once");
	tap_ok(!store(1, APIC_EOI, 0) && lapic_highest(cpu[1]->lapic, APIC_ISR) < 0, "and ended, without an exit");
	forget(1);
	irq_send_msi(vm, 0xfee01000, 0x52);
	tap_ok(irq_send_msi(vm, 0xfee01000, 0x52) == 0 && doorbells[1] == 1, "one that is requested already is not told of again");
	this_cpu = 1;
	forget(1);
	irq_send_msi(vm, 0xfee01000, 0x53);
	this_cpu = 99;
	tap_ok(has(1, 0x53) && !doorbells[1], "from the CPU that it runs on: it looks as it enters, no doorbell");
	forget(1);
	leave(1);
	irq_send_msi(vm, 0xfee01000, 0x54);
	tap_ok(has(1, 0x54) && !doorbells[1] && !cpu[1]->requests, "to one that is out of guest code: the IRR alone");
	tap_ok(enter(1) && !svm(1)->inject && take(1) == 0x54, "which it enters with, and nothing is injected");
	forget(1);
	leave(1);
	svm_vcpu_waits(cpu[1], true);
	__atomic_store_n(&cpu[1]->place, VCPU_SLEEPING, __ATOMIC_SEQ_CST);
	cpu[1]->mp_state = KVM_MP_STATE_HALTED;
	cpu[1]->x86.rflags |= RFLAGS_IF;
	tap_ok(!(svm_vm()->avic_physical[1] & AVIC_PHYSICAL_RUNNING), "one that halts does not run");
	irq_send_msi(vm, 0xfee01000, 0x55);
	tap_ok(has(1, 0x55) && !doorbells[1] && vcpu_test_request(cpu[1], REQ_EVENT) && x86_vcpu_runnable(cpu[1]), "to one that sleeps: it is woken");
	svm_avic_put(svm(1));
	svm_avic_load(svm(1), 1, HOST_ID(1));
	tap_ok(!(svm_vm()->avic_physical[1] & AVIC_PHYSICAL_RUNNING), "its thread may come and go meanwhile");
	svm_vcpu_waits(cpu[1], false);
	cpu[1]->mp_state = KVM_MP_STATE_RUNNABLE;
	tap_ok((svm_vm()->avic_physical[1] & (AVIC_PHYSICAL_RUNNING | AVIC_PHYSICAL_HOST_ID)) == (AVIC_PHYSICAL_RUNNING | HOST_ID(1)), "then it runs again");
	svm_avic_put(svm(1));
	tap_ok(!(svm_vm()->avic_physical[1] & AVIC_PHYSICAL_RUNNING), "not while the host has its CPU for others");
	svm_avic_load(svm(1), 1, 0x100);
	tap_ok(!(svm_vm()->avic_physical[1] & AVIC_PHYSICAL_RUNNING), "nor on a CPU whose ID has no room in the table");
	enter(1);
	forget(1);
	irq_send_msi(vm, 0xfee01000, 0x56);
	tap_ok(has(1, 0x56) && !doorbells[1] && vcpu_test_request(cpu[1], REQ_EVENT), "which is kicked");
	machine_end();
}

static void level_triggered(bool clears)
{
	eoi_clears = clears;
	machine(2, NULL, false);
	all_enter();
	ioapic_entry(20, BIT64(15) | 0x61 | 1ULL << 56);
	all_enter();
	line(20, 1);
	tap_ok(take(1) == 0x61 && lapic_test_vector(cpu[1]->lapic, APIC_TMR, 0x61), "a level-triggered one has its bit in the TMR");
	lapic_set_vector(cpu[1]->lapic, APIC_ISR, 0x41);
	line(20, 0);
	tap_ok(store(1, APIC_EOI, 0) == SVM_EXIT_AVIC_NOACCEL && !serve(1) && !vm->ioapic->s.redirtbl[20].fields.remote_irr,
	       "its EOI exits and reaches the I/O APIC");
	tap_ok(lapic_highest(cpu[1]->lapic, APIC_ISR) == 0x41, "only it has left the ISR, if the processor %s", clears ? "clears that" : "does not");
	enter(1);
	svm(1)->vmcb->exit_info_2 = 0;
	lapic_clear_vector(cpu[1]->lapic, APIC_ISR, 0x41);
	lapic_eoi_left(cpu[1], 0);
	tap_ok(lapic_highest(cpu[1]->lapic, APIC_ISR) < 0, "an EOI with nothing in service is nothing");
	/* The same vector as an edge */
	irq_send_msi(vm, 0xfee01000, 0x61);
	enter(1);
	tap_ok(take(1) == 0x61 && !lapic_test_vector(cpu[1]->lapic, APIC_TMR, 0x61) && !store(1, APIC_EOI, 0), "an edge of the same vector ends without");
	machine_end();
	eoi_clears = false;
}

static void ipis(void)
{
	machine(3, NULL, false);
	all_enter();
	tap_ok(!ipi(0, 0x71, 1) && has(1, 0x71) && !has(2, 0x71) && doorbells[1] == 1, "an IPI to one that runs is sent without an exit");
	tap_ok(!ipi(0, 0x72 | 1 << 18, 0) && take(0) == 0x72, "one to itself");
	forget(0);
	forget(1);
	tap_ok(!ipi(0, 0x73 | 3 << 18, 0) && !has(0, 0x73) && has(1, 0x73) && has(2, 0x73), "to all but itself");

	/* Not running */
	forget(1);
	leave(1);
	svm_vcpu_waits(cpu[1], true);
	__atomic_store_n(&cpu[1]->place, VCPU_SLEEPING, __ATOMIC_SEQ_CST);
	forget(2);
	tap_ok(incomplete(ipi(0, 0x74 | BIT64(11), 6), 0, AVIC_IPI_NOT_RUNNING) && has(1, 0x74) && take(2) == 0x74,
	       "of two targets one sleeps: both have it, and the IPI exits");
	lapic_set_reg(cpu[0]->lapic, APIC_ICR, lapic_reg(cpu[0]->lapic, APIC_ICR) | BIT64(12));
	tap_ok(!serve(0) && vcpu_test_request(cpu[1], REQ_EVENT) && !has(2, 0x74), "the one that sleeps is woken, the other does not get it twice");
	tap_ok(!(lapic_reg(cpu[0]->lapic, APIC_ICR) & BIT64(12)), "and the ICR is not busy any more");
	enter(0);
	svm_vcpu_waits(cpu[1], false);
	leave(1);
	svm_avic_put(svm(1));
	forget(1);
	tap_ok(incomplete(ipi(0, 0x75, 1), 0, AVIC_IPI_NOT_RUNNING) && !serve(0) && has(1, 0x75) && !cpu[1]->requests,
	       "to one that the host has set aside: it finds it when it is back, nobody is kicked");
	svm_avic_load(svm(1), 1, HOST_ID(1));
	all_enter();

	/* Types that are core's */
	forget(1);
	tap_ok(incomplete(ipi(0, 0x76 | APIC_DM_LOWEST << 8 | BIT64(11), 2), 0, AVIC_IPI_TYPE) && !serve(0) && has(1, 0x76), "lowest priority is core's to send");
	enter(0);
	forget(1);
	tap_ok(incomplete(ipi(0, APIC_DM_NMI << 8, 1), 0, AVIC_IPI_TYPE) && !serve(0) && vcpu_test_request(cpu[1], REQ_NMI), "an NMI");
	enter(0);
	tap_ok(incomplete(ipi(0, APIC_DM_INIT << 8 | BIT64(14), 2), 0, AVIC_IPI_TYPE) && !serve(0) && lapic_has_init_or_sipi(cpu[2]), "INIT");
	enter(0);
	__atomic_store_n(&cpu[2]->lapic->init_sipi, 0, __ATOMIC_SEQ_CST);
	tap_ok(incomplete(ipi(0, 0x77 | BIT64(15) | BIT64(14), 1), 0, AVIC_IPI_TYPE) && !serve(0) && has(1, 0x77) &&
	       lapic_test_vector(cpu[1]->lapic, APIC_TMR, 0x77), "a level-triggered one");
	enter(0);

	/* Targets that are none */
	forget(1);
	tap_ok(incomplete(ipi(0, 0x78, 9), 0, AVIC_IPI_TARGET) && !serve(0) && !has(0, 0x78) && !has(1, 0x78) && !has(2, 0x78), "to an ID that nobody has: nobody gets it");
	enter(0);
	tap_ok(incomplete(ipi(0, 0x79 | BIT64(11), 0x82), 0, AVIC_IPI_TARGET) && !serve(0) && has(1, 0x79), "to two logical IDs, one of them nobody's: the other gets it");
	enter(0);
	forget(1);
	svm(0)->vmcb->exit_info_1 = (u64)1 << 56 | 0x7a;
	svm(0)->vmcb->exit_info_2 = (u64)AVIC_IPI_BACKING_PAGE << 32 | 1;
	exit_is(0, SVM_EXIT_AVIC_INCOMPLETE_IPI, (u64)1 << 56 | 0x7a, (u64)AVIC_IPI_BACKING_PAGE << 32 | 1);
	tap_ok(!serve(0) && has(1, 0x7a), "a page that the processor does not take: core sends");
	enter(0);
	tap_ok(incomplete(ipi(0, 0x0f, 1), 0, AVIC_IPI_VECTOR) && !serve(0) && !has(1, 0x0f) && (cpu[0]->lapic->esr_latch & BIT64(5)), "a vector below 16 is the sender's error");
	enter(0);
	forget(1);
	exit_is(0, SVM_EXIT_AVIC_INCOMPLETE_IPI, (u64)1 << 56 | 0x7b, 0xffffffffULL << 32 | 0xffffffff);
	tap_ok(!serve(0) && has(1, 0x7b), "for a reason that the manual does not know yet core sends");
	enter(0);

	/* Disabled by software: no target, and what comes is refused */
	guest_writes(2, APIC_SVR, 0xff);
	tap_ok(enter(2) && !(svm_vm()->avic_physical[2] & AVIC_PHYSICAL_VALID), "an APIC disabled by software is nobody's target, and has AVIC for its registers");
	forget(2);
	tap_ok(incomplete(ipi(0, 0x7c, 2), 0, AVIC_IPI_TARGET) && !serve(0) && !has(2, 0x7c), "an IPI to it is refused");
	machine_end();
}

/* On a processor that may overlook that a vCPU does not run any more. */
static void ipis_by_exit(void)
{
	machine(2, NULL, false);
	svm_caps.avic_ipis = false;
	for (unsigned n = 0; n < 2; n++) {
		svm_avic_put(svm(n));
		svm_avic_load(svm(n), n, HOST_ID(n));
	}
	all_enter();
	forget(1);
	tap_ok(incomplete(ipi(0, 0x7d, 1), 0, AVIC_IPI_NOT_RUNNING) && !doorbells[1], "where IsRunning cannot be trusted each IPI exits");
	tap_ok(!serve(0) && doorbells[1] == 1 && !cpu[1]->requests && take(1) == 0x7d && take(1) == -1, "and is told by a doorbell, once");
	irq_send_msi(vm, 0xfee01000, 0x7e);
	tap_ok(doorbells[1] == 2 && !cpu[1]->requests, "as are devices' interrupts");
	machine_end();
}

static void registers(void)
{
	static const u32 none = 0;
	unsigned wrong = 0, traps = 0, faults = 0;
	struct lapic *l;

	machine(1, &none, false);
	enter(0);
	l = cpu[0]->lapic;
	for (unsigned offset = 0; offset < 0x1000; offset += 0x10) {
		bool emulate;

		if (of_write(offset) != TRAPS && of_write(offset) != FAULTS)
			continue;
		/* Registers that change nothing when they are written with what they have */
		store(0, offset, offset < 0x400 ? lapic_reg(l, offset) : 0);
		emulate = serve(0);
		wrong += emulate != (of_write(offset) == FAULTS);
		traps += !emulate;
		faults += emulate;
		enter(0);
	}
	tap_ok(!wrong && traps == 14 && faults == 256 - 18, "of the page's 256 writes 14 are traps (%u), done already, and %u are emulated", traps, faults);
	exit_is(0, SVM_EXIT_AVIC_NOACCEL, APIC_TMCCT, 0);
	tap_ok(serve(0), "a read is emulated");
	exit_is(0, SVM_EXIT_AVIC_NOACCEL, APIC_LDR, 0);
	tap_ok(serve(0), "of whatever register");
	exit_is(0, SVM_EXIT_AVIC_NOACCEL, AVIC_NOACCEL_WRITE | 0xfffffffeULL << 33 | 0xfffff00f | APIC_TMICT, 0);
	tap_ok(!serve(0), "reserved bits of the exit information are nothing");
	enter(0);
	tap_ok(!store(0, APIC_TPR, 0x55) && lapic_get_cr8(cpu[0]) == 5, "the TPR is the processor's to write");
	enter(0);
	tap_ok(lapic_reg(l, APIC_PPR) == 0x55, "the PPR is as it has to be when guest code begins");
	guest_writes(0, APIC_TPR, 0);
	guest_writes(0, APIC_LVT_TIMER, 0xffffffff);
	tap_ok((lapic_reg(l, APIC_LVT_TIMER) & ~0x700ffU) == 0, "LVT timer: what no entry has does not stay (%x)", lapic_reg(l, APIC_LVT_TIMER));
	enter(0);
	guest_writes(0, APIC_LVT_TIMER, 0x81 | APIC_TIMER_PERIODIC << 17);
	enter(0);
	guest_writes(0, APIC_TDCR, 0xb);
	enter(0);
	guest_writes(0, APIC_TMICT, 0x10000000);
	tap_ok(lapic_timer_current(l) > 0x8000000, "TMICT starts the timer");
	enter(0);
	guest_writes(0, APIC_TMICT, 0);
	enter(0);
	guest_writes(0, APIC_RRD, 0x1234);
	tap_ok(!lapic_reg(l, APIC_RRD) && (l->esr_latch & BIT64(7)), "remote read: read-only, an error");
	enter(0);
	guest_writes(0, APIC_ESR, 0xff);
	tap_ok(lapic_reg(l, APIC_ESR) == BIT64(7), "which a write of the ESR makes readable");
	enter(0);
	guest_writes(0, APIC_IRR, 0xffffffff);
	tap_ok(!lapic_reg(l, APIC_IRR), "the IRR is not the guest's to write");
	machine_end();
}

static bool cr8_exits(unsigned n)
{
	return svm(n)->vmcb->intercept[0] & 1U << (SVM_EXIT_CR_WRITE + 8);
}

static void priorities(void)
{
	struct vmcb *b;

	machine(1, NULL, false);
	b = svm(0)->vmcb;
	reg_write(0, APIC_TPR, 0x47);
	reg_write(0, APIC_LVT_LINT0, APIC_DM_EXTINT << 8);
	tap_ok(!enter(0) && (b->vintr & VINTR_TPR) == 4 && cr8_exits(0), "without AVIC a guest that lowers CR8 is noticed");
	b->vintr = (b->vintr & ~VINTR_TPR) | 9;
	leave(0);
	svm_tpr_sync(svm(0), 4);
	tap_ok(lapic_reg(cpu[0]->lapic, APIC_TPR) == 0x90, "and what it makes of it is the LAPIC's");
	reg_write(0, APIC_TPR, 0x47);
	reg_write(0, APIC_LVT_LINT0, APIC_LVT_MASKED);
	tap_ok(enter(0) && (b->vintr & VINTR_TPR) == 4 && !cr8_exits(0), "with AVIC CR8 does not exit");
	/* The processor has both: the register, and what CR8 shows of it */
	store(0, APIC_TPR, 0x95);
	b->vintr = (b->vintr & ~VINTR_TPR) | 9;
	leave(0);
	svm_tpr_sync(svm(0), 4);
	tap_ok(lapic_reg(cpu[0]->lapic, APIC_TPR) == 0x95, "and the register keeps its low half");
	reg_write(0, APIC_TPR, 0x20);
	tap_ok(enter(0) && (b->vintr & VINTR_TPR) == 2 && !(b->clean & VMCB_CLEAN_TPR), "what the client or the emulator writes there CR8 has too");
	machine_end();
}

static void set_logical(unsigned n, u32 dfr, u8 ldr)
{
	enter(n);
	guest_writes(n, APIC_DFR, dfr);
	enter(n);
	guest_writes(n, APIC_LDR, (u32)ldr << 24);
	enter(n);
}

static bool table_is_empty(void)
{
	for (unsigned i = 0; i < 1024; i++)
		if (svm_vm()->avic_logical[i])
			return false;
	return true;
}

static void logical_ids(void)
{
	machine(3, NULL, false);
	all_enter();
	tap_ok(svm_vm()->avic_logical[0] == AVIC_LOGICAL_VALID && svm_vm()->avic_logical[1] == (AVIC_LOGICAL_VALID | 1) && svm_vm()->avic_logical[2] == (AVIC_LOGICAL_VALID | 2) &&
	       !svm_vm()->avic_logical[3], "flat: a bit, an entry");
	tap_ok(!ipi(0, 0x81 | BIT64(11), 6) && sent_to == 6, "an IPI to two");
	set_logical(1, 0xffffffff, 0x80);
	tap_ok(!svm_vm()->avic_logical[1] && svm_vm()->avic_logical[7] == (AVIC_LOGICAL_VALID | 1), "another logical ID, another entry");
	set_logical(1, 0xffffffff, 0);
	tap_ok(!svm_vm()->avic_logical[7] && svm_vm()->avic_logical[0] && svm_vm()->avic_logical[2], "none, no entry");
	set_logical(1, 0xffffffff, 1);
	tap_ok(table_is_empty(), "two with the same: the table cannot have that");
	forget(1);
	forget(0);
	tap_ok(incomplete(ipi(2, 0x82 | BIT64(11), 1), 2, AVIC_IPI_TARGET) && !serve(2) && has(0, 0x82) && has(1, 0x82), "each logical IPI is core's then, and reaches both");
	enter(2);
	set_logical(1, 0xffffffff, 6);
	tap_ok(table_is_empty(), "one with two bits");
	set_logical(1, 0xffffffff, 2);
	tap_ok(svm_vm()->avic_logical[1] == (AVIC_LOGICAL_VALID | 1), "and back");
	set_logical(1, 0x0fffffff, 2);
	tap_ok(table_is_empty(), "one in the cluster model, the others not");
	set_logical(0, 0x0fffffff, 0x11);
	set_logical(2, 0x0fffffff, 0xe8);
	set_logical(1, 0x0fffffff, 0x12);
	tap_ok(svm_vm()->avic_logical[4] == AVIC_LOGICAL_VALID && svm_vm()->avic_logical[5] == (AVIC_LOGICAL_VALID | 1) && svm_vm()->avic_logical[59] == (AVIC_LOGICAL_VALID | 2),
	       "all of them: four entries a cluster");
	all_enter();
	tap_ok(!ipi(2, 0x83 | BIT64(11), 0x13) && sent_to == 3, "an IPI to two of a cluster");
	set_logical(1, 0x0fffffff, 0xf1);
	tap_ok(table_is_empty(), "the cluster of all is nobody's own");
	set_logical(1, 0x0fffffff, 0x10);
	tap_ok(svm_vm()->avic_logical[4] == AVIC_LOGICAL_VALID && !svm_vm()->avic_logical[5], "no bit in the cluster, no entry");
	set_logical(1, 0x5fffffff, 0x12);
	tap_ok(table_is_empty(), "a model that is none");
	machine_end();
}

static void on_and_off(void)
{
	struct kvm_pit_config config = { 0 };
	struct kvm_reinject_control control = { 0 };

	machine(3, NULL, false);
	tap_ok(all_enter(), "three vCPUs with AVIC");
	guest_writes(1, APIC_LVT_LINT0, APIC_DM_EXTINT << 8);
	tap_ok(!enter(1) && !mapped_phys && cpu[0]->place != VCPU_IN_GUEST && cpu[2]->place != VCPU_IN_GUEST, "LINT0 is the PIC's: all leave guest code, the page goes");
	tap_ok(!enter(0) && !enter(2), "and come back without");
	forget(2);
	irq_send_msi(vm, 0xfee02000, 0x91);
	tap_ok(!doorbells[2] && vcpu_test_request(cpu[2], REQ_EVENT), "what comes is a kick now");
	cpu[2]->x86.rflags |= RFLAGS_IF;
	tap_ok(!enter(2) && svm(2)->inject && svm(2)->event.vector == 0x91 && lapic_test_vector(cpu[2]->lapic, APIC_ISR, 0x91), "and injected");
	cpu[2]->events.interrupt.injected = false;
	leave(1);
	reg_write(1, APIC_LVT_LINT0, APIC_LVT_MASKED);
	tap_ok(enter(1) && mapped_phys && !mapped_wrongly && all_enter(), "the PIC's pin is masked: AVIC again");
	cpu[0]->guest_debug = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ;
	tap_ok(!enter(0) && !mapped_phys, "not while the client holds interrupts back");
	cpu[0]->guest_debug = 0;
	tap_ok(all_enter(), "afterwards");
	guest_writes(2, APIC_ID, 7 << 24);
	tap_ok(!(svm_vm()->avic_physical[2] & AVIC_PHYSICAL_VALID) && !(svm_vm()->avic_physical[7]) && !enter(2), "not with an ID that is not the vCPU's number");
	forget(2);
	leave(2);
	irq_send_msi(vm, 0xfee07000, 0x92);
	tap_ok(has(2, 0x92), "where it still gets its interrupts");
	reg_write(2, APIC_ID, 2 << 24);
	cpu[2]->events.interrupt.injected = false;
	tap_ok(all_enter(), "its own ID again");
	lapic_set_base(cpu[1], 0xfed00000 | APIC_BASE_ENABLE, false);
	tap_ok(!enter(1) && !mapped_phys && !(svm_vm()->avic_physical[1] & AVIC_PHYSICAL_VALID), "not with an APIC that has been moved");
	lapic_set_base(cpu[1], BASE, false);
	tap_ok(!enter(1), "nor disabled");
	lapic_set_base(cpu[1], BASE | APIC_BASE_ENABLE, false);
	reg_write(1, APIC_SVR, 0x1ff);
	reg_write(1, APIC_LVT_LINT0, APIC_LVT_MASKED);
	tap_ok(all_enter(), "back at its place");
	lapic_set_base(cpu[0], BASE | APIC_BASE_ENABLE | APIC_BASE_EXTD, true);
	tap_ok(!enter(0), "nor in x2APIC mode, which this processor's AVIC does not know");
	/* A wait for INIT or SIPI is no objection */
	cpu[0]->mp_state = KVM_MP_STATE_INIT_RECEIVED;
	leave(0);
	svm_vcpu_waits(cpu[0], true);
	tap_ok(enter(1) == svm_vm()->avic_mixed ? false : true, "a vCPU that waits to be started objects to nothing");
	svm_vcpu_waits(cpu[0], false);
	cpu[0]->mp_state = KVM_MP_STATE_RUNNABLE;
	machine_end();

	machine(2, NULL, false);
	all_enter();
	cpu[1]->hyperv->vectors[2] = BIT64(5);
	tap_ok(!enter(1), "not with vectors of the SynIC's, whose EOIs it hears");
	cpu[1]->hyperv->auto_eoi[2] = BIT64(5);
	tap_ok(!enter(1), "or that end by themselves");
	cpu[1]->hyperv->vectors[2] = cpu[1]->hyperv->auto_eoi[2] = 0;
	tap_ok(all_enter(), "without these it is");
	host_file_ioctl(vm_fd, KVM_CREATE_PIT2, (u64)(uintptr_t)&config);
	tap_ok(all_enter(), "a PIT whose interrupt goes nowhere");
	ioapic_entry(0, 0xa0);
	tap_ok(!enter(0) && !mapped_phys && !enter(1), "one that repeats ticks, and waits for their EOI");
	host_file_ioctl(vm_fd, KVM_REINJECT_CONTROL, (u64)(uintptr_t)&control);
	tap_ok(all_enter(), "that does not repeat any more");
	control.pit_reinject = 1;
	for (unsigned n = 0; n < nr; n++)
		enter(n);
	host_file_ioctl(vm_fd, KVM_REINJECT_CONTROL, (u64)(uintptr_t)&control);
	tap_ok(cpu[0]->place != VCPU_IN_GUEST && cpu[1]->place != VCPU_IN_GUEST && !enter(1) && !enter(0), "does again: the vCPUs hear of it at once");
	ioapic_entry(0, 0xa0 | BIT64(15));
	tap_ok(all_enter(), "the EOI of a level-triggered one is told anyway");
	/* Requested, then disabled by software */
	lapic_set_reg(cpu[1]->lapic, APIC_TPR, 0xff);
	irq_send_msi(vm, 0xfee01000, 0x93);
	guest_writes(1, APIC_SVR, 0xff);
	tap_ok(!enter(1) && has(1, 0x93) && !svm(1)->inject, "what was requested before the APIC was disabled waits: without AVIC");
	tap_ok(!mapped_wrongly && !other_msrs, "the page was never there for one without");
	machine_end();
}

static void split_and_none(void)
{
	tap_ok(bare_machine(false) && !enter(0) && !(svm_vm()->avic_physical[0] & AVIC_PHYSICAL_VALID), "without chips in core there is no AVIC");
	machine_end();
	bare_machine(true);
	reg_write(0, APIC_SVR, 0x1ff);
	reg_write(0, APIC_LVT_LINT0, APIC_LVT_MASKED);
	tap_ok(!enter(0), "nor with the local APICs alone");
	machine_end();
}

static void large_ids(void)
{
	static const u32 ids[] = { 0, 254, 255, 600 }, x2_ids[] = { 0, 300, 511, 512 };
	unsigned filled = 0;

	machine(2, ids, false);
	tap_ok(all_enter() && (svm_vm()->avic_physical[254] & AVIC_PHYSICAL_VALID), "ID 254 has the last entry");
	tap_ok(!ipi(0, 0xb1, 254) && has(1, 0xb1), "and is found");
	machine_end();
	machine(4, ids, false);
	tap_ok(!enter(0) && !enter(1), "not while higher ones have their APICs enabled: no broadcast would reach them");
	reg_write(2, APIC_SVR, 0xff);
	reg_write(3, APIC_SVR, 0xff);
	cpu[2]->mp_state = cpu[3]->mp_state = KVM_MP_STATE_UNINITIALIZED;
	for (unsigned n = 2; n < 4; n++) {
		svm_vcpu_waits(cpu[n], true);
		svm_vcpu_waits(cpu[n], false);
	}
	tap_ok(enter(0) && enter(1), "with them in the machine, not started");
	tap_ok(!enter(2) && !mapped_phys, "one of them runs: without AVIC");
	leave(2);
	tap_ok(!enter(3) && !svm(3)->avic_entry, "ID 600 has no entry at all");
	reg_write(3, APIC_SVR, 0x1ff);
	for (unsigned i = 255; i < 512; i++)
		filled += !!(svm_vm()->avic_physical[i] & AVIC_PHYSICAL_VALID);
	tap_ok(!filled, "nothing beyond 254 is valid");
	machine_end();

	machine(4, x2_ids, true);
	for (unsigned n = 0; n < 4; n++)
		lapic_set_base(cpu[n], (cpu[n]->apic_base & ~APIC_BASE_ADDR) | BASE | APIC_BASE_ENABLE | APIC_BASE_EXTD, true);
	tap_ok(!enter(0), "nor with 512 among them");
	lapic_write_reg(cpu[3]->lapic, APIC_SVR, 0xff);
	cpu[3]->mp_state = KVM_MP_STATE_UNINITIALIZED;
	svm_vcpu_waits(cpu[3], true);
	for (unsigned n = 0; n < 3; n++)
		enter(n);
	tap_ok(enter(0) && enter(1) && enter(2), "x2AVIC goes on to 511");
	tap_ok((svm(1)->vmcb->vintr & VINTR_X2AVIC) && (svm(1)->vmcb->avic_physical & 0xfff) == 511 && !mapped_phys, "with no page in memory");
	lapic_set_reg(cpu[0]->lapic, APIC_ICR2, 300);
	tap_ok(!store(0, APIC_ICR, 0xb2) && has(1, 0xb2), "an IPI to 300");
	lapic_set_reg(cpu[0]->lapic, APIC_ICR2, 18 << 16 | 1 << 12);
	tap_ok(!store(0, APIC_ICR, 0xb3 | BIT64(11)) && has(1, 0xb3), "by its logical ID, which is made of the ID");
	lapic_set_reg(cpu[3]->lapic, APIC_SVR, 0x1ff); /* behind the engine's back, so that there is somebody */
	lapic_set_reg(cpu[0]->lapic, APIC_ICR2, 512);
	tap_ok(incomplete(store(0, APIC_ICR, 0xb4), 0, AVIC_IPI_TARGET) && !serve(0) && has(3, 0xb4), "512 gets its IPIs from core, by all 32 bits");
	machine_end();
}

static bool open_to(unsigned n, u32 msr, bool write)
{
	unsigned bit = (msr & 0x1fff) * 2 + write;

	return !(svm(n)->msrpm[bit / 8] & (1U << (bit % 8)));
}

static void x2apic_mode(void)
{
	machine(2, NULL, true);
	all_enter();
	tap_ok(mapped_phys && !open_to(0, 0x808, true), "x2AVIC in xAPIC mode: the page, no MSRs");
	lapic_set_base(cpu[0], BASE | APIC_BASE_ENABLE | APIC_BASE_EXTD, true);
	tap_ok(!enter(0) && svm_vm()->avic_mixed && !mapped_phys, "one in each mode: logical IDs mean different things, without AVIC");
	lapic_set_base(cpu[1], BASE | APIC_BASE_ENABLE | APIC_BASE_EXTD, true);
	tap_ok(all_enter() && !mapped_phys, "both in x2APIC mode: with, and no page");
	tap_ok(open_to(0, 0x808, false) && open_to(0, 0x808, true) && open_to(0, 0x80b, true) && open_to(0, 0x830, true) && open_to(0, 0x820, false),
	       "the MSRs that the processor serves are open");
	tap_ok(!open_to(0, 0x830, false) && !open_to(0, 0x839, false) && !open_to(0, 0x838, true) && !open_to(0, 0x83f, true) && !open_to(0, 0x832, true) &&
	       !open_to(0, 0x80f, true) && !open_to(0, 0x840, false) && !open_to(0, 0x900, false), "others are not");
	lapic_set_reg(cpu[0]->lapic, APIC_ICR2, 0xffffffff);
	tap_ok(!store(0, APIC_ICR, 0xb5) && has(0, 0xb5) && has(1, 0xb5), "a broadcast");
	lapic_set_base(cpu[0], BASE, true);
	lapic_set_base(cpu[1], BASE, true);
	enter(0);
	tap_ok(!open_to(0, 0x808, true) && !enter(1) && !mapped_phys, "disabled: closed again");
	machine_end();
}

int main(void)
{
	tap_begin();
	if (!tap_ok(player_begin(), "core takes the engine"))
		return tap_end();
	begins();
	devices();
	level_triggered(false);
	level_triggered(true);
	ipis();
	ipis_by_exit();
	registers();
	priorities();
	logical_ids();
	on_and_off();
	split_and_none();
	large_ids();
	x2apic_mode();
	hostile();
	storms();
	return tap_end();
}
