/*
 * Lockstep: the interpreter as the translator's judge. A block is run by core's emulator, instruction by instruction, with every write to
 * memory noted and the state kept at each boundary; then all is put back and the translation runs. Where it stops, registers, flags, vector
 * state and the bytes written have to be what the emulator had at that boundary. A difference stops the guest with both states, the guest's code
 * and the host's.
 *
 * Neither goes into what cannot be done twice: devices, code pages, faults, instructions that the translator leaves to the emulator.
 * Those end the comparison and are then done once. All vCPUs take turns, or their stores would look like differences. The client's devices take
 * none: where the two differ and something that the emulator read is no more what it was, that is why, and the translation's result holds.
 */
#include "engines/lite/jit.h"
#include "engines/lite/log.h"
#include "engines/lite/options.h"

#include "core/x86/fpu.h"

#define MAX_WRITES 512
#define MAX_READS  256 /* what else is read is taken to have stayed */
#define NEW_RUNS   32

struct write {
	u8 *host;
	u8 len;
	u8 at; /* index of the boundary before it */
	u8 old[16], new[16];
};

struct read {
	const u8 *host;
	u8 len;
	u8 value[64];
};

struct boundary {
	u64 gpr[16];
	u64 rip, rflags;
	unsigned nwrites;
	u8 undefined; /* LITE_CF ...: what the manuals leave open */
};

struct checks {
	struct boundary boundary[JIT_MAX_INSNS + 1];
	struct write writes[MAX_WRITES];
	struct read reads[MAX_READS];
	unsigned n, nwrites, nreads;
	bool stop; /* what follows cannot be done twice */
	bool loose; /* and it is a store that may have changed vector state when it faults, see lite_store_fault() */
	u8 xsave[16384], xsave_after[16384];
	u64 count;
};

static struct host_mutex turn;
static struct emul_ops ops;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static enum x86_result stop(struct lite_vcpu *c)
{
	((struct checks *)c->jit.checks)->stop = true;
	return X86_UNHANDLED;
}

static enum x86_result check_read(struct emul *e, u64 la, void *buf, unsigned len, unsigned acc)
{
	struct lite_vcpu *c = emul_lite(e);
	struct checks *k = c->jit.checks;
	struct lite_place place;
	enum x86_result r;

	for (u64 page = la & PAGE_MASK_; page <= ((la + len - 1) & PAGE_MASK_); page += 4096) {
		r = lite_translate(c, page < la ? la : page, acc & EMUL_ACC_RMW ? LITE_WRITE : LITE_READ, acc & EMUL_ACC_SYSTEM, &place);
		if (r != X86_CONTINUE || !place.host)
			return stop(c);
	}
	r = lite_read(e, la, buf, len, acc);
	if (r == X86_CONTINUE && k->nreads < MAX_READS && (la & 0xfff) + len <= 4096 && len <= sizeof(k->reads[0].value)) {
		struct read *read = &k->reads[k->nreads++];

		read->host = place.host;
		read->len = len;
		memcpy(read->value, buf, len);
	}
	return r;
}

/* Notes what is at [@la, @la + @len) and will be overwritten. */
static bool note(struct lite_vcpu *c, u64 la, unsigned len, unsigned acc)
{
	struct checks *k = c->jit.checks;
	struct lite_place place;

	while (len) {
		unsigned n = MIN(MIN(len, 16U), 4096 - (unsigned)(la & 0xfff));
		struct write *w = &k->writes[k->nwrites];

		if (k->nwrites == MAX_WRITES || lite_translate(c, la, LITE_WRITE, acc & EMUL_ACC_SYSTEM, &place) != X86_CONTINUE ||
		    !place.host || place.code)
			return false;
		w->host = place.host;
		w->len = n;
		if (host_copy_from_client(w->old, (u64)place.host, n))
			return false;
		k->nwrites++;
		la += n;
		len -= n;
	}
	return true;
}

static enum x86_result check_write(struct emul *e, u64 la, const void *buf, unsigned len, unsigned acc)
{
	struct lite_vcpu *c = emul_lite(e);

	return note(c, la, len, acc) ? lite_write(e, la, buf, len, acc) : stop(c);
}

static enum x86_result check_cmpxchg(struct emul *e, u64 la, void *old, const void *new, unsigned len, unsigned acc, bool *done)
{
	struct lite_vcpu *c = emul_lite(e);

	return note(c, la, len, acc) ? lite_emul_ops.cmpxchg(e, la, old, new, len, acc, done) : stop(c);
}

/* Before an x87 store pops the stack, for that is not put back when the store then cannot be done. */
static enum x86_result check_probe(struct emul *e, u64 la, unsigned len, bool write, unsigned acc)
{
	struct lite_vcpu *c = emul_lite(e);
	struct lite_place place;

	for (u64 page = la & PAGE_MASK_; write && len && page <= ((la + len - 1) & PAGE_MASK_); page += 4096)
		if (lite_translate(c, page < la ? la : page, LITE_WRITE, acc & EMUL_ACC_SYSTEM, &place) != X86_CONTINUE || !place.host || place.code)
			return stop(c);
	return lite_probe(e, la, len, write, acc);
}

static enum x86_result no_in(struct emul *e, u16 port, unsigned size, u32 *value)
{
	return stop(emul_lite(e));
}

static enum x86_result no_out(struct emul *e, u16 port, unsigned size, u32 value)
{
	return stop(emul_lite(e));
}

static void init(void)
{
	host_mutex_init(&turn);
	ops = lite_emul_ops;
	ops.read = check_read;
	ops.write = check_write;
	ops.cmpxchg = check_cmpxchg;
	ops.probe = check_probe;
	ops.in = no_in;
	ops.out = no_out;
}

static void keep(struct lite_vcpu *c, struct checks *k, u8 undefined)
{
	struct boundary *b = &k->boundary[k->n++];

	memcpy(b->gpr, c->vcpu.x86.gpr, sizeof(b->gpr));
	b->rip = c->vcpu.x86.rip;
	b->rflags = c->vcpu.x86.rflags;
	b->nwrites = k->nwrites;
	b->undefined = undefined;
}

static void put_back(struct lite_vcpu *c, const struct boundary *b)
{
	memcpy(c->vcpu.x86.gpr, b->gpr, sizeof(b->gpr));
	c->vcpu.x86.rip = b->rip;
	c->vcpu.x86.rflags = b->rflags;
}

/* The emulator's part: boundaries until something that cannot be done twice, or the way leaves the block's. */
static void interpret(struct lite_vcpu *c, struct checks *k, const struct lite_jit_code *code)
{
	struct emul *e = &c->vcpu.emul;
	const struct emul_ops *own = e->ops;
	struct lite_use use;
	enum x86_result r;
	u8 undefined = 0;

	keep(c, k, 0);
	e->ops = &ops;
	for (unsigned i = 0; i < code->nr_sites; i++) {
		unsigned before = k->nwrites;

		if ((code->sites[i].guest & JIT_SITE_EMULATED) ||
		    ((c->vcpu.x86.rip + c->cs_base) & c->rip_mask) != ((c->vpage + (code->sites[i].guest & JIT_SITE_OFFSET)) & c->rip_mask))
			break;
		r = emul_step(e);
		if (r != X86_CONTINUE || k->stop) {
			k->stop = true;
			k->loose = lite_is_loose_store(&e->insn);
			put_back(c, &k->boundary[k->n - 1]);
			while (k->nwrites > before) {
				struct write *w = &k->writes[--k->nwrites];

				host_copy_to_client((u64)w->host, w->old, w->len);
			}
			break;
		}
		lite_use(&e->insn, &use);
		undefined = (undefined & ~use.fl_write) | use.fl_undef;
		keep(c, k, undefined);
	}
	e->ops = own;
	for (unsigned i = 0; i < k->nwrites; i++)
		host_copy_from_client(k->writes[i].new, (u64)k->writes[i].host, k->writes[i].len);
}

static void undo_writes(struct checks *k)
{
	for (unsigned i = k->nwrites; i-- > 0;)
		host_copy_to_client((u64)k->writes[i].host, k->writes[i].old, k->writes[i].len);
}

/* Whether the noted bytes are as at the last boundary. Only asked when the translation got that far: later writes cover earlier ones. */
static const struct write *other_bytes(const struct checks *k)
{
	u8 now[16];

	for (unsigned i = 0; i < k->nwrites; i++) {
		const struct write *w = &k->writes[i];

		if (host_copy_from_client(now, (u64)w->host, w->len) || memcmp(now, w->new, w->len))
			return w;
	}
	return NULL;
}

/* Whether what was only read is another now: neither the emulator nor, if it is right, the translation wrote there. */
static bool others_wrote(const struct checks *k)
{
	u8 now[64];

	for (unsigned i = 0; i < k->nreads; i++) {
		const struct read *r = &k->reads[i];
		bool own = false;

		for (unsigned n = 0; n < k->nwrites; n++)
			own |= r->host < k->writes[n].host + k->writes[n].len && k->writes[n].host < r->host + r->len;
		if (!own && !host_copy_from_client(now, (u64)r->host, r->len) && memcmp(now, r->value, r->len))
			return true;
	}
	return false;
}

static bool same_vectors(const u8 *a, const u8 *b, size_t size)
{
	/* Not what x87 keeps of its last instruction (FOP, FIP, FDP). */
	return !memcmp(a, b, 6) && !memcmp(a + 24, b + 24, 4) && !memcmp(a + 32, b + 32, 416 - 32) && !memcmp(a + 576, b + 576, size - 576);
}

/* The arithmetic flags of RFLAGS that mean something before the block's instruction @i. */
static u64 live_flags(const struct checks *k, const struct lite_jit_code *code, unsigned i)
{
	u8 live = (i < code->nr_sites ? code->sites[i].live : LITE_FL_ALL) & ~k->boundary[i].undefined;

	return (live & LITE_CF ? RFLAGS_CF : 0) | (live & LITE_PF ? RFLAGS_PF : 0) | (live & LITE_AF ? RFLAGS_AF : 0) |
	       (live & LITE_ZF ? RFLAGS_ZF : 0) | (live & LITE_SF ? RFLAGS_SF : 0) | (live & LITE_OF ? RFLAGS_OF : 0);
}

static void show(const char *who, const struct boundary *b)
{
	static const char names[16][4] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15" };

	lite_log("%s: rip %016llx rflags %08llx\n", who, (unsigned long long)b->rip, (unsigned long long)b->rflags);
	for (unsigned i = 0; i < 16; i += 4)
		lite_log("  %s %016llx %s %016llx %s %016llx %s %016llx\n", names[i], (unsigned long long)b->gpr[i], names[i + 1],
			 (unsigned long long)b->gpr[i + 1], names[i + 2], (unsigned long long)b->gpr[i + 2], names[i + 3],
			 (unsigned long long)b->gpr[i + 3]);
}

static void report(struct lite_vcpu *c, const struct checks *k, const struct lite_block *block, const struct boundary *want,
		   const struct boundary *got, const char *what, const struct write *w)
{
	const struct lite_jit_code *code = block->jit;
	unsigned len = block->to - block->from;
	u8 bytes[4096];

	lite_log("lockstep: %s differ after %u instructions, %llu blocks\n", what, (unsigned)(want - k->boundary), (unsigned long long)k->count);
	show("before", &k->boundary[0]);
	show("interpreter", want);
	show("translation", got);
	if (w) {
		lite_log("memory at host %p, %u bytes:", (void *)w->host, w->len);
		for (unsigned i = 0; i < w->len; i++)
			lite_log(" %02x/%02x", w->new[i], w->host[i]);
		lite_log(" (interpreter/translation)\n");
	}
	lite_log("guest code:\n");
	if (c->vcpu.emul.ops->fetch(&c->vcpu.emul, c->vpage + block->from, bytes, MIN(len, 64U)) == X86_CONTINUE)
		lite_log_code(bytes, MIN(len, 64U), c->vpage + block->from, (block->mode & 7) == X86_MODE_LONG ? MODE_64 : MODE_32);
	lite_log("host code:\n");
	lite_log_code(code->hot, code->size, (u64)(uintptr_t)code->hot, MODE_64);
	lite_log_code(code->cold, code->cold_size, (u64)(uintptr_t)code->cold, MODE_64);
}

/* Of the state that checks.xsave has. */
static size_t vector_bytes(const struct lite_vcpu *c)
{
	return MIN(sizeof(((struct checks *)0)->xsave), (size_t)c->vcpu.xsave_size);
}

/*
 * What is another after the translation, which stopped as @got, than at the emulator's boundary there, *@want; NULL: nothing. *@w is
 * set where it is memory.
 */
static const char *difference(struct lite_vcpu *c, const struct checks *k, const struct lite_jit_code *code, const struct boundary *got,
			      const struct boundary **want, const struct write **w)
{
	const struct boundary *last = &k->boundary[k->n - 1], *b = NULL;

	/* A loop's head may stand at both ends. */
	for (unsigned i = 0; i < k->n; i++)
		if (k->boundary[i].rip == got->rip && (!b || !memcmp(k->boundary[i].gpr, got->gpr, sizeof(got->gpr))))
			b = &k->boundary[i];
	*want = b ? b : last;
	if (!b)
		return "ways";
	if (memcmp(b->gpr, got->gpr, sizeof(got->gpr)))
		return "registers";
	if ((b->rflags ^ got->rflags) & live_flags(k, code, b - k->boundary))
		return "flags";
	if (b != last)
		return NULL;
	*w = other_bytes(k);
	if (*w)
		return "bytes in memory";
	return code->vectors && !k->loose && !same_vectors(k->xsave_after, (u8 *)c->vcpu.xsave, vector_bytes(c)) ? "vector registers" : NULL;
}

/* One block: the budget makes it come back at its end. */
static void enter(struct lite_vcpu *c, const struct lite_block *block)
{
	c->stop = LITE_STOP_NONE;
	lite_flags_take(c);
	lite_fpu_load(c);
	__atomic_store_n(&c->budget, -1, __ATOMIC_SEQ_CST);
	lite_jit_gs(c);
	to_lite_vm(c->vcpu.vm)->jit->enter(c, block->jit->direct);
	lite_flags_home(c);
}

bool lite_lockstep_run(struct lite_vcpu *c)
{
	struct checks *k = c->jit.checks;
	u64 va = (c->vcpu.x86.rip + c->cs_base) & c->rip_mask, blocks;
	const struct boundary *want;
	const struct write *w = NULL;
	struct boundary got;
	const char *what;
	struct lite_block *block;
	size_t size;
	enum x86_result r;
	bool vectors;

	pthread_once(&once, init);
	if (!k) {
		k = c->jit.checks = host_zalloc_pages(sizeof(*k));
		if (!k)
			return false;
	}
	lite_leave_guest(c);
	host_mutex_lock(&turn);
	lite_enter_guest(c);
	blocks = c->blocks_count;
	/* A block that checks itself would find out, but not that it was found: the emulator's part is to be of the same code. */
	if (unlikely(to_lite_vm(c->vcpu.vm)->nr_checked))
		lite_code_same(c, va);
	block = lite_jit_block_at(c, va, &r);
	c->vpage = va & PAGE_MASK_;
	if (!block || blocks != c->blocks_count || block->dead)
		goto interpreter;
	k->count++;
	/* With lockstep=N a block is compared a few times when it is new, then every Nth time that any runs. */
	if (block->jit->runs >= NEW_RUNS && k->count % lite_options.lockstep) {
		enter(c, block);
		host_mutex_unlock(&turn);
		return true;
	}
	block->jit->runs++;
	c->count.lockstep++;
	vectors = block->jit->vectors;
	k->n = k->nwrites = k->nreads = 0;
	k->stop = k->loose = false;
	size = vector_bytes(c);
	if (vectors) {
		lite_fpu_save(c);
		memcpy(k->xsave, c->vcpu.xsave, size);
	}
	interpret(c, k, block->jit);
	if (vectors) {
		lite_fpu_normalize(c);
		memcpy(k->xsave_after, c->vcpu.xsave, size);
		memcpy(c->vcpu.xsave, k->xsave, size);
	}
	undo_writes(k);
	put_back(c, &k->boundary[0]);
	if (k->n == 1)
		goto interpreter;

	/* The flags that the block is said not to need are made wrong: it must not show. */
	c->vcpu.x86.rflags ^= RFLAGS_ARITH & ~live_flags(k, block->jit, 0);
	c->jit.lockstep = true;
	enter(c, block);
	c->jit.lockstep = false;
	if (vectors)
		lite_fpu_normalize(c);

	memcpy(got.gpr, c->vcpu.x86.gpr, sizeof(got.gpr));
	got.rip = c->vcpu.x86.rip;
	got.rflags = c->vcpu.x86.rflags;
	/* It met what it leaves to the emulator (an access across pages, say) at once, or that it is not what the code is: then other flags are needed. */
	if (got.rip == k->boundary[0].rip && !memcmp(got.gpr, k->boundary[0].gpr, sizeof(got.gpr))) {
		put_back(c, &k->boundary[0]);
		goto interpreter;
	}
	what = difference(c, k, block->jit, &got, &want, &w);
	if (what && others_wrote(k)) {
		lite_log("lockstep: memory changed under a block, whose comparison says nothing\n");
	} else if (what) {
		report(c, k, block, want, &got, what, w);
		c->jit.differs = true;
	}
	host_mutex_unlock(&turn);
	return true;

interpreter:
	host_mutex_unlock(&turn);
	return false;
}

void lite_lockstep_free(struct lite_vcpu *c)
{
	if (c->jit.checks)
		host_free_pages(c->jit.checks, sizeof(struct checks));
	c->jit.checks = NULL;
}
