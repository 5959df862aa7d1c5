// A correction of GIF files before they are decoded.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llava_mini {

/// A copy of a GIF in which no pixel of the first picture is transparent, so that its pixels get the colours
/// of the palette as Pillow's convert("RGB") gives them (a decoder that obeys transparency loses them), and
/// in which what the first picture does not cover has the colour that Pillow gives it: the transparent one,
/// else the palette's first. Bytes that are no well-formed GIF come back unchanged.
std::vector<uint8_t> opaque_gif(std::span<const uint8_t> gif);

}  // namespace llava_mini
