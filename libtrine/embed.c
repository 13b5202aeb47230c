/* See embed.h. On trine.h alone. */
#include "libtrine/embed.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libtrine/trine.h"

#define MAX_VCPUS    16
#define CPUID_LEAVES 256

struct kvm_context {
	const struct kvm_callbacks *callbacks;
	void *opaque;
	int system, vm;
	char *mem;
	unsigned long mem_bytes;
	struct {
		int fd; /* 0: none */
		struct kvm_run *run;
	} vcpu[MAX_VCPUS];
	size_t run_size;
	struct kvm_context *next; /* for load_file() */
};

static struct kvm_context *contexts;
static pthread_mutex_t contexts_lock = PTHREAD_MUTEX_INITIALIZER;

static int result(int r)
{
	return r < 0 ? -errno : r;
}

struct kvm_context *kvm_init(struct kvm_callbacks *callbacks, void *opaque)
{
	struct kvm_context *kvm = calloc(1, sizeof(*kvm));

	if (!kvm)
		return NULL;
	kvm->callbacks = callbacks;
	kvm->opaque = opaque;
	kvm->vm = -1;
	kvm->system = trine_open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm->system < 0) {
		free(kvm);
		return NULL;
	}
	kvm->run_size = (size_t)trine_ioctl(kvm->system, KVM_GET_VCPU_MMAP_SIZE, 0);
	pthread_mutex_lock(&contexts_lock);
	kvm->next = contexts;
	contexts = kvm;
	pthread_mutex_unlock(&contexts_lock);
	return kvm;
}

static void close_vm(struct kvm_context *kvm)
{
	int i;

	for (i = 0; i < MAX_VCPUS; i++) {
		if (kvm->vcpu[i].run)
			munmap(kvm->vcpu[i].run, kvm->run_size);
		if (kvm->vcpu[i].fd)
			trine_close(kvm->vcpu[i].fd);
		kvm->vcpu[i].run = NULL;
		kvm->vcpu[i].fd = 0;
	}
	if (kvm->vm >= 0)
		trine_close(kvm->vm);
	kvm->vm = -1;
	if (kvm->mem)
		munmap(kvm->mem, kvm->mem_bytes);
	kvm->mem = NULL;
}

void kvm_finalize(struct kvm_context *kvm)
{
	struct kvm_context **p;

	if (!kvm)
		return;
	pthread_mutex_lock(&contexts_lock);
	for (p = &contexts; *p; p = &(*p)->next) {
		if (*p == kvm) {
			*p = kvm->next;
			break;
		}
	}
	pthread_mutex_unlock(&contexts_lock);
	close_vm(kvm);
	trine_close(kvm->system);
	free(kvm);
}

static int set_cpuid(struct kvm_context *kvm, int fd)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + CPUID_LEAVES * sizeof(cpuid->entries[0]));
	unsigned i, kept = 0;
	int r;

	if (!cpuid)
		return -ENOMEM;
	cpuid->nent = CPUID_LEAVES;
	r = trine_ioctl(kvm->system, KVM_GET_SUPPORTED_CPUID, cpuid);
	for (i = 0; r >= 0 && i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 e = cpuid->entries[i];
		uint32_t regs[4] = { e.eax, e.ebx, e.ecx, e.edx };

		if (kvm->callbacks->cpuid && kvm->callbacks->cpuid(kvm->opaque, e.function, e.index, regs))
			continue;
		e.eax = regs[0];
		e.ebx = regs[1];
		e.ecx = regs[2];
		e.edx = regs[3];
		cpuid->entries[kept++] = e;
	}
	cpuid->nent = kept;
	if (r >= 0)
		r = trine_ioctl(fd, KVM_SET_CPUID2, cpuid);
	r = result(r);
	free(cpuid);
	return r;
}

/* Below 1 MiB as the first PCs had it, so that a firmware needs no memory at the top of 4 GiB. */
static int set_entry(int fd)
{
	struct kvm_sregs sregs;

	if (trine_ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
		return -errno;
	sregs.cs.base = 0xf0000;
	sregs.cs.selector = 0xf000;
	return result(trine_ioctl(fd, KVM_SET_SREGS, &sregs));
}

static int add_vcpu(struct kvm_context *kvm, int vcpu)
{
	int fd, r;
	void *run;

	if (kvm->vcpu[vcpu].fd)
		return -EEXIST;
	fd = trine_ioctl(kvm->vm, KVM_CREATE_VCPU, (unsigned long)vcpu);
	if (fd < 0)
		return -errno;
	r = set_cpuid(kvm, fd);
	if (!r)
		r = set_entry(fd);
	if (r)
		goto close_fd;
	run = trine_mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED) {
		r = -errno;
		goto close_fd;
	}
	kvm->vcpu[vcpu].fd = fd;
	kvm->vcpu[vcpu].run = run;
	return 0;

close_fd:
	trine_close(fd);
	return r;
}

int kvm_create_vcpu(struct kvm_context *kvm, int vcpu)
{
	if (kvm->vm < 0 || vcpu < 0 || vcpu >= MAX_VCPUS)
		return -EINVAL;
	return add_vcpu(kvm, vcpu);
}

int kvm_create(struct kvm_context *kvm, unsigned long bytes, void **vm_mem)
{
	struct kvm_userspace_memory_region region = { .memory_size = bytes };
	int r;

	if (kvm->vm >= 0)
		return -EEXIST;
	if (!bytes || bytes % 4096)
		return -EINVAL;
	kvm->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (kvm->mem == MAP_FAILED) {
		kvm->mem = NULL;
		return -ENOMEM;
	}
	kvm->mem_bytes = bytes;
	kvm->vm = trine_ioctl(kvm->system, KVM_CREATE_VM, 0UL);
	if (kvm->vm < 0) {
		r = -errno;
		goto close;
	}
	region.userspace_addr = (uintptr_t)kvm->mem;
	r = result(trine_ioctl(kvm->vm, KVM_SET_USER_MEMORY_REGION, &region));
	if (!r)
		r = add_vcpu(kvm, 0);
	if (r)
		goto close;
	*vm_mem = kvm->mem;
	return 0;

close:
	close_vm(kvm);
	return r;
}

/* How much of some VM's memory there is from @mem on. */
static size_t room_at(const char *mem)
{
	const struct kvm_context *kvm;
	size_t room = 0;

	pthread_mutex_lock(&contexts_lock);
	for (kvm = contexts; kvm; kvm = kvm->next)
		if (kvm->mem && mem >= kvm->mem && mem < kvm->mem + kvm->mem_bytes)
			room = kvm->mem_bytes - (size_t)(mem - kvm->mem);
	pthread_mutex_unlock(&contexts_lock);
	return room;
}

long load_file(void *mem, const char *path)
{
	size_t room = room_at(mem), done = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char more;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = done < room ? read(fd, (char *)mem + done, room - done) : read(fd, &more, 1);
		if (n > 0 && done == room) {
			close(fd);
			return -EFBIG;
		}
		if (n > 0)
			done += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	n = n < 0 ? -errno : 0;
	close(fd);
	return n ? n : (long)done;
}

/* ---- exits --------------------------------------------------------------------------------------------------- */

static int port_in(struct kvm_context *kvm, uint16_t port, unsigned size, void *data)
{
	const struct kvm_callbacks *c = kvm->callbacks;

	memset(data, 0xff, size);
	switch (size) {
	case 1: return c->inb ? c->inb(kvm->opaque, port, data) : 0;
	case 2: return c->inw ? c->inw(kvm->opaque, port, data) : 0;
	default: return c->inl ? c->inl(kvm->opaque, port, data) : 0;
	}
}

static int port_out(struct kvm_context *kvm, uint16_t port, unsigned size, const void *data)
{
	const struct kvm_callbacks *c = kvm->callbacks;
	uint32_t value = 0;

	memcpy(&value, data, size);
	switch (size) {
	case 1: return c->outb ? c->outb(kvm->opaque, port, (uint8_t)value) : 0;
	case 2: return c->outw ? c->outw(kvm->opaque, port, (uint16_t)value) : 0;
	default: return c->outl ? c->outl(kvm->opaque, port, value) : 0;
	}
}

static int handle_io(struct kvm_context *kvm, struct kvm_run *run)
{
	char *data = (char *)run + run->io.data_offset;
	unsigned i;
	int r = 0;

	/* All elements are answered even when one says stop: the instruction is complete then. */
	for (i = 0; i < run->io.count; i++, data += run->io.size) {
		int one = run->io.direction == KVM_EXIT_IO_IN ? port_in(kvm, run->io.port, run->io.size, data) :
								port_out(kvm, run->io.port, run->io.size, data);

		r = r ? r : one;
	}
	return r;
}

static int mmio_read(struct kvm_context *kvm, uint64_t addr, unsigned len, uint8_t *data)
{
	const struct kvm_callbacks *c = kvm->callbacks;
	union {
		uint8_t b;
		uint16_t w;
		uint32_t l;
		uint64_t q;
	} value = { .q = ~0ULL };
	unsigned i;
	int r = 0;

	switch (len) {
	case 1: r = c->readb ? c->readb(kvm->opaque, addr, &value.b) : 0; break;
	case 2: r = c->readw ? c->readw(kvm->opaque, addr, &value.w) : 0; break;
	case 4: r = c->readl ? c->readl(kvm->opaque, addr, &value.l) : 0; break;
	case 8: r = c->readq ? c->readq(kvm->opaque, addr, &value.q) : 0; break;
	default:
		for (i = 0; i < len; i++) {
			int one = mmio_read(kvm, addr + i, 1, data + i);

			r = r ? r : one;
		}
		return r;
	}
	memcpy(data, &value, len);
	return r;
}

static int mmio_write(struct kvm_context *kvm, uint64_t addr, unsigned len, const uint8_t *data)
{
	const struct kvm_callbacks *c = kvm->callbacks;
	uint64_t value = 0;
	unsigned i;
	int r = 0;

	memcpy(&value, data, len);
	switch (len) {
	case 1: return c->writeb ? c->writeb(kvm->opaque, addr, (uint8_t)value) : 0;
	case 2: return c->writew ? c->writew(kvm->opaque, addr, (uint16_t)value) : 0;
	case 4: return c->writel ? c->writel(kvm->opaque, addr, (uint32_t)value) : 0;
	case 8: return c->writeq ? c->writeq(kvm->opaque, addr, value) : 0;
	}
	for (i = 0; i < len; i++) {
		int one = mmio_write(kvm, addr + i, 1, data + i);

		r = r ? r : one;
	}
	return r;
}

/* Whether kvm_run() goes on; else *@r is what it returns. */
static bool handle_exit(struct kvm_context *kvm, int vcpu, struct kvm_run *run, int *r)
{
	const struct kvm_callbacks *c = kvm->callbacks;
	bool wanted = true;

	*r = 0;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		*r = handle_io(kvm, run);
		break;
	case KVM_EXIT_MMIO:
		*r = run->mmio.is_write ? mmio_write(kvm, run->mmio.phys_addr, run->mmio.len, run->mmio.data) :
					  mmio_read(kvm, run->mmio.phys_addr, run->mmio.len, run->mmio.data);
		break;
	case KVM_EXIT_HLT:
		wanted = c->halt;
		*r = wanted ? c->halt(kvm->opaque, vcpu) : 0;
		break;
	case KVM_EXIT_DEBUG:
		wanted = c->debug;
		*r = wanted ? c->debug(kvm->opaque, vcpu) : 0;
		break;
	case KVM_EXIT_SHUTDOWN:
		wanted = c->shutdown;
		*r = wanted ? c->shutdown(kvm->opaque, vcpu) : 0;
		break;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		*r = c->io_window ? c->io_window(kvm->opaque) : 0;
		break;
	default:
		wanted = false;
		*r = -EIO;
	}
	return wanted && !*r;
}

int kvm_run(struct kvm_context *kvm, int vcpu)
{
	const struct kvm_callbacks *c = kvm->callbacks;
	struct kvm_run *run;
	int r;

	if (vcpu < 0 || vcpu >= MAX_VCPUS || !kvm->vcpu[vcpu].fd)
		return -EINVAL;
	run = kvm->vcpu[vcpu].run;
	do {
		run->request_interrupt_window = c->try_push_interrupts && c->try_push_interrupts(kvm->opaque);
		r = c->pre_kvm_run ? c->pre_kvm_run(kvm->opaque, vcpu) : 0;
		if (r)
			return r;
		r = result(trine_ioctl(kvm->vcpu[vcpu].fd, KVM_RUN, 0UL));
		if (r < 0 && r != -EINTR)
			return r;
		if (c->post_kvm_run) {
			int stop = c->post_kvm_run(kvm->opaque, vcpu);

			if (stop)
				return stop;
		}
		if (r == -EINTR)
			return r;
	} while (handle_exit(kvm, vcpu, run, &r));
	return r;
}

/* ---- registers ----------------------------------------------------------------------------------------------- */

static int vcpu_ioctl(struct kvm_context *kvm, int vcpu, unsigned long cmd, const void *arg)
{
	if (vcpu < 0 || vcpu >= MAX_VCPUS || !kvm->vcpu[vcpu].fd)
		return -EINVAL;
	return result(trine_ioctl(kvm->vcpu[vcpu].fd, cmd, arg));
}

int kvm_get_regs(struct kvm_context *kvm, int vcpu, struct kvm_regs *regs)
{
	return vcpu_ioctl(kvm, vcpu, KVM_GET_REGS, regs);
}

int kvm_set_regs(struct kvm_context *kvm, int vcpu, const struct kvm_regs *regs)
{
	return vcpu_ioctl(kvm, vcpu, KVM_SET_REGS, regs);
}

int kvm_get_sregs(struct kvm_context *kvm, int vcpu, struct kvm_sregs *sregs)
{
	return vcpu_ioctl(kvm, vcpu, KVM_GET_SREGS, sregs);
}

int kvm_set_sregs(struct kvm_context *kvm, int vcpu, const struct kvm_sregs *sregs)
{
	return vcpu_ioctl(kvm, vcpu, KVM_SET_SREGS, sregs);
}

int kvm_inject_irq(struct kvm_context *kvm, int vcpu, unsigned vector)
{
	struct kvm_interrupt irq = { .irq = vector };

	return vcpu_ioctl(kvm, vcpu, KVM_INTERRUPT, &irq);
}

int kvm_can_inject(struct kvm_context *kvm, int vcpu)
{
	return vcpu >= 0 && vcpu < MAX_VCPUS && kvm->vcpu[vcpu].run &&
	       kvm->vcpu[vcpu].run->ready_for_interrupt_injection;
}

int kvm_guest_debug(struct kvm_context *kvm, int vcpu, const struct kvm_guest_debug *debug)
{
	return vcpu_ioctl(kvm, vcpu, KVM_SET_GUEST_DEBUG, debug);
}

static void show_segment(const char *name, const struct kvm_segment *s)
{
	fprintf(stderr, "%-4s %04x base %016llx limit %08x p %u dpl %u db %u s %u type %x l %u g %u avl %u\n", name,
		s->selector, (unsigned long long)s->base, s->limit, s->present, s->dpl, s->db, s->s, s->type, s->l, s->g,
		s->avl);
}

void kvm_show_regs(struct kvm_context *kvm, int vcpu)
{
	struct kvm_sregs s;
	struct kvm_regs r;
	int error = kvm_get_regs(kvm, vcpu, &r);

	if (!error)
		error = kvm_get_sregs(kvm, vcpu, &s);
	if (error) {
		fprintf(stderr, "vCPU %d: %s\n", vcpu, strerror(-error));
		return;
	}
	fprintf(stderr,
		"rax %016llx rbx %016llx rcx %016llx rdx %016llx\n"
		"rsi %016llx rdi %016llx rsp %016llx rbp %016llx\n"
		"r8  %016llx r9  %016llx r10 %016llx r11 %016llx\n"
		"r12 %016llx r13 %016llx r14 %016llx r15 %016llx\n"
		"rip %016llx rflags %08llx\n",
		r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
		r.r15, r.rip, r.rflags);
	show_segment("cs", &s.cs);
	show_segment("ds", &s.ds);
	show_segment("es", &s.es);
	show_segment("ss", &s.ss);
	show_segment("fs", &s.fs);
	show_segment("gs", &s.gs);
	show_segment("tr", &s.tr);
	show_segment("ldt", &s.ldt);
	fprintf(stderr, "gdt %016llx/%x idt %016llx/%x\ncr0 %llx cr2 %llx cr3 %llx cr4 %llx cr8 %llx efer %llx\n",
		s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit, s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer);
}
