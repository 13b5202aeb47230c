/*
 * What CPUID tells the guest: what the accelerator supports, the topology of -smp, and -cpu's
 * +feature,-feature.
 *
 *	cpuid_model(m, "host,-avx2", err)	checks the -cpu value once, at start-up
 *	cpuid_apply(vcpu, err)			gives a vCPU its leaves
 */
#ifndef VMM_CPUID_H
#define VMM_CPUID_H

#include "vmm/util.h"

struct machine;
struct vcpu;

/**
 * Prepares the leaves for m->config.cpu. Errors: an unknown model or feature, one that the
 * accelerator lacks; text set.
 */
int cpuid_prepare(struct machine *m, struct error *err);
void cpuid_free(struct machine *m);
int cpuid_apply(struct vcpu *vcpu, struct error *err);

/**
 * APIC ID of vCPU @index: package, core and thread in bit fields wide enough for each (SDM 3A 9.9).
 */
u32 cpuid_apic_id(const struct machine *m, u32 index);

/** Physical address bits that the guest is told. */
unsigned cpuid_physical_bits(const struct machine *m);

/** Prints models and features (-cpu help). */
void cpuid_help(void);

#endif
