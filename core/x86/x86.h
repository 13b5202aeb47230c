/*
 * The architecture's own constants (SDM 3A chapters 2 to 6, APM 2 chapters 3 to 8) and the register state of one
 * logical processor in the engine-independent form.
 */
#ifndef CORE_X86_X86_H
#define CORE_X86_X86_H

#include "core/bits.h"

/* RFLAGS, SDM 1 3.4.3 */
#define RFLAGS_CF   BIT64(0)
#define RFLAGS_ONE  BIT64(1)
#define RFLAGS_PF   BIT64(2)
#define RFLAGS_AF   BIT64(4)
#define RFLAGS_ZF   BIT64(6)
#define RFLAGS_SF   BIT64(7)
#define RFLAGS_TF   BIT64(8)
#define RFLAGS_IF   BIT64(9)
#define RFLAGS_DF   BIT64(10)
#define RFLAGS_OF   BIT64(11)
#define RFLAGS_IOPL (3ULL << 12)
#define RFLAGS_NT   BIT64(14)
#define RFLAGS_RF   BIT64(16)
#define RFLAGS_VM   BIT64(17)
#define RFLAGS_AC   BIT64(18)
#define RFLAGS_VIF  BIT64(19)
#define RFLAGS_VIP  BIT64(20)
#define RFLAGS_ID   BIT64(21)
#define RFLAGS_ARITH (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

#define CR0_PE BIT64(0)
#define CR0_MP BIT64(1)
#define CR0_EM BIT64(2)
#define CR0_TS BIT64(3)
#define CR0_ET BIT64(4)
#define CR0_NE BIT64(5)
#define CR0_WP BIT64(16)
#define CR0_AM BIT64(18)
#define CR0_NW BIT64(29)
#define CR0_CD BIT64(30)
#define CR0_PG BIT64(31)

#define CR3_PCID_MASK 0xfffULL
#define CR3_NOFLUSH   BIT64(63)

#define CR4_VME	       BIT64(0)
#define CR4_PVI	       BIT64(1)
#define CR4_TSD	       BIT64(2)
#define CR4_DE	       BIT64(3)
#define CR4_PSE	       BIT64(4)
#define CR4_PAE	       BIT64(5)
#define CR4_MCE	       BIT64(6)
#define CR4_PGE	       BIT64(7)
#define CR4_PCE	       BIT64(8)
#define CR4_OSFXSR     BIT64(9)
#define CR4_OSXMMEXCPT BIT64(10)
#define CR4_UMIP       BIT64(11)
#define CR4_LA57       BIT64(12)
#define CR4_VMXE       BIT64(13)
#define CR4_SMXE       BIT64(14)
#define CR4_FSGSBASE   BIT64(16)
#define CR4_PCIDE      BIT64(17)
#define CR4_OSXSAVE    BIT64(18)
#define CR4_SMEP       BIT64(20)
#define CR4_SMAP       BIT64(21)
#define CR4_PKE	       BIT64(22)
#define CR4_CET	       BIT64(23)

#define EFER_SCE   BIT64(0)
#define EFER_LME   BIT64(8)
#define EFER_LMA   BIT64(10)
#define EFER_NX	   BIT64(11)
#define EFER_SVME  BIT64(12)
#define EFER_LMSLE BIT64(13)
#define EFER_FFXSR BIT64(14)

#define DR6_FIXED_1 0xffff0ff0ULL /* reads as one when nothing happened (RTM and BLD included) */
#define DR6_BD	    BIT64(13)
#define DR6_BS	    BIT64(14)
#define DR6_BT	    BIT64(15)
#define DR7_FIXED_1 0x400ULL
#define DR7_GD	    BIT64(13)

#define XCR0_FP	   BIT64(0)
#define XCR0_SSE   BIT64(1)
#define XCR0_AVX   BIT64(2)
#define XCR0_AVX512 (7ULL << 5)

/* Exception vectors, SDM 3A table 6-1 */
enum {
	VEC_DE = 0, VEC_DB = 1, VEC_NMI = 2, VEC_BP = 3, VEC_OF = 4, VEC_BR = 5, VEC_UD = 6, VEC_NM = 7, VEC_DF = 8,
	VEC_TS = 10, VEC_NP = 11, VEC_SS = 12, VEC_GP = 13, VEC_PF = 14, VEC_MF = 16, VEC_AC = 17, VEC_MC = 18, VEC_XM = 19,
};

/* #PF error code, SDM 3A 4.7 */
#define PFERR_P	   BIT64(0)
#define PFERR_W	   BIT64(1)
#define PFERR_U	   BIT64(2)
#define PFERR_RSVD BIT64(3)
#define PFERR_I	   BIT64(4)
#define PFERR_PK   BIT64(5)

enum { REG_AX, REG_CX, REG_DX, REG_BX, REG_SP, REG_BP, REG_SI, REG_DI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12,
       REG_R13, REG_R14, REG_R15 };
/* Segment registers in instruction encoding order; LDTR and TR follow. */
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/*
 * A segment register with its hidden part. @ar is bits 8..15 and 20..23 of the descriptor's second word, moved to
 * bits 0..7 and 12..15 (SDM 3C 24.4.1's access-rights format): type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15;
 * bit 16 means unusable (null). @limit is in bytes, granularity applied.
 */
#define AR_TYPE	    0xfU
#define AR_S	    BIT64(4)
#define AR_DPL_SHIFT 5
#define AR_DPL	    (3U << AR_DPL_SHIFT)
#define AR_P	    BIT64(7)
#define AR_AVL	    BIT64(12)
#define AR_L	    BIT64(13)
#define AR_DB	    BIT64(14)
#define AR_G	    BIT64(15)
#define AR_UNUSABLE BIT64(16)

struct x86_segment {
	u64 base;
	u32 limit;
	u32 ar;
	u16 sel;
};

struct x86_dtable {
	u64 base;
	u16 limit;
};

/* What the code at RIP is. Derived from CR0, EFER, RFLAGS and CS by x86_update_mode(). */
enum x86_mode {
	X86_MODE_REAL,	 /* CR0.PE = 0 */
	X86_MODE_V86,	 /* RFLAGS.VM */
	X86_MODE_PROT16, /* protected or compatibility, CS.D = 0 */
	X86_MODE_PROT32, /* protected or compatibility, CS.D = 1 */
	X86_MODE_LONG,	 /* 64-bit */
};

/* Interrupt shadows, SDM 3A 6.8.3 */
#define SHADOW_STI   1
#define SHADOW_MOVSS 2

struct x86_state {
	u64 gpr[16];
	u64 rip;
	u64 rflags; /* bit 1 always set */
	struct x86_segment seg[SEG_COUNT];
	struct x86_dtable gdt, idt;
	u64 cr0, cr2, cr3, cr4, cr8;
	u64 efer;
	u64 xcr0;
	u64 dr[4], dr6, dr7;
	u64 pdptr[4]; /* PAE paging: loaded with CR3, SDM 3A 4.4.1 */
	/* MSRs that instructions use themselves */
	u64 star, lstar, cstar, sfmask, kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 tsc_aux;
	u8 mode;   /* enum x86_mode */
	u8 cpl;	   /* 0 in real mode, 3 in virtual-8086 mode, else SS.DPL */
	u8 shadow; /* SHADOW_* that hold for the next instruction */
	bool nmi_masked;
	bool smm;
};

/** Recomputes @mode and @cpl; call after any change of CR0.PE, EFER.LMA, RFLAGS.VM, CS or SS. */
static inline void x86_update_mode(struct x86_state *s)
{
	if (!(s->cr0 & CR0_PE)) {
		s->mode = X86_MODE_REAL;
		s->cpl = 0;
	} else if (s->rflags & RFLAGS_VM) {
		s->mode = X86_MODE_V86;
		s->cpl = 3;
	} else {
		u32 cs = s->seg[SEG_CS].ar;

		if ((s->efer & EFER_LMA) && (cs & AR_L))
			s->mode = X86_MODE_LONG;
		else
			s->mode = cs & AR_DB ? X86_MODE_PROT32 : X86_MODE_PROT16;
		s->cpl = (s->seg[SEG_SS].ar & AR_DPL) >> AR_DPL_SHIFT;
	}
}

static inline bool x86_is_canonical(u64 la, u64 cr4)
{
	unsigned bits = cr4 & CR4_LA57 ? 57 : 48;

	return (u64)sign_extend(la, bits) == la;
}

/* How an event enters the guest, SDM 3C 24.8.3 */
enum x86_event_type {
	X86_EVENT_INTR = 0,	 /* external interrupt */
	X86_EVENT_NMI = 2,
	X86_EVENT_EXCEPTION = 3, /* fault, trap or abort raised by the CPU */
	X86_EVENT_SOFT_INT = 4,	 /* INT n */
	X86_EVENT_PRIV_SOFT = 5, /* INT1 */
	X86_EVENT_SOFT_EXC = 6,	 /* INT3, INTO */
};

struct x86_event {
	u8 vector;
	u8 type; /* enum x86_event_type */
	u8 insn_len; /* software events: pushed RIP is RIP + insn_len */
	bool has_error;
	bool has_payload;
	u32 error;
	u64 payload; /* #PF: CR2; #DB: DR6 bits */
};

/* The guest's world below the API: never an errno. */
enum x86_result {
	X86_CONTINUE = 0, /* done; go on with the next instruction */
	X86_FAULT,	  /* an exception was recorded; no state changed */
	X86_RETRY,	  /* needs the client (I/O, MMIO, MSR): nothing changed, run the instruction again once it answered */
	X86_EXIT,	  /* done, and the vCPU must leave guest code (HLT, a pending write to the client, a debug exit ...) */
	X86_SHUTDOWN,	  /* triple fault */
	X86_UNHANDLED,	  /* this emulator cannot: KVM_INTERNAL_ERROR_EMULATION */
};

#endif
