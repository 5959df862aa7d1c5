// LLaVA-Mini in C++: decoded pictures.
#pragma once

#include <cstdint>
#include <vector>

namespace llava_mini {

/// A decoded picture: 8-bit RGB, row by row, no padding: rgb.size() == 3 * width * height.
struct Image {
    int width = 0, height = 0;
    std::vector<uint8_t> rgb;
};

}  // namespace llava_mini
