// The loops of kernels.h against torch's own operations, forward and backward.
#include "trainer/layers.h"

#include <gtest/gtest.h>

namespace llava_mini::trainer {
namespace {

// Largest difference of values and of all gradients, when both functions get the same input and output
// gradient.
double worst_difference(const std::function<torch::Tensor(const std::vector<torch::Tensor>&)>& a,
                        const std::function<torch::Tensor(const std::vector<torch::Tensor>&)>& b,
                        const std::vector<torch::Tensor>& inputs) {
    std::vector<torch::Tensor> outs;
    std::vector<std::vector<torch::Tensor>> gradients;
    for (const auto& function : {a, b}) {
        std::vector<torch::Tensor> copies;
        for (const auto& input : inputs) copies.push_back(input.clone().set_requires_grad(true));
        const auto out = function(copies);
        torch::manual_seed(2);
        (out * torch::randn_like(out)).sum().backward();
        outs.push_back(out.detach());
        gradients.emplace_back();
        for (const auto& copy : copies) gradients.back().push_back(copy.grad());
    }
    double worst = (outs[0] - outs[1]).abs().max().item<double>();
    for (size_t i = 0; i < inputs.size(); ++i) {
        worst = std::max(worst, (gradients[0][i] - gradients[1][i]).abs().max().item<double>());
    }
    return worst;
}

Rope some_rope(int64_t rows, int64_t half) {
    const auto angles = torch::arange(rows).unsqueeze(1) * torch::rand({1, half});
    return {angles.cos(), angles.sin()};
}

TEST(Layers, AttentionOfSegmentsEqualsTheReference) {
    torch::manual_seed(1);
    // A picture, two questions that see it, a sequence that sees all of itself, and rows of no segment.
    const std::vector<Segment> segments = {
        {0, 7, 0, 0, true}, {7, 5, 0, 7, true}, {12, 1, 0, 7, true}, {15, 6, 0, 0, false}};
    for (const HeadShape& shape : {HeadShape{4, 4, 8}, HeadShape{6, 2, 10}}) {
        const int64_t rows = 23, width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
        const Rope rope = some_rope(rows, shape.head_dim / 2);
        for (const Rope* angles : {static_cast<const Rope*>(nullptr), &rope}) {
            const auto run = [&](auto function) {
                return [&, function](const std::vector<torch::Tensor>& in) {
                    return function(in[0], shape, angles, segments);
                };
            };
            EXPECT_LT(
                worst_difference(run(attention), run(attention_reference), {torch::randn({rows, width})}),
                2e-5);
        }
    }
}

TEST(Layers, NormAndActivationsEqualTorchs) {
    torch::manual_seed(1);
    EXPECT_LT(worst_difference([](const auto& in) { return rms_norm(in[0], in[1], 1e-5); },
                               [](const auto& in) {
                                   return in[0] * torch::rsqrt(in[0].square().mean(-1, true) + 1e-5) * in[1];
                               },
                               {torch::randn({9, 50}), torch::randn({50})}),
              2e-5);
    EXPECT_LT(worst_difference([](const auto& in) { return swiglu(in[0]); },
                               [](const auto& in) {
                                   const auto halves = in[0].chunk(2, -1);
                                   return torch::silu(halves[0]) * halves[1];
                               },
                               {torch::randn({9, 50}) * 5}),
              2e-5);
    EXPECT_LT(worst_difference(
                  [](const auto& in) { return gelu(in[0], true); },
                  [](const auto& in) { return in[0] * torch::sigmoid(1.702 * in[0]); },
                  {torch::cat({torch::randn({450}) * 5, torch::full({1}, 200), torch::full({1}, -200)})}),
              2e-5);
}

TEST(Layers, ScoresAreThoseOfAttention) {
    torch::manual_seed(1);
    const int64_t rows = 7, heads = 4, kv = 2, d = 6;
    const auto qkv = torch::randn({rows, (heads + 2 * kv) * d});
    const auto angles = torch::rand({rows, d / 2}) * 3;
    const Rope rope{angles.cos(), angles.sin()};
    const auto out = attention_reference(qkv, {heads, kv, d}, &rope, {{0, rows, 0, 0, false}});
    for (int64_t head = 0; head < heads; ++head) {
        const auto asking = torch::tensor({5, 2}, torch::kInt64);
        const auto scores = attention_scores(qkv, {heads, kv, d}, rope, head, asking);
        const auto values = qkv.slice(1, (heads + kv + head / 2) * d, (heads + kv + head / 2 + 1) * d);
        const auto expected = out.slice(1, head * d, (head + 1) * d).index_select(0, asking);
        EXPECT_LT((torch::matmul(scores.softmax(1), values) - expected).abs().max().item<float>(), 1e-5f);
    }
}

TEST(Layers, OperationsAreCounted) {
    const auto counted = [](const std::function<void()>& work) {
        const int64_t before = operations_so_far();
        work();
        return operations_so_far() - before;
    };
    const auto x = torch::randn({5, 7}), weight = torch::randn({3, 7}).set_requires_grad(true);
    EXPECT_EQ(counted([&] { linear_f32(x, weight); }), 2 * 2 * 5 * 7 * 3);  // and the weight's gradient
    {
        const torch::NoGradGuard no_gradients;
        EXPECT_EQ(counted([&] { linear_f32(x, weight); }), 2 * 5 * 7 * 3);
    }
    // Two rows see three keys before them, and themselves: 4 and 5 keys.
    const std::vector<Segment> segments = {{0, 3, 0, 0, false}, {3, 2, 0, 3, true}};
    const auto qkv = torch::randn({5, 3 * 4 * 8});
    EXPECT_EQ(counted([&] {
                  attention(qkv, {4, 4, 8}, nullptr, segments);
              }),
              2 * 2 * (3 * 3 + 4 + 5) * 4 * 8);
}

}  // namespace
}  // namespace llava_mini::trainer
