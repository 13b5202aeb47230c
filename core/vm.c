/*
 * Virtual machines: the system descriptor's ioctls, a VM's life, the VM ioctls that are no architecture's own, and what
 * KVM_CHECK_EXTENSION answers about the files of this folder.
 */
#include "core/vm.h"

#include "core/ioctl.h"
#include "core/memslot.h"
#include "core/stats.h"
#include "core/vcpu.h"
#include "core/x86/cpuid.h"
#include "core/x86/irqchip/irqchip.h"

static const struct engine_ops *engine;

#define MANUAL_PROTECT_FLAGS (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)
#define RING_MAX_BYTES	     (65536 * sizeof(struct kvm_dirty_gfn))
/* kvm_run, PIO data, the coalesced ring */
#define RUN_MMAP_SIZE (3 * HOST_PAGE_SIZE)

int core_init(const struct engine_ops *ops)
{
	engine = ops;
	cpuid_engine_changed();
	return 0;
}

const struct engine_ops *core_engine(void)
{
	return engine;
}

/* ---- extensions ---------------------------------------------------------------------------------------------- */

int core_check_extension(struct vm *vm, u64 cap)
{
	switch (cap) {
	case KVM_CAP_USER_MEMORY:
	case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
	case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
	case KVM_CAP_SYNC_MMU:
	case KVM_CAP_READONLY_MEM:
	case KVM_CAP_INTERNAL_ERROR_DATA:
	case KVM_CAP_CHECK_EXTENSION_VM:
	case KVM_CAP_ENABLE_CAP:
	case KVM_CAP_ENABLE_CAP_VM:
	case KVM_CAP_IMMEDIATE_EXIT:
	case KVM_CAP_COALESCED_PIO:
	case KVM_CAP_IRQFD:
	case KVM_CAP_IRQFD_RESAMPLE:
	case KVM_CAP_IOEVENTFD:
	case KVM_CAP_IOEVENTFD_NO_LENGTH:
	case KVM_CAP_IOEVENTFD_ANY_LENGTH:
	case KVM_CAP_SIGNAL_MSI:
	case KVM_CAP_BINARY_STATS_FD:
	case KVM_CAP_HALT_POLL:
		return 1;
	case KVM_CAP_COALESCED_MMIO:
		return KVM_COALESCED_MMIO_PAGE_OFFSET;
	case KVM_CAP_NR_MEMSLOTS:
		return VM_MEM_SLOTS;
	case KVM_CAP_NR_VCPUS: /* recommended */
	case KVM_CAP_MAX_VCPUS:
		return VM_MAX_VCPUS;
	case KVM_CAP_MAX_VCPU_ID:
		return VM_MAX_VCPU_ID;
	case KVM_CAP_MULTI_ADDRESS_SPACE:
		return VM_ADDRESS_SPACES;
	case KVM_CAP_IRQ_ROUTING:
		return VM_MAX_IRQ_ROUTES;
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		return MANUAL_PROTECT_FLAGS;
	case KVM_CAP_DIRTY_LOG_RING:
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return RING_MAX_BYTES;
	default:
		return x86_check_extension(vm, cap);
	}
}

static long enable_cap(struct vm *vm, const struct kvm_enable_cap *cap)
{
	u64 allowed;
	long r;

	switch (cap->cap) {
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		/* INITIALLY_SET means nothing without the other. */
		allowed = cap->args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE ? MANUAL_PROTECT_FLAGS : 0;
		if (cap->flags || (cap->args[0] & ~allowed))
			return -EINVAL;
		host_mutex_lock(&vm->slots_lock);
		vm->manual_dirty_protect = cap->args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
		vm->dirty_init_set = cap->args[0] & KVM_DIRTY_LOG_INITIALLY_SET;
		host_mutex_unlock(&vm->slots_lock);
		return 0;
	case KVM_CAP_DIRTY_LOG_RING:
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return cap->flags ? -EINVAL : dirty_ring_enable(vm, cap->args[0]);
	case KVM_CAP_MAX_VCPU_ID:
		if (cap->flags || cap->args[0] > VM_MAX_VCPU_ID)
			return -EINVAL;
		host_mutex_lock(&vm->lock);
		/* It is said once */
		if (!vm->max_vcpu_ids)
			vm->max_vcpu_ids = cap->args[0];
		r = vm->max_vcpu_ids == cap->args[0] ? 0 : -EINVAL;
		host_mutex_unlock(&vm->lock);
		return r;
	case KVM_CAP_HALT_POLL:
		if (cap->flags || cap->args[0] != (u32)cap->args[0])
			return -EINVAL;
		__atomic_store_n(&vm->max_halt_poll_ns, cap->args[0], __ATOMIC_RELAXED);
		return 0;
	default:
		return x86_vm_enable_cap(vm, cap);
	}
}

/* ---- a VM's life --------------------------------------------------------------------------------------------- */

static void destroy(struct vm *vm)
{
	unsigned i;

	vm_irqfds_destroy(vm);
	vm_ioeventfds_destroy(vm);
	io_devices_destroy(vm);
	pit_destroy(vm); /* its timer asks the vCPUs whether they take the PIC's interrupt */
	for (i = 0; i < vm->nr_vcpus; i++)
		vcpu_destroy(vm->vcpus[i]);
	vm->nr_vcpus = 0;
	x86_vm_destroy(vm);
	vm->engine->vm_destroy(vm);
	coalesced_destroy(vm);
	memslots_destroy(vm);
	host_stats_hide(vm->stats_dir);
	host_shared_free(&vm->stats_area);
	host_srcu_destroy(&vm->srcu);
	host_spin_destroy(&vm->irq_lock);
	host_mutex_destroy(&vm->slots_lock);
	host_mutex_destroy(&vm->lock);
	host_client_put(vm->client);
	host_free_pages(vm, vm->engine->vm_size);
}

void vm_get(struct vm *vm)
{
	__atomic_fetch_add(&vm->users, 1, __ATOMIC_RELAXED);
}

void vm_put(struct vm *vm)
{
	if (!__atomic_sub_fetch(&vm->users, 1, __ATOMIC_ACQ_REL))
		destroy(vm);
}

struct vcpu *vm_vcpu_by_id(struct vm *vm, u32 id)
{
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, vm)
		if (vcpu->id == id)
			return vcpu;
	return NULL;
}

void vm_kill(struct vm *vm, const char *why)
{
	if (!__atomic_exchange_n(&vm->dead, true, __ATOMIC_SEQ_CST))
		host_log(HOST_LOG_ERROR, "trine: VM stopped: %s", why);
	vm_request_all(vm, REQ_EXIT, false);
}

/* ---- VM ioctls ----------------------------------------------------------------------------------------------- */

static struct vm *of_file(struct host_file *file)
{
	return container_of(file, struct vm, file);
}

static long handle_vm(struct host_file *file, unsigned cmd, u64 arg, void *data)
{
	struct vm *vm = of_file(file);

	switch (cmd) {
	case KVM_CREATE_VCPU:
		return arg > 0xffffffffU ? -EINVAL : vm_create_vcpu(vm, (u32)arg);
	case KVM_CHECK_EXTENSION:
		return core_check_extension(vm, arg);
	case KVM_ENABLE_CAP:
		return enable_cap(vm, data);
	case KVM_SET_USER_MEMORY_REGION:
		return vm_set_memory_region(vm, data);
	case KVM_GET_DIRTY_LOG:
		return dirty_get_log(vm, data);
	case KVM_CLEAR_DIRTY_LOG:
		return dirty_clear_log(vm, data);
	case KVM_RESET_DIRTY_RINGS:
		return dirty_rings_reset(vm);
	case KVM_REGISTER_COALESCED_MMIO:
	case KVM_UNREGISTER_COALESCED_MMIO:
		return vm_ioctl_coalesced(vm, cmd, data);
	case KVM_IRQFD:
		return vm_irqfd(vm, data);
	case KVM_IOEVENTFD:
		return vm_ioeventfd(vm, data);
	case KVM_GET_STATS_FD:
		return stats_open(vm, &vm->stats_area);
	default:
		return x86_vm_ioctl(vm, cmd, arg, data);
	}
}

static long vm_ioctl(struct host_file *file, unsigned cmd, u64 arg)
{
	struct vm *vm = of_file(file);

	/* A VM is its creator's: guest memory is a process's own. */
	if (!host_client_is_mine(vm->client) || __atomic_load_n(&vm->dead, __ATOMIC_ACQUIRE))
		return -EIO;
	return ioctl_dispatch(file, IOCTL_VM, cmd, arg, handle_vm);
}

static void vm_release(struct host_file *file)
{
	vm_put(of_file(file));
}

static const struct host_file_ops vm_ops = {
	.name = "kvm-vm",
	.ioctl = vm_ioctl,
	.release = vm_release,
};

/* ---- the system descriptor ----------------------------------------------------------------------------------- */

static long create_vm(u64 type)
{
	struct vm *vm;
	int error = -ENOMEM, fd;

	if (type)
		return -EINVAL;
	vm = host_zalloc_pages(engine->vm_size);
	if (!vm)
		return -ENOMEM;
	vm->file.ops = &vm_ops;
	vm->users = 1;
	vm->engine = engine;
	vm->max_halt_poll_ns = HALT_POLL_NS;
	vm->client = host_client_get();
	vm->pid = host_client_pid();
	host_mutex_init(&vm->lock);
	host_mutex_init(&vm->slots_lock);
	host_spin_init(&vm->irq_lock);
	if (host_srcu_init(&vm->srcu))
		goto free_vm;
	if (memslots_init(vm) || stats_vm_init(vm))
		goto free_slots;
	if (coalesced_init(vm))
		goto free_stats;
	error = engine->vm_init(vm);
	if (error)
		goto free_coalesced;
	error = x86_vm_init(vm);
	if (error)
		goto destroy_engine;
	vm_get(vm); /* another thread may close the descriptor at once */
	fd = host_file_install(&vm->file);
	if (fd < 0) {
		vm_put(vm);
	} else {
		char name[32];

		host_snprintf(name, sizeof(name), "%u-%d", vm->pid, fd);
		host_mutex_lock(&vm->lock);
		vm->stats_dir = host_stats_show(NULL, name, &vm->stats_area);
		host_mutex_unlock(&vm->lock);
	}
	vm_put(vm);
	return fd;

destroy_engine:
	engine->vm_destroy(vm);
free_coalesced:
	coalesced_destroy(vm);
free_stats:
	host_shared_free(&vm->stats_area);
free_slots:
	memslots_destroy(vm);
	host_srcu_destroy(&vm->srcu);
free_vm:
	host_spin_destroy(&vm->irq_lock);
	host_mutex_destroy(&vm->slots_lock);
	host_mutex_destroy(&vm->lock);
	host_client_put(vm->client);
	host_free_pages(vm, engine->vm_size);
	return error;
}

static long handle_system(struct host_file *file, unsigned cmd, u64 arg, void *data)
{
	switch (cmd) {
	case KVM_GET_API_VERSION:
		return arg ? -EINVAL : KVM_API_VERSION;
	case KVM_CREATE_VM:
		return create_vm(arg);
	case KVM_CHECK_EXTENSION:
		return core_check_extension(NULL, arg);
	case KVM_GET_VCPU_MMAP_SIZE:
		return arg ? -EINVAL : (long)RUN_MMAP_SIZE;
	case KVM_TRACE_ENABLE:
	case KVM_TRACE_PAUSE:
	case KVM_TRACE_DISABLE:
		return -EOPNOTSUPP;
	default:
		return x86_system_ioctl(cmd, arg, data);
	}
}

long core_system_ioctl(unsigned cmd, u64 arg)
{
	return ioctl_dispatch(NULL, IOCTL_SYSTEM, cmd, arg, handle_system);
}
