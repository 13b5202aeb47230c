/* Guest memory: the blocks, their KVM slots, and bounded access to them. */
#include "vmm/memory.h"
#include "vmm/machine.h"
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define PAGE 4096ull

int memory_create_ram(struct machine *m, u64 size, struct error *err)
{
	struct memory *mem = &m->memory;
	struct sysinfo info;
	u64 host = 0;
	int e;

	if (!sysinfo(&info))
		host = (u64)info.totalram * info.mem_unit;
	/*
	 * More than the host has could be promised but not kept: the guest would die in the middle
	 * of its work.
	 */
	if (host && size > host + (u64)info.totalswap * info.mem_unit)
		return error_set(err, -ENOMEM, "the host has %llu GiB",
				 (unsigned long long)(host / GiB));
	mem->ram_fd = memfd_create("trine-ram", MFD_CLOEXEC);
	if (mem->ram_fd < 0)
		return error_set(err, -errno, "memfd_create: %s", strerror(errno));
	if (ftruncate(mem->ram_fd, size) < 0) {
		e = errno;
		close(mem->ram_fd);
		mem->ram_fd = -1;
		return error_set(err, -e, "%llu MiB of guest memory: %s",
				 (unsigned long long)(size / MiB), strerror(e));
	}
	mem->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mem->ram_fd,
			0);
	if (mem->ram == MAP_FAILED) {
		e = errno;
		mem->ram = NULL;
		close(mem->ram_fd);
		mem->ram_fd = -1;
		return error_set(err, -e, "%llu MiB of guest memory: %s",
				 (unsigned long long)(size / MiB), strerror(e));
	}
	mem->ram_size = size;
	/* Refused by some kernels for shared memory; it is only a matter of speed. */
	(void)madvise(mem->ram, size, MADV_HUGEPAGE);
	(void)madvise(mem->ram, size, MADV_DONTDUMP);
	return 0;
}

int memory_add(struct machine *m, const char *name, enum memory_kind kind, u64 gpa, u64 size,
	       void *host, struct error *err)
{
	struct memory *mem = &m->memory;
	struct memory_block *b;
	unsigned i;
	int r;

	if (!size || gpa % PAGE || size % PAGE || gpa + size < gpa)
		return error_set(err, -EINVAL, "memory %s at 0x%llx, %llu bytes: not whole pages",
				 name, (unsigned long long)gpa, (unsigned long long)size);
	for (i = 0; i < mem->count; i++) {
		b = &mem->blocks[i];
		if (gpa < b->gpa + b->size && b->gpa < gpa + size)
			return error_set(err, -EINVAL, "memory %s at 0x%llx overlaps %s", name,
					 (unsigned long long)gpa, b->name);
	}
	if (mem->count == MEMORY_BLOCKS_MAX)
		return error_set(err, -ENOSPC, "memory %s: too many blocks", name);
	b = &mem->blocks[mem->count];
	*b = (struct memory_block){
		.name = name,
		.kind = kind,
		.gpa = gpa,
		.size = size,
		.host = host,
		.slot = mem->count,
		.alias = true,
	};
	if (m->accel) {
		struct kvm_userspace_memory_region region = {
			.slot = b->slot,
			.flags = kind == MEMORY_ROM ? KVM_MEM_READONLY : 0,
			.guest_phys_addr = gpa,
			.memory_size = size,
			.userspace_addr = (uintptr_t)host,
		};

		r = accel_ioctl(m, m->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
		if (r < 0)
			return error_set(err, r, "memory %s at 0x%llx: %s", name,
					 (unsigned long long)gpa, strerror(-r));
	}
	mem->count++;
	return 0;
}

void *memory_add_new(struct machine *m, const char *name, enum memory_kind kind, u64 gpa, u64 size,
		     struct error *err)
{
	void *host;

	host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (host == MAP_FAILED) {
		error_set(err, -errno, "memory %s: %s", name, strerror(errno));
		return NULL;
	}
	if (memory_add(m, name, kind, gpa, size, host, err) < 0) {
		munmap(host, size);
		return NULL;
	}
	m->memory.blocks[m->memory.count - 1].alias = false;
	return host;
}

static const struct memory_block *block_at(const struct machine *m, u64 gpa)
{
	const struct memory *mem = &m->memory;
	unsigned i;

	for (i = 0; i < mem->count; i++)
		if (gpa - mem->blocks[i].gpa < mem->blocks[i].size)
			return &mem->blocks[i];
	return NULL;
}

const void *memory_ptr(const struct machine *m, u64 gpa, u64 len)
{
	const struct memory_block *b = block_at(m, gpa);

	if (!b || len > b->size - (gpa - b->gpa))
		return NULL;
	return b->host + (gpa - b->gpa);
}

void *memory_ptr_write(struct machine *m, u64 gpa, u64 len)
{
	const struct memory_block *b = block_at(m, gpa);

	if (!b || b->kind != MEMORY_RAM || len > b->size - (gpa - b->gpa))
		return NULL;
	return b->host + (gpa - b->gpa);
}

void memory_wrote(struct machine *m, u64 gpa, u64 len)
{
	/*
	 * The accelerator's dirty log sees the guest's writes; the monitor's will be recorded here.
	 */
	(void)m;
	(void)gpa;
	(void)len;
}

int memory_read(const struct machine *m, u64 gpa, void *buf, u64 len)
{
	const struct memory_block *b;
	u8 *to = buf;
	u64 n;

	while (len) {
		b = block_at(m, gpa);
		if (!b) {
			memset(to, 0, len);
			return -EFAULT;
		}
		n = MIN(len, b->size - (gpa - b->gpa));
		memcpy(to, b->host + (gpa - b->gpa), n);
		to += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int memory_write(struct machine *m, u64 gpa, const void *buf, u64 len)
{
	const struct memory_block *b;
	const u8 *from = buf;
	u64 n;

	while (len) {
		b = block_at(m, gpa);
		if (!b || b->kind != MEMORY_RAM)
			return -EFAULT;
		n = MIN(len, b->size - (gpa - b->gpa));
		memcpy(b->host + (gpa - b->gpa), from, n);
		memory_wrote(m, gpa, n);
		from += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

u64 memory_above_4g(const struct machine *m)
{
	const struct memory *mem = &m->memory;
	u64 sum = 0;
	unsigned i;

	for (i = 0; i < mem->count; i++)
		if (mem->blocks[i].kind == MEMORY_RAM && mem->blocks[i].gpa >= 4 * GiB)
			sum += mem->blocks[i].size;
	return sum;
}

u64 memory_below_4g(const struct machine *m)
{
	return m->memory.ram_size - memory_above_4g(m);
}

void memory_destroy(struct machine *m)
{
	struct memory *mem = &m->memory;
	unsigned i;

	for (i = 0; i < mem->count; i++)
		if (!mem->blocks[i].alias)
			munmap(mem->blocks[i].host, mem->blocks[i].size);
	mem->count = 0;
	if (mem->ram) {
		munmap(mem->ram, mem->ram_size);
		close(mem->ram_fd);
		mem->ram = NULL;
	}
}
