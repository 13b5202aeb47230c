/* See native.h. */
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/emul/native.h"

/* Known to native_stub.S by its offsets. */
struct stub_data {
	u64 in[16], in_flags;
	u64 out[16], out_flags;
	u64 entry, host_rsp;
	struct {
		u32 offset;
		u16 sel, unused;
	} far32;
	u64 xin, xout, xcr;
};
_Static_assert(offsetof(struct stub_data, out) == 136 && offsetof(struct stub_data, xcr) == 312,
	       "native_stub.S");

extern const u8 native_stub[], native_stub_enter64[], native_stub_enter32[], native_stub_exit64[],
	native_stub_exit32[], native_stub_fault[], native_stub_start32[], native_stub_end[];

#define STUB(label) (NATIVE_LOW + (unsigned long)(native_stub_##label - native_stub))

static struct stub_data *const data = (struct stub_data *)(NATIVE_LOW + 0x1000);
static u8 *code_alias; /* the two code pages, writable */
static struct native_result *current;
static bool compat_works;
u64 native_code_at = NATIVE_CODE;

static void handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	static const u8 order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				      REG_RSI, REG_RDI, REG_R8,	 REG_R9,  REG_R10, REG_R11,
				      REG_R12, REG_R13, REG_R14, REG_R15 };
	unsigned i;

	if (!current) {
		/* Not ours: a mistake of the test program itself. */
		signal(sig, SIG_DFL);
		return;
	}
	current->vector = g[REG_TRAPNO];
	current->error = g[REG_ERR];
	current->cr2 = g[REG_CR2];
	for (i = 0; i < 16; i++)
		current->regs.gpr[i] = g[order[i]];
	current->regs.rip = g[REG_RIP];
	current->regs.rflags = g[REG_EFL];
	g[REG_RIP] = STUB(fault);
	g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffULL) | 0x33;
	g[REG_EFL] = 0x202;
}

static void *map_at(unsigned long addr, size_t size, int prot, int fd, off_t offset)
{
	int flags = MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	void *p = mmap((void *)addr, size, prot, flags, fd, offset);

	return p == (void *)addr ? p : NULL;
}

bool native_init(void)
{
	static u8 alt[65536];
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	struct native_regs regs = { .rflags = 0x202 };
	struct native_result out;
	int fd = memfd_create("native", 0);
	unsigned i;

	if (fd < 0 || ftruncate(fd, 0x3000))
		return false;
	code_alias = mmap(NULL, 0x3000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (code_alias == MAP_FAILED)
		return false;
	memcpy(code_alias, native_stub, native_stub_end - native_stub);
	code_alias += 0x1000;
	memset(code_alias, 0xcc, 0x2000);
	if (!map_at(NATIVE_LOW, 0x1000, PROT_READ | PROT_EXEC, fd, 0) ||
	    !map_at(NATIVE_LOW + 0x1000, 0x1000, PROT_READ | PROT_WRITE, -1, 0) ||
	    !map_at(NATIVE_LOW + 0x2000, 0x2000, PROT_READ | PROT_EXEC, fd, 0x1000) ||
	    !map_at(NATIVE_SCRATCH, NATIVE_SCRATCH_PAGES << 12, PROT_READ | PROT_WRITE, -1, 0))
		return false;
	close(fd);
	memset(data, 0, sizeof(*data));
	data->far32.offset = STUB(start32);
	data->far32.sel = 0x23;
	if (sigaltstack(&ss, NULL))
		return false;
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		/* A fault handler may be entered while another signal of the kind is blocked: none
		 * is. */
		sigemptyset(&sa.sa_mask);
		if (sigaction(signals[i], &sa, NULL))
			return false;
	}
	if (syscall(SYS_arch_prctl, ARCH_SET_GS, NATIVE_GS_BASE))
		return false;
	regs.gpr[4] = NATIVE_SCRATCH + 0x800;
	regs.gpr[0] = 0x12345678;
	/* INC EAX exists in 32-bit mode only: elsewhere 40 is a prefix. */
	native_run((const u8 *)"\x40\x90", 2, true, &regs, &out);
	compat_works = out.vector < 0 && out.regs.gpr[0] == 0x12345679;
	return true;
}

bool native_protect_scratch(void)
{
	return !mprotect((void *)(NATIVE_SCRATCH + 0x2000), 0x1000, PROT_READ);
}

bool native_has_compat(void)
{
	return compat_works;
}

void native_run_x(const u8 *code, unsigned len, bool compat, const struct native_regs *in,
		  struct native_result *out, const void *xstate_in, void *xstate_out, u64 xcr)
{
	static unsigned last_at, last_len;
	unsigned at = native_code_at - NATIVE_LOW - 0x2000, i;
	unsigned long exit = compat ? STUB(exit32) : STUB(exit64);
	s32 rel = exit - (native_code_at + len + 5);
	void (*enter)(void);

	memset(code_alias + last_at, 0xcc, last_len);
	last_at = at;
	last_len = len + 5;
	memcpy(code_alias + at, code, len);
	code_alias[at + len] = 0xe9;
	memcpy(code_alias + at + len + 1, &rel, 4);
	for (i = 0; i < 16; i++)
		data->in[i] = in->gpr[i];
	data->in_flags = in->rflags;
	data->entry = native_code_at;
	data->xin = (u64)xstate_in;
	data->xout = (u64)xstate_out;
	data->xcr = xcr;
	out->vector = -1;
	out->error = 0;
	out->cr2 = 0;
	out->completed_by_fetch = false;
	current = out;
	enter = (void (*)(void))(compat ? STUB(enter32) : STUB(enter64));
	enter();
	current = NULL;
	if (out->vector < 0) {
		for (i = 0; i < 16; i++)
			out->regs.gpr[i] = !compat || i < 8 ? data->out[i] : in->gpr[i];
		out->regs.rflags = data->out_flags;
		out->regs.rip = native_code_at + len;
		if (compat)
			for (i = 0; i < 8; i++)
				out->regs.gpr[i] = (u32)out->regs.gpr[i];
	} else if (out->vector == 14 && (out->error & 0x10) && out->cr2 == out->regs.rip) {
		out->completed_by_fetch = true;
	} else if (out->vector == 3 &&
		   out->regs.rip - 1 - NATIVE_LOW < NATIVE_LOW_END - NATIVE_LOW) {
		/* The code pages are filled with INT3. */
		out->regs.rip--;
		out->completed_by_fetch = true;
	}
}

void native_run(const u8 *code, unsigned len, bool compat, const struct native_regs *in,
		struct native_result *out)
{
	native_run_x(code, len, compat, in, out, NULL, NULL, 0);
}
