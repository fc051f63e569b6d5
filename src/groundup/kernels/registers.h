// Numbers, and sixteen of them at a time: in one register with AVX512, in two with AVX2.
//
// Sixteen sums side by side need not wait for each other, and as they are added up alike, a text has
// the same bits with either. Where a CPU has neither, WIDE is not defined, and products.cpp's plain
// loops are all there is. What each instruction does: Intel's Intrinsics Guide.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define WIDE 1
#include <immintrin.h>
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__)
#define WIDER 1
#endif
#endif

namespace {

// Numbers of 2 bytes. fp16: a sign, 5 bits of exponent, 10 of fraction. bf16: half of an fp32.
struct Fp16 { uint16_t bits; };
struct Bf16 { uint16_t bits; };

inline float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// One number of each kind as fp32.
inline float load1(float w) { return w; }
inline float load1(Bf16 w) { return as_float(static_cast<uint32_t>(w.bits) << 16); }
inline float load1(Fp16 w) {
#ifdef WIDE
    return _cvtsh_ss(w.bits);
#else
    const uint32_t sign = static_cast<uint32_t>(w.bits & 0x8000u) << 16;
    const int exponent = (w.bits >> 10) & 31;
    const uint32_t fraction = w.bits & 1023u;
    if (exponent == 0) {  // zero, or so small that it has no leading one
        const float value = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -value : value;
    }
    const uint32_t wide = exponent == 31 ? 255u : static_cast<uint32_t>(exponent + 112);
    return as_float(sign | (wide << 23) | (fraction << 13));
#endif
}

// A result, in the kind that is wanted; bf16 is the nearest one, of two the even.
inline void store1(float value, float *to) { *to = value; }
inline void store1(float value, Bf16 *to) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const bool is_nan = value != value;
    to->bits = is_nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#ifdef WIDE
inline __m128i bytes16(const void *w) { return _mm_loadu_si128(static_cast<const __m128i *>(w)); }
inline __m256i bytes32(const void *w) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(w));
}

// Eight numbers of each kind as fp32.
inline __m256 load8(const float *w) { return _mm256_loadu_ps(w); }
inline __m256 load8(const Fp16 *w) { return _mm256_cvtph_ps(bytes16(w)); }
inline __m256 load8(const Bf16 *w) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bytes16(w)), 16));
}
inline float sum(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    four = _mm_add_ss(four, _mm_movehdup_ps(four));
    return _mm_cvtss_f32(four);
}

#ifdef WIDER
using Sixteen = __m512;
inline Sixteen twice8(float first, float second) {  // eight times each
    return _mm512_mask_broadcastss_ps(_mm512_set1_ps(first), 0xff00, _mm_set_ss(second));
}
inline Sixteen load16(const float *w) { return _mm512_loadu_ps(w); }
inline Sixteen load16(const Fp16 *w) { return _mm512_cvtph_ps(bytes32(w)); }
inline Sixteen load16(const Bf16 *w) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bytes32(w)), 16));
}
inline Sixteen multiply_add(Sixteen a, Sixteen b, Sixteen c) { return _mm512_fmadd_ps(a, b, c); }
inline float sum(Sixteen v) {
    return sum(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}
#else
struct Sixteen { __m256 first, second; };
inline Sixteen twice8(float first, float second) {
    return {_mm256_set1_ps(first), _mm256_set1_ps(second)};
}
template <typename Number>
inline Sixteen load16(const Number *w) { return {load8(w), load8(w + 8)}; }
inline Sixteen multiply_add(Sixteen a, Sixteen b, Sixteen c) {
    return {_mm256_fmadd_ps(a.first, b.first, c.first),
            _mm256_fmadd_ps(a.second, b.second, c.second)};
}
inline float sum(Sixteen v) { return sum(_mm256_add_ps(v.first, v.second)); }
#endif

// Twice 32 bytes, whole numbers. times_plain and times_signed multiply byte by byte and add up the
// products four by four, eight sums for each 32; the activations have a sign, the weights of
// times_plain have none (0 to 127). AVX512-VNNI and AVX-VNNI have an instruction for that.
#ifdef WIDER
using Whole = __m512i;
inline Whole load_whole(const void *w) { return _mm512_loadu_si512(w); }
inline Sixteen times_plain(Whole w, Whole acts) {
#ifdef __AVX512VNNI__
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), w, acts));
#else
    const Whole pairs = _mm512_maddubs_epi16(w, acts);
    return _mm512_cvtepi32_ps(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
}
inline Sixteen times_signed(Whole w, Whole acts) {  // |w| times the activation with w's sign
    const __mmask64 minus = _mm512_movepi8_mask(w);
    return times_plain(_mm512_abs_epi8(w),
                       _mm512_mask_sub_epi8(acts, minus, _mm512_setzero_si512(), acts));
}
inline Whole load_nibbles(const uint8_t *w) {  // of each 16 bytes the lower halves, then the upper
    const Whole packed = _mm512_castsi256_si512(bytes32(w));
    const Whole twice = _mm512_shuffle_i64x2(packed, packed, 0b01010000);
    return _mm512_and_si512(_mm512_mask_srli_epi16(twice, 0xff00ff00, twice, 4),
                            _mm512_set1_epi8(15));
}
#else
struct Whole { __m256i first, second; };
inline Whole load_whole(const void *w) {
    return {bytes32(w), bytes32(static_cast<const uint8_t *>(w) + 32)};
}
inline __m256 times_plain(__m256i w, __m256i acts) {
#ifdef __AVXVNNI__
    return _mm256_cvtepi32_ps(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), w, acts));
#else
    const __m256i pairs = _mm256_maddubs_epi16(w, acts);
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
inline Sixteen times_plain(Whole w, Whole acts) {
    return {times_plain(w.first, acts.first), times_plain(w.second, acts.second)};
}
inline __m256 times_signed(__m256i w, __m256i acts) {  // |w| times the activation with w's sign
    return times_plain(_mm256_abs_epi8(w), _mm256_sign_epi8(acts, w));
}
inline Sixteen times_signed(Whole w, Whole acts) {
    return {times_signed(w.first, acts.first), times_signed(w.second, acts.second)};
}
inline __m256i load_nibbles(__m128i packed) {
    const __m256i twice = _mm256_set_m128i(_mm_srli_epi16(packed, 4), packed);
    return _mm256_and_si256(twice, _mm256_set1_epi8(15));
}
inline Whole load_nibbles(const uint8_t *w) {  // of each 16 bytes the lower halves, then the upper
    return {load_nibbles(bytes16(w)), load_nibbles(bytes16(w + 16))};
}
#endif
#endif

}  // namespace
