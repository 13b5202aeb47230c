/* KVM_RUN's inner interface: run.c and vcpu_emul.c. */
#ifndef CORE_X86_RUN_H
#define CORE_X86_RUN_H

#include "core/vcpu.h"

/** Serves @exit. 1: go on; 0: leave to the client, vcpu->run is filled; -errno. */
int run_handle_exit(struct vcpu *vcpu, struct engine_exit *exit);
/** Emulates one instruction at RIP with what follows from it (single-step and breakpoint traps). @gpa: where its only memory operand is, for
 *  which the hardware has just walked; 0: unknown. In an srcu section. */
void vcpu_emulate(struct vcpu *vcpu, u64 gpa, struct engine_exit *exit);
/** The instruction at RIP, of @len bytes, is done by other means than the emulator: on to the next one. */
void vcpu_skip_insn(struct vcpu *vcpu, unsigned len);
/** After that: the traps of a single step. 1: go on; 0: the client's, vcpu->run is filled. */
int vcpu_insn_traps(struct vcpu *vcpu);
/** IN or OUT, not of strings, that the engine decoded: as run_handle_exit(). */
int vcpu_port_io(struct vcpu *vcpu, const struct engine_exit *exit);
/** Fills vcpu->run when a read, a write or an MSR access waits for the client. */
bool vcpu_io_ask(struct vcpu *vcpu);

#endif
