// What a converted model is and what its pictures cost in memory.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/gguf_file.h"
#include "model/hparams.h"

namespace llava_mini {

/// Tensors of one type in a file.
struct TypeTotal {
    int64_t tensors = 0, parameters = 0;
    uint64_t bytes = 0;
};

/// By ggml's name of the type.
std::map<std::string, TypeTotal> type_totals(const GgufFile& file);

/// Bytes of keys and values that `n_layer` layers of this shape hold for one position, in f16 or q8_0.
uint64_t kv_bytes_per_position(const LlamaHparams& hparams, ggml_type type);

/// Memory of one picture.
struct PictureCost {
    int grid_side = 0;         // 0: no compressor
    int resolution_ratio = 1;  // n: the picture is also seen in n * n blocks
    int64_t vision_tokens = 0;
    // Keys and values in the language model's KV cache; absent without a language model.
    std::optional<uint64_t> kv_cache_f16, kv_cache_q8_0;
    // An entry of the image cache: the pre-fusion's keys and values of all vision positions in that type, and
    // the vision tokens in f32.
    uint64_t image_cache_f16 = 0, image_cache_q8_0 = 0;
};

PictureCost picture_cost(const VisionHparams& vision, const LlamaHparams* language, int grid_side,
                         int resolution_ratio);

/// The costs of every grid, at resolution ratio 1 and at the model's own.
std::vector<PictureCost> picture_costs(const VisionHparams& vision, const LlamaHparams* language);

}  // namespace llava_mini
