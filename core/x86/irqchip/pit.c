/*
 * The 8254 programmable interval timer (Intel 8254 data sheet, order number 231164) at ports 40h to 43h: channel 0 is
 * wired to IRQ 0, channel 2 with its gate and output in port 61h (bits 0, 5; refresh toggle in bit 4) to the speaker.
 *
 * A channel's counter is not stepped: its value is computed from the time since it was loaded.
 */
#include "core/x86/irqchip/chips.h"

#define PIT_HZ	      1193182ULL
#define MIN_PERIOD_NS 100000ULL
#define MAX_PENDING   20000 /* ticks owed to a guest that is late; more are lost */

enum { RW_LATCH, RW_LSB, RW_MSB, RW_WORD0, RW_WORD1 }; /* RW_WORD1: the second byte is next */

struct pit {
	struct vm *vm;			/* (i) */
	struct host_spinlock lock;
	struct kvm_pit_state2 s;	/* (lock) count_load_time is host_now_ns() */
	bool speaker_data;		/* (lock) bit 1 of port 61h */
	bool reinject;			/* (lock) repeat ticks that the guest has not acknowledged */
	bool tick_taken;		/* (lock) IRQ 0's last tick was acknowledged */
	u32 pending;			/* (lock) ticks to repeat */
	u64 target_ns, period_ns;	/* (lock) channel 0's next tick; 0 none */
	struct host_timer timer;
	struct irq_ack_notifier notifier;
	struct io_device ports, speaker;
};

/* PIT clocks in @ns nanoseconds, and back, without 128-bit arithmetic. */
static u64 ns_to_clocks(u64 ns)
{
	return ns / 1000000000 * PIT_HZ + ns % 1000000000 * PIT_HZ / 1000000000;
}

static u64 clocks_to_ns(u64 clocks)
{
	return clocks / PIT_HZ * 1000000000 + clocks % PIT_HZ * 1000000000 / PIT_HZ;
}

/* Clocks since the channel was loaded. */
static u64 elapsed(const struct kvm_pit_channel_state *c)
{
	u64 now = host_now_ns();

	return now > (u64)c->count_load_time ? ns_to_clocks(now - c->count_load_time) : 0;
}

static u16 counter_value(const struct kvm_pit_channel_state *c)
{
	u64 n = c->count ? c->count : 0x10000, d = elapsed(c), left;

	switch (c->mode) {
	case 2: /* rate generator: counts n .. 1 */
		left = n - d % n;
		break;
	case 3: /* square wave: counts down by two, twice a period */
		left = n - (2 * d) % n;
		break;
	default:
		left = (n - d) & 0xffff;
		break;
	}
	if (c->bcd) {
		u16 v = left % 10000;

		return v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
	}
	return left;
}

static bool output_level(const struct kvm_pit_channel_state *c)
{
	u64 n = c->count ? c->count : 0x10000, d = elapsed(c);

	switch (c->mode) {
	case 0: /* low until terminal count */
	case 1: return d >= n;
	case 2: return d % n != n - 1;
	case 3: return d % n < (n + 1) / 2;
	default: return d != n; /* strobes: low for the clock of terminal count */
	}
}

/* ---- channel 0 and its interrupt ----------------------------------------------------------------------------- */

static void pit_pulse(struct pit *pit)
{
	int idx = host_srcu_read_lock(&pit->vm->srcu);

	irq_set_gsi(pit->vm, IRQ_SOURCE_PIT, 0, 1);
	irq_set_gsi(pit->vm, IRQ_SOURCE_PIT, 0, 0);
	host_srcu_read_unlock(&pit->vm->srcu, idx);
}

static void pit_fire(struct host_timer *timer)
{
	struct pit *pit = container_of(timer, struct pit, timer);
	unsigned long flags = host_spin_lock(&pit->lock);
	bool pulse = false;

	if (pit->target_ns) {
		if (pit->period_ns) {
			pit->target_ns += pit->period_ns;
			host_timer_start(&pit->timer, pit->target_ns);
		} else {
			pit->target_ns = 0;
		}
		pulse = !pit->reinject || pit->tick_taken;
		if (pulse)
			pit->tick_taken = false;
		else if (pit->pending < MAX_PENDING)
			pit->pending++;
	}
	host_spin_unlock(&pit->lock, flags);
	if (pulse)
		pit_pulse(pit);
}

/* The guest has taken IRQ 0: a tick that is owed follows. */
static void pit_acked(struct irq_ack_notifier *n)
{
	struct pit *pit = container_of(n, struct pit, notifier);
	unsigned long flags = host_spin_lock(&pit->lock);
	bool pulse = pit->reinject && pit->pending;

	pit->tick_taken = !pulse;
	if (pulse)
		pit->pending--;
	host_spin_unlock(&pit->lock, flags);
	if (pulse)
		pit_pulse(pit);
}

/* Channel 0 was loaded: its interrupt comes once (modes 0, 1, 4, 5) or every period (2, 3). Lock held. */
static void pit_start_timer(struct pit *pit)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[0];
	u64 period = clocks_to_ns(c->count ? c->count : 0x10000);

	pit->period_ns = pit->target_ns = pit->pending = 0;
	pit->tick_taken = true;
	/* An HPET in legacy mode drives IRQ 0 instead; modes 1 and 5 wait for a gate that does not exist on channel 0. */
	if ((pit->s.flags & KVM_PIT_FLAGS_HPET_LEGACY) || c->mode == 1 || c->mode == 5)
		return;
	if (c->mode == 2 || c->mode == 3)
		pit->period_ns = MAX(period, MIN_PERIOD_NS);
	pit->target_ns = c->count_load_time + period;
	host_timer_start(&pit->timer, pit->target_ns);
}

/* ---- registers ----------------------------------------------------------------------------------------------- */

static void pit_load(struct pit *pit, unsigned channel, u32 value)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[channel];

	if (c->bcd)
		value = (value >> 12 & 0xf) * 1000 + (value >> 8 & 0xf) * 100 + (value >> 4 & 0xf) * 10 + (value & 0xf);
	c->count = value ? value : c->bcd ? 10000 : 0x10000;
	c->count_load_time = host_now_ns();
	if (channel == 0)
		pit_start_timer(pit);
}

static void latch_count(struct kvm_pit_channel_state *c)
{
	if (!c->count_latched) {
		c->latched_count = counter_value(c);
		c->count_latched = c->rw_mode;
	}
}

static void latch_status(struct kvm_pit_channel_state *c)
{
	if (!c->status_latched) {
		c->status = output_level(c) << 7 | c->rw_mode << 4 | c->mode << 1 | c->bcd;
		c->status_latched = 1;
	}
}

static void pit_write_control(struct pit *pit, u8 value)
{
	unsigned channel = value >> 6, access = (value >> 4) & 3;
	struct kvm_pit_channel_state *c;

	if (channel == 3) { /* read-back: bit 5 clear latches the count, bit 4 clear the status */
		for (channel = 0; channel < 3; channel++) {
			if (!(value & (2 << channel)))
				continue;
			if (!(value & 0x20))
				latch_count(&pit->s.channels[channel]);
			if (!(value & 0x10))
				latch_status(&pit->s.channels[channel]);
		}
		return;
	}
	c = &pit->s.channels[channel];
	if (access == RW_LATCH) {
		latch_count(c);
		return;
	}
	c->rw_mode = c->read_state = c->write_state = access;
	c->mode = (value >> 1) & 7;
	if (c->mode > 5)
		c->mode -= 4; /* bit 2 does not matter for modes 2 and 3 */
	c->bcd = value & 1;
	c->count_latched = 0;
}

static void pit_write_counter(struct pit *pit, unsigned channel, u8 value)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[channel];

	switch (c->write_state) {
	case RW_MSB: pit_load(pit, channel, value << 8); break;
	case RW_WORD0:
		c->write_latch = value;
		c->write_state = RW_WORD1;
		break;
	case RW_WORD1:
		c->write_state = RW_WORD0;
		pit_load(pit, channel, c->write_latch | value << 8);
		break;
	default: pit_load(pit, channel, value); break;
	}
}

static u8 pit_read_counter(struct kvm_pit_channel_state *c)
{
	u16 count;

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (c->count_latched) {
		switch (c->count_latched) {
		case RW_MSB: c->count_latched = 0; return c->latched_count >> 8;
		case RW_WORD0: c->count_latched = RW_MSB; return c->latched_count;
		default: c->count_latched = 0; return c->latched_count;
		}
	}
	count = counter_value(c);
	switch (c->read_state) {
	case RW_MSB: return count >> 8;
	case RW_WORD0: c->read_state = RW_WORD1; return count;
	case RW_WORD1: c->read_state = RW_WORD0; return count >> 8;
	default: return count;
	}
}

static int pit_read(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, void *buf)
{
	struct pit *pit = container_of(dev, struct pit, ports);
	unsigned long flags;

	memset(buf, 0, len);
	if (port == 0x43)
		return 0; /* the control word cannot be read */
	flags = host_spin_lock(&pit->lock);
	*(u8 *)buf = pit_read_counter(&pit->s.channels[port & 3]);
	host_spin_unlock(&pit->lock, flags);
	return 0;
}

static int pit_write(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, const void *buf)
{
	struct pit *pit = container_of(dev, struct pit, ports);
	unsigned long flags = host_spin_lock(&pit->lock);

	if (port == 0x43)
		pit_write_control(pit, *(const u8 *)buf);
	else
		pit_write_counter(pit, port & 3, *(const u8 *)buf);
	host_spin_unlock(&pit->lock, flags);
	return 0;
}

static int speaker_read(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, void *buf)
{
	struct pit *pit = container_of(dev, struct pit, speaker);
	const struct kvm_pit_channel_state *c = &pit->s.channels[2];
	unsigned long flags = host_spin_lock(&pit->lock);
	bool refresh = (host_now_ns() / 15085) & 1; /* DRAM refresh, every 15.085 us */

	memset(buf, 0, len);
	*(u8 *)buf = c->gate | pit->speaker_data << 1 | refresh << 4 | output_level(c) << 5;
	host_spin_unlock(&pit->lock, flags);
	return 0;
}

static int speaker_write(struct io_device *dev, struct vcpu *vcpu, u64 port, unsigned len, const void *buf)
{
	struct pit *pit = container_of(dev, struct pit, speaker);
	struct kvm_pit_channel_state *c = &pit->s.channels[2];
	unsigned long flags = host_spin_lock(&pit->lock);
	u8 value = *(const u8 *)buf;

	/* A rising gate restarts modes 1, 2, 3 and 5. */
	if ((value & 1) && !c->gate && c->mode != 0 && c->mode != 4)
		c->count_load_time = host_now_ns();
	c->gate = value & 1;
	pit->speaker_data = value & 2;
	host_spin_unlock(&pit->lock, flags);
	return 0;
}

static const struct io_device_ops pit_ops = { .read = pit_read, .write = pit_write };
static const struct io_device_ops speaker_ops = { .read = speaker_read, .write = speaker_write };

/* ---- API (vm->lock held) ------------------------------------------------------------------------------------- */

int pit_create(struct vm *vm, u32 flags)
{
	struct pit *pit;
	unsigned i;
	int r;

	if (vm->pit)
		return -EEXIST;
	if (vm->irqchip != IRQCHIP_KERNEL)
		return -ENOENT;
	if (flags & ~KVM_PIT_SPEAKER_DUMMY)
		return -EINVAL;
	pit = host_zalloc(sizeof(*pit));
	if (!pit)
		return -ENOMEM;
	pit->vm = vm;
	pit->reinject = pit->tick_taken = true;
	host_spin_init(&pit->lock);
	host_timer_init(&pit->timer, pit_fire);
	for (i = 0; i < 3; i++) {
		pit->s.channels[i].mode = 0xff; /* undefined until a control word is written */
		pit->s.channels[i].gate = i != 2;
		pit->s.channels[i].count_load_time = host_now_ns();
	}
	pit->notifier.acked = pit_acked;
	pit->ports = (struct io_device){ .ops = &pit_ops, .base = 0x40, .len = 4 };
	pit->speaker = (struct io_device){ .ops = &speaker_ops, .base = 0x61, .len = 1 };
	r = io_device_register(vm, IO_PIO, &pit->ports);
	if (r)
		goto free;
	if (flags & KVM_PIT_SPEAKER_DUMMY) {
		r = io_device_register(vm, IO_PIO, &pit->speaker);
		if (r)
			goto unregister;
	}
	irq_register_ack_notifier(vm, &pit->notifier);
	__atomic_store_n(&vm->pit, pit, __ATOMIC_RELEASE);
	return 0;

unregister:
	io_device_unregister(vm, IO_PIO, &pit->ports);
free:
	host_spin_destroy(&pit->lock);
	host_free(pit);
	return r;
}

void pit_destroy(struct vm *vm)
{
	struct pit *pit = vm->pit;
	unsigned long flags;

	if (!pit)
		return;
	vm->pit = NULL;
	irq_unregister_ack_notifier(vm, &pit->notifier);
	io_device_unregister(vm, IO_PIO, &pit->ports);
	io_device_unregister(vm, IO_PIO, &pit->speaker);
	flags = host_spin_lock(&pit->lock);
	pit->target_ns = 0;
	host_spin_unlock(&pit->lock, flags);
	host_timer_cancel(&pit->timer);
	host_spin_destroy(&pit->lock);
	host_free(pit);
}

int pit_get(struct vm *vm, struct kvm_pit_state2 *state)
{
	struct pit *pit = vm->pit;
	unsigned long flags;

	if (!pit)
		return -ENXIO;
	flags = host_spin_lock(&pit->lock);
	*state = pit->s;
	host_spin_unlock(&pit->lock, flags);
	return 0;
}

int pit_set(struct vm *vm, const struct kvm_pit_state2 *state)
{
	struct pit *pit = vm->pit;
	unsigned long flags;
	unsigned i;

	if (!pit)
		return -ENXIO;
	flags = host_spin_lock(&pit->lock);
	pit->s = *state;
	pit->s.flags &= KVM_PIT_FLAGS_HPET_LEGACY;
	for (i = 0; i < 3; i++) {
		struct kvm_pit_channel_state *c = &pit->s.channels[i];

		/* Nothing that the client gives may leave the ranges that the logic divides by and switches on. */
		c->count = c->count > 0x10000 ? 0x10000 : c->count;
		c->rw_mode &= 3;
		c->bcd &= 1;
		c->gate &= 1;
		c->count_load_time = host_now_ns();
	}
	host_timer_start(&pit->timer, ~0ULL >> 1);
	if (pit->s.channels[0].mode <= 5)
		pit_start_timer(pit);
	else
		pit->target_ns = 0;
	host_spin_unlock(&pit->lock, flags);
	return 0;
}

int pit_reinject(struct vm *vm, bool on)
{
	struct pit *pit = vm->pit;
	unsigned long flags;

	if (!pit)
		return -ENXIO;
	/* Nobody waits for EOIs that need not be told of: some processors tell of none then (lapic_obstacles()) */
	if (on && !pit->reinject)
		irq_register_ack_notifier(vm, &pit->notifier);
	else if (!on && pit->reinject)
		irq_unregister_ack_notifier(vm, &pit->notifier);
	flags = host_spin_lock(&pit->lock);
	if (on != pit->reinject)
		pit->tick_taken = true;
	pit->reinject = on;
	pit->pending = 0;
	host_spin_unlock(&pit->lock, flags);
	return 0;
}
