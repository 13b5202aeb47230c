/*
 * The machine's life: empty, built, running, reset, off.
 *
 * vCPUs, devices and the keyboard only ask for a reset or a shutdown; the main loop does it, in
 * machine_requests(), with all vCPUs standing still.
 */
#include "vmm/machine.h"
#include "vmm/chardev.h"
#include "vmm/cli.h"
#include "vmm/cpuid.h"
#include "vmm/machine/boot.h"
#include "vmm/machine/pc.h"
#include "vmm/monitor/monitor.h"
#include <ctype.h>
#include <linux/kvm.h>
#include <stdlib.h>

void machine_lock(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
}

void machine_unlock(struct machine *m)
{
	pthread_mutex_unlock(&m->lock);
}

int machine_parse_uuid(const char *text, u8 raw[16])
{
	unsigned i, digits = 0;
	u8 v;

	for (i = 0; text[i]; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i] != '-')
				return -EINVAL;
			continue;
		}
		if (!isxdigit((unsigned char)text[i]) || digits == 32)
			return -EINVAL;
		v = isdigit((unsigned char)text[i]) ? text[i] - '0'
						    : tolower((unsigned char)text[i]) - 'a' + 10;
		raw[digits / 2] = digits % 2 ? raw[digits / 2] | v : v << 4;
		digits++;
	}
	return digits == 32 ? 0 : -EINVAL;
}

/* --- requests --- */

static void ask(struct machine *m, bool *wanted)
{
	*wanted = true;
	loop_bh_schedule(&m->requests);
}

void machine_reset(struct machine *m)
{
	ask(m, m->config.no_reboot ? &m->shutdown_wanted : &m->reset_wanted);
	/* The vCPU that asked must not go on meanwhile: what it would do next is undefined. */
	m->vcpus_stop = true;
}

void machine_shutdown(struct machine *m, int status)
{
	m->exit_status = status;
	ask(m, &m->shutdown_wanted);
	m->vcpus_stop = true;
}

void machine_quit(struct machine *m, int status)
{
	m->config.no_shutdown = false;
	machine_shutdown(m, status);
}

void machine_powerdown(struct machine *m)
{
	ask(m, &m->powerdown_wanted);
}

void machine_fail(struct machine *m)
{
	m->state = MACHINE_FAILED;
	machine_shutdown(m, 1);
}

void machine_stop(struct machine *m)
{
	if (m->state != MACHINE_RUNNING)
		return;
	vcpu_pause_all(m);
	loop_clock_run(&m->loop, false);
	m->state = MACHINE_PAUSED;
}

void machine_continue(struct machine *m)
{
	if (m->state != MACHINE_PAUSED)
		return;
	m->state = MACHINE_RUNNING;
	loop_clock_run(&m->loop, true);
	vcpu_resume_all(m);
}

/*
 * Everything back to the state after power-on, and the kernel in memory as if for the first time.
 * vCPUs stand still.
 */
static int reset_everything(struct machine *m, struct error *err)
{
	int r;

	device_reset_all(m);
	irq_reset(m);
	r = boot_place(m, err);
	if (r < 0)
		return r;
	return vcpu_reset_all(m, m->boot ? &m->boot->entry : NULL, err);
}

static void do_reset(struct machine *m)
{
	bool was_off = m->state == MACHINE_SHUTDOWN;
	struct error err;

	m->reset_wanted = false;
	vcpu_pause_all(m);
	if (reset_everything(m, &err) < 0) {
		report("reset: %s", err.text);
		machine_fail(m);
		return;
	}
	if (was_off)
		m->state = MACHINE_PAUSED;
	if (m->state == MACHINE_RUNNING)
		vcpu_resume_all(m);
}

static void do_shutdown(struct machine *m)
{
	m->shutdown_wanted = false;
	vcpu_pause_all(m);
	if (!m->config.no_shutdown) {
		loop_quit(&m->loop);
		return;
	}
	loop_clock_run(&m->loop, false);
	if (m->state != MACHINE_FAILED)
		m->state = MACHINE_SHUTDOWN;
}

static void machine_requests(struct loop_bh *bh)
{
	struct machine *m = container_of(bh, struct machine, requests);

	if (m->powerdown_wanted) {
		m->powerdown_wanted = false;
		pc_power_button(m);
	}
	if (m->shutdown_wanted)
		do_shutdown(m);
	else if (m->reset_wanted)
		do_reset(m);
}

/* --- building --- */

static int init_common(struct machine *m, struct error *err)
{
	pthread_mutexattr_t attr;

	*m = (struct machine){ .kvm_fd = -1, .vm_fd = -1 };
	m->config.ram = 512 * MiB;
	m->config.cpus = m->config.sockets = m->config.cores = m->config.threads = 1;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&m->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	pthread_cond_init(&m->vcpu_cond, NULL);
	bus_init(&m->bus);
	list_init(&m->devices);
	list_init(&m->buses);
	list_init(&m->chardevs);
	list_init(&m->monitors);
	list_init(&m->queued);
	m->loop.epoll_fd = -1;
	if (loop_init(&m->loop, &m->lock, err) < 0)
		return -ENOMEM;
	loop_bh_init(&m->requests, &m->loop, machine_requests);
	return 0;
}

int machine_init(struct machine *m, struct error *err)
{
	return init_common(m, err);
}

int machine_init_bare(struct machine *m, u64 ram, struct error *err)
{
	int r = init_common(m, err);

	if (r < 0)
		return r;
	m->config.ram = ram;
	machine_lock(m);
	r = irq_init(m, err);
	if (!r)
		r = pc_create_memory(m, err);
	if (!r)
		r = pc_create_devices(m, err);
	machine_unlock(m);
	if (r < 0)
		machine_destroy(m);
	return r;
}

static int create_vm(struct machine *m, struct error *err)
{
	u64 identity = 0xfeffc000;
	int r;

	m->vm_fd = accel_ioctl_value(m, m->kvm_fd, KVM_CREATE_VM, 0);
	if (m->vm_fd < 0)
		return error_set(err, m->vm_fd, "KVM_CREATE_VM: %s", strerror(-m->vm_fd));
	/* Intel's real-mode helpers need four pages of guest address space, below the BIOS. */
	if (accel_has(m, KVM_CAP_SET_IDENTITY_MAP_ADDR)) {
		r = accel_ioctl(m, m->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
		if (r < 0)
			return error_set(err, r, "KVM_SET_IDENTITY_MAP_ADDR: %s", strerror(-r));
	}
	if (accel_has(m, KVM_CAP_SET_TSS_ADDR)) {
		r = accel_ioctl_value(m, m->vm_fd, KVM_SET_TSS_ADDR, identity + 0x1000);
		if (r < 0)
			return error_set(err, r, "KVM_SET_TSS_ADDR: %s", strerror(-r));
	}
	return 0;
}

static int build(struct machine *m, struct error *err)
{
	int r;

	/*
	 * What can be wrong in the command line is found before anything is made that costs time.
	 */
	r = boot_load(m, err);
	if (!r)
		r = accel_open(m, m->config.accel ? m->config.accel : "auto", err);
	if (!r && m->config.log && !m->accel->set_options)
		r = error_set(err, -EINVAL, "-d %s: the accelerator %s has no such log; "
			      "-accel lite has",
			      m->config.log, m->accel->name);
	if (r < 0)
		return r;
	r = create_vm(m, err);
	if (!r)
		r = cpuid_prepare(m, err);
	if (!r)
		r = irq_init(m, err);
	if (!r) {
		r = pc_create_memory(m, err);
		if (r < 0)
			error_prefix(err, r, "-m %s",
				     m->config.ram_text ? m->config.ram_text : "512M");
	}
	if (!r)
		r = pc_create_devices(m, err);
	if (!r)
		r = vcpu_create_all(m, err);
	if (!r)
		r = device_add_queued(m, err);
	if (!r)
		r = irq_save(m, err);
	if (!r)
		r = reset_everything(m, err);
	return r;
}

int machine_build(struct machine *m, struct error *err)
{
	int r;

	machine_lock(m);
	r = build(m, err);
	if (!r)
		m->state = MACHINE_PAUSED;
	machine_unlock(m);
	return r;
}

int machine_run(struct machine *m)
{
	if (!m->config.stopped) {
		machine_lock(m);
		machine_continue(m);
		machine_unlock(m);
	}
	loop_run(&m->loop);
	return m->exit_status;
}

void machine_destroy(struct machine *m)
{
	machine_lock(m);
	vcpu_destroy_all(m);
	loop_clock_run(&m->loop, false);
	/* First: it would take the keyboard, and say so, when the console goes. */
	monitor_destroy_all(m);
	device_add_queued(m, NULL);
	device_remove_all(m);
	pc_destroy(m);
	cli_run_exits(m);
	chardev_close_all(m);
	boot_free(m);
	cpuid_free(m);
	irq_destroy(m);
	machine_unlock(m);
	bus_destroy(&m->bus);
	if (m->vm_fd >= 0)
		m->accel->close(m->vm_fd);
	if (m->kvm_fd >= 0)
		m->accel->close(m->kvm_fd);
	memory_destroy(m);
	loop_destroy(&m->loop);
	machine_config_free(&m->config);
	pthread_cond_destroy(&m->vcpu_cond);
	pthread_mutex_destroy(&m->lock);
}

void machine_config_free(struct machine_config *c)
{
	char **strings[] = {
		&c->name,	    &c->kernel,		&c->initrd,
		&c->append,	    &c->accel,		&c->cpu,
		&c->log,
		&c->pidfile,	    &c->uuid,		&c->smbios_manufacturer,
		&c->smbios_product, &c->smbios_version, &c->smbios_serial,
		&c->smbios_sku,	    &c->smbios_family,	&c->debugcon,
		&c->monitor,	    &c->ram_text,
	};
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(strings); i++) {
		free(*strings[i]);
		*strings[i] = NULL;
	}
	for (i = 0; i < SERIAL_PORTS; i++) {
		free(c->serial[i]);
		c->serial[i] = NULL;
	}
}
