// Which frames of a video are looked at.
#pragma once

#include <cstdint>
#include <vector>

namespace llava_mini {

/// One frame a second of a video of `frames` frames at `fps` frames a second:
///   K = min(frames, frames // fps)   (Python's floor division of doubles, which is the floor of the exact
///                                     quotient and may differ from floor(frames / fps))
/// of which at most `max_frames` are taken (0: all), spread by spread_frame_indices. A video shorter than a
/// second gives its middle frame (the official code divides by zero there). Ascending; a video of few frames
/// may name one twice. Throws Error(kInput) for frames < 1 or an fps that is not a positive number.
std::vector<int64_t> frame_indices(int64_t frames, double fps, int64_t max_frames = 0);

/// `count` indices spread over `frames` frames (training: min(frames, 8) of them). With
/// seg = (frames - 1) / count, index i is (round(seg * i) + round(seg * (i + 1))) // 2, round half to even.
/// 1 <= count, 1 <= frames, else Error(kUsage).
std::vector<int64_t> spread_frame_indices(int64_t frames, int64_t count);

}  // namespace llava_mini
