#include "scenes/look.h"

#include <cmath>

#include "media/image_decoder.h"
#include "media/picture_writer.h"
#include "preprocess/pillow_resample.h"

namespace llava_mini::scenes {
namespace {

void paint_rectangle(Canvas& canvas, int x0, int y0, int x1, int y1, const Rgb& colour) {
    for (int y = std::max(y0, 0); y < std::min(y1, canvas.height); ++y) {
        for (int x = std::max(x0, 0); x < std::min(x1, canvas.width); ++x) {
            std::copy(colour.begin(), colour.end(), canvas.pixel(x, y));
        }
    }
}

void change_colours(Canvas& canvas, const Look& look) {
    const Rgb factor = {look.gain * look.balance[0], look.gain * look.balance[1],
                        look.gain * look.balance[2]};
    const float offset = look.offset + 128 * (1 - look.gain);
    for (size_t i = 0; i < canvas.rgb.size(); i += 3) {
        float* p = canvas.rgb.data() + i;
        const float luma = 0.3f * p[0] + 0.59f * p[1] + 0.11f * p[2];
        for (size_t c = 0; c < 3; ++c) {
            p[c] = (luma + (p[c] - luma) * look.saturation) * factor[c] + offset;
        }
    }
}

// A kernel of three taps a pass and direction, as often as the deviation needs.
void blur(Canvas& canvas, float deviation) {
    const int passes = deviation > 0.7f ? 2 : 1;
    const float side = std::min(deviation * deviation / (2 * static_cast<float>(passes)), 0.33f);
    const float middle = 1 - 2 * side;
    const size_t row = 3 * static_cast<size_t>(canvas.width);
    std::vector<float> line(row + 6);
    std::vector<float> above(row), here(row);
    for (int pass = 0; pass < passes; ++pass) {
        for (int y = 0; y < canvas.height; ++y) {
            float* p = canvas.pixel(0, y);
            std::copy(p, p + row, line.begin() + 3);
            std::copy(p, p + 3, line.begin());
            std::copy(p + row - 3, p + row, line.end() - 3);
            for (size_t i = 0; i < row; ++i) p[i] = middle * line[i + 3] + side * (line[i] + line[i + 6]);
        }
        std::copy(canvas.pixel(0, 0), canvas.pixel(0, 0) + row, above.begin());
        for (int y = 0; y < canvas.height; ++y) {
            float* p = canvas.pixel(0, y);
            const float* below = y + 1 < canvas.height ? p + row : p;
            std::copy(p, p + row, here.begin());
            for (size_t i = 0; i < row; ++i) p[i] = middle * p[i] + side * (above[i] + below[i]);
            above.swap(here);
        }
    }
}

// Sums of four bytes are near enough to normal: mean 510, deviation 147.8.
void add_noise(Canvas& canvas, float deviation, Random& random) {
    const float scale = deviation / 147.8f;
    size_t i = 0;
    while (i < canvas.rgb.size()) {
        uint64_t bits = random.next();
        for (int half = 0; half < 2 && i < canvas.rgb.size(); ++half, bits >>= 32, ++i) {
            const auto sum = static_cast<float>((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) +
                                                (bits >> 24 & 255));
            canvas.rgb[i] += (sum - 510) * scale;
        }
    }
}

Image to_image(const Canvas& canvas) {
    Image image{canvas.width, canvas.height, std::vector<uint8_t>(canvas.rgb.size())};
    for (size_t i = 0; i < canvas.rgb.size(); ++i) {
        image.rgb[i] = static_cast<uint8_t>(std::clamp(canvas.rgb[i] + 0.5f, 0.0f, 255.0f));
    }
    return image;
}

}  // namespace

Look draw_look(int size, Random& random) {
    Look look;
    const auto side = static_cast<float>(size);
    if (random.chance(0.2)) {
        const bool window = random.chance(0.4);
        look.border = window ? Look::Border::kWindow : Look::Border::kFrame;
        const float edge = random.between(0.01, window ? 0.03 : 0.06);
        look.left = edge;
        look.top = window ? random.between(0.06, 0.1) : edge;
        look.width = 1 - 2 * edge;
        look.height = 1 - look.top - edge;
        look.border_colour = {random.between(0, 255), random.between(0, 255), random.between(0, 255)};
    } else if (random.chance(0.7)) {
        look.width = random.between(0.92, 1.04);
        look.height = look.width * random.between(0.97, 1.03);
        look.left = (1 - look.width) * random.between(0.1, 0.9);
        look.top = (1 - look.height) * random.between(0.1, 0.9);
    }
    look.max_angle = 0.2f;
    look.mirror = true;
    if (random.chance(0.7)) {
        look.gain = random.between(0.75, 1.2);
        look.offset = random.between(-25, 25);
        look.saturation = random.between(0.75, 1.2);
        for (float& factor : look.balance) factor = random.between(0.94, 1.06);
    }
    if (random.chance(0.2)) look.small_side = static_cast<int>(side * random.between(0.6, 0.95));
    if (random.chance(0.3)) look.blur = random.between(0.2, 0.8);
    if (random.chance(0.3)) look.noise = random.between(1, 9);
    if (random.chance(0.4)) look.jpeg_quality = random.integer(35, 95);
    return look;
}

void paint_border(Canvas& canvas, const Look& look) {
    if (look.border == Look::Border::kNone) return;
    const int w = canvas.width, h = canvas.height;
    const auto pixels = [](float fraction, int side) {
        return static_cast<int>(std::lround(fraction * static_cast<float>(side)));
    };
    const int x0 = pixels(look.left, w), x1 = pixels(look.left + look.width, w);
    const int y0 = pixels(look.top, h), y1 = pixels(look.top + look.height, h);
    paint_rectangle(canvas, 0, 0, w, y0, look.border_colour);
    paint_rectangle(canvas, 0, y1, w, h, look.border_colour);
    paint_rectangle(canvas, 0, y0, x0, y1, look.border_colour);
    paint_rectangle(canvas, x1, y0, w, y1, look.border_colour);
    if (look.border != Look::Border::kWindow || y0 < 4) return;
    // The three buttons of a window.
    const Rgb buttons[] = {{235, 90, 80}, {240, 190, 60}, {90, 200, 90}};
    const int side = std::max(2, y0 / 2), top = (y0 - side) / 2;
    for (int i = 0; i < 3; ++i) {
        const int left = top + i * (side + 2);
        paint_rectangle(canvas, left, top, left + side, top + side, buttons[i]);
    }
}

Image develop(Canvas& canvas, const Look& look, Random& random) {
    if (look.gain != 1 || look.offset != 0 || look.saturation != 1) change_colours(canvas, look);
    if (look.blur > 0) blur(canvas, look.blur);
    if (look.noise > 0) add_noise(canvas, look.noise, random);
    Image image = to_image(canvas);
    if (look.small_side > 0) {
        image = resize_bicubic(resize_bicubic(image, look.small_side, look.small_side), image.width,
                               image.height);
    }
    if (look.jpeg_quality > 0) image = decode_image(encode_jpeg(image, look.jpeg_quality), {.name = "scene"});
    return image;
}

}  // namespace llava_mini::scenes
