/* The engine of trine-null.ko: each entry of guest code takes a CPU through interrupts and leaves as a shutdown. */
#include "tests/null_engine.h"

static void run(struct vcpu *vcpu, struct engine_exit *exit)
{
	host_irq_off();
	exit->reason = host_must_leave() || vcpu_must_exit(vcpu) ? EXIT_NONE : EXIT_SHUTDOWN;
	host_irq_on();
}

const struct engine_ops null_module_engine = {
	.name = "null", .vm_size = sizeof(struct vm), .vcpu_size = sizeof(struct vcpu),
	.vm_init = null_vm_init, .vm_destroy = null_vm_destroy, .vcpu_init = null_vcpu_init,
	.vcpu_destroy = null_vcpu_destroy, .state_changed = null_state, .state_sync = null_state, .vcpu_run = run,
	.inject = null_inject, .request_window = null_window, .kick = null_kick, .tlb_flush = null_tlb,
	.slot_flush = null_slot, .slot_write_protect = null_protect, .slot_flush_done = null_done,
};
