// A picture for measurements, made in memory.
#pragma once

#include <cstdint>
#include <vector>

namespace llava_mini::bench {

/// A JPEG (quality 90, 4:2:0, baseline) of smooth colours under noise whose spectrum falls like that of
/// photographs, so that it has a photograph's size and decoding cost. The same bytes on every machine with
/// the same libjpeg. Throws Error(kSystem) if libjpeg fails (memory).
std::vector<uint8_t> make_photo_jpeg(int width, int height);

}  // namespace llava_mini::bench
