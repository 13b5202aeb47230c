/* See rig.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/lite/rig.h"

const char *const rig_mode_names[RIG_MODES] = { "kernel", "user", "32-bit user" };

static uint64_t new_table(struct rig *r)
{
	uint64_t at = r->next_table;

	r->next_table += 0x1000;
	if (r->next_table > RIG_FREE) {
		printf("Bail out! the test machine has no room for page tables\n");
		exit(1);
	}
	memset(r->mem + at, 0, 0x1000);
	return at;
}

uint64_t *rig_pte_in(struct rig *r, uint64_t cr3, uint64_t la)
{
	uint64_t table = cr3 & ~0xfffULL, *e;

	for (int shift = 39;; shift -= 9) {
		e = (uint64_t *)(r->mem + table) + (la >> shift & 511);
		if (shift == 12)
			return e;
		if (!(*e & PTE_P))
			*e = new_table(r) | PTE_ALL;
		table = *e & 0xffffffffff000ULL;
	}
}

uint64_t *rig_pte(struct rig *r, uint64_t la)
{
	return rig_pte_in(r, RIG_PML4, la);
}

void rig_map(struct rig *r, uint64_t la, uint64_t gpa, uint64_t flags)
{
	*rig_pte(r, la) = gpa | flags;
}

uint64_t rig_new_space(struct rig *r)
{
	uint64_t cr3 = new_table(r);

	for (uint64_t la = 0; la < RIG_MEMORY; la += 0x1000)
		*rig_pte_in(r, cr3, la) = la | PTE_ALL;
	return cr3;
}

void rig_gate(struct rig *r, unsigned vector, uint64_t to, unsigned ist, unsigned dpl)
{
	rig_put(r, RIG_IDT + vector * 16,
		(to & 0xffff) | (uint64_t)RIG_CS64 << 16 | (uint64_t)ist << 32 | (0x8eULL | dpl << 5) << 40 | (to >> 16 & 0xffff) << 48);
	rig_put(r, RIG_IDT + vector * 16 + 8, to >> 32);
}

void rig_gate_default(struct rig *r, unsigned vector)
{
	rig_gate(r, vector, r->system + RIG_VECTORS + vector * 16, 1, vector == 0x80 || vector == 3 || vector == 4 ? 3 : 0);
}

static uint64_t descriptor(unsigned access, unsigned flags)
{
	return 0xffffULL | (uint64_t)access << 40 | 0xfULL << 48 | (uint64_t)flags << 52;
}

static bool make(struct rig *r, int cpus, bool irqchip)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	struct kvm_userspace_memory_region region = { .memory_size = RIG_MEMORY };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };
	bool good = true;

	memset(r, 0, sizeof(*r));
	r->cpus = cpus;
	r->irqchip = irqchip;
	r->next_table = RIG_TABLES;
	r->kvm = trine_open("/dev/kvm", O_RDWR);
	r->vm = trine_ioctl(r->kvm, KVM_CREATE_VM, 0);
	r->mem = mmap(NULL, RIG_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); /* windows want shared memory */
	if (r->vm < 0 || r->mem == MAP_FAILED)
		return tap_ok(false, "a virtual machine");
	if (irqchip && trine_ioctl(r->vm, KVM_CREATE_IRQCHIP, 0))
		return tap_ok(false, "interrupt controllers");
	for (uint64_t la = 0; la < RIG_MEMORY; la += 0x1000)
		rig_map(r, la, la, PTE_ALL);
	rig_put(r, RIG_GDT + 0x08, descriptor(0x9b, 0xa));
	rig_put(r, RIG_GDT + 0x10, descriptor(0x93, 0xc));
	rig_put(r, RIG_GDT + 0x20, descriptor(0xfb, 0xc));
	rig_put(r, RIG_GDT + 0x28, descriptor(0xf3, 0xc));
	rig_put(r, RIG_GDT + 0x30, descriptor(0xfb, 0xa));
	for (int i = 0; i < RIG_CPUS; i++) {
		uint64_t tss = RIG_TSS + i * 0x80;

		rig_put(r, RIG_GDT + RIG_TR + i * 16, 0x67 | tss << 16 | 0x8bULL << 40);
		rig_put(r, tss + 4, RIG_STACKS + i * 0x4000 + 0x1000);
		r->mem[tss + 102] = 0x68; /* no I/O bitmap */
		for (int ist = 1; ist <= 3; ist++)
			rig_put(r, tss + 36 + 8 * (ist - 1), RIG_STACKS + i * 0x4000 + 0x1000 * (ist + 1));
	}
	for (unsigned v = 0; v < 256; v++) {
		memcpy(r->mem + RIG_VECTORS + v * 16, irqchip ? "\xe6\xf4" : "\xf4", 2);
		rig_gate_default(r, v);
	}
	memcpy(r->mem + RIG_IRETQ, "\x48\xcf", 2);
	region.userspace_addr = (uintptr_t)r->mem;
	good = !trine_ioctl(r->vm, KVM_SET_USER_MEMORY_REGION, &region) && !trine_ioctl(r->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	for (unsigned i = 0; i < cpuid.head.nent; i++)
		if (cpuid.entries[i].function == 0xd && !cpuid.entries[i].index)
			xcrs.xcrs[0].value = cpuid.entries[i].eax;
	for (int i = 0; i < cpus; i++) {
		struct rig_cpu *c = &r->cpu[i];
		struct kvm_sregs s;

		c->fd = trine_ioctl(r->vm, KVM_CREATE_VCPU, i);
		c->run = trine_mmap(NULL, trine_ioctl(r->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
		if (c->fd < 0 || c->run == MAP_FAILED)
			return tap_ok(false, "a vCPU");
		good = good && !trine_ioctl(c->fd, KVM_SET_CPUID2, &cpuid) && !trine_ioctl(c->fd, KVM_GET_SREGS, &s);
		s.cr3 = RIG_PML4;
		s.cr4 = 0x40620; /* OSXSAVE, OSXMMEXCPT, OSFXSR, PAE */
		s.cr0 = 0x80010033;
		s.efer = 0xd01; /* NXE, LMA, LME, SCE */
		s.gdt.base = RIG_GDT;
		s.gdt.limit = 0xff;
		s.idt.base = RIG_IDT;
		s.idt.limit = 0xfff;
		s.tr = (struct kvm_segment){ .base = RIG_TSS + i * 0x80, .limit = 0x67, .selector = RIG_TR + i * 16, .type = 11, .present = 1 };
		s.ldt.unusable = 1;
		good = good && !trine_ioctl(c->fd, KVM_SET_SREGS, &s) && !trine_ioctl(c->fd, KVM_SET_XCRS, &xcrs);
		rig_mode(r, i, RIG_K64);
	}
	return good || tap_ok(false, "a vCPU in long mode");
}

bool rig_make(struct rig *r, int cpus)
{
	return make(r, cpus, false);
}

bool rig_make_irqchip(struct rig *r, int cpus)
{
	return make(r, cpus, true);
}

void rig_move_system(struct rig *r, uint64_t base)
{
	uint64_t delta = base - r->system;

	for (uint64_t at = 0; at < RIG_CODE; at += 0x1000) {
		rig_map(r, base + at, at, PTE_P | PTE_W);
		rig_map(r, at, 0, 0);
	}
	r->system = base;
	for (unsigned v = 0; v < 256; v++)
		rig_gate_default(r, v);
	for (int i = 0; i < RIG_CPUS; i++) {
		uint64_t tss = RIG_TSS + i * 0x80;
		struct kvm_sregs s;

		rig_put(r, tss + 4, rig_get(r, tss + 4) + delta);
		for (int ist = 1; ist <= 3; ist++)
			rig_put(r, tss + 28 + 8 * ist, rig_get(r, tss + 28 + 8 * ist) + delta);
		if (i >= r->cpus)
			continue;
		rig_get_sregs(r, i, &s);
		s.gdt.base += delta;
		s.idt.base += delta;
		s.tr.base += delta;
		rig_set_sregs(r, i, &s);
	}
}

void rig_free(struct rig *r)
{
	for (int i = 0; i < r->cpus; i++) {
		munmap(r->cpu[i].run, trine_ioctl(r->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
		trine_close(r->cpu[i].fd);
	}
	trine_close(r->vm);
	trine_close(r->kvm);
	munmap(r->mem, RIG_MEMORY);
}

void rig_get_sregs(struct rig *r, int cpu, struct kvm_sregs *s)
{
	if (trine_ioctl(r->cpu[cpu].fd, KVM_GET_SREGS, s))
		memset(s, 0, sizeof(*s));
}

void rig_set_sregs(struct rig *r, int cpu, struct kvm_sregs *s)
{
	if (trine_ioctl(r->cpu[cpu].fd, KVM_SET_SREGS, s)) {
		printf("Bail out! KVM_SET_SREGS: %s\n", strerror(errno));
		exit(1);
	}
}

void rig_mode(struct rig *r, int cpu, enum rig_mode mode)
{
	unsigned dpl = mode == RIG_K64 ? 0 : 3;
	struct kvm_segment data = { .limit = ~0U, .selector = dpl ? RIG_DSU : RIG_DS, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1, .dpl = dpl };
	struct kvm_sregs s;

	rig_get_sregs(r, cpu, &s);
	s.ds = s.es = s.ss = s.fs = s.gs = s.cs = data;
	s.cs.selector = mode == RIG_K64 ? RIG_CS64 : mode == RIG_U64 ? RIG_CS64U : RIG_CS32U;
	s.cs.type = 11;
	s.cs.l = mode != RIG_U32;
	s.cs.db = mode == RIG_U32;
	rig_set_sregs(r, cpu, &s);
	r->cpu[cpu].mode = mode;
	r->cpu[cpu].in_kernel = false;
	memset(&r->cpu[cpu].regs, 0, sizeof(r->cpu[cpu].regs));
	r->cpu[cpu].regs.rsp = RIG_STACK + 0x1000 * (cpu + 1);
	r->cpu[cpu].regs.rflags = 2;
	r->cpu[cpu].regs.rip = RIG_CODE;
}

int rig_again(struct rig *r, int cpu)
{
	struct rig_cpu *c = &r->cpu[cpu];
	int reason = trine_ioctl(c->fd, KVM_RUN, 0) ? -errno : (int)c->run->exit_reason;
	uint64_t at, *frame;
	struct kvm_sregs s;

	c->vector = -1;
	if (reason == KVM_EXIT_IO && c->run->io.port == 0xf4 && r->irqchip) {
		/* The instruction is still to be finished. */
		c->run->immediate_exit = 1;
		trine_ioctl(c->fd, KVM_RUN, 0);
		c->run->immediate_exit = 0;
		reason = KVM_EXIT_HLT;
	}
	if (trine_ioctl(c->fd, KVM_GET_REGS, &c->regs))
		return -errno;
	at = c->regs.rip - r->system - RIG_VECTORS;
	if (reason != KVM_EXIT_HLT || at >= 4096 || at % 16 != (r->irqchip ? 2 : 1) || c->regs.rsp - r->system >= RIG_MEMORY - 64)
		return reason;
	c->vector = at / 16;
	c->in_kernel = true;
	frame = (uint64_t *)(r->mem + c->regs.rsp - r->system);
	c->error = 0;
	if ((0x60227d00U | 1U << 17 | 1U << 14) >> c->vector & 1 && c->vector < 32)
		c->error = *frame++;
	c->rip = frame[0];
	c->cs = frame[1];
	c->rflags = frame[2];
	c->rsp = frame[3];
	c->ss = frame[4];
	if (c->vector == 0x80)
		return RIG_DONE;
	if (c->vector == 14) {
		rig_get_sregs(r, cpu, &s);
		c->cr2 = s.cr2;
	}
	return RIG_STOPPED;
}

int rig_go(struct rig *r, int cpu)
{
	struct rig_cpu *c = &r->cpu[cpu];
	struct kvm_regs regs = c->regs;
	uint64_t frame = RIG_STACKS + cpu * 0x4000 + 0x4000 - 64;

	if (c->in_kernel && c->mode != RIG_K64) {
		rig_put(r, frame, regs.rip);
		rig_put(r, frame + 8, c->mode == RIG_U64 ? RIG_CS64U : RIG_CS32U);
		rig_put(r, frame + 16, regs.rflags);
		rig_put(r, frame + 24, regs.rsp);
		rig_put(r, frame + 32, RIG_DSU);
		regs.rip = r->system + RIG_IRETQ;
		regs.rsp = r->system + frame;
		regs.rflags = 2;
	}
	if (trine_ioctl(c->fd, KVM_SET_REGS, &regs))
		return -errno;
	return rig_again(r, cpu);
}

void rig_diag(struct rig *r, int cpu, const char *what, int reason)
{
	struct rig_cpu *c = &r->cpu[cpu];

	if (reason == RIG_STOPPED)
		tap_diag("%s: vector %d error %llx rip %llx cr2 %llx rflags %llx rsp %llx", what, c->vector, (long long)c->error,
			 (long long)c->rip, (long long)c->cr2, (long long)c->rflags, (long long)c->rsp);
	else
		tap_diag("%s: %s %d at %llx", what, reason == RIG_DONE ? "done" : "exit", reason,
			 (long long)(reason == RIG_DONE ? c->rip : c->regs.rip));
}

bool rig_translates(void)
{
	const char *options = getenv("TRINE_LITE");

	return options && strstr(options, "engine=jit");
}
