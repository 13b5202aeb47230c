/*
 * Texts: where a kernel's code lies in large global pages, so that no switch of address space changes what is there. Direct branches between
 * pages of texts are linked as those within a page are (LITE_MODE_TEXT, jit_insn.c); elsewhere they go by the jump cache.
 *
 * A VM has a list of such pieces of 2 MiB, each at one address. No two are the same memory: so a block of LITE_MODE_TEXT, found by its
 * guest-physical address, runs at one linear address, and where its branches lead is known when it is made. A vCPU is in that mode only when
 * it has found all of the list to be mapped for it as the list says, and has not flushed since (lite_vcpu.text_stale): what it would find
 * on the way, had it looked, is then what the links lead to. Who has no text where the list has one takes it from the list, and its code dies.
 *
 * An entry is written while no vCPU is in that mode, or on its way there, without having to look again.
 */
#ifndef ENGINES_LITE_TEXT_H
#define ENGINES_LITE_TEXT_H

#include "engines/lite/lite.h"

#define LITE_TEXT_SIZE BIT64(21)

/** Whether linear @va is in a text, and at @gpa there. */
bool lite_text_at(const struct lite_vm *lvm, u64 va, u64 gpa);
/** The address at which the page of @gpa, which is in a text, runs; code_lock held. */
u64 lite_text_va(const struct lite_vm *lvm, u64 gpa);
/** Whether linear @va is in a text; code_lock held. */
bool lite_text_has(const struct lite_vm *lvm, u64 va);
/** Copies @n bytes of code, in one page, from linear @va, which is in a text. False: they are not to be had. code_lock held. */
bool lite_text_bytes(struct lite_vcpu *c, u64 va, u8 *bytes, unsigned n);
/** Code was found at linear @va, for LITE_MODE_TEXT or because that could be had: makes it a text if it can be one. May wait for other vCPUs. */
void lite_text_note(struct lite_vcpu *c, u64 va);
/** For supervisor code in 64-bit mode, when lite_vcpu.text_stale: finds out whether LITE_MODE_TEXT may be had. May wait for other vCPUs. */
void lite_text_look(struct lite_vcpu *c);

/** What has been found is no longer sure. */
static inline void lite_text_flushed(struct lite_vcpu *c)
{
	c->text_stale = true;
	c->flush_count++;
}

static inline bool lite_text_sure(const struct lite_vcpu *c)
{
	return c->text_ok && !c->text_stale;
}

#endif
