/* See signals.h. */
#include "hosts/user/sigaction.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "hosts/user/fault.h"
#include "hosts/user/sys.h"

/* glibc's name for sigaction() that nothing replaces. */
extern int __sigaction(int sig, const struct sigaction *act, struct sigaction *old);

/*
 * The client's dispositions, where ours is installed. Handlers read them without a lock: each writer fills the spare one
 * of two records and then switches.
 */
static struct client_action {
	bool ours;		/* (a) the trampoline, or what host_signal_own() gave, is installed */
	void (*own)(int sig, siginfo_t *info, void *context);
	u32 current;		/* (a) */
	struct sigaction action[2];
} actions[_NSIG];
static u32 actions_lock;

/* By default these do not end the process, and with Linux they do not end KVM_RUN either. */
#define HARMLESS                                                                                   \
	(SYS_SIGBIT(SIGCHLD) | SYS_SIGBIT(SIGURG) | SYS_SIGBIT(SIGWINCH) | SYS_SIGBIT(SIGCONT) |   \
	 SYS_SIGBIT(SIGTSTP) | SYS_SIGBIT(SIGTTIN) | SYS_SIGBIT(SIGTTOU))

static __thread struct host_thread self __attribute__((tls_model("initial-exec")));

struct host_thread *host_thread(void)
{
	return &self;
}

u64 host_thread_self(void)
{
	return (u64)(uintptr_t)&self;
}

bool host_signal_pending(void)
{
	return __atomic_load_n(&self.pending, __ATOMIC_RELAXED);
}

unsigned host_thread_hint(void)
{
	static unsigned threads;

	if (unlikely(!self.hint))
		self.hint = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
	return self.hint;
}

/* A thread takes everything along wherever it runs. */
void host_sched_init(struct host_sched *s, const struct host_sched_ops *ops)
{
	s->ops = ops;
}

void host_sched_begin(struct host_sched *s)
{
	s->ops->in(s, 0);
}

void host_sched_end(struct host_sched *s)
{
	s->ops->out(s);
}

void host_sched_kick(struct host_sched *s)
{
	(void)s; /* the engine's own kick has told guest code */
}

/* The host preempts threads and does its work by itself. */
bool host_work_pending(void)
{
	return false;
}

int host_work(void)
{
	return 0;
}

static long switches(void)
{
	struct rusage use;

	return syscall(SYS_getrusage, RUSAGE_THREAD, &use) ? 0 : use.ru_nvcsw + use.ru_nivcsw;
}

/* The host does not tell who waits, but it lets them run, and counts that. */
bool host_may_spin(void)
{
	long before = switches();

	sched_yield();
	return switches() == before;
}

/* All signals are blocked meanwhile: a handler that calls sigaction() would wait for itself. */
static u64 lock_actions(void)
{
	u64 all = ~SYS_FAULT_SIGNALS, old;

	sys_sigmask(SIG_BLOCK, &all, &old);
	while (__atomic_exchange_n(&actions_lock, 1, __ATOMIC_ACQUIRE))
		sys_futex_wait(&actions_lock, 1, &(struct timespec){ .tv_nsec = 1000000 });
	return old;
}

static void unlock_actions(u64 old)
{
	__atomic_store_n(&actions_lock, 0, __ATOMIC_RELEASE);
	sys_futex_wake(&actions_lock, 1);
	sys_sigmask(SIG_SETMASK, &old, NULL);
}

static const struct sigaction *client_action(int sig)
{
	struct client_action *a = &actions[sig];

	return &a->action[__atomic_load_n(&a->current, __ATOMIC_ACQUIRE) & 1];
}

static void set_client_action(int sig, const struct sigaction *act)
{
	struct client_action *a = &actions[sig];
	u32 next = a->current + 1;

	a->action[next & 1] = *act;
	__atomic_store_n(&a->current, next, __ATOMIC_RELEASE);
}

static bool is_function(const struct sigaction *act)
{
	return (act->sa_flags & SA_SIGINFO) || (act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN);
}

static bool is_fault(int sig, const siginfo_t *info)
{
	return info->si_code > 0 && info->si_code != SI_KERNEL &&
	       (sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGTRAP);
}

static void take_default(int sig, siginfo_t *info)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };

	__atomic_store_n(&actions[sig].ours, false, __ATOMIC_RELEASE);
	__sigaction(sig, &dfl, NULL);
	/* A fault happens again by itself; anything else is sent again and taken when this handler returns. */
	if (!is_fault(sig, info) && info->si_code != SI_KERNEL)
		syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), sig);
}

void host_signal_client(int sig, siginfo_t *info, void *context)
{
	struct sigaction act = *client_action(sig);

	if (!is_function(&act)) {
		if (act.sa_handler == SIG_DFL || is_fault(sig, info) || info->si_code == SI_KERNEL)
			take_default(sig, info);
		return;
	}
	if (act.sa_flags & (int)SA_RESETHAND) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		set_client_action(sig, &dfl);
	}
	if (act.sa_flags & SA_SIGINFO)
		act.sa_sigaction(sig, info, context);
	else
		act.sa_handler(sig);
}

/* Returns true when the signal was put off to the end of KVM_RUN. */
static bool defer(int sig, siginfo_t *info, ucontext_t *uc)
{
	int saved_errno = errno;

	__atomic_store_n(&self.pending, true, __ATOMIC_SEQ_CST);
	if (self.requests)
		__atomic_fetch_or(self.requests, self.bits, __ATOMIC_SEQ_CST);
	if (self.budget)
		__atomic_store_n(self.budget, -1, __ATOMIC_SEQ_CST);
	if (self.sleep_word)
		__atomic_fetch_add(self.sleep_word, 1, __ATOMIC_SEQ_CST);
	/* Blocked from this handler's return on, and pending again. */
	sigaddset(&uc->uc_sigmask, sig);
	self.deferred |= SYS_SIGBIT(sig);
	if (syscall(SYS_rt_tgsigqueueinfo, getpid(), (int)syscall(SYS_gettid), sig, info))
		syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), sig);
	errno = saved_errno;
	return true;
}

/* A fault that names no address, #GP: that cannot be put off either. */
static bool is_gp(int sig, const siginfo_t *info)
{
	return info->si_code == SI_KERNEL && (sig == SIGSEGV || sig == SIGBUS);
}

static void trampoline(int sig, siginfo_t *info, void *context)
{
	if (self.in_run && !is_fault(sig, info) && !is_gp(sig, info) && defer(sig, info, context))
		return;
	if (actions[sig].own)
		actions[sig].own(sig, info, context);
	else
		host_signal_client(sig, info, context);
}

/* The kernel's view of the client's @act: its flags and mask, our function. */
static int install(int sig, const struct sigaction *act)
{
	struct sigaction ours = *act;

	ours.sa_sigaction = trampoline;
	ours.sa_flags = (ours.sa_flags | SA_SIGINFO) & ~(int)SA_RESETHAND;
	if (actions[sig].own) /* faults may come on a thread's last stack page, and inside of each other */
		ours.sa_flags |= SA_ONSTACK | SA_NODEFER;
	if (!is_function(act)) {
		ours.sa_flags = SA_SIGINFO | SA_RESTART | (actions[sig].own ? SA_ONSTACK | SA_NODEFER : 0);
		sigemptyset(&ours.sa_mask);
	}
	return __sigaction(sig, &ours, NULL);
}

static bool hands_off(int sig)
{
	/* 32 and 33 are glibc's own */
	return sig <= 0 || sig >= _NSIG || sig == SIGKILL || sig == SIGSTOP || sig == 32 || sig == 33;
}

int host_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction new, before;
	int rc = 0;
	u64 mask;

	if (hands_off(sig))
		return __sigaction(sig, act, old);
	if (act)
		new = *act; /* a bad address faults here, without the lock */
	mask = lock_actions();
	if (actions[sig].ours)
		before = *client_action(sig);
	else
		rc = __sigaction(sig, NULL, &before);
	if (!rc && act) {
		set_client_action(sig, &new);
		if (is_function(&new) || actions[sig].own) {
			rc = install(sig, &new);
			__atomic_store_n(&actions[sig].ours, !rc, __ATOMIC_RELEASE);
		} else {
			__atomic_store_n(&actions[sig].ours, false, __ATOMIC_RELEASE);
			rc = __sigaction(sig, &new, NULL);
		}
	}
	unlock_actions(mask);
	if (!rc && old)
		*old = before;
	return rc;
}

/* Takes over what was installed without us. @always: even when there is no handler. */
static void adopt(int sig, bool always)
{
	struct sigaction now;
	u64 mask;

	if (hands_off(sig))
		return;
	mask = lock_actions();
	if (!__sigaction(sig, NULL, &now) && !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == trampoline) &&
	    (always || is_function(&now))) {
		set_client_action(sig, &now);
		__atomic_store_n(&actions[sig].ours, !install(sig, &now), __ATOMIC_RELEASE);
	}
	unlock_actions(mask);
}

int host_signal_own(int sig, void (*handler)(int sig, siginfo_t *info, void *context))
{
	/* Every thread comes here once; the first one's word stands */
	if (__atomic_load_n(&actions[sig].own, __ATOMIC_ACQUIRE) != handler)
		__atomic_store_n(&actions[sig].own, handler, __ATOMIC_RELEASE);
	adopt(sig, true);
	return __atomic_load_n(&actions[sig].ours, __ATOMIC_ACQUIRE) ? 0 : -EINVAL;
}

static void adopt_all(void)
{
	int sig;

	for (sig = 1; sig < _NSIG; sig++)
		adopt(sig, actions[sig].own);
}

void host_thread_prepare(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	u64 faults = SYS_FAULT_SIGNALS;

	if (likely(self.prepared))
		return;
	self.prepared = true;
	pthread_once(&once, adopt_all);
	host_fault_init();
	sys_sigmask(SIG_UNBLOCK, &faults, NULL);
}

void host_run_begin(u64 *requests, u64 bits)
{
	host_thread_prepare();
	self.pending = false;
	self.deferred = 0;
	self.masked = false;
	self.requests = requests;
	self.bits = bits;
	self.budget = NULL;
	__atomic_store_n(&self.in_run, true, __ATOMIC_SEQ_CST);
}

void host_run_hint(s32 *budget)
{
	__atomic_store_n(&self.budget, budget, __ATOMIC_SEQ_CST);
}

/* What is opened may have the default disposition, for the client means to fetch it by sigtimedwait(). */
void host_run_sigmask(u64 mask)
{
	u64 before;
	int sig;

	mask &= ~SYS_FAULT_SIGNALS;
	sys_sigmask(SIG_BLOCK, &(u64){ 0 }, &before);
	for (sig = 1; sig < _NSIG; sig++)
		if ((before & ~mask & ~HARMLESS & SYS_SIGBIT(sig)) && !actions[sig].ours)
			adopt(sig, true);
	self.restore = before;
	self.masked = true;
	sys_sigmask(SIG_SETMASK, &mask, NULL);
}

void host_run_end(bool masked)
{
	u64 all = ~SYS_FAULT_SIGNALS;

	(void)masked; /* the thread knows */
	/* What arrives from here on runs its handler at once: not one that the client has blocked. */
	if (unlikely(self.masked))
		sys_sigmask(SIG_BLOCK, &all, NULL);
	__atomic_store_n(&self.in_run, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&self.pending, false, __ATOMIC_SEQ_CST);
}

void host_signal_deliver(void)
{
	u64 deferred = self.deferred, restore = self.restore;

	if (unlikely(self.masked)) {
		self.masked = false;
		self.deferred = 0;
		sys_sigmask(SIG_SETMASK, &restore, NULL);
	} else if (unlikely(deferred)) {
		self.deferred = 0;
		sys_sigmask(SIG_UNBLOCK, &deferred, NULL);
	}
}
