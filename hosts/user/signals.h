/*
 * Signals as KVM_RUN must see them. In the kernel a signal makes KVM_RUN return -EINTR and its handler runs after that. In a
 * process the handler would run in the middle. So every handler of the client is replaced by host_signal_trampoline():
 * outside of KVM_RUN it calls the client's handler at once; inside, it notes the signal, queues it again, blocked, and KVM_RUN
 * leaves; the handler runs when host_signal_deliver() opens the signal, at the end of the ioctl. With KVM_SET_SIGNAL_MASK the client may have it blocked
 * outside: then it stays pending, as with Linux.
 *
 * The client's calls of sigaction() and its kin come to host_sigaction() because libtrine and the preload shim export functions
 * of those names. Handlers that were installed behind its back are found at the first KVM_RUN.
 */
#ifndef HOSTS_USER_SIGNAL_H
#define HOSTS_USER_SIGNAL_H

#include "hosts/host.h"

/* What a handler on this thread needs to know. */
struct host_thread {
	bool in_run, pending, masked, prepared;
	u64 *requests, bits; /* set on arrival */
	s32 *budget;	     /* the same, made negative; NULL: none */
	u32 *sleep_word;     /* changed on arrival */
	u64 deferred;	     /* signals that host_signal_deliver() opens */
	u64 restore;	     /* with @masked: the client's own mask */
	unsigned hint;	     /* 0: not asked for yet */
};

struct host_thread *host_thread(void);

/** Between host_run_begin() and host_run_end(): a signal also makes *@budget negative. For an engine whose guest code looks at
 * that and not at the request bits. */
void host_run_hint(s32 *budget);
/** At the end of an ioctl, when nothing is held: opens the signals that KVM_RUN put off. Handlers may longjmp away. */
void host_signal_deliver(void);
/** Once a thread, before core touches client memory: SIGSEGV and SIGBUS must not be blocked. */
void host_thread_prepare(void);

#endif
