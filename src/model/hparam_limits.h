// Bounds of what is believed from a file about a model's shape: far above any real model, and low enough that
// no product of a few of them overflows 64 bits. Shared by the readers of config.json and of GGUF metadata.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llava_mini {

inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxWidth = 1 << 20;
inline constexpr int64_t kMaxHeads = 4096;
inline constexpr int64_t kMaxVocabulary = 1 << 24;
inline constexpr int64_t kMaxImageSize = 16384;
inline constexpr int64_t kMaxResolutionRatio = 16;
inline constexpr size_t kMaxGrids = 64;
inline constexpr int64_t kMaxGridSide = 256;
inline constexpr double kMaxRopeTheta = 1e12;

}  // namespace llava_mini
