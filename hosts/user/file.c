/* See file.h. */
#include "hosts/user/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "hosts/user/signals.h"
#include "hosts/user/sys.h"

#define CHUNK	  1024
#define NR_CHUNKS 1024

/* One for each object. Never given back to malloc, so that a reader may look at one whose object has just gone. */
struct open_object {
	long users;	/* (a) descriptors and calls under way; 0: on the free list */
	struct host_file *file;
	ino_t inode;
	u32 pid;	/* the process it belongs to */
	struct open_object *next_free, *next;
};

static struct open_object **chunks[NR_CHUNKS]; /* (a) by descriptor */
static struct open_object *all, *free_list;    /* (l) */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* (l) */

static void unlock_in_child(void)
{
	pthread_mutex_init(&lock, NULL);
}

static void watch_fork(void)
{
	pthread_atfork(NULL, NULL, unlock_in_child);
}

/* The table's place for @fd; NULL when there is none yet and @create is false, or no memory. */
static struct open_object **place(int fd, bool create)
{
	struct open_object **chunk, **expected = NULL;

	if (fd < 0 || fd >= CHUNK * NR_CHUNKS)
		return NULL;
	chunk = __atomic_load_n(&chunks[fd / CHUNK], __ATOMIC_ACQUIRE);
	if (unlikely(!chunk && create)) {
		chunk = calloc(CHUNK, sizeof(*chunk));
		if (!chunk)
			return NULL;
		if (!__atomic_compare_exchange_n(&chunks[fd / CHUNK], &expected, chunk, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_ACQUIRE)) {
			free(chunk);
			chunk = expected;
		}
	}
	return chunk ? &chunk[fd % CHUNK] : NULL;
}

static void put(struct open_object *o)
{
	struct host_file *file = o->file;
	bool mine = o->pid == host_client_pid();

	if (__atomic_sub_fetch(&o->users, 1, __ATOMIC_ACQ_REL))
		return;
	pthread_mutex_lock(&lock);
	o->inode = 0;
	o->next_free = free_list;
	free_list = o;
	pthread_mutex_unlock(&lock);
	/* In a forked child the object is the parent's: its threads and descriptors are not here. */
	if (mine && file->ops->release)
		file->ops->release(file);
}

/* Between vfork() and exec() the table is the parent's, the descriptors are not. */
static bool table_is_ours(void)
{
	return (u32)syscall(SYS_getpid) == host_client_pid();
}

static bool try_get(struct open_object *o)
{
	long users = __atomic_load_n(&o->users, __ATOMIC_RELAXED);

	while (users > 0)
		if (__atomic_compare_exchange_n(&o->users, &users, users + 1, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return true;
	return false;
}

/* A duplicate that nobody told us of. */
static struct open_object *find_by_inode(int fd)
{
	struct open_object *o, *before, **p;
	struct stat st;

	if (!__atomic_load_n(&all, __ATOMIC_ACQUIRE) || host_fd_hidden(fd) || fstat(fd, &st) || !st.st_ino)
		return NULL;
	pthread_mutex_lock(&lock);
	for (o = all; o; o = o->next)
		if (o->inode == st.st_ino && try_get(o))
			break;
	pthread_mutex_unlock(&lock);
	p = o ? place(fd, true) : NULL;
	if (p) {
		/* One reference for the table, one for the caller: another thread may change the place again at once. */
		__atomic_fetch_add(&o->users, 1, __ATOMIC_RELAXED);
		before = __atomic_exchange_n(p, o, __ATOMIC_ACQ_REL);
		if (before)
			put(before);
	}
	return o;
}

static struct open_object *get(int fd, bool search)
{
	struct open_object **p = place(fd, false), *o;

	while (p && (o = __atomic_load_n(p, __ATOMIC_ACQUIRE))) {
		if (!try_get(o))
			continue;
		if (likely(__atomic_load_n(p, __ATOMIC_ACQUIRE) == o))
			return o;
		put(o);
	}
	return search ? find_by_inode(fd) : NULL;
}

bool host_file_known(int fd)
{
	struct open_object **p = place(fd, false);

	return p && __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void set_place(struct open_object **p, struct open_object *o)
{
	struct open_object *before = __atomic_exchange_n(p, o, __ATOMIC_ACQ_REL);

	if (before)
		put(before); /* its descriptor was closed behind our back */
}

/* A new open file, with its own offset, of the memory behind the object. */
static int open_backing(struct host_file *file)
{
	struct host_shared *shared = file->ops->backing ? file->ops->backing(file) : NULL;
	char path[64];
	int fd;

	if (!shared)
		return memfd_create(file->ops->name, MFD_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", shared->fd);
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, (file->ops->mmap ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
	if (fd < 0 && errno != EMFILE && errno != ENFILE)
		fd = sys_fcntl(shared->fd, F_DUPFD_CLOEXEC, 0);
	return fd;
}

int host_file_install(struct host_file *file)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int error, fd = open_backing(file);
	struct open_object **p, *o;
	struct stat st;

	pthread_once(&once, watch_fork);
	if (fd < 0)
		return errno == EMFILE || errno == ENFILE ? -errno : -ENOMEM;
	error = -ENOMEM;
	p = place(fd, true);
	if (!p || fstat(fd, &st))
		goto close_fd;
	pthread_mutex_lock(&lock);
	o = free_list;
	if (o) {
		free_list = o->next_free;
	} else {
		o = calloc(1, sizeof(*o));
		if (!o) {
			pthread_mutex_unlock(&lock);
			goto close_fd;
		}
		o->next = all;
		__atomic_store_n(&all, o, __ATOMIC_RELEASE);
	}
	o->file = file;
	o->inode = st.st_ino;
	o->pid = host_client_pid();
	__atomic_store_n(&o->users, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
	set_place(p, o);
	return fd;

close_fd:
	sys_close(fd);
	return error;
}

long host_file_ioctl(int fd, unsigned cmd, u64 arg)
{
	struct open_object *o = get(fd, true);
	long r;

	if (!o)
		return -EBADF;
	r = o->file->ops->ioctl(o->file, cmd, arg);
	put(o);
	host_signal_deliver();
	return r;
}

/*
 * The whole range is mapped from the first page's memory, then pages that other memory backs are laid over it. What nothing
 * backs lies beyond the end of the first: touching it is SIGBUS, as with Linux.
 */
static void *map_pages(struct host_file *file, void *addr, size_t len, int prot, int flags, u64 pgoff, int *error)
{
	size_t pages = (len + HOST_PAGE_SIZE - 1) / HOST_PAGE_SIZE, i, run;
	struct host_shared *base = NULL;
	u64 index = 0;
	char *p;

	if (!file->ops->shared_from || pgoff + pages <= file->ops->shared_from ||
	    ((flags & MAP_TYPE) != MAP_PRIVATE && !(prot & PROT_EXEC)))
		base = file->ops->mmap(file, pgoff, &index);
	if (!base) {
		*error = -EINVAL;
		return MAP_FAILED;
	}
	p = sys_mmap(addr, len, prot, flags, base->fd, (off_t)(index * HOST_PAGE_SIZE));
	if (p == MAP_FAILED) {
		*error = -errno;
		return MAP_FAILED;
	}
	for (i = 1; i < pages; i += run) {
		struct host_shared *shared = file->ops->mmap(file, pgoff + i, &index);
		u64 first = index, next = index;

		run = 1;
		if (!shared)
			continue;
		while (i + run < pages && file->ops->mmap(file, pgoff + i + run, &next) == shared && next == first + run)
			run++;
		if (sys_mmap(p + i * HOST_PAGE_SIZE, run * HOST_PAGE_SIZE, prot, flags | MAP_FIXED, shared->fd,
			     (off_t)(first * HOST_PAGE_SIZE)) == MAP_FAILED) {
			*error = -errno;
			munmap(p, len);
			return MAP_FAILED;
		}
	}
	*error = 0;
	return p;
}

void *host_file_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset, int *error)
{
	struct open_object *o = get(fd, true);
	void *p = MAP_FAILED;

	*error = -EBADF;
	if (!o)
		return p;
	*error = -EINVAL;
	if (!o->file->ops->mmap)
		*error = -ENODEV;
	else if (len && !(offset & (off_t)(HOST_PAGE_SIZE - 1)) && offset >= 0)
		p = map_pages(o->file, addr, len, prot, flags, (u64)offset / HOST_PAGE_SIZE, error);
	put(o);
	return p;
}

long host_file_read(int fd, void *buf, size_t len, u64 offset)
{
	struct open_object *o = get(fd, true);
	long r = -EINVAL;

	if (!o)
		return -EBADF;
	if (o->file->ops->read)
		r = o->file->ops->read(o->file, (u64)(uintptr_t)buf, len, offset);
	put(o);
	return r;
}

void host_file_forget(int fd)
{
	struct open_object **p = place(fd, false), *o;

	if (!p || !__atomic_load_n(p, __ATOMIC_ACQUIRE) || !table_is_ours())
		return;
	o = __atomic_exchange_n(p, NULL, __ATOMIC_ACQ_REL);
	if (o)
		put(o);
}

int host_file_close(int fd)
{
	struct open_object *o = get(fd, true);

	if (!o)
		return -EBADF;
	/* The number first: once it is closed another thread may be given it. */
	host_file_forget(fd);
	sys_close(fd);
	put(o);
	return 0;
}

void host_file_dup(int old, int new)
{
	struct open_object *o, **p;

	if (!table_is_ours())
		return;
	o = get(old, false);
	if (!o)
		return;
	p = place(new, true);
	if (p)
		set_place(p, o);
	else
		put(o);
}
