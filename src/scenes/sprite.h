// Small pictures with transparency, drawn at any size and angle.
#pragma once

#include <cstdint>
#include <vector>

#include "scenes/canvas.h"

namespace llava_mini::scenes {

/// Where a sprite is drawn: its centre, the width and height of its whole picture in pixels, its angle in
/// radians (clockwise), and whether it is mirrored left to right.
struct Pose {
    float x = 0, y = 0, width = 0, height = 0, angle = 0;
    bool mirrored = false;
};

/// Immutable. Keeps copies at decreasing sizes, made by Pillow's antialiased bicubic, and draws from the next
/// larger one by bilinear interpolation: smooth, without aliasing, and fast.
class Sprite {
  public:
    /// `rgba` is [height, width, 4], 8 bits, the colours multiplied by alpha.
    Sprite(int width, int height, const std::vector<uint8_t>& rgba);

    /// Width by height of the picture.
    float aspect() const {
        return static_cast<float>(levels_[0].width) / static_cast<float>(levels_[0].height);
    }
    /// Paints it, its colours multiplied by `tint` / 255. Returns the tight box of what is well visible.
    Box draw(Canvas& canvas, const Pose& pose, const Rgb& tint = {255, 255, 255}) const;

  private:
    struct Level {
        int width = 0, height = 0;  // without the transparent border of one pixel around it
        std::vector<uint8_t> rgba;  // [height + 2, width + 2, 4]
    };
    const Level& level_for(const Pose& pose) const;

    std::vector<Level> levels_;  // largest first
};

}  // namespace llava_mini::scenes
