/*
 * Runs the guest of bench/speed through the KVM API, straight in long mode: the engine's speed with no monitor around
 * it. Any /dev/kvm serves; for lite it is the preload shim's:
 *
 *	LD_PRELOAD=$PWD/build/libtrine-preload.so build/bench/speed-kvm build/bench/speed.elf 1000
 *
 * prints "nanoseconds 123 checksum 0123456789abcdef", the time being that between the guest's letters B and E.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMORY	   (8UL << 20)
#define TABLES	   0x1000UL /* three pages of page tables, below the program */
#define SERIAL	   0x3f8
#define DEBUG_EXIT 0xf4

static int fail(const char *what)
{
	fprintf(stderr, "speed-kvm: %s: %s\n", what, errno ? strerror(errno) : "not what is wanted");
	return -1;
}

/* Puts the program's segments where they belong. Returns its entry, 0 when it is no such program. */
static uint64_t load(const char *path, uint8_t *memory)
{
	static uint8_t file[1 << 20];
	const Elf64_Ehdr *elf = (const Elf64_Ehdr *)file;
	const Elf64_Phdr *segment;
	ssize_t size;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	size = read(fd, file, sizeof(file));
	close(fd);
	errno = 0;
	if (size < (ssize_t)sizeof(*elf) || memcmp(elf->e_ident, ELFMAG, SELFMAG) || elf->e_phoff > (size_t)size ||
	    elf->e_phnum > (size - elf->e_phoff) / sizeof(*segment))
		return 0;
	segment = (const Elf64_Phdr *)(file + elf->e_phoff);
	for (int i = 0; i < elf->e_phnum; i++, segment++) {
		if (segment->p_type != PT_LOAD)
			continue;
		if (segment->p_paddr > MEMORY || segment->p_memsz > MEMORY - segment->p_paddr ||
		    segment->p_offset > (size_t)size || segment->p_filesz > size - segment->p_offset ||
		    segment->p_filesz > segment->p_memsz)
			return 0;
		memcpy(memory + segment->p_paddr, file + segment->p_offset, segment->p_filesz);
	}
	return elf->e_entry;
}

static void build_tables(uint8_t *memory)
{
	uint64_t *map = (uint64_t *)(memory + TABLES);

	map[0] = (TABLES + 0x1000) | 3;
	map[512] = (TABLES + 0x2000) | 3;
	for (int i = 0; i < 512; i++)
		map[1024 + i] = ((uint64_t)i << 21) | 0x83;
}

/* Long mode, flat segments, ring 0. */
static int set_up(int kvm, int vcpu, uint64_t entry, uint64_t rounds)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = {.head.nent = 256};
	struct kvm_segment data = {.limit = ~0U, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
	struct kvm_regs regs = {.rip = entry, .rdi = rounds, .rflags = 2};
	struct kvm_sregs sregs;

	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) || ioctl(vcpu, KVM_SET_CPUID2, &cpuid))
		return fail("CPUID");
	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return fail("KVM_GET_SREGS");
	sregs.cr3 = TABLES;
	sregs.cr4 |= 0x20;
	sregs.cr0 |= 0x80000001;
	sregs.efer |= 0x500;
	sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
	sregs.cs = data;
	sregs.cs.selector = 8;
	sregs.cs.type = 11;
	sregs.cs.db = 0;
	sregs.cs.l = 1;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		return fail("setting registers");
	return 0;
}

/* Until the guest asks for its end. */
static int run(int vcpu, struct kvm_run *state, uint64_t *nanoseconds, char *checksum, size_t size)
{
	struct timespec begin = {0}, end = {0};
	size_t length = 0;

	for (;;) {
		const uint8_t *byte;

		errno = 0;
		if (ioctl(vcpu, KVM_RUN, 0) && errno != EINTR)
			return fail("KVM_RUN");
		if (errno == EINTR)
			continue;
		byte = (const uint8_t *)state + state->io.data_offset;
		if (state->exit_reason != KVM_EXIT_IO || state->io.direction != KVM_EXIT_IO_OUT) {
			fprintf(stderr, "speed-kvm: exit reason %u\n", state->exit_reason);
			return -1;
		}
		if (state->io.port == DEBUG_EXIT)
			break;
		if (state->io.port != SERIAL)
			continue;
		if (*byte == 'B')
			clock_gettime(CLOCK_MONOTONIC, &begin);
		else if (*byte == 'E')
			clock_gettime(CLOCK_MONOTONIC, &end);
		else if (*byte != '\n' && length + 1 < size)
			checksum[length++] = *byte;
	}
	checksum[length] = 0;
	*nanoseconds = (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec;
	return 0;
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region region = {.memory_size = MEMORY};
	int kvm = -1, vm = -1, vcpu = -1, size, status = 1;
	struct kvm_run *state;
	uint64_t entry, nanoseconds = 0;
	char checksum[32];
	uint8_t *memory;

	if (argc != 3) {
		fprintf(stderr, "usage: %s GUEST.ELF ROUNDS\n", argv[0]);
		return 2;
	}
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		fail("memory");
		return 1;
	}
	entry = load(argv[1], memory);
	if (!entry) {
		fail(argv[1]);
		return 1;
	}
	build_tables(memory);
	region.userspace_addr = (uintptr_t)memory;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0) {
		fail("/dev/kvm");
		return 1;
	}
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm < 0 || size < (int)sizeof(*state) || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region)) {
		fail("creating the VM");
		goto out;
	}
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0) {
		fail("KVM_CREATE_VCPU");
		goto out;
	}
	state = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (state == MAP_FAILED) {
		fail("mapping the vCPU");
		goto out;
	}
	if (!set_up(kvm, vcpu, entry, strtoull(argv[2], NULL, 10)) &&
	    !run(vcpu, state, &nanoseconds, checksum, sizeof(checksum))) {
		printf("nanoseconds %" PRIu64 " checksum %s\n", nanoseconds, checksum);
		status = 0;
	}
	munmap(state, size);
out:
	if (vcpu >= 0)
		close(vcpu);
	if (vm >= 0)
		close(vm);
	close(kvm);
	return status;
}
