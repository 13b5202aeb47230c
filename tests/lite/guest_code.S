/*
 * Small guests of tests/lite/guest.c, 64-bit, position-independent, each ended by HLT or by what the test waits for. RBX points to a page of
 * data, RSP to a stack.
 */
	.intel_syntax noprefix
	.section .rodata.guest_code, "a"
	.macro GUEST name
	.globl guest_\name, guest_\name\()_end
guest_\name:
	.endm
	.macro END name
guest_\name\()_end:
	.endm

	/* Patches the immediate of the very next instruction. */
	GUEST smc_next
	xor eax, eax
	lea rdi, [rip + 1f + 1]
	mov byte ptr [rdi], 0x42
1:	mov eax, 0x11
	hlt
	END smc_next

	/* A loop that patches itself every round: eax = 1 + 2 + ... + 100. */
	GUEST smc_loop
	xor eax, eax
	mov ecx, 1
2:	lea rdi, [rip + 1f + 1]
	mov [rdi], cl
1:	add eax, 0x7f000000
	and eax, 0xffffff
	inc ecx
	cmp ecx, 101
	jne 2b
	hlt
	END smc_loop

	/* Code written to another page, called, rewritten through an alias (R9) of that page, called again. */
	GUEST smc_alias
	lea r8, [rbx + 0x100]
	mov dword ptr [r8], 0x000001b8	/* mov eax, 1 */
	mov word ptr [r8 + 4], 0xc300	/* ret */
	call r8
	mov edx, eax
	mov byte ptr [r9 + 0x101], 7
	call r8
	shl edx, 8
	or eax, edx
	hlt
	END smc_alias

	/* Two vCPUs: the first calls the routine at R8 until it returns 2; the second patches it. */
	GUEST cross_run
1:	call r8
	cmp eax, 2
	jne 1b
	hlt
	END cross_run
	GUEST cross_patch
	mov ecx, 100000
1:	dec ecx
	jnz 1b
	mov byte ptr [r8 + 1], 2
	hlt
	END cross_patch

	/* Stores across two pages, the second of which is not there; the handler of vector 14 halts with the error code in RAX. */
	GUEST cross_page_write
	mov qword ptr [r8], -1
	hlt
	END cross_page_write
	GUEST cross_page_read
	mov rdx, [r8]
	hlt
	END cross_page_read
	GUEST fault_handler
	pop rax
	mov rcx, [rsp]
	hlt
	END fault_handler

	GUEST count
	mov ecx, 10
1:	inc rax
	dec ecx
	jnz 1b
	hlt
	END count

	GUEST touch
	mov [r8], rax
	mov rcx, [r8 + 8]
	nop
	hlt
	END touch

	GUEST mmio
	mov eax, [r8]
	add eax, 1
	mov [r8 + 4], eax
	lock add dword ptr [r8 + 8], 5
	hlt
	END mmio

	GUEST pio
	mov edx, 0x1234
	in eax, dx
	inc eax
	out dx, eax
	mov ecx, 5
	lea rdi, [rbx]
	cld
	rep insb
	hlt
	END pio

	/* Counts until an interrupt has come R10 times; the handler at vector 32 counts in [RBX]. All registers but RAX keep their values. */
	GUEST interrupts
	mov r11, 0x0123456789abcdef
	mov r12, r11
	sti
1:	inc rax
	add r11, rax
	sub r11, rax
	cmp r11, r12
	jne 2f
	push r11
	pop r13
	cmp r13, r12
	jne 2f
	cmp [rbx], r10
	jb 1b
	cli
	mov rax, 1
	hlt
2:	cli
	xor eax, eax
	hlt
	END interrupts
	GUEST interrupt_handler
	inc qword ptr [rbx]
	iretq
	END interrupt_handler

	/* CR3 to the other tables (R9) and back with PCIDs; RAX: what [R8] holds under each. */
	GUEST pcid
	mov rax, [r8]
	mov r10, cr3
	mov cr3, r9
	shl rax, 16
	or rax, [r8]
	bts r10, 63
	mov cr3, r10
	shl rax, 16
	or rax, [r8]
	hlt
	END pcid

	/* A divide error of SSE, unmasked. Vector 19's handler halts. */
	GUEST simd_exception
	push 0x1d80
	ldmxcsr [rsp]
	pop rax
	xorps xmm0, xmm0
	pcmpeqd xmm1, xmm1
	pslld xmm1, 25
	psrld xmm1, 2
	movaps xmm2, xmm1
	divps xmm1, xmm0
	ud2
	END simd_exception
	GUEST x87_exception
	fninit
	push 0x37b
	fldcw [rsp]
	fld1
	fldz
	fdivp st(1), st
	fwait
	ud2
	END x87_exception
	GUEST simple_handler
	mov rcx, [rsp]
	hlt
	END simple_handler
	.section .note.GNU-stack, "", @progbits
