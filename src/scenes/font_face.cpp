#include "scenes/font_face.h"

#include <cstdint>
#include <utility>

#include "core/error.h"

namespace llava_mini::scenes {

FontLibrary::FontLibrary() {
    if (FT_Init_FreeType(&library_) != 0) throw_system("FreeType cannot be started");
}

FontLibrary::~FontLibrary() {
    FT_Done_FreeType(library_);
}

FontFace::FontFace(const FontLibrary& library, std::filesystem::path path, const char* package)
    : path_(std::move(path)) {
    if (FT_New_Face(library.get(), path_.c_str(), 0, &face_) != 0) {
        throw_input("{}: the font is missing or cannot be read (Debian package {})", path_.string(), package);
    }
}

FontFace::~FontFace() {
    FT_Done_Face(face_);
}

void FontFace::select_bitmaps() {
    if (face_->num_fixed_sizes < 1 || FT_Select_Size(face_, 0) != 0) {
        throw_input("{}: expected a font of bitmaps (CBDT)", path_.string());
    }
}

void FontFace::set_size(int pixels) {
    if (FT_Set_Pixel_Sizes(face_, 0, static_cast<FT_UInt>(pixels)) != 0) {
        throw_input("{}: the font cannot be scaled to {} pixels", path_.string(), pixels);
    }
}

FT_GlyphSlot FontFace::render(char32_t code, FT_Int32 flags, int pixel_mode) {
    const FT_UInt index = FT_Get_Char_Index(face_, code);
    if (index == 0 || FT_Load_Glyph(face_, index, flags | FT_LOAD_RENDER) != 0 ||
        face_->glyph->bitmap.pixel_mode != pixel_mode) {
        throw_input("{}: no picture for U+{:04X}", path_.string(), static_cast<uint32_t>(code));
    }
    return face_->glyph;
}

}  // namespace llava_mini::scenes
