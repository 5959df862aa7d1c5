#include "media/video_reader.h"

extern "C" {
#include <libavutil/hwcontext.h>
}

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"
#include "media/ffmpeg_log.h"
#include "media/frame_pixels.h"
#include "media/frame_plan.h"

namespace llava_mini {
namespace {

constexpr size_t kQueueBytes = size_t{64} << 20;
constexpr size_t kLiveQueue = 8;  // frames: more would only be late

struct BufferDeleter {
    void operator()(AVBufferRef* buffer) const { av_buffer_unref(&buffer); }
};
using BufferPtr = std::unique_ptr<AVBufferRef, BufferDeleter>;

std::string hardware_names() {
    std::string names;
    for (AVHWDeviceType type = AV_HWDEVICE_TYPE_NONE;
         (type = av_hwdevice_iterate_types(type)) != AV_HWDEVICE_TYPE_NONE;) {
        names += fmt::format("{}{}", names.empty() ? "" : ", ", av_hwdevice_get_type_name(type));
    }
    return names.empty() ? "none" : names;
}

// A decoder of the source's stream.
class Decoder {
  public:
    Decoder(const VideoSource& source, const VideoReaderOptions& options)
        : name_(source.name()), codec_name_(source.codec()), options_(options) {
        const AVCodecParameters& parameters = *source.stream().codecpar;
        const AVCodec* decoder = avcodec_find_decoder(parameters.codec_id);
        if (decoder == nullptr) {
            throw_input("{}: this build of FFmpeg does not decode {}", source.name(), source.codec());
        }
        codec_ = checked(CodecPtr(avcodec_alloc_context3(decoder)));
        if (avcodec_parameters_to_context(codec_.get(), &parameters) < 0) throw std::bad_alloc();
        codec_->pkt_timebase = source.stream().time_base;
        // One frame a second is decoded in milliseconds and encoded in seconds: leave the cores to that.
        constexpr unsigned kCoresForOne = 4;
        codec_->thread_count =
            options.threads > 0
                ? options.threads
                : static_cast<int>(std::max(1u, std::thread::hardware_concurrency() / kCoresForOne));
        codec_->max_pixels = static_cast<int64_t>(std::min<uint64_t>(options.source.max_pixels, INT32_MAX));
        codec_->err_recognition |= AV_EF_CRCCHECK;
        codec_->opaque = this;
        if (!options.hardware.empty()) use_hardware(*decoder);
        const int opened = avcodec_open2(codec_.get(), decoder, nullptr);
        if (opened < 0) throw_input("{}: {} cannot be decoded", source.name(), source.codec());
        const AVCodecDescriptor* descriptor = avcodec_descriptor_get(parameters.codec_id);
        every_frame_alone_ = descriptor != nullptr && (descriptor->props & AV_CODEC_PROP_INTRA_ONLY) != 0;
    }

    AVCodecContext* get() const { return codec_.get(); }
    bool every_frame_alone() const { return every_frame_alone_; }

    /// A frame in main memory.
    const AVFrame& in_memory(const AVFrame& frame) {
        if (frame.hw_frames_ctx == nullptr) return frame;
        copy_ = checked(FramePtr(av_frame_alloc()));
        if (av_hwframe_transfer_data(copy_.get(), &frame, 0) < 0) {
            throw_system("{}: a frame cannot be taken from the device {}", name_, options_.hardware);
        }
        av_frame_copy_props(copy_.get(), &frame);
        return *copy_;
    }

  private:
    void use_hardware(const AVCodec& decoder) {
        const AVHWDeviceType type = av_hwdevice_find_type_by_name(options_.hardware.c_str());
        if (type == AV_HWDEVICE_TYPE_NONE) {
            throw_usage("unknown kind of decoding device '{}'; this build of FFmpeg has {}",
                        options_.hardware, hardware_names());
        }
        for (int i = 0;; ++i) {
            const AVCodecHWConfig* config = avcodec_get_hw_config(&decoder, i);
            if (config == nullptr) {
                throw_input("{}: {} cannot be decoded on {}", name_, codec_name_, options_.hardware);
            }
            if (config->device_type != type ||
                (config->methods & AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX) == 0) {
                continue;
            }
            AVBufferRef* device = nullptr;
            if (av_hwdevice_ctx_create(&device, type, nullptr, nullptr, 0) < 0) {
                throw_system("no device of kind {} can be opened for decoding", options_.hardware);
            }
            device_.reset(device);
            codec_->hw_device_ctx = checked(av_buffer_ref(device));
            hardware_format_ = config->pix_fmt;
            codec_->get_format = [](AVCodecContext* codec, const AVPixelFormat* offered) {
                const AVPixelFormat wanted = static_cast<Decoder*>(codec->opaque)->hardware_format_;
                for (const AVPixelFormat* f = offered; *f != AV_PIX_FMT_NONE; ++f) {
                    if (*f == wanted) return wanted;
                }
                return avcodec_default_get_format(codec, offered);  // on the CPU, then
            };
            return;
        }
    }

    const std::string name_, codec_name_;
    const VideoReaderOptions& options_;
    BufferPtr device_;
    CodecPtr codec_;
    FramePtr copy_;
    AVPixelFormat hardware_format_ = AV_PIX_FMT_NONE;
    bool every_frame_alone_ = false;
};

VideoReaderOptions checked_options(const VideoReaderOptions& options) {
    const bool sane = options.fps > 0 && std::isfinite(options.fps) && options.max_frames >= 0 &&
                      options.start >= 0 && std::isfinite(options.start) && options.end >= 0 &&
                      std::isfinite(options.end) && options.skip >= 0 && options.threads >= 0;
    if (!sane || (options.end > 0 && options.end <= options.start)) {
        throw_usage(
            "frames of a video: {} a second, at most {}, from {} to {} seconds, {} skipped: expected a "
            "positive "
            "rate and an end behind the start",
            options.fps, options.max_frames, options.start, options.end, options.skip);
    }
    return options;
}

}  // namespace

class VideoReader::Impl {
  public:
    Impl(const std::string& name, const VideoReaderOptions& options) : options_(checked_options(options)) {
        options_.source.stop = &stop_;
        user_stop_ = options.source.stop;
        source_ = std::make_unique<VideoSource>(name, options_.source);
        describe();
        if (source_->is_file() && !options_.live) {
            make_plan(name);
        } else if (!options_.at.empty()) {
            throw_usage("{}: only frames of a file can be looked at again", name);
        }
        decoder_ = std::make_unique<Decoder>(*source_, options_);
        thread_ = std::thread([this] { run(); });
    }

    ~Impl() {
        stop_ = true;
        room_.notify_all();
        thread_.join();
    }

    std::optional<VideoFrame> take() {
        std::unique_lock lock(mutex_);
        while (queue_.empty() && !ended_) {
            // A caller's stop flag wakes nobody: look at it now and then.
            constexpr std::chrono::milliseconds kLook{50};
            filled_.wait_for(lock, kLook);
            if (user_stopped()) break;
        }
        // The decoding thread has seen the flag, too: what ended is not the video.
        if (user_stopped()) throw_input("{}: interrupted", source_->name());
        if (queue_.empty()) {
            if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
            return std::nullopt;
        }
        VideoFrame frame = std::move(queue_.front());
        queue_.pop_front();
        queued_bytes_ -= frame.image.rgb.size();
        ++report_.frames;
        room_.notify_one();
        return frame;
    }

    VideoReport report() const {
        const std::lock_guard lock(mutex_);
        return report_;
    }

    VideoFacts facts;

  private:
    void describe() {
        const AVCodecParameters& parameters = *source_->stream().codecpar;
        facts.container = source_->container();
        facts.codec = source_->codec();
        facts.width = parameters.width;
        facts.height = parameters.height;
        facts.fps = source_->fps();
        const int64_t duration = source_->format()->duration;
        if (duration > 0) facts.seconds = static_cast<double>(duration) / AV_TIME_BASE;
        const auto pixels = static_cast<uint64_t>(std::max(facts.width, 0)) *
                            static_cast<uint64_t>(std::max(facts.height, 0));
        if (pixels > options_.source.max_pixels) {
            throw_input("{}: its frames have {} x {} pixels, at most {} pixels are accepted", source_->name(),
                        facts.width, facts.height, options_.source.max_pixels);
        }
        // Of addresses that say how long they are, a guess for whoever waits.
        if (facts.seconds > 0 && !source_->is_file()) {
            const double end = options_.end > 0 ? std::min(options_.end, facts.seconds) : facts.seconds;
            facts.chosen = std::max<int64_t>(1, std::llround((end - options_.start) * options_.fps));
            if (options_.max_frames > 0) facts.chosen = std::min(facts.chosen, options_.max_frames);
        }
    }

    void make_plan(const std::string& name) {
        const FrameTable table = read_frame_table(*source_);
        report_.cut_off = table.cut_off;
        timed_ = !table.times.empty();
        if (timed_) first_time_ = table.times.front();
        const double announced = facts.seconds;
        chosen_ = choose_frames(table, *source_, options_, facts);
        // With other streams, one of those may be the longest.
        constexpr double kRounding = 1;
        const bool alone = source_->format()->nb_streams == 1;
        if (alone && timed_ && announced > facts.seconds + kRounding) report_.cut_off = true;
        planned_ = true;
        next_ = std::min(static_cast<size_t>(options_.skip), chosen_.size());
        reopen(name);
    }

    void reopen(const std::string& name) {
        source_.reset();
        source_ = std::make_unique<VideoSource>(name, options_.source);
        ended_packets_ = false;
        shown_ = 0;
    }

    void run() {
        const FfmpegErrors errors;
        std::exception_ptr error;
        try {
            decode(errors);
        } catch (...) {
            error = std::current_exception();
        }
        const std::lock_guard lock(mutex_);
        error_ = error;
        ended_ = true;
        filled_.notify_all();
    }

    bool user_stopped() const { return user_stop_ != nullptr && user_stop_->load(std::memory_order_relaxed); }
    bool stopped() const { return stop_.load() || user_stopped(); }

    void count_damage(int64_t n = 1) {
        const std::lock_guard lock(mutex_);
        report_.damaged_packets += n;
    }

    bool finished() const {
        if (planned_) return next_ >= chosen_.size();
        return options_.max_frames > 0 && taken_ >= options_.max_frames;
    }

    void decode(const FfmpegErrors& errors) {
        const PacketPtr packet = checked(PacketPtr(av_packet_alloc()));
        const FramePtr frame = checked(FramePtr(av_frame_alloc()));
        while (!finished() && !ended_packets_ && !stopped()) {
            jump();
            bool cut_off = false;
            if (source_->read(*packet, cut_off)) {
                const bool wanted = choose_effort(*packet);
                int sent = wanted ? avcodec_send_packet(decoder_->get(), packet.get()) : 0;
                if (sent == AVERROR(EAGAIN)) {  // frames wait after a damaged one
                    receive(*frame);
                    sent = avcodec_send_packet(decoder_->get(), packet.get());
                }
                av_packet_unref(packet.get());
                if (sent < 0) count_damage();
            } else {
                ended_packets_ = true;
                if (cut_off) {
                    const std::lock_guard lock(mutex_);
                    report_.cut_off = true;
                }
                decoder_->get()->skip_frame = AVDISCARD_DEFAULT;
                avcodec_send_packet(decoder_->get(), nullptr);
            }
            receive(*frame);
        }
        if (stopped()) return;
        const std::lock_guard lock(mutex_);
        if (planned_) report_.missing += static_cast<int64_t>(chosen_.size() - next_);
        if (planned_ ? next_ == 0 : taken_ == 0) {
            throw_input("{}: not one frame could be decoded{}", source_->name(),
                        report_.damaged_packets > 0 ? ": " + errors.describe(AVERROR_INVALIDDATA) : "");
        }
    }

    // Says the decoder how much of the packet's frame is needed. False: nothing at all.
    bool choose_effort(const AVPacket& packet) {
        if (!planned_ || !timed_ || packet.pts == AV_NOPTS_VALUE) return true;
        const auto is_before = [](const ChosenFrame& frame, int64_t time) { return frame.time < time; };
        const auto found = std::lower_bound(chosen_.begin() + static_cast<ptrdiff_t>(next_), chosen_.end(),
                                            packet.pts, is_before);
        const bool chosen = found != chosen_.end() && found->time == packet.pts;
        if (decoder_->every_frame_alone()) return chosen || packet.pts > chosen_[next_].time;
        decoder_->get()->skip_frame = chosen ? AVDISCARD_DEFAULT : AVDISCARD_NONREF;
        return true;
    }

    // Goes to the key frame of the next chosen frame where that saves decoding.
    void jump() {
        if (!planned_ || !timed_ || !may_jump_) return;
        const ChosenFrame& next = chosen_[next_];
        if (next.key == INT64_MIN || next.key <= jumped_to_) return;
        constexpr double kWorthIt = 2;  // seconds
        const double tick = av_q2d(source_->stream().time_base);
        const int64_t from = std::max(last_time_, first_time_);
        if (static_cast<double>(next.key - from) * tick < kWorthIt) return;
        jumped_to_ = next.key;
        if (av_seek_frame(source_->format(), source_->stream().index, next.key, AVSEEK_FLAG_BACKWARD) < 0) {
            may_jump_ = false;
            return;
        }
        avcodec_flush_buffers(decoder_->get());
        just_jumped_ = true;
    }

    void receive(AVFrame& frame) {
        while (!finished() && !stopped()) {
            const int result = avcodec_receive_frame(decoder_->get(), &frame);
            if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
            if (result < 0) {  // also of memory: a damaged size asks for any amount
                count_damage();
                return;
            }
            {
                const std::lock_guard lock(mutex_);
                ++report_.decoded;
            }
            const int64_t number = shown_++;
            if (frame.decode_error_flags != 0 || (frame.flags & AV_FRAME_FLAG_CORRUPT) != 0) {
                count_damage();
            } else {
                consider(frame, number);
            }
            av_frame_unref(&frame);
        }
    }

    void consider(const AVFrame& frame, int64_t number) {
        const int64_t shown_at = frame.best_effort_timestamp;
        if (!planned_) {
            take_by_pace(frame, number, shown_at);
            return;
        }
        const int64_t time = timed_ ? shown_at : number;
        if (timed_ && time == AV_NOPTS_VALUE) return;
        if (just_jumped_) {
            just_jumped_ = false;
            if (time > chosen_[next_].time) {  // the container's index is wrong: without it, then
                start_over();
                return;
            }
        }
        last_time_ = std::max(last_time_, time);
        if (time < chosen_[next_].time) return;
        const Image image = upright(frame);
        while (next_ < chosen_.size() && chosen_[next_].time <= time && !stopped()) {
            const ChosenFrame& chosen = chosen_[next_++];
            if (time > chosen.time) {
                const std::lock_guard lock(mutex_);
                ++report_.replaced;
            }
            put({image, chosen.seconds});
        }
    }

    void start_over() {
        may_jump_ = false;
        reopen(std::string(source_->name()));
        avcodec_flush_buffers(decoder_->get());
        last_time_ = INT64_MIN;
    }

    // Without a plan: the first frame of every 1 / fps seconds.
    void take_by_pace(const AVFrame& frame, int64_t number, int64_t shown_at) {
        if (shown_at != AV_NOPTS_VALUE && !paced_) {
            paced_ = true;
            first_time_ = shown_at;
        }
        constexpr double kUsualRate = 25;
        const double rate = facts.fps > 0 ? facts.fps : kUsualRate;
        const double seconds = shown_at != AV_NOPTS_VALUE ? static_cast<double>(shown_at - first_time_) *
                                                                av_q2d(source_->stream().time_base)
                                                          : static_cast<double>(number) / rate;
        if (seconds < options_.start || (options_.end > 0 && seconds >= options_.end)) {
            ended_packets_ = ended_packets_ || (options_.end > 0 && seconds >= options_.end);
            return;
        }
        const double step = 1 / options_.fps;
        const auto due = static_cast<int64_t>(std::floor((seconds - options_.start) / step + 1e-6));
        if (due < due_) return;
        due_ = due + 1;
        ++taken_;
        if (taken_ > options_.skip) put({upright(frame), seconds});
    }

    Image upright(const AVFrame& stored) {
        const AVFrame& frame = decoder_->in_memory(stored);
        const auto pixels = static_cast<uint64_t>(frame.width) * static_cast<uint64_t>(frame.height);
        if (pixels > options_.source.max_pixels) {
            throw_input("{}: a frame has {} x {} pixels, at most {} pixels are accepted", source_->name(),
                        frame.width, frame.height, options_.source.max_pixels);
        }
        keep_known_colours(const_cast<AVFrame&>(frame));  // ours alone
        Image image = rgb_of_frame(frame, {.saturate_grey = false}, source_->name());
        apply_orientation(image, source_->orientation());
        return image;
    }

    void put(VideoFrame frame) {
        std::unique_lock lock(mutex_);
        const size_t bytes = frame.image.rgb.size();
        const auto full = [&] {
            return (options_.live && queue_.size() >= kLiveQueue) ||
                   (!queue_.empty() && queued_bytes_ + bytes > kQueueBytes);
        };
        if (options_.live && full()) thin_out();
        while (full() && !stopped()) room_.wait_for(lock, std::chrono::milliseconds(50));
        if (stopped()) return;
        queued_bytes_ += bytes;
        queue_.push_back(std::move(frame));
        filled_.notify_one();
    }

    // Drops every other waiting frame, beginning with the oldest.
    void thin_out() {
        std::deque<VideoFrame> kept;
        queued_bytes_ = 0;
        for (size_t i = 0; i < queue_.size(); ++i) {
            if (i % 2 == 0) {
                ++report_.dropped;
                continue;
            }
            queued_bytes_ += queue_[i].image.rgb.size();
            kept.push_back(std::move(queue_[i]));
        }
        queue_ = std::move(kept);
    }

    VideoReaderOptions options_;
    std::atomic<bool> stop_ = false;
    const std::atomic<bool>* user_stop_ = nullptr;
    std::unique_ptr<VideoSource> source_;
    std::unique_ptr<Decoder> decoder_;

    // The plan; of the decoding thread once it runs.
    bool planned_ = false, timed_ = false;
    std::vector<ChosenFrame> chosen_;
    size_t next_ = 0;         // of chosen_
    int64_t shown_ = 0;       // frames the decoder gave since the beginning
    int64_t first_time_ = 0;  // of the video
    int64_t last_time_ = INT64_MIN;
    int64_t jumped_to_ = INT64_MIN;
    bool may_jump_ = true, just_jumped_ = false, ended_packets_ = false;
    bool paced_ = false;
    int64_t taken_ = 0, due_ = 0;  // without a plan

    mutable std::mutex mutex_;
    std::condition_variable filled_, room_;
    std::deque<VideoFrame> queue_;
    size_t queued_bytes_ = 0;
    bool ended_ = false;
    std::exception_ptr error_;
    VideoReport report_;
    std::thread thread_;
};

VideoReader::VideoReader(const std::string& name, const VideoReaderOptions& options)
    : impl_(std::make_unique<Impl>(name, options)) {}
VideoReader::~VideoReader() = default;

const VideoFacts& VideoReader::facts() const {
    return impl_->facts;
}
std::optional<VideoFrame> VideoReader::next() {
    return impl_->take();
}
VideoReport VideoReader::report() const {
    return impl_->report();
}

}  // namespace llava_mini
