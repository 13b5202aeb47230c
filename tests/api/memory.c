/* Memory slots, dirty logs, coalesced zones: what a VM's descriptor says about memory. */
#include "tests/api/api.h"

#define PAGE 4096UL

static void *pages(unsigned n)
{
	return mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void refused_regions(void)
{
	uint8_t *mem = pages(16);
	struct {
		const char *name;
		uint32_t slot, flags;
		uint64_t gpa, size;
		void *hva;
		int error;
	} cases[] = {
		{ "an unknown flag", 1, 1 << 5, 0x100000, PAGE, mem, EINVAL },
		{ "a length that is no page's multiple", 1, 0, 0x100000, PAGE + 1, mem, EINVAL },
		{ "a guest address that is no page's", 1, 0, 0x100010, PAGE, mem, EINVAL },
		{ "a client address that is no page's", 1, 0, 0x100000, PAGE, mem + 8, EINVAL },
		{ "a client address in the kernel's half", 1, 0, 0x100000, PAGE, (void *)0xffff800000000000, EINVAL },
		{ "a client range into the kernel's half", 1, 0, 0x100000, 2 * PAGE, (void *)0xfffffffffff000, EINVAL },
		{ "an unknown slot", 65535, 0, 0x100000, PAGE, mem, EINVAL },
		{ "an unknown address space", 2 << 16, 0, 0x100000, PAGE, mem, EINVAL },
		{ "a range that wraps", 1, 0, 0xfffffffffffff000, 2 * PAGE, mem, EINVAL },
		{ "a range beyond any physical address", 1, 0, 1ULL << 60, PAGE, mem, EINVAL },
		{ "deleting a slot that is not there", 7, 0, 0, 0, NULL, EINVAL },
		{ "a slot over another", 1, 0, 0x1000, PAGE, mem, EEXIST },
		{ "a slot whose end is over another", 1, 0, 0, 2 * PAGE, mem, EEXIST },
		{ "a slot around another", 1, 0, 0, 8 * PAGE, mem, EEXIST },
	};
	unsigned i;
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);

	accepts(set_region(vm, 0, 0, 0x1000, 2 * PAGE, mem), "a slot");
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refuses(cases[i].error,
			set_region(vm, cases[i].slot, cases[i].flags, cases[i].gpa, cases[i].size, cases[i].hva),
			"%s is refused", cases[i].name);
	refuses(EFAULT, api.ioctl(vm, KVM_SET_USER_MEMORY_REGION, NOWHERE), "a slot described nowhere is refused");
	accepts(set_region(vm, 1, 0, 0x3000, PAGE, mem + 2 * PAGE), "a slot right behind another");
	accepts(set_region(vm, 2, 0, 0, PAGE, mem + 3 * PAGE), "a slot right before another");
	if (api.ioctl(vm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MULTI_ADDRESS_SPACE) > 1)
		accepts(set_region(vm, 1 << 16 | 0, 0, 0x1000, PAGE, mem), "the same place in the other address space");
	else
		tap_skip("no SMM", "the same place in the other address space");
	api.close(vm);
	munmap(mem, 16 * PAGE);
}

static void changed_regions(void)
{
	uint8_t *mem = pages(16);
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);

	accepts(set_region(vm, 0, 0, 0x1000, 4 * PAGE, mem), "a slot");
	accepts(set_region(vm, 1, KVM_MEM_READONLY, 0x100000, 4 * PAGE, mem + 4 * PAGE), "a read-only slot");
	accepts(set_region(vm, 0, 0, 0x1000, 4 * PAGE, mem), "the same again");
	refuses(EINVAL, set_region(vm, 0, 0, 0x1000, 3 * PAGE, mem), "another length is refused");
	refuses(EINVAL, set_region(vm, 0, 0, 0x1000, 4 * PAGE, mem + PAGE), "other memory is refused");
	refuses(EINVAL, set_region(vm, 0, KVM_MEM_READONLY, 0x1000, 4 * PAGE, mem), "read-only afterwards is refused");
	refuses(EINVAL, set_region(vm, 1, 0, 0x100000, 4 * PAGE, mem + 4 * PAGE), "writable afterwards is refused");
	accepts(set_region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0x1000, 4 * PAGE, mem), "dirty logging afterwards");
	accepts(set_region(vm, 0, 0, 0x1000, 4 * PAGE, mem), "and no more");
	accepts(set_region(vm, 0, 0, 0x8000, 4 * PAGE, mem), "another place");
	refuses(EEXIST, set_region(vm, 0, 0, 0x102000, 4 * PAGE, mem), "a place that another slot has is refused");
	accepts(set_region(vm, 0, 0, 0x9000, 4 * PAGE, mem), "a place that overlaps its own former one");
	accepts(set_region(vm, 0, 0, 0, 0, NULL), "deleting");
	refuses(EINVAL, set_region(vm, 0, 0, 0, 0, NULL), "deleting twice is refused");
	accepts(set_region(vm, 0, 0, 0x1000, 2 * PAGE, mem), "the slot can be used again");
	api.close(vm);
	munmap(mem, 16 * PAGE);
}

static void many_regions(void)
{
	enum { N = 500 };
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), i, bad = 0;
	uint8_t *mem = pages(1);

	for (i = 0; i < N; i++)
		bad += set_region(vm, (uint32_t)i, 0, (uint64_t)((i * 7919) % N) * 2 * PAGE, PAGE, mem) != 0;
	equals(bad, 0, "%d slots in no order", N);
	refuses(EEXIST, set_region(vm, N, 0, 100 * 2 * PAGE, PAGE, mem), "one over any of them is refused");
	for (i = 0; i < N; i++)
		bad += set_region(vm, (uint32_t)i, 0, 0, 0, mem) != 0;
	equals(bad, 0, "and deleted");
	api.close(vm);
	munmap(mem, PAGE);
}

static int get_log(int vm, uint32_t slot, void *bitmap)
{
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bitmap };

	return api.ioctl(vm, KVM_GET_DIRTY_LOG, &log);
}

static int clear_log(int vm, uint32_t slot, uint64_t first, uint32_t n, void *bitmap)
{
	struct kvm_clear_dirty_log log = { .slot = slot, .first_page = first, .num_pages = n, .dirty_bitmap = bitmap };

	return api.ioctl(vm, KVM_CLEAR_DIRTY_LOG, &log);
}

static int enable(int fd, uint32_t cap, uint64_t arg, uint32_t flags)
{
	struct kvm_enable_cap c = { .cap = cap, .flags = flags, .args = { arg } };

	return api.ioctl(fd, KVM_ENABLE_CAP, &c);
}

static void dirty_log(void)
{
	uint8_t *mem = pages(256);
	uint64_t bitmap[4] = { ~0ULL, ~0ULL, ~0ULL, ~0ULL };
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);

	accepts(set_region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 200 * PAGE, mem), "a logged slot");
	accepts(set_region(vm, 1, 0, 0x200000, PAGE, mem), "one that is not logged");
	accepts(get_log(vm, 0, bitmap), "KVM_GET_DIRTY_LOG answers");
	tap_ok(!bitmap[0] && !bitmap[1] && !bitmap[2] && !bitmap[3], "nothing is dirty at first");
	refuses(ENOENT, get_log(vm, 1, bitmap), "the log of a slot without one is refused");
	refuses(ENOENT, get_log(vm, 2, bitmap), "the log of no slot is refused");
	refuses(EINVAL, get_log(vm, 0xffff, bitmap), "the log of an impossible slot is refused");
	refuses(EINVAL, get_log(vm, 2 << 16, bitmap), "the log of an unknown address space is refused");
	refuses(EFAULT, get_log(vm, 0, NOWHERE), "a log to nowhere is refused");
	refuses(EFAULT, api.ioctl(vm, KVM_GET_DIRTY_LOG, NOWHERE), "a request from nowhere is refused");

	refuses(EINVAL, clear_log(vm, 0, 1, 64, bitmap), "clearing from the middle of a word is refused");
	refuses(EINVAL, clear_log(vm, 0, 0, 63, bitmap), "clearing to the middle of a word is refused");
	refuses(EINVAL, clear_log(vm, 0, 64, 200, bitmap), "clearing beyond the end is refused");
	refuses(EINVAL, clear_log(vm, 0, 256, 64, bitmap), "clearing from beyond the end is refused");
	refuses(ENOENT, clear_log(vm, 1, 0, 1, bitmap), "clearing the log of a slot without one is refused");
	refuses(EINVAL, clear_log(vm, 0xffff, 0, 64, bitmap), "clearing the log of an impossible slot is refused");
	refuses(EFAULT, clear_log(vm, 0, 0, 64, NOWHERE), "clearing by a bitmap from nowhere is refused");
	accepts(clear_log(vm, 0, 0, 64, bitmap), "clearing a word");
	accepts(clear_log(vm, 0, 192, 8, bitmap), "clearing the short last word");
	accepts(clear_log(vm, 0, 0, 200, bitmap), "clearing all");
	api.close(vm);
	munmap(mem, 256 * PAGE);
}

static void manual_protect(void)
{
	uint8_t *mem = pages(256);
	uint64_t bitmap[4] = { 0 };
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);

	refuses(EINVAL, enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1, 1), "flags are refused");
	refuses(EINVAL, enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 4, 0), "an unknown mode is refused");
	refuses(EINVAL, enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_INITIALLY_SET, 0), "initially set without manual protection is refused");
	accepts(enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3, 0), "manual protection, all pages dirty initially");
	accepts(set_region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 200 * PAGE, mem), "a logged slot");
	accepts(get_log(vm, 0, bitmap), "its log");
	tap_ok(bitmap[0] == ~0ULL && bitmap[2] == ~0ULL && (bitmap[3] & 0xff) == 0xff, "every page is dirty");
	memset(bitmap, 0, sizeof(bitmap));
	accepts(get_log(vm, 0, bitmap), "its log again");
	equals(bitmap[1], ~0ULL, "reading cleared nothing");
	bitmap[0] = 0xf0;
	accepts(clear_log(vm, 0, 0, 64, bitmap), "four pages are cleared");
	accepts(get_log(vm, 0, bitmap), "its log once more");
	equals(bitmap[0], ~0xf0ULL, "these and no others are clean");
	equals(bitmap[1], ~0ULL, "the next word is as it was");
	refuses(EFAULT, api.ioctl(vm, KVM_ENABLE_CAP, NOWHERE), "KVM_ENABLE_CAP from nowhere is refused");
	refuses(EINVAL, enable(vm, 0xfffff, 0, 0), "enabling what does not exist is refused");
	api.close(vm);
	munmap(mem, 256 * PAGE);
}

static void ring_setup(void)
{
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), vcpu;
	long max = api.ioctl(vm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_DIRTY_LOG_RING);
	struct kvm_dirty_gfn *ring;
	uint8_t *mem = pages(4);
	uint64_t bitmap;

	tap_ok(max >= 65536, "a dirty ring may have %ld bytes", max);
	refuses(EINVAL, api.ioctl(vm, KVM_RESET_DIRTY_RINGS, 0UL), "resetting rings that are not there is refused");
	refuses(EINVAL, enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, 0), "a ring of no size is refused");
	refuses(EINVAL, enable(vm, KVM_CAP_DIRTY_LOG_RING, 12288, 0), "a ring that is no power of two is refused");
	refuses(EINVAL, enable(vm, KVM_CAP_DIRTY_LOG_RING, 512, 0), "a ring smaller than a page is refused");
	refuses(E2BIG, enable(vm, KVM_CAP_DIRTY_LOG_RING, (uint64_t)max * 2, 0), "a ring too large is refused");
	accepts(enable(vm, KVM_CAP_DIRTY_LOG_RING, 65536, 0), "a ring");
	refuses(EINVAL, enable(vm, KVM_CAP_DIRTY_LOG_RING, 65536, 0), "a second time is refused");
	accepts(set_region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 4 * PAGE, mem), "a logged slot");
	refuses(ENXIO, get_log(vm, 0, &bitmap), "there is no bitmap");
	refuses(ENXIO, clear_log(vm, 0, 0, 4, &bitmap), "nor can it be cleared");
	vcpu = (int)accepts(api.ioctl(vm, KVM_CREATE_VCPU, 0UL), "a vCPU");
	ring = api.mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * 4096L);
	if (tap_ok(ring != MAP_FAILED, "its ring can be mapped")) {
		equals(ring[0].flags | ring[4095].flags, 0, "it is empty");
		munmap(ring, 65536);
	}
	equals(api.ioctl(vm, KVM_RESET_DIRTY_RINGS, 0UL), 0, "resetting empty rings takes nothing back");
	api.close(vcpu);
	api.close(vm);
	vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL);
	vcpu = api.ioctl(vm, KVM_CREATE_VCPU, 0UL);
	refuses(EINVAL, enable(vm, KVM_CAP_DIRTY_LOG_RING, 65536, 0), "a ring after the first vCPU is refused");
	api.close(vcpu);
	api.close(vm);
	munmap(mem, 4 * PAGE);
}

static void coalesced(void)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = 0xa0000, .size = 0x1000 }, odd = { .addr = 0, .size = 8, .pio = 2 };
	int vm = api.ioctl(api_system(), KVM_CREATE_VM, 0UL), i, bad = 0;

	accepts(api.ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &zone), "a zone");
	accepts(api.ioctl(vm, KVM_UNREGISTER_COALESCED_MMIO, &zone), "and no more");
	accepts(api.ioctl(vm, KVM_UNREGISTER_COALESCED_MMIO, &zone), "removing what is not there is no mistake");
	zone.pio = 1;
	accepts(api.ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &zone), "a zone of ports");
	refuses(EINVAL, api.ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &odd), "neither memory nor ports is refused");
	refuses(EINVAL, api.ioctl(vm, KVM_UNREGISTER_COALESCED_MMIO, &odd), "removing neither is refused");
	refuses(EFAULT, api.ioctl(vm, KVM_REGISTER_COALESCED_MMIO, NOWHERE), "a zone described nowhere is refused");
	zone.pio = 0;
	for (i = 0; i < 50; i++) {
		zone.addr = 0xa0000 + (uint64_t)i * 0x1000;
		bad += api.ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &zone) != 0;
	}
	equals(bad, 0, "fifty zones");
	for (i = 0; !bad && i < 2000; i++) {
		zone.addr = 0xa00000 + (uint64_t)i * 0x1000;
		if (api.ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &zone))
			bad = errno;
	}
	equals(bad, ENOSPC, "but not any number");
	api.close(vm);
}

struct race_arg {
	int vm;
	uint8_t *mem;
};

static int move_slot(void *arg, int round)
{
	struct race_arg *r = arg;

	/* The other thread may have deleted it, or put something there. */
	if (!set_region(r->vm, 0, 0, round & 1 ? 0x10000 : 0x20000, 4 * PAGE, r->mem))
		return 0;
	return errno != EEXIST && errno != EINVAL;
}

static int delete_slot(void *arg, int round)
{
	struct race_arg *r = arg;

	(void)round;
	return set_region(r->vm, 0, 0, 0, 0, NULL) && errno != EINVAL;
}

static int toggle_log(void *arg, int round)
{
	struct race_arg *r = arg;

	return set_region(r->vm, 1, round & 1 ? KVM_MEM_LOG_DIRTY_PAGES : 0, 0x100000, 4 * PAGE, r->mem) != 0;
}

static int read_log(void *arg, int round)
{
	struct race_arg *r = arg;
	uint64_t bitmap;

	(void)round;
	return get_log(r->vm, 1, &bitmap) && errno != ENOENT;
}

static int clear_some(void *arg, int round)
{
	struct race_arg *r = arg;
	uint64_t bitmap = 0xf;

	(void)round;
	return clear_log(r->vm, 1, 0, 4, &bitmap) && errno != ENOENT;
}

static int toggle_zone(void *arg, int round)
{
	struct race_arg *r = arg;
	struct kvm_coalesced_mmio_zone zone = { .addr = 0xa0000, .size = 0x1000 };

	return api.ioctl(r->vm, round & 1 ? KVM_UNREGISTER_COALESCED_MMIO : KVM_REGISTER_COALESCED_MMIO, &zone) != 0;
}

static int reset_rings(void *arg, int round)
{
	struct race_arg *r = arg;

	(void)round;
	return api.ioctl(r->vm, KVM_RESET_DIRTY_RINGS, 0UL) >= 0 || errno != EINVAL;
}

static int change_mode(void *arg, int round)
{
	struct race_arg *r = arg;

	return enable(r->vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, round & 1 ? 3 : 0, 0) != 0;
}

static void races(void)
{
	struct race_arg r = { api.ioctl(api_system(), KVM_CREATE_VM, 0UL), pages(4) };

	race("a slot is moved and deleted", 200, move_slot, delete_slot, &r);
	race("a slot is moved by both", 200, move_slot, move_slot, &r);
	race("logging is switched while the log is read", 200, toggle_log, read_log, &r);
	race("logging is switched while the log is cleared", 200, toggle_log, clear_some, &r);
	race("the log is read and cleared", 200, read_log, clear_some, &r);
	race("zones come and go", 100, toggle_zone, toggle_zone, &r);
	race("the protection's mode changes while logging is switched", 200, change_mode, toggle_log, &r);
	race("rings are reset and logs read", 200, reset_rings, read_log, &r);
	api.close(r.vm);
	munmap(r.mem, 4 * PAGE);
}

const struct api_case api_cases[] = {
	{ "refused-regions", refused_regions },
	{ "changed-regions", changed_regions },
	{ "many-regions", many_regions },
	{ "dirty-log", dirty_log },
	{ "manual-protect", manual_protect },
	{ "ring", ring_setup },
	{ "coalesced", coalesced },
	{ "races", races },
	{ NULL, NULL },
};
