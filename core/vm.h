/*
 * A VM: memory slots, vCPUs, interrupt chips, in-kernel devices. See core/vcpu.h for a vCPU.
 *
 * Lock legend of every field here and in vcpu.h: (i) immutable after creation; (m) vm->lock; (s) written under
 * vm->slots_lock and vm->srcu, read under srcu; (v) the vCPU's mutex, that is, its own thread; (a) atomic; (q) irq lock.
 *
 * Nesting order, outermost first: vcpu->mutex, vm->lock, vm->slots_lock, vm->irq_lock, pit/pic/ioapic lock, lapic
 * lock. The srcu read side is inside vcpu->mutex and is left before a vCPU sleeps or returns to the client. Nothing calls
 * host_srcu_synchronize() while holding irq_lock or inner locks. A thread that holds vm->lock never takes a vcpu->mutex
 * (the other order exists), so VM-wide operations speak to vCPUs by requests.
 */
#ifndef CORE_VM_H
#define CORE_VM_H

#include <linux/kvm.h>

#include "core/engine.h"
#include "hosts/host.h"

#define VM_MAX_VCPUS	 255
#define VM_MAX_VCPU_ID	 4096
#define HALT_POLL_NS	 200000	/* a halted vCPU's thread spins at most so long before it sleeps, but for KVM_CAP_HALT_POLL */
#define VM_MIN_MMU_PAGES 64	/* tables that a shadow MMU needs at least: KVM_SET_NR_MMU_PAGES */
#define VM_MEM_SLOTS	 32764	/* user slots for each address space, as Linux has */
#define VM_ADDRESS_SPACES 2	/* 1 is SMRAM's view (KVM_CAP_MULTI_ADDRESS_SPACE) */
#define VM_MAX_IRQ_ROUTES 4096
#define GPA_BITS	 46	/* what CPUID 0x80000008 offers at most */

/* Replaced as a whole, never edited, but for the dirty bitmap. */
struct memslot {
	u64 base_gfn, npages;	/* (i) */
	u64 hva;		/* (i) client address of the first page */
	u32 flags;		/* (i) KVM_MEM_* */
	u16 id, as_id;		/* (i) */
	u64 *dirty_bitmap;	/* (a) bit per page; NULL when not logged. Shared by the generations of one slot. */
};

struct memslots {
	u64 generation;
	unsigned count;
	unsigned room;			/* (i) of slot[] */
	unsigned last_used;		/* (a) a hint for memslot_find() */
	struct memslot *slot[];		/* sorted by base_gfn */
};

/* A device in core that answers port or memory accesses. */
enum io_space { IO_PIO, IO_MMIO, IO_SPACES };
struct io_device {
	const struct io_device_ops *ops;
	u64 base, len;
	struct io_device *next; /* (s) */
};
struct io_device_ops {
	/* 0: done; -EOPNOTSUPP: not mine, ask the next device (then the client). @vcpu is the accessing one. */
	int (*read)(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, void *buf);
	int (*write)(struct io_device *dev, struct vcpu *vcpu, u64 addr, unsigned len, const void *buf);
	void (*destroy)(struct io_device *dev); /* when the VM goes; may be NULL */
};

enum irqchip_kind { IRQCHIP_NONE, IRQCHIP_KERNEL, IRQCHIP_SPLIT };

/* Counters of KVM_GET_STATS_FD, by their KVM names (core/stats.c has the descriptors). */
struct vm_stats {
	u64 remote_tlb_flush, mmu_flush, mmio_exits_in_kernel;
};

struct vm {
	struct host_file file;	/* (i) */
	long users;		/* (a) the VM descriptor, each vCPU descriptor */
	const struct engine_ops *engine;	/* (i) */
	struct host_mutex lock;
	struct host_mutex slots_lock;
	struct host_spinlock irq_lock;
	struct host_srcu srcu;
	bool dead;	/* (a) KVM_BUG: every later ioctl gives -EIO */

	struct memslots *slots[VM_ADDRESS_SPACES];	/* (s) */
	struct memslots *spare_slots[VM_ADDRESS_SPACES]; /* slots_lock: the set before, for the one to come; may be NULL */
	struct {
		struct memslot **slot;	/* by ID, NULL: none */
		unsigned room;
	} slot_ids[VM_ADDRESS_SPACES];	/* slots_lock */
	struct mmu *shadow;		/* (i) once vCPUs run: hears of writes to guest memory; NULL: nobody has to */
	struct memslot *leaving;	/* (s) no longer among the slots, but the engine may still have translations of it */
	bool manual_dirty_protect;	/* (m) KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
	bool dirty_init_set;		/* (m) KVM_DIRTY_LOG_INITIALLY_SET */
	u32 dirty_ring_bytes;		/* (m) 0: bitmaps */
	struct io_device *io[IO_SPACES];	/* (s) */
	struct coalesced_zones *coalesced;	/* (s), core/coalesced.c */
	struct host_shared coalesced_ring;	/* (i) page KVM_COALESCED_MMIO_PAGE_OFFSET of each vCPU */
	struct host_spinlock coalesced_lock;	/* its writers; a leaf */

	struct vcpu *vcpus[VM_MAX_VCPUS];	/* (a) filled in order, under lock; never emptied before the end */
	unsigned nr_vcpus;			/* (a) */

	/* Interrupts: core/x86/irqchip */
	u8 irqchip;			/* (m) then (a): enum irqchip_kind */
	u8 nr_reserved_ioapic_pins;	/* (m) split irqchip */
	bool x2apic_api;		/* (m) KVM_X2APIC_API_USE_32BIT_IDS */
	bool x2apic_no_broadcast_quirk;	/* (m) */
	struct pic *pic;		/* (i) once irqchip says so */
	struct ioapic *ioapic;
	struct pit *pit;
	struct irq_routing *routing;	/* (s) */
	struct irqfd *irqfds;		/* (m) */
	struct ioeventfd *ioeventfds;	/* (m) */
	struct io_device *lapic_device;	/* (i) once irqchip says so: the register pages of all local APICs */
	struct irq_ack_notifier *ack_notifiers;	/* (s) */
	u64 arch_irq_state[VM_MAX_IRQ_ROUTES / 64]; /* (a) level of userspace line sources */

	/* Clock: core/x86/clock.c */
	s64 clock_offset_ns;	/* (a) kvmclock at clock_base */
	u64 clock_base;		/* (i) clock_counter() when the VM was made */
	struct {
		u64 counter, value, offset;	/* the last write of a TSC: others that match it get the same offset */
		u32 khz;
	} last_tsc;		/* (q) */
	u64 wall_clock_msr;	/* (m) */
	u32 tsc_khz;		/* (m) default of new vCPUs */
	u64 boot_vcpu_id;	/* (m) */
	u64 tss_addr, identity_map_addr;	/* (m) */

	/* Capabilities switched on by KVM_ENABLE_CAP (m) */
	u32 user_space_msr_mask;	/* KVM_MSR_EXIT_REASON_* */
	u64 disabled_quirks;
	u32 exits_disabled;		/* KVM_X86_DISABLE_EXITS_*; (i) once there are vCPUs */
	u32 max_vcpu_ids;		/* KVM_CAP_MAX_VCPU_ID; 0: VM_MAX_VCPU_ID */
	u32 max_halt_poll_ns;		/* (a) */
	u32 nr_mmu_pages;		/* (a) KVM_SET_NR_MMU_PAGES; 0: by the guest's memory */
	bool exception_payload, guest_smm, triple_fault_event, exit_on_emulation_failure;
	u64 hypercall_exit_mask;
	bool platform_info_hidden;	/* KVM_CAP_MSR_PLATFORM_INFO off: a guest's read is #GP */
	struct hv_vm *hyperv;		/* (i) core/x86/hyperv */
	struct msr_filter *msr_filter;	/* (s) core/x86/msr.c */
	u32 msr_filter_generation;	/* (a) counts its changes */
	struct vm_stats *stats;		/* (a) in stats_area */
	struct host_shared stats_area;
	struct host_stats_dir *stats_dir;	/* (i) once the descriptor is the client's */
	bool ticks_tsc;	/* (i) stats_now() is the TSC, else in nanoseconds */
	u64 tick_ns;	/* (i) nanoseconds of a stats_now() tick, 32.32 fixed point */
	struct host_client *client;	/* (i) */
	u32 pid;	/* (i) the client's, for names */
};

#define vm_for_each_vcpu(i, vcpu, vm) \
	for ((i) = 0; (i) < __atomic_load_n(&(vm)->nr_vcpus, __ATOMIC_ACQUIRE) && ((vcpu) = (vm)->vcpus[i]); (i)++)

/* ---- vm.c -------------------------------------------------------------------------------------------------- */
/** Installs the engine. Once, before the first core_system_ioctl(). 0 or -errno. */
int core_init(const struct engine_ops *engine);
/** ioctl on /dev/kvm itself: KVM_GET_API_VERSION, KVM_CREATE_VM (returns a descriptor) ... */
long core_system_ioctl(unsigned cmd, u64 arg);
const struct engine_ops *core_engine(void);
/**
 * Waits until every srcu section that was open has been left, vCPUs in guest code included (they are made to leave once). For
 * writers of (s) fields, after the new value is published; not with irq_lock, inner locks or in an srcu section.
 */
void vm_synchronize(struct vm *vm);
void vm_get(struct vm *vm);
void vm_put(struct vm *vm);
struct vcpu *vm_vcpu_by_id(struct vm *vm, u32 vcpu_id);
/** Value of KVM_CHECK_EXTENSION; @vm NULL for the system descriptor. */
int core_check_extension(struct vm *vm, u64 cap);

/* ---- memslot.c: all take an open srcu read section ------------------------------------------------------------ */
struct memslot *memslot_find(struct memslots *slots, u64 gfn);	/* NULL: no memory there (MMIO) */
static inline struct memslots *vm_slots(struct vm *vm, unsigned as_id)
{
	return __atomic_load_n(&vm->slots[as_id], __ATOMIC_ACQUIRE);
}
/** Client address of @gpa, 0 when no slot has it. */
u64 vm_gpa_to_hva(struct vm *vm, unsigned as_id, u64 gpa, struct memslot **slot);
/** Guest memory by GPA; may cross pages and slots. 0 or -EFAULT. Writes go past read-only slots never, and mark pages dirty (for
 *  the ring: in @vcpu's, which may be NULL only when no ring is in use). */
int vm_read_guest(struct vm *vm, unsigned as_id, u64 gpa, void *buf, size_t len);
int vm_write_guest(struct vm *vm, struct vcpu *vcpu, unsigned as_id, u64 gpa, const void *buf, size_t len);
/** Atomic compare-exchange in guest memory: 0 exchanged, 1 not, -EFAULT. Marks dirty. */
int vm_cmpxchg_guest(struct vm *vm, struct vcpu *vcpu, unsigned as_id, u64 gpa, void *old, const void *new, unsigned len);
void mmu_guest_written(struct mmu *mmu, u64 gpa, unsigned len); /* core/x86/mmu/mmu.h */
/** Whoever wrote guest memory other than by the two above says so, afterwards. In an srcu section. */
static inline void vm_guest_written(struct vm *vm, u64 gpa, unsigned len)
{
	if (unlikely(vm->shadow))
		mmu_guest_written(vm->shadow, gpa, len);
}
void mmu_guest_replaced(struct mmu *mmu);
/** The client's writes are not seen, but one that loads a saved state sets the system registers, too. */
static inline void vm_guest_replaced(struct vm *vm)
{
	if (unlikely(vm->shadow))
		mmu_guest_replaced(vm->shadow);
}
int vm_set_memory_region(struct vm *vm, const struct kvm_userspace_memory_region *region);

/* ---- dirty.c -------------------------------------------------------------------------------------------------- */
/** Bitmap or ring; @vcpu as above. Any thread in an srcu section. */
void dirty_mark(struct vm *vm, struct vcpu *vcpu, struct memslot *slot, u64 gfn);
static inline bool memslot_logs_dirty(const struct memslot *slot)
{
	return slot->flags & KVM_MEM_LOG_DIRTY_PAGES;
}

/* ---- io.c: in-kernel devices ------------------------------------------------------------------------------------ */
int io_device_register(struct vm *vm, enum io_space space, struct io_device *dev);	/* takes slots_lock */
void io_device_unregister(struct vm *vm, enum io_space space, struct io_device *dev);
/** The VM goes: takes every device off its bus and tells it so, before those that embed them are freed. */
void io_devices_destroy(struct vm *vm);
/** 0, or -EOPNOTSUPP when the client has to answer. In an srcu section. */
int io_read(struct vcpu *vcpu, enum io_space space, u64 addr, unsigned len, void *buf);
int io_write(struct vcpu *vcpu, enum io_space space, u64 addr, unsigned len, const void *buf);
/** The event of an access: also for whoever has an answer to what io_read() did not. */
static inline void io_tell(enum io_space space, bool write, u64 addr, unsigned len, const void *buf)
{
	if (space == IO_PIO)
		host_event_pio(write, addr, len, 1, buf);
	else
		host_event_mmio(write, addr, len, buf);
}
/** ioctls of coalesced.c and eventfd.c */
int coalesced_init(struct vm *vm);
long vm_ioctl_coalesced(struct vm *vm, unsigned cmd, const struct kvm_coalesced_mmio_zone *args);
/** Whether the write went into the ring. In an srcu section. */
bool coalesced_write(struct vm *vm, enum io_space space, u64 addr, unsigned len, const void *buf);
void coalesced_destroy(struct vm *vm);
int vm_ioeventfd(struct vm *vm, const struct kvm_ioeventfd *args);
int vm_irqfd(struct vm *vm, const struct kvm_irqfd *args);
void vm_irqfds_destroy(struct vm *vm);
void vm_ioeventfds_destroy(struct vm *vm);

/* ---- core/x86/vm_ioctl.c: what is x86's of a VM ------------------------------------------------------------------ */
int x86_vm_init(struct vm *vm);
void x86_vm_destroy(struct vm *vm);
/* @data: core's copy of the fixed-size structure at the client's @arg, see core/ioctl.h; NULL for commands without one. */
long x86_vm_ioctl(struct vm *vm, unsigned cmd, u64 arg, void *data);	/* -ENOTTY: not x86's */
long x86_system_ioctl(unsigned cmd, u64 arg, void *data);		/* CPUID and MSR lists ... */
int x86_check_extension(struct vm *vm, u64 cap);
int x86_vm_enable_cap(struct vm *vm, const struct kvm_enable_cap *cap);

/** A client's mistake that leaves the VM unusable, or our own: all further ioctls give -EIO. */
void vm_kill(struct vm *vm, const char *why);

#endif
