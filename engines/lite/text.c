/* See text.h. */
#include "engines/lite/text.h"

#define INTO (LITE_TEXT_SIZE - 1)
#define NONE 1ULL /* no text begins there */
/* Who keeps mapping its kernel elsewhere is better off without. */
#define REMOVED_MAX 256ULL

static unsigned count(const struct lite_vm *lvm)
{
	return __atomic_load_n(&lvm->nr_texts, __ATOMIC_ACQUIRE);
}

static u64 begin(const struct lite_text *t)
{
	return __atomic_load_n(&t->va, __ATOMIC_ACQUIRE);
}

static const struct lite_text *text_of(const struct lite_vm *lvm, u64 va)
{
	for (unsigned i = 0; i < count(lvm); i++)
		if (begin(&lvm->texts[i]) == (va & ~INTO))
			return &lvm->texts[i];
	return NULL;
}

bool lite_text_at(const struct lite_vm *lvm, u64 va, u64 gpa)
{
	const struct lite_text *t = text_of(lvm, va);

	return t && t->gpa + (va & INTO) == gpa;
}

bool lite_text_has(const struct lite_vm *lvm, u64 va)
{
	return text_of(lvm, va);
}

bool lite_text_bytes(struct lite_vcpu *c, u64 va, u8 *bytes, unsigned n)
{
	const struct lite_text *t = text_of(to_lite_vm(c->vcpu.vm), va);
	u64 host = t ? vm_gpa_to_hva(c->vcpu.vm, vcpu_as_id(&c->vcpu), t->gpa + (va & INTO), NULL) : 0;

	return host && !host_copy_from_client(bytes, host, n);
}

/* The text that is at @gpa; NULL: none. */
static const struct lite_text *text_from(const struct lite_vm *lvm, u64 gpa)
{
	for (unsigned i = 0; i < count(lvm); i++)
		if (begin(&lvm->texts[i]) != NONE && lvm->texts[i].gpa == (gpa & ~INTO))
			return &lvm->texts[i];
	return NULL;
}

u64 lite_text_va(const struct lite_vm *lvm, u64 gpa)
{
	return begin(text_from(lvm, gpa)) + (gpa & INTO & PAGE_MASK_);
}

/* Global pages are all that an address space need not be asked for; SMM sees another memory. */
static bool may_have(const struct lite_vcpu *c)
{
	const struct x86_state *s = &c->vcpu.x86;

	return !to_lite_vm(c->vcpu.vm)->no_links && (s->cr4 & CR4_PGE) && (s->cr0 & CR0_PG) && !s->smm && s->cpl != 3 &&
	       c->code_mode == X86_MODE_LONG;
}

/* Whether the large global page of @va is mapped now; *@gpa is where it begins. */
static bool mapped(struct lite_vcpu *c, u64 va, u64 *gpa)
{
	const struct lite_walk_entry *e = lite_walk_find(c, va);

	if (!e || !e->global || !e->large || !e->host || !(e->rights[0] & LITE_MAY_EXEC))
		return false;
	*gpa = (e->gpa - (va & INTO & PAGE_MASK_));
	return !(*gpa & INTO);
}

void lite_text_note(struct lite_vcpu *c, u64 va)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	struct lite_text *t;
	unsigned i;
	u64 gpa;

	/* Its address has to fit where blocks note the page that they go to. */
	if (!may_have(c) || va != (u64)(s32)va || !mapped(c, va, &gpa) || text_of(lvm, va) || text_from(lvm, gpa) ||
	    __atomic_load_n(&lvm->texts_removed, __ATOMIC_RELAXED) >= REMOVED_MAX)
		return;
	lite_code_lock(c);
	for (i = 0; i < lvm->nr_texts && begin(&lvm->texts[i]) != NONE; i++)
		;
	if (i < LITE_TEXTS && !text_of(lvm, va) && !text_from(lvm, gpa)) {
		t = &lvm->texts[i];
		/* Who has read the entry as it was is done with it. */
		lite_shootdown(lvm, c, LITE_PEND_TEXT);
		t->gpa = gpa;
		__atomic_store_n(&t->va, va & ~INTO, __ATOMIC_RELEASE);
		if (i == lvm->nr_texts)
			__atomic_store_n(&lvm->nr_texts, i + 1, __ATOMIC_RELEASE);
		/* Who looked in between has not seen it. */
		lite_shootdown(lvm, c, LITE_PEND_TEXT);
		lite_text_flushed(c);
	}
	lite_code_unlock(c);
}

static void text_remove(struct lite_vcpu *c, struct lite_text *t, u64 va)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);

	lite_code_lock(c);
	if (t->va == va) {
		__atomic_store_n(&t->va, NONE, __ATOMIC_RELEASE);
		__atomic_store_n(&lvm->texts_removed, lvm->texts_removed + 1, __ATOMIC_RELAXED);
		for (u64 gfn = t->gpa >> 12; gfn < (t->gpa + LITE_TEXT_SIZE) >> 12; gfn++)
			lite_code_kill(c, gfn);
	}
	lite_code_unlock(c);
}

/* Decoded code against the bytes, as where a page is executed for the first time since the client may have written it. */
static void validate(struct lite_vcpu *c, u64 gpa)
{
	for (u64 gfn = gpa >> 12; gfn < (gpa + LITE_TEXT_SIZE) >> 12; gfn++)
		if (lite_is_code(to_lite_vm(c->vcpu.vm), gfn))
			lite_code_validate(c, gfn, (u8 *)vm_gpa_to_hva(c->vcpu.vm, vcpu_as_id(&c->vcpu), gfn << 12, NULL));
}

void lite_text_look(struct lite_vcpu *c)
{
	struct lite_vm *lvm = to_lite_vm(c->vcpu.vm);
	bool check = c->text_check;
	struct lite_place place;

	c->text_stale = c->text_check = c->text_ok = false;
	if (!may_have(c))
		goto out;
	for (unsigned i = 0; i < count(lvm); i++) {
		struct lite_text *t = &lvm->texts[i];
		u64 va = begin(t), gpa;

		if (va == NONE)
			continue;
		if (lite_translate(c, va, LITE_EXEC, false, &place) != X86_CONTINUE || !mapped(c, va, &gpa) || gpa != t->gpa)
			text_remove(c, t, va);
		else if (check)
			validate(c, t->gpa);
	}
	check = false;
	c->text_ok = true;
	c->count.text_looks++;
out:
	c->text_check |= check;
}
