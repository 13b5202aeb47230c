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

#define VM_STAT(field)	 { #field, offsetof(struct vm_stats, field) }
#define VCPU_STAT(field) { #field, offsetof(struct vcpu_stats, field) }

static const struct stat_name vm_names[] = {
	VM_STAT(remote_tlb_flush),
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

/* The flexible array at the end of struct kvm_stats_desc is always NAME_SIZE long. */
struct stat_desc {
	struct kvm_stats_desc desc;
	char name[NAME_SIZE];
};
static_assert(sizeof(struct stat_desc) == sizeof(struct kvm_stats_desc) + NAME_SIZE, "no padding");

static u32 data_offset(unsigned count)
{
	return (u32)(sizeof(struct kvm_stats_header) + NAME_SIZE + count * sizeof(struct stat_desc));
}

static int build(struct host_shared *area, const struct stat_name *names, unsigned count, size_t data_size, void **data)
{
	u32 offset = data_offset(count);
	struct kvm_stats_header *header;
	struct stat_desc *desc;
	unsigned i;
	int error = host_shared_alloc(area, offset + data_size);

	if (error)
		return error;
	header = area->addr;
	header->name_size = NAME_SIZE;
	header->num_desc = count;
	header->id_offset = sizeof(*header);
	header->desc_offset = header->id_offset + NAME_SIZE;
	header->data_offset = offset;
	desc = (struct stat_desc *)((char *)area->addr + header->desc_offset);
	for (i = 0; i < count; i++) {
		desc[i].desc.flags = KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE | KVM_STATS_BASE_POW10;
		desc[i].desc.size = 1;
		desc[i].desc.offset = names[i].offset;
		host_snprintf(desc[i].name, NAME_SIZE, "%s", names[i].name);
	}
	*data = (char *)area->addr + offset;
	return 0;
}

static char *id_of(struct host_shared *area)
{
	return (char *)area->addr + sizeof(struct kvm_stats_header);
}

int stats_vm_init(struct vm *vm)
{
	int error = build(&vm->stats_area, vm_names, ARRAY_SIZE(vm_names), sizeof(*vm->stats), (void **)&vm->stats);

	if (!error)
		host_snprintf(id_of(&vm->stats_area), NAME_SIZE, "kvm-%u", vm->pid);
	return error;
}

int stats_vcpu_init(struct vcpu *vcpu)
{
	int error = build(&vcpu->stats_area, vcpu_names, ARRAY_SIZE(vcpu_names), sizeof(*vcpu->stats),
			  (void **)&vcpu->stats);

	if (!error)
		host_snprintf(id_of(&vcpu->stats_area), NAME_SIZE, "kvm-%u/vcpu-%u", vcpu->vm->pid, vcpu->id);
	return error;
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
	const struct kvm_stats_header *header = area->addr;
	u64 size = header->data_offset + header->num_desc * sizeof(u64);

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
