/*
 * KVM_GET_STATS_FD (KVM API document 4.133): a descriptor whose contents are a header, a name, the descriptors of the
 * counters, and the counters themselves, live. All of it stands in one shared area, so that a plain read(2) serves it.
 */
#include "core/stats.h"

#include "core/vcpu.h"

#define NAME_SIZE 48 /* Linux's, the zero at the end included */

struct stat_name {
	const char *name;
	u32 offset; /* in struct vm_stats or struct vcpu_stats */
};

#define VM_STAT(field)	    { #field, offsetof(struct vm_stats, field) }
#define VCPU_STAT(field)    { #field, offsetof(struct vcpu_stats, field) }
#define VCPU_TIME(name, at) { #name, offsetof(struct vcpu_stats, time_ns) + TIME_##at * sizeof(u64) }

static const struct stat_name vm_names[] = {
	VM_STAT(remote_tlb_flush),
	VM_STAT(mmu_flush),
	VM_STAT(mmio_exits_in_kernel),
};

static const struct stat_name vcpu_names[] = {
	VCPU_STAT(halt_successful_poll),
	VCPU_STAT(halt_attempted_poll),
	VCPU_STAT(halt_wakeup),
	VCPU_STAT(pf_taken),
	VCPU_STAT(pf_fixed),
	VCPU_STAT(pf_emulate),
	VCPU_STAT(tlb_flush),
	VCPU_STAT(invlpg),
	VCPU_STAT(exits),
	VCPU_STAT(io_exits),
	VCPU_STAT(mmio_exits),
	VCPU_STAT(signal_exits),
	VCPU_STAT(irq_window_exits),
	VCPU_STAT(nmi_window_exits),
	VCPU_STAT(halt_exits),
	VCPU_STAT(request_irq_exits),
	VCPU_STAT(irq_exits),
	VCPU_STAT(fpu_reload),
	VCPU_STAT(insn_emulation),
	VCPU_STAT(insn_emulation_fail),
	VCPU_STAT(hypercalls),
	VCPU_STAT(irq_injections),
	VCPU_STAT(nmi_injections),
	VCPU_STAT(req_event),
	VCPU_STAT(guest_mode),
};

static const struct stat_name vcpu_times[] = {
	VCPU_TIME(guest_time_ns, GUEST),
	VCPU_TIME(core_time_ns, CORE),
	VCPU_TIME(halt_time_ns, HALT),
	VCPU_TIME(monitor_time_ns, MONITOR),
};

/* exit_NAME: why guest code was left. */
static const char *const exit_names[EXIT_REASONS] = {
	[EXIT_NONE] = "none",
	[EXIT_IRQ_WINDOW] = "irq_window",
	[EXIT_HLT] = "hlt",
	[EXIT_SHUTDOWN] = "shutdown",
	[EXIT_USER] = "user",
	[EXIT_DEBUG] = "debug",
	[EXIT_EXCEPTION] = "exception",
	[EXIT_EMULATE] = "emulate",
	[EXIT_PAGE_FAULT] = "page_fault",
	[EXIT_CPUID] = "cpuid",
	[EXIT_MSR_READ] = "msr_read",
	[EXIT_MSR_WRITE] = "msr_write",
	[EXIT_CR] = "cr",
	[EXIT_DR] = "dr",
	[EXIT_IO] = "io",
	[EXIT_HYPERCALL] = "hypercall",
	[EXIT_PAUSE] = "pause",
	[EXIT_XSETBV] = "xsetbv",
	[EXIT_INTERNAL_ERROR] = "internal_error",
	[EXIT_EFAULT] = "efault",
	[EXIT_FAIL_ENTRY] = "fail_entry",
};

const char *stats_exit_name(unsigned reason)
{
	return reason < EXIT_REASONS ? exit_names[reason] : NULL;
}

/* user_exit_NAME: what KVM_RUN returned to the client with. Those of other architectures have numbers. */
static const char *const user_exit_names[VCPU_USER_EXITS] = {
	[KVM_EXIT_UNKNOWN] = "unknown",
	[KVM_EXIT_EXCEPTION] = "exception",
	[KVM_EXIT_IO] = "io",
	[KVM_EXIT_HYPERCALL] = "hypercall",
	[KVM_EXIT_DEBUG] = "debug",
	[KVM_EXIT_HLT] = "hlt",
	[KVM_EXIT_MMIO] = "mmio",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "irq_window_open",
	[KVM_EXIT_SHUTDOWN] = "shutdown",
	[KVM_EXIT_FAIL_ENTRY] = "fail_entry",
	[KVM_EXIT_INTR] = "intr",
	[KVM_EXIT_SET_TPR] = "set_tpr",
	[KVM_EXIT_TPR_ACCESS] = "tpr_access",
	[KVM_EXIT_NMI] = "nmi",
	[KVM_EXIT_INTERNAL_ERROR] = "internal_error",
	[KVM_EXIT_SYSTEM_EVENT] = "system_event",
	[KVM_EXIT_IOAPIC_EOI] = "ioapic_eoi",
	[KVM_EXIT_X86_RDMSR] = "x86_rdmsr",
	[KVM_EXIT_X86_WRMSR] = "x86_wrmsr",
	[KVM_EXIT_DIRTY_RING_FULL] = "dirty_ring_full",
	[KVM_EXIT_X86_BUS_LOCK] = "x86_bus_lock",
	[KVM_EXIT_NOTIFY] = "notify",
};

/* The flexible array at the end of struct kvm_stats_desc is always NAME_SIZE long. */
struct stat_desc {
	struct kvm_stats_desc desc;
	char name[NAME_SIZE];
};
static_assert(sizeof(struct stat_desc) == sizeof(struct kvm_stats_desc) + NAME_SIZE, "no padding");

#define CUMULATIVE (KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_BASE_POW10)

/* Fills one area: once to count descriptors (->desc NULL), once to write them. */
struct builder {
	struct stat_desc *desc;
	unsigned count;
};

static void add(struct builder *b, const char *prefix, const char *name, u32 offset, u32 flags, s16 exponent)
{
	struct stat_desc *d = b->desc ? b->desc + b->count : NULL;

	b->count++;
	if (!d)
		return;
	d->desc.flags = flags;
	d->desc.exponent = exponent;
	d->desc.size = 1;
	d->desc.offset = offset;
	host_snprintf(d->name, NAME_SIZE, "%s%s%s", prefix, *prefix ? "_" : "", name);
}

static void add_names(struct builder *b, const struct stat_name *names, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		add(b, "", names[i].name, names[i].offset, CUMULATIVE | KVM_STATS_UNIT_NONE, 0);
}

static void add_reasons(struct builder *b, const char *prefix, const char *const *names, unsigned count, u32 offset)
{
	for (unsigned i = 0; i < count; i++) {
		char number[12];

		/* Readers expect the values to lie one behind the other, without holes */
		host_snprintf(number, sizeof(number), "%u", i);
		add(b, prefix, names[i] ? names[i] : number, offset + i * sizeof(u64), CUMULATIVE | KVM_STATS_UNIT_NONE, 0);
	}
}

/* The engine's stand behind core's own, in the order of its table. */
static unsigned add_engine(struct builder *b, const struct engine_stat *stat, const char *engine, u32 offset)
{
	static const u32 kinds[] = { [STAT_CUMULATIVE] = KVM_STATS_TYPE_CUMULATIVE,
				     [STAT_INSTANT] = KVM_STATS_TYPE_INSTANT,
				     [STAT_PEAK] = KVM_STATS_TYPE_PEAK };
	static const u32 units[] = { [STAT_COUNT] = KVM_STATS_UNIT_NONE,
				     [STAT_BYTES] = KVM_STATS_UNIT_BYTES,
				     [STAT_TICKS] = KVM_STATS_UNIT_SECONDS };
	unsigned n;

	for (n = 0; stat && stat[n].name; n++)
		add(b, engine, stat[n].name, offset + n * sizeof(u64),
		    kinds[stat[n].kind] | units[stat[n].unit] | (stat[n].unit == STAT_BYTES ? KVM_STATS_BASE_POW2 : KVM_STATS_BASE_POW10),
		    stat[n].unit == STAT_TICKS ? -9 : 0);
	return n;
}

static u32 add_vm(struct builder *b, struct vm *vm)
{
	add_names(b, vm_names, ARRAY_SIZE(vm_names));
	return sizeof(struct vm_stats) +
	       add_engine(b, vm->engine->vm_stats, vm->engine->name, sizeof(struct vm_stats)) * sizeof(u64);
}

static u32 add_vcpu(struct builder *b, struct vm *vm)
{
	add_names(b, vcpu_names, ARRAY_SIZE(vcpu_names));
	for (unsigned i = 0; i < ARRAY_SIZE(vcpu_times); i++)
		add(b, "", vcpu_times[i].name, vcpu_times[i].offset, CUMULATIVE | KVM_STATS_UNIT_SECONDS, -9);
	add_reasons(b, "exit", exit_names, EXIT_REASONS, offsetof(struct vcpu_stats, exit_reason));
	add_reasons(b, "user_exit", user_exit_names, VCPU_USER_EXITS, offsetof(struct vcpu_stats, user_exit));
	add(b, "", "user_exit_error", offsetof(struct vcpu_stats, user_exit_error), CUMULATIVE | KVM_STATS_UNIT_NONE, 0);
	return sizeof(struct vcpu_stats) +
	       add_engine(b, vm->engine->vcpu_stats, vm->engine->name, sizeof(struct vcpu_stats)) * sizeof(u64);
}

static int build(struct host_shared *area, u32 (*list)(struct builder *b, struct vm *vm), struct vm *vm, void **data)
{
	struct builder b = { NULL, 0 };
	struct kvm_stats_header *header;
	u32 data_size = list(&b, vm), offset;
	int error;

	offset = (u32)(sizeof(*header) + NAME_SIZE + b.count * sizeof(struct stat_desc));
	error = host_shared_alloc(area, offset + data_size);
	if (error)
		return error;
	header = area->addr;
	header->name_size = NAME_SIZE;
	header->num_desc = b.count;
	header->id_offset = sizeof(*header);
	header->desc_offset = header->id_offset + NAME_SIZE;
	header->data_offset = offset;
	b.desc = (struct stat_desc *)((char *)area->addr + header->desc_offset);
	b.count = 0;
	list(&b, vm);
	*data = (char *)area->addr + offset;
	return 0;
}

static char *id_of(struct host_shared *area)
{
	return (char *)area->addr + sizeof(struct kvm_stats_header);
}

int stats_vm_init(struct vm *vm)
{
	int error = build(&vm->stats_area, add_vm, vm, (void **)&vm->stats);
	u32 khz = host_tsc_khz();

	vm->ticks_tsc = khz;
	vm->tick_ns = khz ? (1000000ULL << 32) / khz : 1ULL << 32;
	if (!error)
		host_snprintf(id_of(&vm->stats_area), NAME_SIZE, "kvm-%u", vm->pid);
	return error;
}

int stats_vcpu_init(struct vcpu *vcpu)
{
	int error = build(&vcpu->stats_area, add_vcpu, vcpu->vm, (void **)&vcpu->stats);

	vcpu->time.since = vcpu->time.copied = stats_now(vcpu->vm);
	if (!error)
		host_snprintf(id_of(&vcpu->stats_area), NAME_SIZE, "kvm-%u/vcpu-%u", vcpu->vm->pid, vcpu->id);
	return error;
}

static u64 ticks_to_ns(const struct vm *vm, u64 ticks)
{
	return (u64)((unsigned __int128)ticks * vm->tick_ns >> 32);
}

static void copy(const struct vm *vm, const struct engine_stat *stat, const void *from, u64 *to)
{
	for (; stat && stat->name; stat++, to++) {
		u64 value = __atomic_load_n((const u64 *)((const char *)from + stat->offset), __ATOMIC_RELAXED);

		__atomic_store_n(to, stat->unit == STAT_TICKS ? ticks_to_ns(vm, value) : value, __ATOMIC_RELAXED);
	}
}

void stats_sync(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;

	for (unsigned i = 0; i < VCPU_TIMES; i++)
		__atomic_store_n(&vcpu->stats->time_ns[i], ticks_to_ns(vm, vcpu->time.ticks[i]), __ATOMIC_RELAXED);
	copy(vm, vm->engine->vcpu_stats, vcpu, (u64 *)(vcpu->stats + 1));
	copy(vm, vm->engine->vm_stats, vm, (u64 *)(vm->stats + 1));
	vcpu->time.copied = vcpu->time.since;
}

/* ---- the descriptor ------------------------------------------------------------------------------------------ */

struct stats_file {
	struct host_file file;
	struct vm *vm; /* kept alive */
	struct host_shared *area;
};

static struct stats_file *of_file(struct host_file *file)
{
	return container_of(file, struct stats_file, file);
}

static long stats_ioctl(struct host_file *file, unsigned cmd, u64 arg)
{
	return -ENOTTY;
}

static struct host_shared *stats_backing(struct host_file *file)
{
	return of_file(file)->area;
}

static long stats_read(struct host_file *file, u64 dst, size_t len, u64 offset)
{
	struct host_shared *area = of_file(file)->area;
	u64 size = area->size;

	if (offset >= size)
		return 0;
	len = MIN(len, size - offset);
	return host_copy_to_client(dst, (char *)area->addr + offset, len) ? -EFAULT : (long)len;
}

static void stats_release(struct host_file *file)
{
	struct stats_file *s = of_file(file);

	vm_put(s->vm);
	host_free(s);
}

static const struct host_file_ops stats_ops = {
	.name = "kvm-stats",
	.ioctl = stats_ioctl,
	.backing = stats_backing,
	.read = stats_read,
	.release = stats_release,
};

long stats_open(struct vm *vm, struct host_shared *area)
{
	struct stats_file *s = host_zalloc(sizeof(*s));
	int fd;

	if (!s)
		return -ENOMEM;
	s->file.ops = &stats_ops;
	s->vm = vm;
	s->area = area;
	vm_get(vm);
	fd = host_file_install(&s->file);
	if (fd < 0) {
		host_free(s);
		vm_put(vm);
	}
	return fd;
}
