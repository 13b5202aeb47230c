/*
 * Windows: pages of an address space of the guest's, mapped into this process at a constant distance from where the guest sees them, so that
 * translated user code gets from an address to the memory by adding that distance (jit_mem.c).
 *
 * User addresses are divided into slots of 4 TiB (bits 42 to 46). Three of them have what programs have: the lowest (programs that are not
 * position-independent), LITE_WINDOW_EXE and LITE_WINDOW_LIB. A vCPU is lent a slot of the process's own address space for each, and notes the
 * distance in lite_vcpu.jit.delta[]; for all others the distance makes the sum a non-canonical address. So whatever the guest's address is,
 * the sum is in the vCPU's own slots, or it faults. The base of GS is the distance of the slot that the program lies in.
 *
 * A page is mapped when translated code has faulted on it, on the terms of the first-level TLB's entries: readable when a read entry could be
 * made, writable when a write entry could, which includes that it is dirty and holds no code. Who takes back such entries takes back the
 * pages: INVLPG one page, a flush of the address space all (by its generation, lite_vcpu.gen), a page that gets code its writable ones.
 *
 * A fault and a mapping cost some microseconds, about as much as some thousand accesses by way of the TLB gain. So an address space gets a
 * window when it has run for a while without being flushed, loses it when it asks for too many pages in too short a time, and has to run
 * longer before it gets one again. There is one window for a vCPU.
 */
#ifndef ENGINES_LITE_WINDOW_H
#define ENGINES_LITE_WINDOW_H

#include "engines/lite/lite.h"

#define LITE_WINDOW_SHIFT 42
#define LITE_WINDOW_SLOTS 32U /* of user addresses */
#define LITE_WINDOW_EXE	  21U /* the slot where Linux puts position-independent programs */
#define LITE_WINDOW_LIB	  31U /* libraries, stacks; at the same distance as that */
/* Bytes from an address that was found in a slot which the code behind may touch. */
#define LITE_WINDOW_SPAN  0x10000L
/* So many at both ends of a slot never have anything mapped, and as many before and behind it, too. */
#define LITE_WINDOW_ROOM  0x20000UL

/* Whether GS reaches @slot in code of @mode. */
static inline bool lite_window_by_gs(u32 mode, unsigned slot)
{
	return mode & LITE_MODE_WINDOW_LOW ? !slot : slot == LITE_WINDOW_EXE || slot == LITE_WINDOW_LIB;
}

int lite_window_init(struct lite_vcpu *c);
void lite_window_destroy(struct lite_vcpu *c);
/** Another address space is current. */
void lite_window_switched(struct lite_vcpu *c);
/** At a poll in translated code: whether the address space that runs is worth a window. */
void lite_window_consider(struct lite_vcpu *c);
/** Gives the current address space a window, if there is one to be had. */
void lite_window_open(struct lite_vcpu *c);

enum lite_window_result {
	LITE_WINDOW_MAPPED, /* do the access again */
	LITE_WINDOW_AGAIN,  /* do the instruction again, in what lite_jit_mode() now says */
	LITE_WINDOW_NONE,   /* the window has no part in it */
};
/** A host exception in translated code of LITE_MODE_WINDOW, at @addr (0: it names none). May have waited for other vCPUs. */
enum lite_window_result lite_window_fault(struct lite_vcpu *c, u64 addr, bool write);

/** The translation of linear @la, or of all addresses that are the same under @mask, is no more; own thread. */
void lite_window_drop(struct lite_vcpu *c, u64 la, u64 mask);
/** Everything is unmapped; own thread. */
void lite_window_close(struct lite_vcpu *c);
/** The page at @host gets code: nobody writes to it by a window any more. After its bit in lite_gfns.code was set. */
void lite_window_revoke(struct lite_vm *lvm, u64 gfn, const u8 *host);

#endif
