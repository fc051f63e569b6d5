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
#include <type_traits>
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
#endif

// One weight of each kind as fp32.
inline float load1(float w) { return w; }
inline float load1(uint16_t w) {  // fp16: a sign, 5 bits of exponent, 10 of fraction
#ifdef WIDE
    return _cvtsh_ss(w);
#else
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
#endif
}

// One row of weights times N rows of activations, which are cols apart: a weight is widened once
// for all. Two sums side by side, so that an addition need not wait for the one before it. How a
// sum is added up doesn't depend on N: the same text is written whoever shares the batch.
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
void product(const Weight *w, const float *bias, const float *x, float *y, int64_t n, int64_t rows,
             int64_t cols) {
#pragma omp parallel for schedule(dynamic, CHUNK) if (rows * cols > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const Weight *row = w + r * cols;
        const float more = bias ? bias[r] : 0.0f;
        const auto some = [&](auto count, int64_t i) {
            constexpr int N = decltype(count)::value;
            float sums[N];
            dots<N>(row, x + i * cols, cols, sums);
            for (int k = 0; k < N; k++) y[(i + k) * rows + r] = sums[k] + more;
        };
        each(n, [&](int64_t i) { some(std::integral_constant<int, MANY>(), i); },
             [&](int64_t i) { some(std::integral_constant<int, 1>(), i); });
    }
}

constexpr int64_t GROUP = 32;  // weights, or activations, that share a step

// Activations in 8 bits: whole numbers from -127 to 127, a step for each 32 of them, and the sum of
// those, which a 4-bit weight's lowest value is multiplied by.
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
        float largest = 1e-12f, poison = 0.0f;
#pragma omp simd reduction(max : largest) reduction(+ : poison)
        for (int j = 0; j < GROUP; j++) {
            const float size = std::fabs(from[j]);
            largest = largest < size ? size : largest;
            poison += 0.0f * size;  // NaN, if the number is not one or has no end
        }
        const float step = largest / 127.0f + poison, per_step = 1.0f / step;
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < GROUP; j++) {
            const float steps = poison == 0.0f ? from[j] * per_step : 0.0f;
            const int32_t nearest = static_cast<int32_t>(std::rint(steps));
            to[j] = static_cast<int8_t>(nearest);
            sum += nearest;
        }
        e.step[g] = step, e.sum[g] = step * static_cast<float>(sum);
    }
    return e;
}

// The 32 whole numbers of a group as bytes, and the products with 32 activations added up to eight.
struct Bytes {  // int8: -127 to 127
    static constexpr int64_t SIZE = 32;
    static int whole(const uint8_t *w, int j) { return static_cast<int8_t>(w[j]); }
#ifdef WIDE
    static __m256i load(const uint8_t *w) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w));
    }
    static __m256i pairs(__m256i w, __m256i acts) {  // the first factor has no sign
        return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(acts, w));
    }
#endif
};

struct Nibbles {  // 4 bits, 0 to 15: byte j holds number j in its lower half, j + 16 in the other
    static constexpr int64_t SIZE = 16;
    static int whole(const uint8_t *w, int j) { return j < 16 ? w[j] & 15 : w[j - 16] >> 4; }
#ifdef WIDE
    static __m256i load(const uint8_t *w) {
        const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(w));
        const __m256i both = _mm256_set_m128i(_mm_srli_epi16(packed, 4), packed);  // upper, lower
        return _mm256_and_si256(both, _mm256_set1_epi8(15));
    }
    static __m256i pairs(__m256i w, __m256i acts) { return _mm256_maddubs_epi16(w, acts); }
#endif
};

// Bytes to ask the memory for in advance. The CPU does that by itself, but keeps up only with
// weights of 2 bytes and more; with these, asking saves a quarter of the time.
constexpr int64_t AHEAD = 1024;

// One row of whole numbers times N rows of activations in 8 bits. Within a group the products are
// of whole numbers, which is exact; then they are multiplied by both steps (the weights' is fp16).
template <int N, typename Kind>
inline void dots_whole(const uint8_t *w, const uint16_t *scale, const uint16_t *lowest,
                       const Eights &x, int64_t i, int64_t groups, float *sums) {
    const int8_t *whole = x.whole.data() + i * groups * GROUP;
    const float *step = x.step.data() + i * groups, *sum_of = x.sum.data() + i * groups;
    int64_t g = 0;
    for (int k = 0; k < N; k++) sums[k] = 0.0f;
#ifdef WIDE
    __m256 a[N], b[N];
    for (int k = 0; k < N; k++) a[k] = b[k] = _mm256_setzero_ps();
    const __m256i ones = _mm256_set1_epi16(1);
    const auto add = [&](const float *both, int64_t at, __m256 *to) {
        const uint8_t *from = w + at * Kind::SIZE;
        _mm_prefetch(reinterpret_cast<const char *>(from + AHEAD), _MM_HINT_T0);
        const __m256i weights = Kind::load(from);
        for (int k = 0; k < N; k++) {
            const __m256i acts = _mm256_loadu_si256(
                reinterpret_cast<const __m256i *>(whole + (k * groups + at) * GROUP));
            const __m256i sum = _mm256_madd_epi16(Kind::pairs(weights, acts), ones);
            to[k] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(both[8 * k]), to[k]);
        }
    };
    for (; g + 8 <= groups; g += 8) {
        float both[N * 8];  // steps multiplied
        for (int k = 0; k < N; k++) {
            const float *of = step + k * groups + g, *sum = sum_of + k * groups + g;
            _mm256_storeu_ps(both + 8 * k, _mm256_mul_ps(load8(scale + g), load8(of)));
            if (lowest) a[k] = _mm256_fmadd_ps(load8(lowest + g), load8(sum), a[k]);
        }
        for (int j = 0; j < 8; j += 2) add(both + j, g + j, a), add(both + j + 1, g + j + 1, b);
    }
    for (; g < groups; g++) {  // those that don't fill eight
        float both[N * 8];
        for (int k = 0; k < N; k++) {
            both[8 * k] = load1(scale[g]) * step[k * groups + g];
            if (lowest) sums[k] += load1(lowest[g]) * sum_of[k * groups + g];
        }
        add(both, g, a);
    }
    for (int k = 0; k < N; k++) sums[k] += sum8(_mm256_add_ps(a[k], b[k]));
#else
    for (; g < groups; g++) {
        for (int k = 0; k < N; k++) {
            const int8_t *acts = whole + (k * groups + g) * GROUP;
            int32_t sum = 0;
            for (int j = 0; j < GROUP; j++) sum += Kind::whole(w + g * Kind::SIZE, j) * acts[j];
            sums[k] += load1(scale[g]) * step[k * groups + g] * static_cast<float>(sum);
            if (lowest) sums[k] += load1(lowest[g]) * sum_of[k * groups + g];
        }
    }
#endif
}

// Every row of whole numbers times every row of activations. Widening so many weights to fp32 would
// take longer than reading them, so the activations are rounded to 8 bits first. Where there is a
// lowest value for each group, a weight is that plus step * whole.
template <typename Kind>
void product_whole(const uint8_t *w, const uint16_t *w_scale, const uint16_t *w_lowest,
                   const float *bias, const float *x, float *y, int64_t n, int64_t rows,
                   int64_t cols) {
    const int64_t groups = cols / GROUP;
    const Eights eights = eight_bits(x, n * groups);
#pragma omp parallel for schedule(dynamic, CHUNK) if (rows * cols > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *row = w + r * groups * Kind::SIZE;
        const uint16_t *scale = w_scale + r * groups;
        const uint16_t *lowest = w_lowest ? w_lowest + r * groups : nullptr;
        const float more = bias ? bias[r] : 0.0f;
        const auto some = [&](auto count, int64_t i) {
            constexpr int N = decltype(count)::value;
            float sums[N];
            dots_whole<N, Kind>(row, scale, lowest, eights, i, groups, sums);
            for (int k = 0; k < N; k++) y[(i + k) * rows + r] = sums[k] + more;
        };
        each(n, [&](int64_t i) { some(std::integral_constant<int, MANY>(), i); },
             [&](int64_t i) { some(std::integral_constant<int, 1>(), i); });
    }
}

}  // namespace

extern "C" {

// Weights of 4 bytes.
void product_f32(const float *w, const float *bias, const float *x, float *y, int64_t n,
                 int64_t rows, int64_t cols) {
    product(w, bias, x, y, n, rows, cols);
}

// Weights of 2 bytes (fp16); the arithmetic is fp32's.
void product_f16(const uint16_t *w, const float *bias, const float *x, float *y, int64_t n,
                 int64_t rows, int64_t cols) {
    product(w, bias, x, y, n, rows, cols);
}

// Weights of 1 byte, and a step for each 32.
void product_i8(const uint8_t *w, const uint16_t *scale, const float *bias, const float *x,
                float *y, int64_t n, int64_t rows, int64_t cols) {
    product_whole<Bytes>(w, scale, nullptr, bias, x, y, n, rows, cols);
}

// Weights of 4 bits, a step and a lowest value for each 32.
void product_i4(const uint8_t *w, const uint16_t *scale, const uint16_t *lowest,
                const float *bias, const float *x, float *y, int64_t n, int64_t rows,
                int64_t cols) {
    product_whole<Nibbles>(w, scale, lowest, bias, x, y, n, rows, cols);
}

}  // extern "C"
