/*
 * An engine that runs no guest: what tests of core itself stand on. It hands out the last VM and its vCPUs as they are made.
 */
#ifndef TESTS_NULL_ENGINE_H
#define TESTS_NULL_ENGINE_H

#include "core/vcpu.h"

#define NULL_MAX_VCPUS 4

static struct vm *null_vm_created;
static struct vcpu *null_vcpu_created[NULL_MAX_VCPUS];
static unsigned null_nr_vcpus;

static int null_vm_init(struct vm *v) 
{
	null_vm_created = v;
	return 0;
}
static void null_vm_destroy(struct vm *v)
{
}
static int null_vcpu_init(struct vcpu *v) 
{
	if (null_nr_vcpus < NULL_MAX_VCPUS)
		null_vcpu_created[null_nr_vcpus++] = v;
	return 0;
}
static void null_vcpu_destroy(struct vcpu *v)
{
}
static void null_state(struct vcpu *v, unsigned groups)
{
}
static void null_run(struct vcpu *v, struct engine_exit *exit) 
{
	exit->reason = EXIT_SHUTDOWN;
}
static void null_inject(struct vcpu *v, const struct x86_event *ev)
{
}
static void null_window(struct vcpu *v, bool nmi)
{
}
static void null_kick(struct vcpu *v)
{
}
static void null_tlb(struct vcpu *v, enum tlb_scope scope, u64 arg)
{
}
static void null_slot(struct vm *v, const struct memslot *old)
{
}
static void null_protect(struct vm *v, const struct memslot *slot, u64 offset, u64 mask)
{
}
static void null_done(struct vm *v)
{
}

static const struct engine_ops null_engine = {
	.name = "null", .vm_size = sizeof(struct vm), .vcpu_size = sizeof(struct vcpu),
	.vm_init = null_vm_init, .vm_destroy = null_vm_destroy, .vcpu_init = null_vcpu_init,
	.vcpu_destroy = null_vcpu_destroy, .state_changed = null_state, .state_sync = null_state, .vcpu_run = null_run,
	.inject = null_inject, .request_window = null_window, .kick = null_kick, .tlb_flush = null_tlb,
	.slot_flush = null_slot, .slot_write_protect = null_protect, .slot_flush_done = null_done,
};

#endif
