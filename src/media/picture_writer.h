// Pictures to files' bytes: JPEG for thumbnails, PNG for contact sheets and charts.
#pragma once

#include <cstdint>
#include <vector>

#include "model/stages.h"

namespace llava_mini {

/// A JPEG (baseline, 4:2:0). Throws Error(kSystem) if libjpeg fails. Thread-safe.
std::vector<uint8_t> encode_jpeg(const Image& image, int quality);

/// A JPEG of at most `width` columns, the aspect ratio kept, averaged over the pixels that fall together.
std::vector<uint8_t> thumbnail_jpeg(const Image& image, int width);

/// A PNG (RGB, 8 bits). Throws Error(kSystem) if FFmpeg fails. Thread-safe.
std::vector<uint8_t> encode_png(const Image& image);

}  // namespace llava_mini
