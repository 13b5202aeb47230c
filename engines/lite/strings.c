/*
 * MOVS, STOS, LODS, CMPS, SCAS, with and without repetition, for 64-bit code and 32-bit code with flat segments: a page's worth at a time,
 * through the TLB. What has to be looked at element by element (devices, pages that hold code, faults) is the emulator's, which finds
 * the registers as the elements before have left them; core/x86/emul/emul_string.c says what the result must be.
 *
 * Guest memory is touched by instructions that the host's exception table knows, in the guest's order and never more than once per element:
 * where the client's memory is not there, the elements before the fault are done and the others are not.
 */
#include "engines/lite/system_priv.h"

enum kind { MOVS, STOS, LODS, CMPS, SCAS };

struct string {
	u64 source_base; /* of the source's segment */
	u64 mask;	 /* of offsets, by address size */
	unsigned size, shift; /* of an element in bytes, and its logarithm */
	bool down;	 /* RFLAGS.DF */
	bool wide;	 /* 64-bit mode: linear addresses do not end at 4 GiB */
	u8 rep;		 /* enum insn_rep */
};

/* From here on REP MOVS and REP STOS make up for what it costs to start them. */
#define REP_FROM 512

/* ---- memory ------------------------------------------------------------------------------------------------------- */

/* The instructions at 1 and 2 are the accesses; a fault in one ends the loop before its element counts. */
#define LOOP_OF_TWO(code) code "3:\n" HOST_EX("1b", "3b") HOST_EX("2b", "3b")

/* One element after the other from @i to @end, bytes from the beginning. Leaves @i where it stopped. */
#define COPY_UP(suffix, modifier, bytes)                                                          \
	__asm__ volatile(LOOP_OF_TWO("1: mov" suffix " (%[s],%[i]), %" modifier "[v]\n"               \
				  "2: mov" suffix " %" modifier "[v], (%[d],%[i])\n"               \
				  "add $" #bytes ", %[i]\n"                                       \
				  "cmp %[end], %[i]\n"                                            \
				  "jb 1b\n")                                                      \
			 : [i] "+&r"(i), [v] "=&q"(v)                                             \
			 : [s] "r"(s), [d] "r"(d), [end] "r"(end)                                 \
			 : "memory", "cc")
/* The same downwards, from the element that ends at @i to the one that begins at 0. */
#define COPY_DOWN(suffix, modifier, bytes)                                                        \
	__asm__ volatile(LOOP_OF_TWO("1: mov" suffix " -" #bytes "(%[s],%[i]), %" modifier "[v]\n"    \
				  "2: mov" suffix " %" modifier "[v], -" #bytes "(%[d],%[i])\n"    \
				  "sub $" #bytes ", %[i]\n"                                       \
				  "cmp %[end], %[i]\n"                                            \
				  "ja 1b\n")                                                      \
			 : [i] "+&r"(i), [v] "=&q"(v)                                             \
			 : [s] "r"(s), [d] "r"(d), [end] "r"(end)                                 \
			 : "memory", "cc")

static u64 copy_up(u8 *d, const u8 *s, u64 i, u64 end, unsigned size)
{
	u64 v;

	if (i >= end)
		return i;
	switch (size) {
	case 1: COPY_UP("b", "b", 1); break;
	case 2: COPY_UP("w", "w", 2); break;
	case 4: COPY_UP("l", "k", 4); break;
	default: COPY_UP("q", "q", 8);
	}
	return i;
}

static u64 copy_down(u8 *d, const u8 *s, u64 i, u64 end, unsigned size)
{
	u64 v;

	if (i <= end)
		return i;
	switch (size) {
	case 1: COPY_DOWN("b", "b", 1); break;
	case 2: COPY_DOWN("w", "w", 2); break;
	case 4: COPY_DOWN("l", "k", 4); break;
	default: COPY_DOWN("q", "q", 8);
	}
	return i;
}

/* Bytes [0, @len) of @s to @d, ascending. Returns how many were done. */
static u64 move_up(u8 *d, const u8 *s, u64 len, unsigned size)
{
	u64 ahead = (u64)(d - s), left = len, i = 0, words = len & ~7ULL;

	/* What is read has not been written by this very move. */
	if (len >= REP_FROM && ahead >= len) {
		__asm__ volatile("1: rep movsb\n2:\n" HOST_EX("1b", "2b") : "+D"(d), "+S"(s), "+c"(left) : : "memory");
		return len - left;
	}
	/* Nearer than a word, a value that an element has just been given is the next one's source. */
	if (ahead >= 8) {
		i = copy_up(d, s, 0, words, 8);
		if (unlikely(i < words))
			return i;
	}
	return copy_up(d, s, i, len, size);
}

/* The same, descending: the last bytes of @len first. */
static u64 move_down(u8 *d, const u8 *s, u64 len, unsigned size)
{
	u64 i = len, rest = len & 7;

	if ((u64)(s - d) >= 8) {
		i = copy_down(d, s, len, rest, 8);
		if (unlikely(i > rest))
			return len - i;
	}
	return len - copy_down(d, s, i, 0, size);
}

#define FILL(suffix, modifier, bytes, first, step, jump)                                          \
	__asm__ volatile("1: mov" suffix " %" modifier "[v], " first "(%[d],%[i])\n"               \
			 step " $" #bytes ", %[i]\n"                                              \
			 "cmp %[end], %[i]\n" jump " 1b\n3:\n" HOST_EX("1b", "3b")                 \
			 : [i] "+&r"(i)                                                           \
			 : [v] "q"(v), [d] "r"(d), [end] "r"(end)                                 \
			 : "memory", "cc")

static u64 fill_up(u8 *d, u64 v, u64 i, u64 end, unsigned size)
{
	if (i >= end)
		return i;
	switch (size) {
	case 1: FILL("b", "b", 1, "", "add", "jb"); break;
	case 2: FILL("w", "w", 2, "", "add", "jb"); break;
	case 4: FILL("l", "k", 4, "", "add", "jb"); break;
	default: FILL("q", "q", 8, "", "add", "jb");
	}
	return i;
}

static u64 fill_down(u8 *d, u64 v, u64 i, u64 end, unsigned size)
{
	if (i <= end)
		return i;
	switch (size) {
	case 1: FILL("b", "b", 1, "-1", "sub", "ja"); break;
	case 2: FILL("w", "w", 2, "-2", "sub", "ja"); break;
	case 4: FILL("l", "k", 4, "-4", "sub", "ja"); break;
	default: FILL("q", "q", 8, "-8", "sub", "ja");
	}
	return i;
}

/* @v in every element of a word. */
static inline u64 spread(u64 v, unsigned size)
{
	switch (size) {
	case 1: return (u8)v * 0x0101010101010101ULL;
	case 2: return (u16)v * 0x0001000100010001ULL;
	case 4: return (u32)v * 0x0000000100000001ULL;
	default: return v;
	}
}

static u64 store_up(u8 *d, u64 v, u64 len, unsigned size)
{
	u64 words = len & ~7ULL, i;

	v = spread(v, size);
	if (len >= REP_FROM) {
		u64 left = len >> 3;
		u8 *to = d;

		__asm__ volatile("1: rep stosq\n2:\n" HOST_EX("1b", "2b") : "+D"(to), "+c"(left) : "a"(v) : "memory");
		i = words - left * 8;
	} else {
		i = fill_up(d, v, 0, words, 8);
	}
	if (unlikely(i < words))
		return i;
	return fill_up(d, v, i, len, size);
}

static u64 store_down(u8 *d, u64 v, u64 len, unsigned size)
{
	u64 rest = len & 7, i;

	v = spread(v, size);
	i = fill_down(d, v, len, rest, 8);
	if (unlikely(i > rest))
		return len - i;
	return len - fill_down(d, v, i, 0, size);
}

#define LOAD(suffix, result)                                                                      \
	__asm__ volatile("1: " suffix " %[p], %" result "[v]\n2:\n" HOST_EX_ERROR("1b", "2b", "%k[err]") \
			 : [err] "+&r"(*err), [v] "=&r"(v)                                        \
			 : [p] "m"(*(const u8 *)p)                                                \
			 : "memory")
static inline u64 load(const u8 *p, unsigned size, int *err)
{
	u64 v;

	switch (size) {
	case 1: LOAD("movzbl", "k"); break;
	case 2: LOAD("movzwl", "k"); break;
	case 4: LOAD("movl", "k"); break;
	default: LOAD("movq", "q");
	}
	return v;
}

static inline void store8(u8 *p, u8 v, int *err)
{
	__asm__ volatile("1: movb %b[v], %[p]\n2:\n" HOST_EX_ERROR("1b", "2b", "%k[err]")
			 : [err] "+&r"(*err), [p] "=m"(*p)
			 : [v] "q"(v));
}

/* ---- comparing ------------------------------------------------------------------------------------------------------ */

struct compared {
	u64 a, b;  /* the last elements looked at, or what words that were have there */
	bool ends; /* they end the repetition */
};

static inline bool any_zero(u64 word, unsigned size)
{
	u64 ones = spread(1, size);

	return (word - ones) & ~word & (ones << (8 * size - 1));
}

static inline u64 mask_of(unsigned size)
{
	return ~0ULL >> (64 - 8 * size);
}

/*
 * Up to @n elements from @s, or the value @a if @s is NULL, against those from @d; the first ones are at the pointers. By words as long as none of
 * their elements ends the repetition. Returns how many were compared.
 */
static u64 compare(const struct string *t, const u8 *s, const u8 *d, u64 a, u64 n, struct compared *last)
{
	unsigned size = t->size, per_word = 8 >> t->shift;
	s64 step = t->down ? -(s64)size : (s64)size;
	/* A word's lowest byte, from its first element. */
	s64 low = t->down ? (s64)size - 8 : 0;
	unsigned last_bit = t->down ? 0 : 64 - 8 * size;
	bool while_equal = t->rep != INSN_REP_NE;
	u64 word = spread(a, size), mask = mask_of(size), i = 0, b;
	int err = 0;

	last->ends = false;
	a &= mask;
	while (n - i >= per_word) {
		s64 at = (s64)i * step + low;
		u64 x = s ? load(s + at, 8, &err) : word, y = load(d + at, 8, &err);

		if (unlikely(err))
			return i;
		if (while_equal ? x != y : any_zero(x ^ y, size))
			break;
		last->a = x >> last_bit & mask;
		last->b = y >> last_bit & mask;
		i += per_word;
	}
	while (i < n) {
		s64 at = (s64)i * step;

		if (s)
			a = load(s + at, size, &err);
		b = load(d + at, size, &err);
		if (unlikely(err))
			return i;
		last->a = a;
		last->b = b;
		i++;
		if ((a == b) != while_equal) {
			last->ends = true;
			break;
		}
	}
	return i;
}

#define COMPARE(suffix, modifier)                                                                 \
	__asm__("cmp" suffix " %" modifier "[b], %" modifier "[a]\n\tlahf\n\tseto %%al" : "=&a"(fl) : [a] "q"(a), [b] "q"(b) : "cc")
static void compare_flags(struct x86_state *s, unsigned size, u64 a, u64 b)
{
	u32 fl;

	switch (size) {
	case 1: COMPARE("b", "b"); break;
	case 2: COMPARE("w", "w"); break;
	case 4: COMPARE("l", "k"); break;
	default: COMPARE("q", "q");
	}
	s->rflags = (s->rflags & ~(u64)RFLAGS_ARITH) | lite_fl_to_rflags((u16)fl);
}

/* ---- addresses ---------------------------------------------------------------------------------------------------- */

/* False: not in this mode, with this segment, under alignment checks. */
static bool begin(struct lite_vcpu *c, const struct insn *in, struct string *t)
{
	const struct x86_state *s = &c->vcpu.x86;
	const struct x86_segment *seg = &s->seg[in->seg_override < SEG_COUNT ? in->seg_override : SEG_DS];

	if (unlikely(in->addrsize < 4 || ((s->rflags & RFLAGS_AC) && (s->cr0 & CR0_AM) && s->cpl == 3)))
		return false;
	t->wide = s->mode == X86_MODE_LONG;
	t->size = in->opsize;
	t->shift = (unsigned)__builtin_ctz(in->opsize);
	t->mask = in->addrsize == 8 ? ~0ULL : 0xffffffff;
	t->down = s->rflags & RFLAGS_DF;
	t->rep = in->rep;
	t->source_base = 0;
	if (unlikely(!t->wide)) {
		if (c->code_mode != (X86_MODE_PROT32 | LITE_MODE_FLAT))
			return false;
		/* FS and GS may be anything, and CS not readable. */
		if ((seg->ar & AR_UNUSABLE) || seg->limit != 0xffffffff || (seg->ar & 0xa) == 8 || (seg->ar & 0xc) == 4)
			return false;
		t->source_base = seg->base;
	} else if (in->seg_override == SEG_FS || in->seg_override == SEG_GS) {
		t->source_base = seg->base;
	}
	return true;
}

static inline u64 linear(const struct string *t, u64 base, u64 offset)
{
	return t->wide ? base + offset : (u32)(base + offset);
}

/* How many elements from the one at @la on, whose offset is @offset, lie in its page, and before offsets wrap. 0: not even that one. */
static inline u64 fit(const struct string *t, u64 la, u64 offset)
{
	unsigned at = la & 0xfff;
	u64 n, wrap;

	if (at + t->size > 4096)
		return 0;
	n = t->down ? (at >> t->shift) + 1 : (4096 - at) >> t->shift;
	if (unlikely(t->mask != ~0ULL)) {
		wrap = offset + t->size > 0x100000000ULL ? 0 :
		       t->down			       ? (offset >> t->shift) + 1 :
							 (0x100000000ULL - offset) >> t->shift;
		n = n < wrap ? n : wrap;
	}
	return n;
}

/* The host address of @la, or NULL. */
static inline u8 *reach(struct lite_vcpu *c, u64 la, bool write)
{
	const struct lite_tlb_page *t = lite_tlb_page(c->view, la, write);

	if (unlikely(t->tag != (la & PAGE_MASK_)) && (!lite_tlb_fill(c, la, 1, write) || t->tag != (la & PAGE_MASK_)))
		return NULL;
	return t->host + (la & 0xfff);
}

/* ---- an element across pages ---------------------------------------------------------------------------------------- */

struct parts {
	u8 *host[2];
	unsigned first; /* bytes in the first page */
};

static bool reach_parts(struct lite_vcpu *c, const struct string *t, u64 la, bool write, struct parts *p)
{
	unsigned in_page = 4096 - (la & 0xfff);

	p->first = in_page < t->size ? in_page : t->size;
	p->host[0] = reach(c, la, write);
	p->host[1] = p->first < t->size ? reach(c, linear(t, la, p->first), write) : p->host[0];
	return p->host[0] && p->host[1];
}

static u64 load_parts(const struct string *t, const struct parts *p, int *err)
{
	u64 v = 0;

	for (unsigned i = 0; i < t->size; i++)
		v |= load(i < p->first ? p->host[0] + i : p->host[1] + (i - p->first), 1, err) << (8 * i);
	return v;
}

static void store_parts(const struct string *t, const struct parts *p, u64 v, int *err)
{
	for (unsigned i = 0; i < t->size; i++)
		store8(i < p->first ? p->host[0] + i : p->host[1] + (i - p->first), (u8)(v >> (8 * i)), err);
}

static void put_ax(struct x86_state *s, unsigned size, u64 v)
{
	u64 mask = mask_of(size);

	s->gpr[REG_AX] = size >= 4 ? v : (s->gpr[REG_AX] & ~mask) | (v & mask);
}

/* One element at @sla, @dla, wherever they are. */
static bool element(struct lite_vcpu *c, const struct string *t, enum kind kind, u64 sla, u64 dla, struct compared *last)
{
	struct x86_state *s = &c->vcpu.x86;
	bool writes = kind == MOVS || kind == STOS;
	struct parts from, to;
	u64 flushes, v, there = 0;
	int err = 0;

	do {
		flushes = c->flush_count;
		if (kind != STOS && kind != SCAS && !reach_parts(c, t, sla, false, &from))
			return false;
		if (kind != LODS && !reach_parts(c, t, dla, writes, &to))
			return false;
	} while (unlikely(flushes != c->flush_count));
	v = kind == STOS || kind == SCAS ? s->gpr[REG_AX] & mask_of(t->size) : load_parts(t, &from, &err);
	if (kind != LODS)
		there = load_parts(t, &to, &err);
	if (unlikely(err))
		return false;
	if (writes) {
		store_parts(t, &to, v, &err);
		/* All of it or nothing. */
		if (unlikely(err)) {
			store_parts(t, &to, there, &err);
			return false;
		}
	} else if (kind == LODS) {
		put_ax(s, t->size, v);
	} else {
		last->a = v;
		last->b = there;
		last->ends = (v == there) != (t->rep != INSN_REP_NE);
	}
	return true;
}

/* ---- the instructions --------------------------------------------------------------------------------------------------- */

/* @n elements, all in one page each, the first at @sla and @dla. Returns how many were done. */
static inline u64 elements(struct lite_vcpu *c, const struct string *t, enum kind kind, u64 sla, u64 dla, u64 n, struct compared *last)
{
	struct x86_state *s = &c->vcpu.x86;
	unsigned size = t->size;
	u64 len = n << t->shift, flushes, v;
	u8 *from = NULL, *to = NULL;
	int err = 0;

	do {
		flushes = c->flush_count;
		if (kind != STOS && kind != SCAS) {
			from = reach(c, sla, false);
			if (unlikely(!from))
				return 0;
		}
		if (kind != LODS) {
			to = reach(c, dla, kind == MOVS || kind == STOS);
			if (unlikely(!to))
				return 0;
		}
	} while (unlikely(flushes != c->flush_count));
	switch (kind) {
	case MOVS:
		if (likely(!t->down))
			return move_up(to, from, len, size) >> t->shift;
		return move_down(to - (len - size), from - (len - size), len, size) >> t->shift;
	case STOS:
		if (likely(!t->down))
			return store_up(to, s->gpr[REG_AX], len, size) >> t->shift;
		return store_down(to - (len - size), s->gpr[REG_AX], len, size) >> t->shift;
	case LODS:
		/* The page is there: only the last element's value stays. */
		v = load(t->down ? from - (len - size) : from + (len - size), size, &err);
		if (unlikely(err))
			return 0;
		put_ax(s, size, v);
		return n;
	default:
		return compare(t, from, to, s->gpr[REG_AX], n, last);
	}
}

static inline __attribute__((always_inline)) bool string(struct lite_vcpu *c, const struct insn *in, enum kind kind)
{
	struct x86_state *s = &c->vcpu.x86;
	bool source = kind != STOS && kind != SCAS, dest = kind != LODS, compares = kind == CMPS || kind == SCAS, any = false;
	struct compared last = { .ends = false };
	struct string t;
	u64 count = 1;

	if (unlikely(!begin(c, in, &t)))
		return false;
	if (t.rep) {
		count = s->gpr[REG_CX] & t.mask;
		/* Nothing will be done. Where that is so because of a fault, the emulator finds out. */
		if (unlikely(!count && t.wide && in->addrsize == 4))
			emul_string_begin(s, in);
	}
	while (count && !last.ends) {
		u64 si = s->gpr[REG_SI] & t.mask, di = s->gpr[REG_DI] & t.mask, n = count, most, done;
		u64 sla = linear(&t, t.source_base, si), dla = linear(&t, 0, di);

		/* Interrupts come in between pages. */
		if (any && (__atomic_load_n(&c->budget, __ATOMIC_RELAXED) < 0 || vcpu_must_exit(&c->vcpu)))
			break;
		if (source) {
			most = fit(&t, sla, si);
			n = n < most ? n : most;
		}
		if (dest) {
			most = fit(&t, dla, di);
			n = n < most ? n : most;
		}
		if (likely(n)) {
			done = elements(c, &t, kind, sla, dla, n, &last);
			if (unlikely(!done))
				break;
		} else {
			/* Over the end of a 32-bit segment there is a fault. */
			if (!t.wide && ((source && si + t.size > 0x100000000ULL) || (dest && di + t.size > 0x100000000ULL)))
				break;
			if (!element(c, &t, kind, sla, dla, &last))
				break;
			done = 1;
		}
		any = true;
		most = t.down ? -(done << t.shift) : done << t.shift;
		if (source)
			s->gpr[REG_SI] = (si + most) & t.mask;
		if (dest)
			s->gpr[REG_DI] = (di + most) & t.mask;
		count -= done;
		if (t.rep)
			s->gpr[REG_CX] = count;
	}
	if (likely(!count || last.ends)) {
		/* Not before: emul_string.c, repeat(). */
		if (compares && any)
			compare_flags(s, t.size, last.a, last.b);
		insn_done(s, in->len);
		if (!t.wide)
			s->rip = (u32)s->rip;
		return true;
	}
	if (!any)
		return false;
	/* As after an interrupt between two elements: no second instruction breakpoint (SDM 3B 17.3.1.1). */
	s->rflags |= RFLAGS_RF;
	s->shadow = 0;
	c->sti_rip = LITE_STI_NONE;
	return true;
}

bool lite_fast_string(struct lite_vcpu *c, const struct insn *in)
{
	switch (in->mnemonic) {
	case MN_MOVS: return string(c, in, MOVS);
	case MN_STOS: return string(c, in, STOS);
	case MN_LODS: return string(c, in, LODS);
	case MN_CMPS: return string(c, in, CMPS);
	default: return string(c, in, SCAS);
	}
}
