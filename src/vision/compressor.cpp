#include "vision/compressor.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/layers.h"

namespace llava_mini {
namespace {

constexpr float kLayerNormEps = 1e-5f;  // torch's default, whatever the tower has

// Weights of the four neighbours for a sample `t` in [0, 1) after the second one.
std::array<double, 4> cubic_weights(double t) {
    constexpr double a = -0.75;
    const auto near = [](double x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
    const auto far = [](double x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
    return {far(t + 1), near(t), near(1 - t), far(2 - t)};
}

int64_t square_side(int64_t positions) {
    const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(positions))));
    if (side * side != positions) throw_input("compressor: {} features do not form a square map", positions);
    return side;
}

}  // namespace

Matrix resize_position_grid(const Matrix& grid, int64_t to_side) {
    const int64_t side = square_side(grid.rows), width = grid.cols;
    const double scale = static_cast<double>(side) / static_cast<double>(to_side);
    const auto sample = [&](int64_t i) {  // first neighbour and weights of output index i
        const double centre = (static_cast<double>(i) + 0.5) * scale - 0.5;
        const double floor = std::floor(centre);
        return std::pair{static_cast<int64_t>(floor) - 1, cubic_weights(centre - floor)};
    };
    const auto clamp = [&](int64_t i) { return std::clamp<int64_t>(i, 0, side - 1); };

    Matrix resized(to_side * to_side, width);
    std::vector<double> sum(static_cast<size_t>(width));
    for (int64_t y = 0; y < to_side; ++y) {
        const auto [y0, wy] = sample(y);
        for (int64_t x = 0; x < to_side; ++x) {
            const auto [x0, wx] = sample(x);
            std::fill(sum.begin(), sum.end(), 0.0);
            for (int64_t j = 0; j < 4; ++j) {
                for (int64_t i = 0; i < 4; ++i) {
                    const double weight = wy[static_cast<size_t>(j)] * wx[static_cast<size_t>(i)];
                    const auto from = grid.row(clamp(y0 + j) * side + clamp(x0 + i));
                    for (size_t c = 0; c < sum.size(); ++c) sum[c] += weight * from[c];
                }
            }
            std::transform(sum.begin(), sum.end(), resized.row(y * to_side + x).begin(),
                           [](double v) { return static_cast<float>(v); });
        }
    }
    return resized;
}

CompressedFeatures average_pool(const Matrix& features, int grid_side) {
    const int64_t side = square_side(features.rows);
    if (side % grid_side != 0) {
        throw_input("compressor: a map of side {} cannot be cut into {} x {} equal blocks", side, grid_side,
                    grid_side);
    }
    const int64_t block = side / grid_side, queries = int64_t{grid_side} * grid_side;
    const float share = 1.0f / static_cast<float>(block * block);
    CompressedFeatures pooled{Matrix(queries, features.cols), Matrix(queries, features.rows)};
    for (int64_t i = 0; i < features.rows; ++i) {
        const int64_t query = i / side / block * grid_side + i % side / block;
        const auto from = features.row(i);
        const auto to = pooled.tokens.row(query);
        for (size_t c = 0; c < from.size(); ++c) to[c] += share * from[c];
        pooled.attention.row(query)[static_cast<size_t>(i)] = share;
    }
    return pooled;
}

Compressor::Compressor(const VisionWeights& weights, Backends& backends)
    : weights_(weights), backends_(backends) {}

const Matrix& Compressor::key_positions(int grid_side, int64_t keys) {
    const auto [entry, is_new] = key_positions_.try_emplace({grid_side, keys});
    if (is_new) {
        const ggml_tensor* stored = weights_[fmt::format("compressor.{}.pos_embed", grid_side)];
        Matrix grid(stored->ne[1], stored->ne[0]);
        ggml_backend_tensor_get(stored, grid.data.data(), 0, ggml_nbytes(stored));
        entry->second = resize_position_grid(grid, square_side(keys));
    }
    return entry->second;
}

void Compressor::build(int grid_side, int64_t keys) {
    const VisionHparams& hp = weights_.hparams();
    const VisionWeights& w = weights_;
    const int64_t d = hp.n_embd, heads = hp.compressor_heads(), head_dim = hp.compressor_head_dim,
                  queries = int64_t{grid_side} * grid_side;
    auto graph = std::make_unique<Graph>(backends_);
    ggml_context* ctx = graph->ctx();
    const auto grid_tensor = [&](const char* what) {
        return w[fmt::format("compressor.{}.{}", grid_side, what)];
    };

    // q = ln_q(query) + pos_embed;  kv = ln_kv(features);  k = kv + resized pos_embed;  v = kv
    ggml_tensor* features = graph->input("features", GGML_TYPE_F32, {d, keys});
    ggml_tensor* positions = graph->input("key_positions", GGML_TYPE_F32, {d, keys});
    ggml_tensor* q = ggml_add(ctx,
                              layer_norm(ctx, grid_tensor("query"), w["compressor.ln_q.weight"],
                                         w["compressor.ln_q.bias"], kLayerNormEps),
                              grid_tensor("pos_embed"));
    ggml_tensor* v =
        layer_norm(ctx, features, w["compressor.ln_kv.weight"], w["compressor.ln_kv.bias"], kLayerNormEps);
    ggml_tensor* k = ggml_add(ctx, v, positions);

    // in_proj_weight holds the projections of q, k and v one below the other.
    const auto project = [&](int64_t part, ggml_tensor* x) {
        ggml_tensor* weight = w["compressor.attn_qkv.weight"];
        ggml_tensor* bias = w["compressor.attn_qkv.bias"];
        const auto offset = static_cast<size_t>(part * d);
        ggml_tensor* y = linear(ctx, ggml_view_2d(ctx, weight, d, d, weight->nb[1], offset * weight->nb[1]),
                                ggml_view_1d(ctx, bias, d, offset * bias->nb[0]), x);
        return ggml_reshape_3d(ctx, y, head_dim, heads, y->ne[1]);
    };
    q = ggml_permute(ctx, project(0, q), 0, 2, 1, 3);                  // [head_dim, queries, heads]
    k = ggml_permute(ctx, project(1, k), 0, 2, 1, 3);                  // [head_dim, keys, heads]
    v = ggml_cont(ctx, ggml_permute(ctx, project(2, v), 1, 2, 0, 3));  // [keys, head_dim, heads]

    ggml_tensor* scores = ggml_mul_mat(ctx, k, q);  // [keys, queries, heads]
    ggml_prec_set_acc(scores, GGML_PREC_F32);
    ggml_tensor* attention =
        ggml_soft_max_ext(ctx, scores, nullptr, 1.0f / std::sqrt(static_cast<float>(head_dim)), 0.0f);
    ggml_tensor* mixed = ggml_mul_mat(ctx, v, attention);  // [head_dim, queries, heads]
    mixed = ggml_cont_2d(ctx, ggml_permute(ctx, mixed, 0, 2, 1, 3), d, queries);
    graph->output(attention, "compressor_attention_heads");
    graph->output(linear(ctx, w["compressor.attn_out.weight"], w["compressor.attn_out.bias"], mixed),
                  "compressor_out");
    graph->finish();
    graph_ = std::move(graph);
    graph_shape_ = {grid_side, keys};
}

CompressedFeatures Compressor::compress(const Matrix& features, int grid_side) {
    const VisionHparams& hp = weights_.hparams();
    if (std::find(hp.compressor_grids.begin(), hp.compressor_grids.end(), grid_side) ==
        hp.compressor_grids.end()) {
        throw_input("the model has no compression grid of side {} (it has {})", grid_side,
                    fmt::join(hp.compressor_grids, ", "));
    }
    if (hp.average_pooling) return average_pool(features, grid_side);
    if (graph_shape_ != std::pair{grid_side, features.rows}) build(grid_side, features.rows);
    graph_->set("features", features.data);
    graph_->set("key_positions", key_positions(grid_side, features.rows).data);
    graph_->compute();

    const int64_t queries = int64_t{grid_side} * grid_side, heads = hp.compressor_heads();
    const Matrix by_head = graph_->get("compressor_attention_heads");  // [heads * queries, keys]
    CompressedFeatures compressed{graph_->get("compressor_out"), Matrix(queries, features.rows)};
    for (int64_t row = 0; row < by_head.rows; ++row) {
        const auto from = by_head.row(row);
        const auto to = compressed.attention.row(row % queries);
        for (size_t i = 0; i < from.size(); ++i) to[i] += from[i] / static_cast<float>(heads);
    }
    return compressed;
}

}  // namespace llava_mini
