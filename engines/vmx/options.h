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
	/* APIC-register virtualization, virtual-interrupt delivery, and virtualized x2APIC mode (29.1, 29.2, 29.5). Not unless asked for: boots of
	 * Debian did not end with it in Bochs, two of seven, and whether that is Bochs's doing is not known. */
	bool apicv;
	bool pml;	   /* page-modification logging (28.3.6) */
	unsigned ple_gap, ple_window; /* TSC ticks; a gap of 0: PAUSE does not exit */
	/* The longest stay in guest code, in ticks of the preemption timer (25.5.1); 0: until something happens. Only for processors whose
	 * interrupts do not end it: Bochs holds them back when guest code is entered with IF clear. */
	unsigned longest_stay;
	/* Which virtual interrupt an exit comes in the middle of is told by the vector in service. Only for processors whose IDT-vectoring
	 * information (27.2.4) knows nothing of these: Bochs shows an older event's. */
	bool vectoring_by_svi;
};
extern struct vmx_options vmx_options;

/** Learns what the processor can do. 0, -EOPNOTSUPP, -ENOMEM. Pair with vmx_teardown(). */
int vmx_setup(void);
void vmx_teardown(void);
extern struct engine_ops vmx_engine; /* (i) after vmx_setup() */

#endif
