/*
 * A second opinion on every decode: see zydis.h.
 *
 * The two describe an instruction differently: Zydis names sizes and conditions in the mnemonic, lists
 * hidden operands, and shows an EVEX mask as an operand. Here the one is put into the other's terms.
 */
#include "tests/decoder/zydis.h"
#include "tests/tap.h"

#include <stdlib.h>
#include <Zydis/Zydis.h>

static ZydisDecoder decoders[3];
static u16 by_name[MN_COUNT]; /* the ZydisMnemonic of the same name */

struct both {
	enum insn_mode mode;
	const u8 *bytes;
	int err;
	struct insn insn;
	ZyanStatus status;
	ZydisDecodedInstruction zinsn;
	ZydisDecodedOperand zop[ZYDIS_MAX_OPERAND_COUNT];
};

void zydis_init(void)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth stack;
	} modes[3] = {
		[MODE_16] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
		[MODE_32] = { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
		[MODE_64] = { ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
	};
	char upper[64];
	int i, z, k;

	for (i = 0; i < 3; i++)
		ZydisDecoderInit(&decoders[i], modes[i].mode, modes[i].stack);
	for (i = 0; i < 3; i++)
		ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_TRUE);
	/* MPX is left to be what it is on processors without it. */
	for (i = 0; i < 3; i++)
		ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	for (z = 1; z <= ZYDIS_MNEMONIC_MAX_VALUE; z++) {
		const char *name = ZydisMnemonicGetString(z);

		for (k = 0; name[k] && k < 63; k++)
			upper[k] = name[k] >= 'a' && name[k] <= 'z' ? name[k] - 32 : name[k];
		upper[k] = 0;
		for (i = 1; i < MN_COUNT; i++)
			if (!strcmp(upper, mnemonic_name(i)))
				by_name[i] = z;
	}
}

#define Z(name) ZYDIS_MNEMONIC_##name

static ZydisMnemonic by_size(unsigned int size, ZydisMnemonic b, ZydisMnemonic w, ZydisMnemonic d,
			     ZydisMnemonic q)
{
	return size == 1 ? b : size == 2 ? w : size == 4 ? d : q;
}

/* The name Zydis gives to what one of our names stands for. */
static ZydisMnemonic expected_mnemonic(const struct insn *insn)
{
	static const u16 jcc[16] = { Z(JO), Z(JNO), Z(JB), Z(JNB), Z(JZ), Z(JNZ), Z(JBE), Z(JNBE),
				     Z(JS), Z(JNS), Z(JP), Z(JNP), Z(JL), Z(JNL), Z(JLE), Z(JNLE) };
	static const u16 setcc[16] = { Z(SETO), Z(SETNO), Z(SETB), Z(SETNB), Z(SETZ), Z(SETNZ),
				       Z(SETBE), Z(SETNBE), Z(SETS), Z(SETNS), Z(SETP), Z(SETNP),
				       Z(SETL), Z(SETNL), Z(SETLE), Z(SETNLE) };
	static const u16 cmov[16] = { Z(CMOVO), Z(CMOVNO), Z(CMOVB), Z(CMOVNB), Z(CMOVZ), Z(CMOVNZ),
				      Z(CMOVBE), Z(CMOVNBE), Z(CMOVS), Z(CMOVNS), Z(CMOVP), Z(CMOVNP),
				      Z(CMOVL), Z(CMOVNL), Z(CMOVLE), Z(CMOVNLE) };
	static const u16 fcmov[16] = { [2] = Z(FCMOVB), [3] = Z(FCMOVNB), [4] = Z(FCMOVE),
				       [5] = Z(FCMOVNE), [6] = Z(FCMOVBE), [7] = Z(FCMOVNBE),
				       [10] = Z(FCMOVU), [11] = Z(FCMOVNU) };
	unsigned int size = insn->opsize;

	switch (insn->mnemonic) {
	case MN_JCC: return jcc[insn->cond & 15];
	case MN_SETCC: return setcc[insn->cond & 15];
	case MN_CMOVCC: return cmov[insn->cond & 15];
	case MN_FCMOVCC: return fcmov[insn->cond & 15];
	case MN_MOVS: return by_size(size, Z(MOVSB), Z(MOVSW), Z(MOVSD), Z(MOVSQ));
	case MN_CMPS: return by_size(size, Z(CMPSB), Z(CMPSW), Z(CMPSD), Z(CMPSQ));
	case MN_STOS: return by_size(size, Z(STOSB), Z(STOSW), Z(STOSD), Z(STOSQ));
	case MN_LODS: return by_size(size, Z(LODSB), Z(LODSW), Z(LODSD), Z(LODSQ));
	case MN_SCAS: return by_size(size, Z(SCASB), Z(SCASW), Z(SCASD), Z(SCASQ));
	case MN_INS: return by_size(size, Z(INSB), Z(INSW), Z(INSD), 0);
	case MN_OUTS: return by_size(size, Z(OUTSB), Z(OUTSW), Z(OUTSD), 0);
	case MN_PUSHF: return by_size(size, 0, Z(PUSHF), Z(PUSHFD), Z(PUSHFQ));
	case MN_POPF: return by_size(size, 0, Z(POPF), Z(POPFD), Z(POPFQ));
	case MN_PUSHA: return by_size(size, 0, Z(PUSHA), Z(PUSHAD), 0);
	case MN_POPA: return by_size(size, 0, Z(POPA), Z(POPAD), 0);
	case MN_IRET: return by_size(size, 0, Z(IRET), Z(IRETD), Z(IRETQ));
	case MN_CBW: return by_size(size, 0, Z(CBW), Z(CWDE), Z(CDQE));
	case MN_CWD: return by_size(size, 0, Z(CWD), Z(CDQ), Z(CQO));
	case MN_JCXZ: return by_size(insn->addrsize, 0, Z(JCXZ), Z(JECXZ), Z(JRCXZ));
	case MN_CALL_NEAR:
	case MN_CALL_FAR: return Z(CALL);
	case MN_JMP_NEAR:
	case MN_JMP_FAR: return Z(JMP);
	case MN_RET_NEAR:
	case MN_RET_FAR: return Z(RET);
	case MN_MOV_SREG:
	case MN_MOV_CR:
	case MN_MOV_DR: return Z(MOV);
	case MN_PUSH_SREG: return Z(PUSH);
	case MN_POP_SREG: return Z(POP);
	case MN_RDSSP: return insn->w ? Z(RDSSPQ) : Z(RDSSPD);
	case MN_INCSSP: return insn->w ? Z(INCSSPQ) : Z(INCSSPD);
	case MN_WRSS: return insn->w ? Z(WRSSQ) : Z(WRSSD);
	case MN_WRUSS: return insn->w ? Z(WRUSSQ) : Z(WRUSSD);
	case MN_FXSAVE: return insn->w ? Z(FXSAVE64) : Z(FXSAVE);
	case MN_FXRSTOR: return insn->w ? Z(FXRSTOR64) : Z(FXRSTOR);
	case MN_XSAVE: return insn->w ? Z(XSAVE64) : Z(XSAVE);
	case MN_XRSTOR: return insn->w ? Z(XRSTOR64) : Z(XRSTOR);
	case MN_XSAVEOPT: return insn->w ? Z(XSAVEOPT64) : Z(XSAVEOPT);
	case MN_XSAVEC: return insn->w ? Z(XSAVEC64) : Z(XSAVEC);
	case MN_XSAVES: return insn->w ? Z(XSAVES64) : Z(XSAVES);
	case MN_XRSTORS: return insn->w ? Z(XRSTORS64) : Z(XRSTORS);
	case MN_FNENI: return Z(FENI8087_NOP);
	case MN_FNDISI: return Z(FDISI8087_NOP);
	case MN_FNSETPM: return Z(FSETPM287_NOP);
	case MN_PFRSQRT: return Z(PFSQRT);
	case MN_PFRCPIT1: return Z(PFCPIT1);
	default: return by_name[insn->mnemonic];
	}
}

static u8 gpr_number(ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE || ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_IP)
		return INSN_REG_NONE;
	return ZydisRegisterGetId(reg);
}

static const char *compare_register(const struct operand *op, const ZydisDecodedOperand *z)
{
	ZydisRegister reg = z->reg.value;
	unsigned int id = ZydisRegisterGetId(reg);
	unsigned int kind, size = op->size;

	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR8:
		kind = OPK_GPR;
		size = 1;
		if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) {
			kind = OPK_GPR_HI;
			id = reg - ZYDIS_REGISTER_AH;
		} else if (reg >= ZYDIS_REGISTER_SPL) {
			id = reg - ZYDIS_REGISTER_SPL + 4;
		} else {
			id = reg - ZYDIS_REGISTER_AL;
		}
		break;
	case ZYDIS_REGCLASS_GPR16: kind = OPK_GPR; size = 2; break;
	case ZYDIS_REGCLASS_GPR32: kind = OPK_GPR; size = 4; break;
	case ZYDIS_REGCLASS_GPR64: kind = OPK_GPR; size = 8; break;
	case ZYDIS_REGCLASS_X87: kind = OPK_ST; break;
	case ZYDIS_REGCLASS_MMX: kind = OPK_MMX; break;
	case ZYDIS_REGCLASS_XMM: kind = OPK_XMM; break;
	case ZYDIS_REGCLASS_YMM: kind = OPK_YMM; break;
	case ZYDIS_REGCLASS_ZMM: kind = OPK_ZMM; break;
	case ZYDIS_REGCLASS_TMM: kind = OPK_TMM; break;
	case ZYDIS_REGCLASS_SEGMENT: kind = OPK_SREG; id = reg - ZYDIS_REGISTER_ES; break;
	case ZYDIS_REGCLASS_CONTROL: kind = OPK_CREG; break;
	case ZYDIS_REGCLASS_DEBUG: kind = OPK_DREG; break;
	case ZYDIS_REGCLASS_MASK: kind = OPK_KREG; break;
	default: return "an unexpected kind of register";
	}
	if (op->kind != kind)
		return "operand kind";
	if (op->reg != id)
		return "register number";
	if (op->size != size)
		return "register size";
	return NULL;
}

static const char *compare_memory(const struct both *b, const ZydisDecodedOperand *z)
{
	const struct insn_mem *mem = &b->insn.mem;
	bool vsib = z->mem.type == ZYDIS_MEMOP_TYPE_VSIB;

	if (!b->insn.has_mem)
		return "memory operand";
	if (mem->base != gpr_number(z->mem.base))
		return "base";
	if (mem->rip_rel != (ZydisRegisterGetClass(z->mem.base) == ZYDIS_REGCLASS_IP))
		return "RIP-relative";
	if (!!mem->vsib != vsib)
		return "VSIB";
	if (mem->index != (vsib ? ZydisRegisterGetId(z->mem.index) : gpr_number(z->mem.index)))
		return "index";
	if (vsib && mem->vsib * 8 != ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, z->mem.index))
		return "index width";
	if (mem->scale != (z->mem.type == ZYDIS_MEMOP_TYPE_MIB ? mem->scale : z->mem.scale))
		return "scale";
	/* MOV moffs: an address, which Zydis sign-extends. */
	if (b->insn.has_modrm ? mem->disp != z->mem.disp.value
			      : (mem->disp ^ z->mem.disp.value) & (~0ull >> (64 - 8 * b->insn.addrsize)))
		return "displacement";
	/* Zydis drops the override where no access is made. */
	if (mem->seg != z->mem.segment - ZYDIS_REGISTER_ES && z->mem.type != ZYDIS_MEMOP_TYPE_AGEN)
		return "segment";
	if (mem->size && mem->size * 8 != z->size && !(b->insn.flags & INSN_F_NO_REAL_MEM))
		return "memory size";
	return NULL;
}

static const char *compare_immediate(const struct insn *insn, const struct operand *op,
				     const ZydisDecodedOperand *z)
{
	u64 value = op->reg ? insn->imm2 : insn->imm, mask;

	if (op->kind == OPK_ONE)
		return z->imm.value.u == 1 ? NULL : "constant 1";
	if (op->kind != (z->imm.is_relative ? OPK_REL : OPK_IMM))
		return "operand kind";
	mask = op->size >= 8 ? ~0ull : (1ull << op->size * 8) - 1;
	if (z->imm.is_relative)
		mask = ~0ull;
	return (value & mask) == (z->imm.value.u & mask) ? NULL : "immediate";
}

/* A string instruction's memory is implied: only element size and source segment are ours to tell. */
static const char *compare_string(const struct both *b)
{
	int i;

	for (i = 0; i < b->zinsn.operand_count; i++) {
		const ZydisDecodedOperand *z = &b->zop[i];

		if (z->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (z->size != b->insn.opsize * 8)
			return "string element size";
		if (gpr_number(z->mem.base) == GPR_RSI &&
		    b->insn.mem.seg != z->mem.segment - ZYDIS_REGISTER_ES)
			return "string source segment";
	}
	return NULL;
}

/* An operand that we list because the manuals' syntax shows it, and Zydis hides: ST(0), XMM0. */
static bool hidden_by_zydis(const struct both *b, const struct operand *op)
{
	ZydisRegister reg;
	int i;

	if (op->reg || (op->kind != OPK_ST && op->kind != OPK_XMM))
		return false;
	reg = op->kind == OPK_ST ? ZYDIS_REGISTER_ST0 : ZYDIS_REGISTER_XMM0;
	for (i = b->zinsn.operand_count_visible; i < b->zinsn.operand_count; i++)
		if (b->zop[i].type == ZYDIS_OPERAND_TYPE_REGISTER && b->zop[i].reg.value == reg)
			return true;
	return false;
}

static const char *compare_operands(const struct both *b)
{
	const struct insn *insn = &b->insn;
	unsigned int i, n = 0;

	if (insn->flags & INSN_F_STRING)
		return compare_string(b);
	for (i = 0; i < b->zinsn.operand_count_visible; i++) {
		const ZydisDecodedOperand *z = &b->zop[i];
		const struct operand *op = &insn->op[n];
		const char *why = NULL;
		unsigned int access = 0;

		if (z->encoding == ZYDIS_OPERAND_ENCODING_MASK) {
			if (ZydisRegisterGetId(z->reg.value) != insn->aaa)
				return "mask register";
			continue;
		}
		/* VMLOAD rAX and the like: implied for us. */
		if (!insn->nops && z->visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT)
			continue;
		if (insn->nops > b->zinsn.operand_count_visible && n == 0 &&
		    op->kind == OPK_ST && hidden_by_zydis(b, op)) {
			n++;
			op++;
		}
		if (n >= insn->nops)
			return "fewer operands than Zydis";
		switch (z->type) {
		case ZYDIS_OPERAND_TYPE_REGISTER:
			why = compare_register(op, z);
			break;
		case ZYDIS_OPERAND_TYPE_MEMORY:
			why = op->kind == OPK_MEM ? compare_memory(b, z) : "operand kind";
			break;
		case ZYDIS_OPERAND_TYPE_POINTER:
			if (op->kind != OPK_FAR)
				why = "operand kind";
			else if ((u16)insn->imm2 != z->ptr.segment ||
				 ((u32)insn->imm & (insn->opsize == 2 ? 0xffff : ~0u)) != z->ptr.offset)
				why = "far pointer";
			break;
		default:
			why = compare_immediate(insn, op, z);
		}
		if (why)
			return why;
		if (z->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			access |= OPA_READ;
		if (z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			access |= OPA_WRITE;
		if (z->type == ZYDIS_OPERAND_TYPE_MEMORY && z->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			access = 0;
		if (op->kind == OPK_MEM && (insn->flags & INSN_F_NO_REAL_MEM))
			access = op->access;
		/* A register written on a condition keeps its value otherwise: we call that read as well. */
		if (op->kind != OPK_MEM && (z->actions & ZYDIS_OPERAND_ACTION_CONDWRITE))
			access |= op->access & OPA_READ;
		if (op->access != access)
			return op->kind == OPK_MEM ? "memory access" : "register access";
		n++;
	}
	if (n + 1 == insn->nops && hidden_by_zydis(b, &insn->op[n]))
		n++;
	return n == insn->nops ? NULL : "more operands than Zydis";
}

static const char *compare_layout(const struct both *b)
{
	const struct insn *insn = &b->insn;
	const ZydisDecodedInstructionRaw *raw = &b->zinsn.raw;

	if (insn->has_modrm != !!(b->zinsn.attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return "presence of ModRM";
	if (insn->has_modrm && insn->modrm_off != raw->modrm.offset)
		return "offset of ModRM";
	if (insn->has_sib != !!(b->zinsn.attributes & ZYDIS_ATTRIB_HAS_SIB))
		return "presence of SIB";
	if (insn->has_sib && insn->sib_off != raw->sib.offset)
		return "offset of SIB";
	if (insn->disp_size * 8 != raw->disp.size)
		return "size of the displacement";
	if (insn->disp_size && insn->disp_off != raw->disp.offset)
		return "offset of the displacement";
	if (insn->encoding != INSN_ENC_3DNOW && insn->imm_size * 8 != raw->imm[0].size + raw->imm[1].size)
		return "size of the immediates";
	if (insn->imm_size && insn->imm_off != raw->imm[0].offset)
		return "offset of the immediate";
	return NULL;
}

static const char *compare_prefixes(const struct both *b)
{
	const struct insn *insn = &b->insn;
	u64 attr = b->zinsn.attributes;

	if (insn->lock != !!(attr & ZYDIS_ATTRIB_HAS_LOCK))
		return "lock";
	if (insn->encoding == INSN_ENC_LEGACY && insn->has_rex != !!(attr & ZYDIS_ATTRIB_HAS_REX))
		return "rex";
	if (insn->flags & INSN_F_STRING) {
		bool rep = attr & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE);

		if ((insn->rep == INSN_REP_E) != rep ||
		    (insn->rep == INSN_REP_NE) != !!(attr & ZYDIS_ATTRIB_HAS_REPNE))
			return "rep";
	}
	if (insn->encoding == INSN_ENC_EVEX) {
		static const u8 rounding[] = { [ZYDIS_ROUNDING_MODE_INVALID] = 0,
					       [ZYDIS_ROUNDING_MODE_RN] = 4,
					       [ZYDIS_ROUNDING_MODE_RD] = 5,
					       [ZYDIS_ROUNDING_MODE_RU] = 6,
					       [ZYDIS_ROUNDING_MODE_RZ] = 7 };

		if (insn->sae != b->zinsn.avx.has_sae)
			return "sae";
		if (insn->round != rounding[b->zinsn.avx.rounding.mode])
			return "rounding";
		/* For a mask as the destination Zydis always speaks of zeroing, which it is. */
		if (insn->op[0].kind == OPK_KREG)
			return NULL;
		if (insn->z != (b->zinsn.avx.mask.mode == ZYDIS_MASK_MODE_ZEROING ||
				b->zinsn.avx.mask.mode == ZYDIS_MASK_MODE_CONTROL_ZEROING))
			return "zeroing";
	}
	return NULL;
}

static const char *compare(const struct both *b)
{
	static const u8 encodings[] = { [ZYDIS_INSTRUCTION_ENCODING_LEGACY] = INSN_ENC_LEGACY,
					[ZYDIS_INSTRUCTION_ENCODING_3DNOW] = INSN_ENC_3DNOW,
					[ZYDIS_INSTRUCTION_ENCODING_XOP] = INSN_ENC_XOP,
					[ZYDIS_INSTRUCTION_ENCODING_VEX] = INSN_ENC_VEX,
					[ZYDIS_INSTRUCTION_ENCODING_EVEX] = INSN_ENC_EVEX,
					[ZYDIS_INSTRUCTION_ENCODING_MVEX] = 0xff };
	const struct insn *insn = &b->insn;
	const char *why;

	if (b->err && !ZYAN_SUCCESS(b->status))
		return NULL;
	if (b->err)
		return "valid for Zydis, not for us";
	if (!ZYAN_SUCCESS(b->status))
		return "valid for us, not for Zydis";
	if (insn->encoding != encodings[b->zinsn.encoding])
		return "encoding";
	if (expected_mnemonic(insn) != b->zinsn.mnemonic)
		return "mnemonic";
	if (insn->len != b->zinsn.length)
		return "length";
	if (insn->opcode != b->zinsn.opcode)
		return "opcode";
	if (insn->addrsize * 8 != b->zinsn.address_width)
		return "address size";
	why = compare_prefixes(b);
	if (!why)
		why = compare_layout(b);
	if (!why)
		why = compare_operands(b);
	return why;
}

#include "tests/decoder/exceptions.h"

static void decode_both(struct both *b, const u8 *bytes, enum insn_mode mode)
{
	b->mode = mode;
	b->bytes = bytes;
	b->err = insn_decode(&b->insn, bytes, COMPARE_BYTES, mode);
	b->status = ZydisDecoderDecodeFull(&decoders[mode], bytes, COMPARE_BYTES, &b->zinsn, b->zop);
}

const char *zydis_compare(const u8 *bytes, enum insn_mode mode, bool *valid, const char **excused)
{
	struct both b;
	const char *why;
	size_t i;

	decode_both(&b, bytes, mode);
	*valid = !b.err || ZYAN_SUCCESS(b.status);
	why = compare(&b);
	if (!why)
		return NULL;
	for (i = 0; i < ARRAY_SIZE(exceptions); i++) {
		if (exceptions[i].applies(&b, why)) {
			*excused = exceptions[i].reason;
			return NULL;
		}
	}
	return why;
}

void zydis_print(const u8 *bytes, enum insn_mode mode)
{
	static const char *const kinds[] = { "none", "gpr", "gprhi", "mem", "imm", "rel", "far", "cr", "dr",
					     "sreg", "st", "mmx", "xmm", "ymm", "zmm", "k", "tmm",
					     "one" };
	struct both b;
	char text[128] = "";
	ZydisFormatter formatter;
	int i;

	decode_both(&b, bytes, mode);
	if (b.err) {
		tap_diag("  ours:  error %d", b.err);
	} else {
		char ops[256] = "";
		int n = 0;

		for (i = 0; i < b.insn.nops; i++) {
			const struct operand *op = &b.insn.op[i];

			n += snprintf(ops + n, sizeof(ops) - n, " %s%u:%u:%s%s", kinds[op->kind], op->reg,
				      op->size, op->access & OPA_READ ? "r" : "",
				      op->access & OPA_WRITE ? "w" : "");
		}
		tap_diag("  ours:  %s len %u opsize %u%s | base %d index %d*%u disp %lld seg %u size %u",
			 mnemonic_name(b.insn.mnemonic), b.insn.len, b.insn.opsize, ops,
			 (s8)b.insn.mem.base, (s8)b.insn.mem.index, b.insn.mem.scale,
			 (long long)b.insn.mem.disp, b.insn.mem.seg, b.insn.mem.size);
	}
	if (!ZYAN_SUCCESS(b.status)) {
		tap_diag("  Zydis: error %08x", (unsigned int)b.status);
	} else {
		char ops[256] = "";
		int n = 0;

		ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
		ZydisFormatterFormatInstruction(&formatter, &b.zinsn, b.zop, b.zinsn.operand_count_visible,
						text, sizeof(text), 0, NULL);
		for (i = 0; i < b.zinsn.operand_count_visible; i++)
			n += snprintf(ops + n, sizeof(ops) - n, " %u:%s%s", b.zop[i].size / 8,
				      b.zop[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ ? "r" : "",
				      b.zop[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? "w" : "");
		tap_diag("  Zydis: %s len %u |%s", text, b.zinsn.length, ops);
	}
}
