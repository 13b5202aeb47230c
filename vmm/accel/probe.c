/*
 * The probe guest: is this /dev/kvm the processor, or something that imitates it?
 *
 * Some hosts have a /dev/kvm whose backend interprets supervisor code. Its presence proves nothing,
 * so a small guest does what a modern kernel does in its first milliseconds: long mode, lock
 * cmpxchg16b, xsave and xrstor, swapgs, a system call from user mode and back by sysret and by
 * iret. Then it counts a loop of known length in supervisor mode, which takes a processor a few
 * milliseconds and an interpreter a hundred times that. The first part has failed when the guest
 * does not report its end; an alarm bounds both.
 */
#include "vmm/accel.h"
#include "vmm/machine.h"
#include <asm/kvm.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/*
 * Guest-physical layout: page tables at 0x1000-0x3fff, GDT and TSS at 0x4000, code at 0x6000, data
 * at 0x8000, stacks up to 0xf000. Everything is mapped user-accessible: protection is not what is
 * probed.
 */
#define PROBE_SIZE  0x10000u
#define PROBE_PML4  0x1000u
#define PROBE_GDT   0x4000u
#define PROBE_TSS   0x5000u
#define PROBE_CODE  0x6000u
#define PROBE_DATA  0x8000u
#define PROBE_STACK 0xf000u
#define PROBE_PORT  0x99

#define REPORT_INSTRUCTIONS 0x11 /* the first part is done */
#define REPORT_LOOP	    0x22 /* and the second */

/*
 * A turn of the loop is three instructions; a processor of 1 GHz takes 10 ms for all at three
 * cycles a turn.
 */
#define LOOP_TURNS  4000000u
#define LOOP_MAX_NS (100 * 1000000ll)
#define ALL_MAX_S   3

#define CPUID_LEAVES 256

#define CS_KERNEL 0x08
#define CS_USER	  0x23 /* syscall's layout: user data 0x18, user code 0x20 */

extern const u8 probe_guest[], probe_guest_end[];

/* The guest, in its own position: everything is relative to RIP or an absolute below 64 KiB. */
asm(".pushsection .rodata\n"
    ".global probe_guest, probe_guest_end\n"
    "probe_guest:\n"
    "	mov $0x8000, %ebx\n"
    /* lock cmpxchg16b: equal, so it exchanges and sets ZF */
    "	xor %eax, %eax\n"
    "	xor %edx, %edx\n"
    "	mov %rbx, %rdi\n"
    "	mov $0x1234, %ebx\n"
    "	mov $0x5678, %ecx\n"
    "	lock cmpxchg16b (%rdi)\n"
    "	jne 9f\n"
    "	cmpq $0x1234, (%rdi)\n"
    "	jne 9f\n"
    /* xsave and xrstor of x87 and SSE */
    "	mov $0x8200, %edi\n"
    "	mov $3, %eax\n"
    "	xor %edx, %edx\n"
    "	xsave (%rdi)\n"
    "	xrstor (%rdi)\n"
    /* swapgs twice: the bases change places and back */
    "	swapgs\n"
    "	swapgs\n"
    /* STAR, LSTAR, SFMASK */
    "	mov $0xc0000081, %ecx\n"
    "	xor %eax, %eax\n"
    "	mov $0x00100008, %edx\n"
    "	wrmsr\n"
    "	mov $0xc0000082, %ecx\n"
    "	lea 2f(%rip), %rax\n"
    "	mov %rax, %rdx\n"
    "	shr $32, %rdx\n"
    "	wrmsr\n"
    "	mov $0xc0000084, %ecx\n"
    "	mov $0x200, %eax\n"
    "	xor %edx, %edx\n"
    "	wrmsr\n"
    /* to user mode by iret */
    "	mov $0xe000, %eax\n"
    "	push $0x1b\n"
    "	push %rax\n"
    "	pushf\n"
    "	push $0x23\n"
    "	lea 1f(%rip), %rax\n"
    "	push %rax\n"
    "	iretq\n"
    /* user: the first call is answered by sysret, the second ends here */
    "1:	xor %ebp, %ebp\n"
    "	syscall\n"
    "	inc %ebp\n"
    "	syscall\n"
    "	ud2\n"
    /* supervisor again, on the user's stack */
    "2:	swapgs\n"
    "	cmp $1, %ebp\n"
    "	je 3f\n"
    "	swapgs\n"
    "	sysretq\n"
    "3:	swapgs\n"
    "	mov $0x11, %al\n"
    "	out %al, $0x99\n"
    "	mov $4000000, %ecx\n"
    "	mov $0x8000, %edi\n"
    "4:	add %rcx, 0x100(%rdi)\n"
    "	dec %ecx\n"
    "	jnz 4b\n"
    "	mov $0x22, %al\n"
    "	out %al, $0x99\n"
    "9:	hlt\n"
    "probe_guest_end:\n"
    ".popsection\n");

struct probe {
	const struct accel *a;
	int kvm, vm, vcpu;
	u8 *memory;
	struct kvm_run *run;
	int run_size;
};

static int call(struct probe *p, int fd, unsigned long request, void *argument)
{
	int r = p->a->ioctl(fd, request, (uintptr_t)argument);

	return r < 0 ? -errno : r;
}

static int failed(struct error *err, int code, const char *what)
{
	return error_set(err, code, "/dev/kvm cannot run a guest: %s: %s", what, strerror(-code));
}

static int create(struct probe *p, struct error *err)
{
	struct kvm_userspace_memory_region region = { .memory_size = PROBE_SIZE };
	struct kvm_cpuid2 *cpuid;
	int r;

	p->kvm = p->a->open();
	if (p->kvm < 0)
		return error_set(err, -errno, "/dev/kvm: %s", strerror(errno));
	if (p->a->ioctl(p->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return error_set(err, -EINVAL, "/dev/kvm does not speak version %d of the KVM API",
				 KVM_API_VERSION);
	p->vm = call(p, p->kvm, KVM_CREATE_VM, NULL);
	if (p->vm < 0)
		return failed(err, p->vm, "KVM_CREATE_VM");
	p->memory =
		mmap(NULL, PROBE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->memory == MAP_FAILED) {
		p->memory = NULL;
		return failed(err, -ENOMEM, "memory");
	}
	region.userspace_addr = (uintptr_t)p->memory;
	r = call(p, p->vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (r < 0)
		return failed(err, r, "KVM_SET_USER_MEMORY_REGION");
	if (p->a->ioctl(p->vm, KVM_SET_TSS_ADDR, 0xfeffd000) < 0)
		return failed(err, -errno, "KVM_SET_TSS_ADDR");
	p->vcpu = call(p, p->vm, KVM_CREATE_VCPU, NULL);
	if (p->vcpu < 0)
		return failed(err, p->vcpu, "KVM_CREATE_VCPU");
	p->run_size = call(p, p->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (p->run_size < (int)sizeof(struct kvm_run))
		return failed(err, -EINVAL, "KVM_GET_VCPU_MMAP_SIZE");
	p->run = p->a->mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (p->run == MAP_FAILED) {
		p->run = NULL;
		return failed(err, -errno, "mapping kvm_run");
	}
	cpuid = xzalloc(sizeof(*cpuid) + CPUID_LEAVES * sizeof(cpuid->entries[0]));
	cpuid->nent = CPUID_LEAVES;
	r = call(p, p->kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
	if (r >= 0)
		r = call(p, p->vcpu, KVM_SET_CPUID2, cpuid);
	free(cpuid);
	return r < 0 ? failed(err, r, "CPUID") : 0;
}

/* Identity-maps the first 2 MiB and writes GDT, TSS and the code. */
static void fill_memory(struct probe *p)
{
	static const u64 gdt[] = {
		0,
		0x00af9b000000ffffull, /* 0x08 supervisor code */
		0x00cf93000000ffffull, /* 0x10 supervisor data */
		0x00cff3000000ffffull, /* 0x18 user data */
		0x00affb000000ffffull, /* 0x20 user code */
	};

	put_le64(p->memory + PROBE_PML4, (PROBE_PML4 + 0x1000) | 7);
	put_le64(p->memory + PROBE_PML4 + 0x1000, (PROBE_PML4 + 0x2000) | 7);
	put_le64(p->memory + PROBE_PML4 + 0x2000, 0x87);
	memcpy(p->memory + PROBE_GDT, gdt, sizeof(gdt));
	memcpy(p->memory + PROBE_CODE, probe_guest, probe_guest_end - probe_guest);
}

static int set_state(struct probe *p, struct error *err)
{
	struct kvm_segment code = { .limit = ~0u,
				    .selector = CS_KERNEL,
				    .type = 0xb,
				    .present = 1,
				    .s = 1,
				    .l = 1,
				    .g = 1 };
	struct kvm_segment data = {
		.limit = ~0u, .selector = 0x10, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1
	};
	struct kvm_regs regs = { .rip = PROBE_CODE, .rsp = PROBE_STACK, .rflags = 2 };
	struct kvm_sregs sregs;
	int r;

	r = call(p, p->vcpu, KVM_GET_SREGS, &sregs);
	if (r < 0)
		return failed(err, r, "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){
		.base = PROBE_TSS, .limit = 0x67, .selector = 0, .type = 0xb, .present = 1
	};
	sregs.gdt.base = PROBE_GDT;
	sregs.gdt.limit = 0x27;
	sregs.idt.base = sregs.idt.limit = 0;
	sregs.cr0 = 0x80010033; /* PG, WP, NE, ET, MP, PE */
	sregs.cr3 = PROBE_PML4;
	sregs.cr4 = 0x40620; /* OSXSAVE, OSXMMEXCPT, OSFXSR, PAE */
	sregs.efer = 0x501;  /* LMA, LME, SCE */
	r = call(p, p->vcpu, KVM_SET_SREGS, &sregs);
	if (r < 0)
		return failed(err, r, "KVM_SET_SREGS");
	r = call(p, p->vcpu, KVM_SET_REGS, &regs);
	return r < 0 ? failed(err, r, "KVM_SET_REGS") : 0;
}

/* Runs until the guest reports @expected. */
static int run_until(struct probe *p, u8 expected, const char *what, struct error *err)
{
	int r;

	for (;;) {
		r = call(p, p->vcpu, KVM_RUN, NULL);
		/* The alarm is the only signal that is let in here. */
		if (r == -EINTR)
			return error_set(err, -ETIME,
					 "/dev/kvm interprets supervisor code: the probe guest was "
					 "not through its "
					 "%s after %d s",
					 what, ALL_MAX_S);
		if (r == -EAGAIN)
			continue;
		if (r < 0)
			return failed(err, r, "KVM_RUN");
		if (p->run->exit_reason == KVM_EXIT_IO && p->run->io.port == PROBE_PORT &&
		    ((u8 *)p->run)[p->run->io.data_offset] == expected)
			return 0;
		if (p->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
			return error_set(
				err, -EIO,
				"/dev/kvm failed to emulate an instruction in the probe guest's %s "
				"(suberror %u): it interprets supervisor code",
				what, p->run->internal.suberror);
		return error_set(err, -EIO,
				 "/dev/kvm does not run the probe guest's %s as a processor does "
				 "(exit reason %u)",
				 what, p->run->exit_reason);
	}
}

static void on_alarm(int signal)
{
}

static int run(struct probe *p, struct error *err)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	struct itimerspec limit = { .it_value.tv_sec = ALL_MAX_S,
				    .it_interval.tv_nsec = 100 * 1000000 };
	struct sigaction action = { .sa_handler = on_alarm }, old_action;
	sigset_t set, old_set;
	timer_t timer;
	s64 start, took;
	int r;

	event._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0)
		return failed(err, -errno, "timer_create");
	sigaction(SIGALRM, &action, &old_action);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, &old_set);
	timer_settime(timer, 0, &limit, NULL);

	r = run_until(p, REPORT_INSTRUCTIONS, "first instructions", err);
	start = now_ns();
	if (!r)
		r = run_until(p, REPORT_LOOP, "timed loop", err);
	took = now_ns() - start;

	timer_delete(timer);
	pthread_sigmask(SIG_SETMASK, &old_set, NULL);
	sigaction(SIGALRM, &old_action, NULL);
	if (!r && took > LOOP_MAX_NS)
		r = error_set(err, -ETIME,
			      "/dev/kvm interprets supervisor code: %lld million instructions a "
			      "second in the probe guest",
			      LOOP_TURNS * 3ll * 1000 / took);
	return r;
}

int accel_probe(const struct accel *a, struct error *err)
{
	struct probe p = { .a = a, .kvm = -1, .vm = -1, .vcpu = -1 };
	int r;

	r = create(&p, err);
	if (!r) {
		fill_memory(&p);
		r = set_state(&p, err);
	}
	if (!r)
		r = run(&p, err);
	if (p.run)
		munmap(p.run, p.run_size);
	if (p.vcpu >= 0)
		a->close(p.vcpu);
	if (p.vm >= 0)
		a->close(p.vm);
	if (p.kvm >= 0)
		a->close(p.kvm);
	if (p.memory)
		munmap(p.memory, PROBE_SIZE);
	return r;
}
