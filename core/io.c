/*
 * The buses of in-kernel devices: the interrupt chips, ioeventfds. A list is enough: it is short, and it is only walked
 * after memslots (MMIO) or nothing else (ports) wanted the access. Writers hold vm->slots_lock.
 */
#include "core/vcpu.h"

int io_device_register(struct vm *vm, enum io_space space, struct io_device *dev)
{
	host_mutex_lock(&vm->slots_lock);
	dev->next = vm->io[space];
	__atomic_store_n(&vm->io[space], dev, __ATOMIC_RELEASE);
	host_mutex_unlock(&vm->slots_lock);
	return 0;
}

void io_device_unregister(struct vm *vm, enum io_space space, struct io_device *dev)
{
	struct io_device **p;

	host_mutex_lock(&vm->slots_lock);
	for (p = &vm->io[space]; *p; p = &(*p)->next) {
		if (*p == dev) {
			__atomic_store_n(p, dev->next, __ATOMIC_RELEASE);
			break;
		}
	}
	host_mutex_unlock(&vm->slots_lock);
	vm_synchronize(vm);
}

void io_devices_destroy(struct vm *vm)
{
	unsigned space;

	for (space = 0; space < IO_SPACES; space++) {
		while (vm->io[space]) {
			struct io_device *dev = vm->io[space];

			vm->io[space] = dev->next;
			if (dev->ops->destroy)
				dev->ops->destroy(dev);
		}
	}
}

/* A device of length 0 takes accesses of any length at its address. */
static bool covers(const struct io_device *dev, u64 addr, unsigned len)
{
	if (!dev->len)
		return addr == dev->base;
	return addr >= dev->base && addr - dev->base < dev->len && len <= dev->len - (addr - dev->base);
}

int io_read(struct vcpu *vcpu, enum io_space space, u64 addr, unsigned len, void *buf)
{
	struct io_device *dev;

	for (dev = __atomic_load_n(&vcpu->vm->io[space], __ATOMIC_ACQUIRE); dev;
	     dev = __atomic_load_n(&dev->next, __ATOMIC_ACQUIRE))
		if (covers(dev, addr, len) && dev->ops->read && !dev->ops->read(dev, vcpu, addr, len, buf)) {
			io_tell(space, false, addr, len, buf);
			return 0;
		}
	return -EOPNOTSUPP;
}

int io_write(struct vcpu *vcpu, enum io_space space, u64 addr, unsigned len, const void *buf)
{
	struct io_device *dev;

	io_tell(space, true, addr, len, buf);
	for (dev = __atomic_load_n(&vcpu->vm->io[space], __ATOMIC_ACQUIRE); dev;
	     dev = __atomic_load_n(&dev->next, __ATOMIC_ACQUIRE))
		if (covers(dev, addr, len) && dev->ops->write && !dev->ops->write(dev, vcpu, addr, len, buf))
			return 0;
	return coalesced_write(vcpu->vm, space, addr, len, buf) ? 0 : -EOPNOTSUPP;
}
