/*
 * What the modules are to each other. trine.ko has core and the services of the host; an engine's module registers its engine:
 *
 *	static int __init load(void)
 *	{
 *		return trine_register(&svm_engine, THIS_MODULE);
 *	}
 *	static void __exit unload(void)
 *	{
 *		trine_unregister();
 *	}
 *
 * Seen by files of both worlds, with Linux's headers and without.
 */
#ifndef MODULES_MODULES_H
#define MODULES_MODULES_H

struct engine_ops;
struct module;

/** Makes /dev/kvm with @engine behind it. One at a time: 0, -EBUSY (there is an engine, or Linux's own KVM), -errno. */
int trine_register(const struct engine_ops *engine, struct module *owner);
/** @owner goes: no VM exists and nobody has /dev/kvm open, for both hold it. */
void trine_unregister(void);

/* ---- within trine.ko: core.c sees core, trine.c sees Linux ------------------------------------------------------- */

/** Installs @engine, with hardware_get() and hardware_put() around each VM's life. */
int engine_install(const struct engine_ops *engine);
void engine_remove(void);
/** The calling CPU, interrupts off. */
int engine_cpu_enable(void);
void engine_cpu_disable(void);
/** The machine has slept; @tsc is what the TSC was before. See clock_woke(). */
void engine_woke(unsigned long long tsc);

/** The hardware is the engine's, on every CPU, from the first get to the last put. 0, -EBUSY, -EIO, -ENODEV (being unloaded). */
int hardware_get(void);
void hardware_put(void);

#endif
