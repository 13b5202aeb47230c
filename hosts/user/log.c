/* Words: the log goes to standard error, and TRINE_LOG (error, warning, info, debug) says how much of it. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hosts/host.h"

#define LINES_A_SECOND 20

static int log_level = -1;

static int level_of_environment(void)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	const char *want = getenv("TRINE_LOG");
	int i;

	for (i = 0; want && i < (int)ARRAY_SIZE(names); i++)
		if (!strcmp(want, names[i]))
			return i;
	return HOST_LOG_WARNING;
}

/* Too many lines a second help nobody, and a guest may be the one who causes them. */
static bool limited(void)
{
	static u64 second, lines;
	u64 now = host_now_ns() / 1000000000;

	if (__atomic_exchange_n(&second, now, __ATOMIC_RELAXED) != now)
		__atomic_store_n(&lines, 0, __ATOMIC_RELAXED);
	return __atomic_add_fetch(&lines, 1, __ATOMIC_RELAXED) > LINES_A_SECOND;
}

void host_log(enum host_log_level level, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n, wanted = __atomic_load_n(&log_level, __ATOMIC_RELAXED);

	if (wanted < 0) {
		wanted = level_of_environment();
		__atomic_store_n(&log_level, wanted, __ATOMIC_RELAXED);
	}
	if ((int)level > wanted || (wanted < HOST_LOG_DEBUG && limited()))
		return;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	n = n < (int)sizeof(line) - 1 ? n : (int)sizeof(line) - 2;
	line[n] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n + 1) < 0)
		return; /* nobody listens */
}

int host_snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, size, fmt, ap);
	va_end(ap);
	return n;
}

static u32 pid;

static void forget_pid(void)
{
	pid = (u32)getpid();
}

static void learn_pid(void)
{
	forget_pid();
	pthread_atfork(NULL, NULL, forget_pid);
}

u32 host_client_pid(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, learn_pid);
	return pid;
}
