#include "media/frame_plan.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "media/frame_sampler.h"
#include "media/video_reader.h"

namespace llava_mini {
namespace {

// Indices into times[0..n): the frame shown in the middle of each of K equal parts of the time.
std::vector<int64_t> indices_by_time(const std::vector<double>& times, double frame_seconds,
                                     const VideoReaderOptions& options) {
    const double length = times.back() - times.front() + frame_seconds;
    auto count = std::max<int64_t>(1, static_cast<int64_t>(std::floor(length * options.fps)));
    if (options.max_frames > 0) count = std::min(count, options.max_frames);
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < count; ++i) {
        const double middle =
            times.front() + (static_cast<double>(i) + 0.5) * length / static_cast<double>(count);
        const auto after = std::upper_bound(times.begin(), times.end(), middle);
        indices.push_back(std::max<int64_t>(after - times.begin() - 1, 0));
    }
    return indices;
}

// Whether a frame is shown further than half a step from where a constant rate would have it.
bool rate_varies(const std::vector<double>& times, double rate, double wanted_fps) {
    for (size_t i = 0; i < times.size(); ++i) {
        const double expected = times.front() + static_cast<double>(i) / rate;
        if (std::fabs(times[i] - expected) > 0.5 / wanted_fps) return true;
    }
    return false;
}

// Indices of the frames shown at these times, which are those of an earlier plan.
std::vector<int64_t> indices_at(const std::vector<double>& seconds, const std::vector<double>& at,
                                const std::string& name) {
    constexpr double kRounding = 1e-6;
    std::vector<int64_t> indices;
    for (const double time : at) {
        const auto found = std::lower_bound(seconds.begin(), seconds.end(), time - kRounding);
        if (found == seconds.end() || *found > time + kRounding) {
            throw_input("{}: no frame is shown at {:.6f} seconds any more: it is another video now", name,
                        time);
        }
        indices.push_back(found - seconds.begin());
    }
    return indices;
}

}  // namespace

FrameTable read_frame_table(VideoSource& source) {
    FrameTable table;
    const PacketPtr packet = checked(PacketPtr(av_packet_alloc()));
    bool timed = true;
    while (source.read(*packet, table.cut_off)) {
        const bool shown = (packet->flags & AV_PKT_FLAG_DISCARD) == 0;
        if (shown) {
            ++table.frames;
            timed = timed && packet->pts != AV_NOPTS_VALUE;
            if (timed) table.times.push_back(packet->pts);
        }
        if (timed && (packet->flags & AV_PKT_FLAG_KEY) != 0 && packet->pts != AV_NOPTS_VALUE) {
            table.keys.push_back(packet->pts);
        }
        av_packet_unref(packet.get());
    }
    if (!timed) {
        table.times.clear();
        table.keys.clear();
    }
    std::sort(table.times.begin(), table.times.end());
    std::sort(table.keys.begin(), table.keys.end());
    // Containers that announce their frames show when the end is missing.
    table.cut_off = table.cut_off || source.stream().nb_frames > table.frames;
    return table;
}

std::vector<ChosenFrame> choose_frames(const FrameTable& table, const VideoSource& source,
                                       const VideoReaderOptions& options, VideoFacts& facts) {
    const double tick = av_q2d(source.stream().time_base);
    constexpr double kUsualRate = 25;  // of a stream that says nothing at all (raw bit streams)
    if (facts.fps <= 0 && table.times.size() > 1 && table.times.back() > table.times.front()) {
        facts.fps = static_cast<double>(table.frames - 1) /
                    (static_cast<double>(table.times.back() - table.times.front()) * tick);
    }
    if (facts.fps <= 0) facts.fps = kUsualRate;
    facts.frames = table.frames;
    if (table.frames == 0) throw_input("{}: there is no frame in it", source.name());

    std::vector<double> seconds(static_cast<size_t>(table.frames));
    for (size_t i = 0; i < seconds.size(); ++i) {
        seconds[i] = table.times.empty() ? static_cast<double>(i) / facts.fps
                                         : static_cast<double>(table.times[i] - table.times[0]) * tick;
    }
    facts.seconds = seconds.back() + 1 / facts.fps;
    const auto begin = std::lower_bound(seconds.begin(), seconds.end(), options.start);
    const auto end = options.end > 0 ? std::lower_bound(begin, seconds.end(), options.end) : seconds.end();
    if (begin == end) {
        throw_input("{}: no frame between {:.3f} and {:.3f} seconds, the video is {:.3f} seconds long",
                    source.name(), options.start, options.end > 0 ? options.end : facts.seconds,
                    facts.seconds);
    }
    const auto first = begin - seconds.begin();
    const std::vector<double> part(begin, end);
    const double measured = part.size() > 1 && part.back() > part.front()
                                ? static_cast<double>(part.size() - 1) / (part.back() - part.front())
                                : facts.fps;
    facts.variable_rate = rate_varies(part, measured, options.fps);
    std::vector<int64_t> indices;
    if (!options.at.empty()) {
        indices = indices_at(part, options.at, source.name());
    } else if (facts.variable_rate) {
        indices = indices_by_time(part, 1 / measured, options);
    } else {
        indices =
            frame_indices(static_cast<int64_t>(part.size()), facts.fps / options.fps, options.max_frames);
    }

    std::vector<ChosenFrame> chosen;
    for (const int64_t index : indices) {
        const auto i = static_cast<size_t>(first + index);
        ChosenFrame& frame = chosen.emplace_back();
        frame.seconds = seconds[i];
        frame.time = table.times.empty() ? static_cast<int64_t>(i) : table.times[i];
        const auto key = std::upper_bound(table.keys.begin(), table.keys.end(), frame.time);
        frame.key = key == table.keys.begin() ? INT64_MIN : *(key - 1);
    }
    facts.chosen = static_cast<int64_t>(chosen.size());
    return chosen;
}

}  // namespace llava_mini
