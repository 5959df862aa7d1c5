// JPEG through libjpeg-turbo, with Pillow's pixels.
#pragma once

#include <cstdint>
#include <span>

#include "media/exif.h"
#include "media/image_decoder.h"

namespace llava_mini {

/// Whether the bytes start as every JPEG does (FF D8 FF).
bool is_jpeg(std::span<const uint8_t> bytes);

/// Decodes a grey, YCbCr, RGB, CMYK or YCCK JPEG, sequential or progressive: accurate integer inverse DCT and
/// fancy upsampling, as Pillow does. Four components are taken as Adobe's inverted CMYK and multiplied out:
/// r = clip(nk - muldiv255(c, nk)) with nk = 255 - K. `options.obey_exif` is left to the caller.
/// Throws Error(kInput) naming the picture when libjpeg finds it damaged, when it ends before its end marker
/// (Pillow refuses those too), has other component counts, more than options.max_pixels pixels, or more scans
/// than a sane encoder makes. Errors inside the entropy-coded data that libjpeg conceals are accepted, as
/// Pillow does, and logged. Thread-safe.
DecodedPicture decode_jpeg(std::span<const uint8_t> bytes, const DecodeOptions& options);

}  // namespace llava_mini
