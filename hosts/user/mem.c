/* Memory for core, and memory that is shared with the client through a memfd. */
#include <stdlib.h>

#include "hosts/user/sys.h"
#include "hosts/user/vectors.h"

#define FD_BITS 65536

static u64 hidden[FD_BITS / 64]; /* (a) our own descriptors */

void *host_zalloc(size_t size)
{
	HOST_KEEP_VECTORS;

	return host_alloc_fails() ? NULL : calloc(1, size ? size : 1);
}

void host_free(void *ptr)
{
	HOST_KEEP_VECTORS;

	free(ptr);
}

static size_t whole_pages(size_t size)
{
	return (size + HOST_PAGE_SIZE - 1) & ~(HOST_PAGE_SIZE - 1);
}

void *host_zalloc_pages(size_t size)
{
	void *p;

	if (!size || whole_pages(size) < size || host_alloc_fails())
		return NULL;
	p = sys_mmap(NULL, whole_pages(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void host_free_pages(void *ptr, size_t size)
{
	if (ptr)
		munmap(ptr, whole_pages(size));
}

int host_fd_hide(int fd)
{
	int high = sys_fcntl(fd, F_DUPFD_CLOEXEC, SYS_FD_HIGH);

	if (high >= 0) {
		sys_close(fd);
		fd = high;
	}
	if (fd < FD_BITS)
		__atomic_fetch_or(&hidden[fd / 64], 1ULL << (fd % 64), __ATOMIC_SEQ_CST);
	return fd;
}

bool host_fd_hidden(int fd)
{
	return fd >= 0 && fd < FD_BITS &&
	       (__atomic_load_n(&hidden[fd / 64], __ATOMIC_RELAXED) & (1ULL << (fd % 64)));
}

void host_fd_close_hidden(int fd)
{
	if (fd < FD_BITS)
		__atomic_fetch_and(&hidden[fd / 64], ~(1ULL << (fd % 64)), __ATOMIC_SEQ_CST);
	sys_close(fd);
}

int host_shared_alloc(struct host_shared *shared, size_t size)
{
	int fd;

	if (host_alloc_fails())
		return -ENOMEM;
	fd = memfd_create("trine", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -ENOMEM;
	/* Sealed: a client that shrank it would make core fault. */
	if (ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)) {
		sys_close(fd);
		return -ENOMEM;
	}
	size = whole_pages(size);
	shared->addr = sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared->addr == MAP_FAILED) {
		shared->addr = NULL;
		sys_close(fd);
		return -ENOMEM;
	}
	shared->size = size;
	shared->fd = host_fd_hide(fd);
	return 0;
}

void host_shared_free(struct host_shared *shared)
{
	if (!shared->addr)
		return;
	munmap(shared->addr, shared->size);
	host_fd_close_hidden(shared->fd);
	memset(shared, 0, sizeof(*shared));
}
