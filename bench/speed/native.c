/*
 * The payload as an ordinary process, for comparison; and the count of its instructions.
 *
 *	speed-native run 1000     "nanoseconds 123 checksum 0123456789abcdef"
 *	speed-native count 3      "instructions 456": a child does 3 rounds, stepped one instruction at a time; the
 *	                          few instructions around them are counted, too, the same number each time
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/speed/payload.h"

static int run(uint64_t rounds)
{
	struct timespec a, b;
	uint64_t sum;

	clock_gettime(CLOCK_MONOTONIC, &a);
	sum = speed_payload(rounds);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("nanoseconds %" PRIu64 " checksum %016" PRIx64 "\n",
	       (uint64_t)((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec), sum);
	return 0;
}

/* From the instruction after the child's breakpoint to its exit. */
static int count(uint64_t rounds)
{
	uint64_t steps = 0;
	int status;
	pid_t child = fork();

	if (child < 0) {
		perror("speed-native: fork");
		return 1;
	}
	if (!child) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(1);
		__asm__ volatile("int3" : : : "memory");
		speed_payload(rounds);
		__asm__ volatile("syscall" : : "a"(SYS_exit_group), "D"(0) : "rcx", "r11", "memory");
	}
	if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status))
		goto lost;
	for (;;) {
		if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) || waitpid(child, &status, 0) < 0)
			goto lost;
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			break;
		if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
			goto lost;
		steps++;
	}
	printf("instructions %" PRIu64 "\n", steps);
	return 0;
lost:
	fprintf(stderr, "speed-native: the traced process is lost after %" PRIu64 " steps\n", steps);
	return 1;
}

int main(int argc, char **argv)
{
	char *end;
	uint64_t rounds = argc == 3 ? strtoull(argv[2], &end, 10) : 0;

	if (argc != 3 || *end || !rounds) {
		fprintf(stderr, "usage: %s run|count ROUNDS\n", argv[0]);
		return 2;
	}
	if (!strcmp(argv[1], "run"))
		return run(rounds);
	if (!strcmp(argv[1], "count"))
		return count(rounds);
	fprintf(stderr, "%s: %s: run or count is wanted\n", argv[0], argv[1]);
	return 2;
}
