/* Saving and loading a vCPU's state, entering a kernel, printing registers. */
#include "vmm/vcpu_state.h"
#include "vmm/machine.h"
#include <stdio.h>
#include <stdlib.h>

#define MSR_IA32_TSC	    0x10
#define MSR_IA32_TSC_ADJUST 0x3b

#define CR0_PE	 0x00000001u
#define CR0_ET	 0x00000010u
#define CR0_NE	 0x00000020u
#define CR0_WP	 0x00010000u
#define CR0_PG	 0x80000000u
#define CR4_PAE	 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u

static int get(struct vcpu *vcpu, const char *what, unsigned long request, void *argument,
	       struct error *err)
{
	int r = accel_ioctl(vcpu->machine, vcpu->fd, request, argument);

	return r < 0 ? error_set(err, r, "vCPU %u: %s: %s", vcpu->id, what, strerror(-r)) : r;
}
#define CALL(request, argument) get(vcpu, #request, request, argument, err)

/* A struct kvm_msrs of one. */
struct one_msr {
	u32 nmsrs, pad;
	struct kvm_msr_entry entry;
};
static_assert(offsetof(struct one_msr, entry) == sizeof(struct kvm_msrs), "what KVM takes");

/* Which MSRs there are is the accelerator's to say. */
static struct kvm_msr_list *msr_list(struct machine *m)
{
	struct kvm_msr_list *list = xzalloc(sizeof(*list));
	u32 n;

	accel_ioctl(m, m->kvm_fd, KVM_GET_MSR_INDEX_LIST,
		    list); /* E2BIG, with the number that there are */
	n = list->nmsrs;
	free(list);
	list = xzalloc(sizeof(*list) + n * sizeof(list->indices[0]));
	list->nmsrs = n;
	if (accel_ioctl(m, m->kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
		list->nmsrs = 0;
	return list;
}

static bool time_msr(u32 index)
{
	/* The time stamp goes on over a reset: setting it would take the vCPUs' counters apart. */
	return index == MSR_IA32_TSC || index == MSR_IA32_TSC_ADJUST;
}

/* One at a time: the list has MSRs that this CPU model lacks, and a batch ends at the first. */
static void save_msrs(struct vcpu *vcpu, struct vcpu_state *s)
{
	struct kvm_msr_list *list = msr_list(vcpu->machine);
	struct one_msr one = { .nmsrs = 0 };
	u32 i;

	s->msrs = xzalloc(sizeof(*s->msrs) + list->nmsrs * sizeof(s->msrs->entries[0]));
	for (i = 0; i < list->nmsrs; i++) {
		if (time_msr(list->indices[i]))
			continue;
		one.nmsrs = 1;
		one.entry = (struct kvm_msr_entry){ .index = list->indices[i] };
		if (accel_ioctl(vcpu->machine, vcpu->fd, KVM_GET_MSRS, &one) == 1)
			s->msrs->entries[s->msrs->nmsrs++] = one.entry;
	}
	free(list);
}

static void load_msrs(struct vcpu *vcpu, const struct vcpu_state *s)
{
	struct one_msr one = { .nmsrs = 0 };
	u32 i;

	/* Some are read-only; those cannot have changed either. */
	for (i = 0; i < s->msrs->nmsrs; i++) {
		one.nmsrs = 1;
		one.entry = s->msrs->entries[i];
		accel_ioctl(vcpu->machine, vcpu->fd, KVM_SET_MSRS, &one);
	}
}

int vcpu_state_save(struct vcpu *vcpu, struct vcpu_state *s, struct error *err)
{
	struct machine *m = vcpu->machine;

	if (CALL(KVM_GET_REGS, &s->regs) < 0 || CALL(KVM_GET_SREGS, &s->sregs) < 0 ||
	    CALL(KVM_GET_FPU, &s->fpu) < 0 || CALL(KVM_GET_LAPIC, &s->lapic) < 0 ||
	    CALL(KVM_GET_MP_STATE, &s->mp_state) < 0 || CALL(KVM_GET_VCPU_EVENTS, &s->events) < 0 ||
	    CALL(KVM_GET_DEBUGREGS, &s->debugregs) < 0)
		return -EINVAL;
	if (accel_has(m, KVM_CAP_XCRS) && CALL(KVM_GET_XCRS, &s->xcrs) < 0)
		return -EINVAL;
	save_msrs(vcpu, s);
	return 0;
}

int vcpu_state_load(struct vcpu *vcpu, const struct vcpu_state *s, struct error *err)
{
	struct machine *m = vcpu->machine;
	struct kvm_vcpu_events events = s->events;

	/*
	 * The APIC before the MSRs (its base is one) and again after; events last, since others can
	 * raise some.
	 */
	if (CALL(KVM_SET_SREGS, (void *)&s->sregs) < 0 ||
	    CALL(KVM_SET_REGS, (void *)&s->regs) < 0 || CALL(KVM_SET_FPU, (void *)&s->fpu) < 0 ||
	    CALL(KVM_SET_DEBUGREGS, (void *)&s->debugregs) < 0)
		return -EINVAL;
	if (accel_has(m, KVM_CAP_XCRS) && CALL(KVM_SET_XCRS, (void *)&s->xcrs) < 0)
		return -EINVAL;
	load_msrs(vcpu, s);
	events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	if (CALL(KVM_SET_LAPIC, (void *)&s->lapic) < 0 ||
	    CALL(KVM_SET_MP_STATE, (void *)&s->mp_state) < 0 ||
	    CALL(KVM_SET_VCPU_EVENTS, &events) < 0)
		return -EINVAL;
	return 0;
}

void vcpu_state_free(struct vcpu_state *s)
{
	free(s->msrs);
	s->msrs = NULL;
}

static struct kvm_segment flat(u16 selector, u8 type, bool code, bool long_mode)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = code && long_mode,
		.db = !(code && long_mode),
	};
}

int vcpu_state_enter(struct vcpu *vcpu, const struct boot_entry *entry, struct error *err)
{
	struct kvm_regs regs = { .rflags = 2 };
	bool long_mode = entry->mode == BOOT_MODE_LONG;
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	struct kvm_segment data;
	struct kvm_sregs sregs;

	if (CALL(KVM_GET_SREGS, &sregs) < 0)
		return -EINVAL;
	sregs.cs = flat(entry->cs, 0xb, true, long_mode);
	data = flat(entry->ds, 0x3, false, long_mode);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){ .limit = 0x67, .type = 0xb, .present = 1 };
	sregs.ldt = (struct kvm_segment){ .type = 2, .unusable = 1 };
	sregs.gdt.base = entry->gdt;
	sregs.gdt.limit = entry->gdt_limit;
	sregs.idt.base = sregs.idt.limit = 0;
	sregs.cr0 = CR0_PE | CR0_ET | CR0_NE;
	sregs.cr4 = 0;
	sregs.efer = 0;
	if (long_mode) {
		sregs.cr0 |= CR0_WP | CR0_PG;
		sregs.cr3 = entry->cr3;
		sregs.cr4 = CR4_PAE;
		sregs.efer = EFER_LME | EFER_LMA;
	}
	regs.rip = entry->rip;
	regs.rsi = entry->rsi;
	regs.rax = entry->eax;
	regs.rbx = entry->ebx;
	if (CALL(KVM_SET_SREGS, &sregs) < 0 || CALL(KVM_SET_REGS, &regs) < 0 ||
	    CALL(KVM_SET_MP_STATE, &runnable) < 0)
		return -EINVAL;
	return 0;
}

static void dump_segment(void (*print)(const char *fmt, ...), const char *name,
			 const struct kvm_segment *s)
{
	print("%s %04x base %016llx limit %08x type %x s %u dpl %u p %u db %u l %u g %u\r\n", name,
	      s->selector, (unsigned long long)s->base, s->limit, s->type, s->s, s->dpl, s->present,
	      s->db, s->l, s->g);
}

void vcpu_dump(struct vcpu *vcpu, void (*print)(const char *fmt, ...))
{
	struct machine *m = vcpu->machine;
	struct kvm_sregs s;
	struct kvm_regs r;

	if (accel_ioctl(m, vcpu->fd, KVM_GET_REGS, &r) < 0 ||
	    accel_ioctl(m, vcpu->fd, KVM_GET_SREGS, &s) < 0)
		return;
#define X(v) ((unsigned long long)(v))
	print("RAX %016llx RBX %016llx RCX %016llx RDX %016llx\r\n", X(r.rax), X(r.rbx), X(r.rcx),
	      X(r.rdx));
	print("RSI %016llx RDI %016llx RBP %016llx RSP %016llx\r\n", X(r.rsi), X(r.rdi), X(r.rbp),
	      X(r.rsp));
	print("R8  %016llx R9  %016llx R10 %016llx R11 %016llx\r\n", X(r.r8), X(r.r9), X(r.r10),
	      X(r.r11));
	print("R12 %016llx R13 %016llx R14 %016llx R15 %016llx\r\n", X(r.r12), X(r.r13), X(r.r14),
	      X(r.r15));
	print("RIP %016llx RFLAGS %016llx\r\n", X(r.rip), X(r.rflags));
	dump_segment(print, "CS ", &s.cs);
	dump_segment(print, "SS ", &s.ss);
	dump_segment(print, "DS ", &s.ds);
	dump_segment(print, "ES ", &s.es);
	dump_segment(print, "FS ", &s.fs);
	dump_segment(print, "GS ", &s.gs);
	dump_segment(print, "TR ", &s.tr);
	dump_segment(print, "LDT", &s.ldt);
	print("GDT %016llx %04x IDT %016llx %04x\r\n", X(s.gdt.base), s.gdt.limit, X(s.idt.base),
	      s.idt.limit);
	print("CR0 %016llx CR2 %016llx CR3 %016llx CR4 %016llx\r\n", X(s.cr0), X(s.cr2), X(s.cr3),
	      X(s.cr4));
	print("EFER %016llx APIC base %016llx\r\n", X(s.efer), X(s.apic_base));
#undef X
}
