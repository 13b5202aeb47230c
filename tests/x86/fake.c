/* See fake.h. */
#include "tests/x86/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/x86/debug.h"
#include "hosts/user/file.h"

struct flush_log flush_log;

static struct vm *last_vm;
static struct vcpu *last_vcpu;

struct fake_vcpu {
	struct vcpu vcpu;
	struct x86_event event;
	bool event_valid, window_irq, window_nmi;
};

static struct fake_vcpu *fake(struct vcpu *vcpu)
{
	return container_of(vcpu, struct fake_vcpu, vcpu);
}

static int fake_vm_init(struct vm *vm)
{
	last_vm = vm;
	return 0;
}

static int fake_vcpu_init(struct vcpu *vcpu)
{
	last_vcpu = vcpu;
	return 0;
}

static void fake_vm_destroy(struct vm *vm)
{
}

static void fake_vcpu_destroy(struct vcpu *vcpu)
{
}

static void fake_groups(struct vcpu *vcpu, unsigned groups)
{
}

static void fake_inject(struct vcpu *vcpu, const struct x86_event *ev)
{
	fake(vcpu)->event = *ev;
	fake(vcpu)->event_valid = true;
}

static void fake_request_window(struct vcpu *vcpu, bool nmi)
{
	if (nmi)
		fake(vcpu)->window_nmi = true;
	else
		fake(vcpu)->window_irq = true;
}

static void fake_kick(struct vcpu *vcpu)
{
}

static void fake_tlb_flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg)
{
	flush_log.count++;
	flush_log.last = scope;
	flush_log.arg = arg;
}

static void fake_slot_flush(struct vm *vm, const struct memslot *old)
{
}

static void fake_slot_write_protect(struct vm *vm, const struct memslot *slot, u64 gfn_offset, u64 mask)
{
}

static void fake_slot_flush_done(struct vm *vm)
{
}

/* False: @exit says why. */
static bool deliver(struct vcpu *vcpu, const struct x86_event *ev, struct engine_exit *exit)
{
	enum x86_result r = vcpu_insn_done(vcpu, emul_deliver_event(&vcpu->emul, ev));

	if (r == X86_CONTINUE || r == X86_SHUTDOWN || r == X86_EXIT) {
		if (ev->type == X86_EVENT_INTR || ev->type == X86_EVENT_SOFT_INT)
			vcpu->events.interrupt.injected = false;
		else if (ev->type == X86_EVENT_NMI)
			vcpu->events.nmi.injected = false;
		else
			vcpu->events.exception.injected = false;
	}
	if (r == X86_CONTINUE)
		return true;
	vcpu_emul_exit(vcpu, r, exit);
	return false;
}

static bool step(struct vcpu *vcpu, struct engine_exit *exit)
{
	enum x86_result r;
	u64 hits = debug_code_hit(vcpu, vcpu->x86.seg[SEG_CS].base + vcpu->x86.rip);

	if (hits) {
		debug_trap(vcpu, hits, exit);
		return false;
	}
	vcpu->debug_hits = 0;
	vcpu->emul.tf_at_start = false;
	r = vcpu_insn_done(vcpu, emul_step(&vcpu->emul));
	if (r == X86_FAULT) {
		struct x86_event fault = vcpu->emul.fault;

		return deliver(vcpu, &fault, exit);
	}
	hits = vcpu->debug_hits | (vcpu->emul.tf_at_start || debug_client_steps(vcpu) ? DR6_BS : 0);
	if (r == X86_CONTINUE && hits) {
		debug_trap(vcpu, hits, exit);
		return false;
	}
	if (r == X86_CONTINUE)
		return true;
	vcpu_emul_exit(vcpu, r, exit);
	return false;
}

static void fake_vcpu_run(struct vcpu *vcpu, struct engine_exit *exit)
{
	struct fake_vcpu *f = fake(vcpu);
	bool go = true;

	memset(exit, 0, sizeof(*exit));
	if (f->event_valid) {
		struct x86_event ev = f->event;

		f->event_valid = false;
		go = deliver(vcpu, &ev, exit);
	}
	while (go) {
		if (vcpu_must_exit(vcpu))
			break;
		if ((f->window_irq && vcpu_interrupt_allowed(vcpu)) || (f->window_nmi && vcpu_nmi_allowed(vcpu))) {
			exit->reason = EXIT_IRQ_WINDOW;
			break;
		}
		go = step(vcpu, exit);
	}
	f->window_irq = f->window_nmi = false;
}

static const struct engine_ops fake_engine = {
	.name = "fake",
	.vm_size = sizeof(struct vm),
	.vcpu_size = sizeof(struct fake_vcpu),
	.vm_init = fake_vm_init,
	.vm_destroy = fake_vm_destroy,
	.vcpu_init = fake_vcpu_init,
	.vcpu_destroy = fake_vcpu_destroy,
	.state_changed = fake_groups,
	.state_sync = fake_groups,
	.vcpu_run = fake_vcpu_run,
	.inject = fake_inject,
	.request_window = fake_request_window,
	.kick = fake_kick,
	.tlb_flush = fake_tlb_flush,
	.slot_flush = fake_slot_flush,
	.slot_write_protect = fake_slot_write_protect,
	.slot_flush_done = fake_slot_flush_done,
};

static void must(long r, const char *what)
{
	if (r < 0) {
		printf("Bail out! %s: %ld\n", what, r);
		exit(1);
	}
}

long machine_ioctl(int fd, unsigned cmd, const void *arg)
{
	return host_file_ioctl(fd, cmd, (u64)(unsigned long)arg);
}

struct kvm_cpuid2 *machine_supported_cpuid(void)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));

	cpuid->nent = 256;
	must(core_system_ioctl(KVM_GET_SUPPORTED_CPUID, (u64)(unsigned long)cpuid), "KVM_GET_SUPPORTED_CPUID");
	return cpuid;
}

static struct vcpu *add_vcpu(struct machine *m, unsigned id, int *fd)
{
	struct kvm_cpuid2 *cpuid = machine_supported_cpuid();

	*fd = host_file_ioctl(m->vm_fd, KVM_CREATE_VCPU, id);
	must(*fd, "KVM_CREATE_VCPU");
	must(machine_ioctl(*fd, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	free(cpuid);
	return last_vcpu;
}

void machine_init(struct machine *m, unsigned vcpus, bool irqchip)
{
	static bool once;
	struct kvm_userspace_memory_region region = { .memory_size = MACHINE_RAM };

	memset(m, 0, sizeof(*m));
	if (!once)
		must(core_init(&fake_engine), "core_init");
	once = true;
	m->vm_fd = core_system_ioctl(KVM_CREATE_VM, 0);
	must(m->vm_fd, "KVM_CREATE_VM");
	m->vm = last_vm;
	m->ram = mmap(NULL, MACHINE_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	region.userspace_addr = (u64)(unsigned long)m->ram;
	must(machine_ioctl(m->vm_fd, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	if (irqchip)
		must(machine_ioctl(m->vm_fd, KVM_CREATE_IRQCHIP, NULL), "KVM_CREATE_IRQCHIP");
	m->vcpu = add_vcpu(m, 0, &m->vcpu_fd);
	m->run = m->vcpu->run;
	if (vcpus > 1)
		m->vcpu2 = add_vcpu(m, 1, &m->vcpu2_fd);
}

void machine_destroy(struct machine *m)
{
	if (m->vcpu2)
		host_file_close(m->vcpu2_fd);
	host_file_close(m->vcpu_fd);
	host_file_close(m->vm_fd);
	munmap(m->ram, MACHINE_RAM);
}

long machine_run(struct machine *m)
{
	return machine_ioctl(m->vcpu_fd, KVM_RUN, NULL);
}

void machine_code(struct machine *m, u64 gpa, const void *bytes, unsigned len)
{
	memcpy(m->ram + gpa, bytes, len);
}

static void start(struct machine *m, const struct kvm_sregs *sregs, u64 rip)
{
	struct kvm_regs regs = { .rip = rip, .rflags = 2, .rsp = 0x8000 };

	must(machine_ioctl(m->vcpu_fd, KVM_SET_SREGS, sregs), "KVM_SET_SREGS");
	must(machine_ioctl(m->vcpu_fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

void machine_real_mode(struct machine *m, u16 ip)
{
	struct kvm_sregs sregs;

	x86_vcpu_reset(m->vcpu, false);
	must(machine_ioctl(m->vcpu_fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	start(m, &sregs, ip);
}

#define TABLES 0x700000 /* PML4, PDPT, PD for RAM, PD for MMIO */

void machine_long_mode(struct machine *m, u64 rip)
{
	struct kvm_sregs sregs;

	x86_vcpu_reset(m->vcpu, false);
	put64(m, TABLES, (TABLES + 0x1000) | 7);
	put64(m, TABLES + 0x1000, (TABLES + 0x2000) | 7);
	put64(m, TABLES + 0x1000 + 3 * 8, (TABLES + 0x3000) | 7);
	for (u64 i = 0; i < MACHINE_RAM >> 21; i++)
		put64(m, TABLES + 0x2000 + i * 8, i << 21 | 0x87);
	put64(m, TABLES + 0x3000 + ((0xf0000000 >> 21) & 511) * 8, 0xf0000000 | 0x87);
	must(machine_ioctl(m->vcpu_fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
	sregs.cr3 = TABLES;
	sregs.cr4 = CR4_PAE | CR4_OSFXSR;
	sregs.efer = EFER_LME | EFER_LMA | EFER_NX | EFER_SCE;
	sregs.cs = (struct kvm_segment){ .selector = 8, .limit = ~0U, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
	sregs.ds = (struct kvm_segment){ .selector = 16, .limit = ~0U, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
	start(m, &sregs, rip);
}
