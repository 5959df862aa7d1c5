#include "trainer/lora.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "convert/gguf_writer.h"
#include "convert/interleave.h"
#include "trainer/random.h"

namespace llava_mini::trainer {
namespace {

// "q_proj" of "model.layers.0.self_attn.q_proj.weight".
std::string matrix_of(const std::string& name) {
    const size_t end = name.rfind(".weight");
    const size_t start = name.rfind('.', end - 1) + 1;
    return name.substr(start, end - start);
}

std::span<const float> values_of(const Leaf& leaf) {
    return {leaf.value.data_ptr<float>(), static_cast<size_t>(leaf.value.numel())};
}

}  // namespace

void add_lora(Parameters& parameters, const LoraOptions& options, uint64_t seed) {
    const torch::NoGradGuard no_gradients;
    const size_t count = parameters.leaves().size();
    for (size_t i = 0; i < count; ++i) {
        const std::string key = parameters.leaves()[i].key;
        if (parameters.leaves()[i].part != Part::kLanguage) continue;
        for (size_t piece = 0; piece < parameters.leaves()[i].pieces.size(); ++piece) {
            const std::string matrix = matrix_of(parameters.leaves()[i].pieces[piece].checkpoint);
            if (std::count(options.targets.begin(), options.targets.end(), matrix) == 0) continue;
            parameters.add_adapter(key, piece, options.rank, options.alpha / options.rank);
        }
    }
    for (const Leaf& leaf : parameters.leaves()) {
        if (leaf.part != Part::kLora) continue;
        torch::Tensor value = leaf.value;
        value.zero_();
        if (leaf.key.ends_with("lora_B.weight")) continue;
        uint64_t key = seed;
        for (const char c : leaf.key) key = mix(key ^ static_cast<unsigned char>(c));
        std::mt19937_64 random(key);
        const float bound = 1.0f / std::sqrt(static_cast<float>(leaf.shape[1]));
        std::uniform_real_distribution<float> draw(-bound, bound);
        std::generate_n(value.data_ptr<float>(), value.numel(), [&] { return draw(random); });
    }
}

void write_lora_gguf(const std::filesystem::path& path, const Parameters& parameters,
                     const LlamaHparams& language, const LoraOptions& options) {
    GgufWriter writer(path);
    gguf_set_val_str(writer.metadata(), "general.architecture", "llama");
    gguf_set_val_str(writer.metadata(), "general.type", "adapter");
    gguf_set_val_str(writer.metadata(), "adapter.type", "lora");
    gguf_set_val_f32(writer.metadata(), "adapter.lora.alpha", static_cast<float>(options.alpha));

    struct Factor {
        const Leaf* leaf;
        int interleave_heads;
    };
    std::vector<Factor> factors;
    for (const TensorSpec& spec : language_tensors(language)) {
        const std::string name = spec.checkpoint.substr(0, spec.checkpoint.rfind(".weight"));
        if (!parameters.has(name + ".lora_A.weight")) continue;
        for (const bool up : {false, true}) {
            const Leaf& leaf = parameters.leaf(name + (up ? ".lora_B.weight" : ".lora_A.weight"));
            writer.add_tensor(spec.gguf + (up ? ".lora_b" : ".lora_a"), GGML_TYPE_F32, leaf.shape);
            factors.push_back({&leaf, up ? spec.interleave_heads : 0});
        }
    }
    writer.begin();
    std::vector<float> permuted;
    for (const auto& [leaf, heads] : factors) {
        std::span<const float> values = values_of(*leaf);
        if (heads > 0) {
            permuted.resize(values.size());
            interleave_rows(values, leaf->shape[0] / heads, leaf->shape[1], permuted);
            values = permuted;
        }
        writer.write({reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()});
    }
    writer.commit();
}

}  // namespace llava_mini::trainer
