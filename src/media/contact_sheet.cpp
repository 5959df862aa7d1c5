#include "media/contact_sheet.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/error.h"

namespace llava_mini {
namespace {

constexpr int kColumns = 4, kGap = 8, kScale = 2, kGlyphWidth = 5, kGlyphHeight = 7;

// Rows of five bits, from the top.
struct Glyph {
    char character;
    std::array<uint8_t, kGlyphHeight> rows;
};
constexpr Glyph kGlyphs[] = {
    {'0', {14, 17, 19, 21, 25, 17, 14}}, {'1', {4, 12, 4, 4, 4, 4, 14}},
    {'2', {14, 17, 1, 2, 4, 8, 31}},     {'3', {31, 2, 4, 2, 1, 17, 14}},
    {'4', {2, 6, 10, 18, 31, 2, 2}},     {'5', {31, 16, 30, 1, 1, 17, 14}},
    {'6', {6, 8, 16, 30, 17, 17, 14}},   {'7', {31, 1, 2, 4, 8, 8, 8}},
    {'8', {14, 17, 17, 14, 17, 17, 14}}, {'9', {14, 17, 17, 15, 1, 2, 12}},
    {':', {0, 12, 12, 0, 12, 12, 0}},    {'.', {0, 0, 0, 0, 0, 12, 12}},
    {'%', {24, 25, 2, 4, 8, 19, 3}},
};

void write_label(Image& sheet, std::string_view text, int left, int top) {
    for (const char character : text) {
        const auto* glyph = std::find_if(std::begin(kGlyphs), std::end(kGlyphs),
                                         [&](const Glyph& g) { return g.character == character; });
        for (int y = 0; glyph != std::end(kGlyphs) && y < kGlyphHeight * kScale; ++y) {
            for (int x = 0; x < kGlyphWidth * kScale; ++x) {
                if ((glyph->rows[static_cast<size_t>(y / kScale)] >> (kGlyphWidth - 1 - x / kScale) & 1) == 0)
                    continue;
                if (left + x >= sheet.width) continue;
                const size_t at = 3 * (static_cast<size_t>(top + y) * sheet.width + left + x);
                std::fill_n(sheet.rgb.begin() + static_cast<ptrdiff_t>(at), 3, 0);
            }
        }
        left += (kGlyphWidth + 1) * kScale;
    }
}

}  // namespace

Image contact_sheet(std::span<const SheetPicture> pictures) {
    if (pictures.empty()) throw_usage("a contact sheet of no pictures");
    int width = 1, height = 1;
    for (const SheetPicture& picture : pictures) {
        width = std::max({width, picture.image.width,
                          static_cast<int>(picture.label.size()) * (kGlyphWidth + 1) * kScale});
        height = std::max(height, picture.image.height);
    }
    const int count = static_cast<int>(pictures.size()), columns = std::min(count, kColumns),
              rows = (count + columns - 1) / columns;
    const int cell_height = height + kGlyphHeight * kScale + 2 * kGap;
    Image sheet{columns * (width + kGap) + kGap, rows * cell_height + kGap, {}};
    sheet.rgb.assign(size_t{3} * sheet.width * sheet.height, 255);
    for (int i = 0; i < count; ++i) {
        const Image& image = pictures[static_cast<size_t>(i)].image;
        const int left = kGap + i % columns * (width + kGap), top = kGap + i / columns * cell_height;
        for (int y = 0; y < image.height; ++y) {
            const auto row = image.rgb.begin() + static_cast<ptrdiff_t>(3) * image.width * y;
            std::copy_n(row, 3 * image.width,
                        sheet.rgb.begin() + 3 * (static_cast<ptrdiff_t>(top + y) * sheet.width + left));
        }
        write_label(sheet, pictures[static_cast<size_t>(i)].label, left, top + height + kGap / 2);
    }
    return sheet;
}

}  // namespace llava_mini
