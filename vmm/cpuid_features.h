/* The table of CPU feature names behind -cpu +NAME and -cpu help. */
#ifndef VMM_CPUID_FEATURES_H
#define VMM_CPUID_FEATURES_H

#include "vmm/util.h"

struct cpuid_feature {
	const char *name;
	u32 leaf, index;
	u8 reg; /* 0-3: EAX, EBX, ECX, EDX */
	u8 bit;
};

/* Ends with an empty entry. */
extern const struct cpuid_feature cpuid_features[];

#endif
