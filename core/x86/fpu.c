/*
 * The XSAVE image and its ioctls; see fpu.h.
 */
#include "core/x86/fpu.h"

#include "core/x86/cpuid.h"

int fpu_create(struct vcpu *vcpu)
{
	/* Room for all that the host's XSAVE may write, whatever is offered of it */
	vcpu->xsave_size = MAX(cpuid_xsave_size(cpuid_host_xcr0()), (u32)XSAVE_MIN_SIZE);
	vcpu->xsave = host_zalloc_pages(vcpu->xsave_size);
	if (!vcpu->xsave)
		return -ENOMEM;
	fpu_reset(vcpu);
	return 0;
}

void fpu_destroy(struct vcpu *vcpu)
{
	if (vcpu->xsave)
		host_free_pages(vcpu->xsave, vcpu->xsave_size);
	vcpu->xsave = NULL;
}

void fpu_reset(struct vcpu *vcpu)
{
	struct xsave_legacy *x = fpu_legacy(vcpu);

	memset(vcpu->xsave, 0, vcpu->xsave_size);
	x->fcw = FCW_INIT;
	x->mxcsr = MXCSR_INIT;
	x->mxcsr_mask = fpu_mxcsr_mask();
	vcpu->x86.xcr0 = XCR0_FP;
}

u32 fpu_mxcsr_mask(void)
{
	static u32 known; /* asked by every FXSAVE, and CPUID may trap */
	u32 r[4], mask = __atomic_load_n(&known, __ATOMIC_RELAXED);

	if (mask)
		return mask;
	/* Every 64-bit processor has DAZ; AMD's misaligned mode is bit 17 */
	mask = 0xffff;
	cpuid_host(0x80000000, 0, r);
	if (r[0] >= 0x80000001) {
		cpuid_host(0x80000001, 0, r);
		mask |= r[2] & X86_FEATURE_BIT(X86_FEATURE_MISALIGNSSE) ? BIT64(17) : 0;
	}
	__atomic_store_n(&known, mask, __ATOMIC_RELAXED);
	return mask;
}

u32 fpu_client_size(void)
{
	return MAX(cpuid_xsave_size(cpuid_supported_xcr0()), (u32)XSAVE_CLIENT_SIZE);
}

/*
 * Components that XSTATE_BV says are in their initial state get it written out, for readers that do not look there. What the host's XSAVE
 * has beyond what is offered is not the guest's, and the client could not set it again.
 */
static void materialize(struct vcpu *vcpu)
{
	struct xsave_legacy *x = fpu_legacy(vcpu);
	u64 bv;

	vcpu->vm->engine->state_sync(vcpu, REGS_FPU);
	bv = fpu_header(vcpu)->xstate_bv &= cpuid_supported_xcr0() | XCR0_FP | XCR0_SSE;
	if (!(bv & XCR0_FP)) {
		x->fcw = FCW_INIT;
		x->fsw = 0;
		x->ftw = 0;
		x->fop = 0;
		x->fip = 0;
		x->fdp = 0;
		memset(x->st, 0, sizeof(x->st));
	}
	if (!(bv & XCR0_SSE)) {
		memset(x->xmm, 0, sizeof(x->xmm));
		if (!(bv & XCR0_AVX))
			x->mxcsr = MXCSR_INIT;
	}
}

u64 fpu_get_xmm_half(struct vcpu *vcpu, unsigned n)
{
	u64 half = 0;

	vcpu->vm->engine->state_sync(vcpu, REGS_FPU);
	if (fpu_header(vcpu)->xstate_bv & XCR0_SSE)
		memcpy(&half, &fpu_legacy(vcpu)->xmm[n / 2][n % 2 * 8], sizeof(half));
	return half;
}

void fpu_get(struct vcpu *vcpu, struct kvm_fpu *fpu)
{
	struct xsave_legacy *x = fpu_legacy(vcpu);

	materialize(vcpu);
	memset(fpu, 0, sizeof(*fpu));
	memcpy(fpu->fpr, x->st, sizeof(fpu->fpr));
	fpu->fcw = x->fcw;
	fpu->fsw = x->fsw;
	fpu->ftwx = x->ftw;
	fpu->last_opcode = x->fop;
	fpu->last_ip = x->fip;
	fpu->last_dp = x->fdp;
	memcpy(fpu->xmm, x->xmm, sizeof(fpu->xmm));
	fpu->mxcsr = x->mxcsr;
}

/** KVM_SET_FPU. MXCSR bits that the machine lacks are dropped, as loading them would fault. */
int fpu_set(struct vcpu *vcpu, const struct kvm_fpu *fpu)
{
	struct xsave_legacy *x = fpu_legacy(vcpu);

	vcpu->vm->engine->state_sync(vcpu, REGS_FPU);
	memcpy(x->st, fpu->fpr, sizeof(x->st));
	x->fcw = fpu->fcw;
	x->fsw = fpu->fsw;
	x->ftw = fpu->ftwx;
	x->fop = fpu->last_opcode;
	x->fip = fpu->last_ip;
	x->fdp = fpu->last_dp;
	memcpy(x->xmm, fpu->xmm, sizeof(x->xmm));
	x->mxcsr = fpu->mxcsr & fpu_mxcsr_mask();
	fpu_header(vcpu)->xstate_bv |= XCR0_FP | XCR0_SSE;
	vcpu->vm->engine->state_changed(vcpu, REGS_FPU);
	return 0;
}

void fpu_get_xsave(struct vcpu *vcpu, void *out, u32 size)
{
	materialize(vcpu);
	memcpy(out, vcpu->xsave, MIN(size, vcpu->xsave_size));
}

int fpu_get_xsave2(struct vcpu *vcpu, u64 arg)
{
	static const u8 zeros[256];
	u32 size = fpu_client_size(), n = MIN(size, vcpu->xsave_size);

	materialize(vcpu);
	if (host_copy_to_client(arg, vcpu->xsave, n))
		return -EFAULT;
	for (; n < size; n += MIN(size - n, (u32)sizeof(zeros))) {
		if (host_copy_to_client(arg + n, zeros, MIN(size - n, (u32)sizeof(zeros))))
			return -EFAULT;
	}
	return 0;
}

int fpu_set_xsave(struct vcpu *vcpu, const void *image)
{
	const struct xsave_legacy *x = image;
	const struct xsave_header *header = (const void *)((const u8 *)image + sizeof(*x));

	if ((header->xstate_bv & ~cpuid_supported_xcr0()) || header->xcomp_bv)
		return -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(header->reserved); i++) {
		if (header->reserved[i])
			return -EINVAL;
	}
	if (x->mxcsr & ~fpu_mxcsr_mask())
		return -EINVAL;
	memcpy(vcpu->xsave, image, MIN(vcpu->xsave_size, (u32)XSAVE_CLIENT_SIZE));
	fpu_legacy(vcpu)->mxcsr_mask = fpu_mxcsr_mask();
	vcpu->vm->engine->state_changed(vcpu, REGS_FPU);
	return 0;
}

void fpu_get_xcrs(struct vcpu *vcpu, struct kvm_xcrs *xcrs)
{
	memset(xcrs, 0, sizeof(*xcrs));
	xcrs->nr_xcrs = 1;
	xcrs->xcrs[0].value = vcpu->x86.xcr0;
}

int fpu_set_xcrs(struct vcpu *vcpu, const struct kvm_xcrs *xcrs)
{
	if (xcrs->nr_xcrs > KVM_MAX_XCRS || xcrs->flags)
		return -EINVAL;
	for (u32 i = 0; i < xcrs->nr_xcrs; i++) {
		if (xcrs->xcrs[i].xcr == 0) {
			if (vcpu_set_xcr(vcpu, 0, xcrs->xcrs[i].value) != X86_CONTINUE)
				return -EINVAL;
			vcpu->vm->engine->state_changed(vcpu, REGS_FPU);
			break;
		}
	}
	return 0;
}
