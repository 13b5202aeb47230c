/* KVM_RUN's inner interface: run.c and vcpu_emul.c. */
#ifndef CORE_X86_RUN_H
#define CORE_X86_RUN_H

#include "core/vcpu.h"

/** Serves @exit. 1: go on; 0: leave to the client, vcpu->run is filled; -errno. */
int run_handle_exit(struct vcpu *vcpu, struct engine_exit *exit);
/** Emulates one instruction at RIP with what follows from it (single-step and breakpoint traps). In an srcu section. */
void vcpu_emulate(struct vcpu *vcpu, struct engine_exit *exit);
/** Fills vcpu->run when a read, a write or an MSR access waits for the client. */
bool vcpu_io_ask(struct vcpu *vcpu);

#endif
