#include "trainer/layers.h"

#include <cmath>

namespace llava_mini::trainer {
namespace {

// x [T, heads, head_dim]; the first half of a head turns with the second.
torch::Tensor rotate(const torch::Tensor& x, const Rope& rope) {
    const auto halves = x.chunk(2, -1);
    const auto cos = rope.cos.unsqueeze(1), sin = rope.sin.unsqueeze(1);
    return torch::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

}  // namespace

torch::Tensor attention_reference(const torch::Tensor& qkv, const HeadShape& shape, const Rope* rope,
                                  const std::vector<Segment>& segments) {
    const int64_t rows = qkv.size(0), h = shape.heads, h_kv = shape.kv_heads, d = shape.head_dim;
    const auto parts = qkv.split_with_sizes({h * d, h_kv * d, h_kv * d}, -1);
    auto q = parts[0].view({rows, h, d}), k = parts[1].view({rows, h_kv, d});
    auto v = parts[2].view({rows, h_kv, d});
    if (rope != nullptr) {
        q = rotate(q, *rope);
        k = rotate(k, *rope);
    }
    if (h != h_kv) {  // every key head serves a group of query heads
        k = k.repeat_interleave(h / h_kv, 1);
        v = v.repeat_interleave(h / h_kv, 1);
    }
    std::vector<torch::Tensor> outputs;
    int64_t done = 0;
    for (const Segment& s : segments) {
        if (s.start > done) outputs.push_back(qkv.new_zeros({s.start - done, h * d}));
        done = s.start + s.length;
        const auto all = [&](const torch::Tensor& x) {  // -> [heads, keys, d]
            const auto own = x.slice(0, s.start, s.start + s.length);
            if (s.prefix_length == 0) return own.transpose(0, 1);
            return torch::cat({x.slice(0, s.prefix_start, s.prefix_start + s.prefix_length), own}).transpose(0, 1);
        };
        auto scores = torch::matmul(q.slice(0, s.start, s.start + s.length).transpose(0, 1), all(k).transpose(1, 2));
        scores = scores / std::sqrt(static_cast<double>(d));
        if (s.causal) {
            const auto hidden = torch::ones({s.length, s.prefix_length + s.length}, torch::kBool)
                                    .triu(s.prefix_length + 1)
                                    .to(scores.device());
            scores = scores.masked_fill(hidden, -INFINITY);
        }
        outputs.push_back(
            torch::matmul(scores.softmax(-1), all(v)).transpose(0, 1).reshape({s.length, h * d}));
    }
    if (done < rows) outputs.push_back(qkv.new_zeros({rows - done, h * d}));
    return torch::cat(outputs);
}

torch::Tensor attention(const torch::Tensor& qkv, const HeadShape& shape, const Rope* rope,
                        const std::vector<Segment>& segments) {
    return attention_reference(qkv, shape, rope, segments);
}

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
    return x * torch::rsqrt(x.square().mean(-1, true) + eps) * weight;
}

torch::Tensor swiglu(const torch::Tensor& gate_up) {
    const auto halves = gate_up.chunk(2, -1);
    return torch::silu(halves[0]) * halves[1];
}

torch::Tensor gelu(const torch::Tensor& x, bool quick) {
    return quick ? x * torch::sigmoid(1.702 * x) : torch::gelu(x);
}

}  // namespace llava_mini::trainer
