/*
 * lite: the engine for machines without virtualization hardware. It runs guest code in an ordinary process, translated (jit.h) or
 * by interpretation of pre-decoded blocks, both over one software TLB. In the interpreter SIMD and x87 instructions run themselves on
 * the guest's register image.
 *
 * Files: lite.c (engine ops, run loop), tlb.c (translation, guest memory), window.c (guest memory mapped once more), block.c (decoded blocks,
 * code pages, self-modifying code), lower.c (decoded instruction to handler), exec_*.c (handlers), native.c, xstate.c and gather.c (SIMD, x87, XSAVE),
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

#define LITE_TLB_SIZE  65536U /* a kernel touches pages all over its direct map; and as many as 16 bits can count */
#define LITE_XTLB_SIZE 1024U
#define LITE_JUMP_SIZE 2048U
#define LITE_L2_SIZE   8192U
#define LITE_PDE_SIZE  512U
#define LITE_LARGE_4M 1024U
#define LITE_LARGE_1G 256U
#define LITE_SAVED	8U /* address spaces whose user view is kept */
#define LITE_JIT_JUMPS 65536U
#define LITE_TAG_NONE  1ULL /* no page begins there */
/*
 * What an empty place in the TLB has for a tag: a page that is looked for in another place, and is not the next one either. Nothing that
 * is no page would do, for translated code subtracts the tag: with 1, addresses 1 to 4088 would be found in it.
 */
#define LITE_TLB_NONE(i) ((u64)((i) ^ 2) << 12)

/* The page at linear address @tag is at @host. */
struct lite_tlb_page {
	u64 tag;
	u8 *host;
};
/* Whether it may be read, and written; side by side, for most are both, and an access is to meet one cache line. */
struct lite_tlb_entry {
	struct lite_tlb_page r, w;
};

struct lite_exec_entry {
	u64 tag;
	u64 gpa;
	u8 *host;
	bool global;
};

/*
 * Which of @n entries hold something, and which of those end with the address space: a bit each. And which words of these have been other
 * than 0, so that a flush of little does not cost what the table could hold; bits of words that have become 0 may stay.
 */
#define LITE_SET_TOP(n) (((n) + 4095) / 4096)
#define LITE_SET(n)                                                          \
	struct {                                                             \
		u64 used[(n) / 64], local[(n) / 64];                         \
		u64 used_top[LITE_SET_TOP(n)], local_top[LITE_SET_TOP(n)]; \
	}

struct lite_jump {
	u64 va;
	const struct lite_op *ops;
};

/* Where to go, and the linear address that is for. */
struct lite_jit_jump {
	u64 va;
	const void *to;
};

/*
 * What one privilege level sees. A write entry exists only when the page is dirty, marked in the log, and holds no code. Entries are made
 * by lite_set_add()'s callers only: lite_translate(), lite_jump_set(), lite_jit_jump_set().
 */
struct lite_view {
	struct lite_tlb_entry tlb[LITE_TLB_SIZE];
	struct lite_exec_entry x[LITE_XTLB_SIZE];
	struct lite_jump jump[LITE_JUMP_SIZE];
	struct lite_jit_jump jit[LITE_JIT_JUMPS]; /* the translator's jump cache, by lite_jit_hash() */
	u32 code_mode; /* what the jumps were found for */
	u32 jit_mode;
	LITE_SET(LITE_TLB_SIZE) r_set, w_set;
	LITE_SET(LITE_XTLB_SIZE) x_set;
	LITE_SET(LITE_JUMP_SIZE) jump_set;
	LITE_SET(LITE_JIT_JUMPS) jit_set;
	u64 code_pages[128]; /* by hash, apart for the halves of the address space: pages that jumps may lead to */
};

/* Second level: walks, as the page tables said, tagged by a generation that stands for a PCID (or for global). */
struct lite_walk_entry {
	u64 la;
	u64 gpa;
	u64 gen;
	u8 *host;	/* NULL: no memory there */
	struct memslot *slot; /* which goes, with @gen, before the slot does; NULL: look */
	u32 large;	/* lite_vcpu.large[large_at] when a piece of a large page, else 0 */
	u16 large_at;
	u8 rights[2];	/* LITE_MAY_*; supervisor, user */
	bool global, private;
	u32 checked;	/* lite_vcpu.check_seq when decoded code and bytes were compared, since the walk */
};
#define LITE_MAY_READ  1
#define LITE_MAY_WRITE 2 /* and the page is dirty */
#define LITE_MAY_EXEC  4

/* A paging-structure cache (SDM 3A 4.10.3): where the page table for 2 MiB is, and what the levels above it permit. */
struct lite_pde {
	u64 region; /* linear address >> 21 */
	u64 gen, seq;
	const u64 *table;
	bool user, writable, executable;
};

/* The user view of an address space that is not the current one: its entries, to be put back if it becomes current. */
struct lite_saved {
	u64 gen;  /* lite_vcpu.gen; 0: none */
	u64 used; /* when, to find the oldest */
	u32 jit_mode;
	u16 nr_r, nr_w, nr_x, nr_jit;
	struct {
		u64 tag;
		u8 *host;
	} r[192], w[128];
	struct lite_exec_entry x[64];
	struct {
		u64 va;
		const void *to;
		u16 i;
	} jit[512];
};

/* ---- decoded code ------------------------------------------------------------------------------------------- */

struct lite_vcpu;
struct lite_op;
/* Returns the next op to run, or NULL to go back to the run loop (tail-call builds return NULL only). */
typedef const struct lite_op *lite_handler(struct lite_vcpu *c, const struct lite_op *op);

#define LITE_OP_CHAINED	 1 /* ->chain may name the target's first op */
#define LITE_OP_BACKWARD 2 /* taken, it goes back: poll */
#define LITE_OP_LEAVES	 4 /* emulated, and may have changed what the block stands on */
#define LITE_OP_OWN	 8 /* lite_faults_itself() */

/* One pre-decoded instruction. @r1, @r2, @base, @index, @seg are LITE_OFFSET()s. */
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
	u16 from, to;	/* bytes of the page that it was made from */
	bool dead;	/* (code_lock) ops[0], or the translation, says so too */
	struct lite_block *hash_next;
	struct lite_block *page_next;
	struct lite_jit_code *jit; /* translated: no ops */
	struct lite_op ops[];
};

/* A page of guest memory that holds decoded blocks. */
struct lite_page {
	u64 gfn;
	struct lite_page *hash_next;
	struct lite_block *blocks; /* (a) to read: whether there are any */
	bool checked;	/* (a) to read: its blocks look at the bytes themselves, see block.c; it has no code bit, no copy, nothing is covered */
	u16 heat;	/* what stores to it have cost lately */
	u64 heat_since, checked_since; /* host_now_ns() */
	u64 covered[4096 / 64]; /* (a) bit per byte that a live block was decoded from */
	u8 copy[4096];
};

/* Per 128 MiB of guest-physical space. */
struct lite_gfns {
	u64 code[512];	  /* (a) the page holds live blocks: no write entries */
	u64 written[512]; /* (a) since the bit was cleared, some TLB may have got a write entry */
	u64 windowed[512]; /* (a) the same of windows: see lite_window_revoke() */
};
/* A piece of a kernel's code, see text.h. */
struct lite_text {
	u64 va, gpa; /* (a) the first */
};

#define LITE_GFNS_SHIFT 15
#define LITE_GFNS_TOP	(1U << (GPA_BITS + 2 - HOST_PAGE_SHIFT - LITE_GFNS_SHIFT))

#define LITE_BLOCK_HASH 131072U
#define LITE_PAGE_HASH	8192U
#define LITE_APART	65536U
#define LITE_TEXTS	64U
#define LITE_ARENA_CHUNK (1UL << 20)
#define LITE_ARENA_MORE	 (4UL << 20) /* what decoded code may take more than translated code */

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
	u64 arena_used, jit_bytes; /* (a) to read */
	u64 arena_max;		   /* (i) */
	u64 jit_verified, jit_violations; /* (a) what jit_verify.c looked at, and did not let through */
	struct lite_chunk *condemned; /* thrown away, perhaps still read: see arena_condemn() */
	u64 condemned_gen;
	u64 flush_gen; /* (a) counts flushes of the cache */
	u64 code_gen; /* (a) counts deaths of blocks */
	u32 nr_checked; /* (a) to read: pages that are checked */
	u64 pages_checked, pages_settled; /* (a) to read: how often one became such, and ordinary again */
	u32 gfns_end; /* (a) gfns[] is empty from here on: it is large, and mostly never touched */
	struct lite_gfns *gfns[LITE_GFNS_TOP]; /* (a) */
	struct lite_stubs *stubs;
	struct lite_jit *jit; /* (i) NULL: this host cannot */
	bool no_links;	      /* (i) every block returns to C */
	struct lite_text texts[LITE_TEXTS];
	u64 nr_texts, texts_removed; /* (a) to read */
	u64 apart[LITE_APART / 64]; /* by hash of their GPA: blocks whose groups of accesses kept reaching over the end of a page */
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
#define LITE_PEND_TEXT	 8 /* look again where texts are */

#define LITE_BUDGET 512 /* poll points between two looks at what a lost hint might have said */

/* Core, lite and hosts/user leave the guest's vector registers alone: see hosts/user/general.h. */
#ifdef HOST_GENERAL_ONLY
#define LITE_SIMD_SAFE 1
#else
#define LITE_SIMD_SAFE 0
#endif

/* What translated code calls, see jit.c. */
enum lite_jit_fn { LITE_JIT_MISS, LITE_JIT_GROUP, LITE_JIT_EMULATE, LITE_JIT_INSN, LITE_JIT_FAST, LITE_JIT_LINK, LITE_JIT_JUMP, LITE_JIT_DEAD, LITE_JIT_POLL,
		   LITE_JIT_FAULT, LITE_JIT_CROSS,
		   /* The same, with the flags at home in lite_vcpu.fl already (jit.h); so is LITE_JIT_JUMP. */
		   LITE_JIT_MISS_KEPT, LITE_JIT_GROUP_KEPT, LITE_JIT_POLL_KEPT, LITE_JIT_FAULT_KEPT,
		   LITE_JIT_C_FNS,
		   /* These stay in translated code where they can, and are LITE_JIT_CROSS and LITE_JIT_FAST where not (jit_short.c): */
		   LITE_JIT_ACROSS = LITE_JIT_C_FNS, /* by view */
		   LITE_JIT_STRING = LITE_JIT_ACROSS + 2, /* by view, MOVS or STOS, size */
		   LITE_JIT_PUSHF = LITE_JIT_STRING + 2 * 2 * 4, LITE_JIT_FNS };
#define LITE_JIT_HEADROOM (256UL << 10) /* the stack of signal handlers that interrupt translated code */
#define LITE_JIT_BLOCK_MAX 16384UL	/* bytes of a block's code */
/*
 * Bits of an address that pick its entry of the jump cache, and the entry. Without the lowest two: half of all targets are functions,
 * aligned, and would share a sixteenth of the entries; no two returns are that close to each other.
 */
#define LITE_JIT_JUMP_SHIFT 2
#define LITE_JIT_JUMP_MASK  ((LITE_JIT_JUMPS - 1ULL) << LITE_JIT_JUMP_SHIFT)
/* The bit of an entry's number that names another entry, for who has to make room for a newer one. */
#define LITE_JIT_JUMP_OTHER (LITE_JIT_JUMPS / 2)
static inline unsigned lite_jit_hash(u64 va)
{
	return (va & LITE_JIT_JUMP_MASK) >> LITE_JIT_JUMP_SHIFT;
}

/* Classes of state an op needs, bits of ->fpu_live; by enum insn_state. */
#define LITE_FPU_CLASS(state) (1U << (state))

/*
 * What translated code touches all the time comes first, where one byte names it: two words, and the TLB of the supervisor's view, for user
 * code has windows. Then the other tables, then the rest.
 */
struct lite_vcpu {
	s32 budget; /* (a) poll when negative; a kick makes it negative */
	u16 fl;	    /* AH: SF ZF AF PF CF as LAHF; AL: OF */
	_Alignas(64) struct lite_view views[2]; /* [0] supervisor, [1] user */
	_Alignas(4096) struct vcpu vcpu;
	u64 zero;  /* the register that reads as zero */
	u64 rip_mask; /* ~0 in 64-bit mode */
	u64 cs_base;  /* RIP + cs_base is linear; 0 where blocks have fast handlers */
	u64 vpage; /* linear address of the page of the block in execution */
	struct lite_view *view;
	const struct lite_op *op; /* the last that touched memory or chained; (v) */
	u8 stop;    /* enum lite_stop: why the run loop was returned to */
	u32 fpu_live; /* classes whose instructions may run on the registers as they are; 0 when not loaded */
	u32 fpu_usable; /* classes that CR0, CR4, XCR0 permit */
	u64 flush_count;  /* (v) translations were dropped: host addresses held across a lock are stale */
	u64 blocks_count; /* (v) the block cache was thrown away: so are pointers to ops */
	bool fpu_loaded;
	u64 x87_rip, x87_dp; /* of the last x87 instruction that records them */
	u16 x87_op;
	u64 xfeatures;	  /* components that load and save move */
	u64 area_rfbm;	  /* what the last XSAVEC was asked for, and how long that is */
	u32 area_end;
	u8 *fpu_init;	  /* an XSAVE image of the host's defaults */
	u64 native_regs[4]; /* AX, CX, DX, flags of a stub */

	u64 sti_rip;  /* what the last STI shadows, see lite_shadow_home() */
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
	bool fill_fault; /* see lite_tlb_fill() */
	bool efault;	/* the client's memory was not there: KVM_RUN gives -EFAULT */
	u64 efault_gpa;

	/* What the translations were made under */
	u64 seen_cr3, seen_cr0, seen_cr4, seen_efer, seen_slots;
	u64 seen_gen;	/* lite_vm.code_gen when the block was entered */
	u64 seen_xcr0;
	u8 seen_smm;
	u32 code_mode;
	u64 gen, gen_global, gen_floor, gen_next;
	bool text_stale, text_ok; /* (v) texts are to be looked for; they were all where they are to be, see text.h */
	bool text_check;	  /* and their code may be another */
	u64 window_gen; /* that may use the window; 0: none */
	u64 window_gs, gs_base; /* what the base of GS is to be for it; what it is */
	u32 window_mode;
	struct lite_window *window; /* (i) NULL: windows=off */

	struct lite_lower lower;
	struct lite_op decode_ops[66];
	u32 large_next;
	u32 pcid; /* which ->gen is */
	u32 large[LITE_LARGE_4M + LITE_LARGE_1G]; /* see tlb.c */
	u32 check_seq; /* lite_walk_entry.checked */
	u64 pde_seq;
	struct lite_pde *pde;
	struct lite_saved *saved;
	u64 saved_clock;
	u32 pauses;
	u32 crossings; /* jit.c: instructions across pages that were others than when they were translated */
	u32 group_crossings; /* jit.c: groups of accesses that reached over the end of a page */
	struct lite_walk_entry *l2;
	u64 *pcid_gen;		   /* [4096] */
	u8 *scratch;		   /* pages for copies, [2] */
	u8 *mask_room;		   /* see gather.c */

	struct {
		u64 c_sp;	  /* stack of the C code that entered translated code */
		u64 t0, t1, t2, save; /* scratch registers */
		u64 sum;	  /* of an address's offset and a size, while it is shifted */
		const void *to;	  /* where translated code goes on */
		const void *fn[LITE_JIT_FNS]; /* (i) */
		u32 site;	  /* of what called C: offset in the page, bytes << 16, write << 31 */
		u32 mode;	  /* what blocks have to be translated for */
		u16 code_fl;	  /* the flags, while a block compares its code */
		u16 short_fl;	  /* flags and RAX in a short way of the run time */
		u64 short_ax;
		u64 fault_pc, fault_addr;
		bool fault_write;
		u64 delta[256];	  /* by bits 42 to 49 of a user address: what is added to it in windows, see window.h */
		void *block;	  /* struct jit_block, while one is made */
		bool lockstep;	  /* nothing is emulated: stop before it */
		bool linking;	  /* the block that is made is wanted by another one's branch */
		bool apart;	  /* the block that is made is one of lite_vm.apart */
		bool differs;	  /* lockstep found a difference: the guest stops */
		void *checks;	  /* lockstep.c's */
	} jit;
	struct {
		/* Flushes: of everything, of an address space, switches of it and those that found their view kept, of a page, of a page
		 * in a large region, of write entries, of exec entries, of jumps. */
		u64 flush_all, flush_pcid, flush_switch, flush_restored, flush_page, flush_large, flush_writes, flush_exec, flush_jumps;
		u64 tlb_l2, tlb_pde;
		u64 window_opened, window_closed, window_faults, window_maps;
		u64 text_looks;
		u64 tlb_fill, tlb_walk, blocks, blocks_killed, slow_ops, lookups, native_slow, shootdowns, lockstep;
		u64 jit_blocks, jit_insns, jit_jumps; /* translated; jumps that the cache did not know */
		u64 translate_ticks; /* of stats_now() */
		u64 jit_checked, jit_stale; /* translated to check themselves; found that they are not what the code is */
	} count; /* shown by stats.c */
};

/* stats.c */
extern const struct engine_stat lite_vcpu_stats[], lite_vm_stats[];

enum lite_stop { LITE_STOP_NONE, LITE_STOP_SLOW, LITE_STOP_INT3 };

/* Where an op finds a field that lies behind struct vcpu, counted from there. */
#define LITE_OFFSET(field) (offsetof(struct lite_vcpu, field) - offsetof(struct lite_vcpu, vcpu))

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
/* jit.mode has these too. */
#define LITE_MODE_JIT  16
#define LITE_MODE_USER 32
#define LITE_MODE_ALONE 64 /* every access is checked by itself */
#define LITE_MODE_WINDOW 128 /* accesses go by the window */
#define LITE_MODE_FPU_SHIFT 8 /* fpu_usable */
#define LITE_MODE_FPU_BITS  0xffffU
#define LITE_MODE_TEXT (1U << 29) /* branches lead from page to page, see text.h */
#define LITE_MODE_WINDOW_LOW (1U << 30) /* GS reaches the lowest slot, and no other */
static inline unsigned lite_jump_hash(u64 va)
{
	return (va ^ (va >> 12)) % LITE_JUMP_SIZE;
}
#define LITE_JUMP_NONE (BIT64(63) | 1) /* not canonical */
/* What an empty place in the jump cache has for va: an address that is looked for in others. RET may go anywhere, also where nothing can be. */
#define LITE_JIT_JUMP_NONE(i) ((i) & ~LITE_JIT_JUMP_OTHER ? 0 : 1ULL << LITE_JIT_JUMP_SHIFT)

void lite_tlb_flush(struct vcpu *vcpu, enum tlb_scope scope, u64 arg);
int lite_tlb_init(struct lite_vcpu *c);
void lite_tlb_destroy(struct lite_vcpu *c);
/** Follows CR0, CR3, CR4, EFER, CPL, CS, SMM and the memslots after anything that may have changed them. */
void lite_refresh(struct lite_vcpu *c);
void lite_tlb_flush_all(struct lite_vcpu *c);
/** First level only; the second level's walks stay. */
void lite_tlb_flush_first(struct lite_vcpu *c);
void lite_tlb_flush_writes(struct lite_vcpu *c);
/** Those that lead to the page at @host. */
void lite_tlb_flush_writes_to(struct lite_vcpu *c, const u8 *host);
void lite_tlb_flush_exec(struct lite_vcpu *c);
void lite_jumps_flush(struct lite_vcpu *c);
void lite_jit_jumps_flush(struct lite_view *view);
/* The @i-th entry of the table with @set_ (LITE_SET) holds something. */
#define lite_set_add(set_, i_, global_)                                          \
	do {                                                                     \
		unsigned at_ = (i_);                                             \
                                                                                 \
		(set_)->used[at_ / 64] |= BIT64(at_ % 64);                       \
		(set_)->used_top[at_ / 4096] |= BIT64(at_ / 64 % 64);            \
		if (global_) {                                                   \
			(set_)->local[at_ / 64] &= ~BIT64(at_ % 64);             \
		} else {                                                         \
			(set_)->local[at_ / 64] |= BIT64(at_ % 64);              \
			(set_)->local_top[at_ / 4096] |= BIT64(at_ / 64 % 64);   \
		}                                                                \
	} while (0)
/* Whether the exec translation at @va, which is in the TLB, outlives its address space. */
static inline bool lite_exec_global(const struct lite_view *view, u64 va)
{
	const struct lite_exec_entry *x = &view->x[(va >> 12) % LITE_XTLB_SIZE];

	return x->tag == (va & PAGE_MASK_) && x->global;
}
/** Enters a jump; the page of @va has just been translated for execution. */
static inline void lite_jump_set(struct lite_view *view, u64 va, const struct lite_op *ops)
{
	unsigned i = lite_jump_hash(va);

	view->jump[i].ops = ops;
	view->jump[i].va = va;
	lite_set_add(&view->jump_set, i, lite_exec_global(view, va));
}
/** Where @va is in the translator's cache, or belongs. */
static inline unsigned lite_jit_find(const struct lite_view *view, u64 va)
{
	unsigned i = lite_jit_hash(va);

	return view->jit[i].va != va && view->jit[i ^ LITE_JIT_JUMP_OTHER].va == va ? i ^ LITE_JIT_JUMP_OTHER : i;
}
/** The same in the translator's cache. */
static inline void lite_jit_jump_set(struct lite_view *view, u64 va, const void *to)
{
	unsigned i = lite_jit_find(view, va), other = i ^ LITE_JIT_JUMP_OTHER;

	if (view->jit[i].va != va && lite_jit_hash(view->jit[i].va) == i) {
		view->jit[other] = view->jit[i];
		lite_set_add(&view->jit_set, other, !(view->jit_set.local[i / 64] >> i % 64 & 1));
	}
	view->jit[i].to = to;
	view->jit[i].va = va;
	lite_set_add(&view->jit_set, i, lite_exec_global(view, va));
}
/**
 * Makes the fast path succeed for [@la, @la + @size), in one page. False: the slow path has to serve the access; or, with
 * c->fill_fault, all that it could do is raise the page fault that vcpu->emul.fault holds.
 */
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
/** Where the page of @la is looked for. */
static inline struct lite_tlb_page *lite_tlb_page(struct lite_view *view, u64 la, bool write)
{
	struct lite_tlb_entry *e = &view->tlb[(la >> 12) % LITE_TLB_SIZE];

	return write ? &e->w : &e->r;
}
/** The walk that is remembered of @la, NULL: none is. */
struct lite_walk_entry *lite_walk_find(struct lite_vcpu *c, u64 la);
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
/** Makes the page of @va ordinary again if it is a checked one and nobody has changed its code for a while. Returns whether it did. */
bool lite_code_settle(struct lite_vcpu *c, u64 va);
/** Whether the block of a checked page at @va is what the code there is, but for immediates that it reads; else it dies. False, too: there is none. */
bool lite_code_same(struct lite_vcpu *c, u64 va);
/** The page's bytes against what was decoded: the client may have written it. */
void lite_code_validate(struct lite_vcpu *c, u64 gfn, const u8 *host);
/** The lock of all that has to do with blocks. May have waited for other vCPUs, and served what they asked for. */
void lite_code_lock(struct lite_vcpu *c);
void lite_code_unlock(struct lite_vcpu *c);
/** All blocks of a page die; code_lock held. */
void lite_code_kill(struct lite_vcpu *c, u64 gfn);
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
/** Before a call that leaves the engine: saves the registers where it might clobber them. */
static inline void lite_fpu_spare(struct lite_vcpu *c)
{
	if (!LITE_SIMD_SAFE)
		lite_fpu_save(c);
}
/** Recomputes ->fpu_usable and ->fpu_live. */
void lite_fpu_refresh(struct lite_vcpu *c);
/** The image with every component written out, for code that works on it. */
void lite_fpu_normalize(struct lite_vcpu *c);
void lite_xstate_init(void);
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
/** Bytes of an XSAVE area with components @rfbm, in the compacted format or the standard one. */
u32 lite_xstate_end(u64 rfbm, bool compact);
/** No component that lite knows lies beyond this many bytes of an XSAVE area, in either format. */
u32 lite_xstate_most(void);
#define LITE_XSTATE_LOADED (XCR0_FP | XCR0_SSE | XCR0_AVX | XCR0_AVX512) /* what is ever in the CPU, of what the host has */
enum x86_result lite_xstate(struct lite_vcpu *c, const struct insn *insn);
/** Gathers, scatters, masked moves: not all of the memory operand need be accessible. */
bool lite_is_masked(const struct insn *insn);
/** Stores that may not happen at all, or leave something behind, where their operand cannot be written: see lite_store_fault(). */
bool lite_is_loose_store(const struct insn *insn);
/** Whether a page that is missing is not all that there is to say of @insn: the emulator has to see it. */
static inline bool lite_faults_itself(const struct insn *insn)
{
	return lite_is_masked(insn) || lite_is_loose_store(insn);
}
/** VZEROUPPER and VZEROALL outside 64-bit mode. */
enum x86_result lite_vzero(struct lite_vcpu *c, const struct insn *insn);
int lite_mask_room_make(struct lite_vcpu *c);
void lite_mask_room_free(struct lite_vcpu *c);
enum x86_result lite_masked(struct lite_vcpu *c, const struct insn *insn);
/** A loose store's fault, which is in vcpu->emul.fault, to its operand at @la (not canonical, say: the offset): what this processor makes of it. */
enum x86_result lite_store_fault(struct lite_vcpu *c, const struct insn *insn, u64 la);

/* ---- jit*.c ---------------------------------------------------------------------------------------------------------- */

int lite_jit_init(struct lite_vm *lvm);
void lite_jit_destroy(struct lite_vm *lvm);
void lite_jit_vcpu_init(struct lite_vcpu *c);
void lite_jit_vcpu_destroy(struct lite_vcpu *c);
/** The translations that the jump caches lead to are gone. */
void lite_jit_forget(struct lite_vcpu *c);
/** The block died: who comes is sent to look again. code_lock held. */
void lite_jit_kill(struct lite_vm *lvm, struct lite_block *block);
/** All translations are thrown away; code_lock held, no vCPU will go on in them. */
void lite_jit_flush(struct lite_vm *lvm);
/** Whether @pc is in translated code. */
bool lite_jit_contains(const struct lite_vm *lvm, u64 pc);
/** No more blocks fit. */
bool lite_jit_full(struct lite_vm *lvm);
/** Runs translated code from RIP on, until something has to be looked at. False: the interpreter has to. */
bool lite_jit_run(struct lite_vcpu *c);
struct lite_jit_code;
struct lite_jit;
/**
 * Translates what is at @off of @in, whose bytes are @page, for @mode; code_lock held. @va: of the page, for LITE_MODE_TEXT. If it is
 * checked: to compare itself with the guest's memory each time. *@from, *@to: the bytes that it depends on. NULL: it cannot be.
 */
struct lite_jit_code *lite_jit_translate(struct lite_vcpu *c, const struct lite_page *in, const u8 *page, u32 mode, u64 va, unsigned off,
					 u16 *from, u16 *to);
/** A host exception at *@rip of translated code, which is then to go on at *@rip. Signal handler. */
bool lite_jit_fault(struct lite_vcpu *c, u64 *rip);
/** jit_short.c: the same for a host fault in a short way. False: *@rip is not in one. */
bool lite_jit_rescue(const struct lite_jit *jit, u64 *rip);
/** Like lite_block_at(), of translated blocks. */
struct lite_block *lite_jit_block_at(struct lite_vcpu *c, u64 va, enum x86_result *r);
/** The same for mode @mode; the jump cache does not hear of it. */
struct lite_block *lite_jit_block_apart(struct lite_vcpu *c, u64 va, u32 mode, enum x86_result *r);
/** What comes to the dead translation that contains @pc (rx) by links goes to @block from now on. May wait for other vCPUs. */
void lite_jit_forward(struct lite_vcpu *c, const u8 *pc, struct lite_block *block);
/** The translation that contains @pc (rx) is to be made anew when it is next wanted, @apart: without groups. May wait for other vCPUs. */
void lite_jit_drop(struct lite_vcpu *c, const u8 *pc, bool apart);

/* ---- fault.c ---------------------------------------------------------------------------------------------------- */

/** Registers the handlers and @stubs (@size bytes of code) with the host. */
void lite_fault_init(void);
void lite_fault_add_stubs(struct lite_stubs *stubs, const void *code, size_t size);
void lite_fault_remove_stubs(struct lite_stubs *stubs);
/** The same of translated code. */
void lite_fault_add_jit(struct lite_jit *jit, const void *code, size_t size);
void lite_fault_remove_jit(struct lite_jit *jit);
/**
 * Runs @fn(@c, @arg). False: a handler or stub in it touched client memory that is not there and everything up to here was dropped.
 * No locks may be held by what handlers call.
 */
bool lite_fault_guard(void (*fn)(struct lite_vcpu *c, const void *arg), struct lite_vcpu *c, const void *arg);
/** Where the access that lite_fault_guard() reported went; 0: no address, as with #GP. */
u64 lite_fault_addr(void);
/** LOCK CMPXCHG of 2, 4, 8 bytes at an unaligned @host: 0 exchanged, 1 not, -EFAULT. */
int lite_cmpxchg_unaligned(u8 *host, void *old, const void *new, unsigned len);

#endif
