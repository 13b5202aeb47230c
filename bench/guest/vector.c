/* Rows of vector and cryptographic instructions, on data in the first-level cache. */
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#include "bench/guest/bench.h"

const char *missing_avx2(void);
const char *missing_avx512(void);
const char *missing_aes(void);
const char *missing_shani(void);

const char *missing_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? NULL : "no AVX2 and FMA";
}

const char *missing_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") ?
		       NULL :
		       "no AVX-512";
}

const char *missing_aes(void)
{
	unsigned int a, b, c = 0, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AES) && (c & bit_SSE4_1) ? NULL : "no AES-NI";
}

const char *missing_shani(void)
{
	unsigned int a, b = 0, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA) && __builtin_cpu_supports("sse4.1") ? NULL :
														"no SHA instructions";
}

#define ELEMENTS 1024
static float fx[ELEMENTS] __attribute__((aligned(64))), fy[ELEMENTS] __attribute__((aligned(64)));
static uint32_t ix[ELEMENTS] __attribute__((aligned(64))), iy[ELEMENTS] __attribute__((aligned(64)));

static void fill(void)
{
	for (int i = 0; i < ELEMENTS; i++) {
		fx[i] = (i % 97) * 0.5f;
		fy[i] = (i % 89) * 0.25f - 10;
		ix[i] = i * 2654435761U;
		iy[i] = i * 40503U;
	}
}

static uint64_t outcome(void)
{
	return bench_hash(fy, sizeof(fy)) ^ bench_hash(iy, sizeof(iy));
}

uint64_t row_sse2(struct bench *b)
{
	fill();
	bench_begin(b);
	for (uint64_t n = 0; n < b->count; n++) {
		const __m128 half = _mm_set1_ps(0.5f);

		for (int i = 0; i < ELEMENTS; i += 4) {
			__m128 x = _mm_load_ps(fx + i), y = _mm_load_ps(fy + i);
			__m128i u = _mm_load_si128((void *)(ix + i)), v = _mm_load_si128((void *)(iy + i));

			y = _mm_add_ps(_mm_mul_ps(y, half), x);
			y = _mm_max_ps(y, _mm_sub_ps(x, y));
			_mm_store_ps(fy + i, y);
			v = _mm_xor_si128(_mm_add_epi32(v, u), _mm_srli_epi32(v, 3));
			v = _mm_add_epi16(v, _mm_mullo_epi16(u, v));
			v = _mm_shuffle_epi32(_mm_unpacklo_epi8(v, _mm_cmpgt_epi32(u, v)), 0x6c);
			_mm_store_si128((void *)(iy + i), v);
		}
	}
	bench_end(b);
	return outcome();
}

__attribute__((target("avx2,fma"))) uint64_t row_avx2(struct bench *b)
{
	fill();
	bench_begin(b);
	for (uint64_t n = 0; n < b->count; n++) {
		const __m256 half = _mm256_set1_ps(0.5f);

		for (int i = 0; i < ELEMENTS; i += 8) {
			__m256 x = _mm256_load_ps(fx + i), y = _mm256_load_ps(fy + i);
			__m256i u = _mm256_load_si256((void *)(ix + i)), v = _mm256_load_si256((void *)(iy + i));

			y = _mm256_fmadd_ps(y, half, x);
			y = _mm256_max_ps(y, _mm256_sub_ps(x, y));
			_mm256_store_ps(fy + i, y);
			v = _mm256_xor_si256(_mm256_add_epi32(v, u), _mm256_srlv_epi32(v, _mm256_set1_epi32(3)));
			v = _mm256_add_epi16(v, _mm256_mullo_epi32(u, v));
			v = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(v, u), _mm256_set_epi32(2, 5, 1, 7, 0, 3, 6, 4));
			_mm256_store_si256((void *)(iy + i), v);
		}
	}
	bench_end(b);
	return outcome();
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) uint64_t row_avx512(struct bench *b)
{
	fill();
	bench_begin(b);
	for (uint64_t n = 0; n < b->count; n++) {
		const __m512 half = _mm512_set1_ps(0.5f);

		for (int i = 0; i < ELEMENTS; i += 16) {
			__m512 x = _mm512_load_ps(fx + i), y = _mm512_load_ps(fy + i);
			__m512i u = _mm512_load_si512(ix + i), v = _mm512_load_si512(iy + i);
			__mmask16 greater = _mm512_cmpgt_epi32_mask(u, v);

			y = _mm512_fmadd_ps(y, half, x);
			y = _mm512_mask_max_ps(y, greater, y, _mm512_sub_ps(x, y));
			_mm512_store_ps(fy + i, y);
			v = _mm512_ternarylogic_epi32(_mm512_add_epi32(v, u), _mm512_srli_epi32(v, 3), u, 0x96);
			v = _mm512_add_epi16(v, _mm512_maskz_mullo_epi32(greater, u, v));
			v = _mm512_rol_epi32(_mm512_shuffle_epi8(v, u), 5);
			_mm512_store_si512(iy + i, v);
		}
	}
	bench_end(b);
	return outcome();
}

__attribute__((target("aes,sse4.1"))) static __m128i next_key(__m128i key, __m128i assist)
{
	assist = _mm_shuffle_epi32(assist, 0xff);
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
	return _mm_xor_si128(key, assist);
}

/* Counter mode, four blocks at a time; first the example of FIPS 197, so that it is AES and nothing else. */
__attribute__((target("aes,sse4.1"))) uint64_t row_aes(struct bench *b)
{
	static const uint8_t want[16] = { 0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30,
					  0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a };
	uint8_t key[16], text[16];
	__m128i keys[11], sum = _mm_setzero_si128(), block;
	uint64_t halves[2];

	for (int i = 0; i < 16; i++) {
		key[i] = i;
		text[i] = i * 0x11;
	}
	keys[0] = _mm_loadu_si128((void *)key);
#define NEXT(n, constant) keys[n] = next_key(keys[(n) - 1], _mm_aeskeygenassist_si128(keys[(n) - 1], constant))
	NEXT(1, 1);
	NEXT(2, 2);
	NEXT(3, 4);
	NEXT(4, 8);
	NEXT(5, 16);
	NEXT(6, 32);
	NEXT(7, 64);
	NEXT(8, 128);
	NEXT(9, 27);
	NEXT(10, 54);
#undef NEXT
	block = _mm_xor_si128(_mm_loadu_si128((void *)text), keys[0]);
	for (int round = 1; round < 10; round++)
		block = _mm_aesenc_si128(block, keys[round]);
	block = _mm_aesenclast_si128(block, keys[10]);
	if (memcmp(&block, want, 16))
		bench_fail("the example of FIPS 197 comes out wrong");
	bench_begin(b);
	for (uint64_t n = 0; n < b->count; n += 4) {
		__m128i x[4];

		for (int i = 0; i < 4; i++)
			x[i] = _mm_xor_si128(_mm_set_epi64x(n + i, 7), keys[0]);
		for (int round = 1; round < 10; round++) {
			for (int i = 0; i < 4; i++)
				x[i] = _mm_aesenc_si128(x[i], keys[round]);
		}
		for (int i = 0; i < 4; i++)
			sum = _mm_xor_si128(sum, _mm_aesenclast_si128(x[i], keys[10]));
	}
	bench_end(b);
	memcpy(halves, &sum, 16);
	return halves[0] ^ halves[1];
}

extern const uint32_t bench_sha256_k[64];
uint64_t bench_sha256(struct bench *b, void (*block)(uint32_t *, const uint8_t *));

/* SDM 1, 12.3: a state of two registers, ABEF and CDGH, four rounds at a time. */
__attribute__((target("sha,sse4.1"))) static void shani_block(uint32_t state[8], const uint8_t *data)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i abef = _mm_set_epi32(state[0], state[1], state[4], state[5]);
	__m128i cdgh = _mm_set_epi32(state[2], state[3], state[6], state[7]);
	const __m128i abef_before = abef, cdgh_before = cdgh;
	__m128i w[4];

	for (int i = 0; i < 16; i++) {
		__m128i k = _mm_loadu_si128((const void *)(bench_sha256_k + 4 * i)), words;

		if (i < 4) {
			w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)(data + 16 * i)), swap);
		} else {
			__m128i t = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);

			t = _mm_add_epi32(t, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
			w[i & 3] = _mm_sha256msg2_epu32(t, w[(i + 3) & 3]);
		}
		words = _mm_add_epi32(w[i & 3], k);
		cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
		abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0e));
	}
	abef = _mm_add_epi32(abef, abef_before);
	cdgh = _mm_add_epi32(cdgh, cdgh_before);
	state[0] = _mm_extract_epi32(abef, 3);
	state[1] = _mm_extract_epi32(abef, 2);
	state[4] = _mm_extract_epi32(abef, 1);
	state[5] = _mm_extract_epi32(abef, 0);
	state[2] = _mm_extract_epi32(cdgh, 3);
	state[3] = _mm_extract_epi32(cdgh, 2);
	state[6] = _mm_extract_epi32(cdgh, 1);
	state[7] = _mm_extract_epi32(cdgh, 0);
}

uint64_t row_shani(struct bench *b)
{
	return bench_sha256(b, shani_block);
}
