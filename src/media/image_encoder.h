// Pictures to bytes of files.
#pragma once

#include <cstdint>
#include <vector>

#include "model/stages.h"

namespace llava_mini {

/// Longest side of a JPEG that libjpeg makes.
inline constexpr int kMaxJpegSide = 65500;

/// A baseline JPEG, 4:2:0, of quality 1 to 100 (libjpeg's scale). Sides are in
/// 1..kMaxJpegSide. The same bytes on every machine with the
/// same libjpeg. Throws Error(kSystem) if libjpeg
/// fails. Thread-safe.
std::vector<uint8_t> encode_jpeg(const Image& image, int quality);

/// A PNG of 8-bit RGB, without loss. Throws Error(kSystem) if libpng fails. Thread-safe.
std::vector<uint8_t> encode_png(const Image& image);

}  // namespace llava_mini
