/*
 * lite_disasm() against Zydis's formatter, on instructions at random in the three modes.
 *
 *	test-lite-disasm-zydis [strings [seed]]
 *
 * Compared are strings that both decoders take for the same instruction (tests/decoder holds that they do). From both texts are taken
 * away: blanks, what follows '#', the sizes of memory operands ("dword ptr"), "short", "near" and "far", and of Zydis's prefixes
 * those that only hint (bnd, notrack, xacquire, xrelease). What is left, mnemonic, registers, every part of the
 * memory operand, immediates, targets and the EVEX decorations, has to be the same to the letter, but for what known_difference() names.
 */
#include <stdlib.h>
#include <string.h>
#include <Zydis/Zydis.h>

#include "engines/lite/log.h"
#include "tests/decoder/zydis.h"
#include "tests/tap.h"

#define VA 0x12345000ULL
#define SHOWN 12

static u64 next_random(u64 *state)
{
	u64 x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Prefixes now and then, an opcode of any map, and operands. */
static void make_string(u64 *state, u8 *bytes, enum insn_mode mode)
{
	static const u8 prefixes[] = { 0x66, 0xf2, 0xf3, 0x67, 0xf0, 0x2e, 0x64, 0x65, 0x36, 0x48, 0x41, 0x44, 0x4f };
	u64 a = next_random(state), b = next_random(state), r = next_random(state);
	unsigned n = 0;

	memcpy(bytes, &a, 8);
	memcpy(bytes + 8, &b, 8);
	while (!(r & 3) && n < 4) {
		bytes[n++] = prefixes[(r >> 2) % ARRAY_SIZE(prefixes)];
		r = next_random(state);
	}
	switch (r >> 8 & 7) {
	case 0:
	case 1: break;
	case 2:
	case 3: bytes[n] = 0x0f; break;
	case 4:
		bytes[n++] = 0x0f;
		bytes[n] = r >> 16 & 1 ? 0x38 : 0x3a;
		break;
	case 5: /* EVEX */
		bytes[0] = 0x62;
		bytes[1] = (bytes[1] & 0xf0) | (1 + (r >> 16) % 3) | (mode != MODE_64 ? 0xc0 : 0);
		bytes[2] |= 4 | (r >> 24 & 1 ? 0x78 : 0);
		bytes[3] |= 8;
		break;
	case 6: /* VEX */
		bytes[0] = 0xc4;
		bytes[1] = (bytes[1] & 0xe0) | (1 + (r >> 16) % 3) | (mode != MODE_64 ? 0xc0 : 0);
		bytes[2] |= r >> 24 & 1 ? 0x78 : 0;
		break;
	default: /* XOP or x87 */
		if (r >> 16 & 1) {
			bytes[0] = 0x8f;
			bytes[1] = (bytes[1] & 0xe0) | (8 + (r >> 20) % 3) | (mode != MODE_64 ? 0xc0 : 0);
			bytes[2] &= ~3;
		} else {
			bytes[n] = 0xd8 | (r >> 20 & 7);
		}
	}
}

static void drop(char *text, const char *word)
{
	size_t n = strlen(word);

	for (char *p = text; (p = strstr(p, word));) {
		if (p == text || p[-1] == ' ' || p[-1] == ',')
			memmove(p, p + n, strlen(p + n) + 1);
		else
			p += n;
	}
}

static void normalize(char *text)
{
	static const char *const words[] = { "byte ptr ",  "word ptr ",	   "dword ptr ",   "fword ptr ",   "qword ptr ", "tbyte ptr ",
					     "xmmword ptr ", "ymmword ptr ", "zmmword ptr ", "short ",	   "near ",	 "bnd ",
					     "notrack ",     "xacquire ",    "xrelease " };
	char *to = text;

	if (strchr(text, '#'))
		*strchr(text, '#') = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		drop(text, words[i]);
	for (char *p = text; *p; p++)
		if (*p != ' ' && !(*p == ',' && p[2] == '{')) /* the rounding has its comma in ours only */
			*to++ = *p;
	*to = 0;
	for (to = text; (to = strstr(to, "*1"));) {
		if (strchr("+-]", to[2]))
			memmove(to, to + 2, strlen(to + 2) + 1);
		else
			to++;
	}
}

/* Takes the first @what out of @text. */
static void take_out(char *text, const char *what)
{
	char *p = strstr(text, what);

	if (p)
		memmove(p, p + strlen(what), strlen(p + strlen(what)) + 1);
}

/* Before blanks go: what the two show differently by design. */
static void reconcile(const struct insn *insn, unsigned visible, char *ours, char *theirs)
{
	/* The same by another name. */
	static const char *const names[][2] = { { "feni8087_nop", "fneni" },  { "fdisi8087_nop", "fndisi" }, { "fsetpm287_nop", "fnsetpm" },
						{ "pfsqrt", "pfrsqrt" }, { "pfcpit1", "pfrcpit1" } };
	unsigned mask = insn->aaa != 0, last = insn->nops ? insn->nops - 1 : 0;
	char *target;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		size_t n = strlen(names[i][0]);

		if (!strncmp(theirs, names[i][0], n) && (theirs[n] == ' ' || !theirs[n])) {
			take_out(theirs, names[i][0]);
			memmove(theirs + strlen(names[i][1]), theirs, strlen(theirs) + 1);
			memcpy(theirs, names[i][1], strlen(names[i][1]));
			break;
		}
	}
	/* VMRUN rAX and the like: implied, for us. */
	if (!insn->nops && visible && strchr(theirs, ' '))
		*strchr(theirs, ' ') = 0;

	/* Zydis hides ST(0) and XMM0 where the opcode implies them, the manuals show them. */
	if (insn->nops + mask > visible) {
		if (insn->op[last].kind == OPK_XMM && !insn->op[last].reg)
			take_out(ours, ", xmm0");
		else if (insn->op[0].kind == OPK_ST && !insn->op[0].reg)
			take_out(ours, insn->nops == 1 ? " st0" : "st0, ");
	}
	/* and the segment of a string instruction's source. */
	if ((insn->flags & INSN_F_STRING) && insn->seg_override != INSN_SEG_NONE) {
		static const char *const segments[] = { "es ", "cs ", "ss ", "ds ", "fs ", "gs " };

		take_out(ours, segments[insn->seg_override]);
	}
	/* 3E is a hint to an indirect branch, or an override that changes nothing. */
	if (strstr(theirs, "notrack "))
		take_out(ours, "ds:");
	/* Zydis prints 16 bits of BEXTR's 32 in 16-bit code. */
	if (insn->mode == MODE_16 && insn->encoding == INSN_ENC_XOP && insn->imm_size == 4 && strrchr(ours, 'x'))
		sprintf(strrchr(ours, 'x'), "x%llx", (unsigned long long)(u16)insn->imm);
	/* Zydis does not cut a branch's target to EIP or IP. */
	if (insn->nops && insn->op[last].kind == OPK_REL && insn->mode != MODE_64 && (target = strstr(theirs, "0x"))) {
		u64 va = strtoull(target, NULL, 16);

		sprintf(target, "0x%llx", (unsigned long long)(insn->opsize == 2 ? (u16)va : (u32)va));
	}
}

static void compare_mode(enum insn_mode mode, u64 strings, u64 seed)
{
	static const char *const names[] = { "16-bit", "32-bit", "64-bit" };
	static const ZydisMachineMode machine[] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32,
						    ZYDIS_MACHINE_MODE_LONG_64 };
	static const ZydisStackWidth stack[] = { ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32, ZYDIS_STACK_WIDTH_64 };
	u64 compared = 0, different = 0;
	ZydisFormatter formatter;
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder, machine[mode], stack[mode]);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_TRUE);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE, ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_DISP_PADDING, ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_IMM_PADDING, ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_IMM_SIGNEDNESS, ZYDIS_SIGNEDNESS_UNSIGNED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_FORCE_RELATIVE_RIPREL, ZYAN_TRUE);

	for (u64 i = 0; i < strings; i++) {
		ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction zinsn;
		const char *excused = NULL;
		char ours[256], theirs[256], raw[2][256];
		u8 bytes[COMPARE_BYTES];
		struct insn insn;
		bool valid;

		make_string(&seed, bytes, mode);
		if (zydis_compare(bytes, mode, &valid, &excused) || !valid || excused ||
		    insn_decode(&insn, bytes, INSN_MAX_LEN, mode) ||
		    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, sizeof(bytes), &zinsn, ops)))
			continue;
		compared++;
		lite_disasm(&insn, VA, ours, sizeof(ours));
		ZydisFormatterFormatInstruction(&formatter, &zinsn, ops, zinsn.operand_count_visible, theirs, sizeof(theirs), VA, NULL);
		strcpy(raw[0], ours);
		strcpy(raw[1], theirs);
		reconcile(&insn, zinsn.operand_count_visible, ours, theirs);
		normalize(ours);
		normalize(theirs);
		if (!strcmp(ours, theirs))
			continue;
		if (different++ < SHOWN)
			tap_diag("ours: %-60s Zydis: %s", raw[0], raw[1]);
	}
	tap_ok(!different && compared > strings / 10, "%s: as Zydis writes them (%llu instructions, %llu differences)", names[mode],
	       (unsigned long long)compared, (unsigned long long)different);
}

int main(int argc, char **argv)
{
	u64 strings = argc > 1 ? strtoull(argv[1], NULL, 0) : 300000;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	tap_begin();
	zydis_init();
	for (unsigned mode = 0; mode < 3; mode++)
		compare_mode(mode, strings, seed + mode);
	return tap_end();
}
