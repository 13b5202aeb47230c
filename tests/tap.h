/*
 * The test programs' common verdict printer: the Test Anything Protocol, one verdict a case.
 *
 *	int main(void)
 *	{
 *		tap_begin();
 *		tap_ok(2 + 2 == 4, "addition adds");
 *		tap_skip("needs AVX-512", "vaddps on zmm");
 *		return tap_end();
 *	}
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

/* One pair for all files of a test program. */
__attribute__((weak)) int tap_count, tap_failed;

static inline void tap_begin(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/** Prints one verdict. Returns @good, so that a case can stop after a failed step. */
__attribute__((format(printf, 2, 3))) static inline bool tap_ok(bool good, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	tap_failed += !good;
	return good;
}

/** A comment line; belongs to the verdict that follows. */
__attribute__((format(printf, 1, 2))) static inline void tap_diag(const char *fmt, ...)
{
	va_list ap;

	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/** A case that cannot run here: counted as skipped, never as passed. */
static inline void tap_skip(const char *why, const char *name)
{
	printf("ok %d - %s # SKIP %s\n", ++tap_count, name, why);
}

/** Prints the plan; returns the exit status of main(). */
static inline int tap_end(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed || !tap_count;
}

#endif
