/*
 * What the API tests share. They reach KVM through one table, so that the same cases run on
 *
 *	api-vm			libtrine, linked in
 *	api-kvm-vm		/dev/kvm: Linux's own, trine.ko's, or the preload shim's
 *
 * Each file under tests/api defines api_cases[]; a case prints one verdict for each promise. Where Linux of another
 * version may differ, api.plain says that it may be Linux which answers.
 */
#ifndef TESTS_API_H
#define TESTS_API_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/tap.h"

struct api {
	bool plain; /* the C library's functions, not libtrine's */
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long cmd, ...);
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
	int (*close)(int fd);
};
extern const struct api api;

struct api_case {
	const char *name;
	void (*run)(void);
};
/* Each test program's; ends with an empty entry. */
extern const struct api_case api_cases[];

/* A VM with one vCPU and @pages of memory at 0, for one case; api_done() closes it. */
struct guest {
	int vm, vcpu;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *mem;
	size_t mem_size;
	int extra[8]; /* further descriptors to close, 0: none */
};

/** The system descriptor, opened once. */
int api_system(void);
/** Whether the case can go on: a failed step is a failed verdict. */
bool guest_init(struct guest *g, unsigned pages);
/** As guest_init(), with KVM_CREATE_IRQCHIP before the vCPU. */
bool guest_init_irqchip(struct guest *g, unsigned pages);
/** As guest_init(), with KVM_ENABLE_CAP(@cap, @arg) before the vCPU. */
bool guest_init_cap(struct guest *g, unsigned pages, uint32_t cap, uint64_t arg);
void guest_done(struct guest *g);
/** Real mode at 0000:@ip with flat segments, and @code there. */
void guest_code(struct guest *g, uint16_t ip, const void *code, size_t len);
/** Segments of 64-bit mode: code by selector 8, data by 16, of a GDT of three at @gdt; 256 gates at @idt. The control registers stay. */
void long_segments(struct kvm_sregs *s, uint64_t gdt, uint64_t idt);
/**
 * 64-bit mode at @ip < 32 KiB and @code there: the first 64 MiB and the local APIC's page are mapped where they are, RSP is 0x8000. Pages 8
 * to 13 are tables then; guest_gate() fills in the IDT.
 */
void guest_long_code(struct guest *g, uint16_t ip, const void *code, size_t len);
/** An interrupt @vector of that guest's goes to @ip, where @code is. */
void guest_gate(struct guest *g, uint8_t vector, uint16_t ip, const void *code, size_t len);
/** KVM_RUN until an exit other than a signal: its reason, or -errno. */
int guest_run(struct guest *g);
int set_region(int vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, const void *hva);
bool has_cap(int fd, int cap);

/* ---- verdicts ------------------------------------------------------------------------------------------------ */

/** The call failed, with that error. */
#define refuses(error, call, ...)                                                                  \
	do {                                                                                       \
		long r_ = (errno = 0, (long)(call));                                               \
		if (!tap_ok(r_ == -1 && errno == (error), __VA_ARGS__))                            \
			tap_diag("%s gave %ld, errno %d (%s), not %d (%s)", #call, r_, errno,      \
				 strerror(errno), error, strerror(error));                         \
	} while (0)
/** The call succeeded (>= 0). An expression: the value. */
#define accepts(call, ...)                                                                         \
	({                                                                                         \
		long r_ = (errno = 0, (long)(call));                                               \
		if (!tap_ok(r_ >= 0, __VA_ARGS__))                                                 \
			tap_diag("%s gave %ld, errno %d (%s)", #call, r_, errno, strerror(errno)); \
		r_;                                                                                \
	})
#define equals(value, wanted, ...)                                                                 \
	({                                                                                         \
		long long v_ = (long long)(value), w_ = (long long)(wanted);                       \
		bool ok_ = tap_ok(v_ == w_, __VA_ARGS__);                                          \
		if (!ok_)                                                                          \
			tap_diag("%s is %#llx, not %#llx", #value, v_, w_);                        \
		ok_;                                                                               \
	})

/* An address where there is nothing. */
#define NOWHERE ((void *)0x10000)

/**
 * Two threads call @a and @b @rounds times each, at the same time, beginning together. A call returns 0 when what it saw
 * was allowed. The verdict @name: all were.
 */
void race(const char *name, int rounds, int (*a)(void *arg, int round), int (*b)(void *arg, int round), void *arg);

#endif
