// llava-mini index: stores what depends on a video's frames alone, so that questions cost only themselves.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "core/error.h"
#include "model_flags.h"
#include "video_flags.h"

namespace llava_mini::tools {
namespace {

struct IndexFlags {
    ModelFlags model;
    ImageFlags image;
    VideoFlags video;
    IndexOptions options;
    std::string source;
    std::filesystem::path out;
    std::string fusion_frames = "64";
    bool json = false;
};

int parse_fusion_frames(const std::string& text) {
    if (text == "all") return 0;
    int count = 0;
    if (!CLI::detail::lexical_cast(text, count) || count < 1) {
        throw_usage("--fusion-frames {}: expected a number from 1 on, or all", text);
    }
    return count;
}

void run(IndexFlags& flags) {
    flags.options.fusion_frames = parse_fusion_frames(flags.fusion_frames);
    const auto model = flags.model.load();
    VideoProgress progress(flags.source);
    IndexOptions options = flags.options;
    options.video = progress.watched(with_image_flags(flags.video.video, flags.image.image));
    const IndexResult result =
        make_video_index(model, flags.source, flags.out, options, flags.model.session_options());
    progress.end();
    explain_report(result.report);
    if (flags.json) {
        const nlohmann::ordered_json object = {
            {"index", flags.out.string()},     {"video", flags.source},
            {"frames", result.frames},         {"made", result.made},
            {"bytes", result.bytes},           {"facts", to_json(result.facts)},
            {"report", to_json(result.report)}};
        const auto replace = nlohmann::ordered_json::error_handler_t::replace;
        std::printf("%s\n", object.dump(2, ' ', /*ensure_ascii=*/false, replace).c_str());
        return;
    }
    fmt::print(stderr, "llava-mini: {}: {} frames ({} of them looked at now), {:.1f} MiB\n",
               flags.out.string(), result.frames, result.made, static_cast<double>(result.bytes) / (1 << 20));
}

}  // namespace

void add_index(CLI::App& app) {
    auto flags = std::make_shared<IndexFlags>();
    CLI::App* command = app.add_subcommand("index",
                                           "Look at a video once and store what questions need of it\n"
                                           "`ask --index FILE` and `chat --index FILE` then answer without "
                                           "its frames. Interrupted work, even killed, "
                                           "is gone on with by the same command; it also repairs a damaged "
                                           "index and continues that of a video that "
                                           "has grown.");
    command->add_option("video", flags->source, "The video's file")->required()->type_name("VIDEO");
    command->add_option("-o,--out", flags->out, "The index")->required()->type_name("FILE");
    command
        ->add_option(
            "--fusion-frames", flags->fusion_frames,
            "Frames, evenly spaced, whose pre-fusion keys and values are stored (10 MiB each with Llama "
            "3.1 8B, half with --kv-type q8_0): questions are fused with these; all: with every frame, "
            "exactly as in a single pass")
        ->type_name("N|all")
        ->capture_default_str();
    command->add_flag(
        "--lm-state", flags->options.language_state,
        "Store the language model's KV cache of all frames, too (128 KiB a frame with Llama 3.1 8B): "
        "questions then start at once");
    command
        ->add_option("--segment", flags->options.segment_frames,
                     "Frames that are written together: what is lost at most when the work is killed")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    command->add_flag("--json", flags->json, "Print one JSON object");
    flags->model.add_model_to(*command);
    flags->model.add_session_to(*command);
    flags->image.add_to(*command);
    flags->video.add_to(*command);
    command->callback([flags] { run(*flags); });
}

}  // namespace llava_mini::tools
