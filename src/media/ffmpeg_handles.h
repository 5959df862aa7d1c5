// FFmpeg's objects in owning pointers.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
}

#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

namespace llava_mini {

struct AvioDeleter {
    void operator()(AVIOContext* io) const {
        av_freep(&io->buffer);
        avio_context_free(&io);
    }
};
struct FormatDeleter {
    void operator()(AVFormatContext* format) const { avformat_close_input(&format); }
};
struct CodecDeleter {
    void operator()(AVCodecContext* codec) const { avcodec_free_context(&codec); }
};
struct PacketDeleter {
    void operator()(AVPacket* packet) const { av_packet_free(&packet); }
};
struct FrameDeleter {
    void operator()(AVFrame* frame) const { av_frame_free(&frame); }
};
using AvioPtr = std::unique_ptr<AVIOContext, AvioDeleter>;
using FormatPtr = std::unique_ptr<AVFormatContext, FormatDeleter>;
using CodecPtr = std::unique_ptr<AVCodecContext, CodecDeleter>;
using PacketPtr = std::unique_ptr<AVPacket, PacketDeleter>;
using FramePtr = std::unique_ptr<AVFrame, FrameDeleter>;

/// What an allocating function of FFmpeg returned; throws std::bad_alloc for null.
template <typename Pointer>
Pointer checked(Pointer pointer) {
    if (!pointer) throw std::bad_alloc();
    return pointer;
}

/// The decoders hand on numbers of colour spaces and ranges as files have them. Those that FFmpeg has no name
/// for are no values of the enumerations and must not be read as such: they become "unspecified", as in
/// FFmpeg itself.
template <typename Enum>
void keep_known(Enum& value, Enum end, Enum unspecified) {
    std::underlying_type_t<Enum> number;
    std::memcpy(&number, &value, sizeof number);
    if (number >= static_cast<std::underlying_type_t<Enum>>(end)) value = unspecified;
}

inline void keep_known_colours(AVFrame& frame) {
    keep_known(frame.colorspace, AVCOL_SPC_NB, AVCOL_SPC_UNSPECIFIED);
    keep_known(frame.color_range, AVCOL_RANGE_NB, AVCOL_RANGE_UNSPECIFIED);
}

}  // namespace llava_mini
