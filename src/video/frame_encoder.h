// From a video to the encodings of its frames, batch by batch.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "llava_mini/video.hpp"
#include "media/video_reader.h"
#include "pipeline.h"

namespace llava_mini {

/// A frame that went through Pipeline::encode_frames.
struct EncodedFrame {
    std::shared_ptr<const ImageEncoding> encoding;
    double seconds = 0;              // from the video's beginning
    std::vector<uint8_t> thumbnail;  // JPEG, if asked for
};

/// Finds out how many frames at once are fastest: doubles as long as that gains, each size measured twice,
/// the first run (which builds graphs) not counted.
class BatchSize {
  public:
    int next() const { return size_; }
    /// `frames` frames took `seconds`.
    void took(int frames, double seconds);

  private:
    int size_ = 1, runs_ = 0;
    double best_seconds_ = 0;
    bool settled_ = false;
};

/// How VideoReader is to read for these options.
VideoReaderOptions reader_options(const VideoOptions& options, const std::atomic<bool>* stop);

/// The model's frame encoder over one video. Not thread-safe.
class FrameEncoder {
  public:
    /// `options` say how frames become views. `pipeline` must outlive it. `grid_side`: C.
    FrameEncoder(Pipeline& pipeline, std::unique_ptr<FrameSource> frames, const VideoOptions& options,
                 int grid_side);
    /// Opens the video (errors of VideoReader); `skip` chosen frames are passed over. `stop` must
    /// outlive it. `live`: as VideoReaderOptions.
    FrameEncoder(Pipeline& pipeline, const std::string& source, const VideoOptions& options, int grid_side,
                 int64_t skip, const std::atomic<bool>* stop, bool live = false);

    const VideoFacts& facts() const { return frames_->facts(); }
    VideoReport report() const { return frames_->report(); }
    /// The next frames, at most `most` (0: any number); none at the end.
    std::vector<EncodedFrame> next(Timings& timings, int64_t most = 0);

  private:
    PixelValues pixels_of(const Image& image) const;

    Pipeline& pipeline_;
    const VideoOptions options_;
    const int grid_side_;
    const std::unique_ptr<FrameSource> frames_;
    BatchSize batch_;
};

}  // namespace llava_mini
