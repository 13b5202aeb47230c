/* Errors with a text, reports, allocation at start-up, time. */
#include "vmm/util.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return code;
}

int error_prefix(struct error *err, int code, const char *fmt, ...)
{
	char old[sizeof(err->text)];
	va_list ap;
	size_t n;

	if (!err)
		return code;
	memcpy(old, err->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	n = strlen(err->text);
	snprintf(err->text + n, sizeof(err->text) - n, ": %.*s", (int)(sizeof(old) - 1), old);
	return code;
}

void report(const char *fmt, ...)
{
	char line[768];
	va_list ap;
	int n, head;

	/* On a terminal in raw mode a newline alone does not go back to the left edge. */
	head = snprintf(line, sizeof(line), "trine: ");
	va_start(ap, fmt);
	n = vsnprintf(line + head, sizeof(line) - head - 2, fmt, ap);
	va_end(ap);
	n = MIN(head + MAX(n, 0), (int)sizeof(line) - 3);
	if (isatty(STDERR_FILENO))
		line[n++] = '\r';
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return; /* nowhere left to say so */
}

static void *checked(void *p)
{
	if (!p) {
		report("out of memory");
		abort();
	}
	return p;
}

char *xstrdup(const char *s)
{
	return checked(strdup(s));
}

void *xzalloc(size_t size)
{
	return checked(calloc(1, size ? size : 1));
}

char *xasprintf(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return checked(n < 0 ? NULL : s);
}

s64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}
