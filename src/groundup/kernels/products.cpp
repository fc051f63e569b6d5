// The products that decoding waits for: a few rows of activations times a large matrix of weights.
//
// While a text is written, every weight is read once per token, and nothing else takes as long. So
// the fewer bytes a weight has, the faster the text: 4 in fp32, 2 in fp16, 1 in int8, about half a
// byte in 4 bits. All functions compute
//
//     y[i][r] = bias[r] + sum over c of  x[i][c] * W[r][c]        (i < n, r < rows, c < cols)
//
// with W (rows, cols) as nn.Linear keeps it, row after row, and no bias where it is null. Threads
// share the rows of W, CHUNK at a time: one that has to wait for its core holds up few. The plain
// loops are the definition; where the CPU has AVX2, the same is spelled in its instructions,
// because compilers turn these loops into good ones only sometimes.
//
// Built by kernels/build.py with the system's compiler, called through ctypes: no Python, no torch.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define WIDE 1
#include <immintrin.h>
#endif

namespace {

constexpr int64_t CHUNK = 64;
constexpr int64_t SMALL = 1 << 16;  // weights that are sooner multiplied than shared

#ifdef WIDE
// The sum of a register's eight numbers.
inline float sum8(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    four = _mm_add_ss(four, _mm_movehdup_ps(four));
    return _mm_cvtss_f32(four);
}

// Eight weights of each kind as fp32.
inline __m256 load8(const float *w) { return _mm256_loadu_ps(w); }
inline __m256 load8(const uint16_t *w) {  // fp16
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w)));
}
inline __m256 load8(const int8_t *w) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(w));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
}
#endif

// One weight of each kind as fp32.
inline float load1(float w) { return w; }
inline float load1(int8_t w) { return static_cast<float>(w); }
inline float load1(uint16_t w) {  // fp16: a sign, 5 bits of exponent, 10 of fraction
    const uint32_t sign = static_cast<uint32_t>(w & 0x8000u) << 16;
    const int exponent = (w >> 10) & 31;
    const uint32_t fraction = w & 1023u;
    float value;
    if (exponent == 0) {  // zero, or so small that it has no leading one
        value = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -value : value;
    }
    const uint32_t wide = exponent == 31 ? 255u : static_cast<uint32_t>(exponent + 112);
    const uint32_t bits = sign | (wide << 23) | (fraction << 13);
    std::memcpy(&value, &bits, 4);
    return value;
}

// One row of weights times N rows of activations, which are cols apart: a weight is widened once
// for all. Two sums side by side, so that an addition need not wait for the one before it. How a sum
// is added up doesn't depend on N: the same text is written whoever shares the batch.
template <int N, typename Weight>
inline void dots(const Weight *w, const float *x, int64_t cols, float *sums) {
    int64_t c = 0;
    for (int i = 0; i < N; i++) sums[i] = 0.0f;
#ifdef WIDE
    __m256 a[N], b[N];
    for (int i = 0; i < N; i++) a[i] = b[i] = _mm256_setzero_ps();
    for (; c + 16 <= cols; c += 16) {
        const __m256 w0 = load8(w + c), w1 = load8(w + c + 8);
        for (int i = 0; i < N; i++) {
            a[i] = _mm256_fmadd_ps(w0, _mm256_loadu_ps(x + i * cols + c), a[i]);
            b[i] = _mm256_fmadd_ps(w1, _mm256_loadu_ps(x + i * cols + c + 8), b[i]);
        }
    }
    for (int i = 0; i < N; i++) sums[i] = sum8(_mm256_add_ps(a[i], b[i]));
#endif
    for (; c < cols; c++) {
        const float wide = load1(w[c]);
        for (int i = 0; i < N; i++) sums[i] += wide * x[i * cols + c];
    }
}

constexpr int MANY = 4;  // rows at a time: their sums fill half of the registers

// What a thread does for one row of weights: all n rows of activations, MANY at a time.
template <typename Four, typename One>
inline void each(int64_t n, Four four, One one) {
    int64_t i = 0;
    for (; i + MANY <= n; i += MANY) four(i);
    for (; i < n; i++) one(i);
}

// Every row of weights times every row of activations: a row of weights is read once for all.
template <typename Weight>
void product(const Weight *w, const float *scale, const float *bias, const float *x, float *y,
             int64_t n, int64_t rows, int64_t cols) {
#pragma omp parallel for schedule(dynamic, CHUNK) if (rows * cols > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const float factor = scale ? scale[r] : 1.0f, more = bias ? bias[r] : 0.0f;
        const Weight *row = w + r * cols;
        float sums[MANY];
        const auto store = [&](int64_t i, int count) {
            for (int k = 0; k < count; k++) y[(i + k) * rows + r] = factor * sums[k] + more;
        };
        const auto four = [&](int64_t i) {
            dots<MANY>(row, x + i * cols, cols, sums), store(i, MANY);
        };
        const auto one = [&](int64_t i) { dots<1>(row, x + i * cols, cols, sums), store(i, 1); };
        each(n, four, one);
    }
}

constexpr int64_t GROUP = 32;  // weights of 4 bits that share a scale

// Activations in 8 bits: whole numbers from -127 to 127, a step for each 32 of them, and the sum of
// those, which each weight's lowest value is multiplied by.
struct Eights {
    std::vector<int8_t> whole;
    std::vector<float> step, sum;
};

Eights eight_bits(const float *x, int64_t groups) {
    Eights e;
    e.whole.resize(groups * GROUP), e.step.resize(groups), e.sum.resize(groups);
    for (int64_t g = 0; g < groups; g++) {
        const float *from = x + g * GROUP;
        int8_t *to = e.whole.data() + g * GROUP;
        float largest = 1e-12f;
        for (int j = 0; j < GROUP; j++) largest = std::fmax(largest, std::fabs(from[j]));
        const float step = largest / 127.0f;
        int32_t sum = 0;
        for (int j = 0; j < GROUP; j++) {
            const int32_t nearest = static_cast<int32_t>(std::nearbyintf(from[j] / step));
            to[j] = static_cast<int8_t>(nearest);
            sum += nearest;
        }
        e.step[g] = step, e.sum[g] = step * static_cast<float>(sum);
    }
    return e;
}

// One row of 4-bit weights times N rows of activations in 8 bits. A weight is lowest + step * whole,
// with a lowest and a step (fp16) for each group. Byte j of a group holds the whole number (0 to 15)
// of weight j in its lower half and that of weight j + 16 in its upper one. Within a group the
// products are of whole numbers, which is exact.
template <int N>
inline void dots_i4(const uint8_t *w, const uint16_t *scale, const uint16_t *lowest,
                    const Eights &x, int64_t i, int64_t groups, float *sums) {
    const int8_t *whole = x.whole.data() + i * groups * GROUP;
    const float *step = x.step.data() + i * groups;
#ifdef WIDE
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 a[N];
    for (int k = 0; k < N; k++) a[k] = _mm256_setzero_ps();
    for (int64_t g = 0; g < groups; g++) {
        const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(w + g * 16));
        const __m256i both = _mm256_set_m128i(_mm_srli_epi16(packed, 4), packed);  // upper, lower
        const __m256i weights = _mm256_and_si256(both, low);                       // 32 of 0 to 15
        const float factor = _cvtsh_ss(scale[g]);
        for (int k = 0; k < N; k++) {
            const __m256i acts = _mm256_loadu_si256(
                reinterpret_cast<const __m256i *>(whole + (k * groups + g) * GROUP));
            const __m256i pairs = _mm256_maddubs_epi16(weights, acts);  // 16 sums of two
            const __m256 eight = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones));
            a[k] = _mm256_fmadd_ps(eight, _mm256_set1_ps(factor * step[k * groups + g]), a[k]);
        }
    }
    for (int k = 0; k < N; k++) sums[k] = sum8(a[k]);
#else
    for (int k = 0; k < N; k++) {
        sums[k] = 0.0f;
        for (int64_t g = 0; g < groups; g++) {
            const int8_t *acts = whole + (k * groups + g) * GROUP;
            int32_t sum = 0;
            for (int j = 0; j < 16; j++) {
                const uint8_t two = w[g * 16 + j];
                sum += (two & 15) * acts[j] + (two >> 4) * acts[j + 16];
            }
            sums[k] += load1(scale[g]) * step[k * groups + g] * static_cast<float>(sum);
        }
    }
#endif
    float below[N];
    dots<N>(lowest, x.sum.data() + i * groups, groups, below);
    for (int k = 0; k < N; k++) sums[k] += below[k];
}

}  // namespace

extern "C" {

// Weights of 4 bytes.
void product_f32(const float *w, const float *bias, const float *x, float *y, int64_t n,
                 int64_t rows, int64_t cols) {
    product(w, nullptr, bias, x, y, n, rows, cols);
}

// Weights of 2 bytes (fp16); the arithmetic is fp32's.
void product_f16(const uint16_t *w, const float *bias, const float *x, float *y, int64_t n,
                 int64_t rows, int64_t cols) {
    product(w, nullptr, bias, x, y, n, rows, cols);
}

// Weights of 1 byte and a scale for each row; the arithmetic is fp32's.
void product_i8(const int8_t *w, const float *scale, const float *bias, const float *x, float *y,
                int64_t n, int64_t rows, int64_t cols) {
    product(w, scale, bias, x, y, n, rows, cols);
}

// Weights of 4 bits, a step and a lowest value for each 32. Widening so many to fp32 would take longer than reading
// them, so the activations are rounded to 8 bits first.
void product_i4(const uint8_t *w, const uint16_t *w_scale, const uint16_t *w_lowest,
                const float *bias, const float *x, float *y, int64_t n, int64_t rows,
                int64_t cols) {
    const int64_t groups = cols / GROUP;
    const Eights eights = eight_bits(x, n * groups);
#pragma omp parallel for schedule(dynamic, CHUNK) if (rows * cols > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *row = w + r * groups * 16;
        const uint16_t *scale = w_scale + r * groups, *lowest = w_lowest + r * groups;
        const float more = bias ? bias[r] : 0.0f;
        float sums[MANY];
        const auto store = [&](int64_t i, int count) {
            for (int k = 0; k < count; k++) y[(i + k) * rows + r] = sums[k] + more;
        };
        const auto four = [&](int64_t i) {
            dots_i4<MANY>(row, scale, lowest, eights, i, groups, sums), store(i, MANY);
        };
        const auto one = [&](int64_t i) {
            dots_i4<1>(row, scale, lowest, eights, i, groups, sums), store(i, 1);
        };
        each(n, four, one);
    }
}

}  // extern "C"
