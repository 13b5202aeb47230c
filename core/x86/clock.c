/*
 * Guest TSC, kvmclock, wall clock, steal time; see clock.h. Formats: the KVM API document's MSRs 0x4b564d00 to 03.
 */
#include "core/x86/clock.h"

#include <linux/kvm_para.h>

#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/irqchip.h"

#define NSEC_PER_SEC   1000000000ULL
#define TSC_MATCH_SECS 1 /* writes that differ by less from where another vCPU's TSC is now mean the same TSC */

/* What a guest reads: ns = system_time + (((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul >> 32) */
struct pvclock_vcpu_time_info {
	u32 version;
	u32 pad0;
	u64 tsc_timestamp;
	u64 system_time;
	u32 tsc_to_system_mul;
	s8 tsc_shift;
	u8 flags;
	u8 pad[2];
} __attribute__((packed));
_Static_assert(sizeof(struct pvclock_vcpu_time_info) == 32, "KVM ABI");
#define PVCLOCK_TSC_STABLE    1
#define PVCLOCK_GUEST_STOPPED 2

struct pvclock_wall_clock {
	u32 version;
	u32 sec;
	u32 nsec;
};
_Static_assert(sizeof(struct pvclock_wall_clock) == 12, "KVM ABI");

struct scale {
	u32 mul;
	s8 shift;
};

/* (@num << 32) / @den, @num < @den. */
static u64 div_shifted(u64 num, u64 den)
{
	return div_wide(num >> 32, num << 32, den);
}

/* Ticks of @hz to nanoseconds. */
static struct scale scale_of(u64 hz)
{
	u64 num = NSEC_PER_SEC, den = hz;
	s8 shift = 0;

	for (; num >= den; den <<= 1)
		shift++;
	for (; num * 2 < den; num <<= 1)
		shift--;
	return (struct scale){ .mul = div_shifted(num, den), .shift = shift };
}

static u64 scale_apply(struct scale s, u64 ticks)
{
	ticks = s.shift < 0 ? ticks >> -s.shift : ticks << s.shift;
	return (unsigned __int128)ticks * s.mul >> 32;
}

u64 clock_lost;

static u64 clock_counter_hz(void) { return clock_counter_khz() * 1000ULL; }

static u64 tsc_scaled(const struct vcpu *vcpu, u64 counter)
{
	if (likely(vcpu->tsc_ratio == BIT64(32)))
		return counter;
	return (unsigned __int128)counter * vcpu->tsc_ratio >> 32;
}

u64 vcpu_read_tsc(struct vcpu *vcpu)
{
	return tsc_scaled(vcpu, clock_counter()) + vcpu->tsc_offset;
}

u64 vm_kvmclock_ns(struct vm *vm)
{
	return scale_apply(scale_of(clock_counter_hz()), clock_counter() - vm->clock_base) +
	       __atomic_load_n(&vm->clock_offset_ns, __ATOMIC_RELAXED);
}

void clock_vm_init(struct vm *vm)
{
	vm->tsc_khz = clock_counter_khz();
	vm->clock_base = clock_counter();
	vm->clock_offset_ns = 0;
}

void clock_woke(u64 before)
{
	u64 now = host_rdtsc();

	if (now < before)
		clock_lost += before - now;
}

void x86_vcpu_load(struct vcpu *vcpu)
{
	vcpu->host_tsc_offset = vcpu->tsc_offset + tsc_scaled(vcpu, clock_lost);
}

static void set_offset(struct vcpu *vcpu, u64 offset)
{
	host_event_write_tsc_offset(vcpu->id, vcpu->tsc_offset, offset);
	vcpu->tsc_offset = offset;
	x86_vcpu_load(vcpu);
	hyperv_clock_changed(vcpu->vm);
	vcpu_set_request(vcpu, REQ_CLOCK_UPDATE);
	if (vcpu->lapic)
		lapic_tsc_changed(vcpu);
}

void clock_vcpu_init(struct vcpu *vcpu)
{
	vcpu->tsc_khz = 0;
	vcpu->tsc_ratio = BIT64(32);
	if (clock_set_tsc_khz(vcpu, vcpu->vm->tsc_khz))
		vcpu->tsc_khz = clock_counter_khz();
	clock_write_tsc(vcpu, 0, true);
}

void clock_write_tsc(struct vcpu *vcpu, u64 value, bool from_client)
{
	struct vm *vm = vcpu->vm;
	u64 counter = clock_counter(), now = tsc_scaled(vcpu, counter), offset = value - now, second;
	unsigned long flags;

	if (!from_client) {
		/* SDM 3B 17.17.3 */
		vcpu->tsc_adjust += offset - vcpu->tsc_offset;
		set_offset(vcpu, offset);
		return;
	}
	second = (u64)vcpu->tsc_khz * 1000 * TSC_MATCH_SECS;
	flags = host_spin_lock(&vm->irq_lock);
	if (vm->last_tsc.khz == vcpu->tsc_khz) {
		u64 expected = vm->last_tsc.value + now - tsc_scaled(vcpu, vm->last_tsc.counter);

		/* A new vCPU's 0 joins what the others have; so does a value within a second of it */
		if (value == 0 || value - expected + second < 2 * second)
			offset = vm->last_tsc.offset;
	}
	if (offset == value - now) {
		vm->last_tsc.counter = counter;
		vm->last_tsc.value = value;
	}
	vm->last_tsc.offset = offset;
	vm->last_tsc.khz = vcpu->tsc_khz;
	host_spin_unlock(&vm->irq_lock, flags);
	set_offset(vcpu, offset);
}

void clock_adjust_tsc(struct vcpu *vcpu, s64 delta)
{
	set_offset(vcpu, vcpu->tsc_offset + delta);
}

bool clock_can_scale(void)
{
	return core_engine() && core_engine()->set_tsc_khz;
}

int clock_set_tsc_khz(struct vcpu *vcpu, u32 khz)
{
	const struct engine_ops *engine = vcpu->vm->engine;
	u32 host = clock_counter_khz();
	u64 before, ratio;
	bool same;

	if (!khz)
		return -EINVAL;
	/* 250 parts in a million are within what hosts' crystals differ by: no scaling for that */
	same = khz + host / 4000 >= host && khz <= host + host / 4000;
	if (!same && !engine->set_tsc_khz)
		return -EINVAL;
	if (!same && (khz / host >= 256 || host / khz >= 256))
		return -EINVAL;
	ratio = BIT64(32);
	if (!same)
		ratio = ((u64)(khz / host) << 32) + div_shifted(khz % host, host);
	if (engine->set_tsc_khz) {
		int r = engine->set_tsc_khz(vcpu, khz);

		if (r)
			return r;
	}
	before = vcpu_read_tsc(vcpu);
	vcpu->tsc_ratio = ratio;
	vcpu->tsc_khz = khz;
	set_offset(vcpu, before - tsc_scaled(vcpu, clock_counter()));
	return 0;
}

bool clock_is_stable(struct vm *vm)
{
	struct vcpu *vcpu, *first = vm->vcpus[0];
	unsigned i;

	if (!host_tsc_khz())
		return false;
	vm_for_each_vcpu(i, vcpu, vm) {
		if (__atomic_load_n(&vcpu->tsc_offset, __ATOMIC_RELAXED) !=
			    __atomic_load_n(&first->tsc_offset, __ATOMIC_RELAXED) ||
		    vcpu->tsc_khz != first->tsc_khz)
			return false;
	}
	return true;
}

void vcpu_clock_update(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	/* At the speed that it has, not at the one asked for: the clock of KVM_GET_CLOCK and this one would part */
	struct scale scale = scale_of(tsc_scaled(vcpu, clock_counter_hz()));
	struct pvclock_vcpu_time_info info = {
		.tsc_timestamp = tsc_scaled(vcpu, vm->clock_base) + vcpu->tsc_offset,
		.system_time = __atomic_load_n(&vm->clock_offset_ns, __ATOMIC_RELAXED),
		.tsc_to_system_mul = scale.mul,
		.tsc_shift = scale.shift,
	};
	u64 gpa = vcpu->kvmclock_msr & ~1ULL;

	if (!(vcpu->kvmclock_msr & 1))
		return;
	if (clock_is_stable(vm))
		info.flags |= PVCLOCK_TSC_STABLE;
	if (vcpu->clock_guest_stopped) {
		info.flags |= PVCLOCK_GUEST_STOPPED;
		vcpu->clock_guest_stopped = false;
	}
	/* Odd while the fields change, on the guest's own page: another vCPU may be reading (vDSO) */
	info.version = vcpu->clock_version + 1;
	if (vm_write_guest(vm, vcpu, vcpu_as_id(vcpu), gpa, &info.version, sizeof(info.version)))
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vm_write_guest(vm, vcpu, vcpu_as_id(vcpu), gpa + 4, (u8 *)&info + 4, sizeof(info) - 4);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vcpu->clock_version += 2;
	vm_write_guest(vm, vcpu, vcpu_as_id(vcpu), gpa, &vcpu->clock_version, sizeof(vcpu->clock_version));
}

void clock_write_wall(struct vcpu *vcpu, u64 gpa)
{
	struct vm *vm = vcpu->vm;
	u64 boot = host_realtime_ns() - vm_kvmclock_ns(vm);
	struct pvclock_wall_clock wall;
	u32 version;

	if (!gpa || vm_read_guest(vm, vcpu_as_id(vcpu), gpa, &version, sizeof(version)))
		return;
	version = (version | 1) + !!(version & 1) * 2;
	if (vm_write_guest(vm, vcpu, vcpu_as_id(vcpu), gpa, &version, sizeof(version)))
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	wall.version = version;
	wall.sec = boot / NSEC_PER_SEC;
	wall.nsec = boot % NSEC_PER_SEC;
	vm_write_guest(vm, vcpu, vcpu_as_id(vcpu), gpa, &wall, sizeof(wall));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	version++;
	vm_write_guest(vm, vcpu, vcpu_as_id(vcpu), gpa, &version, sizeof(version));
}

void vcpu_steal_begin(struct vcpu *vcpu)
{
	vcpu->steal_last_ns = host_run_delay_ns();
	vcpu_set_request(vcpu, REQ_STEAL_UPDATE);
}

/* Adds what the host's other threads took of this one's time. An odd version tells a reader that the rest is in motion. */
void vcpu_steal_update(struct vcpu *vcpu, bool always)
{
	u64 gpa = vcpu->steal_msr & KVM_STEAL_VALID_BITS, delay;
	struct kvm_steal_time st;
	unsigned as_id;

	if (!(vcpu->steal_msr & KVM_MSR_ENABLED))
		return;
	delay = host_run_delay_ns();
	if (likely(delay == vcpu->steal_last_ns && !always))
		return;
	as_id = vcpu_as_id(vcpu);
	if (vm_read_guest(vcpu->vm, as_id, gpa, &st, sizeof(st)))
		return;
	/* Another thread than before runs the vCPU: it brings no debt */
	if (delay < vcpu->steal_last_ns)
		vcpu->steal_last_ns = delay;
	st.steal += delay - vcpu->steal_last_ns;
	vcpu->steal_last_ns = delay;
	st.preempted = 0;
	st.version |= 1;
	if (vm_write_guest(vcpu->vm, vcpu, as_id, gpa, &st, sizeof(st)))
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	st.version++;
	vm_write_guest(vcpu->vm, vcpu, as_id, gpa + offsetof(struct kvm_steal_time, version), &st.version,
		       sizeof(st.version));
}

int clock_guest_paused(struct vcpu *vcpu)
{
	if (!(vcpu->kvmclock_msr & 1))
		return -EINVAL;
	vcpu->clock_guest_stopped = true;
	vcpu_set_request(vcpu, REQ_CLOCK_UPDATE);
	return 0;
}

#define CLOCK_FLAGS (KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

/** KVM_GET_CLOCK. */
void clock_ioctl_get(struct vm *vm, struct kvm_clock_data *data)
{
	*data = (struct kvm_clock_data){ .clock = vm_kvmclock_ns(vm) };

	if (host_tsc_khz()) {
		data->flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC | (clock_is_stable(vm) ? KVM_CLOCK_TSC_STABLE : 0);
		data->realtime = host_realtime_ns();
		data->host_tsc = clock_counter(); /* KVM_VCPU_TSC_OFFSET is from there */
	}
}

/** KVM_SET_CLOCK: 0, -EINVAL. */
int clock_ioctl_set(struct vm *vm, const struct kvm_clock_data *data)
{
	u64 clock = data->clock;

	/* What KVM_GET_CLOCK returned may be passed back as it is */
	if (data->flags & ~CLOCK_FLAGS)
		return -EINVAL;
	if (data->flags & KVM_CLOCK_REALTIME) {
		u64 now = host_realtime_ns();

		if (now > data->realtime)
			clock += now - data->realtime;
	}
	__atomic_fetch_add(&vm->clock_offset_ns, clock - vm_kvmclock_ns(vm), __ATOMIC_SEQ_CST);
	hyperv_clock_changed(vm);
	vm_request_all(vm, REQ_CLOCK_UPDATE, false);
	return 0;
}

/** KVM_{HAS,GET,SET}_DEVICE_ATTR of group KVM_VCPU_TSC_CTRL: the TSC offset. 0, -ENXIO, -EFAULT. */
long clock_device_attr(struct vcpu *vcpu, unsigned cmd, const struct kvm_device_attr *attr)
{
	u64 offset;

	if (attr->group != KVM_VCPU_TSC_CTRL || attr->attr != KVM_VCPU_TSC_OFFSET)
		return -ENXIO;
	switch (cmd) {
	case KVM_HAS_DEVICE_ATTR: return 0;
	case KVM_GET_DEVICE_ATTR:
		return host_copy_to_client(attr->addr, &vcpu->tsc_offset, sizeof(vcpu->tsc_offset)) ? -EFAULT : 0;
	default:
		if (host_copy_from_client(&offset, attr->addr, sizeof(offset)))
			return -EFAULT;
		set_offset(vcpu, offset);
		return 0;
	}
}
