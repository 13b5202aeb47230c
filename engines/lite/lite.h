/*
 * lite: the engine for machines without virtualization hardware. It runs guest code in an ordinary process by
 * interpretation of pre-decoded blocks over a software TLB; SIMD and x87 instructions run themselves on the guest's
 * register image.
 *
 * Files: lite.c (engine ops, run loop), tlb.c (translation, guest memory), block.c (decoded blocks, code pages, self-
 * modifying code), lower.c (decoded instruction to handler), exec_*.c (handlers), native.c, xstate.c and gather.c (SIMD, x87, XSAVE),
 * fault.c (the client's memory is not there).
 *
 * All architectural state is in vcpu->x86 at every moment except, while the interpreter is inside a block: RIP (vpage +
 * op->off), the six arithmetic flags (->fl) and, lazily, the SIMD and x87 registers (->fpu_live). lite_commit() brings it home.
 */
#ifndef ENGINES_LITE_LITE_H
#define ENGINES_LITE_LITE_H

#include "core/vcpu.h"
#include "core/vm.h"
#include "core/x86/emul/emul.h"
#include "core/x86/mmu/walk.h"

#define PAGE_MASK_ (~0xfffULL)

/* ---- software TLB ------------------------------------------------------------------------------------------- */

#define LITE_TLB_BITS  10
#define LITE_TLB_SIZE  (1U << LITE_TLB_BITS)
#define LITE_XTLB_SIZE 256U
#define LITE_JUMP_SIZE 2048U
#define LITE_L2_SIZE   4096U
#define LITE_TAG_NONE  1ULL /* no page begins there */

/* Host address = linear address + addend, when the tag is the page of both ends of the access. */
struct lite_tlb_entry {
	u64 tag;
	u64 addend;
};

struct lite_exec_entry {
	u64 tag;
	u64 gpa;
	u8 *host;
};

struct lite_jump {
	u64 va;
	const struct lite_op *ops;
};

/* What one privilege level sees. A write entry exists only when the page is dirty, marked in the log, and holds no code. */
struct lite_view {
	struct lite_tlb_entry r[LITE_TLB_SIZE];
	struct lite_tlb_entry w[LITE_TLB_SIZE];
	struct lite_exec_entry x[LITE_XTLB_SIZE];
	struct lite_jump jump[LITE_JUMP_SIZE];
	u32 code_mode; /* what the jumps were found for */
	bool used;
};

/* Second level: walks, as the page tables said, tagged by a generation that stands for a PCID (or for global). */
struct lite_walk_entry {
	u64 la;
	u64 gpa;
	u64 gen;
	bool user, writable, executable, dirty;
};

/* ---- decoded code ------------------------------------------------------------------------------------------- */

struct lite_vcpu;
struct lite_op;
/* Returns the next op to run, or NULL to go back to the run loop (tail-call builds return NULL only). */
typedef const struct lite_op *lite_handler(struct lite_vcpu *c, const struct lite_op *op);

#define LITE_OP_CHAINED	 1 /* ->chain may name the target's first op */
#define LITE_OP_BACKWARD 2 /* taken, it goes back: poll */
#define LITE_OP_LEAVES	 4 /* emulated, and may have changed what the block stands on */

/* One pre-decoded instruction. @r1, @r2, @base, @index, @seg are byte offsets from struct lite_vcpu. */
struct lite_op {
	lite_handler *fn;
	u16 r1, r2, base, index, seg;
	u16 off;	/* in the page */
	u8 len, shift, flags, aux;
	s32 disp;	/* of the operand; branches: target relative to the page */
	s32 imm;
	union {
		u64 imm64;
		const struct lite_op *chain;	/* (a) */
		struct lite_native *native;
		const struct insn *insn;
	};
};
_Static_assert(sizeof(struct lite_op) == 40, "one op");

struct lite_block {
	u64 gpa;
	u32 mode;
	u16 len;	/* bytes of the page that were decoded */
	bool dead;	/* (code_lock) ops[0] says so too */
	struct lite_block *hash_next;
	struct lite_block *page_next;
	struct lite_op ops[];
};

/* A page of guest memory that holds decoded blocks. */
struct lite_page {
	u64 gfn;
	struct lite_page *hash_next;
	struct lite_block *blocks;
	u64 covered[4096 / 64]; /* bit per byte that a live block was decoded from */
	u8 copy[4096];
};

/* Per 128 MiB of guest-physical space. */
struct lite_gfns {
	u64 code[512];	  /* (a) the page holds live blocks: no write entries */
	u64 written[512]; /* (a) since the bit was cleared, some TLB may have got a write entry */
};
#define LITE_GFNS_SHIFT 15
#define LITE_GFNS_TOP	(1U << (GPA_BITS + 2 - HOST_PAGE_SHIFT - LITE_GFNS_SHIFT))

#define LITE_BLOCK_HASH 32768U
#define LITE_PAGE_HASH	8192U
#define LITE_ARENA_CHUNK (1UL << 20)
#define LITE_ARENA_MAX	 (48UL << 20)

struct lite_chunk {
	struct lite_chunk *next;
	size_t used;
	u8 data[];
};

struct lite_vm {
	struct vm vm;
	/* Everything below under code_lock, unless it says (a). A vCPU that blocks on it counts as outside guest code. */
	struct host_mutex code_lock;
	struct lite_block *blocks[LITE_BLOCK_HASH];
	struct lite_page *pages[LITE_PAGE_HASH];
	struct lite_chunk *chunks;
	size_t arena_used;
	struct lite_chunk *condemned; /* thrown away, perhaps still read: see arena_condemn() */
	u64 condemned_gen;
	u64 flush_gen; /* (a) counts flushes of the cache */
	u64 code_gen; /* (a) counts deaths of blocks */
	u32 gfns_end; /* (a) gfns[] is empty from here on: it is large, and mostly never touched */
	struct lite_gfns *gfns[LITE_GFNS_TOP]; /* (a) */
	struct lite_stubs *stubs;
};

/* What lower.c is to know of the place of an instruction. */
struct lite_lower {
	struct lite_vm *lvm;
	u32 mode;	  /* lite_vcpu.code_mode */
	bool ended;	  /* the op ends its block */
	bool has_prev;
	struct insn insn; /* being lowered */
	struct insn prev; /* the one before it in the block */
};

/* ---- a vCPU ------------------------------------------------------------------------------------------------- */

/* Bits of ->pending: what others ask of this vCPU's translations; served by itself. */
#define LITE_PEND_ALL	 1
#define LITE_PEND_WRITE	 2
#define LITE_PEND_BLOCKS 4 /* the block cache is to be thrown away: forget every pointer into it */

#define LITE_BUDGET 512 /* poll points between two looks at what a lost hint might have said */

/* Classes of state an op needs, bits of ->fpu_live; by enum insn_state. */
#define LITE_FPU_CLASS(state) (1U << (state))

struct lite_vcpu {
	struct vcpu vcpu;
	u64 zero;  /* the register that reads as zero */
	u64 rip_mask; /* ~0 in 64-bit mode */
	u64 cs_base;  /* RIP + cs_base is linear; 0 where blocks have fast handlers */
	u64 vpage; /* linear address of the page of the block in execution */
	struct lite_view *view;
	const struct lite_op *op; /* the last that touched memory or chained; (v) */
	s32 budget; /* (a) poll when negative; a kick makes it negative */
	u16 fl;	    /* AH: SF ZF AF PF CF as LAHF; AL: OF */
	u8 stop;    /* enum lite_stop: why the run loop was returned to */
	u32 fpu_live; /* classes whose instructions may run on the registers as they are; 0 when not loaded */
	u32 fpu_usable; /* classes that CR0, CR4, XCR0 permit */
	u64 flush_count;  /* (v) translations were dropped: host addresses held across a lock are stale */
	u64 blocks_count; /* (v) the block cache was thrown away: so are pointers to ops */
	bool fpu_loaded;
	u64 x87_rip, x87_dp; /* of the last x87 instruction that records them */
	u16 x87_op;
	u64 xfeatures;	  /* components that load and save move */
	u8 *fpu_init;	  /* an XSAVE image of the host's defaults */
	u64 native_regs[4]; /* AX, CX, DX, flags of a stub */

	u32 pending;  /* (a) LITE_PEND_* */
	u64 quiet_gen; /* (a) lite_vm.flush_gen when it last held no pointer into the block cache; ~0 outside of KVM_RUN */
	u32 in_guest; /* (a) holds translations; else another may go on without it */
	u32 stopped;  /* (v) nesting of lite_leave_guest() */

	bool window_irq, window_nmi;
	bool event_valid;
	struct x86_event event;
	bool recheck_code; /* the client changed state: it may have changed code too */
	bool watching;	/* breakpoints are live: accesses are compared, hits collected */
	u64 debug_hits;
	enum x86_result emul_result;
	bool efault;	/* the client's memory was not there: KVM_RUN gives -EFAULT */
	u64 efault_gpa;

	/* What the translations were made under */
	u64 seen_cr3, seen_cr0, seen_cr4, seen_efer, seen_slots;
	u64 seen_gen;	/* lite_vm.code_gen when the block was entered */
	u64 seen_xcr0;
	u8 seen_smm;
	u32 code_mode;
	u64 gen, gen_global, gen_floor, gen_next;

	struct lite_lower lower;
	struct lite_op decode_ops[66];
	bool large_2m[4096], large_1g[64]; /* by hash: pieces of large pages are cached */
	u32 pauses;
	struct lite_view *views;   /* [0] supervisor, [1] user */
	struct lite_walk_entry *l2;
	u64 *pcid_gen;		   /* [4096] */
	u8 *scratch;		   /* pages for copies, [2] */

	struct {
		u64 tlb_fill, tlb_walk, blocks, blocks_killed, slow_ops, lookups, native_slow, shootdowns;
	} count;
};

enum lite_stop { LITE_STOP_NONE, LITE_STOP_SLOW, LITE_STOP_INT3 };

static inline struct lite_vcpu *to_lite(struct vcpu *vcpu)
{
	return container_of(vcpu, struct lite_vcpu, vcpu);
}
static inline struct lite_vm *to_lite_vm(struct vm *vm)
{
	return container_of(vm, struct lite_vm, vm);
}
static inline struct lite_vcpu *emul_lite(struct emul *e)
{
	return container_of(container_of(e, struct vcpu, emul), struct lite_vcpu, vcpu);
}

/* ---- flags ---------------------------------------------------------------------------------------------------- */

static inline u64 lite_fl_to_rflags(u16 fl)
{
	return ((fl >> 8) & 0xd5) | ((u64)(fl & 1) << 11);
}
static inline u16 lite_rflags_to_fl(u64 rflags)
{
	return (u16)((rflags & 0xd5) << 8) | 0x200 | (u16)((rflags >> 11) & 1);
}
static inline void lite_flags_home(struct lite_vcpu *c)
{
	c->vcpu.x86.rflags = (c->vcpu.x86.rflags & ~(u64)RFLAGS_ARITH) | lite_fl_to_rflags(c->fl);
}
static inline void lite_flags_take(struct lite_vcpu *c)
{
	c->fl = lite_rflags_to_fl(c->vcpu.x86.rflags);
}

/* ---- tlb.c ---------------------------------------------------------------------------------------------------- */

enum lite_access { LITE_READ, LITE_WRITE, LITE_EXEC };

#define LITE_MODE_FLAT 8 /* code_mode beside enum x86_mode: CS, DS, ES, SS cover everything from 0 */
static inline unsigned lite_jump_hash(u64 va)
{
	return (va ^ (va >> 12)) % LITE_JUMP_SIZE;
}
#define LITE_JUMP_NONE (BIT64(63) | 1) /* not canonical */

void lite_tlb_flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg);
int lite_tlb_init(struct lite_vcpu *c);
void lite_tlb_destroy(struct lite_vcpu *c);
/** Follows CR0, CR3, CR4, EFER, CPL, CS, SMM and the memslots after anything that may have changed them. */
void lite_refresh(struct lite_vcpu *c);
void lite_tlb_flush_all(struct lite_vcpu *c);
/** First level only; the second level's walks stay. */
void lite_tlb_flush_first(struct lite_vcpu *c);
void lite_tlb_flush_writes(struct lite_vcpu *c);
void lite_tlb_flush_exec(struct lite_vcpu *c);
void lite_jumps_flush(struct lite_vcpu *c);
/** Makes the fast path succeed for [@la, @la + @size), in one page. False: the slow path has to serve the access. */
bool lite_tlb_fill(struct lite_vcpu *c, u64 la, unsigned size, bool write);
/* Where a linear address leads. @host NULL: no memory for this access (MMIO, a write to a read-only slot). */
struct lite_place {
	u8 *host;
	u64 gpa;
	bool code; /* a write has to go through lite_code_write() */
};
/**
 * Linear to host for one access within a page. @system: implicit supervisor access. X86_CONTINUE with *@place, or
 * X86_FAULT recorded in vcpu->emul. A write is in the dirty log when this returns.
 */
enum x86_result lite_translate(struct lite_vcpu *c, u64 la, enum lite_access access, bool system, struct lite_place *place);
extern struct emul_ops lite_emul_ops;
void lite_emul_ops_init(void);
enum x86_result lite_read(struct emul *e, u64 la, void *buf, unsigned len, unsigned acc);
enum x86_result lite_write(struct emul *e, u64 la, const void *buf, unsigned len, unsigned acc);
enum x86_result lite_probe(struct emul *e, u64 la, unsigned len, bool write, unsigned acc);

/* ---- block.c -------------------------------------------------------------------------------------------------- */

int lite_code_init(struct lite_vm *lvm);
void lite_code_destroy(struct lite_vm *lvm);
/**
 * The block at @va, found or made, entered into the jump cache. NULL: X86_FAULT in *@r is recorded in vcpu->emul; X86_RETRY: no
 * block can be made of what is there, step. May wait for other vCPUs.
 */
const struct lite_op *lite_block_at(struct lite_vcpu *c, u64 va, enum x86_result *r);
struct lite_gfns *lite_gfns(struct lite_vm *lvm, u64 gfn, bool make);
static inline bool lite_is_code(struct lite_vm *lvm, u64 gfn)
{
	struct lite_gfns *g = lite_gfns(lvm, gfn, false);

	return g && (__atomic_load_n(&g->code[(gfn / 64) % 512], __ATOMIC_SEQ_CST) & BIT64(gfn % 64));
}
/**
 * A guest write of @len bytes to @la, within a page that holds code: kills what was decoded from there, then writes, or
 * with @old compares and exchanges (*@done says whether). Translates again under the lock.
 */
enum x86_result lite_code_write(struct lite_vcpu *c, u64 la, bool system, const void *buf, unsigned len, void *old, bool *done);
/** The page's bytes against what was decoded: the client may have written it. */
void lite_code_validate(struct lite_vcpu *c, u64 gfn, const u8 *host);
/** A vCPU that goes where it may block stops counting as in the guest, and serves what was asked of it when it is back. */
void lite_leave_guest(struct lite_vcpu *c);
void lite_enter_guest(struct lite_vcpu *c);
void lite_serve_pending(struct lite_vcpu *c);
/** Asks all vCPUs but @self (may be NULL) for LITE_PEND_* @what and waits until none uses what it names. */
void lite_shootdown(struct lite_vm *lvm, struct lite_vcpu *self, u32 what);

/* ---- lower.c, exec_*.c ---------------------------------------------------------------------------------------- */

/** Fills @op for @insn; never fails (what has no handler of its own is emulated). */
void lite_lower(struct lite_lower *l, struct lite_op *op, unsigned off);
/** Memory that lives as long as the blocks do; code_lock held. */
void *lite_arena_alloc(struct lite_vm *lvm, size_t size);

lite_handler lite_op_emulate, lite_op_insn, lite_op_int3, lite_op_step, lite_op_dead, lite_op_next_page, lite_op_jump, lite_op_native;

/** Runs from @op until something stops it; c->stop says what. RIP and flags are home again. */
void lite_execute(struct lite_vcpu *c, const struct lite_op *op);
/** TLB miss in a fast handler: fills and retries, or emulates the instruction. */
const struct lite_op *lite_miss_read(struct lite_vcpu *c, const struct lite_op *op, u64 la, unsigned size);
const struct lite_op *lite_miss_write(struct lite_vcpu *c, const struct lite_op *op, u64 la, unsigned size);
/** A taken branch whose target is not chained; @va the same for indirect ones. */
const struct lite_op *lite_link(struct lite_vcpu *c, const struct lite_op *op);
const struct lite_op *lite_goto(struct lite_vcpu *c, u64 va);
const struct lite_op *lite_poll(struct lite_vcpu *c, u64 va);

/* ---- native.c, xstate.c, gather.c ------------------------------------------------------------------------------- */

int lite_stubs_init(struct lite_vm *lvm);
void lite_stubs_destroy(struct lite_vm *lvm);
int lite_fpu_init(struct lite_vcpu *c);
void lite_fpu_destroy(struct lite_vcpu *c);
/** The registers go home to vcpu->xsave and the host's own defaults are loaded. */
void lite_fpu_save_slow(struct lite_vcpu *c);
static inline void lite_fpu_save(struct lite_vcpu *c)
{
	if (unlikely(c->fpu_loaded))
		lite_fpu_save_slow(c);
}
void lite_fpu_load(struct lite_vcpu *c);
/** Recomputes ->fpu_usable; the registers are at home. */
void lite_fpu_refresh(struct lite_vcpu *c);
/** The image with every component written out, for code that works on it. */
void lite_fpu_normalize(struct lite_vcpu *c);
/** Standard-format offset and size in bytes of an XSAVE component above 1; 0: the host has it not. */
u32 lite_xstate_offset(unsigned component, u32 *size, bool *aligned);
/** emul_ops->native. */
enum x86_result lite_native(struct emul *e, const struct insn *insn);
/** Gives @op a handler that runs l->insn natively. False: it goes the way of the emulator, to lite_native(). */
bool lite_native_lower(struct lite_lower *l, struct lite_op *op);
/** Runs @insn on the registers with @mem for its memory operand; GPRs and flags in vcpu->x86. X86_CONTINUE, X86_FAULT. */
enum x86_result lite_native_run(struct lite_vcpu *c, const struct insn *insn, void *mem);
/** XSAVE, FXSAVE, FNSAVE, FNSTENV and their inverses, on the image. */
bool lite_is_xstate(const struct insn *insn);
enum x86_result lite_xstate(struct lite_vcpu *c, const struct insn *insn);
/** Gathers, scatters, masked moves: memory element by element. */
bool lite_is_masked(const struct insn *insn);
enum x86_result lite_masked(struct lite_vcpu *c, const struct insn *insn);

/* ---- fault.c ---------------------------------------------------------------------------------------------------- */

/** Registers the handlers and @stubs (@size bytes of code) with the host. */
void lite_fault_init(void);
void lite_fault_add_stubs(struct lite_stubs *stubs, const void *code, size_t size);
void lite_fault_remove_stubs(struct lite_stubs *stubs);
/**
 * Runs @fn(@c, @arg). False: a handler or stub in it touched client memory that is not there and everything up to here was dropped.
 * No locks may be held by what handlers call.
 */
bool lite_fault_guard(void (*fn)(struct lite_vcpu *c, const void *arg), struct lite_vcpu *c, const void *arg);
/** LOCK CMPXCHG of 2, 4, 8 bytes at an unaligned @host: 0 exchanged, 1 not, -EFAULT. */
int lite_cmpxchg_unaligned(u8 *host, void *old, const void *new, unsigned len);

#endif
