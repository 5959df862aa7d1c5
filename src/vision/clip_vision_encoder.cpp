#include "vision/clip_vision_encoder.h"

#include <cmath>

#include "core/error.h"
#include "model/layers.h"

namespace llava_mini {
namespace {

// Puts the pixels of every patch in a row, in the order of the convolution's weights (channel, y, x), so that
// the patch convolution, whose stride is its size, becomes a matrix product: [views * P, 3 * patch * patch].
std::vector<float> patch_rows(const PixelValues& pixels, int patch) {
    const size_t size = static_cast<size_t>(pixels.size), p = static_cast<size_t>(patch), side = size / p;
    std::vector<float> rows(pixels.views * side * side * 3 * p * p);
    float* out = rows.data();
    for (size_t view = 0; view < static_cast<size_t>(pixels.views); ++view) {
        for (size_t py = 0; py < side; ++py) {
            for (size_t px = 0; px < side; ++px) {
                for (size_t channel = 0; channel < 3; ++channel) {
                    const float* plane = pixels.data.data() + (view * 3 + channel) * size * size;
                    for (size_t y = 0; y < p; ++y) {
                        const float* line = plane + (py * p + y) * size + px * p;
                        out = std::copy(line, line + p, out);
                    }
                }
            }
        }
    }
    return rows;
}

}  // namespace

ClipVisionEncoder::ClipVisionEncoder(const VisionWeights& weights, Backends& backends)
    : weights_(weights), backends_(backends) {}

void ClipVisionEncoder::build(int views) {
    const VisionHparams& hp = weights_.hparams();
    const VisionWeights& w = weights_;
    const int64_t d = hp.n_embd, patches = hp.patches(), rows = patches + 1, heads = hp.n_head,
                  head_dim = d / heads;
    const int64_t patch_values = int64_t{3} * hp.patch_size * hp.patch_size;

    auto graph = std::make_unique<Graph>(backends_);
    ggml_context* ctx = graph->ctx();

    // Embeddings: class token first, then the patches; learned positions; pre-LayerNorm.
    // x: [d, P + 1, views]
    ggml_tensor* pixels = graph->input("pixels", GGML_TYPE_F32, {patch_values, patches, views});
    ggml_tensor* x =
        ggml_mul_mat(ctx, ggml_reshape_2d(ctx, w["v.patch_embd.weight"], patch_values, d), pixels);
    ggml_tensor* class_token =
        ggml_repeat_4d(ctx, ggml_reshape_3d(ctx, w["v.class_embd"], d, 1, 1), d, 1, views, 1);
    x = ggml_concat(ctx, class_token, x, 1);
    x = ggml_add_inplace(ctx, x, w["v.position_embd.weight"]);
    x = layer_norm(ctx, x, w["v.pre_ln.weight"], w["v.pre_ln.bias"], hp.layer_norm_eps);
    ggml_set_name(x, "v.pre_ln");

    for (int i = 0; i < hp.n_layer; ++i) {
        const std::string layer = fmt::format("v.blk.{}.", i);
        const auto named = [&](const char* what, ggml_tensor* tensor) {
            return ggml_format_name(tensor, "%s%s", layer.c_str(), what);
        };
        const auto apply = [&](const char* what, ggml_tensor* to) {
            return linear(ctx, w[layer + what + ".weight"], w[layer + what + ".bias"], to);
        };
        const auto norm = [&](const char* what, ggml_tensor* to) {
            return layer_norm(ctx, to, w[layer + what + ".weight"], w[layer + what + ".bias"],
                              hp.layer_norm_eps);
        };
        const auto split_heads = [&](ggml_tensor* t) {  // [d, rows, views] -> [head_dim, rows, heads, views]
            return ggml_permute(ctx, ggml_reshape_4d(ctx, t, head_dim, heads, rows, views), 0, 2, 1, 3);
        };

        ggml_tensor* y = norm("ln1", x);
        ggml_tensor* q = split_heads(apply("attn_q", y));
        ggml_tensor* k = split_heads(apply("attn_k", y));
        ggml_tensor* v = split_heads(apply("attn_v", y));
        y = named("attention", attention(ctx, q, k, v, /*mask=*/nullptr, backends_.attention_type()));
        x = named("attn_residual",
                  ggml_add(ctx, x, apply("attn_out", ggml_reshape_3d(ctx, y, d, rows, views))));
        y = apply("ffn_up", norm("ln2", x));
        y = hp.activation == "gelu" ? ggml_gelu_erf_inplace(ctx, y) : quick_gelu_inplace(ctx, y);
        x = named("out", ggml_add(ctx, x, apply("ffn_down", y)));
    }

    // Without the class token.
    ggml_tensor* features =
        ggml_cont(ctx, ggml_view_3d(ctx, x, d, patches, views, x->nb[1], x->nb[2], x->nb[1]));
    graph->output(features, "vision_features");
    graph->finish();
    graph_ = std::move(graph);
    graph_views_ = views;
}

PatchFeatures ClipVisionEncoder::encode(const PixelValues& pixels) {
    const VisionHparams& hp = weights_.hparams();
    const size_t expected = size_t{3} * static_cast<size_t>(pixels.views) *
                            static_cast<size_t>(hp.image_size) * static_cast<size_t>(hp.image_size);
    if (pixels.views < 1 || pixels.size != hp.image_size || pixels.data.size() != expected) {
        throw_input("pixel values: {} views of side {} given, the model takes views of side {}", pixels.views,
                    pixels.size, hp.image_size);
    }
    if (graph_views_ != pixels.views) build(pixels.views);
    graph_->set("pixels", patch_rows(pixels, hp.patch_size));
    graph_->compute();
    const Matrix all = graph_->get("vision_features");

    PatchFeatures features;
    const int64_t patches = hp.patches();
    for (int view = 0; view < pixels.views; ++view) {
        Matrix m(patches, all.cols);
        const auto begin = all.data.begin() + view * patches * all.cols;
        m.data.assign(begin, begin + patches * all.cols);
        features.views.push_back(std::move(m));
    }
    return features;
}

}  // namespace llava_mini
