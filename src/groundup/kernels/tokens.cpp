// What happens to a few tokens between the products: RMSNorm, rotary positions, attention.
//
// While a text is written, these work on some hundred numbers each. PyTorch makes each of several
// functions, and calling those takes longer than computing; here it is one call. The formulas are
// those of model/layers.py, model/rotary.py and model/attention.py, computed in fp32; what is read
// and written is fp32 or bf16, as is said last.
//
// Built and called as products.cpp is.

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "registers.h"

namespace {

constexpr int64_t SMALL = 1 << 15;  // products that are sooner computed than shared among threads
constexpr int64_t COLUMNS = 32;     // of a head's values that are mixed at a time, in registers

// "omp simd" lets the sum be added up in several parts side by side, which is all that keeps a
// compiler from eight numbers at a time.
template <typename Number>
inline float dot(const Number *a, const Number *b, int64_t n) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += load1(a[i]) * load1(b[i]);
    return sum;
}

// y = sum over s of weights[s] * values[s], in some columns of values, whose rows are size apart.
template <typename Number, typename Count>
inline void mix(const float *weights, const Number *values, Number *y, int64_t seen, int64_t size,
                Count columns) {
    float sums[COLUMNS] = {};
    for (int64_t s = 0; s < seen; s++, values += size)
        for (int64_t i = 0; i < columns; i++) sums[i] += weights[s] * load1(values[i]);
    for (int64_t i = 0; i < columns; i++) store1(sums[i], y + i);
}

// y = x / sqrt(mean of x^2 + eps) * scale, for each of n rows.
template <typename Number>
void rms_norm(const Number *x, const Number *scale, Number *y, int64_t n, int64_t cols, float eps) {
    for (int64_t i = 0; i < n; i++, x += cols, y += cols) {
        const float mean = dot(x, x, cols) / static_cast<float>(cols);
        const float factor = 1.0f / std::sqrt(mean + eps);
        for (int64_t c = 0; c < cols; c++) store1(load1(x[c]) * factor * load1(scale[c]), y + c);
    }
}

// Turn each head's pairs of columns: y = x * cos + (x, its halves exchanged) * sin. Tokens lie one
// after another, each with its heads; cos and sin repeat after so many positions.
template <typename Number>
void rotate(const Number *x, const Number *cos, const Number *sin, Number *y, int64_t tokens,
            int64_t positions, int64_t heads, int64_t size) {
    const int64_t half = size / 2;
    for (int64_t t = 0; t < tokens; t++) {
        const Number *c = cos + t % positions * size, *s = sin + t % positions * size;
        for (int64_t h = 0; h < heads; h++, x += size, y += size) {
            for (int64_t i = 0; i < half; i++) {
                const float a = load1(x[i]), b = load1(x[i + half]);
                store1(a * load1(c[i]) + b * load1(s[i]), y + i);
                store1(b * load1(c[i + half]) + a * load1(s[i + half]), y + i + half);
            }
        }
    }
}

struct Sizes {
    int64_t batch, heads, kv_heads, seen, size;  // B, H, K, S, D
    int64_t kv_row, kv_head;  // numbers from one row, and from one head, to the next
    int64_t mask_row;         // the same of the mask
    int64_t bf16;             // whether numbers are, or fp32
};

// One token of each row attends to those in a cache: q and y (B, H, D), keys and values
// (B, K, S, D) within a larger memory, mask (B, S), 0 where a query doesn't see a key; without one
// it sees all. (For more tokens PyTorch's kernel is faster: it reads a key once for several.)
template <typename Number>
void attend(const Number *q, const Number *keys, const Number *values, const uint8_t *mask,
            Number *y, const Sizes &z) {
    const float factor = 1.0f / std::sqrt(static_cast<float>(z.size));
#pragma omp parallel for if (z.batch * z.heads * z.seen * z.size > SMALL)
    for (int64_t row = 0; row < z.batch * z.heads; row++) {
        const int64_t b = row / z.heads, h = row % z.heads;
        const int64_t from = b * z.kv_row + h / (z.heads / z.kv_heads) * z.kv_head;
        const int64_t to = row * z.size;
        const uint8_t *see = mask ? mask + b * z.mask_row : nullptr;
        std::vector<float> weights(z.seen);
        float largest = -INFINITY, sum = 0.0f;
        for (int64_t s = 0; s < z.seen; s++) {
            const bool sees = !see || see[s];
            const Number *key = keys + from + s * z.size;
            weights[s] = sees ? factor * dot(q + to, key, z.size) : -INFINITY;
            largest = largest < weights[s] ? weights[s] : largest;
        }
        for (float &weight : weights) sum += weight = std::exp(weight - largest);
        for (float &weight : weights) weight /= sum;
        const Number *value = values + from;
        int64_t i = 0;
        for (; i + COLUMNS <= z.size; i += COLUMNS)
            mix(weights.data(), value + i, y + to + i, z.seen, z.size,
                std::integral_constant<int64_t, COLUMNS>());
        if (i < z.size) mix(weights.data(), value + i, y + to + i, z.seen, z.size, z.size - i);
    }
}

}  // namespace

extern "C" {

void rms_norm(const void *x, const void *scale, void *y, int64_t n, int64_t cols, float eps,
              int64_t bf16) {
    const auto all = [&](auto kind) {
        using Number = decltype(kind);
        rms_norm(static_cast<const Number *>(x), static_cast<const Number *>(scale),
                 static_cast<Number *>(y), n, cols, eps);
    };
    bf16 ? all(Bf16()) : all(float());
}

void rotate(const void *x, const void *cos, const void *sin, void *y, int64_t tokens,
            int64_t positions, int64_t heads, int64_t size, int64_t bf16) {
    const auto all = [&](auto kind) {
        using Number = decltype(kind);
        rotate(static_cast<const Number *>(x), static_cast<const Number *>(cos),
               static_cast<const Number *>(sin), static_cast<Number *>(y), tokens, positions, heads,
               size);
    };
    bf16 ? all(Bf16()) : all(float());
}

void attend(const void *q, const void *keys, const void *values, const uint8_t *mask, void *y,
            const Sizes *sizes) {
    const auto all = [&](auto kind) {
        using Number = decltype(kind);
        attend(static_cast<const Number *>(q), static_cast<const Number *>(keys),
               static_cast<const Number *>(values), mask, static_cast<Number *>(y), *sizes);
    };
    sizes->bf16 ? all(Bf16()) : all(float());
}

}  // extern "C"
