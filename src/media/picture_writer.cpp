#include "media/picture_writer.h"

#include <cstdio>
// clang-format off: jpeglib.h needs stdio.h before it
#include <jpeglib.h>
// clang-format on

#include <csetjmp>
#include <cstdlib>

#include "core/error.h"
#include "media/ffmpeg_handles.h"
#include "media/ffmpeg_log.h"

namespace llava_mini {
namespace {

struct JpegErrors {
    jpeg_error_mgr base;
    std::jmp_buf back;
};

}  // namespace

std::vector<uint8_t> encode_jpeg(const Image& image, int quality) {
    jpeg_compress_struct jpeg{};
    JpegErrors errors{};
    unsigned char* bytes = nullptr;
    unsigned long size = 0;
    jpeg.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = [](j_common_ptr info) {
        std::longjmp(reinterpret_cast<JpegErrors*>(info->err)->back, 1);
    };
    errors.base.output_message = [](j_common_ptr) {};
    if (setjmp(errors.back) != 0) {
        jpeg_destroy_compress(&jpeg);
        std::free(bytes);
        throw_system("a picture of {} x {} pixels cannot be written as JPEG", image.width, image.height);
    }
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &size);
    jpeg.image_width = static_cast<JDIMENSION>(image.width);
    jpeg.image_height = static_cast<JDIMENSION>(image.height);
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, quality, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        auto* row = const_cast<uint8_t*>(image.rgb.data()) + size_t{3} * image.width * jpeg.next_scanline;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    std::vector<uint8_t> result(bytes, bytes + size);
    std::free(bytes);
    return result;
}

std::vector<uint8_t> thumbnail_jpeg(const Image& image, int width) {
    constexpr int kQuality = 80;
    if (image.width <= width) return encode_jpeg(image, kQuality);
    const int height = std::max(1, static_cast<int>(int64_t{image.height} * width / image.width));
    Image small{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
    for (int y = 0; y < height; ++y) {
        const int64_t top = int64_t{y} * image.height / height,
                      bottom = std::max(top + 1, (int64_t{y} + 1) * image.height / height);
        for (int x = 0; x < width; ++x) {
            const int64_t left = int64_t{x} * image.width / width,
                          right = std::max(left + 1, (int64_t{x} + 1) * image.width / width);
            uint64_t sum[3] = {};
            for (int64_t row = top; row < bottom; ++row) {
                const uint8_t* in = image.rgb.data() + 3 * (row * image.width + left);
                for (int64_t column = left; column < right; ++column, in += 3) {
                    for (int c = 0; c < 3; ++c) sum[c] += in[c];
                }
            }
            const auto count = static_cast<uint64_t>((bottom - top) * (right - left));
            uint8_t* out = small.rgb.data() + 3 * (int64_t{y} * width + x);
            for (int c = 0; c < 3; ++c) out[c] = static_cast<uint8_t>(sum[c] / count);
        }
    }
    return encode_jpeg(small, kQuality);
}

std::vector<uint8_t> encode_png(const Image& image) {
    install_ffmpeg_log();
    const auto check = [&](bool fine) {
        if (!fine) {
            throw_system("a picture of {} x {} pixels cannot be written as PNG", image.width, image.height);
        }
    };
    const AVCodec* encoder = avcodec_find_encoder(AV_CODEC_ID_PNG);
    check(encoder != nullptr);
    const CodecPtr codec = checked(CodecPtr(avcodec_alloc_context3(encoder)));
    codec->width = image.width;
    codec->height = image.height;
    codec->pix_fmt = AV_PIX_FMT_RGB24;
    codec->time_base = {1, 1};
    codec->thread_count = 1;
    check(avcodec_open2(codec.get(), encoder, nullptr) >= 0);
    const FramePtr frame = checked(FramePtr(av_frame_alloc()));
    frame->width = image.width;
    frame->height = image.height;
    frame->format = AV_PIX_FMT_RGB24;
    check(av_frame_get_buffer(frame.get(), 0) >= 0);
    for (int y = 0; y < image.height; ++y) {
        const size_t row = size_t{3} * image.width;
        std::memcpy(frame->data[0] + static_cast<ptrdiff_t>(y) * frame->linesize[0],
                    image.rgb.data() + row * y, row);
    }
    const PacketPtr packet = checked(PacketPtr(av_packet_alloc()));
    check(avcodec_send_frame(codec.get(), frame.get()) >= 0);
    avcodec_send_frame(codec.get(), nullptr);
    check(avcodec_receive_packet(codec.get(), packet.get()) >= 0);
    return {packet->data, packet->data + packet->size};
}

}  // namespace llava_mini
