/* trine-amd.ko: the engine for AMD-V. */
#include <linux/module.h>

#include "engines/svm/options.h"
#include "modules/modules.h"

static struct svm_options options = { .npt = true, .vnmi = true, .lbrv = true };
module_param_named(npt, options.npt, bool, 0444);
MODULE_PARM_DESC(npt, "nested paging, where the processor has it");
module_param_named(vnmi, options.vnmi, bool, 0444);
MODULE_PARM_DESC(vnmi, "virtual NMIs, where the processor has them");
module_param_named(lbrv, options.lbrv, bool, 0444);
MODULE_PARM_DESC(lbrv, "guests' own last-branch records, where the processor can switch them");

module_param_named(avic, options.avic, bool, 0444);
MODULE_PARM_DESC(avic, "the local APIC's registers, IPIs and interrupts without exits, where the processor has AVIC; off unless asked for: it has never "
		       "run on one");

static int __init load(void)
{
	int r = svm_setup(&options);

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
