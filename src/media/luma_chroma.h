// From luma and chroma to RGB where every 2 x 2 pixels share their chroma (4:2:0), in 8 bits.
//
// Chroma lies in the middle of its four pixels. A pixel takes 9/16 of its own sample, 3/16 of each of the two
// next ones and 1/16 of the one across, rounded as libwebp does ("fancy upsampling"); beyond the picture's
// edge the nearest sample stands in.
#pragma once

#include "model/stages.h"

struct AVFrame;

namespace llava_mini {

/// How luma y and chroma u, v become RGB.
enum class LumaChroma {
    /// BT.601, limited range, in libwebp's fixed-point arithmetic: lossy WebP becomes what Pillow makes of
    /// it, to the last bit.
    kWebp,
    /// The frame's own matrix (BT.601, BT.709 or BT.2020) and range, rounded to nearest: within a few levels
    /// of what other decoders of AVIF make of it.
    kFrame
};

/// Whether rgb_of_420 can convert the frame: planes of 8 bits, 4:2:0, with or without alpha, and for kFrame a
/// matrix that it knows.
bool is_420(const AVFrame& frame, LumaChroma conversion);

/// Converts such a frame; alpha is dropped. `image` has the frame's size. Thread-safe.
void rgb_of_420(const AVFrame& frame, LumaChroma conversion, Image& image);

}  // namespace llava_mini
