# What a user of Debian does first, run by root in the guest: sh /dev/vdb CPUS. Prints TAP, then powers off.
# The disk that this comes from is padded with newlines.
cpus=$1
count=0
cd /root || exit 1
export LC_ALL=C.UTF-8

# is NAME GOT WANTED
is() {
	count=$((count + 1))
	if [ "$2" = "$3" ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf 'got: %s\nwanted: %s\n' "$2" "$3"
		return 1
	fi
}

is "systemd says that the system runs" "$(systemctl is-system-running --wait)" running
is "no unit has failed" "$(systemctl list-units --failed --plain --no-legend)" ""
is "the CPUs are there" "$(nproc)" "$cpus"
is "the root file system is on virtio-blk" "$(findmnt -n -o SOURCE,FSTYPE / | tr -s ' ')" "/dev/vda ext4"
is "apt-get --version" "$(apt-get --version | sed -n '1s/^apt 2\.[0-9.]* (amd64)$/apt 2/p')" "apt 2"
is "dpkg knows its packages" "$(dpkg --audit; dpkg-query -W -f '${Status}' gcc)" "install ok installed"

cat >program.c <<'END'
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long locked, counted;
static sigjmp_buf back;
static void *fault;

static void *work(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		__atomic_fetch_add(&counted, 1, __ATOMIC_RELAXED);
		pthread_mutex_lock(&lock);
		locked++;
		pthread_mutex_unlock(&lock);
	}
	return arg;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	fault = info->si_addr;
	siglongjmp(back, sig);
}

static int compare(const void *a, const void *b)
{
	return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : *(const uint32_t *)a > *(const uint32_t *)b;
}

int main(void)
{
	static char sieve[100000];
	static uint32_t sorted[20000];
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	pthread_t threads[4];
	uint64_t product = 1;
	volatile double third = 3.0, two = 2.0;
	volatile long double ten = 10.0L;
	int primes = 0, order = 1, status;
	uint32_t random = 1;
	char *page;

	for (int i = 2; i < 100000; i++) {
		primes += !sieve[i];
		for (int j = 2 * i; !sieve[i] && j < 100000; j += i)
			sieve[j] = 1;
	}
	for (uint64_t i = 1; i <= 100; i++)
		product = product * i % 1000000007u;
	for (int i = 0; i < 20000; i++)
		sorted[i] = random = random * 1664525 + 1013904223;
	qsort(sorted, 20000, sizeof(*sorted), compare);
	for (int i = 1; i < 20000; i++)
		order &= sorted[i - 1] <= sorted[i];
	printf("%d bit, %d primes, 100! is %llu, sorted %d\n", (int)sizeof(void *) * 8, primes, (unsigned long long)product, order);
	printf("%.17g %.17g %.21Lg\n", 1.0 / third, sqrt(two), 1.0L / ten);

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, work, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	printf("threads %ld %ld\n", counted, locked);

	page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaction(SIGSEGV, &action, NULL);
	if (!sigsetjmp(back, 1))
		page[123] = 1;
	printf("fault %d\n", fault == page + 123);

	fflush(stdout);
	if (!fork())
		_exit(memcmp(sieve, sieve + 1, 4) != 0 ? 42 : 1);
	wait(&status);
	printf("child %d\n", WEXITSTATUS(status));
	return 0;
}
END
said=' bit, 9592 primes, 100! is 437918130, sorted 1
0.33333333333333331 1.4142135623730951 0.100000000000000000001
threads 80000 80000
fault 1
child 42'
is "gcc builds a C program" "$(gcc -O2 -Wall -o program program.c -pthread -lm 2>&1)" ""
is "it runs" "$(./program 2>&1)" "64$said"
is "gcc -m32 builds it" "$(gcc -m32 -O2 -Wall -o program32 program.c -pthread -lm 2>&1)" ""
is "the 32-bit program runs" "$(./program32 2>&1)" "32$said"
is "gcc -m32 -static builds it, too" "$(gcc -m32 -static -O0 -o static32 program.c -pthread -lm 2>&1 && ./static32)" "32$said"

is "python3" "$(python3 -c 'print(pow(3, 1000, 10**9 + 7), sum(i * i for i in range(100000)), "%.17g" % (2 ** 0.5))' 2>&1)" \
	"56888193 333328333350000 1.4142135623730951"
is "perl" "$(perl -e 'my %h; $h{$_ % 97} += $_ for 1 .. 100000; my $s = join ",", map { $h{$_} } sort { $a <=> $b } keys %h;
	$s =~ s/(\d+),(\d+)/$2-$1/g; print length($s), " ", unpack("%32C*", $s), "\n";' 2>&1)" "872 44761"
is "a pipe of programs" "$(seq 20000 | sort -R | sort -n | sha256sum | cut -c 1-16)" "$(seq 20000 | sha256sum | cut -c 1-16)"

stress-ng --cpu 1 --vm 1 --vm-bytes 64M --fork 1 --futex 1 --sigsegv 1 --context 1 --pipe 1 --mmap 1 --mmap-bytes 16M \
	--timeout 5 --verify >stress.log 2>&1
is "stress-ng, a few stressors" $? 0 || cat stress.log

bad=$(dmesg | grep -E 'BUG:|Oops|WARNING:|stall|lockup|segfault|general protection|invalid opcode|trap |hung task|I/O error')
is "the kernel has nothing to complain about" "$bad" ""
echo "1..$count"
systemctl poweroff
