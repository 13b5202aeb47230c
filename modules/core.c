/* Core's side of trine.ko: the engine, and that each VM holds the hardware. */
#include "core/vm.h"
#include "core/x86/clock.h"

#include "modules/modules.h"

static const struct engine_ops *engine;
static struct engine_ops installed; /* what core sees: @engine, but for a VM's begin and end */

static int vm_init(struct vm *vm)
{
	int r = hardware_get();

	if (r)
		return r;
	r = engine->vm_init(vm);
	if (r)
		hardware_put();
	return r;
}

static void vm_destroy(struct vm *vm)
{
	engine->vm_destroy(vm);
	hardware_put();
}

int engine_install(const struct engine_ops *ops)
{
	engine = ops;
	installed = *ops;
	installed.vm_init = vm_init;
	installed.vm_destroy = vm_destroy;
	return core_init(&installed);
}

void engine_remove(void)
{
	engine = NULL;
}

int engine_cpu_enable(void)
{
	return engine->cpu_enable ? engine->cpu_enable() : 0;
}

void engine_cpu_disable(void)
{
	if (engine->cpu_disable)
		engine->cpu_disable();
}

void engine_woke(unsigned long long tsc)
{
	clock_woke(tsc);
}
