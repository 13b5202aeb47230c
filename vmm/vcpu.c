/*
 * vCPU threads: KVM_RUN, its exits, and stopping them.
 *
 * A thread is either in the guest, or serves an exit, or stands in the pause loop. Whoever wants it
 * to stand sets vcpus_stop under the machine lock, then immediate_exit and a signal: the signal
 * ends a KVM_RUN that is under way, immediate_exit one that is about to begin.
 */
#include "vmm/vcpu.h"
#include "vmm/cpuid.h"
#include "vmm/machine.h"
#include "vmm/vcpu_state.h"
#include <inttypes.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define VCPU_SIGNAL SIGUSR1
#define VCPU_STACK  (256 * KiB)

static void on_signal(int signal)
{
	/* Its arrival is all that matters: KVM_RUN returns EINTR. */
}

static void __attribute__((format(printf, 1, 2))) print_error(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fputs(line, stderr);
}

static void serve_io(struct machine *m, struct kvm_run *run)
{
	u8 *data = (u8 *)run + run->io.data_offset;
	u32 i;
	u64 v;

	for (i = 0; i < run->io.count; i++, data += run->io.size) {
		v = 0;
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&v, data, run->io.size);
			bus_write(m, IO_PORT, run->io.port, v, run->io.size);
		} else {
			v = bus_read(m, IO_PORT, run->io.port, run->io.size);
			memcpy(data, &v, run->io.size);
		}
	}
}

static void serve_mmio(struct machine *m, struct kvm_run *run)
{
	u32 len = MIN(run->mmio.len, 8u);
	u64 v = 0;

	if (run->mmio.is_write) {
		memcpy(&v, run->mmio.data, len);
		bus_write(m, IO_MEMORY, run->mmio.phys_addr, v, len);
	} else {
		v = bus_read(m, IO_MEMORY, run->mmio.phys_addr, len);
		memcpy(run->mmio.data, &v, len);
	}
}

/* The guest has done what nobody can do for it. Machine lock held. */
static void fail(struct vcpu *vcpu, const char *fmt, ...)
{
	struct machine *m = vcpu->machine;
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	report("vCPU %u: %s", vcpu->id, what);
	vcpu_dump(vcpu, print_error);
	vcpu->failed = true;
	machine_fail(m);
}

static const char *suberror_name(u32 suberror)
{
	switch (suberror) {
	case KVM_INTERNAL_ERROR_EMULATION: return "an instruction could not be emulated";
	case KVM_INTERNAL_ERROR_SIMUL_EX: return "two exceptions at once";
	case KVM_INTERNAL_ERROR_DELIVERY_EV: return "an exit while an event was being delivered";
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: return "an exit of unknown reason";
	}
	return "unknown";
}

static void internal_error(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	char bytes[3 * 15 + 1] = "";
	unsigned i, n = 0;

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata >= 1 &&
	    run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
		n = MIN(run->emulation_failure.insn_size, 15u);
		for (i = 0; i < n; i++)
			sprintf(bytes + 3 * i, " %02x", run->emulation_failure.insn_bytes[i]);
	}
	fail(vcpu, "the accelerator gave up: %s (suberror %u)%s%s",
	     suberror_name(run->internal.suberror), run->internal.suberror, n ? ", bytes" : "",
	     bytes);
}

static void system_event(struct vcpu *vcpu)
{
	struct machine *m = vcpu->machine;

	switch (vcpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN: machine_shutdown(m, 0); break;
	case KVM_SYSTEM_EVENT_RESET: machine_reset(m); break;
	case KVM_SYSTEM_EVENT_CRASH: fail(vcpu, "the guest says that it has crashed"); break;
	default: fail(vcpu, "system event %u is not known", vcpu->run->system_event.type); break;
	}
}

/* Machine lock held. */
static void serve_exit(struct vcpu *vcpu)
{
	struct machine *m = vcpu->machine;
	struct kvm_run *run = vcpu->run;

	vcpu->exits++;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		serve_io(m, run);
		vcpu->unfinished = true;
		break;
	case KVM_EXIT_MMIO:
		serve_mmio(m, run);
		vcpu->unfinished = true;
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_HLT:
	case KVM_EXIT_IOAPIC_EOI: break;
	case KVM_EXIT_SHUTDOWN: /* a triple fault, which is how some kernels reboot */
		machine_reset(m);
		break;
	case KVM_EXIT_SYSTEM_EVENT: system_event(vcpu); break;
	case KVM_EXIT_INTERNAL_ERROR: internal_error(vcpu); break;
	case KVM_EXIT_FAIL_ENTRY:
		fail(vcpu, "the hardware refused to enter the guest, reason 0x%llx",
		     (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_UNKNOWN:
		fail(vcpu, "an exit that the hardware gives no reason for, 0x%llx",
		     (unsigned long long)run->hw.hardware_exit_reason);
		break;
	default: fail(vcpu, "exit reason %u is not known", run->exit_reason); break;
	}
}

/*
 * An I/O or MMIO exit is complete only once KVM_RUN has been entered again: do that, without
 * running the guest.
 */
static void finish_exit(struct vcpu *vcpu)
{
	if (!vcpu->unfinished)
		return;
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELEASE);
	/* A string instruction, or one that crosses a page, has several exits. */
	while (accel_ioctl_value(vcpu->machine, vcpu->fd, KVM_RUN, 0) == 0 &&
	       (vcpu->run->exit_reason == KVM_EXIT_IO || vcpu->run->exit_reason == KVM_EXIT_MMIO))
		serve_exit(vcpu);
	vcpu->unfinished = false;
}

static void *vcpu_thread(void *argument)
{
	struct vcpu *vcpu = argument;
	struct machine *m = vcpu->machine;
	char name[16];
	sigset_t set;
	int r;

	snprintf(name, sizeof(name), "vcpu%u", vcpu->id);
	pthread_setname_np(pthread_self(), name);
	/* Signals are the main loop's, but for the one that stops us and those that mean a bug. */
	sigfillset(&set);
	sigdelset(&set, VCPU_SIGNAL);
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGFPE);
	sigdelset(&set, SIGILL);
	sigdelset(&set, SIGTRAP);
	sigdelset(&set, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &set, NULL);

	machine_lock(m);
	for (;;) {
		while ((m->vcpus_stop || vcpu->failed) && !m->vcpus_end) {
			if (!vcpu->paused) {
				finish_exit(vcpu);
				vcpu->paused = true;
				pthread_cond_broadcast(&m->vcpu_cond);
			}
			pthread_cond_wait(&m->vcpu_cond, &m->lock);
		}
		if (m->vcpus_end)
			break;
		vcpu->paused = false;
		__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_RELEASE);
		machine_unlock(m);

		r = accel_ioctl_value(m, vcpu->fd, KVM_RUN, 0);

		machine_lock(m);
		vcpu->unfinished = false;
		if (r == 0)
			serve_exit(vcpu);
		else if (r != -EINTR && r != -EAGAIN)
			fail(vcpu, "KVM_RUN: %s", strerror(-r));
	}
	vcpu->paused = true;
	pthread_cond_broadcast(&m->vcpu_cond);
	machine_unlock(m);
	return NULL;
}

static void kick(struct vcpu *vcpu)
{
	if (!vcpu->started || vcpu->paused)
		return;
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	pthread_kill(vcpu->thread, VCPU_SIGNAL);
}

static bool all_paused(const struct machine *m)
{
	u32 i;

	for (i = 0; i < m->config.cpus; i++)
		if (m->vcpus[i].started && !m->vcpus[i].paused)
			return false;
	return true;
}

void vcpu_pause_all(struct machine *m)
{
	u32 i;

	if (!m->vcpus)
		return;
	m->vcpus_stop = true;
	for (i = 0; i < m->config.cpus; i++)
		kick(&m->vcpus[i]);
	while (!all_paused(m))
		pthread_cond_wait(&m->vcpu_cond, &m->lock);
}

void vcpu_resume_all(struct machine *m)
{
	m->vcpus_stop = false;
	pthread_cond_broadcast(&m->vcpu_cond);
}

static int create(struct machine *m, struct vcpu *vcpu, u32 id, struct error *err)
{
	int r;

	*vcpu = (struct vcpu){ .machine = m, .id = id, .apic_id = cpuid_apic_id(m, id), .fd = -1 };
	vcpu->fd = accel_ioctl_value(m, m->vm_fd, KVM_CREATE_VCPU, vcpu->apic_id);
	if (vcpu->fd < 0)
		return error_set(err, vcpu->fd, "vCPU %u: %s", id, strerror(-vcpu->fd));
	r = accel_ioctl_value(m, m->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (r < (int)sizeof(struct kvm_run))
		return error_set(err, -EINVAL, "KVM_GET_VCPU_MMAP_SIZE: %d bytes are too few", r);
	vcpu->run_size = r;
	vcpu->run = m->accel->mmap(NULL, vcpu->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
				   vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		vcpu->run = NULL;
		return error_set(err, -errno, "vCPU %u: mapping kvm_run: %s", id, strerror(errno));
	}
	r = cpuid_apply(vcpu, err);
	if (r < 0)
		return r;
	return vcpu_state_save(vcpu, &vcpu->power_on, err);
}

static int start(struct vcpu *vcpu, struct error *err)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, VCPU_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&vcpu->thread, &attr, vcpu_thread, vcpu);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		return error_set(err, -r, "vCPU %u: its thread: %s", vcpu->id, strerror(r));
	vcpu->started = true;
	return 0;
}

int vcpu_create_all(struct machine *m, struct error *err)
{
	struct sigaction action = { .sa_handler = on_signal };
	int r, most;
	u32 i;

	most = accel_has(m, KVM_CAP_MAX_VCPUS);
	if (most && m->config.cpus > (u32)most)
		return error_set(err, -EINVAL, "-smp %u: accelerator %s has at most %d",
				 m->config.cpus, m->accel->name, most);
	sigaction(VCPU_SIGNAL, &action, NULL);
	m->vcpus = xzalloc(m->config.cpus * sizeof(*m->vcpus));
	for (i = 0; i < m->config.cpus; i++)
		m->vcpus[i].fd = -1;
	m->vcpus_stop = true;
	for (i = 0; i < m->config.cpus; i++) {
		r = create(m, &m->vcpus[i], i, err);
		if (r < 0)
			return r;
	}
	for (i = 0; i < m->config.cpus; i++) {
		r = start(&m->vcpus[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

void vcpu_destroy_all(struct machine *m)
{
	struct vcpu *vcpu;
	u32 i;

	if (!m->vcpus)
		return;
	m->vcpus_end = true;
	for (i = 0; i < m->config.cpus; i++)
		kick(&m->vcpus[i]);
	pthread_cond_broadcast(&m->vcpu_cond);
	machine_unlock(m);
	for (i = 0; i < m->config.cpus; i++)
		if (m->vcpus[i].started)
			pthread_join(m->vcpus[i].thread, NULL);
	machine_lock(m);
	for (i = 0; i < m->config.cpus; i++) {
		vcpu = &m->vcpus[i];
		vcpu_state_free(&vcpu->power_on);
		if (vcpu->run)
			munmap(vcpu->run, vcpu->run_size);
		if (vcpu->fd >= 0)
			m->accel->close(vcpu->fd);
	}
	free(m->vcpus);
	m->vcpus = NULL;
}

int vcpu_reset_all(struct machine *m, const struct boot_entry *entry, struct error *err)
{
	struct vcpu *vcpu;
	int r;
	u32 i;

	if (!m->vcpus)
		return 0; /* a machine for tests */
	for (i = 0; i < m->config.cpus; i++) {
		vcpu = &m->vcpus[i];
		vcpu->failed = false;
		r = vcpu_state_load(vcpu, &vcpu->power_on, err);
		if (r < 0)
			return r;
	}
	return entry ? vcpu_state_enter(&m->vcpus[0], entry, err) : 0;
}
