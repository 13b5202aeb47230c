/*
 * Access to memory that may not be there. Guest memory is the client's: it can be unmapped, protected, or a file that was
 * truncated, at any time. Code that touches it either is listed, instruction by instruction, in an exception table (no cost
 * while nothing faults) or lies in a registered range of addresses with a function that repairs the registers.
 *
 *	int error = 0;
 *	__asm__ volatile("1: movl %2, %1\n2:\n" HOST_EX_ERROR("1b", "2b", "%0") : "+r"(error), "=r"(v) : "m"(*p));
 *
 * is how a single access reads: after a fault at 1 execution goes on at 2 with -EFAULT in the operand.
 */
#ifndef HOSTS_USER_FAULT_H
#define HOSTS_USER_FAULT_H

#include "hosts/host.h"

/* A fault at label @from continues at label @to. */
#define HOST_EX(from, to)                                                                          \
	".pushsection trine_ex_table,\"a\"\n.balign 4\n.long " from " - .\n.long " to " - .\n.popsection\n"
/* A fault at label @from puts -EFAULT into the 32-bit register operand @error and continues at @to. */
#define HOST_EX_ERROR(from, to, error)                                                             \
	".pushsection .text.unlikely,\"ax\"\n77: movl $-14, " error "\njmp " to "\n"                  \
	".pushsection trine_ex_table,\"a\"\n.balign 4\n.long " from " - .\n.long 77b - .\n.popsection\n" \
	".popsection\n"

/* A fault, and the registers it happened with. */
struct host_fault {
	u64 addr;	/* 0 when the CPU does not say (not canonical) */
	bool write;
	u64 gpr[16];	/* in instruction encoding order: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 ... */
	u64 rip;
};

/*
 * Code (a translator's, a set of assembly helpers) in [@start, @end) that touches client memory. After SIGSEGV or SIGBUS
 * there @fixup changes fault->gpr and fault->rip to where execution goes on, and returns true; false: not mine. It runs as a
 * signal handler on the faulting thread: no locks, no allocation.
 */
struct host_fault_range {
	u64 start, end;
	bool (*fixup)(struct host_fault_range *range, struct host_fault *fault);
	struct host_fault_range *next; /* the list's */
};

/** @range stays readable until it is unregistered. Any thread. */
void host_fault_register(struct host_fault_range *range);
/** No thread executes in @range any more, so none can be looking at it after a fault in it. */
void host_fault_unregister(struct host_fault_range *range);
/** Installs the SIGSEGV and SIGBUS handlers; also re-installs them when someone else replaced them. */
void host_fault_init(void);

#endif
