/* What the engines' world switches have in common. */
#ifndef CORE_X86_WORLD_H
#define CORE_X86_WORLD_H

/** For an asm statement with operands: RBX, RSI and R8 to R15 hold nothing of the guest's any more, for the host to speculate with. */
#define CLEAR_GUEST_REGISTERS                                                                                          \
	"xor %%ebx, %%ebx\n\t"                                                                                         \
	"xor %%esi, %%esi\n\t"                                                                                         \
	"xor %%r8d, %%r8d\n\t"                                                                                         \
	"xor %%r9d, %%r9d\n\t"                                                                                         \
	"xor %%r10d, %%r10d\n\t"                                                                                       \
	"xor %%r11d, %%r11d\n\t"                                                                                       \
	"xor %%r12d, %%r12d\n\t"                                                                                       \
	"xor %%r13d, %%r13d\n\t"                                                                                       \
	"xor %%r14d, %%r14d\n\t"                                                                                       \
	"xor %%r15d, %%r15d\n\t"

#endif
