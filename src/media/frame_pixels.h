// From FFmpeg's frames to RGB.
#pragma once

#include <string>

#include "media/luma_chroma.h"
#include "model/stages.h"

struct AVFrame;

namespace llava_mini {

struct FramePixelOptions {
    /// Grey of more than 8 bits: true saturates, min(v, 255), as Pillow does with pictures of one channel;
    /// false keeps the upper byte, as Pillow does where an alpha channel is stored too.
    bool saturate_grey = true;
    /// How luma and chroma of 4:2:0 are converted.
    LumaChroma conversion = LumaChroma::kFrame;
    /// Range of luma and chroma of a frame that does not say.
    bool assume_full_range = false;
};

/// Converts a decoded frame as Pillow's convert("RGB") does. Formats that hold RGB, grey or palettes are read
/// exactly: alpha dropped, fewer than 8 bits scaled to 0..255, more cut to the upper byte (grey: see above).
/// Luma and chroma: 4:2:0 in 8 bits as luma_chroma.h says, others through swscale in its accurate mode, with
/// the frame's own matrix and range. Throws Error(kInput) naming `name` for a frame without pixels or of a
/// format that nothing converts. Thread-safe.
Image rgb_of_frame(const AVFrame& frame, const FramePixelOptions& options, const std::string& name);

}  // namespace llava_mini
