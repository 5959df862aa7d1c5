#include "prefusion/modality_prefusion.h"

#include <cmath>
#include <numeric>

#include "core/error.h"
#include "model/layers.h"
#include "model/tensor_names.h"

namespace llava_mini {
namespace {

const ggml_fp16_t kSeen = ggml_fp32_to_fp16(0.0f);
const ggml_fp16_t kHidden = ggml_fp32_to_fp16(-INFINITY);

}  // namespace

// One decoder layer: its weights, and its two halves around the attention.
struct ModalityPrefusion::Layer {
    const ModalityPrefusion& owner;
    std::string name;
    const LlamaHparams& hp = owner.weights_.hparams().prefusion;

    ggml_tensor* weight(const char* what) const { return owner.weights_[name + what + ".weight"]; }
    ggml_tensor* project(ggml_context* ctx, const char* what, ggml_tensor* x) const {
        return ggml_mul_mat(ctx, weight(what), x);
    }
    ggml_tensor* norm(ggml_context* ctx, const char* what, ggml_tensor* x) const {
        return rms_norm(ctx, x, weight(what), hp.rms_eps);
    }
    // [heads * head_dim, rows] -> [head_dim, heads, rows]
    ggml_tensor* heads(ggml_context* ctx, ggml_tensor* x, int count) const {
        return ggml_reshape_3d(ctx, x, hp.head_dim, count, x->ne[1]);
    }
    // normed [d, rows] -> [head_dim, heads, rows], rotated
    ggml_tensor* queries(ggml_context* ctx, ggml_tensor* normed, ggml_tensor* positions) const {
        return owner.rope(ctx, heads(ctx, project(ctx, "attn_q", normed), hp.n_head), positions);
    }
    ggml_tensor* keys(ggml_context* ctx, ggml_tensor* normed, ggml_tensor* positions) const {
        return owner.rope(ctx, heads(ctx, project(ctx, "attn_k", normed), hp.n_head_kv), positions);
    }
    ggml_tensor* values(ggml_context* ctx, ggml_tensor* normed) const {
        return heads(ctx, project(ctx, "attn_v", normed), hp.n_head_kv);
    }
    // Attention, both residuals and the feed-forward network. x [d, rows] is the residual stream of the rows
    // that q belongs to; k and v [head_dim, kv heads, keys]; mask [keys, rows].
    ggml_tensor* finish(ggml_context* ctx, ggml_tensor* x, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v,
                        ggml_tensor* mask) const {
        const auto by_head = [&](ggml_tensor* t) { return ggml_permute(ctx, t, 0, 2, 1, 3); };
        ggml_tensor* y =
            attention(ctx, by_head(q), by_head(k), by_head(v), mask, owner.backends_.attention_type());
        y = ggml_reshape_2d(ctx, y, int64_t{hp.head_dim} * hp.n_head, x->ne[1]);
        x = ggml_add(ctx, x, project(ctx, "attn_output", y));
        ggml_format_name(x, "%sattn_residual", name.c_str());
        y = norm(ctx, "ffn_norm", x);
        y = ggml_swiglu_split(ctx, project(ctx, "ffn_gate", y), project(ctx, "ffn_up", y));
        x = ggml_add(ctx, x, project(ctx, "ffn_down", y));
        return ggml_format_name(x, "%sout", name.c_str());
    }
};

ModalityPrefusion::ModalityPrefusion(const VisionWeights& weights, Backends& backends, ggml_type kv_type)
    : weights_(weights), backends_(backends), kv_type_(kv_type) {}

ModalityPrefusion::Layer ModalityPrefusion::layer(int index) const {
    return {*this, fmt::format("prefusion.blk.{}.", index)};
}

// Half-split rotation (Hugging Face's order, ggml's NEOX), with Llama 3's frequency factors where the model
// has them.
ggml_tensor* ModalityPrefusion::rope(ggml_context* ctx, ggml_tensor* x, ggml_tensor* positions) const {
    const LlamaHparams& hp = weights_.hparams().prefusion;
    return ggml_rope_ext(ctx, x, positions, weights_.find(kPrefusionRopeFactors), hp.head_dim,
                         GGML_ROPE_TYPE_NEOX,
                         /*n_ctx_orig=*/0, hp.rope_theta, 1.0f / hp.rope_linear_factor, /*ext_factor=*/0.0f,
                         /*attn_factor=*/1.0f, /*beta_fast=*/0.0f, /*beta_slow=*/0.0f);
}

void ModalityPrefusion::build_vision(int64_t positions, int64_t tokens, bool trim) {
    const LlamaHparams& hp = weights_.hparams().prefusion;
    const int64_t d = hp.n_embd, kv_width = int64_t{hp.head_dim} * hp.n_head_kv;
    VisionGraph built{positions,
                      tokens,
                      trim,
                      std::make_unique<Graph>(backends_),
                      std::make_unique<PrefusionKv>(backends_, hp, positions, kv_type_),
                      {}};
    Graph& graph = *built.graph;
    ggml_context* ctx = graph.ctx();
    ggml_tensor* x = graph.input("rows", GGML_TYPE_F32, {d, positions});
    ggml_tensor* rope_positions = graph.input("positions", GGML_TYPE_I32, {positions});
    ggml_tensor* mask = graph.input("mask", GGML_TYPE_F16, {positions, positions});

    for (int i = 0; i < hp.n_layer; ++i) {
        const Layer layer = this->layer(i);
        ggml_tensor* normed = layer.norm(ctx, "attn_norm", x);
        ggml_tensor* k = layer.keys(ctx, normed, rope_positions);
        ggml_tensor* v = layer.values(ctx, normed);
        graph.effect(ggml_cpy(ctx, ggml_reshape_2d(ctx, k, kv_width, positions), built.kv->keys(i)));
        graph.effect(ggml_cpy(ctx, ggml_reshape_2d(ctx, v, kv_width, positions), built.kv->values(i)));

        ggml_tensor* query_positions = rope_positions;
        if (trim && i + 1 == hp.n_layer) {  // from here on only the compressed positions matter
            const auto last_rows = [&](ggml_tensor* t) {
                return ggml_view_2d(ctx, t, t->ne[0], tokens, t->nb[1],
                                    static_cast<size_t>(positions - tokens) * t->nb[1]);
            };
            normed = last_rows(normed);
            x = last_rows(x);
            mask = last_rows(mask);
            query_positions = ggml_view_1d(ctx, rope_positions, tokens,
                                           static_cast<size_t>(positions - tokens) * rope_positions->nb[0]);
        }
        x = layer.finish(ctx, x, layer.queries(ctx, normed, query_positions), k, v, mask);
    }
    graph.output(x, "outputs");
    graph.finish();

    built.mask.resize(static_cast<size_t>(positions * positions));
    for (int64_t query = 0; query < positions; ++query) {
        for (int64_t key = 0; key < positions; ++key) {
            built.mask[static_cast<size_t>(query * positions + key)] = key <= query ? kSeen : kHidden;
        }
    }
    vision_ = std::move(built);
}

PrefusedVision ModalityPrefusion::encode_vision(const Matrix& rows, int64_t tokens, bool trim) {
    const LlamaHparams& hp = weights_.hparams().prefusion;
    if (!vision_.graph || vision_.positions != rows.rows || vision_.tokens != tokens ||
        vision_.trim != trim) {
        build_vision(rows.rows, tokens, trim);
    }
    std::vector<int32_t> positions(static_cast<size_t>(rows.rows));
    std::iota(positions.begin(), positions.end(), 0);
    vision_.graph->set("rows", rows.data);
    vision_.graph->set("positions", positions);
    vision_.graph->set("mask", vision_.mask);
    vision_.graph->compute();

    PrefusedVision result;
    result.kv = std::make_shared<PrefusionKv>(backends_, hp, rows.rows, kv_type_);
    for (int i = 0; i < hp.n_layer; ++i) {
        ggml_backend_tensor_copy(vision_.kv->keys(i), result.kv->keys(i));
        ggml_backend_tensor_copy(vision_.kv->values(i), result.kv->values(i));
    }
    Matrix outputs = vision_.graph->get("outputs");
    if (trim) {
        result.tokens = std::move(outputs);
    } else {
        result.tokens = Matrix(tokens, outputs.cols);
        std::copy(outputs.data.end() - tokens * outputs.cols, outputs.data.end(), result.tokens.data.begin());
        result.outputs = std::move(outputs);
    }
    return result;
}

FusedText ModalityPrefusion::fuse_text(const TextRows& text, const PrefusionKv& vision,
                                       const PrefusionKv* earlier, int64_t earlier_rows, bool keep_kv) {
    const LlamaHparams& hp = weights_.hparams().prefusion;
    const int64_t n = text.embeddings.rows, kv_width = int64_t{hp.head_dim} * hp.n_head_kv,
                  before = vision.positions() + earlier_rows, keys = before + n;
    FusedText result;
    if (keep_kv) result.kv = std::make_shared<PrefusionKv>(backends_, hp, earlier_rows + n, kv_type_);

    Graph graph(backends_);
    ggml_context* ctx = graph.ctx();
    ggml_tensor* x = graph.input("rows", GGML_TYPE_F32, {hp.n_embd, n});
    ggml_tensor* rope_positions = graph.input("positions", GGML_TYPE_I32, {n});
    ggml_tensor* mask = graph.input("mask", GGML_TYPE_F16, {keys, n});

    for (int i = 0; i < hp.n_layer; ++i) {
        const Layer layer = this->layer(i);
        ggml_tensor* normed = layer.norm(ctx, "attn_norm", x);
        // Behind the stored keys (values) of the picture and of the earlier text come those of this run.
        const auto join = [&](ggml_tensor* stored_vision, ggml_tensor* stored_text, ggml_tensor* fresh,
                              ggml_tensor* keep) {
            const auto as_f32 = [&](ggml_tensor* t) {
                return t->type == GGML_TYPE_F32 ? t : ggml_cast(ctx, t, GGML_TYPE_F32);
            };
            ggml_tensor* run = ggml_reshape_2d(ctx, fresh, kv_width, n);
            if (stored_text != nullptr) {
                ggml_tensor* used =
                    ggml_view_2d(ctx, stored_text, kv_width, earlier_rows, stored_text->nb[1], 0);
                run = ggml_concat(ctx, as_f32(used), run, 1);
            }
            if (keep != nullptr) graph.effect(ggml_cpy(ctx, run, keep));
            return ggml_reshape_3d(ctx, ggml_concat(ctx, as_f32(stored_vision), run, 1), hp.head_dim,
                                   hp.n_head_kv, keys);
        };
        const bool has_earlier = earlier != nullptr && earlier_rows > 0;
        ggml_tensor* k =
            join(vision.keys(i), has_earlier ? earlier->keys(i) : nullptr,
                 layer.keys(ctx, normed, rope_positions), keep_kv ? result.kv->keys(i) : nullptr);
        ggml_tensor* v = join(vision.values(i), has_earlier ? earlier->values(i) : nullptr,
                              layer.values(ctx, normed), keep_kv ? result.kv->values(i) : nullptr);
        x = layer.finish(ctx, x, layer.queries(ctx, normed, rope_positions), k, v, mask);
    }
    graph.output(x, "outputs");
    graph.finish();

    std::vector<ggml_fp16_t> seen(static_cast<size_t>(keys * n), kSeen);
    for (int64_t query = 0; query < n; ++query) {
        for (int64_t key = 0; key < n; ++key) {
            if (key > query || text.visible[static_cast<size_t>(key)] == 0) {
                seen[static_cast<size_t>(query * keys + before + key)] = kHidden;
            }
        }
    }
    constexpr int32_t kMaskedPosition = 1;
    std::vector<int32_t> rotary(text.positions);
    for (size_t i = 0; i < rotary.size(); ++i) {
        rotary[i] =
            text.visible[i] != 0 ? rotary[i] + static_cast<int32_t>(vision.positions()) : kMaskedPosition;
    }
    graph.set("rows", text.embeddings.data);
    graph.set("positions", rotary);
    graph.set("mask", seen);
    graph.compute();
    result.rows = graph.get("outputs");
    return result;
}

}  // namespace llava_mini
