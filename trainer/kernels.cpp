#include "trainer/kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#define LLAVA_MINI_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define LLAVA_MINI_INLINE static inline __attribute__((always_inline))

namespace llava_mini::trainer::kernels {
namespace {

// e^x to 2e-7 of itself, without branches: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' expf).
LLAVA_MINI_INLINE float fast_exp(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    const float n = std::floor(x * 1.44269504f + 0.5f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

LLAVA_MINI_INLINE float sigmoid(float x) {
    return 1.0f / (1.0f + fast_exp(-x));
}

// Rows of one head of keys or values, prefix first, as columns: packed[c * keys + j].
LLAVA_MINI_INLINE void pack_columns(const AttentionSegment& s, const float* base, int64_t stride, int64_t d,
                                    int64_t keys, float* packed) {
    for (int64_t j = 0; j < keys; ++j) {
        const int64_t row = j < s.prefix_length ? s.prefix_start + j : s.start + j - s.prefix_length;
        const float* from = base + row * stride;
        for (int64_t c = 0; c < d; ++c) packed[c * keys + j] = from[c];
    }
}

// scores[j] = sum over c of x[c] * columns[c * keys + j], for j < n.
LLAVA_MINI_INLINE void times_columns(const float* __restrict x, const float* __restrict columns, int64_t d,
                                     int64_t keys, int64_t n, float* __restrict scores) {
    for (int64_t j = 0; j < n; ++j) scores[j] = 0.0f;
    int64_t c = 0;
    for (; c + 4 <= d; c += 4) {
        const float *k0 = columns + c * keys, *k1 = k0 + keys, *k2 = k1 + keys, *k3 = k2 + keys;
        const float x0 = x[c], x1 = x[c + 1], x2 = x[c + 2], x3 = x[c + 3];
        for (int64_t j = 0; j < n; ++j) scores[j] += x0 * k0[j] + x1 * k1[j] + x2 * k2[j] + x3 * k3[j];
    }
    for (; c < d; ++c) {
        for (int64_t j = 0; j < n; ++j) scores[j] += x[c] * columns[c * keys + j];
    }
}

LLAVA_MINI_INLINE int64_t visible(const AttentionSegment& s, int64_t i) {
    return s.prefix_length + (s.causal ? i + 1 : s.length);
}

LLAVA_MINI_INLINE int64_t key_row(const AttentionSegment& s, int64_t j) {
    return j < s.prefix_length ? s.prefix_start + j : s.start + j - s.prefix_length;
}

}  // namespace

LLAVA_MINI_CLONES
void rotate(const AttentionShape& shape, const float* qkv, const float* cos, const float* sin,
            float direction, float* out) {
    const int64_t width = shape.width(), d = shape.head_dim, half = d / 2;
    const int64_t turned = shape.heads + shape.kv_heads;
    if (cos == nullptr) {
        std::memcpy(out, qkv, sizeof(float) * static_cast<size_t>(shape.rows * width));
        return;
    }
    for (int64_t row = 0; row < shape.rows; ++row) {
        const float *c = cos + row * half, *s = sin + row * half;
        for (int64_t head = 0; head < turned; ++head) {
            const float* from = qkv + row * width + head * d;
            float* to = out + row * width + head * d;
            for (int64_t i = 0; i < half; ++i) {
                const float a = from[i], b = from[i + half], turn = direction * s[i];
                to[i] = a * c[i] - b * turn;
                to[i + half] = b * c[i] + a * turn;
            }
        }
        std::memcpy(out + row * width + turned * d, qkv + row * width + turned * d,
                    sizeof(float) * static_cast<size_t>(shape.kv_heads * d));
    }
}

LLAVA_MINI_CLONES
void attention_forward(const AttentionShape& shape, const std::vector<AttentionSegment>& segments,
                       int64_t first, int64_t last, const float* qkv, float* probabilities, float* out) {
    const int64_t width = shape.width(), d = shape.head_dim, group = shape.heads / shape.kv_heads;
    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    std::vector<float> columns;
    for (const AttentionSegment& s : segments) {
        const int64_t keys = s.prefix_length + s.length;
        columns.resize(static_cast<size_t>(keys * d));
        for (int64_t kv = first; kv < last; ++kv) {
            const float* k = qkv + (shape.heads + kv) * d;
            const float* v = qkv + (shape.heads + shape.kv_heads + kv) * d;
            pack_columns(s, k, width, d, keys, columns.data());
            for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
                float* all = probabilities + s.offset * shape.heads + head * s.length * keys;
                for (int64_t i = 0; i < s.length; ++i) {
                    const int64_t n = visible(s, i);
                    float* p = all + i * keys;
                    times_columns(qkv + (s.start + i) * width + head * d, columns.data(), d, keys, n, p);
                    float most = p[0];
                    for (int64_t j = 1; j < n; ++j) most = std::max(most, p[j]);
                    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
                    for (int64_t j = 0; j < n; ++j) {
                        p[j] = fast_exp((p[j] - most) * scale);
                        sum += p[j];
                    }
                    const float inverse = 1.0f / sum;
                    for (int64_t j = 0; j < n; ++j) p[j] *= inverse;
                    float* __restrict to = out + (s.start + i) * shape.heads * d + head * d;
                    for (int64_t c = 0; c < d; ++c) to[c] = 0.0f;
                    for (int64_t j = 0; j < n; ++j) {
                        const float weight = p[j];
                        const float* __restrict value = v + key_row(s, j) * width;
                        for (int64_t c = 0; c < d; ++c) to[c] += weight * value[c];
                    }
                }
            }
        }
    }
}

LLAVA_MINI_CLONES
void attention_backward(const AttentionShape& shape, const std::vector<AttentionSegment>& segments,
                        int64_t first, int64_t last, const float* qkv, const float* probabilities,
                        const float* grad_out, float* grad_qkv) {
    const int64_t width = shape.width(), d = shape.head_dim, group = shape.heads / shape.kv_heads;
    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    std::vector<float> columns, dp;
    for (const AttentionSegment& s : segments) {
        const int64_t keys = s.prefix_length + s.length;
        columns.resize(static_cast<size_t>(keys * d));
        dp.resize(static_cast<size_t>(keys));
        for (int64_t kv = first; kv < last; ++kv) {
            const int64_t k_at = (shape.heads + kv) * d, v_at = (shape.heads + shape.kv_heads + kv) * d;
            pack_columns(s, qkv + v_at, width, d, keys, columns.data());
            for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
                const float* all = probabilities + s.offset * shape.heads + head * s.length * keys;
                for (int64_t i = 0; i < s.length; ++i) {
                    const int64_t n = visible(s, i);
                    const float* p = all + i * keys;
                    const float* __restrict go = grad_out + (s.start + i) * shape.heads * d + head * d;
                    times_columns(go, columns.data(), d, keys, n, dp.data());
                    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
                    for (int64_t j = 0; j < n; ++j) dot += p[j] * dp[static_cast<size_t>(j)];
                    const float* __restrict q = qkv + (s.start + i) * width + head * d;
                    float* __restrict gq = grad_qkv + (s.start + i) * width + head * d;
                    for (int64_t j = 0; j < n; ++j) {
                        const float weight = p[j], ds = weight * (dp[static_cast<size_t>(j)] - dot) * scale;
                        const int64_t row = key_row(s, j) * width;
                        const float* __restrict k = qkv + row + k_at;
                        float* __restrict gk = grad_qkv + row + k_at;
                        float* __restrict gv = grad_qkv + row + v_at;
                        for (int64_t c = 0; c < d; ++c) {
                            gq[c] += ds * k[c];
                            gk[c] += ds * q[c];
                            gv[c] += weight * go[c];
                        }
                    }
                }
            }
        }
    }
}

LLAVA_MINI_CLONES
void rms_norm_forward(int64_t rows, int64_t width, double eps, const float* x, const float* weight,
                      float* scale, float* out) {
    for (int64_t row = 0; row < rows; ++row) {
        const float* from = x + row * width;
        float* to = out + row * width;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) sum += from[i] * from[i];
        const float s = 1.0f / std::sqrt(sum / static_cast<float>(width) + static_cast<float>(eps));
        scale[row] = s;
        for (int64_t i = 0; i < width; ++i) to[i] = from[i] * s * weight[i];
    }
}

LLAVA_MINI_CLONES
void rms_norm_backward(int64_t rows, int64_t width, const float* x, const float* weight, const float* scale,
                       const float* grad_out, float* grad_x, float* grad_weight) {
    for (int64_t row = 0; row < rows; ++row) {
        const float *from = x + row * width, *g = grad_out + row * width;
        float* to = grad_x + row * width;
        const float s = scale[row];
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < width; ++i) dot += g[i] * weight[i] * from[i];
        const float back = dot * s * s * s / static_cast<float>(width);
        for (int64_t i = 0; i < width; ++i) to[i] = g[i] * weight[i] * s - from[i] * back;
        if (grad_weight != nullptr) {
            for (int64_t i = 0; i < width; ++i) grad_weight[i] += g[i] * from[i] * s;
        }
    }
}

LLAVA_MINI_CLONES
void swiglu_forward(int64_t rows, int64_t width, const float* gate_up, float* out) {
    for (int64_t row = 0; row < rows; ++row) {
        const float *gate = gate_up + row * 2 * width, *up = gate + width;
        float* to = out + row * width;
        for (int64_t i = 0; i < width; ++i) to[i] = gate[i] * sigmoid(gate[i]) * up[i];
    }
}

LLAVA_MINI_CLONES
void swiglu_backward(int64_t rows, int64_t width, const float* gate_up, const float* grad_out,
                     float* grad_gate_up) {
    for (int64_t row = 0; row < rows; ++row) {
        const float *gate = gate_up + row * 2 * width, *up = gate + width, *g = grad_out + row * width;
        float *to_gate = grad_gate_up + row * 2 * width, *to_up = to_gate + width;
        for (int64_t i = 0; i < width; ++i) {
            const float s = sigmoid(gate[i]);
            to_up[i] = g[i] * gate[i] * s;
            to_gate[i] = g[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s));
        }
    }
}

LLAVA_MINI_CLONES
void quick_gelu_forward(int64_t n, const float* x, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * sigmoid(1.702f * x[i]);
}

LLAVA_MINI_CLONES
void quick_gelu_backward(int64_t n, const float* x, const float* grad_out, float* grad_x) {
    for (int64_t i = 0; i < n; ++i) {
        const float s = sigmoid(1.702f * x[i]);
        grad_x[i] = grad_out[i] * s * (1.0f + 1.702f * x[i] * (1.0f - s));
    }
}

}  // namespace llava_mini::trainer::kernels
