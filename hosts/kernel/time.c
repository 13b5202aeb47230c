/* Clocks and timers. */
#include "hosts/kernel/linux.h"

#include <linux/timekeeping.h>
#include <asm/tsc.h>

u64 host_now_ns(void)
{
	return ktime_get_boottime_ns();
}

u64 host_realtime_ns(void)
{
	return ktime_get_real_ns();
}

u32 host_tsc_khz(void)
{
	return check_tsc_unstable() ? 0 : tsc_khz;
}

u64 host_run_delay_ns(void)
{
#ifdef CONFIG_SCHED_INFO
	return current->sched_info.run_delay;
#else
	return 0;
#endif
}

static enum hrtimer_restart fire(struct hrtimer *timer)
{
	struct host_timer *t = container_of((unsigned long (*)[HOST_TIMER_WORDS])timer, struct host_timer, words);

	WRITE_ONCE(t->running_on, raw_smp_processor_id() + 1);
	t->fn(t);
	WRITE_ONCE(t->running_on, 0);
	return HRTIMER_NORESTART; /* fn has restarted it by itself if it wanted to */
}

void host_timer_init(struct host_timer *t, void (*fn)(struct host_timer *t))
{
	struct hrtimer *timer = INSIDE(struct hrtimer, t);

	t->fn = fn;
	t->running_on = 0;
	hrtimer_init(timer, CLOCK_BOOTTIME, HRTIMER_MODE_ABS_HARD);
	timer->function = fire;
}

void host_timer_start(struct host_timer *t, u64 deadline_ns)
{
	hrtimer_start(INSIDE(struct hrtimer, t), min_t(u64, deadline_ns, KTIME_MAX), HRTIMER_MODE_ABS_HARD);
}

void host_timer_cancel(struct host_timer *t)
{
	/* From its own fn there is nothing to wait for. */
	if (in_hardirq() && READ_ONCE(t->running_on) == raw_smp_processor_id() + 1)
		hrtimer_try_to_cancel(INSIDE(struct hrtimer, t));
	else
		hrtimer_cancel(INSIDE(struct hrtimer, t));
}
