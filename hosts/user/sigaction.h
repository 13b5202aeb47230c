/* The part of signals.h that knows struct sigaction: apart, for <signal.h> and core/x86/x86.h name registers alike. */
#ifndef HOSTS_USER_SIGACTION_H
#define HOSTS_USER_SIGACTION_H

#include <signal.h>

#include "hosts/user/signals.h"

/** As sigaction(2); what the client sees of its own dispositions. Async-signal-safe. 0, or -1 and errno. */
int host_sigaction(int sig, const struct sigaction *act, struct sigaction *old);
/** Runs the client's disposition of @sig (called by our own SIGSEGV and SIGBUS handler, for faults that are not ours). */
void host_signal_client(int sig, siginfo_t *info, void *context);
/** Puts @handler before the client's for @sig. 0 or -errno. */
int host_signal_own(int sig, void (*handler)(int sig, siginfo_t *info, void *context));

#endif
