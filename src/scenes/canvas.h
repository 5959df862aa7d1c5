// What scenes are painted on.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

namespace llava_mini::scenes {

/// A colour, 0 to 255 a channel.
using Rgb = std::array<float, 3>;

/// A picture being painted: [height, width, 3], 0 to 255, row by row.
struct Canvas {
    int width = 0, height = 0;
    std::vector<float> rgb;

    Canvas(int w, int h) : width(w), height(h), rgb(static_cast<size_t>(3 * w * h)) {}
    float* pixel(int x, int y) { return rgb.data() + 3 * (static_cast<ptrdiff_t>(y) * width + x); }
    const float* pixel(int x, int y) const {
        return rgb.data() + 3 * (static_cast<ptrdiff_t>(y) * width + x);
    }
};

/// A rectangle in pixels, x1 and y1 exclusive; empty when x1 <= x0.
struct Box {
    float x0 = 0, y0 = 0, x1 = 0, y1 = 0;

    bool empty() const { return x1 <= x0 || y1 <= y0; }
    /// The smallest box around both.
    void include(const Box& other) {
        if (other.empty()) return;
        if (empty()) {
            *this = other;
            return;
        }
        x0 = std::min(x0, other.x0);
        y0 = std::min(y0, other.y0);
        x1 = std::max(x1, other.x1);
        y1 = std::max(y1, other.y1);
    }
};

}  // namespace llava_mini::scenes
