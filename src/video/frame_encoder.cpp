#include "video/frame_encoder.h"

#include <chrono>

#include "core/stopwatch.h"
#include "media/picture_writer.h"
#include "preprocess/clip_image_processor.h"

namespace llava_mini {
namespace {

constexpr int kThumbnailWidth = 160;
constexpr int kMaxBatch = 8;

std::unique_ptr<FrameSource> open_video(const std::string& source, const VideoOptions& options, int64_t skip,
                                        const std::atomic<bool>* stop, bool live) {
    VideoReaderOptions reader = reader_options(options, stop);
    constexpr double kLiveTimeout = 10;  // seconds
    if (live) reader.source.timeout_seconds = kLiveTimeout;
    reader.live = live;
    reader.skip = skip;
    return std::make_unique<VideoReader>(source, reader);
}

}  // namespace

VideoReaderOptions reader_options(const VideoOptions& options, const std::atomic<bool>* stop) {
    VideoReaderOptions reader;
    reader.source.max_pixels = options.max_pixels;
    reader.source.stop = stop;
    reader.fps = options.fps;
    reader.max_frames = options.max_frames;
    reader.start = options.start;
    reader.end = options.end;
    reader.hardware = options.hardware;
    return reader;
}

void BatchSize::took(int frames, double seconds) {
    if (settled_ || frames != size_ || ++runs_ < 2) return;  // the first run builds graphs
    constexpr double kGain = 0.97;
    const double each = seconds / frames;
    if (best_seconds_ > 0 && each > best_seconds_ * kGain) {
        size_ /= 2;
        settled_ = true;
        return;
    }
    best_seconds_ = each;
    runs_ = 0;
    if (size_ == kMaxBatch) {
        settled_ = true;
    } else {
        size_ *= 2;
    }
}

FrameEncoder::FrameEncoder(Pipeline& pipeline, std::unique_ptr<FrameSource> frames,
                           const VideoOptions& options, int grid_side)
    : pipeline_(pipeline), options_(options), grid_side_(grid_side), frames_(std::move(frames)) {}

FrameEncoder::FrameEncoder(Pipeline& pipeline, const std::string& source, const VideoOptions& options,
                           int grid_side, int64_t skip, const std::atomic<bool>* stop, bool live)
    : FrameEncoder(pipeline, open_video(source, options, skip, stop, live), options, grid_side) {}

PixelValues FrameEncoder::pixels_of(const Image& image) const {
    const PreprocessOptions preprocess{.image_aspect_ratio = options_.aspect_ratio,
                                       .resolution_ratio = options_.resolution_ratio};
    return options_.resize == FrameResize::kPicture
               ? preprocess_image(image, pipeline_.hparams(), preprocess)
               : preprocess_frame(image, pipeline_.hparams(), preprocess);
}

std::vector<EncodedFrame> FrameEncoder::next(Timings& timings, int64_t most) {
    const int64_t count = most > 0 ? std::min<int64_t>(most, batch_.next()) : batch_.next();
    std::vector<EncodedFrame> frames;
    std::vector<PixelValues> pixels;
    double seconds = 0;
    {
        const Stopwatch all(seconds);
        {
            const Stopwatch watch(timings.preprocess);
            while (static_cast<int64_t>(frames.size()) < count) {
                std::optional<VideoFrame> frame = frames_->next();
                if (!frame) break;
                pixels.push_back(pixels_of(frame->image));
                EncodedFrame& encoded = frames.emplace_back();
                encoded.seconds = frame->seconds;
                if (options_.thumbnails) encoded.thumbnail = thumbnail_jpeg(frame->image, kThumbnailWidth);
            }
        }
        if (frames.empty()) return frames;
        auto encodings = pipeline_.encode_frames(pixels, grid_side_, timings);
        for (size_t i = 0; i < frames.size(); ++i) frames[i].encoding = std::move(encodings[i]);
    }
    batch_.took(static_cast<int>(frames.size()), seconds);
    return frames;
}

}  // namespace llava_mini
