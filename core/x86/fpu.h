/*
 * The guest's x87, SSE and extended state as an XSAVE image in the standard format (SDM 1 13.4): vcpu->xsave. The engine
 * loads and stores it with XRSTOR and XSAVE; here it is converted for the client and checked, so that loading it
 * can never fault.
 */
#ifndef CORE_X86_FPU_H
#define CORE_X86_FPU_H

#include "core/vcpu.h"

struct xsave_legacy {
	u16 fcw, fsw;
	u8 ftw, reserved;
	u16 fop;
	u64 fip, fdp;
	u32 mxcsr, mxcsr_mask;
	u8 st[8][16];
	u8 xmm[16][16];
	u8 unused[96];
};
_Static_assert(sizeof(struct xsave_legacy) == 512, "SDM 1 table 10-2");

struct xsave_header {
	u64 xstate_bv, xcomp_bv;
	u64 reserved[6];
};

#define XSAVE_MIN_SIZE	   576
#define XSAVE_CLIENT_SIZE  4096 /* struct kvm_xsave */
#define MXCSR_INIT	   0x1f80
#define FCW_INIT	   0x37f

static inline struct xsave_legacy *fpu_legacy(struct vcpu *vcpu)
{
	return (struct xsave_legacy *)vcpu->xsave;
}

static inline struct xsave_header *fpu_header(struct vcpu *vcpu)
{
	return (struct xsave_header *)(vcpu->xsave + 512);
}

int fpu_create(struct vcpu *vcpu); /* 0, -ENOMEM */
void fpu_destroy(struct vcpu *vcpu);
void fpu_reset(struct vcpu *vcpu);
/** MXCSR bits that may be set on this machine. */
u32 fpu_mxcsr_mask(void);
/** Bytes of KVM_GET_XSAVE2. */
u32 fpu_client_size(void);
/** Half @n of the XMM registers: @n / 2 is which, @n % 2 the lower or the upper 64 bits. */
u64 fpu_get_xmm_half(struct vcpu *vcpu, unsigned n);
void fpu_get(struct vcpu *vcpu, struct kvm_fpu *fpu);
int fpu_set(struct vcpu *vcpu, const struct kvm_fpu *fpu);
/** The image to @out (of @size bytes, zero-filled by the caller), to the client's @arg (fpu_client_size() bytes): 0, -EFAULT. */
void fpu_get_xsave(struct vcpu *vcpu, void *out, u32 size);
int fpu_get_xsave2(struct vcpu *vcpu, u64 arg);
/** From an image of XSAVE_CLIENT_SIZE bytes. 0, -EINVAL. */
int fpu_set_xsave(struct vcpu *vcpu, const void *image);
void fpu_get_xcrs(struct vcpu *vcpu, struct kvm_xcrs *xcrs);
int fpu_set_xcrs(struct vcpu *vcpu, const struct kvm_xcrs *xcrs);

#endif
