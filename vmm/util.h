/*
 * What every file of the monitor uses: integer types, container_of, a list, and errors with a text.
 *
 *	static int disk_open(struct disk *d, const char *path, struct error *err)
 *	{
 *		d->fd = open(path, O_RDWR | O_CLOEXEC);
 *		if (d->fd < 0)
 *			return error_set(err, -errno, "%s: %s", path, strerror(errno));
 *		return 0;
 *	}
 *
 * A function that can fail for a reason the user should read takes a struct error last, returns a
 * negative errno and leaves one line in it, which says what was wrong with the value, without
 * "trine: " and without a newline. main() prints it.
 */
#ifndef VMM_UTIL_H
#define VMM_UTIL_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)			((a) < (b) ? (a) : (b))
#define MAX(a, b)			((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, a)			(((x) + ((a)-1)) & ~((__typeof__(x))(a)-1))
#define ALIGN_DOWN(x, a)		((x) & ~((__typeof__(x))(a)-1))
#define KiB				(1ull << 10)
#define MiB				(1ull << 20)
#define GiB				(1ull << 30)
#define NS_PER_SEC			1000000000ll

/* Little-endian loads and stores at any alignment; the host is x86-64, so these are plain moves. */
static inline u16 get_le16(const void *p)
{
	u16 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline u32 get_le32(const void *p)
{
	u32 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline u64 get_le64(const void *p)
{
	u64 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void put_le16(void *p, u16 v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void put_le32(void *p, u32 v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void put_le64(void *p, u64 v)
{
	memcpy(p, &v, sizeof(v));
}

/* Big-endian ones, as in the headers of the Internet. */
static inline u16 get_be16(const void *p)
{
	return __builtin_bswap16(get_le16(p));
}

static inline u32 get_be32(const void *p)
{
	return __builtin_bswap32(get_le32(p));
}

static inline void put_be16(void *p, u16 v)
{
	put_le16(p, __builtin_bswap16(v));
}

static inline void put_be32(void *p, u32 v)
{
	put_le32(p, __builtin_bswap32(v));
}

/* A circular, doubly linked list; the head is a node that belongs to no element. */
struct list {
	struct list *next, *prev;
};

#define LIST_INIT(name)          \
	{                        \
		&(name), &(name) \
	}
#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_for_each(pos, head)      for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)
/* The element at @pos may be removed, and freed, in the body; @n is a second cursor. */
#define list_for_each_safe(pos, n, head)                               \
	for ((pos) = (head)->next, (n) = (pos)->next; (pos) != (head); \
	     (pos) = (n), (n) = (pos)->next)

static inline void list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

/** Adds @node before @head: at the end of the list. */
static inline void list_add_tail(struct list *head, struct list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/** Takes @node out; it may be taken out again, or added to another list. */
static inline void list_del(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	node->next = node->prev = node;
}

struct error {
	char text[512];
};

/** Formats the text of @err (which may be NULL) and returns @code, a negative errno. */
__attribute__((format(printf, 3, 4))) int error_set(struct error *err, int code, const char *fmt,
						    ...);

/** Puts "fmt: " before the text that is in @err. Returns @code. */
__attribute__((format(printf, 3, 4))) int error_prefix(struct error *err, int code, const char *fmt,
						       ...);

/**
 * Prints "trine: ..." on standard error, in one write, with the terminal's line discipline
 * respected.
 */
__attribute__((format(printf, 1, 2))) void report(const char *fmt, ...);

/**
 * strdup, malloc and calloc that cannot fail: at start-up there is nothing better to do than to say
 * so and end.
 */
char *xstrdup(const char *s);
void *xzalloc(size_t size);
__attribute__((format(printf, 1, 2))) char *xasprintf(const char *fmt, ...);

/** CLOCK_MONOTONIC in nanoseconds. */
s64 now_ns(void);

#endif
