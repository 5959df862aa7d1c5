// Models of real shapes with random weights for measurements, made once and kept.
#pragma once

#include <ggml.h>

#include <filesystem>
#include <string>

#include "core/progress.h"

namespace llava_mini::bench {

/// Where they are kept: $LLAVA_MINI_CACHE/bench, else llava-mini/bench in the user's cache folder.
std::filesystem::path default_model_cache();

/// The folder `cache`/SHAPE-TYPE with language.gguf and vision.gguf of a synthetic shape, made if it is
/// missing or does not hold the tensors, in the types, that synthesizing would give today. Throws
/// Error(kUsage) for an unknown shape, Error(kSystem) when the disk is full.
std::filesystem::path prepare_model(const std::filesystem::path& cache, const std::string& shape,
                                    ggml_type type, const Progress& progress);

}  // namespace llava_mini::bench
