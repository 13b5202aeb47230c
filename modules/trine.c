/*
 * Linux's side of trine.ko: /dev/kvm, and who has the virtualization hardware. Without a VM nobody has, so that another hypervisor can.
 * Each CPU takes it when the first VM is made and gives it back after the last; one that comes or goes meanwhile, the machine that
 * sleeps or is shut down, do the same.
 */
#include "hosts/kernel/linux.h"

#include <linux/cpu.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/reboot.h>
#include <linux/syscore_ops.h>

#include "modules/modules.h"

long core_system_ioctl(unsigned cmd, u64 arg);

/* ---- the hardware ------------------------------------------------------------------------------------------------ */

static DEFINE_MUTEX(hardware_lock); /* inside cpus_read_lock() */
static unsigned vms;		    /* under hardware_lock */
static struct module *owner;	    /* the engine's; changes without VMs and open descriptors only */
static DEFINE_PER_CPU(bool, enabled); /* its CPU's, interrupts off */
static int online_state;

static void enable_here(void *error)
{
	int r;

	if (__this_cpu_read(enabled))
		return;
	/* The machine goes down: this CPU has been taken from us, or would be for the next kernel to stumble over */
	r = host_guests_stopped() ? -EBUSY : engine_cpu_enable();
	if (r)
		cmpxchg((int *)error, 0, r);
	else
		__this_cpu_write(enabled, true);
}

static void disable_here(void *unused)
{
	if (!__this_cpu_read(enabled))
		return;
	engine_cpu_disable();
	__this_cpu_write(enabled, false);
}

int hardware_get(void)
{
	int error = 0;

	if (!try_module_get(owner))
		return -ENODEV;
	cpus_read_lock();
	mutex_lock(&hardware_lock);
	if (!vms++) {
		on_each_cpu(enable_here, &error, true);
		if (error) {
			on_each_cpu(disable_here, NULL, true);
			vms--;
		}
	}
	mutex_unlock(&hardware_lock);
	cpus_read_unlock();
	if (error)
		module_put(owner);
	return error;
}

void hardware_put(void)
{
	cpus_read_lock();
	mutex_lock(&hardware_lock);
	if (!--vms)
		on_each_cpu(disable_here, NULL, true);
	mutex_unlock(&hardware_lock);
	cpus_read_unlock();
	module_put(owner);
}

/* On the CPU that comes or goes, while no client's thread can be on it. */
static int cpu_comes(unsigned cpu)
{
	unsigned long flags;
	int error = 0;

	mutex_lock(&hardware_lock);
	if (vms) {
		local_irq_save(flags);
		enable_here(&error);
		local_irq_restore(flags);
	}
	mutex_unlock(&hardware_lock);
	return error;
}

static int cpu_goes(unsigned cpu)
{
	unsigned long flags;

	mutex_lock(&hardware_lock);
	local_irq_save(flags);
	disable_here(NULL);
	local_irq_restore(flags);
	mutex_unlock(&hardware_lock);
	return 0;
}

static u64 slept_at; /* TSC */

/* The last CPU, interrupts off; the others have gone, and no thread runs that could hold the lock. */
static int suspend(void)
{
	disable_here(NULL);
	slept_at = host_rdtsc();
	return 0;
}

static void resume(void)
{
	int error = 0;

	engine_woke(slept_at);
	if (vms)
		enable_here(&error);
	if (!error)
		return;
	/* Firmware may have left it locked. The VMs are still there, but not one of their instructions can run on this CPU */
	pr_err("trine: no virtualization on CPU %u after the machine slept (%d): all guests are stopped\n", smp_processor_id(), error);
	host_stop_guests();
}

static struct syscore_ops power = { .suspend = suspend, .resume = resume };

/*
 * Firmware, or the kernel that is started next, finds each CPU as it was. Guests that still run are stopped for good, and since their
 * clients run on while devices are shut down, no CPU is taken again: one that is in enable_here() gets the interrupt behind it.
 */
static int machine_goes(struct notifier_block *block, unsigned long event, void *unused)
{
	host_stop_guests();
	on_each_cpu(disable_here, NULL, true);
	return NOTIFY_OK;
}

static struct notifier_block reboot = { .notifier_call = machine_goes };

/* ---- /dev/kvm ---------------------------------------------------------------------------------------------------- */

static long device_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return core_system_ioctl(cmd, arg);
}

static long device_compat_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return core_system_ioctl(cmd, (u32)arg);
}

static struct file_operations device_ops = {
	.unlocked_ioctl = device_ioctl,
	.compat_ioctl = device_compat_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice device = { .minor = KVM_MINOR, .name = "kvm", .fops = &device_ops };

static DEFINE_MUTEX(engine_lock);

int trine_register(const struct engine_ops *engine, struct module *module)
{
	int r = -EBUSY;

	mutex_lock(&engine_lock);
	if (owner)
		goto unlock;
	r = engine_install(engine);
	if (r)
		goto unlock;
	owner = module;
	device_ops.owner = module;
	preempt_notifier_inc(); /* for host_sched_begin(). Not with each VM: the first one rewrites the scheduler's code on every CPU */
	r = misc_register(&device);
	if (!r)
		goto unlock;
	preempt_notifier_dec();
	if (r == -EBUSY)
		pr_err("trine: /dev/kvm is taken: unload Linux's own kvm-amd or kvm-intel first\n");
	owner = NULL;
	engine_remove();
unlock:
	mutex_unlock(&engine_lock);
	return r;
}
EXPORT_SYMBOL_GPL(trine_register);

void trine_unregister(void)
{
	mutex_lock(&engine_lock);
	misc_deregister(&device);
	preempt_notifier_dec();
	owner = NULL;
	engine_remove();
	mutex_unlock(&engine_lock);
}
EXPORT_SYMBOL_GPL(trine_unregister);

/* ---- the module -------------------------------------------------------------------------------------------------- */

static int __init load(void)
{
	online_state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "trine:online", cpu_comes, cpu_goes);
	if (online_state < 0)
		return online_state;
	host_stats_open();
	register_syscore_ops(&power);
	register_reboot_notifier(&reboot);
	return 0;
}
module_init(load);

static void __exit unload(void)
{
	unregister_reboot_notifier(&reboot);
	unregister_syscore_ops(&power);
	cpuhp_remove_state(online_state);
	host_stats_close();
}
module_exit(unload);

#ifdef TRINE_TESTS
module_param_named(fail_alloc, host_fail_alloc, int, 0600);
MODULE_PARM_DESC(fail_alloc, "the how manieth allocation from now on fails");
#endif

MODULE_DESCRIPTION("Trine: the Kernel-based Virtual Machine");
MODULE_AUTHOR("The Trine project");
MODULE_LICENSE("GPL v2");
