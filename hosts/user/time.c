/* Clocks, and one question to the host's sysfs. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hosts/user/vectors.h"

static u64 read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
}

u64 host_now_ns(void)
{
	return read_clock(CLOCK_BOOTTIME);
}

u64 host_realtime_ns(void)
{
	return read_clock(CLOCK_REALTIME);
}

/* The second number of /proc/PID/task/TID/schedstat. Opened each time: vCPU threads come and go with their descriptors. */
static u64 read_run_delay(void)
{
	HOST_KEEP_VECTORS;
	unsigned long long delay = 0;
	char text[80];
	ssize_t n;
	long fd = syscall(SYS_openat, AT_FDCWD, "/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	n = syscall(SYS_read, fd, text, sizeof(text) - 1);
	syscall(SYS_close, fd);
	text[n > 0 ? n : 0] = 0;
	return sscanf(text, "%*u %llu", &delay) == 1 ? delay : 0;
}

#define RUN_DELAY_NS 4000000 /* a tick: to look more often would cost more than it tells */

u64 host_run_delay_ns(void)
{
	static __thread __attribute__((tls_model("initial-exec"))) u64 delay, looked;
	u64 now = host_now_ns();

	if (!looked || now - looked >= RUN_DELAY_NS) {
		delay = read_run_delay();
		looked = now;
	}
	return delay;
}

/* Linux itself trusts the TSC as a clock only after it has watched it, across all CPUs: it is listed then. */
static bool tsc_trusted(void)
{
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/available_clocksource", "re");
	u32 eax = 0x80000007, ebx, ecx = 0, edx;
	char line[256] = "";

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (f) {
		if (!fgets(line, sizeof(line), f))
			line[0] = 0;
		fclose(f);
	}
	return (edx & 1 << 8) || strstr(line, "tsc"); /* invariant TSC, SDM 3B 17.17.1 */
}

/* As the kernel says, where it does; the file is not there on one that was built without. */
bool host_smt_possible(void)
{
	FILE *f = fopen("/sys/devices/system/cpu/smt/control", "re");
	char line[32] = "";

	if (f) {
		if (!fgets(line, sizeof(line), f))
			line[0] = 0;
		fclose(f);
	}
	return !strstr(line, "forceoff") && !strstr(line, "notsupported");
}

/* A TSC and the clock at the same moment, as near as the best of a few tries comes. */
static void sample(u64 *tsc, u64 *ns)
{
	u64 best = ~0ULL;
	int i;

	for (i = 0; i < 16; i++) {
		u64 before = host_rdtsc(), now = read_clock(CLOCK_MONOTONIC_RAW), after = host_rdtsc();

		if (after - before < best) {
			best = after - before;
			*tsc = before + best / 2;
			*ns = now;
		}
	}
}

static u32 khz;

static void measure(void)
{
	u64 tsc0, ns0, tsc1, ns1;

	if (!tsc_trusted())
		return;
	sample(&tsc0, &ns0);
	do {
		struct timespec nap = { .tv_nsec = 20000000 };

		nanosleep(&nap, NULL);
		sample(&tsc1, &ns1);
	} while (ns1 - ns0 < 20000000);
	khz = (u32)(((tsc1 - tsc0) * 1000000 + (ns1 - ns0) / 2) / (ns1 - ns0));
}

u32 host_tsc_khz(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	static bool measured; /* (a) */

	if (unlikely(!__atomic_load_n(&measured, __ATOMIC_ACQUIRE))) {
		HOST_KEEP_VECTORS;

		pthread_once(&once, measure);
		__atomic_store_n(&measured, true, __ATOMIC_RELEASE);
	}
	return khz;
}
