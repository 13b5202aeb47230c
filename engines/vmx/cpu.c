/*
 * VMX operation on each host CPU (23.7, 23.8), which VMCS is where (24.1), VPIDs, and the flushes of what they tag (28.3.3, 28.4.3).
 */
#include "engines/vmx/vmx.h"

#define MSR_FEATURE_CONTROL    0x3a
#define FEATURE_CONTROL_LOCKED BIT64(0)
#define FEATURE_CONTROL_VMXON  BIT64(2) /* outside of SMX */

/* Touched by its own CPU only, interrupts off. */
struct vmx_cpu {
	struct vmcs *vmxon;	  /* (i) */
	struct vmx_vcpu *loaded;  /* VMCSs that may be in this CPU's caches */
	struct vmx_vcpu *current_; /* the one that VMREAD reads */
	bool on;
};

static struct vmx_cpu *cpus;	/* (i) */
static unsigned nr_cpus;	/* (i) */
static u64 vpids[65536 / 64];	/* (a) taken */

int vmx_cpus_create(void)
{
	nr_cpus = host_nr_cpus();
	cpus = host_zalloc_pages(nr_cpus * sizeof(*cpus));
	if (!cpus)
		return -ENOMEM;
	for (unsigned i = 0; i < nr_cpus; i++) {
		cpus[i].vmxon = host_page_alloc();
		if (!cpus[i].vmxon) {
			vmx_cpus_destroy();
			return -ENOMEM;
		}
		cpus[i].vmxon->revision = vmx_caps.revision;
	}
	memset(vpids, 0, sizeof(vpids));
	vpids[0] = 1; /* the host's own */
	return 0;
}

void vmx_cpus_destroy(void)
{
	if (!cpus)
		return;
	for (unsigned i = 0; i < nr_cpus; i++) {
		if (cpus[i].vmxon)
			host_page_free(cpus[i].vmxon);
	}
	host_free_pages(cpus, nr_cpus * sizeof(*cpus));
	cpus = NULL;
}

/* ---- VMX operation ----------------------------------------------------------------------------------------------- */

static u64 read_cr4(void)
{
	u64 value;

	__asm__ volatile("mov %%cr4, %0" : "=r"(value));
	return value;
}

int vmx_cpu_enable(void)
{
	struct vmx_cpu *cpu = &cpus[host_cpu()];
	const u64 allowed = FEATURE_CONTROL_LOCKED | FEATURE_CONTROL_VMXON;
	u64 control;

	if (read_cr4() & CR4_VMXE)
		return -EBUSY;
	if (host_rdmsr(MSR_FEATURE_CONTROL, &control))
		return -EIO;
	/* Firmware that has not decided leaves it to us: 23.7 */
	if (!(control & FEATURE_CONTROL_LOCKED) && host_wrmsr(MSR_FEATURE_CONTROL, control | allowed))
		return -EIO;
	if (host_rdmsr(MSR_FEATURE_CONTROL, &control) || (control & allowed) != allowed)
		return -EIO;
	host_cr4_change(CR4_VMXE, 0);
	if (!vmxon(host_page_phys(cpu->vmxon))) {
		host_cr4_change(0, CR4_VMXE);
		return -EIO;
	}
	cpu->on = true;
	/* What was cached when VMX was last on here */
	if (vmx_options.ept)
		invept(INV_ALL, 0);
	if (vmx_options.vpid)
		invvpid(INV_ALL, 0, 0);
	return 0;
}

static void unload(struct vmx_vcpu *c)
{
	struct vmx_cpu *cpu = &cpus[host_cpu()];

	vmclear(c->vmcs_phys);
	if (cpu->current_ == c)
		cpu->current_ = NULL;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->next = NULL;
	c->launched = false;
	/* From here on another CPU may take it */
	__atomic_store_n(&c->cpu, -1, __ATOMIC_RELEASE);
}

void vmx_cpu_disable(void)
{
	struct vmx_cpu *cpu = &cpus[host_cpu()];

	if (!cpu->on)
		return;
	while (cpu->loaded)
		unload(cpu->loaded);
	vmxoff();
	host_cr4_change(0, CR4_VMXE);
	cpu->on = false;
}

/* ---- which VMCS is where ------------------------------------------------------------------------------------------- */

static void unload_here(void *arg)
{
	struct vmx_vcpu *c = arg;

	/* The CPU may have gone off line, or another caller have come first */
	if (__atomic_load_n(&c->cpu, __ATOMIC_ACQUIRE) == (s32)host_cpu())
		unload(c);
}

void vmx_vcpu_unload(struct vmx_vcpu *c)
{
	s32 cpu = __atomic_load_n(&c->cpu, __ATOMIC_ACQUIRE);

	if (cpu >= 0)
		host_on_cpu(cpu, unload_here, c);
}

void vmx_vcpu_load(struct vcpu *vcpu, unsigned nr)
{
	struct vmx_vcpu *c = to_vmx(vcpu);
	struct vmx_cpu *cpu = &cpus[nr];
	bool moved = __atomic_load_n(&c->cpu, __ATOMIC_ACQUIRE) != (s32)nr;

	if (moved)
		vmx_vcpu_unload(c);
	host_irq_off();
	if (moved) {
		c->next = cpu->loaded;
		if (c->next)
			c->next->link = &c->next;
		c->link = &cpu->loaded;
		cpu->loaded = c;
		__atomic_store_n(&c->cpu, nr, __ATOMIC_RELEASE);
	}
	if (cpu->current_ != c) {
		vmptrld(c->vmcs_phys);
		cpu->current_ = c;
	}
	host_irq_on();
	if (!c->written) {
		c->written = true;
		vmx_state_init(c);
	}
	if (moved) {
		vmx_host_cpu_changed(c);
		/* What this CPU cached of the guest when it last was here */
		c->flush = FLUSH_LINEAR | FLUSH_GPA;
	}
	vmx_host_load(c);
}

void vmx_vcpu_put(struct vcpu *vcpu)
{
	vmx_host_put(to_vmx(vcpu));
}

/* ---- translations ---------------------------------------------------------------------------------------------------- */

u16 vmx_vpid_alloc(void)
{
	for (unsigned i = 1; i < 65536; i++) {
		if (!atomic_test_and_set_bit(i, vpids))
			return i;
	}
	return 0;
}

void vmx_vpid_free(u16 vpid)
{
	if (vpid)
		atomic_test_and_clear_bit(vpid, vpids);
}

void vmx_flush(struct vmx_vcpu *c)
{
	u8 flush = c->flush;

	c->flush = 0;
	/* INVEPT takes the combined translations as well: 28.4.3.1 */
	if ((flush & FLUSH_GPA) && vmx_options.ept)
		invept(INV_CONTEXT, vmx_eptp(c));
	/* Without VPIDs every entry and exit flushes: 28.4.3.2 */
	if (c->vpid)
		invvpid(INV_CONTEXT, c->vpid, 0);
}
