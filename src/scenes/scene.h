// What a picture shows: things, where, how large. No pixels.
#pragma once

#include <string>
#include <vector>

#include "scenes/assets.h"
#include "scenes/random.h"
#include "scenes/words.h"

namespace llava_mini::scenes {

/// Lengths are fractions of the picture's side, the origin is its upper left corner.
struct Thing {
    int noun = 0;
    int colour = -1;          // of shapes, index into kColours
    std::string text;         // of signs
    int place = -1;           // index into kPlaces; -1: large, in no place of its own
    float x = 0, y = 0;       // centre
    float size = 0;           // longer side (of a sign: width of its plate)
    float letters = 0;        // of signs: the font's size
    int style = 0;            // of signs: font and colours; of arrows: quarter turns
    uint64_t appearance = 0;  // key of what is left to chance: angle, shade
};

/// What scenes are drawn from.
struct SceneOptions {
    int min_things = 1, max_things = 5;  ///< things in a picture, at most 9
    double big_share = 0.2;              ///< of the pictures show one big thing
    double shape_share = 0.2;            ///< of the things are shapes
    double sign_share = 0.2;             ///< of the pictures have a sign
};

/// What the questions that will be asked want of the scene.
struct SceneWishes {
    bool sign = false;      ///< there must be one
    bool shape = false;     ///< there must be a shape
    bool several = false;   ///< two things at least (if max_things allows it)
    bool one = false;       ///< exactly one thing
    int copies = -1;        ///< so many things of one noun (0: none of it); -1: all nouns differ
    bool held_out = false;  ///< the first thing is a combination that other splits do not have
};

struct Scene {
    std::vector<Thing> things;
    int counted_noun = -1;     // the one with `copies`; -1 if none was wished
    bool held_out = false;     // things[0] is a held-out combination
    bool free_number = false;  // the number of things was drawn evenly, no wish had a say in it
};

/// Draws a scene. Combinations of noun and place and of shape and colour that are held out occur only as the
/// first thing, and only if that is wished.
Scene draw_scene(const Assets& assets, const SceneOptions& options, const SceneWishes& wishes,
                 Random& random);

/// A thing of this noun, without a place; a shape gets a colour that is not held out for it.
Thing make_thing(int noun, Random& random);
/// A thing drawn like those of scenes, without a place: an emoji or a shape with a colour.
Thing draw_thing(const SceneOptions& options, Random& random);
/// A place for a noun that is free beside `things` and not held out for it; -1 if there is none.
int draw_place(int noun, const std::vector<Thing>& things, Random& random);
/// Places with nothing in them, not even a part of a sign.
std::vector<int> free_places(const std::vector<Thing>& things);
/// Puts a thing near the middle of a place and gives it a size.
void put_at(Thing& thing, int place, Random& random);
/// Words for a sign: common words, numbers and random letters, up to four characters.
std::string draw_sign_text(Random& random);
/// Width of a sign's plate when its font has size 1.
float sign_width(const Assets& assets, const Thing& sign);
/// Height of a sign's plate when its font has size 1.
inline constexpr float kSignHeight = 1.3f;
/// Numbers of plate designs and of fonts are independent: style = design * fonts + font.
inline constexpr int kSignDesigns = 10;

}  // namespace llava_mini::scenes
