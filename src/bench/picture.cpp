#include "bench/picture.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "media/picture_writer.h"

namespace llava_mini::bench {
namespace {

constexpr int kQuality = 90;
constexpr int kMaxJpegSide = 65500;  // libjpeg's JPEG_MAX_DIMENSION

// A hash of a lattice point, uniform in [-1, 1].
float lattice(uint32_t seed, int x, int y) {
    uint32_t h =
        seed * 0x9E3779B1u ^ static_cast<uint32_t>(x) * 0x85EBCA77u ^ static_cast<uint32_t>(y) * 0xC2B2AE3Du;
    h = (h ^ (h >> 15)) * 0x2C1B3C6Du;
    h = (h ^ (h >> 12)) * 0x297A2D39u;
    return static_cast<float>(h ^ (h >> 15)) * (2.0f / 4294967295.0f) - 1.0f;
}

// Adds noise of one scale to a row of pixels: random values on a lattice of `cell` pixels, interpolated.
void add_octave(std::vector<float>& row, int y, int cell, float amplitude, uint32_t seed) {
    const int cells = static_cast<int>(row.size()) / cell + 2, cy = y / cell;
    const float fy = static_cast<float>(y % cell) / static_cast<float>(cell);
    std::vector<float> values(static_cast<size_t>(cells));
    for (int i = 0; i < cells; ++i) {
        values[static_cast<size_t>(i)] = std::lerp(lattice(seed, i, cy), lattice(seed, i, cy + 1), fy);
    }
    const float step = 1.0f / static_cast<float>(cell);
    for (size_t x = 0; x < row.size(); ++x) {
        const size_t i = x / static_cast<size_t>(cell);
        const float fx = static_cast<float>(x % static_cast<size_t>(cell)) * step;
        row[x] += amplitude * (values[i] + (values[i + 1] - values[i]) * fx);
    }
}

// Brightness has detail at every scale, amplitude in proportion to the scale; colours vary slowly, as they do
// in photographs.
class Photo {
  public:
    explicit Photo(int width)
        : luma_(static_cast<size_t>(width)),
          blue_(luma_.size()),
          red_(luma_.size()),
          rgb_(3 * luma_.size()) {}

    uint8_t* row(int y) {
        std::fill(luma_.begin(), luma_.end(), 120.0f);
        std::fill(blue_.begin(), blue_.end(), 0.0f);
        std::fill(red_.begin(), red_.end(), 0.0f);
        constexpr std::array<int, 10> kCells = {768, 384, 192, 96, 48, 24, 12, 6, 3, 1};
        constexpr std::array<float, 10> kAmplitudes = {60, 40, 27, 18, 13, 10, 9, 10, 14, 10};
        for (size_t i = 0; i < kCells.size(); ++i) {
            add_octave(luma_, y, kCells[i], kAmplitudes[i], static_cast<uint32_t>(i));
        }
        for (const int cell : {640, 160}) {
            add_octave(blue_, y, cell, 0.06f * static_cast<float>(cell) + 5, 100);
            add_octave(red_, y, cell, 0.06f * static_cast<float>(cell) + 5, 200);
        }
        const auto to_byte = [](float v) { return static_cast<uint8_t>(std::clamp(v, 0.0f, 255.0f)); };
        for (size_t x = 0; x < luma_.size(); ++x) {
            rgb_[3 * x] = to_byte(luma_[x] + red_[x]);
            rgb_[3 * x + 1] = to_byte(luma_[x] - 0.4f * red_[x] - 0.2f * blue_[x]);
            rgb_[3 * x + 2] = to_byte(luma_[x] + blue_[x]);
        }
        return rgb_.data();
    }

  private:
    std::vector<float> luma_, blue_, red_;
    std::vector<uint8_t> rgb_;
};

}  // namespace

std::vector<uint8_t> make_photo_jpeg(int width, int height) {
    if (width < 1 || height < 1 || width > kMaxJpegSide || height > kMaxJpegSide) {
        throw_usage("a picture of {} x {} pixels, expected sides from 1 to {}", width, height, kMaxJpegSide);
    }
    Photo photo(width);
    Image image{width, height, {}};
    image.rgb.reserve(static_cast<size_t>(3 * width) * static_cast<size_t>(height));
    for (int y = 0; y < height; ++y) {
        const uint8_t* row = photo.row(y);
        image.rgb.insert(image.rgb.end(), row, row + 3 * width);
    }
    return encode_jpeg(image, kQuality);
}

}  // namespace llava_mini::bench
