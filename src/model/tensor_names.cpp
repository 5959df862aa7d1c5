#include "model/tensor_names.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

namespace llava_mini {
namespace {

// weight and bias of a linear layer or a norm
void add_weight_and_bias(std::vector<TensorSpec>& specs, const std::string& gguf,
                         const std::string& checkpoint, std::vector<int64_t> weight_shape, Keep keep) {
    const int64_t rows = weight_shape[0];
    specs.push_back({gguf + ".weight", checkpoint + ".weight", std::move(weight_shape), keep});
    specs.push_back({gguf + ".bias", checkpoint + ".bias", {rows}, Keep::kFull});
}

// One Llama decoder layer, without biases.
void add_llama_layer(std::vector<TensorSpec>& specs, const std::string& gguf, const std::string& checkpoint,
                     const LlamaHparams& hp, Keep matrices, bool interleave) {
    const int64_t d = hp.n_embd, ff = hp.n_ff, q = int64_t{hp.n_head} * hp.head_dim,
                  kv = int64_t{hp.n_head_kv} * hp.head_dim;
    const auto add = [&](const char* to, const char* from, std::vector<int64_t> shape, Keep keep,
                         int heads = 0) {
        specs.push_back({gguf + to + ".weight", checkpoint + from + ".weight", std::move(shape), keep,
                         interleave ? heads : 0});
    };
    add("attn_norm", "input_layernorm", {d}, Keep::kFull);
    add("attn_q", "self_attn.q_proj", {q, d}, matrices, hp.n_head);
    add("attn_k", "self_attn.k_proj", {kv, d}, matrices, hp.n_head_kv);
    add("attn_v", "self_attn.v_proj", {kv, d}, matrices);
    add("attn_output", "self_attn.o_proj", {d, q}, matrices);
    add("ffn_norm", "post_attention_layernorm", {d}, Keep::kFull);
    add("ffn_gate", "mlp.gate_proj", {ff, d}, matrices);
    add("ffn_up", "mlp.up_proj", {ff, d}, matrices);
    add("ffn_down", "mlp.down_proj", {d, ff}, matrices);
}

}  // namespace

std::vector<TensorSpec> tower_tensors(const VisionHparams& hp) {
    std::vector<TensorSpec> specs;
    const int64_t d = hp.n_embd, ff = hp.n_ff, patch = hp.patch_size;
    const std::string root = "vision_model.";
    specs.push_back({"v.class_embd", root + "embeddings.class_embedding", {d}, Keep::kFull});
    specs.push_back({"v.patch_embd.weight",
                     root + "embeddings.patch_embedding.weight",
                     {d, 3, patch, patch},
                     Keep::kHalf});
    specs.push_back({"v.position_embd.weight",
                     root + "embeddings.position_embedding.weight",
                     {hp.patches() + 1, d},
                     Keep::kFull});
    add_weight_and_bias(specs, "v.pre_ln", root + "pre_layrnorm", {d}, Keep::kFull);  // sic, CLIP's spelling
    for (int i = 0; i < hp.n_layer; ++i) {
        const std::string to = fmt::format("v.blk.{}.", i),
                          from = fmt::format("{}encoder.layers.{}.", root, i);
        add_weight_and_bias(specs, to + "ln1", from + "layer_norm1", {d}, Keep::kFull);
        add_weight_and_bias(specs, to + "attn_q", from + "self_attn.q_proj", {d, d}, Keep::kAtLeastQ6);
        add_weight_and_bias(specs, to + "attn_k", from + "self_attn.k_proj", {d, d}, Keep::kAtLeastQ6);
        add_weight_and_bias(specs, to + "attn_v", from + "self_attn.v_proj", {d, d}, Keep::kAtLeastQ6);
        add_weight_and_bias(specs, to + "attn_out", from + "self_attn.out_proj", {d, d}, Keep::kAtLeastQ6);
        add_weight_and_bias(specs, to + "ln2", from + "layer_norm2", {d}, Keep::kFull);
        add_weight_and_bias(specs, to + "ffn_up", from + "mlp.fc1", {ff, d}, Keep::kAtLeastQ6);
        add_weight_and_bias(specs, to + "ffn_down", from + "mlp.fc2", {d, ff}, Keep::kAtLeastQ6);
    }
    return specs;
}

std::vector<TensorSpec> bridge_tensors(const VisionHparams& hp) {
    std::vector<TensorSpec> specs;
    const int64_t d_v = hp.n_embd, d = hp.prefusion.n_embd;
    if (!hp.compressor_grids.empty() && !hp.average_pooling) {
        for (const int side : hp.compressor_grids) {
            const std::string suffix = hp.compressor_grids.size() == 1 ? "" : fmt::format(".{}", side);
            const int64_t queries = int64_t{side} * side;
            specs.push_back({fmt::format("compressor.{}.query", side),
                             "compressor.query" + suffix,
                             {queries, d_v},
                             Keep::kFull});
            specs.push_back({fmt::format("compressor.{}.pos_embed", side),
                             "compressor.pos_embed" + suffix,
                             {queries, d_v},
                             Keep::kFull});
        }
        add_weight_and_bias(specs, "compressor.ln_q", "compressor.ln_q", {d_v}, Keep::kFull);
        add_weight_and_bias(specs, "compressor.ln_kv", "compressor.ln_kv", {d_v}, Keep::kFull);
        specs.push_back(
            {"compressor.attn_qkv.weight", "compressor.attn.in_proj_weight", {3 * d_v, d_v}, Keep::kHalf});
        specs.push_back({"compressor.attn_qkv.bias", "compressor.attn.in_proj_bias", {3 * d_v}, Keep::kFull});
        add_weight_and_bias(specs, "compressor.attn_out", "compressor.attn.out_proj", {d_v, d_v},
                            Keep::kHalf);
    }
    add_weight_and_bias(specs, "mm.0", "mm_projector.0", {d, d_v}, Keep::kHalf);
    add_weight_and_bias(specs, "mm.2", "mm_projector.2", {d, d}, Keep::kHalf);
    for (int i = 0; i < hp.prefusion.n_layer; ++i) {
        add_llama_layer(specs, fmt::format("prefusion.blk.{}.", i), fmt::format("prefusion_layers.{}.", i),
                        hp.prefusion, Keep::kAtLeastQ5, /*interleave=*/false);
    }
    return specs;
}

std::vector<TensorSpec> language_tensors(const LlamaHparams& hp) {
    std::vector<TensorSpec> specs;
    const int64_t d = hp.n_embd, vocab = hp.n_vocab;
    specs.push_back({"token_embd.weight", "model.embed_tokens.weight", {vocab, d}, Keep::kQuantizable});
    for (int i = 0; i < hp.n_layer; ++i) {
        add_llama_layer(specs, fmt::format("blk.{}.", i), fmt::format("model.layers.{}.", i), hp,
                        Keep::kQuantizable, /*interleave=*/true);
    }
    specs.push_back({"output_norm.weight", "model.norm.weight", {d}, Keep::kFull});
    if (!hp.tied_embeddings)
        specs.push_back({"output.weight", "lm_head.weight", {vocab, d}, Keep::kQuantizable});
    return specs;
}

std::vector<float> llama3_rope_freq_factors(int head_dim, float theta, float factor, float low_freq_factor,
                                            float high_freq_factor, float original_context) {
    std::vector<float> factors(static_cast<size_t>(head_dim) / 2);
    const double low_wavelength = original_context / low_freq_factor;
    const double high_wavelength = original_context / high_freq_factor;
    for (size_t i = 0; i < factors.size(); ++i) {
        const double frequency =
            std::pow(static_cast<double>(theta), -2.0 * static_cast<double>(i) / head_dim);
        const double wavelength = 2.0 * std::numbers::pi / frequency;
        double divide_by = 1.0;
        if (wavelength > low_wavelength) {
            divide_by = factor;
        } else if (wavelength > high_wavelength) {
            const double smooth =
                (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
            divide_by = 1.0 / ((1.0 - smooth) / factor + smooth);
        }
        factors[i] = static_cast<float>(divide_by);
    }
    return factors;
}

}  // namespace llava_mini
