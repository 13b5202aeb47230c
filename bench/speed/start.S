/*
 * The guest's first instructions: from the PVH entry (32-bit, no paging, EBX the start info) to long mode and C.
 * The ELF header's entry is start64, for who sets long mode up itself (bench/speed/kvm.c): RDI is then the rounds.
 */
	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18			/* name and value are 4 bytes; type 18 is the physical 32-bit entry */
	.asciz "Xen"
	.long start32

	.text
	.code32
	.globl start32
start32:
	cli
	movl	$stack_top, %esp
	movl	%ebx, %ebp

	/* One gigabyte, mapped to itself by 2 MiB pages. */
	movl	$page_directory, %edi
	movl	$0x83, %eax		/* present, writable, large */
1:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	cmpl	$page_directory + 4096, %edi
	jb	1b
	movl	$page_directory + 3, page_pointers
	movl	$page_pointers + 3, page_map

	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$page_map, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000001, %eax	/* PG, PE */
	movl	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$8, $long_mode

	.code64
long_mode:
	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%ebp, %edi
	call	rounds_of_start_info
	movq	%rax, %rdi

	.globl start64
start64:
	movl	$stack_top, %esp
	call	guest_main
1:	hlt
	jmp	1b

	.section .rodata
	.balign 8
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* 64-bit code */
	.quad 0x00cf93000000ffff	/* data */
gdt_pointer:
	.word gdt_pointer - gdt - 1
	.long gdt

	.bss
	.balign 4096
page_map:	.skip 4096
page_pointers:	.skip 4096
page_directory:	.skip 4096
	.skip 16384
stack_top:
	.section .note.GNU-stack, "", @progbits
