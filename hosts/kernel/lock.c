/* Locks, and what vCPUs sleep on. */
#include "hosts/kernel/linux.h"

#include <linux/delay.h>
#include <linux/sched/signal.h>

void host_mutex_init(struct host_mutex *m)
{
	static struct lock_class_key key;

	__mutex_init(INSIDE(struct mutex, m), "trine", &key);
}

void host_mutex_destroy(struct host_mutex *m)
{
	mutex_destroy(INSIDE(struct mutex, m));
}

void host_mutex_lock(struct host_mutex *m)
{
	mutex_lock(INSIDE(struct mutex, m));
}

int host_mutex_lock_killable(struct host_mutex *m)
{
	return mutex_lock_killable(INSIDE(struct mutex, m));
}

void host_mutex_unlock(struct host_mutex *m)
{
	mutex_unlock(INSIDE(struct mutex, m));
}

void host_spin_init(struct host_spinlock *l)
{
	spin_lock_init(INSIDE(spinlock_t, l));
}

void host_spin_destroy(struct host_spinlock *l)
{
}

unsigned long host_spin_lock(struct host_spinlock *l)
{
	unsigned long flags;

	spin_lock_irqsave(INSIDE(spinlock_t, l), flags);
	return flags;
}

void host_spin_unlock(struct host_spinlock *l, unsigned long flags)
{
	spin_unlock_irqrestore(INSIDE(spinlock_t, l), flags);
}

void host_rwlock_init(struct host_rwlock *l)
{
	rwlock_init(INSIDE(rwlock_t, l));
}

void host_rwlock_destroy(struct host_rwlock *l)
{
}

void host_read_lock(struct host_rwlock *l)
{
	read_lock(INSIDE(rwlock_t, l));
}

void host_read_unlock(struct host_rwlock *l)
{
	read_unlock(INSIDE(rwlock_t, l));
}

void host_write_lock(struct host_rwlock *l)
{
	write_lock(INSIDE(rwlock_t, l));
}

void host_write_unlock(struct host_rwlock *l)
{
	write_unlock(INSIDE(rwlock_t, l));
}

void host_wait_init(struct host_wait *w)
{
	rcuwait_init(INSIDE(struct rcuwait, w));
}

void host_wait_destroy(struct host_wait *w)
{
}

int host_wait_sleep(struct host_wait *w, bool (*ready)(struct host_wait *w))
{
	return rcuwait_wait_event(INSIDE(struct rcuwait, w), ready(w), TASK_INTERRUPTIBLE);
}

void host_wait_wake(struct host_wait *w)
{
	rcuwait_wake_up(INSIDE(struct rcuwait, w));
}

/* In a section where nothing may sleep the one that is waited for is on another CPU, about to leave guest code. */
void host_backoff(unsigned round)
{
	if (round < 64 || !preemptible())
		cpu_relax();
	else if (round < 128)
		cond_resched();
	else
		usleep_range(20, 50);
}
