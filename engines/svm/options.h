/*
 * What the module that holds the engine sees of it; needs bool and no other header.
 *
 *	error = svm_setup(&options);
 *	error = trine_register(&svm_engine, THIS_MODULE);
 */
#ifndef ENGINES_SVM_OPTIONS_H
#define ENGINES_SVM_OPTIONS_H

/* What is asked for, and then what the processor has of it. */
struct svm_options {
	bool npt;  /* nested paging, 15.25 */
	bool vnmi; /* NMIs are held back and delivered by the processor, 15.21.10 */
	bool lbrv; /* guests have DEBUGCTL.LBR, 15.23 */
	bool avic; /* the local APIC's registers, IPIs and interrupts without exits, 15.29. Off unless asked for: no processor has run it yet */
};

/**
 * 0; -EOPNOTSUPP: no AMD-V, or the firmware switched it off; -ENOMEM. May sleep. Pair with
 * svm_teardown().
 */
int svm_setup(struct svm_options *options);
void svm_teardown(void);
extern struct engine_ops svm_engine; /* (i) after svm_setup() */

#endif
