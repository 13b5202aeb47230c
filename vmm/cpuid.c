/*
 * CPUID for the guest. The leaves are KVM_GET_SUPPORTED_CPUID's, so what the accelerator cannot do
 * is never shown; over them goes the topology, in the forms of both vendors (SDM 2A CPUID leaves 1,
 * 4, 0xb, 0x1f; APM 3 appendix E 0x80000008, 0x8000001d, 0x8000001e), and the user's choice of
 * features.
 */
#include "vmm/cpuid.h"
#include "vmm/cpuid_features.h"
#include "vmm/machine.h"
#include <stdio.h>
#include <stdlib.h>

#define LEAVES_MAX 256

enum { EAX, EBX, ECX, EDX };

/* A struct kvm_cpuid2 with room. */
struct cpuid {
	u32 nent, padding;
	struct kvm_cpuid_entry2 entries[LEAVES_MAX];
};
static_assert(offsetof(struct cpuid, entries) == sizeof(struct kvm_cpuid2), "what KVM takes");

static u32 *reg_of(struct kvm_cpuid_entry2 *e, unsigned reg)
{
	switch (reg) {
	case EAX: return &e->eax;
	case EBX: return &e->ebx;
	case ECX: return &e->ecx;
	default: return &e->edx;
	}
}

static struct kvm_cpuid_entry2 *find(struct cpuid *c, u32 leaf, u32 index)
{
	u32 i;

	for (i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf &&
		    (!(c->entries[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) ||
		     c->entries[i].index == index))
			return &c->entries[i];
	return NULL;
}

static struct kvm_cpuid_entry2 *add(struct cpuid *c, u32 leaf, u32 index)
{
	struct kvm_cpuid_entry2 *e;

	if (c->nent == LEAVES_MAX)
		return NULL;
	e = &c->entries[c->nent++];
	*e = (struct kvm_cpuid_entry2){ .function = leaf,
					.index = index,
					.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX };
	return e;
}

static void drop(struct cpuid *c, u32 leaf)
{
	u32 i, n = 0;

	for (i = 0; i < c->nent; i++)
		if (c->entries[i].function != leaf)
			c->entries[n++] = c->entries[i];
	c->nent = n;
}

static unsigned bits_for(u32 count)
{
	unsigned bits = 0;

	while (1u << bits < count)
		bits++;
	return bits;
}

u32 cpuid_apic_id(const struct machine *m, u32 index)
{
	const struct machine_config *c = &m->config;
	unsigned thread_bits = bits_for(c->threads), core_bits = bits_for(c->cores);
	u32 thread = index % c->threads, core = index / c->threads % c->cores,
	    package = index / c->threads / c->cores;

	return package << (core_bits + thread_bits) | core << thread_bits | thread;
}

unsigned cpuid_physical_bits(const struct machine *m)
{
	struct kvm_cpuid_entry2 *e = m->cpuid ? find(m->cpuid, 0x80000008, 0) : NULL;

	return e && (e->eax & 0xff) >= 32 ? e->eax & 0xff : 36;
}

static const struct cpuid_feature *feature_find(const char *name, size_t len)
{
	const struct cpuid_feature *f;

	for (f = cpuid_features; f->name; f++)
		if (strlen(f->name) == len && !strncmp(f->name, name, len))
			return f;
	return NULL;
}

static int set_feature(struct cpuid *c, const struct cpuid_feature *f, bool on, struct error *err)
{
	struct kvm_cpuid_entry2 *e = find(c, f->leaf, f->index);
	u32 bit = 1u << f->bit;

	if (on && (!e || !(*reg_of(e, f->reg) & bit)))
		return error_set(err, -ENOTSUP, "%s: the accelerator does not have this feature",
				 f->name);
	if (e && !on)
		*reg_of(e, f->reg) &= ~bit;
	return 0;
}

/* "host,+avx,-sse4.2,x2apic=off,pdpe1gb" */
static int apply_features(struct machine *m, struct cpuid *c, const char *text, struct error *err)
{
	const struct cpuid_feature *f;
	const char *p, *end, *name, *eq;
	size_t len;
	int r;
	bool on;

	for (p = text; *p; p = *end ? end + 1 : end) {
		end = p + strcspn(p, ",");
		on = true;
		name = p;
		len = end - p;
		if (*p == '+' || *p == '-') {
			on = *p == '+';
			name++;
			len--;
		} else if ((eq = memchr(p, '=', len))) {
			char value[8];

			snprintf(value, sizeof(value), "%.*s", (int)(end - eq - 1), eq + 1);
			if (parse_bool(value, &on) < 0)
				return error_set(err, -EINVAL, "%.*s: on or off is wanted",
						 (int)len, p);
			len = eq - p;
		}
		f = feature_find(name, len);
		if (!f)
			return error_set(err, -EINVAL,
					 "%.*s: no such CPU feature; -cpu help lists them",
					 (int)len, name);
		r = set_feature(c, f, on, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * Features that KVM has by other means than its list, or that the machine around the CPU decides.
 */
static void adjust(struct machine *m, struct cpuid *c)
{
	struct kvm_cpuid_entry2 *e = find(c, 1, 0);

	if (e) {
		e->ecx |= 1u << 31; /* a hypervisor is there */
		if (accel_has(m, KVM_CAP_TSC_DEADLINE_TIMER))
			e->ecx |= 1u << 24;
		e->ecx &= ~(1u << 3);  /* MONITOR and MWAIT cannot be let through */
		e->ecx &= ~(1u << 27); /* OSXSAVE follows the guest's CR4 */
	}
	/* Of the two x2APIC topology leaves only 0xb is filled in. */
	drop(c, 0x1f);
	/* Thermal and power: nothing but the APIC timer that never stops. */
	e = find(c, 6, 0);
	if (e) {
		e->eax &= 1u << 2;
		e->ebx = e->ecx = e->edx = 0;
	}
}

int cpuid_prepare(struct machine *m, struct error *err)
{
	const char *cpu = m->config.cpu ? m->config.cpu : "host", *rest;
	struct cpuid *c;
	size_t len = strcspn(cpu, ",");
	int r;

	if (!(len == 4 && !strncmp(cpu, "host", 4)) && !(len == 3 && !strncmp(cpu, "max", 3)))
		return error_set(err, -EINVAL, "-cpu %s: no such model; there are host and max",
				 cpu);
	rest = cpu[len] ? cpu + len + 1 : "";
	c = xzalloc(sizeof(*c));
	c->nent = LEAVES_MAX;
	m->cpuid = c;
	r = accel_ioctl(m, m->kvm_fd, KVM_GET_SUPPORTED_CPUID, c);
	if (r < 0)
		return error_set(err, r, "KVM_GET_SUPPORTED_CPUID: %s", strerror(-r));
	adjust(m, c);
	r = apply_features(m, c, rest, err);
	return r < 0 ? error_prefix(err, r, "-cpu %s", cpu) : 0;
}

void cpuid_free(struct machine *m)
{
	free(m->cpuid);
	m->cpuid = NULL;
}

/*
 * Leaf 0xb: one subleaf for threads of a core, one for logical processors of a package, an empty
 * one.
 */
static void topology_leaf_b(struct cpuid *c, const struct vcpu *vcpu)
{
	const struct machine_config *config = &vcpu->machine->config;
	unsigned thread_bits = bits_for(config->threads), core_bits = bits_for(config->cores), i;
	struct kvm_cpuid_entry2 *e;

	if (!find(c, 0xb, 0) && find(c, 0, 0) && find(c, 0, 0)->eax < 0xb)
		return;
	drop(c, 0xb);
	for (i = 0; i < 3; i++) {
		e = add(c, 0xb, i);
		if (!e)
			return;
		e->ecx = i;
		e->edx = vcpu->apic_id;
		if (i == 0) {
			e->eax = thread_bits;
			e->ebx = config->threads;
			e->ecx |= 1 << 8;
		} else if (i == 1) {
			e->eax = thread_bits + core_bits;
			e->ebx = config->threads * config->cores;
			e->ecx |= 2 << 8;
		}
	}
}

static void topology_amd(struct cpuid *c, const struct vcpu *vcpu)
{
	const struct machine_config *config = &vcpu->machine->config;
	unsigned thread_bits = bits_for(config->threads), core_bits = bits_for(config->cores);
	u32 package = config->threads * config->cores, i;
	struct kvm_cpuid_entry2 *e;

	e = find(c, 0x80000008, 0);
	if (e)
		e->ecx = (e->ecx & ~0xf0ffu) | (package - 1) | (thread_bits + core_bits) << 12;
	e = find(c, 0x80000001, 0);
	if (e) /* CmpLegacy, TopologyExtensions where leaf 0x8000001e is there */
		e->ecx = (e->ecx & ~2u) | (package > 1 ? 2 : 0);
	e = find(c, 0x8000001e, 0);
	if (e) {
		e->eax = vcpu->apic_id;
		e->ebx = (config->threads - 1) << 8 | vcpu->apic_id >> thread_bits;
		e->ecx = vcpu->apic_id >> (thread_bits + core_bits);
		e->edx = 0;
	}
	for (i = 0; i < 8 && (e = find(c, 0x8000001d, i)) && e->eax & 0x1f; i++) {
		unsigned level = e->eax >> 5 & 7;

		e->eax = (e->eax & ~(0xfffu << 14)) | ((level >= 3 ? package : config->threads) - 1)
							      << 14;
	}
}

static void topology_intel(struct cpuid *c, const struct vcpu *vcpu)
{
	const struct machine_config *config = &vcpu->machine->config;
	unsigned thread_bits = bits_for(config->threads), core_bits = bits_for(config->cores), i;
	struct kvm_cpuid_entry2 *e;

	for (i = 0; i < 8; i++) {
		unsigned sharing;

		e = find(c, 4, i);
		if (!e || !(e->eax & 0x1f))
			break;
		sharing = (e->eax >> 5 & 7) >= 3 ? thread_bits + core_bits : thread_bits;
		e->eax &= 0x3fff;
		e->eax |= ((1u << sharing) - 1) << 14 | ((1u << core_bits) - 1) << 26;
	}
}

int cpuid_apply(struct vcpu *vcpu, struct error *err)
{
	struct machine *m = vcpu->machine;
	const struct machine_config *config = &m->config;
	struct cpuid *c = xzalloc(sizeof(*c));
	u32 package = config->threads * config->cores;
	struct kvm_cpuid_entry2 *e;
	int r;

	*c = *m->cpuid;
	e = find(c, 1, 0);
	if (e) {
		unsigned ids = 1u << (bits_for(config->threads) + bits_for(config->cores));

		e->ebx = (e->ebx & 0xffff) | MIN(ids, 255u) << 16 | vcpu->apic_id << 24;
		e->edx = (e->edx & ~(1u << 28)) | (package > 1 ? 1u << 28 : 0);
	}
	topology_intel(c, vcpu);
	topology_amd(c, vcpu);
	topology_leaf_b(c, vcpu);
	r = accel_ioctl(m, vcpu->fd, KVM_SET_CPUID2, c);
	free(c);
	return r < 0 ? error_set(err, r, "vCPU %u: KVM_SET_CPUID2: %s", vcpu->id, strerror(-r)) : 0;
}

void cpuid_help(void)
{
	const struct cpuid_feature *f;
	unsigned column = 0;

	printf("host    what the accelerator can show of the processor (default)\n"
	       "max     the same\n\n"
	       "Features, as in -cpu host,-avx2 or -cpu host,avx2=off:\n");
	for (f = cpuid_features; f->name; f++) {
		if (column + strlen(f->name) > 76) {
			printf("\n");
			column = 0;
		}
		column += printf("  %s", f->name);
	}
	printf("\n");
}
