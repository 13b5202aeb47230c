/*
 * Memory for stubs, mapped twice: written through one mapping, run through the other. Apart from native.h, for
 * stub_room.c needs <ucontext.h>, whose register names are also the architecture's.
 */
#ifndef ENGINES_LITE_STUB_ROOM_H
#define ENGINES_LITE_STUB_ROOM_H

#include "host_types.h"

struct lite_stub_room {
	u8 *rw;
	const u8 *rx;
	size_t size;
};
struct lite_vcpu;
/* SIGFPE or SIGILL at *@rip with RSP = @c; true: go on at the new *@rip. */
typedef bool lite_room_fault(struct lite_vcpu *c, u64 *rip);
/** @fault NULL: it holds stubs, which return with R8 set. */
int lite_stub_room_make(struct lite_stub_room *room, size_t size, lite_room_fault *fault);
void lite_stub_room_free(struct lite_stub_room *room);

#endif
