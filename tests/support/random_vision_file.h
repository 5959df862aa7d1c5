// A small vision.gguf with random weights of any shape, some of them given: for tests of single stages.
#pragma once

#include <cmath>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "convert/gguf_writer.h"
#include "model/hparams.h"
#include "model/tensor_names.h"

namespace llava_mini::test {

inline VisionHparams small_vision_hparams() {
    VisionHparams hp;
    hp.name = "small";
    hp.image_size = 40;
    hp.patch_size = 8;
    hp.n_layer = 2;
    hp.n_embd = 64;
    hp.n_ff = 96;
    hp.n_head = 4;
    hp.image_mean = {0.5f, 0.5f, 0.5f};
    hp.image_std = {0.25f, 0.25f, 0.25f};
    hp.compressor_grids = {1, 2};
    hp.compressor_head_dim = 32;
    hp.prefusion.n_layer = 2;
    hp.prefusion.n_embd = 48;
    hp.prefusion.n_ff = 80;
    hp.prefusion.n_head = 3;
    hp.prefusion.n_head_kv = 3;
    hp.prefusion.head_dim = 32;
    return hp;
}

/// Writes the file; `given` replaces random tensors by GGUF name.
inline void write_random_vision_file(const std::filesystem::path& path, const VisionHparams& hp,
                                     const std::map<std::string, std::vector<float>>& given = {}) {
    std::vector<TensorSpec> specs = tower_tensors(hp);
    for (TensorSpec& spec : bridge_tensors(hp)) specs.push_back(std::move(spec));
    GgufWriter writer(path);
    write_vision_hparams(writer.metadata(), hp);
    for (const TensorSpec& spec : specs) writer.add_tensor(spec.gguf, GGML_TYPE_F32, spec.shape);
    writer.begin();
    std::mt19937 random(7);
    for (const TensorSpec& spec : specs) {
        size_t size = 1;
        for (const int64_t n : spec.shape) size *= static_cast<size_t>(n);
        std::vector<float> values(size);
        if (const auto found = given.find(spec.gguf); found != given.end()) {
            values = found->second;
        } else {
            const bool is_norm = spec.gguf.find("norm.weight") != std::string::npos ||
                                 spec.gguf.find("ln") != std::string::npos;
            const double deviation =
                spec.shape.size() < 2 ? 0.1 : 1.0 / std::sqrt(static_cast<double>(spec.shape[1]));
            std::normal_distribution<float> normal(is_norm ? 1.0f : 0.0f, static_cast<float>(deviation));
            for (float& v : values) v = normal(random);
        }
        writer.write({reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)});
    }
    writer.commit();
}

}  // namespace llava_mini::test
