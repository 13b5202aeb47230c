/* Rows that are the kernel's work: calls, faults, processes, signals, threads. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "bench/guest/bench.h"

uint64_t row_getppid(struct bench *b)
{
	uint64_t right = 0;
	pid_t parent = getppid();

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++)
		right += syscall(SYS_getppid) == parent;
	bench_end(b);
	return right;
}

/* The vDSO's, where the guest has a clock that it may read without the kernel. */
uint64_t row_clock(struct bench *b)
{
	uint64_t right = 0, before = bench_now();

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		uint64_t now = bench_now();

		right += now >= before;
		before = now;
	}
	bench_end(b);
	return right;
}

uint64_t row_files(struct bench *b)
{
	char folder[64], path[128], text[64], back[64];
	uint64_t right = 0;

	/* In memory on both sides. */
	snprintf(folder, sizeof(folder), "/dev/shm/trine-bench-%d", getpid());
	bench_must(mkdir(folder, 0700), folder);
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		int size = snprintf(text, sizeof(text), "this is file %lu", (unsigned long)i), fd;
		struct stat st;

		snprintf(path, sizeof(path), "%s/%lu", folder, (unsigned long)i % 100);
		fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
		bench_must(fd < 0 || write(fd, text, size) != size || close(fd) || stat(path, &st), path);
		fd = open(path, O_RDONLY);
		bench_must(fd < 0 || read(fd, back, sizeof(back)) != size || close(fd) || unlink(path), path);
		right += st.st_size == size && !memcmp(text, back, size);
	}
	bench_end(b);
	bench_must(rmdir(folder), folder);
	return right;
}

/* A child that does not outlive the row. */
static pid_t start_child(void)
{
	pid_t child = fork();

	bench_must(child < 0, "fork");
	if (!child)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return child;
}

static void end_child(pid_t child)
{
	int status;

	bench_must(waitpid(child, &status, 0) != child, "waitpid");
	if (status)
		bench_fail("the other process ended with status %#x", status);
}

/* Both ping-pongs stay on one CPU, so that they measure the change of processes and not how a sleeping CPU is woken. */
uint64_t row_pipe(struct bench *b)
{
	uint64_t right = 0;
	int there[2], back[2];
	uint32_t word;
	pid_t child;

	bench_must(pipe(there) || pipe(back), "pipe");
	bench_pin(0);
	child = start_child();
	if (!child) {
		for (uint64_t i = 0; i < b->count; i++) {
			if (read(there[0], &word, 4) != 4)
				_exit(1);
			word ^= 0x5a5a5a5a;
			if (write(back[1], &word, 4) != 4)
				_exit(2);
		}
		_exit(0);
	}
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		word = i;
		if (write(there[1], &word, 4) != 4 || read(back[0], &word, 4) != 4)
			bench_must(1, "pipe");
		right += word == ((uint32_t)i ^ 0x5a5a5a5a);
	}
	bench_end(b);
	end_child(child);
	return right;
}

static void futex_await(_Atomic uint32_t *word, uint32_t value)
{
	uint32_t seen;

	while ((seen = atomic_load(word)) != value)
		syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void futex_set(_Atomic uint32_t *word, uint32_t value)
{
	atomic_store(word, value);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

uint64_t row_futex(struct bench *b)
{
	_Atomic uint32_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	_Atomic uint32_t *ping = words, *pong = words + 64;
	pid_t child;

	bench_must(words == MAP_FAILED, "mmap");
	bench_pin(0);
	child = start_child();
	if (!child) {
		for (uint64_t i = 1; i <= b->count; i++) {
			futex_await(ping, i);
			futex_set(pong, i);
		}
		_exit(0);
	}
	bench_begin(b);
	for (uint64_t i = 1; i <= b->count; i++) {
		futex_set(ping, i);
		futex_await(pong, i);
	}
	bench_end(b);
	end_child(child);
	return (uint64_t)*ping + *pong;
}

uint64_t row_fault(struct bench *b)
{
	enum { PAGES = 2000 };
	uint64_t fresh = 0;

	bench_begin(b);
	for (uint64_t done = 0; done < b->count; done += PAGES) {
		volatile uint64_t *pages =
			mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		bench_must(pages == MAP_FAILED, "mmap");
		madvise((void *)pages, PAGES * 4096, MADV_NOHUGEPAGE);
		for (size_t i = 0; i < PAGES; i++)
			fresh += ++pages[i * 512];
		munmap((void *)pages, PAGES * 4096);
	}
	bench_end(b);
	return fresh;
}

uint64_t row_mmap(struct bench *b)
{
	uint64_t fresh = 0;

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		volatile uint64_t *pages = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		bench_must(pages == MAP_FAILED, "mmap");
		fresh += ++pages[i % 16 * 512];
		munmap((void *)pages, 65536);
	}
	bench_end(b);
	return fresh;
}

uint64_t row_fork(struct bench *b)
{
	uint64_t right = 0;

	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		int status;
		pid_t child = fork();

		if (!child)
			_exit(i & 0x7f);
		bench_must(child < 0 || waitpid(child, &status, 0) != child, "fork");
		right += status == (int)(i & 0x7f) << 8;
	}
	bench_end(b);
	return right;
}

uint64_t row_exec(struct bench *b)
{
	char path[256], *argv[] = { path, NULL };
	uint64_t right = 0;

	snprintf(path, sizeof(path), "%s/tiny", b->dir);
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++) {
		int status;
		pid_t child = fork();

		if (!child) {
			execv(path, argv);
			_exit(1);
		}
		bench_must(child < 0 || waitpid(child, &status, 0) != child, "fork");
		right += status == 42 << 8;
	}
	bench_end(b);
	return right;
}

static volatile uint64_t handled;

static void count_signal(int signal)
{
	handled++;
}

static void handle(int signal, void (*simple)(int), void (*full)(int, siginfo_t *, void *))
{
	struct sigaction action = { .sa_flags = full ? SA_SIGINFO : 0 };

	if (full)
		action.sa_sigaction = full;
	else
		action.sa_handler = simple;
	bench_must(sigaction(signal, &action, NULL), "sigaction");
}

uint64_t row_signal(struct bench *b)
{
	pid_t self = getpid();
	long thread = syscall(SYS_gettid);

	handle(SIGUSR1, count_signal, NULL);
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++)
		syscall(SYS_tgkill, self, thread, SIGUSR1);
	bench_end(b);
	return handled;
}

static char *forbidden;

/* The load is two bytes long: mov (%rax), %ecx. */
static void skip_load(int signal, siginfo_t *info, void *context)
{
	ucontext_t *state = context;

	handled += info->si_addr == forbidden + state->uc_mcontext.gregs[REG_RDX];
	state->uc_mcontext.gregs[REG_RIP] += 2;
}

uint64_t row_segv(struct bench *b)
{
	forbidden = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bench_must(forbidden == MAP_FAILED, "mmap");
	handle(SIGSEGV, NULL, skip_load);
	bench_begin(b);
	for (uint64_t i = 0; i < b->count; i++)
		__asm__ volatile(".byte 0x8b, 0x08" : : "a"(forbidden + (i & 0xff)), "d"(i & 0xff) : "rcx", "memory");
	bench_end(b);
	return handled;
}

static struct {
	_Atomic uint64_t counter;
	_Atomic int ready;
	uint64_t count;
} shared __attribute__((aligned(64)));

static void *add(void *cpu)
{
	bench_pin((uintptr_t)cpu);
	atomic_fetch_add(&shared.ready, 1);
	while (atomic_load(&shared.ready) < 2)
		sched_yield();
	for (uint64_t i = 0; i < shared.count; i++)
		atomic_fetch_add(&shared.counter, 1);
	return NULL;
}

uint64_t row_atomic(struct bench *b)
{
	pthread_t other;

	shared.count = b->count;
	bench_must((errno = pthread_create(&other, NULL, add, (void *)1)), "pthread_create");
	while (!atomic_load(&shared.ready))
		sched_yield();
	bench_begin(b);
	add((void *)0);
	pthread_join(other, NULL);
	bench_end(b);
	return shared.counter;
}
