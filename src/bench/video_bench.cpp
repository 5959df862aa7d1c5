#include "bench/video_bench.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/flops.h"
#include "core/error.h"
#include "core/stopwatch.h"
#include "preprocess/clip_image_processor.h"
#include "session/model_impl.h"
#include "video/frame_encoder.h"

namespace llava_mini::bench {
namespace {

constexpr int kRows = 512;  // of a batch of prefill

// Of all threads of this process: what a core would take, whatever else the machine does.
double cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void measure_reader(const VideoBenchOptions& options, VideoBenchResult& result) {
    VideoReaderOptions reader_options;
    reader_options.threads = 1;
    const double start = cpu_seconds();
    VideoReader reader(options.video, reader_options);
    while (reader.next()) {
    }
    const double seconds = cpu_seconds() - start;
    const VideoFacts& facts = reader.facts();
    if (facts.frames == 0 || facts.fps <= 0)
        throw_input("{}: expected a file of known length", options.video);
    result.codec = facts.codec;
    result.width = facts.width;
    result.height = facts.height;
    result.video_fps = facts.fps;
    result.reader_frames_per_second = static_cast<double>(facts.frames) / seconds;
}

FrameCost measure_frames(const VideoBenchOptions& options, const std::filesystem::path& folder,
                         VideoBenchResult& result, bool with_prefill) {
    const auto model = Model::load({.model = folder,
                                    .gpu_layers = options.engine.gpu_layers,
                                    .threads = options.engine.threads,
                                    .prefusion_kv = options.engine.kv_type,
                                    .image_cache_bytes = 0,
                                    .progress = options.progress});
    Model::Impl& impl = model->impl();
    Pipeline& pipeline = impl.pipeline;
    const VisionHparams& hp = pipeline.hparams();
    const LlamaHparams& language = impl.language->hparams();
    result.device = pipeline.backends().device_name();
    result.threads = impl.threads;
    const int side = impl.grid_side(0);

    FrameCost cost;
    cost.name = hp.name;
    cost.tokens = hp.vision_tokens(side);
    cost.token_bytes = 2.0 * cost.tokens * language.n_embd;
    cost.kv_bytes = 4.0 * cost.tokens * language.n_layer * language.n_head_kv * language.head_dim;
    cost.weight_bytes = static_cast<double>(pipeline.weights().bytes() + impl.language->weight_bytes());
    const QuestionShape shape{hp.resolution_ratio == 1 ? 1 : hp.resolution_ratio * hp.resolution_ratio + 1,
                              side, options.text_tokens};
    cost.flops = first_answer_flops(hp, language, shape);
    cost.flops[Stage::kPrefill] = decoder_flops(language, language.n_layer, cost.tokens, 0);

    const std::vector<int32_t> text(static_cast<size_t>(options.text_tokens), impl.language->n_vocab() / 3);
    VideoOptions frame_options;
    frame_options.max_frames = options.frames + 1;
    FrameEncoder encoder(pipeline, options.video, frame_options, side, 0, nullptr);
    Timings timings;
    int frames = 0;
    Matrix tokens;
    for (auto batch = encoder.next(timings, 1); !batch.empty(); batch = encoder.next(timings, 1)) {
        pipeline.fuse_text(text, {&batch[0].encoding, 1}, nullptr, timings);
        tokens = batch[0].encoding->vision_tokens;
        if (frames++ == 0) timings = {};  // the first builds graphs
        if (options.status)
            options.status(fmt::format("{}: frame {} of {}", cost.name, frames, options.frames + 1));
    }
    const double counted = std::max(frames - 1, 1);
    cost.seconds[Stage::kPreprocess] = timings.preprocess / counted;
    cost.seconds[Stage::kTower] = timings.vision_tower / counted;
    cost.seconds[Stage::kCompressor] = timings.compressor / counted;
    cost.seconds[Stage::kProjector] = timings.projector / counted;
    cost.seconds[Stage::kPrefusionVision] = timings.prefusion_vision / counted;
    cost.seconds[Stage::kPrefusionText] = timings.prefusion_text / counted;

    // Rows of vision tokens, as in the middle of a long video.
    Matrix rows(kRows, language.n_embd);
    for (int64_t i = 0; i < kRows; ++i) std::ranges::copy(tokens.row(i % tokens.rows), rows.row(i).begin());
    const int prefill = with_prefill ? options.prefill_tokens : 0;
    LanguageContextOptions context_options;
    context_options.n_ctx = std::max(2 * kRows, (prefill + kRows) / kRows * kRows);
    context_options.n_batch = kRows;
    context_options.threads = impl.threads;
    context_options.kv_type = to_ggml(options.engine.kv_type);
    LanguageContext context(impl.language, context_options);
    context.decode_embeddings(rows.data.data(), kRows, /*want_logits=*/false);  // warm
    context.keep_prefix(0);
    double seconds = 0;
    {
        const Stopwatch watch(seconds);
        context.decode_embeddings(rows.data.data(), kRows, /*want_logits=*/false);
    }
    cost.seconds[Stage::kPrefill] = seconds / kRows * cost.tokens;
    if (prefill > 0) {
        context.keep_prefix(0);
        const Stopwatch watch(result.prefill_seconds);
        for (int done = 0; done < prefill;) {
            const int count = std::min(kRows, prefill - done);
            context.decode_embeddings(rows.data.data(), count, /*want_logits=*/done + count == prefill);
            done += count;
            if (options.status)
                options.status(fmt::format("{}: prefill, {} of {} tokens", cost.name, done, prefill));
        }
        rusage usage{};
        getrusage(RUSAGE_SELF, &usage);
        result.peak_gib = static_cast<double>(usage.ru_maxrss) / (1 << 20);
        result.prefill_tokens = prefill;
    }
    return cost;
}

nlohmann::ordered_json to_json(const FrameCost& cost) {
    nlohmann::ordered_json seconds, flops;
    for (const Stage stage : kAllStages) {
        seconds[stage_key(stage)] = cost.seconds[stage];
        flops[stage_key(stage)] = cost.flops[stage];
    }
    return {{"name", cost.name},
            {"seconds", seconds},
            {"seconds_total", cost.seconds.total()},
            {"flops", flops},
            {"flops_total", cost.flops.total()},
            {"vision_tokens", cost.tokens},
            {"kv_bytes_f16", cost.kv_bytes},
            {"token_bytes_f16", cost.token_bytes},
            {"weight_bytes", cost.weight_bytes}};
}

double mib(double bytes) {
    return bytes / (1 << 20);
}

}  // namespace

VideoBenchResult run_video_bench(const VideoBenchOptions& options) {
    VideoBenchResult result;
    measure_reader(options, result);
    if (options.status) options.status(fmt::format("{}: read", options.video));
    result.model = measure_frames(options, options.model, result, /*with_prefill=*/true);
    if (!options.baseline.empty()) result.baseline = measure_frames(options, options.baseline, result, false);
    return result;
}

std::string to_json(const VideoBenchResult& result) {
    nlohmann::ordered_json object = {{"device", result.device},
                                     {"threads", result.threads},
                                     {"reader",
                                      {{"codec", result.codec},
                                       {"width", result.width},
                                       {"height", result.height},
                                       {"frames_per_second", result.reader_frames_per_second},
                                       {"times_real_time", result.reader_real_time()}}},
                                     {"model", to_json(result.model)}};
    if (result.prefill_tokens > 0) {
        object["prefill"] = {{"tokens", result.prefill_tokens},
                             {"seconds", result.prefill_seconds},
                             {"peak_gib", result.peak_gib}};
    }
    if (result.baseline) {
        object["baseline"] = to_json(*result.baseline);
        object["ratios"] = {{"flops", result.baseline->flops.total() / result.model.flops.total()},
                            {"seconds", result.baseline->seconds.total() / result.model.seconds.total()}};
    }
    return object.dump(2) + "\n";
}

std::string to_text(const VideoBenchResult& result) {
    std::string text =
        fmt::format("{}, {} threads\nreading {} at {} x {}: {:.0f} frames/s a core, {:.1f} times real time\n",
                    result.device, result.threads, result.codec, result.width, result.height,
                    result.reader_frames_per_second, result.reader_real_time());
    const auto add = [&](const FrameCost& cost) {
        text += fmt::format("\n{}, a frame{:>36}{:>12}\n", cost.name, "seconds", "GFLOP");
        for (const Stage stage : kAllStages) {
            if (cost.seconds[stage] == 0 && cost.flops[stage] == 0) continue;
            text += fmt::format("  {:<40}{:>12.4f}{:>12.1f}\n", stage_label(stage), cost.seconds[stage],
                                cost.flops[stage] / 1e9);
        }
        text += fmt::format("  {:<40}{:>12.4f}{:>12.1f}\n", "in all", cost.seconds.total(),
                            cost.flops.total() / 1e9);
        text += fmt::format("  {} vision tokens, {:.4g} MiB of KV cache and {:.4g} MiB of tokens at f16\n",
                            cost.tokens, mib(cost.kv_bytes), mib(cost.token_bytes));
    };
    add(result.model);
    if (result.baseline) {
        add(*result.baseline);
        text += fmt::format("\nbaseline / ours: {:.2f} in counted operations, {:.2f} in time\n",
                            result.baseline->flops.total() / result.model.flops.total(),
                            result.baseline->seconds.total() / result.model.seconds.total());
    }
    if (result.prefill_tokens > 0) {
        text += fmt::format("prefill of {} vision tokens: {:.1f} s, peak of the process {:.2f} GiB\n",
                            result.prefill_tokens, result.prefill_seconds, result.peak_gib);
    }
    return text;
}

std::string to_svg(const VideoBenchResult& result) {
    constexpr double kWidth = 820, kHeight = 460, kLeft = 70, kTop = 60, kPlotWidth = 560, kPlotHeight = 330;
    constexpr double kMinutes = 180, kGib = 48, kSmallGpu = 24;
    const auto x = [&](double minutes) { return kLeft + minutes / kMinutes * kPlotWidth; };
    const auto y = [&](double gib) { return kTop + kPlotHeight - std::min(gib, kGib) / kGib * kPlotHeight; };
    std::string svg = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" "
        "font-size=\"13\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n"
        "<text x=\"{2}\" y=\"30\" font-size=\"17\">Memory by length of video, one frame a second</text>\n",
        kWidth, kHeight, kLeft);
    for (double gib = 0; gib <= kGib; gib += 8) {
        svg += fmt::format(
            "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\" stroke=\"#ddd\"/>\n"
            "<text x=\"{3}\" y=\"{4}\" text-anchor=\"end\">{5:.0f}</text>\n",
            kLeft, kLeft + kPlotWidth, y(gib), kLeft - 8, y(gib) + 4, gib);
    }
    for (double minutes = 0; minutes <= kMinutes; minutes += 30) {
        svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{:.0f}</text>\n", x(minutes),
                           kTop + kPlotHeight + 20, minutes);
    }
    svg += fmt::format(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">minutes of video</text>\n"
        "<text x=\"{}\" y=\"{}\">GiB: weights, KV cache (f16), vision tokens</text>\n"
        "<line x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" stroke=\"#555\" stroke-dasharray=\"4 4\"/>\n"
        "<text x=\"{}\" y=\"{}\">24 GiB</text>\n",
        kLeft + kPlotWidth / 2, kTop + kPlotHeight + 44, kLeft, kTop - 10, kLeft, kLeft + kPlotWidth,
        y(kSmallGpu), y(kSmallGpu), kLeft + kPlotWidth + 8, y(kSmallGpu) + 4);
    const auto curve = [&](const FrameCost& cost, const char* colour) {
        const double per_minute = 60 * (cost.kv_bytes + cost.token_bytes) / (1 << 30),
                     weights = cost.weight_bytes / (1 << 30);
        const double until = std::min(kMinutes, std::max(0.0, (kGib - weights) / per_minute));
        svg += fmt::format(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"3\"/>\n"
            "<text x=\"{}\" y=\"{}\" fill=\"{}\">{}</text>\n",
            x(0), y(weights), x(until), y(weights + per_minute * until), colour, x(until) + 8,
            y(weights + per_minute * until) + (until < kMinutes ? 14 : -6), colour, cost.name);
    };
    if (result.baseline) curve(*result.baseline, "#D55E00");
    curve(result.model, "#0072B2");
    return svg + "</svg>\n";
}

}  // namespace llava_mini::bench
