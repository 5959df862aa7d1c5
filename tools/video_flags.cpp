#include "video_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

namespace llava_mini::tools {
namespace {

double mib(uint64_t bytes) {
    return static_cast<double>(bytes) / (1 << 20);
}

}  // namespace

void VideoFlags::add_to(CLI::App& command) {
    command.add_option("--fps", video.fps, "Frames of the video that are looked at in a second")
        ->type_name("X")
        ->check(CLI::Range(1e-6, 1000.0))
        ->capture_default_str();
    command
        .add_option("--max-frames", video.max_frames,
                    "Look at no more, spread over the whole video (default: no limit)")
        ->type_name("N")
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
    command.add_option("--start", video.start, "Look from this second of the video on")
        ->type_name("SECONDS")
        ->check(CLI::Range(0.0, 1e9));
    command.add_option("--end", video.end, "Look up to this second of the video")
        ->type_name("SECONDS")
        ->check(CLI::Range(1e-6, 1e9));
    static const std::map<std::string, FrameResize> resizes = {{"nearest", FrameResize::kNearest},
                                                               {"picture", FrameResize::kPicture}};
    command
        .add_option_function<std::string>(
            "--frame-resize", [this](const std::string& name) { video.resize = resizes.at(name); },
            "nearest: frames are squeezed into the model's square by nearest neighbour, as the official code "
            "does and the model was trained; picture: they are made smaller without aliasing and padded or "
            "cropped like pictures, which keeps shapes and fine detail")
        ->check(CLI::IsMember(resizes))
        ->type_name("nearest|picture")
        ->default_str("nearest");
    command
        .add_option("--hwaccel", video.hardware,
                    "Decode on a device of this kind, as FFmpeg calls it (cuda, vaapi, qsv, ...)")
        ->type_name("KIND");
}

void VideoFlags::add_fusion_frames_to(CLI::App& command, int fusion_frames) {
    video.fusion_frames = fusion_frames;
    command
        .add_option(
            "--fusion-frames", video.fusion_frames,
            "Frames, evenly spaced, with which questions after the first are fused; 0: every question "
            "reads the whole video again")
        ->type_name("N")
        ->check(CLI::Range(0, 1 << 20))
        ->capture_default_str();
}

void add_look_again_to(CLI::App& command, SessionOptions& session) {
    command
        .add_option("--look-again", session.look_again,
                    "Read every question twice: fuse it again with the K frames alone that the first reading "
                    "attended to most, in full detail, and answer from these. Frames whose detail was not "
                    "kept are read again, so a video must be a file, and that of an index be where it was")
        ->type_name("K")
        ->check(CLI::Range(1, 1 << 20));
}

VideoOptions with_image_flags(VideoOptions options, const ImageOptions& image) {
    options.resolution_ratio = image.resolution_ratio;
    options.vision_tokens = image.vision_tokens;
    options.aspect_ratio = image.aspect_ratio;
    options.max_pixels = image.max_pixels;
    return options;
}

std::string clock_text(double seconds) {
    const auto whole = static_cast<int64_t>(seconds + 0.5);
    return whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60)
                        : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

VideoOptions VideoProgress::watched(VideoOptions options) {
    options.on_plan = [this](const VideoPlan& plan) {
        const VideoFacts& f = plan.facts;
        planned_ = true;
        fmt::print(stderr, "llava-mini: {}: {} x {}, {}{}: ", name_, f.width, f.height, f.codec,
                   f.seconds > 0 ? ", " + clock_text(f.seconds) : "");
        if (f.chosen == 0) {
            fmt::print(stderr, "an unknown number of frames\n");
        } else {
            fmt::print(stderr, "{} frames, about {}, {:.1f} MiB of memory ({:.1f} MiB of it KV cache)\n",
                       f.chosen, clock_text(plan.seconds),
                       mib(plan.token_bytes + plan.kv_bytes + plan.fusion_bytes), mib(plan.kv_bytes));
        }
    };
    options.progress = [this](uint64_t done, uint64_t total, std::string_view label) {
        return update(done, total, label);
    };
    return options;
}

bool VideoProgress::update(uint64_t done, uint64_t total, std::string_view label) {
    if (!planned_) return true;  // the first frames are being measured
    const auto now = std::chrono::steady_clock::now();
    if (!bar_ || what_ != label) {
        bar_.reset();
        bar_ = std::make_unique<ProgressBar>();
        callback_ = bar_->callback();
        what_ = label;
        start_ = now;
        first_ = done;
    }
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double rate = seconds > 0 ? static_cast<double>(done - first_) / seconds : 0;
    const bool go_on = callback_(done, total, fmt::format("{} {}, {:.3g}/s", done, label, rate));
    if (done == total) bar_.reset();
    return go_on;
}

nlohmann::ordered_json to_json(const VideoFacts& facts) {
    return {{"container", facts.container}, {"codec", facts.codec},   {"width", facts.width},
            {"height", facts.height},       {"fps", facts.fps},       {"seconds", facts.seconds},
            {"frames", facts.frames},       {"chosen", facts.chosen}, {"variable_rate", facts.variable_rate}};
}

nlohmann::ordered_json to_json(const VideoReport& report) {
    return {{"frames", report.frames},
            {"decoded", report.decoded},
            {"damaged_packets", report.damaged_packets},
            {"replaced", report.replaced},
            {"missing", report.missing},
            {"dropped", report.dropped},
            {"cut_off", report.cut_off}};
}

nlohmann::ordered_json to_json(const std::vector<FrameEvidence>& frames) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const FrameEvidence& frame : frames) {
        list.push_back({{"frame", frame.frame}, {"seconds", frame.seconds}, {"share", frame.share}});
    }
    return list;
}

void explain_second_look(const std::vector<FrameEvidence>& frames) {
    constexpr size_t kMostNamed = 8;
    std::string text;
    for (size_t i = 0; i < std::min(frames.size(), kMostNamed); ++i) {
        text += fmt::format("{}{}", i == 0 ? "" : ", ", clock_text(frames[i].seconds));
    }
    if (frames.size() > kMostNamed) text += fmt::format(" and {} more", frames.size() - kMostNamed);
    if (!text.empty()) fmt::print(stderr, "llava-mini: looked again at {}\n", text);
}

void explain_report(const VideoReport& report) {
    std::string text;
    const auto add = [&](int64_t count, const char* what) {
        if (count > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, what);
    };
    add(report.damaged_packets, "damaged packets skipped");
    add(report.replaced, "frames replaced by the next good one");
    add(report.missing, "frames missing");
    add(report.dropped, "frames dropped");
    if (report.cut_off) text += text.empty() ? "the file is cut off" : ", the file is cut off";
    if (!text.empty()) fmt::print(stderr, "llava-mini: video: {}\n", text);
}

}  // namespace llava_mini::tools
