/*
 * The types behind hosts/host.h as the kernel has them, for tests/layers: no libc, nothing but the compiler's own
 * headers and the kernel's ABI. The structures are only as large as the kernel's could be; nothing runs.
 */
#ifndef HOST_TYPES_H
#define HOST_TYPES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <asm/errno.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;

/* What <stdint.h> would give; the kernel has these names as well. */
typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef unsigned long uintptr_t;
typedef unsigned long uint64_t;

#define static_assert _Static_assert

struct host_mutex {
	unsigned long words[4];
};

struct host_spinlock {
	unsigned long word;
};

struct host_srcu {
	unsigned long words[64];
};

struct host_timer {
	void (*fn)(struct host_timer *timer);
	u64 deadline_ns;
	unsigned long words[8];
};

struct host_wait {
	unsigned long words[4];
};

struct host_shared {
	void *addr;
	size_t size;
};

struct host_file;
struct host_eventfd;

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t size);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);

#endif
