/*
 * The host's state that VM entry and VM exit leave to us (27.5): some for each entry, some from the first entry until the thread leaves
 * the CPU or KVM_RUN ends. All of it is put back exactly.
 */
#include "engines/vmx/vmx.h"

#include "core/x86/msr.h"

static const u32 sw_index[SW_COUNT] = { MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE, MSR_TSC_AUX };

static u64 rdmsr(u32 index)
{
	u32 lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(index));
	return (u64)hi << 32 | lo;
}

static void wrmsr(u32 index, u64 value)
{
	__asm__ volatile("wrmsr" : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static void xsetbv(u64 value)
{
	__asm__ volatile("xsetbv" : : "c"(0), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

#define READ_SEG(name, to) __asm__ volatile("mov %%" name ", %0" : "=r"(to))
#define READ_CR(name, to)  __asm__ volatile("mov %%" name ", %0" : "=r"(to))
#define READ_DR(n, to)	   __asm__ volatile("mov %%db" #n ", %0" : "=r"(to))
#define WRITE_DR(n, value) __asm__ volatile("mov %0, %%db" #n : : "r"(value))

static bool has_msr(unsigned i)
{
	return i != SW_TSC_AUX || vmx_caps.tsc_aux;
}

/* ---- with the CPU -------------------------------------------------------------------------------------------------- */

/* A system descriptor of 16 bytes, SDM 3A 7.2.3. */
static u64 system_base(u64 table, u16 selector)
{
	const u32 *d = (const u32 *)(table + (selector & ~7U));

	return (d[0] >> 16) | (d[1] & 0xff) << 16 | (d[1] & 0xff000000) | (u64)d[2] << 32;
}

/* What is this CPU's and stays. */
void vmx_host_cpu_changed(struct vmx_vcpu *c)
{
	struct vmx_host *h = &c->host;
	u16 tr;

	__asm__ volatile("sgdt %0" : "=m"(h->gdt));
	__asm__ volatile("sidt %0" : "=m"(h->idt));
	__asm__ volatile("str %0" : "=r"(tr));
	vmwrite(VMCS_HOST_GDTR_BASE, h->gdt.base);
	vmwrite(VMCS_HOST_IDTR_BASE, h->idt.base);
	vmwrite(VMCS_HOST_TR_SEL, tr);
	vmwrite(VMCS_HOST_TR_BASE, system_base(h->gdt.base, tr));
	vmwrite(VMCS_HOST_GS_BASE, rdmsr(MSR_GS_BASE));
	vmwrite(VMCS_HOST_SYSENTER_CS, rdmsr(MSR_IA32_SYSENTER_CS));
	vmwrite(VMCS_HOST_SYSENTER_ESP, rdmsr(MSR_IA32_SYSENTER_ESP));
	vmwrite(VMCS_HOST_SYSENTER_EIP, rdmsr(MSR_IA32_SYSENTER_EIP));
	if (vmx_caps.pat)
		vmwrite(VMCS_HOST_PAT, rdmsr(MSR_IA32_CR_PAT));
	if (vmx_caps.efer)
		vmwrite(VMCS_HOST_EFER, rdmsr(MSR_EFER));
	else
		c->efer_switch[1].value = rdmsr(MSR_EFER);
	for (unsigned i = 0; i < SW_COUNT; i++) {
		if (has_msr(i))
			h->msr[i] = rdmsr(sw_index[i]);
	}
}

/* ---- with the thread ------------------------------------------------------------------------------------------------ */

/*
 * A host selector in the VMCS has neither RPL nor TI (26.2.3), so a client's own segments cannot be there: exit leaves null ones,
 * and vmx_host_put() loads the client's.
 */
void vmx_host_load(struct vmx_vcpu *c)
{
	struct vmx_host *h = &c->host;
	u64 base = rdmsr(MSR_FS_BASE);

	READ_SEG("ds", h->ds);
	READ_SEG("es", h->es);
	READ_SEG("fs", h->fs);
	READ_SEG("gs", h->gs);
	__asm__ volatile("sldt %0" : "=r"(h->ldt));
	h->msr[SW_KERNEL_GS_BASE] = rdmsr(MSR_KERNEL_GS_BASE);
	if (h->fs_base != base) {
		h->fs_base = base;
		vmwrite(VMCS_HOST_FS_BASE, base);
	}
	h->left = false;
}

static u64 *guest_msr(struct vmx_vcpu *c, unsigned i)
{
	struct x86_state *s = &c->vcpu.x86;
	u64 *const at[SW_COUNT] = { &s->star, &s->lstar, &s->cstar, &s->sfmask, &s->kernel_gs_base, &s->tsc_aux };

	return at[i];
}

/* The guest's values into the CPU, those that are not there already. */
static void msrs_in(struct vmx_vcpu *c)
{
	struct vmx_host *h = &c->host;
	const u64 *now = h->msrs_in ? h->guest_msr : h->msr;

	if (likely(h->msrs_in && !(c->vcpu.regs_dirty & REGS_MSR)))
		return;
	for (unsigned i = 0; i < SW_COUNT; i++) {
		u64 value = *guest_msr(c, i);

		/* A client's GS base, swapped by the emulator, need not be canonical */
		if (has_msr(i) && (now[i] != value || i == SW_KERNEL_GS_BASE) && host_wrmsr(sw_index[i], value)) {
			value = 0;
			wrmsr(sw_index[i], value);
		}
		h->guest_msr[i] = value;
	}
	h->msrs_in = true;
	c->vcpu.regs_dirty &= ~REGS_MSR;
}

/* The guest writes no MSR of these without an exit but this one, by SWAPGS. */
static void keep_kernel_gs_base(struct vmx_vcpu *c)
{
	if (c->host.msrs_in && !(c->vcpu.regs_dirty & REGS_MSR))
		c->vcpu.x86.kernel_gs_base = rdmsr(MSR_KERNEL_GS_BASE);
}

void vmx_host_sync_msrs(struct vmx_vcpu *c)
{
	host_preempt_off();
	keep_kernel_gs_base(c);
	/* From here on vcpu->x86 has it: vcpu_put(), which may come at any time, must not read it from the CPU again */
	c->vcpu.regs_dirty |= REGS_MSR;
	host_preempt_on();
}

/* The thread's own base is the active one while the selector is loaded, so neither the kernel's is lost nor an NMI led astray. */
static void load_gs(u16 gs)
{
	__asm__ volatile("pushfq\n\tcli\n\tswapgs\n\tmov %0, %%gs\n\tswapgs\n\tpopfq" : : "r"((u32)gs) : "memory", "cc");
}

void vmx_host_put(struct vmx_vcpu *c)
{
	struct vmx_host *h = &c->host;

	if (h->msrs_in) {
		keep_kernel_gs_base(c);
		for (unsigned i = 0; i < SW_COUNT; i++) {
			if (has_msr(i) && (h->guest_msr[i] != h->msr[i] || i == SW_KERNEL_GS_BASE))
				wrmsr(sw_index[i], h->msr[i]);
		}
		h->msrs_in = false;
	}
	if (!h->left)
		return;
	h->left = false;
	/* VM exit makes the limits of GDT and IDT 0xffff, that of TR 0x67, and LDTR null: 27.5.2 */
	__asm__ volatile("lgdt %0" : : "m"(h->gdt));
	__asm__ volatile("lidt %0" : : "m"(h->idt));
	host_task_limit_spoilt();
	if (unlikely(h->ldt))
		__asm__ volatile("lldt %0" : : "r"(h->ldt));
	if (unlikely(h->ds | h->es))
		__asm__ volatile("mov %0, %%ds\n\tmov %1, %%es" : : "r"((u32)h->ds), "r"((u32)h->es));
	if (unlikely(h->fs)) {
		__asm__ volatile("mov %0, %%fs" : : "r"((u32)h->fs));
		wrmsr(MSR_FS_BASE, h->fs_base);
	}
	if (unlikely(h->gs)) {
		load_gs(h->gs);
		wrmsr(MSR_KERNEL_GS_BASE, h->msr[SW_KERNEL_GS_BASE]);
	}
}

/* ---- with each entry -------------------------------------------------------------------------------------------------- */

static void note_control_registers(struct vmx_host *h)
{
	u64 cr0, cr3, cr4;

	READ_CR("cr0", cr0);
	READ_CR("cr3", cr3);
	READ_CR("cr4", cr4);
	if (unlikely(cr0 != h->cr0))
		vmwrite(VMCS_HOST_CR0, h->cr0 = cr0);
	if (unlikely(cr3 != h->cr3))
		vmwrite(VMCS_HOST_CR3, h->cr3 = cr3);
	if (unlikely(cr4 != h->cr4))
		vmwrite(VMCS_HOST_CR4, h->cr4 = cr4);
}

void vmx_host_leave(struct vmx_vcpu *c, struct vmx_inner *inner)
{
	struct vcpu *vcpu = &c->vcpu;

	note_control_registers(&c->host);
	msrs_in(c);
	c->host.left = true;
	inner->debugctl = rdmsr(MSR_IA32_DEBUGCTL);
	inner->spec_ctrl = 0;
	if (vmx_caps.spec_ctrl) {
		inner->spec_ctrl = rdmsr(MSR_IA32_SPEC_CTRL);
		if (inner->spec_ctrl != vcpu->spec_ctrl)
			host_wrmsr(MSR_IA32_SPEC_CTRL, vcpu->spec_ctrl); /* #GP: a bit that this processor lacks */
	}
	/* An exit leaves DR7 at 0x400, and DR0 to DR3 alone */
	READ_DR(7, inner->dr7);
	if (unlikely(inner->dr7 & 0xff)) {
		READ_DR(0, inner->dr[0]);
		READ_DR(1, inner->dr[1]);
		READ_DR(2, inner->dr[2]);
		READ_DR(3, inner->dr[3]);
		/* None may hit between here and the guest's own */
		WRITE_DR(7, DR7_FIXED_1);
	}
	if (unlikely(vcpu->eff_dr7 & 0xff)) {
		WRITE_DR(0, vcpu->eff_dr[0]);
		WRITE_DR(1, vcpu->eff_dr[1]);
		WRITE_DR(2, vcpu->eff_dr[2]);
		WRITE_DR(3, vcpu->eff_dr[3]);
	}
	inner->xcr0 = vmx_caps.host_xcr0 && (vcpu->x86.cr4 & CR4_OSXSAVE) && vcpu->x86.xcr0 != vmx_caps.host_xcr0;
	if (inner->xcr0)
		xsetbv(vcpu->x86.xcr0);
}

void vmx_host_back(struct vmx_vcpu *c, const struct vmx_inner *inner)
{
	if (inner->xcr0)
		xsetbv(vmx_caps.host_xcr0);
	if (vmx_caps.spec_ctrl && inner->spec_ctrl != c->vcpu.spec_ctrl)
		wrmsr(MSR_IA32_SPEC_CTRL, inner->spec_ctrl);
	if (unlikely(inner->debugctl))
		wrmsr(MSR_IA32_DEBUGCTL, inner->debugctl);
	if (unlikely(inner->dr7 & 0xff)) {
		WRITE_DR(0, inner->dr[0]);
		WRITE_DR(1, inner->dr[1]);
		WRITE_DR(2, inner->dr[2]);
		WRITE_DR(3, inner->dr[3]);
		WRITE_DR(7, inner->dr7);
	}
}
