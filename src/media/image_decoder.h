// Pictures from files and bytes.
//
// The kind of a picture is told by its content, never by its name. JPEG goes through libjpeg-turbo (accurate
// integer inverse DCT, fancy upsampling), everything else through FFmpeg's decoders: PNG, WebP, GIF, BMP,
// TIFF, AVIF, JPEG 2000, QOI, PBM, PGM, PPM, PAM. Of several pictures in a file the first is taken.
//
// Pixels are those of Pillow's convert("RGB"): alpha is dropped, not blended; palettes are looked up and
// their transparency ignored; grey is repeated; 16-bit grey is saturated, 16-bit colour keeps the upper byte;
// CMYK is multiplied out; no colour profile is applied. JPEG, PNG, WebP (lossy too), BMP, TIFF in RGB, grey
// or palette, GIF, QOI and JPEG 2000 are equal to Pillow to the last bit. Rounding may differ by one in TIFF
// with CMYK or luma and chroma and in PNM with a maximum that is not 255, by a few levels in AVIF. A GIF
// whose first picture does not cover the canvas and has a palette of its own differs in what is not covered.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "model/stages.h"

namespace llava_mini {

struct DecodeOptions {
    /// Turns the picture as its EXIF orientation says (JPEG, PNG, WebP, TIFF). False is the official
    /// behaviour.
    bool obey_exif = true;
    /// Pictures of more pixels are refused from their header, before anything is decoded.
    /// The default is the limit above which Pillow reports a decompression bomb.
    uint64_t max_pixels = 178'956'970;
    /// Longest file or byte string that is accepted.
    uint64_t max_bytes = uint64_t{1} << 30;
    /// Names the picture in errors (load_image uses the path).
    std::string name = "picture";
};

/// Decodes a picture. Throws Error(kInput) naming the picture when it is empty, of an unknown kind, too
/// large, damaged or truncated: half a picture is never returned. Error(kSystem) when memory runs out.
/// Thread-safe.
Image decode_image(std::span<const uint8_t> bytes, const DecodeOptions& options = {});

/// Reads and decodes a regular file; errors name the path. Thread-safe.
Image load_image(const std::filesystem::path& path, const DecodeOptions& options = {});

}  // namespace llava_mini
