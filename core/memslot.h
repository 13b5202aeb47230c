/* What vm.c, memslot.c and dirty.c share about memory slots; others read slots through core/vm.h. */
#ifndef CORE_MEMSLOT_H
#define CORE_MEMSLOT_H

#include "core/vm.h"

int memslots_init(struct vm *vm);
/** No vCPU runs any more. Also after a failed memslots_init(). */
void memslots_destroy(struct vm *vm);
/** The slot numbered @id, or NULL. Under slots_lock. */
struct memslot *memslot_by_id(const struct vm *vm, unsigned as_id, unsigned id);

/* dirty.c */
/** Gives @slot, not yet published, its bitmap where bitmaps are in use. 0 or -ENOMEM. */
int dirty_bitmap_alloc(struct vm *vm, struct memslot *slot);
void dirty_bitmap_free(struct memslot *slot);
long dirty_get_log(struct vm *vm, const struct kvm_dirty_log *log);
long dirty_clear_log(struct vm *vm, const struct kvm_clear_dirty_log *log);
/** KVM_CAP_DIRTY_LOG_RING, _ACQ_REL: @bytes of ring for each vCPU created from now on. */
int dirty_ring_enable(struct vm *vm, u64 bytes);
/** KVM_RESET_DIRTY_RINGS: takes back what the client has harvested; how many entries, or -EINVAL. */
long dirty_rings_reset(struct vm *vm);
int dirty_ring_create(struct vcpu *vcpu);
void dirty_ring_destroy(struct vcpu *vcpu);
/** The ring has passed its soft limit: the vCPU leaves with KVM_EXIT_DIRTY_RING_FULL instead of running. */
bool dirty_ring_soft_full(struct vcpu *vcpu);

#endif
