/* Words: the log goes to standard error, and TRINE_LOG (error, warning, info, debug) says how much of it. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hosts/user/log.h"
#include "hosts/user/sys.h"
#include "hosts/user/vectors.h"

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

	if (wanted >= 0 && (int)level > wanted)
		return;
	HOST_KEEP_VECTORS;
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

/* ---- the trace ----------------------------------------------------------------------------------------------- */

static int trace_fd = STDERR_FILENO; /* (a) */

int host_trace_open(const char *path)
{
	int fd = STDERR_FILENO;

	if (strcmp(path, "-"))
		fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (fd > STDERR_FILENO)
		fd = host_fd_hide(fd);
	/* The former file stays open: another thread may be writing to it. */
	__atomic_store_n(&trace_fd, fd, __ATOMIC_RELEASE);
	return 0;
}

void host_trace(const char *text, size_t len)
{
	int fd = __atomic_load_n(&trace_fd, __ATOMIC_ACQUIRE);

	while (len) {
		ssize_t n = syscall(SYS_write, fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody listens */
		text += n;
		len -= (size_t)n;
	}
}

int host_vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
	HOST_KEEP_VECTORS;

	return vsnprintf(buf, size, fmt, ap);
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

/* The process id stands for the process: a forked child has another. */
struct host_client *host_client_get(void)
{
	return (struct host_client *)(uintptr_t)host_client_pid();
}

void host_client_put(struct host_client *client)
{
	(void)client;
}

bool host_client_is_mine(const struct host_client *client)
{
	return (uintptr_t)client == host_client_pid();
}
