#include "media/luma_chroma.h"

extern "C" {
#include <libavutil/frame.h>
#include <libavutil/pixfmt.h>
}

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <vector>

namespace llava_mini {
namespace {

// The chroma of one row of pixels, from the row of samples that is nearest and the one that is next.
void upsample_row(const uint8_t* nearest, const uint8_t* next, int samples, int width, uint8_t* out) {
    for (int x = 0; x < width; ++x) {
        const int column = x / 2, neighbour = x % 2 == 0 ? column - 1 : column + 1;
        const int a = nearest[column], c = next[column];
        if (neighbour < 0 || neighbour >= samples) {
            out[x] = static_cast<uint8_t>((3 * a + c + 2) >> 2);
        } else {
            const int b = nearest[neighbour], d = next[neighbour];
            const int diagonal = (a + b + c + d + 8 + 2 * (b + c)) >> 3;
            out[x] = static_cast<uint8_t>((diagonal + a) >> 1);
        }
    }
}

uint8_t to_byte(int value) {
    return static_cast<uint8_t>(std::clamp(value, 0, 255));
}

// libwebp's arithmetic: coefficients of 14 bits, every product cut to 6 fractional bits.
struct WebpMatrix {
    static int product(int value, int coefficient) { return (value * coefficient) >> 8; }
    void operator()(int y, int u, int v, uint8_t* rgb) const {
        const int luma = product(y, 19077);
        rgb[0] = to_byte((luma + product(v, 26149) - 14234) >> 6);
        rgb[1] = to_byte((luma - product(u, 6419) - product(v, 13320) + 8708) >> 6);
        rgb[2] = to_byte((luma + product(u, 33050) - 17685) >> 6);
    }
};

// r = y + 2 (1 - kr) cr, b = y + 2 (1 - kb) cb, and g so that y = kr r + kg g + kb b; 16 fractional bits.
class LinearMatrix {
  public:
    LinearMatrix(double kr, double kb, bool full_range) {
        const double kg = 1.0 - kr - kb;
        const double luma_scale = full_range ? 1.0 : 255.0 / 219.0,
                     chroma_scale = full_range ? 1.0 : 255.0 / 224.0;
        for (int i = 0; i < 256; ++i) {
            const double chroma = (i - 128) * chroma_scale;
            luma_[i] = fixed((full_range ? i : i - 16) * luma_scale) + kHalf;
            red_v_[i] = fixed(2 * (1 - kr) * chroma);
            blue_u_[i] = fixed(2 * (1 - kb) * chroma);
            green_u_[i] = fixed(-2 * (1 - kb) * kb / kg * chroma);
            green_v_[i] = fixed(-2 * (1 - kr) * kr / kg * chroma);
        }
    }
    void operator()(int y, int u, int v, uint8_t* rgb) const {
        rgb[0] = to_byte((luma_[y] + red_v_[v]) >> kBits);
        rgb[1] = to_byte((luma_[y] + green_u_[u] + green_v_[v]) >> kBits);
        rgb[2] = to_byte((luma_[y] + blue_u_[u]) >> kBits);
    }

  private:
    static constexpr int kBits = 16, kHalf = 1 << (kBits - 1);
    static int fixed(double value) { return static_cast<int>(std::lround(value * (1 << kBits))); }
    std::array<int, 256> luma_, red_v_, green_u_, green_v_, blue_u_;
};

// kr and kb of a frame's matrix.
std::optional<std::array<double, 2>> coefficients(AVColorSpace space) {
    switch (space) {
        case AVCOL_SPC_BT709:
            return {{0.2126, 0.0722}};
        case AVCOL_SPC_BT2020_NCL:
            return {{0.2627, 0.0593}};
        case AVCOL_SPC_BT470BG:
        case AVCOL_SPC_SMPTE170M:
        case AVCOL_SPC_UNSPECIFIED:
            return {{0.299, 0.114}};
        default:
            return std::nullopt;
    }
}

bool is_full_range(const AVFrame& frame) {
    return frame.color_range == AVCOL_RANGE_JPEG || frame.format == AV_PIX_FMT_YUVJ420P;
}

template <typename Matrix>
void convert(const AVFrame& frame, const Matrix& matrix, Image& image) {
    const int width = frame.width, samples = (width + 1) / 2, sample_rows = (frame.height + 1) / 2;
    std::vector<uint8_t> u(width), v(width);
    const auto row = [&](int plane, int y) {
        return frame.data[plane] + static_cast<ptrdiff_t>(y) * frame.linesize[plane];
    };
    for (int y = 0; y < frame.height; ++y) {
        const int nearest = y / 2;
        const int next = std::clamp(y % 2 == 0 ? nearest - 1 : nearest + 1, 0, sample_rows - 1);
        upsample_row(row(1, nearest), row(1, next), samples, width, u.data());
        upsample_row(row(2, nearest), row(2, next), samples, width, v.data());
        const uint8_t* luma = row(0, y);
        uint8_t* out = image.rgb.data() + size_t{3} * width * y;
        for (int x = 0; x < width; ++x) matrix(luma[x], u[x], v[x], out + 3 * x);
    }
}

}  // namespace

bool is_420(const AVFrame& frame, LumaChroma conversion) {
    const bool planes = frame.format == AV_PIX_FMT_YUV420P || frame.format == AV_PIX_FMT_YUVJ420P ||
                        frame.format == AV_PIX_FMT_YUVA420P;
    return planes && (conversion == LumaChroma::kWebp || coefficients(frame.colorspace).has_value());
}

void rgb_of_420(const AVFrame& frame, LumaChroma conversion, Image& image) {
    if (conversion == LumaChroma::kWebp) return convert(frame, WebpMatrix{}, image);
    const std::array<double, 2> k = coefficients(frame.colorspace).value();
    convert(frame, LinearMatrix(k[0], k[1], is_full_range(frame)), image);
}

}  // namespace llava_mini
