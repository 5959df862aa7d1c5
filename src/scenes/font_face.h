// Fonts through FreeType.
#pragma once

#include <ft2build.h>
#include FT_FREETYPE_H

#include <filesystem>

namespace llava_mini::scenes {

/// FreeType itself; must outlive its faces. Not thread-safe: one thread, one library.
class FontLibrary {
  public:
    /// Throws Error(kSystem).
    FontLibrary();
    ~FontLibrary();
    FontLibrary(const FontLibrary&) = delete;
    FontLibrary& operator=(const FontLibrary&) = delete;
    FT_Library get() const { return library_; }

  private:
    FT_Library library_ = nullptr;
};

/// A font's file. All functions throw Error(kInput) naming it when it does not do what is asked.
class FontFace {
  public:
    /// `package`: the Debian package that an error names.
    FontFace(const FontLibrary& library, std::filesystem::path path, const char* package);
    ~FontFace();
    FontFace(const FontFace&) = delete;
    FontFace& operator=(const FontFace&) = delete;

    /// Chooses the pictures of a font that has only pictures (CBDT).
    void select_bitmaps();
    void set_size(int pixels);
    /// The rendered glyph of a character, valid until the next call; `pixel_mode` is what it must be.
    FT_GlyphSlot render(char32_t code, FT_Int32 flags, int pixel_mode);

  private:
    std::filesystem::path path_;
    FT_Face face_ = nullptr;
};

}  // namespace llava_mini::scenes
