/* trine-null.ko: the module of an engine that runs no guest, for tests of everything around it. */
#include <linux/module.h>

#include "modules/modules.h"

extern const struct engine_ops null_module_engine;

static int __init load(void)
{
	return trine_register(&null_module_engine, THIS_MODULE);
}
module_init(load);

static void __exit unload(void)
{
	trine_unregister();
}
module_exit(unload);

MODULE_DESCRIPTION("Trine: an engine without guests");
MODULE_LICENSE("GPL v2");
