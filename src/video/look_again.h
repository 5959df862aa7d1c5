// Fusing a question once more, with some frames of a video alone.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/progress.h"
#include "video/frame_encoder.h"
#include "video/index_file.h"
#include "video/seen_video.h"

namespace llava_mini {

/// Opens the encoder of frames that are to be looked at again, by their ascending numbers in SeenVideo.
using OpenFrames = std::function<std::unique_ptr<FrameEncoder>(const std::vector<int64_t>& numbers)>;

/// The rows of ids[begin..) fused with each of `frames` (ascending numbers, one at least), and the mean of
/// that, [ids - begin, d]. ids[0, begin) are read before them, but their rows are not returned. Patch detail
/// comes from the fusion frames of `seen`, or from `open` for the frames that are none: one frame is held at
/// a time, or one batch of the encoder. `progress` (may be empty) counts frames. Throws what reading throws
/// and Error(kInput) if a frame cannot be read any more.
Matrix fuse_with_frames(Pipeline& pipeline, const SeenVideo& seen, std::span<const int32_t> ids,
                        int64_t begin, std::span<const int64_t> frames, const OpenFrames& open,
                        const Progress& progress, Timings& timings);

/// The video that an index was made of.
struct IndexedVideo {
    std::string file;
    VideoOptions options;  ///< as given, with the views of the index
    int grid_side = 0;
};

/// Looks for the video where it was when the index was made, then beside the index. It is the one if its size
/// and its first and last 64 KiB are, or if it has only grown. Throws Error(kInput) naming both files if it
/// is not there, or another one is.
IndexedVideo find_indexed_video(const VideoIndexFile& index, const VideoOptions& options);

}  // namespace llava_mini
