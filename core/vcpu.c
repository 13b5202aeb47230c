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
#define HALT_POLL_LOOKS	   16 /* before the host is asked again */

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
		host_sched_kick(&vcpu->sched);
		break;
	}
}

/* Out of guest code, or went out and in again since REQ_ACK was set. */
static bool has_left_guest(struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->place, __ATOMIC_SEQ_CST) != VCPU_IN_GUEST || !vcpu_test_request(vcpu, REQ_ACK);
}

static bool among(const u64 *which, unsigned i)
{
	return !which || (which[i / 64] & BIT64(i % 64));
}

static void request(struct vm *vm, u64 bits, const u64 *which)
{
	struct vcpu *vcpu;
	unsigned i;

	vm_for_each_vcpu(i, vcpu, vm) {
		if (!among(which, i))
			continue;
		__atomic_fetch_or(&vcpu->requests, bits, __ATOMIC_SEQ_CST);
		vcpu_kick(vcpu);
	}
}

void vm_request_some(struct vm *vm, enum vcpu_request req, const u64 *which)
{
	request(vm, BIT64(req) | BIT64(REQ_ACK), which);
}

void vm_wait_left(struct vm *vm, const u64 *which)
{
	unsigned i, round = 0;
	struct vcpu *vcpu;

	vm_for_each_vcpu(i, vcpu, vm)
		while (among(which, i) && !has_left_guest(vcpu))
			host_backoff(round++);
}

void vm_request_all(struct vm *vm, enum vcpu_request req, bool wait)
{
	request(vm, BIT64(req) | (wait ? BIT64(REQ_ACK) : 0), NULL);
	if (wait)
		vm_wait_left(vm, NULL);
}

void vm_synchronize(struct vm *vm)
{
	u64 ticket = host_srcu_begin(&vm->srcu);

	vm_request_all(vm, REQ_SLOTS, false);
	host_srcu_wait(&vm->srcu, ticket);
}

/* ---- where the thread is ------------------------------------------------------------------------------------- */

static void sched_in(struct host_sched *sched, unsigned cpu)
{
	struct vcpu *vcpu = container_of(sched, struct vcpu, sched);

	x86_vcpu_load(vcpu);
	if (vcpu->vm->engine->vcpu_load)
		vcpu->vm->engine->vcpu_load(vcpu, cpu);
}

/*
 * A thread that the host takes from its CPU on the way into guest code is not there: nobody waits for it (vm_request_all() may be
 * waiting on this very CPU), and when it is back it looks at its requests before it goes on.
 */
static void sched_out(struct host_sched *sched)
{
	struct vcpu *vcpu = container_of(sched, struct vcpu, sched);

	if (vcpu->vm->engine->vcpu_put)
		vcpu->vm->engine->vcpu_put(vcpu);
	if (vcpu->place == VCPU_IN_GUEST) {
		__atomic_fetch_or(&vcpu->requests, BIT64(REQ_ACK), __ATOMIC_SEQ_CST);
		__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
	}
}

static const struct host_sched_ops sched_ops = { .in = sched_in, .out = sched_out };

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
			host_event_dirty_ring_exit(vcpu->id);
			vcpu->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
			return 1;
		}
		vcpu_take_request(vcpu, REQ_DIRTY_FULL);
	}
	if (unlikely(host_work_pending())) {
		int r;

		vcpu_srcu_unlock(vcpu);
		r = host_work();
		vcpu_srcu_lock(vcpu);
		if (r)
			return r;
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
	if (!vcpu->halt_poll_ns)
		return sleep_over(vcpu);
	vcpu->stats->halt_attempted_poll++;
	do {
		for (unsigned i = 0; i < HALT_POLL_LOOKS; i++) {
			if (sleep_over(vcpu) || host_signal_pending()) {
				vcpu->stats->halt_successful_poll++;
				return true;
			}
			host_cpu_relax();
		}
	} while (host_may_spin() && host_now_ns() - start < vcpu->halt_poll_ns);
	return false;
}

static void adapt_poll(struct vcpu *vcpu, u64 slept_ns)
{
	u32 max = __atomic_load_n(&vcpu->vm->max_halt_poll_ns, __ATOMIC_RELAXED), before = vcpu->halt_poll_ns;

	if (slept_ns / 2 > max)
		vcpu->halt_poll_ns = 0;
	else if (!vcpu->halt_poll_ns)
		vcpu->halt_poll_ns = MIN(HALT_POLL_START_NS, max);
	else
		vcpu->halt_poll_ns = MIN(vcpu->halt_poll_ns * 2ULL, max);
	if (vcpu->halt_poll_ns != before)
		host_event_halt_poll_ns(vcpu->id, vcpu->halt_poll_ns, before);
}

int vcpu_sleep(struct vcpu *vcpu, bool (*ready)(struct vcpu *vcpu))
{
	u64 start = host_now_ns();
	bool waited;
	int error = 0;

	stats_spent(vcpu, TIME_CORE);
	stats_sync(vcpu);
	vcpu->sleep_ready = ready;
	vcpu_srcu_unlock(vcpu);
	if (vcpu->vm->engine->vcpu_waits)
		vcpu->vm->engine->vcpu_waits(vcpu, true);
	/* From here on kicks wake; what happened before is seen by sleep_over(). */
	__atomic_store_n(&vcpu->place, VCPU_SLEEPING, __ATOMIC_SEQ_CST);
	waited = !poll_first(vcpu, start);
	if (waited) {
		error = host_wait_sleep(&vcpu->wait, wait_ready);
		if (!error)
			vcpu->stats->halt_wakeup++;
		adapt_poll(vcpu, host_now_ns() - start);
	}
	host_event_vcpu_wakeup(host_now_ns() - start, waited, !error);
	__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
	if (vcpu->vm->engine->vcpu_waits)
		vcpu->vm->engine->vcpu_waits(vcpu, false);
	vcpu_srcu_lock(vcpu);
	stats_spent(vcpu, TIME_HALT);
	return error;
}

static void count_user_exit(struct vcpu *vcpu, long r)
{
	u32 reason = r == -EINTR ? KVM_EXIT_INTR : vcpu->run->exit_reason;

	/* -EAGAIN: the processor was never started, nothing ran. */
	if (r < 0 && r != -EINTR && r != -EAGAIN)
		vcpu->stats->user_exit_error++;
	else if (r != -EAGAIN && reason < VCPU_USER_EXITS)
		vcpu->stats->user_exit[reason]++;
}

static long vcpu_run(struct vcpu *vcpu)
{
	long r;

	stats_spent(vcpu, TIME_MONITOR);
	host_run_begin(&vcpu->requests, BIT64(REQ_SIGNAL));
	if (unlikely(vcpu->sigmask_set))
		host_run_sigmask(vcpu->sigmask);
	__atomic_store_n(&vcpu->place, VCPU_IN_CORE, __ATOMIC_SEQ_CST);
	host_sched_begin(&vcpu->sched);
	vcpu_srcu_lock(vcpu);
	r = x86_vcpu_run(vcpu);
	vcpu_srcu_unlock(vcpu);
	if (vcpu->vm->engine->run_end)
		vcpu->vm->engine->run_end(vcpu);
	host_sched_end(&vcpu->sched);
	__atomic_store_n(&vcpu->place, VCPU_OUTSIDE, __ATOMIC_SEQ_CST);
	vcpu_take_request(vcpu, REQ_SIGNAL);
	count_user_exit(vcpu, r);
	host_event_userspace_exit(vcpu->run->exit_reason, r);
	stats_spent(vcpu, TIME_CORE);
	stats_sync(vcpu);
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
	bool masked;
	long r;

	if (host_mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	if (unlikely(__atomic_load_n(&vcpu->vm->dead, __ATOMIC_ACQUIRE))) {
		host_mutex_unlock(&vcpu->mutex);
		return -EIO;
	}
	switch (cmd) {
	case KVM_RUN:
		r = -EINVAL;
		if (arg)
			break;
		masked = vcpu->sigmask_set;
		r = vcpu_run(vcpu);
		host_mutex_unlock(&vcpu->mutex);
		host_run_end(masked);
		return r;
	case KVM_SET_SIGNAL_MASK:
		r = set_signal_mask(vcpu, arg);
		break;
	case KVM_GET_STATS_FD:
		r = stats_open(vcpu->vm, &vcpu->stats_area);
		break;
	default:
		host_sched_begin(&vcpu->sched);
		r = x86_vcpu_ioctl(vcpu, cmd, arg, data);
		host_sched_end(&vcpu->sched);
	}
	host_mutex_unlock(&vcpu->mutex);
	return r;
}

static long vcpu_ioctl(struct host_file *file, unsigned cmd, u64 arg)
{
	struct vcpu *vcpu = of_file(file);

	if (!host_client_is_mine(vcpu->vm->client))
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
	.shared_from = KVM_DIRTY_LOG_PAGE_OFFSET,
	.backing = vcpu_backing,
	.release = vcpu_release,
};

/* ---- creation ------------------------------------------------------------------------------------------------ */

static void free_vcpu(struct vcpu *vcpu)
{
	const struct engine_ops *engine = vcpu->vm->engine;

	host_free_pages((u8 *)vcpu - engine->vcpu_headroom, engine->vcpu_headroom + engine->vcpu_size);
}

void vcpu_destroy(struct vcpu *vcpu)
{
	x86_vcpu_destroy(vcpu);
	vcpu->vm->engine->vcpu_destroy(vcpu);
	dirty_ring_destroy(vcpu);
	host_stats_hide(vcpu->stats_dir);
	host_shared_free(&vcpu->stats_area);
	host_shared_free(&vcpu->run_area);
	host_wait_destroy(&vcpu->wait);
	host_mutex_destroy(&vcpu->mutex);
	free_vcpu(vcpu);
}

static int alloc_vcpu(struct vm *vm, u32 id, struct vcpu **out)
{
	u8 *pages = host_zalloc_pages(vm->engine->vcpu_headroom + vm->engine->vcpu_size);
	struct vcpu *vcpu;
	char name[16];
	int error = -ENOMEM;

	if (!pages)
		return error;
	vcpu = (struct vcpu *)(pages + vm->engine->vcpu_headroom);
	vcpu->file.ops = &vcpu_ops;
	vcpu->vm = vm;
	vcpu->id = id;
	host_mutex_init(&vcpu->mutex);
	host_wait_init(&vcpu->wait);
	host_sched_init(&vcpu->sched, &sched_ops);
	if (host_shared_alloc(&vcpu->run_area, RUN_PAGES * HOST_PAGE_SIZE))
		goto free_wait;
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
	host_snprintf(name, sizeof(name), "vcpu%u", id);
	if (vm->stats_dir)
		vcpu->stats_dir = host_stats_show(vm->stats_dir, name, &vcpu->stats_area);
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
free_wait:
	host_wait_destroy(&vcpu->wait);
	host_mutex_destroy(&vcpu->mutex);
	free_vcpu(vcpu);
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
	if (vm->nr_vcpus >= VM_MAX_VCPUS || (vm->max_vcpu_ids && id >= vm->max_vcpu_ids))
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
