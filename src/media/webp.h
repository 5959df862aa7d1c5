// WebP files: where the first picture is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llava_mini {

/// The first picture of a WebP file.
struct WebpPicture {
    /// A WebP file that holds nothing but the picture's bit stream; empty when none was found. Alpha is left
    /// out.
    std::vector<uint8_t> file;
    /// Size of the canvas and where the picture lies on it; the size is 0 x 0 unless the file is an
    /// animation.
    uint32_t canvas_width = 0, canvas_height = 0, x = 0, y = 0;
};

bool is_webp(std::span<const uint8_t> file);

/// Finds the first picture: of an animation its first frame, which FFmpeg's decoder does not reach.
WebpPicture first_webp_picture(std::span<const uint8_t> webp);

}  // namespace llava_mini
