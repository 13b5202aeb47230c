/* trine-amd.ko: the engine for AMD-V. */
#include <linux/module.h>

#include "engines/svm/options.h"
#include "modules/modules.h"

static bool npt = true;
module_param(npt, bool, 0444);
MODULE_PARM_DESC(npt, "nested paging, where the processor has it");

static int __init load(void)
{
	int r = svm_setup(npt);

	if (r)
		return r;
	r = trine_register(&svm_engine, THIS_MODULE);
	if (r)
		svm_teardown();
	return r;
}
module_init(load);

static void __exit unload(void)
{
	trine_unregister();
	svm_teardown();
}
module_exit(unload);

MODULE_DESCRIPTION("Trine: the engine for AMD-V");
MODULE_AUTHOR("The Trine project");
MODULE_LICENSE("GPL v2");
