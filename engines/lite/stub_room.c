/*
 * Memory for native stubs: a memfd mapped twice, once to write and once to execute, and the signals that an instruction in it raises.
 * (Apart from native.c because <ucontext.h>'s register names collide with core/x86/x86.h.)
 */
#include <signal.h>
#include <ucontext.h>

#include "engines/lite/stub_room.h"
#include "hosts/user/sigaction.h"
#include "hosts/user/sys.h"

#define MAX_ROOMS 64
static struct {
	u64 start, end; /* (a) */
	lite_room_fault *fault;
} rooms[MAX_ROOMS];
static pthread_mutex_t rooms_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* SIGFPE or SIGILL in a stub: return from it with R8 set (LITE_STUB_FPE, LITE_STUB_UD). Its stack holds the return address only. */
static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *regs = uc->uc_mcontext.gregs;
	u64 rip = (u64)regs[REG_RIP];

	for (unsigned i = 0; info->si_code > 0 && i < MAX_ROOMS; i++) {
		if (rip < __atomic_load_n(&rooms[i].start, __ATOMIC_RELAXED) || rip >= __atomic_load_n(&rooms[i].end, __ATOMIC_RELAXED))
			continue;
		if (rooms[i].fault) {
			/* Translated code: RSP is the vCPU. */
			if (!rooms[i].fault((void *)regs[REG_RSP], (u64 *)&regs[REG_RIP]))
				break;
			return;
		}
		regs[REG_R8] = sig == SIGFPE ? 1 : 2;
		regs[REG_RIP] = *(greg_t *)regs[REG_RSP];
		regs[REG_RSP] += 8;
		return;
	}
	host_signal_client(sig, info, context);
}

static void own_signals(void)
{
	host_signal_own(SIGFPE, on_signal);
	host_signal_own(SIGILL, on_signal);
}

int lite_stub_room_make(struct lite_stub_room *room, size_t size, lite_room_fault *fault)
{
	int fd = memfd_create("lite-stubs", MFD_CLOEXEC), err = 0;
	unsigned i;

	if (fd < 0)
		return -errno;
	pthread_once(&once, own_signals);
	if (ftruncate(fd, (off_t)size) < 0)
		err = -errno;
	room->size = size;
	room->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	room->rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	sys_close(fd);
	if (!err && (room->rw == MAP_FAILED || room->rx == MAP_FAILED))
		err = -ENOMEM;
	if (err)
		goto fail;
	pthread_mutex_lock(&rooms_lock);
	for (i = 0; i < MAX_ROOMS && rooms[i].end; i++)
		;
	if (i < MAX_ROOMS) {
		rooms[i].fault = fault;
		__atomic_store_n(&rooms[i].start, (u64)(uintptr_t)room->rx, __ATOMIC_RELAXED);
		__atomic_store_n(&rooms[i].end, (u64)(uintptr_t)room->rx + size, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&rooms_lock);
	if (i < MAX_ROOMS)
		return 0;
	err = -ENOSPC;
fail:
	if (room->rw != MAP_FAILED)
		munmap(room->rw, size);
	if (room->rx != MAP_FAILED)
		munmap((void *)room->rx, size);
	room->rw = NULL;
	return err;
}

void lite_stub_room_free(struct lite_stub_room *room)
{
	if (!room->rw)
		return;
	pthread_mutex_lock(&rooms_lock);
	for (unsigned i = 0; i < MAX_ROOMS; i++) {
		if (rooms[i].start == (u64)(uintptr_t)room->rx) {
			__atomic_store_n(&rooms[i].end, 0, __ATOMIC_RELAXED);
			__atomic_store_n(&rooms[i].start, 0, __ATOMIC_RELAXED);
		}
	}
	pthread_mutex_unlock(&rooms_lock);
	munmap(room->rw, room->size);
	munmap((void *)room->rx, room->size);
}
