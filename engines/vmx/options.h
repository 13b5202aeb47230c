/*
 * What the module that holds the engine sees of it; needs bool and no other header.
 *
 *	vmx_options.ept = false;		module parameters, before
 *	error = vmx_setup();			-EOPNOTSUPP: no VT-x here; -ENOMEM
 *	error = trine_register(&vmx_engine, THIS_MODULE);
 */
#ifndef ENGINES_VMX_OPTIONS_H
#define ENGINES_VMX_OPTIONS_H

/* Whether to use what the processor may have; vmx_setup() clears what it has not. */
struct vmx_options {
	bool ept, ept_ad, unrestricted_guest, vpid, vnmi;
	bool flexpriority; /* TPR shadow (29.3), and with EPT the APIC-access page (29.4) */
	bool apicv; /* APIC-register virtualization, virtual-interrupt delivery, and virtualized x2APIC mode (29.1, 29.2, 29.5) */
	bool pml;	   /* page-modification logging (28.3.6) */
	bool preemption_timer; /* the local APIC's timer, while a vCPU does not wait (25.5.1) */
	unsigned ple_gap, ple_window; /* TSC ticks; a gap of 0: PAUSE does not exit */
	/* The longest stay in guest code, in ticks of the preemption timer (25.5.1); 0: until something happens. Only for processors whose
	 * interrupts do not end it: Bochs holds them back when guest code is entered with IF clear. */
	unsigned longest_stay;
	/* Virtual-interrupt delivery (29.2.2) is imprecise. Only for Bochs, where an exit in the middle of it shows an older event in the
	 * IDT-vectoring information (27.2.4), and where, as an interrupt of the host's comes, a virtual one that waits for IF is delivered first. */
	bool imprecise_delivery;
};
extern struct vmx_options vmx_options;

/** Learns what the processor can do. 0, -EOPNOTSUPP, -ENOMEM. Pair with vmx_teardown(). */
int vmx_setup(void);
void vmx_teardown(void);
extern struct engine_ops vmx_engine; /* (i) after vmx_setup() */

#endif
