#include "scenes/assets.h"

#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <numbers>

#include "core/error.h"
#include "scenes/font_face.h"
#include "scenes/words.h"

namespace llava_mini::scenes {
namespace {

constexpr const char* kEmojiFont = "noto/NotoColorEmoji.ttf";
constexpr std::array kTextFonts = {"dejavu/DejaVuSans-Bold.ttf", "dejavu/DejaVuSans.ttf",
                                   "dejavu/DejaVuSansMono-Bold.ttf", "dejavu/DejaVuSerif-Bold.ttf"};
constexpr int kShapeSide = 112, kSubsamples = 4, kGlyphSize = 64, kOpaque = 24;

// The emoji without the transparent margin around it, so that sizes and boxes mean what is seen.
Sprite emoji_sprite(const FT_Bitmap& bitmap) {
    const int width = static_cast<int>(bitmap.width), height = static_cast<int>(bitmap.rows);
    const auto pixel = [&](int x, int y) { return bitmap.buffer + y * bitmap.pitch + 4 * x; };
    int x0 = width, y0 = height, x1 = 0, y1 = 0;
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            if (pixel(x, y)[3] < kOpaque) continue;
            x0 = std::min(x0, x);
            x1 = std::max(x1, x + 1);
            y0 = std::min(y0, y);
            y1 = std::max(y1, y + 1);
        }
    }
    if (x1 <= x0) throw_input("{}: an emoji is empty", kEmojiFont);
    std::vector<uint8_t> rgba;
    for (int y = y0; y < y1; ++y) {
        for (int x = x0; x < x1; ++x) {
            const uint8_t* bgra = pixel(x, y);
            rgba.insert(rgba.end(), {bgra[2], bgra[1], bgra[0], bgra[3]});
        }
    }
    return {x1 - x0, y1 - y0, rgba};
}

Glyph glyph_of(const FT_GlyphSlot slot) {
    const FT_Bitmap& bitmap = slot->bitmap;
    std::vector<uint8_t> rgba;
    for (unsigned y = 0; y < bitmap.rows; ++y) {
        for (unsigned x = 0; x < bitmap.width; ++x) {
            const uint8_t alpha = bitmap.buffer[static_cast<int>(y) * bitmap.pitch + static_cast<int>(x)];
            rgba.insert(rgba.end(), {alpha, alpha, alpha, alpha});
        }
    }
    const auto em = [](auto pixels) { return static_cast<float>(pixels) / kGlyphSize; };
    return {.sprite = {static_cast<int>(bitmap.width), static_cast<int>(bitmap.rows), rgba},
            .left = em(slot->bitmap_left),
            .top = em(slot->bitmap_top),
            .width = em(bitmap.width),
            .height = em(bitmap.rows),
            .advance = em(slot->advance.x) / 64};
}

struct Point {
    float x, y;
};

// A white sprite of what is inside; coordinates run from -1 to 1, y downwards.
Sprite painted(const std::function<bool(Point)>& inside) {
    std::vector<uint8_t> rgba;
    for (int y = 0; y < kShapeSide; ++y) {
        for (int x = 0; x < kShapeSide; ++x) {
            int hits = 0;
            for (int s = 0; s < kSubsamples * kSubsamples; ++s) {
                const auto coordinate = [](int pixel, int sub) {
                    return 2 * (static_cast<float>(pixel) + (static_cast<float>(sub) + 0.5f) / kSubsamples) /
                               kShapeSide -
                           1;
                };
                hits += inside({coordinate(x, s % kSubsamples), coordinate(y, s / kSubsamples)}) ? 1 : 0;
            }
            const auto alpha = static_cast<uint8_t>(hits * 255 / (kSubsamples * kSubsamples));
            rgba.insert(rgba.end(), {alpha, alpha, alpha, alpha});
        }
    }
    return {kShapeSide, kShapeSide, rgba};
}

// Even-odd rule.
std::function<bool(Point)> polygon(std::vector<Point> corners) {
    return [corners = std::move(corners)](Point p) {
        bool inside = false;
        for (size_t i = 0, j = corners.size() - 1; i < corners.size(); j = i++) {
            const Point a = corners[i], b = corners[j];
            if ((a.y > p.y) != (b.y > p.y) && p.x < (b.x - a.x) * (p.y - a.y) / (b.y - a.y) + a.x)
                inside = !inside;
        }
        return inside;
    };
}

std::function<bool(Point)> star() {
    std::vector<Point> corners;
    for (int i = 0; i < 10; ++i) {
        const float angle = std::numbers::pi_v<float> * (static_cast<float>(i) / 5 - 0.5f);
        const float radius = i % 2 == 0 ? 1.0f : 0.45f;
        corners.push_back({radius * std::cos(angle), radius * std::sin(angle) + 0.05f});
    }
    return polygon(corners);
}

// In the order of kShapes.
std::vector<Sprite> paint_shapes() {
    std::vector<Sprite> shapes;
    shapes.push_back(painted([](Point p) { return p.x * p.x + p.y * p.y <= 1; }));
    shapes.push_back(painted([](Point p) { return std::max(std::fabs(p.x), std::fabs(p.y)) <= 0.92f; }));
    shapes.push_back(painted(polygon({{0, -0.9f}, {1, 0.85f}, {-1, 0.85f}})));
    shapes.push_back(painted(star()));
    shapes.push_back(painted([](Point p) {
        const float x = p.x * 1.16f, y = 0.17f - p.y * 1.16f, r = x * x + y * y - 1;
        return r * r * r - x * x * y * y * y <= 0;
    }));
    shapes.push_back(painted([](Point p) { return std::fabs(p.x) / 0.75f + std::fabs(p.y) <= 1; }));
    shapes.push_back(painted([](Point p) {
        const float low = std::min(std::fabs(p.x), std::fabs(p.y)),
                    high = std::max(std::fabs(p.x), std::fabs(p.y));
        return low <= 0.32f && high <= 0.97f;
    }));
    shapes.push_back(painted(polygon(
        {{-1, -0.3f}, {0.05f, -0.3f}, {0.05f, -0.85f}, {1, 0}, {0.05f, 0.85f}, {0.05f, 0.3f}, {-1, 0.3f}})));
    return shapes;
}

std::vector<Sprite> paint_plates() {
    std::vector<Sprite> plates;
    plates.push_back(painted([](Point) { return true; }));
    plates.push_back(painted([](Point p) {
        const float x = std::max(std::fabs(p.x) - 0.8f, 0.0f), y = std::max(std::fabs(p.y) - 0.7f, 0.0f);
        return x * x / (0.2f * 0.2f) + y * y / (0.3f * 0.3f) <= 1;
    }));
    return plates;
}

}  // namespace

Assets::Assets(const std::filesystem::path& fonts) : shapes_(paint_shapes()), plates_(paint_plates()) {
    const FontLibrary library;
    FontFace emoji(library, fonts / kEmojiFont, "fonts-noto-color-emoji");
    emoji.select_bitmaps();
    for (const EmojiWord& word : emoji_words()) {
        emoji_.push_back(emoji_sprite(emoji.render(word.code, FT_LOAD_COLOR, FT_PIXEL_MODE_BGRA)->bitmap));
    }
    for (const char* name : kTextFonts) {
        FontFace face(library, fonts / name, "fonts-dejavu-core");
        face.set_size(kGlyphSize);
        std::vector<Glyph>& glyphs = glyphs_.emplace_back();
        for (const char c : kGlyphs) {
            glyphs.push_back(
                glyph_of(face.render(static_cast<char32_t>(c), FT_LOAD_NO_HINTING, FT_PIXEL_MODE_GRAY)));
        }
    }
}

std::shared_ptr<const Assets> Assets::load(const std::filesystem::path& fonts) {
    static std::mutex mutex;
    static std::map<std::filesystem::path, std::shared_ptr<const Assets>> loaded;
    const std::lock_guard lock(mutex);
    std::shared_ptr<const Assets>& assets = loaded[fonts];
    if (!assets) assets = std::make_shared<const Assets>(fonts);
    return assets;
}

const Glyph& Assets::glyph(int font, char c) const {
    return glyphs_[static_cast<size_t>(font)][kGlyphs.find(c)];
}

}  // namespace llava_mini::scenes
