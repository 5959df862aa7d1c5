#include "scenes/paint.h"

#include <cmath>
#include <numbers>

namespace llava_mini::scenes {
namespace {

Rgb random_colour(Random& random) {
    // Half of them light and dull, as papers and walls are.
    if (random.chance(0.5)) {
        const float grey = random.between(170, 255);
        return {grey + random.between(-25, 10), grey + random.between(-25, 10),
                grey + random.between(-25, 10)};
    }
    return {random.between(0, 255), random.between(0, 255), random.between(0, 255)};
}

void paint_gradient(Canvas& canvas, Random& random) {
    const Rgb from = random_colour(random), to = random_colour(random);
    const float angle = random.between(0, 2 * std::numbers::pi);
    const bool radial = random.chance(0.3);
    const auto side = static_cast<float>(canvas.width);
    const float cx = random.between(0, 1), cy = random.between(0, 1);
    const float dx = std::cos(angle), dy = std::sin(angle);
    for (int y = 0; y < canvas.height; ++y) {
        for (int x = 0; x < canvas.width; ++x) {
            const float u = static_cast<float>(x) / side, v = static_cast<float>(y) / side;
            float t = radial ? std::sqrt((u - cx) * (u - cx) + (v - cy) * (v - cy))
                             : 0.5f + 0.7f * ((u - 0.5f) * dx + (v - 0.5f) * dy);
            t = std::clamp(t, 0.0f, 1.0f);
            for (size_t c = 0; c < 3; ++c) canvas.pixel(x, y)[c] = from[c] + (to[c] - from[c]) * t;
        }
    }
}

void paint_spots(Canvas& canvas, Random& random) {
    const Rgb base = random_colour(random);
    for (size_t i = 0; i < canvas.rgb.size(); ++i) canvas.rgb[i] = base[i % 3];
    const auto side = static_cast<float>(canvas.width);
    for (int spots = random.integer(3, 8); spots > 0; --spots) {
        const Rgb colour = random_colour(random);
        const float cx = side * random.between(0, 1), cy = side * random.between(0, 1);
        const float radius = side * random.between(0.12, 0.5), strength = random.between(0.3, 0.9);
        const int x0 = std::max(0, static_cast<int>(cx - radius)),
                  x1 = std::min(canvas.width, static_cast<int>(cx + radius));
        const int y0 = std::max(0, static_cast<int>(cy - radius)),
                  y1 = std::min(canvas.height, static_cast<int>(cy + radius));
        for (int y = y0; y < y1; ++y) {
            for (int x = x0; x < x1; ++x) {
                const float dx = (static_cast<float>(x) - cx) / radius,
                            dy = (static_cast<float>(y) - cy) / radius;
                const float rest = 1 - dx * dx - dy * dy;
                if (rest <= 0) continue;
                const float alpha = strength * rest * rest;
                float* p = canvas.pixel(x, y);
                for (size_t c = 0; c < 3; ++c) p[c] += (colour[c] - p[c]) * alpha;
            }
        }
    }
}

// Adds random values on a lattice of `cell` pixels, interpolated, to one value a pixel.
void add_octave(std::vector<float>& values, int side, float cell, float amplitude, Random& random) {
    const int cells = static_cast<int>(static_cast<float>(side) / cell) + 2;
    std::vector<float> lattice(static_cast<size_t>(cells * cells));
    for (float& v : lattice) v = random.between(-amplitude, amplitude);
    std::vector<float> row(static_cast<size_t>(cells));
    for (int y = 0; y < side; ++y) {
        const float v = static_cast<float>(y) / cell;
        const int iv = static_cast<int>(v);
        const float fv = v - static_cast<float>(iv);
        const float* upper = lattice.data() + static_cast<ptrdiff_t>(iv) * cells;
        for (int i = 0; i < cells; ++i)
            row[static_cast<size_t>(i)] = upper[i] + (upper[cells + i] - upper[i]) * fv;
        float* out = values.data() + static_cast<ptrdiff_t>(y) * side;
        const float step = 1 / cell;
        for (int x = 0; x < side; ++x) {
            const float u = static_cast<float>(x) * step;
            const int iu = static_cast<int>(u);
            const float fu = u - static_cast<float>(iu);
            const float* p = row.data() + iu;
            out[x] += p[0] + (p[1] - p[0]) * fu;
        }
    }
}

// Detail at every scale, amplitude in proportion to the scale (a spectrum of 1/f), colours varying slowly.
void paint_photo(Canvas& canvas, Random& random) {
    const int side = canvas.width;
    const auto pixels = static_cast<size_t>(side * side);
    std::vector<float> luma(pixels), first(pixels), second(pixels);
    const float contrast = random.between(0.25, 1.0);
    for (int octave = 0; side >> octave >= 2; ++octave) {
        const float cell = std::ldexp(static_cast<float>(side), -octave);
        add_octave(luma, side, cell, contrast * (6 + 0.6f * cell * 96 / static_cast<float>(side)), random);
    }
    for (std::vector<float>* chroma : {&first, &second}) {
        add_octave(*chroma, side, static_cast<float>(side) / 1.5f, 40 * contrast, random);
        add_octave(*chroma, side, static_cast<float>(side) / 6, 20 * contrast, random);
    }
    const Rgb base = random_colour(random);
    for (size_t i = 0; i < pixels; ++i) {
        canvas.rgb[3 * i] = base[0] + luma[i] + first[i];
        canvas.rgb[3 * i + 1] = base[1] + luma[i] - 0.4f * first[i] - 0.2f * second[i];
        canvas.rgb[3 * i + 2] = base[2] + luma[i] + second[i];
    }
    for (float& v : canvas.rgb) v = std::clamp(v, 0.0f, 255.0f);
}

// Mean of the background where a thing will be.
Rgb colour_under(const Canvas& canvas, const Pose& pose) {
    Rgb sum{};
    int count = 0;
    for (int i = -2; i <= 2; ++i) {
        for (int j = -2; j <= 2; ++j) {
            const int x = static_cast<int>(pose.x + static_cast<float>(i) * pose.width / 4);
            const int y = static_cast<int>(pose.y + static_cast<float>(j) * pose.height / 4);
            if (x < 0 || y < 0 || x >= canvas.width || y >= canvas.height) continue;
            for (size_t c = 0; c < 3; ++c) sum[c] += canvas.pixel(x, y)[c];
            ++count;
        }
    }
    for (float& v : sum) v /= static_cast<float>(std::max(count, 1));
    return sum;
}

float distance(const Rgb& a, const Rgb& b) {
    float sum = 0;
    for (size_t c = 0; c < 3; ++c) sum += (a[c] - b[c]) * (a[c] - b[c]);
    return std::sqrt(sum);
}

struct SignDesign {
    Rgb plate, letters;
    bool round;
};
constexpr SignDesign kDesigns[kSignDesigns] = {
    {{255, 255, 255}, {20, 20, 20}, false},  {{255, 255, 255}, {200, 20, 30}, true},
    {{25, 25, 30}, {255, 255, 255}, false},  {{200, 25, 30}, {255, 255, 255}, true},
    {{20, 80, 170}, {255, 255, 255}, true},  {{10, 110, 60}, {255, 255, 255}, true},
    {{250, 210, 40}, {20, 20, 20}, true},    {{235, 225, 200}, {60, 40, 20}, false},
    {{120, 80, 45}, {250, 240, 220}, false}, {{225, 225, 225}, {20, 40, 120}, false}};

class Painter {
  public:
    Painter(const Assets& assets, Canvas& canvas, const Look& look, std::vector<Mark>& marks)
        : assets_(assets), canvas_(canvas), look_(look), marks_(marks) {}

    void mark_places() {
        for (int place = 0; place < kPlaceCount; ++place) {
            const int column = place % 3, row = place / 3;
            const float x = static_cast<float>(column) / 3, y = static_cast<float>(row) / 3;
            mark(Mark::Kind::kPlace, kPlaces[static_cast<size_t>(place)],
                 {to_x(x), to_y(y), to_x(x + 1.0f / 3), to_y(y + 1.0f / 3)});
        }
    }

    void paint(const Thing& thing) {
        if (is_sign(thing.noun)) {
            paint_sign(thing);
        } else {
            paint_object(thing);
        }
    }

  private:
    float to_x(float fraction) const {
        return (look_.left + fraction * look_.width) * static_cast<float>(canvas_.width);
    }
    float to_y(float fraction) const {
        return (look_.top + fraction * look_.height) * static_cast<float>(canvas_.height);
    }
    float scale() const { return look_.width * static_cast<float>(canvas_.width); }

    void mark(Mark::Kind kind, const char* word, Box box) {
        box.x0 = std::max(box.x0, 0.0f);
        box.y0 = std::max(box.y0, 0.0f);
        box.x1 = std::min(box.x1, static_cast<float>(canvas_.width));
        box.y1 = std::min(box.y1, static_cast<float>(canvas_.height));
        if (!box.empty()) marks_.push_back({kind, word, box.x0, box.y0, box.x1, box.y1});
    }

    void paint_object(const Thing& thing) {
        Random random(thing.appearance);
        const bool shape = is_shape(thing.noun);
        const Sprite& sprite = shape ? assets_.shape(thing.noun - emoji_count()) : assets_.emoji(thing.noun);
        Pose pose{.x = to_x(thing.x),
                  .y = to_y(thing.y),
                  .angle = random.between(-look_.max_angle, look_.max_angle)};
        pose.mirrored = look_.mirror && random.chance(0.5) && random.chance(0.7);
        const float longer = thing.size * scale();
        pose.width = longer * std::min(1.0f, sprite.aspect());
        pose.height = longer * std::min(1.0f, 1 / sprite.aspect());
        if (!shape) {
            mark(Mark::Kind::kName, noun_word(thing.noun), sprite.draw(canvas_, pose));
            return;
        }
        if (thing.noun == shape_noun(7))
            pose.angle += static_cast<float>(thing.style) * std::numbers::pi_v<float> / 2;
        Rgb colour;
        const ColourWord& word = kColours[static_cast<size_t>(thing.colour)];
        for (size_t c = 0; c < 3; ++c) {
            colour[c] = std::clamp(static_cast<float>(word.rgb[c]) + random.between(-14, 14), 0.0f, 255.0f);
        }
        const bool hidden = distance(colour, colour_under(canvas_, pose)) < 120;
        if (hidden || random.chance(0.2)) {  // a rim, so that it can be told from the background
            const float luma = 0.3f * colour[0] + 0.59f * colour[1] + 0.11f * colour[2];
            Pose rim = pose;
            const float width = 2.6f * static_cast<float>(canvas_.width) / 96;
            pose.width -= width;
            pose.height -= width;
            sprite.draw(canvas_, rim, luma > 100 ? Rgb{30, 30, 30} : Rgb{245, 245, 245});
        }
        const Box box = sprite.draw(canvas_, pose, colour);
        mark(Mark::Kind::kName, noun_word(thing.noun), box);
        mark(Mark::Kind::kColour, word.word, box);
    }

    void paint_sign(const Thing& sign) {
        Random random(sign.appearance);
        const SignDesign& design = kDesigns[sign.style / assets_.fonts()];
        const int font = sign.style % assets_.fonts();
        const float letters = sign.letters * scale(),
                    angle = random.between(-look_.max_angle / 3, look_.max_angle / 3);
        const float cosine = std::cos(angle), sine = std::sin(angle);
        Pose plate{to_x(sign.x), to_y(sign.y), sign.size * scale(), letters * kSignHeight, angle, false};
        const float rim = std::max(1.5f, letters * 0.08f);
        const Sprite& sprite = assets_.plate(design.round);
        const Box box = sprite.draw(canvas_, plate, design.letters);
        Pose inner = plate;
        inner.width -= rim;
        inner.height -= rim;
        sprite.draw(canvas_, inner, design.plate);
        mark(Mark::Kind::kName, "sign", box);
        // Letters stand on a baseline that centres capitals (0.73 of the size) in the plate.
        float pen = -plate.width / 2 + 0.25f * letters;
        const float baseline = 0.365f * letters;
        for (const char c : sign.text) {
            const Glyph& glyph = assets_.glyph(font, c);
            const float dx = pen + (glyph.left + glyph.width / 2) * letters;
            const float dy = baseline - (glyph.top - glyph.height / 2) * letters;
            const Pose pose{plate.x + cosine * dx - sine * dy,
                            plate.y + sine * dx + cosine * dy,
                            glyph.width * letters,
                            glyph.height * letters,
                            angle,
                            false};
            const char text[] = {c, '\0'};
            mark(Mark::Kind::kLetter, text, glyph.sprite.draw(canvas_, pose, design.letters));
            pen += glyph.advance * letters;
        }
    }

    const Assets& assets_;
    Canvas& canvas_;
    const Look& look_;
    std::vector<Mark>& marks_;
};

}  // namespace

Canvas paint_background(int size, Random& random) {
    Canvas canvas(size, size);
    const double kind = random.uniform();
    if (kind < 0.3) {
        const Rgb colour = random.chance(0.4) ? Rgb{255, 255, 255} : random_colour(random);
        for (size_t i = 0; i < canvas.rgb.size(); ++i) canvas.rgb[i] = colour[i % 3];
    } else if (kind < 0.5) {
        paint_gradient(canvas, random);
    } else if (kind < 0.7) {
        paint_spots(canvas, random);
    } else {
        paint_photo(canvas, random);
    }
    return canvas;
}

Canvas paint_things(const Assets& assets, const std::vector<Thing>& things, Canvas background,
                    const Look& look, std::vector<Mark>& marks) {
    Painter painter(assets, background, look, marks);
    painter.mark_places();
    for (const Thing& thing : things) painter.paint(thing);
    paint_border(background, look);
    return background;
}

}  // namespace llava_mini::scenes
