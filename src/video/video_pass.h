// One pass over a video for one text: every frame's fusion is added to the mean and its K/V are dropped.
#pragma once

#include <functional>
#include <set>

#include "video/frame_encoder.h"
#include "video/seen_video.h"

namespace llava_mini {

/// The text of a pass.
struct PassText {
    std::vector<int32_t> ids;      ///< fused tokens, or the whole prompt where `visible` is given
    std::vector<uint8_t> visible;  ///< official quirks: 0 for masked positions; empty: all are fused
};

/// Chooses the frames that stay: `wanted` evenly spaced ones of `frames`, or, if that is 0 (unknown), between
/// wanted / 2 and wanted, by dropping every other one whenever there are too many.
class FusionFrameChoice {
  public:
    FusionFrameChoice(int64_t frames, int64_t wanted);
    /// Whether frame `index` is kept, for now.
    bool keeps(int64_t index) const;
    /// Of `kept` frames that are held, whether every other one (1, 3, 5, ...) has to go before the next
    /// comes.
    bool must_thin_out(size_t kept);

  private:
    int64_t wanted_, stride_ = 1;
    bool known_;
    std::set<int64_t> indices_;
};

/// Reads all frames. Memory: one batch of encodings, vision tokens, options.fusion_frames encodings with the
/// text's K/V. `f32`: keep vision tokens in f32. `kv_bytes_per_token` is for the plan that options.on_plan
/// gets. Throws what reading and computing throw; Error(kInput, "interrupted") if progress says so.
SeenVideo run_video_pass(Pipeline& pipeline, FrameEncoder& encoder, const VideoOptions& options,
                         const PassText& text, bool f32, uint64_t kv_bytes_per_token, Timings& timings);

}  // namespace llava_mini
