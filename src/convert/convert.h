// From a LLaVA-Mini (or LLaVA-v1.5) checkpoint in Hugging Face's layout to our two GGUF files.
#pragma once

#include <ggml.h>

#include <filesystem>
#include <optional>

#include "core/progress.h"

namespace llava_mini {

inline constexpr const char* kLanguageFile = "language.gguf";
inline constexpr const char* kVisionFile = "vision.gguf";

struct ConvertOptions {
    std::filesystem::path checkpoint;
    std::optional<std::filesystem::path> vision_tower;  // absent: where config.json says, or inside
    std::filesystem::path out;                          // folder; made if missing
    ggml_type type = GGML_TYPE_F16;                     // see quantization.h for what is kept higher
    int threads = 2;
    Progress progress;  // bytes of weights read
};

/// Writes language.gguf (architecture `llama`, for any program of llama.cpp) and vision.gguf (architecture
/// `llava-mini`: tower, compressor, projector, pre-fusion) into options.out. Weights stream through in pieces
/// of a few MiB, so memory does not grow with the model. Both files appear, or are replaced, only when both
/// are whole.
///
/// Throws Error(kInput) for checkpoints that are damaged, incomplete or not supported (all missing, misshapen
/// and unused tensors in one message) and for weights that are not finite or overflow f16; Error(kSystem)
/// when the disk is full.
void convert_checkpoint(const ConvertOptions& options);

}  // namespace llava_mini
