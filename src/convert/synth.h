// Models of real shapes with random weights, without any download: for measurements and tests.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/progress.h"
#include "model/hparams.h"

namespace llava_mini {

struct SynthShape {
    std::string name;
    std::string description;
    LlamaHparams language;
    VisionHparams vision;
    int tower_layers = 0;        // of the whole tower; vision.n_layer of them are run
    bool sentencepiece = false;  // Vicuna's kind of tokenizer and conversation; else Llama 3's
};

const std::vector<SynthShape>& synth_shapes();

/// Throws Error(kUsage) with the list of names.
const SynthShape& find_synth_shape(std::string_view name);

struct SynthOptions {
    std::filesystem::path out;  // folder; made if missing
    uint64_t seed = 1;
    Progress progress;  // bytes
};

/// Writes language.gguf and vision.gguf of that shape, in `type` as convert would store it. Matrices are rows
/// drawn from a pool of rows with values from N(0, 0.02), the spread models are initialised with, so that
/// activations stay finite; norms are near one. Writes about as fast as the disk. Both files appear only when
/// both are whole.
void synthesize_gguf(const SynthShape& shape, ggml_type type, const SynthOptions& options);

/// Writes a checkpoint of that shape in Hugging Face's layout: config.json, tokenizer, and bf16 safetensors
/// shards of at most `shard_bytes` (but at least one tensor), the vision tower inside.
void synthesize_checkpoint(const SynthShape& shape, uint64_t shard_bytes, const SynthOptions& options);

}  // namespace llava_mini
