/* Memory, all of it charged to the client's memory cgroup. */
#include "hosts/kernel/linux.h"

#include <linux/log2.h>
#include <linux/vmalloc.h>

/* Where a power of two is asked for, the allocator aligns to it; of the others some caches have odd sizes. */
#define ODD_SIZES_END 192

void *host_zalloc(size_t size)
{
	if (host_alloc_fails())
		return NULL;
	size = max_t(size_t, size, 16);
	if (size <= ODD_SIZES_END)
		size = roundup_pow_of_two(size);
	return kvzalloc(size, GFP_KERNEL_ACCOUNT);
}

void host_free(void *ptr)
{
	kvfree(ptr);
}

void *host_zalloc_pages(size_t size)
{
	if (!size || PAGE_ALIGN(size) < size || host_alloc_fails())
		return NULL;
	/* A single page is never from vmalloc: host_page_phys() */
	return kvzalloc(PAGE_ALIGN(size), GFP_KERNEL_ACCOUNT);
}

void host_free_pages(void *ptr, size_t size)
{
	kvfree(ptr);
}

/* From vmalloc whatever the size: its pages have reference counts of their own, which a client's mapping needs. */
int host_shared_alloc(struct host_shared *shared, size_t size)
{
	shared->addr = host_alloc_fails() ? NULL : __vmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!shared->addr)
		return -ENOMEM;
	shared->size = size;
	return 0;
}

void host_shared_free(struct host_shared *shared)
{
	vfree(shared->addr);
	shared->addr = NULL;
	shared->size = 0;
}

void *host_page_alloc(void)
{
	return host_alloc_fails() ? NULL : (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
}

void *host_page_alloc_low(void)
{
	return host_alloc_fails() ? NULL : (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT | GFP_DMA32);
}

void host_page_free(void *page)
{
	free_page((unsigned long)page);
}

void *host_pages_alloc(unsigned nr)
{
	return host_alloc_fails() ? NULL : alloc_pages_exact(nr * PAGE_SIZE, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
}

void host_pages_free(void *pages, unsigned nr)
{
	free_pages_exact(pages, nr * PAGE_SIZE);
}

u64 *host_page_private(void *page)
{
	return (u64 *)&virt_to_page(page)->private;
}

u64 host_page_phys(void *page)
{
	return __pa(page);
}

void *host_page_at(u64 phys)
{
	return __va(phys);
}
