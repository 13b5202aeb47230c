/* hosts/user against the contracts of hosts/host.h. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hosts/user/fault.h"
#include "hosts/user/file.h"
#include "hosts/user/signals.h"
#include "hosts/user/sys.h"
#include "tests/tap.h"

static void nap(long ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

/* ---- client memory ------------------------------------------------------------------------------------------- */

static void client_memory(void)
{
	static const size_t sizes[] = { 1, 2, 3, 4, 7, 8, 16, 100, 4096 };
	u8 *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), buf[4096], got[4096];
	unsigned i, bad = 0, through = 0;
	u64 old[2], new[2];

	munmap(p + 2 * 4096, 4096);
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (u8)(i * 7 + 1);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		bad += host_copy_to_client((u64)(uintptr_t)p + 5, buf, sizes[i]) || host_copy_from_client(got, (u64)(uintptr_t)p + 5, sizes[i]) ||
		       memcmp(buf, got, sizes[i]);
		/* the last byte is beyond the mapping */
		through += host_copy_to_client((u64)(uintptr_t)p + 2 * 4096 - sizes[i] + 1, buf, sizes[i]) != -EFAULT;
		through += host_copy_from_client(got, (u64)(uintptr_t)p + 2 * 4096 - sizes[i] + 1, sizes[i]) != -EFAULT;
	}
	tap_ok(!bad, "copies of every size arrive");
	tap_ok(!through, "copies over the end of a mapping are -EFAULT");
	tap_ok(host_copy_from_client(got, 0, 8) == -EFAULT, "address 0 is -EFAULT");
	tap_ok(host_copy_from_client(got, 0x800000000000, 8) == -EFAULT, "an address in the kernel's half is -EFAULT");
	tap_ok(host_copy_from_client(got, ~0ULL - 3, 8) == -EFAULT, "a range that wraps is -EFAULT");
	mprotect(p, 4096, PROT_READ);
	tap_ok(host_copy_to_client((u64)(uintptr_t)p, buf, 8) == -EFAULT, "writing to a read-only page is -EFAULT");
	tap_ok(!host_copy_from_client(got, (u64)(uintptr_t)p, 8), "reading it is not");
	mprotect(p, 4096, PROT_READ | PROT_WRITE);
	bad = 0;
	for (i = 1; i <= 16; i *= 2) {
		memset(p, 0x11, 16);
		memset(old, 0x11, 16);
		memset(new, 0x22, 16);
		bad += host_client_cmpxchg((u64)(uintptr_t)p, old, new, i) != 0 || p[0] != 0x22 || p[i - 1] != 0x22;
		memset(old, 0x33, 16);
		bad += host_client_cmpxchg((u64)(uintptr_t)p, old, new, i) != 1 || *(u8 *)old != 0x22;
		bad += host_client_cmpxchg((u64)(uintptr_t)p + 2 * 4096, old, new, i) != -EFAULT;
	}
	tap_ok(!bad, "compare-exchange of every size succeeds, fails, and faults");
	munmap(p, 2 * 4096);
}

/* A truncated file is SIGBUS, not SIGSEGV. */
static void truncated(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	u8 *p, byte;

	if (ftruncate(fd, 4096))
		return;
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	p[0] = 1;
	if (ftruncate(fd, 0))
		return;
	tap_ok(host_copy_from_client(&byte, (u64)(uintptr_t)p, 1) == -EFAULT, "memory whose file was truncated is -EFAULT");
	munmap(p, 4096);
	close(fd);
}

static volatile sig_atomic_t client_faults;
static u8 *client_page;

static void client_handler(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	if (info->si_addr == client_page) {
		client_faults++;
		mprotect(client_page, 4096, PROT_READ | PROT_WRITE);
	}
}

static void chained(void)
{
	u8 byte;

	client_page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	host_fault_init();
	/* By libtrine's own sigaction(): this program is linked with it. */
	sigaction(SIGSEGV, &(struct sigaction){ .sa_sigaction = client_handler, .sa_flags = SA_SIGINFO }, NULL);
	tap_ok(host_copy_from_client(&byte, (u64)(uintptr_t)client_page, 1) == -EFAULT && !client_faults, "core's own faults do not reach the client's handler");
	*(volatile u8 *)client_page = 5;
	tap_ok(client_faults == 1 && *client_page == 5, "the client's faults do");
	sigaction(SIGSEGV, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
	munmap(client_page, 4096);
}

static bool fix(struct host_fault_range *range, struct host_fault *fault)
{
	(void)range;
	fault->gpr[0] = 0x1234;
	fault->rip = fault->gpr[1];
	return true;
}

__attribute__((noinline)) static u64 touch(const void *p)
{
	u64 value = 0;

	__asm__ volatile("lea 2f(%%rip), %%rcx\n1: movq (%1), %0\n2:" : "+a"(value) : "r"(p) : "rcx", "memory");
	return value;
}

static void registered(void)
{
	struct host_fault_range range = { .start = (u64)(uintptr_t)touch, .end = (u64)(uintptr_t)touch + 256, .fixup = fix };

	host_fault_register(&range);
	tap_ok(touch((void *)0x10) == 0x1234, "a registered range repairs its own faults");
	host_fault_unregister(&range);
}

/* ---- SRCU ---------------------------------------------------------------------------------------------------- */

struct srcu_test {
	struct host_srcu srcu;
	u64 *value; /* what it points to is 42 until it may no longer be looked at */
	bool stop;
	long bad, reads;
};

static void *srcu_reader(void *arg)
{
	struct srcu_test *t = arg;

	while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED)) {
		int outer = host_srcu_read_lock(&t->srcu), inner = host_srcu_read_lock(&t->srcu);
		u64 *p = __atomic_load_n(&t->value, __ATOMIC_ACQUIRE);

		host_srcu_read_unlock(&t->srcu, inner);
		if (__atomic_load_n(p, __ATOMIC_RELAXED) != 42)
			__atomic_fetch_add(&t->bad, 1, __ATOMIC_RELAXED);
		host_srcu_read_unlock(&t->srcu, outer);
		__atomic_fetch_add(&t->reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void srcu(void)
{
	struct srcu_test t = { 0 };
	static u64 pool[300];
	pthread_t reader[3];
	unsigned i;

	host_srcu_init(&t.srcu);
	pool[0] = 42;
	t.value = &pool[0];
	for (i = 0; i < ARRAY_SIZE(reader); i++)
		pthread_create(&reader[i], NULL, srcu_reader, &t);
	while (!__atomic_load_n(&t.reads, __ATOMIC_RELAXED))
		nap(1);
	for (i = 1; i < ARRAY_SIZE(pool); i++) {
		u64 *old = t.value;

		__atomic_store_n(&pool[i], 42, __ATOMIC_RELAXED);
		__atomic_store_n(&t.value, &pool[i], __ATOMIC_RELEASE);
		host_srcu_synchronize(&t.srcu);
		__atomic_store_n(old, 0, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&t.stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < ARRAY_SIZE(reader); i++)
		pthread_join(reader[i], NULL);
	tap_ok(!t.bad && t.reads, "%ld reads saw no value after its grace period", t.reads);
	host_srcu_destroy(&t.srcu);
}

/* ---- sleeping ------------------------------------------------------------------------------------------------ */

struct ping {
	struct host_wait wait;
	long turn;
};

static bool even(struct host_wait *w)
{
	return !(__atomic_load_n(&container_of(w, struct ping, wait)->turn, __ATOMIC_ACQUIRE) & 1);
}

static bool odd(struct host_wait *w)
{
	return !even(w);
}

enum { TURNS = 2000 };

static void *ponger(void *arg)
{
	struct ping *p = arg;
	int i;

	for (i = 0; i < TURNS; i++) {
		host_wait_sleep(&p->wait, odd);
		__atomic_fetch_add(&p->turn, 1, __ATOMIC_RELEASE);
		host_wait_wake(&p->wait);
	}
	return NULL;
}

static void sleeping(void)
{
	struct ping p = { 0 };
	pthread_t thread;
	int i;

	host_wait_init(&p.wait);
	pthread_create(&thread, NULL, ponger, &p);
	for (i = 0; i < TURNS; i++) {
		host_wait_sleep(&p.wait, even);
		__atomic_fetch_add(&p.turn, 1, __ATOMIC_RELEASE);
		host_wait_wake(&p.wait);
	}
	pthread_join(thread, NULL);
	tap_ok(p.turn == 2 * TURNS, "no wake-up is lost in %d turns", 2 * TURNS);
}

/* ---- timers -------------------------------------------------------------------------------------------------- */

struct test_timer {
	struct host_timer timer;
	u64 deadline;
	int fired, early;
	int again;
};

static void on_timer(struct host_timer *timer)
{
	struct test_timer *t = container_of(timer, struct test_timer, timer);

	if (host_now_ns() < t->deadline)
		t->early++;
	if (t->again-- > 0)
		host_timer_start(timer, t->deadline = host_now_ns() + 1000000);
	__atomic_fetch_add(&t->fired, 1, __ATOMIC_SEQ_CST);
}

static bool fires(struct test_timer *t, int times)
{
	int i;

	for (i = 0; i < 5000 && __atomic_load_n(&t->fired, __ATOMIC_SEQ_CST) < times; i++)
		nap(1);
	return __atomic_load_n(&t->fired, __ATOMIC_SEQ_CST) == times;
}

static void start(struct test_timer *t, u64 after_ns)
{
	t->deadline = host_now_ns() + after_ns;
	host_timer_start(&t->timer, t->deadline);
}

static void timers(void)
{
	static struct test_timer a, b, many[100];
	unsigned i, bad = 0;

	host_timer_init(&a.timer, on_timer);
	host_timer_init(&b.timer, on_timer);
	start(&a, 20000000);
	start(&b, 5000000);
	tap_ok(fires(&b, 1) && fires(&a, 1), "timers fire");
	host_timer_start(&a.timer, 1);
	tap_ok(fires(&a, 2), "one in the past fires at once");
	start(&a, 50000000);
	host_timer_cancel(&a.timer);
	nap(80);
	tap_ok(a.fired == 2, "one that was cancelled does not");
	start(&a, 3600000000000ULL);
	start(&a, 5000000);
	tap_ok(fires(&a, 3), "one that was moved forward fires then");
	a.again = 3;
	start(&a, 1000000);
	tap_ok(fires(&a, 7), "one that starts itself again goes on");
	for (i = 0; i < ARRAY_SIZE(many); i++) {
		host_timer_init(&many[i].timer, on_timer);
		start(&many[i], (u64)(i * 7919 % 100) * 200000);
	}
	for (i = 0; i < ARRAY_SIZE(many); i++)
		bad += !fires(&many[i], 1) || many[i].early;
	tap_ok(!bad, "a hundred in no order all fire once, and none early");
}

/* ---- eventfds ------------------------------------------------------------------------------------------------- */

struct test_listener {
	struct host_eventfd_listener listener;
	int heard;
};

static void on_event(struct host_eventfd_listener *l)
{
	__atomic_fetch_add(&container_of(l, struct test_listener, listener)->heard, 1, __ATOMIC_SEQ_CST);
}

static bool hears(struct test_listener *t, int times)
{
	int i;

	for (i = 0; i < 5000 && __atomic_load_n(&t->heard, __ATOMIC_SEQ_CST) < times; i++)
		nap(1);
	return __atomic_load_n(&t->heard, __ATOMIC_SEQ_CST) == times;
}

static void eventfds(void)
{
	int fd = eventfd(0, EFD_CLOEXEC), copy = dup(fd), other = eventfd(0, EFD_CLOEXEC), error;
	struct host_eventfd *e = host_eventfd_get(fd, &error), *same = host_eventfd_get(copy, &error), *differs = host_eventfd_get(other, &error);
	struct test_listener t = { .listener.fn = on_event };
	u64 n = 0;

	tap_ok(e && same && differs, "references to eventfds");
	tap_ok(host_eventfd_same(e, same) && !host_eventfd_same(e, differs), "two descriptors of one are the same, two eventfds are not");
	tap_ok(!host_eventfd_get(100000, &error) && error == -EBADF, "a closed descriptor is -EBADF");
	tap_ok(!host_eventfd_get(STDERR_FILENO, &error) && error == -EINVAL, "something else is -EINVAL");
	host_eventfd_signal(e, 3);
	tap_ok(read(fd, &n, 8) == 8 && n == 3, "a signal adds to the count");
	tap_ok(!host_eventfd_listen(e, &t.listener), "listening");
	n = 1;
	tap_ok(write(fd, &n, 8) == 8 && hears(&t, 1), "the client's write is heard");
	close(fd);
	tap_ok(write(copy, &n, 8) == 8 && hears(&t, 2), "also when the first descriptor is closed");
	host_eventfd_unlisten(&t.listener);
	n = 1;
	tap_ok(write(copy, &n, 8) == 8, "one more write");
	nap(20);
	tap_ok(t.heard == 2 && read(copy, &n, 8) == 8 && n == 1, "is not heard any more, nor consumed");
	host_eventfd_put(e);
	host_eventfd_put(same);
	host_eventfd_put(differs);
	close(copy);
	close(other);
}

/* ---- signals ------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t handled;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

static void signals(void)
{
	struct sigaction act = { .sa_handler = on_signal }, old;
	u64 requests = 0;
	s32 hint = 512;

	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGUSR1, NULL, &old);
	tap_ok(old.sa_handler == on_signal, "the client sees its own handler");
	raise(SIGUSR1);
	tap_ok(handled == 1, "outside of KVM_RUN it is called at once");
	host_run_begin(&requests, 8);
	tap_ok(!host_signal_pending(), "nothing is pending when KVM_RUN begins");
	host_run_hint(&hint);
	raise(SIGUSR1);
	tap_ok(handled == 1 && host_signal_pending() && requests == 8 && hint < 0, "in KVM_RUN it is noted, and guest code is told");
	host_run_end(false);
	host_signal_deliver();
	tap_ok(handled == 2, "and called when KVM_RUN has returned");
	hint = 512;
	host_run_begin(&requests, 8);
	raise(SIGUSR1);
	host_run_end(false);
	host_signal_deliver();
	tap_ok(handled == 3 && hint == 512, "the next KVM_RUN has a hint of its own, or none");
	tap_ok(!host_signal_pending(), "then nothing is pending");
	tap_ok(signal(SIGUSR1, SIG_IGN) == on_signal && signal(SIGUSR1, SIG_DFL) == SIG_IGN, "signal() says what was");
}

/* ---- files --------------------------------------------------------------------------------------------------- */

struct test_file {
	struct host_file file;
	int released;
};

static long file_ioctl(struct host_file *file, unsigned cmd, u64 arg)
{
	(void)file;
	return cmd == 1 ? (long)arg : -ENOTTY;
}

static void file_release(struct host_file *file)
{
	container_of(file, struct test_file, file)->released++;
}

static const struct host_file_ops file_ops = { .name = "test", .ioctl = file_ioctl, .release = file_release };

static void files(void)
{
	struct test_file f = { .file.ops = &file_ops };
	int fd = host_file_install(&f.file), copy, status = 1;
	pid_t child;

	tap_ok(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC), "a descriptor that closes on exec");
	tap_ok(host_file_ioctl(fd, 1, 77) == 77 && host_file_ioctl(fd, 2, 0) == -ENOTTY, "its ioctl");
	tap_ok(host_file_ioctl(STDERR_FILENO, 1, 0) == -EBADF, "others have none");
	copy = dup(fd);
	tap_ok(host_file_ioctl(copy, 1, 78) == 78, "a duplicate that nobody told of is recognised");
	child = fork();
	if (!child) {
		host_file_close(fd);
		_exit(f.released);
	}
	waitpid(child, &status, 0);
	tap_ok(!status, "a child that closes its copy releases nothing");
	tap_ok(!host_file_close(fd) && !f.released, "closing the first leaves the object");
	tap_ok(host_file_ioctl(copy, 1, 79) == 79, "the duplicate still works");
	tap_ok(!host_file_close(copy) && f.released == 1, "closing the last releases it");
	tap_ok(host_file_close(copy) == -EBADF, "closing again is -EBADF");
}

int main(void)
{
	tap_begin();
	host_thread_prepare();
	client_memory();
	truncated();
	chained();
	registered();
	srcu();
	sleeping();
	timers();
	eventfds();
	signals();
	files();
	tap_ok(host_tsc_khz() == 0 || host_tsc_khz() > 100000, "the TSC's frequency is none, or one: %u kHz", host_tsc_khz());
	return tap_end();
}
