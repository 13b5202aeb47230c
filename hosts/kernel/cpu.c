/* The processor below. */
#include "hosts/kernel/linux.h"

#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/irqflags.h>
#include <linux/smp.h>
#include <asm/desc.h>
#include <asm/fpu/api.h>
#include <asm/fpu/types.h>
#include <asm/fpu/xstate.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>
#include <asm/tlbflush.h>

unsigned host_cpu(void)
{
	return smp_processor_id();
}

bool host_smt_possible(void)
{
	return cpu_smt_possible();
}

unsigned host_nr_cpus(void)
{
	return nr_cpu_ids;
}

void host_preempt_off(void)
{
	preempt_disable();
}

void host_preempt_on(void)
{
	preempt_enable();
}

void host_irq_off(void)
{
	local_irq_disable();
}

void host_irq_on(void)
{
	local_irq_enable();
}

void host_on_cpu(unsigned cpu, void (*fn)(void *arg), void *arg)
{
	smp_call_function_single(cpu, fn, arg, true);
}

void host_on_each_cpu(void (*fn)(void *arg), void *arg)
{
	on_each_cpu(fn, arg, true);
}

void host_take_irqs(void)
{
	/* STI holds interrupts off for one more instruction. */
	__asm__ volatile("sti\n\tnop\n\tcli" ::: "memory");
}

/* Both through the kernel's own gates, whose IRET also ends the blocking of NMIs that the exit began. */
void host_take_nmi(void)
{
	__asm__ volatile("int $2" ::: "memory");
}

void host_take_machine_check(void)
{
	__asm__ volatile("int $18" ::: "memory");
}

void host_branch_barrier(void)
{
	indirect_branch_prediction_barrier();
}

void host_guest_enters(bool nested)
{
	/* The write of the command clears the buffers as well */
	if (nested && boot_cpu_has_bug(X86_BUG_L1TF) && boot_cpu_has(X86_FEATURE_FLUSH_L1D) && !cpu_mitigations_off())
		wrmsrl(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
	else if (boot_cpu_has(X86_FEATURE_CLEAR_CPU_BUF) || boot_cpu_has(X86_FEATURE_CLEAR_CPU_BUF_VM))
		__asm__ volatile("verw %0" : : "m"(x86_verw_sel) : "cc");
}

/* For objtool: the CALL that follows stays in its function. */
#define CALL_WITHIN                                                                                                    \
	"999:\n\t"                                                                                                     \
	".pushsection .discard.intra_function_calls\n\t"                                                               \
	".long 999b\n\t"                                                                                               \
	".popsection\n\t"

/*
 * Calls without returns: the return stack then predicts the traps behind them, as the kernel's own FILL_RETURN_BUFFER has it, where the
 * kernel says that this processor needs it.
 */
void host_guest_left(void)
{
	unsigned long loops = RSB_CLEAR_LOOPS / 2;

	if (!boot_cpu_has(X86_FEATURE_RSB_VMEXIT) && !boot_cpu_has(X86_FEATURE_RSB_VMEXIT_LITE))
		return;
	__asm__ volatile("1:\n\t"
			 CALL_WITHIN
			 "call 2f\n\t"
			 "int3\n\t"
			 "2:\n\t"
			 CALL_WITHIN
			 "call 3f\n\t"
			 "int3\n\t"
			 "3: add $16, %%rsp\n\t"
			 "dec %0\n\t"
			 "jnz 1b\n\t"
			 "lfence"
			 : "+r"(loops) : : "cc", "memory");
}

void host_cr4_change(u64 set, u64 clear)
{
	cr4_update_irqsoff(set, clear);
}

void host_task_limit_spoilt(void)
{
	invalidate_tss_limit();
}

int host_rdmsr(u32 msr, u64 *value)
{
	return rdmsrl_safe(msr, value) ? -EIO : 0;
}

int host_wrmsr(u32 msr, u64 value)
{
	return wrmsrl_safe(msr, value) ? -EIO : 0;
}

/* ---- the FPU --------------------------------------------------------------------------------------------------- */

struct host_fpu {
	struct fpu_guest guest;
	bool in; /* the thread's current state */
};

struct host_fpu *host_fpu_alloc(void)
{
	struct host_fpu *fpu = host_alloc_fails() ? NULL : kzalloc(sizeof(*fpu), GFP_KERNEL_ACCOUNT);

	if (fpu && !fpu_alloc_guest_fpstate(&fpu->guest)) {
		kfree(fpu);
		fpu = NULL;
	}
	return fpu;
}

void host_fpu_free(struct host_fpu *fpu)
{
	if (!fpu)
		return;
	fpu_free_guest_fpstate(&fpu->guest);
	kfree(fpu);
}

void host_fpu_in(struct host_fpu *fpu)
{
	host_event_fpu(true);
	fpu_swap_kvm_fpstate(&fpu->guest, true);
	fpu->in = true;
}

void host_fpu_out(struct host_fpu *fpu)
{
	fpu_swap_kvm_fpstate(&fpu->guest, false);
	host_event_fpu(false);
	fpu->in = false;
}

/* The image in memory is the state only while the registers are not. */
void host_fpu_save(struct host_fpu *fpu, void *image, u32 size, u32 pkru)
{
	bool in = fpu->in;

	if (in)
		host_fpu_out(fpu);
	fpu_copy_guest_fpstate_to_uabi(&fpu->guest, image, size, fpu->guest.xfeatures, pkru);
	if (in)
		host_fpu_in(fpu);
}

int host_fpu_load(struct host_fpu *fpu, const void *image, u32 size, u32 *pkru)
{
	bool in = fpu->in;
	int r;

	if (size < FXSAVE_SIZE + XSAVE_HDR_SIZE)
		return -EINVAL;
	if (in)
		host_fpu_out(fpu);
	r = fpu_copy_uabi_to_guest_fpstate(&fpu->guest, image, fpu->guest.xfeatures, pkru);
	if (in)
		host_fpu_in(fpu);
	return r ? -EINVAL : 0;
}
