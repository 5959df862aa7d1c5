// Any bytes as a picture: decoded, turned, resized, or refused with an Error; nothing else may happen.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "llava_mini/error.hpp"
#include "media/image_decoder.h"
#include "preprocess/clip_image_processor.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace llava_mini;
    VisionHparams hparams;
    hparams.image_size = 28;
    hparams.image_std = {1, 1, 1};
    try {
        // Small pictures find as much as large ones, sooner.
        const Image image = decode_image({data, size}, {.max_pixels = 1 << 18});
        if (image.rgb.size() != size_t{3} * image.width * image.height) std::abort();
        const PixelValues pixels = preprocess_image(image, hparams,
                                                    {.image_aspect_ratio = size % 2 != 0 ? "pad" : "square",
                                                     .resolution_ratio = 1 + static_cast<int>(size % 3)});
        if (pixels.data.size() != size_t{3} * 28 * 28 * pixels.views) std::abort();
    } catch (const Error&) {
    }
    return 0;
}
