// Building blocks of the model, over rows: [T, width], the rows of all sequences one below the other.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/torch.h"

namespace llava_mini::trainer {

/// Consecutive rows that form a sequence: each sees the rows of its prefix, and of its own segment all
/// (`causal` false) or those up to itself.
struct Segment {
    int64_t start = 0, length = 0;
    int64_t prefix_start = 0, prefix_length = 0;
    bool causal = true;
};

/// Heads of an attention layer; the row of its input holds q, k and v: (heads + 2 * kv_heads) * head_dim.
struct HeadShape {
    int64_t heads, kv_heads, head_dim;
};

/// Rotary angles of every row: cosines and sines, [T, head_dim / 2].
struct Rope {
    torch::Tensor cos, sin;
};

/// Scaled dot-product attention of every segment; q and k are rotated first if `rope` is given (half-split
/// rotation). qkv [T, (heads + 2 kv_heads) * head_dim] -> [T, heads * head_dim]. Rows of no segment give
/// zeros.
torch::Tensor attention(const torch::Tensor& qkv, const HeadShape& shape, const Rope* rope,
                        const std::vector<Segment>& segments);

/// The same from torch's own operations, one segment at a time: what attention() is tested against, and what
/// runs where tensors are not on the CPU.
torch::Tensor attention_reference(const torch::Tensor& qkv, const HeadShape& shape, const Rope* rope,
                                  const std::vector<Segment>& segments);

/// Floating-point operations of this process's linear_f32(), linear_bf16() and attention() so far; a multiply-add
/// is two. Those of a backward pass are counted when its forward pass runs. Thread-safe.
int64_t operations_so_far();

/// x [T, in] times the transpose of a matrix [out, in], plus a bias [out] if there is one.
torch::Tensor linear_f32(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias = {});

/// Scores, before the softmax, that one head of an attention layer gives all T rows, seen or not, from some of them:
/// `rows` [N] -> [N, T].
torch::Tensor attention_scores(const torch::Tensor& qkv, const HeadShape& shape, const Rope& rope,
                               int64_t head, const torch::Tensor& rows);

/// x times the transpose of a matrix [out, in] kept in bf16, which does not learn: computed in f32, for which
/// the matrix is widened when it is needed, forward and backward (libtorch's own bf16 products are slow on
/// processors without instructions for them).
torch::Tensor linear_bf16(const torch::Tensor& x, const torch::Tensor& weight);

/// x / sqrt(mean(x^2) + eps) * weight.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

/// silu(gate) * up, of rows [gate | up].
torch::Tensor swiglu(const torch::Tensor& gate_up);

/// CLIP's x * sigmoid(1.702 x), or the exact GELU.
torch::Tensor gelu(const torch::Tensor& x, bool quick);

}  // namespace llava_mini::trainer
