/*
 * What the module that holds the engine sees of it; needs bool and no other header.
 *
 *	error = svm_setup(npt);
 *	error = trine_register(&svm_engine, THIS_MODULE);
 */
#ifndef ENGINES_SVM_OPTIONS_H
#define ENGINES_SVM_OPTIONS_H

/**
 * @npt: nested paging, where the processor has it. 0; -EOPNOTSUPP: no AMD-V, or the firmware switched it off; -ENOMEM. May sleep. Pair with
 * svm_teardown().
 */
int svm_setup(bool npt);
void svm_teardown(void);
extern struct engine_ops svm_engine; /* (i) after svm_setup() */

#endif
