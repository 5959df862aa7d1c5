// Pillow's bicubic resize of 8-bit RGB pictures, to the last bit.
//
// The method (Image.resize with BICUBIC): a separable convolution whose kernel (Keys' cubic, a = -0.5) is
// stretched by the reduction factor, so that reducing a picture does not alias. Weights are normalised in
// double, rounded half away from zero to 22-bit fixed point; the horizontal pass comes first and its results
// are rounded and clipped to 8 bits, as are those of the vertical pass; a pass that changes no size is
// skipped.
#pragma once

#include <cstdint>
#include <span>

#include "preprocess/tiling.h"

namespace llava_mini {

/// The part of a resized picture that is wanted, in its own coordinates.
struct ResizeWindow {
    int64_t x = 0, y = 0;
    int width = 0, height = 0;
};

/// Resizes `source` to out_width x out_height pixels and writes the pixels of `window` (which lies inside) to
/// `rgb`, 3 * window.width * window.height bytes, row by row. Only what the window needs is computed, so a
/// crop after the resize costs nothing. Memory: the window's sums and one row; cost: O(source pixels).
/// Sides of `source` are in 1..kMaxSide (else Error(kInput)). Thread-safe.
void resize_bicubic(const CanvasView& source, int64_t out_width, int64_t out_height,
                    const ResizeWindow& window, std::span<uint8_t> rgb);

/// Image.resize((width, height), BICUBIC) of a whole picture. Sides are in 1..kMaxSide. Thread-safe.
Image resize_bicubic(const Image& image, int width, int height);

}  // namespace llava_mini
