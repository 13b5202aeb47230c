/* KVM_RUN: exits and their completion, and how it ends from outside. Guest code is real-mode, written by hand. */
#include <sys/syscall.h>
#include <time.h>

#include "tests/api/api.h"

static void halt(void)
{
	static const uint8_t code[] = { 0xf4 };
	struct kvm_regs regs;
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	equals(guest_run(&g), KVM_EXIT_HLT, "HLT exits");
	api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
	equals(regs.rip, 0x1001, "RIP is behind it");
	guest_done(&g);
}

static void ports(void)
{
	static const uint8_t code[] = {
		0xb0, 0x42, 0xe6, 0x10,		/* mov al, 0x42; out 0x10, al */
		0xba, 0x34, 0x12, 0xed,		/* mov dx, 0x1234; in ax, dx */
		0x66, 0xe5, 0x20,		/* in eax, 0x20 */
		0xf4,
	};
	struct kvm_regs regs;
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	equals(guest_run(&g), KVM_EXIT_IO, "OUT exits");
	tap_ok(g.run->io.direction == KVM_EXIT_IO_OUT && g.run->io.size == 1 && g.run->io.port == 0x10 && g.run->io.count == 1,
	       "one byte to port 10");
	equals(*((uint8_t *)g.run + g.run->io.data_offset), 0x42, "its value");
	equals(guest_run(&g), KVM_EXIT_IO, "IN exits");
	tap_ok(g.run->io.direction == KVM_EXIT_IO_IN && g.run->io.size == 2 && g.run->io.port == 0x1234, "a word from port 1234");
	memset((uint8_t *)g.run + g.run->io.data_offset, 0x5a, 2);
	equals(guest_run(&g), KVM_EXIT_IO, "IN of four bytes exits");
	api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
	equals(regs.rax & 0xffff, 0x5a5a, "the word had arrived");
	memcpy((uint8_t *)g.run + g.run->io.data_offset, "\x44\x33\x22\x11", 4);
	g.run->immediate_exit = 1;
	refuses(EINTR, api.ioctl(g.vcpu, KVM_RUN, 0UL), "immediate_exit ends KVM_RUN once that is completed");
	equals(g.run->exit_reason, KVM_EXIT_IO, "and leaves the exit as it was");
	g.run->immediate_exit = 0;
	api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
	equals(regs.rax, 0x11223344, "the double word has arrived");
	equals(guest_run(&g), KVM_EXIT_HLT, "the guest goes on");
	guest_done(&g);
}

/* DR7.GD of the client's: the guest's accesses of debug registers are the client's to see. */
static void general_detect(void)
{
	static const uint8_t code[] = {
		0x0f, 0x21, 0xc3,	/* mov ebx, dr0 */
		0x0f, 0x23, 0xc8,	/* mov dr1, eax */
		0xf4,
	};
	struct kvm_guest_debug d = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, .arch.debugreg[7] = 0x400 | 1 << 13 };
	struct kvm_debugregs dr;
	struct kvm_regs regs;
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	accepts(api.ioctl(g.vcpu, KVM_SET_GUEST_DEBUG, &d), "breakpoints with general detect");
	equals(guest_run(&g), KVM_EXIT_DEBUG, "a read of DR0 is the client's");
	tap_ok(g.run->debug.arch.exception == 1 && g.run->debug.arch.pc == 0x1000 && g.run->debug.arch.dr6 == (0xffff0ff0 | 1 << 13),
	       "#DB, DR6.BD, at the instruction (%u, %llx, %llx)", g.run->debug.arch.exception, (unsigned long long)g.run->debug.arch.pc,
	       (unsigned long long)g.run->debug.arch.dr6);
	equals(guest_run(&g), KVM_EXIT_DEBUG, "and again, until it lets it pass");
	api.ioctl(g.vcpu, KVM_GET_DEBUGREGS, &dr);
	tap_ok(dr.dr7 == 0x400 && !(dr.dr6 & 1 << 13), "the guest's own registers know nothing of it");
	d.arch.debugreg[7] = 0x400;
	accepts(api.ioctl(g.vcpu, KVM_SET_GUEST_DEBUG, &d), "without");
	api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
	regs.rip = 0x1003;
	api.ioctl(g.vcpu, KVM_SET_REGS, &regs);
	equals(guest_run(&g), KVM_EXIT_HLT, "the guest goes on");
	d.arch.debugreg[7] |= 1 << 13;
	api.ioctl(g.vcpu, KVM_SET_GUEST_DEBUG, &d);
	regs.rip = 0x1003;
	api.ioctl(g.vcpu, KVM_SET_REGS, &regs);
	equals(guest_run(&g), KVM_EXIT_DEBUG, "so is a write of DR1");
	equals(g.run->debug.arch.pc, 0x1003, "at that instruction");
	d.control = 0;
	accepts(api.ioctl(g.vcpu, KVM_SET_GUEST_DEBUG, &d), "no debugging");
	equals(guest_run(&g), KVM_EXIT_HLT, "the guest has its debug registers");
	guest_done(&g);
}

static void string_ports(void)
{
	static const uint8_t code[] = {
		0xbe, 0x00, 0x20, 0xb9, 0x05, 0x00, 0xba, 0x10, 0x00,	/* mov si, 0x2000; mov cx, 5; mov dx, 0x10 */
		0xf3, 0x6e,						/* rep outsb */
		0xbf, 0x00, 0x30, 0xb9, 0x03, 0x00,			/* mov di, 0x3000; mov cx, 3 */
		0xf3, 0x6c, 0xf4,					/* rep insb; hlt */
	};
	char got[6] = "";
	struct guest g;
	unsigned n = 0, next = 0, i;
	int r;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	memcpy(g.mem + 0x2000, "hello", 5);
	while ((r = guest_run(&g)) == KVM_EXIT_IO) {
		uint8_t *data = (uint8_t *)g.run + g.run->io.data_offset;

		for (i = 0; i < g.run->io.count; i++) {
			if (g.run->io.direction == KVM_EXIT_IO_IN)
				data[i] = (uint8_t)(0xa0 + next++);
			else if (n < 5)
				got[n++] = (char)data[i];
		}
	}
	equals(r, KVM_EXIT_HLT, "REP OUTS and INS come to an end");
	tap_ok(!strcmp(got, "hello"), "every byte came out, in order");
	tap_ok(!memcmp(g.mem + 0x3000, "\xa0\xa1\xa2\0", 4), "every byte went in, and no more");
	guest_done(&g);
}

static void mmio(void)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0xf0, 0x8e, 0xd8,		/* mov ax, 0xf000; mov ds, ax */
		0xc7, 0x06, 0x00, 0x01, 0xef, 0xbe,	/* mov word [0x100], 0xbeef */
		0x66, 0xa1, 0x00, 0x02,			/* mov eax, [0x200] */
		0xf4,
	};
	struct kvm_regs regs;
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	equals(guest_run(&g), KVM_EXIT_MMIO, "a write where no memory is exits");
	tap_ok(g.run->mmio.is_write && g.run->mmio.phys_addr == 0xf0100 && g.run->mmio.len == 2, "two bytes to F0100");
	tap_ok(!memcmp(g.run->mmio.data, "\xef\xbe", 2), "their value");
	equals(guest_run(&g), KVM_EXIT_MMIO, "a read exits");
	tap_ok(!g.run->mmio.is_write && g.run->mmio.phys_addr == 0xf0200 && g.run->mmio.len == 4, "four bytes from F0200");
	memcpy(g.run->mmio.data, "\x78\x56\x34\x12", 4);
	equals(guest_run(&g), KVM_EXIT_HLT, "the guest goes on");
	api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
	equals(regs.rax, 0x12345678, "the value has arrived");
	guest_done(&g);
}

static void read_only(void)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0x20, 0x8e, 0xd8,	/* mov ax, 0x2000; mov ds, ax */
		0xa0, 0x00, 0x00,		/* mov al, [0] */
		0xa2, 0x01, 0x00,		/* mov [1], al */
		0xf4,
	};
	uint8_t *rom = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	rom[0] = 0x77;
	accepts(set_region(g.vm, 1, KVM_MEM_READONLY, 0x20000, 4096, rom), "a read-only slot");
	equals(guest_run(&g), KVM_EXIT_MMIO, "a write to it exits");
	tap_ok(g.run->mmio.is_write && g.run->mmio.phys_addr == 0x20001 && g.run->mmio.data[0] == 0x77, "after a read that did not");
	equals(guest_run(&g), KVM_EXIT_HLT, "the guest goes on");
	equals(rom[1], 0, "nothing was written");
	guest_done(&g);
	munmap(rom, 4096);
}

/* A loop that never ends by itself. */
static const uint8_t forever[] = { 0xeb, 0xfe };

static void immediate_exit(void)
{
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, forever, sizeof(forever));
	g.run->immediate_exit = 1;
	refuses(EINTR, api.ioctl(g.vcpu, KVM_RUN, 0UL), "KVM_RUN with immediate_exit does not run");
	guest_done(&g);
}

static volatile sig_atomic_t handled;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

struct poker {
	pthread_t target;
	int signal;
	bool stop;
};

/* Signals until it is told that one has arrived: the first may come before KVM_RUN. */
static void *poke(void *arg)
{
	struct poker *p = arg;
	struct timespec pause = { .tv_nsec = 20000000 };

	while (!__atomic_load_n(&p->stop, __ATOMIC_SEQ_CST)) {
		nanosleep(&pause, NULL);
		pthread_kill(p->target, p->signal);
	}
	return NULL;
}

/* The guest runs @what, without an end, until a signal. Closes it. */
/* The guest has its code. */
static void interrupted_in(struct guest *g, const char *what)
{
	struct sigaction act = { .sa_handler = on_signal }, old;
	struct poker p = { pthread_self(), SIGUSR1, false };
	pthread_t thread;
	int r, error;

	sigaction(SIGUSR1, &act, &old);
	handled = 0;
	pthread_create(&thread, NULL, poke, &p);
	r = api.ioctl(g->vcpu, KVM_RUN, 0UL);
	error = errno;
	__atomic_store_n(&p.stop, true, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	tap_ok(r == -1 && error == EINTR, "a signal ends KVM_RUN in %s", what);
	equals(g->run->exit_reason, KVM_EXIT_INTR, "the exit reason says so");
	tap_ok(handled > 0, "its handler ran");
	sigaction(SIGUSR1, &old, NULL);
	guest_done(g);
}

static void interrupted(const char *what, const uint8_t *code, size_t len)
{
	struct guest g;

	if (!guest_init_irqchip(&g, 16))
		return;
	guest_code(&g, 0x1000, code, len);
	interrupted_in(&g, what);
}

static const uint8_t halted[] = { 0xfb, 0xf4, 0xeb, 0xfd }; /* sti; hlt; again */

static void signals(void)
{

	interrupted("a loop", forever, sizeof(forever));
	interrupted("a halt", halted, sizeof(halted));
}

/* Blocked for the thread, open in KVM_RUN: it ends the call, its handler does not run, and it is still there afterwards. */
static void masked_signal(void)
{
	struct sigaction act = { .sa_handler = on_signal }, old;
	struct {
		struct kvm_signal_mask head;
		uint64_t mask;
	} __attribute__((packed)) m = { .head.len = 8, .mask = 0 };
	struct timespec none = { 0 };
	sigset_t set, former;
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, forever, sizeof(forever));
	sigaction(SIGUSR2, &act, &old);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, &former);
	accepts(api.ioctl(g.vcpu, KVM_SET_SIGNAL_MASK, &m), "all signals are open in KVM_RUN");
	handled = 0;
	pthread_kill(pthread_self(), SIGUSR2);
	refuses(EINTR, api.ioctl(g.vcpu, KVM_RUN, 0UL), "a pending signal ends KVM_RUN");
	equals(handled, 0, "its handler did not run");
	equals(sigtimedwait(&set, NULL, &none), SIGUSR2, "the signal is still pending");
	signal(SIGUSR2, SIG_DFL);
	pthread_kill(pthread_self(), SIGUSR2);
	refuses(EINTR, api.ioctl(g.vcpu, KVM_RUN, 0UL), "so does one whose default is to end the process");
	equals(sigtimedwait(&set, NULL, &none), SIGUSR2, "it is still pending too");
	sigaction(SIGUSR2, &old, NULL);
	pthread_sigmask(SIG_SETMASK, &former, NULL);
	guest_done(&g);
}

static void *stop_by_flag(void *arg)
{
	struct guest *g = arg;
	struct timespec pause = { .tv_nsec = 50000000 };

	nanosleep(&pause, NULL);
	__atomic_store_n(&g->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* With Linux only a signal makes KVM_RUN look at the flag; here a guest that runs sees it by itself. */
static void flag_alone(void)
{
	pthread_t thread;
	struct guest g;

	if (api.plain) {
		tap_skip("Linux needs a signal", "immediate_exit ends a loop");
		return;
	}
	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, forever, sizeof(forever));
	pthread_create(&thread, NULL, stop_by_flag, &g);
	refuses(EINTR, api.ioctl(g.vcpu, KVM_RUN, 0UL), "immediate_exit ends a loop");
	pthread_join(thread, NULL);
	guest_done(&g);
}

/* ---- dirty pages ------------------------------------------------------------------------------------------------- */

/* mov byte [0x3000], 1; mov byte [0x5000], 1; hlt */
static const uint8_t writes[] = { 0xc6, 0x06, 0x00, 0x30, 0x01, 0xc6, 0x06, 0x00, 0x50, 0x01, 0xf4 };

static void dirty_log(void)
{
	struct kvm_dirty_log log;
	uint64_t bitmap = 0;
	struct guest g;
	int i;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, writes, sizeof(writes));
	equals(guest_run(&g), KVM_EXIT_HLT, "a guest that has written");
	accepts(set_region(g.vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, g.mem_size, g.mem), "is logged from now on");
	log = (struct kvm_dirty_log){ .dirty_bitmap = &bitmap };
	api.ioctl(g.vm, KVM_GET_DIRTY_LOG, &log);
	for (i = 0; i < 2; i++) {
		guest_code(&g, 0x1000, writes, sizeof(writes));
		equals(guest_run(&g), KVM_EXIT_HLT, "round %d: it writes", i);
		api.ioctl(g.vm, KVM_GET_DIRTY_LOG, &log);
		equals(bitmap & (1 << 3 | 1 << 5), 1 << 3 | 1 << 5, "pages 3 and 5 are dirty");
		equals(bitmap & (1 << 4 | 1 << 6), 0, "their neighbours are not");
		api.ioctl(g.vm, KVM_GET_DIRTY_LOG, &log);
		equals(bitmap, 0, "once read, nothing is dirty");
	}
	guest_done(&g);
}

static bool has_logged(const uint64_t *bitmap, unsigned first, unsigned end, unsigned step)
{
	for (unsigned i = 256; i < 2048; i++)
		if (((bitmap[i / 64] >> i % 64) & 1) != (i >= first && i < end && !((i - first) % step)))
			return false;
	return true;
}

/* More pages at once than a processor that keeps the log itself notes before it must be asked: it has 512 entries. */
static void dirty_many(void)
{
	/* 1: mov byte [rdi], 1; add rdi, rdx; dec rcx; jnz 1b; out 0x10, al */
	static const char code[] = "\xc6\x07\x01\x48\x01\xd7\x48\xff\xc9\x75\xf5\xe6\x10";
	static uint64_t bitmap[2048 / 64];
	static const struct {
		unsigned first, count, step;
	} rounds[] = { { 256, 1700, 1 }, { 256, 1700, 1 }, { 700, 1, 1 }, { 300, 512, 1 }, { 300, 511, 3 }, { 300, 513, 2 } };
	struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
	struct kvm_regs regs;
	struct guest g;

	if (!guest_init(&g, 2048))
		return;
	accepts(set_region(g.vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, g.mem_size, g.mem), "a logged guest");
	for (unsigned i = 0; i < sizeof(rounds) / sizeof(rounds[0]); i++) {
		guest_long_code(&g, 0x1000, code, sizeof(code));
		api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
		regs.rdi = rounds[i].first * 4096;
		regs.rcx = rounds[i].count;
		regs.rdx = rounds[i].step * 4096;
		api.ioctl(g.vcpu, KVM_SET_REGS, &regs);
		equals(guest_run(&g), KVM_EXIT_IO, "round %u: it writes %u pages", i, rounds[i].count);
		api.ioctl(g.vm, KVM_GET_DIRTY_LOG, &log);
		tap_ok(has_logged(bitmap, rounds[i].first, rounds[i].first + rounds[i].count * rounds[i].step, rounds[i].step),
		       "the log has these, and no others");
	}
	guest_done(&g);
}

static unsigned harvest(struct kvm_dirty_gfn *ring, unsigned entries, unsigned *next, uint64_t *pages)
{
	unsigned n = 0;

	while (__atomic_load_n(&ring[*next % entries].flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY) {
		*pages |= 1ULL << (ring[*next % entries].offset & 63);
		__atomic_store_n(&ring[*next % entries].flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		++*next;
		n++;
	}
	return n;
}

static void dirty_ring(void)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL, .args = { 65536 } };
	struct kvm_dirty_gfn *ring;
	unsigned next = 0, n;
	uint64_t pages = 0;
	struct guest g = { .vcpu = -1 };

	g.vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	accepts(api.ioctl(g.vm, KVM_ENABLE_CAP, &cap), "a dirty ring");
	g.mem_size = 16 * 4096;
	g.mem = mmap(NULL, g.mem_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	accepts(set_region(g.vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, g.mem_size, g.mem), "a logged slot");
	g.vcpu = api.ioctl(g.vm, KVM_CREATE_VCPU, 0UL);
	g.run_size = 3 * 4096;
	g.run = api.mmap(NULL, g.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g.vcpu, 0);
	ring = api.mmap(NULL, 65536, PROT_READ, MAP_PRIVATE, g.vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * 4096L);
	tap_ok(ring == MAP_FAILED && errno == EINVAL, "it cannot be mapped privately");
	ring = api.mmap(NULL, 65536, PROT_READ | PROT_EXEC, MAP_SHARED, g.vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * 4096L);
	tap_ok(ring == MAP_FAILED && errno == EINVAL, "nor as code");
	ring = api.mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, g.vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * 4096L);
	if (!tap_ok(g.run != MAP_FAILED && ring != MAP_FAILED, "kvm_run and the ring are mapped")) {
		guest_done(&g);
		return;
	}
	guest_code(&g, 0x1000, writes, sizeof(writes));
	equals(guest_run(&g), KVM_EXIT_HLT, "the guest writes");
	n = harvest(ring, 4096, &next, &pages);
	equals(pages & 0xff, 1 << 3 | 1 << 5, "pages 3 and 5 are in the ring");
	equals(api.ioctl(g.vm, KVM_RESET_DIRTY_RINGS, 0UL), n, "all are taken back");
	guest_code(&g, 0x1000, writes, sizeof(writes));
	equals(guest_run(&g), KVM_EXIT_HLT, "it writes again");
	pages = 0;
	harvest(ring, 4096, &next, &pages);
	equals(pages & 0xff, 1 << 3 | 1 << 5, "they are in the ring again");
	munmap(ring, 65536);
	guest_done(&g);
}

static void ring_full(void)
{
	/* 16-bit: for each page from 0x10000 up to 0xf0000, 240 of them, write a byte; again from the start */
	static const uint8_t code[] = {
		0xb8, 0x00, 0x10,			/* start: mov ax, 0x1000 */
		0x8e, 0xd8,				/* next: mov ds, ax */
		0xc6, 0x06, 0x00, 0x00, 0x01,		/* mov byte [0], 1 */
		0x05, 0x00, 0x01,			/* add ax, 0x100 */
		0x3d, 0x00, 0xf0,			/* cmp ax, 0xf000 */
		0x75, 0xf1,				/* jne next */
		0xeb, 0xec,				/* jmp start */
	};
	enum { BYTES = 16384, ENTRIES = BYTES / 16, PAGES = 4096 };
	struct kvm_enable_cap cap = { .cap = KVM_CAP_DIRTY_LOG_RING, .args = { BYTES } };
	struct guest g = { .vcpu = -1 };
	struct kvm_dirty_gfn *ring;
	unsigned next = 0, i, n = 0;
	uint64_t pages = 0;
	int r = 0;

	if (api.plain && !api.ioctl(api_system(), KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_DIRTY_LOG_RING)) {
		tap_skip("no dirty ring", "a full ring exits");
		return;
	}
	g.vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	api.ioctl(g.vm, KVM_ENABLE_CAP, &cap);
	g.mem_size = 256 * 4096UL;
	g.mem = mmap(NULL, g.mem_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	set_region(g.vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, g.mem_size, g.mem);
	g.vcpu = api.ioctl(g.vm, KVM_CREATE_VCPU, 0UL);
	g.run_size = 3 * 4096;
	g.run = api.mmap(NULL, g.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g.vcpu, 0);
	ring = api.mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, g.vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * 4096L);
	guest_code(&g, 0x1000, code, sizeof(code));
	/* Marks are taken back without being harvested from the other side often enough to fill the ring: only every
	 * page's first write is one, so the loop resets and leaves the ring nearly full. */
	for (i = 0; i < 64 && r != KVM_EXIT_DIRTY_RING_FULL; i++) {
		struct poker p = { pthread_self(), SIGUSR1, false };
		struct sigaction act = { .sa_handler = on_signal }, old;
		pthread_t thread;

		sigaction(SIGUSR1, &act, &old);
		pthread_create(&thread, NULL, poke, &p);
		r = api.ioctl(g.vcpu, KVM_RUN, 0UL);
		r = r ? 0 : (int)g.run->exit_reason;
		__atomic_store_n(&p.stop, true, __ATOMIC_SEQ_CST);
		pthread_join(thread, NULL);
		sigaction(SIGUSR1, &old, NULL);
		/* Makes every page clean without emptying the ring: the slot is logged anew. */
		set_region(g.vm, 0, 0, 0, g.mem_size, g.mem);
		set_region(g.vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, g.mem_size, g.mem);
	}
	equals(r, KVM_EXIT_DIRTY_RING_FULL, "a full ring exits");
	equals(api.ioctl(g.vcpu, KVM_RUN, 0UL) ? -errno : (int)g.run->exit_reason, KVM_EXIT_DIRTY_RING_FULL, "and again, until it is emptied");
	n = harvest(ring, ENTRIES, &next, &pages);
	tap_ok(n > ENTRIES / 4 && n <= ENTRIES, "%u entries were in it", n);
	equals(api.ioctl(g.vm, KVM_RESET_DIRTY_RINGS, 0UL), n, "all are taken back");
	g.run->immediate_exit = 1;
	equals(api.ioctl(g.vcpu, KVM_RUN, 0UL) ? -errno : (int)g.run->exit_reason, -EINTR, "then the guest can go on");
	munmap(ring, BYTES);
	guest_done(&g);
}

/* ---- memory that changes under a running guest --------------------------------------------------------------------- */

static void vanished(void)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0x20, 0x8e, 0xd8,	/* mov ax, 0x2000; mov ds, ax */
		0xa0, 0x00, 0x00,		/* mov al, [0] */
		0xe6, 0x10,			/* out 0x10, al */
		0xa0, 0x00, 0x00,		/* mov al, [0] */
		0xf4,
	};
	uint8_t *mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	mem[0] = 0x99;
	set_region(g.vm, 1, 0, 0x20000, 4096, mem);
	equals(guest_run(&g), KVM_EXIT_IO, "the guest has read a slot");
	equals(*((uint8_t *)g.run + g.run->io.data_offset), 0x99, "and found what is there");
	accepts(set_region(g.vm, 1, 0, 0, 0, NULL), "the slot is deleted");
	equals(guest_run(&g), KVM_EXIT_MMIO, "the next read exits");
	guest_done(&g);
	munmap(mem, 4096);
}

/* The slot is there, the client's memory is not: the guest cannot hurt the process, KVM_RUN fails. */
static void unbacked(void)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0x20, 0x8e, 0xd8,	/* mov ax, 0x2000; mov ds, ax */
		0xa0, 0x00, 0x00, 0xf4,		/* mov al, [0]; hlt */
	};
	uint8_t *mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct guest g;
	int r;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	set_region(g.vm, 1, 0, 0x20000, 4096, mem);
	munmap(mem, 4096);
	/* A Linux whose own memory accesses interpret the guest tells it otherwise. */
	r = api.ioctl(g.vcpu, KVM_RUN, 0UL);
	tap_ok((r == -1 && errno == EFAULT) || (api.plain && g.run->exit_reason != KVM_EXIT_HLT), "a read of unbacked memory is EFAULT");
	guest_done(&g);
}

static void coalesced(void)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0xf0, 0x8e, 0xd8,		/* mov ax, 0xf000; mov ds, ax */
		0xc6, 0x06, 0x00, 0x01, 0x11,		/* mov byte [0x100], 0x11 */
		0xc7, 0x06, 0x02, 0x01, 0x22, 0x33,	/* mov word [0x102], 0x3322 */
		0xb0, 0x44, 0xe6, 0x70,			/* mov al, 0x44; out 0x70, al */
		0xc6, 0x06, 0xff, 0x0f, 0x55,		/* mov byte [0xfff], 0x55 */
		0xc6, 0x06, 0x00, 0x10, 0x66,		/* mov byte [0x1000], 0x66: outside */
		0xf4,
	};
	struct kvm_coalesced_mmio_zone zone = { .addr = 0xf0000, .size = 0x1000 }, port = { .addr = 0x70, .size = 1, .pio = 1 };
	struct kvm_coalesced_mmio_ring *ring;
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	accepts(api.ioctl(g.vm, KVM_REGISTER_COALESCED_MMIO, &zone), "a zone of memory");
	accepts(api.ioctl(g.vm, KVM_REGISTER_COALESCED_MMIO, &port), "a zone of ports");
	ring = (void *)((uint8_t *)g.run + KVM_COALESCED_MMIO_PAGE_OFFSET * 4096);
	equals(guest_run(&g), KVM_EXIT_MMIO, "a write outside of the zone exits");
	equals(g.run->mmio.phys_addr, 0xf1000, "its address");
	equals(ring->last - ring->first, 4, "four writes did not");
	tap_ok(ring->coalesced_mmio[0].phys_addr == 0xf0100 && ring->coalesced_mmio[0].len == 1 && ring->coalesced_mmio[0].data[0] == 0x11 &&
		       !ring->coalesced_mmio[0].pio, "the first");
	tap_ok(ring->coalesced_mmio[1].phys_addr == 0xf0102 && ring->coalesced_mmio[1].len == 2, "the second");
	tap_ok(ring->coalesced_mmio[2].phys_addr == 0x70 && ring->coalesced_mmio[2].pio == 1, "the port's");
	tap_ok(ring->coalesced_mmio[3].phys_addr == 0xf0fff, "the zone's last byte");
	guest_done(&g);
}

/* ---- statistics --------------------------------------------------------------------------------------------------- */

/* The value of @name and, unless NULL, its descriptor. */
static long counter_desc(int fd, const char *name, struct kvm_stats_desc *desc)
{
	struct kvm_stats_header h;
	char id[256], buf[256];
	long value = -1;
	unsigned i;

	if (pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.name_size > sizeof(id))
		return -1;
	for (i = 0; i < h.num_desc; i++) {
		struct kvm_stats_desc *d = (void *)buf;
		size_t size = sizeof(*d) + h.name_size;

		if (size > sizeof(buf) || pread(fd, buf, size, (off_t)(h.desc_offset + i * size)) != (ssize_t)size)
			return -1;
		if (strcmp(d->name, name))
			continue;
		if (pread(fd, &value, 8, (off_t)(h.data_offset + d->offset)) != 8)
			return -1;
		if (desc)
			*desc = *d;
	}
	return value;
}

static long counter(int fd, const char *name)
{
	return counter_desc(fd, name, NULL);
}

static bool is_kind(int fd, const char *name, uint32_t type, uint32_t unit, int exponent)
{
	struct kvm_stats_desc d = { 0 };

	return counter_desc(fd, name, &d) >= 0 && (d.flags & KVM_STATS_TYPE_MASK) == type &&
	       (d.flags & KVM_STATS_UNIT_MASK) == unit && d.exponent == exponent && d.size == 1;
}

static long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* Whether every counter's value is within the block that has as many as there are descriptors. */
static bool compact(int fd)
{
	struct kvm_stats_header header;
	bool good = pread(fd, &header, sizeof(header), 0) == sizeof(header);

	for (uint32_t i = 0; good && i < header.num_desc; i++) {
		struct kvm_stats_desc d;

		good = pread(fd, &d, sizeof(d), header.desc_offset + i * (sizeof(d) + header.name_size)) == sizeof(d) &&
		       d.offset < header.num_desc * 8;
	}
	return good;
}

static void stats(void)
{
	static const uint8_t code[] = { 0xe6, 0x10, 0xe6, 0x10, 0xf4 };
	struct guest g;
	int fd, vm_fd;
	char c;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	fd = (int)accepts(api.ioctl(g.vcpu, KVM_GET_STATS_FD, 0UL), "a vCPU's statistics");
	vm_fd = (int)accepts(api.ioctl(g.vm, KVM_GET_STATS_FD, 0UL), "a VM's statistics");
	tap_ok(compact(fd) && compact(vm_fd), "the values lie one behind the other");
	tap_ok(counter(vm_fd, "remote_tlb_flush") >= 0, "the VM counts remote_tlb_flush");
	guest_run(&g);
	guest_run(&g);
	guest_run(&g);
	/* What Linux counts depends on the hardware. */
	tap_ok(api.plain ? counter(fd, "io_exits") >= 0 : counter(fd, "io_exits") == 2, "two port accesses are counted");
	tap_ok(counter(fd, "exits") >= 2, "so are exits");
	equals(counter(fd, "no_such_counter"), -1, "names are exact");
	equals(pread(fd, &c, 1, 1 << 20), 0, "beyond the end there is nothing");
	api.close(vm_fd);
	guest_done(&g);
	tap_ok(counter(fd, "exits") >= 2, "they outlive the vCPU's descriptor");
	api.close(fd);
}

/* What only Trine counts: why guest code was left, where the time went, what the engine did. */
static void stats_own(void)
{
	/* out, in, a turn of a million, mov [0xf0000], hlt */
	static const uint8_t code[] = { 0xe6, 0x10, 0xe4, 0x10, 0x66, 0xb9, 0x40, 0x42, 0x0f, 0x00, 0x66, 0x49, 0x75, 0xfc,
					0xb8, 0x00, 0xf0, 0x8e, 0xd8, 0xa2, 0x00, 0x00, 0xf4 };
	static const char *const times[] = { "guest_time_ns", "core_time_ns", "halt_time_ns", "monitor_time_ns" };
	long before = now_ns(), all, guest, sum = 0;
	struct timespec nap = { .tv_nsec = 20000000 };
	struct guest g;
	int fd, vm_fd;

	if (api.plain)
		return tap_skip("Linux has other counters", "exits by reason, times, an engine's own");
	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	fd = (int)accepts(api.ioctl(g.vcpu, KVM_GET_STATS_FD, 0UL), "a vCPU's statistics");
	vm_fd = (int)accepts(api.ioctl(g.vm, KVM_GET_STATS_FD, 0UL), "a VM's statistics");
	equals(guest_run(&g), KVM_EXIT_IO, "out");
	equals(guest_run(&g), KVM_EXIT_IO, "in");
	nanosleep(&nap, NULL);
	guest = now_ns();
	equals(guest_run(&g), KVM_EXIT_MMIO, "a million turns, and a write to where there is no memory");
	guest = now_ns() - guest;
	equals(guest_run(&g), KVM_EXIT_HLT, "hlt");
	all = now_ns() - before;
	equals(counter(fd, "user_exit_io"), 2, "KVM_RUN returned twice for ports");
	equals(counter(fd, "user_exit_mmio"), 1, "once for memory");
	equals(counter(fd, "user_exit_hlt"), 1, "once for hlt");
	equals(counter(fd, "user_exit_intr"), 0, "never for a signal");
	equals(counter(fd, "user_exit_error"), 0, "never with an error");
	equals(counter(fd, "exit_user"), 3, "guest code was left for the client three times");
	equals(counter(fd, "exit_hlt"), 1, "once for hlt");
	equals(counter(fd, "exits"), counter(fd, "exit_user") + counter(fd, "exit_hlt") + counter(fd, "exit_none"),
	       "the reasons add up to the exits");
	for (unsigned i = 0; i < 4; i++) {
		tap_ok(is_kind(fd, times[i], KVM_STATS_TYPE_CUMULATIVE, KVM_STATS_UNIT_SECONDS, -9), "%s is in nanoseconds", times[i]);
		sum += counter(fd, times[i]);
	}
	tap_ok(sum <= all + all / 50, "they are parts of the time that passed (%ld of %ld)", sum, all);
	tap_ok(counter(fd, "monitor_time_ns") >= nap.tv_nsec - nap.tv_nsec / 50, "a nap of the client's is in monitor_time_ns");
	tap_ok(counter(fd, "guest_time_ns") > guest / 2 && counter(fd, "core_time_ns") > 0, "the million turns are in guest_time_ns");
	equals(counter(fd, "halt_time_ns"), 0, "without an interrupt chip nothing waits in KVM_RUN");
	tap_ok(counter(fd, "lite_blocks") > 0, "the engine's blocks are counted");
	tap_ok(is_kind(fd, "lite_translate_time_ns", KVM_STATS_TYPE_CUMULATIVE, KVM_STATS_UNIT_SECONDS, -9), "its time has a unit");
	tap_ok(is_kind(vm_fd, "lite_block_bytes", KVM_STATS_TYPE_INSTANT, KVM_STATS_UNIT_BYTES, 0), "its memory is an instant value in bytes");
	tap_ok(counter(vm_fd, "lite_block_bytes") > 0, "and not nothing");
	api.close(vm_fd);
	api.close(fd);
	guest_done(&g);
}

/* ---- races with a running vCPU ---------------------------------------------------------------------------------------- */

static int run_a_little(void *arg, int round)
{
	struct guest *g = arg;

	(void)round;
	return api.ioctl(g->vcpu, KVM_RUN, 0UL) && errno != EINTR;
}

static int log_on_off(void *arg, int round)
{
	struct guest *g = arg;
	uint64_t bitmap;
	struct kvm_dirty_log log = { .dirty_bitmap = &bitmap };

	if (set_region(g->vm, 0, round & 1 ? 0 : KVM_MEM_LOG_DIRTY_PAGES, 0, g->mem_size, g->mem))
		return 1;
	return api.ioctl(g->vm, KVM_GET_DIRTY_LOG, &log) && errno != ENOENT;
}

static int other_slot(void *arg, int round)
{
	struct guest *g = arg;

	return set_region(g->vm, 3, 0, 0x100000, round & 1 ? 0 : 4096, g->mem) && !(round & 1);
}

static int read_regs(void *arg, int round)
{
	struct kvm_regs regs;

	(void)round;
	return api.ioctl(((struct guest *)arg)->vcpu, KVM_GET_REGS, &regs) != 0;
}

static void races(void)
{
	/* write here and there, then a port, for ever */
	static const uint8_t code[] = {
		0xfe, 0x06, 0x00, 0x30,		/* again: inc byte [0x3000] */
		0xfe, 0x06, 0x00, 0x50,		/* inc byte [0x5000] */
		0xe6, 0x10, 0xeb, 0xf4,		/* out 0x10, al; jmp again */
	};
	struct guest g;

	if (!guest_init(&g, 16))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	race("a guest runs while dirty logging comes and goes", 300, run_a_little, log_on_off, &g);
	race("a guest runs while other slots come and go", 300, run_a_little, other_slot, &g);
	race("a guest runs while its registers are asked for", 300, run_a_little, read_regs, &g);
	race("two threads run one vCPU", 300, run_a_little, run_a_little, &g);
	guest_done(&g);
}

static long vm_enable(int vm, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg } };

	return api.ioctl(vm, KVM_ENABLE_CAP, &c);
}

/* Guest code at @ip to its HLT, with #UD (vector 6) going to a handler at 0x1800 that sets SI to 0x55 and halts. True when that was run. */
static bool undefined(struct guest *g, const void *code, size_t len)
{
	static const uint8_t handler[] = { 0xbe, 0x55, 0x00, 0xf4 };
	struct kvm_regs regs;

	guest_code(g, 0x1000, code, len);
	memcpy(g->mem + 0x1800, handler, sizeof(handler));
	memcpy(g->mem + 6 * 4, "\x00\x18\x00\x00", 4);
	equals(guest_run(g), KVM_EXIT_HLT, "it comes to a HLT");
	api.ioctl(g->vcpu, KVM_GET_REGS, &regs);
	return (regs.rsi & 0xffff) == 0x55;
}

static void quirks(void)
{
	static const uint8_t monitor[] = { 0x31, 0xc0, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6, 0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9, 0xf4 };
	static const uint8_t vmcall[] = { 0x31, 0xf6, 0xb8, 0x01, 0x00, 0x0f, 0x01, 0xc1, 0xf4 };
	static const uint8_t vmmcall[] = { 0x31, 0xf6, 0xb8, 0x01, 0x00, 0x0f, 0x01, 0xd9, 0xf4 };
	uint64_t known = api.ioctl(api_system(), KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_DISABLE_QUIRKS2);
	struct guest g;
	bool a, b;

	tap_ok(known & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS, "MONITOR's quirk can be switched off");
	tap_ok(known & KVM_X86_QUIRK_FIX_HYPERCALL_INSN, "that of hypercalls can be switched off");
	if (!guest_init(&g, 16))
		return;
	tap_ok(!undefined(&g, monitor, sizeof(monitor)), "MONITOR and MWAIT do nothing though CPUID does not show them");
	tap_ok(!undefined(&g, vmcall, sizeof(vmcall)), "VMCALL is a hypercall");
	tap_ok(!undefined(&g, vmmcall, sizeof(vmmcall)), "VMMCALL is one");
	refuses(EINVAL, vm_enable(g.vm, KVM_CAP_DISABLE_QUIRKS2, 1ULL << 40), "an unknown quirk is refused");
	accepts(vm_enable(g.vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS | KVM_X86_QUIRK_FIX_HYPERCALL_INSN),
		"both are switched off");
	tap_ok(undefined(&g, monitor, sizeof(monitor)), "then MONITOR is undefined");
	a = undefined(&g, vmcall, sizeof(vmcall));
	b = undefined(&g, vmmcall, sizeof(vmmcall));
	tap_ok(a != b, "and one of the hypercall instructions");
	guest_done(&g);
}

/* RDMSR of MSR_KVM_SYSTEM_TIME_NEW with #GP (vector 13) as above; then hypercall 11, KVM_HC_SCHED_YIELD. */
static void pv_features(void)
{
	static const uint8_t code[] = {
		0x31, 0xf6, 0x66, 0xb9, 0x01, 0x4d, 0x56, 0x4b, 0x0f, 0x32, /* xor si, si; mov ecx, 0x4b564d01; rdmsr */
		0xf4,
	};
	static const uint8_t call[] = { 0x66, 0xb8, 0x0b, 0x00, 0x00, 0x00, 0x0f, 0x01, 0xc1, 0xf4 };
	static const uint8_t handler[] = { 0xbe, 0x55, 0x00, 0xf4 };
	struct kvm_enable_cap cap = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };
	struct kvm_regs regs;
	struct guest g;

	tap_ok(has_cap(api_system(), KVM_CAP_ENFORCE_PV_FEATURE_CPUID), "KVM_CAP_ENFORCE_PV_FEATURE_CPUID is there");
	if (!guest_init(&g, 16))
		return;
	memcpy(g.mem + 0x1800, handler, sizeof(handler));
	memcpy(g.mem + 13 * 4, "\x00\x18\x00\x00", 4);
	for (int enforced = 0; enforced < 2; enforced++) {
		guest_code(&g, 0x1000, code, sizeof(code));
		equals(guest_run(&g), KVM_EXIT_HLT, "the guest reads the clock's MSR");
		api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
		equals((regs.rsi & 0xffff) == 0x55, enforced, enforced ? "which it has not" : "which it has without CPUID's word");
		guest_code(&g, 0x1000, call, sizeof(call));
		equals(guest_run(&g), KVM_EXIT_HLT, "it yields");
		api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
		equals((int32_t)regs.rax, enforced ? -1000 : 0, "the hypercall's result");
		cap.flags = 1;
		refuses(EINVAL, api.ioctl(g.vcpu, KVM_ENABLE_CAP, &cap), "a flag is refused");
		cap.flags = 0;
		accepts(api.ioctl(g.vcpu, KVM_ENABLE_CAP, &cap), "KVM_CAP_ENFORCE_PV_FEATURE_CPUID");
	}
	guest_done(&g);
}

/* A program of the guest's (CPL 3) has an x87 instruction with its operand in a device. There is no IDT: #UD shuts the processor down. */
static int user_float(struct guest *g)
{
	static const uint8_t code[] = { 0xd9, 0x05, 0x00, 0x00, 0x70, 0x00, 0xf4 }; /* fld dword [0x700000] */
	struct kvm_segment data = { .limit = 0xffffffff, .selector = 0x23, .type = 3, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1 };
	struct kvm_regs regs = { .rip = 0x1000, .rsp = 0x8000, .rflags = 2 };
	struct kvm_sregs sregs;

	api.ioctl(g->vcpu, KVM_GET_SREGS, &sregs);
	sregs.cr0 = 0x11;
	sregs.ds = sregs.es = sregs.ss = data;
	data.type = 11;
	data.selector = 0x1b;
	sregs.cs = data;
	sregs.idt.limit = 0;
	memcpy(g->mem + 0x1000, code, sizeof(code));
	api.ioctl(g->vcpu, KVM_SET_SREGS, &sregs);
	api.ioctl(g->vcpu, KVM_SET_REGS, &regs);
	return guest_run(g);
}

static void emulation_failure(void)
{
	struct guest g;
	int r;

	if (!guest_init(&g, 16))
		return;
	refuses(EINVAL, vm_enable(g.vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 2), "anything but 0 and 1 is refused");
	r = user_float(&g);
	guest_done(&g);
	if (r == KVM_EXIT_MMIO)
		return tap_skip("this engine emulates it", "what cannot be emulated at CPL 3");
	equals(r, KVM_EXIT_SHUTDOWN, "what cannot be emulated at CPL 3 is #UD");
	if (!guest_init_cap(&g, 16, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1))
		return;
	equals(user_float(&g), KVM_EXIT_INTERNAL_ERROR, "with the capability it is the client's");
	equals(g.run->emulation_failure.suberror, KVM_INTERNAL_ERROR_EMULATION, "an emulation failure");
	tap_ok(!memcmp(g.run->emulation_failure.insn_bytes, "\xd9\x05", 2), "with the instruction");
	guest_done(&g);
}

static void halt_polling(void)
{
	struct guest g;

	if (!guest_init(&g, 4))
		return;
	refuses(EINVAL, vm_enable(g.vm, KVM_CAP_HALT_POLL, 1ULL << 32), "more than 32 bits of nanoseconds are refused");
	accepts(vm_enable(g.vm, KVM_CAP_HALT_POLL, 0), "0: no polling");
	accepts(vm_enable(g.vm, KVM_CAP_HALT_POLL, 1000000), "a millisecond");
	guest_done(&g);
}

static void max_ids(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), vcpu;
	int max = api.ioctl(vm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MAX_VCPU_ID);

	refuses(EINVAL, vm_enable(vm, KVM_CAP_MAX_VCPU_ID, max + 1), "more vCPU IDs than there can be are refused");
	accepts(vm_enable(vm, KVM_CAP_MAX_VCPU_ID, 4), "four");
	accepts(vm_enable(vm, KVM_CAP_MAX_VCPU_ID, 4), "the same once more");
	refuses(EINVAL, vm_enable(vm, KVM_CAP_MAX_VCPU_ID, 5), "another number is refused");
	refuses(EINVAL, api.ioctl(vm, KVM_CREATE_VCPU, 4UL), "vCPU 4 is refused");
	vcpu = accepts(api.ioctl(vm, KVM_CREATE_VCPU, 3UL), "vCPU 3 is not");
	api.close(vcpu);
	api.close(vm);
}

static void mmu_pages(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);

	refuses(EINVAL, api.ioctl(vm, KVM_SET_NR_MMU_PAGES, 63UL), "fewer than 64 MMU pages are refused");
	accepts(api.ioctl(vm, KVM_SET_NR_MMU_PAGES, 64UL), "64 are not");
	equals(api.ioctl(vm, KVM_GET_NR_MMU_PAGES, 0UL), 64, "and are told");
	api.close(vm);
}

/* SDM 3C 31.2 to 31.5: in by KVM_SMI, to SMBASE + 8000h, out by RSM to where it was. */
static void system_management(void)
{
	static const uint8_t code[] = { 0xb0, 0x42, 0xe6, 0x10, 0xe6, 0x11, 0xf4 };  /* mov al, 0x42; out 0x10, al; out 0x11, al; hlt */
	static const uint8_t handler[] = { 0xb0, 0x53, 0xe6, 0x20, 0x0f, 0xaa };      /* mov al, 0x53; out 0x20, al; rsm */
	struct kvm_vcpu_events events;
	struct guest g;

	if (!has_cap(api_system(), KVM_CAP_X86_SMM)) {
		tap_skip("no SMM", "an SMI comes and goes");
		return;
	}
	if (!guest_init(&g, 64))
		return;
	guest_code(&g, 0x1000, code, sizeof(code));
	memcpy(g.mem + 0x38000, handler, sizeof(handler));
	accepts(set_region(g.vm, 1 << 16, 0, 0x30000, 0x10000, g.mem + 0x30000), "SMRAM, in the other address space");
	equals(guest_run(&g), KVM_EXIT_IO, "a guest runs");
	accepts(api.ioctl(g.vcpu, KVM_SMI), "KVM_SMI");
	equals(guest_run(&g), KVM_EXIT_IO, "its handler runs");
	tap_ok(g.run->io.port == 0x20 && *((uint8_t *)g.run + g.run->io.data_offset) == 0x53 && (g.run->flags & KVM_RUN_X86_SMM),
	       "at SMBASE + 8000h, in SMM");
	accepts(api.ioctl(g.vcpu, KVM_GET_VCPU_EVENTS, &events), "KVM_GET_VCPU_EVENTS");
	tap_ok(events.smi.smm && !events.smi.pending, "says so too");
	equals(guest_run(&g), KVM_EXIT_IO, "RSM: the guest goes on");
	tap_ok(g.run->io.port == 0x11 && *((uint8_t *)g.run + g.run->io.data_offset) == 0x42 && !(g.run->flags & KVM_RUN_X86_SMM),
	       "where it was, with what it had, not in SMM");
	equals(guest_run(&g), KVM_EXIT_HLT, "to its end");
	guest_done(&g);
}

static void disabled_exits(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), vcpu;
	struct kvm_regs regs;
	struct guest g;
	uint64_t known = api.ioctl(vm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_X86_DISABLE_EXITS);

	refuses(EINVAL, vm_enable(vm, KVM_CAP_X86_DISABLE_EXITS, 1ULL << 20), "an unknown exit is refused");
	vcpu = api.ioctl(vm, KVM_CREATE_VCPU, 0UL);
	refuses(EINVAL, vm_enable(vm, KVM_CAP_X86_DISABLE_EXITS, known ? known : 2), "not with a vCPU");
	api.close(vcpu);
	api.close(vm);
	if (!(known & KVM_X86_DISABLE_EXITS_HLT)) {
		tap_skip("this engine always leaves guest code for HLT", "HLT without an exit");
	} else if (guest_init_cap(&g, 16, KVM_CAP_X86_DISABLE_EXITS, known)) {
		/* Not in real mode, which some processors leave to the emulator */
		guest_long_code(&g, 0x1000, halted, sizeof(halted));
		api.ioctl(g.vcpu, KVM_GET_REGS, &regs);
		regs.rflags |= 1 << 9;
		api.ioctl(g.vcpu, KVM_SET_REGS, &regs);
		interrupted_in(&g, "a halt without an exit");
	}
}

const struct api_case api_cases[] = {
	{ "halt", halt },
	{ "ports", ports },
	{ "general-detect", general_detect },
	{ "string-ports", string_ports },
	{ "mmio", mmio },
	{ "read-only", read_only },
	{ "immediate-exit", immediate_exit },
	{ "signals", signals },
	{ "masked-signal", masked_signal },
	{ "flag-alone", flag_alone },
	{ "dirty-log", dirty_log },
	{ "dirty-many", dirty_many },
	{ "dirty-ring", dirty_ring },
	{ "ring-full", ring_full },
	{ "vanished", vanished },
	{ "unbacked", unbacked },
	{ "coalesced", coalesced },
	{ "stats", stats },
	{ "stats-own", stats_own },
	{ "quirks", quirks },
	{ "pv-features", pv_features },
	{ "system-management", system_management },
	{ "disabled-exits", disabled_exits },
	{ "emulation-failure", emulation_failure },
	{ "mmu-pages", mmu_pages },
	{ "halt-polling", halt_polling },
	{ "max-vcpu-ids", max_ids },
	{ "races", races },
	{ NULL, NULL },
};
