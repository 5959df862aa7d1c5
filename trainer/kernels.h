// The inner loops of training on a CPU, forward and backward, on plain memory. Torch's own operations spend
// more time on being called than on computing at the sizes of a small model; each of these does the work of
// ten. Compiled for several instruction sets, of which the processor's own is taken at run time.
#pragma once

#include <cstdint>
#include <vector>

namespace llava_mini::trainer::kernels {

/// One segment of attention (see layers.h), and where its probabilities are kept: for every head
/// [length, prefix_length + length] from probabilities + offset * heads.
struct AttentionSegment {
    int64_t start, length, prefix_start, prefix_length;
    bool causal;
    int64_t offset;
};

struct AttentionShape {
    int64_t rows, heads, kv_heads, head_dim;
    int64_t width() const { return (heads + 2 * kv_heads) * head_dim; }
};

/// Rotates q and k of every row (half-split pairs) by the angle of cos and sin [rows, head_dim / 2] times
/// `direction` (1 or -1) and copies v: qkv [rows, width] -> out. `cos` null: copies all.
void rotate(const AttentionShape& shape, const float* qkv, const float* cos, const float* sin,
            float direction, float* out);

/// Heads `first` to `last` (key-value heads) of all segments. qkv is rotated; out [rows, heads * head_dim].
void attention_forward(const AttentionShape& shape, const std::vector<AttentionSegment>& segments,
                       int64_t first, int64_t last, const float* qkv, float* probabilities, float* out);
/// grad_qkv [rows, width] is added to; it is with respect to the rotated q and k.
void attention_backward(const AttentionShape& shape, const std::vector<AttentionSegment>& segments,
                        int64_t first, int64_t last, const float* qkv, const float* probabilities,
                        const float* grad_out, float* grad_qkv);

/// out = x * scale * weight, scale [rows] = 1 / sqrt(mean(x^2) + eps).
void rms_norm_forward(int64_t rows, int64_t width, double eps, const float* x, const float* weight,
                      float* scale, float* out);
/// grad_weight [width] is added to; may be null.
void rms_norm_backward(int64_t rows, int64_t width, const float* x, const float* weight, const float* scale,
                       const float* grad_out, float* grad_x, float* grad_weight);

/// gate_up [rows, 2 * width] -> silu(gate) * up [rows, width].
void swiglu_forward(int64_t rows, int64_t width, const float* gate_up, float* out);
void swiglu_backward(int64_t rows, int64_t width, const float* gate_up, const float* grad_out,
                     float* grad_gate_up);

/// x * sigmoid(1.702 x).
void quick_gelu_forward(int64_t n, const float* x, float* out);
void quick_gelu_backward(int64_t n, const float* x, const float* grad_out, float* grad_x);

}  // namespace llava_mini::trainer::kernels
