#include "trainer/model.h"

#include <fmt/format.h>

#include <cmath>

#include "trainer/recompute.h"
#include "vision/compressor.h"

namespace llava_mini::trainer {
namespace {

// Means of C x C equal blocks of a square map [F, keys, d_v] -> [F, C * C, d_v].
torch::Tensor average_pool(const torch::Tensor& features, int grid_side) {
    const int64_t frames = features.size(0), d = features.size(2);
    const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(features.size(1)))));
    const int64_t block = side / grid_side;
    return features.reshape({frames, grid_side, block, grid_side, block, d})
        .mean({2, 4})
        .view({frames, int64_t{grid_side} * grid_side, d});
}

}  // namespace

LlavaMini::LlavaMini(const VisionHparams& vision, const LlamaHparams& language)
    : vision_(vision), language_(language), parameters_(vision, language) {
    for (int i = 0; i < language.head_dim / 2; ++i) {
        double frequency = std::pow(static_cast<double>(language.rope_theta), -2.0 * i / language.head_dim);
        if (!language.rope_freq_factors.empty()) {
            frequency /= language.rope_freq_factors[static_cast<size_t>(i)];
        }
        frequencies_.push_back(frequency / language.rope_linear_factor);
    }
}

BatchShape LlavaMini::batch_shape() const {
    return {vision_.image_size, vision_.patches(), vision_.resolution_ratio,
            !vision_.compressor_grids.empty(), vision_.prefusion.n_layer > 0};
}

Rope LlavaMini::rope(const torch::Tensor& positions) const {
    const auto angles = positions.to(torch::kFloat64).unsqueeze(1) *
                        torch::tensor(frequencies_, torch::kFloat64).unsqueeze(0);
    return {angles.cos().to(torch::kFloat32), angles.sin().to(torch::kFloat32)};
}

// A weight in f32, however it is kept.
torch::Tensor LlavaMini::value(const std::string& key) const {
    return parameters_[key].to(torch::kFloat32);
}

// x times the matrix key.weight, with its adapters, plus key.bias.
torch::Tensor LlavaMini::product(const torch::Tensor& x, const std::string& key, bool bias) const {
    const Leaf& leaf = parameters_.leaf(key + ".weight");
    const torch::Tensor shift = bias ? parameters_[key + ".bias"] : torch::Tensor();
    torch::Tensor y;
    if (leaf.value.scalar_type() == torch::kBFloat16) {
        y = linear_bf16(x, leaf.value);
        if (bias) y = y + shift;
    } else {
        y = linear_f32(x, leaf.value, shift);
    }
    if (leaf.adapters.empty()) return y;
    std::vector<torch::Tensor> added;  // pieces side by side
    for (size_t i = 0; i < leaf.adapters.size(); ++i) {
        const Leaf::Adapter& adapter = leaf.adapters[i];
        added.push_back(adapter.down ? linear_f32(linear_f32(x, parameters_.leaves()[*adapter.down].value),
                                                  parameters_.leaves()[*adapter.up].value)
                                     : torch::zeros({x.size(0), leaf.pieces[i].shape[0]}));
    }
    return torch::add(y, added.size() == 1 ? added[0] : torch::cat(added, 1), parameters_.adapter_scale());
}

torch::Tensor LlavaMini::embed(const torch::Tensor& ids) const {
    return parameters_["model.embed_tokens.weight"].index_select(0, ids).to(torch::kFloat32);
}

torch::Tensor LlavaMini::scores(const torch::Tensor& rows, bool head) const {
    const bool own = head && !language_.tied_embeddings;
    return product(rows, own ? "lm_head" : "model.embed_tokens");
}

// CLIP's vision transformer; pixels [views, 3, size, size] -> [views, P, d_v] without the class token.
torch::Tensor LlavaMini::tower(const torch::Tensor& pixels) {
    const Parameters& w = parameters_;
    const int64_t views = pixels.size(0), side = vision_.patches_per_side(), patch = vision_.patch_size;
    const int64_t patches = vision_.patches(), d = vision_.n_embd, rows = patches + 1;
    const std::string root = "vision_model.";
    const auto norm = [&](const torch::Tensor& x, const std::string& key) {
        return at::layer_norm(x, {d}, w[key + ".weight"], w[key + ".bias"], vision_.layer_norm_eps);
    };
    // A convolution whose stride is its size is a product: [views, side, patch, side, patch] by patches.
    auto x = pixels.view({views, 3, side, patch, side, patch})
                 .permute({0, 2, 4, 1, 3, 5})
                 .reshape({views, patches, 3 * patch * patch});
    x = linear_f32(x, value(root + "embeddings.patch_embedding.weight").view({d, -1}));
    x = torch::cat({w[root + "embeddings.class_embedding"].view({1, 1, d}).expand({views, 1, d}), x}, 1);
    x = norm(x + value(root + "embeddings.position_embedding.weight"), root + "pre_layrnorm").view({-1, d});

    std::vector<Segment> segments;
    for (int64_t view = 0; view < views; ++view) segments.push_back({view * rows, rows, 0, 0, false});
    const HeadShape heads{vision_.n_head, vision_.n_head, d / vision_.n_head};
    for (int i = 0; i < vision_.n_layer; ++i) {
        const std::string layer = fmt::format("{}encoder.layers.{}.", root, i);
        const auto apply = [&](const torch::Tensor& y, const std::string& key) {
            return product(y, layer + key, /*bias=*/true);
        };
        auto y = attention(apply(norm(x, layer + "layer_norm1"), "self_attn.qkv"), heads, nullptr, segments);
        x = x + apply(y, "self_attn.out_proj");
        y = gelu(apply(norm(x, layer + "layer_norm2"), "mlp.fc1"), vision_.activation == "quick_gelu");
        x = x + apply(y, "mlp.fc2");
    }
    return x.view({views, rows, d}).slice(1, 1);
}

// The bicubic resize of the compressor's position grid as a matrix: the resize of the runtime applied to the
// unit grids.
torch::Tensor LlavaMini::position_resize(int grid_side, int64_t to_side) {
    torch::Tensor& matrix = resize_[{grid_side, to_side}];
    if (!matrix.defined()) {
        const int64_t queries = int64_t{grid_side} * grid_side;
        Matrix unit(queries, queries);
        for (int64_t i = 0; i < queries; ++i) unit.row(i)[static_cast<size_t>(i)] = 1.0f;
        Matrix resized = resize_position_grid(unit, to_side);
        matrix = torch::from_blob(resized.data.data(), {resized.rows, resized.cols}).clone();
    }
    return matrix;
}

// Its LayerNorms have torch's epsilon, whatever the tower has.
constexpr double kCompressorEps = 1e-5;

// Cross-attention of C * C queries over the features [F, keys, d_v] of a square map -> [F, C * C, d_v].
torch::Tensor LlavaMini::compress(const torch::Tensor& features, int grid_side) {
    if (vision_.average_pooling) return average_pool(features, grid_side);
    const Parameters& w = parameters_;
    const int64_t frames = features.size(0), keys = features.size(1), d = vision_.n_embd;
    const int64_t heads = vision_.compressor_heads(), head_dim = vision_.compressor_head_dim;
    const std::string suffix = vision_.compressor_grids.size() == 1 ? "" : fmt::format(".{}", grid_side);
    const auto norm = [&](const torch::Tensor& x, const std::string& key) {
        return at::layer_norm(x, {d}, w[key + ".weight"], w[key + ".bias"], kCompressorEps);
    };
    const auto positions = w["compressor.pos_embed" + suffix];
    const auto q = norm(w["compressor.query" + suffix], "compressor.ln_q") + positions;
    const auto v = norm(features, "compressor.ln_kv");
    const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(keys))));
    const auto k = v + torch::matmul(position_resize(grid_side, side), positions);

    const auto weights = w["compressor.attn.in_proj_weight"].chunk(3);
    const auto biases = w["compressor.attn.in_proj_bias"].chunk(3);
    const auto split = [&](const torch::Tensor& x, size_t part) {  // -> [..., heads, rows, head_dim]
        const auto y = linear_f32(x, weights[part], biases[part]);
        return x.dim() == 2 ? y.view({1, -1, heads, head_dim}).transpose(1, 2)
                            : y.view({frames, -1, heads, head_dim}).transpose(1, 2);
    };
    const auto scores =
        torch::matmul(split(q, 0), split(k, 1).transpose(2, 3)) / std::sqrt(static_cast<double>(head_dim));
    const auto mixed = torch::matmul(scores.softmax(-1), split(v, 2)).transpose(1, 2);
    return product(mixed.reshape({frames, -1, d}), "compressor.attn.out_proj", /*bias=*/true);
}

torch::Tensor LlavaMini::project(const torch::Tensor& features) {
    return product(torch::gelu(product(features, "mm_projector.0", /*bias=*/true)), "mm_projector.2",
                   /*bias=*/true);
}

// A Llama decoder layer over packed rows.
torch::Tensor LlavaMini::llama_layer(const std::string& prefix, const torch::Tensor& x, const Rope& rope,
                                     const std::vector<Segment>& segments) const {
    const Parameters& w = parameters_;
    const HeadShape heads{language_.n_head, language_.n_head_kv, language_.head_dim};
    auto y = product(rms_norm(x, w[prefix + "input_layernorm.weight"], language_.rms_eps),
                     prefix + "self_attn.qkv");
    y = x + product(attention(y, heads, &rope, segments), prefix + "self_attn.o_proj");
    const auto gate_up =
        product(rms_norm(y, w[prefix + "post_attention_layernorm.weight"], language_.rms_eps),
                prefix + "mlp.gate_up");
    return y + product(swiglu(gate_up), prefix + "mlp.down_proj");
}

// Layers `first` up to `end`, "PREFIX0." and so on.
torch::Tensor LlavaMini::llama_layers(const std::string& prefix, int first, int end, torch::Tensor x,
                                      const Rope& rope, const std::vector<Segment>& segments) const {
    const bool language = prefix.starts_with("model.");
    const bool learns = language ? parameters_.learns(Part::kLanguage) || parameters_.learns(Part::kLora)
                                 : parameters_.learns(Part::kPrefusion);
    for (int i = first; i < end; ++i) {
        const std::string layer = fmt::format("{}{}.", prefix, i);
        // By value: the batch may be gone when the gradient is computed.
        x = checkpointing_ ? recomputed(x, learns,
                                        [=, this](const torch::Tensor& input) {
                                            return llama_layer(layer, input, rope, segments);
                                        })
                           : llama_layer(layer, x, rope, segments);
    }
    return x;
}

torch::Tensor LlavaMini::project_patches(const Batch& batch) {
    const int64_t views = batch.pixels.size(0) / batch.frames;
    const auto features = tower(batch.pixels).view({batch.frames, views, vision_.patches(), vision_.n_embd});
    return project(features.select(1, views - 1));
}

// What the taught heads of a layer see and fetch; x are the layer's inputs.
void LlavaMini::look(const Batch& batch, const torch::Tensor& x, const Rope& rope, int layer,
                     Outputs& out) const {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    const HeadShape heads{language_.n_head, language_.n_head_kv, language_.head_dim};
    const auto qkv = product(rms_norm(x, parameters_[prefix + "input_layernorm.weight"], language_.rms_eps),
                             prefix + "self_attn.qkv");
    const int64_t d = heads.head_dim;
    std::vector<torch::Tensor> fetched(static_cast<size_t>(heads.heads));  // by head
    for (size_t head = 0; head < std::min(kLookHeads, fetched.size()); ++head) {
        const LookTargets& look = batch.looks[head];
        if (!look.defined()) continue;
        const auto index = static_cast<int64_t>(head);
        torch::Tensor& scores = out.look_scores[head];
        scores = attention_scores(qkv, heads, rope, index, look.rows).masked_fill(~look.visible, -INFINITY);
        if (head == 0) continue;
        const int64_t value = heads.heads + heads.kv_heads + index / (heads.heads / heads.kv_heads);
        fetched[head] = torch::matmul(scores.softmax(1), qkv.slice(1, value * d, (value + 1) * d));
    }
    if (!batch.looks[1].defined()) return;
    for (torch::Tensor& of_head : fetched) {
        if (!of_head.defined()) of_head = torch::zeros({batch.looks[1].rows.size(0), d});
    }
    const auto added = product(torch::cat(fetched, 1), prefix + "self_attn.o_proj");
    const auto rows = x.index_select(0, batch.looks[1].rows).detach();
    out.found = added * torch::rsqrt(rows.square().mean(1, true) + language_.rms_eps) *
                parameters_["model.norm.weight"];
}

Outputs LlavaMini::forward(const Batch& batch) {
    const int64_t frames = batch.frames, n = vision_.resolution_ratio, patches = vision_.patches();
    const int64_t views = batch.pixels.size(0) / frames, d = language_.n_embd;
    Outputs out;
    const auto features = tower(batch.pixels).view({frames, views, patches, vision_.n_embd});
    const auto whole = features.select(1, views - 1);

    // The blocks of high resolution form one map, row by row.
    torch::Tensor blocks;
    if (n > 1) {
        const int64_t side = vision_.patches_per_side();
        blocks = features.slice(1, 0, n * n)
                     .reshape({frames, n, n, side, side, vision_.n_embd})
                     .permute({0, 1, 3, 2, 4, 5})
                     .reshape({frames, n * n * patches, vision_.n_embd});
    }
    out.projected_patches = project(whole);

    std::vector<torch::Tensor> vision;  // [F, positions, d] in the order of the pre-fusion
    torch::Tensor tokens;
    if (!vision_.compressor_grids.empty()) {
        tokens = project(compress(n > 1 ? blocks : whole, batch.grid_side));
        if (n > 1) vision.push_back(project(blocks));
        vision.push_back(out.projected_patches);
        vision.push_back(tokens);
    } else {
        tokens = out.projected_patches;
        vision.push_back(tokens);
    }

    torch::Tensor fused = torch::empty({0, d});
    if (vision_.prefusion.n_layer > 0) {
        const auto rows = torch::cat(vision, 1);
        const int64_t positions = rows.size(1);
        auto x = torch::cat({rows.view({frames * positions, d}), embed(batch.text_ids)});
        x = llama_layers("prefusion_layers.", 0, vision_.prefusion.n_layer, x,
                         rope(batch.prefusion_positions), batch.prefusion_segments);
        tokens = x.slice(0, 0, frames * positions)
                     .view({frames, positions, d})
                     .slice(1, positions - tokens.size(1));
        fused = x.slice(0, frames * positions);
        if (batch.text_targets.defined()) {
            fused = torch::zeros({batch.fused_rows, d})
                        .index_add(0, batch.text_targets, fused * batch.text_weights.unsqueeze(1));
        }
    }
    out.vision_tokens = tokens;
    out.fused = fused;
    if (batch.rows.size(0) == 0) return out;

    const auto table = torch::cat({fused, tokens.reshape({-1, d}), embed(batch.plain_ids)});
    auto x = out.inputs = table.index_select(0, batch.rows);
    const Rope angles = rope(batch.positions);
    // Where the aids are read off; each but in the smallest models after the one before.
    const int n_layer = language_.n_layer, half = std::min(n_layer - 1, std::max(2, n_layer / 2)),
              third = std::min(half, std::max(1, n_layer / 3));
    const auto layers = [&](int first, int end) {
        x = llama_layers("model.layers.", first, end, x, angles, batch.segments);
    };
    const auto norm = [&](const torch::Tensor& y) {
        return rms_norm(y, parameters_["model.norm.weight"], language_.rms_eps);
    };
    layers(0, third);
    if (batch.change_rows.defined()) out.changes = norm(x.index_select(0, batch.change_rows));
    layers(third, half);
    if (batch.change_rows.defined()) {
        out.changes_kept = norm(x.index_select(0, batch.change_rows));
        out.earlier = out.changes_kept.flip({1});
    }
    if (batch.looks[0].defined() || batch.looks[1].defined()) look(batch, x, angles, half, out);
    const int last = std::max(half, n_layer - 1);
    layers(half, last);
    if (batch.asked_rows.defined()) out.asked = norm(x.index_select(0, batch.asked_rows));
    layers(last, n_layer);
    out.logits = scores(norm(x.index_select(0, batch.label_rows)), /*head=*/true);
    return out;
}

}  // namespace llava_mini::trainer
