/* trine-intel.ko: the engine for Intel VT-x. Its parameters are named as those of Linux's kvm-intel, and say after loading what is in use. */
#include <linux/module.h>

#include "engines/vmx/options.h"
#include "modules/modules.h"

module_param_named(ept, vmx_options.ept, bool, 0444);
MODULE_PARM_DESC(ept, "nested page tables; without them the guest's are shadowed");
module_param_named(eptad, vmx_options.ept_ad, bool, 0444);
MODULE_PARM_DESC(eptad, "accessed and dirty bits of nested page tables");
module_param_named(unrestricted_guest, vmx_options.unrestricted_guest, bool, 0444);
MODULE_PARM_DESC(unrestricted_guest, "real mode and unpaged code on the processor; without it they are emulated");
module_param_named(vpid, vmx_options.vpid, bool, 0444);
MODULE_PARM_DESC(vpid, "translations tagged by vCPU");
module_param_named(vnmi, vmx_options.vnmi, bool, 0444);
MODULE_PARM_DESC(vnmi, "the processor keeps track of blocked NMIs");
module_param_named(flexpriority, vmx_options.flexpriority, bool, 0444);
MODULE_PARM_DESC(flexpriority, "the task priority without exits");
module_param_named(enable_apicv, vmx_options.apicv, bool, 0444);
MODULE_PARM_DESC(enable_apicv, "the local APIC's registers and interrupts without exits");
module_param_named(pml, vmx_options.pml, bool, 0444);
MODULE_PARM_DESC(pml, "the processor notes which pages the guest writes");
module_param_named(ple_gap, vmx_options.ple_gap, uint, 0444);
MODULE_PARM_DESC(ple_gap, "TSC ticks between the PAUSEs of one loop; 0: loops are let run");
module_param_named(ple_window, vmx_options.ple_window, uint, 0444);
MODULE_PARM_DESC(ple_window, "TSC ticks after which a loop of PAUSEs leaves the guest");

module_param_named(preemption_timer, vmx_options.preemption_timer, bool, 0444);
MODULE_PARM_DESC(preemption_timer, "the local APIC's timer ends guest code by itself, without a timer of the host's");
module_param_named(longest_stay, vmx_options.longest_stay, uint, 0444);
MODULE_PARM_DESC(longest_stay, "ticks of the preemption timer after which guest code is left; 0: when something happens");
module_param_named(imprecise_delivery, vmx_options.imprecise_delivery, bool, 0444);
MODULE_PARM_DESC(imprecise_delivery, "virtual interrupts come without IF and are not told of by exits, which is mended; for Bochs");

static int __init load(void)
{
	int error = vmx_setup();

	if (error)
		return error;
	error = trine_register(&vmx_engine, THIS_MODULE);
	if (error)
		vmx_teardown();
	return error;
}

static void __exit unload(void)
{
	trine_unregister();
	vmx_teardown();
}

module_init(load);
module_exit(unload);

MODULE_DESCRIPTION("Trine: the engine for Intel VT-x");
MODULE_AUTHOR("The Trine project");
MODULE_LICENSE("GPL v2");
