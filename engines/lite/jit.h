/*
 * The translator: guest x86 code to host x86-64 code, block by block.
 *
 * Translated code runs with
 *	RSP	the struct lite_vcpu: all of the vCPU's state is at a constant distance; below it lies the room for signal handlers
 *	R8 R9 R10	scratch (T0, T1, T2); the guest's R8 to R11 are at home in vcpu->x86.gpr
 *	R11	the guest's RSP
 *	the others, the arithmetic flags and all vector registers: the guest's own; towards its end a block may have put the flags into
 *	lite_vcpu.fl, where they are between blocks when the way is by the jump cache (jit_keep_flags())
 * RIP is lite_vcpu.vpage plus what the translator knows; everything else of the guest is in vcpu->x86, except that DF is
 * clear in the CPU (the guest's is in rflags).
 *
 * Files: jit.c (what translated code calls, and the way in), jit_cache.c (code memory, the run time's entry and exit, blocks and
 * links), jit_translate.c (blocks), jit_insn.c (instructions), jit_mem.c (memory accesses), jit_window.c (those by a window), jit_short.c (system
 * instructions that need no C),
 * jit_check.c (code that keeps being patched), text.c (kernel code whose blocks lead from page to page),
 * jit_verify.c (looks at what came of it), emit.h, recode.h.
 */
#ifndef ENGINES_LITE_JIT_H
#define ENGINES_LITE_JIT_H

#include "engines/lite/emit.h"
#include "engines/lite/lite.h"
#include "engines/lite/recode.h"
#include "engines/lite/stub_room.h"
#include "engines/lite/system.h"

enum { HOST_RSP = 4, T0 = 8, T1 = 9, T2 = 10, GSP = 11 };

#define VCPU(field) ((s32)offsetof(struct lite_vcpu, field))
#define VCPU_GPR(n) (VCPU(vcpu.x86.gpr) + 8 * (s32)(n))

/*
 * Indices. PEXT would make one at once; but there are processors that take a hundred cycles for it. A table has as many entries as
 * 16 bits can count, and an index is one of eight bytes: T1 = entry * SCALE.
 */
#define JIT_TLB_SCALE  (sizeof(struct lite_tlb_entry) / 8)
#define JIT_JUMP_SCALE (sizeof(struct lite_jit_jump) / 8)
_Static_assert(LITE_TLB_SIZE == 65536 && JIT_TLB_SCALE == 4, "jit_tlb_index()");
_Static_assert(LITE_JIT_JUMPS == 65536 && JIT_JUMP_SCALE == 2, "jit_jump_index()");

/* @to = where the page of @from is in the TLB; the flags go. */
static inline void jit_tlb_index_of(struct lite_emit *e, unsigned to, unsigned from)
{
	e_rorx(e, to, from, 12 - 2);
	e_and_imm(e, to, (LITE_TLB_SIZE - 1) * JIT_TLB_SCALE);
}
/* The same of T0 in T1. @flags: they survive. */
static inline void jit_tlb_index(struct lite_emit *e, bool flags)
{
	if (!flags) {
		jit_tlb_index_of(e, T1, T0);
		return;
	}
	e_rorx(e, T1, T0, 12);
	e_movzx16(e, T1, T1);
	e_op_index(e, true, 0x8d, T1, T1, 2, 0); /* lea T1, [T1 * 4] */
}
/* T1 = where T0 is in the jump cache; the flags go. */
static inline void jit_jump_index(struct lite_emit *e)
{
	e_rorx(e, T1, T0, LITE_JIT_JUMP_SHIFT - 1);
	e_and_imm(e, T1, (LITE_JIT_JUMPS - 1) * JIT_JUMP_SCALE);
}
/* RCX = something else than 0 if the budget is negative; it is always small otherwise. */
static inline void jit_load_budget(struct lite_emit *e)
{
	e_load8(e, REG_CX, HOST_RSP, VCPU(budget) + 3);
}
_Static_assert(LITE_BUDGET < 1 << 24, "jit_load_budget()");

/* Where in the vCPU its view @view is. */
static inline s32 jit_view(unsigned view)
{
	return VCPU(views) + (s32)(view * sizeof(struct lite_view));
}
/* Where its TLB is, for reads or for writes. */
static inline s32 jit_tags(unsigned view, bool write)
{
	return jit_view(view) + (s32)(write ? offsetof(struct lite_view, tlb[0].w.tag) : offsetof(struct lite_view, tlb[0].r.tag));
}
static inline s32 jit_hosts(unsigned view, bool write)
{
	return jit_tags(view, write) + (s32)offsetof(struct lite_tlb_page, host);
}

static inline s32 jit_seg_base(unsigned seg)
{
	return VCPU(vcpu.x86.seg) + (s32)(seg * sizeof(struct x86_segment) + offsetof(struct x86_segment, base));
}

/* The guest registers that are not in a host register of their own. */
static inline bool jit_displaced(unsigned gpr)
{
	return gpr >= 8 && gpr <= 11;
}
static inline unsigned jit_reg(unsigned gpr)
{
	return gpr == REG_SP ? GSP : gpr;
}

/* An instruction of system.h's in a block: T0 points here when it is called. */
struct jit_fast {
	lite_fast_fn *fn;
	unsigned after; /* LITE_AFTER_* */
	struct insn insn;
};

/*
 * The part of an instruction that lies in the next page. A block depends on one page only, so who runs into it compares: T0 points here when
 * LITE_JIT_CROSS is called.
 */
struct jit_cross {
	u64 bytes[2], mask[2];
};

#define JIT_MAX_INSNS 48
#define JIT_CALL_LEN 5 /* bytes of a CALL with a displacement */
/* Of a block that checks itself: then its code fits into one access. */
#define JIT_CHECKED_INSNS 32

/* Where an instruction's code begins. */
struct lite_jit_site {
	u16 host;  /* from lite_jit_code.hot */
	u16 guest; /* offset in the page; with JIT_SITE_EMULATED: the emulator does it */
	u8 live;   /* flags that are right there; the others nobody needs */
};
#define JIT_SITE_EMULATED 0x8000
#define JIT_SITE_KEPT	  0x4000 /* its flags are in lite_vcpu.fl, see jit_keep_flags() */
#define JIT_SITE_OFFSET	  0x0fff

/* What stands behind a call of LITE_JIT_LINK beside the target's offset: */
#define JIT_LINK_POLL  (1U << 16) /* the way there looks whether the vCPU is wanted */
#define JIT_LINK_ALONE (1U << 17) /* to a block of LITE_MODE_ALONE */

/* lite_vcpu.jit.site of a miss: offset in the page, how many bytes, and these. */
#define JIT_MISS_BYTES(site) ((site) >> 16 & 0x3fff)
#define JIT_MISS_APART (1U << 30) /* see struct jit_cold */
#define JIT_MISS_WRITE (1U << 31)

/* A jump to this block that looks at the poll word with the flags clobbered, for the block does not need them. */
struct lite_jit_edge {
	struct lite_jit_edge *next;
	u8 *field; /* of the jump, writable */
	u8 *stub;  /* where it went before it was linked */
};

/* What of a translated block is not code. */
struct lite_jit_code {
	u8 *hot, *cold; /* (rx) what is run through, and what happens seldom, apart from it */
	u32 size, cold_size;
	u8 *indirect; /* (rx) entry with T0 = linear address, T1 = its index in the jump cache, the flags in lite_vcpu.fl */
	u8 *direct;   /* (rx) entry when vpage is right */
	u8 *loop;     /* (rx) like direct: where the block jumps to itself; NULL: it does not */
	u8 *dead;     /* (rw) where who comes is sent once the block is dead */
	u8 *lands;    /* (rw) the block ends in a CALL: field of the jump behind the host's; NULL: it does not, or to return is to go to the next page */
	u16 call, back; /* where that CALL is and where it returns to, offsets in the page */
	bool paired;  /* that jump has been given somewhere to go */
	const u8 *landing; /* (a, rx) the jump behind the host's CALL from which the guest's comes back here; NULL: none is known */
	u8 live_in;   /* LITE_CF ...: flags that the block may read before it sets them */
	bool vectors; /* touches vector, mask or x87 state */
	u16 nr_bytes; /* it checks itself: what it was made from, and behind these as many bytes, 0 for each that it reads each time */
	u8 *bytes;
	u16 nr_sites;
	u32 runs;     /* in lockstep: how often it was compared */
	u32 crossings; /* (a) a part of how often a group of its accesses reached over the end of a page */
	struct lite_block *block;
	struct lite_jit_edge *edges;
	struct lite_jit_site sites[];
};

/* Of a VM. */
struct lite_jit {
	struct lite_stub_room room;
	/* The room's first half is for what is run through, the second for what happens seldom: so the former takes few cache lines. */
	size_t used, start; /* bytes of the first; where blocks begin */
	size_t cold_used;   /* bytes of the second */
	const void *(*enter)(struct lite_vcpu *c, const void *host);
	u8 *jump_miss[2], *poll, *poll_kept; /* (rw) common ends: T0 is where the guest goes on; the first by view, T1 its index in the jump cache */
	u8 *fault, *fault_kept;		  /* (rx) where a host fault in translated code continues */
	struct lite_jit_code **by_place; /* in the order of their code */
	u32 nr_blocks, max_blocks;	 /* (a) */
	const u8 *call[LITE_JIT_FNS];	 /* (rx) what lite_vcpu.jit.fn points to */
	const u8 *short_from, *short_to; /* (rx) jit_short.c's part of the run time, and what of it may fault */
	struct lite_jit_rescue {
		const u8 *faults, *to;
	} rescues[2 * (LITE_JIT_FNS - LITE_JIT_C_FNS)];
	unsigned nr_rescues;
};

/* ---- the translation of one block ------------------------------------------------------------------------------------- */

struct jit_insn {
	struct insn insn;
	struct lite_use use;
	u16 off;	/* in the page */
	u8 live;	/* flags that are needed when it begins */
	bool reads_imm;	/* its immediate comes from the guest's memory, each time */
	const void *given; /* what LITE_JIT_INSN or LITE_JIT_FAST, which @fn says, gets for it */
	enum lite_jit_fn fn;
	const struct jit_cross *cross; /* NULL: it ends in its page */
};

/* What addresses of a block's accesses have in common: all but the displacement. */
struct jit_key {
	u8 base, index, scale, seg; /* base JIT_BASE_PAGE: the page of the block (RIP-relative) */
};
#define JIT_BASE_PAGE 0xfe

/*
 * Accesses with one key, close to each other, are checked once, together: from then on T2 is the host address of displacement @lo. Displacements from
 * RSP count from what it was when the block began.
 */
struct jit_group {
	bool active, write;
	struct jit_key key;
	s32 lo, hi;
};
#define JIT_GROUP_MAX 512 /* bytes; with a window LITE_WINDOW_SPAN */

/* A host memory operand: [base + index * scale + disp]; @base may be LITE_NO_REG. */
struct jit_place {
	u8 base;
	s32 disp;
	bool gs, indexed;
	u8 index, scale;
};

/*
 * What is known of guest registers in a block with a window: base + index * scale + @center was in @slot, or is not more than @slack bytes
 * from it.
 */
struct jit_fact {
	u8 base, index, scale; /* REG_*, or INSN_REG_NONE */
	u8 slot;	       /* JIT_SLOT_GS: one that GS reaches */
	s32 center, slack;
};
#define JIT_SLOT_GS 0xff
#define JIT_SLOT_NONE 0xfe
#define JIT_FACTS 8
/* What a loop may stray from where its first round began, each round. */
#define JIT_LOOP_SLACK 0x2000

/* Code that is put behind the block: what happens seldom. */
struct jit_cold {
	u8 *from;	/* field of the jump that leads here */
	u8 *back;	/* where it returns to, NULL: it does not */
	u8 kind;	/* enum jit_cold_kind */
	u8 reg;		/* COLD_SLOT: with the address */
	u8 slot;	/* COLD_ALONE: that was expected */
	u16 size;
	bool write, flags, t2_busy, group;
	bool kept; /* jit_block.kept */
	const void *given; /* COLD_FAST */
	bool masked; /* lite_faults_itself(): the emulator decides. Groups: a read before the first store */
	u16 off;
	s32 target;
};
enum jit_cold_kind { COLD_MISS, COLD_LINK, COLD_FAR, COLD_SLOT, COLD_ALONE, COLD_FAST };

#define JIT_MAX_COLD (JIT_MAX_INSNS * 3 + 8)

struct jit_block {
	struct lite_vcpu *c;
	struct lite_vm *lvm;
	struct lite_jit *jit;
	struct lite_emit e;
	const u8 *page;	  /* the copy of the guest's page */
	u64 va;		  /* of it, in LITE_MODE_TEXT */
	u32 mode;
	bool is32;
	bool t2_busy;	  /* T2 holds something across an access */
	bool no_groups;
	bool checked;	  /* see jit_check.c */
	bool no_imm, imm_failed; /* no immediates are to be read; one could not be */
	unsigned nr_differ;
	u8 *host_call;	  /* what is behind the host's CALL; NULL: there is none */
	u8 *lands;	  /* see lite_jit_code */
	u16 call, back;
	const struct lite_page *in;
	const u8 *tail;	  /* (rw) the host's CALL of another block with the same CALL, which this one ends with, too; NULL: it has its own */
	struct jit_group group;
	s32 rsp;	  /* how far RSP is from where it was when the block began */
	struct jit_fact facts[JIT_FACTS], first[JIT_FACTS]; /* now, and where the block jumps to itself */
	unsigned nfacts, nfirst;
	u32 below[16];	  /* see lite_below(); with a window */
	u8 delta, first_delta; /* the slot whose distance T2 is, or JIT_SLOT_NONE: now, and there */
	u8 *loop;	  /* that place; NULL: none */
	u16 guessed;	  /* guest registers whose value is known, or one near it */
	u64 guess[16];
	unsigned i;	  /* cur is insns[i] */
	u32 fpu_usable;	  /* LITE_FPU_CLASS bits */
	unsigned view;	  /* index of lite_vcpu.views */
	unsigned n, ncold, nsites;
	u16 from, to;	  /* bytes of the page that the translation depends on */
	bool ended;
	u8 live_in;	  /* lite_jit_code.live_in */
	bool kept;	  /* the flags are in lite_vcpu.fl */
	unsigned keep_from; /* from this instruction on they may be */
	struct jit_insn *cur;
	struct jit_insn insns[JIT_MAX_INSNS];
	struct jit_cold cold[JIT_MAX_COLD];
	struct lite_jit_site sites[JIT_MAX_INSNS];
	u8 *differ[256];  /* fields of the jumps to where the code is found to be another */
};

/* jit_mem.c */

/** @to = linear address of the memory operand (@seg: with its segment's base). Uses T0, T1. False: cannot be. No flags change. */
bool jit_ea(struct jit_block *b, const struct insn *insn, unsigned to, bool w, bool seg);
/**
 * *@place = @size bytes at the memory operand, readable (@write: and writable), or the instruction is left to the emulator.
 * False: cannot be. Uses T0, T1 and, unless b->t2_busy, T2. The flags survive if they are live.
 */
bool jit_operand(struct jit_block *b, const struct insn *insn, unsigned size, bool write, struct jit_place *place);
/** The same of [RSP + @disp]. */
void jit_stack(struct jit_block *b, s32 disp, unsigned size, bool write, struct jit_place *place);
/** The same, of linear address T0. */
void jit_access(struct jit_block *b, unsigned size, bool write);
/** T2 is wanted for something else. */
static inline void jit_group_end(struct jit_block *b)
{
	b->group.active = false;
	b->delta = JIT_SLOT_NONE;
}
/** cur has been emitted. */
void jit_group_step(struct jit_block *b);
/** Whether nothing follows @insn in a block. */
bool jit_ends(const struct insn *insn);
/** The code behind the block for a miss. */
void jit_emit_miss(struct jit_block *b, const struct jit_cold *cold);
/** What the instruction adds to @reg. False: that is not known. */
bool jit_reg_change(const struct jit_block *b, const struct jit_insn *j, unsigned reg, s64 *change);
/** What the operand's address has in common with others. False: nothing. */
bool jit_key_of(const struct jit_insn *j, struct jit_key *key, s64 *disp);
/** Whether @off of the page is at a linear address that the block, being of a text, may name: *@imm, sign-extended. */
bool jit_known_address(const struct jit_block *b, s64 off, s32 *imm);
/** MOV between the register and the operand; @op 0x8b to the register, 0x89 from it. */
void jit_move(struct jit_block *b, bool w, u8 op, unsigned reg, const struct jit_place *place);

/* jit_window.c: LITE_MODE_WINDOW, see window.h and jit_mem.c */

/* A block that checks itself finds its own code by the TLB, and so does the rest of it. */
static inline bool jit_windowed(const struct jit_block *b)
{
	return (b->mode & LITE_MODE_WINDOW) && !b->checked;
}
/** Makes the linear address of @insn's operand (NULL: the stack's) in register @x, T0 or T2, one in the window. Uses T1. */
void jit_window(struct jit_block *b, unsigned x, const struct insn *insn, bool guessed);
/** *@place = the operand @disp from @key by GS. False: it cannot be had that way. */
bool jit_window_place(struct jit_block *b, const struct jit_key *key, s64 disp, unsigned size, bool masked, struct jit_place *place);
/** Before the first instruction: what can be found out about registers there. */
void jit_window_begin(struct jit_block *b);
/** cur has been emitted. */
void jit_window_step(struct jit_block *b);
/** Jumps to the block's beginning, if what was found out there holds still. */
bool jit_window_loop(struct jit_block *b, s32 target);
/** The code behind the block, COLD_SLOT and COLD_ALONE. */
void jit_emit_window(struct jit_block *b, const struct jit_cold *cold);
/** An 8-byte NOP at an 8-byte boundary, for lite_jit_kill(); where it is. */
u8 *jit_entry_nop(struct lite_emit *e);

/* jit_check.c */

/** Whether nothing may follow @j in a block that checks itself: it may have changed the code. */
bool jit_check_ends(const struct jit_insn *j);
/** Which instructions of a decoded block will read their immediates. */
void jit_check_plan(struct jit_block *b);
/** At the block's entry: goes where jit_check_differs() is unless the code is what it was. No flags change. */
void jit_emit_check(struct jit_block *b);
void jit_emit_check_differs(struct jit_block *b);
/** Emits @b->cur, which reads_imm. False: cannot be. */
bool jit_emit_imm(struct jit_block *b);
/** What the block was made from, see lite_jit_code.bytes; @out has room for it. */
void jit_check_bytes(const struct jit_block *b, u8 *out);

/* jit_insn.c */

/**
 * Who leaves by the jump cache leaves the flags in lite_vcpu.fl, for what is there may need them, and the way there does not. Before cur does
 * anything else: from then on they may be clobbered, by cur and what follows. When that has been done nothing is emitted. Uses T0.
 */
void jit_keep_flags(struct jit_block *b);

/** Emits @b->cur. Sets b->ended when nothing may follow. */
void jit_emit_insn(struct jit_block *b);
/** Goes to @target, an offset from the page's start that may lie outside of it. */
void jit_emit_goto(struct jit_block *b, s32 target);
/** Before cur, whose last bytes are in the next page: goes on only if they are what cur was decoded from. */
void jit_emit_cross(struct jit_block *b);
/** The code behind the block, COLD_LINK. */
void jit_emit_cold(struct jit_block *b, const struct jit_cold *cold);
/** A call of LITE_JIT_LINK for the jump whose displacement is at @field. @flags: JIT_LINK_* */
void jit_emit_link(struct jit_block *b, const u8 *field, s32 target, u32 flags);
/** So that the 32 bits @behind bytes from here cross no 8-byte boundary. */
void jit_align_field(struct jit_block *b, unsigned behind);

static inline struct jit_cold *jit_cold(struct jit_block *b, enum jit_cold_kind kind, u8 *from)
{
	struct jit_cold *cold = &b->cold[b->ncold];

	if (b->ncold == JIT_MAX_COLD - 1)
		b->e.full = true;
	else
		b->ncold++;
	memset(cold, 0, sizeof(*cold));
	cold->kind = kind;
	cold->from = from;
	cold->off = b->cur ? b->cur->off : 0;
	return cold;
}

/* jit_cache.c */

/** The flags to [RSP + @to], laid out as lite_vcpu.fl, or back from there; RAX is lost. */
void jit_store_flags(struct lite_emit *e, s32 to);
void jit_load_flags(struct lite_emit *e, s32 from);
/** The same of a field of the vCPU; RAX is in @temp meanwhile. */
void jit_flags_to(struct lite_emit *e, unsigned temp, s32 to);
void jit_flags_from(struct lite_emit *e, unsigned temp, s32 from);
/*
 * A loop begins with a line of the instruction cache: a short one is then fetched at once, wherever its block comes to lie. One of 48 bytes
 * that lay across two lines took a quarter longer (Zen 4).
 */
#define JIT_LINE 64

/** code_lock held. Room for a block's code, LITE_JIT_BLOCK_MAX bytes in each half, JIT_LINE more in the first; false: full, flush. */
bool jit_room(struct lite_vm *lvm, u8 **hot, u8 **cold);
/** Takes @code->size and ->cold_size bytes of it. */
void jit_commit(struct lite_vm *lvm, struct lite_jit_code *code);
/** Links the jump whose displacement is at @field (rw) to @block, with a poll on the way if @poll; @stub is where it went. code_lock held. */
void jit_link(struct lite_vm *lvm, u8 *field, u8 *stub, struct lite_block *block, u16 target, bool poll);
/** Who comes to @code, which is dead, is sent to @block, which is of the same place and mode. code_lock held. */
void jit_forward(struct lite_vm *lvm, const struct lite_jit_code *code, struct lite_block *block);
/** The instruction whose translation contains @pc (rx); NULL: none. */
const struct lite_jit_site *lite_jit_site_at(struct lite_jit *jit, u64 pc);
/** The translation whose code contains @pc (rx); NULL: none. */
struct lite_jit_code *lite_jit_code_at(struct lite_jit *jit, u64 pc);
/** block.c: jit_link() under its lock, of a jump to @va in the translation that contains @from (rx), unless the block died or may be elsewhere. */
void lite_jit_link(struct lite_vcpu *c, const u8 *from, u8 *field, u8 *stub, struct lite_block *block, u64 va, bool poll);

/** Where @caller, whose CALL returns to the beginning of @code, lets the host's RET lead. code_lock held. */
void jit_pair(struct lite_vm *lvm, struct lite_jit_code *caller, const struct lite_jit_code *code);

/* Of lite_jit_code.lands. */
static inline const u8 *jit_landing(const struct lite_vm *lvm, const u8 *lands)
{
	return lands - 1 + (lvm->jit->room.rx - lvm->jit->room.rw);
}
/** code_lock held. The host's CALL (rw) of a live block of @page that ends in the CALL at @call, which returns to @back; NULL: there is none. */
const u8 *lite_jit_tail(const struct lite_page *page, u32 mode, unsigned call, unsigned back);
static inline const void *lite_jit_entry(const struct lite_jit_code *code)
{
	const u8 *landing = __atomic_load_n(&code->landing, __ATOMIC_RELAXED);

	return landing ? landing : code->indirect;
}

/* jit_short.c */

/** Makes jit->call[] from LITE_JIT_C_FNS on. */
void jit_make_short(struct lite_emit *e, struct lite_jit *jit);
/** What does @insn, one of system.h's, in translated code of that view. */
enum lite_jit_fn jit_short_way(const struct insn *insn, unsigned view);

/* jit_verify.c */

/* Code as it was emitted: a block's, or what jit_link() makes. */
struct jit_verify {
	const u8 *code, *cold; /* (rw) */
	u32 size, cold_size;   /* each at most LITE_JIT_BLOCK_MAX */
	/* Offsets of the entries, cold code counting on from @size. @indirect, by the jump cache: no such one if it is @direct. @loop 0: none. */
	u32 indirect, direct, loop, dead, mode;
	const u8 *tail;	/* (rw) another block's CALL, where jumps may lead as well; NULL: none */
	bool tail_t0;	/* there T0 is where the guest goes */
	u32 lands;	/* offset of the jump behind the host's CALL; 0: there is none */
	bool is_block;
	unsigned view;
	u32 fpu_usable;
	const u8 *jump_miss, *poll, *poll_kept, *to; /* (rw) what direct jumps may lead to; @to: a block's direct entry, may be NULL */
	const struct jit_insn *insns;	 /* of the block, @n */
	unsigned n;
	u32 at;				 /* out: of the instruction that is wrong */
};

/** Whether @v is what jit.h and jit_mem.c say. NULL, or the rule that it breaks. */
const char *jit_verify(struct jit_verify *v);
/** The same; what is wrong is logged and counted, and with verify=abort the end. */
bool jit_verified(struct lite_vm *lvm, struct jit_verify *v, const char *what);

/** The base of GS, for code of the mode that is now. */
static inline void lite_jit_gs(struct lite_vcpu *c)
{
	if ((c->jit.mode & LITE_MODE_WINDOW) && unlikely(c->gs_base != c->window_gs)) {
		c->gs_base = c->window_gs;
		__asm__ volatile("wrgsbase %0" : : "r"(c->window_gs));
	}
}

/* lockstep.c */

/** One block by the interpreter, undone, then by its translation, and compared. As lite_jit_run(). */
bool lite_lockstep_run(struct lite_vcpu *c);
/** What lite_lockstep_run() keeps. */
void lite_lockstep_free(struct lite_vcpu *c);

/** What blocks of the current state are translated for; 0: none can be. */
u32 lite_jit_mode(const struct lite_vcpu *c);

/* jit.c: called by translated code through lite_vcpu.jit.fn. They return where to go on, NULL: back to the run loop. */
typedef const void *lite_jit_call(struct lite_vcpu *c, const u8 *ret);
extern lite_jit_call *const lite_jit_calls[LITE_JIT_FNS];

#endif
