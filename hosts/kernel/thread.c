/* Threads: signals, the work that waits for them, and where they run. */
#include "hosts/kernel/linux.h"

#include <linux/memcontrol.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/smp.h>
#include <linux/task_work.h>
#include <asm/fpu/api.h>

u64 host_thread_self(void)
{
	return (u64)current;
}

/* ---- the client ------------------------------------------------------------------------------------------------ */

struct host_client *host_client_get(void)
{
	mmgrab(current->mm);
	return (struct host_client *)current->mm;
}

void host_client_put(struct host_client *client)
{
	mmdrop((struct mm_struct *)client);
}

bool host_client_is_mine(const struct host_client *client)
{
	return current->mm == (const struct mm_struct *)client;
}

/* ---- signals ------------------------------------------------------------------------------------------------- */

bool host_signal_pending(void)
{
	return signal_pending(current);
}

/* A signal interrupts guest code by itself. */
void host_run_begin(u64 *requests, u64 bits)
{
}

/* What real_blocked holds is not thrown away as ignored: the client may mean to fetch it by sigtimedwait(2). */
void host_run_sigmask(u64 mask)
{
	sigset_t set;

	set.sig[0] = mask;
	sigdelsetmask(&set, sigmask(SIGKILL) | sigmask(SIGSTOP));
	sigprocmask(SIG_SETMASK, &set, &current->real_blocked);
}

void host_run_end(bool masked)
{
	if (!masked)
		return;
	sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
	sigemptyset(&current->real_blocked);
}

/* ---- the host's work ------------------------------------------------------------------------------------------- */

/* What is done on the way out to the client only: closing files, moving pages between nodes, the memory cgroup's brake. */
static bool has_deferred_work(void)
{
#ifdef CONFIG_MEMCG
	if (current->memcg_nr_pages_over_high)
		return true;
#endif
	return task_work_pending(current);
}

static bool stopped; /* (a) the machine goes down */

void host_stop_guests(void)
{
	WRITE_ONCE(stopped, true);
}

bool host_guests_stopped(void)
{
	return READ_ONCE(stopped);
}

bool host_work_pending(void)
{
	return need_resched() || READ_ONCE(stopped) || (test_thread_flag(TIF_NOTIFY_RESUME) && has_deferred_work());
}

int host_work(void)
{
	if (READ_ONCE(stopped))
		return -EIO;
	cond_resched();
	if (!test_thread_flag(TIF_NOTIFY_RESUME) || !has_deferred_work())
		return 0;
	/* The system call begins again when it is done. The way out looks at that only where a signal may be. */
	set_thread_flag(TIF_SIGPENDING);
	return -ERESTARTNOINTR;
}

bool host_may_spin(void)
{
	return single_task_running() && !need_resched();
}

unsigned host_thread_hint(void)
{
	return raw_smp_processor_id();
}

void host_cond_resched(void)
{
	cond_resched();
}

bool host_must_leave(void)
{
	unsigned long flags = read_thread_flags();

	if ((flags & (_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL | _TIF_NEED_RESCHED)) || READ_ONCE(stopped))
		return true;
	if ((flags & _TIF_NOTIFY_RESUME) && has_deferred_work())
		return true;
	if (flags & _TIF_NEED_FPU_LOAD)
		switch_fpu_return();
	return false;
}

/* ---- where a thread runs --------------------------------------------------------------------------------------- */

static void sched_in(struct preempt_notifier *notifier, int cpu)
{
	struct host_sched *s = container_of(notifier, struct sched_inside, notifier)->outside;

	WRITE_ONCE(s->cpu, cpu);
	s->ops->in(s, cpu);
}

static void sched_out(struct preempt_notifier *notifier, struct task_struct *next)
{
	struct host_sched *s = container_of(notifier, struct sched_inside, notifier)->outside;

	s->ops->out(s);
	WRITE_ONCE(s->cpu, -1);
}

static struct preempt_ops sched_ops = { .sched_in = sched_in, .sched_out = sched_out };

void host_sched_init(struct host_sched *s, const struct host_sched_ops *ops)
{
	struct sched_inside *inside = INSIDE(struct sched_inside, s);

	s->ops = ops;
	s->cpu = -1;
	inside->outside = s;
	preempt_notifier_init(&inside->notifier, &sched_ops);
}

void host_sched_begin(struct host_sched *s)
{
	struct preempt_notifier *notifier = &INSIDE(struct sched_inside, s)->notifier;

	preempt_disable();
	preempt_notifier_register(notifier);
	sched_in(notifier, smp_processor_id());
	preempt_enable();
}

void host_sched_end(struct host_sched *s)
{
	struct preempt_notifier *notifier = &INSIDE(struct sched_inside, s)->notifier;

	preempt_disable();
	sched_out(notifier, NULL);
	preempt_notifier_unregister(notifier);
	preempt_enable();
}

void host_sched_kick(struct host_sched *s)
{
	int cpu, here = get_cpu();

	/* A thread that moves leaves guest code by that. */
	cpu = READ_ONCE(s->cpu);
	if (cpu >= 0 && cpu != here)
		smp_send_reschedule(cpu);
	put_cpu();
}
