/*
 * One instruction on one state, in this process and as a guest's through the KVM API: what native.c and avx512.c compare.
 *
 *	both_set_up(XCR0, map)		a vCPU in 64-bit mode at CPL 0, its memory in both_memory
 *	both_randomize(s)		general registers, flags and data
 *	both_here(s, code)		by the processor; @code returns
 *	both_guest(s, rip, rbx)		by the vCPU; an exit reason, or -errno
 *	both_differ(a, b)		where, as words
 */
#ifndef TESTS_LITE_BOTH_H
#define TESTS_LITE_BOTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOTH_MEMORY (1UL << 20)
#define BOTH_TABLES 0x1000UL
#define BOTH_CODE   0x10000UL
#define BOTH_DATA   0x80c00UL /* to the end of its page */
#define BOTH_SPAN   1024
#define BOTH_FLAGS  0x8d5U /* CF, PF, AF, ZF, SF, OF */

struct state {
	uint64_t gpr[16], rflags;
	uint8_t data[BOTH_SPAN];
	uint8_t x[4096] __attribute__((aligned(64))); /* as XSAVE writes it, standard format */
};

extern uint8_t *both_memory;

/** A word that arithmetic finds interesting: any bits, small numbers, floats, doubles, special ones. */
uint64_t both_word(void);
/** Random but for RSI, which is 8, and x, which is zeros. */
void both_randomize(struct state *s);
/** @holes: 4 KiB pages of which the one behind the data is not there; else one of 2 MiB. @xcr0: what XRSTOR loads and XSAVE stores, here and there. */
bool both_set_up(uint64_t xcr0, bool holes);
/** @rbx: what RBX, and RDI, point at, from the beginning of the data. */
int both_guest(struct state *s, uint64_t rip, unsigned rbx);
/** RBX, RSP and RDI are not compared. A call of the code at @code, which may change all else. */
void both_here(struct state *s, void *code);
/** Of general registers, flags and memory; NULL: nowhere. */
const char *both_differ(const struct state *a, const struct state *b);
/** Behind a signal that left both_here(): what the processor's vector state has to be for C. */
void both_calm(void);

#endif
