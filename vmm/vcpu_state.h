/*
 * A vCPU's state as a whole: taken once after creation, put back at every reset; and the state in
 * which a boot protocol enters a kernel. The vCPU is paused, or has no thread yet.
 */
#ifndef VMM_VCPU_STATE_H
#define VMM_VCPU_STATE_H

#include "vmm/vcpu.h"

/* How the first vCPU starts a kernel that no firmware has loaded. */
struct boot_entry {
	enum boot_mode {
		BOOT_MODE_LONG,	     /* 64-bit code, paging on, flat segments from the GDT */
		BOOT_MODE_PROTECTED, /* 32-bit code, paging off, flat segments */
	} mode;
	u64 rip, rsi;
	u32 eax, ebx;
	u64 cr3; /* long mode only */
	u64 gdt; /* guest-physical; selectors 0x10 (code) and 0x18 (data), or cs and ds */
	u16 gdt_limit, cs, ds;
};

int vcpu_state_save(struct vcpu *vcpu, struct vcpu_state *s, struct error *err);
int vcpu_state_load(struct vcpu *vcpu, const struct vcpu_state *s, struct error *err);
void vcpu_state_free(struct vcpu_state *s);
int vcpu_state_enter(struct vcpu *vcpu, const struct boot_entry *entry, struct error *err);

#endif
