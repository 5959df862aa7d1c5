#include "media/video_source.h"

extern "C" {
#include <libavdevice/avdevice.h>
#include <libavutil/display.h>
}

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "media/ffmpeg_log.h"

namespace llava_mini {
namespace {

// What an address may be, and what an address may lead to.
constexpr const char* kSchemes[] = {"http", "https", "rtsp", "rtsps", "rtp",
                                    "udp",  "tcp",   "rtmp", "rtmps", "srt"};
constexpr const char* kProtocols =
    "http,https,httpproxy,tls,tcp,udp,udplite,rtp,srtp,rtsp,rtmp,rtmpt,rtmps,rtmpts,srt,crypto";

std::string scheme_of(const std::string& name) {
    const size_t colon = name.find(':');
    return colon == std::string::npos || colon == 0 ? "" : name.substr(0, colon);
}

const AVInputFormat* video_device(const std::string& name) {
    static std::once_flag once;
    std::call_once(once, [] { avdevice_register_all(); });
    const AVInputFormat* device = nullptr;
    while ((device = av_input_video_device_next(device)) != nullptr) {
        // A device has a list of names: "video4linux2,v4l2".
        std::string names = fmt::format(",{},", device->name);
        if (names.find("," + name + ",") != std::string::npos) return device;
    }
    return nullptr;
}

// FFmpeg wants to open something a file refers to.
int refuse_open(AVFormatContext* format, AVIOContext**, const char*, int, AVDictionary**) {
    *static_cast<bool*>(format->opaque) = true;
    return AVERROR(EACCES);
}

}  // namespace

// A descriptor as FFmpeg reads it. Waiting for a pipe can be interrupted.
struct VideoSource::Input {
    int descriptor = -1;
    bool owned = false;
    VideoSource* source = nullptr;

    ~Input() {
        if (owned) close(descriptor);
    }
    static int read(void* opaque, uint8_t* buffer, int size) {
        const auto& input = *static_cast<Input*>(opaque);
        while (true) {
            if (!input.source->seekable_) {
                constexpr int kPollMilliseconds = 100;
                pollfd waiting{input.descriptor, POLLIN, 0};
                const int ready = poll(&waiting, 1, kPollMilliseconds);
                if (interrupted(input.source) != 0) return AVERROR_EXIT;
                if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
            }
            const ssize_t n = ::read(input.descriptor, buffer, static_cast<size_t>(size));
            if (n > 0) return static_cast<int>(n);
            if (n == 0) return AVERROR_EOF;
            if (errno != EINTR && errno != EAGAIN) return AVERROR(errno);
        }
    }
    static int64_t seek(void* opaque, int64_t offset, int whence) {
        const auto& input = *static_cast<Input*>(opaque);
        if ((whence & AVSEEK_SIZE) != 0) {
            struct stat status {};
            return fstat(input.descriptor, &status) == 0 ? status.st_size : AVERROR(errno);
        }
        const off_t at = lseek(input.descriptor, offset, whence & ~AVSEEK_FORCE);
        return at < 0 ? AVERROR(errno) : at;
    }
};

int VideoSource::interrupted(void* opaque) {
    auto& self = *static_cast<VideoSource*>(opaque);
    if (self.options_.stop != nullptr && self.options_.stop->load(std::memory_order_relaxed)) return 1;
    self.timed_out_ = !self.seekable_ && std::chrono::steady_clock::now() > self.deadline_;
    return self.timed_out_ ? 1 : 0;
}

VideoSource::VideoSource(const std::string& name, const VideoSourceOptions& options)
    : name_(name), options_(options) {
    if (name.empty()) throw_usage("the video has no name");
    open();
    const int found = av_find_best_stream(format_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (found < 0 || (format_->streams[found]->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0) {
        std::string others;
        for (unsigned i = 0; i < std::min(format_->nb_streams, 8u); ++i) {
            const AVCodecParameters& stream = *format_->streams[i]->codecpar;
            const char* type = av_get_media_type_string(stream.codec_type);
            others += fmt::format("{}{} {}", others.empty() ? "" : ", ", type == nullptr ? "unknown" : type,
                                  avcodec_get_name(stream.codec_id));
        }
        throw_input("{}: there is no video in it, only {}", name_, others.empty() ? "nothing" : others);
    }
    stream_ = found;
    for (unsigned i = 0; i < format_->nb_streams; ++i) {
        if (static_cast<int>(i) != stream_) format_->streams[i]->discard = AVDISCARD_ALL;
    }
}

VideoSource::~VideoSource() = default;

void VideoSource::open() {
    const FfmpegErrors errors;
    deadline_ = std::chrono::steady_clock::now() +
                std::chrono::milliseconds(static_cast<int64_t>(options_.timeout_seconds * 1000));
    std::error_code ignored;
    const bool exists = std::filesystem::exists(name_, ignored);
    const std::string scheme = exists ? "" : scheme_of(name_);
    const bool standard_input = !exists && (name_ == "-" || name_ == "pipe:" || name_ == "pipe:0");
    const bool is_address = std::find(std::begin(kSchemes), std::end(kSchemes), scheme) != std::end(kSchemes);
    const AVInputFormat* device =
        exists || scheme.empty() || is_address || standard_input ? nullptr : video_device(scheme);
    std::string url = name_;
    if (device != nullptr) {
        url = name_.substr(scheme.size() + 1);
    } else if (!is_address && !standard_input) {
        if (scheme == "file") url = name_.substr(scheme.size() + 1);
        if (url.find("://") != std::string::npos && !std::filesystem::exists(url, ignored)) {
            throw_input("{}: unknown kind of address '{}', expected one of {}", name_, scheme,
                        fmt::join(kSchemes, ", "));
        }
    }

    AVFormatContext* format = checked(avformat_alloc_context());
    FormatPtr guard(format);
    format->interrupt_callback = {interrupted, this};
    format->opaque = &refused_;
    AVDictionary* settings = nullptr;
    if (device == nullptr && is_address) {
        av_dict_set(&settings, "protocol_whitelist", kProtocols, 0);
    } else if (device == nullptr) {
        input_ = std::make_unique<Input>();
        input_->source = this;
        input_->descriptor =
            standard_input ? STDIN_FILENO : ::open(url.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (input_->descriptor < 0) throw_input("{}: cannot open: {}", name_, std::strerror(errno));
        input_->owned = !standard_input;
        struct stat status {};
        if (fstat(input_->descriptor, &status) != 0 || S_ISDIR(status.st_mode)) {
            throw_input("{}: expected a video, found a directory", name_);
        }
        seekable_ = S_ISREG(status.st_mode) && !standard_input;
        if (seekable_ && status.st_size == 0) throw_input("{}: the file is empty (0 bytes)", name_);
        constexpr int kBufferBytes = 1 << 18;
        auto* buffer = checked(static_cast<uint8_t*>(av_malloc(kBufferBytes)));
        io_.reset(avio_alloc_context(buffer, kBufferBytes, 0, input_.get(), Input::read, nullptr,
                                     seekable_ ? Input::seek : nullptr));
        if (!io_) av_free(buffer);
        checked(io_.get());
        format->pb = io_.get();
        format->flags |= AVFMT_FLAG_CUSTOM_IO;
        format->io_open = refuse_open;
        // Some demuxers open files without asking io_open; a protocol of this name does not exist.
        av_dict_set(&settings, "protocol_whitelist", "none", 0);
    }
    guard.release();  // avformat_open_input frees it when it fails
    const int opened = avformat_open_input(&format, url.c_str(), device, &settings);
    av_dict_free(&settings);
    refused_ = refused_ || errors.describe(opened).find("not on whitelist") != std::string::npos;
    check(opened, "cannot open");
    format_.reset(format);

    // Probing decodes a few frames, too. What is larger than allowed but harmless is left for the reader to
    // refuse, when its size is known.
    constexpr uint64_t kHarmless = 1 << 24;
    const std::string most = std::to_string(std::clamp<uint64_t>(options_.max_pixels, kHarmless, INT32_MAX));
    std::vector<AVDictionary*> codec_settings(format->nb_streams, nullptr);
    for (AVDictionary*& codec : codec_settings) av_dict_set(&codec, "max_pixels", most.c_str(), 0);
    const int probed = avformat_find_stream_info(format, codec_settings.data());
    for (AVDictionary*& codec : codec_settings) av_dict_free(&codec);
    if (refused_) check(AVERROR(EACCES), "");  // whatever else it holds
    check(probed, "cannot find out what is in it");
}

int VideoSource::check(int result, const char* what) const {
    if (result >= 0) return result;
    if (result == AVERROR(ENOMEM)) throw_input("{}: {}: it asks for more memory than there is", name_, what);
    if (refused_) {
        throw_input("{}: it refers to other files or addresses, which are not opened for a file", name_);
    }
    if (timed_out_) throw_input("{}: nothing came for {:.3g} seconds", name_, options_.timeout_seconds);
    if (result == AVERROR_EXIT) throw_input("{}: interrupted", name_);
    if (result == AVERROR_INVALIDDATA) throw_input("{}: not a video of a known kind, or damaged", name_);
    char text[AV_ERROR_MAX_STRING_SIZE] = {};
    av_strerror(result, text, sizeof(text));
    throw_input("{}: {}: {}", name_, what, text);
}

double VideoSource::fps() const {
    for (const AVRational rate : {stream().avg_frame_rate, stream().r_frame_rate}) {
        if (rate.num > 0 && rate.den > 0) return av_q2d(rate);
    }
    return 0;
}

Orientation VideoSource::orientation() const {
    size_t size = 0;
    const auto* bytes = av_stream_get_side_data(&stream(), AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (bytes == nullptr || size < 9 * sizeof(int32_t)) return Orientation::kUpright;
    int32_t matrix[9];
    std::memcpy(matrix, bytes, sizeof(matrix));
    // [a b; c d] sends the stored x, y to a x + c y, b x + d y: turns by quarters and mirrors only.
    const auto sign = [&](int i) { return matrix[i] > (1 << 15) ? 1 : matrix[i] < -(1 << 15) ? -1 : 0; };
    const int a = sign(0), b = sign(1), c = sign(3), d = sign(4);
    if (a != 0 && d != 0 && b == 0 && c == 0) {
        if (a > 0) return d > 0 ? Orientation::kUpright : Orientation::kFlipped;
        return d > 0 ? Orientation::kMirrored : Orientation::kRotated180;
    }
    if (b != 0 && c != 0 && a == 0 && d == 0) {
        if (b > 0) return c > 0 ? Orientation::kTransposed : Orientation::kRotate90;
        return c > 0 ? Orientation::kRotate270 : Orientation::kTransverse;
    }
    return Orientation::kUpright;
}

bool VideoSource::read(AVPacket& packet, bool& cut_off) {
    while (true) {
        deadline_ = std::chrono::steady_clock::now() +
                    std::chrono::milliseconds(static_cast<int64_t>(options_.timeout_seconds * 1000));
        const int result = av_read_frame(format_.get(), &packet);
        if (result == AVERROR(EAGAIN)) continue;
        if (result < 0) {
            if (timed_out_ || result == AVERROR_EXIT || result == AVERROR(ENOMEM))
                check(result, "cannot read");
            cut_off =
                result != AVERROR_EOF || (io_ != nullptr && io_->error < 0 && io_->error != AVERROR_EOF);
            return false;
        }
        if (packet.stream_index == stream_) return true;
        av_packet_unref(&packet);
    }
}

}  // namespace llava_mini
