/* What system.c and system_insn.c share. */
#ifndef ENGINES_LITE_SYSTEM_PRIV_H
#define ENGINES_LITE_SYSTEM_PRIV_H

#include "engines/lite/system.h"
#include "hosts/user/fault.h"

/* Access rights in x86_segment's format as they stand in a descriptor. */
#define DESC(ar) ((u64)(ar) << 40)

/** The host address of [@la, @la + @size) in @view, within one page, or NULL: the general path. */
u8 *lite_reach(struct lite_vcpu *c, struct lite_view *view, u64 la, unsigned size, bool write);
/** The global descriptor of @sel; false: the general path. */
bool lite_read_desc(struct lite_vcpu *c, u16 sel, u64 *raw);

/* @err becomes -EFAULT when the client's memory is not there. */
static inline u64 load64(const void *p, int *err)
{
	u64 v;

	__asm__ volatile("1: movq %[p], %[v]\n2:\n" HOST_EX_ERROR("1b", "2b", "%k[err]")
			 : [err] "+&r"(*err), [v] "=&r"(v)
			 : [p] "m"(*(const u64 *)p));
	return v;
}

static inline u16 load16(const void *p, int *err)
{
	u16 v;

	__asm__ volatile("1: movw %[p], %w[v]\n2:\n" HOST_EX_ERROR("1b", "2b", "%k[err]")
			 : [err] "+&r"(*err), [v] "=&r"(v)
			 : [p] "m"(*(const u16 *)p));
	return v;
}

static inline void store64(void *p, u64 v, int *err)
{
	__asm__ volatile("1: movq %[v], %[p]\n2:\n" HOST_EX_ERROR("1b", "2b", "%k[err]")
			 : [err] "+&r"(*err), [p] "=m"(*(u64 *)p)
			 : [v] "r"(v));
}

static inline u32 desc_limit(u64 raw)
{
	u32 limit = (raw & 0xffff) | (raw >> 32 & 0xf0000);

	return raw & DESC(AR_G) ? limit << 12 | 0xfff : limit;
}

static inline void seg_from_desc(struct x86_segment *seg, u16 sel, u64 raw)
{
	seg->sel = sel;
	seg->base = (raw >> 16 & 0xffffff) | raw >> 56 << 24;
	seg->limit = desc_limit(raw);
	seg->ar = raw >> 40 & 0xf0ff;
}

/* As every instruction ends. */
static inline void insn_done(struct x86_state *s, unsigned len)
{
	s->rip += len;
	s->rflags &= ~RFLAGS_RF;
	s->shadow = 0;
}

#endif
