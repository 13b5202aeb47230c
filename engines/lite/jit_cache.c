/*
 * Where translated code lives: memory that is mapped twice, to write and to run; the entry to and the exit from
 * it; links between blocks, and how a block dies.
 *
 * A block begins with an 8-byte NOP at an 8-byte boundary. When it dies, one store puts a jump to its end there, which asks for the
 * way anew: whoever runs inside the block meanwhile finishes it, whoever comes is turned away, and nobody finds half an instruction. Links between
 * blocks of a page, or of texts (text.h), are 32-bit displacements that cross no 8-byte boundary and are replaced by one store as well.
 *
 * Code is thrown away all at once, with lite_block's arena: LITE_PEND_BLOCKS then makes every vCPU leave translated code, or, when it is
 * in C called from there, not return to it (lite_vcpu.blocks_count).
 */
#include "engines/lite/jit.h"
#include "engines/lite/options.h"

#define JIT_BLOCKS_MAX	 131072U

/* ---- the run time --------------------------------------------------------------------------------------------------- */

static const u8 resident[] = { REG_AX, REG_CX, REG_DX, REG_BX, REG_BP, REG_SI, REG_DI, REG_R12, REG_R13, REG_R14, REG_R15 };

void jit_store_flags(struct lite_emit *e, s32 to)
{
	e_bytes(e, "\x9f\x0f\x90\xc0\x66", 5); /* lahf; seto al; mov [to], ax */
	e_op_m(e, false, 0x89, REG_AX, HOST_RSP, to);
}

void jit_load_flags(struct lite_emit *e, s32 from)
{
	e_u8(e, 0x66); /* mov ax, [from] */
	e_op_m(e, false, 0x8b, REG_AX, HOST_RSP, from);
	e_bytes(e, "\x04\x7f\x9e", 3); /* add al, 127; sahf */
}

void jit_flags_to(struct lite_emit *e, unsigned temp, s32 to)
{
	e_mov(e, true, temp, REG_AX);
	jit_store_flags(e, to);
	e_mov(e, true, REG_AX, temp);
}

void jit_flags_from(struct lite_emit *e, unsigned temp, s32 from)
{
	e_mov(e, true, temp, REG_AX);
	jit_load_flags(e, from);
	e_mov(e, true, REG_AX, temp);
}

/* With RSP = vCPU - @sp. @kept: the flags are at home. */
static void save_regs(struct lite_emit *e, s32 sp, bool kept)
{
	for (unsigned i = 0; i < ARRAY_SIZE(resident); i++)
		e_store(e, true, resident[i], HOST_RSP, sp + VCPU_GPR(resident[i]));
	e_store(e, true, GSP, HOST_RSP, sp + VCPU_GPR(REG_SP));
	e_store(e, true, T0, HOST_RSP, sp + VCPU(jit.t0));
	e_store(e, true, T1, HOST_RSP, sp + VCPU(jit.t1));
	e_store(e, true, T2, HOST_RSP, sp + VCPU(jit.t2));
	if (!kept)
		jit_store_flags(e, sp + VCPU(fl));
}

/*
 * Everything from the vCPU, and on at jit.to: by RET where a CALL led out of translated code, so that the host's return predictor keeps
 * knowing the CALLs before it (see host_call()).
 */
static void restore_regs(struct lite_emit *e, bool called)
{
	jit_load_flags(e, VCPU(fl));
	for (unsigned i = 0; i < ARRAY_SIZE(resident); i++)
		e_load(e, true, resident[i], HOST_RSP, VCPU_GPR(resident[i]));
	e_load(e, true, GSP, HOST_RSP, VCPU_GPR(REG_SP));
	e_load(e, true, T0, HOST_RSP, VCPU(jit.t0));
	e_load(e, true, T1, HOST_RSP, VCPU(jit.t1));
	e_load(e, true, T2, HOST_RSP, VCPU(jit.t2));
	if (!called) {
		e_jmp_m(e, HOST_RSP, VCPU(jit.to));
		return;
	}
	e_push_m(e, HOST_RSP, VCPU(jit.to));
	e_ret(e);
}

/* It may be in the other entry of the jump cache. */
static void make_jump_miss(struct lite_emit *e, struct lite_jit *jit, unsigned view)
{
	s32 jumps = jit_view(view);
	u8 *none;

	jit->jump_miss[view] = e->p;
	e_op_r(e, false, 0x81, 6, T1); /* xor T1d, imm32 */
	e_u32(e, LITE_JIT_JUMP_OTHER * JIT_JUMP_SCALE);
	e_op_mx(e, true, 0x3b, T0, HOST_RSP, T1, 3, jumps + (s32)offsetof(struct lite_view, jit[0].va)); /* cmp T0, va */
	none = e_jcc(e, CC_NE);
	e_jmp_mx(e, HOST_RSP, T1, jumps + (s32)offsetof(struct lite_view, jit[0].to));
	e_here(e, none);
	e_call_m(e, HOST_RSP, VCPU(jit.fn[LITE_JIT_JUMP]));
}

/* C functions are reached by CALL [vCPU + jit.fn[]]: the code that it finds there saves everything, calls, and goes where C says. */
static void make_runtime(struct lite_jit *jit)
{
	struct lite_emit e = { jit->room.rw, jit->room.rw + 16384, jit->room.rx - jit->room.rw, false };
	static const u8 push[] = { 0x55, 0x53, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x83, 0xec, 0x08 };
	static const u8 pop[] = { 0x48, 0x83, 0xc4, 0x08, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5b, 0x5d, 0xc3 };
	static const bool kept[LITE_JIT_C_FNS] = {
		[LITE_JIT_JUMP] = true, [LITE_JIT_MISS_KEPT] = true, [LITE_JIT_GROUP_KEPT] = true, [LITE_JIT_POLL_KEPT] = true,
		[LITE_JIT_FAULT_KEPT] = true,
	};
	u8 *restore, *leave, *field;

	jit->enter = (void *)e_rx(&e, e.p);
	e_bytes(&e, push, sizeof(push));
	e_store(&e, true, HOST_RSP, REG_DI, VCPU(jit.c_sp));
	e_mov(&e, true, HOST_RSP, REG_DI);
	e_store(&e, true, REG_SI, HOST_RSP, VCPU(jit.to));
	restore_regs(&e, false);
	restore = e.p;
	restore_regs(&e, true);

	/* A RET for the CALL that led out, then the one for who called jit->enter. */
	leave = e.p;
	field = e_lea_rip(&e, REG_AX);
	e_bytes(&e, "\x50\xc3", 2); /* push rax; ret */
	e_here(&e, field);
	e_load(&e, true, HOST_RSP, HOST_RSP, VCPU(jit.c_sp));
	e_bytes(&e, pop, sizeof(pop));

	for (unsigned i = 0; i < LITE_JIT_C_FNS; i++) {
		jit->call[i] = e_rx(&e, e.p);
		save_regs(&e, 8, kept[i]);
		e_load(&e, true, REG_SI, HOST_RSP, 0);	  /* the return address */
		e_lea(&e, true, REG_DI, HOST_RSP, 8);	  /* the vCPU */
		e_mov(&e, true, REG_BX, REG_DI);
		e_load(&e, true, HOST_RSP, REG_DI, VCPU(jit.c_sp));
		e_mov_imm64(&e, REG_AX, (u64)(uintptr_t)lite_jit_calls[i]);
		e_bytes(&e, "\xff\xd0", 2); /* call rax */
		e_mov(&e, true, HOST_RSP, REG_BX);
		e_bytes(&e, "\x48\x85\xc0", 3); /* test rax, rax */
		e_jcc_to(&e, CC_E, leave);
		e_store(&e, true, REG_AX, HOST_RSP, VCPU(jit.to));
		e_jmp_to(&e, restore);
	}
	for (unsigned v = 0; v < 2; v++)
		make_jump_miss(&e, jit, v);
	jit->poll = e.p;
	e_call_m(&e, HOST_RSP, VCPU(jit.fn[LITE_JIT_POLL]));
	jit->poll_kept = e.p;
	e_call_m(&e, HOST_RSP, VCPU(jit.fn[LITE_JIT_POLL_KEPT]));
	jit->fault = e_rx(&e, e.p);
	e_call_m(&e, HOST_RSP, VCPU(jit.fn[LITE_JIT_FAULT]));
	jit->fault_kept = e_rx(&e, e.p);
	e_call_m(&e, HOST_RSP, VCPU(jit.fn[LITE_JIT_FAULT_KEPT]));
	jit_make_short(&e, jit);
	jit->start = ROUND_UP((size_t)(e.p - jit->room.rw), 64UL);
}

void lite_jit_vcpu_init(struct lite_vcpu *c)
{
	const struct lite_jit *jit = to_lite_vm(c->vcpu.vm)->jit;

	for (unsigned i = 0; jit && i < LITE_JIT_FNS; i++)
		c->jit.fn[i] = jit->call[i];
	lite_jit_forget(c);
}

void lite_jit_vcpu_destroy(struct lite_vcpu *c)
{
	lite_lockstep_free(c);
	if (c->jit.block)
		host_free_pages(c->jit.block, sizeof(struct jit_block));
	c->jit.block = NULL;
}

void lite_jit_forget(struct lite_vcpu *c)
{
	const struct lite_jit *jit = to_lite_vm(c->vcpu.vm)->jit;

	for (unsigned v = 0; jit && v < 2; v++) {
		for (unsigned i = 0; i < LITE_JIT_JUMPS; i++)
			c->views[v].jit[i].to = jit->jump_miss[v] + (jit->room.rx - jit->room.rw);
		lite_jit_jumps_flush(&c->views[v]);
	}
}

static bool has_bmi2(void)
{
	u32 a = 7, b, cx = 0, d;

	__asm__("cpuid" : "+a"(a), "=b"(b), "+c"(cx), "=d"(d));
	return b & (1U << 8);
}

int lite_jit_init(struct lite_vm *lvm)
{
	struct lite_jit *jit;
	int err;

	if (!has_bmi2())
		return 0;
	jit = host_zalloc_pages(sizeof(*jit));
	if (!jit)
		return -ENOMEM;
	jit->max_blocks = JIT_BLOCKS_MAX;
	jit->by_place = host_zalloc_pages(jit->max_blocks * sizeof(*jit->by_place));
	err = jit->by_place ? lite_stub_room_make(&jit->room, (size_t)lite_options.cache_mib << 20, lite_jit_fault) : -ENOMEM;
	if (err) {
		if (jit->by_place)
			host_free_pages(jit->by_place, jit->max_blocks * sizeof(*jit->by_place));
		host_free_pages(jit, sizeof(*jit));
		return err;
	}
	make_runtime(jit);
	jit->used = jit->start;
	lvm->jit = jit;
	lvm->no_links = lite_options.lockstep;
	lite_fault_add_jit(jit, jit->room.rx, jit->room.size);
	return 0;
}

void lite_jit_destroy(struct lite_vm *lvm)
{
	struct lite_jit *jit = lvm->jit;

	if (!jit)
		return;
	lite_fault_remove_jit(jit);
	lite_stub_room_free(&jit->room);
	host_free_pages(jit->by_place, jit->max_blocks * sizeof(*jit->by_place));
	host_free_pages(jit, sizeof(*jit));
	lvm->jit = NULL;
}

/* ---- blocks and links ------------------------------------------------------------------------------------------------ */

static size_t half(const struct lite_jit *jit)
{
	return jit->room.size / 2;
}

static void set_used(struct lite_vm *lvm, size_t used, size_t cold_used)
{
	lvm->jit->used = used;
	lvm->jit->cold_used = cold_used;
	__atomic_store_n(&lvm->jit_bytes, used - lvm->jit->start + cold_used, __ATOMIC_RELAXED);
}

bool jit_room(struct lite_vm *lvm, u8 **hot, u8 **cold)
{
	struct lite_jit *jit = lvm->jit;

	*hot = jit->room.rw + jit->used;
	*cold = jit->room.rw + half(jit) + jit->cold_used;
	return jit->used + LITE_JIT_BLOCK_MAX + JIT_LINE <= half(jit) && jit->cold_used + LITE_JIT_BLOCK_MAX <= half(jit) && jit->nr_blocks < jit->max_blocks;
}

bool lite_jit_contains(const struct lite_vm *lvm, u64 pc)
{
	return lvm->jit && pc - (u64)(uintptr_t)lvm->jit->room.rx < lvm->jit->room.size;
}

bool lite_jit_full(struct lite_vm *lvm)
{
	u8 *hot, *cold;

	return lvm->jit && !jit_room(lvm, &hot, &cold);
}

void jit_commit(struct lite_vm *lvm, struct lite_jit_code *code)
{
	struct lite_jit *jit = lvm->jit;

	set_used(lvm, ROUND_UP((size_t)(code->hot - jit->room.rx) + code->size, 8UL), jit->cold_used + code->cold_size);
	jit->by_place[jit->nr_blocks] = code;
	__atomic_store_n(&jit->nr_blocks, jit->nr_blocks + 1, __ATOMIC_RELEASE);
}

void lite_jit_flush(struct lite_vm *lvm)
{
	struct lite_jit *jit = lvm->jit;

	if (!jit)
		return;
	__atomic_store_n(&jit->nr_blocks, 0, __ATOMIC_RELEASE);
	set_used(lvm, jit->start, 0);
}

static u8 *to_rw(const struct lite_jit *jit, const u8 *rx)
{
	return jit->room.rw + (rx - jit->room.rx);
}

static void store_rel(u8 *field, const u8 *rw)
{
	__atomic_store_n((s32 *)field, (s32)(rw - (field + 4)), __ATOMIC_RELEASE);
}

/* Who comes to @code's entry @rx goes on at @to (rw). */
static void send_on(struct lite_vm *lvm, const u8 *rx, const u8 *to)
{
	u8 *rw = to_rw(lvm->jit, rx);
	u8 jump[8] = { 0xe9, 0, 0, 0, 0, 0x90, 0x90, 0x90 };
	s32 rel = (s32)(to - (rw + 5));
	u64 v;

	memcpy(jump + 1, &rel, 4);
	memcpy(&v, jump, 8);
	__atomic_store_n((u64 *)rw, v, __ATOMIC_SEQ_CST);
}

void jit_forward(struct lite_vm *lvm, const struct lite_jit_code *code, struct lite_block *block)
{
	send_on(lvm, code->direct, to_rw(lvm->jit, block->jit->direct));
}

void jit_pair(struct lite_vm *lvm, struct lite_jit_code *caller, const struct lite_jit_code *code)
{
	store_rel(caller->lands, to_rw(lvm->jit, code->indirect));
	__atomic_store_n(&caller->paired, true, __ATOMIC_RELEASE);
}

void lite_jit_kill(struct lite_vm *lvm, struct lite_block *block)
{
	struct lite_jit_code *code = block->jit;

	send_on(lvm, code->direct, code->dead);
	if (code->loop)
		send_on(lvm, code->loop, code->dead);
	for (struct lite_jit_edge *edge = code->edges; edge; edge = edge->next)
		store_rel(edge->field, edge->stub);
	code->edges = NULL;
}

void jit_link(struct lite_vm *lvm, u8 *field, u8 *stub, struct lite_block *block, u16 target, bool poll)
{
	struct lite_jit_code *code = block->jit;
	struct lite_jit *jit = lvm->jit;
	struct lite_jit_edge *edge;
	struct jit_verify v;
	struct lite_emit e;
	u8 *miss, *hit;

	if (!poll) {
		store_rel(field, to_rw(jit, code->direct));
		return;
	}
	if (jit->used + 128 > half(jit))
		return;
	edge = lite_arena_alloc(lvm, sizeof(*edge));
	if (!edge)
		return;
	e = (struct lite_emit){ jit->room.rw + jit->used, jit->room.rw + jit->used + 128, jit->room.rx - jit->room.rw, false };
	if (code->live_in) {
		e_store(&e, true, REG_CX, HOST_RSP, VCPU(jit.save));
		jit_load_budget(&e);
		hit = e_jrcxz(&e);
		e_load(&e, true, REG_CX, HOST_RSP, VCPU(jit.save));
		miss = e_jmp(&e);
		e_here8(&e, hit);
		e_load(&e, true, REG_CX, HOST_RSP, VCPU(jit.save));
	} else {
		e_op_m(&e, false, 0x83, 7, HOST_RSP, VCPU(budget)); /* cmp dword, 0 */
		e_u8(&e, 0);
		miss = e_jcc(&e, CC_S);
	}
	e_jmp_to(&e, to_rw(jit, code->direct));
	e_here(&e, miss);
	e_load(&e, true, T0, HOST_RSP, VCPU(vpage));
	e_lea(&e, true, T0, T0, target);
	e_jmp_to(&e, jit->poll);
	v = (struct jit_verify){ .code = jit->room.rw + jit->used, .size = (u32)(e.p - (jit->room.rw + jit->used)), .poll = jit->poll,
				 .to = to_rw(jit, code->direct) };
	if (unlikely(lite_options.verify) && !jit_verified(lvm, &v, "a link"))
		return;
	edge->field = field;
	edge->stub = stub;
	edge->next = code->edges;
	code->edges = edge;
	store_rel(field, jit->room.rw + jit->used);
	set_used(lvm, ROUND_UP((size_t)(e.p - jit->room.rw), 8UL), jit->cold_used);
}

struct lite_jit_code *lite_jit_code_at(struct lite_jit *jit, u64 pc)
{
	u32 low = 0, high = __atomic_load_n(&jit->nr_blocks, __ATOMIC_ACQUIRE);
	bool cold = pc >= (u64)(uintptr_t)jit->room.rx + half(jit);

	while (low < high) {
		u32 mid = low + (high - low) / 2;
		struct lite_jit_code *code = jit->by_place[mid];
		u64 start = (u64)(uintptr_t)(cold ? code->cold : code->hot);

		if (pc < start)
			high = mid;
		else if (pc >= start + (cold ? code->cold_size : code->size))
			low = mid + 1;
		else
			return code;
	}
	return NULL;
}

const struct lite_jit_site *lite_jit_site_at(struct lite_jit *jit, u64 pc)
{
	const struct lite_jit_code *code = lite_jit_code_at(jit, pc);
	const struct lite_jit_site *site = NULL;

	/* What happens seldom does not fault. */
	if (!code || pc - (u64)(uintptr_t)code->hot >= code->size)
		return NULL;
	for (unsigned i = 0; i < code->nr_sites; i++)
		if ((u64)(uintptr_t)code->hot + code->sites[i].host <= pc)
			site = &code->sites[i];
	return site;
}
