// The orientation of a picture, from EXIF data.
#pragma once

#include <cstdint>
#include <span>

#include "model/stages.h"

namespace llava_mini {

/// EXIF's values: what has to be done to the stored pixels to see the picture upright.
enum class Orientation : uint8_t {
    kUpright = 1,
    kMirrored = 2,  // left and right exchanged
    kRotated180 = 3,
    kFlipped = 4,     // top and bottom exchanged
    kTransposed = 5,  // mirrored at the main diagonal
    kRotate90 = 6,    // to be turned clockwise
    kTransverse = 7,  // mirrored at the other diagonal
    kRotate270 = 8,   // to be turned counter-clockwise
};

/// A decoded picture as it is stored, and how it wants to be seen.
struct DecodedPicture {
    Image image;
    Orientation orientation = Orientation::kUpright;
};

/// Reads the orientation (tag 0x0112) from the first directory of a TIFF structure, which is what EXIF data
/// and TIFF files are ("II" or "MM", 42, offset). Data that is damaged, or has no such tag or no value of 1
/// to 8, means upright: a bad tag never makes a picture unreadable.
Orientation orientation_of_tiff(std::span<const uint8_t> tiff);

/// The same of EXIF data that may start with "Exif\0\0".
Orientation orientation_of_exif(std::span<const uint8_t> exif);

bool is_tiff(std::span<const uint8_t> file);

/// The value of a tag of type SHORT and count 1 in the first directory of a TIFF structure ("II" or "MM", 42,
/// offset), which is what EXIF data and TIFF files are; 0 when there is none or the data is damaged.
uint32_t tiff_value(std::span<const uint8_t> tiff, uint32_t tag);

/// Finds the EXIF data of a PNG (chunk eXIf) or WebP (chunk EXIF), or reads a TIFF's own directory; upright
/// for every other kind of file.
Orientation orientation_of_file(std::span<const uint8_t> file);

/// Turns and mirrors the pixels. Needs memory for a second picture where sides are exchanged.
void apply_orientation(Image& image, Orientation orientation);

}  // namespace llava_mini
