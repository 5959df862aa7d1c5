// How a picture looks apart from what it shows: as if photographed from a screen, scaled, compressed ...
#pragma once

#include "model/stages.h"
#include "scenes/canvas.h"
#include "scenes/random.h"

namespace llava_mini::scenes {

/// Everything that is the same for all frames of a clip. The default changes nothing.
struct Look {
    // Where the scene lies on the picture: left, top, width and height in fractions of the picture.
    float left = 0, top = 0, width = 1, height = 1;
    enum class Border { kNone, kFrame, kWindow } border = Border::kNone;  // what surrounds it
    Rgb border_colour{};
    float max_angle = 0;  // things are turned by up to so many radians
    bool mirror = false;  // things may be mirrored
    float gain = 1, offset = 0, saturation = 1;
    Rgb balance = {1, 1, 1};  // factors of the channels
    int small_side = 0;       // scaled down to so many pixels and up again; 0: not
    float blur = 0;           // standard deviation in pixels
    float noise = 0;          // standard deviation in levels
    int jpeg_quality = 0;     // 0: not compressed
};

/// An augmented look for pictures of `size` pixels.
Look draw_look(int size, Random& random);

/// Paints the border around where the scene lies.
void paint_border(Canvas& canvas, const Look& look);

/// Brightness, colours, scaling, blur, noise, JPEG; to 8 bits.
Image develop(Canvas& canvas, const Look& look, Random& random);

}  // namespace llava_mini::scenes
