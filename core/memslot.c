/*
 * Memory slots: which client memory stands behind which guest-physical addresses. A set of slots is replaced as a whole
 * (vm->slots[as], under vm->slots_lock, read under srcu); the engine hears of each slot that goes before it is freed.
 */
#include "core/memslot.h"

#include "core/vcpu.h"

#define MAX_PAGES (BIT64(31) - 1) /* of one slot, as with Linux: the bitmap's size stays within bounds */
#define GFN_LIMIT BIT64(GPA_BITS - HOST_PAGE_SHIFT)

static struct memslots *memslots_alloc(unsigned room)
{
	struct memslots *set = host_zalloc(sizeof(*set) + room * sizeof(set->slot[0]));

	if (set)
		set->room = room;
	return set;
}

static bool slot_has(const struct memslot *slot, u64 gfn)
{
	return gfn - slot->base_gfn < slot->npages;
}

struct memslot *memslot_find(struct memslots *slots, u64 gfn)
{
	unsigned low = 0, high = slots->count, hint = __atomic_load_n(&slots->last_used, __ATOMIC_RELAXED);

	if (likely(hint < high && slot_has(slots->slot[hint], gfn)))
		return slots->slot[hint];
	while (low < high) {
		unsigned mid = low + (high - low) / 2;
		struct memslot *slot = slots->slot[mid];

		if (slot_has(slot, gfn)) {
			__atomic_store_n(&slots->last_used, mid, __ATOMIC_RELAXED);
			return slot;
		}
		if (gfn < slot->base_gfn)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

struct memslot *memslot_by_id(const struct vm *vm, unsigned as_id, unsigned id)
{
	return id < vm->slot_ids[as_id].room ? vm->slot_ids[as_id].slot[id] : NULL;
}

u64 vm_gpa_to_hva(struct vm *vm, unsigned as_id, u64 gpa, struct memslot **found)
{
	struct memslot *slot = memslot_find(vm_slots(vm, as_id), gpa >> HOST_PAGE_SHIFT);

	if (found)
		*found = slot;
	return slot ? slot->hva + (gpa - (slot->base_gfn << HOST_PAGE_SHIFT)) : 0;
}

/* How much of an access of @len at @gpa stays within its page. */
static size_t in_page(u64 gpa, size_t len)
{
	return MIN(len, HOST_PAGE_SIZE - (gpa & (HOST_PAGE_SIZE - 1)));
}

int vm_read_guest(struct vm *vm, unsigned as_id, u64 gpa, void *buf, size_t len)
{
	while (len) {
		size_t n = in_page(gpa, len);
		u64 hva = vm_gpa_to_hva(vm, as_id, gpa, NULL);

		if (!hva || host_copy_from_client(buf, hva, n))
			return -EFAULT;
		buf = (u8 *)buf + n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int vm_write_guest(struct vm *vm, struct vcpu *vcpu, unsigned as_id, u64 gpa, const void *buf, size_t len)
{
	while (len) {
		size_t n = in_page(gpa, len);
		struct memslot *slot;
		u64 hva = vm_gpa_to_hva(vm, as_id, gpa, &slot);

		if (!hva || (slot->flags & KVM_MEM_READONLY) || host_copy_to_client(hva, buf, n))
			return -EFAULT;
		dirty_mark(vm, vcpu, slot, gpa >> HOST_PAGE_SHIFT);
		vm_guest_written(vm, gpa, n);
		buf = (const u8 *)buf + n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int vm_cmpxchg_guest(struct vm *vm, struct vcpu *vcpu, unsigned as_id, u64 gpa, void *old, const void *new, unsigned len)
{
	struct memslot *slot;
	u64 hva = vm_gpa_to_hva(vm, as_id, gpa, &slot);
	int r;

	if (!hva || (slot->flags & KVM_MEM_READONLY))
		return -EFAULT;
	r = host_client_cmpxchg(hva, old, new, len);
	if (!r) {
		dirty_mark(vm, vcpu, slot, gpa >> HOST_PAGE_SHIFT);
		vm_guest_written(vm, gpa, len);
	}
	return r;
}

/* ---- changes, under vm->slots_lock --------------------------------------------------------------------------- */

/* Room for @id in the table by ID: 0, -ENOMEM. */
static int id_room(struct vm *vm, unsigned as_id, unsigned id)
{
	unsigned room = vm->slot_ids[as_id].room, more = MAX(room, 32U);
	struct memslot **slot;

	if (id < room)
		return 0;
	while (more <= id)
		more *= 2;
	slot = host_zalloc(more * sizeof(*slot));
	if (!slot)
		return -ENOMEM;
	if (room)
		memcpy(slot, vm->slot_ids[as_id].slot, room * sizeof(*slot));
	host_free(vm->slot_ids[as_id].slot);
	vm->slot_ids[as_id].slot = slot;
	vm->slot_ids[as_id].room = more;
	return 0;
}

/* How many begin below @gfn. */
static unsigned count_below(const struct memslots *slots, u64 gfn)
{
	unsigned low = 0, high = slots->count;

	while (low < high) {
		unsigned mid = low + (high - low) / 2;

		if (slots->slot[mid]->base_gfn < gfn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool overlaps(const struct memslots *slots, const struct memslot *new)
{
	unsigned i = count_below(slots, new->base_gfn);

	/* They do not overlap each other: of those below only the last can reach so far */
	for (i -= i > 0; i < slots->count && slots->slot[i]->base_gfn < new->base_gfn + new->npages; i++) {
		const struct memslot *s = slots->slot[i];

		if (s->id != new->id && new->base_gfn < s->base_gfn + s->npages)
			return true;
	}
	return false;
}

/* A set to be filled: the spare one when it is large enough. */
static struct memslots *take_spare(struct vm *vm, unsigned as_id, unsigned count)
{
	struct memslots *set = vm->spare_slots[as_id];

	vm->spare_slots[as_id] = NULL;
	if (set && set->room >= count)
		return set;
	host_free(set);
	return memslots_alloc(count + count / 2);
}

/* The set without @old (or NULL) and with @new (or NULL), sorted. */
static struct memslots *replaced(struct vm *vm, unsigned as_id, const struct memslot *old, struct memslot *new)
{
	const struct memslots *slots = vm->slots[as_id];
	unsigned count = slots->count - !!old, from, to;
	struct memslots *set = take_spare(vm, as_id, count + 1);

	if (!set)
		return NULL;
	set->last_used = 0;
	set->generation = slots->generation + 1;
	set->count = count + !!new;
	from = old ? count_below(slots, old->base_gfn) : count;
	memcpy(set->slot, slots->slot, from * sizeof(set->slot[0]));
	memcpy(set->slot + from, slots->slot + from + !!old, (count - from) * sizeof(set->slot[0]));
	if (new) {
		to = count_below(slots, new->base_gfn);
		if (old && from < to)
			to--;
		memmove(set->slot + to + 1, set->slot + to, (count - to) * sizeof(set->slot[0]));
		set->slot[to] = new;
	}
	return set;
}

static void free_slot(struct memslot *slot, const struct memslot *successor)
{
	if (!successor || successor->dirty_bitmap != slot->dirty_bitmap)
		dirty_bitmap_free(slot);
	host_free(slot);
}

/* There is room for its ID. */
static int publish(struct vm *vm, unsigned as_id, struct memslot *old, struct memslot *new)
{
	struct memslots *before = vm->slots[as_id], *after = replaced(vm, as_id, old, new);

	if (!after)
		return -ENOMEM;
	vm->slot_ids[as_id].slot[(old ? old : new)->id] = new;
	__atomic_store_n(&vm->leaving, old, __ATOMIC_RELEASE);
	__atomic_store_n(&vm->slots[as_id], after, __ATOMIC_RELEASE);
	if (old)
		vm->engine->slot_flush(vm, old);
	__atomic_store_n(&vm->leaving, NULL, __ATOMIC_RELEASE);
	vm_synchronize(vm);
	vm->spare_slots[as_id] = before;
	if (old)
		free_slot(old, new);
	return 0;
}

/* What @region asks of @old (NULL: there is none): 1 nothing, 0 go on, -errno. */
static int check_change(const struct memslot *old, const struct memslot *new)
{
	if (!old)
		return 0;
	/* Only the place and dirty logging of a slot can change. */
	if (new->hva != old->hva || new->npages != old->npages || ((new->flags ^ old->flags) & KVM_MEM_READONLY))
		return -EINVAL;
	return new->base_gfn == old->base_gfn && new->flags == old->flags;
}

static int set_slot(struct vm *vm, const struct memslot *wanted)
{
	struct memslots *slots = vm->slots[wanted->as_id];
	struct memslot *old = memslot_by_id(vm, wanted->as_id, wanted->id), *new;
	int error;

	if (!wanted->npages)
		return old ? publish(vm, wanted->as_id, old, NULL) : -EINVAL;
	error = check_change(old, wanted);
	if (error)
		return error < 0 ? error : 0;
	if (overlaps(slots, wanted))
		return -EEXIST;
	error = id_room(vm, wanted->as_id, wanted->id);
	if (error)
		return error;
	new = host_zalloc(sizeof(*new));
	if (!new)
		return -ENOMEM;
	*new = *wanted;
	if (new->flags & KVM_MEM_LOG_DIRTY_PAGES) {
		if (old && old->dirty_bitmap && old->base_gfn == new->base_gfn)
			new->dirty_bitmap = old->dirty_bitmap;
		else
			error = dirty_bitmap_alloc(vm, new);
	}
	if (!error)
		error = publish(vm, wanted->as_id, old, new);
	if (error) {
		free_slot(new, old);
		return error;
	}
	return 0;
}

int vm_set_memory_region(struct vm *vm, const struct kvm_userspace_memory_region *r)
{
	struct memslot wanted = {
		.base_gfn = r->guest_phys_addr >> HOST_PAGE_SHIFT,
		.npages = r->memory_size >> HOST_PAGE_SHIFT,
		.hva = r->userspace_addr,
		.flags = r->flags,
		.id = (u16)r->slot,
		.as_id = (u16)(r->slot >> 16),
	};
	int error;

	if (r->flags & ~(u32)(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return -EINVAL;
	if ((r->memory_size | r->guest_phys_addr | r->userspace_addr) & (HOST_PAGE_SIZE - 1))
		return -EINVAL;
	if (!host_client_range_ok(r->userspace_addr, r->memory_size))
		return -EINVAL;
	if (wanted.as_id >= VM_ADDRESS_SPACES || wanted.id >= VM_MEM_SLOTS)
		return -EINVAL;
	if (r->guest_phys_addr + r->memory_size < r->guest_phys_addr || wanted.npages > MAX_PAGES)
		return -EINVAL;
	if (wanted.npages && wanted.base_gfn + wanted.npages > GFN_LIMIT)
		return -EINVAL;
	host_mutex_lock(&vm->slots_lock);
	error = set_slot(vm, &wanted);
	host_mutex_unlock(&vm->slots_lock);
	return error;
}

int memslots_init(struct vm *vm)
{
	unsigned as;

	for (as = 0; as < VM_ADDRESS_SPACES; as++) {
		vm->slots[as] = memslots_alloc(0);
		if (!vm->slots[as])
			return -ENOMEM;
	}
	return 0;
}

void memslots_destroy(struct vm *vm)
{
	unsigned as, i;

	for (as = 0; as < VM_ADDRESS_SPACES; as++) {
		for (i = 0; vm->slots[as] && i < vm->slots[as]->count; i++)
			free_slot(vm->slots[as]->slot[i], NULL);
		host_free(vm->slots[as]);
		host_free(vm->spare_slots[as]);
		host_free(vm->slot_ids[as].slot);
		vm->slots[as] = NULL;
	}
}
