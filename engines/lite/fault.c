/*
 * Guest memory is the client's, and the client may unmap it, protect it or truncate the file behind it at any time. A handler of the
 * interpreter or a native stub that touches such memory gets SIGSEGV or SIGBUS; everything since lite_fault_guard() is then dropped.
 * That loses nothing: handlers change no state before their last access, and lite_vcpu.op names the instruction.
 */
#include "hosts/user/fault.h"

#include <setjmp.h>

#include "engines/lite/lite.h"

/* The section of the handlers, by the linker. */
extern const char __start_lite_fast[], __stop_lite_fast[];

static __thread sigjmp_buf *recover;
static __thread u64 fault_addr;

u64 lite_fault_addr(void)
{
	return fault_addr;
}

static void land(void)
{
	siglongjmp(*recover, 1);
}

/* On the faulting thread, in its signal handler: execution goes on in land(), as if called from where it was. */
static bool to_landing(struct host_fault_range *range, struct host_fault *fault)
{
	if (!recover)
		return false;
	fault_addr = fault->addr;
	fault->gpr[4] = ((fault->gpr[4] - 256) & ~15ULL) - 8; /* RSP */
	fault->rip = (u64)(uintptr_t)land;
	return true;
}

bool lite_fault_guard(void (*fn)(struct lite_vcpu *c, const void *arg), struct lite_vcpu *c, const void *arg)
{
	sigjmp_buf here, *outer = recover;
	bool good = false;

	if (!sigsetjmp(here, 0)) {
		recover = &here;
		fn(c, arg);
		good = true;
	}
	recover = outer;
	return good;
}

static struct host_fault_range fast_range;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void register_once(void)
{
	fast_range.start = (u64)(uintptr_t)__start_lite_fast;
	fast_range.end = (u64)(uintptr_t)__stop_lite_fast;
	fast_range.fixup = to_landing;
	host_fault_init();
	host_fault_register(&fast_range);
}

void lite_fault_init(void)
{
	pthread_once(&once, register_once);
}

#define MAX_STUB_RANGES 64
static struct {
	struct host_fault_range range;
	struct lite_stubs *owner;
} stub_ranges[MAX_STUB_RANGES];
static pthread_mutex_t stub_lock = PTHREAD_MUTEX_INITIALIZER;

void lite_fault_add_stubs(struct lite_stubs *stubs, const void *code, size_t size)
{
	pthread_mutex_lock(&stub_lock);
	for (unsigned i = 0; i < MAX_STUB_RANGES; i++) {
		if (stub_ranges[i].owner)
			continue;
		stub_ranges[i].owner = stubs;
		stub_ranges[i].range.start = (u64)(uintptr_t)code;
		stub_ranges[i].range.end = (u64)(uintptr_t)code + size;
		stub_ranges[i].range.fixup = to_landing;
		host_fault_register(&stub_ranges[i].range);
		break;
	}
	pthread_mutex_unlock(&stub_lock);
}

void lite_fault_remove_stubs(struct lite_stubs *stubs)
{
	pthread_mutex_lock(&stub_lock);
	for (unsigned i = 0; i < MAX_STUB_RANGES; i++) {
		if (stub_ranges[i].owner != stubs)
			continue;
		host_fault_unregister(&stub_ranges[i].range);
		stub_ranges[i].owner = NULL;
	}
	pthread_mutex_unlock(&stub_lock);
}

/* ---- translated code ------------------------------------------------------------------------------------------------------- */

#define MAX_JITS 64
static struct jit_range {
	struct host_fault_range range;
	struct lite_jit *owner;
} jit_ranges[MAX_JITS];

/* RSP is the vCPU in blocks; in the run time, of which only short ways can fault, it is 8 below or another stack. */
static bool to_emulator(struct host_fault_range *range, struct host_fault *fault)
{
	struct lite_vcpu *c = (struct lite_vcpu *)(uintptr_t)fault->gpr[4];

	if (lite_jit_rescue(container_of(range, struct jit_range, range)->owner, &fault->rip))
		return true;
	c->jit.fault_addr = fault->addr;
	c->jit.fault_write = fault->write;
	return lite_jit_fault(c, &fault->rip);
}

void lite_fault_add_jit(struct lite_jit *jit, const void *code, size_t size)
{
	pthread_mutex_lock(&stub_lock);
	for (unsigned i = 0; i < MAX_JITS; i++) {
		if (jit_ranges[i].owner)
			continue;
		jit_ranges[i].owner = jit;
		jit_ranges[i].range.start = (u64)(uintptr_t)code;
		jit_ranges[i].range.end = (u64)(uintptr_t)code + size;
		jit_ranges[i].range.fixup = to_emulator;
		host_fault_register(&jit_ranges[i].range);
		break;
	}
	pthread_mutex_unlock(&stub_lock);
}

void lite_fault_remove_jit(struct lite_jit *jit)
{
	pthread_mutex_lock(&stub_lock);
	for (unsigned i = 0; i < MAX_JITS; i++) {
		if (jit_ranges[i].owner != jit)
			continue;
		host_fault_unregister(&jit_ranges[i].range);
		jit_ranges[i].owner = NULL;
	}
	pthread_mutex_unlock(&stub_lock);
}

#define LOCKED(insn, type, reg)                                                                   \
	__asm__ volatile("1: lock " insn " %" reg "[new], %[mem]\nsete %[ok]\n2:\n"                \
			 HOST_EX_ERROR("1b", "2b", "%k[err]")                                     \
			 : [err] "+&r"(err), "+a"(o), [mem] "+m"(*(type *)host), [ok] "+&q"(ok)    \
			 : [new] "r"(n)                                                           \
			 : "memory", "cc")

int lite_cmpxchg_unaligned(u8 *host, void *old, const void *new, unsigned len)
{
	u64 o = 0, n = 0;
	bool ok = false;
	int err = 0;

	memcpy(&o, old, len);
	memcpy(&n, new, len);
	switch (len) {
	case 2: LOCKED("cmpxchgw", u16, "w"); break;
	case 4: LOCKED("cmpxchgl", u32, "k"); break;
	default: LOCKED("cmpxchgq", u64, "q");
	}
	memcpy(old, &o, len);
	return err ? err : !ok;
}
