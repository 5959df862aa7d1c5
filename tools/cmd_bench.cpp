// llava-mini bench: what a first answer costs, beside LLaVA-v1.5 and libllama alone.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>

#include "bench/benchmark.h"
#include "bench/chart.h"
#include "bench/models.h"
#include "bench/report.h"
#include "bench/video_bench.h"
#include "commands.h"
#include "convert/quantization.h"
#include "convert/synth.h"
#include "core/file.h"
#include "progress_bar.h"

namespace llava_mini::tools {
namespace {

constexpr const char* kShape = "llava-mini-llama-3.1-8b";
constexpr const char* kAgainst = "llava-v1.5-7b";
constexpr const char* kNone = "none";

struct BenchFlags {
    std::string shape = kShape, against = kAgainst, type = "q4_0";
    std::filesystem::path cache = bench::default_model_cache(), svg;
    bench::BenchmarkOptions options;
    bench::VideoBenchOptions video;
    double megapixels = 12;
    bool json = false;
};

std::string shape_names() {
    std::string names;
    for (const SynthShape& shape : synth_shapes()) names += (names.empty() ? "" : ", ") + shape.name;
    return names;
}

void run(BenchFlags& flags) {
    const ggml_type type = parse_tensor_type(flags.type);
    bench::BenchmarkOptions& options = flags.options;
    // Nothing is made before it is certain that all can be.
    for (const std::string& name : {flags.shape, flags.against}) {
        if (name != kNone) find_synth_shape(name);
    }
    // A photograph of 4 : 3.
    options.picture_width = static_cast<int>(std::lround(std::sqrt(flags.megapixels * 1e6 * 4 / 3)));
    options.picture_height = static_cast<int>(std::lround(options.picture_width * 0.75));
    options.status = [](std::string_view line) {
        fmt::print(stderr, "{}\n", line);
        std::fflush(stderr);
    };
    const auto prepare = [&](const std::string& shape) {
        ProgressBar bar;
        return bench::prepare_model(flags.cache, shape, type, bar.callback());
    };
    const bool own_model = !options.model.empty();
    if (!own_model) options.model = prepare(flags.shape);
    if (flags.against != kNone) options.baseline = prepare(flags.against);

    const auto write_svg = [&](const std::string& svg) {
        if (flags.svg.empty()) return;
        AtomicFile file(flags.svg);
        file.write(svg);
        file.commit();
    };
    if (!flags.video.video.empty()) {
        flags.video.model = options.model;
        flags.video.baseline = options.baseline;
        flags.video.engine = options.engine;
        flags.video.text_tokens = options.workload.text_tokens;
        flags.video.status = options.status;
        const bench::VideoBenchResult video = bench::run_video_bench(flags.video);
        write_svg(bench::to_svg(video));
        const std::string report = flags.json ? bench::to_json(video) : bench::to_text(video);
        std::fwrite(report.data(), 1, report.size(), stdout);
        return;
    }
    const bench::BenchmarkResult result = bench::run_benchmark(options);
    const bool with_targets = !own_model && flags.shape == kShape && flags.against == kAgainst &&
                              options.workload.text_tokens == bench::Workload().text_tokens &&
                              options.workload.new_tokens == bench::Workload().new_tokens;
    write_svg(bench::to_svg(result));
    const std::string report =
        flags.json ? bench::to_json(result, with_targets) : bench::to_text(result, with_targets);
    std::fwrite(report.data(), 1, report.size(), stdout);
}

}  // namespace

void add_bench(CLI::App& app) {
    auto flags = std::make_shared<BenchFlags>();
    bench::BenchmarkOptions& options = flags->options;
    CLI::App* command = app.add_subcommand(
        "bench",
        "Measure a model's stages, first answers, second questions and generation beside LLaVA-v1.5 and "
        "libllama "
        "alone, in turns in one run. Models of real shapes with random weights are made once and kept "
        "(docs/benchmark.md says what is measured and how).");
    command->add_option("--shape", flags->shape, "Shape of the model: " + shape_names())
        ->type_name("NAME")
        ->capture_default_str();
    command->add_option("--against", flags->against, "Shape of the model it is compared with, or none")
        ->type_name("NAME")
        ->capture_default_str();
    command->add_option("--type", flags->type, "Type of the large matrices of both, as of convert --outtype")
        ->type_name("TYPE")
        ->capture_default_str();
    command->add_option("-m,--model", options.model, "Measure this model (a folder) instead of a made one")
        ->type_name("DIR")
        ->check(CLI::ExistingDirectory);
    command->add_option("--cache", flags->cache, "Folder of made models")
        ->type_name("DIR")
        ->capture_default_str();
    command
        ->add_option(
            "--video", flags->video.video,
            "Measure what a frame of this video costs, and reading it, instead of a picture's question")
        ->type_name("FILE");
    command->add_option("--video-frames", flags->video.frames, "Frames put through each model with --video")
        ->type_name("N")
        ->check(CLI::Range(1, 100000))
        ->capture_default_str();
    command
        ->add_option(
            "--video-prefill", flags->video.prefill_tokens,
            "With --video: put so many vision tokens into the language model once and report time and "
            "memory; 10800 are three hours")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 24));
    command->add_option("--repeat", options.repeat, "Rounds; medians are reported")
        ->type_name("N")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command->add_option("--megapixels", flags->megapixels, "Size of the picture")
        ->type_name("X")
        ->check(CLI::Range(0.001, 178.0))
        ->capture_default_str();
    command->add_option("--text-tokens", options.workload.text_tokens, "Tokens of text in the first question")
        ->type_name("N")
        ->check(CLI::Range(2, 100000))
        ->capture_default_str();
    command->add_option("--new-tokens", options.workload.new_tokens, "Tokens of the second question")
        ->type_name("N")
        ->check(CLI::Range(1, 100000))
        ->capture_default_str();
    command
        ->add_option("-n,--predict", options.workload.generated_tokens, "Tokens generated to time generation")
        ->type_name("N")
        ->check(CLI::Range(1, 100000))
        ->capture_default_str();
    command->add_option("-t,--threads", options.engine.threads, "CPU threads (default: one a core)")
        ->type_name("N")
        ->check(CLI::Range(1, 4096));
    command
        ->add_option(
            "--gpu-layers", options.engine.gpu_layers,
            "Layers of the language model put on the GPU, -1 for all; unless 0, the vision side goes there "
            "too (also -ngl)")
        ->type_name("N")
        ->check(CLI::Range(-1, 10000))
        ->capture_default_str();
    static const std::map<std::string, KvType> kv_types = {
        {"f16", KvType::kF16}, {"q8_0", KvType::kQ8_0}, {"f32", KvType::kF32}};
    command
        ->add_option_function<std::string>(
            "--kv-type", [&options](const std::string& name) { options.engine.kv_type = kv_types.at(name); },
            "Type of cached keys and values")
        ->check(CLI::IsMember(kv_types))
        ->type_name("f16|q8_0|f32")
        ->default_str("f16");
    command->add_flag("--json", flags->json, "Print one JSON object instead of tables");
    command->add_option("--svg", flags->svg, "Write a chart")->type_name("FILE");
    command->callback([flags] { run(*flags); });
}

}  // namespace llava_mini::tools
