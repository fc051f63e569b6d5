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
// more than LEAST, so that one that has to wait for its core holds up few. For MANY rows of
// activations TALL rows of W are taken side by side, so that a number read from the cache serves
// several sums.
//
// The plain loops are the definition; where the CPU has AVX2 or AVX512, the same is spelled in its
// instructions (registers.h), because compilers turn these loops into good ones only sometimes.
//
// Built by kernels/build.py with the system's compiler, called through ctypes: no Python, no torch.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "registers.h"

namespace {

constexpr int64_t LEAST = 64;
constexpr int64_t SMALL = 1 << 16;  // weights that are sooner multiplied than shared

// Bytes to ask the memory for in advance. The CPU does that by itself, but keeps up only with
// weights of 2 bytes and more, and with one row at a time.
constexpr int64_t AHEAD = 1024;

#ifdef WIDE
// R rows, of so many bytes each, are read side by side, piece by piece, up to now read bytes of each.
// Ask for the next R rows, but in the order in which they lie in memory; this is for piece number r.
template <int R>
inline void ask(const void *rows, int64_t bytes, int64_t read, int64_t piece, int r) {
    const int64_t more = R > 1 ? R * (bytes + read) + r * piece : read + AHEAD;
    _mm_prefetch(static_cast<const char *>(rows) + more, _MM_HINT_T0);
}
#endif

// R rows of weights times N rows of activations, each cols apart: whatever is read serves as many
// sums. How one is added up depends on neither: the same text is written whoever shares the batch.
template <int R, int N, typename Weight, typename Number>
inline void dots(const Weight *w, const Number *x, int64_t cols, float (&sums)[R][N]) {
    int64_t c = 0;
    for (int r = 0; r < R; r++)
        for (int i = 0; i < N; i++) sums[r][i] = 0.0f;
#ifdef WIDE
    Sixteen side[R][N];
    for (int r = 0; r < R; r++)
        for (int i = 0; i < N; i++) side[r][i] = twice8(0.0f, 0.0f);
    constexpr int64_t SIZE = sizeof(Weight);
#if defined(WIDER) && defined(__AVX512BF16__)
    if constexpr (std::is_same_v<Weight, Bf16> && std::is_same_v<Number, Bf16>)
        for (; c + 32 <= cols; c += 32) {  // two products at once, which nothing is widened for
            __m512bh weights[R];
            for (int r = 0; r < R; r++) {
                if (R > 1) ask<R>(w, cols * SIZE, c * SIZE, 32 * SIZE, r);
                weights[r] = (__m512bh)_mm512_loadu_si512(w + r * cols + c);
            }
            for (int i = 0; i < N; i++) {
                const auto acts = (__m512bh)_mm512_loadu_si512(x + i * cols + c);
                for (int r = 0; r < R; r++)
                    side[r][i] = _mm512_dpbf16_ps(side[r][i], weights[r], acts);
            }
        }
#endif
    for (; c + 16 <= cols; c += 16) {
        Sixteen weights[R];
        for (int r = 0; r < R; r++) {
            if (R > 1) ask<R>(w, cols * SIZE, c * SIZE, 16 * SIZE, r);
            weights[r] = load16(w + r * cols + c);
        }
        for (int i = 0; i < N; i++)
            for (int r = 0; r < R; r++)  // acts not by name: with AVX2, GCC then lacks a register
                side[r][i] = multiply_add(weights[r], load16(x + i * cols + c), side[r][i]);
    }
    for (int r = 0; r < R; r++)
        for (int i = 0; i < N; i++) sums[r][i] = sum(side[r][i]);
#endif
    for (; c < cols; c++)
        for (int r = 0; r < R; r++)
            for (int i = 0; i < N; i++)
                sums[r][i] += load1(w[r * cols + c]) * load1(x[i * cols + c]);
}

// Rows of activations, and of weights, at a time: their sums fill half of the registers.
constexpr int MANY = 4;
#ifdef WIDER
constexpr int TALL = 4;
#else
constexpr int TALL = 1;  // AVX2 has 16, and two hold what one of AVX512's 32 does
#endif

// What is to be done for count rows, K at a time and the last ones one by one.
template <int K, typename Some>
inline void each(int64_t count, Some some) {
    int64_t i = 0;
    for (; i + K <= count; i += K) some(std::integral_constant<int, K>(), i);
    for (; i < count; i++) some(std::integral_constant<int, 1>(), i);
}

// Every row of weights times every row of activations: dots_of(sums, r, i) computes R x N of them,
// from weights r and activations i on. Threads share the rows of weights.
template <typename Bias, typename Number, typename Dots>
void products(int64_t n, int64_t rows, int64_t cols, const Bias *bias, Number *y, Dots dots_of) {
    const int64_t tall = n < MANY ? 1 : TALL;  // for fewer, reading from memory is the limit
    const int64_t blocks = (rows + tall - 1) / tall;
#pragma omp parallel for schedule(guided, LEAST / tall) if (rows * cols > SMALL)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t from = block * tall, left = std::min(tall, rows - from);
        each<TALL>(left, [&](auto weights, int64_t at) {
            each<MANY>(n, [&](auto acts, int64_t i) {
                constexpr int R = decltype(weights)::value, N = decltype(acts)::value;
                const int64_t first = from + at;
                float sums[R][N];
                dots_of(sums, first, i);
                for (int r = 0; r < R; r++) {
                    const float more = bias ? load1(bias[first + r]) : 0.0f;
                    for (int k = 0; k < N; k++)
                        store1(sums[r][k] + more, y + (i + k) * rows + first + r);
                }
            });
        });
    }
}

template <typename Weight, typename Bias, typename Number>
void product(const Weight *w, const Bias *bias, const Number *x, Number *y, int64_t n, int64_t rows,
             int64_t cols) {
    products(n, rows, cols, bias, y, [&](auto &sums, int64_t r, int64_t i) {
        dots(w + r * cols, x + i * cols, cols, sums);
    });
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
#pragma omp parallel for if (groups * GROUP > SMALL / 8)
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

// R rows of whole numbers times N rows of activations in 8 bits. Within a group the products are
// of whole numbers, which is exact; then they are multiplied by both steps (the weights' is fp16).
template <typename Kind, int R, int N>
inline void dots_whole(const uint8_t *w, const Fp16 *scale, const Fp16 *lowest, const Eights &x,
                       int64_t i, int64_t groups, float (&sums)[R][N]) {
    const int8_t *whole = x.whole.data() + i * groups * GROUP;
    const float *step = x.step.data() + i * groups, *sum_of = x.sum.data() + i * groups;
    int64_t g = 0;
    for (int r = 0; r < R; r++)
        for (int k = 0; k < N; k++) sums[r][k] = 0.0f;
#ifdef WIDE
    Sixteen side[R][N];
    __m256 low[R][N];
    for (int r = 0; r < R; r++)
        for (int k = 0; k < N; k++)
            side[r][k] = twice8(0.0f, 0.0f), low[r][k] = _mm256_setzero_ps();
    const auto two = [&](int64_t at, const float (*both)[N][8], int j) {  // both: steps multiplied
        Whole weights[R];
        for (int r = 0; r < R; r++) {
            constexpr int64_t SIZE = Kind::SIZE;
            ask<R>(w, groups * SIZE, at * SIZE, 2 * SIZE, r);
            weights[r] = Kind::load(w + (r * groups + at) * SIZE);
        }
        for (int k = 0; k < N; k++) {
            const Whole acts = load_whole(whole + (k * groups + at) * GROUP);
            for (int r = 0; r < R; r++) {
                const Sixteen steps = twice8(both[r][k][j], both[r][k][j + 1]);
                side[r][k] = multiply_add(Kind::times(weights[r], acts), steps, side[r][k]);
            }
        }
    };
    for (; g + 8 <= groups; g += 8) {
        float both[R][N][8];
        for (int r = 0; r < R; r++)
            for (int k = 0; k < N; k++) {
                const float *of = step + k * groups + g, *all = sum_of + k * groups + g;
                const Fp16 *ours = scale + r * groups + g;
                _mm256_storeu_ps(both[r][k], _mm256_mul_ps(load8(ours), load8(of)));
                if (lowest)
                    low[r][k] =
                        _mm256_fmadd_ps(load8(lowest + r * groups + g), load8(all), low[r][k]);
            }
        for (int j = 0; j < 8; j += 2) two(g + j, both, j);
    }
    for (; g + 2 <= groups; g += 2) {
        float both[R][N][8];
        for (int r = 0; r < R; r++)
            for (int k = 0; k < N; k++)
                for (int j = 0; j < 2; j++) {
                    both[r][k][j] = load1(scale[r * groups + g + j]) * step[k * groups + g + j];
                    if (lowest)
                        sums[r][k] +=
                            load1(lowest[r * groups + g + j]) * sum_of[k * groups + g + j];
                }
        two(g, both, 0);
    }
    for (int r = 0; r < R; r++)
        for (int k = 0; k < N; k++) {
            const float all = sum(side[r][k]);
            sums[r][k] += lowest ? all + sum(low[r][k]) : all;
        }
#endif
    for (; g < groups; g++)
        for (int r = 0; r < R; r++)
            for (int k = 0; k < N; k++) {
                const uint8_t *weights = w + (r * groups + g) * Kind::SIZE;
                const int8_t *acts = whole + (k * groups + g) * GROUP;
                int32_t sum = 0;
                for (int j = 0; j < GROUP; j++) sum += Kind::whole(weights, j) * acts[j];
                sums[r][k] += load1(scale[r * groups + g]) * step[k * groups + g] *
                              static_cast<float>(sum);
                if (lowest) sums[r][k] += load1(lowest[r * groups + g]) * sum_of[k * groups + g];
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
    products(n, rows, cols, bias, y, [&](auto &sums, int64_t r, int64_t i) {
        const Fp16 *scale = w_scale + r * groups;
        const Fp16 *lowest = w_lowest ? w_lowest + r * groups : nullptr;
        dots_whole<Kind>(w + r * groups * Kind::SIZE, scale, lowest, eights, i, groups, sums);
    });
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
