/* Statistics of VMs and vCPUs. */
#ifndef CORE_STATS_H
#define CORE_STATS_H

#include "core/vm.h"

/** Build the area and set vm->stats, vcpu->stats. 0 or -ENOMEM. */
int stats_vm_init(struct vm *vm);
int stats_vcpu_init(struct vcpu *vcpu);
/** KVM_GET_STATS_FD: a new descriptor of @area, which lives as long as @vm. */
long stats_open(struct vm *vm, struct host_shared *area);

#endif
