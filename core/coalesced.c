/*
 * Coalesced MMIO and PIO: writes to registered zones are put into a ring that the client drains when it next has a reason
 * to look, instead of an exit each. The ring is one page of the VM; the client owns @first, we own @last. (KVM API
 * document, KVM_REGISTER_COALESCED_MMIO.)
 */
#include "core/vcpu.h"

#define MAX_ZONES 1000
#define RING_ENTRIES KVM_COALESCED_MMIO_MAX_OF(HOST_PAGE_SIZE)
#define KVM_COALESCED_MMIO_MAX_OF(page)                                                            \
	(((page) - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

struct zone {
	u64 addr;
	u32 size;
	u8 space; /* enum io_space */
};

/* Replaced as a whole. */
struct coalesced_zones {
	unsigned count;
	struct zone zone[];
};

static struct coalesced_zones *copy_zones(const struct coalesced_zones *old, unsigned room)
{
	unsigned n = old ? old->count : 0;
	struct coalesced_zones *new = host_zalloc(sizeof(*new) + (n + room) * sizeof(new->zone[0]));

	if (new && old)
		memcpy(new->zone, old->zone, n * sizeof(new->zone[0]));
	return new;
}

static int register_zone(struct vm *vm, const struct kvm_coalesced_mmio_zone *args, enum io_space space)
{
	struct coalesced_zones *old, *new;
	int error = 0;

	host_mutex_lock(&vm->slots_lock);
	old = vm->coalesced;
	new = NULL;
	if (old && old->count >= MAX_ZONES) {
		error = -ENOSPC;
	} else {
		new = copy_zones(old, 1);
		error = new ? 0 : -ENOMEM;
	}
	if (!error) {
		new->count = (old ? old->count : 0) + 1;
		new->zone[new->count - 1] = (struct zone){ args->addr, args->size, space };
		__atomic_store_n(&vm->coalesced, new, __ATOMIC_RELEASE);
	}
	host_mutex_unlock(&vm->slots_lock);
	if (!error) {
		vm_synchronize(vm);
		host_free(old);
	}
	return error;
}

static bool zone_has(const struct zone *z, u64 addr, u64 len)
{
	return addr >= z->addr && len <= z->size && addr - z->addr <= z->size - len;
}

/* All zones that contain the range go; that there is none is no error. */
static int unregister_zone(struct vm *vm, const struct kvm_coalesced_mmio_zone *args, enum io_space space)
{
	struct coalesced_zones *old, *new;
	unsigned i;

	host_mutex_lock(&vm->slots_lock);
	old = vm->coalesced;
	if (!old) {
		host_mutex_unlock(&vm->slots_lock);
		return 0;
	}
	new = host_zalloc(sizeof(*new) + old->count * sizeof(new->zone[0]));
	if (!new) {
		host_mutex_unlock(&vm->slots_lock);
		return -ENOMEM;
	}
	for (i = 0; i < old->count; i++)
		if (old->zone[i].space != space || !zone_has(&old->zone[i], args->addr, args->size))
			new->zone[new->count++] = old->zone[i];
	__atomic_store_n(&vm->coalesced, new, __ATOMIC_RELEASE);
	host_mutex_unlock(&vm->slots_lock);
	vm_synchronize(vm);
	host_free(old);
	return 0;
}

long vm_ioctl_coalesced(struct vm *vm, unsigned cmd, const struct kvm_coalesced_mmio_zone *args)
{
	enum io_space space = args->pio ? IO_PIO : IO_MMIO;

	if (args->pio > 1)
		return -EINVAL;
	return cmd == KVM_REGISTER_COALESCED_MMIO ? register_zone(vm, args, space) : unregister_zone(vm, args, space);
}

/* Any vCPU writes, one at a time. */
bool coalesced_write(struct vm *vm, enum io_space space, u64 addr, unsigned len, const void *buf)
{
	struct coalesced_zones *zones = __atomic_load_n(&vm->coalesced, __ATOMIC_ACQUIRE);
	struct kvm_coalesced_mmio_ring *ring = vm->coalesced_ring.addr;
	struct kvm_coalesced_mmio *entry;
	unsigned long flags;
	bool room = false;
	u32 last, first;
	unsigned i;

	if (likely(!zones) || len > sizeof(entry->data))
		return false;
	for (i = 0; i < zones->count; i++)
		if (zones->zone[i].space == space && zone_has(&zones->zone[i], addr, len))
			break;
	if (i == zones->count)
		return false;
	flags = host_spin_lock(&vm->coalesced_lock);
	/* The client can write what it likes to both. */
	last = __atomic_load_n(&ring->last, __ATOMIC_RELAXED);
	first = __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE);
	if (last < RING_ENTRIES && (last + 1) % RING_ENTRIES != first % RING_ENTRIES) {
		entry = &ring->coalesced_mmio[last];
		entry->phys_addr = addr;
		entry->len = len;
		memcpy(entry->data, buf, len);
		entry->pio = space == IO_PIO;
		__atomic_store_n(&ring->last, (last + 1) % RING_ENTRIES, __ATOMIC_RELEASE);
		room = true;
	}
	host_spin_unlock(&vm->coalesced_lock, flags);
	return room;
}

int coalesced_init(struct vm *vm)
{
	int error = host_shared_alloc(&vm->coalesced_ring, HOST_PAGE_SIZE);

	if (!error)
		host_spin_init(&vm->coalesced_lock);
	return error;
}

void coalesced_destroy(struct vm *vm)
{
	host_free(vm->coalesced);
	host_spin_destroy(&vm->coalesced_lock);
	host_shared_free(&vm->coalesced_ring);
}
