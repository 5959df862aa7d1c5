#include "media/exif.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

#include "media/bytes.h"
#include "media/webp.h"

namespace llava_mini {
namespace {

constexpr uint32_t kOrientationTag = 0x0112;
constexpr uint32_t kTypeShort = 3;
constexpr uint64_t kEntryBytes = 12;  // of a directory: tag, type, count, value

// The content of the first chunk of a PNG called `tag`; empty when there is none.
std::span<const uint8_t> png_chunk(std::span<const uint8_t> file, std::string_view tag) {
    uint64_t at = 8;  // behind the signature; a chunk: length, tag, content, checksum
    while (at + 8 <= file.size()) {
        const uint64_t length = number_at(file, at, 4, ByteOrder::kBig);
        if (length > file.size() - at - 8) break;
        if (has_text(file, at + 4, tag)) return file.subspan(at + 8, length);
        at += 12 + length;
    }
    return {};
}

// The picture whose pixel (x, y) is `image`'s pixel origin + x * step_x + y * step_y.
Image remapped(const Image& image, int width, int height, int64_t origin, int64_t step_x, int64_t step_y) {
    // In tiles: where rows become columns, whole rows would touch one cache line a pixel.
    constexpr int kTile = 32;
    Image result{width, height, std::vector<uint8_t>(image.rgb.size())};
    for (int tile_y = 0; tile_y < height; tile_y += kTile) {
        for (int tile_x = 0; tile_x < width; tile_x += kTile) {
            const int end_x = std::min(tile_x + kTile, width), end_y = std::min(tile_y + kTile, height);
            for (int y = tile_y; y < end_y; ++y) {
                const uint8_t* in = image.rgb.data() + 3 * (origin + tile_x * step_x + y * step_y);
                uint8_t* out = result.rgb.data() + 3 * (static_cast<int64_t>(y) * width + tile_x);
                for (int x = tile_x; x < end_x; ++x, in += 3 * step_x, out += 3) {
                    out[0] = in[0];
                    out[1] = in[1];
                    out[2] = in[2];
                }
            }
        }
    }
    return result;
}

}  // namespace

uint32_t tiff_value(std::span<const uint8_t> tiff, uint32_t tag) {
    if (!is_tiff(tiff)) return 0;
    const ByteOrder order = tiff[0] == 'I' ? ByteOrder::kLittle : ByteOrder::kBig;
    const uint64_t directory = number_at(tiff, 4, 4, order);
    const uint64_t entries = number_at(tiff, directory, 2, order);
    for (uint64_t i = 0; i < entries; ++i) {
        const uint64_t entry = directory + 2 + i * kEntryBytes;
        if (entry + kEntryBytes > tiff.size()) break;
        if (number_at(tiff, entry, 2, order) != tag) continue;
        const bool is_short = number_at(tiff, entry + 2, 2, order) == kTypeShort;
        const bool is_single = number_at(tiff, entry + 4, 4, order) == 1;
        return is_short && is_single ? number_at(tiff, entry + 8, 2, order) : 0;
    }
    return 0;
}

Orientation orientation_of_exif(std::span<const uint8_t> exif) {
    constexpr std::string_view kPrefix("Exif\0\0", 6);
    const uint32_t value =
        tiff_value(has_text(exif, 0, kPrefix) ? exif.subspan(kPrefix.size()) : exif, kOrientationTag);
    return value >= 1 && value <= 8 ? static_cast<Orientation>(value) : Orientation::kUpright;
}

bool is_tiff(std::span<const uint8_t> file) {
    return has_text(file, 0, std::string_view("II*\0", 4)) || has_text(file, 0, std::string_view("MM\0*", 4));
}

Orientation orientation_of_file(std::span<const uint8_t> file) {
    if (is_tiff(file)) return orientation_of_exif(file);
    if (has_text(file, 0, "\x89PNG")) return orientation_of_exif(png_chunk(file, "eXIf"));
    if (is_webp(file)) return orientation_of_exif(riff_chunk(file, 12, "EXIF"));
    return Orientation::kUpright;
}

void apply_orientation(Image& image, Orientation orientation) {
    const int w = image.width, h = image.height;
    const int64_t row = w, last_column = w - 1, last_row = (int64_t{h} - 1) * w;
    switch (orientation) {
        case Orientation::kUpright:
            return;
        case Orientation::kMirrored:
            image = remapped(image, w, h, last_column, -1, row);
            return;
        case Orientation::kRotated180:
            image = remapped(image, w, h, last_row + last_column, -1, -row);
            return;
        case Orientation::kFlipped:
            image = remapped(image, w, h, last_row, 1, -row);
            return;
        case Orientation::kTransposed:
            image = remapped(image, h, w, 0, row, 1);
            return;
        case Orientation::kRotate90:
            image = remapped(image, h, w, last_row, -row, 1);
            return;
        case Orientation::kTransverse:
            image = remapped(image, h, w, last_row + last_column, -row, -1);
            return;
        case Orientation::kRotate270:
            image = remapped(image, h, w, last_column, row, -1);
            return;
    }
}

}  // namespace llava_mini
