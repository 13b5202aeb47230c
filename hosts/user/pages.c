/*
 * What engines that run guests on the hardware ask of their host, so far as it makes sense in a process: here its only users are tests. A
 * "physical" address is the virtual one.
 */
#include "hosts/user/pages.h"

#include <stdlib.h>

#include "hosts/user/sys.h"
#include "hosts/user/vectors.h"

/* ---- pages for tables: the owner's word follows the page ----------------------------------------------------- */

void *host_page_alloc(void)
{
	HOST_KEEP_VECTORS;
	void *page = host_alloc_fails() ? NULL : aligned_alloc(HOST_PAGE_SIZE, 2 * HOST_PAGE_SIZE);

	if (page)
		memset(page, 0, HOST_PAGE_SIZE);
	return page;
}

void *host_page_alloc_low(void)
{
	return host_page_alloc();
}

void host_page_free(void *page)
{
	HOST_KEEP_VECTORS;

	free(page);
}

void *host_pages_alloc(unsigned nr)
{
	HOST_KEEP_VECTORS;
	void *pages = host_alloc_fails() ? NULL : aligned_alloc(HOST_PAGE_SIZE, nr * HOST_PAGE_SIZE);

	if (pages)
		memset(pages, 0, nr * HOST_PAGE_SIZE);
	return pages;
}

void host_pages_free(void *pages, unsigned nr)
{
	HOST_KEEP_VECTORS;

	free(pages);
}

u64 host_page_phys(void *page)
{
	return (uintptr_t)page;
}

void *host_page_at(u64 phys)
{
	return (void *)(uintptr_t)phys;
}

u64 *host_page_private(void *page)
{
	return (u64 *)((u8 *)page + HOST_PAGE_SIZE);
}

/* ---- locks --------------------------------------------------------------------------------------------------- */

void host_rwlock_init(struct host_rwlock *l)
{
	pthread_rwlock_init(&l->lock, NULL);
}

void host_rwlock_destroy(struct host_rwlock *l)
{
	pthread_rwlock_destroy(&l->lock);
}

void host_read_lock(struct host_rwlock *l)
{
	pthread_rwlock_rdlock(&l->lock);
}

void host_read_unlock(struct host_rwlock *l)
{
	pthread_rwlock_unlock(&l->lock);
}

void host_write_lock(struct host_rwlock *l)
{
	pthread_rwlock_wrlock(&l->lock);
}

void host_write_unlock(struct host_rwlock *l)
{
	pthread_rwlock_unlock(&l->lock);
}

/* ---- the client's pages -------------------------------------------------------------------------------------- */

/* A write that changes nothing, seen by the host as one. */
static bool can_write(u64 hva)
{
	u8 old = 0;

	return host_client_cmpxchg(hva, &old, &old, 1) >= 0;
}

int host_copy_from_client_nosleep(void *dst, u64 src, size_t len)
{
	return host_copy_from_client(dst, src, len);
}

int host_client_page_get(u64 hva, bool write, struct host_client_page *page)
{
	u8 byte;

	hva &= ~(u64)(HOST_PAGE_SIZE - 1);
	if (host_copy_from_client(&byte, hva, 1))
		return -EFAULT;
	*page = (struct host_client_page){ .phys = hva, .writable = can_write(hva), .memory = true };
	return write && !page->writable ? -EFAULT : 0;
}

void host_client_page_put(struct host_client_page *page, bool dirty)
{
}

unsigned host_client_page_shift(u64 hva)
{
	return HOST_PAGE_SHIFT;
}

/* ---- changes of the address space ---------------------------------------------------------------------------- */

static pthread_mutex_t change = PTHREAD_MUTEX_INITIALIZER; /* one after the other; also the list of watches */
static struct host_mm_watch *watches;

int host_mm_watch_start(struct host_mm_watch *w, const struct host_mm_watch_ops *ops)
{
	*w = (struct host_mm_watch){ .ops = ops, .pid = host_client_pid() };
	pthread_mutex_init(&w->mutex, NULL);
	pthread_mutex_lock(&change);
	w->next = watches;
	watches = w;
	pthread_mutex_unlock(&change);
	return 0;
}

void host_mm_watch_stop(struct host_mm_watch *w)
{
	struct host_mm_watch **at = &watches;

	pthread_mutex_lock(&change);
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	pthread_mutex_unlock(&change);
	pthread_mutex_destroy(&w->mutex);
}

u64 host_mm_watch_seq(struct host_mm_watch *w)
{
	u64 seq;

	pthread_mutex_lock(&w->mutex);
	seq = w->seq;
	pthread_mutex_unlock(&w->mutex);
	return seq;
}

bool host_mm_watch_retry(struct host_mm_watch *w, u64 seq, u64 hva)
{
	bool retry;

	pthread_mutex_lock(&w->mutex);
	retry = w->seq != seq || (hva >= w->start && hva < w->end);
	pthread_mutex_unlock(&w->mutex);
	return retry;
}

bool host_mm_watch_mine(struct host_mm_watch *w)
{
	return w->pid == host_client_pid();
}

static void set_change(u64 start, u64 end, bool over)
{
	for (struct host_mm_watch *w = watches; w; w = w->next) {
		pthread_mutex_lock(&w->mutex);
		w->start = start;
		w->end = end;
		w->seq += over;
		pthread_mutex_unlock(&w->mutex);
	}
}

void host_mm_change_begin(u64 start, u64 end)
{
	pthread_mutex_lock(&change);
	set_change(start, end, false);
	for (struct host_mm_watch *w = watches; w; w = w->next)
		w->ops->invalidate(w, start, end);
}

void host_mm_change_end(void)
{
	set_change(0, 0, true);
	pthread_mutex_unlock(&change);
}

bool host_mm_age(u64 start, u64 end, bool clear)
{
	bool used = false;

	pthread_mutex_lock(&change);
	for (struct host_mm_watch *w = watches; w; w = w->next)
		used |= w->ops->age(w, start, end, clear);
	pthread_mutex_unlock(&change);
	return used;
}

void host_mm_gone(void)
{
	pthread_mutex_lock(&change);
	for (struct host_mm_watch *w = watches; w; w = w->next)
		w->ops->gone(w);
	pthread_mutex_unlock(&change);
}

/* ---- the shrinker is called by nobody but tests -------------------------------------------------------------- */

int host_shrinker_start(struct host_shrinker *s, const char *name, unsigned long (*count)(struct host_shrinker *s),
			unsigned long (*scan)(struct host_shrinker *s, unsigned long nr))
{
	*s = (struct host_shrinker){ .count = count, .scan = scan };
	return 0;
}

void host_shrinker_stop(struct host_shrinker *s)
{
}

/* ---- the processor ------------------------------------------------------------------------------------------- */

void host_branch_barrier(void)
{
	/* Translated code shares the process, and nothing else of the host's is in it */
}
