/*
 * HOST_KEEP_VECTORS in a function keeps x87 and vector registers over what it calls of the C library; see general.h.
 *
 *	void host_free(void *ptr)
 *	{
 *		HOST_KEEP_VECTORS;
 *
 *		free(ptr);
 *	}
 */
#ifndef HOSTS_USER_VECTORS_H
#define HOSTS_USER_VECTORS_H

#include "hosts/host.h"

/* x87, SSE, AVX, AVX-512: SDM 1 13.1. Their standard format ends below 2.7 KiB. */
#define HOST_VECTOR_STATE 0xe7

struct host_vectors {
	u8 image[3072];
} __attribute__((aligned(64)));

static inline void host_vectors_save(struct host_vectors *v)
{
	u64 *header = (u64 *)(v->image + 512);

	/* XSAVE writes one word of its header, XRSTOR wants the rest zero. */
	for (unsigned i = 0; i < 8; i++)
		header[i] = 0;
	__asm__ volatile("xsave64 %0" : "+m"(*v) : "a"(HOST_VECTOR_STATE), "d"(0));
}

static inline void host_vectors_load(struct host_vectors *v)
{
	__asm__ volatile("xrstor64 %0" : : "m"(*v), "a"(HOST_VECTOR_STATE), "d"(0));
}

#define HOST_KEEP_VECTORS \
	struct host_vectors host_kept_vectors __attribute__((cleanup(host_vectors_load))); \
	host_vectors_save(&host_kept_vectors)

#endif
