// The nearest-neighbour resize that the official video loader applies to frames.
#pragma once

#include <cstdint>
#include <vector>

#include "model/stages.h"

namespace llava_mini {

/// Source index of every output position when `in` pixels become `out`:
/// min(floor(float32(i) * float32(in / out)), in - 1), the product rounded to float32 as PyTorch's
/// interpolate(mode="nearest") does it; integer arithmetic gives other rows at 360, 720 and 1080 lines.
std::vector<int64_t> nearest_indices(int64_t in, int64_t out);

/// Resizes to width x height, not keeping the aspect ratio. The picture and the sides must not be empty.
/// Thread-safe.
Image resize_nearest(const Image& image, int width, int height);

}  // namespace llava_mini
