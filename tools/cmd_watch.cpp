// llava-mini watch: a live source, and a question that is answered again and again.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "answer_text.h"
#include "commands.h"
#include "core/error.h"
#include "model_flags.h"
#include "stop_on_interrupt.h"
#include "video_flags.h"

namespace llava_mini::tools {
namespace {

struct WatchFlags {
    ModelFlags model;
    ImageFlags image;
    SamplingFlags sampling;
    VideoFlags video;
    WatchOptions options;
    std::string source, question;
    bool json = false;
};

std::string now_text() {
    const auto now = std::chrono::system_clock::now();
    return fmt::format("{:%Y-%m-%dT%H:%M:%S}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(now)));
}

// Answers to stdout, the rest to stderr. False if stdout is gone.
bool show(const WatchEvent& event, const WatchFlags& flags) {
    switch (event.kind) {
        case WatchEvent::Kind::kConnected:
            fmt::print(stderr, "llava-mini: watching {}\n", flags.source);
            return true;
        case WatchEvent::Kind::kDropping:
            fmt::print(stderr, "llava-mini: slower than the source: frames are dropped evenly\n");
            return true;
        case WatchEvent::Kind::kLost:
            fmt::print(stderr, "llava-mini: {}; trying again in {:.3g} s\n", event.message,
                       event.retry_seconds);
            return true;
        case WatchEvent::Kind::kAnswer:
            break;
    }
    if (!flags.json) return print_piece(fmt::format("[{}] {}\n", now_text(), event.answer.text));
    const nlohmann::ordered_json object = {{"time", now_text()},
                                           {"seconds", event.seconds},
                                           {"answer", event.answer.text},
                                           {"stop_reason", stop_reason_name(event.answer.stop)},
                                           {"frames", event.frames},
                                           {"vision_tokens", event.answer.vision_tokens},
                                           {"prompt_tokens", event.answer.prompt_tokens},
                                           {"cached_tokens", event.answer.cached_tokens},
                                           {"dropped", event.dropped}};
    return print_piece(
        object.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::ordered_json::error_handler_t::replace) +
        "\n");
}

void run(WatchFlags& flags) {
    const SamplingOptions sampling = flags.sampling.options();
    const auto model = flags.model.load();
    Session session(model, flags.model.session_options());
    flags.options.video = with_image_flags(flags.video.video, flags.image.image);
    const StopOnInterrupt guard(session);
    session.watch(flags.source, flags.question, flags.options, sampling,
                  [&](const WatchEvent& event) { return show(event, flags); });
}

}  // namespace

void add_watch(CLI::App& app) {
    auto flags = std::make_shared<WatchFlags>();
    CLI::App* command =
        app.add_subcommand("watch",
                           "Watch a live source and answer a question about it again and again\n"
                           "A window of the last frames stays in the KV cache, so memory does not grow. A "
                           "lost source is tried again. "
                           "Ctrl-C ends it.");
    command->add_option("source", flags->source, std::string("What to watch: ") + kVideoSources)
        ->required()
        ->type_name("SOURCE");
    command->add_option("--ask", flags->question, "The question")->required()->type_name("TEXT");
    static const std::map<std::string, double> units = {{"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
    const auto duration = CLI::AsNumberWithUnit(units, CLI::AsNumberWithUnit::CASE_SENSITIVE);
    command->add_option("--every", flags->options.every_seconds, "Time between answers, e.g. 10s")
        ->transform(duration)
        ->type_name("TIME")
        ->default_str("10s");
    command
        ->add_option("--window", flags->options.window_seconds, "The past that answers are about, e.g. 10m")
        ->transform(duration)
        ->type_name("TIME")
        ->default_str("10m");
    command
        ->add_option("--fusion-frames", flags->options.fusion_frames,
                     "Frames of the window, evenly spaced, with which the question is fused")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    command->add_flag("--json", flags->json, "Print a JSON object a line");
    flags->model.add_model_to(*command);
    flags->model.add_session_to(*command);
    flags->image.add_to(*command);
    flags->video.add_to(*command);
    flags->sampling.add_to(*command);
    command->callback([flags] { run(*flags); });
}

}  // namespace llava_mini::tools
