#include "trainer/layers.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <cmath>
#include <cstring>

#include "trainer/kernels.h"

namespace llava_mini::trainer {
namespace {

// x [T, heads, head_dim]; the first half of a head turns with the second.
torch::Tensor rotate(const torch::Tensor& x, const Rope& rope) {
    const auto halves = x.chunk(2, -1);
    const auto cos = rope.cos.unsqueeze(1), sin = rope.sin.unsqueeze(1);
    return torch::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

std::atomic<int64_t> operations = 0;

// Counts a product of so many multiply-adds; the backward pass has one such for the gradient of each factor.
void count_product(int64_t multiply_adds, bool first_learns, bool second_learns) {
    const int products = at::GradMode::is_enabled() ? 1 + int{first_learns} + int{second_learns} : 1;
    operations += 2 * products * multiply_adds;
}

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

float* data(const torch::Tensor& t) {
    return t.data_ptr<float>();
}

// Rows are shared out to torch's threads; of [rows, width], `work` gets first and last row.
template <typename Work>
void over_rows(int64_t rows, int64_t width, const Work& work) {
    at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width)), work);
}

// What attention's backward pass needs and no tensor holds; kept in one, as bytes.
torch::Tensor pack(const std::vector<kernels::AttentionSegment>& segments) {
    const auto bytes = static_cast<int64_t>(segments.size() * sizeof(kernels::AttentionSegment));
    const auto packed = torch::empty({bytes}, torch::kUInt8);
    std::memcpy(packed.data_ptr(), segments.data(), static_cast<size_t>(bytes));
    return packed;
}

std::vector<kernels::AttentionSegment> unpack(const torch::Tensor& packed) {
    std::vector<kernels::AttentionSegment> segments(static_cast<size_t>(packed.numel()) /
                                                    sizeof(kernels::AttentionSegment));
    std::memcpy(segments.data(), packed.data_ptr(), static_cast<size_t>(packed.numel()));
    return segments;
}

class Attention : public torch::autograd::Function<Attention> {
  public:
    static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& input, const HeadShape& heads,
                                 const Rope* rope, const std::vector<Segment>* segments) {
        const kernels::AttentionShape shape{input.size(0), heads.heads, heads.kv_heads, heads.head_dim};
        std::vector<kernels::AttentionSegment> plan;
        int64_t offset = 0, covered = 0;
        for (const Segment& s : *segments) {
            plan.push_back({s.start, s.length, s.prefix_start, s.prefix_length, s.causal, offset});
            offset += s.length * (s.prefix_length + s.length);
            covered += s.length;
        }
        const auto qkv = input.contiguous();
        torch::Tensor cos, sin;
        if (rope != nullptr) {
            cos = rope->cos.contiguous();
            sin = rope->sin.contiguous();
        }
        const auto rotated = torch::empty_like(qkv);
        kernels::rotate(shape, data(qkv), rope != nullptr ? data(cos) : nullptr,
                        rope != nullptr ? data(sin) : nullptr, 1.0f, data(rotated));
        const auto probabilities = torch::empty({offset * heads.heads});
        const auto out = covered == input.size(0)
                             ? torch::empty({input.size(0), heads.heads * heads.head_dim})
                             : torch::zeros({input.size(0), heads.heads * heads.head_dim});
        at::parallel_for(0, heads.kv_heads, 1, [&](int64_t first, int64_t last) {
            kernels::attention_forward(shape, plan, first, last, data(rotated), data(probabilities),
                                       data(out));
        });
        ctx->save_for_backward({rotated, probabilities, pack(plan), cos, sin});
        ctx->saved_data["heads"] = heads.heads;
        ctx->saved_data["kv_heads"] = heads.kv_heads;
        ctx->saved_data["head_dim"] = heads.head_dim;
        return out;
    }
    static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
        const auto saved = ctx->get_saved_variables();
        const auto &rotated = saved[0], &probabilities = saved[1], &cos = saved[3], &sin = saved[4];
        const kernels::AttentionShape shape{rotated.size(0), ctx->saved_data["heads"].toInt(),
                                            ctx->saved_data["kv_heads"].toInt(),
                                            ctx->saved_data["head_dim"].toInt()};
        const auto plan = unpack(saved[2]);
        const auto grad = grads[0].contiguous();
        const auto grad_rotated = torch::zeros_like(rotated);
        at::parallel_for(0, shape.kv_heads, 1, [&](int64_t first, int64_t last) {
            kernels::attention_backward(shape, plan, first, last, data(rotated), data(probabilities),
                                        data(grad), data(grad_rotated));
        });
        if (!cos.defined()) return {grad_rotated, {}, {}, {}};
        const auto grad_qkv = torch::empty_like(rotated);
        kernels::rotate(shape, data(grad_rotated), data(cos), data(sin), -1.0f, data(grad_qkv));
        return {grad_qkv, {}, {}, {}};
    }
};

class RmsNorm : public torch::autograd::Function<RmsNorm> {
  public:
    static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& input,
                                 const torch::Tensor& weight, double eps) {
        const auto x = input.contiguous();
        const int64_t width = x.size(-1), rows = x.numel() / width;
        const auto out = torch::empty_like(x), scale = torch::empty({rows});
        over_rows(rows, width, [&](int64_t first, int64_t last) {
            kernels::rms_norm_forward(last - first, width, eps, data(x) + first * width, data(weight),
                                      data(scale) + first, data(out) + first * width);
        });
        ctx->save_for_backward({x, weight, scale});
        return out;
    }
    static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
        const auto saved = ctx->get_saved_variables();
        const auto &x = saved[0], &weight = saved[1], &scale = saved[2];
        const auto grad = grads[0].contiguous();
        const int64_t width = x.size(-1), rows = x.numel() / width;
        const auto grad_x = torch::empty_like(x), grad_weight = torch::zeros_like(weight);
        kernels::rms_norm_backward(rows, width, data(x), data(weight), data(scale), data(grad), data(grad_x),
                                   data(grad_weight));
        return {grad_x, grad_weight, {}};
    }
};

class SwiGlu : public torch::autograd::Function<SwiGlu> {
  public:
    static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& input) {
        const auto gate_up = input.contiguous();
        const int64_t width = gate_up.size(-1) / 2, rows = gate_up.size(0);
        const auto out = torch::empty({rows, width});
        over_rows(rows, width, [&](int64_t first, int64_t last) {
            kernels::swiglu_forward(last - first, width, data(gate_up) + first * 2 * width,
                                    data(out) + first * width);
        });
        ctx->save_for_backward({gate_up});
        return out;
    }
    static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
        const auto gate_up = ctx->get_saved_variables()[0], grad = grads[0].contiguous();
        const auto out = torch::empty_like(gate_up);
        const int64_t width = gate_up.size(-1) / 2;
        over_rows(gate_up.size(0), width, [&](int64_t first, int64_t last) {
            kernels::swiglu_backward(last - first, width, data(gate_up) + first * 2 * width,
                                     data(grad) + first * width, data(out) + first * 2 * width);
        });
        return {out};
    }
};

class QuickGelu : public torch::autograd::Function<QuickGelu> {
  public:
    static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& input) {
        const auto x = input.contiguous(), out = torch::empty_like(x);
        over_rows(x.numel(), 1, [&](int64_t first, int64_t last) {
            kernels::quick_gelu_forward(last - first, data(x) + first, data(out) + first);
        });
        ctx->save_for_backward({x});
        return out;
    }
    static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
        const auto x = ctx->get_saved_variables()[0], grad = grads[0].contiguous(),
                   out = torch::empty_like(x);
        over_rows(x.numel(), 1, [&](int64_t first, int64_t last) {
            kernels::quick_gelu_backward(last - first, data(x) + first, data(grad) + first,
                                         data(out) + first);
        });
        return {out};
    }
};

class LinearBf16 : public torch::autograd::Function<LinearBf16> {
  public:
    static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& weight) {
        ctx->save_for_backward({weight});
        return at::linear(x, weight.to(torch::kFloat32));
    }
    static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
        return {torch::matmul(grads[0], ctx->get_saved_variables()[0].to(torch::kFloat32)), {}};
    }
};

}  // namespace

int64_t operations_so_far() {
    return operations;
}

torch::Tensor linear_f32(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias) {
    count_product(x.numel() * weight.size(0), x.requires_grad(), weight.requires_grad());
    return at::linear(x, weight, bias);
}

torch::Tensor linear_bf16(const torch::Tensor& x, const torch::Tensor& weight) {
    count_product(x.numel() * weight.size(0), x.requires_grad(), false);
    return LinearBf16::apply(x, weight);
}

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
            return torch::cat({x.slice(0, s.prefix_start, s.prefix_start + s.prefix_length), own})
                .transpose(0, 1);
        };
        auto scores =
            torch::matmul(q.slice(0, s.start, s.start + s.length).transpose(0, 1), all(k).transpose(1, 2));
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

torch::Tensor attention_scores(const torch::Tensor& qkv, const HeadShape& shape, const Rope& rope,
                               int64_t head, const torch::Tensor& rows) {
    const int64_t d = shape.head_dim, key_head = shape.heads + head / (shape.heads / shape.kv_heads);
    const auto part = [&](int64_t index) { return qkv.slice(1, index * d, (index + 1) * d).unsqueeze(1); };
    const auto q = rotate(part(head).index_select(0, rows),
                          {rope.cos.index_select(0, rows), rope.sin.index_select(0, rows)});
    const auto k = rotate(part(key_head), rope);
    return torch::matmul(q.squeeze(1), k.squeeze(1).t()) / std::sqrt(static_cast<double>(d));
}

torch::Tensor attention(const torch::Tensor& qkv, const HeadShape& shape, const Rope* rope,
                        const std::vector<Segment>& segments) {
    for (const Segment& s : segments) {  // scores, and the mean of the values
        const int64_t seen =
            s.length * s.prefix_length + (s.causal ? s.length * (s.length + 1) / 2 : s.length * s.length);
        count_product(2 * seen * shape.heads * shape.head_dim, qkv.requires_grad(), qkv.requires_grad());
    }
    if (!qkv.is_cpu()) return attention_reference(qkv, shape, rope, segments);
    return Attention::apply(qkv, shape, rope, &segments);
}

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
    if (x.is_cpu()) return RmsNorm::apply(x, weight, eps);
    return x * torch::rsqrt(x.square().mean(-1, true) + eps) * weight;
}

torch::Tensor swiglu(const torch::Tensor& gate_up) {
    if (gate_up.is_cpu()) return SwiGlu::apply(gate_up);
    const auto halves = gate_up.chunk(2, -1);
    return torch::silu(halves[0]) * halves[1];
}

torch::Tensor gelu(const torch::Tensor& x, bool quick) {
    if (!quick) return torch::gelu(x);
    return x.is_cpu() ? QuickGelu::apply(x) : x * torch::sigmoid(1.702 * x);
}

}  // namespace llava_mini::trainer
