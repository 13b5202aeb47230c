/*
 * A vCPU's descriptor: creation, the ioctls that are no architecture's own, KVM_RUN's frame (mutex, signals, srcu), and how
 * other threads reach it - requests, kicks, sleep and wake.
 *
 * A kick is never lost: who wants the vCPU sets its request, then reads vcpu->place; the vCPU writes vcpu->place, then reads
 * its requests. One of the two sees the other.
 */
#include "core/vcpu.h"

#include "core/ioctl.h"
#include "core/memslot.h"
#include "core/stats.h"

/* Spinning before a sleep pays when the wake-up comes soon: it starts small, doubles while that holds, and ends when not. */
#define HALT_POLL_START_NS 5000
#define HALT_POLL_MAX_NS   40000

#define RUN_PAGES 2 /* kvm_run, PIO data */

static struct vcpu *of_file(struct host_file *file)
{
	return container_of(file, struct vcpu, file);
}

/* ---- from other threads -------------------------------------------------------------------------------------- */

void vcpu_kick(struct vcpu *vcpu)
{
	switch (__atomic_load_n(&vcpu->place, __ATOMIC_SEQ_CST)) {
	case VCPU_SLEEPING:
		host_wait_wake(&vcpu->wait);
		break;
	case VCPU_IN_GUEST:
		vcpu->vm->engine->kick(vcpu);
		host_thread_kick(__atomic_load_n(&vcpu->thread, __ATOMIC_RELAXED));
		break;
	}
}

/* Out of guest code, or went out and in again since REQ_ACK was set. */
static bool has_left_guest(struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->place, __ATOMIC_SEQ_CST) != VCPU_IN_GUEST || !vcpu_test_request(vcpu, REQ_ACK);
}

void vm_request_all(struct vm *vm, enum vcpu_request req, bool wait)
{
	u64 bits = BIT64(req) | (wait ? BIT64(REQ_ACK) : 0);
	struct vcpu *vcpu;
	unsigned i, round = 0;

	vm_for_each_vcpu(i, vcpu, vm) {
		__atomic_fetch_or(&vcpu->requests, bits, __ATOMIC_SEQ_CST);
		vcpu_kick(vcpu);
	}
	if (!wait)
		return;
	vm_for_each_vcpu(i, vcpu, vm)
		while (!has_left_guest(vcpu))
			host_backoff(round++);
}

void vm_synchronize(struct vm *vm)
{
	u64 ticket = host_srcu_begin(&vm->srcu);

	vm_request_all(vm, REQ_SLOTS, false);
	host_srcu_wait(&vm->srcu, ticket);
}

/* ---- in KVM_RUN ---------------------------------------------------------------------------------------------- */

static bool client_wants_exit(struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_ACQUIRE) || host_signal_pending();
}

int vcpu_check_exit(struct vcpu *vcpu)
{
	const u64 ours = BIT64(REQ_SLOTS) | BIT64(REQ_ACK) | BIT64(REQ_SIGNAL);

	if (unlikely(__atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE))) {
		u64 taken = __atomic_load_n(&vcpu->requests, __ATOMIC_ACQUIRE) & ours;

		if (taken)
			__atomic_fetch_and(&vcpu->requests, ~taken, __ATOMIC_SEQ_CST);
		if (taken & BIT64(REQ_SLOTS)) {
			vcpu_srcu_unlock(vcpu);
			vcpu_srcu_lock(vcpu);
		}
		if (vcpu_test_request(vcpu, REQ_EXIT))
			return -EIO;
		/* Stays until the client has reset the rings. */
		if (vcpu_test_request(vcpu, REQ_DIRTY_FULL) && dirty_ring_soft_full(vcpu)) {
			vcpu->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
			return 1;
		}
		vcpu_take_request(vcpu, REQ_DIRTY_FULL);
	}
	if (unlikely(client_wants_exit(vcpu))) {
		vcpu->run->exit_reason = KVM_EXIT_INTR;
		vcpu->stats->signal_exits++;
		return -EINTR;
	}
	return 0;
}

static bool sleep_over(struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) || vcpu->sleep_ready(vcpu) ||
	       __atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_ACQUIRE);
}

static bool wait_ready(struct host_wait *wait)
{
	return sleep_over(container_of(wait, struct vcpu, wait));
}

/* True when the wait ended while spinning. */
static bool poll_first(struct vcpu *vcpu, u64 start)
{
	unsigned i = 0;

	if (!vcpu->halt_poll_ns)
		return sleep_over(vcpu);
	vcpu->stats->halt_attempted_poll++;
	do {
		if (sleep_over(vcpu) || host_signal_pending()) {
			vcpu->stats->halt_successful_poll++;
			return true;
		}
		host_cpu_relax();
	} while (++i % 16 || host_now_ns() - start < vcpu->halt_poll_ns);
	return false;
}

static void adapt_poll(struct vcpu *vcpu, u64 slept_ns)
{
	if (slept_ns > HALT_POLL_MAX_NS * 2)
		vcpu->halt_poll_ns = 0;
	else if (!vcpu->halt_poll_ns)
		vcpu->halt_poll_ns = HALT_POLL_START_NS;
	else
		vcpu->halt_poll_ns = MIN(vcpu->halt_poll_ns * 2, HALT_POLL_MAX_NS);
}

int vcpu_sleep(struct vcpu *vcpu, bool (*ready)(struct vcpu *vcpu))
{
	u64 start = host_now_ns();
	int error = 0;

	vcpu->sleep_ready = ready;
	vcpu_srcu_unlock(vcpu);
	/* From here on kicks wake; what happened before is seen by sleep_over(). */
	__atomic_store_n(&vcpu->place, VCPU_SLEEPING, __ATOMIC_SEQ_CST);
	if (!poll_first(vcpu, start)) {
		error = host_wait_sleep(&vcpu->wait, wait_ready);
		if (!error)
			vcpu->stats->halt_wakeup++;
		adapt_poll(vcpu, host_now_ns() - start);
	}
	__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
	vcpu_srcu_lock(vcpu);
	return error;
}

static long vcpu_run(struct vcpu *vcpu)
{
	long r;

	__atomic_store_n(&vcpu->thread, host_thread_self(), __ATOMIC_RELAXED);
	host_run_begin(&vcpu->requests, BIT64(REQ_SIGNAL));
	if (unlikely(vcpu->sigmask_set))
		host_run_sigmask(vcpu->sigmask);
	__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
	vcpu_srcu_lock(vcpu);
	r = x86_vcpu_run(vcpu);
	vcpu_srcu_unlock(vcpu);
	__atomic_store_n(&vcpu->place, VCPU_OUTSIDE, __ATOMIC_SEQ_CST);
	vcpu_take_request(vcpu, REQ_SIGNAL);
	__atomic_store_n(&vcpu->thread, 0, __ATOMIC_RELAXED);
	return r;
}

/* ---- ioctls -------------------------------------------------------------------------------------------------- */

static long set_signal_mask(struct vcpu *vcpu, u64 arg)
{
	struct kvm_signal_mask head;
	u64 mask;

	if (!arg) {
		vcpu->sigmask_set = false;
		return 0;
	}
	if (host_copy_from_client(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.len != sizeof(mask))
		return -EINVAL;
	if (host_copy_from_client(&mask, arg + sizeof(head), sizeof(mask)))
		return -EFAULT;
	vcpu->sigmask = mask;
	vcpu->sigmask_set = true;
	return 0;
}

static long handle(struct host_file *file, unsigned cmd, u64 arg, void *data)
{
	struct vcpu *vcpu = of_file(file);
	long r;

	host_mutex_lock(&vcpu->mutex);
	if (unlikely(__atomic_load_n(&vcpu->vm->dead, __ATOMIC_ACQUIRE))) {
		host_mutex_unlock(&vcpu->mutex);
		return -EIO;
	}
	switch (cmd) {
	case KVM_RUN:
		r = -EINVAL;
		if (arg)
			break;
		r = vcpu_run(vcpu);
		host_mutex_unlock(&vcpu->mutex);
		host_run_end();
		return r;
	case KVM_SET_SIGNAL_MASK:
		r = set_signal_mask(vcpu, arg);
		break;
	case KVM_GET_STATS_FD:
		r = stats_open(vcpu->vm, &vcpu->stats_area);
		break;
	default:
		r = x86_vcpu_ioctl(vcpu, cmd, arg, data);
	}
	host_mutex_unlock(&vcpu->mutex);
	return r;
}

static long vcpu_ioctl(struct host_file *file, unsigned cmd, u64 arg)
{
	struct vcpu *vcpu = of_file(file);

	if (vcpu->vm->pid != host_client_pid())
		return -EIO;
	if (_IOC_TYPE(cmd) != KVMIO)
		return -EINVAL;
	return ioctl_dispatch(file, IOCTL_VCPU, cmd, arg, handle);
}

static struct host_shared *vcpu_mmap(struct host_file *file, u64 pgoff, u64 *index)
{
	struct vcpu *vcpu = of_file(file);

	if (pgoff < RUN_PAGES) {
		*index = pgoff;
		return &vcpu->run_area;
	}
	if (pgoff == KVM_COALESCED_MMIO_PAGE_OFFSET) {
		*index = 0;
		return &vcpu->vm->coalesced_ring;
	}
	if (pgoff >= KVM_DIRTY_LOG_PAGE_OFFSET &&
	    pgoff - KVM_DIRTY_LOG_PAGE_OFFSET < vcpu->dirty_ring.size >> HOST_PAGE_SHIFT) {
		*index = pgoff - KVM_DIRTY_LOG_PAGE_OFFSET;
		return &vcpu->dirty_ring;
	}
	return NULL;
}

static struct host_shared *vcpu_backing(struct host_file *file)
{
	return &of_file(file)->run_area;
}

static void vcpu_release(struct host_file *file)
{
	vm_put(of_file(file)->vm);
}

static const struct host_file_ops vcpu_ops = {
	.name = "kvm-vcpu",
	.ioctl = vcpu_ioctl,
	.mmap = vcpu_mmap,
	.backing = vcpu_backing,
	.release = vcpu_release,
};

/* ---- creation ------------------------------------------------------------------------------------------------ */

void vcpu_destroy(struct vcpu *vcpu)
{
	x86_vcpu_destroy(vcpu);
	vcpu->vm->engine->vcpu_destroy(vcpu);
	dirty_ring_destroy(vcpu);
	host_shared_free(&vcpu->stats_area);
	host_shared_free(&vcpu->run_area);
	host_wait_destroy(&vcpu->wait);
	host_mutex_destroy(&vcpu->mutex);
	host_free_pages(vcpu, vcpu->vm->engine->vcpu_size);
}

static int alloc_vcpu(struct vm *vm, u32 id, struct vcpu **out)
{
	struct vcpu *vcpu = host_zalloc_pages(vm->engine->vcpu_size);
	int error = -ENOMEM;

	if (!vcpu)
		return error;
	vcpu->file.ops = &vcpu_ops;
	vcpu->vm = vm;
	vcpu->id = id;
	host_mutex_init(&vcpu->mutex);
	host_wait_init(&vcpu->wait);
	if (host_shared_alloc(&vcpu->run_area, RUN_PAGES * HOST_PAGE_SIZE))
		goto free_vcpu;
	vcpu->run = vcpu->run_area.addr;
	if (stats_vcpu_init(vcpu))
		goto free_run;
	if (dirty_ring_create(vcpu))
		goto free_stats;
	error = vm->engine->vcpu_init(vcpu);
	if (error)
		goto free_ring;
	error = x86_vcpu_init(vcpu);
	if (error)
		goto destroy_engine;
	*out = vcpu;
	return 0;

destroy_engine:
	vm->engine->vcpu_destroy(vcpu);
free_ring:
	dirty_ring_destroy(vcpu);
free_stats:
	host_shared_free(&vcpu->stats_area);
free_run:
	host_shared_free(&vcpu->run_area);
free_vcpu:
	host_wait_destroy(&vcpu->wait);
	host_mutex_destroy(&vcpu->mutex);
	host_free_pages(vcpu, vm->engine->vcpu_size);
	return error;
}

int vm_create_vcpu(struct vm *vm, u32 id)
{
	struct vcpu *vcpu;
	int r;

	if (id >= VM_MAX_VCPU_ID)
		return -EINVAL;
	host_mutex_lock(&vm->lock);
	r = -EINVAL;
	if (vm->nr_vcpus >= VM_MAX_VCPUS)
		goto unlock;
	r = -EEXIST;
	if (vm_vcpu_by_id(vm, id))
		goto unlock;
	r = alloc_vcpu(vm, id, &vcpu);
	if (r)
		goto unlock;
	vcpu->idx = vm->nr_vcpus;
	/* Visible before the client can name it; the descriptor holds a reference to the VM. */
	vm_get(vm);
	__atomic_store_n(&vm->vcpus[vcpu->idx], vcpu, __ATOMIC_RELEASE);
	__atomic_store_n(&vm->nr_vcpus, vcpu->idx + 1, __ATOMIC_RELEASE);
	r = host_file_install(&vcpu->file);
	if (r < 0) {
		__atomic_store_n(&vm->nr_vcpus, vcpu->idx, __ATOMIC_RELEASE);
		__atomic_store_n(&vm->vcpus[vcpu->idx], NULL, __ATOMIC_RELEASE);
		/* Another thread may have found it: nothing that it did there sleeps outside of srcu. */
		vm_synchronize(vm);
		vcpu_destroy(vcpu);
		host_mutex_unlock(&vm->lock);
		vm_put(vm);
		return r;
	}
unlock:
	host_mutex_unlock(&vm->lock);
	return r;
}
