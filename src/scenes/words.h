// The things a scene can show, and their names.
//
// A noun is a number: first the emoji, then the shapes, then the sign. Names are single common words out of
// the emoji's English name or keywords in Unicode's CLDR (a test compares them with the data if they are
// installed).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace llava_mini::scenes {

enum class Group : uint8_t { kAnimal, kFood, kVehicle, kObject, kSport, kPlant, kOutdoors, kShape, kSign };

struct EmojiWord {
    char32_t code;  // the one code point that Noto Color Emoji has a picture for
    const char* word;
    Group group;
    const char* plural = nullptr;  // null: word + "s"
};

struct ColourWord {
    const char* word;
    std::array<uint8_t, 3> rgb;
};

std::span<const EmojiWord> emoji_words();

inline constexpr std::array<const char*, 8> kShapes = {"circle", "square",  "triangle", "star",
                                                       "heart",  "diamond", "cross",    "arrow"};
inline constexpr std::array<ColourWord, 8> kColours = {{{"red", {220, 30, 30}},
                                                        {"orange", {255, 140, 0}},
                                                        {"yellow", {250, 225, 40}},
                                                        {"green", {40, 160, 60}},
                                                        {"blue", {35, 80, 220}},
                                                        {"purple", {140, 50, 180}},
                                                        {"black", {20, 20, 20}},
                                                        {"white", {250, 250, 250}}}};
inline constexpr int kShapeCount = 8, kColourCount = 8, kPlaceCount = 9;
/// The cells of a 3 x 3 grid, row by row.
inline constexpr std::array<const char*, 9> kPlaces = {
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"};

int emoji_count();
/// Emoji, shapes and the sign.
int noun_count();
inline int shape_noun(int shape) {
    return emoji_count() + shape;
}
inline int sign_noun() {
    return emoji_count() + kShapeCount;
}
inline bool is_shape(int noun) {
    return noun >= emoji_count() && noun < sign_noun();
}
inline bool is_sign(int noun) {
    return noun == sign_noun();
}

const char* noun_word(int noun);
std::string noun_plural(int noun);
Group noun_group(int noun);
/// "a cat", "an apple".
std::string with_article(const std::string& phrase);

/// The one place where a noun never stands outside of the split "heldout"; signs have none (-1).
int held_out_place(int noun);
/// The one colour that a shape never has outside of the split "heldout"; each colour is held out of one
/// shape.
int held_out_colour(int shape);

/// Words of up to four letters, in capitals, that signs show besides numbers and random letters.
std::span<const char* const> sign_words();

}  // namespace llava_mini::scenes
