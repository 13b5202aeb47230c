/*
 * VM entry and VM exit, 26 and 27: the general registers and CR2, which the processor does not switch, and the host's stack pointer.
 */
#include "core/x86/world.h"
#include "engines/vmx/vmx.h"

#define GPR(nr) [r##nr] "i"(offsetof(struct vmx_vcpu, vcpu.x86.gpr) + (nr) * sizeof(u64))

/*
 * RCX is the vCPU before and after. The processor comes back at label 2 with the stack as it was and every other register the guest's;
 * those that the compiler does not reload are cleared, so that no guest value is left to speculate with (29.x, and
 * Intel's guidance on bounds check bypass). A failed VMLAUNCH or VMRESUME falls through with the guest's values
 * loaded, and takes the same way home with CF or ZF set. No RET comes before host_guest_left(): the guest's calls may still predict it.
 */
__attribute__((noinline)) bool vmx_enter(struct vmx_vcpu *c)
{
	u64 cr2 = c->vcpu.x86.cr2, now;
	bool failed;

	__asm__ volatile("mov %%cr2, %0" : "=r"(now));
	if (now != cr2)
		__asm__ volatile("mov %0, %%cr2" : : "r"(cr2));
	__asm__ volatile(
		"push %%rbp\n\t"
		"push %%rcx\n\t"
		"cmp %%rsp, %c[host_rsp](%%rcx)\n\t"
		"je 1f\n\t"
		"mov %%rsp, %c[host_rsp](%%rcx)\n\t"
		"mov %[rsp_field], %%edx\n\t"
		"vmwrite %%rsp, %%rdx\n\t"
		"mov %[rip_field], %%edx\n\t"
		"lea 2f(%%rip), %%rax\n\t"
		"vmwrite %%rax, %%rdx\n\t"
		"1: cmpb $0, %c[launched](%%rcx)\n\t"
		"mov %c[r0](%%rcx), %%rax\n\t"
		"mov %c[r2](%%rcx), %%rdx\n\t"
		"mov %c[r3](%%rcx), %%rbx\n\t"
		"mov %c[r5](%%rcx), %%rbp\n\t"
		"mov %c[r6](%%rcx), %%rsi\n\t"
		"mov %c[r7](%%rcx), %%rdi\n\t"
		"mov %c[r8](%%rcx), %%r8\n\t"
		"mov %c[r9](%%rcx), %%r9\n\t"
		"mov %c[r10](%%rcx), %%r10\n\t"
		"mov %c[r11](%%rcx), %%r11\n\t"
		"mov %c[r12](%%rcx), %%r12\n\t"
		"mov %c[r13](%%rcx), %%r13\n\t"
		"mov %c[r14](%%rcx), %%r14\n\t"
		"mov %c[r15](%%rcx), %%r15\n\t"
		"mov %c[r1](%%rcx), %%rcx\n\t"
		"jne 3f\n\t"
		"vmlaunch\n\t"
		"jmp 4f\n\t"
		"3: vmresume\n\t"
		"jmp 4f\n\t"
		"2:\n\t" /* RFLAGS is 2: 27.5.3 */
		"4: xchg %%rcx, (%%rsp)\n\t"
		"setbe %c[failed](%%rcx)\n\t"
		"mov %%rax, %c[r0](%%rcx)\n\t"
		"pop %%rax\n\t"
		"mov %%rax, %c[r1](%%rcx)\n\t"
		"mov %%rdx, %c[r2](%%rcx)\n\t"
		"mov %%rbx, %c[r3](%%rcx)\n\t"
		"mov %%rbp, %c[r5](%%rcx)\n\t"
		"mov %%rsi, %c[r6](%%rcx)\n\t"
		"mov %%rdi, %c[r7](%%rcx)\n\t"
		"mov %%r8, %c[r8](%%rcx)\n\t"
		"mov %%r9, %c[r9](%%rcx)\n\t"
		"mov %%r10, %c[r10](%%rcx)\n\t"
		"mov %%r11, %c[r11](%%rcx)\n\t"
		"mov %%r12, %c[r12](%%rcx)\n\t"
		"mov %%r13, %c[r13](%%rcx)\n\t"
		"mov %%r14, %c[r14](%%rcx)\n\t"
		"mov %%r15, %c[r15](%%rcx)\n\t"
		"xor %%eax, %%eax\n\t"
		"xor %%edx, %%edx\n\t"
		"xor %%edi, %%edi\n\t"
		CLEAR_GUEST_REGISTERS
		"pop %%rbp\n\t"
		"call host_guest_left\n\t"
		: "+c"(c)
		: [host_rsp] "i"(offsetof(struct vmx_vcpu, host_rsp)), [launched] "i"(offsetof(struct vmx_vcpu, launched)),
		  [failed] "i"(offsetof(struct vmx_vcpu, entry_failed)), [rsp_field] "i"(VMCS_HOST_RSP),
		  [rip_field] "i"(VMCS_HOST_RIP), GPR(0), GPR(1), GPR(2), GPR(3), GPR(5), GPR(6), GPR(7), GPR(8), GPR(9), GPR(10),
		  GPR(11), GPR(12), GPR(13), GPR(14), GPR(15)
		: "rax", "rdx", "rbx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
	failed = c->entry_failed;
	__asm__ volatile("mov %%cr2, %0" : "=r"(c->vcpu.x86.cr2));
	return !failed;
}
