/*
 * What an exit code (APM 2 appendix C) means to core.
 */
#include "core/x86/debug.h"
#include "core/x86/hypercall.h"
#include "core/x86/mmu/walk.h"
#include "engines/svm/svm.h"

/* ---- the instruction at RIP ---------------------------------------------------------------------------------------- */

/* Up to @len of its bytes, on one page; false when they are not there to be read. */
static bool fetch(struct svm_vcpu *svm, u8 *bytes, unsigned len)
{
	struct vcpu *vcpu = &svm->vcpu;
	struct walk_result walk;
	u64 la = vcpu->x86.rip;

	if (vcpu->x86.mode != X86_MODE_LONG)
		la = (u32)(la + svm->vmcb->cs.base);
	if ((la & (HOST_PAGE_SIZE - 1)) + len > HOST_PAGE_SIZE)
		return false;
	svm_state_sync(vcpu, REGS_CR);
	return mmu_walk(vcpu, la, PFERR_I | (vcpu->x86.cpl == 3 ? PFERR_U : 0), false, &walk) &&
	       !vm_read_guest(vcpu->vm, vcpu_as_id(vcpu), walk.gpa, bytes, len);
}

/*
 * The length of an instruction that is known to be @opcode (@len bytes). The processor tells, or else it is what stands there
 * without prefixes; 0 when it is not, and the emulator decodes it.
 */
static u8 insn_len(struct svm_vcpu *svm, const char *opcode, unsigned len)
{
	u8 bytes[3];

	if (svm_caps.features & SVM_FEATURE_NRIPS)
		return svm->vmcb->next_rip - svm->vmcb->rip;
	return fetch(svm, bytes, len) && !memcmp(bytes, opcode, len) ? len : 0;
}

/* MOV to or from a control register: which general register. Else (LMSW, CLTS, SMSW) the emulator's. */
static void decode_cr(struct svm_vcpu *svm, struct engine_exit *exit)
{
	const u32 both = SVM_FEATURE_DECODE_ASSIST | SVM_FEATURE_NRIPS;
	u8 bytes[4], *p = bytes;
	unsigned rex = 0;

	if ((svm_caps.features & both) == both) {
		if (!(svm->vmcb->exit_info_1 & CR_EXIT_MOV))
			return;
		exit->cr.gpr = svm->vmcb->exit_info_1 & CR_EXIT_GPR;
		exit->insn_len = svm->vmcb->next_rip - svm->vmcb->rip;
		return;
	}
	if (!fetch(svm, bytes, sizeof(bytes)))
		return;
	if (svm->vcpu.x86.mode == X86_MODE_LONG && (*p & 0xf0) == 0x40)
		rex = *p++;
	if (p[0] != 0x0f || p[1] != (exit->cr.write ? 0x22 : 0x20))
		return;
	/* REX.R reaches CR8 and up, REX.B the upper general registers */
	if ((((p[2] >> 3) & 7) | (rex & 4) << 1) != exit->cr.nr)
		return;
	exit->cr.gpr = (p[2] & 7) | (rex & 1) << 3;
	exit->insn_len = p + 3 - bytes;
}

/* ---- exits that need more than a name ---------------------------------------------------------------------------- */

/* The emulator takes the event that the processor could not: through a task gate, or with the stack in a device. */
static void deliver(struct svm_vcpu *svm, struct engine_exit *exit)
{
	struct vcpu *vcpu = &svm->vcpu;
	struct vcpu_events *events = &vcpu->events;
	struct x86_event ev = { 0 };
	enum x86_result r;

	if (events->exception.injected) {
		ev = events->exception.ev;
	} else if (events->nmi.injected) {
		ev = (struct x86_event){ .vector = VEC_NMI, .type = X86_EVENT_NMI };
	} else if (events->interrupt.injected) {
		ev.vector = events->interrupt.vector;
		ev.type = events->interrupt.soft ? X86_EVENT_SOFT_INT : X86_EVENT_INTR;
		ev.insn_len = events->interrupt.soft ? events->interrupt.soft_len : 0;
	} else {
		exit->reason = EXIT_EMULATE;
		return;
	}
	svm_state_sync(vcpu, REGS_ALL & ~REGS_FPU);
	r = vcpu_insn_done(vcpu, emul_deliver_event(&vcpu->emul, &ev));
	vcpu->regs_dirty |= REGS_ALL & ~REGS_FPU;
	if (r == X86_CONTINUE || r == X86_EXIT || r == X86_SHUTDOWN)
		events->exception.injected = events->nmi.injected = events->interrupt.injected = false;
	if (r != X86_CONTINUE)
		vcpu_emul_exit(vcpu, r, exit);
}

static bool delivering(const struct svm_vcpu *svm)
{
	return svm->vmcb->exit_int_info & EVENT_VALID;
}

static void page_fault(struct svm_vcpu *svm, struct engine_exit *exit)
{
	struct vcpu *vcpu = &svm->vcpu;
	const struct vmcb *v = svm->vmcb;
	int error;

	vcpu->stats->pf_taken++;
	switch (mmu_fault(svm->mmu, v->exit_info_2, v->exit_info_1 & (PFERR_P | PFERR_W | PFERR_U | PFERR_I), &exit->event,
			  &error)) {
	case MMU_FIXED: break;
	case MMU_EMULATE:
		if (unlikely(delivering(svm)))
			deliver(svm, exit);
		else
			exit->reason = EXIT_EMULATE;
		/* The operand itself, not a page table on the way to it */
		if (v->exit_info_1 & NPF_FINAL)
			exit->fault_gpa = v->exit_info_2;
		break;
	case MMU_INJECT: exit->reason = EXIT_EXCEPTION; break;
	case MMU_ERROR: mmu_error_exit(vcpu, error, exit); break;
	}
}

static void queue(struct engine_exit *exit, u8 vector, bool has_error, u32 error)
{
	exit->reason = EXIT_EXCEPTION;
	exit->event = (struct x86_event){ .vector = vector, .type = X86_EVENT_EXCEPTION, .has_error = has_error, .error = error };
}

/* DR6 was clear on entry, so it tells of this one alone. */
static void debug_exception(struct svm_vcpu *svm, struct engine_exit *exit)
{
	struct vcpu *vcpu = &svm->vcpu;
	struct vmcb *v = svm->vmcb;
	u64 dr6 = v->dr6 & DR6_WRITABLE;

	v->dr6 = DR6_FIXED_1;
	v->clean &= ~VMCB_CLEAN_DR;
	/* Our own step out of an interrupt shadow */
	if (svm->stepping && !svm->guest_tf && !debug_client_steps(vcpu)) {
		dr6 &= ~DR6_BS;
		if (!dr6) {
			exit->reason = EXIT_IRQ_WINDOW;
			return;
		}
	}
	/* An instruction breakpoint is a fault: behind its handler the instruction runs */
	if (debug_code_hit(vcpu, vcpu->x86.rip + (vcpu->x86.mode == X86_MODE_LONG ? 0 : v->cs.base)) & dr6)
		vcpu->x86.rflags |= RFLAGS_RF;
	debug_trap(vcpu, dr6, exit);
}

static void undefined_opcode(struct svm_vcpu *svm, struct engine_exit *exit)
{
	/* VMCALL is Intel's, VMMCALL our own */
	if (hypercall_fix(&svm->vcpu, VMCALL_INSN, VMMCALL_INSN)) {
		exit->reason = EXIT_HYPERCALL;
		exit->insn_len = HYPERCALL_LEN;
		return;
	}
	queue(exit, VEC_UD, false, 0);
}

static void breakpoint(struct svm_vcpu *svm, struct engine_exit *exit)
{
	if (!debug_int3(&svm->vcpu, exit))
		exit->reason = EXIT_EMULATE;
}

static void exception(struct svm_vcpu *svm, struct engine_exit *exit)
{
	switch (svm->vmcb->exit_code - SVM_EXIT_EXCEPTION) {
	case VEC_DB: debug_exception(svm, exit); break;
	case VEC_BP: breakpoint(svm, exit); break;
	case VEC_UD: undefined_opcode(svm, exit); break;
	case VEC_PF: page_fault(svm, exit); break;
	case VEC_AC: queue(exit, VEC_AC, true, svm->vmcb->exit_info_1); break;
	case VEC_MC: break; /* the host has had it */
	}
}

static void port_io(struct svm_vcpu *svm, struct engine_exit *exit)
{
	const struct vmcb *v = svm->vmcb;

	exit->reason = EXIT_IO;
	exit->insn_len = v->exit_info_2 - v->rip;
	exit->io.in = v->exit_info_1 & IOIO_IN;
	exit->io.string = v->exit_info_1 & IOIO_STRING;
	exit->io.size = IOIO_SIZE(v->exit_info_1);
	exit->io.port = IOIO_PORT(v->exit_info_1);
}

/* ---- by code ------------------------------------------------------------------------------------------------------ */

void svm_handle_exit(struct svm_vcpu *svm, struct engine_exit *exit)
{
	const struct vmcb *v = svm->vmcb;

	switch (v->exit_code) {
	case SVM_EXIT_INTR:
		svm->vcpu.stats->irq_exits++;
		break;
	case SVM_EXIT_NMI: /* waits for STGI, behind which the host has taken it */
	case SVM_EXIT_SMI:
	case SVM_EXIT_INIT: break;
	case SVM_EXIT_NPF: page_fault(svm, exit); break;
	case SVM_EXIT_AVIC_INCOMPLETE_IPI: svm_avic_incomplete_ipi(svm); break;
	case SVM_EXIT_AVIC_NOACCEL: svm_avic_noaccel(svm, exit); break;
	case SVM_EXIT_MSR:
		exit->reason = v->exit_info_1 & 1 ? EXIT_MSR_WRITE : EXIT_MSR_READ;
		exit->insn_len = insn_len(svm, v->exit_info_1 & 1 ? "\x0f\x30" : "\x0f\x32", 2);
		break;
	case SVM_EXIT_VINTR: exit->reason = EXIT_IRQ_WINDOW; break;
	case SVM_EXIT_HLT:
		exit->insn_len = insn_len(svm, "\xf4", 1);
		exit->reason = exit->insn_len ? EXIT_HLT : EXIT_EMULATE;
		break;
	case SVM_EXIT_IOIO: port_io(svm, exit); break;
	case SVM_EXIT_CPUID:
		exit->reason = EXIT_CPUID;
		exit->insn_len = insn_len(svm, "\x0f\xa2", 2);
		break;
	case SVM_EXIT_VMMCALL:
		exit->reason = EXIT_HYPERCALL;
		exit->insn_len = insn_len(svm, "\x0f\x01\xd9", 3);
		break;
	case SVM_EXIT_PAUSE:
		exit->reason = EXIT_PAUSE;
		exit->insn_len = insn_len(svm, "\xf3\x90", 2);
		break;
	case SVM_EXIT_XSETBV:
		exit->reason = EXIT_XSETBV;
		exit->insn_len = insn_len(svm, "\x0f\x01\xd1", 3);
		break;
	case SVM_EXIT_CR0_SEL_WRITE:
	case SVM_EXIT_CR_READ ... SVM_EXIT_CR_WRITE + 15:
		exit->reason = EXIT_CR;
		exit->cr.write = v->exit_code >= SVM_EXIT_CR_WRITE;
		exit->cr.nr = v->exit_code == SVM_EXIT_CR0_SEL_WRITE ? 0 : v->exit_code & 15;
		decode_cr(svm, exit);
		break;
	case SVM_EXIT_EXCEPTION ... SVM_EXIT_EXCEPTION + 31: exception(svm, exit); break;
	case SVM_EXIT_TASK_SWITCH:
		if (delivering(svm))
			deliver(svm, exit);
		else
			exit->reason = EXIT_EMULATE;
		break;
	case SVM_EXIT_SHUTDOWN: exit->reason = EXIT_SHUTDOWN; break;
	case SVM_EXIT_INVALID:
		exit->reason = EXIT_FAIL_ENTRY;
		exit->suberror = v->exit_code;
		break;
	case SVM_EXIT_VMRUN:
	case SVM_EXIT_VMLOAD ... SVM_EXIT_SKINIT:
	case SVM_EXIT_INVLPGA:
	case SVM_EXIT_RDPRU:
		/* No guest of ours has these */
		queue(exit, VEC_UD, false, 0);
		break;
	default: exit->reason = EXIT_EMULATE; /* RSM, IRET, DRs, RDPMC, WBINVD, MONITOR ... */
	}
}
