// Every picture format but JPEG, through FFmpeg's demuxers and decoders.
#pragma once

#include <cstdint>
#include <span>

#include "media/exif.h"
#include "media/image_decoder.h"

namespace llava_mini {

/// Decodes the first picture of a file held in memory; its kind is found by FFmpeg's probing among the
/// formats that image_decoder.h lists. Runs on the calling thread alone. `options.obey_exif` is left to the
/// caller. Throws Error(kInput) naming the picture when the kind is unknown, the header announces more than
/// options.max_pixels pixels, or FFmpeg reports any damage. Thread-safe.
DecodedPicture decode_with_ffmpeg(std::span<const uint8_t> bytes, const DecodeOptions& options);

}  // namespace llava_mini
