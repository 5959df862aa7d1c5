// Which frames of a video file are looked at: its table of frames, and the choice among them.
#pragma once

#include <cstdint>
#include <vector>

#include "media/video_source.h"

namespace llava_mini {

struct VideoReaderOptions;
struct VideoFacts;

/// The frames of a file as the first pass found them.
struct FrameTable {
    std::vector<int64_t> times;  ///< of every shown frame, in the stream's time base, ascending; or empty:
                                 ///< the file says not when its frames are shown
    std::vector<int64_t> keys;   ///< those of key frames, ascending
    int64_t frames = 0;
    bool cut_off = false;
};

/// Reads all packets of the video stream, decoding none.
FrameTable read_frame_table(VideoSource& source);

/// A frame to be looked at.
struct ChosenFrame {
    int64_t time = 0;  ///< in the stream's time base; without times: its number in the video
    int64_t key = 0;   ///< time of the key frame that decoding has to start from
    double seconds = 0;
};

/// Applies the rule of VideoReader. `facts` gets what the table says. Throws Error(kInput) if there is no
/// frame between options.start and options.end.
std::vector<ChosenFrame> choose_frames(const FrameTable& table, const VideoSource& source,
                                       const VideoReaderOptions& options, VideoFacts& facts);

}  // namespace llava_mini
