/* Where kernels after 6.1 differ in what hosts/kernel and modules use of them. */
#ifndef HOSTS_KERNEL_COMPAT_H
#define HOSTS_KERNEL_COMPAT_H

#include <linux/eventfd.h>
#include <linux/mm.h>
#include <linux/shrinker.h>
#include <linux/version.h>

/* 6.3: flags of a mapping change through functions only. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}
#endif

/* 6.8: eventfds count one at a time. */
static inline void compat_eventfd_signal(struct eventfd_ctx *ctx, u64 n)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
	eventfd_signal(ctx, n);
#else
	while (n--)
		eventfd_signal(ctx);
#endif
}

/* 6.10: a mapping of pages without struct page is walked by follow_pfnmap_start(). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define COMPAT_FOLLOW_PFNMAP
#endif

/* 6.7: shrinkers are the kernel's to allocate. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
#define COMPAT_SHRINKER_ALLOC
#endif

#endif
