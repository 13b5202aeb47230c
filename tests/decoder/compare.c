/*
 * The decoder against Zydis: every difference on millions of byte strings, in the three modes.
 *
 *	test-decoder-zydis [strings [seed]]
 *
 * Three kinds of strings: every opcode of every map under every combination of prefixes and ModRM classes
 * (all of them; with a sanitizer, which is many times slower, every eighth ModRM unless TRINE_LONG is in the
 * environment); bytes at random; valid instructions with bits flipped. The number of strings is shared evenly by
 * the last two; it is 10^7, or 10^8 with TRINE_LONG. The same seed, which is printed, makes the same strings.
 * One verdict for each kind of string and mode, by map for the first.
 */
#include "tests/decoder/zydis.h"
#include "tests/tap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define SHOWN 8 /* differences printed of each job */

enum kind { EXHAUSTIVE, RANDOM, MUTATED };

static const char *const mode_names[] = { "16-bit", "32-bit", "64-bit" };

static const struct {
	const char *name;
	u8 escape[2];
	u8 escapes;
	u8 encoding; /* enum insn_encoding */
	u8 map;
} maps[] = {
	{ "one-byte map", { 0 }, 0, INSN_ENC_LEGACY, 0 },
	{ "map 0F", { 0x0f }, 1, INSN_ENC_LEGACY, 1 },
	{ "map 0F38", { 0x0f, 0x38 }, 2, INSN_ENC_LEGACY, 2 },
	{ "map 0F3A", { 0x0f, 0x3a }, 2, INSN_ENC_LEGACY, 3 },
	{ "3DNow!", { 0x0f, 0x0f }, 2, INSN_ENC_3DNOW, 7 },
	{ "VEX map 1", { 0 }, 0, INSN_ENC_VEX, 1 },
	{ "VEX map 2", { 0 }, 0, INSN_ENC_VEX, 2 },
	{ "VEX map 3", { 0 }, 0, INSN_ENC_VEX, 3 },
	{ "XOP map 8", { 0 }, 0, INSN_ENC_XOP, 8 },
	{ "XOP map 9", { 0 }, 0, INSN_ENC_XOP, 9 },
	{ "XOP map A", { 0 }, 0, INSN_ENC_XOP, 10 },
	{ "EVEX map 1", { 0 }, 0, INSN_ENC_EVEX, 1 },
	{ "EVEX map 2", { 0 }, 0, INSN_ENC_EVEX, 2 },
	{ "EVEX map 3", { 0 }, 0, INSN_ENC_EVEX, 3 },
	{ "EVEX map 5", { 0 }, 0, INSN_ENC_EVEX, 5 },
	{ "EVEX map 6", { 0 }, 0, INSN_ENC_EVEX, 6 },
};

struct job {
	enum kind kind;
	enum insn_mode mode;
	int map;
	u64 seed, strings; /* in: how many (not for EXHAUSTIVE) */
	/* out */
	u64 compared, valid, excused, truncated, different;
	struct {
		const char *why;
		u8 bytes[COMPARE_BYTES];
	} shown[SHOWN];
};

static u64 next_random(u64 *state)
{
	u64 x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static void random_bytes(u64 *state, u8 *bytes)
{
	u64 a = next_random(state), b = next_random(state);

	memcpy(bytes, &a, 8);
	memcpy(bytes + 8, &b, 8);
}

static void differ(struct job *job, const char *why, const u8 *bytes)
{
	if (job->different < SHOWN) {
		job->shown[job->different].why = why;
		memcpy(job->shown[job->different].bytes, bytes, COMPARE_BYTES);
	}
	job->different++;
}

/* A valid instruction, cut short anywhere, asks for more bytes, and does not look at those it is not given. */
static void check_truncated(struct job *job, const u8 *bytes, unsigned int len)
{
	struct insn insn, cut;
	unsigned int n;
	int err;

	insn_decode(&insn, bytes, COMPARE_BYTES, job->mode);
	for (n = 0; n < len; n++) {
		err = insn_decode(&cut, bytes, n, job->mode);
		if (err != INSN_NEED_MORE) {
			differ(job, "cut short, it does not ask for more", bytes);
			return;
		}
	}
	err = insn_decode(&cut, bytes, len, job->mode);
	if (err || cut.len != len || cut.mnemonic != insn.mnemonic || cut.imm != insn.imm ||
	    cut.mem.disp != insn.mem.disp)
		differ(job, "with nothing after it, it is another instruction", bytes);
	job->truncated++;
}

static bool check_string(struct job *job, const u8 *bytes)
{
	const char *why, *excused = NULL;
	struct insn insn;
	bool valid;

	why = zydis_compare(bytes, job->mode, &valid, &excused);
	job->compared++;
	job->valid += valid;
	job->excused += excused != NULL;
	if (why)
		differ(job, why, bytes);
	if (valid && !(job->compared & 31) &&
	    !insn_decode(&insn, bytes, COMPARE_BYTES, job->mode))
		check_truncated(job, bytes, insn.len);
	return valid;
}

static unsigned int modrm_step = 1;

/* ModRM: each mod, reg and rm (so each group member, each register-only and memory-only form), with a SIB. With a step others each time. */
static void each_modrm(struct job *job, u64 *state, u8 *bytes, unsigned int at)
{
	unsigned int modrm;

	for (modrm = modrm_step > 1 ? next_random(state) % modrm_step : 0; modrm < 256; modrm += modrm_step) {
		u8 string[COMPARE_BYTES];

		random_bytes(state, string);
		memcpy(string, bytes, at);
		string[at] = modrm;
		check_string(job, string);
	}
}

static void exhaustive_legacy(struct job *job)
{
	/* Prefix sets; 0 ends one. REX is meaningful in 64-bit mode, another instruction elsewhere. */
	static const u8 prefixes[][4] = {
		{ 0 }, { 0x66 }, { 0xf3 }, { 0xf2 }, { 0x66, 0xf3 }, { 0x66, 0xf2 }, { 0x48 },
		{ 0x66, 0x48 }, { 0xf3, 0x48 }, { 0xf2, 0x48 }, { 0x67 }, { 0x67, 0x66 }, { 0xf0 },
		{ 0xf0, 0x66 }, { 0x64 }, { 0x2e, 0x65 }, { 0x41 }, { 0x44 }, { 0x4f }, { 0x66, 0x4f },
		{ 0xf3, 0x4f }, { 0x48, 0x66 }, { 0xf2, 0xf3 }, { 0xf3, 0xf2 }, { 0x67, 0x42 },
		{ 0xf0, 0x4d }, { 0xf2, 0x66, 0x47 }, { 0xf0, 0xf3 }, { 0x40 },
	};
	u64 state = job->seed;
	unsigned int i, opcode, n;

	for (i = 0; i < ARRAY_SIZE(prefixes); i++) {
		for (opcode = 0; opcode < 256; opcode++) {
			u8 bytes[COMPARE_BYTES + 8]; /* random_bytes() behind the prefixes */

			for (n = 0; n < 4 && prefixes[i][n]; n++)
				bytes[n] = prefixes[i][n];
			memcpy(bytes + n, maps[job->map].escape, maps[job->map].escapes);
			n += maps[job->map].escapes;
			if (maps[job->map].encoding == INSN_ENC_3DNOW) {
				/* The opcode follows the operands: a register form, then a SIB one. */
				random_bytes(&state, bytes + n);
				bytes[n] |= 0xc0;
				bytes[n + 1] = opcode;
				check_string(job, bytes);
				random_bytes(&state, bytes + n);
				bytes[n] = (bytes[n] & 0x38) | 0x44;
				bytes[n + 3] = opcode;
				check_string(job, bytes);
				continue;
			}
			bytes[n++] = opcode;
			each_modrm(job, &state, bytes, n);
		}
	}
}

/* VEX and XOP: pp, L, W; vvvv all ones (unused) and not; register extensions at random. */
static void exhaustive_vex(struct job *job)
{
	u64 state = job->seed;
	unsigned int fields, opcode;

	for (fields = 0; fields < 64; fields++) {
		for (opcode = 0; opcode < 256; opcode++) {
			u64 r = next_random(&state);
			u8 bytes[COMPARE_BYTES];

			bytes[0] = maps[job->map].encoding == INSN_ENC_VEX ? 0xc4 : 0x8f;
			bytes[1] = (r & 0xe0) | maps[job->map].map;
			if (job->mode != MODE_64)
				bytes[1] |= 0xc0;
			bytes[2] = (fields & 7) | (fields & 8) << 4 | (r >> 8 & 0x78);
			if (fields & 16)
				bytes[2] |= 0x78;
			if ((fields & 32) && maps[job->map].encoding == INSN_ENC_XOP)
				bytes[2] &= ~3;
			bytes[3] = opcode;
			if ((fields & 32) && bytes[0] == 0xc4 && job->map == 5) {
				/* The two-byte form. */
				bytes[1] = (r & 0x80) | (bytes[2] & 0x7f) | (job->mode != MODE_64 ? 0xc0 : 0);
				bytes[0] = 0xc5;
				bytes[2] = opcode;
				each_modrm(job, &state, bytes, 3);
				continue;
			}
			each_modrm(job, &state, bytes, 4);
		}
	}
}

/* EVEX: pp, W, L'L, b; mask, zeroing, vvvv and register extensions at random, often unused. */
static void exhaustive_evex(struct job *job)
{
	u64 state = job->seed;
	unsigned int fields, opcode;

	for (fields = 0; fields < 128; fields++) {
		for (opcode = 0; opcode < 256; opcode++) {
			u64 r = next_random(&state);
			u8 bytes[COMPARE_BYTES];

			bytes[0] = 0x62;
			bytes[1] = (r & 0xf0) | maps[job->map].map;
			if (job->mode != MODE_64)
				bytes[1] |= 0xc0;
			bytes[2] = (fields & 3) | 4 | (fields & 4) << 5 | (r >> 8 & 0x78);
			bytes[3] = (fields >> 3 & 7) << 4 | (r >> 16 & 0x8f);
			if (r >> 24 & 1)
				bytes[2] |= 0x78;
			if (job->mode != MODE_64 || (r >> 25 & 3))
				bytes[3] |= 8;
			if (r >> 27 & 3)
				bytes[3] &= 0x7f;
			if (r >> 29 & 1)
				bytes[3] &= 0xf8;
			if (fields & 64) {
				bytes[2] |= 0x78;
				bytes[3] = (bytes[3] & 0x70) | 8;
			}
			bytes[4] = opcode;
			each_modrm(job, &state, bytes, 5);
		}
	}
}

static void random_strings(struct job *job)
{
	u64 state = job->seed, i;
	u8 bytes[COMPARE_BYTES];

	for (i = 0; i < job->strings; i++) {
		random_bytes(&state, bytes);
		check_string(job, bytes);
	}
}

/* A string that begins with a few prefixes and an opcode of a map at random. */
static void seed_string(struct job *job, u64 *state, u8 *bytes)
{
	static const u8 prefixes[] = { 0x66, 0xf2, 0xf3, 0x67, 0xf0, 0x2e, 0x64, 0x65, 0x48, 0x41, 0x44, 0x4f };
	u64 r;
	unsigned int n = 0, map;

	random_bytes(state, bytes);
	r = next_random(state);
	map = r % ARRAY_SIZE(maps);
	r >>= 8;
	switch (maps[map].encoding) {
	case INSN_ENC_LEGACY:
	case INSN_ENC_3DNOW:
		while ((r & 3) == 3 && n < 6) {
			bytes[n++] = prefixes[(r >> 2 & 0xff) % ARRAY_SIZE(prefixes)];
			r >>= 10;
		}
		memcpy(bytes + n, maps[map].escape, maps[map].escapes);
		break;
	case INSN_ENC_EVEX:
		bytes[0] = 0x62;
		bytes[1] = (bytes[1] & 0xf0) | maps[map].map | (job->mode != MODE_64 ? 0xc0 : 0);
		bytes[2] |= 4;
		bytes[3] |= 8;
		break;
	default:
		bytes[0] = maps[map].encoding == INSN_ENC_VEX ? 0xc4 : 0x8f;
		bytes[1] = (bytes[1] & 0xe0) | maps[map].map | (job->mode != MODE_64 ? 0xc0 : 0);
		if (maps[map].encoding == INSN_ENC_XOP)
			bytes[2] &= ~3;
	}
	if ((r & 1) && maps[map].encoding >= INSN_ENC_VEX)
		bytes[2] |= 0x78;
}

static void mutated_strings(struct job *job)
{
	u8 corpus[256][COMPARE_BYTES], bytes[COMPARE_BYTES];
	u64 state = job->seed, i;
	unsigned int have = 0, flips;

	for (i = 0; i < job->strings; i++) {
		u64 r = next_random(&state);

		if (have < ARRAY_SIZE(corpus) || !(r & 15)) {
			seed_string(job, &state, bytes);
		} else {
			memcpy(bytes, corpus[r >> 8 & 255], COMPARE_BYTES);
			for (flips = 1 + (r >> 16 & 3); flips; flips--) {
				u64 f = next_random(&state);

				/* Mostly early bytes: prefixes, opcode and ModRM. */
				bytes[f & 1 ? f >> 1 & 3 : f >> 1 & 15] ^= 1 << (f >> 8 & 7);
			}
		}
		if (check_string(job, bytes))
			memcpy(corpus[have < ARRAY_SIZE(corpus) ? have++ : r >> 24 & 255], bytes, COMPARE_BYTES);
	}
}

static void run_job(struct job *job)
{
	switch (job->kind) {
	case EXHAUSTIVE:
		switch (maps[job->map].encoding) {
		case INSN_ENC_VEX:
		case INSN_ENC_XOP:
			exhaustive_vex(job);
			break;
		case INSN_ENC_EVEX:
			exhaustive_evex(job);
			break;
		default:
			exhaustive_legacy(job);
		}
		break;
	case RANDOM:
		random_strings(job);
		break;
	case MUTATED:
		mutated_strings(job);
	}
}

static struct job jobs[3 * (ARRAY_SIZE(maps) + 2)];
static unsigned int job_count;
static atomic_uint next_job;

static void *worker(void *arg)
{
	unsigned int i;

	while ((i = next_job++) < job_count)
		run_job(&jobs[i]);
	return arg;
}

static void report(const struct job *job)
{
	unsigned int i, k;
	char text[3 * COMPARE_BYTES + 1];

	for (i = 0; i < job->different && i < SHOWN; i++) {
		for (k = 0; k < COMPARE_BYTES; k++)
			snprintf(text + 3 * k, 4, "%02x ", job->shown[i].bytes[k]);
		tap_diag("%s: %s", job->shown[i].why, text);
		zydis_print(job->shown[i].bytes, job->mode);
	}
	tap_ok(!job->different && job->valid && job->truncated,
	       "%s %s%s: as Zydis decodes (%llu strings, %llu valid, %llu known differences, %llu differences)",
	       mode_names[job->mode],
	       job->kind == RANDOM    ? "random strings"
	       : job->kind == MUTATED ? "mutated instructions"
	       : modrm_step > 1	      ? "a sample of "
				      : "all of ",
	       job->kind == EXHAUSTIVE ? maps[job->map].name : "", (unsigned long long)job->compared,
	       (unsigned long long)job->valid, (unsigned long long)job->excused,
	       (unsigned long long)job->different);
}

int main(int argc, char **argv)
{
	const char *sanitizer = getenv("TRINE_SANITIZER"); /* many times slower: a sample */
	bool sampled = sanitizer && *sanitizer && !getenv("TRINE_LONG");
	u64 strings = argc > 1		       ? strtoull(argv[1], NULL, 0)
		      : sanitizer && *sanitizer ? 300000
		      : getenv("TRINE_LONG")	? 100000000
						: 10000000;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, total = 0;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[8];
	unsigned int i, mode, threads_count = cpus < 1 ? 1 : cpus > 8 ? 8 : cpus;
	int map;

	if (sampled)
		modrm_step = 8;
	tap_begin();
	zydis_init();
	tap_diag("seed %llu", (unsigned long long)seed);
	for (mode = 0; mode < 3; mode++) {
		jobs[job_count++] = (struct job){ .kind = RANDOM, .mode = mode, .strings = strings / 6 };
		jobs[job_count++] = (struct job){ .kind = MUTATED, .mode = mode, .strings = strings / 6 };
		for (map = 0; map < (int)ARRAY_SIZE(maps); map++)
			jobs[job_count++] = (struct job){ .kind = EXHAUSTIVE, .mode = mode, .map = map };
	}
	for (i = 0; i < job_count; i++)
		jobs[i].seed = next_random(&seed);
	for (i = 0; i < threads_count; i++)
		if (pthread_create(&threads[i], NULL, worker, NULL))
			break;
	threads_count = i;
	if (!threads_count)
		worker(NULL);
	for (i = 0; i < threads_count; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < job_count; i++) {
		report(&jobs[i]);
		total += jobs[i].compared;
	}
	tap_diag("%llu strings compared", (unsigned long long)total);
	return tap_end();
}
