#include "scenes/scene.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace llava_mini::scenes {
namespace {

// All for pictures of 96 pixels, as fractions.
constexpr float px(float pixels) {
    return pixels / 96;
}
constexpr float kSmallFrom = px(22), kSmallTo = px(31), kBigFrom = px(36), kBigTo = px(80);
constexpr float kJitter = px(4), kMargin = px(2), kOverlap = px(6);
constexpr float kLettersFrom = px(21), kLettersTo = px(30), kBigLetters = px(44), kPlateMax = px(91);

float cell_middle(int index) {
    return (static_cast<float>(index) + 0.5f) / 3;
}

void put_big(Thing& thing, float width, float height, Random& random) {
    const auto along = [&](float extent) {
        const float half = std::min(extent / 2, 0.5f);
        return random.between(half, 1 - half);
    };
    thing.x = along(width);
    thing.y = along(height);
}

// A place where a sign of this width fits with its centre well inside the cell; fills in its position.
void put_sign(Thing& sign, Random& random) {
    const float width = sign.size, height = sign.letters * kSignHeight;
    const auto coordinate = [&](float extent, int cell) {
        const float low = std::max(extent / 2, cell_middle(cell) - kJitter);
        const float high = std::min(1 - extent / 2, cell_middle(cell) + kJitter);
        return low <= high ? random.between(low, high) : cell == 0 ? low : high;
    };
    const bool sides = width / 2 <= cell_middle(0) + px(9);  // at most so far from the middle of the cell
    const int column = sides ? random.below(3) : 1, row = random.below(3);
    sign.place = 3 * row + column;
    sign.x = coordinate(width, column);
    sign.y = coordinate(height, row);
}

int draw_noun(const SceneOptions& options, Random& random) {
    return random.chance(options.shape_share) ? shape_noun(random.below(kShapeCount))
                                              : random.below(emoji_count());
}

Thing make_sign(const Assets& assets, bool big, Random& random) {
    Thing sign;
    sign.noun = sign_noun();
    sign.text = draw_sign_text(random);
    sign.appearance = random.next();
    sign.style = random.below(kSignDesigns * assets.fonts());
    const float width = sign_width(assets, sign), most = kPlateMax / width;
    sign.letters = std::min(most, random.between(kLettersFrom, big ? kBigLetters : kLettersTo));
    sign.size = width * sign.letters;
    return sign;
}

int draw_number(const SceneOptions& options, const SceneWishes& wishes, Random& random) {
    int low = options.min_things, high = options.max_things;
    if (wishes.one) return 1;
    if (wishes.several) low = std::max(low, 2);
    if (wishes.copies > 0) low = std::max(low, wishes.copies);
    high = std::max(high, low);
    return random.integer(low, high);
}

}  // namespace

std::vector<int> free_places(const std::vector<Thing>& things) {
    std::vector<int> free;
    for (int place = 0; place < kPlaceCount; ++place) {
        const float x = static_cast<float>(place % 3) / 3, y = static_cast<float>(place / 3) / 3;
        const bool taken = std::any_of(things.begin(), things.end(), [&](const Thing& thing) {
            if (thing.place == place) return true;
            if (!is_sign(thing.noun)) return false;
            const float half_w = thing.size / 2, half_h = thing.letters * kSignHeight / 2;
            return std::min(x + 1.0f / 3, thing.x + half_w) - std::max(x, thing.x - half_w) > kOverlap &&
                   std::min(y + 1.0f / 3, thing.y + half_h) - std::max(y, thing.y - half_h) > kOverlap;
        });
        if (!taken) free.push_back(place);
    }
    return free;
}

int draw_place(int noun, const std::vector<Thing>& things, Random& random) {
    std::vector<int> free = free_places(things);
    std::erase(free, held_out_place(noun));
    return free.empty() ? -1 : random.pick(free);
}

std::string draw_sign_text(Random& random) {
    const double kind = random.uniform();
    if (kind < 0.4) return random.pick(sign_words());
    if (kind < 0.7) {
        int limit = 10;
        for (int digits = random.integer(1, 4); digits > 1; --digits) limit *= 10;
        return std::to_string(random.below(limit));
    }
    std::string text;
    for (int length = random.integer(1, 4); length > 0; --length) {
        text += random.pick(std::string_view("ABCDEFGHJKLMNPQRSTUVWXYZ"));  // I and O look like digits
    }
    return text;
}

float sign_width(const Assets& assets, const Thing& sign) {
    float width = 0.5f;
    for (const char c : sign.text) width += assets.glyph(sign.style % assets.fonts(), c).advance;
    return width;
}

Thing make_thing(int noun, Random& random) {
    Thing thing;
    thing.noun = noun;
    if (is_shape(noun)) {
        const int shape = noun - emoji_count(), never = held_out_colour(shape);
        thing.colour = random.below(kColourCount - 1);
        if (thing.colour >= never) ++thing.colour;
    }
    thing.style = random.below(4);
    thing.appearance = random.next();
    return thing;
}

Thing draw_thing(const SceneOptions& options, Random& random) {
    return make_thing(draw_noun(options, random), random);
}

void put_at(Thing& thing, int place, Random& random) {
    thing.place = place;
    thing.size = random.between(kSmallFrom, kSmallTo);
    const float least = thing.size / 2 - kMargin;
    const auto coordinate = [&](int cell) {
        return std::clamp(cell_middle(cell) + random.between(-kJitter, kJitter), least, 1 - least);
    };
    thing.x = coordinate(place % 3);
    thing.y = coordinate(place / 3);
}

Scene draw_scene(const Assets& assets, const SceneOptions& options, const SceneWishes& wishes,
                 Random& random) {
    Scene scene;
    std::vector<Thing>& things = scene.things;
    const bool with_sign = wishes.sign || (!wishes.one && random.chance(options.sign_share));
    const bool may_be_big = !wishes.several && wishes.copies <= 1 && !wishes.held_out;
    const bool big = may_be_big && (options.big_share >= 1 || random.chance(options.big_share));
    const int number = big ? 1 : draw_number(options, wishes, random);

    scene.free_number = !big && !wishes.one && !wishes.several && wishes.copies < 0;

    if (wishes.held_out) {
        Thing thing = make_thing(
            wishes.shape ? shape_noun(random.below(kShapeCount)) : draw_noun(options, random), random);
        int place = held_out_place(thing.noun);
        if (is_shape(thing.noun) &&
            (wishes.shape || random.chance(0.7))) {  // the colour rather than the place
            thing.colour = held_out_colour(thing.noun - emoji_count());
            place = draw_place(thing.noun, things, random);
        }
        put_at(thing, place, random);
        things.push_back(thing);
        scene.held_out = true;
    }
    if (with_sign && static_cast<int>(things.size()) < number && (wishes.sign || wishes.copies < number)) {
        Thing sign = make_sign(assets, big, random);
        if (big) {
            put_big(sign, sign.size, sign.letters * kSignHeight, random);
            things.push_back(sign);
        } else {
            put_sign(sign, random);
            const std::vector<int> free = free_places(things);
            if (std::find(free.begin(), free.end(), sign.place) != free.end()) things.push_back(sign);
        }
    }

    // The counted noun is none of those that are there already.
    const auto there = [&](int noun) {
        return noun == scene.counted_noun ||
               std::any_of(things.begin(), things.end(), [&](const Thing& t) { return t.noun == noun; });
    };
    const auto new_noun = [&](bool shape) {
        while (true) {
            const int noun = shape ? shape_noun(random.below(kShapeCount)) : draw_noun(options, random);
            if (!there(noun)) return noun;
        }
    };
    int copies = std::max(wishes.copies, 0);
    if (wishes.copies >= 0) scene.counted_noun = new_noun(false);
    bool shape_wanted = wishes.shape && !(scene.held_out && is_shape(things[0].noun)) &&
                        !(copies > 0 && is_shape(scene.counted_noun));
    while (static_cast<int>(things.size()) < number || copies > 0) {
        Thing thing;
        if (copies > 0) {
            thing = make_thing(scene.counted_noun, random);
            --copies;
        } else {
            thing = make_thing(new_noun(shape_wanted), random);
            shape_wanted = false;
        }
        if (big) {
            thing.size = random.between(kBigFrom, kBigTo);
            put_big(thing, thing.size, thing.size, random);
        } else {
            const int place = draw_place(thing.noun, things, random);
            if (place < 0) break;  // full
            put_at(thing, place, random);
        }
        things.push_back(std::move(thing));
    }
    return scene;
}

}  // namespace llava_mini::scenes
