/*
 * The virtual machine control block, one page that VMRUN reads and #VMEXIT writes: APM 2 appendix B; exit codes: appendix C.
 */
#ifndef ENGINES_SVM_VMCB_H
#define ENGINES_SVM_VMCB_H

#include "core/x86/x86.h"

/*
 * Exit codes. Those below SVM_EXIT_NPF are at the same time the numbers of the bits in vmcb->intercept that ask for them.
 */
enum svm_exit {
	SVM_EXIT_CR_READ = 0x00, /* + number */
	SVM_EXIT_CR_WRITE = 0x10,
	SVM_EXIT_DR_READ = 0x20,
	SVM_EXIT_DR_WRITE = 0x30,
	SVM_EXIT_EXCEPTION = 0x40, /* + vector */
	SVM_EXIT_INTR = 0x60, SVM_EXIT_NMI, SVM_EXIT_SMI, SVM_EXIT_INIT, SVM_EXIT_VINTR, SVM_EXIT_CR0_SEL_WRITE,
	SVM_EXIT_IDTR_READ, SVM_EXIT_GDTR_READ, SVM_EXIT_LDTR_READ, SVM_EXIT_TR_READ,
	SVM_EXIT_IDTR_WRITE, SVM_EXIT_GDTR_WRITE, SVM_EXIT_LDTR_WRITE, SVM_EXIT_TR_WRITE,
	SVM_EXIT_RDTSC, SVM_EXIT_RDPMC, SVM_EXIT_PUSHF, SVM_EXIT_POPF, SVM_EXIT_CPUID, SVM_EXIT_RSM, SVM_EXIT_IRET,
	SVM_EXIT_SWINT, SVM_EXIT_INVD, SVM_EXIT_PAUSE, SVM_EXIT_HLT, SVM_EXIT_INVLPG, SVM_EXIT_INVLPGA, SVM_EXIT_IOIO,
	SVM_EXIT_MSR, SVM_EXIT_TASK_SWITCH, SVM_EXIT_FERR_FREEZE, SVM_EXIT_SHUTDOWN,
	SVM_EXIT_VMRUN = 0x80, SVM_EXIT_VMMCALL, SVM_EXIT_VMLOAD, SVM_EXIT_VMSAVE, SVM_EXIT_STGI, SVM_EXIT_CLGI,
	SVM_EXIT_SKINIT, SVM_EXIT_RDTSCP, SVM_EXIT_ICEBP, SVM_EXIT_WBINVD, SVM_EXIT_MONITOR, SVM_EXIT_MWAIT,
	SVM_EXIT_MWAIT_ARMED, SVM_EXIT_XSETBV, SVM_EXIT_RDPRU, SVM_EXIT_EFER_WRITE_TRAP,
	SVM_EXIT_INVLPGB = 0xa0, SVM_EXIT_INVLPGB_ILLEGAL, SVM_EXIT_INVPCID, SVM_EXIT_MCOMMIT, SVM_EXIT_TLBSYNC,
	SVM_EXIT_NPF = 0x400, SVM_EXIT_AVIC_INCOMPLETE_IPI, SVM_EXIT_AVIC_NOACCEL,
};
#define SVM_EXIT_INVALID (~0ULL)

/* vmcb->clean: what the processor may keep from the last run, 15.15.1 */
#define VMCB_CLEAN_INTERCEPTS BIT64(0) /* and TSC_OFFSET, pause filter */
#define VMCB_CLEAN_IOPM	      BIT64(1) /* and MSRPM: their addresses */
#define VMCB_CLEAN_ASID	      BIT64(2)
#define VMCB_CLEAN_TPR	      BIT64(3) /* the virtual interrupt fields */
#define VMCB_CLEAN_NP	      BIT64(4) /* and G_PAT */
#define VMCB_CLEAN_CR	      BIT64(5) /* CR0, CR3, CR4, EFER */
#define VMCB_CLEAN_DR	      BIT64(6)
#define VMCB_CLEAN_DT	      BIT64(7)
#define VMCB_CLEAN_SEG	      BIT64(8) /* CS, DS, SS, ES, CPL */
#define VMCB_CLEAN_CR2	      BIT64(9)
#define VMCB_CLEAN_LBR	      BIT64(10)
#define VMCB_CLEAN_AVIC	      BIT64(11) /* where its APIC, its page and its tables are */
#define VMCB_CLEAN_ALL	      MASK64(11, 0)

#define VMCB_TLB_FLUSH_ALL  1
#define VMCB_TLB_FLUSH_ASID 3

/* vmcb->vintr */
#define VINTR_TPR	 0xfULL
#define VINTR_IRQ	 BIT64(8)
#define VINTR_NMI	 BIT64(11) /* pending for the guest, 15.21.10 */
#define VINTR_NMI_MASK	 BIT64(12) /* the guest handles one */
#define VINTR_PRIO_SHIFT 16
#define VINTR_IGN_TPR	 BIT64(20)
#define VINTR_MASKING	 BIT64(24) /* the host's RFLAGS.IF masks physical interrupts, the guest's virtual ones */
#define VINTR_NMI_ENABLE BIT64(26)
#define VINTR_X2AVIC	 BIT64(30) /* with VINTR_AVIC: the APIC is in x2APIC mode */
#define VINTR_AVIC	 BIT64(31)

/* vmcb->virt_ext */
#define VIRT_EXT_LBR BIT64(0)

#define INT_STATE_SHADOW BIT64(0)

/* vmcb->event_inj and exit_int_info, 15.20 */
#define EVENT_VECTOR	 0xffULL
#define EVENT_TYPE_SHIFT 8
#define EVENT_TYPE	 (7ULL << EVENT_TYPE_SHIFT)
#define EVENT_HAS_ERROR	 BIT64(11)
#define EVENT_VALID	 BIT64(31)
#define EVENT_ERROR_SHIFT 32
enum { EVENT_TYPE_INTR = 0, EVENT_TYPE_NMI = 2, EVENT_TYPE_EXCEPTION = 3, EVENT_TYPE_SOFT = 4 };

/* exit_info_1 of SVM_EXIT_NPF besides PFERR_*, 15.25.6: the guest's page tables allowed the access, and this is what it goes to */
#define NPF_FINAL BIT64(32)

/* exit_info_1 of SVM_EXIT_IOIO, 15.10.2 */
#define IOIO_IN		BIT64(0)
#define IOIO_STRING	BIT64(2)
#define IOIO_SIZE(info) (((info) >> 4) & 7)
#define IOIO_PORT(info) ((u16)((info) >> 16))

/* exit_info_1 of a CR exit with decode assists, 15.33.1 */
#define CR_EXIT_MOV	BIT64(63)
#define CR_EXIT_GPR	0xfULL

/* 15.29.9: exit_info_1 of SVM_EXIT_AVIC_INCOMPLETE_IPI is the ICR, exit_info_2 says why and, if it was a table's entry, which */
#define AVIC_IPI_REASON(info) ((u32)((info) >> 32))
enum avic_ipi_reason { AVIC_IPI_TYPE, AVIC_IPI_NOT_RUNNING, AVIC_IPI_TARGET, AVIC_IPI_BACKING_PAGE, AVIC_IPI_VECTOR };
/* exit_info_1 of SVM_EXIT_AVIC_NOACCEL; of a level-triggered interrupt's EOI exit_info_2 has the vector */
#define AVIC_NOACCEL_WRITE	  BIT64(32)
#define AVIC_NOACCEL_OFFSET(info) ((info) & 0xff0)
#define AVIC_NOACCEL_VECTOR(info) ((info) & 0xff)

/* 15.29.5: an entry of the physical APIC ID table, of the logical one */
#define AVIC_PHYSICAL_HOST_ID MASK64(11, 0) /* the local APIC ID of the CPU that it runs on; 8 bits without x2AVIC */
#define AVIC_PHYSICAL_PAGE    MASK64(51, 12)
#define AVIC_PHYSICAL_RUNNING BIT64(62)
#define AVIC_PHYSICAL_VALID   BIT64(63)
#define AVIC_LOGICAL_ID	      0xffU
#define AVIC_LOGICAL_VALID    0x80000000U

struct vmcb_seg {
	u16 selector;
	u16 attrib; /* descriptor bits 40-47 and 52-55 */
	u32 limit;
	u64 base;
};

struct vmcb {
	u32 intercept[6];
	u8 rsvd_018[0x3c - 0x18];
	u16 pause_filter_thresh, pause_filter_count;
	u64 iopm_pa, msrpm_pa;
	u64 tsc_offset;
	u32 asid;
	u8 tlb_control;
	u8 rsvd_05d[3];
	u64 vintr;
	u64 int_state;
	u64 exit_code, exit_info_1, exit_info_2, exit_int_info;
	u64 np_enable;
	u64 avic_bar, ghcb;
	u64 event_inj;
	u64 n_cr3;
	u64 virt_ext; /* VIRT_EXT_* */
	u32 clean, rsvd_0c4;
	u64 next_rip;
	u8 insn_len, insn[15]; /* decode assists: what was fetched, for #PF and NPF */
	u64 avic_page, rsvd_0e8;
	u64 avic_logical, avic_physical; /* the latter with the highest index in its low bits */
	u8 rsvd_100[0x400 - 0x100];

	struct vmcb_seg es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	u8 rsvd_4a0[0x4cb - 0x4a0];
	u8 cpl;
	u32 rsvd_4cc;
	u64 efer;
	u8 rsvd_4d8[0x548 - 0x4d8];
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
	u8 rsvd_580[0x5d8 - 0x580];
	u64 rsp;
	u64 s_cet, ssp, isst_addr;
	u64 rax;
	u64 star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip;
	u64 cr2;
	u8 rsvd_648[0x668 - 0x648];
	u64 g_pat, dbgctl, br_from, br_to, last_excp_from, last_excp_to;
	u8 rsvd_698[0x1000 - 0x698];
};
static_assert(sizeof(struct vmcb) == 4096, "APM 2 15.5.1: a page");
static_assert(offsetof(struct vmcb, pause_filter_thresh) == 0x3c, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, iopm_pa) == 0x40, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, asid) == 0x58, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, vintr) == 0x60, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, exit_code) == 0x70, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, exit_int_info) == 0x88, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, event_inj) == 0xa8, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, n_cr3) == 0xb0, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, clean) == 0xc0, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, next_rip) == 0xc8, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, insn_len) == 0xd0, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, avic_bar) == 0x98, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, avic_page) == 0xe0, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, avic_logical) == 0xf0, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, avic_physical) == 0xf8, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, tr) == 0x490, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, cpl) == 0x4cb, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, efer) == 0x4d0, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, cr4) == 0x548, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, rip) == 0x578, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, rsp) == 0x5d8, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, rax) == 0x5f8, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, cr2) == 0x640, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, g_pat) == 0x668, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, last_excp_to) == 0x690, "APM 2 table B-2");

#endif
