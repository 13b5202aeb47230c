/* Terminal modes. There is one standard input, so this is the process's state, not a machine's. */
#include "vmm/chardev/terminal.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved, raw;
static volatile sig_atomic_t active;

static void set(const struct termios *mode)
{
	sigset_t block, old;

	/* In the background the change would stop us. */
	sigemptyset(&block);
	sigaddset(&block, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &block, &old);
	tcsetattr(STDIN_FILENO, TCSANOW, mode);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void terminal_raw(bool signals)
{
	static bool registered;

	if (!isatty(STDIN_FILENO) || (!active && tcgetattr(STDIN_FILENO, &saved) < 0))
		return;
	raw = saved;
	raw.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	raw.c_oflag |= OPOST;
	raw.c_lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN | (signals ? 0 : ISIG));
	raw.c_cflag = (raw.c_cflag & ~(CSIZE | PARENB)) | CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (!registered)
		atexit(terminal_restore);
	registered = true;
	active = 1;
	set(&raw);
}

void terminal_restore(void)
{
	if (!active)
		return;
	active = 0;
	set(&saved);
}

void terminal_suspend(void)
{
	bool was = active;

	if (was)
		set(&saved);
	kill(getpid(), SIGSTOP);
	if (was)
		set(&raw);
}

void terminal_resume(void)
{
	if (active)
		set(&raw);
}

static void on_fatal(int signal)
{
	/*
	 * tcsetattr() may be called from a handler. The handler is gone (SA_RESETHAND): raised
	 * again, the signal ends us.
	 */
	if (active)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	raise(signal);
}

void terminal_guard(void)
{
	static const int fatal[] = { SIGSEGV, SIGBUS,  SIGFPE, SIGILL, SIGABRT,
				     SIGQUIT, SIGTRAP, SIGSYS, SIGXCPU };
	struct sigaction action = { .sa_handler = on_fatal, .sa_flags = SA_RESETHAND | SA_NODEFER };
	unsigned i;

	sigemptyset(&action.sa_mask);
	for (i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		sigaction(fatal[i], &action, NULL);
	/*
	 * Writing to a pipe or socket that nobody reads is an error there, not the end. A file too
	 * large is one too.
	 */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
}
