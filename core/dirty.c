/*
 * Which pages the guest has written since the client last asked: a bitmap for each logged slot (KVM_GET_DIRTY_LOG,
 * KVM_CLEAR_DIRTY_LOG), or a ring for each vCPU that the client maps (KVM_CAP_DIRTY_LOG_RING, KVM API document 8.29).
 *
 * A page is marked when it becomes writable for a vCPU, not at every write: the engine must forget that it may write to a page when its
 * mark is taken away (slot_write_protect), and has forgotten everywhere when slot_flush_done() returns.
 */
#include "core/memslot.h"
#include "core/vcpu.h"

#define RING_MAX_ENTRIES 65536
/* Left free when the soft limit is reached: what one entry of guest code may still mark before it can be made to leave. */
#define RING_RESERVED 64

static_assert(sizeof(struct kvm_dirty_gfn) == 16, "ABI");

static u64 bitmap_bytes(const struct memslot *slot)
{
	return ROUND_UP(slot->npages, 64) / 8;
}

int dirty_bitmap_alloc(struct vm *vm, struct memslot *slot)
{
	if (vm->dirty_ring_bytes)
		return 0;
	slot->dirty_bitmap = host_zalloc_pages(bitmap_bytes(slot));
	if (!slot->dirty_bitmap)
		return -ENOMEM;
	if (vm->dirty_init_set) {
		memset(slot->dirty_bitmap, 0xff, bitmap_bytes(slot));
		if (slot->npages % 64)
			slot->dirty_bitmap[slot->npages / 64] = BIT64(slot->npages % 64) - 1;
	}
	return 0;
}

void dirty_bitmap_free(struct memslot *slot)
{
	if (slot->dirty_bitmap)
		host_free_pages(slot->dirty_bitmap, bitmap_bytes(slot));
	slot->dirty_bitmap = NULL;
}

/* ---- the ring ------------------------------------------------------------------------------------------------ */

int dirty_ring_enable(struct vm *vm, u64 bytes)
{
	int error = 0;

	if (!bytes || (bytes & (bytes - 1)) || bytes < HOST_PAGE_SIZE ||
	    bytes < RING_RESERVED * sizeof(struct kvm_dirty_gfn))
		return -EINVAL;
	if (bytes > RING_MAX_ENTRIES * sizeof(struct kvm_dirty_gfn))
		return -E2BIG;
	host_mutex_lock(&vm->lock);
	/* Once, and before there are vCPUs. */
	if (vm->dirty_ring_bytes || vm->nr_vcpus)
		error = -EINVAL;
	else
		vm->dirty_ring_bytes = (u32)bytes;
	host_mutex_unlock(&vm->lock);
	return error;
}

int dirty_ring_create(struct vcpu *vcpu)
{
	u32 bytes = vcpu->vm->dirty_ring_bytes;

	if (!bytes)
		return 0;
	vcpu->dirty_ring_size = bytes / sizeof(struct kvm_dirty_gfn);
	vcpu->dirty_soft_limit = vcpu->dirty_ring_size - RING_RESERVED;
	return host_shared_alloc(&vcpu->dirty_ring, bytes);
}

void dirty_ring_destroy(struct vcpu *vcpu)
{
	host_shared_free(&vcpu->dirty_ring);
}

static struct kvm_dirty_gfn *ring_entry(struct vcpu *vcpu, u32 index)
{
	return (struct kvm_dirty_gfn *)vcpu->dirty_ring.addr + (index & (vcpu->dirty_ring_size - 1));
}

static u32 ring_used(struct vcpu *vcpu)
{
	return vcpu->dirty_index - __atomic_load_n(&vcpu->dirty_reset_index, __ATOMIC_ACQUIRE);
}

bool dirty_ring_soft_full(struct vcpu *vcpu)
{
	return vcpu->dirty_ring_size && ring_used(vcpu) >= vcpu->dirty_soft_limit;
}

/* On the vCPU's own thread. */
static void ring_push(struct vcpu *vcpu, const struct memslot *slot, u64 gfn)
{
	struct kvm_dirty_gfn *entry = ring_entry(vcpu, vcpu->dirty_index);

	/* Cannot happen while the engine leaves when it is told to; losing a mark would be worse than losing the guest. */
	if (unlikely(ring_used(vcpu) >= vcpu->dirty_ring_size)) {
		vm_kill(vcpu->vm, "a dirty ring overflowed");
		return;
	}
	entry->slot = (u32)slot->as_id << 16 | slot->id;
	entry->offset = gfn - slot->base_gfn;
	host_event_dirty_ring_push(vcpu->idx, vcpu->dirty_index, __atomic_load_n(&vcpu->dirty_reset_index, __ATOMIC_RELAXED),
				   entry->slot, entry->offset);
	__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
	vcpu->dirty_index++;
	if (unlikely(dirty_ring_soft_full(vcpu)))
		vcpu_set_request(vcpu, REQ_DIRTY_FULL);
}

/* The marks of @mask, relative to @offset in slot @id, go: the pages must be marked again. The client wrote these numbers. */
static void protect(struct vm *vm, u32 id, u64 offset, u64 mask)
{
	unsigned as = id >> 16;
	struct memslot *slot;

	if (as >= VM_ADDRESS_SPACES || !mask)
		return;
	slot = memslot_by_id(vm, as, id & 0xffff);
	if (!slot || offset >= slot->npages)
		return;
	if (slot->npages - offset < 64)
		mask &= BIT64(slot->npages - offset) - 1;
	if (mask)
		vm->engine->slot_write_protect(vm, slot, offset, mask);
}

/* Neighbouring pages go to the engine together. */
static u32 ring_reset(struct vm *vm, struct vcpu *vcpu)
{
	u32 count = 0, index = vcpu->dirty_reset_index, slot = 0;
	u64 offset = 0, mask = 0;

	while (count < vcpu->dirty_ring_size) {
		struct kvm_dirty_gfn *entry = ring_entry(vcpu, index);
		u64 at;

		if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_RESET))
			break;
		at = entry->offset;
		if (!mask || entry->slot != slot || at < offset || at - offset >= 64) {
			protect(vm, slot, offset, mask);
			slot = entry->slot;
			offset = at;
			mask = 0;
		}
		mask |= BIT64(at - offset);
		__atomic_store_n(&entry->flags, 0, __ATOMIC_RELEASE);
		index++;
		count++;
	}
	protect(vm, slot, offset, mask);
	__atomic_store_n(&vcpu->dirty_reset_index, index, __ATOMIC_RELEASE);
	host_event_dirty_ring_reset(vcpu->idx, __atomic_load_n(&vcpu->dirty_index, __ATOMIC_RELAXED), index);
	return count;
}

long dirty_rings_reset(struct vm *vm)
{
	struct vcpu *vcpu;
	long count = 0;
	unsigned i;

	if (!vm->dirty_ring_bytes)
		return -EINVAL;
	host_mutex_lock(&vm->slots_lock);
	vm_for_each_vcpu(i, vcpu, vm)
		count += ring_reset(vm, vcpu);
	if (count)
		vm->engine->slot_flush_done(vm);
	host_mutex_unlock(&vm->slots_lock);
	return count;
}

/* ---- marking ------------------------------------------------------------------------------------------------- */

void dirty_mark(struct vm *vm, struct vcpu *vcpu, struct memslot *slot, u64 gfn)
{
	u64 page = gfn - slot->base_gfn, *word;

	if (!memslot_logs_dirty(slot))
		return;
	if (slot->dirty_bitmap) {
		word = &slot->dirty_bitmap[page / 64];
		if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & BIT64(page % 64)))
			__atomic_fetch_or(word, BIT64(page % 64), __ATOMIC_SEQ_CST);
	} else if (vcpu && vcpu->dirty_ring_size) {
		ring_push(vcpu, slot, gfn);
	}
}

/* ---- the bitmap's ioctls ------------------------------------------------------------------------------------- */

/* The logged slot @id, or NULL and *@error. */
static struct memslot *logged_slot(struct vm *vm, u32 id, int *error)
{
	unsigned as = id >> 16;
	struct memslot *slot;

	*error = -ENXIO;
	if (vm->dirty_ring_bytes)
		return NULL;
	*error = -EINVAL;
	if (as >= VM_ADDRESS_SPACES || (id & 0xffff) >= VM_MEM_SLOTS)
		return NULL;
	*error = -ENOENT;
	slot = memslot_by_id(vm, as, id & 0xffff);
	return slot && slot->dirty_bitmap ? slot : NULL;
}

/* Takes the marks of @words words from word @first on into @to. */
static void take_marks(struct vm *vm, struct memslot *slot, u64 *to, u64 words)
{
	bool any = false;
	u64 i;

	for (i = 0; i < words; i++) {
		if (!__atomic_load_n(&slot->dirty_bitmap[i], __ATOMIC_RELAXED))
			continue;
		to[i] = __atomic_exchange_n(&slot->dirty_bitmap[i], 0, __ATOMIC_SEQ_CST);
		vm->engine->slot_write_protect(vm, slot, i * 64, to[i]);
		any = true;
	}
	if (any)
		vm->engine->slot_flush_done(vm);
}

long dirty_get_log(struct vm *vm, const struct kvm_dirty_log *log)
{
	struct memslot *slot;
	u64 *copy, bytes;
	int error;

	host_mutex_lock(&vm->slots_lock);
	slot = logged_slot(vm, log->slot, &error);
	if (!slot)
		goto unlock;
	bytes = bitmap_bytes(slot);
	if (vm->engine->slot_dirty_sync)
		vm->engine->slot_dirty_sync(vm);
	if (vm->manual_dirty_protect) {
		error = host_copy_to_client((u64)(uintptr_t)log->dirty_bitmap, slot->dirty_bitmap, bytes);
		goto unlock;
	}
	error = -ENOMEM;
	copy = host_zalloc_pages(bytes);
	if (!copy)
		goto unlock;
	take_marks(vm, slot, copy, bytes / 8);
	error = host_copy_to_client((u64)(uintptr_t)log->dirty_bitmap, copy, bytes);
	host_free_pages(copy, bytes);
unlock:
	host_mutex_unlock(&vm->slots_lock);
	return error;
}

/* The marks that the client names go; those it does not name stay. */
static void clear_marks(struct vm *vm, struct memslot *slot, u64 first_page, const u64 *wanted, u64 words)
{
	bool any = false;
	u64 i;

	for (i = 0; i < words; i++) {
		u64 *word = &slot->dirty_bitmap[first_page / 64 + i], mask;

		if (!wanted[i])
			continue;
		mask = __atomic_fetch_and(word, ~wanted[i], __ATOMIC_SEQ_CST) & wanted[i];
		if (!mask)
			continue;
		vm->engine->slot_write_protect(vm, slot, first_page + i * 64, mask);
		any = true;
	}
	if (any)
		vm->engine->slot_flush_done(vm);
}

long dirty_clear_log(struct vm *vm, const struct kvm_clear_dirty_log *log)
{
	u64 bytes = ROUND_UP((u64)log->num_pages, 64) / 8, *wanted;
	struct memslot *slot;
	int error;

	if (vm->dirty_ring_bytes)
		return -ENXIO;
	if (log->first_page % 64)
		return -EINVAL;
	host_mutex_lock(&vm->slots_lock);
	slot = logged_slot(vm, log->slot, &error);
	if (!slot)
		goto unlock;
	error = -EINVAL;
	/* Whole words, but for the slot's own end. */
	if (log->first_page > slot->npages || log->num_pages > slot->npages - log->first_page ||
	    (log->num_pages < slot->npages - log->first_page && log->num_pages % 64))
		goto unlock;
	error = 0;
	if (!bytes)
		goto unlock;
	error = -ENOMEM;
	wanted = host_zalloc_pages(bytes);
	if (!wanted)
		goto unlock;
	error = host_copy_from_client(wanted, (u64)(uintptr_t)log->dirty_bitmap, bytes);
	if (!error)
		clear_marks(vm, slot, log->first_page, wanted, bytes / 8);
	host_free_pages(wanted, bytes);
unlock:
	host_mutex_unlock(&vm->slots_lock);
	return error;
}
