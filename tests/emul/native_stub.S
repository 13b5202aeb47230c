/*
 * The ways into and out of an instruction under test. Copied to NATIVE_LOW: the first page is code, the second data, whose
 * layout is struct stub_data of native.c. Everything is addressed relative to RIP, so that no register is needed.
 */
#define LOW  0x10000000
#define DATA (native_stub + 0x1000)
/* struct stub_data */
#define IN(n)	   (DATA + 8 * (n))
#define IN_FLAGS   (DATA + 128)
#define OUT(n)	   (DATA + 136 + 8 * (n))
#define OUT_FLAGS  (DATA + 264)
#define ENTRY	   (DATA + 272)
#define HOST_RSP   (DATA + 280)
#define FAR32	   (DATA + 288)
#define XIN	   (DATA + 296)
#define XOUT	   (DATA + 304)
#define XCR	   (DATA + 312)
/* The same for 32-bit code: absolute. */
#define ABS(off)   (LOW + 0x1000 + (off))
#define STACK32	   ABS(0x800)

	.section .rodata
	.balign 4096
	.globl native_stub, native_stub_enter64, native_stub_enter32, native_stub_exit64, native_stub_exit32
	.globl native_stub_fault, native_stub_start32, native_stub_end
native_stub:
	.code64
native_stub_enter64:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, HOST_RSP(%rip)
	call restore_x
	push IN_FLAGS(%rip)
	popfq
	mov IN(0)(%rip), %rax
	mov IN(1)(%rip), %rcx
	mov IN(2)(%rip), %rdx
	mov IN(3)(%rip), %rbx
	mov IN(4)(%rip), %rsp
	mov IN(5)(%rip), %rbp
	mov IN(6)(%rip), %rsi
	mov IN(7)(%rip), %rdi
	mov IN(8)(%rip), %r8
	mov IN(9)(%rip), %r9
	mov IN(10)(%rip), %r10
	mov IN(11)(%rip), %r11
	mov IN(12)(%rip), %r12
	mov IN(13)(%rip), %r13
	mov IN(14)(%rip), %r14
	mov IN(15)(%rip), %r15
	jmp *ENTRY(%rip)

native_stub_exit64:
	mov %rax, OUT(0)(%rip)
	mov %rcx, OUT(1)(%rip)
	mov %rdx, OUT(2)(%rip)
	mov %rbx, OUT(3)(%rip)
	mov %rsp, OUT(4)(%rip)
	mov %rbp, OUT(5)(%rip)
	mov %rsi, OUT(6)(%rip)
	mov %rdi, OUT(7)(%rip)
	mov %r8, OUT(8)(%rip)
	mov %r9, OUT(9)(%rip)
	mov %r10, OUT(10)(%rip)
	mov %r11, OUT(11)(%rip)
	mov %r12, OUT(12)(%rip)
	mov %r13, OUT(13)(%rip)
	mov %r14, OUT(14)(%rip)
	mov %r15, OUT(15)(%rip)
	mov HOST_RSP(%rip), %rsp
	pushfq
	pop OUT_FLAGS(%rip)
native_stub_fault:
	mov HOST_RSP(%rip), %rsp
	push $0x202
	popfq
	cmpq $0, XOUT(%rip)
	je 1f
	mov XOUT(%rip), %rdi
	mov XCR(%rip), %eax
	mov XCR+4(%rip), %edx
	xsave64 (%rdi)
1:	xor %eax, %eax
	mov %eax, %ds
	mov %eax, %es
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

restore_x:
	cmpq $0, XIN(%rip)
	je 1f
	mov XIN(%rip), %rdi
	mov XCR(%rip), %eax
	mov XCR+4(%rip), %edx
	xrstor64 (%rdi)
1:	ret

native_stub_enter32:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, HOST_RSP(%rip)
	call restore_x
	mov $0x2b, %eax
	mov %eax, %ds
	mov %eax, %es
	ljmp *FAR32(%rip)

	.code32
native_stub_start32:
	mov $STACK32, %esp
	pushl ABS(128)
	popfl
	mov ABS(0), %eax
	mov ABS(8), %ecx
	mov ABS(16), %edx
	mov ABS(24), %ebx
	mov ABS(32), %esp
	mov ABS(40), %ebp
	mov ABS(48), %esi
	mov ABS(56), %edi
	jmp *ABS(272)

native_stub_exit32:
	mov %eax, ABS(136)
	mov %ecx, ABS(144)
	mov %edx, ABS(152)
	mov %ebx, ABS(160)
	mov %esp, ABS(168)
	mov %ebp, ABS(176)
	mov %esi, ABS(184)
	mov %edi, ABS(192)
	mov $STACK32, %esp
	pushfl
	popl ABS(264)
	ljmp $0x33, $LOW + (native_stub_fault - native_stub)
	.code64
native_stub_end:

	.section .note.GNU-stack, "", @progbits
