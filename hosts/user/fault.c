/* See fault.h. Also the client-memory functions of hosts/host.h. */
#include "hosts/user/fault.h"

#include <ucontext.h>

#include "hosts/user/sigaction.h"

struct ex_entry {
	s32 from, to; /* relative to each field itself */
};

/* Made by the linker from the sections of that name. */
extern const struct ex_entry __start_trine_ex_table[], __stop_trine_ex_table[];

static struct host_fault_range *ranges; /* (a) */
static pthread_mutex_t ranges_lock = PTHREAD_MUTEX_INITIALIZER;

void host_fault_register(struct host_fault_range *range)
{
	pthread_mutex_lock(&ranges_lock);
	range->next = ranges;
	__atomic_store_n(&ranges, range, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&ranges_lock);
}

void host_fault_unregister(struct host_fault_range *range)
{
	struct host_fault_range **p;

	pthread_mutex_lock(&ranges_lock);
	for (p = &ranges; *p; p = &(*p)->next) {
		if (*p == range) {
			__atomic_store_n(p, range->next, __ATOMIC_RELEASE);
			break;
		}
	}
	pthread_mutex_unlock(&ranges_lock);
}

static bool fix_by_table(ucontext_t *uc)
{
	u64 rip = (u64)uc->uc_mcontext.gregs[REG_RIP];
	const struct ex_entry *e;

	for (e = __start_trine_ex_table; e < __stop_trine_ex_table; e++) {
		if ((u64)(uintptr_t)&e->from + (u64)(s64)e->from == rip) {
			uc->uc_mcontext.gregs[REG_RIP] = (s64)((u64)(uintptr_t)&e->to + (u64)(s64)e->to);
			return true;
		}
	}
	return false;
}

/* In instruction encoding order. */
static const u8 gregs[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8,	 REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static bool run_fixup(struct host_fault_range *range, siginfo_t *info, ucontext_t *uc)
{
	greg_t *from = uc->uc_mcontext.gregs;
	struct host_fault fault = {
		.addr = info->si_code == SI_KERNEL ? 0 : (u64)(uintptr_t)info->si_addr,
		.write = from[REG_ERR] & 2, /* #PF error code, SDM 3A 4.7 */
		.rip = (u64)from[REG_RIP],
	};
	unsigned i;

	for (i = 0; i < 16; i++)
		fault.gpr[i] = (u64)from[gregs[i]];
	if (!range->fixup(range, &fault))
		return false;
	for (i = 0; i < 16; i++)
		from[gregs[i]] = (s64)fault.gpr[i];
	from[REG_RIP] = (s64)fault.rip;
	return true;
}

static bool fix_by_range(siginfo_t *info, ucontext_t *uc)
{
	u64 rip = (u64)uc->uc_mcontext.gregs[REG_RIP];
	struct host_fault_range *r;

	for (r = __atomic_load_n(&ranges, __ATOMIC_ACQUIRE); r;
	     r = __atomic_load_n(&r->next, __ATOMIC_ACQUIRE))
		if (rip >= r->start && rip < r->end && run_fixup(r, info, uc))
			return true;
	return false;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	/* Positive codes come from the CPU, SI_KERNEL for non-canonical addresses; others were sent by someone. */
	if (info->si_code > 0 && (fix_by_table(context) || fix_by_range(info, context)))
		return;
	host_signal_client(sig, info, context);
}

void host_fault_init(void)
{
	host_signal_own(SIGSEGV, on_fault);
	host_signal_own(SIGBUS, on_fault);
}

bool host_client_range_ok(u64 addr, u64 len)
{
	return len <= 1ULL << 47 && addr <= (1ULL << 47) - HOST_PAGE_SIZE - len;
}

/* @client is the operand in the client's memory; the other one is ours. */
#define MOVE(type, insn, reg, dst, src, error)                                                     \
	do {                                                                                       \
		type tmp;                                                                          \
		__asm__ volatile("1: " insn " %[from], %" reg "[tmp]\n"                            \
				 "2: " insn " %" reg "[tmp], %[to]\n3:\n"                          \
				 HOST_EX_ERROR("1b", "3b", "%k[err]")                              \
				 HOST_EX_ERROR("2b", "3b", "%k[err]")                              \
				 : [err] "+&r"(error), [tmp] "=&r"(tmp), [to] "=m"(*(type *)(dst)) \
				 : [from] "m"(*(const type *)(src))                                \
				 : "memory");                                                      \
	} while (0)

/* Either side may be the client's. */
static int copy(void *dst, const void *src, size_t len)
{
	int error = 0;

	switch (len) {
	case 1: MOVE(u8, "movb", "b", dst, src, error); return error;
	case 2: MOVE(u16, "movw", "w", dst, src, error); return error;
	case 4: MOVE(u32, "movl", "k", dst, src, error); return error;
	case 8: MOVE(u64, "movq", "q", dst, src, error); return error;
	}
	__asm__ volatile("1: rep movsb\n2:\n" HOST_EX_ERROR("1b", "2b", "%k0")
			 : "+&r"(error), "+D"(dst), "+S"(src), "+c"(len)
			 :
			 : "memory");
	return error;
}

int host_copy_from_client(void *dst, u64 src, size_t len)
{
	if (unlikely(!host_client_range_ok(src, len)))
		return -EFAULT;
	host_thread_prepare();
	return copy(dst, (const void *)(uintptr_t)src, len);
}

int host_copy_to_client(u64 dst, const void *src, size_t len)
{
	if (unlikely(!host_client_range_ok(dst, len)))
		return -EFAULT;
	host_thread_prepare();
	return copy((void *)(uintptr_t)dst, src, len);
}

#define CMPXCHG(type, insn, reg, hva, old, new, error, done)                                       \
	do {                                                                                       \
		type was = *(type *)(old);                                                         \
		__asm__ volatile("1: lock " insn " %" reg "[new], (%[p])\nsete %[done]\n2:\n"        \
				 HOST_EX_ERROR("1b", "2b", "%k[err]")                              \
				 : [err] "+&r"(error), [done] "+&q"(done), "+a"(was)               \
				 : [new] "q"(*(const type *)(new)), [p] "r"(hva)                   \
				 : "memory", "cc");                                                \
		*(type *)(old) = was;                                                              \
	} while (0)

int host_client_cmpxchg(u64 hva, void *old, const void *new, unsigned len)
{
	bool done = false;
	int error = 0;

	if (unlikely(!host_client_range_ok(hva, len)))
		return -EFAULT;
	host_thread_prepare();
	switch (len) {
	case 1: CMPXCHG(u8, "cmpxchgb", "b", hva, old, new, error, done); break;
	case 2: CMPXCHG(u16, "cmpxchgw", "w", hva, old, new, error, done); break;
	case 4: CMPXCHG(u32, "cmpxchgl", "k", hva, old, new, error, done); break;
	case 8: CMPXCHG(u64, "cmpxchgq", "q", hva, old, new, error, done); break;
	case 16: {
		u64 was[2], with[2];

		memcpy(was, old, 16);
		memcpy(with, new, 16);
		__asm__ volatile("1: lock cmpxchg16b (%[p])\nsete %[done]\n2:\n" HOST_EX_ERROR("1b", "2b", "%k[err]")
				 : [err] "+&r"(error), [done] "+&q"(done), "+a"(was[0]), "+d"(was[1])
				 : "b"(with[0]), "c"(with[1]), [p] "r"(hva)
				 : "memory", "cc");
		memcpy(old, was, 16);
		break;
	}
	default: return -EFAULT;
	}
	return error ? error : !done;
}
