// Options and messages of every command that looks at a video.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "llava_mini/llava_mini.hpp"
#include "progress_bar.h"

namespace CLI {
class App;
}

namespace llava_mini::tools {

/// The struct must outlive the parsing.
struct VideoFlags {
    VideoOptions video;

    /// --fps, --max-frames, --start, --end, --frame-resize, --hwaccel
    void add_to(CLI::App& command);
    /// --fusion-frames, with this default
    void add_fusion_frames_to(CLI::App& command, int fusion_frames);
};

/// --look-again
void add_look_again_to(CLI::App& command, SessionOptions& session);

/// Frames are made into views by the flags that pictures have.
VideoOptions with_image_flags(VideoOptions options, const ImageOptions& image);

/// 0:05, 12:34, 1:02:03
std::string clock_text(double seconds);

/// What to look for in --help where a source may be named.
inline constexpr const char* kVideoSources =
    "file, - for standard input, address (http, https, rtsp, udp, tcp, rtmp, srt), or camera "
    "(v4l2:/dev/video0)";

/// Says on stderr what the work will take, and shows how far it is, until it is told that it is over.
class VideoProgress {
  public:
    /// `planned`: the work needs no plan, as the frames of an index.
    explicit VideoProgress(std::string name, bool planned = false)
        : name_(std::move(name)), planned_(planned) {}
    /// The options with the callbacks set; they must not outlive this.
    VideoOptions watched(VideoOptions options);
    void end() { bar_.reset(); }

  private:
    bool update(uint64_t done, uint64_t total, std::string_view label);

    std::string name_;
    std::unique_ptr<ProgressBar> bar_;
    Progress callback_;
    std::string what_;  // the bar's label
    std::chrono::steady_clock::time_point start_{};
    uint64_t first_ = 0;
    bool planned_;
};

nlohmann::ordered_json to_json(const VideoFacts& facts);
nlohmann::ordered_json to_json(const VideoReport& report);

nlohmann::ordered_json to_json(const std::vector<FrameEvidence>& frames);

/// One line on stderr about the frames that were looked at again, if any were.
void explain_second_look(const std::vector<FrameEvidence>& frames);

/// One line on stderr if frames were damaged, missing or dropped.
void explain_report(const VideoReport& report);

}  // namespace llava_mini::tools
