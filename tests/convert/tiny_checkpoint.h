// Small checkpoints in Hugging Face's layout, made up for tests, that can be bent in every direction.
#pragma once

#include <ggml.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/hparams.h"

namespace llava_mini::test {

struct TinyTensor {
    std::string dtype = "F32";  // F32, F16, BF16, or I64 (of which the values are not used)
    std::vector<int64_t> shape;
    std::vector<float> values;
};

/// Numbers in [-1, 1] that f16 and bf16 hold exactly; the same for the same name.
std::vector<float> tiny_values(const std::string& name, int64_t count);

/// Bytes of a safetensors file.
std::string safetensors_bytes(const std::map<std::string, TinyTensor>& tensors);

struct TinyCheckpoint {
    nlohmann::json config;       // config.json
    nlohmann::json clip_config;  // of the vision tower's folder; null: no folder is written
    nlohmann::json preprocessor_config;
    nlohmann::json tokenizer, tokenizer_config;
    std::map<std::string, TinyTensor> tensors, tower_tensors;

    /// Adds tensors of these shapes with tiny_values().
    void add(const std::string& name, std::vector<int64_t> shape);
    /// Writes DIR/checkpoint and DIR/clip/tower (config.json's mm_vision_tower is "clip/tower"); returns the
    /// former.
    std::filesystem::path write(const std::filesystem::path& dir, int shards = 1) const;
};

/// A LLaVA-Mini: tower 128 wide, 3 layers, 28 pixels in 2 x 2 patches, in its own folder; language model 32
/// wide, 2 layers, 2 heads, 1 key-value head; byte-level BPE of 768 tokens. Tensors fit the arguments.
TinyCheckpoint tiny_checkpoint(std::vector<int> grids = {1}, int prefusion_layers = 1);

}  // namespace llava_mini::test
