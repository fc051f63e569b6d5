// The products that decoding waits for: a few rows of activations times a large matrix of weights.
//
// While a text is written, every weight is read once per token, and nothing else takes as long. So
// the fewer bytes a weight has, the faster the text: 4 in fp32, 2 in fp16, 1 in int8, about half a
// byte in 4 bits. All functions compute
//
//     y[i][r] = bias[r] + sum over c of  x[i][c] * W[r][c]        (i < n, r < rows, c < cols)
//
// with W (rows, cols) as nn.Linear keeps it, row after row, and no bias where it is null. Threads
// share the rows of W: many at a time, because memory is read fastest in one go, and at the end no
// more than LEAST, so that one that has to wait for its core holds up few. The plain
// loops are the definition; where the CPU has AVX2 or AVX512, the same is spelled in its
// instructions (registers.h), because compilers turn these loops into good ones only sometimes.
//
// Built by kernels/build.py with the system's compiler, called through ctypes: no Python, no torch.

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "registers.h"

namespace {

constexpr int64_t LEAST = 64;
constexpr int64_t SMALL = 1 << 16;  // weights that are sooner multiplied than shared

// One row of weights times N rows of activations, which are cols apart: a weight is widened once
// for all. How a sum is added up doesn't depend on N: the same text is written whoever shares the
// batch.
template <int N, typename Weight, typename Number>
inline void dots(const Weight *w, const Number *x, int64_t cols, float *sums) {
    int64_t c = 0;
    for (int i = 0; i < N; i++) sums[i] = 0.0f;
#ifdef WIDE
    Sixteen side[N];
    for (int i = 0; i < N; i++) side[i] = twice8(0.0f, 0.0f);
#if defined(WIDER) && defined(__AVX512BF16__)
    if constexpr (std::is_same_v<Weight, Bf16> && std::is_same_v<Number, Bf16>)
        for (; c + 32 <= cols; c += 32) {  // two products at once, which nothing is widened for
            const auto weights = (__m512bh)_mm512_loadu_si512(w + c);
            for (int i = 0; i < N; i++)
                side[i] = _mm512_dpbf16_ps(side[i], weights,
                                           (__m512bh)_mm512_loadu_si512(x + i * cols + c));
        }
#endif
    for (; c + 16 <= cols; c += 16) {
        const Sixteen weights = load16(w + c);
        for (int i = 0; i < N; i++)
            side[i] = multiply_add(weights, load16(x + i * cols + c), side[i]);
    }
    for (int i = 0; i < N; i++) sums[i] = sum(side[i]);
#endif
    for (; c < cols; c++) {
        const float wide = load1(w[c]);
        for (int i = 0; i < N; i++) sums[i] += wide * load1(x[i * cols + c]);
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
template <typename Weight, typename Bias, typename Number>
void product(const Weight *w, const Bias *bias, const Number *x, Number *y, int64_t n, int64_t rows,
             int64_t cols) {
#pragma omp parallel for schedule(guided, LEAST) if (rows * cols > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const Weight *row = w + r * cols;
        const float more = bias ? load1(bias[r]) : 0.0f;
        const auto some = [&](auto count, int64_t i) {
            constexpr int N = decltype(count)::value;
            float sums[N];
            dots<N>(row, x + i * cols, cols, sums);
            for (int k = 0; k < N; k++) store1(sums[k] + more, y + (i + k) * rows + r);
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

template <typename Number>
Eights eight_bits(const Number *x, int64_t groups) {
    Eights e;
    e.whole.resize(groups * GROUP), e.step.resize(groups), e.sum.resize(groups);
    for (int64_t g = 0; g < groups; g++) {
        const Number *from = x + g * GROUP;
        int8_t *to = e.whole.data() + g * GROUP;
        float largest = 1e-12f, poison = 0.0f;
#pragma omp simd reduction(max : largest) reduction(+ : poison)
        for (int j = 0; j < GROUP; j++) {
            const float size = std::fabs(load1(from[j]));
            largest = largest < size ? size : largest;
            poison += 0.0f * size;  // NaN, if the number is not one or has no end
        }
        const float step = largest / 127.0f + poison, per_step = 1.0f / step;
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < GROUP; j++) {
            const float steps = poison == 0.0f ? load1(from[j]) * per_step : 0.0f;
            const int32_t nearest = static_cast<int32_t>(std::rint(steps));
            to[j] = static_cast<int8_t>(nearest);
            sum += nearest;
        }
        e.step[g] = step, e.sum[g] = step * static_cast<float>(sum);
    }
    return e;
}

// The 32 whole numbers of a group as bytes.
struct Bytes {  // int8: -127 to 127
    static constexpr int64_t SIZE = 32;
    static int whole(const uint8_t *w, int j) {  // not a cast of w[j]: with VNNI, GCC 12 loses it
        return reinterpret_cast<const int8_t *>(w)[j];
    }
#ifdef WIDE
    static Whole load(const uint8_t *w) { return load_whole(w); }
    static Sixteen times(Whole w, Whole acts) { return times_signed(w, acts); }
#endif
};

struct Nibbles {  // 4 bits, 0 to 15: byte j holds number j in its lower half, j + 16 in the other
    static constexpr int64_t SIZE = 16;
    static int whole(const uint8_t *w, int j) { return j < 16 ? w[j] & 15 : w[j - 16] >> 4; }
#ifdef WIDE
    static Whole load(const uint8_t *w) { return load_nibbles(w); }
    static Sixteen times(Whole w, Whole acts) { return times_plain(w, acts); }
#endif
};

// Bytes to ask the memory for in advance. The CPU does that by itself, but keeps up only with
// weights of 2 bytes and more; with these, asking saves a quarter of the time.
constexpr int64_t AHEAD = 1024;

// One row of whole numbers times N rows of activations in 8 bits. Within a group the products are
// of whole numbers, which is exact; then they are multiplied by both steps (the weights' is fp16).
template <int N, typename Kind>
inline void dots_whole(const uint8_t *w, const Fp16 *scale, const Fp16 *lowest,
                       const Eights &x, int64_t i, int64_t groups, float *sums) {
    const int8_t *whole = x.whole.data() + i * groups * GROUP;
    const float *step = x.step.data() + i * groups, *sum_of = x.sum.data() + i * groups;
    int64_t g = 0;
    for (int k = 0; k < N; k++) sums[k] = 0.0f;
#ifdef WIDE
    Sixteen side[N];
    __m256 low[N];
    for (int k = 0; k < N; k++) side[k] = twice8(0.0f, 0.0f), low[k] = _mm256_setzero_ps();
    const auto two = [&](int64_t at, const float *both) {  // both: steps multiplied
        const uint8_t *from = w + at * Kind::SIZE;
        _mm_prefetch(reinterpret_cast<const char *>(from + AHEAD), _MM_HINT_T0);
        const Whole weights = Kind::load(from);
        for (int k = 0; k < N; k++) {
            const Whole acts = load_whole(whole + (k * groups + at) * GROUP);
            const Sixteen steps = twice8(both[8 * k], both[8 * k + 1]);
            side[k] = multiply_add(Kind::times(weights, acts), steps, side[k]);
        }
    };
    for (; g + 8 <= groups; g += 8) {
        float both[N * 8];
        for (int k = 0; k < N; k++) {
            const float *of = step + k * groups + g, *all = sum_of + k * groups + g;
            _mm256_storeu_ps(both + 8 * k, _mm256_mul_ps(load8(scale + g), load8(of)));
            if (lowest) low[k] = _mm256_fmadd_ps(load8(lowest + g), load8(all), low[k]);
        }
        for (int j = 0; j < 8; j += 2) two(g + j, both + j);
    }
    for (; g + 2 <= groups; g += 2) {
        float both[N * 8];
        for (int k = 0; k < N; k++) {
            for (int j = 0; j < 2; j++) {
                both[8 * k + j] = load1(scale[g + j]) * step[k * groups + g + j];
                if (lowest) sums[k] += load1(lowest[g + j]) * sum_of[k * groups + g + j];
            }
        }
        two(g, both);
    }
    for (int k = 0; k < N; k++) sums[k] += sum(side[k]) + sum(low[k]);
#endif
    for (; g < groups; g++) {
        for (int k = 0; k < N; k++) {
            const int8_t *acts = whole + (k * groups + g) * GROUP;
            int32_t sum = 0;
            for (int j = 0; j < GROUP; j++) sum += Kind::whole(w + g * Kind::SIZE, j) * acts[j];
            sums[k] += load1(scale[g]) * step[k * groups + g] * static_cast<float>(sum);
            if (lowest) sums[k] += load1(lowest[g]) * sum_of[k * groups + g];
        }
    }
}

// Every row of whole numbers times every row of activations. Widening so many weights to fp32 would
// take longer than reading them, so the activations are rounded to 8 bits first. Where there is a
// lowest value for each group, a weight is that plus step * whole.
template <typename Kind, typename Number>
void product_whole(const uint8_t *w, const Fp16 *w_scale, const Fp16 *w_lowest, const float *bias,
                   const Number *x, Number *y, int64_t n, int64_t rows, int64_t cols) {
    const int64_t groups = cols / GROUP;
    const Eights eights = eight_bits(x, n * groups);
#pragma omp parallel for schedule(guided, LEAST) if (rows * cols > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *row = w + r * groups * Kind::SIZE;
        const Fp16 *scale = w_scale + r * groups;
        const Fp16 *lowest = w_lowest ? w_lowest + r * groups : nullptr;
        const float more = bias ? bias[r] : 0.0f;
        const auto some = [&](auto count, int64_t i) {
            constexpr int N = decltype(count)::value;
            float sums[N];
            dots_whole<N, Kind>(row, scale, lowest, eights, i, groups, sums);
            for (int k = 0; k < N; k++) store1(sums[k] + more, y + (i + k) * rows + r);
        };
        each(n, [&](int64_t i) { some(std::integral_constant<int, MANY>(), i); },
             [&](int64_t i) { some(std::integral_constant<int, 1>(), i); });
    }
}

// x and y are bf16, or else fp32.
template <typename Compute>
void with_kind(int64_t bf16, const void *x, void *y, Compute compute) {
    if (bf16)
        compute(static_cast<const Bf16 *>(x), static_cast<Bf16 *>(y));
    else
        compute(static_cast<const float *>(x), static_cast<float *>(y));
}

}  // namespace

extern "C" {

// Weights of 4 bytes.
void product_f32(const float *w, const float *bias, const float *x, float *y, int64_t n,
                 int64_t rows, int64_t cols) {
    product(w, bias, x, y, n, rows, cols);
}

// Weights of 2 bytes; sums are fp32's.
void product_bf16(const Bf16 *w, const Bf16 *bias, const Bf16 *x, Bf16 *y, int64_t n, int64_t rows,
                  int64_t cols) {
    product(w, bias, x, y, n, rows, cols);
}

void product_f16(const Fp16 *w, const float *bias, const void *x, void *y, int64_t n, int64_t rows,
                 int64_t cols, int64_t bf16) {
    with_kind(bf16, x, y, [&](auto x, auto y) { product(w, bias, x, y, n, rows, cols); });
}

// Weights of 1 byte, and a step for each 32.
void product_i8(const uint8_t *w, const Fp16 *scale, const float *bias, const void *x, void *y,
                int64_t n, int64_t rows, int64_t cols, int64_t bf16) {
    with_kind(bf16, x, y, [&](auto x, auto y) {
        product_whole<Bytes>(w, scale, nullptr, bias, x, y, n, rows, cols);
    });
}

// Weights of 4 bits, a step and a lowest value for each 32.
void product_i4(const uint8_t *w, const Fp16 *scale, const Fp16 *lowest, const float *bias,
                const void *x, void *y, int64_t n, int64_t rows, int64_t cols, int64_t bf16) {
    with_kind(bf16, x, y, [&](auto x, auto y) {
        product_whole<Nibbles>(w, scale, lowest, bias, x, y, n, rows, cols);
    });
}

}  // extern "C"
