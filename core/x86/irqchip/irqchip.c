/*
 * The chips as one thing: making and unmaking them, their state by the KVM API, and what a vCPU sees of them.
 */
#include "core/x86/hyperv/hyperv.h"
#include "core/x86/irqchip/chips.h"

/* ---- a vCPU's view ------------------------------------------------------------------------------------------- */

bool irqchip_has_external(struct vcpu *vcpu)
{
	if (vcpu->vm->irqchip == IRQCHIP_SPLIT)
		return vcpu->pending_external_vector >= 0;
	return pic_output(vcpu->vm->pic) && (!vcpu->lapic || lapic_accepts_pic(vcpu->lapic));
}

/* Whether the LAPIC, enabled, gives its highest request, @vector (-1: none), to the processor: its class is above the processor priority. */
static bool lapic_gives(const struct lapic *l, int vector)
{
	return vector >= 0 && ((unsigned)vector & 0xf0) > (lapic_ppr(l) & 0xf0);
}

bool irqchip_has_interrupt(struct vcpu *vcpu)
{
	const struct lapic *l = vcpu->lapic;

	return irqchip_has_external(vcpu) || (l && lapic_sw_enabled(l) && lapic_gives(l, lapic_highest_request(l)));
}

int irqchip_ack_interrupt(struct vcpu *vcpu)
{
	struct lapic *l = vcpu->lapic;
	int vector;

	if (irqchip_has_external(vcpu)) {
		if (vcpu->vm->irqchip != IRQCHIP_SPLIT)
			return pic_ack(vcpu->vm->pic);
		vector = vcpu->pending_external_vector;
		vcpu->pending_external_vector = -1;
		return vector;
	}
	if (!l || !lapic_sw_enabled(l))
		return -1;
	lapic_collect(l);
	vector = lapic_highest(l, APIC_IRR);
	if (!lapic_gives(l, vector))
		return -1;
	lapic_clear_request(l, vector);
	/* What ends by itself is no EOI: TLFS 11.8.4 */
	if (!synic_auto_eoi(vcpu, vector))
		lapic_set_vector(l, APIC_ISR, vector);
	lapic_set_reg(l, APIC_PPR, lapic_ppr(l));
	return vector;
}

/* ---- creation (vm->lock held) -------------------------------------------------------------------------------- */

static const struct io_device_ops lapic_mmio_ops = { .read = lapic_mmio_read, .write = lapic_mmio_write };

/* The pages of all local APICs, wherever they are, are one device: see lapic_mmio_read(). */
static int lapic_device_create(struct vm *vm)
{
	struct io_device *dev = host_zalloc(sizeof(*dev));
	int r;

	if (!dev)
		return -ENOMEM;
	*dev = (struct io_device){ .ops = &lapic_mmio_ops, .base = 0, .len = ~0ULL };
	r = io_device_register(vm, IO_MMIO, dev);
	if (r)
		host_free(dev);
	else
		vm->lapic_device = dev;
	return r;
}

static int create(struct vm *vm, enum irqchip_kind kind)
{
	int r;

	if (vm->irqchip != IRQCHIP_NONE)
		return -EEXIST;
	if (vm->nr_vcpus)
		return -EINVAL;
	r = lapic_device_create(vm);
	if (r)
		return r;
	if (kind == IRQCHIP_KERNEL) {
		r = pic_create(vm);
		if (!r)
			r = ioapic_create(vm);
		if (r)
			goto undo;
	}
	__atomic_store_n(&vm->irqchip, kind, __ATOMIC_RELEASE);
	r = irq_routing_default(vm);
	if (!r)
		return 0;
	__atomic_store_n(&vm->irqchip, IRQCHIP_NONE, __ATOMIC_RELEASE);
undo:
	irqchip_destroy(vm);
	return r;
}

int irqchip_create(struct vm *vm)
{
	return create(vm, IRQCHIP_KERNEL);
}

int irqchip_enable_split(struct vm *vm, u64 pins)
{
	int r = pins > VM_MAX_IRQ_ROUTES ? -EINVAL : create(vm, IRQCHIP_SPLIT);

	if (!r)
		vm->nr_reserved_ioapic_pins = pins;
	return r;
}

void irqchip_destroy(struct vm *vm)
{
	pit_destroy(vm);
	ioapic_destroy(vm);
	pic_destroy(vm);
	if (vm->lapic_device) {
		io_device_unregister(vm, IO_MMIO, vm->lapic_device);
		host_free(vm->lapic_device);
		vm->lapic_device = NULL;
	}
	host_free(vm->routing);
	vm->routing = NULL;
}

/* ---- KVM_GET_IRQCHIP, KVM_SET_IRQCHIP ------------------------------------------------------------------------ */

int irqchip_get(struct vm *vm, struct kvm_irqchip *chip)
{
	if (vm->irqchip != IRQCHIP_KERNEL)
		return -ENXIO;
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE: pic_get(vm->pic, chip->chip_id, &chip->chip.pic); return 0;
	case KVM_IRQCHIP_IOAPIC: ioapic_get(vm->ioapic, &chip->chip.ioapic); return 0;
	default: return -EINVAL;
	}
}

int irqchip_set(struct vm *vm, const struct kvm_irqchip *chip)
{
	if (vm->irqchip != IRQCHIP_KERNEL)
		return -ENXIO;
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE: pic_set(vm->pic, chip->chip_id, &chip->chip.pic); return 0;
	case KVM_IRQCHIP_IOAPIC: ioapic_set(vm->ioapic, &chip->chip.ioapic); return 0;
	default: return -EINVAL;
	}
}
