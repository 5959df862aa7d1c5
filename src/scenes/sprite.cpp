#include "scenes/sprite.h"

#include <cmath>

#include "preprocess/pillow_resample.h"

namespace llava_mini::scenes {
namespace {

constexpr int kSmallest = 6;       // pixels of the longer side of the last level
constexpr double kShrink = 0.76;   // from level to level
constexpr float kVisible = 0.35f;  // alpha from which a pixel counts for the box

// Colours and alpha apart, as pictures that the resize takes; alpha is repeated.
struct Planes {
    Image colour, alpha;
};

Planes resized(const Planes& planes, int width, int height) {
    return {resize_bicubic(planes.colour, width, height), resize_bicubic(planes.alpha, width, height)};
}

}  // namespace

Sprite::Sprite(int width, int height, const std::vector<uint8_t>& rgba) {
    Planes base;
    for (Image* image : {&base.colour, &base.alpha}) {
        image->width = width;
        image->height = height;
        image->rgb.resize(static_cast<size_t>(3 * width * height));
    }
    for (size_t i = 0; i < rgba.size() / 4; ++i) {
        for (size_t c = 0; c < 3; ++c) {
            base.colour.rgb[3 * i + c] = rgba[4 * i + c];
            base.alpha.rgb[3 * i + c] = rgba[4 * i + 3];
        }
    }
    for (double scale = 1.0; scale * std::max(width, height) >= kSmallest; scale *= kShrink) {
        const int w = std::max(1, static_cast<int>(std::lround(scale * width)));
        const int h = std::max(1, static_cast<int>(std::lround(scale * height)));
        const Planes planes = resized(base, w, h);
        Level level{w, h, std::vector<uint8_t>(static_cast<size_t>(4 * (w + 2) * (h + 2)))};
        for (int y = 0; y < h; ++y) {
            for (int x = 0; x < w; ++x) {
                const auto from = static_cast<size_t>(3 * (y * w + x));
                uint8_t* to = level.rgba.data() + 4 * ((y + 1) * (w + 2) + x + 1);
                to[3] = planes.alpha.rgb[from];
                // The bicubic overshoots: a colour above its alpha would glow.
                for (size_t c = 0; c < 3; ++c) to[c] = std::min(planes.colour.rgb[from + c], to[3]);
            }
        }
        levels_.push_back(std::move(level));
    }
}

const Sprite::Level& Sprite::level_for(const Pose& pose) const {
    size_t chosen = 0;
    while (chosen + 1 < levels_.size() && static_cast<float>(levels_[chosen + 1].width) >= pose.width &&
           static_cast<float>(levels_[chosen + 1].height) >= pose.height) {
        ++chosen;
    }
    return levels_[chosen];
}

Box Sprite::draw(Canvas& canvas, const Pose& pose, const Rgb& tint) const {
    const Level& level = level_for(pose);
    const float cosine = std::cos(pose.angle), sine = std::sin(pose.angle);
    const float half_x = (std::fabs(cosine) * pose.width + std::fabs(sine) * pose.height) / 2 + 1;
    const float half_y = (std::fabs(sine) * pose.width + std::fabs(cosine) * pose.height) / 2 + 1;
    const int x_begin = std::max(0, static_cast<int>(std::floor(pose.x - half_x)));
    const int x_end = std::min(canvas.width, static_cast<int>(std::ceil(pose.x + half_x)));
    const int y_begin = std::max(0, static_cast<int>(std::floor(pose.y - half_y)));
    const int y_end = std::min(canvas.height, static_cast<int>(std::ceil(pose.y + half_y)));
    const float scale_x = (pose.mirrored ? -1.0f : 1.0f) * static_cast<float>(level.width) / pose.width;
    const float scale_y = static_cast<float>(level.height) / pose.height;
    // From the middle of the sprite to the lattice of pixel centres, behind the border of one pixel.
    const float middle_u = static_cast<float>(level.width) / 2 + 0.5f;
    const float middle_v = static_cast<float>(level.height) / 2 + 0.5f;
    const int stride = 4 * (level.width + 2);
    const float limit_u = static_cast<float>(level.width + 1), limit_v = static_cast<float>(level.height + 1);
    const Rgb factor = {tint[0] / 255, tint[1] / 255, tint[2] / 255};

    Box box{1e9f, 1e9f, -1e9f, -1e9f};
    for (int y = y_begin; y < y_end; ++y) {
        const float dy = static_cast<float>(y) + 0.5f - pose.y;
        for (int x = x_begin; x < x_end; ++x) {
            const float dx = static_cast<float>(x) + 0.5f - pose.x;
            const float u = (cosine * dx + sine * dy) * scale_x + middle_u;
            const float v = (cosine * dy - sine * dx) * scale_y + middle_v;
            if (!(u > 0 && v > 0 && u < limit_u && v < limit_v)) continue;
            const int iu = static_cast<int>(u), iv = static_cast<int>(v);
            const float fu = u - static_cast<float>(iu), fv = v - static_cast<float>(iv);
            const uint8_t* p = level.rgba.data() + iv * stride + 4 * iu;
            const float w00 = (1 - fu) * (1 - fv), w01 = fu * (1 - fv), w10 = (1 - fu) * fv, w11 = fu * fv;
            const auto sample = [&](int c) {
                return w00 * p[c] + w01 * p[4 + c] + w10 * p[stride + c] + w11 * p[stride + 4 + c];
            };
            const float alpha = sample(3) / 255;
            if (alpha <= 0.002f) continue;
            float* out = canvas.pixel(x, y);
            for (int c = 0; c < 3; ++c) {
                out[c] = out[c] * (1 - alpha) + sample(c) * factor[static_cast<size_t>(c)];
            }
            if (alpha >= kVisible) {
                box.x0 = std::min(box.x0, static_cast<float>(x));
                box.x1 = std::max(box.x1, static_cast<float>(x + 1));
                box.y0 = std::min(box.y0, static_cast<float>(y));
                box.y1 = std::max(box.y1, static_cast<float>(y + 1));
            }
        }
    }
    return box.x1 > box.x0 ? box : Box{};
}

}  // namespace llava_mini::scenes
