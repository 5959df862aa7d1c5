#include "media/frame_sampler.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace llava_mini {
namespace {

// x // y of Python for positive doubles: the floor of the exact quotient, by the exact remainder.
double floor_divide(double x, double y) {
    return std::rint((x - std::fmod(x, y)) / y);
}

}  // namespace

std::vector<int64_t> frame_indices(int64_t frames, double fps, int64_t max_frames) {
    if (frames < 1) throw_input("a video of {} frames has nothing to look at", frames);
    if (!(fps > 0) || !std::isfinite(fps)) throw_input("expected a positive frame rate, found {}", fps);
    const double seconds = floor_divide(static_cast<double>(frames), fps);
    int64_t count = static_cast<int64_t>(std::min(static_cast<double>(frames), seconds));
    if (max_frames > 0) count = std::min(count, max_frames);
    return spread_frame_indices(frames, std::max<int64_t>(count, 1));
}

std::vector<int64_t> spread_frame_indices(int64_t frames, int64_t count) {
    if (frames < 1 || count < 1) throw_usage("cannot spread {} indices over {} frames", count, frames);
    const double segment = static_cast<double>(frames - 1) / static_cast<double>(count);
    std::vector<int64_t> indices(count);
    for (int64_t i = 0; i < count; ++i) {
        // std::rint rounds half to even in the default rounding mode.
        const auto begin = static_cast<int64_t>(std::rint(segment * static_cast<double>(i)));
        const auto end = static_cast<int64_t>(std::rint(segment * static_cast<double>(i + 1)));
        indices[i] = (begin + end) / 2;
    }
    return indices;
}

}  // namespace llava_mini
