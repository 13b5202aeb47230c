/*
 * System management mode: the state-save maps, 64-bit as APM 2 table 10-1 has it, 32-bit as SDM 3C
 * table 31-1, entry and RSM. SMRAM is reached by linear addresses with paging off, in SMM's own
 * address space (x86_state.smm is set).
 */
#include "core/x86/emul/emul_priv.h"

#define SMM_MAP_OFFSET	 0xfe00 /* from SMBASE; the map is the 512 bytes up to 0xffff */
#define SMM_MAP_SIZE	 512
#define SMM_ENTRY_OFFSET 0x8000
#define SMM_REVISION_64	 0x00020064 /* SMBASE relocation, AMD64 map */
#define SMM_REVISION_32	 0x00020000

/* Offsets are written as the manuals do: from SMBASE + 0x8000. */
#define AT(offset) ((offset)-0x7e00)

static void put(u8 *map, unsigned offset, unsigned size, u64 value)
{
	memcpy(map + AT(offset), &value, size);
}

static u64 get(const u8 *map, unsigned offset, unsigned size)
{
	u64 value = 0;

	memcpy(&value, map + AT(offset), size);
	return value;
}

/* ---- 64-bit map ----------------------------------------------------------------------------- */

/* Where each segment's 16 bytes are: selector, attributes, limit, base. */
static const u16 seg64[SEG_COUNT] = {
	[SEG_ES] = 0x7e00, [SEG_CS] = 0x7e10, [SEG_SS] = 0x7e20,   [SEG_DS] = 0x7e30,
	[SEG_FS] = 0x7e40, [SEG_GS] = 0x7e50, [SEG_LDTR] = 0x7e70, [SEG_TR] = 0x7e90,
};

/* Attributes are descriptor bits 40..47 and 52..55 packed to 12 bits (APM 2 15.5.1). A null segment
 * is not present. */
static u16 pack_ar(u32 ar)
{
	if (ar & AR_UNUSABLE)
		return ar & AR_DPL;
	return (ar & 0xff) | (ar >> 4 & 0xf00);
}

static u32 unpack_ar(u16 packed)
{
	u32 ar = (packed & 0xff) | (packed & 0xf00) << 4;

	return ar & AR_P ? ar : (ar & AR_DPL) | AR_UNUSABLE;
}

static void save64(const struct x86_state *s, u64 smbase, bool hlt, u8 *map)
{
	unsigned i;

	for (i = 0; i < SEG_COUNT; i++) {
		put(map, seg64[i], 2, s->seg[i].sel);
		put(map, seg64[i] + 2, 2, pack_ar(s->seg[i].ar));
		put(map, seg64[i] + 4, 4, s->seg[i].limit);
		put(map, seg64[i] + 8, 8, s->seg[i].base);
	}
	put(map, 0x7e64, 4, s->gdt.limit);
	put(map, 0x7e68, 8, s->gdt.base);
	put(map, 0x7e84, 4, s->idt.limit);
	put(map, 0x7e88, 8, s->idt.base);
	put(map, 0x7ec9, 1, hlt);
	put(map, 0x7eca, 1, s->nmi_masked);
	put(map, 0x7ecb, 1, s->shadow);
	put(map, 0x7ed0, 8, s->efer);
	put(map, 0x7efc, 4, SMM_REVISION_64);
	put(map, 0x7f00, 4, smbase);
	put(map, 0x7f48, 8, s->cr4);
	put(map, 0x7f50, 8, s->cr3);
	put(map, 0x7f58, 8, s->cr0);
	put(map, 0x7f60, 8, s->dr7);
	put(map, 0x7f68, 8, s->dr6);
	put(map, 0x7f70, 8, s->rflags);
	put(map, 0x7f78, 8, s->rip);
	for (i = 0; i < 16; i++)
		put(map, 0x7ff8 - 8 * i, 8, s->gpr[i]);
}

static void restore64(struct x86_state *s, const u8 *map, u64 *smbase, bool *hlt)
{
	unsigned i;

	for (i = 0; i < SEG_COUNT; i++) {
		s->seg[i].sel = get(map, seg64[i], 2);
		s->seg[i].ar = unpack_ar(get(map, seg64[i] + 2, 2));
		s->seg[i].limit = get(map, seg64[i] + 4, 4);
		s->seg[i].base = get(map, seg64[i] + 8, 8);
	}
	s->gdt.limit = get(map, 0x7e64, 4);
	s->gdt.base = get(map, 0x7e68, 8);
	s->idt.limit = get(map, 0x7e84, 4);
	s->idt.base = get(map, 0x7e88, 8);
	* hlt = get(map, 0x7ec9, 1) & 1;
	s->nmi_masked = get(map, 0x7eca, 1) & 1;
	s->shadow = get(map, 0x7ecb, 1) & (SHADOW_STI | SHADOW_MOVSS);
	s->efer = get(map, 0x7ed0, 8);
	* smbase = get(map, 0x7f00, 4);
	s->cr4 = get(map, 0x7f48, 8);
	s->cr3 = get(map, 0x7f50, 8);
	s->cr0 = get(map, 0x7f58, 8);
	s->dr7 = get(map, 0x7f60, 8);
	s->dr6 = get(map, 0x7f68, 8);
	s->rflags = get(map, 0x7f70, 8) | RFLAGS_ONE;
	s->rip = get(map, 0x7f78, 8);
	for (i = 0; i < 16; i++)
		s->gpr[i] = get(map, 0x7ff8 - 8 * i, 8);
}

/* ---- 32-bit map ----------------------------------------------------------------------------- */

/* Selector, and the 12 bytes of rights, limit, base. */
static const struct {
	u16 sel, rest;
} seg32[SEG_COUNT] = {
	[SEG_ES] = { 0x7fa8, 0x7f84 },	 [SEG_CS] = { 0x7fac, 0x7f90 },
	[SEG_SS] = { 0x7fb0, 0x7f9c },	 [SEG_DS] = { 0x7fb4, 0x7f2c },
	[SEG_FS] = { 0x7fb8, 0x7f38 },	 [SEG_GS] = { 0x7fbc, 0x7f44 },
	[SEG_LDTR] = { 0x7fc0, 0x7f78 }, [SEG_TR] = { 0x7fc4, 0x7f5c },
};

static void save32(const struct x86_state *s, u64 smbase, bool hlt, u8 *map)
{
	unsigned i;

	for (i = 0; i < SEG_COUNT; i++) {
		put(map, seg32[i].sel, 4, s->seg[i].sel);
		put(map, seg32[i].rest, 4,
		    s->seg[i].ar & AR_UNUSABLE ? s->seg[i].ar & AR_DPL : s->seg[i].ar);
		put(map, seg32[i].rest + 4, 4, s->seg[i].limit);
		put(map, seg32[i].rest + 8, 4, s->seg[i].base);
	}
	put(map, 0x7ef8, 4, smbase);
	put(map, 0x7efc, 4, SMM_REVISION_32);
	put(map, 0x7f02, 2, hlt);
	put(map, 0x7f14, 4, s->cr4);
	put(map, 0x7f1a, 1, s->shadow);
	put(map, 0x7f1b, 1, s->nmi_masked);
	put(map, 0x7f54, 4, s->idt.limit);
	put(map, 0x7f58, 4, s->idt.base);
	put(map, 0x7f70, 4, s->gdt.limit);
	put(map, 0x7f74, 4, s->gdt.base);
	put(map, 0x7fc8, 4, s->dr7);
	put(map, 0x7fcc, 4, s->dr6);
	for (i = 0; i < 8; i++)
		put(map, 0x7fd0 + 4 * i, 4, s->gpr[i]);
	put(map, 0x7ff0, 4, s->rip);
	put(map, 0x7ff4, 4, s->rflags);
	put(map, 0x7ff8, 4, s->cr3);
	put(map, 0x7ffc, 4, s->cr0);
}

static void restore32(struct x86_state *s, const u8 *map, u64 *smbase, bool *hlt)
{
	unsigned i;

	for (i = 0; i < SEG_COUNT; i++) {
		u32 ar = get(map, seg32[i].rest, 4) & 0xf0ff;

		s->seg[i].sel = get(map, seg32[i].sel, 4);
		s->seg[i].ar = ar & AR_P ? ar : (ar & AR_DPL) | AR_UNUSABLE;
		s->seg[i].limit = get(map, seg32[i].rest + 4, 4);
		s->seg[i].base = get(map, seg32[i].rest + 8, 4);
	}
	* smbase = get(map, 0x7ef8, 4);
	* hlt = get(map, 0x7f02, 2) & 1;
	s->cr4 = get(map, 0x7f14, 4);
	s->shadow = get(map, 0x7f1a, 1) & (SHADOW_STI | SHADOW_MOVSS);
	s->nmi_masked = get(map, 0x7f1b, 1) & 1;
	s->idt.limit = get(map, 0x7f54, 4);
	s->idt.base = get(map, 0x7f58, 4);
	s->gdt.limit = get(map, 0x7f70, 4);
	s->gdt.base = get(map, 0x7f74, 4);
	s->dr7 = get(map, 0x7fc8, 4);
	s->dr6 = get(map, 0x7fcc, 4);
	for (i = 0; i < 8; i++)
		s->gpr[i] = get(map, 0x7fd0 + 4 * i, 4);
	s->rip = get(map, 0x7ff0, 4);
	s->rflags = get(map, 0x7ff4, 4) | RFLAGS_ONE;
	s->cr3 = get(map, 0x7ff8, 4);
	s->cr0 = get(map, 0x7ffc, 4);
}

/* ---- entry and exit ------------------------------------------------------------------------- */

/* The state in which SMM code begins, SDM 3C table 31-4. */
static void enter_state(struct x86_state *s, u64 smbase)
{
	unsigned i;

	s->smm = true;
	s->nmi_masked = true;
	s->shadow = 0;
	s->rflags = RFLAGS_ONE;
	s->rip = SMM_ENTRY_OFFSET;
	s->cr0 &= ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
	s->cr4 = 0;
	s->efer = 0;
	s->dr7 = DR7_FIXED_1;
	s->idt = (struct x86_dtable){ 0 };
	for (i = 0; i <= SEG_GS; i++)
		s->seg[i] = (struct x86_segment){ .limit = ~0U, .ar = 3 | AR_S | AR_P | AR_G };
	s->seg[SEG_CS].sel = smbase >> 4;
	s->seg[SEG_CS].base = smbase;
}

static enum x86_result map_io(struct emul *e, u64 smbase, u8 *map, bool write)
{
	unsigned i;

	for (i = 0; i < SMM_MAP_SIZE; i += 64) {
		u32 la = smbase + SMM_MAP_OFFSET + i;
		enum x86_result r = write ? e->ops->write(e, la, map + i, 64, EMUL_ACC_SYSTEM)
					  : e->ops->read(e, la, map + i, 64, EMUL_ACC_SYSTEM);

		if (r != X86_CONTINUE && r != X86_EXIT)
			return X86_SHUTDOWN;
	}
	return X86_CONTINUE;
}

enum x86_result emul_smm_enter(struct emul *e, u64 smbase, bool long_mode, bool hlt)
{
	u8 map[SMM_MAP_SIZE];

	memset(map, 0, sizeof(map));
	if (long_mode)
		save64(e->s, smbase, hlt, map);
	else
		save32(e->s, smbase, hlt, map);
	enter_state(e->s, smbase);
	emul_mode_changed(e);
	return map_io(e, smbase, map, true);
}

/* What no processor state can be, and RSM answers with shutdown (SDM 3C 31.5). */
static bool state_valid(const struct x86_state *s)
{
	if (s->cr0 >> 32 || ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE)) ||
	    ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)))
		return false;
	if (!(s->efer & EFER_LMA) != !((s->cr0 & CR0_PG) && (s->efer & EFER_LME)))
		return false;
	return !(s->efer & EFER_LMA) || ((s->cr4 & CR4_PAE) && !(s->rflags & RFLAGS_VM));
}

enum x86_result emul_smm_leave(struct emul *e, u64 *smbase, bool long_mode, bool *hlt)
{
	struct x86_state *s = e->s;
	u8 map[SMM_MAP_SIZE];
	enum x86_result r;
	u64 base = 0;

	/* SMM code may have turned paging on: the map is at a physical address. */
	s->cr0 &= ~(CR0_PE | CR0_PG);
	s->cr4 = 0;
	s->efer = 0;
	s->rflags &= ~RFLAGS_VM;
	emul_mode_changed(e);
	r = map_io(e, *smbase, map, false);
	if (r != X86_CONTINUE)
		return r;
	if (long_mode)
		restore64(s, map, &base, hlt);
	else
		restore32(s, map, &base, hlt);
	s->smm = false;
	* smbase = base;
	if (!state_valid(s))
		return X86_SHUTDOWN;
	emul_mode_changed(e);
	/* PAE paging without long mode: the PDPTEs come with CR3. */
	if ((s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA)) {
		r = e->ops->set_cr(e, 3, s->cr3);
		if (r != X86_CONTINUE && r != X86_EXIT)
			return X86_SHUTDOWN;
	}
	return X86_CONTINUE;
}
