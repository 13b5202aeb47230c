/* Uses of registers and flags, and instructions with other registers: see recode.h. */
#include "engines/lite/recode.h"

#define BIT16(reg) ((u16)(1U << (reg)))

#define RAX BIT16(GPR_RAX)
#define RCX BIT16(GPR_RCX)
#define RDX BIT16(GPR_RDX)
#define RBX BIT16(GPR_RBX)
#define RSP BIT16(GPR_RSP)
#define RBP BIT16(GPR_RBP)
#define RSI BIT16(GPR_RSI)
#define RDI BIT16(GPR_RDI)

#define CF LITE_CF
#define PF LITE_PF
#define AF LITE_AF
#define ZF LITE_ZF
#define SF LITE_SF
#define OF LITE_OF

/* ---- registers and flags ------------------------------------------------------------------------------------------- */

static void flags(struct lite_use *use, u8 read, u8 write, u8 undef)
{
	use->fl_read = read;
	use->fl_write = use->fl_may = write;
	use->fl_undef = undef;
}

static void implied(struct lite_use *use, u16 read, u16 write)
{
	use->read |= read;
	use->write |= write;
}

/* Everything may matter, nothing is certain. */
static void use_all(struct lite_use *use)
{
	use->read = use->write = 0xffff;
	use->fl_read = use->fl_may = use->fl_undef = LITE_FL_ALL;
	use->fl_write = 0;
	use->implied_mem = true;
}

static u8 cond_flags(const struct insn *insn)
{
	static const u8 by_cond[8] = { OF, CF, ZF, CF | ZF, SF, PF, SF | OF, ZF | SF | OF };

	return by_cond[insn->cond >> 1 & 7];
}

/* The count operand of a shift, masked as the processor does it. -1: it is in CL. */
static int shift_count(const struct insn *insn)
{
	const struct operand *count = &insn->op[insn->nops - 1];

	if (count->kind == OPK_GPR)
		return -1;
	return (count->kind == OPK_ONE ? 1 : insn->imm) & (insn->op[0].size == 8 ? 63 : 31);
}

/* Shifts and rotates (SDM 2B). None changes flags when the masked count is 0. */
static void shift_flags(const struct insn *insn, struct lite_use *use)
{
	int count = shift_count(insn);
	unsigned bits = insn->op[0].size * 8;

	switch (insn->mnemonic) {
	case MN_ROL:
	case MN_ROR:
		flags(use, 0, CF | OF, count == 1 ? 0 : OF);
		break;
	case MN_RCL:
	case MN_RCR:
		flags(use, CF, CF | OF, count == 1 ? 0 : OF);
		/* Through carry, 9 bits of a byte are a whole turn. */
		if (count > 0 && !(count % (bits + 1)))
			use->fl_write = 0;
		break;
	case MN_SHL:
	case MN_SHR:
		flags(use, 0, LITE_FL_ALL, AF | (count == 1 ? 0 : OF) | (count < 0 || count >= (int)bits ? CF : 0));
		break;
	case MN_SAR:
		flags(use, 0, LITE_FL_ALL, AF | (count == 1 ? 0 : OF));
		break;
	default: /* SHLD, SHRD: undefined altogether by more than there are bits */
		flags(use, 0, LITE_FL_ALL, count < 0 || count > (int)bits ? LITE_FL_ALL : AF | (count == 1 ? 0 : OF));
		if (insn->op[0].size == 2 && count < 0)
			use->fl_undef = LITE_FL_ALL;
	}
	if (count < 0)
		use->fl_write = 0;
	if (!count)
		flags(use, 0, 0, 0);
}

static void string_use(const struct insn *insn, struct lite_use *use)
{
	use->implied_mem = true;
	switch (insn->mnemonic) {
	case MN_MOVS:
		implied(use, RSI | RDI, RSI | RDI);
		break;
	case MN_CMPS:
		implied(use, RSI | RDI, RSI | RDI);
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_STOS:
		implied(use, RAX | RDI, RDI);
		break;
	case MN_SCAS:
		implied(use, RAX | RDI, RDI);
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_LODS:
		implied(use, RSI | (insn->opsize < 4 || insn->rep ? RAX : 0), RSI | RAX);
		break;
	case MN_INS:
		implied(use, RDX | RDI, RDI);
		break;
	case MN_OUTS:
		implied(use, RDX | RSI, RSI);
		break;
	}
	if (insn->rep) {
		implied(use, RCX, RCX);
		use->fl_write = 0;
	}
}

/* SIMD with implied general registers or flags; no other has any. */
static void simd_use(const struct insn *insn, struct lite_use *use)
{
	switch (insn->mnemonic) {
	case MN_PCMPESTRI: case MN_VPCMPESTRI:
		implied(use, RAX | RDX, RCX);
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_PCMPESTRM: case MN_VPCMPESTRM:
		implied(use, RAX | RDX, 0);
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_PCMPISTRI: case MN_VPCMPISTRI:
		implied(use, 0, RCX);
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_PCMPISTRM: case MN_VPCMPISTRM:
	case MN_COMISS: case MN_COMISD: case MN_UCOMISS: case MN_UCOMISD:
	case MN_VCOMISS: case MN_VCOMISD: case MN_VCOMISH: case MN_VUCOMISS: case MN_VUCOMISD: case MN_VUCOMISH:
	case MN_PTEST: case MN_VPTEST: case MN_VTESTPS: case MN_VTESTPD:
	case MN_KORTESTB: case MN_KORTESTW: case MN_KORTESTD: case MN_KORTESTQ:
	case MN_KTESTB: case MN_KTESTW: case MN_KTESTD: case MN_KTESTQ:
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_MASKMOVQ: case MN_MASKMOVDQU: case MN_VMASKMOVDQU:
		implied(use, RDI, 0);
		use->implied_mem = true;
		break;
	case MN_AESENC128KL: case MN_AESENC256KL: case MN_AESDEC128KL: case MN_AESDEC256KL:
	case MN_AESENCWIDE128KL: case MN_AESENCWIDE256KL: case MN_AESDECWIDE128KL: case MN_AESDECWIDE256KL:
	case MN_ENCODEKEY128: case MN_ENCODEKEY256: case MN_LOADIWKEY:
		use_all(use);
		break;
	}
}

static void operand_use(const struct insn *insn, struct lite_use *use)
{
	for (unsigned i = 0; i < insn->nops; i++) {
		const struct operand *op = &insn->op[i];

		if (op->kind != OPK_GPR && op->kind != OPK_GPR_HI)
			continue;
		if ((op->access & OPA_READ) || ((op->access & OPA_WRITE) && op->size < 4))
			use->read |= BIT16(op->reg);
		if (op->access & OPA_WRITE)
			use->write |= BIT16(op->reg);
	}
	if (insn->has_mem && insn->mnemonic != MN_NOP) {
		if (insn->mem.base != INSN_REG_NONE)
			use->read |= BIT16(insn->mem.base);
		if (insn->mem.index != INSN_REG_NONE && !insn->mem.vsib)
			use->read |= BIT16(insn->mem.index);
	}
}

void lite_use(const struct insn *insn, struct lite_use *use)
{
	u16 merged = insn->opsize < 4; /* results of 8 and 16 bits leave the rest */

	memset(use, 0, sizeof(*use));
	operand_use(insn, use);
	if (insn->flags & INSN_F_STRING) {
		string_use(insn, use);
		return;
	}
	if (insn->flags & INSN_F_STACK) {
		implied(use, RSP, RSP);
		use->implied_mem = true;
	}
	if (insn->mnemonic > MN_SIMD_FIRST) {
		simd_use(insn, use);
		return;
	}
	switch (insn->mnemonic) {
	/* ---- arithmetic ---- */
	case MN_ADD: case MN_SUB: case MN_CMP: case MN_NEG: case MN_XADD:
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_CMPXCHG:
		implied(use, RAX, RAX);
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_ADC: case MN_SBB:
		flags(use, CF, LITE_FL_ALL, 0);
		break;
	case MN_AND: case MN_OR: case MN_XOR: case MN_TEST:
		flags(use, 0, LITE_FL_ALL, AF);
		break;
	case MN_INC: case MN_DEC:
		flags(use, 0, LITE_FL_ALL & ~CF, 0);
		break;
	case MN_MUL:
	case MN_IMUL:
		flags(use, 0, LITE_FL_ALL, SF | ZF | AF | PF);
		if (insn->nops > 1)
			break;
		if (insn->opsize == 1)
			implied(use, RAX, RAX);
		else
			implied(use, RAX | (merged ? RDX : 0), RAX | RDX);
		break;
	case MN_DIV: case MN_IDIV:
		flags(use, 0, LITE_FL_ALL, LITE_FL_ALL);
		if (insn->opsize == 1)
			implied(use, RAX, RAX);
		else
			implied(use, RAX | RDX, RAX | RDX);
		break;
	case MN_ROL: case MN_ROR: case MN_RCL: case MN_RCR: case MN_SHL: case MN_SHR: case MN_SAR: case MN_SHLD: case MN_SHRD:
		shift_flags(insn, use);
		break;
	case MN_BT: case MN_BTS: case MN_BTR: case MN_BTC:
		flags(use, 0, LITE_FL_ALL & ~ZF, OF | SF | AF | PF);
		break;
	case MN_BSF: case MN_BSR:
		flags(use, 0, LITE_FL_ALL, LITE_FL_ALL & ~ZF);
		break;
	case MN_TZCNT: case MN_LZCNT:
		flags(use, 0, LITE_FL_ALL, OF | SF | PF | AF);
		break;
	case MN_POPCNT: case MN_RDRAND: case MN_RDSEED:
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_CMPXCHG8B: case MN_CMPXCHG16B:
		implied(use, RAX | RDX | RCX | RBX, RAX | RDX);
		flags(use, 0, ZF, 0);
		break;
	case MN_ADCX:
		flags(use, CF, CF, 0);
		break;
	case MN_ADOX:
		flags(use, OF, OF, 0);
		break;
	case MN_ANDN: case MN_BLSI: case MN_BLSMSK: case MN_BLSR: case MN_BZHI:
	case MN_BLCFILL: case MN_BLCI: case MN_BLCIC: case MN_BLCMSK: case MN_BLCS: case MN_BLSFILL: case MN_BLSIC: case MN_T1MSKC:
	case MN_TZMSK:
		flags(use, 0, LITE_FL_ALL, AF | PF);
		break;
	case MN_BEXTR:
		flags(use, 0, LITE_FL_ALL, AF | SF | PF);
		break;
	case MN_MULX:
		implied(use, RDX, 0);
		break;
	case MN_DAA: case MN_DAS:
		implied(use, RAX, RAX);
		flags(use, CF | AF, LITE_FL_ALL, OF);
		break;
	case MN_AAA: case MN_AAS:
		implied(use, RAX, RAX);
		flags(use, AF, LITE_FL_ALL, OF | SF | ZF | PF);
		break;
	case MN_AAM: case MN_AAD:
		implied(use, RAX, RAX);
		flags(use, 0, LITE_FL_ALL, OF | AF | CF);
		break;
	case MN_CBW:
		implied(use, RAX, RAX);
		break;
	case MN_CWD:
		implied(use, RAX | (merged ? RDX : 0), RDX);
		break;
	/* ---- flags ---- */
	case MN_CMOVCC: case MN_SETCC: case MN_JCC: case MN_FCMOVCC:
		use->fl_read = cond_flags(insn);
		break;
	case MN_LAHF:
		implied(use, RAX, RAX);
		use->fl_read = LITE_FL_ALL & ~OF;
		break;
	case MN_SAHF:
		implied(use, RAX, 0);
		flags(use, 0, LITE_FL_ALL & ~OF, 0);
		break;
	case MN_SALC:
		implied(use, RAX, RAX);
		use->fl_read = CF;
		break;
	case MN_CLC: case MN_STC:
		flags(use, 0, CF, 0);
		break;
	case MN_CMC:
		flags(use, CF, CF, 0);
		break;
	case MN_PUSHF:
		use->fl_read = LITE_FL_ALL;
		break;
	case MN_POPF:
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_FCOMI: case MN_FCOMIP: case MN_FUCOMI: case MN_FUCOMIP:
		flags(use, 0, LITE_FL_ALL, 0);
		break;
	case MN_LAR: case MN_LSL: case MN_VERR: case MN_VERW: case MN_ARPL:
		flags(use, 0, ZF, 0);
		break;
	case MN_MOV_CR: case MN_MOV_DR:
		flags(use, 0, LITE_FL_ALL, LITE_FL_ALL);
		use->fl_write = 0;
		break;
	/* ---- moves, stack ---- */
	case MN_XLAT:
		implied(use, RAX | RBX, RAX);
		use->implied_mem = true;
		break;
	case MN_PUSHA:
		implied(use, 0xff, 0);
		break;
	case MN_POPA:
		implied(use, merged ? 0xff : 0, 0xff);
		break;
	case MN_ENTER: case MN_LEAVE:
		implied(use, RBP, RBP);
		break;
	case MN_LOOPE: case MN_LOOPNE:
		use->fl_read = ZF;
		implied(use, RCX, RCX);
		break;
	case MN_LOOP:
		implied(use, RCX, RCX);
		break;
	case MN_JCXZ:
		implied(use, RCX, 0);
		break;
	case MN_MOVDIR64B: case MN_UMONITOR:
		use->implied_mem = true;
		break;
	case MN_CLZERO:
		implied(use, RAX, 0);
		use->implied_mem = true;
		break;
	/* ---- system ---- */
	case MN_RDTSC:
		implied(use, 0, RAX | RDX);
		break;
	case MN_RDTSCP:
		implied(use, 0, RAX | RDX | RCX);
		break;
	case MN_RDPMC: case MN_RDMSR: case MN_XGETBV: case MN_RDPKRU:
		implied(use, RCX, RAX | RDX);
		break;
	case MN_WRMSR: case MN_XSETBV: case MN_WRPKRU:
		implied(use, RAX | RCX | RDX, 0);
		break;
	case MN_CPUID:
		implied(use, RAX | RCX, RAX | RBX | RCX | RDX);
		break;
	case MN_MONITOR: case MN_MONITORX:
		implied(use, RAX | RCX | RDX, 0);
		use->implied_mem = true;
		break;
	case MN_MWAIT:
		implied(use, RAX | RCX, 0);
		break;
	case MN_XSAVE: case MN_XSAVEOPT: case MN_XSAVEC: case MN_XSAVES: case MN_XRSTOR: case MN_XRSTORS:
		implied(use, RAX | RDX, 0);
		break;
	/* Their operands say it all. */
	case MN_NOT: case MN_BSWAP: case MN_XCHG: case MN_CRC32: case MN_MOVBE: case MN_PDEP: case MN_PEXT: case MN_RORX: case MN_SARX:
	case MN_SHLX: case MN_SHRX: case MN_MOV: case MN_MOVZX: case MN_MOVSX: case MN_MOVSXD: case MN_LEA: case MN_PUSH: case MN_POP:
	case MN_MOVNTI: case MN_MOVDIRI: case MN_IN: case MN_OUT: case MN_CLD: case MN_STD: case MN_CLI: case MN_STI: case MN_CLAC:
	case MN_STAC: case MN_JMP_NEAR: case MN_CALL_NEAR: case MN_RET_NEAR: case MN_MOV_SREG: case MN_PUSH_SREG: case MN_POP_SREG:
	case MN_LES: case MN_LDS: case MN_LSS: case MN_LFS: case MN_LGS: case MN_SLDT: case MN_STR: case MN_LLDT: case MN_LTR:
	case MN_SGDT: case MN_SIDT: case MN_LGDT: case MN_LIDT: case MN_SMSW: case MN_LMSW: case MN_RDFSBASE: case MN_RDGSBASE:
	case MN_WRFSBASE: case MN_WRGSBASE: case MN_SWAPGS: case MN_CLTS: case MN_HLT: case MN_INVD: case MN_WBINVD: case MN_WBNOINVD:
	case MN_INVLPG: case MN_INVPCID: case MN_RDPID: case MN_PTWRITE: case MN_NOP: case MN_PAUSE: case MN_LFENCE: case MN_MFENCE:
	case MN_SFENCE: case MN_CLFLUSH: case MN_CLFLUSHOPT: case MN_CLWB: case MN_CLDEMOTE: case MN_PREFETCH: case MN_PREFETCHW:
	case MN_PREFETCHWT1: case MN_PREFETCHNTA: case MN_PREFETCHT0: case MN_PREFETCHT1: case MN_PREFETCHT2: case MN_ENDBR32:
	case MN_ENDBR64: case MN_FXSAVE: case MN_FXRSTOR: case MN_LDMXCSR: case MN_STMXCSR: case MN_EMMS: case MN_FEMMS: case MN_FWAIT:
		break;
	default:
		if (insn->state != INSN_STATE_X87)
			use_all(use);
	}
}

/* ---- what results are less than -------------------------------------------------------------------------------------- */

/* The result of @insn, in its first operand, which is a general register of 4 or 8 bytes. */
static u64 result_below(const struct insn *insn, const u32 below[16])
{
	const struct operand *to = &insn->op[0], *from = &insn->op[1];
	u64 own = below[to->reg], other = insn->nops > 1 && from->kind == OPK_GPR && from->size >= 4 ? below[from->reg] : 0;
	u64 imm = to->size == 4 ? (u32)insn->imm : insn->imm, most = to->size == 4 ? 0xffffffff : ~0ULL;
	bool same = insn->nops == 2 && from->kind == OPK_GPR && from->reg == to->reg && from->size == to->size;

	switch (insn->mnemonic) {
	case MN_MOV: case MN_MOVSXD:
		return from->kind == OPK_IMM ? imm + 1 : other;
	case MN_MOVZX:
		return 1ULL << (insn->has_mem ? insn->mem.size : from->size) * 8;
	case MN_AND:
		if (from->kind == OPK_IMM)
			return own ? MIN(own, imm + 1) : imm + 1;
		return own && other ? MIN(own, other) : MAX(own, other);
	case MN_XOR: case MN_SUB:
		return same;
	case MN_SHL: case MN_SHR: {
		int count = shift_count(insn);

		if (count < 0 || (insn->mnemonic == MN_SHL && !own))
			return 0;
		if (insn->mnemonic == MN_SHR)
			return ((own ? own - 1 : most) >> count) + 1;
		return count < 16 ? ((own - 1) << count) + 1 : 0;
	}
	default:
		return 0;
	}
}

void lite_below(const struct insn *insn, const struct lite_use *use, u32 below[16])
{
	const struct operand *to = &insn->op[0];
	bool known = insn->nops && to->kind == OPK_GPR && to->size >= 4 && (use->write >> to->reg & 1);
	u64 n = known ? result_below(insn, below) : 0;

	for (unsigned i = 0; i < 16; i++)
		if (use->write >> i & 1)
			below[i] = 0;
	if (n && n <= LITE_BELOW_MAX)
		below[to->reg] = (u32)n;
}

/* ---- fields -------------------------------------------------------------------------------------------------------- */

/* 40 to 4F of 16- and 32-bit code: REX prefixes in 64-bit code. */
static bool is_short_inc(const struct insn *insn)
{
	return insn->encoding == INSN_ENC_LEGACY && insn->map == INSN_MAP_1BYTE && (insn->opcode & 0xf0) == 0x40;
}

static bool is_moffs(const struct insn *insn)
{
	return insn->encoding == INSN_ENC_LEGACY && insn->map == INSN_MAP_1BYTE && (insn->opcode & 0xfc) == 0xa0;
}

void lite_fields(const struct insn *insn, struct lite_fields *f)
{
	memset(f, 0, sizeof(*f));
	f->reg = f->rm = f->vvvv = f->low = LITE_NO_REG;
	if (insn->mnemonic == MN_NOP)
		return;
	for (unsigned i = 0; i < insn->nops; i++) {
		const struct operand *op = &insn->op[i];
		unsigned field = op->field;
		bool hi = op->kind == OPK_GPR_HI;

		if (op->kind != OPK_GPR && !hi)
			continue;
		if (is_short_inc(insn))
			field = OPF_RM;
		else if (is_moffs(insn))
			field = OPF_REG;
		switch (field) {
		case OPF_REG:
			f->reg = op->reg;
			f->reg_acc = op->access;
			f->reg_size = op->size;
			f->reg_hi = hi;
			break;
		case OPF_RM:
			f->rm = op->reg;
			f->rm_acc = op->access;
			f->rm_size = op->size;
			f->rm_hi = hi;
			break;
		case OPF_VVVV:
			f->vvvv = op->reg;
			f->vvvv_acc = op->access;
			f->vvvv_size = op->size;
			break;
		case OPF_LOW:
			f->low = op->reg;
			f->low_acc = op->access;
			f->low_size = op->size;
			f->low_hi = hi;
			break;
		}
	}
	f->hi_byte = f->reg_hi | f->rm_hi | f->low_hi;
}

bool lite_rm_may_be_mem(const struct insn *insn)
{
	u8 bytes[INSN_MAX_LEN];
	struct lite_fields f;
	struct insn mem;

	lite_fields(insn, &f);
	if (f.rm == LITE_NO_REG || insn->mnemonic == MN_LEA || insn->b)
		return false;
	if ((f.rm_acc & OPA_WRITE) && f.rm_size == 4)
		return false;
	if (is_short_inc(insn))
		return true;
	/* The bit offset reaches beyond a memory operand. */
	if (insn->mnemonic >= MN_BT && insn->mnemonic <= MN_BTC && insn->op[1].kind != OPK_IMM)
		return false;
	/* rm 7 is a base without SIB or displacement in each kind of addressing. */
	memcpy(bytes, insn->bytes, insn->len);
	bytes[insn->modrm_off] = (insn->modrm & 0x38) | 7;
	if (insn_decode(&mem, bytes, insn->len, insn->mode) || !mem.has_mem || mem.mnemonic != insn->mnemonic || mem.nops != insn->nops ||
	    mem.mem.size > 8)
		return false;
	/* PEXTRB and others write a register whole. */
	return !(f.rm_acc & OPA_WRITE) || mem.mem.size == f.rm_size;
}

/* ---- the instruction again ----------------------------------------------------------------------------------------- */

/* Whether it depends on nothing but what the host has in the same place: registers, flags, x87 and vector state, its memory operand. */
static bool is_plain(const struct insn *insn)
{
	if (insn->encoding == INSN_ENC_3DNOW || insn->encoding == INSN_ENC_XOP || insn->mem.vsib)
		return false;
	if (insn->flags & (INSN_F_PRIVILEGED | INSN_F_IOPL | INSN_F_ENDS_BLOCK | INSN_F_STRING | INSN_F_STACK))
		return false;
	switch (insn->state) {
	case INSN_STATE_FXSR:
	case INSN_STATE_XSAVE:
	case INSN_STATE_AMX:
		return false;
	}
	switch (insn->mnemonic) {
	case MN_ADD: case MN_OR: case MN_ADC: case MN_SBB: case MN_AND: case MN_SUB: case MN_XOR: case MN_CMP: case MN_TEST: case MN_NOT:
	case MN_NEG: case MN_MUL: case MN_IMUL: case MN_DIV: case MN_IDIV: case MN_INC: case MN_DEC: case MN_ROL: case MN_ROR: case MN_RCL:
	case MN_RCR: case MN_SHL: case MN_SHR: case MN_SAR: case MN_SHLD: case MN_SHRD: case MN_BT: case MN_BTS: case MN_BTR: case MN_BTC:
	case MN_BSF: case MN_BSR: case MN_BSWAP: case MN_XADD: case MN_CMPXCHG: case MN_CMPXCHG8B: case MN_CMPXCHG16B: case MN_XCHG:
	case MN_POPCNT: case MN_LZCNT: case MN_TZCNT: case MN_ADCX: case MN_ADOX: case MN_CRC32: case MN_MOVBE: case MN_ANDN: case MN_BEXTR:
	case MN_BLSI: case MN_BLSMSK: case MN_BLSR: case MN_BZHI: case MN_MULX: case MN_PDEP: case MN_PEXT: case MN_RORX: case MN_SARX:
	case MN_SHLX: case MN_SHRX: case MN_MOV: case MN_MOVZX: case MN_MOVSX: case MN_MOVSXD: case MN_LEA: case MN_CBW: case MN_CWD:
	case MN_LAHF: case MN_SAHF: case MN_CMOVCC: case MN_SETCC: case MN_MOVNTI: case MN_MOVDIRI: case MN_CLC: case MN_STC: case MN_CMC:
	case MN_CLD: case MN_STD: case MN_NOP: case MN_PAUSE: case MN_LFENCE: case MN_MFENCE: case MN_SFENCE: case MN_CLFLUSH:
	case MN_CLFLUSHOPT: case MN_CLWB: case MN_CLDEMOTE: case MN_PREFETCH: case MN_PREFETCHW: case MN_PREFETCHWT1: case MN_PREFETCHNTA:
	case MN_PREFETCHT0: case MN_PREFETCHT1: case MN_PREFETCHT2: case MN_ENDBR32: case MN_ENDBR64: case MN_RDRAND: case MN_RDSEED:
	case MN_LDMXCSR: case MN_STMXCSR: case MN_EMMS: case MN_FEMMS: case MN_FWAIT:
		return true;
	case MN_MASKMOVQ: case MN_MASKMOVDQU: case MN_VMASKMOVDQU:
	case MN_AESENC128KL: case MN_AESENC256KL: case MN_AESDEC128KL: case MN_AESDEC256KL:
	case MN_AESENCWIDE128KL: case MN_AESENCWIDE256KL: case MN_AESDECWIDE128KL: case MN_AESDECWIDE256KL:
	case MN_ENCODEKEY128: case MN_ENCODEKEY256: case MN_LOADIWKEY:
		return false;
	default:
		return insn->state == INSN_STATE_X87 || insn->mnemonic > MN_SIMD_FIRST;
	}
}

/* An encoding in pieces. Registers have all their bits. */
struct parts {
	u8 opcode, mod, reg, rm, vvvv;
	u8 base, index; /* of memory; base LITE_NO_REG: none */
	bool modrm, mem, rex, w;
};

/* ModRM.reg, ModRM.rm and VEX.vvvv as they were: register numbers where operands name some, else the raw bits. */
static void take_parts(const struct insn *insn, struct parts *p)
{
	p->opcode = insn->opcode;
	p->modrm = insn->has_modrm;
	p->mem = insn->has_mem;
	p->mod = insn->mod;
	p->reg = insn->reg;
	p->rm = insn->rm;
	p->vvvv = insn->vvvv;
	p->rex = false;
	p->w = lite_w(insn);
	for (unsigned i = 0; i < insn->nops; i++) {
		const struct operand *op = &insn->op[i];

		/* Of a register number, the low bits may have been ignored (VP2INTERSECT). */
		if (op->field == OPF_REG)
			p->reg |= op->reg & 0x18;
		else if (op->field == OPF_RM && op->kind != OPK_MEM)
			p->rm |= op->reg & 0x18;
	}
}

/* A general register into one of the fields. False: not in this encoding. */
static bool put_gpr(struct parts *p, u8 *field, u8 host, u8 size, bool hi)
{
	if (hi) {
		if (host > 3)
			return false;
		*field = host + 4;
		return true;
	}
	*field = host;
	/* SPL to DIL need a REX prefix, whatever it says. */
	p->rex |= size == 1 && host >= 4;
	return true;
}

/* ModRM, SIB and displacement. @scaled: disp8 would be scaled by what we do not know, EVEX. */
static unsigned put_modrm(const struct parts *p, const struct lite_recode *r, bool scaled, u8 *out)
{
	u8 reg = (p->reg & 7) << 3, mod, scale;
	unsigned n = 0;

	if (!p->mem) {
		out[n++] = 0xc0 | reg | (p->rm & 7);
		return n;
	}
	scale = r->index == LITE_NO_REG ? 0 : r->scale == 8 ? 3 : r->scale >> 1;
	if (r->base == LITE_NO_REG)
		mod = 0;
	else if (!r->disp && (r->base & 7) != 5)
		mod = 0;
	else if (!r->disp || (!scaled && r->disp == (s8)r->disp))
		mod = 1;
	else
		mod = 2;
	if (r->index == LITE_NO_REG && r->base != LITE_NO_REG && (r->base & 7) != 4) {
		out[n++] = mod << 6 | reg | (r->base & 7);
	} else {
		out[n++] = mod << 6 | reg | 4;
		out[n++] = scale << 6 | (r->index == LITE_NO_REG ? 4 : r->index & 7) << 3 |
			   (r->base == LITE_NO_REG ? 5 : r->base & 7);
	}
	if (mod == 1) {
		out[n++] = r->disp;
	} else if (mod == 2 || r->base == LITE_NO_REG) {
		memcpy(out + n, &r->disp, 4);
		n += 4;
	}
	return n;
}

/* Whether 66 has to say that operands are of 16 bits. Where it is part of the opcode it is insn.mandatory. */
static bool needs_66(const struct insn *insn)
{
	/* x87 environment and state in their 16-bit formats */
	if (insn->state == INSN_STATE_X87)
		return insn->mem.size == 14 || insn->mem.size == 94;
	if (insn->state != INSN_STATE_NONE || insn->opsize != 2)
		return false;
	if (insn->mnemonic == MN_CBW || insn->mnemonic == MN_CWD)
		return true;
	for (unsigned i = 0; i < insn->nops; i++)
		if (insn->op[i].size == 2)
			return true;
	return false;
}

static unsigned put_legacy(const struct insn *insn, const struct parts *p, bool hi_byte, u8 *out)
{
	u8 rex = (p->w ? 8 : 0) | (p->reg & 8) >> 1;
	unsigned n = 0;

	if (p->mem)
		rex |= (p->index != LITE_NO_REG && p->index & 8 ? 2 : 0) | (p->base != LITE_NO_REG && p->base & 8 ? 1 : 0);
	else
		rex |= (p->rm & 8) >> 3;
	if (hi_byte && (rex || p->rex))
		return 0;
	if (insn->lock)
		out[n++] = 0xf0;
	if (needs_66(insn))
		out[n++] = 0x66;
	if (insn->mandatory)
		out[n++] = insn->mandatory;
	if (rex || p->rex)
		out[n++] = 0x40 | rex;
	if (insn->map != INSN_MAP_1BYTE)
		out[n++] = 0x0f;
	if (insn->map == INSN_MAP_0F38)
		out[n++] = 0x38;
	else if (insn->map == INSN_MAP_0F3A)
		out[n++] = 0x3a;
	out[n++] = p->opcode;
	return n;
}

static unsigned put_vex(const struct insn *insn, const struct parts *p, u8 *out)
{
	bool r = p->reg & 8, x = p->mem && p->index != LITE_NO_REG && p->index & 8;
	bool b = p->mem ? p->base != LITE_NO_REG && p->base & 8 : p->rm & 8;
	u8 low = (~p->vvvv & 15) << 3 | (insn->ll & 1) << 2 | insn->pp;
	unsigned n = 0;

	if (!x && !b && !p->w && insn->map == INSN_MAP_0F) {
		out[n++] = 0xc5;
		out[n++] = (r ? 0 : 0x80) | low;
	} else {
		out[n++] = 0xc4;
		out[n++] = (r ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | insn->map;
		out[n++] = (p->w ? 0x80 : 0) | low;
	}
	out[n++] = p->opcode;
	return n;
}

static unsigned put_evex(const struct insn *insn, const struct parts *p, u8 *out)
{
	/* Without a memory operand, X is the fifth bit of rm. */
	bool x = p->mem ? p->index != LITE_NO_REG && p->index & 8 : p->rm & 16;
	bool b = p->mem ? p->base != LITE_NO_REG && p->base & 8 : p->rm & 8;
	unsigned n = 0;

	out[n++] = 0x62;
	out[n++] = (p->reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | (p->reg & 16 ? 0 : 0x10) | insn->map;
	out[n++] = (p->w ? 0x80 : 0) | (~p->vvvv & 15) << 3 | 4 | insn->pp;
	out[n++] = insn->z << 7 | insn->ll << 5 | insn->b << 4 | (p->vvvv & 16 ? 0 : 8) | insn->aaa;
	out[n++] = p->opcode;
	return n;
}

static unsigned put_imm(const struct insn *insn, u8 *out)
{
	memcpy(out, insn->bytes + insn->imm_off, insn->imm_size);
	/* Registers in immediates have three bits outside 64-bit mode. */
	for (unsigned i = 0; i < insn->nops; i++)
		if (insn->op[i].field == OPF_IS4 && insn->mode != MODE_64)
			out[0] &= 0x7f;
	return insn->imm_size;
}

static unsigned assemble(const struct insn *insn, const struct lite_recode *r, const struct parts *p, bool hi_byte, u8 *out)
{
	unsigned n;

	switch (insn->encoding) {
	case INSN_ENC_VEX:
		n = put_vex(insn, p, out);
		break;
	case INSN_ENC_EVEX:
		n = put_evex(insn, p, out);
		break;
	default:
		n = put_legacy(insn, p, hi_byte, out);
		if (!n)
			return 0;
	}
	if (p->modrm)
		n += put_modrm(p, r, insn->encoding == INSN_ENC_EVEX, out + n);
	return n + put_imm(insn, out + n);
}

/* Whether @len bytes at @code are the same instruction on operands of the same kind and size. */
static bool is_same(const struct insn *insn, const u8 *code, unsigned len)
{
	struct insn again;

	if (insn_decode(&again, code, len, MODE_64) || again.mnemonic != insn->mnemonic || again.nops != insn->nops)
		return false;
	for (unsigned i = 0; i < insn->nops; i++)
		if (again.op[i].kind != insn->op[i].kind || again.op[i].size != insn->op[i].size)
			return false;
	return true;
}

/* Outside 64-bit mode these know eight registers (SDM 2C, VZEROALL); what zeroes one a time serves then. */
static unsigned put_vzero(const struct insn *insn, u8 *out)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 8; i++) {
		out[n++] = 0xc5;
		if (insn->mnemonic == MN_VZEROUPPER) {
			/* vmovaps xmm, xmm */
			out[n++] = 0xf8;
			out[n++] = 0x28;
		} else {
			/* vxorps xmm, xmm, xmm */
			out[n++] = (~i & 15) << 3 | 0x80;
			out[n++] = 0x57;
		}
		out[n++] = 0xc0 | i << 3 | i;
	}
	return n;
}

unsigned lite_recode(const struct insn *insn, const struct lite_recode *r, u8 *out)
{
	struct lite_fields f;
	struct parts p;
	u8 low = 0;

	if (!is_plain(insn))
		return 0;
	if (insn->mnemonic == MN_NOP) {
		out[0] = 0x90;
		return 1;
	}
	if (insn->mode != MODE_64 && (insn->mnemonic == MN_VZEROUPPER || insn->mnemonic == MN_VZEROALL))
		return put_vzero(insn, out);
	lite_fields(insn, &f);
	take_parts(insn, &p);
	if (insn->encoding == INSN_ENC_LEGACY && (insn->mode != MODE_64 || insn->opsize == 1))
		p.w = false;
	/* The width of the implied lengths */
	if ((insn->mnemonic == MN_VPCMPESTRI || insn->mnemonic == MN_VPCMPESTRM) && insn->mode != MODE_64)
		p.w = false;
	if (is_short_inc(insn)) {
		p.modrm = true;
		p.reg = insn->opcode >> 3 & 1;
		p.opcode = 0xff;
	} else if (is_moffs(insn)) {
		p.modrm = true;
		p.reg = 0;
		p.opcode = 0x8a ^ (insn->opcode & 1) ^ (insn->opcode & 2);
	} else if (insn->encoding == INSN_ENC_LEGACY && insn->map == INSN_MAP_1BYTE && insn->opcode == 0x82) {
		p.opcode = 0x80;
	}
	if (f.reg != LITE_NO_REG && !put_gpr(&p, &p.reg, r->reg, f.reg_size, f.reg_hi))
		return 0;
	if (f.vvvv != LITE_NO_REG)
		p.vvvv = r->vvvv;
	if (f.rm != LITE_NO_REG && r->rm_to_mem) {
		/* Embedded rounding would become a broadcast. */
		if (insn->b)
			return 0;
		p.mem = true;
	} else if (f.rm != LITE_NO_REG && !put_gpr(&p, &p.rm, r->rm, f.rm_size, f.rm_hi)) {
		return 0;
	}
	if (f.low != LITE_NO_REG) {
		if (!put_gpr(&p, &low, r->low, f.low_size, f.low_hi))
			return 0;
		if (insn->mnemonic == MN_XCHG && !low) {
			/* 90 is NOP. */
			p.modrm = true;
			p.opcode = 0x87;
			p.reg = p.rm = 0;
		} else {
			p.opcode = (insn->opcode & 0xf8) | (low & 7);
			p.rm = low; /* for REX.B */
		}
	}
	if (p.mem && (r->index == GPR_RSP || (insn->lock && r->rm_to_mem)))
		return 0;
	p.base = r->base;
	p.index = r->index;
	if (insn->mode != MODE_64 && p.w) {
		/* Outside 64-bit mode W says nothing of general registers, but may be part of the opcode. */
		struct parts same = p;

		same.mem = insn->has_mem;
		if (!is_same(insn, out, assemble(insn, r, &same, false, out)))
			p.w = same.w = false;
		if (!is_same(insn, out, assemble(insn, r, &same, false, out)))
			return 0;
	}
	return assemble(insn, r, &p, f.hi_byte && !(r->rm_to_mem && !f.reg_hi), out);
}
