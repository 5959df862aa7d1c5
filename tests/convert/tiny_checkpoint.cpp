#include "convert/tiny_checkpoint.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>

#include "convert/synth_vocabulary.h"

namespace llava_mini::test {
namespace {

using nlohmann::json;

void write_file(const std::filesystem::path& path, const std::string& content) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
}

std::string data_of(const TinyTensor& tensor) {
    std::string data;
    const auto append = [&](const auto& value) {
        data.append(reinterpret_cast<const char*>(&value), sizeof(value));
    };
    for (const float value : tensor.values) {
        if (tensor.dtype == "F32") append(value);
        if (tensor.dtype == "F16") append(ggml_fp32_to_fp16(value));
        if (tensor.dtype == "BF16") append(ggml_fp32_to_bf16(value));
        if (tensor.dtype == "I64") append(int64_t{0});
    }
    return data;
}

}  // namespace

std::vector<float> tiny_values(const std::string& name, int64_t count) {
    uint64_t state = 1469598103934665603u;
    for (const char c : name) state = (state ^ static_cast<unsigned char>(c)) * 1099511628211u;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        value = static_cast<float>(static_cast<int>(state >> 57) - 64) / 64.0f;  // 7 bits
    }
    return values;
}

std::string safetensors_bytes(const std::map<std::string, TinyTensor>& tensors) {
    json header = json::object();
    std::string data;
    for (const auto& [name, tensor] : tensors) {
        const std::string bytes = data_of(tensor);
        header[name] = {{"dtype", tensor.dtype},
                        {"shape", tensor.shape},
                        {"data_offsets", {data.size(), data.size() + bytes.size()}}};
        data += bytes;
    }
    const std::string text = header.dump();
    std::string file(8, '\0');
    for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(text.size() >> (8 * i));
    return file + text + data;
}

void TinyCheckpoint::add(const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    tensors[name] = {"F32", std::move(shape), tiny_values(name, count)};
}

std::filesystem::path TinyCheckpoint::write(const std::filesystem::path& dir, int shards) const {
    const std::filesystem::path folder = dir / "checkpoint";
    write_file(folder / "config.json", config.dump(2));
    if (!tokenizer.is_null()) write_file(folder / "tokenizer.json", tokenizer.dump());
    if (!tokenizer_config.is_null()) write_file(folder / "tokenizer_config.json", tokenizer_config.dump());
    if (shards == 1) {
        write_file(folder / "model.safetensors", safetensors_bytes(tensors));
    } else {
        std::vector<std::map<std::string, TinyTensor>> parts(static_cast<size_t>(shards));
        json index = {{"weight_map", json::object()}};
        size_t next = 0;
        for (const auto& [name, tensor] : tensors) {
            const size_t part = next++ % parts.size();
            parts[part].emplace(name, tensor);
            index["weight_map"][name] = fmt::format("model-{}.safetensors", part);
        }
        for (size_t i = 0; i < parts.size(); ++i) {
            write_file(folder / fmt::format("model-{}.safetensors", i), safetensors_bytes(parts[i]));
        }
        write_file(folder / "model.safetensors.index.json", index.dump());
    }
    if (!clip_config.is_null()) {
        const std::filesystem::path tower = dir / "clip" / "tower";
        write_file(tower / "config.json", clip_config.dump());
        write_file(tower / "preprocessor_config.json", preprocessor_config.dump());
        if (!tower_tensors.empty()) write_file(tower / "model.safetensors", safetensors_bytes(tower_tensors));
    }
    return folder;
}

TinyCheckpoint tiny_checkpoint(std::vector<int> grids, int prefusion_layers) {
    constexpr int d = 32, ff = 64, heads = 2, kv_heads = 1, head_dim = 16, layers = 2, vocab = 768;
    constexpr int d_v = 128, ff_v = 64, layers_v = 3, patch = 14, side = 2;
    TinyCheckpoint out;
    out.config = {{"model_type", "llava_mini_llama"},
                  {"hidden_size", d},
                  {"intermediate_size", ff},
                  {"num_hidden_layers", layers},
                  {"num_attention_heads", heads},
                  {"num_key_value_heads", kv_heads},
                  {"vocab_size", vocab},
                  {"max_position_embeddings", 4096},
                  {"rms_norm_eps", 1e-5},
                  {"rope_theta", 10000.0},
                  {"bos_token_id", 512},
                  {"eos_token_id", 521},
                  {"mm_projector_type", "mlp2x_gelu"},
                  {"mm_vision_tower", "clip/tower"},
                  {"mm_vision_select_layer", -2},
                  {"image_aspect_ratio", "pad"},
                  {"prefusion_layer_num", prefusion_layers}};
    if (grids.size() == 1) out.config["compressor_size"] = grids[0];
    if (grids.size() > 1) out.config["compressor_size"] = grids;
    out.clip_config = {{"model_type", "clip_vision_model"},
                       {"hidden_size", d_v},
                       {"intermediate_size", ff_v},
                       {"num_hidden_layers", layers_v},
                       {"num_attention_heads", 2},
                       {"image_size", side * patch},
                       {"patch_size", patch}};
    out.preprocessor_config = {{"size", {{"shortest_edge", side * patch}}},
                               {"crop_size", {{"height", side * patch}, {"width", side * patch}}},
                               {"image_mean", {0.5, 0.25, 0.125}},
                               {"image_std", {0.5, 1.0, 2.0}}};
    const Vocabulary vocabulary = synth_byte_level_bpe(vocab);
    out.tokenizer = json::parse(tokenizer_json(vocabulary));
    out.tokenizer_config = json::parse(tokenizer_config_json(vocabulary));

    const auto llama_layer = [&](const std::string& root) {
        out.add(root + "input_layernorm.weight", {d});
        out.add(root + "self_attn.q_proj.weight", {heads * head_dim, d});
        out.add(root + "self_attn.k_proj.weight", {kv_heads * head_dim, d});
        out.add(root + "self_attn.v_proj.weight", {kv_heads * head_dim, d});
        out.add(root + "self_attn.o_proj.weight", {d, heads * head_dim});
        out.add(root + "post_attention_layernorm.weight", {d});
        out.add(root + "mlp.gate_proj.weight", {ff, d});
        out.add(root + "mlp.up_proj.weight", {ff, d});
        out.add(root + "mlp.down_proj.weight", {d, ff});
    };
    out.add("model.embed_tokens.weight", {vocab, d});
    for (int i = 0; i < layers; ++i) llama_layer(fmt::format("model.layers.{}.", i));
    out.add("model.norm.weight", {d});
    out.add("lm_head.weight", {vocab, d});
    for (int i = 0; i < prefusion_layers; ++i) llama_layer(fmt::format("model.prefusion_layers.{}.", i));
    const auto linear = [&](const std::string& root, int64_t rows, int64_t columns) {
        out.add(root + ".weight", {rows, columns});
        out.add(root + ".bias", {rows});
    };
    const auto norm = [&](const std::string& root, int64_t width) {
        out.add(root + ".weight", {width});
        out.add(root + ".bias", {width});
    };
    linear("model.mm_projector.0", d, d_v);
    linear("model.mm_projector.2", d, d);
    if (!grids.empty()) {
        for (const int grid : grids) {
            const std::string suffix = grids.size() == 1 ? "" : fmt::format(".{}", grid);
            out.add("model.compressor.query" + suffix, {grid * grid, d_v});
            out.add("model.compressor.pos_embed" + suffix, {grid * grid, d_v});
        }
        norm("model.compressor.ln_q", d_v);
        norm("model.compressor.ln_kv", d_v);
        out.add("model.compressor.attn.in_proj_weight", {3 * d_v, d_v});
        out.add("model.compressor.attn.in_proj_bias", {3 * d_v});
        linear("model.compressor.attn.out_proj", d_v, d_v);
    }

    std::map<std::string, TinyTensor> language;
    language.swap(out.tensors);
    const std::string root = "vision_model.";
    out.add(root + "embeddings.class_embedding", {d_v});
    out.add(root + "embeddings.patch_embedding.weight", {d_v, 3, patch, patch});
    out.add(root + "embeddings.position_embedding.weight", {side * side + 1, d_v});
    norm(root + "pre_layrnorm", d_v);
    norm(root + "post_layernorm", d_v);
    for (int i = 0; i < layers_v; ++i) {
        const std::string layer = fmt::format("{}encoder.layers.{}.", root, i);
        norm(layer + "layer_norm1", d_v);
        norm(layer + "layer_norm2", d_v);
        for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
            linear(layer + "self_attn." + name, d_v, d_v);
        }
        linear(layer + "mlp.fc1", ff_v, d_v);
        linear(layer + "mlp.fc2", d_v, ff_v);
    }
    out.tower_tensors.swap(out.tensors);
    out.tower_tensors[root + "embeddings.position_ids"] = {"I64", {1, 5}, std::vector<float>(5)};
    out.tensors.swap(language);
    return out;
}

}  // namespace llava_mini::test
