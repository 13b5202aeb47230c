/*
 * Instructions as text, from what the decoder says of them: Intel's syntax, with the names of sizes and conditions in the
 * mnemonic. Integer code only: it runs while the guest's vector registers are loaded.
 */
#include "engines/lite/log.h"

/* ---- text ------------------------------------------------------------------------------------------------------ */

struct text {
	char *at, *end; /* *end is for the zero */
};

static void put_char(struct text *t, char c)
{
	if (t->at < t->end)
		*t->at++ = c;
}

static void put(struct text *t, const char *s)
{
	while (*s)
		put_char(t, *s++);
}

static void put_lower(struct text *t, const char *s)
{
	for (; *s; s++)
		put_char(t, *s >= 'A' && *s <= 'Z' ? *s + 32 : *s);
}

static void put_number(struct text *t, unsigned n)
{
	if (n >= 10)
		put_number(t, n / 10);
	put_char(t, '0' + n % 10);
}

static void put_digits(struct text *t, u64 v, unsigned digits)
{
	put(t, "0x");
	while (digits--)
		put_char(t, "0123456789abcdef"[v >> digits * 4 & 15]);
}

static void put_hex(struct text *t, u64 v)
{
	unsigned digits = 1;

	while (digits < 16 && v >> digits * 4)
		digits++;
	put_digits(t, v, digits);
}

static u64 cut(u64 v, unsigned bytes)
{
	return bytes && bytes < 8 ? v & (BIT64(bytes * 8) - 1) : v;
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static const char *const conditions[16] = { "o", "no", "b", "nb", "z",	"nz", "be", "nbe",
					    "s", "ns", "p", "np", "l", "nl", "le", "nle" };
static const char *const fcmov[16] = { [2] = "b", [3] = "nb", [4] = "e", [5] = "ne", [6] = "be", [7] = "nbe", [10] = "u", [11] = "nu" };
static const char *const segments[] = { [SEG_ES] = "es", [SEG_CS] = "cs", [SEG_SS] = "ss",
					[SEG_DS] = "ds", [SEG_FS] = "fs", [SEG_GS] = "gs" };

static void put_segment(struct text *t, unsigned seg)
{
	put(t, seg < ARRAY_SIZE(segments) && segments[seg] ? segments[seg] : "?s");
}

static void put_gpr(struct text *t, unsigned reg, unsigned size)
{
	static const char *const names[] = { "ax", "cx", "dx", "bx", "sp", "bp", "si", "di" };

	if (reg >= 8) {
		put_char(t, 'r');
		put_number(t, reg);
		put(t, size == 1 ? "b" : size == 2 ? "w" : size == 4 ? "d" : "");
		return;
	}
	if (size == 1 && reg < 4) {
		put_char(t, names[reg][0]);
		put_char(t, 'l');
		return;
	}
	if (size >= 4)
		put_char(t, size == 4 ? 'e' : 'r');
	put(t, names[reg]);
	if (size == 1)
		put_char(t, 'l');
}

/* One letter for the size, as in MOVSB. */
static void put_sized(struct text *t, const char *stem, unsigned size)
{
	put(t, stem);
	put_char(t, size == 1 ? 'b' : size == 2 ? 'w' : size == 4 ? 'd' : 'q');
}

/* PUSHF, IRET and kin name only the sizes that came later. */
static void put_later(struct text *t, const char *stem, unsigned size)
{
	put(t, stem);
	put(t, size == 2 ? "" : size == 4 ? "d" : "q");
}

static void put_mnemonic(struct text *t, const struct insn *insn)
{
	unsigned size = insn->opsize;

	switch (insn->mnemonic) {
	case MN_JCC: put_char(t, 'j'); put(t, conditions[insn->cond & 15]); return;
	case MN_SETCC: put(t, "set"); put(t, conditions[insn->cond & 15]); return;
	case MN_CMOVCC: put(t, "cmov"); put(t, conditions[insn->cond & 15]); return;
	case MN_FCMOVCC: put(t, "fcmov"); put(t, fcmov[insn->cond & 15] ? fcmov[insn->cond & 15] : "?"); return;
	case MN_MOVS: put_sized(t, "movs", size); return;
	case MN_CMPS: put_sized(t, "cmps", size); return;
	case MN_STOS: put_sized(t, "stos", size); return;
	case MN_LODS: put_sized(t, "lods", size); return;
	case MN_SCAS: put_sized(t, "scas", size); return;
	case MN_INS: put_sized(t, "ins", size); return;
	case MN_OUTS: put_sized(t, "outs", size); return;
	case MN_PUSHF: put_later(t, "pushf", size); return;
	case MN_POPF: put_later(t, "popf", size); return;
	case MN_PUSHA: put_later(t, "pusha", size); return;
	case MN_POPA: put_later(t, "popa", size); return;
	case MN_IRET: put_later(t, "iret", size); return;
	case MN_CBW: put(t, size == 2 ? "cbw" : size == 4 ? "cwde" : "cdqe"); return;
	case MN_CWD: put(t, size == 2 ? "cwd" : size == 4 ? "cdq" : "cqo"); return;
	case MN_JCXZ: put(t, insn->addrsize == 2 ? "jcxz" : insn->addrsize == 4 ? "jecxz" : "jrcxz"); return;
	case MN_CALL_NEAR: put(t, "call"); return;
	case MN_CALL_FAR: put(t, "call far"); return;
	case MN_JMP_NEAR: put(t, "jmp"); return;
	case MN_JMP_FAR: put(t, "jmp far"); return;
	case MN_RET_NEAR: put(t, "ret"); return;
	case MN_RET_FAR: put(t, "ret far"); return;
	case MN_MOV_SREG:
	case MN_MOV_CR:
	case MN_MOV_DR: put(t, "mov"); return;
	case MN_PUSH_SREG: put(t, "push"); return;
	case MN_POP_SREG: put(t, "pop"); return;
	default: put_lower(t, mnemonic_name(insn->mnemonic));
	}
	switch (insn->mnemonic) {
	case MN_RDSSP: case MN_INCSSP: case MN_WRSS: case MN_WRUSS:
		put_char(t, insn->w ? 'q' : 'd');
		return;
	case MN_FXSAVE: case MN_FXRSTOR: case MN_XSAVE: case MN_XRSTOR: case MN_XSAVEOPT: case MN_XSAVEC: case MN_XSAVES:
	case MN_XRSTORS:
		put(t, insn->w ? "64" : "");
		return;
	}
}

static void put_prefixes(struct text *t, const struct insn *insn)
{
	if (insn->lock)
		put(t, "lock ");
	if (!(insn->flags & INSN_F_STRING))
		return;
	if (insn->rep == INSN_REP_NE)
		put(t, "repne ");
	else if (insn->rep == INSN_REP_E)
		put(t, insn->mnemonic == MN_CMPS || insn->mnemonic == MN_SCAS ? "repe " : "rep ");
	if (insn->seg_override != INSN_SEG_NONE) {
		put_segment(t, insn->seg_override);
		put_char(t, ' ');
	}
}

/* ---- operands -------------------------------------------------------------------------------------------------- */

static void put_memory(struct text *t, const struct insn *insn, const struct insn_mem *mem)
{
	const char *size = NULL;
	bool has_register = true;

	switch (mem->size) {
	case 1: size = "byte"; break;
	case 2: size = "word"; break;
	case 4: size = "dword"; break;
	case 6: size = "fword"; break;
	case 8: size = "qword"; break;
	case 10: size = "tbyte"; break;
	case 16: size = "xmmword"; break;
	case 32: size = "ymmword"; break;
	case 64: size = "zmmword"; break;
	}
	if (size) {
		put(t, size);
		put(t, " ptr ");
	}
	if (insn->seg_override != INSN_SEG_NONE && insn->mnemonic != MN_LEA) {
		put_segment(t, mem->seg);
		put_char(t, ':');
	}
	put_char(t, '[');
	if (mem->rip_rel)
		put(t, insn->addrsize == 4 ? "eip" : "rip");
	else if (mem->base != INSN_REG_NONE)
		put_gpr(t, mem->base, insn->addrsize);
	else
		has_register = false;
	if (mem->index != INSN_REG_NONE) {
		if (has_register)
			put_char(t, '+');
		has_register = true;
		if (mem->vsib) {
			put(t, mem->vsib == 16 ? "xmm" : mem->vsib == 32 ? "ymm" : "zmm");
			put_number(t, mem->index);
		} else {
			put_gpr(t, mem->index, insn->addrsize);
		}
		if (mem->scale > 1) {
			put_char(t, '*');
			put_number(t, mem->scale);
		}
	}
	if (!has_register) {
		put_hex(t, cut((u64)mem->disp, insn->addrsize));
	} else if (mem->disp) {
		put_char(t, mem->disp < 0 ? '-' : '+');
		put_hex(t, mem->disp < 0 ? -(u64)mem->disp : (u64)mem->disp);
	}
	put_char(t, ']');
	if (mem->bcast) {
		put(t, " {1to");
		put_number(t, mem->bcast);
		put_char(t, '}');
	}
}

static void put_numbered(struct text *t, const char *stem, unsigned number)
{
	put(t, stem);
	put_number(t, number);
}

static void put_operand(struct text *t, const struct insn *insn, const struct operand *op, u64 va)
{
	switch (op->kind) {
	case OPK_GPR: put_gpr(t, op->reg, op->size); break;
	case OPK_GPR_HI:
		put_char(t, "acdb"[op->reg & 3]);
		put_char(t, 'h');
		break;
	case OPK_MEM: put_memory(t, insn, &insn->mem); break;
	case OPK_IMM: put_hex(t, cut(op->reg ? insn->imm2 : insn->imm, op->size)); break;
	case OPK_REL: put_hex(t, cut(va + insn->len + insn->imm, insn->mode == MODE_64 ? 8 : insn->opsize)); break;
	case OPK_FAR:
		put_digits(t, insn->imm2, 4);
		put_char(t, ':');
		put_digits(t, insn->imm, insn->opsize * 2);
		break;
	case OPK_CREG: put_numbered(t, "cr", op->reg); break;
	case OPK_DREG: put_numbered(t, "dr", op->reg); break;
	case OPK_SREG: put_segment(t, op->reg); break;
	case OPK_ST: put_numbered(t, "st", op->reg); break;
	case OPK_MMX: put_numbered(t, "mm", op->reg); break;
	case OPK_XMM: put_numbered(t, "xmm", op->reg); break;
	case OPK_YMM: put_numbered(t, "ymm", op->reg); break;
	case OPK_ZMM: put_numbered(t, "zmm", op->reg); break;
	case OPK_KREG: put_numbered(t, "k", op->reg); break;
	case OPK_TMM: put_numbered(t, "tmm", op->reg); break;
	case OPK_ONE: put(t, "0x1"); break;
	default: put_char(t, '?');
	}
}

/* EVEX.b on registers; insn->round or insn->sae. */
static void put_rounding(struct text *t, const struct insn *insn)
{
	static const char *const names[] = { "rn", "rd", "ru", "rz" };

	if (insn->round) {
		put(t, "{");
		put(t, names[insn->round & 3]);
		put(t, "-sae}");
	} else {
		put(t, "{sae}");
	}
}

size_t lite_disasm(const struct insn *insn, u64 va, char *buf, size_t size)
{
	struct text t = { buf, buf + size - 1 };
	bool rounding = insn->round | insn->sae; /* stands before an immediate */

	if (!size)
		return 0;
	put_prefixes(&t, insn);
	put_mnemonic(&t, insn);
	for (unsigned i = 0; i < insn->nops; i++) {
		put(&t, i ? ", " : " ");
		if (rounding && i && insn->op[i].kind == OPK_IMM) {
			put_rounding(&t, insn);
			put(&t, ", ");
			rounding = false;
		}
		put_operand(&t, insn, &insn->op[i], va);
		if (!i && insn->aaa) {
			put(&t, " {");
			put_numbered(&t, "k", insn->aaa);
			put_char(&t, '}');
			if (insn->z)
				put(&t, " {z}");
		}
	}
	if (rounding) {
		put(&t, ", ");
		put_rounding(&t, insn);
	}
	if (insn->has_mem && insn->mem.rip_rel) {
		put(&t, " # ");
		put_hex(&t, cut(va + insn->len + (u64)insn->mem.disp, insn->addrsize));
	}
	*t.at = 0;
	return (size_t)(t.at - buf);
}

/* ---- lines of the log ------------------------------------------------------------------------------------------ */

static void log_line(u64 va, const u8 *bytes, unsigned len, const char *text)
{
	char hex[INSN_MAX_LEN * 3 + 1];
	unsigned n = 0;

	for (unsigned i = 0; i < len; i++) {
		hex[n++] = "0123456789abcdef"[bytes[i] >> 4];
		hex[n++] = "0123456789abcdef"[bytes[i] & 15];
		hex[n++] = ' ';
	}
	hex[n] = 0;
	lite_log("0x%08llx:  %-30s %s\n", (unsigned long long)va, hex, text);
}

void lite_log_insn(const struct insn *insn, u64 va)
{
	char text[160];

	lite_disasm(insn, va, text, sizeof(text));
	log_line(va, insn->bytes, insn->len, text);
}

void lite_log_code(const u8 *code, size_t len, u64 va, enum insn_mode mode)
{
	struct insn insn;

	while (len) {
		unsigned n = 1;

		if (insn_decode(&insn, code, len < INSN_MAX_LEN ? (unsigned)len : INSN_MAX_LEN, mode) == INSN_OK) {
			n = insn.len;
			lite_log_insn(&insn, va);
		} else {
			log_line(va, code, n, ".byte");
		}
		code += n;
		va += n;
		len -= n;
	}
}
