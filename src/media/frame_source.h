// Where the frames that are looked at come from, one after the other.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "llava_mini/video.hpp"

namespace llava_mini {

struct VideoFrame {
    Image image;         ///< upright, as its display matrix says
    double seconds = 0;  ///< from the video's beginning
};

class FrameSource {
  public:
    virtual ~FrameSource() = default;
    virtual const VideoFacts& facts() const = 0;
    /// The next frame, waiting for it; nothing at the end. Throws what made reading fail. One thread at a
    /// time.
    virtual std::optional<VideoFrame> next() = 0;
    /// So far. Thread-safe.
    virtual VideoReport report() const = 0;
};

/// The frames that a program makes itself, all of them, at the times that `fps` gives them.
class GeneratedFrames : public FrameSource {
  public:
    /// `frames`: numbers of those that are given, ascending; empty: all. `stop`: polled before every frame;
    /// null: never. Throws Error(kUsage) if the video has no frame, or none of such a number.
    GeneratedFrames(GeneratedVideo video, double fps, const std::atomic<bool>* stop,
                    std::vector<int64_t> frames = {});

    const VideoFacts& facts() const override { return facts_; }
    /// Throws Error(kInput) naming the frame if its pixels are not as its size says, or `stop` is set, and
    /// what the callback throws.
    std::optional<VideoFrame> next() override;
    VideoReport report() const override;

  private:
    GeneratedVideo video_;
    VideoFacts facts_;
    const std::atomic<bool>* stop_;
    std::vector<int64_t> frames_;
    std::atomic<int64_t> given_ = 0;
};

}  // namespace llava_mini
