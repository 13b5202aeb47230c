/*
 * The virtual-machine control structure by the manual's names: encodings of its fields (SDM 3D appendix B), bits of its controls (SDM 3C
 * 24.6 to 24.8), exit reasons (appendix C), capability MSRs (appendix A), and the instructions that work on it (SDM 3C chapter 30).
 */
#ifndef ENGINES_VMX_VMCS_H
#define ENGINES_VMX_VMCS_H

#include "core/bits.h"

enum vmcs_field {
	/* 16 bits */
	VMCS_VPID = 0x0000,
	VMCS_GUEST_INTERRUPT_STATUS = 0x0810,
	VMCS_GUEST_PML_INDEX = 0x0812,
	VMCS_GUEST_ES_SEL = 0x0800, /* ES, CS, SS, DS, FS, GS, LDTR, TR, each 2 on: the order of core's SEG_* */
	VMCS_HOST_ES_SEL = 0x0c00,
	VMCS_HOST_CS_SEL = 0x0c02,
	VMCS_HOST_SS_SEL = 0x0c04,
	VMCS_HOST_DS_SEL = 0x0c06,
	VMCS_HOST_FS_SEL = 0x0c08,
	VMCS_HOST_GS_SEL = 0x0c0a,
	VMCS_HOST_TR_SEL = 0x0c0c,

	/* 64 bits */
	VMCS_IO_BITMAP_A = 0x2000,
	VMCS_IO_BITMAP_B = 0x2002,
	VMCS_MSR_BITMAP = 0x2004,
	VMCS_EXIT_MSR_STORE = 0x2006,
	VMCS_EXIT_MSR_LOAD = 0x2008,
	VMCS_ENTRY_MSR_LOAD = 0x200a,
	VMCS_TSC_OFFSET = 0x2010,
	VMCS_PML = 0x200e,
	VMCS_VIRTUAL_APIC = 0x2012,
	VMCS_APIC_ACCESS = 0x2014,
	VMCS_EPTP = 0x201a,
	VMCS_EOI_EXIT0 = 0x201c, /* four, each 2 on */
	VMCS_TSC_MULTIPLIER = 0x2032,
	VMCS_GUEST_PHYSICAL = 0x2400,
	VMCS_LINK = 0x2800,
	VMCS_GUEST_DEBUGCTL = 0x2802,
	VMCS_GUEST_PAT = 0x2804,
	VMCS_GUEST_EFER = 0x2806,
	VMCS_GUEST_PDPTE0 = 0x280a,
	VMCS_HOST_PAT = 0x2c00,
	VMCS_HOST_EFER = 0x2c02,

	/* 32 bits */
	VMCS_PIN_CONTROLS = 0x4000,
	VMCS_CPU_CONTROLS = 0x4002,
	VMCS_EXCEPTION_BITMAP = 0x4004,
	VMCS_PF_ERROR_MASK = 0x4006,
	VMCS_PF_ERROR_MATCH = 0x4008,
	VMCS_CR3_TARGETS = 0x400a,
	VMCS_EXIT_CONTROLS = 0x400c,
	VMCS_EXIT_MSR_STORE_COUNT = 0x400e,
	VMCS_EXIT_MSR_LOAD_COUNT = 0x4010,
	VMCS_ENTRY_CONTROLS = 0x4012,
	VMCS_ENTRY_MSR_LOAD_COUNT = 0x4014,
	VMCS_ENTRY_EVENT = 0x4016,
	VMCS_ENTRY_EVENT_ERROR = 0x4018,
	VMCS_ENTRY_INSN_LEN = 0x401a,
	VMCS_TPR_THRESHOLD = 0x401c,
	VMCS_CPU2_CONTROLS = 0x401e,
	VMCS_PLE_GAP = 0x4020,
	VMCS_PLE_WINDOW = 0x4022,
	VMCS_INSN_ERROR = 0x4400,
	VMCS_EXIT_REASON = 0x4402,
	VMCS_EXIT_EVENT = 0x4404,
	VMCS_EXIT_EVENT_ERROR = 0x4406,
	VMCS_VECTORING_EVENT = 0x4408,
	VMCS_VECTORING_ERROR = 0x440a,
	VMCS_EXIT_INSN_LEN = 0x440c,
	VMCS_GUEST_ES_LIMIT = 0x4800,
	VMCS_GUEST_GDTR_LIMIT = 0x4810,
	VMCS_GUEST_IDTR_LIMIT = 0x4812,
	VMCS_GUEST_ES_AR = 0x4814,
	VMCS_GUEST_CS_AR = 0x4816,
	VMCS_GUEST_SS_AR = 0x4818,
	VMCS_GUEST_INTERRUPTIBILITY = 0x4824,
	VMCS_GUEST_ACTIVITY = 0x4826,
	VMCS_GUEST_SYSENTER_CS = 0x482a,
	VMCS_PREEMPTION_TIMER = 0x482e,
	VMCS_HOST_SYSENTER_CS = 0x4c00,

	/* natural width */
	VMCS_CR0_MASK = 0x6000,
	VMCS_CR4_MASK = 0x6002,
	VMCS_CR0_SHADOW = 0x6004,
	VMCS_CR4_SHADOW = 0x6006,
	VMCS_EXIT_QUALIFICATION = 0x6400,
	VMCS_GUEST_CR0 = 0x6800,
	VMCS_GUEST_CR3 = 0x6802,
	VMCS_GUEST_CR4 = 0x6804,
	VMCS_GUEST_ES_BASE = 0x6806,
	VMCS_GUEST_GDTR_BASE = 0x6816,
	VMCS_GUEST_IDTR_BASE = 0x6818,
	VMCS_GUEST_DR7 = 0x681a,
	VMCS_GUEST_RSP = 0x681c,
	VMCS_GUEST_RIP = 0x681e,
	VMCS_GUEST_RFLAGS = 0x6820,
	VMCS_GUEST_PENDING_DEBUG = 0x6822,
	VMCS_GUEST_SYSENTER_ESP = 0x6824,
	VMCS_GUEST_SYSENTER_EIP = 0x6826,
	VMCS_HOST_CR0 = 0x6c00,
	VMCS_HOST_CR3 = 0x6c02,
	VMCS_HOST_CR4 = 0x6c04,
	VMCS_HOST_FS_BASE = 0x6c06,
	VMCS_HOST_GS_BASE = 0x6c08,
	VMCS_HOST_TR_BASE = 0x6c0a,
	VMCS_HOST_GDTR_BASE = 0x6c0c,
	VMCS_HOST_IDTR_BASE = 0x6c0e,
	VMCS_HOST_SYSENTER_ESP = 0x6c10,
	VMCS_HOST_SYSENTER_EIP = 0x6c12,
	VMCS_HOST_RSP = 0x6c14,
	VMCS_HOST_RIP = 0x6c16,
};

/* Pin-based controls, 24.6.1 */
#define PIN_EXTERNAL_INTERRUPT BIT64(0)
#define PIN_NMI		       BIT64(3)
#define PIN_VIRTUAL_NMIS       BIT64(5)
#define PIN_PREEMPTION_TIMER   BIT64(6)

/* Primary processor-based controls, 24.6.2 */
#define CPU_INTERRUPT_WINDOW BIT64(2)
#define CPU_TSC_OFFSETTING   BIT64(3)
#define CPU_HLT		     BIT64(7)
#define CPU_INVLPG	     BIT64(9)
#define CPU_MWAIT	     BIT64(10)
#define CPU_RDPMC	     BIT64(11)
#define CPU_RDTSC	     BIT64(12)
#define CPU_CR3_LOAD	     BIT64(15)
#define CPU_CR3_STORE	     BIT64(16)
#define CPU_CR8_LOAD	     BIT64(19)
#define CPU_CR8_STORE	     BIT64(20)
#define CPU_TPR_SHADOW	     BIT64(21)
#define CPU_NMI_WINDOW	     BIT64(22)
#define CPU_MOV_DR	     BIT64(23)
#define CPU_IO		     BIT64(24)
#define CPU_IO_BITMAPS	     BIT64(25)
#define CPU_MSR_BITMAPS	     BIT64(28)
#define CPU_MONITOR	     BIT64(29)
#define CPU_PAUSE	     BIT64(30)
#define CPU_SECONDARY	     BIT64(31)

/* Secondary ones */
#define CPU2_APIC_ACCESSES	BIT64(0)
#define CPU2_EPT		BIT64(1)
#define CPU2_DESCRIPTOR_TABLE	BIT64(2)
#define CPU2_RDTSCP		BIT64(3)
#define CPU2_X2APIC		BIT64(4) /* virtualize x2APIC mode; not beside APIC_ACCESSES */
#define CPU2_VPID		BIT64(5)
#define CPU2_WBINVD		BIT64(6)
#define CPU2_UNRESTRICTED_GUEST BIT64(7)
#define CPU2_APIC_REGISTERS	BIT64(8)
#define CPU2_VIRTUAL_INTERRUPTS BIT64(9)
#define CPU2_PAUSE_LOOP		BIT64(10)
#define CPU2_RDRAND		BIT64(11)
#define CPU2_INVPCID		BIT64(12)
#define CPU2_RDSEED		BIT64(16)
#define CPU2_PML		BIT64(17)
#define CPU2_XSAVES		BIT64(20)
#define CPU2_TSC_SCALING	BIT64(25)

/* VM-exit controls, 24.7.1, and VM-entry controls, 24.8.1 */
#define EXIT_CTL_SAVE_DEBUG  BIT64(2)
#define EXIT_CTL_HOST_64     BIT64(9)
#define EXIT_CTL_SAVE_PAT    BIT64(18)
#define EXIT_CTL_LOAD_PAT    BIT64(19)
#define EXIT_CTL_SAVE_EFER   BIT64(20)
#define EXIT_CTL_LOAD_EFER   BIT64(21)
#define ENTRY_CTL_LOAD_DEBUG BIT64(2)
#define ENTRY_CTL_IA32E	     BIT64(9)
#define ENTRY_CTL_LOAD_PAT   BIT64(14)
#define ENTRY_CTL_LOAD_EFER  BIT64(15)

/* The three words that describe an event: 24.8.3, 24.9.2, 24.9.3. Their types are enum x86_event_type's values. */
#define EVENT_VECTOR	     0xffU
#define EVENT_TYPE_SHIFT     8
#define EVENT_TYPE	     7U
#define EVENT_HAS_ERROR	     BIT64(11)
#define EVENT_NMI_UNBLOCKED  BIT64(12) /* by IRET; 24.9.2 */
#define EVENT_VALID	     BIT64(31)

/* Interruptibility, 24.4.2. Bits 0 and 1 are core's SHADOW_*. */
#define INTERRUPTIBILITY_SHADOWS (SHADOW_STI | SHADOW_MOVSS)
#define INTERRUPTIBILITY_NMI	 BIT64(3)

#define PENDING_DEBUG_BS BIT64(14)

/* Guest interrupt status, 24.4.2 */
#define INTERRUPT_STATUS(rvi, svi) ((u16)((rvi) | (svi) << 8))
#define INTERRUPT_STATUS_SVI(status) ((u8)((status) >> 8))

/* 28.3.6: the log is a page, filled from its end */
#define PML_ENTRIES (HOST_PAGE_SIZE / sizeof(u64))

/* Exit reasons, appendix C */
enum vmx_exit_reason {
	VMX_EXIT_EXCEPTION_OR_NMI = 0,
	VMX_EXIT_EXTERNAL_INTERRUPT = 1,
	VMX_EXIT_TRIPLE_FAULT = 2,
	VMX_EXIT_INTERRUPT_WINDOW = 7,
	VMX_EXIT_NMI_WINDOW = 8,
	VMX_EXIT_TASK_SWITCH = 9,
	VMX_EXIT_CPUID = 10,
	VMX_EXIT_HLT = 12,
	VMX_EXIT_INVD = 13,
	VMX_EXIT_INVLPG = 14,
	VMX_EXIT_RDPMC = 15,
	VMX_EXIT_VMCALL = 18,
	VMX_EXIT_VMXON = 27,
	VMX_EXIT_CR = 28,
	VMX_EXIT_DR = 29,
	VMX_EXIT_IO = 30,
	VMX_EXIT_RDMSR = 31,
	VMX_EXIT_WRMSR = 32,
	VMX_EXIT_INVALID_STATE = 33,
	VMX_EXIT_MSR_LOADING = 34,
	VMX_EXIT_MWAIT = 36,
	VMX_EXIT_MONITOR = 39,
	VMX_EXIT_PAUSE = 40,
	VMX_EXIT_MACHINE_CHECK = 41,
	VMX_EXIT_TPR_BELOW_THRESHOLD = 43,
	VMX_EXIT_APIC_ACCESS = 44,
	VMX_EXIT_VIRTUALIZED_EOI = 45,
	VMX_EXIT_EPT_VIOLATION = 48,
	VMX_EXIT_EPT_MISCONFIGURATION = 49,
	VMX_EXIT_INVEPT = 50,
	VMX_EXIT_PREEMPTION_TIMER = 52,
	VMX_EXIT_INVVPID = 53,
	VMX_EXIT_WBINVD = 54,
	VMX_EXIT_XSETBV = 55,
	VMX_EXIT_APIC_WRITE = 56,
	VMX_EXIT_INVPCID = 58,
	VMX_EXIT_VMFUNC = 59,
	VMX_EXIT_PML_FULL = 62,
};
#define VMX_EXIT_BASIC	      0xffffU
#define VMX_EXIT_ENTRY_FAILED BIT64(31)

/* Exit qualification of EPT violations, table 27-7 */
#define EPT_VIOLATION_READ	   BIT64(0)
#define EPT_VIOLATION_WRITE	   BIT64(1)
#define EPT_VIOLATION_FETCH	   BIT64(2)
#define EPT_VIOLATION_PRESENT	   (7ULL << 3)
#define EPT_VIOLATION_NMI_UNBLOCKED BIT64(12)

/* EPTP, 24.6.11 */
#define EPTP_WRITE_BACK	    6ULL
#define EPTP_LEVELS(n)	    ((u64)((n)-1) << 3)
#define EPTP_ACCESSED_DIRTY BIT64(6)

/* Capabilities, appendix A */
#define MSR_VMX_BASIC	      0x480
#define MSR_VMX_PIN	      0x481
#define MSR_VMX_CPU	      0x482
#define MSR_VMX_EXIT	      0x483
#define MSR_VMX_ENTRY	      0x484
#define MSR_VMX_MISC	      0x485
#define VMX_MISC_STAY_SHIFT   31 /* A.6 */
#define MSR_VMX_CR0_FIXED0    0x486
#define MSR_VMX_CR0_FIXED1    0x487
#define MSR_VMX_CR4_FIXED0    0x488
#define MSR_VMX_CR4_FIXED1    0x489
#define MSR_VMX_CPU2	      0x48b
#define MSR_VMX_EPT_VPID      0x48c
#define MSR_VMX_TRUE_CONTROLS 0xc /* what the TRUE_ ones are further on than PIN, CPU, EXIT, ENTRY */

#define VMX_BASIC_REVISION    0x7fffffffULL
#define VMX_BASIC_WRITE_BACK  (6ULL << 50)
#define VMX_BASIC_MEMORY_TYPE (15ULL << 50)
#define VMX_BASIC_TRUE	      BIT64(55)

#define VMX_EPT_4_LEVELS       BIT64(6)
#define VMX_EPT_5_LEVELS       BIT64(7)
#define VMX_EPT_WRITE_BACK     BIT64(14)
#define VMX_EPT_2M	       BIT64(16)
#define VMX_EPT_1G	       BIT64(17)
#define VMX_INVEPT	       BIT64(20)
#define VMX_EPT_ACCESSED_DIRTY BIT64(21)
#define VMX_INVEPT_CONTEXT     BIT64(25)
#define VMX_INVEPT_ALL	       BIT64(26)
#define VMX_INVVPID	       BIT64(32)
#define VMX_INVVPID_ADDRESS    BIT64(40)
#define VMX_INVVPID_CONTEXT    BIT64(41)
#define VMX_INVVPID_ALL	       BIT64(42)

enum { INV_ADDRESS = 0, INV_CONTEXT = 1, INV_ALL = 2 }; /* INVVPID has all three, INVEPT the last two */

struct vmcs {
	u32 revision;
	u32 abort;
	u8 data[HOST_PAGE_SIZE - 8];
};
_Static_assert(sizeof(struct vmcs) == HOST_PAGE_SIZE, "SDM 3C 24.2");

/* An entry of the MSR areas, 24.8.2 */
struct vmx_msr_entry {
	u32 index, reserved;
	u64 value;
};
_Static_assert(sizeof(struct vmx_msr_entry) == 16, "SDM 3C table 24-13");

/*
 * When the machine goes down, VMX operation ends on all CPUs with VMs still there, whose clients go on calling: each of these instructions
 * is #UD then. No guest is entered any more, and what comes of the state of one does not matter: the instruction is passed over.
 */
#define PASSED_OVER(insn) "1: " insn "\n2:\n\t" HOST_FIXUP("1b", "2b")

/* Of the VMCS that is loaded on this CPU. What is read and written here exists, so neither can fail. */
static inline u64 vmread(enum vmcs_field field)
{
	u64 value = 0;

	__asm__ volatile(PASSED_OVER("vmread %1, %0") : "+r"(value) : "r"((u64)field) : "cc");
	return value;
}

static inline void vmwrite(u64 field, u64 value)
{
	__asm__ volatile(PASSED_OVER("vmwrite %1, %0") : : "r"(field), "rm"(value) : "cc");
}

/* Each: true when it went well. @phys: of a VMCS, of the VMXON region. */
static inline bool vmxon(u64 phys)
{
	bool failed;

	__asm__ volatile("vmxon %1" : "=@ccbe"(failed) : "m"(phys) : "memory");
	return !failed;
}

static inline bool vmclear(u64 phys)
{
	bool failed;

	__asm__ volatile(PASSED_OVER("vmclear %1") : "=@ccbe"(failed) : "m"(phys) : "memory");
	return !failed;
}

static inline bool vmptrld(u64 phys)
{
	bool failed;

	__asm__ volatile(PASSED_OVER("vmptrld %1") : "=@ccbe"(failed) : "m"(phys) : "memory");
	return !failed;
}

static inline void vmxoff(void)
{
	__asm__ volatile("vmxoff" : : : "cc", "memory");
}

static inline bool invept(u64 type, u64 eptp)
{
	struct { u64 eptp, reserved; } operand = { eptp, 0 };
	bool failed;

	__asm__ volatile(PASSED_OVER("invept %1, %2") : "=@ccbe"(failed) : "m"(operand), "r"(type) : "memory");
	return !failed;
}

static inline bool invvpid(u64 type, u16 vpid, u64 la)
{
	struct { u64 vpid, la; } operand = { vpid, la };
	bool failed;

	__asm__ volatile(PASSED_OVER("invvpid %1, %2") : "=@ccbe"(failed) : "m"(operand), "r"(type) : "memory");
	return !failed;
}

#endif
