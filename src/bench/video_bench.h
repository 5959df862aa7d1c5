// What a frame of a video costs: by stage, in memory, beside LLaVA-v1.5, and in reading.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "bench/stages.h"
#include "bench/system.h"
#include "core/progress.h"

namespace llava_mini::bench {

struct VideoBenchOptions {
    std::filesystem::path model, baseline;  ///< folders; `baseline` may be empty
    std::string video;                      ///< its frames are what is measured with
    int frames = 4;                         ///< put through each model, after one that is not counted
    int text_tokens = 60;                   ///< of the question, fused with every frame
    int prefill_tokens = 0;  ///< vision tokens put into `model` once, e.g. 10800; 0: that is not measured
    EngineOptions engine;
    Progress progress;                             ///< loading
    std::function<void(std::string_view)> status;  ///< one line at every step; may be empty
};

struct FrameCost {
    std::string name;
    ByStage seconds;  ///< a frame; the prefill of its vision tokens alone, as part of 512 rows
    ByStage flops;
    int tokens = 0;
    double kv_bytes = 0;     ///< language model's KV cache of a frame, f16
    double token_bytes = 0;  ///< vision tokens of a frame, f16
    double weight_bytes = 0;
};

struct VideoBenchResult {
    std::string device, codec;
    int threads = 0, width = 0, height = 0;
    double reader_frames_per_second = 0;  ///< of the video in a second of one core, one frame a second chosen
    double video_fps = 0;
    FrameCost model;
    std::optional<FrameCost> baseline;
    double prefill_seconds = 0, peak_gib = 0;  ///< with prefill_tokens; the process's peak of memory
    int prefill_tokens = 0;

    /// reader_frames_per_second in multiples of real time
    double reader_real_time() const { return reader_frames_per_second / video_fps; }
};

/// Throws what loading, reading and computing throw.
VideoBenchResult run_video_bench(const VideoBenchOptions& options);

std::string to_json(const VideoBenchResult& result);
std::string to_text(const VideoBenchResult& result);
/// Memory (KV cache and vision tokens, f16, and weights) by minutes of video at one frame a second: the
/// paper's figure. A stand-alone SVG.
std::string to_svg(const VideoBenchResult& result);

}  // namespace llava_mini::bench
