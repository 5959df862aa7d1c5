// LLaVA-Mini in C++: videos.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "llava_mini/image.hpp"

namespace llava_mini {

/// How a frame becomes a view.
enum class FrameResize {
    kNearest,  ///< to the model's square by nearest neighbour, not keeping the aspect ratio: the official way
    kPicture   ///< as a picture: antialiased, padded or cropped as the model's config says
};

/// A video whose frames the program makes itself. All of them are looked at.
struct GeneratedVideo {
    std::string name;    ///< for errors
    int64_t frames = 0;  ///< how many there are
    /// Makes frame 0 to frames - 1, each a picture of any size. Called in the thread that asks, in ascending
    /// order, and again for those that are looked at once more.
    std::function<Image(int64_t)> frame;
};

/// What is known of a video before a frame was decoded.
struct VideoFacts {
    std::string container, codec;
    int width = 0, height = 0;  ///< as stored
    double fps = 0;             ///< on average; 0: unknown
    double seconds = 0;         ///< duration; 0: unknown
    int64_t frames = 0;         ///< in the video; 0: unknown
    int64_t chosen = 0;         ///< to be looked at; 0: unknown
    bool variable_rate = false;
};

/// What became of its frames.
struct VideoReport {
    int64_t frames = 0;           ///< looked at
    int64_t decoded = 0;          ///< frames that the decoder made
    int64_t damaged_packets = 0;  ///< packets and frames that could not be decoded, skipped
    int64_t replaced = 0;         ///< chosen frames that were damaged: the next good one stands for them
    int64_t missing = 0;          ///< chosen frames after the last good one
    int64_t dropped = 0;          ///< of a live source, as they were not taken in time
    bool cut_off = false;         ///< the file ends before it should
};

/// What the work will take, said when the first frames have been measured.
struct VideoPlan {
    VideoFacts facts;
    double seconds = 0;         ///< for the frames that are left; 0: their number is unknown
    uint64_t token_bytes = 0;   ///< vision tokens of all frames
    uint64_t kv_bytes = 0;      ///< KV cache of the language model for them
    uint64_t fusion_bytes = 0;  ///< pre-fusion keys and values that stay
};

/// Which frames of a video are looked at, and how.
struct VideoOptions {
    double fps = 1;          ///< frames in a second of video
    int64_t max_frames = 0;  ///< at most so many, spread over the whole; 0: no limit
    double start = 0;        ///< seconds from the beginning
    double end = 0;          ///< seconds from the beginning; 0: to the end
    FrameResize resize = FrameResize::kNearest;
    int resolution_ratio = 0;       ///< n of high resolution; 0: as the model's config says
    int vision_tokens = 0;          ///< a frame, of a model with several compression grids; 0: its default
    std::string aspect_ratio = {};  ///< with kPicture: "pad" or "square"; empty: as the model says
    std::string hardware = {};      ///< decode on a device of this kind (cuda, vaapi, ...); empty: no
    uint64_t max_pixels = 178'956'970;  ///< videos with larger frames are refused
    /// Frames, evenly spaced, whose pre-fusion keys and values stay in memory for later questions, which then
    /// take the mean over their fusion with these; the first question always takes it over all frames. 0:
    /// every question reads the whole video again, exactly.
    int fusion_frames = 0;
    /// Keep small pictures of the frames, for contact sheets.
    bool thumbnails = false;
    /// Called once when the first frames have been measured. May be empty.
    std::function<void(const VideoPlan&)> on_plan = {};
    /// Frames done and chosen (0: unknown), then tokens prefilled; false stops. May be empty.
    std::function<bool(uint64_t done, uint64_t total, std::string_view label)> progress = {};
};

/// A frame by how much the language model attended to its vision tokens while it answered.
struct FrameEvidence {
    int64_t frame = 0;   ///< number among the frames looked at
    double seconds = 0;  ///< from the video's beginning
    double share = 0;    ///< of the attention that all frames got
};

/// What is stored of a video for later questions.
struct IndexOptions {
    VideoOptions video = {};  ///< fusion_frames and thumbnails have no effect; progress is of the frames
    /// Frames, evenly spaced, whose pre-fusion keys and values are stored: questions are fused with these. 0:
    /// all of them, which makes answers those of a single pass.
    int fusion_frames = 64;
    /// Store the language model's KV cache of system prompt and vision tokens as well: a question need not
    /// prefill them (128 KiB a frame with Llama 3.1 8B and f16).
    bool language_state = false;
    /// Frames in a record of the file: what is lost at most when the work is killed.
    int segment_frames = 64;
};

/// How a live source is watched.
struct WatchOptions {
    VideoOptions video = {};      ///< frames a second, views, decoding; the rest has no effect
    double every_seconds = 10;    ///< between answers
    double window_seconds = 600;  ///< of the past that answers are about
    int fusion_frames = 16;       ///< evenly spaced ones of the window, with which the question is fused
    double most_retry_seconds =
        30;  ///< a lost source is tried again after 1, 2, 4, ... up to so many seconds
};

struct IndexResult {
    VideoFacts facts;
    VideoReport report;  ///< of the frames looked at now
    int64_t frames = 0;  ///< in the index
    int64_t made = 0;    ///< of these, looked at now
    uint64_t bytes = 0;  ///< size of the file
};

}  // namespace llava_mini
