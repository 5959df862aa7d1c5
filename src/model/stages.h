// What flows from stage to stage, in the order of the data's path:
//   Image -> PixelValues -> PatchFeatures -> CompressedFeatures -> ImageEncoding -> fused text -> answer
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/hash.h"
#include "core/matrix.h"
#include "llava_mini/image.hpp"

namespace llava_mini {

/// Normalised pixels of one or several views, as the vision tower takes them: [views, 3, size, size].
/// High resolution n: n*n block views row by row, then the whole picture, so views == n*n + 1; else 1.
struct PixelValues {
    int views = 0, size = 0;
    std::vector<float> data;
};

/// Features of the patches of every view, without the class token: views matrices of [P, d_v].
struct PatchFeatures {
    std::vector<Matrix> views;
};

/// What the compressor makes of one picture.
struct CompressedFeatures {
    Matrix tokens;     // [C*C, d_v]
    Matrix attention;  // [C*C, P] or, in high resolution, [C*C, n*n*P] (map order); mean over heads
};

class PrefusionKv;  // prefusion/prefusion_kv.h: keys and values of some positions in every pre-fusion layer

/// Everything about one picture that questions need; a function of the picture alone (attention is causal and
/// vision comes first). Immutable, shared between sessions.
struct ImageEncoding {
    Hash128 key;           // of the picture's bytes and everything that shapes the result
    Matrix vision_tokens;  // [C*C (or P without compressor), d]
    std::shared_ptr<const PrefusionKv> vision;  // null when the model has no pre-fusion layers
    uint64_t bytes() const;                     // memory held
};

}  // namespace llava_mini
