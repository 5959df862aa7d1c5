#include <numeric>

#include "core/error.h"
#include "media/frame_source.h"

namespace llava_mini {

GeneratedFrames::GeneratedFrames(GeneratedVideo video, double fps, const std::atomic<bool>* stop,
                                 std::vector<int64_t> frames)
    : video_(std::move(video)), stop_(stop), frames_(std::move(frames)) {
    if (video_.frames < 1 || !video_.frame || !(fps > 0)) {
        throw_usage("{}: {} frames at {} a second: expected one at least, and whoever makes it", video_.name,
                    video_.frames, fps);
    }
    if (frames_.empty()) {
        frames_.resize(static_cast<size_t>(video_.frames));
        std::iota(frames_.begin(), frames_.end(), int64_t{0});
    }
    if (frames_.front() < 0 || frames_.back() >= video_.frames) {
        throw_usage("{}: frames {} to {} of {}", video_.name, frames_.front(), frames_.back(), video_.frames);
    }
    facts_.container = "generated";
    facts_.fps = fps;
    facts_.seconds = static_cast<double>(video_.frames) / fps;
    facts_.frames = video_.frames;
    facts_.chosen = static_cast<int64_t>(frames_.size());
}

std::optional<VideoFrame> GeneratedFrames::next() {
    if (stop_ != nullptr && stop_->load(std::memory_order_relaxed))
        throw_input("{}: interrupted", video_.name);
    if (given_ >= facts_.chosen) return std::nullopt;
    const int64_t number = frames_[static_cast<size_t>(given_.load())];
    VideoFrame frame{video_.frame(number), static_cast<double>(number) / facts_.fps};
    const Image& image = frame.image;
    if (image.width < 1 || image.height < 1 ||
        image.rgb.size() !=
            size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height)) {
        throw_input("{}: frame {}: {} x {} pixels in {} bytes", video_.name, number, image.width,
                    image.height, image.rgb.size());
    }
    ++given_;
    return frame;
}

VideoReport GeneratedFrames::report() const {
    VideoReport report;
    report.frames = given_;
    return report;
}

}  // namespace llava_mini
