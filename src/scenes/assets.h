// The pictures scenes are made of: emoji, shapes, letters.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "scenes/sprite.h"

namespace llava_mini::scenes {

/// A letter or digit of a font. Lengths are in units of the font's size.
struct Glyph {
    Sprite sprite;
    float left = 0, top = 0;  // of the picture, from the pen to the right and from the baseline upwards
    float width = 0, height = 0, advance = 0;
};

/// Immutable; shared by all generators of the process.
class Assets {
  public:
    /// Reads Noto Color Emoji and the DejaVu fonts below `fonts` (once a process and folder; later calls give
    /// the same object). Throws Error(kInput) naming the font and its Debian package if one is missing,
    /// cannot be read, or lacks a picture. Thread-safe.
    static std::shared_ptr<const Assets> load(
        const std::filesystem::path& fonts = "/usr/share/fonts/truetype");

    /// By the noun of an emoji.
    const Sprite& emoji(int noun) const { return emoji_[static_cast<size_t>(noun)]; }
    /// White; to be tinted.
    const Sprite& shape(int shape) const { return shapes_[static_cast<size_t>(shape)]; }
    /// A white square with round corners, for plates of signs; `round` 0: sharp.
    const Sprite& plate(bool round) const { return plates_[round ? 1 : 0]; }
    int fonts() const { return static_cast<int>(glyphs_.size()); }
    /// A capital letter or a digit, white.
    const Glyph& glyph(int font, char c) const;

    explicit Assets(const std::filesystem::path& fonts);  // load() keeps one for all

  private:
    std::vector<Sprite> emoji_, shapes_, plates_;
    std::vector<std::vector<Glyph>> glyphs_;  // by font, by place in kGlyphs
};

/// What signs are written with.
inline constexpr std::string_view kGlyphs = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

}  // namespace llava_mini::scenes
