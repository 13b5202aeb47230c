/* Mutexes, spinlocks, and the futex that vCPUs sleep on. */
#include <sched.h>

#include "hosts/user/signals.h"
#include "hosts/user/sys.h"

void host_mutex_init(struct host_mutex *m)
{
	pthread_mutex_init(&m->mutex, NULL);
}

void host_mutex_destroy(struct host_mutex *m)
{
	pthread_mutex_destroy(&m->mutex);
}

void host_mutex_lock(struct host_mutex *m)
{
	pthread_mutex_lock(&m->mutex);
}

/* A thread that dies takes its process with it, whatever it waits for. */
int host_mutex_lock_killable(struct host_mutex *m)
{
	pthread_mutex_lock(&m->mutex);
	return 0;
}

void host_mutex_unlock(struct host_mutex *m)
{
	pthread_mutex_unlock(&m->mutex);
}

void host_spin_init(struct host_spinlock *l)
{
	pthread_mutex_init(&l->mutex, NULL);
}

void host_spin_destroy(struct host_spinlock *l)
{
	pthread_mutex_destroy(&l->mutex);
}

unsigned long host_spin_lock(struct host_spinlock *l)
{
	pthread_mutex_lock(&l->mutex);
	return 0;
}

void host_spin_unlock(struct host_spinlock *l, unsigned long flags)
{
	(void)flags;
	pthread_mutex_unlock(&l->mutex);
}

void host_wait_init(struct host_wait *w)
{
	w->seq = 0;
	w->sleeping = 0;
}

void host_wait_destroy(struct host_wait *w)
{
	(void)w;
}

/*
 * The sleeper reads @seq, then the condition; the waker changes the condition, then @seq: one of the two sees the other. A signal
 * handler on this thread changes @seq too (host_thread.sleep_word), so that one that runs just before the system call is not lost.
 */
int host_wait_sleep(struct host_wait *w, bool (*ready)(struct host_wait *w))
{
	struct host_thread *t = host_thread();
	int error = 0;

	__atomic_fetch_add(&w->sleeping, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&t->sleep_word, &w->seq, __ATOMIC_SEQ_CST);
	for (;;) {
		u32 seq = __atomic_load_n(&w->seq, __ATOMIC_SEQ_CST);

		if (ready(w))
			break;
		if (host_signal_pending()) {
			error = -EINTR;
			break;
		}
		sys_futex_wait(&w->seq, seq, NULL);
	}
	__atomic_store_n(&t->sleep_word, NULL, __ATOMIC_SEQ_CST);
	__atomic_fetch_sub(&w->sleeping, 1, __ATOMIC_SEQ_CST);
	return error;
}

void host_wait_wake(struct host_wait *w)
{
	__atomic_fetch_add(&w->seq, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&w->sleeping, __ATOMIC_SEQ_CST))
		sys_futex_wake(&w->seq, INT32_MAX);
}

void host_cond_resched(void)
{
	/* The host preempts processes by itself. */
}

void host_backoff(unsigned round)
{
	struct timespec nap = { .tv_nsec = round < 1000 ? 20000 : 500000 };

	if (round < 64)
		host_cpu_relax();
	else if (round < 128)
		sched_yield();
	else
		nanosleep(&nap, NULL);
}
