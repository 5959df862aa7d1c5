// The frames of a video that are looked at, decoded beside whoever takes them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "llava_mini/video.hpp"
#include "media/frame_source.h"
#include "media/video_source.h"
#include "model/stages.h"

namespace llava_mini {

struct VideoReaderOptions {
    VideoSourceOptions source = {};
    double fps = 1;          ///< frames looked at in a second of video
    int64_t max_frames = 0;  ///< at most so many, spread over the whole; 0: no limit
    double start = 0;        ///< seconds from the video's beginning
    double end = 0;          ///< seconds from the video's beginning; 0: to the end
    /// Of a file: look at the frames shown at these times, as an earlier reader gave them
    /// (VideoFrame::seconds), ascending, instead of choosing. Empty: choose.
    std::vector<double> at = {};
    int64_t skip = 0;           ///< chosen frames that are passed over: they are known already
    std::string hardware = {};  ///< decode on this kind of device (av_hwdevice: cuda, vaapi, ...); empty: no
    int threads = 0;            ///< of decoding; 0: a quarter of the cores
    /// The source runs at its own pace: when the taker is slower, waiting frames are thinned out evenly
    /// (every other one is dropped) instead of keeping the source waiting.
    bool live = false;
};

/// Which frames. Of a file, packets are counted in a first pass that decodes nothing, and frame_indices()
/// (media/frame_sampler.h, the official rule) chooses among those between `start` and `end`. Where the frame
/// rate varies so much that the rule would miss the middle of its second by more than half a step, the rule
/// is applied to time: the frame shown at the middle of each of K equal parts. Of sources that cannot be read
/// twice the first frame of every 1 / fps seconds is taken.
///
/// Decoding runs on a thread of its own, ahead of next() by at most 64 MiB of pictures; only chosen frames
/// are converted to RGB. Frames that no other depends on are not decoded unless they are chosen, and where
/// the next chosen frame lies behind a later key frame, the reader jumps to that. Damaged packets are skipped
/// and counted.
class VideoReader : public FrameSource {
  public:
    /// Opens the source and makes the plan. Throws Error(kInput) naming the source (see VideoSource), for a
    /// file without a frame between start and end, or for a codec or device that this build of FFmpeg does
    /// not have; Error(kUsage) for options that make no sense.
    VideoReader(const std::string& name, const VideoReaderOptions& options);
    /// Stops decoding.
    ~VideoReader() override;
    VideoReader(const VideoReader&) = delete;
    VideoReader& operator=(const VideoReader&) = delete;

    const VideoFacts& facts() const override;
    /// Waits for the next chosen frame; nothing at the end. Throws what made decoding fail: Error(kInput) if
    /// not a single frame could be decoded or a frame is too large. One thread at a time.
    std::optional<VideoFrame> next() override;
    /// So far. Thread-safe.
    VideoReport report() const override;

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace llava_mini
