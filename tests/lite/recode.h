/* Random instructions for the tests of engines/lite/recode.c, and what a second decoder says of them. */
#ifndef TESTS_LITE_RECODE_H
#define TESTS_LITE_RECODE_H

#include "engines/lite/recode.h"

#define STRING_BYTES 24 /* more than an instruction may have */

static inline u64 next_random(u64 *state)
{
	u64 x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Prefixes now and then, an opcode of any map, and operands. */
static inline void random_string(u64 *state, u8 *bytes, enum insn_mode mode)
{
	static const u8 prefixes[] = { 0x66, 0xf2, 0xf3, 0x67, 0xf0, 0x2e, 0x64, 0x65, 0x36, 0x66, 0xf2, 0xf3 };
	static const u8 evex_maps[] = { 1, 2, 3, 5, 6 };
	u64 r = next_random(state), s = next_random(state);
	unsigned n = 0;

	for (unsigned i = 0; i < STRING_BYTES; i += 8) {
		u64 x = next_random(state);

		memcpy(bytes + i, &x, 8);
	}
	/* Immediates and displacements of few bits are worth having. */
	if (!(s >> 60)) {
		memset(bytes + 12, s >> 59 & 1 ? 0 : 0xff, STRING_BYTES - 12);
		bytes[7] &= 0x83;
	}
	while (!(r & 3) && n < 4) {
		bytes[n++] = prefixes[(r >> 2) % ARRAY_SIZE(prefixes)];
		r = next_random(state);
	}
	if (mode == MODE_64 && r & 4)
		bytes[n++] = 0x40 | (r >> 4 & 15);
	switch (r >> 8 & 15) {
	case 0 ... 4:
		break;
	case 5 ... 7:
		bytes[n] = 0x0f;
		break;
	case 8 ... 10:
		bytes[n] = 0x0f;
		bytes[n + 1] = r >> 16 & 1 ? 0x38 : 0x3a;
		break;
	case 11:
		bytes[0] = 0xc5;
		if (mode != MODE_64)
			bytes[1] |= 0xc0;
		if (r >> 16 & 1)
			bytes[1] |= 0x78;
		break;
	case 12:
	case 13:
		bytes[0] = 0xc4;
		bytes[1] = (bytes[1] & 0xe0) | (1 + (r >> 16) % 3) | (mode != MODE_64 ? 0xc0 : 0);
		if (r >> 24 & 1)
			bytes[2] |= 0x78;
		break;
	default:
		bytes[0] = 0x62;
		bytes[1] = (bytes[1] & 0xf0) | evex_maps[(r >> 16) % 5] | (mode != MODE_64 ? 0xc0 : 0);
		bytes[2] |= 4 | (r >> 24 & 1 ? 0x78 : 0);
		bytes[3] |= r >> 25 & 1 ? 8 : 0;
		if (r >> 26 & 1)
			bytes[3] &= 0x68;
	}
}

/* Of Zydis, where there is one (NULL: there is not). They return NULL, or what it sees differently. */
__attribute__((weak)) void second_init(void);
__attribute__((weak)) const char *second_decode(const u8 *code);
__attribute__((weak)) const char *second_fields(const u8 *code, const struct insn *insn, const struct lite_fields *f);
__attribute__((weak)) const char *second_use(const u8 *code, const struct insn *insn, const struct lite_use *use);

#endif
