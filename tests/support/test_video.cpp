#include "support/test_video.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "media/ffmpeg_handles.h"
#include "media/ffmpeg_log.h"

namespace llava_mini::test {
namespace {

constexpr int kColumns = 4, kRows = 3;

int check(int result, const char* what) {
    if (result >= 0) return result;
    char text[AV_ERROR_MAX_STRING_SIZE] = {};
    av_strerror(result, text, sizeof(text));
    std::fprintf(stderr, "test video: %s: %s\n", what, text);
    std::abort();
}

template <typename T>
T* found(T* pointer, const char* what) {
    if (pointer == nullptr) check(AVERROR(EINVAL), what);
    return pointer;
}

struct OutputDeleter {
    void operator()(AVFormatContext* format) const {
        avio_closep(&format->pb);
        avformat_free_context(format);
    }
};

void encode(AVFormatContext* format, AVStream* stream, AVCodecContext* codec, const AVFrame* frame) {
    check(avcodec_send_frame(codec, frame), "send");
    const PacketPtr packet(av_packet_alloc());
    while (true) {
        const int result = avcodec_receive_packet(codec, packet.get());
        if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
        check(result, "encode");
        av_packet_rescale_ts(packet.get(), codec->time_base, stream->time_base);
        packet->stream_index = stream->index;
        check(av_interleaved_write_frame(format, packet.get()), "write");
    }
}

}  // namespace

std::filesystem::path write_film(const std::filesystem::path& path, int seconds) {
    write_test_video(path, {.codec = "libx264",
                            .pixel_format = "yuv420p",
                            .width = 96,
                            .height = 64,
                            .frames = 4 * seconds,
                            .rate_num = 4,
                            .gop = 8});
    return path;
}

Image numbered_picture(int number, int width, int height) {
    Image image{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const int bit = y * kRows / height * kColumns + x * kColumns / width;
            const uint8_t grey = (number >> bit & 1) != 0 ? 220 : 30;
            std::fill_n(image.rgb.begin() + 3 * (static_cast<ptrdiff_t>(y) * width + x), 3, grey);
        }
    }
    return image;
}

int number_in(const Image& image) {
    int number = 0;
    for (int bit = 0; bit < kColumns * kRows; ++bit) {
        const int x = (2 * (bit % kColumns) + 1) * image.width / (2 * kColumns);
        const int y = (2 * (bit / kColumns) + 1) * image.height / (2 * kRows);
        const size_t at = 3 * (static_cast<size_t>(y) * image.width + x);
        if (image.rgb[at + 1] > 125) number |= 1 << bit;
    }
    return number;
}

void write_test_video(const std::filesystem::path& path, const TestVideo& video) {
    install_ffmpeg_log();
    AVFormatContext* made = nullptr;
    check(avformat_alloc_output_context2(&made, nullptr, nullptr, path.c_str()), "container");
    const std::unique_ptr<AVFormatContext, OutputDeleter> format(made);
    const auto is_global = (format->oformat->flags & AVFMT_GLOBALHEADER) != 0;
    constexpr AVRational kMilliseconds{1, 1000};
    const AVRational per_frame{video.rate_den, video.rate_num};

    CodecPtr codec, audio_codec;
    AVStream *stream = nullptr, *audio_stream = nullptr;
    const AVPixelFormat pixel_format = av_get_pix_fmt(video.pixel_format.c_str());
    if (video.video) {
        const AVCodec* encoder = found(avcodec_find_encoder_by_name(video.codec.c_str()), "encoder");
        codec.reset(avcodec_alloc_context3(encoder));
        codec->width = video.width;
        codec->height = video.height;
        codec->pix_fmt = pixel_format;
        codec->time_base = video.milliseconds ? kMilliseconds : per_frame;
        codec->framerate = {video.rate_num, video.rate_den};
        codec->gop_size = video.gop;
        codec->max_b_frames = video.b_frames;
        codec->bit_rate = 2'000'000;
        codec->thread_count = 1;
        codec->strict_std_compliance = FF_COMPLIANCE_UNOFFICIAL;
        if (is_global) codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
        if (video.codec == "libx264") {
            av_opt_set(codec->priv_data, "preset", "veryfast", 0);
            av_opt_set(codec->priv_data, "x264-params", "scenecut=0", 0);
        }
        check(avcodec_open2(codec.get(), encoder, nullptr), "open encoder");
        stream = found(avformat_new_stream(format.get(), nullptr), "stream");
        check(avcodec_parameters_from_context(stream->codecpar, codec.get()), "parameters");
        stream->time_base = codec->time_base;
        stream->avg_frame_rate = codec->framerate;
        if (video.clockwise != 0) {
            auto* matrix = reinterpret_cast<int32_t*>(
                av_stream_new_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t)));
            av_display_rotation_set(found(matrix, "matrix"), video.clockwise);
        }
    }
    if (video.audio) {
        const AVCodec* encoder = found(avcodec_find_encoder(AV_CODEC_ID_PCM_S16LE), "audio encoder");
        audio_codec.reset(avcodec_alloc_context3(encoder));
        audio_codec->sample_rate = 8000;
        audio_codec->sample_fmt = AV_SAMPLE_FMT_S16;
        audio_codec->time_base = {1, 8000};
        av_channel_layout_default(&audio_codec->ch_layout, 1);
        check(avcodec_open2(audio_codec.get(), encoder, nullptr), "open audio encoder");
        audio_stream = found(avformat_new_stream(format.get(), nullptr), "audio stream");
        check(avcodec_parameters_from_context(audio_stream->codecpar, audio_codec.get()), "parameters");
    }
    check(avio_open(&format->pb, path.c_str(), AVIO_FLAG_WRITE), "create");
    check(avformat_write_header(format.get(), nullptr), "header");

    if (video.audio) {
        const FramePtr frame(av_frame_alloc());
        frame->nb_samples = 8000;
        frame->format = AV_SAMPLE_FMT_S16;
        frame->sample_rate = 8000;
        av_channel_layout_default(&frame->ch_layout, 1);
        check(av_frame_get_buffer(frame.get(), 0), "audio buffer");
        std::memset(frame->data[0], 0, 16000);
        frame->pts = 0;
        encode(format.get(), audio_stream, audio_codec.get(), frame.get());
        encode(format.get(), audio_stream, audio_codec.get(), nullptr);
    }
    if (video.video) {
        const std::unique_ptr<SwsContext, decltype(&sws_freeContext)> scaler(
            sws_getContext(video.width, video.height, AV_PIX_FMT_RGB24, video.width, video.height,
                           pixel_format, SWS_POINT | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, nullptr, nullptr,
                           nullptr),
            sws_freeContext);
        for (int i = 0; i < video.frames; ++i) {
            const Image image =
                video.picture ? video.picture(i) : numbered_picture(i, video.width, video.height);
            const FramePtr frame(av_frame_alloc());
            frame->width = video.width;
            frame->height = video.height;
            frame->format = pixel_format;
            check(av_frame_get_buffer(frame.get(), 0), "buffer");
            // swscale reads a little behind the rows and the picture.
            const int stride = 3 * video.width + 64;
            std::vector<uint8_t> padded(static_cast<size_t>(stride) * (video.height + 2), image.rgb.back());
            for (int y = 0; y < video.height; ++y) {
                const auto row = image.rgb.begin() + static_cast<ptrdiff_t>(3) * video.width * y;
                std::copy_n(row, 3 * video.width, padded.begin() + static_cast<ptrdiff_t>(stride) * y);
            }
            const uint8_t* planes[] = {padded.data(), nullptr, nullptr, nullptr};
            const int strides[] = {stride, 0, 0, 0};
            sws_scale(scaler.get(), planes, strides, 0, video.height, frame->data, frame->linesize);
            frame->pts = video.milliseconds ? video.milliseconds(i) : i;
            encode(format.get(), stream, codec.get(), frame.get());
        }
        encode(format.get(), stream, codec.get(), nullptr);
    }
    check(av_write_trailer(format.get()), "trailer");
}

}  // namespace llava_mini::test
