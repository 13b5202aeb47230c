/* What Zydis says of instructions: see recode.h. Strings that the two decoders read differently (tests/decoder) are left out. */
#include <Zydis/Zydis.h>

#include "tests/decoder/zydis.h"
#include "tests/lite/recode.h"

static ZydisDecoder decoders[3];

struct second {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

void second_init(void)
{
	zydis_init();
	ZydisDecoderInit(&decoders[MODE_16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	ZydisDecoderInit(&decoders[MODE_32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	ZydisDecoderInit(&decoders[MODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (int i = 0; i < 3; i++) {
		ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_TRUE);
		ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	}
}

const char *second_decode(const u8 *code)
{
	const char *excused = NULL, *why;
	bool valid;

	why = zydis_compare(code, MODE_64, &valid, &excused);
	return why ? why : valid ? NULL : "undefined for both";
}

static bool decode(const u8 *code, enum insn_mode mode, struct second *z)
{
	const char *excused = NULL;
	bool valid;

	if (zydis_compare(code, mode, &valid, &excused) || excused || !valid)
		return false;
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[mode], code, COMPARE_BYTES, &z->insn, z->op));
}

/* The number of a general register, AH to BH by the one that it is in. -1: none. */
static int gpr(ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
		return reg - ZYDIS_REGISTER_AH;
	if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
		return reg - ZYDIS_REGISTER_AL;
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR8:
		return reg - ZYDIS_REGISTER_SPL + 4;
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return ZydisRegisterGetId(reg);
	default:
		return -1;
	}
}

const char *second_fields(const u8 *code, const struct insn *insn, const struct lite_fields *f)
{
	u8 reg = LITE_NO_REG, rm = LITE_NO_REG, vvvv = LITE_NO_REG, low = LITE_NO_REG;
	bool hi = false;
	struct second z;

	if (insn->mnemonic == MN_NOP || !decode(code, insn->mode, &z))
		return NULL;
	for (unsigned i = 0; i < z.insn.operand_count_visible; i++) {
		ZydisDecodedOperand *op = &z.op[i];
		int n = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr(op->reg.value) : -1;

		if (n < 0)
			continue;
		switch (op->encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG:
			reg = n;
			break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM:
			rm = n;
			break;
		case ZYDIS_OPERAND_ENCODING_NDSNDD:
			vvvv = n;
			break;
		case ZYDIS_OPERAND_ENCODING_OPCODE:
			low = n;
			break;
		default:
			continue;
		}
		hi |= op->reg.value >= ZYDIS_REGISTER_AH && op->reg.value <= ZYDIS_REGISTER_BH;
	}
	if (insn->map == INSN_MAP_1BYTE && insn->encoding == INSN_ENC_LEGACY && (insn->opcode & 0xf0) == 0x40) {
		rm = low;
		low = LITE_NO_REG;
	} else if (insn->map == INSN_MAP_1BYTE && insn->encoding == INSN_ENC_LEGACY && (insn->opcode & 0xfc) == 0xa0) {
		reg = GPR_RAX;
	}
	if (f->reg != reg)
		return "ModRM.reg";
	if (f->rm != rm)
		return "ModRM.rm";
	if (f->vvvv != vvvv)
		return "VEX.vvvv";
	if (f->low != low)
		return "the opcode's low bits";
	return f->hi_byte == hi ? NULL : "AH to BH";
}

/* ---- uses ---------------------------------------------------------------------------------------------------------- */

static u8 flag_set(u32 eflags)
{
	return (eflags & ZYDIS_CPUFLAG_CF ? LITE_CF : 0) | (eflags & ZYDIS_CPUFLAG_PF ? LITE_PF : 0) |
	       (eflags & ZYDIS_CPUFLAG_AF ? LITE_AF : 0) | (eflags & ZYDIS_CPUFLAG_ZF ? LITE_ZF : 0) |
	       (eflags & ZYDIS_CPUFLAG_SF ? LITE_SF : 0) | (eflags & ZYDIS_CPUFLAG_OF ? LITE_OF : 0);
}

static void registers(const struct second *z, u16 *read, u16 *write)
{
	for (unsigned i = 0; i < z->insn.operand_count; i++) {
		const ZydisDecodedOperand *op = &z->op[i];
		int n;

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			n = gpr(op->mem.base);
			if (n >= 0)
				*read |= 1 << n;
			n = gpr(op->mem.index);
			if (n >= 0)
				*read |= 1 << n;
			continue;
		}
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		n = gpr(op->reg.value);
		if (n < 0)
			continue;
		if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			*read |= 1 << n;
		if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			*write |= 1 << n;
		/* What is left of the register counts as read. */
		if ((op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE) || ((op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && op->size < 32))
			*read |= 1 << n;
	}
}

/* A shift's flags by its count, where that is known, are ours alone: the processor has the last word (recode_use.c). */
static bool is_counted(const struct insn *insn)
{
	switch (insn->mnemonic) {
	case MN_ROL: case MN_ROR: case MN_RCL: case MN_RCR: case MN_SHL: case MN_SHR: case MN_SAR: case MN_SHLD: case MN_SHRD:
		return insn->op[insn->nops - 1].kind != OPK_GPR;
	}
	return false;
}

/* Whether operands decide which flags get a value. */
static bool is_conditional(const struct insn *insn)
{
	switch (insn->mnemonic) {
	case MN_ROL: case MN_ROR: case MN_RCL: case MN_RCR: case MN_SHL: case MN_SHR: case MN_SAR: case MN_SHLD: case MN_SHRD:
		return !is_counted(insn);
	case MN_MOV_CR: case MN_MOV_DR:
		return true;
	}
	return (insn->flags & INSN_F_STRING) && insn->rep;
}

/* Where Zydis 4.0 says less or more than the SDM does. */
static void correct(const struct insn *insn, u16 *write, u8 *tested, u8 *may, u8 *undef)
{
	switch (insn->mnemonic) {
	case MN_SCAS: case MN_INS:
		*tested = 0; /* with REP it tests the ZF that it sets itself */
		*write |= 1 << GPR_RDI;
		break;
	case MN_OUTS:
		*write |= 1 << GPR_RSI;
		break;
	case MN_CMPS:
		*tested = 0;
		*write |= 1 << GPR_RSI | 1 << GPR_RDI;
		break;
	case MN_SBB:
		*undef = 0;
		break;
	case MN_BEXTR:
		*undef &= ~(LITE_CF | LITE_OF);
		break;
	case MN_MOV_CR: case MN_MOV_DR:
		*may = *undef = LITE_FL_ALL;
		break;
	case MN_VPTEST: case MN_VTESTPS: case MN_VTESTPD:
		*may = LITE_FL_ALL;
		break;
	}
}

const char *second_use(const u8 *code, const struct insn *insn, const struct lite_use *use)
{
	const ZydisAccessedFlags *fl;
	u16 read = 0, write = 0;
	u8 tested = 0, may = 0, undef = 0;
	struct second z;

	if (insn->mnemonic == MN_NOP || use->read == 0xffff || !decode(code, insn->mode, &z))
		return NULL;
	registers(&z, &read, &write);
	fl = z.insn.cpu_flags;
	if (fl) {
		tested = flag_set(fl->tested);
		undef = flag_set(fl->undefined);
		may = flag_set(fl->modified | fl->set_0 | fl->set_1) | undef;
	}
	correct(insn, &write, &tested, &may, &undef);
	if (use->read & ~read)
		return "reads fewer registers";
	if (read & ~use->read)
		return "reads more registers";
	if (use->write & ~write)
		return "writes fewer registers";
	if (write & ~use->write)
		return "writes more registers";
	if (is_counted(insn))
		return use->fl_read & ~tested || use->fl_may & ~may ? "a shift's flags" : NULL;
	if (use->fl_read != tested)
		return "tests other flags";
	if (use->fl_may & ~may)
		return "changes fewer flags";
	if (may & ~use->fl_may)
		return "changes more flags";
	if (use->fl_write != (is_conditional(insn) ? 0 : may))
		return "certainly writes other flags";
	if (undef & ~use->fl_undef)
		return "leaves more flags undefined";
	return NULL;
}
