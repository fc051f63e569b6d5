// What happens to a few tokens between the products: RMSNorm and rotary positions.
//
// While a text is written, these work on some hundred numbers each. PyTorch makes each of several
// functions, and calling those takes longer than computing; here it is one call. The formulas are
// those of model/layers.py and model/rotary.py, in fp32.
//
// Built and called as products.cpp is.

#include <cmath>
#include <cstdint>

extern "C" {

// y = x / sqrt(mean of x^2 + eps) * scale, for each of n rows. "omp simd" lets the sum be added up in
// several parts side by side, which is all that keeps a compiler from eight numbers at a time.
void rms_norm(const float *x, const float *scale, float *y, int64_t n, int64_t cols, float eps) {
    for (int64_t i = 0; i < n; i++, x += cols, y += cols) {
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < cols; c++) sum += x[c] * x[c];
        const float factor = 1.0f / std::sqrt(sum / static_cast<float>(cols) + eps);
        for (int64_t c = 0; c < cols; c++) y[c] = x[c] * factor * scale[c];
    }
}

// Turn each head's pairs of columns: y = x * cos + (x, its halves exchanged) * sin. Tokens lie one
// after another, each with its heads; cos and sin repeat after so many positions.
void rotate(const float *x, const float *cos, const float *sin, float *y, int64_t tokens,
            int64_t positions, int64_t heads, int64_t size) {
    const int64_t half = size / 2;
    for (int64_t t = 0; t < tokens; t++) {
        const float *c = cos + t % positions * size, *s = sin + t % positions * size;
        for (int64_t h = 0; h < heads; h++, x += size, y += size) {
            for (int64_t i = 0; i < half; i++) {
                y[i] = x[i] * c[i] + x[i + half] * s[i];
                y[i + half] = x[i + half] * c[i + half] + x[i] * s[i + half];
            }
        }
    }
}

}  // extern "C"
