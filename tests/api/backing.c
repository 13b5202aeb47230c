/* What the client does with the memory behind its slots, while guest code uses it: the guest sees what the client sees. */
#include "tests/api/api.h"

#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define PAGE  4096UL
#define HUGE  (2UL << 20)
#define AT    (16UL << 20) /* where the slot is in the guest */
#define SIZE  (8UL << 20)
#define PAGES (SIZE / PAGE)

/*
 * Adds 1 to the first eight bytes of each page, and stops; begins again when it is run again.
 *
 *	again:	mov  rdi, rbx
 *		mov  rcx, rbp
 *	next:	add  qword [rdi], 1
 *		add  rdi, 4096
 *		dec  rcx
 *		jnz  next
 *		out  0x10, al
 *		jmp  again
 */
static const uint8_t pass[] = { 0x48, 0x89, 0xdf, 0x48, 0x89, 0xe9, 0x48, 0x83, 0x07, 0x01, 0x48, 0x81, 0xc7, 0x00, 0x10,
				0x00, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xf0, 0xe6, 0x10, 0xeb, 0xe6 };
/* The same without end: no OUT. */
#define ENDLESS_AT 22

struct backed {
	struct guest g;
	uint8_t *area, *at; /* all that is mapped; the slot's memory, at a huge page's boundary in it */
};

static int map_slot(struct backed *b)
{
	return set_region(b->g.vm, 1, 0, AT, SIZE, b->at);
}

static bool begin(struct backed *b, int flags)
{
	struct kvm_regs regs;

	memset(b, 0, sizeof(*b));
	if (!guest_init(&b->g, 16))
		return false;
	b->area = mmap(NULL, SIZE + HUGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!tap_ok(b->area != MAP_FAILED, "memory"))
		return false;
	b->at = (uint8_t *)(((uintptr_t)b->area + HUGE - 1) & ~(HUGE - 1));
	accepts(map_slot(b), "a slot");
	guest_long_code(&b->g, 0x1000, pass, sizeof(pass));
	api.ioctl(b->g.vcpu, KVM_GET_REGS, &regs);
	regs.rbx = AT;
	regs.rbp = PAGES;
	api.ioctl(b->g.vcpu, KVM_SET_REGS, &regs);
	return true;
}

static void end(struct backed *b)
{
	guest_done(&b->g);
	if (b->area && b->area != MAP_FAILED)
		munmap(b->area, SIZE + HUGE);
}

/* One pass. 0: it came to its end. */
static int go(struct backed *b)
{
	int r = guest_run(&b->g);

	return r == KVM_EXIT_IO ? 0 : r ? r : -1;
}

static uint64_t value(const struct backed *b, unsigned page)
{
	return *(volatile uint64_t *)(b->at + page * PAGE);
}

/* How many of the pages [from, to) do not hold @wanted. */
static unsigned others(const struct backed *b, unsigned from, unsigned to, uint64_t wanted)
{
	unsigned n = 0;

	for (unsigned i = from; i < to; i++)
		n += value(b, i) != wanted;
	return n;
}

/* After @passes in all each page holds @passes. */
static void holds(const struct backed *b, uint64_t passes, const char *what)
{
	equals(others(b, 0, PAGES, passes), 0, "%s: each page is what the guest made of it", what);
}

static void given_back(struct backed *b, const char *what)
{
	equals(go(b), 0, "%s: a first pass", what);
	holds(b, 1, what);
	accepts(madvise(b->at + 5 * PAGE, 700 * PAGE, MADV_DONTNEED), "%s: pages are given back", what);
	equals(others(b, 0, 5, 1) + others(b, 705, PAGES, 1), 0, "%s: the others are not touched", what);
	equals(go(b), 0, "%s: a second pass", what);
	equals(others(b, 5, 705, 1), 0, "%s: the guest found zeros there", what);
	equals(others(b, 0, 5, 2) + others(b, 705, PAGES, 2), 0, "%s: and elsewhere what it had written", what);
}

static void dontneed(void)
{
	struct backed b;

	if (begin(&b, MAP_PRIVATE))
		given_back(&b, "small pages");
	end(&b);
}

static void transparent(void)
{
	struct backed b;

	if (begin(&b, MAP_PRIVATE)) {
		if (madvise(b.at, SIZE, MADV_HUGEPAGE))
			tap_skip("the host has no transparent huge pages", "transparent huge pages");
		else
			given_back(&b, "transparent huge pages");
	}
	end(&b);
}

/* Collapsed while the guest has them mapped one by one, and broken up again. */
static void collapsed(void)
{
	struct backed b;

	if (begin(&b, MAP_PRIVATE) && equals(go(&b), 0, "collapsing: a first pass")) {
		madvise(b.at, SIZE, MADV_HUGEPAGE);
		if (madvise(b.at, SIZE, 25 /* MADV_COLLAPSE */)) {
			tap_skip("MADV_COLLAPSE is not there, or finds no memory", "collapsing");
		} else {
			equals(go(&b), 0, "collapsing: a second pass");
			holds(&b, 2, "collapsing");
			accepts(mprotect(b.at + HUGE + PAGE, PAGE, PROT_READ), "a page of a huge one is made read-only");
			equals(go(&b), -EFAULT, "the guest may not write it");
			accepts(mprotect(b.at + HUGE + PAGE, PAGE, PROT_READ | PROT_WRITE), "and is made writable");
			equals(go(&b), 0, "the guest goes on where it was");
			holds(&b, 3, "collapsing");
		}
	}
	end(&b);
}

static void explicit_huge(void)
{
	struct backed b;

	if (begin(&b, MAP_PRIVATE)) {
		/* All at once, for a page that is missing when it is touched is SIGBUS */
		if (mmap(b.at, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_FIXED | MAP_POPULATE, -1, 0) ==
		    MAP_FAILED) {
			tap_skip("the host has no huge pages to give", "explicit huge pages");
			mmap(b.at, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		} else {
			equals(go(&b), 0, "explicit huge pages: a first pass");
			holds(&b, 1, "explicit huge pages");
			accepts(madvise(b.at + HUGE, HUGE, MADV_DONTNEED), "one is given back");
			equals(go(&b), 0, "explicit huge pages: a second pass");
			equals(others(&b, 512, 1024, 1), 0, "the guest found zeros there");
			equals(others(&b, 0, 512, 2) + others(&b, 1024, PAGES, 2), 0, "and elsewhere what it had written");
		}
	}
	end(&b);
}

/* What is written after fork() is the writer's own, also when a guest writes. */
static void forked(void)
{
	int pipes[2][2];
	struct backed b;
	uint8_t byte = 0;
	pid_t child;
	int status = -1;

	if (!begin(&b, MAP_PRIVATE) || !equals(go(&b), 0, "fork: a first pass") || pipe(pipes[0]) || pipe(pipes[1])) {
		end(&b);
		return;
	}
	child = fork();
	if (!child) {
		bool good = read(pipes[0][0], &byte, 1) == 1 && !others(&b, 0, PAGES, 1);

		for (unsigned i = 0; i < PAGES; i += 2)
			*(uint64_t *)(b.at + i * PAGE) = 100;
		good &= write(pipes[1][1], &byte, 1) == 1 && read(pipes[0][0], &byte, 1) == 1;
		for (unsigned i = 0; i < PAGES; i++)
			good &= value(&b, i) == (i % 2 ? 1 : 100);
		_exit(!good);
	}
	equals(go(&b), 0, "fork: the guest goes on in the parent");
	holds(&b, 2, "fork");
	if (child > 0 && write(pipes[0][1], &byte, 1) == 1 && read(pipes[1][0], &byte, 1) == 1) {
		equals(go(&b), 0, "fork: and once the child has written");
		holds(&b, 3, "fork");
		if (write(pipes[0][1], &byte, 1) == 1)
			waitpid(child, &status, 0);
	}
	equals(status, 0, "fork: the child sees what there was, and what it wrote");
	for (unsigned i = 0; i < 4; i++)
		close(pipes[i / 2][i % 2]);
	end(&b);
}

static void replaced(void)
{
	struct backed b;
	uint64_t one = 1000;
	FILE *file = tmpfile();

	if (!begin(&b, MAP_PRIVATE) || !equals(go(&b), 0, "other memory: a first pass") || !file || ftruncate(fileno(file), SIZE)) {
		end(&b);
		return;
	}
	for (unsigned i = 0; i < PAGES; i++)
		if (pwrite(fileno(file), &one, 8, (off_t)(i * PAGE)) != 8)
			tap_ok(false, "a file is written");
	tap_ok(mmap(b.at + HUGE, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fileno(file), 0) != MAP_FAILED,
	       "a file is mapped over a part of the slot");
	equals(go(&b), 0, "other memory: a second pass");
	equals(others(&b, 512, 1024, 1001), 0, "the guest has the file there");
	equals(others(&b, 0, 512, 2) + others(&b, 1024, PAGES, 2), 0, "and elsewhere what it had");
	tap_ok(pread(fileno(file), &one, 8, 3 * PAGE) == 8 && one == 1001, "what it writes is in the file");
	/* A hole is zeros; behind the file's end there is nothing. */
	accepts(fallocate(fileno(file), 3 /* FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE */, 0, HUGE / 2), "a hole is punched into it");
	equals(go(&b), 0, "other memory: a third pass");
	equals(others(&b, 512, 768, 1) + others(&b, 768, 1024, 1002), 0, "the guest finds zeros in the hole");
	accepts(ftruncate(fileno(file), HUGE / 2), "the file is cut");
	equals(go(&b), -EFAULT, "the guest has nothing behind its end");
	accepts(ftruncate(fileno(file), HUGE), "it is as long as before");
	equals(go(&b), 0, "the guest goes on where it was");
	equals(others(&b, 512, 768, 2) + others(&b, 768, 1024, 1), 0, "with zeros where the file was cut");
	fclose(file);
	end(&b);
}

static void unmapped(void)
{
	struct backed b;

	if (begin(&b, MAP_PRIVATE) && equals(go(&b), 0, "unmapped: a first pass")) {
		accepts(munmap(b.at + 100 * PAGE, PAGE), "a page is unmapped");
		equals(go(&b), -EFAULT, "the guest cannot go on there");
		equals(go(&b), -EFAULT, "and still not");
		tap_ok(mmap(b.at + 100 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
		       "a page is mapped there");
		equals(go(&b), 0, "the guest goes on where it was");
		equals(others(&b, 0, 100, 2) + others(&b, 100, 101, 1) + others(&b, 101, PAGES, 2), 0, "and has written each page once");
		tap_ok(mremap(b.at + 200 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, b.at + 300 * PAGE) != MAP_FAILED, "a page moves");
		equals(go(&b), -EFAULT, "the guest does not have it where it was");
		tap_ok(mmap(b.at + 200 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
		       "a new one is mapped there");
		*(uint64_t *)(b.at + 300 * PAGE) = 50;
		equals(go(&b), 0, "the guest goes on");
		equals(value(&b, 300), 51, "and has the page that moved where it is");
	}
	end(&b);
}

/* To another node and back, where the host has nodes; else the kernel still takes each page away and gives it back. */
static void moved(void)
{
	static void *addr[PAGES];
	static int node[PAGES], status[PAGES];
	struct backed b;
	unsigned there = 0;

	if (begin(&b, MAP_PRIVATE) && equals(go(&b), 0, "moved: a first pass")) {
		for (int to = 1; to >= 0; to--) {
			for (unsigned i = 0; i < PAGES; i++) {
				addr[i] = b.at + i * PAGE;
				node[i] = to;
			}
			if (syscall(SYS_move_pages, 0, (unsigned long)PAGES, addr, node, status, 2 /* MPOL_MF_MOVE */))
				break;
			for (unsigned i = 0; i < PAGES; i++)
				there += status[i] == to;
			equals(go(&b), 0, "moved: a pass at node %d", to);
		}
		if (there < PAGES)
			tap_skip("the host has no second node", "moved");
		else
			holds(&b, 3, "moved");
	}
	end(&b);
}

/* The client writes the guest's own tables, as one does that loads a saved state: it sets the registers, too. */
static void tables(void)
{
	struct kvm_sregs sregs;
	struct backed b;

	if (begin(&b, MAP_PRIVATE) && equals(go(&b), 0, "tables: a first pass")) {
		/* A large page leads to where the next one does. */
		((uint64_t *)(b.g.mem + 0xa000))[AT / HUGE] = (AT + HUGE) | 0x83;
		api.ioctl(b.g.vcpu, KVM_GET_SREGS, &sregs);
		accepts(api.ioctl(b.g.vcpu, KVM_SET_SREGS, &sregs), "tables: an entry is written, and the registers");
		equals(go(&b), 0, "tables: a second pass");
		equals(others(&b, 0, 512, 1), 0, "what was mapped before is not written");
		equals(others(&b, 512, 1024, 3), 0, "what is mapped twice is written twice");
		equals(others(&b, 1024, PAGES, 2), 0, "and all else once");
	}
	end(&b);
}

static void *run_endless(void *arg)
{
	struct backed *b = arg;
	long r;

	while ((r = api.ioctl(b->g.vcpu, KVM_RUN, 0UL)) < 0 && errno == EINTR && !b->g.run->immediate_exit)
		;
	return (void *)(r < 0 ? (long)errno : 0L);
}

static void nothing(int signal)
{
	(void)signal;
}

/* Everything at once, while the guest writes without end: afterwards, what it writes is where the client reads. */
static void under_way(void)
{
	static uint64_t before[PAGES];
	const struct timespec wait = { 0, 20000000 };
	struct sigaction action = { .sa_handler = nothing };
	struct backed b;
	pthread_t thread;
	void *error = NULL;
	unsigned stuck = 0;

	if (!begin(&b, MAP_PRIVATE)) {
		end(&b);
		return;
	}
	sigaction(SIGUSR1, &action, NULL);
	memcpy(b.g.mem + 0x1000 + ENDLESS_AT, "\x90\x90", 2);
	if (pthread_create(&thread, NULL, run_endless, &b)) {
		tap_ok(false, "a thread");
		end(&b);
		return;
	}
	for (unsigned i = 0; i < 60; i++) {
		uint8_t *from = b.at + (i * 37 % 1024) * PAGE;

		switch (i % 6) {
		case 0: madvise(from, 300 * PAGE, MADV_DONTNEED); break;
		case 1: madvise(from, 300 * PAGE, i & 8 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); break;
		case 2: madvise(from, 300 * PAGE, 21 /* MADV_PAGEOUT */); break;
		case 3:
			if (mmap(from, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
				tap_ok(false, "new memory");
			break;
		case 4: {
			pid_t child = fork();

			if (!child)
				_exit(0);
			waitpid(child, NULL, 0);
			break;
		}
		case 5: map_slot(&b); break;
		}
	}
	for (unsigned i = 0; i < PAGES; i++)
		before[i] = value(&b, i);
	nanosleep(&wait, NULL);
	/* A pass takes an emulator its time. */
	for (unsigned tries = 0; tries < 500; tries++) {
		stuck = 0;
		for (unsigned i = 0; i < PAGES; i++)
			stuck += value(&b, i) == before[i];
		if (!stuck)
			break;
		nanosleep(&wait, NULL);
	}
	equals(stuck, 0, "each page goes on changing");
	b.g.run->immediate_exit = 1;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, &error);
	equals((long)error, EINTR, "and the guest has not noticed anything");
	end(&b);
}

const struct api_case api_cases[] = {
	{ "dontneed", dontneed },
	{ "transparent", transparent },
	{ "collapsed", collapsed },
	{ "huge", explicit_huge },
	{ "forked", forked },
	{ "replaced", replaced },
	{ "unmapped", unmapped },
	{ "moved", moved },
	{ "tables", tables },
	{ "under_way", under_way },
	{ NULL, NULL },
};
