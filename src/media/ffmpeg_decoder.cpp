#include "media/ffmpeg_decoder.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "media/bytes.h"
#include "media/ffmpeg_handles.h"
#include "media/ffmpeg_log.h"
#include "media/frame_pixels.h"
#include "media/gif.h"
#include "media/webp.h"

namespace llava_mini {
namespace {

// A kind of picture, told by the bytes it starts with, and the demuxer of FFmpeg that splits it into packets.
// Only these are let near untrusted pictures. (JPEG XL is not among them: its decoder prints to stderr.) An
// animated PNG goes the way of a still one, whose picture it holds.
struct Kind {
    std::string_view name;
    std::string_view magic;
    const char* demuxer;
    uint64_t offset = 0;  // of the magic bytes
};

constexpr Kind kKinds[] = {
    {"PNG", "\x89PNG\r\n\x1a\n", "png_pipe"},
    {"WebP", "WEBP", "webp_pipe", 8},
    {"GIF", "GIF87a", "gif"},
    {"GIF", "GIF89a", "gif"},
    {"BMP", "BM", "bmp_pipe"},
    {"TIFF", std::string_view("II*\0", 4), "tiff_pipe"},
    {"TIFF", std::string_view("MM\0*", 4), "tiff_pipe"},
    {"AVIF", "ftypavi", "mov", 4},
    {"AVIF", "ftypmif1", "mov", 4},
    {"JPEG 2000", "\xff\x4f\xff\x51", "j2k_pipe"},
    {"JPEG 2000", "jP  \r\n\x87\n", "j2k_pipe", 4},
    {"QOI", "qoif", "qoi_pipe"},
    {"PBM", "P4", "pbm_pipe"},
    {"PGM", "P5", "pgm_pipe"},
    {"PPM", "P6", "ppm_pipe"},
    {"PAM", "P7\n", "pam_pipe"},
};

// The bytes of a picture as FFmpeg reads them.
struct MemoryFile {
    std::span<const uint8_t> bytes;
    int64_t position = 0;
};

int read_memory(void* opaque, uint8_t* buffer, int size) {
    auto& file = *static_cast<MemoryFile*>(opaque);
    const int64_t left = static_cast<int64_t>(file.bytes.size()) - file.position;
    if (left <= 0) return AVERROR_EOF;
    const int n = static_cast<int>(std::min<int64_t>(size, left));
    std::memcpy(buffer, file.bytes.data() + file.position, static_cast<size_t>(n));
    file.position += n;
    return n;
}

int64_t seek_memory(void* opaque, int64_t offset, int whence) {
    auto& file = *static_cast<MemoryFile*>(opaque);
    const auto size = static_cast<int64_t>(file.bytes.size());
    switch (whence & ~AVSEEK_FORCE) {
        case AVSEEK_SIZE:
            return size;
        case SEEK_SET:
            break;
        case SEEK_CUR:
            offset += file.position;
            break;
        case SEEK_END:
            offset += size;
            break;
        default:
            return AVERROR(EINVAL);
    }
    if (offset < 0 || offset > size) return AVERROR(EINVAL);
    return file.position = offset;
}

const Kind& kind_of(std::span<const uint8_t> bytes, const std::string& name) {
    for (const Kind& kind : kKinds) {
        if (has_text(bytes, kind.offset, kind.magic)) return kind;
    }
    throw_input(
        "{}: not a picture of a known kind (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, ...): it starts with "
        "{:02x}",
        name, fmt::join(bytes.first(std::min<size_t>(bytes.size(), 8)), " "));
}

[[noreturn]] void throw_too_large(const DecodeOptions& options, uint64_t width, uint64_t height) {
    throw_input("{}: the picture has {} x {} pixels, at most {} pixels are accepted", options.name, width,
                height, options.max_pixels);
}

// Reads and decodes packets until there is a frame.
class FirstFrame {
  public:
    FirstFrame(MemoryFile& file, const Kind& kind, const DecodeOptions& options)
        : options_(options), kind_(kind) {
        const AVInputFormat* input = av_find_input_format(kind.demuxer);
        if (input == nullptr) {
            throw_input("{}: this build of FFmpeg does not read {}", options.name, kind.name);
        }
        constexpr int kBufferBytes = 1 << 16;
        auto* buffer = checked(static_cast<uint8_t*>(av_malloc(kBufferBytes)));
        io_ = AvioPtr(avio_alloc_context(buffer, kBufferBytes, 0, &file, read_memory, nullptr, seek_memory));
        if (!io_) av_free(buffer);
        checked(io_.get());
        AVFormatContext* format = checked(avformat_alloc_context());
        format->pb = io_.get();
        format->flags |= AVFMT_FLAG_CUSTOM_IO;
        check(avformat_open_input(&format, "", input, nullptr));  // frees `format` when it fails
        format_.reset(format);
    }

    FramePtr decode() {
        const int stream = check(av_find_best_stream(format_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0));
        open_codec(*format_->streams[stream]->codecpar);
        const PacketPtr packet = checked(PacketPtr(av_packet_alloc()));
        FramePtr frame = checked(FramePtr(av_frame_alloc()));
        int result = AVERROR(EAGAIN);
        while (result == AVERROR(EAGAIN)) {
            const int read = av_read_frame(format_.get(), packet.get());
            if (read < 0 && read != AVERROR_EOF) check(read);
            if (read >= 0 && packet->stream_index != stream) {
                av_packet_unref(packet.get());
                continue;
            }
            check(avcodec_send_packet(codec_.get(), read < 0 ? nullptr : packet.get()));
            av_packet_unref(packet.get());
            result = avcodec_receive_frame(codec_.get(), frame.get());
        }
        check(result);
        width_ = static_cast<uint64_t>(frame->width);  // not every decoder asks for room by get_buffer()
        height_ = static_cast<uint64_t>(frame->height);
        check(result);
        if (frame->decode_error_flags != 0 || (frame->flags & AV_FRAME_FLAG_CORRUPT) != 0) {
            check(AVERROR_INVALIDDATA);
        }
        keep_known_colours(*frame);
        return frame;
    }

  private:
    void open_codec(const AVCodecParameters& parameters) {
        const AVCodec* decoder = avcodec_find_decoder(parameters.codec_id);
        if (decoder == nullptr) {
            throw_input("{}: this build of FFmpeg does not decode {} ({})", options_.name, kind_.name,
                        avcodec_get_name(parameters.codec_id));
        }
        codec_ = checked(CodecPtr(avcodec_alloc_context3(decoder)));
        check(avcodec_parameters_to_context(codec_.get(), &parameters));
        codec_->thread_count = 1;
        // FFmpeg compares its limit with widths rounded up to 64, too: this one leaves room for that, and
        // get_buffer() is exact.
        constexpr uint64_t kRoom = 63 * 65536;
        codec_->max_pixels = static_cast<int64_t>(std::min<uint64_t>(options_.max_pixels, INT32_MAX) + kRoom);
        codec_->opaque = this;
        codec_->get_buffer2 = get_buffer;
        codec_->err_recognition = AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER;
        check(avcodec_open2(codec_.get(), decoder, nullptr));
    }

    // Called by the decoder when it knows the size of the picture and wants room for it.
    static int get_buffer(AVCodecContext* codec, AVFrame* frame, int flags) {
        auto& self = *static_cast<FirstFrame*>(codec->opaque);
        self.width_ = static_cast<uint64_t>(frame->width);
        self.height_ = static_cast<uint64_t>(frame->height);
        if (self.width_ * self.height_ > self.options_.max_pixels) return AVERROR(EINVAL);
        return avcodec_default_get_buffer2(codec, frame, flags);
    }

    int check(int result) const {
        if (width_ * height_ > options_.max_pixels) throw_too_large(options_, width_, height_);
        if (result == AVERROR(ENOMEM)) throw std::bad_alloc();
        if (result < 0) {
            throw_input("{}: cannot decode the {}: {}", options_.name, kind_.name, errors_.describe(result));
        }
        return result;
    }

    const DecodeOptions& options_;
    const Kind& kind_;
    uint64_t width_ = 0, height_ = 0;  // as soon as the decoder knows
    FfmpegErrors errors_;
    // Destroyed in reverse order: the demuxer uses the reader.
    AvioPtr io_;
    FormatPtr format_;
    CodecPtr codec_;
};

// Whether the rows of an uncompressed BMP reach behind the end of the file: FFmpeg fills up what is missing.
bool is_cut_off_bmp(std::span<const uint8_t> bmp) {
    const auto number = [&](uint64_t offset, int n) {
        return uint64_t{number_at(bmp, offset, n, ByteOrder::kLittle)};
    };
    constexpr uint64_t kCoreHeader = 12;  // of OS/2: sizes of 16 bits, no compression
    const bool core = number(14, 4) == kCoreHeader;
    constexpr uint64_t kUncompressed = 0, kBitFields = 3;
    const uint64_t compression = core ? kUncompressed : number(30, 4);
    if (compression != kUncompressed && compression != kBitFields) return false;
    const uint64_t width = core ? number(18, 2) : number(18, 4);
    const auto stored_height = static_cast<int32_t>(core ? number(20, 2) : number(22, 4));
    const auto height = static_cast<uint64_t>(std::abs(int64_t{stored_height}));  // negative: top row first
    const uint64_t bits = core ? number(24, 2) : number(28, 2);
    const uint64_t row_bytes = (width * bits + 31) / 32 * 4;
    return row_bytes > bmp.size() || number(10, 4) + row_bytes * height > bmp.size();
}

// A QOI picture ends in this; FFmpeg takes any beginning of one for the whole.
bool is_cut_off_qoi(std::span<const uint8_t> qoi) {
    constexpr std::string_view kEnd("\0\0\0\0\0\0\0\1", 8);
    return qoi.size() < kEnd.size() || !has_text(qoi, qoi.size() - kEnd.size(), kEnd);
}

Image decode_first_frame(std::span<const uint8_t> bytes, const Kind& kind, const FramePixelOptions& pixels,
                         const DecodeOptions& options) {
    MemoryFile file{bytes};
    return rgb_of_frame(*FirstFrame(file, kind, options).decode(), pixels, options.name);
}

// A frame of an animation that is smaller than its canvas: transparent black surrounds it.
Image laid_on_canvas(const Image& frame, const WebpPicture& place, const DecodeOptions& options) {
    const uint64_t pixels = uint64_t{place.canvas_width} * place.canvas_height;
    if (pixels > options.max_pixels) throw_too_large(options, place.canvas_width, place.canvas_height);
    if (uint64_t{place.x} + static_cast<uint64_t>(frame.width) > place.canvas_width ||
        uint64_t{place.y} + static_cast<uint64_t>(frame.height) > place.canvas_height) {
        throw_input("{}: cannot decode the WebP: its first frame reaches beyond the canvas", options.name);
    }
    Image canvas{static_cast<int>(place.canvas_width), static_cast<int>(place.canvas_height), {}};
    canvas.rgb.resize(3 * pixels);
    const size_t row_bytes = size_t{3} * frame.width;
    for (int y = 0; y < frame.height; ++y) {
        const size_t first = 3 * ((place.y + static_cast<size_t>(y)) * place.canvas_width + place.x);
        std::copy_n(frame.rgb.begin() + y * row_bytes, row_bytes, canvas.rgb.begin() + first);
    }
    return canvas;
}

}  // namespace

DecodedPicture decode_with_ffmpeg(std::span<const uint8_t> bytes, const DecodeOptions& options) {
    install_ffmpeg_log();
    const Kind& kind = kind_of(bytes, options.name);
    FramePixelOptions pixels;
    if (kind.name == "GIF") {
        return {decode_first_frame(opaque_gif(bytes), kind, pixels, options)};
    }
    if (kind.name == "WebP") {
        pixels.conversion = LumaChroma::kWebp;
        const WebpPicture picture = first_webp_picture(bytes);
        Image image = decode_first_frame(picture.file, kind, pixels, options);
        if (picture.canvas_width > 0) image = laid_on_canvas(image, picture, options);
        return {std::move(image), orientation_of_file(bytes)};
    }
    if ((kind.name == "BMP" && is_cut_off_bmp(bytes)) || (kind.name == "QOI" && is_cut_off_qoi(bytes))) {
        throw_input("{}: cannot decode the {}: the file ends before the picture", options.name, kind.name);
    }
    if (kind.name == "TIFF") {
        // FFmpeg makes a black picture of these without a word.
        constexpr uint32_t kCompression = 259, kOldJpeg = 6, kJpeg = 7;
        const uint32_t compression = tiff_value(bytes, kCompression);
        if (compression == kOldJpeg || compression == kJpeg) {
            throw_input("{}: TIFF pictures compressed as JPEG are not read", options.name);
        }
        pixels.assume_full_range = true;
    }
    if (kind.name == "PNG") {
        // Of 16-bit grey Pillow saturates the kind without an alpha channel (colour type 0).
        constexpr uint64_t kColourType = 25;
        pixels.saturate_grey = number_at(bytes, kColourType, 1, ByteOrder::kBig) == 0;
    }
    return {decode_first_frame(bytes, kind, pixels, options), orientation_of_file(bytes)};
}

}  // namespace llava_mini
