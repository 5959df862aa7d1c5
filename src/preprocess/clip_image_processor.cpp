#include "preprocess/clip_image_processor.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "preprocess/nearest_resample.h"
#include "preprocess/pillow_resample.h"
#include "preprocess/tiling.h"

namespace llava_mini {
namespace {

// The mean colour: mean * 255, truncated.
std::array<uint8_t, 3> pad_colour(const VisionHparams& hparams) {
    std::array<uint8_t, 3> colour;
    for (int c = 0; c < 3; ++c) {
        colour[c] = static_cast<uint8_t>(std::clamp(double{hparams.image_mean[c]} * 255.0, 0.0, 255.0));
    }
    return colour;
}

int views_per_side(const VisionHparams& hparams, const PreprocessOptions& options) {
    const int n = options.resolution_ratio != 0 ? options.resolution_ratio : hparams.resolution_ratio;
    if (n < 1 || n > 16) throw_usage("resolution ratio: expected 1 to 16, found {}", n);
    return n;
}

// Shorter side to `size`, then the centre of size x size.
Image resize_and_crop(const CanvasView& view, int size) {
    const int64_t shorter = std::min(view.area.width, view.area.height);
    // Exact integer division equals the truncated quotient of doubles for every accepted side.
    const int64_t width = size * view.area.width / shorter;
    const int64_t height = size * view.area.height / shorter;
    Image result{size, size, std::vector<uint8_t>(3 * static_cast<size_t>(size) * size)};
    resize_bicubic(view, width, height, {(width - size) / 2, (height - size) / 2, size, size}, result.rgb);
    return result;
}

PixelValues normalise(const std::vector<Image>& views, const VisionHparams& hparams) {
    // One float for each of the 256 values of a channel.
    std::array<std::array<float, 256>, 3> table;
    for (int c = 0; c < 3; ++c) {
        for (int value = 0; value < 256; ++value) {
            const float scaled = static_cast<float>(value * (1.0 / 255.0));
            table[c][value] = (scaled - hparams.image_mean[c]) / hparams.image_std[c];
        }
    }
    const int size = hparams.image_size;
    const size_t plane = static_cast<size_t>(size) * size;
    PixelValues result{static_cast<int>(views.size()), size, std::vector<float>(views.size() * 3 * plane)};
    float* out = result.data.data();
    for (const Image& view : views) {
        for (int c = 0; c < 3; ++c, out += plane) {
            for (size_t i = 0; i < plane; ++i) out[i] = table[c][view.rgb[3 * i + c]];
        }
    }
    return result;
}

}  // namespace

std::vector<Image> resize_views(const Image& image, const VisionHparams& hparams,
                                const PreprocessOptions& options) {
    if (image.width < 1 || image.height < 1) {
        throw_input("the picture is empty: {} x {} pixels", image.width, image.height);
    }
    const int n = views_per_side(hparams, options);
    const bool pad = (options.image_aspect_ratio.empty() ? hparams.image_aspect_ratio
                                                         : options.image_aspect_ratio) == "pad";
    const std::array<uint8_t, 3> colour = pad_colour(hparams);

    CanvasView whole = CanvasView::whole(image);
    if (pad && !options.pad_each_view) whole = padded_to_square(whole, colour);
    std::vector<CanvasView> views;
    if (n > 1) views = blocks_of(whole, n);
    views.push_back(whole);

    std::vector<Image> result;
    for (const CanvasView& view : views) {
        const CanvasView square = pad && options.pad_each_view ? padded_to_square(view, colour) : view;
        result.push_back(resize_and_crop(square, hparams.image_size));
    }
    return result;
}

PixelValues preprocess_image(const Image& image, const VisionHparams& hparams,
                             const PreprocessOptions& options) {
    return normalise(resize_views(image, hparams, options), hparams);
}

PixelValues preprocess_frame(const Image& frame, const VisionHparams& hparams,
                             const PreprocessOptions& options) {
    PreprocessOptions frame_options = options;
    frame_options.image_aspect_ratio = "square";
    constexpr int kOfficialSize = 336;
    const int size = options.official_frame_size ? kOfficialSize : hparams.image_size;
    if (frame.width == size && frame.height == size) return preprocess_image(frame, hparams, frame_options);
    return preprocess_image(resize_nearest(frame, size, size), hparams, frame_options);
}

}  // namespace llava_mini
