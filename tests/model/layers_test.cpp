// Building blocks of the graphs against plain loops in double precision.
#include "model/layers.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "core/backend.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

std::vector<float> random_values(size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& v : values) v = normal(random);
    return values;
}

struct AttentionCase {
    int64_t head_dim, heads, kv_heads, queries, keys;
    bool causal;
};

class Attention : public testing::TestWithParam<AttentionCase> {};

// q [queries, heads, head_dim], k and v [keys, kv_heads, head_dim]; the last query sees all keys.
std::vector<float> attention_in_double(const AttentionCase& c, const std::vector<float>& q,
                                       const std::vector<float>& k, const std::vector<float>& v) {
    std::vector<float> out(q.size());
    for (int64_t i = 0; i < c.queries; ++i) {
        const int64_t seen = c.causal ? c.keys - c.queries + i + 1 : c.keys;
        for (int64_t h = 0; h < c.heads; ++h) {
            const int64_t kv = h / (c.heads / c.kv_heads);
            const auto at = [&](const std::vector<float>& t, int64_t row, int64_t x) {
                return double{t[static_cast<size_t>((row * c.kv_heads + kv) * c.head_dim + x)]};
            };
            std::vector<double> weight(static_cast<size_t>(seen));
            double total = 0;
            for (int64_t j = 0; j < seen; ++j) {
                double dot = 0;
                for (int64_t x = 0; x < c.head_dim; ++x) {
                    dot += double{q[static_cast<size_t>((i * c.heads + h) * c.head_dim + x)]} * at(k, j, x);
                }
                total += weight[static_cast<size_t>(j)] =
                    std::exp(dot / std::sqrt(static_cast<double>(c.head_dim)));
            }
            for (int64_t x = 0; x < c.head_dim; ++x) {
                double sum = 0;
                for (int64_t j = 0; j < seen; ++j)
                    sum += weight[static_cast<size_t>(j)] / total * at(v, j, x);
                out[static_cast<size_t>((i * c.heads + h) * c.head_dim + x)] = static_cast<float>(sum);
            }
        }
    }
    return out;
}

TEST_P(Attention, EqualsPlainLoops) {
    const AttentionCase c = GetParam();
    Backends backends(/*use_gpu=*/false, /*threads=*/2);
    Graph graph(backends);
    ggml_context* ctx = graph.ctx();
    const auto heads_first = [&](ggml_tensor* t) { return ggml_permute(ctx, t, 0, 2, 1, 3); };
    ggml_tensor* q = graph.input("q", GGML_TYPE_F32, {c.head_dim, c.heads, c.queries});
    ggml_tensor* k = graph.input("k", GGML_TYPE_F32, {c.head_dim, c.kv_heads, c.keys});
    ggml_tensor* v = graph.input("v", GGML_TYPE_F32, {c.head_dim, c.kv_heads, c.keys});
    ggml_tensor* mask = c.causal ? graph.input("mask", GGML_TYPE_F16, {c.keys, c.queries}) : nullptr;
    graph.output(
        attention(ctx, heads_first(q), heads_first(k), heads_first(v), mask, backends.attention_type()),
        "out");
    graph.finish();

    const auto q_values = random_values(static_cast<size_t>(c.head_dim * c.heads * c.queries), 1);
    const auto k_values = random_values(static_cast<size_t>(c.head_dim * c.kv_heads * c.keys), 2);
    const auto v_values = random_values(static_cast<size_t>(c.head_dim * c.kv_heads * c.keys), 3);
    graph.set("q", q_values);
    graph.set("k", k_values);
    graph.set("v", v_values);
    if (c.causal) {
        std::vector<ggml_fp16_t> seen;
        for (int64_t i = 0; i < c.queries; ++i) {
            for (int64_t j = 0; j < c.keys; ++j) {
                seen.push_back(ggml_fp32_to_fp16(j <= c.keys - c.queries + i ? 0.0f : -INFINITY));
            }
        }
        graph.set("mask", seen);
    }
    graph.compute();
    EXPECT_LT(
        test::max_difference(graph.get("out").data, attention_in_double(c, q_values, k_values, v_values)),
        2e-6);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Attention,
    testing::Values(AttentionCase{64, 4, 4, 65, 65, false}, AttentionCase{16, 4, 2, 30, 70, true},
                    AttentionCase{20, 3, 3, 65, 65, false}, AttentionCase{24, 2, 1, 70, 70, true},
                    AttentionCase{33, 2, 2, 9, 100, true}, AttentionCase{80, 2, 2, 100, 100, false},
                    AttentionCase{128, 4, 1, 1, 600, true}, AttentionCase{128, 8, 2, 5, 5, true}),
    [](const auto& info) {
        const AttentionCase& c = info.param;
        return fmt::format("dim{}_heads{}of{}_{}by{}_{}", c.head_dim, c.heads, c.kv_heads, c.queries, c.keys,
                           c.causal ? "causal" : "full");
    });

TEST(Layers, QuickGeluIsExact) {
    Backends backends(false, 1);
    Graph graph(backends);
    ggml_tensor* x = graph.input("x", GGML_TYPE_F32, {1001});
    graph.output(quick_gelu_inplace(graph.ctx(), ggml_dup(graph.ctx(), x)), "y");
    graph.finish();
    std::vector<float> values, expected;
    for (int i = -500; i <= 500; ++i) {
        const double v = i / 50.0;
        values.push_back(static_cast<float>(v));
        expected.push_back(static_cast<float>(v / (1.0 + std::exp(-1.702 * v))));
    }
    graph.set("x", values);
    graph.compute();
    EXPECT_LT(test::max_difference(graph.get("y").data, expected), 2e-6);
}

}  // namespace
}  // namespace llava_mini
