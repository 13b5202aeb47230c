/* See rig.h. */
#include "tests/mmu/rig.h"

#include <stdio.h>
#include <stdlib.h>

#include "hosts/user/file.h"
#include "hosts/user/pages.h"

struct rig_host rig_host;

static struct rig *opening;

/* ---- the host, bent: the linker sends core's calls here ------------------------------------------------------- */

int __real_host_client_page_get(u64 hva, bool write, struct host_client_page *page);
int __wrap_host_client_page_get(u64 hva, bool write, struct host_client_page *page);
int __wrap_host_client_page_get(u64 hva, bool write, struct host_client_page *page)
{
	int error = rig_host.error ? rig_host.error : __real_host_client_page_get(hva, write, page);

	__atomic_fetch_add(&rig_host.gets, 1, __ATOMIC_RELAXED);
	if (rig_host.on_get) {
		void (*hook)(void) = rig_host.on_get;

		rig_host.on_get = NULL;
		hook();
	}
	if (error)
		return error;
	if (hva >= rig_host.read_only_start && hva < rig_host.read_only_end) {
		page->writable = false;
		if (write)
			return -EFAULT;
	}
	page->memory = !(hva >= rig_host.device_start && hva < rig_host.device_end);
	return 0;
}

unsigned __wrap_host_client_page_shift(u64 hva);
unsigned __wrap_host_client_page_shift(u64 hva)
{
	return rig_host.shift ? rig_host.shift : HOST_PAGE_SHIFT;
}

/* ---- the engine ---------------------------------------------------------------------------------------------- */

static int rig_vm_init(struct vm *vm)
{
	opening->vm = vm;
	return mmu_create(vm, &opening->config, &opening->mmu);
}

static void rig_vm_destroy(struct vm *vm)
{
	mmu_destroy(opening->mmu);
}

static int rig_vcpu_init(struct vcpu *vcpu)
{
	unsigned i = opening->vm->nr_vcpus;
	int error = mmu_vcpu_create(opening->mmu, vcpu, &opening->m[i]);

	if (!error)
		opening->vcpu[i] = vcpu;
	return error;
}

static void rig_vcpu_destroy(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < RIG_VCPUS; i++)
		if (opening->vcpu[i] == vcpu)
			mmu_vcpu_destroy(opening->m[i]);
}

static void nothing(struct vcpu *vcpu, unsigned groups)
{
}

static void run(struct vcpu *vcpu, struct engine_exit *exit)
{
	exit->reason = EXIT_SHUTDOWN;
}

static void inject(struct vcpu *vcpu, const struct x86_event *ev)
{
}

static void window(struct vcpu *vcpu, bool nmi)
{
}

static void kick(struct vcpu *vcpu)
{
	if (rig_host.on_kick)
		rig_host.on_kick(vcpu);
}

static void tlb_flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg)
{
	for (unsigned i = 0; i < RIG_VCPUS; i++)
		if (opening->vcpu[i] == vcpu)
			mmu_guest_flush(opening->m[i], scope, arg);
}

static void slot_flush(struct vm *vm, const struct memslot *old)
{
	if (rig_host.on_slot_flush)
		rig_host.on_slot_flush(false);
	mmu_slot_flush(opening->mmu, old);
	if (rig_host.on_slot_flush)
		rig_host.on_slot_flush(true);
}

static void slot_write_protect(struct vm *vm, const struct memslot *slot, u64 gfn_offset, u64 mask)
{
	mmu_slot_write_protect(opening->mmu, slot, gfn_offset, mask);
}

static void slot_flush_done(struct vm *vm)
{
	mmu_slot_flush_done(opening->mmu);
}

static const struct engine_ops rig_engine = {
	.name = "rig", .vm_size = sizeof(struct vm), .vcpu_size = sizeof(struct vcpu), .vm_init = rig_vm_init, .vm_destroy = rig_vm_destroy,
	.vcpu_init = rig_vcpu_init, .vcpu_destroy = rig_vcpu_destroy, .state_changed = nothing, .state_sync = nothing, .vcpu_run = run,
	.inject = inject, .request_window = window, .kick = kick, .tlb_flush = tlb_flush, .slot_flush = slot_flush,
	.slot_write_protect = slot_write_protect, .slot_flush_done = slot_flush_done,
};

static void must(long r, const char *what)
{
	if (r < 0) {
		printf("Bail out! %s: %ld\n", what, r);
		exit(1);
	}
}

long rig_ioctl(struct rig *r, unsigned cmd, const void *arg)
{
	return host_file_ioctl(r->vm_fd, cmd, (u64)(unsigned long)arg);
}

bool rig_get_log(struct rig *r, u64 *bitmap, size_t size)
{
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bitmap };

	memset(bitmap, 0, size);
	return !rig_ioctl(r, KVM_GET_DIRTY_LOG, &log);
}

static void open_vm(struct rig *r, const struct mmu_config *config)
{
	memset(r, 0, sizeof(*r));
	r->config = *config;
	opening = r;
	core_init(&rig_engine);
	r->vm_fd = core_system_ioctl(KVM_CREATE_VM, 0);
	must(r->vm_fd, "KVM_CREATE_VM");
}

static void open_vcpu(struct rig *r, unsigned i)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));

	cpuid->nent = 256;
	must(core_system_ioctl(KVM_GET_SUPPORTED_CPUID, (u64)(unsigned long)cpuid), "KVM_GET_SUPPORTED_CPUID");
	r->vcpu_fd[i] = host_file_ioctl(r->vm_fd, KVM_CREATE_VCPU, i);
	must(r->vcpu_fd[i], "KVM_CREATE_VCPU");
	must(host_file_ioctl(r->vcpu_fd[i], KVM_SET_CPUID2, (u64)(unsigned long)cpuid), "KVM_SET_CPUID2");
	free(cpuid);
}

void rig_open(struct rig *r, const struct mmu_config *config, unsigned vcpus)
{
	open_vm(r, config);
	for (unsigned i = 0; i < vcpus; i++)
		open_vcpu(r, i);
}

void rig_open_ring(struct rig *r, const struct mmu_config *config, const struct kvm_enable_cap *cap)
{
	open_vm(r, config);
	must(rig_ioctl(r, KVM_ENABLE_CAP, cap), "KVM_ENABLE_CAP");
	open_vcpu(r, 0);
}

void rig_close(struct rig *r)
{
	opening = r;
	for (unsigned i = 0; i < RIG_VCPUS; i++)
		if (r->vcpu[i])
			host_file_close(r->vcpu_fd[i]);
	host_file_close(r->vm_fd);
	rig_host = (struct rig_host){ 0 };
}

int rig_slot(struct rig *r, u32 id, u64 gpa, void *ram, u64 size, u32 flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = id, .flags = flags, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (uintptr_t)ram,
	};

	return (int)rig_ioctl(r, KVM_SET_USER_MEMORY_REGION, &region);
}

/* ---- the hardware's walk ------------------------------------------------------------------------------------- */

/* Page-modification logging, SDM 3C 28.3.6, with a log that is emptied at once. */
static void note_write(struct rig *r, u64 gfn)
{
	struct memslot *slot = memslot_find(vm_slots(r->vm, 0), gfn);

	if (r->config.notes_writes && !r->vm->dirty_ring_bytes && slot) {
		r->noted++;
		dirty_mark(r->vm, r->vcpu[0], slot, gfn);
	}
}

/* SDM 3C 28.3.2; the walk ends with an EPT violation. */
static bool walk_ept(struct rig *r, u64 root, u64 addr, u32 access, bool touch, struct rig_translation *t)
{
	u64 *table = host_page_at(root), rights = 7, need = access & PFERR_W ? 2 : access & PFERR_I ? 4 : 1;

	for (unsigned level = r->config.levels;; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		u64 *entry = &table[(addr >> shift) & 511], value = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
		bool leaf = level == 1 || (value & 0x80);

		if (!(value & 7)) {
			t->error = access & ~PFERR_P;
			return false;
		}
		/* 28.3.3.1: what would be a misconfiguration */
		if ((value & 7) == 2 || (value & 7) == 6 || (!leaf && (value & 0xf8)) || (level > 3 && leaf) ||
		    (leaf && (value & MASK64(shift - 1, 12) & ~MASK64(11, 0))) || (leaf && ((value >> 3) & 7) != 6 && ((value >> 3) & 7))) {
			printf("Bail out! EPT misconfiguration: level %u, %llx\n", level, (unsigned long long)value);
			exit(1);
		}
		rights &= value;
		if (touch && r->config.accessed_dirty)
			__atomic_fetch_or(entry, 0x100, __ATOMIC_SEQ_CST);
		if (!leaf) {
			table = host_page_at(value & MASK64(51, 12));
			continue;
		}
		if (!(rights & need)) {
			t->error = access | PFERR_P;
			return false;
		}
		if (touch && r->config.accessed_dirty && (access & PFERR_W) && !(__atomic_fetch_or(entry, 0x200, __ATOMIC_SEQ_CST) & 0x200))
			note_write(r, addr >> 12);
		*t = (struct rig_translation){ .phys = (value & MASK64(51, shift)) | (addr & (BIT64(shift) - 1)), .entry = value, .level = level,
					       .writable = rights & 2, .executable = rights & 4, .user = true };
		return true;
	}
}

/*
 * Long mode, as processors walk their own tables and nested ones; the latter as a user's accesses (APM 2 15.25.5). Shadow tables are walked
 * with CR0.WP and EFER.NX set and the guest's SMEP and SMAP; outside of long mode they are those of PAE paging.
 */
static bool walk_x86(struct rig *r, struct vcpu *vcpu, u64 root, u64 addr, u32 access, bool touch, struct rig_translation *t)
{
	u64 *table = host_page_at(root);
	bool w = true, u = true, x = true, pae = !r->config.nested && !(vcpu->x86.efer & EFER_LMA), allowed;
	u32 user = r->config.nested ? PFERR_U : access & PFERR_U;
	unsigned top = r->config.nested ? r->config.levels : vcpu->x86.cr4 & CR4_LA57 ? 5 : 4;

	if (pae) {
		u64 pdpte = __atomic_load_n(&table[(addr >> 30) & 3], __ATOMIC_ACQUIRE);

		top = 2;
		table = host_page_at(pdpte & MASK64(51, 12));
		if (!(pdpte & 1)) {
			t->error = access & ~PFERR_P;
			return false;
		}
		if (pdpte & 0x1e6) {
			printf("Bail out! reserved bits in a PDPTE: %llx\n", (unsigned long long)pdpte);
			exit(1);
		}
	}
	for (unsigned level = top;; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		u64 *entry = &table[(addr >> shift) & 511], value = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
		bool leaf = level == 1 || (value & 0x80);

		if (!(value & 1)) {
			t->error = access & ~PFERR_P;
			return false;
		}
		if ((leaf && (value & MASK64(shift - 1, 12) & ~MASK64(12, 0))) || (level > 3 && leaf) ||
		    (pae && (value & MASK64(62, 52)))) {
			printf("Bail out! reserved bits: level %u, %llx\n", level, (unsigned long long)value);
			exit(1);
		}
		w &= !!(value & 2);
		u &= !!(value & 4);
		x &= !(value >> 63);
		if (!leaf) {
			if (touch)
				__atomic_fetch_or(entry, 0x20, __ATOMIC_SEQ_CST);
			table = host_page_at(value & MASK64(51, 12));
			continue;
		}
		allowed = user ? u : !(u && !r->config.nested && ((access & PFERR_I ? vcpu->x86.cr4 & CR4_SMEP :
			  (vcpu->x86.cr4 & CR4_SMAP) && !(vcpu->x86.rflags & RFLAGS_AC))));
		if (access & PFERR_W)
			allowed &= w;
		if (access & PFERR_I)
			allowed &= x;
		if (!allowed) {
			t->error = access | PFERR_P;
			return false;
		}
		if (touch)
			__atomic_fetch_or(entry, access & PFERR_W ? 0x60 : 0x20, __ATOMIC_SEQ_CST);
		*t = (struct rig_translation){ .phys = (value & MASK64(51, shift)) | (addr & (BIT64(shift) - 1)), .entry = value, .level = level,
					       .writable = w, .executable = x, .user = u };
		return true;
	}
}

bool rig_walk(struct rig *r, unsigned i, u64 addr, u32 access, bool touch, struct rig_translation *t)
{
	struct vcpu *vcpu = r->vcpu[i];
	bool inside = __atomic_load_n(&vcpu->place, __ATOMIC_RELAXED) == VCPU_IN_GUEST;
	u64 root;
	int error = mmu_load(r->m[i], &root);

	if (!inside)
		vcpu_leave_guest(vcpu);
	t->error = access;
	t->load_error = error;
	if (error || (inside && vcpu_must_exit(vcpu)))
		return false;
	if (r->config.format == MMU_EPT)
		return walk_ept(r, root, addr, access, touch, t);
	return walk_x86(r, r->vcpu[i], root, addr, access, touch, t);
}

enum rig_result rig_touch(struct rig *r, unsigned i, u64 addr, u32 access)
{
	enum rig_result result = RIG_STUCK;

	vcpu_srcu_lock(r->vcpu[i]);
	/* More than a few faults for one access: it would never end. */
	for (unsigned tries = 0; result == RIG_STUCK && tries < 20; tries++) {
		if (rig_walk(r, i, addr, access, true, &r->at)) {
			result = RIG_DONE;
			break;
		}
		if (r->at.load_error) {
			r->error = r->at.load_error;
			result = RIG_ERROR;
			break;
		}
		__atomic_fetch_add(&r->faults, 1, __ATOMIC_RELAXED);
		switch (mmu_fault(r->m[i], addr, r->at.error, &r->event, &r->error)) {
		case MMU_FIXED: break;
		case MMU_EMULATE: result = RIG_EMULATE; break;
		case MMU_INJECT: result = RIG_INJECT; break;
		case MMU_ERROR: result = RIG_ERROR; break;
		}
	}
	vcpu_srcu_unlock(r->vcpu[i]);
	return result;
}

bool rig_serve(struct rig *r, unsigned i)
{
	bool flush = __atomic_exchange_n(&r->vcpu[i]->requests, 0, __ATOMIC_SEQ_CST) & BIT64(REQ_TLB_FLUSH);

	if (flush)
		__atomic_fetch_add(&r->flushes, 1, __ATOMIC_RELAXED);
	return flush;
}
