#include "scenes/sheet.h"

#include <algorithm>

#include "core/error.h"
#include "scenes/font_face.h"

namespace llava_mini::scenes {
namespace {

constexpr int kTextSize = 13, kLine = 17, kGap = 8, kMaxFrames = 8, kTextWidth = 330, kMaxLines = 24;

// A white sheet that is written and drawn on.
class Sheet {
  public:
    Sheet(int width, int height, const std::filesystem::path& fonts)
        : image_{width, height,
                 std::vector<uint8_t>(static_cast<size_t>(3 * width) * static_cast<size_t>(height), 255)},
          face_(library_, fonts / "dejavu/DejaVuSans.ttf", "fonts-dejavu-core") {
        face_.set_size(kTextSize);
    }

    void write(int x, int y, std::string_view text) {
        for (const char c : text) {
            const auto code = static_cast<unsigned char>(c);
            const FT_GlyphSlot glyph = face_.render(code < 128 ? code : U'?', 0, FT_PIXEL_MODE_GRAY);
            const FT_Bitmap& bitmap = glyph->bitmap;
            for (int row = 0; row < static_cast<int>(bitmap.rows); ++row) {
                for (int column = 0; column < static_cast<int>(bitmap.width); ++column) {
                    darken(x + glyph->bitmap_left + column, y - glyph->bitmap_top + row,
                           bitmap.buffer[row * bitmap.pitch + column]);
                }
            }
            x += static_cast<int>(glyph->advance.x >> 6);
        }
    }

    void draw(int left, int top, const Image& picture, int zoom) {
        for (int y = 0; y < picture.height * zoom; ++y) {
            for (int x = 0; x < picture.width * zoom; ++x) {
                const uint8_t* from = picture.rgb.data() + 3 * ((y / zoom) * picture.width + x / zoom);
                if (uint8_t* to = pixel(left + x, top + y)) std::copy(from, from + 3, to);
            }
        }
    }

    void outline(int x0, int y0, int x1, int y1) {
        for (int x = x0; x < x1; ++x) mark(x, y0), mark(x, y1 - 1);
        for (int y = y0; y < y1; ++y) mark(x0, y), mark(x1 - 1, y);
    }

    Image take() { return std::move(image_); }

  private:
    uint8_t* pixel(int x, int y) {
        if (x < 0 || y < 0 || x >= image_.width || y >= image_.height) return nullptr;
        return image_.rgb.data() + 3 * (static_cast<ptrdiff_t>(y) * image_.width + x);
    }
    void darken(int x, int y, uint8_t by) {
        if (uint8_t* p = pixel(x, y)) {
            for (int c = 0; c < 3; ++c) p[c] = std::min<uint8_t>(p[c], static_cast<uint8_t>(255 - by));
        }
    }
    void mark(int x, int y) {
        constexpr uint8_t kColour[] = {255, 0, 255};
        if (uint8_t* p = pixel(x, y)) std::copy(kColour, kColour + 3, p);
    }

    Image image_;
    FontLibrary library_;
    FontFace face_;
};

std::vector<std::string> lines_of(const Sample& sample, size_t letters) {
    std::vector<std::string> lines = {sample.id};
    for (const QaTurn& turn : sample.turns) {
        std::string text = turn.question + "  " + turn.answer;
        bool first = true;
        while (!text.empty()) {
            size_t length = std::min(text.size(), letters);
            if (length < text.size()) {
                const size_t space = text.rfind(' ', length);
                if (space != std::string::npos && space > 0) length = space;
            }
            lines.push_back((first ? "" : "    ") + text.substr(0, length));
            text.erase(0, std::min(text.size(), length + 1));
            first = false;
        }
    }
    if (lines.size() > kMaxLines) lines.resize(kMaxLines);
    return lines;
}

}  // namespace

Image draw_sheet(const std::vector<Sample>& samples, const SheetOptions& options) {
    int picture_width = 0, picture_height = 0, width = kTextWidth;
    size_t lines = 0;
    for (const Sample& sample : samples) {
        int across = 0;
        for (size_t i = 0; i < std::min<size_t>(sample.frames.size(), kMaxFrames); ++i) {
            across += sample.frames[i].width * options.zoom + 2;
            picture_height = std::max(picture_height, sample.frames[i].height * options.zoom);
        }
        picture_width = std::max(picture_width, across);
    }
    width = std::max(width, picture_width);
    const auto letters = static_cast<size_t>(width / 7);
    for (const Sample& sample : samples) lines = std::max(lines, lines_of(sample, letters).size());
    const int cell_width = width + kGap;
    const int cell_height = picture_height + static_cast<int>(lines) * kLine + 2 * kGap;
    const int rows = (static_cast<int>(samples.size()) + options.columns - 1) / options.columns;

    Sheet sheet(cell_width * options.columns + kGap, cell_height * std::max(rows, 1) + kGap, options.fonts);
    for (size_t i = 0; i < samples.size(); ++i) {
        const Sample& sample = samples[i];
        const int left = kGap + static_cast<int>(i) % options.columns * cell_width;
        const int top = kGap + static_cast<int>(i) / options.columns * cell_height;
        int x = left;
        for (size_t f = 0; f < std::min<size_t>(sample.frames.size(), kMaxFrames); ++f) {
            sheet.draw(x, top, sample.frames[f], options.zoom);
            if (options.marks && f < sample.marks.size()) {
                for (const Mark& mark : sample.marks[f]) {
                    if (mark.kind != Mark::Kind::kName && mark.kind != Mark::Kind::kLetter) continue;
                    const auto at = [&](float v) {
                        return static_cast<int>(v * static_cast<float>(options.zoom));
                    };
                    sheet.outline(x + at(mark.x0), top + at(mark.y0), x + at(mark.x1), top + at(mark.y1));
                }
            }
            x += sample.frames[f].width * options.zoom + 2;
        }
        int y = top + picture_height + kLine;
        for (const std::string& line : lines_of(sample, letters)) {
            sheet.write(left, y, line);
            y += kLine;
        }
    }
    return sheet.take();
}

}  // namespace llava_mini::scenes
