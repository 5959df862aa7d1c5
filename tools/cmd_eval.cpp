// llava-mini eval: how often a model is right.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "commands.h"
#include "core/error.h"
#include "data/conversation_dataset.h"
#include "eval/runner.h"
#include "eval/scorer.h"
#include "model_flags.h"
#include "progress_bar.h"
#include "scenes/generator.h"
#include "scenes/long_clip.h"
#include "scenes_flags.h"
#include "video_flags.h"

namespace llava_mini::tools {
namespace {

constexpr int kListed = 5;  // bad samples named in the report
constexpr int kContext = 1024;

struct EvalFlags {
    ModelFlags model;
    ImageFlags image;
    ScenesOptionsFlags scenes;
    eval::RunOptions run;
    std::filesystem::path data, root;
    std::optional<uint64_t> samples;
    std::string model_id;
    int64_t long_frames = 0, needle_frames = 1;
    bool json = false;
};

constexpr uint64_t kDefaultScenes = 500, kDefaultLongClips = 20;

// Long clips, made frame by frame.
eval::Items long_clips(const EvalFlags& flags) {
    const scenes::GeneratorOptions options = flags.scenes.options();
    return [options, frames = flags.long_frames, needle = flags.needle_frames](uint64_t number) {
        auto clip = std::make_shared<const scenes::LongClip>(options, number, frames, needle);
        return eval::Item{fmt::format("long-{}-{}-{}-{}", frames, options.seed,
                                      scenes::kSplits[static_cast<size_t>(options.split)], number),
                          clip->turns(), frames, [clip](int64_t frame) { return clip->frame(frame); }};
    };
}

// What answers depend on besides the options of a run.
std::string settings_of(const EvalFlags& flags) {
    std::vector<std::string> parts;
    if (!flags.model.model.model.empty()) parts.push_back(flags.model.model.model.string());
    if (!flags.model.model.mmproj.empty()) parts.push_back(flags.model.model.mmproj.string());
    if (!flags.model.model.lora.empty()) parts.push_back("adapter " + flags.model.model.lora.string());
    if (flags.data.empty()) {
        const scenes::GeneratorOptions options = flags.scenes.options(), usual;
        if (options.size != usual.size) parts.push_back(fmt::format("size {}", options.size));
        if (options.augment) parts.emplace_back(*options.augment ? "augmented" : "not augmented");
    }
    return fmt::format("{}", fmt::join(parts, ", "));
}

std::unique_ptr<SampleSource> open_dataset(const EvalFlags& flags) {
    std::unique_ptr<ConversationDataset> data;
    {
        ProgressBar bar;
        data = std::make_unique<ConversationDataset>(
            flags.data, flags.root.empty() ? flags.data.parent_path() : flags.root,
            ConversationDatasetOptions{.max_pixels = flags.image.image.max_pixels,
                                       .progress = bar.callback()});
    }
    const auto& skipped = data->skipped();
    if (!skipped.empty()) fmt::print(stderr, "left out as bad: {}\n", skipped.size());
    for (size_t i = 0; i < skipped.size(); ++i) {
        if (i == kListed) {
            fmt::print(stderr, "  and {} more\n", skipped.size() - i);
            break;
        }
        fmt::print(stderr, "  number {} ({}): {}\n", skipped[i].index, skipped[i].id, skipped[i].reason);
    }
    return data;
}

void evaluate(EvalFlags& flags) {
    eval::RunOptions& run = flags.run;
    std::unique_ptr<SampleSource> source;
    if (!flags.data.empty()) {
        source = open_dataset(flags);
    } else if (flags.long_frames == 0) {
        source = std::make_unique<scenes::SceneGenerator>(flags.scenes.options());
    }
    uint64_t there = UINT64_MAX;
    if (source) {
        if (run.first >= source->size())
            throw_usage("--first {}: there are {} samples", run.first, source->size());
        there = source->size() - run.first;
    }
    const uint64_t usual = !source ? kDefaultLongClips : flags.data.empty() ? kDefaultScenes : there;
    run.samples = std::min(flags.samples.value_or(usual), there);
    const auto model = flags.model.load();
    run.model_id = flags.model_id.empty() ? model->info().name : flags.model_id;
    run.settings = settings_of(flags);
    run.session = flags.model.session_options();
    if (run.session.context == 0 && source) {
        run.session.context = std::min(kContext, model->info().context_trained);
    }
    run.image = flags.image.image;
    std::vector<eval::Prediction> predictions;
    {
        ProgressBar bar;
        run.progress = bar.callback();
        predictions = source ? eval::run(model, *source, run) : eval::run(model, long_clips(flags), run);
    }
    const eval::Scores scores = eval::score(predictions);
    fmt::print("{}", flags.json ? eval::to_json(scores) : eval::to_table(scores));
}

}  // namespace

void add_eval(CLI::App& app) {
    auto flags = std::make_shared<EvalFlags>();
    CLI::App* command = app.add_subcommand("eval",
                                           "Measure how often a model is right\n"
                                           "Questions come from synthetic scenes, made on the fly, or from a "
                                           "file in the official format. The table gives, "
                                           "by type of question, the share of right answers with its "
                                           "interval of 95 % confidence, and what the commonest "
                                           "answer alone would get.");
    CLI::Option* data = command
                            ->add_option("--data", flags->data,
                                         "Samples in the official format (JSON or JSONL), instead of scenes")
                            ->type_name("FILE");
    command->add_option("--root", flags->root, "Folder of its pictures (default: where the file is)")
        ->type_name("DIR")
        ->needs(data);
    command
        ->add_option("-N,--samples", flags->samples,
                     "How many samples (default: 500 scenes, or all of --data)")
        ->type_name("N")
        ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 40));
    command->add_option("--first", flags->run.first, "Number of the first one")
        ->type_name("N")
        ->capture_default_str();
    CLI::Option* long_clips =
        command
            ->add_option(
                "--long", flags->long_frames,
                "Clips of so many frames instead, one thing among them seen once (default: 20 clips)")
            ->type_name("FRAMES")
            ->check(CLI::Range(3, 1 << 24))
            ->excludes(data);
    command->add_option("--needle", flags->needle_frames, "Frames for which each thing in these is seen")
        ->type_name("FRAMES")
        ->check(CLI::Range(1, 1 << 20))
        ->needs(long_clips)
        ->capture_default_str();
    command
        ->add_option("--fusion-frames", flags->run.fusion_frames,
                     "Frames of a clip, evenly spaced, with which all questions about it but the first are "
                     "fused, as if they came from an index; 0: all of them")
        ->type_name("N")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    command->add_option("-j,--jobs", flags->run.jobs, "Conversations side by side")
        ->type_name("N")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    command
        ->add_option("-o,--out", flags->run.out,
                     "Write the answers in the official format, one JSON object a line; an interrupted run "
                     "goes on from "
                     "FILE.partial")
        ->type_name("FILE");
    command->add_option("--model-id", flags->model_id, "What the answers call the model (default: its name)")
        ->type_name("NAME");
    command->add_option("-n,--predict", flags->run.sampling.max_tokens, "Most tokens of an answer")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    command->add_flag("--json", flags->json, "Print JSON instead of a table");
    flags->scenes.split = "test";
    flags->model.add_model_to(*command);
    flags->model.add_session_to(*command);
    flags->image.add_to(*command);
    flags->scenes.add_to(*command);
    add_look_again_to(*command, flags->model.session);
    command->callback([flags] { evaluate(*flags); });
}

}  // namespace llava_mini::tools
