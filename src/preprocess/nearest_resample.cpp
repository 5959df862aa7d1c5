#include "preprocess/nearest_resample.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace llava_mini {

std::vector<int64_t> nearest_indices(int64_t in, int64_t out) {
    const float scale = static_cast<float>(in) / static_cast<float>(out);
    std::vector<int64_t> indices(out);
    for (int64_t i = 0; i < out; ++i) {
        const float position = std::floor(static_cast<float>(i) * scale);
        indices[i] = std::min(static_cast<int64_t>(position), in - 1);
    }
    return indices;
}

Image resize_nearest(const Image& image, int width, int height) {
    if (image.width < 1 || image.height < 1 || width < 1 || height < 1) {
        throw_usage("cannot resize {} x {} pixels to {} x {}", image.width, image.height, width, height);
    }
    const std::vector<int64_t> columns = nearest_indices(image.width, width);
    const std::vector<int64_t> rows = nearest_indices(image.height, height);
    Image result{width, height, std::vector<uint8_t>(3 * static_cast<size_t>(width) * height)};
    uint8_t* out = result.rgb.data();
    for (const int64_t row : rows) {
        const uint8_t* in = image.rgb.data() + 3 * row * image.width;
        for (const int64_t column : columns) out = std::copy_n(in + 3 * column, 3, out);
    }
    return result;
}

}  // namespace llava_mini
