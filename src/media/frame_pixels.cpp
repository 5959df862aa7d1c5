#include "media/frame_pixels.h"

extern "C" {
#include <libavutil/frame.h>
#include <libavutil/mem.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <vector>

#include "core/error.h"

namespace llava_mini {
namespace {

const uint8_t* row_of(const AVFrame& frame, int plane, int y) {
    return frame.data[plane] + static_cast<ptrdiff_t>(y) * frame.linesize[plane];
}

// Whether the format holds red, green, blue or grey or palette indices as whole numbers that can be read
// exactly.
bool is_exact(const AVPixFmtDescriptor& format) {
    constexpr uint64_t kOther = AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_BAYER | AV_PIX_FMT_FLAG_FLOAT;
    if ((format.flags & kOther) != 0) return false;
    const bool grey = format.nb_components <= 2;
    return grey || (format.flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL)) != 0;
}

// Interleaved 8-bit components (RGB24, BGRA, 0RGB, ...), the common case.
bool is_packed_bytes(const AVPixFmtDescriptor& format) {
    if ((format.flags & (AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BITSTREAM)) != 0) return false;
    return std::all_of(format.comp, format.comp + format.nb_components, [](const AVComponentDescriptor& c) {
        return c.plane == 0 && c.depth == 8 && c.shift == 0;
    });
}

// Source of red, green and blue among the components: grey serves all three.
std::array<int, 3> colour_components(const AVPixFmtDescriptor& format) {
    const bool palette = (format.flags & AV_PIX_FMT_FLAG_PAL) != 0;
    if (format.nb_components <= 2 && !palette) return {0, 0, 0};
    return {0, 1, 2};
}

void read_packed_bytes(const AVFrame& frame, const AVPixFmtDescriptor& format, Image& image) {
    const std::array<int, 3> components = colour_components(format);
    const AVComponentDescriptor &red = format.comp[components[0]], &green = format.comp[components[1]],
                                &blue = format.comp[components[2]];
    uint8_t* out = image.rgb.data();
    for (int y = 0; y < image.height; ++y) {
        const uint8_t* in = row_of(frame, 0, y);
        for (int x = 0; x < image.width; ++x, in += red.step, out += 3) {
            out[0] = in[red.offset];
            out[1] = in[green.offset];
            out[2] = in[blue.offset];
        }
    }
}

void read_palette(const AVFrame& frame, Image& image) {
    const uint8_t* palette = frame.data[1];  // 256 native-endian 0xAARRGGBB
    uint8_t* out = image.rgb.data();
    for (int y = 0; y < image.height; ++y) {
        const uint8_t* in = row_of(frame, 0, y);
        for (int x = 0; x < image.width; ++x, out += 3) {
            uint32_t colour;
            std::copy_n(palette + 4 * in[x], 4, reinterpret_cast<uint8_t*>(&colour));
            out[0] = static_cast<uint8_t>(colour >> 16);
            out[1] = static_cast<uint8_t>(colour >> 8);
            out[2] = static_cast<uint8_t>(colour);
        }
    }
}

uint8_t to_byte(unsigned value, int depth, bool saturate) {
    if (depth == 8) return static_cast<uint8_t>(value);
    if (depth < 8) return static_cast<uint8_t>(value * 255 / ((1u << depth) - 1));
    return static_cast<uint8_t>(saturate ? std::min(value, 255u) : value >> (depth - 8));
}

// Any other layout (planar, 16 bits, 5-6-5, one bit a pixel), through FFmpeg's own description of it.
void read_components(const AVFrame& frame, const AVPixFmtDescriptor& format, bool saturate_grey,
                     Image& image) {
    const std::array<int, 3> components = colour_components(format);
    const bool grey = components[1] == 0;
    const bool inverted = frame.format == AV_PIX_FMT_MONOWHITE;
    const uint8_t* planes[4] = {frame.data[0], frame.data[1], frame.data[2], frame.data[3]};
    std::vector<uint16_t> row(image.width);
    for (int y = 0; y < image.height; ++y) {
        uint8_t* out = image.rgb.data() + size_t{3} * image.width * y;
        for (int c = 0; c < (grey ? 1 : 3); ++c) {
            const int component = components[c];
            const int depth = format.comp[component].depth;
            av_read_image_line2(row.data(), planes, frame.linesize, &format, 0, y, component, image.width, 0,
                                sizeof(uint16_t));
            for (int x = 0; x < image.width; ++x) {
                const unsigned value = inverted ? row[x] ^ 1u : row[x];
                out[3 * x + c] = to_byte(value, depth, grey && saturate_grey);
            }
        }
        if (!grey) continue;
        for (int x = 0; x < image.width; ++x) out[3 * x + 2] = out[3 * x + 1] = out[3 * x];
    }
}

void convert_with_swscale(const AVFrame& frame, bool assume_full_range, const std::string& name,
                          Image& image) {
    const auto format = static_cast<AVPixelFormat>(frame.format);
    constexpr int kFlags =
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_BITEXACT;
    const std::unique_ptr<SwsContext, decltype(&sws_freeContext)> context(
        sws_getContext(frame.width, frame.height, format, frame.width, frame.height, AV_PIX_FMT_RGB24, kFlags,
                       nullptr, nullptr, nullptr),
        sws_freeContext);
    if (!context) {
        throw_input("{}: pixels of format {} cannot be converted to RGB", name, av_get_pix_fmt_name(format));
    }
    // SWS_CS_DEFAULT is BT.601.
    const int matrix = frame.colorspace == AVCOL_SPC_UNSPECIFIED ? SWS_CS_DEFAULT : frame.colorspace;
    const bool unspecified = frame.color_range == AVCOL_RANGE_UNSPECIFIED;
    const int full_range =
        frame.color_range == AVCOL_RANGE_JPEG || (unspecified && assume_full_range) ? 1 : 0;
    sws_setColorspaceDetails(context.get(), sws_getCoefficients(matrix), full_range,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    // swscale's vector code wants aligned rows and may write behind their end.
    constexpr int kAlignment = 64;
    const int stride = (3 * frame.width + 2 * kAlignment) / kAlignment * kAlignment;
    const std::unique_ptr<uint8_t, decltype(&av_free)> rows(
        static_cast<uint8_t*>(av_malloc(static_cast<size_t>(stride) * frame.height)), av_free);
    if (!rows) throw std::bad_alloc();
    uint8_t* planes[4] = {rows.get()};
    const int strides[4] = {stride};
    if (sws_scale(context.get(), frame.data, frame.linesize, 0, frame.height, planes, strides) !=
        frame.height) {
        throw_input("{}: pixels of format {} cannot be converted to RGB", name, av_get_pix_fmt_name(format));
    }
    const size_t row_bytes = size_t{3} * frame.width;
    for (int y = 0; y < frame.height; ++y) {
        std::copy_n(rows.get() + static_cast<size_t>(stride) * y, row_bytes,
                    image.rgb.data() + row_bytes * y);
    }
}

}  // namespace

Image rgb_of_frame(const AVFrame& frame, const FramePixelOptions& options, const std::string& name) {
    const AVPixFmtDescriptor* format = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(frame.format));
    if (format == nullptr || frame.width < 1 || frame.height < 1 || frame.data[0] == nullptr) {
        throw_input("{}: the picture has no pixels ({} x {})", name, frame.width, frame.height);
    }
    Image image{frame.width, frame.height, {}};
    image.rgb.resize(size_t{3} * frame.width * frame.height);
    if (is_420(frame, options.conversion)) {
        rgb_of_420(frame, options.conversion, image);
    } else if (!is_exact(*format)) {
        convert_with_swscale(frame, options.assume_full_range, name, image);
    } else if ((format->flags & AV_PIX_FMT_FLAG_PAL) != 0) {
        read_palette(frame, image);
    } else if (is_packed_bytes(*format)) {
        read_packed_bytes(frame, *format, image);
    } else {
        read_components(frame, *format, options.saturate_grey, image);
    }
    return image;
}

}  // namespace llava_mini
