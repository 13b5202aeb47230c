/*
 * The small embedding API in the shape KVM's first user library had in 2007: a machine in a few calls, its devices as
 * callbacks. For toys, tests and firmware experiments; whoever wants all of KVM uses trine.h.
 *
 *	struct kvm_callbacks callbacks = { .outb = my_outb, .halt = my_halt };
 *	struct kvm_context *kvm = kvm_init(&callbacks, &my_state);
 *	void *vm_mem;
 *
 *	kvm_create(kvm, 16 << 20, &vm_mem);
 *	load_file((char *)vm_mem + 0xf0000, "bios.bin");
 *	kvm_show_regs(kvm, 0);
 *	kvm_run(kvm, 0);
 *	kvm_finalize(kvm);
 *
 * Memory is [0, bytes) of the guest, in one piece; accesses beyond it are MMIO. vCPU 0 starts in real mode at F000:FFF0 with CS's
 * base at 0xF0000, so a 64 KiB image at 0xF0000 is a firmware. There is no interrupt controller.
 *
 * Functions return 0 (or what is said) or -errno. Not thread-safe but for kvm_run() on different vCPUs.
 */
#ifndef LIBTRINE_EMBED_H
#define LIBTRINE_EMBED_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvm_context;

/*
 * Each gets the @opaque of kvm_init(). 0: go on; anything else ends kvm_run(), which returns it. One that is NULL: reads give all
 * ones, writes are dropped, the other events end kvm_run() with 0.
 */
struct kvm_callbacks {
	/* Once for each CPUID leaf that a new vCPU is offered: may change eax to edx in @regs; non-zero leaves the leaf out. */
	int (*cpuid)(void *opaque, uint32_t function, uint32_t index, uint32_t regs[4]);
	int (*inb)(void *opaque, uint16_t port, uint8_t *data);
	int (*inw)(void *opaque, uint16_t port, uint16_t *data);
	int (*inl)(void *opaque, uint16_t port, uint32_t *data);
	int (*outb)(void *opaque, uint16_t port, uint8_t data);
	int (*outw)(void *opaque, uint16_t port, uint16_t data);
	int (*outl)(void *opaque, uint16_t port, uint32_t data);
	/* Memory-mapped; what has no length of its own (3, 5, 6 or 7 bytes) comes as bytes. */
	int (*readb)(void *opaque, uint64_t addr, uint8_t *data);
	int (*readw)(void *opaque, uint64_t addr, uint16_t *data);
	int (*readl)(void *opaque, uint64_t addr, uint32_t *data);
	int (*readq)(void *opaque, uint64_t addr, uint64_t *data);
	int (*writeb)(void *opaque, uint64_t addr, uint8_t data);
	int (*writew)(void *opaque, uint64_t addr, uint16_t data);
	int (*writel)(void *opaque, uint64_t addr, uint32_t data);
	int (*writeq)(void *opaque, uint64_t addr, uint64_t data);
	/* A breakpoint or single step that kvm_guest_debug() asked for. */
	int (*debug)(void *opaque, int vcpu);
	int (*halt)(void *opaque, int vcpu);
	/* The processor has shut down (triple fault). */
	int (*shutdown)(void *opaque, int vcpu);
	/* The guest can take an interrupt now, as try_push_interrupts() had wished. */
	int (*io_window)(void *opaque);
	/* Before guest code runs: inject what is due by kvm_inject_irq(). Non-zero: something is left, tell io_window(). */
	int (*try_push_interrupts)(void *opaque);
	int (*pre_kvm_run)(void *opaque, int vcpu);
	int (*post_kvm_run)(void *opaque, int vcpu);
};

/** @callbacks stays the caller's and must live on. NULL: no memory, or no engine. */
struct kvm_context *kvm_init(struct kvm_callbacks *callbacks, void *opaque);
void kvm_finalize(struct kvm_context *kvm);
/** A VM with vCPU 0 and @bytes (a multiple of 4096) of memory, which *@vm_mem points to. Once for each context: -EEXIST. */
int kvm_create(struct kvm_context *kvm, unsigned long bytes, void **vm_mem);
/** vCPU @vcpu, 1 to 15; it starts as vCPU 0 does. */
int kvm_create_vcpu(struct kvm_context *kvm, int vcpu);
/** Reads a file to @mem, a place in some VM's memory. Its length; -EFBIG: it does not fit, nothing is said of what was read. */
long load_file(void *mem, const char *path);
/** Runs guest code until a callback says stop. What that returned; -EINTR after a signal; -EIO: the guest cannot go on. */
int kvm_run(struct kvm_context *kvm, int vcpu);
/** The registers, for people, on standard error. */
void kvm_show_regs(struct kvm_context *kvm, int vcpu);

int kvm_get_regs(struct kvm_context *kvm, int vcpu, struct kvm_regs *regs);
int kvm_set_regs(struct kvm_context *kvm, int vcpu, const struct kvm_regs *regs);
int kvm_get_sregs(struct kvm_context *kvm, int vcpu, struct kvm_sregs *sregs);
int kvm_set_sregs(struct kvm_context *kvm, int vcpu, const struct kvm_sregs *sregs);
/** External interrupt @vector; -EEXIST while the last one waits. Only where kvm_can_inject() says so. */
int kvm_inject_irq(struct kvm_context *kvm, int vcpu, unsigned vector);
/** Whether vCPU @vcpu could take an interrupt when it last stopped. */
int kvm_can_inject(struct kvm_context *kvm, int vcpu);
int kvm_guest_debug(struct kvm_context *kvm, int vcpu, const struct kvm_guest_debug *debug);

#ifdef __cplusplus
}
#endif

#endif
